//! CPU a process has used, from `/proc`.

use std::fs;
use std::io::{Error, ErrorKind, Result};

/// Linux reports user and system time in hundredths of a second on every architecture it serves here.
const TICK_NS: u64 = 10_000_000;

/// Time on a CPU.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// The sum of the threads' `schedstat`: exact, but without threads that have ended.
    pub threads_ns: u64,
    /// User and system time of `stat`: in steps of 10 ms, with threads that have ended.
    pub process_ns: u64,
}

impl Cpu {
    /// What `pid` has used since it began.
    pub fn of(pid: u32) -> Result<Cpu> {
        let mut threads_ns = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread that ends while it is looked at has no file any more.
            if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
                threads_ns += number(text.split(' ').next())?;
            }
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold blanks; after it, user and system time are fields 12 and 13.
        let (_, after) = stat.rsplit_once(')').ok_or(ErrorKind::InvalidData)?;
        let mut fields = after.split_ascii_whitespace().skip(11);
        let (user, system) = (number(fields.next())?, number(fields.next())?);
        Ok(Cpu { threads_ns, process_ns: (user + system) * TICK_NS })
    }

    /// The sum of several processes.
    pub fn of_all(pids: &[u32]) -> Result<Cpu> {
        pids.iter().try_fold(Cpu::default(), |sum, &pid| {
            let one = Cpu::of(pid)?;
            Ok(Cpu {
                threads_ns: sum.threads_ns + one.threads_ns,
                process_ns: sum.process_ns + one.process_ns,
            })
        })
    }

    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            threads_ns: self.threads_ns.saturating_sub(earlier.threads_ns),
            process_ns: self.process_ns.saturating_sub(earlier.process_ns),
        }
    }
}

fn number(text: Option<&str>) -> Result<u64> {
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::InvalidData, "/proc has another form than this program knows"))
}
