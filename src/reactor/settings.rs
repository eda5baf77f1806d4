//! What a reactor is made from.

use super::census::MemberSizes;
use super::leading::Leading;
use super::owned::Owned;
use super::pace::Observing;
use super::recover::MovingRecord;
use super::{Reactor, Stage};
use crate::checkpoint::{ControlState, LinkRecord};
use crate::control::Control;
use crate::front::{Front, Manners};
use crate::http2;
use crate::io::Body;
use crate::lease::Attached;
use crate::limits::Bounds;
use crate::log::{self, Log};
use crate::mvcc::{Budget, Store};
use crate::raft::{FRESH_BASE, Group, HardState, Start};
use crate::sequencer::{Generation, Room, Sequencer};
use crate::shard::Shard;
use crate::stdx::Rng;
use crate::takeover::{Coordinator, Meaning};
use crate::types::{ClusterId, Duration, Epoch, Index, MemberId, Peers, ReactorId, Revision, ShardId, Time};
use bytes::Bytes;
use std::sync::Arc;

/// What the operator has set, as the reactors need it. Equal for all reactors of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    pub member: MemberId,
    pub cluster: ClusterId,
    pub name: String,
    pub token: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// Where the data shards of a new cluster start.
    pub shard_starts: Vec<Bytes>,
    pub request_bytes_max: usize,
    /// About how large a Raft entry gets; what one request changes beyond it goes into several.
    pub entry_bytes_max: usize,
    /// What one slice of work that may be long looks at.
    pub slice: Budget,
    pub txn_ops_max: usize,
    pub streams_max: u32,
    /// `None`: no quota.
    pub quota_bytes: Option<u64>,
    pub election_timeout: Duration,
    pub watch_progress_interval: Duration,
    pub auto_compaction: AutoCompaction,
    /// How often a client may ping.
    pub keepalive_min_time: Duration,
    /// The server's own pings: interval and timeout.
    pub keepalive: Option<(Duration, Duration)>,
    /// Log bytes held for a reactor's shards beyond which checkpoints are written, however much these hold.
    pub checkpoint_log_bytes: u64,
    /// What is kept free on the disk beside the largest checkpoint, for what makes room once it is full.
    pub disk_reserve_bytes: u64,
    pub bounds: Bounds,
    pub observing: Observing,
}

pub use crate::config::AutoCompaction;

impl Settings {
    fn manners(&self) -> Manners {
        let header = crate::wire::Header { cluster: self.cluster, member: self.member, ..Default::default() };
        let (interval, timeout) = match self.keepalive {
            Some((interval, timeout)) => (Some(interval), timeout),
            None => (None, Duration::from_secs(20)),
        };
        let keepalive =
            http2::Keepalive { ping_min: self.keepalive_min_time, without_stream: false, interval, timeout };
        let http2 = http2::Config { streams_max: self.streams_max, bounds: self.bounds.http2, keepalive };
        Manners::new(header, self.request_bytes_max, self.txn_ops_max, self.bounds.front, http2)
    }

    fn front(&self) -> Front {
        let mut front = Front::new(self.manners());
        if self.observing.handling {
            front.counters.measure_handling();
        }
        front
    }

    /// The control state, as far as a checkpoint has it.
    fn control(&self, recovered: Option<&(Index, ControlState)>) -> Control {
        let mut control = Control::new(self.election_timeout);
        if let Some((index, state)) = recovered {
            control.adopt(*index, state);
        }
        control
    }

    /// The quota as Status shows it.
    pub fn quota_shown(&self) -> i64 {
        self.quota_bytes.map_or(crate::limits::QUOTA_BYTES_DEFAULT, u64::cast_signed)
    }

    /// etcd's patience with a request: 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration(Duration::from_secs(5).0 + 2 * self.election_timeout.0)
    }
}

/// A shard as checkpoint and log gave it back.
pub struct RecoveredShard {
    pub shard: Shard,
    /// The log that it was read from.
    pub read_from: log::LogId,
    pub attached: Attached,
    /// The files of its checkpoint, the base first.
    pub chain: Vec<LinkRecord>,
    /// Records that a new home of the shard needs in this reactor's log before anything else; empty where
    /// it stays at home.
    pub moved_in: Vec<MovingRecord>,
}

/// All that one reactor starts from.
pub struct Boot {
    pub id: ReactorId,
    pub reactors: u16,
    pub settings: Arc<Settings>,
    pub sequencer: Arc<Sequencer>,
    pub log: log::Start,
    pub shards: Vec<RecoveredShard>,
    /// The control state, where the control shard lives and it has a checkpoint.
    pub control: Option<(Index, ControlState)>,
    /// Stays of shards that live elsewhere now: closed once an epoch has served.
    pub stale: Vec<log::Resident>,
    /// Files that nothing needs once an epoch has served.
    pub left_over: Vec<String>,
    /// The highest number that any checkpoint file of the member has.
    pub last_file: u64,
    /// The highest revision that any log of the member, also one without a reactor, names as settled.
    pub settled: Revision,
    pub seed: u64,
    pub now: Time,
}

impl Reactor {
    pub fn new(boot: Boot) -> Reactor {
        let Boot {
            id,
            reactors,
            settings,
            sequencer,
            log,
            shards,
            control,
            stale,
            left_over,
            last_file,
            settled,
            seed,
            now,
        } = boot;
        let mut rng = Rng::new(seed);
        let mut reactor = Reactor {
            id,
            reactors,
            sequencer,
            now,
            stage: Stage::Stopped,
            epoch: Epoch::default(),
            ended: true,
            lost: false,
            room: Room::new(Generation::NONE),
            coordinator: None,
            leading: None,
            generation: Generation::NONE,
            settled: Revision::NONE,
            settled_before: settled,
            router: None,
            control: settings.control(control.as_ref()),
            shards: Default::default(),
            log: Log::new(log, settings.bounds.log_write_bytes_max),
            storage: super::storage::Storage::new(last_file, stale, left_over),
            heard: super::witness::Heard::new(reactors),
            sizes: MemberSizes::new(reactors),
            counters: Default::default(),
            pace: Default::default(),
            process: None,
            epochs_served: 0,
            calls: Default::default(),
            calls_checked_at: now,
            held: Default::default(),
            revokes_asked: vec![],
            lease_waiting: Default::default(),
            retrying: Default::default(),
            deciding: vec![],
            slices: Default::default(),
            stepped: ShardId::CONTROL,
            streams: Default::default(),
            asks: vec![],
            parked_watches: vec![],
            has_served: false,
            watches: super::watches::Watches::new(rng.fork()),
            front: settings.front(),
            local: Default::default(),
            out: vec![],
            settings,
            rng,
        };
        shards.into_iter().for_each(|recovered| reactor.take_in(recovered));
        if id == ReactorId(0) {
            reactor.prepare_to_lead();
        }
        // Nothing runs yet, so every reactor has stopped, and says so with its first turn.
        reactor.send(ReactorId(0), Body::Stopped);
        reactor
    }

    fn take_in(&mut self, recovered: RecoveredShard) {
        let RecoveredShard { shard, read_from, attached, chain, moved_in } = recovered;
        self.counters.paths.shard_of_deltas += u64::from(chain.len() > 1);
        self.counters.paths.shard_moved += u64::from(!moved_in.is_empty());
        let before = self.log.sealed();
        for record in &moved_in {
            let record = match record {
                MovingRecord::Plain(record) => record.clone(),
                MovingRecord::Entry(entry) => super::storage::entry_record(entry),
            };
            self.append(shard.id, shard.home, record);
        }
        self.counters.paths.shard_moved_in_writes += u64::from(self.log.sealed() > before);
        let owned = Owned::new(shard, read_from, attached, chain);
        self.shards.insert(owned.shard.id, owned);
    }

    /// The first reactor has the control shard, new or recovered, and coordinates takeovers.
    fn prepare_to_lead(&mut self) {
        if !self.shards.contains_key(&ShardId::CONTROL) {
            self.create_shard(ShardId::CONTROL);
        }
        let last = self.shards[&ShardId::CONTROL].shard.meaning().newest_epoch();
        self.coordinator = Some(Coordinator::new(self.reactors, last));
        self.leading = Some(Leading::new(&self.settings, self.rng.fork(), self.now));
    }

    /// A shard that never was, with its opening in the log.
    pub(super) fn create_shard(&mut self, id: ShardId) {
        let own = self.control.raft_id(self.settings.cluster, self.settings.member, self.log.id());
        let peers = Peers { voters: vec![own], learners: vec![] };
        let hard_state = HardState { term: FRESH_BASE.term, vote: None, commit: FRESH_BASE.index };
        let start = Start { own, peers: peers.clone(), base: FRESH_BASE, hard_state, entries: vec![] };
        let home = 0;
        let opening = log::Opening {
            index: FRESH_BASE.index,
            term: FRESH_BASE.term,
            hard: log::HardState { term: FRESH_BASE.term, vote: None, commit: FRESH_BASE.index },
            own,
            peers,
        };
        self.append(id, home, log::Record::Open(std::borrow::Cow::Owned(opening)));
        let shard = Shard::new(id, home, Store::new(), Group::new(start), Meaning::default());
        self.shards.insert(id, Owned::new(shard, self.log.id(), Attached::default(), vec![]));
    }
}
