//! From what logs and checkpoints gave back to the shards of each reactor.
//!
//! [`place`] decides, from all logs of the member, where each shard lives now; [`ShardPlan::load`] builds one
//! shard, on the thread that will own it, so that all are loaded side by side. A shard whose reactor has
//! changed *moves*: its opening, its entries and, behind them, a marker are written to its new log under the
//! next home number before anything else. The marker says that the stay is whole: of several stays the highest
//! that is whole counts, so a crash anywhere in between changes nothing.
//! Checkpoint files stay as they are and are named by the stay in which they were written.

mod alone;
mod arriving;
mod chain;
pub mod dump;

pub use arriving::{ArrivedState, Arriving};
pub use chain::ReadPiece;

use crate::checkpoint::{CheckpointName, ControlState, LinkRecord, Meta};
use crate::lease::Attached;
use crate::log::{
    LogId, LogStart, Opening, Record, Recovered, RecoveredEntry, RecoveredResident, Resident, cross_examine,
    keep_words,
};
use crate::raft::{Content, Elections, Group, GroupEntry, GroupStart, HardState, Position};
use crate::record::{ArchivedEntry, FEATURE_LEVEL, Payload};
use crate::router::reactor_of;
use crate::shard::Shard;
use crate::stdx::VersionMismatch;
use crate::takeover::{Decoded, InconsistentEntry, LogView, Ruling, Seal};
use crate::types::{Index, Peers, Revision, ShardId};
use chain::{Chain, Restored};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What to do about a directory that is not whole.
const RESTORE: &str = "restore the data directory from a copy that was made while the server was stopped; \
                       braid dump-log prints what can still be read";

/// What one reactor begins with.
#[derive(Debug)]
pub struct ReactorPlan {
    pub log: LogStart,
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
    chain: Option<Chain>,
    /// The member is to go on alone, and so many entries at the end make it so, which no log holds yet.
    new_entries: Option<usize>,
}

/// The whole member.
#[derive(Debug)]
pub struct MemberPlan {
    pub reactors: Vec<ReactorPlan>,
    /// Logs without a reactor: their files may go once an epoch has served.
    pub dead_logs: Vec<LogId>,
    /// Checkpoint files that count; others are left over.
    pub checkpoints: Vec<CheckpointName>,
    /// The highest revision that any log with a shard names as settled. What was named in one that is not used any
    /// more may be lost for ever: see [`MemberPlan::stand_alone`].
    pub settled: Revision,
    /// Where the last that is said of each shard is how far it is covered: what may be shown though nobody leads.
    pub rested: Option<Revision>,
}

/// Decides where every shard lives, once the logs have been heard about each other. `files` are the checkpoints
/// on disk, of which `read` reads; `fresh` starts a log that never was.
pub fn place(
    logs: Vec<Recovered>,
    files: &[CheckpointName],
    reactors: u16,
    fresh: &mut dyn FnMut(LogId) -> LogStart,
    read: ReadPiece<'_>,
) -> Result<MemberPlan, String> {
    let (plan, mut damage) = survey(logs, files, reactors, fresh, read);
    if damage.is_empty() { Ok(plan) } else { Err(damage.swap_remove(0)) }
}

/// As [`place`], for who only looks: with what is damaged, and without the shards that it takes away.
pub fn survey(
    mut logs: Vec<Recovered>,
    files: &[CheckpointName],
    reactors: u16,
    fresh: &mut dyn FnMut(LogId) -> LogStart,
    read: ReadPiece<'_>,
) -> (MemberPlan, Vec<String>) {
    let mut damage: Vec<String> = cross_examine(&logs).err().iter().map(ToString::to_string).collect();
    keep_words(&mut logs, reactors);
    let named: BTreeMap<LogId, Revision> = logs.iter().map(|log| (log.start.log(), log.settled)).collect();
    let mut settled = Revision::NONE;
    let mut starts: BTreeMap<LogId, LogStart> = BTreeMap::new();
    let mut stays: BTreeMap<ShardId, BTreeMap<u32, (LogId, RecoveredResident)>> = BTreeMap::new();
    for log in logs {
        let id = log.start.log();
        for (Resident { shard, home }, resident) in log.residents {
            stays.entry(shard).or_default().insert(home, (id, resident));
        }
        starts.insert(id, log.start);
    }
    if !stays.is_empty() && !stays.contains_key(&ShardId::CONTROL) {
        damage.push(format!(
            "the data directory is damaged: its logs hold shards, and not the control shard, without which \
             there is no shard. Put log 0 back, or {RESTORE}"
        ));
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
        let whole = stays.iter().rev().find(|(home, (_, stay))| **home == 0 || stay.moved_in);
        let Some(home) = whole.map(|(home, _)| *home) else { continue };
        let (log, resident) = stays.remove(&home).expect("just found");
        settled = settled.max(named[&log]);
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
        let found = resident.checkpoint.map(|newest| Chain::find(shard, &newest, files, read));
        let chain = match found.transpose() {
            Ok(chain) => chain,
            Err(why) => {
                damage.push(why);
                continue;
            }
        };
        checkpoints.extend(chain.iter().flat_map(Chain::names));
        let home = if moves_in { newest + 1 } else { home };
        let shard = ShardPlan { shard, home, log, resident, moves_in, chain, new_entries: None };
        plan[usize::from(reactor.0)].shards.push(shard);
    }
    plan.iter_mut().for_each(|plan| plan.log.begin_at(settled));
    let rested = plan.iter().flat_map(|reactor| &reactor.shards).map(ShardPlan::rested);
    let rested =
        rested.reduce(|least, next| Some(least?.min(next?))).flatten().filter(|least| *least >= settled);
    let dead_logs = starts.into_keys().collect();
    (MemberPlan { reactors: plan, dead_logs, checkpoints, settled, rested }, damage)
}

/// A shard, loaded, with what only the control shard has.
pub struct Loaded {
    pub shard: RecoveredShard,
    pub control: Option<ControlState>,
}

impl ShardPlan {
    pub fn id(&self) -> ShardId {
        self.shard
    }

    /// The revision up to which the state comes from a checkpoint, if there is one.
    pub fn checkpointed(&self) -> Revision {
        self.resident.checkpoint.map_or(Revision::NONE, |checkpoint| checkpoint.revision)
    }

    /// Up to where all is there, and known to be committed, where no more was known.
    fn rested(&self) -> Option<Revision> {
        self.resident.coverage.map(|coverage| coverage.revision)
    }

    /// The log's entries after the checkpoint, without raft's own.
    pub fn entries(&self) -> impl Iterator<Item = &RecoveredEntry> {
        self.resident.entries.iter().filter(|entry| entry.kind != Content::Empty.kind())
    }

    /// Reads the checkpoint, then the log after it. An error says what cannot be read.
    pub fn load(self, elections: Elections, read: ReadPiece<'_>) -> Result<Loaded, String> {
        let state = match &self.chain {
            Some(chain) => chain.restore(read)?,
            None => Restored::default(),
        };
        let meta = self.chain.as_ref().map(Chain::meta);
        let control = meta.and_then(|meta| meta.control.clone());
        self.check_level(control.as_ref().map(|control| control.feature_level))?;
        let (base, peers, mut log_view) = (self.base(), self.peers(), self.log_view());
        let entries = self.read_entries(&mut log_view)?;
        let moved_in = match self.moves_in {
            true => self.moving_records(base, &peers, &entries),
            false => self.alone_records(&entries),
        };
        let hard = self.resident.hard;
        // What is covered is committed, whatever came behind it.
        let covered = self.resident.coverage.map_or(Index(0), |coverage| coverage.index);
        let hard_state = HardState { term: hard.term, vote: hard.vote, commit: hard.commit.max(covered) };
        let own = self.resident.opening.own;
        let group = Group::new(GroupStart { own, peers, base, hard_state, entries, elections });
        let mut shard = Shard::new(self.shard, self.home, state.store, group, log_view);
        // What was known to be committed counts now, the rest once this member is elected again.
        shard.committed(&mut vec![]).map_err(|inconsistent| inconsistent.of_shard(self.shard))?;
        if self.new_entries.is_some() {
            shard.forget_named();
        }
        let (read_from, attached, chain) = (self.log, state.attached, state.files);
        let shard = RecoveredShard { shard, read_from, attached, chain, moved_in };
        Ok(Loaded { shard, control })
    }

    /// The place before the first entry.
    fn base(&self) -> Position {
        let (index, term) = self.resident.base();
        Position { index, term }
    }

    /// The peers as of there.
    fn peers(&self) -> Peers {
        match self.chain.as_ref().map(Chain::meta) {
            Some(meta) => meta.peers().expect("a checkpoint whose peers have no ids is not read"),
            None => self.resident.opening.peers.clone(),
        }
    }

    /// What is known of the log there.
    fn log_view(&self) -> LogView {
        let (held, ruling) = self.chain.as_ref().map(Chain::meta).map(position_of).unwrap_or_default();
        LogView::new(held, ruling, self.base())
    }

    /// All entries for the group, each of which stands in the meaning of its log as well.
    fn read_entries(&self, log_view: &mut LogView) -> Result<Vec<GroupEntry>, String> {
        let mut entries = Vec::with_capacity(self.resident.entries.len());
        for RecoveredEntry { index, term, kind, payload } in &self.resident.entries {
            let inconsistent = |why| InconsistentEntry { index: *index, why }.of_shard(self.shard);
            let content = Content::of(*kind, payload);
            let content = content.ok_or_else(|| inconsistent("it is not what its kind says"))?;
            if *term < log_view.last().term {
                return Err(inconsistent("its term is older than that of the one before"));
            }
            self.check_level(content.data().and_then(|data| self.level_of(data)))?;
            let entry = GroupEntry { index: *index, term: *term, content };
            log_view.stand(entry.at(), Decoded::of(*index, entry.content.data()));
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The feature level that an entry of the control shard's log sets, if it sets one.
    fn level_of(&self, payload: &Payload) -> Option<u32> {
        if self.shard != ShardId::CONTROL {
            return None;
        }
        match payload.entry() {
            Ok(ArchivedEntry::Control { control, .. }) => control.feature_level(),
            _ => None,
        }
    }

    /// Refuses the data of a cluster all of whose members have known more than this program does.
    fn check_level(&self, level: Option<u32>) -> Result<(), String> {
        let (found, known) = (u64::from(level.unwrap_or(0)), u64::from(FEATURE_LEVEL));
        match found > known {
            true => {
                let mismatch = VersionMismatch { what: "feature level", found, known };
                Err(format!("shard {} {mismatch}", self.shard))
            }
            false => Ok(()),
        }
    }

    /// The records that a new log needs, the one that makes the stay whole last.
    fn moving_records(&self, base: Position, peers: &Peers, entries: &[GroupEntry]) -> Vec<MovingRecord> {
        let opening = Opening {
            index: base.index,
            term: base.term,
            hard: self.resident.hard,
            own: self.resident.opening.own,
            peers: peers.clone(),
        };
        let mut records = vec![MovingRecord::Plain(Record::Open(Cow::Owned(opening)))];
        records.extend(self.resident.checkpoint.map(|c| MovingRecord::Plain(Record::Checkpoint(c))));
        records.extend(entries.iter().cloned().map(MovingRecord::Entry));
        records.push(MovingRecord::Plain(Record::MovedIn));
        records
    }
}

/// A shard as checkpoint and log gave it back.
pub struct RecoveredShard {
    pub shard: Shard,
    /// The log that it was read from.
    pub read_from: LogId,
    pub attached: Attached,
    /// The files of its checkpoint, the base first.
    pub chain: Vec<LinkRecord>,
    /// Records that this reactor's log needs before anything else: all of a shard that has a new home, and of one that
    /// stays at home what makes the member the only one.
    pub moved_in: Vec<MovingRecord>,
}

/// A record of a move, or of going on alone: entries share their payloads with the group.
#[derive(Debug)]
pub enum MovingRecord {
    Plain(Record<'static>),
    Entry(GroupEntry),
}

fn position_of(meta: &Meta) -> (Revision, Ruling) {
    let seal = Seal { epoch: meta.seal.into(), prefix: Revision(meta.seal_prefix) };
    (Revision(meta.revision), Ruling { fence: meta.fence.into(), seal })
}
