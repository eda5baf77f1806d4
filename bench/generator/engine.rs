//! The loop that keeps the pace.

use super::link::{Done, End, Link};
use super::outcome::Outcome;
use super::poll::Poll;
use super::progress::Progress;
use super::usage::Usage;
use super::workload::Book;
use super::{Pace, Plan, Span};
use std::io::Result;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 256 << 10;
/// The longest sleep; whatever is waited for comes earlier.
const SLEEP_NS: u64 = 100_000_000;

#[derive(Clone, Copy)]
enum Phase {
    WarmUp { until_ns: u64 },
    Measured { from_ns: u64 },
    Draining { from_ns: u64, until_ns: u64 },
}

struct Engine<'a> {
    plan: &'a Plan,
    start: Instant,
    links: Vec<Link>,
    /// The link that the open loop's next request goes to.
    next_link: usize,
    book: Book,
    /// Requests of the open loop so far.
    places: u64,
    /// Requests sent that were meant inside the window.
    measured: u64,
    phase: Phase,
    outcome: Outcome,
    /// Answers since the window began.
    answers: u64,
    last_answer_ns: u64,
    done: Vec<Done>,
}

/// Counters at the window's beginning.
struct Before {
    server: Usage,
    generator: Usage,
    bytes_sent: u64,
    bytes_received: u64,
}

/// Carries out a plan. Errors are those of the connections and of `/proc`, and name the server or the process; refused requests and wrong
/// answers are counted in the outcome.
pub fn run(plan: &Plan) -> Result<Outcome> {
    // The open loop's sleeps must not be rounded up to 50 µs. Where this fails, lateness shows it.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let mut poll = Poll::new()?;
    let mut links = Vec::new();
    for number in 0..plan.connections {
        let link = Link::connect(plan.endpoints[number % plan.endpoints.len()])?;
        poll.add(&link.socket, number)?;
        links.push(link);
    }
    let mut engine = Engine {
        plan,
        start: Instant::now(),
        links,
        next_link: 0,
        book: Book::new(&plan.workload, plan.seed),
        places: 0,
        measured: 0,
        phase: Phase::WarmUp { until_ns: plan.warm_up.as_nanos() as u64 },
        outcome: Outcome::new(),
        answers: 0,
        last_answer_ns: 0,
        done: Vec::new(),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut ready, mut before, mut progress) = (Vec::new(), None, Progress::new());
    if plan.warm_up.is_zero() {
        before = Some(engine.open_window()?);
    }
    if plan.pace == Pace::Closed {
        engine.fill_streams()?;
    }
    loop {
        let mut now_ns = engine.now_ns();
        match engine.phase {
            Phase::WarmUp { until_ns } if now_ns >= until_ns => {
                before = Some(engine.open_window()?);
                now_ns = engine.now_ns();
            }
            Phase::Measured { from_ns } if engine.is_window_over(from_ns, now_ns) => {
                engine.close_window(from_ns, now_ns);
            }
            Phase::Draining { until_ns, .. } if engine.is_drained() || now_ns >= until_ns => break,
            _ => (),
        }
        if let Pace::Open { per_second } = plan.pace {
            engine.send_due(per_second, now_ns)?;
        }
        progress.say(now_ns, &plan.label, engine.answers);
        let timeout = engine.timeout_ns();
        poll.wait(Duration::from_nanos(timeout), &mut ready)?;
        for &number in &ready {
            engine.attend(number, &mut buffer)?;
        }
    }
    engine.finish(&before.expect("the window opens before it closes"))
}

impl Engine<'_> {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Reads the counters, then lets the window begin: what was meant while they were read is not in it.
    fn open_window(&mut self) -> Result<Before> {
        let before = Before {
            server: Usage::of_all(&self.plan.pids)?,
            generator: Usage::of(std::process::id())?,
            bytes_sent: self.links.iter().map(|link| link.bytes_sent).sum(),
            bytes_received: self.links.iter().map(|link| link.bytes_received).sum(),
        };
        self.phase = Phase::Measured { from_ns: self.now_ns() };
        Ok(before)
    }

    fn is_window_over(&self, from_ns: u64, now_ns: u64) -> bool {
        match self.plan.span {
            Span::For(duration) => now_ns >= from_ns + duration.as_nanos() as u64,
            Span::Requests(total) => self.measured >= total,
        }
    }

    fn close_window(&mut self, from_ns: u64, now_ns: u64) {
        if let Span::For(_) = self.plan.span {
            self.outcome.seconds = (now_ns - from_ns) as f64 / 1e9;
            self.outcome.answers = self.answers;
        }
        self.phase = Phase::Draining { from_ns, until_ns: now_ns + self.plan.patience.as_nanos() as u64 };
    }

    /// When the open loop's request of this place is to be sent.
    fn place_ns(place: u64, per_second: u64) -> u64 {
        (u128::from(place) * 1_000_000_000 / u128::from(per_second)) as u64
    }

    /// The end of what the open loop sends: none while it is not known.
    fn last_place_ns(&self) -> u64 {
        match (self.phase, self.plan.span) {
            (Phase::Draining { from_ns, .. } | Phase::Measured { from_ns }, Span::For(duration)) => {
                from_ns + duration.as_nanos() as u64
            }
            (Phase::Draining { .. }, Span::Requests(_)) => 0,
            _ => u64::MAX,
        }
    }

    fn is_drained(&self) -> bool {
        let unsent = match self.plan.pace {
            Pace::Closed => false,
            Pace::Open { per_second } => Self::place_ns(self.places, per_second) < self.last_place_ns(),
        };
        !unsent && self.links.iter().all(|link| link.in_flight == 0)
    }

    fn fill_streams(&mut self) -> Result<()> {
        for number in 0..self.links.len() {
            for _ in 0..self.plan.streams {
                self.send_again(number, self.now_ns())?;
            }
            self.links[number].flush()?;
        }
        Ok(())
    }

    /// The closed loop's next request on a link.
    fn send_again(&mut self, number: usize, now_ns: u64) -> Result<()> {
        match (self.phase, self.plan.span) {
            (Phase::Draining { .. }, _) => return Ok(()),
            (Phase::Measured { .. }, Span::Requests(total)) if self.measured >= total => return Ok(()),
            (Phase::Measured { .. }, _) => self.measured += 1,
            (Phase::WarmUp { .. }, _) => (),
        }
        self.links[number].send(&mut self.book, now_ns)
    }

    /// Sends what the open loop's rate asks for by now, as far as streams are free.
    fn send_due(&mut self, per_second: u64, now_ns: u64) -> Result<()> {
        let (first, end_ns) = (self.next_link, self.last_place_ns());
        let mut sent = 0;
        loop {
            let meant_ns = Self::place_ns(self.places, per_second);
            if meant_ns > now_ns || meant_ns >= end_ns {
                break;
            }
            if let (Phase::Measured { .. }, Span::Requests(total)) = (self.phase, self.plan.span)
                && self.measured >= total
            {
                break;
            }
            let Some(number) = self.free_link() else { break };
            self.links[number].send(&mut self.book, meant_ns)?;
            self.next_link = (number + 1) % self.links.len();
            self.places += 1;
            sent += 1;
            if self.is_measured(meant_ns) {
                self.measured += 1;
                self.outcome.record_lateness(now_ns - meant_ns);
            }
        }
        if sent > 0 {
            // At least those that were passed, which may be all.
            let passed = (self.next_link + self.links.len() - first - 1) % self.links.len() + 1;
            let count = if sent >= self.links.len() { self.links.len() } else { passed };
            for step in 0..count {
                let number = (first + step) % self.links.len();
                self.links[number].flush()?;
            }
        }
        Ok(())
    }

    fn free_link(&self) -> Option<usize> {
        let count = self.links.len();
        (0..count)
            .map(|step| (self.next_link + step) % count)
            .find(|&number| self.links[number].in_flight < self.plan.streams)
    }

    fn is_measured(&self, meant_ns: u64) -> bool {
        match self.phase {
            Phase::WarmUp { .. } => false,
            Phase::Measured { from_ns } | Phase::Draining { from_ns, .. } => meant_ns >= from_ns,
        }
    }

    fn timeout_ns(&self) -> u64 {
        let now_ns = self.now_ns();
        let mut until_ns = now_ns + SLEEP_NS;
        match (self.phase, self.plan.span) {
            (Phase::WarmUp { until_ns: end_ns } | Phase::Draining { until_ns: end_ns, .. }, _) => {
                until_ns = until_ns.min(end_ns);
            }
            (Phase::Measured { from_ns }, Span::For(duration)) => {
                until_ns = until_ns.min(from_ns + duration.as_nanos() as u64);
            }
            (Phase::Measured { from_ns }, Span::Requests(_)) if self.is_window_over(from_ns, now_ns) => {
                return 0;
            }
            (Phase::Measured { .. }, Span::Requests(_)) => (),
        }
        if let Pace::Open { per_second } = self.plan.pace
            && self.free_link().is_some()
        {
            let place_ns = Self::place_ns(self.places, per_second);
            until_ns = if place_ns < self.last_place_ns() { until_ns.min(place_ns) } else { until_ns };
        }
        until_ns.saturating_sub(now_ns)
    }

    /// Receives on a link until it has no more, and sends what follows.
    fn attend(&mut self, number: usize, buffer: &mut [u8]) -> Result<()> {
        loop {
            let count = self.links[number].receive(buffer)?;
            if count > 0 {
                let now_ns = self.now_ns();
                let mut done = std::mem::take(&mut self.done);
                self.links[number].read(now_ns, &buffer[..count], &mut self.book, &mut done)?;
                for done in done.drain(..) {
                    self.conclude(number, done, now_ns);
                    if self.plan.pace == Pace::Closed {
                        self.send_again(number, now_ns)?;
                    }
                }
                self.done = done;
            }
            // Also where nothing was received: the socket may take again what it did not before.
            self.links[number].flush()?;
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    fn conclude(&mut self, number: usize, done: Done, now_ns: u64) {
        if matches!(self.phase, Phase::WarmUp { .. }) {
            if let End::Wrong(why) = done.end {
                self.note_violation(number, why);
            }
            return;
        }
        self.answers += 1;
        self.last_answer_ns = now_ns;
        if self.is_measured(done.meant_ns) {
            self.outcome.record_latency(now_ns - done.meant_ns);
        }
        match done.end {
            End::Right => (),
            End::Wrong(why) => self.note_violation(number, why),
            End::Refused(why) => self.note_error(number, why),
        }
    }

    fn note_violation(&mut self, number: usize, why: String) {
        self.outcome.violations += 1;
        self.note_fault(number, &why);
    }

    fn note_error(&mut self, number: usize, why: String) {
        self.outcome.errors += 1;
        self.note_fault(number, &why);
    }

    /// The first fault is kept, with the server it came from.
    fn note_fault(&mut self, number: usize, why: &str) {
        let to = self.links[number].to;
        self.outcome.fault.get_or_insert_with(|| format!("{to}: {why}"));
    }

    /// Counts what never got its answer, and reads the counters again.
    fn finish(mut self, before: &Before) -> Result<Outcome> {
        let Phase::Draining { from_ns, .. } = self.phase else { panic!("only draining ends") };
        let now_ns = self.now_ns();
        let flights = |(number, link): (usize, &Link)| {
            let meant = link.flights_meant_ns().map(|meant_ns| (number, meant_ns));
            meant.collect::<Vec<(usize, u64)>>()
        };
        let mut waiting: Vec<(usize, u64)> = self.links.iter().enumerate().flat_map(flights).collect();
        if let Pace::Open { per_second } = self.plan.pace {
            let unsent = (self.places..).map(|place| Self::place_ns(place, per_second));
            let unsent = unsent.take_while(|&meant_ns| meant_ns < self.last_place_ns());
            waiting.extend(unsent.map(|meant_ns| (self.next_link, meant_ns)));
        }
        for (number, meant_ns) in waiting.into_iter().filter(|(_, meant_ns)| *meant_ns >= from_ns) {
            self.outcome.record_latency(now_ns - meant_ns);
            self.note_error(number, "no answer in time".to_owned());
        }
        if let Span::Requests(_) = self.plan.span {
            self.outcome.seconds = self.last_answer_ns.saturating_sub(from_ns).max(1) as f64 / 1e9;
            self.outcome.answers = self.answers;
        }
        self.outcome.answers_drained = self.answers;
        if !self.plan.pids.is_empty() {
            self.outcome.server = Some(Usage::of_all(&self.plan.pids)?.since(before.server));
        }
        self.outcome.generator = Usage::of(std::process::id())?.since(before.generator);
        let sent: u64 = self.links.iter().map(|link| link.bytes_sent).sum();
        let received: u64 = self.links.iter().map(|link| link.bytes_received).sum();
        self.outcome.bytes_sent = sent - before.bytes_sent;
        self.outcome.bytes_received = received - before.bytes_received;
        Ok(self.outcome)
    }
}
