//! Starts the reactors' threads, in two steps: first they take what the kernel may refuse them, before anything
//! is written anywhere; then they get what they are to do.

use super::data_dir::Identity;
use super::driver::Driver;
use super::files::Files;
use super::kernel;
use super::listeners::Listener;
use super::log_files::LogFiles;
use super::logger::Logger;
use super::placement::CpuPlacement;
use super::receive::Buffers;
use super::restart::Restart;
use super::ring::{Ring, why_no_ring};
use super::shared::Shared;
use crate::config::{Config, ShardMap};
use crate::limits::{Bounds, CHECKPOINT_LOG_BYTES, DISK_RESERVE_BYTES, REACTOR_STACK_BYTES};
use crate::reactor::{Boot, Observing, Reactor, Settings};
use crate::recover::ReactorPlan;
use crate::router::default_starts;
use crate::stdx::Rng;
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
        directory: identity.store,
        cluster: identity.cluster,
        name: config.name.clone(),
        token: identity.token.clone(),
        peer_urls: identity.own_peer_urls(),
        strict_reconfig_check: config.strict_reconfig_check,
        founders: identity.founders.clone(),
        client_urls: texts(&config.advertise_client_urls),
        shards_are_set: config.shards_are_set,
        joins: identity.joined && !identity.is_to_be_alone,
        stands_alone: identity.is_to_be_alone,
        max_learners: config.max_learners,
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
        heartbeat: config.heartbeat_interval,
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

/// What a thread gets from the kernel for its reactor.
pub struct KernelResources {
    pub ring: Ring,
    pub buffers: Buffers,
}

impl KernelResources {
    fn take() -> io::Result<KernelResources> {
        let ring = Ring::new_patiently()?;
        let buffers = Buffers::provide(&ring)?;
        Ok(KernelResources { ring, buffers })
    }
}

/// The reactors' threads, each with its kernel resources, waiting for what to do.
pub struct SpawnedReactors {
    threads: Vec<JoinHandle<()>>,
    starts: Vec<Sender<ReactorStart>>,
}

/// Starts a thread for each reactor. The error says what to change.
pub fn spawn(placed: CpuPlacement, logger: &Logger) -> Result<SpawnedReactors, String> {
    let reactors = placed.reactors.len();
    let (report, reports) = bounded(reactors);
    let mut spawned = SpawnedReactors { threads: Vec::new(), starts: Vec::new() };
    for (number, cpus) in placed.reactors.into_iter().enumerate() {
        let (report, logger) = (report.clone(), logger.clone());
        let (give, start) = bounded(1);
        let run = move || {
            pin(cpus, number, &logger);
            take_resources(&report, &start);
        };
        let builder = Builder::new().name(format!("reactor-{number}")).stack_size(REACTOR_STACK_BYTES);
        let thread = builder.spawn(run).map_err(|error| format!("cannot start a thread: {error}"))?;
        spawned.threads.push(thread);
        spawned.starts.push(give);
    }
    for _ in 0..reactors {
        let taken = reports.recv().expect("every thread reports before it ends");
        taken.map_err(|error| why_no_ring(&error, reactors))?;
    }
    Ok(spawned)
}

/// Pins the calling thread, first of all, so that memory comes from the CPU's own node.
fn pin(cpus: Option<Vec<usize>>, reactor: usize, logger: &Logger) {
    if let Some(cpus) = cpus
        && let Err(error) = kernel::pin(&cpus)
    {
        let fields = vec![("reactor", reactor.to_string()), ("error", error.to_string())];
        logger.warn("a reactor is not bound to its CPU", fields);
    }
}

/// Takes the kernel's resources and runs what comes. Ends where there are none, or where the start fails.
fn take_resources(report: &Sender<io::Result<()>>, start: &Receiver<ReactorStart>) {
    match KernelResources::take() {
        Ok(resources) => {
            let _ = report.send(Ok(()));
            if let Ok(start) = start.recv() {
                start.run(resources);
            }
        }
        Err(error) => {
            let _ = report.send(Err(error));
        }
    }
}

/// What a reactor's thread is to do; the rest it makes itself.
struct ReactorStart {
    id: ReactorId,
    plan: ReactorPlan,
    left_over: Vec<String>,
    last_file: u64,
    settled: Revision,
    rested: Option<Revision>,
    process: u64,
    seed: u64,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    files: Arc<Files>,
    listeners: Vec<Listener>,
}

/// Gives each thread its reactor. The first one accepts all connections and clears what is left over.
pub fn start(
    spawned: SpawnedReactors,
    restart: Restart,
    settings: &Arc<Settings>,
    shared: &Arc<Shared>,
    files: &Arc<Files>,
    listeners: Vec<Listener>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (mut left_over, process) = (Some(restart.left_over), kernel::random_u64()?);
    let mut listeners = Some(listeners);
    for (number, (plan, give)) in restart.reactors.into_iter().zip(spawned.starts).enumerate() {
        let start = ReactorStart {
            id: ReactorId(u16::try_from(number).expect("the configuration bounds the reactors")),
            plan,
            left_over: left_over.take().unwrap_or_default(),
            last_file: restart.last_file,
            settled: restart.settled,
            rested: restart.rested,
            process,
            seed: kernel::random_u64()?,
            settings: settings.clone(),
            shared: shared.clone(),
            files: files.clone(),
            listeners: listeners.take().unwrap_or_default(),
        };
        assert!(give.send(start).is_ok(), "a spawned thread waits for its reactor");
    }
    Ok(spawned.threads)
}

impl ReactorStart {
    fn run(self, resources: KernelResources) {
        let logger = self.shared.logger.clone();
        match self.driver(resources) {
            Ok(driver) => driver.run(),
            Err(error) => logger.halt(&error, vec![]),
        }
    }

    fn driver(self, resources: KernelResources) -> Result<Driver, String> {
        let ReactorStart {
            id,
            plan,
            left_over,
            last_file,
            settled,
            rested,
            process,
            seed,
            settings,
            shared,
            files,
            listeners,
        } = self;
        let (mut shards, mut control) = (Vec::new(), None);
        let mut elections = Rng::new(seed).fork();
        for shard in plan.shards {
            let elections = settings.elections(shard.id(), elections.fork());
            let loaded = shard.load(elections, &mut files.reader())?;
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
            rested,
            process,
            seed,
            now: shared.clock.now(),
        };
        Ok(Driver::new(id, shared, Reactor::new(boot), LogFiles::new(files), listeners, resources))
    }
}
