//! The shards of a member that does not lead: they take over what the leader has settled.

use super::Shards;
use crate::limits::SHARDS_MAX;
use crate::raft::Position;
use crate::takeover::InconsistentEntry;
use crate::types::{Epoch, Revision, ShardId};

/// What a leader has said of some shards: everything up to the revision stands at or before the committed entry of
/// each. Those that are not named are as it last said in this epoch.
#[derive(Clone, Debug)]
pub struct Settled {
    pub epoch: Epoch,
    pub revision: Revision,
    pub commits: Vec<(ShardId, Position)>,
}

impl Shards {
    /// A leader has said this of those of the shards that the filter lets pass. Commits move with it.
    pub fn hear_settled(&mut self, said: &Settled, is_meant: impl Fn(ShardId) -> bool) {
        assert!(said.commits.is_sorted_by(|(a, _), (b, _)| a < b), "a shard is named once");
        self.hear_of_unmade(said, &is_meant);
        for local in self.of.values_mut().filter(|local| is_meant(local.shard.id)) {
            let named = said.commits.binary_search_by_key(&local.shard.id, |(shard, _)| *shard).ok();
            let committed = named.map(|place| said.commits[place].1);
            if let Some(at) = committed {
                self.touched.insert(local.shard.id);
                local.shard.group_mut().commit_to(at);
            }
            local.coverage.hear(said.epoch, said.revision, committed);
        }
    }

    fn hear_of_unmade(&mut self, said: &Settled, is_meant: impl Fn(ShardId) -> bool) {
        for (shard, at) in &said.commits {
            let is_unmade = !self.of.contains_key(shard) && is_meant(*shard);
            if is_unmade && (self.unmade.len() < SHARDS_MAX || self.unmade.contains_key(shard)) {
                self.unmade.entry(*shard).or_default().hear(said.epoch, said.revision, Some(*at));
            }
        }
        for (_, coverage) in self.unmade.iter_mut().filter(|(shard, _)| is_meant(**shard)) {
            coverage.hear(said.epoch, said.revision, None);
        }
    }

    /// Everything up to here may be shown, as far as these shards go. Without shards that is everything.
    pub fn covered(&mut self) -> Revision {
        let covered = self.of.values_mut().map(|local| {
            if local.is_installing {
                return local.coverage.covered(); // Its log does not say durably that it begins anew.
            }
            let group = local.shard.group();
            // What a quorum has and this disk has not would be gone with the process, and shown no more.
            let read = local.shard.log_view().committed().index;
            local.coverage.advance(read.min(group.persisted_index()));
            local.coverage.covered()
        });
        covered.min().unwrap_or(Revision(u64::MAX))
    }

    /// The log says durably that it begins anew behind another member's state.
    pub fn installed(&mut self, shard: ShardId) {
        self.local_mut(shard).is_installing = false;
    }

    /// The highest revision of a state that is ahead of what is shown here: nothing below it can be shown.
    pub fn ahead(&self, settled: Revision) -> Revision {
        let held = self.of.values().map(|local| local.shard.log_view().held());
        held.max().filter(|held| *held > settled).unwrap_or_default()
    }

    /// Takes over from the logs what is settled up to here.
    pub fn follow(&mut self, upto: Revision) -> Result<(), (ShardId, InconsistentEntry)> {
        let mut moves = vec![];
        for local in self.of.values_mut() {
            assert!(local.shard.effects_bytes() == 0, "who follows writes nothing of its own");
            if local.arrived.as_ref().is_some_and(|arrived| arrived.revision() <= upto) {
                local.exchange();
            }
            local.shard.apply_upto(upto, &mut moves).map_err(|strange| (local.shard.id, strange))?;
            local.follow_leases(&mut moves);
        }
        Ok(())
    }
}
