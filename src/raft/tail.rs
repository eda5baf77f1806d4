//! The entries of a group that are still in memory, as raft-rs' `Storage`.
//!
//! What raft-rs has of an entry is a reference of eight bytes, which it may copy as it likes; the payload is
//! kept once, here. References rise in the order in which entries come, and none that an entry had is used again,
//! so an entry that gives way to another at its index cannot be taken for it. What is released was applied before.
//!
//! ```text
//!            log only         |  for followers    |  needed here
//!   ----|---------------------|-------------------|------------------|
//!   log_after                base              released            last
//! ```
//!
//! An entry that a follower lacks and that is not here any more comes from the log: raft-rs is told to wait, the
//! owner reads, and what was read stays here until the next Ready has taken it into messages.

use super::{Content, GroupEntry, HardState, Position};
use crate::limits::APPEND_BYTES_MAX;
use crate::record::Payload;
use crate::types::{Index, RaftId, Term};
use ::raft::eraftpb::{self, ConfState, EntryType, Snapshot};
use ::raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// Where raft-rs' copy of an entry finds its payload: its data, or beside a change of peers, whose data raft-rs
/// makes and reads itself, its context.
pub(super) type Reference = [u8; 8];

/// A reference to what was read from the log: with the entry's index instead of a number.
const FETCHED: u64 = 1 << 63;

/// What an entry takes beside its payload's bytes: its place and the payload's, and the heads of what is shared.
const ENTRY_FIXED_BYTES: usize = size_of::<(Term, Kept)>() + size_of::<Payload>() + 32;

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
    /// The log has the entries behind this one.
    log_after: Index,
    /// Up to here entries are kept for followers alone, and the bytes that these take.
    released: Index,
    held_bytes: usize,
    /// Entries from the log, and what they stand behind.
    fetched: Vec<(Position, Vec<GroupEntry>)>,
    /// raft-rs asked for entries that only the log has.
    is_wanting: Cell<bool>,
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
            log_after: base.index,
            released: base.index,
            held_bytes: 0,
            fetched: vec![],
            is_wanting: Cell::new(false),
        };
        for entry in entries {
            assert!(entry.index == tail.last().next(), "the entries of a group start without a gap");
            assert!(entry.term >= tail.last_term(), "terms do not fall along a log");
            let kept = tail.keep_content(entry.content);
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

    fn keep_content(&mut self, content: Content) -> Kept {
        let mut keep = |payload| u64::from_le_bytes(self.keep(payload));
        match content {
            Content::Empty => Kept::Empty,
            Content::Data(payload) => Kept::Data(keep(payload)),
            Content::ConfChange(payload) => Kept::ConfChange(keep(payload)),
        }
    }

    /// Keeps what an entry of another peer holds, and gives raft-rs' form of it.
    pub fn keep_entry(&mut self, entry: GroupEntry) -> eraftpb::Entry {
        let at = entry.at();
        raft_entry(at, self.keep_content(entry.content))
    }

    /// Gives back the payload that was kept last, which no entry came to refer to.
    pub fn take_back(&mut self, reference: Reference) {
        let next = self.first_reference + self.payloads.len() as u64;
        assert!(u64::from_le_bytes(reference) + 1 == next, "what was kept last goes first");
        let taken = self.payloads.pop_back();
        assert!(taken.is_some(), "it was kept");
    }

    fn payload(&self, reference: u64) -> Payload {
        let at = reference.checked_sub(self.first_reference).expect("the payload was not released");
        assert!(at < self.payloads.len() as u64, "a reference is to a payload that is kept");
        self.payloads[at as usize].clone()
    }

    /// What an entry of raft-rs holds.
    pub fn content_of(&self, entry: &eraftpb::Entry) -> Content {
        let kept = Kept::of(entry);
        match kept.reference() {
            Some(reference) if reference == FETCHED | entry.index => {
                let fetched = self.fetched(Index(entry.index));
                fetched.expect("what was fetched stays until it is sent").content.clone()
            }
            _ => self.content(kept),
        }
    }

    pub fn group_entry(&self, entry: &eraftpb::Entry) -> GroupEntry {
        let content = self.content_of(entry);
        GroupEntry { index: Index(entry.index), term: Term(entry.term), content }
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

    /// Nobody but followers needs what stands up to `upto`, and they have everything up to `matched`. Beyond so many
    /// bytes they have to do with the log.
    pub fn release(&mut self, upto: Index, matched: Index, held_bytes_max: usize) {
        assert!(
            upto <= self.last() && matched <= upto,
            "what is not there is not released: {upto}, {matched}"
        );
        while self.released < upto {
            self.released = self.released.next();
            self.held_bytes += self.entry_bytes(self.released);
        }
        while self.base.index < self.released
            && (self.base.index < matched || self.held_bytes > held_bytes_max)
        {
            let index = self.base.index.next();
            self.held_bytes -= self.entry_bytes(index);
            let (term, kept) = self.entries.pop_front().expect("what is released is kept");
            self.base = Position { index, term };
            if let Some(reference) = kept.reference() {
                assert!(reference >= self.first_reference, "payloads go in the order of their entries");
                let done = reference + 1 - self.first_reference;
                self.payloads.drain(..done as usize);
                self.first_reference += done;
            }
        }
        let held = self.base.index < self.released;
        assert!(held || self.held_bytes == 0, "nothing is held, and {} bytes of it", self.held_bytes);
        assert!(
            self.held_bytes <= held_bytes_max || self.base.index >= self.released,
            "what is held is bounded"
        );
        self.give_back();
    }

    /// What an entry takes in memory, also where it holds little or nothing.
    fn entry_bytes(&self, index: Index) -> usize {
        let (_, kept) = self.entries[(index.0 - self.base.index.0 - 1) as usize];
        let place = kept.reference().map(|reference| (reference - self.first_reference) as usize);
        ENTRY_FIXED_BYTES + place.map_or(0, |place| self.payloads[place].bytes().len())
    }

    /// The index before the first entry that is in memory.
    pub fn base(&self) -> Index {
        self.base.index
    }

    /// The log has lost the entries up to here.
    pub fn log_begins_after(&mut self, index: Index) {
        assert!(index <= self.last(), "a log does not begin behind its end: {index}");
        self.log_after = self.log_after.max(index);
    }

    /// The index before the first entry that is in memory or in the log.
    pub fn log_after(&self) -> Index {
        self.log_after.min(self.base.index)
    }

    pub fn is_wanting(&self) -> bool {
        self.is_wanting.get()
    }

    pub fn set_wanting(&mut self, is_wanting: bool) {
        self.is_wanting.set(is_wanting);
    }

    /// Entries that the log had, for raft-rs to ask for anew.
    pub fn take_fetched(&mut self, after: Position, entries: Vec<GroupEntry>) {
        let (mut index, mut term) = (after.index, after.term);
        for entry in &entries {
            index = index.next();
            assert!(entry.index == index, "the log has its entries without a gap: {index}");
            assert!(entry.term >= term, "terms do not fall along a log: {index}");
            term = entry.term;
        }
        assert!(index <= self.base.index, "only what is not in memory is fetched: {index}");
        self.is_wanting.set(false);
        self.fetched.push((after, entries));
    }

    /// All that was fetched is in messages, or is not needed any more.
    pub fn drop_fetched(&mut self) {
        self.fetched.clear();
    }

    fn fetched(&self, index: Index) -> Option<&GroupEntry> {
        self.fetched.iter().find_map(|(after, entries)| {
            let place = index.0.checked_sub(after.index.0 + 1)?;
            entries.get(usize::try_from(place).ok()?)
        })
    }

    fn fetched_term(&self, index: Index) -> Option<Term> {
        let before = self.fetched.iter().map(|(after, _)| *after).find(|after| after.index == index);
        before.map(|before| before.term).or_else(|| self.fetched(index).map(|entry| entry.term))
    }

    /// What raft-rs reads of the entries from `low` on for a follower: at least one, and about as much as a message
    /// may hold.
    fn entries_to_send(&self, low: u64, high: u64) -> Result<Vec<eraftpb::Entry>> {
        let mut found = vec![];
        let mut bytes = 0;
        for index in low..high {
            let (entry, more) = if index > self.base.index.0 {
                (self.raft_entry(index), self.entry_bytes(Index(index)))
            } else {
                let Some(fetched) = self.fetched(Index(index)) else { break };
                let bytes = fetched.content.payload().map_or(0, |payload| payload.bytes().len());
                (Some(fetched_entry(fetched)), ENTRY_FIXED_BYTES + bytes)
            };
            bytes += more;
            if bytes > APPEND_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.extend(entry);
        }
        assert!(found.len() as u64 <= high - low, "no more is read than was asked for");
        if found.is_empty() {
            assert!(low <= self.base.index.0, "what is in memory need not be fetched: {low}");
            self.is_wanting.set(true);
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        Ok(found)
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
        Some(raft_entry(Position { index: Index(index), term }, kept))
    }
}

fn raft_entry(at: Position, kept: Kept) -> eraftpb::Entry {
    let reference = kept.reference().map(|reference| reference.to_le_bytes().to_vec()).unwrap_or_default();
    let mut entry = eraftpb::Entry { index: at.index.0, term: at.term.0, ..eraftpb::Entry::default() };
    match kept {
        Kept::Empty | Kept::Data(_) => entry.data = reference,
        Kept::ConfChange(_) => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.context = reference;
        }
    }
    entry
}

fn fetched_entry(entry: &GroupEntry) -> eraftpb::Entry {
    let reference = FETCHED | entry.index.0;
    raft_entry(
        entry.at(),
        match &entry.content {
            Content::Empty => Kept::Empty,
            Content::Data(_) => Kept::Data(reference),
            Content::ConfChange(_) => Kept::ConfChange(reference),
        },
    )
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
        context: GetEntriesContext,
    ) -> Result<Vec<eraftpb::Entry>> {
        if low <= self.log_after().0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if context.can_async() {
            return self.entries_to_send(low, high);
        }
        assert!(low > self.base.index.0, "what is not handed out stays in memory: {low}");
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
            let fetched = self.fetched_term(Index(index));
            return fetched.map(|term| term.0).ok_or(Error::Store(StorageError::Compacted));
        }
        match self.entries.get((index - self.base.index.0 - 1) as usize) {
            Some((term, _)) => Ok(term.0),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.log_after().0 + 1)
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
