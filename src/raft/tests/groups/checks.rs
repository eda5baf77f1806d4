//! What Raft promises, seen from outside all peers at once.

use super::Disk;
use crate::raft::*;
use crate::types::{Index, RaftId, Term};
use std::collections::BTreeMap;

/// The group as a round began in it.
#[derive(Clone, Copy)]
pub struct Begun {
    pub term: Term,
    /// What had been committed by then, and in which term at the latest.
    committed: Index,
    committing: Term,
}

struct Committed {
    entry: (Term, u64),
    /// The term of whoever knew it first, which was its leader.
    known_in: Term,
}

pub struct Checks {
    leaders: BTreeMap<Term, usize>,
    /// By index, behind the base.
    committed: Vec<Committed>,
    /// What each peer has of it.
    known: Vec<Index>,
    /// By index and term: what an entry is, and the term of the one before.
    entries: BTreeMap<(Index, Term), (u64, Term)>,
    votes: BTreeMap<(usize, Term), RaftId>,
    /// The highest term that each peer has named as its own.
    named: Vec<Term>,
}

/// What tells an entry from others.
fn tag(content: &Content) -> u64 {
    let bytes = content.payload().and_then(|payload| payload.bytes().first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

impl Checks {
    pub fn new(peers: usize) -> Checks {
        Checks {
            leaders: BTreeMap::new(),
            committed: vec![],
            known: vec![FRESH_BASE.index; peers],
            entries: BTreeMap::new(),
            votes: BTreeMap::new(),
            named: vec![FRESH_BASE.term; peers],
        }
    }

    fn last_committed(&self) -> Index {
        Index(FRESH_BASE.index.0 + self.committed.len() as u64)
    }

    fn committed_at(&self, index: Index) -> Option<&Committed> {
        self.committed.get(index.0.checked_sub(FRESH_BASE.index.0 + 1)? as usize)
    }

    pub fn started(&mut self, at: usize, group: &Group) {
        self.known[at] = group.applied();
        assert!(group.term() >= self.named[at], "peer {at} goes back behind term {}", self.named[at]);
    }

    /// Two logs that have one entry in common are the same before it.
    pub fn appended(&mut self, group: &Group, entries: &[GroupEntry]) -> Result<(), String> {
        for entry in entries {
            let before = group.term_of(Index(entry.index.0 - 1)).unwrap_or_default();
            let this = (tag(&entry.content), before);
            let known = *self.entries.entry((entry.index, entry.term)).or_insert(this);
            ensure(known == this, || format!("{:?} is {this:?} here and {known:?} elsewhere", entry.at()))?;
        }
        Ok(())
    }

    /// What a message says is durable where it comes from.
    pub fn says(&mut self, at: usize, message: &Message, disk: &Disk) -> Result<(), String> {
        let Message { term, body, .. } = message;
        let said = |why: &str| format!("peer {at} {why}: {message:?}, and its disk has {:?}", disk.hard);
        let vote = match body {
            MessageBody::Vote { kind: VoteKind::Pre, .. } => return Ok(()),
            MessageBody::VoteAnswer { kind: VoteKind::Pre, is_granted: true, .. } => return Ok(()),
            MessageBody::Vote { .. } => Some(message.from),
            MessageBody::VoteAnswer { kind: VoteKind::Real, is_granted: true, .. } => Some(message.to),
            _ => None,
        };
        let durable = disk.hard.term.max(disk.term(disk.last()).unwrap_or_default());
        ensure(durable >= *term, || said("names a term that it may forget"))?;
        self.named[at] = self.named[at].max(*term);
        if let Some(vote) = vote {
            let HardState { term: durable, vote: of, .. } = disk.hard;
            let is_durable = durable > *term || (durable == *term && of == Some(vote));
            ensure(is_durable, || said("votes, and may forget it"))?;
            let first = *self.votes.entry((at, *term)).or_insert(vote);
            ensure(first == vote, || said("votes twice in a term"))?;
        }
        if let MessageBody::AppendAnswer { index, rejected: None, .. } = body {
            // A leader of a later term may have replaced it before it was written: as if it had been behind that.
            let is_durable = durable > *term || disk.last() >= *index;
            ensure(is_durable, || said("acknowledges what it may lose"))?;
        }
        Ok(())
    }

    /// A term has one leader, and a leader has all that was committed before its term. Says whether it is a new one.
    pub fn leads(&mut self, at: usize, group: &Group) -> Result<bool, String> {
        if !group.leads() {
            return Ok(false);
        }
        let term = group.term();
        let is_new = !self.leaders.contains_key(&term);
        let first = *self.leaders.entry(term).or_insert(at);
        ensure(first == at, || format!("{first} and {at} lead in term {term}"))?;
        if is_new {
            for (index, committed) in (FRESH_BASE.index.0 + 1..).map(Index).zip(&self.committed) {
                let own = group.term_of(index);
                let is_had = own.is_none_or(|own| own == committed.entry.0) && index <= group.last_index();
                ensure(committed.known_in >= term || is_had, || {
                    format!("{at} leads in term {term} without what was committed at {index}: {own:?}")
                })?;
            }
        }
        Ok(is_new)
    }

    /// At each index one entry is committed, and a majority of the disks has it.
    pub fn commits<'a>(
        &mut self,
        at: usize,
        group: &Group,
        disks: impl Iterator<Item = &'a Disk> + Clone,
    ) -> Result<(), String> {
        while self.known[at] < group.committed() {
            let index = self.known[at].next();
            // What is not taken from raft yet is looked at behind its Ready.
            let taken = group.entry(index).filter(|entry| group.term_of(index) == Some(entry.term));
            let Some(entry) = taken else { break };
            let entry = (entry.term, tag(&entry.content));
            if index > self.last_committed() {
                self.committed.push(Committed { entry, known_in: group.term() });
                let having = disks.clone().filter(|disk| disk.term(index) == Some(entry.0)).count();
                ensure(having * 2 > self.known.len(), || {
                    format!("{index} is committed at {at}, and {having} disks have it")
                })?;
            }
            let known = self.committed_at(index).expect("just made known").entry;
            ensure(entry == known, || format!("{at} commits {entry:?} at {index}, others {known:?}"))?;
            self.known[at] = index;
        }
        Ok(())
    }

    /// Up to where a disk has what is committed.
    pub fn known_on(&self, disk: &Disk) -> Index {
        let mut index = disk.base.index;
        while self
            .committed_at(index.next())
            .is_some_and(|committed| disk.term(index.next()) == Some(committed.entry.0))
        {
            index = index.next();
        }
        index
    }

    /// The group as it is, for a round that begins now.
    pub fn begun(&self, term: Term) -> Begun {
        let committing = self.committed.last().map_or(FRESH_BASE.term, |committed| committed.known_in);
        Begun { term, committed: self.last_committed(), committing }
    }

    /// A leader whose round is confirmed led when it began: nobody later had committed anything, and it knows all
    /// that was committed.
    pub fn confirmed(&self, begun: &Begun, group: &Group) -> Result<(), String> {
        ensure(begun.committing <= begun.term, || {
            format!(
                "a round of term {} is confirmed that began when {} had committed",
                begun.term, begun.committing
            )
        })?;
        ensure(begun.committed <= group.committed(), || {
            format!("a round is confirmed at {}, and began at {}", group.committed(), begun.committed)
        })
    }
}
