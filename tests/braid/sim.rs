//! A fixed number of the simulator's seeds: each a member of its own shape, with its own faults and clients.

use braid::sim::plan::Plan;
use braid::sim::{Summary, run};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Seeds of every run; CI runs more, which reach the rarest ways too. Failures print the command that repeats
/// them.
const SEEDS: std::ops::Range<u64> = 0..200;
fn check(seed: u64) -> Summary {
    println!("seed {seed}; repeat it with: cargo sim -- repeat {seed} --trace");
    match run(&Plan::draw(seed), false).outcome {
        Ok(summary) => summary,
        Err(failure) => panic!("seed {seed} fails: {}: {}", failure.check, failure.what),
    }
}

#[test]
fn what_clients_see_could_have_been() {
    let mut sum = Summary::default();
    for seed in SEEDS {
        let summary = check(seed);
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
    let missing = sum.tally.missing_faults();
    assert!(missing.is_empty(), "no seed has {missing:?}: {sum:?}");
}

/// `seed 3, by "watch".`, `seed 3 of 5 members, by "watch".`, `seed 3 of 1 members that come and go, by "watch".` or
/// `test a_name.`, as `tools/mutants` reads them.
fn is_red(red: &str) -> bool {
    let Some(seed) = red.strip_prefix("seed ") else { return red.starts_with("test ") && red.ends_with('.') };
    let Some((seed, by)) = seed.split_once(", by \"") else { return false };
    let (seed, members) = seed.split_once(" of ").unwrap_or((seed, "3 members"));
    let (members, least) = match members.strip_suffix(" that come and go") {
        Some(members) => (members, 1),
        None => (members, 2),
    };
    let members = members.strip_suffix(" members").and_then(|members| members.parse::<usize>().ok());
    seed.parse::<u64>().is_ok() && members.is_some_and(|members| members >= least) && by.ends_with("\".")
}

/// The bugs of tests/mutants, which `tools/mutants` plants to see the simulator's checks bite, have their
/// places in the sources: the old lines of each patch stand in the files it names, once, and git applies it, as
/// the tool does.
#[test]
fn every_mutant_still_has_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut mutants = 0;
    for entry in fs::read_dir(root.join("tests/mutants")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (first, diff) = text.split_once('\n').unwrap();
        let (_, red) = first.rsplit_once(" Red: ").unwrap_or_else(|| panic!("{}: {first}", path.display()));
        assert!(is_red(red), "{}: {first}", path.display());
        let mut git = Command::new("git");
        let applied =
            git.args(["apply", "--check"]).arg(&path).current_dir(root).output().expect("git is here");
        let why = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success(), "{} does not apply: {why}", path.display());
        let files: Vec<&str> = diff.split("\n--- a/").skip(1).collect();
        assert!(!files.is_empty(), "{} names a file", path.display());
        for part in files {
            let (file, _) = part.split_once('\n').unwrap();
            let source = fs::read_to_string(root.join(file)).unwrap();
            let hunks: Vec<&str> = part.split("\n@@ ").skip(1).collect();
            assert!(!hunks.is_empty(), "{} has a hunk for {file}", path.display());
            for hunk in hunks {
                let lines = hunk.lines().skip(1);
                let old: String = lines
                    .filter(|line| line.starts_with([' ', '-']))
                    .map(|line| format!("{}\n", &line[1..]))
                    .collect();
                let places = source.matches(&old).count();
                assert_eq!(places, 1, "{}: its lines in {file}:\n{old}", path.display());
            }
        }
        mutants += 1;
    }
    assert!(mutants >= 30, "{mutants} mutants");
}
