//! One Raft group, driven by raft-rs: proposals and messages in, entries to persist and messages out, commits seen.
//!
//! raft-rs clones entries freely, so its entries carry a reference of eight bytes; the payload itself is
//! kept once, in the group's `tail`. The rules of driving are those of the crate as published:
//! propose only where the role is leader (elsewhere it forwards in silence), campaign only
//! with nothing unpersisted, one Ready a turn, persisted in the order of their numbers.
//!
//! One group of a member elects by time; of the others their owner says when to campaign, as all groups are to be
//! led by one member. With one voter a campaign is won in the call.
//!
//! What a message promises is durable before it leaves. A leader's appends promise nothing but its term, and leave
//! beside the write of the same entries; all that others say waits for its Ready and every earlier one. An answer
//! to a heartbeat acknowledges no entry, and goes as soon as the term is durable.
//!
//! A change of peers is one of the log's entries, under a kind of its own. It takes effect when raft hands it
//! out, committed and persisted here; and what the group was at an index stays known until no checkpoint can
//! name that index any more.
//!
//! A group exists as a snapshot with an index and a term above 0 from its creation on: a member that joins
//! a log from index 1 would believe itself its only voter.

mod check;
mod content;
mod elections;
mod exchange;
mod message;
mod state;
mod tail;
mod translate;

#[cfg(test)]
mod tests;

pub use check::BadMessage;
pub use content::Content;
pub use elections::{Elections, Role};
pub use exchange::EntriesWanted;
pub use message::{Message, MessageBody, RoundId, VoteKind};
pub use state::Installing;

use crate::limits::HELD_BYTES_MAX;
use crate::record::{ConfChange, Entry, Payload};
use crate::stdx::AsOf;
use crate::types::{Index, Peers, RaftId, Term};
use ::raft::eraftpb::{self, ConfState, EntryType};
use ::raft::{Config, RawNode, ReadOnlyOption};
use elections::ElectionTimer;
use exchange::MessagesOut;
use std::collections::VecDeque;
use tail::Tail;

/// The index and term a fresh group starts behind, as if from a snapshot.
pub const FRESH_BASE: Position = Position { index: Index(1), term: Term(1) };

/// What a peer begins with whose member has joined: nothing, not even what all groups begin behind. No leader's log goes
/// back so far, so it is given the state.
pub const NEWCOMER_BASE: Position = Position { index: Index(0), term: Term(0) };

/// A place in a group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub index: Index,
    pub term: Term,
}

/// What a group must remember beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: Term,
    /// The peer voted for in this term.
    pub vote: Option<RaftId>,
    pub commit: Index,
}

/// An entry as the log keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupEntry {
    pub index: Index,
    pub term: Term,
    pub content: Content,
}

impl HardState {
    /// What one Ready says goes on from what the one before said.
    fn check_next(self, next: HardState) {
        assert!(next.term >= self.term, "terms do not fall: {next:?} after {self:?}");
        let may_vote = next.term > self.term || self.vote.is_none() || self.vote == next.vote;
        assert!(may_vote, "a vote does not change in its term: {next:?} after {self:?}");
        assert!(next.commit >= self.commit, "what is committed stays so: {next:?} after {self:?}");
    }
}

impl GroupEntry {
    pub fn at(&self) -> Position {
        Position { index: self.index, term: self.term }
    }
}

/// What a group starts from.
#[derive(Clone, Debug)]
pub struct GroupStart {
    /// Which peer this is.
    pub own: RaftId,
    /// The peers as of the base.
    pub peers: Peers,
    /// The last entry that a checkpoint stands for.
    pub base: Position,
    pub hard_state: HardState,
    /// The entries after the base, without a gap.
    pub entries: Vec<GroupEntry>,
    pub elections: Elections,
}

/// What must be durable before [`Group::persisted`] is called with the number.
#[derive(Debug, Default)]
pub struct Writes {
    pub number: u64,
    pub entries: Vec<GroupEntry>,
    pub hard_state: Option<HardState>,
    /// A change of peers is committed with it, which whoever is restarted has to go by. Any other commit an election
    /// finds again.
    pub commit_counts: bool,
}

/// The group does not lead (any more): the epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

pub struct Group {
    node: RawNode<Tail>,
    /// The peers as of each index that is not released.
    peers: AsOf<Index, Peers>,
    /// Number of the last Ready taken, and of the last one persisted.
    taken: u64,
    persisted: u64,
    /// As the last Ready that had one gave it.
    hard_state: HardState,
    outbox: MessagesOut,
    /// Where the group elects by time.
    timer: Option<ElectionTimer>,
    /// Role and term as of the last input.
    seen: (Role, Term),
    last_round: Option<RoundId>,
    /// Rounds that are confirmed and not taken.
    rounds: Vec<RoundId>,
    /// Changes of peers in the log that are not known to be committed.
    changes: VecDeque<Index>,
    /// The entry of this term that was appended once the last change of peers had taken effect.
    barrier: Option<Position>,
    /// Up to here the owner needs no payload; and for how many bytes of it followers may find it here all the same.
    released: Index,
    held_bytes_max: usize,
}

impl Group {
    pub fn new(start: GroupStart) -> Group {
        let last = start.entries.last().map_or(start.base, GroupEntry::at);
        // A crash can leave a commit index behind that points past the entries (entries precede hard
        // state in a write, but not in every write); raft-rs would panic on it. Entries can be left behind
        // whose term is not: nothing was said in that term, so no vote was either.
        let mut hard_state = start.hard_state;
        hard_state.commit = hard_state.commit.max(start.base.index).min(last.index);
        if hard_state.term < last.term {
            (hard_state.term, hard_state.vote) = (last.term, None);
        }
        let is_open = |entry: &&GroupEntry| {
            matches!(entry.content, Content::ConfChange(_)) && entry.index > hard_state.commit
        };
        let changes = start.entries.iter().filter(is_open).map(|entry| entry.index).collect();
        let timer = ElectionTimer::of(start.elections);
        let by_time = timer.as_ref().map(ElectionTimer::ticks);
        let config = Config {
            id: start.own.get(),
            election_tick: by_time.unwrap_or(10),
            heartbeat_tick: 1,
            applied: start.base.index.0,
            max_size_per_msg: ::raft::NO_LIMIT,
            max_uncommitted_size: ::raft::NO_LIMIT,
            max_committed_size_per_ready: 64 << 10,
            max_inflight_msgs: 256,
            pre_vote: true,
            check_quorum: by_time.is_some(),
            // With it raft-rs adds entries to an append without any that it has queued for the same peer, also where
            // they do not follow what that one stands behind.
            batch_append: false,
            skip_bcast_commit: true,
            read_only_option: ReadOnlyOption::Safe,
            ..Config::default()
        };
        let Peers { voters, learners } = &start.peers;
        assert!(!voters.is_empty(), "a group has a voter");
        assert!(!learners.iter().any(|id| voters.contains(id)), "who votes is no learner: {:?}", start.peers);
        let [voters, learners] = start.peers.numbers();
        let peers = ConfState { voters, learners, ..ConfState::default() };
        let tail = Tail::new(start.base, hard_state, peers, start.entries);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, tail, &logger).expect("the start of a group was checked above");
        let mut group = Group {
            node,
            peers: AsOf::new(start.peers),
            taken: 0,
            persisted: 0,
            hard_state,
            outbox: MessagesOut::default(),
            timer,
            seen: (Role::Follower, hard_state.term),
            last_round: None,
            rounds: vec![],
            changes: VecDeque::new(),
            barrier: None,
            released: start.base.index,
            held_bytes_max: HELD_BYTES_MAX,
        };
        group.changes = changes;
        group.draw_timeout();
        assert!(group.hard_state() == hard_state, "a group starts from the state that it is given");
        assert!(group.last_index() == last.index, "a group starts with all its entries");
        group
    }

    /// Whether all that was taken is persisted: nobody campaigns before.
    pub fn is_persisted(&self) -> bool {
        self.taken == self.persisted
    }

    pub fn own(&self) -> RaftId {
        RaftId::new(self.node.raft.id).expect("no peer is 0")
    }

    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// The last entry, committed or not.
    pub fn last(&self) -> Position {
        let index = self.last_index();
        let term = self.term_of(index).unwrap_or_default();
        assert!(
            term > Term(0) || index == NEWCOMER_BASE.index,
            "the last entry is kept or the base: {index}"
        );
        Position { index, term }
    }

    pub fn last_index(&self) -> Index {
        Index(self.node.raft.raft_log.last_index())
    }

    /// What a quorum has; may run ahead of what is persisted here.
    pub fn committed(&self) -> Index {
        Index(self.node.raft.raft_log.committed)
    }

    /// Up to where the group's entries are durable here.
    pub fn persisted_index(&self) -> Index {
        Index(self.node.raft.raft_log.persisted)
    }

    pub fn applied(&self) -> Index {
        Index(self.node.raft.raft_log.applied)
    }

    /// The term of an entry that the group still holds.
    pub fn term_of(&self, index: Index) -> Option<Term> {
        self.node.raft.raft_log.term(index.0).ok().filter(|term| *term > 0).map(Term)
    }

    /// Appends an entry, and says where it will stand.
    pub fn propose(&mut self, payload: Payload) -> Result<Position, Refused> {
        if !self.leads() {
            return Err(Refused);
        }
        let before = self.last_index();
        let reference = self.node.mut_store().keep(payload);
        if self.node.propose(Vec::new(), reference.to_vec()).is_err() {
            self.node.mut_store().take_back(reference);
            return Err(Refused);
        }
        let at = Position { index: self.last_index(), term: self.term() };
        assert!(at.index == before.next(), "a proposal is appended behind all else");
        Ok(at)
    }

    /// Proposes a change of peers, and says whether that stands in the log now. One at a time: not while another is
    /// there that has not taken effect, or may be, as far as a new leader knows.
    pub fn propose_peers(&mut self, change: ConfChange) -> bool {
        if !self.leads() || self.has_pending_change() || self.is_transferring() {
            return false;
        }
        let before = self.last_index();
        let reference = self.node.mut_store().keep(Payload::of(&Entry::ConfChange(change)));
        if self.node.propose_conf_change(reference.to_vec(), content::to_raft(change)).is_err() {
            self.node.mut_store().take_back(reference);
            return false;
        }
        assert!(self.last_index() == before.next(), "a change of peers is appended behind all else");
        assert!(self.has_pending_change(), "raft has not emptied the change: none was pending");
        true
    }

    /// Whether the leader's log may hold a change of peers that has not taken effect.
    pub fn has_pending_change(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Appends an entry that says nothing behind the last change of peers, once in a term. Whoever acknowledges it knows
    /// durably that the change is committed: it was told so with the entry. Until then who is restarted may go by the
    /// peers of before, and need one that is none any more.
    pub fn propose_barrier(&mut self) {
        if !self.leads() || self.has_pending_change() || self.is_transferring() || self.has_barrier() {
            return;
        }
        let before = self.last_index();
        if self.node.propose(vec![], vec![]).is_ok() {
            let at = Position { index: self.last_index(), term: self.term() };
            assert!(at.index == before.next(), "a barrier is appended behind all else");
            assert!(at.index > self.applied(), "what has just been appended has not taken effect: {at:?}");
            self.barrier = Some(at);
        }
    }

    pub fn has_barrier(&self) -> bool {
        self.barrier.is_some_and(|at| at.term == self.term())
    }

    /// Whether a quorum of the peers as they are knows of that durably.
    pub fn peers_are_sure(&self) -> bool {
        let is_passed = |at: Position| at.term == self.term() && at.index <= self.committed();
        let is_behind = |at: Position| at.term != self.term() || at.index <= self.last_index();
        assert!(
            self.barrier.is_none_or(is_behind),
            "a barrier of this term is in its log: {:?}",
            self.barrier
        );
        self.leads() && self.barrier.is_some_and(is_passed)
    }

    /// The peers as of the last change that has taken effect.
    pub fn peers(&self) -> &Peers {
        self.peers.newest()
    }

    /// Whether [`Group::ready`] has something.
    pub fn has_ready(&self) -> bool {
        self.node.has_ready()
    }

    /// The writes of this turn, if there are any. At most one call a turn.
    pub fn ready(&mut self) -> Option<Writes> {
        if !self.node.has_ready() {
            return None;
        }
        self.collect_rounds();
        let mut ready = self.node.ready();
        assert!(ready.snapshot().is_empty(), "no peer sends a state");
        assert!(ready.read_states().is_empty(), "the rounds were collected");
        assert!(ready.number() == self.taken + 1, "Readies are numbered without a gap");
        let first = ready.entries().first().map(|entry| Index(entry.index));
        assert!(
            first.is_none_or(|first| first > self.hard_state.commit),
            "what is committed is not replaced"
        );
        let hard_state = ready.hs().map(|hs| HardState {
            term: Term(hs.term),
            vote: RaftId::new(hs.vote),
            commit: Index(hs.commit),
        });
        if let Some(next) = hard_state {
            self.hard_state.check_next(next);
            if (next.term, next.vote) != (self.hard_state.term, self.hard_state.vote) {
                self.outbox.promised_in(ready.number());
            }
            self.hard_state = next;
        }
        self.post(&mut ready);
        let entries = self.node.mut_store().append(ready.take_entries());
        let commit_counts = self.note_changes(&entries);
        let (kept, last) = (self.node.store().last(), self.last_index());
        assert!(kept == last, "all of the group's entries are kept: up to {kept} of {last}");
        assert!(entries.last().is_none_or(|entry| entry.term <= self.term()), "no entry is of a later term");
        // Entries are followed through `committed`; handing them out moves raft's own mark, and its peers.
        let handed_out = ready.take_committed_entries();
        if let (Some(first), Some(last)) = (handed_out.first(), handed_out.last()) {
            assert!(first.index == self.applied().next().0, "entries are handed out in their order");
            assert!(last.index <= self.committed().0, "what is handed out is committed");
        }
        let number = ready.number();
        self.node.advance_append_async(ready);
        assert!(self.hard_state() == self.hard_state, "a Ready has the newest term, vote and commit");
        for entry in handed_out.iter().filter(|entry| entry.entry_type() == EntryType::EntryConfChangeV2) {
            self.change_peers(entry);
        }
        if let Some(last) = handed_out.last() {
            self.node.advance_apply_to(last.index);
            assert!(self.applied() == Index(last.index), "what is handed out is applied");
        }
        self.taken = number;
        self.let_go();
        let hard_state = if commit_counts { Some(self.hard_state) } else { hard_state };
        Some(Writes { number, entries, hard_state, commit_counts })
    }

    /// Whether a change of peers in the log has come to be committed.
    fn note_changes(&mut self, entries: &[GroupEntry]) -> bool {
        for entry in entries {
            while self.changes.pop_back_if(|last| *last >= entry.index).is_some() {}
            if let Content::ConfChange(_) = entry.content {
                self.changes.push_back(entry.index);
            }
        }
        let (before, committed) = (self.changes.len(), self.committed());
        while self.changes.pop_front_if(|first| *first <= committed).is_some() {}
        self.changes.len() < before
    }

    /// A change of peers takes effect.
    fn change_peers(&mut self, entry: &eraftpb::Entry) {
        assert!(Index(entry.index) > self.applied(), "a change takes effect once");
        let change = self.node.store().content_of(entry).conf_change();
        let change = change.expect("raft says of the same entry that it is one");
        let state = self.node.apply_conf_change(&content::to_raft(change));
        let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } =
            state.expect("a change of peers is checked before it is proposed");
        let joint = auto_leave || !voters_outgoing.is_empty() || !learners_next.is_empty();
        assert!(!joint, "peers are changed one at a time");
        let (votes, learns) = (|id| voters.contains(&id), |id| learners.contains(&id));
        let is_done = match change {
            ConfChange::AddVoter(id) => votes(id) && !learns(id),
            ConfChange::AddLearner(id) => learns(id) && !votes(id),
            ConfChange::Remove(id) => !votes(id) && !learns(id),
        };
        assert!(is_done, "raft makes the change that the entry says: {change:?}");
        let mut peers = Peers::of(&voters, &learners).expect("no change names 0");
        // raft-rs gives them in any order, and what is written of them is the same everywhere.
        peers.voters.sort_unstable();
        peers.learners.sort_unstable();
        self.peers.change(Index(entry.index), peers);
        self.barrier = None;
    }

    /// The peers as of an index that was not released.
    pub fn peers_at(&self, index: Index) -> &Peers {
        assert!(index <= self.applied(), "peers are known as far as changes have taken effect");
        self.peers.at(index)
    }

    /// Everything up to this Ready is durable. Numbers rise.
    pub fn persisted(&mut self, number: u64) {
        assert!(number > self.persisted && number <= self.taken, "Readies are persisted in their order");
        self.persisted = number;
        let committed = self.committed();
        self.node.on_persist_ready(number);
        self.outbox.persisted(number);
        let all = self.is_persisted() && !self.node.has_ready();
        assert!(!all || self.persisted_index() == self.last_index(), "all that was taken is durable");
        assert!(self.committed() >= committed, "what is committed stays so");
        assert!(self.applied() <= self.committed(), "nothing is handed out before its commit");
    }

    /// Lets go of payloads up to an index, which must be applied. What others lack, or may lack as far as this peer
    /// knows, is kept within bounds.
    pub fn release(&mut self, upto: Index) {
        let upto = upto.min(self.applied());
        assert!(upto <= self.committed(), "what may still be replaced is kept");
        self.peers.pass(upto);
        self.released = self.released.max(upto);
        // What raft-rs wants to send refers to payloads, and goes with the next Ready.
        if self.node.raft.msgs.is_empty() {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        let released = self.released;
        let wanted = if self.is_alone() {
            released
        } else {
            // Who may come to lead does not know yet what the others lack.
            self.progress().map(|(_, matched, _)| matched).min().unwrap_or(Index(0))
        };
        let held_bytes_max = self.held_bytes_max;
        self.node.mut_store().release(released, wanted.min(released), held_bytes_max);
    }

    /// Keeps so much payload in memory for followers that lack it, from now on.
    pub fn hold_for_followers(&mut self, bytes_max: usize) {
        self.held_bytes_max = bytes_max;
    }

    pub fn hard_state(&self) -> HardState {
        let raft = &self.node.raft;
        let commit = Index(raft.raft_log.committed);
        HardState { term: Term(raft.term), vote: RaftId::new(raft.vote), commit }
    }
}
