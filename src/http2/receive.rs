//! Received bytes to frames, frames to events.

use super::connection::{Connection, ConnectionPhase};
use super::frame::{ErrorCode, FRAME_BYTES, FrameHead, HEAD_BYTES, PREFACE, kind};
use super::headers::HeadAt;
use super::{ConnectionError, Http2Event, StreamId};
use crate::limits::HTTP2_PARTIAL_FRAME_KEEP_BYTES;
use crate::types::Time;
use std::ops::Range;

/// What a frame comes to, without borrowing from it.
pub(super) enum FrameOutcome {
    Nothing,
    Headers { stream: StreamId, at: HeadAt, end: bool },
    Data { stream: StreamId, range: Range<usize>, end: bool },
    Trailers { stream: StreamId, at: HeadAt },
    Reset { stream: StreamId, code: u32 },
    Writable { stream: StreamId },
    GoAway { last: u32, code: u32 },
}

/// An error in a frame: of the connection, or of one stream (RFC 9113, section 5.4).
pub(super) enum FrameError {
    Connection(ErrorCode, &'static str),
    Stream(u32, ErrorCode),
}

pub(super) const fn protocol(why: &'static str) -> FrameError {
    FrameError::Connection(ErrorCode::Protocol, why)
}

impl Connection {
    /// Reads `bytes` up to the next event and moves their beginning there; `None` when all are read. What an
    /// event lends is valid until the next call.
    ///
    /// An error is the connection's end: the output says why to the other end, and nothing follows.
    pub fn receive<'a, 'b: 'a>(
        &'a mut self,
        now: Time,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Http2Event<'a>>, ConnectionError> {
        self.now = now;
        if let ConnectionPhase::Over(fault) = self.phase {
            return Err(fault);
        }
        if self.assembled.capacity() > HTTP2_PARTIAL_FRAME_KEEP_BYTES {
            self.assembled = Vec::new();
        }
        if !bytes.is_empty() {
            self.pings.on_read(now);
        }
        let (step, payload): (FrameOutcome, Option<&'b [u8]>) = loop {
            if let Some(stream) = self.writable.pop() {
                break (FrameOutcome::Writable { stream }, None);
            }
            if let ConnectionPhase::Preface(matched) = self.phase {
                self.preface(matched, bytes)?;
                if bytes.is_empty() {
                    return Ok(None);
                }
            }
            let (step, payload) = match self.whole_frame(bytes)? {
                Some((head, payload)) => (self.frame(head, payload)?, Some(payload)),
                None if self.gather(bytes)? => (self.assembled_frame()?, None),
                None => return Ok(None),
            };
            if !matches!(step, FrameOutcome::Nothing) {
                break (step, payload);
            }
        };
        Ok(Some(self.event(step, payload)))
    }

    fn event<'a>(&'a self, step: FrameOutcome, payload: Option<&'a [u8]>) -> Http2Event<'a> {
        match step {
            FrameOutcome::Nothing => unreachable!("a frame that says nothing is no event"),
            FrameOutcome::Headers { stream, at, end } => {
                Http2Event::Headers { stream, head: self.head_at(at), end }
            }
            FrameOutcome::Data { stream, range, end } => {
                let payload = payload.unwrap_or_else(|| &self.assembled[HEAD_BYTES..]);
                Http2Event::Data { stream, bytes: &payload[range], end }
            }
            FrameOutcome::Trailers { stream, at } => Http2Event::Trailers { stream, head: self.head_at(at) },
            FrameOutcome::Reset { stream, code } => Http2Event::Reset { stream, code },
            FrameOutcome::Writable { stream } => Http2Event::Writable { stream },
            FrameOutcome::GoAway { last, code } => Http2Event::GoAway { last, code },
        }
    }

    fn preface(&mut self, matched: usize, bytes: &mut &[u8]) -> Result<(), ConnectionError> {
        let n = bytes.len().min(PREFACE.len() - matched);
        let (begin, rest) = bytes.split_at(n);
        if begin != &PREFACE[matched..matched + n] {
            return Err(self.fail(ErrorCode::Protocol, "no preface of HTTP/2"));
        }
        *bytes = rest;
        let matched = matched + n;
        self.phase = if matched == PREFACE.len() {
            ConnectionPhase::Settings
        } else {
            ConnectionPhase::Preface(matched)
        };
        Ok(())
    }

    /// The next frame, where it lies in `bytes` as a whole.
    fn whole_frame<'a>(
        &mut self,
        bytes: &mut &'a [u8],
    ) -> Result<Option<(FrameHead, &'a [u8])>, ConnectionError> {
        if !self.partial_frame.is_empty() {
            return Ok(None);
        }
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let head = self.frame_head(head)?;
        let Some((payload, rest)) = rest.split_at_checked(head.len) else { return Ok(None) };
        *bytes = rest;
        Ok(Some((head, payload)))
    }

    fn frame_head(&mut self, bytes: &[u8; HEAD_BYTES]) -> Result<FrameHead, ConnectionError> {
        let head = FrameHead::read(bytes);
        if head.len > FRAME_BYTES {
            return Err(self.fail(ErrorCode::FrameSize, "frame above SETTINGS_MAX_FRAME_SIZE"));
        }
        Ok(head)
    }

    /// Collects a frame that is split over several receives. Returns whether it is whole.
    fn gather(&mut self, bytes: &mut &[u8]) -> Result<bool, ConnectionError> {
        if self.partial_frame.is_empty() {
            std::mem::swap(&mut self.partial_frame, &mut self.assembled);
            self.partial_frame.clear();
        }
        self.gather_to(HEAD_BYTES, bytes);
        let Some(head) = self.partial_frame.first_chunk::<HEAD_BYTES>() else { return Ok(false) };
        let head = *head;
        let whole = HEAD_BYTES + self.frame_head(&head)?.len;
        self.gather_to(whole, bytes);
        Ok(self.partial_frame.len() == whole)
    }

    fn gather_to(&mut self, len: usize, bytes: &mut &[u8]) {
        let lacking = len.saturating_sub(self.partial_frame.len());
        let (taken, rest) = bytes.split_at(lacking.min(bytes.len()));
        self.partial_frame.extend_from_slice(taken);
        *bytes = rest;
    }

    fn assembled_frame(&mut self) -> Result<FrameOutcome, ConnectionError> {
        let partial_frame = std::mem::take(&mut self.partial_frame);
        let (head, payload) =
            partial_frame.split_first_chunk::<HEAD_BYTES>().expect("a whole frame has a head");
        let step = self.frame(FrameHead::read(head), payload);
        self.assembled = partial_frame;
        step
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<FrameOutcome, ConnectionError> {
        let flaw = match self.apply(head, payload) {
            Ok(step) => return Ok(step),
            Err(flaw) => flaw,
        };
        match flaw {
            FrameError::Connection(code, why) => Err(self.fail(code, why)),
            FrameError::Stream(number, code) => {
                // Only a stream that was open has cost the owner work.
                let stream = self.streams.find(number);
                if stream.is_some() && !self.resets.take(self.now) {
                    return Err(self.fail(ErrorCode::EnhanceYourCalm, "too_many_resets"));
                }
                self.put_reset(number, code);
                Ok(stream.map_or(FrameOutcome::Nothing, |stream| {
                    self.forget(stream);
                    FrameOutcome::Reset { stream, code: code as u32 }
                }))
            }
        }
    }

    fn apply(&mut self, head: FrameHead, payload: &[u8]) -> Result<FrameOutcome, FrameError> {
        if let Some(block) = &self.open_block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(protocol("a header block was interrupted"));
        }
        if self.phase == ConnectionPhase::Settings && head.kind != kind::SETTINGS {
            return Err(protocol("the first frame is not SETTINGS"));
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload),
            kind::HEADERS => self.on_headers(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            kind::RST_STREAM => self.on_reset(head, payload),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::PING => self.on_ping(head, payload),
            kind::GOAWAY => self.on_goaway(head, payload),
            kind::PRIORITY => self.on_priority(head, payload),
            kind::PUSH_PROMISE => Err(protocol("PUSH_PROMISE was not allowed")),
            _ => self.on_empty_frame().map(|()| FrameOutcome::Nothing),
        }
    }
}
