//! Answers that every reactor has a share in: Status, metrics, the keys of a lease, Defragment.

use super::door::is_learner;
use super::{CallState, Calls, ReplyTo, Turn};
use crate::api::{Alarm, AlarmType, Error, LeaseTimeToLiveReply, Reply, StatusReply};
use crate::front::Rpc;
use crate::io::{Body, CallId, Census, Fields, Level, MemberMail, ShardMail};
use crate::types::{Blob, MemberId, ReactorId, Revision, Time};
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
    /// Whether each reactor does it for itself, whoever leads.
    pub(super) fn needs_no_leader(&self) -> bool {
        matches!(self.question, Question::Status(_) | Question::Figures { .. } | Question::Defragment { .. })
    }
}

impl Calls {
    fn ask_all<M: Into<Body>>(
        &mut self,
        turn: &mut Turn,
        reply_to: ReplyTo,
        question: Question,
        mail: impl Fn(CallId) -> M,
    ) {
        let waiting: Vec<ReactorId> = (0..turn.reactors).map(ReactorId).collect();
        let gathering = Gathering { waiting: waiting.clone(), question };
        let has_deadline = !matches!(gathering.question, Question::Defragment { .. });
        let call = self.begin(turn, reply_to, CallState::Gathering(Box::new(gathering)));
        if !has_deadline {
            self.under_way.keep(call); // It takes as long as the data is, and etcd has no deadline here either.
        }
        for reactor in waiting {
            turn.send(reactor, mail(call));
        }
    }

    pub(super) fn take_census(&mut self, turn: &mut Turn, reply_to: ReplyTo) {
        self.ask_all(turn, reply_to, Question::Status(Box::default()), |call| MemberMail::Census { call });
    }

    /// The figures of all reactors, for the text of /metrics or /debug/vars.
    pub(super) fn take_figures(&mut self, turn: &mut Turn, rpc: Rpc, page: Page) {
        let question = Question::Figures { rpc, page, rows: BTreeMap::new() };
        self.ask_all(turn, ReplyTo::Page(rpc), question, |call| MemberMail::Census { call });
    }

    pub(super) fn defragment(&mut self, turn: &mut Turn, reply_to: ReplyTo) {
        turn.log_line(Level::Info, "starting defragment", Fields::default());
        self.ask_all(turn, reply_to, Question::Defragment { begun: turn.now }, |call| {
            MemberMail::Defragment { call }
        });
    }

    pub fn gather_lease_keys(&mut self, turn: &mut Turn, call: CallId, reply: LeaseTimeToLiveReply) {
        let (lease, seen) = (reply.lease, reply.revision);
        turn.counters.paths.lease_keys_gathered += 1;
        let question = Question::Keys { reply, seen };
        self.ask_all(turn, ReplyTo::Call(call), question, |call| ShardMail::LeaseKeys { call, lease });
    }

    fn gathering(&mut self, call: CallId, from: ReactorId) -> Option<&mut Gathering> {
        match &mut self.under_way.get_mut(call)?.state {
            CallState::Gathering(gathering) => {
                assert!(gathering.waiting.contains(&from), "reactor {from} answers once");
                gathering.waiting.retain(|waiting| *waiting != from);
                Some(gathering)
            }
            _ => unreachable!("only a question to all is answered by all"),
        }
    }

    pub fn on_census_is(&mut self, turn: &mut Turn, from: ReactorId, call: CallId, census: Census) {
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
                let reply = Reply::Status(status(turn, &sum));
                self.finish(turn, call, Ok(reply));
            }
            Question::Figures { rpc, page: Page::Vars, rows } => {
                self.under_way.remove(call);
                let page = super::vars::page(turn, &rows);
                self.show_page(turn, rpc, &page);
            }
            Question::Figures { rpc, rows, .. } => {
                self.under_way.remove(call);
                let page = super::metrics::page(turn, rows);
                turn.counters.scrapes += 1;
                self.show_page(turn, rpc, &page);
            }
            _ => unreachable!("matched above"),
        }
    }

    pub fn on_lease_keys_are(
        &mut self,
        turn: &mut Turn,
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
            assert!(reply.keys.is_sorted_by(|a, b| a < b), "a key is one shard's");
            let (reply, seen) = (std::mem::take(reply), *seen);
            let reply = LeaseTimeToLiveReply { revision: seen, ..reply };
            let needs = turn.unbacked(seen);
            turn.hold(needs, call, Ok(Reply::LeaseTimeToLive(reply)));
        }
    }

    pub fn on_defragmented(
        &mut self,
        turn: &mut Turn,
        from: ReactorId,
        call: CallId,
        done: Result<(), Error>,
    ) {
        let Some(gathering) = self.gathering(call, from) else { return };
        if let Err(error) = done {
            return self.finish(turn, call, Err(error));
        }
        if !gathering.waiting.is_empty() {
            return;
        }
        if let Question::Defragment { begun } = gathering.question {
            let took = turn.now.since(begun);
            turn.counters.times.defragmentations.observe(took.0);
            turn.log_line(Level::Info, "finished defragment", [("took", took.into())]);
        }
        self.finish(turn, call, Ok(Reply::Defragment));
    }
}

fn status(turn: &Turn, sum: &Census) -> StatusReply {
    let leader =
        if turn.epoch_state.leads() { Some(turn.settings.member) } else { turn.epoch_state.follows() };
    // While none serves, what this reactor knew last.
    let alarms =
        sum.alarms.clone().map_or_else(|| turn.control.alarms(AlarmType::None), |(_, alarms)| alarms);
    let no_leader = (!turn.epoch_state.knows_leader()).then(|| Error::NoLeader.to_string());
    StatusReply {
        revision: turn.shown(),
        db_size_bytes: sum.sizes.db_bytes(),
        db_size_in_use_bytes: sum.sizes.db_bytes_in_use(),
        db_size_quota_bytes: turn.settings.quota_shown(),
        leader: leader.unwrap_or(MemberId(0)),
        raft_index: sum.raft_index,
        raft_applied_index: sum.raft_applied_index,
        raft_term: turn.term().0,
        errors: no_leader.into_iter().chain(alarms.iter().map(alarm_text)).collect(),
        is_learner: is_learner(turn),
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
