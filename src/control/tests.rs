use super::*;
use crate::record::{Control as Change, CutRecord};

fn fresh() -> Control {
    Control::new(Duration::from_ms(1000))
}

fn sample() -> Control {
    let member = MemberRecord {
        id: 7,
        name: "a".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        client_urls: vec![],
        is_learner: false,
    };
    let cuts = vec![CutRecord { start: vec![], shard: 1 }, CutRecord { start: b"m".to_vec(), shard: 2 }];
    let changes = [
        Change::Bootstrap { cluster: 9, token: "t".into(), members: vec![member], cuts },
        Change::MemberAttributes { member: 7, name: "b".into(), client_urls: vec!["http://c".into()] },
        Change::MemberAttributes { member: 8, name: "nobody".into(), client_urls: vec![] },
        Change::LeaseGrant { lease: 1, ttl_secs: 10 },
        Change::LeaseGrant { lease: -2, ttl_secs: 20 },
        Change::LeaseEnd { lease: 1 },
        Change::Compact { revision: 40 },
        Change::Compact { revision: 30 },
        Change::AlarmOn { member: 7, alarm: 1 },
        Change::AlarmOn { member: 7, alarm: 2 },
        Change::AlarmOff { member: 7, alarm: 2 },
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
    copy.adopt(control.index, &control.to_state());
    assert_eq!(copy.to_state(), control.to_state());
    assert_eq!((copy.index, copy.cluster(), copy.token()), (Index(11), ClusterId(9), "t"));
}
