//! What takes more than one part of a reactor: what is written becomes durable, what is committed settles, what is
//! settled takes effect, and an epoch ends and begins.

use super::Reactor;
use super::epoch_state::EpochStage;
use super::turn::{ReadOnly, Turn};
use crate::io::{ControlCopy, EpochMail, LeaderMail, Level};
use crate::sequencer::{Allotment, Generation};
use crate::shard::Committed;
use crate::takeover::Step;
use crate::types::{ChangeNumber, Epoch, ReactorId, Revision, ShardId};

impl Reactor {
    /// Makes one entry per shard, and one log write of all of them.
    pub(super) fn write_log(&mut self) {
        if self.turn.epoch_state.may_write() && !self.shards.propose_turn(&self.turn) {
            self.turn.lose_epoch();
        }
        let storage = &mut self.storage;
        self.shards.take_readies(|shard, home, writes| storage.persist(shard, home, writes));
        self.rest.take_turn(&self.turn, &mut self.shards, storage, self.epochs.said_covered());
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
        self.shards.log_is_behind = self.storage.log_is_behind(&mut self.turn);
    }

    pub(super) fn follow_commits(&mut self, shard: ShardId) {
        // What a message has brought is followed once the log has taken it.
        let of = &self.shards.get(shard).expect("its commits are followed here").shard;
        if of.group().last() != of.log_view().last() {
            return self.shards.touch(shard);
        }
        if self.storage.rests() && !self.turn.is_alone() {
            self.disturb(shard);
            return self.follow_due_controls(shard);
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
        self.follow_due_controls(shard);
    }

    /// What the control shard's log holds takes effect also where another member leads, or nobody.
    fn follow_due_controls(&mut self, shard: ShardId) {
        if shard == ShardId::CONTROL && self.turn.epoch_state.may_follow() {
            self.apply_due_controls();
            self.share_due();
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

    /// While another member leads, this reactor shows what the member shows from the beginning of each step on, and
    /// the control state that goes with it.
    pub(super) fn follow_shown(&mut self) {
        let follows = self.turn.epoch_state.may_follow() && self.turn.router.is_some();
        // Read before: what it depends on has come by then.
        let settled = follows.then(|| self.turn.settled_truth());
        self.take_shared();
        if let Some(settled) = settled {
            self.on_settled(settled);
        }
        if self.turn.epoch_state.may_write() && self.turn.compacts() {
            self.apply_compaction();
        }
    }

    /// Others may have settled more than this reactor has heard of.
    pub(super) fn follow_settled(&mut self) {
        match self.turn.epoch_state.may_write() {
            true => self.on_settled(self.turn.settled_truth()),
            false => self.follow_shown(),
        }
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
        if !self.turn.epoch_state.may_write() {
            self.shards.hold_control(settled);
        }
        self.turn.open_gate();
    }

    // Epochs.

    /// A step of the coordinator reaches this reactor.
    pub(super) fn on_step(&mut self, epoch: Epoch, step: Step, generation: Generation) {
        match step {
            Step::Stop => self.stop_epoch(),
            Step::FenceControl { .. } => {}
            Step::Fence { epoch } => {
                assert!(self.turn.router.is_some(), "the control state comes before the fence");
                ReadOnly::change(&mut self.turn.epoch_state).go(epoch, EpochStage::Fencing);
            }
            Step::Seal { epoch, prefix } if epoch == self.turn.epoch() => {
                assert!(prefix >= *self.turn.settled, "what was shown is in the prefix: {prefix}");
                self.epochs.seal(&mut self.turn, &mut self.shards, prefix);
            }
            Step::Serve { epoch, prefix } if epoch == self.turn.epoch() => {
                self.serve(epoch, prefix, generation);
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

    /// The reactors begin with this control state, or go on with it.
    pub(super) fn on_control(&mut self, number: ChangeNumber, copy: &ControlCopy) {
        assert!(!self.turn.epoch_state.may_write(), "who serves has the whole state");
        self.coming = None; // It is part of this.
        self.adopt(copy);
        let changes = ReadOnly::change(&mut self.turn.changes);
        *changes = number.max(*changes);
        match self.epochs.coordinates() {
            true => self.tell_known(),
            false => self.turn.send(ReactorId(0), LeaderMail::ControlHeld { number }),
        }
        self.follow_shown();
        self.calls.unpark_shown_upto(&mut self.turn);
    }

    /// The control state of another member has come, with its log. It is ahead of what is shown here, and nothing reads
    /// it at a revision.
    pub(super) fn adopt_arrived_control(&mut self) {
        if let Some(state) = self.storage.take_arrived_control() {
            ReadOnly::change(&mut self.turn.control).adopt(&state);
            self.epochs.copy_control_anew();
            self.share_due();
        }
    }

    /// What the operator has said of shards counts where a cluster begins.
    fn warn_of_other_shards(&mut self) {
        let Turn { settings, control, .. } = &self.turn;
        let said = crate::router::cuts(&settings.shard_starts);
        if settings.shards_are_set && !control.began_with(&said) {
            let message = "--shards and --shard-map have no effect: the cluster began with others";
            self.turn.log_line(Level::Warn, message, [("shards", (said.len() as u64).into())]);
        }
    }

    /// Takes the control state over, and makes the shards that are new.
    fn adopt(&mut self, copy: &ControlCopy) {
        if !self.epochs.coordinates() {
            ReadOnly::change(&mut self.turn.control).adopt(&copy.state);
        }
        let router = self.turn.control.router(self.turn.reactors);
        let router = router.expect("the map was checked when it was bootstrapped");
        if self.turn.router.is_none() && self.epochs.coordinates() {
            self.warn_of_other_shards();
        }
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
        self.epochs.on_sealed(&self.turn, from, epoch);
        self.begin_to_serve();
    }

    /// The epoch serves, where all reactors have sealed, and have what is due of the control state: what is read behind
    /// the prefix is read with what stands before it.
    pub(super) fn begin_to_serve(&mut self) {
        let Some((step, epoch, prefix)) = self.epochs.begins() else { return };
        if epoch != self.turn.epoch() || self.turn.epoch_state.stage() != EpochStage::Sealed {
            return self.epochs.has_begun();
        }
        self.epochs.copy_control(&mut self.turn, &self.shards);
        if self.epochs.lacks() || self.share(prefix) {
            return; // It goes on from where they all have it.
        }
        self.epochs.has_begun();
        self.epochs.serve(&mut self.turn, step, prefix);
    }

    fn serve(&mut self, epoch: Epoch, prefix: Revision, generation: Generation) {
        assert!(self.turn.gate.is_empty(), "no reply waits from one epoch into the next");
        assert!(generation != Generation::NONE, "an epoch that serves takes revisions");
        assert!(self.coming.is_none(), "serving begins with the whole control state");
        self.turn.allotment = Allotment::new(generation);
        ReadOnly::change(&mut self.turn.epoch_state).go(epoch, EpochStage::Serving);
        self.settle(prefix);
        if self.turn.control.stands_alone(self.turn.settings.member) {
            *ReadOnly::change(&mut self.turn.is_to_be_alone) = false;
        }
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
