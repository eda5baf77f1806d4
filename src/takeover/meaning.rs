//! What one shard's log means: which writes in it are live.

use super::Part;
use crate::record::{ArchivedEntry, Payload};
use crate::types::{Epoch, Index, Revision};
use std::collections::VecDeque;
use std::fmt;

/// The last seal of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    pub epoch: Epoch,
    pub prefix: Revision,
}

/// A write that stands in the log and is not voided by it. Above `settled` it may still be.
#[derive(Clone, Debug)]
pub struct LiveWrite {
    pub revision: Revision,
    pub parts: u16,
    pub epoch: Epoch,
    pub index: Index,
    /// The batch it stands in, and its place there.
    pub batch: Payload,
    pub place: u32,
}

/// An entry that contradicts the rules of the log: our own mistake, or a disk that lies beyond its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strange {
    pub index: Index,
    pub why: &'static str,
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}: {}", self.index, self.why)
    }
}

/// The live writes of a log above the state already held, in the order of their revisions.
#[derive(Debug, Default)]
pub struct Meaning {
    seal: Seal,
    fence: Epoch,
    /// Writes up to this revision are in the state and are not kept here.
    held: Revision,
    /// The highest `settled` that a batch or seal of this log names.
    named_settled: Revision,
    live: VecDeque<LiveWrite>,
}

impl Meaning {
    /// For a log whose state at `held` is known, with the last seal and fence before it.
    pub fn new(held: Revision, seal: Seal, fence: Epoch) -> Meaning {
        Meaning { seal, fence, held, named_settled: held.max(seal.prefix), live: VecDeque::new() }
    }

    pub fn seal(&self) -> Seal {
        self.seal
    }

    pub fn fence(&self) -> Epoch {
        self.fence
    }

    pub fn named_settled(&self) -> Revision {
        self.named_settled
    }

    pub fn live(&self) -> impl Iterator<Item = &LiveWrite> {
        self.live.iter()
    }

    /// Reads the next entry of the log.
    pub fn read(&mut self, index: Index, payload: &Payload) -> Result<(), Strange> {
        let strange = |why| Strange { index, why };
        let entry = payload.entry().map_err(|_| strange("its payload cannot be read"))?;
        match entry {
            ArchivedEntry::Fence(epoch) => {
                let epoch = Epoch::from(epoch);
                if epoch <= self.fence {
                    return Err(strange("a fence of an epoch that is not newer than the last"));
                }
                self.fence = epoch;
            }
            ArchivedEntry::Seal { epoch, prefix } => {
                let epoch = Epoch::from(epoch);
                if epoch <= self.seal.epoch {
                    return Err(strange("a seal of an epoch that is not newer than the last"));
                }
                self.sealed(Seal { epoch, prefix: Revision(prefix.to_native()) });
            }
            ArchivedEntry::Batch(batch) => {
                if Epoch::from(&batch.epoch) != self.seal.epoch {
                    return Ok(()); // void
                }
                self.named_settled = self.named_settled.max(Revision(batch.settled.to_native()));
                for (place, write) in batch.writes.iter().enumerate() {
                    let revision = Revision(write.revision.to_native());
                    self.push(index, payload, place as u32, revision, write.parts.to_native())
                        .map_err(strange)?;
                }
            }
            ArchivedEntry::Control { .. } => {}
        }
        Ok(())
    }

    fn push(
        &mut self,
        index: Index,
        batch: &Payload,
        place: u32,
        revision: Revision,
        parts: u16,
    ) -> Result<(), &'static str> {
        if revision <= self.held {
            return Ok(());
        }
        if self.live.back().is_some_and(|last| last.revision >= revision) {
            return Err("its revisions do not rise");
        }
        if parts == 0 {
            return Err("a revision in no shard");
        }
        let epoch = self.seal.epoch;
        self.live.push_back(LiveWrite { revision, parts, epoch, index, batch: batch.clone(), place });
        Ok(())
    }

    /// A batch that this member proposed itself, so that it need not be read back.
    pub fn proposed(&mut self, index: Index, batch: &Payload, writes: impl Iterator<Item = (Revision, u16)>) {
        for (place, (revision, parts)) in writes.enumerate() {
            self.push(index, batch, place as u32, revision, parts).expect("a shard's revisions rise");
        }
    }

    fn sealed(&mut self, seal: Seal) {
        self.seal = seal;
        self.named_settled = self.named_settled.max(seal.prefix);
        while self.live.back().is_some_and(|write| write.revision > seal.prefix) {
            self.live.pop_back();
        }
    }

    /// The state holds everything up to here; nothing below can be voided any more.
    pub fn settle(&mut self, upto: Revision) {
        self.held = self.held.max(upto);
        while self.live.front().is_some_and(|write| write.revision <= upto) {
            self.live.pop_front();
        }
    }

    /// The index before the first live write above the state held: the log from there on is needed.
    pub fn needed_after(&self, last: Index) -> Index {
        self.live.front().map_or(last, |write| Index(write.index.0 - 1))
    }

    /// What this log brings to the run.
    pub fn parts(&self) -> Vec<Part> {
        self.live
            .iter()
            .map(|write| Part { revision: write.revision, parts: write.parts, epoch: write.epoch })
            .collect()
    }
}
