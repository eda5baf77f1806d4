//! Hash and HashKV: one sum over the history of all shards in the order of revisions.
//!
//! Each compaction in between changes what there is to add up: then the sum begins anew.

use super::history::MergedHistory;
use super::{CallState, Calls, ReplyTo, Turn};
use crate::api::{Error, Reply};
use crate::io::{CallId, ShardMail};
use crate::mvcc::{HashKv, History};
use crate::types::{At, Revision, ShardId, Time};

/// A hash being made.
#[derive(Debug)]
pub(super) struct Hashing {
    sum: HashKv,
    upto: Revision,
    shown: i64,
    compacted: Revision,
    settled: Revision,
    history: MergedHistory,
    begun: Time,
    /// Hash takes HashKV's sum over everything; etcd asks no more of it than to be deterministic.
    whole: bool,
}

impl Calls {
    pub(super) fn hash(&mut self, turn: &mut Turn, reply_to: ReplyTo) {
        self.begin_hash(turn, reply_to, 0, true);
    }

    pub(super) fn hash_kv(&mut self, turn: &mut Turn, reply_to: ReplyTo, revision: i64) {
        self.begin_hash(turn, reply_to, revision, false);
    }

    fn begin_hash(&mut self, turn: &mut Turn, reply_to: ReplyTo, revision: i64, whole: bool) {
        let settled = turn.shown();
        let compacted = *turn.compacted;
        assert!(compacted <= settled, "only what is settled is compacted: {compacted} at {settled}");
        // etcd's law: 0 is the newest, and what is negative hashes nothing.
        if revision > 0 && revision < compacted.wire() {
            return self.reply(turn, reply_to, Err(Error::Compacted));
        }
        if revision > settled.wire() {
            return self.reply(turn, reply_to, Err(Error::FutureRevision));
        }
        let upto = match revision {
            0 => settled,
            named => Revision(u64::try_from(named).unwrap_or(0)),
        };
        let shown = if revision < 0 { revision } else { upto.wire() };
        // Below a compaction no shard could give its history, and nothing is wanted of it.
        let shards = turn.router().data_shards().filter(|_| revision >= 0);
        let history = MergedHistory::of(shards);
        let sum = HashKv::new(compacted);
        let begun = turn.now;
        let hashing = Hashing { sum, upto, shown, compacted, settled, history, begun, whole };
        let call = self.begin(turn, reply_to, CallState::Hashing(Box::new(hashing)));
        // It takes as long as the history is, and etcd has no deadline here either.
        self.under_way.keep(call);
        self.go_on_hashing(turn, call);
    }

    /// Adds what is there in order, asks for what is missing.
    fn go_on_hashing(&mut self, turn: &mut Turn, call: CallId) {
        let Some(under_way) = self.under_way.get_mut(call) else { return };
        let CallState::Hashing(hashing) = &mut under_way.state else {
            unreachable!("only hashes get history")
        };
        while let Some((at, change)) = hashing.history.next() {
            assert!(at.main <= hashing.upto, "history ends at the revision that is hashed: {at:?}");
            hashing.sum.add(at, &change);
        }
        let upto = hashing.upto;
        let missing: Vec<(ShardId, At)> = hashing.history.ask().collect();
        if hashing.history.is_used_up() {
            let (sum, settled) = (std::mem::replace(&mut hashing.sum, HashKv::new(upto)), hashing.settled);
            let (hash, compact_revision, whole) = (sum.finish(), hashing.compacted, hashing.whole);
            let hash_revision = hashing.shown;
            let took = turn.now.since(hashing.begun).0;
            let times = &mut turn.counters.times;
            if whole { &mut times.hashes } else { &mut times.hashes_at }.observe(took);
            let reply = if whole {
                Reply::Hash { revision: settled, hash }
            } else {
                Reply::HashKv { revision: settled, hash, compact_revision, hash_revision }
            };
            return self.finish(turn, call, Ok(reply));
        }
        for (shard, after) in missing {
            turn.send_to_owner(shard, ShardMail::History { call, shard, after, upto });
        }
    }

    pub fn on_history_is(
        &mut self,
        turn: &mut Turn,
        call: CallId,
        shard: ShardId,
        compacted: Revision,
        history: History,
    ) {
        let Some(under_way) = self.under_way.get_mut(call) else {
            return self.let_history_go(turn, call, shard, &history);
        };
        let CallState::Hashing(hashing) = &mut under_way.state else {
            unreachable!("only hashes get history")
        };
        if compacted != hashing.compacted {
            return self.hash_anew(turn, call);
        }
        hashing.history.add(shard, history);
        self.go_on_hashing(turn, call);
    }

    /// A compaction has come between the shards: the sum begins again, under the same name for the client.
    fn hash_anew(&mut self, turn: &mut Turn, call: CallId) {
        turn.counters.paths.hash_made_anew += 1;
        let Some(under_way) = self.under_way.remove(call) else { return };
        let CallState::Hashing(hashing) = under_way.state else { unreachable!("only hashes get history") };
        for shard in hashing.history.unfinished() {
            turn.send_to_owner(shard, ShardMail::HistoryUnwanted { call, shard });
        }
        let revision = if hashing.whole { 0 } else { hashing.shown };
        self.begin_hash(turn, under_way.reply_to, revision, hashing.whole);
    }

    /// The hash is gone: the shard need not hold its history any longer.
    fn let_history_go(&mut self, turn: &mut Turn, call: CallId, shard: ShardId, history: &History) {
        if !history.done {
            turn.send_to_owner(shard, ShardMail::HistoryUnwanted { call, shard });
        }
    }
}
