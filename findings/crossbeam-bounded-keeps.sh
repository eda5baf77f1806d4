#!/usr/bin/env bash
# When the last receiver of a crossbeam channel goes, what is still in the channel is dropped at once if the channel
# is unbounded, and kept if it is bounded, for as long as any sender lives.
#
# Versions: crossbeam 0.8.5 with crossbeam-channel 0.5.17; the standard library's channels beside them.
# Behaviour: send() on either says at once that nobody receives; but requests that lie in a bounded channel stay
#   alive, with all that they own. If a request carries the sender for its reply, as requests between threads do,
#   the asker sees "disconnected" from an unbounded channel and from both of the standard library's, but "empty"
#   from a bounded one: nothing tells it that the thread which would answer has ended, until every clone of the
#   request sender is gone.
# Seen (what try_recv() for the reply says):
#   crossbeam unbounded: Disconnected, and when the senders are gone too: Disconnected
#   crossbeam bounded:   Empty,        and when the senders are gone too: Disconnected
#   std channel:         Disconnected, and when the senders are gone too: Disconnected
#   std sync_channel:    Disconnected, and when the senders are gone too: Disconnected
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

cat >Cargo.toml <<'END'
[package]
name = "finding"
edition = "2021"

[dependencies]
crossbeam = "=0.8.5"
crossbeam-channel = "=0.5.17"
END
mkdir src
cat >src/main.rs <<'END'
use crossbeam::channel::{bounded, unbounded, Sender};
use std::sync::mpsc;

/// A request: where its reply goes.
type Request = Sender<()>;

fn ask<S, R>(name: &str, requests: S, receiver: R, send: impl Fn(&S, Request)) {
    let (reply, replies) = bounded(1);
    send(&requests, reply);
    drop(receiver);
    let before = replies.try_recv().unwrap_err();
    drop(requests);
    let after = replies.try_recv().unwrap_err();
    println!("{name}: {before:?}, and when the senders are gone too: {after:?}");
}

fn main() {
    let (requests, receiver) = unbounded();
    ask("crossbeam unbounded", requests, receiver, |requests, reply| requests.send(reply).unwrap());
    let (requests, receiver) = bounded(8);
    ask("crossbeam bounded", requests, receiver, |requests, reply| requests.send(reply).unwrap());
    let (requests, receiver) = mpsc::channel();
    ask("std channel", requests, receiver, |requests, reply| requests.send(reply).unwrap());
    let (requests, receiver) = mpsc::sync_channel(8);
    ask("std sync_channel", requests, receiver, |requests, reply| requests.send(reply).unwrap());
}
END
nice cargo run --quiet --target-dir target >now
cat >then <<'END'
crossbeam unbounded: Disconnected, and when the senders are gone too: Disconnected
crossbeam bounded: Empty, and when the senders are gone too: Disconnected
std channel: Disconnected, and when the senders are gone too: Disconnected
std sync_channel: Disconnected, and when the senders are gone too: Disconnected
END
cat now
diff then now || { echo "CHANGED: < is how it was, > how it is"; exit 1; }
