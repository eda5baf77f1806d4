//! A start of a member: from the files on the disk to reactors, as the program does it.

use super::files::Files;
use super::plan::Shape;
use super::process::Process;
use crate::checkpoint::CheckpointName;
use crate::limits::{REQUEST_BYTES_DEFAULT, TXN_OPS_DEFAULT};
use crate::log::{LogId, LogStart, Needed, Recovered, Recovery, SegmentName};
use crate::reactor::{AtStart, Boot, Founder, Reactor, Settings};
use crate::recover::{self, Loaded, MemberPlan, ReactorPlan};
use crate::sequencer::Sequencer;
use crate::stdx::Rng;
use crate::types::{ClusterId, Duration, MemberId, ReactorId, StoreId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub const CLUSTER: ClusterId = ClusterId(9);
pub const ELECTION_TIMEOUT: Duration = Duration::from_ms(1000);

/// Who a member is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: MemberId,
    pub name: String,
    pub peer_url: String,
    pub client_url: String,
}

impl Identity {
    /// Makes the identity of the member at a place in the world's list.
    pub fn of(member: usize) -> Identity {
        // No port is above 65535, however many come.
        let url =
            |port: usize| format!("http://localhost:{}", port + 10_000 * (member % 6) + 10 * (member / 6));
        Identity {
            id: MemberId(7 + member as u64),
            name: if member == 0 { "default".into() } else { format!("default-{member}") },
            peer_url: url(2380),
            client_url: url(2379),
        }
    }

    /// It may be reached at this one as well.
    pub fn other_peer_url(&self) -> String {
        self.peer_url.replace("localhost", "127.0.0.1")
    }

    pub fn listens_at(&self, peer_url: &str) -> bool {
        self.peer_url == peer_url || self.other_peer_url() == peer_url
    }
}

/// What an operator was told of a member that joins, and has told it.
#[derive(Clone, Debug)]
pub struct Joiner {
    pub id: MemberId,
    /// All members as they were then, this one among them, in the order of their ids.
    pub members: Vec<Founder>,
}

/// The directory of the member at a place in the world's list.
fn store(member: usize) -> StoreId {
    StoreId(11 + member as u64)
}

/// What a member is started with: as a founder, or as one that joins.
fn settings(member: usize, joiner: Option<&Joiner>, stands_alone: bool, shape: &Shape) -> Settings {
    let Identity { id, name, peer_url, client_url, .. } = Identity::of(member);
    let founders = (0..shape.founders).map(Identity::of);
    let founders =
        founders.map(|Identity { id, name, peer_url, .. }| Founder { id, name, peer_urls: vec![peer_url] });
    Settings {
        member: joiner.map_or(id, |joiner| joiner.id),
        directory: store(member),
        cluster: CLUSTER,
        token: "t".into(),
        strict_reconfig_check: true,
        founders: joiner.map_or_else(|| founders.collect(), |joiner| joiner.members.clone()),
        joins: joiner.is_some() && !stands_alone,
        stands_alone,
        name,
        peer_urls: vec![peer_url],
        client_urls: vec![client_url],
        shards_are_set: true,
        max_learners: crate::limits::LEARNERS_DEFAULT,
        shard_starts: crate::router::default_starts(shape.shards),
        request_bytes_max: REQUEST_BYTES_DEFAULT,
        entry_bytes_max: shape.entry_bytes,
        slice: crate::mvcc::Budget { keys: shape.slice_keys, ..crate::mvcc::Budget::SLICE },
        txn_ops_max: TXN_OPS_DEFAULT,
        streams_max: 1000,
        quota_bytes: shape.quota_bytes,
        heartbeat: Duration::from_ms(100),
        election_timeout: ELECTION_TIMEOUT,
        watch_progress_interval: Duration::from_ms(700),
        auto_compaction: shape.auto_compaction,
        keepalive_min_time: Duration::from_secs(5),
        keepalive: None,
        checkpoint_log_bytes: shape.checkpoint_log_bytes,
        disk_reserve_bytes: shape.members[member].disk_reserve_bytes,
        bounds: shape.bounds,
        observing: Default::default(),
    }
}

/// What a start has read, while the disk makes sure of it.
pub struct Starting {
    plan: MemberPlan,
    left_over: Vec<String>,
    last_file: u64,
    /// Files that nobody needs.
    remove: Vec<String>,
    /// All other members are lost for ever: the identity says so.
    pub stands_alone: bool,
}

/// What its operator and its identity say of a member's being alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    /// It is started with the flag.
    pub is_forced: bool,
    pub is_to_be: bool,
}

/// Removes what is left of logs that are marked dead, up to the next step that takes time. Whether that was
/// the last.
pub fn clear_dead(files: &mut Files, now: Time, steps: &mut VecDeque<AtStart>) -> Result<bool, String> {
    while let Some(step) = steps.pop_front() {
        match step {
            AtStart::Remove(name) => {
                files.disk.remove(&name).map_err(|fault| format!("{name}: {fault:?}"))?
            }
            AtStart::SyncNames => {
                files.sync_for_start(now, vec![]).map_err(|fault| format!("{fault:?}"))?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Reads the directory, and has the disk make durable what was read. An error is a refusal to start.
pub fn begin(
    files: &mut Files,
    now: Time,
    (member, alone): (usize, Alone),
    shape: &Shape,
    reactors: u16,
    key: u64,
) -> Result<Starting, String> {
    let names: Vec<String> = files.disk.files().map(str::to_owned).collect();
    let mut segments: BTreeMap<LogId, Vec<SegmentName>> = BTreeMap::new();
    let mut checkpoints = vec![];
    let mut remove = vec![];
    for name in names {
        if let Some(segment) = SegmentName::parse(&name) {
            segments.entry(segment.log).or_default().push(segment);
        } else if let Some(checkpoint) = CheckpointName::parse(&name) {
            checkpoints.push(checkpoint);
        } else {
            remove.push(name);
        }
    }
    let store = store(member);
    let mut recovered: Vec<Recovered> = vec![];
    let mut sync = vec![];
    for (log, list) in &mut segments {
        list.sort();
        let mut recovery = Recovery::new(*log, store, key ^ u64::from(log.0), shape.segments);
        let mut read = vec![];
        for name in list {
            let bytes = files.disk.read(&name.to_string()).map_err(|fault| format!("{name}: {fault:?}"))?;
            read.push((*name, bytes));
        }
        let needed = Needed::of(read.iter().copied());
        for (name, bytes) in read {
            let upto = needed.bytes_of(name, bytes.len() as u64) as usize;
            recovery.part(name, &bytes[..upto], bytes.len());
        }
        let log = recovery.finish().map_err(|damage| damage.to_string())?;
        sync.extend(log.sync.iter().map(SegmentName::to_string));
        remove.extend(log.remove.iter().map(SegmentName::to_string));
        recovered.push(log);
    }
    sync.retain(|name| files.disk.files().any(|file| file == name));
    let mut fresh = |log: LogId| LogStart::fresh(log, store, key ^ u64::from(log.0), shape.segments);
    let mut read = |name: &str, offset: u64, len: usize| read_piece(files, name, offset, len);
    let mut plan = recover::place(recovered, &checkpoints, reactors, &mut fresh, &mut read)?;
    let stands_alone = alone.is_to_be || alone.is_forced && !plan.is_alone();
    if stands_alone {
        plan.stand_alone()?;
    }
    let unneeded = checkpoints.iter().filter(|name| !plan.checkpoints.contains(name));
    let mut left_over: Vec<String> = unneeded.map(CheckpointName::to_string).collect();
    for dead in &plan.dead_logs {
        left_over.extend(segments.get(dead).into_iter().flatten().map(SegmentName::to_string));
    }
    left_over.retain(|name| !remove.contains(name));
    let last_file = checkpoints.iter().map(|name| name.file).max().unwrap_or(0);
    files.sync_for_start(now, sync).map_err(|fault| format!("{fault:?}"))?;
    Ok(Starting { plan, left_over, last_file, remove, stands_alone })
}

fn read_piece(files: &mut Files, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, String> {
    let bytes = files.disk.read(name).map_err(|fault| format!("{name}: {fault:?}"))?;
    let from = bytes.len().min(offset as usize);
    Ok(bytes[from..bytes.len().min(from + len)].to_vec())
}

impl Starting {
    /// Loads the shards and makes the reactors.
    pub fn finish(
        self,
        files: &mut Files,
        now: Time,
        (member, joiner): (usize, Option<&Joiner>),
        shape: &Shape,
        rng: &mut Rng,
    ) -> Result<Process, String> {
        let Starting { plan, left_over, last_file, remove, stands_alone } = self;
        for name in remove {
            files.disk.remove(&name).map_err(|fault| format!("{name}: {fault:?}"))?;
        }
        let sequencer = Arc::new(Sequencer::new(shape.ring));
        let settings = Arc::new(settings(member, joiner, stands_alone, shape));
        let clock = shape.members[member].clock.begun(now);
        let (reactors, settled, rested) = (plan.reactors.len() as u16, plan.settled, plan.rested);
        let (mut left_over, process) = (Some(left_over), rng.next_u64());
        let mut made = vec![];
        for (id, ReactorPlan { log, shards, stale }) in plan.reactors.into_iter().enumerate() {
            let mut control = None;
            let mut loaded = vec![];
            for shard in shards {
                let mut read = |name: &str, offset: u64, len: usize| read_piece(files, name, offset, len);
                let elections = settings.elections(shard.id(), rng.fork());
                let Loaded { shard, control: state } = shard.load(elections, &mut read)?;
                control = control.or(state);
                loaded.push(shard);
            }
            made.push(Reactor::new(Boot {
                id: ReactorId(id as u16),
                reactors,
                settings: settings.clone(),
                sequencer: sequencer.clone(),
                log,
                shards: loaded,
                control,
                stale,
                left_over: left_over.take().unwrap_or_default(),
                last_file,
                settled,
                rested,
                process,
                seed: rng.next_u64(),
                now: clock.shows(now),
            }));
        }
        Ok(Process::new(member, made, sequencer, clock, now))
    }
}
