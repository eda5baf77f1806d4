//! What checkpoints are made of.

use super::super::storage::{HeldState, Source};
use super::Shards;
use crate::mvcc::{Budget, History, PinId};
use crate::raft::Position;
use crate::types::{At, Revision, ShardId};

impl Source for Shards {
    fn bytes_sum(&self) -> u64 {
        self.of.values().map(|local| local.shard.store.sizes().bytes_total).sum()
    }

    fn bytes_max(&self) -> Option<u64> {
        self.of.values().map(|local| local.shard.store.sizes().bytes_total).max()
    }

    fn bytes_of(&self, shard: ShardId) -> u64 {
        self.of[&shard].shard.store.sizes().bytes_total
    }

    fn position(&self, shard: ShardId) -> Option<Position> {
        self.of.get(&shard)?.shard.checkpoint_position()
    }

    fn hold(&mut self, shard: ShardId, settled: Revision) -> Option<HeldState> {
        let shard = &mut self.local_mut(shard).shard;
        assert!(settled <= shard.store.settled(), "a checkpoint holds nothing that may be undone");
        let group = shard.group();
        if group.applied() < group.committed() {
            return None; // The state may hold entries behind the position that raft would let it name.
        }
        let position = shard.checkpoint_position()?;
        assert!(position.index <= shard.group().applied(), "a checkpoint's index is applied: {position:?}");
        let (ruling, peers) = shard.as_of(position.index);
        let (peers, epoch) = (peers.clone(), shard.log_view().seal().epoch);
        Some(HeldState {
            pin: shard.store.pin(settled),
            home: shard.home,
            position,
            compacted: shard.store.compacted(),
            ruling,
            peers,
            epoch,
            has_graves: shard.store.has_graves(),
        })
    }

    fn slice(&self, shard: ShardId, of: PinId, is_delta: bool, after: At, budget: Budget) -> History {
        let store = &self.of[&shard].shard.store;
        match is_delta {
            true => store.changes_pinned(of, after, budget),
            false => store.state_pinned(of, after, budget),
        }
    }

    fn written(&mut self, shard: ShardId, of: PinId, is_delta: bool) {
        let store = &mut self.local_mut(shard).shard.store;
        match is_delta {
            true => store.checkpointed_changes(of),
            false => store.checkpointed_whole(of),
        }
    }

    fn let_go(&mut self, shard: ShardId, of: PinId) {
        self.local_mut(shard).unpin(of);
    }
}
