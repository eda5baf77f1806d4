//! Long messages, sent as their streams take them.

use super::bounds::RANGE;
use super::*;
use crate::api::{OpReply, TxnReply, WatchEvent};
use crate::limits::*;
use crate::types::{Blob, Event as Change, KeyValue};
use crate::wire::encode::{self, LongMessage};

fn kv(number: usize, value_bytes: usize) -> KeyValue {
    KeyValue {
        key: Blob::from(format!("key{number:08}").as_bytes()),
        value: Blob::from(&vec![b'v'; value_bytes][..]),
        create_revision: Revision(7),
        mod_revision: Revision(8),
        version: 2,
        lease: LeaseId(number as i64),
    }
}

fn range_reply(keys: usize, value_bytes: usize) -> Reply {
    let kvs = (0..keys).map(|number| kv(number, value_bytes)).collect();
    Reply::Range(RangeReply {
        kvs,
        count: keys as u64,
        more: true,
        revision: Revision(9),
        ..Default::default()
    })
}

fn watch_reply(events: usize) -> WatchReply {
    let event = |number| WatchEvent {
        event: Change::Delete { key: kv(number, 0).key, mod_revision: Revision(10) },
        prev_kv: Some(kv(number, 100)),
    };
    let events = (0..events).map(event).collect();
    WatchReply { watch_id: 3, revision: Revision(10), events, ..WatchReply::default() }
}

/// What the client is to receive: the message behind gRPC's prefix.
fn framed(message: Vec<u8>) -> Vec<u8> {
    [&http2::grpc::prefix(message.len())[..], &message].concat()
}

fn whole(reply: &Reply) -> Vec<u8> {
    let mut message = vec![];
    encode::reply(&mut message, &Header::default(), reply, usize::MAX).unwrap();
    framed(message)
}

impl Wire {
    /// Turns until nothing is left to do; how many they were, and the most that one of them handed out.
    fn run_turns(&mut self, asks: &mut Vec<Ask>) -> (usize, u64) {
        let (mut turns, mut most) = (0, 0u64);
        loop {
            let mut bytes = vec![];
            self.client.take_output(&mut bytes);
            self.front.receive(self.now, CONN, &bytes, asks);
            self.front.on_time(self.now, asks);
            let before = self.front.counters.sent_bytes;
            let idle = bytes.is_empty() && self.front.wake_at() > self.now;
            if !self.flush(asks) && idle && !self.front.has_more_to_send() {
                return (turns, most);
            }
            turns += 1;
            most = most.max(self.front.counters.sent_bytes - before);
        }
    }

    fn ask_for_range(&mut self) -> (StreamId, Rpc) {
        let stream = self.client.call(RANGE, &[], b"\x0a\x01k").unwrap();
        (stream, rpc_of(&self.run()))
    }
}

#[test]
fn a_long_reply_arrives_as_it_is_over_many_turns() {
    for (keys, value_bytes) in [(20_000, 10), (3000, 1000), (7, 1 << 20)] {
        let mut wire = Wire::new();
        let calls: Vec<(StreamId, Rpc)> = (0..2).map(|_| wire.ask_for_range()).collect();
        let reply = range_reply(keys, value_bytes);
        assert!(encode::is_long(&reply, LONG_MESSAGE_BYTES));
        for (_, rpc) in &calls {
            wire.front.answer_long(wire.now, *rpc, Term(0), reply.clone());
        }
        let mut asks = vec![];
        let (turns, most) = wire.run_turns(&mut asks);
        assert_eq!(asks, []);
        let wanted = whole(&reply);
        for (stream, _) in calls {
            assert_eq!(wire.status(stream), Some((0, "")));
            assert!(wire.seen[&stream.number()].body == wanted);
        }
        assert!(turns >= 2 * keys / LONG_MESSAGES_ELEMENTS_PER_TURN, "{turns}");
        // A frame's and an element's worth more at most.
        assert!(most as usize <= LONG_MESSAGES_BYTES_PER_TURN + 2 * (value_bytes + (64 << 10)), "{most}");
        assert_eq!(wire.front.accounting.held.answers, 0);
        assert_eq!(wire.front.counters.of_mut(Method::Range).messages_sent, 2);
    }
}

#[test]
fn a_long_message_of_a_stream_holds_its_next_back() {
    let mut wire = Wire::new();
    let (stream, rpc) = wire.open_watch();
    let (long, short) = (watch_reply(5000), watch_reply(1));
    let is_long = |reply| encode::is_long_watch(reply, LONG_MESSAGE_BYTES);
    assert!(is_long(&long) && !is_long(&short));
    let mut wanted = vec![];
    for reply in [&long, &short] {
        let mut message = vec![];
        encode::watch(&mut message, &Header::default(), reply, usize::MAX).unwrap();
        wanted.extend(framed(message));
    }
    assert!(wire.front.budget(rpc) > 0);
    wire.front.watched_long(rpc, Term(0), long);
    assert_eq!(wire.front.budget(rpc), 0);
    let mut asks = vec![];
    wire.run_turns(&mut asks);
    assert!(asks.contains(&Ask::Writable { rpc }), "{asks:?}");
    assert!(wire.front.budget(rpc) > 0);
    wire.front.watched(rpc, Term(0), &short);
    wire.run_turns(&mut asks);
    assert!(wire.seen[&stream.number()].body == wanted);
}

#[test]
fn a_long_reply_ends_with_its_call() {
    let mut wire = Wire::new();
    let (reset, rpc) = wire.ask_for_range();
    wire.front.answer_long(wire.now, rpc, Term(0), range_reply(10_000, 1000));
    let mut out = vec![];
    (0..3).for_each(|_| wire.front.flush(wire.now, &mut out));
    wire.client.reset(reset, http2::ErrorCode::Cancel);
    // A deadline that passes in the middle of the message cannot be told in trailers.
    let late = wire.client.call(RANGE, &[(b"grpc-timeout", b"1S")], b"\x0a\x01k").unwrap();
    let mut asks = vec![];
    let mut bytes = vec![];
    wire.client.take_output(&mut bytes);
    wire.front.receive(wire.now, CONN, &bytes, &mut asks);
    let [Ask::Gone { rpc: gone }, Ask::Call { rpc: second, .. }] = asks[..] else { panic!("{asks:?}") };
    assert_eq!(gone, rpc);
    wire.front.answer_long(wire.now, second, Term(0), range_reply(10_000, 1000));
    (0..4).for_each(|_| wire.front.flush(wire.now, &mut out));
    wire.now = wire.now + Duration::from_secs(2);
    wire.front.on_time(wire.now, &mut asks);
    wire.front.flush(wire.now, &mut out);
    let sent: Vec<u8> = out
        .into_iter()
        .flat_map(|output| match output {
            Output::Send { bytes, .. } => bytes,
            other => panic!("{other:?}"),
        })
        .collect();
    wire.receive(&sent);
    wire.front.sent(wire.now, CONN, sent.len(), &mut asks);
    wire.run_turns(&mut asks);
    assert!(!wire.seen[&late.number()].body.is_empty() && wire.status(late).is_none());
    assert!(wire.front.method(second).is_none());
    assert_eq!(wire.front.accounting.held.answers, 0);
}

#[test]
fn a_long_reply_that_is_too_long_is_refused_as_a_short_one_is() {
    let mut wire = Wire::new();
    wire.front.config.reply_bytes_max = 1 << 20;
    let (stream, rpc) = wire.ask_for_range();
    let reply = range_reply(5000, 1000);
    let bytes = whole(&reply).len() - 5;
    wire.front.answer_long(wire.now, rpc, Term(0), reply);
    wire.run_turns(&mut vec![]);
    let text = format!("grpc: trying to send message larger than max ({bytes} vs. {})", 1 << 20);
    assert_eq!(wire.status(stream), Some((8, &text[..])));
}

/// A transaction's answer that holds such ones, and others.
fn txn_reply(
    rng: &mut crate::stdx::Rng,
    range: &RangeReply,
    delete: &DeleteRangeReply,
    depth: u64,
) -> TxnReply {
    let mut response = || match rng.below(4 + depth.min(1)) {
        0 => OpReply::Range(range.clone()),
        1 => OpReply::DeleteRange(delete.clone()),
        2 => OpReply::Put(PutReply { revision: Revision(5), prev_kv: Some(kv(1, 30)) }),
        3 => OpReply::Put(PutReply { revision: Revision(0), prev_kv: None }),
        _ => OpReply::Txn(txn_reply(rng, range, delete, depth - 1)),
    };
    let responses = (0..4).map(|_| response()).collect();
    TxnReply { revision: Revision(6), succeeded: true, responses }
}

#[test]
fn a_long_reply_is_compressed_over_many_turns() {
    let mut wire = Wire::new();
    let stream = wire.client.call(RANGE, &[(b"grpc-encoding", b"gzip")], b"\x0a\x01k").unwrap();
    let rpc = rpc_of(&wire.run());
    let reply = range_reply(30_000, 50);
    let wanted = whole(&reply).split_off(5);
    wire.front.answer_taken(wire.now, rpc, Term(0), reply);
    let (turns, _) = wire.run_turns(&mut vec![]);
    assert!(turns >= wanted.len() / LONG_MESSAGES_PACKED_BYTES_PER_TURN, "{turns}");
    assert_eq!(wire.status(stream), Some((0, "")));
    let body = &wire.seen[&stream.number()].body;
    let (prefix, packed) = body.split_at(5);
    assert_eq!(prefix, http2::grpc::compressed_prefix(packed.len()));
    assert!(crate::wire::gzip::inflated(packed, wanted.len()).unwrap() == wanted);
    assert_eq!((wire.front.accounting.held.answers, wire.front.accounting.held.lists), (0, 0));
}

#[test]
fn a_message_written_in_pieces_is_the_message() {
    let mut rng = crate::stdx::Rng::new(1);
    for _ in 0..200 {
        let keys = rng.below(40) as usize;
        let mut reply = match range_reply(keys, 20) {
            Reply::Range(reply) => reply,
            _ => unreachable!(),
        };
        reply.keys_only = *rng.pick(&[
            crate::api::KeysOnly::No,
            crate::api::KeysOnly::WithoutValue,
            crate::api::KeysOnly::WithoutValueAndLease,
        ]);
        let prev_kvs = reply.kvs.clone();
        let delete = DeleteRangeReply { revision: Revision(4), deleted: keys as u64, prev_kvs };
        let watch = watch_reply(keys);
        let mut of_watch = vec![];
        encode::watch(&mut of_watch, &Header::default(), &watch, usize::MAX).unwrap();
        let mut longs = vec![(LongMessage::of_watch(&Header::default(), watch), framed(of_watch))];
        let txn = Reply::Txn(txn_reply(&mut rng, &reply, &delete, 2));
        for reply in [Reply::Range(reply), Reply::DeleteRange(delete), txn] {
            let wanted = whole(&reply);
            longs.push((LongMessage::of_reply(&Header::default(), reply), wanted));
        }
        for (mut long, wanted) in longs {
            let elements = 1 + rng.below(9) as usize;
            let length = (0..).find_map(|_| long.measure(elements)).unwrap();
            assert_eq!(length, wanted.len() - 5);
            let mut written = vec![];
            while !long.write(&mut written, 1 + rng.below(300) as usize) {
                assert_eq!(written.len() + long.left(), length);
            }
            assert!(written == wanted[5..]);
            assert_eq!(long.kept_bytes(), 0, "what is written is held by nobody");
        }
    }
}
