//! Transactions that a member answers from what it shows.

use super::*;

const TXN: &str = "/etcdserverpb.KV/Txn";

fn range_of(key: &str, serializable: bool) -> proto::RequestOp {
    let range = proto::RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        serializable,
        ..Default::default()
    };
    proto::RequestOp { request: Some(proto::request_op::Request::RequestRange(range)) }
}

/// Whether the key has this version.
fn version_of(key: &str, version: i64) -> proto::Compare {
    proto::Compare {
        result: 0,
        target: 0,
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(proto::compare::TargetUnion::Version(version)),
        ..Default::default()
    }
}

fn values(reply: &proto::TxnResponse) -> Vec<Vec<u8>> {
    let ranges = reply.responses.iter().map(|op| match op.response.as_ref().unwrap() {
        proto::response_op::Response::ResponseRange(range) => range,
        other => panic!("{other:?}"),
    });
    ranges.flat_map(|range| range.kvs.iter().map(|kv| kv.value.to_vec())).collect()
}

#[test]
fn a_member_that_knows_no_leader_answers_transactions_that_need_none() {
    let mut cluster = Cluster::new(&[3, 1, 2], 4);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let keys = ["a", "/registry/pods/b", "/registry/leases/c", "/registry/pods/d"];
    for (n, key) in keys.into_iter().enumerate() {
        cluster.put_value(leader, key, vec![n as u8]);
    }
    cluster.put_value(leader, "a", b"again".to_vec());
    cluster.until("all show it", |cluster| cluster.shown() == [6; 3]);
    let alone = (leader + 1) % 3;
    (0..3).filter(|at| *at != alone).for_each(|at| cluster.kill(at));
    cluster.until("it knows no leader", |cluster| {
        let reactors = &cluster.members[alone].as_ref().unwrap().reactors;
        reactors.iter().all(|reactor| !reactor.turn.epoch_state.knows_leader())
    });
    let txn = |compare: Vec<proto::Compare>| proto::TxnRequest {
        compare,
        success: keys.map(|key| range_of(key, true)).into(),
        failure: vec![range_of("a", true)],
    };
    let reply: proto::TxnResponse = cluster.call(alone, TXN, &txn(vec![])).unwrap();
    assert_eq!((reply.succeeded, reply.header.unwrap().revision), (true, 6));
    assert_eq!(values(&reply), [&b"again"[..], &[1], &[2], &[3]]);
    for (compares, succeeds) in [
        (vec![version_of("a", 2), version_of("/registry/pods/b", 1), version_of("none", 0)], true),
        (vec![version_of("a", 2), version_of("/registry/leases/c", 2)], false),
        (vec![version_of("a", 1), version_of("/registry/leases/c", 1)], false),
    ] {
        let reply: proto::TxnResponse = cluster.call(alone, TXN, &txn(compares)).unwrap();
        assert_eq!((reply.succeeded, values(&reply).len()), (succeeds, if succeeds { 4 } else { 1 }));
    }
    let empty: proto::TxnResponse = cluster.call(alone, TXN, &proto::TxnRequest::default()).unwrap();
    assert!(empty.succeeded && empty.responses.is_empty());
    // As a range does.
    let range = proto::RangeRequest { key: Bytes::from_static(b"a"), revision: 2, ..Default::default() };
    let range = proto::RangeRequest { serializable: true, ..range };
    let old = |revision| {
        let request =
            proto::request_op::Request::RequestRange(proto::RangeRequest { revision, ..range.clone() });
        proto::TxnRequest { success: vec![proto::RequestOp { request: Some(request) }], ..Default::default() }
    };
    let reply: proto::TxnResponse = cluster.call(alone, TXN, &old(2)).unwrap();
    assert_eq!(values(&reply), [&[0][..]]);
    let refused: Result<proto::TxnResponse, _> = cluster.call(alone, TXN, &old(7));
    assert_eq!(refused.unwrap_err(), (11, Error::FutureRevision.to_string()));
    // What is to be the newest has nobody to ask.
    let newest = proto::TxnRequest { success: vec![range_of("a", false)], ..Default::default() };
    let refused: Result<proto::TxnResponse, _> = cluster.call(alone, TXN, &newest);
    assert_eq!(refused.unwrap_err(), (14, Error::Timeout.to_string()));
}

/// Its writes do not settle, and what it shows does not wait for them.
#[test]
fn a_leader_that_is_cut_off_answers_what_needs_no_leader() {
    let mut cluster = Cluster::new(&[2, 2, 2], 4);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let grant = proto::LeaseGrantRequest { ttl: 100, id: 8 };
    let _: proto::LeaseGrantResponse =
        cluster.call(leader, "/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    assert_eq!(cluster.put(leader, "a"), 2);
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    cluster.cut = vec![(leader, (leader + 1) % 3), (leader, (leader + 2) % 3)];
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    cluster.member(leader).ask("/etcdserverpb.KV/Put", &put);
    cluster.settle();
    let txn = proto::TxnRequest { success: vec![range_of("a", true)], ..Default::default() };
    let reply: proto::TxnResponse = cluster.call(leader, TXN, &txn).unwrap();
    assert_eq!((values(&reply), reply.header.unwrap().revision), (vec![b"v".to_vec()], 2));
    let all = proto::LeaseLeasesRequest::default();
    let leases: proto::LeaseLeasesResponse =
        cluster.call(leader, "/etcdserverpb.Lease/LeaseLeases", &all).unwrap();
    assert_eq!(leases.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [8]);
    assert!(cluster.leaders().contains(&leader), "it has not stepped down yet");
}

/// It is each member's own.
#[test]
fn a_defragmentation_goes_on_where_the_leadership_is_lost() {
    let mut cluster = Cluster::new(&[2, 2, 2], 4);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    cluster.put(leader, "a");
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    cluster.member(leader).lane_stands = true;
    let asked = cluster
        .member(leader)
        .ask("/etcdserverpb.Maintenance/Defragment", &proto::DefragmentRequest::default())
        .number();
    cluster.settle();
    assert!(!cluster.member(leader).undone.is_empty(), "it has begun");
    cluster.cut = vec![(leader, (leader + 1) % 3), (leader, (leader + 2) % 3)];
    cluster.until("it does not lead any more", |cluster| !cluster.leaders().contains(&leader));
    assert_eq!(cluster.member(leader).answered(asked), None);
    let member = cluster.member(leader);
    member.lane_stands = false;
    while member.take_a_bulk_step(2) {}
    cluster
        .until("it is done", |cluster| cluster.members[leader].as_ref().unwrap().answered(asked).is_some());
    assert_eq!(cluster.member(leader).answered(asked), Some((0, "")));
}
