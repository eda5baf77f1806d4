#!/usr/bin/env bash
# `RawNode::campaign()` of raft-rs makes a learner the leader: it asks nobody whether the node may lead, and the
# voters do not ask either.
#
# Versions: raft 0.7.0.
# Behaviour: a learner never campaigns by its timer, and refuses a transfer of the lead, both because it is not
#   promotable(). campaign() does not look: the learner asks the voters, gets their votes, leads, and what it is
#   given is committed, while the configuration of all three goes on calling it a learner. Whoever drives the
#   elections himself has to ask promotable() first.
# Seen, voters 1 and 2, learner 3:
#   promotable 3: false
#   after 100 ticks of 3: Follower in term 0
#   after campaign(): 1 and 2 are Follower, 3 is Leader, all in term 1
#   committed at each of them: 2 (the leader's empty entry, and the write proposed at 3)
#   learners as 3 sees them: {3}
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
use raft::prelude::{Config, Message, RawNode};
use raft::storage::MemStorage;

type Node = RawNode<MemStorage>;

fn node(id: u64) -> Node {
    let storage = MemStorage::new_with_conf_state((vec![1, 2], vec![3]));
    let config = Config { id, ..Config::default() };
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

fn main() {
    let mut nodes = vec![node(1), node(2), node(3)];
    println!("promotable 3: {}", nodes[2].raft.promotable());
    for _ in 0..100 {
        nodes[2].tick();
        settle(&mut nodes);
    }
    println!("after 100 ticks of 3: {:?} in term {}", nodes[2].raft.state, nodes[2].raft.term);

    nodes[2].campaign().unwrap();
    settle(&mut nodes);
    for node in &nodes {
        println!("after campaign(): {} is {:?} in term {}", node.raft.id, node.raft.state, node.raft.term);
    }

    nodes[2].propose(Vec::new(), b"write".to_vec()).unwrap();
    settle(&mut nodes);
    // The next heartbeat tells the followers of the commit.
    nodes[2].ping();
    settle(&mut nodes);
    for node in &nodes {
        println!("committed at {}: {}", node.raft.id, node.raft.raft_log.committed);
    }
    println!("learners as 3 sees them: {:?}", nodes[2].raft.prs().conf().learners());
}
END
nice cargo run --quiet --target-dir target >now
cat >then <<'END'
promotable 3: false
after 100 ticks of 3: Follower in term 0
after campaign(): 1 is Follower in term 1
after campaign(): 2 is Follower in term 1
after campaign(): 3 is Leader in term 1
committed at 1: 2
committed at 2: 2
committed at 3: 2
learners as 3 sees them: {3}
END
cat now
diff then now || { echo "CHANGED: < is how it was, > how it is"; exit 1; }
