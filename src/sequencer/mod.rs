//! The one counter of revisions, shared by all reactors of a process.
//!
//! ```text
//!   settled            counter        admitted      settled + ring
//!      |  taken, some    |  promised,    |   free      |
//!  ----+--of them marked-+--not taken----+-------------+---->  revisions
//! ```
//!
//! `settled <= counter <= admitted <= settled + ring` holds at every moment. A reactor first fills its
//! *allotment* (it moves `admitted`), evaluates, then takes a revision out of its allotment (it moves
//! `counter`), so that a revision once evaluated never finds the ring full, however many threads take at a
//! time.
//!
//! `counter` and `settled` each share their word with the generation, the process's own number of the epoch
//! that may move them: one compare-and-swap refuses who belongs to an ended epoch. So both stand still once
//! the epoch has ended: what one reactor undoes as unsettled, no other settles meanwhile. The ring keeps one slot a revision: a stamp of
//! the revision and of how many of its parts are not yet committed, and the set of shards it touches. Who
//! marks the last part walks `settled` over the run of finished slots. The stamp names the revision, so a
//! slot that its new owner has taken and not yet written is never mistaken for a finished one.
//!
//! Why not blocks of revisions for each thread, as other stores hand out timestamps: a thread that does not
//! use its block leaves holes, and by etcd's law there are none. Why not a lock: its owner may lose its CPU
//! in it, and all writers of the process would wait for the scheduler.
//!
//! Two threads that finish adjacent revisions at the same time must not both leave the walk to the other:
//! each writes its stamp, then passes a sequentially consistent fence, then reads the other's, so at least
//! one of them sees both.

mod sleepers;
mod testimonies;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use sleepers::Sleepers;

use crate::types::{ChangeNumber, Revision, ShardId, Term};
use crossbeam::utils::CachePadded;
use testimonies::Testimonies;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

const REVISION_BITS: u32 = 48;
const REVISION_MASK: u64 = (1 << REVISION_BITS) - 1;
const PARTS_BITS: u32 = 16;
const PARTS_MASK: u64 = (1 << PARTS_BITS) - 1;

/// The process's own number of an epoch in which it leads. 0 is "nobody takes revisions here".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u16);

impl Generation {
    pub const NONE: Generation = Generation(0);

    /// The generation of the next epoch. It wraps: no reactor keeps an allotment of an epoch whose end it has
    /// acknowledged, so that of 65,535 epochs ago is nobody's any more.
    pub fn next(self) -> Generation {
        Generation(self.0.wrapping_add(1).max(1))
    }
}

/// The epoch is over: nothing of its generation counts any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationEnded;

/// Shards by number modulo 64: may hold more than was put in, never less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    pub fn of(shards: impl IntoIterator<Item = ShardId>) -> ShardSet {
        ShardSet(shards.into_iter().fold(0, |bits, shard| bits | 1 << (shard.0 % 64)))
    }
    pub fn may_hold(self, shard: ShardId) -> bool {
        self.0 & (1 << (shard.0 % 64)) != 0
    }
}

/// Revisions promised to one reactor and not yet taken. Worth nothing once its generation has ended.
#[derive(Debug)]
pub struct Allotment {
    generation: Generation,
    left: u32,
}

impl Allotment {
    pub fn new(generation: Generation) -> Allotment {
        Allotment { generation, left: 0 }
    }
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

struct Slot {
    /// The revision in the upper 48 bits, its parts not yet committed in the lower 16; 0 is "never used".
    stamp: AtomicU64,
    shards: AtomicU64,
}

/// The counter, the ring of commit marks and `settled`; shared by reference count.
pub struct Sequencer {
    /// The generation in the upper 16 bits, the highest revision taken in the lower 48.
    word: CachePadded<AtomicU64>,
    admitted: CachePadded<AtomicU64>,
    /// The generation in the upper 16 bits, the highest settled revision in the lower 48.
    settled: CachePadded<AtomicU64>,
    /// The prefix this generation began with: of revisions up to it the ring knows nothing.
    base: CachePadded<AtomicU64>,
    /// The newest term that this member shows, of the control shard's group: beside `settled` what is shown.
    term: CachePadded<AtomicU64>,
    /// Up to which change every reactor has the control state.
    changes: CachePadded<AtomicU64>,
    ring: Box<[Slot]>,
    testimonies: Testimonies,
}

impl Sequencer {
    /// `ring` is the number of revisions taken and not settled at a time, a power of two.
    pub fn new(ring: usize) -> Sequencer {
        assert!(ring.is_power_of_two(), "the ring is indexed by a mask");
        let slot = || Slot { stamp: AtomicU64::new(0), shards: AtomicU64::new(0) };
        Sequencer {
            word: CachePadded::new(AtomicU64::new(0)),
            admitted: CachePadded::new(AtomicU64::new(0)),
            settled: CachePadded::new(AtomicU64::new(0)),
            base: CachePadded::new(AtomicU64::new(0)),
            term: CachePadded::new(AtomicU64::new(0)),
            changes: CachePadded::new(AtomicU64::new(0)),
            ring: (0..ring).map(|_| slot()).collect(),
            testimonies: Testimonies::new(),
        }
    }

    /// A takeover serves from `prefix` + 1. Call it only when every reactor has acknowledged the end of the
    /// generation before, so that nobody takes or marks meanwhile.
    pub fn start(&self, generation: Generation, prefix: Revision) {
        assert!(generation != Generation::NONE, "generation 0 is nobody's");
        assert!(prefix.0 <= REVISION_MASK, "a revision has 48 bits");
        let (before, _) = self.split();
        assert!(before == Generation::NONE, "generation {} has not ended", before.0);
        let settled = self.settled();
        assert!(prefix >= settled, "settled {settled} would fall to {prefix}");
        for slot in &self.ring {
            slot.stamp.store(0, Ordering::Relaxed);
        }
        self.base.store(prefix.0, Ordering::Relaxed);
        self.admitted.store(prefix.0, Ordering::Relaxed);
        let word = u64::from(generation.0) << REVISION_BITS | prefix.0;
        self.settled.store(word, Ordering::Release);
        self.word.store(word, Ordering::Release);
    }

    /// The epoch ends: once this returns every take of this generation fails, every mark is ignored and
    /// `settled` stands. A generation that is not the current one has ended already.
    pub fn end(&self, generation: Generation) {
        for word in [&self.word, &self.settled] {
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                (generation_of(word) == generation).then_some(word & REVISION_MASK)
            });
        }
    }

    /// This member does not lead, and everything up to here is settled as it knows. Lower than before says nothing.
    /// Call it only while no generation takes revisions, and no other thread begins one.
    pub fn show(&self, upto: Revision) {
        assert!(upto.0 <= REVISION_MASK, "a revision has 48 bits");
        let (generation, _) = self.split();
        assert!(generation == Generation::NONE, "who takes revisions settles them: {}", generation.0);
        // What others have taken the ring knows nothing of.
        self.base.store(u64::MAX, Ordering::Release);
        for word in [&self.admitted, &self.word, &self.settled] {
            word.fetch_max(upto.0, Ordering::AcqRel);
        }
    }

    /// Fills the allotment up to `wanted` revisions; false where the ring has no space for them now.
    pub fn reserve(&self, allotment: &mut Allotment, wanted: u32) -> Result<bool, GenerationEnded> {
        if self.split().0 != allotment.generation {
            return Err(GenerationEnded);
        }
        let Some(more) = wanted.checked_sub(allotment.left).filter(|more| *more > 0) else {
            return Ok(true);
        };
        let mut admitted = self.admitted.load(Ordering::Acquire);
        loop {
            let upto = admitted + u64::from(more);
            assert!(upto <= REVISION_MASK, "48 bits of revisions are used up");
            if upto > self.settled().0 + self.ring.len() as u64 {
                return Ok(false);
            }
            match self.admitted.compare_exchange(admitted, upto, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => admitted = now,
            }
        }
        allotment.left += more;
        assert!(allotment.left as usize <= self.ring.len(), "nobody is promised more than the ring holds");
        Ok(true)
    }

    /// The next revision, for a write with so many parts in these shards. It must be proposed, or its epoch
    /// ends. Panics where the epoch goes on and the allotment is empty: it is filled before evaluation.
    pub fn take(
        &self,
        allotment: &mut Allotment,
        parts: u16,
        shards: ShardSet,
    ) -> Result<Revision, GenerationEnded> {
        assert!(parts > 0, "a revision has at least one part");
        let mut word = self.word.load(Ordering::Acquire);
        let revision = loop {
            if generation_of(word) != allotment.generation {
                return Err(GenerationEnded);
            }
            assert!(allotment.left > 0, "the allotment is filled before evaluation");
            assert!(word & REVISION_MASK < REVISION_MASK, "48 bits of revisions are used up");
            match self.exchange_word(word, word + 1) {
                Ok(_) => break (word + 1) & REVISION_MASK,
                Err(now) => word = now,
            }
        };
        allotment.left -= 1;
        let slot = self.slot(revision);
        let before = slot.stamp.load(Ordering::Relaxed);
        assert!(before & PARTS_MASK == 0, "revision {revision} takes the slot of one that is not settled");
        assert!(before >> PARTS_BITS < revision, "revision {revision} is taken once");
        // Release: who reads the new set also sees that the counter has come around to it (`untouched`).
        slot.shards.store(shards.0, Ordering::Release);
        slot.stamp.store(revision << PARTS_BITS | u64::from(parts), Ordering::Release);
        Ok(Revision(revision))
    }

    /// One part of each of these revisions is committed. Whether `settled` moved by this call, once for all.
    pub fn mark_all(&self, generation: Generation, revisions: impl IntoIterator<Item = Revision>) -> bool {
        if self.split().0 != generation || generation == Generation::NONE {
            return false;
        }
        let mut finished = false;
        for revision in revisions {
            let before = self.slot(revision.0).stamp.fetch_sub(1, Ordering::AcqRel);
            assert!(before >> PARTS_BITS == revision.0, "revision {revision} is marked and not in the ring");
            let parts = before & PARTS_MASK;
            assert!(parts > 0, "revision {revision} is marked more often than it has parts");
            finished |= parts == 1;
        }
        finished && self.advance(generation)
    }

    /// Walks `settled` over the run of finished revisions, unless the generation has ended.
    fn advance(&self, generation: Generation) -> bool {
        fence(Ordering::SeqCst);
        let mut moved = false;
        let mut from = self.settled.load(Ordering::Acquire);
        loop {
            let mut upto = from;
            while self.is_finished((upto & REVISION_MASK) + 1) {
                upto += 1;
            }
            if upto == from || generation_of(from) != generation {
                return moved;
            }
            match self.settled.compare_exchange(from, upto, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => (moved, from) = (true, upto),
                Err(now) => {
                    assert!(now & REVISION_MASK >= from & REVISION_MASK, "settled rises");
                    from = now;
                    continue;
                }
            }
            let counter = self.counter().0;
            assert!(
                upto & REVISION_MASK <= counter,
                "only what was taken settles: {upto:#x} of {counter:#x}"
            );
        }
    }

    fn is_finished(&self, revision: u64) -> bool {
        self.slot(revision).stamp.load(Ordering::Acquire) == revision << PARTS_BITS
    }

    /// Every revision up to this one is committed in every shard it touches.
    pub fn settled(&self) -> Revision {
        Revision(self.settled.load(Ordering::Acquire) & REVISION_MASK)
    }

    /// The control shard's group is in this term. Lower than before says nothing.
    pub fn show_term(&self, term: Term) {
        self.term.fetch_max(term.0, Ordering::AcqRel);
    }

    /// The newest term that any reactor has shown, or may: so that none shows an older one after it.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    /// Every reactor has the changes of the control state up to here. What is settled and depends on them is shown
    /// afterwards: so whoever reads first what is settled, and then this, has them.
    pub fn show_changes(&self, upto: ChangeNumber) {
        self.changes.fetch_max(upto.0, Ordering::AcqRel);
    }

    /// Up to which change of the control state every reactor has it.
    pub fn changes(&self) -> ChangeNumber {
        ChangeNumber(self.changes.load(Ordering::Acquire))
    }

    /// The highest revision taken.
    pub fn counter(&self) -> Revision {
        self.split().1
    }

    /// The highest revision up to `upto` such that none behind `after` touched the shard, as far as that is
    /// settled and the ring still knows it; `after` where nothing can be said. A merge may pass an idle
    /// shard by it without waking the shard's owner. `after` is a position that the merge has reached.
    pub fn untouched(&self, shard: ShardId, after: Revision, upto: Revision) -> Revision {
        let base = self.base.load(Ordering::Acquire);
        let upto = upto.0.min(self.settled().0);
        if after.0 < base {
            return after;
        }
        let mut passed = after.0;
        while passed < upto && !self.shards_of(passed + 1).may_hold(shard) {
            passed += 1;
        }
        // A slot read above belongs to a younger revision only if the counter has come around to it by now;
        // and if another generation began meanwhile, the word tells that its base is not the one read.
        let known_from = self.counter().0.saturating_sub(self.ring.len() as u64);
        let same = self.base.load(Ordering::Acquire) == base;
        if after.0 < known_from || !same { after } else { Revision(passed.max(after.0)) }
    }

    /// Of how many revisions the ring knows something.
    pub fn ring_len(&self) -> u64 {
        self.ring.len() as u64
    }

    fn shards_of(&self, revision: u64) -> ShardSet {
        ShardSet(self.slot(revision).shards.load(Ordering::Acquire))
    }

    fn slot(&self, revision: u64) -> &Slot {
        &self.ring[revision as usize & (self.ring.len() - 1)]
    }

    fn split(&self) -> (Generation, Revision) {
        let word = self.word.load(Ordering::Acquire);
        (generation_of(word), Revision(word & REVISION_MASK))
    }

    fn exchange_word(&self, from: u64, to: u64) -> Result<u64, u64> {
        self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

#[cfg(test)]
impl Sequencer {
    pub fn mark(&self, generation: Generation, revision: Revision) -> bool {
        self.mark_all(generation, [revision])
    }
}

fn generation_of(word: u64) -> Generation {
    Generation((word >> REVISION_BITS) as u16)
}
