//! HPACK, the compression of header fields (RFC 7541).
//!
//! A block is a sequence of fields. The first bits of each say how it is written:
//!
//! ```text
//! 1xxxxxxx  index of name and value         (7-bit prefix)
//! 01xxxxxx  index of the name or 0, value; entered into the dynamic table   (6-bit prefix)
//! 001xxxxx  new size of the dynamic table   (5-bit prefix), only before the first field
//! 000?xxxx  index of the name or 0, value; not entered; `?` forbids proxies to enter it  (4-bit prefix)
//! ```
//!
//! Indices 1 to 61 are the static table, from 62 on the dynamic one, newest first. Each direction of a
//! connection has one dynamic table; both ends must see every block, in order, even of streams refused.

mod decoder;
mod encoder;
pub mod huffman;
mod table;

#[cfg(test)]
mod tests;

pub use decoder::{CompressionError, Decoder};
pub use encoder::{Encoder, Indexing};
