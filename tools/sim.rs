//! The simulator at a desk: runs seeds, repeats one, makes a failing one small. `--help` says how to use it.

#![allow(clippy::disallowed_methods, reason = "how long the machine takes is what is shown")]

use braid::sim::hits::Tally;
use braid::sim::plan::Plan;
use braid::sim::{Failure, Report, Summary, run};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

const HELP: &str = "\
Runs the whole server in a simulated world: a seed draws the members, their clients and their faults, and
decides every step of it. What clients saw must be what one etcd could have answered.

    cargo sim -- run [--seeds A..B] [--minutes M] [--members N [--changes]] [--reach-all] [--jobs J]
    cargo sim -- repeat SEED [--trace] [--members N [--changes]] [--only I,J,...]
    cargo sim -- shrink SEED [--members N [--changes]]

  run      the seeds from A up to, not including, B     [0..1000]
           until one fails, all are done, or M minutes are over; with --reach-all they fail as well where
           some fault never hit anything, or some way through the program was never gone: with several
           members, of those that only several have; J seeds at once        [as many as cores may be used]
  repeat   one seed again: its plan, how it ends, and with --trace everything that happens; with --only
           nothing but those events of the plan, by their places from 0 on
  shrink   leaves events out of a failing seed for as long as it still fails, and says which are left

A seed is a run of one member, unless --members says how many: that is another run. With --changes so many
members, or one, found a cluster, and members come and go: that is another run again.

The exit code is 0 where every seed held, 1 where one failed, 2 where an argument is wrong. A seed that
panics ends the process; the command that repeats it is printed before.";

/// What is said of a long run, and how often: on a terminal one line, written anew, else lines.
const PROGRESS_ON_TERMINAL: Duration = Duration::from_millis(500);
const PROGRESS_IN_FILE: Duration = Duration::from_secs(60);

/// As many as etcd advises at most.
const MEMBERS_MAX: usize = 7;

/// More threads than any machine of ours has cores.
const JOBS_MAX: usize = 1024;

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

#[derive(Debug, PartialEq)]
enum Task {
    Help,
    Run(Runs),
    Repeat { seed: u64, members: Members, trace: bool, only: Option<Vec<usize>> },
    Shrink { seed: u64, members: Members },
}

#[derive(Clone, Debug, PartialEq)]
struct Runs {
    seeds: Range<u64>,
    minutes: Option<u64>,
    members: Members,
    reach_all: bool,
    /// How many seeds run at once, if not as many as there are cores.
    jobs: Option<usize>,
}

impl Default for Runs {
    fn default() -> Runs {
        Runs { seeds: 0..1000, minutes: None, members: Members::default(), reach_all: false, jobs: None }
    }
}

/// How many members, if not one, and whether others come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Members {
    number: Option<usize>,
    change: bool,
}

impl Members {
    fn plan(self, seed: u64) -> Plan {
        match (self.number, self.change) {
            (number, true) => Plan::draw_changing(seed, number.unwrap_or(1)),
            (Some(number), false) => Plan::draw_for(seed, number),
            (None, false) => Plan::draw(seed),
        }
    }

    /// The words that give as many again.
    fn words(self) -> String {
        let number = self.number.map_or_else(String::new, |number| format!(" --members {number}"));
        number + if self.change { " --changes" } else { "" }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let task = match parse(&words) {
        Ok(task) => task,
        Err(why) => {
            eprintln!("sim: {why}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    let words = match task {
        Task::Help => String::new(),
        Task::Run(Runs { members, .. }) | Task::Repeat { members, .. } | Task::Shrink { members, .. } => {
            members.words()
        }
    };
    std::panic::set_hook(Box::new(move |info| {
        let seed = SEED.get();
        println!("seed {seed} panics: {info}\nrepeat it with: cargo sim -- repeat {seed}{words}");
    }));
    match task {
        Task::Help => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Task::Run(runs) => run_seeds(&runs),
        Task::Repeat { seed, members, trace, only } => repeat(seed, members, trace, only.as_deref()),
        Task::Shrink { seed, members } => shrink(seed, members),
    }
}

/// Errors are sentences for the user.
fn parse(words: &[&str]) -> Result<Task, String> {
    // The cargo alias ends with this word already; given once more it comes here.
    let words = words.strip_prefix(&["--"]).unwrap_or(words);
    if words.iter().any(|word| ["--help", "-h"].contains(word)) {
        return Ok(Task::Help);
    }
    let drawn = Members::default();
    let (task, mut rest) = match *words {
        ["run", ref rest @ ..] => (Task::Run(Runs::default()), rest.iter()),
        ["repeat", seed, ref rest @ ..] => {
            let seed = number("SEED", seed)?;
            (Task::Repeat { seed, members: drawn, trace: false, only: None }, rest.iter())
        }
        ["shrink", seed, ref rest @ ..] => {
            (Task::Shrink { seed: number("SEED", seed)?, members: drawn }, rest.iter())
        }
        [task @ ("repeat" | "shrink")] => return Err(format!("{task} takes a SEED")),
        [word, ..] => return Err(format!("{word:?} is no task; there are run, repeat and shrink")),
        [] => return Err("the task is missing: run, repeat or shrink".to_owned()),
    };
    let mut task = task;
    while let Some(&name) = rest.next() {
        let mut value = || rest.next().copied().ok_or_else(|| format!("{name} lacks its value"));
        match (&mut task, name) {
            (Task::Run(runs), "--seeds") => runs.seeds = range(value()?)?,
            (Task::Run(runs), "--minutes") => runs.minutes = Some(number(name, value()?)?),
            (Task::Run(runs), "--jobs") => runs.jobs = Some(at_once(value()?)?),
            (
                Task::Run(Runs { members, .. }) | Task::Repeat { members, .. } | Task::Shrink { members, .. },
                "--members",
            ) => members.number = Some(several(value()?)?),
            (
                Task::Run(Runs { members, .. }) | Task::Repeat { members, .. } | Task::Shrink { members, .. },
                "--changes",
            ) => members.change = true,
            (Task::Run(runs), "--reach-all") => runs.reach_all = true,
            (Task::Repeat { trace, .. }, "--trace") => *trace = true,
            (Task::Repeat { only, .. }, "--only") => *only = Some(places(value()?)?),
            _ => return Err(format!("{} takes no {name:?}", words[0])),
        }
    }
    Ok(task)
}

fn number(name: &str, word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{name} is a number, not {word:?}"))
}

fn several(word: &str) -> Result<usize, String> {
    let members = word.parse().ok().filter(|members| (1..=MEMBERS_MAX).contains(members));
    members.ok_or_else(|| format!("--members is a number from 1 to {MEMBERS_MAX}, not {word:?}"))
}

fn at_once(word: &str) -> Result<usize, String> {
    let jobs = word.parse().ok().filter(|jobs| (1..=JOBS_MAX).contains(jobs));
    jobs.ok_or_else(|| format!("--jobs is a number from 1 to {JOBS_MAX}, not {word:?}"))
}

fn range(word: &str) -> Result<Range<u64>, String> {
    let ends = word.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    ends.filter(|seeds| !seeds.is_empty())
        .ok_or_else(|| format!("--seeds takes A..B with A below B, such as 5..6 for seed 5, not {word:?}"))
}

fn places(word: &str) -> Result<Vec<usize>, String> {
    let places = word.split(',').filter(|place| !place.is_empty()).map(str::parse);
    places.collect::<Result<_, _>>().map_err(|_| format!("--only takes numbers as 3,5,8, not {word:?}"))
}

/// Says on stderr how far a long run is.
struct Progress {
    began: Instant,
    said: Instant,
    on_terminal: bool,
}

impl Progress {
    fn begin() -> Progress {
        let began = Instant::now();
        Progress { began, said: began, on_terminal: std::io::stderr().is_terminal() }
    }

    fn say(&mut self, done: u64, seeds: &Range<u64>) {
        let pause = if self.on_terminal { PROGRESS_ON_TERMINAL } else { PROGRESS_IN_FILE };
        if self.said.elapsed() < pause {
            return;
        }
        self.said = Instant::now();
        let (total, seconds) = (seeds.end - seeds.start, self.began.elapsed().as_secs());
        // The line before is cleared and written over.
        let (before, after) = if self.on_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        // Whoever closed stderr wants no progress.
        let _ = write!(std::io::stderr(), "{before}{done} of {total} seeds hold, {seconds} s{after}");
    }

    /// Leaves the line to what comes.
    fn end(&self) {
        if self.on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A seed and how it ended.
type Ended = (u64, Result<Summary, Failure>);

fn run_seeds(runs: &Runs) -> ExitCode {
    let Runs { seeds, minutes, members, reach_all, jobs } = runs;
    let jobs = jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let total = std::thread::scope(|threads| {
        let (ends, ended) = channel();
        for _ in 0..jobs {
            let (next, ends) = (&next, ends.clone());
            threads.spawn(move || {
                while !minutes.is_some_and(|minutes| began.elapsed().as_secs() / 60 >= minutes) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    SEED.set(seed);
                    // Nobody listens any more once a seed has failed.
                    let failed_elsewhere =
                        ends.send((seed, run(&members.plan(seed), false).outcome)).is_err();
                    if failed_elsewhere {
                        break;
                    }
                }
            });
        }
        drop(ends);
        let total = gather(&ended, seeds);
        next.store(seeds.end, Ordering::Relaxed);
        total
    });
    let total = match total {
        Ok(total) => total,
        Err((seed, failure)) => {
            println!("seed {seed} fails: {}: {}", failure.check, failure.what);
            println!("repeat it with: cargo sim -- repeat {seed}{} --trace", members.words());
            return ExitCode::FAILURE;
        }
    };
    let Total { done, calls, starts, tally } = total;
    let per_minute = done as f64 * 60.0 / began.elapsed().as_secs_f64();
    println!("{done} seeds hold: {calls} calls, {starts} starts; {per_minute:.0} seeds a minute");
    let said = |counts: Vec<(String, u64)>| {
        let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        counts.join(", ")
    };
    println!("what went wrong: {}", said(tally.faults()));
    println!("the ways gone: {}", said(tally.ways()));
    let missing = tally.missing();
    if *reach_all && !missing.is_empty() {
        println!("these seeds never reach: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What seeds that held have come to.
#[derive(Default)]
struct Total {
    done: u64,
    calls: usize,
    starts: u64,
    tally: Tally,
}

/// Adds up how the seeds end until no thread has one left. The first that is heard to fail ends it.
fn gather(ended: &Receiver<Ended>, seeds: &Range<u64>) -> Result<Total, (u64, Failure)> {
    let (mut total, mut progress) = (Total::default(), Progress::begin());
    loop {
        progress.say(total.done, seeds);
        match ended.recv_timeout(PROGRESS_ON_TERMINAL) {
            Ok((_, Ok(summary))) => {
                total.done += 1;
                total.calls += summary.calls;
                total.starts += summary.starts;
                total.tally += summary.tally;
            }
            Ok((seed, Err(failure))) => {
                progress.end();
                return Err((seed, failure));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                progress.end();
                return Ok(total);
            }
        }
    }
}

fn repeat(seed: u64, members: Members, trace: bool, only: Option<&[usize]>) -> ExitCode {
    SEED.set(seed);
    let mut plan = members.plan(seed);
    let events = plan.events.len();
    if let Some(place) = only.unwrap_or_default().iter().find(|place| **place >= events) {
        eprintln!("sim: seed {seed} has {events} events, so there is none at place {place}");
        return ExitCode::from(2);
    }
    if let Some(only) = only {
        plan.keep(only);
    }
    println!("{:?}", plan.shape);
    for event in &plan.events {
        println!("{:>14.6} {:?}", event.at.0 as f64 / 1e6, event.what);
    }
    let Report { trace_hash, lines, outcome } = run(&plan, trace);
    for line in lines {
        println!("{line}");
    }
    match outcome {
        Ok(summary) => {
            println!("seed {seed} holds, trace {trace_hash:016x}: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed} fails, trace {trace_hash:016x}: {}: {}", failure.check, failure.what);
            ExitCode::FAILURE
        }
    }
}

/// Leaves events out, first many at a time, as long as the run still fails.
fn shrink(seed: u64, members: Members) -> ExitCode {
    let mut left: Vec<usize> = (0..members.plan(seed).events.len()).collect();
    if !fails(seed, members, &left) {
        println!("seed {seed} holds");
        return ExitCode::SUCCESS;
    }
    let mut piece = left.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < left.len() {
            let mut fewer = left.clone();
            fewer.drain(at..(at + piece).min(left.len()));
            if fails(seed, members, &fewer) {
                left = fewer;
            } else {
                at += piece;
            }
        }
        if piece == 1 {
            break;
        }
        piece = piece.div_ceil(2);
    }
    let words = members.words();
    println!(
        "{} events are left: cargo sim -- repeat {seed}{words} --trace --only {}",
        left.len(),
        list(&left)
    );
    ExitCode::FAILURE
}

fn list(events: &[usize]) -> String {
    // Never empty: an empty list would be an argument lost.
    let numbers: Vec<String> = events.iter().map(usize::to_string).collect();
    format!("{},", numbers.join(","))
}

/// In a process of its own, since a panic ends it.
fn fails(seed: u64, members: Members, events: &[usize]) -> bool {
    let program = std::env::current_exe().expect("a running program has a path");
    let only = list(events);
    let mut again = Command::new(program);
    again.args(["repeat", &seed.to_string(), "--only", &only]).args(members.words().split_whitespace());
    again.stdout(Stdio::null()).stderr(Stdio::null());
    !again.status().expect("this program can be run").success()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_read_whole_or_refused() {
        let read = |line: &str| parse(&line.split_whitespace().collect::<Vec<&str>>());
        let drawn = Members::default();
        assert_eq!(read("run"), Ok(Task::Run(Runs::default())));
        let runs = Runs { seeds: 5..9, minutes: Some(2), members: drawn, reach_all: true, jobs: Some(3) };
        assert_eq!(read("run --minutes 2 --reach-all --jobs 3 --seeds 5..9"), Ok(Task::Run(runs)));
        let only = Some(vec![1, 20]);
        let repeat = Task::Repeat { seed: 7, members: drawn, trace: true, only };
        assert_eq!(read("repeat 7 --trace --only 1,20,"), Ok(repeat));
        assert_eq!(read("shrink 7"), Ok(Task::Shrink { seed: 7, members: drawn }));
        let members = Members { number: Some(3), change: false };
        assert_eq!(read("shrink 7 --members 3"), Ok(Task::Shrink { seed: 7, members }));
        let members = Members { number: Some(3), change: true };
        assert_eq!(read("shrink 7 --changes --members 3"), Ok(Task::Shrink { seed: 7, members }));
        assert_eq!(members.words(), " --members 3 --changes");
        let members = Members { number: None, change: true };
        assert_eq!(read("shrink 7 --changes"), Ok(Task::Shrink { seed: 7, members }));
        assert_eq!(read("-- shrink 7"), read("shrink 7"));
        for help in ["--help", "-h", "-- -h", "run --help", "repeat -h"] {
            assert_eq!(read(help), Ok(Task::Help), "{help}");
        }
        for wrong in [
            "",
            "walk",
            "run --seeds",
            "run --seeds 5",
            "run --seeds 9..5",
            "run --seed 5..9",
            "run 5..9",
            "run --trace",
            "repeat 7 --reach-all",
            "run --minutes soon",
            "run --jobs 0",
            "repeat 7 --jobs 2",
            "run --members 0",
            "run --members 8",
            "repeat 7 --members",
            "repeat",
            "repeat x",
            "repeat 7 --only a",
            "repeat 7 8",
            "shrink",
            "shrink 7 --trace",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
