//! A shard's state on disk, from which the log before it may go.
//!
//! The state lives in memory and the log is what makes a write durable. A checkpoint only keeps the log
//! short, so it is a plain file, written in order and read in order. A database on disk in its place would
//! write each change a second time at once, and its compactions would share the disk with the log when that
//! is busiest.
//!
//! A [`Writer`] takes what the shard knows of itself and its history in the order of revisions, and gives
//! blocks of at most 128 KiB to be written one after the other. A [`Reader`] takes the bytes, cut anywhere,
//! checks all of them and gives the same back. `format` draws the bytes.
//!
//! **Bases and deltas.** A *base* holds all history up to its revision. A *delta* goes on from an earlier file:
//! it holds the changes above that file's revision, so that its size follows what has changed. Its meta names
//! the files it needs, the base first: its *chain*. All else in the meta stands for itself: of a chain, the
//! meta of the newest file alone counts. A delta also holds what compaction has dropped since and the files
//! before it would otherwise bring back: the tombstones of keys that they know as live.
//!
//! **What a file is** stands in its meta, its name and the record in the shard's log, and all three agree:
//! the shard, the stay in which it was written, the number, revision, index and term. The record also has the
//! hash, so that no other file can take its place.
//!
//! **Making one durable.** The caller, in this order, each step after the one before is complete:
//! 1. write all blocks to [`CheckpointName::unfinished`]; sync the file;
//! 2. rename it to its name; sync the directory;
//! 3. append [`crate::log::Record::Checkpoint`] with the file's number to the shard's log;
//! 4. when that record is durable, remove the shard's files that the new one does not need, and what is
//!    unfinished.
//!
//! At a start the log says which file counts; unfinished files and other numbers are removed. So a crash
//! between any two steps leaves a file and a log that fit together.

mod format;
mod reader;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{CheckpointDamage, Footer, Item, Reader};
pub use state::{AlarmRecord, ControlState, IntentRecord, LeaseRecord, LinkRecord, Meta};
pub use writer::{Writer, WrittenFile};

use crate::types::ShardId;
use std::fmt;

/// One file of a shard's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointName {
    pub shard: ShardId,
    pub home: u32,
    /// Rises with each checkpoint of the shard.
    pub file: u64,
}

impl CheckpointName {
    /// The name while it is being written.
    pub fn unfinished(&self) -> String {
        format!("{self}.new")
    }

    /// Reads a file's name as [`fmt::Display`] writes it.
    pub fn parse(name: &str) -> Option<CheckpointName> {
        let mut parts = name.strip_suffix(".checkpoint")?.splitn(3, '-');
        let shard = ShardId(parts.next()?.parse().ok()?);
        let home = parts.next()?.parse().ok()?;
        let parsed = CheckpointName { shard, home, file: u64::from_str_radix(parts.next()?, 16).ok()? };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:03}-{:016x}.checkpoint", self.shard.0, self.home, self.file)
    }
}
