//! Where an epoch stands at this reactor: one value, changed in one place.
//!
//! An epoch is this member's own: it takes over, and then it leads. While none is under way the member follows,
//! where another one leads. Whether this one leads, whether it knows a leader, and whether it may read, show, write or
//! take on more to be written are six questions, and each is asked by its name.

use crate::types::{Epoch, MemberId, Term};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EpochStage {
    /// No epoch is under way: the mail of the last one counts no more, and the next one has no name yet. What
    /// another member leads is followed.
    Over,
    /// The control shard's fence is on its way. Only its reactor gets here.
    Begun,
    /// Fences of all shards are on their way.
    Fencing,
    /// They are committed, and the coordinator knows what the shards hold.
    Fenced,
    /// Seals are on their way; so many shards have theirs committed.
    Sealing {
        sealed: usize,
    },
    /// All shards have theirs.
    Sealed,
    Serving,
}

/// Whether the leadership is being handed over, by order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handing {
    No,
    /// What is under way is done, and nothing new is begun.
    Draining,
    /// Another member is asked to stand: the control shard's group takes no proposal.
    Transferring,
}

#[derive(Debug)]
pub(super) struct EpochState {
    stage: EpochStage,
    handing: Handing,
    /// The one under way, or the last one.
    epoch: Epoch,
    /// A group of this reactor was lost in this epoch, and the coordinator knows.
    is_lost: bool,
    /// Epochs that have served since the start.
    served: u64,
    /// How often another member was found to lead.
    followed: u64,
    /// The term of the control shard's group.
    term: Term,
    /// The other member that leads, from when its epoch is known to serve.
    follows: Option<MemberId>,
    /// What another member has settled was shown here.
    has_shown: bool,
}

impl EpochState {
    pub fn new() -> EpochState {
        EpochState {
            stage: EpochStage::Over,
            handing: Handing::No,
            epoch: Epoch::default(),
            is_lost: false,
            served: 0,
            followed: 0,
            term: Term(0),
            follows: None,
            has_shown: false,
        }
    }

    pub fn stage(&self) -> EpochStage {
        self.stage
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How often this member has learned who leads since the start, itself included.
    pub fn leader_changes(&self) -> u64 {
        self.served + self.followed
    }

    /// Whether linearizable reads are answered.
    pub fn may_read(&self) -> bool {
        self.stage == EpochStage::Serving
    }

    /// Whether what was shown once may be shown: watches, and reads that need not be the newest.
    pub fn may_watch(&self) -> bool {
        self.served > 0 || self.has_shown
    }

    /// Whether the stores hold what is shown and nothing undecided below it: not while a takeover decides.
    pub fn is_settled(&self) -> bool {
        self.may_write() || self.may_follow() && self.may_watch()
    }

    /// Whether what another member settles is followed here. Not while this one takes over: what its logs hold is
    /// being decided.
    pub fn may_follow(&self) -> bool {
        self.stage == EpochStage::Over
    }

    /// Whether writes are evaluated and proposed.
    pub fn may_write(&self) -> bool {
        self.stage == EpochStage::Serving
    }

    /// Whether requests are taken on that only the leader does. While it hands over they wait.
    pub fn takes_writes(&self) -> bool {
        self.may_write() && self.handing == Handing::No
    }

    /// Whether control entries are proposed.
    pub fn may_propose_control(&self) -> bool {
        self.may_write() && self.handing != Handing::Transferring
    }

    /// Whether what is under way is to be done before the leadership is another member's.
    pub fn is_draining(&self) -> bool {
        self.may_write() && self.handing != Handing::No
    }

    /// A hand-over begins, goes on, or has come to nothing. With the epoch it ends by itself.
    pub fn hand(&mut self, handing: Handing) {
        assert!(self.leads(), "only who leads hands over");
        let goes_on = handing != Handing::Transferring || self.handing == Handing::Draining;
        assert!(goes_on, "nothing is handed over before it is drained");
        self.handing = handing;
    }

    /// Whether this member leads the cluster.
    pub fn leads(&self) -> bool {
        self.stage == EpochStage::Serving
    }

    /// The member that leads, where it is another one.
    pub fn follows(&self) -> Option<MemberId> {
        self.follows.filter(|_| self.may_follow())
    }

    /// Whether this member knows who leads the cluster.
    pub fn knows_leader(&self) -> bool {
        self.leads() || self.follows().is_some()
    }

    /// The term of the control shard's group, as this reactor has heard.
    pub fn term(&self) -> Term {
        self.term.max(self.epoch.term)
    }

    /// The control shard's group is in this term, and that member leads in it and serves.
    pub fn hear_of_leader(&mut self, term: Term, leader: Option<MemberId>) {
        assert!(term >= self.term, "terms do not fall: {term} after {}", self.term);
        assert!(leader.is_none() || self.may_follow(), "who takes over, or leads, follows nobody");
        self.followed += u64::from(leader.is_some() && leader != self.follows);
        (self.term, self.follows) = (term, leader);
    }

    /// Something that another member has settled is shown.
    pub fn show(&mut self) {
        assert!(self.may_follow(), "who leads shows what it settles itself");
        self.has_shown = true;
    }

    /// Whether there was a leader and now there is none: then calls that require one are refused. Before the first
    /// epoch they wait, as every request to an etcd that starts waits until that has found its leader.
    pub fn has_lost_leader(&self) -> bool {
        self.may_watch() && !self.knows_leader()
    }

    /// Whether mail of this epoch may change anything here.
    pub fn takes_mail_of(&self, epoch: Epoch) -> bool {
        self.stage != EpochStage::Over && epoch == self.epoch
    }

    /// A group is lost: true for the first one that is in this epoch.
    pub fn lose(&mut self) -> bool {
        !std::mem::replace(&mut self.is_lost, true)
    }

    /// An epoch goes a step on, or is over. Each step follows from the one before it.
    pub fn go(&mut self, epoch: Epoch, to: EpochStage) {
        let (from, same) = (self.stage, epoch == self.epoch);
        let follows = match to {
            EpochStage::Over => same,
            EpochStage::Begun => from == EpochStage::Over && epoch > self.epoch,
            // The other reactors first hear of an epoch by this.
            EpochStage::Fencing => {
                (from == EpochStage::Begun && same) || (from == EpochStage::Over && epoch > self.epoch)
            }
            EpochStage::Fenced => from == EpochStage::Fencing && same,
            EpochStage::Sealing { sealed: 0 } => from == EpochStage::Fenced && same,
            EpochStage::Sealing { sealed } => from == EpochStage::Sealing { sealed: sealed - 1 } && same,
            EpochStage::Sealed => matches!(from, EpochStage::Sealing { .. }) && same,
            EpochStage::Serving => from == EpochStage::Sealed && same,
        };
        assert!(follows, "an epoch goes from {from:?} of {} to {to:?} of {epoch}", self.epoch);
        // What was lost between two epochs, or before all groups fence, is campaigned for anew.
        if matches!(to, EpochStage::Over | EpochStage::Begun | EpochStage::Fencing) {
            self.is_lost = false;
        }
        self.served += u64::from(to == EpochStage::Serving);
        (self.stage, self.epoch, self.handing) = (to, epoch, Handing::No);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    fn epoch(term: u64) -> Epoch {
        Epoch { term: Term(term), ..Epoch::default() }
    }

    fn serving() -> EpochState {
        let mut state = EpochState::new();
        let steps = [
            EpochStage::Begun,
            EpochStage::Fencing,
            EpochStage::Fenced,
            EpochStage::Sealing { sealed: 0 },
            EpochStage::Sealing { sealed: 1 },
            EpochStage::Sealed,
            EpochStage::Serving,
        ];
        for step in steps {
            assert!(!state.may_write() && !state.may_read() && !state.leads());
            state.go(epoch(1), step);
        }
        state
    }

    #[test]
    fn an_epoch_that_serves_takes_its_mail_until_it_is_over() {
        let mut state = serving();
        assert!(state.may_write() && state.may_watch() && state.takes_mail_of(epoch(1)));
        assert!(!state.takes_mail_of(epoch(2)));
        assert!(state.lose() && !state.lose());
        state.go(epoch(1), EpochStage::Over);
        assert!(!state.may_write() && state.may_watch() && !state.takes_mail_of(epoch(1)));
        assert!(state.lose(), "the next one can be lost");
        state.go(epoch(2), EpochStage::Fencing);
        assert_eq!((state.epoch(), state.leader_changes()), (epoch(2), 1));
    }

    #[test]
    fn each_leader_that_is_found_is_a_change() {
        let mut state = serving();
        state.go(epoch(1), EpochStage::Over);
        for (term, leader, changes) in
            [(2, None, 1), (3, Some(7), 2), (4, Some(7), 2), (5, Some(8), 3), (6, None, 3), (7, Some(8), 4)]
        {
            state.hear_of_leader(Term(term), leader.map(MemberId));
            assert_eq!((state.leader_changes(), state.knows_leader()), (changes, leader.is_some()), "{term}");
        }
    }

    #[test]
    #[should_panic(expected = "an epoch goes from Fencing")]
    fn a_step_that_is_left_out_is_noticed() {
        let mut state = EpochState::new();
        state.go(epoch(1), EpochStage::Fencing);
        state.go(epoch(1), EpochStage::Sealing { sealed: 0 });
    }

    #[test]
    #[should_panic(expected = "an epoch goes from Over")]
    fn an_epoch_does_not_begin_twice() {
        let mut state = serving();
        state.go(epoch(1), EpochStage::Over);
        state.go(epoch(1), EpochStage::Fencing);
    }
}
