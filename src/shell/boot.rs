//! Starts the reactors' threads, in two steps: all that the kernel may refuse them they take first, before
//! anything is written anywhere; then they get what they are to do.

use super::data_dir::Identity;
use super::driver::Driver;
use super::files::Files;
use super::kernel;
use super::listeners::Listener;
use super::log_files::LogFiles;
use super::notices::Notices;
use super::placement::Placed;
use super::receive::Buffers;
use super::restart::Restart;
use super::ring::{Ring, why_no_ring};
use super::shared::Shared;
use crate::config::{Config, ShardMap};
use crate::limits::{Bounds, CHECKPOINT_LOG_BYTES, DISK_RESERVE_BYTES, REACTOR_STACK_BYTES};
use crate::reactor::recover::ReactorPlan;
use crate::reactor::{Boot, Observing, Reactor, Settings};
use crate::router::default_starts;
use crate::types::{ReactorId, Revision};
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// The operator's wishes as the reactors need them.
pub fn settings(config: &Config, identity: &Identity) -> Settings {
    let texts = |urls: &[crate::config::Url]| urls.iter().map(ToString::to_string).collect();
    Settings {
        member: identity.member,
        cluster: identity.cluster,
        name: config.name.clone(),
        token: identity.token.clone(),
        peer_urls: texts(&config.initial_advertise_peer_urls),
        client_urls: texts(&config.advertise_client_urls),
        shard_starts: match &config.shard_map {
            ShardMap::Default => default_starts(config.shards),
            ShardMap::Cuts(cuts) => {
                let cuts = cuts.iter().map(|cut| Bytes::copy_from_slice(cut));
                std::iter::once(Bytes::new()).chain(cuts).collect()
            }
        },
        request_bytes_max: config.request_bytes_max,
        entry_bytes_max: crate::limits::ENTRY_BYTES_MAX,
        slice: crate::mvcc::Budget::SLICE,
        txn_ops_max: config.txn_ops_max,
        streams_max: config.streams_max,
        quota_bytes: config.quota_bytes,
        election_timeout: config.election_timeout,
        watch_progress_interval: config.watch_progress_interval,
        auto_compaction: config.auto_compaction,
        keepalive_min_time: config.keepalive_min_time,
        keepalive: config.keepalive.map(|keepalive| (keepalive.interval, keepalive.timeout)),
        checkpoint_log_bytes: CHECKPOINT_LOG_BYTES,
        disk_reserve_bytes: DISK_RESERVE_BYTES,
        bounds: Bounds::PRODUCTION,
        observing: Observing {
            handling: config.metrics_extensive,
            slow_apply: config.warning_apply,
            slow_answer: config.warning_unary,
            command_line: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        },
    }
}

/// What a thread has of the kernel for its reactor.
pub struct Seat {
    pub ring: Ring,
    pub buffers: Buffers,
}

impl Seat {
    fn take() -> io::Result<Seat> {
        let ring = Ring::new_patiently()?;
        let buffers = Buffers::provide(&ring)?;
        Ok(Seat { ring, buffers })
    }
}

/// The reactors' threads, each with its seat, waiting for what to do.
pub struct Seated {
    threads: Vec<JoinHandle<()>>,
    starts: Vec<Sender<Start>>,
}

/// Starts a thread for each reactor. The error says what to change.
pub fn seat(placed: Placed, notices: &Notices) -> Result<Seated, String> {
    let reactors = placed.reactors.len();
    let (report, reports) = bounded(reactors);
    let mut seated = Seated { threads: Vec::new(), starts: Vec::new() };
    for (number, cpus) in placed.reactors.into_iter().enumerate() {
        let (report, notices) = (report.clone(), notices.clone());
        let (give, start) = bounded(1);
        let run = move || {
            pin(cpus, number, &notices);
            sit_down(&report, &start);
        };
        let builder = Builder::new().name(format!("reactor-{number}")).stack_size(REACTOR_STACK_BYTES);
        let thread = builder.spawn(run).map_err(|error| format!("cannot start a thread: {error}"))?;
        seated.threads.push(thread);
        seated.starts.push(give);
    }
    for _ in 0..reactors {
        let taken = reports.recv().expect("every thread reports before it ends");
        taken.map_err(|error| why_no_ring(&error, reactors))?;
    }
    Ok(seated)
}

/// First of all, so that memory comes from the CPU's own node.
fn pin(cpus: Option<Vec<usize>>, reactor: usize, notices: &Notices) {
    if let Some(cpus) = cpus
        && let Err(error) = kernel::pin(&cpus)
    {
        let fields = vec![("reactor", reactor.to_string()), ("error", error.to_string())];
        notices.warn("a reactor is not bound to its CPU", fields);
    }
}

/// Ends where there is no seat, or where the start comes to nothing.
fn sit_down(report: &Sender<io::Result<()>>, start: &Receiver<Start>) {
    match Seat::take() {
        Ok(seat) => {
            let _ = report.send(Ok(()));
            if let Ok(start) = start.recv() {
                start.run(seat);
            }
        }
        Err(error) => {
            let _ = report.send(Err(error));
        }
    }
}

/// What a reactor's thread is to do; the rest it makes itself.
struct Start {
    id: ReactorId,
    plan: ReactorPlan,
    left_over: Vec<String>,
    last_file: u64,
    settled: Revision,
    seed: u64,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    files: Arc<Files>,
    listeners: Vec<Listener>,
}

/// Gives each thread its reactor. The first one accepts all connections and clears what is left over.
pub fn start(
    seated: Seated,
    restart: Restart,
    settings: &Arc<Settings>,
    shared: &Arc<Shared>,
    files: &Arc<Files>,
    listeners: Vec<Listener>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut left_over = Some(restart.left_over);
    let mut listeners = Some(listeners);
    for (number, (plan, give)) in restart.reactors.into_iter().zip(seated.starts).enumerate() {
        let start = Start {
            id: ReactorId(u16::try_from(number).expect("the configuration bounds the reactors")),
            plan,
            left_over: left_over.take().unwrap_or_default(),
            last_file: restart.last_file,
            settled: restart.settled,
            seed: kernel::random_u64()?,
            settings: settings.clone(),
            shared: shared.clone(),
            files: files.clone(),
            listeners: listeners.take().unwrap_or_default(),
        };
        assert!(give.send(start).is_ok(), "a seated thread waits for its reactor");
    }
    Ok(seated.threads)
}

impl Start {
    fn run(self, seat: Seat) {
        let notices = self.shared.notices.clone();
        match self.driver(seat) {
            Ok(driver) => driver.run(),
            Err(error) => notices.halt(&error, vec![]),
        }
    }

    fn driver(self, seat: Seat) -> Result<Driver, String> {
        let Start { id, plan, left_over, last_file, settled, seed, settings, shared, files, listeners } =
            self;
        let (mut shards, mut control) = (Vec::new(), None);
        for shard in plan.shards {
            let loaded = shard.load(&mut files.reader())?;
            control = control.or(loaded.control);
            shards.push(loaded.shard);
        }
        let boot = Boot {
            id,
            reactors: u16::try_from(shared.reactors()).expect("the configuration bounds the reactors"),
            settings,
            sequencer: shared.sequencer.clone(),
            log: plan.log,
            shards,
            control,
            stale: plan.stale,
            left_over,
            last_file,
            settled,
            seed,
            now: shared.clock.now(),
        };
        Ok(Driver::new(id, shared, Reactor::new(boot), LogFiles::new(files), listeners, seat))
    }
}
