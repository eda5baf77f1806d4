//! One end of a connection: its state, its beginning and its end.

use super::allowance::Allowance;
use super::frame::{self, ErrorCode, FRAME_BYTES, WINDOW_BYTES, setting};
use super::headers::{Memo, OpenBlock};
use super::hpack::{Decoder, Encoder};
use super::keepalive::Pings;
use super::outbound::Prepared;
use super::streams::{Recent, Streams};
use super::{Config, Fault, Head, StreamId};
use crate::limits::{HTTP2_HEADER_LIST_BYTES_MAX, HTTP2_TABLE_BYTES};
use crate::types::Time;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// So many bytes of the client's preface have come.
    Preface(usize),
    /// The first frame must be SETTINGS.
    Settings,
    Open,
    Over(Fault),
}

/// How far the end has been announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    None,
    /// GOAWAY without a last stream is sent, and a ping after it: streams until its answer are served.
    Announced,
    /// GOAWAY with the last stream is sent.
    Final,
}

/// What the other end's SETTINGS say.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    pub initial_window: i64,
    pub frame_bytes: usize,
    pub streams_max: u32,
}

/// One end of an HTTP/2 connection.
pub struct Connection {
    pub(super) role: Role,
    pub(super) config: Config,
    pub(super) now: Time,
    pub(super) phase: Phase,
    pub(super) farewell: Farewell,
    pub(super) peer: PeerSettings,
    pub(super) streams: Streams,
    /// The highest number the other end has opened (at a client: this end).
    pub(super) last_stream: u32,
    /// The highest number a GOAWAY of the other end lets this end use.
    pub(super) goaway_received: Option<u32>,
    pub(super) closed: Recent,
    pub(super) reset: Recent,

    // Received bytes.
    pub(super) carry: Vec<u8>,
    pub(super) spent: Vec<u8>,
    pub(super) decoder: Decoder,
    pub(super) scratch: Head,
    pub(super) memo: Memo,
    pub(super) open_block: Option<OpenBlock>,
    /// The window every stream begins with: lower than 65,535 only once the other end knows.
    pub(super) stream_window: i64,
    pub(super) receive_window: i64,
    pub(super) owed: u32,

    // Bytes to send.
    pub(super) output: Vec<u8>,
    pub(super) block: Vec<u8>,
    pub(super) encoder: Encoder,
    pub(super) prepared: Prepared,
    pub(super) send_window: i64,
    pub(super) pending: usize,
    pub(super) waiting: VecDeque<StreamId>,
    pub(super) roomy: Vec<StreamId>,

    pub(super) pings: Pings,
    pub(super) resets: Allowance,
    pub(super) settings: Allowance,
    pub(super) voids: Allowance,
}

impl Connection {
    /// The server's end. Its SETTINGS are in the output.
    pub fn new(config: &Config, now: Time) -> Connection {
        Connection::of(Role::Server, config, now)
    }

    pub(super) fn of(role: Role, config: &Config, now: Time) -> Connection {
        let bounds = &config.bounds;
        let stream_window = i64::from(bounds.stream_window_bytes);
        let connection_window = i64::from(bounds.connection_window_bytes);
        assert!(connection_window >= WINDOW_BYTES, "the connection's window cannot be lowered");
        assert!(stream_window <= frame::WINDOW_BYTES_MAX && connection_window <= frame::WINDOW_BYTES_MAX);
        let mut output = Vec::new();
        let mut parameters = vec![(setting::INITIAL_WINDOW_SIZE, bounds.stream_window_bytes)];
        match role {
            Role::Server => {
                parameters.push((setting::MAX_CONCURRENT_STREAMS, config.streams_max));
                parameters.push((setting::MAX_HEADER_LIST_SIZE, HTTP2_HEADER_LIST_BYTES_MAX as u32));
            }
            Role::Client => {
                output.extend_from_slice(frame::PREFACE);
                parameters.push((setting::ENABLE_PUSH, 0));
            }
        }
        frame::put_settings(&mut output, &parameters);
        if connection_window > WINDOW_BYTES {
            let more = (connection_window - WINDOW_BYTES) as u32;
            frame::put_number(&mut output, frame::kind::WINDOW_UPDATE, 0, more);
        }
        Connection {
            role,
            config: *config,
            now,
            phase: if role == Role::Server { Phase::Preface(0) } else { Phase::Settings },
            farewell: Farewell::None,
            peer: PeerSettings {
                initial_window: WINDOW_BYTES,
                frame_bytes: FRAME_BYTES,
                streams_max: u32::MAX,
            },
            streams: Streams::default(),
            last_stream: 0,
            goaway_received: None,
            closed: Recent::default(),
            reset: Recent::default(),
            carry: Vec::new(),
            spent: Vec::new(),
            decoder: Decoder::new(HTTP2_TABLE_BYTES),
            scratch: Head::default(),
            memo: Memo::default(),
            open_block: None,
            stream_window: stream_window.max(WINDOW_BYTES),
            receive_window: connection_window,
            owed: 0,
            output,
            block: Vec::new(),
            encoder: Encoder::new(HTTP2_TABLE_BYTES),
            prepared: Prepared::default(),
            send_window: WINDOW_BYTES,
            pending: 0,
            waiting: VecDeque::new(),
            roomy: Vec::new(),
            pings: Pings::new(now),
            resets: Allowance::new(bounds.resets_burst, bounds.resets_per_sec, now),
            settings: Allowance::new(bounds.settings_burst, bounds.settings_per_sec, now),
            voids: Allowance::new(bounds.void_frames_burst, bounds.void_frames_per_sec, now),
        }
    }

    /// Bytes for the socket, since they were last taken.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Moves the bytes for the socket to the end of `into`. Two buffers that take turns cost no copy.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        if into.is_empty() {
            std::mem::swap(&mut self.output, into);
        } else {
            into.append(&mut self.output);
        }
    }

    /// Streams open or half closed.
    pub fn streams_len(&self) -> usize {
        self.streams.len()
    }

    /// Whether the stream is still there: not ended both ways, nor reset.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Ends the connection in peace: says that it will end, then, after the other end has answered a ping,
    /// which stream is the last. The owner closes once [`Connection::is_drained`].
    pub fn shutdown(&mut self) {
        if self.farewell == Farewell::None && !matches!(self.phase, Phase::Over(_)) {
            self.farewell = Farewell::Announced;
            frame::put_goaway(&mut self.output, frame::STREAM_ID_MAX, ErrorCode::NoError, b"");
            self.pings.put_farewell(&mut self.output);
        }
    }

    /// Ends the connection without waiting for the other end to have heard: streams above the last one seen
    /// are not served.
    pub fn shutdown_now(&mut self) {
        if self.farewell != Farewell::Final && !matches!(self.phase, Phase::Over(_)) {
            self.farewell = Farewell::Final;
            frame::put_goaway(&mut self.output, self.last_stream, ErrorCode::NoError, b"");
        }
    }

    /// Whether the last stream has been announced and none is left.
    pub fn is_drained(&self) -> bool {
        self.farewell == Farewell::Final && self.streams.len() == 0
    }

    /// Ends the connection for a mistake of the other end. Nothing is received or sent on it any more.
    pub(super) fn fail(&mut self, code: ErrorCode, why: &'static str) -> Fault {
        let debug = if code == ErrorCode::EnhanceYourCalm { why.as_bytes() } else { b"" };
        let last = if self.role == Role::Server { self.last_stream } else { 0 };
        frame::put_goaway(&mut self.output, last, code, debug);
        self.end(Fault { code, why })
    }

    /// Ends the connection for what the other end does not do: it is told why where it still reads.
    pub fn give_up(&mut self, why: &'static str) {
        if !matches!(self.phase, Phase::Over(_)) {
            self.fail(ErrorCode::EnhanceYourCalm, why);
        }
    }

    /// Ends the connection and gives back what it holds, but for the output.
    pub(super) fn end(&mut self, fault: Fault) -> Fault {
        self.phase = Phase::Over(fault);
        self.streams = Streams::default();
        self.carry = Vec::new();
        self.open_block = None;
        self.waiting = VecDeque::new();
        self.roomy = Vec::new();
        self.pending = 0;
        fault
    }
}
