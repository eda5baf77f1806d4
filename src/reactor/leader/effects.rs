//! What follows when a control entry takes effect: whoever asked for it is answered once every reactor has it.

use super::super::gate::Needs;
use super::super::pace::About;
use super::{Compaction, Leader, Turn};
use crate::api::Error;
use crate::control;
use crate::io::{ApplyKind, Level, MemberMail};
use crate::mvcc::Sizes;
use crate::record::ControlEntry;
use crate::types::{Index, LeaseId, ReactorId, Revision};

impl Leader {
    /// A change has taken effect here, and the other reactors hear of it. One entry may make several: the ends of
    /// leases are parts of it.
    pub fn announce(&mut self, index: Index, others: Vec<ReactorId>) {
        let newest = self.announced.last_key_value().is_none_or(|(last, _)| *last <= index);
        assert!(newest, "entries take effect in the order of the log");
        let answer =
            self.proposed.remove(&index).map(|(call, answer)| (Needs::entry(Revision::NONE), call, answer));
        let announced = self.announced.entry(index).or_default();
        announced.waiting.extend(others);
        announced.answers.extend(answer);
    }

    /// What the leader keeps beside the control state follows it.
    pub fn follow(&mut self, turn: &mut Turn, change: &ControlEntry) {
        self.note_control(turn, change);
        let woken = match change {
            ControlEntry::LeaseGrant { lease, ttl_secs } => {
                self.expiry.grant(LeaseId(*lease), *ttl_secs, turn.now);
                self.granting.remove(&LeaseId(*lease));
                turn.counters.leases_granted += 1;
                turn.counters.times.lease_ttls.observe(ttl_secs.unsigned_abs());
                self.waiting.take(LeaseId(*lease))
            }
            ControlEntry::LeaseEnd { lease } => {
                self.expiry.end(LeaseId(*lease));
                self.ending.remove(&LeaseId(*lease));
                turn.counters.leases_revoked += 1;
                self.waiting.take(LeaseId(*lease))
            }
            ControlEntry::Compact { revision } => self.superseded.take_upto(Revision(*revision)),
            ControlEntry::AlarmOn { alarm, member } => {
                self.raises_no_more((*member, *alarm));
                if *alarm == control::NO_SPACE {
                    self.no_space_heard &= *member != turn.settings.member.0;
                    for call in self.raising_no_space.take().unwrap_or_default() {
                        self.refuse(turn, call, Error::NoSpace);
                    }
                }
                vec![]
            }
            _ => vec![],
        };
        for asked in woken {
            self.decide_request(turn, asked);
        }
    }

    /// Counts a control entry that takes effect, and tells the operator of an alarm.
    fn note_control(&mut self, turn: &mut Turn, change: &ControlEntry) {
        if !self.serves {
            return;
        }
        let kind = match change {
            ControlEntry::LeaseGrant { .. } => ApplyKind::LeaseGrant,
            ControlEntry::LeaseEnd { .. } => ApplyKind::LeaseRevoke,
            ControlEntry::Compact { .. } => ApplyKind::Compaction,
            ControlEntry::AlarmOn { .. } | ControlEntry::AlarmOff { .. } => ApplyKind::Alarm,
            ControlEntry::MemberAttributes { .. } => ApplyKind::MemberAttributes,
            ControlEntry::Bootstrap { .. } => return,
            ControlEntry::Intent(_)
            | ControlEntry::IntentDone { .. }
            | ControlEntry::MemberUrls { .. }
            | ControlEntry::StandAlone { .. } => return self.note_member_change(turn, change),
            ControlEntry::FeatureLevel { .. } => return,
        };
        turn.applied(kind, true, turn.now, About::default());
        if kind == ApplyKind::Compaction {
            self.compaction.get_or_insert(Compaction { begun: turn.now, dropped: 0 });
        }
        let (level, message, member, alarm) = match change {
            ControlEntry::AlarmOn { member, alarm } => (Level::Warn, "alarm raised", member, alarm),
            ControlEntry::AlarmOff { member, alarm } => (Level::Info, "alarm disarmed", member, alarm),
            _ => return,
        };
        let fields = [("alarm", control::alarm_name(*alarm).into()), ("from", format!("{member:x}").into())];
        turn.log_line(level, message, fields);
    }

    pub fn on_control_known(&mut self, turn: &mut Turn, from: ReactorId, index: Index) {
        if let Some(announced) = self.announced.get_mut(&index) {
            // It says so once for each change.
            let place = announced.waiting.iter().position(|reactor| *reactor == from);
            announced.waiting.swap_remove(place.expect("a reactor knows what it was told"));
        }
        self.answer_announced(turn);
    }

    /// What waited until every reactor has an entry is answered, in the order of the entries.
    pub fn answer_announced(&mut self, turn: &mut Turn) {
        while let Some(entry) = self.announced.first_entry() {
            if !entry.get().waiting.is_empty() {
                return;
            }
            for (needs, call, answer) in entry.remove().answers {
                turn.hold(needs, call, answer);
            }
        }
    }

    pub fn on_compacted(
        &mut self,
        turn: &mut Turn,
        from: ReactorId,
        revision: Revision,
        dropped: u64,
        sizes: Sizes,
    ) {
        turn.sizes.set(from, sizes);
        let compacted = turn.control.compacted();
        let before = self.compacted_by.insert(from, revision);
        assert!(before.is_none_or(|before| before <= revision), "what is dropped does not come back");
        assert!(revision <= compacted, "nobody drops what the log has not compacted: {revision}");
        if let Some(compaction) = &mut self.compaction {
            compaction.dropped += dropped;
        }
        if self.compacted_by.len() < usize::from(turn.reactors) {
            return;
        }
        if self.compacted_by.values().all(|by| *by >= compacted)
            && let Some(compaction) = self.compaction.take()
        {
            notice_compacted(turn, compacted, &compaction);
        }
        let all = self.compacted_by.values().min().copied().unwrap_or_default();
        if all > self.dropped && !turn.is_alone() {
            turn.send_to_all(|| MemberMail::HistoryDropped { upto: all });
        }
        self.dropped = all;
        let (done, waiting) = std::mem::take(&mut self.physical).into_iter().partition(|(r, ..)| *r <= all);
        self.physical = waiting;
        let done: Vec<_> = done;
        for (_, call, answer) in done {
            turn.answer(call, answer);
        }
    }
}

/// Tells the operator of a compaction, in etcd's words.
fn notice_compacted(turn: &mut Turn, revision: Revision, compaction: &Compaction) {
    let sizes = turn.sizes.sum();
    let (total, in_use) = (sizes.db_bytes(), sizes.db_bytes_in_use());
    let fields = [
        ("compact-revision", revision.wire().into()),
        ("took", turn.now.since(compaction.begun).into()),
        ("number-of-keys-compacted", compaction.dropped.into()),
        ("current-db-size-bytes", total.into()),
        ("current-db-size", human(total).into()),
        ("current-db-size-in-use-bytes", in_use.into()),
        ("current-db-size-in-use", human(in_use).into()),
    ];
    turn.log_line(Level::Info, "finished scheduled compaction", fields);
}

/// Bytes as etcd's log shows them to people: in powers of 1000, with one digit behind the point below ten.
pub(super) fn human(bytes: u64) -> String {
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
