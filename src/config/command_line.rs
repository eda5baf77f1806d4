//! From arguments and environment to values, in the forms of Go's flag package.
//!
//! One dash or two; `--x=v` or `--x v`; a boolean takes its value only behind `=`. The last of several wins.
//! `--` and the first word that is no flag end the flags, and etcd takes nothing after them.

use super::flags::{COMPLETION, DUMP_LOG, FLAGS, Flag, FlagKind, MAN, SHELLS, Status, lookup};
use super::value::FlagValue;
use super::{ConfigError, ConfigErrors, DumpLog, Warning};
use std::collections::{BTreeMap, BTreeSet};

const ENV_PREFIX: &str = "ETCD_";

/// The values given for flags; what is not given has its default.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, FlagValue>,
    /// Flags whose value cannot be read, so that nothing may be concluded from their default.
    unreadable: BTreeSet<&'static str>,
}

/// What the arguments ask for.
pub(super) enum Arguments {
    Help,
    /// The completion script for a shell of [`SHELLS`].
    Completion(&'static str),
    Man,
    Given(Given),
    DumpLog(DumpLog),
}

impl Given {
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(super) fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.contains(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    pub(super) fn set(&mut self, name: &'static str, value: FlagValue) {
        self.values.insert(name, value);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<FlagValue> {
        self.values.remove(name)
    }

    /// The value given, or the default of the table.
    pub(super) fn value(&self, name: &str) -> FlagValue {
        let flag = lookup(name).expect("the code asks only for flags of the table");
        self.values.get(name).cloned().unwrap_or_else(|| default_of(flag))
    }
}

pub(super) fn default_of(flag: &Flag) -> FlagValue {
    FlagValue::read(flag.kind, flag.default).expect("a test reads every default of the table")
}

/// Reads the arguments, without the program's name. Stops at the first that asks for help, and at a word that
/// is no flag, since what follows may belong to it.
pub(super) fn read(args: &[String], refusals: &mut ConfigErrors) -> Result<Arguments, ConfigError> {
    match args.split_first() {
        Some((first, rest)) if first == DUMP_LOG.name => return read_dump_log(rest),
        Some((first, rest)) if first == COMPLETION.name => return read_completion(rest),
        Some((first, rest)) if first == MAN.name => return read_man(rest),
        _ => {}
    }
    let mut given = Given::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(body) = dashless(arg) else {
            refusals.add(not_a_flag(arg));
            break;
        };
        if body.is_empty() {
            // "--" ends the flags; a lone "-" is a word.
            let word = if arg == "--" { args.next() } else { Some(arg) };
            word.into_iter().for_each(|word| refusals.add(not_a_flag(word)));
            break;
        }
        match read_flag(FLAGS, arg, body, &mut args) {
            Ok(None) if refusals.0.is_empty() => return Ok(Arguments::Help),
            Ok(None) => {}
            Ok(Some((flag, value))) => given.set(flag.name, value),
            Err(refusal) => {
                let named = named(FLAGS, body);
                given.unreadable.extend(named.map(|flag| flag.name));
                if named.is_none() && !body.contains('=') {
                    skip_value(&mut args);
                }
                refusals.add(refusal);
            }
        }
    }
    Ok(Arguments::Given(given))
}

fn read_completion(args: &[String]) -> Result<Arguments, ConfigError> {
    let known = |arg: &String| SHELLS.iter().copied().find(|shell| shell == arg);
    match args {
        [arg] if is_help(arg) => Ok(Arguments::Help),
        [arg] if known(arg).is_some() => Ok(Arguments::Completion(known(arg).unwrap_or_default())),
        _ => {
            let (name, shells) = (COMPLETION.name, SHELLS.join(", "));
            Err(ConfigError::arguments(format!(
                "{name} needs one shell of {shells}: braid {name} {}",
                SHELLS[0]
            )))
        }
    }
}

fn read_man(args: &[String]) -> Result<Arguments, ConfigError> {
    match args {
        [] => Ok(Arguments::Man),
        [arg] if is_help(arg) => Ok(Arguments::Help),
        [arg, ..] => Err(ConfigError::arguments(format!("{} takes nothing: leave {arg:?} out", MAN.name))),
    }
}

fn is_help(arg: &str) -> bool {
    dashless(arg).is_some_and(|body| body == "help" || body == "h")
}

/// What follows an unknown flag and is no flag itself was meant to be its value.
fn skip_value(args: &mut std::slice::Iter<'_, String>) {
    if args.as_slice().first().is_some_and(|next| dashless(next).is_none()) {
        args.next();
    }
}

/// The flag that an argument without its dashes names.
fn named(table: &'static [Flag], body: &str) -> Option<&'static Flag> {
    let name = body.split_once('=').map_or(body, |(name, _)| name);
    table.iter().find(|flag| flag.name == name)
}

/// Reads what follows the name of the subcommand: one word, with flags before and behind it.
fn read_dump_log(args: &[String]) -> Result<Arguments, ConfigError> {
    let (name, mut given, mut operand) = (DUMP_LOG.name, Given::default(), None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if let Some(body) = dashless(arg).filter(|body| !body.is_empty()) {
            match read_flag(DUMP_LOG.flags, arg, body, &mut args)? {
                None => return Ok(Arguments::Help),
                Some((flag, value)) => given.set(flag.name, value),
            }
        } else if operand.replace(arg).is_some() {
            let form = format!("takes one {}, and {arg:?} is a second", DUMP_LOG.operand);
            return Err(ConfigError::arguments(format!("{name} {form}")));
        }
    }
    match operand {
        Some(directory) if !directory.is_empty() => {
            let json = given.remove("json") == Some(FlagValue::Bool(true));
            Ok(Arguments::DumpLog(DumpLog { data_dir: directory.into(), json }))
        }
        _ => Err(ConfigError::arguments(format!("{name} needs a {0}: braid {name} {0}", DUMP_LOG.operand))),
    }
}

/// What follows the dashes of a flag; none where it is a word.
fn dashless(arg: &str) -> Option<&str> {
    arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))
}

/// Reads one flag, with its value where that is the next argument. None where it asks for help.
fn read_flag(
    table: &'static [Flag],
    arg: &str,
    body: &str,
    args: &mut std::slice::Iter<'_, String>,
) -> Result<Option<(&'static Flag, FlagValue)>, ConfigError> {
    if body.starts_with(['-', '=']) {
        return Err(ConfigError::arguments(format!("bad flag syntax: {arg}")));
    }
    let (name, inline) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    if name == "help" || name == "h" {
        return Ok(None);
    }
    let Some(flag) = named(table, name) else {
        return Err(unknown(table, name));
    };
    let text = match (inline, flag.kind) {
        (Some(text), _) => text,
        (None, FlagKind::Bool | FlagKind::Anything) => "true",
        (None, _) => args
            .next()
            .ok_or_else(|| ConfigError::arguments(format!("flag needs an argument: -{name}")))?
            .as_str(),
    };
    let value = FlagValue::read(flag.kind, text).map_err(|why| {
        let noun = if flag.kind == FlagKind::Bool { "boolean value" } else { "value" };
        let link = if flag.kind == FlagKind::Bool { "" } else { "flag " };
        ConfigError::arguments(format!("invalid {noun} {text:?} for {link}-{name}: {why}"))
    })?;
    Ok(Some((flag, value)))
}

/// Adds what the environment says and the arguments do not.
///
/// etcd refuses to start where both speak; Braid lets the arguments win and says so.
pub(super) fn add_environment(
    given: &mut Given,
    env: &[(String, String)],
    warnings: &mut Vec<Warning>,
    refusals: &mut ConfigErrors,
) {
    let from_arguments: Vec<&str> = given.names().chain(given.unreadable.iter().copied()).collect();
    for (key, text) in env.iter().filter(|(key, _)| key.starts_with(ENV_PREFIX)) {
        let found = FLAGS.iter().find(|flag| variable(flag.name) == *key);
        let Some(flag) = found else {
            warnings.push(Warning(format!("unrecognized environment variable {key}")));
            continue;
        };
        if flag.name == "version" {
            warnings.push(Warning(format!("cannot set special environment variable {key}")));
        } else if from_arguments.contains(&flag.name) {
            warnings.push(Warning(format!("environment variable {key} gives way to --{}", flag.name)));
        } else if !text.is_empty() {
            match FlagValue::read(flag.kind, text) {
                Ok(value) => given.set(flag.name, value),
                Err(why) => {
                    given.unreadable.insert(flag.name);
                    refusals.add(ConfigError::error(format!("invalid value {text:?} for {key}: {why}")));
                }
            }
        }
    }
}

/// `ETCD_SOME_FLAG` for `some-flag`.
fn variable(name: &str) -> String {
    format!("{ENV_PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn not_a_flag(word: &str) -> ConfigError {
    if word == "gateway" || word == "grpc-proxy" {
        return ConfigError::error(format!("the sub-command {word} is not built yet"));
    }
    ConfigError::error(format!("{word:?} is not a valid flag"))
}

fn unknown(table: &[Flag], name: &str) -> ConfigError {
    let candidates = table.iter().filter(|flag| !matches!(flag.status, Status::Ignored(_)));
    let by_distance = candidates.map(|flag| (strsim::damerau_levenshtein(flag.name, name), flag.name));
    // Names of which half is different have nothing to do with each other.
    let near = by_distance.filter(|(distance, _)| *distance <= name.len() / 2);
    let hint = near.min().map_or_else(String::new, |(_, nearest)| format!(" (the nearest is --{nearest})"));
    ConfigError::arguments(format!("flag provided but not defined: -{name}{hint}"))
}
