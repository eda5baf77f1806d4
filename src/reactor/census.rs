//! Answers that every reactor has a share in: Status, metrics, the keys of a lease, Defragment; and the
//! sizes by which the quota is kept.

use super::calls::{Asker, Course};
use super::owned::Owned;
use super::{Reactor, Stage};
use crate::api::{Alarm, AlarmType, Error, LeaseTimeToLiveReply, Reply, StatusReply};
use crate::front::Rpc;
use crate::io::{Body, CallId, Census, Fields, Level, ShardFigures};
use crate::limits::{EMPTY_SHARD_BYTES, LEASE_BYTES};
use crate::log::Resident;
use crate::mvcc::Sizes;
use crate::types::{Blob, MemberId, ReactorId, Revision, ShardId, Time};
use crate::wire::health::Page;
use std::collections::BTreeMap;

/// What is asked of all reactors.
#[derive(Debug)]
enum Question {
    Status(Box<Census>),
    Figures { rpc: Rpc, page: Page, rows: BTreeMap<ReactorId, Census> },
    Keys { reply: LeaseTimeToLiveReply, seen: Revision },
    Defragment { begun: Time },
    Answered,
}

/// A call that waits for all reactors.
#[derive(Debug)]
pub(super) struct Gathering {
    waiting: Vec<ReactorId>,
    question: Question,
}

impl Gathering {
    /// Whether it only asks how things are.
    pub(super) fn is_census(&self) -> bool {
        matches!(self.question, Question::Status(_) | Question::Figures { .. })
    }
}

/// The sizes of all reactors' shards, as last heard.
#[derive(Debug)]
pub(super) struct MemberSizes {
    of: Vec<Sizes>,
    /// Bytes that this reactor has told the others of.
    told: u64,
}

impl MemberSizes {
    pub fn new(reactors: u16) -> MemberSizes {
        MemberSizes { of: vec![Sizes::default(); usize::from(reactors)], told: 0 }
    }

    pub fn set(&mut self, reactor: ReactorId, sizes: Sizes) {
        self.of[usize::from(reactor.0)] = sizes;
    }

    pub fn sum(&self) -> Sizes {
        let mut sum = Sizes::default();
        self.of.iter().for_each(|sizes| add(&mut sum, *sizes));
        sum
    }

    fn bytes_total(&self) -> u64 {
        self.of.iter().map(|sizes| sizes.bytes_total).sum()
    }
}

pub(super) fn add(sum: &mut Sizes, more: Sizes) {
    sum.keys += more.keys;
    sum.versions += more.versions;
    sum.bytes_live += more.bytes_live;
    sum.bytes_total += more.bytes_total;
    sum.bytes_reclaimable += more.bytes_reclaimable;
}

impl Census {
    /// Adds a reactor's figures; its shards keep rows of their own.
    pub(super) fn add(&mut self, more: &Census) {
        add(&mut self.sizes, more.sizes);
        self.raft_index += more.raft_index;
        self.raft_applied_index += more.raft_applied_index;
        self.counters.add(&more.counters);
        self.compacted_at = self.compacted_at.max(more.compacted_at);
        self.process = self.process.or(more.process);
    }
}

impl Reactor {
    fn ask_all(&mut self, asker: Asker, question: Question, body: impl Fn(CallId) -> Body) {
        let waiting: Vec<ReactorId> = (0..self.reactors).map(ReactorId).collect();
        let gathering = Gathering { waiting: waiting.clone(), question };
        let has_deadline = !matches!(gathering.question, Question::Defragment { .. });
        let call = self.begin_call(asker, Course::Gathering(Box::new(gathering)));
        if !has_deadline {
            self.calls.keep(call); // As long as the data is; etcd has no deadline here either.
        }
        for reactor in waiting {
            self.send(reactor, body(call));
        }
    }

    pub(super) fn take_census(&mut self, asker: Asker) {
        self.ask_all(asker, Question::Status(Box::default()), |call| Body::Census { call });
    }

    /// The figures of all reactors, for the text of /metrics or /debug/vars.
    pub(super) fn take_figures(&mut self, rpc: Rpc, page: Page) {
        let question = Question::Figures { rpc, page, rows: BTreeMap::new() };
        self.ask_all(Asker::Page(rpc), question, |call| Body::Census { call });
    }

    pub(super) fn defragment(&mut self, asker: Asker) {
        self.notice(Level::Info, "starting defragment", Fields::default());
        self.ask_all(asker, Question::Defragment { begun: self.now }, |call| Body::Defragment { call });
    }

    pub(super) fn gather_lease_keys(&mut self, call: CallId, reply: LeaseTimeToLiveReply) {
        let (lease, seen) = (reply.lease, reply.revision);
        self.counters.paths.lease_keys_gathered += 1;
        let question = Question::Keys { reply, seen };
        self.ask_all(Asker::Call(call), question, |call| Body::LeaseKeys { call, lease });
    }

    fn gathering(&mut self, call: CallId, from: ReactorId) -> Option<&mut Gathering> {
        match &mut self.calls.get_mut(call)?.course {
            Course::Gathering(gathering) => {
                gathering.waiting.retain(|waiting| *waiting != from);
                Some(gathering)
            }
            _ => unreachable!("only a question to all is answered by all"),
        }
    }

    pub(super) fn own_sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        for owned in self.shards.values() {
            add(&mut sizes, owned.shard.store.sizes());
            sizes.bytes_live += EMPTY_SHARD_BYTES;
            sizes.bytes_total += EMPTY_SHARD_BYTES;
        }
        // Every reactor knows the leases; one counts them.
        if self.shards.contains_key(&ShardId::CONTROL) {
            let leases = self.control.leases.len() as u64 * LEASE_BYTES;
            sizes.bytes_live += leases;
            sizes.bytes_total += leases;
        }
        sizes
    }

    pub(super) fn on_census(&mut self, call: CallId) {
        let held: BTreeMap<Resident, u64> =
            self.log.held_for().map(|(resident, _, bytes)| (resident, bytes)).collect();
        let shards = self.shards.values().map(|Owned { shard, .. }| ShardFigures {
            shard: shard.id,
            sizes: shard.store.sizes(),
            committed: shard.group().committed(),
            applied: shard.group().applied(),
            log_bytes: held.get(&Resident { shard: shard.id, home: shard.home }).copied().unwrap_or(0),
        });
        let shards: Vec<ShardFigures> = shards.collect();
        let census = Census {
            sizes: self.own_sizes(),
            raft_index: shards.iter().map(|shard| shard.committed.0).sum(),
            raft_applied_index: shards.iter().map(|shard| shard.applied.0).sum(),
            counters: self.counters_now(),
            shards,
            compacted_at: self.storage.compacted_at,
            process: self.process,
        };
        self.send(call.reactor, Body::CensusIs { call, census: Box::new(census) });
    }

    pub(super) fn on_census_is(&mut self, from: ReactorId, call: CallId, census: Census) {
        let Some(gathering) = self.gathering(call, from) else { return };
        let done = gathering.waiting.is_empty();
        match &mut gathering.question {
            Question::Status(sum) => sum.add(&census),
            Question::Figures { rows, .. } => {
                rows.insert(from, census);
            }
            _ => unreachable!("a census is taken for Status and metrics"),
        }
        if !done {
            return;
        }
        let question = std::mem::replace(&mut gathering.question, Question::Answered);
        match question {
            Question::Status(sum) => {
                let reply = Reply::Status(self.status(&sum));
                self.finish(call, Ok(reply));
            }
            Question::Figures { rpc, page: Page::Vars, rows } => {
                self.calls.remove(call);
                let page = self.vars_page(&rows);
                self.show_page(rpc, &page);
            }
            Question::Figures { rpc, rows, .. } => {
                self.calls.remove(call);
                let page = self.metrics_page(rows);
                self.counters.scrapes += 1;
                self.show_page(rpc, &page);
            }
            _ => unreachable!("matched above"),
        }
    }

    fn status(&self, sum: &Census) -> StatusReply {
        let leads = self.stage == Stage::Serving;
        let alarms = self.control.alarms(AlarmType::None);
        let no_leader = (!leads).then(|| Error::NoLeader.to_string());
        StatusReply {
            revision: self.sequencer.settled(),
            db_size_bytes: sum.sizes.db_bytes(),
            db_size_in_use_bytes: sum.sizes.db_bytes_in_use(),
            db_size_quota_bytes: self.settings.quota_shown(),
            leader: if leads { self.settings.member } else { MemberId(0) },
            raft_index: sum.raft_index,
            raft_applied_index: sum.raft_applied_index,
            raft_term: self.epoch.term.0,
            errors: no_leader.into_iter().chain(alarms.iter().map(alarm_text)).collect(),
            is_learner: false,
        }
    }

    pub(super) fn on_lease_keys_are(
        &mut self,
        from: ReactorId,
        call: CallId,
        keys: Vec<Blob>,
        newer: Revision,
    ) {
        let Some(gathering) = self.gathering(call, from) else { return };
        let done = gathering.waiting.is_empty();
        let Question::Keys { reply, seen } = &mut gathering.question else {
            unreachable!("keys are gathered for a lease")
        };
        reply.keys.extend(keys);
        *seen = newer.max(*seen);
        if done {
            reply.keys.sort();
            let (reply, seen) = (std::mem::take(reply), *seen);
            let reply = LeaseTimeToLiveReply { revision: seen, ..reply };
            self.hold(seen, call, Ok(Reply::LeaseTimeToLive(reply)));
        }
    }

    pub(super) fn on_defragmented(&mut self, from: ReactorId, call: CallId, done: Result<(), Error>) {
        let Some(gathering) = self.gathering(call, from) else { return };
        if let Err(error) = done {
            return self.finish(call, Err(error));
        }
        if !gathering.waiting.is_empty() {
            return;
        }
        if let Question::Defragment { begun } = gathering.question {
            let took = self.now.since(begun);
            self.counters.times.defragmentations.observe(took.0);
            self.notice(Level::Info, "finished defragment", [("took", took.into())]);
        }
        self.finish(call, Ok(Reply::Defragment));
    }

    /// Whether a write of this cost would pass the quota. The other reactors' shares are as last heard,
    /// which is at most a step of bytes ago.
    pub(super) fn is_over_quota(&mut self, cost: u64) -> bool {
        let Some(quota) = self.settings.quota_bytes else { return false };
        let own = self.own_sizes();
        self.sizes.set(self.id, own);
        self.sizes.bytes_total() + cost >= quota
    }

    /// Tells the others how much this reactor's shards hold, where it has changed by a step.
    pub(super) fn tell_sizes(&mut self) {
        let sizes = self.own_sizes();
        if sizes.bytes_total.abs_diff(self.sizes.told) < self.settings.bounds.sizes_step_bytes {
            return;
        }
        self.sizes.told = sizes.bytes_total;
        for reactor in 0..self.reactors {
            self.send(ReactorId(reactor), Body::Sizes { sizes });
        }
    }

    /// `call` is answered when the alarm stands.
    pub(super) fn raise_no_space(&mut self, call: Option<CallId>) {
        self.send(ReactorId(0), Body::NoSpace { call });
    }
}

/// An alarm as etcd's Status words it: in protobuf's text form, which leaves out what is 0.
fn alarm_text(alarm: &Alarm) -> String {
    let member = (alarm.member != MemberId(0)).then(|| format!("memberID:{}", alarm.member.0));
    let kind = match alarm.alarm {
        AlarmType::NoSpace => Some("alarm:NOSPACE".to_owned()),
        AlarmType::Corrupt => Some("alarm:CORRUPT".to_owned()),
        AlarmType::None => None,
        AlarmType::Unknown(number) => Some(format!("alarm:{number}")),
    };
    member.into_iter().chain(kind).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_reads_as_in_etcds_status() {
        for (member, alarm, text) in [
            (5, AlarmType::NoSpace, "memberID:5 alarm:NOSPACE"),
            (0, AlarmType::NoSpace, "alarm:NOSPACE"),
            (0, AlarmType::Corrupt, "alarm:CORRUPT"),
            (5, AlarmType::None, "memberID:5"),
            (5, AlarmType::Unknown(7), "memberID:5 alarm:7"),
        ] {
            assert_eq!(alarm_text(&Alarm { member: MemberId(member), alarm }), text);
        }
    }
}
