//! What a log knows of one resident: enough to say it again at the head of a segment, and which segments
//! its entries still need.

use super::format::Placed;
use super::{Checkpointed, CoverageRecord, Opening, Record, Resident, StoredHardState};
use crate::limits::LOG_STRETCH_BYTES;
use crate::types::{Index, Term};
use std::borrow::Cow;

/// Where a record stands: in which segment, at which offset there its frame begins, at which it begins itself, and in
/// which incarnation of the log it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub segment: u64,
    pub frame: u64,
    pub at: u64,
    pub incarnation: u64,
}

/// Entries one behind the other in one segment. What another took the place of is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryStretch {
    /// The first one's record.
    pub begins: Place,
    pub first: Index,
    pub upto: Index,
}

#[derive(Clone, Debug)]
pub(super) struct Standing {
    opening: Opening,
    hard: StoredHardState,
    checkpoint: Option<Checkpointed>,
    coverage: Option<CoverageRecord>,
    moved_in: bool,
    last: Index,
    /// In ascending order, of places as of indexes, and without a gap between those.
    stretches: Vec<EntryStretch>,
}

impl Standing {
    pub fn new(opening: Opening) -> Standing {
        let (hard, last) = (opening.hard, opening.index);
        Standing {
            opening,
            hard,
            checkpoint: None,
            coverage: None,
            moved_in: false,
            last,
            stretches: Vec::new(),
        }
    }

    /// Panics on a record of this process that does not go on from those before it: no Raft log has such.
    pub fn check_next(&self, record: &Record<'_>) {
        match record {
            Record::Entry { index, .. } => {
                assert!(*index <= self.last.next(), "an entry leaves a gap: {index} after {}", self.last);
                assert!(
                    *index > self.floor(),
                    "an entry takes the place of what a checkpoint holds: {index}"
                );
            }
            Record::HardState(next) => {
                let StoredHardState { term, vote, .. } = self.hard;
                assert!(next.term >= term, "terms do not fall: {next:?} after {:?}", self.hard);
                let may_vote = next.term > term || vote.is_none() || next.vote == vote;
                assert!(may_vote, "a vote does not change in its term: {next:?} after {:?}", self.hard);
            }
            Record::Checkpoint(next) => {
                assert!(next.index <= self.last, "a checkpoint stands for entries that are there: {next:?}");
                let before = self.checkpoint.unwrap_or_default();
                assert!(next.index >= before.index, "checkpoints go forward: {next:?} after {before:?}");
                assert!(
                    next.revision >= before.revision,
                    "checkpoints go forward: {next:?} after {before:?}"
                );
            }
            Record::Installed(next) => {
                let before = self.checkpoint.unwrap_or_default();
                assert!(next.index > self.floor(), "a state is ahead of the one before: {next:?}");
                assert!(
                    next.revision >= before.revision,
                    "checkpoints go forward: {next:?} after {before:?}"
                );
            }
            Record::Coverage(next) => {
                assert!(next.index <= self.last, "coverage is of entries that are there: {next:?}");
            }
            Record::Open(next) => assert!(!next.peers.voters.is_empty(), "a group has a voter: {next:?}"),
            Record::MovedIn | Record::Close => {}
        }
    }

    /// Applies a record that stands there.
    pub fn apply(&mut self, record: &Record<'_>, place: Place) {
        match record {
            Record::Entry { index, .. } => self.entry(*index, place),
            Record::HardState(hard) => (self.hard, self.coverage) = (*hard, None),
            Record::Checkpoint(checkpoint) => self.checkpoint = Some(*checkpoint),
            Record::Installed(checkpoint) => self.install(*checkpoint),
            Record::Coverage(coverage) => self.coverage = Some(*coverage),
            Record::MovedIn => self.moved_in = true,
            Record::Open(opening) => *self = Standing::new(opening.clone().into_owned()),
            Record::Close => unreachable!("closing takes the standing away"),
        }
    }

    fn install(&mut self, checkpoint: Checkpointed) {
        (self.checkpoint, self.coverage, self.last) = (Some(checkpoint), None, checkpoint.index);
        self.stretches.clear();
    }

    pub fn entry(&mut self, index: Index, place: Place) {
        let behind = self.stretches.last().is_none_or(|last| last.begins < place);
        assert!(behind, "a log is written forward: {place:?}");
        let replaces = index <= self.last;
        (self.last, self.coverage) = (index, None);
        while self.stretches.pop_if(|stretch| stretch.first >= index).is_some() {}
        if let Some(last) = self.stretches.last_mut() {
            last.upto = last.upto.min(Index(index.0 - 1));
            let begins = last.begins;
            let goes_on = begins.segment == place.segment && place.at - begins.at < LOG_STRETCH_BYTES;
            if goes_on && !replaces {
                last.upto = index;
                return;
            }
        }
        let before = self.stretches.last().is_none_or(|last| last.upto.next() == index);
        assert!(before, "stretches follow each other without a gap: {index} in {:?}", self.stretches.last());
        self.stretches.push(EntryStretch { begins: place, first: index, upto: index });
    }

    /// Takes over what recovery made of the records.
    pub fn recovered(&mut self, hard: StoredHardState, last: Index) {
        (self.hard, self.last) = (hard, last);
    }

    /// Entries up to here are not needed.
    fn floor(&self) -> Index {
        self.checkpoint.map_or(self.opening.index, |c| c.index.max(self.opening.index))
    }

    /// The first index the log has to keep.
    pub fn first_needed(&self) -> Index {
        self.floor().next()
    }

    pub fn oldest_needed(&self) -> Option<u64> {
        self.oldest_behind(self.floor())
    }

    /// The oldest segment that holds an entry behind an index.
    pub fn oldest_behind(&self, index: Index) -> Option<u64> {
        let before = self.stretches.partition_point(|stretch| stretch.upto <= index);
        self.stretches.get(before).map(|stretch| stretch.begins.segment)
    }

    /// The stretches in segments that are not older.
    pub fn stretches_from(&self, segment: u64) -> &[EntryStretch] {
        let older = self.stretches.partition_point(|stretch| stretch.begins.segment < segment);
        &self.stretches[older..]
    }

    pub fn last(&self) -> Index {
        self.last
    }

    /// The term of an entry that the opening or the checkpoint names.
    pub fn named_term(&self, index: Index) -> Option<Term> {
        let checkpoint = self.checkpoint.map(|checkpoint| (checkpoint.index, checkpoint.term));
        let named = [Some((self.opening.index, self.opening.term)), checkpoint];
        named.into_iter().flatten().find(|(of, _)| *of == index).map(|(_, term)| term)
    }

    /// Forgets segments that are given away.
    pub fn forget_below(&mut self, first: u64) {
        let gone = self.stretches.partition_point(|stretch| stretch.begins.segment < first);
        self.stretches.drain(..gone);
    }

    /// The records that say it all again.
    pub fn restate(&self, resident: Resident) -> Vec<Placed<'static>> {
        let opening = Opening { hard: self.hard, ..self.opening.clone() };
        let place = |restated, record| Placed { resident, restated, record };
        let mut records = vec![place(true, Record::Open(Cow::Owned(opening)))];
        records.extend(self.checkpoint.map(|c| place(false, Record::Checkpoint(c))));
        records.extend(self.coverage.map(|c| place(false, Record::Coverage(c))));
        records.extend(self.moved_in.then(|| place(false, Record::MovedIn)));
        records
    }
}
