//! Sending: heads, bodies within the windows, trailers, resets.
//!
//! A body that a window does not let through waits in its stream's queue. A stream blocked by its own window is
//! sent on when that opens; those blocked by the connection's are served round robin, one frame each.
//!
//! The head of a gRPC answer and the trailers of success are always the same two blocks: their fields are
//! entered into the dynamic table once, and from then on each is prepared bytes.

use super::connection::{Connection, Side};
use super::frame::{self, ErrorCode, FRAME_BYTES, HEAD_BYTES, flag, kind};
use super::hpack::Indexing;
use super::streams::{Finish, Queue, Sent};
use super::{StreamId, grpc};

const GRPC_STATUS_OK: u8 = 0;
/// The buffer for header blocks is kept up to this.
const KEEP_BYTES: usize = 4096;

/// A block that the encoder would write the same way again.
#[derive(Clone, Copy, Default)]
struct Block {
    bytes: [u8; Block::MAX],
    len: usize,
    generation: Option<u64>,
}

impl Block {
    const MAX: usize = 32;
}

#[derive(Clone, Copy, Default)]
pub(super) struct PreparedBlocks {
    head: Block,
    ok_trailers: Block,
}

impl Connection {
    /// Sends the head of a gRPC answer. Returns `false`, as all senders do, where the stream is gone.
    pub fn send_grpc_head(&mut self, stream: StreamId) -> bool {
        let Some(state) = self.streams.get_mut(stream) else { return false };
        assert!(state.sent == Sent::Nothing, "a head is sent once");
        state.sent = Sent::Head;
        self.put_grpc_head(stream.number);
        true
    }

    /// Sends a head with a status of HTTP and these fields, and with `end` no body: for what is not gRPC.
    pub fn send_head(&mut self, stream: StreamId, status: u16, fields: &[(&[u8], &[u8])], end: bool) -> bool {
        let Some(state) = self.streams.get_mut(stream) else { return false };
        assert!(state.sent == Sent::Nothing, "a head is sent once");
        state.sent = if end { Sent::End } else { Sent::Head };
        let mut digits = [0; 3];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = b'0' + (status / [100, 10, 1][place] % 10) as u8;
        }
        let mut block = self.begin_block();
        self.encoder.field(&mut block, b":status", &digits, Indexing::Without);
        for (name, value) in fields {
            self.encoder.field(&mut block, name, value, Indexing::Without);
        }
        self.put_block(stream.number, block, end);
        if end {
            self.end_sent(stream);
        }
        true
    }

    /// Sends one message of gRPC: its prefix and its bytes.
    pub fn send_message(&mut self, stream: StreamId, message: &[u8]) -> bool {
        self.send_parts(stream, &grpc::prefix(message.len()), message, false)
    }

    /// Sends one message of gRPC that is compressed, as the head has said.
    pub fn send_compressed(&mut self, stream: StreamId, message: &[u8]) -> bool {
        self.send_parts(stream, &grpc::compressed_prefix(message.len()), message, false)
    }

    /// Sends a part of the body, the last with `end`. What exceeds the windows waits; where already as much
    /// waits on the connection as may, and more than a little on the stream, the stream is reset instead.
    pub fn send_data(&mut self, stream: StreamId, bytes: &[u8], end: bool) -> bool {
        self.send_parts(stream, bytes, &[], end)
    }

    pub(super) fn send_parts(&mut self, stream: StreamId, first: &[u8], second: &[u8], end: bool) -> bool {
        let (window, frame_bytes) = (self.send_window, self.peer.frame_bytes);
        let Some(state) = self.streams.get_mut(stream) else { return false };
        assert!(state.sent == Sent::Head, "a body stands between head and end");
        if end {
            state.sent = Sent::End;
        }
        let len = first.len() + second.len();
        let room = state.send_window.min(window);
        if state.queue.is_none() && len as i64 <= room && len <= frame_bytes {
            state.send_window -= len as i64;
            self.send_window -= len as i64;
            self.pings.forgive();
            let flags = if end { flag::END_STREAM } else { 0 };
            self.output.reserve(HEAD_BYTES + len);
            frame::put_head(&mut self.output, len, kind::DATA, flags, stream.number);
            self.output.extend_from_slice(first);
            self.output.extend_from_slice(second);
            if end {
                self.end_sent(stream);
            }
            return true;
        }
        // The last one is taken whatever its size: etcd bounds no answer.
        let pending = state.queue.as_ref().map_or(0, |queue| queue.len());
        let bounds = &self.config.bounds;
        if self.pending >= bounds.pending_bytes_max && pending + len > bounds.stream_pending_bytes_min {
            self.reset(stream, ErrorCode::EnhanceYourCalm);
            return false;
        }
        self.pending += len;
        let queue = state.queue.get_or_insert_with(Queue::new);
        queue.bytes.extend_from_slice(first);
        queue.bytes.extend_from_slice(second);
        if end {
            queue.finish = Finish::End;
        }
        self.pump(stream);
        true
    }

    /// Ends a gRPC answer. Without a head before, it is head and trailers in one.
    pub fn send_trailers(&mut self, stream: StreamId, code: u8, message: &str) -> bool {
        let Some(state) = self.streams.get_mut(stream) else { return false };
        assert!(state.sent != Sent::End, "an answer ends once");
        let with_head = state.sent == Sent::Nothing;
        state.sent = Sent::End;
        if let Some(queue) = &mut state.queue {
            queue.finish = Finish::Trailers(code, message.to_owned());
            return true;
        }
        self.put_trailers(stream.number, with_head, code, message);
        self.end_sent(stream);
        true
    }

    /// Sends a whole answer of one message: head, message of `len` bytes that `write` appends, trailers of
    /// success.
    pub fn reply(&mut self, stream: StreamId, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let (window, frame_bytes) = (self.send_window, self.peer.frame_bytes);
        let Some(state) = self.streams.get_mut(stream) else { return false };
        let total = grpc::PREFIX_BYTES + len;
        if total as i64 > state.send_window.min(window) || total > frame_bytes {
            let mut message = Vec::with_capacity(len);
            write(&mut message);
            assert!(message.len() == len, "a message is as long as was said");
            self.send_grpc_head(stream);
            return self.send_message(stream, &message) && self.send_trailers(stream, GRPC_STATUS_OK, "");
        }
        assert!(state.sent == Sent::Nothing && state.queue.is_none(), "a whole answer is all that is sent");
        state.sent = Sent::End;
        self.send_window -= total as i64;
        self.put_grpc_head(stream.number);
        self.output.reserve(2 * HEAD_BYTES + total + Block::MAX);
        frame::put_head(&mut self.output, total, kind::DATA, 0, stream.number);
        self.output.extend_from_slice(&grpc::prefix(len));
        let before = self.output.len();
        write(&mut self.output);
        assert!(self.output.len() - before == len, "a message is as long as was said");
        self.put_trailers(stream.number, false, GRPC_STATUS_OK, "");
        self.end_sent(stream);
        true
    }

    /// How many bytes a stream that pulls may send now: 0 where it waits for a window or the socket. When
    /// what waits on it has gone, [`super::Http2Event::Writable`] says so; when the connection has capacity
    /// again ([`Connection::send_capacity`]), no event does.
    pub fn send_budget(&self, stream: StreamId) -> usize {
        if self.streams.get(stream).is_none() {
            return 0;
        }
        let stream_pending_bytes = self.config.bounds.stream_pending_bytes;
        stream_pending_bytes.saturating_sub(self.pending_of(stream)).min(self.send_capacity())
    }

    /// How many bytes all streams that pull may send now: as the socket takes them, and of what may wait for
    /// windows one half, so that the other is left to those that do not pull.
    pub fn send_capacity(&self) -> usize {
        let bounds = &self.config.bounds;
        let windows = (bounds.pending_bytes_max / 2).saturating_sub(self.pending);
        bounds.output_bytes.saturating_sub(self.output.len()).min(windows)
    }

    /// Whether the socket takes so little that streams which pull have to wait for it.
    pub fn is_full(&self) -> bool {
        self.output.len() >= self.config.bounds.output_bytes
    }

    /// How many bytes of all streams wait for the other end's windows.
    pub fn pending_bytes(&self) -> usize {
        self.pending
    }

    /// How many bytes of one stream wait for the other end's windows.
    pub fn pending_of(&self, stream: StreamId) -> usize {
        self.streams.get(stream).and_then(|state| state.queue.as_ref()).map_or(0, |queue| queue.len())
    }

    /// Ends a stream both ways at once. Frames of it that are on their way are ignored.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        if self.streams.get(stream).is_some() {
            self.put_reset(stream.number, code);
            self.forget(stream);
        }
    }

    pub(super) fn put_reset(&mut self, number: u32, code: ErrorCode) {
        frame::put_number(&mut self.output, kind::RST_STREAM, number, code as u32);
        self.reset.push(number);
    }

    /// Drops a stream and what waits on it.
    pub(super) fn forget(&mut self, stream: StreamId) {
        let Some(state) = self.streams.remove(stream) else { return };
        self.pending -= state.queue.map_or(0, |queue| queue.len());
        if self.waiting.len() > 2 * self.streams.len() + 32 {
            let streams = &self.streams;
            self.waiting.retain(|waiting| streams.get(*waiting).is_some());
        }
    }

    /// Drops a stream that has ended both ways.
    pub(super) fn close(&mut self, stream: StreamId) {
        self.streams.remove(stream);
        self.closed.push(stream.number);
    }

    /// Notes that END_STREAM has been written. A server needs no more of the request: it says so, as grpc-go
    /// does.
    fn end_sent(&mut self, stream: StreamId) {
        if self.streams.at(stream.slot).end_received {
            self.close(stream);
        } else if self.role == Side::Server {
            self.put_reset(stream.number, ErrorCode::NoError);
            self.forget(stream);
        }
    }

    /// Writes what the windows allow of what waits on a stream.
    pub(super) fn pump(&mut self, stream: StreamId) {
        self.pump_some(stream, usize::MAX);
    }

    /// Serves the streams that wait for the connection's window round robin.
    pub(super) fn pump_waiting(&mut self) {
        while self.send_window > 0
            && let Some(stream) = self.waiting.pop_front()
        {
            if let Some(state) = self.streams.get_mut(stream)
                && let Some(queue) = &mut state.queue
            {
                queue.waiting = false;
                self.pump_some(stream, FRAME_BYTES);
            }
        }
    }

    fn pump_some(&mut self, stream: StreamId, bytes_max: usize) {
        let state = self.streams.at(stream.slot);
        let Some(mut queue) = state.queue.take() else { return };
        let window = state.send_window.min(self.send_window).max(0) as usize;
        let n = queue.len().min(window).min(bytes_max);
        let drained = n == queue.len();
        let end = drained && matches!(queue.finish, Finish::End);
        state.send_window -= n as i64;
        self.send_window -= n as i64;
        self.pending -= n;
        if n > 0 || end {
            self.pings.forgive();
            let bytes = &queue.bytes[queue.at..queue.at + n];
            frame::put_data(&mut self.output, stream.number, bytes, end, self.peer.frame_bytes);
        }
        if !drained {
            queue.blocked = true;
            queue.at += n;
            if queue.at > queue.bytes.len() / 2 {
                queue.bytes.drain(..queue.at);
                queue.at = 0;
            }
            if state.send_window > 0 && !queue.waiting {
                queue.waiting = true;
                self.waiting.push_back(stream);
            }
            state.queue = Some(queue);
            return;
        }
        match queue.finish {
            Finish::Open if queue.blocked => self.writable.push(stream),
            Finish::Open => (),
            Finish::End => self.end_sent(stream),
            Finish::Trailers(code, message) => {
                self.put_trailers(stream.number, false, code, &message);
                self.end_sent(stream);
            }
        }
    }

    fn put_grpc_head(&mut self, number: u32) {
        self.pings.forgive();
        let prepared = self.prepared.head;
        if prepared.generation == Some(self.encoder.generation()) {
            return self.put_prepared(number, &prepared, flag::END_HEADERS);
        }
        let mut block = self.begin_block();
        let before = self.encoder.generation();
        self.grpc_head_fields(&mut block);
        self.prepared.head = self.prepare(&block, before);
        self.put_block(number, block, false);
    }

    fn put_trailers(&mut self, number: u32, with_head: bool, code: u8, message: &str) {
        self.pings.forgive();
        let usual = !with_head && code == GRPC_STATUS_OK && message.is_empty();
        let prepared = self.prepared.ok_trailers;
        if usual && prepared.generation == Some(self.encoder.generation()) {
            return self.put_prepared(number, &prepared, flag::END_HEADERS | flag::END_STREAM);
        }
        let mut block = self.begin_block();
        let before = self.encoder.generation();
        if with_head {
            self.grpc_head_fields(&mut block);
        }
        let mut digits = [0; 3];
        let code_text = grpc::decimal(code, &mut digits);
        let indexing = if code == GRPC_STATUS_OK { Indexing::Enter } else { Indexing::Without };
        self.encoder.field(&mut block, b"grpc-status", code_text, indexing);
        let indexing = if message.is_empty() { Indexing::Enter } else { Indexing::Without };
        let message = grpc::percent_encoded(message);
        self.encoder.field(&mut block, b"grpc-message", message.as_bytes(), indexing);
        if usual {
            self.prepared.ok_trailers = self.prepare(&block, before);
        }
        self.put_block(number, block, true);
    }

    fn grpc_head_fields(&mut self, block: &mut Vec<u8>) {
        self.encoder.field(block, b":status", b"200", Indexing::Without);
        self.encoder.field(block, b"content-type", b"application/grpc", Indexing::Enter);
    }

    /// Keeps the block as prepared bytes, where writing it has not changed how it would be written. A change
    /// of the table's size that is announced in it counts as one: it changed the generation before.
    fn prepare(&self, block: &[u8], before: u64) -> Block {
        let mut prepared = Block::default();
        let resized = block.first().is_some_and(|first| first & 0xE0 == 0x20);
        if block.len() <= Block::MAX && self.encoder.generation() == before && !resized {
            prepared.bytes[..block.len()].copy_from_slice(block);
            (prepared.len, prepared.generation) = (block.len(), Some(before));
        }
        prepared
    }

    fn put_prepared(&mut self, number: u32, block: &Block, flags: u8) {
        frame::put_head(&mut self.output, block.len, kind::HEADERS, flags, number);
        self.output.extend_from_slice(&block.bytes[..block.len]);
    }

    /// An empty block, or one that begins with a change of the table's size.
    pub(super) fn begin_block(&mut self) -> Vec<u8> {
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        self.encoder.begin(&mut block);
        block
    }

    pub(super) fn put_block(&mut self, number: u32, block: Vec<u8>, end: bool) {
        frame::put_block(&mut self.output, number, &block, end, self.peer.frame_bytes);
        self.pings.forgive();
        if block.capacity() <= KEEP_BYTES {
            self.block = block;
        }
    }
}
