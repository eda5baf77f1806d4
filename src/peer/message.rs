//! What members say to each other.

use crate::raft::{Message, MessageBody, Position};
use crate::record::ControlEntry;
use crate::types::{ClusterId, Epoch, Index, MemberId, ReactorId, Revision, ShardId, StoreId, Term};
use bytes::Bytes;

/// Who a member is, as its process says on every link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// What the member keeps its promises in. Another directory under the member's id has lost them.
    pub directory: StoreId,
    /// Of the process: two of them in copies of one directory are told apart by it.
    pub boot: u64,
    pub reactors: u16,
    /// The highest feature level that its program knows.
    pub feature_level: u32,
    /// How it would cut the keys of a cluster that has no first entry yet; afterwards that entry decides.
    pub founding: Option<Founding>,
}

/// How the keys of a new cluster are cut, on which its founders have to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founding {
    pub shards: u32,
    /// A hash of the shards' first keys.
    pub map: u64,
}

/// The first that each end of a link says: who it is, and which two reactors the link joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub from: Introduction,
    pub to: MemberId,
    pub from_reactor: ReactorId,
    pub to_reactor: ReactorId,
}

/// All that is said behind the [`Hello`]s. Another one takes a variant here, one of `records.rs: MessageRecord`,
/// and a line in each `match` that the compiler then asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// From one peer of a group to another.
    Group {
        shard: ShardId,
        /// Of votes outside the control shard: the sender's term there, below which they count nothing.
        control_term: Term,
        /// Of votes in the control shard: where the sender's logs of all groups end.
        tails: Vec<(ShardId, Position)>,
        message: Message,
    },
    /// All revisions up to this one are settled, and each shard's stand at or before what is committed there.
    Settled {
        epoch: Epoch,
        revision: Revision,
        /// Of the shards where it has moved.
        commits: Vec<(ShardId, Position)>,
    },
    /// The winner of the control shard asks for a group whose log is longer at the peer: it is to take it, and to
    /// hand it over.
    WantsGroup {
        shard: ShardId,
        control_term: Term,
        /// The end of the asker's log.
        last: Position,
    },
    /// Asks the leader how far a linearizable read has to wait.
    ReadAt {
        number: u64,
    },
    /// As of a moment behind the question, in which the answerer led.
    ReadAtIs {
        number: u64,
        revision: Revision,
        /// Of the control shard.
        control: Index,
    },
    ReadAtRefused {
        number: u64,
    },
    /// A client's request, for the leader to answer.
    Call {
        number: u64,
        /// What `wire` numbers it by.
        method: u8,
        /// What the client's time has left.
        timeout_ms: u64,
        /// As the client encoded it.
        message: Bytes,
    },
    Answer {
        number: u64,
        /// Encoded as the client gets it.
        outcome: Result<Bytes, CallFailure>,
    },
    /// Nobody waits for the answer any more.
    CallGone {
        number: u64,
    },
    /// What the sender publishes of itself, for the leader to enter.
    Attributes(ControlEntry),
    /// The sender's process ends, by order.
    Leaving,
}

/// A call's end by an error: gRPC's code and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFailure {
    pub code: u8,
    pub text: String,
}

impl PeerMessage {
    /// Whether it passes the messages that wait: who leads is decided by it, or a read waits for nothing else. What
    /// counts behind entries sent before it keeps its place.
    pub fn goes_first(&self) -> bool {
        match self {
            PeerMessage::Group { shard: ShardId::CONTROL, .. } => true,
            PeerMessage::Group { message, .. } => matches!(
                message.body,
                MessageBody::Vote { .. } | MessageBody::VoteAnswer { .. } | MessageBody::TimeoutNow
            ),
            PeerMessage::WantsGroup { .. }
            | PeerMessage::ReadAt { .. }
            | PeerMessage::ReadAtIs { .. }
            | PeerMessage::ReadAtRefused { .. }
            | PeerMessage::Leaving => true,
            PeerMessage::Settled { .. }
            | PeerMessage::Call { .. }
            | PeerMessage::Answer { .. }
            | PeerMessage::CallGone { .. }
            | PeerMessage::Attributes(_) => false,
        }
    }
}

impl Hello {
    /// What the listener answers with.
    pub fn answer(&self, own: Introduction) -> Hello {
        Hello {
            from: own,
            to: self.from.member,
            from_reactor: self.to_reactor,
            to_reactor: self.from_reactor,
        }
    }

    /// Why the listener, being this one, does not take the link; who is a member it must know by itself.
    pub fn refusal(&self, own: &Introduction) -> Option<String> {
        let Hello { from, to, to_reactor, .. } = self;
        if from.cluster != own.cluster {
            return Some(format!(
                "cluster ID mismatch: member {} belongs to cluster {}, and this one to {}",
                hex(from.member.0),
                hex(from.cluster.0),
                hex(own.cluster.0)
            ));
        }
        if *to != own.member {
            return Some(format!(
                "member {} was looked for, and this is member {}",
                hex(to.0),
                hex(own.member.0)
            ));
        }
        if from.member == own.member {
            return Some(format!("member {} is this one itself", hex(own.member.0)));
        }
        if to_reactor.0 >= own.reactors {
            return Some(format!(
                "reactor {to_reactor} was looked for, and this member has {} of them, from 0 on",
                own.reactors
            ));
        }
        let (Some(theirs), Some(ours)) = (from.founding, own.founding) else { return None };
        if theirs.shards != ours.shards {
            return Some(format!(
                "the founders of a cluster need the same --shards: member {} makes {} shards, the control shard \
                 among them, and this member {}",
                hex(from.member.0),
                theirs.shards,
                ours.shards
            ));
        }
        (theirs.map != ours.map).then(|| {
            format!(
                "the founders of a cluster need the same --shard-map: the cuts of member {} hash to {}, and those of \
                 this member to {}",
                hex(from.member.0),
                hex(theirs.map),
                hex(ours.map)
            )
        })
    }

    /// Why the dialer, which has said this, does not take the answer.
    pub fn misfit(&self, answer: &Hello) -> Option<String> {
        if answer.from.member != self.to {
            return Some(format!(
                "member {} was looked for, and member {} answers",
                hex(self.to.0),
                hex(answer.from.member.0)
            ));
        }
        if (answer.from_reactor, answer.to_reactor) != (self.to_reactor, self.from_reactor) {
            return Some(format!(
                "reactor {} was looked for by reactor {}, and reactor {} answers to reactor {}",
                self.to_reactor, self.from_reactor, answer.from_reactor, answer.to_reactor
            ));
        }
        answer.refusal(&self.from)
    }
}

/// As etcd prints ids.
fn hex(id: u64) -> String {
    format!("{id:x}")
}
