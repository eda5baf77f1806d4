//! The format, byte by byte, and bytes that are none of ours.

use super::*;
use crate::limits::LOG_WRITE_BYTES_MAX;
use crate::record::VERSION;
use crate::stdx::{Rng, VersionMismatch, dump, read_dump};
use crate::types::{Peers, RaftId, Time};

const SEGMENT: usize = 8 * 4096;
const SEGMENTS: SegmentBytes = SegmentBytes { least: SEGMENT, most: SEGMENT };

/// A log on a disk that does everything at once: file contents by sequence.
struct Memory {
    log: Log,
    files: std::collections::BTreeMap<u64, Vec<u8>>,
}

impl Memory {
    fn new(start: LogStart) -> Memory {
        Memory { log: Log::new(start, LOG_WRITE_BYTES_MAX), files: Default::default() }
    }

    fn flush(&mut self) {
        loop {
            let mut out = Vec::new();
            self.log.flush(Time(0), &mut out);
            if out.is_empty() {
                return;
            }
            for command in out {
                match command {
                    Command::Write { id, segment, offset, bytes } => {
                        let file = self.files.get_mut(&segment.sequence).unwrap();
                        file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                        self.log.written(id);
                    }
                    Command::Prepare { segment, bytes, .. } => {
                        self.files.insert(segment.sequence, vec![0; bytes as usize]);
                        self.log.prepared(segment);
                    }
                    Command::Recycle { .. } | Command::Remove { .. } => unreachable!("nothing is given up"),
                }
            }
        }
    }

    fn recover(&self) -> Result<Recovered, LogDamage> {
        let mut recovery = Recovery::new(LogId(7), STORE, 1, SEGMENTS);
        for (sequence, bytes) in &self.files {
            recovery.segment(SegmentName { log: LogId(7), sequence: *sequence }, bytes);
        }
        recovery.finish()
    }
}

fn sample() -> Memory {
    let mut memory = Memory::new(LogStart::fresh(LogId(7), STORE, 0x1122_3344_5566_7788, SEGMENTS));
    memory.log.settle(Revision(9));
    memory.flush();
    memory.log.hear(Testimony { log: LogId(2), key: 0x99AA_BBCC_DDEE_FF00, frame: 5 });
    let of = resident(3);
    memory.log.append(of, opening(10));
    memory.log.append(of, Record::Entry { index: Index(11), term: Term(2), kind: 1, payload: b"braid" });
    memory.log.append(of, Record::Entry { index: Index(12), term: Term(2), kind: 2, payload: b"" });
    let hard = StoredHardState { term: Term(2), vote: RaftId::new(5), commit: Index(11) };
    memory.log.append(of, Record::HardState(hard));
    let (revision, index) = (Revision(8), Index(11));
    let checkpoint = Checkpointed { revision, index, term: Term(2), file: 6, home: 1, hash: 0x99AA };
    memory.log.append(of, Record::Checkpoint(checkpoint));
    memory.log.append(of, Record::Coverage(CoverageRecord { revision, index }));
    memory.log.append(of, Record::MovedIn);
    let (of, index) = (resident(4), Index(30));
    memory.log.append(of, opening(10));
    memory.log.append(of, Record::Installed(Checkpointed { index, ..checkpoint }));
    memory.flush();
    memory
}

#[test]
fn the_bytes_of_a_segment_are_these() {
    let memory = sample();
    assert_eq!(dump(&memory.files[&1]), include_str!("segment.hex"));
}

/// What other logs had acknowledged stands in the next segment's header.
#[test]
fn the_words_of_other_logs_in_a_header_are_these() {
    let mut memory = sample();
    memory.log.note_word(Testimony { log: LogId(9), key: 3, frame: 0x0102 });
    for index in 13..40 {
        let entry = Record::Entry { index: Index(index), term: Term(2), kind: 1, payload: &[7; 2000] };
        memory.log.append(resident(3), entry);
        memory.flush();
    }
    let expected = "\
00060 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00
00070 00 ff ee dd cc bb aa 99 05 00 00 00 00 00 00 00
00080 09 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00
00090 02 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00
";
    let head = [vec![0; 104], memory.files[&2][104..4096].to_vec()].concat();
    assert_eq!(dump(&head), expected);
}

#[test]
fn a_segment_of_this_format_is_read() {
    let mut recovery = Recovery::new(LogId(7), STORE, 1, SEGMENTS);
    let bytes = read_dump(include_str!("segment.hex"), SEGMENT);
    recovery.segment(SegmentName { log: LogId(7), sequence: 1 }, &bytes);
    let recovered = recovery.finish().unwrap();
    let known = &recovered.residents[&resident(3)];
    assert_eq!((known.base(), known.last()), ((Index(11), Term(2)), (Index(12), Term(2))));
    assert_eq!(known.hard, StoredHardState { term: Term(2), vote: RaftId::new(5), commit: Index(11) });
    assert_eq!((recovered.settled, known.entries.len()), (Revision(9), 1));
    assert_eq!(known.entries[0].kind, 2, "a kind that only the caller knows");
    assert_eq!(known.opening.own, RaftId::new(2).unwrap());
    assert_eq!(known.opening.peers, Peers::of(&[1, 2, 3], &[4]).unwrap());
    assert!(known.moved_in);
    assert_eq!(known.coverage, Some(CoverageRecord { revision: Revision(8), index: Index(11) }));
}

#[test]
fn a_later_entry_replaces_what_stands_from_its_index_on() {
    let mut memory = Memory::new(LogStart::fresh(LogId(7), STORE, 1, SEGMENTS));
    let of = resident(3);
    memory.log.append(of, opening(0));
    for (index, term) in [(1, 1), (2, 1), (3, 1), (2, 2)] {
        let entry = Record::Entry { index: Index(index), term: Term(term), kind: 0, payload: b"x" };
        memory.log.append(of, entry);
    }
    memory.log.append(of, Record::HardState(StoredHardState { term: Term(2), vote: None, commit: Index(3) }));
    memory.flush();
    let known = &memory.recover().unwrap().residents[&of];
    let found: Vec<_> = known.entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect();
    assert_eq!(found, [(1, 1), (2, 2)]);
    assert_eq!(known.hard.commit, Index(2), "commit is not above the last index");
}

#[test]
fn any_bytes_are_a_log_or_damage_and_never_a_panic() {
    let good = sample();
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut recovery = Recovery::new(LogId(7), STORE, 1, SEGMENTS);
        for (sequence, bytes) in &good.files {
            let mut bytes = bytes.clone();
            mutate(&mut rng, &mut bytes);
            recovery.segment(SegmentName { log: LogId(7), sequence: *sequence }, &bytes);
        }
        if let Ok(recovered) = recovery.finish() {
            let mut memory = Memory::new(recovered.start);
            memory.files = good.files.clone();
        }
    }
}

/// Changes bytes, and half the time makes the checksums right again, so that what stands behind them is
/// reached.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.below(4) {
        let at = rng.below(4 * 4096) as usize;
        let at = if rng.chance(3, 4) { at / 4096 * 4096 + at % 400 } else { at };
        bytes[at] = if rng.chance(1, 2) { rng.next_u64() as u8 } else { *rng.pick(&[0, 1, 255]) };
    }
    if rng.chance(1, 20) {
        let len = rng.below(bytes.len() as u64 + 1) as usize;
        bytes.truncate(len);
    }
    if rng.chance(1, 2) {
        for block in bytes.chunks_exact_mut(4096) {
            let crc = crc32c::crc32c(&block[12..]);
            block[8..12].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Nothing but who looks goes on with that.
#[test]
fn a_file_that_was_cut_is_damage_and_read_up_to_the_cut() {
    let memory = sample();
    let whole = memory.recover().unwrap();
    let mut read_whole = 0;
    for cut in (4096..SEGMENT).step_by(4096) {
        let mut recovery = Recovery::new(LogId(7), STORE, 1, SEGMENTS);
        for (sequence, bytes) in &memory.files {
            let len = if *sequence == whole.start.end.segment { cut } else { bytes.len() };
            recovery.segment(SegmentName { log: LogId(7), sequence: *sequence }, &bytes[..len]);
        }
        let (recovered, damage) = recovery.read();
        let cause = Cause::Cut { made: SEGMENT as u64, found: cut as u64 };
        assert_eq!(damage.map(|damage| damage.cause), Some(cause));
        if cut as u64 >= whole.start.end.offset {
            assert_eq!((&recovered.residents, recovered.settled), (&whole.residents, whole.settled));
            read_whole += 1;
        } else {
            assert!(recovered.residents.is_empty() && recovered.start.end.offset <= cut as u64);
        }
    }
    assert!(read_whole > 0);
}

/// The sample's bytes with some of them changed, and the checksums of headers and frames mended.
fn changed(at: usize, bytes: &[u8]) -> Memory {
    let mut memory = sample();
    let file = memory.files.get_mut(&1).unwrap();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    for block in file.chunks_exact_mut(4096) {
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    memory
}

fn mismatch(what: &'static str, found: u64, known: u64) -> Cause {
    Cause::Format(VersionMismatch { what, found, known })
}

#[test]
fn a_newer_format_is_refused_and_not_taken_for_rot() {
    let damage = changed(12, &[9]).recover().unwrap_err();
    assert_eq!(damage.cause, mismatch("format", 9, 4));
    let told = "log file 007-0000000000000001.log was written by a newer program: it has format 9, and this \
                program knows formats up to 4.";
    assert!(damage.to_string().starts_with(told), "{damage}");
}

/// A program that adds a record need not change the segment's format. The first version is that of the opening.
#[test]
fn a_record_of_a_newer_version_is_refused_and_not_taken_for_nonsense() {
    let damage = changed(0x2076, &[VERSION as u8 + 1]).recover().unwrap_err();
    let expected = mismatch("record version", u64::from(VERSION) + 1, u64::from(VERSION));
    assert_eq!((damage.cause, damage.offset), (expected, 0x2000));
    assert!(
        damage.to_string().contains("was written by a newer program: it has record version 3"),
        "{damage}"
    );
    let damage = changed(0x2074, &[99]).recover().unwrap_err();
    assert_eq!(damage.cause, Cause::Senseless, "a kind that this version ought to know");
}

#[test]
fn a_segment_of_the_last_format_is_refused_by_name() {
    let header = "\
00000 62 72 61 69 64 73 65 67 76 47 9b 1b 03 00 00 00
00010 07 00 00 00 00 00 00 00 88 77 66 55 44 33 22 11
00020 01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00
00040 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
00050 01 00 00 00 00 00 00 00 00 80 00 00 00 00 00 00
00060 ef cd ab 89 67 45 23 01 00 00 00 00 00 00 00 00
";
    let mut recovery = Recovery::new(LogId(7), STORE, 1, SEGMENTS);
    recovery.segment(SegmentName { log: LogId(7), sequence: 1 }, &read_dump(header, SEGMENT));
    let damage = recovery.finish().unwrap_err();
    assert_eq!(damage.cause, mismatch("format", 3, 4));
    assert!(
        damage.to_string().contains("log has format 3, of a version before the first release"),
        "{damage}"
    );
}

#[test]
fn file_names_are_read_as_they_are_written() {
    let name = SegmentName { log: LogId(7), sequence: 0xABC };
    assert_eq!(name.to_string(), "007-0000000000000abc.log");
    assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
    for other in ["7-0000000000000abc.log", "007-abc.log", "007-0000000000000ABC.log", "x", "007-.log"] {
        assert_eq!(SegmentName::parse(other), None);
    }
}
