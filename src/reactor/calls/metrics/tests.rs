use super::*;
use crate::front;
use crate::io::ShardFigures;
use crate::types::{Duration, Index, ShardId};
use crate::wire::Timed;
use std::collections::BTreeSet;

fn census(shard: u32) -> Census {
    let mut census = Census::default();
    census.counters.puts = 3;
    census.counters.times.log_writes.observe(Duration::from_ms(3).0);
    census.shards.push(ShardFigures {
        shard: ShardId(shard),
        sizes: Default::default(),
        committed: Index(9),
        applied: Index(8),
        log_bytes: 100,
    });
    census.process = Some(ProcessFigures { cpu: Duration::from_ms(1500), ..Default::default() });
    census
}

fn figures() -> Figures {
    let rows = BTreeMap::from([(ReactorId(0), census(0)), (ReactorId(1), census(1))]);
    let mut sum = Census::default();
    rows.values().for_each(|row| sum.add(row));
    let alarms = vec![Alarm { member: MemberId(0xAB), alarm: AlarmType::NoSpace }];
    Figures { member: MemberId(0xAB), alarms, rows, sum, ..Figures::default() }
}

/// A sample: name, labels, value.
type Sample<'a> = (&'a str, BTreeMap<&'a str, &'a str>, f64);

/// Reads a page of the text format 0.0.4 and checks its rules: a name is declared once, before its samples,
/// which stand together, and no two samples are the same.
fn parse(text: &str) -> (BTreeMap<&str, &str>, Vec<Sample<'_>>) {
    let (mut types, mut samples, mut seen) = (BTreeMap::new(), vec![], BTreeSet::new());
    let mut current = "";
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(!help.is_empty() && !help.contains('\\'), "{line}");
            current = name;
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(name == current && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(types.insert(name, kind), None, "{name} is declared twice");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        assert!(seen.insert(series), "{series} stands twice");
        let (name, labels) = series
            .split_once('{')
            .map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').expect("labels end")));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
        let of_histogram = || ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = if types[current] == "histogram" { of_histogram() } else { Some(name) };
        assert_eq!(family, Some(current), "{line}");
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once('=').expect("a name and a value");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (name, value.expect("a value in quotes"))
        });
        samples.push((name, labels.collect(), value.parse().expect("a number")));
    }
    (types, samples)
}

#[test]
fn the_page_is_prometheus_text() {
    let text = render(figures());
    let (types, samples) = parse(&text);
    let check = |name: &str, kind: &str, value: f64| {
        let of = samples.iter().find(|(of, ..)| *of == name).expect(name);
        assert_eq!((types[name], of.2), (kind, value), "{name}");
    };
    check("etcd_mvcc_put_total", "counter", 6.0);
    check("etcd_server_proposals_applied_total", "gauge", 0.0);
    check("etcd_server_health_success", "counter", 0.0);
    check("process_cpu_seconds_total", "counter", 1.5);
    let buckets: Vec<f64> = samples
        .iter()
        .filter(|(name, ..)| *name == "etcd_disk_wal_fsync_duration_seconds_bucket")
        .map(|(.., value)| *value)
        .collect();
    assert_eq!(buckets.len(), 15);
    assert!(buckets.is_sorted() && buckets[1] == 0.0 && buckets[2] == 2.0);
}

#[test]
fn every_name_of_alerts_and_dashboards_is_there() {
    let text = render(figures());
    let (types, samples) = parse(&text);
    let names: BTreeSet<&str> = samples.iter().map(|(name, ..)| *name).collect();
    let lone = "
        etcd_server_has_leader etcd_server_leader_changes_seen_total etcd_server_proposals_applied_total
        etcd_server_proposals_committed_total etcd_server_proposals_failed_total etcd_server_proposals_pending
        etcd_server_quota_backend_bytes etcd_mvcc_db_total_size_in_bytes
        etcd_mvcc_db_total_size_in_use_in_bytes etcd_disk_wal_fsync_duration_seconds_bucket
        etcd_disk_backend_commit_duration_seconds_bucket etcd_network_client_grpc_received_bytes_total
        etcd_network_client_grpc_sent_bytes_total grpc_server_handled_total grpc_server_started_total
        process_resident_memory_bytes";
    for name in lone.split_whitespace() {
        assert!(names.contains(name), "{name}");
    }
    // A lone member has no peers to show; grpc_server_handling_seconds is etcd's only with extensive metrics.
    for name in [
        "etcd_network_peer_received_bytes_total",
        "etcd_network_peer_sent_bytes_total",
        "etcd_network_peer_sent_failures_total",
        "etcd_network_peer_round_trip_time_seconds",
    ] {
        assert!(types.contains_key(name), "{name}");
    }
}

/// What etcd 3.7.1's own page lists, but for what the module's comment gives the reasons for.
const OF_ETCD: &[(&str, &str)] = &[
    ("counter", "
        etcd_debugging_lease_granted_total etcd_debugging_lease_renewed_total etcd_debugging_lease_revoked_total
        etcd_debugging_mvcc_db_compaction_keys_total etcd_debugging_mvcc_events_total
        etcd_debugging_server_lease_expired_total etcd_mvcc_delete_total etcd_mvcc_put_total
        etcd_mvcc_range_total etcd_mvcc_txn_total etcd_network_client_grpc_received_bytes_total
        etcd_network_client_grpc_sent_bytes_total etcd_server_client_requests_total etcd_server_health_failures
        etcd_server_health_success etcd_server_healthchecks_total etcd_server_heartbeat_send_failures_total
        etcd_server_leader_changes_seen_total etcd_server_learner_promote_successes
        etcd_server_proposals_failed_total etcd_server_read_indexes_failed_total
        etcd_server_slow_apply_total etcd_server_slow_read_indexes_total grpc_server_handled_total grpc_server_msg_received_total
        grpc_server_msg_sent_total grpc_server_started_total process_cpu_seconds_total
        process_network_receive_bytes_total process_network_transmit_bytes_total
        promhttp_metric_handler_requests_total"),
    ("gauge", "
        etcd_cluster_version etcd_debugging_auth_revision etcd_debugging_mvcc_compact_revision etcd_debugging_mvcc_current_revision
        etcd_debugging_mvcc_db_compaction_last etcd_debugging_mvcc_keys_total
        etcd_debugging_mvcc_pending_events_total etcd_debugging_mvcc_slow_watcher_total
        etcd_debugging_mvcc_total_put_size_in_bytes etcd_debugging_mvcc_watch_stream_total
        etcd_debugging_mvcc_watcher_total etcd_disk_defrag_inflight etcd_disk_wal_write_bytes_total
        etcd_mvcc_db_open_read_transactions etcd_mvcc_db_total_size_in_bytes
        etcd_mvcc_db_total_size_in_use_in_bytes etcd_network_known_peers etcd_server_feature_enabled
        etcd_server_has_leader etcd_server_healthcheck etcd_server_id etcd_server_is_leader
        etcd_server_is_learner etcd_server_proposals_applied_total etcd_server_proposals_committed_total
        etcd_server_proposals_pending etcd_server_quota_backend_bytes
        etcd_server_snapshot_apply_in_progress_total etcd_server_version os_fd_limit os_fd_used process_max_fds
        process_open_fds process_resident_memory_bytes process_start_time_seconds process_virtual_memory_bytes
        process_virtual_memory_max_bytes promhttp_metric_handler_requests_in_flight"),
    ("histogram", "
        etcd_debugging_disk_backend_commit_write_duration_seconds etcd_debugging_lease_ttl_total
        etcd_debugging_snap_save_total_duration_seconds
        etcd_server_apply_duration_seconds etcd_server_range_duration_seconds
        etcd_debugging_mvcc_db_compaction_total_duration_milliseconds
        etcd_disk_backend_commit_duration_seconds etcd_disk_backend_defrag_duration_seconds
        etcd_disk_wal_fsync_duration_seconds etcd_disk_wal_write_duration_seconds
        etcd_mvcc_hash_duration_seconds etcd_mvcc_hash_rev_duration_seconds etcd_server_request_duration_seconds"),
];

#[test]
fn every_name_of_etcd_is_there_with_its_type() {
    let text = render(figures());
    let (types, _) = parse(&text);
    for (kind, names) in OF_ETCD {
        for name in names.split_whitespace() {
            assert_eq!(types.get(name), Some(kind), "{name}");
        }
    }
}

#[test]
fn every_method_and_code_begins_at_zero() {
    let text = render(figures());
    let (_, samples) = parse(&text);
    for method in Method::ALL {
        let of = |name: &str| {
            let of = samples.iter().filter(|(of, labels, _)| {
                *of == name
                    && labels["grpc_method"] == method.name()
                    && labels["grpc_service"] == method.service()
                    && labels["grpc_type"] == method.kind().name()
            });
            of.map(|(.., value)| *value).collect::<Vec<_>>()
        };
        assert_eq!(of("grpc_server_started_total"), [0.0]);
        assert_eq!(of("grpc_server_msg_received_total"), [0.0]);
        assert_eq!(of("grpc_server_msg_sent_total"), [0.0]);
        assert_eq!(of("grpc_server_handled_total"), [0.0; 17]);
    }
    assert_eq!(front::RpcCounters::default().of(Method::Watch).handled.len(), 17);
}

#[test]
fn what_clients_ask_is_counted_as_in_etcd() {
    let mut figures = figures();
    let counters = &mut figures.sum.counters;
    counters.front.begun(Method::Watch, Some("3.7"));
    counters.front.answered(Timed::Compaction, true, Duration::from_ms(3));
    counters.front.answered(Timed::ReadonlyTxn, true, Duration::from_ms(3));
    counters.applies.observe(ApplyKind::Put, true, Duration::from_us(150), 1);
    counters.applies.observe(ApplyKind::Range, false, Duration::from_us(150), 1);
    counters.slow_applies = 3;
    counters.checks.count(Time(1), Probe::Readyz, Check::LinearizableRead, false);
    counters.checks.count(Time(2), Probe::Readyz, Check::LinearizableRead, true);
    counters.scrapes = 4;
    figures.sum.compacted_at = Time(0) + Duration::from_ms(2500);
    figures.sum.process = Some(ProcessFigures { started_secs: 1000, ..Default::default() });
    let text = render(figures);
    parse(&text);
    for line in [
        "etcd_server_client_requests_total{type=\"stream\",client_api_version=\"3.7\"} 1",
        "etcd_server_client_requests_total{type=\"unary\",client_api_version=\"3.7\"} 0",
        "etcd_server_request_duration_seconds_bucket{le=\"0.002\",type=\"Compaction\",success=\"true\"} 0",
        "etcd_server_request_duration_seconds_bucket{le=\"0.004\",type=\"Compaction\",success=\"true\"} 1",
        "etcd_server_request_duration_seconds_sum{type=\"Compaction\",success=\"true\"} 0.003",
        "etcd_server_request_duration_seconds_count{type=\"ReadonlyTxn\",success=\"true\"} 1",
        "etcd_server_apply_duration_seconds_bucket{le=\"0.0001\",version=\"v3\",op=\"Put\",success=\"true\"} 0",
        "etcd_server_apply_duration_seconds_bucket{le=\"0.0002\",version=\"v3\",op=\"Put\",success=\"true\"} 1",
        "etcd_server_range_duration_seconds_sum{success=\"false\"} 0.00015",
        "etcd_server_slow_apply_total 3",
        "etcd_server_healthcheck{type=\"readyz\",name=\"linearizable_read\"} 1",
        "etcd_server_healthchecks_total{type=\"readyz\",name=\"linearizable_read\",status=\"success\"} 1",
        "etcd_server_healthchecks_total{type=\"readyz\",name=\"linearizable_read\",status=\"error\"} 1",
        "promhttp_metric_handler_requests_total{code=\"200\"} 4",
        "etcd_network_known_peers{Local=\"ab\",Remote=\"ab\"} 1",
        "etcd_server_feature_enabled{name=\"FastLeaseKeepAlive\",stage=\"BETA\"} 1",
        "etcd_debugging_mvcc_db_compaction_last 1002",
    ] {
        assert!(text.lines().any(|of| of == line), "{line}\n{text}");
    }
}

#[test]
fn each_other_member_has_its_rows_and_is_known() {
    let mut round_trips = PeerFigures::default().round_trips;
    round_trips.observe(Duration::from_us(150).0);
    let peer = PeerFigures {
        is_active: true,
        disconnects: 2,
        received_bytes: 3,
        sent_bytes: 4,
        send_failures: 5,
        receive_failures: 6,
        round_trips,
    };
    let mut figures = figures();
    let mut rows = [Census::default(), Census::default()];
    rows[0].peers =
        BTreeMap::from([(MemberId(0xcd), peer.clone()), (MemberId(0xef), PeerFigures::default())]);
    rows[1].peers = BTreeMap::from([(MemberId(0xcd), peer)]);
    rows.iter().for_each(|row| figures.sum.add(row));
    let text = render(figures);
    parse(&text);
    for line in [
        "etcd_network_known_peers{Local=\"ab\",Remote=\"ab\"} 1",
        "etcd_network_known_peers{Local=\"ab\",Remote=\"cd\"} 1",
        "etcd_network_active_peers{Local=\"ab\",Remote=\"cd\"} 1",
        "etcd_network_active_peers{Local=\"ab\",Remote=\"ef\"} 0",
        "etcd_network_disconnected_peers_total{Local=\"ab\",Remote=\"cd\"} 4",
        "etcd_network_peer_received_bytes_total{From=\"cd\"} 6",
        "etcd_network_peer_sent_bytes_total{To=\"cd\"} 8",
        "etcd_network_peer_sent_failures_total{To=\"cd\"} 10",
        "etcd_network_peer_received_failures_total{From=\"cd\"} 12",
        "etcd_network_peer_round_trip_time_seconds_bucket{le=\"0.0001\",To=\"cd\"} 0",
        "etcd_network_peer_round_trip_time_seconds_bucket{le=\"0.0002\",To=\"cd\"} 2",
        "etcd_network_peer_round_trip_time_seconds_count{To=\"ef\"} 0",
    ] {
        assert!(text.lines().any(|of| of == line), "{line}\n{text}");
    }
}

#[test]
fn extensive_metrics_say_how_long_calls_take() {
    assert!(!render(figures()).contains("grpc_server_handling_seconds"));
    let mut front = front::RpcCounters::default();
    front.now = Time::from_ms(30);
    front.measure_handling();
    front.ended(Method::Put, Code::Ok, Time::from_ms(9));
    let mut figures = figures();
    // Of two reactors, one of which has counted nothing yet.
    figures.sum.counters.front.add(&front);
    figures.sum.counters.front.add(&front);
    let text = render(figures);
    let (types, samples) = parse(&text);
    assert_eq!(types["grpc_server_handling_seconds"], "histogram");
    let of = |method: Method| {
        let of = samples.iter().filter(|(of, labels, _)| {
            *of == "grpc_server_handling_seconds_bucket"
                && labels["grpc_method"] == method.name()
                && labels["grpc_service"] == method.service()
                && labels["grpc_type"] == method.kind().name()
        });
        of.map(|(_, labels, value)| (labels["le"], *value)).collect::<Vec<_>>()
    };
    let bounds =
        ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"];
    let counts = [0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0];
    assert_eq!(of(Method::Put), bounds.into_iter().zip(counts).collect::<Vec<_>>());
    assert_eq!(of(Method::Watch), bounds.map(|bound| (bound, 0.0)));
}

#[test]
fn reactors_and_shards_have_rows_of_their_own() {
    let text = render(figures());
    for line in [
        "braid_reactor_turns_total{reactor=\"1\"} 0",
        "braid_shard_raft_applied_index{reactor=\"1\",shard=\"1\"} 8",
        "braid_shard_log_held_bytes{reactor=\"0\",shard=\"0\"} 100",
        "etcd_server_id{server_id=\"ab\"} 1",
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_debugging_server_alarms{server_id=\"ab\",alarm_type=\"NOSPACE\"} 1",
    ] {
        assert!(text.lines().any(|of| of == line), "{line}");
    }
}
