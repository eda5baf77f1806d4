//! History in the order of revisions, a piece at a time, held as it is until the last.

use super::{Shards, Turn};
use crate::io::{CallId, CallMail};
use crate::mvcc::History;
use crate::types::{At, Revision, ShardId};

impl Shards {
    /// One piece of a shard's history, which stays as it is until the last.
    pub(super) fn give_history(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        shard: ShardId,
        after: At,
        upto: Revision,
    ) {
        let behind = upto > turn.settled;
        let local = self.of.get_mut(&shard).expect("the router knows whose shard it is");
        let store = &mut local.shard.store;
        let compacted = store.compacted();
        if (compacted > upto || behind) && !local.pins.contains_key(&call) {
            // Compacted above it, or an epoch that ends or begins is at another point here than there: the
            // asker sees that this is not its compaction, and begins anew.
            let history = History { changes: vec![], resume: after, done: true };
            let compacted = upto.next();
            return turn.send(call.reactor, CallMail::HistoryIs { call, shard, compacted, history });
        }
        let (pin, compacted) = *local.pins.entry(call).or_insert_with(|| (store.pin(upto), compacted));
        let history = store.history_pinned(pin, after, turn.settings.slice.of_changes());
        assert!(history.resume >= after, "history goes forward: to {:?} from {after:?}", history.resume);
        turn.counters.paths.history_sliced += u64::from(!history.done);
        if history.done {
            local.pins.remove(&call);
            local.unpin(pin);
        }
        turn.send(call.reactor, CallMail::HistoryIs { call, shard, compacted, history });
    }

    pub fn on_history_unwanted(&mut self, call: CallId, shard: ShardId) {
        self.slices.drop_of(call, shard);
        let local = self.of.get_mut(&shard).expect("the router knows whose shard it is");
        local.let_history_go(call);
    }
}
