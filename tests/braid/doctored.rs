//! The judge of what clients of real processes have seen is not blind: it refuses a history that was doctored.

#![allow(clippy::unwrap_used)]

use super::processes::{Judged, Trial};
use super::trials::{judged, setup};
use braid::sim::check;
use braid::sim::history::{History, Moment, Op};
use braid::sim::workload::tagged;
use braid::wire::Method;
use braid::wire::proto::{self, Message};

/// Three of them.
const MEMBERS: usize = 3;

/// What a doctor knows of the history.
struct Patient {
    history: History,
    /// Clients from this number on are observers.
    observers: usize,
    /// The newest revision, and one that is not near any end.
    last: i64,
    middle: i64,
}

type Doctor = fn(&mut Patient);

/// What is done to a history, which check refuses it, and how it is done.
const DOCTORS: [(&str, &str, Doctor); 13] = [
    ("a revision is skipped", "history", skip_a_revision),
    ("a revision is used twice", "replay", use_a_revision_twice),
    ("members show different revisions", "history", show_another_event),
    ("a watch misses the last revision", "watch", hide_the_last_revision),
    ("a watch is shown a revision before an older one", "watch", swap_two_revisions),
    ("a read is stale", "real time", read_what_was),
    ("a read shows what was not there", "replay", read_another_version),
    ("a transaction takes the wrong branch", "replay", take_the_other_branch),
    ("an acknowledged write is lost", "replay", lose_a_write),
    ("a write that timed out comes late", "late write", delay_a_write),
    ("a hash is another", "hash", change_a_hash),
    ("an answer is another member's", "member", answer_for_another),
    ("a term falls", "member", fall_in_term),
];

#[test]
fn a_doctored_history_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut trial = Trial::begin(&setup(root.path(), 7)).unwrap();
    trial.pass(3000);
    let Judged { history, observers, revision } = judged(trial);
    for (what, refused_by, doctor) in DOCTORS {
        let history = history.clone();
        let mut patient = Patient { history, observers, last: revision, middle: revision / 2 };
        doctor(&mut patient);
        match check(&patient.history, observers) {
            Ok(()) => panic!("{what}, and it is not seen"),
            Err(failure) => assert_eq!(failure.check, refused_by, "{what}: {}", failure.what),
        }
    }
}

impl Patient {
    /// The first call with an answer like that.
    fn first(&mut self, is_one: impl Fn(&Op) -> bool) -> &mut Op {
        self.history.ops.iter_mut().find(|op| op.is_ok() && is_one(op)).expect("there is such a call")
    }

    fn last(&mut self, is_one: impl Fn(&Op) -> bool) -> &mut Op {
        self.history.ops.iter_mut().rfind(|op| op.is_ok() && is_one(op)).expect("there is such a call")
    }

    fn first_observer(&self) -> usize {
        self.observers
    }

    /// All that an observer's watches were shown of a revision.
    fn shown(&mut self, observer: usize, revision: i64) -> impl Iterator<Item = &mut proto::WatchResponse> {
        let streams = self.history.streams.iter_mut().filter(move |stream| stream.client == observer);
        let responses = streams.flat_map(|stream| &mut stream.responses).map(|(_, response)| response);
        responses.filter(move |response| {
            let mut revisions =
                response.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision));
            revisions.any(|shown| shown == revision)
        })
    }

    /// Takes a revision out of what an observer saw.
    fn hide(&mut self, observer: usize, revision: i64) {
        for response in self.shown(observer, revision) {
            response.events.retain(|event| event.kv.as_ref().is_none_or(|kv| kv.mod_revision != revision));
        }
    }
}

/// Changes the answer of a call.
fn rewrite<Answer: Message + Default>(op: &mut Op, change: impl FnOnce(&mut Answer)) {
    let mut answer = Answer::decode(op.messages[0].clone()).unwrap();
    change(&mut answer);
    op.messages[0] = answer.encode_to_vec().into();
}

fn is_put(op: &Op) -> bool {
    op.method == Method::Put
}

fn is_plain_range(op: &Op) -> bool {
    let request = proto::RangeRequest::decode(op.request.clone()).unwrap_or_default();
    op.method == Method::Range && !request.serializable && request.revision == 0
}

fn finds_something(op: &Op) -> bool {
    let range = op.messages.first().cloned().unwrap_or_default();
    is_plain_range(op) && proto::RangeResponse::decode(range).is_ok_and(|range| !range.kvs.is_empty())
}

fn skip_a_revision(patient: &mut Patient) {
    let first = patient.first_observer();
    (first..first + MEMBERS).for_each(|observer| patient.hide(observer, patient.middle));
}

fn use_a_revision_twice(patient: &mut Patient) {
    let taken = patient.first(is_put).revision().unwrap();
    let other = patient.last(is_put);
    rewrite::<proto::PutResponse>(other, |put| put.header.as_mut().unwrap().revision = taken);
    // It would be stale as well.
    other.invoked = Moment::default();
}

fn show_another_event(patient: &mut Patient) {
    let (first, middle) = (patient.first_observer(), patient.middle);
    let mut responses = patient.shown(first, middle);
    let event = responses.next().unwrap().events.last_mut().unwrap();
    event.kv.as_mut().unwrap().key = "another".into();
}

fn hide_the_last_revision(patient: &mut Patient) {
    patient.hide(patient.first_observer(), patient.last);
}

fn swap_two_revisions(patient: &mut Patient) {
    let (first, middle) = (patient.first_observer(), patient.middle);
    let mut events: Vec<proto::Event> = vec![];
    let mut emptied = None;
    for revision in [middle + 1, middle] {
        let response = patient.shown(first, revision).next().unwrap();
        let of_revision =
            |event: &mut proto::Event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision);
        events.extend(response.events.extract_if(.., of_revision));
        emptied = Some(response);
    }
    events.append(&mut emptied.as_mut().unwrap().events);
    emptied.unwrap().events = events;
}

fn read_what_was(patient: &mut Patient) {
    rewrite::<proto::RangeResponse>(patient.last(is_plain_range), |range| {
        range.header.as_mut().unwrap().revision -= 10;
    });
}

fn read_another_version(patient: &mut Patient) {
    rewrite::<proto::RangeResponse>(patient.first(finds_something), |range| range.kvs[0].version += 1);
}

fn take_the_other_branch(patient: &mut Patient) {
    let txn = patient.first(|op| op.method == Method::Txn);
    rewrite::<proto::TxnResponse>(txn, |txn| txn.succeeded = !txn.succeeded);
}

/// Another write has its revision, wherever one looks. Hashes would tell as well.
fn lose_a_write(patient: &mut Patient) {
    let hashes = patient.history.ops.iter_mut().filter(|op| op.method == Method::HashKv);
    hashes.for_each(|op| op.returned = None);
    let lost = patient.first(is_put).revision().unwrap();
    let first = patient.first_observer();
    for observer in first..first + MEMBERS {
        for response in patient.shown(observer, lost) {
            let of_revision = response.events.iter_mut().filter_map(|event| event.kv.as_mut());
            of_revision.filter(|kv| kv.mod_revision == lost).for_each(|kv| kv.value = "another".into());
        }
    }
}

/// A put that was answered with an error before another put of its key was asked for, which succeeded, and that took
/// effect after it: made of two puts that succeeded.
fn delay_a_write(patient: &mut Patient) {
    let puts = patient.history.ops.iter().enumerate().filter(|(_, op)| is_put(op) && op.is_ok());
    let mut puts: Vec<(bytes::Bytes, i64, usize)> = puts
        .filter_map(|(at, op)| {
            let put = proto::PutRequest::decode(op.request.clone()).unwrap();
            (tagged(&put.value) == Some(at)).then(|| (put.key, op.revision().unwrap(), at))
        })
        .collect();
    puts.sort();
    // Not one that was asked for first of all: something comes before it.
    let has_before = |put: usize| patient.history.ops[put].invoked.tick > 2;
    let is_pair = |pair: &&[(bytes::Bytes, i64, usize)]| pair[0].0 == pair[1].0 && has_before(pair[0].2);
    let pair = puts.windows(2).find(is_pair).expect("a key is put twice");
    let (newer, late) = (pair[0].2, pair[1].2);
    let asked = patient.history.ops[newer].invoked;
    let before = |ticks: u64| Moment { tick: asked.tick - ticks, time: asked.time };
    let op = &mut patient.history.ops[late];
    (op.invoked, op.returned) = (before(2), Some(before(1)));
    (op.messages, op.status) = (vec![], (14, "etcdserver: request timed out".to_owned()));
}

fn change_a_hash(patient: &mut Patient) {
    let hash = patient.first(|op| op.method == Method::HashKv);
    rewrite::<proto::HashKvResponse>(hash, |hash| hash.hash ^= 1);
}

fn answer_for_another(patient: &mut Patient) {
    let op = patient.first(is_plain_range);
    op.member = (op.member + 1) % MEMBERS;
}

fn fall_in_term(patient: &mut Patient) {
    rewrite::<proto::RangeResponse>(patient.last(is_plain_range), |range| {
        range.header.as_mut().unwrap().raft_term -= 1;
    });
}
