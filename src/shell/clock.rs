//! The two times: one that only moves forward, and the wall's.

use crate::stdx::civil;
use crate::types::Time;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Counts from the start of the process. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(self) -> Time {
        Time(u64::try_from(self.0.elapsed().as_nanos()).expect("64 bits of nanoseconds are 584 years"))
    }
}

/// Microseconds since 1970 in UTC; 0 where the wall clock stands before that.
pub fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A moment of the wall clock as etcd's log lines carry it: `2006-01-02T15:04:05.999999Z`, the fraction
/// without trailing zeros.
pub fn timestamp(us: u64) -> String {
    let (secs, fraction) = (us / 1_000_000, us % 1_000_000);
    let (year, month, day) = civil(secs / 86_400);
    let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction > 0 {
        let digits = format!("{fraction:06}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00Z"),
            (1_709_251_199_500_000, "2024-02-29T23:59:59.5Z"),
            (1_709_251_200_000_001, "2024-03-01T00:00:00.000001Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(us), text);
        }
    }
}
