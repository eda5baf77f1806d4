//! The entries of a group that are still in memory, as raft-rs' `Storage`.
//!
//! What raft-rs has of an entry is a reference of eight bytes, which it may copy as it likes; the payload is
//! kept once, here. References rise in the order of proposals and are never used again, so an entry that
//! gives way to another at its index cannot be taken for it. What is released was applied before.

use super::{GroupEntry, HardState, Position};
use crate::record::Payload;
use crate::types::{Index, Term};
use ::raft::eraftpb::{self, ConfState, Snapshot};
use ::raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::collections::VecDeque;

/// Where raft-rs' copy of an entry finds its payload.
type Reference = [u8; 8];

pub(super) struct Tail {
    base: Position,
    hard_state: HardState,
    voters: ConfState,
    /// (term, reference of the payload) of the entries after the base.
    entries: VecDeque<(Term, Option<u64>)>,
    /// Payloads in the order of their references.
    payloads: VecDeque<Payload>,
    first_reference: u64,
}

impl Tail {
    pub fn new(base: Position, hard_state: HardState, voters: ConfState, entries: Vec<GroupEntry>) -> Tail {
        let mut tail = Tail {
            base,
            hard_state,
            voters,
            entries: VecDeque::new(),
            payloads: VecDeque::new(),
            first_reference: 0,
        };
        for entry in entries {
            assert!(entry.index == tail.last().next(), "the entries of a group start without a gap");
            assert!(entry.term >= tail.last_term(), "terms do not fall along a log");
            let reference = entry.payload.map(|payload| u64::from_le_bytes(tail.keep(payload)));
            tail.entries.push_back((entry.term, reference));
        }
        let known = tail.base.index..=tail.last();
        assert!(known.contains(&tail.hard_state.commit), "what is committed is there");
        tail
    }

    fn last_term(&self) -> Term {
        self.entries.back().map_or(self.base.term, |(term, _)| *term)
    }

    pub fn last(&self) -> Index {
        Index(self.base.index.0 + self.entries.len() as u64)
    }

    pub fn keep(&mut self, payload: Payload) -> Reference {
        self.payloads.push_back(payload);
        (self.first_reference + self.payloads.len() as u64 - 1).to_le_bytes()
    }

    fn payload(&self, reference: u64) -> Payload {
        let at = reference.checked_sub(self.first_reference).expect("the payload was not released");
        assert!(at < self.payloads.len() as u64, "a reference is to a payload that is kept");
        self.payloads[at as usize].clone()
    }

    /// Takes raft's new entries; what stood at their indexes gives way.
    pub fn append(&mut self, entries: Vec<eraftpb::Entry>) -> Vec<GroupEntry> {
        let mut appended = Vec::with_capacity(entries.len());
        for entry in entries {
            let index = Index(entry.index);
            assert!(index > self.base.index && index <= self.last().next(), "raft appends without a gap");
            self.entries.truncate((index.0 - self.base.index.0 - 1) as usize);
            assert!(Term(entry.term) >= self.last_term(), "terms do not fall along a log");
            let reference = <Reference>::try_from(&entry.data[..]).ok().map(u64::from_le_bytes);
            assert!(reference.is_some() || entry.data.is_empty(), "entry {index} refers to no payload");
            self.entries.push_back((Term(entry.term), reference));
            let payload = reference.map(|reference| self.payload(reference));
            appended.push(GroupEntry { index, term: Term(entry.term), payload });
        }
        appended
    }

    pub fn release(&mut self, upto: Index) {
        while self.base.index < upto {
            let Some((term, reference)) = self.entries.pop_front() else { break };
            self.base = Position { index: self.base.index.next(), term };
            if let Some(reference) = reference {
                assert!(reference >= self.first_reference, "payloads go in the order of their entries");
                let done = reference + 1 - self.first_reference;
                self.payloads.drain(..done as usize);
                self.first_reference += done;
            }
        }
        self.give_back();
    }

    /// Gives back what the queues took while a whole log was read into them.
    fn give_back(&mut self) {
        const KEPT: usize = 4096;
        let len = self.entries.len().max(self.payloads.len());
        if self.entries.capacity() > KEPT && len < self.entries.capacity() / 4 {
            self.entries.shrink_to(KEPT.max(2 * len));
            self.payloads.shrink_to(KEPT.max(2 * len));
        }
    }

    fn raft_entry(&self, index: u64) -> Option<eraftpb::Entry> {
        let (term, reference) = *self.entries.get((index - self.base.index.0 - 1) as usize)?;
        let data = reference.map(|reference| reference.to_le_bytes().to_vec()).unwrap_or_default();
        Some(eraftpb::Entry { index, term: term.0, data, ..eraftpb::Entry::default() })
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> Result<RaftState> {
        let hard_state = eraftpb::HardState {
            term: self.hard_state.term.0,
            vote: self.hard_state.vote.0,
            commit: self.hard_state.commit.0,
        };
        Ok(RaftState::new(hard_state, self.voters.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<eraftpb::Entry>> {
        if low <= self.base.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let mut found: Vec<_> = (low..high).map_while(|index| self.raft_entry(index)).collect();
        if found.len() as u64 != high - low {
            return Err(Error::Store(StorageError::Unavailable));
        }
        ::raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.index.0 {
            return Ok(self.base.term.0);
        }
        if index < self.base.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.entries.get((index - self.base.index.0 - 1) as usize) {
            Some((term, _)) => Ok(term.0),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base.index.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last().0)
    }

    fn snapshot(&self, _: u64, _: u64) -> Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
impl Tail {
    pub fn entry(&self, index: Index) -> Option<GroupEntry> {
        let at = index.0.checked_sub(self.base.index.0 + 1)?;
        let (term, reference) = *self.entries.get(at as usize)?;
        Some(GroupEntry { index, term, payload: reference.map(|reference| self.payload(reference)) })
    }
}
