//! Who leads, and who does not any more.

use super::*;
use crate::raft::{Message, MessageBody, Position, VoteKind};
use crate::types::Term;

const RANGE: &str = "/etcdserverpb.KV/Range";

/// What a reactor of the leader writes does not reach the others, though all of them hear of it and their disks are
/// well: nothing of its shards settles, and another member does better.
#[test]
fn a_leader_of_which_nothing_settles_gives_the_leadership_up() {
    let mut cluster = Cluster::new(&[2, 2, 2], 4);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert_eq!(cluster.put(leader, "a"), 2);
    let key = cluster.key_of_reactor(leader, 1);
    cluster.mute = Some((leader, 1));
    let put = proto::PutRequest { key: Bytes::from(key), ..Default::default() };
    cluster.member(leader).ask("/etcdserverpb.KV/Put", &put);
    cluster.until("another serves", |cluster| cluster.leaders().iter().any(|at| *at != leader));
    let next = *cluster.leaders().iter().find(|at| **at != leader).unwrap();
    assert!(cluster.put(next, key) > 2);
}

/// Where each has asked the other before it has heard that the other asks, each has voted for itself: the next election
/// does not wait until one of them would have missed a leader.
#[test]
fn two_that_have_shared_the_votes_stand_again_at_once() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert_eq!(cluster.put(leader, "a"), 2);
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let settings = cluster.member(one).reactors[0].turn.settings.clone();
    let term = cluster.member(one).reactors[0].turn.term();
    cluster.held = vec![(one, other), (other, one)];
    cluster.kill(leader);
    cluster.pass(Duration::from_ms(50));
    cluster.release();
    let begun = cluster.now;
    cluster.until("another serves", serving);
    let [next] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert!(cluster.member(next).reactors[0].turn.term().0 > term.0 + 1, "the votes were shared once");
    let took = cluster.now.since(begun);
    assert!(took < Duration(settings.election_timeout.0 / 2), "{took:?}");
    assert_eq!(cluster.put(next, "a"), 3);
}

/// It belongs to an election that is over: with it, who has led the cluster before would take a group from who leads it.
#[test]
fn a_vote_of_an_older_election_is_not_asked_of_raft() {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let (at, candidate) = ((leader + 1) % 3, MemberId(7 + (leader as u64 + 2) % 3));
    cluster.until("it follows", |cluster| cluster.follows(at) == Some(leader));
    let (reactor, shard) = (&mut cluster.member(at).reactors[0], ShardId(1));
    let group = |reactor: &Reactor| {
        let group = reactor.shards.get(shard).unwrap().shard.group();
        (group.own(), group.term(), group.last())
    };
    let (own, term, last) = group(reactor);
    let of_shard = reactor.shards.get(shard).unwrap().shard.group();
    let voters = of_shard.peers_at(of_shard.applied()).voters.clone();
    let from = voters.into_iter().find(|id| reactor.turn.member_of(*id) == Some(candidate)).unwrap();
    let body = MessageBody::Vote { kind: VoteKind::Real, last, commit: Position::default() };
    let vote = Message { from, to: own, term: Term(term.0 + 1), body };
    let control_term = reactor.turn.epoch_state.term();
    reactor.on_group_message(candidate, shard, (Term(control_term.0 - 1), 0), vote.clone()).unwrap();
    assert_eq!(group(reactor).1, term);
    assert_eq!(reactor.paths().vote_outdated, 1);
    reactor.on_group_message(candidate, shard, (control_term, 0), vote).unwrap();
    assert_eq!(group(reactor).1, Term(term.0 + 1));
}

/// Whoever wins may lack what another has of a shard, which a majority has: that one takes the shard's group, with the
/// votes that its log gets.
#[test]
fn who_has_the_longer_log_of_a_group_takes_it_for_the_winner() {
    let mut taken = 0;
    for nth in [1, 2] {
        let mut cluster = Cluster::new(&[1, 1, 1], 3);
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        assert_eq!(cluster.put(leader, "a"), 2);
        cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
        let behind = (leader + nth) % 3;
        cluster.cut = vec![(leader, behind)];
        assert_eq!(cluster.put(leader, "a"), 3);
        cluster.kill(leader);
        cluster.cut.clear();
        let begun = cluster.now;
        cluster.until("another serves", serving);
        assert!(cluster.now.since(begun) < Duration::from_ms(3_000), "nobody gives its takeover up");
        let [next] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        assert_eq!(cluster.put(next, "a"), 4);
        let reactors = cluster.members.iter().flatten().flat_map(|member| &member.reactors);
        taken += reactors.map(|reactor| reactor.paths().group_taken).sum::<u64>();
    }
    assert!(taken > 0, "who was behind has won once");
}

/// Its log of the control shard's group is as long as the others', so that raft would give it any vote.
#[test]
fn who_is_far_behind_is_not_elected_and_the_others_are() {
    let mut refused = 0;
    for nth in [1, 2] {
        let mut cluster = Cluster::of(&[1, 2, 1], 3, |mut settings| {
            settings.bounds.behind_entries_max = 20;
            settings
        });
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        let (behind, other) = ((leader + nth) % 3, (leader + 3 - nth) % 3);
        cluster.cut = vec![(leader, behind)];
        for n in 0..30 {
            cluster.put(leader, &format!("k{n}"));
        }
        cluster.pass(Duration::from_ms(300));
        cluster.kill(leader);
        cluster.cut.clear();
        cluster.until("another serves", serving);
        assert_eq!(cluster.leaders(), [other]);
        assert_eq!(cluster.put(behind, "a"), 32);
        refused += cluster.member(other).reactors[0].paths().vote_of_laggard;
    }
    assert!(refused > 0, "who was behind has asked");
}

/// Where one is ahead in data and the other's log of the control shard's group is newer, only that one can win.
#[test]
fn who_alone_can_win_gets_its_votes_though_it_is_far_behind() {
    let mut cluster = Cluster::of(&[1, 1, 1], 3, |mut settings| {
        settings.bounds.behind_entries_max = 20;
        settings
    });
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    (0..30).for_each(|n| _ = cluster.put(leader, &format!("k{n}")));
    cluster.pass(Duration::from_ms(300));
    let at = (leader + 1) % 3;
    let candidate = MemberId(7 + ((leader + 2) % 3) as u64);
    let reactor = &mut cluster.member(at).reactors[0];
    let group = reactor.shards.get(ShardId::CONTROL).unwrap().shard.group();
    let (own, term, to) = (group.last(), group.term(), group.own());
    let voters = group.peers_at(group.applied()).voters.clone();
    let from = voters.into_iter().find(|id| reactor.turn.member_of(*id) == Some(candidate)).unwrap();
    let entries = reactor.epochs.entries();
    let newer = Position { index: own.index.next(), ..own };
    for (last, entries, refused) in
        [(own, entries, 0), (own, entries - 20, 0), (own, entries - 21, 1), (newer, 0, 0), (own, 0, 1)]
    {
        let body = MessageBody::Vote { kind: VoteKind::Pre, last, commit: Position::default() };
        let message = Message { from, to, term: Term(term.0 + 1), body };
        let before = reactor.paths().vote_of_laggard;
        reactor.on_group_message(candidate, ShardId::CONTROL, (Term(0), entries), message).unwrap();
        assert_eq!(reactor.paths().vote_of_laggard - before, refused, "{last:?} {entries}");
    }
}

/// Nothing was heard and nothing settled while all processes stood still, as on machines that were suspended.
#[test]
fn time_that_was_slept_deposes_nobody() {
    let mut cluster = Cluster::new(&[2, 1, 2], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    cluster.pass(Duration::from_ms(500));
    cluster.now = cluster.now + Duration::from_secs(3);
    cluster.pass(Duration::from_ms(300));
    let reactors = &cluster.member(leader).reactors;
    assert_eq!(reactors.iter().map(|reactor| reactor.paths().leader_gave_up).sum::<u64>(), 0);
    assert!(reactors.iter().any(|reactor| reactor.paths().sleep_not_counted > 0));
    assert_eq!(cluster.put(leader, "a"), 2);
}

/// A machine that was suspended comes back, and its member does not know that it leads no more.
#[test]
fn a_leader_that_slept_expires_no_lease_before_the_others_say_that_it_leads() {
    let mut cluster = Cluster::new(&[2, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let grant = proto::LeaseGrantRequest { ttl: 5, id: 77 };
    let _: proto::LeaseGrantResponse =
        cluster.call(leader, "/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    cluster.pass(Duration::from_ms(500));
    cluster.held = (0..3).filter(|at| *at != leader).map(|at| (at, leader)).collect();
    cluster.now = cluster.now + Duration::from_secs(60);
    let expired = |cluster: &Cluster| {
        cluster.members[leader].as_ref().unwrap().reactors[0].turn.counters.leases_expired
    };
    cluster.pass(Duration::from_ms(300));
    assert_eq!((cluster.leaders(), expired(&cluster)), (vec![leader], 0));
    cluster.release();
    cluster.until("they have said it", |cluster| expired(cluster) == 1);
    assert_eq!(cluster.leaders(), [leader]);
    let is_gone = |cluster: &Cluster| {
        let mut members = cluster.members.iter().flatten();
        members.all(|member| member.reactors[0].turn.control.leases.get(crate::types::LeaseId(77)).is_none())
    };
    cluster.until("it is gone everywhere", is_gone);
}

/// The leader's log rests while its disk stands still, so that it follows no commit, and a lease is asked for.
fn cluster_whose_leader_cannot_write_a_grant() -> (Cluster, usize) {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    cluster.pass(Duration::from_secs(1));
    cluster.member(leader).disk_stands = true;
    let grant = proto::LeaseGrantRequest { ttl: 60, id: 77 };
    cluster.member(leader).ask("/etcdserverpb.Lease/LeaseGrant", &grant);
    (cluster, leader)
}

/// The others have acknowledged what it does not follow.
#[test]
fn a_leader_whose_disk_stands_still_reads_nothing_older_than_the_others_show() {
    let (mut cluster, leader) = cluster_whose_leader_cannot_write_a_grant();
    let knows = |cluster: &Cluster, at: usize| {
        let member = cluster.members[at].as_ref().unwrap();
        member.reactors[0].turn.control.leases.get(crate::types::LeaseId(77)).is_some()
    };
    cluster.until("another one shows it", |cluster| (0..3).any(|at| knows(cluster, at)));
    assert!(!knows(&cluster, leader));
    let range = proto::RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let asked = cluster.member(leader).ask(RANGE, &range).number();
    cluster.pass(Duration::from_ms(300));
    assert_eq!(cluster.leaders(), [leader], "it leads on for now");
    assert_eq!(cluster.member(leader).answered(asked), None);
    cluster.member(leader).write_all();
    cluster.settle();
    assert!(knows(&cluster, leader));
    assert_eq!(cluster.member(leader).answered(asked), Some((0, "")));
}

/// The others have it, and no revision waits.
#[test]
fn a_leader_that_follows_no_control_entry_gives_the_leadership_up() {
    let (mut cluster, leader) = cluster_whose_leader_cannot_write_a_grant();
    let begun = cluster.now;
    cluster.until("another serves", |cluster| cluster.leaders().iter().any(|at| *at != leader));
    let timeout = cluster.member(leader).reactors[0].turn.settings.election_timeout;
    let took = cluster.now.since(begun);
    assert!(took < Duration(2 * timeout.0), "{took:?}");
}

/// A majority has confirmed it, and by the time its answers come another member leads.
#[test]
fn a_round_that_has_begun_serves_nobody_who_comes_later() {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    assert_eq!(cluster.put(leader, "a"), 2);
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    cluster.held = others.map(|other| (other, leader)).into();
    let range = proto::RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let early = cluster.member(leader).ask(RANGE, &range).number();
    cluster.settle();
    // The others lose their connections to it, and it has not heard of that.
    cluster.cut = others.map(|other| (leader, other)).into();
    let to_it = |(end, far): (&End, &End)| (far.member == leader).then_some((*end, *far));
    let broken: Vec<(End, End)> = cluster.ends.iter().filter_map(to_it).collect();
    for (End { member, conn }, _) in &broken {
        cluster.step(*member, *conn, Input::Closed { conn: *conn });
    }
    cluster.until("another serves", |cluster| cluster.leaders().len() == 2);
    let next = *cluster.leaders().iter().find(|at| **at != leader).unwrap();
    assert_eq!(cluster.put(next, "a"), 3);
    let late = cluster.member(leader).ask(RANGE, &range).number();
    cluster.settle();
    cluster.release();
    cluster.settle();
    assert_eq!(cluster.member(leader).answered(early), Some((0, "")));
    assert_eq!(cluster.member(leader).answered(late), None, "what was written before is not there");
    for (end, far) in broken {
        cluster.ends.remove(&end);
        cluster.ends.remove(&far);
        cluster.step(far.member, far.conn, Input::Closed { conn: far.conn });
    }
    cluster.cut.clear();
    let reply: proto::RangeResponse = cluster.answer(leader, late).unwrap();
    assert_eq!(reply.header.unwrap().revision, 3);
}
