//! A disk that loses what it has confirmed, and files that are not what they were.
//!
//! Each run ends with one of these. The member stops, comes back, and says what is wrong, or has lost nothing.
//!
//! **What nobody could know.** A frame that a log had acknowledged, and of which no whole block that is left,
//! of that log or another, says so, may be gone unseen: the last writes before all else fell silent. A damage
//! that takes nothing else is passed over, once the member has started or refused to; after some silence there
//! is none such, as every entry has its witness then. What is left is read here by means of its own, from the
//! drawing of the bytes, so that a member that overlooks a witness is not excused by it.

use super::disk::{Disk, SECTOR_BYTES};
use super::hits::Hit;
use super::member::{Death, Member};
use super::run::Run;
use super::world::{Failure, REFUSED, World};
use crate::config::AutoCompaction;
use crate::limits::{BLOCK_BYTES, LOG_VOUCH_DELAY_MS};
use crate::log::{LogId, SegmentName, Testimony};
use crate::stdx::Rng;
use crate::types::Duration;
use crate::wire::Method;
use crate::wire::proto::{self, Message};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit changes.
    Rot,
    /// The last frames of one log are gone: its file was never flushed.
    TailLost,
    /// A durable write of a log is confirmed and not done, or done elsewhere in its file.
    WriteLost,
    WriteMisdirected,
    /// Two files of a kind have each other's names.
    Exchanged,
    Truncated,
    /// Some logs are what they were a while ago.
    Old,
    Missing,
}

impl Damage {
    /// All but rot, which shapes draw by themselves.
    pub const OTHERS: [Damage; 7] = [
        Damage::TailLost,
        Damage::WriteLost,
        Damage::WriteMisdirected,
        Damage::Exchanged,
        Damage::Truncated,
        Damage::Old,
        Damage::Missing,
    ];
}

/// No other grant has this number.
const LAST_LEASE: i64 = 1 << 40;
/// So long after an entry is acknowledged some block says that it was.
const SILENCE: Duration = Duration::from_ms(5 * LOG_VOUCH_DELAY_MS);

impl Run<'_> {
    /// The files are damaged under a member that is stopped: it says so, or nothing is lost.
    pub(super) fn outlive_damage(&mut self, member: usize) -> Result<Hit, Failure> {
        let damage = self.plan.shape.damage;
        let mut rng = Rng::new(self.plan.seed ^ 0xDA3A);
        self.world.members[member].prepare_damage(damage, self.plan.shape.segments.least, &mut rng);
        self.probe(member)?;
        // A control entry takes no revision that could be missed. Under a quota there may be no room for it.
        let granted = self.plan.shape.quota_bytes.is_none();
        if granted {
            let grant = proto::LeaseGrantRequest { ttl: 600, id: LAST_LEASE };
            self.must(member, Method::LeaseGrant, grant.encode_to_vec())?;
        }
        let before = self.probe(member)?;
        if rng.chance(1, 2) {
            self.fall_silent(member)?;
        }
        self.world.trace.line(self.world.now, || format!("m{member}: {damage:?}"));
        if self.world.serving.len() > 1 {
            return self.outlive_damage_of_one(member, &before, &mut rng);
        }
        let history = self.world.history.clone();
        let can_be_known = self.world.damage(member, damage, &mut rng);
        self.world.calm();
        let rested = self.come_to_rest("after the damage");
        let refused = matches!(rested, Err(Failure { check: REFUSED, .. }));
        if !refused {
            rested?;
        }
        match (can_be_known, refused) {
            (false, _) => {
                // Of what is forgotten nobody can be held to account.
                self.world.history = history;
                return Ok(Hit::DamageUnknowable);
            }
            (true, true) => return Ok(hit_of(damage)),
            (true, false) => {}
        }
        let compacts_itself = self.plan.shape.auto_compaction != AutoCompaction::Off;
        let after = self.hash(member, if compacts_itself { 0 } else { before.hash_revision })?;
        let same = (after.hash, after.compact_revision) == (before.hash, before.compact_revision);
        let may_differ = compacts_itself && after.hash_revision >= before.hash_revision;
        if !same && !may_differ {
            return Err(Failure::new("damage", format!("{damage:?}: {before:?} before, {after:?} after")));
        }
        let leases = self.must(member, Method::LeaseLeases, vec![])?;
        let leases = proto::LeaseLeasesResponse::decode(leases).expect("the server speaks protobuf");
        if granted && !leases.leases.iter().any(|lease| lease.id == LAST_LEASE) {
            return Err(Failure::new("damage", format!("{damage:?}: the last lease is gone")));
        }
        Ok(Hit::DamageHarmless)
    }

    /// The files of one of several members are damaged. It says so and stays away, or has lost nothing; the others
    /// have what there was.
    fn outlive_damage_of_one(
        &mut self,
        member: usize,
        before: &proto::HashKvResponse,
        rng: &mut Rng,
    ) -> Result<Hit, Failure> {
        let damage = self.plan.shape.damage;
        let can_be_known = self.world.damage(member, damage, rng);
        self.world.calm();
        let mut hit = Hit::DamageHarmless;
        if can_be_known {
            match self.recover("after the damage") {
                Err(Failure { check: REFUSED, .. }) => hit = hit_of(damage),
                Err(other) => return Err(other),
                Ok(()) => self.agree("after the damage")?,
            }
        } else {
            // What it does not know to have promised it would not keep.
            hit = Hit::DamageUnknowable;
        }
        if hit != Hit::DamageHarmless {
            self.world.die_for_good(member, Death::Kill);
        }
        let others = self.world.serving.clone().into_iter();
        let others: Vec<usize> = others.filter(|other| *other != member).collect();
        self.serve_again(&others, "after the damage of another member")?;
        // Who watches sees it as well.
        self.advance(self.world.now + Duration::from_secs(1))?;
        let compacts_itself = self.plan.shape.auto_compaction != AutoCompaction::Off;
        for other in others.into_iter().filter(|_| !compacts_itself) {
            let after = self.hash(other, before.hash_revision)?;
            if (after.hash, after.compact_revision) != (before.hash, before.compact_revision) {
                let what = format!("{damage:?} of m{member}: {before:?} before, {after:?} at m{other} after");
                return Err(Failure::new("damage", what));
            }
        }
        Ok(hit)
    }

    /// Where nothing more is written, what was is vouched for nevertheless, if the disk does what it confirms.
    fn fall_silent(&mut self, member: usize) -> Result<(), Failure> {
        let promised = self.world.members[member].testimonies();
        self.advance(self.world.now + SILENCE)?;
        if matches!(self.plan.shape.damage, Damage::WriteLost | Damage::WriteMisdirected) {
            return Ok(());
        }
        let blocks = Blocks::of(&self.world.members[member].files.disk);
        match promised.iter().find_map(|said| Some((said.log, blocks.unwitnessed(said)?))) {
            None => Ok(()),
            Some((log, frame)) => {
                let what = format!("no block says that frame {frame} of log {} was acknowledged", log.0);
                Err(Failure::new("witness", what))
            }
        }
    }
}

fn hit_of(damage: Damage) -> Hit {
    match damage {
        Damage::Rot => Hit::Rot,
        Damage::TailLost => Hit::TailLost,
        Damage::WriteLost => Hit::DurableWriteLost,
        Damage::WriteMisdirected => Hit::DurableWriteMisdirected,
        Damage::Exchanged => Hit::FilesExchanged,
        Damage::Truncated => Hit::FileTruncated,
        Damage::Old => Hit::OldFiles,
        Damage::Missing => Hit::FileMissing,
    }
}

/// A log under its key.
type LogLife = (LogId, u64);

/// A whole frame that stands where it says.
struct Frame {
    file: String,
    segment: u64,
    offset: usize,
    len: usize,
    log: LogLife,
    number: u64,
    incarnation: u64,
    has_entry: bool,
}

/// The whole blocks of all logs.
#[derive(Default)]
struct Blocks {
    frames: Vec<Frame>,
    /// The highest frame of each log of which some block says that it was acknowledged.
    known: BTreeMap<LogLife, u64>,
    /// The oldest segment of each log that is needed, as its blocks say.
    first: BTreeMap<LogLife, u64>,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn is_whole(bytes: &[u8]) -> bool {
    crc32c::crc32c(&bytes[12..]) == word(bytes, 8)
}

fn has_entry(frame: &[u8]) -> bool {
    let mut records = &frame[112..112 + word(frame, 20) as usize];
    while let Some(head) = records.get(..24) {
        if head[4] == 1 {
            return true;
        }
        let len = (24 + word(head, 0) as usize).next_multiple_of(8);
        records = records.get(len..).unwrap_or_default();
    }
    false
}

impl Blocks {
    fn of(disk: &Disk) -> Blocks {
        let mut blocks = Blocks::default();
        for name in disk.files() {
            if let (Some(segment), Ok(bytes)) = (SegmentName::parse(name), disk.read(name)) {
                blocks.read(segment, bytes);
            }
        }
        blocks
    }

    fn read(&mut self, segment: SegmentName, bytes: &[u8]) {
        for offset in (0..bytes.len()).step_by(BLOCK_BYTES) {
            let Some(head) = bytes.get(offset..offset + BLOCK_BYTES) else { return };
            let log = (LogId(word(head, 16)), number(head, 24));
            if log.0 != segment.log || number(head, 40) != segment.sequence {
                continue;
            }
            if head.starts_with(b"braidseg") && is_whole(head) {
                self.hear(log, number(head, 72));
                self.needs(log, number(head, 80));
                for at in (96..BLOCK_BYTES - 23).step_by(24) {
                    self.hear((LogId(word(head, at)), number(head, at + 8)), number(head, at + 16));
                }
            }
            let len = (112 + word(head, 20) as usize).next_multiple_of(BLOCK_BYTES);
            let frame = bytes.get(offset..offset + len).filter(|frame| is_whole(frame));
            if !head.starts_with(b"braidfrm") || frame.is_none() || number(head, 48) != offset as u64 {
                continue;
            }
            self.hear(log, number(head, 64));
            self.needs(log, number(head, 72));
            self.hear((LogId(word(head, 88)), number(head, 96)), number(head, 104));
            let (number, incarnation) = (number(head, 56), number(head, 32));
            let has_entry = frame.is_some_and(has_entry);
            let file = segment.to_string();
            self.frames.push(Frame {
                file,
                segment: segment.sequence,
                offset,
                len,
                log,
                number,
                incarnation,
                has_entry,
            });
        }
    }

    fn hear(&mut self, log: LogLife, frame: u64) {
        let known = self.known.entry(log).or_default();
        *known = frame.max(*known);
    }

    fn needs(&mut self, log: LogLife, segment: u64) {
        let first = self.first.entry(log).or_default();
        *first = segment.max(*first);
    }

    /// The last frame of a log with an entry, up to the one that was acknowledged, if no block says that it was.
    fn unwitnessed(&self, Testimony { log, key, frame }: &Testimony) -> Option<u64> {
        let frames = self.of_log((*log, *key));
        let (last, _) = frames.range(..=frame).rev().find(|(_, frame)| frame.has_entry)?;
        let known = self.known.get(&(*log, *key)).copied().unwrap_or_default();
        (*last > known).then_some(*last)
    }

    /// For each frame of a log the newest incarnation that has written it.
    fn of_log(&self, log: LogLife) -> BTreeMap<u64, &Frame> {
        let mut frames: BTreeMap<u64, &Frame> = BTreeMap::new();
        for frame in self.frames.iter().filter(|frame| frame.log == log) {
            let newest = frames.entry(frame.number).or_insert(frame);
            if frame.incarnation > newest.incarnation {
                *newest = frame;
            }
        }
        frames
    }
}

/// Whether acknowledged frames are gone, and for none of them a witness is left.
fn is_unknowable(promised: &[Testimony], before: &Blocks, after: &Blocks) -> bool {
    let mut any = false;
    for Testimony { log, key, frame } in promised {
        let (had, has) = (before.of_log((*log, *key)), after.of_log((*log, *key)));
        // What stood in files that nobody needs is no loss.
        let first = after.first.get(&(*log, *key)).copied().unwrap_or_default();
        let is_lost = |(number, frame): &(&u64, &&Frame)| {
            let is_there = has.get(number).is_some_and(|found| found.incarnation >= frame.incarnation);
            frame.segment >= first && !is_there
        };
        let Some((lost, _)) = had.range(..=frame).find(is_lost) else { continue };
        any = true;
        if after.known.get(&(*log, *key)).is_some_and(|known| known >= lost) {
            return false;
        }
    }
    any
}

impl World {
    /// A member stops, and its files suffer. Whether they did so that it can be known.
    fn damage(&mut self, at: usize, damage: Damage, rng: &mut Rng) -> bool {
        if !self.is_up(at) {
            return false;
        }
        let promised = self.members[at].testimonies();
        self.die(at, Death::Kill);
        let member = &mut self.members[at];
        let before = Blocks::of(&member.files.disk);
        let done = member.suffer(damage, &before, rng);
        let after = Blocks::of(&member.files.disk);
        done && !is_unknowable(&promised, &before, &after)
    }
}

impl Member {
    /// Makes ready what the damage needs of the time before the member stops.
    fn prepare_damage(&mut self, damage: Damage, segment_bytes: usize, rng: &mut Rng) {
        match damage {
            Damage::WriteLost => self.files.lie_at = Some((rng.below(12), None)),
            Damage::WriteMisdirected => {
                let block = rng.below((segment_bytes / BLOCK_BYTES) as u64);
                self.files.lie_at = Some((rng.below(12), Some(block * BLOCK_BYTES as u64)));
            }
            Damage::Old => {
                let disk = &self.files.disk;
                let logs = disk.files().filter(|name| SegmentName::parse(name).is_some());
                let copy = |name: &str| Some((name.to_string(), disk.read(name).ok()?.to_vec()));
                self.copies = logs.filter_map(copy).collect();
            }
            _ => {}
        }
    }

    /// What each log has acknowledged.
    fn testimonies(&self) -> Vec<Testimony> {
        let Some(process) = self.process() else { return vec![] };
        let logs = (0..process.seats.len() as u32).map(LogId);
        logs.filter_map(|log| process.sequencer.testimony(log)).collect()
    }

    fn suffer(&mut self, damage: Damage, blocks: &Blocks, rng: &mut Rng) -> bool {
        let disk = &mut self.files.disk;
        let names: Vec<String> = disk.files().map(str::to_owned).collect();
        let logs: Vec<&String> = names.iter().filter(|name| name.ends_with(".log")).collect();
        let name = rng.pick(&names).clone();
        let len = disk.read(&name).map_or(0, <[u8]>::len) as u64;
        match damage {
            Damage::Rot => {
                let offset = rng.below(len.max(1)) / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
                disk.rot(rng, &name, offset, 1).expect("the file was listed");
                true
            }
            Damage::TailLost => {
                let lives: BTreeSet<LogLife> = blocks.frames.iter().map(|frame| frame.log).collect();
                let lives: Vec<LogLife> = lives.into_iter().collect();
                let frames = blocks.of_log(*rng.pick(&lives));
                for frame in frames.values().rev().take(1 + rng.below(10) as usize) {
                    // The first of a file was one write with its header.
                    let (from, end) = (frame.offset, frame.offset + frame.len);
                    let from = if from == BLOCK_BYTES { 0 } else { from };
                    disk.overwrite(&frame.file, from, &vec![0; end - from]);
                }
                true
            }
            Damage::WriteLost | Damage::WriteMisdirected => self.files.lie_at.take().is_none(),
            Damage::Exchanged => {
                let checkpoints: Vec<&String> =
                    names.iter().filter(|name| name.ends_with(".checkpoint")).collect();
                let of_a_kind = if checkpoints.len() > 1 && rng.chance(1, 2) { checkpoints } else { logs };
                let (one, other) = (*rng.pick(&of_a_kind), *rng.pick(&of_a_kind));
                let content = |name: &str| disk.read(name).expect("it was listed").to_vec();
                let (of_one, of_other) = (content(one), content(other));
                disk.replace(one, of_other);
                disk.replace(other, of_one);
                one != other
            }
            Damage::Truncated => {
                let bytes = disk.read(&name).expect("it was listed");
                let cut = bytes[..rng.below(len.max(1)) as usize].to_vec();
                disk.replace(&name, cut);
                true
            }
            Damage::Missing => {
                disk.take_away(&name);
                true
            }
            Damage::Old => {
                let ids: BTreeSet<LogId> =
                    logs.iter().filter_map(|name| Some(SegmentName::parse(name)?.log)).collect();
                let old: Vec<LogId> = ids.into_iter().filter(|_| rng.chance(1, 2)).collect();
                let is_old =
                    |name: &str| SegmentName::parse(name).is_some_and(|name| old.contains(&name.log));
                logs.iter().filter(|name| is_old(name)).for_each(|name| disk.take_away(name));
                for (name, bytes) in self.copies.iter().filter(|(name, _)| is_old(name)) {
                    disk.replace(name, bytes.clone());
                }
                !old.is_empty()
            }
        }
    }
}
