//! What a change of the members takes of more than one part of a reactor: who is a member, who is to be none any more,
//! and what others say of it.

use super::Reactor;
use super::book::Book;
use super::epoch::HandOverTo;
use super::turn::ToPeers;
use crate::io::{Level, MemberMail};
use crate::limits::REMOVED_LINGER_MS;
use crate::peer::{PeerMessage, REMOVED};
use crate::record::{ControlEntry, Intent, MemberRecord};
use crate::types::{Duration, Index, ReactorId, ShardId, Time};
use std::sync::Arc;

impl Reactor {
    /// Goes on with changes of the members.
    pub(super) fn drive_members(&mut self) {
        self.end_if_removed();
        let Reactor { turn, epochs, leader, calls, .. } = self;
        // Its clients are answered as long as it is in all groups.
        let leaves = turn.control.leaves(turn.settings.member) && !*turn.is_to_be_alone;
        if leaves && !turn.epoch_state.leads() && !calls.front.is_stopping() {
            calls.front.stop();
        }
        if let Some(leader) = leader {
            let in_sync =
                if leader.may_begin_change(turn) { epochs.in_sync(turn) } else { Default::default() };
            leader.drive_member_changes(turn, &in_sync);
            // Who leaves and leads has another one take it out, where there is one.
            if leaves && turn.epoch_state.takes_writes() && !epochs.hands_over() {
                turn.counters.paths.leader_removed_itself += 1;
                epochs.hand_over(turn, HandOverTo::Anybody);
            }
        }
    }

    /// Another member has said who the members are.
    pub(super) fn on_members(&mut self, as_of: Index, members: Vec<MemberRecord>) {
        let is_news = Book::new(as_of, members.clone()).is_news(self.turn.control.index, &self.turn.book);
        if is_news {
            self.turn.counters.paths.members_heard_of += 1;
            let members = Arc::new(members);
            self.turn.send_to_all(|| MemberMail::Book { as_of, members: members.clone() });
        }
    }

    pub(super) fn on_book(&mut self, as_of: Index, members: Arc<Vec<MemberRecord>>) {
        let book = Book::new(as_of, Arc::unwrap_or_clone(members));
        if book.is_news(self.turn.control.index, &self.turn.book) {
            self.turn.book = Arc::new(book);
        }
    }

    /// Those who join as far as the control log says so, though that is not in effect: they may be needed before it is.
    pub(super) fn note_joining(&mut self) {
        assert!(self.turn.id == ReactorId(0), "where the control shard lives its log is read");
        let log = self.shards.shard_mut(ShardId::CONTROL).log_view();
        let joining = super::control_effects::joining_of(log);
        let as_of = log.last().index;
        if !joining.is_empty() {
            let mut members: Vec<MemberRecord> = self.turn.control.records().cloned().collect();
            members.extend(joining);
            self.turn.book = Arc::new(Book::new(as_of, members));
        }
    }

    /// The other reactors hear of those whom this one knows from its log.
    pub(super) fn tell_book(&mut self) {
        assert!(self.turn.id == ReactorId(0), "the others hear of it from the first reactor");
        let (as_of, known) = (self.turn.book.as_of(), self.turn.control.index);
        let members = Arc::new(self.turn.book.members(known).to_vec());
        if !members.is_empty() {
            for reactor in (1..self.turn.reactors).map(ReactorId) {
                self.turn.send(reactor, MemberMail::Book { as_of, members: members.clone() });
            }
        }
    }

    /// Somebody joins: others may be behind, and hear of who leads next from nobody else.
    pub(super) fn tell_of_joining(&mut self, change: &ControlEntry) {
        assert!(self.turn.control.is_bootstrapped(), "nobody joins what has not begun");
        if matches!(change, ControlEntry::Intent(Intent::Adding(_))) && !self.turn.is_alone() {
            let members = self.turn.control.records().cloned().collect();
            let as_of = self.turn.control.index;
            self.turn.tell(ToPeers::All, ShardId::CONTROL, PeerMessage::Members { as_of, members });
        }
    }

    /// Others have said that this member is none any more, or its own log does: the process ends, once what was asked is
    /// answered.
    fn end_if_removed(&mut self) {
        let own = self.turn.settings.member;
        if !self.peers.is_removed() && !self.turn.control.is_removed(own) {
            return;
        }
        if self.removed_at.is_none() {
            self.removed_at = Some(self.turn.now + Duration::from_ms(REMOVED_LINGER_MS));
            self.calls.answer_removed(&mut self.turn);
            if self.turn.id != ReactorId(0) {
                // The first reactor has the word.
                return self.turn.send(ReactorId(0), MemberMail::Removed);
            }
            self.turn.log_line(Level::Warn, "server error", [("error", REMOVED.into())]);
            let fields = [("local-member-id", own.hex().into())];
            self.turn.log_line(Level::Warn, "data-dir used by this member must be removed", fields);
            for reactor in (1..self.turn.reactors).map(ReactorId) {
                self.turn.send(reactor, MemberMail::Removed);
            }
            if let Some(leader) = &mut self.leader {
                leader.answer_removed(&mut self.turn);
            }
        }
        if self.turn.id == ReactorId(0) && self.removed_at.is_some_and(|at| at <= self.turn.now) {
            self.turn.halt(REMOVED.to_owned());
        }
    }

    pub(super) fn members_wake_at(&self) -> Time {
        self.removed_at.filter(|_| self.turn.id == ReactorId(0)).unwrap_or(Time::NEVER)
    }
}
