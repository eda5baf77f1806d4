//! What comes to the reactor of a client: answers, and what its calls and streams go on with.

use crate::api::{Answer, Error, LeaseTimeToLiveReply, Request};
use crate::io::{CallId, Census, Own};
use crate::mvcc::History;
use crate::txn::{Applied, Gathered, Outcome, RangePart};
use crate::types::{Blob, Index, LeaseId, Revision, ShardId};
use crate::watch;

/// What comes to the reactor of a client, for a call or a stream of its.
#[derive(Debug)]
pub enum CallMail {
    Answer {
        call: CallId,
        answer: Answer,
    },
    /// A round that the reactor wanted is confirmed: when it began, the leader had settled so much, and the control
    /// entry had taken effect there.
    RoundIs {
        round: u64,
        revision: Revision,
        control: Index,
    },
    /// The leader asks something of its own.
    Own {
        of: Own,
        request: Request,
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
    /// What was to be evaluated comes back: it looks at too much for one step.
    Long {
        call: CallId,
        request: Request,
    },
    Reserved {
        call: CallId,
        shard: ShardId,
        outcomes: Vec<Outcome>,
    },
    Gathered {
        call: CallId,
        shard: ShardId,
        gathered: Gathered,
        /// A lease that the transaction names and that is about to end, as the shard's reactor knows.
        ending: Option<LeaseId>,
    },
    Applied {
        call: CallId,
        shard: ShardId,
        applied: Applied,
    },
    /// These have keys of it: one transaction deletes them and ends it.
    CrossShardRevoke {
        call: CallId,
        lease: LeaseId,
        shards: Vec<ShardId>,
    },
    /// For the answer to a call that shows them.
    LeaseKeysWanted {
        call: CallId,
        reply: LeaseTimeToLiveReply,
    },
    /// `seen`: the newest revision that the keys may depend on.
    LeaseKeysAre {
        call: CallId,
        keys: Vec<Blob>,
        seen: Revision,
    },
    HistoryIs {
        call: CallId,
        shard: ShardId,
        compacted: Revision,
        history: History,
    },
    Watched {
        shard: ShardId,
        message: watch::HubMessage,
    },
    /// Everything these shards of the sender have up to here was sent before.
    Watermarks {
        watermarks: Vec<(ShardId, Revision)>,
    },
    /// What the call asks for is in the control log: it is answered though the epoch may end.
    Outlives {
        call: CallId,
    },
    /// The change of members that it has asked for is done, whoever leads by now.
    Changed {
        call: CallId,
        answer: Answer,
    },
    CensusIs {
        call: CallId,
        census: Box<Census>,
    },
    Defragmented {
        call: CallId,
        done: Result<(), Error>,
    },
}

impl CallMail {
    /// Whether it means the same in a later epoch.
    pub fn outlives_epochs(&self) -> bool {
        matches!(
            self,
            CallMail::RoundIs { .. }
                | CallMail::Ranged { .. }
                | CallMail::RangeGoesOn { .. }
                | CallMail::HistoryIs { .. }
                | CallMail::Watched { .. }
                | CallMail::Watermarks { .. }
                | CallMail::CensusIs { .. }
                | CallMail::Changed { .. }
                | CallMail::Defragmented { .. }
        )
    }
}
