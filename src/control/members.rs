//! Who the members are, who is becoming one or leaving, and under which ids they take part in Raft groups.
//!
//! **Raft ids are not member ids.** A peer of a group is one log of a member. Where a log is given up for damage,
//! all groups in it come back as new peers, while the member stays who it is. So each log has an id for each of
//! its incarnations, under which its groups come back that were given up with the one before. The groups of a new
//! cluster begin with one id for each founder, that of its first log, wherever they live: nobody knows how many
//! logs another founder has. A shard that moves to another log of its member takes its id along. A group's opening
//! says which id that is, and the member's record whose.
//!
//! **The rule.** Every member computes the ids of all founders alike, from what all of them know:
//!
//! ```text
//! raft id = first 8 bytes, big-endian, of sha1(cluster id 8, member id 8, log 4, incarnation 4), each big-endian;
//!           1 where that is 0
//! ```
//!
//! **Changes.** One begins with an intent, from which on the members are as it says: who joins, may be written to
//! and heard; who leaves, is no member to any client. It goes on, whoever leads, until every group's peers are
//! what the intent wants, group 0's the last; then comes the entry that it is done, which names the intent: by
//! the member and the change, since a member joins once, is promoted once and leaves once.
//!
//! ```text
//!                 Adding                       done
//!   no member ──────────────▶ joining ────────────────────▶ learner, or one that is to vote
//!   learner   ── Promoting ─▶ voter, not yet everywhere ──▶ voter
//!   any of these ─ Removing ▶ leaving ────────────────────▶ removed, for ever
//! ```
//!
//! Who joins to vote joins as a learner in every group, and is promoted as soon as it has what the others have: until
//! then no quorum counts it, though clients are told that it votes. So its promotion begins where its adding is done.
//!
//! Where all others are lost for ever, one entry ends it all: they are removed, no change is under way, and the one that
//! is left votes.
//!
//! Of one member one change is under way at a time; only leaving does not wait for the end of another, and takes
//! its place. An entry that does not fit says nothing: what a leader decides may have been decided by the one
//! before, and an intent that has given way to a removal may still be said to be done.

use crate::checkpoint::{ControlState, IntentRecord};
use crate::log::LogId;
use crate::record::{Intent, MemberChange, MemberRecord, RaftIdRecord};
use crate::types::{ClusterId, MemberId, RaftId, StoreId};
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, BTreeSet};

/// The id of a log's peers, by the rule at the head of this file.
pub(super) fn raft_id(cluster: ClusterId, member: MemberId, log: LogId, incarnation: u32) -> RaftId {
    let mut hash = Sha1::new();
    hash.update(cluster.0.to_be_bytes());
    hash.update(member.0.to_be_bytes());
    hash.update(log.0.to_be_bytes());
    hash.update(incarnation.to_be_bytes());
    let digest = hash.finalize();
    let id = u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 has 20 bytes"));
    RaftId::new(id.max(1)).expect("1 is not 0")
}

/// The id under which a member takes part in the groups that a cluster begins with.
pub fn first_raft_id(cluster: ClusterId, member: MemberId) -> RaftId {
    raft_id(cluster, member, LogId(0), 0)
}

/// What a founder's record says of its ids.
pub fn founder_raft_ids(cluster: ClusterId, member: MemberId) -> Vec<RaftIdRecord> {
    vec![RaftIdRecord { log: 0, incarnation: 0, id: first_raft_id(cluster, member).get() }]
}

/// What a member publishes of itself.
pub(super) struct Attributes<'a> {
    pub directory: StoreId,
    pub name: &'a str,
    pub client_urls: &'a [String],
    pub raft_ids: &'a [RaftIdRecord],
}

#[derive(Debug, Default)]
pub(super) struct Members {
    records: BTreeMap<MemberId, MemberRecord>,
    changes: BTreeMap<MemberId, MemberChange>,
    removed: BTreeSet<MemberId>,
}

impl Members {
    pub fn of(state: &ControlState) -> Members {
        Members::read(state).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// As [`Members::of`], of a state that nobody has looked at. An error says what is wrong with it.
    pub fn read(state: &ControlState) -> Result<Members, &'static str> {
        let members = Members {
            records: state.members.iter().map(|member| (member.id(), member.clone())).collect(),
            changes: state.intents.iter().map(|intent| (MemberId(intent.member), intent.change)).collect(),
            removed: state.removed.iter().copied().map(MemberId).collect(),
        };
        if members.changes.len() != state.intents.len() {
            return Err("one change of a member is under way at a time");
        }
        if members.records.len() != state.members.len() {
            return Err("each member has an id of its own");
        }
        members.fault().map_or(Ok(members), Err)
    }

    pub fn founded(founders: &[MemberRecord]) -> Members {
        let records: BTreeMap<_, _> = founders.iter().map(|member| (member.id(), member.clone())).collect();
        assert!(records.len() == founders.len(), "each member has an id of its own");
        let members = Members { records, ..Members::default() };
        members.check();
        members
    }

    fn check(&self) {
        let fault = self.fault();
        assert!(fault.is_none(), "{}", fault.unwrap_or_default());
    }

    fn fault(&self) -> Option<&'static str> {
        let known = |id: &MemberId| self.records.contains_key(id);
        if !self.changes.keys().all(known) {
            return Some("a change that is under way is that of a member");
        }
        if self.removed.iter().any(known) {
            return Some("a member that was removed never comes back");
        }
        let learns = |id: &MemberId| self.records[id].is_learner;
        let mut promoted = self.changes.iter().filter(|(_, change)| **change == MemberChange::Promoting);
        if promoted.any(|(id, _)| learns(id)) {
            return Some("who is promoted is to vote");
        }
        let ids = || self.records.values().flat_map(|member| member.raft_ids.iter().map(|of| of.id));
        if ids().any(|id| id == 0) {
            return Some("0 is nobody in Raft");
        }
        let is_shared = ids().count() != ids().collect::<BTreeSet<u64>>().len();
        is_shared.then_some("a raft id is that of one log")
    }

    /// Goes on from a state that this one was: who was removed stays so.
    pub fn follows(&self, earlier: &Members) -> bool {
        self.removed.is_superset(&earlier.removed)
    }

    /// Members, intents and tombstones, as a checkpoint keeps them.
    pub fn to_state(&self) -> (Vec<MemberRecord>, Vec<IntentRecord>, Vec<u64>) {
        let intent =
            |(member, change): (&MemberId, &MemberChange)| IntentRecord { member: member.0, change: *change };
        (
            self.records.values().cloned().collect(),
            self.changes.iter().map(intent).collect(),
            self.removed.iter().map(|member| member.0).collect(),
        )
    }

    pub fn get(&self, id: MemberId) -> Option<&MemberRecord> {
        self.records.get(&id)
    }

    pub fn count(&self) -> usize {
        self.records.len()
    }

    pub fn all(&self) -> impl Iterator<Item = &MemberRecord> {
        self.records.values()
    }

    /// The members as clients are told of them: one that leaves is none.
    pub fn shown(&self) -> impl Iterator<Item = &MemberRecord> {
        let leaves = |id: &MemberId| self.changes.get(id) == Some(&MemberChange::Removing);
        self.records.iter().filter(move |(id, _)| !leaves(id)).map(|(_, member)| member)
    }

    /// Another directory than the member has begun in says nothing of it.
    pub fn publish(&mut self, id: MemberId, attributes: &Attributes<'_>) {
        let Attributes { directory, name, client_urls, raft_ids } = *attributes;
        let free: Vec<RaftIdRecord> = raft_ids.iter().filter(|of| !self.knows(of.id)).copied().collect();
        let Some(member) = self.records.get_mut(&id) else { return };
        if ![0, directory.0].contains(&member.directory) {
            return;
        }
        member.directory = directory.0;
        member.name = name.to_owned();
        member.client_urls = client_urls.to_vec();
        for of in free {
            let same = |known: &RaftIdRecord| (known.log, known.incarnation) == (of.log, of.incarnation);
            if !member.raft_ids.iter().any(same) {
                member.raft_ids.push(of);
            }
        }
        self.check();
    }

    /// Whether a raft id is some member's.
    fn knows(&self, raft_id: u64) -> bool {
        self.records.values().any(|member| member.raft_ids.iter().any(|of| of.id == raft_id))
    }

    pub fn intend(&mut self, intent: &Intent) {
        self.take_in(intent);
        self.check();
    }

    fn take_in(&mut self, intent: &Intent) {
        match intent {
            Intent::Adding(member) => self.add(member),
            Intent::Promoting { member } => {
                let id = MemberId(*member);
                let is_free = !self.changes.contains_key(&id);
                let Some(member) = self.records.get_mut(&id).filter(|m| m.is_learner && is_free) else {
                    return;
                };
                member.is_learner = false;
                self.changes.insert(id, MemberChange::Promoting);
            }
            Intent::Removing { member } => {
                if self.records.contains_key(&MemberId(*member)) {
                    self.changes.insert(MemberId(*member), MemberChange::Removing);
                }
            }
        }
    }

    fn add(&mut self, member: &MemberRecord) {
        let id = member.id();
        let known = self.records.contains_key(&id) || self.removed.contains(&id);
        if known || member.raft_ids.iter().any(|of| self.knows(of.id)) {
            return;
        }
        self.records.insert(id, member.clone());
        self.changes.insert(id, MemberChange::Adding);
    }

    pub fn done(&mut self, id: MemberId, change: MemberChange) {
        if self.changes.get(&id) != Some(&change) {
            return;
        }
        self.changes.remove(&id);
        assert!(self.records.contains_key(&id), "a change that is under way is that of a member");
        match change {
            MemberChange::Adding if self.records.get(&id).is_some_and(|member| !member.is_learner) => {
                self.changes.insert(id, MemberChange::Promoting);
            }
            MemberChange::Adding | MemberChange::Promoting => {}
            MemberChange::Removing => {
                self.records.remove(&id);
                assert!(self.removed.insert(id), "a member leaves once");
            }
        }
        self.check();
    }

    /// All others are lost for ever, and what was to become of members with them. Who is no member itself is not made
    /// one.
    pub fn stand_alone(&mut self, id: MemberId) {
        let Some(mut own) = self.records.remove(&id) else { return };
        own.is_learner = false;
        self.removed.extend(std::mem::take(&mut self.records).into_keys());
        self.changes.clear();
        self.records.insert(id, own);
        assert!(self.stands_alone(id), "nobody is left beside {}", id.hex());
        self.check();
    }

    pub fn stands_alone(&self, id: MemberId) -> bool {
        let votes = self.records.get(&id).is_some_and(|member| !member.is_learner);
        votes && self.records.len() == 1 && self.changes.is_empty()
    }

    /// Another address of a member's.
    pub fn update(&mut self, id: MemberId, peer_urls: &[String]) {
        if let Some(member) = self.records.get_mut(&id) {
            member.peer_urls = peer_urls.to_vec();
        }
    }

    /// The changes under way, of each member one.
    pub fn changes(&self) -> impl Iterator<Item = (MemberId, MemberChange)> + '_ {
        self.changes.iter().map(|(id, change)| (*id, *change))
    }

    pub fn change_of(&self, id: MemberId) -> Option<MemberChange> {
        self.changes.get(&id).copied()
    }

    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// Whose a raft id is.
    pub fn of_raft_id(&self, id: RaftId) -> Option<MemberId> {
        let is_its = |member: &&MemberRecord| member.raft_ids.iter().any(|of| of.id == id.get());
        self.records.values().find(is_its).map(MemberRecord::id)
    }
}
