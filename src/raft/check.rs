//! What a message must be before raft-rs sees it.
//!
//! raft-rs trusts its peers, and panics on what no sane peer says. Each check here stands before such a panic or
//! names what would be corruption; whoever fails one is not listened to any further.

use super::{Content, Group, GroupEntry, Message, MessageBody, Position, Role, VoteKind};
use crate::types::{Index, Term};
use std::fmt;

/// Terms and indexes stay far below where raft-rs' arithmetic would end.
const NUMBER_MAX: u64 = crate::limits::RAFT_NUMBERS;

/// A message that no peer of the group says which is sane: its link is to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage(String);

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(BadMessage(format!($($why)+)));
        }
    };
}

impl Group {
    pub(super) fn check(&self, message: &Message) -> Result<(), BadMessage> {
        let Message { from, to, term, body } = message;
        ensure!(*to == self.own(), "a message for peer {:x} came to peer {:x}", to.get(), self.own().get());
        ensure!(*from != self.own(), "a message of this very peer, {:x}, came from another", from.get());
        ensure!(is_term(*term), "{term} is no term");
        match body {
            MessageBody::Append { after, commit, entries } => {
                ensure!(commit.0 < NUMBER_MAX, "commit index {commit} is out of range");
                check_entries(*term, *after, entries)?;
                self.check_leader(message)?;
                if *term >= self.term() {
                    self.check_against_log(*after, entries)?;
                }
                Ok(())
            }
            MessageBody::AppendAnswer { index, commit, rejected } => {
                ensure!(index.0 < NUMBER_MAX, "index {index} is out of range");
                ensure!(commit.0 < NUMBER_MAX, "commit index {commit} is out of range");
                let hint = rejected.unwrap_or_default();
                check_position(hint, *term)?;
                self.check_acknowledged(*term, (*index).max(hint.index))
            }
            MessageBody::Vote { last, commit, .. } => {
                check_position(*last, *term)?;
                ensure!(last.index > Index(0), "a candidate has a log");
                check_position(*commit, *term)?;
                let is_in_log = commit.index <= last.index && commit.term <= last.term;
                ensure!(is_in_log, "a candidate has committed {commit:?}, behind its last entry {last:?}");
                Ok(())
            }
            MessageBody::VoteAnswer { kind, commit, .. } => {
                ensure!(*kind != VoteKind::Transfer, "votes are answered alike, whatever was asked for them");
                check_position(*commit, *term)?;
                // raft-rs panics where a candidate wins whose log is not durable, and it asks nobody before.
                let is_early = *kind == VoteKind::Real && *term == self.term() && !self.has_promised(*term);
                ensure!(!is_early, "{:x} answers in term {term} before it was asked", from.get());
                Ok(())
            }
            MessageBody::Heartbeat { commit, .. } => {
                self.check_leader(message)?;
                let last = self.last_index();
                ensure!(
                    *term < self.term() || *commit <= last,
                    "a heartbeat commits {commit}, and the log ends at {last}"
                );
                Ok(())
            }
            MessageBody::HeartbeatAnswer { commit, .. } => {
                ensure!(commit.0 < NUMBER_MAX, "commit index {commit} is out of range");
                Ok(())
            }
            MessageBody::TimeoutNow => self.check_leader(message),
        }
    }

    /// Nobody else leads in a term that has a leader.
    fn check_leader(&self, message: &Message) -> Result<(), BadMessage> {
        let leader = self.leader().filter(|_| message.term == self.term());
        let is_alone = leader.is_none_or(|leader| leader == message.from);
        ensure!(
            is_alone,
            "{:x} leads in term {}, in which {:x} does",
            message.from.get(),
            message.term,
            leader.map_or(0, |leader| leader.get())
        );
        Ok(())
    }

    /// A peer agrees with the leader on nothing that the leader has not.
    fn check_acknowledged(&self, term: Term, index: Index) -> Result<(), BadMessage> {
        let last = self.last_index();
        let is_had = term != self.term() || self.role() != Role::Leader || index <= last;
        ensure!(is_had, "a peer says that it has index {index}, and the leader's log ends at {last}");
        Ok(())
    }

    /// What a leader appends agrees with what is committed here.
    fn check_against_log(&self, after: Position, entries: &[GroupEntry]) -> Result<(), BadMessage> {
        let committed = self.committed();
        let places = std::iter::once(after).chain(entries.iter().map(GroupEntry::at));
        for place in places.take_while(|place| place.index <= committed) {
            let own = self.term_of(place.index).unwrap_or(place.term);
            ensure!(
                own == place.term,
                "{place:?} is another entry than the one of term {own} committed here"
            );
        }
        let last = self.term_of(committed).unwrap_or_default();
        ensure!(
            after.index < committed || after.term >= last,
            "{after:?} is older than what is committed here, of term {last} at {committed}"
        );
        Ok(())
    }
}

fn is_term(term: Term) -> bool {
    (1..NUMBER_MAX).contains(&term.0)
}

/// A place in a log, or none, in a message of a term.
fn check_position(at: Position, term: Term) -> Result<(), BadMessage> {
    ensure!(at.index.0 < NUMBER_MAX, "{at:?} is out of range");
    ensure!((at.index == Index(0)) == (at.term == Term(0)), "{at:?} is no place in a log");
    ensure!(at.term <= term, "{at:?} is of a later term than the message, of term {term}");
    Ok(())
}

/// Entries follow each other behind `after`, their terms do not fall, and all is of the message's term or before.
fn check_entries(term: Term, after: Position, entries: &[GroupEntry]) -> Result<(), BadMessage> {
    check_position(after, term)?;
    let mut last = after;
    for entry in entries {
        let at = entry.at();
        let follows = at.index == last.index.next() && at.term >= last.term;
        ensure!(follows, "entry {at:?} does not follow {last:?}");
        check_position(at, term)?;
        let is_whole = match &entry.content {
            Content::Empty | Content::Data(_) => true,
            Content::ConfChange(_) => {
                entry.content.conf_change().is_some_and(|change| change.peer().is_some())
            }
        };
        ensure!(is_whole, "the change of peers at {at:?} cannot be read");
        last = at;
    }
    Ok(())
}
