//! The seam: all that goes into a reactor and all that comes out of it. Read this file first.
//!
//! A world (`shell` or `sim`) feeds every [`Input`] with the time, ends each turn with one `flush`, and
//! carries out the [`Output`]s. Reactors of one member talk in [`Mail`]: in order for each pair, never
//! refused, bounded in number by the requests admitted.

use crate::api::{Answer, Request, TxnRequest};
use crate::checkpoint::ControlState;
use crate::front;
use crate::log::{Buffer, Command, SegmentName, WriteId};
use crate::mvcc::{History, Sizes};
use crate::record::Control;
use crate::sequencer::Generation;
use crate::takeover::{Report, Step};
use crate::txn::{Applied, Counting, Gathered, Outcome, Path, RangeCursor, RangePart, Share};
use crate::types::{At, Blob, ConnId, Epoch, Index, LeaseId, ReactorId, Revision, ShardId};
use crate::watch;
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
    /// Answered by `Written` and `Prepared`; what fails is final, and the world halts.
    Log(Command),
    Bulk {
        job: JobId,
        step: BulkStep,
    },
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

/// A line for the log of the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub level: Level,
    pub message: &'static str,
    pub fields: Vec<(&'static str, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
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

    // A transaction over several shards (DESIGN 2.6).
    Reserve {
        call: CallId,
        shard: ShardId,
        txn: Arc<TxnRequest>,
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

    // Leases: from now on evaluations that name it wait; which keys does it hold?
    Revoking {
        call: CallId,
        lease: LeaseId,
    },
    RevokingHas {
        call: CallId,
        keys: Vec<Blob>,
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
    /// History up to here is dropped in all shards of the sender.
    Compacted {
        revision: Revision,
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
    /// An evaluation found the quota exceeded.
    NoSpace {
        call: Option<CallId>,
    },
    /// Write checkpoints of all shards now, and say when they are done.
    Defragment {
        call: CallId,
    },
    Defragmented {
        call: CallId,
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
                | Body::Census { .. }
                | Body::CensusIs { .. }
                | Body::Sizes { .. }
                | Body::Defragment { .. }
                | Body::Defragmented { .. }
        )
    }
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
}

/// What a reactor counts, beside its front.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    pub front: front::Counters,
    pub connections: u64,
    pub watch_streams: u64,
    pub watchers: u64,
    pub puts: u64,
    pub deletes: u64,
    pub ranges: u64,
    pub txns: u64,
    pub leases_granted: u64,
    pub leases_revoked: u64,
    pub leases_renewed: u64,
    pub leases_expired: u64,
    pub proposals: u64,
    pub proposals_failed: u64,
    pub proposals_pending: u64,
    pub log_writes: u64,
    pub log_bytes: u64,
    pub checkpoints: u64,
}

impl Counters {
    pub fn add(&mut self, more: &Counters) {
        self.front.add(&more.front);
        let sums = [
            (&mut self.connections, more.connections),
            (&mut self.watch_streams, more.watch_streams),
            (&mut self.watchers, more.watchers),
            (&mut self.puts, more.puts),
            (&mut self.deletes, more.deletes),
            (&mut self.ranges, more.ranges),
            (&mut self.txns, more.txns),
            (&mut self.leases_granted, more.leases_granted),
            (&mut self.leases_revoked, more.leases_revoked),
            (&mut self.leases_renewed, more.leases_renewed),
            (&mut self.leases_expired, more.leases_expired),
            (&mut self.proposals, more.proposals),
            (&mut self.proposals_failed, more.proposals_failed),
            (&mut self.proposals_pending, more.proposals_pending),
            (&mut self.log_writes, more.log_writes),
            (&mut self.log_bytes, more.log_bytes),
            (&mut self.checkpoints, more.checkpoints),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }
}
