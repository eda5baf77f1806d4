//! A copy of the data directory that is made while a server writes it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::client::Client;
use crate::process::Server;
use braid::wire::Method;
use braid::wire::proto;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const FLAGS: [&str; 2] = ["--reactors=2", "--shards=4"];

/// One file after the other, as `cp -a` does. Some may go meanwhile.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            let _ = fs::copy(&path, &copied);
        }
    }
}

/// A key of its own for each revision from 2 on, all over the shards.
fn put(client: &mut Client, number: u64) {
    let key = format!(
        "{}{number:06}",
        ["/registry/pods/", "/registry/events/", "a", "\u{7f}z"][number as usize % 4]
    );
    let put = proto::PutRequest { key: key.into(), value: "value".into(), ..Default::default() };
    let put: proto::PutResponse = client.call(Method::Put, &put);
    assert_eq!(put.header.unwrap().revision as u64, number + 2);
}

#[test]
fn a_copy_of_a_live_directory_is_refused_or_whole() {
    let root = tempfile::tempdir().unwrap();
    let (directory, copied) = (root.path().join("live"), root.path().join("copied"));
    let server = Server::start(&directory, &FLAGS);
    let (address, stop) = (server.address, AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(address);
            (0..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(|number| put(&mut client, number));
        });
        for _ in 0..4 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            copy(&directory, &copied);
            match Server::try_start(&copied, &FLAGS) {
                Ok(server) => {
                    let mut client = Client::connect(server.address);
                    let all = proto::RangeRequest {
                        key: "\0".into(),
                        range_end: "\0".into(),
                        count_only: true,
                        ..Default::default()
                    };
                    let all: proto::RangeResponse = client.call(Method::Range, &all);
                    assert_eq!(all.count, all.header.unwrap().revision - 1, "a revision is missing");
                    server.signal("-KILL");
                    server.end();
                }
                Err(said) => assert!(said.contains("made while the server was stopped"), "{said}"),
            }
            fs::remove_dir_all(&copied).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    server.signal("-KILL");
    server.end();
}
