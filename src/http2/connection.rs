//! One end of a connection: its state, its beginning and its end.

use super::frame::{self, ErrorCode, FRAME_BYTES, WINDOW_BYTES, setting};
use super::headers::{BlockCache, OpenBlock};
use super::hpack::{Decoder, Encoder};
use super::keepalive::Pings;
use super::outbound::PreparedBlocks;
use super::streams::{Recent, StreamTable};
use super::token_bucket::TokenBucket;
use super::{ConnectionError, Head, Http2Config, StreamId};
use crate::limits::{HTTP2_FAREWELL_MS_MAX, HTTP2_HEADER_LIST_BYTES_MAX, HTTP2_TABLE_BYTES};
use crate::types::{Duration, Time};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// The number of bytes of the client's preface that have come.
    Preface(usize),
    /// The first frame must be SETTINGS.
    Settings,
    Open,
    Over(ConnectionError),
}

/// How far the connection's end has been announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShutdownState {
    None,
    /// GOAWAY without a last stream is sent, and a ping after it: streams until its answer are served, or until
    /// that has been waited for.
    Announced {
        until: Time,
    },
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
    pub(super) role: Side,
    pub(super) config: Http2Config,
    pub(super) now: Time,
    pub(super) phase: ConnectionPhase,
    pub(super) shutdown_state: ShutdownState,
    pub(super) peer: PeerSettings,
    pub(super) streams: StreamTable,
    /// The highest number the other end has opened (at a client: this end).
    pub(super) last_stream: u32,
    /// The highest number a GOAWAY of the other end lets this end use.
    pub(super) goaway_received: Option<u32>,
    pub(super) closed: Recent,
    pub(super) reset: Recent,

    // Received bytes.
    pub(super) partial_frame: Vec<u8>,
    pub(super) assembled: Vec<u8>,
    pub(super) decoder: Decoder,
    pub(super) scratch: Head,
    pub(super) block_cache: BlockCache,
    pub(super) open_block: Option<OpenBlock>,
    /// The window every stream begins with: lower than 65,535 only once the other end knows.
    pub(super) stream_window: i64,
    pub(super) receive_window: i64,
    pub(super) window_owed: u32,

    // Bytes to send.
    pub(super) output: Vec<u8>,
    pub(super) block: Vec<u8>,
    pub(super) encoder: Encoder,
    pub(super) prepared: PreparedBlocks,
    pub(super) send_window: i64,
    pub(super) pending: usize,
    pub(super) waiting: VecDeque<StreamId>,
    pub(super) writable: Vec<StreamId>,

    pub(super) pings: Pings,
    pub(super) resets: TokenBucket,
    pub(super) settings: TokenBucket,
    pub(super) empty_frames: TokenBucket,
}

impl Connection {
    /// The server's end. Its SETTINGS are in the output.
    pub fn new(config: &Http2Config, now: Time) -> Connection {
        Connection::of(Side::Server, config, now)
    }

    pub(super) fn of(role: Side, config: &Http2Config, now: Time) -> Connection {
        let bounds = &config.bounds;
        let stream_window = i64::from(bounds.stream_window_bytes);
        let connection_window = i64::from(bounds.connection_window_bytes);
        assert!(connection_window >= WINDOW_BYTES, "the connection's window cannot be lowered");
        assert!(stream_window <= frame::WINDOW_BYTES_MAX && connection_window <= frame::WINDOW_BYTES_MAX);
        let mut output = Vec::new();
        let mut parameters = vec![(setting::INITIAL_WINDOW_SIZE, bounds.stream_window_bytes)];
        match role {
            Side::Server => {
                parameters.push((setting::MAX_CONCURRENT_STREAMS, config.streams_max));
                parameters.push((setting::MAX_HEADER_LIST_SIZE, HTTP2_HEADER_LIST_BYTES_MAX as u32));
            }
            Side::Client => {
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
            phase: if role == Side::Server { ConnectionPhase::Preface(0) } else { ConnectionPhase::Settings },
            shutdown_state: ShutdownState::None,
            peer: PeerSettings {
                initial_window: WINDOW_BYTES,
                frame_bytes: FRAME_BYTES,
                streams_max: u32::MAX,
            },
            streams: StreamTable::default(),
            last_stream: 0,
            goaway_received: None,
            closed: Recent::default(),
            reset: Recent::default(),
            partial_frame: Vec::new(),
            assembled: Vec::new(),
            decoder: Decoder::new(HTTP2_TABLE_BYTES),
            scratch: Head::default(),
            block_cache: BlockCache::default(),
            open_block: None,
            stream_window: stream_window.max(WINDOW_BYTES),
            receive_window: connection_window,
            window_owed: 0,
            output,
            block: Vec::new(),
            encoder: Encoder::new(HTTP2_TABLE_BYTES),
            prepared: PreparedBlocks::default(),
            send_window: WINDOW_BYTES,
            pending: 0,
            waiting: VecDeque::new(),
            writable: Vec::new(),
            pings: Pings::new(now),
            resets: TokenBucket::new(bounds.resets_burst, bounds.resets_per_sec, now),
            settings: TokenBucket::new(bounds.settings_burst, bounds.settings_per_sec, now),
            empty_frames: TokenBucket::new(bounds.empty_frames_burst, bounds.empty_frames_per_sec, now),
        }
    }

    /// The bytes for the socket since they were last taken.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Moves the bytes for the socket to the end of `into`. Two buffers used alternately cost no copy.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        if into.is_empty() {
            std::mem::swap(&mut self.output, into);
        } else {
            into.append(&mut self.output);
        }
    }

    /// How many streams are open or half closed.
    pub fn streams_len(&self) -> usize {
        self.streams.len()
    }

    /// Whether the stream is still there: not ended both ways, nor reset.
    #[cfg(test)]
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Ends the connection in peace: says that it will end, then, after the other end has answered a ping or has
    /// had the time to, which stream is the last. The owner closes once [`Connection::is_drained`].
    pub fn shutdown(&mut self, now: Time) {
        if self.shutdown_state == ShutdownState::None && !matches!(self.phase, ConnectionPhase::Over(_)) {
            self.shutdown_state =
                ShutdownState::Announced { until: now + Duration::from_ms(HTTP2_FAREWELL_MS_MAX) };
            frame::put_goaway(&mut self.output, frame::STREAM_ID_MAX, ErrorCode::NoError, b"");
            self.pings.put_shutdown_ping(&mut self.output);
        }
    }

    /// Streams above the last one seen are not served.
    pub(super) fn shutdown_now(&mut self) {
        if self.shutdown_state != ShutdownState::Final && !matches!(self.phase, ConnectionPhase::Over(_)) {
            self.shutdown_state = ShutdownState::Final;
            frame::put_goaway(&mut self.output, self.last_stream, ErrorCode::NoError, b"");
        }
    }

    /// Whether the last stream has been announced.
    pub fn is_final(&self) -> bool {
        self.shutdown_state == ShutdownState::Final
    }

    /// Whether the last stream has been announced and none is left.
    pub fn is_drained(&self) -> bool {
        self.is_final() && self.streams.len() == 0
    }

    /// Ends the connection for a mistake of the other end. Nothing is received or sent on it any more.
    pub(super) fn fail(&mut self, code: ErrorCode, why: &'static str) -> ConnectionError {
        let debug = if code == ErrorCode::EnhanceYourCalm { why.as_bytes() } else { b"" };
        let last = if self.role == Side::Server { self.last_stream } else { 0 };
        frame::put_goaway(&mut self.output, last, code, debug);
        self.end(ConnectionError { code, why })
    }

    /// Ends the connection for what the other end does not do: it is told why where it still reads.
    pub fn give_up(&mut self, why: &'static str) {
        if !matches!(self.phase, ConnectionPhase::Over(_)) {
            self.fail(ErrorCode::EnhanceYourCalm, why);
        }
    }

    /// Ends the connection and gives back what it holds, but for the output.
    pub(super) fn end(&mut self, fault: ConnectionError) -> ConnectionError {
        self.phase = ConnectionPhase::Over(fault);
        self.streams = StreamTable::default();
        self.partial_frame = Vec::new();
        self.open_block = None;
        self.waiting = VecDeque::new();
        self.writable = Vec::new();
        self.pending = 0;
        fault
    }
}
