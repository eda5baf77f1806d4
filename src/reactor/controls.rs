//! Control entries: decided where the control shard lives, proposed when all that was seen is settled,
//! effective in the order of the log, answered when every reactor has them.

use super::leading::{Announced, Compaction};
use super::pace::About;
use super::writes::is_write;
use super::{Reactor, Stage};
use crate::api::{
    AlarmAction, AlarmRequest, Answer, CompactRequest, Error, KeepAliveReply, LeaseGrantRequest,
    LeaseTimeToLiveReply, Reply, Request,
};
use crate::control;
use crate::io::{ApplyKind, Body, CallId, ControlRequest, Fields, Level};
use crate::lease::{Granted, Renewal};
use crate::limits::LEASE_BYTES;
use crate::mvcc::Sizes;
use crate::record::{ArchivedChange, ArchivedEntry, Control, Payload};
use crate::takeover::{Due, LiveWrite};
use crate::types::{Index, LeaseId, ReactorId, Revision, ShardId, Time};
use std::sync::Arc;

/// A control entry that is decided and waits to be proposed, with who asked.
#[derive(Debug)]
pub(super) struct Decided {
    control: Control,
    call: Option<(CallId, Answer)>,
}

/// A request that is not decided, and when its client stops waiting for it.
#[derive(Debug)]
pub(super) struct Asked {
    pub call: CallId,
    pub request: ControlRequest,
    pub until: Time,
}

impl Reactor {
    pub(super) fn on_control_request(&mut self, call: CallId, request: ControlRequest) {
        let until = self.now + self.settings.request_timeout();
        self.decide_request(Asked { call, request, until });
    }

    fn decide_request(&mut self, Asked { call, request, until }: Asked) {
        let Some(leading) = &self.leading else { unreachable!("control requests go where the shard is") };
        if leading.pending.len() >= self.settings.bounds.control_pending_max && !self.is_own(call) {
            self.counters.paths.refused_control += 1;
            return self.answer(call, Err(Error::TooManyRequests));
        }
        match request {
            ControlRequest::KeepAlive(lease) => self.keep_alive(call, lease, until),
            ControlRequest::Client(request) if self.control.corrupt() && is_write(&request) => {
                self.refuse(call, Error::Corrupt);
            }
            ControlRequest::Client(request) => match request {
                Request::LeaseGrant(grant) => self.grant_lease(call, grant, until),
                Request::LeaseRevoke(lease) => self.revoke_lease(call, lease, until),
                Request::LeaseTimeToLive { lease, keys } => self.time_to_live(call, lease, keys),
                Request::LeaseLeases => self.list_leases(call),
                Request::Compact(compact) => self.compact(call, compact, until),
                Request::Alarm(alarm) => self.alarm(call, &alarm),
                _ => unreachable!("other requests are answered elsewhere"),
            },
        }
    }

    fn is_own(&self, call: CallId) -> bool {
        call.reactor == self.id && self.calls.get(call).is_some_and(|call| call.asker.is_own())
    }

    /// The request is decided anew when an entry of the lease has taken effect.
    pub(super) fn wait_for_entry(&mut self, lease: LeaseId, asked: Asked) {
        let own = self.is_own(asked.call);
        let Some(leading) = &mut self.leading else { return };
        if leading.waiting.len() >= self.settings.bounds.control_waiting_max && !own {
            self.counters.paths.refused_control += 1;
            return self.answer(asked.call, Err(Error::TooManyRequests));
        }
        self.counters.paths.control_waited_for_entry += 1;
        leading.waiting.push(lease, asked);
    }

    /// Nobody waits any longer for what these would answer: their calls fail where they were made.
    pub(super) fn drop_late_controls(&mut self) {
        let now = self.now;
        if let Some(leading) = &mut self.leading {
            leading.waiting.retain(|asked| asked.until > now);
            leading.outdone.retain(|asked| asked.until > now);
        }
    }

    pub(super) fn has_waiting_controls(&self) -> bool {
        let leading = self.leading.as_ref();
        leading.is_some_and(|leading| !leading.waiting.is_empty() || !leading.outdone.is_empty())
    }

    /// An answer read from the control state: it shows, and waits for, the newest revision taken.
    fn hold_read(&mut self, call: CallId, answer: impl FnOnce(Revision) -> Answer) {
        let current = self.sequencer.counter();
        self.hold_shown(current, call, answer(current));
    }

    /// Whoever has seen an entry's effect finds it everywhere: what may show one that not every reactor has
    /// waits for them.
    fn hold_shown(&mut self, needs: Revision, call: CallId, answer: Answer) {
        match self.leading.as_mut().and_then(|leading| leading.announced.last_entry()) {
            Some(mut last) => {
                self.counters.paths.control_shown_later += 1;
                last.get_mut().answers.push((needs, call, answer));
            }
            None => self.hold(needs, call, answer),
        }
    }

    pub(super) fn refuse(&mut self, call: CallId, error: Error) {
        self.hold_read(call, |_| Err(error));
    }

    fn grant_lease(&mut self, call: CallId, grant: LeaseGrantRequest, until: Time) {
        if self.control.no_space() {
            return self.refuse(call, Error::NoSpace);
        }
        let granting = self.leading.as_ref().map_or(0, |leading| leading.granting.len()) as u64;
        if self.is_over_quota((granting + 1) * LEASE_BYTES) {
            return self.raise_no_space(Some(call));
        }
        let Some(leading) = &mut self.leading else { return };
        let Granted { lease, ttl_secs } = match self.control.leases.evaluate_grant(&grant, &mut leading.rng) {
            Ok(granted) => granted,
            Err(error) => return self.refuse(call, error),
        };
        if !leading.granting.insert(lease) {
            let request = ControlRequest::Client(Request::LeaseGrant(grant));
            return self.wait_for_entry(lease, Asked { call, request, until });
        }
        let revision = self.sequencer.counter();
        let reply = Reply::LeaseGrant { revision, lease, ttl: ttl_secs };
        self.decide_control(Control::LeaseGrant { lease: lease.0, ttl_secs }, Some((call, Ok(reply))));
    }

    fn keep_alive(&mut self, call: CallId, lease: LeaseId, until: Time) {
        let now = self.now;
        let Some(leading) = &mut self.leading else { return };
        let ttl = match leading.expiry.renew(lease, now) {
            Renewal::Renewed { ttl_secs } => ttl_secs,
            Renewal::Missing => 0,
            Renewal::Expired => {
                // It ends any moment: the renewal is told so then.
                self.counters.paths.lease_renewed_too_late += 1;
                let request = ControlRequest::KeepAlive(lease);
                return self.wait_for_entry(lease, Asked { call, request, until });
            }
        };
        self.counters.leases_renewed += u64::from(ttl > 0);
        let revision = self.sequencer.counter();
        let reply = KeepAliveReply { revision, lease, ttl };
        self.hold_shown(revision, call, Ok(Reply::KeepAlive(reply)));
    }

    fn list_leases(&mut self, call: CallId) {
        let Some(leading) = &mut self.leading else { return };
        let leases = leading.expiry.by_expiry();
        self.hold_read(call, |revision| Ok(Reply::LeaseLeases { revision, leases }));
    }

    fn time_to_live(&mut self, call: CallId, lease: LeaseId, keys: bool) {
        let now = self.now;
        let Some(leading) = &mut self.leading else { return };
        let Some(granted) = self.control.leases.get(lease) else {
            return self.hold_read(call, |revision| {
                let reply = LeaseTimeToLiveReply { revision, lease, ttl: -1, ..Default::default() };
                Ok(Reply::LeaseTimeToLive(reply))
            });
        };
        let ttl = leading.expiry.remaining_secs(lease, now).unwrap_or(-1);
        let granted_ttl = granted.ttl_secs;
        let revision = self.sequencer.counter();
        let reply = LeaseTimeToLiveReply { revision, lease, ttl, granted_ttl, keys: vec![] };
        if keys {
            self.gather_lease_keys(call, reply);
        } else {
            self.hold_shown(revision, call, Ok(Reply::LeaseTimeToLive(reply)));
        }
    }

    fn compact(&mut self, call: CallId, request: CompactRequest, until: Time) {
        // What a client may name is at most what it has seen, and that is settled.
        let settled = self.sequencer.settled();
        let own = self.is_own(call);
        let Some(leading) = &mut self.leading else { return };
        if request.revision <= self.control.compacted().wire() {
            return self.refuse(call, Error::Compacted);
        }
        if request.revision > settled.wire() {
            return self.refuse(call, Error::FutureRevision);
        }
        let revision = Revision(request.revision.unsigned_abs());
        if revision <= leading.compacting_to {
            // It may yet be lost, and then nothing is compacted.
            if leading.outdone.len() >= self.settings.bounds.control_waiting_max && !own {
                self.counters.paths.refused_control += 1;
                return self.answer(call, Err(Error::TooManyRequests));
            }
            let request = ControlRequest::Client(Request::Compact(request));
            self.counters.paths.control_outdone += 1;
            return leading.outdone.push(revision, Asked { call, request, until });
        }
        leading.compacting_to = revision;
        let answer = Ok(Reply::Compact { revision: settled });
        if request.physical {
            leading.physical.push((revision, call, answer));
            self.counters.paths.compacted_physically += 1;
            self.decide_control(Control::Compact { revision: revision.0 }, None);
        } else {
            self.decide_control(Control::Compact { revision: revision.0 }, Some((call, answer)));
        }
    }

    fn alarm(&mut self, call: CallId, request: &AlarmRequest) {
        let number = control::alarm_number(request.alarm);
        let current = self.sequencer.counter();
        let alarm = crate::api::Alarm { member: request.member, alarm: request.alarm };
        let stands = self.control.has_alarm(request.member, request.alarm);
        match (request.action, number) {
            (AlarmAction::Activate, Some(number)) => {
                let reply = Reply::Alarm { revision: current, alarms: vec![alarm] };
                let control = Control::AlarmOn { member: request.member.0, alarm: number };
                self.decide_control(control, Some((call, Ok(reply))));
            }
            (AlarmAction::Deactivate, Some(number)) if stands => {
                let reply = Reply::Alarm { revision: current, alarms: vec![alarm] };
                let control = Control::AlarmOff { member: request.member.0, alarm: number };
                self.decide_control(control, Some((call, Ok(reply))));
            }
            (AlarmAction::Get, _) => {
                let alarms = self.control.alarms(request.alarm);
                self.hold_read(call, |revision| Ok(Reply::Alarm { revision, alarms }));
            }
            _ => self.hold_read(call, |revision| Ok(Reply::Alarm { revision, alarms: vec![] })),
        }
    }

    /// A reactor found the quota exceeded: the alarm goes through the log, and with it the refusal of the
    /// call that found it.
    pub(super) fn on_no_space(&mut self, call: Option<CallId>) {
        let member = self.settings.member;
        let stands = self.control.has_alarm(member, crate::api::AlarmType::NoSpace);
        let serves = self.stage == Stage::Serving;
        let Some(leading) = &mut self.leading else { return };
        if !serves {
            // A reactor whose disk is full says so at any time. No call is behind it: none is evaluated now.
            leading.no_space_heard = true;
            return;
        }
        match (call, &mut leading.raising_no_space) {
            (Some(call), _) if stands => self.refuse(call, Error::NoSpace),
            (None, _) if stands => {}
            (Some(call), Some(refused)) if refused.len() >= self.settings.bounds.control_waiting_max => {
                self.answer(call, Err(Error::TooManyRequests));
            }
            (call, Some(refused)) => refused.extend(call),
            (call, none) => {
                *none = Some(vec![]);
                self.counters.paths.no_space_raised += 1;
                self.notice_full(call.is_some());
                let control = Control::AlarmOn { member: member.0, alarm: control::NO_SPACE };
                self.decide_control(control, call.map(|call| (call, Err(Error::NoSpace))));
            }
        }
    }

    /// In etcd's words, where a write found the quota exceeded.
    fn notice_full(&mut self, by_quota: bool) {
        match self.settings.quota_bytes.filter(|_| by_quota) {
            Some(quota) => {
                let fields = [("quota-size-bytes", quota.into()), ("quota-size", human(quota).into())];
                self.notice(Level::Warn, "message exceeded backend quota; raising alarm", fields);
            }
            None => self.notice(Level::Warn, "the disk is full; raising alarm", Fields::default()),
        }
    }

    /// A control entry of the lead's own.
    pub(super) fn propose_later(&mut self, control: Control) {
        self.decide_control(control, None);
    }

    /// What is decided is proposed once everything its evaluation could have seen is settled.
    pub(super) fn decide_control(&mut self, control: Control, call: Option<(CallId, Answer)>) {
        let seen = self.sequencer.counter();
        let waits = seen > self.sequencer.settled();
        let Some(leading) = &mut self.leading else { return };
        self.counters.paths.control_waited += u64::from(waits);
        leading.pending.push_back((seen, Decided { control, call }));
        self.propose_pending();
    }

    /// Only while the epoch serves: before its seal the log would call the entry void, and every reactor here
    /// would have seen it take effect.
    pub(super) fn propose_pending(&mut self) {
        if self.stage != Stage::Serving {
            return;
        }
        let settled = self.sequencer.settled();
        while let Some(leading) = &mut self.leading {
            let due = leading.pending.pop_front_if(|(seen, _)| *seen <= settled);
            let Some((_, Decided { control, call })) = due else { return };
            let (epoch, entry_bytes) = (self.epoch, self.settings.entry_bytes_max);
            let shard = self.control_shard();
            // A revoke's part may stand in this turn's effects: the log keeps the order of decisions.
            let proposed = shard
                .propose_turn(epoch, settled, entry_bytes)
                .and_then(|()| shard.propose_control(epoch, settled, control));
            match proposed {
                Ok(index) => {
                    if let (Some(leading), Some(call)) = (&mut self.leading, call) {
                        leading.proposed.insert(index, call);
                    }
                }
                Err(_) => return self.lose_epoch(),
            }
        }
    }

    /// The revision whose settling lets the control shard go on.
    pub(super) fn due_revision(&self) -> Option<Revision> {
        let pending = self.leading.as_ref().and_then(|leading| leading.pending.front());
        let owned = self.shards.get(&ShardId::CONTROL)?;
        let part = owned.shard.meaning().live().next().map(|write| write.revision);
        pending.map(|(seen, _)| *seen).into_iter().chain(part).min()
    }

    /// What of the control log is due takes effect, here and, by mail, everywhere.
    pub(super) fn apply_due_controls(&mut self) {
        let settled = self.settled;
        while let Some(due) = self.shards.get_mut(&ShardId::CONTROL).and_then(|o| o.shard.next_due(settled)) {
            match due {
                Due::Control(index, payload) => self.take_effect(index, &payload),
                Due::Write(write) => self.take_part_effect(&write),
            }
        }
    }

    fn take_effect(&mut self, index: Index, payload: &Payload) {
        let Ok(crate::record::Entry::Control { control, .. }) = payload.to_entry() else {
            unreachable!("the log's meaning has read it as a control entry")
        };
        self.change_control(index, control);
    }

    /// The control shard's part of a revision: leases end with it.
    fn take_part_effect(&mut self, write: &LiveWrite) {
        let Ok(ArchivedEntry::Batch(batch)) = write.batch.entry() else {
            unreachable!("the log's meaning has read it as a batch")
        };
        let ended: Vec<i64> = batch.writes[write.place as usize]
            .changes
            .iter()
            .filter_map(|change| match change {
                ArchivedChange::LeaseEnd { lease } => Some(lease.to_native()),
                _ => None,
            })
            .collect();
        for lease in ended {
            self.change_control(write.index, Control::LeaseEnd { lease });
        }
    }

    fn change_control(&mut self, index: Index, change: Control) {
        let bootstrap = matches!(change, Control::Bootstrap { .. });
        self.control.apply(index, &change);
        if bootstrap {
            return self.on_bootstrapped();
        }
        let reactors: Vec<ReactorId> = (1..self.reactors).map(ReactorId).collect();
        let change = Arc::new(change);
        if self.stage == Stage::Serving {
            for reactor in &reactors {
                self.send(*reactor, Body::ControlIs { index, change: change.clone() });
            }
        }
        let Some(leading) = &mut self.leading else { return };
        let answer = leading.proposed.remove(&index).map(|(call, answer)| (Revision::NONE, call, answer));
        let answers = answer.into_iter().collect();
        leading.announced.insert(index, Announced { waiting: reactors, answers });
        // Last: it may let later entries take effect, which everybody hears of later.
        self.follow_control(index, &change);
        self.answer_announced();
    }

    /// What the lead keeps beside the control state follows it.
    fn follow_control(&mut self, index: Index, change: &Control) {
        let now = self.now;
        self.note_control(change);
        if let Some(leading) = &mut self.leading {
            let woken = match change {
                Control::LeaseGrant { lease, ttl_secs } => {
                    leading.expiry.grant(LeaseId(*lease), *ttl_secs, now);
                    leading.granting.remove(&LeaseId(*lease));
                    self.counters.leases_granted += 1;
                    self.counters.times.lease_ttls.observe(ttl_secs.unsigned_abs());
                    leading.waiting.take(LeaseId(*lease))
                }
                Control::LeaseEnd { lease } => {
                    leading.expiry.end(LeaseId(*lease));
                    leading.ending.remove(&LeaseId(*lease));
                    self.counters.leases_revoked += 1;
                    leading.waiting.take(LeaseId(*lease))
                }
                Control::Compact { revision } => leading.outdone.take_upto(Revision(*revision)),
                Control::AlarmOn { alarm: control::NO_SPACE, .. } => {
                    for call in leading.raising_no_space.take().unwrap_or_default() {
                        self.refuse(call, Error::NoSpace);
                    }
                    vec![]
                }
                _ => vec![],
            };
            for asked in woken {
                self.decide_request(asked);
            }
        }
        self.after_control_change(index, change);
    }

    /// Counts a control entry that takes effect, and tells the operator of an alarm.
    fn note_control(&mut self, change: &Control) {
        if !self.leading.as_ref().is_some_and(|leading| leading.serves) {
            return;
        }
        let kind = match change {
            Control::LeaseGrant { .. } => ApplyKind::LeaseGrant,
            Control::LeaseEnd { .. } => ApplyKind::LeaseRevoke,
            Control::Compact { .. } => ApplyKind::Compaction,
            Control::AlarmOn { .. } | Control::AlarmOff { .. } => ApplyKind::Alarm,
            Control::MemberAttributes { .. } => ApplyKind::MemberAttributes,
            Control::Bootstrap { .. }
            | Control::Intent(_)
            | Control::IntentDone { .. }
            | Control::FeatureLevel { .. } => return,
        };
        self.applied(kind, true, self.now, About::default());
        let begun = self.now;
        if let (Some(leading), ApplyKind::Compaction) = (&mut self.leading, kind) {
            leading.compaction.get_or_insert(Compaction { begun, dropped: 0 });
        }
        let (level, message, member, alarm) = match change {
            Control::AlarmOn { member, alarm } => (Level::Warn, "alarm raised", member, alarm),
            Control::AlarmOff { member, alarm } => (Level::Info, "alarm disarmed", member, alarm),
            _ => return,
        };
        let fields = [("alarm", control::alarm_name(*alarm).into()), ("from", format!("{member:x}").into())];
        self.notice(level, message, fields);
    }

    fn after_control_change(&mut self, _: Index, change: &Control) {
        if matches!(change, Control::Compact { .. }) {
            self.apply_compaction();
        }
        if let Control::LeaseEnd { lease } = *change {
            self.run_lease_waiting(LeaseId(lease));
            self.retry_spread(LeaseId(lease));
        }
    }

    /// News of the control state at a reactor without the control shard.
    pub(super) fn on_control_is(&mut self, index: Index, change: &Control) {
        self.control.apply(index, change);
        self.after_control_change(index, change);
        self.send(ReactorId(0), Body::ControlKnown { index });
    }

    pub(super) fn on_control_known(&mut self, from: ReactorId, index: Index) {
        let Some(leading) = &mut self.leading else { return };
        if let Some(announced) = leading.announced.get_mut(&index) {
            announced.waiting.retain(|reactor| *reactor != from);
        }
        self.answer_announced();
    }

    fn answer_announced(&mut self) {
        while let Some(leading) = &mut self.leading {
            let Some(entry) = leading.announced.first_entry() else { return };
            if !entry.get().waiting.is_empty() {
                return;
            }
            for (needs, call, answer) in entry.remove().answers {
                self.hold(needs, call, answer);
            }
        }
    }

    /// The compaction in effect takes hold of this reactor's shards; history goes in later turns' slices.
    /// During a takeover the stores are behind it, and serving begins with it.
    pub(super) fn apply_compaction(&mut self) {
        if self.stage != Stage::Serving {
            return;
        }
        self.on_settled(self.sequencer.settled());
        let compacted = self.control.compacted();
        for owned in self.shards.values_mut().filter(|owned| owned.shard.id != ShardId::CONTROL) {
            if owned.shard.store.compacted() < compacted {
                owned.shard.store.compact(compacted);
                owned.compacting = true;
                self.storage.compacts(self.now);
            }
        }
        self.watches_compacted();
        self.report_compacted();
    }

    /// Says up to where this reactor has dropped history: a pin may hold some of it longer than the compaction's
    /// slices take.
    pub(super) fn report_compacted(&mut self) {
        if self.shards.values().all(|owned| owned.shard.store.is_swept()) {
            let revision = self.control.compacted();
            let (dropped, sizes) = (self.storage.take_dropped(), self.own_sizes());
            self.send(ReactorId(0), Body::Compacted { revision, dropped, sizes });
        }
    }

    pub(super) fn on_compacted(&mut self, from: ReactorId, revision: Revision, dropped: u64, sizes: Sizes) {
        self.sizes.set(from, sizes);
        let compacted = self.control.compacted();
        let Some(leading) = &mut self.leading else { return };
        leading.compacted_by.insert(from, revision);
        if let Some(compaction) = &mut leading.compaction {
            compaction.dropped += dropped;
        }
        if leading.compacted_by.len() < usize::from(self.reactors) {
            return;
        }
        if leading.compacted_by.values().all(|by| *by >= compacted)
            && let Some(compaction) = leading.compaction.take()
        {
            self.notice_compacted(compacted, &compaction);
        }
        let Some(leading) = &mut self.leading else { return };
        let all = leading.compacted_by.values().min().copied().unwrap_or_default();
        let (done, waiting) =
            std::mem::take(&mut leading.physical).into_iter().partition(|(r, ..)| *r <= all);
        leading.physical = waiting;
        let done: Vec<_> = done;
        for (_, call, answer) in done {
            self.answer(call, answer);
        }
    }

    /// In etcd's words.
    fn notice_compacted(&mut self, revision: Revision, compaction: &Compaction) {
        let sizes = self.sizes.sum();
        let (total, in_use) = (sizes.db_bytes(), sizes.db_bytes_in_use());
        let fields = [
            ("compact-revision", revision.wire().into()),
            ("took", self.now.since(compaction.begun).into()),
            ("number-of-keys-compacted", compaction.dropped.into()),
            ("current-db-size-bytes", total.into()),
            ("current-db-size", human(total).into()),
            ("current-db-size-in-use-bytes", in_use.into()),
            ("current-db-size-in-use", human(in_use).into()),
        ];
        self.notice(Level::Info, "finished scheduled compaction", fields);
    }
}

/// Bytes as etcd's log shows them to people: in powers of 1000, with one digit behind the point below ten.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut size = bytes as f64;
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    if unit > 0 && size < 10.0 {
        format!("{:.1} {}", (size * 10.0 + 0.5).floor() / 10.0, UNITS[unit])
    } else {
        format!("{} {}", (size + if unit > 0 { 0.5 } else { 0.0 }).floor(), UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    /// As etcd 3.7.1 was seen to show them.
    #[test]
    fn sizes_read_as_in_etcds_log() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (921_600, "922 kB"),
            (929_792, "930 kB"),
            (1_691_648, "1.7 MB"),
            (1_794_048, "1.8 MB"),
            (2_147_483_648, "2.1 GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
