//! What a million keys of 48 bytes with values of 256 cost in memory, and what one operation takes.
//!
//! `cargo bench --bench memory` (or with a number of keys behind `--`).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)] // a bench reads files of the system

use braid::mvcc::{Budget, HashKv, Store};
use braid::stdx::Rng;
use braid::types::{At, Blob, KeyRange, LeaseId, Revision, Sub};
use bytes::Bytes;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// 48 bytes, as Kubernetes names things; the order of `n` is not the order of keys.
fn key(n: u64) -> Vec<u8> {
    let spread = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("/registry/pods/ns-{:03}/daemonset-{:016x}", spread % 200, spread).into_bytes()
}

/// Time on a processor, so that a busy machine does not count as much.
fn busy_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split(' ').next().unwrap().parse().unwrap()
}

fn timed(name: &str, times: u64, mut run: impl FnMut(u64)) {
    let start = busy_ns();
    (0..times).for_each(&mut run);
    println!("{name:<44} {:>9} ns", (busy_ns() - start) / times);
}

struct Bench {
    store: Store,
    keys: u64,
    head: u64,
}

impl Bench {
    fn put(&mut self, n: u64) {
        self.head += 1;
        let at = At { main: Revision(self.head), sub: Sub(0) };
        let key = key(n);
        assert_eq!(key.len(), 48);
        black_box(self.store.put(at, &key, Blob::new(&[b'v'; VALUE_BYTES]), LeaseId::NONE));
        if self.head.is_multiple_of(100) {
            self.store.settle(Revision(self.head - 50));
        }
    }

    fn report(&self, before: u64) {
        let resident = resident_bytes();
        let sizes = self.store.sizes();
        println!("resident: {} MiB for {sizes:?}", resident >> 20);
        println!("a version, all told: {} bytes", (resident - before) / sizes.versions.max(1));
    }

    fn read(&self) {
        let mut rng = Rng::new(1);
        let (store, keys, head) = (&self.store, self.keys, Revision(self.head));
        timed("make a key (part of all below)", 1_000_000, |n| {
            black_box(key(n));
        });
        timed("get", 1_000_000, |_| {
            black_box(store.get(&key(rng.below(keys)), head).unwrap());
        });
        timed("newest_meta", 1_000_000, |_| {
            black_box(store.newest_meta(&key(rng.below(keys))).unwrap());
        });
        let budget = Budget { keys: 500, bytes: usize::MAX };
        timed("range of 500", 2000, |_| {
            let range = KeyRange::From(Bytes::from(key(rng.below(keys))));
            black_box(store.range(&range, head, None, budget));
        });
        timed("count of a wide range", 100_000, |_| {
            let (a, b) = (key(rng.below(keys)), key(rng.below(keys)));
            let (a, b) = (Bytes::from(a.clone().min(b.clone())), Bytes::from(a.max(b)));
            black_box(store.count(&KeyRange::Between(a, b), head, None, 1));
        });
        let mut hash = HashKv::new(store.compacted());
        let mut after = At::default();
        let mut versions = 0;
        let start = busy_ns();
        loop {
            let part = store.history(after, head, Budget { keys: 1000, bytes: usize::MAX });
            versions += part.changes.len() as u64;
            part.changes.iter().for_each(|(at, change)| hash.add(*at, change));
            after = part.resume;
            if part.done {
                break;
            }
        }
        let each = (busy_ns() - start) / versions;
        println!("{:<44} {each:>9} ns ({:08x})", "history and HashKV, a version", hash.finish());
    }

    fn compact(&mut self) {
        self.store.settle(Revision(self.head));
        self.store.compact(Revision(self.head));
        let (start, mut slices) = (busy_ns(), 0);
        let versions = self.store.sizes().versions;
        while !self.store.compact_slice(1000) {
            slices += 1;
        }
        let each = (busy_ns() - start) / (versions - self.keys).max(1);
        println!("{:<44} {each:>9} ns, in {slices} slices", "compact, a version dropped");
    }
}

fn main() {
    let keys = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(KEYS);
    let before = resident_bytes();
    let mut bench = Bench { store: Store::new(), keys, head: 1 };
    timed("put of a new key, random order", keys, |n| bench.put(n));
    bench.report(before);
    bench.read();
    let mut rng = Rng::new(2);
    timed("put of a key that exists", keys, |_| bench.put(rng.below(keys)));
    bench.report(before);
    bench.read();
    bench.compact();
    bench.report(before);
    bench.read();
}
