//! Three members as processes: each serves every client, and two go on without the third.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use super::client::Client;
use super::process::{Server, command, free_port, until};
use braid::wire::{Method, proto};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The flags of each member of a new cluster.
pub fn flags_of(members: usize) -> Vec<Vec<String>> {
    let urls: Vec<String> = (0..members).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
    let all: Vec<String> = urls.iter().enumerate().map(|(at, url)| format!("m{at}={url}")).collect();
    let of = |(at, url): (usize, &String)| {
        vec![
            format!("--name=m{at}"),
            format!("--initial-cluster={}", all.join(",")),
            format!("--listen-peer-urls={url}"),
            format!("--initial-advertise-peer-urls={url}"),
            // Members need not be alike.
            format!("--reactors={}", at + 1),
            "--shards=4".to_owned(),
        ]
    };
    urls.iter().enumerate().map(of).collect()
}

/// Those of a member that begins alone and of one that joins it, and the second one's peer URL.
pub fn flags_of_one_that_is_joined() -> (Vec<Vec<String>>, String) {
    let mut flags = flags_of(2);
    let [first, second] = [0, 1].map(|at| flags[at][2].replace("--listen-peer-urls=", ""));
    flags[0][1] = format!("--initial-cluster=m0={first}");
    flags[1].push("--initial-cluster-state=existing".to_owned());
    (flags, second)
}

pub fn start(data_dir: &Path, flags: &[String]) -> Server {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::start(data_dir, &flags)
}

pub fn put(server: &Server, key: &str) -> i64 {
    let request = proto::PutRequest { key: key.to_owned().into(), ..Default::default() };
    let answer: proto::PutResponse = Client::connect(server.address).call(Method::Put, &request);
    answer.header.unwrap().revision
}

/// The revision, and how many keys there are, as the newest state says.
pub fn count(server: &Server) -> (i64, i64) {
    count_of(server, false)
}

pub fn count_of(server: &Server, serializable: bool) -> (i64, i64) {
    let everything: bytes::Bytes = vec![0].into();
    let range = proto::RangeRequest {
        key: everything.clone(),
        range_end: everything,
        count_only: true,
        serializable,
        ..Default::default()
    };
    let answer: proto::RangeResponse = Client::connect(server.address).call(Method::Range, &range);
    (answer.header.unwrap().revision, answer.count)
}

pub fn leads(server: &Server) -> bool {
    server.get("/metrics").contains("\netcd_server_is_leader 1\n")
}

/// At once: none is ready before most are there.
pub fn start_all(directories: &[PathBuf], flags: &[Vec<String>]) -> Vec<Server> {
    std::thread::scope(|scope| {
        let starts: Vec<_> =
            directories.iter().zip(flags).map(|(dir, flags)| scope.spawn(|| start(dir, flags))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    })
}

#[test]
fn three_members_serve_as_one_and_two_go_on_without_the_leader() {
    let root = tempfile::tempdir().unwrap();
    let directories: Vec<_> = (0..3).map(|at| root.path().join(format!("m{at}"))).collect();
    let flags = flags_of(3);
    let mut servers = start_all(&directories, &flags);
    for at in 0..9 {
        assert_eq!(put(&servers[at % 3], &format!("{at}")), at as i64 + 2);
        let other = &servers[(at + 1) % 3];
        assert_eq!(count(other), (at as i64 + 2, at as i64 + 1));
    }
    for server in &servers {
        for page in ["/health", "/readyz", "/livez"] {
            let answer = server.get(page);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{page}: {answer}");
        }
        assert!(server.get("/metrics").contains("\netcd_server_has_leader 1\n"));
    }
    let leaders: Vec<usize> = (0..3).filter(|at| leads(&servers[*at])).collect();
    let [leader] = leaders[..] else { panic!("one leads: {leaders:?}") };

    let mut killed = servers.remove(leader);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    until("another one leads", || servers.iter().any(leads));
    for server in &servers {
        until("it knows who leads", || server.get("/health").starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(put(&servers[0], "after"), 11, "no revision is skipped");
    assert_eq!(put(&servers[1], "after"), 12);

    let back = start(&directories[leader], &flags[leader]);
    assert_eq!(count(&back), (12, 10), "who comes back has what it missed");
    assert_eq!(put(&back, "back"), 13);
    for server in servers.iter().chain([&back]) {
        assert_eq!(count(server), (13, 11));
    }
    for server in servers.into_iter().chain([back]) {
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(15));
    }
}

/// A second member joins, has everything, and goes on alone when the first one is removed.
#[test]
fn one_member_is_replaced_by_another() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("m0"), root.path().join("m1"));
    let (mut flags, second) = flags_of_one_that_is_joined();
    flags[0].push("--strict-reconfig-check=false".to_owned());
    let one = start(&old, &flags[0]);
    for at in 0..20 {
        put(&one, &format!("{at}"));
    }
    let add = proto::MemberAddRequest { peer_urls: vec![second], is_learner: false };
    let added: proto::MemberAddResponse = Client::connect(one.address).call(Method::MemberAdd, &add);
    assert_eq!((added.members.len(), put(&one, "unharmed")), (2, 22), "who does not run yet is not needed");
    let other = start(&new, &flags[1]);
    assert_eq!(count(&other), (22, 21));
    assert_eq!(put(&other, "there"), 23);

    let gone = added.members.iter().find(|member| Some(*member) != added.member.as_ref()).unwrap().id;
    let remove = proto::MemberRemoveRequest { id: gone };
    let removed: proto::MemberRemoveResponse =
        Client::connect(other.address).call(Method::MemberRemove, &remove);
    assert_eq!(removed.members.len(), 1);
    let words = "the member has been permanently removed from the cluster";
    let (signal, said) = one.end();
    assert!(signal.is_none() && said.contains(words), "{signal:?}: {said}");
    assert_eq!(put(&other, "alone"), 24);
    assert_eq!(count(&other), (24, 23));
    other.signal("-TERM");
    assert_eq!(other.end().0, Some(15));

    let alone = start(&new, &flags[1]);
    assert_eq!(put(&alone, "again"), 25);
    let mut late = command_of(&old, &flags[0]);
    let ended = late.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains(words), "{said}");
    alone.signal("-TERM");
    assert_eq!(alone.end().0, Some(15));
}

/// Of a member that no test asks: another server may have the ports that it would take by itself.
pub fn command_of(data_dir: &Path, flags: &[String]) -> Command {
    let clients = ["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:1"];
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(clients).collect();
    command(data_dir, &flags)
}

#[test]
fn the_one_of_three_that_is_left_reads_on_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let directories: Vec<_> = (0..3).map(|at| root.path().join(format!("m{at}"))).collect();
    let flags = flags_of(3);
    let mut servers = start_all(&directories, &flags);
    for (at, server) in servers.iter().enumerate() {
        put(server, &format!("{at}"));
    }
    // What is settled has stood for a moment by the time that the second one is known to be gone.
    let left = servers.remove(1);
    until("it shows all", || count_of(&left, true) == (4, 3));
    for mut server in servers {
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    }
    until("it knows that nobody leads", || left.get("/health").starts_with("HTTP/1.1 503 "));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(count_of(&left, true), (4, 3));
    left.signal("-TERM");
    assert_eq!(left.end().0, Some(15));
    let back = start(&directories[1], &flags[1]);
    assert_eq!(count_of(&back, true), (4, 3));
}
