//! How a member ends by order: what it leads goes to another member first, then its clients are answered, and then
//! the other members hear that it leaves.
//!
//! **The question.** A process that is told to stop has clients, streams, calls of other members, and perhaps the
//! leadership. In which order do they end, so that nobody waits for somebody who is gone?
//!
//! **The rule.** The first reactor has the word. Where this member leads, it hands the leadership over before
//! anything else: its clients' writes wait at the door meanwhile, and go to the next leader from there. It stays until
//! that one serves. Then every reactor ends its streams, takes no calls of clients that have heard of it, and answers
//! what is under way, also to other members. When all have, they say farewell on every link: whoever hears it takes the
//! link for broken at once, and looks for another leader where this one led. Each step is bounded, and so is the whole,
//! by the world.
//!
//! **Why not otherwise.** Who ends its streams first and leads on meanwhile, as etcd does, has all writes of the
//! cluster wait for its slowest client. Who goes as soon as it leads no more takes its vote along, and the next leader
//! waits for the slower of the others at each step of its takeover.

use super::Reactor;
use super::epoch::HandOverTo;
use crate::io::{EpochMail, MemberMail};
use crate::types::{Epoch, MemberId, ReactorId, Time};
use std::collections::BTreeSet;

/// How far a reactor has come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LeavingStep {
    #[default]
    Stays,
    /// It waits for the first reactor's word; and that one until the leadership is another's.
    HandsOver,
    /// Clients are answered.
    Closing,
    Closed,
    /// The others have been told, or there are none.
    Left,
}

#[derive(Debug, Default)]
pub(super) struct Leaving {
    step: LeavingStep,
    /// Until when the next leader is waited for, where this member was the last one.
    waits_until: Time,
    /// The reactors that have closed, as the first one has heard.
    closed: BTreeSet<ReactorId>,
}

impl Reactor {
    /// Another member is to lead. One that nobody can reach would have all writes wait for nothing.
    pub(super) fn on_hand_over_wanted(&mut self, target: MemberId) {
        if self.peers.reaches(target) {
            self.epochs.hand_over(&mut self.turn, HandOverTo::Member(target));
        } else if !self.epochs.hands_over() {
            self.turn.send_to_all(|| EpochMail::GoOn);
        }
    }

    /// Nothing new is taken on in this epoch.
    pub(super) fn on_drain(&mut self, epoch: Epoch) {
        if self.turn.epoch_state.takes_mail_of(epoch) {
            self.epochs.drain(&mut self.turn);
        }
    }

    /// The leadership stays here.
    pub(super) fn on_go_on(&mut self, epoch: Epoch) {
        if self.turn.epoch_state.takes_mail_of(epoch) && self.turn.epoch_state.leads() {
            self.epochs.go_on(&mut self.turn);
            self.calls.stay(&mut self.turn);
        }
    }

    /// A hand-over under way goes on, at the end of a turn.
    pub(super) fn drive_hand_over(&mut self) {
        let Reactor { turn, calls, shards, epochs, .. } = self;
        if !turn.epoch_state.is_draining() {
            return;
        }
        let is_idle = calls.is_drained() && !shards.has_waiting_evaluations();
        epochs.report_drained(turn, shards, is_idle);
        self.run_local();
        let Reactor { turn, shards, peers, epochs, leader: Some(leader), .. } = self else { return };
        epochs.drive_hand_over(turn, shards, leader.is_idle(), |member| peers.reaches(member));
        self.run_local();
    }

    /// The process is to end.
    pub(super) fn on_stop(&mut self) {
        self.storage.log_mut().stop();
        if self.leaving.step != LeavingStep::Stays {
            return; // The first reactor has heard of it before.
        }
        if self.turn.is_alone() {
            self.calls.front.stop();
            self.leaving.step = LeavingStep::Left;
            return;
        }
        self.leaving.step = LeavingStep::HandsOver;
        assert!(self.leaving.closed.is_empty(), "no reactor closes before the first one says so");
        if self.epochs.coordinates() {
            self.epochs.stand_no_more();
            self.epochs.hand_over(&mut self.turn, HandOverTo::Anybody);
            if self.epochs.hands_over() {
                self.leaving.waits_until = self.turn.now + self.turn.settings.hand_over_patience();
            }
        }
    }

    /// Whether another member leads, or is waited for no longer.
    fn has_handed_over(&self) -> bool {
        let is_led = self.turn.epoch_state.knows_leader() || self.turn.now >= self.leaving.waits_until;
        self.epochs.coordinates() && !self.epochs.hands_over() && is_led
    }

    pub(super) fn leaving_wakes_at(&self) -> Time {
        let waits = self.leaving.step == LeavingStep::HandsOver && self.turn.now < self.leaving.waits_until;
        if waits { self.leaving.waits_until } else { Time::NEVER }
    }

    /// Every reactor answers its clients now.
    pub(super) fn on_close(&mut self) {
        assert!(!self.turn.epoch_state.is_draining(), "clients are answered when a hand-over is over");
        if matches!(self.leaving.step, LeavingStep::Stays | LeavingStep::HandsOver) {
            self.calls.front.stop();
            self.leaving.step = LeavingStep::Closing;
        }
    }

    /// A reactor has answered its clients. When all have, the others may know.
    pub(super) fn on_left_by_all(&mut self, from: ReactorId) {
        assert!(self.epochs.coordinates(), "the first reactor has the word");
        let is_new = self.leaving.closed.insert(from);
        assert!(is_new, "reactor {from} closes once");
        if self.leaving.closed.len() == usize::from(self.turn.reactors) {
            self.turn.send_to_all(|| MemberMail::Leave);
        }
    }

    pub(super) fn on_leave(&mut self) {
        assert!(self.leaving.step == LeavingStep::Closed, "who leaves has answered its clients");
        self.peers.leave();
        self.leaving.step = LeavingStep::Left;
    }

    /// Goes on with leaving, at the end of a turn.
    pub(super) fn drive_leaving(&mut self) {
        match self.leaving.step {
            LeavingStep::HandsOver if self.has_handed_over() => {
                self.turn.send_to_all(|| MemberMail::Close);
            }
            LeavingStep::Closing if self.calls.front.open() == 0 && !self.calls.serves_members() => {
                self.leaving.step = LeavingStep::Closed;
                self.turn.send(ReactorId(0), MemberMail::Closed);
            }
            _ => return,
        }
        self.run_local();
    }

    /// Whether nothing is left to do after [`crate::io::Input::Stop`] for which other reactors, or members, are
    /// needed.
    pub fn is_done(&self) -> bool {
        self.leaving.step == LeavingStep::Left && self.calls.front.open() == 0
    }
}
