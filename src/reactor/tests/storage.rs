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
