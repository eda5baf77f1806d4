//! A raw peer writes frames by hand; a record of events tells what the connection made of them.

mod against_h2;
mod answers;
mod bounds;
mod flow;
mod mutated;
mod pair;
mod rules;

use super::frame::{self, FrameHead, HEAD_BYTES, flag, kind};
use super::hpack::{Encoder, Indexing};
use super::*;
use crate::types::Time;

const NOW: Time = Time::from_ms(1000);

/// An event without what it borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Headers(u32, String, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32),
    Reset(u32, u32),
    Writable(u32),
    GoAway(u32, u32),
}

fn seen(event: &Http2Event) -> Seen {
    match event {
        Http2Event::Headers { stream, head, end } => {
            Seen::Headers(stream.number(), String::from_utf8_lossy(head.path()).into_owned(), *end)
        }
        Http2Event::Data { stream, bytes, end } => Seen::Data(stream.number(), bytes.to_vec(), *end),
        Http2Event::Trailers { stream, .. } => Seen::Trailers(stream.number()),
        Http2Event::Reset { stream, code } => Seen::Reset(stream.number(), *code),
        Http2Event::Writable { stream } => Seen::Writable(stream.number()),
        Http2Event::GoAway { last, code } => Seen::GoAway(*last, *code),
    }
}

/// A server under test, and what a client by hand needs to write to it.
struct Bench {
    server: Connection,
    encoder: Encoder,
    streams: Vec<StreamId>,
    now: Time,
}

impl Bench {
    fn raw(config: &Http2Config) -> Bench {
        Bench { server: Connection::new(config, NOW), encoder: Encoder::new(4096), streams: vec![], now: NOW }
    }

    /// After preface and SETTINGS both ways.
    fn with(config: &Http2Config) -> Bench {
        let mut bench = Bench::raw(config);
        let mut bytes = frame::PREFACE.to_vec();
        frame::put_settings(&mut bytes, &[]);
        bytes.extend(frame_of(kind::SETTINGS, flag::ACK, 0, b""));
        assert_eq!(bench.feed(&bytes), Ok(vec![]));
        bench.frames();
        bench
    }

    fn new() -> Bench {
        Bench::with(&Http2Config::default())
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<Seen>, ConnectionError> {
        let mut events = vec![];
        while let Some(event) = self.server.receive(self.now, &mut bytes)? {
            events.push(seen(&event));
            if let Http2Event::Headers { stream, .. } = event {
                self.streams.push(stream);
            }
        }
        Ok(events)
    }

    fn feed_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> Result<Vec<Seen>, ConnectionError> {
        self.feed(&frame_of(kind, flags, stream, payload))
    }

    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = vec![];
        self.encoder.begin(&mut block);
        for (name, value) in fields {
            self.encoder.field(&mut block, name.as_bytes(), value.as_bytes(), Indexing::Enter);
        }
        block
    }

    fn request_block(&mut self, extra: &[(&str, &str)]) -> Vec<u8> {
        let mut fields = REQUEST.to_vec();
        fields.extend(extra);
        self.block(&fields)
    }

    /// Opens a stream and returns its name.
    fn open(&mut self, number: u32, end: bool) -> StreamId {
        let block = self.request_block(&[]);
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        let events = self.feed_frame(kind::HEADERS, flags, number, &block);
        assert_eq!(events, Ok(vec![Seen::Headers(number, "/pkg.Service/Call".into(), end)]));
        *self.streams.last().unwrap()
    }

    /// What the server has sent since, as frames.
    fn frames(&mut self) -> Vec<(FrameHead, Vec<u8>)> {
        let mut output = vec![];
        self.server.take_output(&mut output);
        frames_of(&output)
    }

    /// The frames sent since, in short: kind, flags, stream, length.
    fn sent(&mut self) -> Vec<(u8, u8, u32, usize)> {
        self.frames().iter().map(|(head, _)| (head.kind, head.flags, head.stream, head.len)).collect()
    }

    /// The stream that was reset, and why, where the server sent nothing else.
    fn reset_sent(&mut self) -> Option<(u32, u32)> {
        match &self.frames()[..] {
            [(head, payload)] if head.kind == kind::RST_STREAM => Some((head.stream, be32(payload))),
            _ => None,
        }
    }

    /// Checks that a frame ends the connection, and that a GOAWAY says so.
    fn expect_fault(&mut self, code: ErrorCode, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let fault =
            self.feed_frame(kind, flags, stream, payload).expect_err("the frame is a connection error");
        assert_eq!(fault.code, code, "{}", fault.why);
        let frames = self.frames();
        let (last, goaway) = frames.last().expect("a GOAWAY is sent");
        assert_eq!((last.kind, be32(&goaway[4..])), (kind::GOAWAY, code as u32));
        assert_eq!(self.feed(b"more"), Err(fault), "nothing follows the end");
    }

    /// Checks that a frame costs its stream only.
    fn expect_reset(&mut self, code: ErrorCode, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.feed_frame(kind, flags, stream, payload).expect("a stream error leaves the connection");
        assert_eq!(self.reset_sent(), Some((stream, code as u32)));
    }
}

const REQUEST: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/pkg.Service/Call"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    frame::put_head(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

fn frames_of(mut bytes: &[u8]) -> Vec<(FrameHead, Vec<u8>)> {
    let mut frames = vec![];
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() {
        let head = FrameHead::read(head);
        let (payload, rest) = rest.split_at(head.len);
        frames.push((head, payload.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "output consists of whole frames");
    frames
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().expect("four bytes of a number"))
}
