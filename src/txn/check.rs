//! What can be said of a request without looking at any key: its validity, where it reaches, what it costs.

use crate::api::{Code, DeleteRangeRequest, Error, Op, PutRequest, RangeRequest, TxnRequest};
use crate::limits::TXN_DEPTH_MAX;
use crate::types::KeyRange;
use std::collections::{BTreeMap, BTreeSet};

/// etcd's estimate of what a put costs beyond key and value, in bytes.
const PUT_COST_BYTES: u64 = 256;

/// The highest number etcd's enum `SortOrder` names.
const SORT_ORDER_MAX: i32 = 2;
/// The highest number etcd's enum `SortTarget` names.
const SORT_TARGET_MAX: i32 = 4;

pub fn check_range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let known = (0..=SORT_ORDER_MAX).contains(&request.sort_order)
        && (0..=SORT_TARGET_MAX).contains(&request.sort_target);
    if known { Ok(()) } else { Err(Error::InvalidSortOption) }
}

/// The checks of a RangeStream: it has neither sorts nor filters.
pub fn check_stream(request: &RangeRequest) -> Result<(), Error> {
    check_range(request)?;
    let unsupported = if !super::range::default_order(request) {
        "RangeStream does not support custom sort orders"
    } else if super::range::filtered(request) {
        "RangeStream does not support revision filters"
    } else {
        return Ok(());
    };
    Err(Error::Other { code: Code::Unimplemented, text: unsupported.to_owned() })
}

pub fn check_put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease.0 != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

pub fn check_delete(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// All static checks of a transaction, in etcd's order. `ops_max` bounds each of its three lists; what is
/// nested shares what the longest of them leaves.
pub fn check_txn(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    check_level(request, ops_max, TXN_DEPTH_MAX)?;
    for branch in [&request.success, &request.failure] {
        if !plain(branch) {
            check_duplicates(branch)?;
        }
    }
    Ok(())
}

fn check_level(request: &TxnRequest, ops_max: usize, depth_left: usize) -> Result<(), Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > ops_max {
        return Err(Error::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match op {
            Op::Range(range) => check_range(range)?,
            Op::Put(put) => check_put(put)?,
            Op::DeleteRange(delete) => check_delete(delete)?,
            Op::Txn(_) if depth_left == 0 => return Err(Error::TooManyOps),
            Op::Txn(nested) => check_level(nested, ops_max - ops, depth_left - 1)?,
            Op::Empty => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// Whether a branch is too short for a duplicate.
fn plain(branch: &[Op]) -> bool {
    branch.len() <= 1 && !matches!(branch.first(), Some(Op::Txn(_)))
}

fn check_duplicates(branch: &[Op]) -> Result<(), Error> {
    written(branch).map(|_| ())
}

/// The keys a branch could put and delete, both branches of what is nested taken together.
#[derive(Default)]
struct WrittenKeys<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> WrittenKeys<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        if self.deletes.contain(key) || !self.puts.insert(key) { Err(Error::DuplicateKey) } else { Ok(()) }
    }
}

/// etcd's rule: a key is put at most once, and not where a delete covers it. The order is etcd's too, with
/// what follows from it: nested transactions are taken in turn, so that a put in one may be deleted by a
/// *later* one, while deletes of the level itself and of earlier siblings refuse it.
fn written(branch: &[Op]) -> Result<WrittenKeys<'_>, Error> {
    let mut all = WrittenKeys::default();
    for op in branch {
        if let Op::DeleteRange(delete) = op {
            all.deletes.insert_request(delete);
        }
    }
    for op in branch {
        let Op::Txn(nested) = op else { continue };
        let success = written(&nested.success)?;
        let failure = written(&nested.failure)?;
        for key in &success.puts {
            all.put(key)?;
        }
        for key in failure.puts {
            if success.puts.contains(key) {
                continue; // Only one of the two branches is taken.
            }
            all.put(key)?;
        }
        all.deletes.insert_all(success.deletes);
        all.deletes.insert_all(failure.deletes);
    }
    for op in branch {
        if let Op::Put(put) = op {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}

/// A union of half-open ranges of keys, kept disjoint.
#[derive(Default)]
struct Intervals<'a> {
    ends: BTreeMap<&'a [u8], IntervalEnd<'a>>,
}

/// Where a range of keys stops. The single key `k` ends before `k` followed by a zero byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IntervalEnd<'a> {
    After(&'a [u8]),
    Before(&'a [u8]),
}

impl IntervalEnd<'_> {
    fn bounds(self, key: &[u8]) -> bool {
        match self {
            IntervalEnd::After(last) => key <= last,
            IntervalEnd::Before(end) => key < end,
        }
    }
}

impl<'a> Intervals<'a> {
    /// etcd takes the pair of keys as it stands here: an end of one zero byte, which everywhere else means
    /// "all keys from there", is no special case, so that such a delete covers nothing and never conflicts.
    fn insert_request(&mut self, delete: &'a DeleteRangeRequest) {
        if delete.range_end.is_empty() {
            self.insert(&delete.key, IntervalEnd::After(&delete.key));
        } else if delete.key < delete.range_end {
            self.insert(&delete.key, IntervalEnd::Before(&delete.range_end));
        }
    }

    fn insert_all(&mut self, other: Intervals<'a>) {
        for (start, end) in other.ends {
            self.insert(start, end);
        }
    }

    fn insert(&mut self, mut start: &'a [u8], mut end: IntervalEnd<'a>) {
        if let Some((&before, &reach)) = self.ends.range(..=start).next_back()
            && reach.bounds(start)
        {
            start = before;
            end = later(reach, end);
        }
        while let Some((&next, &reach)) = self.ends.range(start..).next()
            && end.bounds(next)
        {
            self.ends.remove(next);
            end = later(reach, end);
        }
        self.ends.insert(start, end);
    }

    fn contain(&self, key: &[u8]) -> bool {
        self.ends.range(..=key).next_back().is_some_and(|(_, end)| end.bounds(key))
    }
}

fn later<'a>(a: IntervalEnd<'a>, b: IntervalEnd<'a>) -> IntervalEnd<'a> {
    let a_is_later = match (a, b) {
        (IntervalEnd::After(a), IntervalEnd::After(b)) | (IntervalEnd::Before(a), IntervalEnd::Before(b)) => {
            a > b
        }
        (IntervalEnd::After(a), IntervalEnd::Before(b)) => a >= b,
        (IntervalEnd::Before(a), IntervalEnd::After(b)) => a > b,
    };
    if a_is_later { a } else { b }
}

/// Every range of keys that any branch could read or write, compares included: for routing, reservation and
/// permission.
pub fn footprint(request: &TxnRequest) -> Vec<KeyRange> {
    let mut ranges = Vec::new();
    add_footprint(request, &mut ranges);
    ranges
}

fn add_footprint(request: &TxnRequest, ranges: &mut Vec<KeyRange>) {
    ranges.extend(request.compare.iter().map(|compare| compare.range()));
    for op in request.success.iter().chain(&request.failure) {
        match op {
            Op::Range(range) => ranges.push(range.range()),
            Op::Put(put) => ranges.push(KeyRange::One(put.key.clone())),
            Op::DeleteRange(delete) => ranges.push(delete.range()),
            Op::Txn(nested) => add_footprint(nested, ranges),
            Op::Empty => {}
        }
    }
}

/// What etcd's quota reckons for a put, in bytes.
pub fn cost_put(request: &PutRequest) -> u64 {
    PUT_COST_BYTES + request.key.len() as u64 + request.value.len() as u64
}

/// What etcd's quota reckons for a transaction: the dearer branch. 0 where neither branch puts, and then the
/// quota does not apply.
pub fn cost_txn(request: &TxnRequest) -> u64 {
    let cost = |branch: &[Op]| branch.iter().map(cost_op).sum::<u64>();
    cost(&request.success).max(cost(&request.failure))
}

fn cost_op(op: &Op) -> u64 {
    match op {
        Op::Put(put) => cost_put(put),
        Op::Txn(nested) => cost_txn(nested),
        Op::Range(_) | Op::DeleteRange(_) | Op::Empty => 0,
    }
}
