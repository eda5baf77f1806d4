//! What a start is refused for, and what it is not, in the words and with the exit codes of etcd 3.7.1 as it was seen;
//! where Braid answers otherwise, the row says why.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use super::process::{Server, command, free_port, until};
use braid::config::{Url, member_id};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

const LISTEN: [&str; 2] =
    ["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:1"];

/// How a start in an empty directory ends, and what it says last.
fn refused(flags: &[&str]) -> (Option<i32>, String) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("new");
    let output = command(&path, &[&LISTEN[..], &["--reactors=1"], flags].concat()).output().unwrap();
    assert!(!path.exists(), "a first start that is refused leaves nothing behind: {flags:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let message = |line: &str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        value.and_then(|value| Some(value["msg"].as_str()?.to_owned())).unwrap_or_else(|| line.to_owned())
    };
    (output.status.code(), said.lines().map(message).collect::<Vec<_>>().join("\n"))
}

fn check(rows: &[(&[&str], i32, &str)]) {
    for (flags, code, words) in rows {
        let (ended, said) = refused(flags);
        assert!(
            ended == Some(*code) && said.contains(words),
            "{flags:?}: {ended:?}\n{said}\nand not\n{words}"
        );
    }
}

const U1: &str = "--initial-advertise-peer-urls=http://127.0.0.1:23801";
const U2: &str = "--initial-advertise-peer-urls=http://127.0.0.1:23802";
const BOTH: &str = "--initial-advertise-peer-urls=http://127.0.0.1:23801,http://127.0.0.1:23802";
const OF_U1: &str = "--initial-cluster=a=http://127.0.0.1:23801";
const OF_BOTH: &str = "--initial-cluster=a=http://127.0.0.1:23801,a=http://127.0.0.1:23802";

#[test]
fn an_initial_cluster_that_contradicts_itself_is_refused_in_etcds_words() {
    let of = |flags: &'static [&str], words: &'static str| (flags, 1, words);
    check(&[
        of(
            &["--name=a", "--initial-cluster=b=http://127.0.0.1:23801", U1],
            r#"couldn't find local name "a" in the initial cluster configuration"#,
        ),
        of(
            &["--name=a", OF_U1, U2],
            "--initial-cluster has a=http://127.0.0.1:23801 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:23802 \
             (resolved urls: \"http://127.0.0.1:23802\" != \"http://127.0.0.1:23801\")",
        ),
        of(
            &["--name=a", OF_U1, BOTH],
            "--initial-advertise-peer-urls has http://127.0.0.1:23802 but missing from \
             --initial-cluster=a=http://127.0.0.1:23801,a=http://127.0.0.1:23802",
        ),
        of(
            &["--name=a", OF_BOTH, U1],
            "--initial-cluster has a=http://127.0.0.1:23802 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:23801 (len([\"http://127.0.0.1:23801\"]) != \
             len([\"http://127.0.0.1:23801\" \"http://127.0.0.1:23802\"]))",
        ),
        of(
            &["--name=a", "--initial-cluster=b=http://127.0.0.1:23801,a=http://127.0.0.1:23801", U1],
            "initial cluster a=http://127.0.0.1:23801,b=http://127.0.0.1:23801 has duplicate url",
        ),
        of(
            &["--name=a", "--initial-cluster=a=foo", U1],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: foo",
        ),
        of(
            &["--name=a", "--initial-cluster=abc", U1],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        of(
            &["--name=a", "--initial-cluster=a=http://127.0.0.1", U1],
            "error setting up initial cluster: URL address does not have the form \"host:port\": http://127.0.0.1",
        ),
        of(
            &["--name=a", "--initial-cluster=a=http://127.0.0.1:23801/x", U1],
            "error setting up initial cluster: URL must not contain a path: http://127.0.0.1:23801/x",
        ),
        // With the default name and URL too; an empty variable of the environment is no value, and is passed over.
        of(
            &["--initial-cluster="],
            r#"couldn't find local name "default" in the initial cluster configuration"#,
        ),
    ]);
}

const EXISTING: &str = "--initial-cluster-state=existing";

#[test]
fn a_cluster_that_nobody_tells_of_is_not_joined() {
    let unknown = "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs";
    let nobody = format!("--initial-cluster=a=http://127.0.0.1:23801,b=http://127.0.0.1:{}", free_port());
    check(&[
        (&["--name=a", OF_U1, U1, EXISTING], 1, unknown),
        (&["--name=a", &nobody, U1, EXISTING], 1, unknown),
        // What contradicts itself is found before anybody is asked.
        (&["--name=c", OF_U1, U1, EXISTING], 1, "couldn't find local name \"c\""),
        (
            &[
                "--name=a",
                "--initial-cluster=b=http://127.0.0.1:23801,a=http://127.0.0.1:23801",
                U1,
                EXISTING,
            ],
            1,
            "has duplicate url",
        ),
    ]);
}

#[test]
fn a_member_that_was_not_added_does_not_join() {
    let (root, port) = (tempfile::tempdir().unwrap(), free_port());
    let peer = format!("http://127.0.0.1:{port}");
    let flags = [
        "--reactors=1".to_owned(),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=m1={peer}"),
        "--name=m1".to_owned(),
    ];
    let server = Server::start(root.path(), &flags.each_ref().map(String::as_str));
    published(port);
    let begun = identity(root.path());
    let name = |name: &str| begun[name].as_str().unwrap().to_owned();
    let head = format!(
        "error validating peerURLs {{ClusterID:{} Members:[&{{ID:{} RaftAttributes:{{PeerURLs:[{peer}] \
         IsLearner:false}} Attributes:{{Name:m1 ClientURLs:[http://{}]}}}}] RemovedMemberIDs:[]}}: ",
        name("cluster_id"),
        name("member_id"),
        server.address
    );
    let both = format!("--initial-cluster=m1={peer},a=http://127.0.0.1:23801");
    let unequal = format!("{head}member count is unequal");
    check(&[(&["--name=a", &both, U1, EXISTING], 1, &unequal)]);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
}

#[test]
fn a_member_with_another_url_than_it_was_added_with_does_not_join() {
    let others = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("http://{}", others.local_addr().unwrap());
    let page = format!(
        r#"[{{"id":10,"peerURLs":["{other}"],"name":"b","clientURLs":["http://b:2"]}},{{"id":11,"peerURLs":["http://a:1"],"name":""}}]"#
    );
    let serve = serve_members(others, page);
    // No URL sorts behind that of the member itself, with which etcd compares last.
    let cluster = format!("--initial-cluster=b={other},a=http://x:1");
    let (ended, said) =
        refused(&["--name=a", &cluster, EXISTING, "--initial-advertise-peer-urls=http://x:1"]);
    let words = "PeerURLs: no match found for existing member (b, [http://a:1]), last resolver error \
                 (resolved urls: \"http://a:1\" != \"http://x:1\")";
    assert!(ended == Some(1) && said.contains(words), "{said}");
    serve.join().unwrap();
}

/// The members, once the one that there is has published its clients' URLs: it serves a moment before.
fn published(peer_port: u16) -> String {
    let mut page = String::new();
    until("it has published them", || {
        page = get(peer_port, "/members");
        page.contains("clientURLs")
    });
    page
}

/// Another member, which answers once.
fn serve_members(others: TcpListener, page: String) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut stream, _) = others.accept().unwrap();
        // What is not read makes the close a reset, which may overtake the answer.
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let asked: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        assert_eq!(asked[0], "GET /members HTTP/1.1");
        write!(stream, "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 5\r\n\r\n{page}\n").unwrap();
    })
}

/// It has lost its directory, and the others run.
#[test]
fn a_member_that_others_know_does_not_begin_again() {
    let (own, others) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (urls, other) = (format!("http://127.0.0.1:{own}"), others.local_addr().unwrap());
    let id = member_id(&[Url::parse(&urls).unwrap()], "etcd-cluster").0;
    let page = format!(r#"[{{"id":{id},"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://a:2"]}}]"#);
    let serve = serve_members(others, page);
    let cluster = format!("--initial-cluster=a={urls},b=http://{other}");
    let (ended, said) = refused(&["--name=a", &cluster, &format!("--initial-advertise-peer-urls={urls}")]);
    assert!(
        ended == Some(1) && said.contains(&format!("member {id:x} has already been bootstrapped")),
        "{said}"
    );
    serve.join().unwrap();
}

#[test]
fn flags_that_cannot_be_are_refused_in_etcds_words() {
    check(&[
        (
            &["--initial-cluster-state=foo"],
            2,
            r#"invalid value "foo" for flag -initial-cluster-state: invalid value"#,
        ),
        (&["--discovery=http://127.0.0.1:1"], 2, "flag provided but not defined: -discovery"),
        (&["--no-such-flag"], 2, "flag provided but not defined: -no-such-flag"),
        (
            &["--election-timeout=100"],
            1,
            "--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=60000"],
            1,
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (&["--heartbeat-interval=0"], 1, "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            &["--listen-peer-urls=http://localhost.example:23801"],
            1,
            "expected IP in URL for binding (http://localhost.example:23801)",
        ),
        (&["--max-learners=-1"], 1, "membership: too many learner members in cluster"),
        (&["--max-learners=x"], 2, r#"invalid value "x" for flag -max-learners: parse error"#),
        (&["extra"], 1, r#""extra" is not a valid flag"#),
    ]);
    let root = tempfile::tempdir().unwrap();
    let output = command(root.path(), &["--listen-client-urls=http://127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let words = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
    assert!(output.status.code() == Some(1) && said.contains(words), "{said}");
}

/// Where etcd would go on, and find something else wrong in most of these.
#[test]
fn what_is_not_built_is_refused_by_its_name() {
    check(&[
        // etcd: "multiple discovery or bootstrap flags are set. …"
        (
            &["--name=a", OF_U1, U1, "--discovery-srv=example.com"],
            1,
            "--discovery-srv is not built yet in Braid",
        ),
        // etcd serves TLS.
        (&["--name=a", "--initial-cluster=a=https://127.0.0.1:23801", U1], 1, "TLS is not built yet"),
    ]);
}

#[test]
fn what_etcd_starts_with_starts() {
    for flags in [
        &["--name=a", OF_BOTH, BOTH][..],
        &[
            "--name=a",
            "--initial-cluster=a=http://nobody.invalid:1",
            "--initial-advertise-peer-urls=http://nobody.invalid:1",
        ],
        &["--max-learners=0"],
        // A name of etcd 3.6, which 3.7 does not know any more.
        &["--experimental-max-learners=2"],
    ] {
        let root = tempfile::tempdir().unwrap();
        let server = Server::start(root.path(), &[&["--reactors=1"], flags].concat());
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(15), "{flags:?}");
    }
}

#[test]
fn a_port_in_use_is_refused_and_named() {
    let root = tempfile::tempdir().unwrap();
    let port = free_port();
    let peer = format!("--listen-peer-urls=http://127.0.0.1:{port}");
    let server = Server::start(root.path(), &["--reactors=1", &peer]);
    let client = format!("--listen-client-urls=http://{}", server.address);
    for (flag, port, otherwise) in [
        (&peer, port, "--listen-peer-urls and --initial-advertise-peer-urls"),
        (&client, server.address.port(), "--listen-client-urls and --advertise-client-urls"),
    ] {
        let (ended, said) = refused(&[flag]);
        let words = format!("listen tcp 127.0.0.1:{port}: bind: address already in use; ");
        assert!(ended == Some(1) && said.contains(&words) && said.contains(otherwise), "{said}");
    }
    // etcd waits for the other process to end, without end.
    let output = command(root.path(), &LISTEN).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("is in use by another process"), "{said}");
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
}

/// What the identity of a directory names.
fn identity(directory: &Path) -> Value {
    let text = std::fs::read_to_string(directory.join("braid.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value.as_object_mut().unwrap().retain(|name, _| name != "crc32c" && name != "store_has_begun");
    value
}

#[test]
fn a_restart_takes_no_notice_of_the_flags_of_a_bootstrap() {
    let root = tempfile::tempdir().unwrap();
    let mut first = None;
    for flags in [
        &["--name=a", OF_U1, U1][..],
        &["--name=a", OF_U1, U1, "--initial-cluster-token=other"],
        &["--name=a", "--initial-cluster=b=http://127.0.0.1:1,c=http://127.0.0.1:2", U1],
        &["--name=b", OF_BOTH, U2, "--initial-cluster-state=existing"],
    ] {
        let server = Server::start(root.path(), &[&["--reactors=1"], flags].concat());
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(15), "{flags:?}");
        let now = identity(root.path());
        assert_eq!(first.get_or_insert_with(|| now.clone()), &now, "{flags:?}");
    }
}

fn get(port: u16, path: &str) -> String {
    super::process::get(SocketAddr::from(([127, 0, 0, 1], port)), path)
}

#[test]
fn operators_read_the_peer_port() {
    let (root, port) = (tempfile::tempdir().unwrap(), free_port());
    let peer = format!("http://127.0.0.1:{port}");
    let flags = [
        "--reactors=2".to_owned(),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=m1={peer}"),
        "--name=m1".to_owned(),
    ];
    let server = Server::start(root.path(), &flags.each_ref().map(String::as_str));
    assert!(server.before.contains("serving peer traffic"), "{}", server.before);
    let members = published(port);
    let cluster = identity(root.path())["cluster_id"].as_str().unwrap().to_owned();
    assert!(members.contains(&format!("\r\nX-Etcd-Cluster-Id: {cluster}\r\n")), "{members}");
    let id = u64::from_str_radix(identity(root.path())["member_id"].as_str().unwrap(), 16).unwrap();
    let client = server.address;
    let body =
        format!(r#"[{{"id":{id},"peerURLs":["{peer}"],"name":"m1","clientURLs":["http://{client}"]}}]"#);
    assert!(members.ends_with(&format!("\r\n\r\n{body}\n")), "{members}");
    assert!(get(port, "/version").ends_with(r#""etcdcluster":"3.7.0","storage":"3.7.0"}"#));
    assert!(get(port, "/raft/probing").contains(r#"{"OK":true,"Now":"2"#));
    for path in ["/health", "/metrics", "/raft", "/"] {
        assert!(get(port, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    // Those who come and go there are not among the clients that reactors share out.
    for _ in 0..20 {
        assert!(get(client.port(), "/health").contains("true"));
    }
    let idle = TcpStream::connect(("127.0.0.1", port)).unwrap();
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
    drop(idle);
}

/// Other members have their say while clients get their last answers.
#[test]
fn members_are_heard_while_a_stop_waits_for_a_client() {
    let (root, port) = (tempfile::tempdir().unwrap(), free_port());
    let peer = format!("--listen-peer-urls=http://127.0.0.1:{port}");
    let server = Server::start(root.path(), &["--reactors=2", &peer]);
    // It asks for more than sockets hold, and takes nothing.
    let mut slow = TcpStream::connect(server.address).unwrap();
    slow.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000).as_bytes()).unwrap();
    assert!(get(server.address.port(), "/health").contains("true"), "what came before has been read");
    server.signal("-TERM");
    let mut line = String::new();
    let mut server = server;
    while !line.contains("shutting down") {
        line.clear();
        assert!(server.lines().read_line(&mut line).unwrap() > 0, "it stops in order");
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(get(port, "/members"), "", "it is listened to, though nothing is shown any more");
    assert!(server.child.try_wait().unwrap().is_none(), "the client is waited for");
    drop(slow);
    assert_eq!(server.end().0, Some(15));
}
