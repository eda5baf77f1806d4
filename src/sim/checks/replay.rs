//! The model repeats history, and every answer is held against it.

use super::errors;
use super::{Evidence, header, request_of};
use crate::api::{Answer, Reply, Request};
use crate::limits::TXN_OPS_DEFAULT;
use crate::sim::history::Op;
use crate::sim::model::Model;
use crate::sim::workload::tagged;
use crate::sim::world::Failure;
use crate::types::{Blob, Event, KeyRange, LeaseId, Revision};
use crate::types::{ClusterId, MemberId, Term};
use crate::wire::proto::{self, Message};
use crate::wire::{self, Method, encode};
use std::collections::{BTreeMap, BTreeSet};

struct Replay<'a> {
    evidence: &'a Evidence<'a>,
    model: Model,
    /// Calls that were answered, by the revision their answer shows.
    answered: BTreeMap<i64, Vec<usize>>,
    /// Calls of unknown outcome that may yet explain a revision.
    unknown: BTreeSet<usize>,
    done: Done,
    errors: Vec<errors::Pending>,
    attached: Vec<Attached>,
}

/// What made the revisions: calls, and leases that ended, by themselves or not.
#[derive(Default)]
pub struct Done {
    pub writers: BTreeMap<i64, usize>,
    pub ended_leases: Vec<(LeaseId, i64)>,
}

/// The keys of a lease that a call was told, and those that the lease had while the call was under way.
struct Attached {
    call: usize,
    lease: LeaseId,
    revisions: std::ops::RangeInclusive<i64>,
    told: BTreeSet<Vec<u8>>,
    /// The keys that the lease had at some of these revisions, and those that it had at all of them.
    some: BTreeSet<Vec<u8>>,
    all: Option<BTreeSet<Vec<u8>>>,
}

/// Gives what made each revision.
pub fn replay(evidence: &Evidence<'_>) -> Result<Done, Failure> {
    let history = evidence.history;
    let mut model = Model::new(TXN_OPS_DEFAULT);
    let mut answered: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for (at, op) in history.ops.iter().enumerate() {
        if op.method == Method::LeaseGrant {
            let Request::LeaseGrant(grant) = request_of(op) else { continue };
            model.lease_grant(grant.id).map_err(|_| Failure::new("replay", "a lease is granted twice"))?;
        }
        if !is_of_model(op.method) {
            continue;
        }
        if let Some(revision) = op.revision() {
            answered.entry(revision).or_default().push(at);
        } else if op.is_unknown() {
            unknown.insert(at);
        }
    }
    let errors = errors::pending(evidence)?;
    let attached = asked_keys(evidence);
    let mut replay = Replay { evidence, model, answered, unknown, done: Done::default(), errors, attached };
    replay.read_at(1)?;
    for revision in evidence.record.keys() {
        replay.write(*revision)?;
        replay.read_at(*revision)?;
    }
    errors::check(&replay.errors, evidence)?;
    replay.check_attached()?;
    Ok(replay.done)
}

fn is_of_model(method: Method) -> bool {
    matches!(
        method,
        Method::Put
            | Method::DeleteRange
            | Method::Txn
            | Method::Range
            | Method::RangeStream
            | Method::LeaseRevoke
    )
}

fn asked_keys(evidence: &Evidence<'_>) -> Vec<Attached> {
    let ops = evidence.history.ops.iter().enumerate();
    let asked = ops.filter(|(_, op)| op.method == Method::LeaseTimeToLive && op.is_ok());
    let asked = asked.filter_map(|(call, op)| {
        let Request::LeaseTimeToLive { lease, keys: true } = request_of(op) else { return None };
        let reply = proto::LeaseTimeToLiveResponse::decode(op.messages[0].clone()).expect("it is protobuf");
        // One that has ended has none, whatever was attached when it was asked for.
        let (shown, there) = (reply.header.map_or(0, |header| header.revision), reply.granted_ttl > 0);
        let told = reply.keys.iter().map(|key| key.to_vec()).collect();
        let revisions = evidence.floor(op.invoked.tick)..=shown;
        let (some, all) = (BTreeSet::new(), None);
        there.then_some(Attached { call, lease, revisions, told, some, all })
    });
    asked.collect()
}

impl Replay<'_> {
    fn op(&self, at: usize) -> &Op {
        &self.evidence.history.ops[at]
    }

    /// Applies the revision by the call that made it.
    fn write(&mut self, revision: i64) -> Result<(), Failure> {
        let candidates = self.answered.get(&revision).cloned().unwrap_or_default();
        let writers: Vec<usize> = candidates.into_iter().filter(|at| changes(self.op(*at))).collect();
        match writers[..] {
            [] => self.explain(revision),
            [at] => {
                let answer = self.model.answer(&request_of(self.op(at)));
                if self.model.revision().wire() != revision {
                    let what =
                        format!("call {at} shows it as its own, the model changes nothing: {answer:?}");
                    return Err(self.fail(revision, what));
                }
                self.compare(at, &answer, revision)?;
                if !self.agrees(&self.model, revision) {
                    let what = format!("call {at} wrote {:?}", self.events(&self.model, revision));
                    return Err(self.fail(revision, what));
                }
                self.done.writers.insert(revision, at);
                Ok(())
            }
            _ => Err(self.fail(revision, format!("calls {writers:?} each have it for their own"))),
        }
    }

    fn fail(&self, revision: i64, what: String) -> Failure {
        let record = &self.evidence.record[&revision];
        Failure::new("replay", format!("revision {revision}: {what}; the observer saw {record:?}"))
    }

    /// A revision that no answer shows: a call of unknown outcome made it, or the end of a lease.
    fn explain(&mut self, revision: i64) -> Result<(), Failure> {
        let record = &self.evidence.record[&revision];
        let named: Vec<usize> = record
            .iter()
            .filter_map(|event| event.kv.as_ref().filter(|_| event.r#type == 0))
            .filter_map(|kv| tagged(&kv.value))
            .collect();
        let leases = self.ended_leases(revision);
        let revokes = self.answered.get(&revision).cloned().unwrap_or_default();
        let revokes = revokes.into_iter().filter(|at| self.op(*at).method == Method::LeaseRevoke);
        // The call whose mark the value bears first: the others cost a copy of the model each.
        let mut candidates: Vec<usize> = revokes.collect();
        candidates.extend(named.iter().filter(|at| self.unknown.contains(at)));
        // A revoke last: what another call can have done as well may not end a lease.
        let others = self.unknown.iter().filter(|at| !named.contains(at));
        let (revokes, others): (Vec<usize>, Vec<usize>) =
            others.copied().partition(|at| self.op(*at).method == Method::LeaseRevoke);
        candidates.extend(others.into_iter().chain(revokes));
        let shown = self.evidence.shown_at(revision);
        for at in candidates {
            if shown.is_some_and(|shown| shown < self.op(at).invoked) {
                continue;
            }
            let mut model = self.model.clone();
            let answer = model.answer(&request_of(self.op(at)));
            if answer.is_ok() && model.revision().wire() == revision && self.agrees(&model, revision) {
                self.model = model;
                // Deletes bear no mark: which of two made a revision may show only later.
                if !named.is_empty() {
                    self.unknown.remove(&at);
                }
                self.done.writers.insert(revision, at);
                if let Request::LeaseRevoke(lease) = request_of(self.op(at)) {
                    self.done.ended_leases.push((lease, revision));
                }
                return Ok(());
            }
        }
        for lease in leases {
            let mut model = self.model.clone();
            if model.lease_revoke(lease).is_ok() && self.agrees(&model, revision) {
                super::leases::may_end(self.evidence, lease, revision)?;
                self.model = model;
                self.done.ended_leases.push((lease, revision));
                return Ok(());
            }
        }
        Err(self.fail(revision, "nobody can have made it".into()))
    }

    /// Leases whose end would delete what the revision deletes.
    fn ended_leases(&self, revision: i64) -> Vec<LeaseId> {
        let mut leases: Vec<LeaseId> = vec![];
        for event in &self.evidence.record[&revision] {
            let key = event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
            let live = self.model.state_at(self.model.revision());
            leases.extend(live.iter().filter(|kv| kv.key[..] == key[..]).map(|kv| kv.lease));
        }
        leases.sort();
        leases.dedup();
        leases.retain(|lease| *lease != LeaseId::NONE);
        leases
    }

    fn events(&self, model: &Model, revision: i64) -> Vec<proto::Event> {
        let from = Revision(revision.unsigned_abs());
        let events = model.events(&KeyRange::everything(), from).unwrap_or_default();
        // etcd's law: what stood before the revision, whatever an earlier change of the same revision did,
        // and nothing with a put that creates.
        let mut before: BTreeMap<Blob, Option<proto::KeyValue>> = BTreeMap::new();
        let shown = events.into_iter().map(|(_, event)| {
            let prev_kv = event.prev_kv.as_ref().map(kv_of);
            let prev_kv = before.entry(event.event.key().clone()).or_insert(prev_kv).clone();
            match event.event {
                Event::Put(kv) => {
                    let prev_kv = prev_kv.filter(|_| kv.create_revision != kv.mod_revision);
                    proto::Event { r#type: 0, kv: Some(kv_of(&kv)), prev_kv }
                }
                Event::Delete { key, mod_revision } => {
                    proto::Event { r#type: 1, kv: Some(deleted(&key, mod_revision)), prev_kv }
                }
            }
        });
        shown.collect()
    }

    fn agrees(&self, model: &Model, revision: i64) -> bool {
        self.events(model, revision) == self.evidence.record[&revision]
    }

    /// Answers that show the revision and changed nothing.
    fn read_at(&mut self, revision: i64) -> Result<(), Failure> {
        for at in self.answered.get(&revision).cloned().unwrap_or_default() {
            let op = self.op(at);
            if self.done.writers.get(&revision) == Some(&at) {
                continue;
            }
            if op.method == Method::LeaseRevoke {
                let Request::LeaseRevoke(lease) = request_of(op) else { continue };
                if !self.model.attached(lease).is_empty() {
                    return Err(self.fail_read(at, revision, "the lease still has keys".into()));
                }
                continue;
            }
            let mut model = self.model.clone();
            let answer = model.answer(&request_of(op));
            if model.revision().wire() != revision {
                return Err(self.fail_read(at, revision, format!("the model changes something: {answer:?}")));
            }
            self.compare(at, &answer, revision)?;
        }
        errors::look(&mut self.errors, &self.model, revision);
        for asked in self.attached.iter_mut().filter(|asked| asked.revisions.contains(&revision)) {
            let now: BTreeSet<Vec<u8>> =
                self.model.attached(asked.lease).iter().map(|key| key.to_vec()).collect();
            asked.some.extend(now.iter().cloned());
            asked.all = Some(asked.all.take().map_or(now.clone(), |all| &all & &now));
        }
        Ok(())
    }

    /// A lease has the keys that clients were told it has. They are collected shard by shard, so each counts at
    /// a moment of its own (etcd's are not of one moment either).
    fn check_attached(&self) -> Result<(), Failure> {
        for Attached { call, lease, told, some, all, revisions } in &self.attached {
            let all = all.clone().unwrap_or_default();
            if !all.is_subset(told) || !told.is_subset(some) {
                let text = |keys: &BTreeSet<Vec<u8>>| {
                    keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
                };
                let what = format!(
                    "call {call}: lease {lease} has {:?} at all of {revisions:?}, {:?} at some, not {:?}",
                    text(&all),
                    text(some),
                    text(told)
                );
                return Err(Failure::new("leases", what));
            }
        }
        Ok(())
    }

    fn fail_read(&self, at: usize, revision: i64, what: String) -> Failure {
        let request = request_of(self.op(at));
        Failure::new("replay", format!("call {at} at revision {revision}, {request:?}: {what}"))
    }

    /// The answer, to the byte.
    fn compare(&self, at: usize, answer: &Answer, revision: i64) -> Result<(), Failure> {
        let op = self.op(at);
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) => return Err(self.fail_read(at, revision, format!("the model says: {error}"))),
        };
        if op.method == Method::RangeStream {
            return self.compare_chunks(at, reply, revision);
        }
        let shown = header(op);
        let with = wire::Header {
            cluster: ClusterId(shown.cluster_id),
            member: MemberId(shown.member_id),
            raft_term: Term(shown.raft_term),
        };
        let mut expected = vec![];
        encode::reply(&mut expected, &with, reply, usize::MAX).expect("all lengths are allowed");
        if expected != op.messages[0] {
            let what = format!("the model answers {reply:?}, the answer was {:?}", show(op));
            return Err(self.fail_read(at, revision, what));
        }
        Ok(())
    }

    fn compare_chunks(&self, at: usize, reply: &Reply, revision: i64) -> Result<(), Failure> {
        let Reply::Range(reply) = reply else { unreachable!("the request is a range") };
        let mut expected = vec![];
        encode::reply(&mut expected, &wire::Header::default(), &Reply::Range(reply.clone()), usize::MAX)
            .expect("all lengths are allowed");
        let expected = proto::RangeResponse::decode(&expected[..]).expect("it is protobuf");
        let chunks: Vec<proto::RangeResponse> = self.op(at).messages.iter().map(chunk).collect();
        let kvs: Vec<proto::KeyValue> = chunks.iter().flat_map(|chunk| chunk.kvs.clone()).collect();
        let last = chunks.last().map(|chunk| (chunk.count, chunk.more));
        if kvs != expected.kvs || last != Some((expected.count, expected.more)) {
            let what = format!("the model answers {expected:?}, the chunks were {chunks:?}");
            return Err(self.fail_read(at, revision, what));
        }
        Ok(())
    }
}

fn chunk(message: &bytes::Bytes) -> proto::RangeResponse {
    let chunk = proto::RangeStreamResponse::decode(message.clone()).expect("it is protobuf");
    chunk.range_response.unwrap_or_default()
}

/// Whether the answer itself says that something has changed.
fn changes(op: &Op) -> bool {
    let message = op.messages[0].clone();
    match op.method {
        Method::Put => true,
        Method::DeleteRange => {
            proto::DeleteRangeResponse::decode(message).is_ok_and(|reply| reply.deleted > 0)
        }
        Method::Txn => proto::TxnResponse::decode(message).is_ok_and(|reply| txn_changes(&reply)),
        _ => false,
    }
}

fn txn_changes(reply: &proto::TxnResponse) -> bool {
    use proto::response_op::Response;
    reply.responses.iter().any(|op| match &op.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(delete)) => delete.deleted > 0,
        Some(Response::ResponseTxn(txn)) => txn_changes(txn),
        _ => false,
    })
}

fn show(op: &Op) -> String {
    let message = op.messages[0].clone();
    match op.method {
        Method::Put => format!("{:?}", proto::PutResponse::decode(message)),
        Method::DeleteRange => format!("{:?}", proto::DeleteRangeResponse::decode(message)),
        Method::Txn => format!("{:?}", proto::TxnResponse::decode(message)),
        _ => format!("{:?}", proto::RangeResponse::decode(message)),
    }
}

fn kv_of(kv: &crate::types::KeyValue) -> proto::KeyValue {
    proto::KeyValue {
        key: kv.key.to_vec().into(),
        value: kv.value.to_vec().into(),
        create_revision: kv.create_revision.wire(),
        mod_revision: kv.mod_revision.wire(),
        version: kv.version as i64,
        lease: kv.lease.0,
    }
}

fn deleted(key: &Blob, mod_revision: Revision) -> proto::KeyValue {
    proto::KeyValue { key: key.to_vec().into(), mod_revision: mod_revision.wire(), ..Default::default() }
}
