use super::*;
use crate::record::{Batch, Change, Entry, Payload, Write};
use crate::types::{Epoch, Index, ReactorId, Revision, Term};

fn epoch(attempt: u32) -> Epoch {
    Epoch { term: Term(2), attempt }
}

fn batch(attempt: u32, settled: u64, revisions: &[(u64, u16)]) -> Payload {
    let writes = revisions
        .iter()
        .map(|&(revision, parts)| Write {
            revision,
            parts,
            more: false,
            changes: vec![Change::Delete { sub: 0, key: b"k".to_vec() }],
        })
        .collect();
    Payload::of(&Entry::Batch(Batch { epoch: epoch(attempt).into(), settled, writes }))
}

fn seal(attempt: u32, prefix: u64) -> Payload {
    Payload::of(&Entry::Seal { epoch: epoch(attempt).into(), prefix })
}

fn fence(attempt: u32) -> Payload {
    Payload::of(&Entry::Fence(epoch(attempt).into()))
}

/// Reads a log from its first entry on and gives the live revisions.
fn live(entries: &[Payload]) -> Vec<u64> {
    let mut meaning = Meaning::default();
    for (at, payload) in entries.iter().enumerate() {
        meaning.read(Index(at as u64 + 1), payload).unwrap();
    }
    meaning.live().map(|write| write.revision.0).collect()
}

#[test]
fn a_seal_voids_what_stands_before_it_above_its_prefix() {
    let log = [seal(1, 1), batch(1, 1, &[(2, 1), (3, 1), (4, 1)]), seal(2, 3), batch(2, 3, &[(4, 1)])];
    assert_eq!(live(&log[..2]), [2, 3, 4]);
    assert_eq!(live(&log[..3]), [2, 3]);
    assert_eq!(live(&log), [2, 3, 4]);
}

#[test]
fn a_batch_of_another_epoch_than_the_last_seal_is_void() {
    assert_eq!(live(&[seal(1, 1), seal(2, 1), batch(1, 1, &[(2, 1)])]), [0u64; 0]);
    assert_eq!(live(&[batch(1, 1, &[(2, 1)])]), [0u64; 0]);
}

#[test]
fn epochs_and_revisions_that_fall_are_strange() {
    let mut meaning = Meaning::new(Revision(5), Seal { epoch: epoch(3), prefix: Revision(5) }, epoch(3));
    assert!(meaning.read(Index(9), &fence(3)).is_err());
    assert!(meaning.read(Index(9), &seal(2, 5)).is_err());
    assert!(meaning.read(Index(9), &batch(3, 5, &[(8, 1), (7, 1)])).is_err());
    assert!(meaning.read(Index(9), &Payload::copy_of(b"rubbish")).is_err());
}

#[test]
fn writes_already_in_the_state_are_passed_over() {
    let mut meaning = Meaning::new(Revision(5), Seal { epoch: epoch(3), prefix: Revision(1) }, epoch(3));
    meaning.read(Index(9), &batch(3, 4, &[(4, 1), (6, 1), (9, 2)])).unwrap();
    assert_eq!(meaning.parts().len(), 2);
    assert_eq!(meaning.needed_after(Index(20)), Index(8));
    meaning.settle(Revision(9));
    assert_eq!(meaning.needed_after(Index(20)), Index(20));
    assert_eq!(meaning.known_settled(), Revision(9));
}

fn part(revision: u64, parts: u16, attempt: u32) -> Part {
    Part { revision: Revision(revision), parts, epoch: epoch(attempt) }
}

fn run(base: u64, logs: &[Vec<Part>]) -> u64 {
    longest_run(Revision(base), logs).0
}

#[test]
fn a_run_ends_before_the_first_hole_or_missing_part() {
    assert_eq!(run(1, &[]), 1);
    assert_eq!(run(1, &[vec![part(2, 1, 1), part(4, 1, 1)], vec![part(3, 1, 1)]]), 4);
    assert_eq!(run(1, &[vec![part(2, 1, 1), part(4, 1, 1)], vec![]]), 2);
    assert_eq!(run(1, &[vec![part(2, 2, 1)], vec![part(2, 2, 1), part(3, 1, 1)]]), 3);
    assert_eq!(run(1, &[vec![part(2, 2, 1)], vec![part(3, 1, 1)]]), 1);
    assert_eq!(run(3, &[vec![part(2, 2, 1), part(4, 1, 1)]]), 4);
}

#[test]
fn epochs_never_fall_along_a_run_and_never_mix_in_a_revision() {
    assert_eq!(run(1, &[vec![part(2, 1, 2)], vec![part(3, 1, 1)]]), 2);
    assert_eq!(run(1, &[vec![part(2, 2, 2)], vec![part(2, 2, 1)]]), 1);
    assert_eq!(run(1, &[vec![part(2, 1, 1)], vec![part(3, 1, 2)]]), 3);
}

#[test]
fn the_steps_come_in_order_and_old_answers_count_for_nothing() {
    let (a, b) = (ReactorId(0), ReactorId(1));
    let mut coordinator = Coordinator::new(2, epoch(4));
    coordinator.stopped(a);
    assert_eq!(coordinator.begin(Term(3)), None);
    coordinator.stopped(b);
    let now = Epoch { term: Term(3), attempt: 5 };
    assert_eq!(coordinator.begin(Term(3)), Some(Step::FenceControl { epoch: now }));
    assert_eq!(coordinator.control_fenced(epoch(4)), None);
    assert_eq!(coordinator.control_fenced(now), Some(Step::Fence { epoch: now }));
    let report = Report { base: Revision(7), logs: vec![vec![part(8, 1, 4)]] };
    assert_eq!(coordinator.fenced(a, epoch(4), report.clone()), None);
    assert_eq!(coordinator.fenced(a, now, report), None);
    assert_eq!(coordinator.sealed(a, now), None);
    assert_eq!(
        coordinator.fenced(b, now, Report::default()),
        Some(Step::Seal { epoch: now, prefix: Revision(8) })
    );
    assert_eq!(coordinator.sealed(b, now), None);
    assert_eq!(coordinator.sealed(a, now), Some(Step::Serve { epoch: now, prefix: Revision(8) }));
    assert!(coordinator.is_serving());
    assert_eq!(coordinator.end(), Step::Stop);
    assert_eq!(coordinator.begin(Term(3)), None);
}
