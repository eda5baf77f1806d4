//! How control entries take effect: at every reactor of this member, and nowhere before all have them.
//!
//! **The question.** Each reactor has a copy of the control state, and a client may ask one reactor after the other.
//! How does it never find older state than it was shown before?
//!
//! **The rule.** The control shard's reactor reads the log and tells the others. On a member that leads an entry takes
//! effect at each reactor as it comes there, and what could show it waits until all have it. On any other an entry
//! takes effect at all reactors at one moment: first each is given what is due, and says so; then one word that all
//! share says that it is in effect, and each reactor looks at that word with every step. What is settled behind an entry
//! is shown after it. A member that takes over does the same before it serves.
//!
//! **Why not otherwise.** A member that does not lead answers by itself, from several reactors, and nobody would know
//! which answers to hold back. Where one leads its entries' answers are held anyway, and its decisions want the newest.

use super::Reactor;
use super::epoch::Due;
use super::leader::Decided;
use super::turn::ReadOnly;
use crate::io::{LeaderMail, MemberMail};
use crate::record::{ArchivedChange, ArchivedEntry, ControlEntry, Entry, Intent, MemberRecord, Payload};
use crate::takeover::{LiveWrite, LogView, NextEffect};
use crate::types::{ChangeNumber, Index, LeaseId, MemberId, ReactorId, Revision, StoreId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is to take effect at all reactors at once, as another reactor than the control shard's has it.
pub(super) struct Coming {
    pub number: ChangeNumber,
    pub changes: Arc<Vec<(Index, ControlEntry)>>,
}

impl Reactor {
    /// What the leader has decided goes into the log, once all that it saw is settled.
    pub(super) fn propose_decided(&mut self) {
        let Reactor { turn, shards, leader: Some(leader), .. } = self else { return };
        while let Some(Decided { control, call, .. }) = leader.next_to_propose(turn) {
            match shards.propose_control(turn, control) {
                Ok(index) => leader.proposed(index, call),
                Err(_) => return turn.lose_epoch(),
            }
        }
    }

    /// What of the control log is due takes effect, where this member leads, or no other reactor has any state yet.
    pub(super) fn apply_due_controls(&mut self) {
        let settled = *self.turn.settled;
        while self.turn.epoch_state.may_write() || !self.epochs.has_copied_control() {
            let Some(due) = self.shards.next_due(settled, Index(u64::MAX)) else { return };
            self.take_effect(&due);
        }
    }

    fn take_effect(&mut self, due: &NextEffect) {
        for (index, change) in changes_of(due) {
            self.change_control(index, change);
        }
    }

    fn change_control(&mut self, index: Index, change: ControlEntry) {
        ReadOnly::change(&mut self.turn.control).apply(index, &change);
        if matches!(change, ControlEntry::Bootstrap { .. }) {
            // Whoever takes over goes on with it; whoever follows gives it to the others with its next turn.
            return match self.turn.epoch_state.may_follow() {
                true => {}
                false => self.epochs.fence_all(&mut self.turn, &self.shards),
            };
        }
        self.tell_of_joining(&change);
        let change = Arc::new(change);
        if self.turn.epoch_state.may_write() {
            self.announce(index, &change);
        }
        if let Some(leader) = &mut self.leader {
            leader.follow(&mut self.turn, &change);
        }
        // It may let later entries take effect, which everybody hears of later.
        self.follow_control(&change);
        if let Some(leader) = &mut self.leader {
            leader.answer_announced(&mut self.turn);
        }
        self.calls.unpark_shown_upto(&mut self.turn);
    }

    /// A change has taken effect where this member leads: the other reactors hear of it.
    fn announce(&mut self, index: Index, change: &Arc<ControlEntry>) {
        let number = self.epochs.number_change(&mut self.turn);
        *ReadOnly::change(&mut self.turn.changes) = number;
        let others: Vec<ReactorId> = (1..self.turn.reactors).map(ReactorId).collect();
        for reactor in &others {
            self.turn.send(*reactor, MemberMail::ControlIs { number, index, change: change.clone() });
        }
        if let Some(leader) = &mut self.leader {
            leader.announce(index, others);
        }
        self.tell_known();
    }

    /// News of the control state at a reactor without the control shard.
    pub(super) fn on_control_is(&mut self, number: ChangeNumber, index: Index, change: &ControlEntry) {
        assert!(self.leader.is_none(), "where the control shard lives its log is followed, not mail");
        assert!(self.coming.is_none(), "who leads has shared all that was due before");
        *ReadOnly::change(&mut self.turn.changes) = number;
        self.take_change(index, change);
        self.calls.unpark_shown_upto(&mut self.turn);
        self.turn.send(ReactorId(0), LeaderMail::ControlKnown { number, index });
    }

    fn take_change(&mut self, index: Index, change: &ControlEntry) {
        ReadOnly::change(&mut self.turn.control).apply(index, change);
        self.follow_control(change);
    }

    /// What shards and calls have to do with a change of the control state.
    fn follow_control(&mut self, change: &ControlEntry) {
        match *change {
            ControlEntry::Compact { .. } => {
                self.compaction = *self.turn.changes;
                self.apply_compaction();
            }
            ControlEntry::LeaseEnd { lease } => {
                self.shards.run_lease_waiting(&mut self.turn, LeaseId(lease));
                self.calls.retry_cross_shard(&mut self.turn, LeaseId(lease));
            }
            // Another one may stand in the log from a time before others joined.
            ControlEntry::StandAlone { .. } if self.turn.epoch_state.may_write() => {
                *ReadOnly::change(&mut self.turn.is_to_be_alone) = false;
            }
            _ => {}
        }
    }

    /// The compaction takes hold of this reactor's shards, once this member shows its revision and all reactors have
    /// it: what one says is compacted another does not read. During a takeover the stores are behind it, and serving
    /// begins with it.
    pub(super) fn apply_compaction(&mut self) {
        let epoch_state = &self.turn.epoch_state;
        if epoch_state.may_write() {
            // Read before: what shows more was asked for later.
            self.follow_settled();
            if self.turn.sequencer.changes() < self.compaction {
                return;
            }
        } else if !epoch_state.may_follow() || self.turn.control.compacted() > *self.turn.settled {
            return;
        }
        *ReadOnly::change(&mut self.turn.compacted) = self.turn.control.compacted();
        self.shards.compact(&mut self.turn);
    }

    // Where another member leads.

    /// What is covered is shown, and what is due before it takes effect.
    pub(super) fn share_due(&mut self) {
        if !self.epochs.coordinates() || !self.turn.epoch_state.may_follow() || self.turn.is_alone() {
            return;
        }
        if !self.epochs.has_copied_control() {
            // Of what the log held at the start nobody tells.
            self.apply_due_controls();
            if !self.turn.control.is_bootstrapped() {
                return;
            }
            self.epochs.copy_control(&mut self.turn, &self.shards);
        }
        while self.epochs.have_stopped() && !self.epochs.shares() {
            let truth = self.turn.settled_truth();
            let rested = self.epochs.take_rested(&self.turn);
            self.turn.counters.paths.shown_at_start += u64::from(rested.is_some());
            let more = rested.or_else(|| self.epochs.covered_by_all(&self.turn));
            let upto = more.map_or(truth, |more| more.max(truth));
            if !self.share(upto) {
                return self.show(upto);
            }
        }
    }

    /// Gives the other reactors what is due with a revision. False where nothing is.
    pub(super) fn share(&mut self, upto: Revision) -> bool {
        let due = self.shards.due(upto);
        let Some(index) = due.last().map(NextEffect::index) else { return false };
        let number = self.epochs.number_change(&mut self.turn);
        self.epochs.await_all(Due { number, upto, index });
        self.turn.counters.paths.control_shared += 1;
        let changes: Arc<Vec<_>> = Arc::new(due.iter().flat_map(changes_of).collect());
        for reactor in (1..self.turn.reactors).map(ReactorId) {
            self.turn.send(reactor, MemberMail::ControlComes { number, changes: changes.clone() });
        }
        self.tell_known();
        true
    }

    fn show(&mut self, upto: Revision) {
        if upto > self.turn.settled_truth() {
            self.turn.sequencer.show(upto);
        }
    }

    /// What comes takes effect later, at all reactors at once.
    pub(super) fn on_control_comes(&mut self, coming: Coming) {
        assert!(self.leader.is_none(), "where the control shard lives its log is followed, not mail");
        assert!(self.coming.is_none(), "one comes after the other has taken effect");
        self.turn.send(ReactorId(0), LeaderMail::ControlHeld { number: coming.number });
        self.coming = Some(coming);
    }

    /// What has come takes effect, where all reactors have it.
    pub(super) fn take_shared(&mut self) {
        let sequencer = &self.turn.sequencer;
        let is_everywhere = |coming: &mut Coming| coming.number <= sequencer.changes();
        let Some(Coming { number, changes }) = self.coming.take_if(is_everywhere) else { return };
        for (index, change) in &*changes {
            self.take_change(*index, change);
        }
        *ReadOnly::change(&mut self.turn.changes) = number;
        self.calls.unpark_shown_upto(&mut self.turn);
    }

    /// A reactor has a change.
    pub(super) fn on_change_had(&mut self, from: ReactorId, number: ChangeNumber) {
        self.epochs.on_change_had(from, number);
        self.tell_known();
    }

    /// What all reactors have is in effect, and those that wait for that hear of it.
    pub(super) fn tell_known(&mut self) {
        let everywhere = self.epochs.changes_everywhere();
        if everywhere <= self.turn.sequencer.changes() {
            return;
        }
        self.turn.sequencer.show_changes(everywhere);
        if let Some(Due { number, upto, index }) = self.epochs.take_due() {
            if self.turn.epoch_state.may_follow() {
                self.show(upto);
            }
            while let Some(due) = self.shards.next_due(upto, index) {
                self.take_effect(&due);
            }
            let changes = ReadOnly::change(&mut self.turn.changes);
            *changes = number.max(*changes);
        }
        // A lone member's answers wait at the leader, and for nothing else that it knows.
        let waits = !self.turn.is_alone() || !self.turn.epoch_state.may_write() || self.turn.compacts();
        if waits {
            for reactor in (1..self.turn.reactors).map(ReactorId) {
                self.turn.send(reactor, MemberMail::ControlShown);
            }
        }
        self.on_control_shown();
        self.share_due();
        self.begin_to_serve();
    }

    /// More of the control state is in effect.
    pub(super) fn on_control_shown(&mut self) {
        self.follow_shown();
        // The control state of another member may bring one at what is shown already.
        if self.turn.compacts() && self.turn.is_known_everywhere() {
            self.apply_compaction();
        }
        self.calls.unpark_known(&mut self.turn);
    }
}

/// What a part of the control log changes: of a revision it is the leases that end with it.
fn changes_of(due: &NextEffect) -> Vec<(Index, ControlEntry)> {
    match due {
        NextEffect::Control(index, payload) => vec![(*index, control_of(payload))],
        NextEffect::Write(write) => ends_of(write).map(|end| (write.index, end)).collect(),
    }
}

fn control_of(payload: &Payload) -> ControlEntry {
    match payload.to_entry() {
        Ok(Entry::Control { control, .. }) => control,
        _ => unreachable!("the view of the log has read it as a control entry"),
    }
}

/// The directories that members have begun in, as far as a control log says so behind what has taken effect. It need
/// not be committed: each member has said it of itself, and what came first is what it has promised in.
pub(super) fn directories_of(log: &LogView) -> BTreeMap<MemberId, StoreId> {
    let mut directories = BTreeMap::new();
    for control in log.controls_ahead().map(control_of) {
        if let ControlEntry::MemberAttributes { member, directory, .. } = control {
            directories.entry(MemberId(member)).or_insert(StoreId(directory));
        }
    }
    directories
}

/// Those who are to join as far as a control log says so behind what has taken effect, committed or not.
pub(super) fn joining_of(log: &LogView) -> Vec<MemberRecord> {
    let joining = log.controls_ahead().map(control_of).filter_map(|control| match control {
        ControlEntry::Intent(Intent::Adding(member)) => Some(*member),
        _ => None,
    });
    joining.collect()
}

fn ends_of(write: &LiveWrite) -> impl Iterator<Item = ControlEntry> {
    let Ok(ArchivedEntry::Batch(batch)) = write.batch.entry() else {
        unreachable!("the view of the log has read it as a batch")
    };
    batch.writes[write.place as usize].changes.iter().filter_map(|change| match change {
        ArchivedChange::LeaseEnd { lease } => Some(ControlEntry::LeaseEnd { lease: lease.to_native() }),
        _ => None,
    })
}
