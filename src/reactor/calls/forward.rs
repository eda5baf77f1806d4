//! What another member has to do: requests go to the leader, and its answers go to the clients.
//!
//! **The question.** A client may ask any member, and only the leader writes. What becomes of a request while
//! leaders change and connections break?
//!
//! **The rule.** A request goes to a leader once. If it certainly was not taken (it never left, or was refused as
//! nobody leads there), it waits for the next leader. If it may have been, its outcome is unknown, and it is never sent
//! again, since it could take effect twice. Its client is told so once it cannot be done any more: when the connection
//! is lost and another leader serves, or when the same leader has said on the next connection that it is through with
//! what came by those before. As long as the connection stands, who was the leader says what became of the request:
//! mostly that it has come too late, and then the next one gets it.
//!
//! **Why not otherwise.** A follower that sends and forgets, as etcd's does, leaves its clients to their deadlines
//! whenever a leader dies.

use super::door::{ClientRequest, Requires};
use super::parking::Awaits;
use super::{CallState, Calls, ReplyTo, Turn};
use crate::api::{Answer, Code, Error, Reply, Request};
use crate::front::Rpc;
use crate::io::{CallId, ControlRequest};
use crate::peer::{CallFailure, PeerMessage};
use crate::reactor::requests::is_proposal;
use crate::reactor::turn::ToPeers;
use crate::types::{ConnId, Index, MemberId, ReactorId, Revision, ShardId, Time};
use crate::wire::{Header, Method, decode, encode};
use bytes::Bytes;

/// A request that is with the leader.
#[derive(Debug)]
pub(super) struct Forwarded {
    leader: MemberId,
    /// In case that the leader does not take it.
    request: ClientRequest,
    /// What it went by. None where it has not left, or where that connection is gone.
    conn: Option<ConnId>,
    /// The connection is gone.
    lost: Option<LostAt>,
    /// Another leader has served since.
    superseded: bool,
}

/// What went by a connection that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LostAt {
    /// The leader's reactor, which may have it.
    at: ReactorId,
    /// By which number that was asked for it.
    asked: Option<u64>,
}

/// A member has lost calls to this one with a connection.
#[derive(Debug)]
pub(super) struct LostCalls {
    member: MemberId,
    /// Who asks, by which number.
    conn: ConnId,
    number: u64,
}

/// The leader's answer to a request.
#[derive(Debug)]
pub(in crate::reactor) struct ForwardedAnswer {
    pub number: u64,
    /// What it may depend on.
    pub shows: Revision,
    pub control: Index,
    pub outcome: Result<Bytes, CallFailure>,
}

/// Another member's client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberCall {
    conn: ConnId,
    number: u64,
    member: MemberId,
}

impl Calls {
    /// Sends a request to the leader.
    pub(super) fn forward(
        &mut self,
        turn: &mut Turn,
        leader: MemberId,
        rpc: Rpc,
        request: ClientRequest,
        deadline: Time,
    ) {
        assert!(leader != turn.settings.member, "who leads does it itself");
        assert!(!turn.epoch_state.may_write(), "only the leader writes, and nobody sends it elsewhere");
        if self.under_way.forwarded() >= turn.settings.bounds.peer.queued_messages_max {
            return self.park(turn, deadline, rpc, request, Requires::Leader, Awaits::Leader);
        }
        let (method, message, reply_to, shard) = match &request {
            ClientRequest::Call(call) => {
                let Some((method, message)) = self.front.message_of(rpc) else { return };
                (method, message, ReplyTo::Rpc(rpc), shard_of(turn, call))
            }
            ClientRequest::KeepAlive(lease) => {
                let message = encode::keep_alive_request(*lease);
                (Method::LeaseKeepAlive, message, ReplyTo::KeepAlive(rpc), ShardId::CONTROL)
            }
            _ => unreachable!("only calls and renewals are the leader's"),
        };
        let bytes = message.len();
        let proposes = matches!(&request, ClientRequest::Call(call) if is_proposal(call));
        let forwarded = Forwarded { leader, request, conn: None, lost: None, superseded: false };
        let forwarded = CallState::Forwarded(Box::new(forwarded));
        let call = self.begin_of(turn, reply_to, forwarded, bytes);
        self.under_way.until(call, deadline);
        if proposes {
            self.under_way.proposes(call);
        }
        turn.counters.paths.forwarded += 1;
        let number = call.number;
        let clock = turn.clock_of(leader).expect("nothing is sent to whom no clock is known of");
        let timeout_ms = deadline.since(turn.now).0 / 1_000_000;
        let call = PeerMessage::Call { number, method: method as u8, clock, timeout_ms, message };
        turn.tell(ToPeers::One(leader), shard, call);
    }

    fn forwarded(&mut self, turn: &Turn, number: u64) -> Option<&mut Forwarded> {
        match &mut self.under_way.get_mut(CallId { reactor: turn.id, number })?.state {
            CallState::Forwarded(forwarded) => Some(forwarded),
            _ => None,
        }
    }

    /// A request is on its way to the leader, by this connection.
    pub fn on_handed_out(&mut self, turn: &Turn, number: u64, conn: ConnId) {
        if let Some(forwarded) = self.forwarded(turn, number) {
            assert!(forwarded.conn.is_none() && forwarded.lost.is_none(), "a request is sent once");
            forwarded.conn = Some(conn);
        }
    }

    /// Answers come by the connection that the question went by. What went by this one may be done still.
    pub fn on_connection_lost(&mut self, turn: &mut Turn, conn: ConnId, theirs: ReactorId) {
        for call in self.under_way.all_mut() {
            match (&mut call.state, call.reply_to) {
                (CallState::Forwarded(of), _) if of.conn == Some(conn) => {
                    (of.conn, of.lost) = (None, Some(LostAt { at: theirs, asked: None }));
                }
                (_, ReplyTo::Member(of)) if of.conn == conn => _ = self.lost_conns.insert(conn),
                _ => {}
            }
        }
        self.lose_superseded(turn);
    }

    /// The other end has answered all that it has taken, and ends.
    pub fn on_leaving(&mut self, turn: &mut Turn, conn: ConnId) {
        let went_by =
            |call: &super::Call| matches!(&call.state, CallState::Forwarded(of) if of.conn == Some(conn));
        let not_taken = self.under_way.all().filter(|(_, call)| went_by(call));
        let not_taken: Vec<u64> = not_taken.map(|(number, _)| number).collect();
        not_taken.into_iter().for_each(|number| self.on_not_taken(turn, number));
    }

    /// Another leader serves than the one that some requests are with.
    pub fn supersede(&mut self, turn: &mut Turn, leader: MemberId) {
        for call in self.under_way.all_mut() {
            if let CallState::Forwarded(of) = &mut call.state {
                of.superseded |= of.leader != leader;
            }
        }
        self.lose_superseded(turn);
    }

    /// Of requests without a connection that was the leader's nobody tells anything any more.
    fn lose_superseded(&mut self, turn: &mut Turn) {
        self.lose(turn, |of| of.superseded && of.lost.is_some());
    }

    /// A member is connected again: what was lost with an earlier connection is asked for.
    pub fn ask_for_lost(&mut self, turn: &mut Turn, conn: ConnId, (member, theirs): (MemberId, ReactorId)) {
        self.lost_asked += 1;
        let number = self.lost_asked;
        let mut any = false;
        for call in self.under_way.all_mut() {
            if let CallState::Forwarded(of) = &mut call.state
                && of.leader == member
                && of.lost.is_some_and(|lost| lost.at == theirs)
            {
                (of.lost, any) = (Some(LostAt { at: theirs, asked: Some(number) }), true);
            }
        }
        if any {
            turn.tell(ToPeers::Asker(conn), ShardId::CONTROL, PeerMessage::CallsLost { number });
        }
    }

    /// A member asks when calls of its, which came by connections that are gone, are over.
    pub fn on_calls_lost(&mut self, turn: &mut Turn, (member, conn): (MemberId, ConnId), number: u64) {
        assert!(member != turn.settings.member, "another member asks for what it has lost");
        assert!(!self.lost_conns.contains(&conn), "it asks by a connection that is there");
        self.lost_calls.retain(|of| of.conn != conn);
        self.lost_calls.push(LostCalls { member, conn, number });
        self.tell_lost_over(turn);
    }

    /// Says so where nothing of them is under way any more.
    pub(super) fn tell_lost_over(&mut self, turn: &mut Turn) {
        if self.lost_calls.is_empty() {
            return;
        }
        let of_lost = self.under_way.all().filter_map(|(_, call)| match call.reply_to {
            ReplyTo::Member(of) if self.lost_conns.contains(&of.conn) => Some((of.member, of.conn)),
            _ => None,
        });
        let of_lost: Vec<(MemberId, ConnId)> = of_lost.collect();
        self.lost_conns.retain(|conn| of_lost.iter().any(|(_, of)| of == conn));
        let is_over = |lost: &mut LostCalls| of_lost.iter().all(|(member, _)| *member != lost.member);
        for LostCalls { conn, number, .. } in self.lost_calls.extract_if(.., is_over) {
            turn.tell(ToPeers::Asker(conn), ShardId::CONTROL, PeerMessage::CallsOver { number });
        }
    }

    /// The leader is through with what was lost before it was asked.
    pub fn on_calls_over(&mut self, turn: &mut Turn, number: u64) {
        self.lose(turn, |of| of.lost.is_some_and(|lost| lost.asked == Some(number)));
    }

    /// The leader was not told, or has refused to take it: it waits for another one.
    pub fn on_not_taken(&mut self, turn: &mut Turn, number: u64) {
        let id = CallId { reactor: turn.id, number };
        let is_forwarded = |call: &super::Call| matches!(call.state, CallState::Forwarded(_));
        if !self.under_way.get(id).is_some_and(is_forwarded) {
            return;
        }
        let Some(call) = self.under_way.remove(id) else { return };
        let (CallState::Forwarded(forwarded), ReplyTo::Rpc(rpc) | ReplyTo::KeepAlive(rpc)) =
            (call.state, call.reply_to)
        else {
            unreachable!("a client's request was forwarded")
        };
        turn.counters.paths.forwarded_anew += 1;
        if self.front.method(rpc).is_some() {
            self.park(turn, call.deadline, rpc, forwarded.request, Requires::Leader, Awaits::Leader);
        }
        if forwarded.superseded {
            self.unpark_leaderless(turn); // The next leader is known, and may be this member.
        }
    }

    /// The leader has answered. The answer waits until this member shows what it shows: whoever has it asks here next.
    pub fn on_forwarded_answer(&mut self, turn: &mut Turn, answer: ForwardedAnswer) {
        if self.has_all(turn, &answer) {
            self.finish_forwarded(turn, answer);
        } else {
            // It is answered, whatever becomes of the leader and of the connection.
            if let Some(forwarded) = self.forwarded(turn, answer.number) {
                (forwarded.conn, forwarded.lost) = (None, None);
            }
            self.unshown_answers.push(answer);
            turn.counters.paths.answer_waited_for_coverage += 1;
        }
    }

    /// Whether this member has what an answer may depend on. A compaction that was asked for with `physical` has
    /// dropped here what it drops.
    fn has_all(&self, turn: &Turn, answer: &ForwardedAnswer) -> bool {
        let is_shown = answer.shows <= turn.shown() && answer.control <= turn.control.index;
        is_shown && turn.is_known_everywhere() && self.drops(turn, answer) <= self.dropped
    }

    fn drops(&self, turn: &Turn, answer: &ForwardedAnswer) -> Revision {
        let call = self.under_way.get(CallId { reactor: turn.id, number: answer.number });
        let Some(CallState::Forwarded(forwarded)) = call.map(|call| &call.state) else {
            return Revision::NONE;
        };
        match &forwarded.request {
            ClientRequest::Call(Request::Compact(compact)) if compact.physical && answer.outcome.is_ok() => {
                Revision(compact.revision.unsigned_abs())
            }
            _ => Revision::NONE,
        }
    }

    /// All reactors here have dropped more history.
    pub fn on_history_dropped(&mut self, turn: &mut Turn, upto: Revision) {
        assert!(upto >= self.dropped, "what is dropped does not come back: {upto} after {}", self.dropped);
        self.dropped = upto;
        self.finish_shown_answers(turn);
    }

    /// More is shown, or known, or dropped.
    pub(super) fn finish_shown_answers(&mut self, turn: &mut Turn) {
        let waiting = std::mem::take(&mut self.unshown_answers);
        let (due, waiting) = waiting.into_iter().partition(|answer| self.has_all(turn, answer));
        self.unshown_answers = waiting;
        let due: Vec<ForwardedAnswer> = due;
        for answer in due {
            self.finish_forwarded(turn, answer);
        }
    }

    /// This member is none any more, and does not get the entry that says so: whoever has asked for its removal is told by
    /// the leader's answer. Other answers would show what is not shown here.
    pub fn answer_removed(&mut self, turn: &mut Turn) {
        for answer in std::mem::take(&mut self.unshown_answers) {
            let asks = |of: &mut Forwarded| {
                matches!(of.request, ClientRequest::Call(Request::MemberRemove { member })
                    if member == turn.settings.member)
            };
            if self.forwarded(turn, answer.number).is_some_and(asks) {
                self.tell(turn, answer.number, answer.outcome);
            }
        }
    }

    fn finish_forwarded(&mut self, turn: &mut Turn, answer: ForwardedAnswer) {
        let ForwardedAnswer { number, shows, control, outcome } = answer;
        let is_shown = shows <= turn.shown() && control <= turn.control.index;
        assert!(is_shown, "an answer shows nothing that this member does not: {shows}, {control}");
        self.tell(turn, number, outcome);
    }

    fn tell(&mut self, turn: &mut Turn, number: u64, outcome: Result<Bytes, CallFailure>) {
        let answer = outcome.map(Reply::Encoded).map_err(|CallFailure { code, text }| {
            let code = Code::ALL.get(usize::from(code)).copied().unwrap_or(Code::Unknown);
            Error::Other { code, text }
        });
        self.finish(turn, CallId { reactor: turn.id, number }, answer);
        self.has_place = true;
    }

    /// The leader has answered, and what has waited for that goes to it.
    pub(super) fn forward_more(&mut self, turn: &mut Turn) {
        if std::mem::take(&mut self.has_place) && turn.epoch_state.follows().is_some() {
            self.unpark_leaderless(turn);
        }
    }

    /// These have an outcome that nobody will tell.
    fn lose(&mut self, turn: &mut Turn, is_lost: impl Fn(&Forwarded) -> bool) {
        let lost = self
            .under_way
            .all()
            .filter(|(_, call)| matches!(&call.state, CallState::Forwarded(forwarded) if is_lost(forwarded)));
        let numbers: Vec<u64> = lost.map(|(number, _)| number).collect();
        for number in numbers {
            turn.counters.paths.forwarded_lost += 1;
            if self.forwarded(turn, number).is_some_and(|of| has_removed(turn, &of.request)) {
                // Who leads no more has left by it, and cannot say so.
                let members = turn.control.members();
                self.finish(turn, CallId { reactor: turn.id, number }, Ok(Reply::MemberList { members }));
                continue;
            }
            self.count_failed(turn, number);
            self.finish(turn, CallId { reactor: turn.id, number }, Err(Error::Timeout));
        }
    }

    /// Another member's client asks this one, which is to lead. The deadline is by this member's clock; none stands in
    /// what was meant for another process.
    pub fn on_forwarded(
        &mut self,
        turn: &mut Turn,
        (member, conn): (MemberId, ConnId),
        number: u64,
        method: u8,
        deadline: Option<Time>,
        message: Bytes,
    ) {
        let of = MemberCall { conn, number, member };
        // Its client may have been told by now that it has timed out, and must not find it done.
        let takes = turn.epoch_state.takes_writes() && !self.front.is_stopping();
        let Some(deadline) = deadline.filter(|until| turn.now < *until && takes) else {
            let refusal = PeerMessage::CallRefused { number };
            turn.counters.paths.forwarded_late += u64::from(takes);
            return turn.tell(ToPeers::Asker(conn), ShardId::CONTROL, refusal);
        };
        let longest = turn.now + turn.settings.request_timeout();
        assert!(deadline <= longest, "nobody waits for longer than a client of this member: {deadline:?}");
        let Some(method) = Method::ALL.get(usize::from(method)).copied() else {
            return self.answer_member(
                turn,
                of,
                Err(Error::UnknownMethod { text: format!("method {method}") }),
            );
        };
        if method == Method::LeaseKeepAlive {
            return match decode::keep_alive(message) {
                Ok(lease) => {
                    let request = ControlRequest::KeepAlive(lease);
                    self.ask_control(turn, ReplyTo::Member(of), request, deadline);
                }
                Err(error) => self.answer_member(turn, of, Err(error)),
            };
        }
        let request = decode::unary(method, &message, turn.settings.txn_ops_max);
        match request.and_then(|request| self.check_forwarded(turn, request, message.len())) {
            Ok(request) => self.route(turn, ReplyTo::Member(of), request, deadline),
            Err(error) => self.answer_member(turn, of, Err(error)),
        }
    }

    pub(super) fn answer_member(&mut self, turn: &mut Turn, of: MemberCall, answer: Answer) {
        let MemberCall { conn, number, member } = of;
        let settings = &turn.settings;
        let header = Header { cluster: settings.cluster, member, raft_term: turn.term() };
        let mut bytes = vec![];
        let revision = answer.as_ref().map_or(Revision::NONE, Reply::revision);
        let control = turn.control.index;
        assert!(revision <= turn.shown(), "a reply shows nothing above what is settled: {revision}");
        let encoded = answer.and_then(|reply| {
            let bytes_max = crate::limits::PEER_MESSAGE_BYTES_MAX / 2;
            encode::reply(&mut bytes, &header, &reply, bytes_max).map_err(|too_long| {
                let text = format!(
                    "grpc: trying to send message larger than max ({} vs. {bytes_max})",
                    too_long.bytes
                );
                Error::Other { code: Code::ResourceExhausted, text }
            })
        });
        let outcome = encoded
            .map(|()| Bytes::from(bytes))
            .map_err(|error| CallFailure { code: error.code() as u8, text: error.to_string() });
        let answer = PeerMessage::Answer { number, revision, control, outcome };
        turn.tell(ToPeers::Asker(conn), ShardId::CONTROL, answer);
    }
}

/// A shard that the request is about, whose owner at the leader is asked if it can be reached from here.
fn shard_of(turn: &Turn, request: &Request) -> ShardId {
    let Some(router) = turn.router.as_ref() else { return ShardId::CONTROL };
    match request {
        Request::Put(put) => router.shard_of(&put.key),
        Request::DeleteRange(delete) => router.shard_of(&delete.key),
        Request::Txn(txn) => txn.first_key().map_or(ShardId::CONTROL, |key| router.shard_of(key)),
        _ => ShardId::CONTROL,
    }
}

/// Whether the request asks for a removal that is done.
fn has_removed(turn: &Turn, request: &ClientRequest) -> bool {
    match request {
        ClientRequest::Call(Request::MemberRemove { member }) => turn.control.is_removed(*member),
        _ => false,
    }
}
