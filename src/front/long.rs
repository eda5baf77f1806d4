//! Long messages on their way: encoded and sent as their streams take them, so much a turn for all of them.

use super::grpc::Http2;
use super::rpc::Sending;
use super::{Ask, Counters, Rpc, too_large};
use crate::api::{Code, Error};
use crate::http2::StreamId;
use crate::http2::grpc::prefix;
use crate::limits::READ_SLICE_KEYS;
use crate::types::ConnId;
use crate::wire::encode::Long;
use crate::wire::{Kind, TooLong};
use std::collections::VecDeque;

/// The streams of a connection that send long messages.
#[derive(Default)]
pub(super) struct Longs {
    streams: VecDeque<StreamId>,
    /// Bytes that are not written of streams' messages: an answer is judged by what waits beside it.
    left: usize,
}

impl Longs {
    pub fn any(&self) -> bool {
        !self.streams.is_empty()
    }

    pub fn left(&self) -> usize {
        self.left
    }
}

/// What one turn may do, and what came of it.
pub(super) struct Pump<'a> {
    pub bytes: usize,
    pub elements: usize,
    /// The longest message that is sent.
    pub bytes_max: usize,
    pub scratch: &'a mut Vec<u8>,
    pub counters: &'a mut Counters,
    /// Streams that may send their next message.
    pub free: Vec<StreamId>,
    /// Streams that have ended for what they had to send.
    pub lost: Vec<StreamId>,
}

/// How far a long message has come.
enum Came {
    ToItsEnd,
    /// The turn has done enough.
    Enough,
    /// It waits for the client or for the socket.
    Held,
}

impl Http2 {
    pub fn begin_long(&mut self, stream: StreamId, mut message: Long) {
        let Some(call) = self.calls.get_mut(stream) else { return };
        assert!(call.long.is_none(), "messages of a stream follow each other");
        // What one slice has read is measured at once, as it is less work: others are judged by it.
        message.measure(READ_SLICE_KEYS);
        let bytes = message.kept_bytes();
        call.long = Some(Box::new(Sending { message, begun: false }));
        self.longs.streams.push_back(stream);
        if self.is_unary(stream) {
            self.calls.hold(stream, bytes);
        }
    }

    pub fn pump_longs(&mut self, room: usize, pump: &mut Pump<'_>) -> bool {
        let mut again = false;
        for _ in 0..self.longs.streams.len() {
            let Some(stream) = self.longs.streams.pop_front() else { break };
            // A call that is gone has taken its message along.
            let Some(call) = self.calls.get_mut(stream) else { continue };
            let Some(mut sending) = call.long.take() else { continue };
            let came = self.pump_long(stream, &mut sending, room, pump);
            if let Came::ToItsEnd = came {
                continue;
            }
            again |= matches!(came, Came::Enough);
            let call = self.calls.get_mut(stream).expect("its message is not at its end");
            call.long = Some(sending);
            self.longs.streams.push_back(stream);
        }
        self.longs.left = 0;
        for stream in &self.longs.streams {
            let Some(call) = self.calls.get(*stream) else { continue };
            let Some(sending) = &call.long else { continue };
            match call.method.kind() {
                Kind::Unary => self.calls.hold(*stream, sending.message.kept_bytes()),
                _ if sending.begun => self.longs.left += sending.message.left(),
                _ => {}
            }
        }
        again
    }

    /// While others wait: ends the answers of which nothing was taken for long. Where the socket holds them back
    /// and takes something, be it another stream's, they are on their way.
    pub fn end_unread(&mut self, id: ConnId, moves: bool, counters: &mut Counters, asks: &mut Vec<Ask>) {
        let Http2 { connection, calls, .. } = self;
        for stream in calls.unread(moves, |stream| connection.pending_of(stream)) {
            asks.push(Ask::Gone { rpc: Rpc::stream(id, stream) });
            let (code, text) =
                (Code::ResourceExhausted, "etcdserver: the answer was not taken in time".into());
            self.finish(stream, Err(Error::Other { code, text }), counters);
        }
    }

    fn pump_long(
        &mut self,
        stream: StreamId,
        sending: &mut Sending,
        room: usize,
        pump: &mut Pump<'_>,
    ) -> Came {
        if !sending.begun {
            if pump.elements == 0 {
                return Came::Enough;
            }
            let elements = std::mem::take(&mut pump.elements);
            let Some(bytes) = sending.message.measure(elements) else { return Came::Enough };
            if bytes > pump.bytes_max {
                self.refuse_long(stream, TooLong { bytes }, pump);
                return Came::ToItsEnd;
            }
            self.send_beginning(stream, bytes, pump.counters);
            sending.begun = true;
        }
        loop {
            let budget = self.connection.send_budget(stream).min(room);
            if budget == 0 {
                return Came::Held;
            }
            if pump.bytes == 0 {
                return Came::Enough;
            }
            pump.scratch.clear();
            let done = sending.message.write(pump.scratch, budget.min(pump.bytes));
            pump.bytes = pump.bytes.saturating_sub(pump.scratch.len());
            if let Some(call) = self.calls.get_mut(stream) {
                call.checks = 0;
            }
            if !self.connection.send_data(stream, pump.scratch, false) {
                if let Some(call) = self.calls.remove(stream) {
                    pump.counters.ended(call.method, Code::ResourceExhausted, call.begun);
                }
                pump.lost.push(stream);
                return Came::ToItsEnd;
            }
            if done {
                self.end_long(stream, pump);
                return Came::ToItsEnd;
            }
        }
    }

    fn send_beginning(&mut self, stream: StreamId, bytes: usize, counters: &mut Counters) {
        let call = self.calls.get_mut(stream).expect("its message is being sent");
        counters.of_mut(call.method).messages_sent += 1;
        if !std::mem::replace(&mut call.has_sent, true) {
            let style = call.style.clone();
            self.head(stream, &style);
        }
        self.connection.send_data(stream, &prefix(bytes), false);
    }

    fn end_long(&mut self, stream: StreamId, pump: &mut Pump<'_>) {
        if !self.is_unary(stream) {
            return pump.free.push(stream);
        }
        self.connection.send_trailers(stream, Code::Ok as u8, "");
        if let Some(call) = self.calls.remove(stream) {
            pump.counters.ended(call.method, Code::Ok, call.begun);
        }
    }

    fn refuse_long(&mut self, stream: StreamId, too_long: TooLong, pump: &mut Pump<'_>) {
        if !self.is_unary(stream) {
            let error = too_large("", too_long, pump.bytes_max);
            self.finish(stream, Err(error), pump.counters);
            return pump.lost.push(stream);
        }
        let error = too_large("grpc: ", too_long, pump.bytes_max);
        self.answer(stream, Err(&error), pump.counters);
    }

    fn is_unary(&self, stream: StreamId) -> bool {
        self.calls.get(stream).is_some_and(|call| call.method.kind() == Kind::Unary)
    }
}
