//! The entries of a group that are still in memory, as raft-rs' `Storage`.
//!
//! What raft-rs has of an entry is a reference of eight bytes, which it may copy as it likes; the payload is
//! kept once, here. References rise in the order of proposals and are never used again, so an entry that
//! gives way to another at its index cannot be taken for it. What is released was applied before.

use super::{Content, GroupEntry, HardState, Position};
use crate::record::Payload;
use crate::types::{Index, RaftId, Term};
use ::raft::eraftpb::{self, ConfState, EntryType, Snapshot};
use ::raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::collections::VecDeque;

/// Where raft-rs' copy of an entry finds its payload: its data, or beside a change of peers, whose data raft-rs
/// makes and reads itself, its context.
type Reference = [u8; 8];

/// An entry as the tail keeps it: the number is the payload's reference.
#[derive(Clone, Copy)]
enum Kept {
    Empty,
    Data(u64),
    ConfChange(u64),
}

impl Kept {
    fn reference(self) -> Option<u64> {
        match self {
            Kept::Empty => None,
            Kept::Data(reference) | Kept::ConfChange(reference) => Some(reference),
        }
    }

    /// What raft-rs has appended.
    fn of(entry: &eraftpb::Entry) -> Kept {
        let reference = |bytes: &[u8]| <Reference>::try_from(bytes).ok().map(u64::from_le_bytes);
        match entry.entry_type() {
            EntryType::EntryNormal => {
                let (reference, index) = (reference(&entry.data), entry.index);
                assert!(reference.is_some() || entry.data.is_empty(), "entry {index} refers to no payload");
                reference.map_or(Kept::Empty, Kept::Data)
            }
            EntryType::EntryConfChangeV2 => {
                let reference = reference(&entry.context);
                Kept::ConfChange(reference.expect("a change of peers is proposed with its record"))
            }
            EntryType::EntryConfChange => unreachable!("changes of peers are proposed in the newer form"),
        }
    }
}

pub(super) struct Tail {
    base: Position,
    hard_state: HardState,
    /// As of the base that the group started from.
    peers: ConfState,
    /// The entries after the base.
    entries: VecDeque<(Term, Kept)>,
    /// Payloads in the order of their references.
    payloads: VecDeque<Payload>,
    first_reference: u64,
}

impl Tail {
    pub fn new(base: Position, hard_state: HardState, peers: ConfState, entries: Vec<GroupEntry>) -> Tail {
        let mut tail = Tail {
            base,
            hard_state,
            peers,
            entries: VecDeque::new(),
            payloads: VecDeque::new(),
            first_reference: 0,
        };
        for entry in entries {
            assert!(entry.index == tail.last().next(), "the entries of a group start without a gap");
            assert!(entry.term >= tail.last_term(), "terms do not fall along a log");
            let mut keep = |payload| u64::from_le_bytes(tail.keep(payload));
            let kept = match entry.content {
                Content::Empty => Kept::Empty,
                Content::Data(payload) => Kept::Data(keep(payload)),
                Content::ConfChange(payload) => Kept::ConfChange(keep(payload)),
            };
            tail.entries.push_back((entry.term, kept));
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

    /// What an entry holds that raft-rs has handed out.
    pub fn content_of(&self, entry: &eraftpb::Entry) -> Content {
        self.content(Kept::of(entry))
    }

    fn content(&self, kept: Kept) -> Content {
        match kept {
            Kept::Empty => Content::Empty,
            Kept::Data(reference) => Content::Data(self.payload(reference)),
            Kept::ConfChange(reference) => Content::ConfChange(self.payload(reference)),
        }
    }

    /// Takes raft's new entries; what stood at their indexes gives way.
    pub fn append(&mut self, entries: Vec<eraftpb::Entry>) -> Vec<GroupEntry> {
        let mut appended = Vec::with_capacity(entries.len());
        for entry in entries {
            let index = Index(entry.index);
            assert!(index > self.base.index && index <= self.last().next(), "raft appends without a gap");
            self.entries.truncate((index.0 - self.base.index.0 - 1) as usize);
            assert!(Term(entry.term) >= self.last_term(), "terms do not fall along a log");
            let (term, kept) = (Term(entry.term), Kept::of(&entry));
            let before = self.entries.back().and_then(|(_, kept)| kept.reference());
            let rises = before.is_none_or(|before| kept.reference().is_none_or(|this| this > before));
            assert!(rises, "payloads are kept in the order of their entries: {index}");
            self.entries.push_back((term, kept));
            appended.push(GroupEntry { index, term, content: self.content(kept) });
        }
        appended
    }

    pub fn release(&mut self, upto: Index) {
        while self.base.index < upto {
            let Some((term, kept)) = self.entries.pop_front() else { break };
            self.base = Position { index: self.base.index.next(), term };
            if let Some(reference) = kept.reference() {
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
        assert!(index > self.base.index.0, "entry {index} is kept");
        let (term, kept) = *self.entries.get((index - self.base.index.0 - 1) as usize)?;
        let reference =
            kept.reference().map(|reference| reference.to_le_bytes().to_vec()).unwrap_or_default();
        let mut entry = eraftpb::Entry { index, term: term.0, ..eraftpb::Entry::default() };
        match kept {
            Kept::Empty | Kept::Data(_) => entry.data = reference,
            Kept::ConfChange(_) => {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                entry.context = reference;
            }
        }
        Some(entry)
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> Result<RaftState> {
        let hard_state = eraftpb::HardState {
            term: self.hard_state.term.0,
            vote: self.hard_state.vote.map_or(0, RaftId::get),
            commit: self.hard_state.commit.0,
        };
        Ok(RaftState::new(hard_state, self.peers.clone()))
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
        let (term, kept) = *self.entries.get(at as usize)?;
        Some(GroupEntry { index, term, content: self.content(kept) })
    }
}
