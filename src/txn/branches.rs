//! Compares, and the branches they choose.

use super::NEWEST;
use crate::api::{Compare, CompareResult, CompareTarget, Op, TxnRequest};
use crate::limits::COMPARE_SLICE_KEYS;
use crate::mvcc::{Budget, KeyMeta, Store};
use crate::types::{Blob, KeyValue, LeaseId, Revision};
use std::cmp::Ordering;

/// What one shard says of a compare: parts of several shards merge into the whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the range had a key.
    seen: bool,
    /// Whether all keys seen satisfy the compare.
    holds: bool,
}

impl Outcome {
    const NOTHING: Outcome = Outcome { seen: false, holds: true };

    pub fn merge(&mut self, other: Outcome) {
        assert!(other.seen || other.holds, "no key fails a compare that has seen none");
        self.seen |= other.seen;
        self.holds &= other.holds;
    }

    /// etcd's law for a range without keys: one key of all zeros stands in, but a value is never equal, nor
    /// unequal, to what is not there.
    fn verdict(self, compare: &Compare) -> bool {
        assert!(self.seen || self.holds, "no key fails a compare that has seen none");
        match compare.target {
            _ if self.seen => self.holds,
            CompareTarget::Value(_) => false,
            _ => satisfies(compare, &ABSENT, b""),
        }
    }
}

const ABSENT: KeyMeta = KeyMeta {
    create_revision: Revision::NONE,
    mod_revision: Revision::NONE,
    version: 0,
    lease: LeaseId::NONE,
};

fn satisfies(compare: &Compare, meta: &KeyMeta, value: &[u8]) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(with) => meta.version.cast_signed().cmp(with),
        CompareTarget::Create(with) => meta.create_revision.wire().cmp(with),
        CompareTarget::Mod(with) => meta.mod_revision.wire().cmp(with),
        CompareTarget::Lease(with) => meta.lease.0.cmp(with),
        CompareTarget::Value(with) => value.cmp(with),
        CompareTarget::Unknown(_) => Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::Unknown(_) => true,
    }
}

/// Whether a compare holds of all that its range has.
pub fn holds(compare: &Compare, found: &[KeyValue]) -> bool {
    let mut outcome = Outcome::NOTHING;
    for kv in found {
        outcome.merge(Outcome { seen: true, holds: satisfies(compare, &meta_of(kv), &kv.value) });
    }
    outcome.verdict(compare)
}

fn meta_of(kv: &KeyValue) -> KeyMeta {
    KeyMeta {
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

/// Evaluates one compare on the newest state of one shard.
pub fn compare(store: &Store, compare: &Compare) -> Outcome {
    if !compare.range_end.is_empty() {
        let budget = Budget { keys: COMPARE_SLICE_KEYS, bytes: usize::MAX };
        let (mut outcome, mut resume) = (Outcome::NOTHING, None);
        while compare_slice(store, compare, &mut outcome, &mut resume, budget).is_none() {}
        return outcome;
    }
    if let CompareTarget::Value(_) = compare.target {
        return store.newest(&compare.key).map_or(Outcome::NOTHING, |kv| Outcome {
            seen: true,
            holds: satisfies(compare, &ABSENT, &kv.value),
        });
    }
    store
        .newest_meta(&compare.key)
        .map_or(Outcome::NOTHING, |meta| Outcome { seen: true, holds: satisfies(compare, &meta, b"") })
}

/// Looks at the next keys of a compare over a range. Gives how many when that settles the outcome, which one
/// key can that fails it.
fn compare_slice(
    store: &Store,
    compare: &Compare,
    outcome: &mut Outcome,
    resume: &mut Option<Blob>,
    budget: Budget,
) -> Option<usize> {
    let slice = store.range(&compare.range(), NEWEST, resume.as_deref(), budget);
    for kv in &slice.kvs {
        outcome.merge(Outcome { seen: true, holds: satisfies(compare, &meta_of(kv), &kv.value) });
        if !outcome.holds {
            return Some(slice.kvs.len());
        }
    }
    *resume = slice.resume;
    resume.is_none().then_some(slice.kvs.len())
}

/// Evaluates all compares of a transaction, of all levels and branches, on one shard, in slices. The order is
/// that of [`Branches::of`].
#[derive(Debug)]
pub struct Comparing {
    outcomes: Vec<Outcome>,
    /// Of the compare under way.
    outcome: Outcome,
    resume: Option<Blob>,
}

impl Default for Comparing {
    fn default() -> Comparing {
        Comparing { outcomes: Vec::new(), outcome: Outcome::NOTHING, resume: None }
    }
}

impl Comparing {
    /// Goes on with the same transaction, on the same state. `Some` once all is known.
    pub fn step(&mut self, store: &Store, request: &TxnRequest, budget: Budget) -> Option<Vec<Outcome>> {
        let mut left = budget.keys;
        let mut compares = Vec::with_capacity(compares_in(request));
        add_compares(request, &mut compares);
        assert!(self.outcomes.len() <= compares.len(), "the transaction is the same from slice to slice");
        for one in &compares[self.outcomes.len()..] {
            if left == 0 {
                return None;
            }
            let looked_at = if one.range_end.is_empty() {
                self.outcome = compare(store, one);
                1
            } else {
                let slice = Budget { keys: left, ..budget };
                compare_slice(store, one, &mut self.outcome, &mut self.resume, slice)?
            };
            self.outcomes.push(std::mem::replace(&mut self.outcome, Outcome::NOTHING));
            self.resume = None;
            left = left.saturating_sub(looked_at.max(1));
        }
        assert!(self.outcomes.len() == compares.len(), "each compare has its outcome, in their order");
        Some(std::mem::take(&mut self.outcomes))
    }
}

fn add_compares<'a>(request: &'a TxnRequest, compares: &mut Vec<&'a Compare>) {
    compares.extend(&request.compare);
    for op in request.success.iter().chain(&request.failure) {
        if let Op::Txn(nested) = op {
            add_compares(nested, compares);
        }
    }
}

fn compares_in(request: &TxnRequest) -> usize {
    let nested = request.success.iter().chain(&request.failure).map(|op| match op {
        Op::Txn(nested) => compares_in(nested),
        _ => 0,
    });
    request.compare.len() + nested.sum::<usize>()
}

/// Merges the outcomes of one more shard, of the same transaction, into those merged so far.
pub fn merge_outcomes(all: &mut [Outcome], more: &[Outcome]) {
    assert_eq!(all.len(), more.len(), "outcomes of two different transactions");
    for (one, other) in all.iter_mut().zip(more) {
        one.merge(*other);
    }
}

/// The branches taken: for each transaction that is evaluated, whether its compares hold. In the order in
/// which they are met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branches {
    outer: bool,
    nested: Vec<bool>,
}

impl Branches {
    /// Chooses by the merged outcomes of [`Comparing`].
    pub fn of(request: &TxnRequest, outcomes: &[Outcome]) -> Branches {
        assert_eq!(outcomes.len(), compares_in(request), "every compare has its outcome");
        Branches::choose(request, &mut |at, compare| outcomes[at].verdict(compare))
    }

    /// Chooses on a single shard; looks only at what the branches taken ask.
    pub(super) fn on(store: &Store, request: &TxnRequest) -> Branches {
        Branches::choose(request, &mut |_, one| compare(store, one).verdict(one))
    }

    fn choose(request: &TxnRequest, holds: &mut dyn FnMut(usize, &Compare) -> bool) -> Branches {
        let mut branches = Branches {
            outer: request.compare.iter().enumerate().all(|(at, c)| holds(at, c)),
            nested: vec![],
        };
        let mut at = request.compare.len();
        branches.descend(request, branches.outer, &mut at, holds);
        branches
    }

    fn descend(
        &mut self,
        request: &TxnRequest,
        held: bool,
        at: &mut usize,
        holds: &mut dyn FnMut(usize, &Compare) -> bool,
    ) {
        for (branch, taken) in [(&request.success, held), (&request.failure, !held)] {
            for op in branch {
                let Op::Txn(nested) = op else { continue };
                if !taken {
                    *at += compares_in(nested);
                    continue;
                }
                let first = *at;
                *at += nested.compare.len();
                let held = nested.compare.iter().enumerate().all(|(n, compare)| holds(first + n, compare));
                self.nested.push(held);
                self.descend(nested, held, at, holds);
            }
        }
    }

    /// The branches in the order in which they are met, for walking a request beside its branches.
    pub(super) fn decisions(&self) -> impl Iterator<Item = bool> {
        std::iter::once(self.outer).chain(self.nested.iter().copied())
    }

    /// The operations taken, in order, those of nested transactions in the place of these.
    pub fn ops<'a>(&'a self, request: &'a TxnRequest) -> Ops<'a> {
        Ops { current: branch(request, self.outer).iter(), outer: Vec::new(), nested: self.nested.iter() }
    }
}

/// The operations of the branch taken.
pub(super) fn branch(request: &TxnRequest, succeeded: bool) -> &[Op] {
    if succeeded { &request.success } else { &request.failure }
}

/// Iterates over the operations taken: ranges, puts and deletes.
pub struct Ops<'a> {
    current: std::slice::Iter<'a, Op>,
    outer: Vec<std::slice::Iter<'a, Op>>,
    nested: std::slice::Iter<'a, bool>,
}

impl<'a> Iterator for Ops<'a> {
    type Item = &'a Op;

    fn next(&mut self) -> Option<&'a Op> {
        loop {
            match self.current.next() {
                Some(Op::Txn(request)) => {
                    let held = *self
                        .nested
                        .next()
                        .expect("the branches have a decision for every transaction taken");
                    let outer = std::mem::replace(&mut self.current, branch(request, held).iter());
                    self.outer.push(outer);
                }
                Some(op) => return Some(op),
                None => {
                    let goes_on = !self.outer.is_empty() || self.nested.len() == 0;
                    assert!(goes_on, "all of the path was gone: {} decisions are left", self.nested.len());
                    self.current = self.outer.pop()?;
                }
            }
        }
    }
}
