//! The log of the process: lines as etcd writes them, in the order of time, from all threads.
//!
//! A thread with something to say puts it into a bounded queue and goes on; one thread writes. Where the
//! queue is full (the reader of our output has stopped reading) lines are dropped and counted, and the
//! next line that gets through is followed by one that says how many are missing.

use super::clock::wall_us;
use super::line::Line;
use crate::config::{LogFormat, LogLevel, LogOutput};
use crate::io::{Fields, Level, LogLine};
use crate::limits::{LOG_LINES_QUEUED_MAX, LOG_LINES_WRITTEN_MAX};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The open outputs that the lines go to.
pub struct Outputs(Vec<OpenOutput>);

impl Outputs {
    pub fn open(outputs: &[LogOutput]) -> io::Result<Outputs> {
        Ok(Outputs(outputs.iter().map(OpenOutput::open).collect::<io::Result<_>>()?))
    }
}

/// The entrance to the log; clones share it.
#[derive(Clone)]
pub struct Logger {
    queue: Sender<WriterMessage>,
    dropped: Arc<AtomicU64>,
    least: LogLevel,
}

enum WriterMessage {
    Line(Line),
    Flush(Sender<()>),
}

impl Logger {
    /// Starts the thread that writes.
    pub fn start(outputs: Outputs, format: LogFormat, least: LogLevel) -> io::Result<Logger> {
        let (queue, lines) = bounded(LOG_LINES_QUEUED_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut writer = LogWriter { outputs: outputs.0, format, dropped: dropped.clone() };
        std::thread::Builder::new().name("logger".to_string()).spawn(move || writer.run(&lines))?;
        Ok(Logger { queue, dropped, least })
    }

    /// Whether lines of the lowest level are written.
    pub fn tells_all(&self) -> bool {
        self.least == LogLevel::Debug
    }

    #[track_caller]
    pub fn debug(&self, message: &str, fields: impl Into<Fields>) {
        self.shell_line(LogLevel::Debug, message, fields.into());
    }

    #[track_caller]
    pub fn info(&self, message: &str, fields: impl Into<Fields>) {
        self.shell_line(LogLevel::Info, message, fields.into());
    }

    #[track_caller]
    pub fn warn(&self, message: &str, fields: impl Into<Fields>) {
        self.shell_line(LogLevel::Warn, message, fields.into());
    }

    /// Says why the process cannot go on, waits until it is written, and ends the process.
    #[track_caller]
    pub fn halt(&self, message: &str, fields: impl Into<Fields>) -> ! {
        self.shell_line(LogLevel::Fatal, message, fields.into());
        self.flush();
        std::process::exit(1);
    }

    /// Says that a thread has panicked, which ends the process: among the other lines, and in their form.
    pub fn panicked(&self, place: Option<&Location<'_>>, message: &str) {
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        let fields = Fields::from([("stacktrace", backtrace.into())]);
        self.line(LogLevel::Panic, || place.map_or_else(String::new, caller), message, fields);
        self.flush();
    }

    /// Says what a reactor has to say. Its fields are already resolved.
    pub fn reactor(&self, reactor: u16, line: LogLine) {
        let level = match line.level {
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
        };
        self.line(level, || format!("reactor/{reactor}"), line.message, line.fields);
    }

    #[track_caller]
    fn shell_line(&self, level: LogLevel, message: &str, fields: Fields) {
        let place = Location::caller();
        self.line(level, || caller(place), message, fields);
    }

    fn line(&self, level: LogLevel, caller: impl FnOnce() -> String, message: &str, fields: Fields) {
        if level < self.least {
            return;
        }
        let line = Line { wall_us: wall_us(), level, caller: caller(), message: message.to_string(), fields };
        if self.queue.try_send(WriterMessage::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits, not for ever, until all that was said is written.
    pub fn flush(&self) {
        let timeout = Duration::from_secs(1);
        let (done, wait) = bounded(1);
        if self.queue.send_timeout(WriterMessage::Flush(done), timeout).is_ok() {
            let _ = wait.recv_timeout(timeout);
        }
    }
}

/// `shell/boot.rs:10`, as short as etcd's.
fn caller(place: &Location<'_>) -> String {
    let file = place.file();
    let file = file.rsplit_once("src/").map_or(file, |(_, file)| file);
    format!("{file}:{}", place.line())
}

enum OpenOutput {
    Stderr,
    Stdout,
    File(File),
}

impl OpenOutput {
    fn open(output: &LogOutput) -> io::Result<OpenOutput> {
        Ok(match output {
            LogOutput::Stderr => OpenOutput::Stderr,
            LogOutput::Stdout => OpenOutput::Stdout,
            LogOutput::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                OpenOutput::File(file.map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("cannot open log output {}: {error}", path.display()),
                    )
                })?)
            }
        })
    }

    /// Writes bytes. A failure is passed over, as there is nowhere left to report it.
    fn write(&mut self, bytes: &[u8]) {
        let _ = match self {
            OpenOutput::Stderr => io::stderr().lock().write_all(bytes),
            OpenOutput::Stdout => io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush()),
            OpenOutput::File(file) => file.write_all(bytes),
        };
    }
}

struct LogWriter {
    outputs: Vec<OpenOutput>,
    format: LogFormat,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    fn run(&mut self, queue: &Receiver<WriterMessage>) {
        while let Ok(first) = queue.recv() {
            let (mut lines, mut flushed) = (Vec::new(), None);
            let rest = queue.try_iter().take(LOG_LINES_WRITTEN_MAX);
            for message in std::iter::once(first).chain(rest) {
                match message {
                    WriterMessage::Line(line) => lines.push(line),
                    WriterMessage::Flush(done) => {
                        flushed = Some(done);
                        break;
                    }
                }
            }
            lines.extend(self.missing());
            // Two threads may have taken their time in one order and their place in the queue in the other.
            lines.sort_by_key(|line| line.wall_us);
            let text: String = lines.iter().map(|line| line.text(self.format)).collect();
            self.outputs.iter_mut().for_each(|output| output.write(text.as_bytes()));
            if let Some(done) = flushed {
                let _ = done.send(());
            }
        }
    }

    fn missing(&self) -> Option<Line> {
        let count = self.dropped.swap(0, Ordering::Relaxed);
        (count > 0).then(|| Line {
            wall_us: wall_us(),
            level: LogLevel::Warn,
            caller: caller(Location::caller()),
            message: "log lines were dropped: they came faster than the output took them".to_string(),
            fields: [("lines", count.into())].into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_what_is_at_least_as_grave_as_asked() {
        let path = tempfile::tempdir().unwrap().keep().join("log");
        let outputs = Outputs::open(&[LogOutput::File(path.clone())]).unwrap();
        let logger = Logger::start(outputs, LogFormat::Json, LogLevel::Warn).unwrap();
        logger.info("quiet", vec![]);
        logger.warn("loud", vec![]);
        logger.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"msg\":\"loud\"") && !text.contains("quiet"), "{text}");
        assert!(text.contains("\"caller\":\"shell/logger.rs:"), "{text}");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
