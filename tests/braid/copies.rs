//! Copies of the data directory: one that is made while a server writes it, and one that is whole.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::client::Client;
use crate::process::Server;
use braid::wire::Method;
use braid::wire::proto;
use std::fs;
use std::ops::Range;
use std::path::Path;

const FLAGS: [&str; 2] = ["--reactors=2", "--shards=4"];

/// The files with such names, one after the other, as `cp -a` does.
fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name), wanted);
        } else if wanted(name) {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

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
        copy(&directory, &copied, &|name| name.starts_with(early));
        put(&mut client, 20..60);
        let checkpoints = proto::DefragmentRequest {};
        client.call::<proto::DefragmentResponse>(Method::Defragment, &checkpoints);
        server.signal("-KILL");
        server.end();
        copy(&directory, &copied, &|name| !name.starts_with(early));
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
    copy(&directory, &copied, &|_| true);
    let server = Server::start(&copied, &FLAGS);
    assert_eq!(count(&server), 60);
    server.signal("-TERM");
    server.end();
}
