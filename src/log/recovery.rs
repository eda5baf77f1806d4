//! From the bytes of the segment files back to what was acknowledged.
//!
//! **The question.** When the power goes, up to two writes are in flight. Each of their sectors may have
//! reached the disk or not, whatever the order of submission, so the log may end in a torn frame with a
//! whole one behind it. That is no damage: neither was acknowledged. A disk that rots, or that loses or
//! misplaces a write it confirmed, leaves the same picture anywhere; but there something that somebody
//! was told is durable is gone, and cutting it off would make this member a liar to its peers.
//!
//! **The witnesses.** Every frame and every segment header carries the number of the last frame that was
//! acknowledged when it was submitted. Let V be the highest such number in any whole block of the log,
//! wherever it stands, also behind a break or in a part that an earlier recovery cut off: a number once
//! acknowledged is never given to another frame, so each of them testifies for ever. A header of a new
//! incarnation names everything before it as acknowledged, since recovery syncs what it accepts before
//! anything new is written. A log that falls idle writes one block to testify for its last frame.
//!
//! **The rule.** Walk the frames from the first segment still needed. Where the next frame, s, is not
//! there whole and chained to the one before:
//!
//! ```text
//!   s ≤ V   damage: the frame was acknowledged and is gone. Nothing is cut; the log is not used.
//!   s > V   the torn tail: the log ends before s, whatever stands behind.
//! ```
//!
//! A frame that was acknowledged and for which no whole block testifies (it is the last, and the process
//! died before the idle log's block) is held for a torn tail when it rots. Nothing in the bytes could tell.
//!
//! **The cut is for ever.** The next process takes a higher incarnation and begins in the segment after
//! the last one of the walk; its header names the end of the walk: segment, offset, frame, chain. A walk
//! that stands where the next segment's header says that the log ends goes on there, and does not look at
//! what follows in the old segment; and a frame counts only if its incarnation is that of its segment's
//! header. That header's write goes alone, so a torn one has nothing behind it, and the same recovery
//! finds the same end again, any number of times.
//!
//! **The beginning** is the highest `first` in any whole block. Files below are leftovers whose renaming
//! was lost; they may be there or not.

use super::format::{Bad, End, FrameHeader, SegmentHeader};
use super::replay::{RecoveredResident, Replay};
use super::writer::Start;
use super::{LogId, Resident, SegmentBytes, SegmentName};
use crate::limits::BLOCK_BYTES;
use crate::types::Revision;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// No log gets so far; counting on from any number below is safe.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// Collects the segment files of one log.
pub struct Recovery {
    log: LogId,
    key: Option<u64>,
    fresh_key: u64,
    lengths: SegmentBytes,
    segments: BTreeMap<u64, Scanned>,
}

struct Scanned {
    len: usize,
    header: Result<SegmentHeader, Bad>,
    frames: Vec<WholeFrame>,
}

struct WholeFrame {
    header: FrameHeader,
    crc: u32,
    len: usize,
    records: Box<[u8]>,
}

/// A log as it was acknowledged.
#[derive(Debug)]
pub struct Recovered {
    /// What [`super::Log::new`] goes on from, once the directory and the files of `sync` are synced.
    pub start: Start,
    pub residents: BTreeMap<Resident, RecoveredResident>,
    /// The highest settled revision that any frame carries.
    pub settled: Revision,
    /// Files whose content may not be durable yet though it was read: to be synced before anything read
    /// here is acted on, and the directory with them, since a file may be there whose renaming is not
    /// durable.
    pub sync: Vec<SegmentName>,
    /// Files of another length than a segment's that nobody needs: to be removed.
    pub remove: Vec<SegmentName>,
}

/// Something that was acknowledged is gone, or can't be read. The log must not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub segment: SegmentName,
    pub offset: u64,
    pub cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The frame was acknowledged and is not there.
    Lost { frame: u64 },
    /// The frame is whole and its records make no sense.
    Senseless,
    /// A newer program wrote it.
    Format(u32),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segment, offset) = (self.segment, self.offset);
        match self.cause {
            Cause::Lost { frame } => write!(
                f,
                "log file {segment} is damaged at offset {offset}: frame {frame} was written durably and can \
                 no longer be read; the disk has lost or changed it. Nothing was cut off. Replace the disk, \
                 then remove this member from the cluster and add it again with an empty data directory; a \
                 member without peers has to be restored from a snapshot"
            ),
            Cause::Senseless => write!(
                f,
                "log file {segment} holds a frame at offset {offset} that is intact and makes no sense. \
                 Remove this member from the cluster and add it again with an empty data directory, and \
                 report this"
            ),
            Cause::Format(version) => write!(
                f,
                "log file {segment} has format {version}, which this version does not know. Start the \
                 version that wrote it, or a later one"
            ),
        }
    }
}

impl std::error::Error for Damage {}

impl Recovery {
    /// `fresh_key` is used where no log is found: see [`Start::fresh`].
    pub fn new(log: LogId, fresh_key: u64, lengths: SegmentBytes) -> Recovery {
        Recovery { log, key: None, fresh_key, lengths, segments: BTreeMap::new() }
    }

    /// The oldest segment that may be needed, as the heads of the files tell: at least the first 4096 bytes of
    /// each. Whoever named it knew that everything below had its time.
    pub fn first_needed<'a>(heads: impl Iterator<Item = (SegmentName, &'a [u8])>) -> u64 {
        let first = |(name, head): (SegmentName, &[u8])| {
            let header = SegmentHeader::decode(head.get(..BLOCK_BYTES)?).ok()?;
            let is_of = header.log == name.log && header.sequence == name.sequence;
            (is_of && header.first <= name.sequence).then_some(header.first)
        };
        heads.filter_map(first).max().unwrap_or(1)
    }

    /// Takes the length of a file below [`Recovery::first_needed`], in place of its bytes.
    pub fn leftover(&mut self, name: SegmentName, len: usize) {
        assert_eq!(name.log, self.log);
        let scanned = Scanned { len, header: Err(Bad::Bytes), frames: vec![] };
        self.segments.insert(name.sequence, scanned);
    }

    /// Takes the bytes of one file, in ascending order of their sequences, each once.
    pub fn segment(&mut self, name: SegmentName, bytes: &[u8]) {
        assert_eq!(name.log, self.log);
        assert!(self.segments.last_key_value().is_none_or(|(last, _)| *last < name.sequence));
        let header = match bytes.get(..BLOCK_BYTES).ok_or(Bad::Bytes).and_then(SegmentHeader::decode) {
            Ok(header) if !self.is_of(name.sequence, &header) || header.bytes != bytes.len() as u64 => {
                Err(Bad::Bytes)
            }
            other => other,
        };
        if let Ok(header) = header {
            self.key = Some(header.key);
        }
        let frames = self.scan(name.sequence, bytes);
        self.segments.insert(name.sequence, Scanned { len: bytes.len(), header, frames });
    }

    fn is_of(&self, sequence: u64, header: &SegmentHeader) -> bool {
        header.log == self.log
            && header.sequence == sequence
            && self.key.is_none_or(|key| key == header.key)
            && header.end.frame > header.acknowledged
            && (1..=sequence).contains(&header.first)
            && sequence.max(header.end.frame).max(header.incarnation) < NUMBER_MAX
    }

    /// Every whole frame, resynchronising at each block.
    fn scan(&self, segment: u64, bytes: &[u8]) -> Vec<WholeFrame> {
        let mut frames = Vec::new();
        let mut at = BLOCK_BYTES;
        while at + BLOCK_BYTES <= bytes.len() {
            let plausible = |header: &FrameHeader| {
                (header.log, header.segment, header.offset) == (self.log, segment, at as u64)
                    && self.key.is_none_or(|key| key == header.key)
                    && header.frame > header.acknowledged
                    && (1..=segment).contains(&header.first)
                    && segment.max(header.frame).max(header.incarnation) < NUMBER_MAX
            };
            let Some((header, crc, len)) = FrameHeader::decode(&bytes[at..], plausible) else {
                at += BLOCK_BYTES;
                continue;
            };
            let records = at + super::format::FRAME_HEADER_BYTES;
            let records = bytes[records..records + header.records_bytes as usize].into();
            frames.push(WholeFrame { header, crc, len, records });
            at += len;
        }
        frames
    }

    /// Applies the rule at the head of this file.
    pub fn finish(self) -> Result<Recovered, Damage> {
        let witness = self.witness();
        for (sequence, scanned) in self.segments.range(witness.first..) {
            if let Err(Bad::Format(version)) = scanned.header {
                return Err(self.damage(*sequence, 0, Cause::Format(version)));
            }
        }
        let walk = self.walk(witness.first);
        if walk.end.frame <= witness.acknowledged {
            let cause = Cause::Lost { frame: walk.end.frame };
            return Err(self.damage(walk.end.segment, walk.end.offset, cause));
        }
        let mut replay = Replay::default();
        let mut settled = Revision::NONE;
        for frame in &walk.frames {
            let header = &frame.header;
            let senseless = |_| self.damage(header.segment, header.offset, Cause::Senseless);
            replay.frame(&frame.records, header.segment).map_err(senseless)?;
            settled = settled.max(Revision(header.settled));
        }
        let senseless = |_| self.damage(walk.end.segment, walk.end.offset, Cause::Senseless);
        let (residents, standings) = replay.finish().map_err(senseless)?;
        let sure = walk.frames.iter().rev().find(|frame| frame.header.frame <= witness.acknowledged);
        let unsure = sure.map_or(witness.first, |frame| frame.header.segment);
        let mut used: BTreeMap<u64, usize> = BTreeMap::new();
        for frame in &walk.frames {
            used.insert(frame.header.segment, frame.header.offset as usize + frame.len);
        }
        let (mut files, mut retired, mut remove) = (BTreeMap::new(), BTreeMap::new(), vec![]);
        for (sequence, scanned) in &self.segments {
            let used = used.get(sequence).copied().unwrap_or(scanned.len.min(BLOCK_BYTES));
            match (sequence.cmp(&witness.first), *sequence <= walk.end.segment) {
                (Ordering::Less, _) if self.lengths.fits(scanned.len) => {
                    retired.insert(*sequence, scanned.len);
                }
                (Ordering::Less, _) => remove.push(self.name(*sequence)),
                (_, true) => {
                    files.insert(*sequence, (scanned.len, used));
                }
                // One of another length is made anew under its name.
                (_, false) if self.lengths.fits(scanned.len) => {
                    files.insert(*sequence, (scanned.len, 0));
                }
                (_, false) => {}
            }
        }
        let start = Start {
            log: self.log,
            key: self.key.unwrap_or(self.fresh_key),
            incarnation: witness.incarnation + 1,
            lengths: self.lengths,
            end: walk.end,
            first: witness.first,
            settled,
            residents: standings,
            files,
            retired,
        };
        let sync = (unsure..=walk.end.segment).map(|sequence| self.name(sequence)).collect();
        Ok(Recovered { start, residents, settled, sync, remove })
    }

    /// What all whole blocks together testify.
    fn witness(&self) -> Witness {
        let mut witness = Witness { acknowledged: 0, first: 1, incarnation: 0 };
        for scanned in self.segments.values() {
            if let Ok(header) = &scanned.header {
                witness.hear(header.acknowledged, header.first, header.incarnation);
            }
            for WholeFrame { header, .. } in &scanned.frames {
                if self.key.is_none_or(|key| key == header.key) {
                    witness.hear(header.acknowledged, header.first, header.incarnation);
                }
            }
        }
        witness
    }

    /// The chain of whole frames from the beginning of segment `first` on.
    fn walk(&self, first: u64) -> Walk<'_> {
        let mut walk = Walk { frames: Vec::new(), end: End { segment: first, ..End::default() } };
        let Some(header) = self.header(first) else {
            // Where nothing was ever acknowledged, this is a log that never was.
            walk.end = End { segment: first - 1, offset: 0, frame: 1, chain: 0 };
            return walk;
        };
        let mut incarnation = header.incarnation;
        walk.end = End { segment: first, offset: BLOCK_BYTES as u64, ..header.end };
        loop {
            let end = walk.end;
            let next = self.header(end.segment + 1);
            if let Some(next) = next.filter(|next| next.end == end && next.incarnation >= incarnation) {
                incarnation = next.incarnation;
                walk.end = End { segment: end.segment + 1, offset: BLOCK_BYTES as u64, ..end };
            } else if let Some(frame) = self.frame(end).filter(|f| f.header.incarnation == incarnation) {
                walk.frames.push(frame);
                let offset = end.offset + frame.len as u64;
                walk.end = End { segment: end.segment, offset, frame: end.frame + 1, chain: frame.crc };
            } else {
                return walk;
            }
        }
    }

    fn header(&self, sequence: u64) -> Option<&SegmentHeader> {
        self.segments.get(&sequence)?.header.as_ref().ok()
    }

    /// The frame that comes at `end`, if it is there.
    fn frame(&self, end: End) -> Option<&WholeFrame> {
        let frames = &self.segments.get(&end.segment)?.frames;
        let place = frames.binary_search_by_key(&end.offset, |frame| frame.header.offset).ok()?;
        let frame = &frames[place];
        (frame.header.frame == end.frame && frame.header.chain == end.chain).then_some(frame)
    }

    fn name(&self, sequence: u64) -> SegmentName {
        SegmentName { log: self.log, sequence }
    }

    fn damage(&self, sequence: u64, offset: u64, cause: Cause) -> Damage {
        Damage { segment: self.name(sequence), offset, cause }
    }
}

#[cfg(test)]
impl Recovery {
    /// A place in every block that the log rests on, and whether a witness elsewhere testifies that it was
    /// acknowledged.
    pub(super) fn places_for_tests(&self) -> Vec<(SegmentName, u64, bool)> {
        let witness = self.witness();
        let walk = self.walk(witness.first);
        let mut places = Vec::new();
        for sequence in witness.first..=walk.end.segment {
            let begins = self.header(sequence).expect("the walk went through it").end.frame;
            places.push((self.name(sequence), 512, begins <= witness.acknowledged));
        }
        for frame in walk.frames {
            let (header, vouched) = (&frame.header, frame.header.frame <= witness.acknowledged);
            for block in (0..frame.len as u64).step_by(BLOCK_BYTES) {
                places.push((self.name(header.segment), header.offset + block + 1024, vouched));
            }
        }
        places
    }
}

struct Witness {
    acknowledged: u64,
    first: u64,
    incarnation: u64,
}

impl Witness {
    fn hear(&mut self, acknowledged: u64, first: u64, incarnation: u64) {
        self.acknowledged = self.acknowledged.max(acknowledged);
        self.first = self.first.max(first);
        self.incarnation = self.incarnation.max(incarnation);
    }
}

struct Walk<'a> {
    frames: Vec<&'a WholeFrame>,
    end: End,
}
