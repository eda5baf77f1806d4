//! The nouns of the field as types of their own, so that no two numbers are mistaken for each other.

use bytes::Bytes;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Deref, Sub as Minus};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// etcd's store-wide counter (`main`). A fresh store is at 1; the first write makes 2. 0 is "none".
    Revision(u64)
);
number!(
    /// The place of a change inside its revision, from 0 in the order of the operations.
    Sub(u32)
);
number!(
    /// A Raft term.
    Term(u64)
);
number!(
    /// A position in one Raft log.
    Index(u64)
);
number!(
    /// A change of the control state, as the reactors of one process count them.
    ChangeNumber(u64)
);
number!(
    /// A lease. 0 is "no lease"; clients may choose negative ones, as etcd lets them.
    LeaseId(i64)
);
number!(
    /// A member of the cluster, as clients know it. In Raft groups it goes under [`RaftId`]s.
    MemberId(u64)
);
impl MemberId {
    /// As etcd's logs, metrics and etcdctl write it.
    pub fn hex(self) -> String {
        format!("{:x}", self.0)
    }
}
number!(ClusterId(u64));
number!(
    /// What one directory's store was made as: a random number, by which it is told from any other. The
    /// cluster knows its members' directories by it too.
    StoreId(u64)
);
number!(
    /// One Raft group and its key ranges. Shard 0 is the control shard and holds no keys.
    ShardId(u32)
);
number!(
    /// One pinned thread of this process.
    ReactorId(u16)
);
number!(
    /// Monotonic time in nanoseconds since the process (or the simulation) began.
    Time(u64)
);

/// A peer in Raft groups: one log of one member. Never 0, which is nobody in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftId(NonZeroU64);

impl RaftId {
    pub fn new(id: u64) -> Option<RaftId> {
        NonZeroU64::new(id).map(RaftId)
    }
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// Who takes part in a Raft group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    pub voters: Vec<RaftId>,
    pub learners: Vec<RaftId>,
}

impl Peers {
    /// As numbers at rest say it; none where one of them is no id.
    pub fn of(voters: &[u64], learners: &[u64]) -> Option<Peers> {
        let ids =
            |numbers: &[u64]| numbers.iter().map(|id| RaftId::new(*id)).collect::<Option<Vec<RaftId>>>();
        Some(Peers { voters: ids(voters)?, learners: ids(learners)? })
    }

    /// The voters and the learners, as numbers at rest.
    pub fn numbers(&self) -> [Vec<u64>; 2] {
        [&self.voters, &self.learners].map(|ids| ids.iter().map(|id| id.get()).collect())
    }
}

impl Revision {
    pub const NONE: Revision = Revision(0);
    /// What an empty store shows (etcd's law).
    pub const FRESH: Revision = Revision(1);
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
    /// The revision as etcd's messages carry it.
    pub fn wire(self) -> i64 {
        i64::try_from(self.0).expect("48 bits of revision fit into 63")
    }
}

impl Index {
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl LeaseId {
    pub const NONE: LeaseId = LeaseId(0);
}

impl ShardId {
    pub const CONTROL: ShardId = ShardId(0);
}

impl Time {
    pub const NEVER: Time = Time(u64::MAX);
    pub const fn from_ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }
    pub fn since(self, earlier: Time) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

/// The time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    pub boot: u64,
    pub time: Time,
}

/// A span of [`Time`] in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub u64);

impl Duration {
    pub const fn from_us(us: u64) -> Duration {
        Duration(us * 1_000)
    }
    pub const fn from_ms(ms: u64) -> Duration {
        Duration(ms * 1_000_000)
    }
    pub const fn from_secs(secs: u64) -> Duration {
        Duration(secs * 1_000_000_000)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Minus<Duration> for Time {
    type Output = Time;
    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}

/// A revision with the place inside it: what a change of one key is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub main: Revision,
    pub sub: Sub,
}

/// One takeover: never reused, not even by the same member in the same term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    pub term: Term,
    pub attempt: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.attempt)
    }
}

/// A client connection. The generation tells a reused slot from its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub reactor: ReactorId,
    pub slot: u32,
    pub generation: u32,
}

/// Bytes that the store keeps and readers share: one allocation, one word to hold it, never copied per
/// reader.
#[derive(Clone)]
pub struct Blob(triomphe::ThinArc<(), u8>);

impl Blob {
    pub fn new(bytes: &[u8]) -> Blob {
        Blob(triomphe::ThinArc::from_header_and_slice((), bytes))
    }

    /// Whether both share the same bytes in memory.
    pub fn is_same(&self, other: &Blob) -> bool {
        std::ptr::eq(self.0.ptr(), other.0.ptr())
    }
}

impl Deref for Blob {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.slice
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Blob {
        Blob::new(bytes)
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        **self == **other
    }
}
impl Eq for Blob {}
impl PartialOrd for Blob {
    fn partial_cmp(&self, other: &Blob) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Blob {
    fn cmp(&self, other: &Blob) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

/// A set of adjacent keys, normalised from etcd's pair of `key` and `range_end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    One(Bytes),
    /// From the first key up to, without, the second; empty where they are not in order.
    Between(Bytes, Bytes),
    /// All keys from this one on.
    From(Bytes),
}

impl KeyRange {
    /// etcd's reading of the pair: no end is one key, the end `"\0"` is every key from `key` on.
    pub fn of(key: Bytes, range_end: Bytes) -> KeyRange {
        match &range_end[..] {
            [] => KeyRange::One(key),
            [0] => KeyRange::From(key),
            _ => KeyRange::Between(key, range_end),
        }
    }
    pub fn everything() -> KeyRange {
        KeyRange::From(Bytes::new())
    }
    pub fn start(&self) -> &Bytes {
        match self {
            KeyRange::One(key) | KeyRange::Between(key, _) | KeyRange::From(key) => key,
        }
    }
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => key == one,
            KeyRange::Between(start, end) => key >= start && key < end,
            KeyRange::From(start) => key >= start,
        }
    }
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Between(start, end) if start >= end)
    }
    /// Whether any key could lie in both.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        !self.is_empty()
            && !other.is_empty()
            && !self.ends_before(other.start())
            && !other.ends_before(self.start())
    }
    /// Whether all keys of the range are below `key`.
    pub fn ends_before(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one < key,
            KeyRange::Between(_, end) => end <= key,
            KeyRange::From(_) => false,
        }
    }
}

/// A live key as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Blob,
    pub value: Blob,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// 1 for the put that created the key, +1 for each put since.
    pub version: u64,
    pub lease: LeaseId,
}

/// One change of one key, in the order of [`At`] what a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(KeyValue),
    Delete { key: Blob, mod_revision: Revision },
}

impl Event {
    pub fn key(&self) -> &Blob {
        match self {
            Event::Put(kv) => &kv.key,
            Event::Delete { key, .. } => key,
        }
    }
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put(kv) => kv.mod_revision,
            Event::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::of(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn a_range_reads_as_etcd_reads_it() {
        assert!(range("a", "").contains(b"a") && !range("a", "").contains(b"ab"));
        assert!(range("a", "\0").contains(b"zzz") && !range("b", "\0").contains(b"a"));
        assert!(range("a", "c").contains(b"b") && !range("a", "c").contains(b"c"));
        assert!(range("c", "a").is_empty() && range("a", "a").is_empty());
    }

    #[test]
    fn overlap_is_having_a_key_in_common() {
        assert!(range("a", "c").overlaps(&range("b", "")));
        assert!(!range("a", "c").overlaps(&range("c", "")));
        assert!(range("a", "c").overlaps(&range("b", "\0")));
        assert!(!range("c", "a").overlaps(&range("b", "")));
        assert!(range("x", "\0").overlaps(&range("a", "\0")));
        assert!(range("a", "").overlaps(&range("a", "")) && !range("a", "").overlaps(&range("b", "")));
    }

    #[test]
    fn a_blob_is_one_word() {
        assert_eq!(size_of::<Blob>(), 8);
        assert_eq!(size_of::<Option<Blob>>(), 8);
    }
}
