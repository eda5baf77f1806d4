//! What one shard's log means: which writes in it are live.

use super::Part;
use crate::record::{ArchivedControl, ArchivedEntry, Payload, Piece};
use crate::stdx::AsOf;
use crate::types::{Epoch, Index, Revision};
use std::collections::VecDeque;
use std::fmt;

/// The last seal of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    pub epoch: Epoch,
    pub prefix: Revision,
}

/// The last fence and the last seal up to some place of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    pub fence: Epoch,
    pub seal: Seal,
}

/// A write that stands in the log and is not voided by it. Above `settled` it may still be.
#[derive(Clone, Debug)]
pub struct LiveWrite {
    pub revision: Revision,
    pub parts: u16,
    /// The shard's part goes on in the next write.
    pub more: bool,
    pub epoch: Epoch,
    pub index: Index,
    /// The batch it stands in, and its place there.
    pub batch: Payload,
    pub place: u32,
}

/// Gives back what a queue took while a whole log was read into it.
fn shrink<T>(queue: &mut VecDeque<T>) {
    const KEPT: usize = 4096;
    if queue.capacity() > KEPT && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(KEPT.max(2 * queue.len()));
    }
}

/// What of the control shard's log takes effect next.
#[derive(Clone, Debug)]
pub enum Due {
    Write(LiveWrite),
    Control(Index, Payload),
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
    /// As of each index that a checkpoint may still name: a seal may be read while a write before it is not
    /// in the state yet, and a checkpoint of that state stands before the seal.
    rulings: AsOf<Index, Ruling>,
    /// Writes up to this revision are in the state and are not kept here.
    held: Revision,
    /// The highest `settled` that a batch or seal of this log names.
    named_settled: Revision,
    live: VecDeque<LiveWrite>,
    /// Live control entries that have not taken effect.
    controls: VecDeque<(Index, Payload)>,
}

impl Meaning {
    /// For a log whose state at `held` is known, with the last seal and fence before what is read first.
    pub fn new(held: Revision, seal: Seal, fence: Epoch) -> Meaning {
        let rulings = AsOf::new(Ruling { fence, seal });
        Meaning { rulings, held, named_settled: held.max(seal.prefix), ..Meaning::default() }
    }

    pub fn seal(&self) -> Seal {
        self.rulings.newest().seal
    }

    pub fn fence(&self) -> Epoch {
        self.rulings.newest().fence
    }

    /// The last fence and seal as of an index that was not passed.
    pub fn ruling_at(&self, index: Index) -> Ruling {
        *self.rulings.at(index)
    }

    /// No checkpoint stands before this index any more.
    pub fn pass(&mut self, index: Index) {
        self.rulings.pass(index);
    }

    /// The newest epoch that the log names.
    pub fn newest_epoch(&self) -> Epoch {
        self.fence().max(self.seal().epoch)
    }

    /// The highest revision that is known to be settled, by this log or by the state behind it.
    pub fn known_settled(&self) -> Revision {
        self.named_settled.max(self.held)
    }

    /// The state holds everything up to here.
    pub fn held(&self) -> Revision {
        self.held
    }

    pub fn live(&self) -> impl Iterator<Item = &LiveWrite> {
        self.live.iter()
    }

    /// Where the live control entries stand that have not taken effect.
    pub fn controls(&self) -> impl Iterator<Item = Index> {
        self.controls.iter().map(|(index, _)| *index)
    }

    /// Reads the next entry of the log.
    pub fn read(&mut self, index: Index, payload: &Payload) -> Result<(), Strange> {
        let strange = |why| Strange { index, why };
        let entry = payload.entry().map_err(|_| strange("its payload cannot be read"))?;
        match entry {
            ArchivedEntry::Fence(epoch) => {
                let epoch = Epoch::from(epoch);
                if epoch <= self.fence() {
                    return Err(strange("a fence of an epoch that is not newer than the last"));
                }
                self.rulings.change(index, Ruling { fence: epoch, seal: self.seal() });
            }
            ArchivedEntry::Seal { epoch, prefix } => {
                let epoch = Epoch::from(epoch);
                if epoch <= self.seal().epoch {
                    return Err(strange("a seal of an epoch that is not newer than the last"));
                }
                self.sealed(index, Seal { epoch, prefix: Revision(prefix.to_native()) });
            }
            ArchivedEntry::Batch(batch) => {
                if Epoch::from(&batch.epoch) != self.seal().epoch {
                    return Ok(()); // void
                }
                self.named_settled = self.named_settled.max(Revision(batch.settled.to_native()));
                for (place, write) in batch.writes.iter().enumerate() {
                    let revision = Revision(write.revision.to_native());
                    let parts = write.parts.to_native();
                    self.push(index, payload, place as u32, revision, parts, write.more).map_err(strange)?;
                }
            }
            ArchivedEntry::Control { epoch, settled, control } => {
                let first = matches!(control, ArchivedControl::Bootstrap { .. });
                if first || Epoch::from(epoch) == self.seal().epoch {
                    self.named_settled = self.named_settled.max(Revision(settled.to_native()));
                    self.controls.push_back((index, payload.clone()));
                }
            }
            ArchivedEntry::ConfChange(_) => {
                return Err(strange("a change of peers under the kind of another entry"));
            }
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
        more: bool,
    ) -> Result<(), &'static str> {
        if revision <= self.held {
            return Ok(());
        }
        if let Some(last) = self.live.back() {
            if last.more && last.revision != revision {
                return Err("a revision's part does not go on");
            }
            if last.revision > revision || last.revision == revision && !last.more {
                return Err("its revisions do not rise");
            }
        }
        if parts == 0 {
            return Err("a revision in no shard");
        }
        let epoch = self.seal().epoch;
        self.live.push_back(LiveWrite { revision, parts, more, epoch, index, batch: batch.clone(), place });
        Ok(())
    }

    /// A batch that this member proposed itself, so that it need not be read back.
    pub fn proposed(&mut self, index: Index, batch: &Payload, pieces: &[Piece]) {
        for (place, piece) in pieces.iter().enumerate() {
            self.push(index, batch, place as u32, piece.revision, piece.parts, piece.more)
                .expect("a shard's revisions rise");
        }
    }

    /// A control entry that this member proposed itself.
    pub fn proposed_control(&mut self, index: Index, payload: &Payload) {
        self.controls.push_back((index, payload.clone()));
    }

    /// What takes effect next, in the order of the log: a write once it is settled, a control entry once it
    /// is committed and everything before it has taken effect.
    pub fn next_due(&mut self, settled: Revision, committed: Index) -> Option<Due> {
        let write = self.live.front().map(|write| write.index);
        let control = self.controls.front().map(|(index, _)| *index);
        if control.is_some_and(|control| write.is_none_or(|write| control < write)) {
            let (index, payload) = self.controls.pop_front_if(|(index, _)| *index <= committed)?;
            return Some(Due::Control(index, payload));
        }
        let write = self.live.pop_front_if(|write| write.revision <= settled)?;
        self.held = write.revision;
        Some(Due::Write(write))
    }

    /// The state is known to hold everything up to a settled revision, of which nothing is left here.
    pub fn hold(&mut self, settled: Revision) {
        if self.live.front().is_none_or(|write| write.revision > settled) {
            self.held = self.held.max(settled);
        }
    }

    fn sealed(&mut self, index: Index, seal: Seal) {
        self.rulings.change(index, Ruling { fence: self.fence(), seal });
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
        shrink(&mut self.live);
    }

    /// The index before the first entry that the state does not hold yet: the log from there on is needed.
    pub fn needed_after(&self, last: Index) -> Index {
        let write = self.live.front().map(|write| write.index);
        let control = self.controls.front().map(|(index, _)| *index);
        write.into_iter().chain(control).min().map_or(last, |index| Index(index.0 - 1))
    }

    /// What this log brings to the run: a part counts once its last piece is there.
    pub fn parts(&self) -> Vec<Part> {
        self.live
            .iter()
            .filter(|write| !write.more)
            .map(|write| Part { revision: write.revision, parts: write.parts, epoch: write.epoch })
            .collect()
    }
}
