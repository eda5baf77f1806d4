//! Frames of HTTP/2 (RFC 9113, section 4): their head, kinds and flags.
//!
//! ```text
//! length 24 | kind 8 | flags 8 | reserved 1, stream 31 | payload …
//! ```

use std::ops::Range;

/// What a client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEAD_BYTES: usize = 9;
/// The least, and the initial, SETTINGS_MAX_FRAME_SIZE; what this end takes.
pub const FRAME_BYTES: usize = 16_384;
pub const FRAME_BYTES_LIMIT: usize = (1 << 24) - 1;
/// The window of every stream and of the connection before anybody says otherwise.
pub const WINDOW_BYTES: i64 = 65_535;
pub const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;
pub const STREAM_ID_MAX: u32 = (1 << 31) - 1;

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The error codes of RFC 9113, section 7, as far as they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    NoError = 0,
    Protocol = 1,
    FlowControl = 3,
    SettingsTimeout = 4,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

#[derive(Clone, Copy, Debug)]
pub struct FrameHead {
    pub len: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl FrameHead {
    pub fn read(bytes: &[u8; HEAD_BYTES]) -> FrameHead {
        let [a, b, c, kind, flags, s, t, u, v] = *bytes;
        FrameHead {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s, t, u, v]) & STREAM_ID_MAX,
        }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends the head of a frame.
pub fn put_head(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    debug_assert!(len <= FRAME_BYTES_LIMIT && stream <= STREAM_ID_MAX);
    let [_, a, b, c] = (len as u32).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, s, t, u, v]);
}

/// Appends a frame whose payload is one number: RST_STREAM and WINDOW_UPDATE.
pub fn put_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    put_head(out, 4, kind, 0, stream);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends SETTINGS with these parameters.
pub fn put_settings(out: &mut Vec<u8>, parameters: &[(u16, u32)]) {
    put_head(out, parameters.len() * 6, kind::SETTINGS, 0, 0);
    for (name, value) in parameters {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub fn put_goaway(out: &mut Vec<u8>, last: u32, code: ErrorCode, debug: &[u8]) {
    put_head(out, 8 + debug.len(), kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
    out.extend_from_slice(debug);
}

/// Appends a header block as HEADERS and, where it exceeds `frame_bytes`, CONTINUATION.
pub fn put_block(out: &mut Vec<u8>, stream: u32, block: &[u8], end_stream: bool, frame_bytes: usize) {
    let end = if end_stream { flag::END_STREAM } else { 0 };
    if block.len() <= frame_bytes {
        put_head(out, block.len(), kind::HEADERS, end | flag::END_HEADERS, stream);
        return out.extend_from_slice(block);
    }
    let pieces = block.len().div_ceil(frame_bytes);
    for (place, piece) in block.chunks(frame_bytes).enumerate() {
        let (kind, flags) = if place == 0 { (kind::HEADERS, end) } else { (kind::CONTINUATION, 0) };
        let last = if place + 1 == pieces { flag::END_HEADERS } else { 0 };
        put_head(out, piece.len(), kind, flags | last, stream);
        out.extend_from_slice(piece);
    }
}

/// Appends bytes as DATA in frames of at most `frame_bytes`; an empty one where there are no bytes.
pub fn put_data(out: &mut Vec<u8>, stream: u32, bytes: &[u8], end_stream: bool, frame_bytes: usize) {
    let mut rest = bytes;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(frame_bytes));
        let end = if end_stream && after.is_empty() { flag::END_STREAM } else { 0 };
        put_head(out, piece.len(), kind::DATA, end, stream);
        out.extend_from_slice(piece);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// Where the payload of a DATA or HEADERS frame lies without its padding; `None` where the padding is
/// longer than what there is.
pub fn unpadded(head: &FrameHead, payload: &[u8]) -> Option<Range<usize>> {
    if !head.has(flag::PADDED) {
        return Some(0..payload.len());
    }
    let padding = usize::from(*payload.first()?);
    let end = payload.len().checked_sub(padding)?;
    (end >= 1).then_some(1..end)
}
