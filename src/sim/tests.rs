//! Runs of the world, each by its seed, and worlds of several members. As members do not know each other, each
//! of several is alone: what one is asked, suffers and says is no other's.

use super::checks;
use super::links::Lane;
use super::member::{Death, Life};
use super::plan::{Fault, MemberFault, Plan, What};
use super::run;
use super::run::Run;
use super::world::World;
use crate::config::AutoCompaction;
use crate::limits::Bounds;
use crate::stdx::Rng;
use crate::types::{Duration, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message};

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        let first = run(&Plan::draw(seed), false);
        let second = run(&Plan::draw(seed), false);
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
    }
}

/// The world of the plan, after all that the plan has happen.
fn through_events(plan: &Plan) -> World {
    let mut world = World::new(plan, false);
    Run::of(&mut world, plan).go_through_events().unwrap();
    world
}

#[test]
fn several_members_are_asked_and_suffer_each_for_itself() {
    let (mut answered, mut struck, mut links_struck) = ([0; 3], [0; 3], 0);
    for seed in 0..8 {
        let plan = Plan::draw_for(seed, 3);
        for event in &plan.events {
            match event.what {
                What::Fault(Fault::Member(member, _)) => struck[member] += 1,
                What::Fault(Fault::Link { .. }) => links_struck += 1,
                _ => {}
            }
        }
        let world = through_events(&plan);
        assert_eq!(world.trace.hash, through_events(&plan).trace.hash, "seed {seed}");
        checks::members::check_headers(&world.history).unwrap();
        assert!(world.members.iter().all(|member| member.starts > 0), "seed {seed}");
        for op in world.history.ops.iter().filter(|op| op.is_ok()) {
            answered[op.member] += 1;
        }
    }
    assert!(answered.iter().all(|count| *count > 100), "{answered:?}");
    assert!(struck.iter().all(|count| *count > 5) && links_struck > 5, "{struck:?} {links_struck}");
}

/// A world of three in which nothing goes wrong by itself, each asked by a client of its own.
struct Three(World);

impl Three {
    fn new(change: impl FnOnce(&mut Plan)) -> Three {
        let mut plan = Plan::draw_for(1, 3);
        plan.events.clear();
        plan.shape.clients = 3;
        plan.shape.bounds = Bounds::PRODUCTION;
        plan.shape.quota_bytes = None;
        plan.shape.auto_compaction = AutoCompaction::Off;
        change(&mut plan);
        let mut three = Three(World::new(&plan, true));
        three.go_on(5000);
        three
    }

    fn go_on(&mut self, ms: u64) {
        self.0.advance(self.0.now + Duration::from_ms(ms)).unwrap();
    }

    /// Each client asks its member. Gives what each has answered after two seconds.
    fn ask(&mut self, method: Method, request: &impl Message) -> [Option<bytes::Bytes>; 3] {
        let ops = [0, 1, 2].map(|client| {
            self.0.connect_with(client, client);
            self.0.call(client, method, request.encode_to_vec().into())
        });
        self.go_on(2000);
        ops.map(|op| self.0.history.ops[op?].messages.first().cloned())
    }

    fn put(&mut self) -> [bool; 3] {
        let put = proto::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        self.ask(Method::Put, &put).map(|answer| answer.is_some())
    }

    /// What a member has heard over its links.
    fn heard(&self, member: usize) -> Vec<&str> {
        let begin = format!(" m{member} <= ");
        self.0.trace.lines.iter().filter(|line| line.contains(&begin)).map(String::as_str).collect()
    }
}

#[test]
fn what_one_member_suffers_is_no_others() {
    let mut three = Three::new(|_| {});
    assert_eq!(three.put(), [true; 3]);
    three.0.die(1, Death::PowerLoss);
    three.0.members[1].life = Life::Down { until: Time::NEVER };
    assert_eq!(three.put(), [true, false, true]);
    let hung = MemberFault::HungDisk(Duration::from_secs(60));
    three.0.fault(Fault::Member(2, hung), Rng::new(1));
    assert_eq!(three.put(), [true, false, false]);
    three.0.calm();
    three.go_on(5000);
    assert_eq!(three.put(), [true; 3]);
    assert_eq!(three.0.members.iter().map(|member| member.starts).collect::<Vec<u64>>(), [1, 2, 1]);
}

#[test]
fn each_member_goes_by_its_own_clock() {
    let mut three = Three::new(|plan| {
        for (member, drift_ppm) in plan.shape.members.iter_mut().zip([500_000, 0, -500_000]) {
            member.clock.drift_ppm = drift_ppm;
        }
    });
    let grant = proto::LeaseGrantRequest { ttl: 10, id: 1 };
    assert!(three.ask(Method::LeaseGrant, &grant).iter().all(Option::is_some));
    let lives = |three: &mut Three, ms| {
        three.go_on(ms);
        let ask = proto::LeaseTimeToLiveRequest { id: 1, keys: false };
        three.ask(Method::LeaseTimeToLive, &ask).map(|answer| {
            let answer = proto::LeaseTimeToLiveResponse::decode(answer.unwrap()).unwrap();
            answer.ttl > 0
        })
    };
    // About 3, 8, 13 and 23 seconds after the grant.
    assert_eq!(lives(&mut three, 1000), [true, true, true]);
    assert_eq!(lives(&mut three, 3000), [false, true, true]);
    assert_eq!(lives(&mut three, 3000), [false, false, true]);
    assert_eq!(lives(&mut three, 8000), [false, false, false]);
}

#[test]
fn links_carry_frames_between_members_and_break_with_them() {
    let mut three = Three::new(|_| {});
    let now = three.0.now;
    let first = three.0.links.connect(now, 0, 1, Lane::Bulk);
    let second = three.0.links.connect(now, 2, 0, Lane::Reactors(0, 0));
    three.0.links.send(now, first, 0, vec![1]);
    three.0.links.send(now, second, 2, vec![2]);
    three.go_on(1000);
    assert_eq!([0, 1, 2].map(|member| three.heard(member).len()), [3, 2, 1]);
    three.0.die(1, Death::Kill);
    three.go_on(1000);
    three.0.links.send(three.0.now, second, 0, vec![3]);
    three.go_on(1000);
    assert_eq!([0, 1, 2].map(|member| three.heard(member).len()), [4, 2, 2]);
    assert!(three.heard(0)[3].contains("Broken"), "{:?}", three.heard(0));
}
