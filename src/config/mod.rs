//! The flags of the server: etcd's own names, forms, defaults and sentences, and Braid's few beside them.
//!
//! `flags` is the table, `command_line` reads arguments and environment by it, `resolve` checks the values
//! against each other and makes the [`Config`] that the rest of the server sees.

mod command_line;
mod completion;
mod flags;
mod help;
mod identity;
mod joining;
mod man;
mod resolve;
mod shards;
mod url;
mod value;

#[cfg(test)]
mod tests;

pub use identity::{Bootstrap, BootstrapMember, added_member_id, member_id};
pub use joining::{Joining, ListedCluster, ListedMember};
pub use shards::ShardMap;
pub use url::{Url, UrlFault};

use crate::types::Duration;
use command_line::Arguments;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// What the server is asked to be. Every value is checked and has its final meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,

    /// Where clients are served; never empty. Hosts are addresses or `localhost`, as for every URL to listen
    /// on.
    pub listen_client_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
    /// Where /metrics and /health are answered beside the client URLs; may be empty.
    pub listen_metrics_urls: Vec<Url>,
    pub listen_peer_urls: Vec<Url>,
    pub initial_advertise_peer_urls: Vec<Url>,

    /// The members at bootstrap, or what is wrong with them: only a bootstrap asks.
    pub initial_cluster: Result<Vec<InitialMember>, ConfigError>,
    pub initial_cluster_state: ClusterState,
    pub initial_cluster_token: String,

    pub heartbeat_interval: Duration,
    /// The election timeout, which is at least five heartbeats.
    pub election_timeout: Duration,

    /// Learners that the cluster may have while this member leads.
    pub max_learners: usize,

    /// Bytes of data past which writes raise the NOSPACE alarm; none where there is no quota.
    pub quota_bytes: Option<u64>,
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    /// Streams a client may have open on a connection; at least 1.
    pub streams_max: u32,
    pub auto_compaction: AutoCompaction,

    /// How often a client may ping; zero where it may as often as it likes.
    pub keepalive_min_time: Duration,
    /// The server's own pings; `None` where it sends none.
    pub keepalive: Option<ServerKeepalive>,
    pub watch_progress_interval: Duration,

    /// Whether `--metrics=extensive` was given.
    pub metrics_extensive: bool,
    /// How long requests may take before they are logged: to apply, and until they are answered.
    pub warning_apply: Duration,
    pub warning_unary: Duration,
    pub socket_reuse_port: bool,
    /// Whether changes of the members are refused for which too few of them are there.
    pub strict_reconfig_check: bool,
    /// Whether all other members are to be removed, since they are lost for ever.
    pub force_new_cluster: bool,

    pub log_level: LogLevel,
    pub log_format: LogFormat,
    /// Where the log goes; never empty.
    pub log_outputs: Vec<LogOutput>,

    /// The number of reactors, from 1 to [`crate::limits::REACTORS_MAX`].
    pub reactors: usize,
    /// Groups that hold keys, beside the control shard: from 1 to [`crate::limits::SHARDS_MAX`] − 1.
    pub shards: usize,
    /// The operator has said how many, or where keys are cut.
    pub shards_are_set: bool,
    pub shard_map: ShardMap,

    /// The names of all flags that arguments or environment gave a value.
    pub given: BTreeSet<&'static str>,
}

/// One `name=url` group of `--initial-cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    pub name: String,
    /// Its peer URLs, sorted; never empty.
    pub peer_urls: Vec<Url>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    New,
    Existing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    /// Keeps what is younger.
    Periodic(Duration),
    /// Keeps this many revisions.
    Revisions(u64),
}

/// The server's own pings. Neither span is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerKeepalive {
    pub interval: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Console,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stderr,
    Stdout,
    File(PathBuf),
}

/// What `braid dump-log` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpLog {
    pub data_dir: PathBuf,
    /// Whether to print one JSON object per line, for programs.
    pub json: bool,
}

/// Something the log should say once at start: a flag without effect, a variable that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a command line comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Run(Box<Config>, Vec<Warning>),
    DumpLog(DumpLog),
    /// Help, version, completion, manual: print it, exit with 0.
    PrintAndExit(String),
}

/// Why the server does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// 2 where an argument can't be read, 1 where its meaning is refused: etcd's two.
    pub exit_code: u8,
    /// A line for each thing refused.
    pub message: String,
}

impl ConfigError {
    fn arguments(message: String) -> ConfigError {
        ConfigError { exit_code: 2, message }
    }
    fn error(message: String) -> ConfigError {
        ConfigError { exit_code: 1, message }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The errors found so far. Reading goes on behind an error, so that an operator hears of all at once.
#[derive(Debug, Default)]
struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    fn add(&mut self, refusal: ConfigError) {
        self.0.push(refusal);
    }

    /// The value, or what stands in for a refused one until all is read; then nothing of it is used.
    fn value_or<T>(&mut self, read: Result<T, ConfigError>, stand_in: T) -> T {
        read.unwrap_or_else(|refusal| {
            self.add(refusal);
            stand_in
        })
    }

    fn value_or_default<T: Default>(&mut self, read: Result<T, ConfigError>) -> T {
        self.value_or(read, T::default())
    }

    /// Joins all errors in one, with the exit code of the first.
    fn all(self) -> Result<(), ConfigError> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let lines: Vec<&str> = self.0.iter().map(|refusal| refusal.message.as_str()).collect();
        Err(ConfigError { exit_code: first.exit_code, message: lines.join("\n") })
    }
}

/// Reads arguments (without the program's name) and environment.
///
/// `cpus` is how many CPUs this process may run on: the default of `--reactors`.
pub fn parse(args: &[String], env: &[(String, String)], cpus: usize) -> Result<Parsed, ConfigError> {
    let mut refusals = ConfigErrors::default();
    let mut given = match command_line::read(args, &mut refusals)? {
        Arguments::Help => return Ok(Parsed::PrintAndExit(help::help())),
        Arguments::Completion(shell) => return Ok(Parsed::PrintAndExit(completion::script(shell))),
        Arguments::Man => return Ok(Parsed::PrintAndExit(man::page())),
        Arguments::DumpLog(wish) => return Ok(Parsed::DumpLog(wish)),
        Arguments::Given(given) => given,
    };
    if refusals.0.is_empty() && given.value("version") == value::FlagValue::Bool(true) {
        return Ok(Parsed::PrintAndExit(help::version()));
    }
    let mut warnings = Vec::new();
    command_line::add_environment(&mut given, env, &mut warnings, &mut refusals);
    resolve::resolve_statuses(&mut given, &mut warnings, &mut refusals);
    let config = resolve::config(&given, cpus, &mut warnings, &mut refusals);
    refusals.all()?;
    Ok(Parsed::Run(Box::new(config), warnings))
}
