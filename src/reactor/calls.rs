//! Requests under way at the reactor of their client: where each goes, and how its answer comes back.

use super::reads::Reading;
use super::txns::Spread;
use super::writes::is_write;
use super::{Reactor, Stage};
use crate::api::{Answer, Code, Error, RangeRequest, Reply, Request, ServingStatus, TxnRequest};
use crate::front::Rpc;
use crate::io::{Body, CallId, ControlRequest};
use crate::limits::REQUEST_ENVELOPE_BYTES;
use crate::stdx::HashMap;
use crate::txn;
use crate::types::{Duration, LeaseId, ReactorId, Revision, ShardId, Time};
use crate::wire::http1::Response;
use std::collections::VecDeque;

/// Who wants the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Rpc(Rpc),
    /// One renewal of a stream.
    KeepAlive(Rpc),
    /// A RangeStream that has not begun.
    RangeStream(Rpc),
    /// One chunk of a stream.
    Chunk(Rpc),
    /// A call of another reactor, of which this one is a part.
    Call(CallId),
    /// A page of HTTP/1.
    Page(Rpc),
    /// The lead itself: a lease has expired.
    Expiry(LeaseId),
    /// The lead itself: it compacts to this revision, begun then.
    Compactor(Revision, Time),
}

/// How far a call has come.
#[derive(Debug)]
pub(super) enum Course {
    /// One answer settles it.
    Waiting,
    Reading(Box<Reading>),
    Spread(Box<Spread>),
    Gathering(Box<super::census::Gathering>),
    Hashing(Box<super::hashes::Hashing>),
}

impl Asker {
    /// Whether the lead itself asks: it asks little, and many may wait for what it does.
    pub fn is_own(self) -> bool {
        matches!(self, Asker::Expiry(_) | Asker::Compactor(..))
    }
}

impl Course {
    /// Whether the end of an epoch is nothing to it.
    fn outlives_epochs(&self) -> bool {
        matches!(self, Course::Gathering(gathering) if gathering.is_census())
    }
}

#[derive(Debug)]
pub(super) struct Call {
    pub asker: Asker,
    pub course: Course,
    pub begun: Time,
    deadline: Time,
    /// What its request holds in memory, here or where it waits.
    bytes: usize,
    /// Whether it goes through the log.
    proposes: bool,
}

/// What arrived during a takeover: begun once that is done.
#[derive(Debug)]
struct Parked {
    asker: Asker,
    errand: Errand,
    bytes: usize,
    deadline: Time,
}

/// What waits for a takeover.
#[derive(Debug)]
pub(super) enum Errand {
    Call(Request),
    KeepAlive(LeaseId),
    RangeStream(Rpc, RangeRequest),
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    under_way: HashMap<u64, Call>,
    /// The sum over those.
    bytes: usize,
    /// Those that go through the log.
    proposals: usize,
    made: u64,
    parked: VecDeque<Parked>,
    parked_bytes: usize,
}

impl Calls {
    pub fn get_mut(&mut self, call: CallId) -> Option<&mut Call> {
        self.under_way.get_mut(&call.number)
    }

    pub fn get(&self, call: CallId) -> Option<&Call> {
        self.under_way.get(&call.number)
    }

    pub fn remove(&mut self, call: CallId) -> Option<Call> {
        let removed = self.under_way.remove(&call.number)?;
        self.bytes -= removed.bytes;
        self.proposals -= usize::from(removed.proposes);
        Some(removed)
    }

    /// The call goes through the log.
    pub fn proposes(&mut self, call: CallId) {
        if let Some(call) = self.under_way.get_mut(&call.number)
            && !std::mem::replace(&mut call.proposes, true)
        {
            self.proposals += 1;
        }
    }

    pub fn proposals(&self) -> usize {
        self.proposals
    }

    pub fn len(&self) -> usize {
        self.under_way.len() + self.parked.len()
    }

    /// The call has no deadline: it ends by its answer, or with its epoch.
    pub fn keep(&mut self, call: CallId) {
        if let Some(call) = self.get_mut(call) {
            call.deadline = Time::NEVER;
        }
    }
}

impl Reactor {
    /// A client asks. The checks that need no state come first; the rest goes where the state is.
    pub(super) fn call(&mut self, asker: Asker, request: Request) {
        self.call_sized(asker, request, 0);
    }

    /// A request whose message had so many bytes.
    pub(super) fn call_sized(&mut self, asker: Asker, request: Request, bytes: usize) {
        if let Err(error) = self.check(&request) {
            if let Asker::Rpc(rpc) = asker {
                self.front.forget_duration(rpc);
            }
            return self.reply(asker, Err(error));
        }
        if self.is_too_large(&request, bytes) {
            return self.reply(asker, Err(Error::RequestTooLarge));
        }
        // The process answers, so it is healthy, whoever leads (etcd's law).
        if let Some(answer) = health(&request) {
            return self.reply(asker, answer);
        }
        if self.stage != Stage::Serving {
            // Monitors ask for the status above all while nobody leads. After a start it waits for the first
            // takeover all the same: before it nobody knows what was shown before the start.
            return match request {
                Request::Status if self.has_served => self.take_census(asker),
                request => self.park(asker, Errand::Call(request)),
            };
        }
        if self.calls.bytes > self.settings.bounds.calls_bytes_max && !asker.is_own() {
            self.counters.paths.refused_bytes += 1;
            return self.reply(asker, Err(Error::TooManyRequests));
        }
        match request {
            Request::Range(request) => self.read(asker, request),
            Request::Put(ref put) => {
                let shard = self.router().shard_of(&put.key);
                self.evaluate_at(asker, shard, request);
            }
            Request::DeleteRange(ref delete) => {
                let mut shards = self.router().shards_of(&delete.range());
                match (shards.next(), shards.next()) {
                    (None, _) => self.answer_empty_delete(asker),
                    (Some(shard), None) => self.evaluate_at(asker, shard, request),
                    _ => {
                        let Request::DeleteRange(delete) = request else { unreachable!("matched above") };
                        self.spread_delete(asker, delete);
                    }
                }
            }
            Request::Txn(txn) => self.call_txn(asker, txn),
            Request::Compact(_) | Request::LeaseGrant(_) | Request::LeaseRevoke(_) => {
                self.ask_control(asker, ControlRequest::Client(request));
            }
            Request::LeaseTimeToLive { .. } | Request::LeaseLeases | Request::Alarm(_) => {
                self.ask_control(asker, ControlRequest::Client(request));
            }
            Request::MemberList { .. } => {
                let members = self.control.members();
                self.reply(asker, Ok(Reply::MemberList { members }));
            }
            // Nothing can turn authentication on, nor make users and roles.
            Request::AuthStatus => self.answer_unbacked(asker, |revision| Reply::AuthStatus { revision }),
            Request::UserList => self.answer_unbacked(asker, |revision| Reply::UserList { revision }),
            Request::RoleList => self.answer_unbacked(asker, |revision| Reply::RoleList { revision }),
            Request::MoveLeader { target } if target == self.settings.member => {
                self.reply(asker, Ok(Reply::MoveLeader)); // it leads
            }
            Request::MoveLeader { .. } => self.reply(asker, Err(Error::BadLeaderTransferee)),
            Request::Status => self.take_census(asker),
            Request::Defragment => self.defragment(asker),
            Request::Hash => self.hash(asker),
            Request::HashKv { revision } => self.hash_kv(asker, revision),
            Request::HealthCheck { .. } | Request::HealthList => unreachable!("answered above"),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        match request {
            Request::Range(range) => txn::check_range(range),
            Request::Put(put) => txn::check_put(put),
            Request::DeleteRange(delete) => txn::check_delete(delete),
            Request::Txn(txn) => txn::check_txn(txn, self.settings.txn_ops_max),
            _ => Ok(()),
        }
    }

    fn is_too_large(&self, request: &Request, bytes: usize) -> bool {
        let length_bytes = (usize::BITS - (bytes | 1).leading_zeros()).div_ceil(7) as usize;
        let logged = bytes + length_bytes + REQUEST_ENVELOPE_BYTES;
        logged > self.settings.request_bytes_max && is_write(request)
    }

    pub(super) fn begin_call(&mut self, asker: Asker, course: Course) -> CallId {
        self.begin_call_of(asker, course, 0)
    }

    /// A call whose request holds so many bytes.
    pub(super) fn begin_call_of(&mut self, asker: Asker, course: Course, bytes: usize) -> CallId {
        let (begun, deadline) = (self.now, self.now + self.settings.request_timeout());
        self.calls.made += 1;
        let number = self.calls.made;
        self.calls.bytes += bytes;
        let call = Call { asker, course, begun, deadline, bytes, proposes: false };
        self.calls.under_way.insert(number, call);
        CallId { reactor: self.id, number }
    }

    /// Whether somebody still waits for the answer.
    pub(super) fn is_there(&mut self, asker: Asker) -> bool {
        match asker {
            Asker::Rpc(rpc) | Asker::KeepAlive(rpc) | Asker::RangeStream(rpc) | Asker::Chunk(rpc) => {
                self.front.method(rpc).is_some()
            }
            Asker::Call(_) | Asker::Page(_) => true,
            Asker::Expiry(_) | Asker::Compactor(..) => true,
        }
    }

    fn evaluate_at(&mut self, asker: Asker, shard: ShardId, request: Request) {
        let call = self.begin_call_of(asker, Course::Waiting, request.bytes());
        if is_write(&request) {
            self.calls.proposes(call);
        }
        let owner = self.router().reactor_of(shard);
        self.send(owner, Body::Evaluate { call, shard, request });
    }

    pub(super) fn ask_control(&mut self, asker: Asker, request: ControlRequest) {
        let call = self.begin_call(asker, Course::Waiting);
        // An alarm goes through etcd's log even where it is only asked for.
        if matches!(&request, ControlRequest::Client(of) if is_write(of) || matches!(of, Request::Alarm(_))) {
            self.calls.proposes(call);
        }
        self.send(ReactorId(0), Body::Control { call, request });
    }

    fn call_txn(&mut self, asker: Asker, request: TxnRequest) {
        let shards = self.shards_of_txn(&request);
        match shards[..] {
            // A transaction without a key reads nothing and writes nothing: any shard can say so.
            [] => self.evaluate_at(asker, ShardId(1), Request::Txn(request)),
            [shard] => self.evaluate_at(asker, shard, Request::Txn(request)),
            _ => self.spread(asker, request, shards),
        }
    }

    pub(super) fn shards_of_txn(&self, request: &TxnRequest) -> Vec<ShardId> {
        let footprint = txn::footprint(request);
        let mut shards: Vec<ShardId> =
            footprint.iter().flat_map(|range| self.router().shards_of(range)).collect();
        shards.sort();
        shards.dedup();
        shards
    }

    fn answer_empty_delete(&mut self, asker: Asker) {
        self.answer_unbacked(asker, |revision| {
            Reply::DeleteRange(crate::api::DeleteRangeReply { revision, ..Default::default() })
        });
    }

    /// A reply that no entry backs shows, and waits for, the newest revision taken.
    fn answer_unbacked(&mut self, asker: Asker, reply: impl FnOnce(Revision) -> Reply) {
        let revision = self.sequencer.counter();
        let call = self.begin_call(asker, Course::Waiting);
        self.hold(revision, call, Ok(reply(revision)));
    }

    /// The answer to a call of this reactor, wherever it was made.
    pub(super) fn finish(&mut self, call: CallId, answer: Answer) {
        assert!(call.reactor == self.id, "an answer goes to the reactor of its client");
        // A call that is gone failed at its deadline or at the end of its epoch.
        if let Some(call) = self.calls.remove(call) {
            self.reply(call.asker, answer);
        }
    }

    pub(super) fn reply(&mut self, asker: Asker, answer: Answer) {
        match asker {
            Asker::Rpc(rpc) => self.answer_rpc(rpc, answer),
            Asker::KeepAlive(rpc) => self.on_kept_alive(rpc, answer),
            Asker::RangeStream(rpc) => {
                let error = answer.expect_err("a stream that has begun is answered by chunks");
                self.front.end(rpc, Err(error));
            }
            Asker::Chunk(rpc) => self.on_chunk(rpc, answer),
            Asker::Call(call) => self.answer(call, answer),
            Asker::Expiry(lease) => self.on_expiry_done(lease, &answer),
            Asker::Compactor(revision, begun) => self.on_compactor_done(revision, begun, &answer),
            Asker::Page(rpc) => {
                self.counters.scrapes_failed += 1;
                let error = answer.expect_err("only a page that cannot be made is answered this way");
                self.show_page(rpc, &Response::error(503, &error.to_string()));
            }
        }
    }

    /// The answer leaves once `settled` has reached the revision it depends on.
    pub(super) fn hold(&mut self, needs: Revision, call: CallId, answer: Answer) {
        if needs <= self.settled {
            return self.answer(call, answer);
        }
        // Nearly always the newest: what is held depends on revisions in the order they were taken.
        let place = match self.held.back() {
            Some((last, ..)) if *last > needs => {
                self.held.partition_point(|(revision, ..)| *revision <= needs)
            }
            _ => self.held.len(),
        };
        self.held.insert(place, (needs, call, answer));
    }

    pub(super) fn release_held(&mut self) {
        let settled = self.settled;
        while let Some((_, call, answer)) = self.held.pop_front_if(|(needs, ..)| *needs <= settled) {
            self.answer(call, answer);
        }
    }

    pub(super) fn answer(&mut self, call: CallId, answer: Answer) {
        if call.reactor == self.id {
            self.finish(call, answer);
        } else {
            self.send(call.reactor, Body::Answer { call, answer });
        }
    }

    /// Holds what arrives during a takeover, for as long as any request may take.
    pub(super) fn park(&mut self, asker: Asker, errand: Errand) {
        let bytes = match &errand {
            Errand::Call(request) => PARKED_FIXED_BYTES + request.bytes(),
            Errand::KeepAlive(_) => PARKED_FIXED_BYTES,
            Errand::RangeStream(_, request) => {
                PARKED_FIXED_BYTES + request.key.len() + request.range_end.len()
            }
        };
        let (calls, bounds) = (&mut self.calls, &self.settings.bounds);
        if calls.parked.len() >= bounds.parked_calls_max
            || calls.parked_bytes + bytes > bounds.parked_bytes_max
        {
            self.counters.paths.refused_parked += 1;
            return self.reply(asker, Err(Error::TooManyRequests));
        }
        let deadline = self.now + self.settings.request_timeout();
        calls.parked_bytes += bytes;
        self.counters.paths.call_parked += 1;
        calls.parked.push_back(Parked { asker, errand, bytes, deadline });
    }

    pub(super) fn unpark_calls(&mut self) {
        let parked = std::mem::take(&mut self.calls.parked);
        self.calls.parked_bytes = 0;
        for Parked { asker, errand, .. } in parked {
            // A client that has left or waits no longer was told so, and its request does nothing.
            if !self.is_there(asker) {
                continue;
            }
            match errand {
                Errand::Call(request) => self.call(asker, request),
                Errand::KeepAlive(lease) => self.ask_control(asker, ControlRequest::KeepAlive(lease)),
                Errand::RangeStream(rpc, request) => self.begin_range_stream(rpc, request),
            }
        }
    }

    /// The epoch is over: what was under way has an unknown outcome.
    pub(super) fn fail_calls(&mut self, error: &Error) {
        let under_way = self.calls.under_way.iter().filter(|(_, call)| !call.course.outlives_epochs());
        let mut numbers: Vec<u64> = under_way.map(|(number, _)| *number).collect();
        numbers.sort();
        for number in numbers {
            self.count_failed(number);
            self.finish(CallId { reactor: self.id, number }, Err(error.clone()));
        }
    }

    /// Fails what has waited too long, as etcd does: its outcome is unknown.
    pub(super) fn expire_calls(&mut self) {
        if self.now < self.calls_checked_at + CHECK_EVERY {
            return;
        }
        self.calls_checked_at = self.now;
        let now = self.now;
        let under_way = self.calls.under_way.iter();
        let mut late: Vec<u64> =
            under_way.filter(|(_, call)| call.deadline <= now).map(|(number, _)| *number).collect();
        late.sort();
        for number in late {
            self.count_failed(number);
            self.counters.paths.call_expired += 1;
            self.release_spread_of(CallId { reactor: self.id, number });
            self.finish(CallId { reactor: self.id, number }, Err(Error::Timeout));
        }
        self.drop_late_evaluations();
        self.drop_late_controls();
        while let Some(parked) = self.calls.parked.pop_front_if(|parked| parked.deadline <= now) {
            self.calls.parked_bytes -= parked.bytes;
            let is_range = matches!(parked.errand, Errand::Call(Request::Range(_)) | Errand::RangeStream(..));
            self.counters.ranges_failed += u64::from(is_range);
            self.reply(parked.asker, Err(Error::Timeout));
        }
    }

    fn count_failed(&mut self, number: u64) {
        let Some(call) = self.calls.under_way.get(&number) else { return };
        self.counters.proposals_failed += u64::from(call.proposes);
        self.counters.ranges_failed += u64::from(matches!(call.course, Course::Reading(_)));
    }

    /// When [`Reactor::expire_calls`] has something to look at.
    pub(super) fn calls_wake_at(&self) -> Time {
        if self.calls.len() == 0 && !self.has_waiting_evaluations() && !self.has_waiting_controls() {
            Time::NEVER
        } else {
            self.calls_checked_at + CHECK_EVERY
        }
    }
}

/// Only the server as a whole has a status.
fn health(request: &Request) -> Option<Answer> {
    match request {
        Request::HealthCheck { service } if !service.is_empty() => {
            Some(Err(Error::Other { code: Code::NotFound, text: "unknown service".to_owned() }))
        }
        Request::HealthCheck { .. } => Some(Ok(Reply::Health(ServingStatus::Serving))),
        Request::HealthList => Some(Ok(Reply::HealthList(ServingStatus::Serving))),
        _ => None,
    }
}

/// How often deadlines are looked at: they are seconds long.
const CHECK_EVERY: Duration = Duration::from_ms(500);

/// What a request takes beside its keys and values.
const PARKED_FIXED_BYTES: usize = 128;
