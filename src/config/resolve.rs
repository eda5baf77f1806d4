//! From single values to a configuration that holds together. The sentences of refusals are etcd's where
//! etcd refuses too.

use super::command_line::{Given, default_of};
use super::flags::{FLAGS, GATES, Status, lookup};
use super::identity::read_initial_cluster;
use super::value::{FlagValue, read_span};
use super::*;
use crate::limits;

/// Gives older names' values to the newer ones, names what has no effect, refuses what is not built.
pub(super) fn resolve_statuses(given: &mut Given, warnings: &mut Vec<Warning>, refusals: &mut ConfigErrors) {
    rename(given, warnings, refusals);
    for flag in FLAGS.iter().filter(|flag| given.has(flag.name)) {
        match flag.status {
            Status::Built => {}
            Status::Became(_) | Status::BecameGate(_) => unreachable!("renamed a moment ago"),
            Status::Ignored(why) => {
                if given.value(flag.name) != default_of(flag) {
                    warnings.push(Warning(format!("--{} has no effect: {why}", flag.name)));
                }
            }
            Status::NotBuilt => match given.value(flag.name) {
                FlagValue::Gates(gates) => check_gates(&gates, warnings, refusals),
                value if value == default_of(flag) => {}
                _ => {
                    let default = if flag.default.is_empty() { "empty" } else { flag.default };
                    refusals.add(ConfigError::error(format!(
                        "--{} is not built yet in Braid; only etcd's default is taken ({default})",
                        flag.name
                    )));
                }
            },
        }
    }
}

/// Gives the values of older names to the newer ones. As in etcd, an older name wins over the newer one, but a
/// gate may not be set by both.
fn rename(given: &mut Given, warnings: &mut Vec<Warning>, refusals: &mut ConfigErrors) {
    for flag in FLAGS {
        let newer = match flag.status {
            Status::Became(newer) => newer,
            Status::BecameGate(_) => "feature-gates",
            _ => continue,
        };
        let Some(value) = given.remove(flag.name) else { continue };
        warnings.push(Warning(format!("--{} is deprecated; use --{newer} instead", flag.name)));
        let newer = lookup(newer).expect("a test looks up every newer name").name;
        let (Status::BecameGate(gate), FlagValue::Bool(on)) = (flag.status, &value) else {
            given.set(newer, value);
            continue;
        };
        let FlagValue::Gates(mut gates) = given.value(newer) else {
            unreachable!("gates are of their own kind")
        };
        if gates.iter().any(|(set, _)| *set == gate) {
            let message = format!("cannot specify both --{} and the gate {gate}", flag.name);
            refusals.add(ConfigError::error(message));
            continue;
        }
        gates.push((gate, *on));
        given.set(newer, FlagValue::Gates(gates));
    }
}

fn check_gates(gates: &[(&str, bool)], warnings: &mut Vec<Warning>, refusals: &mut ConfigErrors) {
    for (name, on) in gates {
        let gate = GATES.iter().find(|gate| gate.0 == *name);
        let (_, default, no_effect) = gate.expect("reading refuses gates that are not in the table");
        match no_effect {
            _ if on == default => {}
            Some(why) => warnings.push(Warning(format!("--feature-gates={name}={on} has no effect: {why}"))),
            None => {
                let message =
                    format!("the feature gate {name} is not built yet in Braid; it stays {default}");
                refusals.add(ConfigError::error(message));
            }
        }
    }
}

/// Makes the configuration. It is complete only where nothing is refused; else it must not be used.
pub(super) fn config(
    given: &Given,
    cpus: usize,
    warnings: &mut Vec<Warning>,
    refusals: &mut ConfigErrors,
) -> Config {
    let values = Values(given);
    let (heartbeat_interval, election_timeout) = refusals.value_or_default(timers(&values));
    let name = values.text("name");
    let data_dir = match values.text("data-dir") {
        dir if dir.is_empty() => format!("{name}.etcd"),
        dir => dir,
    };
    let shard_map = match values.cuts("shard-map") {
        cuts if cuts.is_empty() => ShardMap::Default,
        cuts => ShardMap::Cuts(cuts),
    };
    let reactors = shards::reactors(values.uint("reactors"), cpus).map_err(ConfigError::error);
    let reactors = refusals.value_or(reactors, 1);
    let shards = shards::shards(values.uint("shards"), &shard_map, reactors).map_err(ConfigError::error);
    let shards = refusals.value_or(shards, 1);
    let shards_are_set = values.uint("shards") > 0 || shard_map != ShardMap::Default;
    let advertised_peers = values.advertised("initial-advertise-peer-urls", PEER_FORM);
    let initial_advertise_peer_urls = refusals.value_or_default(advertised_peers);
    let initial_cluster = initial_cluster(given, &name, &initial_advertise_peer_urls);
    refuse_unadvertised(given, refusals);
    refuse_learners_below_zero(&values, refusals);
    Config {
        data_dir: PathBuf::from(data_dir),
        listen_client_urls: refusals.value_or_default(values.bindable("listen-client-urls", 1)),
        advertise_client_urls: refusals
            .value_or_default(values.advertised("advertise-client-urls", CLIENT_FORM)),
        listen_metrics_urls: refusals.value_or_default(values.bindable("listen-metrics-urls", 0)),
        listen_peer_urls: refusals.value_or_default(values.bindable("listen-peer-urls", 1)),
        initial_advertise_peer_urls,
        initial_cluster,
        initial_cluster_state: match values.text("initial-cluster-state").as_str() {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        initial_cluster_token: values.text("initial-cluster-token"),
        heartbeat_interval,
        election_timeout,
        quota_bytes: match values.int("quota-backend-bytes") {
            0 => Some(limits::QUOTA_BYTES_DEFAULT.unsigned_abs()),
            quota => u64::try_from(quota).ok(),
        },
        request_bytes_max: refusals
            .value_or_default(values.bounded("max-request-bytes", limits::REQUEST_BYTES_MAX)),
        // Below 0 was refused, and more than there are members is as good as all of them.
        max_learners: usize::try_from(values.int("max-learners").max(0)).unwrap_or(limits::MEMBERS_MAX),
        txn_ops_max: refusals.value_or_default(values.bounded("max-txn-ops", limits::TXN_OPS_MAX)),
        streams_max: streams(&values, warnings),
        auto_compaction: refusals.value_or(auto_compaction(&values), AutoCompaction::Off),
        keepalive_min_time: values.span("grpc-keepalive-min-time"),
        keepalive: keepalive(&values),
        watch_progress_interval: watch_progress(&values, warnings),
        metrics_extensive: values.text("metrics") == "extensive",
        warning_apply: values.span("warning-apply-duration"),
        warning_unary: values.span("warning-unary-request-duration"),
        socket_reuse_port: values.flag("socket-reuse-port"),
        strict_reconfig_check: values.flag("strict-reconfig-check"),
        force_new_cluster: values.flag("force-new-cluster"),
        log_level: log_level(&values),
        log_format: match values.text("log-format").as_str() {
            "console" => LogFormat::Console,
            _ => LogFormat::Json,
        },
        log_outputs: refusals.value_or_default(log_outputs(&values)),
        reactors,
        shards,
        shards_are_set,
        shard_map,
        name,
        given: given.names().collect(),
    }
}

/// Clients told where to listen but not what to call it by would be told the default (etcd's law).
fn refuse_unadvertised(given: &Given, refusals: &mut ConfigErrors) {
    let advertised = "advertise-client-urls";
    if given.has("listen-client-urls") && !given.has(advertised) && !given.is_unreadable(advertised) {
        let message = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
        refusals.add(ConfigError::error(message.to_string()));
    }
}

/// etcd counts the learners of the initial cluster, and finds none to be too many.
fn refuse_learners_below_zero(values: &Values, refusals: &mut ConfigErrors) {
    if values.int("max-learners") < 0 {
        let message = "membership: too many learner members in cluster: --max-learners is at least 0";
        refusals.add(ConfigError::error(message.to_string()));
    }
}

const PEER_FORM: &str = r#"must be "host:port""#;
const CLIENT_FORM: &str =
    r#"must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket""#;

/// The values by their types. A wrong type is our own mistake.
struct Values<'a>(&'a Given);

impl Values<'_> {
    fn text(&self, name: &str) -> String {
        match self.0.value(name) {
            FlagValue::Text(text) => text,
            other => panic!("{name} is {other:?}, not text"),
        }
    }
    fn flag(&self, name: &str) -> bool {
        match self.0.value(name) {
            FlagValue::Bool(on) => on,
            other => panic!("{name} is {other:?}, not a boolean"),
        }
    }
    fn uint(&self, name: &str) -> u64 {
        match self.0.value(name) {
            FlagValue::Uint(number) => number,
            other => panic!("{name} is {other:?}, not a number"),
        }
    }
    fn int(&self, name: &str) -> i64 {
        match self.0.value(name) {
            FlagValue::Int(number) => number,
            other => panic!("{name} is {other:?}, not a signed number"),
        }
    }
    /// etcd reads spans below zero as it reads zero.
    fn span(&self, name: &str) -> Duration {
        match self.0.value(name) {
            FlagValue::Span(ns) => Duration(u64::try_from(ns).unwrap_or(0)),
            other => panic!("{name} is {other:?}, not a span"),
        }
    }
    fn urls(&self, name: &str) -> Vec<Url> {
        match self.0.value(name) {
            FlagValue::Urls(urls) => urls,
            other => panic!("{name} is {other:?}, not URLs"),
        }
    }
    fn cuts(&self, name: &str) -> Vec<Vec<u8>> {
        match self.0.value(name) {
            FlagValue::Cuts(cuts) => cuts,
            other => panic!("{name} is {other:?}, not cuts"),
        }
    }
    fn bounded(&self, name: &str, most: usize) -> Result<usize, ConfigError> {
        let number = self.uint(name);
        match usize::try_from(number) {
            Ok(number) if number <= most => Ok(number),
            _ => Err(ConfigError::error(format!("--{name} is at most {most} in Braid (set to {number})"))),
        }
    }
    fn bindable(&self, name: &str, least: usize) -> Result<Vec<Url>, ConfigError> {
        let urls = self.urls(name);
        if urls.len() < least {
            return Err(ConfigError::error(format!("--{name} needs at least one URL")));
        }
        urls.iter().try_for_each(Url::check_bindable).map_err(ConfigError::error)?;
        Ok(urls)
    }
    fn advertised(&self, name: &str, form: &str) -> Result<Vec<Url>, ConfigError> {
        let urls = self.urls(name);
        if urls.is_empty() {
            return Err(ConfigError::error(format!("--{name} needs at least one URL")));
        }
        if let Some(url) = urls.iter().find(|url| url.host().is_empty()) {
            let list = urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
            return Err(ConfigError::error(format!(
                "--{name} {list:?} {form} (unexpected empty host ({url}))"
            )));
        }
        Ok(urls)
    }
}

/// A member that is given a name but no cluster is a cluster of its own (etcd's law).
fn initial_cluster(given: &Given, name: &str, peer_urls: &[Url]) -> Result<Vec<InitialMember>, ConfigError> {
    let text = Values(given).text("initial-cluster");
    let default = lookup("initial-cluster").expect("it was read a line above").default;
    if text == default && name != "default" {
        return Ok(vec![InitialMember { name: name.to_string(), peer_urls: peer_urls.to_vec() }]);
    }
    let members = read_initial_cluster(&text)
        .map_err(|why| ConfigError::error(format!("error setting up initial cluster: {why}")))?;
    let (count, most) = (members.len(), limits::MEMBERS_MAX);
    if count > most {
        let message = format!("--initial-cluster names {count} members, and a cluster has at most {most}");
        return Err(ConfigError::error(message));
    }
    Ok(members)
}

fn timers(values: &Values) -> Result<(Duration, Duration), ConfigError> {
    let (heartbeat, election) = (values.uint("heartbeat-interval"), values.uint("election-timeout"));
    let most = limits::ELECTION_TIMEOUT_MS_MAX;
    let comparable =
        !["heartbeat-interval", "election-timeout"].iter().any(|name| values.0.is_unreadable(name));
    let refused = if heartbeat == 0 {
        "--heartbeat-interval must be >0 (set to 0ms)".to_string()
    } else if election == 0 {
        "--election-timeout must be >0 (set to 0ms)".to_string()
    } else if comparable && heartbeat.saturating_mul(5) > election {
        format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        )
    } else if election > most {
        format!("--election-timeout[{election}ms] is too long, and should be set less than {most}ms")
    } else {
        return Ok((Duration::from_ms(heartbeat), Duration::from_ms(election)));
    };
    Err(ConfigError::error(refused))
}

/// Reads `--max-concurrent-streams`: 0 means no limit in gRPC for Go, and so the largest one here.
fn streams(values: &Values, warnings: &mut Vec<Warning>) -> u32 {
    let (asked, most) = (values.uint("max-concurrent-streams"), limits::STREAMS_MAX);
    match u32::try_from(asked) {
        Ok(streams) if (1..=most).contains(&streams) => streams,
        _ => {
            warnings.push(Warning(format!("--max-concurrent-streams={asked} is taken as {most}")));
            most
        }
    }
}

fn keepalive(values: &Values) -> Option<ServerKeepalive> {
    let (interval, timeout) = (values.span("grpc-keepalive-interval"), values.span("grpc-keepalive-timeout"));
    let on = interval > Duration(0) && timeout > Duration(0);
    on.then_some(ServerKeepalive { interval, timeout })
}

fn watch_progress(values: &Values, warnings: &mut Vec<Warning>) -> Duration {
    let least = Duration::from_ms(limits::WATCH_PROGRESS_MS_MIN);
    match values.span("watch-progress-notify-interval") {
        Duration(0) => Duration::from_ms(limits::WATCH_PROGRESS_MS_DEFAULT),
        asked if asked < least => {
            warnings.push(Warning("--watch-progress-notify-interval is raised to 100ms".to_string()));
            least
        }
        asked => asked,
    }
}

fn auto_compaction(values: &Values) -> Result<AutoCompaction, ConfigError> {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let (mode, text) = (values.text("auto-compaction-mode"), values.text("auto-compaction-retention"));
    let by_revision = match mode.as_str() {
        "periodic" => false,
        "revision" => true,
        "" => return Err(ConfigError::error("undefined auto-compaction-mode".to_string())),
        _ => return Err(ConfigError::error(format!("unknown auto-compaction-mode {mode:?}"))),
    };
    let unreadable = |why| ConfigError::error(format!("error parsing CompactionRetention: {why}"));
    let bare = if text.is_empty() { Some(0) } else { text.parse::<u32>().ok() };
    let kept = match bare {
        Some(number) if by_revision => u64::from(number),
        Some(hours) => u64::from(hours).saturating_mul(HOUR_NS),
        None if by_revision && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map_err(|_| unreadable("value out of range".to_string()))?
        }
        // etcd's law: in revision mode, a duration counts as its nanoseconds.
        None => {
            let ns = read_span(&text).map_err(unreadable)?;
            u64::try_from(ns).map_err(|_| unreadable(format!("{text:?} is below zero")))?
        }
    };
    Ok(match (kept, by_revision) {
        (0, _) => AutoCompaction::Off,
        (revisions, true) => AutoCompaction::Revisions(revisions),
        (ns, false) => AutoCompaction::Periodic(Duration(ns)),
    })
}

fn log_level(values: &Values) -> LogLevel {
    match values.text("log-level").as_str() {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "panic" => LogLevel::Panic,
        "fatal" => LogLevel::Fatal,
        other => panic!("reading let the log level {other:?} pass"),
    }
}

fn log_outputs(values: &Values) -> Result<Vec<LogOutput>, ConfigError> {
    let text = values.text("log-outputs");
    let names: BTreeSet<&str> = text.split(',').map(str::trim).collect();
    if names.contains("default") && names.len() > 1 {
        return Err(ConfigError::error(format!("multi logoutput for {text:?} is not supported yet")));
    }
    let output = |name: &str| match name {
        "" => Err(ConfigError::error("--log-outputs names an empty output".to_string())),
        "default" | "stderr" => Ok(LogOutput::Stderr),
        "stdout" => Ok(LogOutput::Stdout),
        "systemd/journal" => {
            Err(ConfigError::error("--log-outputs=systemd/journal is not built yet".to_string()))
        }
        path => Ok(LogOutput::File(PathBuf::from(path))),
    };
    names.into_iter().map(output).collect()
}
