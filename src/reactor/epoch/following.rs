//! The member while another one leads: who that is, and how far what it has settled is shown here.

use super::super::shards::Shards;
use super::super::turn::{ReadOnly, Turn};
use super::Epochs;
use crate::io::EpochMail;
use crate::sequencer::Generation;
use crate::types::{Epoch, MemberId, ReactorId, Revision, ShardId, Term};
use std::collections::BTreeMap;

/// What the coordinator knows of the member that leads, and of the reactors here.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The newest epoch of another member that is known to serve.
    serves: Epoch,
    /// What the reactors were told last.
    told: (Term, Option<MemberId>),
    /// The reactors have a copy of the control state, and are told of each change.
    pub copied: bool,
    covered_by: BTreeMap<ReactorId, Revision>,
}

impl Epochs {
    /// Whether the reactors are told of each change of the control state.
    pub fn has_copied_control(&self) -> bool {
        self.known.copied
    }

    /// A leader has said what it has settled in this epoch: it serves.
    pub fn hear_serving(&mut self, epoch: Epoch) {
        self.known.serves = self.known.serves.max(epoch);
    }

    pub(super) fn follow_leader(&mut self, turn: &mut Turn, shards: &Shards) {
        let group = shards.get(ShardId::CONTROL).expect("it lives here").shard.group();
        if group.is_alone() {
            return;
        }
        let term = group.term();
        let leader = group.leader().and_then(|id| turn.member_of(id));
        let leader =
            leader.filter(|leader| *leader != turn.settings.member && self.known.serves.term == term);
        assert!(term >= self.known.told.0, "terms do not fall: {term} after {}", self.known.told.0);
        if (term, leader) != self.known.told {
            self.known.told = (term, leader);
            turn.sequencer.show_term(term);
            turn.send_to_all(|| EpochMail::LeaderIs { term, leader });
        }
        if turn.epoch_state.may_follow() && turn.control.is_bootstrapped() && !self.known.copied {
            assert!(!turn.epoch_state.leads(), "who leads has given its reactors the state with the fence");
            self.known.copied = true;
            let control = self.control_copy(turn, shards, Generation::NONE);
            turn.send_to_all(|| EpochMail::Control { control: control.clone() });
        }
        self.show_covered(turn);
    }

    pub(super) fn on_covered(&mut self, from: ReactorId, revision: Revision) {
        let before = self.known.covered_by.insert(from, revision);
        assert!(before.is_none_or(|before| before <= revision), "coverage does not fall: {revision}");
    }

    /// What is covered by all reactors is shown.
    pub(super) fn show_covered(&mut self, turn: &mut Turn) {
        if let Some(rested) = self.rested.take().filter(|_| turn.epoch_state.may_follow()) {
            turn.sequencer.show(rested);
        }
        if !turn.epoch_state.may_follow() || self.known.covered_by.len() < usize::from(turn.reactors) {
            return;
        }
        let covered = self.known.covered_by.values().min().copied().unwrap_or_default();
        assert!(covered < Revision(u64::MAX), "the control shard is one of those that are covered");
        // What an earlier process has shown is not gone below.
        if covered > turn.settled_truth() && covered >= self.settled_before {
            turn.sequencer.show(covered);
        }
    }

    /// Tells the coordinator how far this reactor's shards are covered.
    pub fn report_covered(&mut self, turn: &mut Turn, covered: Revision) {
        assert!(covered >= self.covered, "coverage does not fall: {covered} after {}", self.covered);
        if covered > self.covered {
            self.covered = covered;
            turn.send(ReactorId(0), EpochMail::Covered { revision: covered });
        }
    }

    /// The control shard's group is in this term, and that member leads.
    pub fn on_leader_is(&self, turn: &mut Turn, term: Term, leader: Option<MemberId>) {
        ReadOnly::change(&mut turn.epoch_state).hear_of_leader(term, leader);
    }
}
