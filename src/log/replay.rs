//! From the records of the accepted frames to what each resident stands at.
//!
//! Later records win, as in any Raft log: an entry takes the place of all that stood from its index on, a
//! hard state that of the one before. A gap between entries is nothing that a crash leaves, since frames are
//! accepted without one: the log is then damaged, and is not used.

use super::format::{BadRecord, FRAME_HEADER_BYTES, FrameHeader, Placed};
use super::recovery::NUMBER_MAX;
use super::standing::{Place, Standing};
use super::{Checkpointed, CoverageRecord, Opening, Record, Resident, StoredHardState};
use crate::record::Payload;
use crate::types::{Index, Term};
use std::collections::BTreeMap;

/// One entry of a Raft log.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveredEntry {
    pub index: Index,
    pub term: Term,
    /// As the caller gave it.
    pub kind: u8,
    pub payload: Payload,
}

/// What the log says of one resident.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveredResident {
    pub opening: Opening,
    /// The last one; `commit` is not above the last index.
    pub hard: StoredHardState,
    pub checkpoint: Option<Checkpointed>,
    /// Only where no entry and no hard state stands behind it.
    pub coverage: Option<CoverageRecord>,
    /// The stay began with a move from another log, and all that was moved is there.
    pub moved_in: bool,
    /// Without gaps, from the index after the checkpoint's (or the opening's).
    pub entries: Vec<RecoveredEntry>,
}

impl RecoveredResident {
    fn new(opening: Opening) -> RecoveredResident {
        let hard = opening.hard;
        let (checkpoint, coverage, entries) = (None, None, Vec::new());
        RecoveredResident { opening, hard, checkpoint, coverage, moved_in: false, entries }
    }

    /// Index and term before the first entry.
    pub fn base(&self) -> (Index, Term) {
        match self.checkpoint {
            Some(c) if c.index > self.opening.index => (c.index, c.term),
            _ => (self.opening.index, self.opening.term),
        }
    }

    /// Index and term of the last entry, or of the base.
    pub fn last(&self) -> (Index, Term) {
        self.entries.last().map_or(self.base(), |entry| (entry.index, entry.term))
    }

    /// An entry replaces those from its index on. None where it would leave a gap.
    fn entry(&mut self, entry: RecoveredEntry) -> Option<()> {
        if let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) {
            if entry.index > last.index.next() {
                return None;
            }
            let keep = entry.index.0.saturating_sub(first.index.0);
            self.entries.truncate(keep as usize);
        }
        self.entries.push(entry);
        Some(())
    }

    /// The log begins anew behind a state that another member has given.
    fn install(&mut self, checkpoint: Checkpointed) {
        (self.checkpoint, self.coverage) = (Some(checkpoint), None);
        self.entries.clear();
    }

    /// Drops what the checkpoint holds. None where an entry between is missing.
    fn finish(&mut self) -> Option<()> {
        let base = self.base().0;
        let covered = self.entries.partition_point(|entry| entry.index <= base);
        self.entries.drain(..covered);
        if self.entries.first().is_some_and(|first| first.index != base.next()) {
            return None;
        }
        self.hard.commit = self.hard.commit.min(self.last().0);
        Some(())
    }
}

#[derive(Default)]
pub(super) struct Replay {
    residents: BTreeMap<Resident, (RecoveredResident, Standing)>,
}

impl Replay {
    /// Applies the records of one frame.
    pub fn frame(&mut self, header: &FrameHeader, records: &[u8]) -> Result<(), BadRecord> {
        let mut rest = records;
        while !rest.is_empty() {
            let before = (records.len() - rest.len()) as u64;
            let at = header.offset + FRAME_HEADER_BYTES as u64 + before;
            let (segment, frame, incarnation) = (header.segment, header.offset, header.incarnation);
            let place = Place { segment, frame, at, incarnation };
            let placed = Placed::decode(&mut rest)?;
            self.record(placed, place).ok_or(BadRecord::Senseless)?;
        }
        Ok(())
    }

    fn record(&mut self, placed: Placed<'_>, place: Place) -> Option<()> {
        let resident = placed.resident;
        let index = match &placed.record {
            Record::Entry { index, .. } if *index == Index(0) => return None,
            Record::Entry { index, .. } => *index,
            Record::Open(opening) => opening.index,
            Record::Checkpoint(checkpoint) | Record::Installed(checkpoint) => checkpoint.index,
            Record::HardState(_) | Record::Coverage(_) | Record::MovedIn | Record::Close => Index(0),
        };
        let term = match &placed.record {
            Record::Entry { term, .. } => *term,
            Record::Open(opening) => opening.term.max(opening.hard.term),
            Record::HardState(hard) => hard.term,
            Record::Checkpoint(checkpoint) | Record::Installed(checkpoint) => checkpoint.term,
            Record::Coverage(_) | Record::MovedIn | Record::Close => Term(0),
        };
        if index.0.max(term.0) >= NUMBER_MAX {
            return None;
        }
        if let Record::Open(opening) = placed.record {
            let opening = opening.into_owned();
            match self.residents.get_mut(&resident) {
                Some((known, standing)) if placed.restated => {
                    known.hard = opening.hard;
                    standing.apply(&Record::HardState(opening.hard), place);
                }
                _ => {
                    let standing = Standing::new(opening.clone());
                    self.residents.insert(resident, (RecoveredResident::new(opening), standing));
                }
            }
            return Some(());
        }
        let (known, standing) = self.residents.get_mut(&resident)?;
        match placed.record {
            Record::Entry { index, term, kind, payload } => {
                let payload = Payload::copy_of(payload);
                known.coverage = None;
                known.entry(RecoveredEntry { index, term, kind, payload })?;
                standing.entry(index, place);
                return Some(());
            }
            Record::HardState(hard) => (known.hard, known.coverage) = (hard, None),
            Record::Checkpoint(checkpoint) => known.checkpoint = Some(checkpoint),
            Record::Installed(checkpoint) => known.install(checkpoint),
            Record::Coverage(coverage) => known.coverage = Some(coverage),
            Record::MovedIn => known.moved_in = true,
            Record::Close => {
                self.residents.remove(&resident);
                return Some(());
            }
            Record::Open(_) => unreachable!("handled above"),
        }
        standing.apply(&placed.record, place);
        Some(())
    }

    /// What the records come to. A resident in whose log a gap is left is left out.
    pub fn finish(self) -> Replayed {
        let mut replayed = Replayed::default();
        for (resident, (mut known, mut standing)) in self.residents {
            if known.finish().is_none() {
                replayed.senseless = true;
                continue;
            }
            standing.recovered(known.hard, known.last().0);
            replayed.recovered.insert(resident, known);
            replayed.standings.insert(resident, standing);
        }
        replayed
    }
}

#[derive(Default)]
pub(super) struct Replayed {
    pub recovered: BTreeMap<Resident, RecoveredResident>,
    pub standings: BTreeMap<Resident, Standing>,
    pub senseless: bool,
}
