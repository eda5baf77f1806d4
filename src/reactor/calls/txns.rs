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
use super::{Asker, Calls, Course, Turn, shards_of_txn};
use crate::api::{DeleteRangeReply, DeleteRangeRequest, Error, Op, OpReply, Reply, Request, TxnRequest};
use crate::io::{ApplyKind, CallId, LeaderMail, PartOf, ShardMail};
use crate::txn::{self, Applied, Gathered, Outcome, Path, Plan, Share};
use crate::types::{LeaseId, ReactorId, Revision, ShardId};
use std::sync::Arc;

/// What the client asked, which the reply has to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Txn,
    DeleteRange,
    /// Of this lease; the control shard has a part that ends it.
    Revoke(LeaseId),
}

/// The coordinator's side.
#[derive(Debug)]
pub(super) struct Spread {
    shape: Shape,
    txn: Arc<TxnRequest>,
    shards: Vec<ShardId>,
    reserved: usize,
    outcomes: Vec<Outcome>,
    path: Option<Arc<Path>>,
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
    pub(super) fn spread_delete(&mut self, turn: &mut Turn, asker: Asker, delete: DeleteRangeRequest) {
        if turn.control.corrupt() {
            return self.refuse_call(turn, asker, Error::Corrupt);
        }
        let shards = turn.router().shards_of(&delete.range()).collect();
        let txn = TxnRequest { success: vec![Op::DeleteRange(delete)], ..TxnRequest::default() };
        self.begin_spread(turn, asker, Shape::DeleteRange, txn, shards);
    }

    /// The shard found that it would look at too much for one step: it is spread, over one shard perhaps.
    pub fn on_long(&mut self, turn: &mut Turn, call: CallId, request: Request) {
        // It may have failed at its deadline meanwhile.
        let Some(under_way) = self.under_way.remove(call) else { return };
        turn.counters.paths.txn_long += 1;
        match request {
            Request::DeleteRange(delete) => self.spread_delete(turn, under_way.asker, delete),
            Request::Txn(txn) => {
                let shards = shards_of_txn(turn, &txn);
                self.spread(turn, under_way.asker, txn, shards);
            }
            _ => unreachable!("other requests are short"),
        }
    }

    pub(super) fn spread(&mut self, turn: &mut Turn, asker: Asker, txn: TxnRequest, shards: Vec<ShardId>) {
        let request = Request::Txn(txn);
        if let Err(error) = turn.check_alarms(&request) {
            let call = self.begin(turn, asker, Course::Waiting);
            return turn.refuse_write(call, error);
        }
        let Request::Txn(txn) = request else { unreachable!("made above") };
        self.begin_spread(turn, asker, Shape::Txn, txn, shards);
    }

    /// An error read from state is a linearizable read.
    fn refuse_call(&mut self, turn: &mut Turn, asker: Asker, error: Error) {
        let call = self.begin(turn, asker, Course::Waiting);
        turn.hold_unbacked(call, |_| Err(error));
    }

    /// Deletes the keys of a lease that is marked revoking, and ends it with the same revision: a transaction of the
    /// control shard's reactor, whoever asked for it.
    pub fn on_spread_revoke(&mut self, turn: &mut Turn, of: CallId, lease: LeaseId, shards: Vec<ShardId>) {
        self.begin_spread(turn, Asker::Call(of), Shape::Revoke(lease), TxnRequest::default(), shards);
    }

    fn begin_spread(
        &mut self,
        turn: &mut Turn,
        asker: Asker,
        shape: Shape,
        txn: TxnRequest,
        shards: Vec<ShardId>,
    ) {
        let reads = matches!(shape, Shape::Txn) && txn.is_read_only();
        assert!(shards.is_sorted(), "shards are reserved in ascending order");
        let with_keys = shards.first().is_some_and(|first| *first > ShardId::CONTROL);
        assert!(with_keys, "a transaction is over shards that have keys: {shards:?}");
        turn.counters.paths.txn_spread += u64::from(shards.len() > 1);
        let bytes = txn.bytes();
        let spread = Spread {
            shape,
            txn: Arc::new(txn),
            reserved: 0,
            outcomes: vec![],
            path: None,
            current: Revision::NONE,
            gathered: shards.iter().map(|_| None).collect(),
            ending: None,
            plan: None,
            revision: None,
            applied: shards.iter().map(|_| None).collect(),
            shards,
        };
        let call = self.begin_of(turn, asker, Course::Spread(Box::new(spread)), bytes);
        // Where it is a part of another call, that one counts.
        if !reads && !matches!(asker, Asker::Call(_)) {
            self.under_way.proposes(call);
        }
        if matches!(shape, Shape::Revoke(_)) {
            // Given up, it would leave its lease marked, and what names the lease waiting, for ever.
            self.under_way.keep(call);
        }
        self.reserve_next(turn, call);
    }

    fn spread_of(&mut self, call: CallId) -> Option<&mut Spread> {
        match &mut self.under_way.get_mut(call)?.course {
            Course::Spread(spread) => Some(spread),
            _ => unreachable!("only a spread transaction hears of reservations"),
        }
    }

    fn reserve_next(&mut self, turn: &mut Turn, call: CallId) {
        let Some(spread) = self.spread_of(call) else { return };
        let (shard, txn) = (spread.shards[spread.reserved], spread.txn.clone());
        let revokes = spread.revokes();
        turn.send_to_owner(shard, ShardMail::Reserve { call, shard, txn, revokes });
    }

    pub fn on_reserved(&mut self, turn: &mut Turn, call: CallId, shard: ShardId, outcomes: Vec<Outcome>) {
        let Some(spread) = self.spread_of(call) else {
            // The call failed at its deadline meanwhile: nobody else would release the shard.
            return turn.send_to_owner(shard, ShardMail::Release { call, shard });
        };
        assert!(spread.shards[spread.reserved] == shard, "reservations come in the order they were asked");
        spread.reserved += 1;
        if spread.outcomes.is_empty() {
            spread.outcomes = outcomes;
        } else {
            txn::merge_outcomes(&mut spread.outcomes, &outcomes);
        }
        if spread.reserved < spread.shards.len() {
            return self.reserve_next(turn, call);
        }
        self.gather_all(turn, call);
    }

    fn gather_all(&mut self, turn: &mut Turn, call: CallId) {
        let current = turn.sequencer.counter();
        let Some(spread) = self.spread_of(call) else { return };
        assert!(spread.reserved == spread.shards.len(), "no shard gathers before all are reserved");
        let path = Arc::new(Path::of(&spread.txn, &spread.outcomes));
        spread.path = Some(path.clone());
        spread.current = current;
        for shard in spread.shards.clone() {
            turn.send_to_owner(shard, ShardMail::Gather { call, shard, path: path.clone(), current });
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
        let Some(spread) = self.spread_of(call) else {
            return turn.send_to_owner(shard, ShardMail::Release { call, shard });
        };
        let place = spread.place_of(shard);
        spread.ending = spread.ending.or(ending);
        assert!(spread.gathered[place].is_none(), "shard {shard} gathers once");
        spread.gathered[place] = Some(gathered);
        if spread.gathered.iter().all(Option::is_some) {
            self.decide(turn, call);
        }
    }

    /// All is known: the revision is taken, if anything changes, and the parts go out.
    fn decide(&mut self, turn: &mut Turn, call: CallId) {
        let Some(spread) = self.spread_of(call) else { return };
        let gathered: Vec<Gathered> = spread.gathered.iter_mut().flat_map(Option::take).collect();
        assert!(gathered.len() == spread.shards.len(), "a revision is taken when all shards have gathered");
        let plan = match Plan::of(&gathered) {
            Ok(plan) => plan,
            Err(error) => {
                let missing = error == Error::LeaseNotFound;
                return match self.ending_lease_of(turn, call).filter(|_| missing) {
                    Some(lease) => self.retry_later(turn, call, lease),
                    None => self.refuse_spread(turn, call, error),
                };
            }
        };
        if self.reads_what_is_compacted(turn, call) {
            return self.refuse_spread(turn, call, Error::Compacted);
        }
        let Some(spread) = self.spread_of(call) else { return };
        let revoked = spread.revokes();
        let parts = plan.parts() + u16::from(revoked.is_some());
        let mut touched: Vec<ShardId> = spread.shards.clone();
        touched.retain(|shard| !plan.shares(spread.place_of(*shard)).is_empty());
        touched.extend(revoked.map(|_| ShardId::CONTROL));
        assert!(usize::from(parts) == touched.len(), "each shard that is touched has one part: {touched:?}");
        let revision = if plan.changes() == 0 { None } else { turn.take(parts, &touched) };
        let Some(spread) = self.spread_of(call) else { return };
        if plan.changes() > 0 && revision.is_none() {
            // The ring is full, or the epoch over: the first is tried again when something has settled.
            spread.gathered = gathered.into_iter().map(Some).collect();
            self.deciding.push(call);
            turn.counters.paths.txn_redecided += 1;
            return;
        }
        let is_later = revision.is_none_or(|revision| revision > spread.current);
        assert!(is_later, "the revision is taken after all shards were reserved: {revision:?}");
        assert!(spread.plan.is_none(), "parts are handed out once");
        spread.revision = revision;
        let shards: Vec<(ShardId, Vec<Share>)> =
            spread.shards.iter().enumerate().map(|(n, shard)| (*shard, plan.shares(n).to_vec())).collect();
        spread.plan = Some(plan);
        let write = revision.map(|revision| PartOf { revision, parts });
        if let (Some(lease), Some(part)) = (revoked, write) {
            turn.send(ReactorId(0), ShardMail::LeaseEnds { lease, part });
        }
        for (shard, shares) in shards {
            turn.send_to_owner(shard, ShardMail::Part { call, shard, write, shares });
        }
    }

    /// Whether a compaction has taken effect since the shards gathered: its client may know of it already.
    fn reads_what_is_compacted(&mut self, turn: &mut Turn, call: CallId) -> bool {
        let compacted = turn.control.compacted();
        let Some(Spread { txn, path: Some(path), current, .. }) = self.spread_of(call) else { return false };
        let oldest = txn::oldest_read(txn, path);
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
        let spread = self.spread_of(call)?;
        let (txn, ending) = (spread.txn.clone(), spread.ending);
        ending
            .filter(|lease| turn.control.leases.get(*lease).is_some())
            .or_else(|| find_lease(&txn, &|lease| turn.control.is_revoking(lease)))
    }

    fn retry_later(&mut self, turn: &mut Turn, call: CallId, lease: LeaseId) {
        self.release_spread(turn, call);
        if let Some(spread) = self.spread_of(call) {
            spread.reserved = 0;
            self.retrying.push(lease, call);
        }
    }

    /// The lease has ended: what waited for that begins anew.
    pub fn retry_spread(&mut self, turn: &mut Turn, lease: LeaseId) {
        for call in self.retrying.take(lease) {
            // It may have failed at its deadline meanwhile.
            let Some(under_way) = self.under_way.remove(call) else { continue };
            let Course::Spread(spread) = under_way.course else { unreachable!("only such calls wait here") };
            assert!(spread.plan.is_none(), "what begins anew has written nothing");
            turn.counters.paths.txn_retried += 1;
            let txn = Arc::try_unwrap(spread.txn).unwrap_or_else(|shared| (*shared).clone());
            self.spread(turn, under_way.asker, txn, spread.shards);
        }
    }

    fn refuse_spread(&mut self, turn: &mut Turn, call: CallId, error: Error) {
        // What it was read from may not be settled yet.
        let current = self.spread_of(call).map_or(Revision::NONE, |spread| spread.current);
        self.release_spread(turn, call);
        let needs = turn.gate.unbacked(current);
        turn.hold(needs, call, Err(error));
    }

    /// (A revoke is counted where its lease ends.)
    fn applied_spread(&mut self, turn: &mut Turn, call: CallId, shape: Shape, txn: &TxnRequest) {
        let kind = match shape {
            Shape::Txn => ApplyKind::Txn,
            Shape::DeleteRange => ApplyKind::DeleteRange,
            Shape::Revoke(_) => return,
        };
        if let Some(begun) = self.under_way.get(call).map(|call| call.begun) {
            turn.applied(kind, true, begun, About::of_txn(txn));
        }
    }

    /// A call that fails at its deadline, if it is a spread transaction, lets its shards go.
    pub(super) fn release_spread_of(&mut self, turn: &mut Turn, call: CallId) {
        if self.under_way.get_mut(call).is_some_and(|call| matches!(call.course, Course::Spread(_))) {
            turn.counters.paths.txn_released_late += 1;
            self.release_spread(turn, call);
        }
    }

    /// Frees the shards of a spread transaction that has written nothing.
    fn release_spread(&mut self, turn: &mut Turn, call: CallId) {
        let Some(spread) = self.spread_of(call) else { return };
        if spread.plan.is_some() {
            return; // each shard is freed by its part
        }
        // With the one it waits for: its reservation waits there, or is on its way.
        let asked = (spread.reserved + 1).min(spread.shards.len());
        let shards = spread.shards[..asked].to_vec();
        for shard in shards {
            turn.send_to_owner(shard, ShardMail::Release { call, shard });
        }
    }

    pub fn on_applied(&mut self, turn: &mut Turn, call: CallId, shard: ShardId, applied: Applied) {
        let Some(spread) = self.spread_of(call) else { return };
        let place = spread.place_of(shard);
        assert!(spread.applied[place].is_none(), "shard {shard} applies its part once");
        spread.applied[place] = Some(applied);
        if spread.applied.iter().any(Option::is_none) {
            return;
        }
        let mut applied: Vec<Applied> = std::mem::take(&mut spread.applied).into_iter().flatten().collect();
        let (Some(path), Some(plan)) = (&spread.path, &spread.plan) else {
            unreachable!("parts are applied after they were planned")
        };
        let (current, taken, changes) = (spread.current, spread.revision, plan.changes());
        let txn = txn::merge(&spread.txn, path, plan, current, taken, &mut applied);
        let (shape, request) = (spread.shape, spread.txn.clone());
        let shown = taken.unwrap_or(current);
        match shape {
            Shape::Txn => count_txn(&mut turn.counters, &request, &txn),
            Shape::DeleteRange => turn.counters.deletes += 1,
            Shape::Revoke(_) => turn.counters.deletes += changes,
        }
        self.applied_spread(turn, call, shape, &request);
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
        let needs = taken.map_or_else(|| turn.gate.unbacked(current), Needs::entry);
        turn.hold(needs, call, Ok(reply));
    }
}

impl Spread {
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
