use super::*;
use braid::http2::{Connection, Http2Event};
use braid::types::Time;
use braid::wire::proto::{PutResponse, ResponseHeader, ResponseOp, TxnResponse, response_op::Response};
use prost::Message;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use workload::Workload;

/// What a server does with its n-th put.
#[derive(Clone, Copy)]
enum Reply {
    Revision(i64),
    Status(u8),
    After(Duration, i64),
    /// A guarded put did put, or it read nothing.
    Guarded(i64, bool),
    Never,
}

/// A server of one connection that answers whatever comes as a put.
fn serve(reply: fn(i64) -> Reply) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        answer(socket, reply);
    });
    address
}

fn answer(mut socket: TcpStream, reply: fn(i64) -> Reply) {
    let mut connection = Connection::new(&braid::http2::Http2Config::default(), Time(0));
    let (mut buffer, mut out, mut asked, mut count) = (vec![0; 65_536], Vec::new(), Vec::new(), 0);
    loop {
        connection.take_output(&mut out);
        if socket.write_all(&out).is_err() {
            return;
        }
        out.clear();
        let Ok(received @ 1..) = socket.read(&mut buffer) else { return };
        let mut bytes = &buffer[..received];
        while let Some(event) = connection.receive(Time(0), &mut bytes).unwrap() {
            if let Http2Event::Data { stream, bytes, end } = event {
                let len = bytes.len();
                connection.consumed(stream, len);
                if end {
                    asked.push(stream);
                }
            }
        }
        for stream in asked.drain(..) {
            count += 1;
            let revision = match reply(count) {
                Reply::Never => continue,
                Reply::Guarded(revision, succeeded) => {
                    let message = guarded(revision, succeeded).encode_to_vec();
                    connection.reply(stream, message.len(), |out| out.extend_from_slice(&message));
                    continue;
                }
                Reply::Status(code) => {
                    connection.send_trailers(stream, code, "no");
                    continue;
                }
                Reply::Revision(revision) => revision,
                Reply::After(pause, revision) => {
                    thread::sleep(pause);
                    revision
                }
            };
            let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
            let message = PutResponse { header, prev_kv: None }.encode_to_vec();
            connection.reply(stream, message.len(), |out| out.extend_from_slice(&message));
        }
    }
}

fn guarded(revision: i64, succeeded: bool) -> TxnResponse {
    let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    let response = if succeeded {
        Response::ResponsePut(PutResponse::default())
    } else {
        Response::ResponseRange(Default::default())
    };
    TxnResponse { header, succeeded, responses: vec![ResponseOp { response: Some(response) }] }
}

fn plan(reply: fn(i64) -> Reply, pace: Pace) -> Plan {
    let workload = Workload {
        keys: 1000,
        key_bytes: 48,
        value_bytes: 256,
        scattered: true,
        in_turn: false,
        puts_percent: 100,
        guarded: false,
        serializable: false,
        limit: 1,
    };
    Plan {
        label: "a test".to_owned(),
        endpoints: vec![serve(reply)],
        pids: vec![std::process::id()],
        connections: 1,
        streams: 16,
        workload,
        pace,
        warm_up: Duration::ZERO,
        span: Span::Requests(2000),
        patience: Duration::from_secs(5),
        seed: 1,
    }
}

#[test]
fn right_answers_are_counted_and_the_cpu_is_seen() {
    let outcome = run(&plan(|count| Reply::Revision(count + 1), Pace::Closed)).unwrap();
    assert_eq!((outcome.answers, outcome.errors, outcome.violations), (2000, 0, 0), "{:?}", outcome.fault);
    assert!(outcome.server_us().unwrap() > 0.1 && outcome.bytes_sent > 2000 * 300);
}

#[test]
fn wrong_revisions_are_noticed() {
    for reply in [
        // Twice the same, one that falls, one that stands still from the beginning, none.
        (|count| Reply::Revision(if count == 500 { 500 } else { count + 1 })) as fn(i64) -> Reply,
        |count| Reply::Revision(if count == 500 { 2 } else { 10 * count }),
        |_| Reply::Revision(7),
        |_| Reply::Revision(0),
    ] {
        let outcome = run(&plan(reply, Pace::Closed)).unwrap();
        assert!(outcome.violations > 0 && outcome.errors == 0);
    }
}

#[test]
fn a_guarded_put_is_judged_by_what_it_did() {
    for (reply, violations) in [
        ((|count| Reply::Guarded(count + 1, true)) as fn(i64) -> Reply, 0),
        // A revision twice, and a key that is gone.
        (|count| Reply::Guarded(if count == 500 { 500 } else { count + 1 }, true), 1),
        (|count| Reply::Guarded(count + 1, count != 700), 1),
    ] {
        let mut plan = plan(reply, Pace::Closed);
        plan.workload.guarded = true;
        let outcome = run(&plan).unwrap();
        assert_eq!((outcome.answers, outcome.violations), (2000, violations), "{:?}", outcome.fault);
    }
}

#[test]
fn a_refusal_is_an_error() {
    let reply = |count| if count % 10 == 0 { Reply::Status(14) } else { Reply::Revision(count + 1) };
    let outcome = run(&plan(reply, Pace::Closed)).unwrap();
    assert_eq!((outcome.errors, outcome.violations), (200, 0));
    // And says whose it is.
    let fault = outcome.fault.unwrap();
    assert!(fault.starts_with("127.0.0.1:") && fault.ends_with(": status 14: no"), "{fault}");
}

#[test]
fn who_cannot_be_measured_is_named() {
    let plan = || plan(|count| Reply::Revision(count + 1), Pace::Closed);
    let mut plan_of_nobody = plan();
    plan_of_nobody.pids = vec![std::process::id(), u32::MAX];
    let error = run(&plan_of_nobody).map(drop).unwrap_err().to_string();
    assert!(error.contains("process 4294967295: "), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut plan_of_two = plan();
    plan_of_two.endpoints.push(closed);
    plan_of_two.connections = 2;
    let error = run(&plan_of_two).map(drop).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{closed}: no connection: ")), "{error}");
}

#[test]
fn what_a_server_writes_is_counted() {
    let before = usage::Usage::of(std::process::id()).unwrap();
    let mut file = tempfile_in_target();
    file.write_all(&vec![7; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let used = usage::Usage::of(std::process::id()).unwrap().since(before);
    assert!(used.written_bytes.unwrap() >= 1 << 20, "{:?}", used.written_bytes);
}

/// A file without a name, on the disk that is built on: a directory in memory is written to no device.
fn tempfile_in_target() -> std::fs::File {
    let program = std::env::current_exe().unwrap();
    let path = program.with_file_name(format!("written-{}", std::process::id()));
    let file = std::fs::File::create_new(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn one_request_beside_the_load_gets_its_answer_or_says_why_not() {
    let ask = |reply| {
        let patience = Duration::from_secs(5);
        let request = braid::wire::proto::PutRequest::default();
        call::call::<PutResponse>(serve(reply), "/etcdserverpb.KV/Put", &request, patience)
    };
    assert_eq!(ask(|_| Reply::Revision(7)).unwrap().header.unwrap().revision, 7);
    let error = ask(|_| Reply::Status(14)).unwrap_err().to_string();
    assert!(error.contains("/etcdserverpb.KV/Put: status 14: no"), "{error}");
}

#[test]
fn a_stall_is_charged_to_all_that_had_to_wait() {
    let stall = |count| match count {
        500 => Reply::After(Duration::from_millis(400), count + 1),
        _ => Reply::Revision(count + 1),
    };
    let mut plan = plan(stall, Pace::Open { per_second: 1000 });
    plan.span = Span::For(Duration::from_secs(1));
    let outcome = run(&plan).unwrap();
    assert_eq!((outcome.errors, outcome.violations), (0, 0), "{:?}", outcome.fault);
    // 400 of 1000 came into the stall: a quarter waited 100 ms or more, where 16 streams alone had it.
    assert!(outcome.latency_us(0.78) >= 100_000.0, "{}", outcome.latency_us(0.78));
    assert!(outcome.latency_us(1.0) >= 390_000.0);
}

#[test]
fn what_gets_no_answer_counts_with_its_wait() {
    let reply = |count| if count > 50 { Reply::Never } else { Reply::Revision(count + 1) };
    let mut plan = plan(reply, Pace::Open { per_second: 200 });
    plan.span = Span::For(Duration::from_millis(500));
    plan.patience = Duration::from_secs(1);
    let outcome = run(&plan).unwrap();
    // Of 100, give or take those on the window's edges.
    assert!((48..=52).contains(&outcome.errors), "{}", outcome.errors);
    assert!(outcome.latency_us(0.9) >= 1_000_000.0, "{}", outcome.latency_us(0.9));
}
