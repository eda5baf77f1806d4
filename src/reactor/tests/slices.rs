//! Work too long for a step, beside which others go on.

use super::*;

/// Ranges that a shard has begun and not ended, at each reactor.
fn slicing(member: &Member) -> Vec<usize> {
    member.reactors.iter().map(|reactor| reactor.shards.slices().len()).collect()
}

#[test]
fn a_long_range_ends_with_its_client() {
    for reactors in [1, 2] {
        let mut member = Member::new(reactors, 2);
        let router = member.reactors[0].turn.router();
        // The client is at the last reactor.
        let owner = ReactorId(0);
        let prefix = (0..255).find(|byte| router.reactor_of(router.shard_of(&[*byte])) == owner);
        let prefix = prefix.expect("it has keys");
        let slices = 20;
        for n in 0..slices * crate::limits::READ_SLICE_KEYS / 100 {
            let put = |m| {
                let key = Bytes::from([&[prefix], format!("{n:04}{m:02}").as_bytes()].concat());
                let put = proto::PutRequest { key, ..Default::default() };
                let request = Some(proto::request_op::Request::RequestPut(put));
                proto::RequestOp { request }
            };
            let txn = proto::TxnRequest { success: (0..100).map(put).collect(), ..Default::default() };
            let _: proto::TxnResponse = member.call("/etcdserverpb.KV/Txn", &txn).unwrap();
        }
        let (key, range_end) = (Bytes::from(vec![prefix]), Bytes::from(vec![prefix + 1]));
        let range = proto::RangeRequest { key, range_end, count_only: false, ..Default::default() };
        let range = range.encode_to_vec();
        let unary = "/etcdserverpb.KV/Range";
        // Without harm it takes so many turns.
        let turns_until_done = |member: &mut Member, path, headers: &[(&[u8], &[u8])], cancelled: bool| {
            let stream = member.client.call(path, headers, &range).expect("streams are free");
            let mut turns = 0;
            loop {
                member.turn_all();
                turns += 1;
                if turns == 5 {
                    assert_eq!(slicing(member)[0], 1);
                    if cancelled {
                        member.client.reset(stream, http2::ErrorCode::Cancel);
                    }
                }
                if turns > 5 && slicing(member)[0] == 0 {
                    break;
                }
            }
            member.run();
            assert!(member.reactors.iter().all(|reactor| reactor.calls.len() == 0));
            turns
        };
        assert!(turns_until_done(&mut member, unary, &[], false) >= slices - 3, "{reactors}");
        assert!(turns_until_done(&mut member, unary, &[], true) < 10, "{reactors}");
        // A turn takes a microsecond here.
        let deadline: &[(&[u8], &[u8])] = &[(b"grpc-timeout", b"6u")];
        assert!(turns_until_done(&mut member, unary, deadline, false) < 12, "{reactors}");
        assert_eq!(member.statuses.pop().map(|(_, code, _)| code), Some(4));
    }
}

/// Ranges that together hold too much are read one after another.
#[test]
fn what_long_ranges_hold_while_they_are_read_is_bounded() {
    const KEYS: usize = 200;
    const VALUE: usize = 4 << 10;
    let base = settings(1);
    let bounds = crate::limits::Bounds { reads_bytes_max: KEYS * VALUE, ..base.bounds };
    let slice = crate::mvcc::Budget { keys: 10, ..base.slice };
    let mut member = Member::with(1, Settings { bounds, slice, ..base });
    for n in 0..KEYS {
        member.put(&format!("{n:03}"), &"v".repeat(VALUE));
    }
    let everything = Bytes::from_static(b"\0");
    let range = proto::RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() };
    let streams: Vec<_> = (0..10).map(|_| member.ask("/etcdserverpb.KV/Range", &range)).collect();
    let mut most = 0;
    while member.turn_all() {
        most = most.max(member.reactors[0].shards.slices().kept_bytes());
    }
    assert!((KEYS * VALUE..2 * KEYS * VALUE + 10 * 10 * VALUE).contains(&most), "{most}");
    for stream in streams {
        assert!(member.statuses.contains(&(stream.number(), 0, String::new())));
    }
}

/// Slices of a few keys, so that little is much.
fn member_of_small_slices() -> Member {
    let slice = crate::mvcc::Budget { keys: 40, bytes: usize::MAX };
    let member = Member::with(2, Settings { slice, ..settings(4) });
    assert_eq!(member.halted, None);
    member
}

/// Prefixes of keys: of a shard of the first reactor, of another shard there, of a shard elsewhere.
fn prefixes(member: &Member) -> [Bytes; 3] {
    let router = member.reactors[0].turn.router();
    let prefix = |shard| Bytes::from([router.ranges_of(shard)[0].start(), &b"."[..]].concat());
    let of =
        |reactor| router.data_shards().filter(move |shard| router.reactor_of(*shard) == ReactorId(reactor));
    let here: Vec<ShardId> = of(0).collect();
    let elsewhere = of(1).next().expect("the second reactor has shards");
    let [first, second] = here[..] else { panic!("the first reactor has {here:?}") };
    [first, second, elsewhere].map(|shard| {
        let prefix = prefix(shard);
        assert_eq!(router.shard_of(&prefix), shard);
        assert_eq!(router.shard_of(&behind(&prefix)), shard);
        prefix
    })
}

/// The end of the range of keys that begin with a prefix and a full stop.
fn behind(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("it ends with a full stop") += 1;
    end.into()
}

impl Member {
    fn fill(&mut self, prefix: &Bytes, keys: usize, lease: i64) {
        for from in (0..keys).step_by(100) {
            let put = |n| {
                let key = Bytes::from([prefix, format!("{n:05}").as_bytes()].concat());
                let put = proto::PutRequest { key, lease, ..Default::default() };
                proto::RequestOp { request: Some(proto::request_op::Request::RequestPut(put)) }
            };
            let success = (from..keys.min(from + 100)).map(put).collect();
            let txn = proto::TxnRequest { success, ..Default::default() };
            let _: proto::TxnResponse = self.call("/etcdserverpb.KV/Txn", &txn).unwrap();
        }
    }

    /// Begins a call, and lets so many turns pass.
    fn begin_for<Q: Message>(&mut self, path: &str, request: &Q, turns: usize) -> u32 {
        let stream = self.ask(path, request);
        for _ in 0..turns {
            self.turn_all();
        }
        stream.number()
    }

    fn end<R: Message + Default>(&mut self, stream: u32) -> R {
        self.run();
        let place = self.answers.iter().position(|(of, _)| *of == stream).expect("it is answered");
        R::decode(&self.answers.remove(place).1[..]).expect("in protobuf")
    }

    fn is_answered(&self, stream: u32) -> bool {
        self.statuses.iter().any(|(of, ..)| *of == stream)
    }
}

#[test]
fn a_long_delete_holds_nobody_up_and_is_one_revision() {
    let mut member = member_of_small_slices();
    let [full, beside, elsewhere] = prefixes(&member);
    member.fill(&full, 1000, 0);
    let at = |prefix: &Bytes| String::from_utf8(prefix.to_vec()).unwrap();
    let before = member.put(&at(&beside), "x");
    let (key, range_end) = (full.clone(), behind(&full));
    let delete = proto::DeleteRangeRequest { key, range_end, prev_kv: true };
    let deleting = member.begin_for("/etcdserverpb.KV/DeleteRange", &delete, 10);
    for prefix in [&beside, &elsewhere] {
        let put = proto::PutRequest { key: prefix.clone(), ..Default::default() };
        let putting = member.begin_for("/etcdserverpb.KV/Put", &put, 12);
        // Evaluated, and not shown before the delete, whose revision comes first.
        assert!(!member.is_answered(putting));
    }
    // Nothing of it shows before all of it does.
    let range = proto::RangeRequest {
        key: delete.key.clone(),
        range_end: delete.range_end.clone(),
        ..Default::default()
    };
    let ranging = member.begin_for("/etcdserverpb.KV/Range", &range, 40);
    assert!(member.is_answered(ranging) && !member.is_answered(deleting));
    let reply: proto::DeleteRangeResponse = member.end(deleting);
    assert_eq!((reply.deleted, reply.prev_kvs.len()), (1000, 1000));
    assert!(reply.prev_kvs.is_sorted_by_key(|kv| kv.key.clone()));
    assert_eq!(reply.header.unwrap().revision, before + 1);
    assert_eq!(member.end::<proto::RangeResponse>(ranging).count, 1000);
    assert_eq!(member.put(&at(&full), "again"), before + 4);
    assert_eq!(member.range("\0", "\0").count, 3);
}

/// The lease of so many keys that their deletes fill several entries of the log.
#[test]
fn a_lease_with_very_many_keys_ends_in_slices_and_as_one_revision() {
    let mut member = member_of_small_slices();
    let [full, beside, elsewhere] = prefixes(&member);
    let grant = proto::LeaseGrantRequest { ttl: 600, id: 5 };
    let _: proto::LeaseGrantResponse = member.call("/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    for prefix in [&full, &beside, &elsewhere] {
        member.fill(prefix, 300, 5);
    }
    member.fill(&full, 20, 0); // These it loses again.
    let before = member.range("\0", "\0");
    assert_eq!(before.count, 900);
    let revoke = proto::LeaseRevokeRequest { id: 5 };
    let revoking = member.begin_for("/etcdserverpb.Lease/LeaseRevoke", &revoke, 15);
    let get = proto::RangeRequest { key: full.clone(), ..Default::default() };
    let getting = member.begin_for("/etcdserverpb.KV/Range", &get, 3);
    assert!(member.is_answered(getting) && !member.is_answered(revoking));
    let reply: proto::LeaseRevokeResponse = member.end(revoking);
    assert_eq!(reply.header.unwrap().revision, before.header.unwrap().revision + 1);
    assert_eq!(member.range("\0", "\0").count, 20);
    let left: proto::LeaseLeasesResponse =
        member.call("/etcdserverpb.Lease/LeaseLeases", &proto::LeaseLeasesRequest {}).unwrap();
    assert_eq!(left.leases.len(), 0);
}

#[test]
fn a_transaction_over_very_many_keys_holds_nobody_up() {
    let mut member = member_of_small_slices();
    let [full, ..] = prefixes(&member);
    member.fill(&full, 1000, 0);
    let (key, range_end) = (full.clone(), behind(&full));
    let compare = proto::Compare {
        target: 0,
        key: key.clone(),
        range_end: range_end.clone(),
        target_union: Some(proto::compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let range = |revision| {
        let range = proto::RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            revision,
            ..Default::default()
        };
        proto::RequestOp { request: Some(proto::request_op::Request::RequestRange(range)) }
    };
    let delete =
        proto::DeleteRangeRequest { key: key.clone(), range_end: range_end.clone(), ..Default::default() };
    let delete = proto::RequestOp { request: Some(proto::request_op::Request::RequestDeleteRange(delete)) };
    let success = vec![range(0), delete, range(0), range(5)];
    let txn = proto::TxnRequest { compare: vec![compare], success, failure: vec![] };
    let txn = member.begin_for("/etcdserverpb.KV/Txn", &txn, 20);
    let get = proto::RangeRequest { key: key.clone(), ..Default::default() };
    let getting = member.begin_for("/etcdserverpb.KV/Range", &get, 3);
    assert!(member.is_answered(getting) && !member.is_answered(txn));
    let reply: proto::TxnResponse = member.end(txn);
    assert!(reply.succeeded);
    let counts: Vec<i64> = reply
        .responses
        .into_iter()
        .map(|response| match response.response.unwrap() {
            proto::response_op::Response::ResponseRange(range) => range.count,
            proto::response_op::Response::ResponseDeleteRange(delete) => delete.deleted,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [1000, 1000, 0, 400]);
}
