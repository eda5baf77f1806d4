//! The seam: all that goes into a reactor and all that comes out of it. Read this file first.
//!
//! A world (`shell` or `sim`) feeds every [`Input`] with the time, ends each turn with one `flush`, and
//! carries out the [`Output`]s. Reactors of one member talk in [`Mail`]: in order for each pair, never
//! refused, bounded in number by the requests admitted.

mod applies;
mod notice;
mod paths;

pub use applies::{Applies, ApplyKind};
pub use notice::{Fields, Level, Notice, Value};
pub use paths::Paths;

use crate::api::{Answer, Error, LeaseTimeToLiveReply, Request, TxnRequest};
use crate::checkpoint::ControlState;
use crate::log::{Buffer, Command, SegmentName, WriteId};
use crate::mvcc::{History, Sizes};
use crate::record::Control;
use crate::sequencer::Generation;
use crate::stdx::Histogram;
use crate::takeover::{Report, Step};
use crate::txn::{Applied, Counting, Gathered, Outcome, Path, RangeCursor, RangePart, Share};
use crate::types::{At, Blob, ConnId, Duration, Epoch, Index, LeaseId, ReactorId, Revision, ShardId, Time};
use crate::watch;
use crate::wire;
use std::sync::Arc;

/// What happens to a reactor.
#[derive(Debug)]
pub enum Input<'a> {
    /// A client has connected.
    Opened {
        conn: ConnId,
        port: Port,
    },
    Received {
        conn: ConnId,
        bytes: &'a [u8],
    },
    /// So many bytes of what was handed out are with the kernel: the connection may be given more.
    Sent {
        conn: ConnId,
        bytes: usize,
    },
    /// The client sends nothing more; it may still read.
    Ended {
        conn: ConnId,
    },
    /// The connection is gone, in whatever way.
    Closed {
        conn: ConnId,
    },
    Mail {
        from: ReactorId,
        mail: Mail,
    },
    /// A write of the log is durable. One that fails never comes back: the world halts.
    Written {
        write: WriteId,
        buffer: Buffer,
    },
    /// A segment's file is ready.
    Prepared {
        segment: SegmentName,
    },
    /// The disk has no room for a segment's file.
    NoRoom {
        segment: SegmentName,
    },
    Bulk {
        job: JobId,
        done: BulkDone,
    },
    /// `settled` has moved; at most once a turn.
    Settled(Revision),
    /// A group lost its leadership, as by a message of a higher term.
    Deposed {
        shard: ShardId,
    },
    /// What the operating system says of the process, for metrics: now and then, to any reactor.
    Process(ProcessFigures),
    /// What the wall clock shows, in seconds since 1970: whenever it may have gone on, before what it is for.
    Wall {
        secs: u64,
    },
    /// Stop serving clients: answer what is on its way, close the rest.
    Stop,
}

/// What a reactor wants done, in order.
#[derive(Debug)]
pub enum Output {
    Send {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    /// Close once everything handed out is sent.
    Close {
        conn: ConnId,
    },
    Mail {
        to: ReactorId,
        mail: Mail,
    },
    /// Answered by `Written`, `Prepared` and `NoRoom`; what else fails is final, and the world halts.
    Log(Command),
    Bulk {
        job: JobId,
        step: BulkStep,
    },
    /// Whether what this reactor has asked of the bulk lane presses: then it gets its share of CPU and disk, beside
    /// whoever else wants them; else it takes what is left.
    Haste(bool),
    Notice(Notice),
    /// This process cannot go on, for this reason.
    Halt(String),
}

/// Which kind of listener a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Client,
    /// `--listen-metrics-urls`: HTTP/1 alone.
    Metrics,
}

/// A piece of work for the bulk lane; one step of it at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Steps of writing a file that is not there before it is whole.
#[derive(Debug)]
pub enum BulkStep {
    /// Creates the file, or empties what an earlier process left under the name.
    Create { name: String },
    /// Writes whole blocks at the end.
    Append { name: String, blocks: Vec<Buffer> },
    /// Makes the file durable, gives it its name, and makes that durable.
    Publish { name: String, as_name: String },
    /// Removes a file, in slices; one that is not there is no error.
    Remove { name: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkDone {
    Done,
    /// The disk has no room. The file is as it was before the step, or absent.
    Full,
    /// Any other failure.
    Failed(String),
}

/// A request under way, numbered by the reactor that answers it to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    pub reactor: ReactorId,
    pub number: u64,
}

/// From one reactor to another.
#[derive(Debug)]
pub struct Mail {
    /// The epoch it was sent in. Mail that could change anything counts in its own epoch alone.
    pub epoch: Epoch,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    // Requests that one shard's reactor evaluates whole.
    Evaluate {
        call: CallId,
        shard: ShardId,
        request: Request,
    },
    Answer {
        call: CallId,
        answer: Answer,
    },
    /// For the control shard's reactor.
    Control {
        call: CallId,
        request: ControlRequest,
        /// The leader itself asks.
        own: bool,
    },
    /// The leader asks something of its own.
    Own {
        of: Own,
        request: Request,
    },
    OwnDone {
        of: Own,
        answer: Answer,
    },

    // Ranges at a settled revision, a shard at a time.
    Range {
        call: CallId,
        shard: ShardId,
        cursor: Box<RangeCursor>,
        counting: Counting,
    },
    /// `None`: the shard has been compacted above the revision.
    Ranged {
        call: CallId,
        shard: ShardId,
        part: Option<RangePart>,
    },
    /// The shard has read a slice of a long range and goes on: whoever no longer wants it says so.
    RangeGoesOn {
        call: CallId,
        shard: ShardId,
        /// What the part holds so far.
        bytes: usize,
    },
    RangeUnwanted {
        call: CallId,
        shard: ShardId,
    },

    // A transaction over several shards, or one too long for a step: each of its
    // shards reserves what it touches before it is evaluated.
    /// What was to be evaluated comes back: it looks at too much for one step.
    Long {
        call: CallId,
        request: Request,
    },
    Reserve {
        call: CallId,
        shard: ShardId,
        txn: Arc<TxnRequest>,
        /// Behind its operations all that is attached to this lease is deleted.
        revokes: Option<LeaseId>,
    },
    Reserved {
        call: CallId,
        shard: ShardId,
        outcomes: Vec<Outcome>,
    },
    Gather {
        call: CallId,
        shard: ShardId,
        path: Arc<Path>,
        current: Revision,
    },
    Gathered {
        call: CallId,
        shard: ShardId,
        gathered: Gathered,
        /// A lease that the transaction names and that is about to end, as the shard's reactor knows.
        ending: Option<LeaseId>,
    },
    /// Executes the shard's part, and releases the shard.
    Part {
        call: CallId,
        shard: ShardId,
        write: Option<PartOf>,
        shares: Vec<Share>,
    },
    Applied {
        call: CallId,
        shard: ShardId,
        applied: Applied,
    },
    Release {
        call: CallId,
        shard: ShardId,
    },

    // Leases: from now on evaluations that name it wait; which shards have keys of it?
    Revoking {
        call: CallId,
        lease: LeaseId,
    },
    RevokingHas {
        call: CallId,
        shards: Vec<ShardId>,
    },
    /// These have keys of it: one transaction deletes them and ends it.
    SpreadRevoke {
        call: CallId,
        lease: LeaseId,
        shards: Vec<ShardId>,
    },
    /// The control shard's part of that transaction's revision.
    LeaseEnds {
        lease: LeaseId,
        part: PartOf,
    },
    /// It has no keys: it ends by an entry of its own.
    EndBareLease {
        call: CallId,
        lease: LeaseId,
    },
    /// For the answer to a call that shows them.
    LeaseKeysWanted {
        call: CallId,
        reply: LeaseTimeToLiveReply,
    },
    LeaseKeys {
        call: CallId,
        lease: LeaseId,
    },
    /// `seen`: the newest revision that the keys may depend on.
    LeaseKeysAre {
        call: CallId,
        keys: Vec<Blob>,
        seen: Revision,
    },

    // History in the order of revisions, for the hashes.
    History {
        call: CallId,
        shard: ShardId,
        after: At,
        upto: Revision,
    },
    HistoryIs {
        call: CallId,
        shard: ShardId,
        compacted: Revision,
        history: History,
    },
    HistoryUnwanted {
        call: CallId,
        shard: ShardId,
    },

    // Watches: from the reader's reactor to the owner's, and back.
    Watch {
        action: watch::Action,
    },
    Watched {
        shard: ShardId,
        notice: watch::Notice,
    },
    /// Everything these shards of the sender have up to here was sent before.
    Marks {
        marks: Vec<(ShardId, Revision)>,
    },
    MarkWanted {
        shard: ShardId,
    },

    // The control state, as it takes effect.
    ControlIs {
        index: Index,
        change: Arc<Control>,
    },
    ControlKnown {
        index: Index,
    },
    /// History up to here is dropped in all shards of the sender: so many versions since it last said so.
    Compacted {
        revision: Revision,
        dropped: u64,
        sizes: Sizes,
    },

    // Takeovers.
    Step {
        step: Step,
        control: Option<Arc<ControlCopy>>,
    },
    Stopped,
    Fenced {
        epoch: Epoch,
        report: Report,
    },
    Sealed {
        epoch: Epoch,
    },
    /// A group was lost: the epoch cannot go on.
    Lost,

    // What a reactor knows of itself.
    Census {
        call: CallId,
    },
    CensusIs {
        call: CallId,
        census: Box<Census>,
    },
    Sizes {
        sizes: Sizes,
    },
    /// An evaluation found the quota exceeded; or, without a call, a disk is full, which is so in any epoch.
    NoSpace {
        call: Option<CallId>,
    },
    /// The alarm, which stands here, keeps the call out. Not every reactor may know of it yet.
    KeptOut {
        call: CallId,
    },
    /// Write checkpoints of all shards now, and say when they are done.
    Defragment {
        call: CallId,
    },
    Defragmented {
        call: CallId,
        done: Result<(), Error>,
    },
}

/// One revision's presence in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOf {
    pub revision: Revision,
    /// In how many shards the revision has a part, the control shard included.
    pub parts: u16,
}

impl Body {
    /// Whether it means the same in a later epoch: news of what is settled, answers to reads, and the steps
    /// of takeovers, which name their epoch themselves.
    pub fn outlives_epochs(&self) -> bool {
        matches!(
            self,
            Body::Range { .. }
                | Body::Ranged { .. }
                | Body::RangeGoesOn { .. }
                | Body::RangeUnwanted { .. }
                | Body::History { .. }
                | Body::HistoryIs { .. }
                | Body::HistoryUnwanted { .. }
                | Body::Watch { .. }
                | Body::Watched { .. }
                | Body::Marks { .. }
                | Body::MarkWanted { .. }
                | Body::Step { .. }
                | Body::Stopped
                | Body::Fenced { .. }
                | Body::Sealed { .. }
                | Body::Lost
                | Body::OwnDone { .. }
                | Body::NoSpace { call: None }
                | Body::Census { .. }
                | Body::CensusIs { .. }
                | Body::Sizes { .. }
                | Body::Defragment { .. }
                | Body::Defragmented { .. }
        )
    }
}

/// What the leader asks of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// The end of a lease that has expired.
    Expiry(LeaseId),
    /// A compaction, begun then.
    Compactor { revision: Revision, begun: Time },
}

/// What the control shard's reactor decides.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlRequest {
    Client(Request),
    KeepAlive(LeaseId),
}

/// What other reactors start an epoch from.
#[derive(Debug)]
pub struct ControlCopy {
    pub index: Index,
    pub state: ControlState,
    /// Whether shards that no log knows may be made: only until the first seal.
    pub may_create: bool,
    pub generation: Generation,
}

/// Figures of one reactor, for Status and metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    pub sizes: Sizes,
    pub raft_index: u64,
    pub raft_applied_index: u64,
    pub counters: Counters,
    pub shards: Vec<ShardFigures>,
    /// When the last compaction was done here; 0 for none since the start.
    pub compacted_at: Time,
    /// Where the world has given them to this reactor.
    pub process: Option<ProcessFigures>,
}

impl Census {
    /// Adds a reactor's figures; its shards keep rows of their own.
    pub fn add(&mut self, more: &Census) {
        self.sizes.add(more.sizes);
        self.raft_index += more.raft_index;
        self.raft_applied_index += more.raft_applied_index;
        self.counters.add(&more.counters);
        self.compacted_at = self.compacted_at.max(more.compacted_at);
        self.process = self.process.or(more.process);
    }
}

/// Figures of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardFigures {
    pub shard: ShardId,
    pub sizes: Sizes,
    pub committed: Index,
    pub applied: Index,
    /// Log written since the oldest entry that the log keeps for it.
    pub log_bytes: u64,
}

/// What the operating system says of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub virtual_bytes_max: u64,
    /// User and system time used.
    pub cpu: Duration,
    pub open_fds: u64,
    pub fds_max: u64,
    /// Bytes of IP, of all that shares the process' network.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Seconds since 1970.
    pub started_secs: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a reactor counts.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Counters {
            pub front: wire::Counters,
            pub times: Times,
            pub applies: Applies,
            pub checks: wire::health::CheckCounters,
            pub paths: Paths,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub fn add(&mut self, more: &Counters) {
                self.front.add(&more.front);
                self.times.add(&more.times);
                self.applies.add(&more.applies);
                self.checks.add(&more.checks);
                self.paths.add(&more.paths);
                $(self.$name += more.$name;)*
            }
        }
    };
}

counters! {
    turns,
    connections,
    watch_streams,
    watchers,
    /// Watchers that read history.
    watchers_behind,
    /// Events that wait to be sent.
    events_pending,
    events_sent,
    puts,
    put_bytes,
    deletes,
    ranges,
    /// Transactions with more than one operation (etcd's law).
    txns,
    /// Ranges that another turn goes on with.
    ranges_under_way,
    leases_granted,
    leases_revoked,
    leases_renewed,
    leases_expired,
    /// Writes that failed for want of an answer in time, or at the end of an epoch; and those under way.
    proposals_failed,
    proposals_pending,
    /// Everything under way: reads and pages too.
    calls,
    /// Requests that took longer to apply than is usual.
    slow_applies,
    log_writes,
    log_bytes,
    checkpoints,
    defragmenting,
    /// Versions dropped.
    versions_compacted,
    health_successes,
    health_failures,
    /// Ranges that a takeover kept from an answer in time.
    ranges_failed,
    /// Pages of metrics shown, and not shown in time.
    scrapes,
    scrapes_failed,
}

macro_rules! times {
    ($($(#[$doc:meta])* $name:ident = $first:expr, $len:literal;)*) => {
        /// How long things took, in nanoseconds of the reactor's time, in etcd's buckets.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Times {
            $($(#[$doc])* pub $name: Histogram,)*
        }

        impl Default for Times {
            fn default() -> Times {
                Times { $($name: Histogram::new($first, $len),)* }
            }
        }

        impl Times {
            fn add(&mut self, more: &Times) {
                $(self.$name.add(&more.$name);)*
            }
        }
    };
}

const MS: u64 = Duration::from_ms(1).0;

times! {
    /// From a durable write's output to its input.
    log_writes = MS, 14;
    /// One step of writing a checkpoint.
    checkpoint_steps = MS, 14;
    /// One checkpoint, from its first step to its name.
    checkpoints = MS, 14;
    defragmentations = 100 * MS, 13;
    hashes = 10 * MS, 15;
    hashes_at = 10 * MS, 15;
    compactions = 100 * MS, 14;
    /// Times to live of leases granted: in seconds.
    lease_ttls = 1, 24;
}
