//! What Linux says of this process, for `/metrics`.

use super::clock::{Clock, wall_us};
use crate::io::ProcessFigures;
use crate::types::Duration;
use std::fs;

/// Processor time in `/proc` counts in hundredths of a second, on every machine this server runs on.
const TICK: Duration = Duration::from_ms(10);

/// `None` where `/proc` cannot be read. Takes longer the more descriptors are open: not for a reactor.
pub fn figures(clock: Clock) -> Option<ProcessFigures> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let started_secs = (wall_us() / 1_000_000).saturating_sub(clock.now().0 / Duration::from_secs(1).0);
    Some(ProcessFigures {
        resident_bytes: kibibytes(&status, "VmRSS:")? << 10,
        virtual_bytes: kibibytes(&status, "VmSize:")? << 10,
        cpu: processor_time(&fs::read_to_string("/proc/self/stat").ok()?)?,
        open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        fds_max: open_files(&limits)?,
        started_secs,
    })
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The 14th and 15th field. The second is the program's name, which may hold anything.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration((ticks()? + ticks()?) * TICK.0))
}

fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let figures = figures(Clock::start()).expect("Linux has /proc");
        assert!(figures.resident_bytes > 1 << 20 && figures.virtual_bytes >= figures.resident_bytes);
        assert!((3..=figures.fds_max).contains(&figures.open_fds));
        assert!(figures.started_secs > 1_700_000_000);
    }

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(processor_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(processor_time("7 (a) S 1"), None);
        assert_eq!(open_files("Max open files            1024   4096   files \n"), Some(1024));
        assert_eq!(kibibytes("VmRSS:\t    12 kB\n", "VmRSS:"), Some(12));
    }
}
