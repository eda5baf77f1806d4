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
use super::hand_over::tell_clock;
use super::peering::members_in_sync;
use crate::io::{EpochMail, Level};
use crate::limits::{
    CAMPAIGN_AGAIN_MS, SLOW_OTHERS_TIMEOUTS, STAND_AGAIN_MS, STANDS_FOR_LOST_LEADER,
    TAKEOVER_PATIENCE_DOUBLED_MAX,
};
use crate::peer::PeerMessage;
use crate::raft::{Group, Position, Role};
use crate::types::{Duration, Epoch, Index, MemberId, RaftId, ReactorId, Revision, ShardId, Term, Time};
use std::collections::BTreeMap;

/// What this member does about a group that no clock drives.
#[derive(Debug, Default)]
pub struct Driving {
    /// The last epoch whose fence was proposed here, and the term that it was led in then.
    fenced: (Epoch, Term),
    /// When it stands again, and how often it has in this epoch.
    stands_at: Time,
    stood: (Epoch, u32),
    /// The last entry of the log at the last tick.
    ticked: Index,
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

/// When a reactor was last known to turn, and what it said then.
#[derive(Debug)]
pub(super) struct Turned {
    pub at: Time,
    pub steps: u64,
    pub waits_for_others: bool,
    pub entries: u64,
    pub matched: BTreeMap<MemberId, u64>,
}

/// What is known to be settled, how far the control log is followed, and since when.
#[derive(Debug, Default)]
struct Headway {
    settled: Revision,
    followed: Index,
    at: Time,
}

/// The times of the groups.
#[derive(Debug, Default)]
pub(super) struct GroupTimes {
    /// When the control shard's group counts on, and leaders look at who lags.
    ticks_at: Time,
    /// When the takeover under way began or got further, and how many have come to nothing since one served.
    moved_at: Time,
    failed: u32,
    /// Since when no other member is known to lead, and when this one was elected.
    leaderless_since: Option<Time>,
    elected_at: Option<Time>,
    /// When this member stands because the leader's connection is gone, and how often it still does; how long after
    /// those that go before it, and in which term that leader was.
    stands_at: Time,
    stands: u32,
    stands_behind: Duration,
    lost_in: Term,
    turned: BTreeMap<ReactorId, Turned>,
    /// While this member leads.
    headway: Headway,
    /// Until when this member does not stand, having given up.
    unwell_until: Time,
}

impl GroupTimes {
    pub fn begun(&mut self, turn: &Turn) {
        self.moved_at = turn.now;
        self.turned.values_mut().for_each(|turned| turned.steps = 0);
        self.failed = (self.failed + 1).min(TAKEOVER_PATIENCE_DOUBLED_MAX);
    }

    /// How long the takeover under way may stand still.
    fn patience(&self, turn: &Turn) -> Duration {
        assert!(self.failed <= TAKEOVER_PATIENCE_DOUBLED_MAX, "patience is bounded: {}", self.failed);
        Duration(turn.settings.election_timeout.0 << self.failed.saturating_sub(1))
    }

    /// How many entries the logs of all reactors have had.
    pub fn entries(&self) -> u64 {
        self.turned.values().map(|turned| turned.entries).sum()
    }

    pub fn wake_at(&self, turn: &Turn) -> Time {
        let stands_at = if self.stands > 0 { self.stands_at } else { Time::NEVER };
        if turn.is_alone() { Time::NEVER } else { self.ticks_at.min(stands_at) }
    }

    /// Why a member that leads should not: revisions that do not settle, control entries that are not followed here, or a
    /// reactor that does not turn.
    fn why_unwell(&mut self, turn: &Turn, group: &Group, followed: Index) -> Option<&'static str> {
        let now = turn.now;
        let (settled, taken) = (turn.settled_truth(), turn.sequencer.counter());
        let before = &self.headway;
        assert!(before.settled <= settled, "what is settled does not fall: {settled}");
        assert!(settled <= taken, "what is settled was taken before: {settled} of {taken}");
        let is_all = settled == taken && followed == group.last_index();
        if (settled, followed) != (before.settled, before.followed) || is_all {
            self.headway = Headway { settled, followed, at: now };
        }
        let timeouts = if self.nobody_is_faster() { SLOW_OTHERS_TIMEOUTS } else { 1 };
        let is_late = now.since(self.headway.at) > Duration(timeouts * turn.settings.election_timeout.0);
        // Who hears nobody is deposed by the check of the quorum, and is well as soon as it hears them again.
        match is_late && hears_most(group) {
            true => Some("what is written does not settle"),
            false => self.why_hung(turn),
        }
    }

    /// Whether a group waits for all other members: nobody who led it would get further, as where all disks stand.
    pub fn nobody_is_faster(&self) -> bool {
        self.turned.values().any(|turned| turned.waits_for_others)
    }

    /// Why a member should not take over either: no epoch begins before all its reactors have stopped.
    fn why_hung(&self, turn: &Turn) -> Option<&'static str> {
        let patience = turn.settings.election_timeout;
        let hangs = self.turned.values().any(|turned| turn.now.since(turned.at) > patience);
        hangs.then_some("one of its threads does not turn")
    }
}

impl GroupTimes {
    /// The control shard's group counts on.
    fn tick(&mut self, turn: &mut Turn, local: &mut LocalShard, ticks: bool) {
        let followed = local.shard.log_view().committed().index;
        let group = local.shard.group_mut();
        if group.is_alone() {
            return;
        }
        // Where nobody else votes there is nobody to give it to.
        if ticks && group.leads() && !group.votes_alone() {
            self.give_up_if_unwell(turn, group, followed);
        }
        // Who is not well follows, and stands for nothing.
        let leaves = turn.control.leaves(turn.settings.member);
        let may_stand = group.leads() || (turn.now >= self.unwell_until && !leaves);
        if ticks {
            group.tick(may_stand);
        }
        assert!(
            self.stands <= STANDS_FOR_LOST_LEADER,
            "a lost leader is stood for some times: {}",
            self.stands
        );
        self.stand_for_lost_leader(turn, group, may_stand);
        self.note_leader(turn.now, group);
    }

    /// Who asks whether it would get votes asks once more: those that still believed in the leader said nothing. Who
    /// has votes waits for the others, and begins anew where one was refused: two that have asked each other at the same
    /// time have both voted for themselves. Who has voted for another one has no say in it any more.
    fn stand_for_lost_leader(&mut self, turn: &mut Turn, group: &mut Group, may_stand: bool) {
        let vote = group.hard_state().vote.filter(|_| group.term() > self.lost_in);
        let has_voted = vote.is_some_and(|vote| vote != group.own());
        let is_over = group.leads() || group.leader().is_some() || has_voted;
        if self.stands == 0 || is_over || !may_stand {
            self.stands = 0;
            return;
        }
        if group.role() == Role::Candidate && !group.is_refused() {
            self.stands_at = Time::NEVER;
        } else if self.stands_at == Time::NEVER {
            self.stands_at = turn.now + self.stands_behind;
        }
        if turn.now >= self.stands_at {
            group.campaign();
            let pause_ms = STAND_AGAIN_MS << (STANDS_FOR_LOST_LEADER - self.stands);
            self.stands_at = turn.now + Duration::from_ms(pause_ms);
            turn.counters.paths.stood_for_lost_leader += 1;
            self.stands -= 1;
        }
    }

    /// How long a takeover takes is counted from when the leader was found to be lost.
    fn note_leader(&mut self, now: Time, group: &Group) {
        match (group.leads(), group.leader()) {
            (true, _) => _ = self.elected_at.get_or_insert(now),
            (false, Some(_)) => (self.leaderless_since, self.elected_at) = (None, None),
            (false, None) => {
                self.leaderless_since.get_or_insert(now);
                self.elected_at = None;
            }
        }
    }

    fn give_up_if_unwell(&mut self, turn: &mut Turn, group: &mut Group, followed: Index) {
        assert!(group.leads(), "only who leads can give it up");
        let why = match turn.epoch_state.leads() {
            true => self.why_unwell(turn, group, followed),
            false => self.why_hung(turn),
        };
        let Some(why) = why else { return };
        let was_unwell = turn.now < self.unwell_until;
        self.unwell_until = turn.now + Duration(2 * turn.settings.election_timeout.0);
        turn.counters.paths.leader_gave_up += 1;
        turn.log_line(Level::Warn, "giving the leadership up", [("reason", why.into())]);
        // Where nobody has taken it, the others elect.
        if was_unwell { group.step_down() } else { self.hand_over(turn, group) }
    }

    /// A reactor turns.
    pub fn turns(&mut self, from: ReactorId, turned: Turned) {
        let before = self.turned.get(&from).map(|before| (before.at, before.steps));
        assert!(before.is_none_or(|(at, _)| at <= turned.at), "reactor {from} turns as time goes on");
        if turned.steps > before.map_or(0, |(_, steps)| steps) {
            self.moved_at = turned.at;
        }
        self.turned.insert(from, turned);
    }

    /// An epoch begins to serve.
    pub fn serves(&mut self, turn: &mut Turn) {
        self.failed = 0;
        self.wakes(turn);
        let elected_at = self.elected_at.unwrap_or(self.moved_at);
        let lost_at = self.leaderless_since.unwrap_or(elected_at);
        assert!(lost_at <= elected_at, "one is elected after another is lost: {elected_at:?}, {lost_at:?}");
        assert!(elected_at <= turn.now, "one serves after it was elected: {elected_at:?}");
        if !turn.is_alone() {
            let fields = [
                ("without-leader", turn.now.since(lost_at).into()),
                ("since-election", turn.now.since(elected_at).into()),
            ];
            turn.log_line(Level::Info, "took over", fields);
        }
    }

    /// Gives the control shard's group to whom it has heard of and that has most of it, and of all other groups; nobody
    /// leads where there is none.
    fn hand_over(&self, turn: &Turn, group: &mut Group) {
        assert!(group.leads(), "what is given is held");
        let has =
            |of: MemberId| self.turned.values().filter_map(|turned| turned.matched.get(&of)).sum::<u64>();
        let others = group.progress().filter(|(id, _, is_active)| *is_active && may_lead(turn, group, *id));
        let next = others.max_by_key(|(id, matched, _)| (*matched, turn.member_of(*id).map(has), *id));
        let next = next.map(|(id, ..)| id);
        if !next.is_some_and(|next| group.transfer_leader(next)) {
            group.step_down();
        }
    }

    /// What stood still before now is no sign of anything.
    fn wakes(&mut self, turn: &Turn) {
        self.headway.at = turn.now;
        self.turned.values_mut().for_each(|turned| turned.at = turn.now);
    }
}

impl Epochs {
    pub(super) fn drive_groups(
        &mut self,
        turn: &mut Turn,
        shards: &mut Shards,
        is_heard_by: impl Fn(MemberId) -> bool,
    ) {
        let ticks = self.clock.ticks_at <= turn.now;
        if ticks {
            // A process that slept does not count what it has slept: it would depose a leader that lives, or itself.
            if turn.now.since(self.clock.ticks_at) > Duration(turn.settings.election_timeout.0 / 2) {
                self.clock.wakes(turn);
                turn.counters.paths.sleep_not_counted += u64::from(!turn.is_alone());
            }
            self.clock.ticks_at = turn.now + turn.settings.heartbeat;
            if self.coordinator.is_some() && turn.epoch_state.takes_writes() && !turn.is_alone() {
                tell_clock(turn);
            }
        }
        if ticks && !turn.is_alone() {
            let steps = steps_done(turn, shards);
            let waits_for_others = shards.all().any(|local| waits_for_others(turn, local, &is_heard_by));
            shards.all_mut().for_each(|local| local.driving.ticked = local.shard.group().last_index());
            let entries = shards.all().map(|local| local.shard.group().last_index().0).sum();
            let matched = matched(turn, shards);
            let in_sync = members_in_sync(turn, shards);
            turn.send(ReactorId(0), EpochMail::Turns { steps, waits_for_others, entries, matched, in_sync });
        }
        // Nobody takes a group from a lone member, and nobody lags; that one of its own is gone is told.
        if !ticks && turn.is_alone() && turn.epoch_state.stage() == EpochStage::Serving {
            return;
        }
        let mut lost = false;
        for local in shards.all_mut() {
            if local.shard.id == ShardId::CONTROL {
                self.clock.tick(turn, local, ticks);
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
            coordinator.is_taking_over() && turn.now >= self.clock.moved_at + self.clock.patience(turn);
        let group = shards.shard_mut(ShardId::CONTROL).group_mut();
        if !late || group.votes_alone() {
            return;
        }
        turn.counters.paths.takeover_given_up += 1;
        self.clock.hand_over(turn, group);
        self.end_if_under_way(turn);
    }

    /// The process is to end: another member leads next.
    pub fn stand_no_more(&mut self) {
        self.clock.unwell_until = Time::NEVER;
    }

    /// The connection to a member is gone. Where it led, others may be voted for at once.
    pub fn on_peer_down(&mut self, turn: &mut Turn, shards: &mut Shards, member: MemberId) {
        if self.coordinator.is_none() {
            return;
        }
        assert!(member != turn.settings.member, "nobody is connected to itself");
        let group = shards.shard_mut(ShardId::CONTROL).group_mut();
        let led = group.leader().and_then(|id| turn.member_of(id)) == Some(member);
        if !led || group.role() != Role::Follower {
            return;
        }
        // One after the other, so that they do not share the votes: the first is done before the second begins.
        let (gone, own) = (group.leader(), group.own());
        let voters = &group.peers_at(group.applied()).voters;
        let before = voters.iter().filter(|id| **id < own && Some(**id) != gone).count() as u64;
        group.forget_leader();
        self.clock.stands = STANDS_FOR_LOST_LEADER;
        self.clock.lost_in = group.term();
        self.clock.stands_behind = Duration::from_ms(before * CAMPAIGN_AGAIN_MS / 2);
        self.clock.stands_at = turn.now + self.clock.stands_behind;
    }

    /// The winner of the control shard's group asks for a group in which this member's log is longer.
    pub fn on_group_wanted(
        &self,
        turn: &mut Turn,
        local: &mut LocalShard,
        from: MemberId,
        term: Term,
        last: Position,
    ) {
        assert!(from != turn.settings.member, "nobody asks itself for a group");
        let is_older = term < turn.epoch_state.term();
        let group = local.shard.group_mut();
        let own = group.last();
        if is_older || !turn.epoch_state.may_follow() || (own.term, own.index) <= (last.term, last.index) {
            return;
        }
        let Some(wanted_by) = peer_of(turn, group, from) else { return };
        if !group.leads() {
            group.campaign();
            turn.counters.paths.group_taken += 1;
            return;
        }
        // A transfer that has not come through is begun anew.
        group.abort_transfer();
        let begun = group.transfer_leader(wanted_by);
        turn.counters.paths.group_handed_over += u64::from(begun);
    }
}

impl Epochs {
    /// A member says up to where its peer of a group is committed, to which no log goes back.
    pub fn on_state_held(&self, turn: &Turn, local: &mut LocalShard, from: MemberId, upto: Index) {
        let group = local.shard.group_mut();
        if let Some(peer) = peer_of(turn, group, from) {
            group.has_state(peer, upto);
        }
    }
}

/// The peer of a group that is that member's.
pub(super) fn peer_of(turn: &Turn, group: &Group, member: MemberId) -> Option<RaftId> {
    let peers = group.peers_at(group.applied());
    let ids = peers.voters.iter().chain(&peers.learners).copied();
    ids.into_iter().find(|id| turn.member_of(*id) == Some(member))
}

/// Whether a peer of the control shard's group may lead the cluster: it votes there, and so in every group, and stays.
pub(super) fn may_lead(turn: &Turn, group: &Group, id: RaftId) -> bool {
    let leaves = turn.member_of(id).is_none_or(|member| turn.control.leaves(member));
    group.peers().voters.contains(&id) && !leaves
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
    assert!(local.driving.fenced.0 == epoch, "an epoch goes on with groups that it has fenced");
    let group = local.shard.group_mut();
    if !local.driving.is_held(group) {
        return true;
    }
    if ticks && !group.is_alone() && group.someone_lags() {
        group.ping();
    }
    false
}

/// How many entries of the groups that are led here each other member has.
fn matched(turn: &Turn, shards: &Shards) -> BTreeMap<MemberId, u64> {
    let mut matched = BTreeMap::new();
    for (id, index, _) in shards.all().flat_map(|local| local.shard.group().progress()) {
        if let Some(member) = turn.member_of(id) {
            *matched.entry(member).or_default() += index.0;
        }
    }
    matched
}

/// How many steps of the takeover under way the shards have behind them: it gets further while they grow.
fn steps_done(turn: &Turn, shards: &Shards) -> u64 {
    let epoch = turn.epoch();
    let steps = shards.all().map(|local| {
        let view = local.shard.log_view();
        let steps = [local.driving.fenced.0, view.fence(), view.seal().epoch];
        steps.into_iter().filter(|of| *of == epoch).count() as u64
    });
    steps.sum()
}

/// Whether the group had proposed something by the last tick that no other member has acknowledged all of, though most
/// members hear of it: their disks are slow. One may have acknowledged what was on its way when its disk came to stand.
fn waits_for_others(turn: &Turn, local: &LocalShard, is_heard_by: impl Fn(MemberId) -> bool) -> bool {
    let group = local.shard.group();
    let proposed = local.driving.ticked.min(group.last_index());
    let is_alone = || group.progress().all(|(_, matched, _)| matched < proposed);
    let most_hear = || group.is_quorum(|id| turn.member_of(id).is_some_and(&is_heard_by));
    group.leads() && proposed > group.committed() && is_alone() && most_hear()
}

/// Whether a majority was heard of since the last check of the quorum.
fn hears_most(group: &Group) -> bool {
    group.is_quorum(|id| group.progress().any(|(of, _, heard)| of == id && heard))
}

fn stand(turn: &mut Turn, local: &mut LocalShard) {
    let (epoch, shard, driving) = (turn.epoch(), local.shard.id, &mut local.driving);
    assert!(shard != ShardId::CONTROL, "the control shard's group elects by time");
    assert!(driving.fenced.0 < epoch, "a group that was fenced is not stood for: it is lost with its epoch");
    let group = local.shard.group_mut();
    if driving.stood.0 != epoch {
        driving.stood = (epoch, 0);
        driving.stands_at = turn.now;
    }
    if group.leads() {
        // It was for a winner before. One that is deaf to others' terms hears of them in the answers to its fence.
        return group.abort_transfer();
    }
    if driving.stands_at > turn.now {
        return;
    }
    group.campaign();
    if matches!(group.role(), Role::Candidate | Role::PreCandidate) {
        let pause = Duration::from_ms(CAMPAIGN_AGAIN_MS << (driving.stood.1 / 2).min(8));
        driving.stands_at = turn.now + pause.min(Duration(turn.settings.election_timeout.0 / 2));
        driving.stood.1 += 1;
        if driving.stood.1 > 1 {
            let (control_term, last) = (epoch.term, group.last());
            turn.counters.paths.group_wanted += 1;
            turn.tell(ToPeers::All, shard, PeerMessage::WantsGroup { shard, control_term, last });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Elections, FRESH_BASE, GroupStart, HardState};
    use crate::types::Peers;

    fn elect(group: &mut Group) {
        while !group.campaign() {
            let writes = group.ready().expect("something is in the way of the election");
            group.persisted(writes.number);
        }
        while let Some(writes) = group.ready() {
            group.persisted(writes.number);
        }
    }

    /// What another leader has appended in between stands behind the fence.
    #[test]
    fn a_group_that_is_led_anew_is_not_held_by_its_fence() {
        let own = RaftId::new(5).unwrap();
        let hard_state = HardState { term: FRESH_BASE.term, vote: None, commit: FRESH_BASE.index };
        let mut group = Group::new(GroupStart {
            own,
            peers: Peers { voters: vec![own], learners: vec![] },
            base: FRESH_BASE,
            hard_state,
            entries: vec![],
            elections: Elections::ByOwner,
        });
        elect(&mut group);
        let driving = Driving { fenced: (Epoch::default(), group.term()), ..Driving::default() };
        assert!(driving.is_held(&group));
        group.step_down();
        assert!(!driving.is_held(&group));
        elect(&mut group);
        assert!(group.leads() && !driving.is_held(&group));
    }
}
