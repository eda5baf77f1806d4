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

use super::{Asker, Calls, Turn};
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
pub(super) enum Errand {
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
fn rule(turn: &Turn, errand: &Errand) -> Result<Requires, Error> {
    let request = match errand {
        Errand::Call(request) => request,
        Errand::RangeStream(range) => return txn::check_stream(range).map(|()| Requires::Reads),
        Errand::KeepAlive(_) => return Ok(Requires::Writes), // the leader alone renews leases
        Errand::Watch(_) => return Ok(Requires::Shown),
        Errand::HealthWatch(_) | Errand::Page(_) => return Ok(Requires::Nothing),
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
    errand: Errand,
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
        errand: Errand,
        bytes: usize,
    ) -> Option<RangeRequest> {
        if caller.requires_leader && turn.epoch_state.has_lost_leader() && !self.is_open(rpc, &errand) {
            self.refuse_unchecked(turn, rpc, &errand, Error::NoLeader);
            return None;
        }
        let requires = match rule(turn, &errand) {
            Ok(requires) => requires,
            Err(error) => {
                self.refuse_unchecked(turn, rpc, &errand, error);
                return None;
            }
        };
        if is_too_large(turn, &errand, bytes) {
            self.refuse(turn, rpc, &errand, Error::RequestTooLarge);
            return None;
        }
        if let Errand::KeepAlive(_) = errand {
            self.expect_renewal(turn, rpc);
        }
        if !requires.is_met(&turn.epoch_state) {
            self.park(turn, rpc, errand);
            None
        } else if requires == Requires::Nothing {
            self.admit(turn, rpc, errand)
        } else {
            self.admit_if_room(turn, rpc, errand)
        }
    }

    /// Whether a message comes on a stream that was let in before: etcd asks for a leader only where a stream
    /// begins, and ends one that goes on without later ([`Calls::end_leaderless`]).
    fn is_open(&self, rpc: Rpc, errand: &Errand) -> bool {
        match errand {
            Errand::Watch(_) => self.watches.has(rpc),
            Errand::KeepAlive(_) => self.keeps_alive(rpc),
            Errand::Call(_) | Errand::RangeStream(_) | Errand::HealthWatch(_) | Errand::Page(_) => false,
        }
    }

    fn admit_if_room(&mut self, turn: &mut Turn, rpc: Rpc, errand: Errand) -> Option<RangeRequest> {
        let is_full = self.under_way.bytes > turn.settings.bounds.calls_bytes_max;
        if is_full && matches!(errand, Errand::Call(_)) {
            turn.counters.paths.refused_bytes += 1;
            self.refuse(turn, rpc, &errand, Error::TooManyRequests);
            return None;
        }
        self.admit(turn, rpc, errand)
    }

    fn admit(&mut self, turn: &mut Turn, rpc: Rpc, errand: Errand) -> Option<RangeRequest> {
        match errand {
            Errand::Call(Request::Range(range)) => return Some(range),
            Errand::Call(request) => self.route(turn, Asker::Rpc(rpc), request),
            Errand::RangeStream(range) => self.begin_range_stream(turn, rpc, range),
            Errand::KeepAlive(lease) => {
                self.ask_control(turn, Asker::KeepAlive(rpc), ControlRequest::KeepAlive(lease));
            }
            Errand::Watch(request) => self.watch(turn, rpc, request),
            Errand::HealthWatch(service) => self.watch_health(rpc, &service),
            Errand::Page(page) => self.open_page(turn, rpc, page),
        }
        None
    }

    /// Refuses what etcd refuses before its handlers see it: how long that took counts nowhere.
    fn refuse_unchecked(&mut self, turn: &mut Turn, rpc: Rpc, errand: &Errand, error: Error) {
        if let Errand::Call(_) = errand {
            self.front.forget_duration(rpc);
        }
        self.refuse(turn, rpc, errand, error);
    }

    fn refuse(&mut self, turn: &mut Turn, rpc: Rpc, errand: &Errand, error: Error) {
        match errand {
            Errand::Call(_) => self.answer_rpc(turn, rpc, Err(error)),
            Errand::RangeStream(_) | Errand::KeepAlive(_) | Errand::Watch(_) | Errand::HealthWatch(_) => {
                self.end_stream(turn, rpc, error);
            }
            Errand::Page(_) => unreachable!("a page requires nothing, and is checked for nothing"),
        }
    }

    /// Holds what arrives during a takeover, for as long as any request may take.
    fn park(&mut self, turn: &mut Turn, rpc: Rpc, errand: Errand) {
        assert!(!turn.epoch_state.may_write(), "nothing is parked while an epoch serves");
        let errand = match errand {
            Errand::Watch(request) => return self.park_watch(turn, rpc, request),
            errand => errand,
        };
        let bytes = match &errand {
            Errand::Call(request) => request.bytes(),
            Errand::RangeStream(range) => range.key.len() + range.range_end.len(),
            Errand::KeepAlive(_) | Errand::Watch(_) | Errand::HealthWatch(_) | Errand::Page(_) => 0,
        };
        let (bytes, bounds) = (PARKED_FIXED_BYTES + bytes, &turn.settings.bounds);
        let is_full = self.parking.len() >= bounds.parked_calls_max;
        if is_full || self.parking.bytes + bytes > bounds.parked_bytes_max {
            turn.counters.paths.refused_parked += 1;
            return self.refuse(turn, rpc, &errand, Error::TooManyRequests);
        }
        let deadline = turn.now + turn.settings.request_timeout();
        self.parking.bytes += bytes;
        turn.counters.paths.call_parked += 1;
        self.parking.waiting.push_back(Parked { rpc, errand, bytes, deadline });
    }

    /// An epoch serves: what was parked is let in.
    pub(super) fn unpark_calls(&mut self, turn: &mut Turn) {
        assert!(turn.epoch_state.may_write(), "what was parked begins when an epoch serves");
        let Parking { waiting, bytes } = std::mem::take(&mut self.parking);
        let counted: usize = waiting.iter().map(|parked| parked.bytes).sum();
        assert!(counted == bytes, "what is parked is counted: {counted} of {bytes}");
        for Parked { rpc, errand, .. } in waiting {
            // A client that has left or waits no longer was told so, and its request does nothing.
            if self.front.method(rpc).is_some() {
                let range = self.admit_if_room(turn, rpc, errand);
                self.ready.extend(range.map(|range| (Asker::Rpc(rpc), range, Counting::Total)));
            }
        }
    }

    /// Fails what was parked for too long.
    pub(super) fn expire_parked(&mut self, turn: &mut Turn) {
        while let Some(parked) = self.parking.waiting.pop_front_if(|parked| parked.deadline <= turn.now) {
            let Parked { rpc, errand, bytes, .. } = parked;
            assert!(bytes <= self.parking.bytes, "what is parked is counted: {bytes}");
            self.parking.bytes -= bytes;
            let is_range = matches!(errand, Errand::Call(Request::Range(_)) | Errand::RangeStream(_));
            turn.counters.ranges_failed += u64::from(is_range);
            self.refuse(turn, rpc, &errand, Error::Timeout);
        }
    }
}

fn is_too_large(turn: &Turn, errand: &Errand, bytes: usize) -> bool {
    let length_bytes = (usize::BITS - (bytes | 1).leading_zeros()).div_ceil(7) as usize;
    let logged = bytes + length_bytes + REQUEST_ENVELOPE_BYTES;
    logged > turn.settings.request_bytes_max && matches!(errand, Errand::Call(request) if is_write(request))
}

/// What a request takes beside its keys and values.
const PARKED_FIXED_BYTES: usize = 128;
