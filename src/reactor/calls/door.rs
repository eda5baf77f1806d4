//! The one door: whatever a client asks comes by here before anything is done for it.
//!
//! **The question.** Who asks, and for what? May it be done here, and is it time?
//!
//! **The rule.** [`Calls::enter`] looks at a request in etcd's order: whether this member is a learner, which serves
//! next to nothing ([`is_refused_at_learner`]), whether its caller requires a leader and there is none, whether the
//! request makes sense, whether the log may take it. Such a request is refused with etcd's error, whatever else would
//! become of it. Then: whether what it requires of this member is there, or it is parked until an epoch serves, in
//! bounded number, bytes and time; and whether the calls under way leave room for it. What a request is checked for and what it requires stands in one place ([`rule`]), and a kind without a
//! rule does not compile.
//!
//! **Why not otherwise.** A check beside every handler is one that the next handler lacks: a request that came in
//! by another way would be done for a user who may not ask for it.

use super::parking::Awaits;
use super::{Calls, ReplyTo, Turn};
use crate::api::{self, Error, RangeRequest, Request, WatchRequest};
use crate::front::{Caller, Rpc};
use crate::io::ControlRequest;
use crate::limits::REQUEST_ENVELOPE_BYTES;
use crate::reactor::requests::is_write;
use crate::txn;
use crate::types::{LeaseId, Time};
use crate::wire::health::Page;

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

/// What a request requires. Without it, it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requires {
    /// The process answers, whoever leads.
    Nothing,
    /// The member has shown something. Before it has taken over or followed nobody knows what was shown before the
    /// start. What shows the control state shows what all reactors have of it.
    Shown,
    /// It is answered from what this member holds, once a majority has confirmed that this is the newest.
    Latest,
    /// The leader does it, wherever the client has asked.
    Leader,
}

/// Says what a request requires, or what is wrong with it at any time.
fn rule(turn: &Turn, request: &ClientRequest) -> Result<Requires, Error> {
    let request = match request {
        ClientRequest::Call(request) => request,
        ClientRequest::RangeStream(range) => return txn::check_stream(range).map(|()| latest(range)),
        ClientRequest::KeepAlive(_) => return Ok(Requires::Leader), // it alone renews leases
        ClientRequest::Watch(_) => return Ok(Requires::Shown),
        // A lone member has nobody to ask, and without a leader the page says so at once.
        ClientRequest::Page(page) if page.reads_latest() && !turn.is_alone() => {
            let asks = turn.epoch_state.knows_leader();
            return Ok(if asks { Requires::Latest } else { Requires::Nothing });
        }
        ClientRequest::HealthWatch(_) | ClientRequest::Page(_) => return Ok(Requires::Nothing),
    };
    match request {
        Request::Range(range) => txn::check_range(range).map(|()| latest(range)),
        Request::Put(put) => txn::check_put(put).map(|()| Requires::Leader),
        Request::DeleteRange(delete) => txn::check_delete(delete).map(|()| Requires::Leader),
        Request::Txn(txn) => {
            let reads_here = !turn.is_alone() && txn.is_serializable();
            let requires = if reads_here { Requires::Shown } else { Requires::Leader };
            txn::check_txn(txn, turn.settings.txn_ops_max).map(|()| requires)
        }
        Request::Compact(_) | Request::LeaseGrant(_) | Request::LeaseRevoke(_) => Ok(Requires::Leader),
        // Etcd's log takes an alarm that is only asked for as well.
        Request::Alarm(_) | Request::LeaseTimeToLive { .. } => Ok(Requires::Leader),
        Request::MemberAdd { peer_urls, .. } => {
            api::peer_urls(peer_urls)?;
            // Who knows no leader is connected with too few, to etcd at once.
            let is_cut_off = !turn.is_alone() && !turn.epoch_state.knows_leader();
            if is_cut_off { Err(Error::Unhealthy) } else { Ok(Requires::Leader) }
        }
        // Whether a URL may be is said by who knows whether the member is there.
        Request::MemberRemove { .. } | Request::MemberUpdate { .. } => Ok(Requires::Leader),
        Request::MemberPromote { .. } => Ok(Requires::Leader),
        Request::AuthStatus | Request::UserList | Request::RoleList => Ok(Requires::Leader),
        // Only who leads can hand over, and the others say so whoever is named.
        Request::MoveLeader { .. } if turn.epoch_state.leads() => Ok(Requires::Nothing),
        Request::MoveLeader { .. } if turn.is_alone() => Ok(Requires::Leader),
        Request::MoveLeader { .. } => Err(Error::NotLeader),
        Request::MemberList { linearizable: true } => Ok(Requires::Latest),
        Request::MemberList { linearizable: false } | Request::LeaseLeases => Ok(of_member(turn)),
        Request::Defragment | Request::Hash | Request::HashKv { .. } => Ok(of_member(turn)),
        // Monitors ask for it above all while nobody leads.
        Request::Status => Ok(Requires::Shown),
        Request::HealthCheck { .. } | Request::HealthList => Ok(Requires::Nothing),
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
        if is_refused_at_learner(turn, &request) {
            self.refuse_unchecked(turn, rpc, &request, Error::NotSupportedForLearner);
            return None;
        }
        if caller.requires_leader && !self.is_open(rpc, &request) {
            if self.refuses_leaderless(turn) {
                self.refuse_unchecked(turn, rpc, &request, Error::NoLeader);
                return None;
            }
            if matches!(request, ClientRequest::Watch(_) | ClientRequest::KeepAlive(_)) {
                self.let_in_requiring_leader(turn, rpc);
            }
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
        let deadline = turn.now + turn.settings.request_timeout();
        self.place(turn, rpc, request, requires, deadline)
    }

    /// Lets a request in, sends it to the leader, or has it wait for what it requires.
    pub(super) fn place(
        &mut self,
        turn: &mut Turn,
        rpc: Rpc,
        request: ClientRequest,
        requires: Requires,
        deadline: Time,
    ) -> Option<RangeRequest> {
        let state = &turn.epoch_state;
        let is_everywhere = !shows_control(&request) || turn.is_known_everywhere();
        let awaits = match requires {
            Requires::Nothing => return self.admit(turn, rpc, request, deadline),
            Requires::Shown if state.may_watch() && turn.router.is_some() && is_everywhere => {
                return self.admit_if_room(turn, rpc, request, deadline);
            }
            Requires::Shown => Awaits::Shown,
            Requires::Latest if state.may_read() && turn.is_alone() => {
                return self.admit_if_room(turn, rpc, request, deadline);
            }
            Requires::Latest if turn.is_alone() => Awaits::Leader,
            Requires::Latest => Awaits::Round(turn.gate.join_round()),
            Requires::Leader if state.takes_writes() => {
                return self.admit_if_room(turn, rpc, request, deadline);
            }
            Requires::Leader => match state.follows().filter(|leader| turn.clock_of(*leader).is_some()) {
                Some(leader) => {
                    self.forward(turn, leader, rpc, request, deadline);
                    return None;
                }
                None => Awaits::Leader,
            },
        };
        self.park(turn, deadline, rpc, request, requires, awaits);
        None
    }

    /// What of the checks of a client's request concerns its leader, where another member has sent it.
    pub(super) fn check_forwarded(
        &self,
        turn: &Turn,
        request: Request,
        bytes: usize,
    ) -> Result<Request, Error> {
        let request = ClientRequest::Call(request);
        let requires = rule(turn, &request)?;
        if is_too_large(turn, &request, bytes) {
            return Err(Error::RequestTooLarge);
        }
        match request {
            ClientRequest::Call(request) if requires == Requires::Leader => Ok(request),
            _ => Err(Error::NotLeader),
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

    pub(super) fn admit_if_room(
        &mut self,
        turn: &mut Turn,
        rpc: Rpc,
        request: ClientRequest,
        deadline: Time,
    ) -> Option<RangeRequest> {
        let is_full = self.under_way.bytes > turn.settings.bounds.calls_bytes_max;
        if is_full && matches!(request, ClientRequest::Call(_)) {
            turn.counters.paths.refused_bytes += 1;
            self.refuse(turn, rpc, &request, Error::TooManyRequests);
            return None;
        }
        self.admit(turn, rpc, request, deadline)
    }

    fn admit(
        &mut self,
        turn: &mut Turn,
        rpc: Rpc,
        request: ClientRequest,
        deadline: Time,
    ) -> Option<RangeRequest> {
        match request {
            ClientRequest::Call(Request::Range(range)) => return Some(range),
            ClientRequest::Call(request) => self.route(turn, ReplyTo::Rpc(rpc), request, deadline),
            ClientRequest::RangeStream(range) => self.begin_range_stream(turn, rpc, range),
            ClientRequest::KeepAlive(lease) => {
                let request = ControlRequest::KeepAlive(lease);
                self.ask_control(turn, ReplyTo::KeepAlive(rpc), request, deadline);
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

    pub(super) fn refuse(&mut self, turn: &mut Turn, rpc: Rpc, request: &ClientRequest, error: Error) {
        match request {
            ClientRequest::Call(_) => self.answer_rpc(turn, rpc, Err(error)),
            ClientRequest::RangeStream(_)
            | ClientRequest::KeepAlive(_)
            | ClientRequest::Watch(_)
            | ClientRequest::HealthWatch(_) => {
                self.end_stream(turn, rpc, error);
            }
            ClientRequest::Page(page) => self.show_checks(turn, rpc, page, Err(error)),
        }
    }
}

/// Whether the answer shows this reactor's copy of the control state. (What is compacted shows in any read, and is so at
/// all reactors or at none.)
pub(super) fn shows_control(request: &ClientRequest) -> bool {
    matches!(
        request,
        ClientRequest::Call(Request::LeaseLeases | Request::MemberList { .. } | Request::Status)
    )
}

/// Whether this member has been added to learn, and was not promoted yet. One that goes on alone votes.
pub(super) fn is_learner(turn: &Turn) -> bool {
    !*turn.is_to_be_alone && turn.control.member(turn.settings.member).is_some_and(|member| member.is_learner)
}

/// What a learner does not serve: its clients are to ask another member (etcd's law, which knows a snapshot as the one
/// stream that it does serve).
pub(super) fn is_refused_at_learner(turn: &Turn, request: &ClientRequest) -> bool {
    let is_served = match request {
        ClientRequest::Call(Request::Range(range)) => range.serializable,
        ClientRequest::Call(request) => matches!(request, Request::Status),
        ClientRequest::Page(_) => true,
        ClientRequest::RangeStream(_)
        | ClientRequest::KeepAlive(_)
        | ClientRequest::Watch(_)
        | ClientRequest::HealthWatch(_) => false,
    };
    !is_served && is_learner(turn)
}

/// A range that need not be the newest is answered from what the member shows.
fn latest(range: &RangeRequest) -> Requires {
    if range.serializable { Requires::Shown } else { Requires::Latest }
}

/// What each member answers for itself. One that is alone has what it shows while it leads.
fn of_member(turn: &Turn) -> Requires {
    if turn.is_alone() { Requires::Latest } else { Requires::Shown }
}

fn is_too_large(turn: &Turn, request: &ClientRequest, bytes: usize) -> bool {
    let length_bytes = (usize::BITS - (bytes | 1).leading_zeros()).div_ceil(7) as usize;
    let logged = bytes + length_bytes + REQUEST_ENVELOPE_BYTES;
    logged > turn.settings.request_bytes_max
        && matches!(request, ClientRequest::Call(request) if is_write(request))
}
