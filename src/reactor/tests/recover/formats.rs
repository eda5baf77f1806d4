//! What a start makes of the kinds of records and of what other versions of the program have written.

use super::*;
use crate::log::{CoverageRecord, RecoveredEntry, RecoveredResident};
use crate::record::{ConfChange, ControlEntry, Entry, EpochRecord, Payload};
use crate::recover::dump::Says;
use crate::types::{MemberId, Peers};

/// Each shard's peers, as its group has them.
fn peers(member: &Member) -> BTreeMap<ShardId, Peers> {
    let shards = member.reactors.iter().flat_map(|reactor| reactor.shards.all());
    let peers = shards.map(|local| {
        let group = local.shard.group();
        (local.shard.id, group.peers_at(group.applied()).clone())
    });
    peers.collect()
}

/// The ids that the control state has of the member's logs.
fn raft_ids(member: &Member) -> Vec<(u32, u64)> {
    let record = member.reactors[0].turn.control.member(MemberId(7)).unwrap();
    record.raft_ids.iter().map(|of| (of.log, of.id)).collect()
}

#[test]
fn a_shard_keeps_its_raft_id_wherever_it_moves() {
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 200);
    let first = raft_ids(&member);
    let [(0, id)] = first[..] else { panic!("a founder has one id: {first:?}") };
    assert!(id != 7, "a raft id is no member id");
    let before = peers(&member);
    for (shard, peers) in &before {
        assert_eq!(peers.numbers(), [vec![id], vec![]], "shard {shard}");
    }
    for reactors in [3, 1, 4, 2] {
        member = Member::start(member.crash(usize::MAX), reactors).unwrap();
        assert_eq!(
            (peers(&member), raft_ids(&member)),
            (before.clone(), first.clone()),
            "{reactors} reactors"
        );
    }
    assert_eq!(member.check(), 200);
}

#[test]
fn a_member_publishes_its_directory() {
    let member = Member::start(endless(), 2).unwrap();
    let record = member.reactors[1].turn.control.member(MemberId(7)).unwrap();
    assert_eq!(record.directory, STORE.0);
}

/// The change of peers that a lone voter can make by itself: one to what it is.
#[test]
fn a_change_of_peers_comes_back_as_what_it_is_and_moves_with_its_shard() {
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 5);
    let shard = ShardId(1);
    let own = peers(&member)[&shard].voters[0].get();
    let change = ConfChange::AddVoter(own);
    let reactor = usize::from(reactor_of(shard, 2).0);
    let group = member.reactors[reactor].shards.shard_mut(shard).group_mut();
    let index = group.propose_conf_change(change);
    member.run();
    member.put(5, 10);
    for reactors in [2, 1, 3] {
        let disk = member.crash(usize::MAX);
        let plan = disk.plan(reactors).unwrap();
        let plans = plan.reactors.iter().flat_map(|reactor| &reactor.shards);
        let changes = plans.flat_map(|plan| {
            let of_kind = plan.entries().filter(|entry| entry.kind == 2);
            of_kind.map(|entry| (plan.id(), entry.index, entry.payload.to_entry().unwrap()))
        });
        let expected = (shard, index, Entry::ConfChange(change));
        assert_eq!(changes.collect::<Vec<_>>(), [expected], "{reactors} reactors");
        let said = dump(&disk).entries;
        assert!(said.iter().any(|entry| entry.index == index && entry.says == Says::ConfChange(change)));
        member = Member::start(disk, reactors).unwrap();
        assert_eq!(member.check(), 10);
        assert_eq!(peers(&member)[&shard].numbers()[0], [own]);
    }
}

/// Of a move that was under way: the shard, the log it was in, and where it goes.
fn moved(logs: &[Recovered]) -> Vec<(ShardId, LogId, LogId)> {
    let stays =
        || logs.iter().flat_map(|log| log.residents.iter().map(|(of, stay)| (log.start.log(), of, stay)));
    let moved = stays().filter(|(_, _, stay)| stay.moved_in).filter_map(|(to, new, _)| {
        let before = stays().find(|(_, old, _)| old.shard == new.shard && old.home < new.home);
        before.map(|(from, ..)| (new.shard, from, to))
    });
    moved.collect()
}

#[test]
fn a_coverage_record_makes_no_stay_whole() {
    let mut seen = 0;
    for writes in 0..60 {
        let mut member = Member::start(endless(), 2).unwrap();
        member.put(0, 20);
        let disk = Member::start(member.crash(writes), 3).unwrap().crash(usize::MAX);
        for (shard, from, to) in moved(&disk.logs()) {
            let found_in = |logs: Vec<Recovered>| loaded(&disk, logs, 3, shard).unwrap().shard.read_from;
            assert_eq!(found_in(disk.logs()), to);
            let mut logs = disk.logs();
            for stay in logs.iter_mut().flat_map(|log| log.residents.values_mut()) {
                if std::mem::take(&mut stay.moved_in) {
                    stay.coverage = Some(CoverageRecord { revision: Revision(9), index: Index(9) });
                }
            }
            assert_eq!(found_in(logs), from);
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// A shard, as a start from these logs loads it.
fn loaded(disk: &Disk, logs: Vec<Recovered>, reactors: u16, shard: ShardId) -> Result<Loaded, String> {
    let plan = disk.plan_of(logs, reactors)?;
    let mut plans = plan.reactors.into_iter().flat_map(|reactor| reactor.shards);
    disk.load(plans.find(|plan| plan.id() == shard).unwrap())
}

/// What a start makes of the control shard, had its log said something else.
fn control_of(disk: &Disk, change: impl FnOnce(&mut RecoveredResident)) -> Result<Loaded, String> {
    let mut logs = disk.logs();
    let resident = Resident { shard: ShardId::CONTROL, home: 0 };
    change(logs[0].residents.get_mut(&resident).expect("it lives in log 0"));
    loaded(disk, logs, 2, ShardId::CONTROL)
}

fn first_of_kind(resident: &mut RecoveredResident, kind: u8) -> &mut RecoveredEntry {
    resident.entries.iter_mut().find(|entry| entry.kind == kind).unwrap()
}

#[test]
fn an_entry_that_is_not_of_its_kind_is_refused() {
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 5);
    let disk = member.crash(usize::MAX);
    // What data say is read at their commit.
    let read = |loaded: Result<Loaded, String>| {
        let read = loaded?.shard.shard.read_to_end();
        read.map_err(|strange| strange.of_shard(ShardId::CONTROL))
    };
    for (kind, of) in [(0, 1), (2, 1), (9, 1), (1, 0)] {
        let told = read(control_of(&disk, |resident| first_of_kind(resident, of).kind = kind));
        let told = told.expect_err("the entry is something else");
        assert!(told.starts_with("the log of shard 0 makes no sense: entry "), "{told}");
    }
    assert_eq!(read(control_of(&disk, |_| {})), Ok(()));
}

const NEWER_LEVEL: &str = "shard 0 was written by a newer program: it has feature level 2, and this program knows \
                           feature levels up to 1. Start the version that wrote it, or a later one";

/// The first that a program too old for its cluster may meet is the level itself.
#[test]
fn a_feature_level_that_this_program_does_not_know_is_a_newer_programs() {
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 5);
    let disk = member.crash(usize::MAX);
    let told = control_of(&disk, |resident| {
        let epoch = EpochRecord { term: 2, attempt: 1 };
        let control = ControlEntry::FeatureLevel { level: 2 };
        first_of_kind(resident, 1).payload = Payload::of(&Entry::Control { epoch, settled: 1, control });
    });
    assert_eq!(told.err().unwrap(), NEWER_LEVEL);
}

#[test]
fn a_checkpoint_of_a_feature_level_that_this_program_does_not_know_is_a_newer_programs() {
    let (mut disk, _) = checkpointed();
    let name = chain(&disk, ShardId::CONTROL).pop().unwrap();
    let raise = |meta: &mut Meta| meta.control.as_mut().unwrap().feature_level = 2;
    let content = rewritten(&disk.files[&name], raise, false);
    let mut reader = Reader::new();
    reader.feed(&content, &mut |_| {}).unwrap();
    let hash = reader.finish().unwrap().hash;
    disk.files.insert(name, content);
    let told = control_of(&disk, |resident| resident.checkpoint.as_mut().unwrap().hash = hash);
    assert_eq!(told.err().unwrap(), NEWER_LEVEL);
}

/// It is no damage, and nobody is told to restore anything.
#[test]
fn a_checkpoint_of_a_newer_format_is_a_newer_programs() {
    let (mut disk, _) = checkpointed();
    let name = chain(&disk, ShardId::CONTROL).pop().unwrap();
    let block = &mut disk.files.get_mut(&name).unwrap()[..4096];
    block[24] += 1;
    let crc = crc32c::crc32c(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    let told = refusal(disk);
    assert!(told.starts_with(&format!("checkpoint {name} was written by a newer program")), "{told}");
    assert!(!told.contains("restore"), "{told}");
}

/// What an answer depends on is named by the last entry that has taken effect, and members compare that.
#[test]
fn the_control_state_comes_back_as_of_its_last_entry_wherever_its_checkpoint_stands() {
    let mut member = Member::start(endless(), 2).unwrap();
    member = Member::start(member.crash(usize::MAX), 2).unwrap();
    member.put(0, 400);
    let before = member.reactors[0].turn.control.index;
    let disk = member.crash(usize::MAX);
    let resident = Resident { shard: ShardId::CONTROL, home: 0 };
    let (stands_at, _) = disk.logs()[0].residents[&resident].base();
    assert!(stands_at > before, "the checkpoint stands at {stands_at}, behind {before}");
    let control = control_of(&disk, |_| {}).ok().and_then(|loaded| loaded.control);
    assert_eq!(control.map(|control| Index(control.index)), Some(before));
    let member = Member::start(disk, 2).unwrap();
    assert!(member.reactors.iter().all(|reactor| reactor.turn.control.index == before));
}
