//! The member while another one leads: who that is, and how far what it has settled is shown here.

use super::super::shards::Shards;
use super::super::turn::{ReadOnly, Turn};
use super::Epochs;
use crate::io::{EpochMail, Level, Value};
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
    /// Who leads the control shard's group, this member included, as the log was told last.
    elected: Option<MemberId>,
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
        self.tell_elected(turn, term, leader);
        // A term that is not durable may be gone with the process, and clients would be shown an older one.
        let is_durable = group.has_promised(term);
        let serves = is_durable && self.known.serves.term == term;
        let leader = leader.filter(|leader| serves && *leader != turn.settings.member);
        assert!(term >= self.known.told.0, "terms do not fall: {term} after {}", self.known.told.0);
        if is_durable {
            turn.sequencer.show_term(term);
        }
        if (term, leader) != self.known.told {
            self.known.told = (term, leader);
            turn.send_to_all(|| EpochMail::LeaderIs { term, leader });
        }
    }

    /// The log says who was elected and who is lost, in etcd's words.
    fn tell_elected(&mut self, turn: &mut Turn, term: Term, leader: Option<MemberId>) {
        let before = std::mem::replace(&mut self.known.elected, leader);
        if before == leader {
            return;
        }
        let (level, message) = match leader {
            Some(_) => (Level::Info, "elected leader"),
            None => (Level::Warn, "lost leader"),
        };
        let of = leader.or(before).expect("one of them is somebody");
        let own = turn.settings.member;
        let fields = [
            ("local-member-id", own.hex().into()),
            ("leader", of.hex().into()),
            ("term", Value::Uint(term.0)),
        ];
        turn.log_line(level, message, fields);
    }

    /// The reactors are told the whole control state once more.
    pub fn copy_control_anew(&mut self) {
        self.known.copied = false;
    }

    pub fn on_covered(&mut self, from: ReactorId, revision: Revision, ahead: Revision) {
        let before = self.known.covered_by.insert(from, (revision, ahead));
        assert!(before.is_none_or(|(before, _)| before <= revision), "coverage does not fall: {revision}");
    }

    /// Whether all reactors have stopped in the epoch of this member. One that has not would take what is shown for its
    /// own epoch's, and keep what that has not settled.
    pub fn have_stopped(&self) -> bool {
        self.coordinator.as_ref().is_some_and(Coordinator::may_begin)
    }

    /// What earlier processes have shown, once. Not before all reactors have said a word: then they know which shards
    /// they have.
    pub fn take_rested(&mut self, turn: &Turn) -> Option<Revision> {
        self.rested.take_if(|_| self.known.covered_by.len() == usize::from(turn.reactors))
    }

    /// What all reactors cover and is not shown yet. They have the control state.
    pub fn covered_by_all(&self, turn: &Turn) -> Option<Revision> {
        assert!(
            turn.epoch_state.may_follow() && self.known.copied,
            "who follows shows what others have settled"
        );
        if self.known.covered_by.len() < usize::from(turn.reactors) {
            return None;
        }
        let covered = self.known.covered_by.values().map(|(covered, _)| *covered).min().unwrap_or_default();
        let ahead = self.known.covered_by.values().map(|(_, ahead)| *ahead).max().unwrap_or_default();
        assert!(covered < Revision(u64::MAX), "the control shard is one of those that are covered");
        // What an earlier process has shown is not gone below, nor what another member's state has.
        let is_more = covered > turn.settled_truth() && covered >= self.settled_before.max(ahead);
        is_more.then_some(covered)
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
