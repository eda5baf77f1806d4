//! Which reactors sleep and how to wake them: the published sleeps, and the waker that ends each.

use super::kernel::Waker;
use crate::sequencer::{Sequencer, Sleepers};
use crate::types::{ReactorId, Revision};
use std::io;

pub struct Wakers {
    sleepers: Sleepers,
    wakers: Box<[Waker]>,
}

impl Wakers {
    pub fn new(reactors: usize) -> io::Result<Wakers> {
        let wakers = (0..reactors).map(|_| Waker::new()).collect::<io::Result<_>>()?;
        Ok(Wakers { sleepers: Sleepers::new(reactors), wakers })
    }

    pub fn reactors(&self) -> usize {
        self.wakers.len()
    }

    /// The waker that the reactor's ring listens to.
    pub fn waker(&self, reactor: ReactorId) -> &Waker {
        &self.wakers[usize::from(reactor.0)]
    }

    /// Wakes a reactor, if it sleeps. To be called after something was put into a queue of it.
    pub fn notify(&self, reactor: ReactorId) {
        if self.sleepers.wake_for_mail(reactor) {
            self.waker(reactor).wake();
        }
    }

    /// Wakes the reactors that wait for this revision. To be called after `settled` may have moved.
    pub fn settled(&self, settled: Revision) {
        self.sleepers.wake_for_settled(settled, |reactor| self.waker(reactor).wake());
    }

    /// Publishes that a reactor sleeps; see [`Sleepers::sleep`].
    pub fn sleep(
        &self,
        reactor: ReactorId,
        waits_for: Option<Revision>,
        sequencer: &Sequencer,
        nothing_queued: impl FnOnce() -> bool,
    ) -> bool {
        self.sleepers.sleep(reactor, waits_for, sequencer, nothing_queued)
    }

    pub fn awake(&self, reactor: ReactorId) {
        self.sleepers.awake(reactor);
    }
}
