//! The store against a naive model: every version of every key in a list, laws applied when asked.

use super::store::VERSION_BYTES;
use super::*;
use crate::stdx::Rng;
use crate::types::{KeyRange, Sub};
use bytes::Bytes;
use std::collections::BTreeMap;

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
    fn kept(&self, compacted: Revision, upto: Revision) -> Vec<(At, Change)> {
        let (base, last) = (self.states(compacted), self.states(upto));
        let kept = self.log.iter().filter(|(at, event)| {
            let tombstone = matches!(event, Event::Delete { .. });
            let latest = base.get(event.key()).is_some_and(|(last, _)| last == at);
            at.main <= upto && (at.main > compacted || (latest && !(tombstone && at.main < compacted)))
        });
        kept.map(|(at, event)| {
            let last = last[event.key()].0 == *at;
            (*at, Change { event: event.clone(), last })
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

    /// What of a checkpoint is no longer needed.
    fn reclaimable(&self, on_disk: &[(At, Change)]) -> u64 {
        let kept = self.kept(self.compacted, Revision(u64::MAX));
        let dropped = on_disk.iter().filter(|(at, _)| kept.iter().all(|(kept, _)| kept != at));
        dropped.map(|(_, change)| cost(&change.event)).sum()
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
    history: Vec<(At, Change)>,
}

struct Run {
    rng: Rng,
    model: Model,
    store: Store,
    pins: Vec<Pinned>,
    /// What the newest checkpoint holds.
    on_disk: Vec<(At, Change)>,
    keys: u64,
    head: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = Rng::new(seed);
        let keys = *rng.pick(&[3, 40, 600]);
        let (model, store) = (Model::default(), Store::new());
        Run { rng, model, store, pins: vec![], on_disk: vec![], keys, head: 1 }
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
            0..60 => self.write(),
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
                let pin = self.pins.swap_remove(n);
                if self.rng.chance(1, 2) {
                    self.store.checkpointed(pin.id);
                    self.on_disk = pin.history;
                }
                self.store.unpin(pin.id);
            }
            96 if self.pins.is_empty() => self.restore(),
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

    /// Carries the settled history over into an empty store and goes on with that.
    fn restore(&mut self) {
        self.undo();
        let mut restored = Store::new();
        let mut after = At::default();
        loop {
            let budget = self.budget();
            let history = self.store.history(after, self.model.settled, budget);
            after = history.resume;
            history.changes.into_iter().for_each(|(at, change)| restored.restore(at, change));
            if history.done {
                break;
            }
        }
        restored.restored(self.model.compacted, self.model.settled);
        self.store = restored;
        self.on_disk = self.model.kept(self.model.compacted, self.model.settled);
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
            assert_eq!(meta, Meta { create_revision, mod_revision, version: kv.version, lease: kv.lease });
        }
        if self.pins.is_empty() && self.rng.chance(1, 4) {
            while !self.store.compact_slice(5) {}
            let bytes_reclaimable = self.model.reclaimable(&self.on_disk);
            assert_eq!(self.store.sizes(), Sizes { bytes_reclaimable, ..self.model.sizes() });
        }
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
    for seed in 0..60 {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..400 {
            run.step();
        }
        run.read();
    }
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
