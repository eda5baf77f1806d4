//! One run of a case: what is done with a server, and what is measured.

use crate::beside::{Compactor, compact, revision};
use crate::cases::{Case, Course, Measure};
use crate::catch_up;
use crate::members;
use crate::options::Options;
use crate::sample::Sample;
use crate::server::Server;
use generator::usage::{Usage, resident_bytes};
use generator::workload::Workload;
use generator::{Pace, Plan, Span};
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

const MIB: f64 = 1_048_576.0;
/// Reads after a restart that look whether everything is there.
const CHECKS: u64 = 20_000;

/// One program's turn.
pub struct Run<'a> {
    pub options: &'a Options,
    pub directory: &'a Path,
    pub program: &'a Path,
    pub case: &'a Case,
    pub round: usize,
    /// As in the JSON.
    pub who: &'a str,
}

impl Run<'_> {
    pub fn measure(&self) -> Result<Sample> {
        let start = || Server::start(self.program, self.directory, &self.workload());
        let mut sample = match self.case.course {
            Course::Fresh => self.fresh(&start()?)?,
            Course::Aged { overwrites } => self.aged(&start()?, overwrites)?,
            Course::Disk { overwrites } => self.disk(&start()?, overwrites)?,
            Course::Restart { at_once } => self.restart(&mut start()?, at_once)?,
            Course::Members(_) | Course::Watches { .. } | Course::Failover(_) | Course::Idle => {
                members::measure(self)?
            }
            Course::CatchUp => catch_up::measure(self)?,
        };
        sample.json["who"] = self.who.into();
        sample.json["case"] = self.case.name.into();
        sample.json["round"] = self.round.into();
        eprintln!("{}", sample.json);
        Ok(sample)
    }

    fn workload(&self) -> Workload {
        let keys = self.case.workload.keys;
        Workload { keys: if self.case.is_long() { self.scaled(keys) } else { keys }, ..self.case.workload }
    }

    fn scaled(&self, number: u64) -> u64 {
        ((number as f64 * self.options.scale) as u64).max(1)
    }

    fn label(&self, doing: &str) -> String {
        format!(
            "round {} of {}, {}, {}{doing}",
            self.round + 1,
            self.options.rounds,
            self.case.name,
            self.who
        )
    }

    pub fn say(&self, doing: &str) {
        eprintln!("compare: {}", self.label(doing));
    }

    fn plan_of(&self, server: &Server) -> Plan {
        self.plan(vec![server.client], vec![server.pid()])
    }

    pub fn plan(&self, endpoints: Vec<SocketAddr>, pids: Vec<u32>) -> Plan {
        Plan {
            label: self.label(""),
            endpoints,
            pids,
            connections: self.case.connections,
            streams: self.case.streams,
            workload: self.workload(),
            pace: self.case.pace,
            warm_up: self.options.warm_up,
            span: Span::For(self.options.seconds),
            patience: Duration::from_secs(5),
            seed: self.round as u64,
        }
    }

    /// A load that only prepares what is measured: nothing in it may fail.
    pub fn prepare(&self, plan: &Plan) -> Result<()> {
        match generator::run(plan)?.fault {
            Some(fault) => Err(Error::other(format!("{}: {fault}", plan.label))),
            None => Ok(()),
        }
    }

    /// Puts every key, then random ones as often as `overwrites` says, as fast as the server takes them.
    fn fill(&self, server: &Server, overwrites: u64) -> Result<()> {
        let plan = self.plan_of(server);
        self.say(": filling");
        self.prepare(&plan.prefill())?;
        if overwrites == 0 {
            return Ok(());
        }
        self.say(": overwriting");
        self.prepare(&Plan {
            label: self.label(": overwriting"),
            pace: Pace::Closed,
            warm_up: Duration::ZERO,
            span: Span::Requests(self.scaled(overwrites)),
            ..plan
        })
    }

    fn fresh(&self, server: &Server) -> Result<Sample> {
        let plan = self.plan_of(server);
        if self.case.workload.puts_percent < 100 {
            self.prepare(&plan.prefill())?;
        }
        Ok(Sample::of(&generator::run(&plan)?, &plan))
    }

    fn aged(&self, server: &Server, overwrites: u64) -> Result<Sample> {
        self.fill(server, overwrites)?;
        let every = self.options.compact_every;
        let compactor = Compactor::start(server.client, every);
        // The first compaction takes the history of the overwrites, the window has the usual ones.
        let plan = Plan {
            warm_up: every.mul_f64(1.25),
            span: Span::For(self.options.window),
            ..self.plan_of(server)
        };
        self.say(": measuring");
        let outcome = generator::run(&plan);
        let compactions = compactor.end()?;
        let mut sample = Sample::of(&outcome?, &plan);
        sample.json["compactions"] = compactions.into();
        sample.note(Measure::Memory, resident_bytes(server.pid())? as f64 / MIB);
        sample.note(Measure::Disk, server.disk_bytes()? as f64 / MIB);
        Ok(sample)
    }

    fn disk(&self, server: &Server, overwrites: u64) -> Result<Sample> {
        let mut sample = Sample::default();
        sample.note(Measure::DiskEmpty, server.disk_bytes()? as f64 / MIB);
        self.fill(server, overwrites)?;
        compact(server.client, revision(server.client)?, true)?;
        self.settle();
        sample.note(Measure::Memory, resident_bytes(server.pid())? as f64 / MIB);
        sample.note(Measure::Disk, server.disk_bytes()? as f64 / MIB);
        Ok(sample)
    }

    fn restart(&self, server: &mut Server, at_once: bool) -> Result<Sample> {
        self.fill(server, 0)?;
        if !at_once {
            self.settle();
        }
        let mut sample = Sample::default();
        sample.note(Measure::Memory, resident_bytes(server.pid())? as f64 / MIB);
        sample.note(Measure::Disk, server.disk_bytes()? as f64 / MIB);
        server.kill()?;
        self.say(": starting again");
        let took = server.start_again(&self.workload())?;
        sample.note(Measure::RestartSeconds, took.as_secs_f64());
        sample.note(Measure::RestartCpu, Usage::of(server.pid())?.threads_ns as f64 / 1e9);
        self.settle();
        sample.note(Measure::MemoryAfter, resident_bytes(server.pid())? as f64 / MIB);
        let plan = Plan {
            workload: Workload { puts_percent: 0, ..self.workload() },
            warm_up: Duration::ZERO,
            span: Span::Requests(CHECKS),
            ..self.plan_of(server)
        };
        self.prepare(&plan)?;
        Ok(sample)
    }

    pub fn settle(&self) {
        self.say(": pausing");
        thread::sleep(self.options.settle);
    }
}
