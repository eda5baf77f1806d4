//! Three members as processes, under load, while things go wrong: what their clients see is one history.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use super::processes::{Disk, Fault, Judged, Network, PLACES_MAX, Setup, Trial, in_a_network};
use std::io::Write;
use std::path::Path;

const PROGRAM: &str = env!("CARGO_BIN_EXE_braid");

pub fn setup(root: &Path, seed: u64) -> Setup<'_> {
    Setup {
        program: Path::new(PROGRAM),
        root,
        members: 3,
        spares: 0,
        network: None,
        disk: None,
        controls: true,
        seed,
    }
}

/// A trial with these faults, which must hold.
fn holds(setup: &Setup<'_>, faults: &[Fault]) -> Judged {
    let mut trial = Trial::begin(setup).unwrap_or_else(|why| panic!("{why}"));
    for fault in faults {
        trial.strike(*fault).unwrap_or_else(|why| panic!("{fault:?}: {why}"));
    }
    judged(trial)
}

pub fn judged(trial: Trial<'_>) -> Judged {
    let judged = trial.end().unwrap_or_else(|why| panic!("{why}"));
    println!("{judged}");
    let (answered, calls) = judged.answered();
    assert!(judged.revision > 30 && answered * 2 > calls, "{judged}");
    judged
}

/// Says that a test proves nothing here, and why. What is printed by macros is shown of tests that fail alone.
fn skips(test: &str, why: &str) {
    std::io::stderr().write_all(format!("{test}: SKIPPED, {why}\n").as_bytes()).unwrap();
}

#[test]
fn members_that_are_killed_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    holds(&setup(root.path(), 1), &[Fault::Kill, Fault::Kill, Fault::KillAll]);
}

#[test]
fn a_leader_that_was_stopped_answers_nothing_stale() {
    let root = tempfile::tempdir().unwrap();
    holds(&setup(root.path(), 2), &[Fault::Pause, Fault::Pause]);
}

#[test]
fn members_that_are_replaced_one_after_the_other_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    holds(
        &Setup { spares: PLACES_MAX - 3, ..setup(root.path(), 9) },
        &[Fault::Replace, Fault::ReplaceAndKill, Fault::Replace],
    );
}

#[test]
fn members_that_are_restarted_one_after_the_other_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    holds(&setup(root.path(), 3), &[Fault::Restart]);
}

/// Needs `ip` and the right to make network namespaces.
#[test]
fn members_whose_packets_are_dropped_agree_again() {
    let root = tempfile::tempdir().unwrap();
    let ran = in_a_network(3, |network: &Network| {
        let setup = Setup { network: Some(network), ..setup(root.path(), 4) };
        holds(&setup, &[Fault::CutOff, Fault::Mute, Fault::Deaf]);
    });
    if let Err(why) = ran {
        skips("members_whose_packets_are_dropped_agree_again", &why);
    }
}

/// Needs `mkfs.ext4`, `fallocate` and the right to mount.
#[test]
fn a_member_whose_disk_is_full_takes_nothing_from_the_others() {
    let root = tempfile::tempdir().unwrap();
    match Disk::new(&root.path().join("disk")) {
        Ok(disk) => _ = holds(&Setup { disk: Some(&disk), ..setup(root.path(), 5) }, &[Fault::FullDisk]),
        Err(why) => skips("a_member_whose_disk_is_full_takes_nothing_from_the_others", &why),
    }
}

/// Needs `mkfs.ext4` and the right to mount.
#[test]
fn a_member_whose_disk_fails_ends_and_comes_back_with_all_that_it_promised() {
    let root = tempfile::tempdir().unwrap();
    match Disk::new(&root.path().join("disk")) {
        Ok(disk) => {
            let setup = Setup { disk: Some(&disk), ..setup(root.path(), 8) };
            holds(&setup, &[Fault::FailingDisk, Fault::FailingDisk]);
        }
        Err(why) => skips("a_member_whose_disk_fails_ends_and_comes_back_with_all_that_it_promised", &why),
    }
}

#[test]
fn a_copy_of_a_running_members_directory_is_refused_by_the_others() {
    let root = tempfile::tempdir().unwrap();
    holds(&setup(root.path(), 6), &[Fault::Copy]);
}
