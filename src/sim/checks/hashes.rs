//! HashKV, made anew from what the observer saw, in etcd's words: CRC-32C over the name of the bucket and, in
//! the order of revisions, each revision's key and its marshalled `KeyValue`.

use super::{Evidence, Record};
use crate::sim::world::Failure;
use crate::wire::Method;
use crate::wire::proto::{self, Message};
use std::collections::BTreeMap;

/// Every hash that a client got is that of the history it names. Hash names no compaction: it is HashKV's with
/// one that may have been in effect.
pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    check_whole(evidence)?;
    let hashes = evidence.history.ops.iter().enumerate();
    for (call, op) in hashes.filter(|(_, op)| op.method == Method::HashKv && op.is_ok()) {
        let hash = proto::HashKvResponse::decode(op.messages[0].clone()).expect("it is protobuf");
        let compacted = hash.compact_revision.max(0);
        let expected = hash_kv(&evidence.record, hash.hash_revision, compacted);
        if hash.hash != expected {
            let what = format!("call {call}: {hash:?}, of history as it was seen: {expected}");
            return Err(Failure::new("hash", what));
        }
    }
    Ok(())
}

fn check_whole(evidence: &Evidence<'_>) -> Result<(), Failure> {
    if evidence.history.known.compacts_itself {
        return Ok(()); // to any revision
    }
    let hashes = evidence.history.ops.iter().enumerate();
    for (call, op) in hashes.filter(|(_, op)| op.method == Method::Hash && op.is_ok()) {
        let hash = proto::HashResponse::decode(op.messages[0].clone()).expect("it is protobuf");
        let upto = hash.header.map_or(0, |header| header.revision);
        let surely = evidence.compacted_for(op);
        let asked = evidence.compactions.iter().map(|(_, revision)| *revision).filter(|c| *c >= surely);
        let mut known = std::iter::once(surely).chain(asked);
        if !known.any(|compacted| hash_kv(&evidence.record, upto, compacted) == hash.hash) {
            let what = format!("call {call}: {hash:?} is that of no history up to {upto} as it was seen");
            return Err(Failure::new("hash", what));
        }
    }
    Ok(())
}

/// One change, by its revision and its place there.
type Place = (i64, i64);

fn hash_kv(record: &Record, upto: i64, compacted: i64) -> u32 {
    let mut changes: BTreeMap<Place, &proto::Event> = BTreeMap::new();
    let mut newest: BTreeMap<&[u8], Place> = BTreeMap::new();
    let mut newest_compacted: BTreeMap<&[u8], Place> = BTreeMap::new();
    for (revision, events) in record.range(..=upto) {
        for (sub, event) in events.iter().enumerate() {
            let place = (*revision, sub as i64);
            changes.insert(place, event);
            newest.insert(key_of(event), place);
            if *revision <= compacted {
                newest_compacted.insert(key_of(event), place);
            }
        }
    }
    let is_put = |place: &Place| changes[place].r#type == 0;
    let live: Vec<Place> = newest.into_values().filter(is_put).collect();
    // etcd's law: where nothing is live, what compaction keeps counts as well.
    let mut kept: Vec<Place> = match live.is_empty() {
        false => live.into_iter().filter(|(revision, _)| *revision <= compacted).collect(),
        true => newest_compacted.into_values().filter(is_put).collect(),
    };
    kept.sort();
    let above = changes.range((compacted + 1, 0)..).map(|(place, _)| *place);
    let mut sum = crc32c::crc32c(b"key");
    for place in kept.into_iter().chain(above) {
        sum = crc32c::crc32c_append(sum, &marshalled(place, changes[&place]));
    }
    sum
}

fn key_of(event: &proto::Event) -> &[u8] {
    event.kv.as_ref().map_or(&[], |kv| &kv.key)
}

fn marshalled((main, sub): Place, event: &proto::Event) -> Vec<u8> {
    let mut bytes = main.to_be_bytes().to_vec();
    bytes.push(b'_');
    bytes.extend_from_slice(&sub.to_be_bytes());
    let kv = event.kv.clone().unwrap_or_default();
    if event.r#type == 0 {
        bytes.extend(kv.encode_to_vec());
    } else {
        bytes.push(b't');
        bytes.extend(proto::KeyValue { key: kv.key, ..Default::default() }.encode_to_vec());
    }
    bytes
}
