//! One shard's keys, with all versions since compaction, in memory.

mod hash;

pub use hash::HashKv;

use crate::types::{At, Blob, Event, KeyRange, KeyValue, LeaseId, Revision, Sub};
use std::collections::BTreeMap;

/// How much one call may look at before it returns. At least one item is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub keys: usize,
    pub bytes: usize,
}

impl Budget {
    pub const UNBOUNDED: Budget = Budget { keys: usize::MAX, bytes: usize::MAX };
}

/// A part of a range's live keys, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    pub kvs: Vec<KeyValue>,
    /// The first key of the range not looked at; `None` where the range is done.
    pub resume: Option<Blob>,
}

/// A part of a count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    pub count: u64,
    /// The first key of the range not looked at; `None` where the count is done.
    pub resume: Option<Blob>,
}

/// What a compare or a lease index wants to know of a live key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: u64,
    pub lease: LeaseId,
}

/// One version of history.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub event: Event,
    /// Whether it is the key's last change at or below the revision up to which history was asked for.
    pub last: bool,
}

/// A part of history in the order of [`At`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub changes: Vec<(At, Change)>,
    /// Whether nothing up to the revision asked for is left. If not, ask again after [`History::resume`].
    pub done: bool,
    /// The place up to which history was looked at.
    pub resume: At,
}

/// One change taken back, for the repair of the shard's lease index.
#[derive(Clone, Debug, PartialEq)]
pub struct Undone {
    pub at: At,
    pub key: Blob,
    /// The lease of the version undone; none where it was a tombstone.
    pub lease: LeaseId,
    /// The lease of the version that is newest again; none where the key is not live.
    pub lease_again: LeaseId,
}

/// How much the store holds. Equal on every member with equal history, once compaction's slices are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Live keys at the newest state.
    pub keys: u64,
    pub versions: u64,
    /// Cost of the live keys' newest versions.
    pub bytes_live: u64,
    /// Cost of all versions, tombstones included.
    pub bytes_total: u64,
}

/// A hold on history: see [`Store::pin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinId(u64);

struct Pin {
    revision: Revision,
    compacted: Revision,
}

struct Version {
    at: At,
    /// `None` is a tombstone.
    live: Option<(Blob, Meta)>,
}

impl Version {
    fn key_value(&self, key: &Blob) -> Option<KeyValue> {
        self.live.as_ref().map(|(value, meta)| KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: meta.create_revision,
            mod_revision: meta.mod_revision,
            version: meta.version,
            lease: meta.lease,
        })
    }
}

/// What a version is reckoned to cost beyond key and value: etcd's 256 bytes of a put.
const VERSION_BYTES: u64 = 256;

fn cost(key: &Blob, version: &Version) -> u64 {
    VERSION_BYTES + key.len() as u64 + version.live.as_ref().map_or(0, |(value, _)| value.len() as u64)
}

/// The multi-version store of a shard.
#[derive(Default)]
pub struct Store {
    keys: BTreeMap<Blob, Vec<Version>>,
    log: BTreeMap<At, Blob>,
    newest: At,
    settled: Revision,
    compacted: Revision,
    /// Keys up to here have been compacted at `sweep.1`.
    sweep: Option<(Blob, Revision)>,
    swept: Revision,
    pins: BTreeMap<PinId, Pin>,
    pins_made: u64,
    sizes: Sizes,
}

impl Store {
    pub fn new() -> Store {
        Store::default()
    }

    /// Writes a version above all others and gives the key's live state before it. Panics where `at` is not
    /// above every earlier change.
    pub fn put(&mut self, at: At, key: &[u8], value: Blob, lease: LeaseId) -> Option<KeyValue> {
        let previous = self.newest(key);
        let (create_revision, version) = match &previous {
            Some(kv) => (kv.create_revision, kv.version + 1),
            None => (at.main, 1),
        };
        let meta = Meta { create_revision, mod_revision: at.main, version, lease };
        self.push(Blob::new(key), Version { at, live: Some((value, meta)) });
        previous
    }

    /// Writes a tombstone. `None`: nothing was live and nothing changed.
    pub fn delete(&mut self, at: At, key: &[u8]) -> Option<KeyValue> {
        let previous = self.newest(key)?;
        self.push(previous.key.clone(), Version { at, live: None });
        Some(previous)
    }

    fn push(&mut self, key: Blob, version: Version) {
        assert!(version.at > self.newest, "changes arrive in ascending order");
        self.newest = version.at;
        self.log.insert(version.at, key.clone());
        self.uncount_live(&key);
        self.sizes.versions += 1;
        self.sizes.bytes_total += cost(&key, &version);
        self.keys.entry(key.clone()).or_default().push(version);
        self.count_live(&key);
    }

    fn count_live(&mut self, key: &Blob) {
        if let Some(version) = self.keys.get(key).and_then(|v| v.last()).filter(|v| v.live.is_some()) {
            self.sizes.keys += 1;
            self.sizes.bytes_live += cost(key, version);
        }
    }

    fn uncount_live(&mut self, key: &Blob) {
        if let Some(version) = self.keys.get(key).and_then(|v| v.last()).filter(|v| v.live.is_some()) {
            self.sizes.keys -= 1;
            self.sizes.bytes_live -= cost(key, version);
        }
    }

    /// Changes up to this revision can no longer be undone.
    pub fn settle(&mut self, to: Revision) {
        self.settled = self.settled.max(to);
    }

    /// Takes back every change above `settled`, newest first.
    pub fn undo_above(&mut self, settled: Revision, on: &mut dyn FnMut(Undone)) {
        assert!(settled >= self.settled, "what is settled is not undone");
        while let Some((at, key)) = self.log.pop_last() {
            if at.main <= settled {
                self.log.insert(at, key);
                break;
            }
            self.uncount_live(&key);
            let versions = self.keys.get_mut(&key).expect("a change in the log has its version");
            let version = versions.pop().expect("a change in the log has its version");
            let lease = version.live.as_ref().map_or(LeaseId::NONE, |(_, meta)| meta.lease);
            let again = versions.last().and_then(|v| v.live.as_ref());
            let lease_again = again.map_or(LeaseId::NONE, |(_, meta)| meta.lease);
            if versions.is_empty() {
                self.keys.remove(&key);
            }
            self.sizes.versions -= 1;
            self.sizes.bytes_total -= cost(&key, &version);
            self.count_live(&key);
            on(Undone { at, key, lease, lease_again });
        }
        self.newest = self.log.last_key_value().map_or(At::default(), |(at, _)| *at);
    }

    /// The key's live state, speculative changes included.
    pub fn newest(&self, key: &[u8]) -> Option<KeyValue> {
        let (key, versions) = self.keys.get_key_value(&Blob::new(key))?;
        versions.last()?.key_value(key)
    }

    /// Like [`Store::newest`], without key and value.
    pub fn newest_meta(&self, key: &[u8]) -> Option<Meta> {
        self.keys.get(&Blob::new(key))?.last()?.live.as_ref().map(|(_, meta)| *meta)
    }

    /// The highest change held, or the one last restored; the lowest [`At`] where there was none.
    pub fn newest_revision(&self) -> At {
        self.newest
    }

    /// The key's live state at a revision, which must not be below [`Store::compacted`] (or be pinned).
    pub fn get(&self, key: &[u8], at: Revision) -> Option<KeyValue> {
        let (key, versions) = self.keys.get_key_value(&Blob::new(key))?;
        visible(versions, at)?.key_value(key)
    }

    /// The live keys of a range at a revision, ascending, from `resume` on. Every key looked at takes from
    /// the budget, live or not.
    pub fn range(&self, range: &KeyRange, at: Revision, resume: Option<&[u8]>, budget: Budget) -> Slice {
        let mut slice = Slice::default();
        let (mut keys, mut bytes) = (0, 0);
        for (key, versions) in self.keys.range(start(range, resume)..) {
            if !range.contains(key) {
                break;
            }
            if keys > 0 && (keys >= budget.keys || bytes >= budget.bytes) {
                slice.resume = Some(key.clone());
                break;
            }
            keys += 1;
            if let Some(kv) = visible(versions, at).and_then(|version| version.key_value(key)) {
                bytes += kv.key.len() + kv.value.len();
                slice.kvs.push(kv);
            }
        }
        slice
    }

    /// How many keys of a range are live at a revision. At or above what is settled the whole answer comes
    /// at once; below, at most `keys_max` keys are looked at.
    pub fn count(&self, range: &KeyRange, at: Revision, resume: Option<&[u8]>, keys_max: usize) -> Counted {
        let mut counted = Counted::default();
        for (n, (key, versions)) in self.keys.range(start(range, resume)..).enumerate() {
            if !range.contains(key) {
                break;
            }
            if n >= keys_max.max(1) && at < self.settled {
                counted.resume = Some(key.clone());
                break;
            }
            counted.count += u64::from(visible(versions, at).is_some_and(|v| v.live.is_some()));
        }
        counted
    }

    /// Changes above `after` and at or below `upto`, without what compaction has logically dropped.
    pub fn history(&self, after: At, upto: Revision, budget: Budget) -> History {
        self.history_seen(self.compacted, after, upto, budget)
    }

    /// The history of a pin: up to its revision, without what was compacted when it was made.
    pub fn history_pinned(&self, pin: PinId, after: At, budget: Budget) -> History {
        let pin = self.pins.get(&pin).expect("a pin is used while it holds");
        self.history_seen(pin.compacted, after, pin.revision, budget)
    }

    fn history_seen(&self, compacted: Revision, after: At, upto: Revision, budget: Budget) -> History {
        let mut history = History { changes: Vec::new(), done: true, resume: after };
        let (mut seen, mut bytes) = (0, 0);
        let above = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        for (at, key) in self.log.range(above).take_while(|(at, _)| at.main <= upto) {
            if seen > 0 && (seen >= budget.keys || bytes >= budget.bytes) {
                history.done = false;
                break;
            }
            seen += 1;
            history.resume = *at;
            let versions = &self.keys[key];
            let n = versions.partition_point(|v| v.at < *at);
            let next = versions.get(n + 1).map(|v| v.at.main);
            let gone = next.is_some_and(|next| next <= compacted)
                || (versions[n].live.is_none() && at.main < compacted);
            if gone {
                continue;
            }
            let event = match versions[n].key_value(key) {
                Some(kv) => Event::Put(kv),
                None => Event::Delete { key: key.clone(), mod_revision: at.main },
            };
            bytes += usize::try_from(cost(key, &versions[n])).expect("a version fits into memory");
            history.changes.push((*at, Change { event, last: next.is_none_or(|next| next > upto) }));
        }
        history
    }

    /// Compacts at a revision, which takes effect for readers at once; [`Store::compact_slice`] then drops.
    /// A revision at or below the compacted one changes nothing.
    pub fn compact(&mut self, revision: Revision) {
        assert!(revision <= self.settled, "only settled history is compacted");
        self.compacted = self.compacted.max(revision);
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Drops history that is compacted and not pinned, looking at no more than a number of versions.
    /// Returns whether nothing is left to drop.
    pub fn compact_slice(&mut self, budget_keys: usize) -> bool {
        let floor = self.pins.values().map(|pin| pin.compacted).fold(self.compacted, Revision::min);
        if self.sweep.is_none() && self.swept < floor {
            self.sweep = Some((Blob::new(b""), floor));
        }
        let Some((from, floor)) = self.sweep.take() else { return true };
        let mut emptied = Vec::new();
        let mut looked = 0;
        for (key, versions) in self.keys.range_mut(from..) {
            if looked > budget_keys {
                self.sweep = Some((key.clone(), floor));
                break;
            }
            looked += versions.len();
            let mut drop = versions.partition_point(|v| v.at.main <= floor).saturating_sub(1);
            if versions.get(drop).is_some_and(|v| v.at.main < floor && v.live.is_none()) {
                drop += 1;
            }
            for version in versions.drain(..drop) {
                self.sizes.versions -= 1;
                self.sizes.bytes_total -= cost(key, &version);
                self.log.remove(&version.at);
            }
            if versions.is_empty() {
                emptied.push(key.clone());
            }
        }
        for key in emptied {
            self.keys.remove(&key);
        }
        if self.sweep.is_none() {
            self.swept = floor;
        }
        false
    }

    /// Holds history: while the pin stands, every version that compaction had kept when it was made stays,
    /// so that reads at its revision and [`Store::history_pinned`] are right.
    pub fn pin(&mut self, revision: Revision) -> PinId {
        assert!(revision >= self.compacted, "what is compacted can't be pinned");
        self.pins_made += 1;
        let id = PinId(self.pins_made);
        self.pins.insert(id, Pin { revision, compacted: self.compacted });
        id
    }

    pub fn unpin(&mut self, pin: PinId) {
        self.pins.remove(&pin).expect("a pin is let go once");
    }

    /// Takes a version from a checkpoint. Versions come as history gave them, in ascending order, before
    /// any other change. They are settled.
    pub fn restore(&mut self, at: At, change: Change) {
        let (key, live) = match change.event {
            Event::Put(kv) => {
                let meta = Meta {
                    create_revision: kv.create_revision,
                    mod_revision: kv.mod_revision,
                    version: kv.version,
                    lease: kv.lease,
                };
                (kv.key, Some((kv.value, meta)))
            }
            Event::Delete { key, .. } => (key, None),
        };
        self.push(key, Version { at, live });
        self.settled = self.settled.max(at.main);
    }

    /// Ends restoring: the compaction and the revision of the checkpoint.
    pub fn restored(&mut self, compacted: Revision, settled: Revision) {
        self.settle(settled);
        self.compact(compacted);
    }

    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert_eq!(self.log.len() as u64, self.sizes.versions);
    }
}

fn start(range: &KeyRange, resume: Option<&[u8]>) -> Blob {
    Blob::new(resume.unwrap_or(range.start()).max(range.start()))
}

fn visible(versions: &[Version], at: Revision) -> Option<&Version> {
    versions[..versions.partition_point(|version| version.at.main <= at)].last()
}

/// The place above every change of a revision.
pub fn end_of(revision: Revision) -> At {
    At { main: revision, sub: Sub(u32::MAX) }
}

#[cfg(test)]
mod tests;
