//! The bytes of a frame. All numbers are little-endian; CRC is CRC32C.
//!
//! ```text
//! frame     │ header │ body                                        │
//!           0        48       at most 256 KiB with the header
//!
//! header                                    body, by kind
//!   0  magic "braidlnk"                       1 hello     the head of a hello
//!   8  CRC of 12..end of the body             2 refusal   a text, and nothing comes behind
//!  12  version of frames and heads            3 ping      nothing
//!  14  version of entries                     4 pong      nothing
//!  16  kind, zero 3                           5 messages  head, payloads: of some messages
//!  20  bytes of the body                      6 part      a piece of the head and payloads of one message
//!  24  number of the frame in its direction      7 word      nothing
//!  32  bytes of the head                    head: one rkyv value, `records.rs`
//!  36  bytes of the payloads                payloads: entries, requests and answers that messages name by their
//!  40  where in the message the body              length alone, in the messages' order, without gaps
//!      begins, zero 4
//! ```
//!
//! In a part, 32 and 36 are those of the whole message, which ends with the part that completes them; frames of
//! other kinds may stand between its parts, and parts of another message may not.
//!
//! **Other versions.** Whatever a later one changes, magic, CRC, the two versions, kind, number and the bytes of
//! the body stay where they are, and so does all of a refusal: each side can tell the other why it does not speak
//! with it.

use super::link::LinkError;
use crate::limits::{
    PEER_FRAME_BYTES_MAX, PEER_GREETING_BYTES_MAX, PEER_HEAD_BYTES_MAX, PEER_MESSAGE_BYTES_MAX,
    PEER_REFUSAL_BYTES_MAX,
};
use crate::record::{self, Chunk};

const MAGIC: &[u8; 8] = b"braidlnk";
const VERSION: u16 = 1;
const CRC_AT: usize = 8;
const CRC_FROM: usize = 12;
pub(super) const HEADER_BYTES: usize = 48;
const _: () = assert!(HEADER_BYTES.is_multiple_of(16), "a head behind it is aligned");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Hello,
    Refusal,
    Ping,
    Pong,
    Messages,
    Part,
    /// A pong that nobody has asked for.
    Word,
}

impl FrameKind {
    fn number(self) -> u8 {
        match self {
            FrameKind::Hello => 1,
            FrameKind::Refusal => 2,
            FrameKind::Ping => 3,
            FrameKind::Pong => 4,
            FrameKind::Messages => 5,
            FrameKind::Part => 6,
            FrameKind::Word => 7,
        }
    }

    fn of(number: u8) -> Option<FrameKind> {
        use FrameKind::{Hello, Messages, Part, Ping, Pong, Refusal, Word};
        [Hello, Refusal, Ping, Pong, Messages, Part, Word].into_iter().find(|kind| kind.number() == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            FrameKind::Hello => "a hello",
            FrameKind::Refusal => "a refusal",
            FrameKind::Ping => "a ping",
            FrameKind::Pong => "a pong",
            FrameKind::Messages => "messages",
            FrameKind::Part => "a part of a message",
            FrameKind::Word => "a word",
        }
    }
}

/// What the header says beside checksum and versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkHeader {
    pub kind: FrameKind,
    pub number: u64,
    pub body: u32,
    /// Bytes of the whole message's head and payloads, and where in them the body begins.
    pub head: u32,
    pub payloads: u32,
    pub place: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl LinkHeader {
    /// Of a frame that holds all that it is about.
    pub fn whole(kind: FrameKind, number: u64, head: usize, payloads: usize) -> LinkHeader {
        let [body, head, payloads] = [head + payloads, head, payloads].map(length);
        LinkHeader { kind, number, body, head, payloads, place: 0 }
    }

    /// Bytes of the whole message.
    pub fn message_bytes(&self) -> usize {
        self.head as usize + self.payloads as usize
    }

    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body as usize
    }

    /// Completes a frame, whose first piece begins with as many free bytes as a header takes.
    pub fn seal(&self, frame: &mut [Chunk]) {
        let bytes: usize = frame.iter().map(|chunk| chunk.bytes().len()).sum();
        assert_eq!(bytes, self.frame_bytes(), "a frame is as long as it says");
        let Some((Chunk::Bytes(first), rest)) = frame.split_first_mut() else {
            unreachable!("a frame begins with bytes of its own")
        };
        first[..8].copy_from_slice(MAGIC);
        first[12..14].copy_from_slice(&VERSION.to_le_bytes());
        first[14..16].copy_from_slice(&record::VERSION.to_le_bytes());
        first[16] = self.kind.number();
        first[20..24].copy_from_slice(&self.body.to_le_bytes());
        first[24..32].copy_from_slice(&self.number.to_le_bytes());
        for (at, length) in [(32, self.head), (36, self.payloads), (40, self.place)] {
            first[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        let crc = crc32c::crc32c(&first[CRC_FROM..]);
        let crc = rest.iter().fold(crc, |crc, chunk| crc32c::crc32c_append(crc, chunk.bytes()));
        first[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header, of which nothing is known but its length: what it announces is bounded behind this.
    pub fn decode(bytes: &[u8]) -> Result<LinkHeader, LinkError> {
        assert_eq!(bytes.len(), HEADER_BYTES);
        if &bytes[..8] != MAGIC {
            return Err(LinkError::Stranger);
        }
        let kind = FrameKind::of(bytes[16]);
        if kind != Some(FrameKind::Refusal) {
            for (what, at, known) in [("frames", 12, VERSION), ("entries", 14, record::VERSION)] {
                let found = u16_at(bytes, at);
                if found != known {
                    return Err(LinkError::Version { what, found, known });
                }
            }
        }
        let header = LinkHeader {
            kind: kind.ok_or(LinkError::Kind { found: bytes[16] })?,
            number: u64_at(bytes, 24),
            body: u32_at(bytes, 20),
            head: u32_at(bytes, 32),
            payloads: u32_at(bytes, 36),
            place: u32_at(bytes, 40),
        };
        if bytes[17..20].iter().chain(&bytes[44..]).any(|byte| *byte != 0) {
            return Err(LinkError::Lengths { kind: header.kind.name(), why: "what is to be zero is not" });
        }
        match header.fault() {
            None => Ok(header),
            Some(why) => Err(LinkError::Lengths { kind: header.kind.name(), why }),
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let (body, head, payloads) = (self.body as usize, self.head as usize, self.payloads as usize);
        let end = u64::from(self.place) + u64::from(self.body);
        let is_whole = self.place == 0 && body == head.saturating_add(payloads);
        let longest = match self.kind {
            FrameKind::Hello => PEER_GREETING_BYTES_MAX,
            FrameKind::Refusal => PEER_REFUSAL_BYTES_MAX,
            FrameKind::Ping | FrameKind::Pong | FrameKind::Word => 0,
            FrameKind::Messages | FrameKind::Part => PEER_FRAME_BYTES_MAX - HEADER_BYTES,
        };
        if body > longest {
            return Some("it is longer than its kind may be");
        }
        match self.kind {
            FrameKind::Hello | FrameKind::Refusal if payloads > 0 => Some("it has payloads"),
            FrameKind::Part if head > PEER_HEAD_BYTES_MAX => Some("its message's head is too long"),
            FrameKind::Part if head.saturating_add(payloads) > PEER_MESSAGE_BYTES_MAX => {
                Some("its message is too long")
            }
            FrameKind::Part if end > self.message_bytes() as u64 => Some("it passes its message's end"),
            FrameKind::Part if body == 0 => Some("it is empty"),
            FrameKind::Part => None,
            _ if !is_whole => Some("the lengths contradict each other"),
            _ => None,
        }
    }
}

/// Whether a frame with this header is what was sent.
pub(super) fn is_intact(frame: &[u8]) -> bool {
    crc32c::crc32c(&frame[CRC_FROM..]) == u32_at(frame, CRC_AT)
}

/// Whether a connection that begins with these bytes is another member's; none where more of them would tell.
pub fn greets(bytes: &[u8]) -> Option<bool> {
    let known = bytes.len().min(MAGIC.len());
    match bytes[..known] == MAGIC[..known] {
        true => (known == MAGIC.len()).then_some(true),
        false => Some(false),
    }
}

/// A length as frames have it.
pub(super) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("all lengths are bounded far below")
}
