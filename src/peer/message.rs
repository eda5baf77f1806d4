//! What members say to each other.

use crate::raft::{Message, MessageBody, Position};
use crate::record::{ControlEntry, MemberRecord};
use crate::types::{
    ClockReading, ClusterId, Epoch, Index, MemberId, ReactorId, Revision, ShardId, StoreId, Term,
};
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

/// How the keys of a new cluster are cut, on which its founders have to agree where the operator has said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founding {
    pub shards: u32,
    /// A hash of the shards' first keys.
    pub map: u64,
    /// The operator has said so. Where nobody has, the first leader's machine decides.
    pub is_set: bool,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// All that members say to each other but states.
    Groups,
    /// States alone, from who was dialed to who has dialed: their blocks stand before no other message.
    States,
}

/// The first that each end of a link says: who it is, what the link is for, and which two reactors it joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub from: Introduction,
    pub to: MemberId,
    pub kind: LinkKind,
    pub from_reactor: ReactorId,
    pub to_reactor: ReactorId,
}

/// All that is said behind the [`Hello`]s.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// From one peer of a group to another.
    Group {
        shard: ShardId,
        /// Of votes outside the control shard: the sender's term there, below which they count nothing.
        control_term: Term,
        /// Of requests for votes in the control shard: how many entries the sender's logs of all groups have had.
        entries: u64,
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
        /// What the leader's clock was last known to show here, and how long after that the request may be taken: its
        /// client is told that it has timed out, and must not find it done after that.
        clock: ClockReading,
        timeout_ms: u64,
        /// As the client encoded it.
        message: Bytes,
    },
    Answer {
        number: u64,
        /// What the answer may depend on: whoever gets it at another member finds it there as well.
        revision: Revision,
        control: Index,
        /// Encoded as the client gets it.
        outcome: Result<Bytes, CallFailure>,
    },
    /// Nothing was done for the call, and another member may be asked.
    CallRefused {
        number: u64,
    },
    /// The receiver's peer of the shard's group lacks entries that no log here has, which begins behind this index.
    StateOffered {
        shard: ShardId,
        after: Index,
    },
    /// The peer has all up to this index, which is committed: it lacks what follows.
    StateHeld {
        shard: ShardId,
        upto: Index,
    },
    /// Asks for the state, as the file that it is to be, from this block on: all before it are written.
    StateWanted {
        shard: ShardId,
        home: u32,
        file: u64,
        from: u32,
    },
    /// A block of the file.
    StateBlock {
        shard: ShardId,
        file: u64,
        number: u32,
        is_last: bool,
        block: Bytes,
    },
    /// What there was of the file is not given any more.
    StateGone {
        shard: ShardId,
        file: u64,
    },
    /// What the sender publishes of itself, for the leader to enter.
    Attributes(ControlEntry),
    /// What the leader's clock shows.
    Clock(ClockReading),
    /// The sender's process ends, by order. It has answered all the calls that it has taken, and takes none.
    Leaving,
    /// The sender's disk or quota is full, for the leader to raise its alarm.
    NoSpace,
    /// Calls that the sender has made on connections between the two that are gone have no answer. It asks when none
    /// of them can be done any more.
    CallsLost {
        number: u64,
    },
    /// From now on none can.
    CallsOver {
        number: u64,
    },
    /// Who the members are as of an entry of the control log: the receiver may be behind that.
    Members {
        as_of: Index,
        members: Vec<MemberRecord>,
    },
    /// The receiver is a member no more.
    Removed,
}

/// Why a link with a member is refused that was removed, in etcd's words. Who is told so ends.
pub const REMOVED: &str = "the member has been permanently removed from the cluster";

/// A call's end by an error: gRPC's code and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFailure {
    pub code: u8,
    pub text: String,
}

impl PeerMessage {
    /// Whether a call ends with it. There is one for each call, and who has asked for so many has a place for as many.
    pub fn is_answer(&self) -> bool {
        matches!(self, PeerMessage::Answer { .. } | PeerMessage::CallRefused { .. })
    }

    /// On which links it is said.
    pub fn kind(&self) -> LinkKind {
        match self {
            PeerMessage::StateWanted { .. }
            | PeerMessage::StateBlock { .. }
            | PeerMessage::StateGone { .. } => LinkKind::States,
            _ => LinkKind::Groups,
        }
    }

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
            | PeerMessage::Clock(_) => true,
            PeerMessage::Settled { .. }
            | PeerMessage::Leaving
            | PeerMessage::Call { .. }
            | PeerMessage::Answer { .. }
            | PeerMessage::CallRefused { .. }
            | PeerMessage::StateOffered { .. }
            | PeerMessage::StateHeld { .. }
            | PeerMessage::StateWanted { .. }
            | PeerMessage::StateBlock { .. }
            | PeerMessage::StateGone { .. }
            | PeerMessage::Attributes(_)
            | PeerMessage::NoSpace
            | PeerMessage::CallsLost { .. }
            | PeerMessage::CallsOver { .. }
            | PeerMessage::Members { .. }
            | PeerMessage::Removed => false,
        }
    }
}

impl Hello {
    /// What the listener answers with.
    pub(super) fn answer(&self, own: Introduction) -> Hello {
        Hello {
            from: own,
            to: self.from.member,
            kind: self.kind,
            from_reactor: self.to_reactor,
            to_reactor: self.from_reactor,
        }
    }

    /// Why the listener, being this one, does not take the link. Who is a member it has to know by itself.
    pub(super) fn refusal(&self, own: &Introduction) -> Option<String> {
        self.unfit(own)
    }

    /// What two ends of a link cannot differ in, or not be the same in.
    fn unfit(&self, own: &Introduction) -> Option<String> {
        let Hello { from, to, to_reactor, .. } = self;
        let (theirs, ours) = (hex(from.member.0), hex(own.member.0));
        if from.cluster != own.cluster {
            let [their_cluster, our_cluster] = [from.cluster, own.cluster].map(|cluster| hex(cluster.0));
            return Some(format!(
                "cluster ID mismatch: member {theirs} belongs to cluster {their_cluster}, and member {ours} to \
                 {our_cluster}"
            ));
        }
        if *to != own.member {
            return Some(format!("member {} was looked for, and this is member {ours}", hex(to.0)));
        }
        if from.member == own.member {
            return Some(format!("member {ours} is both ends of the link"));
        }
        if to_reactor.0 >= own.reactors {
            return Some(format!(
                "reactor {to_reactor} was looked for, and member {ours} has {} of them, from 0 on",
                own.reactors
            ));
        }
        let (Some(of_theirs), Some(of_ours)) = (from.founding, own.founding) else { return None };
        if !of_theirs.is_set && !of_ours.is_set {
            return None;
        }
        let by_default = |founding: Founding| if founding.is_set { "" } else { " by default" };
        if of_theirs.shards != of_ours.shards {
            return Some(format!(
                "founders need the same --shards: with the control shard, member {theirs} makes {} shards{} and member \
                 {ours} makes {}{}",
                of_theirs.shards,
                by_default(of_theirs),
                of_ours.shards,
                by_default(of_ours)
            ));
        }
        (of_theirs.map != of_ours.map).then(|| {
            let [their_map, our_map] = [of_theirs, of_ours].map(|founding| hex(founding.map));
            format!(
                "founders need the same --shard-map: the cuts of member {theirs} hash to {their_map}, those of member \
                 {ours} to {our_map}"
            )
        })
    }

    /// Why the dialer, which has said this, does not take the answer.
    pub(super) fn misfit(&self, answer: &Hello) -> Option<String> {
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
        if answer.kind != self.kind {
            return Some(format!("member {} answers as on another kind of link", hex(self.to.0)));
        }
        answer.unfit(&self.from)
    }
}

/// As etcd prints ids.
fn hex(id: u64) -> String {
    format!("{id:x}")
}
