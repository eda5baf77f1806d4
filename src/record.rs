//! What stands in Raft entries, as rkyv values.
//!
//! A payload is one archived [`Entry`]. There is no schema evolution in rkyv: a struct here is never
//! changed once released; a new one stands beside it under a new `VERSION`, which the log's record header
//! carries with every payload.
//!
//! What an entry means for the log it stands in: `Seal{epoch, prefix}` voids the writes
//! before it whose revision is above the prefix; a batch whose epoch is not that of the last seal before
//! it is void.
//!
//! **Newer programs.** What this version cannot read shows in one of two places before any payload is looked
//! at. A record of another `VERSION` is refused by the log as another program's. And what a member may write is
//! bounded by the cluster's *feature level*, which stands in the control shard: it is raised once every member
//! runs a program that knows it, so a program that finds a higher one than [`FEATURE_LEVEL`] is too old for the
//! cluster, whatever it has met so far.

mod borrowed;
#[cfg(test)]
mod tests;

use crate::types::{Blob, Epoch, LeaseId, MemberId, RaftId, Revision, Sub, Term};
use borrowed::{AsNumber, AsVec};
use bytes::Bytes;
use rkyv::rancor::Error as Invalid;
use rkyv::ser::{Allocator, Writer};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The version of the structs below, as the log's record headers carry it.
pub const VERSION: u16 = 2;
/// The highest feature level of a cluster that this program can be a member of.
pub const FEATURE_LEVEL: u32 = 1;

/// One Raft entry's payload.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub enum Entry {
    Batch(Batch),
    Fence(EpochRecord),
    Seal {
        epoch: EpochRecord,
        prefix: u64,
    },
    /// With what was settled when it was proposed.
    Control {
        epoch: EpochRecord,
        settled: u64,
        control: ControlEntry,
    },
    /// Stands under a kind of its own in the log, since raft reads it too.
    ConfChange(ConfChange),
}

/// A change of a group's peers: one peer at a time, so that no configuration is joint. The numbers are raft
/// ids.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfChange {
    /// A new peer, or a learner that may vote from now on.
    AddVoter(u64),
    AddLearner(u64),
    Remove(u64),
}

/// An [`Epoch`] at rest.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochRecord {
    pub term: u64,
    pub attempt: u32,
}

/// Writes of one shard in one turn.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Batch {
    pub epoch: EpochRecord,
    /// The leader's `settled` when the batch was made: the base a takeover may start from.
    pub settled: u64,
    /// Revisions rise; pieces of one stand in a row.
    pub writes: Vec<Write>,
}

/// This shard's part of one revision, or a piece of it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Write {
    pub revision: u64,
    /// In how many shards the revision has a part.
    pub parts: u16,
    /// The part goes on in the log's next write: it is too large for one entry.
    pub more: bool,
    pub changes: Vec<Change>,
}

/// One change with its place inside the revision.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub enum Change {
    Put {
        sub: u32,
        key: Vec<u8>,
        value: Vec<u8>,
        lease: i64,
    },
    Delete {
        sub: u32,
        key: Vec<u8>,
    },
    /// Deletes every key that is live in `key..end` (an empty end: from the key on), of which there are
    /// `count`, in their order. What it deletes follows from the log before it, so many keys cost a line.
    DeleteRange {
        sub: u32,
        key: Vec<u8>,
        end: Vec<u8>,
        count: u32,
    },
    /// The lease ends with this revision (control shard only; it has no `sub`, it is no event).
    LeaseEnd {
        lease: i64,
    },
}

/// An entry of the control shard that takes no revision.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub enum ControlEntry {
    /// The first entry of a cluster: who it is and how its keys are cut.
    Bootstrap {
        cluster: u64,
        token: String,
        members: Vec<MemberRecord>,
        cuts: Vec<CutRecord>,
        feature_level: u32,
    },
    /// What a member publishes of itself at a start, where it has changed.
    MemberAttributes {
        member: u64,
        /// Its directory: see [`MemberRecord::directory`].
        directory: u64,
        name: String,
        client_urls: Vec<String>,
        /// Of its logs; those that are known already stay.
        raft_ids: Vec<RaftIdRecord>,
    },
    /// A change of the members begins.
    Intent(Intent),
    /// What this intent wants is so in every group. Member and change name one intent for ever.
    IntentDone {
        member: u64,
        change: MemberChange,
    },
    /// Every member's program knows this level.
    FeatureLevel {
        level: u32,
    },
    LeaseGrant {
        lease: i64,
        ttl_secs: i64,
    },
    /// A lease without keys ends.
    LeaseEnd {
        lease: i64,
    },
    Compact {
        revision: u64,
    },
    AlarmOn {
        member: u64,
        alarm: u8,
    },
    AlarmOff {
        member: u64,
        alarm: u8,
    },
    /// Where other members reach this one from now on.
    MemberUrls {
        member: u64,
        peer_urls: Vec<String>,
    },
    /// The member goes on alone: all others are removed, and no change of a member is under way any more.
    StandAlone {
        member: u64,
    },
}

/// What a change of the members is to come to.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// A member joins, as a learner or to vote. (In a box, since every batch takes as much as the largest entry.)
    Adding(Box<MemberRecord>),
    /// A learner is to vote.
    Promoting {
        member: u64,
    },
    Removing {
        member: u64,
    },
}

/// Which of the intents.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberChange {
    Adding,
    Promoting,
    Removing,
}

impl MemberChange {
    pub fn name(self) -> &'static str {
        match self {
            MemberChange::Adding => "adding",
            MemberChange::Promoting => "promoting",
            MemberChange::Removing => "removing",
        }
    }
}

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    pub id: u64,
    /// The random number in the identity of the data directory that the member has begun in; 0 until it has
    /// published it. Another directory under the member's id has lost what the member promised.
    pub directory: u64,
    /// Its logs' ids in Raft groups.
    pub raft_ids: Vec<RaftIdRecord>,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

/// The id that a member's log has in the Raft groups that begin in it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftIdRecord {
    pub log: u32,
    /// How often the log was given up for damage and begun anew: its groups are new peers then. (The number of
    /// this name in the log's own headers rises with each start.)
    pub incarnation: u32,
    pub id: u64,
}

/// Keys from `start` up to the next cut belong to `shard`.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct CutRecord {
    pub start: Vec<u8>,
    pub shard: u32,
}

impl From<Epoch> for EpochRecord {
    fn from(epoch: Epoch) -> EpochRecord {
        EpochRecord { term: epoch.term.0, attempt: epoch.attempt }
    }
}

impl From<EpochRecord> for Epoch {
    fn from(record: EpochRecord) -> Epoch {
        Epoch { term: Term(record.term), attempt: record.attempt }
    }
}

impl From<&ArchivedEpochRecord> for Epoch {
    fn from(record: &ArchivedEpochRecord) -> Epoch {
        Epoch { term: Term(record.term.to_native()), attempt: record.attempt.to_native() }
    }
}

/// The bytes of one archived [`Entry`], aligned to 16, shared by log write, group and apply.
#[derive(Clone)]
pub struct Payload(Arc<AlignedVec>);

/// A payload that is no valid [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPayload;

impl fmt::Display for InvalidPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the payload of a Raft entry cannot be read")
    }
}

impl Payload {
    pub fn of(entry: &Entry) -> Payload {
        let bytes = rkyv::to_bytes::<Invalid>(entry).expect("archiving into memory has no way to fail");
        Payload(Arc::new(bytes))
    }

    /// Bytes from a disk or a peer; whether they are an entry shows [`Payload::entry`].
    pub fn copy_of(bytes: &[u8]) -> Payload {
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        Payload(Arc::new(aligned))
    }

    pub fn entry(&self) -> Result<&ArchivedEntry, InvalidPayload> {
        rkyv::access::<ArchivedEntry, Invalid>(&self.0).map_err(|_| InvalidPayload)
    }

    /// The entry with owned parts: for tools and for entries that are rare.
    pub fn to_entry(&self) -> Result<Entry, InvalidPayload> {
        rkyv::from_bytes::<Entry, Invalid>(&self.0).map_err(|_| InvalidPayload)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.bytes() == other.bytes()
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// A piece of what is sent: an entry's bytes are shared by all that send them.
#[derive(Clone, Debug)]
pub enum Chunk {
    Bytes(Vec<u8>),
    Payload(Payload),
    /// Some of a payload, or what is no entry's and shared as well.
    Shared(Bytes),
}

impl Chunk {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Payload(payload) => payload.bytes(),
            Chunk::Shared(bytes) => bytes,
        }
    }
}

/// Writes of a turn that are not archived yet. They share keys and values with the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub revision: Revision,
    pub parts: u16,
    /// The shard's part of the revision goes on in its next effect.
    pub more: bool,
    pub changes: Vec<EffectChange>,
}

/// Archived as a [`Change`], without a copy between.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
#[rkyv(as = ArchivedChange)]
pub enum EffectChange {
    Put {
        #[rkyv(with = AsNumber)]
        sub: Sub,
        #[rkyv(with = AsVec)]
        key: Blob,
        #[rkyv(with = AsVec)]
        value: Blob,
        #[rkyv(with = AsNumber)]
        lease: LeaseId,
    },
    Delete {
        #[rkyv(with = AsNumber)]
        sub: Sub,
        #[rkyv(with = AsVec)]
        key: Blob,
    },
    DeleteRange {
        #[rkyv(with = AsNumber)]
        sub: Sub,
        #[rkyv(with = AsVec)]
        key: Blob,
        #[rkyv(with = AsVec)]
        end: Blob,
        count: u32,
    },
    LeaseEnd {
        #[rkyv(with = AsNumber)]
        lease: LeaseId,
    },
}

impl Effect {
    /// About what the effect takes in an entry, for cutting a turn into entries.
    pub fn bytes(&self) -> usize {
        32 + self.changes.iter().map(EffectChange::bytes).sum::<usize>()
    }

    /// The effect in pieces of about so many bytes at most. One large change is one piece.
    pub fn pieces(&self, bytes_max: usize) -> impl Iterator<Item = Piece<'_>> {
        let mut rest = Some(&self.changes[..]);
        std::iter::from_fn(move || {
            let changes = rest.take()?;
            let mut bytes = 32;
            let fitting = changes.iter().take_while(|change| {
                bytes += change.bytes();
                bytes <= bytes_max
            });
            let (changes, behind) = changes.split_at(fitting.count().max(1).min(changes.len()));
            rest = (!behind.is_empty()).then_some(behind);
            let more = self.more || rest.is_some();
            Some(Piece { revision: self.revision, parts: self.parts, more, changes })
        })
    }
}

/// What of an effect one entry takes. Archived as a [`Write`].
#[derive(Archive, Serialize, Clone, Copy, Debug)]
#[rkyv(as = ArchivedWrite, serialize_bounds(__S: Writer + Allocator))]
pub struct Piece<'a> {
    #[rkyv(with = AsNumber)]
    pub revision: Revision,
    pub parts: u16,
    pub more: bool,
    #[rkyv(with = AsVec, omit_bounds)]
    changes: &'a [EffectChange],
}

impl Piece<'_> {
    /// As [`Effect::bytes`].
    pub fn bytes(&self) -> usize {
        32 + self.changes.iter().map(EffectChange::bytes).sum::<usize>()
    }
}

impl EffectChange {
    /// How many keys it changes.
    pub fn keys(&self) -> usize {
        match self {
            EffectChange::Put { .. } | EffectChange::Delete { .. } => 1,
            EffectChange::DeleteRange { count, .. } => *count as usize,
            EffectChange::LeaseEnd { .. } => 0,
        }
    }

    fn bytes(&self) -> usize {
        48 + match self {
            EffectChange::Put { key, value, .. } => key.len() + value.len(),
            EffectChange::Delete { key, .. } => key.len(),
            EffectChange::DeleteRange { key, end, .. } => key.len() + end.len(),
            EffectChange::LeaseEnd { .. } => 0,
        }
    }
}

/// Archives a batch.
pub fn batch(epoch: Epoch, settled: Revision, pieces: &[Piece]) -> Payload {
    let about = BATCH_BYTES + pieces.iter().map(Piece::bytes).sum::<usize>();
    let batch = PiecesEntry::Batch(Pieces { epoch: epoch.into(), settled: settled.0, writes: pieces });
    let bytes = rkyv::api::high::to_bytes_in::<_, Invalid>(&batch, AlignedVec::with_capacity(about));
    Payload(Arc::new(bytes.expect("archiving into memory has no way to fail")))
}

/// A batch takes about so much beside its writes.
const BATCH_BYTES: usize = 64;

/// Archived as the first kind of [`Entry`].
#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedEntry)]
enum PiecesEntry<'a> {
    Batch(Pieces<'a>),
}

/// Archived as a [`Batch`].
#[derive(Archive, Serialize)]
#[rkyv(as = ArchivedBatch, serialize_bounds(__S: Writer + Allocator))]
struct Pieces<'a> {
    epoch: EpochRecord,
    settled: u64,
    #[rkyv(with = AsVec, omit_bounds)]
    writes: &'a [Piece<'a>],
}

impl MemberRecord {
    pub fn id(&self) -> MemberId {
        MemberId(self.id)
    }
}

impl ConfChange {
    /// The peer that it is about; none where the number is no id.
    pub fn peer(self) -> Option<RaftId> {
        let (ConfChange::AddVoter(id) | ConfChange::AddLearner(id) | ConfChange::Remove(id)) = self;
        RaftId::new(id)
    }
}

impl ArchivedControlEntry {
    /// The feature level that the entry sets, if it sets one.
    pub fn feature_level(&self) -> Option<u32> {
        match self {
            ArchivedControlEntry::Bootstrap { feature_level: level, .. }
            | ArchivedControlEntry::FeatureLevel { level } => Some(level.to_native()),
            _ => None,
        }
    }
}
