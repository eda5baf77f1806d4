//! How long a client waited for its answer, counted and logged as etcd does.

use super::{Calls, Turn};
use crate::api::{Answer, Code, Error, Reply, Request};
use crate::front::{CallInfo, Rpc};
use crate::io::{Level, Value};
use crate::types::{Duration, Revision};
use crate::wire::{Timed, encode, text};

impl Calls {
    pub(super) fn answer_rpc(&mut self, turn: &mut Turn, rpc: Rpc, answer: Answer) {
        let taken = match &answer {
            Ok(Reply::Txn(reply)) => self.front.takes_txn(rpc, reply),
            _ => Ok(()),
        };
        if let Err(bytes) = taken
            && let Some(request) = self.front.request(rpc).filter(reads_only)
        {
            turn.counters.paths.answer_waited += 1;
            return self.front.defer(turn.now, rpc, request, Some(bytes));
        }
        let shows = answer.as_ref().map_or(Revision::NONE, Reply::revision);
        assert!(shows <= turn.shown(), "a reply shows nothing above what is settled");
        self.observe_answer(turn, rpc, &answer);
        let term = turn.term();
        let long_bytes = turn.settings.bounds.front.long_message_bytes;
        match answer {
            Ok(reply @ (Reply::Range(_) | Reply::Txn(_))) if taken.is_ok() => {
                self.front.answer_taken(turn.now, rpc, term, reply);
            }
            Ok(reply) if encode::is_long(&reply, long_bytes) => {
                self.front.answer_long(turn.now, rpc, term, reply);
            }
            answer => self.front.answer(turn.now, rpc, term, &answer),
        }
    }

    /// A unary call gets its answer.
    fn observe_answer(&mut self, turn: &mut Turn, rpc: Rpc, answer: &Answer) {
        let Some(info) = self.front.call_info(rpc) else { return };
        let took = turn.now.since(info.begun);
        let code = answer.as_ref().err().map_or(Code::Ok, Error::code);
        // What is refused before it is proposed counts nowhere in etcd.
        let timed = info.timed.filter(|_| !matches!(answer, Err(Error::TooManyRequests)));
        if let Some(timed) = timed {
            let success = timed.succeeds(code) && !matches!(answer, Err(Error::RequestTooLarge));
            self.front.counters.answered(timed, success, took);
        }
        let observing = &turn.settings.observing;
        let (slow_apply, slow_answer) = (took > observing.slow_apply, took > observing.slow_answer);
        if slow_apply && let Some(timed) = timed.filter(|timed| timed.reads()) {
            let prefix = if timed == Timed::Range { "read-only range " } else { "read-only txn " };
            let request = self.front.request(rpc);
            let describe = || request.as_ref().map(text::request).unwrap_or_default();
            let response = response(answer, turn.settings.bounds.front.long_message_bytes);
            turn.tell_slow_apply(took, prefix, describe, response, answer.as_ref().err());
        }
        if slow_answer {
            self.tell_slow_answer(turn, rpc, info, took, answer);
        }
    }

    fn tell_slow_answer(
        &mut self,
        turn: &mut Turn,
        rpc: Rpc,
        info: CallInfo,
        took: Duration,
        answer: &Answer,
    ) {
        if !turn.may_tell_of_slow() {
            return;
        }
        let request = self.front.request(rpc);
        let Counts { request_count, request_size, response_count, response_size } =
            Counts::of(request.as_ref(), answer, turn.settings.bounds.front.long_message_bytes);
        let content = request.as_ref().map(text::request).unwrap_or_default();
        let fields = [
            ("start time", Value::Moment(info.begun)),
            ("time spent", took.into()),
            ("remote", Value::Client(rpc.conn)),
            ("response type", info.method.path().into()),
            ("request count", request_count.into()),
            ("request size", request_size.into()),
            ("response count", response_count.into()),
            ("response size", response_size.into()),
            ("request content", content.into()),
        ];
        turn.log_line(Level::Warn, "request stats", fields);
    }
}

/// Whether a transaction may be evaluated anew.
fn reads_only(request: &Request) -> bool {
    matches!(request, Request::Txn(txn) if txn.is_read_only())
}

/// What etcd counts of a request and its answer; -1 where it does not.
struct Counts {
    request_count: i64,
    request_size: i64,
    response_count: i64,
    response_size: i64,
}

impl Counts {
    fn of(request: Option<&Request>, answer: &Answer, long_bytes: usize) -> Counts {
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
        Counts { request_count, request_size, response_count, response_size: size(answer, long_bytes) }
    }
}

/// The bytes of an answer, where counting them is short; -1 where it is long.
fn size(answer: &Answer, long_bytes: usize) -> i64 {
    match answer {
        Ok(reply) if !encode::is_long(reply, long_bytes) => {
            encode::reply_length(&Default::default(), reply) as i64
        }
        _ => -1,
    }
}

/// An answer as the line of a slow read tells of it.
fn response(answer: &Answer, long_bytes: usize) -> String {
    let size = size(answer, long_bytes);
    match answer {
        Ok(Reply::Range(reply)) => format!("range_response_count:{} size:{size}", reply.kvs.len()),
        Ok(Reply::Txn(_)) => format!("size:{size}"),
        _ => String::new(),
    }
}
