//! What all threads of the process share.

use super::bulk::Lane;
use super::clock::Clock;
use super::connections::Arrival;
use super::listeners::Loads;
use super::logger::Logger;
use super::mail::Mailboxes;
use super::names::Names;
use super::wakers::Wakers;
use crate::io::{Mail, ProcessFigures};
use crate::limits::{MAIL_QUEUED_MAX, MAIL_QUEUED_MIN, MAIL_QUEUED_TOTAL};
use crate::sequencer::Sequencer;
use crate::types::{ReactorId, Time};
use crossbeam::queue::{ArrayQueue, SegQueue};
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub struct Shared {
    pub clock: Clock,
    pub logger: Logger,
    pub sequencer: Arc<Sequencer>,
    pub wakers: Arc<Wakers>,
    pub mail: Mailboxes<Mail>,
    /// Connections on their way to their reactor; at most as many as there are descriptors.
    pub arrivals: Box<[SegQueue<Arrival>]>,
    pub loads: Loads,
    pub names: Arc<Names>,
    pub lane: Arc<Lane>,
    pub turn_clocks: Box<[CachePadded<TurnClock>]>,
    /// The newest figures of the process, for the first reactor.
    pub process: ArrayQueue<ProcessFigures>,
    stopping: AtomicBool,
    /// Reactors that still have clients.
    busy: AtomicUsize,
}

impl Shared {
    pub fn new(
        clock: Clock,
        logger: Logger,
        sequencer: Arc<Sequencer>,
        wakers: Arc<Wakers>,
        lane: Arc<Lane>,
    ) -> Shared {
        let reactors = wakers.reactors();
        let queued = (MAIL_QUEUED_TOTAL / (reactors * reactors)).clamp(MAIL_QUEUED_MIN, MAIL_QUEUED_MAX);
        Shared {
            clock,
            logger,
            sequencer,
            names: Arc::new(Names::new(wakers.clone())),
            wakers,
            mail: Mailboxes::new(reactors, queued),
            arrivals: (0..reactors).map(|_| SegQueue::new()).collect(),
            loads: Loads::new(reactors),
            lane,
            turn_clocks: (0..reactors).map(|_| CachePadded::default()).collect(),
            process: ArrayQueue::new(1),
            stopping: AtomicBool::new(false),
            busy: AtomicUsize::new(reactors),
        }
    }

    pub fn reactors(&self) -> usize {
        self.turn_clocks.len()
    }

    pub fn turn_clock(&self, reactor: ReactorId) -> &TurnClock {
        &self.turn_clocks[usize::from(reactor.0)]
    }

    /// Whether no thread has left anything for this reactor.
    pub fn has_nothing_for(&self, reactor: ReactorId, heard_stop: bool) -> bool {
        let place = usize::from(reactor.0);
        self.mail.is_empty(place)
            && self.arrivals[place].is_empty()
            && self.lane.has_no_answer(reactor)
            && self.names.has_nothing_for(reactor)
            && self.is_stopping() == heard_stop
    }

    /// Tells every reactor to answer what is on its way and close.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Notes that a reactor has closed its last client's connection after the stop; others may still need it.
    pub fn is_done(&self) {
        if self.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.wake_all();
        }
    }

    pub fn all_are_done(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0
    }

    fn wake_all(&self) {
        (0..self.reactors()).for_each(|reactor| self.wakers.notify(ReactorId(reactor as u16)));
    }
}

/// When a reactor's turn began, for the watchdog; 0 while it is parked.
#[derive(Default)]
pub struct TurnClock(AtomicU64);

impl TurnClock {
    pub fn turn_begins(&self, now: Time) {
        self.0.store(now.0.max(1), Ordering::Relaxed);
    }

    pub fn parks(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub fn since(&self) -> Option<Time> {
        Some(Time(self.0.load(Ordering::Relaxed))).filter(|time| time.0 > 0)
    }
}
