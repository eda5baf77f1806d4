//! Checkpoints, beside a log that gets no further.

use super::*;

/// The log stands, as it does when the disk has no room for its next segment. Checkpoints free nothing then,
/// and one after the other would fill what room there is.
#[test]
fn no_checkpoint_begins_before_the_last_one_counts() {
    let mut member = Member::with(1, Settings { checkpoint_log_bytes: 1, ..settings(1) });
    for n in 0..10 {
        member.put("a", &n.to_string());
    }
    let before = member.checkpoints;
    assert!(before > 1, "they are due all the time");
    member.disk_stands = true;
    let put = proto::PutRequest { key: Bytes::from_static(b"b"), ..Default::default() };
    member.ask("/etcdserverpb.KV/Put", &put);
    (0..200).for_each(|_| _ = member.turn_all());
    assert!(member.checkpoints <= before + 1, "{} more", member.checkpoints - before);
    member.write_all();
    member.put("a", "after");
    assert!(member.checkpoints > before + 1);
}

/// etcd answers a physical compaction when the history is gone. Here a checkpoint may hold some of it for long
/// after the compaction's own work is done.
#[test]
fn a_physical_compaction_is_answered_when_no_checkpoint_holds_the_history() {
    let mut member = Member::with(1, Settings { checkpoint_log_bytes: 1, ..settings(1) });
    (0..5).for_each(|n| _ = member.put("a", &n.to_string()));
    member.lane_stands = true;
    member.put("a", "last");
    assert_eq!(member.undone.len(), 1, "a checkpoint has begun");
    let data = |member: &Member| member.reactors[0].shards[&ShardId(1)].shard.store.sizes().versions;
    let request = proto::CompactionRequest { revision: 7, physical: true };
    let stream = member.ask("/etcdserverpb.KV/Compact", &request);
    member.run();
    assert!(!member.statuses.iter().any(|(of, ..)| *of == stream.number()) && data(&member) > 1);
    member.lane_stands = false;
    for (id, job) in std::mem::take(&mut member.undone) {
        let now = member.now;
        member.reactors[id].step(now, Input::Bulk { job, done: BulkDone::Done });
    }
    member.run();
    assert!(member.statuses.iter().any(|(of, code, _)| *of == stream.number() && *code == 0));
    assert_eq!(data(&member), 1);
}

/// As in etcd: history is in use until it is compacted, and what a compaction drops of what is on disk is what a
/// defragmentation gives back.
#[test]
fn in_use_is_what_is_not_compacted_and_the_rest_is_what_defragmentation_frees() {
    let mut member = Member::new(2, 3);
    let sizes = |member: &mut Member| {
        let path = "/etcdserverpb.Maintenance/Status";
        let status: proto::StatusResponse = member.call(path, &proto::StatusRequest::default()).unwrap();
        (status.db_size, status.db_size_in_use)
    };
    let defragment = |member: &mut Member| {
        let path = "/etcdserverpb.Maintenance/Defragment";
        let _: proto::DefragmentResponse = member.call(path, &proto::DefragmentRequest::default()).unwrap();
    };
    let keys = ["/registry/a", "/registry/pods/b", "c", "z"];
    let put_all = |member: &mut Member| keys.map(|key| member.put(key, &"v".repeat(1000)));
    let (empty, _) = sizes(&mut member);
    put_all(&mut member);
    let (once, _) = sizes(&mut member);
    put_all(&mut member);
    let twice = sizes(&mut member);
    assert_eq!(twice, (2 * once - empty, 2 * once - empty), "what was overwritten is in use");
    defragment(&mut member);
    assert_eq!(sizes(&mut member), twice, "nothing was compacted");
    let [.., last] = put_all(&mut member);
    let compact = proto::CompactionRequest { revision: last, physical: true };
    let _: proto::CompactionResponse = member.call("/etcdserverpb.KV/Compact", &compact).unwrap();
    assert_eq!(sizes(&mut member), (once + twice.0 - empty, once), "the checkpoints hold what was dropped");
    defragment(&mut member);
    assert_eq!(sizes(&mut member), (once, once));
}

/// What the lane leaves undone grows until it is done: a floor under its work rises with it.
#[test]
fn the_bulk_lane_hears_when_its_work_presses() {
    let mut member =
        Member::with(1, Settings { checkpoint_log_bytes: 3 * SEGMENT_BYTES as u64, ..settings(1) });
    member.put("a", "1");
    assert!(!member.haste[0]);
    member.lane_stands = true;
    let finish = |member: &mut Member| {
        for _ in 0..100 {
            for (id, job) in std::mem::take(&mut member.undone) {
                let now = member.now;
                member.reactors[id].step(now, Input::Bulk { job, done: BulkDone::Done });
            }
            member.run();
        }
        assert!(member.undone.is_empty());
    };
    // Somebody waits.
    let defragment = proto::DefragmentRequest::default();
    let stream = member.ask("/etcdserverpb.Maintenance/Defragment", &defragment);
    member.run();
    assert!(member.haste[0]);
    finish(&mut member);
    assert!(member.statuses.iter().any(|(of, ..)| *of == stream.number()) && !member.haste[0]);
    // Log waits.
    let mut puts = 0;
    while !member.haste[0] {
        member.put("a", &"x".repeat(10_000));
        puts += 1;
        assert!(puts < 1000 && (member.haste[0] || puts < 200 || !member.undone.is_empty()));
    }
    assert!(!member.undone.is_empty(), "a checkpoint was due long before");
    finish(&mut member);
    assert!(!member.haste[0]);
    // History waits: a checkpoint holds it.
    while member.undone.is_empty() {
        member.put("a", &"x".repeat(10_000));
    }
    assert!(!member.haste[0]);
    let wake_at = member.reactors[0].wake_at();
    assert!(wake_at <= member.now + Duration::from_secs(crate::limits::CHECKPOINT_PATIENCE_SECS));
    member.now = member.now + Duration::from_secs(crate::limits::CHECKPOINT_PATIENCE_SECS);
    member.run();
    assert!(member.haste[0]);
    finish(&mut member);
    assert!(!member.haste[0]);
}
