#!/usr/bin/env bash
# An accept that waits in io_uring obeys the limit of open files (RLIMIT_NOFILE) of the moment at which it was
# submitted, however long it waits and whatever the limit is by then.
#
# Versions: the crate io-uring 0.7.15; Linux from 6.1 on (seen on 6.18).
# Behaviour: a server that arms a multishot accept and then raises its own limit, as servers do at their start, runs
#   out of descriptors at the old limit: the accept ends with EMFILE and without MORE, though accept(2) on the same
#   listener works. An accept submitted after the raise has the new limit. So raise first, arm then.
# Seen, limit 64 when armed, raised to 256, descriptors up to 100 in use, one connection waiting:
#   armed before: -24 (EMFILE), more to come: false
#   armed after:  accepted, more to come: true
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

cat >Cargo.toml <<'END'
[package]
name = "finding"
edition = "2021"

[dependencies]
io-uring = "=0.7.15"
libc = "0.2"
END
mkdir src
cat >src/main.rs <<'END'
use io_uring::{cqueue, opcode, types, IoUring};
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sets the soft limit.
fn limit(files: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe { assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0) };
    limit.rlim_cur = files;
    unsafe { assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0) };
}

fn arm(ring: &mut IoUring, listener: &TcpListener) {
    let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build();
    unsafe { ring.submission().push(&accept).unwrap() };
    ring.submit().unwrap();
}

fn completion(ring: &mut IoUring) -> (i32, bool) {
    ring.submit_and_wait(1).unwrap();
    let entry = ring.completion().next().unwrap();
    (entry.result(), cqueue::more(entry.flags()))
}

fn main() {
    let mut ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => return println!("skipped: io_uring is not to be had here: {error}"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    limit(64);
    arm(&mut ring, &listener);
    limit(256);
    let mut files = Vec::new();
    while files.last().map_or(0, File::as_raw_fd) < 100 {
        files.push(File::open("/dev/null").unwrap());
    }

    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (result, more) = completion(&mut ring);
    println!("armed before: {result}, more to come: {more}");

    arm(&mut ring, &listener);
    let (result, more) = completion(&mut ring);
    let what = if result >= 64 { "accepted".to_owned() } else { result.to_string() };
    println!("armed after: {what}, more to come: {more}");
    if result >= 0 {
        drop(unsafe { OwnedFd::from_raw_fd(result) });
    }
}
END
nice cargo run --quiet --target-dir target >now
cat now
case $(cat now) in skipped:*) exit 0 ;; esac
cat >then <<'END'
armed before: -24, more to come: false
armed after: accepted, more to come: true
END
diff then now || { echo "CHANGED: < is how it was, > how it is"; exit 1; }
