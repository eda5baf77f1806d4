//! `braid dump-log` against what a watch has seen, and against what it must not touch.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use crate::client::Client;
use crate::process::Server;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use braid::wire::Method;
use braid::wire::proto::{self, request_op::Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FLAGS: [&str; 3] = ["--reactors=2", "--shards=3", "--shard-map=h,p"];

fn dump(directory: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_braid"))
        .arg("dump-log")
        .arg(directory)
        .args(flags)
        .env_clear()
        .output()
        .unwrap()
}

/// The lines of a dump that succeeds.
fn dumped(directory: &Path) -> Vec<Value> {
    let output = dump(directory, &["--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Name, length and checksum of all that lies in a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, (usize, u32)> {
    let (mut files, mut open) = (BTreeMap::new(), vec![directory.to_path_buf()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                files.insert(path, (bytes.len(), crc32c::crc32c(&bytes)));
            }
        }
    }
    files
}

/// One line an event, from the dump: the writes from a revision on.
fn events_dumped(lines: &[Value], from: u64) -> Vec<Value> {
    let mut events = vec![];
    for write in lines.iter().filter(|line| line["type"] == "write") {
        let revision = write["revision"].as_u64().unwrap();
        for (sub, event) in (0..).zip(write["events"].as_array().unwrap()) {
            assert_eq!(event["sub"], sub, "{write}");
            let mut event = event.clone();
            let fields = event.as_object_mut().unwrap();
            fields.remove("sub");
            fields.insert("revision".into(), revision.into());
            let shard = fields.remove("shard").unwrap();
            let key = STANDARD.decode(event["key"].as_str().unwrap()).unwrap();
            let home = if key < b"h".to_vec() {
                1
            } else if key < b"p".to_vec() {
                2
            } else {
                3
            };
            assert_eq!(shard, home, "{write}");
            if revision >= from {
                events.push(event);
            }
        }
    }
    events
}

/// The same line from the wire.
fn events_watched(events: &[proto::Event]) -> Vec<Value> {
    let line = |event: &proto::Event| {
        let kv = event.kv.as_ref().unwrap();
        let (key, value) = (STANDARD.encode(&kv.key), STANDARD.encode(&kv.value));
        match event.r#type {
            0 => json!({
                "type": "PUT", "revision": kv.mod_revision, "key": key, "value": value, "lease": kv.lease,
                "create_revision": kv.create_revision, "version": kv.version,
            }),
            _ => json!({"type": "DELETE", "revision": kv.mod_revision, "key": key}),
        }
    };
    events.iter().map(line).collect()
}

fn compare(dumped: &[Value], watched: &[Value]) {
    for (place, (dumped, watched)) in dumped.iter().zip(watched).enumerate() {
        assert_eq!(dumped, watched, "event {place}");
    }
    assert_eq!(dumped.len(), watched.len());
}

fn put(key: &str, value: &str, lease: i64) -> proto::PutRequest {
    let (key, value) = (key.to_string().into(), value.to_string().into());
    proto::PutRequest { key, value, lease, ..Default::default() }
}

fn delete(from: &str, to: &str) -> proto::DeleteRangeRequest {
    let (key, range_end) = (from.to_string().into(), to.to_string().into());
    proto::DeleteRangeRequest { key, range_end, prev_kv: false }
}

/// Writes of every kind. Gives the last revision.
fn write_something(client: &mut Client, leases: i64) -> i64 {
    for number in 0..40 {
        for key in ["a", "k", "z"] {
            let put = put(&format!("{key}/{number}"), &format!("\u{0}{number}"), 0);
            client.call::<proto::PutResponse>(Method::Put, &put);
        }
    }
    let ops = [
        Request::RequestPut(put("z/1", "in a transaction", 0)),
        Request::RequestDeleteRange(delete("a/1", "a/2")),
        Request::RequestPut(put("k/1", "", 0)),
        Request::RequestDeleteRange(delete("z/2", "z/3")),
        Request::RequestPut(put("a/3", "last", 0)),
    ];
    let success = ops.into_iter().map(|op| proto::RequestOp { request: Some(op) }).collect();
    let txn = proto::TxnRequest { success, ..Default::default() };
    client.call::<proto::TxnResponse>(Method::Txn, &txn);
    client.call::<proto::DeleteRangeResponse>(Method::DeleteRange, &delete("a/4", "z/5"));
    for lease in leases..leases + 3 {
        let grant = proto::LeaseGrantRequest { ttl: 600, id: lease };
        client.call::<proto::LeaseGrantResponse>(Method::LeaseGrant, &grant);
    }
    for key in ["a/leased", "z/leased"] {
        client.call::<proto::PutResponse>(Method::Put, &put(key, "x", leases));
    }
    // One with keys in two shards, one without, and one that stays.
    for id in [leases, leases + 1] {
        client.call::<proto::LeaseRevokeResponse>(Method::LeaseRevoke, &proto::LeaseRevokeRequest { id });
    }
    let last = client.call::<proto::PutResponse>(Method::Put, &put("k/end", "x", leases + 2));
    last.header.unwrap().revision
}

fn compact(client: &mut Client, revision: i64) {
    let request = proto::CompactionRequest { revision, physical: true };
    client.call::<proto::CompactionResponse>(Method::Compact, &request);
}

fn kill(server: Server) {
    server.signal("-KILL");
    assert_eq!(server.end().0, Some(9));
}

fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == name).collect()
}

#[test]
fn every_event_that_a_watch_has_seen_is_in_the_dump_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &FLAGS);
    let mut client = Client::connect(server.address);
    let watch = client.watch(1);
    let last = write_something(&mut client, 70);
    compact(&mut client, last - 5);
    let watched = events_watched(&client.events_upto(watch, last));
    assert!(watched.len() > 200);
    kill(server);

    let before = files(directory.path());
    let lines = dumped(directory.path());
    let header = &lines[0];
    assert_eq!((&header["settled"], &header["unsettled"]), (&json!(last), &json!(0)));
    assert_eq!((&header["complete_from"], &header["checkpointed"]), (&json!(2), &json!(0)));
    compare(&events_dumped(&lines, 2), &watched);
    let writes = of_type(&lines, "write");
    let revisions: Vec<i64> = writes.iter().map(|write| write["revision"].as_i64().unwrap()).collect();
    assert_eq!(revisions, (2..=last).collect::<Vec<i64>>());
    assert!(writes.iter().all(|write| write["epoch"] == writes[0]["epoch"] && write["partial"] == false));
    let ended: Vec<&Value> = writes.iter().map(|w| &w["leases_ended"]).filter(|l| **l != json!([])).collect();
    assert_eq!(ended, [&json!([70])]);
    let said: Vec<String> = of_type(&lines, "control")
        .iter()
        .map(|line| format!("{} {} {}", line["what"], line["lease"], line["revision"]).replace('"', ""))
        .collect();
    let compacted = format!("compact null {}", last - 5);
    let expected = [
        "bootstrap null null",
        "member_attributes null null",
        "lease_grant 70 null",
        "lease_grant 71 null",
        "lease_grant 72 null",
        "lease_end 71 null",
        &compacted,
    ];
    assert_eq!(said, expected);
    assert!(of_type(&lines, "control").iter().all(|line| line["void"] == false && line["shard"] == 0));
    let settled: Vec<i64> =
        of_type(&lines, "control").iter().map(|line| line["settled"].as_i64().unwrap()).collect();
    assert!(settled.is_sorted() && settled[2] > 100, "{settled:?}");
    assert_eq!((settled[0], settled[1], settled.last()), (1, 1, Some(&last)));
    assert_eq!((of_type(&lines, "fence").len(), of_type(&lines, "seal").len()), (4, 4));
    assert_eq!((of_type(&lines, "missing").len(), of_type(&lines, "damage").len()), (0, 0));

    assert_eq!(dump(directory.path(), &["--json"]).stdout, dump(directory.path(), &["--json"]).stdout);
    let text = String::from_utf8(dump(directory.path(), &[]).stdout).unwrap();
    assert!(text.contains(&format!("# settled: revision {last}\n")), "{text}");
    assert!(text.contains("  0 PUT \"a/0\" \"\\x000\" shard 1\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("revision ")).count(), revisions.len());
    assert_eq!(files(directory.path()), before);
}

/// Checkpoints take the place of the log: what they keep is dumped from the compaction on, and what follows
/// is told by logs of several epochs.
#[test]
fn history_in_checkpoints_is_dumped_from_the_compaction_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &FLAGS);
    let mut client = Client::connect(server.address);
    let first = write_something(&mut client, 70);
    kill(server);
    let server = Server::start(directory.path(), &FLAGS);
    let mut client = Client::connect(server.address);
    // The delete of a range stands exactly there.
    let deleted = client.call::<proto::DeleteRangeResponse>(Method::DeleteRange, &delete("a", "zz"));
    let compacted = deleted.header.unwrap().revision;
    assert!(compacted > first && deleted.deleted > 10);
    let middle = write_something(&mut client, 80);
    compact(&mut client, compacted);
    client.call::<proto::DefragmentResponse>(Method::Defragment, &proto::DefragmentRequest {});
    let last = write_something(&mut client, 90);
    let watch = client.watch(compacted);
    let watched = events_watched(&client.events_upto(watch, last));
    kill(server);

    let before = files(directory.path());
    let lines = dumped(directory.path());
    let header = &lines[0];
    assert_eq!((&header["settled"], &header["complete_from"]), (&json!(last), &json!(compacted)));
    assert_eq!(header["checkpointed"], json!(middle));
    let missing = json!({"type": "missing", "from": 2, "upto": compacted - 1});
    assert_eq!(of_type(&lines, "missing"), [&missing]);
    compare(&events_dumped(&lines, compacted as u64), &watched);
    for write in of_type(&lines, "write") {
        let revision = write["revision"].as_i64().unwrap();
        assert_eq!(write["partial"], revision < compacted, "{write}");
        // A reactor may have heard of the last few before its checkpoint, or not.
        assert!(revision > compacted || write["epoch"].is_null(), "{write}");
        assert!(revision <= middle || !write["epoch"].is_null(), "{write}");
    }
    let state = of_type(&lines, "control_state");
    let leases: Vec<&Value> = state[0]["leases"].as_array().unwrap().iter().map(|l| &l["lease"]).collect();
    assert_eq!((state.len(), leases), (1, vec![&json!(72), &json!(82)]));
    let control = of_type(&lines, "control");
    assert!(control.iter().all(|line| line["index"].as_u64() > state[0]["index"].as_u64()), "{control:?}");
    assert_eq!(control.iter().filter(|line| line["what"] == "lease_grant").count(), 3);
    let text = String::from_utf8(dump(directory.path(), &[]).stdout).unwrap();
    assert!(text.contains(&format!("# revisions up to {middle} come, some or all")), "{text}");
    assert_eq!(files(directory.path()), before);

    // And the server goes on as if nobody had looked.
    let server = Server::start(directory.path(), &FLAGS);
    let mut client = Client::connect(server.address);
    let answer = client.call::<proto::PutResponse>(Method::Put, &put("a", "b", 0));
    assert_eq!(answer.header.unwrap().revision, last + 1);
    kill(server);
}

fn refused(directory: &Path, words: &str) {
    let output = dump(directory, &["--json"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains(words), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_cannot_be_dumped_is_refused_with_one_line_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("braid");
    let server = Server::start(&directory, &FLAGS);
    refused(&directory, "is in use by another process: stop that one first");
    let mut client = Client::connect(server.address);
    write_something(&mut client, 70);
    kill(server);

    let [etcd, newer, older] = ["etcd", "newer", "older"].map(|name| root.path().join(name));
    fs::create_dir_all(etcd.join("member/wal")).unwrap();
    fs::create_dir(&newer).unwrap();
    fs::create_dir(&older).unwrap();
    fs::write(newer.join("braid.json"), r#"{"format": 8}"#).unwrap();
    fs::write(older.join("braid.json"), r#"{"format": 6, "store_has_begun": true}"#).unwrap();
    refused(&older, "has format 6, of a version before the first release, and this program reads format 7");
    refused(&etcd, "holds the data of etcd");
    refused(
        &newer,
        "was written by a newer program: it has format 8, and this program knows formats up to 7",
    );
    refused(&root.path().join("nowhere"), "cannot look at data directory");
    refused(root.path(), "is no data directory of Braid");
    assert!(!etcd.join("lock").exists() && !root.path().join("lock").exists());
    assert!(!root.path().join("nowhere").exists());
    let wrong = dump(&directory, &["--jsno"]);
    assert_eq!((wrong.status.code(), wrong.stdout.is_empty()), (Some(2), true));

    // A byte of an acknowledged frame rots: the server's own words say where.
    let log = directory.join("store/000-0000000000000001.log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[4096 + 600] ^= 1;
    fs::write(&log, bytes).unwrap();
    let before = files(&directory);
    let output = dump(&directory, &["--json"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("braid: log file 000-0000000000000001.log is damaged at offset 4096"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["type"], "header");
    assert_eq!(of_type(&lines, "damage").len(), told.lines().count());
    assert_eq!(files(&directory), before);
}

/// A log that breaks in its midst is read up to there, and so are the others up to what that leaves whole.
#[test]
fn a_damaged_directory_is_dumped_up_to_the_damage() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &FLAGS);
    let mut client = Client::connect(server.address);
    let watch = client.watch(1);
    let last = write_something(&mut client, 70);
    let watched = events_watched(&client.events_upto(watch, last));
    kill(server);
    // The end of the second log is gone.
    let log = directory.path().join("store/001-0000000000000001.log");
    let bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 4096 * 4096 - 20 * 4096;
    let zeroed = [&bytes[..end], &vec![0; bytes.len() - end]].concat();
    for (left, words) in
        [(&zeroed[..], "ends too early, at offset"), (&bytes[..end], "was made with 1048576")]
    {
        fs::write(&log, left).unwrap();
        let words = format!("log file 001-0000000000000001.log {words}");
        let words = words.replace("was made", &format!("has {end} bytes and was made"));
        let output = dump(directory.path(), &["--json"]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(&words), "{told}");
        assert!(
            told.contains("no part is in any log; the end is missing of what log 1 has of shard"),
            "{told}"
        );
        assert!(told.contains("braid dump-log prints what can still be read"), "{told}");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let settled = lines[0]["settled"].as_i64().unwrap();
        assert!(settled > 20 && settled < last, "{settled} of {last}");
        let upto = watched.iter().position(|event| event["revision"].as_i64().unwrap() > settled).unwrap();
        compare(&events_dumped(&lines, 2), &watched[..upto]);
        let text = String::from_utf8(dump(directory.path(), &[]).stdout).unwrap();
        assert!(!text.contains("every write is here"), "{text}");
        // A start refuses, with the same words.
        let refused = Server::try_start(directory.path(), &FLAGS).err().unwrap();
        assert!(refused.contains(&words), "{refused}");
    }
}
