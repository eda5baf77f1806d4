//! Whether what clients saw could have been: judged from outside, in one scan along the revisions.
//!
//! The observer's watch is the record of history: one list of events a revision, without gaps. The model
//! repeats it. Each revision is explained by the call that shows it in its answer, by one whose outcome is
//! unknown, or by a lease that ended; each answer must be, to the byte, what the model answers at the
//! revision that the answer shows; and what was shown before a call began bounds its revision from below.

mod compactions;
mod errors;
mod hashes;
mod leases;
pub(super) mod members;
mod no_space;
mod replay;
mod watches;

use super::history::{Header, History, Moment, Op};
use super::world::Failure;
use crate::api::Request;
use crate::limits::TXN_OPS_DEFAULT;
use crate::wire::proto::{self, Message};
use crate::wire::{Method, decode};
use std::collections::BTreeMap;

/// The events of each revision, as the observer saw them.
pub(super) type Record = BTreeMap<i64, Vec<proto::Event>>;

/// All that the single checks share.
pub(super) struct Evidence<'a> {
    pub history: &'a History,
    pub record: Record,
    /// When anything first showed the revision, or a later one.
    first_shown: Vec<(u64, i64, Moment)>,
    /// Compactions that were asked for, with when.
    pub compactions: Vec<(u64, i64)>,
    /// The compactions that were confirmed, with when.
    confirmed: Vec<(u64, i64)>,
}

/// Checks a whole run.
pub fn check(history: &History, observer: usize) -> Result<(), Failure> {
    let evidence = Evidence::gather(history, observer)?;
    evidence.real_time()?;
    hashes::check(&evidence)?;
    compactions::check(&evidence)?;
    no_space::check(&evidence)?;
    members::check(&evidence)?;
    let writers = replay::replay(&evidence)?;
    evidence.causes(&writers)?;
    watches::check(&evidence)?;
    leases::check(&evidence)
}

/// The request as the server understands it.
pub fn request_of(op: &Op) -> Request {
    let message = op.request.clone();
    match op.method {
        Method::RangeStream => {
            Request::Range(decode::range_stream(message).expect("the workload sends what can be read"))
        }
        // A renewal is about a lease, which is all that the checks want of it.
        Method::LeaseKeepAlive => Request::LeaseTimeToLive {
            lease: decode::keep_alive(message).expect("the workload sends what can be read"),
            keys: false,
        },
        method => {
            decode::unary(method, &message, TXN_OPS_DEFAULT).expect("the workload sends what can be read")
        }
    }
}

impl Evidence<'_> {
    fn gather(history: &History, observer: usize) -> Result<Evidence<'_>, Failure> {
        let mut record = Record::new();
        for stream in history.streams.iter().filter(|stream| stream.client == observer) {
            for (_, response) in &stream.responses {
                if response.canceled {
                    return Err(Failure::new("watch", format!("the observer was canceled: {response:?}")));
                }
                let mut now: Record = Record::new();
                for event in &response.events {
                    let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                    now.entry(revision).or_default().push(event.clone());
                }
                for (revision, events) in now {
                    if let Some(before) = record.insert(revision, events) {
                        let what = format!("revision {revision} is shown twice, first as {before:?}");
                        return Err(Failure::new("history", what));
                    }
                }
            }
        }
        for (at, revision) in record.keys().enumerate() {
            if *revision != at as i64 + 2 {
                return Err(Failure::new("history", format!("there is a gap before revision {revision}")));
            }
        }
        let mut shown: Vec<(Moment, i64)> = vec![];
        for op in &history.ops {
            if let (Some(returned), Some(revision)) = (op.returned, op.revision()) {
                shown.push((returned, revision));
            }
        }
        for stream in &history.streams {
            for (moment, response) in &stream.responses {
                shown.push((*moment, response.header.map_or(0, |header| header.revision)));
            }
        }
        shown.sort();
        let mut first_shown: Vec<(u64, i64, Moment)> = vec![];
        for (moment, revision) in shown {
            if first_shown.last().is_none_or(|(_, last, _)| *last < revision) {
                first_shown.push((moment.tick, revision, moment));
            }
        }
        let (mut compactions, mut confirmed) = (vec![], vec![]);
        for op in history.ops.iter().filter(|op| op.method == Method::Compact) {
            let request = proto::CompactionRequest::decode(op.request.clone()).expect("it is protobuf");
            compactions.push((op.invoked.tick, request.revision));
            if let Some(returned) = op.returned.filter(|_| op.is_ok()) {
                confirmed.push((returned.tick, request.revision));
            }
        }
        let mut evidence = Evidence { history, record, first_shown, compactions, confirmed };
        evidence.fill_in_what_was_compacted();
        Ok(evidence)
    }

    /// A watch that begins at the compacted revision itself does not show what stood before it (etcd's law): where
    /// the observer's was such a one, its earlier events tell.
    fn fill_in_what_was_compacted(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        let mut live: BTreeMap<Vec<u8>, proto::KeyValue> = BTreeMap::new();
        for (revision, events) in &mut record {
            if self.may_be_compacted(*revision, u64::MAX) {
                for proto::Event { kv, prev_kv, .. } in
                    events.iter_mut().filter(|event| event.prev_kv.is_none())
                {
                    let changed = kv.as_ref().filter(|kv| kv.create_revision != kv.mod_revision);
                    *prev_kv = changed.and_then(|kv| live.get(&kv.key[..]).cloned());
                }
            }
            for kv in events.iter().filter_map(|event| Some((event.r#type, event.kv.as_ref()?))) {
                match kv {
                    (0, kv) => live.insert(kv.key.to_vec(), kv.clone()),
                    (_, kv) => live.remove(&kv.key[..]),
                };
            }
        }
        self.record = record;
    }

    /// The newest revision that anybody had been shown before the tick.
    pub fn floor(&self, tick: u64) -> i64 {
        let after = self.first_shown.partition_point(|(shown, ..)| *shown < tick);
        self.first_shown[..after].last().map_or(1, |(_, revision, _)| *revision)
    }

    /// When the revision, or a later one, was first shown.
    pub fn shown_at(&self, revision: i64) -> Option<Moment> {
        let at = self.first_shown.partition_point(|(_, shown, _)| *shown < revision);
        self.first_shown.get(at).map(|(.., moment)| *moment)
    }

    /// The highest compaction confirmed before the tick.
    pub fn compacted_surely(&self, tick: u64) -> i64 {
        let before = self.confirmed.iter().filter(|(returned, _)| *returned < tick);
        before.map(|(_, revision)| *revision).max().unwrap_or(0)
    }

    /// Whether history may have been compacted to exactly this revision before the tick.
    pub fn may_be_compacted(&self, revision: i64, tick: u64) -> bool {
        let asked = self.compactions.iter().any(|(asked, of)| *asked < tick && *of == revision);
        asked || self.history.known.compacts_itself && revision <= self.floor(tick)
    }

    /// The highest compaction asked for before the tick. A member that compacts of its own accord goes no
    /// further than to what has been seen for long.
    pub fn compacted_before(&self, tick: u64) -> i64 {
        if self.history.known.compacts_itself {
            return self.floor(tick);
        }
        let before = self.compactions.iter().filter(|(asked, _)| *asked < tick);
        before.map(|(_, revision)| *revision).max().unwrap_or(0)
    }

    /// Nothing shows a revision lower than what was shown before it was asked, nor one that never was.
    fn real_time(&self) -> Result<(), Failure> {
        let last = self.record.keys().next_back().copied().unwrap_or(1);
        for (at, op) in self.history.ops.iter().enumerate() {
            let Some(revision) = op.revision() else { continue };
            let floor = self.floor(op.invoked.tick);
            if revision < floor {
                let what = format!("call {at} ({:?}) shows {revision}, {floor} had been shown", op.method);
                return Err(Failure::new("real time", what));
            }
            if revision > last {
                let what = format!("call {at} ({:?}) shows {revision}, history ends at {last}", op.method);
                return Err(Failure::new("history", what));
            }
        }
        Ok(())
    }

    /// Nothing is shown before it was asked for.
    fn causes(&self, writers: &BTreeMap<i64, usize>) -> Result<(), Failure> {
        for (revision, op) in writers {
            let invoked = self.history.ops[*op].invoked;
            if self.shown_at(*revision).is_some_and(|shown| shown < invoked) {
                let what = format!("revision {revision} was shown before call {op}, which made it");
                return Err(Failure::new("real time", what));
            }
        }
        Ok(())
    }
}

/// The header of an answer.
pub(super) fn header(op: &Op) -> Header {
    super::history::header(&op.messages[0]).unwrap_or_default()
}
