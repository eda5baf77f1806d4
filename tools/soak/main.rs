//! Clusters of real processes, trial after trial. `--help` says how to use it.

// Processes, files and a clock are what it is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../built.rs"]
mod built;
mod options;
#[path = "../../tests/processes/mod.rs"]
mod processes;

use braid::stdx::Rng;
use options::{DISKS, Options, PARTITIONS, Wish};
use processes::{Disk, Judged, Network, Setup, Trial, in_a_network};
use std::io::{Error, Result};
use std::path::Path;
use std::process::ExitCode;
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
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => built::build()?,
    };
    let directory = match &options.directory {
        Some(directory) => directory.clone(),
        None => built::release_directory()?.join("soak"),
    };
    let began = Instant::now();
    for seed in options.seed.. {
        if began.elapsed() > options.span {
            break;
        }
        let root = directory.join(format!("{}-{seed}", std::process::id()));
        std::fs::create_dir_all(&root)?;
        let judged = match options.faults.iter().any(|fault| PARTITIONS.contains(fault)) {
            true => in_a_network(options.members + options.spares(), |network| {
                trial(options, &binary, &root, Some(network), seed)
            }),
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
    let wants_disk = options.faults.iter().any(|fault| DISKS.contains(fault));
    let disk = wants_disk.then(|| Disk::new(&root.join("disk"))).transpose()?;
    let (members, controls) = (options.members, options.controls);
    let spares = options.spares();
    let setup =
        Setup { program: binary, root, members, spares, network, disk: disk.as_ref(), controls, seed };
    let (mut trial, mut rng, began) = (Trial::begin(&setup)?, Rng::new(!seed), Instant::now());
    while began.elapsed() < options.of_trial {
        let fault = *rng.pick(&options.faults);
        println!("seed {seed}, {:.1} s: {fault:?}", began.elapsed().as_secs_f64());
        trial.strike(fault)?;
    }
    trial.end()
}
