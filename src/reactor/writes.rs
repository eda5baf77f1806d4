//! Evaluation of what one shard of this reactor can answer whole.

use super::owned::{Owned, Waiting};
use super::pace::About;
use super::{Reactor, Stage};
use crate::api::{Answer, Error, Op, OpReply, PutRequest, Reply, Request, TxnReply, TxnRequest};
use crate::io::{ApplyKind, Body, CallId, Counters};
use crate::record::{Effect, EffectChange};
use crate::sequencer::ShardSet;
use crate::txn::{self, Ended, Evaluated, Refusal};
use crate::types::{LeaseId, ReactorId, Revision, ShardId, Time};

/// Whether something was evaluated, or has to be tried again later.
enum Tried {
    Done,
    Again(Waiting),
}

/// A write on its way to its shard's state, and when its client stops waiting for it.
#[derive(Debug)]
pub(super) struct Evaluation {
    call: CallId,
    shard: ShardId,
    request: Request,
    until: Time,
}

impl Reactor {
    pub(super) fn on_evaluate(&mut self, call: CallId, shard: ShardId, request: Request) {
        let until = self.now + self.settings.request_timeout();
        self.try_evaluation(Evaluation { call, shard, request, until });
    }

    /// At once, or in its turn among what waits at the shard.
    fn try_evaluation(&mut self, evaluation: Evaluation) {
        if let Some(lease) = self.ending_lease(&evaluation.request) {
            return self.wait_for_lease(lease, evaluation);
        }
        let id = evaluation.shard;
        let owned = self.shards.get_mut(&id).expect("the router knows whose shard it is");
        if owned.waiting.len() >= self.settings.bounds.waiting_max {
            self.counters.paths.refused_waiting += 1;
            return self.answer(evaluation.call, Err(Error::TooManyRequests));
        }
        if owned.waiting.is_empty() {
            if let Tried::Again(waiting) = self.try_waiting(id, Waiting::Evaluate(evaluation)) {
                self.shards.get_mut(&id).expect("found above").waiting.push_back(waiting);
            }
        } else {
            owned.waiting.push_back(Waiting::Evaluate(evaluation));
        }
    }

    /// What nobody waits for any longer is not evaluated: its client was told that its outcome is unknown.
    pub(super) fn drop_late_evaluations(&mut self) {
        let now = self.now;
        for owned in self.shards.values_mut().filter(|owned| !owned.waiting.is_empty()) {
            owned.waiting.retain(|waiting| !matches!(waiting, Waiting::Evaluate(late) if late.until <= now));
        }
        self.lease_waiting.retain(|late| late.until > now);
    }

    pub(super) fn has_waiting_evaluations(&self) -> bool {
        !self.lease_waiting.is_empty() || self.shards.values().any(|owned| !owned.waiting.is_empty())
    }

    /// Goes on with what waits at a shard, in order, as far as it gets.
    pub(super) fn run_waiting(&mut self, id: ShardId) {
        while let Some(waiting) = self.shards.get_mut(&id).and_then(|owned| owned.waiting.pop_front()) {
            if let Tried::Again(waiting) = self.try_waiting(id, waiting) {
                self.shards.get_mut(&id).expect("found above").waiting.push_front(waiting);
                return;
            }
        }
    }

    fn try_waiting(&mut self, id: ShardId, waiting: Waiting) -> Tried {
        let owned = &self.shards[&id];
        let (reserved, full) = (owned.reserved.is_some(), self.has_full_turn(owned));
        let behind = self.log_is_behind();
        let paths = &mut self.counters.paths;
        if self.stage != Stage::Serving || reserved {
            paths.waited_for_reservation += u64::from(reserved);
            return Tried::Again(waiting);
        }
        if behind || full {
            paths.waited_for_log += u64::from(behind);
            paths.waited_for_turn += u64::from(full);
            return Tried::Again(waiting);
        }
        match waiting {
            Waiting::Reserve { call, txn, revokes } => {
                self.reserve(call, id, txn, revokes);
                Tried::Done
            }
            Waiting::Evaluate(evaluation) => {
                if let Some(lease) = self.ending_lease(&evaluation.request) {
                    self.wait_for_lease(lease, evaluation);
                    return Tried::Done;
                }
                if self.is_long(id, &evaluation.request) {
                    let Evaluation { call, request, .. } = evaluation;
                    self.send(call.reactor, Body::Long { call, request });
                    return Tried::Done;
                }
                if self.sequencer.reserve(&mut self.room, ROOM).is_ok_and(|room| !room) {
                    self.counters.paths.waited_for_ring += 1;
                    return Tried::Again(Waiting::Evaluate(evaluation));
                }
                self.evaluate(evaluation.call, id, evaluation.request);
                Tried::Done
            }
        }
    }

    /// Whether the turn has as many effects of the shard as it takes.
    fn has_full_turn(&self, owned: &Owned) -> bool {
        owned.shard.effects_bytes() > self.settings.bounds.turn_effect_bytes_max
    }

    fn is_long(&self, id: ShardId, request: &Request) -> bool {
        let store = &self.shards[&id].shard.store;
        match request {
            Request::DeleteRange(delete) => txn::is_long_delete(store, delete, self.settings.slice.keys),
            Request::Txn(txn) => txn::is_long(store, txn, self.settings.slice.keys),
            _ => false,
        }
    }

    /// The write is evaluated at once, against the newest state, settled or not.
    fn evaluate(&mut self, call: CallId, id: ShardId, request: Request) {
        if let Err(error) = self.check_alarms(&request) {
            return self.refuse_write(call, error);
        }
        // Read before evaluation: what the reply shows where it takes no revision itself.
        let current = self.sequencer.counter();
        let (kind, about) = (kind_of(&request), About::of(&request));
        let evaluated = self.evaluate_request(id, request, current);
        let (answer, effect, leases): (Answer, _, _) = match evaluated {
            Ok(Evaluated { reply, effect, leases }) => (Ok(reply), effect, leases),
            Err(Refusal::Client(error)) => (Err(error), None, vec![]),
            // The epoch is over; the Stop on its way fails the call.
            Err(Refusal::Ended) => return self.lose_epoch(),
        };
        self.applied(kind, matches!(answer, Ok(_) | Err(Error::Compacted)), self.now, about);
        let needs = effect.as_ref().map_or(current, |effect: &Effect| effect.revision);
        let owned = self.shards.get_mut(&id).expect("the caller found it");
        let mut leases = leases;
        owned.follow_leases(&mut leases);
        if let Some(effect) = effect {
            let by_range = |change: &EffectChange| matches!(change, EffectChange::DeleteRange { .. });
            self.counters.paths.delete_named_by_range += u64::from(effect.changes.iter().any(by_range));
            owned.shard.push_effect(effect);
        }
        self.hold(needs, call, answer);
    }

    fn evaluate_request(
        &mut self,
        id: ShardId,
        request: Request,
        current: Revision,
    ) -> Result<Evaluated<Reply>, Refusal> {
        let Reactor { shards, control, sequencer, room, counters, settings, .. } = self;
        let list_max = settings.bounds.delete_list_max;
        let store = &mut shards.get_mut(&id).expect("the caller found it").shard.store;
        let leases = |lease| control.is_granted(lease);
        let mut take = || sequencer.take(room, 1, ShardSet::of([id])).map_err(|_| Ended);
        match request {
            Request::Put(put) => {
                let done = txn::evaluate_put(store, &put, &leases, &mut take)?;
                count_put(counters, &put);
                Ok(done.map(Reply::Put))
            }
            Request::DeleteRange(delete) => {
                let done = txn::evaluate_delete_range(store, &delete, current, list_max, &mut take)?;
                counters.deletes += 1;
                Ok(done.map(Reply::DeleteRange))
            }
            Request::Txn(request) => {
                let done = txn::evaluate_txn(store, &request, current, list_max, &leases, &mut take)?;
                count_txn(counters, &request, &done.reply);
                Ok(done.map(Reply::Txn))
            }
            _ => unreachable!("only writes and transactions are evaluated at a shard"),
        }
    }

    /// Takes a revision for a transaction over several shards; none while the ring is full or after the
    /// epoch's end.
    pub(super) fn take(&mut self, parts: u16, shards: &[ShardId]) -> Option<Revision> {
        if !self.sequencer.reserve(&mut self.room, ROOM).unwrap_or(false) {
            return None;
        }
        let shards = ShardSet::of(shards.iter().copied());
        self.sequencer.take(&mut self.room, parts, shards).ok()
    }

    /// etcd's alarms: nothing is written to a corrupt cluster; over the quota, or while its alarm stands,
    /// nothing that adds is taken.
    pub(super) fn check_alarms(&mut self, request: &Request) -> Result<(), Error> {
        if self.control.corrupt() && is_write(request) {
            return Err(Error::Corrupt);
        }
        let cost = match request {
            Request::Put(put) => txn::cost_put(put),
            Request::Txn(request) if has_put(request) => txn::cost_txn(request),
            _ => return Ok(()),
        };
        if self.control.no_space() {
            return Err(Error::NoSpace);
        }
        if self.is_over_quota(cost) { Err(Error::NoSpace) } else { Ok(()) }
    }

    /// Refuses a write. Where it is an alarm that refuses it, the answer waits until that stands at every reactor:
    /// whoever was refused finds the alarm, and nobody is let in afterwards (etcd's law).
    pub(super) fn refuse_write(&mut self, call: CallId, error: Error) {
        if error == Error::NoSpace {
            self.counters.paths.no_space_refused += 1;
            return match self.control.no_space() {
                true => self.send(ReactorId(0), Body::KeptOut { call }),
                false => self.raise_no_space(Some(call)),
            };
        }
        let current = self.sequencer.counter();
        self.hold(current, call, Err(error));
    }

    /// A lease that is about to end and that it would attach keys to: then it waits for that.
    fn ending_lease(&self, request: &Request) -> Option<LeaseId> {
        let ending = |lease: LeaseId| self.control.is_revoking(lease);
        match request {
            Request::Put(put) => ending(put.lease).then_some(put.lease),
            Request::Txn(request) => find_lease(request, &ending),
            _ => None,
        }
    }

    fn wait_for_lease(&mut self, lease: LeaseId, evaluation: Evaluation) {
        if self.lease_waiting.len() >= self.settings.bounds.waiting_max {
            self.counters.paths.refused_waiting += 1;
            return self.answer(evaluation.call, Err(Error::TooManyRequests));
        }
        self.counters.paths.waited_for_lease += 1;
        self.lease_waiting.push(lease, evaluation);
    }

    /// What waited for the lease's end is evaluated after it.
    pub(super) fn run_lease_waiting(&mut self, lease: LeaseId) {
        for evaluation in self.lease_waiting.take(lease) {
            self.try_evaluation(evaluation);
        }
    }
}

/// Room is secured write by write: what one reactor kept in store the others could not use.
const ROOM: u32 = 1;

/// Whether etcd would send it through its log: all but transactions of plain ranges.
pub(super) fn is_write(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::DeleteRange(_) | Request::Compact(_) => true,
        Request::LeaseGrant(_) | Request::LeaseRevoke(_) => true,
        Request::Txn(txn) => !txn.is_read_only(),
        _ => false,
    }
}

/// What is evaluated at a shard.
fn kind_of(request: &Request) -> ApplyKind {
    match request {
        Request::Put(_) => ApplyKind::Put,
        Request::DeleteRange(_) => ApplyKind::DeleteRange,
        _ => ApplyKind::Txn,
    }
}

fn count_put(counters: &mut Counters, put: &PutRequest) {
    counters.puts += 1;
    counters.put_bytes += (put.key.len() + put.value.len()) as u64;
}

/// Counts what a transaction did, as etcd does: each operation, and the whole where there are several.
pub(super) fn count_txn(counters: &mut Counters, request: &TxnRequest, reply: &TxnReply) {
    counters.txns += u64::from(count_ops(counters, request, reply) > 1);
}

/// Operations that are no transactions themselves.
fn count_ops(counters: &mut Counters, request: &TxnRequest, reply: &TxnReply) -> usize {
    let ops = if reply.succeeded { &request.success } else { &request.failure };
    let mut count = 0;
    for (op, reply) in ops.iter().zip(&reply.responses) {
        match (op, reply) {
            (Op::Put(put), _) => count_put(counters, put),
            (Op::Range(_), _) => counters.ranges += 1,
            (Op::DeleteRange(_), _) => counters.deletes += 1,
            (Op::Txn(nested), OpReply::Txn(reply)) => {
                count += count_ops(counters, nested, reply);
                continue;
            }
            (Op::Txn(_) | Op::Empty, _) => unreachable!("each operation is answered by its own kind"),
        }
        count += 1;
    }
    count
}

fn has_put(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(nested) => has_put(nested),
        _ => false,
    })
}

/// A lease that some put of the transaction names and for which it holds.
pub(super) fn find_lease(request: &TxnRequest, holds: &dyn Fn(LeaseId) -> bool) -> Option<LeaseId> {
    request.success.iter().chain(&request.failure).find_map(|op| match op {
        Op::Put(put) => holds(put.lease).then_some(put.lease),
        Op::Txn(nested) => find_lease(nested, holds),
        _ => None,
    })
}
