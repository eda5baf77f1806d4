//! Evaluation: what etcd's requests mean, against the store of one shard or of several.
//!
//! A transaction may touch keys of several shards, each with a store of its own on a thread of its own. So
//! evaluation is cut into steps. Those that look at keys run where the keys are and give *parts*; those
//! between merge the parts of all shards and run at the coordinator:
//!
//! ```text
//!   coordinator                      each shard
//!   check_txn, footprint
//!                                    Comparing, in slices   -> outcomes
//!   merge_outcomes, Path::of
//!                                    gather                 -> Gathered
//!   Plan::of, takes a revision
//!   where Plan::changes says so
//!                                    Applying, in slices    -> Applied
//!   merge                                                   => TxnReply
//! ```
//!
//! From the first step at a shard to its last, nothing else may write to that shard, and from `gather` on it
//! drops no history that the ranges taken name ([`oldest_read`]). On a single shard [`evaluate_txn`] runs the
//! same code in one go, where that is not too long for one step ([`is_long`]).
//!
//! The rules are etcd 3.7's: compares of all levels see the state before; whatever can fail on the branches
//! taken is checked before the first write; operations see what earlier ones of the same transaction wrote;
//! all changes share one revision, with a [`crate::types::Sub`] in the order of the operations, deletes in
//! the order of their keys.

mod apply;
mod branches;
mod check;
mod cross_shard;
mod evaluate;
mod execute;
mod overlay;
mod range;
mod stream;
mod weight;

pub use apply::{Applied, Applying};
pub use branches::{Branches, Comparing, Outcome, holds, merge_outcomes};
pub use check::{
    check_delete, check_put, check_range, check_stream, check_txn, cost_put, cost_txn, footprint,
};
pub use cross_shard::{Gathered, Plan, SubRange, gather, merge, oldest_read};
pub use evaluate::{Evaluated, evaluate_delete_range, evaluate_put, evaluate_txn};
pub use range::{
    Counting, Progress, RangeCursor, RangePart, check_read_in_txn, finish_range, read_point, read_revision,
};
pub use stream::{Next, RangeStream};
pub use weight::{is_long, is_long_delete};

use crate::api::Error;
use crate::types::{Blob, LeaseId, Revision};

/// The revision that is above all: reading at it reads the newest state, unsettled changes included.
const NEWEST: Revision = Revision(u64::MAX);

/// The epoch ended before a revision could be taken: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnded;

/// Why a write was not evaluated to its end. The store is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Client(Error),
    Ended,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Client(error)
    }
}

impl From<EpochEnded> for Refusal {
    fn from(_: EpochEnded) -> Refusal {
        Refusal::Ended
    }
}

/// A key changes its lease: what the shard's lease index has to follow. `from` and `to` differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseMove {
    pub key: Blob,
    pub from: LeaseId,
    pub to: LeaseId,
}

#[cfg(test)]
mod tests;
