//! A fixed number of the simulator's seeds: each a member of its own shape, with its own faults and clients.

use braid::sim::hits::Hit;
use braid::sim::plan::Plan;
use braid::sim::{Summary, run};

/// Seeds of every run. Failures print the command that repeats them.
const SEEDS: std::ops::Range<u64> = 0..200;
/// Seeds that were red once: the bug, in a sentence.
const REGRESSIONS: &[(u64, &str)] = &[
    (5653, "a watch whose progress was due while its client read nothing kept its reactor turning"),
    (6126, "a compaction between a transaction's gathering and its parts took history that its ranges named"),
];

fn check(seed: u64, of: &str) -> Summary {
    println!("seed {seed}{of}; repeat it with: cargo sim -- repeat {seed} --trace");
    match run(&Plan::draw(seed), false).outcome {
        Ok(summary) => summary,
        Err(failure) => panic!("seed {seed} fails: {}: {}", failure.check, failure.what),
    }
}

#[test]
fn what_clients_see_could_have_been() {
    let mut sum = Summary::default();
    for seed in SEEDS {
        let summary = check(seed, "");
        sum.calls += summary.calls;
        sum.answered += summary.answered;
        sum.starts += summary.starts;
        sum.revisions += summary.revisions;
        sum.hits += summary.hits;
    }
    // Most calls are answered, and there is something to recover: a world that does nothing proves nothing.
    let seeds = SEEDS.end - SEEDS.start;
    assert!(sum.answered * 10 > sum.calls * 8, "{sum:?}");
    assert!(sum.starts > 2 * seeds && sum.revisions.unsigned_abs() > 50 * seeds, "{sum:?}");
    for hit in Hit::ALL {
        assert!(sum.hits.of(hit) > 0, "no seed has {hit:?}: {sum:?}");
    }
}

#[test]
fn what_was_red_once_stays_green() {
    for (seed, bug) in REGRESSIONS {
        check(*seed, &format!(" ({bug})"));
    }
}
