//! Queues between threads: in order for each pair, bounded, and never refusing.
//!
//! What a queue cannot take waits with its sender, in order, and is tried again each turn. A sender that
//! holds such mail does not sleep longer than a moment, so the receiver need not know of it.

use crossbeam::queue::ArrayQueue;
use std::collections::VecDeque;

/// One bounded queue for each ordered pair of threads.
pub struct Mailboxes<M> {
    queues: Box<[ArrayQueue<M>]>,
    threads: usize,
}

impl<M> Mailboxes<M> {
    pub fn new(threads: usize, capacity: usize) -> Mailboxes<M> {
        let queues = (0..threads * threads).map(|_| ArrayQueue::new(capacity)).collect();
        Mailboxes { queues, threads }
    }

    fn queue(&self, from: usize, to: usize) -> &ArrayQueue<M> {
        assert!(from < self.threads && to < self.threads);
        &self.queues[to * self.threads + from]
    }

    /// The oldest mail from that thread.
    pub fn take(&self, from: usize, to: usize) -> Option<M> {
        self.queue(from, to).pop()
    }

    /// Whether nothing waits for this thread in any queue.
    pub fn is_empty(&self, to: usize) -> bool {
        self.queues[to * self.threads..][..self.threads].iter().all(ArrayQueue::is_empty)
    }
}

/// A sender's mail that does not fit yet, by receiver.
pub struct Outbox<M> {
    from: usize,
    waiting: Vec<VecDeque<M>>,
    backlog: usize,
}

impl<M> Outbox<M> {
    pub fn new(from: usize, threads: usize) -> Outbox<M> {
        Outbox { from, waiting: (0..threads).map(|_| VecDeque::new()).collect(), backlog: 0 }
    }

    /// Puts mail into its queue, or behind what waits already. Whether the queue took it.
    pub fn send(&mut self, boxes: &Mailboxes<M>, to: usize, mail: M) -> bool {
        let waiting = &mut self.waiting[to];
        let refused =
            if waiting.is_empty() { boxes.queue(self.from, to).push(mail).err() } else { Some(mail) };
        let taken = refused.is_none();
        self.backlog += usize::from(!taken);
        waiting.extend(refused);
        taken
    }

    /// Tries again to queue what waits, and calls `took` for each receiver that got any.
    pub fn retry(&mut self, boxes: &Mailboxes<M>, mut took: impl FnMut(usize)) {
        if self.backlog == 0 {
            return;
        }
        for (to, waiting) in self.waiting.iter_mut().enumerate() {
            let before = waiting.len();
            while let Some(mail) = waiting.pop_front() {
                if let Err(mail) = boxes.queue(self.from, to).push(mail) {
                    waiting.push_front(mail);
                    break;
                }
            }
            self.backlog -= before - waiting.len();
            if waiting.len() < before {
                took(to);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.backlog == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequencer::{Sequencer, Sleepers};
    use crate::types::ReactorId;
    use std::sync::Arc;

    #[test]
    fn what_does_not_fit_follows_in_order() {
        let boxes = Mailboxes::new(2, 2);
        let mut outbox = Outbox::new(0, 2);
        assert!(outbox.send(&boxes, 1, 0) && outbox.send(&boxes, 1, 1));
        assert!(!outbox.send(&boxes, 1, 2) && !outbox.is_empty());
        assert_eq!(boxes.take(0, 1), Some(0));
        assert!(!outbox.send(&boxes, 1, 3), "nothing overtakes what waits");
        let mut told = vec![];
        outbox.retry(&boxes, |to| told.push(to));
        assert_eq!((told, outbox.is_empty()), (vec![1], false));
        let mut came = vec![];
        while let Some(mail) = boxes.take(0, 1) {
            came.push(mail);
            outbox.retry(&boxes, |_| {});
        }
        assert_eq!((came, outbox.is_empty()), (vec![1, 2, 3], true));
        assert!(boxes.is_empty(1) && boxes.is_empty(0));
    }

    #[test]
    fn mail_keeps_its_pair_apart() {
        let boxes = Mailboxes::new(3, 4);
        for from in 0..3 {
            Outbox::new(from, 3).send(&boxes, 1, from);
        }
        assert!(boxes.is_empty(0) && boxes.is_empty(2) && !boxes.is_empty(1));
        assert_eq!((0..3).map(|from| boxes.take(from, 1)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    }

    /// Two threads that sleep whenever they have nothing: no mail is ever left with a sleeper.
    #[test]
    fn nobody_sleeps_on_mail() {
        const ROUNDS: u64 = 20_000;
        let boxes = Arc::new(Mailboxes::<u64>::new(2, 3));
        let sleepers = Arc::new(Sleepers::new(2));
        let sequencer = Arc::new(Sequencer::new(4));
        let main = std::thread::current();
        let receiver = {
            let (boxes, sleepers, sequencer) = (boxes.clone(), sleepers.clone(), sequencer.clone());
            std::thread::spawn(move || {
                let mut next = 0;
                while next < ROUNDS {
                    while let Some(mail) = boxes.take(0, 1) {
                        assert_eq!(mail, next);
                        next += 1;
                    }
                    if next < ROUNDS && sleepers.sleep(ReactorId(1), None, &sequencer, || boxes.is_empty(1)) {
                        std::thread::park();
                        sleepers.awake(ReactorId(1));
                    }
                }
                main.unpark();
            })
        };
        let mut outbox = Outbox::new(0, 2);
        let wake = || {
            if sleepers.wake_for_mail(ReactorId(1)) {
                receiver.thread().unpark();
            }
        };
        for round in 0..ROUNDS {
            outbox.retry(&boxes, |_| wake());
            if outbox.send(&boxes, 1, round) {
                wake();
            }
        }
        while !outbox.is_empty() && !receiver.is_finished() {
            outbox.retry(&boxes, |_| wake());
        }
        receiver.join().unwrap();
    }
}
