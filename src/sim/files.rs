//! A member's files on the simulated disk: what reactors want done, in the steps that make it durable.

use super::disk::{Disk, Fault, Lie, Op, OpId};
use super::hits::Hit;
use super::process::{Item, Process};
use crate::io::{BulkDone, BulkStep, JobId};
use crate::log::{Buffer, Command, LogPiece, SegmentName, WriteId};
use crate::stdx::Rng;
use crate::types::Time;
use std::collections::{BTreeMap, VecDeque};

/// What an operation in flight is for, and for which reactor.
enum Doing {
    Write {
        reactor: usize,
        id: WriteId,
        buffer: Buffer,
    },
    Zeros {
        reactor: usize,
        segment: SegmentName,
    },
    ZerosSynced {
        reactor: usize,
        segment: SegmentName,
    },
    SegmentNamed {
        reactor: usize,
        segment: SegmentName,
    },
    Appended {
        reactor: usize,
        job: JobId,
    },
    Synced {
        reactor: usize,
        job: JobId,
        name: String,
        as_name: String,
    },
    Published {
        reactor: usize,
        job: JobId,
    },
    Removed {
        reactor: usize,
        job: JobId,
    },
    Read {
        reactor: usize,
        job: JobId,
        piece: LogPiece,
    },
    /// A start makes what it read durable.
    Start,
}

/// The disk, and what it is asked for.
pub struct Files {
    pub disk: Disk,
    pub rng: Rng,
    doing: BTreeMap<OpId, Doing>,
    /// Files go one after the other, each durably.
    removing: VecDeque<(usize, JobId, String)>,
    /// Segments for which there was no room, and since when that is known.
    disk_full: VecDeque<(Time, usize, SegmentName)>,
    /// After so many more writes of logs one is confirmed and lost, or lands at another offset.
    pub lie_at: Option<(u64, Option<u64>)>,
    /// So many steps of the bulk lane fail, without any effect.
    pub failing_steps: u64,
}

/// What makes the process stop.
pub struct Final(pub String);

impl Files {
    pub fn new(disk: Disk, rng: Rng) -> Files {
        Files {
            disk,
            rng,
            doing: BTreeMap::new(),
            removing: VecDeque::new(),
            disk_full: VecDeque::new(),
            lie_at: None,
            failing_steps: 0,
        }
    }

    /// The process is gone, and with it whoever waits.
    pub fn forget(&mut self) {
        self.doing.clear();
        self.removing.clear();
        self.disk_full.clear();
    }

    fn submit(&mut self, now: Time, op: Op, doing: Doing) -> Result<(), Fault> {
        let id = self.disk.submit(now, &mut self.rng, op)?;
        if let (Some((left, to)), Doing::Write { .. }) = (self.lie_at, &doing) {
            if left == 0 {
                self.disk.lie(id, to.map_or(Lie::Lost, Lie::Misdirected));
            }
            self.lie_at = left.checked_sub(1).map(|left| (left, to));
        }
        self.doing.insert(id, doing);
        Ok(())
    }

    /// Syncs files and the directory, for a start. [`Files::is_starting`] says when that is done.
    pub fn sync_for_start(&mut self, now: Time, files: Vec<String>) -> Result<(), Fault> {
        for file in files {
            self.submit(now, Op::Sync { file }, Doing::Start)?;
        }
        self.submit(now, Op::SyncDirectory, Doing::Start)
    }

    pub fn is_starting(&self) -> bool {
        self.doing.values().any(|doing| matches!(doing, Doing::Start))
    }

    /// Begins what the log wants.
    pub fn log(&mut self, now: Time, reactor: usize, command: Command) -> Result<(), Final> {
        let done = match command {
            Command::Write { id, segment, offset, bytes } => {
                let op =
                    Op::Write { file: segment.to_string(), offset, bytes: bytes.to_vec(), durable: true };
                self.submit(now, op, Doing::Write { reactor, id, buffer: bytes })
            }
            Command::Prepare { segment, bytes, keep_free } => {
                self.prepare(now, reactor, segment, bytes, keep_free)
            }
            Command::Recycle { old, new } => {
                let renamed = self.disk.rename(&old.to_string(), &new.to_string());
                let doing = Doing::SegmentNamed { reactor, segment: new };
                renamed.and_then(|()| self.submit(now, Op::SyncDirectory, doing))
            }
            Command::Remove { segment } => self.disk.remove(&segment.to_string()),
        };
        done.map_err(|fault| Final(format!("the log of reactor {reactor}: {fault:?}")))
    }

    fn prepare(
        &mut self,
        now: Time,
        reactor: usize,
        segment: SegmentName,
        bytes: u64,
        keep_free: u64,
    ) -> Result<(), Fault> {
        if self.disk.free_bytes() < bytes.saturating_add(keep_free) {
            self.disk.hits.count(Hit::FullDisk);
            self.disk_full.push_back((now, reactor, segment));
            return Ok(());
        }
        let file = format!("{segment}.new");
        self.disk.create(&file)?;
        let bytes = vec![0; usize::try_from(bytes).expect("a simulated file fits into memory")];
        let op = Op::Write { file: file.clone(), offset: 0, bytes, durable: false };
        match self.submit(now, op, Doing::Zeros { reactor, segment }) {
            Err(Fault::Full) => {
                self.disk_full.push_back((now, reactor, segment));
                self.disk.remove(&file)
            }
            other => other,
        }
    }

    /// When something completes.
    pub fn wake_at(&self) -> Time {
        let known = self.disk_full.front().map_or(Time::NEVER, |(at, ..)| *at);
        self.disk.wake_at().min(known)
    }

    /// Begins what the bulk lane is to do. Gives an answer that is known at once.
    pub fn bulk(&mut self, now: Time, reactor: usize, job: JobId, step: BulkStep) -> Option<BulkDone> {
        if let Some(left) = self.failing_steps.checked_sub(1) {
            self.failing_steps = left;
            return Some(BulkDone::Failed("the device takes it for impossible".into()));
        }
        let done = match step {
            BulkStep::Create { name } => {
                let gone = match self.disk.remove(&name) {
                    Err(Fault::NotFound) => Ok(()),
                    other => other,
                };
                return Some(answer(gone.and_then(|()| self.disk.create(&name))));
            }
            BulkStep::Append { name, blocks } => {
                let offset = self.disk.read(&name).map(|bytes| bytes.len() as u64);
                let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.iter().copied()).collect();
                offset.and_then(|offset| {
                    let op = Op::Write { file: name, offset, bytes, durable: false };
                    self.submit(now, op, Doing::Appended { reactor, job })
                })
            }
            BulkStep::Publish { name, as_name } => {
                let op = Op::Sync { file: name.clone() };
                self.submit(now, op, Doing::Synced { reactor, job, name, as_name })
            }
            BulkStep::Remove { name } => {
                self.removing.push_back((reactor, job, name));
                match self.removing.len() {
                    1 => self.remove_next(now),
                    _ => Ok(()),
                }
            }
            BulkStep::Read(piece) => {
                let op = Op::Read { file: piece.segment.to_string() };
                self.submit(now, op, Doing::Read { reactor, job, piece })
            }
        };
        done.err().map(|fault| answer(Err(fault)))
    }

    fn remove_next(&mut self, now: Time) -> Result<(), Fault> {
        let Some((reactor, job, name)) = self.removing.front().cloned() else { return Ok(()) };
        match self.disk.remove(&name) {
            Ok(()) | Err(Fault::NotFound) => {
                self.submit(now, Op::SyncDirectory, Doing::Removed { reactor, job })
            }
            Err(fault) => Err(fault),
        }
    }

    /// Takes what the disk has done by now.
    pub fn complete(&mut self, now: Time, mut process: Option<&mut Process>) -> Result<bool, Final> {
        let mut any = false;
        while let Some((_, reactor, segment)) = self.disk_full.pop_front_if(|(at, ..)| *at <= now) {
            any = true;
            let process = process.as_mut().expect("who is gone waits for nothing");
            process.deliver(reactor, now, Item::DiskFull(segment));
        }
        while let Some((id, result)) = self.disk.complete(now, &mut self.rng) {
            any = true;
            let Some(doing) = self.doing.remove(&id) else { continue };
            if let Err(fault) = result {
                return Err(Final(format!("the disk: {fault:?}")));
            }
            match (self.follow(now, doing)?, &mut process) {
                (Some((reactor, item)), Some(process)) => process.deliver(reactor, now, item),
                (Some(_), None) => unreachable!("nobody is there to have asked"),
                (None, _) => {}
            }
        }
        Ok(any)
    }

    fn follow(&mut self, now: Time, doing: Doing) -> Result<Option<(usize, Item)>, Final> {
        let next = match doing {
            Doing::Write { reactor, id, buffer } => return Ok(Some((reactor, Item::Written(id, buffer)))),
            Doing::Zeros { reactor, segment } => {
                let op = Op::Sync { file: format!("{segment}.new") };
                self.submit(now, op, Doing::ZerosSynced { reactor, segment })
            }
            Doing::ZerosSynced { reactor, segment } => {
                let renamed = self.disk.rename(&format!("{segment}.new"), &segment.to_string());
                let doing = Doing::SegmentNamed { reactor, segment };
                renamed.and_then(|()| self.submit(now, Op::SyncDirectory, doing))
            }
            Doing::SegmentNamed { reactor, segment } => {
                return Ok(Some((reactor, Item::Prepared(segment))));
            }
            Doing::Appended { reactor, job } | Doing::Published { reactor, job } => {
                return Ok(Some((reactor, Item::Bulk(job, BulkDone::Done))));
            }
            Doing::Synced { reactor, job, name, as_name } => {
                let renamed = self.disk.rename(&name, &as_name);
                let doing = Doing::Published { reactor, job };
                renamed.and_then(|()| self.submit(now, Op::SyncDirectory, doing))
            }
            Doing::Removed { reactor, job } => {
                self.removing.pop_front();
                let next = self.remove_next(now);
                next.map_err(|fault| Final(format!("the disk: {fault:?}")))?;
                return Ok(Some((reactor, Item::Bulk(job, BulkDone::Done))));
            }
            Doing::Read { reactor, job, piece } => {
                return Ok(Some((reactor, Item::Bulk(job, self.read(piece)))));
            }
            Doing::Start => Ok(()),
        };
        next.map(|()| None).map_err(|fault| Final(format!("the disk: {fault:?}")))
    }
}

impl Files {
    fn read(&self, LogPiece { segment, offset, bytes }: LogPiece) -> BulkDone {
        match self.disk.read(&segment.to_string()) {
            Ok(file) => {
                let from =
                    file.len().min(usize::try_from(offset).expect("a simulated file fits into memory"));
                BulkDone::Read(file[from..file.len().min(from + bytes)].to_vec())
            }
            Err(fault) => BulkDone::Failed(format!("{fault:?}")),
        }
    }
}

fn answer(done: Result<(), Fault>) -> BulkDone {
    match done {
        Ok(()) => BulkDone::Done,
        Err(Fault::Full) => BulkDone::Full,
        Err(fault) => BulkDone::Failed(format!("{fault:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogId;
    use crate::types::Duration;

    #[test]
    fn a_piece_of_the_log_takes_the_disk_a_while_and_may_fail() {
        let disk = Disk::new(1 << 20, (Duration::from_ms(1), Duration::from_ms(1)));
        let mut files = Files::new(disk, Rng::new(1));
        let segment = SegmentName { log: LogId(0), sequence: 3 };
        files.disk.create(&segment.to_string()).unwrap();
        let bytes: Vec<u8> = (0..3u8).flat_map(|n| [n; 4096]).collect();
        let write = Op::Write { file: segment.to_string(), offset: 0, bytes: bytes.clone(), durable: true };
        files.disk.submit(Time(0), &mut files.rng, write).unwrap();
        files.disk.complete(Time::NEVER, &mut files.rng).unwrap().1.unwrap();
        let read = |files: &mut Files, offset, bytes| {
            let step = BulkStep::Read(LogPiece { segment, offset, bytes });
            assert_eq!(files.bulk(Time(0), 0, JobId(1), step), None);
            assert_eq!(files.wake_at(), Time(0) + Duration::from_ms(1));
            let (id, done) = files.disk.complete(files.wake_at(), &mut files.rng).unwrap();
            done.unwrap();
            let doing = files.doing.remove(&id).unwrap();
            match files.follow(Time(0), doing) {
                Ok(Some((0, Item::Bulk(JobId(1), done)))) => done,
                _ => panic!("it is an answer"),
            }
        };
        assert_eq!(read(&mut files, 4096, 4096), BulkDone::Read(vec![1; 4096]));
        assert_eq!(read(&mut files, 8192, 1 << 20), BulkDone::Read(vec![2; 4096]));
        assert_eq!(read(&mut files, 1 << 20, 4096), BulkDone::Read(vec![]));
        files.disk.fail_read(0);
        assert!(matches!(read(&mut files, 0, 4096), BulkDone::Failed(_)));
        let missing = LogPiece { segment: SegmentName { sequence: 4, ..segment }, offset: 0, bytes: 4096 };
        assert!(matches!(
            files.bulk(Time(0), 0, JobId(2), BulkStep::Read(missing)),
            Some(BulkDone::Failed(_))
        ));
    }
}
