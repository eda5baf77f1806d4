//! Braid beside etcd, or one build of it beside another: the same load on each in turn, on the same machine.
//! `--help` says how to use it.

// A clock, sockets, files and processes are what a measurement is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod beside;
mod cases;
mod catch_up;
mod cluster;
mod members;
mod options;
mod probe;
mod run;
mod sample;
mod server;
mod table;
mod watches;

use beside::Busy;
use cases::BUILDS;
use options::{Options, Other, Parsed};
use run::Run;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use table::{Heading, Rounds};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match options::parse(&args) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("compare: {why}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match compare(&options) {
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

/// The number of requests that failed or were answered wrongly.
fn compare(options: &Options) -> Result<u64> {
    // This program is target/release/examples/compare.
    let program = std::env::current_exe()?;
    let profile = program.ancestors().nth(2).ok_or(ErrorKind::NotFound)?;
    let target = profile.parent().ok_or(ErrorKind::NotFound)?;
    let braid = options.braid.clone().unwrap_or_else(|| profile.join("braid"));
    let directory = options.directory.clone().unwrap_or_else(|| target.join("compare"));
    std::fs::create_dir_all(&directory)?;
    let file_system = server::file_system(&directory)?;
    if ["tmpfs", "ramfs"].contains(&file_system.as_str()) {
        return Err(Error::other("--dir lies in memory, where durable means nothing"));
    }
    let (who, other): (_, &PathBuf) = match &options.other {
        Other::Etcd(path) => ("etcd", path),
        Other::Build(path) => ("before", path),
    };
    let titles = match options.other {
        Other::Etcd(_) => (title(other)?, title(&braid)?),
        Other::Build(_) => (format!("before: {}", title(other)?), title(&braid)?),
    };
    let busy = Busy::start(options.busy)?;
    let mut results: Vec<Rounds> =
        options.cases.iter().map(|case| Rounds { case, other: Vec::new(), braid: Vec::new() }).collect();
    for round in 0..options.rounds {
        for rounds in &mut results {
            let run = |program, who| {
                Run { options, directory: &directory, program, case: rounds.case, round, who }.measure()
            };
            // Whoever comes second meets a machine that the first has warmed: they take turns at that.
            if round % 2 == 0 {
                rounds.other.push(run(other, who)?);
                rounds.braid.push(run(&braid, "braid")?);
            } else {
                rounds.braid.push(run(&braid, "braid")?);
                rounds.other.push(run(other, who)?);
            }
        }
    }
    drop(busy);
    println!("{}\n", conditions(options, (&titles.0, other), (&titles.1, &braid), &file_system));
    println!("{}", table::markdown(&heading(options, &titles), &results));
    let samples = results.iter().flat_map(|rounds| rounds.other.iter().chain(&rounds.braid));
    Ok(samples.map(|sample| sample.faults).sum())
}

fn heading<'a>(options: &Options, titles: &'a (String, String)) -> Heading<'a> {
    let aims: fn(&'static cases::Case) -> _ = match (&options.other, options.scale == 1.0) {
        (Other::Build(_), _) => |_| BUILDS,
        (Other::Etcd(_), true) => |case| case.aims,
        (Other::Etcd(_), false) => |case| if case.is_long() { &[] } else { case.aims },
    };
    Heading { other: &titles.0, braid: &titles.1, aims }
}

/// What was measured, on what, and how, a line each.
fn conditions(options: &Options, other: (&str, &Path), braid: (&str, &Path), file_system: &str) -> String {
    let program = |(title, path): (&str, &Path)| format!("{title} (`{}`)", path.display());
    let mut how = format!(
        "{} rounds of {} s a case: median (least – most).",
        options.rounds,
        options.seconds.as_secs_f64()
    );
    if options.cases.iter().any(|case| case.is_long()) {
        how += &format!(
            " Long cases: a window of {} s, a compaction each {} s, pauses of {} s, scale {}.",
            options.window.as_secs_f64(),
            options.compact_every.as_secs_f64(),
            options.settle.as_secs_f64(),
            options.scale
        );
    }
    if options.members > 1 {
        how += &format!(
            " Clusters of {}: CPU and bytes are those of all members; {} strikes in a round of a failover, times are \
             medians of them, waits the longest of all.",
            options.members, options.strikes
        );
    }
    if options.busy > 0 {
        how += &format!(" Beside {} busy programs.", options.busy);
    }
    let lines =
        [format!("{}; {}", program(other), program(braid)), format!("{}; {file_system}", machine()), how];
    lines.join("  \n")
}

/// A program's name and version, as it tells them.
fn title(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| Error::other(format!("{}: {error}", program.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Braid tells etcd's version too, for those who ask for no more.
    let version = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let braid = version("Braid Version: ").map(|version| format!("Braid {version}"));
    braid
        .or_else(|| version("etcd Version: ").map(|version| format!("etcd {version}")))
        .ok_or_else(|| Error::other(format!("{}: --version tells neither etcd nor Braid", program.display())))
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor", |(_, model)| model);
    format!("{cores} cores of {model}; Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
