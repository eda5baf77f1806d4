//! What takes more than one part of a reactor: what is written becomes durable, what is committed settles, what is
//! settled takes effect, and an epoch ends and begins.

use super::Reactor;
use super::epoch_state::EpochStage;
use super::leader::Decided;
use super::turn::ReadOnly;
use crate::io::{ControlCopy, EpochMail, LeaderMail, MemberMail};
use crate::record::{ArchivedChange, ArchivedEntry, ControlEntry, Entry, Payload};
use crate::sequencer::{Allotment, Generation};
use crate::shard::Committed;
use crate::takeover::{LiveWrite, NextEffect, Step};
use crate::types::{Epoch, Index, LeaseId, ReactorId, Revision, ShardId};
use std::sync::Arc;

impl Reactor {
    /// Makes one entry per shard, and one log write of all of them.
    pub(super) fn write_log(&mut self) {
        if self.turn.epoch_state.may_write() && !self.shards.propose_turn(&self.turn) {
            self.turn.lose_epoch();
        }
        let storage = &mut self.storage;
        self.shards.take_readies(|shard, home, writes| storage.persist(shard, home, writes));
        self.rest.take_turn(&self.turn, &self.shards, storage);
        self.storage.flush(&mut self.turn, &self.shards);
        self.follow_durable();
    }

    /// What is durable is persisted to its group, and what that commits is marked.
    pub(super) fn follow_durable(&mut self) {
        let done = self.storage.take_durable(&mut self.turn);
        for (shard, number) in &done {
            self.shards.persisted(*shard, *number);
        }
        for shard in self.storage.take_installed() {
            self.shards.installed(shard);
        }
        if self.storage.take_disturbed() {
            self.shards.touch_all();
        }
        let mut touched: Vec<ShardId> = done.into_iter().map(|(shard, _)| shard).collect();
        touched.sort();
        touched.dedup();
        for shard in touched {
            self.follow_commits(shard);
        }
        self.shards.log_is_behind = self.storage.log_is_behind(&self.turn);
    }

    pub(super) fn follow_commits(&mut self, shard: ShardId) {
        // What a message has brought is followed once the log has taken it.
        let of = &self.shards.get(shard).expect("its commits are followed here").shard;
        if of.group().last() != of.log_view().last() {
            return self.shards.touch(shard);
        }
        if self.storage.rests() && !self.turn.is_alone() {
            return self.disturb(shard);
        }
        let news = match self.shards.follow_commits(&self.turn, shard) {
            Ok(news) => news,
            Err(strange) => return self.turn.halt(strange.of_shard(shard)),
        };
        for news in news {
            let of = news.epoch();
            let is_ours = of.is_none_or(|epoch| self.turn.epoch_state.takes_mail_of(epoch));
            assert!(is_ours, "a commit is of what this epoch proposed: {news:?} in {}", self.turn.epoch());
            match news {
                Committed::Revision(_) => unreachable!("revisions are marked, and nobody else hears of them"),
                Committed::Control => self.apply_due_controls(),
                Committed::Fence(_) if shard == ShardId::CONTROL => {
                    self.apply_due_controls();
                    self.epochs.on_control_fenced(&mut self.turn, &mut self.shards);
                }
                Committed::Seal(_) => {
                    self.epochs.on_shard_sealed(&mut self.turn, &mut self.shards, shard);
                }
                Committed::Fence(_) => {} // told when all of them are
            }
        }
        if shard == ShardId::CONTROL && self.turn.epoch_state.may_follow() {
            self.apply_due_controls();
        }
    }

    /// The log rests: before more is known to be committed than it says, something has to stand behind that.
    fn disturb(&mut self, shard: ShardId) {
        assert!(!self.turn.is_alone(), "a lone member's log never rests");
        let local = self.shards.get_mut(shard).expect("its commits are followed here");
        let (group, read) = (local.shard.group(), local.shard.log_view().committed().index);
        if group.committed() > read {
            self.storage.disturb(shard, local.shard.home, group.hard_state());
            self.turn.counters.paths.rest_disturbed += 1;
        }
    }

    // What is settled.

    /// `settled` has moved: what waited for it leaves, and what it settles can no longer be undone.
    pub(super) fn on_settled(&mut self, settled: Revision) {
        if settled <= *self.turn.settled {
            return;
        }
        if self.turn.epoch_state.may_write() {
            self.settle(settled);
        } else if self.turn.epoch_state.may_follow() && self.turn.router.is_some() {
            self.follow(settled);
        }
    }

    /// What another member has settled, and every reactor here holds, is shown.
    fn follow(&mut self, settled: Revision) {
        assert!(self.leader.is_none() || !self.turn.epoch_state.leads(), "who leads settles itself");
        if let Err((shard, strange)) = self.shards.follow(settled) {
            return self.turn.halt(strange.of_shard(shard));
        }
        let is_first = !self.turn.epoch_state.may_watch();
        ReadOnly::change(&mut self.turn.epoch_state).show();
        self.turn.counters.paths.shown_by_coverage += 1;
        self.settle(settled);
        self.apply_compaction();
        if is_first {
            self.storage.drop_left_over(&mut self.turn);
            self.calls.unpark_shown(&mut self.turn);
        }
        self.calls.unpark_shown_upto(&mut self.turn);
    }

    /// While another member leads, this reactor shows what the member shows from the beginning of each step on.
    pub(super) fn follow_shown(&mut self) {
        if self.turn.epoch_state.may_follow() && self.turn.router.is_some() {
            self.follow_settled();
        }
    }

    /// Others may have settled more than this reactor has heard of.
    pub(super) fn follow_settled(&mut self) {
        self.on_settled(self.turn.settled_truth());
    }

    fn settle(&mut self, settled: Revision) {
        assert!(settled >= *self.turn.settled, "what is settled does not fall");
        assert!(settled <= self.turn.sequencer.counter(), "what is settled was taken before");
        assert!(settled <= self.turn.settled_truth(), "no reactor is ahead of the sequencer");
        *ReadOnly::change(&mut self.turn.settled) = settled;
        self.shards.settle(settled);
        // Before a compaction among the control entries takes away what watchers have not seen.
        self.shards.publish(&self.turn);
        self.apply_due_controls();
        self.turn.open_gate();
    }

    // Control entries.

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

    /// What of the control log is due takes effect, here and, by mail, everywhere.
    fn apply_due_controls(&mut self) {
        let settled = *self.turn.settled;
        while let Some(due) = self.shards.next_due(settled) {
            match due {
                NextEffect::Control(index, payload) => self.take_effect(index, &payload),
                NextEffect::Write(write) => self.take_part_effect(&write),
            }
        }
    }

    fn take_effect(&mut self, index: Index, payload: &Payload) {
        let Ok(Entry::Control { control, .. }) = payload.to_entry() else {
            unreachable!("the view of the log has read it as a control entry")
        };
        self.change_control(index, control);
    }

    /// The control shard's part of a revision: leases end with it.
    fn take_part_effect(&mut self, write: &LiveWrite) {
        let Ok(ArchivedEntry::Batch(batch)) = write.batch.entry() else {
            unreachable!("the view of the log has read it as a batch")
        };
        let changes = batch.writes[write.place as usize].changes.iter();
        let ended = changes.filter_map(|change| match change {
            ArchivedChange::LeaseEnd { lease } => Some(lease.to_native()),
            _ => None,
        });
        let ended: Vec<i64> = ended.collect();
        for lease in ended {
            self.change_control(write.index, ControlEntry::LeaseEnd { lease });
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
        let others: Vec<ReactorId> = (1..self.turn.reactors).map(ReactorId).collect();
        let change = Arc::new(change);
        if self.epochs.has_copied_control() {
            for reactor in &others {
                self.turn.send(*reactor, MemberMail::ControlIs { index, change: change.clone() });
            }
        }
        if let Some(leader) = &mut self.leader {
            if self.turn.epoch_state.may_write() {
                leader.announce(index, others);
            }
            leader.follow(&mut self.turn, &change);
        }
        // It may let later entries take effect, which everybody hears of later.
        self.follow_control(&change);
        if let Some(leader) = &mut self.leader {
            leader.answer_announced(&mut self.turn);
        }
        self.calls.unpark_shown_upto(&mut self.turn);
    }

    /// News of the control state at a reactor without the control shard.
    pub(super) fn on_control_is(&mut self, index: Index, change: &ControlEntry) {
        assert!(self.leader.is_none(), "where the control shard lives its log is followed, not mail");
        ReadOnly::change(&mut self.turn.control).apply(index, change);
        self.follow_control(change);
        self.calls.unpark_shown_upto(&mut self.turn);
        if self.turn.epoch_state.may_write() {
            self.turn.send(ReactorId(0), LeaderMail::ControlKnown { index });
        }
    }

    /// What shards and calls have to do with a change of the control state.
    fn follow_control(&mut self, change: &ControlEntry) {
        match *change {
            ControlEntry::Compact { .. } => self.apply_compaction(),
            ControlEntry::LeaseEnd { lease } => {
                self.shards.run_lease_waiting(&mut self.turn, LeaseId(lease));
                self.calls.retry_cross_shard(&mut self.turn, LeaseId(lease));
            }
            _ => {}
        }
    }

    /// The compaction in effect takes hold of this reactor's shards, once this member shows its revision. During a
    /// takeover the stores are behind it, and serving begins with it.
    fn apply_compaction(&mut self) {
        let epoch_state = &self.turn.epoch_state;
        if epoch_state.may_write() {
            self.follow_settled();
            self.shards.compact(&mut self.turn);
        } else if epoch_state.may_follow() && self.turn.control.compacted() <= *self.turn.settled {
            self.shards.compact(&mut self.turn);
        }
    }

    // Epochs.

    /// A step of the coordinator reaches this reactor.
    pub(super) fn on_step(&mut self, epoch: Epoch, step: Step, control: Option<Arc<ControlCopy>>) {
        match step {
            Step::Stop => self.stop_epoch(),
            Step::FenceControl { .. } => {}
            Step::Fence { epoch } => {
                ReadOnly::change(&mut self.turn.epoch_state).go(epoch, EpochStage::Fencing);
                self.adopt(&control.expect("a fence carries the control state"));
            }
            Step::Seal { epoch, prefix } if epoch == self.turn.epoch() => {
                assert!(prefix >= *self.turn.settled, "what was shown is in the prefix: {prefix}");
                self.epochs.seal(&mut self.turn, &mut self.shards, prefix);
            }
            Step::Serve { epoch, prefix } if epoch == self.turn.epoch() => {
                let copy = control.expect("serving begins with the control state");
                self.serve(epoch, prefix, &copy);
            }
            Step::Seal { .. } | Step::Serve { .. } => {
                assert!(epoch < self.turn.epoch(), "a step that is not this epoch's is an older one's");
            }
        }
    }

    /// Everything of the last epoch that is not settled is taken back; what waited for it fails with an
    /// unknown outcome.
    fn stop_epoch(&mut self) {
        let epoch = self.turn.epoch();
        ReadOnly::change(&mut self.turn.epoch_state).go(epoch, EpochStage::Over);
        self.turn.allotment = Allotment::new(Generation::NONE);
        self.shards.end_epoch(&mut self.turn);
        self.turn.gate.clear();
        ReadOnly::change(&mut self.turn.control).leases.clear_all_revoking();
        if let Some(leader) = &mut self.leader {
            leader.end_epoch();
        }
        self.calls.end_epoch(&mut self.turn);
        self.turn.send(ReactorId(0), EpochMail::Stopped);
    }

    /// This member follows, and its reactors begin with this control state.
    pub(super) fn on_control(&mut self, copy: &ControlCopy) {
        assert!(self.turn.epoch_state.may_follow(), "who takes over begins with its fence");
        self.adopt(copy);
        self.follow_shown();
    }

    /// The control state of another member has come, with its log. It is ahead of what is shown here, and nothing reads
    /// it at a revision.
    pub(super) fn adopt_arrived_control(&mut self) {
        if let Some(state) = self.storage.take_arrived_control() {
            ReadOnly::change(&mut self.turn.control).adopt(&state);
            self.epochs.copy_control_anew();
        }
    }

    /// Takes the control state over, and makes the shards that are new.
    fn adopt(&mut self, copy: &ControlCopy) {
        if !self.epochs.coordinates() {
            ReadOnly::change(&mut self.turn.control).adopt(&copy.state);
        }
        let router = self.turn.control.router(self.turn.reactors);
        let router = router.expect("the map was checked when it was bootstrapped");
        let me = self.turn.id;
        for id in router.data_shards().filter(|id| router.reactor_of(*id) == me) {
            if self.shards.has(id) {
                continue;
            }
            if !copy.may_create {
                return self.turn.halt(format!(
                    "shard {} of this member is missing from its logs, though the cluster has served with it: \
                     the data directory is incomplete. Put the missing files back, or restore the data \
                     directory from a copy that was made while the server was stopped",
                    id.0
                ));
            }
            self.create_shard(id);
        }
        *ReadOnly::change(&mut self.turn.router) = Some(router);
    }

    pub(super) fn on_sealed(&mut self, from: ReactorId, epoch: Epoch) {
        if let Some(step) = self.epochs.on_sealed(&mut self.turn, from, epoch) {
            self.apply_due_controls();
            self.epochs.tell_to_serve(&mut self.turn, &self.shards, step);
        }
    }

    fn serve(&mut self, epoch: Epoch, prefix: Revision, copy: &ControlCopy) {
        assert!(self.turn.gate.is_empty(), "no reply waits from one epoch into the next");
        assert!(copy.generation != Generation::NONE, "an epoch that serves takes revisions");
        if !self.epochs.coordinates() {
            ReadOnly::change(&mut self.turn.control).adopt(&copy.state);
        }
        self.turn.allotment = Allotment::new(copy.generation);
        ReadOnly::change(&mut self.turn.epoch_state).go(epoch, EpochStage::Serving);
        self.settle(prefix);
        // Others may have served for a while: that news came before this reactor could take it.
        self.follow_settled();
        self.apply_compaction();
        self.storage.drop_left_over(&mut self.turn);
        if let Some(leader) = &mut self.leader {
            leader.begin(&mut self.turn);
        }
        self.calls.begin_epoch(&mut self.turn);
    }
}
