//! The world of one run: virtual time, the member's process and disk, its clients, and what goes wrong.

use super::boot::{self, Starting};
use super::client::{Broken, Client};
use super::disk::Disk;
use super::files::{Files, Final};
use super::history::{History, Known, Reign};
use super::hits::{Hit, Hits, Tally};
use super::plan::{Plan, Shape};
use super::process::{Item, Process, Stepped};
use super::trace::Trace;
use crate::config::AutoCompaction;
use crate::io::{BulkDone, Output, Paths};
use crate::reactor::{AtStart, at_start};
use crate::stdx::Rng;
use crate::types::{ConnId, Duration, ReactorId, Time};
use std::collections::VecDeque;

/// Why a run is red.
#[derive(Clone, Debug)]
pub struct Failure {
    pub check: &'static str,
    pub what: String,
}

impl Failure {
    pub fn new(check: &'static str, what: impl Into<String>) -> Failure {
        Failure { check, what: what.into() }
    }

    /// A member that finds its own data damaged says so before it serves, as one that does not start.
    fn of_halt(why: String) -> Failure {
        let damaged = ["is damaged", "is missing", "makes no sense"].iter().any(|words| why.contains(words));
        Failure::new(if damaged { REFUSED } else { "halt" }, why)
    }
}

/// The check that fails where the member does not start.
pub(super) const REFUSED: &str = "refused";

pub(super) enum Life {
    Down {
        until: Time,
    },
    /// What is left of dead logs is being removed, and their marks, in these steps.
    Clearing(VecDeque<AtStart>),
    Starting(Box<Starting>),
    Up(Box<Process>),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    Kill,
    PowerLoss,
}

pub struct World {
    pub now: Time,
    pub(super) shape: Shape,
    pub(super) life: Life,
    pub(super) files: Files,
    pub clients: Vec<Client>,
    pub history: History,
    pub trace: Trace,
    pub(super) rng: Rng,
    boot_rng: Rng,
    connections: u32,
    pub(super) dying: Option<(u64, Death)>,
    pub(super) slow_disk_until: Time,
    pub(super) hung_until: Time,
    pub(super) full_until: Time,
    pub(super) dead_until: Time,
    /// The next start cannot read something.
    pub(super) unreadable: bool,
    /// Files of logs as they were a while ago.
    pub(super) copies: Vec<(String, Vec<u8>)>,
    pub(super) slow_mail: Option<(usize, usize, Duration, Time)>,
    /// What went wrong so far, but for what the disk counts.
    pub(super) hits: Hits,
    /// The ways that processes went which are no more.
    paths: Paths,
    steps: u64,
    pub starts: u64,
}

pub(super) const CAPACITY_BYTES: u64 = 64 << 20;
const STEPS_MAX: u64 = 6_000_000;

impl World {
    pub fn new(plan: &Plan, keeps_trace: bool) -> World {
        let mut rng = Rng::new(plan.seed);
        let shape = plan.shape.clone();
        let disk = Disk::new(CAPACITY_BYTES, (Duration(0), shape.disk_latency));
        let files = Files::new(disk, rng.fork());
        let mut clients: Vec<Client> =
            (0..shape.clients).map(|id| Client::new(id, shape.window_bytes)).collect();
        clients.push(Client::new(shape.clients, 1 << 20));
        let known = Known {
            compacts_itself: shape.auto_compaction != AutoCompaction::Off,
            refuses: shape.refuses(),
            quota_bytes: shape.quota_bytes,
            ..Known::default()
        };
        World {
            now: Time(0),
            shape,
            life: Life::Down { until: Time(0) },
            files,
            clients,
            history: History::of(known),
            trace: Trace { keeps: keeps_trace, ..Trace::default() },
            boot_rng: rng.fork(),
            rng,
            connections: 0,
            dying: None,
            slow_disk_until: Time::NEVER,
            hung_until: Time::NEVER,
            full_until: Time::NEVER,
            dead_until: Time::NEVER,
            unreadable: false,
            copies: vec![],
            slow_mail: None,
            hits: Hits::default(),
            paths: Paths::default(),
            steps: 0,
            starts: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.life, Life::Up(_))
    }

    pub fn reactors(&self) -> usize {
        if let Life::Up(process) = &self.life { process.seats.len() } else { 0 }
    }

    /// Lets everything happen that is due up to a time.
    pub fn advance(&mut self, until: Time) -> Result<(), Failure> {
        loop {
            while self.act()? {}
            let next = self.next_time();
            if next > until {
                self.now = self.now.max(until);
                return Ok(());
            }
            self.now = self.now.max(next);
        }
    }

    fn next_time(&self) -> Time {
        let life = match &self.life {
            Life::Down { until } => *until,
            Life::Starting(_) | Life::Clearing(_) => Time::NEVER,
            Life::Up(process) => process.wake_at(),
        };
        let clients = self.clients.iter().map(Client::wake_at).min().unwrap_or(Time::NEVER);
        let faults = [self.slow_disk_until, self.hung_until, self.full_until, self.dead_until];
        faults.into_iter().chain([life, clients, self.files.wake_at()]).min().expect("there are several")
    }

    /// One thing that is due now. False where nothing is.
    fn act(&mut self) -> Result<bool, Failure> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Failure::new("liveness", "the run does not end"));
        }
        self.end_faults();
        let process = match &mut self.life {
            Life::Up(process) => Some(&mut **process),
            _ => None,
        };
        match self.files.complete(self.now, process) {
            Err(Final(why)) => {
                self.halt(&why)?;
                return Ok(true);
            }
            Ok(true) => return Ok(true),
            Ok(false) => {}
        }
        if self.read_clients() {
            return Ok(true);
        }
        match &self.life {
            Life::Down { until } if *until <= self.now => self.clear(),
            Life::Clearing(_) if !self.files.is_starting() => self.start(),
            Life::Starting(_) if !self.files.is_starting() => self.finish_start(),
            Life::Up(_) => self.act_in_process(),
            _ => Ok(false),
        }
    }

    fn act_in_process(&mut self) -> Result<bool, Failure> {
        if let Some((0, death)) = self.dying {
            self.count_death(death);
            self.die(death);
            return Ok(true);
        }
        let Life::Up(process) = &mut self.life else { return Ok(false) };
        let due = process.due(self.now);
        if due.is_empty() {
            return Ok(false);
        }
        if let Some((steps, _)) = &mut self.dying {
            *steps -= 1;
        }
        let at = *self.rng.pick(&due);
        let stepped = process.step(at, self.now, &mut self.rng, &mut self.trace, &mut self.hits);
        for term in std::mem::take(&mut process.reigns) {
            let begun = self.history.moment(self.now);
            self.history.known.reigns.push(Reign { begun, term });
        }
        match stepped {
            Stepped::Took => {}
            Stepped::Gave(output) => self.carry_out(at, output)?,
            Stepped::Spins => {
                return Err(Failure::new("liveness", format!("reactor {at} turns without end")));
            }
        }
        Ok(true)
    }

    fn carry_out(&mut self, from: usize, output: Output) -> Result<(), Failure> {
        let now = self.now;
        self.count_output(&output);
        let Life::Up(process) = &mut self.life else { return Ok(()) };
        match output {
            Output::Send { conn, bytes } => self.send_to_client(conn, bytes),
            Output::Close { conn } => self.close_from_server(conn),
            Output::Mail { to, mail } => {
                let to = usize::from(to.0);
                let mut most = self.shape.mail_delay;
                if let Some((slow_from, slow_to, delay, until)) = self.slow_mail
                    && until > now
                    && (slow_from, slow_to) == (from, to)
                {
                    most = delay;
                }
                process.mail(from, to, now + Duration(self.rng.below(most.0 + 1)), mail);
            }
            Output::Log(command) => {
                if let Err(Final(why)) = self.files.log(now, from, command) {
                    self.halt(&why)?;
                }
            }
            Output::Bulk { job, step } => {
                if let Some(done) = self.files.bulk(now, from, job, step) {
                    if matches!(done, BulkDone::Failed(_)) {
                        self.hits.count(Hit::FailedStep);
                    }
                    process.deliver(from, now, Item::Bulk(job, done));
                }
            }
            Output::Haste(_) | Output::Notice(_) => {}
            // A start that has no room for its first file says so and ends.
            Output::Halt(why) if self.full_until != Time::NEVER => self.halt(&why)?,
            Output::Halt(why) => return Err(Failure::of_halt(why)),
        }
        Ok(())
    }

    // Starts and ends.

    fn clear(&mut self) -> Result<bool, Failure> {
        self.life = Life::Clearing(at_start(self.files.disk.files()));
        Ok(true)
    }

    fn start(&mut self) -> Result<bool, Failure> {
        if let Life::Clearing(steps) = &mut self.life {
            let cleared = boot::clear_dead(&mut self.files, self.now, steps);
            if !cleared.map_err(|why| Failure::new(REFUSED, why))? {
                return Ok(true);
            }
        }
        self.starts += 1;
        let mut reactors = self.shape.reactors;
        if self.shape.resizes && self.starts > 1 {
            reactors = 1 + self.boot_rng.below(4) as u16;
        }
        self.trace.line(self.now, || format!("start with {reactors} reactors"));
        let key = self.boot_rng.next_u64();
        if std::mem::take(&mut self.unreadable) {
            let files = self.files.disk.files().count() as u64;
            self.files.disk.fail_read(self.boot_rng.below(1 + files));
        }
        match boot::begin(&mut self.files, self.now, &self.shape, reactors, key) {
            Ok(starting) => self.life = Life::Starting(Box::new(starting)),
            Err(why) => self.refused(why)?,
        }
        Ok(true)
    }

    fn finish_start(&mut self) -> Result<bool, Failure> {
        let Life::Starting(starting) = std::mem::replace(&mut self.life, Life::Down { until: self.now })
        else {
            return Ok(false);
        };
        match starting.finish(&mut self.files, self.now, &self.shape, &mut self.boot_rng) {
            Ok(process) => {
                if self.full_until != Time::NEVER {
                    self.hits.count(Hit::FullStart);
                }
                self.files.disk.end_failing_reads();
                self.life = Life::Up(Box::new(process));
            }
            Err(why) => self.refused(why)?,
        }
        Ok(true)
    }

    /// The member does not start. Where that was one error of reading, it is started again.
    fn refused(&mut self, why: String) -> Result<(), Failure> {
        if !self.files.disk.end_failing_reads() {
            return Err(Failure::new(REFUSED, why));
        }
        self.trace.line(self.now, || format!("refused: {why}"));
        self.hits.count(Hit::UnreadableStart);
        self.life = Life::Down { until: self.now + Duration(1_000_000) };
        Ok(())
    }

    /// The process stops by itself, as it must where the disk fails it.
    fn halt(&mut self, why: &str) -> Result<(), Failure> {
        self.trace.line(self.now, || format!("halt: {why}"));
        if self.dead_until == Time::NEVER && self.full_until == Time::NEVER {
            return Err(Failure::new("halt", why));
        }
        if self.dead_until != Time::NEVER {
            self.hits.count(Hit::DeadDisk);
        }
        self.die(Death::Kill);
        let well = [self.dead_until, self.full_until].into_iter().filter(|until| *until != Time::NEVER);
        if let (Life::Down { until }, Some(well)) = (&mut self.life, well.max()) {
            *until = well + Duration(1);
        }
        Ok(())
    }

    /// Notes the ways that the process went, which is no more after this.
    fn walk(&mut self) {
        if let Life::Up(process) = &self.life {
            process.seats.iter().for_each(|seat| self.paths.add(&seat.reactor.paths()));
        }
    }

    /// What the run met, whose last process ends.
    pub fn end(&mut self) -> Tally {
        self.walk();
        self.life = Life::Down { until: Time::NEVER };
        Tally { hits: self.hits(), paths: self.paths }
    }

    pub(super) fn die(&mut self, death: Death) {
        self.trace.line(self.now, || format!("{death:?}"));
        self.dying = None;
        match death {
            Death::Kill => self.files.disk.kill(&mut self.files.rng),
            Death::PowerLoss => self.files.disk.power_loss(&mut self.files.rng),
        }
        self.walk();
        self.files.forget();
        let mut until = self.now + Duration(self.rng.below(30_000_000));
        if self.dead_until != Time::NEVER {
            until = until.max(self.dead_until + Duration(1));
        }
        self.life = Life::Down { until };
        for client in &mut self.clients {
            client.disconnected(self.now, &mut self.history);
        }
    }

    // The network.

    /// Connects a client that is not, where somebody listens.
    pub fn connect(&mut self, client: usize) {
        let Life::Up(process) = &mut self.life else { return };
        if self.clients[client].link.is_some() {
            return;
        }
        self.connections += 1;
        let reactor = ReactorId(self.rng.below(process.seats.len() as u64) as u16);
        let conn = ConnId { reactor, slot: self.connections, generation: self.connections };
        process.deliver(usize::from(reactor.0), self.now, Item::Opened(conn));
        self.clients[client].connect(self.now, conn);
        self.send_to_server(client);
    }

    pub fn disconnect(&mut self, client: usize) {
        let now = self.now;
        if let (Some(link), Life::Up(process)) = (&self.clients[client].link, &mut self.life) {
            // Some of what is on its way is lost with it, unless it arrives before.
            let at = now + Duration(self.rng.below(self.shape.net_delay.0 + 1));
            process.deliver(usize::from(link.conn.reactor.0), at, Item::Closed(link.conn));
        }
        self.clients[client].disconnected(now, &mut self.history);
    }

    /// What a client has to send goes, in pieces.
    pub fn send_to_server(&mut self, client: usize) {
        let bytes = self.clients[client].take_output();
        let (Some(link), Life::Up(process)) = (&mut self.clients[client].link, &mut self.life) else {
            return;
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let whole = self.rng.chance(3, 4);
            let len = if whole { rest.len() } else { 1 + self.rng.below(rest.len() as u64) as usize };
            let at = self.now + Duration(1 + self.rng.below(self.shape.net_delay.0));
            link.sent_upto = link.sent_upto.max(at);
            let item = Item::Received(link.conn, rest[..len].to_vec());
            process.deliver(usize::from(link.conn.reactor.0), link.sent_upto, item);
            rest = &rest[len..];
        }
    }

    fn link_of(&mut self, conn: ConnId) -> Option<&mut super::client::Link> {
        self.clients.iter_mut().filter_map(|client| client.link.as_mut()).find(|link| link.conn == conn)
    }

    fn send_to_client(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let at = self.now + Duration(1 + self.rng.below(self.shape.net_delay.0));
        if let Some(link) = self.link_of(conn) {
            let at = link.coming.back().map_or(at, |(last, _)| at.max(*last));
            link.coming.push_back((at, bytes));
        }
    }

    fn close_from_server(&mut self, conn: ConnId) {
        let now = self.now;
        if let Some(link) = self.link_of(conn) {
            link.closing = true;
            if link.coming.is_empty() {
                link.coming.push_back((now, vec![]));
            }
        }
    }

    fn read_clients(&mut self) -> bool {
        let now = self.now;
        let Some(at) = self.clients.iter().position(|client| client.wake_at() <= now) else { return false };
        if self.clients[at].has_stalled(now) {
            self.hits.count(Hit::Stall);
        }
        let conn = self.clients[at].link.as_ref().expect("it has something to read").conn;
        let read = self.clients[at].read(now, &mut self.history);
        if let (Ok((bytes, _)), Life::Up(process)) = (&read, &mut self.life)
            && *bytes > 0
        {
            process.deliver(usize::from(conn.reactor.0), now, Item::Sent(conn, *bytes));
        }
        match read {
            Ok((_, false)) => self.send_to_server(at),
            Ok((_, true)) => self.disconnect(at),
            Err(Broken(why)) => {
                self.trace.line(now, || format!("client {at}: {why}"));
                self.disconnect(at);
            }
        }
        true
    }
}
