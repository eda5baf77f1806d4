//! The command line.

use std::path::PathBuf;

pub const HELP: &str = "\
Starts the members of a cluster on this machine, says how to reach them and which of them leads, and stops them all
on Ctrl-C.

    cargo cluster [options] [-- flags for each member]

  --members N      how many members               [3]
  --port P         the first member is at P for clients and at P+1 for the others, the second at P+2 and P+3, …
                                                  [2379]
  --dir DIR        where they keep data and logs, which stay there: the same command starts them again
                                                  [a new one, which is removed at the end]
  --keep           keep that one too
  --binary PATH    the members' program, Braid's or etcd's
                                                  [target/release/braid, which is built first]

Kill a member (its number is printed) to see another one take over; its own command line, which is printed then,
starts it again.";

pub const MEMBERS_MAX: u16 = 9;

#[derive(Debug, PartialEq)]
pub enum Wish {
    Help,
    Run(Options),
}

#[derive(Debug, PartialEq)]
pub struct Options {
    pub members: u16,
    pub port: u16,
    pub directory: Option<PathBuf>,
    pub keep: bool,
    pub binary: Option<PathBuf>,
    /// For each member, behind what it needs.
    pub flags: Vec<String>,
}

/// Errors are sentences for the user.
pub fn parse(args: &[String]) -> Result<Wish, String> {
    // The alias ends with `--`, for what stands behind it.
    let args = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    let (own, flags) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[][..]),
    };
    let mut options =
        Options { members: 3, port: 2379, directory: None, keep: false, binary: None, flags: flags.to_vec() };
    let mut own = own.iter();
    while let Some(arg) = own.next() {
        let mut value = || own.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--help" | "-h" => return Ok(Wish::Help),
            "--members" => options.members = number(arg, value()?, 1, MEMBERS_MAX)?,
            "--port" => options.port = number(arg, value()?, 1, u16::MAX - 2 * MEMBERS_MAX)?,
            "--dir" => options.directory = Some(PathBuf::from(value()?)),
            "--keep" => options.keep = true,
            "--binary" => options.binary = Some(PathBuf::from(value()?)),
            _ => return Err(format!("what is {arg}? Flags for the members stand behind --")),
        }
    }
    Ok(Wish::Run(options))
}

fn number(name: &str, text: &str, least: u16, most: u16) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{name} is a number from {least} to {most}, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Wish, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_given_has_a_default() {
        let Ok(Wish::Run(options)) = read("") else { panic!("it runs") };
        assert_eq!((options.members, options.port, options.keep), (3, 2379, false));
        let Ok(Wish::Run(options)) = read("-- --members 5 --keep --dir d --binary b -- --shards=4 -- x")
        else {
            panic!("it runs")
        };
        assert_eq!(
            (options.members, options.keep, options.flags),
            (5, true, vec!["--shards=4".into(), "--".into(), "x".into()])
        );
        assert_eq!((options.directory, options.binary), (Some("d".into()), Some("b".into())));
        assert_eq!(read("--members 5 --help"), Ok(Wish::Help));
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (line, words) in [
            ("--members 0", "from 1 to 9"),
            ("--members ten", "not \"ten\""),
            ("--port 65535", "--port is a number"),
            ("--dir", "--dir needs a value"),
            ("--shards=4", "stand behind --"),
        ] {
            let why = read(line).expect_err(line);
            assert!(why.contains(words), "{line}: {why}");
        }
    }
}
