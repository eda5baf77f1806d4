//! What a reactor is made from.

use super::Reactor;
use super::calls::Calls;
use super::control_effects::directories_of;
use super::epoch::Epochs;
use super::leader::Leader;
use super::leaving::Leaving;
use super::pace::Observing;
use super::peers::PeerLinks;
use super::rest::Rest;
use super::rounds::Rounds;
use super::shards::{LocalShard, Shards};
use super::storage::{Storage, entry_record};
use super::turn::Turn;
use crate::checkpoint::ControlState;
use crate::control::{Control, first_raft_id};
use crate::front::{Front, FrontConfig};
use crate::http2;
use crate::io::EpochMail;
use crate::lease::Attached;
use crate::limits::{Bounds, HAND_OVER_MS_MAX};
use crate::log::{self, Log};
use crate::mvcc::{Budget, Store};
use crate::raft::{Elections, FRESH_BASE, Group, GroupStart, HardState, NEWCOMER_BASE};
use crate::recover::{MovingRecord, RecoveredShard};
use crate::router::reactor_of;
use crate::sequencer::Sequencer;
use crate::shard::Shard;
use crate::stdx::Rng;
use crate::takeover::{LogView, Ruling};
use crate::types::{ClusterId, Duration, MemberId, Peers, ReactorId, Revision, ShardId, StoreId, Time};
use bytes::Bytes;
use std::sync::Arc;

/// What the operator has set, as the reactors need it. Equal for all reactors of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    pub member: MemberId,
    /// What the data directory was begun as.
    pub directory: StoreId,
    pub cluster: ClusterId,
    pub name: String,
    pub token: String,
    pub peer_urls: Vec<String>,
    /// Who begins a new cluster, this member included, in the order of their ids. Of a member that joins, all that were
    /// members when it asked, itself included.
    pub founders: Vec<Founder>,
    /// Whether the member was added to a cluster that there was, and begins none.
    pub joins: bool,
    /// All other members are lost for ever, and this one goes on alone with what it has.
    pub stands_alone: bool,
    /// How many learners there may be; whoever leads refuses to add more.
    pub max_learners: usize,
    /// Whether a change of the members is refused for which too few of them are started and connected.
    pub strict_reconfig_check: bool,
    pub client_urls: Vec<String>,
    /// Where the data shards of a new cluster start, and whether the operator has said so. Otherwise it is as whoever
    /// leads first has it.
    pub shard_starts: Vec<Bytes>,
    pub shards_are_set: bool,
    pub request_bytes_max: usize,
    /// About how large a Raft entry gets; what one request changes beyond it goes into several.
    pub entry_bytes_max: usize,
    /// What one slice of work that may be long looks at.
    pub slice: Budget,
    pub txn_ops_max: usize,
    pub streams_max: u32,
    /// `None`: no quota.
    pub quota_bytes: Option<u64>,
    /// How often a leader shows that it lives; group 0 counts time in these.
    pub heartbeat: Duration,
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

/// A member of a new cluster, as the operators of all of them have named it; of one that is joined, as another member
/// has named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<String>,
}

pub use crate::config::AutoCompaction;

impl Settings {
    fn front_config(&self) -> FrontConfig {
        let header = crate::wire::Header { cluster: self.cluster, member: self.member, ..Default::default() };
        let (interval, timeout) = match self.keepalive {
            Some((interval, timeout)) => (Some(interval), timeout),
            None => (None, Duration::from_secs(20)),
        };
        let keepalive = http2::KeepaliveRules {
            ping_min: self.keepalive_min_time,
            without_stream: false,
            interval,
            timeout,
        };
        let http2 =
            http2::Http2Config { streams_max: self.streams_max, bounds: self.bounds.http2, keepalive };
        FrontConfig::new(header, self.request_bytes_max, self.txn_ops_max, self.bounds.front, http2)
    }

    fn front(&self) -> Front {
        let mut front = Front::new(self.front_config());
        if self.observing.handling {
            front.counters.measure_handling();
        }
        front
    }

    /// The control state, as far as a checkpoint has it.
    fn control(&self, recovered: Option<&ControlState>) -> Control {
        let mut control = Control::new(self.election_timeout);
        if let Some(state) = recovered {
            control.adopt(state);
        }
        control
    }

    /// Who takes part in the groups of a new cluster.
    fn founding_peers(&self) -> Peers {
        let id = |member| first_raft_id(self.cluster, member);
        let votes = |founder: &&Founder| !self.joins || founder.id != self.member;
        // Who joins votes for nothing by itself: what its groups' peers are it learns with the state.
        let learners = if self.joins { vec![id(self.member)] } else { vec![] };
        let voters = self.beginners().filter(votes).map(|founder| id(founder.id));
        Peers { voters: voters.collect(), learners }
    }

    /// The founders that are not lost.
    pub fn beginners(&self) -> impl Iterator<Item = &Founder> {
        self.founders.iter().filter(|founder| !self.stands_alone || founder.id == self.member)
    }

    /// The quota as Status shows it.
    pub fn quota_shown(&self) -> i64 {
        self.quota_bytes.map_or(crate::limits::QUOTA_BYTES_DEFAULT, u64::cast_signed)
    }

    /// The control shard's group elects by time, and who leads it says when the others do.
    pub fn elections(&self, shard: ShardId, rng: Rng) -> Elections {
        match shard {
            ShardId::CONTROL => Elections::ByTimeout { election_ticks: self.election_ticks(), rng },
            _ => Elections::ByOwner,
        }
    }

    /// A tick is a heartbeat's time. The configuration keeps an election timeout five times as long.
    fn election_ticks(&self) -> u32 {
        let ticks = self.election_timeout.0 / self.heartbeat.0.max(1);
        u32::try_from(ticks.max(2)).expect("an election timeout is at most some ten thousand heartbeats")
    }

    /// etcd's patience with a request: 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration(Duration::from_secs(5).0 + 2 * self.election_timeout.0)
    }

    /// How long the leadership is tried to be handed over.
    pub fn hand_over_patience(&self) -> Duration {
        self.election_timeout.min(Duration::from_ms(HAND_OVER_MS_MAX))
    }

    /// etcd's patience with a stream that requires a leader: three election timeouts without one.
    pub fn leader_patience(&self) -> Duration {
        Duration(3 * self.election_timeout.0)
    }
}

/// All that one reactor starts from.
pub struct Boot {
    pub id: ReactorId,
    pub reactors: u16,
    pub settings: Arc<Settings>,
    pub sequencer: Arc<Sequencer>,
    pub log: log::LogStart,
    pub shards: Vec<RecoveredShard>,
    /// The control state, where the control shard lives and it has a checkpoint.
    pub control: Option<ControlState>,
    /// Stays of shards that live elsewhere now: closed once they are durable there, and something is shown.
    pub stale: Vec<log::Resident>,
    /// Files that nothing needs then.
    pub left_over: Vec<String>,
    /// The highest number that any checkpoint file of the member has.
    pub last_file: u64,
    /// The highest revision that any log of the member, also one without a reactor, names as settled.
    pub settled: Revision,
    /// What may be shown though nobody leads.
    pub rested: Option<Revision>,
    /// A number of the process, by which others tell it from any other.
    pub process: u64,
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
            rested,
            process,
            seed,
            now,
        } = boot;
        let mut rng = Rng::new(seed);
        let control = settings.control(control.as_ref());
        let log = Log::new(log, settings.bounds.log_write_bytes_max);
        assert!(log.store() == settings.directory, "a member's logs are those of its directory");
        let mut reactor = Reactor {
            calls: Calls::new(settings.front(), rng.fork()),
            shards: Shards::default(),
            storage: Storage::new(log, reactors, last_file, stale, left_over),
            peers: PeerLinks::new(),
            rounds: Rounds::new(process),
            rest: Rest::default(),
            leaving: Leaving::default(),
            removed_at: None,
            epochs: Epochs::new(settled, rested),
            leader: None,
            coming: None,
            compaction: Default::default(),
            process: None,
            deadlines_at: now,
            turn: Turn::new(id, reactors, process, settings, sequencer, control, now),
            rng,
        };
        shards.into_iter().for_each(|recovered| reactor.take_in(recovered));
        if id == ReactorId(0) {
            reactor.prepare_to_lead();
        }
        // Nothing runs yet, so every reactor has stopped, and says so with its first turn.
        reactor.turn.send(ReactorId(0), EpochMail::Stopped);
        reactor
    }

    fn take_in(&mut self, recovered: RecoveredShard) {
        let RecoveredShard { shard, read_from, attached, chain, moved_in } = recovered;
        let owner = reactor_of(shard.id, self.turn.reactors);
        assert!(owner == self.turn.id, "shard {} lives on reactor {owner}", shard.id);
        let paths = &mut self.turn.counters.paths;
        paths.shard_of_deltas += u64::from(chain.len() > 1);
        paths.shard_moved +=
            u64::from(matches!(moved_in.first(), Some(MovingRecord::Plain(log::Record::Open(_)))));
        let before = self.storage.log().sealed();
        for record in &moved_in {
            let record = match record {
                MovingRecord::Plain(record) => record.clone(),
                MovingRecord::Entry(entry) => entry_record(entry),
            };
            self.storage.append(shard.id, shard.home, record);
        }
        paths.shard_moved_in_writes += u64::from(self.storage.log().sealed() > before);
        self.storage.take_in(shard.id, shard.group().hard_state(), chain);
        self.own(shard, read_from, attached);
    }

    fn own(&mut self, mut shard: Shard, read_from: log::LogId, attached: Attached) {
        shard.group_mut().hold_for_followers(self.turn.settings.bounds.held_bytes_max);
        self.shards.take_in(LocalShard::new(shard, read_from, attached));
    }

    /// The first reactor has the control shard, new or recovered, and coordinates takeovers.
    fn prepare_to_lead(&mut self) {
        assert!(
            reactor_of(ShardId::CONTROL, self.turn.reactors) == self.turn.id,
            "who leads has the control shard"
        );
        if !self.shards.has(ShardId::CONTROL) {
            self.create_shard(ShardId::CONTROL);
        }
        let log = self.shards.shard_mut(ShardId::CONTROL).log_view();
        let last = log.newest_epoch();
        self.peers.begin(directories_of(log));
        self.note_joining();
        self.tell_book();
        self.epochs.coordinate(self.turn.reactors, last);
        self.leader = Some(Leader::new(&self.turn.settings, self.rng.fork(), self.turn.now));
        if !self.turn.is_alone() {
            // What was read back as committed takes effect, though nobody may come to lead.
            self.shards.touch(ShardId::CONTROL);
        }
    }

    /// A shard that never was, with its opening in the log.
    pub(super) fn create_shard(&mut self, id: ShardId) {
        assert!(reactor_of(id, self.turn.reactors) == self.turn.id, "a shard is made where it lives");
        let settings = &self.turn.settings;
        let own = first_raft_id(settings.cluster, settings.member);
        let base = if settings.joins { NEWCOMER_BASE } else { FRESH_BASE };
        let peers = settings.founding_peers();
        assert!(
            settings.joins != peers.voters.contains(&own),
            "who joins has no vote before it is given one"
        );
        let hard_state = HardState { term: base.term, vote: None, commit: base.index };
        let elections = self.turn.settings.elections(id, self.rng.fork());
        let start = GroupStart { own, peers: peers.clone(), base, hard_state, entries: vec![], elections };
        let home = 0;
        let opening = log::Opening {
            index: base.index,
            term: base.term,
            hard: log::StoredHardState { term: base.term, vote: None, commit: base.index },
            own,
            peers,
        };
        self.storage.append(id, home, log::Record::Open(std::borrow::Cow::Owned(opening)));
        let log_view = LogView::new(Revision::NONE, Ruling::default(), base);
        let shard = Shard::new(id, home, Store::new(), Group::new(start), log_view);
        self.storage.take_in(id, shard.group().hard_state(), vec![]);
        let read_from = self.storage.log().id();
        self.own(shard, read_from, Attached::default());
    }
}
