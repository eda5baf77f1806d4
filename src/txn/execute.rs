//! Runs the operations of a transaction against one shard's store.

use super::range::{RangePart, check_read_in_txn, range_at_once};
use super::{Branches, EpochEnded, LeaseMove, NEWEST};
use crate::api::{DeleteRangeRequest, Error, Op, PutRequest, RangeRequest, TxnRequest};
use crate::mvcc::{Budget, Store};
use crate::record::EffectChange;
use crate::types::{At, Blob, KeyRange, KeyValue, LeaseId, Revision, Sub};
use bytes::Bytes;

/// Where the next change gets its place from.
pub(super) enum Places<'a> {
    /// The first change takes the revision: for a shard that evaluates alone.
    Taking {
        take: &'a mut dyn FnMut() -> Result<Revision, EpochEnded>,
        next: Option<At>,
    },
    Planned(&'a mut PlannedPlaces),
}

/// A coordinator took the revision and handed out the places, in the order of this shard's changes.
#[derive(Debug)]
pub(super) struct PlannedPlaces {
    revision: Revision,
    sub_ranges: std::vec::IntoIter<super::SubRange>,
    sub: Sub,
    left: u32,
}

impl PlannedPlaces {
    pub fn new(revision: Revision, sub_ranges: Vec<super::SubRange>) -> PlannedPlaces {
        PlannedPlaces { revision, sub_ranges: sub_ranges.into_iter(), sub: Sub(0), left: 0 }
    }

    pub fn next(&mut self) -> At {
        while self.left == 0 {
            let sub_range = self.sub_ranges.next().expect("the plan has a place for every change");
            assert!(
                sub_range.first >= self.sub,
                "the places of a shard rise: {sub_range:?} after {}",
                self.sub
            );
            (self.sub, self.left) = (sub_range.first, sub_range.changes);
        }
        let at = At { main: self.revision, sub: self.sub };
        self.sub = Sub(at.sub.0 + 1);
        self.left -= 1;
        at
    }

    pub fn are_used_up(&self) -> bool {
        self.left == 0 && self.sub_ranges.len() == 0
    }
}

impl Places<'_> {
    pub(super) fn next(&mut self) -> Result<At, EpochEnded> {
        match self {
            Places::Taking { take, next } => {
                let at = match *next {
                    Some(at) => at,
                    None => At { main: take()?, sub: Sub(0) },
                };
                *next = Some(At { main: at.main, sub: Sub(at.sub.0 + 1) });
                Ok(at)
            }
            Places::Planned(places) => Ok(places.next()),
        }
    }

    /// The revision, where a change took one here.
    pub(super) fn taken(&self) -> Option<Revision> {
        match self {
            Places::Taking { next, .. } => next.map(|at| at.main),
            Places::Planned(_) => None,
        }
    }
}

/// What one operation gave on one shard.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum OpPart {
    Range(RangePart),
    Put {
        prev_kv: Option<KeyValue>,
    },
    Delete {
        deleted: u64,
        prev_kvs: Vec<KeyValue>,
    },
    /// A put whose key is another shard's.
    Elsewhere,
}

/// What writing changed, for the log and for the lease index.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub changes: Vec<EffectChange>,
    pub leases: Vec<LeaseMove>,
    /// Deletes of one range that are named one by one.
    delete_list_max: usize,
}

/// Runs a range, a put or a delete. `owned` are the keys of this shard. An error leaves the store as it was:
/// only the first change of a transaction can meet it.
pub(super) fn run(
    store: &mut Store,
    owned: &[KeyRange],
    op: &Op,
    places: &mut Places<'_>,
    changed: &mut Changed,
) -> Result<OpPart, EpochEnded> {
    match op {
        Op::Range(request) => Ok(OpPart::Range(range_at_once(store, request, read_at(request)))),
        Op::Put(request) if !owns(owned, &request.key) => Ok(OpPart::Elsewhere),
        Op::Put(request) => Ok(OpPart::Put { prev_kv: put(store, request, places, changed)? }),
        Op::DeleteRange(request) => delete(store, owned, request, places, changed),
        Op::Txn(_) | Op::Empty => {
            unreachable!("branches give single operations, and checks refuse empty ones")
        }
    }
}

/// The revision that a range of a transaction reads at.
pub(super) fn read_at(request: &RangeRequest) -> Revision {
    if request.revision <= 0 { NEWEST } else { Revision(request.revision.cast_unsigned()) }
}

/// Gives the key's state before where that was asked for.
pub(super) fn put(
    store: &mut Store,
    request: &PutRequest,
    places: &mut Places<'_>,
    changed: &mut Changed,
) -> Result<Option<KeyValue>, EpochEnded> {
    let (mut value, mut lease) = (None, request.lease);
    if request.ignore_value || request.ignore_lease {
        let before = store.newest(&request.key).expect("a put that keeps something was checked for its key");
        if request.ignore_lease {
            lease = before.lease;
        }
        value = request.ignore_value.then_some(before.value);
    }
    let value = value.unwrap_or_else(|| Blob::new(&request.value));
    let at = places.next()?;
    let (key, from, before) = if request.prev_kv {
        let before = store.put(at, &request.key, value.clone(), lease);
        match &before {
            Some(kv) => (kv.key.clone(), kv.lease, before),
            None => (Blob::new(&request.key), LeaseId::NONE, None),
        }
    } else {
        let (key, from) = store.put_over(at, &request.key, value.clone(), lease);
        (key, from, None)
    };
    changed.note_lease(&key, from, lease);
    changed.changes.push(EffectChange::Put { sub: at.sub, key, value, lease });
    Ok(before)
}

pub(super) fn delete(
    store: &mut Store,
    owned: &[KeyRange],
    request: &DeleteRangeRequest,
    places: &mut Places<'_>,
    changed: &mut Changed,
) -> Result<OpPart, EpochEnded> {
    let mut deleting = Deleting::new(owned, changed);
    while !deleting.step(store, request, places, changed, Budget::UNBOUNDED)? {}
    Ok(deleting.into_part())
}

/// A delete of a range, in slices. Its deletes follow each other in what has changed.
#[derive(Debug)]
pub(super) struct Deleting {
    resume: Option<Blob>,
    /// How much had changed before it.
    listed: usize,
    /// The shard owns one range: no other shard has places between its deletes.
    in_a_row: bool,
    deleted: u64,
    prev_kvs: Vec<KeyValue>,
}

impl Deleting {
    pub fn new(owned: &[KeyRange], changed: &Changed) -> Deleting {
        let listed = changed.changes.len();
        Deleting { resume: None, listed, in_a_row: owned.len() == 1, deleted: 0, prev_kvs: Vec::new() }
    }

    /// Deletes as many keys as the budget allows to be looked at; true once all are gone. Only the first
    /// change of a transaction can fail, and leaves the store as it was.
    pub fn step(
        &mut self,
        store: &mut Store,
        request: &DeleteRangeRequest,
        places: &mut Places<'_>,
        changed: &mut Changed,
        budget: Budget,
    ) -> Result<bool, EpochEnded> {
        let doomed = if request.range_end.is_empty() {
            store.newest(&request.key).into_iter().collect()
        } else {
            let slice = store.range(&request.range(), NEWEST, self.resume.as_deref(), budget);
            self.resume = slice.resume;
            slice.kvs
        };
        for kv in doomed {
            let at = places.next()?;
            let before = store.delete(at, &kv.key).expect("a key that was just read is there to be deleted");
            changed.note_lease(&before.key, before.lease, LeaseId::NONE);
            changed.note_delete(self.listed, at.sub, &before.key);
            self.deleted += 1;
            if request.prev_kv {
                self.prev_kvs.push(before);
            }
        }
        let done = self.resume.is_none();
        if done || self.in_a_row {
            changed.name_by_range(self.listed, &request.range());
        }
        Ok(done)
    }

    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    pub fn into_part(self) -> OpPart {
        assert!(self.resume.is_none(), "a delete is taken when it has gone through its range");
        let pairs = self.prev_kvs.len() as u64;
        assert!(pairs == 0 || pairs == self.deleted, "of what is deleted all is shown or nothing: {pairs}");
        OpPart::Delete { deleted: self.deleted, prev_kvs: self.prev_kvs }
    }
}

impl Changed {
    pub fn new(delete_list_max: usize) -> Changed {
        Changed { delete_list_max, ..Changed::default() }
    }

    /// Many deletes of one range, which are all there was in it, become one change.
    fn name_by_range(&mut self, from: usize, range: &KeyRange) {
        let deletes = &self.changes[from..];
        let (Some(EffectChange::Delete { sub: first, .. }), Some(EffectChange::Delete { sub: last, .. })) =
            (deletes.first(), deletes.last())
        else {
            return;
        };
        let in_a_row = (last.0 - first.0) as usize + 1 == deletes.len();
        if deletes.len() <= self.delete_list_max || !in_a_row {
            return;
        }
        let (key, end) = match range {
            KeyRange::Between(key, end) => (Blob::new(key), Blob::new(end)),
            KeyRange::From(key) => (Blob::new(key), Blob::new(b"")),
            KeyRange::One(_) => return,
        };
        let (sub, count) = (*first, deletes.len() as u32);
        self.changes.truncate(from);
        self.changes.push(EffectChange::DeleteRange { sub, key, end, count });
    }

    /// One more delete of the operation before which so much had changed.
    fn note_delete(&mut self, listed: usize, sub: Sub, key: &Blob) {
        match self.changes.get_mut(listed) {
            Some(EffectChange::DeleteRange { sub: first, count, .. }) => {
                assert!(first.0 + *count == sub.0, "deletes named by their range are in a row");
                *count += 1;
            }
            _ => self.changes.push(EffectChange::Delete { sub, key: key.clone() }),
        }
    }

    /// The delete of one key by name.
    pub fn delete_one(&mut self, sub: Sub, before: &KeyValue) {
        self.note_lease(&before.key, before.lease, LeaseId::NONE);
        self.changes.push(EffectChange::Delete { sub, key: before.key.clone() });
    }

    fn note_lease(&mut self, key: &Blob, from: LeaseId, to: LeaseId) {
        if from != to {
            self.leases.push(LeaseMove { key: key.clone(), from, to });
        }
    }
}

/// The checks that need the state, for all operations taken and before any of them runs: the first failure
/// in etcd's order, with the number of its operation.
pub(super) fn precheck(
    store: &Store,
    owned: &[KeyRange],
    request: &TxnRequest,
    branches: &Branches,
    current: Revision,
    leases: &dyn Fn(LeaseId) -> bool,
) -> Option<(usize, Error)> {
    let mut deleted_from: Option<&Bytes> = None;
    for (at, op) in branches.ops(request).enumerate() {
        let checked = match op {
            Op::Range(range) => check_read_in_txn(range.revision, current, store.compacted()),
            Op::Put(put) if owns(owned, &put.key) => {
                let gone = deleted_from.is_some_and(|start| *start <= put.key);
                check_put_state(store, put, gone, leases)
            }
            Op::DeleteRange(delete) => {
                // Of all deletes only this kind may stand before a put of a key it deletes.
                if let KeyRange::From(_) = delete.range() {
                    deleted_from = Some(deleted_from.map_or(&delete.key, |start| start.min(&delete.key)));
                }
                Ok(())
            }
            Op::Put(_) | Op::Txn(_) | Op::Empty => Ok(()),
        };
        if let Err(error) = checked {
            return Some((at, error));
        }
    }
    None
}

/// `gone`: an operation before this one deletes the key.
pub(super) fn check_put_state(
    store: &Store,
    put: &PutRequest,
    gone: bool,
    leases: &dyn Fn(LeaseId) -> bool,
) -> Result<(), Error> {
    if put.lease != LeaseId::NONE && !leases(put.lease) {
        return Err(Error::LeaseNotFound);
    }
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && (gone || store.newest_meta(&put.key).is_none()) {
        return Err(Error::KeyNotFound);
    }
    Ok(())
}

pub(super) fn owns(owned: &[KeyRange], key: &[u8]) -> bool {
    owned.iter().any(|range| range.contains(key))
}
