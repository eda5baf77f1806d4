//! Records what a server answers, and compares another server's answers with the record. `--help` says how to
//! use it.
//!
//! A record is a transcript (transcript.rs); what a request may be is in session.rs, how messages are written
//! in message.rs, what is masked in names.rs, how differences are listed in listed.rs.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a tool outside the program: it owns its clock, files and sockets"
)]

mod client;
mod listed;
mod message;
mod names;
mod schema;
mod server;
mod session;
mod transcript;

#[cfg(test)]
mod tests;

use listed::{Differing, Listed, Occurrences};
use schema::Schema;
use server::Server;
use session::Session;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;
use transcript::{Item, Transcript, differences};

const HELP: &str = "\
Asks a server what transcripts ask, and writes its answers into them or compares them with what is there.

    cargo run --release --example record -- (--server HOST:PORT | --spawn COMMAND) (--out | --against)
        [--differences FILE] FILE|DIRECTORY...

  --server HOST:PORT  a server that runs
  --spawn COMMAND     a server of its own for each transcript: COMMAND, in which {client} and {peer} (each a
                      host:port), {dir}, {name} and {cluster} (all members, as --initial-cluster has them) are
                      filled in, then the transcript's flags; some run at a time
  --out               writes the answers into the files
  --against           compares
  --differences FILE  exactly the steps that FILE lists must differ
  FILE|DIRECTORY      transcripts; a directory stands for all *.txt in it

A line for each transcript goes to stdout, and the steps that are not as they should be. The exit code is 1
where any is, 2 where an argument is wrong or a file cannot be read.";
const EXTENSION: &str = "txt";
/// Transcripts mostly sleep and wait, so a few run at a time even on few processors.
const SPAWNED_AT_A_TIME: usize = 4;

struct Options {
    server: Option<String>,
    spawn: Option<String>,
    write: bool,
    differences: Option<PathBuf>,
    files: Vec<PathBuf>,
}

enum Parsed {
    Help,
    Run(Options),
}

/// Errors are sentences for the user.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut options =
        Options { server: None, spawn: None, write: false, differences: None, files: Vec::new() };
    let mut mode = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} lacks its value"));
        match word.as_str() {
            "--help" | "-h" => return Ok(Parsed::Help),
            "--server" => options.server = Some(value()?.trim_start_matches("http://").to_string()),
            "--spawn" => options.spawn = Some(value()?),
            "--out" | "--against" => {
                if mode.replace(word == "--out").is_some_and(|before| before != (word == "--out")) {
                    return Err("--out and --against exclude each other".to_owned());
                }
            }
            "--differences" => options.differences = Some(PathBuf::from(value()?)),
            option if option.starts_with('-') => return Err(format!("{option} is no option")),
            _ => options.files.push(PathBuf::from(word)),
        }
    }
    options.write = mode.ok_or("--out or --against is missing")?;
    if options.server.is_some() == options.spawn.is_some() {
        return Err("one of --server and --spawn is needed, and not both".to_owned());
    }
    if options.files.is_empty() {
        return Err("no transcript is named".to_owned());
    }
    Ok(Parsed::Run(options))
}

/// The transcripts under `paths`, a directory standing for those in it; the list of differences is none.
fn transcripts(options: &Options) -> Result<VecDeque<PathBuf>, String> {
    let list = options.differences.as_ref().and_then(|list| list.canonicalize().ok());
    let mut files = VecDeque::new();
    for path in &options.files {
        if !path.is_dir() {
            files.push_back(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
            .filter(|path| list.is_none() || path.canonicalize().ok() != list)
            .collect();
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// What a transcript's run found.
#[derive(Default)]
struct Outcome {
    steps: usize,
    differing: Vec<Differing>,
    /// The steps that differ, and how.
    shown: Vec<String>,
}

/// Runs one transcript.
async fn run(options: &Options, schema: &Schema, path: &Path) -> Result<Outcome, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut transcript = Transcript::parse(&text);
    let mut spawned = match &options.spawn {
        Some(command) => Some(Server::spawn(command, &transcript.flags, transcript.members).await?),
        None if transcript.members > 1 => return Err("members are started by --spawn".to_owned()),
        None => None,
    };
    let authority = match &spawned {
        Some(server) => server.asked().await?,
        None => options.server.clone().expect("one of both was given"),
    };
    let mut session = Session::open(schema, &authority).await?;
    let (mut outcome, mut occurrences) = (Outcome::default(), Occurrences::default());
    for item in &mut transcript.items {
        let Item::Step(step) = item else { continue };
        let request = step.request();
        let named = occurrences.step(&request);
        let recorded = (!options.write).then_some(&step.answer[..]);
        let answer = match (&mut spawned, &request[..]) {
            (Some(server), "kill others") => {
                server.kill_others(&authority);
                Ok(Vec::new())
            }
            _ => session.run(&request, recorded).await,
        };
        let answer = match answer {
            Ok(answer) => answer,
            // A step may need what an earlier one, which differed, did not give.
            Err(error) if !options.write => vec![format!("cannot be asked: {error}")],
            Err(error) => return Err(format!("line {}: {request}: {error}", step.line)),
        };
        outcome.steps += 1;
        if options.write {
            step.answer = answer;
        } else if answer != step.answer {
            outcome.differing.push(named);
            outcome.shown.push(format!("{}:{}: {request}", path.display(), step.line));
            outcome.shown.extend(differences(&step.answer, &answer));
        }
    }
    if options.write {
        std::fs::write(path, transcript.print()).map_err(|error| error.to_string())?;
    }
    Ok(outcome)
}

/// Runs one transcript and tells about it; the number of its steps, and whether they are as they should be.
async fn judge(options: &Options, schema: &Schema, listed: Option<&Listed>, path: &Path) -> (usize, bool) {
    let outcome = match run(options, schema, path).await {
        Ok(outcome) => outcome,
        Err(error) => {
            println!("{}: {error}", path.display());
            return (0, false);
        }
    };
    let (steps, differ) = (outcome.steps, outcome.differing.len());
    let Some(listed) = listed else {
        outcome.shown.iter().for_each(|line| println!("{line}"));
        println!("{}: {steps} steps, {differ} differ", path.display());
        return (steps, differ == 0);
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let faults = listed.faults(&file, &outcome.differing);
    if !faults.is_empty() {
        outcome.shown.iter().chain(&faults).for_each(|line| println!("{line}"));
    }
    println!("{}: {steps} steps, {differ} differ, {} not as listed", path.display(), faults.len());
    (steps, faults.is_empty())
}

async fn run_all(options: Options) -> Result<bool, String> {
    let begun = Instant::now();
    let listed = match &options.differences {
        None => None,
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Some(Listed::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?)
        }
    };
    let paths = Rc::new(RefCell::new(transcripts(&options)?));
    let at_a_time = if options.spawn.is_some() { SPAWNED_AT_A_TIME } else { 1 };
    let shared = Rc::new((options, Schema::load(), listed));
    let workers: Vec<_> = (0..at_a_time)
        .map(|_| {
            let (paths, shared) = (paths.clone(), shared.clone());
            tokio::task::spawn_local(async move {
                let (options, schema, listed) = &*shared;
                let (mut steps, mut bad) = (0, 0);
                while let Some(path) = { paths.borrow_mut().pop_front() } {
                    let (ran, is_good) = judge(options, schema, listed.as_ref(), &path).await;
                    steps += ran;
                    bad += usize::from(!is_good);
                }
                (steps, bad)
            })
        })
        .collect();
    let (mut steps, mut bad) = (0, 0);
    for worker in workers {
        let (ran, failed) = worker.await.map_err(|error| error.to_string())?;
        steps += ran;
        bad += failed;
    }
    println!(
        "{steps} steps in {:.0} s, {bad} transcripts not as they should be",
        begun.elapsed().as_secs_f32()
    );
    Ok(bad == 0)
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("record: {why}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime on this thread needs only a poller");
    match tokio::task::LocalSet::new().block_on(&runtime, run_all(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("record: {error}");
            ExitCode::from(2)
        }
    }
}
