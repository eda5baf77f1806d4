//! Starts the reactors' threads.

use super::data_dir::Identity;
use super::driver::Driver;
use super::files::Files;
use super::kernel;
use super::listeners::Listener;
use super::log_files::LogFiles;
use super::placement::Placed;
use super::restart::Restart;
use super::shared::Shared;
use crate::config::{Config, ShardMap};
use crate::limits::{Bounds, CHECKPOINT_LOG_BYTES, REACTOR_STACK_BYTES};
use crate::reactor::recover::{ReactorPlan, ShardPlan};
use crate::reactor::{Boot, Reactor, Settings};
use crate::router::default_starts;
use crate::types::{MemberId, ReactorId};
use bytes::Bytes;
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
        bounds: Bounds::PRODUCTION,
    }
}

/// What a reactor's thread is started with; the rest it makes itself.
struct Start {
    id: ReactorId,
    cpus: Option<Vec<usize>>,
    plan: ReactorPlan,
    left_over: Vec<String>,
    last_file: u64,
    seed: u64,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    files: Arc<Files>,
    listeners: Vec<Listener>,
}

/// Starts a thread for each reactor. The first one accepts all connections and clears what is left over.
pub fn start(
    restart: Restart,
    placed: Placed,
    settings: &Arc<Settings>,
    shared: &Arc<Shared>,
    files: &Arc<Files>,
    listeners: Vec<Listener>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut left_over = Some(restart.left_over);
    let mut listeners = Some(listeners);
    let mut threads = Vec::new();
    for (number, (plan, cpus)) in restart.reactors.into_iter().zip(placed.reactors).enumerate() {
        let start = Start {
            id: ReactorId(u16::try_from(number).expect("the configuration bounds the reactors")),
            cpus,
            plan,
            left_over: left_over.take().unwrap_or_default(),
            last_file: restart.last_file,
            seed: kernel::random_u64()?,
            settings: settings.clone(),
            shared: shared.clone(),
            files: files.clone(),
            listeners: listeners.take().unwrap_or_default(),
        };
        let builder = Builder::new().name(format!("reactor-{number}")).stack_size(REACTOR_STACK_BYTES);
        threads.push(builder.spawn(move || start.run())?);
    }
    Ok(threads)
}

impl Start {
    fn run(mut self) {
        // First of all, so that memory comes from the CPU's own node.
        if let Some(cpus) = self.cpus.take()
            && let Err(error) = kernel::pin(&cpus)
        {
            let fields = vec![("reactor", self.id.to_string()), ("error", error.to_string())];
            self.shared.notices.warn("a reactor is not bound to its CPU", fields);
        }
        let notices = self.shared.notices.clone();
        match self.driver() {
            Ok(driver) => driver.run(),
            Err(error) => notices.halt(&error, vec![]),
        }
    }

    fn driver(self) -> Result<Driver, String> {
        let Start { id, plan, left_over, last_file, seed, settings, shared, files, listeners, .. } = self;
        let (mut shards, mut control) = (Vec::new(), None);
        for shard in plan.shards {
            let loaded = load(shard, settings.member, &files)?;
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
            seed,
            now: shared.clock.now(),
        };
        Driver::new(id, shared, Reactor::new(boot), LogFiles::new(files), listeners)
    }
}

fn load(
    shard: ShardPlan,
    member: MemberId,
    files: &Files,
) -> Result<crate::reactor::recover::Loaded, String> {
    shard.load(member, &mut files.reader())
}
