//! Runs of the world, each by its seed, and clusters in which nothing goes wrong but what a test has go wrong.

use super::checks;
use super::hits::Hits;
use super::member::Death;
use super::plan::{Fault, MemberFault, Plan};
use super::run;
use super::world::World;
use crate::config::AutoCompaction;
use crate::limits::Bounds;
use crate::stdx::Rng;
use crate::types::{Duration, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message};

#[test]
fn the_same_seed_is_the_same_run() {
    for (seed, members) in [(1, 1), (2, 1), (1, 3), (2, 5)] {
        let first = run(&Plan::draw_for(seed, members), false);
        let second = run(&Plan::draw_for(seed, members), false);
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed} of {members}");
    }
    let changing = |seed| run(&Plan::draw_changing(seed, 1), false).trace_hash;
    assert_eq!(changing(1), changing(1));
}

/// A cluster in which nothing goes wrong by itself, each member asked by a client of its own.
struct Cluster(World);

impl Cluster {
    fn new(members: usize) -> Cluster {
        let mut plan = Plan::draw_for(1, members);
        plan.events.clear();
        plan.shape.clients = members;
        plan.shape.bounds = Bounds::PRODUCTION;
        plan.shape.quota_bytes = None;
        plan.shape.auto_compaction = AutoCompaction::Off;
        let mut cluster = Cluster(World::new(&plan, true));
        cluster.go_on(5000);
        cluster
    }

    fn go_on(&mut self, ms: u64) {
        self.0.advance(self.0.now + Duration::from_ms(ms)).unwrap();
    }

    /// Each client asks its member. Gives what each has answered after eight seconds, if it was no error.
    fn ask(&mut self, method: Method, request: &impl Message) -> Vec<Option<bytes::Bytes>> {
        let ops: Vec<Option<usize>> = self
            .0
            .places()
            .map(|client| {
                self.0.connect_with(client, client);
                self.0.call(client, method, request.encode_to_vec().into())
            })
            .collect();
        self.go_on(8000);
        ops.into_iter().map(|op| self.0.history.ops[op?].messages.first().cloned()).collect()
    }

    fn put(&mut self) -> Vec<bool> {
        let put = proto::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        self.ask(Method::Put, &put).iter().map(Option::is_some).collect()
    }

    /// The version of the key that each member reads, by what it has itself or not.
    fn read(&mut self, serializable: bool) -> Vec<Option<i64>> {
        let range = proto::RangeRequest { key: "k".into(), serializable, ..Default::default() };
        let answers = self.ask(Method::Range, &range).into_iter();
        let version = |answer| proto::RangeResponse::decode(answer).unwrap().kvs[0].version;
        answers.map(|answer: Option<bytes::Bytes>| answer.map(version)).collect()
    }
}

#[test]
fn members_are_one_cluster() {
    for members in [1, 3, 5] {
        let mut cluster = Cluster::new(members);
        assert_eq!(cluster.put(), vec![true; members]);
        assert_eq!(cluster.read(false), vec![Some(members as i64); members]);
        assert_eq!(cluster.read(true), vec![Some(members as i64); members]);
        checks::members::check_headers(&cluster.0.history).unwrap();
        assert_eq!(cluster.0.history.known.reigns.len(), 1);
        assert_eq!(cluster.0.links.hits, Hits::default());
    }
}

#[test]
fn what_a_minority_suffers_is_not_the_clusters() {
    let mut cluster = Cluster::new(3);
    cluster.0.die_for_good(1, Death::PowerLoss);
    assert_eq!(cluster.put(), [true, false, true]);
    cluster.0.fault(Fault::Member(2, MemberFault::Freeze(Duration::from_secs(60))), Rng::new(1));
    assert_eq!(cluster.put(), [false; 3]);
    assert_eq!(cluster.read(true), [Some(2), None, None]);
    cluster.0.calm();
    cluster.go_on(5000);
    assert_eq!(cluster.put(), [true; 3]);
    assert_eq!(cluster.0.members.iter().map(|member| member.starts).collect::<Vec<u64>>(), [1, 2, 1]);
}

/// One founder, places for others, and nothing that happens by itself.
fn with_places_for_others() -> World {
    let mut plan = Plan::draw_changing(1, 1);
    plan.events.clear();
    World::new(&plan, true)
}

#[test]
fn nobody_is_started_who_was_not_added() {
    let mut world = with_places_for_others();
    world.advance(Time::from_ms(3000)).unwrap();
    world.lose_power();
    world.calm();
    world.advance(Time::from_ms(6000)).unwrap();
    assert_eq!(world.members.iter().map(|member| member.starts).collect::<Vec<u64>>(), [2, 0, 0, 0]);
    assert!(world.all_up() && world.members[1].is_vacant());
}

#[test]
fn who_ends_as_removed_was_to_be_and_ends_again_if_started() {
    let mut world = with_places_for_others();
    world.advance(Time::from_ms(3000)).unwrap();
    let failure = world.leave(0).expect_err("nobody has asked for that");
    assert_eq!(failure.check, "halt");
    world.connect_with(0, 0);
    let removal = proto::MemberRemoveRequest { id: world.identity(0).id.0 };
    world.call(0, Method::MemberRemove, removal.encode_to_vec().into()).unwrap();
    while !world.members[0].is_away() {
        world.leave(0).unwrap();
        world.calm();
        world.advance(world.now + Duration::from_ms(3000)).unwrap();
    }
    assert!((1..=2).contains(&world.members[0].leaves));
    world.calm();
    world.advance(world.now + Duration::from_ms(3000)).unwrap();
    assert!(world.members[0].is_away(), "it is started no more");
}

#[test]
fn who_was_added_is_started_with_what_its_operator_was_told() {
    let mut world = with_places_for_others();
    let member = |at: usize| proto::Member {
        id: 50 + at as u64,
        peer_urls: vec![world.identity(at).peer_url.clone()],
        ..Default::default()
    };
    let list: Vec<proto::Member> = (0..2).map(member).collect();
    world.start_newcomer(1, &list, Duration(1), None);
    assert!(world.members[1].is_vacant(), "nobody knows its id");
    world.note_members(&list);
    world.start_newcomer(1, &list, Duration(1), None);
    let joiner = world.members[1].joiner.as_ref().unwrap();
    assert_eq!((joiner.id.0, joiner.members.len()), (51, 2));
    assert_eq!(world.identity(0).id.0, 7, "a founder's id is known");
}
