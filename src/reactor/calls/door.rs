//! The one door: whatever a client asks comes by here before anything is done for it.
//!
//! **The question.** Who asks, and for what? May it be done here, and is it time?
//!
//! **The rule.** [`Calls::enter`] looks at a request in etcd's order: whether its caller requires a leader and
//! there is none, whether the request makes sense, whether the log may take it. Such a request is refused with
//! etcd's error, whatever else would become of it. Then: whether what it requires of this member is there, or it
//! is parked until an epoch serves, in bounded number, bytes and time; and whether the calls under way leave room
//! for it. What a request is checked for and what it requires stands in one place ([`rule`]), and a kind without a
//! rule does not compile.
//!
//! **Why not otherwise.** A check beside every handler is one that the next handler lacks: a request that came in
//! by another way would be done for a user who may not ask for it.

use super::{Calls, ReplyTo, Turn};
use crate::api::{Error, RangeRequest, Request, WatchRequest};
use crate::front::{Caller, Rpc};
use crate::io::ControlRequest;
use crate::limits::REQUEST_ENVELOPE_BYTES;
use crate::reactor::epoch_state::EpochState;
use crate::reactor::requests::is_write;
use crate::txn::{self, Counting};
use crate::types::{LeaseId, Time};
use crate::wire::health::Page;
use std::collections::VecDeque;

/// What a client asks for: a call, or one message of a stream.
#[derive(Debug)]
pub(super) enum ClientRequest {
    Call(Request),
    RangeStream(RangeRequest),
    KeepAlive(LeaseId),
    Watch(WatchRequest),
    HealthWatch(String),
    Page(Page),
}

/// What a request requires of this member. Without it, it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requires {
    /// The process answers, whoever leads.
    Nothing,
    /// The member has shown something. Before the first takeover nobody knows what was shown before the start.
    Shown,
    Reads,
    Writes,
}

impl Requires {
    fn is_met(self, epoch_state: &EpochState) -> bool {
        match self {
            Requires::Nothing => true,
            Requires::Shown => epoch_state.may_watch(),
            Requires::Reads => epoch_state.may_read(),
            Requires::Writes => epoch_state.may_write(),
        }
    }
}

/// Says what a request requires, or what is wrong with it at any time.
fn rule(turn: &Turn, request: &ClientRequest) -> Result<Requires, Error> {
    let request = match request {
        ClientRequest::Call(request) => request,
        ClientRequest::RangeStream(range) => return txn::check_stream(range).map(|()| Requires::Reads),
        ClientRequest::KeepAlive(_) => return Ok(Requires::Writes), // the leader alone renews leases
        ClientRequest::Watch(_) => return Ok(Requires::Shown),
        ClientRequest::HealthWatch(_) | ClientRequest::Page(_) => return Ok(Requires::Nothing),
    };
    match request {
        Request::Range(range) => txn::check_range(range).map(|()| Requires::Reads),
        Request::Put(put) => txn::check_put(put).map(|()| Requires::Writes),
        Request::DeleteRange(delete) => txn::check_delete(delete).map(|()| Requires::Writes),
        Request::Txn(txn) => {
            let requires = if txn.is_read_only() { Requires::Reads } else { Requires::Writes };
            txn::check_txn(txn, turn.settings.txn_ops_max).map(|()| requires)
        }
        Request::Compact(_) | Request::LeaseGrant(_) | Request::LeaseRevoke(_) => Ok(Requires::Writes),
        // Etcd's log takes an alarm that is only asked for as well.
        Request::Alarm(_) | Request::MoveLeader { .. } => Ok(Requires::Writes),
        Request::LeaseTimeToLive { .. } | Request::LeaseLeases | Request::MemberList { .. } => {
            Ok(Requires::Reads)
        }
        Request::AuthStatus | Request::UserList | Request::RoleList => Ok(Requires::Reads),
        Request::Defragment | Request::Hash | Request::HashKv { .. } => Ok(Requires::Reads),
        // Monitors ask for it above all while nobody leads.
        Request::Status => Ok(Requires::Shown),
        Request::HealthCheck { .. } | Request::HealthList => Ok(Requires::Nothing),
    }
}

/// What arrived during a takeover: begun once that is done.
#[derive(Debug)]
struct Parked {
    rpc: Rpc,
    request: ClientRequest,
    bytes: usize,
    deadline: Time,
}

/// The requests that wait for a takeover, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Parking {
    waiting: VecDeque<Parked>,
    bytes: usize,
}

impl Parking {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Calls {
    /// A client asks. The message of its request had so many bytes. Returns the range that it is, if it is one and
    /// may be read now.
    pub(super) fn enter(
        &mut self,
        turn: &mut Turn,
        (rpc, caller): (Rpc, Caller),
        request: ClientRequest,
        bytes: usize,
    ) -> Option<RangeRequest> {
        if caller.requires_leader && turn.epoch_state.has_lost_leader() && !self.is_open(rpc, &request) {
            self.refuse_unchecked(turn, rpc, &request, Error::NoLeader);
            return None;
        }
        let requires = match rule(turn, &request) {
            Ok(requires) => requires,
            Err(error) => {
                self.refuse_unchecked(turn, rpc, &request, error);
                return None;
            }
        };
        if is_too_large(turn, &request, bytes) {
            self.refuse(turn, rpc, &request, Error::RequestTooLarge);
            return None;
        }
        if let ClientRequest::KeepAlive(_) = request {
            self.expect_renewal(turn, rpc);
        }
        if !requires.is_met(&turn.epoch_state) {
            self.park(turn, rpc, request);
            None
        } else if requires == Requires::Nothing {
            self.admit(turn, rpc, request)
        } else {
            self.admit_if_room(turn, rpc, request)
        }
    }

    /// Whether a message comes on a stream that was let in before: etcd asks for a leader only where a stream
    /// begins, and ends one that goes on without later ([`Calls::end_leaderless`]).
    fn is_open(&self, rpc: Rpc, request: &ClientRequest) -> bool {
        match request {
            ClientRequest::Watch(_) => self.watches.has(rpc),
            ClientRequest::KeepAlive(_) => self.keeps_alive(rpc),
            ClientRequest::Call(_)
            | ClientRequest::RangeStream(_)
            | ClientRequest::HealthWatch(_)
            | ClientRequest::Page(_) => false,
        }
    }

    fn admit_if_room(&mut self, turn: &mut Turn, rpc: Rpc, request: ClientRequest) -> Option<RangeRequest> {
        let is_full = self.under_way.bytes > turn.settings.bounds.calls_bytes_max;
        if is_full && matches!(request, ClientRequest::Call(_)) {
            turn.counters.paths.refused_bytes += 1;
            self.refuse(turn, rpc, &request, Error::TooManyRequests);
            return None;
        }
        self.admit(turn, rpc, request)
    }

    fn admit(&mut self, turn: &mut Turn, rpc: Rpc, request: ClientRequest) -> Option<RangeRequest> {
        match request {
            ClientRequest::Call(Request::Range(range)) => return Some(range),
            ClientRequest::Call(request) => self.route(turn, ReplyTo::Rpc(rpc), request),
            ClientRequest::RangeStream(range) => self.begin_range_stream(turn, rpc, range),
            ClientRequest::KeepAlive(lease) => {
                self.ask_control(turn, ReplyTo::KeepAlive(rpc), ControlRequest::KeepAlive(lease));
            }
            ClientRequest::Watch(request) => self.watch(turn, rpc, request),
            ClientRequest::HealthWatch(service) => self.watch_health(rpc, &service),
            ClientRequest::Page(page) => self.open_page(turn, rpc, page),
        }
        None
    }

    /// Refuses what etcd refuses before its handlers see it: how long that took counts nowhere.
    fn refuse_unchecked(&mut self, turn: &mut Turn, rpc: Rpc, request: &ClientRequest, error: Error) {
        if let ClientRequest::Call(_) = request {
            self.front.forget_duration(rpc);
        }
        self.refuse(turn, rpc, request, error);
    }

    fn refuse(&mut self, turn: &mut Turn, rpc: Rpc, request: &ClientRequest, error: Error) {
        match request {
            ClientRequest::Call(_) => self.answer_rpc(turn, rpc, Err(error)),
            ClientRequest::RangeStream(_)
            | ClientRequest::KeepAlive(_)
            | ClientRequest::Watch(_)
            | ClientRequest::HealthWatch(_) => {
                self.end_stream(turn, rpc, error);
            }
            ClientRequest::Page(_) => unreachable!("a page requires nothing, and is checked for nothing"),
        }
    }

    /// Holds what arrives during a takeover, for as long as any request may take.
    fn park(&mut self, turn: &mut Turn, rpc: Rpc, request: ClientRequest) {
        assert!(!turn.epoch_state.may_write(), "nothing is parked while an epoch serves");
        let request = match request {
            ClientRequest::Watch(request) => return self.park_watch(turn, rpc, request),
            request => request,
        };
        let bytes = match &request {
            ClientRequest::Call(request) => request.bytes(),
            ClientRequest::RangeStream(range) => range.key.len() + range.range_end.len(),
            ClientRequest::KeepAlive(_)
            | ClientRequest::Watch(_)
            | ClientRequest::HealthWatch(_)
            | ClientRequest::Page(_) => 0,
        };
        let (bytes, bounds) = (PARKED_FIXED_BYTES + bytes, &turn.settings.bounds);
        let is_full = self.parking.len() >= bounds.parked_calls_max;
        if is_full || self.parking.bytes + bytes > bounds.parked_bytes_max {
            turn.counters.paths.refused_parked += 1;
            return self.refuse(turn, rpc, &request, Error::TooManyRequests);
        }
        let deadline = turn.now + turn.settings.request_timeout();
        self.parking.bytes += bytes;
        turn.counters.paths.call_parked += 1;
        self.parking.waiting.push_back(Parked { rpc, request, bytes, deadline });
    }

    /// An epoch serves: what was parked is let in.
    pub(super) fn unpark_calls(&mut self, turn: &mut Turn) {
        assert!(turn.epoch_state.may_write(), "what was parked begins when an epoch serves");
        let Parking { waiting, bytes } = std::mem::take(&mut self.parking);
        let counted: usize = waiting.iter().map(|parked| parked.bytes).sum();
        assert!(counted == bytes, "what is parked is counted: {counted} of {bytes}");
        for Parked { rpc, request, .. } in waiting {
            // A client that has left or waits no longer was told so, and its request does nothing.
            if self.front.method(rpc).is_some() {
                let range = self.admit_if_room(turn, rpc, request);
                self.ready.extend(range.map(|range| (ReplyTo::Rpc(rpc), range, Counting::Total)));
            }
        }
    }

    /// Fails what was parked for too long.
    pub(super) fn expire_parked(&mut self, turn: &mut Turn) {
        while let Some(parked) = self.parking.waiting.pop_front_if(|parked| parked.deadline <= turn.now) {
            let Parked { rpc, request, bytes, .. } = parked;
            assert!(bytes <= self.parking.bytes, "what is parked is counted: {bytes}");
            self.parking.bytes -= bytes;
            let is_range =
                matches!(request, ClientRequest::Call(Request::Range(_)) | ClientRequest::RangeStream(_));
            turn.counters.ranges_failed += u64::from(is_range);
            self.refuse(turn, rpc, &request, Error::Timeout);
        }
    }
}

fn is_too_large(turn: &Turn, request: &ClientRequest, bytes: usize) -> bool {
    let length_bytes = (usize::BITS - (bytes | 1).leading_zeros()).div_ceil(7) as usize;
    let logged = bytes + length_bytes + REQUEST_ENVELOPE_BYTES;
    logged > turn.settings.request_bytes_max
        && matches!(request, ClientRequest::Call(request) if is_write(request))
}

/// What a request takes beside its keys and values.
const PARKED_FIXED_BYTES: usize = 128;
