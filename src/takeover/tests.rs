use super::*;
use crate::log::LogId;
use crate::raft::{FRESH_BASE, Position};
use crate::record::{Batch, Change, ConfChange, ControlEntry, Entry, Payload, Write};
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

/// The log takes one more entry.
fn stand(log_view: &mut LogView, payload: &Payload) -> Position {
    let at = Position { index: log_view.last().index.next(), term: Term(2) };
    log_view.stand(at, Decoded::of(at.index, Some(payload)));
    at
}

/// Everything that stands up to an index is committed.
fn commit(log_view: &mut LogView, upto: Index) -> Result<(), InconsistentEntry> {
    while log_view.read_next(upto)?.is_some() {}
    Ok(())
}

/// One more entry is committed at once.
fn read(log_view: &mut LogView, payload: &Payload) -> Result<(), InconsistentEntry> {
    let at = stand(log_view, payload);
    commit(log_view, at.index)
}

fn revisions(log_view: &LogView) -> Vec<u64> {
    log_view.live().map(|write| write.revision.0).collect()
}

/// Reads a log from its first entry on and gives the live revisions.
fn live(entries: &[Payload]) -> Vec<u64> {
    let mut log_view = LogView::default();
    entries.iter().for_each(|payload| read(&mut log_view, payload).unwrap());
    revisions(&log_view)
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

/// Where others have settled more, and are lost for ever.
#[test]
fn a_seal_ends_what_was_named_and_decided_beyond_its_prefix() {
    let control = |settled| {
        let control = ControlEntry::LeaseEnd { lease: 1 };
        Payload::of(&Entry::Control { epoch: epoch(1).into(), settled, control })
    };
    let mut log_view = LogView::default();
    for entry in [seal(1, 1), batch(1, 1, &[(2, 1)]), control(2), batch(1, 6, &[(7, 1)]), control(7)] {
        read(&mut log_view, &entry).unwrap();
    }
    assert_eq!(log_view.known_settled(), Revision(7));
    read(&mut log_view, &seal(2, 2)).unwrap();
    assert_eq!((log_view.known_settled(), revisions(&log_view)), (Revision(2), vec![2]));
    assert_eq!(log_view.controls().collect::<Vec<_>>(), [Index(4)]);
    log_view.forget_named();
    assert_eq!(log_view.known_settled(), Revision::NONE);
}

/// A log whose state at revision 5 stands behind entry 8, in epoch 3.
fn behind(prefix: u64) -> LogView {
    let base = Position { index: Index(8), term: Term(2) };
    let seal = Seal { epoch: epoch(3), prefix: Revision(prefix) };
    LogView::new(Revision(5), Ruling { fence: epoch(3), seal }, base)
}

#[test]
fn epochs_and_revisions_that_fall_are_strange() {
    for senseless in [
        fence(3),
        seal(2, 5),
        batch(3, 5, &[(8, 1), (7, 1)]),
        batch(3, 5, &[(8, 0)]),
        Payload::copy_of(b"rubbish"),
        Payload::of(&Entry::ConfChange(ConfChange::AddVoter(5))),
    ] {
        let inconsistent = read(&mut behind(5), &senseless).unwrap_err();
        assert_eq!(inconsistent.index, Index(9));
    }
}

#[test]
fn writes_already_in_the_state_are_passed_over() {
    let mut log_view = behind(1);
    read(&mut log_view, &batch(3, 4, &[(4, 1), (6, 1), (9, 2)])).unwrap();
    assert_eq!(log_view.parts().len(), 2);
    assert_eq!(log_view.needed_after(), Index(8));
    log_view.settle(Revision(9));
    assert_eq!(log_view.needed_after(), Index(9));
    assert_eq!(log_view.known_settled(), Revision(9));
}

/// What is told of before it takes effect is what takes effect then, whatever comes behind it meanwhile.
#[test]
fn what_is_due_is_what_takes_effect_next() {
    let control = |settled| {
        let control = ControlEntry::LeaseEnd { lease: 1 };
        Payload::of(&Entry::Control { epoch: epoch(3).into(), settled, control })
    };
    let log = [control(5), batch(3, 5, &[(6, 1), (8, 1)]), control(7), batch(3, 7, &[(9, 1)]), control(9)];
    let index = |due: &NextEffect| due.index().0;
    for settled in 5..11 {
        let mut log_view = behind(5);
        log.iter().for_each(|entry| read(&mut log_view, entry).unwrap());
        let settled = Revision(settled);
        let due: Vec<u64> = log_view.due(settled).iter().map(index).collect();
        let all = [9, 10, 10, 11, 12, 13];
        assert_eq!(due, all[..[1, 2, 2, 4, 6, 6][settled.0 as usize - 5]], "{settled}");
        let last = Index(due.last().copied().unwrap());
        read(&mut log_view, &control(5)).unwrap();
        let next = || log_view.next_due(settled, last);
        let took: Vec<u64> = std::iter::from_fn(next).map(|due| index(&due)).collect();
        assert_eq!(took, due, "{settled}");
    }
}

/// A log is read at commit: what only stands in it says nothing, and may be replaced.
#[test]
fn what_is_truncated_leaves_no_trace() {
    let mut log_view = behind(5);
    read(&mut log_view, &batch(3, 5, &[(6, 1)])).unwrap();
    let kept = stand(&mut log_view, &batch(3, 5, &[(7, 1)]));
    let control = ControlEntry::Compact { revision: 3 };
    let entries = [
        fence(4),
        seal(4, 6),
        batch(4, 6, &[(7, 1), (8, 1)]),
        Payload::of(&Entry::Control { epoch: epoch(4).into(), settled: 6, control }),
        Payload::copy_of(b"rubbish"),
    ];
    for first_gone in 0..entries.len() {
        let from = log_view.last().index.next();
        entries.iter().for_each(|entry| _ = stand(&mut log_view, entry));
        assert_eq!(log_view.newest_epoch(), epoch(4), "an epoch that stands there is not named again");
        log_view.truncate(Index(from.0 + first_gone as u64));
        log_view.truncate(from);
        assert_eq!(log_view.newest_epoch(), epoch(3));
        assert_eq!(log_view.last(), kept);
    }
    commit(&mut log_view, kept.index).unwrap();
    assert_eq!(revisions(&log_view), [6, 7]);
    assert_eq!((log_view.fence(), log_view.seal().epoch), (epoch(3), epoch(3)));
    assert_eq!((log_view.known_settled(), log_view.controls().count()), (Revision(5), 0));
    // So the next fence and seal of that epoch are the first ones.
    entries[..2].iter().for_each(|entry| read(&mut log_view, entry).unwrap());
    assert_eq!(revisions(&log_view), [6]);
    assert_eq!(log_view.seal().epoch, epoch(4));
}

/// An entry takes the place of what stood there, and of all behind it.
#[test]
fn an_entry_replaces_what_stood_from_its_index_on() {
    let mut log_view = behind(5);
    let at = stand(&mut log_view, &batch(3, 5, &[(6, 1), (7, 1)]));
    stand(&mut log_view, &batch(3, 5, &[(8, 1)]));
    let newer = Position { term: Term(3), ..at };
    log_view.stand(newer, Decoded::of(at.index, Some(&batch(3, 5, &[(9, 1)]))));
    assert_eq!(log_view.last(), newer);
    commit(&mut log_view, at.index).unwrap();
    assert_eq!(revisions(&log_view), [9]);
}

#[test]
#[should_panic = "what is committed is not truncated"]
fn what_is_committed_stays() {
    let mut log_view = LogView::default();
    read(&mut log_view, &fence(1)).unwrap();
    log_view.truncate(FRESH_BASE.index.next());
}

/// A log with a write that is not settled yet and a seal behind it. A checkpoint stands before the write, so it
/// names the seal before that: with the newest one, what follows would be void, and the seal strange.
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
    let mut log_view = LogView::default();
    log.iter().for_each(|payload| read(&mut log_view, payload).unwrap());
    assert_eq!(revisions(&log_view), [2, 3, 4, 5]);
    let needed_after = log_view.needed_after();
    let read_on = |from: Index, held: u64, ruling: Ruling| {
        let mut again = LogView::new(Revision(held), ruling, Position { index: from, term: Term(2) });
        let rest = log.iter().skip((from.0 - FRESH_BASE.index.0) as usize);
        rest.map(|payload| read(&mut again, payload)).find(Result::is_err).unwrap_or(Ok(()))?;
        Ok::<_, InconsistentEntry>(revisions(&again))
    };
    let ruling = log_view.ruling_at(needed_after);
    assert_eq!(ruling, Ruling { fence: epoch(1), seal: Seal { epoch: epoch(1), prefix: Revision(1) } });
    assert_eq!(read_on(needed_after, 1, ruling), Ok(revisions(&log_view)));
    let newest = Ruling { fence: log_view.fence(), seal: log_view.seal() };
    assert_ne!(newest, ruling);
    assert!(read_on(needed_after, 1, newest).is_err());

    log_view.settle(Revision(3));
    let later = log_view.needed_after();
    log_view.pass(later);
    assert_eq!(log_view.ruling_at(later), newest);
    assert_eq!(read_on(later, 3, newest), Ok(revisions(&log_view)));
}

#[test]
#[should_panic = "a checkpoint may stand before what is not settled"]
fn what_is_not_settled_is_not_passed() {
    let mut log_view = behind(5);
    read(&mut log_view, &batch(3, 5, &[(6, 1)])).unwrap();
    log_view.pass(log_view.last().index);
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
    assert_eq!(coordinator.sealed(a, epoch(4)), None);
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
    let shards = holdings(&[(1, vec![part(2, 1, 1)]), (1, vec![])]);
    let report = |base, shard: usize| Report { base: Revision(base), shards: vec![shards[shard].clone()] };
    assert_eq!(coordinator.fenced(a, now, report(1, 0)), Ok(None));
    let hole = coordinator.fenced(b, now, report(3, 1)).unwrap_err();
    assert!(
        hole.to_string().contains("revision 3 was settled here, and of revision 3 no part is in any log")
    );
    assert!(!coordinator.is_serving());
}

/// One that all of its two reactors have stopped for, and whose control shard is fenced.
fn fencing() -> (Coordinator, Epoch) {
    let mut coordinator = Coordinator::new(2, Epoch::default());
    coordinator.stopped(ReactorId(0));
    coordinator.stopped(ReactorId(1));
    let now = Epoch { term: Term(2), attempt: 1 };
    assert_eq!(coordinator.begin(now.term), Some(Step::FenceControl { epoch: now }));
    assert_eq!(coordinator.control_fenced(now), Some(Step::Fence { epoch: now }));
    (coordinator, now)
}

#[test]
#[should_panic = "answers twice"]
fn a_reactor_answers_a_step_once() {
    let (mut coordinator, now) = fencing();
    coordinator.fenced(ReactorId(1), now, Report::default()).unwrap();
    let _ = coordinator.fenced(ReactorId(1), now, Report::default());
}

#[test]
#[should_panic = "has sealed before it was asked"]
fn no_step_is_answered_before_the_one_before_it() {
    let (mut coordinator, now) = fencing();
    coordinator.sealed(ReactorId(0), now);
}

#[test]
#[should_panic = "a shard lives on one reactor"]
fn no_shard_is_reported_by_two_reactors() {
    let (mut coordinator, now) = fencing();
    let report = Report { base: Revision(1), shards: holdings(&[(1, vec![])]) };
    coordinator.fenced(ReactorId(0), now, report.clone()).unwrap();
    let _ = coordinator.fenced(ReactorId(1), now, report);
}
