//! The writing side: records in, aligned writes out.
//!
//! Records are copied into the open frame, whose place in the segment files is known from its beginning.
//! A frame is sealed when it is full, or when a write may start. What depends on the moment (number,
//! chain, what is acknowledged) is filled in at submission.
//!
//! The first write of an incarnation goes alone: its header makes void for ever what follows the end it
//! names, so nothing may stand behind it before it is durable.

use super::format::{FRAME_HEADER_BYTES, FrameHeader, LogEnd, Placed, SegmentHeader, in_blocks};
use super::reading::EntryReader;
use super::recovery::NUMBER_MAX;
use super::segments::{Held, SegmentBytes, Segments};
use super::standing::{Place, Standing};
use super::{Buffer, Command, LogId, Ordinal, Record, Resident, SegmentName, Testimony, WriteId};
use crate::limits::{
    BLOCK_BYTES, LOG_BUFFER_SPARE_BYTES_MAX, LOG_BUFFERS_SPARE_MAX, LOG_VOUCH_DELAY_MS,
    LOG_WRITES_IN_FLIGHT_MAX,
};
use crate::types::{Duration, Index, Revision, StoreId, Term, Time};
use std::collections::{BTreeMap, VecDeque};

const VOUCH_DELAY: Duration = Duration::from_ms(LOG_VOUCH_DELAY_MS);

/// What a log goes on from: [`LogStart::fresh`], or what recovery found.
#[derive(Clone, Debug)]
pub struct LogStart {
    pub(super) log: LogId,
    pub(super) store: StoreId,
    pub(super) key: u64,
    pub(super) incarnation: u64,
    pub(super) lengths: SegmentBytes,
    pub(super) end: LogEnd,
    pub(super) first: u64,
    pub(super) settled: Revision,
    pub(super) residents: BTreeMap<Resident, Standing>,
    /// Files still needed, and those under the names of coming segments: how long they are, and how much of
    /// that is used.
    pub(super) files: BTreeMap<u64, (usize, usize)>,
    /// Files under names that have had their time, and how long they are.
    pub(super) retired: BTreeMap<u64, usize>,
    /// What this log has kept of other logs, which go on as well.
    pub(super) words: BTreeMap<LogId, Testimony>,
}

impl LogStart {
    pub fn log(&self) -> LogId {
        self.log
    }

    /// What the member has settled, as the frames of this log say until it settles more.
    pub fn begin_at(&mut self, settled: Revision) {
        self.settled = settled;
    }

    /// Bytes of the files that are still needed.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        self.files.range(..=self.end.segment).map(|(_, (bytes, _))| bytes).sum()
    }

    /// A log that never was. `key` is a random number that no client may learn.
    pub fn fresh(log: LogId, store: StoreId, key: u64, lengths: SegmentBytes) -> LogStart {
        LogStart {
            log,
            store,
            key,
            incarnation: 1,
            lengths,
            end: LogEnd { frame: 1, ..LogEnd::default() },
            first: 1,
            settled: Revision::NONE,
            residents: BTreeMap::new(),
            files: BTreeMap::new(),
            retired: BTreeMap::new(),
            words: BTreeMap::new(),
        }
    }
}

/// A frame that is still, or no longer, open to records.
struct Frame {
    segment: u64,
    offset: usize,
    /// With room for the segment's header where `offset` is 0, and for the frame's.
    buffer: Buffer,
    /// The last record in it, or before it.
    last: Ordinal,
    /// Bytes of records, known when it is sealed.
    records_bytes: u32,
    /// Whether it holds anything worth a write.
    due: bool,
    /// Whether it holds anything that later frames should vouch for.
    has_records: bool,
}

impl Frame {
    fn begin(segment: u64, offset: usize, mut buffer: Buffer, last: Ordinal) -> Frame {
        assert!(offset.is_multiple_of(BLOCK_BYTES), "a frame begins a block: {offset}");
        buffer.clear();
        buffer.fill_to(Frame::records_at(offset));
        Frame { segment, offset, buffer, last, records_bytes: 0, due: false, has_records: false }
    }

    /// Where records begin in the buffer of a frame at `offset`.
    fn records_at(offset: usize) -> usize {
        if offset == 0 { BLOCK_BYTES + FRAME_HEADER_BYTES } else { FRAME_HEADER_BYTES }
    }

    /// Where the next record will stand.
    fn next_place(&self, incarnation: u64) -> Place {
        let frame = if self.offset == 0 { BLOCK_BYTES } else { self.offset };
        let at = self.offset + self.buffer.len();
        Place { segment: self.segment, frame: frame as u64, at: at as u64, incarnation }
    }

    fn pad(&mut self) {
        let bytes = self.buffer.len() - Frame::records_at(self.offset);
        self.records_bytes = u32::try_from(bytes).expect("a frame is at most one write");
        self.buffer.fill_to(in_blocks(self.buffer.len()));
    }
}

struct InFlight {
    frame: u64,
    last: Ordinal,
    has_records: bool,
    first: u64,
    done: bool,
}

/// One reactor's log. See the module's head for the order of calls.
pub struct Log {
    id: LogId,
    store: StoreId,
    key: u64,
    incarnation: u64,
    write_bytes_max: usize,
    settled: Revision,
    /// What the next frame says of another log.
    other: Option<Testimony>,
    /// What the next segment's header says of all of them.
    words: BTreeMap<LogId, Testimony>,
    residents: BTreeMap<Resident, Standing>,

    appended: Ordinal,
    open: Frame,
    sealed: VecDeque<Frame>,
    /// Where the last submitted frame ends.
    end: LogEnd,
    in_flight: VecDeque<InFlight>,
    /// Whether the incarnation's first write is not yet acknowledged.
    opening: bool,
    acknowledged: u64,
    durable: Ordinal,
    /// The last frame that holds more than a vouch.
    last_with_records: u64,
    /// The highest frame that a submitted frame names as acknowledged.
    vouched: u64,
    idle_since: Option<Time>,
    /// An acknowledged write is vouched for at once.
    stopping: bool,

    first: u64,
    /// Takes effect when the frame is acknowledged: (first, frame).
    pending_first: Option<(u64, u64)>,
    /// Whether what is needed may have changed since `pending_first` was computed.
    stale: bool,
    /// All below is given away.
    retired_below: u64,
    /// From which index on entries are kept for others though a checkpoint holds them, and for how many bytes of
    /// files.
    kept: BTreeMap<Resident, Index>,
    kept_bytes_max: u64,
    /// And from which on all are kept.
    kept_whole: BTreeMap<Resident, Index>,
    /// The oldest segment that is being read.
    reads: Option<u64>,
    segments: Segments,
    buffers: Vec<Buffer>,
}

impl Log {
    /// The first [`Log::flush`] asks for segments and writes the new incarnation's header.
    /// `write_bytes_max`: one write at most, and so a record with its frame.
    pub fn new(start: LogStart, write_bytes_max: usize) -> Log {
        assert!(write_bytes_max.is_multiple_of(BLOCK_BYTES), "a write is whole blocks");
        assert!(write_bytes_max >= 3 * BLOCK_BYTES, "a write has room for a segment's head and a record");
        assert!(start.end.frame > 0 && start.incarnation > 0, "frames and incarnations are numbered from 1");
        let first = start.first.min(start.end.segment + 1);
        let (files, end) = (&start.files, start.end.segment);
        let mut log = Log {
            id: start.log,
            store: start.store,
            key: start.key,
            incarnation: start.incarnation,
            write_bytes_max,
            settled: start.settled,
            other: None,
            words: start.words,
            residents: start.residents,
            appended: Ordinal(0),
            open: Frame::begin(end, 0, Buffer::with_capacity(2 * BLOCK_BYTES), Ordinal(0)),
            sealed: VecDeque::new(),
            end: start.end,
            in_flight: VecDeque::new(),
            opening: true,
            acknowledged: start.end.frame - 1,
            durable: Ordinal(0),
            last_with_records: start.end.frame - 1,
            vouched: 0,
            idle_since: None,
            stopping: false,
            first,
            pending_first: None,
            stale: true,
            retired_below: first,
            kept: BTreeMap::new(),
            kept_bytes_max: 0,
            kept_whole: BTreeMap::new(),
            reads: None,
            segments: Segments::new(start.log, start.lengths, files, start.retired, end),
            buffers: Vec::new(),
        };
        log.roll_segment(0);
        log.open.due = true;
        log
    }

    /// Copies the record into the open frame. Panics where it opens nothing and the resident is unknown,
    /// where an entry leaves a gap, and where it is no single write.
    pub fn append(&mut self, resident: Resident, record: Record<'_>) -> Ordinal {
        let placed = Placed { resident, restated: false, record };
        self.reserve_frame(placed.bytes());
        let place = self.open.next_place(self.incarnation);
        let end = self.open.buffer.len() + placed.bytes();
        placed.encode(&mut self.open.buffer);
        assert!(self.open.buffer.len() == end, "a record takes what it says: {end}");
        self.appended.0 += 1;
        self.open.last = self.appended;
        self.open.due = true;
        self.open.has_records = true;
        self.note(resident, &placed.record, place);
        self.appended
    }

    fn note(&mut self, resident: Resident, record: &Record<'_>, place: Place) {
        self.stale |= !matches!(record, Record::HardState(_) | Record::Coverage(_));
        match (self.residents.get_mut(&resident), record) {
            (Some(_), Record::Close) => {
                self.residents.remove(&resident);
            }
            (Some(standing), record) => {
                standing.check_next(record);
                standing.apply(record, place);
            }
            (None, Record::Open(opening)) => {
                self.residents.insert(resident, Standing::new(opening.clone().into_owned()));
            }
            (None, _) => panic!("a record of {resident:?}, which has no opening in this log"),
        }
    }

    /// The member's settled revision, which every frame from now on carries.
    pub fn settle(&mut self, settled: Revision) {
        assert!(settled >= self.settled, "settled fell from {} to {settled}", self.settled);
        self.settled = settled;
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    /// The store that the log is of.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The sequence of the segment that is being filled.
    pub fn open_segment(&self) -> u64 {
        self.open.segment
    }

    /// What this log can say of itself.
    pub fn testimony(&self) -> Testimony {
        Testimony { log: self.id, key: self.key, frame: self.acknowledged }
    }

    /// Another log's word, for the next frame to keep.
    pub fn hear(&mut self, other: Testimony) {
        self.note_word(other);
        self.other = Some(other);
    }

    /// Another log's word, for the next segment's header to keep.
    pub fn note_word(&mut self, other: Testimony) {
        assert!(other.log != self.id, "a log is no witness of itself");
        let before = self.words.insert(other.log, other).filter(|before| before.key == other.key);
        let goes_on = before.is_none_or(|before| before.frame <= other.frame);
        assert!(goes_on, "a log takes nothing back: {other:?} after {before:?}");
    }

    /// The log whose word no frame has taken yet.
    pub fn heard(&self) -> Option<LogId> {
        self.other.map(|other| other.log)
    }

    /// Ends a turn: everything appended becomes writes, as far as writes may be in flight.
    pub fn flush(&mut self, now: Time, out: &mut Vec<Command>) {
        if self.stale && self.pending_first.is_none() {
            self.compute_first();
        }
        self.vouch_if_idle(now);
        self.segments.ask(now, self.end.segment, self.open.offset, self.opening, out);
        while self.in_flight.len() < self.in_flight_max() {
            if self.sealed.is_empty() && self.open.due {
                self.seal();
            }
            match self.sealed.pop_front() {
                Some(frame) if self.segments.is_ready(frame.segment) => out.push(self.submit(frame)),
                Some(frame) => {
                    self.sealed.push_front(frame);
                    break;
                }
                None => break,
            }
        }
    }

    fn in_flight_max(&self) -> usize {
        if self.opening { 1 } else { LOG_WRITES_IN_FLIGHT_MAX }
    }

    /// A write is durable. Returns the ordinal up to which every record is: completions come in any order,
    /// acknowledgement goes in the order of the writes.
    pub fn written(&mut self, id: WriteId) -> Ordinal {
        assert!(id.0 < self.end.frame, "a write completes that was submitted: {id:?}");
        let write = self.in_flight.iter_mut().find(|w| w.frame == id.0).expect("a write completes once");
        assert!(!write.done, "a write completes once");
        write.done = true;
        while self.in_flight.front().is_some_and(|write| write.done) {
            let write = self.in_flight.pop_front().expect("it was just looked at");
            let before = self.acknowledged;
            assert!(write.frame == before + 1, "writes complete in order: {} after {before}", write.frame);
            assert!(write.last >= self.durable, "what is durable stays so");
            assert!(write.last <= self.appended, "what is durable was appended");
            assert!(write.first >= self.retired_below, "what is given away is not needed again");
            self.acknowledged = write.frame;
            self.durable = write.last;
            self.opening = false;
            if write.has_records {
                self.last_with_records = write.frame;
            }
            self.retire_below(write.first);
            if let Some((first, _)) = self.pending_first.take_if(|(_, frame)| *frame <= write.frame) {
                assert!(first > self.first, "the beginning of the log rises: {first} after {}", self.first);
                self.first = first;
            }
        }
        assert!(self.last_with_records <= self.acknowledged, "what vouches for itself is acknowledged");
        assert!(self.retired_below <= self.first, "what is given away is below the beginning");
        self.durable
    }

    /// Every record up to here is durable.
    pub fn durable(&self) -> Ordinal {
        self.durable
    }

    /// A file of the length asked for is durable under this name.
    pub fn prepared(&mut self, segment: SegmentName) {
        self.segments.prepared(segment);
    }

    /// The disk has no room for that file. A shorter one is asked for; where none would do, which is said, one
    /// that is given away takes its name, or it is asked for again after a while.
    pub fn disk_full(&mut self, segment: SegmentName, now: Time) -> bool {
        let (laid, is_first) =
            (self.open.offset + in_blocks(self.open.buffer.len()), self.begins_in(segment));
        self.segments.disk_full(segment, now, laid, is_first)
    }

    /// Whether writes wait for nothing but the file that they go to.
    pub fn awaits_segment(&self) -> bool {
        self.sealed.front().is_some_and(|frame| !self.segments.is_ready(frame.segment))
    }

    /// Whether the disk had no room for the least of files when one was last asked for.
    pub fn is_short(&self) -> bool {
        self.segments.is_short()
    }

    /// Whether this process cannot write anything without that file. (The reserve's number is below those of the
    /// files that are there.)
    pub fn begins_in(&self, segment: SegmentName) -> bool {
        self.opening && (self.end.segment + 1..=self.open.segment).contains(&segment.sequence)
    }

    /// The least length of a file, and of the first one of a process.
    pub fn file_bytes_min(&self) -> u64 {
        self.segments.lengths().least as u64
    }

    pub fn first_file_bytes_min(&self) -> u64 {
        self.segments.lengths().least_to_begin() as u64
    }

    /// From now on new files leave so much of the disk free.
    pub fn keep_free(&mut self, bytes: u64) {
        self.segments.keep_free(bytes);
    }

    /// Gives all that is kept up for a checkpoint on a full disk, where that may do: about so many bytes are
    /// needed. Gives whether it may.
    pub fn give_up(&mut self, needed: u64) -> bool {
        self.segments.give_up(needed)
    }

    /// Gives back to the disk what is kept for being recycled. Gives whether there is such.
    pub fn shrink(&mut self) -> bool {
        self.segments.shrink()
    }

    /// The process is about to end: from now on silence is not waited for.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether every record is durable and vouched for.
    pub fn is_at_rest(&self) -> bool {
        let written = self.in_flight.is_empty() && self.sealed.is_empty() && !self.open.due;
        assert!(!written || self.durable == self.appended, "with nothing on its way all records are durable");
        written && self.last_with_records <= self.vouched
    }

    /// Writes that are full and have not begun.
    pub fn sealed(&self) -> usize {
        self.sealed.len()
    }

    /// Bytes appended that no write has taken yet.
    pub fn queued_bytes(&self) -> usize {
        let open = if self.open.due { self.open.buffer.len() } else { 0 };
        open + self.sealed.iter().map(|frame| frame.buffer.len()).sum::<usize>()
    }

    /// Takes a buffer back.
    pub fn reuse(&mut self, mut buffer: Buffer) {
        if self.buffers.len() < LOG_BUFFERS_SPARE_MAX && buffer.capacity() <= LOG_BUFFER_SPARE_BYTES_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// When [`Log::flush`] has to be called though nothing was appended: an acknowledged write that nothing
    /// vouches for waits for a block that does, and a file that is missing for the disk to have room.
    pub fn wake_at(&self) -> Time {
        let vouch = match self.idle_since {
            Some(since) if self.wants_vouch() => since + self.patience(),
            _ => Time::NEVER,
        };
        vouch.min(self.segments.wake_at(self.end.segment))
    }

    fn wants_vouch(&self) -> bool {
        let owed = self.last_with_records > self.vouched
            || self.pending_first.is_some()
            || self.first > self.retired_below;
        owed && self.in_flight.is_empty() && self.sealed.is_empty() && !self.open.due
    }

    fn patience(&self) -> Duration {
        if self.stopping { Duration(0) } else { VOUCH_DELAY }
    }

    fn vouch_if_idle(&mut self, now: Time) {
        assert!(self.open.due || !self.open.has_records, "a frame that holds a record is worth a write");
        if !self.wants_vouch() {
            self.idle_since = None;
        } else if now >= *self.idle_since.get_or_insert(now) + self.patience() {
            self.reserve_frame(0);
            self.open.due = true;
        }
    }

    /// What is held of the log.
    pub fn held(&self) -> Held {
        self.with_open(self.segments.held())
    }

    /// What will be held of it once it is known to be durable that the rest is not needed.
    pub fn needed(&self) -> Held {
        let oldest = self.residents.values().filter_map(Standing::oldest_needed).min();
        let needed =
            oldest.map_or_else(Held::default, |oldest| self.with_open(self.segments.held_from(oldest)));
        assert!(needed.written <= self.held().written, "what is needed is held: {needed:?}");
        needed
    }

    fn with_open(&self, held: Held) -> Held {
        Held { written: held.written + self.open.offset as u64, ..held }
    }

    /// For each resident the first index the log keeps, and about how many bytes of log stand behind the
    /// oldest entry kept for it: the largest is the one whose checkpoint frees most.
    pub fn held_for(&self) -> impl Iterator<Item = (Resident, Index, u64)> + '_ {
        let bytes_from = |segment: u64| self.with_open(self.segments.held_from(segment)).written;
        self.residents.iter().map(move |(resident, standing)| {
            (*resident, standing.first_needed(), standing.oldest_needed().map_or(0, bytes_from))
        })
    }

    /// The segment files that may hold entries, oldest first.
    #[cfg(test)]
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        (self.retired_below..=self.end.segment).map(|sequence| self.segments.name(sequence))
    }
}

/// Frames and their places.
impl Log {
    /// What a frame may be long where the open one stands.
    fn frame_bytes_max(&self) -> usize {
        (self.segments.bytes(self.open.segment) - self.open.offset).min(self.write_bytes_max)
    }

    /// Goes on to a frame or a segment in which `bytes` of records have room.
    fn reserve_frame(&mut self, bytes: usize) {
        let frame = in_blocks(FRAME_HEADER_BYTES + bytes);
        assert!(frame <= self.write_bytes_max, "a record of {bytes} bytes is no single write");
        while self.open.buffer.len() + bytes > self.frame_bytes_max() {
            if self.open.due { self.seal() } else { self.roll_segment(frame) }
        }
    }

    fn seal(&mut self) {
        assert!(self.open.due, "a frame that is written holds something");
        self.open.pad();
        let len = self.open.buffer.len();
        assert!(
            len <= self.frame_bytes_max(),
            "a frame of {len} bytes has room in its segment and in a write"
        );
        let (segment, last) = (self.open.segment, self.open.last);
        let offset = self.open.offset + self.open.buffer.len();
        let buffer = self.buffers.pop().unwrap_or_else(|| Buffer::with_capacity(2 * BLOCK_BYTES));
        let next = Frame::begin(segment, offset, buffer, last);
        let before = self.sealed.back().map(|frame| (frame.segment, frame.offset, frame.last));
        let at = (segment, self.open.offset, last);
        assert!(before.is_none_or(|before| before < at), "frames are sealed in their order: {at:?}");
        self.sealed.push_back(std::mem::replace(&mut self.open, next));
    }

    /// Goes on to the next segment, in which a frame of so many bytes has room if its file is yet to be made.
    fn roll_segment(&mut self, frame: usize) {
        assert!(
            !self.open.due,
            "what is in the open frame is sealed before the log goes on from its segment"
        );
        let standing: Vec<Placed<'_>> =
            self.residents.iter().flat_map(|(resident, standing)| standing.restate(*resident)).collect();
        let bytes: usize = standing.iter().map(Placed::bytes).sum();
        // Where it takes several frames, each is full but for less than a record and its own ends.
        let frames = bytes / (self.write_bytes_max / 2) + 1;
        let head = BLOCK_BYTES + in_blocks(bytes) + frames * 2 * BLOCK_BYTES;
        loop {
            let next = self.open.segment + 1;
            self.segments.roll(self.open.offset, head + frame);
            let buffer = std::mem::replace(&mut self.open.buffer, Buffer::with_capacity(2 * BLOCK_BYTES));
            self.open = Frame::begin(next, 0, buffer, self.open.last);
            self.open.due = true;
            if standing.is_empty() || head <= self.segments.bytes(next) {
                break;
            }
            // A file made when fewer lived here is passed over: nothing needs it, as no entry stands in it.
            self.seal();
        }
        self.restate(&standing);
    }

    /// Says at the head of a segment what recovery would otherwise need the segments before it for.
    fn restate(&mut self, standing: &[Placed<'_>]) {
        assert!(self.open.offset == 0, "what stands at the head of a segment is in its first frame");
        for placed in standing {
            if self.open.buffer.len() + placed.bytes() > self.frame_bytes_max() {
                self.seal();
            }
            placed.encode(&mut self.open.buffer);
            self.open.due = true;
        }
    }

    fn submit(&mut self, mut frame: Frame) -> Command {
        let number = self.end.frame;
        let mut frame_offset = frame.offset;
        if frame.offset == 0 {
            assert_eq!(frame.segment, self.end.segment + 1, "segments are filled in their order");
            let (head, _) = frame.buffer.split_at_mut(BLOCK_BYTES);
            // There may be more than have room: then each comes round.
            let first = frame.segment as usize % self.words.len().max(1);
            let words = self.words.values().skip(first).chain(self.words.values().take(first));
            self.segment_header(frame.segment).encode(words.copied(), head);
            frame_offset = BLOCK_BYTES;
        } else {
            let at = (frame.segment, frame.offset as u64);
            assert_eq!(at, (self.end.segment, self.end.offset), "a frame stands behind the one before");
        }
        let body = &mut frame.buffer[frame_offset - frame.offset..];
        let header = FrameHeader {
            log: self.id,
            key: self.key,
            incarnation: self.incarnation,
            segment: frame.segment,
            offset: frame_offset as u64,
            frame: number,
            chain: self.end.chain,
            records_bytes: frame.records_bytes,
            acknowledged: self.acknowledged,
            first: self.first,
            settled: self.settled.0,
            other: self.other.take(),
        };
        assert!(frame.records_bytes > 0 || !frame.has_records, "what later frames vouch for has records");
        assert!(!self.opening || frame.offset == 0, "a process begins in a segment of its own");
        assert!(self.acknowledged < number, "nothing is acknowledged before it is written");
        assert!(self.first <= frame.segment, "the segment that is written is needed");
        assert!(frame.last >= self.durable, "records are written in their order");
        let highest = number.max(frame.segment).max(self.incarnation);
        assert!(highest < NUMBER_MAX, "recovery takes no higher number for whole: {highest}");
        let chain = header.encode(body);
        let offset = frame.offset + frame.buffer.len();
        assert!(frame.buffer.len().is_multiple_of(BLOCK_BYTES), "a write is whole blocks");
        assert!(offset <= self.segments.bytes(frame.segment), "a write ends in its segment");
        self.end = LogEnd { segment: frame.segment, offset: offset as u64, frame: number + 1, chain };
        self.vouched = self.vouched.max(self.acknowledged);
        let (last, has_records, first) = (frame.last, frame.has_records, self.first);
        let before = self.in_flight.back().map_or(self.acknowledged, |write| write.frame);
        assert!(number == before + 1, "frames are numbered without a gap: {number} after {before}");
        assert!(self.in_flight.len() < self.in_flight_max(), "so many writes may be in flight");
        self.in_flight.push_back(InFlight { frame: number, last, has_records, first, done: false });
        Command::Write {
            id: WriteId(number),
            segment: self.segments.name(frame.segment),
            offset: frame.offset as u64,
            bytes: frame.buffer,
        }
    }

    fn segment_header(&self, sequence: u64) -> SegmentHeader {
        SegmentHeader {
            log: self.id,
            key: self.key,
            incarnation: self.incarnation,
            sequence,
            end: self.end,
            acknowledged: self.acknowledged,
            first: self.first,
            bytes: self.segments.bytes(sequence) as u64,
            store: self.store,
        }
    }
}

/// Segments and their reclamation.
impl Log {
    fn compute_first(&mut self) {
        self.stale = false;
        let oldest = self.residents.values().filter_map(Standing::oldest_needed).min();
        assert!(
            oldest.is_none_or(|oldest| oldest >= self.retired_below),
            "nobody needs what is given away: {oldest:?}"
        );
        let first = oldest.map_or(self.end.segment, |oldest| oldest.min(self.end.segment));
        let first = first.min(self.oldest_kept(first)).min(self.reads.unwrap_or(first));
        if first > self.first {
            assert!(self.pending_first.is_none(), "one step of the log's beginning is under way at a time");
            self.pending_first = Some((first, self.end.frame + self.sealed.len() as u64));
        }
    }

    /// The oldest segment below `first` that is kept for others, or `first`.
    fn oldest_kept(&self, first: u64) -> u64 {
        let oldest = |(of, from): (&Resident, &Index)| {
            self.residents.get(of)?.oldest_behind(Index(from.0.saturating_sub(1)))
        };
        let bounded = match self.kept.iter().filter_map(oldest).min() {
            Some(kept) if kept < first => kept.max(self.segments.oldest_within(self.kept_bytes_max)),
            _ => first,
        };
        self.kept_whole.iter().filter_map(oldest).fold(bounded, u64::min)
    }

    /// From these indexes on entries are kept though checkpoints hold them, as long as files of no more than these
    /// bytes stand behind the oldest.
    pub fn keep_for_others(&mut self, kept: BTreeMap<Resident, Index>, bytes_max: u64) {
        if (&self.kept, self.kept_bytes_max) != (&kept, bytes_max) {
            (self.kept, self.kept_bytes_max) = (kept, bytes_max);
            self.stale = true;
        }
    }

    /// From these indexes on entries are kept, whatever they take.
    pub fn keep_whole(&mut self, kept: BTreeMap<Resident, Index>) {
        if self.kept_whole != kept {
            self.kept_whole = kept;
            self.stale = true;
        }
    }

    /// Begins to read a resident's entries, which must be durable, and stand for ever; the term of the one before the
    /// first need not be known. Until [`Log::end_read`] the segments stay that they are in. Where the log has let go of
    /// what is to be read, gives the index behind which it has all.
    pub fn read(
        &mut self,
        resident: Resident,
        from: Index,
        upto: Index,
        before: Option<Term>,
    ) -> Result<EntryReader, Index> {
        assert!(self.reads.is_none(), "one read is under way at a time");
        let Some(standing) = self.residents.get(&resident) else { return Err(upto) };
        assert!(from <= upto && upto <= standing.last(), "what is read was appended: {from} to {upto}");
        // What is about to go is not read any more.
        let oldest = self.pending_first.map_or(self.first, |(first, _)| first);
        let held = standing.stretches_from(oldest);
        let Some(first_held) = held.first().map(|stretch| stretch.first) else { return Err(upto) };
        let before = before.or(standing.named_term(Index(from.0 - 1)));
        let first = if before.is_some() { from } else { Index(from.0 - 1) };
        if first < first_held {
            // Without the one before, the first that is held says but its term.
            let is_named = standing.named_term(Index(first_held.0 - 1)).is_some();
            return Err(if is_named { Index(first_held.0 - 1) } else { first_held });
        }
        let wanted = held.iter().filter(|stretch| stretch.upto >= first && stretch.first <= upto);
        let reader =
            EntryReader::new((self.id, self.key), resident, wanted.copied().collect(), (from, before), upto);
        assert!(reader.segment() >= self.retired_below, "what is read was not given away");
        self.reads = Some(reader.segment());
        Ok(reader)
    }

    /// Nothing is read any more.
    pub fn end_read(&mut self) {
        assert!(self.reads.take().is_some(), "a read ends that has begun");
        self.stale = true;
    }

    /// A frame that names `first` is durable: nobody will look for the segments below.
    fn retire_below(&mut self, first: u64) {
        if first > self.retired_below {
            assert!(first <= self.first, "what is given away is not needed: up to {first}");
            let mut needed = self.residents.values().filter_map(Standing::oldest_needed);
            assert!(
                needed.all(|oldest| oldest >= first),
                "a segment goes when no resident needs it: {first}"
            );
            let is_read = self.reads.is_some_and(|reads| reads < first);
            assert!(!is_read, "a segment goes when nothing is read of it: {:?} below {first}", self.reads);
            self.segments.retire_below(first);
            self.retired_below = first;
            self.residents.values_mut().for_each(|standing| standing.forget_below(first));
        }
    }
}
