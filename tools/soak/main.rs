//! Clusters of real processes, trial after trial. `--help` says how to use it.

// Processes, files and a clock are what it is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod options;
#[path = "../../tests/processes/mod.rs"]
mod processes;

use braid::stdx::Rng;
use options::{FAULTS, Options, Wish};
use processes::{Disk, Fault, Judged, Network, Setup, Trial, in_a_network};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match options::parse(&args) {
        Ok(Wish::Run(options)) => options,
        Ok(Wish::Help) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("soak: {why}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match soak(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options) -> Result<()> {
    let release = release_directory()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(&release)?,
    };
    let directory = options.directory.clone().unwrap_or_else(|| release.join("soak"));
    let began = Instant::now();
    for seed in options.seed.. {
        if began.elapsed() > options.span {
            break;
        }
        let root = directory.join(format!("{}-{seed}", std::process::id()));
        std::fs::create_dir_all(&root)?;
        let judged = match options.faults.contains(&Fault::Partition) {
            true => {
                in_a_network(options.members, |network| trial(options, &binary, &root, Some(network), seed))
            }
            false => Ok(trial(options, &binary, &root, None, seed)),
        };
        match judged.and_then(|judged| judged) {
            Ok(judged) => println!("seed {seed} holds: {judged}"),
            Err(why) => {
                let kept = root.display();
                return Err(Error::other(format!("seed {seed} fails: {why}\nData and logs are in {kept}.")));
            }
        }
        std::fs::remove_dir_all(&root)?;
    }
    Ok(())
}

/// One cluster, and what goes wrong with it.
fn trial(
    options: &Options,
    binary: &Path,
    root: &Path,
    network: Option<&Network>,
    seed: u64,
) -> std::result::Result<Judged, String> {
    let wants_disk = [Fault::FullDisk, Fault::FailingDisk].iter().any(|fault| options.faults.contains(fault));
    let disk = wants_disk.then(|| Disk::new(&root.join("disk"))).transpose()?;
    let (members, controls) = (options.members, options.controls);
    let setup = Setup { program: binary, root, members, network, disk: disk.as_ref(), controls, seed };
    let (mut trial, mut rng, began) = (Trial::begin(&setup)?, Rng::new(!seed), Instant::now());
    while began.elapsed() < options.of_trial {
        let fault = *rng.pick(&options.faults);
        let name = FAULTS.iter().find(|(_, of)| *of == fault).map_or("", |(name, _)| name);
        println!("seed {seed}, {:.1} s: {name}", began.elapsed().as_secs_f64());
        trial.strike(fault)?;
    }
    trial.end()
}

/// This program is target/release/examples/soak.
fn release_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.ancestors().nth(2).map(Path::to_path_buf);
    directory.ok_or_else(|| Error::other("this program lies in no directory of cargo's"))
}

/// Has cargo build the program, where cargo runs this one; else the one beside this program is meant.
fn build(release: &Path) -> Result<PathBuf> {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let arguments = ["build", "--release", "--locked", "--package", "braid", "--bin", "braid"];
        if !Command::new(cargo).args(arguments).status()?.success() {
            return Err(Error::other("the program cannot be built"));
        }
    }
    Ok(release.join("braid"))
}
