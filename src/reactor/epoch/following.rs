//! The member while another one leads: who that is, and how far what it has settled is shown here.

use super::super::shards::Shards;
use super::super::turn::{ReadOnly, Turn};
use super::Epochs;
use crate::io::EpochMail;
use crate::sequencer::Generation;
use crate::takeover::Coordinator;
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
    /// Up to where each reactor's shards are covered, and the revision below which one of them shows nothing more.
    covered_by: BTreeMap<ReactorId, (Revision, Revision)>,
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
            turn.send_to_all(|| EpochMail::LeaderIs { term, leader });
        }
        // A crash takes nothing back that was shown; but what a leader answers shows its term here.
        if leader.is_some() || group.has_promised(term) {
            turn.sequencer.show_term(term);
        }
        if turn.epoch_state.may_follow() && turn.control.is_bootstrapped() && !self.known.copied {
            assert!(!turn.epoch_state.leads(), "who leads has given its reactors the state with the fence");
            self.known.copied = true;
            let control = self.control_copy(turn, shards, Generation::NONE);
            turn.send_to_all(|| EpochMail::Control { control: control.clone() });
        }
        self.show_covered(turn);
    }

    /// The reactors are told the whole control state once more.
    pub fn copy_control_anew(&mut self) {
        self.known.copied = false;
    }

    /// Shown at once: no other input need come before the next tick.
    pub(super) fn on_covered(
        &mut self,
        turn: &mut Turn,
        from: ReactorId,
        revision: Revision,
        ahead: Revision,
    ) {
        let before = self.known.covered_by.insert(from, (revision, ahead));
        assert!(before.is_none_or(|(before, _)| before <= revision), "coverage does not fall: {revision}");
        self.show_covered(turn);
    }

    /// What is covered by all reactors is shown.
    pub(super) fn show_covered(&mut self, turn: &mut Turn) {
        // A reactor that has not stopped would take it for its epoch's, and keep what that has not settled.
        if !self.coordinator.as_ref().is_some_and(Coordinator::may_begin) {
            return;
        }
        // Nor does one show anything that has not said a word: it does not know yet which shards it has.
        if !turn.epoch_state.may_follow() || self.known.covered_by.len() < usize::from(turn.reactors) {
            return;
        }
        if let Some(rested) = self.rested.take() {
            turn.sequencer.show(rested);
        }
        let covered = self.known.covered_by.values().map(|(covered, _)| *covered).min().unwrap_or_default();
        let ahead = self.known.covered_by.values().map(|(_, ahead)| *ahead).max().unwrap_or_default();
        assert!(covered < Revision(u64::MAX), "the control shard is one of those that are covered");
        // What an earlier process has shown is not gone below, nor what another member's state has.
        if covered > turn.settled_truth() && covered >= self.settled_before.max(ahead) {
            turn.sequencer.show(covered);
        }
    }

    /// How far this reactor's shards are covered, as the coordinator was told.
    pub fn said_covered(&self) -> Revision {
        self.covered.map_or(Revision::NONE, |(covered, _)| covered)
    }

    /// Tells the coordinator how far this reactor's shards are covered.
    pub fn report_covered(&mut self, turn: &mut Turn, covered: Revision, ahead: Revision) {
        assert!(covered >= self.said_covered(), "coverage does not fall: {covered}");
        if self.covered != Some((covered, ahead)) {
            self.covered = Some((covered, ahead));
            turn.send(ReactorId(0), EpochMail::Covered { revision: covered, ahead });
        }
    }

    /// The control shard's group is in this term, and that member leads.
    pub fn on_leader_is(&self, turn: &mut Turn, term: Term, leader: Option<MemberId>) {
        ReadOnly::change(&mut turn.epoch_state).hear_of_leader(term, leader);
    }
}
