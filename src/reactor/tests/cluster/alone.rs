//! A member whose others are lost for ever goes on alone with what it has.

use super::restart::put_five;
use super::*;

const SHARDS: usize = 3;

/// Three members serve, and all have shown five puts. Who leads.
fn three(reactors: [u16; 3]) -> (Cluster, usize) {
    let mut cluster = Cluster::new(&reactors, SHARDS);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    put_five(&mut cluster, leader);
    cluster.until("all show it", |cluster| cluster.shown() == [6; 3]);
    (cluster, leader)
}

impl Cluster {
    /// The others are gone, and the member is told that they do not come back.
    fn leave_alone(&mut self, last: usize) {
        self.kill_all_but(last);
        self.start_anew(last, true);
    }

    /// No checkpoint of it is ever done: this world starts nobody from one.
    fn start_anew(&mut self, last: usize, stands_alone: bool) {
        self.restart_as(last, SHARDS, stands_alone);
        self.member(last).lane_stands = true;
    }

    /// The member serves alone, as it does after another start.
    fn check_alone(&mut self, last: usize, revision: i64, keys: usize) {
        let id = 7 + last as u64;
        self.until("it serves alone", |cluster| {
            let member = cluster.members[last].as_ref().unwrap();
            serving(cluster) && member.has_stood_alone
        });
        for again in 0..3 {
            assert_eq!(self.list(last), [(id, false)]);
            assert_eq!(self.peers(last), (1, 0));
            assert_eq!(self.range(last, false), (revision + again, keys + again as usize));
            assert_eq!(self.put(last, &format!("{again}")), revision + again + 1);
            self.start_anew(last, false);
            self.until("it serves again", serving);
        }
        let control = &self.member(last).reactors[0].turn.control;
        assert!((7..10).filter(|id| *id != 7 + last as u64).all(|id| control.is_removed(MemberId(id))));
    }
}

#[test]
fn one_that_is_left_of_three_goes_on_alone_with_all_it_has_shown() {
    for reactors in [[1, 1, 1], [2, 2, 2], [1, 2, 3]] {
        for last in 0..3 {
            let (mut cluster, _) = three(reactors);
            cluster.leave_alone(last);
            cluster.check_alone(last, 6, 5);
        }
    }
}

/// Its log of control entries has what the other one lacks, though both were settled by the others.
#[test]
fn what_others_have_settled_and_one_log_lacks_is_lost_and_nothing_else() {
    for leads in [false, true] {
        let (mut cluster, leader) = three([2, 2, 2]);
        let last = if leads { leader } else { (leader + 1) % 3 };
        let [first, second] = [0, 1].map(|reactor| cluster.key_of_reactor(leader, reactor));
        cluster.put(leader, first);
        cluster.put(leader, second);
        cluster.until("all show it", |cluster| cluster.shown() == [8; 3]);
        cluster.member(last).log_stands = Some(1);
        assert_eq!(cluster.put(leader, second), 9);
        for revision in 10..13 {
            assert_eq!(cluster.put(leader, first), revision, "the others have it");
        }
        cluster.pass(Duration::from_ms(300));
        cluster.leave_alone(last);
        cluster.check_alone(last, 8, 7);
    }
}

/// Its process dies after each of its first turns, and again.
#[test]
fn one_that_dies_on_the_way_comes_to_the_same() {
    for turns in 0..40 {
        let (mut cluster, leader) = three([2, 2, 2]);
        let last = (leader + 1) % 3;
        cluster.leave_alone(last);
        for _ in 0..3 {
            (0..turns).for_each(|_| _ = cluster.turn_all());
            cluster.now = cluster.now + Duration::from_ms(10);
            if cluster.member(last).has_stood_alone {
                break;
            }
            cluster.start_anew(last, true);
        }
        cluster.check_alone(last, 6, 5);
    }
}

/// What was under way of members ends with them.
#[test]
fn a_change_of_members_that_was_under_way_is_none_any_more() {
    let (mut cluster, leader) = three([2, 2, 2]);
    cluster.heal();
    let last = (leader + 1) % 3;
    cluster.add(leader, false);
    let others: Vec<u64> = (0..3).filter(|at| *at != last).map(|at| 7 + at as u64).collect();
    cluster.until("all have it", |cluster| {
        cluster.members.iter().flatten().all(|member| member.reactors[0].turn.control.records().count() == 4)
    });
    cluster.pass(Duration::from_secs(1));
    assert_eq!(cluster.list(last).len(), 4);
    cluster.members.pop();
    cluster.leave_alone(last);
    cluster.until("it is alone", |cluster| cluster.members[last].as_ref().unwrap().has_stood_alone);
    assert_eq!(cluster.list(last), [(7 + last as u64, false)]);
    let control = &cluster.member(last).reactors[1].turn.control;
    assert!(others.iter().all(|id| control.is_removed(MemberId(*id))));
    assert_eq!(cluster.put(last, "after"), 7);
}

#[test]
fn one_that_was_added_and_given_nothing_yet_does_not_go_on_alone() {
    let mut cluster = Cluster::new(&[2], SHARDS);
    cluster.until("one serves", serving);
    let reply = cluster.add(0, false);
    cluster.start_in(STORE, 2, &reply);
    let nothing = cluster.members[1].as_ref().unwrap().disk().plan(2).unwrap();
    assert!(nothing.is_alone(), "it has not begun");
    cluster.cut = vec![(0, 1)];
    cluster.settle();
    let mut plan = cluster.members[1].as_ref().unwrap().disk().plan(2).unwrap();
    assert!(!plan.is_alone());
    let why = plan.stand_alone().unwrap_err();
    assert!(why.contains("was not given all of the data yet"), "{why}");
}
