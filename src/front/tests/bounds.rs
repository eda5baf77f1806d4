//! What a connection, and all of a reactor, may hold.

use super::*;
use crate::http2::frame;
use crate::limits::{CONNECTION_PARTIAL_BYTES_MIN, HTTP2_OUTPUT_BYTES};
use crate::types::{Blob, KeyValue};

pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";

fn rpc_of_stream(asks: &[Ask]) -> Rpc {
    match asks {
        [Ask::RangeStream { rpc, .. } | Ask::Watch { rpc, .. }, ..] => *rpc,
        other => panic!("a stream, not {other:?}"),
    }
}

fn range_reply(value_bytes: usize) -> Answer {
    Ok(Reply::Range(pairs(1, value_bytes)))
}

pub(super) fn pairs(number: usize, value_bytes: usize) -> RangeReply {
    let kv = KeyValue {
        key: Blob::from(&b"k"[..]),
        value: Blob::from(&vec![b'v'; value_bytes][..]),
        create_revision: Revision(7),
        mod_revision: Revision(7),
        version: 1,
        lease: LeaseId::NONE,
    };
    let (kvs, count) = (vec![kv; number], number as u64);
    RangeReply { kvs, count, revision: Revision(7), ..RangeReply::default() }
}

#[test]
fn a_reply_too_long_for_grpc_is_told_as_grpc_go_tells_it() {
    let mut wire = Wire::new();
    wire.front.config.reply_bytes_max = 1000;
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

    let (stream, rpc) = wire.open_watch();
    let reply = WatchReply { cancel_reason: "0123456789", ..WatchReply::default() };
    wire.front.watched(rpc, Term(0), &reply);
    wire.front.config.reply_bytes_max = 10;
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

/// A client that opens its windows only when it is told to.
pub(super) struct Closed {
    pub(super) front: Front,
    pub(super) conn: ConnId,
    /// Whether it wants its answers compressed.
    pub(super) gzip: bool,
    block: crate::http2::hpack::Encoder,
    /// What the front has sent, and all its frames.
    pub(super) unsent: usize,
    frames: Vec<(u8, u8, u32, Vec<u8>)>,
}

impl Closed {
    pub(super) fn new(config: FrontConfig, window: u32) -> Closed {
        let mut front = Front::new(config);
        front.opened(Time(0), CONN, Port::Client);
        let block = crate::http2::hpack::Encoder::new(0);
        let mut client = Closed { front, conn: CONN, gzip: false, block, unsent: 0, frames: vec![] };
        client.greet(window);
        client
    }

    /// Goes on with another connection of the same front.
    pub(super) fn change(&mut self, window: u32) {
        self.conn.slot += 1;
        self.front.opened(Time(0), self.conn, Port::Client);
        self.greet(window);
    }

    fn greet(&mut self, window: u32) {
        let mut bytes = frame::PREFACE.to_vec();
        frame::put_settings(&mut bytes, &[(frame::setting::INITIAL_WINDOW_SIZE, window)]);
        assert_eq!(self.send(&bytes), []);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Vec<Ask> {
        let mut asks = vec![];
        self.front.receive(Time(0), self.conn, bytes, &mut asks);
        asks
    }

    pub(super) fn call(&mut self, number: u32, path: &str, message: &[u8], end: bool) -> Vec<Ask> {
        let body = [&http2::grpc::prefix(message.len())[..], message].concat();
        self.begin(number, path, &body, end)
    }

    /// Gets a key of so many bytes.
    fn get(&mut self, number: u32, value_bytes: usize) {
        self.list(number, &pairs(1, value_bytes));
    }

    pub(super) fn list(&mut self, number: u32, reply: &RangeReply) {
        let asks = self.call(number, RANGE, b"\x0a\x01k", true);
        self.serve(asks, reply);
    }

    /// Deletes a key of so many bytes: the answer is written at once.
    fn delete(&mut self, number: u32, value_bytes: usize) {
        let rpc = rpc_of(&self.call(number, DELETE, b"\x0a\x01k", true));
        let prev_kvs = pairs(1, value_bytes).kvs;
        let reply = DeleteRangeReply { revision: Revision(8), deleted: 1, prev_kvs };
        self.front.answer(Time(0), rpc, Term(1), &Ok(Reply::DeleteRange(reply)));
    }

    /// Answers what was asked, as far as it is taken.
    pub(super) fn serve(&mut self, asks: Vec<Ask>, reply: &RangeReply) {
        for ask in asks {
            let Ask::Call { rpc, request: Request::Range(request), .. } = ask else { panic!("{ask:?}") };
            let reply = reply.clone();
            match self.front.takes(rpc, &reply) {
                Ok(()) => self.front.answer_taken(Time(0), rpc, Term(1), Reply::Range(reply)),
                Err(bytes) => self.front.defer(Time(0), rpc, Request::Range(request), Some(bytes)),
            }
        }
    }

    pub(super) fn handled(&self, method: Method, code: Code) -> u64 {
        self.front.counters.of(method).handled[code as usize]
    }

    /// Begins a call with the beginning of its body.
    fn begin(&mut self, number: u32, path: &str, body: &[u8], end: bool) -> Vec<Ask> {
        let mut block = vec![];
        let fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")];
        let usual = [("content-type", "application/grpc"), ("te", "trailers")];
        let gzip = self.gzip.then_some(("grpc-encoding", "gzip"));
        for (name, value) in fields.into_iter().chain(usual).chain(gzip) {
            let indexing = crate::http2::hpack::Indexing::Without;
            self.block.field(&mut block, name.as_bytes(), value.as_bytes(), indexing);
        }
        let mut bytes = vec![];
        frame::put_block(&mut bytes, number, &block, false, 16_384);
        frame::put_data(&mut bytes, number, body, end, 16_384);
        self.send(&bytes)
    }

    pub(super) fn open_windows(&mut self, numbers: &[u32], more: u32) -> Vec<Ask> {
        let mut bytes = vec![];
        for number in numbers {
            frame::put_number(&mut bytes, frame::kind::WINDOW_UPDATE, *number, more);
        }
        self.send(&bytes)
    }

    /// Takes what the front hands out.
    pub(super) fn read(&mut self) {
        let mut out = vec![];
        self.front.flush(Time(0), &mut out);
        for output in out {
            let Output::Send { conn, bytes } = output else { panic!("{output:?}") };
            assert_eq!(conn, self.conn);
            self.unsent += bytes.len();
            let mut rest = &bytes[..];
            while let Some((head, after)) = rest.split_first_chunk() {
                let head = frame::FrameHead::read(head);
                let (payload, after) = after.split_at(head.len);
                self.frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
                rest = after;
            }
        }
    }

    /// The kernel takes all that was handed out.
    pub(super) fn take(&mut self) -> Vec<Ask> {
        self.read();
        let mut asks = vec![];
        self.front.sent(Time(0), self.conn, std::mem::take(&mut self.unsent), &mut asks);
        asks
    }

    fn on_time(&mut self) -> Vec<Ask> {
        let mut asks = vec![];
        self.front.on_time(Time(0), &mut asks);
        asks
    }

    /// The kinds of a stream's frames and the bytes of its body.
    pub(super) fn seen(&self, number: u32) -> (Vec<u8>, usize) {
        let of = || self.frames.iter().filter(|(.., stream, _)| *stream == number);
        let body = of().filter(|(kind, ..)| *kind == frame::kind::DATA).map(|(.., bytes)| bytes.len()).sum();
        let mut kinds: Vec<u8> = of().map(|(kind, ..)| *kind).collect();
        kinds.dedup();
        (kinds, body)
    }
}

#[test]
fn a_stream_that_ends_while_its_client_holds_it_back_loses_nothing() {
    use frame::kind::{DATA, HEADERS, RST_STREAM};
    for ended in [true, false] {
        let mut client = Closed::new(config(), 0);
        let range = rpc_of_stream(&client.call(1, "/etcdserverpb.KV/RangeStream", b"\x0a\x01k", true));
        let watch = rpc_of_stream(&client.call(3, WATCH, b"\x1a\x00", ended));
        let Ok(Reply::Range(reply)) = range_reply(1000) else { unreachable!() };
        client.front.chunk(range, Term(1), &reply, true);
        client.front.end(range, Ok(()));
        let reply = WatchReply { cancel_reason: "0123456789", ..WatchReply::default() };
        client.front.watched(watch, Term(1), &reply);
        client.front.end(watch, Err(Error::NoLeader));
        client.take();
        assert_eq!((client.seen(1), client.seen(3)), ((vec![HEADERS], 0), (vec![HEADERS], 0)));
        client.open_windows(&[1, 3], 1 << 20);
        client.take();
        let (kinds, bytes) = client.seen(1);
        assert_eq!(kinds, [HEADERS, DATA, HEADERS]);
        assert!(bytes > 1000, "{bytes}");
        // A client that might still send is told behind the status that nobody listens.
        let (kinds, bytes) = client.seen(3);
        assert_eq!(kinds, [&[HEADERS, DATA, HEADERS][..], if ended { &[] } else { &[RST_STREAM] }].concat());
        assert!(bytes > 10, "{bytes}");
    }
}

pub(super) const MIB: usize = 1 << 20;
pub(super) const OPEN: u32 = 0x7FFF_0000;

pub(super) fn odd() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

fn chunk(client: &mut Closed, rpc: Rpc, bytes: usize) {
    let Ok(Reply::Range(reply)) = range_reply(bytes) else { unreachable!() };
    client.front.chunk(rpc, Term(1), &reply, false);
}

pub(super) fn range_stream(client: &mut Closed, number: u32) -> Rpc {
    rpc_of_stream(&client.call(number, "/etcdserverpb.KV/RangeStream", b"\x0a\x01k", true))
}

#[test]
fn what_a_client_does_not_read_is_bounded_and_arrives_when_it_does() {
    // Its windows may be open, or hold all answers back.
    for window in [OPEN, 0] {
        let mut config = config();
        (config.bounds.connection_lists_bytes_max, config.bounds.connection_lists_bytes_min) = (8 * MIB, MIB);
        let mut client = Closed::new(config, window);
        client.open_windows(&[0], OPEN);
        let mut numbers = odd();
        numbers.by_ref().take(500).for_each(|number| client.get(number, 64 << 10));
        let written = client.handled(Method::Range, Code::Ok);
        assert_eq!(written, CONNECTION_UNSENT_BYTES_MAX as u64 / (64 << 10), "up to the limit, and no more");
        let lists = client.front.accounting.held.lists;
        assert!((8 * MIB..8 * MIB + (65 << 10)).contains(&lists), "{lists}");
        assert_eq!(client.front.waiting.len() as u64, 500 - written - (8 * MIB / (64 << 10)) as u64);
        // A write has been done: its client hears of that.
        let put = rpc_of(&client.call(numbers.next().unwrap(), PUT, &put(), true));
        client.front.answer(Time(0), put, Term(1), &put_reply());
        assert_eq!(client.handled(Method::Put, Code::Ok), 1);
        client.read();
        assert!(client.unsent < 6 * MIB, "{}", client.unsent);
        // Once it reads, all arrives, and nobody was refused.
        for _ in 0..1000 {
            if window == 0 {
                client.open_windows(&odd().take(501).collect::<Vec<u32>>(), 64 << 10);
            }
            client.take();
            let asks = client.on_time();
            client.serve(asks, &pairs(1, 64 << 10));
        }
        assert_eq!(client.handled(Method::Range, Code::Ok), 500);
        assert_eq!((client.front.accounting.held.lists, client.front.waiting.len()), (0, 0));
        assert!(odd().take(500).all(|number| client.seen(number).1 > 64 << 10));
    }
}

#[test]
fn answers_that_are_written_at_once_are_bounded() {
    for window in [OPEN, 0] {
        let mut config = config();
        config.http2.bounds.pending_bytes_max = 4 * MIB;
        let mut client = Closed::new(config, window);
        client.open_windows(&[0], OPEN);
        odd().take(500).for_each(|number| client.delete(number, 64 << 10));
        let taken = client.handled(Method::DeleteRange, Code::Ok);
        assert_eq!(taken, 4 * MIB as u64 / (64 << 10), "up to the limit, and no more");
        assert_eq!(client.handled(Method::DeleteRange, Code::ResourceExhausted), 500 - taken);
    }
}

#[test]
fn answers_to_all_clients_of_a_reactor_are_bounded() {
    let mut config = config();
    config.bounds.answers_bytes_max = 4 * MIB;
    let mut client = Closed::new(config, OPEN);
    client.open_windows(&[0], OPEN);
    let mut numbers = odd();
    let stream = range_stream(&mut client, numbers.next().unwrap());
    numbers.by_ref().take(100).for_each(|number| client.delete(number, 64 << 10));
    assert_eq!(client.handled(Method::DeleteRange, Code::Ok), 64);
    client.read();
    assert_eq!(client.front.budget(stream), 0, "streams wait too");
    // Who has taken its answers gets some more.
    let first = (client.conn, std::mem::take(&mut client.unsent));
    client.change(OPEN);
    client.open_windows(&[0], OPEN);
    odd().take(100).for_each(|number| client.delete(number, 64 << 10));
    assert_eq!(client.handled(Method::DeleteRange, Code::Ok), 64 + 15);
    client.read();
    // The streams of all connections hear that they may send once half has gone, whichever of them took it.
    let mut asks = vec![];
    client.front.sent(Time(0), first.0, first.1 / 2, &mut asks);
    client.front.on_time(Time(0), &mut asks);
    assert_eq!(asks, []);
    client.take();
    client.front.closed(client.conn, &mut asks);
    client.front.sent(Time(0), first.0, 100 << 10, &mut asks);
    client.front.on_time(Time(0), &mut asks);
    assert_eq!(asks, [Ask::Writable { rpc: stream }]);
    assert!(client.front.budget(stream) > 0 && client.front.wake_at() > Time(0));
    client.front.closed(first.0, &mut asks);
    assert_eq!((client.front.accounting.held.answers, client.front.accounting.held.requests), (0, 0));
}

#[test]
fn requests_that_are_never_whole_are_bounded() {
    let begun = [&http2::grpc::prefix(50_000)[..], &[0; 10_000]].concat();
    for (one, all) in [(100_000, MIB), (MIB, 100_000)] {
        let mut config = config();
        (config.bounds.connection_partial_bytes_max, config.bounds.partial_bytes_max) = (one, all);
        let mut client = Closed::new(config, OPEN);
        for number in odd().take(10) {
            assert_eq!(client.begin(number, PUT, &begun, false), []);
        }
        for number in odd().skip(10).take(10) {
            let asks = client.begin(number, PUT, &begun, false);
            assert!(matches!(asks[..], [Ask::Gone { .. }]), "{asks:?}");
        }
        assert_eq!(client.handled(Method::Put, Code::ResourceExhausted), 10);
        assert_eq!(client.front.accounting.held.requests, 100_000);
        // A call that is short passes at any time.
        rpc_of(&client.call(41, PUT, &put(), true));
        // What the others of the reactor keep leaves little, and that for all.
        client.read();
        client.change(OPEN);
        let expected = if all < one { CONNECTION_PARTIAL_BYTES_MIN / 10_000 } else { 10 };
        odd().take(20).for_each(|number| drop(client.begin(number, PUT, &begun, false)));
        assert_eq!(client.handled(Method::Put, Code::ResourceExhausted), 10 + 20 - expected as u64);
        // What a call kept is free when it ends, by itself or with the client.
        let mut reset = vec![];
        frame::put_number(&mut reset, frame::kind::RST_STREAM, 1, 8);
        client.send(&reset);
        assert_eq!(client.begin(61, PUT, &begun, false), []);
        let mut rest = vec![];
        frame::put_data(&mut rest, 3, &[0; 40_000], true, 16_384);
        client.send(&rest);
        assert_eq!(client.begin(63, PUT, &begun, false), []);
        let mut asks = vec![];
        client.front.closed(CONN, &mut asks);
        client.front.closed(client.conn, &mut asks);
        assert_eq!(client.front.accounting.held.requests, 0);
    }
}

#[test]
fn a_stream_reset_for_want_of_room_is_gone_for_who_feeds_it() {
    let mut config = config();
    config.http2.bounds.pending_bytes_max = 100_000;
    let mut client = Closed::new(config, 0);
    let (first, second) = (range_stream(&mut client, 1), range_stream(&mut client, 3));
    assert!(client.front.budget(first) > 0);
    chunk(&mut client, first, 120_000);
    assert_eq!(client.front.budget(second), 0, "the connection's capacity is used up");
    chunk(&mut client, second, 20_000);
    chunk(&mut client, second, 20_000);
    assert!(client.front.wake_at() <= Time(0));
    assert_eq!(client.on_time(), [Ask::Gone { rpc: second }]);
    assert_eq!((client.front.method(second), client.on_time()), (None, vec![]));
    client.take();
    assert_eq!(client.seen(3).0, [frame::kind::HEADERS, frame::kind::RST_STREAM]);
    // Its place is free for another.
    let third = range_stream(&mut client, 5);
    assert_eq!(client.front.budget(third), 0);
    let asks = client.open_windows(&[0, 1], 1 << 20);
    assert_eq!(asks, [first, third].map(|rpc| Ask::Writable { rpc }));
    assert!(client.front.budget(third) > 0);
}

#[test]
fn room_wakes_the_streams_that_were_told_to_wait() {
    let mut client = Closed::new(config(), OPEN);
    client.open_windows(&[0], OPEN);
    let streams: Vec<Rpc> = odd().take(50).map(|number| range_stream(&mut client, number)).collect();
    chunk(&mut client, streams[7], HTTP2_OUTPUT_BYTES);
    for waiting in [9, 3, 9] {
        assert_eq!(client.front.budget(streams[waiting]), 0);
    }
    let expected = [3, 9].map(|waiting| Ask::Writable { rpc: streams[waiting] });
    assert_eq!(client.take(), expected);
    assert!(client.front.budget(streams[3]) > 0);
    chunk(&mut client, streams[3], 100);
    assert_eq!(client.take(), [], "who has got capacity is told no more");
}

#[test]
fn paused_streams_are_read_no_further_than_their_windows_and_hinder_no_other() {
    let mut client = Closed::new(config(), OPEN);
    let create = proto::watch_request::RequestUnion::CreateRequest(Default::default());
    let message = proto::WatchRequest { request_union: Some(create) }.encode_to_vec();
    let framed = [&http2::grpc::prefix(message.len())[..], &message].concat();
    // Together they send more than the connection's window.
    let window = http2::Http2Config::default().bounds.stream_window_bytes as usize;
    let messages = window / framed.len() - 10;
    let unread = framed.repeat(messages);
    let mut watches = vec![];
    for number in odd().take(6) {
        let watch = rpc_of_stream(&client.begin(number, WATCH, &framed, false));
        client.front.pause(watch);
        let mut bytes = vec![];
        frame::put_data(&mut bytes, number, &unread[..unread.len() - 3], false, 16_384);
        assert_eq!(client.send(&bytes), []);
        watches.push(watch);
    }
    client.take();
    assert_eq!(client.front.accounting.held.requests, 6 * (unread.len() - 3));
    let given = |number| client.frames.iter().any(|f| (f.0, f.2) == (frame::kind::WINDOW_UPDATE, number));
    assert!(odd().take(6).all(|number| !given(number)), "the streams' windows stay closed");
    rpc_of(&client.call(99, PUT, &put(), true));
    let mut bytes = vec![];
    frame::put_data(&mut bytes, 1, &unread[unread.len() - 3..], true, 16_384);
    assert_eq!(client.send(&bytes), []);
    // Read on, it comes in pieces, in order, and its end last.
    let mut asks = vec![];
    while client.front.is_paused(watches[0]) {
        let before = asks.len();
        client.front.read_on(watches[0], 1000, &mut asks);
        assert!((1..=1001).contains(&(asks.len() - before)));
    }
    assert_eq!(asks.len(), messages + 1);
    assert!(asks[..messages].iter().all(|ask| matches!(ask, Ask::Watch { rpc, .. } if *rpc == watches[0])));
    assert_eq!(asks[messages], Ask::Ended { rpc: watches[0] });
    assert_eq!(client.front.accounting.held.requests, 5 * (unread.len() - 3));
    // The window goes back with what is read.
    client.front.read_on(watches[1], messages / 2, &mut asks);
    client.take();
    assert!(client.frames.iter().any(|f| (f.0, f.2) == (frame::kind::WINDOW_UPDATE, 3)));
}
