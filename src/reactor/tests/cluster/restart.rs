//! Members that come back from their disks while nobody leads: they show what they had shown, or nothing.

use super::super::recover::Disk;
use super::*;

impl Member {
    /// What its disk has.
    pub(super) fn disk(&self) -> Disk {
        let mut disk = Disk::default();
        disk.segments = self.segments.clone();
        // What a file is longer than what was written into it, it was made with.
        for file in disk.segments.values_mut() {
            file.resize(file.len().next_multiple_of(SEGMENT_BYTES), 0);
        }
        disk
    }
}

impl Cluster {
    /// A member's process dies, and the next one begins with what the disk has. It has written no checkpoint.
    pub(super) fn restart(&mut self, at: usize, shards: usize) {
        self.restart_as(at, shards, false);
    }

    /// As [`Cluster::restart`]; or the member is told that all others are lost for ever.
    pub(super) fn restart_as(&mut self, at: usize, shards: usize, stands_alone: bool) {
        let Some(before) = self.members[at].take() else { panic!("m{at} is up") };
        assert!(before.checkpoints == 0 || before.lane_stands, "none is done");
        self.kill(at);
        let (count, reactors) = (self.members.len(), before.reactors.len() as u16);
        let disk = before.disk();
        let mut plan = disk.plan(reactors).unwrap();
        if stands_alone {
            plan.stand_alone().unwrap();
        }
        let settings = Settings { stands_alone, ..settings_of(at, count, shards) };
        let (settings, sequencer) = (Arc::new(settings), Arc::new(Sequencer::new(1 << 10)));
        let (settled, rested) = (plan.settled, plan.rested);
        let mut list = vec![];
        for (id, plan) in plan.reactors.into_iter().enumerate() {
            let load = |shard: crate::recover::ShardPlan| {
                let elections = settings.elections(shard.id(), crate::stdx::Rng::new(id as u64));
                shard.load(elections, &mut |name, offset, len| disk.read(name, offset, len)).unwrap().shard
            };
            list.push(Reactor::new(Boot {
                id: ReactorId(id as u16),
                reactors,
                settings: settings.clone(),
                sequencer: sequencer.clone(),
                log: plan.log,
                shards: plan.shards.into_iter().map(load).collect(),
                control: None,
                stale: plan.stale,
                left_over: vec![],
                last_file: 0,
                settled,
                rested,
                process: 2,
                seed: id as u64,
                now: Time(0),
            }));
        }
        let mut member = Member::of(list, sequencer, false);
        (member.now, member.segments) = (self.now, disk.segments);
        self.members[at] = Some(member);
    }

    pub(super) fn kill_all_but(&mut self, last: usize) {
        (0..self.members.len()).filter(|at| *at != last).for_each(|at| self.kill(at));
    }
}

pub(super) fn put_five(cluster: &mut Cluster, leader: usize) {
    (0..5u8).for_each(|n| _ = cluster.put(leader, &format!("{}k", char::from(n * 20))));
}

/// All have shown five puts and come to rest; then one is left, and is back.
fn one_that_is_left_and_back(reactors: [u16; 3]) -> (Cluster, usize) {
    let mut cluster = Cluster::new(&reactors, 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let last = (leader + 1) % 3;
    put_five(&mut cluster, leader);
    cluster.until("all show it", |cluster| cluster.shown() == [6; 3]);
    cluster.pass(Duration::from_secs(1));
    cluster.kill_all_but(last);
    cluster.restart(last, 3);
    (cluster, last)
}

#[test]
fn the_last_member_reads_what_it_had_shown_after_it_is_back() {
    for reactors in [[1, 1, 1], [2, 2, 2]] {
        let (mut cluster, last) = one_that_is_left_and_back(reactors);
        assert_eq!(cluster.range(last, true), (6, 5));
    }
}

/// It would be asked for what it has not taken over from its log.
#[test]
fn a_member_that_is_back_shows_nothing_before_all_its_reactors_know_which_shards_they_have() {
    let (mut cluster, last) = one_that_is_left_and_back([2, 2, 2]);
    cluster.member(last).cut_off = Some((ReactorId(1), vec![]));
    cluster.pass(Duration::from_secs(1));
    assert_eq!(cluster.member(last).sequencer.settled(), Revision::NONE);
    cluster.member(last).hears_again();
    assert_eq!(cluster.range(last, true), (6, 5));
}

/// One reactor has what follows for longer than a pause between bursts, and the other has not heard of it.
#[test]
fn a_log_does_not_rest_below_what_may_be_shown_without_another_commit() {
    let mut cluster = Cluster::new(&[2, 2, 2], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let last = (leader + 1) % 3;
    cluster.put(leader, "first");
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    cluster.member(last).cut_off = Some((ReactorId(0), vec![]));
    put_five(&mut cluster, leader);
    cluster.pass(Duration::from_secs(1));
    assert_eq!(cluster.shown()[last], 2, "one of its reactors does not know");
    cluster.member(last).hears_again();
    cluster.settle();
    assert_eq!(cluster.shown()[last], 7);
    cluster.kill_all_but(last);
    cluster.restart(last, 3);
    cluster.pass(Duration::from_secs(2));
    let shown = cluster.shown();
    assert!(shown == [0] || shown == [7], "{shown:?}");
}

/// What a leader shows may stand in one of its logs only, and the others rest.
#[test]
fn a_log_that_rests_says_anew_how_much_is_shown_though_nothing_else_comes_into_it() {
    let mut cluster = Cluster::new(&[2, 2, 2], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    put_five(&mut cluster, leader);
    cluster.until("all show it", |cluster| cluster.shown() == [6; 3]);
    cluster.pass(Duration::from_secs(1));
    let key = cluster.key_of_reactor(leader, 1);
    assert_eq!(cluster.put(leader, key), 7);
    cluster.pass(Duration::from_secs(1));
    cluster.kill_all_but(leader);
    cluster.restart(leader, 3);
    cluster.pass(Duration::from_secs(1));
    assert_eq!(cluster.shown(), [7]);
}

impl Cluster {
    /// Whether a member knows where so many have begun, or more.
    fn knows_directories(&self, at: usize, count: usize) -> bool {
        let control = &self.members[at].as_ref().unwrap().reactors[0].turn.control;
        control.records().filter(|of| of.directory != 0).count() >= count
    }

    /// A member's directory is lost, and it begins again in another one.
    fn begin_elsewhere(&mut self, at: usize, shards: usize) {
        let count = self.members.len();
        let reactors = self.member(at).reactors.len() as u16;
        self.kill(at);
        let settings = Settings { directory: StoreId(STORE.0 + 1), ..settings_of(at, count, shards) };
        self.members[at] = Some(Member::before_its_first_turn(false, reactors, settings));
    }
}

/// It has lost what it had acknowledged to the leader.
#[test]
fn a_member_that_is_back_helps_none_to_be_elected_that_has_begun_in_another_directory() {
    for reactors in [[1, 1, 1], [2, 2, 2]] {
        let mut cluster = Cluster::new(&reactors, 3);
        cluster.until("one serves", serving);
        let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
        let (behind, lost) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.until("all have said where they have begun", |cluster| {
            (0..3).all(|at| cluster.knows_directories(at, 3))
        });
        cluster.cut = vec![(leader, behind), (lost, behind)];
        put_five(&mut cluster, leader);
        cluster.cut = vec![(leader, behind), (lost, leader)];
        cluster.restart(behind, 3);
        cluster.begin_elsewhere(lost, 3);
        cluster.pass(Duration::from_secs(10));
        assert_eq!(cluster.leaders(), [0; 0], "neither has what was settled");
        cluster.cut = vec![];
        cluster.until("those that have kept it serve", serving);
        assert_eq!(cluster.range(behind, false), (6, 5));
    }
}

/// The other one connects while nothing is known here of the cluster.
#[test]
fn a_link_ends_when_it_is_known_that_its_member_had_begun_in_another_directory() {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.cut = vec![(0, 1), (0, 2)];
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let lost = 3 - leader;
    cluster.until("both have said where they have begun", |cluster| cluster.knows_directories(leader, 2));
    put_five(&mut cluster, leader);
    cluster.begin_elsewhere(lost, 3);
    (cluster.cut, cluster.held) = (vec![(1, 2)], vec![(leader, 0)]);
    let is_active = |cluster: &mut Cluster, of: usize| {
        cluster.member(0).reactors[0].peers.figures()[&MemberId(7 + of as u64)].is_active
    };
    for _ in 0..30 {
        cluster.settle();
        cluster.now = cluster.now + Duration::from_ms(10);
    }
    assert!(is_active(&mut cluster, lost), "nobody has told it yet");
    cluster.release();
    cluster.until("it is told", |cluster| cluster.knows_directories(0, 2));
    cluster.settle();
    assert_eq!([leader, lost].map(|of| is_active(&mut cluster, of)), [true, false]);
}
