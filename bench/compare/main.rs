//! Braid beside etcd: the same load on each in turn, on the same machine. `--help` says how to use it.

// A clock, sockets, files and processes are what a measurement is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod cases;
#[path = "../generator/mod.rs"]
mod generator;
mod server;
mod table;

use cases::{CASES, Case};
use generator::{Outcome, Plan, Span};
use server::Server;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use table::Rounds;

const HELP: &str = "\
Compares Braid with etcd: each case on a new server with an empty directory and default flags (so both
durable), etcd and Braid in turn, in rounds. Markdown goes to stdout, each run's JSON to stderr.

    cargo compare --etcd PATH [options]

  --etcd PATH      etcd's program
  --braid PATH     Braid's                          [beside this program, in target/release]
  --dir PATH       where the servers keep their data; a disk, not memory
                                                    [target/compare]
  --rounds N       [3]
  --seconds S      the measured window of a run     [3]
  --warm-up S      load before it                   [1]
  --case TEXT      only cases whose name has it

The generator is one thread beside the server. On a larger machine give all of them the same two cores:
taskset -c 0,1 cargo compare …";

struct Options {
    etcd: PathBuf,
    braid: PathBuf,
    directory: PathBuf,
    rounds: usize,
    seconds: Duration,
    warm_up: Duration,
    case: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match parse(&args).and_then(|options| compare(&options)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(faults) => {
            eprintln!("compare: {faults} requests failed or were answered wrongly");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Result<Options> {
    let refusal = |why: String| Error::new(ErrorKind::InvalidInput, why + "; try --help");
    // This program is target/release/examples/compare.
    let program = std::env::current_exe()?;
    let profile = program.ancestors().nth(2).ok_or(ErrorKind::NotFound)?;
    let target = profile.parent().ok_or(ErrorKind::NotFound)?;
    let mut etcd = None;
    let mut options = Options {
        etcd: PathBuf::new(),
        braid: profile.join("braid"),
        directory: target.join("compare"),
        rounds: 3,
        seconds: Duration::from_secs(3),
        warm_up: Duration::from_secs(1),
        case: String::new(),
    };
    for pair in args.chunks(2) {
        let [name, value] = pair else { return Err(refusal(format!("{} lacks its value", pair[0]))) };
        let wrong = || refusal(format!("{name} cannot be {value:?}"));
        let seconds = || {
            let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            seconds.ok_or_else(wrong)
        };
        match name.as_str() {
            "--etcd" => etcd = Some(PathBuf::from(value)),
            "--braid" => options.braid = PathBuf::from(value),
            "--dir" => options.directory = PathBuf::from(value),
            "--rounds" => options.rounds = value.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?,
            "--seconds" => options.seconds = seconds()?,
            "--warm-up" => options.warm_up = seconds()?,
            "--case" => options.case.clone_from(value),
            _ => return Err(refusal(format!("{name} is no option"))),
        }
    }
    options.etcd = etcd.ok_or_else(|| refusal("--etcd is missing".to_owned()))?;
    Ok(options)
}

/// The number of requests that failed or were answered wrongly.
fn compare(options: &Options) -> Result<u64> {
    std::fs::create_dir_all(&options.directory)?;
    let file_system = server::file_system(&options.directory)?;
    if ["tmpfs", "ramfs"].contains(&file_system.as_str()) {
        return Err(Error::other("--dir lies in memory, where durable means nothing"));
    }
    let heading = [
        format!("{}; {}", version(&options.etcd)?, version(&options.braid)?),
        format!("{}; {file_system}", machine()),
        format!(
            "{} rounds of {} s a case: median (least – most).",
            options.rounds,
            options.seconds.as_secs_f64()
        ),
    ];
    let chosen: Vec<&Case> = CASES.iter().filter(|case| case.name.contains(&options.case)).collect();
    if chosen.is_empty() {
        return Err(Error::other(format!("no case's name has {:?}", options.case)));
    }
    let mut results: Vec<(&Case, Rounds)> =
        chosen.into_iter().map(|case| (case, Rounds { etcd: Vec::new(), braid: Vec::new() })).collect();
    for round in 0..options.rounds {
        for (case, rounds) in &mut results {
            rounds.etcd.push(measure(options, round, case, "etcd", &options.etcd)?);
            rounds.braid.push(measure(options, round, case, "braid", &options.braid)?);
        }
    }
    println!("{}\n\n{}", heading.join("  \n"), table::markdown(&results));
    let all = results.iter().flat_map(|(_, rounds)| rounds.etcd.iter().chain(&rounds.braid));
    Ok(all.map(|outcome| outcome.errors + outcome.violations).sum())
}

fn measure(options: &Options, round: usize, case: &Case, who: &str, program: &Path) -> Result<Outcome> {
    let server = Server::start(program, &options.directory, &case.workload)?;
    let plan = Plan {
        endpoints: vec![server.client],
        pids: vec![server.pid()],
        connections: case.connections,
        streams: case.streams,
        workload: case.workload,
        pace: case.pace,
        warm_up: options.warm_up,
        span: Span::For(options.seconds),
        patience: Duration::from_secs(5),
        seed: round as u64,
    };
    if case.workload.puts_percent < 100 {
        let filled = generator::run(&plan.prefill())?;
        if let Some(fault) = filled.fault {
            return Err(Error::other(format!("{who}: filling the key space: {fault}")));
        }
    }
    let outcome = generator::run(&plan)?;
    let mut json = outcome.json(&plan);
    json["who"] = who.into();
    json["case"] = case.name.into();
    json["round"] = round.into();
    eprintln!("{json}");
    Ok(outcome)
}

/// The first line of `--version`.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| Error::other(format!("{}: {error}", program.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor", |(_, model)| model);
    format!("{cores} cores of {model}; Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
