//! Who leads: standing for election, handing over, and making sure of it.

use super::translate::{context_of, round_of};
use super::{Group, Position, RoundId};
use crate::stdx::Rng;
use crate::types::{Index, RaftId, Term};
use ::raft::StateRole;

/// Who says when a group elects.
#[derive(Clone, Debug)]
pub enum Elections {
    /// Its owner, since it also says who is to lead: no time passes here, and a leader that nobody hears leads on
    /// until it hears of another.
    ByOwner,
    /// Time: who hears of no leader for long enough stands, a leader that hears of no quorum steps down, and while
    /// a leader is heard nobody else gets a vote. A heartbeat leaves with every tick.
    ByTimeout { election_ticks: u32, rng: Rng },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    /// Asks whether it would get votes.
    PreCandidate,
}

/// How long a group waits for a leader, drawn anew in `election_ticks..2 * election_ticks`. raft-rs draws as well, of
/// a randomness that no seed repeats; each of its draws is written over.
pub(super) struct ElectionTimer {
    election_ticks: u32,
    rng: Rng,
}

impl ElectionTimer {
    pub fn of(elections: Elections) -> Option<ElectionTimer> {
        match elections {
            Elections::ByOwner => None,
            Elections::ByTimeout { election_ticks, rng } => Some(ElectionTimer { election_ticks, rng }),
        }
    }

    pub fn into_elections(self) -> Elections {
        Elections::ByTimeout { election_ticks: self.election_ticks, rng: self.rng }
    }

    /// The least number of ticks that is waited for.
    pub fn ticks(&self) -> usize {
        self.election_ticks as usize
    }

    fn draw(&mut self) -> usize {
        let ticks = u64::from(self.election_ticks);
        assert!(ticks > 1, "an election timeout is longer than a heartbeat");
        usize::try_from(ticks + self.rng.below(ticks)).expect("ticks are few")
    }
}

impl Group {
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate => Role::Candidate,
            StateRole::PreCandidate => Role::PreCandidate,
        }
    }

    pub fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Who leads in this term, as far as this peer has heard.
    pub fn leader(&self) -> Option<RaftId> {
        RaftId::new(self.node.raft.leader_id)
    }

    /// Whether an election may begin: whoever wins has all of its log durable, and no change of peers that would
    /// still take effect.
    fn may_campaign(&self) -> bool {
        self.node.raft.promotable() && self.is_persisted() && !self.node.has_ready()
    }

    /// A tick passes, in a group that elects by timeout. Who may not stand still finds that no leader is heard, and then
    /// votes for others.
    pub fn tick(&mut self, may_stand: bool) {
        assert!(self.timer.is_some(), "a group that its owner elects knows no time");
        let raft = &mut self.node.raft;
        let is_due = raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        if !self.leads() && is_due && !(may_stand && self.may_campaign()) {
            // The election comes with the first tick that finds the log durable and that it may stand.
            self.node.raft.election_elapsed += 1;
            return;
        }
        self.node.tick();
        if !self.leads() && is_due {
            self.draw_timeout();
        }
        self.follow_role();
    }

    /// Stands for election and says whether the group leads; with one voter the answer is known at once. With
    /// anything unpersisted or a Ready not taken it waits: to be called again in a later turn.
    pub fn campaign(&mut self) -> bool {
        if !self.leads() && self.may_campaign() {
            let term = self.term();
            assert!(self.persisted_index() == self.last_index(), "who stands has all of its log durable");
            self.node.campaign().expect("campaign has no error of its own");
            assert!(!self.leads() || self.term() > term, "a leader is elected in a term of its own");
            self.follow_role();
        }
        self.leads()
    }

    /// Whether another peer has refused its vote to this one, which stands: it may have voted for itself.
    pub fn is_refused(&self) -> bool {
        let (_, refused, _) = self.node.raft.prs().tally_votes();
        self.role() == Role::Candidate && refused > 0
    }

    /// Gives leadership up, in the same term.
    pub fn step_down(&mut self) {
        self.follow_nobody();
    }

    /// The leader is not heard any more, as where its connection was reset: others may be voted for from now on.
    pub fn forget_leader(&mut self) {
        if self.role() == Role::Follower && self.leader().is_some() {
            self.follow_nobody();
        }
    }

    fn follow_nobody(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
        assert!(self.leader().is_none(), "who follows nobody knows no leader");
        self.draw_timeout();
        self.follow_role();
    }

    /// What depends on role and term follows them: a round is of the term in which it began, and every change has
    /// a timeout of its own.
    pub(super) fn follow_role(&mut self) {
        let now = (self.role(), self.term());
        assert!(now.1 >= self.seen.1, "terms do not fall: {now:?} after {:?}", self.seen);
        let deposed = self.seen.0 == Role::Leader && now.0 != Role::Leader;
        assert!(!deposed || !self.is_transferring(), "who does not lead hands nothing over");
        assert!(!self.leads() || self.leader() == Some(self.own()), "who leads knows it");
        if now != self.seen {
            self.seen = now;
            self.rounds.clear();
            self.node.raft.read_states.clear();
            self.draw_timeout();
        }
    }

    pub(super) fn draw_timeout(&mut self) {
        if let Some(timer) = &mut self.timer {
            let ticks = timer.draw();
            self.node.raft.set_randomized_election_timeout(ticks);
        }
    }

    /// A leader lets itself be heard by all, in whatever state it believes them: what was lost is repaired by the
    /// answers.
    pub fn ping(&mut self) {
        self.node.ping();
    }

    /// What was sent to a peer may be lost. A [`Group::ping`] asks how far it is.
    pub fn report_unreachable(&mut self, peer: RaftId) {
        self.node.report_unreachable(peer.get());
    }

    /// Begins to hand over to a voter, and says whether it has. Nothing is proposed until it is done or called off,
    /// which is the owner's to do: what asks the other to stand may be lost.
    pub fn transfer_leader(&mut self, to: RaftId) -> bool {
        if self.leads() && to != self.own() && self.peers.newest().voters.contains(&to) {
            let had = self.is_transferring();
            self.node.transfer_leader(to.get());
            assert!(had || self.is_transferring(), "a hand-over to a voter begins");
        }
        self.node.raft.lead_transferee == Some(to.get())
    }

    pub fn abort_transfer(&mut self) {
        self.node.raft.abort_leader_transfer();
    }

    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// Whether the group has committed something of its term; before, no leader knows what is committed.
    pub fn committed_to_current_term(&self) -> bool {
        self.node.raft.commit_to_current_term()
    }

    /// Begins to make sure that this peer leads, and says whether it has begun. [`Group::take_rounds`] has the round
    /// once a quorum has answered; lost answers come again with [`Group::ping`], and a change of role or term drops
    /// the round unsaid.
    pub fn begin_round(&mut self, round: RoundId) -> bool {
        let is_new = self.last_round.is_none_or(|last| last < round);
        assert!(is_new, "no round is begun twice: {round:?} after {:?}", self.last_round);
        if !self.leads() || !self.committed_to_current_term() {
            return false;
        }
        self.last_round = Some(round);
        self.node.read_index(context_of(Some(round)));
        true
    }

    /// The rounds that are confirmed: this peer led when they began.
    pub fn take_rounds(&mut self) -> Vec<RoundId> {
        self.collect_rounds();
        std::mem::take(&mut self.rounds)
    }

    pub(super) fn collect_rounds(&mut self) {
        for state in std::mem::take(&mut self.node.raft.read_states) {
            let round = round_of(&state.request_ctx).expect("a round has an id");
            assert!(self.last_round >= Some(round), "what is confirmed was begun: {round:?}");
            assert!(self.rounds.last() < Some(&round), "rounds are confirmed in their order: {round:?}");
            assert!(Index(state.index) <= self.committed(), "a round began at what was committed");
            self.rounds.push(round);
        }
    }

    /// What the leader knows of the others: up to where their logs match its own, and whether they were heard since
    /// the last check of the quorum. Empty where this peer does not lead.
    pub fn progress(&self) -> impl Iterator<Item = (RaftId, Index, bool)> + '_ {
        let last = self.last_index();
        let all = self.leads().then(|| self.node.raft.prs().iter());
        let others = all.into_iter().flatten().filter(|(id, _)| **id != self.node.raft.id);
        others.map(move |(id, progress)| {
            let id = RaftId::new(*id).expect("no peer is 0");
            assert!(Index(progress.matched) <= last, "nobody agrees on more than the leader has: {id:?}");
            (id, Index(progress.matched), progress.recent_active)
        })
    }

    /// Whether those peers of which something holds are a quorum, this one counted as well.
    pub fn is_quorum(&self, holds: impl Fn(RaftId) -> bool) -> bool {
        let (peers, own) = (self.node.raft.prs(), self.node.raft.id);
        let ids = peers.conf().voters().ids();
        let of = ids.iter().filter(|id| *id == own || RaftId::new(*id).is_some_and(&holds)).collect();
        peers.has_quorum(&of)
    }

    /// Whether this peer is the only one of its group, so that what it says is so.
    pub fn is_alone(&self) -> bool {
        let peers = self.peers.newest();
        peers.learners.is_empty() && peers.voters == [self.own()]
    }

    /// Whether no other peer votes. Some may learn.
    pub fn votes_alone(&self) -> bool {
        self.peers.newest().voters == [self.own()]
    }

    /// Whether another peer lacks some of the leader's log, as far as it has answered.
    pub fn someone_lags(&self) -> bool {
        let last = self.last_index();
        self.progress().any(|(_, matched, _)| matched < last)
    }

    /// The leader says otherwise than by an append that its group has committed up to a position. Says whether the
    /// group's commit is there: not where another entry or none stands there.
    pub fn commit_to(&mut self, at: Position) -> bool {
        if at.index > self.committed() && self.role() == Role::Follower && self.term() > Term(0) {
            self.node.raft.raft_log.maybe_commit(at.index.0, at.term.0);
        }
        let committed = self.committed();
        assert!(committed <= self.last_index(), "what is committed is there");
        at.index <= committed && self.term_of(at.index).is_none_or(|own| own == at.term)
    }
}
