//! Members that are slow, or a part of which is: what they lead, and what they show.

use super::laggards::held;
use super::*;
use crate::raft::Role;

const PUT: &str = "/etcdserverpb.KV/Put";

/// To change who leads takes more writes than to wait for one.
#[test]
fn where_all_disks_are_slow_nobody_gives_the_leadership_up() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert_eq!(cluster.put((leader + 1) % 3, "a"), 2);
    (0..3).for_each(|at| cluster.member(at).disk_stands = true);
    let put = proto::PutRequest { key: Bytes::from_static(b"b"), ..Default::default() };
    let put = cluster.member(leader).ask(PUT, &put).number();
    cluster.pass(Duration::from_secs(4));
    assert_eq!(cluster.leaders(), [leader]);
    (0..3).for_each(|at| cluster.member(at).write_all());
    let status = |cluster: &Cluster| {
        let mut statuses = cluster.members[leader].as_ref().unwrap().statuses.iter();
        statuses.find(|(of, ..)| *of == put).map(|(_, code, _)| *code)
    };
    cluster.until("the put is answered", |cluster| status(cluster).is_some());
    assert_eq!((status(&cluster), cluster.leaders()), (Some(0), vec![leader]));
    // What no disk takes for long may be the fault of who leads.
    (0..3).filter(|at| *at != leader).for_each(|at| cluster.member(at).disk_stands = true);
    cluster
        .member(leader)
        .ask(PUT, &proto::PutRequest { key: Bytes::from_static(b"c"), ..Default::default() });
    cluster.until("it is given up at last", |cluster| cluster.leaders().is_empty());
}

/// What was on its way to a disk before it stood is acknowledged still: that one does no better from then on.
#[test]
fn where_all_disks_stand_one_after_the_other_nobody_gives_the_leadership_up() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert_eq!(cluster.put((leader + 1) % 3, "a"), 2);
    let mut puts = vec![];
    for at in [vec![leader, (leader + 1) % 3], vec![(leader + 2) % 3]] {
        at.into_iter().for_each(|at| cluster.member(at).disk_stands = true);
        let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        puts.push(cluster.member(leader).ask(PUT, &put).number());
        cluster.pass(Duration::from_ms(100));
    }
    cluster.pass(Duration::from_secs(4));
    assert_eq!(cluster.leaders(), [leader]);
    (0..3).for_each(|at| cluster.member(at).write_all());
    for put in puts {
        let status = |cluster: &Cluster| {
            let mut statuses = cluster.members[leader].as_ref().unwrap().statuses.iter();
            statuses.find(|(of, ..)| *of == put).map(|(_, code, _)| *code)
        };
        cluster.until("the put is answered", |cluster| status(cluster).is_some());
        assert_eq!(status(&cluster), Some(0));
    }
}

/// A reactor that has not heard of its epoch's end takes what another member has settled for its own.
#[test]
fn a_member_that_is_deposed_shows_nothing_before_all_its_reactors_have_stopped() {
    let mut cluster = Cluster::new(&[2, 2, 2], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let router = cluster.member(leader).reactors[0].turn.router();
    let is_of_1 = |byte: &u8| router.reactor_of(router.shard_of(&[*byte])) == ReactorId(1);
    let mut keys = (0..=255).filter(is_of_1);
    let [lost, kept] = [keys.next().unwrap(), keys.next().unwrap()];
    cluster.cut = others.map(|other| (leader, other)).into();
    cluster.member(leader).cut_off = Some((ReactorId(1), vec![]));
    let put = proto::PutRequest { key: Bytes::from(vec![lost]), ..Default::default() };
    cluster.member(leader).ask(PUT, &put);
    let leads = |cluster: &Cluster| cluster.leaders().into_iter().find(|at| *at != leader);
    cluster.until("another serves", |cluster| leads(cluster).is_some());
    let next = leads(&cluster).unwrap();
    let put = proto::PutRequest { key: Bytes::from(vec![kept]), ..Default::default() };
    let put: proto::PutResponse = cluster.call(next, PUT, &put).unwrap();
    assert_eq!(put.header.unwrap().revision, 2);
    cluster.cut.clear();
    cluster.pass(Duration::from_secs(3));
    cluster.member(leader).hears_again();
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    assert_eq!(held(cluster.member(leader)), held(cluster.member(next)));
}

/// The others hear its first reactor, and nothing of another one: nobody but the leader can end that.
#[test]
fn a_leader_of_which_a_reactor_reaches_nobody_gives_the_leadership_up() {
    let mut cluster = Cluster::new(&[2, 2, 2], 4);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let key = Bytes::from_static(cluster.key_of_reactor(leader, 1).as_bytes());
    cluster.pass(Duration::from_ms(500));
    cluster.mute = Some((leader, 1));
    cluster.member(leader).ask(PUT, &proto::PutRequest { key: key.clone(), ..Default::default() });
    let from = cluster.now;
    cluster.until("another serves", |cluster| cluster.leaders().iter().any(|at| *at != leader));
    let timeout = cluster.member(leader).reactors[0].turn.settings.election_timeout;
    let took = cluster.now.since(from);
    assert!(
        took < Duration(3 * timeout.0),
        "one to notice, one for what is written, and the change: {took:?}"
    );
    let next = cluster.leaders()[0];
    let put: proto::PutResponse =
        cluster.call(next, PUT, &proto::PutRequest { key, ..Default::default() }).unwrap();
    assert_eq!(put.header.unwrap().revision, 2);
}

/// It may stand again as soon as it is heard: none of its own parts is at fault.
#[test]
fn a_leader_that_hears_nobody_is_not_unwell() {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    cluster.pass(Duration::from_ms(500));
    cluster.cut = [(leader + 1) % 3, (leader + 2) % 3].map(|other| (leader, other)).into();
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    cluster.member(leader).ask(PUT, &put);
    cluster.until("another serves", |cluster| cluster.leaders().iter().any(|at| *at != leader));
    cluster.pass(Duration::from_secs(1));
    assert!(!cluster.leaders().contains(&leader));
    assert_eq!(cluster.member(leader).reactors[0].paths().leader_gave_up, 0);
}

/// All have as much of the control shard's group.
#[test]
fn who_gives_the_leadership_up_gives_it_to_the_member_that_is_furthest_ahead_in_all_groups() {
    for nth in [1, 2] {
        let mut cluster = Cluster::new(&[1, 1, 1], 3);
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        let (behind, other) = ((leader + nth) % 3, (leader + 3 - nth) % 3);
        cluster.member(behind).disk_stands = true;
        cluster.put(leader, "a");
        cluster.pass(Duration::from_ms(300));
        cluster.member(leader).disk_stands = true;
        let put = proto::PutRequest { key: Bytes::from_static(b"b"), ..Default::default() };
        cluster.member(leader).ask(PUT, &put);
        cluster.until("it is given up", |cluster| !cluster.leaders().contains(&leader));
        cluster.pass(Duration::from_ms(100));
        let role =
            cluster.member(other).reactors[0].shards.get(ShardId::CONTROL).unwrap().shard.group().role();
        assert_eq!(role, Role::Candidate, "m{other} of {:?} stands", [behind, other]);
    }
}
