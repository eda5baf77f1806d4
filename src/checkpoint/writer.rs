//! The writing side: state in, blocks out.

use super::format::*;
use super::state::Meta;
use crate::limits::{BLOCK_BYTES, CHECKPOINT_BLOCK_BYTES_MAX};
use crate::log::Buffer;
use crate::types::{At, Epoch, Event, Revision, Sub};
use rkyv::rancor::Error as Invalid;

/// Makes one checkpoint file. Memory is bounded by one block, beside those the caller has not taken.
pub struct Writer {
    block: Buffer,
    number: u32,
    chain: u32,
    stream_bytes: u64,
    versions: u64,
    last: Option<At>,
    revision: u64,
    written: WrittenFile,
}

/// What a file has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenFile {
    pub bytes: u64,
    pub hash: u64,
}

impl Writer {
    /// Full blocks are pushed to `out` in the order of the file. Each is written whole.
    pub fn new(meta: &Meta, out: &mut Vec<Buffer>) -> Writer {
        assert!(!meta.voters.is_empty(), "a checkpoint says who the group's peers are");
        let mut writer = Writer {
            block: Buffer::with_capacity(CHECKPOINT_BLOCK_BYTES_MAX),
            number: 0,
            chain: 0,
            stream_bytes: 0,
            versions: 0,
            last: meta.chain.last().map(|link| At { main: Revision(link.revision), sub: Sub(u32::MAX) }),
            revision: meta.revision,
            written: WrittenFile::default(),
        };
        assert!(meta.compacted <= meta.revision, "what is compacted is settled");
        let revisions = meta.chain.iter().map(|link| link.revision).chain([meta.revision]);
        assert!(revisions.is_sorted(), "files go on from older ones");
        assert!(meta.chain.iter().all(|link| link.file < meta.file), "a file's number is new");
        let is_control = meta.shard == 0;
        assert!(meta.control.is_none() || is_control, "the control shard alone has the control state");
        assert!(Epoch::from(meta.seal) <= Epoch::from(meta.fence), "a seal follows the fence of its epoch");
        assert!(meta.index > 0 && meta.term > 0, "a group begins behind an index and a term above 0");
        let voters = &meta.voters;
        assert!(!voters.is_empty(), "a group has voters");
        assert!(meta.learners.iter().all(|learner| !voters.contains(learner)), "a member votes or learns");
        writer.block.fill_to(BLOCK_HEADER_BYTES);
        let bytes = rkyv::to_bytes::<Invalid>(meta).expect("archiving into memory has no way to fail");
        writer.put(&(bytes.len() as u64).to_le_bytes(), out);
        writer.put(&bytes, out);
        writer
    }

    /// The next version of history. Panics where it is not above the one before and the files that this one
    /// goes on from, or is above the revision.
    pub fn version(&mut self, at: At, event: &Event, out: &mut Vec<Buffer>) {
        assert!(self.last.is_none_or(|before| before < at), "history comes in ascending order");
        assert!(at.main.0 <= self.revision, "a checkpoint holds what is up to its revision");
        assert_eq!(event.revision(), at.main, "a change stands at its revision");
        (self.last, self.versions) = (Some(at), self.versions + 1);
        let (create, version, lease, value) = match event {
            Event::Put(kv) => {
                assert!(kv.create_revision <= at.main && kv.version > 0, "a key lives from its creation on");
                (kv.create_revision.0, kv.version, kv.lease.0, Some(&kv.value))
            }
            Event::Delete { .. } => (0, 0, 0, None),
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("requests are far below 4 GiB");
        let key = event.key();
        let mut head = [0; VERSION_HEADER_BYTES];
        head[..8].copy_from_slice(&at.main.0.to_le_bytes());
        head[8..16].copy_from_slice(&create.to_le_bytes());
        head[16..24].copy_from_slice(&version.to_le_bytes());
        head[24..32].copy_from_slice(&lease.to_le_bytes());
        head[32..36].copy_from_slice(&at.sub.0.to_le_bytes());
        head[36..40].copy_from_slice(&length(key).to_le_bytes());
        head[40..44].copy_from_slice(&value.map_or(TOMBSTONE, |value| length(value)).to_le_bytes());
        self.put(&head, out);
        self.put(key, out);
        if let Some(value) = value {
            self.put(value, out);
        }
    }

    /// The end of the file.
    pub fn finish(mut self, out: &mut Vec<Buffer>) -> WrittenFile {
        if self.block.len() > BLOCK_HEADER_BYTES {
            self.close(BODY, out);
        }
        for number in [self.versions, self.stream_bytes, self.written.hash] {
            self.block.extend(&number.to_le_bytes());
        }
        self.close(FOOTER, out);
        assert!(self.written.bytes >= self.stream_bytes, "all of the stream is in the blocks");
        assert!(self.written.bytes.is_multiple_of(BLOCK_BYTES as u64), "a file is whole blocks");
        self.written
    }

    fn put(&mut self, mut bytes: &[u8], out: &mut Vec<Buffer>) {
        self.stream_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = CHECKPOINT_BLOCK_BYTES_MAX - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend(now);
            bytes = later;
            if self.block.len() == CHECKPOINT_BLOCK_BYTES_MAX {
                self.close(BODY, out);
            }
        }
    }

    fn close(&mut self, kind: u16, out: &mut Vec<Buffer>) {
        let body = u32::try_from(self.block.len() - BLOCK_HEADER_BYTES).expect("a block is 128 KiB");
        assert!(body > 0, "no block is empty");
        assert!(self.block.len() <= CHECKPOINT_BLOCK_BYTES_MAX, "a reader takes blocks of 128 KiB");
        self.block.fill_to(self.block.len().next_multiple_of(BLOCK_BYTES));
        let block = &mut self.block;
        block[..8].copy_from_slice(MAGIC);
        block[12..16].copy_from_slice(&body.to_le_bytes());
        block[16..20].copy_from_slice(&self.number.to_le_bytes());
        block[20..24].copy_from_slice(&self.chain.to_le_bytes());
        block[24..26].copy_from_slice(&FORMAT.to_le_bytes());
        block[26..28].copy_from_slice(&kind.to_le_bytes());
        self.chain = crc32c::crc32c(&block[CRC_FROM..]);
        block[CRC_AT..CRC_FROM].copy_from_slice(&self.chain.to_le_bytes());
        self.number += 1;
        self.written.bytes += block.len() as u64;
        if kind == BODY {
            self.written.hash = fold(self.written.hash, self.chain);
        }
        let mut next = Buffer::with_capacity(CHECKPOINT_BLOCK_BYTES_MAX);
        next.fill_to(BLOCK_HEADER_BYTES);
        out.push(std::mem::replace(&mut self.block, next));
    }
}
