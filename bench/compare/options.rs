//! The command line.

use crate::cases::{CASES, CLUSTER_CASES, Case, LONG};
use generator::arguments::{behind_alias, number, seconds};
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
Compares Braid with etcd, or two builds of Braid: each case on a new server with an empty directory and
default flags (so both durable), one program and the other in turn, in rounds. Markdown goes to stdout, each
run's JSON to stderr.

    cargo compare (--etcd PATH | --against PATH) [options]

  --etcd PATH      etcd's program
  --against PATH   or another build of Braid in its place; the aim is then that no case costs more than
                   1.03 times its CPU a request
  --braid PATH     Braid's program                  [beside this program, in target/release]
  --dir PATH       where the servers keep their data; a disk, not memory
                                                    [target/compare]
  --case TEXT      only cases whose name has it; may be given more than once
                                                    [all but the long ones]
  --rounds N       [3]
  --seconds S      the measured window of a run     [3]
  --warm-up S      load before it                   [1]
  --busy N         so many programs that compute without end run beside
                                                    [0]

The long cases run only where --case names them:

  aged             put 5,000/s after 100,000 keys of 256 bytes were filled and 800,000 times overwritten at
                   full rate, while what is older than an interval is compacted each interval, as
                   kube-apiserver does; the window begins after the first compaction
  disk             what the data directory takes after 500,000 overwrites of 100,000 keys and a compaction
  restart          1,000,000 keys of 256 bytes, kill -9, the time to the first answered put, memory before
                   and after; once after a pause and once right after the last put

  catch-up         with --members: 1,000,000 keys of 256 bytes are put into a cluster that lacks one member, then that
                   one is added, empty and without a vote: the time until it shows what the leader showed at its
                   start, and put 1,000/s at the leader for --seconds before and until then

  --window S       the window of `aged`             [60]
  --compact-every S    its interval                 [60]
  --settle S       the pause before disk and memory are measured, and before the kill
                                                    [40]
  --scale X        multiplies the long cases' keys and overwrites; with another than 1 no aim is judged
                                                    [1]

Several members:

  --members N      compares clusters of N on this machine, with cases of their own: puts, Kubernetes' transactions,
                   ranges at followers, watches at all members, failover, an idle cluster (Braid with 64 shards)
                                                    [1]
  --strikes N      how often a leader is killed, stopped or ended in a round of `failover`
                                                    [5]

CPU and bytes written are those of all members. The packets of an idle cluster are counted where `ip` may make a
network namespace.

The generator is one thread beside the server. On a larger machine give all of them the same two cores:
taskset -c 0,1 cargo compare …
The exit code is 1 where a request failed or was answered wrongly, 2 where an argument is wrong.";

pub enum Parsed {
    Help,
    Run(Box<Options>),
}

/// What stands beside Braid.
#[derive(Debug, PartialEq)]
pub enum Other {
    Etcd(PathBuf),
    Build(PathBuf),
}

pub struct Options {
    pub other: Other,
    /// `None` where it lies beside this program.
    pub braid: Option<PathBuf>,
    pub directory: Option<PathBuf>,
    pub cases: Vec<&'static Case>,
    pub rounds: usize,
    pub seconds: Duration,
    pub warm_up: Duration,
    pub busy: usize,
    pub window: Duration,
    pub compact_every: Duration,
    pub settle: Duration,
    pub scale: f64,
    /// Of a cluster; 1 is a server alone.
    pub members: usize,
    pub strikes: usize,
}

/// Errors are sentences for the user.
pub fn parse(args: &[String]) -> Result<Parsed, String> {
    let args = behind_alias(args);
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return Ok(Parsed::Help);
    }
    let (mut other, mut words) = (None, Vec::new());
    let mut options = Options {
        other: Other::Etcd(PathBuf::new()),
        braid: None,
        directory: None,
        cases: Vec::new(),
        rounds: 3,
        seconds: Duration::from_secs(3),
        warm_up: Duration::from_secs(1),
        busy: 0,
        window: Duration::from_secs(60),
        compact_every: Duration::from_secs(60),
        settle: Duration::from_secs(40),
        scale: 1.0,
        members: 1,
        strikes: 5,
    };
    let mut rest = args.iter().map(String::as_str);
    while let Some(name) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{name} lacks its value"));
        match name {
            "--etcd" | "--against" => {
                let path = PathBuf::from(value()?);
                let program = if name == "--etcd" { Other::Etcd(path) } else { Other::Build(path) };
                if other.replace(program).is_some() {
                    return Err("Braid is compared with one program: --etcd or --against, once".to_owned());
                }
            }
            "--braid" => options.braid = Some(value()?.into()),
            "--dir" => options.directory = Some(value()?.into()),
            "--rounds" => options.rounds = number(name, value()?, 1)?,
            "--seconds" => options.seconds = seconds(name, value()?)?,
            "--warm-up" => options.warm_up = seconds(name, value()?)?,
            "--case" => words.push(value()?),
            "--busy" => options.busy = number(name, value()?, 0)?,
            "--window" => options.window = seconds(name, value()?)?,
            "--compact-every" => options.compact_every = seconds(name, value()?)?,
            "--settle" => options.settle = seconds(name, value()?)?,
            "--scale" => options.scale = number(name, value()?, 0.001)?,
            "--members" => options.members = number(name, value()?, 1)?,
            "--strikes" => options.strikes = number(name, value()?, 1)?,
            _ => return Err(format!("{name} is no option")),
        }
    }
    options.other = other.ok_or("--etcd or --against is missing: what Braid is compared with")?;
    if options.members == 2 {
        return Err("two members go on without none: --members is 1, or 3 and more".to_owned());
    }
    options.cases = chosen(if options.members == 1 { &CASES } else { &CLUSTER_CASES }, &words)?;
    if options.window < options.compact_every {
        return Err("--window is shorter than --compact-every: no compaction might fall into it".to_owned());
    }
    Ok(Parsed::Run(Box::new(options)))
}

/// The cases that the words name; without words all that are not long.
fn chosen(cases: &'static [Case], words: &[&str]) -> Result<Vec<&'static Case>, String> {
    let named = |case: &Case, word: &str| match LONG.contains(&word) {
        true => case.is_long() && case.name.contains(word),
        false => case.name == word || (!case.is_long() && case.name.contains(word)),
    };
    if let Some(word) = words.iter().find(|word| !cases.iter().any(|case| named(case, word))) {
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        return Err(format!("no case's name has {word:?}; there are {}", names.join(", ")));
    }
    let wanted = |case: &Case| match words {
        [] => !case.is_long(),
        words => words.iter().any(|word| named(case, word)),
    };
    Ok(cases.iter().filter(|case| wanted(case)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Parsed, String> {
        parse(&line.split('|').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<String>>())
    }

    #[test]
    fn arguments_are_read_whole_or_refused() {
        assert!(matches!(read("--help"), Ok(Parsed::Help)));
        assert!(matches!(read("--etcd|x|-h"), Ok(Parsed::Help)));
        assert!(matches!(read("--|--etcd|x"), Ok(Parsed::Run(_))));
        let Ok(Parsed::Run(options)) = read("--against|old|--rounds|5|--busy|4") else { panic!("refused") };
        assert_eq!(options.other, Other::Build("old".into()));
        assert_eq!((options.rounds, options.busy, options.cases.len()), (5, 4, CASES.len() - 4));
        let Ok(Parsed::Run(options)) = read("--etcd|x|--members|3|--case|failover") else {
            panic!("refused")
        };
        assert_eq!((options.members, options.cases.len()), (3, 3));
        for wrong in [
            "",
            "--etcd",
            "--etcd|x|--against|y",
            "--etcd|x|--etcd|y",
            "--etcd|x|--rounds|0",
            "--etcd|x|--seconds|-1",
            "--etcd|x|--scale|0",
            "--etcd|x|--case|nothing",
            "--etcd|x|--window|10",
            "--etcd|x|--members|2",
            "--etcd|x|--members|3|--case|aged",
            "--etcd|x|--case|failover",
            "--etcd|x|--verbose",
            "--etcd|x|y",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_cases_run_where_they_are_named() {
        let names = |words: &[&str]| -> Vec<&str> {
            chosen(&CASES, words).unwrap_or_default().iter().map(|case| case.name).collect()
        };
        assert_eq!(names(&["5,000"]), ["put 5,000/s"]);
        assert_eq!(names(&["aged"]), ["put 5,000/s, aged"]);
        assert_eq!(names(&["put 5,000/s, aged"]), ["put 5,000/s, aged"]);
        assert_eq!(names(&["disk", "1×1"]), ["put 1×1", "disk"]);
        assert_eq!(names(&["restart"]), ["restart", "restart at once"]);
        assert_eq!(names(&["restart at once"]), ["restart at once"]);
    }
}
