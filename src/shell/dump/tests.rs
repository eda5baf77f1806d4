//! What is said of the entries that no member alone writes.

use super::{json, text};
use crate::checkpoint::{ControlState, IntentRecord};
use crate::record::{ConfChange, ControlEntry, CutRecord, Intent, MemberChange, MemberRecord, RaftIdRecord};
use crate::recover::dump::{LogEntry, Says};
use crate::types::{Epoch, Index, Revision, ShardId, Term};
use serde_json::Value;

fn member() -> MemberRecord {
    MemberRecord {
        id: 0xA1,
        directory: 0xD1,
        raft_ids: vec![RaftIdRecord { log: 1, incarnation: 2, id: 0xE1 }],
        name: "b".into(),
        peer_urls: vec!["http://p".into()],
        client_urls: vec!["http://c".into()],
        is_learner: true,
    }
}

/// Each with what the text says behind the entry's place, and the fields of the JSON beside its place.
fn entries() -> Vec<(Says, &'static str, &'static str)> {
    let control = |control| {
        let epoch = Epoch { term: Term(2), attempt: 1 };
        Says::Control { epoch, settled: Revision(5), control, void: false }
    };
    let MemberRecord { id, directory, raft_ids, name, client_urls, .. } = member();
    let attributes = ControlEntry::MemberAttributes { member: id, directory, name, client_urls, raft_ids };
    let done = ControlEntry::IntentDone { member: id, change: MemberChange::Promoting };
    vec![
        (
            Says::ConfChange(ConfChange::AddVoter(0xE1)),
            "peer e1 votes from here on",
            r#"{"type":"conf_change","change":"add_voter","id":225}"#,
        ),
        (
            Says::ConfChange(ConfChange::AddLearner(0xE1)),
            "peer e1 learns from here on",
            r#"{"type":"conf_change","change":"add_learner","id":225}"#,
        ),
        (
            Says::ConfChange(ConfChange::Remove(0xE1)),
            "peer e1 is none from here on",
            r#"{"type":"conf_change","change":"remove","id":225}"#,
        ),
        (
            control(attributes),
            "member a1 is \"b\" at http://c in directory 00000000000000d1; log 1.2 is peer e1",
            r#"{"what":"member_attributes","member_id":161,"directory_id":209,"name":"b","client_urls":["http://c"],
                "raft_ids":[{"log":1,"incarnation":2,"id":225}]}"#,
        ),
        (
            control(ControlEntry::Intent(Intent::Adding(Box::new(member())))),
            "adding member a1 \"b\" (peers http://p; clients http://c; directory 00000000000000d1; log 1.2 is peer \
             e1, learner)",
            r#"{"what":"intent_adding","member":{"id":161,"name":"b","peer_urls":["http://p"],
                "client_urls":["http://c"],"is_learner":true,"directory_id":209,
                "raft_ids":[{"log":1,"incarnation":2,"id":225}]}}"#,
        ),
        (
            control(ControlEntry::Intent(Intent::Promoting { member: id })),
            "promoting member a1",
            r#"{"what":"intent_promoting","member_id":161}"#,
        ),
        (
            control(ControlEntry::Intent(Intent::Removing { member: id })),
            "removing member a1",
            r#"{"what":"intent_removing","member_id":161}"#,
        ),
        (
            control(done),
            "promoting member a1 is done",
            r#"{"what":"intent_done","member_id":161,"change":"promoting"}"#,
        ),
        (
            control(ControlEntry::FeatureLevel { level: 1 }),
            "feature level 1",
            r#"{"what":"feature_level","level":1}"#,
        ),
    ]
}

#[test]
fn entries_about_members_are_said() {
    for (says, in_text, in_json) in entries() {
        let about_control = matches!(says, Says::Control { .. });
        let entry = LogEntry { shard: ShardId(3), index: Index(9), term: Term(2), says };
        let place = if about_control { "control in epoch 2.1, revision 5 settled: " } else { "" };
        assert_eq!(text::entry(&entry), format!("shard 3 entry 9 term 2: {place}{in_text}\n"));
        let said: Value = serde_json::from_str(&json::entry(&entry)).unwrap();
        let mut expected: Value = serde_json::from_str(in_json).unwrap();
        expected["shard"] = 3.into();
        expected["index"] = 9.into();
        expected["term"] = 2.into();
        if about_control {
            expected["type"] = "control".into();
            expected["epoch"] = serde_json::json!({"term": 2, "attempt": 1});
            expected["settled"] = 5.into();
            expected["void"] = false.into();
        }
        assert_eq!(said, expected);
    }
}

#[test]
fn the_state_says_who_is_joining_or_leaving_and_who_has_left() {
    let state = ControlState {
        index: 7,
        cluster: 9,
        token: "t".into(),
        members: vec![member()],
        intents: vec![IntentRecord { member: 0xA1, change: MemberChange::Removing }],
        removed: vec![0xA2],
        feature_level: 1,
        cuts: vec![CutRecord { start: vec![], shard: 1 }],
        leases: vec![],
        alarms: vec![],
        compact_revision: 4,
    };
    let said = text::control_state(&state);
    for line in [
        "#   cluster 9, token \"t\", feature level 1, compacted at revision 4\n",
        "#   removing member a1 is under way\n",
        "#   member a2 has been removed\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let said = json::control_state(&state);
    assert_eq!(said["intents"], serde_json::json!([{"member_id": 0xA1, "change": "removing"}]));
    assert_eq!((&said["removed"], &said["feature_level"]), (&serde_json::json!([0xA2]), &1.into()));
    assert_eq!(said["members"][0]["directory_id"], 0xD1);
}
