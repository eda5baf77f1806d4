//! The bytes of a segment file. All numbers are little-endian; CRC is CRC32C.
//!
//! ```text
//! segment   │ header block │ frame │ frame │ … │ old bytes or zeros            │
//!           0              4096    each at a multiple of 4096        segment size
//!
//! header block                            frame (112 bytes, then records, then zeros)
//!   0  magic "braidseg"                     0  magic "braidfrm"
//!   8  CRC of 12..4096                      8  CRC of 12..end, the zeros included
//!  12  format version                      12  CRC of the frame before (the chain)
//!  16  log                                 16  log
//!  20  CRC of the last frame before        20  bytes of records
//!  24  key                                 24  key
//!  32  incarnation                         32  incarnation
//!  40  sequence of this segment            40  sequence of this segment
//!  48  segment in which the log before     48  offset in the segment
//!      this header ends (0: nowhere)
//!  56  offset at which it ends             56  number of the frame
//!  64  number of the next frame            64  last frame acknowledged at submission
//!  72  last frame acknowledged             72  first segment still needed
//!  80  first segment still needed          80  the member's settled revision
//!  88  bytes of this file                  88  another log of the member 4, zero 4
//!  96  store                               96  that log's key
//! 104  what each other log of the         104  a frame it had acknowledged (0: none)
//!      member had acknowledged: as in
//!      a frame, up to the first frame 0
//!
//! record (24 bytes, then its body, then zeros up to a multiple of 8)
//!   0  bytes of the body
//!   4  kind: 1 entry, 2 hard state, 3 open, 4 checkpoint, 5 coverage, 6 close, 7 moved in
//!   5  entry: the caller's kind; open: 1 where it only repeats what earlier segments say
//!   6  version of the record
//!   8  shard          12  home          16  index (entry; else 0)
//!  bodies
//!   entry       term 8, payload
//!   hard state  term 8, vote 8, commit 8
//!   open        index 8, term 8, hard state 24, own id 8, voters 4, learners 4, then 8 each
//!   checkpoint  revision 8, index 8, term 8, file 8, hash 8, home 8
//!   coverage    revision 8, index 8
//! ```
//!
//! The *key* is a random number drawn when the log is made. It never leaves the member, so no client can
//! send a value that reads as a frame. The position in the header and the chain catch frames that a disk
//! wrote to the wrong place and frames of a recycled file's earlier life.
//!
//! The *store* is what the data directory's identity says, in every segment of every log: so that the files of
//! one member are not served under the name of another.
//!
//! **Other versions.** Whatever a later one changes, a segment's magic, CRC and format stay where they are, and so
//! do a record's length and version: so what a newer program wrote is told from damage. Votes, voters and
//! learners are raft ids, and 0 is nobody.

use super::{
    Buffer, Checkpointed, CoverageRecord, LogId, Opening, Record, Resident, StoredHardState, Testimony,
};
use crate::limits::{BLOCK_BYTES, LOG_WRITE_BYTES_MAX};
use crate::record::VERSION;
use crate::stdx::VersionMismatch;
use crate::types::{Index, Peers, RaftId, Revision, ShardId, StoreId, Term};
use std::borrow::Cow;

pub(super) const FORMAT: u32 = 4;
const SEGMENT_MAGIC: &[u8; 8] = b"braidseg";
const FRAME_MAGIC: &[u8; 8] = b"braidfrm";
const CRC_AT: usize = 8;
pub(super) const CRC_FROM: usize = 12;
pub(super) const FRAME_HEADER_BYTES: usize = 112;
pub(super) const RECORD_HEADER_BYTES: usize = 24;
const WORDS_FROM: usize = 104;
const WORD_BYTES: usize = 24;

/// Where a run of frames ends and the next begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogEnd {
    pub segment: u64,
    pub offset: u64,
    /// Number of the frame that comes here.
    pub frame: u64,
    /// CRC of the frame before.
    pub chain: u32,
}

/// The first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub log: LogId,
    pub key: u64,
    pub incarnation: u64,
    pub sequence: u64,
    pub end: LogEnd,
    pub acknowledged: u64,
    pub first: u64,
    /// How long the file is.
    pub bytes: u64,
    /// Whose it is.
    pub store: StoreId,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub log: LogId,
    pub key: u64,
    pub incarnation: u64,
    pub segment: u64,
    pub offset: u64,
    pub frame: u64,
    pub chain: u32,
    pub records_bytes: u32,
    pub acknowledged: u64,
    pub first: u64,
    pub settled: u64,
    pub other: Option<Testimony>,
}

/// Why bytes are no header or frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Old, torn or rotten.
    Bytes,
    /// Whole, and of another version of the program.
    Format(VersionMismatch),
}

/// Why bytes are no record, though their frame is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRecord {
    /// It says what no log can say.
    Senseless,
    /// Of another version of the program.
    Version(VersionMismatch),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// What stands in a header of another log, if anything does.
fn word_at(bytes: &[u8], at: usize) -> Option<Testimony> {
    let log = LogId(u32_at(bytes, at));
    let word = Testimony { log, key: u64_at(bytes, at + 8), frame: u64_at(bytes, at + 16) };
    (word.frame > 0).then_some(word)
}

/// The length in whole blocks that holds `bytes`.
pub(super) fn in_blocks(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

impl SegmentHeader {
    /// With the words of other logs, as many as have room.
    pub fn encode(&self, words: impl Iterator<Item = Testimony>, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES);
        assert!(self.end.frame > self.acknowledged, "nothing is acknowledged before it is written");
        assert!((1..=self.sequence).contains(&self.first), "a segment that begins is needed: {}", self.first);
        block.fill(0);
        block[..8].copy_from_slice(SEGMENT_MAGIC);
        put32(block, 12, FORMAT);
        put32(block, 16, self.log.0);
        put32(block, 20, self.end.chain);
        let numbers = [
            self.key,
            self.incarnation,
            self.sequence,
            self.end.segment,
            self.end.offset,
            self.end.frame,
            self.acknowledged,
            self.first,
            self.bytes,
            self.store.0,
        ];
        for (place, number) in numbers.into_iter().enumerate() {
            put64(block, 24 + 8 * place, number);
        }
        for (place, word) in block[WORDS_FROM..].chunks_exact_mut(WORD_BYTES).zip(words) {
            put32(place, 0, word.log.0);
            put64(place, 8, word.key);
            put64(place, 16, word.frame);
        }
        let crc = crc32c::crc32c(&block[CRC_FROM..]);
        put32(block, CRC_AT, crc);
    }

    /// The words of other logs in a block that is a header.
    pub fn words(block: &[u8]) -> impl Iterator<Item = Testimony> + '_ {
        block[WORDS_FROM..BLOCK_BYTES].chunks_exact(WORD_BYTES).map_while(|place| word_at(place, 0))
    }

    pub fn decode(block: &[u8]) -> Result<SegmentHeader, Bad> {
        if block.len() != BLOCK_BYTES
            || &block[..8] != SEGMENT_MAGIC
            || crc32c::crc32c(&block[CRC_FROM..]) != u32_at(block, CRC_AT)
        {
            return Err(Bad::Bytes);
        }
        let (found, known) = (u64::from(u32_at(block, 12)), u64::from(FORMAT));
        if found != known {
            return Err(Bad::Format(VersionMismatch { what: "format", found, known }));
        }
        Ok(SegmentHeader {
            log: LogId(u32_at(block, 16)),
            key: u64_at(block, 24),
            incarnation: u64_at(block, 32),
            sequence: u64_at(block, 40),
            end: LogEnd {
                segment: u64_at(block, 48),
                offset: u64_at(block, 56),
                frame: u64_at(block, 64),
                chain: u32_at(block, 20),
            },
            acknowledged: u64_at(block, 72),
            first: u64_at(block, 80),
            bytes: u64_at(block, 88),
            store: StoreId(u64_at(block, 96)),
        })
    }
}

impl FrameHeader {
    /// Completes a frame whose records stand behind 112 free bytes, padding included; returns its CRC.
    pub fn encode(&self, frame: &mut [u8]) -> u32 {
        assert_eq!(frame.len(), in_blocks(FRAME_HEADER_BYTES + self.records_bytes as usize));
        frame[..8].copy_from_slice(FRAME_MAGIC);
        put32(frame, 12, self.chain);
        put32(frame, 16, self.log.0);
        put32(frame, 20, self.records_bytes);
        let numbers = [
            self.key,
            self.incarnation,
            self.segment,
            self.offset,
            self.frame,
            self.acknowledged,
            self.first,
            self.settled,
            self.other.map_or(0, |other| u64::from(other.log.0)),
            self.other.map_or(0, |other| other.key),
            self.other.map_or(0, |other| other.frame),
        ];
        for (place, number) in numbers.into_iter().enumerate() {
            put64(frame, 24 + 8 * place, number);
        }
        let crc = crc32c::crc32c(&frame[CRC_FROM..]);
        put32(frame, CRC_AT, crc);
        crc
    }

    /// Reads the frame at the beginning of `bytes`: its header, its CRC and its length in bytes. `plausible`
    /// looks at the header before the CRC is computed over as many bytes as it claims.
    pub fn decode(
        bytes: &[u8],
        plausible: impl FnOnce(&FrameHeader) -> bool,
    ) -> Option<(FrameHeader, u32, usize)> {
        let (header, crc, len) = FrameHeader::claimed(bytes)?;
        if len > bytes.len() || !plausible(&header) {
            return None;
        }
        (crc32c::crc32c(&bytes[CRC_FROM..len]) == crc).then_some((header, crc, len))
    }

    /// As [`FrameHeader::decode`], of the frame's first block alone: what it says is so if its CRC is that of the
    /// whole, from byte [`CRC_FROM`] on. None where no frame is so long.
    pub fn claimed(bytes: &[u8]) -> Option<(FrameHeader, u32, usize)> {
        if bytes.len() < BLOCK_BYTES || &bytes[..8] != FRAME_MAGIC {
            return None;
        }
        let header = FrameHeader {
            log: LogId(u32_at(bytes, 16)),
            key: u64_at(bytes, 24),
            incarnation: u64_at(bytes, 32),
            segment: u64_at(bytes, 40),
            offset: u64_at(bytes, 48),
            frame: u64_at(bytes, 56),
            chain: u32_at(bytes, 12),
            records_bytes: u32_at(bytes, 20),
            acknowledged: u64_at(bytes, 64),
            first: u64_at(bytes, 72),
            settled: u64_at(bytes, 80),
            other: word_at(bytes, 88),
        };
        let len = in_blocks(FRAME_HEADER_BYTES + header.records_bytes as usize);
        // Whoever reads on gathers so much before the CRC is known.
        (len <= LOG_WRITE_BYTES_MAX).then(|| (header, u32_at(bytes, CRC_AT), len))
    }
}

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const OPEN: u8 = 3;
const CHECKPOINT: u8 = 4;
const COVERAGE: u8 = 5;
const CLOSE: u8 = 6;
const MOVED_IN: u8 = 7;
const INSTALLED: u8 = 8;

/// A record as it stands in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed<'a> {
    pub resident: Resident,
    /// An opening that only repeats what earlier segments say.
    pub restated: bool,
    pub record: Record<'a>,
}

impl Placed<'_> {
    fn body_bytes(&self) -> usize {
        match &self.record {
            Record::Entry { payload, .. } => 8 + payload.len(),
            Record::HardState(_) => 24,
            Record::Open(open) => 56 + 8 * (open.peers.voters.len() + open.peers.learners.len()),
            Record::Checkpoint(_) | Record::Installed(_) => 48,
            Record::Coverage(_) => 16,
            Record::MovedIn | Record::Close => 0,
        }
    }

    /// What it takes in a frame.
    pub fn bytes(&self) -> usize {
        (RECORD_HEADER_BYTES + self.body_bytes()).next_multiple_of(8)
    }

    pub fn encode(&self, into: &mut Buffer) {
        assert!(into.len().is_multiple_of(8), "a record begins where 8 divides its place: {}", into.len());
        let end = into.len() + self.bytes();
        let (kind, detail, index) = match &self.record {
            Record::Entry { kind, index, .. } => (ENTRY, *kind, index.0),
            Record::HardState(_) => (HARD_STATE, 0, 0),
            Record::Open(_) => (OPEN, u8::from(self.restated), 0),
            Record::Checkpoint(_) => (CHECKPOINT, 0, 0),
            Record::Installed(_) => (INSTALLED, 0, 0),
            Record::Coverage(_) => (COVERAGE, 0, 0),
            Record::MovedIn => (MOVED_IN, 0, 0),
            Record::Close => (CLOSE, 0, 0),
        };
        let body = u32::try_from(self.body_bytes()).expect("a record fits into a segment");
        let mut head = [0; RECORD_HEADER_BYTES];
        put32(&mut head, 0, body);
        head[4] = kind;
        head[5] = detail;
        head[6..8].copy_from_slice(&VERSION.to_le_bytes());
        put32(&mut head, 8, self.resident.shard.0);
        put32(&mut head, 12, self.resident.home);
        put64(&mut head, 16, index);
        into.extend(&head);
        self.encode_body(into);
        into.fill_to(end);
    }

    fn encode_body(&self, into: &mut Buffer) {
        let mut numbers = |list: &[u64]| list.iter().for_each(|n| into.extend(&n.to_le_bytes()));
        match &self.record {
            Record::Entry { term, payload, .. } => {
                numbers(&[term.0]);
                into.extend(payload);
            }
            Record::HardState(hard) => numbers(&hard_numbers(hard)),
            Record::Open(open) => {
                let [voters, learners] = open.peers.numbers();
                numbers(&[open.index.0, open.term.0]);
                numbers(&hard_numbers(&open.hard));
                numbers(&[open.own.get(), voters.len() as u64 | (learners.len() as u64) << 32]);
                numbers(&voters);
                numbers(&learners);
            }
            Record::Checkpoint(c) | Record::Installed(c) => {
                numbers(&[c.revision.0, c.index.0, c.term.0, c.file, c.hash, u64::from(c.home)]);
            }
            Record::Coverage(c) => numbers(&[c.revision.0, c.index.0]),
            Record::MovedIn | Record::Close => {}
        }
    }

    /// Reads one record off the front of `rest`.
    pub fn decode<'a>(rest: &mut &'a [u8]) -> Result<Placed<'a>, BadRecord> {
        let head = rest.get(..RECORD_HEADER_BYTES).ok_or(BadRecord::Senseless)?;
        let (found, known) = (u64::from(u16::from_le_bytes([head[6], head[7]])), u64::from(VERSION));
        if found != known {
            return Err(BadRecord::Version(VersionMismatch { what: "record version", found, known }));
        }
        Placed::decode_known(rest).ok_or(BadRecord::Senseless)
    }

    /// As [`Placed::decode`], of this version.
    fn decode_known<'a>(rest: &mut &'a [u8]) -> Option<Placed<'a>> {
        let (head, after) = rest.split_at_checked(RECORD_HEADER_BYTES)?;
        let len = u32_at(head, 0) as usize;
        let body = after.get(..len)?;
        *rest = after.get(len.next_multiple_of(8)..)?;
        let resident = Resident { shard: ShardId(u32_at(head, 8)), home: u32_at(head, 12) };
        let restated = head[4] == OPEN && head[5] == 1;
        let record = decode_body(head, body)?;
        Some(Placed { resident, restated, record })
    }
}

fn decode_body<'a>(head: &[u8], body: &'a [u8]) -> Option<Record<'a>> {
    let exact = |bytes: usize| (body.len() == bytes).then_some(());
    Some(match head[4] {
        ENTRY => {
            let (term, payload) = body.split_at_checked(8)?;
            let (index, term) = (Index(u64_at(head, 16)), Term(u64_at(term, 0)));
            Record::Entry { index, term, kind: head[5], payload }
        }
        HARD_STATE => {
            exact(24)?;
            Record::HardState(hard_state_at(body, 0))
        }
        OPEN => {
            let (fixed, ids) = body.split_at_checked(56)?;
            let (voters, learners) = (u32_at(fixed, 48) as usize, u32_at(fixed, 52) as usize);
            if ids.len() != 8 * voters.checked_add(learners)? {
                return None;
            }
            let ids: Vec<u64> = ids.chunks_exact(8).map(|id| u64_at(id, 0)).collect();
            Record::Open(Cow::Owned(Opening {
                index: Index(u64_at(fixed, 0)),
                term: Term(u64_at(fixed, 8)),
                hard: hard_state_at(fixed, 16),
                own: RaftId::new(u64_at(fixed, 40))?,
                peers: Peers::of(&ids[..voters], &ids[voters..])?,
            }))
        }
        CHECKPOINT | INSTALLED => {
            exact(48)?;
            let checkpoint = Checkpointed {
                revision: Revision(u64_at(body, 0)),
                index: Index(u64_at(body, 8)),
                term: Term(u64_at(body, 16)),
                file: u64_at(body, 24),
                hash: u64_at(body, 32),
                home: u32::try_from(u64_at(body, 40)).ok()?,
            };
            match head[4] {
                INSTALLED => Record::Installed(checkpoint),
                _ => Record::Checkpoint(checkpoint),
            }
        }
        COVERAGE => {
            exact(16)?;
            Record::Coverage(CoverageRecord {
                revision: Revision(u64_at(body, 0)),
                index: Index(u64_at(body, 8)),
            })
        }
        CLOSE => {
            exact(0)?;
            Record::Close
        }
        MOVED_IN => {
            exact(0)?;
            Record::MovedIn
        }
        _ => return None,
    })
}

fn hard_numbers(hard: &StoredHardState) -> [u64; 3] {
    [hard.term.0, hard.vote.map_or(0, RaftId::get), hard.commit.0]
}

fn hard_state_at(bytes: &[u8], at: usize) -> StoredHardState {
    StoredHardState {
        term: Term(u64_at(bytes, at)),
        vote: RaftId::new(u64_at(bytes, at + 8)),
        commit: Index(u64_at(bytes, at + 16)),
    }
}
