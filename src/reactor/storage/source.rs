//! What checkpoints are made of and who lags, as the storage sees it.

use super::laggards::FollowerFigures;
use crate::log::Resident;
use crate::mvcc::{Budget, History, PinId};
use crate::raft::{EntriesWanted, GroupEntry, Installing, Position};
use crate::recover::ArrivedState;
use crate::takeover::{InconsistentEntry, Ruling};
use crate::types::{At, Epoch, Index, Peers, RaftId, Revision, ShardId};

/// The shards of a reactor.
pub trait Source {
    /// Bytes of all that the shards hold, and of the one that holds most.
    fn bytes_sum(&self) -> u64;
    fn bytes_max(&self) -> Option<u64>;
    fn bytes_of(&self, shard: ShardId) -> u64;
    /// Where a checkpoint of the settled state would stand.
    fn position(&self, shard: ShardId) -> Option<Position>;
    /// Holds the settled state; none where no checkpoint can stand now.
    fn hold(&mut self, shard: ShardId, settled: Revision) -> Option<HeldState>;
    /// Changes behind a place, of a state that is held: all of it, or what has changed since an earlier one.
    fn slice(&self, shard: ShardId, of: PinId, is_delta: bool, after: At, budget: Budget) -> History;
    /// The state is written.
    fn written(&mut self, shard: ShardId, of: PinId, is_delta: bool);
    fn let_go(&mut self, shard: ShardId, of: PinId);
    /// What followers of the groups that are led here lack and only the log has, who lacks most first.
    fn wanted_entries(&self) -> Vec<(Resident, EntriesWanted)>;
    fn give_entries(&mut self, shard: ShardId, after: Position, entries: Vec<GroupEntry>);
    /// The log has nothing up to the index to give.
    fn log_begins_after(&mut self, shard: ShardId, index: Index);
    /// The shards whose groups others may lead.
    fn led_elsewhere(&self) -> Vec<Resident>;
    /// The peers of groups that are led here which lack what this log has no more, and the index that it begins behind.
    fn lacking_state(&self) -> Vec<(ShardId, RaftId, Index)>;
    /// Of a shard that lives here: its stay, and up to where its group is committed.
    fn stands(&self, shard: ShardId) -> Option<(u32, Index)>;
    /// Whether a state takes the place of what is here.
    fn installing(&self, shard: ShardId, arrived: &ArrivedState) -> Installing;
    /// The shard's log begins anew behind the state. Its store is exchanged for the state's once what is shown here has
    /// reached that, or this member takes over.
    fn install(&mut self, shard: ShardId, arrived: ArrivedState) -> Result<(), InconsistentEntry>;
    /// How far the followers are of the groups that are led here.
    fn followers(&self) -> Vec<FollowerFigures>;
}

/// A state that is held, and what is known of it.
pub struct HeldState {
    pub pin: PinId,
    pub home: u32,
    pub position: Position,
    pub compacted: Revision,
    /// As of the position's index.
    pub ruling: Ruling,
    pub peers: Peers,
    /// The newest epoch that the shard's log has sealed.
    pub epoch: Epoch,
    /// Whether a delta of it has to name keys that are gone.
    pub has_graves: bool,
}
