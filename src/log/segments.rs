//! The files of one log: which there are, which are asked for, and how long the next one is.
//!
//! **Length.** A file is as long as a quarter of what the log has held of late, between the least and the
//! most that [`SegmentBytes`] says: the files of an idle store are small, whatever the number of logs, and
//! those of a busy one large enough that changing them is rare. A file is made longer where a record needs
//! it. Its length is decided when the first frame is laid out in it or when it is asked for, whichever
//! comes first, and stands in its header.
//!
//! **Recycling.** What is given away, but for the reserve, takes the next name, if it is not much too short,
//! before a new file is made: a new one costs a write of all its zeros. So in the steady state the same files go
//! round. What is more than the log has held of late is removed.
//!
//! **A full disk.** A new file is asked for so that a number of bytes stays free on the disk beside it. Where
//! that cannot be, a file of half the length is, and one of the least length again after a while.
//!
//! **The reserve.** A process on a disk without a free byte can begin only in a file that is there. So beside
//! the one that comes next, one stands by under a name that has had its time (0 at first, which no file of the
//! log ever has): it takes another name only where it is to be written to. Until then it is also the room that a
//! checkpoint gets ([`Segments::give_up`]) which lets files go, of which one stands by then. A process that
//! begins where not even these are left makes do with a quarter of the least length.

use super::{Command, LogId, SegmentName};
use crate::limits::{
    BLOCK_BYTES, LOG_SEGMENT_RETRY_MS, LOG_SEGMENT_SHARE, LOG_SEGMENTS_SPARE, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};
use crate::types::{Duration, Time};
use std::cmp::Ordering;
use std::collections::BTreeMap;

const RETRY: Duration = Duration::from_ms(LOG_SEGMENT_RETRY_MS);
/// A header and two frames.
const FIRST_BYTES_MIN: usize = 3 * BLOCK_BYTES;

/// Between which lengths files are made, in whole blocks. One for a long record may be longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBytes {
    pub least: usize,
    pub most: usize,
}

impl SegmentBytes {
    pub const USUAL: SegmentBytes = SegmentBytes { least: SEGMENT_BYTES_MIN, most: SEGMENT_BYTES_MAX };

    /// Whether a file of this length can be a segment.
    pub(super) fn fits(self, bytes: usize) -> bool {
        bytes >= self.least_to_begin() && bytes.is_multiple_of(BLOCK_BYTES)
    }

    /// What a process makes do with for its first file where the disk is full.
    pub(super) fn least_to_begin(self) -> usize {
        let share = (self.least / LOG_SEGMENT_SHARE).next_multiple_of(BLOCK_BYTES);
        share.max(FIRST_BYTES_MIN).min(self.least)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Frames may be laid out in it; nothing is asked for yet.
    Decided,
    Requested,
    /// On disk under its name.
    Ready,
}

#[derive(Clone, Copy, Debug)]
struct File {
    bytes: usize,
    /// Bytes up to the end of the last frame, known once the log has gone on to the next file.
    used: usize,
    stage: Stage,
    /// The file that is to take this name.
    from: Option<u64>,
}

/// What is held of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of the log.
    pub written: u64,
    /// Bytes of files that the log has gone on from without having used them.
    pub unused: u64,
    /// Files behind the one being filled.
    pub closed: u64,
}

impl Held {
    fn close(&mut self, file: &File) {
        assert!(file.used <= file.bytes, "a file holds {} of {} bytes", file.used, file.bytes);
        self.written += file.used as u64;
        self.unused += (file.bytes - file.used) as u64;
        self.closed += 1;
    }

    fn forget(&mut self, file: &File) {
        assert!(self.closed > 0, "a file is held before it goes");
        self.written -= file.used as u64;
        self.unused -= (file.bytes - file.used) as u64;
        self.closed -= 1;
    }
}

pub(super) struct Segments {
    log: LogId,
    lengths: SegmentBytes,
    /// From the oldest that is needed to the last one decided.
    files: BTreeMap<u64, File>,
    /// Files under names that have had their time, with their lengths. The last one is the reserve.
    retired: BTreeMap<u64, usize>,
    /// A file that is being made to be the reserve.
    making_reserve: Option<u64>,
    /// All that is retired is to go; then no reserve is made before the log has let a file go, or got a new one.
    gives_up: bool,
    given_up: bool,
    /// The one being filled.
    open: u64,
    /// Whether this process has a file of its own.
    has_rolled: bool,
    held: Held,
    /// Bytes of the files from the oldest needed to the open one.
    held_files: u64,
    /// The most of these of late, and the most while `window` bytes of files were filled.
    peak: u64,
    window_peak: u64,
    window: u64,
    /// No longer file is asked for until something is given away.
    ceiling: usize,
    /// The disk had no room for a file of the least length: none is asked for before.
    retry_at: Option<Time>,
    /// What a new file has to leave free on the disk.
    keep_free: u64,
}

impl Segments {
    /// `files` are those of the log with their lengths and, up to `end`, what is used of them; of those behind
    /// it, all that are ready. `retired` are those below.
    pub fn new(
        log: LogId,
        lengths: SegmentBytes,
        files: &BTreeMap<u64, (usize, usize)>,
        retired: BTreeMap<u64, usize>,
        end: u64,
    ) -> Segments {
        assert!(lengths.least <= lengths.most, "the least length is not above the most");
        assert!(lengths.least.is_multiple_of(BLOCK_BYTES), "files are whole blocks");
        let file = |(sequence, (bytes, used)): (&u64, &(usize, usize))| {
            (*sequence, File { bytes: *bytes, used: *used, stage: Stage::Ready, from: None })
        };
        let mut segments = Segments {
            log,
            lengths,
            files: files.iter().map(file).collect(),
            retired,
            making_reserve: None,
            gives_up: false,
            given_up: false,
            open: end,
            has_rolled: false,
            held: Held::default(),
            held_files: 0,
            peak: 0,
            window_peak: 0,
            window: 0,
            ceiling: usize::MAX,
            retry_at: None,
            keep_free: 0,
        };
        for file in segments.files.range(..=end).map(|(_, file)| file) {
            segments.held.close(file);
            segments.held_files += file.bytes as u64;
        }
        let oldest = segments.files.keys().next().zip(segments.retired.keys().next_back());
        assert!(
            oldest.is_none_or(|(file, retired)| retired < file),
            "names that have had their time are below"
        );
        segments.peak = segments.held_files + segments.retired_bytes();
        segments
    }

    pub fn name(&self, sequence: u64) -> SegmentName {
        SegmentName { log: self.log, sequence }
    }

    /// How long the file is, or will be.
    pub fn bytes(&self, sequence: u64) -> usize {
        self.files[&sequence].bytes
    }

    pub fn is_ready(&self, sequence: u64) -> bool {
        self.files.get(&sequence).is_some_and(|file| file.stage == Stage::Ready)
    }

    pub fn lengths(&self) -> SegmentBytes {
        self.lengths
    }

    pub fn held(&self) -> Held {
        self.held
    }

    /// What is held from a segment on.
    pub fn held_from(&self, sequence: u64) -> Held {
        let mut held = Held::default();
        self.files.range(sequence..self.open).for_each(|(_, file)| held.close(file));
        held
    }

    /// The oldest segment from which on the files behind the open one take no more than so many bytes.
    pub fn oldest_within(&self, bytes: u64) -> u64 {
        let mut left = bytes;
        let fits = self.files.range(..self.open).rev().take_while(|(_, file)| {
            let rest = left.checked_sub(file.bytes as u64);
            left = rest.unwrap_or(0);
            rest.is_some()
        });
        let oldest = fits.last().map_or(self.open, |(sequence, _)| *sequence);
        let held = self.files.range(oldest..self.open).map(|(_, file)| file.bytes as u64).sum::<u64>();
        assert!(held <= bytes, "what fits takes no more than it may: {held} of {bytes}");
        oldest
    }

    /// The log goes on from the open file, of which it has used so much, to the next one, in which so many
    /// bytes are to have room if it is not yet there.
    pub fn roll(&mut self, used: usize, room: usize) {
        if let Some(file) = self.files.get_mut(&self.open).filter(|_| used > 0) {
            assert!(file.used <= used, "a file is not used less than it was");
            file.used = used;
            self.held.close(file);
        }
        self.open += 1;
        self.decide(self.open, room);
        self.has_rolled = true;
        let bytes = self.bytes(self.open) as u64;
        self.held_files += bytes;
        self.window += bytes;
        self.window_peak = self.window_peak.max(self.held_files);
        self.peak = self.peak.max(self.held_files);
        if self.window >= 2 * self.peak {
            // What comes and goes is no reason to make files anew; that it comes no more is one to let them go.
            if self.window_peak < self.peak / 2 {
                self.peak = self.window_peak;
            }
            (self.window_peak, self.window) = (self.held_files, 0);
        }
        assert!(
            self.held_files <= self.peak,
            "the peak is of all that is held: {} of {}",
            self.held_files,
            self.peak
        );
    }

    /// How long new files are made now.
    fn wanted(&self) -> usize {
        let share = usize::try_from(self.peak).unwrap_or(usize::MAX) / LOG_SEGMENT_SHARE;
        let share = share.checked_next_power_of_two().unwrap_or(usize::MAX);
        share.min(self.ceiling).clamp(self.lengths.least, self.lengths.most)
    }

    fn decide(&mut self, sequence: u64, room: usize) {
        if self.files.contains_key(&sequence) {
            return;
        }
        // A process that has only begun may not come far.
        let wanted = if self.has_rolled { self.wanted() } else { self.lengths.least };
        let room = room.next_multiple_of(BLOCK_BYTES);
        let from = self.retired_for(sequence, |bytes| bytes >= room && is_worth(bytes, wanted));
        let bytes = from.and_then(|old| self.retired.remove(&old)).unwrap_or(wanted.max(room));
        assert!(self.lengths.fits(bytes), "a file of {bytes} bytes can be a segment");
        assert!(from.is_none_or(|old| old < sequence), "a file only takes later names");
        self.files.insert(sequence, File { bytes, used: 0, stage: Stage::Decided, from });
    }

    /// A file that may take this name. The reserve waits until it is to be written to.
    fn retired_for(&self, sequence: u64, fits: impl Fn(usize) -> bool) -> Option<u64> {
        if sequence > self.open && self.retired.len() == 1 {
            return None;
        }
        let fits = |bytes: usize| fits(bytes) && self.lengths.fits(bytes);
        self.retired.iter().find(|(_, bytes)| fits(**bytes)).map(|(old, _)| *old)
    }

    /// Asks for what is missing and removes what is too much. `end` is where the last submitted frame ends,
    /// `offset` where the next one begins in the open file; the first file of a process may take all there is.
    pub fn ask(&mut self, now: Time, end: u64, offset: usize, is_first: bool, out: &mut Vec<Command>) {
        assert!(
            end <= self.open,
            "what is written stands in files that are laid out: {end} of {}",
            self.open
        );
        let spare = if 2 * offset < self.bytes(self.open) { 1 } else { LOG_SEGMENTS_SPARE };
        // One at a time, so that names become durable in their order: a file that is missing below one that is
        // there was lost.
        match (end + 1..=self.open + spare).find(|sequence| !self.is_ready(*sequence)) {
            Some(sequence) => self.ask_for(now, sequence, is_first, out),
            None => self.ask_for_reserve(now, out),
        }
        self.remove_surplus(out);
    }

    fn ask_for_reserve(&mut self, now: Time, out: &mut Vec<Command>) {
        if !self.wants_reserve() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let oldest = self.files.first_key_value().map_or(self.open, |(sequence, _)| *sequence);
        assert!(oldest > 0, "segments are numbered from 1");
        self.making_reserve = Some(oldest - 1);
        out.push(Command::Prepare {
            segment: self.name(oldest - 1),
            bytes: self.lengths.least as u64,
            keep_free: self.keep_free,
        });
    }

    fn wants_reserve(&self) -> bool {
        self.retired.is_empty() && self.making_reserve.is_none() && !self.given_up
    }

    fn ask_for(&mut self, now: Time, sequence: u64, is_first: bool, out: &mut Vec<Command>) {
        self.decide(sequence, 0);
        self.refit(sequence);
        let others = self.files.iter().filter(|(other, _)| **other != sequence);
        let one = others.map(|(_, file)| file.stage).all(|stage| stage != Stage::Requested);
        assert!(one, "names become durable in their order: one file is asked for at a time");
        let waits = self.retry_at.is_some_and(|at| now < at);
        let keep_free = if is_first && sequence <= self.open { 0 } else { self.keep_free };
        let new = self.name(sequence);
        let file = self.files.get_mut(&sequence).expect("decided above");
        if file.stage != Stage::Decided || (file.from.is_none() && waits) {
            return;
        }
        file.stage = Stage::Requested;
        let old = file.from.map(|old| SegmentName { sequence: old, ..new });
        assert!(old.is_none_or(|old| old < new), "a file only takes later names");
        out.push(match old {
            Some(old) => Command::Recycle { old, new },
            None => Command::Prepare { segment: new, bytes: file.bytes as u64, keep_free },
        });
    }

    /// A file that is still to be made may be one that was given away in the meantime.
    fn refit(&mut self, sequence: u64) {
        let file = self.files[&sequence];
        if file.stage != Stage::Decided || file.from.is_some() {
            return;
        }
        let Some(old) = self.retired_for(sequence, |bytes| bytes >= file.bytes) else { return };
        let bytes = self.retired.remove(&old).expect("it was just found");
        assert!(old < sequence, "a file only takes later names");
        self.resize(sequence, bytes).from = Some(old);
    }

    /// A file that is not there yet gets another length.
    fn resize(&mut self, sequence: u64, bytes: usize) -> &mut File {
        let file = self.files.get_mut(&sequence).expect("the caller has it");
        assert!(file.stage == Stage::Decided, "a file that is asked for keeps its length");
        assert!(self.lengths.fits(bytes), "a file of {bytes} bytes can be a segment");
        if sequence < self.open {
            self.held.forget(file);
        }
        if sequence <= self.open {
            self.held_files = self.held_files - file.bytes as u64 + bytes as u64;
        }
        file.bytes = bytes;
        if sequence < self.open {
            self.held.close(file);
        }
        file
    }

    fn remove_surplus(&mut self, out: &mut Vec<Command>) {
        let gives_up = std::mem::take(&mut self.gives_up);
        if self.retired.is_empty() {
            return;
        }
        let (wanted, room) = (self.wanted(), self.room_for_retired());
        let (mut bytes, mut left, log, lengths) = (0, self.retired.len(), self.log, self.lengths);
        self.retired.retain(|old, len| {
            bytes += *len as u64;
            let is_wanted = left == 1 || bytes <= room && is_worth(*len, wanted);
            let stays = is_wanted && lengths.fits(*len) && !gives_up;
            if !stays {
                left -= 1;
                bytes -= *len as u64;
                out.push(Command::Remove { segment: SegmentName { log, sequence: *old } });
            }
            stays
        });
        assert!(left == self.retired.len(), "what stays beside the log is counted: {left}");
    }

    /// When something is to be asked for again.
    pub fn wake_at(&self, end: u64) -> Time {
        let next = self.files.range(end + 1..).map(|(_, file)| file).find(|file| file.stage != Stage::Ready);
        let waits = match next {
            Some(file) => matches!(file, File { stage: Stage::Decided, from: None, .. }),
            None => self.wants_reserve(),
        };
        self.retry_at.filter(|_| waits).unwrap_or(Time::NEVER)
    }

    pub fn prepared(&mut self, segment: SegmentName) {
        if self.making_reserve.take_if(|reserve| *reserve == segment.sequence).is_some() {
            let before = self.retired.insert(segment.sequence, self.lengths.least);
            assert!(before.is_none(), "a file that is made is new");
            self.retry_at = None;
            return;
        }
        let file = self.requested(segment);
        file.stage = Stage::Ready;
        if file.from.take().is_none() {
            (self.retry_at, self.given_up) = (None, false);
        }
    }

    /// Gives whether no shorter file would do: then the disk is full. `laid` is what is laid out in the open
    /// file; the first file of a process may be shorter than any other.
    pub fn disk_full(&mut self, segment: SegmentName, now: Time, laid: usize, is_first: bool) -> bool {
        if self.making_reserve.take_if(|reserve| *reserve == segment.sequence).is_some() {
            self.retry_at = Some(now + RETRY);
            return true;
        }
        let least = if is_first { self.lengths.least_to_begin() } else { self.lengths.least };
        let file = self.requested(segment);
        file.stage = Stage::Decided;
        let (bytes, used) = (file.bytes, file.used);
        let laid = match segment.sequence.cmp(&self.open) {
            Ordering::Less => used,
            Ordering::Equal => laid,
            Ordering::Greater => 0,
        };
        let half = (bytes / 2).next_multiple_of(BLOCK_BYTES);
        if half >= least.max(laid) && half < bytes {
            self.resize(segment.sequence, half);
            self.ceiling = half;
            return false;
        }
        self.retry_at = Some(now + RETRY);
        true
    }

    fn requested(&mut self, segment: SegmentName) -> &mut File {
        assert_eq!(segment.log, self.log, "a log asks for its own files");
        let file = self.files.get_mut(&segment.sequence).filter(|file| file.stage == Stage::Requested);
        file.unwrap_or_else(|| panic!("{segment} was not asked for"))
    }

    /// Whether the disk had no room for a file when one was last asked for.
    pub fn is_short(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Nobody will look for the segments below.
    pub fn retire_below(&mut self, below: u64) {
        assert!(below <= self.open, "the file that is filled is not given away");
        self.given_up = false;
        let kept = self.files.split_off(&below);
        for (sequence, file) in std::mem::replace(&mut self.files, kept) {
            self.held.forget(&file);
            self.held_files -= file.bytes as u64;
            assert!(file.stage == Stage::Ready, "a file that is given away is there");
            let before = self.retired.insert(sequence, file.bytes);
            assert!(before.is_none(), "one file has a name: {sequence}");
            self.ceiling = usize::MAX;
        }
        assert!(self.held == self.held_from(below), "what is held is that of the files that are left");
        let files: u64 = self.files.range(..=self.open).map(|(_, file)| file.bytes as u64).sum();
        assert!(
            files == self.held_files,
            "the files that are held are counted: {files} of {}",
            self.held_files
        );
    }

    pub fn keep_free(&mut self, bytes: u64) {
        self.keep_free = bytes;
    }

    /// Lets the disk have all that is retired, the reserve too, where that is half of what is needed: the log's
    /// blocks are hardly ever full. Gives whether it is.
    pub fn give_up(&mut self, needed: u64) -> bool {
        let retired = self.retired_bytes();
        self.gives_up = retired > 0 && retired >= needed / 2;
        self.given_up |= self.gives_up;
        self.gives_up
    }

    /// Forgets what the log has held once: what is not needed now goes. Gives whether there is such.
    pub fn shrink(&mut self) -> bool {
        (self.peak, self.window_peak, self.window) = (self.held_files, self.held_files, 0);
        self.has_surplus()
    }

    fn has_surplus(&self) -> bool {
        self.retired.len() > 1 && self.retired_bytes() > self.room_for_retired()
    }

    fn retired_bytes(&self) -> u64 {
        self.retired.values().map(|bytes| *bytes as u64).sum()
    }

    /// Beside what the log held of late, all that may stand ready then.
    fn room_for_retired(&self) -> u64 {
        let ever = self.peak + LOG_SEGMENTS_SPARE * self.wanted() as u64;
        ever.saturating_sub(self.files.values().map(|file| file.bytes as u64).sum())
    }
}

/// Whether a file is long enough to be worth changing to.
fn is_worth(bytes: usize, wanted: usize) -> bool {
    bytes >= wanted / LOG_SEGMENT_SHARE
}
