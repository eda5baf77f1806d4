//! What the leader is asked and told, at the control shard's reactor.

use crate::api::Answer;
use crate::io::{CallId, ControlRequest, Own};
use crate::mvcc::Sizes;
use crate::record::MemberChange;
use crate::types::{ChangeNumber, Index, LeaseId, MemberId, Revision, ShardId, Time};

/// What is asked of the leader, and what it has to hear: at the control shard's reactor.
#[derive(Debug)]
pub enum LeaderMail {
    /// For the control shard's reactor: done before `until`, or not at all.
    Control {
        call: CallId,
        request: ControlRequest,
        until: Time,
        /// The leader itself asks.
        own: bool,
    },
    /// Another member is to lead.
    HandOver {
        target: MemberId,
    },
    /// A reactor wants a round among the members to begin.
    Round {
        round: u64,
    },
    OwnDone {
        of: Own,
        answer: Answer,
    },
    RevokingHas {
        call: CallId,
        shards: Vec<ShardId>,
    },
    /// It has no keys: it ends by an entry of its own.
    EndBareLease {
        call: CallId,
        lease: LeaseId,
    },
    /// The change has taken effect at the sender.
    ControlKnown {
        number: ChangeNumber,
        index: Index,
    },
    /// The sender has what is to take effect at all reactors at once.
    ControlHeld {
        number: ChangeNumber,
    },
    /// History up to here is dropped in all shards of the sender: so many versions since it last said so.
    Compacted {
        revision: Revision,
        dropped: u64,
        sizes: Sizes,
    },
    /// An evaluation found the quota exceeded; or, without a call, a disk is full, which is so in any epoch.
    NoSpace {
        call: Option<CallId>,
    },
    /// Every group has the peers that a change of a member wants.
    Peered {
        member: MemberId,
        change: MemberChange,
    },
    /// The alarm, which stands here, keeps the call out. Not every reactor may know of it yet.
    KeptOut {
        call: CallId,
    },
}

impl LeaderMail {
    /// Whether it means the same in a later epoch.
    pub fn outlives_epochs(&self) -> bool {
        matches!(
            self,
            LeaderMail::OwnDone { .. }
                | LeaderMail::ControlKnown { .. }
                | LeaderMail::ControlHeld { .. }
                | LeaderMail::Round { .. }
                | LeaderMail::Compacted { .. }
                | LeaderMail::NoSpace { call: None }
        )
    }
}
