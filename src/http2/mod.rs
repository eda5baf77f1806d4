//! HTTP/2 (RFC 9113) as gRPC uses it: a state machine, bytes in and bytes out.
//!
//! A [`Connection`] is one end of one connection. The owner hands it what the socket received and pulls
//! events out ([`Connection::receive`]); it sends with `send_*` and [`Connection::reply`], and takes the
//! bytes for the socket once per turn ([`Connection::take_output`]). Time comes with the bytes; where nothing
//! comes, the owner calls [`Connection::on_time`] at [`Connection::wake_at`].
//!
//! Why not the `h2` crate: on a prototype of the durable put path it took 7.6 µs of the server's CPU for a
//! put at depth, where a state machine of our own took 2.7, and its streams are futures, which would bring an
//! executor into the deterministic part. `h2` is the other end in tests.
//!
//! What makes it fast: frames are read where they lie in the received bytes (only a frame that is split over
//! two receives is copied), a header block that is all indices is remembered with what it said, the head and
//! trailers of a usual answer are bytes prepared once, and nothing is allocated per request.
//!
//! What keeps it bounded: streams, header blocks, their frames, the bytes received and not consumed (the
//! connection's window) and the bytes waiting for the other end's windows; and token buckets for what is free
//! to send: resets, SETTINGS, frames that say nothing. The owner must stop receiving while its socket does
//! not take the output: answers to PING and SETTINGS are written into it.
//!
//! `receive` turns bytes into frames, `inbound` treats them, `headers` those with header blocks, `outbound`
//! sends, `keepalive` judges pings and sends them. [`client`] is the other end, for tools and tests.

pub mod client;
mod connection;
pub mod frame;
pub mod grpc;
mod head;
mod headers;
pub mod hpack;
mod inbound;
mod keepalive;
mod outbound;
mod receive;
mod streams;
mod token_bucket;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use frame::ErrorCode;
pub use head::{FieldName, Head};

use crate::limits::{HTTP2_STREAMS_DEFAULT, Http2Bounds};
use crate::types::Duration;

/// A stream of one connection. A number is never used twice, so a name of a closed stream names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    number: u32,
    slot: u32,
}

impl StreamId {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        self.number
    }
    /// A small number that no other open stream of the connection has: the place in a table beside it.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What a connection allows, and how it keeps alive.
#[derive(Clone, Copy, Debug)]
pub struct Http2Config {
    /// Streams a client may have open at a time.
    pub streams_max: u32,
    /// Owners of messages longer than a window consume the parts as they store them. The connection's is at
    /// least 65,535 (RFC 9113 knows no way to lower it).
    pub bounds: Http2Bounds,
    pub keepalive: KeepaliveRules,
}

impl Http2Config {
    /// Sets the window of each stream.
    pub fn with_window(mut self, stream_window_bytes: u32) -> Http2Config {
        self.bounds.stream_window_bytes = stream_window_bytes;
        self
    }
}

/// How connections are kept alive and clients' pings judged: as grpc-go does.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveRules {
    /// The least time between two pings of a client.
    pub ping_min: Duration,
    /// Whether clients may ping so often without an open stream.
    pub without_stream: bool,
    /// Silence after which this end pings; `None` is never.
    pub interval: Option<Duration>,
    /// Silence after that ping which ends the connection.
    pub timeout: Duration,
}

impl Default for Http2Config {
    /// etcd's settings, with finite limits.
    fn default() -> Http2Config {
        Http2Config {
            streams_max: HTTP2_STREAMS_DEFAULT,
            bounds: Http2Bounds::PRODUCTION,
            keepalive: KeepaliveRules {
                ping_min: Duration::from_secs(5),
                without_stream: false,
                interval: Some(Duration::from_secs(2 * 60 * 60)),
                timeout: Duration::from_secs(20),
            },
        }
    }
}

/// What the other end did.
#[derive(Debug)]
pub enum Http2Event<'a> {
    /// A request began (at a client: its response).
    Headers { stream: StreamId, head: &'a Head, end: bool },
    /// Part of the body. The owner gives the bytes back with [`Connection::consumed`].
    Data { stream: StreamId, bytes: &'a [u8], end: bool },
    /// The body ended with trailers.
    Trailers { stream: StreamId, head: &'a Head },
    /// The stream is gone, by the other end or for its mistake. `code` is one of RFC 9113 section 7.
    Reset { stream: StreamId, code: u32 },
    /// What waited on the stream has been written: more may be sent.
    Writable { stream: StreamId },
    /// The other end takes no new streams above `last`.
    GoAway { last: u32, code: u32 },
}

/// The connection is over. The owner sends the output, where the other end is told why, and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    pub code: ErrorCode,
    pub why: &'static str,
}
