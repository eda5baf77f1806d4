//! The client's side of a reactor: connections, calls under way, streams and watches.
//!
//! It sees no shard. A call asks the owners of its shards by mail, at this reactor as at another, and gets its
//! answers by mail. One thing is done at once: a short range of this reactor's own shards, for which
//! [`Calls::serve`] borrows them to read.
//!
//! **The question.** A request may need another reactor, several, or the end of a takeover; its client may
//! leave, and its epoch may end. Who remembers it, and when may its answer leave?
//!
//! **The rule.** A call belongs to the reactor of its client and is answered there once, whatever happens: by
//! its answer, at its deadline, or at the end of its epoch, when its outcome is unknown. No answer leaves
//! above `settled`: the reactor that made it keeps it behind the gate until the revision that it depends on
//! is settled. One that no entry backs depends on the newest revision taken when it was evaluated, since it
//! may have seen that. What arrives during a takeover is parked, in bounded number, bytes and time, and
//! begins anew when the next epoch serves.
//!
//! **Why not otherwise.** A call that lived with the shard would have to follow its client's connection, and
//! shards would know of clients. An answer that left with the commit of its own entry could show a write
//! whose predecessor is lost.

mod door;
mod forward;
mod gather;
mod hashes;
mod history;
mod local_txns;
mod metrics;
mod pace;
mod parking;
mod reads;
mod streams;
mod table;
mod txns;
mod vars;
mod watches;

use super::gate::Round;
use super::requests::{is_proposal, is_write};
use super::turn::Turn;
use super::waiters::Waiters;
use crate::api::{
    Answer, Code, Error, RangeRequest, Reply, Request, ServingStatus, TxnRequest, WatchRequest,
};
use crate::front::{Ask, Front, Rpc};
use crate::io::{CallId, CallMail, ControlRequest, LeaderMail, Own, ReactorCounters, ShardMail};
use crate::stdx::Rng;
use crate::txn::{self, Counting};
use crate::types::{ConnId, Duration, LeaseId, MemberId, ReactorId, Revision, ShardId, Time};
use crate::wire::http1::Http1Response;
pub(super) use forward::ForwardedAnswer;
use forward::{Forwarded, LostCalls, MemberCall};
use local_txns::LocalTxn;
use parking::Parking;
use reads::Reading;
use std::collections::{BTreeSet, VecDeque};
use streams::Streams;
use table::CallTable;
use txns::CrossShardTxn;
use watches::Watches;

/// Who wants the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplyTo {
    Rpc(Rpc),
    /// One renewal of a stream.
    KeepAlive(Rpc),
    /// One chunk of a stream.
    Chunk(Rpc),
    /// A call of another reactor, of which this one is a part.
    Call(CallId),
    /// A page of HTTP/1.
    Page(Rpc),
    /// A transaction that reads what this member shows.
    LocalTxn(CallId),
    /// The leader itself.
    Own(Own),
    /// A client of another member.
    Member(MemberCall),
}

/// How far a call has come.
#[derive(Debug)]
enum CallState {
    /// One answer settles it.
    Waiting,
    Reading(Box<Reading>),
    CrossShard(Box<CrossShardTxn>),
    LocalTxn(Box<LocalTxn>),
    Gathering(Box<gather::Gathering>),
    Hashing(Box<hashes::Hashing>),
    /// It is with the leader.
    Forwarded(Box<Forwarded>),
    /// The leadership is to go to this member.
    HandingOver(MemberId),
    /// A change of the members is under way, and carried on by whoever leads.
    Changing,
}

impl CallState {
    /// Whether the end of an epoch is nothing to it.
    fn outlives_epochs(&self) -> bool {
        match self {
            CallState::Gathering(gathering) => gathering.needs_no_leader(),
            // What a member answers for itself is settled, and what is read is.
            CallState::Hashing(_) | CallState::Reading(_) | CallState::LocalTxn(_) => true,
            CallState::Forwarded(_) | CallState::HandingOver(_) | CallState::Changing => true,
            CallState::Waiting | CallState::CrossShard(_) => false,
        }
    }
}

#[derive(Debug)]
struct Call {
    pub reply_to: ReplyTo,
    pub state: CallState,
    pub begun: Time,
    deadline: Time,
    /// What its request holds in memory, here or where it waits.
    bytes: usize,
    /// Whether it goes through the log.
    proposes: bool,
}

pub(super) struct Calls {
    pub front: Front,
    under_way: CallTable,
    parking: Parking,
    /// Members that have lost calls to this one with a connection; the connections; and how often this one has asked
    /// for such calls.
    lost_calls: Vec<LostCalls>,
    lost_conns: BTreeSet<ConnId>,
    lost_asked: u64,
    /// Answers of the leader that wait until this member shows as much.
    unshown_answers: Vec<ForwardedAnswer>,
    /// The history up to here is dropped at this member.
    dropped: Revision,
    /// One more call may be with the leader than in the last turn.
    has_place: bool,
    streams: Streams,
    watches: Watches,
    /// Transactions over several shards that found no revision to take.
    deciding: Vec<CallId>,
    /// Transactions over several shards that wait for a lease's end.
    retrying: Waiters<LeaseId, CallId>,
    /// What clients ask, until it is served.
    asks: Vec<Ask>,
    /// Ranges to be read, beside what clients ask now.
    ready: VecDeque<(ReplyTo, RangeRequest, Counting)>,
    /// Watches that wait for the first epoch.
    parked_watches: Vec<(Rpc, WatchRequest)>,
    /// Ranges that this turn has tried to read at once, and that were too long for it.
    tried: usize,
}

impl Calls {
    pub fn new(front: Front, rng: Rng) -> Calls {
        Calls {
            front,
            under_way: CallTable::default(),
            parking: Parking::default(),
            lost_calls: vec![],
            lost_conns: BTreeSet::new(),
            lost_asked: 0,
            unshown_answers: vec![],
            dropped: Revision::NONE,
            has_place: false,
            streams: Streams::default(),
            watches: Watches::new(rng),
            deciding: vec![],
            retrying: Waiters::default(),
            asks: vec![],
            ready: VecDeque::new(),
            parked_watches: vec![],
            tried: 0,
        }
    }

    pub fn on_mail(&mut self, turn: &mut Turn, from: ReactorId, mail: CallMail) {
        match mail {
            CallMail::Answer { call, answer } => self.finish(turn, call, answer),
            CallMail::RoundIs { round, revision, control } => {
                turn.gate.confirm(Round(round));
                turn.open_gate();
                self.on_round_is(turn, Round(round), revision, control);
            }
            CallMail::Own { of, request } => self.call_of_leader(turn, of, request),
            CallMail::Ranged { call, shard, part } => self.on_ranged(turn, call, shard, part),
            CallMail::RangeGoesOn { call, shard, bytes } => {
                self.on_range_goes_on(turn, from, call, shard, bytes);
            }
            CallMail::Long { call, request } => self.on_long(turn, call, request),
            CallMail::Reserved { call, shard, outcomes } => self.on_reserved(turn, call, shard, outcomes),
            CallMail::Gathered { call, shard, gathered, ending } => {
                self.on_gathered(turn, call, shard, gathered, ending);
            }
            CallMail::Applied { call, shard, applied } => self.on_applied(turn, call, shard, applied),
            CallMail::CrossShardRevoke { call, lease, shards } => {
                self.on_cross_shard_revoke(turn, call, lease, shards)
            }
            CallMail::LeaseKeysWanted { call, reply } => self.gather_lease_keys(turn, call, reply),
            CallMail::LeaseKeysAre { call, keys, seen } => {
                self.on_lease_keys_are(turn, from, call, keys, seen)
            }
            CallMail::HistoryIs { call, shard, compacted, history } => {
                self.on_history_is(turn, call, shard, compacted, history);
            }
            CallMail::Watched { shard, message } => self.on_watch_news(turn, shard, message),
            CallMail::Watermarks { watermarks } => self.on_watermarks(watermarks),
            CallMail::Changed { call, answer } => self.finish(turn, call, answer),
            CallMail::Outlives { call } => self.under_way.outlives(call),
            CallMail::CensusIs { call, census } => self.on_census_is(turn, from, call, *census),
            CallMail::Defragmented { call, done } => self.on_defragmented(turn, from, call, done),
        }
    }

    /// A turn ends: what time brings, and decisions that found no revision, which are taken again.
    pub fn take_turn(&mut self, turn: &mut Turn) {
        self.tried = 0;
        self.front_on_time(turn);
        self.end_leaderless(turn);
        self.forward_more(turn);
        self.redecide(turn);
        self.tell_lost_over(turn);
    }

    /// Whether the next turn has work that no input will bring.
    pub fn has_more_to_do(&self) -> bool {
        self.watches.is_ready() || self.front.has_more_to_send()
    }

    pub fn waits_for_ring(&self) -> bool {
        !self.deciding.is_empty()
    }

    /// Calls under way, and parked requests.
    pub fn len(&self) -> usize {
        self.under_way.len() + self.parking.len()
    }

    #[cfg(test)]
    pub fn waits_for_leases(&self) -> usize {
        self.retrying.len()
    }

    pub fn count(&self, counters: &mut ReactorCounters) {
        counters.front = self.front.counters.clone();
        counters.connections = self.front.open() as u64;
        counters.proposals_pending = self.under_way.proposals() as u64;
        counters.calls = self.len() as u64;
        self.watches.count(counters);
    }

    /// An epoch serves: what was parked goes on.
    pub fn begin_epoch(&mut self, turn: &mut Turn) {
        self.find_leader();
        self.answer_handed_over(turn, turn.settings.member);
        self.supersede(turn, turn.settings.member);
        self.unpark_shown(turn);
        self.unpark_leaderless(turn);
        self.unpark_shown_upto(turn);
    }

    /// Another member leads, or nobody does that this one knows of.
    pub fn on_leader_is(&mut self, turn: &mut Turn, leader: Option<MemberId>) {
        match leader {
            Some(leader) => {
                self.find_leader();
                self.answer_handed_over(turn, leader);
                self.supersede(turn, leader);
                self.unpark_leaderless(turn);
            }
            None => self.lose_leader(turn),
        }
    }

    /// The epoch is over.
    pub fn end_epoch(&mut self, turn: &mut Turn) {
        assert!(!turn.epoch_state.may_write(), "calls fail when their epoch is over");
        self.deciding.clear();
        self.fail_calls(turn, &Error::Timeout);
        self.retrying.clear();
        self.lose_leader(turn);
    }

    /// This member leads, or leads on: whoever wanted another one to is told.
    fn answer_handed_over(&mut self, turn: &mut Turn, leader: MemberId) {
        let asked = self.under_way.all().filter_map(|(number, call)| match call.state {
            CallState::HandingOver(target) => Some((number, target)),
            _ => None,
        });
        let asked: Vec<(u64, MemberId)> = asked.collect();
        for (number, target) in asked {
            let answer = if target == leader { Ok(Reply::MoveLeader) } else { Err(Error::TransferTooLong) };
            self.finish(turn, CallId { reactor: turn.id, number }, answer);
        }
    }

    /// The leadership was to be handed over, and stays here: what has waited goes on.
    pub fn stay(&mut self, turn: &mut Turn) {
        assert!(turn.epoch_state.takes_writes(), "who leads on takes requests on again");
        self.answer_handed_over(turn, turn.settings.member);
        self.unpark_leaderless(turn);
    }

    /// Whether nothing is under way that would end with the epoch.
    pub fn is_drained(&self) -> bool {
        self.under_way.all().all(|(_, call)| call.state.outlives_epochs())
    }

    /// Whether something is under way for other members' clients.
    pub fn serves_members(&self) -> bool {
        self.under_way.all().any(|(_, call)| matches!(call.reply_to, ReplyTo::Member(_)))
    }

    /// The leader asks something of its own.
    fn call_of_leader(&mut self, turn: &mut Turn, of: Own, request: Request) {
        assert!(turn.epoch_state.may_write(), "the leader asks while its epoch serves");
        let deadline = turn.now + turn.settings.request_timeout();
        self.route(turn, ReplyTo::Own(of), request, deadline);
    }

    pub fn wake_at(&self) -> Time {
        self.watches.wake_at().min(self.front.wake_at()).min(self.streams.wake_at())
    }

    /// Answers a request, or sends it to where the state is that it reads or changes. From the deadline on it does
    /// nothing.
    fn route(&mut self, turn: &mut Turn, reply_to: ReplyTo, request: Request, deadline: Time) {
        match request {
            Request::Put(ref put) => {
                let shard = turn.router().shard_of(&put.key);
                self.evaluate_at(turn, reply_to, shard, request, deadline);
            }
            Request::DeleteRange(ref delete) => {
                let mut shards = turn.router().shards_of(&delete.range());
                match (shards.next(), shards.next()) {
                    (None, _) => self.answer_empty_delete(turn, reply_to),
                    (Some(shard), None) => self.evaluate_at(turn, reply_to, shard, request, deadline),
                    _ => {
                        let Request::DeleteRange(delete) = request else { unreachable!("matched above") };
                        self.delete_cross_shard(turn, reply_to, delete, deadline);
                    }
                }
            }
            // A leader reads what it shows as well: its answers from its shards wait until all before them is settled.
            Request::Txn(txn) if !turn.is_alone() && txn.is_serializable() => {
                self.read_txn(turn, reply_to, txn, deadline);
            }
            Request::Txn(txn) => self.call_txn(turn, reply_to, txn, deadline),
            Request::Compact(_) | Request::LeaseGrant(_) | Request::LeaseRevoke(_) => {
                self.ask_control(turn, reply_to, ControlRequest::Client(request), deadline);
            }
            Request::LeaseLeases if !turn.is_alone() => {
                let (revision, leases) =
                    (turn.shown(), turn.control.leases.iter().map(|(id, _)| id).collect());
                self.reply(turn, reply_to, Ok(Reply::LeaseLeases { revision, leases }));
            }
            Request::LeaseTimeToLive { .. }
            | Request::LeaseLeases
            | Request::Alarm(_)
            | Request::MemberAdd { .. }
            | Request::MemberRemove { .. }
            | Request::MemberUpdate { .. }
            | Request::MemberPromote { .. } => {
                self.ask_control(turn, reply_to, ControlRequest::Client(request), deadline);
            }
            Request::MemberList { .. } => {
                let members = turn.control.members();
                self.reply(turn, reply_to, Ok(Reply::MemberList { members }));
            }
            // Nothing can turn authentication on, nor make users and roles.
            Request::AuthStatus => {
                self.answer_unbacked(turn, reply_to, |revision| Reply::AuthStatus { revision })
            }
            Request::UserList => {
                self.answer_unbacked(turn, reply_to, |revision| Reply::UserList { revision })
            }
            Request::RoleList => {
                self.answer_unbacked(turn, reply_to, |revision| Reply::RoleList { revision })
            }
            Request::MoveLeader { target } if target == turn.settings.member => {
                self.reply(turn, reply_to, Ok(Reply::MoveLeader)); // it leads
            }
            Request::MoveLeader { target } => {
                let is_voter = turn.control.member(target).is_some_and(|member| !member.is_learner);
                if !is_voter {
                    return self.reply(turn, reply_to, Err(Error::BadLeaderTransferee));
                }
                // Who leads then says so, or that it still does; what is left is that nobody does.
                let until = turn.now + Duration(2 * turn.settings.election_timeout.0);
                self.begin_until(turn, reply_to, CallState::HandingOver(target), 0, until);
                turn.send(ReactorId(0), LeaderMail::HandOver { target });
            }
            Request::Status => self.take_census(turn, reply_to),
            Request::Defragment => self.defragment(turn, reply_to),
            Request::Hash => self.hash(turn, reply_to),
            Request::HashKv { revision } => self.hash_kv(turn, reply_to, revision),
            Request::HealthCheck { service } => self.reply(turn, reply_to, health(&service)),
            Request::HealthList => self.reply(turn, reply_to, Ok(Reply::HealthList(ServingStatus::Serving))),
            Request::Range(_) => unreachable!("a range is read where it was let in"),
        }
    }

    fn begin(&mut self, turn: &Turn, reply_to: ReplyTo, state: CallState) -> CallId {
        self.begin_of(turn, reply_to, state, 0)
    }

    /// Begins a call whose request holds so many bytes.
    fn begin_of(&mut self, turn: &Turn, reply_to: ReplyTo, state: CallState, bytes: usize) -> CallId {
        self.begin_until(turn, reply_to, state, bytes, turn.now + turn.settings.request_timeout())
    }

    /// Begins a call that may have waited before.
    fn begin_until(
        &mut self,
        turn: &Turn,
        reply_to: ReplyTo,
        state: CallState,
        bytes: usize,
        deadline: Time,
    ) -> CallId {
        let call = Call { reply_to, state, begun: turn.now, deadline, bytes, proposes: false };
        let number = self.under_way.add(call);
        CallId { reactor: turn.id, number }
    }

    /// Whether somebody still waits for the answer.
    fn is_there(&mut self, reply_to: ReplyTo) -> bool {
        match reply_to {
            ReplyTo::Rpc(rpc) | ReplyTo::KeepAlive(rpc) | ReplyTo::Chunk(rpc) => {
                self.front.method(rpc).is_some()
            }
            ReplyTo::Call(_) | ReplyTo::Page(_) | ReplyTo::Own(_) => true,
            ReplyTo::LocalTxn(_) | ReplyTo::Member(_) => true,
        }
    }

    fn evaluate_at(
        &mut self,
        turn: &mut Turn,
        reply_to: ReplyTo,
        shard: ShardId,
        request: Request,
        until: Time,
    ) {
        assert!(shard != ShardId::CONTROL, "the control shard has no keys");
        let owner = turn.router().reactor_of(shard);
        self.asks_of(reply_to, owner);
        let call = self.begin_until(turn, reply_to, CallState::Waiting, request.bytes(), until);
        if is_write(&request) {
            self.under_way.proposes(call);
        }
        turn.send(owner, ShardMail::Evaluate { call, shard, request, until });
    }

    /// A client's request goes to this reactor alone.
    fn asks_of(&mut self, reply_to: ReplyTo, owner: ReactorId) {
        if let ReplyTo::Rpc(rpc) = reply_to {
            self.front.asks_of(rpc, owner);
        }
    }

    fn ask_control(&mut self, turn: &mut Turn, reply_to: ReplyTo, request: ControlRequest, until: Time) {
        let call = self.begin_until(turn, reply_to, CallState::Waiting, 0, until);
        if matches!(&request, ControlRequest::Client(of) if is_proposal(of)) {
            self.under_way.proposes(call);
        }
        let own = matches!(reply_to, ReplyTo::Own(_));
        turn.send(ReactorId(0), LeaderMail::Control { call, request, until, own });
    }

    fn call_txn(&mut self, turn: &mut Turn, reply_to: ReplyTo, request: TxnRequest, deadline: Time) {
        let shards = shards_of_txn(turn, &request);
        match shards[..] {
            // A transaction without a key reads nothing and writes nothing: any shard can say so.
            [] => self.evaluate_at(turn, reply_to, ShardId(1), Request::Txn(request), deadline),
            [shard] => self.evaluate_at(turn, reply_to, shard, Request::Txn(request), deadline),
            _ => self.cross_shard_txn(turn, reply_to, request, shards, deadline),
        }
    }

    fn answer_empty_delete(&mut self, turn: &mut Turn, reply_to: ReplyTo) {
        self.answer_unbacked(turn, reply_to, |revision| {
            Reply::DeleteRange(crate::api::DeleteRangeReply { revision, ..Default::default() })
        });
    }

    /// Answers with a reply that no entry backs.
    fn answer_unbacked(&mut self, turn: &mut Turn, reply_to: ReplyTo, reply: impl FnOnce(Revision) -> Reply) {
        let call = self.begin(turn, reply_to, CallState::Waiting);
        turn.hold_unbacked(call, |revision| Ok(reply(revision)));
    }

    /// Gives a call of this reactor its answer, wherever that was made.
    pub fn finish(&mut self, turn: &mut Turn, call: CallId, answer: Answer) {
        assert!(call.reactor == turn.id, "an answer goes to the reactor of its client");
        // A call that is gone failed at its deadline or at the end of its epoch.
        if let Some(call) = self.under_way.remove(call) {
            self.reply(turn, call.reply_to, answer);
        }
    }

    fn reply(&mut self, turn: &mut Turn, reply_to: ReplyTo, answer: Answer) {
        match reply_to {
            ReplyTo::Rpc(rpc) => self.answer_rpc(turn, rpc, answer),
            ReplyTo::KeepAlive(rpc) => self.on_kept_alive(turn, rpc, answer),
            ReplyTo::Chunk(rpc) => self.on_chunk(turn, rpc, answer),
            ReplyTo::Call(call) => turn.answer(call, answer),
            ReplyTo::LocalTxn(call) => self.on_local_range(turn, call, answer),
            ReplyTo::Member(of) => self.answer_member(turn, of, answer),
            ReplyTo::Own(of) => turn.send(ReactorId(0), LeaderMail::OwnDone { of, answer }),
            ReplyTo::Page(rpc) => {
                turn.counters.scrapes_failed += 1;
                let error = answer.expect_err("only a page that cannot be made is answered this way");
                self.show_page(turn, rpc, &Http1Response::error(503, &error.to_string()));
            }
        }
    }

    /// The epoch is over: what was under way has an unknown outcome.
    fn fail_calls(&mut self, turn: &mut Turn, error: &Error) {
        let under_way = self.under_way.all().filter(|(_, call)| !call.state.outlives_epochs());
        let numbers: Vec<u64> = under_way.map(|(number, _)| number).collect();
        for number in numbers {
            self.count_failed(turn, number);
            self.finish(turn, CallId { reactor: turn.id, number }, Err(error.clone()));
        }
    }

    /// Fails what has waited too long, as etcd does: its outcome is unknown.
    pub fn expire(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let late = self.under_way.all().filter(|(_, call)| call.deadline <= now);
        let late: Vec<u64> = late.map(|(number, _)| number).collect();
        for number in late {
            self.expire_call(turn, CallId { reactor: turn.id, number });
        }
        self.expire_parked(turn);
        // Who could not be reached may be by now.
        self.unpark_leaderless(turn);
    }

    fn expire_call(&mut self, turn: &mut Turn, call: CallId) {
        self.count_failed(turn, call.number);
        turn.counters.paths.call_expired += 1;
        self.release_cross_shard_of(turn, call);
        let hands_over = |call: &Call| matches!(call.state, CallState::HandingOver(_));
        let error = match self.under_way.get(call).is_some_and(hands_over) {
            true => Error::TransferTooLong,
            false => Error::Timeout,
        };
        self.finish(turn, call, Err(error));
    }

    fn count_failed(&self, turn: &mut Turn, number: u64) {
        let Some(call) = self.under_way.get(CallId { reactor: turn.id, number }) else { return };
        turn.counters.proposals_failed += u64::from(call.proposes);
        turn.counters.ranges_failed += u64::from(matches!(call.state, CallState::Reading(_)));
    }
}

fn shards_of_txn(turn: &Turn, request: &TxnRequest) -> Vec<ShardId> {
    let footprint = txn::footprint(request);
    let mut shards: Vec<ShardId> =
        footprint.iter().flat_map(|range| turn.router().shards_of(range)).collect();
    shards.sort();
    shards.dedup();
    shards
}

/// Only the server as a whole has a status, and while the process answers it is healthy, whoever leads (etcd's
/// law).
fn health(service: &str) -> Answer {
    if service.is_empty() {
        Ok(Reply::Health(ServingStatus::Serving))
    } else {
        Err(Error::Other { code: Code::NotFound, text: "unknown service".to_owned() })
    }
}
