//! All members but one are lost for ever, and that one is started with `--force-new-cluster`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use super::client::Client;
use super::cluster::{
    command_of, count, count_of, flags_of, flags_of_one_that_is_joined, leads, put, start, start_all,
};
use super::process::{Server, until};
use braid::wire::{Method, proto};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const FORCED: &str = "forcing restart member: all other members are removed";

fn kill(mut server: Server) {
    server.child.kill().unwrap();
    server.child.wait().unwrap();
}

fn stop(server: Server) {
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
}

/// Three members with thirty keys, of which none is left; and their flags.
fn three_dead(root: &Path) -> (Vec<PathBuf>, Vec<Vec<String>>) {
    let directories: Vec<_> = (0..3).map(|at| root.join(format!("m{at}"))).collect();
    let flags = flags_of(3);
    let servers = start_all(&directories, &flags);
    for at in 0..30 {
        assert_eq!(put(&servers[at % 3], &format!("{at}")), at as i64 + 2);
    }
    servers.iter().for_each(|server| assert_eq!(count(server), (31, 30)));
    servers.into_iter().for_each(kill);
    (directories, flags)
}

fn with_force(flags: &[String]) -> Vec<String> {
    [flags, &["--force-new-cluster".to_owned()]].concat()
}

/// The ids of those that vote.
fn list(server: &Server) -> Vec<u64> {
    let request = proto::MemberListRequest { linearizable: true };
    let list: proto::MemberListResponse = Client::connect(server.address).call(Method::MemberList, &request);
    let voters = list.members.iter().filter(|member| !member.is_learner);
    voters.map(|member| member.id).collect()
}

fn is_to_be_alone(directory: &Path) -> bool {
    let text = std::fs::read_to_string(directory.join("braid.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&text).unwrap();
    identity["is_to_be_alone"].as_bool().unwrap()
}

#[test]
fn one_of_three_goes_on_alone_and_the_others_are_removed() {
    let root = tempfile::tempdir().unwrap();
    let (directories, flags) = three_dead(root.path());
    let (own, forced) = (&directories[1], with_force(&flags[1]));
    let alone = start(own, &forced);
    assert!(alone.before.contains(FORCED), "{}", alone.before);
    assert_eq!(count(&alone), (31, 30));
    until("the others are removed", || list(&alone).len() == 1);
    assert_eq!(put(&alone, "alone"), 32);
    until("it is done", || !is_to_be_alone(own));
    stop(alone);

    for flags in [&flags[1], &forced, &flags[1]] {
        let again = start(own, flags);
        assert!(!again.before.contains(FORCED), "it is alone: {}", again.before);
        assert_eq!((count(&again), list(&again).len()), ((32, 31), 1));
        stop(again);
    }
    let alone = start(own, &flags[1]);
    for other in [0, 2] {
        let ended = command_of(&directories[other], &flags[other]).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let words = "the member has been permanently removed from the cluster";
        assert!(ended.status.code() == Some(1) && said.contains(words), "{said}");
    }
    assert_eq!(put(&alone, "after"), 33);
    // etcd's law: of this its own log knows nothing, and its operator says that the others are lost.
    let other = start(&directories[0], &with_force(&flags[0]));
    assert_eq!(count(&other), (31, 30));
    until("the others are removed", || list(&other).len() == 1);
    assert_ne!(list(&other), list(&alone));
    stop(other);
    stop(alone);
}

/// Nobody else is left to promote it.
#[test]
fn a_learner_that_is_left_votes() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("m0"), root.path().join("m1"));
    let (flags, second) = flags_of_one_that_is_joined();
    let one = start(&old, &flags[0]);
    for at in 0..20 {
        put(&one, &format!("{at}"));
    }
    let add = proto::MemberAddRequest { peer_urls: vec![second], is_learner: true };
    let added: proto::MemberAddResponse = Client::connect(one.address).call(Method::MemberAdd, &add);
    let learner = start(&new, &flags[1]);
    until("it shows all", || count_of(&learner, true) == (21, 20));
    kill(one);
    kill(learner);
    let alone = start(&new, &with_force(&flags[1]));
    assert_eq!(count(&alone), (21, 20));
    until("it is the only member", || list(&alone) == [added.member.as_ref().unwrap().id]);
    assert_eq!(put(&alone, "alone"), 22);
    until("it is done", || !is_to_be_alone(&new));
    kill(alone);
    let again = start(&new, &flags[1]);
    assert_eq!((count(&again), list(&again).len()), ((22, 21), 1));
    stop(again);
}

/// Whatever it had done by then.
#[test]
fn one_that_is_killed_on_the_way_comes_to_the_same() {
    let root = tempfile::tempdir().unwrap();
    let (directories, flags) = three_dead(root.path());
    let own = &directories[2];
    for millis in (0..16).map(|at| 8 * at) {
        // What has begun is ended, whether its operator says so again or not.
        let forced = if is_to_be_alone(own) { flags[2].clone() } else { with_force(&flags[2]) };
        let mut child = command_of(own, &forced).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let alone = start(own, &with_force(&flags[2]));
    assert_eq!(count(&alone), (31, 30));
    until("the others are removed", || list(&alone).len() == 1);
    assert_eq!(put(&alone, "alone"), 32);
    until("it is done", || !is_to_be_alone(own));
    kill(alone);
    let again = start(own, &flags[2]);
    assert_eq!((count(&again), list(&again).len()), ((32, 31), 1));
    stop(again);
}

/// All die at once, in the midst of writes, and each is taken for the one that is left. What the others have made
/// durable for a leader may be lost with them.
#[test]
fn what_a_member_has_shown_is_there_and_no_revision_is_missing_before_what_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let directories: Vec<_> = (0..3).map(|at| root.path().join(format!("m{at}"))).collect();
    let flags = flags_of(3);
    let servers = start_all(&directories, &flags);
    let answered = [0, 1, 2].map(AtomicI64::new);
    let mut led: Vec<usize> = vec![];
    let who_leads = || (0..3).filter(|at| leads(&servers[*at]));
    led.extend(who_leads());
    std::thread::scope(|scope| {
        let (servers, answered) = (&servers, &answered);
        let write = move |at: usize| {
            for number in 0.. {
                answered[at].store(put(&servers[at], &format!("{at} {number}")), Ordering::Relaxed);
            }
        };
        let writers = [0, 1, 2].map(|at| scope.spawn(move || write(at)));
        until("all write", || answered.iter().all(|answered| answered.load(Ordering::Relaxed) > 100));
        led.extend(who_leads());
        servers.iter().for_each(|server| server.signal("-KILL"));
        writers.into_iter().for_each(|writer| assert!(writer.join().is_err(), "its server is gone"));
    });
    drop(servers);
    for (at, directory) in directories.iter().enumerate() {
        let alone = start(directory, &with_force(&flags[at]));
        let (revision, keys) = count(&alone);
        assert_eq!(revision, keys + 1, "each has written a key of its own");
        let answered = answered[at].load(Ordering::Relaxed);
        assert!(
            led.contains(&at) || revision >= answered,
            "m{at} has answered {answered}, and has {revision}"
        );
        assert_eq!(put(&alone, "alone"), revision + 1);
        until("it is done", || !is_to_be_alone(directory));
        kill(alone);
        let again = start(directory, &flags[at]);
        assert_eq!((count(&again), list(&again).len()), ((revision + 1, keys + 1), 1));
        stop(again);
    }
}

/// As with etcd, whose flag says nothing of a directory that begins.
#[test]
fn one_that_begins_or_is_alone_is_not_forced() {
    let root = tempfile::tempdir().unwrap();
    let flags = ["--reactors=2".to_owned(), "--force-new-cluster".to_owned()];
    for revision in [2, 3] {
        let server = start(root.path(), &flags);
        assert!(!server.before.contains(FORCED), "{}", server.before);
        assert_eq!(put(&server, "a"), revision);
        stop(server);
    }
}
