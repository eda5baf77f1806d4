//! What a member of a cluster writes once nothing changes any more, so that it can show the same after a restart
//! though nobody leads.
//!
//! **The question.** A member that comes back alone does not know which of its log's entries are committed. What may it
//! show, and never less than it has shown before?
//!
//! **The rule.** When what is settled has stood for a moment, every reactor writes of each of its shards: everything up
//! to this revision stands at or before this entry, which is committed. From then on its log *rests*: no commit is
//! followed beyond what the records say before something behind them is durable here, an entry or the hard state
//! once more. Nor is more shown than they say before that is so of the control shard's log: what is covered last may
//! have been committed before the records, and settled later. So at a start the records say all that can have been shown, where each is the last that its log says of
//! its shard. Where something follows, only a leader can say what became of it.
//!
//! **Why not otherwise.** To write them whenever something settles would cost each member a second log write for each
//! write of a client's.

use super::shards::{LocalShard, Shards};
use super::storage::Storage;
use super::turn::Turn;
use crate::limits::REST_AFTER_MS;
use crate::log::CoverageRecord;
use crate::types::{Duration, Revision, Time};

/// How long what is settled has stood.
#[derive(Debug, Default)]
pub(super) struct Rest {
    settled: Revision,
    since: Time,
    /// What the last records say.
    recorded: Revision,
}

impl Rest {
    fn waits(&self, turn: &Turn, storage: &Storage) -> bool {
        let is_news = *turn.settled > self.recorded || !storage.says_rest();
        turn.epoch_state.is_settled() && !turn.is_alone() && is_news
    }

    /// Writes the records, where it is time and the logs allow it. Not while more is about to be shown.
    pub fn take_turn(&mut self, turn: &Turn, shards: &Shards, storage: &mut Storage, shows_more: bool) {
        if !self.waits(turn, storage) {
            return;
        }
        // What other reactors have settled, or show, this one has to have heard of.
        if *turn.settled != self.settled || *turn.settled != turn.settled_truth() {
            (self.settled, self.since) = (*turn.settled, turn.now);
        }
        let group = |local: &LocalShard| {
            let group = local.shard.group();
            let is_read = local.shard.log_view().committed().index == group.committed();
            is_read && group.persisted_index() >= group.committed()
        };
        // A state that is ahead of what is shown cannot be shown as it was.
        let is_ahead = shards.ahead(*turn.settled) > *turn.settled;
        if is_ahead || shows_more || !shards.all().all(group) {
            self.since = turn.now;
        }
        if turn.now.since(self.since) < REST_AFTER {
            return;
        }
        assert!(
            self.settled >= self.recorded,
            "records do not fall: {} after {}",
            self.settled,
            self.recorded
        );
        assert!(self.settled <= turn.settled_truth(), "a log rests on what is settled");
        for local in shards.all() {
            let group = local.shard.group();
            assert!(group.persisted_index() >= group.committed(), "what rests is durable");
            let record = CoverageRecord { revision: self.settled, index: local.shard.group().committed() };
            storage.rest(local.shard.id, local.shard.home, record);
        }
        self.recorded = self.settled;
    }

    pub fn wake_at(&self, turn: &Turn, storage: &Storage) -> Time {
        if self.waits(turn, storage) { self.since + REST_AFTER } else { Time::NEVER }
    }
}

const REST_AFTER: Duration = Duration::from_ms(REST_AFTER_MS);
