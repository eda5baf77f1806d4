//! What a log knows of one resident: enough to say it again at the head of a segment, and which segments
//! its entries still need.

use super::format::Placed;
use super::{Checkpointed, CoverageRecord, Opening, Record, Resident, StoredHardState};
use crate::types::Index;
use std::borrow::Cow;

#[derive(Clone, Debug)]
pub(super) struct Standing {
    opening: Opening,
    hard: StoredHardState,
    checkpoint: Option<Checkpointed>,
    coverage: Option<CoverageRecord>,
    moved_in: bool,
    last: Index,
    /// Segments in ascending order, each with the highest index whose entry there is not replaced.
    spans: Vec<(u64, Index)>,
}

impl Standing {
    pub fn new(opening: Opening) -> Standing {
        let (hard, last) = (opening.hard, opening.index);
        Standing { opening, hard, checkpoint: None, coverage: None, moved_in: false, last, spans: Vec::new() }
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
            Record::Coverage(next) => {
                assert!(next.index <= self.last, "coverage is of entries that are there: {next:?}");
            }
            Record::Open(next) => assert!(!next.peers.voters.is_empty(), "a group has a voter: {next:?}"),
            Record::MovedIn | Record::Close => {}
        }
    }

    /// Applies a record that stands in `segment`.
    pub fn apply(&mut self, record: &Record<'_>, segment: u64) {
        match record {
            Record::Entry { index, .. } => self.entry(*index, segment),
            Record::HardState(hard) => (self.hard, self.coverage) = (*hard, None),
            Record::Checkpoint(checkpoint) => self.checkpoint = Some(*checkpoint),
            Record::Coverage(coverage) => self.coverage = Some(*coverage),
            Record::MovedIn => self.moved_in = true,
            Record::Open(opening) => *self = Standing::new(opening.clone().into_owned()),
            Record::Close => unreachable!("closing takes the standing away"),
        }
    }

    pub fn entry(&mut self, index: Index, segment: u64) {
        assert!(self.spans.last().is_none_or(|(of, _)| *of <= segment), "a log is written forward");
        (self.last, self.coverage) = (index, None);
        for (_, highest) in self.spans.iter_mut().rev().take_while(|(_, highest)| *highest >= index) {
            *highest = Index(index.0 - 1);
        }
        match self.spans.last_mut() {
            Some((of, highest)) if *of == segment => *highest = index,
            _ => self.spans.push((segment, index)),
        }
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
        let floor = self.floor();
        self.spans.iter().find(|(_, highest)| *highest > floor).map(|(segment, _)| *segment)
    }

    /// Forgets segments that are given away.
    pub fn forget_below(&mut self, first: u64) {
        self.spans.retain(|(segment, _)| *segment >= first);
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
