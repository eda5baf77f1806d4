//! Starts that come to nothing, stops at any moment, and what a service manager is told of both.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::client::Client;
use crate::process::{NEVER, Server, after_a_line, command, free_port};
use braid::limits::{BULK_LOCKED_BYTES, REACTORS_MAX, RING_LOCKED_BYTES};
use braid::stdx::Rng;
use braid::wire::Method;
use braid::wire::proto;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How the process has ended. One that never does is killed, and fails the test.
fn end(child: &mut Child, what: &str) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > NEVER {
            child.kill().unwrap();
            panic!("it does not end: {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(name).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn listening() -> [String; 2] {
    let url = format!("http://127.0.0.1:{}", free_port());
    [format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")]
}

/// Until no file of a log is on its way any more.
fn wait_for_quiet(store: &Path) {
    let (mut seen, mut calm) = (vec![], 0);
    while calm < 20 {
        let entries = fs::read_dir(store).unwrap().map(Result::unwrap);
        let mut now: Vec<_> =
            { entries }.map(|e| (e.file_name(), e.metadata().map_or(0, |m| m.len()))).collect();
        now.sort();
        let moves = now != seen || now.iter().any(|(name, _)| name.to_string_lossy().ends_with(".new"));
        calm = if moves { 0 } else { calm + 1 };
        seen = now;
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn put(client: &mut Client, key: &'static str) -> proto::PutResponse {
    let request = proto::PutRequest { key: key.as_bytes().into(), value: "v".into(), ..Default::default() };
    client.call(Method::Put, &request)
}

/// A file that is read for ever stands for a disk that does not answer: a pipe without a writer.
#[test]
fn a_start_that_hangs_ends_by_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--reactors=1"]);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
    let identity = directory.path().join("braid.json");
    let segment = fs::read_dir(directory.path().join("store")).unwrap().map(|entry| entry.unwrap().path());
    let segment = { segment }.find(|path| path.extension().is_some_and(|kind| kind == "log")).unwrap();
    for hangs in [segment, identity] {
        let kept = hangs.with_extension("kept");
        fs::rename(&hangs, &kept).unwrap();
        make_pipe(&hangs);
        let listen = listening();
        let mut child = command(directory.path(), &[&listen[0], &listen[1], "--reactors=1"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        lines.read_line(&mut text).unwrap();
        // Whether it hangs by now does not matter: it never serves.
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, "-TERM");
        let status = end(&mut child, &hangs.display().to_string());
        lines.read_to_string(&mut text).unwrap();
        assert_eq!(status.signal(), Some(15), "{text}");
        assert!(text.contains("giving up the start") && !text.contains("ready to serve"), "{text}");
        fs::remove_file(&hangs).unwrap();
        fs::rename(&kept, &hangs).unwrap();
    }
    let server = Server::start(directory.path(), &["--reactors=1"]);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
}

#[test]
fn a_signal_at_any_moment_of_a_start_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let listen = listening();
    let flags = [&listen[0], &listen[1], "--reactors=2"];
    for delay_ms in (0..40).map(|step| step * step / 2) {
        let mut child = command(directory.path(), &flags).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        signal(&child, "-TERM");
        let status = end(&mut child, &format!("after {delay_ms} ms"));
        assert_eq!(status.signal(), Some(15), "after {delay_ms} ms");
    }
    let server = Server::start(directory.path(), &["--reactors=2"]);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
}

/// Once in some thousand starts on a busy machine something may wait for what never comes. To look for that:
/// `BRAID_STARTS=3000 cargo test --release --test braid start_after_start`, beside programs that compute.
#[test]
fn start_after_start_comes_to_serve_and_to_its_end() {
    let starts = std::env::var("BRAID_STARTS").map_or(16, |starts| starts.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(1);
    for start in 1..=starts {
        let reactors = format!("--reactors={}", 1 + rng.below(3));
        let mut server = Server::start(directory.path(), &[&reactors]);
        let answer = put(&mut Client::connect(server.address), "a");
        assert_eq!(answer.header.unwrap().revision as u64, start + 1);
        std::thread::sleep(Duration::from_micros(rng.below(20_000)));
        let (name, number) = *rng.pick(&[("-TERM", 15), ("-INT", 2), ("-KILL", 9)]);
        server.signal(name);
        let status = end(&mut server.child, &format!("start {start}, {name}"));
        let (_, last) = server.end();
        assert_eq!(status.signal(), Some(number), "start {start}: {last}");
    }
}

#[test]
fn a_start_that_is_refused_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("new");
    let [listen, advertise] = listening();
    let wrong = "--initial-advertise-peer-urls=http://a:1";
    for (flags, words) in [
        (vec!["--reactors=257", "--max-txn-ops=x", "--nmae=y"], "--reactors is at most"),
        (vec![&listen, &advertise, wrong], "missing from --initial-advertise-peer-urls"),
        (vec!["--listen-client-urls=http://192.0.2.1:1", &advertise], "this machine has no such address"),
    ] {
        let output = command(&path, &flags).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(words), "{text}");
        assert!(!path.exists(), "{text}");
    }
}

/// Programs read the two streams: on one stands the log, a JSON object per line, and on the other nothing.
#[test]
fn without_a_terminal_nothing_but_the_log_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let mut server = Server::start_as(&directory.path().join("data"), &["--reactors=1"], |command| {
        command.stdout(fs::File::create(&out).unwrap())
    });
    server.signal("-TERM");
    let status = end(&mut server.child, "a stop");
    let (_, rest) = server.end();
    assert_eq!(status.signal(), Some(15));
    assert_eq!(fs::read_to_string(&out).unwrap(), "");
    for line in rest.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

/// As systemd listens where a unit says `Type=notify`.
#[test]
fn a_service_manager_hears_of_ready_and_of_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let name = format!("braid-test-{}", std::process::id());
    let by_name = SocketAddr::from_abstract_name(&name).unwrap();
    let sockets = [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}")),
    ];
    for (socket, shown) in sockets {
        socket.set_read_timeout(Some(NEVER)).unwrap();
        let heard = || {
            let mut bytes = [0; 256];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        let server = Server::start_as(&directory.path().join("data"), &["--reactors=1"], |command| {
            command.env("NOTIFY_SOCKET", &shown)
        });
        let ready = heard();
        assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
        server.signal("-TERM");
        let stopping = heard();
        assert!(stopping.lines().any(|line| line == "STOPPING=1"), "{stopping}");
        assert_eq!(server.end().0, Some(15));
    }
}

/// It may so far stand in a cache of the disk alone, and a second power cut would take what the first restart has
/// told its clients.
#[test]
fn what_a_restart_has_read_is_made_durable_before_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let (data, log) = (directory.path().join("data"), directory.path().join("log"));
    let server = Server::start(&data, &["--reactors=1"]);
    put(&mut Client::connect(server.address), "a");
    server.signal("-KILL");
    server.end();
    let outputs = format!("--log-outputs=stderr,{}", log.display());
    let server = Server::start(&data, &["--reactors=1", "--log-level=debug", &outputs]);
    let text = fs::read_to_string(&log).unwrap();
    let at = |words: &[&str]| text.lines().position(|line| words.iter().all(|word| line.contains(word)));
    let synced = at(&["\"file synced\"", "000-0000000000000001.log\""]);
    assert!(synced.is_some() && synced < at(&["ready to serve"]), "{text}");
    server.signal("-KILL");
    server.end();
}

/// As many reactors as there may be, started again before the kernel has taken the last process apart.
#[test]
fn the_unit_for_systemd_gives_what_a_server_asks_for() {
    let unit = include_str!("../../tools/braid.service");
    for line in ["Type=notify", "LimitMEMLOCK=64M", "LimitNOFILE=1048576", "Restart=always"] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
    const { assert!(2 * (REACTORS_MAX * RING_LOCKED_BYTES + BULK_LOCKED_BYTES) <= 64 << 20) };
}

/// From some moment on every write to a file is refused: nothing is acknowledged any more, and the process ends.
#[test]
fn a_write_to_the_log_that_fails_ends_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = Server::start_as(&data, &["--reactors=1"], |command| {
        // The signal that goes with the refusal would end the process by itself.
        after_a_line(command, "trap '' XFSZ")
    });
    let mut client = Client::connect(server.address);
    put(&mut client, "before");
    wait_for_quiet(&data.join("store"));
    let pid = server.child.id().to_string();
    assert!(Command::new("prlimit").args(["--fsize=0:0", "--pid", &pid]).status().unwrap().success());
    let asks = std::thread::spawn(move || put(&mut client, "after"));
    let status = end(&mut server.child, "a write has failed");
    let (_, last) = server.end();
    assert_eq!(status.code(), Some(1), "{last}");
    assert!(last.contains("a write to the log failed"), "{last}");
    assert!(asks.join().is_err(), "what is not durable is not acknowledged");
}
