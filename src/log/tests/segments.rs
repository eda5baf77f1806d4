//! How long files are, which are made and which go round, and what becomes of a full disk.

use super::rig::{Rig, SEGMENT, files, read_back};
use super::*;
use crate::sim::disk::Disk;
use crate::types::{Duration, Time};

fn begin(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    rig.append(resident(1), opening(0));
    rig.settle_down();
    rig
}

fn fill(rig: &mut Rig, from: u64, upto: u64) {
    for index in from..upto {
        let entry = Record::Entry { index: Index(index), term: Term(1), kind: 0, payload: &[7; 4000] };
        rig.append(resident(1), entry);
        rig.settle_down();
    }
}

fn checkpoint(rig: &mut Rig, index: u64) {
    let (revision, index) = (Revision(index), Index(index));
    let checkpoint = Checkpointed { revision, index, term: Term(1), file: 1, home: 0, hash: 5 };
    rig.append(resident(1), Record::Checkpoint(checkpoint));
    rig.settle_down();
}

#[test]
fn an_idle_log_is_three_files_of_the_least_length() {
    let rig = begin(1);
    assert_eq!(rig.lengths(), [SEGMENT; 3]);
    let sequences: Vec<u64> = files(&rig.disk).map(|(name, _)| name.sequence).collect();
    assert_eq!(sequences, [0, 1, 2], "the reserve, the one being filled, the next");
}

/// The disk has not a byte for whoever comes: two processes that get no further than their first write, and then
/// one that does, any number of times.
#[test]
fn with_no_byte_free_one_process_after_the_other_begins() {
    let mut rig = begin(13);
    rig.disk.set_capacity(rig.lengths().iter().sum::<usize>() as u64);
    for index in 1..60 {
        rig.states = vec![rig.state().clone()];
        rig.log = Log::new(rig.read_back().unwrap().start, crate::limits::LOG_WRITE_BYTES_MAX);
        fill(&mut rig, index, index + 1);
        assert_eq!(rig.log.durable(), Ordinal(1), "{:?}", rig.lengths());
        if index % 2 == 0 {
            checkpoint(&mut rig, index);
        }
    }
}

#[test]
fn a_process_begins_without_a_reserve() {
    let mut rig = begin(15);
    rig.log = Log::new(rig.read_back().unwrap().start, crate::limits::LOG_WRITE_BYTES_MAX);
    let last = rig.log.segments().last().unwrap();
    let reserve = files(&rig.disk).next().unwrap().0;
    assert!(reserve < last);
    let begins_in = |sequence| rig.log.begins_in(SegmentName { sequence, ..last });
    assert!(begins_in(last.sequence + 1));
    assert!(!begins_in(last.sequence) && !begins_in(reserve.sequence));
}

#[test]
fn the_reserve_is_given_up_where_it_may_do_and_the_next_file_that_goes_takes_its_place() {
    let mut rig = begin(14);
    let used = rig.lengths().iter().sum::<usize>() as u64;
    rig.disk.set_capacity(used);
    assert!(!rig.log.give_up(3 * SEGMENT as u64));
    rig.settle_down();
    assert_eq!(rig.disk.free_bytes(), 0);
    assert!(rig.log.give_up(2 * SEGMENT as u64));
    rig.settle_down();
    assert_eq!((rig.disk.free_bytes(), rig.lengths().len()), (SEGMENT as u64, 2), "nothing takes it back");
    assert!(!rig.log.give_up(0), "there is none");
    fill(&mut rig, 1, 8);
    checkpoint(&mut rig, 7);
    assert!(rig.log.give_up(0));
    rig.restart(Disk::power_loss);
}

#[test]
fn a_process_begins_in_a_quarter_of_a_file_where_the_disk_has_no_more() {
    let mut rig = Rig::new(15);
    rig.disk.set_capacity(SEGMENT as u64 / 4);
    rig.append(resident(1), opening(0));
    (0..3).for_each(|_| rig.flush());
    rig.settle_down();
    assert_eq!((rig.lengths(), rig.log.durable()), (vec![SEGMENT / 4], Ordinal(1)));
    // So short a file that was not written to serves the next process too.
    let mut disk = rig.disk.clone();
    let name = files(&disk).next().unwrap().0.to_string();
    disk.overwrite(&name, 0, &[0; SEGMENT / 4]);
    let mut log = Log::new(read_back(&disk).unwrap().start, crate::limits::LOG_WRITE_BYTES_MAX);
    let mut out = vec![];
    log.flush(rig.now, &mut out);
    assert!(matches!(out[0], Command::Prepare { segment, .. } if segment.sequence == 2), "{out:?}");
    assert!(matches!(out[1], Command::Write { .. }), "{out:?}");
    rig.disk.set_capacity(64 << 20);
    rig.settle_down();
    fill(&mut rig, 1, 40);
    rig.restart(Disk::power_loss);
    assert_eq!(rig.state()[&resident(1)].entries.len(), 39);
}

/// What a crash loop leaves, files of which a block or two are used, is not read beyond those.
#[test]
fn of_a_file_that_the_log_has_gone_on_from_only_what_is_used_is_read() {
    let mut rig = begin(16);
    for index in 1..9 {
        rig.restart(Disk::kill);
        fill(&mut rig, index, index + 1);
    }
    let names: Vec<SegmentName> = files(&rig.disk).map(|(name, _)| name).collect();
    let needed = Needed::of(files(&rig.disk));
    let open = rig.log.open_segment();
    for name in names {
        let read = needed.bytes_of(name, SEGMENT as u64) as usize;
        match name.sequence < open {
            true => assert!(read <= 6 * 4096, "{name}: {read}"),
            false => assert_eq!(read, SEGMENT, "{name}: damage shows by what stands behind a break"),
        }
    }
}

#[test]
fn files_grow_with_what_is_held_up_to_the_most() {
    let mut rig = begin(2);
    fill(&mut rig, 1, 300);
    let lengths = rig.lengths();
    assert!(lengths.is_sorted(), "{lengths:?}");
    let of = |times: usize| lengths.iter().filter(|len| **len == times * SEGMENT).count();
    assert!(of(1) >= 4 && of(2) >= 2 && of(4) >= 2, "{lengths:?}");
    assert_eq!(of(1) + of(2) + of(4), lengths.len(), "{lengths:?}");
}

#[test]
fn in_the_steady_state_files_go_round() {
    let mut rig = begin(3);
    let round = |rig: &mut Rig, number: u64| {
        fill(rig, 1 + 200 * number, 201 + 200 * number);
        checkpoint(rig, 200 * (number + 1));
    };
    (0..5).for_each(|number| round(&mut rig, number));
    let (prepared, recycled) = (rig.prepared, rig.recycled);
    let bytes: usize = rig.lengths().iter().sum();
    (5..13).for_each(|number| round(&mut rig, number));
    let (prepared, recycled) = (rig.prepared - prepared, rig.recycled - recycled);
    // Rounds begin anywhere in a file: one may take a file more than the last.
    assert!(prepared <= 1 && recycled > 40, "{prepared} made, {recycled} recycled");
    assert!(rig.lengths().iter().sum::<usize>() <= bytes + 4 * SEGMENT);
    // Once less is held, less is kept.
    for index in 1..800 {
        fill(&mut rig, 2600 + index, 2601 + index);
        checkpoint(&mut rig, 2600 + index);
    }
    let after: usize = rig.lengths().iter().sum();
    assert!(after < bytes / 2, "{after} of {bytes} bytes");
}

#[test]
fn what_waits_to_be_recycled_goes_when_the_log_is_to_shrink() {
    let mut rig = begin(4);
    fill(&mut rig, 1, 200);
    checkpoint(&mut rig, 199);
    let before = rig.lengths().len();
    rig.log.shrink();
    rig.settle_down();
    assert!(rig.lengths().len() <= 4 && before > 5, "{before} {:?}", rig.lengths());
    assert_eq!(read_back(&rig.disk).unwrap().residents[&resident(1)].last().0, Index(199));
}

#[test]
fn a_record_longer_than_any_file_gets_one_that_is_long_enough() {
    let mut rig = begin(5);
    for index in 1..5 {
        let payload = vec![index as u8; (7 + index as usize) * SEGMENT];
        let entry = Record::Entry { index: Index(index), term: Term(1), kind: 0, payload: &payload };
        rig.append(resident(1), entry);
        rig.flush();
    }
    rig.settle_down();
    assert!(*rig.lengths().iter().max().unwrap() > 11 * SEGMENT);
    rig.restart(Disk::power_loss);
    assert_eq!(rig.state()[&resident(1)].entries.len(), 4);
}

#[test]
fn more_residents_than_a_small_file_can_name_take_a_longer_one() {
    let mut rig = begin(6);
    // The file behind the open one is there, and too short for what they say at the head of a segment.
    for shard in 2..600 {
        rig.append(resident(shard), opening(0));
    }
    fill(&mut rig, 1, 40);
    assert!(rig.lengths().iter().any(|len| *len > SEGMENT), "{:?}", rig.lengths());
    for crash in [Disk::power_loss, Disk::kill, Disk::power_loss] {
        rig.restart(crash);
        assert_eq!(rig.state().len(), 599);
    }
    checkpoint(&mut rig, 39);
    rig.restart(Disk::power_loss);
    assert_eq!(rig.state().len(), 599);
}

#[test]
fn a_process_reuses_the_file_that_the_last_one_had_ready() {
    let mut rig = begin(7);
    for _ in 0..30 {
        rig.restart(Disk::kill);
        rig.settle_down();
        checkpoint(&mut rig, 0);
    }
    let bytes: usize = rig.lengths().iter().sum();
    assert!(bytes <= 8 * SEGMENT, "{:?}", rig.lengths());
    assert!(rig.log.held().unused <= 3 * SEGMENT as u64);
}

#[test]
fn a_process_begins_in_a_file_of_the_least_length_however_much_is_held() {
    let mut rig = begin(12);
    fill(&mut rig, 1, 300);
    let mut start = rig.read_back().unwrap().start;
    let end = start.end.segment;
    start.files.retain(|sequence, _| *sequence <= end);
    start.retired.clear();
    let mut log = Log::new(start, crate::limits::LOG_WRITE_BYTES_MAX);
    log.keep_free(1);
    let mut out = vec![];
    log.flush(rig.now, &mut out);
    let first = matches!(out[..], [Command::Prepare { bytes, keep_free: 0, .. }] if bytes == SEGMENT as u64);
    assert!(first, "{out:?}");
}

#[test]
fn a_full_disk_gives_shorter_files_then_none_and_some_again_when_there_is_room() {
    let mut rig = begin(8);
    fill(&mut rig, 1, 250);
    let used: usize = rig.lengths().iter().sum();
    rig.disk.set_capacity((used + SEGMENT + SEGMENT / 2) as u64);
    let mut index = 250;
    while !rig.is_full {
        fill(&mut rig, index, index + 1);
        index += 1;
        assert!(index < 1000);
    }
    let grown = rig.lengths().iter().sum::<usize>() - used;
    assert_eq!(grown, SEGMENT, "the least length had room once");
    assert!(rig.log.is_short() && rig.log.wake_at() > rig.now && rig.log.wake_at() != Time::NEVER);
    rig.disk.set_capacity(u64::MAX);
    rig.now = rig.log.wake_at();
    rig.settle_down();
    assert!(!rig.log.is_short() && !rig.is_full);
    fill(&mut rig, index, index + 100);
    rig.restart(Disk::power_loss);
    assert_eq!(rig.state()[&resident(1)].entries.len(), index as usize + 99);
}

#[test]
fn what_is_to_stay_free_stays_free_but_for_the_first_file() {
    let mut rig = Rig::new(9);
    rig.disk.set_capacity(3 * SEGMENT as u64 - 1);
    rig.log.keep_free(2 * SEGMENT as u64);
    rig.append(resident(1), opening(0));
    rig.flush();
    while rig.complete() {
        rig.flush();
    }
    assert_eq!(rig.lengths(), [SEGMENT]);
    assert!(rig.is_full && rig.log.is_short());
    assert_eq!(rig.log.durable(), Ordinal(1));
}

#[test]
fn a_file_of_another_length_than_its_header_names_is_damage() {
    let mut rig = begin(10);
    fill(&mut rig, 1, 30);
    let all: Vec<_> = files(&rig.disk).map(|(name, bytes)| (name, bytes.to_vec())).collect();
    let recover = |change: usize, len: usize| {
        let mut recovery = Recovery::new(LogId(7), STORE, 99, super::rig::SEGMENTS);
        for (at, (name, bytes)) in all.iter().enumerate() {
            let mut bytes = bytes.clone();
            if at == change {
                bytes.resize(len, 0);
            }
            recovery.segment(*name, &bytes);
        }
        recovery.finish()
    };
    assert!(recover(usize::MAX, 0).is_ok());
    for len in [SEGMENT - 4096, SEGMENT + 4096, 2 * SEGMENT] {
        assert!(recover(1, len).is_err() && recover(2, len).is_err(), "{len}");
    }
}

#[test]
fn lone_writes_vouch_for_each_other_and_silence_costs_one_block() {
    let mut rig = begin(11);
    let before = rig.writes;
    for index in 1..=20 {
        let entry = Record::Entry { index: Index(index), term: Term(1), kind: 0, payload: b"x" };
        rig.append(resident(1), entry);
        let next = rig.now + Duration::from_ms(50);
        loop {
            rig.flush();
            let woken = rig.log.wake_at().min(rig.disk.wake_at());
            if woken > next {
                break;
            }
            rig.now = rig.now.max(woken);
            rig.complete();
        }
        rig.now = next;
    }
    assert_eq!(rig.writes - before, 20);
    rig.settle_down();
    assert_eq!(rig.writes - before, 21);
}

#[test]
fn a_log_that_stops_leaves_no_record_without_a_witness() {
    for seed in 0..20 {
        let mut rig = begin(seed);
        fill(&mut rig, 1, 1 + seed);
        let entry = Record::Entry { index: Index(1 + seed), term: Term(1), kind: 0, payload: b"last" };
        rig.append(resident(1), entry);
        rig.flush();
        rig.log.stop();
        let stopped = rig.now;
        while !rig.log.is_at_rest() {
            assert!(rig.complete() || rig.log.wake_at() <= rig.now, "it waits for silence");
            rig.flush();
        }
        assert!(rig.now.since(stopped) < Duration::from_ms(2));
        let entries = |disk: &Disk| read_back(disk).map(|found| found.residents[&resident(1)].entries.len());
        for (segment, offset, vouched) in super::rig::collect(&rig.disk).places_for_tests() {
            let mut disk = rig.disk.clone();
            disk.rot(&mut rig.rng, &segment.to_string(), offset, 1).unwrap();
            match entries(&disk) {
                Err(_) => assert!(vouched),
                Ok(left) => assert_eq!((left as u64, vouched), (1 + seed, false), "only the vouching block"),
            }
        }
    }
}

/// Two writes in flight, of which the second is said to be done twice.
#[test]
#[should_panic = "a write completes once"]
fn a_write_completes_once() {
    let mut rig = begin(16);
    rig.log.append(
        resident(1),
        Record::HardState(StoredHardState { term: Term(1), vote: RaftId::new(2), commit: Index(0) }),
    );
    let mut out = vec![];
    rig.log.flush(Time(0), &mut out);
    let written = out.iter().find_map(|command| match command {
        Command::Write { id, .. } => Some(*id),
        _ => None,
    });
    rig.log.written(written.unwrap());
    rig.log.written(written.unwrap());
}

#[test]
#[should_panic = "a vote does not change in its term"]
fn no_other_vote_in_a_term_is_written() {
    let mut rig = begin(17);
    for vote in [2, 3] {
        rig.append(
            resident(1),
            Record::HardState(StoredHardState { term: Term(1), vote: RaftId::new(vote), commit: Index(0) }),
        );
    }
}

#[test]
#[should_panic = "checkpoints go forward"]
fn no_checkpoint_goes_back() {
    let mut rig = begin(18);
    fill(&mut rig, 1, 9);
    checkpoint(&mut rig, 8);
    checkpoint(&mut rig, 7);
}
