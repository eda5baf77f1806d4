//! Checkpoints beside a log that gets no further, a disk without room, and the end of a process.

use super::*;

impl Member {
    fn pass(&mut self, span: Duration) {
        for _ in 0..20 {
            self.now = self.now + Duration(span.0 / 20);
            self.run();
        }
    }

    fn defragment(&mut self) -> Result<proto::DefragmentResponse, (u8, String)> {
        self.call("/etcdserverpb.Maintenance/Defragment", &proto::DefragmentRequest {})
    }

    /// One whose shard lives on this reactor.
    fn key_of(&self, reactor: u16) -> String {
        let keys = (0..=255u8).map(|byte| char::from(byte).to_string());
        let mut keys = keys.chain(["/registry/pods/x", "/registry/leases/x"].map(str::to_owned));
        let router = self.reactors[0].turn.router();
        let owner = |key: &str| router.reactor_of(router.shard_of(key.as_bytes())).0;
        keys.find(|key| owner(key) == reactor).expect("it has a shard")
    }

    fn try_put(&mut self, value: &[u8]) -> Result<proto::PutResponse, (u8, String)> {
        let (key, value) = (Bytes::from_static(b"a"), Bytes::copy_from_slice(value));
        self.call("/etcdserverpb.KV/Put", &proto::PutRequest { key, value, ..Default::default() })
    }
}

#[test]
fn a_defragmentation_without_room_fails_and_says_why() {
    for reactors in [1, 3] {
        let mut member = Member::new(reactors, 3);
        member.put("a", "1");
        member.disk_is_full = true;
        let (code, text) = member.defragment().unwrap_err();
        assert!(code == 2 && text.contains("no space left on device"), "{code} {text}");
        member.disk_is_full = false;
        member.pass(Duration::from_secs(10));
        member.defragment().unwrap();
    }
}

#[test]
fn a_full_disk_takes_what_makes_room_and_then_everything_again() {
    let mut member = Member::new(1, 1);
    let value = vec![7; 4000];
    member.disk_is_full = true;
    let refused =
        (0..100).find_map(|_| member.try_put(&value).err()).expect("the spare file is not refilled");
    assert!(refused.1.contains("database space exceeded"), "{refused:?}");
    let delete = proto::DeleteRangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let deleted: proto::DeleteRangeResponse = member.call("/etcdserverpb.KV/DeleteRange", &delete).unwrap();
    let revision = deleted.header.unwrap().revision;
    let compact = proto::CompactionRequest { revision, physical: true };
    let _: proto::CompactionResponse = member.call("/etcdserverpb.KV/Compact", &compact).unwrap();
    assert_eq!(member.range("\0", "\0").kvs.len(), 0);
    // Checkpoints have room; then what they free of the log is recycled, as no new file can be made.
    member.disk_is_full = false;
    member.pass(Duration::from_secs(10));
    let disarm = proto::AlarmRequest { action: 2, member_id: 7, alarm: 1 };
    let _: proto::AlarmResponse = member.call("/etcdserverpb.Maintenance/Alarm", &disarm).unwrap();
    member.try_put(&value).unwrap();
}

#[test]
fn a_log_without_room_is_freed_by_checkpoints_before_anybody_is_refused() {
    let mut member = Member::with(1, Settings { checkpoint_log_bytes: u64::MAX, ..settings(1) });
    let before = member.checkpoints;
    (0..18).for_each(|_| _ = member.try_put(&[7; 4000]).unwrap());
    assert_eq!(member.checkpoints, before, "it holds little");
    assert!(
        member.reactors[0].storage.log().held().closed > 0 && !member.reactors[0].storage.log().is_short()
    );
    member.no_new_segments = true;
    (0..12).for_each(|_| _ = member.try_put(&[7; 4000]).unwrap());
    assert!(member.checkpoints > before);
}

#[test]
fn a_start_without_room_for_its_first_file_ends_and_says_what_it_needs() {
    let mut member = Member::new(1, 1);
    assert_eq!(member.halted, None);
    member.put("a", "1");
    let boot = Member::boot_on_a_full_disk();
    let why = boot.halted.expect("it ends");
    assert!(why.contains("full") && why.contains("16384 bytes"), "{why}");
}

#[test]
fn a_stop_leaves_no_write_without_a_witness() {
    let mut member = Member::new(2, 3);
    for key in ["a", "/registry/pods/x", "/registry/leases/x"] {
        member.put(key, "1");
        member.put(key, "2");
    }
    let rests = |member: &Member| member.reactors.iter().filter(|reactor| reactor.log_is_at_rest()).count();
    assert!(rests(&member) < 2, "silence has not lasted");
    let now = member.now;
    member.reactors.iter_mut().for_each(|reactor| reactor.step(now, Input::Stop));
    member.run();
    assert_eq!(rests(&member), 2);
    assert!(member.now.since(now) < Duration::from_ms(50));
}

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

/// A revision of another log that is not durable holds back what may be left out of this one. One checkpoint
/// after the other would then let nothing go, and each makes the log longer.
#[test]
fn a_checkpoint_that_would_free_nothing_is_not_begun() {
    let mut member = Member::with(2, Settings { checkpoint_log_bytes: 1, ..settings(2) });
    let (here, there) = (member.key_of(0), member.key_of(1));
    member.put(&here, "1");
    member.put(&there, "1");
    member.log_stands = Some(1);
    let put =
        |key: &str| proto::PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
    member.ask("/etcdserverpb.KV/Put", &put(&there));
    member.run();
    let before = member.checkpoints;
    for _ in 0..20 {
        member.ask("/etcdserverpb.KV/Put", &put(&here));
        (0..50).for_each(|_| _ = member.turn_all());
    }
    let begun = member.checkpoints - before;
    assert!(begun <= 2, "{begun}: up to what is settled, of the control shard and of the other");
    assert_eq!(member.statuses.len(), 0, "nothing settles");
    member.write_all();
    assert_eq!(member.statuses.len(), 21);
    member.put(&here, "2");
    assert!(member.checkpoints > before + begun);
}

/// What the files behind a log's head said of the other logs goes with them.
#[test]
fn each_new_segment_says_the_words_of_the_other_logs_anew() {
    let mut member = Member::new(3, 3);
    let keys = [0, 1, 2].map(|reactor| member.key_of(reactor));
    keys.iter().for_each(|key| _ = member.put(key, "1"));
    member.pass(Duration::from_secs(1));
    let rests: Vec<_> = member.reactors[1..].iter().map(|other| other.storage.log().testimony()).collect();
    let first = member.reactors[0].storage.log().open_segment();
    (0..60).for_each(|_| _ = member.put(&keys[0], &"x".repeat(4000)));
    let last = member.reactors[0].storage.log().open_segment();
    assert!(last > first + 3);
    assert!(
        member.reactors[1..].iter().map(|other| other.storage.log().testimony()).eq(rests.iter().copied())
    );
    for sequence in first + 1..last {
        for rest in &rests {
            let word = (SegmentName { log: LogId(0), sequence }, rest.log, rest.frame);
            assert!(member.words.contains(&word), "segment {sequence} says nothing of {:?}", rest.log);
        }
    }
}

/// The log's own checkpoint is due as a base, for which there is no room: the changes alone free the log as well.
#[test]
fn a_base_for_which_there_is_no_room_is_put_off_for_a_delta() {
    let bounds = crate::limits::Bounds { checkpoint_chain_files_max: 1, ..crate::limits::Bounds::PRODUCTION };
    let mut member = Member::with(1, Settings { checkpoint_log_bytes: 1, bounds, ..settings(1) });
    (0..20).for_each(|n| _ = member.put(&format!("k{n}"), &"v".repeat(4000)));
    let paths = |member: &Member| member.reactors[0].turn.counters.paths;
    let before = paths(&member);
    assert_eq!(before.checkpoint_is_delta, 0, "a chain is one file");
    member.checkpoint_bytes_max = 40_000;
    member.put("a", "1");
    let after = paths(&member);
    assert!(after.checkpoint_given_up > before.checkpoint_given_up);
    assert_eq!(after.checkpoint_is_delta_for_want_of_room, 1);
    let needed = member.reactors[0].storage.log().needed();
    assert_eq!(needed.closed, 0, "{needed:?}");
    // Once there is room, it is a base again.
    member.checkpoint_bytes_max = usize::MAX;
    member.pass(Duration::from_secs(6));
    let disarm = proto::AlarmRequest { action: 2, member_id: 7, alarm: 1 };
    let _: proto::AlarmResponse = member.call("/etcdserverpb.Maintenance/Alarm", &disarm).unwrap();
    member.put("a", "2");
    assert!(paths(&member).checkpoint_is_base_again > after.checkpoint_is_base_again);
}

/// It is not left for the seconds that a full disk is given: until then a process may have died again.
#[test]
fn a_checkpoint_is_tried_again_as_soon_as_the_disk_has_room_for_a_file() {
    let mut member = Member::with(1, Settings { checkpoint_log_bytes: 1, ..settings(1) });
    member.checkpoint_bytes_max = 0;
    (0..40).find_map(|_| member.try_put(&[7; 4000]).err()).expect("a checkpoint has no room");
    member.checkpoint_bytes_max = usize::MAX;
    let paths = |member: &Member| member.reactors[0].turn.counters.paths;
    let (before, began) = (paths(&member), member.now);
    assert!(before.checkpoint_given_up > 0);
    let disarm = proto::AlarmRequest { action: 2, member_id: 7, alarm: 1 };
    let _: proto::AlarmResponse = member.call("/etcdserverpb.Maintenance/Alarm", &disarm).unwrap();
    (0..40).for_each(|_| _ = member.try_put(&[7; 4000]).unwrap());
    assert!(member.now.since(began) < Duration::from_ms(100), "no time has passed");
    assert!(paths(&member).checkpoint_finished > before.checkpoint_finished);
}

/// A full disk that gets no more room from anybody: the file that stands by makes way for the checkpoint, and
/// one that the checkpoint lets go stands by.
#[test]
fn the_reserve_makes_way_for_the_checkpoint_that_frees_the_log() {
    let mut member = Member::with(1, Settings { checkpoint_log_bytes: u64::MAX, ..settings(1) });
    (0..40).for_each(|_| _ = member.try_put(&[7; 100]).unwrap());
    assert!(member.reactors[0].storage.log().held().closed > 0);
    member.disk_is_full = true;
    (0..100).find_map(|_| member.try_put(&[7; 100]).err()).expect("the spare file is not refilled");
    member.pass(Duration::from_secs(2));
    let reactor = &member.reactors[0];
    assert_eq!(reactor.turn.counters.paths.log_gave_reserve, 1);
    assert_eq!(reactor.storage.log().needed().closed, 0, "{:?}", reactor.storage.log().needed());
    assert!(member.given_up_bytes > 0 && member.halted.is_none());
    let delete = proto::DeleteRangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let _: proto::DeleteRangeResponse = member.call("/etcdserverpb.KV/DeleteRange", &delete).unwrap();
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
    let data =
        |member: &Member| member.reactors[0].shards.get(ShardId(1)).unwrap().shard.store.sizes().versions;
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
    let written = member.reactors.iter().map(|reactor| reactor.turn.counters.times.checkpoints.count());
    assert_eq!(written.sum::<u64>(), 2 * 4, "each shard's, the control shard's too");
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

#[test]
fn a_log_that_stands_still_for_a_file_says_so() {
    let mut member = Member::new(1, 1);
    member.put("a", "1");
    member.unprepared = Some(vec![]);
    let mut puts = 0;
    while !member.log_waits {
        puts += 1;
        assert!(puts < 200, "the files that are ready are used up");
        let (key, value) = (Bytes::from_static(b"a"), Bytes::from(vec![7; 4000]));
        let put = proto::PutRequest { key, value, ..Default::default() };
        member.client.call("/etcdserverpb.KV/Put", &[], &put.encode_to_vec()).expect("streams are free");
        member.run();
    }
    let (at, segment) = member.unprepared.take().expect("set above").remove(0);
    member.reactors[at].step(member.now, Input::Prepared { segment });
    member.run();
    assert!(!member.log_waits, "it goes on");
}
