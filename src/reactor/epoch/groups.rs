//! Who leads the groups: what ticks do for the control shard's group, and timers of our own for all others.
//!
//! Only the control shard's group elects by timeout. Its winner stands in every other group; where it is refused
//! because another member's log is longer, that member takes the group on its behalf and hands it over. Nothing is
//! repeated by raft where nothing ticks, so what was lost is asked for again here: votes, and what a lagging peer
//! has not acknowledged.

use super::super::epoch_state::EpochStage;
use super::super::shards::{LocalShard, Shards};
use super::super::turn::{ToPeers, Turn};
use super::Epochs;
use crate::limits::{CAMPAIGN_AGAIN_MS, TAKEOVER_PATIENCE_DOUBLED_MAX};
use crate::peer::PeerMessage;
use crate::raft::{Group, Position, Role};
use crate::types::{Duration, Epoch, MemberId, RaftId, ShardId, Term, Time};

/// What this member does about a group that no clock drives.
#[derive(Debug, Default)]
pub struct Driving {
    /// The last epoch whose fence was proposed here, and the term that it was led in then.
    fenced: (Epoch, Term),
    /// When it stands again, and how often it has in this epoch.
    stands_at: Time,
    stood: (Epoch, u32),
}

impl Driving {
    pub fn fenced_for(&self) -> Epoch {
        self.fenced.0
    }

    pub fn stands_at(&self) -> Time {
        self.stands_at
    }

    /// Whether the group is led in the term in which it was fenced.
    fn is_held(&self, group: &Group) -> bool {
        group.leads() && !group.is_transferring() && group.term() == self.fenced.1
    }
}

/// The times of the groups.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When the control shard's group counts on, and leaders look at who lags.
    ticks_at: Time,
    /// When the takeover under way began, and how many have come to nothing since one served.
    begun_at: Time,
    failed: u32,
}

impl Clock {
    pub fn begun(&mut self, turn: &Turn) {
        self.begun_at = turn.now;
        self.failed = (self.failed + 1).min(TAKEOVER_PATIENCE_DOUBLED_MAX);
    }

    /// How long the takeover under way may last.
    fn patience(&self, turn: &Turn) -> Duration {
        Duration(turn.settings.election_timeout.0 << self.failed.saturating_sub(1))
    }

    pub fn wake_at(&self, turn: &Turn, shards: &Shards) -> Time {
        let has_others =
            turn.settings.founders.len() > 1 || shards.all().any(|local| !local.shard.group().is_alone());
        if has_others { self.ticks_at } else { Time::NEVER }
    }
}

impl Epochs {
    pub(super) fn drive_groups(&mut self, turn: &mut Turn, shards: &mut Shards) {
        let ticks = self.clock.ticks_at <= turn.now;
        if ticks {
            // A process that slept does not count what it has slept: it would depose a leader that lives.
            self.clock.ticks_at = turn.now + turn.settings.heartbeat;
        }
        if turn.epoch_state.stage() == EpochStage::Serving {
            self.clock.failed = 0;
        }
        let mut lost = false;
        for local in shards.all_mut() {
            if local.shard.id == ShardId::CONTROL {
                let group = local.shard.group_mut();
                if ticks && !group.is_alone() {
                    group.tick();
                }
                continue;
            }
            lost |= drive(turn, local, ticks);
        }
        if lost {
            turn.lose_epoch();
        }
    }

    /// Gives the control shard's group to another member, where this one does not come through with its takeover.
    pub(super) fn hand_over_if_stuck(&mut self, turn: &mut Turn, shards: &mut Shards) {
        let Some(coordinator) = &self.coordinator else { return };
        let late =
            coordinator.is_taking_over() && turn.now >= self.clock.begun_at + self.clock.patience(turn);
        let group = shards.shard_mut(ShardId::CONTROL).group_mut();
        if !late || group.is_alone() {
            return;
        }
        let others = group.progress().filter(|(id, ..)| *id != group.own());
        let next = others.filter(|(.., is_active)| *is_active).max_by_key(|(id, matched, _)| (*matched, *id));
        turn.counters.paths.takeover_given_up += 1;
        let next = next.map(|(id, ..)| id);
        if !next.is_some_and(|next| group.transfer_leader(next)) {
            group.step_down();
        }
        self.end_if_under_way(turn);
    }

    /// The connection to a member is gone. Where it led, others may be voted for at once.
    pub fn on_peer_down(&mut self, turn: &mut Turn, shards: &mut Shards, member: MemberId) {
        if self.coordinator.is_none() {
            return;
        }
        let group = shards.shard_mut(ShardId::CONTROL).group_mut();
        let led = group.leader().and_then(|id| turn.member_of(id)) == Some(member);
        if led && group.role() == Role::Follower {
            group.forget_leader();
        }
    }

    /// The winner of the control shard's group asks for a group in which this member's log is longer.
    pub fn on_group_wanted(
        &self,
        turn: &Turn,
        local: &mut LocalShard,
        from: MemberId,
        term: Term,
        last: Position,
    ) {
        let is_older = term < turn.epoch_state.term();
        let group = local.shard.group_mut();
        let own = group.last();
        if is_older || !turn.epoch_state.may_follow() || (own.term, own.index) <= (last.term, last.index) {
            return;
        }
        let Some(wanted_by) = peer_of(turn, group, from) else { return };
        if !group.leads() {
            group.campaign();
            return;
        }
        // A transfer that has not come through is begun anew.
        group.abort_transfer();
        group.transfer_leader(wanted_by);
    }
}

/// The peer of a group that is that member's.
fn peer_of(turn: &Turn, group: &Group, member: MemberId) -> Option<RaftId> {
    let peers = group.peers_at(group.applied());
    let ids = peers.voters.iter().chain(&peers.learners).copied();
    ids.into_iter().find(|id| turn.member_of(*id) == Some(member))
}

/// Stands in a group, fences it, and looks after who lags. Whether the epoch is lost with it.
fn drive(turn: &mut Turn, local: &mut LocalShard, ticks: bool) -> bool {
    let epoch = turn.epoch();
    match turn.epoch_state.stage() {
        EpochStage::Over | EpochStage::Begun => return false,
        EpochStage::Fencing if local.driving.fenced.0 < epoch => {
            if local.shard.log_view().newest_epoch() >= epoch {
                return true; // Another member has taken over since.
            }
            stand(turn, local);
            if !local.shard.group().leads() {
                return false;
            }
            local.driving.fenced = (epoch, local.shard.group().term());
            if local.shard.propose_fence(epoch).is_err() {
                return true;
            }
        }
        _ => {}
    }
    let group = local.shard.group_mut();
    if !local.driving.is_held(group) {
        return true;
    }
    if ticks && !group.is_alone() && group.someone_lags() {
        group.ping();
    }
    false
}

fn stand(turn: &mut Turn, local: &mut LocalShard) {
    let (epoch, shard, driving) = (turn.epoch(), local.shard.id, &mut local.driving);
    let group = local.shard.group_mut();
    if driving.stood.0 != epoch {
        driving.stood = (epoch, 0);
        driving.stands_at = turn.now;
    }
    if group.leads() {
        group.abort_transfer(); // It was for a winner before.
        return group.ping(); // One that is deaf to others' terms hears of them in the answers.
    }
    if driving.stands_at > turn.now {
        return;
    }
    group.campaign();
    if matches!(group.role(), Role::Candidate | Role::PreCandidate) {
        driving.stands_at = turn.now + Duration::from_ms(CAMPAIGN_AGAIN_MS);
        driving.stood.1 += 1;
        if driving.stood.1 > 1 {
            let (control_term, last) = (epoch.term, group.last());
            turn.counters.paths.group_wanted += 1;
            turn.tell(ToPeers::All, shard, PeerMessage::WantsGroup { shard, control_term, last });
        }
    }
}
