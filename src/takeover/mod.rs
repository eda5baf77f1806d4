//! A takeover: from the logs of all shards to one prefix of revisions, and to serving behind it.
//!
//! **The question.** Each shard's log ends where it happens to end. A revision over several shards may stand
//! in some of them only, and one shard may have revisions behind another's gap. Which revisions were written,
//! and how does no log ever say otherwise again?
//!
//! **The rule.** Stop, Fence, Recover, Seal, Serve, one after the other, over all logs: see *Takeover* below.
//! What was settled is in the prefix; what is not in the prefix is void in every log for ever.
//!
//! **Why not otherwise.** Without fences an entry of the old epoch may be committed behind what was read, and
//! without seals the next takeover may count parts that this one did not, and so bring back a write that
//! readers have seen missing. A log of decisions beside the logs (two-phase commit) would cost a second write
//! for each revision over several shards.
//!
//! [`LogView`] reads one log, [`longest_run`] joins what all of them hold, [`Coordinator`] orders the steps.
//! None of them knows keys. What follows is the protocol as a whole.
#![doc = include_str!("../protocol.md")]

mod coordinator;
mod log_view;
mod run;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transcripts;

pub use coordinator::{Coordinator, Report, Step};
pub use log_view::{Decoded, EntryRead, InconsistentEntry, LiveWrite, LogView, NextEffect, Ruling, Seal};
pub use run::{Holding, Hole, Part, Why, longest_run};
