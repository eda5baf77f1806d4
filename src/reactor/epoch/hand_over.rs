//! The leadership goes to another member, by order: nothing that is under way is lost with it.
//!
//! **The question.** An epoch that ends takes its calls with it, with an unknown outcome. How does a leader that lives
//! give its role away without that?
//!
//! **The rule.** It *drains* first: what comes anew waits at the door, here or at the member that was asked, while what
//! was taken on is answered. Each reactor says when that is done, and who has all that its groups' logs have. Then the
//! control shard's group is handed to one who has all of all logs, so that its takeover finds everything settled and
//! needs no entry from anybody. Until that one is elected this member leads on, and where it is not elected in time it
//! goes on as before: what waits at the door goes by it then, here or there. A process that is to end hands over what is
//! not drained in half of its time as well, but not where a group waits for all others: then the leader answers first,
//! and the others elect when it has left.
//!
//! **Why not otherwise.** Raft's own transfer refuses proposals while it lasts, and knows one group alone: what other
//! groups had under way would be found half done.

use super::super::shards::Shards;
use super::super::turn::{ReadOnly, ToPeers, Turn};
use super::Epochs;
use super::groups::{may_lead, peer_of};
use crate::io::{EpochMail, Level};
use crate::peer::PeerMessage;
use crate::raft::Group;
use crate::reactor::epoch_state::Handing;
use crate::takeover::Coordinator;
use crate::types::{ClockReading, Duration, MemberId, ReactorId, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Whom the leadership goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOverTo {
    Member(MemberId),
    /// This member is to end: to any other that can have it, though it be not without a loss.
    Anybody,
}

/// A hand-over under way, at the reactor of the control shard.
#[derive(Debug)]
pub(super) struct HandOver {
    to: HandOverTo,
    begun: Time,
    /// Whom each reactor has said to have all that its groups have, since it has nothing under way.
    drained: BTreeMap<ReactorId, Vec<MemberId>>,
    /// Who is asked to stand.
    asked: Option<MemberId>,
}

impl HandOver {
    /// Whether somebody is asked to stand.
    pub fn has_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Who has all that all reactors' groups have.
    fn ready(&self, reactors: u16) -> BTreeSet<MemberId> {
        assert!(self.drained.len() <= usize::from(reactors), "each reactor says whom it has drained to");
        let mut said = self.drained.values();
        let first = said.next().filter(|_| self.drained.len() == usize::from(reactors));
        let first: BTreeSet<MemberId> = first.into_iter().flatten().copied().collect();
        said.fold(first, |ready, more| ready.into_iter().filter(|member| more.contains(member)).collect())
    }
}

/// How long draining may last, and the whole.
fn patience(turn: &Turn) -> (Duration, Duration) {
    let whole = turn.settings.hand_over_patience();
    (Duration(whole.0 / 2), whole)
}

impl Epochs {
    /// Whether the leadership is being handed over.
    pub fn hands_over(&self) -> bool {
        self.handing.is_some()
    }

    /// Begins to hand over. One that is under way goes on, and to anybody if that is asked for now.
    pub fn hand_over(&mut self, turn: &mut Turn, to: HandOverTo) {
        assert!(self.coordinates(), "who coordinates takeovers hands over");
        if !turn.epoch_state.leads() || !self.coordinator.as_ref().is_some_and(Coordinator::is_serving) {
            return; // The epoch ends, or has ended.
        }
        if let Some(handing) = &mut self.handing {
            if to == HandOverTo::Anybody {
                handing.to = to;
            }
            return;
        }
        turn.log_line(Level::Info, "leadership transfer starting", []);
        self.handing = Some(HandOver { to, begun: turn.now, drained: BTreeMap::new(), asked: None });
        turn.counters.paths.hand_over_begun += 1;
        turn.send_to_all(|| EpochMail::Drain);
    }

    /// Nothing new is taken on at this reactor.
    pub fn drain(&mut self, turn: &mut Turn) {
        ReadOnly::change(&mut turn.epoch_state).hand(Handing::Draining);
        self.drained = None;
    }

    /// The leadership stays here.
    pub fn go_on(&mut self, turn: &mut Turn) {
        ReadOnly::change(&mut turn.epoch_state).hand(Handing::No);
    }

    /// While the leadership is handed over: says who has all that the groups of this reactor have. Nobody counts
    /// before what is under way here is done.
    pub fn report_drained(&mut self, turn: &mut Turn, shards: &Shards, is_idle: bool) {
        if !turn.epoch_state.is_draining() {
            return;
        }
        let caught_up = if is_idle { caught_up(turn, shards) } else { vec![] };
        if self.drained.as_ref() != Some(&caught_up) {
            self.drained = Some(caught_up.clone());
            turn.send(ReactorId(0), EpochMail::Drained { caught_up });
        }
    }

    pub(super) fn on_drained(&mut self, from: ReactorId, caught_up: Vec<MemberId>) {
        if let Some(handing) = &mut self.handing {
            handing.drained.insert(from, caught_up);
        }
    }

    /// Goes on with a hand-over. Of control entries none may be on its way, and a member has to be connected.
    pub fn drive_hand_over(
        &mut self,
        turn: &mut Turn,
        shards: &mut Shards,
        is_idle: bool,
        is_connected: impl Fn(MemberId) -> bool,
    ) {
        let Some(handing) = &mut self.handing else { return };
        assert!(turn.epoch_state.leads(), "a hand-over ends with its epoch");
        let (to_drain, whole) = patience(turn);
        let group = shards.shard_mut(ShardId::CONTROL).group_mut();
        let took = turn.now.since(handing.begun);
        if handing.asked.is_some() {
            // Raft calls a transfer off as well, when it has lasted for too long.
            if took >= whole || !group.is_transferring() {
                self.stay(turn, group);
            }
            return;
        }
        let is_settled = turn.settled_truth() == turn.sequencer.counter();
        let ready = if is_idle && is_settled { handing.ready(turn.reactors) } else { BTreeSet::new() };
        let wanted = |member: &&MemberId| match handing.to {
            HandOverTo::Member(target) => **member == target,
            HandOverTo::Anybody => {
                let may = peer_of(turn, group, **member).is_some_and(|id| may_lead(turn, group, id));
                may && is_connected(**member)
            }
        };
        // With the epoch what is under way would be lost, for somebody who has to wait for the same disks.
        let nobody_is_faster = self.clock.nobody_is_faster();
        let drains_for = if nobody_is_faster { whole } else { to_drain };
        let next = match ready.iter().find(wanted).copied() {
            None if took < drains_for => return,
            None if handing.to == HandOverTo::Anybody && !nobody_is_faster => {
                furthest(turn, group, is_connected)
            }
            next => next,
        };
        let peer = next.and_then(|member| peer_of(turn, group, member));
        if !peer.is_some_and(|peer| group.transfer_leader(peer)) {
            return self.stay(turn, group);
        }
        assert!(next != Some(turn.settings.member), "nobody hands over to itself");
        handing.asked = next;
        ReadOnly::change(&mut turn.epoch_state).hand(Handing::Transferring);
    }

    /// It has come to nothing: this member leads on.
    fn stay(&mut self, turn: &mut Turn, group: &mut Group) {
        assert!(self.handing.is_some(), "what comes to nothing was under way");
        self.handing = None;
        group.abort_transfer();
        turn.log_line(Level::Warn, "leadership transfer took too long: leading on", []);
        turn.counters.paths.hand_over_failed += 1;
        turn.send_to_all(|| EpochMail::GoOn);
        tell_clock(turn);
    }

    /// Whether the control shard's group is led here, and kept: not where it is given away and this epoch with it.
    pub(super) fn keeps(&self, group: &Group) -> bool {
        let by_order = self.handing.as_ref().is_some_and(|handing| handing.asked.is_some());
        group.leads() && (by_order || !group.is_transferring())
    }

    pub(super) fn hand_over_wakes_at(&self, turn: &Turn) -> Time {
        let (to_drain, whole) = patience(turn);
        self.handing.as_ref().map_or(Time::NEVER, |handing| {
            let goes_on = handing.asked.is_some() || turn.now >= handing.begun + to_drain;
            handing.begun + if goes_on { whole } else { to_drain }
        })
    }
}

/// The members that have all that this reactor's groups have.
fn caught_up(turn: &Turn, shards: &Shards) -> Vec<MemberId> {
    let mut all: Option<BTreeSet<MemberId>> = None;
    for local in shards.all() {
        let group = local.shard.group();
        let last = group.last_index();
        let has_all = group.progress().filter(|(_, matched, _)| *matched == last);
        let members: BTreeSet<MemberId> = has_all.filter_map(|(id, ..)| turn.member_of(id)).collect();
        all = Some(all.map_or_else(|| members.clone(), |all| &all & &members));
    }
    // A reactor without a shard has nothing that anybody could lack.
    let others = || turn.other_members().into_iter().map(|(member, ..)| member).collect();
    all.unwrap_or_else(others).into_iter().collect()
}

/// Of those that can be reached the one that has most of the control shard's log.
fn furthest(turn: &Turn, group: &Group, is_connected: impl Fn(MemberId) -> bool) -> Option<MemberId> {
    let members = group.progress().filter_map(|(id, matched, is_active)| {
        let member = turn.member_of(id).filter(|member| is_active && is_connected(*member))?;
        may_lead(turn, group, id).then_some((matched, member))
    });
    members.max().map(|(_, member)| member)
}

/// The others judge by it how long what they send may wait: without it they send nothing.
pub(super) fn tell_clock(turn: &mut Turn) {
    let clock = ClockReading { boot: turn.boot, time: turn.now };
    turn.tell(ToPeers::All, ShardId::CONTROL, PeerMessage::Clock(clock));
}
