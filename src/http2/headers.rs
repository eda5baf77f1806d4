//! HEADERS and CONTINUATION: header blocks to requests, responses and trailers.

use super::connection::{Connection, ShutdownState, Side};
use super::frame::{self, ErrorCode, FrameHead, flag};
use super::receive::{FrameError, FrameOutcome, protocol};
use super::streams::{Sent, StreamState};
use super::{Head, StreamId};
use crate::limits::Http2Bounds;

/// A header block of which CONTINUATION must bring the rest.
pub(super) struct OpenBlock {
    pub(super) stream: u32,
    end: bool,
    depends_on_itself: bool,
    frames: u32,
    bytes: Vec<u8>,
}

/// Where the head of an event lies.
#[derive(Clone, Copy)]
pub(super) enum HeadAt {
    Scratch,
    Cache(usize),
}

/// A cache of decoded header blocks that consist of indices alone. They mean the same as long as the table is
/// of the same generation.
#[derive(Default)]
pub(super) struct BlockCache {
    entries: Vec<Remembered>,
    next: usize,
}

struct Remembered {
    generation: u64,
    block: Vec<u8>,
    head: Head,
}

impl BlockCache {
    fn find(&self, generation: u64, block: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| entry.generation == generation && entry.block == block)
    }

    fn remember(&mut self, generation: u64, block: &[u8], head: &Head, bounds: &Http2Bounds) {
        if block.len() > bounds.remembered_block_bytes || head.kept_bytes() > bounds.remembered_head_bytes {
            return;
        }
        let entry = Remembered { generation, block: block.to_vec(), head: head.clone() };
        if self.entries.len() < bounds.remembered_blocks {
            self.entries.push(entry);
        } else {
            self.entries[self.next] = entry;
            self.next = (self.next + 1) % bounds.remembered_blocks;
        }
    }
}

impl Connection {
    pub(super) fn head_at(&self, at: HeadAt) -> &Head {
        match at {
            HeadAt::Scratch => &self.scratch,
            HeadAt::Cache(place) => &self.block_cache.entries[place].head,
        }
    }

    pub(super) fn on_headers(
        &mut self,
        frame: FrameHead,
        payload: &[u8],
    ) -> Result<FrameOutcome, FrameError> {
        if frame.stream == 0 || (self.role == Side::Server && frame.stream.is_multiple_of(2)) {
            return Err(protocol("HEADERS on a stream no client opens"));
        }
        let range = frame::unpadded(&frame, payload).ok_or(protocol("padding exceeds HEADERS"))?;
        let mut fragment = &payload[range];
        let mut depends_on_itself = false;
        if frame.has(flag::PRIORITY) {
            let (priority, rest) = fragment
                .split_first_chunk::<5>()
                .ok_or(FrameError::Connection(ErrorCode::FrameSize, "HEADERS too short for its priority"))?;
            depends_on_itself = dependency(priority) == frame.stream;
            fragment = rest;
        }
        let end = frame.has(flag::END_STREAM);
        if frame.has(flag::END_HEADERS) {
            return self.on_block(frame.stream, end, depends_on_itself, fragment);
        }
        let bytes = fragment.to_vec();
        self.open_block = Some(OpenBlock { stream: frame.stream, end, depends_on_itself, frames: 1, bytes });
        Ok(FrameOutcome::Nothing)
    }

    pub(super) fn on_continuation(
        &mut self,
        frame: FrameHead,
        payload: &[u8],
    ) -> Result<FrameOutcome, FrameError> {
        let block = self.open_block.as_mut().ok_or(protocol("CONTINUATION of nothing"))?;
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        let bounds = &self.config.bounds;
        if block.frames > bounds.block_frames_max || block.bytes.len() > bounds.block_bytes_max {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm, "header_block_too_long"));
        }
        if !frame.has(flag::END_HEADERS) {
            return Ok(FrameOutcome::Nothing);
        }
        let block = self.open_block.take().expect("it was there above");
        self.on_block(block.stream, block.end, block.depends_on_itself, &block.bytes)
    }

    /// A whole header block. It is decoded whatever becomes of the stream: the table depends on it.
    fn on_block(
        &mut self,
        number: u32,
        end: bool,
        on_itself: bool,
        block: &[u8],
    ) -> Result<FrameOutcome, FrameError> {
        let opens = self.role == Side::Server && number > self.last_stream;
        let stream = if opens { None } else { self.streams.find(number) };
        if !opens && stream.is_none() && !self.reset.contains(number) {
            return Err(match self.closed.contains(number) {
                true => FrameError::Connection(ErrorCode::StreamClosed, "HEADERS on a closed stream"),
                false => protocol("HEADERS on a stream that cannot be opened"),
            });
        }
        let at = self.decode(block)?;
        if opens {
            self.last_stream = number;
        } else if stream.is_none() {
            return Ok(FrameOutcome::Nothing); // it crossed the reset this end had sent
        }
        if on_itself {
            return Err(FrameError::Stream(number, ErrorCode::Protocol));
        }
        if self.head_at(at).is_too_long() {
            return Err(FrameError::Stream(number, ErrorCode::FrameSize)); // as grpc-go answers
        }
        match stream {
            None => self.open(number, end, at),
            Some(stream) if self.streams.at(stream.slot).head_received => self.on_trailers(stream, end, at),
            Some(stream) => self.on_response(stream, end, at),
        }
    }

    fn decode(&mut self, block: &[u8]) -> Result<HeadAt, FrameError> {
        if let Some(place) = self.block_cache.find(self.decoder.generation(), block) {
            return Ok(HeadAt::Cache(place));
        }
        let indexed = self
            .decoder
            .decode(block, &mut self.scratch)
            .map_err(|_| FrameError::Connection(ErrorCode::Compression, "malformed header block"))?;
        if indexed {
            self.block_cache.remember(self.decoder.generation(), block, &self.scratch, &self.config.bounds);
        }
        Ok(HeadAt::Scratch)
    }

    fn open(&mut self, number: u32, end: bool, at: HeadAt) -> Result<FrameOutcome, FrameError> {
        if self.shutdown_state == ShutdownState::Final {
            // Announced as not served. Its DATA meets a reset stream.
            self.reset.push(number);
            return Ok(FrameOutcome::Nothing);
        }
        if self.streams.len() >= self.config.streams_max as usize {
            return Err(FrameError::Stream(number, ErrorCode::RefusedStream));
        }
        let head = self.head_at(at);
        let content_left = head.content_length();
        if !head.is_request() || (end && content_left.is_some_and(|left| left > 0)) {
            return Err(FrameError::Stream(number, ErrorCode::Protocol));
        }
        let stream = self.add_stream(number, end, content_left);
        Ok(FrameOutcome::Headers { stream, at, end })
    }

    fn add_stream(&mut self, number: u32, end_received: bool, content_left: Option<u64>) -> StreamId {
        self.streams.insert(StreamState {
            id: number,
            begun: self.now,
            sent: Sent::Nothing,
            head_received: true,
            end_received,
            receive_window: self.stream_window,
            window_owed: 0,
            send_window: self.peer.initial_window,
            content_left,
            queue: None,
        })
    }

    fn on_trailers(&mut self, stream: StreamId, end: bool, at: HeadAt) -> Result<FrameOutcome, FrameError> {
        let trailers = self.head_at(at).is_trailers();
        let state = self.streams.at(stream.slot);
        if state.end_received {
            return Err(FrameError::Stream(stream.number, ErrorCode::StreamClosed));
        }
        if !end || !trailers || state.content_left.is_some_and(|left| left > 0) {
            return Err(FrameError::Stream(stream.number, ErrorCode::Protocol));
        }
        self.end_received(stream);
        Ok(FrameOutcome::Trailers { stream, at })
    }

    fn on_response(&mut self, stream: StreamId, end: bool, at: HeadAt) -> Result<FrameOutcome, FrameError> {
        let head = self.head_at(at);
        let interim = head.status().is_some_and(|status| status < 200);
        if !head.is_response() || (interim && end) {
            return Err(FrameError::Stream(stream.number, ErrorCode::Protocol));
        }
        if interim {
            return Ok(FrameOutcome::Nothing);
        }
        let content_left = head.content_length();
        let state = self.streams.at(stream.slot);
        (state.head_received, state.content_left) = (true, content_left);
        if end {
            self.end_received(stream);
        }
        Ok(FrameOutcome::Headers { stream, at, end })
    }
}

/// The stream that a priority names.
pub(super) fn dependency(priority: &[u8; 5]) -> u32 {
    let [a, b, c, d, _] = *priority;
    u32::from_be_bytes([a, b, c, d]) & frame::STREAM_ID_MAX
}
