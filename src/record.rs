//! What stands in Raft entries, as rkyv values.
//!
//! A payload is one archived [`Entry`]. There is no schema evolution in rkyv: a struct here is never
//! changed once released; a new one stands beside it under a new `VERSION`, which the log's record header
//! carries with every payload.
//!
//! What an entry means for the log it stands in: `Seal{epoch, prefix}` voids the writes
//! before it whose revision is above the prefix; a batch whose epoch is not that of the last seal before
//! it is void.

mod borrowed;

use crate::types::{Blob, Epoch, LeaseId, MemberId, Revision, Sub, Term};
use borrowed::{AsNumber, AsVec};
use rkyv::rancor::Error as Invalid;
use rkyv::ser::{Allocator, Writer};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The version of the structs below, as the log's record headers carry it.
pub const VERSION: u16 = 1;

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
        control: Control,
    },
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
    /// The lead's `settled` when the batch was made: the base a takeover may start from.
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
pub enum Control {
    /// The first entry of a cluster: who it is and how its keys are cut.
    Bootstrap {
        cluster: u64,
        token: String,
        members: Vec<MemberRecord>,
        cuts: Vec<CutRecord>,
    },
    /// Name and client URLs of a member, as it publishes them at each start.
    MemberAttributes {
        member: u64,
        name: String,
        client_urls: Vec<String>,
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
}

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry::Batch(Batch {
            epoch: EpochRecord { term: 3, attempt: 7 },
            settled: 41,
            writes: vec![Write {
                revision: 42,
                parts: 2,
                more: false,
                changes: vec![
                    Change::Put { sub: 0, key: b"a".to_vec(), value: b"1".to_vec(), lease: -5 },
                    Change::Delete { sub: 1, key: b"b".to_vec() },
                    Change::LeaseEnd { lease: 9 },
                ],
            }],
        })
    }

    #[test]
    fn an_entry_comes_back_as_it_went() {
        let payload = Payload::copy_of(Payload::of(&sample()).bytes());
        assert_eq!(payload.to_entry().unwrap(), sample());
        assert!(matches!(payload.entry().unwrap(), ArchivedEntry::Batch(batch) if batch.settled == 41));
    }

    #[test]
    fn a_batch_of_effects_is_that_of_its_writes() {
        let changes = vec![
            EffectChange::Put {
                sub: Sub(0),
                key: Blob::new(b"a"),
                value: Blob::new(b"1"),
                lease: LeaseId(-5),
            },
            EffectChange::Delete { sub: Sub(1), key: Blob::new(b"b") },
            EffectChange::LeaseEnd { lease: LeaseId(9) },
        ];
        let effect = Effect { revision: Revision(42), parts: 2, more: false, changes };
        let made = batch(
            Epoch { term: Term(3), attempt: 7 },
            Revision(41),
            &effect.pieces(1 << 20).collect::<Vec<_>>(),
        );
        assert_eq!(made, Payload::of(&sample()));
    }

    #[test]
    fn a_large_effect_is_cut_and_nothing_of_it_is_lost() {
        let changes = (0..100).map(|n| EffectChange::Delete { sub: Sub(n), key: Blob::new(&[7; 40]) });
        let effect = Effect { revision: Revision(5), parts: 3, more: false, changes: changes.collect() };
        for bytes_max in [1, 500, 1000, 5000, 1 << 20] {
            let pieces: Vec<Piece> = effect.pieces(bytes_max).collect();
            let cut: Vec<EffectChange> = pieces.iter().flat_map(|piece| piece.changes).cloned().collect();
            assert_eq!(cut, effect.changes);
            assert!(pieces.iter().all(|piece| piece.changes.len() == 1 || piece.bytes() <= bytes_max));
            let (last, before) = pieces.split_last().unwrap();
            assert!(!last.more && before.iter().all(|piece| piece.more));
        }
    }

    #[test]
    fn damaged_payloads_are_refused_not_trusted() {
        let good = Payload::of(&sample());
        for cut in 0..good.bytes().len() {
            let _ = Payload::copy_of(&good.bytes()[..cut]).to_entry();
        }
        for at in 0..good.bytes().len() {
            for bit in 0..8 {
                let mut bytes = good.bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let _ = Payload::copy_of(&bytes).to_entry();
            }
        }
        assert_eq!(Payload::copy_of(&[]).to_entry(), Err(InvalidPayload));
    }
}
