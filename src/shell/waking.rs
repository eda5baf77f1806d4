//! Who sleeps and how to wake them: the published sleeps, and the kick that ends each.

use super::kernel::Kick;
use crate::sequencer::{Sequencer, Sleepers};
use crate::types::{ReactorId, Revision};
use std::io;

pub struct Waking {
    sleepers: Sleepers,
    kicks: Box<[Kick]>,
}

impl Waking {
    pub fn new(reactors: usize) -> io::Result<Waking> {
        let kicks = (0..reactors).map(|_| Kick::new()).collect::<io::Result<_>>()?;
        Ok(Waking { sleepers: Sleepers::new(reactors), kicks })
    }

    pub fn reactors(&self) -> usize {
        self.kicks.len()
    }

    /// What the reactor's ring listens to.
    pub fn kick(&self, reactor: ReactorId) -> &Kick {
        &self.kicks[usize::from(reactor.0)]
    }

    /// To be called by whoever has just put something into a queue of this reactor.
    pub fn brought(&self, reactor: ReactorId) {
        if self.sleepers.wake_for_mail(reactor) {
            self.kick(reactor).kick();
        }
    }

    /// To be called by whoever may have moved `settled`, after it did.
    pub fn settled(&self, settled: Revision) {
        self.sleepers.wake_for_settled(settled, |reactor| self.kick(reactor).kick());
    }

    /// See [`Sleepers::sleep`].
    pub fn sleep(
        &self,
        reactor: ReactorId,
        waits_for: Option<Revision>,
        sequencer: &Sequencer,
        nothing_brought: impl FnOnce() -> bool,
    ) -> bool {
        self.sleepers.sleep(reactor, waits_for, sequencer, nothing_brought)
    }

    pub fn awake(&self, reactor: ReactorId) {
        self.sleepers.awake(reactor);
    }
}
