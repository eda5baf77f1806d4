//! gRPC over HTTP/2: messages in a body, and the text of a status.
//!
//! ```text
//! compressed 8 | length 32 | message
//! ```

use std::fmt::Write;

pub const PREFIX_BYTES: usize = 5;
/// An assembler keeps a buffer of up to this between messages.
const KEEP_BYTES: usize = 4096;

/// The prefix of a message of `len` bytes that is not compressed. Panics from 4 GiB: owners send no message as
/// long as that.
pub fn prefix(len: usize) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = u32::try_from(len).expect("messages stay below 4 GiB").to_be_bytes();
    [0, a, b, c, d]
}

/// The prefix of a compressed message of `len` bytes.
pub fn compressed_prefix(len: usize) -> [u8; PREFIX_BYTES] {
    let [_, length @ ..] = prefix(len);
    let mut prefix = [1; PREFIX_BYTES];
    prefix[1..].copy_from_slice(&length);
    prefix
}

/// One message of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcMessage<'a> {
    pub compressed: bool,
    pub bytes: &'a [u8],
}

/// A message longer than the receiver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTooLong {
    pub len: usize,
    pub max: usize,
}

/// Puts the messages of one body together. A message that lies in one piece is lent from there; only one
/// that is split is copied, so at most one message of the longest size is kept.
#[derive(Default, Debug)]
pub struct Messages {
    partial: Vec<u8>,
    lent: bool,
}

impl Messages {
    /// Reads `bytes` up to the end of the next message and moves their beginning there; `None` when all are
    /// read. After an error the body cannot be read on.
    pub fn read<'a, 'b: 'a>(
        &'a mut self,
        bytes: &mut &'b [u8],
        max: usize,
    ) -> Result<Option<GrpcMessage<'a>>, MessageTooLong> {
        if std::mem::take(&mut self.lent) {
            self.partial.clear();
            if self.partial.capacity() > KEEP_BYTES {
                self.partial = Vec::new();
            }
        }
        if self.partial.is_empty()
            && let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>()
        {
            let (compressed, len) = parse(prefix, max)?;
            if let Some((message, rest)) = rest.split_at_checked(len) {
                *bytes = rest;
                return Ok(Some(GrpcMessage { compressed, bytes: message }));
            }
        }
        self.gather_to(PREFIX_BYTES, bytes);
        let Some(prefix) = self.partial.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let (compressed, len) = parse(prefix, max)?;
        self.gather_to(PREFIX_BYTES + len, bytes);
        self.lent = self.partial.len() == PREFIX_BYTES + len;
        Ok(self.lent.then(|| GrpcMessage { compressed, bytes: &self.partial[PREFIX_BYTES..] }))
    }

    fn gather_to(&mut self, len: usize, bytes: &mut &[u8]) {
        let lacking = len.saturating_sub(self.partial.len());
        let (taken, rest) = bytes.split_at(lacking.min(bytes.len()));
        self.partial.extend_from_slice(taken);
        *bytes = rest;
    }

    /// Whether the body may end here: no message is incomplete.
    #[cfg(test)]
    pub fn is_complete(&self) -> bool {
        self.lent || self.partial.is_empty()
    }

    /// Bytes kept of a message that is not complete.
    pub fn kept_bytes(&self) -> usize {
        self.partial.len()
    }
}

fn parse(prefix: &[u8; PREFIX_BYTES], max: usize) -> Result<(bool, usize), MessageTooLong> {
    let [flag, a, b, c, d] = *prefix;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if len > max { Err(MessageTooLong { len, max }) } else { Ok((flag & 1 == 1, len)) }
}

/// A number in decimal, in a buffer on the stack.
pub(super) fn decimal(number: u8, digits: &mut [u8; 3]) -> &[u8] {
    *digits = [b'0' + number / 100, b'0' + number / 10 % 10, b'0' + number % 10];
    match number {
        0..10 => &digits[2..],
        10..100 => &digits[1..],
        _ => digits,
    }
}

/// A text as `grpc-message` carries it: octets that are no printable ASCII, and `%`, in hexadecimal.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes all that is written");
        }
    }
    out
}

/// The text that `grpc-message` carries. What is not encoded as it should be is taken as it stands.
pub fn percent_decoded(coded: &[u8]) -> String {
    let mut out = Vec::with_capacity(coded.len());
    let mut rest = coded;
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.first_chunk::<2>().and_then(|pair| std::str::from_utf8(pair).ok());
        let decoded = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        rest = match decoded {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                &after[2..]
            }
            _ => {
                out.push(byte);
                after
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}
