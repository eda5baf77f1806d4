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
        let router = member.reactors[0].turn.router();
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
    assert!(reactor.turn.settled.0 > 90, "they settle as they come");
    let published = reactor.shards.get(ShardId(1)).unwrap().hub.settled();
    assert!(published.0 + 5 > reactor.turn.settled.0, "{published} of {}", *reactor.turn.settled);
}

impl Member {
    /// The client has sent all it has, in pieces as a socket brings them.
    fn send_in_pieces(&mut self) {
        let mut bytes = vec![];
        self.client.take_output(&mut bytes);
        for piece in bytes.chunks(4 << 10) {
            let at = usize::from(self.conn.reactor.0);
            self.reactors[at].step(self.now, Input::Received { conn: self.conn, bytes: piece });
            self.run();
        }
    }
}

/// As etcd: such a stream is read no further, it is not ended.
#[test]
fn a_stream_that_only_creates_watches_waits_for_its_reader() {
    const WATCHES: usize = 20_000;
    let mut member = Member::new(2, 2);
    member.deafen();
    let stream = member.client.request("/etcdserverpb.Watch/Watch", &[]).unwrap();
    for _ in 0..WATCHES {
        let create = proto::WatchCreateRequest { key: Bytes::from_static(b"k"), ..Default::default() };
        let create = proto::watch_request::RequestUnion::CreateRequest(create);
        let request = proto::WatchRequest { request_union: Some(create) };
        assert!(member.client.send_message(stream, &request.encode_to_vec(), false));
    }
    member.send_in_pieces();
    let at = usize::from(member.conn.reactor.0);
    let watchers = member.reactors[at].counters_now().watchers as usize;
    assert!((100..6000).contains(&watchers), "{watchers}");
    member.hear();
    assert_eq!(member.statuses, []);
    let ids: Vec<i64> = std::mem::take(&mut member.answers)
        .into_iter()
        .map(|(_, bytes)| proto::WatchResponse::decode(&bytes[..]).unwrap().watch_id)
        .collect();
    assert_eq!(ids, (0..WATCHES as i64).collect::<Vec<_>>());
    assert_eq!(member.reactors[at].counters_now().watchers as usize, WATCHES);
}

#[test]
fn a_stream_of_renewals_waits_for_its_reader() {
    const RENEWALS: usize = 20_000;
    let mut member = Member::new(2, 2);
    member.deafen();
    let stream = member.client.request("/etcdserverpb.Lease/LeaseKeepAlive", &[]).unwrap();
    for id in 0..RENEWALS as i64 {
        let request = proto::LeaseKeepAliveRequest { id: id + 1 };
        assert!(member.client.send_message(stream, &request.encode_to_vec(), false));
    }
    assert!(member.client.send_data(stream, &[], true));
    member.send_in_pieces();
    let at = usize::from(member.conn.reactor.0);
    let messages = |member: &Member| {
        let counters = member.reactors[at].counters_now();
        counters.front.of(crate::wire::Method::LeaseKeepAlive).messages_received as usize
    };
    let read = messages(&member);
    assert!((100..6000).contains(&read), "{read}");
    member.hear();
    let ids: Vec<i64> = std::mem::take(&mut member.answers)
        .into_iter()
        .map(|(_, bytes)| proto::LeaseKeepAliveResponse::decode(&bytes[..]).unwrap().id)
        .collect();
    assert_eq!(ids, (1..=RENEWALS as i64).collect::<Vec<_>>());
    assert_eq!(member.statuses.pop().map(|(_, code, _)| code), Some(0));
}
