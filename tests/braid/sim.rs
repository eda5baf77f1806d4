//! A fixed number of the simulator's seeds: each a member of its own shape, with its own faults and clients.

use braid::sim::plan::Plan;
use braid::sim::{Summary, run};
use std::fs;
use std::path::Path;

/// Seeds of every run. Failures print the command that repeats them.
const SEEDS: std::ops::Range<u64> = 0..200;
/// Seeds that were red once: the bug, in a sentence, and the events that make it where not all do.
const REGRESSIONS: &[(u64, &str, &[usize])] = &[
    (5653, "a watch whose progress was due while its client read nothing kept its reactor turning", STALLED),
    (
        6126,
        "a compaction between a transaction's gathering and its parts took history that its ranges named",
        &[],
    ),
    (
        9920,
        "news of a full disk came by slow mail after the alarm was disarmed: the checks took it for a bug",
        &[],
    ),
    (
        34375,
        "a watch from the compacted revision lacks what that revision replaced: the checks did not know",
        &[],
    ),
    (
        2010,
        "a renewal showed a lease of which other reactors had not heard, and which a put did not find",
        &[],
    ),
    (2630, "the same, after a restart with another number of reactors", &[]),
    (
        4392,
        "a delete of unknown outcome was explained by a revoke of unknown outcome: a lease ended that lived",
        &[],
    ),
];
const STALLED: &[usize] = &[
    3, 4, 7, 18, 20, 32, 43, 46, 54, 55, 61, 62, 67, 70, 73, 81, 83, 84, 87, 93, 95, 97, 98, 108, 109, 111,
    112, 117, 120, 121, 125, 141, 186,
];

fn check(seed: u64, of: &str, only: &[usize]) -> Summary {
    println!("seed {seed}{of}; repeat it with: cargo sim -- repeat {seed} --trace");
    let mut plan = Plan::draw(seed);
    if !only.is_empty() {
        println!("... --only {only:?}");
        plan.keep(only);
    }
    match run(&plan, false).outcome {
        Ok(summary) => summary,
        Err(failure) => panic!("seed {seed} fails: {}: {}", failure.check, failure.what),
    }
}

#[test]
fn what_clients_see_could_have_been() {
    let mut sum = Summary::default();
    for seed in SEEDS {
        let summary = check(seed, "", &[]);
        sum.calls += summary.calls;
        sum.answered += summary.answered;
        sum.starts += summary.starts;
        sum.revisions += summary.revisions;
        sum.tally += summary.tally;
    }
    // Most calls are answered, and there is something to recover: a world that does nothing proves nothing.
    let seeds = SEEDS.end - SEEDS.start;
    assert!(sum.answered * 10 > sum.calls * 8, "{sum:?}");
    assert!(sum.starts > 2 * seeds && sum.revisions.unsigned_abs() > 50 * seeds, "{sum:?}");
    assert_eq!(sum.tally.missing(), [""; 0], "what no seed reaches: {sum:?}");
}

#[test]
fn what_was_red_once_stays_green() {
    for (seed, bug, only) in REGRESSIONS {
        check(*seed, &format!(" ({bug})"), only);
    }
}

/// The bugs of tests/mutants, which `tools/mutants` plants to see the simulator's checks bite, have their
/// places in the sources: the old lines of each patch stand in the file it names, once.
#[test]
fn every_mutant_still_has_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut mutants = 0;
    for entry in fs::read_dir(root.join("tests/mutants")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (first, diff) = text.split_once('\n').unwrap();
        assert!(first.contains(" Red: seed ") && first.ends_with("\"."), "{}: {first}", path.display());
        let (head, hunks) = diff.split_once("\n@@ ").expect("a patch has a hunk");
        let file = head.lines().find_map(|line| line.strip_prefix("--- a/")).expect("a patch names its file");
        let source = fs::read_to_string(root.join(file)).unwrap();
        for hunk in hunks.split("\n@@ ") {
            let lines = hunk.lines().skip(1);
            let old: String = lines
                .filter(|line| line.starts_with([' ', '-']))
                .map(|line| format!("{}\n", &line[1..]))
                .collect();
            let places = source.matches(&old).count();
            assert_eq!(places, 1, "{}: its lines in {file}:\n{old}", path.display());
        }
        mutants += 1;
    }
    assert!(mutants >= 6, "{mutants} mutants");
}
