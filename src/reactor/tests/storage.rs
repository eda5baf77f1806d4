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
