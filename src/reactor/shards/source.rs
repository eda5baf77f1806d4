//! What checkpoints are made of, and who lags.

use super::super::storage::{FollowerFigures, HeldState, Source};
use super::{LocalShard, Shards};
use crate::log::Resident;
use crate::mvcc::{Budget, History, PinId};
use crate::raft::{EntriesWanted, GroupEntry, Installing, NEWCOMER_BASE, Position};
use crate::recover::ArrivedState;
use crate::takeover::InconsistentEntry;
use crate::types::{At, Index, RaftId, Revision, ShardId};

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
        self.of.get(&shard).filter(|local| local.arrived.is_none())?.shard.checkpoint_position()
    }

    fn hold(&mut self, shard: ShardId, settled: Revision) -> Option<HeldState> {
        let local = self.local_mut(shard);
        let shard = &mut local.shard;
        if local.arrived.is_some() || shard.log_view().held() > settled {
            return None; // The log goes on behind a later state than the store holds, or is shown.
        }
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

    fn wanted_entries(&self) -> Vec<(Resident, EntriesWanted)> {
        let wanted = self.of.values().flat_map(|local| {
            let wanted = local.shard.group().wanted_entries();
            wanted.into_iter().map(|wanted| (resident(local), wanted))
        });
        wanted.collect()
    }

    fn give_entries(&mut self, shard: ShardId, after: Position, entries: Vec<GroupEntry>) {
        self.shard_mut(shard).group_mut().give_entries(after, entries);
    }

    fn log_begins_after(&mut self, shard: ShardId, index: Index) {
        self.shard_mut(shard).group_mut().log_begins_after(index);
    }

    fn lacking_state(&self) -> Vec<(ShardId, RaftId, Index)> {
        let lacking = self.of.values().flat_map(|local| {
            let lacking = local.shard.group().lacking_state();
            lacking.into_iter().map(|(peer, after)| (local.shard.id, peer, after))
        });
        lacking.collect()
    }

    fn stands(&self, shard: ShardId) -> Option<(u32, Index)> {
        let shard = &self.of.get(&shard)?.shard;
        Some((shard.home, shard.group().committed()))
    }

    fn installing(&self, shard: ShardId, arrived: &ArrivedState) -> Installing {
        let shard = &self.of[&shard].shard;
        let (group, peers) = (shard.group(), arrived.peers());
        let is_new = group.last() == NEWCOMER_BASE;
        assert!(!is_new || group.committed() == NEWCOMER_BASE.index, "nothing is committed where nothing is");
        let is_of_us = is_new || peers.voters.contains(&group.own()) || peers.learners.contains(&group.own());
        let goes_back = arrived.revision() < shard.log_view().held().max(shard.store.settled());
        if is_of_us && !goes_back { group.installing(arrived.at()) } else { Installing::Never }
    }

    fn install(&mut self, shard: ShardId, arrived: ArrivedState) -> Result<(), InconsistentEntry> {
        // No more than this was said to be covered, so no more is shown before the state's revision is.
        let covered = self.covered();
        let local = self.local_mut(shard);
        if local.arrived.is_none() && shard != ShardId::CONTROL {
            let mut moves = vec![];
            local.shard.apply_upto(covered, &mut moves)?;
            local.follow_leases(&mut moves);
        }
        local.shard.install(arrived.at(), arrived.peers(), arrived.revision(), arrived.ruling());
        (local.arrived, local.is_installing) = (Some(arrived), true);
        Ok(())
    }

    fn led_elsewhere(&self) -> Vec<Resident> {
        let others = self.of.values().filter(|local| {
            let group = local.shard.group();
            !group.is_alone() && !group.leads()
        });
        others.map(resident).collect()
    }

    fn followers(&self) -> Vec<FollowerFigures> {
        let followers = self.of.values().flat_map(|local| {
            let (resident, group) = (resident(local), local.shard.group());
            let last = group.last_index();
            group.progress().map(move |(peer, matched, _)| {
                let term = group.term_of(matched).filter(|_| matched <= group.committed());
                FollowerFigures { resident, peer, matched, term, last }
            })
        });
        followers.collect()
    }
}

fn resident(local: &LocalShard) -> Resident {
    Resident { shard: local.shard.id, home: local.shard.home }
}
