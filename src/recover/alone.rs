//! A member that goes on alone, because all others are lost for ever (`--force-new-cluster`).
//!
//! **The question.** A group commits nothing without a majority, and the majority is gone. What this member has is all
//! that there is: of some of it it does not know whether it was committed, and of what the others have settled it may
//! lack something, in one log and not in another. What counts, and how does a process that dies over it go on?
//!
//! **The rule.** All that stands in the member's logs counts as committed, for whoever could say otherwise is gone. Behind
//! it each log gets the entries that take all other peers out of its group, which count as committed too: so the
//! member is the only voter of each, and from there on everything goes its usual way. The takeover that follows finds
//! the longest run of whole revisions and voids what stands above it. What the others are known to have settled beyond
//! that is not missed: it is lost. What a checkpoint holds cannot be voided: where the run does not reach that far, as
//! where the member was being given states, this member is refused, and nothing is changed.
//!
//! The identity says that this is to be done before anything of it is written, and says it until an epoch serves and
//! the control state knows of no other member. A start that finds it so does it all again. That is the same each
//! time, since nothing is served before.
//!
//! All new entries are of one term, which is above every term and every epoch that any log names: what another leader
//! has fenced in one group need not have come to the log of the control shard.
//!
//! **Why not otherwise.** Peers that a start is told beside the log would have to be told to every later start, and the
//! changes of peers that stand in the log would be made on top of them. To drop what is not known to be committed, as
//! etcd does, would lose what clients were told.

use super::{MemberPlan, MovingRecord, RESTORE, ShardPlan};
use crate::log::{Record, RecoveredEntry, StoredHardState};
use crate::raft::{Content, GroupEntry};
use crate::record::{ConfChange, Entry, Payload};
use crate::takeover::{Holding, LogView, longest_run};
use crate::types::{Index, Peers, RaftId, Revision, ShardId, Term};
use std::collections::BTreeSet;

impl MemberPlan {
    /// Whether this member's peer is the only one of each of its groups.
    pub fn is_alone(&self) -> bool {
        self.shards().all(|plan| plan.others().is_empty() && plan.votes())
    }

    /// Makes the member the only one, and says up to which revision it has everything. An error says why it cannot be,
    /// and nothing has changed.
    pub fn stand_alone(&mut self) -> Result<Revision, String> {
        self.check_has_all()?;
        let (mut holdings, mut newest) = (vec![], Term(0));
        for plan in self.shards() {
            let view = plan.view()?;
            let of_log = plan.resident.hard.term.max(view.last().term);
            newest = newest.max(of_log).max(view.newest_epoch().term);
            let (shard, log) = (plan.shard, plan.log);
            holdings.push(Holding { shard, log, held: view.held(), parts: view.parts() });
        }
        let prefix = longest_run(Revision::NONE, &holdings).map_err(|hole| {
            refused(&format!(
                "some of its shards hold later revisions for good, and of revision {} it lacks a part, as where it \
                 was being given what it had missed",
                hole.revision
            ))
        })?;
        for reactor in &mut self.reactors {
            reactor.log.begin_at(Revision::NONE);
            reactor.shards.iter_mut().for_each(|plan| plan.stand_alone(Term(newest.0 + 1)));
        }
        (self.settled, self.rested) = (Revision::NONE, None);
        assert!(self.is_alone(), "no group has another peer");
        Ok(prefix)
    }

    fn shards(&self) -> impl Iterator<Item = &ShardPlan> {
        self.reactors.iter().flat_map(|reactor| &reactor.shards)
    }

    /// Refuses a member that has joined and was not given all of its cluster yet.
    fn check_has_all(&self) -> Result<(), String> {
        let has: BTreeSet<ShardId> = self.shards().map(|plan| plan.shard).collect();
        let states = self.shards().filter_map(|plan| plan.chain.as_ref()?.meta().control.as_ref());
        let mut cuts = states.flat_map(|state| &state.cuts);
        let begins_with_nothing = |plan: &ShardPlan| plan.resident.base().0 == Index(0);
        if self.shards().any(begins_with_nothing) || !cuts.all(|cut| has.contains(&ShardId(cut.shard))) {
            return Err(refused("it was added to its cluster, and was not given all of the data yet"));
        }
        Ok(())
    }
}

fn refused(why: &str) -> String {
    format!(
        "--force-new-cluster cannot begin a cluster of this member: {why}. Nothing was changed: take another member, or \
         {RESTORE}"
    )
}

impl ShardPlan {
    /// The group's peers behind the last entry.
    fn peers_at_end(&self) -> Peers {
        let mut peers = self.peers();
        let changes = self.resident.entries.iter().filter_map(|entry| {
            let content = Content::of(entry.kind, &entry.payload)?;
            content.conf_change()
        });
        changes.for_each(|change| follow(&mut peers, change));
        peers
    }

    fn votes(&self) -> bool {
        self.peers_at_end().voters.contains(&self.resident.opening.own)
    }

    fn others(&self) -> Vec<RaftId> {
        let Peers { voters, learners } = self.peers_at_end();
        let own = self.resident.opening.own;
        voters.into_iter().chain(learners).filter(|id| *id != own).collect()
    }

    /// What the log comes to, where all of it is committed.
    fn view(&self) -> Result<LogView, String> {
        let mut view = self.log_view();
        self.read_entries(&mut view)?;
        let last = view.last().index;
        while view.read_next(last).map_err(|inconsistent| inconsistent.of_shard(self.shard))?.is_some() {}
        Ok(view)
    }

    /// What stands in the log is committed, and behind it this peer is alone.
    fn stand_alone(&mut self, term: Term) {
        let own = self.resident.opening.own;
        let mut changes: Vec<ConfChange> = vec![];
        if !self.votes() {
            changes.push(ConfChange::AddVoter(own.get()));
        }
        changes.extend(self.others().into_iter().map(|id| ConfChange::Remove(id.get())));
        assert!(term > self.resident.last().1, "what is new is of a later term: {term}");
        for change in &changes {
            let content = Content::ConfChange(Payload::of(&Entry::ConfChange(*change)));
            let payload = content.payload().expect("a change of peers has one").clone();
            let index = self.resident.last().0.next();
            self.resident.entries.push(RecoveredEntry { index, term, kind: content.kind(), payload });
        }
        let commit = self.resident.last().0;
        self.resident.hard = StoredHardState { term, vote: None, commit };
        self.resident.coverage = None;
        self.new_entries = Some(changes.len());
    }

    /// The records that make it so, where the shard stays in its log.
    pub(super) fn alone_records(&self, entries: &[GroupEntry]) -> Vec<MovingRecord> {
        let Some(count) = self.new_entries else { return vec![] };
        let new = entries[entries.len() - count..].iter().cloned().map(MovingRecord::Entry);
        new.chain([MovingRecord::Plain(Record::HardState(self.resident.hard))]).collect()
    }
}

fn follow(peers: &mut Peers, change: ConfChange) {
    let Some(id) = change.peer() else { return };
    peers.voters.retain(|of| *of != id);
    peers.learners.retain(|of| *of != id);
    match change {
        ConfChange::AddVoter(_) => peers.voters.push(id),
        ConfChange::AddLearner(_) => peers.learners.push(id),
        ConfChange::Remove(_) => {}
    }
}
