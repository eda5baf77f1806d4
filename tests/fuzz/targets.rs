//! Fuzz targets: each takes any bytes to one decoder of what clients or peers send or disks give back, and panics
//! where the decoder does or breaks its promise.
//!
//! Their corpora stand beside this file, `corpus/NAME/`; `cargo test fuzz` runs each corpus and seeded
//! mutations of it. For a search that learns, a package outside this one, with `libfuzzer-sys` and `braid`
//! among its dependencies, needs one line a target:
//!
//! ```text
//! #[path = ".../tests/fuzz/targets.rs"] mod targets;
//! libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::http2(bytes));
//! ```
//!
//! What a checksum protects no mutation would pass, so the targets of files and of peers look at the bytes twice:
//! as they are, and with all checksums mended.

use braid::api::Code;
use braid::checkpoint::Reader;
use braid::front::{Ask, Front, FrontConfig};
use braid::http2::hpack::{Decoder, Encoder, Indexing};
use braid::http2::{Connection, Head, Http2Config, Http2Event};
use braid::io::Port;
use braid::limits::{FrontBounds, LOG_WRITE_BYTES_MAX, PeerBounds, TXN_OPS_DEFAULT};
use braid::log::{Log, LogDamage, LogId, Recovered, Recovery, SegmentBytes, SegmentName};
use braid::peer::{Founding, Hello, Introduction, Link, LinkEvent, LinkKind, LinkTimes, PeerMessage, greets};
use braid::record::{Chunk, Payload};
use braid::types::{ClusterId, ConnId, Duration, MemberId, ReactorId, StoreId, Time};
use braid::wire::http1::Audience;
use braid::wire::{CallKind, Header, Method, decode, grpc, gzip, health, http1, metadata};
use bytes::Bytes;

pub type Target = fn(&[u8]);

/// Every target under the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("client_port", client_port),
    ("http2", http2),
    ("hpack", hpack),
    ("http1", http1),
    ("metadata", metadata),
    ("grpc", grpc),
    ("gzip", gzip),
    ("protobuf", protobuf),
    ("record", record),
    ("log", log),
    ("checkpoint", checkpoint),
    ("peer", peer),
];

/// A message's limit, and what a compressed one may grow to.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
pub const BLOCK_BYTES: usize = 4096;
pub const SEGMENT_BYTES: usize = 4 * BLOCK_BYTES;
/// All segments have one length.
pub const SEGMENTS: SegmentBytes = SegmentBytes { least: SEGMENT_BYTES, most: SEGMENT_BYTES };
pub const LOG_STORE: StoreId = StoreId(5);
pub const LOG_KEY: u64 = 7;

/// A connection as a reactor has it, with every answer it gives by itself.
pub fn client_port(bytes: &[u8]) {
    let conn = ConnId { reactor: ReactorId(0), slot: 0, generation: 1 };
    let config = FrontConfig::new(
        Header::default(),
        MESSAGE_BYTES_MAX,
        TXN_OPS_DEFAULT,
        FrontBounds::PRODUCTION,
        Http2Config::default(),
    );
    let mut front = Front::new(config);
    let (mut asks, mut out) = (vec![], vec![]);
    front.opened(Time(0), conn, Port::Client);
    for part in bytes.chunks(1000) {
        front.receive(Time(1), conn, part, &mut asks);
        for ask in asks.drain(..) {
            if let Ask::Page { rpc, .. } = ask {
                front.page(Time(1), rpc, &http1::Http1Response::not_found(), &mut vec![]);
            }
        }
        front.flush(Time(0), &mut out);
    }
    front.closed(conn, &mut asks);
}

pub fn http2(bytes: &[u8]) {
    let mut connection = Connection::new(&Http2Config::default(), Time(0));
    let mut consumed = vec![];
    for part in bytes.chunks(700) {
        let mut rest = part;
        loop {
            match connection.receive(Time(1), &mut rest) {
                Ok(Some(Http2Event::Data { stream, bytes, .. })) => consumed.push((stream, bytes.len())),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(rest.is_empty(), "without an event all bytes are read");
        for (stream, len) in consumed.drain(..) {
            connection.consumed(stream, len);
        }
        connection.take_output(&mut vec![]);
    }
}

/// One block after the other, each preceded by its length: they share a table.
pub fn hpack(mut bytes: &[u8]) {
    let mut decoder = Decoder::new(4096);
    while let Some((&len, rest)) = bytes.split_first() {
        let (block, rest) = rest.split_at(rest.len().min(usize::from(len)));
        bytes = rest;
        let mut head = Head::default();
        if decoder.decode(block, &mut head).is_err() {
            return;
        }
        // What was read is written and read again.
        let fields: Vec<(Vec<u8>, Vec<u8>)> =
            head.others().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let mut written = vec![];
        for (name, value) in &fields {
            Encoder::new(0).field(&mut written, name, value, Indexing::Without);
        }
        let mut again = Head::default();
        Decoder::new(0).decode(&written, &mut again).expect("what was written can be read");
        let again: Vec<(Vec<u8>, Vec<u8>)> =
            again.others().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(again, fields);
    }
}

pub fn http1(bytes: &[u8]) {
    http1::sniff(bytes);
    let mut rest = bytes;
    while let Ok(Some((request, used))) = http1::parse(rest) {
        assert!(used <= rest.len());
        health::page(&request, Audience::Everyone);
        rest = &rest[used..];
    }
}

/// Lines of `name: value`.
pub fn metadata(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| {
        let colon = line.windows(2).position(|pair| pair == b": ")?;
        Some((&line[..colon], &line[colon + 2..]))
    });
    if let Err(metadata::CallRefusal::Answer { error, .. }) = metadata::head(fields) {
        assert!(error.code() != Code::Ok);
        grpc::percent_encoded(&error.to_string());
    }
}

/// The first byte decides the kind of the call, its compression, and how the rest arrives.
pub fn grpc(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let kind = [CallKind::Unary, CallKind::ServerStream, CallKind::BidiStream][usize::from(first) % 3];
    let mut inbound = grpc::Inbound::new(kind, MESSAGE_BYTES_MAX, first & 0x40 != 0);
    for mut part in rest.chunks(1 + usize::from(first & 0x3F)) {
        loop {
            match inbound.next(&mut part) {
                Ok(Some(message)) => assert!(message.len() <= MESSAGE_BYTES_MAX),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(part.is_empty(), "without a message all data is used up");
    }
    let _ = inbound.finish();
}

pub fn gzip(bytes: &[u8]) {
    if let Ok(message) = gzip::inflated(bytes, MESSAGE_BYTES_MAX) {
        assert!(message.len() <= MESSAGE_BYTES_MAX);
        assert_eq!(gzip::inflated(&gzip::deflated(&message), MESSAGE_BYTES_MAX), Ok(message));
    }
}

/// Every request of every method.
pub fn protobuf(bytes: &[u8]) {
    let message = Bytes::copy_from_slice(bytes);
    for method in Method::ALL.iter().copied().filter(|method| method.kind() == CallKind::Unary) {
        let _ = decode::unary(method, &message, TXN_OPS_DEFAULT);
    }
    let _ = decode::range_stream(message.clone());
    let _ = decode::watch(message.clone());
    let _ = decode::keep_alive(message.clone());
    let _ = decode::health_watch(message);
}

pub fn record(bytes: &[u8]) {
    if let Ok(entry) = Payload::copy_of(bytes).to_entry() {
        assert_eq!(Payload::of(&entry).to_entry().expect("what was written can be read"), entry);
    }
}

/// Whole segment files, one after the other.
pub fn log(bytes: &[u8]) {
    recover(bytes);
    recover(&with_log_mended(bytes.to_vec()));
}

pub fn recovered(bytes: &[u8]) -> Result<Recovered, LogDamage> {
    let log = LogId(0);
    let mut recovery = Recovery::new(log, LOG_STORE, LOG_KEY, SEGMENTS);
    for (at, file) in bytes.chunks(SEGMENT_BYTES).enumerate() {
        recovery.segment(SegmentName { log, sequence: at as u64 + 1 }, file);
    }
    recovery.finish()
}

fn recover(bytes: &[u8]) {
    match recovered(bytes) {
        Ok(recovered) => drop(Log::new(recovered.start, LOG_WRITE_BYTES_MAX)),
        Err(damage) => drop(damage.to_string()),
    }
}

/// Every header and frame with the chain and the checksum it should have.
pub fn with_log_mended(mut bytes: Vec<u8>) -> Vec<u8> {
    let (mut at, mut chain) = (0, 0);
    while at + BLOCK_BYTES <= bytes.len() {
        let block = &mut bytes[at..];
        let mut len = BLOCK_BYTES;
        if block.starts_with(b"braidfrm") {
            let records = u32::from_le_bytes(block[20..24].try_into().expect("four bytes")) as usize;
            let whole = (112 + records).next_multiple_of(BLOCK_BYTES);
            if whole <= block.len() {
                len = whole;
                block[12..16].copy_from_slice(&u32::to_le_bytes(chain));
                chain = mend(&mut block[..len]);
            }
        } else if block.starts_with(b"braidseg") {
            mend(&mut block[..len]);
        }
        at += len;
    }
    bytes
}

pub fn checkpoint(bytes: &[u8]) {
    read_checkpoint(bytes);
    read_checkpoint(&with_checkpoint_mended(bytes.to_vec()));
}

fn read_checkpoint(bytes: &[u8]) {
    let (mut reader, mut versions) = (Reader::new(), 0);
    for part in bytes.chunks(3000) {
        let mut count = |item: braid::checkpoint::Item<'_>| {
            if let braid::checkpoint::Item::Version(version) = item {
                versions += 1;
                assert!(version.value.is_some() || version.key.len() <= bytes.len());
            }
        };
        if reader.feed(part, &mut count).is_err() {
            return;
        }
    }
    if let Ok(footer) = reader.finish() {
        assert_eq!(footer.versions, versions);
    }
}

fn with_checkpoint_mended(mut bytes: Vec<u8>) -> Vec<u8> {
    let (mut at, mut number, mut chain, mut hash) = (0, 0u32, 0u32, 0u64);
    while at + BLOCK_BYTES <= bytes.len() {
        let block = &mut bytes[at..];
        let body = u32::from_le_bytes(block[12..16].try_into().expect("four bytes")) as usize;
        let len = (32 + body).next_multiple_of(BLOCK_BYTES);
        if len > block.len() {
            break;
        }
        block[16..20].copy_from_slice(&number.to_le_bytes());
        block[20..24].copy_from_slice(&chain.to_le_bytes());
        let footer = block[26] == 2 && body >= 24;
        if footer {
            block[48..56].copy_from_slice(&hash.to_le_bytes());
        }
        chain = mend(&mut block[..len]);
        let mixed = (hash ^ u64::from(chain)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash = mixed ^ mixed >> 32;
        number += 1;
        at += len;
    }
    bytes
}

/// Files and frames have their CRC32C at the same place, over all that follows.
fn mend(block: &mut [u8]) -> u32 {
    let crc = crc32c::crc32c(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// What comes from a connection to another member: at the dialer, whose hello is answered by these bytes, and at
/// the listener.
pub fn peer(bytes: &[u8]) {
    for bytes in [bytes, &with_frames_mended(bytes.to_vec())] {
        greets(bytes);
        let mut link = dialer(PeerBounds::PRODUCTION);
        for message in heard(&mut link, bytes) {
            said_and_heard(message);
        }
        handed_out(&mut link);
        let due = link.wake_at();
        if link.wake(due).is_ok() && due != Time::NEVER {
            assert!(link.is_up() && link.wake_at() > due, "it does nothing until then");
        }
        heard(&mut listener(PeerBounds::TINY), bytes);
    }
}

fn introduction(member: u64) -> Introduction {
    Introduction {
        cluster: ClusterId(0xc1),
        member: MemberId(member),
        directory: StoreId(member),
        boot: 7,
        reactors: 2,
        feature_level: 1,
        founding: Some(Founding { shards: 3, map: 5, is_set: true }),
    }
}

const TIMES: LinkTimes = LinkTimes { heartbeat: Duration::from_ms(100), election: Duration::from_ms(1000) };

pub fn dialer(bounds: PeerBounds) -> Link {
    let (from_reactor, to_reactor) = (ReactorId(0), ReactorId(1));
    let kind = LinkKind::Groups;
    let hello = Hello { from: introduction(2), to: MemberId(1), kind, from_reactor, to_reactor };
    Link::dial(Time(0), hello, TIMES, bounds)
}

pub fn listener(bounds: PeerBounds) -> Link {
    Link::accept(Time(0), introduction(1), TIMES, bounds)
}

/// The messages that come of bytes up to the first error.
pub fn heard(link: &mut Link, bytes: &[u8]) -> Vec<PeerMessage> {
    let (mut events, mut messages) = (vec![], vec![]);
    for part in bytes.chunks(700) {
        if let Err(error) = link.receive(Time(1), part, &mut events) {
            link.refuse(&error.to_string());
        }
        for event in events.drain(..) {
            match event {
                LinkEvent::Message(message) => messages.push(message),
                LinkEvent::RoundTrip(_) => {}
                LinkEvent::Hello(_) if link.is_up() => {}
                LinkEvent::Hello(_) => link.answer(Time(1)),
            }
        }
    }
    messages
}

pub fn handed_out(link: &mut Link) -> Vec<u8> {
    let (mut out, mut bytes): (Vec<Chunk>, _) = (vec![], vec![]);
    link.flush(&mut out);
    out.iter().for_each(|chunk| bytes.extend_from_slice(chunk.bytes()));
    link.sent(bytes.len());
    bytes
}

/// What was read can be said, and is read as the same.
fn said_and_heard(message: PeerMessage) {
    let (mut theirs, mut ours) = (dialer(PeerBounds::PRODUCTION), listener(PeerBounds::TINY));
    heard(&mut ours, &handed_out(&mut theirs));
    let stream = said(&mut ours, std::slice::from_ref(&message));
    assert_eq!((heard(&mut theirs, &stream), ours.dropped()), (vec![message], 0));
}

/// All that a link hands out where it says these.
pub fn said(link: &mut Link, messages: &[PeerMessage]) -> Vec<u8> {
    let mut stream = handed_out(link);
    for message in messages {
        link.send(message.clone()).expect("what came is not too long, and waits for nothing");
        loop {
            let frames = handed_out(link);
            if frames.is_empty() {
                break;
            }
            stream.extend(frames);
        }
    }
    stream
}

/// Every frame with the checksum and the number it should have.
pub fn with_frames_mended(mut bytes: Vec<u8>) -> Vec<u8> {
    let (mut at, mut number) = (0, 0_u64);
    while at + 48 <= bytes.len() {
        let frame = &mut bytes[at..];
        let body = u32::from_le_bytes(frame[20..24].try_into().expect("four bytes")) as usize;
        let len = 48 + body;
        if len > frame.len() {
            break;
        }
        frame[24..32].copy_from_slice(&number.to_le_bytes());
        mend(&mut frame[..len]);
        number += 1;
        at += len;
    }
    bytes
}
