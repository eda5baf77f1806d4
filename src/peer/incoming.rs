//! From bytes, cut anywhere, to frames and messages.

use super::frame::{FrameKind, HEADER_BYTES, LinkHeader, is_intact};
use super::link::LinkError;
use super::message::{Hello, PeerMessage};
use super::records::{read_hello, read_messages};
use crate::limits::{PEER_FRAME_BYTES_MAX, RECEIVE_BUFFER_BYTES};
use rkyv::util::AlignedVec;

/// A frame that has come whole.
pub(super) enum FrameIn {
    Hello(Hello),
    Refusal(String),
    Ping,
    Pong,
    Word,
    /// None where a long message still lacks parts.
    Messages(Vec<PeerMessage>),
}

/// What is to come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Hello,
    HelloOrRefusal,
    /// The greeting is not answered yet, so that nothing follows it.
    Nothing,
    Messages,
}

impl Expected {
    fn takes(self, kind: FrameKind) -> bool {
        let is_greeting = kind == FrameKind::Hello;
        match self {
            Expected::Hello => is_greeting,
            Expected::HelloOrRefusal => is_greeting || kind == FrameKind::Refusal,
            Expected::Nothing => false,
            Expected::Messages => !is_greeting,
        }
    }
}

#[derive(Default)]
pub(super) struct Incoming {
    /// What has come of the frame under way.
    frame: AlignedVec,
    header: Option<LinkHeader>,
    /// Of the next frame.
    number: u64,
    long: Option<MessageInParts>,
}

/// A message that comes in parts.
struct MessageInParts {
    head: u32,
    payloads: u32,
    /// What has come of it.
    bytes: AlignedVec,
}

impl Incoming {
    /// Memory set aside for what is under way.
    #[cfg(test)]
    pub fn room(&self) -> usize {
        self.frame.capacity() + self.long.as_ref().map_or(0, |long| long.bytes.capacity())
    }

    /// Takes bytes up to the end of a frame; none where all are taken before one ends.
    pub fn next(&mut self, bytes: &mut &[u8], expected: Expected) -> Result<Option<FrameIn>, LinkError> {
        loop {
            let wanted = self.header.map_or(HEADER_BYTES, |header| header.frame_bytes());
            let (taken, rest) = bytes.split_at(bytes.len().min(wanted - self.frame.len()));
            self.frame.extend_from_slice(taken);
            *bytes = rest;
            if self.frame.len() < wanted {
                return Ok(None);
            }
            match self.header.take() {
                None => self.header = Some(self.begin(expected)?),
                Some(header) => return self.end(&header).map(Some),
            }
        }
    }

    /// A header has come: room for its body, if that may come now.
    fn begin(&mut self, expected: Expected) -> Result<LinkHeader, LinkError> {
        let header = LinkHeader::decode(&self.frame)?;
        if !expected.takes(header.kind) {
            return Err(LinkError::OutOfTurn { kind: header.kind.name() });
        }
        // A refusal is read whoever wrote it.
        if header.number != self.number && header.kind != FrameKind::Refusal {
            return Err(LinkError::Number { found: header.number, expected: self.number });
        }
        self.number += 1;
        self.frame.reserve_exact(header.body as usize);
        Ok(header)
    }

    fn end(&mut self, header: &LinkHeader) -> Result<FrameIn, LinkError> {
        if !is_intact(&self.frame) {
            return Err(LinkError::Checksum);
        }
        let body = &self.frame[HEADER_BYTES..];
        let frame = match header.kind {
            FrameKind::Hello => FrameIn::Hello(read_hello(body)?),
            FrameKind::Refusal => FrameIn::Refusal(String::from_utf8_lossy(body).into_owned()),
            FrameKind::Ping => FrameIn::Ping,
            FrameKind::Pong => FrameIn::Pong,
            FrameKind::Word => FrameIn::Word,
            FrameKind::Messages => {
                let (head, payloads) = body.split_at(header.head as usize);
                FrameIn::Messages(read_messages(head, payloads)?)
            }
            FrameKind::Part => FrameIn::Messages(MessageInParts::part(&mut self.long, header, body)?),
        };
        match self.frame.capacity() > RECEIVE_BUFFER_BYTES {
            true => self.frame = AlignedVec::new(),
            false => self.frame.clear(),
        }
        Ok(frame)
    }
}

impl MessageInParts {
    /// Takes a part in; with the last one the message is there.
    fn part(
        long: &mut Option<MessageInParts>,
        header: &LinkHeader,
        body: &[u8],
    ) -> Result<Vec<PeerMessage>, LinkError> {
        let LinkHeader { head, payloads, place, .. } = *header;
        let under_way = match long {
            None if place == 0 => long.insert(MessageInParts { head, payloads, bytes: AlignedVec::new() }),
            None => return Err(LinkError::Part { why: "it begins in the middle" }),
            Some(long) if (long.head, long.payloads) != (head, payloads) => {
                return Err(LinkError::Part { why: "it is of another message than the part before" });
            }
            Some(long) if long.bytes.len() != place as usize => {
                return Err(LinkError::Part { why: "it does not follow the part before" });
            }
            Some(long) => long,
        };
        let whole = header.message_bytes();
        let bytes = &mut under_way.bytes;
        // Room grows with what has come, not with what was announced.
        if bytes.capacity() < bytes.len() + body.len() {
            let more = bytes.len().max(PEER_FRAME_BYTES_MAX).max(body.len());
            bytes.reserve_exact(more.min(whole - bytes.len()));
        }
        bytes.extend_from_slice(body);
        if bytes.len() < whole {
            return Ok(vec![]);
        }
        let (head, payloads) = bytes.split_at(head as usize);
        let messages = read_messages(head, payloads)?;
        *long = None;
        match messages.len() {
            1 => Ok(messages),
            _ => Err(LinkError::Part { why: "together the parts are not one message" }),
        }
    }
}
