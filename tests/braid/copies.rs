//! Data directories that were copied, or put together from others.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::client::Client;
use crate::process::{Server, store_id};
use crate::processes::copy::copy;
use braid::wire::Method;
use braid::wire::proto;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

const FLAGS: [&str; 2] = ["--reactors=2", "--shards=4"];

/// A key of its own for each revision from 2 on, all over the shards.
fn put(client: &mut Client, numbers: Range<u64>) {
    for number in numbers {
        let prefix = ["/registry/pods/", "/registry/events/", "a", "\u{7f}z"][number as usize % 4];
        let (key, value) = (format!("{prefix}{number:06}").into(), "value".into());
        let put = proto::PutRequest { key, value, ..Default::default() };
        let put: proto::PutResponse = client.call(Method::Put, &put);
        assert_eq!(put.header.unwrap().revision as u64, number + 2);
    }
}

fn count(server: &Server) -> i64 {
    let all = bytes::Bytes::from_static(b"\0");
    let all =
        proto::RangeRequest { key: all.clone(), range_end: all, count_only: true, ..Default::default() };
    Client::connect(server.address).call::<proto::RangeResponse>(Method::Range, &all).count
}

/// What is written between the copies of two logs is in the one that is copied last, and of what the other has
/// lost nothing tells but the words of that one: all its own writes are in checkpoints.
#[test]
fn a_copy_of_logs_at_different_moments_is_refused() {
    for early in ["000-", "001-"] {
        let root = tempfile::tempdir().unwrap();
        let (directory, copied) = (root.path().join("live"), root.path().join("copied"));
        let server = Server::start(&directory, &FLAGS);
        let mut client = Client::connect(server.address);
        put(&mut client, 0..20);
        copy(&directory, &copied, &|name| name.starts_with(early)).unwrap();
        put(&mut client, 20..60);
        let checkpoints = proto::DefragmentRequest {};
        client.call::<proto::DefragmentResponse>(Method::Defragment, &checkpoints);
        server.signal("-KILL");
        server.end();
        copy(&directory, &copied, &|name| !name.starts_with(early)).unwrap();
        let said = match Server::try_start(&copied, &FLAGS) {
            Ok(server) => panic!("{} of 60 keys are served", count(&server)),
            Err(said) => said,
        };
        let outlived = format!("log file {early}");
        assert!(said.contains(&outlived) && said.contains("ends too early"), "{said}");
        assert!(said.contains("made while the server was stopped"), "{said}");
    }
}

#[test]
fn a_copy_of_a_stopped_directory_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let (directory, copied) = (root.path().join("live"), root.path().join("copied"));
    let server = Server::start(&directory, &FLAGS);
    put(&mut Client::connect(server.address), 0..60);
    server.signal("-TERM");
    server.end();
    copy(&directory, &copied, &|_| true).unwrap();
    let server = Server::start(&copied, &FLAGS);
    assert_eq!(count(&server), 60);
    server.signal("-TERM");
    server.end();
}

/// A disk that has lost all that it was given, or a copy that made the files and not what was in them.
#[test]
fn a_store_of_which_only_the_names_are_left_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), &["--reactors=1"]);
    put(&mut Client::connect(server.address), 0..1);
    server.signal("-KILL");
    server.end();
    for file in fs::read_dir(root.path().join("store")).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0; bytes]).unwrap();
    }
    let is_told = |said: &str| said.contains("is gone") && said.contains("logs in which nothing stands");
    let said = Server::try_start(root.path(), &["--reactors=1"]).err().expect("it is refused");
    let dumped = dump(root.path());
    assert!(is_told(&said) && is_told(&dumped), "{said} {dumped}");
}

/// What is said of a directory that cannot be dumped whole.
fn dump(directory: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_braid"));
    let output = command.arg("dump-log").arg(directory).env_clear().stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// The store of another directory, made by the same flags, has the same member and the same cluster.
#[test]
fn a_store_of_another_directory_is_refused_and_a_whole_copy_is_not() {
    let root = tempfile::tempdir().unwrap();
    let (one, other, moved) = (root.path().join("one"), root.path().join("other"), root.path().join("moved"));
    let serves = |directory: &Path, number: u64| {
        let server = Server::start(directory, &FLAGS);
        put(&mut Client::connect(server.address), number..number + 1);
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(15));
    };
    serves(&one, 0);
    serves(&other, 0);
    serves(&other, 1);
    fs::rename(one.join("store"), &moved).unwrap();
    fs::rename(other.join("store"), one.join("store")).unwrap();
    let said = Server::try_start(&one, &FLAGS).err().expect("it is refused");
    for said in [said, dump(&one)] {
        for directory in [&one, &other] {
            let store = format!("store {:016x}", store_id(directory).0);
            assert!(said.contains(&store), "{store}: {said}");
        }
        assert!(said.contains("Mount or put back the store that belongs here"), "{said}");
    }
    // Nothing has come of it: each goes on with its own.
    fs::rename(one.join("store"), other.join("store")).unwrap();
    fs::rename(&moved, one.join("store")).unwrap();
    serves(&one, 1);
    copy(&other, &moved, &|_| true).unwrap();
    serves(&other, 2);
    serves(&moved, 2);
}
