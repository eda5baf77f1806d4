//! One reactor's append-only log: many Raft logs in one stream of bytes.
//!
//! [`Log`] takes [`Record`]s and gives [`Command`]s; the shell performs them and reports. [`Recovery`]
//! takes the bytes of the segment files after a start and gives back what was acknowledged. Neither does
//! any I/O, so both run in the simulator as they run on a disk. `format` draws the bytes; `recovery` says
//! how a torn tail is told from a rotten disk.
//!
//! Why not a library's log: the one that is made for many groups (raft-engine) writes through the page cache
//! and syncs by a call that blocks, and as it comes it takes a damaged tail for a torn one. Here a turn's
//! records are one direct write on the reactor's own ring, durable by itself, and a torn tail is told from a
//! rotten disk. Why not a log for each shard: each would cost a write per turn.
//!
//! ```text
//!   append(record)* flush() ──Write──▶ disk ──▶ written(id) ──▶ durable ordinal
//!            flush() ──Prepare, Recycle, Remove──▶ directory ──▶ prepared(segment)
//! ```
//!
//! **Order.** Frames are numbered without gaps over all segments and incarnations. Several writes may be
//! in flight and complete in any order; they are acknowledged in the order of their numbers.
//!
//! **Segments** are whole files, longer where the log holds more. Each begins with a header block, which goes
//! out in the same write as the segment's first frame, and with the standing of all residents (opening, hard state,
//! checkpoint, coverage) once more, so that the log can be read from any segment on. What may go is a run
//! of the oldest segments: those below `first`, the oldest segment that holds an entry above its
//! resident's checkpoint. `first` moves in two steps. Computed while frame f is the next, it takes effect
//! when f is acknowledged, since only then all it rests on is durable; from then on every frame carries
//! it, and when such a frame is acknowledged the segments below are given away. So recovery neither
//! misses a segment that somebody still needs nor minds one whose renaming was lost. Beside what its own residents
//! need, a log keeps what others lack of them, within a bound, and what is being read back: see `reading`.

mod buffer;
mod format;
mod reading;
mod recovery;
mod replay;
mod segments;
mod standing;
#[cfg(test)]
mod tests;
mod witness;
mod writer;

pub use buffer::Buffer;
pub use reading::{Entries, EntryReader, LogPiece, Unreadable};
pub use recovery::{Cause, LogDamage, Needed, Recovered, Recovery};
pub use replay::{RecoveredEntry, RecoveredResident};
pub use segments::{Held, SegmentBytes};
pub use witness::{cross_examine, keep_words};
pub use writer::{Log, LogStart};

use crate::types::{Index, Peers, RaftId, Revision, ShardId, Term};
use std::borrow::Cow;
use std::fmt;

/// Which log of the member it is. A shard names the log it lives in by its home number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId(pub u32);

impl LogId {
    /// The name of the file that says, while it is there, that nothing needs this log any more.
    pub fn dead_mark(self) -> String {
        format!("{:03}.dead", self.0)
    }

    /// Reads such a name.
    pub fn parse_dead_mark(name: &str) -> Option<LogId> {
        let log = LogId(name.strip_suffix(".dead")?.parse().ok()?);
        (log.dead_mark() == name).then_some(log)
    }
}

/// One file of a log. Sequences rise by one; a file is renamed before it gets a new life under another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    pub log: LogId,
    pub sequence: u64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}-{:016x}.log", self.log.0, self.sequence)
    }
}

impl SegmentName {
    /// Reads a file's name as [`fmt::Display`] writes it.
    pub fn parse(name: &str) -> Option<SegmentName> {
        let (log, sequence) = name.strip_suffix(".log")?.split_once('-')?;
        let log = LogId(log.parse().ok()?);
        let parsed = SegmentName { log, sequence: u64::from_str_radix(sequence, 16).ok()? };
        (parsed.to_string() == name).then_some(parsed)
    }
}

/// The place of a record in what one process appended, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ordinal(pub u64);

/// One write in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// The log had acknowledged this frame: what a log tells of itself, and other logs of the member keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    pub log: LogId,
    pub key: u64,
    pub frame: u64,
}

/// A shard under the number of its stay in some log: it rises each time the shard moves to another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resident {
    pub shard: ShardId,
    pub home: u32,
}

/// What Raft must not forget beside the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredHardState {
    pub term: Term,
    /// The peer voted for in `term`.
    pub vote: Option<RaftId>,
    pub commit: Index,
}

/// The beginning of a resident's stay: its entries go on from here, whatever stood before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The first entry has the next index.
    pub index: Index,
    pub term: Term,
    pub hard: StoredHardState,
    /// Which of the group's peers the resident is, in whichever of the member's logs it lives.
    pub own: RaftId,
    /// As of the index.
    pub peers: Peers,
}

/// A checkpoint file that is durable: entries up to `index` may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpointed {
    pub revision: Revision,
    pub index: Index,
    pub term: Term,
    /// The number in the checkpoint file's name, and the stay in which it was written.
    pub file: u64,
    pub home: u32,
    /// Of the file, and with it of all that it goes on from.
    pub hash: u64,
}

/// All revisions up to `revision` of the shard stand at or before `index`, which is committed, and more was not known
/// when it was written. Whatever is appended behind it takes it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoverageRecord {
    pub revision: Revision,
    pub index: Index,
}

/// What is appended, and what recovery reads back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// One entry of a Raft log. It replaces what stood at its index and above. `kind` is the caller's
    /// (raft's own, data, a change of peers); the payload may be empty.
    Entry {
        index: Index,
        term: Term,
        kind: u8,
        payload: &'a [u8],
    },
    HardState(StoredHardState),
    Open(Cow<'a, Opening>),
    Checkpoint(Checkpointed),
    /// As a checkpoint, of a state that another member has given: whatever stood in the log before gives way, and its
    /// entries go on behind the index.
    Installed(Checkpointed),
    Coverage(CoverageRecord),
    /// All that the resident brought from another log of the member stands before this: the stay is whole.
    MovedIn,
    /// The resident is gone from this log, with all its records.
    Close,
}

/// What the shell is to do. A failed command is final: the process stops.
#[derive(Debug)]
pub enum Command {
    /// Write, durably; report [`Log::written`] and give the buffer back to [`Log::reuse`]. Offset and
    /// length are whole blocks.
    Write { id: WriteId, segment: SegmentName, offset: u64, bytes: Buffer },
    /// Make a file of zeros, written and synced, under another name; rename it; sync the directory; report
    /// [`Log::prepared`]. Where the disk has no room for it and `keep_free` bytes beside it, make none, and
    /// report [`Log::disk_full`].
    Prepare { segment: SegmentName, bytes: u64, keep_free: u64 },
    /// Rename; sync the directory; report [`Log::prepared`] for `new`.
    Recycle { old: SegmentName, new: SegmentName },
    /// No longer needed. Nothing is reported.
    Remove { segment: SegmentName },
}
