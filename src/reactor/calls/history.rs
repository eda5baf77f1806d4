//! The histories of all shards as one, in the order of revisions.
//!
//! Every shard holds its history as it is and gives it in slices; they are merged here by revision and sub. A slice
//! is asked for only when the one before is used up, so that what waits here is bounded by a slice per shard.

use crate::mvcc::{History, HistoryChange};
use crate::types::{At, ShardId};
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct MergedHistory {
    sources: Vec<ShardHistory>,
}

/// What has come of one shard's history and is not used up.
#[derive(Debug)]
struct ShardHistory {
    shard: ShardId,
    changes: VecDeque<(At, HistoryChange)>,
    /// Where its next slice begins.
    resume: At,
    /// No slice comes after those that came.
    done: bool,
    /// A slice is on its way.
    asked: bool,
}

impl MergedHistory {
    /// The histories of these shards from their beginning.
    pub fn of(shards: impl Iterator<Item = ShardId>) -> MergedHistory {
        let source = |shard| ShardHistory {
            shard,
            changes: VecDeque::new(),
            resume: At::default(),
            done: false,
            asked: false,
        };
        MergedHistory { sources: shards.map(source).collect() }
    }

    /// Returns the next change, as soon as that of every shard is known.
    pub fn next(&mut self) -> Option<(At, HistoryChange)> {
        if self.sources.iter().any(|source| !source.done && source.changes.is_empty()) {
            return None;
        }
        let next = self.sources.iter_mut().filter(|source| !source.changes.is_empty());
        next.min_by_key(|source| source.changes[0].0)?.changes.pop_front()
    }

    /// The shards whose next slices are to be asked for, and where these begin: each is named once.
    pub fn ask(&mut self) -> impl Iterator<Item = (ShardId, At)> {
        let sources = self.sources.iter_mut();
        let dry = sources.filter(|source| !source.done && !source.asked && source.changes.is_empty());
        dry.map(|source| {
            source.asked = true;
            (source.shard, source.resume)
        })
    }

    /// Takes in a slice that was asked for.
    pub fn add(&mut self, shard: ShardId, history: History) {
        let source = self.sources.iter_mut().find(|source| source.shard == shard);
        let source = source.expect("only shards that were asked answer");
        assert!(source.asked, "a slice comes once");
        let begins = history.changes.first().is_none_or(|(at, _)| *at > source.resume);
        assert!(begins, "a slice begins behind the one before");
        assert!(history.done || history.resume > source.resume, "a slice that is not the last goes on");
        source.changes.extend(history.changes);
        (source.resume, source.done, source.asked) = (history.resume, history.done, false);
    }

    /// Whether all of it has been taken.
    pub fn is_used_up(&self) -> bool {
        self.sources.iter().all(|source| source.done && source.changes.is_empty())
    }

    /// The shards that still hold their history for this.
    pub fn unfinished(&self) -> impl Iterator<Item = ShardId> {
        self.sources.iter().filter(|source| !source.done).map(|source| source.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Blob, Event, Revision, Sub};

    fn slice(revisions: &[u64], done: bool) -> History {
        let at = |main| At { main: Revision(main), sub: Sub(0) };
        let change = |main| {
            let event = Event::Delete { key: Blob::new(b"k"), mod_revision: Revision(main) };
            (at(main), HistoryChange { event, last: true })
        };
        let resume = revisions.last().map_or(At::default(), |last| at(*last));
        History { changes: revisions.iter().copied().map(change).collect(), resume, done }
    }

    fn taken(history: &mut MergedHistory) -> Vec<u64> {
        std::iter::from_fn(|| history.next()).map(|(at, _)| at.main.0).collect()
    }

    #[test]
    fn changes_come_in_the_order_of_revisions_and_none_before_all_shards_are_known() {
        let mut history = MergedHistory::of([1, 2].map(ShardId).into_iter());
        assert_eq!(history.ask().map(|(shard, _)| shard.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(history.ask().count(), 0, "each is asked once");
        history.add(ShardId(1), slice(&[2, 5, 6], false));
        assert_eq!(taken(&mut history), [0u64; 0]);
        history.add(ShardId(2), slice(&[3, 4], true));
        assert_eq!(taken(&mut history), [2, 3, 4, 5, 6]);
        assert!(!history.is_used_up());
        assert_eq!(history.unfinished().collect::<Vec<_>>(), [ShardId(1)]);
        let asked: Vec<_> = history.ask().collect();
        assert_eq!(asked, [(ShardId(1), At { main: Revision(6), sub: Sub(0) })]);
        history.add(ShardId(1), slice(&[7], true));
        assert_eq!(taken(&mut history), [7]);
        assert!(history.is_used_up() && history.unfinished().next().is_none());
    }
}
