//! The two times: one that only moves forward, and the wall's.

use super::kernel;
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

/// A moment of the wall clock as etcd's log lines carry it: `2006-01-02T15:04:05.000000Z0700`, in the zone that
/// the process is in.
pub fn timestamp(us: u64) -> String {
    at_offset(us, kernel::utc_offset_secs(us / 1_000_000))
}

/// The moment in a zone that is `east_secs` seconds east of UTC.
fn at_offset(us: u64, east_secs: i64) -> String {
    let (secs, fraction) = ((us / 1_000_000).saturating_add_signed(east_secs), us % 1_000_000);
    let (year, month, day) = civil(secs / 86_400);
    let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    let moment = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}");
    let (sign, minutes) = (if east_secs < 0 { '-' } else { '+' }, east_secs.unsigned_abs() / 60);
    match minutes {
        0 => format!("{moment}Z"),
        _ => format!("{moment}{sign}{:02}{:02}", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        for (us, east_secs, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_000, 0, "2000-02-29T00:00:00.000000Z"),
            (951_868_800_000_000, 0, "2000-03-01T00:00:00.000000Z"),
            (1_709_251_199_500_000, 0, "2024-02-29T23:59:59.500000Z"),
            (1_709_251_200_000_001, 0, "2024-03-01T00:00:00.000001Z"),
            (4_107_542_399_000_000, 0, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400_000_000, 0, "2100-03-01T00:00:00.000000Z"),
            (1_795_956_064_216_104, 3_600, "2026-11-29T13:41:04.216104+0100"),
            (1_709_251_200_000_000, -12_600, "2024-02-29T20:30:00.000000-0330"),
            (1_709_251_200_000_000, 20_700, "2024-03-01T05:45:00.000000+0545"),
        ] {
            assert_eq!(at_offset(us, east_secs), text);
        }
    }

    #[test]
    fn a_timestamp_names_the_offset_of_the_process() {
        let ts = timestamp(1_709_251_200_000_000);
        assert_eq!(ts, at_offset(1_709_251_200_000_000, kernel::utc_offset_secs(1_709_251_200)));
    }
}
