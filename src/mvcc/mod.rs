//! One shard's keys, with all versions since compaction, in memory.
//!
//! **The question.** etcd's readers ask for a range at any revision, for its count, and for history in the
//! order of revisions. How does each cost what it returns, with writes that may still be taken back?
//!
//! **The rule.** Changes are written at the newest state, in ascending order, ahead of what is settled, and
//! can be undone down to there. Reads are at any revision from the compacted one on. What a reader has pinned
//! stays. [`Store`] ties two structures together: the index by key, which leads to a key's newest version and
//! counts live keys, and the versions themselves, chained from new to old for each key and kept in the order
//! of revisions over all.
//!
//! **Why not otherwise.** A persistent tree (one root for each revision) would copy a path of nodes for each
//! write. A map from (key, revision) would make the newest state, which nearly all ask for, a search among
//! old versions, and a count a walk.

mod hash;
mod index;
mod on_disk;
mod rows;
mod store;
mod versions;

pub use hash::HashKv;
pub use store::Store;

use crate::limits::{CHANGE_KEYS, READ_SLICE_BYTES, READ_SLICE_KEYS};
use crate::types::{At, Blob, Event, KeyValue, LeaseId, Revision};

/// How much one call may look at before it returns. At least one item is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub keys: usize,
    pub bytes: usize,
}

impl Budget {
    pub const UNBOUNDED: Budget = Budget { keys: usize::MAX, bytes: usize::MAX };
    /// One slice of work, well under a millisecond.
    pub const SLICE: Budget = Budget { keys: READ_SLICE_KEYS, bytes: READ_SLICE_BYTES };

    /// How many changes can be made, or read from history, in the time that so many keys take.
    pub fn of_changes(self) -> Budget {
        Budget { keys: (self.keys / CHANGE_KEYS).max(1), bytes: self.bytes }
    }
}

/// A part of a range's live keys, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeSlice {
    pub kvs: Vec<KeyValue>,
    /// The bytes of their keys and values.
    pub bytes: usize,
    /// The first key of the range not looked at; `None` where the range is done.
    pub resume: Option<Blob>,
}

/// A part of a count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    pub count: u64,
    /// The first key of the range not looked at; `None` where the count is done.
    pub resume: Option<Blob>,
}

/// What a compare or a lease index wants to know of a live key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMeta {
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: u64,
    pub lease: LeaseId,
}

/// One version of history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryChange {
    pub event: Event,
    /// Whether it is the key's last change at or below the revision up to which history was asked for.
    pub last: bool,
}

/// One version as a checkpoint has it, with key and value borrowed from what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredVersion<'a> {
    pub at: At,
    pub key: &'a [u8],
    /// `None` is a tombstone; the numbers below are 0 then.
    pub value: Option<&'a [u8]>,
    pub create_revision: Revision,
    pub version: u64,
    pub lease: LeaseId,
}

/// A part of history in the order of [`At`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub changes: Vec<(At, HistoryChange)>,
    /// Whether nothing up to the revision asked for is left. If not, ask again after [`History::resume`].
    pub done: bool,
    /// The place up to which history was looked at.
    pub resume: At,
}

/// One change taken back, for the repair of the shard's lease index.
#[derive(Clone, Debug, PartialEq)]
pub struct Undone {
    pub at: At,
    pub key: Blob,
    /// The lease of the version undone; none where it was a tombstone.
    pub lease: LeaseId,
    /// The lease of the version that is newest again; none where the key is not live.
    pub lease_again: LeaseId,
}

/// How much the store holds. Equal on every member with equal history, once compaction's slices are done, but
/// for what is reclaimable: each member writes checkpoints in its own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Live keys at the newest state.
    pub keys: u64,
    pub versions: u64,
    /// Cost of the live keys' newest versions.
    pub bytes_live: u64,
    /// Cost of all versions, tombstones included.
    pub bytes_total: u64,
    /// Cost of the versions that the checkpoints on disk hold and compaction has dropped since: what writing
    /// them anew would free.
    pub bytes_reclaimable: u64,
}

impl Sizes {
    pub fn add(&mut self, more: Sizes) {
        self.keys += more.keys;
        self.versions += more.versions;
        self.bytes_live += more.bytes_live;
        self.bytes_total += more.bytes_total;
        self.bytes_reclaimable += more.bytes_reclaimable;
    }

    /// etcd's size of the database: what is held, and what is on disk only because nothing has rewritten it.
    pub fn db_bytes(&self) -> u64 {
        self.bytes_total + self.bytes_reclaimable
    }

    /// etcd's size in use: all that is not compacted, history included.
    pub fn db_bytes_in_use(&self) -> u64 {
        self.bytes_total
    }
}

/// A hold on history: see [`Store::pin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinId(u64);

#[cfg(test)]
mod tests;
