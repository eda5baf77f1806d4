//! What is read back of a log that goes on is what was written, wherever it stands, or nothing.

use super::format::FrameHeader;
use super::rig::{Rig, SEGMENT, files};
use super::*;
use crate::sim::disk::Disk;
use crate::stdx::Rng;
use std::collections::BTreeMap;

/// The newest entry at each index, as a checkpoint leaves it: term, kind, payload.
type Entries = BTreeMap<u64, (u64, u8, Vec<u8>)>;

#[derive(Debug, PartialEq)]
enum Read {
    /// What it stands behind, and the entries.
    Found((u64, u64), Entries),
    LogBeginsAfter(u64),
    Unreadable,
}

fn read(rig: &mut Rig, of: Resident, from: u64, upto: u64, slice: usize) -> Read {
    let mut reader = match rig.log.read(of, Index(from), Index(upto), None) {
        Ok(reader) => reader,
        Err(after) => return Read::LogBeginsAfter(after.0),
    };
    let read = read_all(&rig.disk, &mut reader, slice);
    rig.log.end_read();
    read.unwrap_or(Read::Unreadable)
}

fn read_all(disk: &Disk, reader: &mut EntryReader, slice: usize) -> Result<Read, Unreadable> {
    let (mut first, mut found): (_, Entries) = (None, BTreeMap::new());
    loop {
        while reader.has_records() {
            let Some(super::Entries { after, entries }) = reader.entries(slice)? else { continue };
            first.get_or_insert((after.0.0, after.1.0));
            let before = found.last_key_value().map(|(index, (term, ..))| (*index, *term));
            assert!(before.is_none_or(|before| before == (after.0.0, after.1.0)));
            for RecoveredEntry { index, term, kind, payload } in entries {
                found.insert(index.0, (term.0, kind, payload.bytes().to_vec()));
            }
        }
        let Some(LogPiece { segment, offset, bytes }) = reader.wants() else { break };
        let file = disk.read(&segment.to_string()).unwrap();
        let from = file.len().min(offset as usize);
        reader.take(&file[from..file.len().min(from + bytes)])?;
    }
    Ok(Read::Found(first.expect("it was wanted"), found))
}

/// A log with all that a log meets, and what was written to it.
struct Written {
    rig: Rig,
    entries: BTreeMap<Resident, Entries>,
    terms: u64,
}

impl Written {
    fn new(seed: u64) -> Written {
        let mut rig = Rig::new(seed);
        let entries = (1..4).map(|shard| (resident(shard), Entries::new())).collect();
        for shard in 1..4 {
            rig.append(resident(shard), opening(0));
        }
        rig.settle_down();
        Written { rig, entries, terms: 1 }
    }

    fn write(&mut self, rng: &mut Rng) {
        let of = resident(1 + rng.below(3) as u32);
        let entries = self.entries.get_mut(&of).unwrap();
        let last = entries.last_key_value().map_or(0, |(index, _)| *index);
        let floor = self.rig.state()[&of].base();
        let index = if rng.chance(1, 12) && last > floor {
            self.terms += 1;
            floor + 1 + rng.below(last - floor)
        } else {
            last + 1
        };
        let long = if rng.chance(1, 20) { 40_000 } else { 900 };
        let payload = vec![rng.below(256) as u8; rng.below(long) as usize];
        let (term, kind) = (self.terms, rng.below(3) as u8);
        let record = Record::Entry { index: Index(index), term: Term(term), kind, payload: &payload };
        self.rig.append(of, record);
        entries.split_off(&index);
        entries.insert(index, (term, kind, payload));
        match rng.below(20) {
            0 => self.rig.settle_down(),
            1..5 => self.rig.flush(),
            5 => self.checkpoint(of, rng),
            _ => {}
        }
    }

    fn checkpoint(&mut self, of: Resident, rng: &mut Rng) {
        let floor = self.rig.state()[&of].base();
        let entries = &self.entries[&of];
        let Some((last, _)) = entries.last_key_value().filter(|(last, _)| **last > floor) else { return };
        let index = floor + 1 + rng.below(last - floor);
        let checkpoint = Checkpointed {
            revision: Revision(index),
            index: Index(index),
            term: Term(entries[&index].0),
            file: 1,
            home: 0,
            hash: 5,
        };
        self.rig.append(of, Record::Checkpoint(checkpoint));
    }

    /// Reads from anywhere to anywhere.
    fn check(&mut self, rng: &mut Rng, may_be_gone: bool) -> usize {
        let (mut reads, residents) = (0, self.entries.clone());
        for (of, entries) in residents {
            let Some((last, _)) = entries.last_key_value() else { continue };
            let from = 1 + rng.below(*last);
            let upto = from + rng.below(last - from + 1);
            let slice = [1, 300, 5_000, 1 << 20][rng.below(4) as usize];
            match read(&mut self.rig, of, from, upto, slice) {
                Read::Found(after, found) => {
                    let term = if from == 1 { 1 } else { entries[&(from - 1)].0 };
                    assert_eq!(after, (from - 1, term));
                    assert!(found == entries.range(from..=upto).map(|(k, v)| (*k, v.clone())).collect());
                    reads += 1;
                }
                Read::LogBeginsAfter(after) => {
                    assert!(may_be_gone && after >= from, "{after} {from}");
                    if after < *last {
                        let again = read(&mut self.rig, of, after + 1, *last, slice);
                        assert!(matches!(again, Read::Found(..)), "{again:?} behind {after}");
                    }
                }
                Read::Unreadable => panic!("nothing is wrong with the disk"),
            }
        }
        reads
    }
}

#[test]
fn what_is_read_is_the_newest_entry_of_each_index() {
    let mut reads = 0;
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut written = Written::new(seed);
        let keeps = seed % 2 == 0;
        for round in 0..6 {
            for _ in 0..60 {
                if keeps {
                    let kept = (1..4).map(|shard| (resident(shard), Index(0))).collect();
                    written.rig.log.keep_for_others(kept, u64::MAX);
                }
                written.write(&mut rng);
            }
            written.rig.settle_down();
            reads += written.check(&mut rng, !keeps);
            if !keeps && round % 2 == 1 {
                written.rig.restart(if rng.chance(1, 2) { Disk::kill } else { Disk::power_loss });
                reads += written.check(&mut rng, true);
            }
        }
        assert!(!keeps || written.rig.log.segments().next().unwrap().sequence == 1);
        assert!(keeps || written.rig.recycled > 0);
    }
    assert!(reads > 300, "{reads}");
}

/// Any block of the log rots, is lost, or has what stood elsewhere.
#[test]
fn of_a_damaged_log_nothing_is_read_that_was_not_written() {
    let (mut unreadable, mut found) = (0, 0);
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut written = Written::new(seed);
        let kept: BTreeMap<_, _> = (1..4).map(|shard| (resident(shard), Index(0))).collect();
        written.rig.log.keep_for_others(kept, u64::MAX);
        (0..120).for_each(|_| written.write(&mut rng));
        written.rig.settle_down();
        let names: Vec<String> = files(&written.rig.disk).map(|(name, _)| name.to_string()).collect();
        let whole = written.rig.disk.clone();
        for _ in 0..30 {
            written.rig.disk = whole.clone();
            let name = &names[rng.below(names.len() as u64) as usize];
            let bytes = whole.read(name).unwrap();
            let at = 4096 * rng.below(bytes.len() as u64 / 4096) as usize;
            let within = rng.below(3500);
            match rng.below(4) {
                0 => written.rig.disk.rot(&mut rng, name, at as u64 + within, 1).unwrap(),
                1 => written.rig.disk.overwrite(name, at, &[0; 4096]),
                2 => {
                    // What another incarnation had written there.
                    let frame = FrameHeader::decode(&bytes[at..], |_| true);
                    let Some((header, _, len)) = frame else { continue };
                    let mut frame = bytes[at..at + len].to_vec();
                    // In the first record's body, behind a term.
                    frame[112 + 24 + 8] ^= 1;
                    FrameHeader { incarnation: header.incarnation + 1, ..header }.encode(&mut frame);
                    written.rig.disk.overwrite(name, at, &frame);
                }
                _ => {
                    let from = 4096 * rng.below(bytes.len() as u64 / 4096) as usize;
                    written.rig.disk.overwrite(name, at, &bytes[from..from + 4096]);
                }
            }
            let of = resident(1 + rng.below(3) as u32);
            let last = *written.entries[&of].last_key_value().unwrap().0;
            match read(&mut written.rig, of, 1, last, 5_000) {
                Read::Found(after, entries) => {
                    assert!(after == (0, 1) && entries == written.entries[&of]);
                    found += 1;
                }
                Read::LogBeginsAfter(after) => panic!("all is kept: {after}"),
                Read::Unreadable => unreadable += 1,
            }
        }
    }
    assert!(unreadable > 100 && found > 100, "{unreadable} {found}");
}

/// The CRC is known once all of a frame is there: what a damaged head claims is not waited for without end.
#[test]
fn no_more_is_read_for_one_frame_than_a_log_writes_at_once() {
    let mut rig = Rig::new(3);
    rig.append(resident(1), opening(0));
    rig.settle_down();
    let name = rig.log.segments().next().unwrap();
    let block = &rig.disk.read(&name.to_string()).unwrap()[4096..8192];
    let longest = crate::limits::LOG_WRITE_BYTES_MAX - super::format::FRAME_HEADER_BYTES;
    let claimed = |records_bytes: usize| {
        let mut block = block.to_vec();
        block[20..24].copy_from_slice(&(records_bytes as u32).to_le_bytes());
        FrameHeader::claimed(&block).map(|(_, _, len)| len)
    };
    assert_eq!(claimed(1), Some(4096));
    assert_eq!(claimed(longest), Some(crate::limits::LOG_WRITE_BYTES_MAX));
    assert_eq!([longest + 1, u32::MAX as usize].map(claimed), [None; 2]);
}

#[test]
fn what_is_being_read_stays_though_nobody_needs_it() {
    let mut rig = Rig::new(1);
    rig.append(resident(1), opening(0));
    let fill = |rig: &mut Rig, from: u64, upto: u64| {
        for index in from..upto {
            let entry = Record::Entry { index: Index(index), term: Term(1), kind: 0, payload: &[7; 4000] };
            rig.append(resident(1), entry);
            rig.settle_down();
        }
    };
    let checkpoint = |rig: &mut Rig, index: u64| {
        let (revision, index) = (Revision(index), Index(index));
        let checkpoint = Checkpointed { revision, index, term: Term(1), file: 1, home: 0, hash: 5 };
        rig.append(resident(1), Record::Checkpoint(checkpoint));
        rig.settle_down();
    };
    fill(&mut rig, 1, 60);
    let mut reader = rig.log.read(resident(1), Index(20), Index(50), None).unwrap();
    checkpoint(&mut rig, 59);
    fill(&mut rig, 60, 120);
    checkpoint(&mut rig, 119);
    let oldest = rig.log.segments().next().unwrap().sequence;
    assert_eq!(oldest, reader.segment());
    let Ok(Read::Found(after, found)) = read_all(&rig.disk, &mut reader, 5_000) else { panic!("it stays") };
    assert_eq!((after, found.len()), ((19, 1), 31));
    rig.log.end_read();
    rig.settle_down();
    assert!(rig.log.segments().next().unwrap().sequence > oldest);
    let Err(after) = rig.log.read(resident(1), Index(20), Index(50), None) else { panic!("it is gone") };
    assert!(after > Index(50), "{after}");
}

#[test]
fn what_is_kept_for_others_is_bounded() {
    let mut rig = Rig::new(2);
    rig.append(resident(1), opening(0));
    let most = 6 * SEGMENT as u64;
    rig.log.keep_for_others(BTreeMap::from([(resident(1), Index(10))]), most);
    let mut stands_in = 0;
    for index in 1..300 {
        let entry = Record::Entry { index: Index(index), term: Term(1), kind: 0, payload: &[7; 4000] };
        rig.append(resident(1), entry);
        rig.settle_down();
        if index == 10 {
            stands_in = rig.log.open_segment();
        }
        if index % 20 == 0 {
            let (revision, index) = (Revision(index), Index(index));
            let checkpoint = Checkpointed { revision, index, term: Term(1), file: 1, home: 0, hash: 5 };
            rig.append(resident(1), Record::Checkpoint(checkpoint));
            rig.settle_down();
        }
        let begins = rig.log.segments().next().unwrap().sequence;
        assert!(!(10..30).contains(&index) || begins <= stands_in, "{begins} at {index}");
        assert!(rig.held_bytes() <= most + 5 * SEGMENT as u64, "{} at {index}", rig.held_bytes());
        assert!(index < 200 || rig.held_bytes() >= most / 2, "{} at {index}", rig.held_bytes());
    }
    // Who has caught up needs nothing.
    let checkpoint =
        Checkpointed { revision: Revision(299), index: Index(299), term: Term(1), file: 1, home: 0, hash: 5 };
    rig.append(resident(1), Record::Checkpoint(checkpoint));
    rig.log.keep_for_others(BTreeMap::from([(resident(1), Index(300))]), most);
    rig.settle_down();
    assert!(rig.held_bytes() <= 4 * SEGMENT as u64, "{}", rig.held_bytes());
}
