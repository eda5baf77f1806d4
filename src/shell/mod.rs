//! The real world around the reactors: threads, sockets, files, clocks, signals.
//!
//! ```text
//!   main thread ── supervisor: signals from the first moment on, readiness, watchdog
//!   start       ── gets all of the following going, and ends
//!   reactor-0 … ── driver: one ring, its connections, its log's writes ─── around one `Reactor` each
//!   bulk        ── lane: checkpoints (glommio)
//!   segments    ── lane: files for the logs
//!   founders    ── one for each other member, at a first start
//!   lookup      ── one for each name of another member, while it is looked up
//!   logger      ── the process's log
//! ```
//!
//! Three decisions that surprise. A reactor is *not bound to one CPU* where everybody may use all of them:
//! `placement` says what that would cost. Its loop is *one ring of our own*: on a prototype of the durable
//! put path at 20,000 puts per second it took 33 µs of CPU for a put, and glommio's executor, with three
//! rings and some 16 calls to the kernel for a request, 48 to 58. glommio places threads and runs the bulk
//! lane. The allocator is *mimalloc*: `main.rs` says what it gains and costs.
//!
//! What threads have in common is in `shared`: the sequencer, the queues between them, and who sleeps.
//! Everything else belongs to one thread. All that can fail at a start fails in `start`, with one line that
//! says what to change; later, a write to the log that fails ends the process, since nothing can be promised
//! any more.

// Effects are what this module is for; the rules keep them out of the others.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod boot;
mod bulk;
mod bulk_file;
mod clock;
mod connections;
mod data_dir;
mod dials;
mod driver;
mod dump;
mod files;
mod greeting;
mod kernel;
mod line;
mod listeners;
mod log_files;
mod logger;
mod mail;
mod members;
mod names;
mod placement;
mod process;
mod receive;
mod restart;
mod ring;
mod service;
mod shared;
mod start;
mod start_line;
mod supervisor;
mod unsent;
mod wakers;

use crate::config::{self, Config};
use crate::io::Port;
use crate::limits::STOP_SECS_MAX;
use crate::types::Duration;
use clock::Clock;
use crossbeam::channel::bounded;
pub use dump::dump_log;
use greeting::Terminal;
use kernel::{StopSignal, StopSignals};
use logger::{Logger, Outputs};
use service::InitSystem;
use start::Started;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::Builder;
use supervisor::{Early, Stopped};

/// Serves until a signal comes. Dies of the signal, as etcd does, except as the first process of a
/// container; returns otherwise only where it cannot start.
pub fn run(mut config: Config, warnings: &[config::Warning]) -> ExitCode {
    let clock = Clock::start();
    let terminal = Terminal::look();
    config.log_format = terminal.log_format(&config);
    // To open a pipe is to wait for its reader: until here a signal ends the process by itself.
    let outputs = match Outputs::open(&config.log_outputs) {
        Ok(outputs) => outputs,
        Err(error) => return plain_failure(&error.to_string()),
    };
    // Before any thread is started, which would inherit the signals' old meaning.
    let signals = match StopSignals::hold() {
        Ok(signals) => signals,
        Err(error) => return plain_failure(&format!("cannot wait for signals: {error}")),
    };
    let logger = match Logger::start(outputs, config.log_format, config.log_level) {
        Ok(logger) => logger,
        Err(error) => return plain_failure(&error.to_string()),
    };
    log_panics(&logger);
    warnings.iter().for_each(|warning| logger.warn(&warning.0, vec![]));
    match serve(Arc::new(config), clock, terminal, &signals, &logger) {
        Ok(signal) => {
            logger.flush();
            signal.die();
            ExitCode::SUCCESS
        }
        Err(reason) => logger.halt(&reason, vec![]),
    }
}

fn plain_failure(reason: &str) -> ExitCode {
    eprintln!("braid: {reason}");
    ExitCode::FAILURE
}

/// What a panic says is a line of the log, as nothing else may stand in its stream.
fn log_panics(logger: &Logger) {
    let logger = logger.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or("a panic without words");
        logger.panicked(panic.location(), message);
    }));
}

/// Returns the signal that has ended it, whatever the threads that were started are waiting for.
fn serve(
    config: Arc<Config>,
    clock: Clock,
    terminal: Terminal,
    signals: &StopSignals,
    logger: &Logger,
) -> Result<StopSignal, String> {
    let init = InitSystem::of_environment();
    let (report, start) = bounded(1);
    let (wish, log) = (config.clone(), logger.clone());
    let starting = move || {
        // Nobody waits for it any more where a signal has come.
        let _ = report.send(start::start(&wish, clock, &log));
    };
    let thread = Builder::new().name("start".to_string()).spawn(starting);
    thread.map_err(|error| format!("cannot start a thread: {error}"))?;
    let next_signal = |timeout| signals.next(timeout);
    let started = match supervisor::await_start(&start, next_signal, logger) {
        Ok(started) => started,
        Err(Early::Refused(reason)) => return Err(reason),
        Err(Early::Signal(signal)) => return Ok(signal),
    };
    let serving = || {
        announce(&started, logger);
        init.serving();
        if terminal.is_there() {
            greet(&started, terminal, &config, logger);
        }
    };
    let stop_max = Duration::from_secs(STOP_SECS_MAX);
    match supervisor::supervise(&started, stop_max, next_signal, serving, || init.stopping()) {
        Stopped::InOrder(signal) => {
            logger.info("closed Braid server", vec![("name", config.name.clone())]);
            Ok(signal)
        }
        Stopped::AtOnce(signal) => Ok(signal),
    }
}

/// Says in etcd's words, which its harness waits for, that clients are served.
fn announce(started: &Started, logger: &Logger) {
    for (port, address) in started.served.iter().filter(|(port, _)| *port != Port::Peer) {
        let traffic = if *port == Port::Client { "grpc+http" } else { "http" };
        logger.info("ready to serve client requests", vec![("address", address.to_string())]);
        let fields = vec![("traffic", traffic.to_string()), ("address", address.to_string())];
        logger.info("serving client traffic insecurely; this is strongly discouraged!", fields);
    }
}

/// Greets a person at the terminal, behind all that the log has said so far.
fn greet(started: &Started, terminal: Terminal, config: &Config, logger: &Logger) {
    let of_clients = |(port, address): &(Port, SocketAddr)| (*port == Port::Client).then_some(*address);
    let clients: Vec<SocketAddr> = started.served.iter().filter_map(of_clients).collect();
    logger.flush();
    terminal.greet(config, &clients);
}
