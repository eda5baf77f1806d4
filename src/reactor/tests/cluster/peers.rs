//! What is counted of other members.

use super::*;
use crate::io::PeerFigures;

fn peers(cluster: &mut Cluster, at: usize) -> BTreeMap<MemberId, PeerFigures> {
    let mut sum = Census::default();
    for reactor in &cluster.member(at).reactors {
        sum.add(&Census { peers: reactor.peers.figures(), ..Census::default() });
    }
    sum.peers
}

#[test]
fn each_other_member_is_counted_and_one_that_dies_is_no_longer_active() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    cluster.until("one serves", serving);
    for _ in 0..900 {
        cluster.now = cluster.now + Duration::from_ms(10);
        cluster.settle();
    }
    for at in 0..3 {
        let others = peers(&mut cluster, at);
        assert_eq!(others.len(), 2);
        for figures in others.values() {
            assert!(figures.is_active && figures.received_bytes > 0 && figures.sent_bytes > 0, "{figures:?}");
            assert!(figures.round_trips.count() >= 2, "every four seconds: {figures:?}");
            assert_eq!((figures.disconnects, figures.receive_failures), (0, 0));
        }
    }
    let [leader] = cluster.leaders()[..] else { panic!("one leads") };
    let dies = (leader + 1) % 3;
    let of = MemberId(7 + dies as u64);
    let before = peers(&mut cluster, leader)[&of].clone();
    cluster.kill(dies);
    for _ in 0..200 {
        cluster.now = cluster.now + Duration::from_ms(10);
        cluster.settle();
    }
    let after = peers(&mut cluster, leader)[&of].clone();
    assert!(!after.is_active && after.disconnects == 1, "{after:?}");
    // An alert asks for more than one in a hundred seconds.
    assert!(after.send_failures > before.send_failures + 5, "{before:?} {after:?}");
}

/// As in etcd: whoever watches a cluster asks each member, and the leader may be the one that is gone.
#[test]
fn writes_that_fail_are_counted_at_the_member_that_their_client_has_asked() {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads") };
    let alone = (leader + 1) % 3;
    cluster.until("it follows", |cluster| cluster.follows(alone) == Some(leader));
    let figures = |cluster: &mut Cluster| {
        let counters = cluster.member(alone).reactors[0].counters_now();
        (counters.proposals_pending, counters.proposals_failed)
    };
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let fails = |cluster: &mut Cluster| {
        let refused: Result<proto::PutResponse, _> = cluster.call(alone, "/etcdserverpb.KV/Put", &put);
        refused.unwrap_err();
    };
    cluster.held = vec![(leader, alone)];
    cluster.member(alone).ask("/etcdserverpb.KV/Put", &put);
    cluster.settle();
    assert_eq!(figures(&mut cluster), (1, 0), "it is with the leader");
    cluster.kill(leader);
    cluster.kill((leader + 2) % 3);
    fails(&mut cluster);
    assert_eq!(figures(&mut cluster), (0, 2), "the other one never left");
}
