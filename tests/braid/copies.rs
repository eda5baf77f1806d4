//! Data directories that were copied, or put together from others.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::client::Client;
use crate::process::{Server, store_id};
use braid::wire::Method;
use braid::wire::proto;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
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

/// A disk that has lost all that it was given, or a copy that made the files and not what was in them.
#[test]
fn a_store_of_which_only_the_names_are_left_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), &["--reactors=1"]);
    put(&mut Client::connect(server.address), 0);
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
    let serves = |directory: &Path, puts: u64| {
        let server = Server::start(directory, &FLAGS);
        put(&mut Client::connect(server.address), puts);
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
    copy(&other, &moved);
    serves(&other, 2);
    serves(&moved, 2);
}
