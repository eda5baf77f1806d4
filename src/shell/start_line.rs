//! The line that a start begins with: which program it is, and what it was asked to be.

use super::line::level_name;
use crate::config::{AutoCompaction, ClusterState, Config, LogFormat, Url};
use crate::io::{Fields, Value};
use crate::types::Duration;
use crate::wire::SERVER_VERSION;

/// Versions and flags in effect, under etcd's names where it has them.
pub fn fields(config: &Config) -> Fields {
    let mut fields = Fields::from([
        ("braid-version", env!("CARGO_PKG_VERSION").into()),
        ("etcd-version", SERVER_VERSION.into()),
        ("os", std::env::consts::OS.into()),
        ("arch", std::env::consts::ARCH.into()),
        ("reactors", count(config.reactors)),
        ("shards", count(config.shards)),
        ("name", config.name.clone().into()),
        ("data-dir", config.data_dir.display().to_string().into()),
        ("heartbeat-interval", config.heartbeat_interval.into()),
        ("election-timeout", config.election_timeout.into()),
        ("initial-advertise-peer-urls", urls(&config.initial_advertise_peer_urls)),
        ("listen-peer-urls", urls(&config.listen_peer_urls)),
        ("advertise-client-urls", urls(&config.advertise_client_urls)),
        ("listen-client-urls", urls(&config.listen_client_urls)),
        ("listen-metrics-urls", urls(&config.listen_metrics_urls)),
        ("initial-cluster", initial_cluster(config).into()),
        ("initial-cluster-state", state(config.initial_cluster_state).into()),
        ("initial-cluster-token", config.initial_cluster_token.clone().into()),
        ("force-new-cluster", config.force_new_cluster.into()),
        ("quota-backend-bytes", config.quota_bytes.map_or(Value::Int(-1), Value::Uint)),
        ("max-request-bytes", count(config.request_bytes_max)),
        ("max-txn-ops", count(config.txn_ops_max)),
        ("max-concurrent-streams", u64::from(config.streams_max).into()),
    ]);
    let (mode, retention) = match config.auto_compaction {
        AutoCompaction::Off => ("periodic", Duration(0).into()),
        AutoCompaction::Periodic(period) => ("periodic", period.into()),
        AutoCompaction::Revisions(kept) => ("revision", kept.into()),
    };
    let keepalive =
        config.keepalive.map_or((Duration(0), Duration(0)), |pings| (pings.interval, pings.timeout));
    fields.0.extend([
        ("auto-compaction-mode", mode.into()),
        ("auto-compaction-retention", retention),
        ("grpc-keepalive-min-time", config.keepalive_min_time.into()),
        ("grpc-keepalive-interval", keepalive.0.into()),
        ("grpc-keepalive-timeout", keepalive.1.into()),
        ("watch-progress-notify-interval", config.watch_progress_interval.into()),
        ("metrics", if config.metrics_extensive { "extensive" } else { "basic" }.into()),
        ("warning-apply-duration", config.warning_apply.into()),
        ("warning-unary-request-duration", config.warning_unary.into()),
        ("socket-reuse-port", config.socket_reuse_port.into()),
        ("log-level", level_name(config.log_level).into()),
        ("log-format", if config.log_format == LogFormat::Json { "json" } else { "console" }.into()),
        ("flags-given", config.given.iter().map(|flag| flag.to_string()).collect::<Vec<_>>().into()),
    ]);
    fields
}

fn count(number: usize) -> Value {
    Value::Uint(number as u64)
}

fn urls(urls: &[Url]) -> Value {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().into()
}

/// The initial cluster as the flag has it. Only a bootstrap asks what is wrong with it.
fn initial_cluster(config: &Config) -> String {
    let members = config.initial_cluster.iter().flatten();
    let urls = members.flat_map(|member| member.peer_urls.iter().map(|url| format!("{}={url}", member.name)));
    urls.collect::<Vec<_>>().join(",")
}

fn state(state: ClusterState) -> &'static str {
    match state {
        ClusterState::New => "new",
        ClusterState::Existing => "existing",
    }
}
