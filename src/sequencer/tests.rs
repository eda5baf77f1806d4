use super::*;
use crate::log::{LogId, Testimony};
use crate::stdx::Rng;
use crate::types::ReactorId;

const ONE: Generation = Generation(1);

fn started(ring: usize, prefix: u64) -> (Sequencer, Allotment) {
    let sequencer = Sequencer::new(ring);
    sequencer.start(ONE, Revision(prefix));
    (sequencer, Allotment::new(ONE))
}

fn take(sequencer: &Sequencer, allotment: &mut Allotment, parts: u16, shards: &[u32]) -> Revision {
    assert_eq!(sequencer.reserve(allotment, 1), Ok(true));
    let set = ShardSet::of(shards.iter().map(|shard| ShardId(*shard)));
    sequencer.take(allotment, parts, set).expect("the generation runs")
}

#[test]
fn settled_stands_before_the_first_unmarked_revision() {
    let (sequencer, mut allotment) = started(8, 5);
    let [a, b, c] = [1, 2, 1].map(|parts| take(&sequencer, &mut allotment, parts, &[1]));
    assert_eq!((a, b, c), (Revision(6), Revision(7), Revision(8)));
    assert!(!sequencer.mark(ONE, c));
    assert!(sequencer.mark(ONE, a));
    assert_eq!(sequencer.settled(), a);
    assert!(!sequencer.mark(ONE, b), "one of two parts");
    assert!(sequencer.mark(ONE, b));
    assert_eq!(sequencer.settled(), c);
}

#[test]
fn an_ended_generation_takes_and_marks_nothing() {
    let (sequencer, mut allotment) = started(8, 5);
    let a = take(&sequencer, &mut allotment, 1, &[1]);
    assert_eq!(sequencer.reserve(&mut allotment, 1), Ok(true));
    sequencer.end(ONE);
    assert_eq!(sequencer.take(&mut allotment, 1, ShardSet::default()), Err(GenerationEnded));
    assert_eq!(sequencer.reserve(&mut allotment, 1), Err(GenerationEnded));
    assert!(!sequencer.mark(ONE, a));
    assert_eq!(sequencer.settled(), Revision(5));
    sequencer.start(Generation(2), Revision(5));
    sequencer.end(ONE);
    assert!(!sequencer.mark(ONE, a), "a late mark of the generation before");
    let mut next = Allotment::new(Generation(2));
    assert_eq!(take(&sequencer, &mut next, 1, &[1]), Revision(6), "an old end does not end the new one");
}

#[test]
fn marks_of_a_void_revision_do_not_outlive_its_generation() {
    let (sequencer, mut allotment) = started(8, 5);
    take(&sequencer, &mut allotment, 1, &[1]);
    let void = take(&sequencer, &mut allotment, 1, &[1]);
    sequencer.mark(ONE, void);
    sequencer.end(ONE);
    sequencer.start(Generation(2), Revision(5));
    let mut allotment = Allotment::new(Generation(2));
    let a = take(&sequencer, &mut allotment, 1, &[1]);
    assert!(sequencer.mark(Generation(2), a));
    assert_eq!(sequencer.settled(), a, "the mark of revision 7 was the old epoch's");
}

#[test]
fn room_given_out_never_exceeds_the_ring() {
    let (sequencer, mut a) = started(4, 0);
    let mut b = Allotment::new(ONE);
    assert_eq!(sequencer.reserve(&mut a, 3), Ok(true));
    assert_eq!(sequencer.reserve(&mut b, 2), Ok(false));
    assert_eq!(sequencer.reserve(&mut b, 1), Ok(true));
    let first = sequencer.take(&mut a, 1, ShardSet::default()).expect("runs");
    assert_eq!(sequencer.reserve(&mut a, 3), Ok(false), "taken is not settled");
    sequencer.mark(ONE, first);
    assert_eq!(sequencer.reserve(&mut a, 3), Ok(true));
    assert_eq!(sequencer.reserve(&mut b, 2), Ok(false));
}

#[test]
fn idle_shards_are_passed_as_far_as_the_ring_knows() {
    let (sequencer, mut allotment) = started(4, 10);
    for shards in [&[1][..], &[1, 2], &[3], &[1]] {
        let revision = take(&sequencer, &mut allotment, shards.len() as u16, shards);
        sequencer.mark_all(ONE, shards.iter().map(|_| revision));
    }
    let untouched = |shard, after| sequencer.untouched(ShardId(shard), Revision(after), Revision(99)).0;
    assert_eq!((untouched(2, 10), untouched(2, 12), untouched(4, 10)), (11, 14, 14));
    assert_eq!(untouched(1, 10), 10);
    assert_eq!(untouched(4, 9), 9, "before the generation's base nothing is known");
    assert_eq!(sequencer.untouched(ShardId(4), Revision(10), Revision(12)).0, 12);
    let unsettled = take(&sequencer, &mut allotment, 1, &[1]);
    assert_eq!((unsettled.0, untouched(4, 11), untouched(4, 10)), (15, 14, 10), "11 was overwritten");
    assert_eq!(untouched(68, 11), 14, "68 and 4 share a bit");
}

/// Random takes, marks and endings against a plain list: `settled` is the longest complete run.
#[test]
fn settled_equals_the_longest_complete_run() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let sequencer = Sequencer::new(16);
        let (mut generation, mut prefix) = (Generation(0), 0);
        for _ in 0..20 {
            generation.0 += 1;
            sequencer.start(generation, Revision(prefix));
            let mut allotment = Allotment::new(generation);
            let mut parts: Vec<u64> = Vec::new();
            let mut unmarked: Vec<u64> = Vec::new();
            for _ in 0..rng.below(200) {
                let run = parts.iter().take_while(|left| **left == 0).count() as u64;
                assert_eq!(sequencer.settled().0, prefix + run);
                if rng.chance(1, 2) {
                    let fits = parts.len() as u64 - run < 16;
                    assert_eq!(sequencer.reserve(&mut allotment, 1), Ok(fits));
                    if fits {
                        let count = 1 + rng.below(3);
                        let taken = sequencer
                            .take(&mut allotment, count as u16, ShardSet::default())
                            .expect("runs")
                            .0;
                        parts.push(count);
                        assert_eq!(taken, prefix + parts.len() as u64);
                        unmarked.extend((0..count).map(|_| taken));
                    }
                } else if !unmarked.is_empty() {
                    let revision = unmarked.swap_remove(rng.below(unmarked.len() as u64) as usize);
                    parts[(revision - prefix - 1) as usize] -= 1;
                    sequencer.mark(generation, Revision(revision));
                }
            }
            sequencer.end(generation);
            prefix = sequencer.settled().0 + rng.below(3);
        }
    }
}

#[test]
fn only_a_sleeper_with_something_to_do_is_woken() {
    let (sequencer, mut allotment) = started(8, 5);
    let sleepers = Sleepers::new(3);
    let woken = |settled| {
        let mut woken = Vec::new();
        sleepers.wake_for_settled(Revision(settled), |reactor| woken.push(reactor.0));
        woken
    };
    assert!(sleepers.sleep(ReactorId(0), Some(Revision(7)), &sequencer, || true));
    assert!(sleepers.sleep(ReactorId(1), None, &sequencer, || true));
    assert!(!sleepers.sleep(ReactorId(2), None, &sequencer, || false), "mail is there");
    assert!(!sleepers.sleep(ReactorId(2), Some(Revision(5)), &sequencer, || true), "5 is settled");
    assert_eq!(woken(6), Vec::<u16>::new());
    assert_eq!(woken(7), [0]);
    assert_eq!(woken(8), Vec::<u16>::new(), "one kick is enough");
    assert!(!sleepers.wake_for_mail(ReactorId(2)), "it is awake");
    assert!(sleepers.wake_for_mail(ReactorId(1)));
    assert!(!sleepers.wake_for_mail(ReactorId(1)));
    let next = take(&sequencer, &mut allotment, 1, &[1]);
    assert!(sleepers.sleep(ReactorId(2), Some(next), &sequencer, || true));
    sequencer.mark(ONE, next);
    assert_eq!(woken(sequencer.settled().0), [2]);
}

#[test]
fn generations_wrap_and_never_are_nobodys() {
    let sequencer = Sequencer::new(8);
    let (mut generation, mut settled) = (Generation::NONE, Revision(5));
    for _ in 0..70_000 {
        generation = generation.next();
        assert_ne!(generation, Generation::NONE);
        sequencer.start(generation, settled);
        let mut allotment = Allotment::new(generation);
        settled = take(&sequencer, &mut allotment, 1, &[1]);
        assert!(sequencer.mark(generation, settled));
        sequencer.end(generation);
        assert_eq!(sequencer.reserve(&mut allotment, 1), Err(GenerationEnded));
    }
    assert_eq!(settled, Revision(70_005));
}

#[test]
#[should_panic = "a log takes nothing back"]
fn a_log_acknowledges_no_less_than_before() {
    let (sequencer, _) = started(4, 0);
    for frame in [7, 6] {
        sequencer.testify(Testimony { log: LogId(1), key: 5, frame });
    }
}
