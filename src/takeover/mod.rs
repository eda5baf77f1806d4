//! A takeover: from the logs of all shards to one prefix of revisions, and to serving behind it.
//!
//! Every start of a member is one, and so is every end of an epoch. The steps:
//!
//! 1. **Stop.** Every reactor acknowledges the end of the last epoch.
//! 2. **Fence.** The control shard first; then, the set of groups being known, every other.
//! 3. **Recover.** The longest run of revisions above the base, all parts present, epochs never falling. A
//!    settled revision that is not whole ends it all: see [`Hole`].
//! 4. **Seal.** Every log learns the prefix; what stands above it in an older epoch is void for ever.
//! 5. **Serve** from prefix + 1.
//!
//! [`Meaning`] reads one log, [`longest_run`] joins what all of them hold, [`Coordinator`] orders the steps.
//! None of them knows keys.

mod coordinator;
mod meaning;
mod run;

#[cfg(test)]
mod tests;

pub use coordinator::{Coordinator, Report, Step};
pub use meaning::{Due, LiveWrite, Meaning, Ruling, Seal, Strange};
pub use run::{Holding, Hole, Part, Why, longest_run};
