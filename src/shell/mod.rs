//! The real world around the reactors: threads, sockets, files, clocks, signals.
//!
//! ```text
//!   main thread ── overseer: signals, readiness, watchdog
//!   reactor-0 … ── driver: one ring, its connections, its log's writes ─── around one `Reactor` each
//!   bulk        ── lane: checkpoints (glommio)
//!   segments    ── lane: files for the logs
//!   notices     ── the process's log
//! ```
//!
//! What threads have in common is in [`shared`]: the sequencer, the queues between them, and who sleeps.
//! Everything else belongs to one thread. All that can fail at a start fails in [`run`], with one line that
//! says what to change; later, a write to the log that fails ends the process, since nothing can be promised
//! any more.

// The rules that keep effects out of the other rooms are what this room is for.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod boot;
mod bulk;
mod bulk_file;
mod clock;
mod connections;
mod data_dir;
mod driver;
mod dump;
mod files;
mod kernel;
mod listeners;
mod log_files;
mod mail;
mod notices;
mod overseer;
mod placement;
mod process;
mod receive;
mod restart;
mod ring;
mod shared;
mod waking;

use crate::config::{self, Config, LogOutput};
use crate::io::Port;
use crate::limits::UNSETTLED_REVISIONS_MAX;
use crate::sequencer::Sequencer;
use bulk::Lane;
use clock::Clock;
use data_dir::DataDir;
pub use dump::dump_log;
use kernel::StopSignals;

use notices::Notices;
use ring::Ring;
use shared::Shared;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use waking::Waking;

/// Serves until a signal comes. Dies of the signal, as etcd does, except as the first process of a
/// container; returns otherwise only where it cannot start.
pub fn run(config: &Config, warnings: &[config::Notice]) -> ExitCode {
    let clock = Clock::start();
    // Before any thread is started, which would inherit the signals' old meaning.
    let signals = match StopSignals::hold() {
        Ok(signals) => signals,
        Err(error) => return plain_failure(&format!("cannot wait for signals: {error}")),
    };
    let notices = match Notices::start(&config.log_outputs, config.log_format, config.log_level) {
        Ok(notices) => notices,
        Err(error) => return plain_failure(&error.to_string()),
    };
    flush_before_a_panic_ends_it(&notices);
    warnings.iter().for_each(|warning| notices.warn(&warning.0, vec![]));
    match serve(config, clock, &signals, &notices) {
        Ok(signal) => {
            notices.info("closed Braid server", vec![("name", config.name.clone())]);
            notices.flush();
            signal.die();
            ExitCode::SUCCESS
        }
        Err(reason) => notices.halt(&reason, vec![]),
    }
}

fn plain_failure(reason: &str) -> ExitCode {
    eprintln!("braid: {reason}");
    ExitCode::FAILURE
}

fn flush_before_a_panic_ends_it(notices: &Notices) {
    let (notices, usual) = (notices.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        notices.flush();
    }));
}

fn serve(
    config: &Config,
    clock: Clock,
    signals: &StopSignals,
    notices: &Notices,
) -> Result<kernel::StopSignal, String> {
    let starting = vec![("name", config.name.clone()), ("data-dir", config.data_dir.display().to_string())];
    notices.info("starting Braid", starting);
    drop(Ring::new()?);
    if let Err(error) = kernel::raise_open_files() {
        notices.warn("the limit of open files stays", vec![("error", error.to_string())]);
    }
    let data_dir = DataDir::open(config)?;
    if let Some(warning) = &data_dir.warning {
        notices.warn("check file permission", vec![("error", warning.clone())]);
    }
    let files = Arc::new(data_dir.files()?);
    if !files.is_direct() || !files.writes_in_one_request() {
        let fields = vec![
            ("direct", files.is_direct().to_string()),
            ("durable-in-one-request", files.writes_in_one_request().to_string()),
        ];
        notices.warn("the file system of the data directory makes durable writes slower", fields);
    }
    let reuse_port = config.socket_reuse_port;
    let mut listeners = listeners::listen(&config.listen_client_urls, Port::Client, reuse_port)?;
    listeners.extend(listeners::listen(&config.listen_metrics_urls, Port::Metrics, reuse_port)?);
    let served: Vec<(Port, String)> =
        listeners.iter().map(|listener| (listener.port, listener.address.to_string())).collect();
    notices.debug("with one member nothing listens on the peer URLs", vec![]);

    let restart = restart::restart(&files, config.reactors)?;
    announce_restart(notices, &data_dir, &restart);
    let failed = |error: std::io::Error| format!("cannot start: {error}");
    let waking = Arc::new(Waking::new(config.reactors).map_err(failed)?);
    let lane = Arc::new(Lane::new(files.clone(), notices.clone(), waking.clone()));
    let sequencer = Arc::new(Sequencer::new(UNSETTLED_REVISIONS_MAX));
    let shared = Arc::new(Shared::new(clock, notices.clone(), sequencer, waking, lane.clone()));
    let placed = placement::place(config.reactors);
    placement::start_lane(&lane, &placed, notices).map_err(failed)?;
    let settings = Arc::new(boot::settings(config, &data_dir.identity));
    let threads = boot::start(restart, placed, &settings, &shared, &files, listeners).map_err(failed)?;
    let serving = || announce(config, &data_dir, notices, &served);
    let signal = overseer::oversee(&shared, signals, &threads, serving);
    // A reactor may still write: the lock goes with the process.
    std::mem::forget(data_dir);
    Ok(signal)
}

fn announce_restart(notices: &Notices, data_dir: &DataDir, restart: &restart::Restart) {
    let identity = &data_dir.identity;
    let mut fields = vec![
        ("cluster-id", format!("{:x}", identity.cluster.0)),
        ("local-member-id", format!("{:x}", identity.member.0)),
        ("data-dir", data_dir.path().display().to_string()),
    ];
    if data_dir.is_new {
        notices.info("beginning a new cluster", fields);
        return;
    }
    fields.push(("log-bytes", restart.log_bytes.to_string()));
    fields.push(("shards", restart.reactors.iter().map(|plan| plan.shards.len()).sum::<usize>().to_string()));
    notices.info("restarting a member from its data directory", fields);
}

/// Says that clients are served: to the log in etcd's words, which its harness waits for, and to a person.
fn announce(config: &Config, data_dir: &DataDir, notices: &Notices, served: &[(Port, String)]) {
    for (port, address) in served {
        let traffic = if *port == Port::Client { "grpc+http" } else { "http" };
        notices.info("ready to serve client requests", vec![("address", address.clone())]);
        let fields = vec![("traffic", traffic.to_string()), ("address", address.clone())];
        notices.info("serving client traffic insecurely; this is strongly discouraged!", fields);
    }
    if config.log_outputs.contains(&LogOutput::Stdout) {
        return;
    }
    let clients: Vec<&str> = served
        .iter()
        .filter(|(port, _)| *port == Port::Client)
        .map(|(_, address)| address.as_str())
        .collect();
    let text = format!(
        "Braid serves etcd's v3 API on {}.\n\
         Data: {}; {} reactors, {} shards beside the control shard for a new cluster.\n\
         Try:  etcdctl --endpoints={} put hello world\n",
        clients.join(" and "),
        data_dir.path().display(),
        config.reactors,
        config.shards,
        clients.first().copied().unwrap_or_default(),
    );
    // Whoever closed the pipe does not read it.
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
