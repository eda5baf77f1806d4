//! What is asked of the owner of a shard: evaluations, ranges, reservations, leases, history, watches.

use crate::api::{Request, TxnRequest};
use crate::io::{CallId, PartOf};
use crate::txn::{Branches, Counting, RangeCursor, SubRange};
use crate::types::{At, LeaseId, Revision, ShardId, Time};
use crate::watch;
use std::sync::Arc;

/// What is asked of the owner of a shard.
#[derive(Debug)]
pub enum ShardMail {
    /// Done before `until`, or not at all: its client may be told then that it has timed out.
    Evaluate {
        call: CallId,
        shard: ShardId,
        request: Request,
        until: Time,
    },
    Range {
        call: CallId,
        shard: ShardId,
        cursor: Box<RangeCursor>,
        counting: Counting,
    },
    RangeUnwanted {
        call: CallId,
        shard: ShardId,
    },
    Reserve {
        call: CallId,
        shard: ShardId,
        txn: Arc<TxnRequest>,
        /// Behind its operations all that is attached to this lease is deleted.
        revokes: Option<LeaseId>,
    },
    Gather {
        call: CallId,
        shard: ShardId,
        branches: Arc<Branches>,
        current: Revision,
    },
    /// Executes the shard's part, and releases the shard.
    Part {
        call: CallId,
        shard: ShardId,
        write: Option<PartOf>,
        sub_ranges: Vec<SubRange>,
    },
    Release {
        call: CallId,
        shard: ShardId,
    },
    Revoking {
        call: CallId,
        lease: LeaseId,
    },
    /// The control shard's part of that transaction's revision.
    LeaseEnds {
        lease: LeaseId,
        part: PartOf,
    },
    LeaseKeys {
        call: CallId,
        lease: LeaseId,
    },
    History {
        call: CallId,
        shard: ShardId,
        after: At,
        upto: Revision,
    },
    HistoryUnwanted {
        call: CallId,
        shard: ShardId,
    },
    Watch {
        action: watch::Action,
    },
    WatermarkWanted {
        shard: ShardId,
    },
}

impl ShardMail {
    /// Whether it means the same in a later epoch.
    pub fn outlives_epochs(&self) -> bool {
        matches!(
            self,
            ShardMail::Range { .. }
                | ShardMail::RangeUnwanted { .. }
                | ShardMail::History { .. }
                | ShardMail::HistoryUnwanted { .. }
                | ShardMail::Watch { .. }
                | ShardMail::WatermarkWanted { .. }
        )
    }
}
