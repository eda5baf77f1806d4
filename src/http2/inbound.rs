//! All other frames: bodies, windows, resets, settings.

use super::StreamId;
use super::connection::{Connection, ConnectionPhase, ShutdownState, Side};
use super::frame::{self, ErrorCode, FrameHead, WINDOW_BYTES_MAX, flag, kind, setting};
use super::headers::dependency;
use super::receive::{FrameError, FrameOutcome, protocol};
use super::streams::Sent;
use crate::types::Duration;

/// A window is given back in pieces of this part of it.
const CREDIT_PARTS: i64 = 4;

impl Connection {
    /// Gives received bytes of a stream back to its window and the connection's, when the owner has dealt
    /// with them or keeps them under a bound of its own. Right also after the stream has closed.
    pub fn consumed(&mut self, stream: StreamId, bytes: usize) {
        self.consumed_of_connection(bytes);
        self.consumed_of_stream(stream, bytes);
    }

    /// Does the stream's part of [`Connection::consumed`], where the connection's has been done before.
    pub fn consumed_of_stream(&mut self, stream: StreamId, bytes: usize) {
        let part = (self.stream_window / CREDIT_PARTS).max(1);
        if let Some(state) = self.streams.get_mut(stream)
            && !state.end_received
        {
            state.window_owed += bytes as u32;
            if i64::from(state.window_owed) >= part {
                state.receive_window += i64::from(state.window_owed);
                frame::put_number(&mut self.output, kind::WINDOW_UPDATE, stream.number, state.window_owed);
                state.window_owed = 0;
            }
        }
    }

    /// Does the connection's part of [`Connection::consumed`]: the stream may send no more than its window
    /// has left, others are not hindered.
    pub fn consumed_of_connection(&mut self, bytes: usize) {
        if matches!(self.phase, ConnectionPhase::Over(_)) {
            return;
        }
        self.window_owed += bytes as u32;
        if i64::from(self.window_owed) >= i64::from(self.config.bounds.connection_window_bytes) / CREDIT_PARTS
        {
            self.receive_window += i64::from(self.window_owed);
            frame::put_number(&mut self.output, kind::WINDOW_UPDATE, 0, self.window_owed);
            self.window_owed = 0;
        }
    }

    /// Whether the stream was never opened.
    fn is_idle(&self, number: u32) -> bool {
        number > self.last_stream || number.is_multiple_of(2)
    }

    pub(super) fn on_data(&mut self, head: FrameHead, payload: &[u8]) -> Result<FrameOutcome, FrameError> {
        if self.is_idle(head.stream) {
            return Err(protocol("DATA on an idle stream"));
        }
        let range = frame::unpadded(&head, payload).ok_or(protocol("padding exceeds DATA"))?;
        let (whole, body) = (payload.len() as i64, range.len());
        if whole > self.receive_window {
            return Err(FrameError::Connection(
                ErrorCode::FlowControl,
                "DATA exceeds the connection's window",
            ));
        }
        self.receive_window -= whole;
        let step = self.on_body(head, whole, body).map(|found| match found {
            Some((stream, end)) => FrameOutcome::Data { stream, range, end },
            None => FrameOutcome::Nothing,
        });
        match &step {
            Ok(FrameOutcome::Data { stream, .. }) if whole as usize > body => {
                self.consumed(*stream, whole as usize - body)
            }
            Ok(FrameOutcome::Data { .. }) => (),
            _ => self.consumed_of_connection(whole as usize),
        }
        step
    }

    /// Counts `whole` bytes of DATA against the stream, of which `body` are not padding.
    fn on_body(
        &mut self,
        head: FrameHead,
        whole: i64,
        body: usize,
    ) -> Result<Option<(StreamId, bool)>, FrameError> {
        let end = head.has(flag::END_STREAM);
        let Some(stream) = self.streams.find(head.stream) else {
            return match self.reset.contains(head.stream) {
                true => Ok(None), // it crossed the reset this end had sent
                false => Err(FrameError::Stream(head.stream, ErrorCode::StreamClosed)),
            };
        };
        let state = self.streams.at(stream.slot);
        if state.end_received {
            return Err(FrameError::Stream(head.stream, ErrorCode::StreamClosed));
        }
        if whole > state.receive_window {
            return Err(FrameError::Stream(head.stream, ErrorCode::FlowControl));
        }
        state.receive_window -= whole;
        let left = state.content_left.map(|left| left.checked_sub(body as u64));
        if !state.head_received || left == Some(None) || (end && left.flatten().is_some_and(|left| left > 0))
        {
            return Err(FrameError::Stream(head.stream, ErrorCode::Protocol));
        }
        state.content_left = left.flatten();
        if end {
            self.end_received(stream);
        } else if body == 0 {
            self.on_empty_frame()?;
        }
        Ok(Some((stream, end)))
    }

    /// Notes that the other end has ended its side of the stream.
    pub(super) fn end_received(&mut self, stream: StreamId) {
        let state = self.streams.at(stream.slot);
        state.end_received = true;
        if state.sent == Sent::End && state.queue.is_none() {
            self.close(stream);
        }
    }

    /// Counts a frame that says nothing: such frames cost the client nothing, so their rate is bounded.
    pub(super) fn on_empty_frame(&mut self) -> Result<(), FrameError> {
        match self.empty_frames.take(self.now) {
            true => Ok(()),
            false => Err(FrameError::Connection(ErrorCode::EnhanceYourCalm, "too_many_empty_frames")),
        }
    }

    pub(super) fn on_priority(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<FrameOutcome, FrameError> {
        if head.stream == 0 {
            return Err(protocol("PRIORITY on the connection"));
        }
        self.on_empty_frame()?;
        let flaw = match payload.first_chunk::<5>() {
            Some(priority) if payload.len() == 5 => {
                (dependency(priority) == head.stream).then_some(ErrorCode::Protocol)
            }
            _ => Some(ErrorCode::FrameSize),
        };
        match flaw {
            None => Ok(FrameOutcome::Nothing),
            // RST_STREAM may not be sent on an idle stream.
            Some(code) if self.is_idle(head.stream) => {
                Err(FrameError::Connection(code, "malformed PRIORITY on an idle stream"))
            }
            Some(code) => Err(FrameError::Stream(head.stream, code)),
        }
    }

    /// Whether a reset takes back what has not been answered: before the request was whole, or so soon after
    /// that the server had no chance. A client that has had an answer, or waited for it in vain, is done.
    fn is_taken_back(&mut self, stream: StreamId) -> bool {
        let rapid = Duration::from_ms(self.config.bounds.rapid_reset_ms);
        let state = self.streams.at(stream.slot);
        let had_time = self.now.since(state.begun) >= rapid;
        state.sent == Sent::Nothing && !(state.end_received && had_time)
    }

    pub(super) fn on_reset(&mut self, head: FrameHead, payload: &[u8]) -> Result<FrameOutcome, FrameError> {
        let code = number(payload)
            .ok_or(FrameError::Connection(ErrorCode::FrameSize, "RST_STREAM of a wrong size"))?;
        if self.is_idle(head.stream) {
            return Err(protocol("RST_STREAM on an idle stream"));
        }
        let Some(stream) = self.streams.find(head.stream) else { return Ok(FrameOutcome::Nothing) };
        let taken_back = self.role == Side::Server && self.is_taken_back(stream);
        if taken_back && !self.resets.take(self.now) {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm, "too_many_resets"));
        }
        self.forget(stream);
        self.closed.push(head.stream);
        Ok(FrameOutcome::Reset { stream, code })
    }

    pub(super) fn on_goaway(&mut self, head: FrameHead, payload: &[u8]) -> Result<FrameOutcome, FrameError> {
        if head.stream != 0 {
            return Err(protocol("GOAWAY on a stream"));
        }
        let (last, rest) = payload
            .split_first_chunk::<4>()
            .ok_or(FrameError::Connection(ErrorCode::FrameSize, "GOAWAY too short"))?;
        let code = rest
            .first_chunk::<4>()
            .ok_or(FrameError::Connection(ErrorCode::FrameSize, "GOAWAY too short"))?;
        let last = u32::from_be_bytes(*last) & frame::STREAM_ID_MAX;
        self.on_empty_frame()?;
        self.goaway_received = Some(last);
        Ok(FrameOutcome::GoAway { last, code: u32::from_be_bytes(*code) })
    }

    pub(super) fn on_window_update(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<FrameOutcome, FrameError> {
        let more = number(payload)
            .ok_or(FrameError::Connection(ErrorCode::FrameSize, "WINDOW_UPDATE of a wrong size"))?;
        let more = i64::from(more) & WINDOW_BYTES_MAX;
        if head.stream == 0 {
            if more == 0 {
                return Err(protocol("WINDOW_UPDATE of nothing"));
            }
            self.send_window += more;
            if self.send_window > WINDOW_BYTES_MAX {
                return Err(FrameError::Connection(
                    ErrorCode::FlowControl,
                    "the connection's window overflows",
                ));
            }
            self.pump_waiting();
            return Ok(FrameOutcome::Nothing);
        }
        if self.is_idle(head.stream) {
            return Err(protocol("WINDOW_UPDATE on an idle stream"));
        }
        let Some(stream) = self.streams.find(head.stream) else { return Ok(FrameOutcome::Nothing) };
        if more == 0 {
            return Err(FrameError::Stream(head.stream, ErrorCode::Protocol));
        }
        let state = self.streams.at(stream.slot);
        state.send_window += more;
        if state.send_window > WINDOW_BYTES_MAX {
            return Err(FrameError::Stream(head.stream, ErrorCode::FlowControl));
        }
        self.pump(stream);
        Ok(FrameOutcome::Nothing)
    }

    pub(super) fn on_settings(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<FrameOutcome, FrameError> {
        let ack = head.has(flag::ACK);
        if head.stream != 0 {
            return Err(protocol("SETTINGS on a stream"));
        }
        let (parameters, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || (ack && !payload.is_empty()) {
            return Err(FrameError::Connection(ErrorCode::FrameSize, "SETTINGS of a wrong size"));
        }
        if self.role == Side::Server && !self.settings.take(self.now) {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm, "too_many_settings"));
        }
        if ack {
            if self.phase == ConnectionPhase::Settings {
                return Err(protocol("the first frame is not SETTINGS"));
            }
            self.on_settings_ack();
            return Ok(FrameOutcome::Nothing);
        }
        let mut window = self.peer.initial_window;
        for &[a, b, c, d, e, f] in parameters {
            let (name, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.limit(value as usize),
                setting::ENABLE_PUSH if value > 1 => return Err(protocol("ENABLE_PUSH is neither 0 nor 1")),
                setting::MAX_CONCURRENT_STREAMS => self.peer.streams_max = value,
                setting::INITIAL_WINDOW_SIZE => window = i64::from(value),
                setting::MAX_FRAME_SIZE => self.peer.frame_bytes = value as usize,
                _ => (),
            }
            if window > WINDOW_BYTES_MAX {
                return Err(FrameError::Connection(
                    ErrorCode::FlowControl,
                    "INITIAL_WINDOW_SIZE is too large",
                ));
            }
            if !(frame::FRAME_BYTES..=frame::FRAME_BYTES_LIMIT).contains(&self.peer.frame_bytes) {
                return Err(protocol("MAX_FRAME_SIZE is out of bounds"));
            }
        }
        if self.phase == ConnectionPhase::Settings {
            self.phase = ConnectionPhase::Open;
        }
        frame::put_head(&mut self.output, 0, kind::SETTINGS, flag::ACK, 0);
        self.on_initial_window(window)?;
        Ok(FrameOutcome::Nothing)
    }

    /// Streams that are open gain or lose the difference (RFC 9113, 6.9.2). Several values in one frame count
    /// as their last: a frame touches every stream once at most.
    fn on_initial_window(&mut self, window: i64) -> Result<(), FrameError> {
        let gain = window - self.peer.initial_window;
        self.peer.initial_window = window;
        if gain == 0 {
            return Ok(());
        }
        let mut queued = Vec::new();
        for (slot, state) in self.streams.iter_mut() {
            state.send_window += gain;
            if state.send_window > WINDOW_BYTES_MAX {
                return Err(FrameError::Connection(ErrorCode::FlowControl, "a stream's window overflows"));
            }
            if state.queue.is_some() && gain > 0 {
                queued.push(StreamId { number: state.id, slot });
            }
        }
        queued.sort_unstable();
        for stream in queued {
            self.pump(stream);
        }
        Ok(())
    }

    /// Applies this end's settings, which the other end now knows: a window smaller than the initial one holds.
    fn on_settings_ack(&mut self) {
        let window = i64::from(self.config.bounds.stream_window_bytes);
        let loss = self.stream_window - window;
        if loss > 0 {
            self.stream_window = window;
            for (_, state) in self.streams.iter_mut() {
                state.receive_window -= loss;
            }
        }
    }

    pub(super) fn on_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<FrameOutcome, FrameError> {
        if head.stream != 0 {
            return Err(protocol("PING on a stream"));
        }
        let opaque = <&[u8; 8]>::try_from(payload)
            .map_err(|_| FrameError::Connection(ErrorCode::FrameSize, "PING of a wrong size"))?;
        if head.has(flag::ACK) {
            let is_announced = matches!(self.shutdown_state, ShutdownState::Announced { .. });
            if is_announced && self.pings.is_shutdown_ping(opaque) {
                self.shutdown_now();
            }
            self.on_empty_frame()?;
            return Ok(FrameOutcome::Nothing);
        }
        frame::put_head(&mut self.output, 8, kind::PING, flag::ACK, 0);
        self.output.extend_from_slice(opaque);
        let streams = self.streams.len();
        if self.role == Side::Server && !self.pings.allows(&self.config.keepalive, streams, self.now) {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm, "too_many_pings"));
        }
        Ok(FrameOutcome::Nothing)
    }
}

fn number(payload: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(payload).ok().map(u32::from_be_bytes)
}
