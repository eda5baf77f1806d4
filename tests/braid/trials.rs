//! Three members as processes, under load, while things go wrong: what their clients see is one history. And the judge
//! of it is not blind: it refuses histories that were doctored.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use super::processes::{Fault, Judged, Network, Setup, Trial, in_a_network};
use braid::sim::check;
use braid::sim::history::{History, Moment, Op};
use braid::sim::workload::tagged;
use braid::wire::Method;
use braid::wire::proto::{self, Message};
use std::io::Write;
use std::path::Path;

const PROGRAM: &str = env!("CARGO_BIN_EXE_braid");

fn setup(root: &Path, seed: u64) -> Setup<'_> {
    Setup { program: Path::new(PROGRAM), root, members: 3, network: None, disk: false, controls: false, seed }
}

/// A trial with these faults, which must hold.
fn holds(setup: &Setup<'_>, faults: &[Fault]) -> Judged {
    let mut trial = Trial::begin(setup).unwrap_or_else(|why| panic!("{why}"));
    faults.iter().for_each(|fault| trial.strike(*fault));
    judged(trial)
}

fn judged(trial: Trial<'_>) -> Judged {
    let judged = trial.end().unwrap_or_else(|why| panic!("{why}"));
    println!("{judged}");
    let (answered, calls) = judged.answered();
    assert!(judged.revision > 30 && answered * 2 > calls, "{judged}");
    judged
}

/// Says that a test proves nothing here, and why. What is printed by macros is shown of tests that fail alone.
fn skips(test: &str, why: &str) {
    writeln!(std::io::stderr(), "{test}: SKIPPED, {why}").unwrap();
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
        holds(&setup, &[Fault::Partition, Fault::Partition]);
    });
    if let Err(why) = ran {
        skips("members_whose_packets_are_dropped_agree_again", &why);
    }
}

/// Needs `mkfs.ext4`, `fallocate` and the right to mount.
#[test]
fn a_member_whose_disk_is_full_takes_nothing_from_the_others() {
    let root = tempfile::tempdir().unwrap();
    let setup = Setup { disk: true, ..setup(root.path(), 5) };
    match Trial::begin(&setup) {
        Ok(mut trial) => {
            trial.strike(Fault::FullDisk);
            judged(trial);
        }
        Err(why) => skips("a_member_whose_disk_is_full_takes_nothing_from_the_others", &why),
    }
}

/// Needs `mkfs.ext4` and the right to mount.
#[test]
fn a_member_whose_disk_fails_ends_and_comes_back_with_all_that_it_promised() {
    let root = tempfile::tempdir().unwrap();
    let setup = Setup { disk: true, ..setup(root.path(), 8) };
    match Trial::begin(&setup) {
        Ok(mut trial) => {
            trial.strike(Fault::FailingDisk);
            trial.strike(Fault::FailingDisk);
            judged(trial);
        }
        Err(why) => skips("a_member_whose_disk_fails_ends_and_comes_back_with_all_that_it_promised", &why),
    }
}

#[test]
fn a_copy_of_a_running_members_directory_is_refused_by_the_others() {
    let root = tempfile::tempdir().unwrap();
    holds(&setup(root.path(), 6), &[Fault::Copy]);
}

/// The place of the first call with an answer like that.
fn first(history: &History, is_one: impl Fn(&Op) -> bool) -> usize {
    history.ops.iter().position(|op| op.is_ok() && is_one(op)).expect("there is such a call")
}

/// Changes the answer of a call.
fn rewrite<Answer: Message + Default>(op: &mut Op, change: impl FnOnce(&mut Answer)) {
    let mut answer = Answer::decode(op.messages[0].clone()).unwrap();
    change(&mut answer);
    op.messages[0] = answer.encode_to_vec().into();
}

/// All that an observer's watches were shown of a revision.
fn shown(
    history: &mut History,
    observer: usize,
    revision: i64,
) -> impl Iterator<Item = &mut proto::WatchResponse> {
    let streams = history.streams.iter_mut().filter(move |stream| stream.client == observer);
    let responses = streams.flat_map(|stream| &mut stream.responses).map(|(_, response)| response);
    responses.filter(move |response| {
        let mut revisions = response.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision));
        revisions.any(|shown| shown == revision)
    })
}

/// Takes a revision out of what an observer saw.
fn hide(history: &mut History, observer: usize, revision: i64) {
    for response in shown(history, observer, revision) {
        response.events.retain(|event| event.kv.as_ref().is_none_or(|kv| kv.mod_revision != revision));
    }
}

fn is_plain_range(op: &Op) -> bool {
    let request = proto::RangeRequest::decode(op.request.clone()).unwrap_or_default();
    op.method == Method::Range && !request.serializable && request.revision == 0
}

/// A put that was answered with an error before another put of its key was asked for, which succeeded, and that took
/// effect after it: made of two puts that succeeded.
fn delay_a_write(history: &mut History) {
    let puts = history.ops.iter().enumerate().filter(|(_, op)| op.method == Method::Put && op.is_ok());
    let mut puts: Vec<(bytes::Bytes, i64, usize)> = puts
        .filter_map(|(at, op)| {
            let put = proto::PutRequest::decode(op.request.clone()).unwrap();
            (tagged(&put.value) == Some(at)).then(|| (put.key, op.revision().unwrap(), at))
        })
        .collect();
    puts.sort();
    let pair = puts.windows(2).find(|pair| pair[0].0 == pair[1].0).expect("a key is put twice");
    let (newer, late) = (pair[0].2, pair[1].2);
    let asked = history.ops[newer].invoked;
    let before = |ticks: u64| Moment { tick: asked.tick - ticks, time: asked.time };
    let op = &mut history.ops[late];
    (op.invoked, op.returned) = (before(2), Some(before(1)));
    (op.messages, op.status) = (vec![], (14, "etcdserver: request timed out".to_owned()));
}

#[test]
fn a_doctored_history_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut trial = Trial::begin(&setup(root.path(), 7)).unwrap();
    trial.pass(3000);
    let Judged { history, observers, revision, .. } = judged(trial);
    let (of_first, middle) = (observers, revision / 2);
    type Doctor<'a> = Box<dyn Fn(&mut History) + 'a>;
    let doctors: Vec<(&str, &str, Doctor<'_>)> = vec![
        (
            "a revision is skipped",
            "history",
            Box::new(|history| {
                (observers..observers + 3).for_each(|observer| hide(history, observer, middle));
            }),
        ),
        (
            "a revision is used twice",
            "replay",
            Box::new(|history| {
                let puts: Vec<usize> = (0..history.ops.len())
                    .filter(|at| history.ops[*at].method == Method::Put && history.ops[*at].is_ok())
                    .collect();
                let taken = history.ops[puts[puts.len() - 2]].revision().unwrap();
                let last = &mut history.ops[puts[puts.len() - 1]];
                rewrite::<proto::PutResponse>(last, |put| put.header.as_mut().unwrap().revision = taken);
            }),
        ),
        (
            "members show different revisions",
            "history",
            Box::new(|history| {
                let mut responses = shown(history, of_first, middle);
                let event = responses.next().unwrap().events.last_mut().unwrap();
                event.kv.as_mut().unwrap().key = "another".into();
            }),
        ),
        ("a watch misses a revision", "watch", Box::new(|history| hide(history, of_first, revision))),
        (
            "a watch is shown a revision before an older one",
            "watch",
            Box::new(|history| {
                let [mut one, mut other] = [middle, middle + 1].map(|revision| {
                    let response = shown(history, of_first, revision).next().unwrap();
                    std::mem::take(&mut response.events)
                });
                let mut into = history.streams.iter_mut().filter(|stream| stream.client == of_first);
                let empty = into.find_map(|stream| {
                    stream
                        .responses
                        .iter_mut()
                        .map(|(_, response)| response)
                        .find(|r| r.events.is_empty() && !r.created)
                });
                let empty = empty.unwrap();
                empty.events.append(&mut other);
                empty.events.append(&mut one);
            }),
        ),
        (
            "a read is stale",
            "real time",
            Box::new(|history| {
                let at = history.ops.iter().rposition(|op| op.is_ok() && is_plain_range(op)).unwrap();
                rewrite::<proto::RangeResponse>(&mut history.ops[at], |range| {
                    range.header.as_mut().unwrap().revision -= 10;
                });
            }),
        ),
        (
            "a read shows what was not there",
            "replay",
            Box::new(|history| {
                let at = first(history, |op| {
                    let range = op.messages.first().cloned().unwrap_or_default();
                    is_plain_range(op)
                        && proto::RangeResponse::decode(range).is_ok_and(|range| !range.kvs.is_empty())
                });
                rewrite::<proto::RangeResponse>(&mut history.ops[at], |range| range.kvs[0].version += 1);
            }),
        ),
        (
            "a transaction takes the wrong branch",
            "replay",
            Box::new(|history| {
                let at = first(history, |op| op.method == Method::Txn);
                rewrite::<proto::TxnResponse>(&mut history.ops[at], |txn| txn.succeeded = !txn.succeeded);
            }),
        ),
        (
            "an acknowledged write is lost",
            "replay",
            Box::new(|history| {
                // Another write has its revision, wherever one looks. Hashes would tell as well.
                let hashes = history.ops.iter_mut().filter(|op| op.method == Method::HashKv);
                hashes.for_each(|op| op.returned = None);
                let at = first(history, |op| op.method == Method::Put);
                let lost = history.ops[at].revision().unwrap();
                for observer in observers..observers + 3 {
                    for response in shown(history, observer, lost) {
                        let of_revision = response.events.iter_mut().filter_map(|event| event.kv.as_mut());
                        of_revision.filter(|kv| kv.mod_revision == lost).for_each(|kv| kv.value = "y".into());
                    }
                }
            }),
        ),
        ("a write that timed out comes late", "late write", Box::new(delay_a_write)),
        (
            "a hash is another",
            "hash",
            Box::new(|history| {
                let at = first(history, |op| op.method == Method::HashKv);
                rewrite::<proto::HashKvResponse>(&mut history.ops[at], |hash| hash.hash ^= 1);
            }),
        ),
        (
            "an answer is another member's",
            "member",
            Box::new(|history| {
                let at = first(history, is_plain_range);
                history.ops[at].member = (history.ops[at].member + 1) % 3;
            }),
        ),
        (
            "a term falls",
            "member",
            Box::new(|history| {
                let at = history.ops.iter().rposition(|op| op.is_ok() && is_plain_range(op)).unwrap();
                rewrite::<proto::RangeResponse>(&mut history.ops[at], |range| {
                    range.header.as_mut().unwrap().raft_term -= 1;
                });
            }),
        ),
    ];
    for (what, refused_by, doctor) in doctors {
        let mut doctored = history.clone();
        doctor(&mut doctored);
        match check(&doctored, observers) {
            Ok(()) => panic!("{what}, and it is not seen"),
            Err(failure) => assert_eq!(failure.check, refused_by, "{what}: {}", failure.what),
        }
    }
}
