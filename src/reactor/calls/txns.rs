//! A transaction over several shards, or one too long for a step: its coordinator at the client's reactor. The
//! shards' side is in `reservations`.
//!
//! The shards are reserved in ascending order; a reserved shard evaluates nothing else until it is released
//! (so revisions rise within each log, and no two transactions wait for each other). Then every shard gathers,
//! the coordinator takes one revision if anything changes, and every shard executes its part and is free.
//! Settling is the commit.

use super::super::gate::Needs;
use super::super::pace::About;
use super::super::requests::{count_txn, find_lease};
use super::{CallState, Calls, ReplyTo, Turn, shards_of_txn};
use crate::api::{DeleteRangeReply, DeleteRangeRequest, Error, Op, OpReply, Reply, Request, TxnRequest};
use crate::io::{ApplyKind, CallId, LeaderMail, PartOf, ShardMail};
use crate::txn::{self, Applied, Branches, Gathered, Outcome, Plan, SubRange};
use crate::types::{LeaseId, ReactorId, Revision, ShardId, Time};
use std::sync::Arc;

/// What the client asked, which the reply has to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Txn,
    DeleteRange,
    /// The keys of this lease are deleted, and the control shard has a part that ends it.
    Revoke(LeaseId),
}

/// The coordinator's side.
#[derive(Debug)]
pub(super) struct CrossShardTxn {
    shape: Shape,
    txn: Arc<TxnRequest>,
    shards: Vec<ShardId>,
    reserved: usize,
    outcomes: Vec<Outcome>,
    branches: Option<Arc<Branches>>,
    /// The sequencer's counter when all shards were reserved.
    current: Revision,
    gathered: Vec<Option<Gathered>>,
    /// A lease that some shard knows to be about to end.
    ending: Option<LeaseId>,
    plan: Option<Plan>,
    revision: Option<Revision>,
    applied: Vec<Option<Applied>>,
}

impl Calls {
    pub(super) fn delete_cross_shard(
        &mut self,
        turn: &mut Turn,
        reply_to: ReplyTo,
        delete: DeleteRangeRequest,
        deadline: Time,
    ) {
        if turn.control.corrupt() {
            return self.refuse_call(turn, reply_to, Error::Corrupt);
        }
        let shards = turn.router().shards_of(&delete.range()).collect();
        let txn = TxnRequest { success: vec![Op::DeleteRange(delete)], ..TxnRequest::default() };
        self.begin_cross_shard(turn, reply_to, (Shape::DeleteRange, txn), shards, deadline);
    }

    /// The shard found that it would look at too much for one step: it goes over several, over one shard
    /// perhaps.
    pub fn on_long(&mut self, turn: &mut Turn, call: CallId, request: Request) {
        // It may have failed at its deadline meanwhile.
        let Some(under_way) = self.under_way.remove(call) else { return };
        turn.counters.paths.txn_long += 1;
        let deadline = under_way.deadline;
        match request {
            Request::DeleteRange(delete) => {
                self.delete_cross_shard(turn, under_way.reply_to, delete, deadline);
            }
            Request::Txn(txn) => {
                let shards = shards_of_txn(turn, &txn);
                self.cross_shard_txn(turn, under_way.reply_to, txn, shards, deadline);
            }
            _ => unreachable!("other requests are short"),
        }
    }

    pub(super) fn cross_shard_txn(
        &mut self,
        turn: &mut Turn,
        reply_to: ReplyTo,
        txn: TxnRequest,
        shards: Vec<ShardId>,
        deadline: Time,
    ) {
        let request = Request::Txn(txn);
        if let Err(error) = turn.check_alarms(&request) {
            let call = self.begin(turn, reply_to, CallState::Waiting);
            return turn.refuse_write(call, error);
        }
        let Request::Txn(txn) = request else { unreachable!("made above") };
        self.begin_cross_shard(turn, reply_to, (Shape::Txn, txn), shards, deadline);
    }

    /// An error read from state is a linearizable read.
    fn refuse_call(&mut self, turn: &mut Turn, reply_to: ReplyTo, error: Error) {
        let call = self.begin(turn, reply_to, CallState::Waiting);
        turn.hold_unbacked(call, |_| Err(error));
    }

    /// Deletes the keys of a lease that is marked revoking, and ends it with the same revision: a transaction of the
    /// control shard's reactor, whoever asked for it.
    pub fn on_cross_shard_revoke(
        &mut self,
        turn: &mut Turn,
        of: CallId,
        lease: LeaseId,
        shards: Vec<ShardId>,
    ) {
        // Given up, it would leave its lease marked, and what names the lease waiting, for ever.
        let revoke = (Shape::Revoke(lease), TxnRequest::default());
        self.begin_cross_shard(turn, ReplyTo::Call(of), revoke, shards, Time::NEVER);
    }

    fn begin_cross_shard(
        &mut self,
        turn: &mut Turn,
        reply_to: ReplyTo,
        (shape, txn): (Shape, TxnRequest),
        shards: Vec<ShardId>,
        deadline: Time,
    ) {
        let reads = matches!(shape, Shape::Txn) && txn.is_read_only();
        assert!(shards.is_sorted(), "shards are reserved in ascending order");
        let with_keys = shards.first().is_some_and(|first| *first > ShardId::CONTROL);
        assert!(with_keys, "a transaction is over shards that have keys: {shards:?}");
        turn.counters.paths.txn_cross_shard += u64::from(shards.len() > 1);
        let bytes = txn.bytes();
        let cross = CrossShardTxn {
            shape,
            txn: Arc::new(txn),
            reserved: 0,
            outcomes: vec![],
            branches: None,
            current: Revision::NONE,
            gathered: shards.iter().map(|_| None).collect(),
            ending: None,
            plan: None,
            revision: None,
            applied: shards.iter().map(|_| None).collect(),
            shards,
        };
        let state = CallState::CrossShard(Box::new(cross));
        let call = self.begin_until(turn, reply_to, state, bytes, deadline);
        // Where it is a part of another call, that one counts.
        if !reads && !matches!(reply_to, ReplyTo::Call(_)) {
            self.under_way.proposes(call);
        }
        self.reserve_next(turn, call);
    }

    fn cross_shard_of(&mut self, call: CallId) -> Option<&mut CrossShardTxn> {
        match &mut self.under_way.get_mut(call)?.state {
            CallState::CrossShard(cross) => Some(cross),
            _ => unreachable!("only a transaction over several shards hears of reservations"),
        }
    }

    fn reserve_next(&mut self, turn: &mut Turn, call: CallId) {
        let Some(cross) = self.cross_shard_of(call) else { return };
        let (shard, txn) = (cross.shards[cross.reserved], cross.txn.clone());
        let revokes = cross.revokes();
        turn.send_to_owner(shard, ShardMail::Reserve { call, shard, txn, revokes });
    }

    pub fn on_reserved(&mut self, turn: &mut Turn, call: CallId, shard: ShardId, outcomes: Vec<Outcome>) {
        let Some(cross) = self.cross_shard_of(call) else {
            // The call failed at its deadline meanwhile: nobody else would release the shard.
            return turn.send_to_owner(shard, ShardMail::Release { call, shard });
        };
        assert!(cross.shards[cross.reserved] == shard, "reservations come in the order they were asked");
        cross.reserved += 1;
        if cross.outcomes.is_empty() {
            cross.outcomes = outcomes;
        } else {
            txn::merge_outcomes(&mut cross.outcomes, &outcomes);
        }
        if cross.reserved < cross.shards.len() {
            return self.reserve_next(turn, call);
        }
        self.gather_all(turn, call);
    }

    fn gather_all(&mut self, turn: &mut Turn, call: CallId) {
        let current = turn.sequencer.counter();
        let Some(cross) = self.cross_shard_of(call) else { return };
        assert!(cross.reserved == cross.shards.len(), "no shard gathers before all are reserved");
        let branches = Arc::new(Branches::of(&cross.txn, &cross.outcomes));
        cross.branches = Some(branches.clone());
        cross.current = current;
        for shard in cross.shards.clone() {
            turn.send_to_owner(shard, ShardMail::Gather { call, shard, branches: branches.clone(), current });
        }
    }

    pub fn on_gathered(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        shard: ShardId,
        gathered: Gathered,
        ending: Option<LeaseId>,
    ) {
        let Some(cross) = self.cross_shard_of(call) else {
            return turn.send_to_owner(shard, ShardMail::Release { call, shard });
        };
        let place = cross.place_of(shard);
        cross.ending = cross.ending.or(ending);
        assert!(cross.gathered[place].is_none(), "shard {shard} gathers once");
        cross.gathered[place] = Some(gathered);
        if cross.gathered.iter().all(Option::is_some) {
            self.decide(turn, call);
        }
    }

    /// All is known: the revision is taken, if anything changes, and the parts go out.
    fn decide(&mut self, turn: &mut Turn, call: CallId) {
        if self.under_way.get(call).is_some_and(|call| call.deadline <= turn.now) {
            return self.expire_call(turn, call);
        }
        let Some(cross) = self.cross_shard_of(call) else { return };
        let gathered: Vec<Gathered> = cross.gathered.iter_mut().flat_map(Option::take).collect();
        assert!(gathered.len() == cross.shards.len(), "a revision is taken when all shards have gathered");
        let plan = match Plan::of(&gathered) {
            Ok(plan) => plan,
            Err(error) => {
                let missing = error == Error::LeaseNotFound;
                return match self.ending_lease_of(turn, call).filter(|_| missing) {
                    Some(lease) => self.retry_later(turn, call, lease),
                    None => self.refuse_cross_shard(turn, call, error),
                };
            }
        };
        if self.reads_what_is_compacted(turn, call) {
            return self.refuse_cross_shard(turn, call, Error::Compacted);
        }
        let Some(cross) = self.cross_shard_of(call) else { return };
        let revoked = cross.revokes();
        let parts = plan.parts() + u16::from(revoked.is_some());
        let mut touched: Vec<ShardId> = cross.shards.clone();
        touched.retain(|shard| !plan.sub_ranges(cross.place_of(*shard)).is_empty());
        touched.extend(revoked.map(|_| ShardId::CONTROL));
        assert!(usize::from(parts) == touched.len(), "each shard that is touched has one part: {touched:?}");
        let revision = if plan.changes() == 0 { None } else { turn.take(parts, &touched) };
        let Some(cross) = self.cross_shard_of(call) else { return };
        if plan.changes() > 0 && revision.is_none() {
            // The ring is full, or the epoch over: the first is tried again when something has settled.
            cross.gathered = gathered.into_iter().map(Some).collect();
            self.deciding.push(call);
            turn.counters.paths.txn_redecided += 1;
            return;
        }
        let is_later = revision.is_none_or(|revision| revision > cross.current);
        assert!(is_later, "the revision is taken after all shards were reserved: {revision:?}");
        assert!(cross.plan.is_none(), "parts are handed out once");
        cross.revision = revision;
        let shards: Vec<(ShardId, Vec<SubRange>)> =
            cross.shards.iter().enumerate().map(|(n, shard)| (*shard, plan.sub_ranges(n).to_vec())).collect();
        cross.plan = Some(plan);
        let write = revision.map(|revision| PartOf { revision, parts });
        if let (Some(lease), Some(part)) = (revoked, write) {
            turn.send(ReactorId(0), ShardMail::LeaseEnds { lease, part });
        }
        for (shard, sub_ranges) in shards {
            turn.send_to_owner(shard, ShardMail::Part { call, shard, write, sub_ranges });
        }
    }

    /// Whether a compaction has taken effect since the shards gathered: its client may know of it already.
    fn reads_what_is_compacted(&mut self, turn: &mut Turn, call: CallId) -> bool {
        let compacted = *turn.compacted;
        let Some(CrossShardTxn { txn, branches: Some(branches), current, .. }) = self.cross_shard_of(call)
        else {
            return false;
        };
        let oldest = txn::oldest_read(txn, branches);
        oldest.is_some_and(|named| txn::check_read_in_txn(named, *current, compacted).is_err())
    }

    /// Decisions that found the ring full are taken again.
    pub(super) fn redecide(&mut self, turn: &mut Turn) {
        for call in std::mem::take(&mut self.deciding) {
            self.decide(turn, call);
        }
    }

    /// The lease that a shard may have missed only because its end is under way: then nobody may say yet that
    /// it is not there. The shard may know of the mark before this reactor does, and this reactor of the end
    /// before the shard's word comes; as long as the lease is here, its end will be heard of.
    fn ending_lease_of(&mut self, turn: &mut Turn, call: CallId) -> Option<LeaseId> {
        let cross = self.cross_shard_of(call)?;
        let (txn, ending) = (cross.txn.clone(), cross.ending);
        ending
            .filter(|lease| turn.control.leases.get(*lease).is_some())
            .or_else(|| find_lease(&txn, &|lease| turn.control.is_revoking(lease)))
    }

    fn retry_later(&mut self, turn: &mut Turn, call: CallId, lease: LeaseId) {
        self.release_cross_shard(turn, call);
        if let Some(cross) = self.cross_shard_of(call) {
            cross.reserved = 0;
            self.retrying.push(lease, call);
        }
    }

    /// The lease has ended: what waited for that begins anew.
    pub fn retry_cross_shard(&mut self, turn: &mut Turn, lease: LeaseId) {
        for call in self.retrying.take(lease) {
            // It may have failed at its deadline meanwhile.
            let Some(under_way) = self.under_way.remove(call) else { continue };
            let CallState::CrossShard(cross) = under_way.state else {
                unreachable!("only such calls wait here")
            };
            assert!(cross.plan.is_none(), "what begins anew has written nothing");
            turn.counters.paths.txn_retried += 1;
            let txn = Arc::try_unwrap(cross.txn).unwrap_or_else(|shared| (*shared).clone());
            self.cross_shard_txn(turn, under_way.reply_to, txn, cross.shards, under_way.deadline);
        }
    }

    fn refuse_cross_shard(&mut self, turn: &mut Turn, call: CallId, error: Error) {
        // What it was read from may not be settled yet.
        let current = self.cross_shard_of(call).map_or(Revision::NONE, |cross| cross.current);
        self.release_cross_shard(turn, call);
        let needs = turn.unbacked(current);
        turn.hold(needs, call, Err(error));
    }

    /// A transaction or a delete has been evaluated. A revoke is counted where its lease ends.
    fn applied_cross_shard(&mut self, turn: &mut Turn, call: CallId, shape: Shape, txn: &TxnRequest) {
        let kind = match shape {
            Shape::Txn => ApplyKind::Txn,
            Shape::DeleteRange => ApplyKind::DeleteRange,
            Shape::Revoke(_) => return,
        };
        if let Some(begun) = self.under_way.get(call).map(|call| call.begun) {
            turn.applied(kind, true, begun, About::of_txn(txn));
        }
    }

    /// A call that fails at its deadline, if it is a transaction over several shards, lets its shards go.
    pub(super) fn release_cross_shard_of(&mut self, turn: &mut Turn, call: CallId) {
        if self.under_way.get_mut(call).is_some_and(|call| matches!(call.state, CallState::CrossShard(_))) {
            turn.counters.paths.txn_released_late += 1;
            self.release_cross_shard(turn, call);
        }
    }

    /// Frees the shards of a transaction over several shards that has written nothing.
    fn release_cross_shard(&mut self, turn: &mut Turn, call: CallId) {
        let Some(cross) = self.cross_shard_of(call) else { return };
        if cross.plan.is_some() {
            return; // each shard is freed by its part
        }
        // With the one it waits for: its reservation waits there, or is on its way.
        let asked = (cross.reserved + 1).min(cross.shards.len());
        let shards = cross.shards[..asked].to_vec();
        for shard in shards {
            turn.send_to_owner(shard, ShardMail::Release { call, shard });
        }
    }

    pub fn on_applied(&mut self, turn: &mut Turn, call: CallId, shard: ShardId, applied: Applied) {
        let Some(cross) = self.cross_shard_of(call) else { return };
        let place = cross.place_of(shard);
        assert!(cross.applied[place].is_none(), "shard {shard} applies its part once");
        cross.applied[place] = Some(applied);
        if cross.applied.iter().any(Option::is_none) {
            return;
        }
        let mut applied: Vec<Applied> = std::mem::take(&mut cross.applied).into_iter().flatten().collect();
        let (Some(branches), Some(plan)) = (&cross.branches, &cross.plan) else {
            unreachable!("parts are applied after they were planned")
        };
        let (current, taken, changes) = (cross.current, cross.revision, plan.changes());
        let txn = txn::merge(&cross.txn, branches, plan, current, taken, &mut applied);
        let (shape, request) = (cross.shape, cross.txn.clone());
        let shown = taken.unwrap_or(current);
        match shape {
            Shape::Txn => count_txn(&mut turn.counters, &request, &txn),
            Shape::DeleteRange => turn.counters.deletes += 1,
            Shape::Revoke(_) => turn.counters.deletes += changes,
        }
        self.applied_cross_shard(turn, call, shape, &request);
        let reply = match shape {
            Shape::Txn => Reply::Txn(txn),
            Shape::DeleteRange => Reply::DeleteRange(only_delete(txn.responses, shown)),
            Shape::Revoke(lease) => {
                if taken.is_none() {
                    return turn.send(ReactorId(0), LeaderMail::EndBareLease { call, lease });
                }
                Reply::LeaseRevoke { revision: shown }
            }
        };
        let needs = taken.map_or_else(|| turn.unbacked(current), Needs::entry);
        turn.hold(needs, call, Ok(reply));
    }
}

impl CrossShardTxn {
    fn revokes(&self) -> Option<LeaseId> {
        match self.shape {
            Shape::Revoke(lease) => Some(lease),
            _ => None,
        }
    }

    fn place_of(&self, shard: ShardId) -> usize {
        self.shards.iter().position(|of| *of == shard).expect("only shards that were asked answer")
    }
}

fn only_delete(responses: Vec<OpReply>, revision: Revision) -> DeleteRangeReply {
    match responses.into_iter().next() {
        Some(OpReply::DeleteRange(reply)) => DeleteRangeReply { revision, ..reply },
        _ => unreachable!("the transaction had one operation, a delete"),
    }
}
