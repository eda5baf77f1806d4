//! `/metrics`: etcd's names for all that exists here, and Braid's own for reactors and shards.
//!
//! Names, types and labels are etcd's exactly (of 3.7, as its own `/metrics` shows them), even where they break rules of
//! later formats: gauges that end in `_total`, counters that do not. So every sample is handed to the
//! encoder as a plain number, which adds no suffix, under a descriptor with its true type; what comes out
//! is Prometheus' text format 0.0.4.
//!
//! Not here, of what etcd 3.7 shows with its default settings:
//! - the pauses of `etcd_debugging_mvcc_{db,index}_compaction_pause_*` and the durations of
//!   `etcd_debugging_server_watch_send_loop_*`: they are parts of one turn, within which no time passes.
//!   (A stalled turn is logged.)
//! - `etcd_debugging_disk_backend_commit_{rebalance,spill}_*`: bbolt's own.
//! - `etcd_debugging_store_*`: the store of etcd's version 2. `etcd_grpc_proxy_*`: the proxy.
//! - `etcd_snap_*`, `etcd_debugging_snap_save_marshalling_duration_seconds`,
//!   `etcd_disk_backend_snapshot_duration_seconds`: snapshots.
//! - `etcd_server_go_version`, `go_*`: Go's runtime.

#[cfg(test)]
mod tests;

use super::Turn;
use super::door::is_learner;
use crate::api::{Alarm, AlarmType, Code};
use crate::io::{ApplyKind, Census, PeerFigures, ProcessFigures};
use crate::stdx::Histogram;
use crate::types::{Duration, MemberId, ReactorId, Revision, Time};
use crate::wire::health::{Check, Probe};
use crate::wire::http1::{ContentType, Http1Response};
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
    leads: bool,
    knows_leader: bool,
    is_learner: bool,
    leader_changes: u64,
    settled: Revision,
    compacted: Revision,
    quota_bytes: u64,
    alarms: Vec<Alarm>,
    rows: BTreeMap<ReactorId, Census>,
    sum: Census,
}

pub fn page(turn: &Turn, rows: BTreeMap<ReactorId, Census>) -> Http1Response {
    let mut sum = Census::default();
    rows.values().for_each(|row| sum.add(row));
    let figures = Figures {
        member: turn.settings.member,
        leads: turn.epoch_state.leads(),
        knows_leader: turn.epoch_state.knows_leader(),
        is_learner: is_learner(turn),
        leader_changes: turn.epoch_state.leader_changes(),
        settled: turn.shown(),
        compacted: *turn.compacted,
        quota_bytes: turn.settings.quota_shown().unsigned_abs(),
        alarms: turn.control.alarms(AlarmType::None),
        rows,
        sum,
    };
    Http1Response::ok(ContentType::Metrics, render(figures).into_bytes())
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
        let mut page = MetricsText(encoder);
        for (name, kind, help, value) in PLAIN {
            page.plain(name, *kind, help, value(self))?;
        }
        for (name, kind, help) in NOTHING_YET {
            page.plain(name, *kind, help, 0)?;
        }
        for (name, help, divisor, histogram) in HISTOGRAMS {
            page.histogram(name, help, *divisor, histogram(self))?;
        }
        self.encode_identity(&mut page)?;
        self.encode_grpc(&mut page)?;
        self.encode_handling(&mut page)?;
        self.encode_requests(&mut page)?;
        self.encode_applies(&mut page)?;
        self.encode_probes(&mut page)?;
        self.encode_peers(&mut page)?;
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

/// A metric that is one number: its name, type and help, and where the value is.
type Plain<T> = (&'static str, MetricType, &'static str, fn(&T) -> u64);
/// A histogram of durations: its name and help, the nanoseconds in the unit of its name, and where it is.
type Timed = (&'static str, &'static str, f64, fn(&Figures) -> &Histogram);

#[rustfmt::skip]
const PLAIN: &[Plain<Figures>] = &[
    ("etcd_server_has_leader", Gauge, "Whether this member knows who leads.", |f| f.knows_leader.into()),
    ("etcd_server_is_leader", Gauge, "Whether this member leads.", |f| f.leads.into()),
    ("etcd_server_is_learner", Gauge, "Whether this member is a learner.", |f| f.is_learner.into()),
    ("etcd_server_leader_changes_seen_total", Counter, "How often it was found who leads.", |f| f.leader_changes),
    ("etcd_server_proposals_committed_total", Gauge, "Sum of all groups' commit indexes.", |f| f.sum.raft_index),
    ("etcd_server_proposals_applied_total", Gauge, "Sum of all groups' applied indexes.", |f| f.sum.raft_applied_index),
    ("etcd_server_proposals_pending", Gauge, "Writes under way.", |f| f.sum.counters.proposals_pending),
    ("etcd_server_proposals_failed_total", Counter, "Writes without an answer in time.", |f| f.sum.counters.proposals_failed),
    ("etcd_server_slow_apply_total", Counter, "Requests that took long to apply.", |f| f.sum.counters.slow_applies),
    ("etcd_debugging_auth_revision", Gauge, "Revision of users and roles, of which there are none.", |_| 1),
    ("etcd_server_quota_backend_bytes", Gauge, "Quota of the data.", |f| f.quota_bytes),
    ("etcd_server_health_success", Counter, "Answers of /health that were healthy.", |f| f.sum.counters.health_successes),
    ("etcd_server_health_failures", Counter, "Answers of /health that were not.", |f| f.sum.counters.health_failures),
    ("etcd_server_slow_read_indexes_total", Counter, "Reads for which the leader was not heard of in time.", |f| f.sum.counters.rounds_late),
    ("etcd_server_snapshot_apply_in_progress_total", Gauge, "States of other members that are being taken.", |f| f.sum.counters.states_on_their_way),
    ("etcd_server_read_indexes_failed_total", Counter, "Ranges that a takeover kept from an answer.", |f| f.sum.counters.ranges_failed),
    ("etcd_mvcc_db_total_size_in_bytes", Gauge, "Data, with what a defragmentation would free.", |f| f.sum.sizes.db_bytes()),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", Gauge, "Data that is not compacted.", |f| f.sum.sizes.db_bytes_in_use()),
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
    ("etcd_debugging_mvcc_db_compaction_last", Gauge, "When the last compaction was done, in seconds since 1970; 0 for none since the start.", Figures::compacted_secs),
    ("etcd_debugging_lease_granted_total", Counter, "Leases granted.", |f| f.sum.counters.leases_granted),
    ("etcd_debugging_lease_revoked_total", Counter, "Leases ended.", |f| f.sum.counters.leases_revoked),
    ("etcd_debugging_lease_renewed_total", Counter, "Leases renewed.", |f| f.sum.counters.leases_renewed),
    ("etcd_debugging_server_lease_expired_total", Counter, "Leases expired.", |f| f.sum.counters.leases_expired),
    ("etcd_disk_wal_write_bytes_total", Gauge, "Bytes written to the logs.", |f| f.sum.counters.log_bytes),
    ("etcd_disk_defrag_inflight", Gauge, "Whether a defragmentation is under way.", |f| (f.sum.counters.defragmenting > 0).into()),
    ("etcd_network_client_grpc_received_bytes_total", Counter, "Bytes from clients.", |f| f.sum.counters.front.received_bytes),
    ("etcd_network_client_grpc_sent_bytes_total", Counter, "Bytes to clients.", |f| f.sum.counters.front.sent_bytes),
    ("promhttp_metric_handler_requests_in_flight", Gauge, "This page.", |_| 1),
];

const SECONDS: f64 = 1e9;
const MILLISECONDS: f64 = 1e6;

/// Metrics of what a lone member never does.
const NOTHING_YET: &[(&str, MetricType, &str)] = &[
    ("etcd_server_heartbeat_send_failures_total", Counter, "Heartbeats that could not be sent in time."),
    ("etcd_server_learner_promote_successes", Counter, "Learners promoted."),
];

/// etcd's feature gates as they are in effect here: name, stage, and whether it is on.
const FEATURES: &[(&str, &str, bool)] = &[
    ("AllAlpha", "ALPHA", false),
    ("AllBeta", "BETA", false),
    ("CompactHashCheck", "ALPHA", false),
    ("FastLeaseKeepAlive", "BETA", true),
    ("InitialCorruptCheck", "ALPHA", false),
    ("LeaseCheckpoint", "ALPHA", false),
    ("LeaseCheckpointPersist", "ALPHA", false),
    ("PriorityRequest", "ALPHA", false),
    ("SetMemberLocalAddr", "ALPHA", false),
    ("StopGRPCServiceOnDefrag", "ALPHA", false),
    ("TxnModeWriteWithSharedBuffer", "BETA", true),
];

/// A log write is durable when it is done, so etcd's write and its sync are one here.
#[rustfmt::skip]
const HISTOGRAMS: &[Timed] = &[
    ("etcd_disk_wal_fsync_duration_seconds", "Durable writes of the logs.", SECONDS, |f| &f.sum.counters.times.log_writes),
    ("etcd_disk_wal_write_duration_seconds", "Durable writes of the logs.", SECONDS, |f| &f.sum.counters.times.log_writes),
    ("etcd_disk_backend_commit_duration_seconds", "Steps of writing a checkpoint.", SECONDS, |f| &f.sum.counters.times.checkpoint_steps),
    ("etcd_debugging_disk_backend_commit_write_duration_seconds", "Steps of writing a checkpoint.", SECONDS, |f| &f.sum.counters.times.checkpoint_steps),
    ("etcd_debugging_snap_save_total_duration_seconds", "Checkpoints.", SECONDS, |f| &f.sum.counters.times.checkpoints),
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
    ("braid_reactor_calls", Gauge, "Requests under way.", |r| r.counters.calls),
    ("braid_reactor_watchers", Gauge, "Watchers of its clients.", |r| r.counters.watchers),
    ("braid_log_writes_total", Counter, "Writes of the reactor's log.", |r| r.counters.log_writes),
    ("braid_log_write_bytes_total", Counter, "Bytes written to it.", |r| r.counters.log_bytes),
    ("braid_checkpoints_total", Counter, "Checkpoints written.", |r| r.counters.checkpoints),
];

#[rustfmt::skip]
const OF_SHARDS: &[Plain<crate::io::ShardFigures>] = &[
    ("braid_shard_keys", Gauge, "Live keys.", |s| s.sizes.keys),
    ("braid_shard_versions", Gauge, "Versions, history included.", |s| s.sizes.versions),
    ("braid_shard_bytes", Gauge, "Data that is not compacted.", |s| s.sizes.bytes_total),
    ("braid_shard_live_bytes", Gauge, "Newest versions of live keys.", |s| s.sizes.bytes_live),
    ("braid_shard_reclaimable_bytes", Gauge, "Compacted data that its checkpoint still holds.", |s| s.sizes.bytes_reclaimable),
    ("braid_shard_raft_committed_index", Gauge, "Commit index of its group.", |s| s.committed.0),
    ("braid_shard_raft_applied_index", Gauge, "Applied index of its group.", |s| s.applied.0),
    ("braid_shard_log_held_bytes", Gauge, "Log since the oldest entry kept for it.", |s| s.log_bytes),
];

/// A metric that is one number of each peer: and the label that names the peer.
type OfPeer = (&'static str, MetricType, &'static str, &'static str, fn(&PeerFigures) -> u64);

/// etcd's figures of each peer. A lone member has none: the names stand without samples.
#[rustfmt::skip]
const OF_PEERS: &[OfPeer] = &[
    ("etcd_network_active_peers", Gauge, "Whether a peer is connected.", "Remote", |p| p.is_active.into()),
    ("etcd_network_disconnected_peers_total", Counter, "Connections lost.", "Remote", |p| p.disconnects),
    ("etcd_network_peer_received_bytes_total", Counter, "Bytes from a peer.", "From", |p| p.received_bytes),
    ("etcd_network_peer_received_failures_total", Counter, "Connections ended over what came.", "From", |p| p.receive_failures),
    ("etcd_network_peer_sent_bytes_total", Counter, "Bytes to a peer.", "To", |p| p.sent_bytes),
    ("etcd_network_peer_sent_failures_total", Counter, "Sends to a peer that failed.", "To", |p| p.send_failures),
];

impl Figures {
    /// The reactors' time begins with the process.
    fn compacted_secs(&self) -> u64 {
        match &self.sum.process {
            Some(process) if self.sum.compacted_at > Time(0) => {
                let since_start = self.sum.compacted_at.since(Time(0)).0 / Duration::from_secs(1).0;
                process.started_secs + since_start
            }
            _ => 0,
        }
    }

    fn encode_requests(&self, page: &mut MetricsText<'_>) -> fmt::Result {
        let front = &self.sum.counters.front;
        let rows = front.versions().flat_map(|(version, counts)| {
            let row = |kind: &str, count| {
                ([("type", kind.to_owned()), ("client_api_version", version.to_owned())], count)
            };
            [row("unary", counts[0]), row("stream", counts[1])]
        });
        page.labelled("etcd_server_client_requests_total", Counter, "Calls by the client's version.", rows)?;
        let name = "etcd_server_request_duration_seconds";
        let mut durations = page.0.encode_descriptor(name, "Requests.", None, MetricType::Histogram)?;
        for (kind, success, histogram) in front.durations() {
            let labels = [("type", kind.to_owned()), ("success", success.to_string())];
            let (sum, buckets) = in_unit(histogram, SECONDS);
            let mut row = durations.encode_family(&labels)?;
            row.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)?;
        }
        Ok(())
    }

    /// Shows how long it took until a request was evaluated, and a range read.
    fn encode_applies(&self, page: &mut MetricsText<'_>) -> fmt::Result {
        let applies = || self.sum.counters.applies.seen();
        let name = "etcd_server_apply_duration_seconds";
        let mut family = page.0.encode_descriptor(name, "Evaluations.", None, MetricType::Histogram)?;
        for (kind, success, of) in applies().filter(|(kind, ..)| *kind != ApplyKind::Range) {
            let (version, op) = (("version", "v3".to_owned()), ("op", kind.name().to_owned()));
            let labels = [version, op, ("success", success.to_string())];
            let (sum, buckets) = in_unit(of, SECONDS);
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, of.count(), &buckets, None)?;
        }
        let name = "etcd_server_range_duration_seconds";
        let mut family = page.0.encode_descriptor(name, "Ranges.", None, MetricType::Histogram)?;
        for (_, success, of) in applies().filter(|(kind, ..)| *kind == ApplyKind::Range) {
            let labels = [("success", success.to_string())];
            let (sum, buckets) = in_unit(of, SECONDS);
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, of.count(), &buckets, None)?;
        }
        Ok(())
    }

    /// Shows how long calls took, where extensive metrics are asked for.
    fn encode_handling(&self, page: &mut MetricsText<'_>) -> fmt::Result {
        let mut handling = self.sum.counters.front.handling().peekable();
        if handling.peek().is_none() {
            return Ok(());
        }
        let name = "grpc_server_handling_seconds";
        let mut family = page.0.encode_descriptor(name, "Calls.", None, MetricType::Histogram)?;
        for (method, of) in handling {
            let (sum, buckets) = in_unit(of, SECONDS);
            let labels = labels(method);
            let mut row = family.encode_family(&labels)?;
            row.encode_histogram::<NoLabelSet>(sum, of.count(), &buckets, None)?;
        }
        Ok(())
    }

    /// Shows what is asked over HTTP/1.
    fn encode_probes(&self, page: &mut MetricsText<'_>) -> fmt::Result {
        let counters = &self.sum.counters;
        let labels = |probe: Probe, check: Check| {
            [("type", probe.name().to_owned()), ("name", check.name().to_owned())]
        };
        let made = || counters.checks.made();
        let rows = made().map(|(probe, check, of)| (labels(probe, check), of.passes.into()));
        page.labelled("etcd_server_healthcheck", Gauge, "Whether a check passed last.", rows)?;
        let rows = made().flat_map(|(probe, check, of)| {
            let row = |status: &str, count: u64| {
                let [probe, check] = labels(probe, check);
                (count > 0).then(|| ([probe, check, ("status", status.to_owned())], count))
            };
            [row("success", of.passed), row("error", of.failed)].into_iter().flatten()
        });
        page.labelled("etcd_server_healthchecks_total", Counter, "Checks made.", rows)?;
        let codes = [("200", counters.scrapes), ("500", 0), ("503", counters.scrapes_failed)];
        let rows = codes.map(|(code, count)| ([("code", code.to_owned())], count));
        page.labelled("promhttp_metric_handler_requests_total", Counter, "Pages like this.", rows)
    }

    fn encode_peers(&self, page: &mut MetricsText<'_>) -> fmt::Result {
        for (name, kind, help, label, value) in OF_PEERS {
            let peer = |of: &MemberId| (*label, of.hex());
            let rows = self.sum.peers.iter().map(|(of, figures)| (of, value(figures)));
            match *label {
                "Remote" => {
                    let labels = |of| [("Local", self.member.hex()), peer(of)];
                    page.labelled(name, *kind, help, rows.map(|(of, value)| (labels(of), value)))?;
                }
                _ => page.labelled(name, *kind, help, rows.map(|(of, value)| ([peer(of)], value)))?,
            }
        }
        let name = "etcd_network_peer_round_trip_time_seconds";
        let mut trips =
            page.0.encode_descriptor(name, "Round trips to a peer.", None, MetricType::Histogram)?;
        for (of, figures) in &self.sum.peers {
            let (sum, buckets) = in_unit(&figures.round_trips, SECONDS);
            let to = [("To", of.hex())];
            let mut row = trips.encode_family(&to)?;
            row.encode_histogram::<NoLabelSet>(sum, figures.round_trips.count(), &buckets, None)?;
        }
        Ok(())
    }

    fn encode_identity(&self, page: &mut MetricsText<'_>) -> fmt::Result {
        let rows = [([("server_id", self.member.hex())], 1)];
        page.labelled("etcd_server_id", Gauge, "Identity of this member.", rows)?;
        let known = std::iter::once(&self.member).chain(self.sum.peers.keys());
        let rows = known.map(|of| ([("Local", self.member.hex()), ("Remote", of.hex())], 1));
        page.labelled("etcd_network_known_peers", Gauge, "Members, this one among them.", rows)?;
        let rows = FEATURES.iter().map(|(name, stage, on)| {
            ([("name", (*name).to_owned()), ("stage", (*stage).to_owned())], u64::from(*on))
        });
        page.labelled("etcd_server_feature_enabled", Gauge, "Whether a feature is on.", rows)?;
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
            ([("server_id", alarm.member.hex()), ("alarm_type", kind)], 1)
        });
        page.labelled("etcd_debugging_server_alarms", Gauge, "Alarms that stand.", alarms)
    }

    /// Shows every method from the start, so that a rate over the first call is right.
    fn encode_grpc(&self, page: &mut MetricsText<'_>) -> fmt::Result {
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

/// The sum and the buckets of a histogram, as Prometheus wants them.
fn in_unit(of: &Histogram, divisor: f64) -> (f64, Vec<(f64, u64)>) {
    let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / divisor);
    let buckets = of.buckets().map(|(upto, count)| (bound(upto), count)).collect();
    (of.sum() as f64 / divisor, buckets)
}

type Label = (&'static str, String);

fn labels(method: Method) -> [Label; 3] {
    [
        ("grpc_method", method.name().to_owned()),
        ("grpc_service", method.service().to_owned()),
        ("grpc_type", method.kind().name().to_owned()),
    ]
}

/// The code as grpc-go names it.
fn code_name(code: Code) -> String {
    if code == Code::Ok { "OK".to_owned() } else { format!("{code:?}") }
}

/// Major and minor, as etcd labels the version of a cluster.
fn short_version(version: &str) -> String {
    version.rsplit_once('.').map_or(version, |(short, _)| short).to_owned()
}

/// The text being written.
struct MetricsText<'a>(DescriptorEncoder<'a>);

impl MetricsText<'_> {
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
        let (sum, buckets) = in_unit(of, divisor);
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, of.count(), &buckets, None)
    }

    fn process(&mut self, figures: &ProcessFigures) -> fmt::Result {
        let cpu = figures.cpu.0 as f64 / SECONDS;
        self.number("process_cpu_seconds_total", Counter, "Processor time used.", cpu)?;
        self.plain("process_resident_memory_bytes", Gauge, "Resident memory.", figures.resident_bytes)?;
        self.plain("process_virtual_memory_bytes", Gauge, "Virtual memory.", figures.virtual_bytes)?;
        let virtual_max = figures.virtual_bytes_max;
        self.plain("process_virtual_memory_max_bytes", Gauge, "Most virtual memory.", virtual_max)?;
        let (received, sent) = (figures.received_bytes, figures.sent_bytes);
        self.plain("process_network_receive_bytes_total", Counter, "Bytes from the network.", received)?;
        self.plain("process_network_transmit_bytes_total", Counter, "Bytes to the network.", sent)?;
        self.plain("process_start_time_seconds", Gauge, "When it started.", figures.started_secs)?;
        self.plain("process_open_fds", Gauge, "Open file descriptors.", figures.open_fds)?;
        self.plain("process_max_fds", Gauge, "Most file descriptors.", figures.fds_max)?;
        self.plain("os_fd_used", Gauge, "Open file descriptors.", figures.open_fds)?;
        self.plain("os_fd_limit", Gauge, "Most file descriptors.", figures.fds_max)
    }
}
