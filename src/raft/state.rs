//! Peers that lack entries which no log of the leader has any more: they are given the state in their place.
//!
//! The state itself goes another way than raft's messages, and raft-rs, which would send it, is told that it has none.
//! A peer that has taken one in begins anew as it would after a start, with a log that is empty behind the state's
//! index. What it had at that index is not what is committed there, so nothing that it has acknowledged goes.

use super::elections::ElectionTimer;
use super::{Elections, Group, GroupStart, HardState, Position, Role};
use crate::types::{Index, Peers, RaftId};

/// What a peer may do with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installing {
    /// It stands where the state's log begins.
    Now,
    /// Something that it has promised is on its way to the disk.
    Later,
    /// It has as much, or leads.
    Never,
}

impl Group {
    /// The index behind which the log has all entries.
    pub fn log_begins_behind(&self) -> Index {
        self.node.store().log_after()
    }

    /// How a leader's peers stand, in words.
    pub fn peers_in_words(&self) -> String {
        let others = self.node.raft.prs().iter().filter(|(id, _)| self.leads() && **id != self.node.raft.id);
        let words = others.map(|(id, of)| {
            let pause = if of.is_paused() { ", paused" } else { "" };
            format!("{id:x} has {}, next {}, {:?}{pause}", of.matched, of.next_idx, of.state)
        });
        words.collect::<Vec<String>>().join("; ")
    }

    /// The peers of a leader that have to be given the state, and the index behind which this log begins.
    pub fn lacking_state(&self) -> Vec<(RaftId, Index)> {
        if !self.leads() {
            return vec![];
        }
        let log_after = self.log_begins_behind();
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != self.node.raft.id);
        let lacking = others.filter(|(_, progress)| progress.next_idx <= log_after.0);
        assert!(log_after <= self.committed(), "what may still be replaced is in the log: {log_after}");
        let mut lacking: Vec<(RaftId, Index)> =
            lacking.filter_map(|(id, _)| Some((RaftId::new(*id)?, log_after))).collect();
        lacking.sort_unstable();
        lacking
    }

    /// A peer says that it has all up to an index, which is committed: it is given what follows.
    pub fn has_state(&mut self, peer: RaftId, upto: Index) {
        if !self.leads() || upto > self.last_index() {
            return;
        }
        let raft = &mut self.node.raft;
        let Some(progress) = raft.mut_prs().get_mut(peer.get()) else { return };
        if progress.next_idx <= upto.0 {
            let matched = progress.matched;
            progress.become_probe();
            progress.next_idx = (upto.0 + 1).max(matched + 1);
            raft.send_append(peer.get());
        }
    }

    /// Whether a state as of this place is taken in.
    pub fn installing(&self, at: Position) -> Installing {
        let has_it = at.index <= self.committed() || self.term_of(at.index) == Some(at.term);
        if has_it || self.role() == Role::Leader {
            return Installing::Never;
        }
        match self.is_persisted() && !self.node.has_ready() {
            true => Installing::Now,
            false => Installing::Later,
        }
    }

    /// Goes on behind a state as of this place, of a group with these peers.
    pub fn install(&mut self, at: Position, peers: Peers) {
        assert!(self.installing(at) == Installing::Now, "a state is taken in where it may be: {at:?}");
        let (own, hard_state, leader) = (self.own(), self.hard_state(), self.node.raft.leader_id);
        let elections = self.timer.take().map_or(Elections::ByOwner, ElectionTimer::into_elections);
        let hard_state = HardState { commit: at.index, ..hard_state };
        let (last_round, held_bytes_max) = (self.last_round, self.held_bytes_max);
        *self = Group::new(GroupStart { own, peers, base: at, hard_state, entries: vec![], elections });
        (self.last_round, self.held_bytes_max) = (last_round, held_bytes_max);
        assert!(self.last_index() == at.index, "a log that begins anew is empty");
        assert!(self.is_persisted(), "nothing of a log that begins anew is on its way");
        // Where the state is of a later term, nobody has been heard in it.
        if self.term() == hard_state.term {
            self.node.raft.become_follower(hard_state.term.0, leader);
            self.draw_timeout();
            assert!(self.hard_state() == hard_state, "term and vote stay as they were");
        }
    }
}
