//! The peers of all groups follow the members.
//!
//! **The question.** A change of the members touches every group, each of which changes its peers by an entry of its own
//! log, one peer at a time. The leader may be lost after any of them. What is the order, and who carries it on?
//!
//! **The rule.** What is wanted stands in the control state, by an intent. While a leader serves, every reactor compares
//! its groups' peers with that, and proposes what differs; a leader that comes later finds the rest. Who joins becomes a
//! learner of every group, which no quorum counts. Who is to vote becomes a voter of a group once it has what that has,
//! and of the control shard's group last of all: so whoever can be elected is a voter everywhere. Who leaves is taken out
//! of all groups at once, since each may need it until then; but first its clients are given a moment to go elsewhere.
//! When all groups are as wanted, and in each a quorum knows that durably, the leader enters it: who leaves may go then,
//! and whoever is restarted does not need it.
//!
//! **Why not otherwise.** A voter that is added before it runs, as in etcd, counts in every quorum: one member that adds a
//! second can do nothing until that one has come up.

use super::super::epoch_state::EpochStage;
use super::super::shards::{LocalShard, Shards};
use super::super::turn::Turn;
use super::Epochs;
use crate::io::{EpochMail, LeaderMail};
use crate::limits::{IN_SYNC_PERCENT, LEAVERS_MOMENT_MS};
use crate::raft::Group;
use crate::record::{ConfChange, MemberChange, MemberRecord};
use crate::types::{Duration, Epoch, MemberId, RaftId, ReactorId, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet};

const LEAVERS_MOMENT: Duration = Duration::from_ms(LEAVERS_MOMENT_MS);

/// A change of one member: there is no other such one, ever.
pub type Change = (MemberId, MemberChange);

/// How far the groups are with what changes of members want.
#[derive(Debug, Default)]
pub(super) struct Peering {
    /// What this reactor has said to be done in all its groups but the control shard's, in this epoch.
    said: (Epoch, BTreeSet<Change>),
    /// What each reactor has said, at the control shard's.
    done_by: BTreeMap<ReactorId, BTreeSet<Change>>,
    /// Since when changes are under way, as this epoch has seen.
    since: BTreeMap<Change, Time>,
    /// Whom each reactor has said to be in sync in its groups.
    in_sync: BTreeMap<ReactorId, BTreeSet<MemberId>>,
}

/// What a group lacks of a change.
#[derive(Debug, PartialEq, Eq)]
enum Lacks {
    Nothing,
    This(ConfChange),
    /// A quorum that knows of it durably.
    Sureness,
    /// It has to wait: for the peer to have what the group has, or for a change before.
    Time,
}

impl Epochs {
    /// Goes on with the changes of members that are under way.
    pub(super) fn drive_peers(&mut self, turn: &mut Turn, shards: &mut Shards) {
        if !has_changes(turn) {
            return;
        }
        assert!(turn.epoch_state.may_write(), "peers change while the epoch serves");
        let changes: Vec<Change> = turn.control.member_changes().collect();
        for change in &changes {
            self.peering.since.entry(*change).or_insert(turn.now);
        }
        for local in shards.all_mut() {
            for change in &changes {
                let may_end = self.peering.may_end(turn, local.shard.id, change);
                let group = local.shard.group_mut();
                match lacks(turn, group, *change, may_end) {
                    Lacks::This(wanted) => _ = group.propose_peers(wanted),
                    Lacks::Sureness => group.propose_barrier(),
                    Lacks::Nothing | Lacks::Time => {}
                }
            }
        }
        let done = done(turn, shards, &changes);
        let epoch = turn.epoch();
        if self.peering.said != (epoch, done.clone()) {
            self.peering.said = (epoch, done.clone());
            turn.send(ReactorId(0), EpochMail::Peered { done });
        }
        if self.coordinates() {
            self.tell_done(turn, shards, &changes);
        }
    }

    /// At the control shard's reactor: what is done in all groups is said to the leader.
    fn tell_done(&self, turn: &mut Turn, shards: &Shards, changes: &[Change]) {
        let group = shards.get(ShardId::CONTROL).expect("it lives here").shard.group();
        let all_have = |change: &&Change| {
            self.peering.all_say(turn, change) && lacks(turn, group, **change, true) == Lacks::Nothing
        };
        let done: Vec<Change> = changes.iter().filter(all_have).copied().collect();
        for (member, change) in done {
            turn.send(ReactorId(0), LeaderMail::Peered { member, change });
        }
    }

    /// A reactor has said what is done in its groups.
    pub(super) fn on_peered(&mut self, turn: &Turn, from: ReactorId, sent_in: Epoch, done: BTreeSet<Change>) {
        assert!(from.0 < turn.reactors, "a reactor of this member says it: {from}");
        assert!(self.coordinates(), "it is said where the control shard lives");
        if sent_in == turn.epoch() {
            self.peering.done_by.insert(from, done);
        }
    }

    /// A reactor has said who is in sync in its groups.
    pub(super) fn on_in_sync(&mut self, from: ReactorId, members: BTreeSet<MemberId>) {
        self.peering.in_sync.insert(from, members);
    }

    /// The members that have nearly all that the groups led here have, as every reactor has said lately.
    pub fn in_sync(&self, turn: &Turn) -> BTreeSet<MemberId> {
        assert!(
            self.peering.in_sync.len() <= usize::from(turn.reactors),
            "each reactor says it of its groups"
        );
        let mut said = self.peering.in_sync.values();
        let complete = self.peering.in_sync.len() == usize::from(turn.reactors);
        let first = said.next().filter(|_| complete).cloned().unwrap_or_default();
        said.fold(first, |all, more| &all & more)
    }

    /// What earlier epochs have heard is of no use.
    pub(super) fn begin_peering(&mut self) {
        self.peering = Peering::default();
    }

    /// Whether the next turn goes on with a change of members though no input comes.
    pub(super) fn peers_go_on(&self, turn: &Turn, shards: &Shards) -> bool {
        if !has_changes(turn) {
            return false;
        }
        let changes: Vec<Change> = turn.control.member_changes().collect();
        let may_propose = |local: &LocalShard| {
            changes.iter().any(|change| {
                let may_end = self.peering.may_end(turn, local.shard.id, change);
                matches!(lacks(turn, local.shard.group(), *change, may_end), Lacks::This(_) | Lacks::Sureness)
            })
        };
        shards.all().any(may_propose) || self.peering.said != (turn.epoch(), done(turn, shards, &changes))
    }
}

impl Peering {
    /// Whether a group may make a change: a vote in the control shard's comes last, and who leaves has a moment.
    fn may_end(&self, turn: &Turn, shard: ShardId, change: &Change) -> bool {
        match change.1 {
            MemberChange::Removing => {
                self.since.get(change).is_some_and(|since| turn.now >= *since + LEAVERS_MOMENT)
            }
            _ => shard != ShardId::CONTROL || self.all_say(turn, change),
        }
    }

    /// When who leaves has had its moment.
    pub fn wakes_at(&self, now: Time) -> Time {
        let removals = self.since.iter().filter(|((_, change), _)| *change == MemberChange::Removing);
        let ends = removals.map(|(_, since)| *since + LEAVERS_MOMENT);
        ends.filter(|at| *at > now).min().unwrap_or(Time::NEVER)
    }

    /// Whether a change is done in all groups of all reactors but the control shard's.
    fn all_say(&self, turn: &Turn, change: &Change) -> bool {
        let said = self.done_by.values().filter(|done| done.contains(change)).count();
        assert!(said <= usize::from(turn.reactors), "each reactor says it of its groups: {said}");
        said == usize::from(turn.reactors)
    }
}

/// Whether the groups have changes to follow. Those of members that are lost for ever end as they are.
fn has_changes(turn: &Turn) -> bool {
    let serves = turn.epoch_state.stage() == EpochStage::Serving;
    serves && !*turn.is_to_be_alone && turn.control.member_changes().next().is_some()
}

/// The changes that the groups of this reactor have, but for the control shard's.
fn done(turn: &Turn, shards: &Shards, changes: &[Change]) -> BTreeSet<Change> {
    let has = |change: &&Change| {
        let mut data = shards.all().filter(|local| local.shard.id != ShardId::CONTROL);
        data.all(|local| lacks(turn, local.shard.group(), **change, true) == Lacks::Nothing)
    };
    changes.iter().filter(has).copied().collect()
}

/// What of a change is next in a group, which may make the last step of it or not.
fn lacks(turn: &Turn, group: &Group, (member, change): Change, may_end: bool) -> Lacks {
    let Some(record) = turn.control.member(member) else { return Lacks::Time };
    let peers = group.peers();
    let its =
        |ids: &[RaftId]| ids.iter().copied().find(|id| record.raft_ids.iter().any(|of| of.id == id.get()));
    let (votes, learns) = (its(&peers.voters), its(&peers.learners));
    assert!(votes.is_none() || learns.is_none(), "who votes is no learner: {votes:?}, {learns:?}");
    let id = votes.or(learns).or_else(|| RaftId::new(record.raft_ids.first()?.id));
    let Some(id) = id else { return Lacks::Time };
    let may_propose = group.leads() && !group.has_pending_change() && !group.is_transferring();
    let wanted = match change {
        MemberChange::Adding if votes.is_none() && learns.is_none() => ConfChange::AddLearner(id.get()),
        MemberChange::Promoting if votes.is_none() && may_end && is_in_sync(group, id) => {
            ConfChange::AddVoter(id.get())
        }
        MemberChange::Promoting if votes.is_none() => return Lacks::Time,
        // Who leads takes itself out of nothing: another one does it.
        MemberChange::Removing if votes.or(learns).is_some() && may_end && member != turn.settings.member => {
            ConfChange::Remove(id.get())
        }
        MemberChange::Removing if votes.or(learns).is_some() => return Lacks::Time,
        // What another leader has proposed may still take effect.
        _ if group.has_pending_change() => return Lacks::Time,
        _ if group.peers_are_sure() => return Lacks::Nothing,
        _ if group.has_barrier() || !may_propose => return Lacks::Time,
        MemberChange::Adding | MemberChange::Promoting | MemberChange::Removing => return Lacks::Sureness,
    };
    if may_propose { Lacks::This(wanted) } else { Lacks::Time }
}

/// Whether a peer has nearly all that the leader has (etcd's measure).
fn is_in_sync(group: &Group, id: RaftId) -> bool {
    let last = group.last_index().0;
    group.progress().any(|(of, matched, _)| of == id && matched.0 * 100 >= last * IN_SYNC_PERCENT)
}

/// The members that are in sync in all groups that are led here.
pub(super) fn members_in_sync(turn: &Turn, shards: &Shards) -> BTreeSet<MemberId> {
    let members = turn.control.records().filter(|member| member.is_learner).map(MemberRecord::id);
    let has_all = |member: &MemberId| {
        shards.all().all(|local| {
            let group = local.shard.group();
            super::groups::peer_of(turn, group, *member).is_some_and(|id| is_in_sync(group, id))
        })
    };
    members.filter(has_all).collect()
}
