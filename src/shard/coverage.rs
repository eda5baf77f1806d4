//! How far a shard of a member that does not lead may show what its log says.
//!
//! The leader says of a shard: all its revisions up to R stand at or before this entry, which is committed. That is
//! true for ever, whoever says it and whenever it comes. Once the log here holds that very entry, durably, the shard
//! is covered up to R.

use crate::raft::Position;
use crate::types::{Epoch, Index, Revision};
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub struct Coverage {
    /// The newest committed entry that the leader of this epoch has named.
    named: Option<(Epoch, Position)>,
    /// What was said and does not count yet. Revisions and indexes rise.
    said: VecDeque<(Revision, Index)>,
    covered: Revision,
}

impl Coverage {
    /// The leader of an epoch names its committed entry, where that is news since it last did, and what is settled.
    pub fn hear(&mut self, epoch: Epoch, revision: Revision, committed: Option<Position>) {
        if self.named.is_some_and(|(newest, _)| newest > epoch) {
            return;
        }
        let known = self.named.filter(|(of, _)| *of == epoch).map(|(_, at)| at);
        let Some(at) = committed.or(known) else { return };
        self.named = Some((epoch, at));
        match self.said.back_mut() {
            _ if revision <= self.covered => {}
            Some((last, _)) if revision <= *last => {}
            Some((last, index)) if at.index <= *index => *last = revision,
            _ => self.said.push_back((revision, at.index)),
        }
        let last = self.said.back();
        assert!(last.is_none_or(|(last, _)| *last > self.covered), "what is covered is not waited for");
    }

    /// The log holds everything up to this index, durably, and knows it to be committed.
    pub fn advance(&mut self, upto: Index) {
        while let Some((revision, _)) = self.said.pop_front_if(|(_, index)| *index <= upto) {
            assert!(revision > self.covered, "coverage rises: {revision} behind {}", self.covered);
            self.covered = revision;
        }
    }

    /// Everything up to here may be shown, as far as this shard goes.
    pub fn covered(&self) -> Revision {
        self.covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    fn epoch(term: u64) -> Epoch {
        Epoch { term: Term(term), attempt: 1 }
    }

    fn at(index: u64) -> Option<Position> {
        Some(Position { index: Index(index), term: Term(1) })
    }

    #[test]
    fn a_shard_is_covered_once_its_log_holds_the_entry_that_was_named() {
        let mut coverage = Coverage::default();
        coverage.hear(epoch(1), Revision(5), at(10));
        coverage.hear(epoch(1), Revision(7), None);
        coverage.hear(epoch(1), Revision(9), at(12));
        coverage.advance(Index(9));
        assert_eq!(coverage.covered(), Revision(0));
        coverage.advance(Index(11));
        assert_eq!(coverage.covered(), Revision(7), "an idle shard is covered by the entry named before");
        coverage.advance(Index(12));
        assert_eq!(coverage.covered(), Revision(9));
    }

    #[test]
    fn what_one_leader_named_says_nothing_of_what_another_settled() {
        let mut coverage = Coverage::default();
        coverage.hear(epoch(1), Revision(5), at(10));
        coverage.hear(epoch(2), Revision(8), None);
        coverage.advance(Index(20));
        assert_eq!(coverage.covered(), Revision(5));
        coverage.hear(epoch(2), Revision(8), at(15));
        coverage.advance(Index(20));
        assert_eq!(coverage.covered(), Revision(8));
    }

    #[test]
    fn what_an_older_leader_says_late_takes_nothing_back() {
        let mut coverage = Coverage::default();
        coverage.hear(epoch(2), Revision(8), at(15));
        coverage.hear(epoch(1), Revision(6), at(11));
        coverage.advance(Index(15));
        assert_eq!(coverage.covered(), Revision(8));
        coverage.hear(epoch(2), Revision(9), None);
        coverage.advance(Index(15));
        assert_eq!(coverage.covered(), Revision(9));
    }
}
