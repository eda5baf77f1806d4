//! `/metrics`: etcd's names for all that exists here, and Braid's own for reactors and shards.
//!
//! Names, types and labels are etcd's exactly (`etcd-surface.md` section 6), even where they break rules of
//! later formats: gauges that end in `_total`, counters that do not. So every sample is handed to the
//! encoder as a plain number, which adds no suffix, under a descriptor with its true type; what comes out
//! is Prometheus' text format 0.0.4.
//!
//! Not here: what has no meaning in this server (Go's runtime, bbolt's rebalancing and read transactions,
//! the v2 store, auth, snapshots sent to peers), durations of evaluation, which takes no time in a
//! reactor's time, and the wall time of the last compaction, which nobody inside knows.

#[cfg(test)]
mod tests;

use super::{Reactor, Stage};
use crate::api::{Alarm, AlarmType, Code};
use crate::io::{Census, ProcessFigures};
use crate::stdx::Histogram;
use crate::types::{MemberId, ReactorId, Revision};
use crate::wire::http1::{ContentType, Response};
use crate::wire::{CLUSTER_VERSION, Method, SERVER_VERSION};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::MetricType::{Counter, Gauge};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;

/// All that the page shows.
#[derive(Debug, Default)]
struct Figures {
    member: MemberId,
    serving: bool,
    /// Epochs that have served since the start.
    epochs: u64,
    settled: Revision,
    compacted: Revision,
    quota_bytes: u64,
    alarms: Vec<Alarm>,
    rows: BTreeMap<ReactorId, Census>,
    sum: Census,
}

impl Reactor {
    pub(super) fn metrics_page(&self, rows: BTreeMap<ReactorId, Census>) -> Response {
        let mut sum = Census::default();
        rows.values().for_each(|row| sum.add(row));
        let figures = Figures {
            member: self.settings.member,
            serving: self.stage == Stage::Serving,
            epochs: self.epochs_served,
            settled: self.sequencer.settled(),
            compacted: self.control.compacted(),
            quota_bytes: self.settings.quota_shown().unsigned_abs(),
            alarms: self.control.alarms(AlarmType::None),
            rows,
            sum,
        };
        Response::ok(ContentType::Metrics, render(figures).into_bytes())
    }
}

fn render(figures: Figures) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    prometheus_client::encoding::text::encode_registry(&mut text, &registry)
        .expect("writing to a string does not fail");
    text
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        for (name, kind, help, value) in PLAIN {
            page.plain(name, *kind, help, value(self))?;
        }
        for (name, help, divisor, histogram) in HISTOGRAMS {
            page.histogram(name, help, *divisor, histogram(self))?;
        }
        self.encode_identity(&mut page)?;
        self.encode_grpc(&mut page)?;
        page.peers()?;
        for (name, kind, help, value) in OF_REACTORS {
            let rows = self.rows.iter().map(|(id, row)| ([("reactor", id.0.to_string())], value(row)));
            page.labelled(name, *kind, help, rows)?;
        }
        for (name, kind, help, value) in OF_SHARDS {
            let rows = self.rows.iter().flat_map(|(id, row)| {
                row.shards.iter().map(|shard| {
                    let labels = [("reactor", id.0.to_string()), ("shard", shard.shard.0.to_string())];
                    (labels, value(shard))
                })
            });
            page.labelled(name, *kind, help, rows)?;
        }
        match &self.sum.process {
            Some(process) => page.process(process),
            None => Ok(()),
        }
    }
}

/// Name, type, help, and where the value is.
type Plain<T> = (&'static str, MetricType, &'static str, fn(&T) -> u64);
/// Name, help, nanoseconds in the unit of its name, and where it is.
type Timed = (&'static str, &'static str, f64, fn(&Figures) -> &Histogram);

#[rustfmt::skip]
const PLAIN: &[Plain<Figures>] = &[
    ("etcd_server_has_leader", Gauge, "Whether an epoch serves.", |f| f.serving.into()),
    ("etcd_server_is_leader", Gauge, "Whether this member leads.", |f| f.serving.into()),
    ("etcd_server_is_learner", Gauge, "Whether this member is a learner.", |_| 0),
    ("etcd_server_leader_changes_seen_total", Counter, "Epochs that have served.", |f| f.epochs),
    ("etcd_server_proposals_committed_total", Gauge, "Sum of all groups' commit indexes.", |f| f.sum.raft_index),
    ("etcd_server_proposals_applied_total", Gauge, "Sum of all groups' applied indexes.", |f| f.sum.raft_applied_index),
    ("etcd_server_proposals_pending", Gauge, "Requests under way.", |f| f.sum.counters.proposals_pending),
    ("etcd_server_proposals_failed_total", Counter, "Requests without an answer in time.", |f| f.sum.counters.proposals_failed),
    ("etcd_server_quota_backend_bytes", Gauge, "Quota of the data.", |f| f.quota_bytes),
    ("etcd_server_health_success", Counter, "Answers of /health that were healthy.", |f| f.sum.counters.health_successes),
    ("etcd_server_health_failures", Counter, "Answers of /health that were not.", |f| f.sum.counters.health_failures),
    ("etcd_mvcc_db_total_size_in_bytes", Gauge, "Data, history included.", |f| f.sum.sizes.bytes_total),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", Gauge, "Data without history.", |f| f.sum.sizes.bytes_live),
    ("etcd_mvcc_db_open_read_transactions", Gauge, "Ranges read in slices now.", |f| f.sum.counters.ranges_under_way),
    ("etcd_mvcc_put_total", Counter, "Puts.", |f| f.sum.counters.puts),
    ("etcd_mvcc_range_total", Counter, "Ranges.", |f| f.sum.counters.ranges),
    ("etcd_mvcc_delete_total", Counter, "Deletes.", |f| f.sum.counters.deletes),
    ("etcd_mvcc_txn_total", Counter, "Transactions of several operations.", |f| f.sum.counters.txns),
    ("etcd_debugging_mvcc_current_revision", Gauge, "Revision that is settled.", |f| f.settled.0),
    ("etcd_debugging_mvcc_compact_revision", Gauge, "Revision of the last compaction.", |f| f.compacted.0),
    ("etcd_debugging_mvcc_keys_total", Gauge, "Live keys.", |f| f.sum.sizes.keys),
    ("etcd_debugging_mvcc_total_put_size_in_bytes", Gauge, "Bytes of keys and values put.", |f| f.sum.counters.put_bytes),
    ("etcd_debugging_mvcc_watch_stream_total", Gauge, "Watch streams.", |f| f.sum.counters.watch_streams),
    ("etcd_debugging_mvcc_watcher_total", Gauge, "Watchers.", |f| f.sum.counters.watchers),
    ("etcd_debugging_mvcc_slow_watcher_total", Gauge, "Watchers that read history.", |f| f.sum.counters.watchers_behind),
    ("etcd_debugging_mvcc_events_total", Counter, "Events sent to watchers.", |f| f.sum.counters.events_sent),
    ("etcd_debugging_mvcc_pending_events_total", Gauge, "Events that wait for their clients.", |f| f.sum.counters.events_pending),
    ("etcd_debugging_mvcc_db_compaction_keys_total", Counter, "Versions dropped by compaction.", |f| f.sum.counters.versions_compacted),
    ("etcd_debugging_lease_granted_total", Counter, "Leases granted.", |f| f.sum.counters.leases_granted),
    ("etcd_debugging_lease_revoked_total", Counter, "Leases ended.", |f| f.sum.counters.leases_revoked),
    ("etcd_debugging_lease_renewed_total", Counter, "Leases renewed.", |f| f.sum.counters.leases_renewed),
    ("etcd_debugging_server_lease_expired_total", Counter, "Leases expired.", |f| f.sum.counters.leases_expired),
    ("etcd_disk_wal_write_bytes_total", Gauge, "Bytes written to the logs.", |f| f.sum.counters.log_bytes),
    ("etcd_disk_defrag_inflight", Gauge, "Whether a defragmentation is under way.", |f| (f.sum.counters.defragmenting > 0).into()),
    ("etcd_network_client_grpc_received_bytes_total", Counter, "Bytes from clients.", |f| f.sum.counters.front.received_bytes),
    ("etcd_network_client_grpc_sent_bytes_total", Counter, "Bytes to clients.", |f| f.sum.counters.front.sent_bytes),
];

const SECONDS: f64 = 1e9;
const MILLISECONDS: f64 = 1e6;

/// A log write is durable when it is done, so etcd's write and its sync are one here.
#[rustfmt::skip]
const HISTOGRAMS: &[Timed] = &[
    ("etcd_disk_wal_fsync_duration_seconds", "Durable writes of the logs.", SECONDS, |f| &f.sum.counters.times.log_writes),
    ("etcd_disk_wal_write_duration_seconds", "Durable writes of the logs.", SECONDS, |f| &f.sum.counters.times.log_writes),
    ("etcd_disk_backend_commit_duration_seconds", "Steps of writing a checkpoint.", SECONDS, |f| &f.sum.counters.times.checkpoint_steps),
    ("etcd_disk_backend_defrag_duration_seconds", "Defragmentations.", SECONDS, |f| &f.sum.counters.times.defragmentations),
    ("etcd_mvcc_hash_duration_seconds", "Hashes of everything.", SECONDS, |f| &f.sum.counters.times.hashes),
    ("etcd_mvcc_hash_rev_duration_seconds", "Hashes at a revision.", SECONDS, |f| &f.sum.counters.times.hashes_at),
    ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Compactions, a reactor.", MILLISECONDS, |f| &f.sum.counters.times.compactions),
    ("etcd_debugging_lease_ttl_total", "Times to live granted, in seconds.", 1.0, |f| &f.sum.counters.times.lease_ttls),
];

#[rustfmt::skip]
const OF_REACTORS: &[Plain<Census>] = &[
    ("braid_reactor_turns_total", Counter, "Turns.", |r| r.counters.turns),
    ("braid_reactor_connections", Gauge, "Connections of clients.", |r| r.counters.connections),
    ("braid_reactor_calls", Gauge, "Requests under way.", |r| r.counters.proposals_pending),
    ("braid_reactor_watchers", Gauge, "Watchers of its clients.", |r| r.counters.watchers),
    ("braid_log_writes_total", Counter, "Writes of the reactor's log.", |r| r.counters.log_writes),
    ("braid_log_write_bytes_total", Counter, "Bytes written to it.", |r| r.counters.log_bytes),
    ("braid_checkpoints_total", Counter, "Checkpoints written.", |r| r.counters.checkpoints),
];

#[rustfmt::skip]
const OF_SHARDS: &[Plain<crate::io::ShardFigures>] = &[
    ("braid_shard_keys", Gauge, "Live keys.", |s| s.sizes.keys),
    ("braid_shard_versions", Gauge, "Versions, history included.", |s| s.sizes.versions),
    ("braid_shard_bytes", Gauge, "Data, history included.", |s| s.sizes.bytes_total),
    ("braid_shard_in_use_bytes", Gauge, "Data without history.", |s| s.sizes.bytes_live),
    ("braid_shard_raft_committed_index", Gauge, "Commit index of its group.", |s| s.committed.0),
    ("braid_shard_raft_applied_index", Gauge, "Applied index of its group.", |s| s.applied.0),
    ("braid_shard_log_held_bytes", Gauge, "Log since the oldest entry kept for it.", |s| s.log_bytes),
];

/// etcd's figures of each peer. A lone member has none: the names stand without samples.
const OF_PEERS: &[(&str, MetricType, &str)] = &[
    ("etcd_network_peer_received_bytes_total", Counter, "Bytes from a peer."),
    ("etcd_network_peer_sent_bytes_total", Counter, "Bytes to a peer."),
    ("etcd_network_peer_sent_failures_total", Counter, "Sends to a peer that failed."),
    ("etcd_network_peer_round_trip_time_seconds", MetricType::Histogram, "Round trips to a peer."),
];

impl Figures {
    fn encode_identity(&self, page: &mut Page<'_>) -> fmt::Result {
        let id = format!("{:x}", self.member.0);
        let rows = [([("server_id", id.clone())], 1)];
        page.labelled("etcd_server_id", Gauge, "Identity of this member.", rows)?;
        let rows = [([("server_version", SERVER_VERSION.to_owned())], 1)];
        page.labelled("etcd_server_version", Gauge, "Version of etcd this server stands for.", rows)?;
        let rows = [([("cluster_version", short_version(CLUSTER_VERSION))], 1)];
        page.labelled("etcd_cluster_version", Gauge, "Version of the cluster.", rows)?;
        let alarms = self.alarms.iter().map(|alarm| {
            let kind = match alarm.alarm {
                AlarmType::NoSpace => "NOSPACE".to_owned(),
                AlarmType::Corrupt => "CORRUPT".to_owned(),
                AlarmType::None => "NONE".to_owned(),
                AlarmType::Unknown(number) => number.to_string(),
            };
            ([("server_id", format!("{:x}", alarm.member.0)), ("alarm_type", kind)], 1)
        });
        page.labelled("etcd_debugging_server_alarms", Gauge, "Alarms that stand.", alarms)
    }

    /// Every method from the start, so that a rate over the first call is right.
    fn encode_grpc(&self, page: &mut Page<'_>) -> fmt::Result {
        let front = &self.sum.counters.front;
        let methods = || Method::ALL.iter().copied();
        let rows = methods().map(|method| (labels(method), front.of(method).started));
        page.labelled("grpc_server_started_total", Counter, "Calls begun.", rows)?;
        let rows = methods().map(|method| (labels(method), front.of(method).messages_received));
        page.labelled("grpc_server_msg_received_total", Counter, "Messages from clients.", rows)?;
        let rows = methods().map(|method| (labels(method), front.of(method).messages_sent));
        page.labelled("grpc_server_msg_sent_total", Counter, "Messages to clients.", rows)?;
        let rows = methods().flat_map(|method| {
            let handled = front.of(method).handled;
            Code::ALL.into_iter().zip(handled).map(move |(code, count)| {
                let [method, service, kind] = labels(method);
                ([("grpc_code", code_name(code)), method, service, kind], count)
            })
        });
        page.labelled("grpc_server_handled_total", Counter, "Calls answered, by code.", rows)
    }
}

type Label = (&'static str, String);

fn labels(method: Method) -> [Label; 3] {
    [
        ("grpc_method", method.name().to_owned()),
        ("grpc_service", method.service().to_owned()),
        ("grpc_type", method.kind().name().to_owned()),
    ]
}

/// As grpc-go names it.
fn code_name(code: Code) -> String {
    if code == Code::Ok { "OK".to_owned() } else { format!("{code:?}") }
}

/// Major and minor, as etcd labels the version of a cluster.
fn short_version(version: &str) -> String {
    version.rsplit_once('.').map_or(version, |(short, _)| short).to_owned()
}

/// The text being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn plain(&mut self, name: &str, kind: MetricType, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, kind)?.encode_gauge(&value)
    }

    fn number(&mut self, name: &str, kind: MetricType, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, kind)?.encode_gauge(&value)
    }

    fn labelled<const N: usize>(
        &mut self,
        name: &str,
        kind: MetricType,
        help: &str,
        rows: impl IntoIterator<Item = ([Label; N], u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, divisor: f64, of: &Histogram) -> fmt::Result {
        let buckets = of
            .buckets()
            .map(|(bound, count)| (bound.map_or(f64::INFINITY, |bound| bound as f64 / divisor), count));
        let buckets: Vec<(f64, u64)> = buckets.collect();
        let sum = of.sum() as f64 / divisor;
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, of.count(), &buckets, None)
    }

    fn peers(&mut self) -> fmt::Result {
        for (name, kind, help) in OF_PEERS {
            self.0.encode_descriptor(name, help, None, *kind)?;
        }
        Ok(())
    }

    fn process(&mut self, figures: &ProcessFigures) -> fmt::Result {
        let cpu = figures.cpu.0 as f64 / SECONDS;
        self.number("process_cpu_seconds_total", Counter, "Processor time used.", cpu)?;
        self.plain("process_resident_memory_bytes", Gauge, "Resident memory.", figures.resident_bytes)?;
        self.plain("process_virtual_memory_bytes", Gauge, "Virtual memory.", figures.virtual_bytes)?;
        self.plain("process_start_time_seconds", Gauge, "When it started.", figures.started_secs)?;
        self.plain("process_open_fds", Gauge, "Open file descriptors.", figures.open_fds)?;
        self.plain("process_max_fds", Gauge, "Most file descriptors.", figures.fds_max)?;
        self.plain("os_fd_used", Gauge, "Open file descriptors.", figures.open_fds)?;
        self.plain("os_fd_limit", Gauge, "Most file descriptors.", figures.fds_max)
    }
}
