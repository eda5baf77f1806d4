//! A shard's side of a transaction over several shards, or of one too long for a step.
//!
//! A reserved shard evaluates nothing else. What it does for the transaction goes in slices: the first at once,
//! as whatever comes is served, the others one per turn and shard, and only so many in a turn.

use super::super::requests::find_lease;
use super::local::Waiting;
use super::{LocalShard, Shards, Turn};
use crate::api::TxnRequest;
use crate::io::{CallId, CallMail, PartOf};
use crate::record::Effect;
use crate::txn::{self, Applied, Applying, Branches, Comparing, Gathered, SubRange};
use crate::types::{Blob, LeaseId, Revision, ShardId};
use std::sync::Arc;

/// Who has a shard, and how far it has come for them.
#[derive(Debug)]
pub struct Reservation {
    pub call: CallId,
    txn: Arc<TxnRequest>,
    /// All that is attached to this lease is deleted.
    revokes: Option<LeaseId>,
    branches: Option<Arc<Branches>>,
    /// What is under way. Where nothing is, the coordinator has the word.
    step: Option<ReservationStep>,
}

#[derive(Debug)]
enum ReservationStep {
    Comparing(Comparing),
    Applying(Option<PartOf>, Box<Applying>),
}

impl Shards {
    /// Reserves a shard, in its turn among what waits there.
    pub fn on_reserve(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        shard: ShardId,
        txn: Arc<TxnRequest>,
        revokes: Option<LeaseId>,
    ) {
        let local = self.of.get_mut(&shard).expect("the router knows whose shard it is");
        local.waiting.push_back(Waiting::Reserve { call, txn, revokes });
        self.run_waiting(turn, shard);
    }

    pub fn reserve(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        id: ShardId,
        txn: Arc<TxnRequest>,
        revokes: Option<LeaseId>,
    ) {
        let local = self.of.get_mut(&id).expect("the shard is this reactor's");
        assert!(local.reserved.is_none(), "a shard is reserved once at a time");
        assert!(turn.epoch_state.may_write(), "shards are reserved while the epoch serves");
        let step = Some(ReservationStep::Comparing(Comparing::default()));
        local.reserved = Some(Reservation { call, txn, revokes, branches: None, step });
        self.go_on_with(turn, id);
    }

    fn reservation_of(&mut self, call: CallId, id: ShardId) -> &mut Reservation {
        let local = self.of.get_mut(&id).expect("the shard is this reactor's");
        let reservation = local.reserved.as_mut().expect("the shard is reserved");
        assert!(reservation.call == call, "the shard is reserved for another");
        reservation
    }

    pub fn on_gather(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        id: ShardId,
        branches: Arc<Branches>,
        current: Revision,
    ) {
        let ranges = turn.router().ranges_of(id);
        let reservation = self.reservation_of(call, id);
        assert!(reservation.step.is_none(), "a shard gathers when it has compared");
        assert!(reservation.branches.is_none(), "a shard gathers once for who has it");
        reservation.branches = Some(branches.clone());
        let (txn, revokes) = (reservation.txn.clone(), reservation.revokes);
        let control = &turn.control;
        let local = self.of.get_mut(&id).expect("the shard is this reactor's");
        let gathered = match revokes {
            Some(lease) => {
                Gathered::deletes(&ranges, local.attached.keys(lease), local.attached.count(lease))
            }
            None => {
                let leases = |lease| control.is_granted(lease);
                txn::gather(&local.shard.store, &ranges, &txn, &branches, current, &leases)
            }
        };
        // A compaction may come before the part that reads.
        if txn::oldest_read(&txn, &branches).is_some() {
            local.hold_history(call);
        }
        let ending = find_lease(&txn, &|lease| control.is_revoking(lease));
        turn.send(call.reactor, CallMail::Gathered { call, shard: id, gathered, ending });
    }

    pub fn on_part(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        id: ShardId,
        write: Option<PartOf>,
        sub_ranges: Vec<SubRange>,
    ) {
        let list_max = turn.settings.bounds.delete_list_max;
        let applying = Box::new(Applying::new(write.map(|part| part.revision), sub_ranges, list_max));
        let reservation = self.reservation_of(call, id);
        assert!(reservation.branches.is_some(), "a part comes after gathering");
        assert!(reservation.step.is_none(), "a shard has one part of a revision");
        reservation.step = Some(ReservationStep::Applying(write, applying));
        self.go_on_with(turn, id);
    }

    pub fn on_release(&mut self, turn: &mut Turn, call: CallId, id: ShardId) {
        let local = self.of.get_mut(&id).expect("the shard is this reactor's");
        local.waiting.retain(|waiting| !matches!(waiting, Waiting::Reserve { call: by, .. } if *by == call));
        if local.reserved.as_ref().is_some_and(|reservation| reservation.call == call) {
            let step = local.reserved.take().and_then(|reservation| reservation.step);
            let writes = matches!(step, Some(ReservationStep::Applying(..)));
            assert!(!writes, "a part that is under way is applied to its end");
            local.let_history_go(call);
        }
        self.answer_revokes(turn);
        self.run_waiting(turn, id);
    }

    /// Whether a transaction that names the lease has a shard of this reactor.
    pub(super) fn is_reserved_with(&self, lease: LeaseId) -> bool {
        let mut reserved = self.of.values().filter_map(|local| local.reserved.as_ref());
        reserved.any(|reservation| find_lease(&reservation.txn, &|named| named == lease).is_some())
    }

    /// Goes on with what is under way, the shards taking turns.
    pub(super) fn take_steps(&mut self, turn: &mut Turn) {
        if !self.has_steps() {
            return;
        }
        let steps = self.of.iter().filter(|(_, local)| self.can_step(local));
        let ids: Vec<ShardId> = steps.map(|(id, _)| *id).collect();
        let next = ids.partition_point(|id| *id <= self.stepped);
        for id in ids[next..].iter().chain(&ids[..next]).take(turn.settings.bounds.slices_per_turn) {
            self.stepped = *id;
            self.go_on_with(turn, *id);
        }
    }

    pub(super) fn has_steps(&self) -> bool {
        self.of.values().any(|local| self.can_step(local))
    }

    /// A revoke writes as it goes, and so waits for the log.
    fn can_step(&self, local: &LocalShard) -> bool {
        local.reserved.as_ref().is_some_and(|reservation| {
            reservation.step.is_some() && !(reservation.revokes.is_some() && self.log_is_behind)
        })
    }

    fn go_on_with(&mut self, turn: &mut Turn, id: ShardId) {
        let local = self.of.get_mut(&id).expect("the shard is this reactor's");
        match local.reserved.as_mut().and_then(|reservation| reservation.step.take()) {
            Some(ReservationStep::Comparing(comparing)) => self.compare_slice(turn, id, comparing),
            Some(ReservationStep::Applying(write, applying)) => self.apply_slice(turn, id, write, applying),
            None => {}
        }
    }

    fn compare_slice(&mut self, turn: &mut Turn, id: ShardId, mut comparing: Comparing) {
        let budget = turn.settings.slice;
        let local = self.of.get_mut(&id).expect("the caller found it");
        let reservation = local.reserved.as_mut().expect("its step is under way");
        match comparing.step(&local.shard.store, &reservation.txn, budget) {
            None => {
                reservation.step = Some(ReservationStep::Comparing(comparing));
                turn.counters.paths.txn_compared_in_slices += 1;
            }
            Some(outcomes) => {
                let call = reservation.call;
                turn.send(call.reactor, CallMail::Reserved { call, shard: id, outcomes });
            }
        }
    }

    fn apply_slice(
        &mut self,
        turn: &mut Turn,
        id: ShardId,
        write: Option<PartOf>,
        mut applying: Box<Applying>,
    ) {
        let budget = turn.settings.slice;
        let ranges = turn.router().ranges_of(id);
        let local = self.of.get_mut(&id).expect("the caller found it");
        let reservation = local.reserved.as_ref().expect("its step is under way");
        let store = &mut local.shard.store;
        let revokes = reservation.revokes;
        let applied = match revokes {
            Some(lease) => {
                let doomed = local.attached.keys(lease).take(budget.of_changes().keys);
                let doomed: Vec<Blob> = doomed.cloned().collect();
                let (changes, more) = applying.delete(store, &doomed);
                local.push_part(write, changes, more);
                (!more).then(Applied::default)
            }
            None => {
                let branches = reservation.branches.as_ref().expect("a part comes after gathering");
                applying.step(store, &ranges, &reservation.txn, branches, budget)
            }
        };
        local.follow_leases(&mut applying.take_leases());
        let bare = |lease| local.attached.count(lease) == 0;
        assert!(applied.is_none() || revokes.is_none_or(bare), "a lease that ends has no keys left");
        let Some(mut applied) = applied else {
            let reservation = local.reserved.as_mut().expect("looked at above");
            reservation.step = Some(ReservationStep::Applying(write, applying));
            turn.counters.paths.txn_applied_in_slices += 1;
            return;
        };
        let changes = std::mem::take(&mut applied.changes);
        local.push_part(write, changes, false);
        let call = local.reserved.take().expect("looked at above").call;
        local.let_history_go(call);
        turn.send(call.reactor, CallMail::Applied { call, shard: id, applied });
        self.answer_revokes(turn);
        self.run_waiting(turn, id);
    }
}

impl LocalShard {
    /// What a slice has changed goes into the turn's entry. With `more`, the part goes on.
    fn push_part(&mut self, write: Option<PartOf>, changes: Vec<crate::record::EffectChange>, more: bool) {
        assert!(write.is_some() || changes.is_empty(), "what a part changes has its revision");
        if let (Some(PartOf { revision, parts }), false) = (write, changes.is_empty()) {
            self.shard.push_effect(Effect { revision, parts, more, changes });
        }
    }
}
