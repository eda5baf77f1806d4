//! What a member of a cluster writes once nothing changes any more, so that it can show the same after a restart
//! though nobody leads.
//!
//! **The question.** A member that comes back alone does not know which of its log's entries are committed. What may it
//! show, and never less than it has shown before?
//!
//! **The rule.** When what is settled has stood for a moment and each log ends with what is committed, every reactor
//! writes of each of its shards: everything up to this revision stands at or before this entry. At a start these
//! records count where each is the last that its shard's log says: then nothing can have been shown beyond them,
//! since who follows shows nothing before it is durable here, and who leads nothing before some entry behind the
//! records is. Where something follows, only a leader can say what became of it.
//!
//! **Why not otherwise.** To write them whenever something settles would cost each member a second log write for each
//! write of a client's.

use super::shards::Shards;
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
    fn waits(&self, turn: &Turn) -> bool {
        turn.epoch_state.is_settled() && !turn.is_alone() && *turn.settled > self.recorded
    }

    /// Writes the records, where it is time and the logs allow it.
    pub fn take_turn(&mut self, turn: &Turn, shards: &Shards, storage: &mut Storage) {
        if !self.waits(turn) {
            return;
        }
        if *turn.settled != self.settled {
            (self.settled, self.since) = (*turn.settled, turn.now);
        }
        let ends_committed = shards.all().all(|local| {
            let group = local.shard.group();
            group.committed() == group.last_index() && group.persisted_index() == group.last_index()
        });
        if !ends_committed {
            self.since = turn.now;
        }
        if turn.now.since(self.since) < REST_AFTER {
            return;
        }
        for local in shards.all() {
            let record = CoverageRecord { revision: self.settled, index: local.shard.group().last_index() };
            storage.rest(local.shard.id, local.shard.home, record);
        }
        self.recorded = self.settled;
    }

    pub fn wake_at(&self, turn: &Turn) -> Time {
        if self.waits(turn) { self.since + REST_AFTER } else { Time::NEVER }
    }
}

const REST_AFTER: Duration = Duration::from_ms(REST_AFTER_MS);
