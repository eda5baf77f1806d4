//! What was answered with a timeout is not done later, wherever it has waited.

use super::*;
use crate::reactor::calls::ForwardedAnswer;
use crate::types::Index;

fn put_of(key: &'static [u8], value: &'static [u8]) -> proto::PutRequest {
    proto::PutRequest { key: Bytes::from_static(key), value: Bytes::from_static(value), ..Default::default() }
}

/// A put of each key, in one transaction.
fn txn_of(keys: [&'static [u8]; 2]) -> proto::TxnRequest {
    let put = |key| Some(proto::request_op::Request::RequestPut(put_of(key, b"late")));
    let success = keys.map(|key| proto::RequestOp { request: put(key) }).into();
    proto::TxnRequest { success, ..Default::default() }
}

const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const TIMED_OUT: (u8, &str) = (14, "etcdserver: request timed out");

fn narrow(settings: Settings) -> Settings {
    let bounds = crate::limits::Bounds { log_behind_bytes_max: 1, ..settings.bounds };
    Settings { bounds, ..settings }
}

impl Member {
    pub(super) fn answered(&self, stream: u32) -> Option<(u8, &str)> {
        let status = self.statuses.iter().find(|(of, ..)| *of == stream);
        status.map(|(_, code, text)| (*code, &text[..]))
    }
}

/// The time that a client still waits goes with its request, and what is left of it when the leader has taken the
/// request is all that it may wait there.
#[test]
fn a_request_that_has_waited_at_two_members_is_not_done_after_its_client_was_told() {
    let mut cluster = Cluster::of(&[1; 5], 3, narrow);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let away = (leader + 1) % 5;
    cluster.until("it follows", |cluster| cluster.follows(away) == Some(leader));
    cluster.cut = (0..5).filter(|other| *other != away).map(|other| (away, other)).collect();
    cluster.until("it knows no leader", |cluster| cluster.follows(away).is_none());
    let asked = [
        cluster.member(away).ask(PUT, &put_of(b"a", b"late")).number(),
        cluster.member(away).ask(TXN, &txn_of([b"b", b"/registry/pods/b"])).number(),
    ];
    cluster.pass(Duration::from_ms(3_000));
    // The others commit without the leader's disk, and what is to be evaluated waits for it.
    cluster.put(leader, "w");
    cluster.member(leader).disk_stands = true;
    for n in 0..3 {
        cluster.member(leader).ask(PUT, &put_of([b"/registry/pods/x", &b"x"[..], b"/y"][n], b"1"));
        cluster.settle();
    }
    cluster.cut.clear();
    cluster.until("it follows again", |cluster| cluster.follows(away) == Some(leader));
    let is_told = |cluster: &Cluster| {
        let member = cluster.members[away].as_ref().unwrap();
        asked.map(|stream| member.answered(stream).map(|(code, text)| (code, text.to_owned())))
    };
    cluster.until("they time out", |cluster| is_told(cluster).iter().all(Option::is_some));
    let told = (TIMED_OUT.0, TIMED_OUT.1.to_owned());
    assert_eq!(is_told(&cluster), [Some(told.clone()), Some(told)]);
    assert!(cluster.member(away).reactors[0].paths().forwarded >= 2, "they are with the leader");
    assert_eq!(cluster.leaders(), [leader]);
    cluster.member(leader).write_all();
    for key in [&b"a"[..], b"b", b"/registry/pods/b"] {
        let put = put_of(key, b"newer");
        let _: proto::PutResponse = cluster.call(leader, PUT, &put).unwrap();
        let range = proto::RangeRequest { key: Bytes::from_static(key), ..Default::default() };
        let found: proto::RangeResponse = cluster.call(leader, "/etcdserverpb.KV/Range", &range).unwrap();
        let found = (found.kvs[0].version, &found.kvs[0].value[..]);
        assert_eq!(found, (1, &b"newer"[..]), "{}", String::from_utf8_lossy(key));
    }
}

/// The client's reactor has told its client, and the owner of the key was not looked at meanwhile.
#[test]
fn what_waits_at_its_shard_is_not_evaluated_after_its_client_was_told() {
    let mut member = Member::with(2, narrow(settings(3)));
    let router = member.reactors[0].turn.router().clone();
    let key = [b"a", b"/registry/pods/b" as &[u8], b"/registry/leases/c", b"/registry/events/d"]
        .into_iter()
        .find(|key| router.reactor_of(router.shard_of(key)) == ReactorId(0))
        .unwrap();
    member.disk_stands = true;
    let first = member.ask(PUT, &put_of(key, b"first")).number();
    member.run();
    let late = member.ask(PUT, &put_of(key, b"late")).number();
    member.run();
    assert_eq!([first, late].map(|stream| member.answered(stream)), [None; 2]);
    member.asleep = 1; // the first reactor
    member.now = member.now + member.reactors[0].turn.settings.request_timeout() + Duration::from_ms(500);
    member.run();
    assert_eq!(member.answered(late), Some(TIMED_OUT));
    member.asleep = 0;
    member.write_all();
    let found = member.range(std::str::from_utf8(key).unwrap(), "");
    assert_eq!((found.kvs[0].version, &found.kvs[0].value[..]), (1, &b"first"[..]));
}

/// What is given up is on its way no more: a disk that is full later is told of.
#[test]
fn an_alarm_that_was_given_up_is_raised_when_there_is_reason() {
    let mut member = Member::new(2, 2);
    member.disk_stands = true;
    member.ask(PUT, &put_of(b"a", b"1"));
    member.run();
    let full = MemberId(8);
    let raise = proto::AlarmRequest { action: 1, member_id: full.0, alarm: 1 };
    let asked = member.ask("/etcdserverpb.Maintenance/Alarm", &raise).number();
    member.run();
    member.now = member.now + member.reactors[0].turn.settings.request_timeout() + Duration::from_ms(500);
    member.run();
    assert_eq!(member.answered(asked), Some(TIMED_OUT));
    member.write_all();
    let stands = |member: &Member| member.reactors[0].turn.control.has_alarm(full, AlarmType::NoSpace);
    assert!(!stands(&member), "nobody has raised it");
    let Reactor { turn, leader: Some(leads), .. } = &mut member.reactors[0] else { panic!("it leads") };
    leads.on_no_space_at(turn, full);
    member.run();
    assert!(stands(&member));
}

#[test]
fn a_control_entry_that_waited_for_what_it_has_seen_is_not_proposed_after_its_client_was_told() {
    let mut member = Member::new(2, 2);
    member.put("a", "1");
    member.put("a", "2");
    member.disk_stands = true;
    member.ask(PUT, &put_of(b"a", b"3"));
    member.run();
    let grant = |id| proto::LeaseGrantRequest { ttl: 60, id };
    let asked = [
        member.ask(GRANT, &grant(5)).number(),
        member
            .ask("/etcdserverpb.KV/Compact", &proto::CompactionRequest { revision: 2, physical: true })
            .number(),
        member
            .ask("/etcdserverpb.KV/Compact", &proto::CompactionRequest { revision: 2, physical: false })
            .number(),
    ];
    member.run();
    member.now = member.now + Duration::from_ms(6_000);
    member.run();
    // Who came later still waits, for the same lease.
    let later = member.ask(GRANT, &grant(5)).number();
    member.run();
    member.now = member.now + Duration::from_ms(1_500);
    member.run();
    assert_eq!(asked.map(|stream| member.answered(stream)), [Some(TIMED_OUT); 3]);
    assert_eq!(member.answered(later), None);
    member.write_all();
    assert_eq!(member.answered(later), Some((0, "")), "the lease was not granted before");
    assert_eq!(member.reactors[0].turn.control.compacted(), Revision::NONE);
    let compact = proto::CompactionRequest { revision: 2, physical: true };
    let _: proto::CompactionResponse = member.call("/etcdserverpb.KV/Compact", &compact).unwrap();
    assert_eq!(member.reactors[0].turn.control.compacted(), Revision(2));
}

impl Cluster {
    /// All connections between two members break.
    pub(super) fn break_between(&mut self, one: usize, other: usize) {
        let between = |(end, far): (&End, &End)| (end.member == one && far.member == other).then_some(*end);
        let ends: Vec<End> = self.ends.iter().filter_map(between).collect();
        assert!(!ends.is_empty());
        ends.into_iter().for_each(|end| self.hang_up(end));
    }

    fn has(&mut self, at: usize, key: &'static [u8]) -> bool {
        let range = proto::RangeRequest { key: Bytes::from_static(key), ..Default::default() };
        let found: proto::RangeResponse = self.call(at, "/etcdserverpb.KV/Range", &range).unwrap();
        !found.kvs.is_empty()
    }
}

/// The leader may still do what came by a connection that is gone. Whoever is told of a timeout before could write
/// something newer, and find the older.
#[test]
fn a_client_whose_request_went_by_a_broken_connection_is_told_when_it_cannot_be_done_any_more() {
    let mut cluster = Cluster::of(&[1; 5], 3, narrow);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let follower = (leader + 1) % 5;
    cluster.until("it follows", |cluster| cluster.follows(follower) == Some(leader));
    cluster.put(follower, "w");
    cluster.member(leader).disk_stands = true;
    for n in 0..3 {
        cluster.member(leader).ask(PUT, &put_of([b"/registry/pods/x", &b"x"[..], b"/y"][n], b"1"));
        cluster.settle();
    }
    let asked = cluster.member(follower).ask(PUT, &put_of(b"a", b"1")).number();
    cluster.settle();
    cluster.break_between(leader, follower);
    cluster.pass(Duration::from_ms(500));
    assert_eq!(cluster.follows(follower), Some(leader), "they are connected again");
    assert_eq!(cluster.member(follower).answered(asked), None, "it waits at the leader");
    cluster.member(leader).write_all();
    cluster.pass(Duration::from_ms(20));
    assert_eq!(cluster.member(follower).answered(asked), Some(TIMED_OUT));
    assert!(cluster.has(follower, b"a"), "it was done before");
}

#[test]
fn a_request_that_got_lost_with_its_connection_has_no_outcome_as_soon_as_the_next_one_is_there() {
    let mut cluster = Cluster::new(&[2, 3, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let follower = (leader + 1) % 3;
    cluster.until("it follows", |cluster| cluster.follows(follower) == Some(leader));
    cluster.cut = vec![(leader, follower)];
    let keys = [&b"a"[..], b"/registry/pods/b", b"/registry/leases/c", b"x"];
    let asked = keys.map(|key| cluster.member(follower).ask(PUT, &put_of(key, b"1")).number());
    cluster.settle();
    cluster.break_between(leader, follower);
    cluster.pass(Duration::from_ms(50));
    let member = cluster.member(follower);
    assert_eq!(asked.map(|stream| member.answered(stream)), [None; 4]);
    cluster.cut.clear();
    cluster.pass(Duration::from_ms(700));
    let member = cluster.member(follower);
    assert_eq!(asked.map(|stream| member.answered(stream)), [Some(TIMED_OUT); 4]);
    assert!(!keys.into_iter().any(|key| cluster.has(leader, key)));
}

/// Its answer may be here, and wait until this member shows what it shows.
#[test]
fn a_request_that_is_answered_is_not_done_again_where_its_leader_leaves() {
    for has_answer in [false, true] {
        let mut cluster = Cluster::of(&[1; 3], 3, |settings| settings);
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        let asked = (leader + 1) % 3;
        cluster.until("it follows", |cluster| cluster.follows(asked) == Some(leader));
        cluster.member(leader).disk_stands = true;
        cluster.cut = vec![(leader, 3 - leader - asked)];
        cluster.member(asked).ask(PUT, &put_of(b"a", b"once"));
        cluster.settle();
        let conns: Vec<ConnId> =
            cluster.ends.keys().filter(|end| end.member == asked).map(|end| end.conn).collect();
        let reactor = &mut cluster.member(asked).reactors[0];
        assert_eq!((reactor.paths().forwarded, reactor.paths().forwarded_anew), (1, 0));
        let Reactor { turn, calls, .. } = reactor;
        for number in 0..if has_answer { 100 } else { 0 } {
            let (shows, control, outcome) = (Revision(99), Index(0), Ok(Bytes::new()));
            calls.on_forwarded_answer(turn, ForwardedAnswer { number, shows, control, outcome });
        }
        conns.into_iter().for_each(|conn| calls.on_leaving(turn, conn));
        assert_eq!(reactor.paths().forwarded_anew, u64::from(!has_answer));
    }
}
