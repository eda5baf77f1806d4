//! Clients' writes are slowed where a member that comes back would not get ahead of them.
//!
//! **The question.** A member takes a state, and then what was written meanwhile from the log. Clients may write faster
//! than it takes: the log that it needs grows until the disk is full, or is let go of, and all begins anew, for ever.
//! Who waits for whom?
//!
//! **The rule.** As long as it takes something, the log keeps all that it will need, whatever the log's bound for others
//! is; on a full disk nothing. Once the log is longer than clients should pay for with their disk, this reactor's
//! writes are paced: for two bytes that are taken one may be written, some each second whoever takes nothing, and now and
//! then a turn's whatever else was written, so that a slow disk elsewhere is no outage here. So what is still to be taken
//! gets less, however fast clients would write, and the log is at most as long again as the state is when that has come.
//!
//! **Why not otherwise.** To let go of the log at a bound throws the transfer away, and the next one meets the same
//! writes. To pace from the first byte on would make clients pay for a transfer that ends anyway.

use crate::limits::{PACED_BYTES_MAX, PACED_WAIT_MS};
use crate::types::{Duration, Time};

/// How many bytes of log this reactor may write before it waits for those who take.
#[derive(Default)]
pub(super) struct WritePace {
    /// Since when writes are paced, and up to when what each second gives is in the credit.
    on: Option<Time>,
    /// What may be written; below zero where a write took more.
    credit: i64,
    /// When something was written last that did not wait.
    opened: Time,
    /// What a second gives, whoever takes nothing.
    bytes_per_sec: u64,
}

const CREDIT_MAX: i64 = PACED_BYTES_MAX as i64;

impl WritePace {
    /// Writes are paced from now on, or not any more.
    pub fn set(&mut self, now: Time, is_on: bool, bytes_per_sec: u64) {
        assert!(bytes_per_sec > 0, "nobody waits for ever");
        self.bytes_per_sec = bytes_per_sec;
        match (is_on, self.on) {
            (true, None) => (self.on, self.credit, self.opened) = (Some(now), 0, now),
            (false, Some(_)) => self.on = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Somebody has taken so much of a state, or of the log behind it.
    pub fn taken(&mut self, bytes: usize) {
        self.credit = (self.credit + bytes as i64 / 2).min(CREDIT_MAX);
    }

    /// The log was written, which much does that does not wait. Without credit nothing is charged.
    pub fn written(&mut self, now: Time, bytes: usize) {
        if self.on.is_some() && self.is_open(now) {
            self.opened = now;
            self.credit -= if self.credit > 0 { bytes as i64 } else { 0 };
        }
    }

    fn is_open(&self, now: Time) -> bool {
        self.credit > 0 || now >= self.opened + Duration::from_ms(PACED_WAIT_MS)
    }

    /// Whether writes wait.
    pub fn holds(&mut self, now: Time) -> bool {
        let Some(since) = self.on else { return false };
        let given = u128::from(now.since(since).0) * u128::from(self.bytes_per_sec) / 1_000_000_000;
        if given > 0 {
            let given = i64::try_from(given).unwrap_or(CREDIT_MAX);
            self.credit = self.credit.saturating_add(given).min(CREDIT_MAX);
            self.on = Some(now);
        }
        assert!(self.credit <= CREDIT_MAX, "what is not used is not kept: {}", self.credit);
        !self.is_open(now)
    }

    /// When they do no longer, whoever takes nothing.
    pub fn wakes_at(&self) -> Time {
        let Some(since) = self.on.filter(|_| self.credit <= 0) else { return Time::NEVER };
        assert!(self.bytes_per_sec > 0, "nobody waits for ever");
        let lacks = self.credit.unsigned_abs() + 1;
        let wait = u128::from(lacks) * 1_000_000_000 / u128::from(self.bytes_per_sec) + 1;
        let in_turn = self.opened + Duration::from_ms(PACED_WAIT_MS);
        in_turn.min(since + Duration(u64::try_from(wait).unwrap_or(u64::MAX / 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(5_000_000);
    const RATE: u64 = 1000;

    fn on() -> WritePace {
        let mut pace = WritePace::default();
        pace.set(NOW, true, RATE);
        pace
    }

    #[test]
    fn nothing_waits_where_nobody_takes_a_state() {
        let mut pace = WritePace::default();
        pace.written(NOW, usize::MAX >> 8);
        assert!(!pace.holds(NOW));
        assert_eq!(pace.wakes_at(), Time::NEVER);
        let mut pace = on();
        assert!(pace.holds(NOW));
        pace.set(NOW, false, RATE);
        assert!(!pace.holds(NOW));
    }

    #[test]
    fn half_of_what_is_taken_is_written() {
        let mut pace = on();
        pace.taken(1000);
        assert!(!pace.holds(NOW));
        pace.written(NOW, 500);
        assert!(pace.holds(NOW));
        // A write is never cut: the next one waits for its rest.
        pace.taken(2);
        pace.written(NOW, 300);
        pace.taken(400);
        assert!(pace.holds(NOW));
        pace.taken(200);
        assert!(!pace.holds(NOW));
        // What is taken while little is written is no credit for long.
        pace.taken(100 * PACED_BYTES_MAX);
        pace.written(NOW, PACED_BYTES_MAX);
        assert!(pace.holds(NOW));
    }

    #[test]
    fn some_is_written_each_second_though_nothing_is_taken() {
        let mut pace = on();
        pace.taken(2);
        pace.written(NOW, 50);
        assert!(pace.holds(NOW));
        let at = pace.wakes_at();
        assert!(at > NOW + Duration::from_ms(49) && at <= NOW + Duration::from_ms(51), "{at:?}");
        assert!(pace.holds(NOW + Duration::from_ms(49)));
        assert!(!pace.holds(at));
        assert_eq!(pace.wakes_at(), Time::NEVER);
    }

    #[test]
    fn what_does_not_wait_keeps_nobody_waiting_for_ever() {
        let (mut pace, mut now, mut turns) = (on(), NOW, 0);
        while now < NOW + Duration::from_secs(10) {
            now = now + Duration::from_ms(1);
            turns += u64::from(!pace.holds(now));
            pace.written(now, 4096);
        }
        let least = 10_000 / PACED_WAIT_MS - 1;
        assert!((least..=least + 5).contains(&turns), "{turns}");
    }

    /// Looks at short distances lose nothing of what a second gives.
    #[test]
    fn who_looks_often_waits_no_longer() {
        let mut pace = on();
        pace.taken(2);
        pace.written(NOW, 10);
        let mut now = NOW;
        while pace.holds(now) {
            now = now + Duration(100_000);
        }
        assert!(now <= NOW + Duration::from_ms(11), "{now:?}");
    }
}
