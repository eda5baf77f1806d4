//! Control entries: decided where the control shard lives, proposed when all that was seen is settled,
//! effective in the order of the log, answered when every reactor has them.

use super::super::requests::is_write;
use super::effects::human;
use super::{Leader, Turn};
use crate::api::{
    AlarmAction, AlarmRequest, AlarmType, Answer, CompactRequest, Error, KeepAliveReply, LeaseGrantRequest,
    LeaseTimeToLiveReply, Reply, Request,
};
use crate::control;
use crate::io::{CallId, CallMail, ControlRequest, Fields, Level};
use crate::lease::{Granted, Renewal};
use crate::limits::LEASE_BYTES;
use crate::record::ControlEntry;
use crate::types::{Index, LeaseId, MemberId, Revision, Time};

/// A control entry that is decided and waits to be proposed, with who asked.
#[derive(Debug)]
pub struct Decided {
    pub control: ControlEntry,
    pub call: Option<(CallId, Answer)>,
    /// From then on it is not proposed.
    until: Time,
}

/// Who asks, and until when they wait.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub call: CallId,
    /// The leader itself: it asks little, and many may wait for what it does.
    pub own: bool,
    pub until: Time,
}

/// A request that is not decided.
#[derive(Debug)]
pub struct Asked {
    pub by: Asking,
    pub request: ControlRequest,
}

impl Leader {
    pub(super) fn decide_request(&mut self, turn: &mut Turn, Asked { by, request }: Asked) {
        assert!(turn.epoch_state.leads(), "only who leads decides");
        if by.until <= turn.now {
            // Its client may know by now that it has timed out, and must not find it done.
            return turn.answer(by.call, Err(Error::Timeout));
        }
        if self.pending.len() >= turn.settings.bounds.control_pending_max && !by.own {
            turn.counters.paths.refused_control += 1;
            return turn.answer(by.call, Err(Error::TooManyRequests));
        }
        match request {
            ControlRequest::KeepAlive(lease) => self.keep_alive(turn, by, lease),
            ControlRequest::Client(request) if turn.control.corrupt() && is_write(&request) => {
                self.refuse(turn, by.call, Error::Corrupt);
            }
            ControlRequest::Client(request) => match request {
                Request::LeaseGrant(grant) => self.grant_lease(turn, by, grant),
                Request::LeaseRevoke(lease) => self.revoke_lease(turn, by, lease),
                Request::LeaseTimeToLive { lease, keys } => self.time_to_live(turn, by.call, lease, keys),
                Request::LeaseLeases => self.list_leases(turn, by.call),
                Request::Compact(compact) => self.compact(turn, by, compact),
                Request::Alarm(alarm) => self.alarm(turn, by, &alarm),
                Request::MemberAdd { .. }
                | Request::MemberRemove { .. }
                | Request::MemberUpdate { .. }
                | Request::MemberPromote { .. } => {
                    let request = ControlRequest::Client(request);
                    self.ask_member_change(turn, Asked { by, request });
                }
                _ => unreachable!("other requests are answered elsewhere"),
            },
        }
    }

    /// The request is decided anew when an entry of the lease has taken effect.
    pub(super) fn wait_for_entry(&mut self, turn: &mut Turn, lease: LeaseId, asked: Asked) {
        if self.waiting.len() >= turn.settings.bounds.control_waiting_max && !asked.by.own {
            turn.counters.paths.refused_control += 1;
            return turn.answer(asked.by.call, Err(Error::TooManyRequests));
        }
        turn.counters.paths.control_waited_for_entry += 1;
        self.waiting.push(lease, asked);
    }

    /// Nobody waits any longer for what these would answer: their calls fail where they were made.
    pub fn drop_late(&mut self, turn: &Turn) {
        let now = turn.now;
        self.waiting.retain(|asked| asked.by.until > now);
        self.superseded.retain(|asked| asked.by.until > now);
        self.drop_late_member_changes(now);
    }

    #[cfg(test)]
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.superseded.is_empty() || self.has_waiting_change()
    }

    /// An answer read from the control state: it shows, and waits for, the newest revision taken.
    pub(super) fn hold_read(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        answer: impl FnOnce(Revision) -> Answer,
    ) {
        let current = turn.sequencer.counter();
        self.hold_shown(turn, current, call, answer(current));
    }

    /// Whoever has seen an entry's effect finds it everywhere: what may show one that not every reactor has
    /// waits for them.
    fn hold_shown(&mut self, turn: &mut Turn, revision: Revision, call: CallId, answer: Answer) {
        let needs = turn.unbacked(revision);
        match self.announced.last_entry() {
            Some(mut last) => {
                turn.counters.paths.control_shown_later += 1;
                last.get_mut().answers.push((needs, call, answer));
            }
            None => turn.hold(needs, call, answer),
        }
    }

    pub fn refuse(&mut self, turn: &mut Turn, call: CallId, error: Error) {
        self.hold_read(turn, call, |_| Err(error));
    }

    fn grant_lease(&mut self, turn: &mut Turn, by: Asking, grant: LeaseGrantRequest) {
        if turn.control.no_space() {
            return self.refuse(turn, by.call, Error::NoSpace);
        }
        let granting = self.granting.len() as u64;
        if turn.is_over_quota((granting + 1) * LEASE_BYTES) {
            return turn.raise_no_space(Some(by.call));
        }
        let Granted { lease, ttl_secs } = match turn.control.leases.evaluate_grant(&grant, &mut self.rng) {
            Ok(granted) => granted,
            Err(error) => return self.refuse(turn, by.call, error),
        };
        if !self.granting.insert(lease) {
            let request = ControlRequest::Client(Request::LeaseGrant(grant));
            return self.wait_for_entry(turn, lease, Asked { by, request });
        }
        let revision = turn.sequencer.counter();
        let reply = Reply::LeaseGrant { revision, lease, ttl: ttl_secs };
        let control = ControlEntry::LeaseGrant { lease: lease.0, ttl_secs };
        self.decide_until(turn, control, Some((by.call, Ok(reply))), by.until);
    }

    fn keep_alive(&mut self, turn: &mut Turn, by: Asking, lease: LeaseId) {
        let now = turn.now;
        let ttl = match self.expiry.renew(lease, now) {
            Renewal::Renewed { ttl_secs } => ttl_secs,
            Renewal::Missing => 0,
            Renewal::Expired => {
                // It ends any moment: the renewal is told so then.
                turn.counters.paths.lease_renewed_too_late += 1;
                let request = ControlRequest::KeepAlive(lease);
                return self.wait_for_entry(turn, lease, Asked { by, request });
            }
        };
        turn.counters.leases_renewed += u64::from(ttl > 0);
        let revision = turn.sequencer.counter();
        let reply = KeepAliveReply { revision, lease, ttl };
        self.hold_shown(turn, revision, by.call, Ok(Reply::KeepAlive(reply)));
    }

    fn list_leases(&mut self, turn: &mut Turn, call: CallId) {
        let leases = self.expiry.by_expiry();
        self.hold_read(turn, call, |revision| Ok(Reply::LeaseLeases { revision, leases }));
    }

    fn time_to_live(&mut self, turn: &mut Turn, call: CallId, lease: LeaseId, keys: bool) {
        let now = turn.now;
        let Some(granted) = turn.control.leases.get(lease) else {
            return self.hold_read(turn, call, |revision| {
                let reply = LeaseTimeToLiveReply { revision, lease, ttl: -1, ..Default::default() };
                Ok(Reply::LeaseTimeToLive(reply))
            });
        };
        let ttl = self.expiry.remaining_secs(lease, now).unwrap_or(-1);
        let granted_ttl = granted.ttl_secs;
        let revision = turn.sequencer.counter();
        let reply = LeaseTimeToLiveReply { revision, lease, ttl, granted_ttl, keys: vec![] };
        if keys {
            turn.send(turn.id, CallMail::LeaseKeysWanted { call, reply });
        } else {
            self.hold_shown(turn, revision, call, Ok(Reply::LeaseTimeToLive(reply)));
        }
    }

    fn compact(&mut self, turn: &mut Turn, by: Asking, request: CompactRequest) {
        // What a client may name is at most what it has seen, and that is settled.
        let settled = turn.settled_truth();
        if request.revision <= turn.control.compacted().wire() {
            return self.refuse(turn, by.call, Error::Compacted);
        }
        if request.revision > settled.wire() {
            return self.refuse(turn, by.call, Error::FutureRevision);
        }
        let revision = Revision(request.revision.unsigned_abs());
        if revision <= self.compacting_to {
            // It may yet be lost, and then nothing is compacted.
            if self.superseded.len() >= turn.settings.bounds.control_waiting_max && !by.own {
                turn.counters.paths.refused_control += 1;
                return turn.answer(by.call, Err(Error::TooManyRequests));
            }
            let request = ControlRequest::Client(Request::Compact(request));
            turn.counters.paths.control_outdone += 1;
            return self.superseded.push(revision, Asked { by, request });
        }
        self.compacting_to = revision;
        let answer = Ok(Reply::Compact { revision: settled });
        let control = ControlEntry::Compact { revision: revision.0 };
        if request.physical {
            self.physical.push((revision, by.call, answer));
            turn.counters.paths.compacted_physically += 1;
            self.decide_until(turn, control, None, by.until);
        } else {
            self.decide_until(turn, control, Some((by.call, answer)), by.until);
        }
    }

    fn alarm(&mut self, turn: &mut Turn, Asking { call, until, .. }: Asking, request: &AlarmRequest) {
        let number = control::alarm_number(request.alarm);
        let current = turn.sequencer.counter();
        let alarm = crate::api::Alarm { member: request.member, alarm: request.alarm };
        let comes = |number| self.raising.contains(&(request.member.0, number));
        let stands = turn.control.has_alarm(request.member, request.alarm) || number.is_some_and(comes);
        match (request.action, number) {
            (AlarmAction::Activate, Some(number)) => {
                let reply = Reply::Alarm { revision: current, alarms: vec![alarm] };
                let control = ControlEntry::AlarmOn { member: request.member.0, alarm: number };
                self.decide_until(turn, control, Some((call, Ok(reply))), until);
            }
            (AlarmAction::Deactivate, Some(number)) if stands => {
                let reply = Reply::Alarm { revision: current, alarms: vec![alarm] };
                let control = ControlEntry::AlarmOff { member: request.member.0, alarm: number };
                self.decide_until(turn, control, Some((call, Ok(reply))), until);
            }
            (AlarmAction::Get, _) => {
                let alarms = turn.control.alarms(request.alarm);
                self.hold_read(turn, call, |revision| Ok(Reply::Alarm { revision, alarms }));
            }
            _ => self.hold_read(turn, call, |revision| Ok(Reply::Alarm { revision, alarms: vec![] })),
        }
    }

    /// A reactor found the quota exceeded: the alarm goes through the log, and with it the refusal of the
    /// call that found it.
    pub fn on_no_space(&mut self, turn: &mut Turn, call: Option<CallId>) {
        let member = turn.settings.member;
        let stands = turn.control.has_alarm(member, AlarmType::NoSpace);
        if !turn.epoch_state.leads() {
            // A reactor whose disk is full says so at any time. No call is behind it: none is evaluated now.
            return self.hear_no_space(turn);
        }
        match (call, &mut self.raising_no_space) {
            (Some(call), _) if stands => self.refuse(turn, call, Error::NoSpace),
            (None, _) if stands => {}
            (Some(call), Some(refused)) if refused.len() >= turn.settings.bounds.control_waiting_max => {
                turn.answer(call, Err(Error::TooManyRequests));
            }
            (call, Some(refused)) => refused.extend(call),
            (call, none) => {
                *none = Some(vec![]);
                turn.counters.paths.no_space_raised += 1;
                notice_full(turn, call.is_some());
                let control = ControlEntry::AlarmOn { member: member.0, alarm: control::NO_SPACE };
                self.decide_control(turn, control, call.map(|call| (call, Err(Error::NoSpace))));
            }
        }
    }

    /// The disk or the quota of another member is full.
    pub fn on_no_space_at(&mut self, turn: &mut Turn, member: MemberId) {
        assert!(member != turn.settings.member, "this member's own alarm it raises itself");
        let comes = self.raising.contains(&(member.0, control::NO_SPACE));
        let stands = turn.control.has_alarm(member, AlarmType::NoSpace) || comes;
        if turn.epoch_state.takes_writes() && !stands {
            turn.counters.paths.no_space_raised += 1;
            let control = ControlEntry::AlarmOn { member: member.0, alarm: control::NO_SPACE };
            self.decide_control(turn, control, None);
        }
    }

    /// What is decided is proposed once everything its evaluation could have seen is settled.
    pub(super) fn decide_control(
        &mut self,
        turn: &mut Turn,
        control: ControlEntry,
        call: Option<(CallId, Answer)>,
    ) {
        self.decide_until(turn, control, call, Time::NEVER);
    }

    pub(super) fn decide_until(
        &mut self,
        turn: &mut Turn,
        control: ControlEntry,
        call: Option<(CallId, Answer)>,
        until: Time,
    ) {
        if let ControlEntry::AlarmOn { member, alarm } = &control {
            self.raising.push((*member, *alarm));
        }
        let seen = turn.sequencer.counter();
        let waits = seen > turn.settled_truth();
        turn.counters.paths.control_waited += u64::from(waits);
        let behind = self.pending.back().is_none_or(|(last, _)| *last <= seen);
        assert!(behind, "what is decided later has seen as much: {seen}");
        self.pending.push_back((seen, Decided { control, call, until }));
    }

    /// The next entry that may go into the log. Only while the epoch serves: before its seal the log would call it
    /// void, and every reactor here would have seen it take effect.
    pub fn next_to_propose(&mut self, turn: &mut Turn) -> Option<Decided> {
        if !turn.epoch_state.may_propose_control() {
            return None;
        }
        let settled = turn.settled_truth();
        while let Some((_, decided)) = self.pending.pop_front_if(|(seen, _)| *seen <= settled) {
            if decided.until <= turn.now {
                self.give_up(turn, decided);
                continue;
            }
            if let ControlEntry::Compact { revision } = decided.control {
                assert!(Revision(revision) > self.compaction_proposed, "compactions rise: {revision}");
                self.compaction_proposed = Revision(revision);
            }
            return Some(decided);
        }
        None
    }

    /// Nothing is done for whoever may have been told by now that it has timed out. What waited for it is decided
    /// anew.
    fn give_up(&mut self, turn: &mut Turn, Decided { control, call, until }: Decided) {
        assert!(until <= turn.now, "what somebody waits for is proposed");
        let mut calls: Vec<CallId> = call.into_iter().map(|(call, _)| call).collect();
        let woken = match control {
            ControlEntry::LeaseGrant { lease, .. } => {
                self.granting.remove(&LeaseId(lease));
                self.waiting.take(LeaseId(lease))
            }
            ControlEntry::Compact { revision } => {
                let revision = Revision(revision);
                let physical = self.physical.extract_if(.., |(of, ..)| *of == revision);
                calls.extend(physical.map(|(_, call, _)| call));
                if self.compacting_to > revision {
                    return calls.into_iter().for_each(|call| turn.answer(call, Err(Error::Timeout)));
                }
                self.compacting_to = self.compaction_proposed;
                self.superseded.take_upto(revision)
            }
            ControlEntry::AlarmOn { member, alarm } => {
                self.raises_no_more((member, alarm));
                vec![]
            }
            _ => vec![],
        };
        calls.into_iter().for_each(|call| turn.answer(call, Err(Error::Timeout)));
        for asked in woken {
            self.decide_request(turn, asked);
        }
    }

    /// One that was decided is in effect, or is not proposed.
    pub(super) fn raises_no_more(&mut self, alarm: (u64, u8)) {
        // What takes effect may be of an epoch before.
        if let Some(place) = self.raising.iter().position(|of| *of == alarm) {
            self.raising.swap_remove(place);
        }
    }

    /// It stands in the log.
    pub fn proposed(&mut self, index: Index, call: Option<(CallId, Answer)>) {
        let last = self.announced.last_key_value().map(|(last, _)| *last);
        assert!(last.is_none_or(|last| last < index), "an entry takes effect after it was proposed");
        if let Some(call) = call {
            let before = self.proposed.insert(index, call);
            assert!(before.is_none(), "an entry is proposed for one call");
        }
    }

    /// Whether no entry is on its way, and none waits to be known everywhere.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.proposed.is_empty() && self.announced.is_empty()
    }

    /// The revision whose settling lets an entry go into the log.
    pub fn waits_for(&self) -> Option<Revision> {
        self.pending.front().map(|(seen, _)| *seen)
    }
}

/// Tells the operator, in etcd's words where a write found the quota exceeded.
fn notice_full(turn: &mut Turn, by_quota: bool) {
    match turn.settings.quota_bytes.filter(|_| by_quota) {
        Some(quota) => {
            let fields = [("quota-size-bytes", quota.into()), ("quota-size", human(quota).into())];
            turn.log_line(Level::Warn, "message exceeded backend quota; raising alarm", fields);
        }
        None => turn.log_line(Level::Warn, "the disk is full; raising alarm", Fields::default()),
    }
}
