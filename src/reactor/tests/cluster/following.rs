//! Members that do not lead: what their clients wait for.

use super::*;
use crate::types::LeaseId;

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";

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

#[test]
fn a_founder_whose_shards_come_too_late_says_so() {
    for (at, starts, told) in [(2, 5, 1), (2, 3, 0), (1, 3, 0)] {
        let mut cluster = Cluster::of(&[1, 1, 1], 3, |mut settings| {
            settings.shards_are_set = settings.member == MemberId(7 + 2);
            if settings.shards_are_set {
                settings.shard_starts = self::settings(starts).shard_starts;
            }
            settings
        });
        let late = cluster.members[2].take();
        cluster.until("the others serve", serving);
        cluster.members[2] = late;
        cluster.until("it shows what they show", |cluster| cluster.shown() == [1; 3]);
        let is_told = |line: &&LogLine| line.message.contains("have no effect");
        assert_eq!(cluster.member(at).log_lines.iter().filter(is_told).count(), told, "{starts} shards");
        assert_eq!(cluster.put(2, "a"), 2);
    }
}

/// A client may have one connection to each reactor, and asks by the second what it has seen by the first.
#[test]
fn a_follower_shows_control_entries_at_all_reactors_at_once_and_before_what_stands_behind_them() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    let leader = cluster.led_by_another_than(1);
    assert_eq!(cluster.put(leader, "a"), 2);
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    let (ttl, id) = (100, 77);
    cluster.member(1).cut_off = Some((ReactorId(1), vec![]));
    let _: proto::LeaseGrantResponse =
        cluster.call(leader, GRANT, &proto::LeaseGrantRequest { ttl, id }).unwrap();
    let put = proto::PutRequest { key: Bytes::from_static(b"b"), lease: id, ..Default::default() };
    let _: proto::PutResponse = cluster.call(leader, "/etcdserverpb.KV/Put", &put).unwrap();
    cluster.pass(Duration::from_ms(100));
    let has = |member: &Member| -> Vec<bool> {
        let of = |reactor: &Reactor| reactor.turn.control.leases.get(LeaseId(id)).is_some();
        member.reactors.iter().map(of).collect()
    };
    let member = cluster.member(1);
    assert_eq!((member.sequencer.settled(), has(member)), (Revision(2), vec![false; 2]));
    assert!(member.reactors[0].paths().control_shared > 0);
    member.hears_again();
    cluster.until("all show it", |cluster| cluster.shown() == [3; 3]);
    assert_eq!(has(cluster.member(1)), [true; 2]);
}

/// Also where a member leads: what it lists it lists at any reactor.
#[test]
fn what_some_reactor_does_not_know_is_not_shown_by_another() {
    let mut cluster = Cluster::new(&[1, 3, 1], 3);
    cluster.led_by_another_than(0);
    if cluster.leaders() != [1] {
        let request = proto::MoveLeaderRequest { target_id: 8 };
        let at = cluster.leaders()[0];
        let _: proto::MoveLeaderResponse =
            cluster.call(at, "/etcdserverpb.Maintenance/MoveLeader", &request).unwrap();
    }
    cluster.until("the second leads", |cluster| cluster.leaders() == [1]);
    cluster.member(1).cut_off = Some((ReactorId(1), vec![]));
    let grant = cluster.member(1).ask(GRANT, &proto::LeaseGrantRequest { ttl: 100, id: 77 }).number();
    cluster.pass(Duration::from_ms(50));
    let list = proto::MemberListRequest { linearizable: false };
    let list = cluster.member(1).ask("/etcdserverpb.Cluster/MemberList", &list).number();
    let answered = |cluster: &Cluster| {
        let statuses = &cluster.members[1].as_ref().unwrap().statuses;
        [grant, list].map(|asked| statuses.iter().any(|(of, ..)| *of == asked))
    };
    cluster.pass(Duration::from_ms(50));
    assert_eq!(answered(&cluster), [false; 2]);
    cluster.member(1).hears_again();
    cluster.until("both are answered", |cluster| answered(cluster) == [true; 2]);
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

/// A control entry may have seen what a disk here has not yet: who finds its effect would not find that.
#[test]
fn a_control_entry_takes_effect_at_a_follower_once_that_shows_what_the_entry_has_seen() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    let leader = cluster.led_by_another_than(1);
    assert_eq!(cluster.put(leader, "a"), 2);
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    let key = cluster.key_of_reactor(1, 1);
    cluster.member(1).log_stands = Some(1);
    assert_eq!(cluster.put(leader, key), 3);
    let grant = proto::LeaseGrantRequest { ttl: 100, id: 77 };
    let _: proto::LeaseGrantResponse = cluster.call(leader, GRANT, &grant).unwrap();
    cluster.pass(Duration::from_ms(100));
    let has = |member: &Member| -> Vec<bool> {
        let of = |reactor: &Reactor| reactor.turn.control.leases.get(LeaseId(77)).is_some();
        member.reactors.iter().map(of).collect()
    };
    let member = cluster.member(1);
    assert_eq!((member.sequencer.settled(), has(member)), (Revision(2), vec![false; 2]));
    cluster.member(1).write_all();
    cluster.until("all show it", |cluster| cluster.shown() == [3; 3]);
    assert_eq!(has(cluster.member(1)), [true; 2]);
}

/// A tick asks as well, and comes later.
#[test]
fn what_got_lost_with_a_connection_is_asked_for_as_soon_as_the_next_one_is_there() {
    for pause_ms in [0, 30, 60] {
        let mut cluster = Cluster::new(&[1, 1, 1], 3);
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        let follower = (leader + 1) % 3;
        assert_eq!(cluster.put(leader, "a"), 2);
        cluster.kill(3 - leader - follower);
        cluster.pass(Duration::from_ms(200 + pause_ms));
        cluster.held = vec![(leader, follower)];
        let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        let put = cluster.member(leader).ask("/etcdserverpb.KV/Put", &put).number();
        cluster.settle();
        cluster.held.clear();
        cluster.waiting.clear();
        cluster.break_between(leader, follower);
        let between = |(end, far): (&End, &End)| end.member == leader && far.member == follower;
        cluster.until("they are connected again", |cluster| cluster.ends.iter().any(between));
        assert_eq!(cluster.member(leader).answered(put), Some((0, "")), "after {pause_ms} ms");
    }
}

/// An operator sees in the log of every member who leads, and since when nobody does.
#[test]
fn the_log_says_who_is_elected_and_who_is_lost() {
    let mut cluster = Cluster::new(&[1, 1, 1], 2);
    let leader = cluster.led_by_another_than(1);
    cluster.until("it follows", |cluster| cluster.follows(1) == Some(leader));
    let of_leader = |cluster: &mut Cluster, message: &str| {
        let of = crate::io::Value::Text(MemberId(7 + leader as u64).hex());
        let lines = cluster.member(1).log_lines.iter().filter(|line| line.message == message);
        lines.filter(|line| line.fields.0.contains(&("leader", of.clone()))).count()
    };
    assert_eq!((of_leader(&mut cluster, "elected leader"), of_leader(&mut cluster, "lost leader")), (1, 0));
    cluster.kill(leader);
    cluster.until("another serves", serving);
    assert_eq!((of_leader(&mut cluster, "elected leader"), of_leader(&mut cluster, "lost leader")), (1, 1));
    // Who is gone for long is not told of at each try.
    cluster.pass(Duration::from_secs(5));
    let tries = cluster.member(1).log_lines.iter().filter(|line| line.message == "cannot connect to a peer");
    assert_eq!(tries.count(), 1);
}
