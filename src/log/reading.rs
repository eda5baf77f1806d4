//! Reads entries of one resident back from the segments of a log that goes on, as for a follower that lacks them.
//!
//! **The question.** Records of all residents stand mixed in frames, and what was replaced stands there as well. Where
//! does a read begin, which of two entries with one index counts, and how is a block that the disk has lost, or changed
//! since, kept from being taken for an entry?
//!
//! **The rule.** The log knows its *stretches*: where a resident's entries stand one behind the other in a segment, and
//! how far none of them is replaced. A read begins at the frame of the stretch that has the first entry and goes from
//! stretch to stretch. Of a frame nothing counts before all of it is there with its CRC, at its place, and of the
//! incarnation that wrote there: what an earlier one had left may show where the disk has lost a write. Entries that
//! are read are durable, so whatever is missing or does not fit is damage: never the torn end of a log, which is not
//! looked at.
//!
//! **Why not otherwise.** To replay a log's segments from their beginning, as recovery does, would read most of it
//! again for every few entries. To find each entry by a place of its own would cost as much memory as small entries
//! take.

use super::format::{CRC_FROM, FRAME_HEADER_BYTES, FrameHeader, Placed};
use super::standing::{EntryStretch, Place};
use super::{LogId, Record, RecoveredEntry, Resident, SegmentName};
use crate::limits::{BLOCK_BYTES, LOG_READ_BYTES};
use crate::record::Payload;
use crate::types::{Index, Term};
use std::collections::VecDeque;

/// A piece of a segment's file: whole blocks, or fewer at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPiece {
    pub segment: SegmentName,
    pub offset: u64,
    pub bytes: usize,
}

/// What was acknowledged does not stand where it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub segment: SegmentName,
    /// Of the frame.
    pub offset: u64,
    /// The last entry that it is known to keep from being read.
    pub upto: Index,
}

/// Entries without a gap, and what they stand behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Entries {
    pub after: (Index, Term),
    pub entries: Vec<RecoveredEntry>,
}

/// The frame at the beginning of what was read.
enum FrameAtHand {
    /// Less than a block of it is there.
    Nothing,
    /// It is not whole yet: what it claims, and the CRC of the bytes so far.
    Part { records_bytes: u32, crc: u32, len: usize, summed: usize, sum: u32 },
    /// It is what was written; its records go on there, and end there.
    Whole { len: usize, next: usize, end: usize },
}

pub struct EntryReader {
    of: (LogId, u64),
    resident: Resident,
    /// Those that hold what is still to be read.
    stretches: VecDeque<EntryStretch>,
    /// The next entry, and the last one.
    next: Index,
    upto: Index,
    /// The term of the entry before, once it is known.
    term_before: Option<Term>,
    segment: u64,
    incarnation: u64,
    /// Of the front in the segment.
    offset: u64,
    bytes: Vec<u8>,
    front: FrameAtHand,
}

impl EntryReader {
    /// Of the log with this key. The stretches hold everything from the first entry, with the one before it where its
    /// term is not known, up to the last one.
    pub(super) fn new(
        of: (LogId, u64),
        resident: Resident,
        stretches: VecDeque<EntryStretch>,
        (from, term_before): (Index, Option<Term>),
        upto: Index,
    ) -> EntryReader {
        let first = term_before.map_or(Index(from.0 - 1), |_| from);
        let begins = stretches.front().expect("what is read stands somewhere");
        assert!(begins.first <= first && begins.upto >= first, "a read begins in its first stretch: {first}");
        let ends = stretches.back().map(|stretch| stretch.upto);
        assert!(ends >= Some(upto), "all that is read stands somewhere: up to {ends:?} of {upto}");
        let Place { segment, frame, incarnation, .. } = begins.begins;
        EntryReader {
            of,
            resident,
            stretches,
            next: first,
            upto,
            term_before,
            segment,
            incarnation,
            offset: frame,
            bytes: vec![],
            front: FrameAtHand::Nothing,
        }
    }

    /// The segment that is read.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Whether a frame is there whose records are not all taken.
    pub fn has_records(&self) -> bool {
        matches!(self.front, FrameAtHand::Whole { .. })
    }

    /// What is to be read next: none while there are records, and at the end.
    pub fn wants(&self) -> Option<LogPiece> {
        if self.has_records() || self.next > self.upto {
            return None;
        }
        let segment = SegmentName { log: self.of.0, sequence: self.segment };
        let offset = self.offset + self.bytes.len() as u64;
        Some(LogPiece { segment, offset, bytes: LOG_READ_BYTES })
    }

    /// Takes what stands in the piece that was wanted: less where the file ends.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        assert!(self.wants().is_some(), "what is read is wanted");
        assert!(piece.len() <= LOG_READ_BYTES, "no more is read than was wanted: {}", piece.len());
        if piece.is_empty() || !piece.len().is_multiple_of(BLOCK_BYTES) {
            return Err(self.unreadable());
        }
        self.bytes.extend_from_slice(piece);
        self.look()
    }

    /// What to say of the frame that is being read, where it is not what it should be.
    pub fn unreadable(&self) -> Unreadable {
        let segment = SegmentName { log: self.of.0, sequence: self.segment };
        let upto = self.stretches.front().map_or(self.next, |stretch| stretch.upto.max(self.next));
        Unreadable { segment, offset: self.offset, upto }
    }

    /// Looks at the front as far as it is there.
    fn look(&mut self) -> Result<(), Unreadable> {
        if let FrameAtHand::Nothing = self.front {
            let Some(block) = self.bytes.get(..BLOCK_BYTES) else { return Ok(()) };
            let claimed = FrameHeader::claimed(block);
            let (header, crc, len) =
                claimed.filter(|(header, ..)| self.is_next(header)).ok_or(self.unreadable())?;
            let records_bytes = header.records_bytes;
            self.front = FrameAtHand::Part { records_bytes, crc, len, summed: CRC_FROM, sum: 0 };
        }
        if let FrameAtHand::Part { records_bytes, crc, len, summed, sum } = &mut self.front {
            let there = self.bytes.len().min(*len);
            *sum = crc32c::crc32c_append(*sum, &self.bytes[*summed..there]);
            *summed = there;
            if there == *len {
                if sum != crc {
                    return Err(self.unreadable());
                }
                let end = FRAME_HEADER_BYTES + *records_bytes as usize;
                self.front = FrameAtHand::Whole { len: *len, next: FRAME_HEADER_BYTES, end };
            }
        }
        Ok(())
    }

    /// Whether it is the header of the frame that was written here.
    fn is_next(&self, header: &FrameHeader) -> bool {
        let (of, place) = ((header.log, header.key), (header.incarnation, header.segment, header.offset));
        of == self.of && place == (self.incarnation, self.segment, self.offset)
    }

    /// The next entries that are there, in about so many bytes of records: there may be none in these.
    pub fn entries(&mut self, bytes_max: usize) -> Result<Option<Entries>, Unreadable> {
        let (mut found, mut after, mut looked) = (vec![], None, 0);
        while let FrameAtHand::Whole { len, next, end } = self.front {
            if next == end || self.next > self.upto {
                self.pass(len)?;
                continue;
            }
            if looked >= bytes_max {
                break;
            }
            let mut rest = &self.bytes[next..end];
            let Ok(placed) = Placed::decode(&mut rest) else { return Err(self.unreadable()) };
            let then = end - rest.len();
            // Whatever it is, it takes time to look at.
            looked += then - next;
            if placed.resident == self.resident
                && let Record::Entry { index, term, kind, payload } = placed.record
                && self.stands(self.offset + next as u64)
            {
                assert!(index <= self.next, "a stretch has its entries one behind the other: {index}");
                if index == self.next {
                    let before = self.term_before.replace(term);
                    assert!(before <= Some(term), "terms do not fall along a log: {term} after {before:?}");
                    if let Some(before) = before {
                        after.get_or_insert((Index(index.0 - 1), before));
                        let payload = Payload::copy_of(payload);
                        found.push(RecoveredEntry { index, term, kind, payload });
                    }
                    self.next = index.next();
                    self.pass_stretches();
                }
            }
            self.front = FrameAtHand::Whole { len, next: then, end };
        }
        Ok(after.map(|after| Entries { after, entries: found }))
    }

    /// Whether the record there is of the stretch that has the next entry, or behind its beginning.
    fn stands(&self, at: u64) -> bool {
        let stretch = self.stretches.front().filter(|stretch| stretch.begins.segment == self.segment);
        stretch.is_some_and(|stretch| at >= stretch.begins.at)
    }

    fn pass_stretches(&mut self) {
        while self.stretches.front().is_some_and(|stretch| stretch.upto < self.next) {
            self.stretches.pop_front();
        }
    }

    /// Goes on behind the front, or to where the next stretch begins.
    fn pass(&mut self, len: usize) -> Result<(), Unreadable> {
        self.front = FrameAtHand::Nothing;
        if self.next > self.upto {
            self.bytes = vec![];
            return Ok(());
        }
        let Some(stretch) = self.stretches.front() else { return Err(self.unreadable()) };
        let begins = stretch.begins;
        let end = self.offset + self.bytes.len() as u64;
        if begins.segment == self.segment && begins.frame <= end {
            self.bytes.drain(..len);
            self.offset += len as u64;
        } else {
            let (here, there) = ((self.segment, self.offset), (begins.segment, begins.frame));
            assert!(there > here, "a log is read forward: {there:?} after {here:?}");
            self.bytes.clear();
            (self.segment, self.incarnation, self.offset) =
                (begins.segment, begins.incarnation, begins.frame);
        }
        self.look()
    }
}
