//! Records what a server answers, and compares another server's answers with the record.
//!
//! ```text
//! record (--server HOST:PORT | --spawn COMMAND) (--out | --against) FILE|DIRECTORY...
//! ```
//!
//! A record is a transcript (transcript.rs); what a request may be is in session.rs, how messages are written
//! in message.rs, what is masked in names.rs. `--out` writes the answers into the files, `--against` compares
//! and ends with 1 if any differs. With `--spawn` each file has a server of its own: COMMAND with `{client}`,
//! `{peer}` (host:port) and `{dir}` filled in, then the file's flags.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a tool outside the program: it owns its clock, files and sockets"
)]

mod client;
mod message;
mod names;
mod schema;
mod server;
mod session;
mod transcript;

#[cfg(test)]
mod tests;

use schema::Schema;
use server::Server;
use session::Session;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use transcript::{Item, Transcript, differences};

const USAGE: &str =
    "usage: record (--server HOST:PORT | --spawn COMMAND) (--out | --against) FILE|DIRECTORY...";
const EXTENSION: &str = "txt";

struct Options {
    server: Option<String>,
    spawn: Option<String>,
    write: bool,
    files: Vec<PathBuf>,
}

fn options(mut words: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { server: None, spawn: None, write: false, files: Vec::new() };
    let mut mode = None;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--server" => options.server = Some(words.next()?.trim_start_matches("http://").to_string()),
            "--spawn" => options.spawn = Some(words.next()?),
            "--out" => mode = Some(true),
            "--against" => mode = Some(false),
            _ => options.files.push(PathBuf::from(word)),
        }
    }
    options.write = mode?;
    (options.server.is_some() != options.spawn.is_some() && !options.files.is_empty()).then_some(options)
}

/// The transcripts under `paths`, a directory standing for those in it.
fn transcripts(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
            .collect();
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// Runs one transcript; the number of its steps and of those that differ.
async fn run(options: &Options, schema: &Schema, path: &Path) -> Result<(usize, usize), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut transcript = Transcript::parse(&text);
    let spawned = match &options.spawn {
        Some(command) => Some(Server::spawn(command, &transcript.flags).await?),
        None => None,
    };
    let authority = spawned.as_ref().map(|server| &server.authority).or(options.server.as_ref());
    let mut session = Session::open(schema, authority.expect("one of both was given")).await?;
    let (mut steps, mut differing) = (0, 0);
    for item in &mut transcript.items {
        let Item::Step(step) = item else { continue };
        let request = step.request();
        let recorded = (!options.write).then_some(&step.answer[..]);
        let answer = session.run(&request, recorded).await;
        let answer = answer.map_err(|error| format!("line {}: {request}: {error}", step.line))?;
        steps += 1;
        if options.write {
            step.answer = answer;
        } else if answer != step.answer {
            differing += 1;
            println!("{}:{}: {request}", path.display(), step.line);
            println!("{}", differences(&step.answer, &answer).join("\n"));
        }
    }
    if options.write {
        std::fs::write(path, transcript.print()).map_err(|error| error.to_string())?;
    }
    Ok((steps, differing))
}

async fn run_all(options: &Options) -> Result<bool, String> {
    let schema = Schema::load();
    let (mut steps, mut differing) = (0, 0);
    for path in transcripts(&options.files)? {
        match run(options, &schema, &path).await {
            Ok((ran, differed)) => {
                println!("{}: {ran} steps, {differed} differ", path.display());
                steps += ran;
                differing += differed;
            }
            Err(error) => {
                println!("{}: {error}", path.display());
                differing += 1;
            }
        }
    }
    println!("{steps} steps, {differing} differ");
    Ok(differing == 0)
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime on this thread needs only a poller");
    match tokio::task::LocalSet::new().block_on(&runtime, run_all(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
