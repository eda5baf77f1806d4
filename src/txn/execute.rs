//! Runs the operations of a transaction against one shard's store.

use super::range::{RangePart, check_read_in_txn, range_at_once};
use super::{Ended, LeaseMove, NEWEST, Path};
use crate::api::{DeleteRangeRequest, Error, Op, PutRequest, TxnRequest};
use crate::limits::DELETE_LIST_MAX;
use crate::mvcc::{Budget, Store};
use crate::record::EffectChange;
use crate::types::{At, Blob, KeyRange, KeyValue, LeaseId, Revision, Sub};
use bytes::Bytes;

/// Where the next change gets its place from.
pub(super) enum Places<'a> {
    /// The first change takes the revision: for a shard that evaluates alone.
    Taking { take: &'a mut dyn FnMut() -> Result<Revision, Ended>, next: Option<At> },
    /// A coordinator took the revision and handed out the places, in the order of this shard's changes.
    Planned { revision: Revision, shares: std::slice::Iter<'a, super::Share>, sub: Sub, left: u32 },
}

impl Places<'_> {
    pub(super) fn next(&mut self) -> Result<At, Ended> {
        match self {
            Places::Taking { take, next } => {
                let at = match *next {
                    Some(at) => at,
                    None => At { main: take()?, sub: Sub(0) },
                };
                *next = Some(At { main: at.main, sub: Sub(at.sub.0 + 1) });
                Ok(at)
            }
            Places::Planned { revision, shares, sub, left } => {
                while *left == 0 {
                    let share = shares.next().expect("the plan has a place for every change");
                    (*sub, *left) = (share.first, share.changes);
                }
                let at = At { main: *revision, sub: *sub };
                *sub = Sub(sub.0 + 1);
                *left -= 1;
                Ok(at)
            }
        }
    }
}

impl Places<'_> {
    /// The revision, where a change took one here.
    pub(super) fn taken(&self) -> Option<Revision> {
        match self {
            Places::Taking { next, .. } => next.map(|at| at.main),
            Places::Planned { .. } => None,
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
}

/// Runs a range, a put or a delete. `owned` are the keys of this shard. An error leaves the store as it was:
/// only the first change of a transaction can meet it.
pub(super) fn run(
    store: &mut Store,
    owned: &[KeyRange],
    op: &Op,
    places: &mut Places<'_>,
    changed: &mut Changed,
) -> Result<OpPart, Ended> {
    match op {
        Op::Range(request) => {
            let at = if request.revision <= 0 { NEWEST } else { Revision(request.revision.cast_unsigned()) };
            Ok(OpPart::Range(range_at_once(store, request, at)))
        }
        Op::Put(request) if !owns(owned, &request.key) => Ok(OpPart::Elsewhere),
        Op::Put(request) => {
            let prev_kv = put(store, request, places, changed)?;
            Ok(OpPart::Put { prev_kv: prev_kv.filter(|_| request.prev_kv) })
        }
        Op::DeleteRange(request) => delete(store, request, places, changed),
        Op::Txn(_) | Op::Empty => {
            unreachable!("a path gives single operations, and checks refuse empty ones")
        }
    }
}

pub(super) fn put(
    store: &mut Store,
    request: &PutRequest,
    places: &mut Places<'_>,
    changed: &mut Changed,
) -> Result<Option<KeyValue>, Ended> {
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
    let before = store.put(at, &request.key, value.clone(), lease);
    let (key, from) = match &before {
        Some(kv) => (kv.key.clone(), kv.lease),
        None => (Blob::new(&request.key), LeaseId::NONE),
    };
    changed.note_lease(&key, from, lease);
    changed.changes.push(EffectChange::Put { sub: at.sub, key, value, lease });
    Ok(before)
}

pub(super) fn delete(
    store: &mut Store,
    request: &DeleteRangeRequest,
    places: &mut Places<'_>,
    changed: &mut Changed,
) -> Result<OpPart, Ended> {
    let (mut deleted, mut prev_kvs) = (0, Vec::new());
    let doomed = if request.range_end.is_empty() {
        store.newest(&request.key).into_iter().collect()
    } else {
        store.range(&request.range(), NEWEST, None, Budget::UNBOUNDED).kvs
    };
    let listed = changed.changes.len();
    for kv in doomed {
        let at = places.next()?;
        let before = store.delete(at, &kv.key).expect("a key that was just read is there to be deleted");
        changed.note_lease(&before.key, before.lease, LeaseId::NONE);
        changed.changes.push(EffectChange::Delete { sub: at.sub, key: before.key.clone() });
        deleted += 1;
        if request.prev_kv {
            prev_kvs.push(before);
        }
    }
    name_by_range(&mut changed.changes, listed, &request.range());
    Ok(OpPart::Delete { deleted, prev_kvs })
}

/// Many deletes of one range, which are all there was in it, become one change.
fn name_by_range(changes: &mut Vec<EffectChange>, from: usize, range: &KeyRange) {
    let deletes = &changes[from..];
    let (Some(EffectChange::Delete { sub: first, .. }), Some(EffectChange::Delete { sub: last, .. })) =
        (deletes.first(), deletes.last())
    else {
        return;
    };
    let in_a_row = (last.0 - first.0) as usize + 1 == deletes.len();
    if deletes.len() <= DELETE_LIST_MAX || !in_a_row {
        return;
    }
    let (key, end) = match range {
        KeyRange::Between(key, end) => (Blob::new(key), Blob::new(end)),
        KeyRange::From(key) => (Blob::new(key), Blob::new(b"")),
        KeyRange::One(_) => return,
    };
    let (sub, count) = (*first, deletes.len() as u32);
    changes.truncate(from);
    changes.push(EffectChange::DeleteRange { sub, key, end, count });
}

impl Changed {
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
    path: &Path,
    current: Revision,
    leases: &dyn Fn(LeaseId) -> bool,
) -> Option<(usize, Error)> {
    let mut deleted_from: Option<&Bytes> = None;
    for (at, op) in path.ops(request).enumerate() {
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
