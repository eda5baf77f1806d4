//! What is said on stderr of a run that takes long.

use std::io::{IsTerminal, Write};

/// On a terminal one line, written anew; else a line now and then.
const ON_TERMINAL_NS: u64 = 1_000_000_000;
const IN_FILE_NS: u64 = 60_000_000_000;

pub struct Progress {
    said_ns: u64,
    on_terminal: bool,
    is_line_open: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { said_ns: 0, on_terminal: std::io::stderr().is_terminal(), is_line_open: false }
    }

    /// `now_ns` counts from the run's beginning.
    pub fn say(&mut self, now_ns: u64, label: &str, answers: u64) {
        if now_ns < self.said_ns + if self.on_terminal { ON_TERMINAL_NS } else { IN_FILE_NS } {
            return;
        }
        self.said_ns = now_ns;
        // The line before is cleared and written over.
        let (before, after) = if self.on_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        // Whoever closed stderr wants no progress.
        let seconds = now_ns / 1_000_000_000;
        let _ = write!(std::io::stderr(), "{before}{label}: {seconds} s, {answers} answers{after}");
        self.is_line_open = self.on_terminal;
    }
}

impl Drop for Progress {
    /// Leaves the line to what comes.
    fn drop(&mut self) {
        if self.is_line_open {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
