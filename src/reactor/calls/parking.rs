//! Requests that wait before anything is done for them: for a leader, for a round among the members, or for what
//! this member shows to come as far as the round has found.
//!
//! They wait in bounded number, bytes and time, whoever leads meanwhile: an epoch's end is nothing to a request that
//! no evaluation has seen.

use super::door::{ClientRequest, Requires, is_refused_at_learner, shows_control};
use super::{Calls, ReplyTo, Turn};
use crate::api::{Error, Request};
use crate::front::Rpc;
use crate::reactor::gate::Round;
use crate::reactor::requests::is_proposal;
use crate::txn::Counting;
use crate::types::{Index, Revision, Time};

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Something that may be shown at all, and at any reactor.
    Shown,
    /// An epoch that serves, here or at a member that this one can reach.
    Leader,
    Round(Round),
    /// That this member shows the revision, and has the control entry: all reactors do, where that is what is shown.
    State(Revision, Index),
}

#[derive(Debug)]
struct Parked {
    rpc: Rpc,
    request: ClientRequest,
    requires: Requires,
    awaits: Awaits,
    bytes: usize,
    deadline: Time,
}

/// In the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Parking {
    waiting: Vec<Parked>,
    bytes: usize,
}

impl Parking {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Calls {
    pub(super) fn park(
        &mut self,
        turn: &mut Turn,
        deadline: Time,
        rpc: Rpc,
        request: ClientRequest,
        requires: Requires,
        awaits: Awaits,
    ) {
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
        assert!(requires != Requires::Nothing, "what requires nothing waits for nothing");
        self.parking.bytes += bytes;
        turn.counters.paths.call_parked += 1;
        self.parking.waiting.push(Parked { rpc, request, requires, awaits, bytes, deadline });
    }

    /// Places anew what waits for such a thing. A client that has left or waits no longer was told so, and its request
    /// does nothing.
    fn unpark(&mut self, turn: &mut Turn, is_due: impl Fn(&Parked) -> bool) {
        let due: Vec<Parked> = self.parking.waiting.extract_if(.., |parked| is_due(parked)).collect();
        for Parked { rpc, request, requires, awaits, bytes, deadline } in due {
            assert!(bytes <= self.parking.bytes, "what is parked is counted: {bytes}");
            self.parking.bytes -= bytes;
            if !self.front.waits(rpc) {
                continue;
            }
            // What it waited for may have been the news that this member is a learner.
            if is_refused_at_learner(turn, &request) {
                self.refuse(turn, rpc, &request, Error::NotSupportedForLearner);
                continue;
            }
            let range = match awaits {
                Awaits::State(..) => self.admit_if_room(turn, rpc, request, deadline),
                Awaits::Shown | Awaits::Leader | Awaits::Round(_) => {
                    self.place(turn, rpc, request, requires, deadline)
                }
            };
            self.ready.extend(range.map(|range| (ReplyTo::Rpc(rpc), range, Counting::Total)));
        }
        assert!(self.parking.len() > 0 || self.parking.bytes == 0, "what is parked is counted");
    }

    /// Something is shown for the first time.
    pub fn unpark_shown(&mut self, turn: &mut Turn) {
        assert!(turn.epoch_state.may_watch(), "something is shown");
        self.unpark_watches(turn);
        self.unpark(turn, |parked| parked.awaits == Awaits::Shown);
    }

    /// What this reactor has of the control state the others have as well.
    pub fn unpark_known(&mut self, turn: &mut Turn) {
        if turn.epoch_state.may_watch() && turn.router.is_some() {
            self.unpark(turn, |parked| parked.awaits == Awaits::Shown);
        }
        self.unpark_shown_upto(turn);
    }

    /// A leader was found, or one can be reached again.
    pub fn unpark_leaderless(&mut self, turn: &mut Turn) {
        self.unpark(turn, |parked| parked.awaits == Awaits::Leader);
    }

    /// A round that began after these requests had come has found that the leader had settled so much.
    pub(super) fn on_round_is(&mut self, turn: &mut Turn, round: Round, revision: Revision, control: Index) {
        for parked in &mut self.parking.waiting {
            if matches!(parked.awaits, Awaits::Round(waits_for) if waits_for <= round) {
                parked.awaits = Awaits::State(revision, control);
                turn.counters.paths.read_waited_for_coverage += u64::from(revision > turn.shown());
            }
        }
        self.unpark_shown_upto(turn);
    }

    /// More is shown, or known.
    pub fn unpark_shown_upto(&mut self, turn: &mut Turn) {
        self.finish_shown_answers(turn);
        let (shown, known, is_everywhere) = (turn.shown(), turn.control.index, turn.is_known_everywhere());
        let is_due = |parked: &Parked| match parked.awaits {
            Awaits::State(revision, control) => {
                let may_show = is_everywhere || !shows_control(&parked.request);
                revision <= shown && control <= known && may_show
            }
            _ => false,
        };
        if turn.router.is_some() && self.parking.waiting.iter().any(is_due) {
            self.unpark(turn, is_due);
        }
    }

    /// Fails what was parked for too long, with what etcd says of it: a write was never proposed.
    pub(super) fn expire_parked(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let late: Vec<Parked> =
            self.parking.waiting.extract_if(.., |parked| parked.deadline <= now).collect();
        for Parked { rpc, request, requires, bytes, .. } in late {
            assert!(bytes <= self.parking.bytes, "what is parked is counted: {bytes}");
            self.parking.bytes -= bytes;
            let is_range =
                matches!(request, ClientRequest::Call(Request::Range(_)) | ClientRequest::RangeStream(_));
            let is_proposal = matches!(&request, ClientRequest::Call(call) if is_proposal(call));
            turn.counters.ranges_failed += u64::from(is_range);
            turn.counters.proposals_failed += u64::from(is_proposal);
            turn.counters.rounds_late += u64::from(requires == Requires::Latest);
            let error = match (&request, requires) {
                _ if turn.is_alone() => Error::Timeout,
                (ClientRequest::KeepAlive(_), _) => Error::NoLeader,
                (ClientRequest::Call(Request::LeaseTimeToLive { .. }), _) => Error::NoLeader,
                (ClientRequest::Call(Request::MemberPromote { .. }), _) => Error::NoLeader,
                // To etcd it is a read, which goes through no log.
                (ClientRequest::Call(Request::Txn(txn)), _) if txn.is_read_only() => Error::Timeout,
                (_, Requires::Leader) => Error::NotProposed,
                _ => Error::Timeout,
            };
            self.refuse(turn, rpc, &request, error);
        }
    }
}

/// What a request takes beside its keys and values.
const PARKED_FIXED_BYTES: usize = 128;
