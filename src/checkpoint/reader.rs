//! The reading side: bytes in, state out. Nothing is handed out before the CRC of its block is checked,
//! and no length is believed before the bytes are there.

use super::format::*;
use super::state::Meta;
use crate::limits::{BLOCK_BYTES, CHECKPOINT_BLOCK_BYTES_MAX};
use crate::mvcc::StoredVersion;
use crate::stdx::VersionMismatch;
use crate::types::{At, LeaseId, Revision, Sub};
use rkyv::rancor::Error as Invalid;
use rkyv::util::AlignedVec;
use std::fmt;

/// What a file says, in order: the meta once, then all versions.
#[derive(Debug)]
pub enum Item<'a> {
    Meta(Box<Meta>),
    Version(StoredVersion<'a>),
}

/// What a whole file ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    pub versions: u64,
    /// Which file it is: see the head of `format`.
    pub hash: u64,
}

/// The file is not what was written. It must not be used; the shard's state has to come from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointDamage {
    /// The block is torn, rotten, or none of this place.
    Block(u32),
    /// The blocks are whole and what stands in them makes no sense.
    Senseless(u32),
    /// Another version of the program wrote it.
    Format(VersionMismatch),
    /// The file ends before its footer.
    Short,
    /// Something follows the footer.
    Long,
}

impl fmt::Display for CheckpointDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointDamage::Block(number) => write!(f, "block {number} of the checkpoint cannot be read"),
            CheckpointDamage::Senseless(number) => {
                write!(f, "block {number} of the checkpoint makes no sense")
            }
            CheckpointDamage::Format(version) => write!(f, "the checkpoint {version}"),
            CheckpointDamage::Short => f.write_str("the checkpoint ends before its footer"),
            CheckpointDamage::Long => f.write_str("something follows the checkpoint's footer"),
        }
    }
}

impl std::error::Error for CheckpointDamage {}

/// Reads one file. After an error it must not be fed again.
#[derive(Default)]
pub struct Reader {
    /// The bytes of a block that is not all there yet.
    block: Vec<u8>,
    number: u32,
    chain: u32,
    stream: Stream,
    footer: Option<Footer>,
}

impl Reader {
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Takes the next bytes, as many as there are, and calls `on` for what they complete.
    pub fn feed(&mut self, mut bytes: &[u8], on: &mut dyn FnMut(Item<'_>)) -> Result<(), CheckpointDamage> {
        while !bytes.is_empty() {
            if self.footer.is_some() {
                return Err(CheckpointDamage::Long);
            }
            if self.block.is_empty()
                && let Some(len) = self.block_len(bytes)?
                && let Some((block, rest)) = bytes.split_at_checked(len)
            {
                self.block(block, on)?;
                bytes = rest;
                continue;
            }
            let wanted = self.block_len(&self.block)?.unwrap_or(BLOCK_HEADER_BYTES) - self.block.len();
            assert!(wanted > 0, "a block that is all there has been taken");
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block_len(&self.block)? == Some(self.block.len()) {
                let block = std::mem::take(&mut self.block);
                self.block(&block, on)?;
                self.block = block;
                self.block.clear();
            }
        }
        Ok(())
    }

    /// Whether the whole file was there.
    pub fn finish(self) -> Result<Footer, CheckpointDamage> {
        self.footer.ok_or(CheckpointDamage::Short)
    }

    /// The length of the block that begins here; none where its header is not all there.
    fn block_len(&self, bytes: &[u8]) -> Result<Option<usize>, CheckpointDamage> {
        if bytes.len() < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        let len = (BLOCK_HEADER_BYTES + u32_at(bytes, 12) as usize).next_multiple_of(BLOCK_BYTES);
        let plausible = &bytes[..8] == MAGIC && len <= CHECKPOINT_BLOCK_BYTES_MAX;
        if plausible { Ok(Some(len)) } else { Err(CheckpointDamage::Block(self.number)) }
    }

    fn block(&mut self, block: &[u8], on: &mut dyn FnMut(Item<'_>)) -> Result<(), CheckpointDamage> {
        let number = self.number;
        let crc = crc32c::crc32c(&block[CRC_FROM..]);
        if crc != u32_at(block, CRC_AT) || u32_at(block, 20) != self.chain || u32_at(block, 16) != number {
            return Err(CheckpointDamage::Block(number));
        }
        let (found, known) = (u64::from(u16_at(block, 24)), u64::from(FORMAT));
        if found != known {
            return Err(CheckpointDamage::Format(VersionMismatch { what: "format", found, known }));
        }
        let body = &block[BLOCK_HEADER_BYTES..][..u32_at(block, 12) as usize];
        (self.number, self.chain) = (number.wrapping_add(1), crc);
        match u16_at(block, 26) {
            BODY => {
                self.stream.hash = fold(self.stream.hash, crc);
                self.stream.body(body, on).ok_or(CheckpointDamage::Senseless(number))
            }
            FOOTER => {
                self.footer = Some(self.stream.footer(body).ok_or(CheckpointDamage::Senseless(number))?);
                Ok(())
            }
            _ => Err(CheckpointDamage::Senseless(number)),
        }
    }
}

/// What the bodies say, one after the other.
#[derive(Default)]
struct Stream {
    /// The beginning of something that ends in a later block.
    partial: Vec<u8>,
    /// The revision of the meta, once it has come.
    revision: Option<Revision>,
    last: Option<At>,
    bytes: u64,
    versions: u64,
    hash: u64,
}

impl Stream {
    fn body(&mut self, mut body: &[u8], on: &mut dyn FnMut(Item<'_>)) -> Option<()> {
        self.bytes += body.len() as u64;
        while !self.partial.is_empty() && !body.is_empty() {
            let wanted = self.wanted(&self.partial).checked_sub(self.partial.len())?;
            let (now, later) = body.split_at(wanted.min(body.len()));
            self.partial.extend_from_slice(now);
            body = later;
            if self.wanted(&self.partial) == self.partial.len() {
                let item = std::mem::take(&mut self.partial);
                self.item(&item, on)?;
                self.partial = item;
                self.partial.clear();
            }
        }
        while !body.is_empty() {
            let Some((item, rest)) = body.split_at_checked(self.wanted(body)) else {
                self.partial.extend_from_slice(body);
                break;
            };
            self.item(item, on)?;
            body = rest;
        }
        Some(())
    }

    /// How long the thing is that begins here, as far as these bytes say; more than there are, until all
    /// are there.
    fn wanted(&self, bytes: &[u8]) -> usize {
        if self.revision.is_none() {
            return match bytes.get(..META_HEADER_BYTES) {
                Some(head) => (u64_at(head, 0) as usize).saturating_add(META_HEADER_BYTES),
                None => META_HEADER_BYTES,
            };
        }
        let Some(head) = bytes.get(..VERSION_HEADER_BYTES) else { return VERSION_HEADER_BYTES };
        let value = match u32_at(head, 40) {
            TOMBSTONE => 0,
            len => len as usize,
        };
        VERSION_HEADER_BYTES + u32_at(head, 36) as usize + value
    }

    fn item(&mut self, bytes: &[u8], on: &mut dyn FnMut(Item<'_>)) -> Option<()> {
        let Some(revision) = self.revision else {
            let mut aligned: AlignedVec = AlignedVec::with_capacity(bytes.len());
            aligned.extend_from_slice(&bytes[META_HEADER_BYTES..]);
            let meta: Meta = rkyv::from_bytes::<Meta, Invalid>(&aligned).ok()?;
            meta.peers()?;
            self.revision = Some(Revision(meta.revision));
            self.last =
                meta.chain.last().map(|link| At { main: Revision(link.revision), sub: Sub(u32::MAX) });
            on(Item::Meta(Box::new(meta)));
            return Some(());
        };
        let (head, rest) = bytes.split_at(VERSION_HEADER_BYTES);
        let (key, value) = rest.split_at(u32_at(head, 36) as usize);
        let at = At { main: Revision(u64_at(head, 0)), sub: Sub(u32_at(head, 32)) };
        if at.main > revision || self.last.is_some_and(|before| before >= at) {
            return None;
        }
        (self.last, self.versions) = (Some(at), self.versions + 1);
        on(Item::Version(StoredVersion {
            at,
            key,
            value: (u32_at(head, 40) != TOMBSTONE).then_some(value),
            create_revision: Revision(u64_at(head, 8)),
            version: u64_at(head, 16),
            lease: LeaseId(u64_at(head, 24).cast_signed()),
        }));
        Some(())
    }

    fn footer(&self, body: &[u8]) -> Option<Footer> {
        let whole = body.len() == FOOTER_BYTES
            && self.partial.is_empty()
            && self.revision.is_some()
            && u64_at(body, 0) == self.versions
            && u64_at(body, 8) == self.bytes
            && u64_at(body, 16) == self.hash;
        whole.then_some(Footer { versions: self.versions, hash: self.hash })
    }
}
