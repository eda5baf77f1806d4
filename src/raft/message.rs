//! What the peers of a group say to each other, without a word of keys: raft-rs' own messages go no further than
//! this module's neighbours.

use super::{GroupEntry, Position};
use crate::types::{Index, RaftId, Term};

/// From one peer of a group to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub from: RaftId,
    pub to: RaftId,
    /// The sender's term; of a pre-vote the one that it would stand for.
    pub term: Term,
    pub body: MessageBody,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MessageBody {
    /// Entries that follow each other, behind one that the peer is thought to have.
    Append {
        after: Position,
        commit: Index,
        entries: Vec<GroupEntry>,
    },
    /// The peer has everything up to the index; or it has not what was to be gone on from, and says where it may
    /// agree.
    AppendAnswer {
        index: Index,
        commit: Index,
        rejected: Option<Position>,
    },
    Vote {
        kind: VoteKind,
        last: Position,
        commit: Position,
    },
    VoteAnswer {
        kind: VoteKind,
        is_granted: bool,
        commit: Position,
    },
    Heartbeat {
        commit: Index,
        round: Option<RoundId>,
    },
    HeartbeatAnswer {
        commit: Index,
        round: Option<RoundId>,
    },
    /// Stand for election at once: the leader hands over.
    TimeoutNow,
}

impl MessageBody {
    /// Whether it answers another message.
    pub fn is_answer(&self) -> bool {
        match self {
            MessageBody::AppendAnswer { .. }
            | MessageBody::VoteAnswer { .. }
            | MessageBody::HeartbeatAnswer { .. } => true,
            MessageBody::Append { .. }
            | MessageBody::Vote { .. }
            | MessageBody::Heartbeat { .. }
            | MessageBody::TimeoutNow => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteKind {
    /// Whether it would get votes: binds nobody.
    Pre,
    Real,
    /// As real, on behalf of a leader that hands over: its lease does not count.
    Transfer,
}

/// A round in which a leader makes sure that it still leads. Never used twice by any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundId {
    /// Of the process.
    pub boot: u64,
    pub number: u64,
}
