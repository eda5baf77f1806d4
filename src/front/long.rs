//! Long messages on their way: encoded and sent as their streams take them, with one budget per turn for all.
//!
//! Of a message that is to be compressed the length is known when all of it is compressed, so that is done
//! first, in slices as well, and what came of it is kept until the client has taken it.

use super::grpc::Http2;
use super::{Ask, NOT_TAKEN, ReaderLoss, Rpc, RpcCounters, too_large};
use crate::api::{Code, Error};
use crate::http2::StreamId;
use crate::http2::grpc::{PREFIX_BYTES, compressed_prefix, prefix};
use crate::limits::READ_SLICE_KEYS;
use crate::types::ConnId;
use crate::wire::encode::LongMessage;
use crate::wire::gzip::Packer;
use crate::wire::{CallKind, TooLong};
use std::collections::VecDeque;

/// The streams of a connection that send long messages.
#[derive(Default)]
pub(super) struct LongMessages {
    streams: VecDeque<StreamId>,
    /// Bytes of streams' messages that are not written yet: an answer is judged by what waits beside it.
    left: usize,
}

impl LongMessages {
    pub fn any(&self) -> bool {
        !self.streams.is_empty()
    }

    pub fn left(&self) -> usize {
        self.left
    }
}

/// A long message on its way.
pub(super) struct Sending {
    message: LongMessage,
    stage: SendStage,
}

enum SendStage {
    Measuring,
    Packing(Box<Packer>),
    /// The first bytes are sent; the others are encoded from the message as the stream takes them.
    Plain,
    /// The message is compressed, and `bytes` are sent up to `sent`.
    Packed {
        bytes: Vec<u8>,
        sent: usize,
    },
}

impl Sending {
    fn new(mut message: LongMessage) -> Sending {
        // What one slice has read is measured at once, as it is less work: others are judged by it.
        message.measure(READ_SLICE_KEYS);
        Sending { message, stage: SendStage::Measuring }
    }

    pub fn has_begun(&self) -> bool {
        matches!(self.stage, SendStage::Plain | SendStage::Packed { .. })
    }

    /// Bytes it holds, of its own memory and of the store's.
    fn kept_bytes(&self) -> usize {
        self.message.kept_bytes()
            + match &self.stage {
                SendStage::Measuring | SendStage::Plain => 0,
                SendStage::Packing(packer) => packer.kept_bytes(),
                SendStage::Packed { bytes, .. } => bytes.capacity(),
            }
    }

    /// Bytes of a message that has begun to be encoded and that are not sent yet.
    fn begun_bytes(&self) -> usize {
        match &self.stage {
            SendStage::Measuring => 0,
            SendStage::Packing(packer) => packer.kept_bytes(),
            SendStage::Plain => self.message.left(),
            SendStage::Packed { bytes, sent } => bytes.len() - sent,
        }
    }

    /// Goes on until the length is known, and returns the prefix to send. `None` where the turn's budget is
    /// spent.
    fn begin(&mut self, packs: bool, turn: &mut SendTurn<'_>) -> Option<Result<[u8; PREFIX_BYTES], TooLong>> {
        if let SendStage::Measuring = self.stage {
            if turn.elements == 0 {
                return None;
            }
            let elements = std::mem::take(&mut turn.elements);
            let bytes = self.message.measure(elements)?;
            if bytes > turn.bytes_max {
                return Some(Err(TooLong { bytes }));
            }
            if !packs {
                self.stage = SendStage::Plain;
                return Some(Ok(prefix(bytes)));
            }
            self.stage = SendStage::Packing(Box::new(Packer::new(0)));
        }
        let SendStage::Packing(packer) = &mut self.stage else { unreachable!("a message begins once") };
        if turn.packs == 0 {
            return None;
        }
        turn.scratch.clear();
        let done = self.message.write(turn.scratch, turn.packs);
        turn.packs = turn.packs.saturating_sub(turn.scratch.len());
        packer.pack(turn.scratch);
        if !done {
            return None;
        }
        let SendStage::Packing(packer) = std::mem::replace(&mut self.stage, SendStage::Measuring) else {
            unreachable!("it was so above")
        };
        let bytes = packer.finish();
        let prefix = compressed_prefix(bytes.len());
        self.stage = SendStage::Packed { bytes, sent: 0 };
        Some(Ok(prefix))
    }

    /// Writes about `bytes_max` bytes. Returns whether that was the last of them.
    fn write(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        match &mut self.stage {
            SendStage::Packed { bytes, sent } => {
                let upto = bytes.len().min(*sent + bytes_max);
                out.extend_from_slice(&bytes[*sent..upto]);
                *sent = upto;
                upto == bytes.len()
            }
            _ => self.message.write(out, bytes_max),
        }
    }
}

/// What one turn may spend on long messages, and which streams it has finished with.
pub(super) struct SendTurn<'a> {
    pub bytes: usize,
    /// Bytes to be compressed.
    pub packs: usize,
    pub elements: usize,
    /// The longest message that is sent.
    pub bytes_max: usize,
    pub scratch: &'a mut Vec<u8>,
    pub counters: &'a mut RpcCounters,
    /// Streams that may send their next message.
    pub free: Vec<StreamId>,
    /// Streams that have ended because their message could not be sent.
    pub lost: Vec<StreamId>,
}

/// How far the turn has come with a long message.
enum SendProgress {
    Done,
    /// The turn's budget is spent.
    BudgetSpent,
    /// It waits for the client or for the socket.
    Blocked,
}

impl Http2 {
    pub fn begin_long(&mut self, stream: StreamId, message: LongMessage) {
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

    pub fn send_longs(&mut self, capacity: usize, turn: &mut SendTurn<'_>) -> bool {
        let mut again = false;
        for _ in 0..self.longs.streams.len() {
            let Some(stream) = self.longs.streams.pop_front() else { break };
            // A call that is gone has taken its message along.
            let Some(call) = self.calls.get_mut(stream) else { continue };
            let Some(mut sending) = call.long.take() else { continue };
            let progress = self.send_long(stream, &mut sending, capacity, turn);
            if let SendProgress::Done = progress {
                continue;
            }
            again |= matches!(progress, SendProgress::BudgetSpent);
            let call = self.calls.get_mut(stream).expect("its message is not at its end");
            call.long = Some(sending);
            self.longs.streams.push_back(stream);
        }
        self.longs.left = 0;
        for stream in &self.longs.streams {
            let Some(call) = self.calls.get(*stream) else { continue };
            let Some(sending) = &call.long else { continue };
            match call.method.kind() {
                CallKind::Unary => self.calls.hold(*stream, sending.kept_bytes()),
                _ => self.longs.left += sending.begun_bytes(),
            }
        }
        again
    }

    /// Ends the answers of which nothing was taken in more than `checks_max` looks, while others wait. Where
    /// the socket holds them back and takes something, be it another stream's, they are on their way.
    pub fn end_unread(
        &mut self,
        id: ConnId,
        checks_max: u32,
        moves: bool,
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> ReaderLoss {
        let Http2 { connection, calls, .. } = self;
        let mut loss = ReaderLoss::default();
        for (stream, bytes) in calls.unread(checks_max, moves, |stream| connection.pending_of(stream)) {
            loss.answers += 1;
            loss.bytes += bytes as u64;
            asks.push(Ask::Gone { rpc: Rpc::stream(id, stream) });
            let (code, text) = (Code::ResourceExhausted, NOT_TAKEN.into());
            self.finish(stream, Err(Error::Other { code, text }), counters);
        }
        loss
    }

    fn send_long(
        &mut self,
        stream: StreamId,
        sending: &mut Sending,
        capacity: usize,
        turn: &mut SendTurn<'_>,
    ) -> SendProgress {
        if !sending.has_begun() {
            let Some(call) = self.calls.get_mut(stream) else { return SendProgress::Done };
            call.checks = 0; // its client has nothing to take yet
            match sending.begin(call.encoding.gzip, turn) {
                None => return SendProgress::BudgetSpent,
                Some(Err(too_long)) => {
                    self.refuse_long(stream, too_long, turn);
                    return SendProgress::Done;
                }
                Some(Ok(prefix)) => self.send_beginning(stream, &prefix, turn.counters),
            }
        }
        loop {
            let budget = self.connection.send_budget(stream).min(capacity);
            if budget == 0 {
                return SendProgress::Blocked;
            }
            if turn.bytes == 0 {
                return SendProgress::BudgetSpent;
            }
            turn.scratch.clear();
            let done = sending.write(turn.scratch, budget.min(turn.bytes));
            turn.bytes = turn.bytes.saturating_sub(turn.scratch.len());
            if let Some(call) = self.calls.get_mut(stream) {
                call.checks = 0;
            }
            if !self.connection.send_data(stream, turn.scratch, false) {
                if let Some(call) = self.calls.remove(stream) {
                    turn.counters.ended(call.method, Code::ResourceExhausted, call.begun);
                }
                turn.lost.push(stream);
                return SendProgress::Done;
            }
            if done {
                self.end_long(stream, turn);
                return SendProgress::Done;
            }
        }
    }

    fn send_beginning(&mut self, stream: StreamId, prefix: &[u8], counters: &mut RpcCounters) {
        let call = self.calls.get_mut(stream).expect("its message is being sent");
        counters.of_mut(call.method).messages_sent += 1;
        if !std::mem::replace(&mut call.has_sent, true) {
            let encoding = call.encoding.clone();
            self.head(stream, &encoding);
        }
        self.connection.send_data(stream, prefix, false);
    }

    fn end_long(&mut self, stream: StreamId, turn: &mut SendTurn<'_>) {
        if !self.is_unary(stream) {
            return turn.free.push(stream);
        }
        self.connection.send_trailers(stream, Code::Ok as u8, "");
        if let Some(call) = self.calls.remove(stream) {
            turn.counters.ended(call.method, Code::Ok, call.begun);
        }
    }

    fn refuse_long(&mut self, stream: StreamId, too_long: TooLong, turn: &mut SendTurn<'_>) {
        if !self.is_unary(stream) {
            let error = too_large("", too_long, turn.bytes_max);
            self.finish(stream, Err(error), turn.counters);
            return turn.lost.push(stream);
        }
        let error = too_large("grpc: ", too_long, turn.bytes_max);
        self.answer(stream, Err(&error), turn.counters);
    }

    fn is_unary(&self, stream: StreamId) -> bool {
        self.calls.get(stream).is_some_and(|call| call.method.kind() == CallKind::Unary)
    }
}
