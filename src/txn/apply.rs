//! A shard's part of a transaction, executed in slices.

use super::execute::{Changed, Deleting, OpPart, Places, PlannedPlaces, read_at, run};
use super::range::RangeCursor;
use super::{Branches, LeaseMove, SubRange};
use crate::api::{Op, TxnRequest};
use crate::limits::CHANGE_KEYS;
use crate::mvcc::{Budget, Store};
use crate::record::EffectChange;
use crate::types::{Blob, KeyRange, Revision};

/// What a shard did.
#[derive(Debug, Default)]
pub struct Applied {
    /// One an operation taken.
    pub(super) ops: Vec<OpPart>,
    /// This shard's part of the revision; empty where the transaction changes nothing here.
    pub changes: Vec<EffectChange>,
}

/// A shard's part while it is executed, in slices. Until it is done nothing else may write to the store.
#[derive(Debug)]
pub struct Applying {
    places: PlannedPlaces,
    planned: usize,
    ops: Vec<OpPart>,
    changed: Changed,
    under_way: Option<UnderWay>,
}

/// An operation of which a part is done.
#[derive(Debug)]
enum UnderWay {
    Range(Box<RangeCursor>),
    Delete(Deleting),
}

impl Applying {
    /// `revision` is the one taken, or none where the plan has no changes.
    pub fn new(revision: Option<Revision>, sub_ranges: Vec<SubRange>, delete_list_max: usize) -> Applying {
        let planned = sub_ranges.iter().map(|sub_range| sub_range.changes as usize).sum();
        assert!(revision.is_some() || planned == 0, "changes are planned of a revision that was taken");
        let places = PlannedPlaces::new(revision.unwrap_or(Revision::NONE), sub_ranges);
        let changed = Changed::new(delete_list_max);
        Applying { places, planned, ops: Vec::new(), changed, under_way: None }
    }

    /// Goes on with the same transaction. `Some` once all operations have run. Panics where the store is not
    /// as it was when it was gathered.
    pub fn step(
        &mut self,
        store: &mut Store,
        owned: &[KeyRange],
        request: &TxnRequest,
        branches: &Branches,
        budget: Budget,
    ) -> Option<Applied> {
        let mut left = budget.keys;
        for op in branches.ops(request).skip(self.ops.len()) {
            if left == 0 {
                return None;
            }
            let budget = Budget { keys: left, ..budget };
            let (part, looked_at) = self.run(store, owned, op, budget)?;
            self.ops.push(part);
            left = left.saturating_sub(looked_at.max(1));
        }
        let changes = std::mem::take(&mut self.changed.changes);
        let made: usize = changes.iter().map(EffectChange::keys).sum();
        assert_eq!(made, self.planned, "a shard changes what it said it would");
        assert!(self.places.are_used_up(), "every place that was handed out is taken");
        assert!(self.under_way.is_none(), "every operation has run to its end");
        Some(Applied { ops: std::mem::take(&mut self.ops), changes })
    }

    /// Runs an operation, or goes on with it: once it is done, its part and about how many keys that took.
    fn run(
        &mut self,
        store: &mut Store,
        owned: &[KeyRange],
        op: &Op,
        budget: Budget,
    ) -> Option<(OpPart, usize)> {
        const PLACED: &str = "a planned change has its place";
        match op {
            Op::Range(request) if !request.range_end.is_empty() => {
                let mut cursor = match self.under_way.take() {
                    Some(UnderWay::Range(cursor)) => cursor,
                    Some(UnderWay::Delete(_)) => unreachable!("it is a delete that goes on"),
                    None => Box::new(RangeCursor::new(request.clone(), read_at(request))),
                };
                let found = cursor.step_held(store, budget);
                let Some(found) = found else {
                    self.under_way = Some(UnderWay::Range(cursor));
                    return None;
                };
                Some((OpPart::Range(cursor.into_part()), found))
            }
            Op::DeleteRange(request) if !request.range_end.is_empty() => {
                let mut deleting = match self.under_way.take() {
                    Some(UnderWay::Delete(deleting)) => deleting,
                    Some(UnderWay::Range(_)) => unreachable!("it is a range that goes on"),
                    None => Deleting::new(owned, &self.changed),
                };
                let before = deleting.deleted();
                let budget = budget.of_changes();
                let (mut places, changed) = (Places::Planned(&mut self.places), &mut self.changed);
                if !deleting.step(store, request, &mut places, changed, budget).expect(PLACED) {
                    self.under_way = Some(UnderWay::Delete(deleting));
                    return None;
                }
                let deleted = (deleting.deleted() - before) as usize;
                Some((deleting.into_part(), deleted * CHANGE_KEYS))
            }
            op => {
                assert!(self.under_way.is_none(), "one operation is under way at a time");
                let mut places = Places::Planned(&mut self.places);
                let part = run(store, owned, op, &mut places, &mut self.changed).expect(PLACED);
                Some((part, CHANGE_KEYS))
            }
        }
    }

    /// Deletes keys that are live, in ascending order, for a transaction without operations. Gives the changes,
    /// and whether more are planned.
    pub fn delete(&mut self, store: &mut Store, keys: &[Blob]) -> (Vec<EffectChange>, bool) {
        for key in keys {
            let at = self.places.next();
            let before = store.delete(at, key).expect("a key that is to be deleted is live");
            self.changed.delete_one(at.sub, &before);
        }
        assert!(keys.len() <= self.planned, "a shard deletes what it said it would");
        self.planned -= keys.len();
        assert!(self.places.are_used_up() == (self.planned == 0), "every place that was handed out is taken");
        (std::mem::take(&mut self.changed.changes), self.planned > 0)
    }

    /// What the lease index has to follow before anything else looks at it.
    pub fn take_leases(&mut self) -> Vec<LeaseMove> {
        std::mem::take(&mut self.changed.leases)
    }
}
