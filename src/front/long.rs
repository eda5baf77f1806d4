//! Long messages on their way: encoded and sent as their streams take them, so much a turn for all of them.
//!
//! Of a message that is to be compressed the length is known when all of it is compressed, so that is done first,
//! in slices as well, and what came of it is kept until the client has taken it.

use super::grpc::Http2;
use super::{Ask, Counters, NOT_TAKEN, Rpc, Untaken, too_large};
use crate::api::{Code, Error};
use crate::http2::StreamId;
use crate::http2::grpc::{PREFIX_BYTES, compressed_prefix, prefix};
use crate::limits::READ_SLICE_KEYS;
use crate::types::ConnId;
use crate::wire::encode::Long;
use crate::wire::gzip::Packer;
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

/// A long message on its way.
pub(super) struct Sending {
    message: Long,
    stage: Stage,
}

enum Stage {
    Measuring,
    Packing(Box<Packer>),
    /// Its first bytes are sent; the others are written from what it holds.
    Plain,
    /// The same of what it was compressed to, sent up to there.
    Packed {
        bytes: Vec<u8>,
        sent: usize,
    },
}

impl Sending {
    fn new(mut message: Long) -> Sending {
        // What one slice has read is measured at once, as it is less work: others are judged by it.
        message.measure(READ_SLICE_KEYS);
        Sending { message, stage: Stage::Measuring }
    }

    pub fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Plain | Stage::Packed { .. })
    }

    /// What it holds, of its own and of the store's.
    fn kept_bytes(&self) -> usize {
        self.message.kept_bytes()
            + match &self.stage {
                Stage::Measuring | Stage::Plain => 0,
                Stage::Packing(packer) => packer.kept_bytes(),
                Stage::Packed { bytes, .. } => bytes.capacity(),
            }
    }

    /// What is encoded and not sent yet, or has begun to be.
    fn begun_bytes(&self) -> usize {
        match &self.stage {
            Stage::Measuring => 0,
            Stage::Packing(packer) => packer.kept_bytes(),
            Stage::Plain => self.message.left(),
            Stage::Packed { bytes, sent } => bytes.len() - sent,
        }
    }

    /// Goes on until the first bytes can be sent, which say how long it is: then those. None where the turn has
    /// done enough.
    fn begin(&mut self, packs: bool, pump: &mut Pump<'_>) -> Option<Result<[u8; PREFIX_BYTES], TooLong>> {
        if let Stage::Measuring = self.stage {
            if pump.elements == 0 {
                return None;
            }
            let elements = std::mem::take(&mut pump.elements);
            let bytes = self.message.measure(elements)?;
            if bytes > pump.bytes_max {
                return Some(Err(TooLong { bytes }));
            }
            if !packs {
                self.stage = Stage::Plain;
                return Some(Ok(prefix(bytes)));
            }
            self.stage = Stage::Packing(Box::new(Packer::new(0)));
        }
        let Stage::Packing(packer) = &mut self.stage else { unreachable!("a message begins once") };
        if pump.packs == 0 {
            return None;
        }
        pump.scratch.clear();
        let done = self.message.write(pump.scratch, pump.packs);
        pump.packs = pump.packs.saturating_sub(pump.scratch.len());
        packer.pack(pump.scratch);
        if !done {
            return None;
        }
        let Stage::Packing(packer) = std::mem::replace(&mut self.stage, Stage::Measuring) else {
            unreachable!("it was so above")
        };
        let bytes = packer.finish();
        let prefix = compressed_prefix(bytes.len());
        self.stage = Stage::Packed { bytes, sent: 0 };
        Some(Ok(prefix))
    }

    /// Writes about so many bytes; true with the last.
    fn write(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        match &mut self.stage {
            Stage::Packed { bytes, sent } => {
                let upto = bytes.len().min(*sent + bytes_max);
                out.extend_from_slice(&bytes[*sent..upto]);
                *sent = upto;
                upto == bytes.len()
            }
            _ => self.message.write(out, bytes_max),
        }
    }
}

/// What one turn may do, and what came of it.
pub(super) struct Pump<'a> {
    pub bytes: usize,
    /// Bytes to be compressed.
    pub packs: usize,
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
    pub fn begin_long(&mut self, stream: StreamId, message: Long) {
        let Some(call) = self.calls.get_mut(stream) else { return };
        assert!(call.long.is_none(), "messages of a stream follow each other");
        let sending = Sending::new(message);
        let bytes = sending.kept_bytes();
        call.long = Some(Box::new(sending));
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
                Kind::Unary => self.calls.hold(*stream, sending.kept_bytes()),
                _ => self.longs.left += sending.begun_bytes(),
            }
        }
        again
    }

    /// While others wait: ends the answers of which nothing was taken in so many looks. Where the socket holds
    /// them back and takes something, be it another stream's, they are on their way.
    pub fn end_unread(
        &mut self,
        id: ConnId,
        checks_max: u32,
        moves: bool,
        counters: &mut Counters,
        asks: &mut Vec<Ask>,
    ) -> Untaken {
        let Http2 { connection, calls, .. } = self;
        let mut untaken = Untaken::default();
        for (stream, bytes) in calls.unread(checks_max, moves, |stream| connection.pending_of(stream)) {
            untaken.answers += 1;
            untaken.bytes += bytes as u64;
            asks.push(Ask::Gone { rpc: Rpc::stream(id, stream) });
            let (code, text) = (Code::ResourceExhausted, NOT_TAKEN.into());
            self.finish(stream, Err(Error::Other { code, text }), counters);
        }
        untaken
    }

    fn pump_long(
        &mut self,
        stream: StreamId,
        sending: &mut Sending,
        room: usize,
        pump: &mut Pump<'_>,
    ) -> Came {
        if !sending.has_begun() {
            let Some(call) = self.calls.get_mut(stream) else { return Came::ToItsEnd };
            call.checks = 0; // its client has nothing to take yet
            match sending.begin(call.style.gzip, pump) {
                None => return Came::Enough,
                Some(Err(too_long)) => {
                    self.refuse_long(stream, too_long, pump);
                    return Came::ToItsEnd;
                }
                Some(Ok(prefix)) => self.send_beginning(stream, &prefix, pump.counters),
            }
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
            let done = sending.write(pump.scratch, budget.min(pump.bytes));
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

    fn send_beginning(&mut self, stream: StreamId, prefix: &[u8], counters: &mut Counters) {
        let call = self.calls.get_mut(stream).expect("its message is being sent");
        counters.of_mut(call.method).messages_sent += 1;
        if !std::mem::replace(&mut call.has_sent, true) {
            let style = call.style.clone();
            self.head(stream, &style);
        }
        self.connection.send_data(stream, prefix, false);
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
