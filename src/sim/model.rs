//! A model of etcd: what it answers, in one ordered map, written to be read and not to be fast.
//!
//! It shares types with the program and no logic: whatever both get right, they got right twice. Where etcd
//! 3.7 itself would crash (a put that keeps the value of a key that an earlier operation of the transaction
//! deletes) the model answers what etcd says of a missing key.

use crate::api::{
    Answer, Compare, CompareResult, CompareTarget, DeleteRangeReply, DeleteRangeRequest, Error, KeysOnly, Op,
    OpReply, PutReply, PutRequest, RangeReply, RangeRequest, Reply, Request, TxnReply, TxnRequest,
    WatchEvent,
};
use crate::types::{At, Blob, Event, KeyRange, KeyValue, LeaseId, Revision, Sub};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Keys = BTreeMap<Vec<u8>, KeyValue>;

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    at: At,
    key: Vec<u8>,
    before: Option<KeyValue>,
    after: Option<KeyValue>,
}

/// All of etcd's state that its clients can see, but for members and alarms.
#[derive(Clone, Debug)]
pub struct Model {
    txn_ops_max: usize,
    revision: i64,
    /// -1 before the first compaction, as in etcd.
    compacted: i64,
    keys: Keys,
    /// Shared with copies, which are many.
    history: Vec<Arc<Change>>,
    leases: BTreeSet<LeaseId>,
}

impl Model {
    /// A fresh etcd with its `--max-txn-ops`.
    pub fn new(txn_ops_max: usize) -> Model {
        Model {
            txn_ops_max,
            revision: 1,
            compacted: -1,
            keys: Keys::new(),
            history: Vec::new(),
            leases: BTreeSet::new(),
        }
    }

    pub fn revision(&self) -> Revision {
        revision(self.revision)
    }

    /// [`Revision::NONE`] before the first compaction.
    pub fn compacted(&self) -> Revision {
        revision(self.compacted.max(0))
    }

    /// Answers a request of the KV and Lease services. Panics for others: the model does not know them.
    pub fn answer(&mut self, request: &Request) -> Answer {
        match request {
            Request::Range(range) => self.range(range).map(Reply::Range),
            Request::Put(put) => self.put(put).map(Reply::Put),
            Request::DeleteRange(delete) => self.delete_range(delete).map(Reply::DeleteRange),
            Request::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Request::Compact(compact) => self.compact(compact.revision),
            Request::LeaseGrant(grant) => {
                self.lease_grant(grant.id)?;
                Ok(Reply::LeaseGrant { revision: self.revision(), lease: grant.id, ttl: grant.ttl })
            }
            Request::LeaseRevoke(lease) => {
                self.lease_revoke(*lease).map(|revision| Reply::LeaseRevoke { revision })
            }
            other => panic!("the model does not know {other:?}"),
        }
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, Error> {
        check_op(&Op::Range(request.clone()), 0)?;
        if request.revision > self.revision {
            return Err(Error::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(Error::Compacted);
        }
        Ok(self.show_range(request, self.revision))
    }

    pub fn put(&mut self, request: &PutRequest) -> Result<PutReply, Error> {
        check_op(&Op::Put(request.clone()), 0)?;
        self.check_put(request, &[])?;
        let mut write = Write::on(self);
        let reply = write.put(request);
        self.adopt(write);
        Ok(reply)
    }

    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeReply, Error> {
        check_op(&Op::DeleteRange(request.clone()), 0)?;
        let mut write = Write::on(self);
        let reply = write.delete(request);
        self.adopt(write);
        Ok(reply)
    }

    pub fn txn(&mut self, request: &TxnRequest) -> Result<TxnReply, Error> {
        check_txn(request, self.txn_ops_max)?;
        no_duplicates(&request.success)?;
        no_duplicates(&request.failure)?;
        let mut taken = Vec::new();
        self.choose(request, &mut taken);
        self.check_state(&flatten(request, &mut taken.iter()))?;
        let mut write = Write::on(self);
        let mut reply = write.txn(request, &mut taken.iter());
        reply.revision = revision(write.shown());
        self.adopt(write);
        Ok(reply)
    }

    pub fn compact(&mut self, at: i64) -> Answer {
        if at <= self.compacted {
            return Err(Error::Compacted);
        }
        if at > self.revision {
            return Err(Error::FutureRevision);
        }
        self.compacted = at;
        Ok(Reply::Compact { revision: self.revision() })
    }

    /// A lease the client named. The model does not know how the server chooses numbers and lives.
    pub fn lease_grant(&mut self, lease: LeaseId) -> Result<(), Error> {
        if self.leases.insert(lease) { Ok(()) } else { Err(Error::LeaseExists) }
    }

    /// Ends a lease and deletes its keys. Gives the revision of the reply.
    pub fn lease_revoke(&mut self, lease: LeaseId) -> Result<Revision, Error> {
        if !self.leases.remove(&lease) {
            return Err(Error::LeaseNotFound);
        }
        let mut write = Write::on(self);
        for key in self.attached(lease) {
            write.delete(&DeleteRangeRequest { key: key.to_vec().into(), ..Default::default() });
        }
        self.adopt(write);
        Ok(self.revision())
    }

    /// The keys of a lease, ascending.
    pub fn attached(&self, lease: LeaseId) -> Vec<Blob> {
        self.keys.values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    /// What a watch of the range shows from `start` on, with the state of each key before. The error is the
    /// compacted revision, where `start` is below it.
    pub fn events(&self, range: &KeyRange, start: Revision) -> Result<Vec<(At, WatchEvent)>, Revision> {
        if start.wire() < self.compacted {
            return Err(self.compacted());
        }
        let seen =
            self.history.iter().filter(|change| change.at.main >= start && range.contains(&change.key));
        Ok(seen.map(|change| (change.at, event(change))).collect())
    }

    /// All live keys at a revision, ascending.
    pub fn state_at(&self, at: Revision) -> Vec<KeyValue> {
        self.keys_at(at.wire()).into_values().collect()
    }

    /// Forgets all revisions above `to`, as if they had never been. Leases and compaction stay.
    #[cfg(test)]
    pub fn undo_above(&mut self, to: Revision) {
        while self.history.last().is_some_and(|change| change.at.main > to) {
            let change = self.history.pop().expect("there is a last change");
            match &change.before {
                Some(kv) => self.keys.insert(change.key.clone(), kv.clone()),
                None => self.keys.remove(&change.key),
            };
        }
        self.revision = self.revision.min(to.wire());
    }

    fn adopt(&mut self, write: Write) {
        self.revision = write.shown();
        self.keys = write.model.keys;
        self.history = write.model.history;
    }

    fn keys_at(&self, at: i64) -> Keys {
        let mut keys = self.keys.clone();
        for change in self.history.iter().rev().take_while(|change| change.at.main.wire() > at) {
            match &change.before {
                Some(kv) => keys.insert(change.key.clone(), kv.clone()),
                None => keys.remove(&change.key),
            };
        }
        keys
    }

    fn live(&self, range: &KeyRange) -> Vec<&KeyValue> {
        self.keys.iter().filter(|(key, _)| range.contains(key)).map(|(_, kv)| kv).collect()
    }

    fn show_range(&self, request: &RangeRequest, header: i64) -> RangeReply {
        let at = if request.revision <= 0 { i64::MAX } else { request.revision };
        let range = KeyRange::of(request.key.clone(), request.range_end.clone());
        let mut kvs: Vec<KeyValue> =
            self.keys_at(at).into_values().filter(|kv| range.contains(&kv.key)).collect();
        let count = kvs.len() as u64;
        if request.count_only {
            kvs.clear();
        }
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let natural = request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
        if natural && filters == [0; 4] && limit < kvs.len() {
            kvs.truncate(limit + 1);
        }
        let [min_mod, max_mod, min_create, max_create] = filters;
        kvs.retain(|kv| {
            let (modified, created) = (kv.mod_revision.wire(), kv.create_revision.wire());
            let outside =
                |number: i64, min: i64, max: i64| (min != 0 && number < min) || (max != 0 && number > max);
            !outside(modified, min_mod, max_mod) && !outside(created, min_create, max_create)
        });
        kvs.sort_by(|a, b| {
            let order = match request.sort_target {
                0 => a.key.cmp(&b.key),
                1 => a.version.cmp(&b.version),
                2 => a.create_revision.cmp(&b.create_revision),
                3 => a.mod_revision.cmp(&b.mod_revision),
                _ => a.value.cmp(&b.value),
            };
            if request.sort_order == 2 { order.reverse() } else { order }
        });
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        let keys_only = match (request.keys_only, request.sort_target) {
            (false, _) => KeysOnly::No,
            (true, 4) => KeysOnly::WithoutValue,
            (true, _) => KeysOnly::WithoutValueAndLease,
        };
        RangeReply { revision: revision(header), kvs, keys_only, more, count }
    }

    fn choose(&self, request: &TxnRequest, taken: &mut Vec<bool>) {
        let held = request.compare.iter().all(|compare| self.compare(compare));
        taken.push(held);
        for op in if held { &request.success } else { &request.failure } {
            if let Op::Txn(nested) = op {
                self.choose(nested, taken);
            }
        }
    }

    fn compare(&self, compare: &Compare) -> bool {
        let found = self.live(&KeyRange::of(compare.key.clone(), compare.range_end.clone()));
        if found.is_empty() {
            return !matches!(compare.target, CompareTarget::Value(_)) && holds(compare, [0; 4], b"");
        }
        found.iter().all(|kv| {
            let numbers = [kv.version as i64, kv.create_revision.wire(), kv.mod_revision.wire(), kv.lease.0];
            holds(compare, numbers, &kv.value)
        })
    }

    /// What can fail on the branches taken.
    fn check_state(&self, ops: &[&Op]) -> Result<(), Error> {
        for (at, op) in ops.iter().enumerate() {
            match op {
                Op::Range(range) if range.revision > self.revision => return Err(Error::FutureRevision),
                Op::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Error::Compacted);
                }
                Op::Put(put) => self.check_put(put, &ops[..at])?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &PutRequest, earlier: &[&Op]) -> Result<(), Error> {
        if put.lease.0 != 0 && !self.leases.contains(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        let deleted = earlier.iter().any(|op| {
            matches!(op, Op::DeleteRange(delete)
                if KeyRange::of(delete.key.clone(), delete.range_end.clone()).contains(&put.key))
        });
        let missing = deleted || !self.keys.contains_key(&put.key[..]);
        if (put.ignore_value || put.ignore_lease) && missing {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }
}

/// A write in progress, on a copy.
struct Write {
    model: Model,
    changes: u32,
}

impl Write {
    fn on(model: &Model) -> Write {
        Write { model: model.clone(), changes: 0 }
    }

    /// The revision an operation shows.
    fn shown(&self) -> i64 {
        self.model.revision + i64::from(self.changes > 0)
    }

    fn change(&mut self, key: &[u8], after: impl Fn(Option<&KeyValue>, Revision) -> Option<KeyValue>) {
        let at = At { main: revision(self.model.revision + 1), sub: Sub(self.changes) };
        let before = self.model.keys.remove(key);
        let after = after(before.as_ref(), at.main);
        if let Some(kv) = &after {
            self.model.keys.insert(key.to_vec(), kv.clone());
        }
        self.changes += 1;
        self.model.history.push(Arc::new(Change { at, key: key.to_vec(), before, after }));
    }

    fn put(&mut self, request: &PutRequest) -> PutReply {
        let prev_kv = self.model.keys.get(&request.key[..]).cloned().filter(|_| request.prev_kv);
        self.change(&request.key, |before, now| {
            let kept = |keep: bool| before.filter(|_| keep);
            Some(KeyValue {
                key: Blob::new(&request.key),
                value: kept(request.ignore_value).map_or(Blob::new(&request.value), |kv| kv.value.clone()),
                create_revision: before.map_or(now, |kv| kv.create_revision),
                mod_revision: now,
                version: before.map_or(0, |kv| kv.version) + 1,
                lease: kept(request.ignore_lease).map_or(request.lease, |kv| kv.lease),
            })
        });
        PutReply { revision: revision(self.shown()), prev_kv }
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeReply {
        let range = KeyRange::of(request.key.clone(), request.range_end.clone());
        let doomed: Vec<KeyValue> = self.model.live(&range).into_iter().cloned().collect();
        for kv in &doomed {
            self.change(&kv.key, |_, _| None);
        }
        DeleteRangeReply {
            revision: revision(self.shown()),
            deleted: doomed.len() as u64,
            prev_kvs: if request.prev_kv { doomed } else { Vec::new() },
        }
    }

    fn txn(&mut self, request: &TxnRequest, taken: &mut std::slice::Iter<'_, bool>) -> TxnReply {
        let succeeded = *taken.next().expect("a transaction has its choice");
        let mut responses = Vec::new();
        for op in if succeeded { &request.success } else { &request.failure } {
            responses.push(match op {
                Op::Range(range) => OpReply::Range(self.model.show_range(range, self.shown())),
                Op::Put(put) => OpReply::Put(self.put(put)),
                Op::DeleteRange(delete) => OpReply::DeleteRange(self.delete(delete)),
                Op::Txn(nested) => OpReply::Txn(self.txn(nested, taken)),
                Op::Empty => unreachable!("empty operations are refused"),
            });
        }
        TxnReply { revision: Revision::NONE, succeeded, responses }
    }
}

fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).expect("a revision shown is not negative"))
}

fn event(change: &Change) -> WatchEvent {
    let event = match &change.after {
        Some(kv) => Event::Put(kv.clone()),
        None => Event::Delete { key: Blob::new(&change.key), mod_revision: change.at.main },
    };
    WatchEvent { event, prev_kv: change.before.clone() }
}

fn flatten<'a>(request: &'a TxnRequest, taken: &mut std::slice::Iter<'_, bool>) -> Vec<&'a Op> {
    let mut ops = Vec::new();
    let succeeded = *taken.next().expect("a transaction has its choice");
    for op in if succeeded { &request.success } else { &request.failure } {
        match op {
            Op::Txn(nested) => ops.extend(flatten(nested, taken)),
            op => ops.push(op),
        }
    }
    ops
}

fn holds(compare: &Compare, [version, create, modified, lease]: [i64; 4], value: &[u8]) -> bool {
    let sign = match &compare.target {
        CompareTarget::Version(with) => version.cmp(with),
        CompareTarget::Create(with) => create.cmp(with),
        CompareTarget::Mod(with) => modified.cmp(with),
        CompareTarget::Lease(with) => lease.cmp(with),
        CompareTarget::Value(with) => value.cmp(&with[..]),
        CompareTarget::Unknown(_) => std::cmp::Ordering::Equal,
    } as i8;
    match compare.result {
        CompareResult::Equal => sign == 0,
        CompareResult::NotEqual => sign != 0,
        CompareResult::Greater => sign == 1,
        CompareResult::Less => sign == -1,
        CompareResult::Unknown(_) => true,
    }
}

fn check_txn(request: &TxnRequest, budget: usize) -> Result<(), Error> {
    let longest = [request.compare.len(), request.success.len(), request.failure.len()].into_iter().max();
    let left = budget.checked_sub(longest.unwrap_or(0)).ok_or(Error::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| check_op(op, left))
}

fn check_op(op: &Op, budget: usize) -> Result<(), Error> {
    match op {
        Op::Range(range) if range.key.is_empty() => Err(Error::EmptyKey),
        Op::Range(range) if !matches!((range.sort_order, range.sort_target), (0..=2, 0..=4)) => {
            Err(Error::InvalidSortOption)
        }
        Op::Put(put) if put.key.is_empty() => Err(Error::EmptyKey),
        Op::Put(put) if put.ignore_value && !put.value.is_empty() => Err(Error::ValueProvided),
        Op::Put(put) if put.ignore_lease && put.lease.0 != 0 => Err(Error::LeaseProvided),
        Op::DeleteRange(delete) if delete.key.is_empty() => Err(Error::EmptyKey),
        Op::Txn(nested) => check_txn(nested, budget),
        Op::Empty => Err(Error::KeyNotFound),
        _ => Ok(()),
    }
}

type Deletes<'a> = Vec<&'a DeleteRangeRequest>;

/// Finds a key put twice, or put and deleted, in the order in which etcd looks; the keys put and the deletes
/// of the branch where there is none.
fn no_duplicates(ops: &[Op]) -> Result<(Vec<&[u8]>, Deletes<'_>), Error> {
    fn covers(delete: &DeleteRangeRequest, key: &[u8]) -> bool {
        // Here, and only here, etcd takes the end "\0" for what it is: a key below all others.
        match &delete.range_end[..] {
            [] => delete.key == key,
            end => delete.key <= key && key < end,
        }
    }
    let mut puts: Vec<&[u8]> = Vec::new();
    let mut deletes: Deletes<'_> = Vec::new();
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            deletes.push(delete);
        }
    }
    let clashes = |key: &[u8], puts: &[&[u8]], deletes: &[&DeleteRangeRequest]| {
        puts.contains(&key) || deletes.iter().any(|delete| covers(delete, key))
    };
    for op in ops {
        let Op::Txn(nested) = op else { continue };
        let (then_puts, then_deletes) = no_duplicates(&nested.success)?;
        let (else_puts, else_deletes) = no_duplicates(&nested.failure)?;
        if then_puts.iter().any(|key| clashes(key, &puts, &deletes)) {
            return Err(Error::DuplicateKey);
        }
        if else_puts.iter().any(|key| !then_puts.contains(key) && clashes(key, &puts, &deletes)) {
            return Err(Error::DuplicateKey);
        }
        puts.extend(then_puts);
        puts.extend(else_puts);
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        let Op::Put(put) = op else { continue };
        if clashes(&put.key, &puts, &deletes) {
            return Err(Error::DuplicateKey);
        }
        puts.push(&put.key);
    }
    Ok((puts, deletes))
}
