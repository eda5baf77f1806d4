//! A member's clock: monotonic time of its own, which begins anew with each process and may run fast or slow.

use crate::types::{Duration, Time};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// When the process began, in the world's time.
    began: Time,
    /// What it showed then.
    pub ahead: Duration,
    /// How much faster than the world's time it runs, in millionths.
    pub drift_ppm: i32,
}

const PPM: u64 = 1_000_000;

impl Clock {
    /// The clock of a process that begins now.
    pub fn begun(self, now: Time) -> Clock {
        Clock { began: now, ..self }
    }

    fn rate_ppm(&self) -> u128 {
        let rate = PPM.checked_add_signed(self.drift_ppm.into()).filter(|rate| *rate > 0);
        rate.expect("a clock goes forward").into()
    }

    /// What it shows at a time of the world.
    pub fn shows(&self, at: Time) -> Time {
        let passed = u128::from(at.since(self.began).0) * self.rate_ppm() / u128::from(PPM);
        Time(self.ahead.0) + Duration(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The first time of the world at which it shows so much.
    pub fn reaches(&self, shown: Time) -> Time {
        if shown == Time::NEVER {
            return Time::NEVER;
        }
        let passes = u128::from(shown.since(Time(self.ahead.0)).0) * u128::from(PPM);
        self.began + Duration(u64::try_from(passes.div_ceil(self.rate_ppm())).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::Rng;

    #[test]
    fn a_clock_that_keeps_time_is_only_ahead() {
        let clock = Clock { ahead: Duration(70), ..Clock::default() }.begun(Time(1000));
        assert_eq!((clock.shows(Time(1000)), clock.shows(Time(1005))), (Time(70), Time(75)));
        assert_eq!((clock.reaches(Time(75)), clock.reaches(Time(3))), (Time(1005), Time(1000)));
    }

    #[test]
    fn no_clock_reaches_never() {
        for drift_ppm in [-200, 0, 200] {
            assert_eq!(Clock { drift_ppm, ..Clock::default() }.reaches(Time::NEVER), Time::NEVER);
        }
    }

    #[test]
    fn what_a_clock_reaches_it_shows_then_and_not_before() {
        let mut rng = Rng::new(1);
        for drift_ppm in [-300_000, -200, -1, 0, 1, 200, 300_000] {
            let ahead = Duration(rng.below(1 << 50));
            let clock = Clock { ahead, drift_ppm, ..Clock::default() }.begun(Time(rng.below(1 << 40)));
            for _ in 0..1000 {
                let shown = Time(ahead.0) + Duration(1 + rng.below(1 << 40));
                let at = clock.reaches(shown);
                assert!(clock.shows(at) >= shown, "{clock:?} {shown:?}");
                assert!(clock.shows(at - Duration(1)) < shown, "{clock:?} {shown:?}");
            }
        }
    }

    #[test]
    fn clocks_of_two_rates_part() {
        let fast = Clock { drift_ppm: 200, ..Clock::default() };
        let slow = Clock { drift_ppm: -200, ..Clock::default() };
        let hour = Time::from_ms(3_600_000);
        assert_eq!(fast.shows(hour).since(slow.shows(hour)), Duration::from_ms(1440));
    }
}
