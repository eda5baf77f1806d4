//! Watches of revisions with many changes.

use super::*;
use crate::mvcc::Budget;

const KEYS: usize = 100;

/// Turns until a call is answered.
fn turns_until_answered(member: &mut Member, call: http2::StreamId) -> usize {
    let turns = (1..1000).find(|_| {
        member.turn_all();
        member.statuses.iter().any(|(of, ..)| *of == call.number())
    });
    turns.expect("it is answered")
}

/// A delete of many keys is published over many turns: others are served meanwhile, and the watcher gets it in
/// one piece, though a compaction comes in between.
#[test]
fn a_large_revision_is_published_in_slices_and_arrives_whole() {
    for reactors in [1, 2] {
        let one = Budget { keys: 1, ..Budget::SLICE };
        let mut member = Member::with(reactors, Settings { slice: one, ..settings(2) });
        let router = member.reactors[0].router();
        let shard = |byte: u8| router.shard_of(&[byte]);
        let prefix = b'a';
        let other = (1..=255).find(|byte| shard(*byte) != shard(prefix)).expect("there are two shards");
        let put = |key: Vec<u8>| proto::PutRequest { key: Bytes::from(key), ..Default::default() };
        let op = |n: usize| {
            let put = put([&[prefix], format!("{n:03}").as_bytes()].concat());
            proto::RequestOp { request: Some(proto::request_op::Request::RequestPut(put)) }
        };
        let txn = proto::TxnRequest { success: (0..KEYS).map(op).collect(), ..Default::default() };
        let _: proto::TxnResponse = member.call("/etcdserverpb.KV/Txn", &txn).unwrap();

        let (key, range_end) = (Bytes::from(vec![prefix]), Bytes::from(vec![prefix + 1]));
        let create = proto::WatchCreateRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            prev_kv: true,
            ..Default::default()
        };
        let watch = member.watch(create);
        let arrived = |member: &Member| -> Vec<proto::WatchResponse> {
            let answers = member.answers.iter().filter(|(of, _)| *of == watch.number());
            answers.map(|(_, bytes)| proto::WatchResponse::decode(&bytes[..]).unwrap()).collect()
        };
        assert_eq!(arrived(&member).len(), 1, "it is created");

        let delete = proto::DeleteRangeRequest { key, range_end, ..Default::default() };
        let delete = member.ask("/etcdserverpb.KV/DeleteRange", &delete);
        turns_until_answered(&mut member, delete);
        let put = member.ask("/etcdserverpb.KV/Put", &put(vec![other]));
        assert!(turns_until_answered(&mut member, put) < KEYS / 4);
        let compact = proto::CompactionRequest { revision: 4, ..Default::default() };
        let compact = member.ask("/etcdserverpb.KV/Compact", &compact);
        assert!(turns_until_answered(&mut member, compact) < KEYS / 4);
        assert_eq!(arrived(&member).len(), 1, "nobody gets a part");

        member.run();
        let [_, deleted] = &arrived(&member)[..] else { panic!("it comes in one piece") };
        assert_eq!(deleted.events.len(), KEYS);
        assert!(deleted.events.iter().all(|event| event.prev_kv.is_some()));
    }
}

/// Each turn settles more than a slice has: what is published keeps up all the same, for as long as it lasts.
#[test]
fn a_shard_written_without_pause_does_not_leave_its_watchers_behind() {
    // Ten changes a slice.
    let slice = Budget { keys: 10 * crate::limits::CHANGE_KEYS, ..Budget::SLICE };
    let mut member = Member::with(1, Settings { slice, ..settings(1) });
    let everything = Bytes::from_static(b"\0");
    member.watch(proto::WatchCreateRequest {
        key: everything.clone(),
        range_end: everything,
        ..Default::default()
    });
    let op = |n: usize| {
        let put = proto::PutRequest { key: Bytes::from(format!("{n:03}")), ..Default::default() };
        proto::RequestOp { request: Some(proto::request_op::Request::RequestPut(put)) }
    };
    let txn = proto::TxnRequest { success: (0..30).map(op).collect(), ..Default::default() };
    for _ in 0..100 {
        member.ask("/etcdserverpb.KV/Txn", &txn);
        member.turn_all();
    }
    let reactor = &member.reactors[0];
    assert!(reactor.settled.0 > 90, "they settle as they come");
    let published = reactor.shards[&ShardId(1)].hub.settled();
    assert!(published.0 + 5 > reactor.settled.0, "{published} of {}", reactor.settled);
}
