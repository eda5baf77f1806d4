//! What a process has used, from `/proc`.

use std::fs;
use std::io::{Error, ErrorKind, Result};

/// Linux reports user and system time in hundredths of a second on every architecture it serves here.
const TICK_NS: u64 = 10_000_000;

/// Time on a CPU, and what was written.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// The sum of the threads' `schedstat`: exact, but without threads that have ended.
    pub threads_ns: u64,
    /// User and system time of `stat`: in steps of 10 ms, with threads that have ended.
    pub process_ns: u64,
    /// Bytes the process caused to be written to a device: those of direct I/O, and pages of files made dirty.
    /// `None` where the process is another user's, of which the kernel does not tell it.
    pub written_bytes: Option<u64>,
}

impl Usage {
    /// What `pid` has used since it began. Errors name the process.
    pub fn of(pid: u32) -> Result<Usage> {
        Self::read(pid).map_err(|error| Error::new(error.kind(), format!("process {pid}: {error}")))
    }

    fn read(pid: u32) -> Result<Usage> {
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
        let written_bytes = match fs::read_to_string(format!("/proc/{pid}/io")) {
            Ok(text) => Some(number(text.lines().find_map(|line| line.strip_prefix("write_bytes: ")))?),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            Err(error) => return Err(error),
        };
        Ok(Usage { threads_ns, process_ns: (user + system) * TICK_NS, written_bytes })
    }

    /// The sum of several processes.
    pub fn of_all(pids: &[u32]) -> Result<Usage> {
        let none = Usage { written_bytes: Some(0), ..Usage::default() };
        pids.iter().try_fold(none, |sum, &pid| Ok(sum.plus(Usage::of(pid)?)))
    }

    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            threads_ns: self.threads_ns + other.threads_ns,
            process_ns: self.process_ns + other.process_ns,
            written_bytes: self.written_bytes.zip(other.written_bytes).map(|(one, other)| one + other),
        }
    }

    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            threads_ns: self.threads_ns.saturating_sub(earlier.threads_ns),
            process_ns: self.process_ns.saturating_sub(earlier.process_ns),
            written_bytes: self
                .written_bytes
                .zip(earlier.written_bytes)
                .map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

/// Memory of a process that is resident, files it has mapped included.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(number(line.and_then(|line| line.trim().strip_suffix("kB")))? * 1024)
}

fn number(text: Option<&str>) -> Result<u64> {
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::InvalidData, "/proc has another form than this program knows"))
}
