//! What a checkpoint says beside the versions. As in `record`: a struct here is never changed once
//! released; a new one stands beside it under a new format version.

use super::CheckpointName;
use crate::record::{CutRecord, EpochRecord, MemberChange, MemberRecord};
use crate::types::{Peers, ShardId};
use rkyv::{Archive, Deserialize, Serialize};

/// What a shard knows of itself at revision R. What it says of the shard's log is so as of one index, that of
/// the entry before the first live write above R: of the log only what comes after is read again, and it is
/// read as what came before it ruled.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Meta {
    pub shard: u32,
    /// The number of the stay: which log the shard lives in.
    pub home: u32,
    /// The file's own number.
    pub file: u64,
    /// The files that this one goes on from, the base first; none: it is a base.
    pub chain: Vec<LinkRecord>,
    /// R: the state is that at exactly this revision, which is settled.
    pub revision: u64,
    /// The compaction in effect.
    pub compacted: u64,
    /// The index before the shard's first live write above R: the log goes on after it.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The group's peers as of that index, under their raft ids.
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// The last fence and the last seal as of that index.
    pub fence: EpochRecord,
    pub seal: EpochRecord,
    pub seal_prefix: u64,
    /// The newest epoch that the log had sealed when R was settled here: that of R, or a later one.
    pub epoch: EpochRecord,
    pub map_version: u64,
    /// What only the control shard knows.
    pub control: Option<ControlState>,
}

impl Meta {
    /// None where one of the numbers is no id: such a checkpoint is not read.
    pub fn peers(&self) -> Option<Peers> {
        Peers::of(&self.voters, &self.learners)
    }
}

/// A file that later ones go on from.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkRecord {
    pub home: u32,
    pub file: u64,
    pub revision: u64,
    /// Its length.
    pub bytes: u64,
    pub hash: u64,
}

impl LinkRecord {
    pub fn name(&self, shard: ShardId) -> CheckpointName {
        CheckpointName { shard, home: self.home, file: self.file }
    }
}

/// The state of the control shard.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct ControlState {
    /// The last entry that has changed it, at or before the checkpoint's index: whoever waits for an entry waits for
    /// one that changes something.
    pub index: u64,
    pub cluster: u64,
    pub token: String,
    /// With what they have published, and those that are joining or leaving.
    pub members: Vec<MemberRecord>,
    /// The changes of members under way.
    pub intents: Vec<IntentRecord>,
    /// The ids of members that have left: none of them comes back.
    pub removed: Vec<u64>,
    /// What every member's program knows.
    pub feature_level: u32,
    /// The shard map.
    pub cuts: Vec<CutRecord>,
    pub leases: Vec<LeaseRecord>,
    pub alarms: Vec<AlarmRecord>,
    /// The compaction asked for last: it may be ahead of the one in effect.
    pub compact_revision: u64,
}

/// An intent under way; the member's record says the rest.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntentRecord {
    pub member: u64,
    pub change: MemberChange,
}

#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRecord {
    pub lease: i64,
    pub ttl_secs: i64,
}

#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmRecord {
    pub member: u64,
    pub alarm: u8,
}
