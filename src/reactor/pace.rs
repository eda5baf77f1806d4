//! What takes long, counted and logged as etcd does.
//!
//! etcd tells two spans of a request apart: until it is answered, and what it takes to apply once it may. Here the
//! first runs from its arrival to its answer. The second runs from the start of its evaluation to the end of the
//! turn that ends it: within a turn no time passes, and at its end all that the turn did has been paid for.

use super::Reactor;
use crate::api::{Answer, Code, Error, Reply, Request, TxnRequest};
use crate::front::{CallInfo, Rpc};
use crate::io::{ApplyKind, Fields, Level, Value};
use crate::limits::{LONG_MESSAGE_BYTES, SLOW_REQUESTS_LOGGED_MAX};
use crate::types::{Duration, Time};
use crate::wire::{Timed, encode, text};
use bytes::Bytes;

/// What the operator wants to hear of.
#[derive(Clone, Debug)]
pub struct Observing {
    /// Whether it is counted how long the calls of each method take.
    pub handling: bool,
    /// Requests that take longer than this to apply are logged, and those that are answered later than this.
    pub slow_apply: Duration,
    pub slow_answer: Duration,
    /// What the process was started with, for whoever asks.
    pub command_line: Vec<String>,
}

impl Default for Observing {
    fn default() -> Observing {
        let (slow_apply, slow_answer) = (Duration::from_ms(100), Duration::from_ms(300));
        Observing { handling: false, slow_apply, slow_answer, command_line: vec![] }
    }
}

/// What this turn has applied, and what it has told of what was slow.
#[derive(Debug, Default)]
pub(super) struct Pace {
    applied: Vec<Work>,
    /// How many ranges have been read that began then.
    ranged: Vec<(Time, u64)>,
    told: usize,
    untold: u64,
}

#[derive(Debug)]
struct Work {
    kind: ApplyKind,
    success: bool,
    begun: Time,
    about: About,
}

/// What a line says of a request that is gone: its first key, and its size.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    key: Bytes,
    bytes: usize,
}

impl About {
    /// Shares the request's bytes.
    pub fn of(request: &Request) -> About {
        let key = match request {
            Request::Put(put) => put.key.clone(),
            Request::DeleteRange(delete) => delete.key.clone(),
            Request::Txn(txn) => return About::of_txn(txn),
            _ => Bytes::new(),
        };
        About { key, bytes: request.bytes() }
    }

    pub fn of_txn(txn: &TxnRequest) -> About {
        About { key: txn.first_key().cloned().unwrap_or_default(), bytes: txn.bytes() }
    }
}

impl ApplyKind {
    /// As a request of the log's describes itself.
    fn describe(self, about: &About) -> String {
        let key = if about.key.is_empty() { String::new() } else { text::key(&about.key) };
        format!("{}:<{key}> size:{}", self.name(), about.bytes)
    }
}

impl Pace {
    /// A range whose evaluation began then has been read: most of a turn began together.
    pub fn ranged(&mut self, begun: Time) {
        match self.ranged.last_mut() {
            Some((last, times)) if *last == begun => *times += 1,
            _ => self.ranged.push((begun, 1)),
        }
    }
}

impl Reactor {
    /// A request whose evaluation began then has been evaluated.
    pub(super) fn applied(&mut self, kind: ApplyKind, success: bool, begun: Time, about: About) {
        self.pace.applied.push(Work { kind, success, begun, about });
    }

    /// The turn is at its end.
    pub(super) fn observe_pace(&mut self) {
        for (begun, times) in self.pace.ranged.drain(..) {
            self.counters.applies.observe(ApplyKind::Range, true, self.now.since(begun), times);
        }
        let applied = std::mem::take(&mut self.pace.applied);
        for Work { kind, success, begun, about } in &applied {
            let took = self.now.since(*begun);
            self.counters.applies.observe(*kind, *success, took, 1);
            // A range is told of with its answer.
            if took > self.settings.observing.slow_apply && *kind != ApplyKind::Range {
                self.tell_slow_apply(took, "", || kind.describe(about), String::new(), None);
            }
        }
        self.pace.applied = applied;
        self.pace.applied.clear();
        self.pace.told = 0;
        let untold = std::mem::take(&mut self.pace.untold);
        if untold > 0 {
            let message = "more requests took too long than there are lines for";
            self.notice(Level::Warn, message, [("requests", untold.into())]);
        }
    }

    /// A unary call gets its answer.
    pub(super) fn observe_answer(&mut self, rpc: Rpc, answer: &Answer) {
        let Some(asked) = self.front.asked(rpc) else { return };
        let took = self.now.since(asked.begun);
        let code = answer.as_ref().err().map_or(Code::Ok, Error::code);
        // What is refused before it is proposed counts nowhere in etcd.
        let timed = asked.timed.filter(|_| !matches!(answer, Err(Error::TooManyRequests)));
        if let Some(timed) = timed {
            let success = timed.succeeds(code) && !matches!(answer, Err(Error::RequestTooLarge));
            self.front.counters.answered(timed, success, took);
        }
        let observing = &self.settings.observing;
        let (slow_apply, slow_answer) = (took > observing.slow_apply, took > observing.slow_answer);
        if slow_apply && let Some(timed) = timed.filter(|timed| timed.reads()) {
            let prefix = if timed == Timed::Range { "read-only range " } else { "read-only txn " };
            let request = self.front.request(rpc);
            let describe = || request.as_ref().map(text::request).unwrap_or_default();
            self.tell_slow_apply(took, prefix, describe, response(answer), answer.as_ref().err());
        }
        if slow_answer {
            self.tell_slow_answer(rpc, asked, took, answer);
        }
    }

    fn tell_slow_apply(
        &mut self,
        took: Duration,
        prefix: &str,
        describe: impl FnOnce() -> String,
        response: String,
        error: Option<&Error>,
    ) {
        self.counters.slow_applies += 1;
        if !self.may_tell() {
            return;
        }
        let mut fields = Fields::from([
            ("took", took.into()),
            ("expected-duration", self.settings.observing.slow_apply.into()),
            ("prefix", prefix.into()),
            ("request", describe().into()),
            ("response", response.into()),
        ]);
        fields.0.extend(error.map(|error| ("error", error.to_string().into())));
        self.notice(Level::Warn, "apply request took too long", fields);
    }

    fn tell_slow_answer(&mut self, rpc: Rpc, asked: CallInfo, took: Duration, answer: &Answer) {
        if !self.may_tell() {
            return;
        }
        let request = self.front.request(rpc);
        let Counts { request_count, request_size, response_count, response_size } =
            Counts::of(request.as_ref(), answer);
        let content = request.as_ref().map(text::request).unwrap_or_default();
        let fields = [
            ("start time", Value::Moment(asked.begun)),
            ("time spent", took.into()),
            ("remote", Value::Client(rpc.conn)),
            ("response type", asked.method.path().into()),
            ("request count", request_count.into()),
            ("request size", request_size.into()),
            ("response count", response_count.into()),
            ("response size", response_size.into()),
            ("request content", content.into()),
        ];
        self.notice(Level::Warn, "request stats", fields);
    }

    fn may_tell(&mut self) -> bool {
        self.pace.told += 1;
        let may = self.pace.told <= SLOW_REQUESTS_LOGGED_MAX;
        self.pace.untold += u64::from(!may);
        may
    }
}

/// What etcd counts of a request and its answer; -1 where it does not.
struct Counts {
    request_count: i64,
    request_size: i64,
    response_count: i64,
    response_size: i64,
}

impl Counts {
    fn of(request: Option<&Request>, answer: &Answer) -> Counts {
        let nothing = Counts { request_count: -1, request_size: -1, response_count: -1, response_size: -1 };
        let (request_count, response_count) = match (request, answer) {
            (Some(Request::Range(_)), Ok(Reply::Range(reply))) => (0, reply.count as i64),
            (Some(Request::Put(_)), Ok(_)) => (1, 0),
            (Some(Request::DeleteRange(_)), Ok(Reply::DeleteRange(reply))) => (0, reply.deleted as i64),
            (Some(Request::Txn(txn)), Ok(Reply::Txn(reply))) => {
                let taken = if reply.succeeded { &txn.success } else { &txn.failure };
                (taken.len() as i64, 0)
            }
            _ => return nothing,
        };
        let request_size = request.map_or(-1, |request| request.bytes() as i64);
        Counts { request_count, request_size, response_count, response_size: size(answer) }
    }
}

/// The bytes of an answer, where counting them is short.
fn size(answer: &Answer) -> i64 {
    match answer {
        Ok(reply) if !encode::is_long(reply, LONG_MESSAGE_BYTES) => {
            encode::reply_length(&Default::default(), reply) as i64
        }
        _ => -1,
    }
}

/// An answer as the line of a slow read tells of it.
fn response(answer: &Answer) -> String {
    match answer {
        Ok(Reply::Range(reply)) => format!("range_response_count:{} size:{}", reply.kvs.len(), size(answer)),
        Ok(Reply::Txn(_)) => format!("size:{}", size(answer)),
        _ => String::new(),
    }
}
