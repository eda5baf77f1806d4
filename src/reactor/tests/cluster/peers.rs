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
