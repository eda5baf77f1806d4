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
//! A frame that was acknowledged and for which no whole block of its log testifies (it is the last, and the
//! process died before the idle log's block) is held for a torn tail when it rots. Nothing in the log's own
//! bytes could tell; the member's other logs may: see `witness`.
//!
//! **The files.** A file gets its name once all of it is durable, and names come in their order; it is
//! recycled within its log, and only from below `first`. So a whole header of another log or another key, of
//! a later segment, or of an earlier one that is not below `first`, says that files have been exchanged; and
//! where the log ends before a file that is missing, with later ones there, that file is lost. Nothing is read
//! from a file of another store than the one that the data directory's identity names.
//!
//! **The cut is for ever.** The next process takes a higher incarnation and begins in the segment after
//! the last one of the walk; its header names the end of the walk: segment, offset, frame, chain. A walk
//! that stands where the next segment's header says that the log ends goes on there, and does not look at
//! what follows in the old segment; and a frame counts only if its incarnation is that of its segment's
//! header. That header's write goes alone, so a torn one has nothing behind it, and the same recovery
//! finds the same end again, any number of times.
//!
//! **The beginning** is the highest `first` in any whole block. Files below are leftovers whose renaming
//! was lost, or wait for another name; they may be there or not.
//!
//! **What is read.** All heads; then of a file that the next one's header names the end of, what stands before
//! that end. What stands behind it was cut off, and told nothing that this header does not tell: it names as
//! acknowledged all that was by then, under a higher incarnation, and the start that cut it off had heard what
//! it said of other logs. The last file, and those that are ready behind it, are read to their ends: a torn tail
//! and damage differ by a whole block behind the break alone, and as a lost write leaves a gap of its own
//! length, that block may stand anywhere. These are few: the one that was being filled and its spares.

use super::format::{Bad, BadRecord, FrameHeader, LogEnd, SegmentHeader};
use super::replay::{RecoveredResident, Replay, Replayed};
use super::writer::LogStart;
use super::{LogId, Resident, SegmentBytes, SegmentName, Testimony};
use crate::limits::BLOCK_BYTES;
use crate::stdx::VersionMismatch;
use crate::types::{Revision, StoreId};
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// No log gets so far; counting on from any number below is safe.
pub(super) const NUMBER_MAX: u64 = crate::limits::RAFT_NUMBERS;

/// Collects the segment files of one log.
pub struct Recovery {
    log: LogId,
    store: StoreId,
    key: Option<u64>,
    fresh_key: u64,
    lengths: SegmentBytes,
    segments: BTreeMap<u64, Scanned>,
}

/// How much of its files a log's recovery has to read, as their heads tell.
#[derive(Debug)]
pub struct Needed {
    /// The oldest segment: who named it knew that everything below had its time.
    first: u64,
    /// Where the log went on to the next segment.
    ends: BTreeMap<u64, u64>,
}

impl Needed {
    /// `heads` are at least the first 4096 bytes of each file that has them.
    pub fn of<'a>(heads: impl Iterator<Item = (SegmentName, &'a [u8])>) -> Needed {
        let mut needed = Needed { first: 1, ends: BTreeMap::new() };
        for (name, head) in heads {
            let Some(Ok(header)) = head.get(..BLOCK_BYTES).map(SegmentHeader::decode) else { continue };
            if header.log != name.log || header.sequence != name.sequence || header.first > name.sequence {
                continue;
            }
            needed.first = needed.first.max(header.first);
            if name.sequence.checked_sub(1) == Some(header.end.segment) {
                needed.ends.insert(header.end.segment, header.end.offset);
            }
        }
        needed
    }

    /// The bytes that have to be read of a file of this length.
    pub fn bytes_of(&self, segment: SegmentName, len: u64) -> u64 {
        let end = match segment.sequence < self.first {
            true => BLOCK_BYTES as u64,
            false => self.ends.get(&segment.sequence).copied().unwrap_or(len),
        };
        end.max(BLOCK_BYTES as u64).min(len)
    }
}

struct Scanned {
    len: usize,
    head: SegmentHead,
    /// What a whole head says of other logs.
    words: Vec<Testimony>,
    frames: Vec<WholeFrame>,
}

/// What the first block of a file is.
enum SegmentHead {
    Whole(SegmentHeader),
    /// Zeros, torn or rotten.
    Nothing,
    /// That of an earlier segment: the file was recycled and its new header is not there.
    Earlier(u64),
    /// Whole, and of another log, another key or a later segment.
    Foreign(SegmentName),
    /// Whole, and of another store.
    Strange(StoreId),
    /// Whole, and says that the file was made of so many bytes, which it has not.
    Cut(SegmentHeader),
    Format(VersionMismatch),
}

struct WholeFrame {
    header: FrameHeader,
    crc: u32,
    len: usize,
    /// Until they are replayed: a log of hundreds of megabytes is not kept twice.
    records: Cell<Box<[u8]>>,
}

/// A log as it was acknowledged.
#[derive(Debug)]
pub struct Recovered {
    /// What [`super::Log::new`] goes on from, once the directory and the files of `sync` are synced.
    pub start: LogStart,
    pub residents: BTreeMap<Resident, RecoveredResident>,
    /// The settled revision that the last frame carries.
    pub settled: Revision,
    /// None where nothing was ever written.
    pub(super) key: Option<u64>,
    /// What this log's whole blocks say of other logs: the highest frame of each, and by which file.
    pub(super) testimonies: Vec<Testified>,
    /// Files whose content may not be durable yet though it was read: to be synced before anything read
    /// here is acted on, and the directory with them, since a file may be there whose renaming is not
    /// durable.
    pub sync: Vec<SegmentName>,
    /// Files of another length than a segment's that nobody needs: to be removed.
    pub remove: Vec<SegmentName>,
}

/// Another log's word that a frame or a header keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Testified {
    pub of: Testimony,
    pub by: SegmentName,
    /// Whether the last process to write this log has said so.
    pub newest: bool,
}

/// Something that was acknowledged is gone, or can't be read. The log must not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    pub segment: SegmentName,
    pub offset: u64,
    pub cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The frame was acknowledged and is not there.
    Lost { frame: u64 },
    /// Another log's file says that the frame was acknowledged, and it is not there.
    Outlived { frame: u64, by: SegmentName },
    /// Another log's file says that this log was in use, and none of its files is there.
    Gone { by: SegmentName },
    /// Another log's file knows the log of this name as another one.
    Replaced { by: SegmentName },
    /// The file is not there, and later ones are.
    Missing,
    /// The file's header is whole and that of another file.
    Exchanged { with: SegmentName },
    /// The file was made for another store than the data directory's.
    Strange { store: StoreId, ours: StoreId },
    /// The file has another length than it was made with.
    Cut { made: u64, found: u64 },
    /// The frame is whole and its records make no sense.
    Senseless,
    /// Another version of the program wrote it.
    Format(VersionMismatch),
}

/// What to do about a log that cannot be trusted.
const RESTORE: &str = "Nothing was cut off. Put the file back if it was moved, or restore the data directory \
    from a copy that was made while the server was stopped; braid dump-log prints what can still be read";

impl fmt::Display for LogDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segment, offset) = (self.segment, self.offset);
        match self.cause {
            Cause::Lost { frame } => write!(
                f,
                "log file {segment} is damaged at offset {offset}: frame {frame} was written durably and can \
                 no longer be read; the disk has lost or changed it, or the file was copied while a server \
                 wrote it. {RESTORE}"
            ),
            Cause::Outlived { frame, by } => write!(
                f,
                "log file {segment} ends too early, at offset {offset}: log file {by} says that frame {frame} \
                 was written durably; the disk has lost the end of the log, or the files were copied while a \
                 server wrote them. {RESTORE}"
            ),
            Cause::Gone { by } => write!(
                f,
                "log {} is missing: log file {by} says that the member has written to it, and no file of it \
                 is there. {RESTORE}",
                segment.log.0
            ),
            Cause::Replaced { by } => write!(
                f,
                "log file {segment} belongs to another log than the one that log file {by} knows under this \
                 name: files of several members or of several times are mixed. {RESTORE}"
            ),
            Cause::Missing => {
                write!(f, "log file {segment} is missing, and later files of the log are there. {RESTORE}")
            }
            Cause::Exchanged { with } => write!(
                f,
                "log file {segment} holds what belongs to log file {with} of this or another member: files \
                 have been exchanged or renamed. {RESTORE}"
            ),
            Cause::Strange { store, ours } => write!(
                f,
                "log file {segment} belongs to store {:016x}, and this data directory's identity, \
                 braid.json, to store {:016x}: a store is mounted or was put here that is another \
                 directory's. Nothing of it is used. Mount or put back the store that belongs here, or start with \
                 the whole data directory that this store is of",
                store.0, ours.0
            ),
            Cause::Cut { made, found } => write!(
                f,
                "log file {segment} has {found} bytes and was made with {made}: it was cut or written to by \
                 something else. {RESTORE}"
            ),
            Cause::Senseless => write!(
                f,
                "log file {segment} holds a frame at offset {offset} that is intact and makes no sense. \
                 {RESTORE}; and report this"
            ),
            Cause::Format(version) => write!(f, "log file {segment} {version}"),
        }
    }
}

impl std::error::Error for LogDamage {}

impl Recovered {
    /// Whether nothing was ever written to it.
    pub fn is_new(&self) -> bool {
        self.key.is_none()
    }
}

impl Recovery {
    /// `store` is what the data directory's identity names; `fresh_key` is used where no log is found: see
    /// [`LogStart::fresh`].
    pub fn new(log: LogId, store: StoreId, fresh_key: u64, lengths: SegmentBytes) -> Recovery {
        Recovery { log, store, key: None, fresh_key, lengths, segments: BTreeMap::new() }
    }

    /// Takes the bytes of one file, in ascending order of their sequences, each once.
    pub fn segment(&mut self, name: SegmentName, bytes: &[u8]) {
        self.part(name, bytes, bytes.len());
    }

    /// As [`Recovery::segment`], with so much of the file as [`Needed`] says, and how long the file is.
    pub fn part(&mut self, name: SegmentName, beginning: &[u8], len: usize) {
        let (head, words) = self.look(name, beginning, len);
        let frames = match head {
            SegmentHead::Strange(_) => vec![],
            _ => self.scan(name.sequence, beginning),
        };
        self.segments.insert(name.sequence, Scanned { len, head, words, frames });
    }

    fn look(&mut self, name: SegmentName, beginning: &[u8], len: usize) -> (SegmentHead, Vec<Testimony>) {
        assert_eq!(name.log, self.log, "a log is recovered from its own files");
        let last = self.segments.last_key_value().map(|(last, _)| *last);
        assert!(last.is_none_or(|last| last < name.sequence), "files come in order, each once");
        assert!(beginning.len() <= len, "no more is read of a file than it has");
        let head = match beginning.get(..BLOCK_BYTES).ok_or(Bad::Bytes).and_then(SegmentHeader::decode) {
            Ok(header) => self.head(name.sequence, header, len),
            Err(Bad::Format(version)) => SegmentHead::Format(version),
            Err(Bad::Bytes) => SegmentHead::Nothing,
        };
        let SegmentHead::Whole(header) = head else { return (head, vec![]) };
        self.key = Some(header.key);
        (head, SegmentHeader::words(beginning).collect())
    }

    fn head(&self, sequence: u64, header: SegmentHeader, len: usize) -> SegmentHead {
        if header.store != self.store {
            return SegmentHead::Strange(header.store);
        }
        let ours = header.log == self.log && self.key.is_none_or(|key| key == header.key);
        if !ours || header.sequence > sequence {
            return SegmentHead::Foreign(SegmentName { log: header.log, sequence: header.sequence });
        }
        if header.sequence < sequence {
            return SegmentHead::Earlier(header.sequence);
        }
        let makes_sense = header.end.frame > header.acknowledged
            && (1..=sequence).contains(&header.first)
            && sequence.max(header.end.frame).max(header.incarnation) < NUMBER_MAX;
        match makes_sense {
            true if header.bytes != len as u64 => SegmentHead::Cut(header),
            true => SegmentHead::Whole(header),
            false => SegmentHead::Nothing,
        }
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
            frames.push(WholeFrame { header, crc, len, records: Cell::new(records) });
            at += len;
        }
        frames
    }

    /// Applies the rule at the head of this file.
    pub fn finish(self) -> Result<Recovered, LogDamage> {
        match self.read() {
            (recovered, None) => Ok(recovered),
            (_, Some(damage)) => Err(damage),
        }
    }

    /// As [`Recovery::finish`], with what can be read in front of the damage, for who only looks.
    pub fn read(self) -> (Recovered, Option<LogDamage>) {
        let witness = self.witness();
        let heads = self.check_heads(witness.first);
        let walk = self.walk(witness.first);
        let mut damage = heads.and_then(|()| self.check_end(walk.end, &witness)).err();
        let mut replay = Replay::default();
        let mut settled = Revision::NONE;
        for frame in &walk.frames {
            let header = &frame.header;
            if let Err(bad) = replay.frame(header, &frame.records.take()) {
                let cause = match bad {
                    BadRecord::Senseless => Cause::Senseless,
                    BadRecord::Version(version) => Cause::Format(version),
                };
                damage = damage.or(Some(self.damage(header.segment, header.offset, cause)));
                break;
            }
            // It never falls but where a member goes on alone, and is counted anew from there.
            settled = Revision(header.settled);
        }
        let Replayed { recovered: residents, standings, senseless } = replay.finish();
        if senseless {
            damage = damage.or(Some(self.damage(walk.end.segment, walk.end.offset, Cause::Senseless)));
        }
        let sure = walk.frames.iter().rev().find(|frame| frame.header.frame <= witness.acknowledged);
        let unsure = sure.map_or(witness.first, |frame| frame.header.segment);
        let mut used: BTreeMap<u64, usize> = BTreeMap::new();
        for frame in &walk.frames {
            used.insert(frame.header.segment, frame.header.offset as usize + frame.len);
        }
        let (mut files, mut retired, mut remove) = (BTreeMap::new(), BTreeMap::new(), vec![]);
        for (sequence, scanned) in &self.segments {
            let used = used.get(sequence).copied().unwrap_or(scanned.len.min(BLOCK_BYTES));
            assert!(used <= scanned.len, "frames that were found end in their file");
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
        assert!(witness.first <= walk.end.segment + 1, "a log goes on behind its beginning");
        let ends_in = files.contains_key(&walk.end.segment);
        assert!(walk.frames.is_empty() || ends_in, "a log ends in one of its files: {:?}", walk.end);
        let start = LogStart {
            log: self.log,
            store: self.store,
            key: self.key.unwrap_or(self.fresh_key),
            incarnation: witness.incarnation + 1,
            lengths: self.lengths,
            end: walk.end,
            first: witness.first,
            settled,
            residents: standings,
            files,
            retired,
            words: BTreeMap::new(),
        };
        let testimonies = self.testimonies(witness.incarnation);
        let sync = (unsure..=walk.end.segment).map(|sequence| self.name(sequence)).collect();
        (Recovered { start, residents, settled, key: self.key, testimonies, sync, remove }, damage)
    }

    /// Whether the files that count are those that their names say.
    fn check_heads(&self, first: u64) -> Result<(), LogDamage> {
        for (sequence, scanned) in &self.segments {
            let cause = match scanned.head {
                // Names only rise: whatever the file is needed for, it was never that of a later segment.
                SegmentHead::Foreign(with) => Cause::Exchanged { with },
                SegmentHead::Strange(store) => Cause::Strange { store, ours: self.store },
                _ if *sequence < first => continue,
                SegmentHead::Format(version) => Cause::Format(version),
                SegmentHead::Cut(header) => Cause::Cut { made: header.bytes, found: scanned.len as u64 },
                SegmentHead::Earlier(earlier) if earlier >= first => {
                    Cause::Exchanged { with: self.name(earlier) }
                }
                SegmentHead::Whole(_) | SegmentHead::Nothing | SegmentHead::Earlier(_) => continue,
            };
            return Err(self.damage(*sequence, 0, cause));
        }
        Ok(())
    }

    /// Whether the log may end there, as far as its own files tell.
    fn check_end(&self, end: LogEnd, witness: &Witness) -> Result<(), LogDamage> {
        let next = end.segment + 1;
        if !self.segments.contains_key(&next) && self.segments.range(next..).next().is_some() {
            return Err(self.damage(next, 0, Cause::Missing));
        }
        if end.frame <= witness.acknowledged {
            return Err(self.damage(end.segment, end.offset, Cause::Lost { frame: end.frame }));
        }
        Ok(())
    }

    /// What all whole blocks say of other logs.
    fn testimonies(&self, incarnation: u64) -> Vec<Testified> {
        let mut highest: BTreeMap<(LogId, u64), Testified> = BTreeMap::new();
        for (sequence, scanned) in &self.segments {
            let of_head = match &scanned.head {
                SegmentHead::Whole(header) => header.incarnation,
                _ => 0,
            };
            let in_head = scanned.words.iter().map(|of| (*of, of_head));
            let frames = scanned.frames.iter().filter(|frame| self.is_ours(frame)).map(|frame| &frame.header);
            let in_frames = frames.filter_map(|header| Some((header.other?, header.incarnation)));
            for (of, said_in) in in_head.chain(in_frames) {
                let told = Testified { of, by: self.name(*sequence), newest: false };
                let known = highest.entry((of.log, of.key)).or_insert(told);
                let newest = known.newest || said_in == incarnation;
                if of.frame > known.of.frame {
                    *known = told;
                }
                known.newest = newest;
            }
        }
        highest.into_values().collect()
    }

    fn is_ours(&self, frame: &WholeFrame) -> bool {
        self.key.is_none_or(|key| key == frame.header.key)
    }

    /// What all whole blocks together testify.
    fn witness(&self) -> Witness {
        let mut witness = Witness { acknowledged: 0, first: 1, incarnation: 0 };
        for scanned in self.segments.values() {
            if let SegmentHead::Whole(header) = &scanned.head {
                witness.hear(header.acknowledged, header.first, header.incarnation);
            }
            for WholeFrame { header, .. } in scanned.frames.iter().filter(|frame| self.is_ours(frame)) {
                witness.hear(header.acknowledged, header.first, header.incarnation);
            }
        }
        witness
    }

    /// The chain of whole frames from the beginning of segment `first` on.
    fn walk(&self, first: u64) -> Walk<'_> {
        let mut walk = Walk { frames: Vec::new(), end: LogEnd { segment: first, ..LogEnd::default() } };
        let Some(header) = self.header(first) else {
            // Where nothing was ever acknowledged, this is a log that never was.
            walk.end = LogEnd { segment: first - 1, offset: 0, frame: 1, chain: 0 };
            return walk;
        };
        let (mut incarnation, begins) = (header.incarnation, header.end.frame);
        walk.end = LogEnd { segment: first, offset: BLOCK_BYTES as u64, ..header.end };
        loop {
            let end = walk.end;
            let next = self.header(end.segment + 1);
            if let Some(next) = next.filter(|next| next.end == end && next.incarnation >= incarnation) {
                incarnation = next.incarnation;
                walk.end = LogEnd { segment: end.segment + 1, offset: BLOCK_BYTES as u64, ..end };
            } else if let Some(frame) = self.frame(end).filter(|f| f.header.incarnation == incarnation) {
                walk.frames.push(frame);
                let offset = end.offset + frame.len as u64;
                walk.end = LogEnd { segment: end.segment, offset, frame: end.frame + 1, chain: frame.crc };
            } else {
                let passed = walk.end.frame - begins;
                assert!(passed == walk.frames.len() as u64, "a walk passes over no frame: {passed}");
                return walk;
            }
        }
    }

    /// Of a file that was cut too: who only looks reads it up to there.
    fn header(&self, sequence: u64) -> Option<&SegmentHeader> {
        match &self.segments.get(&sequence)?.head {
            SegmentHead::Whole(header) | SegmentHead::Cut(header) => Some(header),
            _ => None,
        }
    }

    /// The frame that comes at `end`, if it is there.
    fn frame(&self, end: LogEnd) -> Option<&WholeFrame> {
        let frames = &self.segments.get(&end.segment)?.frames;
        let place = frames.binary_search_by_key(&end.offset, |frame| frame.header.offset).ok()?;
        let frame = &frames[place];
        (frame.header.frame == end.frame && frame.header.chain == end.chain).then_some(frame)
    }

    fn name(&self, sequence: u64) -> SegmentName {
        SegmentName { log: self.log, sequence }
    }

    fn damage(&self, sequence: u64, offset: u64, cause: Cause) -> LogDamage {
        LogDamage { segment: self.name(sequence), offset, cause }
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
    end: LogEnd,
}
