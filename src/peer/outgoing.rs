//! From messages to frames: what goes first, what waits, and what is cut.

use super::frame::{FrameKind, HEADER_BYTES, LinkHeader, length};
use super::message::{Hello, PeerMessage};
use super::records::{LIST_BYTES, write_hello, write_messages};
use crate::limits::{
    PEER_COPIED_BYTES_MAX, PEER_HEAD_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, PEER_REFUSAL_BYTES_MAX, PeerBounds,
};
use crate::record::Chunk;
use bytes::Bytes;
use std::collections::VecDeque;

/// Why a message is not sent, and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The other end has not answered yet, or the link has ended.
    NotUp,
    /// Too much waits already.
    Full,
    /// It is longer than any message may be.
    TooLong,
}

/// Messages that wait, in order.
#[derive(Default)]
struct SendQueue {
    /// With the bytes of the head and of the payloads of each.
    messages: VecDeque<(PeerMessage, usize, usize)>,
    /// Answers, and all others: what else waits takes no answer's place.
    answers: Load,
    rest: Load,
}

/// What waits of one kind.
#[derive(Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl SendQueue {
    fn load(&mut self, message: &PeerMessage) -> &mut Load {
        if message.is_answer() { &mut self.answers } else { &mut self.rest }
    }

    fn push(&mut self, message: PeerMessage, bounds: &PeerBounds) -> Result<(), NotSent> {
        let head = message.head_bytes();
        let payloads: usize = message.payloads().map(|payload| payload.bytes().len()).sum();
        if LIST_BYTES + head > PEER_HEAD_BYTES_MAX || LIST_BYTES + head + payloads > PEER_MESSAGE_BYTES_MAX {
            return Err(NotSent::TooLong);
        }
        let load = self.load(&message);
        let is_full = load.messages >= bounds.queued_messages_max
            || load.bytes + head + payloads > bounds.queued_bytes_max;
        // A long one has to get through by itself.
        if is_full && load.messages > 0 {
            return Err(NotSent::Full);
        }
        load.messages += 1;
        load.bytes += head + payloads;
        self.messages.push_back((message, head, payloads));
        Ok(())
    }

    fn pop(&mut self) -> Option<(PeerMessage, usize)> {
        let (message, head, payloads) = self.messages.pop_front()?;
        let load = self.load(&message);
        load.messages -= 1;
        load.bytes -= head + payloads;
        Some((message, head + payloads))
    }

    /// What the next one takes of a frame.
    fn next_bytes(&self) -> Option<usize> {
        self.messages.front().map(|(_, head, payloads)| head + payloads)
    }

    /// Moves messages into a frame's list as long as they fit; how much room they leave.
    fn fill(&mut self, room: usize, list: &mut Vec<PeerMessage>) -> usize {
        let mut left = room;
        while let Some(bytes) = self.next_bytes().filter(|bytes| *bytes <= left)
            && let Some((message, _)) = self.pop()
        {
            left -= bytes;
            list.push(message);
        }
        left
    }
}

/// A message that goes in parts.
struct CutMessage {
    head: u32,
    payloads: u32,
    /// How much of it has gone.
    place: usize,
    rest: VecDeque<Bytes>,
}

pub(super) struct Outgoing {
    bounds: PeerBounds,
    first: SendQueue,
    others: SendQueue,
    long: Option<CutMessage>,
    /// Of the next frame.
    number: u64,
    /// Handed out, and not with the kernel.
    unsent: usize,
    /// The frame that comes before all messages, or ends them.
    greeting: Vec<Chunk>,
    /// Whether these are due.
    ping: bool,
    pong: bool,
    word: bool,
}

impl Outgoing {
    pub fn new(bounds: PeerBounds) -> Outgoing {
        Outgoing {
            bounds,
            first: SendQueue::default(),
            others: SendQueue::default(),
            long: None,
            number: 0,
            unsent: 0,
            greeting: vec![],
            ping: false,
            pong: false,
            word: false,
        }
    }

    pub fn push(&mut self, message: PeerMessage) -> Result<(), NotSent> {
        let waiting = if message.goes_first() { &mut self.first } else { &mut self.others };
        waiting.push(message, &self.bounds)
    }

    pub fn hello(&mut self, hello: &Hello) {
        let first = write_hello(hello, vec![0; HEADER_BYTES]);
        let head = first.len() - HEADER_BYTES;
        self.greet(FrameKind::Hello, first, head);
    }

    /// Why there is to be no link, cut to what may be said.
    pub fn refusal(&mut self, why: &str) {
        let text = &why[..why.floor_char_boundary(PEER_REFUSAL_BYTES_MAX)];
        let first = [&[0; HEADER_BYTES], text.as_bytes()].concat();
        self.greet(FrameKind::Refusal, first, text.len());
    }

    pub fn ping(&mut self) {
        self.ping = true;
    }

    /// Several pings are answered by one pong, where they come faster than it goes.
    pub fn pong(&mut self) {
        self.pong = true;
    }

    /// A pong that nobody has asked for.
    pub fn word(&mut self) {
        self.word = true;
    }

    fn greet(&mut self, kind: FrameKind, first: Vec<u8>, head: usize) {
        let header = LinkHeader::whole(kind, self.number, head, 0);
        let mut out = std::mem::take(&mut self.greeting);
        self.finish(header, vec![Chunk::Bytes(first)], &mut out);
        self.greeting = out;
    }

    /// So many bytes are with the kernel.
    pub fn sent(&mut self, bytes: usize) {
        assert!(bytes <= self.unsent, "{bytes} bytes were sent of {}", self.unsent);
        self.unsent -= bytes;
    }

    /// Hands out what begins or ends a link.
    pub fn flush_greeting(&mut self, out: &mut Vec<Chunk>) {
        out.append(&mut self.greeting);
    }

    /// Hands out as much of all else as may be under way.
    pub fn flush(&mut self, out: &mut Vec<Chunk>) {
        while self.unsent < self.bounds.unsent_bytes_max {
            let (ping, pong) = ((&mut self.ping, FrameKind::Ping), (&mut self.pong, FrameKind::Pong));
            let word = [ping, pong, (&mut self.word, FrameKind::Word)]
                .into_iter()
                .find_map(|(due, kind)| std::mem::take(due).then_some(kind));
            if let Some(kind) = word {
                let header = LinkHeader::whole(kind, self.number, 0, 0);
                self.finish(header, vec![Chunk::Bytes(vec![0; HEADER_BYTES])], out);
                continue;
            }
            self.begin_long();
            let messages = self.take_fitting();
            if !messages.is_empty() {
                self.messages(&messages, out);
            } else if let Some(long) = self.long.take() {
                self.part(long, out);
            } else {
                break;
            }
        }
    }

    fn room(&self) -> usize {
        self.bounds.frame_bytes_max - HEADER_BYTES - LIST_BYTES
    }

    /// Begins with the message whose turn it is, if it is too long for one frame.
    fn begin_long(&mut self) {
        if self.long.is_some() {
            return;
        }
        let room = self.room();
        let waiting = if self.first.messages.is_empty() { &mut self.others } else { &mut self.first };
        if waiting.next_bytes().is_none_or(|bytes| bytes <= room) {
            return;
        }
        let Some((message, _)) = waiting.pop() else { return };
        let head = write_messages(std::iter::once(&message), vec![]);
        let shared = |chunk| match chunk {
            Chunk::Bytes(bytes) => Bytes::from(bytes),
            Chunk::Payload(payload) => Bytes::from_owner(payload),
            Chunk::Shared(bytes) => bytes,
        };
        let mut long = CutMessage { head: length(head.len()), payloads: 0, place: 0, rest: VecDeque::new() };
        long.rest.push_back(Bytes::from(head));
        for payload in message.payloads().map(shared) {
            long.payloads += length(payload.len());
            long.rest.push_back(payload);
        }
        self.long = Some(long);
    }

    /// What goes into one frame. Behind a message that goes in parts, those that go first alone.
    fn take_fitting(&mut self) -> Vec<PeerMessage> {
        let mut list = vec![];
        let left = self.first.fill(self.room(), &mut list);
        if self.long.is_none() && self.first.messages.is_empty() {
            self.others.fill(left, &mut list);
        }
        list
    }

    fn messages(&mut self, messages: &[PeerMessage], out: &mut Vec<Chunk>) {
        let first = write_messages(messages.iter(), vec![0; HEADER_BYTES]);
        let head = first.len() - HEADER_BYTES;
        let (mut frame, mut payloads) = (vec![Chunk::Bytes(first)], 0);
        for payload in messages.iter().flat_map(|message| message.payloads()) {
            payloads += payload.bytes().len();
            push(&mut frame, payload);
        }
        let header = LinkHeader::whole(FrameKind::Messages, self.number, head, payloads);
        self.finish(header, frame, out);
    }

    fn part(&mut self, mut long: CutMessage, out: &mut Vec<Chunk>) {
        let (mut frame, mut body) = (vec![Chunk::Bytes(vec![0; HEADER_BYTES])], 0);
        let room = self.bounds.frame_bytes_max - HEADER_BYTES;
        while body < room
            && let Some(next) = long.rest.front_mut()
        {
            let piece = next.split_to(next.len().min(room - body));
            body += piece.len();
            push(&mut frame, Chunk::Shared(piece));
            if next.is_empty() {
                long.rest.pop_front();
            }
        }
        let header = LinkHeader {
            kind: FrameKind::Part,
            number: self.number,
            body: length(body),
            head: long.head,
            payloads: long.payloads,
            place: length(long.place),
        };
        self.finish(header, frame, out);
        long.place += body;
        if !long.rest.is_empty() {
            self.long = Some(long);
        }
    }

    fn finish(&mut self, header: LinkHeader, mut frame: Vec<Chunk>, out: &mut Vec<Chunk>) {
        header.seal(&mut frame);
        self.number += 1;
        self.unsent += header.frame_bytes();
        out.append(&mut frame);
    }
}

/// Adds a piece to a frame; a short one to the bytes before it.
fn push(frame: &mut Vec<Chunk>, piece: Chunk) {
    match frame.last_mut() {
        _ if piece.bytes().is_empty() => {}
        _ if piece.bytes().len() > PEER_COPIED_BYTES_MAX => frame.push(piece),
        Some(Chunk::Bytes(last)) => last.extend_from_slice(piece.bytes()),
        _ => frame.push(Chunk::Bytes(piece.bytes().to_vec())),
    }
}
