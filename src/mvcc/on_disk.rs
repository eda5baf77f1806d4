//! What the store knows of its checkpoints on disk: a base, and deltas that each add to those before it what
//! has changed since.
//!
//! A key that they know as live, and that was deleted and compacted away since, would come back with them: the
//! next delta has to tell of its tombstone though the store holds it no more. So a tombstone that compaction
//! drops goes to the *graves*, out of the sight of every reader, until a checkpoint has it. A key that was
//! created behind the last checkpoint needs none: no checkpoint knows it, or else an earlier grave tells of
//! it.

use super::store::{VERSION_BYTES, cost};
use super::versions::Version;
use crate::types::{At, Blob, Revision, Sub};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

/// Which history a file holds: up to a revision, without what was compacted at another.
#[derive(Clone, Copy)]
struct CheckpointFile {
    revision: Revision,
    compacted: Revision,
}

#[derive(Default)]
pub(super) struct OnDisk {
    /// The checkpoint files, the base first.
    files: Vec<CheckpointFile>,
    graves: BTreeMap<At, Blob>,
    bytes_reclaimable: u64,
}

impl OnDisk {
    /// Checkpoints from which the store is restored: they hold all that it gets from them.
    pub fn found(upto: Revision) -> OnDisk {
        OnDisk {
            files: vec![CheckpointFile { revision: upto, compacted: Revision::NONE }],
            ..OnDisk::default()
        }
    }

    /// The revision up to which all changes are on disk.
    pub fn upto(&self) -> Revision {
        self.files.last().map_or(Revision::NONE, |file| file.revision)
    }

    /// The cost of what is on disk and not in the store any more.
    pub fn bytes_reclaimable(&self) -> u64 {
        self.bytes_reclaimable
    }

    pub fn has_whole(&mut self, revision: Revision, compacted: Revision) {
        assert!(self.upto() <= revision, "checkpoints go forward");
        assert!(compacted <= revision, "a checkpoint compacts what it holds");
        self.files = vec![CheckpointFile { revision, compacted }];
        self.bytes_reclaimable = 0;
    }

    pub fn has_changes(&mut self, revision: Revision, compacted: Revision) {
        assert!(!self.files.is_empty(), "a delta goes on from a base");
        assert!(self.upto() <= revision, "checkpoints go forward");
        assert!(compacted <= revision, "a checkpoint compacts what it holds");
        self.files.push(CheckpointFile { revision, compacted });
    }

    /// Whether a version is a tombstone that no checkpoint has, of a key that some checkpoint may have.
    pub fn must_hear_of(&self, version: &Version) -> bool {
        let upto = self.upto();
        !version.live() && version.main() > upto && version.create_revision <= upto
    }

    /// Notes that the store drops a version which a compaction at `since`, or at any later revision, makes
    /// superfluous.
    pub fn drops(&mut self, version: &Version, since: Revision) {
        if self.must_hear_of(version) {
            let before = self.graves.insert(version.at(), version.key().clone());
            assert!(before.is_none(), "a tombstone is buried once");
        } else if self.holds(version, since) {
            self.bytes_reclaimable += cost(version);
        }
    }

    fn holds(&self, version: &Version, since: Revision) -> bool {
        let place = self.files.partition_point(|file| file.revision < version.main());
        let Some(file) = self.files.get(place) else { return false };
        let before = place.checked_sub(1).map(|before| self.files[before].revision);
        let told = !version.live() && before.is_some_and(|before| version.create_revision <= before);
        since > file.compacted || told
    }

    pub fn has_graves(&self) -> bool {
        self.graves.last_key_value().is_some_and(|(at, _)| at.main > self.upto())
    }

    /// Gives what the next delta has to tell of beside what the store holds.
    pub fn graves(&self, after: At, upto: At) -> impl Iterator<Item = (&At, &Blob)> {
        self.graves.range((Excluded(after), Included(upto)))
    }

    /// Forgets what a checkpoint has, a number of graves at most. Returns whether none of these is left.
    pub fn empty_graves(&mut self, most: usize) -> bool {
        let end = At { main: self.upto(), sub: Sub(u32::MAX) };
        for _ in 0..most {
            let first = self.graves.first_entry().filter(|grave| *grave.key() <= end);
            let Some((at, key)) = first.map(|grave| grave.remove_entry()) else { return true };
            // A delta has told of it; a base did not need to.
            if self.files.first().is_some_and(|base| at.main > base.revision) {
                self.bytes_reclaimable += VERSION_BYTES + key.len() as u64;
            }
        }
        self.graves.first_key_value().is_none_or(|(at, _)| *at > end)
    }
}
