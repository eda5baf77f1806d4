//! Crashes, rot and recycling on a simulated disk.

use super::rig::{Rig, comparable, read_back, state_of};
use super::*;
use crate::sim::disk::Disk;
use crate::stdx::Rng;
use crate::types::{Duration, RaftId, Time};

/// Appends something that a reactor could append.
fn append_any(rig: &mut Rig) {
    let of = resident(rig.rng.below(4) as u32);
    let Some(known) = rig.state().get(&of).cloned() else {
        let index = rig.rng.below(50);
        return rig.append(of, opening(index));
    };
    let (base, last) = (known.base(), known.last());
    match rig.rng.below(100) {
        0 => rig.append(of, Record::Close),
        1 => {
            let index = last + rig.rng.below(20);
            rig.append(of, opening(index));
        }
        2..=9 => {
            let commit = Index(base + rig.rng.below(last - base + 1));
            let term = Term(known.hard.term.0 + rig.rng.below(2));
            let vote = RaftId::new(rig.rng.below(3));
            let votes = term > known.hard.term || known.hard.vote.is_none();
            let vote = if votes { vote } else { known.hard.vote };
            rig.append(of, Record::HardState(StoredHardState { term, vote, commit }));
        }
        10..=16 => {
            let index = base + rig.rng.below(last - base + 1);
            let (revision, file) = (Revision(index * 3), rig.rng.below(100));
            let checkpoint =
                Checkpointed { revision, index: Index(index), term: Term(1), file, home: 0, hash: file };
            rig.append(of, Record::Checkpoint(checkpoint));
        }
        17..=19 => {
            let revision = Revision(rig.rng.below(1000));
            rig.append(of, Record::Coverage(CoverageRecord { revision, index: Index(last) }));
        }
        20 => rig.append(of, Record::MovedIn),
        21..=22 => {
            // Ahead of all entries, or of some that are nobody's.
            let index = Index(base + 1 + rig.rng.below(last - base + 20));
            let (revision, file) = (Revision(index.0 * 3), rig.rng.below(100));
            let state = Checkpointed { revision, index, term: Term(1), file, home: 0, hash: file };
            rig.append(of, Record::Installed(state));
        }
        _ => {
            let back = if rig.rng.chance(1, 12) { rig.rng.below(last - base + 1) } else { 0 };
            let bytes = if rig.rng.chance(1, 8) { rig.rng.below(9000) } else { rig.rng.below(300) };
            let fill = rig.rng.next_u64() as u8;
            let payload = vec![fill; bytes as usize];
            let (index, term) = (Index(last + 1 - back), Term(1 + rig.rng.below(5)));
            rig.append(of, Record::Entry { index, term, kind: fill % 3, payload: &payload });
        }
    }
}

fn work(rig: &mut Rig, steps: u64) {
    for _ in 0..steps {
        match rig.rng.below(10) {
            0..=3 => append_any(rig),
            4..=5 => rig.flush(),
            6..=8 => {
                rig.complete();
            }
            _ => rig.now = rig.now + Duration::from_us(rig.rng.below(3000)),
        }
    }
}

fn survive(seeds: std::ops::Range<u64>) {
    let (mut recycled, mut records) = (0, 0);
    for seed in seeds {
        let mut rig = Rig::new(seed);
        for _ in 0..6 {
            let steps = rig.rng.below(500);
            work(&mut rig, steps);
            records += rig.states.len();
            if rig.rng.chance(1, 3) {
                rig.restart(Disk::kill);
            } else {
                rig.restart(Disk::power_loss);
            }
        }
        recycled += rig.recycled;
    }
    assert!(recycled > 20 && records > 1000, "{recycled} {records}");
}

#[test]
fn what_was_acknowledged_survives_any_crash_and_nothing_is_invented() {
    survive(0..40);
}

#[test]
#[ignore = "minutes: for changes of the format or the rule"]
fn what_was_acknowledged_survives_any_crash_at_length() {
    survive(1000..6000);
}

/// Runs a log to rest, then damages it in one place after the other.
fn rot(seeds: std::ops::Range<u64>) -> (u64, u64) {
    let (mut reported, mut cut) = (0, 0);
    for seed in seeds {
        let mut rig = Rig::new(seed);
        for _ in 0..3 {
            work(&mut rig, 150);
            rig.restart(Disk::power_loss);
        }
        work(&mut rig, 100);
        rig.settle_down();
        let seen = |recovered: &Recovered| comparable(&state_of(recovered));
        let whole = rig.read_back().unwrap();
        let recovery = super::rig::collect(&rig.disk);
        let places = recovery.places_for_tests();
        for (segment, offset, vouched) in places {
            let (mut disk, mut rng) = (rig.disk.clone(), Rng::new(seed));
            disk.rot(&mut rng, &segment.to_string(), offset, 1).unwrap();
            match (read_back(&disk), vouched) {
                (Err(damage), true) => {
                    assert!(damage.to_string().contains(&damage.segment.to_string()));
                    reported += 1;
                }
                (Ok(recovered), false) => {
                    assert_eq!(seen(&recovered), seen(&whole), "only the idle log's block is cut");
                    cut += 1;
                }
                (Ok(_), true) => panic!("seed {seed}: silently cut {segment} at {offset}"),
                (Err(damage), false) => panic!("seed {seed}: the tail is no damage: {damage}"),
            }
        }
    }
    (reported, cut)
}

#[test]
fn rot_of_any_acknowledged_block_is_reported_and_never_cut() {
    let (reported, cut) = rot(0..12);
    assert!(reported > 200 && cut > 5, "{reported} {cut}");
}

#[test]
fn a_write_that_the_disk_lost_or_misplaced_is_reported() {
    use crate::sim::disk::Lie;
    for seed in 0..30 {
        let mut rig = Rig::new(seed);
        work(&mut rig, 120);
        rig.settle_down();
        append_any(&mut rig);
        rig.flush();
        let lie = if seed % 2 == 0 { Lie::Lost } else { Lie::Misdirected(4096) };
        rig.lie(lie);
        rig.settle_down();
        assert!(rig.read_back().is_err(), "seed {seed}");
    }
}

#[test]
fn a_missing_segment_is_reported() {
    let mut rig = Rig::new(3);
    rig.append(resident(1), opening(0));
    for index in 1..100 {
        let entry = Record::Entry { index: Index(index), term: Term(1), kind: 0, payload: &[7; 4000] };
        rig.append(resident(1), entry);
        rig.settle_down();
    }
    let names: Vec<String> = rig.log.segments().map(|segment| segment.to_string()).collect();
    assert!(names.len() > 5);
    // The last one takes the only witness for its frames with it, but its spares are there.
    for name in &names {
        let mut disk = rig.disk.clone();
        disk.remove(name).unwrap();
        assert!(read_back(&disk).is_err(), "{name}");
    }
}

#[test]
fn an_idle_log_vouches_once_and_then_rests() {
    let mut rig = Rig::new(5);
    rig.append(resident(1), opening(0));
    rig.settle_down();
    let end = rig.log.wake_at();
    assert_eq!(end, Time::NEVER);
    let before = rig.disk.clone();
    rig.now = rig.now + Duration::from_secs(100);
    rig.settle_down();
    assert!(super::rig::files(&before).eq(super::rig::files(&rig.disk)), "nothing more is written");
}

#[test]
fn checkpoints_free_segments() {
    let mut rig = Rig::new(6);
    rig.append(resident(1), opening(0));
    let fill = |rig: &mut Rig, from: u64| {
        for index in from..from + 60 {
            let entry = Record::Entry { index: Index(index), term: Term(1), kind: 0, payload: &[7; 4000] };
            rig.append(resident(1), entry);
            rig.settle_down();
        }
        let index = Index(from + 59);
        let checkpoint =
            Checkpointed { revision: Revision(index.0), index, term: Term(1), file: 1, home: 0, hash: 5 };
        rig.append(resident(1), Record::Checkpoint(checkpoint));
        rig.settle_down();
    };
    fill(&mut rig, 1);
    assert!(rig.held_bytes() <= 8 * SEGMENT, "{}", rig.held_bytes());
    fill(&mut rig, 61);
    let (_, first, _) = rig.log.held_for().next().unwrap();
    assert!(first == Index(121));
    assert!(rig.held_bytes() <= 8 * SEGMENT, "{}", rig.held_bytes());
    assert!(rig.recycled > 3);
}

const SEGMENT: u64 = super::rig::SEGMENT as u64;

#[test]
fn settled_comes_back_and_never_falls() {
    let mut rig = Rig::new(8);
    rig.append(resident(1), opening(0));
    rig.log.settle(Revision(41));
    rig.settle_down();
    assert_eq!(rig.read_back().unwrap().settled, Revision(41));
    rig.restart(Disk::power_loss);
    rig.settle_down();
    rig.restart(Disk::power_loss);
    assert_eq!(rig.read_back().unwrap().settled, Revision(41));
}
