//! etcd's HashKV, bit for bit.
//!
//! etcd walks its `key` bucket in the order of revisions and feeds CRC-32C with the bucket's name, then
//! with each bucket key (main and sub as 8 bytes big-endian with `_` between, a `t` behind a tombstone) and
//! each marshalled `mvccpb.KeyValue`. Zero fields are left out; a tombstone has its key only.
//!
//! What is above the compacted revision C counts. Of the rest, only what is still the state of a live key
//! *at the revision hashed* counts (etcd calls this set "keep"): a tombstone never, and a version not if a
//! later change at or below that revision took its place. A law of etcd alone: where that set is empty, so
//! that no key at all is live at the revision hashed, nothing is skipped but tombstones at exactly C, and
//! what compaction keeps counts. Which of the two holds is known only at the end; so two sums run until the
//! first live key is seen.

use super::HistoryChange;
use crate::types::{At, Event, KeyValue, Revision};

/// The running hash. One for all shards: changes come in the order of [`At`] over all of them.
#[derive(Clone, Debug)]
pub struct HashKv {
    compacted: Revision,
    previous: At,
    /// Skips what is superseded.
    strict: u32,
    /// Skips only tombstones at the compacted revision; given up once a live key is seen.
    lenient: Option<u32>,
    buffer: Vec<u8>,
}

impl HashKv {
    /// A hash at a revision, with the compaction in effect ([`Revision::NONE`] where there was none).
    pub fn new(compacted: Revision) -> HashKv {
        let seed = crc32c::crc32c(b"key");
        HashKv { compacted, previous: At::default(), strict: seed, lenient: Some(seed), buffer: Vec::new() }
    }

    /// Takes a change of the history up to the revision hashed. Panics where the order is not ascending.
    pub fn add(&mut self, at: At, change: &HistoryChange) {
        assert!(at > self.previous, "history is hashed in order");
        self.previous = at;
        let kept = change.last && matches!(change.event, Event::Put(_));
        if kept {
            self.lenient = None;
        }
        let counts = kept || at.main > self.compacted;
        if !counts && at.main == self.compacted && matches!(change.event, Event::Delete { .. }) {
            return;
        }
        if !counts && self.lenient.is_none() {
            return;
        }
        self.buffer.clear();
        marshal(&mut self.buffer, at, &change.event);
        if counts {
            self.strict = crc32c::crc32c_append(self.strict, &self.buffer);
        }
        self.lenient = self.lenient.map(|sum| crc32c::crc32c_append(sum, &self.buffer));
    }

    /// The hash as etcd's `HashKVResponse.hash` has it.
    pub fn finish(&self) -> u32 {
        self.lenient.unwrap_or(self.strict)
    }
}

fn marshal(out: &mut Vec<u8>, at: At, event: &Event) {
    out.extend_from_slice(&at.main.0.to_be_bytes());
    out.push(b'_');
    out.extend_from_slice(&u64::from(at.sub.0).to_be_bytes());
    match event {
        Event::Put(kv) => marshal_key_value(out, kv),
        Event::Delete { key, .. } => {
            out.push(b't');
            bytes_field(out, 1, key);
        }
    }
}

fn marshal_key_value(out: &mut Vec<u8>, kv: &KeyValue) {
    bytes_field(out, 1, &kv.key);
    number_field(out, 2, kv.create_revision.0);
    number_field(out, 3, kv.mod_revision.0);
    number_field(out, 4, kv.version);
    bytes_field(out, 5, &kv.value);
    number_field(out, 6, kv.lease.0.cast_unsigned());
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(field << 3 | 2);
        varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn number_field(out: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        out.push(field << 3);
        varint(out, number);
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::super::{Budget, Store};
    use super::*;
    use crate::types::{Blob, KeyRange, LeaseId, Sub};

    /// The store of etcd's script, and the hashes etcd made while it compacted.
    #[derive(Default)]
    struct Replay {
        store: Store,
        head: u64,
        subs: u32,
        compactions: Vec<(u64, u32)>,
    }

    impl Replay {
        fn at(&self) -> At {
            At { main: Revision(self.head + 1), sub: Sub(self.subs) }
        }

        fn operation(&mut self, text: &str) {
            let text = text.replace("LONG", &"x".repeat(150));
            if let Some(key) = text.strip_prefix('-') {
                self.subs += u32::from(self.store.delete(self.at(), key.as_bytes()).is_some());
                return;
            }
            let (key, put) = text.split_once('=').unwrap();
            let (length, lease) = put.split_once('@').unwrap();
            let value = Blob::new("v".repeat(length.parse().unwrap()).as_bytes());
            self.store.put(self.at(), key.as_bytes(), value, LeaseId(lease.parse().unwrap()));
            self.subs += 1;
        }

        fn commit(&mut self) {
            self.head += u64::from(self.subs > 0);
            self.subs = 0;
            self.store.settle(Revision(self.head));
        }

        fn hash(&self, revision: u64) -> u32 {
            let mut hash = HashKv::new(self.store.compacted());
            let history = self.store.history(At::default(), Revision(revision), Budget::UNBOUNDED);
            for (at, change) in &history.changes {
                hash.add(*at, change);
            }
            hash.finish()
        }

        fn line(&mut self, line: &str) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "put" | "txn" => words[1..].iter().for_each(|word| self.operation(word)),
                "delete" => words[1..].iter().for_each(|word| self.operation(&format!("-{word}"))),
                "delete-all" => {
                    let at = Revision(self.head);
                    let all = self.store.range(&KeyRange::everything(), at, None, Budget::UNBOUNDED);
                    for kv in all.kvs {
                        self.operation(&format!("-{}", std::str::from_utf8(&kv.key).unwrap()));
                    }
                }
                "compact" => {
                    let revision = words[1].parse().unwrap();
                    self.compactions.push((revision, self.hash(revision)));
                    self.store.compact(Revision(revision));
                }
                other => panic!("{other}"),
            }
            self.commit();
        }
    }

    /// The script ran against etcd 3.7.1, whose answers are the lines `hash <revision> <compact revision>
    /// <hash>`. Asked for the revision of a compaction, etcd gives the hash it made while compacting, which
    /// is over what was there before.
    #[test]
    fn hashes_are_those_of_etcd() {
        for slices_after_each_line in [0, 1, 1000] {
            let mut replay = Replay { head: 1, ..Replay::default() };
            for line in include_str!("hashkv.txt").lines() {
                let Some(numbers) = line.strip_prefix("hash ") else {
                    replay.line(line);
                    (0..slices_after_each_line).any(|_| replay.store.compact_slice(1));
                    continue;
                };
                let numbers: Vec<i64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
                let [revision, compacted, expected] = numbers[..] else { panic!("{line}") };
                let effective = replay.store.compacted().0.cast_signed();
                let hash = if compacted == effective || effective == 0 {
                    replay.hash(revision.cast_unsigned())
                } else {
                    let made = replay.compactions.iter().find(|(at, _)| at.cast_signed() == revision);
                    made.expect("a compaction of this revision").1
                };
                assert_eq!(i64::from(hash), expected, "{line}");
            }
        }
    }
}
