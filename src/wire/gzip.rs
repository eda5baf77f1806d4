//! gzip (RFC 1952): the one compression of messages that etcd's gRPC server has installed.
//!
//! A client that names it in `grpc-encoding` may compress each message or not, and is answered in it. What a
//! message inflates to is bounded while it inflates: a few bytes may stand for gigabytes.

use crate::api::{Code, Error};
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::{ErrorKind, Read, Write};

const MAGIC: [u8; 3] = [0x1F, 0x8B, 8];
/// The length of a header without its optional parts.
const HEADER_BYTES: usize = 10;

/// The message that was compressed; one longer than `bytes_max` is refused. Errors are worded as grpc-go
/// words those of Go's gzip, but for the offset of what is corrupt.
pub fn inflated(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
    if let Some(fault) = header_fault(compressed) {
        return Err(other(Code::Internal, &format!("grpc: failed to decompress the message: {fault}")));
    }
    let mut message = Vec::new();
    let mut bounded = MultiGzDecoder::new(compressed).take(bytes_max as u64 + 1);
    if let Err(error) = bounded.read_to_end(&mut message) {
        let fault = match error.kind() {
            ErrorKind::UnexpectedEof => "unexpected EOF",
            ErrorKind::InvalidInput if error.to_string().contains("header") => "gzip: invalid header",
            ErrorKind::InvalidInput if error.to_string().contains("checksum") => "gzip: invalid checksum",
            _ => "flate: corrupt input",
        };
        return Err(other(Code::Internal, &format!("grpc: failed to read decompressed data: {fault}")));
    }
    if message.len() > bytes_max {
        let text = format!("grpc: received message after decompression larger than max {bytes_max}");
        return Err(other(Code::ResourceExhausted, &text));
    }
    Ok(message)
}

/// What Go's reader finds wrong before it reads any data.
fn header_fault(compressed: &[u8]) -> Option<&'static str> {
    if compressed.is_empty() {
        return Some("EOF");
    }
    if compressed.len() < HEADER_BYTES {
        return Some("unexpected EOF");
    }
    (!compressed.starts_with(&MAGIC)).then_some("gzip: invalid header")
}

/// Compresses a message.
pub fn deflated(message: &[u8]) -> Vec<u8> {
    let mut packer = Packer::new(message.len() / 2 + 32);
    packer.pack(message);
    packer.finish()
}

/// A message that is compressed piece by piece, for speed rather than size.
pub struct Packer(GzEncoder<Vec<u8>>);

impl Packer {
    /// `expected`: about what it will come to.
    pub fn new(expected: usize) -> Packer {
        Packer(GzEncoder::new(Vec::with_capacity(expected), Compression::fast()))
    }

    pub fn pack(&mut self, piece: &[u8]) {
        self.0.write_all(piece).expect("a Vec takes all that is written");
    }

    /// How many bytes what is compressed so far takes.
    pub fn kept_bytes(&self) -> usize {
        self.0.get_ref().capacity()
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.finish().expect("a Vec takes all that is written")
    }
}

fn other(code: Code, text: &str) -> Error {
    Error::Other { code, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::Rng;

    fn fault(compressed: &[u8], bytes_max: usize) -> String {
        inflated(compressed, bytes_max).unwrap_err().to_string()
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let mut rng = Rng::new(1);
        for _ in 0..200 {
            let message: Vec<u8> = (0..rng.below(3000)).map(|_| rng.below(4) as u8).collect();
            assert_eq!(inflated(&deflated(&message), message.len()), Ok(message));
        }
        let two = [deflated(b"one "), deflated(b"two")].concat();
        assert_eq!(inflated(&two, 7).unwrap(), b"one two", "parts follow one another, as Go reads them");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = deflated(&vec![0; 32 << 20]);
        assert!(bomb.len() < 1 << 20);
        let error = inflated(&bomb, 1000).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.to_string(), "grpc: received message after decompression larger than max 1000");
    }

    #[test]
    fn faults_are_worded_as_in_grpc_go() {
        let good = deflated(b"message");
        let data = "grpc: failed to read decompressed data";
        assert_eq!(fault(b"", 10), "grpc: failed to decompress the message: EOF");
        assert_eq!(fault(&good[..3], 10), "grpc: failed to decompress the message: unexpected EOF");
        assert_eq!(fault(&[9; 30], 10), "grpc: failed to decompress the message: gzip: invalid header");
        assert_eq!(fault(&good[..good.len() - 1], 10), format!("{data}: unexpected EOF"));
        let mut damaged = good.clone();
        damaged[good.len() - 8] ^= 1;
        assert_eq!(fault(&damaged, 10), format!("{data}: gzip: invalid checksum"));
        assert_eq!(fault(&[&good[..10], &[0xFF; 9]].concat(), 10), format!("{data}: flate: corrupt input"));
    }
}
