//! From what logs and checkpoints gave back to the shards of each reactor.
//!
//! [`place`] decides, from all logs of the member, where each shard lives now; [`ShardPlan::load`] builds one
//! shard, on the thread that will own it, so that all are loaded side by side. A shard whose reactor has
//! changed *moves*: its opening, its entries and, behind them, a coverage record are written to its new log
//! under the next home number before anything else. The coverage record says that the stay is whole: of
//! several stays the highest that is whole counts, so a crash anywhere in between changes nothing.

#[cfg(test)]
mod tests;

use super::RecoveredShard;
use crate::checkpoint::{CheckpointName, ControlState, Item, Meta, Reader};
use crate::lease::Attached;
use crate::log::{
    Coverage, LogId, Opening, Record, Recovered, RecoveredEntry, RecoveredResident, Resident, Start,
    cross_examine,
};
use crate::mvcc::{Change, Store};
use crate::raft::{Group, GroupEntry, HardState, Position, Start as GroupStart};
use crate::router::reactor_of;
use crate::shard::Shard;
use crate::takeover::{Meaning, Seal};
use crate::types::{Blob, Epoch, Index, LeaseId, MemberId, Revision, ShardId};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Reads a piece of a checkpoint file: name, offset, length. An empty piece is the end.
pub type ReadPiece<'a> = &'a mut dyn FnMut(&str, u64, usize) -> Result<Vec<u8>, String>;

/// How much of a checkpoint file is read at a time.
const PIECE_BYTES: usize = 4 << 20;

/// What one reactor begins with.
#[derive(Debug)]
pub struct ReactorPlan {
    pub log: Start,
    pub shards: Vec<ShardPlan>,
    /// Earlier stays in this log of shards that live elsewhere now.
    pub stale: Vec<Resident>,
}

/// One shard of it.
#[derive(Debug)]
pub struct ShardPlan {
    shard: ShardId,
    home: u32,
    /// The log that it was found in.
    log: LogId,
    resident: RecoveredResident,
    /// The stay begins now.
    moves_in: bool,
    /// Named by the stay in which it was written: a shard takes its file along.
    checkpoint: Option<CheckpointName>,
}

/// The whole member.
#[derive(Debug)]
pub struct MemberPlan {
    pub reactors: Vec<ReactorPlan>,
    /// Logs without a reactor: their files may go once an epoch has served.
    pub dead_logs: Vec<LogId>,
    /// Checkpoint files that count; others are left over.
    pub checkpoints: Vec<CheckpointName>,
    /// The highest revision that any log names as settled.
    pub settled: Revision,
}

/// Decides where every shard lives, once the logs have been heard about each other. `files` are the checkpoints on disk, `fresh` starts a log that never was.
pub fn place(
    logs: Vec<Recovered>,
    files: &[CheckpointName],
    reactors: u16,
    fresh: &mut dyn FnMut(LogId) -> Start,
) -> Result<MemberPlan, String> {
    cross_examine(&logs).map_err(|damage| damage.to_string())?;
    let settled = logs.iter().map(|log| log.settled).max().unwrap_or_default();
    let mut starts: BTreeMap<LogId, Start> = BTreeMap::new();
    let mut stays: BTreeMap<ShardId, BTreeMap<u32, (LogId, RecoveredResident)>> = BTreeMap::new();
    for log in logs {
        let id = log.start.log();
        for (Resident { shard, home }, resident) in log.residents {
            stays.entry(shard).or_default().insert(home, (id, resident));
        }
        starts.insert(id, log.start);
    }
    if !stays.is_empty() && !stays.contains_key(&ShardId::CONTROL) {
        return Err("the data directory is damaged: its logs hold shards, and not the control shard, without \
             which there is no shard. Put log 0 back, or restore the member from a snapshot or from a copy of \
             the data directory that was made while the server was stopped"
            .into());
    }
    let mut plan: Vec<ReactorPlan> = (0..reactors)
        .map(|reactor| {
            let id = LogId(u32::from(reactor));
            let log = starts.remove(&id).unwrap_or_else(|| fresh(id));
            ReactorPlan { log, shards: vec![], stale: vec![] }
        })
        .collect();
    let mut checkpoints = vec![];
    for (shard, mut stays) in stays {
        let newest = stays.keys().copied().max().expect("a shard has a stay");
        let whole = stays.iter().rev().find(|(home, (_, stay))| **home == 0 || stay.coverage.is_some());
        let Some(home) = whole.map(|(home, _)| *home) else { continue };
        let (log, resident) = stays.remove(&home).expect("just found");
        let reactor = reactor_of(shard, reactors);
        let moves_in = log.0 != u32::from(reactor.0);
        for (stale, (log, _)) in &stays {
            if let Some(plan) = plan.get_mut(log.0 as usize) {
                plan.stale.push(Resident { shard, home: *stale });
            }
        }
        if moves_in && let Some(plan) = plan.get_mut(log.0 as usize) {
            plan.stale.push(Resident { shard, home });
        }
        let number = resident.checkpoint.map(|checkpointed| checkpointed.file);
        let written = |name: &&CheckpointName| name.shard == shard && Some(name.file) == number;
        let checkpoint = files.iter().find(written).copied();
        if let (Some(file), None) = (number, checkpoint) {
            return Err(format!(
                "checkpoint {file} of shard {shard} is missing: the data directory is incomplete"
            ));
        }
        checkpoints.extend(checkpoint);
        let home = if moves_in { newest + 1 } else { home };
        let shard = ShardPlan { shard, home, log, resident, moves_in, checkpoint };
        plan[usize::from(reactor.0)].shards.push(shard);
    }
    Ok(MemberPlan { reactors: plan, dead_logs: starts.into_keys().collect(), checkpoints, settled })
}

/// A shard, loaded, with what only the control shard has.
pub struct Loaded {
    pub shard: RecoveredShard,
    pub control: Option<(Index, ControlState)>,
}

impl ShardPlan {
    pub fn id(&self) -> ShardId {
        self.shard
    }

    /// The revision up to which the state comes from a checkpoint, if there is one.
    pub fn checkpointed(&self) -> Revision {
        self.resident.checkpoint.map_or(Revision::NONE, |checkpoint| checkpoint.revision)
    }

    /// The log's entries after the checkpoint, without raft's own.
    pub fn entries(&self) -> impl Iterator<Item = &RecoveredEntry> {
        self.resident.entries.iter().filter(|entry| entry.kind != 0)
    }

    /// Reads the checkpoint, then the log after it. An error says what cannot be read.
    pub fn load(self, member: MemberId, read: ReadPiece<'_>) -> Result<Loaded, String> {
        let checkpoint_file = self.checkpoint;
        let mut state = State::default();
        if let Some(name) = &checkpoint_file {
            state.read(name, read)?;
        }
        let meta = state.meta.take();
        let (held, seal, fence) = meta.as_deref().map(position_of).unwrap_or_default();
        let mut meaning = Meaning::new(held, seal, fence);
        let (index, term) = self.resident.base();
        let base = Position { index, term };
        for entry in self.entries() {
            meaning
                .read(entry.index, &entry.payload)
                .map_err(|strange| format!("the log of shard {} makes no sense: {strange}", self.shard))?;
        }
        let entries = self.resident.entries.iter().map(|entry| GroupEntry {
            index: entry.index,
            term: entry.term,
            payload: (entry.kind != 0).then(|| entry.payload.clone()),
        });
        let entries: Vec<GroupEntry> = entries.collect();
        let moved_in = if self.moves_in { self.moving_records(base, &entries) } else { vec![] };
        let hard = self.resident.hard;
        let hard_state = HardState { term: hard.term, vote: MemberId(hard.vote), commit: hard.commit };
        let voters = match &meta {
            Some(meta) => meta.voters.iter().copied().map(MemberId).collect(),
            None => self.resident.opening.voters.iter().copied().map(MemberId).collect(),
        };
        let group = Group::new(GroupStart { member, voters, base, hard_state, entries });
        let shard = Shard::new(self.shard, self.home, state.store, group, meaning);
        let control = meta.and_then(|meta| Some((Index(meta.index), meta.control?)));
        let read_from = self.log;
        let shard = RecoveredShard { shard, read_from, attached: state.attached, checkpoint_file, moved_in };
        Ok(Loaded { shard, control })
    }

    /// The records that a new log needs, the one that makes the stay whole last.
    fn moving_records(&self, base: Position, entries: &[GroupEntry]) -> Vec<MovingRecord> {
        let opening = Opening {
            index: base.index,
            term: base.term,
            hard: self.resident.hard,
            ..self.resident.opening.clone()
        };
        let mut records = vec![MovingRecord::Plain(Record::Open(Cow::Owned(opening)))];
        records.extend(self.resident.checkpoint.map(|c| MovingRecord::Plain(Record::Checkpoint(c))));
        records.extend(entries.iter().cloned().map(MovingRecord::Entry));
        let last = entries.last().map_or(base.index, |entry| entry.index);
        let coverage = Coverage { revision: Revision::NONE, index: last };
        records.push(MovingRecord::Plain(Record::Coverage(coverage)));
        records
    }
}

/// A record of a move: entries share their payloads with the group.
#[derive(Debug)]
pub enum MovingRecord {
    Plain(Record<'static>),
    Entry(GroupEntry),
}

fn position_of(meta: &Meta) -> (Revision, Seal, Epoch) {
    let seal = Seal { epoch: meta.seal.into(), prefix: Revision(meta.seal_prefix) };
    (Revision(meta.revision), seal, meta.fence.into())
}

/// What a checkpoint's versions come to.
#[derive(Default)]
struct State {
    store: Store,
    attached: Attached,
    meta: Option<Box<Meta>>,
}

impl State {
    fn read(&mut self, name: &CheckpointName, read: ReadPiece<'_>) -> Result<(), String> {
        let file = name.to_string();
        let damaged = |damage| format!("checkpoint {file} cannot be used: {damage}");
        let mut reader = Reader::new();
        let mut offset = 0;
        loop {
            let piece = read(&file, offset, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            reader.feed(&piece, &mut |item| self.take(item)).map_err(damaged)?;
        }
        reader.finish().map_err(damaged)?;
        if let Some(meta) = &self.meta {
            self.store.restored(Revision(meta.compacted), Revision(meta.revision));
        }
        Ok(())
    }

    fn take(&mut self, item: Item<'_>) {
        match item {
            Item::Meta(meta) => self.meta = Some(meta),
            Item::Version(version) => {
                if version.last && version.value.is_some() && version.lease != LeaseId::NONE {
                    let key = Blob::new(version.key);
                    self.attached.change(&key, LeaseId::NONE, version.lease);
                }
                self.store.restore(version.at, Change { event: version.event(), last: version.last });
            }
        }
    }
}
