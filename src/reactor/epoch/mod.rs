//! This reactor's side of a takeover, and on the control shard's reactor its coordination.
//!
//! **The question.** When a group is lost, what this reactor evaluated may be committed or not, and other
//! reactors may still act on it. How does every reactor come out of it with the same history?
//!
//! **The rule.** The coordinator asks for one step at a time, by mail, and goes on when all have answered.
//! *Stop* ends everything of the epoch: stores are undone down to `settled`, calls fail with an unknown
//! outcome, reservations and promised revisions are dropped. The generation was ended at the sequencer
//! before, so `settled` stands and all undo to the same revision. From *Stop* to *Fence* no mail of an epoch
//! counts, since the next one has no name yet. When a shard's seal is committed its store gets from the log
//! what the prefix holds and it lacks, and no sooner: before that nobody knows what is void.
//!
//! **Why not otherwise.** To keep what was evaluated and hope that it commits would save a replay of some
//! milliseconds, and would need a proof for every way in which a log can lose its end.

mod following;
mod groups;
mod hand_over;
mod peering;
mod sharing;
mod votes;

use super::epoch_state::EpochStage;
use super::settings::Founder;
use super::shards::Shards;
use super::turn::{ReadOnly, Turn};
use crate::control::founder_raft_ids;
use crate::io::{ControlCopy, EpochMail, Level};
use crate::record::{ControlEntry, FEATURE_LEVEL, MemberRecord};
use crate::sequencer::Generation;
use crate::takeover::{Coordinator, Report, Seal, Step};
use crate::types::{Epoch, MemberId, ReactorId, Revision, ShardId, Time};
use following::Known;
pub(super) use groups::Driving;
use groups::{GroupTimes, Turned};
pub(super) use hand_over::HandOverTo;
use hand_over::{HandOver, tell_clock};
use peering::Peering;
pub(super) use sharing::Due;
use sharing::Sharing;
use std::sync::Arc;

pub(super) struct Epochs {
    /// Only where the control shard lives.
    coordinator: Option<Coordinator>,
    /// The generation of the last epoch that served.
    generation: Generation,
    /// What some log names as settled by earlier processes.
    settled_before: Revision,
    /// What earlier processes have shown, and may be shown again.
    rested: Option<Revision>,
    clock: GroupTimes,
    known: Known,
    sharing: Sharing,
    peering: Peering,
    /// What this reactor has said of the coverage of its shards, and of what is ahead.
    covered: Option<(Revision, Revision)>,
    /// The leadership is being handed over.
    handing: Option<HandOver>,
    /// Who has all that this reactor's groups have, as it has said since it was to drain.
    drained: Option<Vec<MemberId>>,
}

impl Epochs {
    pub fn new(settled_before: Revision, rested: Option<Revision>) -> Epochs {
        Epochs {
            rested,
            coordinator: None,
            generation: Generation::NONE,
            settled_before,
            clock: GroupTimes::default(),
            known: Known::default(),
            sharing: Sharing::default(),
            peering: Peering::default(),
            covered: None,
            handing: None,
            drained: None,
        }
    }

    /// The control shard lives here, and this was the last epoch of its log.
    pub fn coordinate(&mut self, reactors: u16, last: Epoch) {
        self.coordinator = Some(Coordinator::new(reactors, last));
    }

    pub fn coordinates(&self) -> bool {
        self.coordinator.is_some()
    }

    pub fn on_mail(&mut self, turn: &mut Turn, from: ReactorId, sent_in: Epoch, mail: EpochMail) {
        assert!(self.coordinates(), "steps are answered to the coordinator");
        match mail {
            EpochMail::Stopped => self.on_stopped(from),
            EpochMail::Fenced { epoch, report } => self.on_fenced(turn, from, epoch, report),
            EpochMail::Lost => self.on_lost(turn, sent_in),
            EpochMail::Peered { done } => self.on_peered(turn, from, sent_in, done),
            EpochMail::Turns { steps, waits_for_others, entries, matched, in_sync } => {
                self.on_in_sync(from, in_sync);
                let steps = if sent_in == turn.epoch() { steps } else { 0 };
                self.clock.turns(from, Turned { at: turn.now, steps, waits_for_others, entries, matched });
            }
            EpochMail::Drained { caught_up } if sent_in == turn.epoch() => self.on_drained(from, caught_up),
            EpochMail::Drained { .. } => {}
            EpochMail::Step { .. }
            | EpochMail::Sealed { .. }
            | EpochMail::Covered { .. }
            | EpochMail::Control { .. }
            | EpochMail::Drain
            | EpochMail::GoOn
            | EpochMail::LeaderIs { .. } => unreachable!("these take more than one part"),
        }
    }

    /// Moves whatever takeover is under way; called once per turn, before the shards' Readies are taken.
    /// `is_heard_by` says whether what this reactor says comes to a member.
    pub fn drive(&mut self, turn: &mut Turn, shards: &mut Shards, is_heard_by: impl Fn(MemberId) -> bool) {
        self.drive_groups(turn, shards, is_heard_by);
        if turn.epoch_state.stage() == EpochStage::Fencing {
            self.report_fenced(turn, shards);
        }
        if self.coordinator.is_some() {
            self.drive_coordinator(turn, shards);
            self.follow_leader(turn, shards);
        }
        self.drive_peers(turn, shards);
    }

    /// Whether the next turn gets further with a takeover though no input comes: a group that has nothing
    /// unpersisted may campaign, and fences that are all committed are reported.
    pub fn goes_on(&self, turn: &Turn, shards: &Shards) -> bool {
        let beginning = self.coordinator.as_ref().is_some_and(|coordinator| {
            let group = shards.get(ShardId::CONTROL).expect("it lives here").shard.group();
            let may_stand = || group.votes_alone() && group.is_persisted();
            if self.keeps(group) { coordinator.may_begin() } else { may_stand() }
        });
        let fencing = || turn.epoch_state.stage() == EpochStage::Fencing && fencing_goes_on(turn, shards);
        beginning || fencing() || self.peers_go_on(turn, shards)
    }

    /// When a turn is due for the groups though nothing comes in.
    pub fn wake_at(&self, turn: &Turn) -> Time {
        let times =
            [self.clock.wake_at(turn), self.hand_over_wakes_at(turn), self.peering.wakes_at(turn.now)];
        times.into_iter().min().expect("there are several")
    }

    fn drive_coordinator(&mut self, turn: &mut Turn, shards: &mut Shards) {
        let control = shards.shard_mut(ShardId::CONTROL);
        let group = control.group_mut();
        if group.votes_alone() {
            group.campaign();
        }
        let term = group.term();
        let leads = self.keeps(shards.shard_mut(ShardId::CONTROL).group());
        if !leads || term != turn.epoch().term {
            self.end_if_under_way(turn);
        }
        if !leads {
            return;
        }
        let step = self.coordinator.as_mut().and_then(|coordinator| coordinator.begin(term));
        if let Some(Step::FenceControl { epoch }) = step {
            ReadOnly::change(&mut turn.epoch_state).go(epoch, EpochStage::Begun);
            turn.sequencer.show_term(term);
            self.clock.begun(turn);
            if shards.shard_mut(ShardId::CONTROL).propose_fence(epoch).is_err() {
                turn.lose_epoch();
            }
        }
        self.hand_over_if_stuck(turn, shards);
    }

    fn on_lost(&mut self, turn: &mut Turn, epoch: Epoch) {
        if epoch == turn.epoch() {
            self.end_if_under_way(turn);
        }
    }

    fn end_if_under_way(&mut self, turn: &mut Turn) {
        let Some(coordinator) = &mut self.coordinator else { return };
        if !coordinator.is_taking_over() && !coordinator.is_serving() {
            return;
        }
        let step = coordinator.end();
        let given = self.handing.take().is_some_and(|handing| handing.has_asked());
        turn.counters.paths.hand_over_done += u64::from(given);
        let taken_in = turn.allotment.generation();
        let is_ours = taken_in == Generation::NONE || taken_in == self.generation;
        assert!(is_ours, "who ends an epoch knows its generation: {taken_in:?}");
        turn.sequencer.end(turn.allotment.generation());
        let epoch = turn.epoch().to_string();
        turn.log_line(Level::Info, "the epoch ends: taking over anew", vec![("epoch", epoch)]);
        turn.send_to_all(|| EpochMail::Step { step, generation: Generation::NONE });
    }

    fn on_stopped(&mut self, from: ReactorId) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.stopped(from);
        }
    }

    /// The control shard's fence is committed: a new cluster gets its first entry, then all others fence.
    pub fn on_control_fenced(&mut self, turn: &mut Turn, shards: &mut Shards) {
        if turn.control.is_bootstrapped() {
            return self.fence_all(turn, shards);
        }
        let (epoch, bootstrap) = (turn.epoch(), bootstrap_entry(turn));
        let control = shards.shard_mut(ShardId::CONTROL);
        if control.propose_control(epoch, Revision::FRESH, bootstrap).is_err() {
            turn.lose_epoch();
        }
    }

    /// The control state is known: all other shards fence.
    pub fn fence_all(&mut self, turn: &mut Turn, shards: &Shards) {
        let epoch = turn.epoch();
        let step = self.coordinator.as_mut().and_then(|coordinator| coordinator.control_fenced(epoch));
        if let Some(step) = step {
            self.copy_control(turn, shards);
            turn.send_to_all(|| EpochMail::Step { step, generation: Generation::NONE });
        }
    }

    /// Tells the coordinator once every shard's fence is committed.
    fn report_fenced(&mut self, turn: &mut Turn, shards: &Shards) {
        let epoch = turn.epoch();
        assert!(turn.epoch_state.follows().is_none(), "who takes over follows nobody");
        if shards.all().any(|local| local.shard.log_view().fence() != epoch) {
            return;
        }
        let named = shards.all().map(|local| local.shard.log_view().known_settled()).max();
        let base = named.unwrap_or_default().max(self.settled_before).max(turn.settled_truth());
        assert!(base >= *turn.settled, "what this reactor has shown is in its report: {base}");
        let holdings = shards.all().map(|local| local.shard.holding(local.read_from)).collect();
        let report = Report { base, shards: holdings };
        ReadOnly::change(&mut turn.epoch_state).go(epoch, EpochStage::Fenced);
        turn.send(ReactorId(0), EpochMail::Fenced { epoch, report });
    }

    fn on_fenced(&mut self, turn: &mut Turn, from: ReactorId, epoch: Epoch, report: Report) {
        let Some(coordinator) = &mut self.coordinator else { return };
        match coordinator.fenced(from, epoch, report) {
            Ok(Some(step)) => turn.send_to_all(|| EpochMail::Step { step, generation: Generation::NONE }),
            Ok(None) => {}
            Err(hole) => turn.halt(hole.to_string()),
        }
    }

    /// The prefix is known: every shard seals.
    pub fn seal(&mut self, turn: &mut Turn, shards: &mut Shards, prefix: Revision) {
        let epoch = turn.epoch();
        ReadOnly::change(&mut turn.epoch_state).go(epoch, EpochStage::Sealing { sealed: 0 });
        let seal = Seal { epoch, prefix };
        if shards.all_mut().any(|local| local.shard.propose_seal(seal).is_err()) {
            turn.lose_epoch();
        }
        report_sealed(turn, shards.len());
    }

    /// A shard's seal is committed: what the prefix holds and its store does not is applied.
    pub fn on_shard_sealed(&mut self, turn: &mut Turn, shards: &mut Shards, shard: ShardId) {
        if let Err(strange) = shards.apply_prefix(shard) {
            return turn.halt(strange.of_shard(shard));
        }
        let EpochStage::Sealing { sealed } = turn.epoch_state.stage() else {
            panic!("shard {shard} is sealed while its epoch is at {:?}", turn.epoch_state.stage())
        };
        let epoch = turn.epoch();
        assert!(sealed < shards.len(), "each shard is sealed once");
        ReadOnly::change(&mut turn.epoch_state).go(epoch, EpochStage::Sealing { sealed: sealed + 1 });
        report_sealed(turn, shards.len());
    }

    /// A reactor has sealed. When all have, the epoch is to serve, behind the prefix.
    pub fn on_sealed(&mut self, turn: &Turn, from: ReactorId, epoch: Epoch) {
        let step = self.coordinator.as_mut().and_then(|coordinator| coordinator.sealed(from, epoch));
        if let Some(step) = step {
            let sealed = turn.epoch_state.stage() == EpochStage::Sealed;
            assert!(sealed, "the coordinator has sealed with all others");
            self.sharing.begins = Some(step);
        }
    }

    /// The epoch serves, behind the prefix. Every reactor has the control state that it begins with.
    pub fn serve(&mut self, turn: &mut Turn, step: Step, prefix: Revision) {
        assert!(turn.is_known_everywhere(), "what is served is served at every reactor");
        self.generation = self.generation.next();
        turn.sequencer.start(self.generation, prefix);
        *ReadOnly::change(&mut turn.settled) = prefix;
        self.clock.serves(turn);
        self.begin_peering();
        tell_clock(turn);
        let generation = self.generation;
        turn.send_to_all(|| EpochMail::Step { step, generation });
    }

    /// The reactors are given the whole control state, where they do not have it.
    pub fn copy_control(&mut self, turn: &mut Turn, shards: &Shards) {
        if std::mem::replace(&mut self.known.copied, true) {
            return;
        }
        let control = self.control_copy(turn, shards);
        let number = self.number_change(turn);
        turn.send_to_all(|| EpochMail::Control { number, control: control.clone() });
    }

    fn control_copy(&self, turn: &Turn, shards: &Shards) -> Arc<ControlCopy> {
        assert!(turn.control.is_bootstrapped(), "others begin with the map of the shards");
        let control = &shards.get(ShardId::CONTROL).expect("the coordinator is where it lives").shard;
        let is_new = control.log_view().seal() == Seal::default();
        // A member that has shown anything had all its shards, and what it settles its logs name. Another member
        // may have sealed before this one has made its shards.
        let never_shown = self.settled_before.max(turn.settled_truth()) == Revision::NONE;
        Arc::new(ControlCopy {
            state: turn.control.to_state(),
            may_create: is_new
                || (never_shown && (!control.group().is_alone() || turn.settings.stands_alone)),
        })
    }
}

fn fencing_goes_on(turn: &Turn, shards: &Shards) -> bool {
    let epoch = turn.epoch();
    let mut data = shards.all().filter(|local| local.shard.id != ShardId::CONTROL);
    let may_campaign = data.any(|local| {
        let group = local.shard.group();
        let may_stand = || local.driving.stands_at() <= turn.now && group.is_persisted();
        local.driving.fenced_for() < epoch && (group.leads() || may_stand())
    });
    may_campaign || shards.all().all(|local| local.shard.log_view().fence() == epoch)
}

fn report_sealed(turn: &mut Turn, shards: usize) {
    let epoch = turn.epoch();
    if turn.epoch_state.stage() == (EpochStage::Sealing { sealed: shards }) {
        ReadOnly::change(&mut turn.epoch_state).go(epoch, EpochStage::Sealed);
        turn.send(ReactorId(0), EpochMail::Sealed { epoch });
    }
}

fn bootstrap_entry(turn: &Turn) -> ControlEntry {
    let settings = &turn.settings;
    // What the others have begun in they publish themselves.
    let member = |founder: &Founder| MemberRecord {
        id: founder.id.0,
        directory: if founder.id == settings.member { settings.directory.0 } else { 0 },
        raft_ids: founder_raft_ids(settings.cluster, founder.id),
        name: founder.name.clone(),
        peer_urls: founder.peer_urls.clone(),
        client_urls: vec![],
        is_learner: false,
    };
    ControlEntry::Bootstrap {
        cluster: settings.cluster.0,
        token: settings.token.clone(),
        members: settings.beginners().map(member).collect(),
        cuts: crate::router::cuts(&settings.shard_starts),
        feature_level: FEATURE_LEVEL,
    }
}
