//! When leases end: on the lead alone, on monotonic time.
//!
//! Every 500 ms the leases that have passed their expiry are picked, no more than half a second's share of
//! the permitted rate; of the picked ones at most 16 are being revoked at a time. A picked lease stays due
//! until its end is reported: renewing it must wait for that, since its keys may be about to vanish.

use super::Leases;
use crate::limits;
use crate::types::{Duration, LeaseId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SECOND: Duration = Duration::from_secs(1);
const PICKED_MAX: usize = limits::LEASE_REVOKES_PER_SEC_MAX * limits::LEASE_CHECK_INTERVAL_MS as usize / 1000;

/// The answer to a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lives for so many seconds from now.
    Renewed { ttl_secs: i64 },
    /// There is no such lease; the keep-alive answers with a time to live of 0.
    Missing,
    /// It has expired and is not revoked yet: ask again when it has ended.
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimerPhase {
    /// Stands in the queue by its expiry, or by the time of the next attempt to revoke it.
    Queued(Time),
    Picked,
    Revoking,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    ttl_secs: i64,
    expiry: Time,
    phase: TimerPhase,
}

/// The expiry of every lease.
#[derive(Debug)]
pub struct Expiry {
    timers: BTreeMap<LeaseId, Timer>,
    queue: BTreeSet<(Time, LeaseId)>,
    picked: VecDeque<LeaseId>,
    revoking: usize,
    next_check: Time,
}

impl Expiry {
    /// A new lead gives every lease its full time to live and an election timeout on top, for clients have
    /// to find it first. Where more leases would end within a second than the rate of revokes lets
    /// through, the later ones are put off, so that they come at three quarters of that rate.
    pub fn take_over(leases: &Leases, now: Time, extend: Duration) -> Expiry {
        let (timers, queue) = (BTreeMap::new(), BTreeSet::new());
        let mut expiry = Expiry { timers, queue, picked: VecDeque::new(), revoking: 0, next_check: now };
        for (lease, entry) in leases.iter() {
            expiry.insert(lease, entry.ttl_secs, now + extend);
        }
        if leases.len() >= limits::LEASE_REVOKES_PER_SEC_MAX {
            expiry.spread();
        }
        expiry
    }

    fn insert(&mut self, lease: LeaseId, ttl_secs: i64, from: Time) {
        let expiry = from + secs(ttl_secs);
        let timer = Timer { ttl_secs, expiry, phase: TimerPhase::Queued(expiry) };
        assert!(self.timers.insert(lease, timer).is_none(), "lease {lease} is granted once");
        assert!(self.queue.insert((expiry, lease)), "a lease is queued once");
    }

    /// Windows begin at a lease's expiry and are as long as the leases in them need at the target rate.
    fn spread(&mut self) {
        let target = limits::LEASE_REVOKES_PER_SEC_MAX as u64 * 3 / 4;
        let mut spread = BTreeSet::new();
        let mut base = self.queue.first().expect("there are leases").0;
        let (mut window_end, mut in_window) = (base + SECOND, 0);
        for (expiry, lease) in std::mem::take(&mut self.queue) {
            let mut later = expiry;
            if expiry > window_end {
                (base, window_end, in_window) = (expiry, expiry + SECOND, 1);
            } else {
                in_window += 1;
                if in_window > target {
                    // One that lies some way into the window anyway is put off by so much less.
                    let needed = Duration(SECOND.0 * in_window / target);
                    let delay = Duration(needed.0.saturating_sub(expiry.since(base).0));
                    window_end = base + delay;
                    later = expiry + delay;
                }
            }
            let timer = self.timers.get_mut(&lease).expect("what is queued has a timer");
            (timer.expiry, timer.phase) = (later, TimerPhase::Queued(later));
            assert!(later >= expiry, "a lease is put off, and does not end sooner");
            spread.insert((later, lease));
        }
        self.queue = spread;
    }

    /// A grant took effect.
    pub fn grant(&mut self, lease: LeaseId, ttl_secs: i64, now: Time) {
        self.insert(lease, ttl_secs, now);
    }

    /// The lease has ended, by whatever cause.
    pub fn end(&mut self, lease: LeaseId) {
        let Some(timer) = self.timers.remove(&lease) else { return };
        match timer.phase {
            TimerPhase::Queued(at) => {
                assert!(self.queue.remove(&(at, lease)), "a queued timer is in the queue")
            }
            TimerPhase::Picked => self.picked.retain(|picked| *picked != lease),
            TimerPhase::Revoking => self.revoking -= 1,
        }
        let placed = self.queue.len() + self.picked.len() + self.revoking;
        assert!(self.timers.len() == placed, "each lease stands in one place: {placed}");
    }

    /// The revoke that [`Expiry::due`] asked for did not go through: it is tried again in a while.
    pub fn failed(&mut self, lease: LeaseId, now: Time) {
        let Some(timer) = self.timers.get_mut(&lease).filter(|timer| timer.phase == TimerPhase::Revoking)
        else {
            return;
        };
        let again = now + Duration::from_ms(limits::LEASE_REVOKE_RETRY_MS);
        timer.phase = TimerPhase::Queued(again);
        assert!(self.queue.insert((again, lease)), "a lease is queued once");
        self.revoking -= 1;
    }

    /// A keep-alive. To be called only after a leadership round begun after it came.
    pub fn renew(&mut self, lease: LeaseId, now: Time) -> Renewal {
        let Some(timer) = self.timers.get_mut(&lease) else { return Renewal::Missing };
        if timer.expiry <= now {
            return Renewal::Expired;
        }
        let TimerPhase::Queued(at) = timer.phase else {
            panic!("lease {lease} is revoked before its expiry")
        };
        assert!(self.queue.remove(&(at, lease)), "what is queued stands in the queue");
        timer.expiry = now + secs(timer.ttl_secs);
        timer.phase = TimerPhase::Queued(timer.expiry);
        self.queue.insert((timer.expiry, lease));
        Renewal::Renewed { ttl_secs: timer.ttl_secs }
    }

    /// Whole seconds left, cut towards zero; below 0 for a lease that expired more than a second ago.
    pub fn remaining_secs(&self, lease: LeaseId, now: Time) -> Option<i64> {
        let timer = self.timers.get(&lease)?;
        let (left, over) = (timer.expiry.since(now).0 / SECOND.0, now.since(timer.expiry).0 / SECOND.0);
        Some(left as i64 - over as i64)
    }

    /// The leases to revoke now. Each is outstanding until [`Expiry::end`] or [`Expiry::failed`]; so ask
    /// again after one of these.
    pub fn due(&mut self, now: Time, revoke: &mut Vec<LeaseId>) {
        if now >= self.next_check {
            self.next_check = now + Duration::from_ms(limits::LEASE_CHECK_INTERVAL_MS);
            self.pick(now);
        }
        while self.revoking < limits::LEASE_REVOKES_OUTSTANDING_MAX {
            let Some(lease) = self.picked.pop_front() else { return };
            let timer = self.timers.get_mut(&lease).expect("what is picked has a timer");
            assert!(timer.phase == TimerPhase::Picked, "lease {lease} is revoked once");
            assert!(timer.expiry <= now, "no lease is revoked before its expiry");
            timer.phase = TimerPhase::Revoking;
            self.revoking += 1;
            revoke.push(lease);
        }
    }

    fn pick(&mut self, now: Time) {
        while self.picked.len() < PICKED_MAX {
            let Some((at, lease)) = self.queue.first().copied().filter(|(at, _)| *at <= now) else { return };
            self.queue.remove(&(at, lease));
            self.timers.get_mut(&lease).expect("what is queued has a timer").phase = TimerPhase::Picked;
            self.picked.push_back(lease);
        }
    }

    /// When [`Expiry::due`] has something to say at the earliest, if no revoke ends before.
    pub fn wake_at(&self) -> Time {
        if !self.picked.is_empty() && self.revoking < limits::LEASE_REVOKES_OUTSTANDING_MAX {
            return Time(0);
        }
        self.queue.first().map_or(Time::NEVER, |(at, _)| (*at).max(self.next_check))
    }

    /// All leases in the order of their expiry, as etcd's leader lists them.
    pub fn by_expiry(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> = self.timers.iter().map(|(lease, timer)| (timer.expiry, *lease)).collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, lease)| lease).collect()
    }
}

fn secs(ttl_secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl_secs).expect("a granted time to live is positive"))
}
