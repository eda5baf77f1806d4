//! All versions of a shard's keys: each key's chain from new to old, and the order of revisions over all.
//!
//! A version is one cache line in a slab and has a number for as long as it is held. It names the version
//! before it (`prev`) and one further back (`jump`), chosen as in a skew-binary list, so that the state at
//! an old revision is found in O(log n) steps however often the key has changed since. Which one that is follows
//! from how many versions lie below, so that a write looks at one or two old versions, which lie far away.
//!
//! Compaction drops the old end of a chain and leaves the names of what it dropped standing. That is sound.
//! A number given out again goes to a version written later than all that were written while it was in use,
//! so `prev` counts only where it leads to an older version. A `jump` may have been copied from another version
//! after what it names was dropped, so it counts only where it leads to an older version of the same key: whatever
//! that is, it is further back in the same chain. A free slot is later than everything.
//!
//! The order of revisions is a row of chunks of numbers. Changes are added and undone at the back;
//! what compaction drops leaves holes; a chunk half empty is closed up and joined with a neighbour.

use crate::types::{At, Blob, Event, KeyValue, LeaseId, Revision, Sub};
use std::collections::VecDeque;
use std::hint::black_box;

#[cfg(not(test))]
const CHUNK: usize = 512;
#[cfg(test)]
const CHUNK: usize = 32;
const SLAB_BITS: u32 = 12;
const NONE: u32 = u32::MAX;

/// One version of a key.
pub(super) struct Version {
    main: u64,
    sub: u32,
    /// The version before it; for a free slot the next free one.
    prev: u32,
    jump: u32,
    /// How many versions of the chain lay before it when it was written; wraps.
    depth: u32,
    key: Option<Blob>,
    /// `None` is a tombstone.
    value: Option<Blob>,
    /// When the key was created; of a tombstone, the key that it ended (none where a checkpoint brought it).
    pub(super) create_revision: Revision,
    pub(super) version: u64,
    pub(super) lease: LeaseId,
}

const _: () = assert!(size_of::<Version>() == 64, "a version is one cache line");

impl Version {
    /// A put that is in no chain yet.
    pub(super) fn put(
        at: At,
        key: Blob,
        value: Blob,
        create: Revision,
        version: u64,
        lease: LeaseId,
    ) -> Version {
        Version { value: Some(value), version, lease, ..Version::tombstone(at, key, create) }
    }

    /// A tombstone, in no chain yet, of a key that was created at `created`.
    pub(super) fn tombstone(at: At, key: Blob, created: Revision) -> Version {
        Version {
            main: at.main.0,
            sub: at.sub.0,
            prev: NONE,
            jump: NONE,
            depth: 0,
            key: Some(key),
            value: None,
            create_revision: created,
            version: 0,
            lease: LeaseId::NONE,
        }
    }

    pub(super) fn at(&self) -> At {
        At { main: Revision(self.main), sub: Sub(self.sub) }
    }

    pub(super) fn main(&self) -> Revision {
        Revision(self.main)
    }

    pub(super) fn live(&self) -> bool {
        self.value.is_some()
    }

    pub(super) fn key(&self) -> &Blob {
        self.key.as_ref().expect("a version in use has a key")
    }

    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        self.key().len() + self.value.as_ref().map_or(0, |value| value.len())
    }

    pub(super) fn key_value(&self) -> Option<KeyValue> {
        let value = self.value.clone()?;
        Some(KeyValue {
            key: self.key().clone(),
            value,
            create_revision: self.create_revision,
            mod_revision: self.main(),
            version: self.version,
            lease: self.lease,
        })
    }

    pub(super) fn event(&self) -> Event {
        match self.key_value() {
            Some(kv) => Event::Put(kv),
            None => Event::Delete { key: self.key().clone(), mod_revision: self.main() },
        }
    }
}

struct Stretch {
    /// The first change it ever held: all that it holds is at or above it, all before the chunk is below.
    first: At,
    /// Numbers in order; [`NONE`] is a hole.
    ids: Vec<u32>,
    holes: usize,
}

#[derive(Default)]
pub(super) struct Versions {
    slab: Vec<Vec<Version>>,
    /// The first of the free slots, which are chained by `prev`.
    free: Option<u32>,
    order: VecDeque<Stretch>,
    len: usize,
}

impl Versions {
    pub(super) fn get(&self, id: u32) -> &Version {
        &self.slab[(id >> SLAB_BITS) as usize][(id & ((1 << SLAB_BITS) - 1)) as usize]
    }

    /// Brings to the processor what [`Versions::push`] will look at before it pushes onto these versions, those that
    /// there are.
    pub(super) fn touch(&self, ids: &[u32]) {
        let slot =
            |id: u32| self.slab.get((id >> SLAB_BITS) as usize)?.get((id & ((1 << SLAB_BITS) - 1)) as usize);
        let versions = || ids.iter().filter_map(|id| slot(*id));
        black_box(versions().fold(0, |all, version| all ^ version.prev));
        let jumps = versions().filter(|version| ends_with_twins(version.depth)).map(|version| version.jump);
        black_box(jumps.filter_map(slot).fold(0, |all, version| all ^ version.prev));
    }

    fn slot(&mut self, id: u32) -> &mut Version {
        &mut self.slab[(id >> SLAB_BITS) as usize][(id & ((1 << SLAB_BITS) - 1)) as usize]
    }

    /// The version a name leads to, seen from a newer one; `None` where that was dropped.
    fn older(&self, id: u32, than: &Version) -> Option<&Version> {
        let version = (id != NONE).then(|| self.get(id))?;
        (version.at() < than.at()).then_some(version)
    }

    /// The version further back that one names.
    fn jump(&self, from: &Version) -> Option<&Version> {
        self.older(from.jump, from).filter(|version| version.key().is_same(from.key()))
    }

    /// The number of the version before one.
    pub(super) fn previous(&self, id: u32) -> Option<u32> {
        let version = self.get(id);
        self.older(version.prev, version).map(|_| version.prev)
    }

    /// The newest version of a chain at or below a revision, from the chain's newest one.
    pub(super) fn find(&self, newest: u32, at: Revision) -> Option<&Version> {
        let mut version = self.get(newest);
        while version.main() > at {
            version = match self.jump(version) {
                Some(jump) if jump.main() > at => jump,
                _ => self.older(version.prev, version)?,
            };
        }
        Some(version)
    }

    /// Adds a version at the back of the order and in front of its key's chain. Returns its number.
    pub(super) fn push(&mut self, mut version: Version, prev: Option<u32>) -> u32 {
        if let Some(prev) = prev {
            let before = self.get(prev);
            assert!(before.at() < version.at(), "a chain goes from new to old");
            version.prev = prev;
            version.depth = before.depth.wrapping_add(1);
            version.jump = match ends_with_twins(before.depth) {
                true => self.jump(before).map_or(prev, |jump| jump.jump),
                false => prev,
            };
        }
        let at = version.at();
        let id = self.allocate(version);
        match self.order.back_mut() {
            Some(chunk) if chunk.ids.len() < CHUNK => chunk.ids.push(id),
            _ => {
                let mut ids = Vec::with_capacity(CHUNK);
                ids.push(id);
                self.order.push_back(Stretch { first: at, ids, holes: 0 });
            }
        }
        self.len += 1;
        id
    }

    fn allocate(&mut self, version: Version) -> u32 {
        if let Some(id) = self.free {
            let next = self.get(id).prev;
            assert!(self.get(id).key.is_none(), "a free slot holds no version");
            self.free = (next != NONE).then_some(next);
            *self.slot(id) = version;
            return id;
        }
        if self.slab.last().is_none_or(|last| last.len() == 1 << SLAB_BITS) {
            self.slab.push(Vec::with_capacity(1 << SLAB_BITS));
        }
        let last = self.slab.len() - 1;
        self.slab[last].push(version);
        u32::try_from((last << SLAB_BITS) + self.slab[last].len() - 1).expect("below 2^31, as tips assert")
    }

    fn release(&mut self, id: u32) {
        let next = self.free.replace(id).unwrap_or(NONE);
        let slot = self.slot(id);
        assert!(slot.key.is_some(), "a version is dropped once");
        (slot.main, slot.sub, slot.prev) = (u64::MAX, u32::MAX, next);
        (slot.key, slot.value) = (None, None);
        self.len -= 1;
    }

    /// The number of the newest version of all.
    pub(super) fn last(&self) -> Option<u32> {
        self.order.back().map(|chunk| *chunk.ids.last().expect("a chunk ends with a version"))
    }

    /// Takes the newest version of all back.
    pub(super) fn pop(&mut self) {
        let chunk = self.order.back_mut().expect("there is a version to take back");
        let id = chunk.ids.pop().expect("a chunk ends with a version");
        assert!(id != NONE, "the order ends with a version, not with a hole");
        self.trim_back();
        self.release(id);
        if let Some(back) = self.order.len().checked_sub(1) {
            self.close_up_if_sparse(back);
        }
    }

    /// Restores the rule that the order ends with a version, not with a hole.
    fn trim_back(&mut self) {
        while let Some(chunk) = self.order.back_mut() {
            while chunk.ids.last() == Some(&NONE) {
                chunk.ids.pop();
                chunk.holes -= 1;
            }
            if !chunk.ids.is_empty() {
                break;
            }
            self.order.pop_back();
        }
    }

    /// Drops a version, the oldest of its chain.
    pub(super) fn remove(&mut self, id: u32) {
        let at = self.get(id).at();
        let n = self.order.partition_point(|chunk| chunk.first <= at);
        let n = n.checked_sub(1).expect("a version has its place in the order");
        let chunk = &mut self.order[n];
        let place =
            chunk.ids.iter().position(|one| *one == id).expect("a version has its place in the order");
        chunk.ids[place] = NONE;
        chunk.holes += 1;
        assert!(chunk.holes <= chunk.ids.len(), "holes are places of what was dropped");
        self.release(id);
        if n + 1 == self.order.len() {
            self.trim_back();
        }
        self.close_up_if_sparse(n);
    }

    fn close_up_if_sparse(&mut self, n: usize) {
        if self.order.get(n).is_some_and(|chunk| chunk.holes * 2 > chunk.ids.len()) {
            self.close_up(n);
        }
    }

    fn close_up(&mut self, n: usize) {
        let chunk = &mut self.order[n];
        let held = chunk.ids.len() - chunk.holes;
        chunk.ids.retain(|id| *id != NONE);
        assert!(chunk.ids.len() == held, "the holes of a chunk are counted");
        chunk.ids.shrink_to_fit();
        chunk.holes = 0;
        if chunk.ids.is_empty() {
            self.order.remove(n);
            return;
        }
        for left in [Some(n), n.checked_sub(1)].into_iter().flatten() {
            let Some(right) = self.order.get(left + 1) else { continue };
            if self.order[left].ids.len() + right.ids.len() <= CHUNK / 2 {
                let right = self.order.remove(left + 1).expect("it was just there");
                let into = &mut self.order[left];
                into.ids.extend(right.ids);
                into.holes += right.holes;
            }
        }
    }

    /// The numbers of the versions above a place, in order.
    pub(super) fn above(&self, after: At) -> impl Iterator<Item = u32> {
        let n = self.order.partition_point(|chunk| chunk.first <= after).saturating_sub(1);
        let skip = self.order.get(n).map_or(0, |chunk| self.first_above(&chunk.ids, after));
        let chunks = self.order.range(n.min(self.order.len())..);
        let ids = chunks.enumerate().flat_map(move |(i, c)| &c.ids[if i == 0 { skip } else { 0 }..]);
        ids.copied().filter(|id| *id != NONE)
    }

    fn first_above(&self, ids: &[u32], after: At) -> usize {
        let (mut low, mut high) = (0, ids.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match ids[middle..high].iter().position(|id| *id != NONE) {
                Some(holes) if self.get(ids[middle + holes]).at() <= after => low = middle + holes + 1,
                _ => high = middle,
            }
        }
        low
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Whether, of so many versions cut into runs of `2^k - 1` from the longest down, the last two are equally long:
/// then the next version jumps over both.
fn ends_with_twins(versions: u32) -> bool {
    let (mut rest, mut last) = (u64::from(versions), 0);
    while rest > 0 {
        let run = (1 << (rest + 1).ilog2()) - 1;
        rest -= run;
        if rest == 0 {
            return run == last;
        }
        last = run;
    }
    false
}

#[cfg(test)]
impl Versions {
    /// Order, holes and free slots; gives the numbers in use.
    pub(super) fn check_invariants(&self) -> Vec<u32> {
        let mut before = At::default();
        for chunk in &self.order {
            assert!(chunk.first > before || before == At::default());
            assert!(!chunk.ids.is_empty() && chunk.holes * 2 <= chunk.ids.len());
            assert_eq!(chunk.holes, chunk.ids.iter().filter(|id| **id == NONE).count());
            for id in chunk.ids.iter().filter(|id| **id != NONE) {
                let at = self.get(*id).at();
                assert!(at >= chunk.first && (at > before || before == At::default()));
                before = at;
            }
        }
        assert!(self.order.back().is_none_or(|chunk| chunk.ids.last() != Some(&NONE)));
        let used: Vec<u32> = self.above(At::default()).collect();
        assert_eq!(used.len(), self.len);
        let mut free = 0;
        let mut next = self.free;
        while let Some(id) = next {
            assert!(self.get(id).key.is_none() && self.get(id).main == u64::MAX);
            free += 1;
            next = Some(self.get(id).prev).filter(|id| *id != NONE);
        }
        assert_eq!(free + used.len(), self.slab.iter().map(Vec::len).sum::<usize>());
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many versions a search looks at.
    fn steps(versions: &Versions, newest: u32, at: Revision) -> usize {
        let mut version = versions.get(newest);
        let mut steps = 0;
        while version.main() > at {
            steps += 1;
            version = match versions.jump(version) {
                Some(jump) if jump.main() > at => jump,
                _ => versions.older(version.prev, version).unwrap(),
            };
        }
        steps
    }

    /// The jump of a version is copied from another one's, and what that names may have been dropped.
    #[test]
    fn a_number_that_another_key_has_been_given_misleads_no_search() {
        let mut versions = Versions::default();
        let [a, b] = [Blob::new(b"a"), Blob::new(b"b")];
        let put = |main, key: &Blob| {
            let at = At { main: Revision(main), sub: Sub(0) };
            Version::put(at, key.clone(), key.clone(), Revision(1), main, LeaseId::NONE)
        };
        let first = versions.push(put(1, &a), None);
        let second = versions.push(put(2, &a), Some(first));
        let third = versions.push(put(3, &a), Some(second));
        versions.remove(first);
        assert_eq!(versions.push(put(4, &b), None), first, "the number is given out again");
        let newest = versions.push(put(5, &a), Some(third));
        assert_eq!(versions.get(newest).jump, first, "and named by another key");
        for main in 2..=3 {
            assert_eq!(versions.find(newest, Revision(main)).map(Version::main), Some(Revision(main)));
        }
        assert!(versions.find(newest, Revision(1)).is_none());
    }

    #[test]
    fn a_key_that_changed_often_is_read_in_few_steps_also_behind_a_compaction() {
        let mut versions = Versions::default();
        let key = Blob::new(b"k");
        let mut ids: Vec<u32> = Vec::new();
        let mut dropped = 0;
        for main in 1..=20_000u64 {
            let at = At { main: Revision(main), sub: Sub(0) };
            let version = Version::put(at, key.clone(), key.clone(), Revision(1), main, LeaseId::NONE);
            ids.push(versions.push(version, ids.last().copied()));
            if main % 5000 == 2500 {
                let keep = ids.len() - 1000;
                while dropped < keep {
                    versions.remove(ids[dropped]);
                    dropped += 1;
                }
            }
        }
        let newest = *ids.last().unwrap();
        for main in dropped as u64 + 1..=20_000 {
            assert_eq!(versions.find(newest, Revision(main)).map(Version::main), Some(Revision(main)));
            let steps = steps(&versions, newest, Revision(main));
            assert!(steps <= 3 * 15, "{steps} steps to {main}");
        }
        assert!(versions.find(newest, Revision(dropped as u64)).is_none());
        versions.check_invariants();
    }
}
