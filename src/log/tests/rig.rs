//! A log, the disk under it, and what must be there after a crash.

use super::*;
use crate::limits::LOG_WRITE_BYTES_MAX;
use crate::sim::disk::{Disk, Lie, Op, OpId};
use crate::stdx::Rng;
use crate::types::{Duration, Time};
use std::collections::BTreeMap;

pub const SEGMENT: usize = 16 * 4096;
pub const SEGMENTS: SegmentBytes = SegmentBytes { least: SEGMENT, most: 4 * SEGMENT };

/// What recovery gives for one resident, kept by simpler means.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub opening: Opening,
    pub hard: StoredHardState,
    pub checkpoint: Option<Checkpointed>,
    pub coverage: Option<CoverageRecord>,
    pub moved_in: bool,
    pub entries: BTreeMap<u64, (u64, u8, Vec<u8>)>,
}

impl Expected {
    pub fn base(&self) -> u64 {
        self.checkpoint.map_or(0, |c| c.index.0).max(self.opening.index.0)
    }
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(self.base(), |(index, _)| *index)
    }
}

pub type State = BTreeMap<Resident, Expected>;

pub fn apply(state: &mut State, of: Resident, record: &Record<'_>) {
    if let Record::Open(opening) = record {
        let (opening, entries) = (opening.clone().into_owned(), BTreeMap::new());
        let hard = opening.hard;
        let (checkpoint, coverage, moved_in) = (None, None, false);
        state.insert(of, Expected { opening, hard, checkpoint, coverage, moved_in, entries });
        return;
    }
    let known = state.get_mut(&of).unwrap();
    match record {
        Record::Entry { index, term, kind, payload } => {
            known.entries.split_off(&index.0);
            known.coverage = None;
            known.entries.insert(index.0, (term.0, *kind, payload.to_vec()));
        }
        Record::HardState(hard) => (known.hard, known.coverage) = (*hard, None),
        Record::Checkpoint(checkpoint) => {
            known.checkpoint = Some(*checkpoint);
            known.entries = known.entries.split_off(&(checkpoint.index.0 + 1));
        }
        Record::Installed(checkpoint) => {
            (known.checkpoint, known.coverage) = (Some(*checkpoint), None);
            known.entries.clear();
        }
        Record::Coverage(coverage) => known.coverage = Some(*coverage),
        Record::MovedIn => known.moved_in = true,
        Record::Close => {
            state.remove(&of);
        }
        Record::Open(_) => unreachable!(),
    }
}

pub fn state_of(recovered: &Recovered) -> State {
    let expected = |r: &RecoveredResident| {
        let entry = |e: &RecoveredEntry| (e.index.0, (e.term.0, e.kind, e.payload.bytes().to_vec()));
        for (place, entry) in r.entries.iter().enumerate() {
            assert_eq!(entry.index.0, r.base().0.0 + 1 + place as u64, "no gaps");
        }
        assert!(r.hard.commit <= r.last().0);
        Expected {
            opening: Opening { hard: StoredHardState::default(), ..r.opening.clone() },
            hard: r.hard,
            checkpoint: r.checkpoint,
            coverage: r.coverage,
            moved_in: r.moved_in,
            entries: r.entries.iter().map(entry).collect(),
        }
    };
    recovered.residents.iter().map(|(of, r)| (*of, expected(r))).collect()
}

/// The parts that recovery promises: the opening's own hard state is not one.
pub fn comparable(state: &State) -> State {
    let mut state = state.clone();
    for known in state.values_mut() {
        known.opening.hard = StoredHardState::default();
        known.hard.commit = known.hard.commit.min(Index(known.last()));
    }
    state
}

pub enum Doing {
    Write(WriteId),
    Zeros(SegmentName),
    Named(SegmentName),
    Nothing,
}

pub struct Rig {
    pub disk: Disk,
    pub rng: Rng,
    pub now: Time,
    pub log: Log,
    doing: BTreeMap<OpId, Doing>,
    /// The state after each ordinal since the last recovery; the first is what was recovered.
    pub states: Vec<State>,
    pub recycled: u64,
    /// Files made, and writes.
    pub prepared: u64,
    pub writes: u64,
    /// No file has room.
    pub is_full: bool,
}

impl Rig {
    pub fn new(seed: u64) -> Rig {
        let mut rng = Rng::new(seed);
        let key = rng.next_u64();
        Rig {
            disk: Disk::new(64 << 20, (Duration(0), Duration::from_us(200))),
            rng,
            now: Time(0),
            log: Log::new(LogStart::fresh(LogId(7), STORE, key, SEGMENTS), LOG_WRITE_BYTES_MAX),
            doing: BTreeMap::new(),
            states: vec![State::new()],
            recycled: 0,
            prepared: 0,
            writes: 0,
            is_full: false,
        }
    }

    /// Bytes of the files that the log has in use, but for the one being filled.
    pub fn held_bytes(&self) -> u64 {
        let held = self.log.held();
        held.written + held.unused
    }

    /// The lengths of all files, in order of their names.
    pub fn lengths(&self) -> Vec<usize> {
        files(&self.disk).map(|(_, bytes)| bytes.len()).collect()
    }

    pub fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    pub fn append(&mut self, of: Resident, record: Record<'_>) {
        let mut state = self.state().clone();
        apply(&mut state, of, &record);
        self.states.push(state);
        let ordinal = self.log.append(of, record);
        assert_eq!(ordinal.0 as usize, self.states.len() - 1);
    }

    pub fn flush(&mut self) {
        let mut out = Vec::new();
        self.log.flush(self.now, &mut out);
        for command in out {
            self.perform(command);
        }
    }

    fn submit(&mut self, op: Op, doing: Doing) {
        let id = self.disk.submit(self.now, &mut self.rng, op).unwrap();
        self.doing.insert(id, doing);
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Write { id, segment, offset, bytes } => {
                self.writes += 1;
                assert!(bytes.as_ptr().addr().is_multiple_of(4096) && bytes.len().is_multiple_of(4096));
                let file = self.disk.read(&segment.to_string()).unwrap();
                assert!(offset.is_multiple_of(4096) && offset as usize + bytes.len() <= file.len());
                let op =
                    Op::Write { file: segment.to_string(), offset, bytes: bytes.to_vec(), durable: true };
                self.submit(op, Doing::Write(id));
                self.log.reuse(bytes);
            }
            Command::Prepare { segment, bytes, keep_free } => {
                if self.disk.free_bytes() < bytes + keep_free {
                    self.is_full = self.log.disk_full(segment, self.now);
                    return;
                }
                self.is_full = false;
                self.prepared += 1;
                let file = format!("{segment}.new");
                self.disk.create(&file).unwrap();
                let op = Op::Write { file, offset: 0, bytes: vec![0; bytes as usize], durable: true };
                self.submit(op, Doing::Zeros(segment));
            }
            Command::Recycle { old, new } => {
                self.recycled += 1;
                self.disk.rename(&old.to_string(), &new.to_string()).unwrap();
                self.submit(Op::SyncDirectory, Doing::Named(new));
            }
            Command::Remove { segment } => self.disk.remove(&segment.to_string()).unwrap(),
        }
    }

    /// Makes the writes in flight go wrong while the disk confirms them.
    pub fn lie(&mut self, lie: Lie) {
        for (id, doing) in &self.doing {
            if matches!(doing, Doing::Write(_)) {
                self.disk.lie(*id, lie);
            }
        }
    }

    /// Lets time pass to the next completion and takes it. False where nothing is in flight.
    pub fn complete(&mut self) -> bool {
        let due = self.disk.wake_at();
        if due == Time::NEVER {
            return false;
        }
        self.now = self.now.max(due);
        let (id, result) = self.disk.complete(self.now, &mut self.rng).unwrap();
        result.unwrap();
        match self.doing.remove(&id).unwrap() {
            Doing::Write(write) => {
                let durable = self.log.written(write);
                assert_eq!(durable, self.log.durable());
            }
            Doing::Zeros(segment) => {
                self.disk.rename(&format!("{segment}.new"), &segment.to_string()).unwrap();
                self.submit(Op::SyncDirectory, Doing::Named(segment));
            }
            Doing::Named(segment) => self.log.prepared(segment),
            Doing::Nothing => {}
        }
        true
    }

    /// Until nothing is in flight and the last frame is vouched for, whatever waits for a full disk.
    pub fn settle_down(&mut self) {
        for _ in 0..10_000 {
            self.flush();
            if !self.complete() {
                match self.log.wake_at() {
                    Time::NEVER => return,
                    _ if self.is_full && self.log.is_at_rest() => return,
                    wake => self.now = self.now.max(wake),
                }
            }
        }
        panic!("the log does not come to rest");
    }

    pub fn read_back(&self) -> Result<Recovered, LogDamage> {
        read_back(&self.disk)
    }

    /// What was lost, with `crash` now and then once more before the recovery is through.
    pub fn restart(&mut self, crash: impl Fn(&mut Disk, &mut Rng)) {
        crash(&mut self.disk, &mut self.rng);
        loop {
            self.doing.clear();
            let scraps: Vec<String> =
                self.disk.files().filter(|name| SegmentName::parse(name).is_none()).map(Into::into).collect();
            for scrap in scraps {
                self.disk.remove(&scrap).unwrap();
            }
            let recovered = self.read_back().unwrap_or_else(|damage| panic!("{damage}"));
            let found = state_of(&recovered);
            let whole = read_whole(&self.disk, recovered.start.first).unwrap();
            assert_eq!((state_of(&whole), whole.start.end), (found.clone(), recovered.start.end));
            assert_eq!((whole.settled, whole.start.first), (recovered.settled, recovered.start.first));
            let durable = self.log.durable().0 as usize;
            let fits = self.states[durable..].iter().any(|state| comparable(state) == found);
            assert!(fits, "found {found:#?}\nexpected {:#?} or later", comparable(&self.states[durable]));
            for segment in &recovered.sync {
                self.submit(Op::Sync { file: segment.to_string() }, Doing::Nothing);
            }
            self.submit(Op::SyncDirectory, Doing::Nothing);
            if self.rng.chance(1, 8) {
                self.disk.power_loss(&mut self.rng);
                continue;
            }
            while let Some((id, result)) = self.disk.complete(Time::NEVER, &mut self.rng) {
                self.doing.remove(&id);
                result.unwrap();
            }
            for segment in &recovered.remove {
                self.disk.remove(&segment.to_string()).unwrap();
            }
            self.states = vec![found];
            self.log = Log::new(recovered.start, LOG_WRITE_BYTES_MAX);
            if self.rng.chance(1, 4) {
                self.flush();
                for _ in 0..self.rng.below(6) {
                    self.complete();
                    self.flush();
                }
                self.disk.power_loss(&mut self.rng);
                continue;
            }
            return;
        }
    }
}

pub fn files(disk: &Disk) -> impl Iterator<Item = (SegmentName, &[u8])> {
    let named = |name| SegmentName::parse(name).map(|segment| (segment, disk.read(name).unwrap()));
    disk.files().filter_map(named)
}

pub fn read_back(disk: &Disk) -> Result<Recovered, LogDamage> {
    collect(disk).finish()
}

/// As a start reads it.
pub fn collect(disk: &Disk) -> Recovery {
    let needed = Needed::of(files(disk));
    let mut recovery = Recovery::new(LogId(7), STORE, 99, SEGMENTS);
    for (segment, bytes) in files(disk) {
        let upto = needed.bytes_of(segment, bytes.len() as u64) as usize;
        recovery.part(segment, &bytes[..upto], bytes.len());
    }
    recovery
}

/// With all that stands in the files of segments which are needed.
fn read_whole(disk: &Disk, first: u64) -> Result<Recovered, LogDamage> {
    let mut recovery = Recovery::new(LogId(7), STORE, 99, SEGMENTS);
    for (segment, bytes) in files(disk) {
        let upto = if segment.sequence < first { 4096 } else { bytes.len() };
        recovery.part(segment, &bytes[..upto.min(bytes.len())], bytes.len());
    }
    recovery.finish()
}
