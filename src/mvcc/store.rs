//! The store itself: index and versions kept in step, through changes, undoing and compaction.
//!
//! `compacted <= settled <= newest`. Above `settled` changes are undone from the newest back and nothing is
//! compacted; up to `settled` nothing is undone. How compaction goes about dropping is told at
//! [`Store::compact_slice`].

use super::index::{KeyIndex, KeyPosition, TOUCHED, Tip};
use super::on_disk::OnDisk;
use super::versions::{Version, Versions};
use super::{
    Budget, Counted, History, HistoryChange, KeyMeta, PinId, RangeSlice, Sizes, StoredVersion, Undone,
};
use crate::types::{At, Blob, Event, KeyRange, KeyValue, LeaseId, Revision, Sub};
use std::collections::{BTreeMap, VecDeque};

/// What a version is reckoned to cost beyond key and value: what etcd's quota adds to a put.
pub(super) const VERSION_BYTES: u64 = 256;

pub(super) fn cost(version: &Version) -> u64 {
    VERSION_BYTES + version.bytes() as u64
}

struct Pin {
    revision: Revision,
    /// The compaction in effect when the pin was made.
    compacted: Revision,
}

/// A change, not settled yet, by which a key became live or ceased to be.
struct LivenessChange {
    main: Revision,
    version: u32,
    birth: bool,
}

/// The multi-version store of a shard.
#[derive(Default)]
pub struct Store {
    index: KeyIndex,
    versions: Versions,
    liveness_changes: VecDeque<LivenessChange>,
    newest: At,
    settled: Revision,
    compacted: Revision,
    /// The compaction up to which versions are being dropped, and the last change looked at for it.
    floor: Revision,
    swept: At,
    pins: BTreeMap<PinId, Pin>,
    pins_made: u64,
    on_disk: OnDisk,
    bytes_live: u64,
    bytes_total: u64,
}

impl Store {
    pub fn new() -> Store {
        Store::default()
    }

    /// Writes a version above all others and gives the key's live state before it. Panics where `at` is not
    /// above every earlier change.
    pub fn put(&mut self, at: At, key: &[u8], value: Blob, lease: LeaseId) -> Option<KeyValue> {
        let (_, before) = self.write(at, key, value, lease);
        self.versions.get(before?).key_value()
    }

    /// As [`Store::put`], for whom the value before does not matter: it is left alone, as it would have to be
    /// fetched from far away. Gives the key, and the lease that it had.
    pub fn put_over(&mut self, at: At, key: &[u8], value: Blob, lease: LeaseId) -> (Blob, LeaseId) {
        let (key, before) = self.write(at, key, value, lease);
        (key, before.map_or(LeaseId::NONE, |before| self.versions.get(before).lease))
    }

    /// Brings to the processor what [`Store::put_over`] will look at for the next of these keys, and says for how
    /// many; it changes nothing. What a store of any size has of a key lies far away, and most of the time that a
    /// put takes would be waiting for one place in memory after the other.
    pub fn touch<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut touched: [&[u8]; TOUCHED] = [&[]; TOUCHED];
        let mut count = 0;
        for (place, key) in touched.iter_mut().zip(keys) {
            *place = key;
            count += 1;
        }
        if count > 1 {
            self.versions.touch(&self.index.touch(&touched[..count]).map(Tip::version)[..count]);
        }
        count
    }

    /// Gives the key as it is shared, and the live version before.
    fn write(&mut self, at: At, key: &[u8], value: Blob, lease: LeaseId) -> (Blob, Option<u32>) {
        assert!(at.main > self.settled, "what is settled is not written anew: {at:?} at {}", self.settled);
        let place = self.index.seek(key);
        let before = place.tip().map(|tip| self.versions.get(tip.version()));
        let key = before.map_or_else(|| Blob::new(key), |version| version.key().clone());
        let (create_revision, count) = match before.filter(|version| version.live()) {
            Some(version) => (version.create_revision, version.version + 1),
            None => (at.main, 1),
        };
        self.push(&place, Version::put(at, key.clone(), value, create_revision, count, lease));
        (key, place.tip().filter(|tip| tip.live()).map(Tip::version))
    }

    /// Writes a tombstone and gives the state it ended. `None`: nothing was live and nothing changed.
    pub fn delete(&mut self, at: At, key: &[u8]) -> Option<KeyValue> {
        assert!(at.main > self.settled, "what is settled is not written anew: {at:?} at {}", self.settled);
        let place = self.index.seek(key);
        let previous = self.versions.get(place.tip()?.version()).key_value()?;
        self.push(&place, Version::tombstone(at, previous.key.clone(), previous.create_revision));
        Some(previous)
    }

    fn push(&mut self, place: &KeyPosition, version: Version) -> u32 {
        assert!(version.at() > self.newest, "changes arrive in ascending order");
        self.newest = version.at();
        let (at, live, bytes) = (version.at(), version.live(), cost(&version));
        self.bytes_total += bytes;
        self.bytes_live += if live { bytes } else { 0 };
        let before = place.tip();
        let was_live = before.is_some_and(Tip::live);
        self.bytes_live -= before.filter(|tip| tip.live()).map_or(0, Tip::cost);
        let id = self.versions.push(version, before.map(Tip::version));
        if was_live != live && at.main > self.settled {
            self.liveness_changes.push_back(LivenessChange { main: at.main, version: id, birth: live });
        }
        let tip = Tip::new(id, live, bytes);
        match before {
            Some(_) => self.index.set(place, tip),
            None => self.index.insert(place, self.versions.get(id).key().clone(), tip),
        }
        id
    }

    /// Settles changes up to this revision: they can no longer be undone.
    pub fn settle(&mut self, to: Revision) {
        self.settled = self.settled.max(to);
        while self.liveness_changes.pop_front_if(|change| change.main <= self.settled).is_some() {}
    }

    /// Takes back every change above `settled`, newest first.
    pub fn undo_above(&mut self, settled: Revision, on: &mut dyn FnMut(Undone)) {
        assert!(settled >= self.settled, "what is settled is not undone");
        while let Some(id) = self.versions.last() {
            let version = self.versions.get(id);
            if version.main() <= settled {
                break;
            }
            on(self.undo(id));
            self.newest = self.versions.last().map_or(At::default(), |id| self.versions.get(id).at());
        }
        while self.liveness_changes.back().is_some_and(|change| change.main > settled) {
            self.liveness_changes.pop_back();
        }
        assert!(self.newest.main <= settled, "what is not settled has been taken back");
        assert!(self.bytes_live <= self.bytes_total, "what is live is part of all");
    }

    /// Takes the newest change back.
    fn undo(&mut self, id: u32) -> Undone {
        assert!(self.versions.last() == Some(id), "changes are taken back from the newest on");
        let version = self.versions.get(id);
        let (at, key, lease) = (version.at(), version.key().clone(), version.lease);
        self.bytes_total -= cost(version);
        self.bytes_live -= if version.live() { cost(version) } else { 0 };
        let again = self.versions.previous(id);
        let place = self.index.seek(&key);
        assert!(place.tip().is_some_and(|tip| tip.version() == id), "the last change is its key's newest");
        let mut lease_again = LeaseId::NONE;
        match again {
            Some(again) => {
                let version = self.versions.get(again);
                lease_again = version.lease;
                self.bytes_live += if version.live() { cost(version) } else { 0 };
                self.index.set(&place, Tip::new(again, version.live(), cost(version)));
            }
            None => self.index.remove(&place),
        }
        self.versions.pop();
        Undone { at, key, lease, lease_again }
    }

    /// The key's live state, speculative changes included.
    pub fn newest(&self, key: &[u8]) -> Option<KeyValue> {
        self.newest_version(key)?.key_value()
    }

    /// The key's live state as [`Store::newest`] gives it, without key and value.
    pub fn newest_meta(&self, key: &[u8]) -> Option<KeyMeta> {
        let version = self.newest_version(key)?;
        Some(KeyMeta {
            create_revision: version.create_revision,
            mod_revision: version.main(),
            version: version.version,
            lease: version.lease,
        })
    }

    fn newest_version(&self, key: &[u8]) -> Option<&Version> {
        let (_, tip) = self.index.get(key)?;
        tip.live().then(|| self.versions.get(tip.version()))
    }

    /// The highest change written and not undone; the lowest [`At`] where there was none.
    pub fn newest_revision(&self) -> At {
        self.newest
    }

    /// The key's live state at a revision, which must not be below [`Store::compacted`] (or be pinned).
    pub fn get(&self, key: &[u8], at: Revision) -> Option<KeyValue> {
        let (_, tip) = self.index.get(key)?;
        self.versions.find(tip.version(), at)?.key_value()
    }

    /// The live keys of a range at a revision, ascending, from `resume` on. Every key looked at takes from
    /// the budget, live or not.
    pub fn range(&self, range: &KeyRange, at: Revision, resume: Option<&[u8]>, budget: Budget) -> RangeSlice {
        let mut slice = RangeSlice::default();
        let mut keys = 0;
        self.walk(range, resume, |key, tip| {
            if keys > 0 && (keys >= budget.keys || slice.bytes >= budget.bytes) {
                slice.resume = Some(key.clone());
                return false;
            }
            keys += 1;
            if let Some(kv) = self.versions.find(tip.version(), at).and_then(Version::key_value) {
                slice.bytes += kv.key.len() + kv.value.len();
                slice.kvs.push(kv);
            }
            true
        });
        slice
    }

    fn walk(&self, range: &KeyRange, resume: Option<&[u8]>, mut visit: impl FnMut(&Blob, Tip) -> bool) {
        let start = &range.start()[..];
        let from = resume.map_or(start, |resume| resume.max(start));
        self.index.walk(from, |key, tip| range.contains(key) && visit(key, tip));
    }

    /// How many keys a range has, dead ones that are not dropped yet among them: as many as there are up to the
    /// live key `live_max`, and at most one more than `keys_max`, which is as far as it looks.
    pub fn keys_in(&self, range: &KeyRange, keys_max: usize, live_max: usize) -> usize {
        let (mut keys, mut live) = (0, 0);
        self.walk(range, None, |_, tip| {
            keys += 1;
            live += usize::from(tip.live());
            keys <= keys_max && live < live_max
        });
        keys
    }

    /// How many keys of a range are live at a revision. At or above what is settled the whole answer comes
    /// at once, in the time of a search and of the births and deaths since, unless these are more than
    /// `keys_max`; else at most `keys_max` keys are looked at.
    pub fn count(&self, range: &KeyRange, at: Revision, resume: Option<&[u8]>, keys_max: usize) -> Counted {
        let since =
            self.liveness_changes.len() - self.liveness_changes.partition_point(|change| change.main <= at);
        if at >= self.settled && since <= keys_max.max(1) {
            return Counted { count: self.count_unsettled(range, at, resume), resume: None };
        }
        let mut counted = Counted::default();
        let mut keys = 0;
        self.walk(range, resume, |key, tip| {
            if keys >= keys_max.max(1) {
                counted.resume = Some(key.clone());
                return false;
            }
            keys += 1;
            counted.count += u64::from(self.versions.find(tip.version(), at).is_some_and(Version::live));
            true
        });
        counted
    }

    fn count_unsettled(&self, range: &KeyRange, at: Revision, resume: Option<&[u8]>) -> u64 {
        let from = resume.map_or(&range.start()[..], |resume| resume.max(range.start()));
        let newest = match range {
            KeyRange::One(key) => u64::from(from == key && self.newest_version(key).is_some()),
            KeyRange::Between(_, end) => match from < &end[..] {
                true => self.index.rank(end) - self.index.rank(from),
                false => 0,
            },
            KeyRange::From(_) => self.index.live() - self.index.rank(from),
        };
        let later = self.liveness_changes.iter().rev().take_while(|change| change.main > at);
        let inside = later.filter(|change| {
            let key = self.versions.get(change.version).key();
            range.contains(key) && &key[..] >= from
        });
        inside.fold(newest, |count, change| if change.birth { count - 1 } else { count + 1 })
    }

    /// Changes above `after` and at or below `upto`, without what compaction has logically dropped.
    pub fn history(&self, after: At, upto: Revision, budget: Budget) -> History {
        self.history_kept(self.compacted, after, upto, budget)
    }

    /// The history of a pin: up to its revision, without what was compacted when it was made.
    pub fn history_pinned(&self, pin: PinId, after: At, budget: Budget) -> History {
        let pin = self.pins.get(&pin).expect("a pin is used while it holds");
        self.history_kept(pin.compacted, after, pin.revision, budget)
    }

    fn history_kept(&self, compacted: Revision, after: At, upto: Revision, budget: Budget) -> History {
        self.history_where(after, upto, budget, |version| {
            self.is_kept(version, compacted).then(|| self.is_state_at(version, upto))
        })
    }

    /// The versions that are wanted, each with whether it is said to be its key's last.
    fn history_where(
        &self,
        after: At,
        upto: Revision,
        budget: Budget,
        wanted: impl Fn(&Version) -> Option<bool>,
    ) -> History {
        let mut history = History { changes: Vec::new(), done: true, resume: after };
        let (mut seen, mut bytes) = (0, 0);
        for id in self.versions.above(after) {
            let version = self.versions.get(id);
            if version.main() > upto {
                break;
            }
            if seen > 0 && (seen >= budget.keys || bytes >= budget.bytes) {
                history.done = false;
                break;
            }
            seen += 1;
            history.resume = version.at();
            let Some(last) = wanted(version) else { continue };
            bytes += version.bytes();
            history.changes.push((version.at(), HistoryChange { event: version.event(), last }));
        }
        history
    }

    /// Whether a compaction leaves a version.
    fn is_kept(&self, version: &Version, compacted: Revision) -> bool {
        version.main() > compacted
            || (version.live() || version.main() == compacted) && self.is_state_at(version, compacted)
    }

    /// Whether a version is its key's last at or below a revision.
    fn is_state_at(&self, version: &Version, at: Revision) -> bool {
        let (_, tip) = self.index.get(version.key()).expect("the key of a version is in the index");
        self.versions.find(tip.version(), at).is_some_and(|state| state.at() == version.at())
    }

    /// Compacts at a revision, which takes effect for readers at once; [`Store::compact_slice`] then drops.
    /// A revision at or below the compacted one changes nothing. Panics where it is not settled.
    pub fn compact(&mut self, revision: Revision) {
        assert!(revision <= self.settled, "only settled history is compacted");
        self.compacted = self.compacted.max(revision);
        assert!(self.floor <= self.compacted, "only what is compacted is dropped");
    }

    /// The revision up to which changes can no longer be undone.
    pub fn settled(&self) -> Revision {
        self.settled
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Drops history that is compacted and not pinned, looking at no more than a number of versions, but at
    /// one at least. Returns whether nothing is left to drop.
    ///
    /// The work follows what has changed since the last compaction, not what is held. A version is
    /// superfluous once a later one of its key is at or below the compacted revision; so the changes from
    /// the last compaction to this one are looked at in order, and each lets its predecessor go. A tombstone
    /// below the compacted revision goes too, and one exactly there with the next compaction: each sweep
    /// begins with the revision where the last one ended.
    pub fn compact_slice(&mut self, budget_keys: usize) -> bool {
        let floor = self.pins.values().map(|pin| pin.compacted).fold(self.compacted, Revision::min);
        if floor > self.floor {
            let before_last = At { main: Revision(self.floor.0.saturating_sub(1)), sub: Sub(u32::MAX) };
            self.swept = self.swept.min(before_last);
            self.floor = floor;
        }
        let budget = budget_keys.max(1);
        let emptied = self.on_disk.empty_graves(budget);
        let next = self.versions.above(self.swept).take(budget);
        let slice: Vec<u32> = next.take_while(|id| self.versions.get(*id).main() <= floor).collect();
        for id in &slice {
            self.swept = self.versions.get(*id).at();
            self.sweep(*id);
        }
        emptied && slice.len() < budget
    }

    /// Whether all history that is compacted has been dropped: no pin holds any of it either.
    pub fn is_swept(&self) -> bool {
        let next = self.versions.above(self.swept).next();
        self.floor >= self.compacted && next.is_none_or(|id| self.versions.get(id).main() > self.floor)
    }

    fn sweep(&mut self, id: u32) {
        let main = self.versions.get(id).main();
        assert!(main <= self.floor, "only what is compacted and not pinned is dropped");
        if let Some(previous) = self.versions.previous(id) {
            self.drop_version(previous, main);
        }
        let version = self.versions.get(id);
        if version.live() || version.main() >= self.floor {
            return;
        }
        let place = self.index.seek(version.key());
        if place.tip().is_some_and(|tip| tip.version() == id) {
            self.index.remove(&place);
        }
        self.drop_version(id, main.next());
    }

    /// Drops a version that a compaction at `since`, or at any later revision, makes superfluous.
    fn drop_version(&mut self, id: u32, since: Revision) {
        assert!(self.versions.previous(id).is_none(), "chains are dropped from their old end");
        let version = self.versions.get(id);
        assert!(version.main() <= since, "a later change makes a version superfluous");
        assert!(version.main() <= self.settled, "what may still be undone is not dropped");
        self.bytes_total -= cost(version);
        self.on_disk.drops(version, since);
        assert!(self.bytes_live <= self.bytes_total, "history that goes was not live");
        self.versions.remove(id);
    }

    /// Holds history: while the pin stands, every version that compaction had kept when it was made stays,
    /// so that reads at its revision and [`Store::history_pinned`] are right.
    pub fn pin(&mut self, revision: Revision) -> PinId {
        assert!(self.compacted <= revision && revision <= self.settled, "readers see what is settled");
        self.pins_made += 1;
        let id = PinId(self.pins_made);
        let before = self.pins.insert(id, Pin { revision, compacted: self.compacted });
        assert!(before.is_none(), "each pin has a number of its own");
        id
    }

    /// Moves a pin to a later revision. Compaction may have passed that since: the pin has kept the history.
    pub fn extend_pin(&mut self, pin: PinId, revision: Revision) {
        let pin = self.pins.get_mut(&pin).expect("a pin is used while it holds");
        assert!(pin.revision <= revision && revision <= self.settled, "readers see what is settled");
        pin.revision = revision;
    }

    pub fn unpin(&mut self, pin: PinId) {
        self.pins.remove(&pin).expect("a pin is let go once");
    }

    /// The history of a pin for a checkpoint that needs no other. It does not say which changes are the last.
    pub fn state_pinned(&self, pin: PinId, after: At, budget: Budget) -> History {
        let pin = self.pins.get(&pin).expect("a pin is used while it holds");
        let kept = |version: &Version| self.is_kept(version, pin.compacted).then_some(false);
        self.history_where(after, pin.revision, budget, kept)
    }

    /// What a checkpoint at the pin's revision has to add to those before it: the changes above `after`, which
    /// is not below the last one's revision. It does not say which are the last.
    pub fn changes_pinned(&self, pin: PinId, after: At, budget: Budget) -> History {
        assert!(after.main >= self.on_disk.upto(), "a delta begins where the last checkpoint ends");
        let pin = self.pins.get(&pin).expect("a pin is used while it holds");
        let mut history = self.history_where(after, pin.revision, budget, |version| {
            let told = self.is_kept(version, pin.compacted) || self.on_disk.must_hear_of(version);
            told.then_some(false)
        });
        let end = At { main: pin.revision, sub: Sub(u32::MAX) };
        let looked_at = if history.done { end } else { history.resume };
        let buried: Vec<_> = self.on_disk.graves(after, looked_at).take(budget.keys.max(1)).collect();
        if let Some((last, _)) = buried.last().filter(|_| buried.len() == budget.keys.max(1)) {
            history.changes.truncate(history.changes.partition_point(|(at, _)| at <= last));
            (history.resume, history.done) = (**last, false);
        }
        history.changes.extend(buried.into_iter().map(|(at, key)| {
            let event = Event::Delete { key: key.clone(), mod_revision: at.main };
            (*at, HistoryChange { event, last: false })
        }));
        history.changes.sort_unstable_by_key(|(at, _)| *at);
        history
    }

    /// Whether compaction has dropped ends of keys of which the next delta tells.
    pub fn has_graves(&self) -> bool {
        self.on_disk.has_graves()
    }

    /// Notes that the history of a pin is on disk as a whole checkpoint, so that those before it are not
    /// needed.
    pub fn checkpointed_whole(&mut self, pin: PinId) {
        let Pin { revision, compacted } = *self.pins.get(&pin).expect("a pin is used while it holds");
        self.on_disk.has_whole(revision, compacted);
    }

    /// Notes that what a pin adds to the checkpoints before it is on disk, beside them.
    pub fn checkpointed_changes(&mut self, pin: PinId) {
        let Pin { revision, compacted } = *self.pins.get(&pin).expect("a pin is used while it holds");
        self.on_disk.has_changes(revision, compacted);
    }

    /// An empty store for the versions of checkpoints up to a revision, all of which are settled, with the
    /// compaction in effect there.
    pub fn restoring(compacted: Revision, upto: Revision) -> Store {
        let mut store = Store { on_disk: OnDisk::found(upto), ..Store::default() };
        store.settle(upto);
        assert!(compacted <= upto, "a checkpoint compacts what it holds");
        store.compact(compacted);
        store.floor = store.compacted;
        store.swept = At { main: store.compacted, sub: Sub(u32::MAX) };
        store
    }

    /// Takes a version from a checkpoint: in ascending order, before any other change. What is compacted goes
    /// at once. Gives the lease of the live version that it takes the place of, if there is one.
    pub fn restore(&mut self, stored: &StoredVersion<'_>) -> LeaseId {
        assert!(stored.at.main <= self.settled, "checkpoints hold what is settled");
        assert!(self.pins.is_empty(), "a store is restored before anybody reads it");
        let place = self.index.seek(stored.key);
        let before = place.tip().map(|tip| self.versions.get(tip.version()));
        let lease = before.map_or(LeaseId::NONE, |version| version.lease);
        let key = before.map_or_else(|| Blob::new(stored.key), |version| version.key().clone());
        let StoredVersion { at, create_revision, version, lease: its_lease, .. } = *stored;
        let id = self.push(
            &place,
            match stored.value {
                Some(value) => Version::put(at, key, Blob::new(value), create_revision, version, its_lease),
                None => Version::tombstone(at, key, Revision::NONE),
            },
        );
        if at.main <= self.floor {
            self.sweep(id);
        }
        lease
    }

    pub fn sizes(&self) -> Sizes {
        Sizes {
            keys: self.index.live(),
            versions: self.versions.len() as u64,
            bytes_live: self.bytes_live,
            bytes_total: self.bytes_total,
            bytes_reclaimable: self.on_disk.bytes_reclaimable(),
        }
    }
}

#[cfg(test)]
impl Store {
    pub(super) fn check_invariants(&self) {
        self.index.check_invariants();
        let used = self.versions.check_invariants();
        let mut chained = Vec::new();
        self.index.walk(b"", |key, tip| {
            let newest = self.versions.get(tip.version());
            assert_eq!((newest.live(), cost(newest)), (tip.live(), tip.cost()));
            let mut next = Some(tip.version());
            while let Some(id) = next {
                assert_eq!(self.versions.get(id).key(), key);
                chained.push(id);
                next = self.versions.previous(id);
            }
            true
        });
        let order = |ids: &mut Vec<u32>| ids.sort_unstable_by_key(|id| self.versions.get(*id).at());
        order(&mut chained);
        assert_eq!(chained, used, "every version is in its key's chain");
        assert!(self.liveness_changes.iter().all(|change| change.main > self.settled));
    }
}
