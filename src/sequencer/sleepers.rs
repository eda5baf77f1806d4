//! Who sleeps, and for what: so that only a reactor that has something to do is woken.
//!
//! A reactor with nothing to do publishes that it sleeps, and the revision it waits for, and *then* looks
//! once more at `settled` and at its mail; only if both still have nothing for it does it park. Who brings
//! something does the reverse: first the thing (a push, or `settled` moved), then a look at who sleeps.
//! Between write and read both pass a sequentially consistent fence, so at least one sees the other's write:
//! the wake-up is never lost. It may be sent once too often; a reactor that finds nothing sleeps again.
//!
//! Of several that bring something, one swap decides who wakes, so a sleeper gets one kick, not a hundred.

use super::{AtomicU64, Ordering, Sequencer, fence};
use crate::types::{ReactorId, Revision};
use crossbeam::utils::CachePadded;

const AWAKE: u64 = 0;
/// Asleep, and no revision is of interest.
const ONLY_MAIL: u64 = u64::MAX;

/// The sleep of every reactor of a process. Parking itself, and the kick that ends it, are the shell's.
pub struct Sleepers {
    /// 0 while awake, else 1 + the revision waited for.
    states: Box<[CachePadded<AtomicU64>]>,
}

impl Sleepers {
    pub fn new(reactors: usize) -> Sleepers {
        Sleepers { states: (0..reactors).map(|_| CachePadded::new(AtomicU64::new(AWAKE))).collect() }
    }

    /// Publishes the sleep, then looks again. True: park now; who brings something will kick. False: there
    /// is something to do already, and the reactor counts as awake. `no_mail` looks at all its queues.
    pub fn sleep(
        &self,
        reactor: ReactorId,
        waits_for: Option<Revision>,
        sequencer: &Sequencer,
        no_mail: impl FnOnce() -> bool,
    ) -> bool {
        let state = waits_for.map_or(ONLY_MAIL, |revision| revision.0 + 1);
        let before = self.state(reactor).load(Ordering::Relaxed);
        assert!(before == AWAKE, "who falls asleep was awake: {before}");
        self.state(reactor).store(state, Ordering::Release);
        fence(Ordering::SeqCst);
        let idle = waits_for.is_none_or(|revision| sequencer.settled() < revision) && no_mail();
        if !idle {
            self.awake(reactor);
        }
        idle
    }

    /// The reactor runs again, for whatever reason it left its park.
    pub fn awake(&self, reactor: ReactorId) {
        self.state(reactor).store(AWAKE, Ordering::Release);
    }

    /// Calls `kick` for each sleeper that waits for a revision up to `settled`. To be called by whoever
    /// moved `settled`, after it did.
    pub fn wake_for_settled(&self, settled: Revision, mut kick: impl FnMut(ReactorId)) {
        fence(Ordering::SeqCst);
        for (number, slot) in self.states.iter().enumerate() {
            let state = slot.load(Ordering::Acquire);
            if state != AWAKE && state <= settled.0 + 1 && claim(slot, state) {
                kick(ReactorId(number as u16));
            }
        }
    }

    /// Whether the caller, who has just put mail into a queue of this reactor, must kick it.
    pub fn wake_for_mail(&self, reactor: ReactorId) -> bool {
        fence(Ordering::SeqCst);
        let slot = self.state(reactor);
        let state = slot.load(Ordering::Acquire);
        state != AWAKE && claim(slot, state)
    }

    fn state(&self, reactor: ReactorId) -> &AtomicU64 {
        &self.states[usize::from(reactor.0)]
    }
}

/// Who turns the sleep off kicks. Losing means that another kicks, or that the sleeper has woken itself;
/// if it has since gone to sleep anew, it has looked after our write and seen it.
fn claim(slot: &AtomicU64, state: u64) -> bool {
    slot.compare_exchange(state, AWAKE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
