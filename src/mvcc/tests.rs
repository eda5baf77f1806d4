//! The store against a naive model: every version of every key in a list, laws applied when asked.

use super::store::VERSION_BYTES;
use super::*;
use crate::stdx::Rng;
use crate::types::{KeyRange, Sub};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

fn at(main: u64) -> At {
    At { main: Revision(main), sub: Sub(0) }
}

#[derive(Default)]
struct Model {
    /// Every change ever made and not undone, in order.
    log: Vec<(At, Event)>,
    settled: Revision,
    compacted: Revision,
}

impl Model {
    fn states(&self, upto: Revision) -> BTreeMap<Blob, (At, Event)> {
        let seen = self.log.iter().filter(|(at, _)| at.main <= upto);
        seen.map(|(at, event)| (event.key().clone(), (*at, event.clone()))).collect()
    }

    fn live(&self, upto: Revision) -> BTreeMap<Blob, KeyValue> {
        let states = self.states(upto).into_iter();
        states
            .filter_map(|(key, (_, event))| match event {
                Event::Put(kv) => Some((key, kv)),
                Event::Delete { .. } => None,
            })
            .collect()
    }

    /// etcd's law of what a compaction keeps: what is above, and of each key the last change at or below,
    /// unless that is a tombstone below.
    fn kept(&self, compacted: Revision, upto: Revision) -> Vec<(At, HistoryChange)> {
        let (base, last) = (self.states(compacted), self.states(upto));
        let kept = self.log.iter().filter(|(at, event)| {
            let tombstone = matches!(event, Event::Delete { .. });
            let latest = base.get(event.key()).is_some_and(|(last, _)| last == at);
            at.main <= upto && (at.main > compacted || (latest && !(tombstone && at.main < compacted)))
        });
        kept.map(|(at, event)| {
            let last = last[event.key()].0 == *at;
            (*at, HistoryChange { event: event.clone(), last })
        })
        .collect()
    }

    fn put(&mut self, at: At, key: &[u8], value: &Blob, lease: LeaseId) -> Option<KeyValue> {
        let previous = self.live(Revision(u64::MAX)).remove(&Blob::new(key));
        let create_revision = previous.as_ref().map_or(at.main, |kv| kv.create_revision);
        let version = previous.as_ref().map_or(1, |kv| kv.version + 1);
        let (key, value) = (Blob::new(key), value.clone());
        let kv = KeyValue { key, value, create_revision, mod_revision: at.main, version, lease };
        self.log.push((at, Event::Put(kv)));
        previous
    }

    fn delete(&mut self, at: At, key: &[u8]) -> Option<KeyValue> {
        let previous = self.live(Revision(u64::MAX)).remove(&Blob::new(key))?;
        self.log.push((at, Event::Delete { key: Blob::new(key), mod_revision: at.main }));
        Some(previous)
    }

    fn lease_of(&self, key: &Blob) -> LeaseId {
        self.live(Revision(u64::MAX)).get(key).map_or(LeaseId::NONE, |kv| kv.lease)
    }

    fn undo_above(&mut self, settled: Revision) -> Vec<Undone> {
        let mut undone = Vec::new();
        while self.log.last().is_some_and(|(at, _)| at.main > settled) {
            let (at, event) = self.log.pop().unwrap();
            let lease = match &event {
                Event::Put(kv) => kv.lease,
                Event::Delete { .. } => LeaseId::NONE,
            };
            let (key, lease_again) = (event.key().clone(), self.lease_of(event.key()));
            undone.push(Undone { at, key, lease, lease_again });
        }
        undone
    }

    fn sizes(&self) -> Sizes {
        let versions = self.kept(self.compacted, Revision(u64::MAX));
        let live = self.live(Revision(u64::MAX));
        let of = |kv: &KeyValue| cost(&Event::Put(kv.clone()));
        let total = versions.iter().map(|(_, change)| cost(&change.event));
        Sizes {
            keys: live.len() as u64,
            versions: versions.len() as u64,
            bytes_live: live.values().map(of).sum(),
            bytes_total: total.sum(),
            bytes_reclaimable: 0,
        }
    }

    /// What of the checkpoints is no longer needed.
    fn reclaimable(&self, files: &[File]) -> u64 {
        let kept: BTreeSet<At> =
            self.kept(self.compacted, Revision(u64::MAX)).into_iter().map(|(at, _)| at).collect();
        let on_disk = files.iter().flat_map(|file| &file.changes);
        on_disk.filter(|(at, _)| !kept.contains(at)).map(|(_, event)| cost(event)).sum()
    }
}

fn cost(event: &Event) -> u64 {
    let value = if let Event::Put(kv) = event { kv.value.len() } else { 0 };
    VERSION_BYTES + (event.key().len() + value) as u64
}

/// A pin with the history that its reader must see.
struct Pinned {
    id: PinId,
    revision: Revision,
    compacted: Revision,
    history: Vec<(At, HistoryChange)>,
}

struct Run {
    rng: Rng,
    model: Model,
    store: Store,
    pins: Vec<Pinned>,
    keys: u64,
    head: u64,
    /// The base first.
    files: Vec<File>,
    checkpoint: Option<Checkpoint>,
    /// Bases and deltas restored from.
    restored: [usize; 2],
}

/// A checkpoint on the disk.
struct File {
    revision: Revision,
    compacted: Revision,
    changes: Vec<(At, Event)>,
}

/// One being written.
struct Checkpoint {
    pin: PinId,
    base: bool,
    after: At,
    file: File,
}

fn stored(at: At, event: &Event) -> StoredVersion<'_> {
    match event {
        Event::Put(kv) => StoredVersion {
            at,
            key: &kv.key,
            value: Some(&kv.value),
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        },
        Event::Delete { key, .. } => {
            let (create_revision, version, lease) = (Revision::NONE, 0, LeaseId::NONE);
            StoredVersion { at, key, value: None, create_revision, version, lease }
        }
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = Rng::new(seed);
        let keys = *rng.pick(&[3, 40, 600]);
        Run {
            rng,
            model: Model::default(),
            store: Store::new(),
            pins: Vec::new(),
            keys,
            head: 1,
            files: Vec::new(),
            checkpoint: None,
            restored: [0; 2],
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.rng.below(self.keys);
        match n % 4 {
            0 => format!("/registry/pods/default/{n:05}").into_bytes(),
            1 => format!("/registry/pods/{n}").into_bytes(),
            2 => vec![0; n as usize % 30],
            _ => n.to_le_bytes().to_vec(),
        }
    }

    fn range(&mut self) -> KeyRange {
        let (a, b) = (self.key(), self.key());
        match self.rng.below(4) {
            0 => KeyRange::One(Bytes::from(a)),
            1 => KeyRange::From(Bytes::from(a)),
            2 => KeyRange::everything(),
            _ => KeyRange::Between(Bytes::from(a), Bytes::from(b)),
        }
    }

    fn budget(&mut self) -> Budget {
        let any = [1, 2, 7, 100, usize::MAX];
        Budget { keys: *self.rng.pick(&any), bytes: *self.rng.pick(&any) }
    }

    /// A revision of one to three changes.
    fn write(&mut self) {
        self.head += 1;
        for sub in 0..1 + self.rng.below(3) {
            let at = At { main: Revision(self.head), sub: Sub(sub as u32) };
            let key = self.key();
            if self.rng.chance(2, 3) {
                let value = Blob::new(&vec![b'v'; self.rng.below(20) as usize]);
                let lease = LeaseId(self.rng.below(3).cast_signed());
                let previous = self.store.put(at, &key, value.clone(), lease);
                assert_eq!(previous, self.model.put(at, &key, &value, lease));
            } else {
                assert_eq!(self.store.delete(at, &key), self.model.delete(at, &key));
            }
        }
    }

    fn settled_revision(&mut self) -> Revision {
        let (low, high) = (self.model.compacted.0, self.model.settled.0);
        Revision(low + self.rng.below(high - low + 1))
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..58 => self.write(),
            58..60 => self.write_checkpoint(),
            60..75 => {
                let settled = self.model.settled.0;
                let to = Revision(settled + self.rng.below(self.head - settled + 1));
                self.model.settled = to;
                self.store.settle(to);
            }
            75..79 => self.undo(),
            79..82 => {
                let to = self.settled_revision();
                self.model.compacted = to;
                self.store.compact(to);
            }
            82..90 => {
                let keys = *self.rng.pick(&[1, 3, 1000]);
                self.store.compact_slice(keys);
            }
            90..93 if self.pins.len() < 3 => {
                let (revision, compacted) = (self.settled_revision(), self.model.compacted);
                let history = self.model.kept(compacted, revision);
                self.pins.push(Pinned { id: self.store.pin(revision), revision, compacted, history });
            }
            93 if !self.pins.is_empty() => {
                let (n, to) = (self.rng.below(self.pins.len() as u64) as usize, self.settled_revision());
                let pin = &mut self.pins[n];
                pin.revision = pin.revision.max(to);
                pin.history = self.model.kept(pin.compacted, pin.revision);
                self.store.extend_pin(pin.id, pin.revision);
            }
            94..96 if !self.pins.is_empty() => {
                let n = self.rng.below(self.pins.len() as u64) as usize;
                self.store.unpin(self.pins.swap_remove(n).id);
            }
            96 => self.restart(),
            97..99 => self.write_checkpoint(),
            _ => self.read(),
        }
        self.store.check_invariants();
    }

    fn undo(&mut self) {
        let settled = self.model.settled;
        let mut undone = Vec::new();
        self.store.undo_above(settled, &mut |one| undone.push(one));
        assert_eq!(undone, self.model.undo_above(settled));
        // After a takeover revisions start again above what was settled.
        self.head = settled.0.max(1);
    }

    /// Begins a checkpoint or writes a slice of one.
    fn write_checkpoint(&mut self) {
        let budget = self.budget();
        let Some(checkpoint) = &mut self.checkpoint else {
            let (revision, compacted) = (self.model.settled, self.model.compacted);
            let base = self.files.is_empty() || self.rng.chance(1, 5);
            let last = self.files.last().map_or(Revision::NONE, |file| file.revision);
            let after = if base { At::default() } else { At { main: last, sub: Sub(u32::MAX) } };
            let file = File { revision, compacted, changes: vec![] };
            self.checkpoint = Some(Checkpoint { pin: self.store.pin(revision), base, after, file });
            return;
        };
        let part = match checkpoint.base {
            true => self.store.state_pinned(checkpoint.pin, checkpoint.after, budget),
            false => self.store.changes_pinned(checkpoint.pin, checkpoint.after, budget),
        };
        checkpoint.after = part.resume;
        checkpoint.file.changes.extend(part.changes.into_iter().map(|(at, change)| (at, change.event)));
        if !part.done {
            return;
        }
        let Checkpoint { pin, base, file, .. } = self.checkpoint.take().expect("it is under way");
        // Some fail at the end: then the disk has what it had.
        if self.rng.chance(4, 5) {
            if base {
                self.files.clear();
                self.store.checkpointed_whole(pin);
            } else {
                self.store.checkpointed_changes(pin);
            }
            self.files.push(file);
        }
        self.store.unpin(pin);
    }

    /// The store from the checkpoints, and what the log has beyond them.
    fn restart(&mut self) {
        self.undo();
        let pins = self.pins.drain(..).map(|pin| pin.id);
        pins.chain(self.checkpoint.take().map(|under_way| under_way.pin))
            .for_each(|pin| self.store.unpin(pin));
        self.check_sizes();
        let (revision, compacted) = self.files.last().map_or_else(Default::default, |file| {
            self.restored[usize::from(self.files.len() > 1)] += 1;
            (file.revision, file.compacted)
        });
        let mut store = Store::restoring(compacted, revision);
        let mut leases: BTreeMap<Blob, LeaseId> = BTreeMap::new();
        for (at, event) in self.files.iter().flat_map(|file| &file.changes) {
            let version = stored(*at, event);
            let before = leases.insert(event.key().clone(), version.lease).unwrap_or(LeaseId::NONE);
            assert_eq!(store.restore(&version), before);
        }
        assert!(store.is_swept());
        for (at, event) in self.model.log.iter().filter(|(at, _)| at.main > revision) {
            match event {
                Event::Put(kv) => drop(store.put(*at, &kv.key, kv.value.clone(), kv.lease)),
                Event::Delete { key, .. } => assert!(store.delete(*at, key).is_some()),
            }
        }
        store.settle(self.model.settled);
        store.compact(self.model.compacted);
        store.check_invariants();
        self.store = store;
        self.read();
    }

    fn read(&mut self) {
        let pinned = self.pins.iter().map(|pin| pin.revision);
        let mut revisions: Vec<Revision> = pinned.collect();
        let (low, high) = (self.model.compacted.0, self.head.max(self.model.compacted.0));
        revisions.push(Revision(low));
        revisions.push(Revision(high));
        revisions.push(self.model.settled);
        revisions.push(Revision(low + self.rng.below(high - low + 1)));
        for revision in revisions {
            self.read_at(revision);
        }
        for n in 0..self.pins.len() {
            let (pin, budget) = (self.pins[n].id, self.budget());
            let mut changes = Vec::new();
            let mut after = At::default();
            loop {
                let part = self.store.history_pinned(pin, after, budget);
                assert!(part.changes.len() <= budget.keys);
                changes.extend(part.changes);
                after = part.resume;
                if part.done {
                    break;
                }
            }
            assert_eq!(changes, self.pins[n].history);
        }
        let (from, upto) = (self.rng.below(self.head + 1), self.rng.below(self.head + 2));
        let after = At { main: Revision(from), sub: Sub(self.rng.below(2) as u32) };
        let mut expected = self.model.kept(self.model.compacted, Revision(upto));
        expected.retain(|(at, _)| *at > after);
        assert_eq!(self.store.history(after, Revision(upto), Budget::UNBOUNDED).changes, expected);
        let live = self.model.live(Revision(u64::MAX));
        for (key, kv) in &live {
            assert_eq!(self.store.newest(key).as_ref(), Some(kv));
            let meta = self.store.newest_meta(key).unwrap();
            let (create_revision, mod_revision) = (kv.create_revision, kv.mod_revision);
            assert_eq!(meta, KeyMeta { create_revision, mod_revision, version: kv.version, lease: kv.lease });
        }
        if self.pins.is_empty() && self.checkpoint.is_none() && self.rng.chance(1, 4) {
            self.check_sizes();
        }
    }

    fn check_sizes(&mut self) {
        while !self.store.compact_slice(5) {}
        assert!(self.store.is_swept());
        let bytes_reclaimable = self.model.reclaimable(&self.files);
        assert_eq!(self.store.sizes(), Sizes { bytes_reclaimable, ..self.model.sizes() });
    }

    fn read_at(&mut self, revision: Revision) {
        let live = self.model.live(revision);
        for _ in 0..5 {
            let key = self.key();
            assert_eq!(self.store.get(&key, revision).as_ref(), live.get(&Blob::new(&key)));
        }
        let (range, budget) = (self.range(), self.budget());
        let expected: Vec<KeyValue> = live.into_values().filter(|kv| range.contains(&kv.key)).collect();
        let mut kvs = Vec::new();
        let mut resume: Option<Blob> = None;
        loop {
            let slice = self.store.range(&range, revision, resume.as_deref(), budget);
            assert!(slice.kvs.len() <= budget.keys);
            kvs.extend(slice.kvs);
            let Some(next) = slice.resume else { break };
            assert!(resume.is_none_or(|before| next > before) && range.contains(&next));
            resume = Some(next);
        }
        assert_eq!(kvs, expected);
        if revision >= self.store.newest_revision().main {
            let found = self.store.keys_in(&range, budget.keys, usize::MAX);
            assert!(
                found <= budget.keys.saturating_add(1) && (found >= kvs.len() || found > budget.keys),
                "{found}"
            );
            assert!(self.store.keys_in(&range, usize::MAX, usize::MAX) >= kvs.len());
            let upto_first = self.store.keys_in(&range, usize::MAX, 1);
            assert!(kvs.is_empty() || upto_first >= 1);
        }
        let mut count = 0;
        resume = None;
        loop {
            let counted = self.store.count(&range, revision, resume.as_deref(), budget.keys);
            count += counted.count;
            resume = counted.resume;
            if resume.is_none() {
                break;
            }
            let newest = self.store.newest_revision().main;
            assert!(revision < newest, "a count of the newest state comes at once");
        }
        assert_eq!(count, expected.len() as u64);
    }
}

/// Seeds are many and runs short, so that a failing seed is small; the line printed last names it.
#[test]
fn the_store_is_the_model() {
    let mut restored = [0; 2];
    for seed in 0..60 {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..500 {
            run.step();
        }
        run.read();
        run.restart();
        restored = [restored[0] + run.restored[0], restored[1] + run.restored[1]];
    }
    assert!(restored.iter().all(|times| *times > 50), "restarts from bases and from deltas: {restored:?}");
}

/// Compaction has dropped all that told of the key's end before a checkpoint could.
#[test]
fn a_key_deleted_and_compacted_between_two_checkpoints_stays_away() {
    let mut store = Store::new();
    store.put(at(2), b"a", Blob::new(b"1"), LeaseId::NONE);
    store.settle(Revision(2));
    let pin = store.pin(Revision(2));
    let base = store.state_pinned(pin, At::default(), Budget::UNBOUNDED).changes;
    store.checkpointed_whole(pin);
    store.unpin(pin);
    store.delete(at(3), b"a");
    // Nobody knows of these, so that nobody needs to hear of their ends.
    for main in (4..40).step_by(2) {
        store.put(at(main), b"b", Blob::new(b"1"), LeaseId::NONE);
        store.delete(at(main + 1), b"b");
    }
    store.settle(Revision(39));
    store.compact(Revision(39));
    while !store.compact_slice(1) {}
    assert_eq!(store.sizes().versions, 1, "the tombstone at the compaction itself");
    let pin = store.pin(Revision(39));
    let after = At { main: Revision(2), sub: Sub(u32::MAX) };
    let delta = store.changes_pinned(pin, after, Budget::UNBOUNDED).changes;
    assert_eq!(delta.iter().map(|(at, _)| at.main.0).collect::<Vec<u64>>(), [3, 39]);
    let mut again = Store::restoring(Revision(39), Revision(39));
    for (at, change) in base.iter().chain(&delta) {
        again.restore(&stored(*at, &change.event));
    }
    assert_eq!(again.newest(b"a"), None);
    // The put of the base, its tombstone and what is left: the restored store knows that files hold the first
    // two.
    assert_eq!(again.sizes(), Sizes { bytes_reclaimable: again.sizes().bytes_reclaimable, ..store.sizes() });
    assert_eq!(again.sizes().bytes_reclaimable, 2 * VERSION_BYTES + 2 + 1);
}

#[test]
fn history_is_not_dropped_while_a_pin_holds_it() {
    let mut store = Store::new();
    for main in 2..10 {
        store.put(at(main), b"a", Blob::new(b"1"), LeaseId::NONE);
    }
    store.settle(Revision(9));
    let pin = store.pin(Revision(5));
    store.compact(Revision(9));
    assert!(!store.is_swept());
    while !store.compact_slice(100) {}
    assert!(!store.is_swept() && store.sizes().versions == 8);
    store.unpin(pin);
    while !store.compact_slice(100) {}
    assert!(store.is_swept() && store.sizes().versions == 1);
}

#[test]
fn a_version_counts_from_the_put_that_created_the_key() {
    let mut store = Store::new();
    assert_eq!(store.put(at(2), b"a", Blob::new(b"1"), LeaseId::NONE), None);
    assert_eq!(store.put(at(3), b"a", Blob::new(b"2"), LeaseId(7)).map(|kv| kv.version), Some(1));
    assert_eq!(store.newest(b"a").map(|kv| (kv.version, kv.create_revision)), Some((2, Revision(2))));
    assert!(store.delete(at(4), b"a").is_some() && store.delete(at(5), b"a").is_none());
    store.put(at(5), b"a", Blob::new(b"3"), LeaseId::NONE);
    assert_eq!(store.newest(b"a").map(|kv| (kv.version, kv.create_revision)), Some((1, Revision(5))));
    assert_eq!(store.get(b"a", Revision(4)), None);
    assert_eq!(store.get(b"a", Revision(3)).map(|kv| kv.lease), Some(LeaseId(7)));
}
