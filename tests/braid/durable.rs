//! What the program asks of the kernel so that names of files outlast a power cut, as `strace` sees it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::client::Client;
use crate::process::{Server, behind};
use braid::wire::Method;
use braid::wire::proto;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CALLS: &str = "trace=?mkdir,?mkdirat,?rename,?renameat,?renameat2,fsync,fdatasync";

/// A call, of the file named last in it.
#[derive(Debug, PartialEq)]
enum Call {
    Names(PathBuf),
    Syncs(PathBuf),
}

/// One line: a thread, a call and what it was given, maybe without its end.
fn call(line: &str) -> Option<(u32, Call)> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, given) = rest.trim_start().split_once('(')?;
    let call = match name {
        "fsync" | "fdatasync" => {
            let path = given.split_once('<')?.1;
            Call::Syncs(path.split_once('>')?.0.into())
        }
        _ if given.contains(") = -1") => return None,
        _ => Call::Names(given.rsplit('"').nth(1)?.into()),
    };
    Some((thread.parse().ok()?, call))
}

/// Runs a server until it has answered a put and a defragmentation, and gives the calls of its threads, in order.
fn trace(data: &Path, trace: &Path) -> Vec<(u32, Call)> {
    let server = Server::start_as(data, &["--reactors=2"], |command| {
        // The server stays this process' child.
        let words = ["strace", "-D", "-f", "-qq", "-y", "-e", CALLS, "-o"].map(OsStr::new);
        behind(command, &[&words[..], &[trace.as_os_str()]].concat())
    });
    let mut client = Client::connect(server.address);
    let put = proto::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    client.call::<proto::PutResponse>(Method::Put, &put);
    client.call::<proto::DefragmentResponse>(Method::Defragment, &proto::DefragmentRequest {});
    server.signal("-TERM");
    server.end();
    fs::read_to_string(trace).unwrap().lines().filter_map(call).collect()
}

#[test]
fn a_name_is_made_durable_by_who_gives_it_and_by_who_finds_it() {
    let root = tempfile::tempdir().unwrap();
    let (above, log) = (root.path().canonicalize().unwrap(), root.path().join("log"));
    let traced = Command::new("strace").args(["-qq", "-o"]).arg(&log).arg("true").status();
    if !traced.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no strace, or it may not trace here");
        return;
    }
    let data = above.join("a/b");
    let (first, second) = (trace(&data, &log), trace(&data, &log));
    for calls in [&first, &second] {
        let mut threads: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
        calls.iter().for_each(|(thread, call)| threads.entry(*thread).or_default().push(call));
        for calls in threads.values() {
            for (at, call) in calls.iter().enumerate() {
                let Call::Names(path) = call else { continue };
                let synced = Call::Syncs(path.parent().unwrap().into());
                assert!(calls[at..].contains(&&synced), "{path:?} is not made durable: {calls:?}");
            }
        }
    }
    let named = |path: &Path| first.iter().any(|(_, call)| *call == Call::Names(path.into()));
    for name in ["a", "a/b", "a/b/braid.json", "a/b/store", "a/b/store/000-0000000000000001.log"] {
        assert!(named(&above.join(name)), "{name}: {first:?}");
    }
    // Names that a killed process has given: before anything is read that rests on them.
    let of_store = second.iter().map(|(_, call)| call).find(|call| {
        let (Call::Names(path) | Call::Syncs(path)) = call;
        path.starts_with(data.join("store"))
    });
    assert_eq!(of_store, Some(&Call::Syncs(data.join("store"))));
}
