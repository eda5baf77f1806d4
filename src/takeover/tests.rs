use super::*;
use crate::log::LogId;
use crate::record::{Batch, Change, Entry, Payload, Write};
use crate::types::{Epoch, Index, ReactorId, Revision, ShardId, Term};

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

/// A log with a write that is not in the state yet and a seal behind it. A checkpoint stands before the write, so
/// it names the seal before that: with the newest one, what follows would be void, and the seal strange.
#[test]
fn fence_and_seal_are_those_of_the_index_that_a_checkpoint_names() {
    let log = [
        fence(1),
        seal(1, 1),
        batch(1, 1, &[(2, 1), (3, 1)]),
        fence(2),
        seal(2, 2),
        batch(2, 2, &[(3, 1), (4, 1)]),
        batch(2, 4, &[(5, 1)]),
    ];
    let mut meaning = Meaning::default();
    let read = |meaning: &mut Meaning, from: usize| {
        let rest = log.iter().enumerate().skip(from);
        rest.map(|(at, payload)| meaning.read(Index(at as u64 + 1), payload)).find(Result::is_err)
    };
    assert_eq!(read(&mut meaning, 0), None);
    let live = |meaning: &Meaning| meaning.live().map(|write| write.revision.0).collect::<Vec<_>>();
    assert_eq!(live(&meaning), [2, 3, 4, 5]);
    let needed_after = meaning.needed_after(Index(7));
    assert_eq!(needed_after, Index(2));
    let Ruling { fence, seal } = meaning.ruling_at(needed_after);
    assert_eq!((fence, seal), (epoch(1), Seal { epoch: epoch(1), prefix: Revision(1) }));
    assert_ne!(seal, meaning.seal());
    let mut again = Meaning::new(Revision(1), seal, fence);
    assert_eq!(read(&mut again, 2), None);
    assert_eq!(live(&again), live(&meaning));
    let mut wrong = Meaning::new(Revision(1), meaning.seal(), meaning.fence());
    assert!(read(&mut wrong, 2).is_some());

    meaning.settle(Revision(3));
    meaning.pass(meaning.needed_after(Index(7)));
    assert_eq!(meaning.ruling_at(Index(5)).seal, meaning.seal());
    let mut later = Meaning::new(Revision(3), meaning.seal(), meaning.fence());
    assert_eq!(read(&mut later, 5), None);
    assert_eq!(live(&later), live(&meaning));
}

#[test]
fn a_change_of_peers_is_none_of_the_writes() {
    let change = Payload::of(&Entry::ConfChange(crate::record::ConfChange::AddVoter(5)));
    assert!(Meaning::default().read(Index(1), &change).is_err());
}

fn part(revision: u64, parts: u16, attempt: u32) -> Part {
    Part { revision: Revision(revision), parts, epoch: epoch(attempt) }
}

/// Shards at these states, with these parts in their logs.
fn holdings(shards: &[(u64, Vec<Part>)]) -> Vec<Holding> {
    let holding = |(id, (held, parts)): (u32, &(u64, Vec<Part>))| Holding {
        shard: ShardId(id),
        log: LogId(id),
        held: Revision(*held),
        parts: parts.clone(),
    };
    (0..).zip(shards).map(holding).collect()
}

fn run(base: u64, logs: &[Vec<Part>]) -> u64 {
    let shards: Vec<_> = logs.iter().map(|parts| (1, parts.clone())).collect();
    longest_run(Revision(base), &holdings(&shards)).unwrap().0
}

/// The revision that is missing, how much of it is there, and whose log is to blame.
fn hole(base: u64, shards: &[(u64, Vec<Part>)]) -> Option<(u64, Why, Vec<u32>)> {
    let hole = longest_run(Revision(base), &holdings(shards)).err()?;
    Some((hole.revision.0, hole.why, hole.suspects.iter().map(|(shard, _)| shard.0).collect()))
}

#[test]
fn a_run_ends_before_the_first_hole_or_missing_part() {
    assert_eq!(run(1, &[]), 1);
    assert_eq!(run(1, &[vec![part(2, 1, 1), part(4, 1, 1)], vec![part(3, 1, 1)]]), 4);
    assert_eq!(run(1, &[vec![part(2, 1, 1), part(4, 1, 1)], vec![]]), 2);
    assert_eq!(run(1, &[vec![part(2, 2, 1)], vec![part(2, 2, 1), part(3, 1, 1)]]), 3);
    assert_eq!(run(1, &[vec![part(2, 2, 1)], vec![part(3, 1, 1)]]), 1);
    assert_eq!(run(2, &[vec![part(2, 1, 1), part(4, 1, 1)]]), 2);
}

#[test]
fn epochs_never_fall_along_a_run_and_never_mix_in_a_revision() {
    assert_eq!(run(1, &[vec![part(2, 1, 2)], vec![part(3, 1, 1)]]), 2);
    assert_eq!(run(1, &[vec![part(2, 2, 2)], vec![part(2, 2, 1)]]), 1);
    assert_eq!(run(1, &[vec![part(2, 1, 1)], vec![part(3, 1, 2)]]), 3);
}

#[test]
fn a_settled_revision_that_is_not_whole_is_a_hole() {
    let missing = |found, of| Why::Missing { found, of };
    let (a, b) = (vec![part(2, 1, 1), part(4, 1, 1)], vec![part(3, 1, 1)]);
    assert_eq!(hole(4, &[(1, a.clone()), (1, b)]), None);
    assert_eq!(hole(4, &[(1, a.clone()), (1, vec![])]), Some((3, missing(0, 0), vec![1])));
    assert_eq!(hole(2, &[(1, a.clone()), (1, vec![])]), None, "it was never settled");
    assert_eq!(hole(5, &[(4, vec![]), (1, vec![])]), Some((5, missing(0, 0), vec![0, 1])));
    // Half of a transaction.
    let half = vec![part(2, 2, 1), part(3, 1, 1)];
    assert_eq!(hole(3, &[(1, half.clone()), (1, vec![])]), Some((2, missing(1, 2), vec![1])));
    assert_eq!(hole(2, &[(1, half), (1, vec![part(2, 2, 1)])]), None);
    // Above what any state holds parts are counted, whatever else is far.
    assert_eq!(hole(1 << 60, &[(1, a)]), Some((3, missing(0, 0), vec![])));
}

/// A part up to the state of one shard may be in no log, but not more parts than there are such states.
#[test]
fn between_two_states_what_can_be_counted_is_counted() {
    let three = [part(3, 3, 1), part(5, 1, 1)];
    assert_eq!(hole(5, &[(4, vec![part(5, 1, 1)]), (4, vec![]), (1, three[..1].to_vec())]), None);
    let found = hole(5, &[(4, vec![part(5, 1, 1)]), (1, vec![]), (1, three[..1].to_vec())]);
    assert_eq!(found, Some((3, Why::Missing { found: 1, of: 3 }, vec![1])));
}

#[test]
fn settled_parts_that_do_not_belong_together_are_a_hole() {
    let found = |shards: &[(u64, Vec<Part>)]| hole(3, shards).map(|(revision, why, _)| (revision, why));
    let unlike = |revision| Some((revision, Why::Unlike));
    assert_eq!(found(&[(1, vec![part(2, 2, 2)]), (1, vec![part(2, 2, 1), part(3, 1, 1)])]), unlike(2));
    assert_eq!(found(&[(1, vec![part(2, 2, 1)]), (1, vec![part(2, 1, 1), part(3, 1, 1)])]), unlike(2));
    assert_eq!(found(&[(1, vec![part(2, 1, 1)]), (1, vec![part(2, 1, 1), part(3, 1, 1)])]), unlike(2));
    assert_eq!(found(&[(1, vec![part(2, 1, 2)]), (1, vec![part(3, 1, 1)])]), unlike(3));
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
    let report = Report { base: Revision(7), shards: holdings(&[(7, vec![part(8, 1, 4)])]) };
    assert_eq!(coordinator.fenced(a, epoch(4), report.clone()), Ok(None));
    assert_eq!(coordinator.fenced(a, now, report), Ok(None));
    assert_eq!(coordinator.sealed(a, now), None);
    assert_eq!(
        coordinator.fenced(b, now, Report::default()),
        Ok(Some(Step::Seal { epoch: now, prefix: Revision(8) }))
    );
    assert_eq!(coordinator.sealed(b, now), None);
    assert_eq!(coordinator.sealed(a, now), Some(Step::Serve { epoch: now, prefix: Revision(8) }));
    assert!(coordinator.is_serving());
    assert_eq!(coordinator.end(), Step::Stop);
    assert_eq!(coordinator.begin(Term(3)), None);
}

#[test]
fn nothing_is_sealed_over_a_hole() {
    let (a, b) = (ReactorId(0), ReactorId(1));
    let mut coordinator = Coordinator::new(2, Epoch::default());
    coordinator.stopped(a);
    coordinator.stopped(b);
    let Some(Step::FenceControl { epoch: now }) = coordinator.begin(Term(2)) else { panic!("it begins") };
    coordinator.control_fenced(now).unwrap();
    let report = |base, parts| Report { base: Revision(base), shards: holdings(&[(1, parts)]) };
    assert_eq!(coordinator.fenced(a, now, report(1, vec![part(2, 1, 1)])), Ok(None));
    let hole = coordinator.fenced(b, now, report(3, vec![])).unwrap_err();
    assert!(
        hole.to_string().contains("revision 3 was settled here, and of revision 3 no part is in any log")
    );
    assert!(!coordinator.is_serving());
    assert_eq!(coordinator.sealed(a, now), None);
}
