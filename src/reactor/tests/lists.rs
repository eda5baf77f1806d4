//! Answers that hold much beside clients that take little.

use super::*;
use crate::front::DROPPED;
use crate::io::{Level, Value};

const KEYS: usize = 200;
const VALUE: usize = 4 << 10;
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// Two answers that show all keys are too much for a connection, though each of them is taken.
fn member_of_few_lists(reactors: u16, shards: usize, change: impl FnOnce(&mut Settings)) -> Member {
    let mut settings = settings(shards);
    settings.bounds.front.connection_lists_bytes_max = KEYS * VALUE / 2;
    settings.bounds.front.connection_lists_bytes_min = KEYS * VALUE / 8;
    settings.slice.keys = 20;
    change(&mut settings);
    let mut member = Member::with(reactors, settings);
    for n in 0..KEYS {
        let key = format!("{}{n:03}", char::from((n % 100) as u8));
        member.put(&key, &"v".repeat(VALUE));
    }
    member
}

fn everything() -> proto::RangeRequest {
    let everything = Bytes::from_static(b"\0");
    proto::RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() }
}

fn range_op() -> proto::RequestOp {
    proto::RequestOp { request: Some(proto::request_op::Request::RequestRange(everything())) }
}

impl Member {
    /// The one answer to a call that went well.
    fn answer<R: Message + Default>(&mut self, stream: http2::StreamId) -> R {
        assert!(self.statuses.contains(&(stream.number(), 0, String::new())), "{:?}", self.statuses);
        let place = self.answers.iter().position(|(of, _)| *of == stream.number());
        R::decode(&self.answers.remove(place.expect("with a message")).1[..]).expect("in protobuf")
    }

    /// Requests under way for the client.
    fn under_way(&self) -> usize {
        self.reactors[usize::from(self.conn.reactor.0)].calls.len()
    }
}

/// Lists for which there is no place are read anew when there is: the reactor of the client forgets them, and
/// no other goes on reading them.
#[test]
fn lists_without_a_place_are_read_later() {
    for (reactors, shards) in [(1, 1), (2, 3)] {
        let mut member = member_of_few_lists(reactors, shards, |_| {});
        member.deafen();
        let streams: Vec<_> = (0..8).map(|_| member.ask(RANGE, &everything())).collect();
        member.run();
        // One is being sent; nothing is left of the reading of the others.
        assert!(
            member
                .reactors
                .iter()
                .all(|reactor| reactor.calls.len() == 0 && reactor.shards.slices().is_empty())
        );
        let at = usize::from(member.conn.reactor.0);
        assert_eq!(member.reactors[at].counters_now().ranges, 1, "the others are to be counted");
        member.hear();
        for stream in streams {
            assert_eq!(member.answer::<proto::RangeResponse>(stream).kvs.len(), KEYS);
        }
        assert_eq!(member.reactors[at].counters_now().ranges, 8);
    }
}

/// A transaction that only reads waits as a range does; one that has written cannot be done again.
#[test]
fn transactions_that_read_much_wait_for_a_place() {
    let pending = |settings: &mut Settings| settings.bounds.http2.pending_bytes_max = KEYS * VALUE / 2;
    let mut member = member_of_few_lists(1, 1, pending);
    let reads = proto::TxnRequest { success: vec![range_op(); 2], ..Default::default() };
    let put = proto::PutRequest { key: Bytes::from_static(b"new"), ..Default::default() };
    let put = proto::RequestOp { request: Some(proto::request_op::Request::RequestPut(put)) };
    let writes = proto::TxnRequest { success: vec![put, range_op()], ..Default::default() };
    let before = member.range("\0", "\0").header.unwrap().revision;
    member.deafen();
    let streams: Vec<_> = (0..5).map(|_| member.ask(TXN, &reads)).collect();
    member.run();
    let written = member.ask(TXN, &writes);
    member.run();
    member.hear();
    for (n, stream) in streams.into_iter().enumerate() {
        let reply: proto::TxnResponse = member.answer(stream);
        for response in reply.responses {
            let proto::response_op::Response::ResponseRange(range) = response.response.unwrap() else {
                panic!("it has read")
            };
            assert!(range.kvs.len() == KEYS + usize::from(n > 0), "the others were read anew");
        }
    }
    assert!(member.statuses.contains(&(written.number(), 8, DROPPED.into())), "{:?}", member.statuses);
    assert_eq!(member.range("new", "").header.unwrap().revision, before + 1);
}

/// A range over several reactors holds what some have found while others still look.
#[test]
fn what_has_been_gathered_of_ranges_counts() {
    for path in [RANGE, "/etcdserverpb.KV/RangeStream"] {
        let mut member = member_of_few_lists(2, 2, |_| {});
        // Sorted, so that a stream reads all of it at once.
        let range = proto::RangeRequest { sort_target: 3, ..everything() };
        member.asleep = 1;
        let streams: Vec<_> = (0..8).map(|_| member.ask(path, &range)).collect();
        member.run();
        let held = member.under_way();
        assert!((1..=3).contains(&held), "{path}: {held} hold their parts, the others wait");
        member.asleep = 0;
        member.run();
        for stream in streams {
            assert!(member.statuses.contains(&(stream.number(), 0, String::new())));
            let keys: usize = match path {
                RANGE => member.answer::<proto::RangeResponse>(stream).kvs.len(),
                _ => member
                    .answers
                    .extract_if(.., |(of, _)| *of == stream.number())
                    .map(|(_, bytes)| proto::RangeStreamResponse::decode(&bytes[..]).unwrap())
                    .map(|chunk| chunk.range_response.unwrap().kvs.len())
                    .sum(),
            };
            assert_eq!(keys, KEYS);
        }
        assert_eq!(member.under_way(), 0);
    }
}

#[test]
fn whose_answers_are_given_up_is_told_in_the_log() {
    let tiny = crate::limits::FrontBounds::TINY;
    let mut member = member_of_few_lists(1, 1, |settings| {
        settings.bounds.front.reader_check_ms = tiny.reader_check_ms;
        settings.bounds.front.reader_checks_max = tiny.reader_checks_max;
    });
    member.deafen();
    for _ in 0..2 {
        member.ask(RANGE, &everything());
    }
    member.run();
    let told = |member: &Member| -> Vec<LogLine> {
        let of = |line: &&LogLine| line.message.starts_with("dropping answers");
        member.log_lines.iter().filter(of).cloned().collect()
    };
    let mut checks = 0;
    while told(&member).is_empty() {
        assert!(checks <= tiny.reader_checks_max, "it is told in time");
        member.now = member.now + Duration::from_ms(tiny.reader_check_ms);
        member.turn_all();
        checks += 1;
    }
    let lines = told(&member);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line.level, Level::Warn);
    let [remote, answers, (_, Value::Uint(bytes)), _] = &line.fields.0[..] else { panic!("{line:?}") };
    assert_eq!((&remote.1, &answers.1), (&Value::Client(member.conn), &Value::Uint(1)));
    assert!(*bytes > (KEYS * VALUE / 2) as u64, "{bytes}");
}
