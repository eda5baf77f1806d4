//! Members that do not lead: what their clients wait for.

use super::*;

/// The follower of a lone client has nothing else to do, and nothing else to wake it before the next tick.
#[test]
fn a_lone_put_at_a_follower_waits_for_no_tick() {
    for reactors in [[1, 1, 1], [2, 2, 2]] {
        let mut cluster = Cluster::new(&reactors, 3);
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        cluster.put((leader + 1) % 3, "a");
        cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
        for n in 0..40 {
            let began = cluster.now;
            cluster.put((leader + 1 + n % 2) % 3, &format!("{}k", char::from(n as u8 * 3)));
            let took = cluster.now.since(began);
            assert!(took < Duration::from_ms(1), "put {n} of {reactors:?} takes {took:?}");
        }
    }
}

/// As one is whose operator starts the members by hand, one after the other.
#[test]
fn a_founder_that_starts_when_the_others_serve_is_served_as_well() {
    for reactors in [[1, 1, 1], [1, 2, 2]] {
        let mut cluster = Cluster::new(&reactors, 3);
        let late = cluster.members[2].take();
        cluster.until("the others serve", serving);
        let began = cluster.now;
        cluster.until("time passes", |cluster| cluster.now > began + Duration::from_secs(3));
        cluster.members[2] = late;
        cluster.until("it shows what they show", |cluster| cluster.shown() == [1; 3]);
        assert_eq!(cluster.put(2, "a"), 2);
    }
}

/// Who still believes in the leader does not answer whoever stands.
#[test]
fn where_one_hears_later_that_the_leader_is_gone_the_other_has_not_stood_in_vain() {
    for first in [1, 2] {
        let mut cluster = Cluster::new(&[1, 1, 1], 3);
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        cluster.pass(Duration::from_ms(500));
        cluster.members[leader] = None;
        let gone: Vec<End> = cluster.ends.keys().filter(|end| end.member == leader).copied().collect();
        let first = (leader + first) % 3;
        let (at_once, later) = gone.into_iter().partition(|end| cluster.ends[end].member == first);
        let (at_once, later): (Vec<End>, Vec<End>) = (at_once, later);
        at_once.into_iter().for_each(|end| cluster.hang_up(end));
        cluster.pass(Duration::from_ms(30));
        assert!(cluster.leaders().is_empty(), "the other one believes in it");
        later.into_iter().for_each(|end| cluster.hang_up(end));
        let heard = cluster.now;
        cluster.until("another serves", serving);
        let took = cluster.now.since(heard);
        assert!(took < Duration::from_ms(25), "one of them stands again at once: {took:?}");
    }
}

#[test]
fn a_term_is_shown_once_a_restart_would_show_it_too() {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    cluster.put(leader, "a");
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    cluster.pass(Duration::from_ms(500));
    let one = (leader + 1) % 3;
    let shown = |cluster: &mut Cluster| {
        let request = proto::RangeRequest { key: "a".into(), serializable: true, ..Default::default() };
        let reply: proto::RangeResponse = cluster.call(one, "/etcdserverpb.KV/Range", &request).unwrap();
        reply.header.unwrap().raft_term
    };
    let heard = |cluster: &mut Cluster| {
        let control = cluster.member(one).reactors[0].shards.get(ShardId::CONTROL).unwrap();
        control.shard.group().term().0
    };
    let before = shown(&mut cluster);
    cluster.member(one).disk_stands = true;
    cluster.kill(leader);
    cluster.pass(Duration::from_ms(200));
    assert!(heard(&mut cluster) > before, "somebody stands");
    assert_eq!(shown(&mut cluster), before);
    cluster.member(one).write_all();
    cluster.pass(Duration::from_ms(500));
    assert!(shown(&mut cluster) > before);
}
