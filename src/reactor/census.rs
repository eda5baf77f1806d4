//! Answers that every reactor has a share in: Status, metrics, the keys of a lease, Defragment; and the
//! sizes by which the quota is kept.

use super::Reactor;
use super::calls::{Asker, Course};
use crate::api::{Alarm, AlarmType, LeaseTimeToLiveReply, Reply, StatusReply};
use crate::front::Rpc;
use crate::io::{Body, CallId, Census};
use crate::limits::{EMPTY_SHARD_BYTES, SIZES_STEP_BYTES};
use crate::mvcc::Sizes;
use crate::types::{Blob, ReactorId, Revision};

/// What is asked of all reactors.
#[derive(Debug)]
enum Question {
    Status(Census),
    Metrics { rpc: Rpc, sum: Census },
    Keys { reply: LeaseTimeToLiveReply, seen: Revision },
    Defragment,
}

/// A call that waits for all reactors.
#[derive(Debug)]
pub(super) struct Gathering {
    waiting: Vec<ReactorId>,
    question: Question,
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

    fn bytes_total(&self) -> u64 {
        self.of.iter().map(|sizes| sizes.bytes_total).sum()
    }
}

fn add(sum: &mut Sizes, more: Sizes) {
    sum.keys += more.keys;
    sum.versions += more.versions;
    sum.bytes_live += more.bytes_live;
    sum.bytes_total += more.bytes_total;
}

impl Census {
    fn add(&mut self, more: &Census) {
        add(&mut self.sizes, more.sizes);
        self.raft_index += more.raft_index;
        self.raft_applied_index += more.raft_applied_index;
        self.counters.add(&more.counters);
    }
}

impl Reactor {
    fn ask_all(&mut self, asker: Asker, question: Question, body: impl Fn(CallId) -> Body) -> CallId {
        let waiting: Vec<ReactorId> = (0..self.reactors).map(ReactorId).collect();
        let gathering = Gathering { waiting: waiting.clone(), question };
        let call = self.begin_call(asker, Course::Gathering(Box::new(gathering)));
        for reactor in waiting {
            self.send(reactor, body(call));
        }
        call
    }

    pub(super) fn take_census(&mut self, asker: Asker) {
        self.ask_all(asker, Question::Status(Census::default()), |call| Body::Census { call });
    }

    /// The figures of all reactors, for the text of /metrics.
    pub(super) fn take_metrics(&mut self, rpc: Rpc) {
        let question = Question::Metrics { rpc, sum: Census::default() };
        self.ask_all(Asker::Nobody, question, |call| Body::Census { call });
    }

    pub(super) fn defragment(&mut self, asker: Asker) {
        let call = self.ask_all(asker, Question::Defragment, |call| Body::Defragment { call });
        // As long as its checkpoints are; etcd has no deadline here either.
        self.calls.keep(call);
    }

    pub(super) fn gather_lease_keys(&mut self, call: CallId, reply: LeaseTimeToLiveReply) {
        let (lease, seen) = (reply.lease, reply.revision);
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
        sizes
    }

    pub(super) fn on_census(&mut self, call: CallId) {
        let groups = self.shards.values().map(|owned| owned.shard.group());
        let census = Census {
            sizes: self.own_sizes(),
            raft_index: groups.clone().map(|group| group.committed().0).sum(),
            raft_applied_index: groups.map(|group| group.applied().0).sum(),
            counters: self.counters_now(),
        };
        self.send(call.reactor, Body::CensusIs { call, census: Box::new(census) });
    }

    pub(super) fn on_census_is(&mut self, from: ReactorId, call: CallId, census: Census) {
        let Some(gathering) = self.gathering(call, from) else { return };
        let done = gathering.waiting.is_empty();
        match &mut gathering.question {
            Question::Status(sum) | Question::Metrics { sum, .. } => sum.add(&census),
            _ => unreachable!("a census is taken for Status and metrics"),
        }
        if !done {
            return;
        }
        let question = std::mem::replace(&mut gathering.question, Question::Defragment);
        match question {
            Question::Status(sum) => {
                let reply = Reply::Status(self.status(&sum));
                self.finish(call, Ok(reply));
            }
            Question::Metrics { rpc, sum } => {
                self.calls.remove(call);
                let page = self.metrics_page(&sum);
                self.show_page(rpc, &page);
            }
            _ => unreachable!("matched above"),
        }
    }

    fn status(&self, sum: &Census) -> StatusReply {
        let alarms = self.control.alarms(AlarmType::None);
        StatusReply {
            revision: self.sequencer.settled(),
            db_size_bytes: sum.sizes.bytes_total,
            db_size_in_use_bytes: sum.sizes.bytes_live,
            db_size_quota_bytes: self.settings.quota_shown(),
            leader: self.settings.member,
            raft_index: sum.raft_index,
            raft_applied_index: sum.raft_applied_index,
            raft_term: self.epoch.term.0,
            errors: alarms.iter().map(alarm_text).collect(),
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

    pub(super) fn on_defragmented(&mut self, from: ReactorId, call: CallId) {
        if self.gathering(call, from).is_some_and(|gathering| gathering.waiting.is_empty()) {
            self.finish(call, Ok(Reply::Defragment));
        }
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
        if sizes.bytes_total.abs_diff(self.sizes.told) < SIZES_STEP_BYTES {
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

/// An alarm as etcd's Status words it.
fn alarm_text(alarm: &Alarm) -> String {
    let name = match alarm.alarm {
        AlarmType::NoSpace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
        AlarmType::None | AlarmType::Unknown(_) => "NONE",
    };
    format!("memberID:{} alarm:{name}", alarm.member.0)
}
