//! Bytes in, asks out; answers in, bytes out. The client is our own, in memory.

mod bounds;
mod lists;
mod long;
mod moves;

use super::*;
use crate::api::{Code, DeleteRangeReply, PutReply, Reply};
use crate::http2::client::Client;
use crate::http2::{FieldName, Http2Event};
use crate::limits::{CONNECTION_UNSENT_BYTES_MAX, HTTP1_IDLE_SECS_MAX, HTTP1_REQUEST_SECS_MAX};
use crate::types::{Duration, ReactorId, Revision};
use crate::wire::peer_pages::PeerPage;
use crate::wire::proto;
use bytes::Bytes;
use prost::Message;

const CONN: ConnId = ConnId { reactor: ReactorId(0), slot: 0, generation: 0 };

/// What a client saw of a call: messages, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    body: Vec<u8>,
    status: Option<(u8, String)>,
}

/// A front with one connection of HTTP/2.
struct Wire {
    front: Front,
    client: Client,
    now: Time,
    seen: std::collections::BTreeMap<u32, Seen>,
    closed: bool,
    conn: ConnId,
    /// Where the connection went, with its state.
    moved: Option<(ReactorId, ConnectionState)>,
}

fn config() -> FrontConfig {
    FrontConfig::new(Header::default(), 1 << 20, 128, FrontBounds::PRODUCTION, http2::Http2Config::default())
}

fn front() -> Front {
    Front::new(config())
}

impl Wire {
    fn new() -> Wire {
        let mut front = front();
        front.opened(Time(0), CONN, Port::Client);
        let client = Client::new(&http2::Http2Config::default(), "localhost", Time(0));
        let (now, seen) = (Time(0), Default::default());
        Wire { front, client, now, seen, closed: false, conn: CONN, moved: None }
    }

    /// Carries bytes both ways, in pieces of a size, and returns what the client wants.
    fn run_in(&mut self, piece: usize) -> Vec<Ask> {
        let mut asks = vec![];
        loop {
            let mut bytes = vec![];
            self.client.take_output(&mut bytes);
            let quiet = bytes.is_empty();
            for piece in bytes.chunks(piece) {
                self.front.receive(self.now, self.conn, piece, &mut asks);
            }
            if !self.flush(&mut asks) && quiet {
                return asks;
            }
        }
    }

    fn run(&mut self) -> Vec<Ask> {
        self.run_in(usize::MAX)
    }

    fn flush(&mut self, asks: &mut Vec<Ask>) -> bool {
        let mut out = vec![];
        self.front.flush(self.now, &mut out);
        let any = !out.is_empty();
        for output in out {
            match output {
                Output::Send { conn, bytes } => {
                    assert_eq!(conn, self.conn);
                    self.receive(&bytes);
                    self.front.sent(self.now, conn, bytes.len(), asks);
                }
                Output::Close { .. } => {
                    assert!(!self.closed, "closed once");
                    self.closed = true;
                }
                Output::Move { conn, to, state } => {
                    assert_eq!(conn, self.conn);
                    assert!(self.moved.replace((to, state)).is_none(), "moved once");
                }
                other => panic!("a front gives no {other:?}"),
            }
        }
        any
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while let Some(event) = self.client.receive(self.now, &mut bytes).expect("HTTP/2") {
            match event {
                Http2Event::Headers { stream, head, end: true } | Http2Event::Trailers { stream, head } => {
                    let text =
                        http2::grpc::percent_decoded(head.get(FieldName::GrpcMessage).unwrap_or_default());
                    let status = Some((head.grpc_status().expect("a status"), text));
                    self.seen.entry(stream.number()).or_default().status = status;
                }
                Http2Event::Data { stream, bytes, .. } => {
                    self.seen.entry(stream.number()).or_default().body.extend_from_slice(bytes);
                }
                _ => {}
            }
        }
    }

    /// A watch of which one message has come.
    fn open_watch(&mut self) -> (StreamId, Rpc) {
        let stream = self.client.request(WATCH, &[]).unwrap();
        let create = proto::watch_request::RequestUnion::CreateRequest(Default::default());
        let create = proto::WatchRequest { request_union: Some(create) };
        assert!(self.client.send_message(stream, &create.encode_to_vec(), false));
        (stream, rpc_of(&self.run()))
    }

    fn status(&self, stream: StreamId) -> Option<(u8, &str)> {
        let status = self.seen.get(&stream.number())?.status.as_ref()?;
        Some((status.0, &status.1))
    }
}

fn put() -> Vec<u8> {
    let key = Bytes::from_static(b"k");
    proto::PutRequest { key, value: Bytes::from(vec![b'v'; 300]), ..Default::default() }.encode_to_vec()
}

const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn rpc_of(asks: &[Ask]) -> Rpc {
    match asks {
        [Ask::Call { rpc, .. } | Ask::Watch { rpc, .. }] => *rpc,
        other => panic!("one ask, not {other:?}"),
    }
}

fn put_reply() -> Answer {
    Ok(Reply::Put(PutReply { revision: Revision(7), prev_kv: None }))
}

#[test]
fn a_call_becomes_an_ask_and_its_answer_bytes_however_the_bytes_come() {
    for piece in [1, 2, 7, 64, usize::MAX] {
        let mut wire = Wire::new();
        let stream = wire.client.call(PUT, &[], &put()).unwrap();
        let asks = wire.run_in(piece);
        let rpc = rpc_of(&asks);
        let [Ask::Call { request: Request::Put(put), .. }] = &asks[..] else { panic!("{asks:?}") };
        assert_eq!((&put.key[..], put.value.len()), (&b"k"[..], 300));
        wire.front.answer(wire.now, rpc, Term(3), &put_reply());
        wire.run();
        assert_eq!(wire.status(stream), Some((0, "")));
        let reply = proto::PutResponse::decode(&wire.seen[&stream.number()].body[5..]).unwrap();
        let header = reply.header.unwrap();
        assert_eq!((header.revision, header.raft_term), (7, 3));
        let counted = wire.front.counters.of(Method::Put);
        assert_eq!((counted.started, counted.messages_received, counted.messages_sent), (1, 1, 1));
        assert_eq!(counted.handled[Code::Ok as usize], 1);
    }
}

#[test]
fn what_cannot_be_read_is_refused_and_nothing_is_asked() {
    let check = |path: &str, message: &[u8], code: Code, text: &str| {
        let mut wire = Wire::new();
        let stream = wire.client.call(path, &[], message).unwrap();
        let asks = wire.run();
        assert!(asks.iter().all(|ask| matches!(ask, Ask::Gone { .. })), "{asks:?}");
        let (found, message) = wire.status(stream).expect("an answer");
        assert_eq!(found, code as u8, "{message}");
        assert!(message.contains(text), "{message}");
        assert!(!wire.closed);
        // The connection goes on.
        let next = wire.client.call(PUT, &[], &put()).unwrap();
        let rpc = rpc_of(&wire.run());
        wire.front.answer(wire.now, rpc, Term(1), &put_reply());
        wire.run();
        assert_eq!(wire.status(next), Some((0, "")));
    };
    check(PUT, &[0x0A, 0x7F], Code::Internal, "");
    check("/etcdserverpb.KV/Get", &[], Code::Unimplemented, "unknown method Get for service etcdserverpb.KV");
    check(PUT, &vec![0; 3 << 20], Code::ResourceExhausted, "received message larger than max");
    check(WATCH, &[0x0A, 0x7F], Code::Internal, "");
}

#[test]
fn bytes_that_are_no_http2_close_the_connection() {
    let mut wire = Wire::new();
    let mut bytes = vec![];
    wire.client.take_output(&mut bytes);
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 1]); // SETTINGS on a stream
    let mut asks = vec![];
    wire.front.receive(wire.now, CONN, &bytes, &mut asks);
    let mut out = vec![];
    wire.front.flush(wire.now, &mut out);
    assert!(matches!(out.last(), Some(Output::Close { .. })), "{out:?}");
    assert_eq!(asks, []);
}

#[test]
fn a_call_fails_at_the_deadline_of_its_client() {
    let mut wire = Wire::new();
    let stream = wire.client.call(PUT, &[(b"grpc-timeout", b"50m")], &put()).unwrap();
    let rpc = rpc_of(&wire.run());
    let deadline = Time(0) + Duration::from_ms(50);
    assert!(wire.front.wake_at() <= deadline);
    wire.now = deadline;
    let mut asks = vec![];
    wire.front.on_time(wire.now, &mut asks);
    assert_eq!(asks, [Ask::Gone { rpc }]);
    wire.run();
    assert_eq!(wire.status(stream), Some((4, "context deadline exceeded")));
    assert_eq!(wire.front.counters.of(Method::Put).handled[Code::DeadlineExceeded as usize], 1);
    // The answer that comes too late goes nowhere.
    wire.front.answer(wire.now, rpc, Term(1), &put_reply());
    wire.run();
    assert_eq!(wire.front.counters.of(Method::Put).handled[Code::Ok as usize], 0);
}

#[test]
fn a_stream_asks_for_each_message_and_ends_with_the_call() {
    let mut wire = Wire::new();
    let stream = wire.client.request(WATCH, &[]).unwrap();
    let progress = proto::WatchRequest {
        request_union: Some(proto::watch_request::RequestUnion::ProgressRequest(Default::default())),
    };
    for _ in 0..3 {
        assert!(wire.client.send_message(stream, &progress.encode_to_vec(), false));
        let asks = wire.run();
        assert!(matches!(asks[..], [Ask::Watch { request: WatchRequest::Progress, .. }]), "{asks:?}");
    }
    assert!(wire.client.send_data(stream, &[], true));
    let asks = wire.run();
    let [Ask::Ended { rpc }] = asks[..] else { panic!("{asks:?}") };
    assert_eq!(wire.front.method(rpc), Some(Method::Watch));
    wire.front.watched(rpc, Term(1), &WatchReply { watch_id: 5, ..WatchReply::default() });
    wire.front.end(rpc, Err(Error::NoLeader));
    wire.run();
    assert_eq!(wire.status(stream), Some((14, "etcdserver: no leader")));
    let reply = proto::WatchResponse::decode(&wire.seen[&stream.number()].body[5..]).unwrap();
    assert_eq!(reply.watch_id, 5);
    let counted = wire.front.counters.of(Method::Watch);
    assert_eq!((counted.started, counted.messages_received, counted.messages_sent), (1, 3, 1));
    assert_eq!(wire.front.method(rpc), None);
}

#[test]
fn a_reset_and_a_closed_connection_say_that_nobody_waits() {
    let mut wire = Wire::new();
    let stream = wire.client.call(PUT, &[], &put()).unwrap();
    let rpc = rpc_of(&wire.run());
    wire.client.reset(stream, http2::ErrorCode::Cancel);
    assert_eq!(wire.run(), [Ask::Gone { rpc }]);
    assert_eq!(wire.front.counters.of(Method::Put).handled[Code::Canceled as usize], 1);
    wire.client.call(PUT, &[], &put()).unwrap();
    let rpc = rpc_of(&wire.run());
    let mut asks = vec![];
    wire.front.closed(CONN, &mut asks);
    assert_eq!((asks, wire.front.open()), (vec![Ask::Gone { rpc }], 0));
    wire.front.answer(wire.now, rpc, Term(1), &put_reply());
    assert!(!wire.flush(&mut vec![]));
}

/// Calls that have begun and have not ended.
fn active(wire: &Wire, method: Method) -> u64 {
    let counted = wire.front.counters.of(method);
    counted.started - counted.handled.iter().sum::<u64>()
}

#[test]
fn calls_that_end_with_their_connection_are_canceled() {
    let open = || {
        let mut wire = Wire::new();
        let (_, watch) = wire.open_watch();
        wire.client.call(PUT, &[], &put()).unwrap();
        let put = rpc_of(&wire.run());
        assert_eq!((active(&wire, Method::Watch), active(&wire, Method::Put)), (1, 1));
        (wire, vec![Ask::Gone { rpc: watch }, Ask::Gone { rpc: put }])
    };
    let ended = |mut wire: Wire, asks: Vec<Ask>, gone: Vec<Ask>| {
        assert_eq!(asks, gone);
        // What comes too late goes nowhere.
        for ask in gone {
            let Ask::Gone { rpc } = ask else { unreachable!() };
            wire.front.watched(rpc, Term(1), &WatchReply::default());
            wire.front.answer(wire.now, rpc, Term(1), &put_reply());
        }
        wire.front.closed(CONN, &mut vec![]);
        for method in [Method::Watch, Method::Put] {
            assert_eq!(active(&wire, method), 0);
            assert_eq!(wire.front.counters.of(method).handled[Code::Canceled as usize], 1);
        }
    };
    let mut asks = vec![];
    let (mut wire, gone) = open();
    wire.front.closed(CONN, &mut asks);
    ended(wire, std::mem::take(&mut asks), gone);
    // It is the client that is at fault, or does not answer our pings.
    let (mut wire, gone) = open();
    wire.front.receive(wire.now, CONN, &[0, 0, 0, 4, 0, 0, 0, 0, 1], &mut asks);
    ended(wire, std::mem::take(&mut asks), gone);
    let (mut wire, gone) = open();
    let keepalive = http2::Http2Config::default().keepalive;
    for wait in [keepalive.interval.expect("pings are on"), keepalive.timeout] {
        wire.now = wire.now + wait;
        wire.front.on_time(wire.now, &mut asks);
    }
    ended(wire, asks, gone);
}

#[test]
fn a_slow_client_gets_no_budget_until_the_kernel_takes_bytes() {
    let mut wire = Wire::new();
    let (_, rpc) = wire.open_watch();
    let reply = WatchReply { cancel_reason: "0123456789", ..WatchReply::default() };
    let mut unsent = 0;
    while wire.front.budget(rpc) > 0 {
        (0..100).for_each(|_| wire.front.watched(rpc, Term(1), &reply));
        // The client reads and opens its windows; the kernel does not say so.
        let mut out = vec![];
        wire.front.flush(wire.now, &mut out);
        for output in out {
            let Output::Send { bytes, .. } = output else { panic!("{output:?}") };
            unsent += bytes.len();
            wire.receive(&bytes);
        }
        let mut bytes = vec![];
        wire.client.take_output(&mut bytes);
        wire.front.receive(wire.now, CONN, &bytes, &mut vec![]);
    }
    assert!(unsent >= CONNECTION_UNSENT_BYTES_MAX, "{unsent}");
    assert!(unsent < CONNECTION_UNSENT_BYTES_MAX + (1 << 20), "{unsent}");
    let mut asks = vec![];
    wire.front.sent(wire.now, CONN, unsent, &mut asks);
    assert_eq!(asks, [Ask::Writable { rpc }]);
    assert!(wire.front.budget(rpc) > 0);
}

#[test]
fn stopping_answers_what_is_under_way_and_closes_the_rest() {
    let mut wire = Wire::new();
    let unary = wire.client.call(PUT, &[], &put()).unwrap();
    let rpc = rpc_of(&wire.run());
    let stream = wire.client.request(WATCH, &[]).unwrap();
    wire.run();
    wire.front.stop();
    // On its way before the client has heard.
    let late = wire.client.call(PUT, &[], &put()).unwrap();
    let late_stream = wire.client.request(WATCH, &[]).unwrap();
    let late_rpc = rpc_of(&wire.run());
    for ended in [stream, late_stream] {
        assert_eq!(wire.status(ended), Some((14, "etcdserver: server stopped")));
    }
    assert!(!wire.closed && !wire.front.is_stopped());
    wire.front.answer(wire.now, rpc, Term(1), &put_reply());
    wire.front.answer(wire.now, late_rpc, Term(1), &put_reply());
    wire.run();
    for answered in [unary, late] {
        assert_eq!(wire.status(answered), Some((0, "")));
    }
    assert!(wire.closed);
    wire.front.closed(CONN, &mut vec![]);
    assert!(wire.front.is_stopped());
}

// HTTP/1.

struct Plain {
    front: Front,
    now: Time,
    text: String,
    unsent: usize,
    closed: bool,
}

impl Plain {
    fn new(port: Port) -> Plain {
        let mut front = front();
        front.opened(Time(0), CONN, port);
        Plain { front, now: Time(0), text: String::new(), unsent: 0, closed: false }
    }

    fn send(&mut self, text: &str) -> Vec<Ask> {
        let mut asks = vec![];
        self.front.receive(self.now, CONN, text.as_bytes(), &mut asks);
        self.flush();
        asks
    }

    fn end(&mut self) -> Vec<Ask> {
        let mut asks = vec![];
        self.front.ended(self.now, CONN, &mut asks);
        self.flush();
        asks
    }

    fn show(&mut self, rpc: Rpc, body: &str) -> Vec<Ask> {
        let mut asks = vec![];
        let page = Http1Response::ok(crate::wire::http1::ContentType::Text, body.as_bytes().to_vec());
        self.front.page(self.now, rpc, &page, &mut asks);
        self.flush();
        asks
    }

    /// Lets time pass, turn by turn as the front wants them.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut turns = 0;
        while self.front.wake_at() <= until {
            self.now = self.now.max(self.front.wake_at());
            self.front.on_time(self.now, &mut vec![]);
            assert!(self.front.wake_at() > self.now, "what is done wants no other turn");
            turns += 1;
        }
        assert!(turns < 10, "{turns} turns for nothing");
        self.now = until;
        self.flush();
    }

    fn flush(&mut self) {
        let mut out = vec![];
        self.front.flush(self.now, &mut out);
        for output in out {
            match output {
                Output::Send { bytes, .. } => {
                    self.unsent += bytes.len();
                    self.text += std::str::from_utf8(&bytes).unwrap();
                }
                Output::Close { .. } => self.closed = true,
                other => panic!("a front gives no {other:?}"),
            }
        }
    }
}

fn page_of(asks: &[Ask]) -> (Rpc, &Page) {
    let [Ask::Page { rpc, page }] = asks else { panic!("{asks:?}") };
    (*rpc, page)
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn pages_of_http1_are_answered_one_after_another() {
    let mut plain = Plain::new(Port::Client);
    assert_eq!(plain.send("GET /hea"), []);
    let asks = plain.send(&format!("lth HTTP/1.1\r\nHost: h\r\n\r\n{GET}"));
    let (rpc, page) = page_of(&asks);
    assert!(matches!(page, Page::Health { .. }));
    let asks = plain.show(rpc, "one");
    let (rpc, page) = page_of(&asks);
    assert_eq!(page, &Page::Metrics);
    assert_eq!(plain.show(rpc, "two"), []);
    assert_eq!(plain.text.matches("HTTP/1.1 200 OK").count(), 2);
    assert!(plain.text.find("one") < plain.text.find("two") && !plain.closed);
    let asks = plain.send("GET /version HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let (rpc, _) = page_of(&asks);
    plain.show(rpc, "three");
    assert!(plain.closed);
}

#[test]
fn a_client_that_shuts_its_side_still_gets_its_answers() {
    let mut plain = Plain::new(Port::Client);
    let asks = plain.send(&GET.repeat(2));
    let (first, _) = page_of(&asks);
    assert_eq!(plain.end(), []);
    assert!(!plain.closed);
    let asks = plain.show(first, "one");
    let (second, _) = page_of(&asks);
    assert!(!plain.closed, "it has asked for more");
    assert_eq!(plain.show(second, "two"), []);
    assert!(plain.closed && plain.text.ends_with("two"), "{}", plain.text);
    // Who has asked nothing, or not to the end, waits for nothing.
    for said in ["", "PRI * HT", "GET /metrics HTTP/1.1\r\nHo"] {
        let mut plain = Plain::new(Port::Client);
        plain.send(said);
        assert_eq!(plain.end(), []);
        assert!(plain.closed && plain.text.is_empty(), "{said}");
    }
    // To HTTP/2 it is the end, as with grpc-go.
    let mut wire = Wire::new();
    let (_, rpc) = wire.open_watch();
    let mut asks = vec![];
    wire.front.ended(wire.now, CONN, &mut asks);
    assert_eq!(asks, [Ask::Gone { rpc }]);
    wire.flush(&mut asks);
    assert!(wire.closed);
}

#[test]
fn pages_are_dated_where_the_time_is_known() {
    let mut plain = Plain::new(Port::Client);
    let (rpc, _) = page_of(&plain.send(GET));
    plain.show(rpc, "one");
    assert!(!plain.text.contains("Date:"));
    plain.front.wall(784_111_777);
    let (rpc, _) = page_of(&plain.send(GET));
    plain.show(rpc, "two");
    assert!(plain.text.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{}", plain.text);
}

#[test]
fn malformed_http1_is_refused_and_closed() {
    for port in [Port::Client, Port::Metrics, Port::Peer] {
        let mut plain = Plain::new(port);
        assert_eq!(plain.send("GARBAGE\r\n\r\n"), []);
        assert!(plain.text.starts_with("HTTP/1.1 400"), "{}", plain.text);
        assert!(plain.closed);
    }
    // The ports of metrics and of members speak no HTTP/2.
    for port in [Port::Metrics, Port::Peer] {
        let mut plain = Plain::new(port);
        plain.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert!(plain.closed);
    }
}

/// A whole request that comes with the opening, as after a look at its first bytes.
#[test]
fn on_the_port_of_members_there_are_other_pages() {
    let mut plain = Plain::new(Port::Peer);
    for (line, page) in [
        ("GET /members", PeerPage::Members),
        ("GET /version", PeerPage::Version),
        ("POST /raft/probing", PeerPage::Probing),
        ("GET /health", PeerPage::NotFound),
        ("HEAD /members", PeerPage::MethodNotAllowed),
    ] {
        let asks = plain.send(&format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let (rpc, asked) = page_of(&asks);
        assert_eq!(asked, &Page::Peer(page), "{line}");
        plain.show(rpc, "answer");
    }
    assert!(!plain.closed && !plain.text.contains("Access-Control"), "{}", plain.text);
}

#[test]
fn a_client_that_does_not_read_gets_a_bounded_number_of_pages() {
    let mut plain = Plain::new(Port::Client);
    let body = "x".repeat(1 << 20);
    let mut asks = plain.send(&GET.repeat(100));
    let mut shown = 0;
    while let [Ask::Page { rpc, .. }] = asks[..] {
        asks = plain.show(rpc, &body);
        shown += 1;
    }
    assert_eq!(shown, CONNECTION_UNSENT_BYTES_MAX / body.len());
    plain.front.sent(plain.now, CONN, plain.unsent, &mut asks);
    assert!(matches!(asks[..], [Ask::Page { .. }]), "once it reads, it goes on");
    // Requests without end, none of them answered, end the connection.
    for _ in 0..200 {
        plain.send(&GET.repeat(100));
    }
    assert!(plain.closed);
}

#[test]
fn a_client_that_says_nothing_or_stops_within_a_request_is_let_go() {
    let partial = [
        "",
        "PRI * HTTP/2.0\r\n",
        "GET /metrics HTT",
        "POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf",
    ];
    for (said, port) in partial.into_iter().flat_map(|said| [(said, Port::Client), (said, Port::Metrics)]) {
        if said.starts_with("PRI") && port == Port::Metrics {
            continue; // it is refused at once
        }
        let mut plain = Plain::new(port);
        plain.flush();
        let bytes: Vec<String> = said.chars().map(String::from).collect();
        // Byte by byte: what trickles in wins no time.
        let timeout = Duration::from_secs(HTTP1_REQUEST_SECS_MAX);
        for byte in &bytes {
            assert_eq!(plain.send(byte), []);
            plain.pass(Duration(timeout.0 / (bytes.len() as u64 + 1)));
        }
        plain.pass(Duration(timeout.0 - 1 - plain.now.0));
        assert!(!plain.closed, "{said:?}");
        plain.pass(Duration(1));
        assert!(plain.closed, "{said:?}");
        assert_eq!(plain.text, "");
        assert_eq!(plain.front.wake_at(), Time::NEVER);
    }
}

#[test]
fn a_silent_client_of_http2_is_let_go_by_the_handshake() {
    let mut plain = Plain::new(Port::Client);
    plain.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    plain.text.clear();
    plain.pass(Duration::from_secs(crate::limits::HTTP2_HANDSHAKE_SECS_MAX - 1));
    assert!(!plain.closed);
    plain.pass(Duration::from_secs(1));
    assert!(plain.closed);
}

#[test]
fn an_http1_connection_may_idle_between_requests_for_a_while() {
    let mut plain = Plain::new(Port::Client);
    for _ in 0..3 {
        // The server may take its time.
        let (rpc, _) = page_of(&plain.send(GET));
        plain.pass(Duration::from_secs(3600));
        assert_eq!(plain.show(rpc, "page"), []);
        plain.pass(Duration::from_secs(HTTP1_IDLE_SECS_MAX - 1));
        assert!(!plain.closed);
    }
    // A request that has begun has its own time, however long the pause before it was.
    assert_eq!(plain.send("GET /hea"), []);
    plain.pass(Duration::from_secs(HTTP1_REQUEST_SECS_MAX - 1));
    assert!(!plain.closed);
    plain.pass(Duration::from_secs(1));
    assert!(plain.closed);
    let mut plain = Plain::new(Port::Client);
    let (rpc, _) = page_of(&plain.send(GET));
    plain.show(rpc, "page");
    plain.pass(Duration::from_secs(HTTP1_IDLE_SECS_MAX));
    assert!(plain.closed);
}

#[test]
fn a_page_under_way_is_answered_while_the_server_stops() {
    let mut plain = Plain::new(Port::Client);
    let asks = plain.send(GET);
    let (rpc, _) = page_of(&asks);
    plain.front.stop();
    plain.flush();
    assert!(!plain.closed);
    plain.show(rpc, "last");
    assert!(plain.text.contains("Connection: close") && plain.closed);
    let mut idle = Plain::new(Port::Client);
    idle.front.stop();
    idle.flush();
    assert!(idle.closed);
}
