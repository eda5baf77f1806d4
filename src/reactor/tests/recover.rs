//! A member that restarts: an instant disk in memory, which at some moment takes no more writes.

use super::{SEGMENT_BYTES, SEGMENTS, STORE};
use crate::api::{
    AlarmType, CompactRequest, DeleteRangeRequest, LeaseGrantRequest, Op, PutRequest, Request, TxnRequest,
};
use crate::checkpoint::{CheckpointName, Item, LinkRecord, Meta, Reader, Writer};
use crate::io::{Body, BulkDone, BulkStep, CallMail, Input, LeaderMail, Output, Own, ShardMail};
use crate::log::{Command, LogId, LogStart, Recovered, Recovery, Resident, SegmentName};
use crate::mvcc::Budget;
use crate::raft::Elections;
use crate::reactor::{Boot, Reactor, Settings};
use crate::recover::dump::Contents;
use crate::recover::*;
use crate::router::reactor_of;
use crate::sequencer::Sequencer;
use crate::stdx::Rng;
use crate::types::{At, Blob, Duration, Event, Index, LeaseId, ReactorId, Revision, ShardId, Time};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

mod formats;
mod memory;

/// What a power cut leaves.
#[derive(Default)]
pub(super) struct Disk {
    pub segments: BTreeMap<SegmentName, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
    /// So many writes still land.
    writes_left: usize,
    /// No log is born with the key of another.
    last_key: Cell<u64>,
}

impl Disk {
    fn logs(&self) -> Vec<Recovered> {
        let mut ids: Vec<LogId> = self.segments.keys().map(|name| name.log).collect();
        ids.dedup();
        let recover = |id: LogId| {
            let mut recovery = Recovery::new(id, STORE, 77, SEGMENTS);
            for (name, bytes) in self.segments.iter().filter(|(name, _)| name.log == id) {
                recovery.segment(*name, bytes);
            }
            recovery.finish().expect("nothing acknowledged is lost")
        };
        ids.into_iter().map(recover).collect()
    }

    fn names(&self) -> Vec<CheckpointName> {
        self.files.keys().filter_map(|name| CheckpointName::parse(name)).collect()
    }

    pub fn plan(&self, reactors: u16) -> Result<MemberPlan, String> {
        self.plan_of(self.logs(), reactors)
    }

    fn plan_of(&self, logs: Vec<Recovered>, reactors: u16) -> Result<MemberPlan, String> {
        let mut fresh = |id| {
            self.last_key.set(self.last_key.get() + 1);
            LogStart::fresh(id, STORE, self.last_key.get(), SEGMENTS)
        };
        let mut read = |name: &str, offset, len| self.read(name, offset, len);
        place(logs, &self.names(), reactors, &mut fresh, &mut read)
    }

    fn load(&self, plan: ShardPlan) -> Result<Loaded, String> {
        plan.load(Elections::ByOwner, &mut |name, offset, len| self.read(name, offset, len))
    }

    pub fn read(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let bytes = self.files.get(name).ok_or_else(|| format!("no file {name}"))?;
        let from = bytes.len().min(offset as usize);
        Ok(bytes[from..bytes.len().min(from + len)].to_vec())
    }
}

struct Member {
    reactors: Vec<Reactor>,
    sequencer: Arc<Sequencer>,
    disk: Disk,
    now: Time,
    halted: Option<String>,
}

fn settings() -> Settings {
    Settings { checkpoint_log_bytes: 2 * SEGMENT_BYTES as u64, ..super::settings(5) }
}

impl Member {
    /// Starts from what the disk has, and runs until it rests.
    fn start(disk: Disk, reactors: u16) -> Result<Member, String> {
        Member::start_after(disk, reactors, Revision::NONE)
    }

    /// As [`Member::start`], where somebody else knows how much was settled.
    fn start_after(disk: Disk, reactors: u16, settled: Revision) -> Result<Member, String> {
        Member::start_as(settings(), disk, reactors, settled)
    }

    fn start_as(settings: Settings, disk: Disk, reactors: u16, settled: Revision) -> Result<Member, String> {
        let plan = disk.plan(reactors)?;
        let settled = plan.settled.max(settled);
        let sequencer = Arc::new(Sequencer::new(1 << 10));
        let settings = Arc::new(settings);
        let left_over: Vec<String> = disk
            .names()
            .iter()
            .filter(|name| !plan.checkpoints.contains(name))
            .map(|n| n.to_string())
            .collect();
        let last_file = disk.names().iter().map(|name| name.file).max().unwrap_or(0);
        let mut list = vec![];
        for (id, plan) in plan.reactors.into_iter().enumerate() {
            let (mut shards, mut control) = (vec![], None);
            for shard in plan.shards {
                let loaded = disk.load(shard)?;
                shards.push(loaded.shard);
                control = control.or(loaded.control);
            }
            list.push(Reactor::new(Boot {
                id: ReactorId(id as u16),
                reactors,
                settings: settings.clone(),
                sequencer: sequencer.clone(),
                log: plan.log,
                shards,
                control,
                stale: plan.stale,
                left_over: if id == 0 { left_over.clone() } else { vec![] },
                last_file,
                settled,
                rested: None,
                process: 1,
                seed: id as u64,
                now: Time(0),
            }));
        }
        let mut member = Member { reactors: list, sequencer, disk, now: Time(0), halted: None };
        member.run();
        if member.serves() {
            for log in plan.dead_logs {
                member.disk.segments.retain(|name, _| name.log != log);
            }
        }
        Ok(member)
    }

    fn serves(&self) -> bool {
        self.reactors.iter().all(|reactor| reactor.turn.epoch_state.leads())
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            self.now = Time(self.now.0 + 1000);
            let mut busy = false;
            for id in 0..self.reactors.len() {
                let settled = self.sequencer.settled();
                busy |=
                    settled > *self.reactors[id].turn.settled && self.reactors[id].turn.epoch_state.leads();
                self.reactors[id].step(self.now, Input::Settled(settled));
                let mut out = vec![];
                self.reactors[id].flush(self.now, &mut out);
                busy |= !out.is_empty() || self.reactors[id].wake_at() <= self.now;
                out.into_iter().for_each(|output| self.carry_out(id, output));
            }
            if !busy {
                return;
            }
        }
        panic!("the member never comes to rest");
    }

    fn carry_out(&mut self, id: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Mail { to, mail } => {
                let from = ReactorId(id as u16);
                self.reactors[usize::from(to.0)].step(now, Input::Mail { from, mail });
            }
            Output::Log(command) => self.log(id, command),
            Output::Bulk { job, step } if self.disk.writes_left > 0 => {
                self.disk.writes_left -= 1;
                self.bulk(step);
                self.reactors[id].step(now, Input::Bulk { job, done: BulkDone::Done });
            }
            Output::Bulk { .. } | Output::Haste(_) | Output::LogWaits(_) | Output::LogLine(_) => {}
            Output::Halt(why) => self.halted = Some(why),
            other => panic!("nobody is connected: {other:?}"),
        }
    }

    fn log(&mut self, id: usize, command: Command) {
        let Disk { segments, writes_left, .. } = &mut self.disk;
        let Some(left) = writes_left.checked_sub(1) else { return };
        *writes_left = left;
        let input = match command {
            Command::Write { id, segment, offset, bytes } => {
                let file = segments.get_mut(&segment).expect("prepared before");
                file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                Input::Written { write: id, buffer: bytes }
            }
            Command::Prepare { segment, bytes, .. } => {
                segments.insert(segment, vec![0; bytes as usize]);
                Input::Prepared { segment }
            }
            Command::Recycle { old, new } => {
                let file = segments.remove(&old).expect("there was such a segment");
                segments.insert(new, file);
                Input::Prepared { segment: new }
            }
            Command::Remove { segment } => {
                segments.remove(&segment);
                return;
            }
        };
        self.reactors[id].step(self.now, input);
    }

    fn bulk(&mut self, step: BulkStep) {
        let files = &mut self.disk.files;
        match step {
            BulkStep::Create { name } => {
                files.insert(name, vec![]);
            }
            BulkStep::Append { name, blocks } => {
                let file = files.get_mut(&name).expect("created before");
                blocks.iter().for_each(|block| file.extend_from_slice(block));
            }
            BulkStep::Publish { name, as_name } => {
                let file = files.remove(&name).expect("created before");
                files.insert(as_name, file);
            }
            BulkStep::Remove { name } => {
                files.remove(&name);
            }
            BulkStep::Read(_) => unreachable!("nobody lags"),
        }
    }

    fn ask(&mut self, request: Request) {
        let of = Own::Compactor { revision: Revision::NONE, begun: self.now };
        let id = ReactorId(0);
        self.reactors[0].turn.send(id, CallMail::Own { of, request });
        self.run();
    }

    /// Puts keys of their own number, each the size of some blocks.
    fn put(&mut self, from: u64, upto: u64) {
        for number in from..upto {
            let value = Bytes::from(format!("{number:08}").repeat(100));
            self.ask(Request::Put(PutRequest { key: key(number), value, ..Default::default() }));
        }
    }

    /// The state is that after the first puts of [`Member::put`]: how many.
    fn check(&self) -> u64 {
        assert_eq!(self.halted, None);
        assert!(self.serves());
        let settled = self.sequencer.settled();
        let stores = || self.reactors.iter().flat_map(|reactor| reactor.shards.all().map(|o| &o.shard.store));
        let puts = settled.0 - Revision::FRESH.0;
        for number in 0..puts {
            let found: Vec<_> = stores().filter_map(|store| store.newest(&key(number))).collect();
            assert_eq!(found.len(), 1, "key {number} at {settled}");
            assert_eq!(found[0].mod_revision, Revision(number + 2));
            assert_eq!(&found[0].value[..8], format!("{number:08}").as_bytes());
        }
        assert_eq!(stores().map(|store| store.sizes().keys).sum::<u64>(), puts);
        puts
    }

    /// The history of all stores.
    fn events(&self) -> Vec<(At, ShardId, Event)> {
        let mut events = vec![];
        for owned in self.reactors.iter().flat_map(|reactor| reactor.shards.all()) {
            let all = Revision(u64::MAX);
            let history = owned.shard.store.history(At::default(), all, Budget::UNBOUNDED);
            events.extend(history.changes.into_iter().map(|(at, change)| (at, owned.shard.id, change.event)));
        }
        events.sort_by_key(|(at, ..)| *at);
        events
    }

    /// The keys of the tests' lease.
    fn attached(&self) -> Vec<Blob> {
        let attached = self.reactors.iter().flat_map(|r| r.shards.all());
        let mut keys: Vec<Blob> = attached.flat_map(|o| o.attached.keys(LeaseId(5)).cloned()).collect();
        keys.sort();
        keys
    }

    /// Time for what waits for silence.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 20 {
            self.now = self.now + Duration::from_ms(50);
            self.run();
        }
    }

    /// The power goes.
    fn crash(self, writes_left: usize) -> Disk {
        Disk { writes_left, ..self.disk }
    }
}

/// Spread over the shards.
fn key(number: u64) -> Bytes {
    let kinds = ["/registry/pods/", "/registry/leases/", "/registry/events/", "a", "\u{7f}z"];
    Bytes::from(format!("{}{number:05}", kinds[number as usize % kinds.len()]))
}

fn endless() -> Disk {
    Disk { writes_left: usize::MAX, ..Disk::default() }
}

#[test]
fn shards_live_where_the_number_of_reactors_puts_them_and_keep_everything() {
    let mut disk = endless();
    let mut puts = 0;
    for reactors in [2, 2, 3, 1, 4, 4, 2] {
        let mut member = Member::start(disk, reactors).unwrap();
        assert_eq!(member.check(), puts, "{reactors} reactors");
        member.put(puts, puts + 60);
        puts += 60;
        assert_eq!(member.check(), puts);
        for reactor in &member.reactors {
            let here = |id: &ShardId| reactor_of(*id, reactors) == reactor.turn.id;
            assert!(reactor.shards.all().map(|local| &local.shard.id).all(here));
        }
        disk = member.crash(usize::MAX);
    }
    assert!(!disk.names().is_empty(), "the logs are long enough for checkpoints");
}

#[test]
fn a_crash_anywhere_in_a_move_changes_nothing() {
    for (before, between, after) in [(2, 3, 2), (1, 4, 3), (3, 1, 2)] {
        for writes in (0..60).step_by(3) {
            let mut member = Member::start(endless(), before).unwrap();
            member.put(0, 80);
            // Shards move; some writes land, then none.
            let moving = Member::start(member.crash(writes), between).unwrap();
            let disk = moving.crash(usize::MAX);
            // Whichever number comes next, once or twice.
            let member = Member::start(disk, after).unwrap();
            assert_eq!(member.check(), 80, "{before} {between} {after} after {writes} writes");
            let mut member = Member::start(member.crash(usize::MAX), before).unwrap();
            assert_eq!(member.check(), 80);
            member.put(80, 90);
            assert_eq!(member.check(), 90);
        }
    }
}

/// The last blocks of one log are gone, with all that it says of them itself.
fn without_tail(disk: &Disk, log: u32, mut blocks: usize) -> Disk {
    let mut segments = disk.segments.clone();
    for (_, bytes) in segments.iter_mut().rev().filter(|(name, _)| name.log == LogId(log)) {
        for block in bytes.chunks_mut(4096).rev().filter(|block| block.iter().any(|byte| *byte != 0)) {
            if blocks > 0 {
                block.fill(0);
                blocks -= 1;
            }
        }
    }
    Disk { segments, files: disk.files.clone(), ..endless() }
}

#[test]
fn a_member_one_of_whose_logs_lost_its_end_is_refused() {
    for reactors in [2, 3, 4] {
        let mut member = Member::start(endless(), reactors).unwrap();
        // Few enough that no file has had an earlier life.
        member.put(0, 24);
        let disk = member.crash(usize::MAX);
        for log in 0..u32::from(reactors) {
            for blocks in [3, 12] {
                let refused = Member::start(without_tail(&disk, log, blocks), reactors).err();
                let told = refused.expect("acknowledged puts are missing");
                assert!(told.starts_with(&format!("log file {log:03}-")), "{told}");
            }
        }
        assert_eq!(Member::start(disk, reactors).unwrap().check(), 24);
    }
}

/// Where no frame tells, the revision that was settled does.
#[test]
fn a_member_that_cannot_come_to_what_was_settled_does_not_serve() {
    for reactors in [1, 3] {
        let mut member = Member::start(endless(), reactors).unwrap();
        member.put(0, 20);
        let disk = member.crash(usize::MAX);
        let refused = Member::start_after(disk, reactors, Revision(23)).unwrap();
        assert!(!refused.serves());
        let told = refused.halted.unwrap();
        assert!(
            told.contains("revision 23 was settled here, and of revision 22 no part is in any log"),
            "{told}"
        );
        let same = Member::start_after(refused.disk, reactors, Revision(21)).unwrap();
        assert_eq!(same.check(), 20);
    }
}

/// The log voids a control entry that stands before its epoch's seal, so none is proposed there.
#[test]
fn an_alarm_raised_during_a_takeover_is_in_the_log() {
    let mut midway = 0;
    for turns in 1..12 {
        let mut member = Member::start(endless(), 2).unwrap();
        member.put(0, 5);
        let now = member.now;
        member.reactors[0].step(now, Input::Deposed { shard: ShardId::CONTROL });
        for turn in 0..turns {
            let mut out = vec![];
            member.reactors[turn % 2].flush(now, &mut out);
            out.into_iter().for_each(|output| member.carry_out(turn % 2, output));
        }
        midway += usize::from(!member.reactors[0].turn.epoch_state.leads());
        member.reactors[0].turn.raise_no_space(None);
        member.run();
        let alarms = |member: &Member| member.reactors[0].turn.control.alarms(AlarmType::None).len();
        assert_eq!(alarms(&member), 1, "after {turns} turns");
        let member = Member::start(member.crash(usize::MAX), 2).unwrap();
        assert_eq!(alarms(&member), 1, "after {turns} turns and a restart");
    }
    assert!(midway > 2, "{midway}");
}

#[test]
fn a_crash_while_writing_keeps_a_prefix_with_all_that_was_acknowledged() {
    for writes in (20..300).step_by(17) {
        let mut member = Member::start(Disk { writes_left: writes, ..Disk::default() }, 3).unwrap();
        let mut acknowledged = 0;
        if member.serves() {
            for number in 0..100 {
                member.put(number, number + 1);
            }
            acknowledged = member.sequencer.settled().0 - Revision::FRESH.0;
        }
        let member = Member::start(member.crash(usize::MAX), 2).unwrap();
        assert!(member.check() >= acknowledged, "after {writes} writes");
    }
}

/// Each start goes on to a new segment and writes its epoch to every shard.
#[test]
fn a_crash_loop_does_not_fill_the_disk() {
    let bytes = |disk: &Disk| disk.segments.values().map(Vec::len).sum::<usize>();
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 1);
    member.pass(1);
    let mut disk = member.crash(usize::MAX);
    let first = bytes(&disk);
    for start in 0..40 {
        let mut member = Member::start(disk, 2).unwrap();
        member.pass(1);
        assert_eq!(member.check(), 1);
        disk = member.crash(usize::MAX);
        assert!(bytes(&disk) <= first + 2 * 5 * SEGMENT_BYTES, "start {start}: {} {first}", bytes(&disk));
    }
    let held = |recovered: &Recovered| recovered.start.held_bytes();
    assert!(disk.logs().iter().map(held).sum::<usize>() <= 2 * 4 * SEGMENT_BYTES);
}

#[test]
fn a_checkpoint_that_is_missing_or_damaged_stops_the_start() {
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 300);
    let mut disk = member.crash(usize::MAX);
    let plan = disk.plan(2).unwrap();
    let name = plan.checkpoints.first().expect("checkpoints were written").to_string();
    let whole = disk.files[&name].clone();
    let last = whole.len() - 100;
    disk.files.get_mut(&name).unwrap()[last] ^= 1;
    disk.files.get_mut(&name).unwrap()[5000] ^= 1;
    let failed = Member::start(disk, 2).err().expect("damage is seen");
    assert!(failed.contains(&name) && failed.contains("cannot be used"), "{failed}");
}

/// Three shards' worth of checkpoints, with deltas, and the files as they once were.
fn checkpointed() -> (Disk, BTreeMap<String, Vec<u8>>) {
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 100);
    let earlier = member.disk.files.clone();
    member.put(100, 400);
    (member.crash(usize::MAX), earlier)
}

/// The names of a shard's files, the base first.
fn chain(disk: &Disk, shard: ShardId) -> Vec<String> {
    let plan = disk.plan(2).unwrap();
    let of = plan.checkpoints.iter().filter(|name| name.shard == shard);
    of.map(CheckpointName::to_string).collect()
}

fn refusal(disk: Disk) -> String {
    Member::start(disk, 2).err().expect("what is not in its place is seen")
}

#[test]
fn a_file_in_the_place_of_another_is_refused() {
    let (disk, earlier) = checkpointed();
    let shards: Vec<ShardId> =
        (0..=5).map(ShardId).filter(|shard| !chain(&disk, *shard).is_empty()).collect();
    assert!(shards.len() > 3 && shards[0] == ShardId::CONTROL, "{shards:?}");
    let mut tried = [0; 3];
    for shard in &shards {
        let chain = chain(&disk, *shard);
        for (place, name) in chain.iter().enumerate() {
            // Another shard's, the control shard's among them.
            for other in shards.iter().filter(|other| *other != shard) {
                let mut disk = checkpointed().0;
                let others = self::chain(&disk, *other).pop().unwrap();
                let content = disk.files[&others].clone();
                disk.files.insert(name.clone(), content);
                let why = refusal(disk);
                assert!(
                    why.contains(name) && why.contains("its shard is") && why.contains("put back"),
                    "{why}"
                );
                tried[0] += 1;
            }
            // An older one of the same shard.
            let of = |name: &&String| CheckpointName::parse(name).is_some_and(|name| name.shard == *shard);
            for old in earlier.keys().filter(of).filter(|old| *old != name) {
                let mut disk = checkpointed().0;
                disk.files.insert(name.clone(), earlier[old].clone());
                let why = refusal(disk);
                assert!(why.contains(name) && why.contains("its number is"), "{why}");
                tried[1] += 1;
            }
            // One that is gone.
            let mut disk = checkpointed().0;
            disk.files.remove(name);
            let why = disk.plan(2).expect_err("a file that is needed is gone");
            assert!(
                why.contains(name) && why.contains("is missing: the data directory is incomplete"),
                "{why}"
            );
            tried[2] += usize::from(place + 1 < chain.len());
        }
    }
    assert!(tried.iter().all(|times| *times > 0), "{tried:?}");
}

/// Written anew with a change that its own checksums vouch for.
fn rewritten(bytes: &[u8], change: impl Fn(&mut Meta), drop_first: bool) -> Vec<u8> {
    let (mut reader, mut blocks) = (Reader::new(), vec![]);
    let (mut writer, mut first) = (None, drop_first);
    reader
        .feed(bytes, &mut |item| match item {
            Item::Meta(mut meta) => {
                change(&mut meta);
                writer = Some(Writer::new(&meta, &mut blocks));
            }
            Item::Version(_) if std::mem::take(&mut first) => {}
            Item::Version(version) => {
                let (key, mod_revision) = (Blob::new(version.key), version.at.main);
                let event = match version.value {
                    None => Event::Delete { key, mod_revision },
                    Some(value) => Event::Put(crate::types::KeyValue {
                        key,
                        value: Blob::new(value),
                        create_revision: version.create_revision,
                        mod_revision,
                        version: version.version,
                        lease: version.lease,
                    }),
                };
                writer.as_mut().unwrap().version(version.at, &event, &mut blocks);
            }
        })
        .unwrap();
    writer.unwrap().finish(&mut blocks);
    blocks.iter().flat_map(|block| block.to_vec()).collect()
}

#[test]
fn a_file_that_is_not_what_its_name_and_the_log_say_is_refused() {
    let (disk, _) = checkpointed();
    let shard =
        (1..=5).map(ShardId).find(|shard| chain(&disk, *shard).len() > 1).expect("deltas are written");
    let chain = chain(&disk, shard);
    let (base, newest) = (&chain[0], &chain[chain.len() - 1]);
    let refused = |name: &String, change: &dyn Fn(&mut Meta), drop_first: bool, word: &str| {
        let mut disk = checkpointed().0;
        let content = rewritten(&disk.files[name], change, drop_first);
        disk.files.insert(name.clone(), content);
        let why = refusal(disk);
        assert!(why.contains(name) && why.contains(word) && why.contains("restore"), "{word}: {why}");
    };
    refused(newest, &|meta| meta.home += 1, false, "its home is");
    refused(newest, &|meta| meta.file += 1, false, "its number is");
    refused(newest, &|meta| meta.revision += 1, false, "its revision is");
    refused(newest, &|meta| meta.index -= 1, false, "its index is");
    refused(newest, &|meta| meta.term += 1, false, "its term is");
    refused(newest, &|meta| meta.voters.push(0), false, "makes no sense");
    refused(newest, &|meta| meta.compacted += 1, false, "its hash is");
    refused(newest, &|_| {}, true, "its hash is");
    refused(base, &|meta| meta.revision -= 1, true, "its revision is");
    refused(base, &|_| {}, true, "its hash is");
    let more = LinkRecord { home: 0, file: 1, revision: 0, bytes: 0, hash: 0 };
    refused(base, &|meta| meta.chain.push(more), false, "it goes on from other files");
    // And untouched it is taken.
    let mut disk = checkpointed().0;
    let content = rewritten(&disk.files[newest], |_| {}, false);
    assert_eq!(content, disk.files[newest]);
    disk.files.insert(newest.clone(), content);
    assert!(Member::start(disk, 2).unwrap().serves());
}

/// Random changes between checkpoints: keys deleted and compacted away, leases that come and go, shards that
/// move. What the files of a chain come to is what was there.
#[test]
fn chains_of_checkpoints_come_back_whatever_happened_between_them() {
    let mut longest = 0;
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let mut member = Member::start(endless(), 2).unwrap();
        member.ask(Request::LeaseGrant(LeaseGrantRequest { id: LeaseId(5), ttl: 600 }));
        member.put(0, 60);
        for _ in 0..8 {
            for _ in 0..40 {
                let key = key(rng.below(60));
                match rng.below(10) {
                    0..6 => {
                        let value = Bytes::from(vec![rng.next_u64() as u8; 400]);
                        let lease = LeaseId(if rng.chance(1, 4) { 5 } else { 0 });
                        member.ask(Request::Put(PutRequest { key, value, lease, ..Default::default() }));
                    }
                    6..9 => {
                        member.ask(Request::DeleteRange(DeleteRangeRequest { key, ..Default::default() }))
                    }
                    _ => {
                        let revision = member.sequencer.settled().wire() - rng.below(20).cast_signed();
                        member.ask(Request::Compact(CompactRequest { revision, physical: false }));
                    }
                }
            }
            let before = (member.events(), member.attached());
            let disk = member.crash(usize::MAX);
            let files = |shard| chain(&disk, ShardId(shard)).len();
            longest = longest.max((0..=5).map(files).max().unwrap_or(0));
            member = Member::start(disk, *rng.pick(&[1, 2, 2, 3])).unwrap();
            assert_eq!(member.halted, None);
            assert_eq!((member.events(), member.attached()), before, "seed {seed}");
        }
    }
    assert!(longest > 2, "{longest} files in a chain at most");
}

#[test]
fn leases_and_compaction_come_back() {
    let mut member = Member::start(endless(), 2).unwrap();
    member.put(0, 20);
    member.ask(Request::LeaseGrant(LeaseGrantRequest { id: LeaseId(5), ttl: 60 }));
    let put =
        PutRequest { key: key(3), value: Bytes::from_static(b"x"), lease: LeaseId(5), ..Default::default() };
    member.ask(Request::Put(put));
    member.ask(Request::Compact(CompactRequest { revision: 22, physical: false }));
    for reactors in [2, 1, 3] {
        member = Member::start(member.crash(usize::MAX), reactors).unwrap();
        assert_eq!(member.halted, None);
        assert!(member.serves());
        for reactor in &member.reactors {
            assert!(reactor.turn.control.is_granted(LeaseId(5)));
            assert_eq!(reactor.turn.control.compacted(), Revision(22));
            let data = reactor.shards.all().filter(|owned| owned.shard.id != ShardId::CONTROL);
            data.for_each(|owned| assert_eq!(owned.shard.store.compacted(), Revision(22)));
        }
        assert_eq!(member.attached(), [Blob::new(&key(3))]);
    }
    // And they end together.
    member.ask(Request::LeaseRevoke(LeaseId(5)));
    assert!(member.reactors.iter().all(|reactor| !reactor.turn.control.is_granted(LeaseId(5))));
    assert_eq!(member.sequencer.settled(), Revision(23));
}

/// What a reader without a server makes of the disk is what the next start makes of it, wherever the power
/// goes: the same prefix, and every event of it, those of deleted ranges included.
#[test]
fn a_dump_says_what_the_next_start_recovers() {
    let (mut unsettled, mut checkpointed) = (0, 0);
    for writes in (20..400).step_by(7) {
        let mut member = Member::start(Disk { writes_left: writes, ..Disk::default() }, 3).unwrap();
        let upto = if member.serves() { 40 } else { 0 };
        for number in 0..upto {
            // A part in every shard, so that the power goes between parts.
            let puts = (number..number + 5).map(|number| {
                let value = Bytes::from(format!("{number:08}").repeat(150));
                Op::Put(PutRequest { key: key(number), value, ..Default::default() })
            });
            member.ask(Request::Txn(TxnRequest { success: puts.collect(), ..Default::default() }));
            if number % 4 == 3 {
                let (key, range_end) = (Bytes::from_static(b"/registry/e"), Bytes::from_static(b"b"));
                let delete = DeleteRangeRequest { key, range_end, prev_kv: false };
                member.ask(Request::DeleteRange(delete));
            }
        }
        let disk = member.crash(usize::MAX);
        let dump = dump(&disk);
        let member = Member::start(disk, 2).unwrap();
        assert_eq!(member.halted, None);
        assert_eq!(dump.settled, member.sequencer.settled(), "after {writes} writes");
        assert_eq!(dump.complete_from, Revision(2));
        let revisions: Vec<u64> = dump.writes().map(|write| write.revision.0).collect();
        assert_eq!(revisions, (2..=dump.settled.0).collect::<Vec<u64>>());
        assert_eq!(events(&dump), member.events(), "after {writes} writes");
        unsettled += dump.unsettled;
        checkpointed += u64::from(dump.checkpointed > Revision::NONE);
        // The start has voided the rest.
        let settled = dump.settled;
        let dump = self::dump(&member.crash(usize::MAX));
        assert_eq!((dump.settled, dump.unsettled), (settled, 0));
    }
    assert!(unsettled > 0 && checkpointed > 0, "{unsettled} revisions in part, {checkpointed} checkpoints");
}

fn dump(disk: &Disk) -> Contents {
    let mut read = |name: &str, offset, len| disk.read(name, offset, len);
    let mut contents = Contents::read(disk.plan(1).unwrap(), vec![], &mut read);
    contents.slice.keys = 7;
    contents
}

fn events(dump: &Contents) -> Vec<(At, ShardId, Event)> {
    let writes = dump.writes().flat_map(|write| {
        let main = write.revision;
        write.events.into_iter().map(move |(sub, shard, event)| (At { main, sub }, shard, event))
    });
    writes.collect()
}

#[test]
fn mail_of_an_epoch_that_is_stopped_here_does_nothing() {
    let mut member = Member::start(endless(), 2).unwrap();
    let epoch = member.reactors[0].turn.epoch();
    let call = crate::io::CallId { reactor: ReactorId(1), number: 1 };
    let shard = ShardId(2); // of the first of two reactors
    assert!(member.reactors[0].shards.has(shard));
    let mail = |body: Body| Input::Mail { from: ReactorId(1), mail: crate::io::Mail { epoch, body } };
    let now = member.now;
    member.reactors[0]
        .step(now, mail(ShardMail::Reserve { call, shard, txn: Arc::default(), revokes: None }.into()));
    assert!(member.reactors[0].shards.get(shard).unwrap().reserved.is_some());
    member.reactors[0].step(now, Input::Deposed { shard: ShardId::CONTROL });
    // The other reactor has not heard of the end yet.
    member.reactors[0]
        .step(now, mail(ShardMail::Part { call, shard, write: None, sub_ranges: vec![] }.into()));
    let revoke = crate::io::ControlRequest::Client(Request::LeaseRevoke(LeaseId(5)));
    member.reactors[0].step(
        now,
        mail(LeaderMail::Control { call, request: revoke, until: Time::NEVER, own: false }.into()),
    );
    member.run();
    assert!(member.serves() && member.reactors[0].turn.epoch() > epoch);
    assert!(member.reactors[0].shards.get(shard).unwrap().reserved.is_none());
}
