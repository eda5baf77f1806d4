//! A lease that ends, as the owners of its keys see it.

use super::{Shards, Turn};
use crate::io::{CallId, CallMail, LeaderMail, PartOf};
use crate::record::{Effect, EffectChange};
use crate::types::{LeaseId, ReactorId, ShardId};

impl Shards {
    /// From now on nothing here attaches keys to the lease; what it has it may lose.
    pub fn on_revoking(&mut self, turn: &mut Turn, call: CallId, lease: LeaseId) {
        // It is granted: the control shard's reactor has said so before.
        let marked = turn.control.leases.mark_revoking(lease);
        assert!(marked == Ok(true), "a lease is revoked once");
        self.revokes_asked.push((call, lease));
        self.answer_revokes(turn);
    }

    /// A transaction over several shards that found the lease before the mark may yet attach keys: its part
    /// comes first.
    pub(super) fn answer_revokes(&mut self, turn: &mut Turn) {
        for (call, lease) in std::mem::take(&mut self.revokes_asked) {
            if self.is_reserved_with(lease) {
                turn.counters.paths.revoke_waited_for_txn += 1;
                self.revokes_asked.push((call, lease));
            } else {
                let having = self.of.iter().filter(|(_, local)| local.attached.count(lease) > 0);
                let shards = having.map(|(id, _)| *id).collect();
                turn.send(ReactorId(0), LeaderMail::RevokingHas { call, shards });
            }
        }
    }

    pub fn on_lease_keys(&mut self, turn: &mut Turn, call: CallId, lease: LeaseId) {
        let shards = self.of.values();
        let keys = shards.flat_map(|local| local.attached.keys(lease).cloned()).collect();
        let seen = turn.sequencer.counter();
        turn.send(call.reactor, CallMail::LeaseKeysAre { call, keys, seen });
    }

    /// The control shard's part of the revision that deletes a lease's keys.
    pub fn end_lease_with(&mut self, lease: LeaseId, part: PartOf) {
        assert!(part.parts > 1, "a lease that ends with a revision has keys in some shard");
        let changes = vec![EffectChange::LeaseEnd { lease }];
        let effect = Effect { revision: part.revision, parts: part.parts, more: false, changes };
        self.shard_mut(ShardId::CONTROL).push_effect(effect);
    }
}
