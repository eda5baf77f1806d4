//! The leadership that goes to another member by order, and members that end by order.

use super::*;

use crate::raft::Role;

const PUT: &str = "/etcdserverpb.KV/Put";
const MOVE: &str = "/etcdserverpb.Maintenance/MoveLeader";
const TOO_LONG: &str = "etcdserver: request timed out, leader transfer took too long";

/// Puts that were asked at members, not yet awaited.
#[derive(Default)]
struct Asked {
    streams: Vec<(usize, u32)>,
}

impl Asked {
    fn put(&mut self, cluster: &mut Cluster, at: usize) {
        let n = self.streams.len();
        let key = format!("{}k{n}", ["/registry/pods/", "a", "/registry/leases/", "z"][n % 4]);
        let put = proto::PutRequest { key: Bytes::from(key), ..Default::default() };
        self.streams.push((at, cluster.member(at).ask(PUT, &put).number()));
    }

    /// The revisions of the puts, all of which have come to be done.
    fn revisions(&self, cluster: &mut Cluster) -> Vec<i64> {
        let is_answered = |cluster: &Cluster, (at, stream): &(usize, u32)| {
            cluster.members[*at].as_ref().unwrap().statuses.iter().any(|(of, ..)| of == stream)
        };
        cluster.until("all are answered", |cluster| self.streams.iter().all(|of| is_answered(cluster, of)));
        let mut revisions = vec![];
        for (at, stream) in &self.streams {
            let member = cluster.member(*at);
            let status = member.statuses.iter().find(|(of, ..)| of == stream).unwrap();
            assert_eq!((status.1, &status.2[..]), (0, ""), "m{at}");
            let (_, answer) = member.answers.iter().find(|(of, _)| of == stream).unwrap();
            revisions.push(proto::PutResponse::decode(&answer[..]).unwrap().header.unwrap().revision);
        }
        revisions
    }

    /// Each was done once, and nothing else was.
    fn check(&self, cluster: &mut Cluster, first: i64) {
        let mut revisions = self.revisions(cluster);
        revisions.sort_unstable();
        let expected: Vec<i64> = (first..).take(self.streams.len()).collect();
        assert_eq!(revisions, expected);
    }
}

impl Cluster {
    pub(super) fn leader(&self) -> usize {
        let [leader] = self.leaders()[..] else { panic!("one leads: {:?}", self.leaders()) };
        leader
    }

    /// All of the others follow one that leads.
    fn led(reactors: &[u16]) -> (Cluster, usize) {
        let mut cluster = Cluster::new(reactors, 4);
        cluster.until("one serves", serving);
        let leader = cluster.leader();
        cluster.until("the others follow", |cluster| cluster.all_follow(leader));
        cluster.pass(Duration::from_ms(300));
        (cluster, leader)
    }

    fn all_follow(&self, leader: usize) -> bool {
        let up = |at: &usize| *at != leader && self.members[*at].is_some();
        (0..self.members.len()).filter(up).all(|at| self.follows(at) == Some(leader))
    }

    fn move_leader(&mut self, at: usize, to: usize) -> Result<(), (u8, String)> {
        let request = proto::MoveLeaderRequest { target_id: 7 + to as u64 };
        let moved: Result<proto::MoveLeaderResponse, _> = self.call(at, MOVE, &request);
        moved.map(|_| ())
    }

    /// The process is told to end.
    fn stop(&mut self, at: usize) {
        let now = self.now.max(self.member(at).now);
        self.member(at).now = now;
        self.member(at).reactors.iter_mut().for_each(|reactor| reactor.step(now, Input::Stop));
    }

    fn is_done(&self, at: usize) -> bool {
        self.members[at].as_ref().unwrap().reactors.iter().all(Reactor::is_done)
    }
}

#[test]
fn the_leadership_is_moved_and_what_is_written_meanwhile_waits() {
    for reactors in [[1, 1, 1], [2, 1, 3], [3, 2, 1]] {
        let (mut cluster, leader) = Cluster::led(&reactors);
        let target = (leader + 1) % 3;
        let mut asked = Asked::default();
        (0..60).for_each(|n| asked.put(&mut cluster, n % 3));
        let request = proto::MoveLeaderRequest { target_id: 7 + target as u64 };
        let moved = cluster.member(leader).ask(MOVE, &request).number();
        let begun = cluster.now;
        for _ in 0..5 {
            (0..3).for_each(|at| asked.put(&mut cluster, at));
            for at in 0..3 {
                let now = cluster.now;
                cluster.member(at).now = now;
                cluster.member(at).turn_all();
            }
        }
        cluster.until("the move is answered", |cluster| {
            cluster.members[leader].as_ref().unwrap().statuses.iter().any(|(of, ..)| *of == moved)
        });
        let member = cluster.member(leader);
        let status = member.statuses.iter().find(|(of, ..)| *of == moved).unwrap();
        assert_eq!((status.1, &status.2[..]), (0, ""));
        assert_eq!(cluster.leaders(), [target]);
        (0..3).for_each(|at| asked.put(&mut cluster, at));
        asked.check(&mut cluster, 2);
        let took = cluster.now.since(begun);
        assert!(took < Duration::from_ms(200), "nobody waits for a timeout: {took:?}");
        let voided: u64 = (0..3).map(|at| cluster.paths(at).epoch_undone).sum();
        assert_eq!(voided, 0, "the takeover finds everything settled");
    }
}

/// The refusal of who was the leader may come when the next one serves already.
#[test]
fn a_request_that_comes_too_late_to_a_leader_goes_to_the_next_one() {
    let (mut cluster, leader) = Cluster::led(&[1, 2, 1]);
    let (target, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.member(target).disk_stands = true;
    let mut asked = Asked::default();
    asked.put(&mut cluster, leader);
    cluster.settle();
    let request = proto::MoveLeaderRequest { target_id: 7 + target as u64 };
    cluster.member(leader).ask(MOVE, &request);
    cluster.settle();
    cluster.held = vec![(leader, other)];
    (0..4).for_each(|_| asked.put(&mut cluster, other));
    cluster.pass(Duration::from_ms(20));
    cluster.member(target).write_all();
    cluster.until("the target leads", |cluster| cluster.leaders() == [target]);
    cluster.until("the other one follows", |cluster| cluster.follows(other) == Some(target));
    cluster.pass(Duration::from_ms(100));
    cluster.release();
    asked.check(&mut cluster, 2);
    assert!(cluster.paths(other).forwarded_anew >= 4, "they were refused once");
}

impl Cluster {
    fn paths(&mut self, at: usize) -> crate::io::Paths {
        let mut all = crate::io::Paths::default();
        self.member(at).reactors.iter().for_each(|reactor| all.add(&reactor.paths()));
        all
    }
}

#[test]
fn who_may_not_be_moved_to_or_asked_is_told_as_by_etcd() {
    let (mut cluster, leader) = Cluster::led(&[1, 2, 1]);
    assert_eq!(cluster.move_leader(leader, leader), Ok(()), "it leads already");
    let follower = (leader + 1) % 3;
    for target in [leader, follower, 90] {
        let refused = cluster.move_leader(follower, target).unwrap_err();
        assert_eq!(refused, (9, "etcdserver: not leader".to_owned()));
    }
    let refused = cluster.move_leader(leader, 90).unwrap_err();
    assert_eq!(refused, (9, "etcdserver: bad leader transferee".to_owned()));
    assert_eq!(cluster.leaders(), [leader]);
    // One that is down.
    cluster.kill(follower);
    let begun = cluster.now;
    assert_eq!(cluster.move_leader(leader, follower).unwrap_err(), (2, TOO_LONG.to_owned()));
    assert!(cluster.now.since(begun) < Duration::from_ms(50), "nothing is waited for");
    assert_eq!(cluster.leaders(), [leader]);
    assert_eq!(cluster.put(leader, "a"), 2);
}

#[test]
fn a_move_to_a_member_that_lags_fails_within_an_election_timeout_and_writes_go_on_where_they_waited() {
    let (mut cluster, leader) = Cluster::led(&[2, 1, 1]);
    let (target, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = cluster.member(leader).reactors[0].turn.term();
    cluster.member(target).disk_stands = true;
    assert_eq!(cluster.put(leader, "a"), 2);
    let request = proto::MoveLeaderRequest { target_id: 7 + target as u64 };
    let moved = cluster.member(leader).ask(MOVE, &request).number();
    cluster.settle();
    let begun = cluster.now;
    let mut asked = Asked::default();
    [leader, other, leader, other].into_iter().for_each(|at| asked.put(&mut cluster, at));
    cluster.pass(Duration::from_ms(100));
    assert_eq!(cluster.shown()[leader], 2, "writes wait");
    cluster.until("the move is answered", |cluster| {
        cluster.members[leader].as_ref().unwrap().statuses.iter().any(|(of, ..)| *of == moved)
    });
    assert!(cluster.now.since(begun) <= Duration::from_ms(1_000));
    let status = cluster.member(leader).statuses.iter().find(|(of, ..)| *of == moved).unwrap().clone();
    assert_eq!((status.1, &status.2[..]), (2, TOO_LONG));
    asked.check(&mut cluster, 3);
    assert!(cluster.now.since(begun) <= Duration::from_ms(1_000), "they went on at once");
    assert_eq!((cluster.leaders(), cluster.member(leader).reactors[0].turn.term()), (vec![leader], term));
}

#[test]
fn a_leader_that_is_told_to_end_hands_over_first_and_no_write_is_lost() {
    for reactors in [[1, 1, 1], [2, 3, 1], [3, 1, 2]] {
        let (mut cluster, leader) = Cluster::led(&reactors);
        let create = proto::WatchCreateRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        let watch = cluster.member(leader).watch(create).number();
        let mut asked = Asked::default();
        (0..60).for_each(|n| asked.put(&mut cluster, n % 3));
        cluster.member(leader).turn_all();
        let begun = cluster.now;
        cluster.stop(leader);
        (0..30).for_each(|n| asked.put(&mut cluster, n % 3));
        cluster.until("it is done", |cluster| cluster.is_done(leader));
        let took = cluster.now.since(begun);
        assert!(took <= Duration::from_ms(100), "nobody waits for a timeout: {took:?}");
        let [next] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        assert!(next != leader);
        asked.check(&mut cluster, 2);
        let member = cluster.member(leader);
        let ended = member.statuses.iter().find(|(of, ..)| *of == watch).expect("the stream has ended");
        assert_eq!((ended.1, &ended.2[..]), (14, "etcdserver: server stopped"));
        // Its process is there still, and nobody counts on it.
        for at in (0..3).filter(|at| *at != leader) {
            let reaches =
                cluster.member(at).reactors.iter().any(|r| r.peers.reaches(MemberId(7 + leader as u64)));
            assert!(!reaches, "m{at} has heard that it leaves");
        }
    }
}

/// All that the next leader has said comes in one turn, the first of it while the one before is followed.
#[test]
fn a_request_behind_a_hand_over_waits_for_no_tick() {
    let (mut cluster, leader) = Cluster::led(&[1, 2, 1]);
    let (target, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.held = vec![(target, other)];
    assert_eq!(cluster.move_leader(leader, target), Ok(()));
    assert_eq!(cluster.follows(other), Some(leader), "it has not heard of it");
    let begun = cluster.now;
    cluster.release();
    assert_eq!(cluster.put(other, "a"), 2);
    let took = cluster.now.since(begun);
    assert!(took < Duration::from_ms(30), "{took:?}");
}

/// It has no client that it would have to answer first.
#[test]
fn a_leader_that_ends_votes_for_the_next_one_before_it_leaves() {
    let (mut cluster, leader) = Cluster::led(&[1, 2, 1]);
    cluster.pass(Duration::from_ms(500));
    // Of the other two the one that is not asked to stand is slow.
    let begun = cluster.now;
    cluster.stop(leader);
    let asked = |cluster: &Cluster, at: usize| {
        let group = cluster.members[at].as_ref().unwrap().reactors[0].shards.get(ShardId::CONTROL);
        group.unwrap().shard.group().role() == Role::Candidate
    };
    while !(0..3).any(|at| asked(&cluster, at)) {
        assert!(cluster.turn_all(), "one is asked to stand");
    }
    let other = (0..3).find(|at| *at != leader && !asked(&cluster, *at)).unwrap();
    cluster.member(other).disk_stands = true;
    cluster.until("another leads", |cluster| cluster.leaders().iter().any(|at| *at != leader));
    cluster.until("it is done", |cluster| cluster.is_done(leader));
    let took = cluster.now.since(begun);
    assert!(took <= Duration::from_ms(100), "nobody waits for a timeout: {took:?}");
}

/// What has not reached it when it says farewell was not taken.
#[test]
fn a_request_that_is_on_its_way_to_a_leader_that_ends_goes_to_the_next_one() {
    let (mut cluster, leader) = Cluster::led(&[2, 1, 1]);
    let other = (leader + 2) % 3;
    cluster.held = vec![(other, leader)];
    let mut asked = Asked::default();
    (0..4).for_each(|_| asked.put(&mut cluster, other));
    cluster.settle();
    cluster.stop(leader);
    cluster.until("it is done", |cluster| cluster.is_done(leader));
    asked.check(&mut cluster, 2);
}

#[test]
fn a_leader_that_nobody_can_follow_ends_all_the_same() {
    let (mut cluster, leader) = Cluster::led(&[2, 1, 1]);
    cluster.put(leader, "a");
    (0..3).filter(|at| *at != leader).for_each(|at| cluster.kill(at));
    let begun = cluster.now;
    cluster.stop(leader);
    cluster.until("it is done", |cluster| cluster.is_done(leader));
    assert!(cluster.now.since(begun) <= Duration::from_ms(1_100));
}

/// Whoever led next would wait for the same disks, and what is under way would have no known outcome.
#[test]
fn a_leader_that_ends_while_all_disks_stand_answers_what_was_asked_before() {
    let (mut cluster, leader) = Cluster::led(&[1, 2, 1]);
    (0..3).for_each(|at| cluster.member(at).disk_stands = true);
    let mut asked = Asked::default();
    (0..9).for_each(|n| asked.put(&mut cluster, n % 3));
    cluster.pass(Duration::from_ms(300));
    cluster.stop(leader);
    cluster.pass(Duration::from_ms(1_500));
    assert!(!cluster.is_done(leader), "its clients wait");
    // One after the other they go on, the leader's last.
    for at in [(leader + 2) % 3, (leader + 1) % 3, leader] {
        cluster.member(at).write_all();
        cluster.settle();
    }
    cluster.until("it is done", |cluster| cluster.is_done(leader));
    asked.check(&mut cluster, 2);
    cluster.until("another leads", |cluster| cluster.leaders().iter().any(|at| *at != leader));
}

#[test]
fn where_the_leader_leaves_without_a_hand_over_the_others_wait_for_no_timeout() {
    let (mut cluster, leader) = Cluster::led(&[1, 2, 1]);
    cluster.member(leader).reactors.iter_mut().for_each(|reactor| reactor.peers.leave());
    let begun = cluster.now;
    cluster.until("another leads", |cluster| cluster.leaders().iter().any(|at| *at != leader));
    let took = cluster.now.since(begun);
    assert!(took < Duration::from_ms(300), "{took:?}");
}

#[test]
fn a_follower_that_is_told_to_end_answers_what_it_has_forwarded() {
    let (mut cluster, leader) = Cluster::led(&[1, 2, 2]);
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    // The write waits at the leader for the other two.
    [follower, other].into_iter().for_each(|at| cluster.member(at).disk_stands = true);
    let mut asked = Asked::default();
    (0..8).for_each(|_| asked.put(&mut cluster, follower));
    cluster.settle();
    cluster.stop(follower);
    cluster.pass(Duration::from_ms(200));
    assert!(!cluster.is_done(follower), "its clients wait");
    [follower, other].into_iter().for_each(|at| cluster.member(at).write_all());
    cluster.until("it is done", |cluster| cluster.is_done(follower));
    asked.check(&mut cluster, 2);
    assert_eq!(cluster.leaders(), [leader]);
    assert_eq!(cluster.put(other, "a"), 10);
}
