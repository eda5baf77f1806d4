//! Every interleaving of two or three threads, as far as loom's bound on preemptions goes.

use super::*;
use crate::types::ReactorId;
use loom::sync::Arc;
use loom::thread;

const ONE: Generation = Generation(1);

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn started(ring: usize) -> Arc<Sequencer> {
    let sequencer = Arc::new(Sequencer::new(ring));
    sequencer.start(ONE, Revision(1));
    sequencer
}

fn take(sequencer: &Sequencer, allotment: &mut Allotment, parts: u16) -> Revision {
    assert_eq!(sequencer.reserve(allotment, 1), Ok(true));
    sequencer.take(allotment, parts, ShardSet::of([ShardId(1)])).expect("the generation runs")
}

/// Takes and marks one revision each: whoever is last, `settled` reaches the counter.
#[test]
fn concurrent_writers_get_distinct_revisions_and_all_settle() {
    model(|| {
        let sequencer = started(4);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let sequencer = sequencer.clone();
                thread::spawn(move || {
                    let revision = take(&sequencer, &mut Allotment::new(ONE), 1);
                    sequencer.mark(ONE, revision);
                    revision
                })
            })
            .collect();
        let mut taken: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        taken.sort();
        assert_eq!(taken, [Revision(2), Revision(3)]);
        assert_eq!(sequencer.settled(), Revision(3), "nobody left the walk to the other");
    });
}

/// Revisions of several parts, marked by two threads in opposite order.
#[test]
fn crossing_marks_leave_nothing_unsettled() {
    model(|| {
        let sequencer = started(4);
        let mut allotment = Allotment::new(ONE);
        let (a, b) = (take(&sequencer, &mut allotment, 2), take(&sequencer, &mut allotment, 1));
        let other = {
            let sequencer = sequencer.clone();
            thread::spawn(move || {
                sequencer.mark(ONE, b);
                sequencer.mark(ONE, a)
            })
        };
        let moved = sequencer.mark(ONE, a);
        assert!(moved || sequencer.settled() <= b);
        let moved_there = other.join().expect("no panic");
        assert_eq!(sequencer.settled(), b);
        assert!(moved || moved_there, "who moved it must know, for it wakes the sleepers");
    });
}

/// A ring of one slot: two threads want it, one after the other gets it.
#[test]
fn the_ring_is_never_overrun() {
    model(|| {
        let sequencer = started(1);
        let attempt = |sequencer: &Sequencer| {
            let mut allotment = Allotment::new(ONE);
            if sequencer.reserve(&mut allotment, 1) != Ok(true) {
                return 0;
            }
            let revision = sequencer.take(&mut allotment, 1, ShardSet::default()).expect("runs");
            assert!(sequencer.settled().next() == revision, "one slot, so all before is settled");
            sequencer.mark(ONE, revision);
            1
        };
        let other = {
            let sequencer = sequencer.clone();
            thread::spawn(move || attempt(&sequencer))
        };
        let taken = attempt(&sequencer) + other.join().expect("no panic");
        assert!(taken >= 1);
        assert_eq!(sequencer.settled(), Revision(1 + taken));
    });
}

/// After the end nobody takes; what was taken before it is counted.
#[test]
fn a_take_and_an_end_are_one_before_the_other() {
    model(|| {
        let sequencer = started(4);
        let other = {
            let sequencer = sequencer.clone();
            thread::spawn(move || {
                let mut allotment = Allotment::new(ONE);
                match sequencer.reserve(&mut allotment, 1) {
                    Ok(_) => sequencer.take(&mut allotment, 1, ShardSet::default()),
                    Err(ended) => Err(ended),
                }
            })
        };
        sequencer.end(ONE);
        let counter = sequencer.counter();
        let taken = other.join().expect("no panic");
        assert_eq!(sequencer.counter(), counter, "the counter stands once the epoch has ended");
        assert_eq!(taken.is_ok(), counter == Revision(2));
    });
}

/// A mark under way when the epoch ends: who undoes what is not settled must have the last word.
#[test]
fn settled_stands_once_the_epoch_has_ended() {
    model(|| {
        let sequencer = started(4);
        let revision = take(&sequencer, &mut Allotment::new(ONE), 1);
        let other = {
            let sequencer = sequencer.clone();
            thread::spawn(move || sequencer.mark(ONE, revision))
        };
        sequencer.end(ONE);
        let settled = sequencer.settled();
        let moved = other.join().expect("no panic");
        assert_eq!(sequencer.settled(), settled);
        assert_eq!(moved, settled == revision);
    });
}

/// `untouched` races with a take that comes around the ring: it never passes a shard that was touched.
#[test]
fn a_slot_overwritten_while_read_counts_as_unknown() {
    model(|| {
        let sequencer = started(1);
        let mut allotment = Allotment::new(ONE);
        let first = take(&sequencer, &mut allotment, 1);
        sequencer.mark(ONE, first);
        let other = {
            let sequencer = sequencer.clone();
            thread::spawn(move || {
                sequencer.reserve(&mut allotment, 1).expect("runs");
                sequencer.take(&mut allotment, 1, ShardSet::of([ShardId(2)])).expect("runs");
            })
        };
        assert_eq!(sequencer.untouched(ShardId(1), Revision(1), Revision(9)), Revision(1));
        other.join().expect("no panic");
    });
}

#[test]
fn no_wake_up_for_a_settled_revision_is_lost() {
    model(|| {
        let sequencer = started(4);
        let sleepers = Arc::new(Sleepers::new(1));
        let mut allotment = Allotment::new(ONE);
        let revision = take(&sequencer, &mut allotment, 1);
        let mover = {
            let (sequencer, sleepers) = (sequencer.clone(), sleepers.clone());
            thread::spawn(move || {
                let mut kicked = false;
                if sequencer.mark(ONE, revision) {
                    sleepers.wake_for_settled(sequencer.settled(), |_| kicked = true);
                }
                kicked
            })
        };
        let parked = sleepers.sleep(ReactorId(0), Some(revision), &sequencer, || true);
        let kicked = mover.join().expect("no panic");
        assert!(kicked || !parked, "it parked and nobody kicked");
    });
}

/// Two revisions, two movers: whoever brings `settled` to the second kicks.
#[test]
fn no_wake_up_is_lost_between_two_movers() {
    model(|| {
        let sequencer = started(4);
        let sleepers = Arc::new(Sleepers::new(1));
        let mut allotment = Allotment::new(ONE);
        let revisions = [take(&sequencer, &mut allotment, 1), take(&sequencer, &mut allotment, 1)];
        let movers: Vec<_> = revisions
            .into_iter()
            .map(|revision| {
                let (sequencer, sleepers) = (sequencer.clone(), sleepers.clone());
                thread::spawn(move || {
                    let mut kicked = false;
                    if sequencer.mark(ONE, revision) {
                        sleepers.wake_for_settled(sequencer.settled(), |_| kicked = true);
                    }
                    kicked
                })
            })
            .collect();
        let parked = sleepers.sleep(ReactorId(0), Some(revisions[1]), &sequencer, || true);
        let kicks = movers.into_iter().map(|mover| mover.join().expect("no panic"));
        let kicks = kicks.filter(|kicked| *kicked).count();
        assert!(kicks == 1 || !parked, "it parked and got {kicks} kicks");
    });
}

#[test]
fn no_wake_up_for_mail_is_lost() {
    model(|| {
        let sequencer = started(4);
        let sleepers = Arc::new(Sleepers::new(1));
        let mail = Arc::new(AtomicU64::new(0));
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (sleepers, mail) = (sleepers.clone(), mail.clone());
                thread::spawn(move || {
                    mail.fetch_add(1, Ordering::Release);
                    sleepers.wake_for_mail(ReactorId(0))
                })
            })
            .collect();
        let parked = sleepers.sleep(ReactorId(0), None, &sequencer, || mail.load(Ordering::Acquire) == 0);
        let kicks = senders.into_iter().map(|sender| sender.join().expect("no panic"));
        let kicks = kicks.filter(|kicked| *kicked).count();
        assert!(kicks <= 1, "one kick is enough");
        assert!(kicks == 1 || !parked, "it parked and nobody kicked");
    });
}
