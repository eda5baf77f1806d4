//! The bytes of a checkpoint file. Numbers are little-endian; CRC is CRC32C.
//!
//! ```text
//! file    │ body block │ … │ body block │ footer block │
//!
//! block (at most 128 KiB, whole pages of 4 KiB)     footer's body
//!   0  magic "braidchk"                               0  versions
//!   8  CRC of 12..end, the zeros included             8  bytes of the stream
//!  12  bytes of the body                             16  hash of the file
//!  16  number of the block, from 0
//!  20  CRC of the block before (0 in the first)
//!  24  format
//!  26  kind: 1 body, 2 footer
//!  28  zero
//!  32  body, then zeros
//! ```
//!
//! The bodies of the body blocks, one after the other, are one stream; what stands in it may begin in one
//! block and end in a later one:
//!
//! ```text
//! stream  │ length of meta 8 │ meta, an rkyv value │ version │ version │ …
//!
//! version, in ascending order of (main, sub)
//!   0  main 8     8  create revision 8    16  version 8    24  lease 8
//!  32  sub 4     36  bytes of the key 4
//!  40  bytes of the value 4 (all ones: a tombstone)
//!  44  key, value
//! ```
//!
//! The chain begins in the block that says which shard and revision this is, so no block of another file
//! or another place fits in. The footer makes a file that ends early a damaged one.
//!
//! The *hash of the file* folds the CRCs of all body blocks. The shard's log names it, and so does every file
//! that goes on from this one. As the meta of a delta holds the hashes of the files before it, its own hash
//! stands for all of them.
//!
//! Whatever a later format changes, a block's magic, CRC, length and format stay where they are: so what a newer
//! program wrote is told from damage.

pub(super) const MAGIC: &[u8; 8] = b"braidchk";
pub(super) const FORMAT: u16 = 3;
pub(super) const BODY: u16 = 1;
pub(super) const FOOTER: u16 = 2;
pub(super) const CRC_AT: usize = 8;
pub(super) const CRC_FROM: usize = 12;
pub(super) const BLOCK_HEADER_BYTES: usize = 32;
pub(super) const FOOTER_BYTES: usize = 24;
pub(super) const META_HEADER_BYTES: usize = 8;
pub(super) const VERSION_HEADER_BYTES: usize = 44;
pub(super) const TOMBSTONE: u32 = u32::MAX;

/// The hash of a file goes on over its next body block. For each block, different hashes stay different.
pub(super) fn fold(hash: u64, crc: u32) -> u64 {
    let mixed = (hash ^ u64::from(crc)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 32
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
