//! gRPC's framing of messages, and how it carries errors.
//!
//! ```text
//! byte 0      1..5              5..5+length
//!      flag   length, big end   the message
//! ```
//!
//! The flag says whether the message is compressed. Messages follow one another in the DATA of a stream, cut
//! into frames wherever the sender liked. Of a message that is too large nothing is kept but its length.

#[cfg(test)]
mod tests;

use super::gzip;
use super::method::CallKind;
use crate::api::{Code, Error};
use crate::limits::MESSAGE_RESERVE_BYTES_MAX;
use bytes::Bytes;
use std::borrow::Cow;

/// Flag and length before each message.
pub const PREFIX_BYTES: usize = 5;

/// Appends a message with its prefix; `body` appends the message itself. Panics above 4 GiB.
pub fn frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    body(out);
    let length = out.len() - start - PREFIX_BYTES;
    let length = u32::try_from(length).expect("replies are cut long before 4 GiB");
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Puts together the messages of one call's request side, and judges their number as grpc-go does.
///
/// A unary call is complete with its first message, whatever follows. The single message of a server's
/// stream counts only once the client has ended its side, as a second one is an error.
#[derive(Debug)]
pub struct Inbound {
    kind: CallKind,
    /// The largest message taken, in bytes.
    bytes_max: usize,
    gzip: bool,
    state: InboundState,
    complete: u64,
    /// The message of a server's stream, until the client's end.
    pending: Bytes,
}

#[derive(Debug)]
enum InboundState {
    Prefix { prefix: [u8; PREFIX_BYTES], have: usize },
    Body { compressed: bool, length: usize, body: Vec<u8> },
}

const BETWEEN: InboundState = InboundState::Prefix { prefix: [0; PREFIX_BYTES], have: 0 };

impl Inbound {
    /// `gzip`: the headers named that compression.
    pub fn new(kind: CallKind, bytes_max: usize, gzip: bool) -> Inbound {
        Inbound { kind, bytes_max, gzip, state: BETWEEN, complete: 0, pending: Bytes::new() }
    }

    /// Takes from the front of `data` and returns the next message to answer. Without one, `data` is used
    /// up. An error ends the call.
    pub fn next(&mut self, data: &mut &[u8]) -> Result<Option<Bytes>, Error> {
        if self.kind == CallKind::Unary && self.complete > 0 {
            *data = &[];
            return Ok(None);
        }
        while let Some(message) = self.assemble(data)? {
            self.complete += 1;
            match self.kind {
                CallKind::Unary | CallKind::BidiStream => return Ok(Some(message)),
                CallKind::ServerStream if self.complete == 1 => self.pending = message,
                CallKind::ServerStream => {
                    return Err(violation("received multiple request messages for non-client-streaming RPC"));
                }
            }
        }
        Ok(None)
    }

    /// The client has ended its side. Returns the message that had to wait for it. An error ends the call.
    pub fn finish(&mut self) -> Result<Option<Bytes>, Error> {
        // A prefix that is cut short is none (etcd's law).
        let between = matches!(self.state, InboundState::Prefix { .. });
        match self.kind {
            CallKind::Unary if self.complete > 0 => Ok(None),
            // grpc-go turns its reader's bare errors into the code Unknown.
            CallKind::Unary if between => Err(other(Code::Unknown, "EOF")),
            CallKind::Unary => Err(other(Code::Unknown, "unexpected EOF")),
            CallKind::ServerStream | CallKind::BidiStream if !between => {
                Err(other(Code::Internal, "unexpected EOF"))
            }
            CallKind::BidiStream => Ok(None),
            CallKind::ServerStream if self.complete > 0 => Ok(Some(std::mem::take(&mut self.pending))),
            CallKind::ServerStream => {
                Err(violation("received no request message from non-client-streaming RPC"))
            }
        }
    }

    /// Bytes kept of messages that have not been returned yet.
    pub fn kept_bytes(&self) -> usize {
        let partial = if let InboundState::Body { body, .. } = &self.state { body.len() } else { 0 };
        partial + self.pending.len()
    }

    fn assemble(&mut self, data: &mut &[u8]) -> Result<Option<Bytes>, Error> {
        if let InboundState::Prefix { prefix, have } = &mut self.state {
            let taken = data.len().min(PREFIX_BYTES - *have);
            prefix[*have..*have + taken].copy_from_slice(&data[..taken]);
            *have += taken;
            *data = &data[taken..];
            if *have < PREFIX_BYTES {
                return Ok(None);
            }
            let [flag, length @ ..] = *prefix;
            let length = check(flag, u32::from_be_bytes(length), self.bytes_max, self.gzip)?;
            let compressed = flag == 1;
            if let Some((message, rest)) = data.split_at_checked(length) {
                *data = rest;
                self.state = BETWEEN;
                return if compressed {
                    self.inflated(message)
                } else {
                    Ok(Some(Bytes::copy_from_slice(message)))
                };
            }
            let body = Vec::with_capacity(length.min(MESSAGE_RESERVE_BYTES_MAX.max(data.len())));
            self.state = InboundState::Body { compressed, length, body };
        }
        let InboundState::Body { compressed, length, body } = &mut self.state else {
            unreachable!("the prefix is complete")
        };
        let (taken, rest) = data.split_at(data.len().min(*length - body.len()));
        body.extend_from_slice(taken);
        *data = rest;
        if body.len() < *length {
            return Ok(None);
        }
        let (compressed, body) = (*compressed, std::mem::take(body));
        self.state = BETWEEN;
        if compressed { self.inflated(&body) } else { Ok(Some(Bytes::from(body))) }
    }

    fn inflated(&self, message: &[u8]) -> Result<Option<Bytes>, Error> {
        gzip::inflated(message, self.bytes_max).map(|message| Some(Bytes::from(message)))
    }
}

/// The length a prefix announces. No call gets this far whose headers named a compression other than gzip.
fn check(flag: u8, length: u32, bytes_max: usize, gzip: bool) -> Result<usize, Error> {
    let length = length as usize;
    if length > bytes_max {
        return Err(Error::MessageTooLarge { bytes: length, bytes_max });
    }
    match flag {
        0 => Ok(length),
        1 if gzip => Ok(length),
        1 => Err(other(Code::Internal, "grpc: compressed flag set with identity or empty encoding")),
        _ => Err(other(Code::Internal, &format!("grpc: received unexpected payload format {flag}"))),
    }
}

fn violation(text: &str) -> Error {
    other(Code::Internal, &format!("cardinality violation: {text}"))
}

fn other(code: Code, text: &str) -> Error {
    Error::Other { code, text: text.to_owned() }
}

/// The value of `grpc-status`.
pub fn status(code: Code) -> &'static str {
    const NUMBERS: [&str; 17] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
    NUMBERS[code as usize]
}

/// The value of `grpc-message`: printable ASCII as it is, but for `%`, everything else as `%XX`.
pub fn percent_encoded(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Cow::Owned(encoded)
}
