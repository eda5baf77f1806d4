//! What a connection, and all of a reactor, may hold.

use super::*;
use crate::types::{Blob, KeyValue};

const RANGE: &str = "/etcdserverpb.KV/Range";

fn range_reply(value_bytes: usize) -> Answer {
    let kv = KeyValue {
        key: Blob::from(&b"k"[..]),
        value: Blob::from(&vec![b'v'; value_bytes][..]),
        create_revision: Revision(7),
        mod_revision: Revision(7),
        version: 1,
        lease: LeaseId::NONE,
    };
    Ok(Reply::Range(RangeReply { kvs: vec![kv], count: 1, revision: Revision(7), ..RangeReply::default() }))
}

#[test]
fn a_reply_too_long_for_grpc_is_told_as_grpc_go_tells_it() {
    let mut wire = Wire::new();
    wire.front.manners.reply_bytes_max = 1000;
    let mut call = |value_bytes| {
        let stream = wire.client.call(RANGE, &[], b"\x0a\x01k").unwrap();
        let rpc = rpc_of(&wire.run());
        wire.front.answer(wire.now, rpc, Term(0), &range_reply(value_bytes));
        wire.run();
        let (code, text) = wire.status(stream).unwrap();
        (code, text.to_owned(), wire.seen[&stream.number()].body.len())
    };
    let (code, _, bytes) = call(900);
    assert_eq!(code, 0);
    let rest = 1000 - (bytes - 5);
    assert_eq!(call(900 + rest), (0, String::new(), 1005));
    let text = "trying to send message larger than max (1001 vs. 1000)";
    assert_eq!(call(900 + rest + 1), (8, format!("grpc: {text}"), 0));

    let stream = wire.client.request(WATCH, &[]).unwrap();
    let create = proto::WatchRequest {
        request_union: Some(proto::watch_request::RequestUnion::CreateRequest(Default::default())),
    };
    assert!(wire.client.send_message(stream, &create.encode_to_vec(), false));
    let rpc = rpc_of(&wire.run());
    let reply = WatchReply { cancel_reason: "0123456789", ..WatchReply::default() };
    wire.front.watched(rpc, Term(0), &reply);
    wire.front.manners.reply_bytes_max = 10;
    wire.front.watched(rpc, Term(0), &reply);
    wire.front.watched(rpc, Term(0), &reply);
    let mut asks = vec![];
    assert!(wire.front.wake_at() <= wire.now);
    wire.front.on_time(wire.now, &mut asks);
    assert_eq!(asks, [Ask::Gone { rpc }], "who feeds the stream hears once that it has ended");
    assert!(wire.front.wake_at() > wire.now);
    wire.run();
    let (code, text) = wire.status(stream).unwrap();
    assert_eq!(code, 8);
    assert!(text.starts_with("trying to send message larger than max (") && text.ends_with(" vs. 10)"));
    assert!(!wire.seen[&stream.number()].body.is_empty(), "what was sent before has arrived");
}

#[test]
fn a_large_reply_leaves_no_large_buffer() {
    let mut wire = Wire::new();
    for bytes in [100, 2 << 20, 100] {
        wire.client.call(RANGE, &[], b"\x0a\x01k").unwrap();
        let rpc = rpc_of(&wire.run());
        wire.front.answer(wire.now, rpc, Term(0), &range_reply(bytes));
        wire.run();
        assert!(wire.front.scratch.capacity() <= crate::limits::FRONT_SCRATCH_KEEP_BYTES);
    }
}
