//! Evaluation of what one shard of this reactor can answer whole.
//!
//! **The question.** Writes are evaluated ahead of what is durable. What must be certain before, so that
//! nothing evaluated is ever refused?
//!
//! **The rule.** First what may run out is secured: a revision that the ring has space for, a log that is not
//! far behind, a turn with place for the effect, no reservation, no lease that is about to end. What lacks
//! one of them waits at its shard, in order and unevaluated; once its client may have been told that it has timed
//! out, it is refused. Then the write is evaluated against the newest
//! state, and takes a revision only where it changes something. From there on there is no way back but the
//! end of the epoch. An answer without a revision of its own shows, and waits for, the counter as it was read
//! before the evaluation.
//!
//! What comes in a turn is evaluated together, at its end: then what several writes will look at can be fetched from
//! memory at once, before the first of them waits for it.
//!
//! **Why not otherwise.** A check after the evaluation would have to undo one write among others that have
//! already seen it.

use super::super::gate::Needs;
use super::super::pace::About;
use super::super::requests::{count_put, count_txn, find_lease, kind_of};
use super::local::Waiting;
use super::{Shards, Turn};
use crate::api::{Answer, Error, Reply, Request};
use crate::io::{CallId, CallMail};
use crate::record::{Effect, EffectChange};
use crate::sequencer::ShardSet;
use crate::txn::{self, EpochEnded, Evaluated, Refusal};
use crate::types::{LeaseId, Revision, ShardId, Time};

/// Whether something was evaluated, or has to be tried again later.
enum Tried {
    Done,
    Again(Waiting),
}

/// A write on its way to its shard's state, and when its client stops waiting for it.
#[derive(Debug)]
pub struct Evaluation {
    pub call: CallId,
    pub shard: ShardId,
    pub request: Request,
    pub until: Time,
}

impl Waiting {
    /// A key that its evaluation will look at.
    fn key(&self) -> Option<&[u8]> {
        let Waiting::Evaluate(Evaluation { request, .. }) = self else { return None };
        match request {
            Request::Put(put) => Some(&put.key),
            Request::DeleteRange(delete) => Some(&delete.key),
            Request::Txn(txn) => txn.first_key().map(|key| &key[..]),
            _ => None,
        }
    }
}

impl Shards {
    /// It is evaluated with all others of its turn, behind what waits at the shard.
    pub(super) fn take_evaluation(&mut self, turn: &mut Turn, evaluation: Evaluation) {
        if let Some(lease) = ending_lease(turn, &evaluation.request) {
            return self.wait_for_lease(turn, lease, evaluation);
        }
        let id = evaluation.shard;
        let local = self.of.get_mut(&id).expect("the router knows whose shard it is");
        local.waiting.push_back(Waiting::Evaluate(evaluation));
        if !self.fresh.contains(&id) {
            self.fresh.push(id);
        }
    }

    /// Evaluates what has come, and says whether anything has. What has to wait is refused beyond a bound.
    pub fn evaluate_fresh(&mut self, turn: &mut Turn) -> bool {
        let any = !self.fresh.is_empty();
        while let Some(id) = self.fresh.pop() {
            self.run_waiting(turn, id);
            self.refuse_beyond_bound(turn, id);
        }
        any
    }

    fn refuse_beyond_bound(&mut self, turn: &mut Turn, id: ShardId) {
        let waiting = &mut self.of.get_mut(&id).expect("what has come is at a shard of this reactor").waiting;
        let waiting_max = turn.settings.bounds.waiting_max;
        if waiting.len() <= waiting_max {
            return;
        }
        for late in waiting.split_off(waiting_max) {
            match late {
                Waiting::Evaluate(evaluation) => {
                    turn.counters.paths.refused_waiting += 1;
                    turn.answer(evaluation.call, Err(Error::TooManyRequests));
                }
                reserve => waiting.push_back(reserve),
            }
        }
    }

    /// What nobody waits for any longer is not evaluated: its client was told that its outcome is unknown.
    pub fn drop_late(&mut self, turn: &Turn) {
        let now = turn.now;
        for local in self.of.values_mut().filter(|local| !local.waiting.is_empty()) {
            local.waiting.retain(|waiting| !matches!(waiting, Waiting::Evaluate(late) if late.until <= now));
        }
        self.lease_waiting.retain(|late| late.until > now);
    }

    pub fn has_waiting_evaluations(&self) -> bool {
        !self.lease_waiting.is_empty() || self.of.values().any(|local| !local.waiting.is_empty())
    }

    /// Goes on with what waits at a shard, in order, as far as it gets.
    pub(super) fn run_waiting(&mut self, turn: &mut Turn, id: ShardId) {
        // The first may be the only one, or get no further.
        let mut touched = 1;
        loop {
            let local = self.of.get_mut(&id).expect("the shard is this reactor's");
            if touched == 0 {
                touched = local.shard.store.touch(local.waiting.iter().map_while(Waiting::key));
            }
            let Some(waiting) = local.waiting.pop_front() else { return };
            if let Tried::Again(waiting) = self.try_waiting(turn, id, waiting) {
                self.of.get_mut(&id).expect("found above").waiting.push_front(waiting);
                return;
            }
            touched = touched.saturating_sub(1);
        }
    }

    fn try_waiting(&mut self, turn: &mut Turn, id: ShardId, waiting: Waiting) -> Tried {
        let local = &self.of[&id];
        let (reserved, full) = (
            local.reserved.is_some(),
            local.shard.effects_bytes() > turn.settings.bounds.turn_effect_bytes_max,
        );
        let behind = self.log_is_behind;
        let paths = &mut turn.counters.paths;
        if !turn.epoch_state.may_write() || reserved {
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
                self.reserve(turn, call, id, txn, revokes);
                Tried::Done
            }
            // Its client may know by now that it has timed out, and must not find it done.
            Waiting::Evaluate(late) if late.until <= turn.now => {
                turn.answer(late.call, Err(Error::Timeout));
                Tried::Done
            }
            Waiting::Evaluate(evaluation) => {
                if let Some(lease) = ending_lease(turn, &evaluation.request) {
                    self.wait_for_lease(turn, lease, evaluation);
                    return Tried::Done;
                }
                if self.is_long(turn, id, &evaluation.request) {
                    let Evaluation { call, request, .. } = evaluation;
                    turn.send(call.reactor, CallMail::Long { call, request });
                    return Tried::Done;
                }
                if turn.has_room() == Some(false) {
                    turn.counters.paths.waited_for_ring += 1;
                    return Tried::Again(Waiting::Evaluate(evaluation));
                }
                assert!(evaluation.until > turn.now, "what is evaluated somebody waits for");
                self.evaluate(turn, evaluation.call, id, evaluation.request);
                Tried::Done
            }
        }
    }

    fn is_long(&self, turn: &Turn, id: ShardId, request: &Request) -> bool {
        let store = &self.of[&id].shard.store;
        match request {
            Request::DeleteRange(delete) => txn::is_long_delete(store, delete, turn.settings.slice.keys),
            Request::Txn(txn) => txn::is_long(store, txn, turn.settings.slice.keys),
            _ => false,
        }
    }

    /// The write is evaluated against the newest state, settled or not.
    fn evaluate(&mut self, turn: &mut Turn, call: CallId, id: ShardId, request: Request) {
        assert!(turn.epoch_state.may_write(), "a write is evaluated while its epoch serves");
        assert!(id != ShardId::CONTROL, "the control shard has no keys");
        if turn.settings.quota_bytes.is_some() {
            let sizes = self.sizes(turn);
            turn.sizes.set(turn.id, sizes);
        }
        if let Err(error) = turn.check_alarms(&request) {
            return turn.refuse_write(call, error);
        }
        // Read before evaluation: what the reply shows where it takes no revision itself.
        let current = turn.sequencer.counter();
        let kind = kind_of(&request);
        let evaluated = self.evaluate_request(turn, id, &request, current);
        let (answer, effect, leases): (Answer, _, _) = match evaluated {
            Ok(Evaluated { reply, effect, leases }) => (Ok(reply), effect, leases),
            Err(Refusal::Client(error)) => (Err(error), None, vec![]),
            // The epoch is over; the Stop on its way fails the call.
            Err(Refusal::Ended) => return turn.lose_epoch(),
        };
        let began = turn.began.expect("writes are evaluated in turns");
        turn.applied(kind, matches!(answer, Ok(_) | Err(Error::Compacted)), began, About::of(request));
        let revision = effect.as_ref().map(|effect: &Effect| effect.revision);
        assert!(revision.is_none_or(|revision| revision > current), "a write comes after what it has seen");
        let needs = revision.map_or_else(|| turn.unbacked(current), Needs::entry);
        let local = self.of.get_mut(&id).expect("the caller found it");
        assert!(local.reserved.is_none(), "a reserved shard evaluates nothing else");
        let mut leases = leases;
        local.follow_leases(&mut leases);
        if let Some(effect) = effect {
            let by_range = |change: &EffectChange| matches!(change, EffectChange::DeleteRange { .. });
            turn.counters.paths.delete_named_by_range += u64::from(effect.changes.iter().any(by_range));
            local.shard.push_effect(effect);
        }
        turn.hold(needs, call, answer);
    }

    fn evaluate_request(
        &mut self,
        turn: &mut Turn,
        id: ShardId,
        request: &Request,
        current: Revision,
    ) -> Result<Evaluated<Reply>, Refusal> {
        let Turn { control, sequencer, allotment, counters, settings, .. } = turn;
        let list_max = settings.bounds.delete_list_max;
        let store = &mut self.of.get_mut(&id).expect("the caller found it").shard.store;
        let leases = |lease| control.is_granted(lease);
        let mut take = || sequencer.take(allotment, 1, ShardSet::of([id])).map_err(|_| EpochEnded);
        match request {
            Request::Put(put) => {
                let done = txn::evaluate_put(store, put, &leases, &mut take)?;
                count_put(counters, put);
                Ok(done.map(Reply::Put))
            }
            Request::DeleteRange(delete) => {
                let done = txn::evaluate_delete_range(store, delete, current, list_max, &mut take)?;
                counters.deletes += 1;
                Ok(done.map(Reply::DeleteRange))
            }
            Request::Txn(request) => {
                let done = txn::evaluate_txn(store, request, current, list_max, &leases, &mut take)?;
                count_txn(counters, request, &done.reply);
                Ok(done.map(Reply::Txn))
            }
            _ => unreachable!("only writes and transactions are evaluated at a shard"),
        }
    }

    fn wait_for_lease(&mut self, turn: &mut Turn, lease: LeaseId, evaluation: Evaluation) {
        if self.lease_waiting.len() >= turn.settings.bounds.waiting_max {
            turn.counters.paths.refused_waiting += 1;
            return turn.answer(evaluation.call, Err(Error::TooManyRequests));
        }
        turn.counters.paths.waited_for_lease += 1;
        self.lease_waiting.push(lease, evaluation);
    }

    /// What waited for the lease's end is evaluated after it.
    pub fn run_lease_waiting(&mut self, turn: &mut Turn, lease: LeaseId) {
        for evaluation in self.lease_waiting.take(lease) {
            self.take_evaluation(turn, evaluation);
        }
    }
}

/// A lease that is about to end and that it would attach keys to: then it waits for that.
fn ending_lease(turn: &Turn, request: &Request) -> Option<LeaseId> {
    let ending = |lease: LeaseId| turn.control.is_revoking(lease);
    match request {
        Request::Put(put) => ending(put.lease).then_some(put.lease),
        Request::Txn(request) => find_lease(request, &ending),
        _ => None,
    }
}
