use super::members::raft_id;
use super::*;
use crate::log::LogId;
use crate::record::{ControlEntry, CutRecord, Intent, MemberChange, RaftIdRecord};

fn fresh() -> Control {
    Control::new(Duration::from_ms(1000))
}

fn member(id: u64) -> MemberRecord {
    MemberRecord {
        id,
        directory: 0,
        raft_ids: raft_ids(id, 2),
        name: "a".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        client_urls: vec![],
        is_learner: false,
    }
}

fn raft_ids(member: u64, logs: u32) -> Vec<RaftIdRecord> {
    let id = |log| raft_id(ClusterId(9), MemberId(member), LogId(log), 0).get();
    (0..logs).map(|log| RaftIdRecord { log, incarnation: 0, id: id(log) }).collect()
}

fn published(id: u64, directory: u64, name: &str, raft_ids: Vec<RaftIdRecord>) -> ControlEntry {
    let client_urls = vec!["http://c".into()];
    ControlEntry::MemberAttributes { member: id, directory, name: name.into(), client_urls, raft_ids }
}

fn sample() -> Control {
    let cuts = vec![CutRecord { start: vec![], shard: 1 }, CutRecord { start: b"m".to_vec(), shard: 2 }];
    let changes = [
        ControlEntry::Bootstrap {
            cluster: 9,
            token: "t".into(),
            members: vec![member(7)],
            cuts,
            feature_level: 1,
        },
        published(7, 5, "b", vec![]),
        published(8, 5, "nobody", vec![]),
        ControlEntry::LeaseGrant { lease: 1, ttl_secs: 10 },
        ControlEntry::LeaseGrant { lease: -2, ttl_secs: 20 },
        ControlEntry::LeaseEnd { lease: 1 },
        ControlEntry::Compact { revision: 40 },
        ControlEntry::Compact { revision: 30 },
        ControlEntry::AlarmOn { member: 7, alarm: 1 },
        ControlEntry::AlarmOn { member: 7, alarm: 2 },
        ControlEntry::AlarmOff { member: 7, alarm: 2 },
    ];
    let mut control = fresh();
    for (index, change) in (1..).zip(&changes) {
        control.apply(Index(index), change);
    }
    control
}

#[test]
fn entries_take_effect_in_order() {
    let control = sample();
    assert!(control.is_bootstrapped() && !fresh().is_bootstrapped());
    assert_eq!(control.members()[0].name, "b");
    assert_eq!(control.compacted(), Revision(40), "compaction never goes back");
    assert!(control.no_space() && !control.corrupt());
    assert_eq!(control.alarms(AlarmType::Corrupt), []);
    assert_eq!(control.alarms(AlarmType::None).len(), 1);
    assert!(control.is_granted(LeaseId(-2)) && !control.is_granted(LeaseId(1)));
}

#[test]
fn a_state_taken_over_is_the_same_state() {
    let control = sample();
    let mut copy = fresh();
    copy.adopt(&control.to_state());
    assert_eq!(copy.to_state(), control.to_state());
    assert_eq!((copy.index, copy.cluster(), copy.token()), (Index(11), ClusterId(9), "t"));
}

fn apply(control: &mut Control, change: ControlEntry) {
    control.apply(control.index.next(), &change);
}

/// The ids of the members that clients are told of, a learner's negative.
fn shown(control: &Control) -> Vec<i64> {
    let members = control.members();
    members.iter().map(|m| if m.is_learner { -(m.id.0 as i64) } else { m.id.0 as i64 }).collect()
}

/// Whose change is under way, and who has left.
fn under_way(control: &Control) -> (Vec<(u64, MemberChange)>, Vec<u64>) {
    let state = control.to_state();
    (state.intents.iter().map(|intent| (intent.member, intent.change)).collect(), state.removed)
}

/// Each step, and the same state from a checkpoint taken there, go on alike.
fn follow(steps: Vec<(ControlEntry, Expected)>) {
    let mut control = sample();
    for (step, (change, (members, changes, removed))) in steps.into_iter().enumerate() {
        let mut copy = fresh();
        copy.adopt(&control.to_state());
        apply(&mut control, change.clone());
        apply(&mut copy, change);
        assert_eq!((shown(&control), under_way(&control)), (members, (changes, removed)), "step {step}");
        assert_eq!(copy.to_state(), control.to_state(), "step {step}");
    }
}

type Expected = (Vec<i64>, Vec<(u64, MemberChange)>, Vec<u64>);

fn adding(member: MemberRecord) -> ControlEntry {
    ControlEntry::Intent(Intent::Adding(Box::new(member)))
}

fn promoting(member: u64) -> ControlEntry {
    ControlEntry::Intent(Intent::Promoting { member })
}

fn removing(member: u64) -> ControlEntry {
    ControlEntry::Intent(Intent::Removing { member })
}

fn done(member: u64, change: MemberChange) -> ControlEntry {
    ControlEntry::IntentDone { member, change }
}

#[test]
fn an_intent_opens_a_change_and_done_closes_it() {
    use MemberChange::{Adding, Promoting, Removing};
    let learner = MemberRecord { is_learner: true, ..member(8) };
    follow(vec![
        (promoting(7), (vec![7], vec![], vec![])),
        (done(7, Adding), (vec![7], vec![], vec![])),
        (adding(learner.clone()), (vec![7, -8], vec![(8, Adding)], vec![])),
        (adding(member(8)), (vec![7, -8], vec![(8, Adding)], vec![])),
        (promoting(8), (vec![7, -8], vec![(8, Adding)], vec![])),
        (done(8, Adding), (vec![7, -8], vec![], vec![])),
        (promoting(8), (vec![7, 8], vec![(8, Promoting)], vec![])),
        (done(8, Promoting), (vec![7, 8], vec![], vec![])),
        (removing(8), (vec![7], vec![(8, Removing)], vec![])),
        (promoting(8), (vec![7], vec![(8, Removing)], vec![])),
        (done(8, Removing), (vec![7], vec![], vec![8])),
        (removing(8), (vec![7], vec![], vec![8])),
        (adding(learner), (vec![7], vec![], vec![8])),
        (done(8, Removing), (vec![7], vec![], vec![8])),
    ]);
}

#[test]
fn who_joins_to_vote_is_promoted_where_its_adding_is_done() {
    use MemberChange::{Adding, Promoting};
    follow(vec![
        (adding(member(8)), (vec![7, 8], vec![(8, Adding)], vec![])),
        (done(8, Promoting), (vec![7, 8], vec![(8, Adding)], vec![])),
        (done(8, Adding), (vec![7, 8], vec![(8, Promoting)], vec![])),
        (promoting(8), (vec![7, 8], vec![(8, Promoting)], vec![])),
        (done(8, Promoting), (vec![7, 8], vec![], vec![])),
    ]);
}

#[test]
fn a_member_is_reached_where_it_was_updated_to_and_one_that_is_none_nowhere() {
    let mut control = sample();
    for member in [7, 8] {
        apply(&mut control, ControlEntry::MemberUrls { member, peer_urls: vec!["http://new:1".into()] });
    }
    assert_eq!(control.members().len(), 1);
    assert_eq!(control.members()[0].peer_urls, ["http://new:1"]);
}

/// A removal takes the place of what is under way, which may be said to be done all the same.
#[test]
fn done_closes_the_intent_that_it_names_and_no_other() {
    use MemberChange::{Adding, Promoting, Removing};
    let learner = |id| MemberRecord { is_learner: true, ..member(id) };
    follow(vec![
        (adding(learner(8)), (vec![7, -8], vec![(8, Adding)], vec![])),
        (done(8, Promoting), (vec![7, -8], vec![(8, Adding)], vec![])),
        (done(8, Removing), (vec![7, -8], vec![(8, Adding)], vec![])),
        (removing(8), (vec![7], vec![(8, Removing)], vec![])),
        (done(8, Adding), (vec![7], vec![(8, Removing)], vec![])),
        (adding(learner(9)), (vec![7, -9], vec![(8, Removing), (9, Adding)], vec![])),
        (done(9, Adding), (vec![7, -9], vec![(8, Removing)], vec![])),
        (promoting(9), (vec![7, 9], vec![(8, Removing), (9, Promoting)], vec![])),
        (done(9, Adding), (vec![7, 9], vec![(8, Removing), (9, Promoting)], vec![])),
        (done(8, Removing), (vec![7, 9], vec![(9, Promoting)], vec![8])),
        (removing(9), (vec![7], vec![(9, Removing)], vec![8])),
        (done(9, Promoting), (vec![7], vec![(9, Removing)], vec![8])),
        (done(9, Removing), (vec![7], vec![], vec![8, 9])),
    ]);
}

#[test]
#[should_panic = "a member that was removed never comes back"]
fn no_state_has_a_member_that_was_removed() {
    let state = ControlState { removed: vec![7], ..sample().to_state() };
    fresh().adopt(&state);
}

/// As another member may give it.
#[test]
fn a_state_that_does_not_go_on_from_this_one_is_told() {
    let control = sample();
    let told = |change: &dyn Fn(&mut ControlState)| {
        let mut state = control.to_state();
        change(&mut state);
        control.misfit(&state)
    };
    assert_eq!(told(&|_| {}), None);
    assert_eq!(told(&|state| state.index -= 1), Some("control entries are not taken back"));
    assert_eq!(told(&|state| state.cluster += 1), Some("a member stays in its cluster"));
    assert_eq!(told(&|state| state.compact_revision = 1), Some("a compaction is not taken back"));
    assert_eq!(told(&|state| state.removed = vec![7]), Some("a member that was removed never comes back"));
    assert!(told(&|state| state.feature_level = 1 + FEATURE_LEVEL).is_some());
    let lease = LeaseRecord { lease: 5, ttl_secs: 0 };
    assert_eq!(told(&|state| state.leases.push(lease)), Some("a lease lives for a while"));
    let twice = LeaseRecord { lease: 6, ttl_secs: 9 };
    assert_eq!(told(&|state| state.leases.extend([twice, twice])), Some("a lease is granted once"));
}

#[test]
fn nobody_joins_under_a_raft_id_of_another() {
    let mut control = sample();
    let raft_ids = vec![RaftIdRecord { log: 0, incarnation: 0, id: member(7).raft_ids[1].id }];
    apply(&mut control, adding(MemberRecord { raft_ids, ..member(8) }));
    assert_eq!((shown(&control), under_way(&control)), (vec![7], (vec![], vec![])));
}

#[test]
fn what_a_member_publishes_adds_to_its_raft_ids_and_comes_from_one_directory() {
    let mut control = sample();
    let known = member(7).raft_ids;
    let new = RaftIdRecord { log: 2, incarnation: 0, id: 22 };
    let again = RaftIdRecord { log: 1, incarnation: 1, id: 11 };
    let other = RaftIdRecord { id: 33, ..known[0] };
    apply(&mut control, published(7, 5, "c", vec![known[0], new, again, other]));
    let record = control.member(MemberId(7)).unwrap().clone();
    assert_eq!((record.directory, &record.name[..]), (5, "c"));
    assert_eq!(record.raft_ids, [known[0], known[1], new, again]);
    let whose = |id| control.member_of(RaftId::new(id).unwrap());
    assert_eq!([known[0].id, known[1].id, 11, 22].map(whose), [Some(MemberId(7)); 4]);
    assert_eq!(whose(33), None);
    apply(&mut control, published(7, 6, "d", vec![RaftIdRecord { log: 4, incarnation: 0, id: 44 }]));
    assert_eq!(control.member(MemberId(7)), Some(&record), "another directory lost what this one promised");
}

#[test]
fn the_raft_ids_of_founders_are_these() {
    let id =
        |member, log, incarnation| raft_id(ClusterId(9), MemberId(member), LogId(log), incarnation).get();
    let ids = [id(7, 0, 0), id(7, 1, 0), id(7, 0, 1), id(8, 0, 0)];
    assert_eq!(
        ids.map(|id| format!("{id:016x}")),
        ["0d48e893451de0d0", "a544faeec0fac880", "2fd2271db0479269", "f06adfaedd8d2e8a"]
    );
    let of_cluster = raft_id(ClusterId(10), MemberId(7), LogId(0), 0).get();
    assert!(!ids.contains(&of_cluster));
    let records = founder_raft_ids(ClusterId(9), MemberId(7));
    assert_eq!(records, [RaftIdRecord { log: 0, incarnation: 0, id: ids[0] }]);
    assert_eq!(first_raft_id(ClusterId(9), MemberId(7)).get(), ids[0]);
}

#[test]
fn the_feature_level_never_falls() {
    let mut control = sample();
    assert_eq!((fresh().to_state().feature_level, control.to_state().feature_level), (0, 1));
    apply(&mut control, ControlEntry::FeatureLevel { level: 0 });
    assert_eq!(control.to_state().feature_level, 1);
}

#[test]
#[should_panic(expected = "a level is raised to what every member's program knows")]
fn a_level_beyond_this_program_is_none_that_it_could_apply() {
    apply(&mut sample(), ControlEntry::FeatureLevel { level: FEATURE_LEVEL + 1 });
}

/// Others are lost for ever, whatever was to become of them.
#[test]
fn one_member_is_left_alone() {
    let mut control = sample();
    let learner = MemberRecord { is_learner: true, ..member(8) };
    let changes = [
        ControlEntry::Intent(Intent::Adding(Box::new(learner))),
        ControlEntry::IntentDone { member: 8, change: MemberChange::Adding },
        ControlEntry::Intent(Intent::Adding(Box::new(member(9)))),
        ControlEntry::Intent(Intent::Removing { member: 7 }),
        ControlEntry::StandAlone { member: 6 },
    ];
    let mut index = control.index;
    let mut apply = |control: &mut Control, change: &ControlEntry| {
        index = index.next();
        control.apply(index, change);
    };
    changes.iter().for_each(|change| apply(&mut control, change));
    assert_eq!(control.records().count(), 3, "who is no member is not left");
    for own in [8, 7] {
        let mut control = fresh_of(&control);
        apply(&mut control, &ControlEntry::StandAlone { member: own });
        assert!(control.stands_alone(MemberId(own)) && control.is_of_one());
        let removed = (7..10).filter(|id| control.is_removed(MemberId(*id)));
        assert_eq!(removed.collect::<Vec<_>>(), (7..10).filter(|id| *id != own).collect::<Vec<_>>());
        apply(&mut control, &ControlEntry::IntentDone { member: 9, change: MemberChange::Adding });
        assert!(control.stands_alone(MemberId(own)));
    }
}

fn fresh_of(control: &Control) -> Control {
    let mut copy = fresh();
    copy.adopt(&control.to_state());
    copy
}
