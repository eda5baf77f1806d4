//! A disk that keeps only what it must.
//!
//! Two states a file: what a reader sees now, and what would be there after the power went. A write is
//! *in flight* from submission to completion, then *cached* (unless it was durable by itself), and
//! *durable* once a sync of the file, submitted after the write completed, completes. The directory is
//! the same at one remove: creations, renames and removals take effect at once and are durable once a
//! directory sync completes.
//!
//! When the power goes, each write that is in flight or cached is lost, kept, or torn into sectors of 512
//! bytes of which any may have arrived, each write for itself, so that a later one may survive an earlier;
//! and each unsynced change of the directory is kept or lost, as far as the kept ones fit together. When
//! only the process dies, writes in flight are lost or kept whole, and nothing else happens.
//!
//! The disk knows no clock and draws no numbers: both are arguments.

use super::hits::{Hit, Hits};
use crate::stdx::Rng;
use crate::types::{Duration, Time};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// What a disk writes atomically, at most.
pub const SECTOR_BYTES: usize = 512;

/// An operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// A content that keeps its identity when it is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes beyond the end extend the file with zeros. `durable` is a write with RWF_DSYNC.
    Write {
        file: String,
        offset: u64,
        bytes: Vec<u8>,
        durable: bool,
    },
    Sync {
        file: String,
    },
    SyncDirectory,
    /// What stands there when it completes, [`Disk::read`] tells.
    Read {
        file: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotFound,
    Exists,
    Full,
    /// The device is gone, or it failed this operation.
    Dead,
}

/// How the device treats operations in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// Nothing completes.
    Hung,
    /// Everything fails.
    Dead,
}

/// How a write that is confirmed may yet go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It never reaches the medium.
    Lost,
    /// It lands at this offset of the same file.
    Misdirected(u64),
}

#[derive(Clone, Debug)]
struct Patch {
    /// The number of its completion.
    completed: u64,
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Completed, not synced, in order of completion.
    cached: Vec<Patch>,
}

#[derive(Clone, Debug)]
enum Change {
    Create { name: String, file: FileId },
    Rename { old: String, new: String },
    Remove { name: String },
}

#[derive(Clone, Debug)]
enum Flying {
    Write {
        file: FileId,
        patch: Patch,
        durable: bool,
    },
    /// The patches of the file that completed up to this number become durable.
    Sync {
        file: FileId,
        completed: u64,
    },
    SyncDirectory {
        made: u64,
    },
    Read,
}

#[derive(Clone, Debug)]
pub struct Disk {
    contents: BTreeMap<FileId, Content>,
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    /// Each with the number of its making.
    changes: Vec<(u64, Change)>,
    flying: BTreeMap<OpId, (Time, Flying)>,
    health: Health,
    capacity_bytes: u64,
    latency: (Duration, Duration),
    next: u64,
    /// So many reads from now one fails; whether it has.
    failing_read: Cell<Option<u64>>,
    read_failed: Cell<bool>,
    /// What went wrong here.
    pub hits: Hits,
}

impl Disk {
    /// An operation takes a time between the two latencies, both included.
    pub fn new(capacity_bytes: u64, latency: (Duration, Duration)) -> Disk {
        assert!(latency.0 <= latency.1);
        Disk {
            contents: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            flying: BTreeMap::new(),
            health: Health::Well,
            capacity_bytes,
            latency,
            next: 0,
            failing_read: Cell::new(None),
            read_failed: Cell::new(false),
            hits: Hits::default(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn set_health(&mut self, health: Health) {
        self.health = health;
    }

    /// How slow the disk is from now on.
    pub fn set_latency(&mut self, latency: (Duration, Duration)) {
        assert!(latency.0 <= latency.1);
        self.latency = latency;
    }

    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = bytes;
    }

    /// Others take all that is free.
    pub fn fill(&mut self) {
        self.capacity_bytes = self.used_bytes();
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.contents[file].seen.len() as u64).sum()
    }

    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes())
    }

    fn live(&self) -> Result<(), Fault> {
        if self.health == Health::Dead { Err(Fault::Dead) } else { Ok(()) }
    }

    fn find(&self, name: &str) -> Result<FileId, Fault> {
        self.names.get(name).copied().ok_or(Fault::NotFound)
    }
}

/// The directory: at once, and durable after a directory sync.
impl Disk {
    pub fn create(&mut self, name: &str) -> Result<(), Fault> {
        self.live()?;
        if self.names.contains_key(name) {
            return Err(Fault::Exists);
        }
        let file = FileId(self.number());
        self.contents.insert(file, Content::default());
        self.change(Change::Create { name: name.into(), file });
        Ok(())
    }

    /// Replaces what has the new name, as POSIX does.
    pub fn rename(&mut self, old: &str, new: &str) -> Result<(), Fault> {
        self.live()?;
        self.find(old)?;
        self.change(Change::Rename { old: old.into(), new: new.into() });
        Ok(())
    }

    pub fn remove(&mut self, name: &str) -> Result<(), Fault> {
        self.live()?;
        self.find(name)?;
        self.change(Change::Remove { name: name.into() });
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        let made = self.number();
        self.changes.push((made, change));
    }

    /// Names in ascending order.
    pub fn files(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.keys().map(String::as_str)
    }

    pub fn read(&self, name: &str) -> Result<&[u8], Fault> {
        self.live()?;
        let left = self.failing_read.take();
        self.failing_read.set(left.and_then(|left| left.checked_sub(1)));
        if left == Some(0) {
            self.read_failed.set(true);
            return Err(Fault::Dead);
        }
        Ok(&self.contents[&self.find(name)?].seen)
    }
}

/// Takes the change where it fits.
fn apply(names: &mut BTreeMap<String, FileId>, change: &Change) {
    match change {
        Change::Create { name, file } => {
            names.entry(name.clone()).or_insert(*file);
        }
        Change::Rename { old, new } => {
            if let Some(file) = names.remove(old) {
                names.insert(new.clone(), file);
            }
        }
        Change::Remove { name } => {
            names.remove(name);
        }
    }
}

/// Operations in flight.
impl Disk {
    /// A file that is not there, or no space, shows at once.
    pub fn submit(&mut self, now: Time, rng: &mut Rng, op: Op) -> Result<OpId, Fault> {
        self.live()?;
        let flying = match op {
            Op::Write { file, offset, bytes, durable } => {
                let file = self.find(&file)?;
                let end = offset + bytes.len() as u64;
                let grows = end.saturating_sub(self.contents[&file].seen.len() as u64);
                if grows > 0 && self.used_bytes() + grows > self.capacity_bytes {
                    self.hits.count(Hit::FullDisk);
                    return Err(Fault::Full);
                }
                let offset = usize::try_from(offset).expect("a simulated file fits into memory");
                Flying::Write { file, patch: Patch { completed: 0, offset, bytes }, durable }
            }
            Op::Sync { file } => {
                let file = self.find(&file)?;
                Flying::Sync { file, completed: self.next }
            }
            Op::SyncDirectory => Flying::SyncDirectory { made: self.next },
            Op::Read { file } => self.find(&file).map(|_| Flying::Read)?,
        };
        let (least, most) = self.latency;
        let due = now + least + Duration(rng.below(most.0 - least.0 + 1));
        let id = OpId(self.number());
        self.flying.insert(id, (due, flying));
        Ok(id)
    }

    /// When the next operation completes.
    pub fn wake_at(&self) -> Time {
        if self.health == Health::Hung {
            return Time::NEVER;
        }
        self.flying.values().map(|(due, _)| *due).min().unwrap_or(Time::NEVER)
    }

    /// Completes one of the operations that are due, whichever the numbers choose.
    pub fn complete(&mut self, now: Time, rng: &mut Rng) -> Option<(OpId, Result<(), Fault>)> {
        if self.health == Health::Hung {
            return None;
        }
        let due = |(_, (due, _)): &(&OpId, &(Time, Flying))| *due <= now;
        let count = self.flying.iter().filter(due).count() as u64;
        if count == 0 {
            return None;
        }
        let id = *self.flying.iter().filter(due).nth(rng.below(count) as usize)?.0;
        let (_, flying) = self.flying.remove(&id)?;
        if self.health == Health::Dead {
            return Some((id, Err(Fault::Dead)));
        }
        self.land(flying);
        Some((id, Ok(())))
    }

    fn land(&mut self, flying: Flying) {
        match flying {
            Flying::Write { file, mut patch, durable } => {
                patch.completed = self.number();
                let content = self.contents.get_mut(&file).expect("contents outlive their names");
                patch.apply(&mut content.seen);
                if durable {
                    // What the cache held of the same bytes is older and can't come back.
                    let older = std::mem::take(&mut content.cached);
                    content.cached = older.into_iter().flat_map(|older| older.without(&patch)).collect();
                    patch.apply(&mut content.durable);
                } else {
                    content.cached.push(patch);
                }
            }
            Flying::Sync { file, completed } => {
                let content = self.contents.get_mut(&file).expect("contents outlive their names");
                for patch in content.cached.extract_if(.., |patch| patch.completed <= completed) {
                    patch.apply(&mut content.durable);
                }
            }
            Flying::SyncDirectory { made } => {
                for (_, change) in self.changes.extract_if(.., |(number, _)| *number <= made) {
                    apply(&mut self.durable_names, &change);
                }
            }
            Flying::Read => {}
        }
    }

    /// Makes a write in flight go wrong while the device confirms it.
    pub fn lie(&mut self, id: OpId, lie: Lie) {
        if let Some((_, Flying::Write { patch, .. })) = self.flying.get_mut(&id) {
            match lie {
                Lie::Lost => patch.bytes.clear(),
                Lie::Misdirected(offset) => patch.offset = offset as usize,
            }
        }
    }
}

impl Patch {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            return;
        }
        let end = self.offset + self.bytes.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[self.offset..end].copy_from_slice(&self.bytes);
    }

    /// What of it stands outside another patch.
    fn without(self, other: &Patch) -> impl Iterator<Item = Patch> {
        let end = self.offset + self.bytes.len();
        let part = |from: usize, to: usize| {
            let (from, to) = (from.max(self.offset), to.min(end));
            (from < to).then(|| Patch {
                completed: self.completed,
                offset: from,
                bytes: self.bytes[from - self.offset..to - self.offset].to_vec(),
            })
        };
        [part(0, other.offset), part(other.offset + other.bytes.len(), usize::MAX)].into_iter().flatten()
    }

    /// Lost, kept, or any of its sectors.
    fn survive(&self, rng: &mut Rng, bytes: &mut Vec<u8>) -> Hit {
        match rng.below(3) {
            0 => Hit::WriteLost,
            1 => {
                self.apply(bytes);
                Hit::WriteKept
            }
            _ => {
                let mut at = 0;
                while at < self.bytes.len() {
                    let room = SECTOR_BYTES - (self.offset + at) % SECTOR_BYTES;
                    let end = (at + room).min(self.bytes.len());
                    if rng.chance(1, 2) {
                        let sector = self.bytes[at..end].to_vec();
                        let completed = self.completed;
                        Patch { completed, offset: self.offset + at, bytes: sector }.apply(bytes);
                    }
                    at = end;
                }
                Hit::WriteTorn
            }
        }
    }
}

/// The faults of a disk.
impl Disk {
    /// The power goes, and comes back.
    pub fn power_loss(&mut self, rng: &mut Rng) {
        let mut durable = self.flying.values().filter_map(|(_, flying)| match flying {
            Flying::Write { file, durable: true, .. } => Some(*file),
            _ => None,
        });
        let mut seen = BTreeSet::new();
        if durable.any(|file| !seen.insert(file)) {
            self.hits.count(Hit::TwoInFlight);
        }
        for (_, flying) in std::mem::take(&mut self.flying).into_values() {
            if let Flying::Write { file, patch, .. } = flying {
                self.contents.get_mut(&file).expect("contents outlive their names").cached.push(patch);
            }
        }
        for content in self.contents.values_mut() {
            let mut patches = std::mem::take(&mut content.cached);
            while !patches.is_empty() {
                let patch = patches.swap_remove(rng.below(patches.len() as u64) as usize);
                self.hits.count(patch.survive(rng, &mut content.durable));
            }
            content.seen = content.durable.clone();
        }
        for (_, change) in std::mem::take(&mut self.changes) {
            if rng.chance(1, 2) {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        self.contents.retain(|file, _| self.names.values().any(|named| named == file));
    }

    /// The process dies. What was in flight happens or not.
    pub fn kill(&mut self, rng: &mut Rng) {
        for (_, flying) in std::mem::take(&mut self.flying).into_values() {
            if let Flying::Write { file, patch, .. } = flying
                && rng.chance(1, 2)
            {
                self.land(Flying::Write { file, patch, durable: false });
            }
        }
    }

    /// One read fails, after so many that do not.
    pub fn fail_read(&mut self, after: u64) {
        self.failing_read.set(Some(after));
    }

    /// Reads are well from now on. Whether one has failed.
    pub fn end_failing_reads(&mut self) -> bool {
        self.failing_read.set(None);
        self.read_failed.take()
    }

    /// Other bytes stand there, as if they always had.
    pub fn overwrite(&mut self, name: &str, offset: usize, bytes: &[u8]) {
        let file = self.names[name];
        let content = self.contents.get_mut(&file).expect("contents outlive their names");
        for all in [&mut content.seen, &mut content.durable] {
            Patch { completed: 0, offset, bytes: bytes.to_vec() }.apply(all);
        }
        content.cached.clear();
    }

    /// The file is another one, or a new one.
    pub fn replace(&mut self, name: &str, bytes: Vec<u8>) {
        let file = FileId(self.number());
        self.contents.insert(file, Content { seen: bytes.clone(), durable: bytes, cached: vec![] });
        self.names.insert(name.into(), file);
        self.durable_names.insert(name.into(), file);
    }

    /// The file is not there, and never comes back.
    pub fn take_away(&mut self, name: &str) {
        self.names.remove(name);
        self.durable_names.remove(name);
    }

    /// Changes one bit of each of `sectors` sectors from `offset` on, durably.
    pub fn rot(&mut self, rng: &mut Rng, name: &str, offset: u64, sectors: usize) -> Result<(), Fault> {
        let file = self.find(name)?;
        let content = self.contents.get_mut(&file).ok_or(Fault::NotFound)?;
        for sector in 0..sectors {
            let at = offset as usize + sector * SECTOR_BYTES + rng.below(SECTOR_BYTES as u64) as usize;
            let bit = 1 << rng.below(8);
            for bytes in [&mut content.seen, &mut content.durable] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (Disk, Rng) {
        (Disk::new(1 << 20, (Duration(0), Duration(0))), Rng::new(1))
    }

    fn write(name: &str, offset: u64, byte: u8, len: usize, durable: bool) -> Op {
        Op::Write { file: name.into(), offset, bytes: vec![byte; len], durable }
    }

    fn perform(disk: &mut Disk, rng: &mut Rng, op: Op) {
        disk.submit(Time(0), rng, op).unwrap();
        while let Some((_, result)) = disk.complete(Time(0), rng) {
            result.unwrap();
        }
    }

    fn prepared() -> (Disk, Rng) {
        let (mut disk, mut rng) = disk();
        disk.create("a").unwrap();
        perform(&mut disk, &mut rng, write("a", 0, 0, 4096, true));
        perform(&mut disk, &mut rng, Op::SyncDirectory);
        (disk, rng)
    }

    #[test]
    fn what_is_synced_survives_and_what_is_not_may_be_lost_kept_or_torn() {
        let mut outcomes = [0; 3];
        for seed in 0..200 {
            let (mut disk, _) = prepared();
            let mut rng = Rng::new(seed);
            perform(&mut disk, &mut rng, write("a", 0, 1, 2048, false));
            perform(&mut disk, &mut rng, Op::Sync { file: "a".into() });
            perform(&mut disk, &mut rng, write("a", 2048, 2, 2048, false));
            disk.power_loss(&mut rng);
            let bytes = disk.read("a").unwrap();
            assert_eq!(bytes[..2048], [1; 2048], "synced");
            let kept = bytes[2048..].chunks(SECTOR_BYTES).filter(|s| **s == [2; SECTOR_BYTES]).count();
            let lost = bytes[2048..].chunks(SECTOR_BYTES).filter(|s| **s == [0; SECTOR_BYTES]).count();
            assert_eq!(kept + lost, 4, "whole sectors");
            outcomes[if kept == 4 { 0 } else { 1 + usize::from(lost == 4) }] += 1;
        }
        assert!(outcomes.iter().all(|count| *count > 30), "{outcomes:?}");
    }

    #[test]
    fn a_sync_covers_only_what_had_completed_before_it() {
        let mut lost = 0;
        for seed in 0..50 {
            let (mut disk, _) = prepared();
            let mut rng = Rng::new(seed);
            disk.submit(Time(0), &mut rng, write("a", 0, 1, 512, false)).unwrap();
            disk.submit(Time(0), &mut rng, Op::Sync { file: "a".into() }).unwrap();
            while disk.complete(Time(0), &mut rng).is_some() {}
            disk.power_loss(&mut rng);
            lost += usize::from(disk.read("a").unwrap()[0] == 0);
        }
        assert!(lost > 5);
    }

    #[test]
    fn a_durable_write_is_not_undone_by_an_older_one_in_the_cache() {
        for seed in 0..50 {
            let (mut disk, _) = prepared();
            let mut rng = Rng::new(seed);
            perform(&mut disk, &mut rng, write("a", 0, 1, 1536, false));
            perform(&mut disk, &mut rng, write("a", 512, 2, 512, true));
            disk.power_loss(&mut rng);
            assert_eq!(disk.read("a").unwrap()[512..1024], [2; 512]);
        }
    }

    #[test]
    fn an_unsynced_rename_is_there_or_not_and_keeps_old_bytes() {
        let mut renamed = 0;
        for seed in 0..50 {
            let (mut disk, _) = prepared();
            let mut rng = Rng::new(seed);
            perform(&mut disk, &mut rng, write("a", 0, 7, 512, true));
            disk.rename("a", "b").unwrap();
            assert_eq!(disk.read("a"), Err(Fault::NotFound));
            disk.power_loss(&mut rng);
            let names: Vec<_> = disk.files().map(str::to_owned).collect();
            assert_eq!(names.len(), 1);
            assert_eq!(disk.read(&names[0]).unwrap()[..512], [7; 512]);
            renamed += usize::from(names[0] == "b");
        }
        assert!((10..40).contains(&renamed), "{renamed}");
    }

    #[test]
    fn full_hung_and_dead_disks_say_so() {
        let (mut disk, mut rng) = prepared();
        let too_much = write("a", 0, 1, 2 << 20, false);
        assert_eq!(disk.submit(Time(0), &mut rng, too_much), Err(Fault::Full));
        disk.submit(Time(0), &mut rng, write("a", 0, 1, 512, false)).unwrap();
        disk.set_health(Health::Hung);
        assert_eq!((disk.complete(Time(9), &mut rng), disk.wake_at()), (None, Time::NEVER));
        disk.set_health(Health::Dead);
        assert!(matches!(disk.complete(Time(9), &mut rng), Some((_, Err(Fault::Dead)))));
        assert_eq!(disk.read("a"), Err(Fault::Dead));
    }

    #[test]
    fn completions_come_in_any_order_and_not_before_their_time() {
        let (mut disk, mut rng) = prepared();
        disk.set_latency((Duration(5), Duration(9)));
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let a = disk.submit(Time(0), &mut rng, write("a", 0, 1, 512, true)).unwrap();
            disk.submit(Time(0), &mut rng, write("a", 512, 1, 512, true)).unwrap();
            assert_eq!(disk.complete(Time(4), &mut rng), None);
            let first = disk.complete(Time(9), &mut rng).unwrap().0;
            orders.insert(first == a);
            assert!(disk.complete(Time(9), &mut rng).is_some());
        }
        assert_eq!(orders.len(), 2);
    }

    #[test]
    fn a_lie_is_confirmed_and_not_kept() {
        let (mut disk, mut rng) = prepared();
        for lie in [Lie::Lost, Lie::Misdirected(1024)] {
            let id = disk.submit(Time(0), &mut rng, write("a", 0, 9, 512, true)).unwrap();
            disk.lie(id, lie);
            assert_eq!(disk.complete(Time(0), &mut rng), Some((id, Ok(()))));
            assert_eq!(disk.read("a").unwrap()[0], 0);
        }
        assert_eq!(disk.read("a").unwrap()[1024], 9);
    }

    #[test]
    fn rot_outlives_the_power() {
        let (mut disk, mut rng) = prepared();
        disk.rot(&mut rng, "a", 512, 1).unwrap();
        disk.power_loss(&mut rng);
        let bytes = disk.read("a").unwrap();
        let ones: u32 = bytes[512..1024].iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
    }
}
