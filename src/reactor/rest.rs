//! What a member of a cluster writes once nothing changes any more, so that it can show the same after a restart
//! though nobody leads.
//!
//! **The question.** A member that comes back alone does not know which of its log's entries are committed. What may it
//! show, and never less than it has shown before?
//!
//! **The rule.** When what is settled has stood for a moment, every reactor writes of each of its shards: everything up
//! to this revision stands at or before this entry, which is committed. The revision is what is settled, or what the
//! reactor has said to be covered where that is more. From then on its log *rests*: no commit is followed beyond what
//! the records say, and nothing more is said to be covered, before something behind them is durable here, an entry or
//! the hard state once more. So at a start, where each record is the last that its log says of its shard, no more can
//! have been shown than the lowest of them says, and that is there. A leader shows more without a word in the logs that
//! it does not concern; but then some log names it as settled, since a record is written again once more is shown than
//! when it was written. Where something follows a record, only a leader can say what became of it.
//!
//! **Why not otherwise.** To write them whenever something settles would cost each member a second log write for each
//! write of a client's.

use super::shards::{LocalShard, Shards};
use super::storage::Storage;
use super::turn::Turn;
use crate::limits::REST_AFTER_MS;
use crate::log::CoverageRecord;
use crate::types::{Duration, Revision, Time};

/// How long what would be recorded has stood.
#[derive(Debug, Default)]
pub(super) struct Rest {
    standing: Revision,
    since: Time,
    /// What the last records say, and what was shown then.
    recorded: Revision,
    shown: Revision,
}

impl Rest {
    fn waits(&self, turn: &Turn, storage: &Storage) -> bool {
        let is_news = *turn.settled > self.shown || !storage.says_rest();
        turn.epoch_state.is_settled() && !turn.is_alone() && is_news
    }

    /// Whether so much may be said to be covered: not what is more than the log says where it rests.
    pub fn lets_pass(&self, covered: Revision, storage: &Storage) -> bool {
        covered <= self.recorded || !storage.rests()
    }

    /// Writes the records, where it is time and the logs allow it. This much was said to be covered.
    pub fn take_turn(&mut self, turn: &Turn, shards: &mut Shards, storage: &mut Storage, said: Revision) {
        if !self.waits(turn, storage) {
            return;
        }
        if shards.all().next().is_none() {
            (self.recorded, self.shown) = (*turn.settled, *turn.settled); // there is nothing to say
            return;
        }
        let standing = said.max(*turn.settled);
        // What other reactors have settled, or show, this one has to have heard of.
        if standing != self.standing || *turn.settled != turn.settled_truth() {
            (self.standing, self.since) = (standing, turn.now);
        }
        let group = |local: &LocalShard| {
            let group = local.shard.group();
            let is_read = local.shard.log_view().committed().index == group.committed();
            is_read && group.persisted_index() >= group.committed()
        };
        // A state that is ahead of what is shown cannot be shown as it was.
        let is_ahead = shards.ahead(*turn.settled) > *turn.settled;
        if is_ahead || shards.covered() > standing || !shards.all().all(group) {
            self.since = turn.now;
        }
        if turn.now.since(self.since) < REST_AFTER {
            return;
        }
        assert!(standing >= self.recorded, "records do not fall: {standing} after {}", self.recorded);
        for local in shards.all() {
            let group = local.shard.group();
            assert!(group.persisted_index() >= group.committed(), "what rests is durable");
            let record = CoverageRecord { revision: standing, index: local.shard.group().committed() };
            storage.rest(local.shard.id, local.shard.home, record);
        }
        (self.recorded, self.shown) = (standing, *turn.settled);
    }

    pub fn wake_at(&self, turn: &Turn, storage: &Storage) -> Time {
        if self.waits(turn, storage) { self.since + REST_AFTER } else { Time::NEVER }
    }
}

const REST_AFTER: Duration = Duration::from_ms(REST_AFTER_MS);
