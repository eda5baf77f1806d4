//! The command line.

use crate::processes::{Fault, PLACES_MAX};
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
Runs clusters of real processes under load while things go wrong, trial after trial, each with a new cluster; what
the clients of a trial saw must be one history, as the simulator's checks judge it.

    cargo soak -- [options]

  --members N      how many members               [3]
  --seconds S      no trial begins later          [600]
  --trial-seconds S    how long things go wrong in a trial
                                                  [20]
  --faults A,B,…   what goes wrong                [kill,kill-all,pause,restart,copy]
                   kill       kill -9 of one member, more often than not of the one that leads
                   kill-all   of all of them
                   pause      the one that leads is stopped by a signal, and goes on later
                   restart    one after the other is ended by a signal and started again
                   replace    a new member takes the place of another one, as often as there are addresses: 8 for each
                              cluster
                   replace-and-kill
                              the same, and one of them is killed meanwhile
                   copy       a copy of a running member's directory is started beside it, which the others refuse
                   partition  packets between one member and the others are dropped, in one direction or both;
                              needs ip (iproute2) and the right to make network namespaces
                   disk       a member's disk is full for a while, or fails: reads and writes end with errors; needs
                              mkfs.ext4, fallocate and the right to mount
  --control        clients compact history and list members as well
  --seed N         the first trial's; the next has the next one
                                                  [1]
  --binary PATH    the members' program           [target/release/braid, which is built first]
  --dir PATH       where the members keep data and logs
                                                  [target/release/soak]

A seed decides what is asked and what goes wrong, not when the machine does what. The data of a trial that fails are
kept. The exit code is 0 where every trial held, 1 where one failed or could not be run, 2 where an argument is wrong.";

const MEMBERS_MAX: usize = 7;

/// What goes wrong, by its name.
const FAULTS: [(&str, &[Fault]); 9] = [
    ("kill", &[Fault::Kill]),
    ("kill-all", &[Fault::KillAll]),
    ("pause", &[Fault::Pause]),
    ("restart", &[Fault::Restart]),
    ("copy", &[Fault::Copy]),
    ("replace", &[Fault::Replace]),
    ("replace-and-kill", &[Fault::ReplaceAndKill]),
    ("partition", &PARTITIONS),
    ("disk", &DISKS),
];

/// What needs members that may join.
const REPLACEMENTS: [Fault; 2] = [Fault::Replace, Fault::ReplaceAndKill];

/// What needs a network, and what needs a disk.
pub const PARTITIONS: [Fault; 3] = [Fault::CutOff, Fault::Mute, Fault::Deaf];
pub const DISKS: [Fault; 2] = [Fault::FullDisk, Fault::FailingDisk];

#[derive(Debug, PartialEq)]
pub enum Wish {
    Run(Options),
    Help,
}

#[derive(Debug, PartialEq)]
pub struct Options {
    pub members: usize,
    pub span: Duration,
    pub of_trial: Duration,
    pub faults: Vec<Fault>,
    pub controls: bool,
    pub seed: u64,
    pub binary: Option<PathBuf>,
    pub directory: Option<PathBuf>,
}

impl Options {
    /// How many members may join in a trial.
    pub fn spares(&self) -> usize {
        if self.faults.iter().any(|fault| REPLACEMENTS.contains(fault)) {
            PLACES_MAX - self.members
        } else {
            0
        }
    }
}

/// Errors are sentences for the user.
pub fn parse(args: &[String]) -> Result<Wish, String> {
    // The alias ends with `--`; given once more it comes here.
    let args = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    let mut options = Options {
        members: 3,
        span: Duration::from_secs(600),
        of_trial: Duration::from_secs(20),
        faults: FAULTS[..5].iter().flat_map(|(_, faults)| *faults).copied().collect(),
        controls: false,
        seed: 1,
        binary: None,
        directory: None,
    };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--help" | "-h" => return Ok(Wish::Help),
            "--members" => {
                options.members = number(arg, value()?, MEMBERS_MAX as u64)? as usize;
            }
            "--seconds" => options.span = Duration::from_secs(number(arg, value()?, u64::MAX)?),
            "--trial-seconds" => options.of_trial = Duration::from_secs(number(arg, value()?, 600)?),
            "--faults" => {
                options.faults = value()?.split(',').map(faults).collect::<Result<Vec<_>, _>>()?.concat();
            }
            "--control" => options.controls = true,
            "--seed" => options.seed = number(arg, value()?, u64::MAX)?,
            "--binary" => options.binary = Some(PathBuf::from(value()?)),
            "--dir" => options.directory = Some(PathBuf::from(value()?)),
            _ => return Err(format!("what is {arg}?")),
        }
    }
    Ok(Wish::Run(options))
}

fn number(name: &str, text: &str, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{name} is a number from 1 to {most}, not {text:?}"))
}

fn faults(word: &str) -> Result<&'static [Fault], String> {
    let found = FAULTS.iter().find(|(name, _)| *name == word).map(|(_, faults)| *faults);
    let names: Vec<&str> = FAULTS.iter().map(|(name, _)| *name).collect();
    found.ok_or_else(|| format!("{word:?} is no fault; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Wish, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_given_counts_and_the_rest_has_defaults() {
        let Ok(Wish::Run(options)) = read("-- --members 5 --control --faults kill,partition --seed 9") else {
            panic!("it runs")
        };
        assert_eq!((options.members, options.seed, options.span.as_secs()), (5, 9, 600));
        assert!(options.controls);
        assert_eq!(options.faults, [Fault::Kill, Fault::CutOff, Fault::Mute, Fault::Deaf]);
        let Ok(Wish::Run(options)) = read("") else { panic!("it runs") };
        assert!(!options.faults.iter().any(|fault| PARTITIONS.contains(fault) || DISKS.contains(fault)));
        assert_eq!(read("--seed 3 -h"), Ok(Wish::Help));
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (line, words) in [
            ("--members 8", "from 1 to 7"),
            ("--seconds 0", "from 1"),
            ("--faults kill,flood", "\"flood\" is no fault; there are kill, kill-all"),
            ("--faults", "--faults needs a value"),
            ("--forever", "what is --forever?"),
        ] {
            let why = read(line).expect_err(line);
            assert!(why.contains(words), "{line}: {why}");
        }
    }
}
