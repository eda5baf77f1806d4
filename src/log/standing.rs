//! What a log knows of one resident: enough to say it again at the head of a segment, and which segments
//! its entries still need.

use super::format::Placed;
use super::{Checkpointed, Coverage, HardState, Opening, Record, Resident};
use crate::types::Index;
use std::borrow::Cow;

#[derive(Clone, Debug)]
pub(super) struct Standing {
    opening: Opening,
    hard: HardState,
    checkpoint: Option<Checkpointed>,
    coverage: Option<Coverage>,
    moved_in: bool,
    last: Index,
    /// Segments in ascending order, each with the highest index whose entry there is not replaced.
    spans: Vec<(u64, Index)>,
    hold: Option<Index>,
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
            spans: Vec::new(),
            hold: None,
        }
    }

    /// Applies a record appended in `segment`. Panics on an order that no Raft log has.
    pub fn apply(&mut self, record: &Record<'_>, segment: u64) {
        match record {
            Record::Entry { index, .. } => {
                assert!(*index <= self.last.next(), "an entry leaves a gap: {index} after {}", self.last);
                assert!(*index > self.opening.index, "an entry stands before its log's opening");
                self.entry(*index, segment);
            }
            Record::HardState(hard) => self.hard = *hard,
            Record::Checkpoint(checkpoint) => self.checkpoint = Some(*checkpoint),
            Record::Coverage(coverage) => self.coverage = Some(*coverage),
            Record::MovedIn => self.moved_in = true,
            Record::Open(opening) => {
                let hold = self.hold;
                *self = Standing::new(opening.clone().into_owned());
                self.hold = hold;
            }
            Record::Close => unreachable!("closing takes the standing away"),
        }
    }

    pub fn entry(&mut self, index: Index, segment: u64) {
        self.last = index;
        for (_, highest) in self.spans.iter_mut().rev().take_while(|(_, highest)| *highest >= index) {
            *highest = Index(index.0 - 1);
        }
        match self.spans.last_mut() {
            Some((of, highest)) if *of == segment => *highest = index,
            _ => self.spans.push((segment, index)),
        }
    }

    /// Takes over what recovery made of the records.
    pub fn recovered(&mut self, hard: HardState, last: Index) {
        (self.hard, self.last) = (hard, last);
    }

    pub fn hold(&mut self, from: Option<Index>) {
        self.hold = from;
    }

    /// Entries up to here are not needed.
    fn floor(&self) -> Index {
        let floor = self.checkpoint.map_or(self.opening.index, |c| c.index.max(self.opening.index));
        self.hold.map_or(floor, |from| floor.min(Index(from.0.saturating_sub(1))))
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
