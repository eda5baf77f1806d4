#!/usr/bin/env bash
# With `batch_append`, a leader of raft-rs puts entries into an append that waits to be sent without asking whether
# they follow its index, when that append is empty: what goes out says "after 3" and begins with entry 2.
#
# Versions: raft 0.7.0.
# Behaviour: entries may join a waiting append if they continue the entries in it; to an append without entries, such
#   as one that only tells of a commit, anything may be joined, and its index and log term stay as they were. It
#   comes to that when a loop steps several messages before it asks for ready(): the acknowledgement of one follower
#   moves the commit, and an empty append waits for the other; then the other's rejection moves it back to Probe,
#   and what it lacks goes into that append. The follower refuses the message, although it lacks just these entries.
#   The leader ignores the second refusal as an old one, and sends no more entries until a heartbeat is answered.
#   Without batch_append the entries go in an append of their own, and the follower takes them at once. So: leave
#   it off (the default), or drop, as if lost, every append whose first entry is not index + 1.
# Seen, leader 1, followers 2 and 3, the append of entry 2 to 3 lost, that of entry 3 delivered:
#   batch_append false: index 3 without entries (rejected, twice), index 1 with entries 2, 3 (accepted)
#   batch_append true:  index 3 with entries 2, 3 (rejected); 3 stays at last 1, commit 1 until the next heartbeat
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

cat >Cargo.toml <<'END'
[package]
name = "finding"
edition = "2021"

[dependencies]
raft = { version = "=0.7.0", default-features = false, features = ["protobuf-codec"] }
slog = "2"
END
mkdir src
cat >src/main.rs <<'END'
use raft::prelude::{Config, Message, MessageType, RawNode};
use raft::storage::MemStorage;

type Node = RawNode<MemStorage>;

fn node(id: u64, batch_append: bool) -> Node {
    let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
    let config = Config { id, batch_append, max_size_per_msg: 1 << 20, ..Config::default() };
    RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!())).unwrap()
}

/// Persists and applies what a node has ready, and returns what it sends.
fn turn(node: &mut Node) -> Vec<Message> {
    let mut sent = Vec::new();
    while node.has_ready() {
        let mut ready = node.ready();
        sent.extend(ready.take_messages());
        node.mut_store().wl().append(ready.entries()).unwrap();
        if let Some(state) = ready.hs() {
            node.mut_store().wl().set_hardstate(state.clone());
        }
        sent.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            node.mut_store().wl().mut_hard_state().set_commit(commit);
        }
        sent.extend(light.take_messages());
        node.advance_apply();
    }
    sent
}

/// Carries messages until nobody has any.
fn settle(nodes: &mut [Node]) {
    loop {
        let sent: Vec<Message> = nodes.iter_mut().flat_map(turn).collect();
        if sent.is_empty() {
            return;
        }
        for message in sent {
            let to = message.to as usize - 1;
            nodes[to].step(message).unwrap();
        }
    }
}

fn show(what: &str, node: &Node) {
    println!("  {what}: 3 has last {}, commit {}", node.raft.raft_log.last_index(), node.raft.raft_log.committed);
}

fn run(batch_append: bool) {
    println!("batch_append {batch_append}");
    let mut nodes = vec![node(1, batch_append), node(2, batch_append), node(3, batch_append)];
    nodes[0].campaign().unwrap();
    settle(&mut nodes);
    show("elected", &nodes[2]);

    // Entry 2 reaches node 2 only, entry 3 reaches both. The answers wait in the leader's inbox, 2's before 3's.
    let (mut inbox, mut late) = (Vec::new(), Vec::new());
    for lost in [true, false] {
        nodes[0].propose(Vec::new(), b"write".to_vec()).unwrap();
        for message in turn(&mut nodes[0]) {
            if message.to == 2 {
                nodes[1].step(message).unwrap();
                inbox.extend(turn(&mut nodes[1]));
            } else if !lost {
                nodes[2].step(message).unwrap();
                late.extend(turn(&mut nodes[2]));
            }
        }
    }
    inbox.extend(late);

    // The leader drains its inbox, and then sees what is ready.
    for message in inbox {
        let verdict = if message.reject { "refuses what comes after" } else { "has all up to" };
        println!("  the leader is told: {} {verdict} {}", message.from, message.index);
        nodes[0].step(message).unwrap();
    }
    let mut answers = Vec::new();
    for message in turn(&mut nodes[0]) {
        if message.to != 3 {
            continue;
        }
        assert_eq!(message.get_msg_type(), MessageType::MsgAppend);
        let entries: Vec<u64> = message.entries.iter().map(|entry| entry.index).collect();
        print!("  append to 3: index {}, entries {entries:?}", message.index);
        nodes[2].step(message).unwrap();
        let answer = turn(&mut nodes[2]);
        println!(", {}", if answer[0].reject { "rejected" } else { "accepted" });
        answers.extend(answer);
    }
    show("then", &nodes[2]);

    for answer in answers {
        nodes[0].step(answer).unwrap();
    }
    settle(&mut nodes);
    show("when its answers are carried and nobody has a message", &nodes[2]);
    nodes[0].ping();
    settle(&mut nodes);
    show("after a heartbeat", &nodes[2]);
}

fn main() {
    run(false);
    run(true);
}
END
nice cargo run --quiet --target-dir target >now
cat >then <<'END'
batch_append false
  elected: 3 has last 1, commit 1
  the leader is told: 2 has all up to 2
  the leader is told: 2 has all up to 3
  the leader is told: 3 refuses what comes after 2
  append to 3: index 3, entries [], rejected
  append to 3: index 3, entries [], rejected
  append to 3: index 1, entries [2, 3], accepted
  then: 3 has last 3, commit 3
  when its answers are carried and nobody has a message: 3 has last 3, commit 3
  after a heartbeat: 3 has last 3, commit 3
batch_append true
  elected: 3 has last 1, commit 1
  the leader is told: 2 has all up to 2
  the leader is told: 2 has all up to 3
  the leader is told: 3 refuses what comes after 2
  append to 3: index 3, entries [2, 3], rejected
  then: 3 has last 1, commit 1
  when its answers are carried and nobody has a message: 3 has last 1, commit 1
  after a heartbeat: 3 has last 3, commit 3
END
cat now
diff then now || { echo "CHANGED: < is how it was, > how it is"; exit 1; }
