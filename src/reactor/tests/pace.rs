//! What is counted, logged and shown of requests.

use super::*;
use crate::io::{LogLine, Value};

impl Member {
    /// The lines with a message, in order.
    fn lines(&self, message: &str) -> Vec<&LogLine> {
        self.log_lines.iter().filter(|line| line.message == message).collect()
    }

    /// The page of a path.
    pub(super) fn page(&mut self, path: &str) -> String {
        let conn = ConnId { slot: 9, ..self.conn };
        let at = usize::from(conn.reactor.0);
        self.reactors[at].step(self.now, Input::Opened { conn, port: Port::Client });
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        self.reactors[at].step(self.now, Input::Received { conn, bytes: request.as_bytes() });
        self.run();
        self.reactors[at].step(self.now, Input::Closed { conn });
        String::from_utf8(std::mem::take(&mut self.pages)).unwrap()
    }

    fn txn(&mut self, success: Vec<proto::request_op::Request>) -> Result<proto::TxnResponse, (u8, String)> {
        let success =
            success.into_iter().map(|request| proto::RequestOp { request: Some(request) }).collect();
        self.call("/etcdserverpb.KV/Txn", &proto::TxnRequest { success, ..Default::default() })
    }
}

fn field<'a>(line: &'a LogLine, name: &str) -> &'a Value {
    &line.fields.0.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("{name}: {line:?}")).1
}

fn range_op(key: &'static [u8]) -> proto::request_op::Request {
    let range = proto::RangeRequest { key: Bytes::from_static(key), ..Default::default() };
    proto::request_op::Request::RequestRange(range)
}

#[test]
fn a_store_without_users_says_so_and_its_leader_moves_to_itself() {
    let mut member = Member::new(2, 3);
    member.put("a", "1");
    let status: proto::AuthStatusResponse =
        member.call("/etcdserverpb.Auth/AuthStatus", &proto::AuthStatusRequest {}).unwrap();
    assert!(!status.enabled && status.auth_revision == 1);
    assert_eq!(status.header.unwrap().revision, 2);
    for path in ["/etcdserverpb.Auth/UserList", "/etcdserverpb.Auth/RoleList"] {
        let list: proto::AuthUserListResponse = member.call(path, &proto::AuthUserListRequest {}).unwrap();
        assert_eq!((list.users, list.header.unwrap().revision), (vec![], 2));
    }
    let path = "/etcdserverpb.Maintenance/MoveLeader";
    let moved: proto::MoveLeaderResponse =
        member.call(path, &proto::MoveLeaderRequest { target_id: 7 }).unwrap();
    assert_eq!(moved.header, None);
    for target_id in [0, 8] {
        let moved: Result<proto::MoveLeaderResponse, _> =
            member.call(path, &proto::MoveLeaderRequest { target_id });
        assert_eq!(moved.unwrap_err(), (9, Error::BadLeaderTransferee.to_string()));
    }
}

#[test]
fn durations_count_what_passed_the_static_checks_and_tell_reads_from_writes() {
    let mut member = Member::new(2, 3);
    member.put("a", "1");
    member.range("a", "");
    member.txn(vec![range_op(b"a")]).unwrap();
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    member.txn(vec![proto::request_op::Request::RequestPut(put.clone())]).unwrap();
    // Refused as they came.
    let empty: Result<proto::PutResponse, _> =
        member.call("/etcdserverpb.KV/Put", &proto::PutRequest::default());
    assert_eq!(empty.unwrap_err().0, 3);
    member.txn(vec![range_op(b"")]).unwrap_err();
    // Refused when it was to be proposed.
    let value = Bytes::from(vec![b'x'; crate::limits::REQUEST_BYTES_DEFAULT]);
    let large: Result<proto::PutResponse, _> =
        member.call("/etcdserverpb.KV/Put", &proto::PutRequest { value, ..put });
    assert_eq!(large.unwrap_err().1, Error::RequestTooLarge.to_string());
    let page = member.page("/metrics");
    let counts: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("etcd_server_request_duration_seconds_count"))
        .collect();
    assert_eq!(
        counts,
        [
            r#"{type="Range",success="true"} 1"#,
            r#"{type="Put",success="false"} 1"#,
            r#"{type="Put",success="true"} 1"#,
            r#"{type="Txn",success="true"} 1"#,
            r#"{type="ReadonlyTxn",success="true"} 1"#,
        ]
    );
    for line in [
        r#"etcd_server_apply_duration_seconds_count{version="v3",op="Put",success="true"} 1"#,
        r#"etcd_server_apply_duration_seconds_count{version="v3",op="Txn",success="true"} 2"#,
        r#"etcd_server_range_duration_seconds_count{success="true"} 1"#,
        "etcd_server_slow_apply_total 0",
        "etcd_server_proposals_pending 0",
    ] {
        assert!(page.lines().any(|of| of == line), "{line}\n{page}");
    }
}

#[test]
fn only_writes_are_pending_proposals() {
    let mut member = Member::new(2, 3);
    member.put("a", "1");
    member.disk_stands = true;
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    member.ask("/etcdserverpb.KV/Put", &put);
    member.ask("/etcdserverpb.Lease/LeaseGrant", &proto::LeaseGrantRequest { id: 5, ttl: 60 });
    member.ask("/etcdserverpb.Lease/LeaseLeases", &proto::LeaseLeasesRequest {});
    // It reads the put, which is not settled.
    let compare = proto::Compare { key: Bytes::from_static(b"a"), ..Default::default() };
    member.ask("/etcdserverpb.KV/Txn", &proto::TxnRequest { compare: vec![compare], ..Default::default() });
    member.run();
    let page = member.page("/metrics");
    assert!(page.lines().any(|line| line == "etcd_server_proposals_pending 2"), "{page}");
    member.now = member.now + member.reactors[0].turn.settings.request_timeout() + Duration::from_ms(500);
    member.run();
    let page = member.page("/metrics");
    assert!(page.lines().any(|line| line == "etcd_server_proposals_pending 0"), "{page}");
    assert!(page.lines().any(|line| line == "etcd_server_proposals_failed_total 2"), "{page}");
}

#[test]
fn what_is_slow_is_logged_as_etcd_logs_it() {
    let mut member = Member::new(1, 1);
    member.put("a", "1");
    assert_eq!(member.lines("request stats"), Vec::<&LogLine>::new());
    member.disk_stands = true;
    let put = proto::PutRequest {
        key: Bytes::from_static(b"a"),
        value: Bytes::from_static(b"secret"),
        ..Default::default()
    };
    for _ in 0..20 {
        member.ask("/etcdserverpb.KV/Put", &put);
    }
    // It shows what is not settled, and so it waits.
    let txn = proto::TxnRequest {
        success: vec![proto::RequestOp { request: Some(range_op(b"a")) }],
        ..Default::default()
    };
    member.turn_all();
    member.ask("/etcdserverpb.KV/Txn", &txn);
    member.turn_all();
    member.now = member.now + Duration::from_ms(301);
    member.write_all();
    let lines = member.lines("request stats");
    let first = lines[0];
    assert_eq!(field(first, "response type"), &Value::from("/etcdserverpb.KV/Put"));
    assert_eq!(field(first, "request content"), &Value::from(r#"key:"a" value_size:6"#));
    assert_eq!(field(first, "request count"), &Value::Int(1));
    assert!(matches!(field(first, "time spent"), Value::Span(span) if *span >= Duration::from_ms(301)));
    assert_eq!(field(first, "remote"), &Value::Client(member.conn));
    assert!(matches!(field(first, "start time"), Value::Moment(_)));
    assert!(!format!("{lines:?}").contains("secret"));
    // More are counted than described.
    let more = member.lines("more requests took too long than there are lines for");
    let told = lines.len() + member.lines("apply request took too long").len();
    assert_eq!(told, crate::limits::SLOW_REQUESTS_LOGGED_MAX);
    assert_eq!(field(more[0], "requests"), &Value::Uint(22 - told as u64));
}

#[test]
fn a_slow_read_counts_as_slow_to_apply() {
    let mut member = member_without_leader();
    let path = "/etcdserverpb.KV/Range";
    member.ask(path, &proto::RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() });
    member.turn_all();
    member.now = member.now + Duration::from_ms(101);
    member.write_all();
    let lines = member.lines("apply request took too long");
    assert_eq!(lines.len(), 1, "{:?}", member.log_lines);
    assert_eq!(field(lines[0], "prefix"), &Value::from("read-only range "));
    assert_eq!(field(lines[0], "request"), &Value::from(r#"key:"a""#));
    assert_eq!(field(lines[0], "expected-duration"), &Value::Span(Duration::from_ms(100)));
    let page = member.page("/metrics");
    assert!(page.lines().any(|line| line == "etcd_server_slow_apply_total 1"), "{page}");
}

/// To count the bytes of a long answer would take long.
#[test]
fn a_slow_read_tells_the_size_of_a_short_answer() {
    for (long_message_bytes, is_told) in [(crate::limits::LONG_MESSAGE_BYTES, true), (1, false)] {
        let mut settings = settings(3);
        settings.bounds.front.long_message_bytes = long_message_bytes;
        let mut member = member_of_without_leader(settings);
        let range = proto::RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        member.ask("/etcdserverpb.KV/Range", &range);
        member.turn_all();
        member.now = member.now + Duration::from_ms(301);
        member.write_all();
        let line = member.lines("apply request took too long")[0];
        let response = format!("{:?}", field(line, "response"));
        assert!(response.contains("range_response_count:1 size:"), "{response}");
        assert_eq!(!response.contains("size:-1"), is_told, "{response}");
        let line = member.lines("request stats")[0];
        assert_eq!(field(line, "response size") != &Value::Int(-1), is_told, "{line:?}");
    }
}

#[test]
fn compaction_defragmentation_and_alarms_are_logged() {
    let mut member = Member::new(2, 3);
    for n in 0..10 {
        member.put("/registry/pods/a", &n.to_string());
        member.put("z", &n.to_string());
    }
    let compact = proto::CompactionRequest { revision: 21, physical: true };
    let _: proto::CompactionResponse = member.call("/etcdserverpb.KV/Compact", &compact).unwrap();
    let lines = member.lines("finished scheduled compaction");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(field(lines[0], "compact-revision"), &Value::Int(21));
    assert_eq!(field(lines[0], "number-of-keys-compacted"), &Value::Uint(18));
    let (total, in_use) =
        (field(lines[0], "current-db-size-bytes"), field(lines[0], "current-db-size-in-use-bytes"));
    assert!(matches!((total, in_use), (Value::Uint(total), Value::Uint(in_use)) if total >= in_use));
    let _: proto::DefragmentResponse =
        member.call("/etcdserverpb.Maintenance/Defragment", &proto::DefragmentRequest {}).unwrap();
    assert_eq!(
        (member.lines("starting defragment").len(), member.lines("finished defragment").len()),
        (1, 1)
    );
    for (action, message) in [(1, "alarm raised"), (2, "alarm disarmed")] {
        let alarm = proto::AlarmRequest { action, member_id: 0xab, alarm: 1 };
        let _: proto::AlarmResponse = member.call("/etcdserverpb.Maintenance/Alarm", &alarm).unwrap();
        let lines = member.lines(message);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(field(lines[0], "alarm"), &Value::from("NOSPACE"));
        assert_eq!(field(lines[0], "from"), &Value::from("ab"));
    }
}

#[test]
fn an_exceeded_quota_is_logged_once() {
    let mut member = Member::with(1, Settings { quota_bytes: Some(1), ..settings(1) });
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    for _ in 0..3 {
        let put: Result<proto::PutResponse, _> = member.call("/etcdserverpb.KV/Put", &put);
        assert_eq!(put.unwrap_err().1, Error::NoSpace.to_string());
    }
    let lines = member.lines("message exceeded backend quota; raising alarm");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(field(lines[0], "quota-size-bytes"), &Value::Uint(1));
}

#[test]
fn the_variables_of_the_process_are_shown() {
    let mut member = Member::new(2, 3);
    member.put("a", "1");
    let page = member.page("/debug/vars");
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("application/json"), "{page}");
    let body = page.split_once("\r\n\r\n").unwrap().1;
    let vars: serde_json::Value = serde_json::from_str(body).unwrap();
    let raft = &vars["raft.status"];
    assert_eq!(
        (&raft["id"], &raft["lead"], &raft["raftState"]),
        (&"7".into(), &"7".into(), &"StateLeader".into())
    );
    assert!(raft["commit"].as_u64().unwrap() > 0 && raft["applied"] == raft["commit"]);
    assert!(vars["cmdline"].is_array() && vars["file_descriptor_limit"].is_u64());
}
