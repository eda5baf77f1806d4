//! The client's end, for the simulator, tests and the load generator.
//!
//! It is the same state machine with the other role. What it receives counts as consumed at the next call,
//! so windows stay open by themselves.

use super::connection::{Connection, ConnectionPhase, Side};
use super::frame::{STREAM_ID_MAX, put_block};
use super::hpack::Indexing;
use super::streams::{Sent, StreamState};
use super::{ConnectionError, ErrorCode, Http2Config, Http2Event, StreamId};
use crate::types::Time;

/// Requests whose header block is kept: those without fields of their own, so one per method.
const PREPARED_MAX: usize = 64;

/// The client's end of a connection.
pub struct Client {
    connection: Connection,
    authority: String,
    prepared: Vec<PreparedRequest>,
    /// The bytes that the last event lent.
    lent: Option<(StreamId, usize)>,
}

struct PreparedRequest {
    path: String,
    generation: u64,
    block: Vec<u8>,
}

impl Client {
    /// Preface and SETTINGS are in the output. Of `config` only the windows and the pending bytes count.
    pub fn new(config: &Http2Config, authority: &str, now: Time) -> Client {
        Client {
            connection: Connection::of(Side::Client, config, now),
            authority: authority.to_owned(),
            prepared: Vec::new(),
            lent: None,
        }
    }

    /// Opens a request of gRPC. `None` where the server takes no more streams now, or ever.
    pub fn request(&mut self, path: &str, fields: &[(&[u8], &[u8])]) -> Option<StreamId> {
        let number = self.connection.next_stream()?;
        let generation = self.connection.encoder.generation();
        let known = self.prepared.iter().position(|known| known.path == path);
        if let Some(known) = known
            && fields.is_empty()
            && self.prepared[known].generation == generation
        {
            let frame_bytes = self.connection.peer.frame_bytes;
            put_block(&mut self.connection.output, number, &self.prepared[known].block, false, frame_bytes);
            return Some(self.connection.open_request(number));
        }
        let mut block = self.connection.begin_block();
        let encoder = &mut self.connection.encoder;
        let usual: [(&[u8], &[u8]); 6] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.as_bytes()),
            (b":authority", self.authority.as_bytes()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ];
        for (name, value) in usual.iter().chain(fields) {
            encoder.field(&mut block, name, value, Indexing::Enter);
        }
        if fields.is_empty()
            && encoder.generation() == generation
            && block.first().is_some_and(|first| first & 0xE0 != 0x20)
        {
            let entry = PreparedRequest { path: path.to_owned(), generation, block: block.clone() };
            match known {
                Some(known) => self.prepared[known] = entry,
                None if self.prepared.len() < PREPARED_MAX => self.prepared.push(entry),
                None => (),
            }
        }
        self.connection.put_block(number, block, false);
        Some(self.connection.open_request(number))
    }

    /// Opens a request and sends its only message.
    pub fn call(&mut self, path: &str, fields: &[(&[u8], &[u8])], message: &[u8]) -> Option<StreamId> {
        let stream = self.request(path, fields)?;
        self.send_message(stream, message, true);
        Some(stream)
    }

    /// Sends one message, the last with `end`. Returns `false` where the stream is gone.
    pub fn send_message(&mut self, stream: StreamId, message: &[u8], end: bool) -> bool {
        self.connection.send_parts(stream, &super::grpc::prefix(message.len()), message, end)
    }

    /// Sends a piece of the body as it is.
    pub fn send_data(&mut self, stream: StreamId, bytes: &[u8], end: bool) -> bool {
        self.connection.send_data(stream, bytes, end)
    }

    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        self.connection.reset(stream, code);
    }

    /// Receives as [`Connection::receive`] does.
    pub fn receive<'a, 'b: 'a>(
        &'a mut self,
        now: Time,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Http2Event<'a>>, ConnectionError> {
        if let Some((stream, len)) = self.lent.take() {
            self.connection.consumed(stream, len);
        }
        let event = self.connection.receive(now, bytes)?;
        if let Some(Http2Event::Data { stream, bytes, .. }) = &event {
            self.lent = Some((*stream, bytes.len()));
        }
        Ok(event)
    }

    /// Takes the output as [`Connection::take_output`] does.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        self.connection.take_output(into);
    }

    /// How many streams are open or half closed.
    pub fn streams_len(&self) -> usize {
        self.connection.streams_len()
    }

    /// Bytes that wait for the server's windows.
    #[cfg(test)]
    pub fn pending_bytes(&self) -> usize {
        self.connection.pending_bytes()
    }
}

impl Connection {
    fn next_stream(&self) -> Option<u32> {
        let number = if self.last_stream == 0 { 1 } else { self.last_stream + 2 };
        let full = self.streams.len() >= self.peer.streams_max as usize;
        let over = number > STREAM_ID_MAX || matches!(self.phase, ConnectionPhase::Over(_));
        (!full && !over && self.goaway_received.is_none()).then_some(number)
    }

    fn open_request(&mut self, number: u32) -> StreamId {
        self.last_stream = number;
        self.streams.insert(StreamState {
            id: number,
            begun: self.now,
            sent: Sent::Head,
            head_received: false,
            end_received: false,
            receive_window: self.stream_window,
            window_owed: 0,
            send_window: self.peer.initial_window,
            content_left: None,
            queue: None,
        })
    }
}
