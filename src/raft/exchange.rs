//! What the peers of a group say to each other: messages in, messages out, and entries for those that lack them.

use super::check::BadMessage;
use super::translate::{from_raft, to_raft};
use super::{Group, GroupEntry, Message, MessageBody, Position};
use crate::types::{Index, RaftId, Term};
use ::raft::Ready;
use ::raft::eraftpb;
use std::collections::VecDeque;

/// Messages on their way out.
#[derive(Default)]
pub(super) struct MessagesOut {
    free: Vec<Message>,
    /// With the Ready that has to be durable before.
    waiting: VecDeque<(u64, Message)>,
    /// The Ready that brought the term and the vote as they are, and the last one that is durable.
    promised: u64,
    persisted: u64,
}

impl MessagesOut {
    /// A Ready has a new term or vote.
    pub fn promised_in(&mut self, number: u64) {
        assert!(number > self.promised, "Readies come in their order");
        self.promised = number;
    }

    /// Whether the term and the vote as they were last are durable.
    fn is_promise_kept(&self) -> bool {
        self.promised <= self.persisted
    }

    fn post(&mut self, number: u64, message: Message, acknowledges: bool) {
        if !acknowledges && self.is_promise_kept() {
            self.free.push(message);
        } else {
            assert!(number > self.persisted, "a Ready is taken before it is durable");
            let in_order = self.waiting.back().is_none_or(|(last, _)| *last <= number);
            assert!(in_order, "what a later Ready says waits behind it");
            self.waiting.push_back((number, message));
        }
    }

    pub fn persisted(&mut self, number: u64) {
        assert!(number > self.persisted, "Readies are persisted in their order");
        self.persisted = number;
        while let Some((_, message)) = self.waiting.pop_front_if(|(waits_for, _)| *waits_for <= number) {
            self.free.push(message);
        }
    }
}

/// Entries that a follower lacks and that only the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntriesWanted {
    pub from: Index,
    /// The last one that may be given: what follows is in memory. Fewer will do.
    pub upto: Index,
    pub peer: RaftId,
    /// Up to here the peer has said that it has the leader's entries.
    pub matched: Index,
}

impl Group {
    /// A message of another peer, which the owner knows to be a member's. It need not be a peer of the group as far as
    /// changes have taken effect here: who lags hears of a change from a leader that came with it.
    pub fn step(&mut self, message: Message) -> Result<(), BadMessage> {
        self.check(&message)?;
        if message.body.is_answer() && self.node.raft.prs().get(message.from.get()).is_none() {
            return Ok(()); // It was asked while it was a peer.
        }
        let mut raft = to_raft(&message);
        if let MessageBody::Append { after, entries, .. } = message.body {
            let (after, taken) = self.keep_entries(message.term, after, entries);
            (raft.index, raft.log_term, raft.entries) = (after.index.0, after.term.0, taken);
        }
        let last = raft.entries.last().map(|entry| Index(entry.index));
        let first = raft.entries.first().map(|entry| Index(entry.index));
        let committed = self.committed();
        assert!(first.is_none_or(|first| first > committed), "what is committed is not replaced: {first:?}");
        self.node.step(raft).expect("raft-rs takes what a peer may say");
        let is_taken = last.is_none_or(|last| last == self.last_index());
        assert!(is_taken, "what was kept of an append is appended: {last:?} of {}", self.last_index());
        assert!(self.committed() >= committed, "what is committed stays so");
        self.follow_role();
        Ok(())
    }

    /// What raft-rs will append of a leader's entries, all of which it takes: without those that stand here already,
    /// and nothing of what it will not look at.
    fn keep_entries(
        &mut self,
        term: Term,
        after: Position,
        entries: Vec<GroupEntry>,
    ) -> (Position, Vec<eraftpb::Entry>) {
        let is_taken = term >= self.term()
            && after.index >= self.committed()
            && self.term_of(after.index) == Some(after.term);
        if !is_taken {
            return (after, vec![]);
        }
        let stands = |entry: &&GroupEntry| self.term_of(entry.index) == Some(entry.term);
        let standing = entries.iter().take_while(stands).count();
        let after = entries[..standing].last().map_or(after, GroupEntry::at);
        let tail = self.node.mut_store();
        let new = entries.into_iter().skip(standing);
        (after, new.map(|entry| tail.keep_entry(entry)).collect())
    }

    /// Whether others can have heard of this peer in the term: it is durable, with the vote in it.
    pub fn has_promised(&self, term: Term) -> bool {
        self.hard_state.term >= term && self.outbox.is_promise_kept()
    }

    /// What a Ready says to others, in our words.
    pub(super) fn post(&mut self, ready: &mut Ready) {
        let number = ready.number();
        let (at_once, promising) = (ready.take_messages(), ready.take_persisted_messages());
        assert!(self.node.raft.msgs.is_empty(), "a Ready has all messages");
        assert!(at_once.is_empty() || promising.is_empty(), "a Ready is a leader's or not");
        assert!(at_once.is_empty() || self.leads(), "only a leader's messages promise nothing");
        let (outbox, tail) = (&mut self.outbox, &self.node.raft.raft_log.store);
        for message in at_once {
            from_raft(message, tail, |message| outbox.post(number, message, false));
        }
        for message in promising {
            from_raft(message, tail, |message| {
                let acknowledges = !matches!(message.body, MessageBody::HeartbeatAnswer { .. });
                outbox.post(number, message, acknowledges);
            });
        }
        self.node.mut_store().drop_fetched();
    }

    /// The messages that may leave, in order. To be taken after each [`Group::ready`] and [`Group::persisted`].
    pub fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.outbox.free)
    }

    /// What followers lack that is not in memory, who lacks most first. Looked at only if raft-rs has asked for such.
    pub fn wanted_entries(&self) -> Vec<EntriesWanted> {
        if !self.node.store().is_wanting() || !self.leads() {
            return vec![];
        }
        let mut lacking: Vec<EntriesWanted> = self.lacking().collect();
        lacking.sort_by_key(|wanted| (wanted.from, wanted.peer));
        lacking
    }

    fn lacking(&self) -> impl Iterator<Item = EntriesWanted> + '_ {
        let (log_after, base) = (self.node.store().log_after(), self.node.store().base());
        assert!(log_after <= base, "what is in memory is known: behind {base}, and {log_after} in the log");
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != self.node.raft.id);
        others.filter(|(_, progress)| !progress.is_paused()).filter_map(move |(id, progress)| {
            let (from, matched) = (Index(progress.next_idx), Index(progress.matched));
            let peer = RaftId::new(*id)?;
            let is_lacking = log_after < from && from <= base;
            is_lacking.then_some(EntriesWanted { from, upto: base, peer, matched })
        })
    }

    /// Entries as the log has them, and what they stand behind: goes on with every follower that lacks them.
    pub fn give_entries(&mut self, after: Position, entries: Vec<GroupEntry>) {
        assert!(after.index <= self.committed(), "only what is committed is read from the log");
        let known = after.index.0 + 1..=after.index.0 + entries.len() as u64;
        self.node.mut_store().take_fetched(after, entries);
        let peers: Vec<RaftId> = self.progress().map(|(peer, ..)| peer).collect();
        for peer in peers {
            let next = |group: &Group| {
                let progress = group.node.raft.prs().get(peer.get()).filter(|peer| !peer.is_paused());
                progress.map(|progress| progress.next_idx).filter(|next| known.contains(next))
            };
            while let Some(before) = next(self) {
                self.node.raft.send_append(peer.get());
                if next(self) == Some(before) {
                    break;
                }
            }
        }
        self.look_who_lacks();
    }

    /// Others may lack other entries, and raft-rs asks but once.
    fn look_who_lacks(&mut self) {
        let is_wanting = self.leads() && self.lacking().next().is_some();
        self.node.mut_store().set_wanting(is_wanting);
    }

    /// The log has let go of the entries up to an index: who lacks one of them needs the state instead.
    pub fn log_begins_after(&mut self, index: Index) {
        let index = index.min(self.applied());
        self.node.mut_store().log_begins_after(index);
        self.look_who_lacks();
    }
}
