//! What the main thread does: it hears signals, from the first moment on; waits for the start; says when
//! clients are served; and watches for what stands still.
//!
//! It waits for no other thread without limit: each may hang in a call to the kernel, as where the disk does
//! not answer.

use super::kernel::StopSignal;
use super::logger::Logger;
use super::process;
use super::shared::Shared;
use super::start::Started;
use crate::limits::STALL_MS;
use crate::types::{Duration, ReactorId, Revision, Time};
use crossbeam::channel::{Receiver, TryRecvError};
use std::thread::JoinHandle;

/// How often the supervisor looks: seldom, or often while something is about to happen.
const IDLE_POLL: std::time::Duration = std::time::Duration::from_millis(250);
const BUSY_POLL: std::time::Duration = std::time::Duration::from_millis(2);

/// Why there is no server.
#[derive(Debug, PartialEq, Eq)]
pub enum Early {
    /// It was refused; the line says what to change.
    Refused(String),
    /// A signal came before it was there. Nothing has been promised to any client.
    Signal(StopSignal),
}

/// Waits for a start to come to its end, or to be ended by a signal.
pub fn await_start<S>(
    start: &Receiver<Result<S, String>>,
    mut next_signal: impl FnMut(std::time::Duration) -> Option<StopSignal>,
    logger: &Logger,
) -> Result<S, Early> {
    loop {
        match start.try_recv() {
            Ok(started) => return started.map_err(Early::Refused),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => unreachable!("a start that panics ends the process"),
        }
        if let Some(signal) = next_signal(BUSY_POLL) {
            let fields = vec![("signal", signal.name().to_string())];
            logger.info("received signal; giving up the start", fields);
            return Err(Early::Signal(signal));
        }
    }
}

/// How a server has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It stopped in order: clients have their answers, and no thread of a reactor runs.
    InOrder(StopSignal),
    /// It stopped at once: what was under way is not waited for.
    AtOnce(StopSignal),
}

/// Runs until all threads have ended, which takes a signal, or until so long after it.
pub fn supervise(
    started: &Started,
    stop_max: Duration,
    mut next_signal: impl FnMut(std::time::Duration) -> Option<StopSignal>,
    serving: impl FnOnce(),
    stopping: impl FnOnce(),
) -> Stopped {
    let Started { shared, threads, .. } = started;
    let (mut serving, mut stopping) = (Some(serving), Some(stopping));
    let mut stop: Option<(StopSignal, Time)> = None;
    let mut watchdog = Watchdog::default();
    let (mut figures_at, mut awake_at) = (Time(0), Time(0));
    loop {
        let is_busy = serving.is_some() || stop.is_some();
        let signal = next_signal(if is_busy { BUSY_POLL } else { IDLE_POLL });
        let now = shared.clock.now();
        if let Some(signal) = signal {
            stopping.take().into_iter().for_each(|stopping| stopping());
            if let Some(stopped) = hear(signal, stop.is_some(), serving.is_some(), shared) {
                return stopped;
            }
            stop = Some((signal, now));
        }
        if let Some((signal, since)) = stop {
            if threads.iter().all(JoinHandle::is_finished) {
                return Stopped::InOrder(signal);
            }
            if now.since(since) >= stop_max {
                report_hanging(threads, stop_max, &shared.logger);
                return Stopped::AtOnce(signal);
            }
        }
        if shared.sequencer.settled() > Revision::NONE
            && let Some(serving) = serving.take()
        {
            shared.lane.clients_are_served();
            serving();
        }
        if now.since(awake_at) >= Duration::from_ms(IDLE_POLL.as_millis() as u64) {
            awake_at = now;
            shared.lane.keep_awake();
        }
        watchdog.look(shared);
        if now.since(figures_at) >= Duration::from_secs(1) {
            figures_at = now;
            process::figures(shared.clock).map(|figures| shared.process.force_push(figures));
        }
    }
}

/// Begins a stop, or ends one at once: on a second signal, and where no client has been served yet.
fn hear(signal: StopSignal, is_stopping: bool, is_starting: bool, shared: &Shared) -> Option<Stopped> {
    let fields = vec![("signal", signal.name().to_string())];
    if is_stopping {
        shared.logger.warn("received a second signal; stopping at once", fields);
        return Some(Stopped::AtOnce(signal));
    }
    if is_starting && shared.sequencer.settled() == Revision::NONE {
        shared.logger.info("received signal; giving up the start", fields);
        return Some(Stopped::AtOnce(signal));
    }
    shared.logger.info("received signal; shutting down", fields);
    shared.stop();
    None
}

fn report_hanging(threads: &[JoinHandle<()>], waited: Duration, logger: &Logger) {
    let hanging = threads.iter().filter(|thread| !thread.is_finished());
    let names: Vec<&str> = hanging.filter_map(|thread| thread.thread().name()).collect();
    let fields = vec![("threads", names.join(", ")), ("waited", milliseconds(waited))];
    logger.warn("threads do not end, as where the disk does not answer: stopping without them", fields);
}

/// The watchdog's memory: what stood where at the last look.
#[derive(Default)]
struct Watchdog {
    settled: Revision,
    since: Time,
    reported_at: Time,
}

const STALL: Duration = Duration::from_ms(STALL_MS);

impl Watchdog {
    /// Reports what stands still, once per second at most.
    fn look(&mut self, shared: &Shared) {
        let now = shared.clock.now();
        let (settled, counter) = (shared.sequencer.settled(), shared.sequencer.counter());
        if settled != self.settled || counter <= settled {
            (self.settled, self.since) = (settled, now);
        }
        if now.since(self.reported_at) < STALL {
            return;
        }
        let mut lines = Vec::new();
        for reactor in 0..shared.reactors() {
            let began = shared.turn_clock(ReactorId(reactor as u16)).since();
            if let Some(took) = began.map(|began| now.since(began)).filter(|took| *took >= STALL) {
                let fields = vec![("reactor", reactor.to_string()), ("took", milliseconds(took))];
                lines.push(("a reactor's turn takes long", fields));
            }
        }
        if now.since(self.since) >= STALL {
            let fields = vec![
                ("settled", settled.to_string()),
                ("newest-revision", counter.to_string()),
                ("for", milliseconds(now.since(self.since))),
            ];
            lines.push(("writes are not settling", fields));
        }
        if !lines.is_empty() {
            self.reported_at = now;
            lines.into_iter().for_each(|(message, fields)| shared.logger.warn(message, fields));
        }
    }
}

fn milliseconds(span: Duration) -> String {
    format!("{}ms", span.0 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::super::bulk::Lane;
    use super::super::clock::Clock;
    use super::super::files::Files;
    use super::super::logger::Outputs;
    use super::super::wakers::Wakers;
    use super::*;
    use crate::config::{LogFormat, LogLevel, LogOutput};
    use crate::sequencer::{Generation, Sequencer};
    use crossbeam::channel::{Sender, bounded};
    use std::cell::Cell;
    use std::fs;
    use std::sync::Arc;

    const SIGNAL: StopSignal = StopSignal::TERMINATED;

    struct World {
        directory: tempfile::TempDir,
        started: Started,
        /// The one thread ends with it.
        hold: Sender<()>,
    }

    fn world() -> World {
        let directory = tempfile::tempdir().unwrap();
        let outputs = Outputs::open(&[LogOutput::File(directory.path().join("log"))]).unwrap();
        let logger = Logger::start(outputs, LogFormat::Json, LogLevel::Info).unwrap();
        let files = Arc::new(Files::open(directory.path().join("store")).unwrap());
        let wakers = Arc::new(Wakers::new(1).unwrap());
        let lane = Arc::new(Lane::new(files, logger.clone(), wakers.clone()));
        let sequencer = Arc::new(Sequencer::new(4));
        let shared = Arc::new(Shared::new(Clock::start(), logger, sequencer, wakers, lane));
        let (hold, held) = bounded::<()>(0);
        let hangs = std::thread::Builder::new().name("reactor-0".to_string());
        let threads = vec![hangs.spawn(move || assert!(held.recv().is_err())).unwrap()];
        World { directory, started: Started { shared, threads, served: vec![] }, hold }
    }

    impl World {
        fn log(&self) -> String {
            self.started.shared.logger.flush();
            fs::read_to_string(self.directory.path().join("log")).unwrap()
        }

        /// A signal in these looks, and how that ends.
        fn stopped(&self, stop_max: Duration, mut signals: Vec<Option<StopSignal>>) -> (Stopped, bool) {
            let told = Cell::new(false);
            signals.reverse();
            let next = |_: std::time::Duration| signals.pop().flatten();
            let stopped = supervise(&self.started, stop_max, next, || {}, || told.set(true));
            (stopped, told.get())
        }

        fn serve(&self) {
            self.started.shared.sequencer.start(Generation(1), Revision(1));
        }
    }

    #[test]
    fn a_stop_does_not_wait_for_a_thread_that_hangs() {
        let world = world();
        world.serve();
        let (stopped, told) = world.stopped(Duration::from_ms(20), vec![None, Some(SIGNAL)]);
        assert_eq!((stopped, told), (Stopped::AtOnce(SIGNAL), true));
        let log = world.log();
        assert!(log.contains("stopping without them") && log.contains("reactor-0"), "{log}");
        drop(world.hold);
    }

    #[test]
    fn a_stop_waits_for_threads_that_end() {
        let World { directory: _directory, started, hold } = world();
        started.shared.sequencer.start(Generation(1), Revision(1));
        let (mut signals, mut hold) = (vec![Some(SIGNAL), None], Some(hold));
        let next = |_: std::time::Duration| {
            let signal = signals.pop().flatten();
            if signals.is_empty() && signal.is_none() {
                hold = None;
            }
            signal
        };
        let stopped = supervise(&started, Duration::from_secs(600), next, || {}, || {});
        assert_eq!(stopped, Stopped::InOrder(SIGNAL));
    }

    #[test]
    fn before_anybody_is_served_a_signal_ends_it_at_once_and_after_it_a_second_one() {
        let long = Duration::from_secs(600);
        let world = world();
        assert_eq!(world.stopped(long, vec![None, Some(SIGNAL)]), (Stopped::AtOnce(SIGNAL), true));
        world.serve();
        let twice = vec![None, Some(SIGNAL), None, Some(StopSignal::INTERRUPT)];
        assert_eq!(world.stopped(long, twice), (Stopped::AtOnce(StopSignal::INTERRUPT), true));
        assert!(world.log().contains("received a second signal"));
        drop(world.hold);
    }

    #[test]
    fn a_signal_ends_a_start_that_never_comes_to_an_end() {
        let world = world();
        let (_never, start) = bounded::<Result<(), String>>(1);
        let mut signals = vec![Some(SIGNAL), None];
        let ended = await_start(&start, |_| signals.pop().flatten(), &world.started.shared.logger);
        assert_eq!(ended, Err(Early::Signal(SIGNAL)));
        drop(world.hold);
    }
}
