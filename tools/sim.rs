//! The simulator at a desk: runs seeds, repeats one, makes a failing one small.
//!
//! ```text
//! cargo sim -- run --seeds A..B [--minutes M]
//! cargo sim -- repeat SEED [--trace] [--only I,J,K]
//! cargo sim -- shrink SEED
//! ```
//!
//! A run that panics ends the process, so `run` has said before which seed it is at.

use braid::io::Paths;
use braid::sim::hits::{Hit, Hits};
use braid::sim::plan::Plan;
use braid::sim::{Report, run};
use std::ops::Range;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

static SEED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    std::panic::set_hook(Box::new(|info| {
        let seed = SEED.load(Ordering::Relaxed);
        println!("seed {seed} panics: {info}\nrepeat it with: cargo sim -- repeat {seed}");
    }));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["run", ref rest @ ..] => run_seeds(rest),
        ["repeat", seed, ref rest @ ..] => repeat(number(seed), rest),
        ["shrink", seed] => shrink(number(seed)),
        _ => {
            println!("run --seeds A..B [--minutes M] | repeat SEED [--trace] [--only I,J] | shrink SEED");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied()
}

fn seeds(words: &[&str]) -> Range<u64> {
    let Some((from, to)) = option(words, "--seeds").and_then(|seeds| seeds.split_once("..")) else {
        return 0..1000;
    };
    number(from)..number(to)
}

#[allow(clippy::disallowed_methods, reason = "how long the machine takes is what is shown")]
fn run_seeds(words: &[&str]) -> ExitCode {
    let began = std::time::Instant::now();
    let minutes = option(words, "--minutes").map(number);
    let (mut done, mut calls, mut starts, mut hits) = (0, 0, 0, Hits::default());
    let mut paths = Paths::default();
    for seed in seeds(words) {
        if minutes.is_some_and(|minutes| began.elapsed().as_secs() >= minutes * 60) {
            break;
        }
        SEED.store(seed, Ordering::Relaxed);
        match run(&Plan::draw(seed), false).outcome {
            Ok(summary) => {
                done += 1;
                calls += summary.calls;
                starts += summary.starts;
                hits += summary.hits;
                paths.add(&summary.paths);
            }
            Err(failure) => {
                println!("seed {seed} fails: {}: {}", failure.check, failure.what);
                println!("repeat it with: cargo sim -- repeat {seed} --trace");
                return ExitCode::FAILURE;
            }
        }
    }
    let per_minute = f64::from(done) * 60.0 / began.elapsed().as_secs_f64();
    println!("{done} seeds hold: {calls} calls, {starts} starts; {per_minute:.0} seeds a minute");
    let hits: Vec<String> = Hit::ALL.iter().map(|hit| format!("{hit:?} {}", hits.of(*hit))).collect();
    println!("what went wrong: {}", hits.join(", "));
    let walked = Paths::NAMES.iter().zip(paths.counts());
    let walked: Vec<String> = walked.map(|(name, count)| format!("{name} {count}")).collect();
    println!("ways that were gone: {}", walked.join(", "));
    ExitCode::SUCCESS
}

/// The plan of a seed, or what of it is named.
fn plan(seed: u64, only: Option<&str>) -> Plan {
    let mut plan = Plan::draw(seed);
    if let Some(only) = only {
        let wanted = only.split(',').filter(|word| !word.is_empty()).map(|word| number(word) as usize);
        plan.keep(&wanted.collect::<Vec<usize>>());
    }
    plan
}

fn repeat(seed: u64, words: &[&str]) -> ExitCode {
    SEED.store(seed, Ordering::Relaxed);
    let plan = plan(seed, option(words, "--only"));
    println!("{:?}", plan.shape);
    for event in &plan.events {
        println!("{:>14.6} {:?}", event.at.0 as f64 / 1e6, event.what);
    }
    let Report { trace_hash, lines, outcome } = run(&plan, words.contains(&"--trace"));
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
fn shrink(seed: u64) -> ExitCode {
    let mut left: Vec<usize> = (0..Plan::draw(seed).events.len()).collect();
    if !fails(seed, &left) {
        println!("seed {seed} holds");
        return ExitCode::SUCCESS;
    }
    let mut piece = left.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < left.len() {
            let mut fewer = left.clone();
            fewer.drain(at..(at + piece).min(left.len()));
            if fails(seed, &fewer) {
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
    println!("{} events are left: cargo sim -- repeat {seed} --trace --only {}", left.len(), list(&left));
    ExitCode::FAILURE
}

fn list(events: &[usize]) -> String {
    // Never empty: an empty list would be an argument lost.
    let numbers: Vec<String> = events.iter().map(usize::to_string).collect();
    format!("{},", numbers.join(","))
}

/// In a process of its own, since a panic ends it.
fn fails(seed: u64, events: &[usize]) -> bool {
    let program = std::env::current_exe().expect("a running program has a path");
    let only = list(events);
    let mut again = Command::new(program);
    again.args(["repeat", &seed.to_string(), "--only", &only]).stdout(Stdio::null()).stderr(Stdio::null());
    !again.status().expect("this program can be run").success()
}
