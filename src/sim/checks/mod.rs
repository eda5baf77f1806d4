//! Whether what clients saw could have been: judged from outside, in one scan along the revisions.
//!
//! The observers' watches, one at each member, are the record of history: one list of events per revision, the
//! same at all members and without gaps. The model repeats it. Each revision is explained by the call that shows
//! it in its answer, by one whose outcome is unknown, or by a lease that ended; each answer must be, to the byte,
//! what the model answers at the revision that the answer shows; and what was shown before a call began bounds its
//! revision from below: what anybody was shown, or, for what a member answers by what it has itself, what that
//! member has shown.

mod compactions;
mod errors;
mod hashes;
mod late;
mod leases;
mod lists;
pub(super) mod members;
mod no_space;
mod record;
mod replay;
#[cfg(test)]
mod tests;
mod watches;

use super::history::{Header, History, Moment, Op};
use super::world::Failure;
use crate::api::Request;
use crate::limits::TXN_OPS_DEFAULT;
use crate::types::Time;
use crate::wire::proto::{self, Message, request_op::Request as Union};
use crate::wire::{Method, decode};
use std::collections::BTreeMap;

/// The events of each revision, as the observer saw them.
pub(super) type Record = BTreeMap<i64, Vec<proto::Event>>;

/// All that the single checks share.
pub(super) struct Evidence<'a> {
    pub history: &'a History,
    pub record: Record,
    /// When anything first showed the revision, or a later one; and for each member when it did.
    first_shown: Vec<(Moment, i64)>,
    first_shown_by: Vec<Vec<(Moment, i64)>>,
    /// Compactions that were asked for, with when.
    pub compactions: Vec<(u64, i64)>,
    /// The compactions that were confirmed or shown otherwise, with when and by which member.
    confirmed: Vec<(u64, usize, i64)>,
}

/// Checks a whole run. Clients from this number on are observers.
pub fn check(history: &History, observers: usize) -> Result<(), Failure> {
    let evidence = Evidence::gather(history, observers)?;
    evidence.real_time()?;
    hashes::check(&evidence)?;
    compactions::check(&evidence)?;
    no_space::check(&evidence)?;
    members::check(&evidence)?;
    lists::check(history)?;
    let done = replay::replay(&evidence)?;
    evidence.causes(&done.writers)?;
    late::check(&evidence, &done.writers)?;
    watches::check(&evidence, history.quiet)?;
    leases::check(&evidence, &done.ended_leases)
}

/// Whether every watch that is open has been shown everything up to the revision, which all observers have seen. An
/// error says what is wrong, or not there yet.
pub fn check_shown(history: &History, observers: usize, revision: i64) -> Result<(), Failure> {
    let end = Moment { tick: u64::MAX, time: Time::NEVER };
    watches::check(&Evidence::gather(history, observers)?, Some((end, revision)))
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

/// Whether a member answers by what it has itself, which may be older than what others have.
pub(super) fn is_local(op: &Op) -> bool {
    let message = op.request.clone();
    match op.method {
        Method::LeaseLeases | Method::HashKv | Method::Hash | Method::Status | Method::Defragment => true,
        Method::MemberList => {
            proto::MemberListRequest::decode(message).is_ok_and(|request| !request.linearizable)
        }
        Method::Range | Method::RangeStream => {
            proto::RangeRequest::decode(message).is_ok_and(|range| range.serializable)
        }
        Method::Txn => proto::TxnRequest::decode(message).is_ok_and(|txn| {
            let mut ops = txn.success.iter().chain(&txn.failure);
            ops.all(|op| matches!(&op.request, Some(Union::RequestRange(range)) if range.serializable))
        }),
        _ => false,
    }
}

/// Those that rise above all before, of what was shown when.
fn rising(mut shown: Vec<(Moment, i64)>) -> Vec<(Moment, i64)> {
    shown.sort();
    let mut highest = i64::MIN;
    shown.retain(|(_, revision)| {
        let rises = *revision > highest;
        highest = highest.max(*revision);
        rises
    });
    shown
}

/// The newest of what was shown before the tick.
fn newest(shown: &[(Moment, i64)], tick: u64) -> i64 {
    let after = shown.partition_point(|(moment, _)| moment.tick < tick);
    shown[..after].last().map_or(1, |(_, revision)| *revision)
}

impl Evidence<'_> {
    fn gather(history: &History, observers: usize) -> Result<Evidence<'_>, Failure> {
        let mut shown_by: Vec<Vec<(Moment, i64)>> = vec![vec![]; history.known.members.len()];
        for op in &history.ops {
            if let (Some(returned), Some(revision)) = (op.returned, op.revision()) {
                shown_by[op.member].push((returned, revision));
            }
        }
        for stream in &history.streams {
            for (moment, response) in &stream.responses {
                let revision = response.header.map_or(0, |header| header.revision);
                shown_by[stream.member].push((*moment, revision));
            }
        }
        let (mut compactions, mut confirmed) = (vec![], vec![]);
        for op in &history.ops {
            if op.method == Method::Compact {
                let request = proto::CompactionRequest::decode(op.request.clone()).expect("it is protobuf");
                compactions.push((op.invoked.tick, request.revision));
            }
            if let (Some(returned), Some(revision)) = (op.returned, compactions::shown(op)) {
                confirmed.push((returned.tick, op.member, revision));
            }
        }
        for stream in &history.streams {
            let compacted = stream.responses.iter().filter(|(_, response)| response.compact_revision > 0);
            confirmed
                .extend(compacted.map(|(at, response)| (at.tick, stream.member, response.compact_revision)));
        }
        let mut evidence = Evidence {
            history,
            record: Record::new(),
            first_shown: rising(shown_by.concat()),
            first_shown_by: shown_by.into_iter().map(rising).collect(),
            compactions,
            confirmed,
        };
        evidence.record = record::gather(&evidence, observers)?;
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
        newest(&self.first_shown, tick)
    }

    /// The newest revision that a member had shown before the tick.
    pub fn floor_at(&self, member: usize, tick: u64) -> i64 {
        newest(&self.first_shown_by[member], tick)
    }

    /// The lowest revision that the call may be answered at.
    pub fn floor_of(&self, op: &Op) -> i64 {
        match is_local(op) {
            true => self.floor_at(op.member, op.invoked.tick),
            false => self.floor(op.invoked.tick),
        }
    }

    /// When the revision, or a later one, was first shown.
    pub fn shown_at(&self, revision: i64) -> Option<Moment> {
        let at = self.first_shown.partition_point(|(_, shown)| *shown < revision);
        self.first_shown.get(at).map(|(moment, _)| *moment)
    }

    /// The highest compaction confirmed or shown before the tick.
    pub fn compacted_surely(&self, tick: u64) -> i64 {
        let before = self.confirmed.iter().filter(|(returned, ..)| *returned < tick);
        before.map(|(.., revision)| *revision).max().unwrap_or(0)
    }

    /// The highest compaction that a member had confirmed or shown before the tick.
    pub fn compacted_surely_at(&self, member: usize, tick: u64) -> i64 {
        let before = self.confirmed.iter().filter(|(returned, by, _)| *returned < tick && *by == member);
        before.map(|(.., revision)| *revision).max().unwrap_or(0)
    }

    /// The highest compaction that surely is in effect for the call.
    pub fn compacted_for(&self, op: &Op) -> i64 {
        match is_local(op) {
            true => self.compacted_surely_at(op.member, op.invoked.tick),
            false => self.compacted_surely(op.invoked.tick),
        }
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
            let floor = self.floor_of(op);
            if revision < floor {
                let what = format!(
                    "call {at} ({:?}) to m{} shows {revision}, {floor} had been shown",
                    op.method, op.member
                );
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
