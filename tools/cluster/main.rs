//! A cluster on one machine, for who wants to see one. `--help` says how to use it.

// Processes, sockets, files and a clock are what it is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[path = "../built.rs"]
mod built;
mod member;
mod options;

use member::{Member, Place};
use options::{Options, Wish};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match options::parse(&args) {
        Ok(Wish::Run(options)) => options,
        Ok(Wish::Help) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("cluster: {why}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match cluster(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cluster(options: &Options) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => built::build()?,
    };
    let (directory, is_kept) = match &options.directory {
        Some(directory) => (directory.clone(), true),
        None => (new_directory()?, options.keep),
    };
    std::fs::create_dir_all(&directory)?;
    let mut may_be_in_use = false;
    let ran = start(&binary, options, &directory).and_then(|mut members| {
        present(&members, &directory, is_kept);
        let ran = watch(&mut members, &stop);
        // Whoever ended before may have been started again by hand.
        may_be_in_use = ran.is_ok() && members.iter().any(|member| member.ended.is_some());
        println!("\nStopping the members.");
        stop_all(&mut members).and(ran)
    });
    if may_be_in_use && !is_kept {
        println!("A member started again by hand runs on: data and logs stay in {}.", directory.display());
    } else if !is_kept {
        std::fs::remove_dir_all(&directory)?;
    }
    ran
}

fn new_directory() -> Result<PathBuf> {
    Ok(built::release_directory()?.join("cluster").join(std::process::id().to_string()))
}

fn start(binary: &Path, options: &Options, directory: &Path) -> Result<Vec<Member>> {
    let all = member::places(options.members, options.port);
    let start = |place: &Place| {
        let arguments = member::arguments(place, &all, &directory.join(&place.name), &options.flags);
        Member::start(binary, place.clone(), &arguments, directory)
    };
    all.iter().map(start).collect()
}

fn present(members: &[Member], directory: &Path, is_kept: bool) {
    let end = if is_kept { "which stays" } else { "which is removed at the end" };
    println!("{} members, with data and logs in {}, {end}:\n", members.len(), directory.display());
    for member in members {
        let Place { name, client, peer } = &member.place;
        println!("  {name}  pid {}  clients {client}  other members {peer}", member.pid());
    }
    let endpoints: Vec<String> = members.iter().map(|member| member.place.client.to_string()).collect();
    let endpoints = endpoints.join(",");
    println!(
        "\nTry:   etcdctl --endpoints={endpoints} put hello world\n       \
         etcdctl --endpoints={endpoints} endpoint status --write-out=table\n\
         Stop:  Ctrl-C\n"
    );
}

/// Says who leads, and who has ended, until a signal comes. Before anybody has led, a member that ends is a reason
/// to give up.
fn watch(members: &mut [Member], stop: &AtomicBool) -> Result<()> {
    let mut leader: Option<String> = None;
    let mut has_led = false;
    while !stop.load(Ordering::Relaxed) {
        for member in members.iter_mut() {
            let Some(status) = member.look()? else { continue };
            let (name, words) = (&member.place.name, member.last_words());
            if !has_led {
                return Err(Error::other(format!("{name} has ended ({status}):\n{words}")));
            }
            println!("{name} has ended ({status}). To start it again:\n  {}", member.command);
        }
        let leads = members.iter().find(|member| member.leads() == Some(true));
        let now = leads.map(|member| member.place.name.clone());
        if now != leader {
            match &now {
                Some(name) => println!("{name} leads."),
                None => println!("Nobody leads."),
            }
            has_led |= now.is_some();
            leader = now;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn stop_all(members: &mut [Member]) -> Result<()> {
    members.iter().for_each(Member::ask_to_stop);
    for member in members {
        if !member.await_end()? {
            println!("{} did not stop in time, and was killed.", member.place.name);
        }
    }
    Ok(())
}
