//! The steps of a transaction over several shards, and the merge of what they gave.

use super::execute::{OpPart, owns, precheck};
use super::overlay::Overlay;
use super::range::finish_range;
use super::{Applied, Branches};
use crate::api::{DeleteRangeReply, Error, Op, OpReply, PutReply, TxnReply, TxnRequest};
use crate::mvcc::Store;
use crate::types::{Blob, KeyRange, LeaseId, Revision, Sub};
use bytes::Bytes;

/// Changes that one operation makes in one range of one shard. They are neighbours in the order of subs: no
/// other shard has keys between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeRun {
    op: usize,
    /// Where the range begins.
    start: Bytes,
    changes: u32,
}

/// What a shard knows before anything is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// The first operation that fails the checks which need the state.
    error: Option<(usize, Error)>,
    /// In ascending order of operation and key.
    runs: Vec<ChangeRun>,
}

impl Gathered {
    /// Of a shard that will delete these keys, so many, for a transaction without operations. Keys and ranges
    /// ascend.
    pub fn deletes<'a>(owned: &[KeyRange], keys: impl Iterator<Item = &'a Blob>, count: usize) -> Gathered {
        let mut runs: Vec<ChangeRun> = Vec::new();
        let run = |range: &KeyRange, changes| ChangeRun { op: 0, start: range.start().clone(), changes };
        if let [range] = owned {
            let changes = u32::try_from(count).expect("a shard in memory has fewer keys than 32 bits count");
            runs.extend((changes > 0).then(|| run(range, changes)));
            return Gathered { error: None, runs };
        }
        for key in keys {
            let range = owned.iter().find(|range| range.contains(key)).expect("a shard has keys of its own");
            match runs.last_mut().filter(|run| run.start == range.start()) {
                Some(run) => run.changes += 1,
                None => runs.push(run(range, 1)),
            }
        }
        let named: usize = runs.iter().map(|run| run.changes as usize).sum();
        assert!(named == count, "a lease has the keys that it counts: {named} of {count}");
        Gathered { error: None, runs }
    }
}

/// The places of a `ChangeRun`: `changes` subs from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubRange {
    pub first: Sub,
    pub changes: u32,
}

/// Checks the operations taken and counts their changes, without writing. `owned` are the shard's ranges in
/// the order of keys, `current` is the newest revision taken so far: the same for all shards.
pub fn gather(
    store: &Store,
    owned: &[KeyRange],
    request: &TxnRequest,
    branches: &Branches,
    current: Revision,
    leases: &dyn Fn(LeaseId) -> bool,
) -> Gathered {
    let error = precheck(store, owned, request, branches, current, leases);
    if error.is_some() {
        return Gathered { error, runs: Vec::new() };
    }
    let mut overlay = Overlay::new(store);
    let mut runs = Vec::new();
    for (number, op) in branches.ops(request).enumerate() {
        match op {
            Op::Put(put) if owns(owned, &put.key) => {
                overlay.put(&put.key);
                runs.push(ChangeRun { op: number, start: put.key.clone(), changes: 1 });
            }
            Op::DeleteRange(delete) => {
                let range = delete.range();
                for part in owned.iter().filter_map(|own| intersection(own, &range)) {
                    let changes = overlay.delete(&part);
                    if changes > 0 {
                        runs.push(ChangeRun { op: number, start: part.start().clone(), changes });
                    }
                }
            }
            _ => {}
        }
    }
    let rises = |a: &ChangeRun, b: &ChangeRun| (a.op, &a.start) < (b.op, &b.start);
    assert!(runs.is_sorted_by(rises), "what a shard gathers rises with operation and key: {runs:?}");
    Gathered { error: None, runs }
}

/// The lowest revision that the ranges taken name, if any names one: compaction must not pass it before they
/// are read.
pub fn oldest_read(request: &TxnRequest, branches: &Branches) -> Option<i64> {
    let named = branches.ops(request).filter_map(|op| match op {
        Op::Range(range) if range.revision != 0 => Some(range.revision),
        _ => None,
    });
    named.min()
}

fn intersection(a: &KeyRange, b: &KeyRange) -> Option<KeyRange> {
    if !a.overlaps(b) {
        return None;
    }
    if let Some(one) = [a, b].into_iter().find(|range| matches!(range, KeyRange::One(_))) {
        return Some(one.clone());
    }
    let start = a.start().max(b.start()).clone();
    let ends = [a, b].into_iter().filter_map(|range| match range {
        KeyRange::Between(_, end) => Some(end),
        _ => None,
    });
    Some(match ends.min() {
        Some(end) => KeyRange::Between(start, end.clone()),
        None => KeyRange::From(start),
    })
}

/// What the coordinator makes of what all shards gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    changes: u64,
    /// The first operation that changes anything: it and all behind it show the new revision.
    first: Option<usize>,
    /// For each shard, in the order in which they were gathered.
    sub_ranges: Vec<Vec<SubRange>>,
}

impl Plan {
    /// Hands out the places: in the order of operations and, within one, of keys. The error is the one etcd
    /// would meet first; then nothing may be written.
    pub fn of(gathered: &[Gathered]) -> Result<Plan, Error> {
        assert!(!gathered.is_empty(), "a plan is made of what shards have gathered");
        let errors = gathered.iter().filter_map(|shard| shard.error.as_ref());
        if let Some((_, error)) = errors.min_by_key(|(op, _)| *op) {
            return Err(error.clone());
        }
        let shards = gathered.iter().enumerate();
        let mut runs: Vec<(&ChangeRun, usize)> =
            shards.flat_map(|(shard, part)| part.runs.iter().map(move |run| (run, shard))).collect();
        runs.sort();
        let in_order = runs.is_sorted_by(|(a, _), (b, _)| (a.op, &a.start) < (b.op, &b.start));
        assert!(in_order, "what an operation changes in a range is one shard's");
        let mut plan = Plan {
            changes: 0,
            first: runs.first().map(|(run, _)| run.op),
            sub_ranges: vec![Vec::new(); gathered.len()],
        };
        for (run, shard) in runs {
            let first = Sub(
                u32::try_from(plan.changes).expect("a transaction changes fewer keys than 32 bits count")
            );
            plan.sub_ranges[shard].push(SubRange { first, changes: run.changes });
            plan.changes += u64::from(run.changes);
        }
        plan.check();
        Ok(plan)
    }

    /// Places of one shard rise and do not overlap, and all together are as many as the transaction's changes.
    fn check(&self) {
        let mut sum = 0;
        for sub_ranges in &self.sub_ranges {
            let apart = |a: &SubRange, b: &SubRange| a.first.0 + a.changes <= b.first.0;
            assert!(sub_ranges.is_sorted_by(apart), "the places of a plan are disjoint: {sub_ranges:?}");
            assert!(
                sub_ranges.iter().all(|sub_range| sub_range.changes > 0),
                "no range of subs is empty: {sub_ranges:?}"
            );
            sum += sub_ranges.iter().map(|sub_range| u64::from(sub_range.changes)).sum::<u64>();
        }
        assert!(sum == self.changes, "the parts of a plan sum up: {sum} of {}", self.changes);
        assert!(self.first.is_some() == (sum > 0), "a plan with changes has a first one");
    }

    /// How many changes the transaction makes. 0: it takes no revision.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// In how many shards it changes something.
    pub fn parts(&self) -> u16 {
        let parts = self.sub_ranges.iter().filter(|sub_ranges| !sub_ranges.is_empty()).count();
        assert!(parts as u64 <= self.changes, "each part changes something: {parts} of {}", self.changes);
        u16::try_from(parts).expect("there are at most 4,096 shards")
    }

    /// The places of one shard, by its number among those gathered.
    pub fn sub_ranges(&self, shard: usize) -> &[SubRange] {
        &self.sub_ranges[shard]
    }
}

/// Puts the parts of all shards together. `current` is as it was given to [`gather`], `taken` the revision
/// taken, if the plan had changes.
pub fn merge(
    request: &TxnRequest,
    branches: &Branches,
    plan: &Plan,
    current: Revision,
    taken: Option<Revision>,
    applied: &mut [Applied],
) -> TxnReply {
    assert!(taken.is_some() == (plan.changes > 0), "a revision is taken for changes, and only for those");
    assert!(applied.len() == plan.sub_ranges.len(), "each shard has applied its part");
    let mut parts: Vec<_> =
        applied.iter_mut().map(|shard| std::mem::take(&mut shard.ops).into_iter()).collect();
    let mut decisions = branches.decisions();
    let mut reply = merge_level(request, &mut decisions, &mut parts);
    assert!(decisions.next().is_none(), "all decisions were used");
    assert!(parts.iter().all(|part| part.len() == 0), "the reply has what every shard gave");
    let stamp = Stamp { current, first: plan.first.unwrap_or(usize::MAX), ops: 0 };
    stamp.finish(&mut reply, taken);
    reply
}

fn merge_level(
    request: &TxnRequest,
    branches: &mut dyn Iterator<Item = bool>,
    parts: &mut [std::vec::IntoIter<OpPart>],
) -> TxnReply {
    let succeeded = branches.next().expect("the branches have a decision for every transaction taken");
    let ops = super::branches::branch(request, succeeded);
    let responses = ops.iter().map(|op| match op {
        Op::Txn(nested) => OpReply::Txn(merge_level(nested, branches, parts)),
        op => {
            finish_op(op, parts.iter_mut().map(|part| part.next().expect("every shard ran every operation")))
        }
    });
    TxnReply { revision: Revision::NONE, succeeded, responses: responses.collect() }
}

/// Merges what one operation gave on each shard.
pub(super) fn finish_op(op: &Op, parts: impl Iterator<Item = OpPart>) -> OpReply {
    match op {
        Op::Range(request) => {
            let ranges = parts.map(|part| match part {
                OpPart::Range(range) => range,
                _ => unreachable!("a range gives a range's part"),
            });
            OpReply::Range(finish_range(request, Revision::NONE, ranges))
        }
        Op::Put(_) => {
            let (mut owners, mut found) = (0, None);
            for part in parts {
                match part {
                    OpPart::Put { prev_kv } => (owners, found) = (owners + 1, prev_kv),
                    OpPart::Elsewhere => {}
                    _ => unreachable!("a put gives a put's part"),
                }
            }
            assert!(owners == 1, "a key is one shard's: {owners} have put it");
            OpReply::Put(PutReply { revision: Revision::NONE, prev_kv: found })
        }
        Op::DeleteRange(_) => {
            let mut reply = DeleteRangeReply::default();
            for part in parts {
                let OpPart::Delete { deleted, prev_kvs } = part else {
                    unreachable!("a delete gives a delete's part")
                };
                reply.deleted += deleted;
                reply.prev_kvs.extend(prev_kvs);
            }
            reply.prev_kvs.sort_by(|a, b| a.key.cmp(&b.key));
            let pairs = reply.prev_kvs.len() as u64;
            assert!(
                pairs == 0 || pairs == reply.deleted,
                "all shards show what they deleted, or none: {pairs}"
            );
            OpReply::DeleteRange(reply)
        }
        Op::Txn(_) | Op::Empty => {
            unreachable!("branches give single operations, and checks refuse empty ones")
        }
    }
}

/// The revisions in the headers of a transaction's replies. etcd's law: before the first change an operation
/// shows the revision before the transaction, from then on the new one; a nested transaction shows 0.
pub(super) struct Stamp {
    current: Revision,
    /// The first operation that changes anything.
    first: usize,
    ops: usize,
}

impl Stamp {
    pub(super) fn new(current: Revision) -> Stamp {
        Stamp { current, first: usize::MAX, ops: 0 }
    }

    /// Notes that one more operation has run, and whether there are changes by now.
    pub(super) fn op(&mut self, changed: bool) {
        if changed {
            self.first = self.first.min(self.ops);
        }
        self.ops += 1;
    }

    pub(super) fn finish(mut self, reply: &mut TxnReply, taken: Option<Revision>) {
        let rises = taken.is_none_or(|taken| taken > self.current);
        assert!(rises, "a revision is taken after what was read: {taken:?} after {}", self.current);
        // Other shards may have taken revisions since `current` was read; none of them touched these keys.
        let before = taken.map_or(self.current, |taken| Revision(taken.0 - 1));
        let after = taken.unwrap_or(self.current);
        self.ops = 0;
        self.level(reply, before, after);
        reply.revision = after;
    }

    fn level(&mut self, reply: &mut TxnReply, before: Revision, after: Revision) {
        for response in &mut reply.responses {
            let shown = if self.ops < self.first { before } else { after };
            match response {
                OpReply::Txn(nested) => {
                    self.level(nested, before, after);
                    continue;
                }
                OpReply::Range(range) => range.revision = shown,
                OpReply::Put(put) => put.revision = shown,
                OpReply::DeleteRange(delete) => delete.revision = shown,
            }
            self.ops += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(runs: &[(usize, &'static str, u32)]) -> Gathered {
        let run = |&(op, start, changes): &(usize, &'static str, u32)| ChangeRun {
            op,
            start: Bytes::from_static(start.as_bytes()),
            changes,
        };
        Gathered { error: None, runs: runs.iter().map(run).collect() }
    }

    #[test]
    fn places_go_round_the_shards_in_the_order_of_operations_and_keys() {
        let plan = Plan::of(&[gathered(&[(0, "b", 2), (1, "a", 1)]), gathered(&[(0, "a", 3)])]).unwrap();
        let sub_range = |first, changes| SubRange { first: Sub(first), changes };
        assert_eq!(plan.sub_ranges(0), [sub_range(3, 2), sub_range(5, 1)]);
        assert_eq!(plan.sub_ranges(1), [sub_range(0, 3)]);
        assert_eq!((plan.changes(), plan.parts()), (6, 2));
    }

    #[test]
    #[should_panic = "what an operation changes in a range is one shard's"]
    fn no_range_is_two_shards() {
        let _ = Plan::of(&[gathered(&[(0, "a", 1)]), gathered(&[(0, "a", 1)])]);
    }

    #[test]
    #[should_panic = "places of a plan are disjoint"]
    fn no_two_changes_have_one_place() {
        let sub_range = |first, changes| SubRange { first: Sub(first), changes };
        Plan { changes: 3, first: Some(0), sub_ranges: vec![vec![sub_range(0, 2), sub_range(1, 1)]] }.check();
    }
}
