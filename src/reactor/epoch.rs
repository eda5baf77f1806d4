//! This reactor's side of a takeover, and on the control shard's reactor its coordination.

use super::{Reactor, Stage};
use crate::api::Error;
use crate::control::founder_raft_ids;
use crate::io::{Body, ControlCopy, Output};
use crate::raft::Refused;
use crate::record::{Control, FEATURE_LEVEL, MemberRecord};
use crate::sequencer::{Generation, Room};
use crate::shard::{Committed, Shard};
use crate::takeover::{Report, Seal, Step};
use crate::types::{Epoch, ReactorId, Revision, ShardId};
use std::sync::Arc;

impl Reactor {
    /// Moves whatever takeover is under way; called once a turn, before the shards' Readies are taken.
    pub(super) fn drive_takeover(&mut self) {
        match self.stage {
            Stage::Serving | Stage::Stopped => {}
            Stage::Fencing { epoch } => self.drive_fencing(epoch),
            Stage::Sealing { .. } => {}
        }
        if self.coordinator.is_some() {
            self.drive_coordinator();
        }
    }

    /// Whether the next turn gets further with a takeover though no input comes: a group that has nothing
    /// unpersisted may campaign, and fences that are all committed are reported.
    pub(super) fn takeover_goes_on(&self) -> bool {
        let beginning = self.coordinator.as_ref().is_some_and(|coordinator| {
            let group = self.shards[&ShardId::CONTROL].shard.group();
            if group.leads() { coordinator.may_begin() } else { group.is_persisted() }
        });
        let fencing = match self.stage {
            Stage::Fencing { epoch } => {
                let data = || self.shards.values().filter(|owned| owned.shard.id != ShardId::CONTROL);
                data().any(|owned| {
                    let group = owned.shard.group();
                    owned.asked_fence < epoch && (group.leads() || group.is_persisted())
                }) || self.shards.values().all(|owned| owned.shard.meaning().fence() == epoch)
            }
            _ => false,
        };
        beginning || fencing
    }

    fn drive_coordinator(&mut self) {
        let control = self.control_shard();
        if !control.group_mut().campaign() {
            if self.coordinator.as_ref().is_some_and(|c| c.is_taking_over() || c.is_serving()) {
                self.end_epoch();
            }
            return;
        }
        let term = control.group().term();
        let step = self.coordinator.as_mut().and_then(|coordinator| coordinator.begin(term));
        if let Some(Step::FenceControl { epoch }) = step {
            (self.epoch, self.ended, self.lost) = (epoch, false, false);
            let fenced = self.control_shard().propose_fence(epoch);
            self.or_end(fenced);
        }
    }

    fn drive_fencing(&mut self, epoch: Epoch) {
        let mut refused = false;
        for owned in self.shards.values_mut().filter(|owned| owned.shard.id != ShardId::CONTROL) {
            if owned.asked_fence < epoch && owned.shard.group_mut().campaign() {
                owned.asked_fence = epoch;
                refused |= owned.shard.propose_fence(epoch).is_err();
            }
        }
        if refused {
            self.lose_epoch();
        }
        self.report_fenced(epoch);
    }

    /// A proposal that raft refuses ends the epoch.
    pub(super) fn or_end(&mut self, proposed: Result<(), Refused>) {
        if proposed.is_err() {
            self.lose_epoch();
        }
    }

    /// Some group of this reactor is lost: nothing more is written in this epoch.
    pub(super) fn lose_epoch(&mut self) {
        if !self.lost {
            self.lost = true;
            self.send(ReactorId(0), Body::Lost);
        }
    }

    pub(super) fn on_lost(&mut self, epoch: Epoch) {
        if epoch == self.epoch
            && self.coordinator.as_ref().is_some_and(|c| c.is_taking_over() || c.is_serving())
        {
            self.end_epoch();
        }
    }

    fn end_epoch(&mut self) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let step = coordinator.end();
        self.sequencer.end(self.room.generation());
        self.notice_takeover("the epoch ends: taking over anew", self.epoch);
        self.broadcast_step(step, None);
    }

    fn broadcast_step(&mut self, step: Step, control: Option<Arc<ControlCopy>>) {
        for reactor in 0..self.reactors {
            self.send(ReactorId(reactor), Body::Step { step, control: control.clone() });
        }
    }

    /// A step of the coordinator reaches this reactor.
    pub(super) fn on_step(&mut self, epoch: Epoch, step: Step, control: Option<Arc<ControlCopy>>) {
        match step {
            Step::Stop => self.stop_epoch(),
            Step::FenceControl { .. } => {}
            Step::Fence { epoch } => {
                // What was lost between two epochs is campaigned for anew.
                (self.epoch, self.ended, self.lost) = (epoch, false, false);
                self.adopt(&control.expect("a fence carries the control state"));
                self.stage = Stage::Fencing { epoch };
            }
            Step::Seal { epoch, prefix } if epoch == self.epoch => {
                self.stage = Stage::Sealing { epoch, sealed: 0 };
                let seal = Seal { epoch, prefix };
                let refused = self.shards.values_mut().any(|owned| owned.shard.propose_seal(seal).is_err());
                if refused {
                    self.lose_epoch();
                }
                self.report_sealed();
            }
            Step::Serve { epoch, prefix } if epoch == self.epoch => {
                let copy = control.expect("serving begins with the control state");
                self.serve(epoch, prefix, &copy);
            }
            Step::Seal { .. } | Step::Serve { .. } => assert!(step_is_old(epoch, self.epoch)),
        }
    }

    /// Everything of the last epoch that is not settled is taken back; what waited for it fails with an
    /// unknown outcome.
    fn stop_epoch(&mut self) {
        self.stage = Stage::Stopped;
        self.ended = true;
        self.lost = false;
        let settled = self.sequencer.settled();
        self.room = Room::new(Generation::NONE);
        let mut moves = vec![];
        for owned in self.shards.values_mut() {
            let undone = owned.shard.store.newest_revision().main > settled.max(owned.shard.store.settled());
            self.counters.paths.epoch_undone += u64::from(undone);
            owned.shard.undo(settled, &mut moves);
            owned.follow_leases(&mut moves);
            owned.end_epoch();
        }
        self.held.clear();
        self.revokes_asked.clear();
        self.lease_waiting.clear();
        self.deciding.clear();
        self.control.leases.clear_all_revoking();
        if let Some(leading) = &mut self.leading {
            leading.end_epoch();
        }
        self.fail_calls(&Error::Timeout);
        self.retrying.clear();
        self.send(ReactorId(0), Body::Stopped);
    }

    pub(super) fn on_stopped(&mut self, from: ReactorId) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.stopped(from);
        }
    }

    /// The control shard's fence is committed: a new cluster gets its first entry, then all others fence.
    fn on_control_fenced(&mut self, epoch: Epoch) {
        self.apply_due_controls();
        if self.control.is_bootstrapped() {
            self.fence_all(epoch);
        } else {
            let bootstrap = self.bootstrap_entry();
            let proposed =
                self.control_shard().propose_control(epoch, Revision::FRESH, bootstrap).map(|_| ());
            self.or_end(proposed);
        }
    }

    /// The first entry of the control log took effect.
    pub(super) fn on_bootstrapped(&mut self) {
        let epoch = self.epoch;
        self.fence_all(epoch);
    }

    fn fence_all(&mut self, epoch: Epoch) {
        let step = self.coordinator.as_mut().and_then(|coordinator| coordinator.control_fenced(epoch));
        if let Some(step) = step {
            let copy = self.control_copy(Generation::NONE);
            self.broadcast_step(step, Some(copy));
        }
    }

    fn bootstrap_entry(&self) -> Control {
        let settings = &self.settings;
        let member = MemberRecord {
            id: settings.member.0,
            directory: self.log.store().0,
            raft_ids: founder_raft_ids(settings.cluster, settings.member, self.reactors),
            name: settings.name.clone(),
            peer_urls: settings.peer_urls.clone(),
            client_urls: vec![],
            is_learner: false,
        };
        Control::Bootstrap {
            cluster: settings.cluster.0,
            token: settings.token.clone(),
            members: vec![member],
            cuts: crate::router::cuts(&settings.shard_starts),
            feature_level: FEATURE_LEVEL,
        }
    }

    fn control_copy(&self, generation: Generation) -> Arc<ControlCopy> {
        let never_sealed = self.shards[&ShardId::CONTROL].shard.meaning().seal() == Seal::default();
        Arc::new(ControlCopy {
            index: self.control.index,
            state: self.control.to_state(),
            may_create: never_sealed,
            generation,
        })
    }

    /// Takes the control state over, and makes the shards that are new.
    fn adopt(&mut self, copy: &ControlCopy) {
        if self.coordinator.is_none() {
            self.control.adopt(copy.index, &copy.state);
        }
        let router =
            self.control.router(self.reactors).expect("the map was checked when it was bootstrapped");
        let me = self.id;
        for id in router.data_shards().filter(|id| router.reactor_of(*id) == me) {
            if self.shards.contains_key(&id) {
                continue;
            }
            if !copy.may_create {
                let reason = format!(
                    "shard {} of this member is missing from its logs, though the cluster has served with it: \
                     the data directory is incomplete. Put the missing files back, or restore the data \
                     directory from a copy that was made while the server was stopped",
                    id.0
                );
                self.out.push(Output::Halt(reason));
                return;
            }
            self.create_shard(id);
        }
        self.router = Some(router);
    }

    /// Tells the coordinator once every shard's fence is committed.
    fn report_fenced(&mut self, epoch: Epoch) {
        if self.stage != (Stage::Fencing { epoch }) {
            return;
        }
        if self.shards.values().any(|owned| owned.shard.meaning().fence() != epoch) {
            return;
        }
        let named = self.shards.values().map(|owned| owned.shard.meaning().known_settled()).max();
        let base = named.unwrap_or_default().max(self.settled_before).max(self.sequencer.settled());
        let shards = self.shards.values().map(|owned| owned.shard.holding(owned.read_from)).collect();
        let report = Report { base, shards };
        self.stage = Stage::Stopped;
        self.send(ReactorId(0), Body::Fenced { epoch, report });
    }

    pub(super) fn on_fenced(&mut self, from: ReactorId, epoch: Epoch, report: Report) {
        let Some(coordinator) = &mut self.coordinator else { return };
        match coordinator.fenced(from, epoch, report) {
            Ok(Some(step)) => self.broadcast_step(step, None),
            Ok(None) => {}
            Err(hole) => self.out.push(Output::Halt(hole.to_string())),
        }
    }

    /// News of a commit that a takeover waits for.
    pub(super) fn on_takeover_news(&mut self, shard: ShardId, news: &Committed) {
        match *news {
            Committed::Fence(epoch) if epoch == self.epoch && shard == ShardId::CONTROL => {
                self.on_control_fenced(epoch);
            }
            Committed::Seal(seal) if seal.epoch == self.epoch => {
                let mut moves = vec![];
                let owned = self.shards.get_mut(&shard).expect("the news came from it");
                if let Err(strange) = owned.shard.apply_prefix(&mut moves) {
                    let reason = format!("shard {shard}: {strange}");
                    self.out.push(Output::Halt(reason));
                    return;
                }
                owned.follow_leases(&mut moves);
                if let Stage::Sealing { sealed, .. } = &mut self.stage {
                    *sealed += 1;
                }
                self.report_sealed();
            }
            _ => {}
        }
    }

    fn report_sealed(&mut self) {
        let Stage::Sealing { epoch, sealed } = self.stage else { return };
        if sealed == self.shards.len() {
            self.stage = Stage::Stopped;
            self.send(ReactorId(0), Body::Sealed { epoch });
        }
    }

    pub(super) fn on_sealed(&mut self, from: ReactorId, epoch: Epoch) {
        let step = self.coordinator.as_mut().and_then(|coordinator| coordinator.sealed(from, epoch));
        if let Some(Step::Serve { epoch, prefix }) = step {
            self.generation = self.generation.next();
            let generation = self.generation;
            self.sequencer.start(generation, prefix);
            self.settled = prefix;
            self.apply_due_controls();
            let copy = self.control_copy(generation);
            self.broadcast_step(Step::Serve { epoch, prefix }, Some(copy));
        }
    }

    fn serve(&mut self, epoch: Epoch, prefix: Revision, copy: &ControlCopy) {
        if self.coordinator.is_none() {
            self.control.adopt(copy.index, &copy.state);
        }
        self.room = Room::new(copy.generation);
        self.stage = Stage::Serving;
        self.has_served = true;
        self.epochs_served += 1;
        self.settle(prefix);
        // Others may have served for a while: that news came before this reactor could take it.
        self.on_settled(self.sequencer.settled());
        self.apply_compaction();
        self.drop_left_over();
        if self.coordinator.is_some() {
            self.begin_leading(epoch);
        }
        self.unpark_watches();
        self.unpark_calls();
    }

    fn notice_takeover(&mut self, message: &'static str, epoch: Epoch) {
        self.notice(crate::io::Level::Info, message, vec![("epoch", epoch.to_string())]);
    }

    pub(super) fn control_shard(&mut self) -> &mut Shard {
        &mut self.shards.get_mut(&ShardId::CONTROL).expect("the control shard lives on this reactor").shard
    }
}

fn step_is_old(sent: Epoch, now: Epoch) -> bool {
    sent < now
}
