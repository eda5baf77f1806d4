//! What the logs and checkpoints of a member say, for a reader: the offline side of a takeover.
//!
//! [`Contents::read`] goes the way of a start up to the prefix and stops before anything is fenced: it loads
//! every shard, joins the logs' live writes to the longest run, and applies that to the stores.
//! So deletes of ranges become the keys they delete, and the history of the stores is the list of all
//! events. What a start would void, because it is behind the run, is left out and counted.
//!
//! A checkpoint keeps all versions since the compaction in effect when it was made, so the list is whole from
//! that compaction on, also where the log before the checkpoint is gone. What only a log says of a revision,
//! its epoch and the leases that ended with it, goes with the log.
//!
//! Of a directory that is damaged, what can be read is: logs up to where they break, shards whose checkpoint is
//! there, revisions up to the first that is not whole. `damage` says why it is not more.

use super::{MemberPlan, ReadPiece, ShardPlan};
use crate::checkpoint::ControlState;
use crate::mvcc::{Budget, HistoryChange, Store};
use crate::raft::Elections;
use crate::record::{ArchivedChange, ArchivedEntry, ConfChange, ControlEntry, Entry};
use crate::shard::Shard;
use crate::takeover::{LiveWrite, longest_run};
use crate::types::{At, Epoch, Event, Index, LeaseId, Revision, ShardId, Sub, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

const SLICE: Budget = Budget { keys: 1024, bytes: 1 << 20 };

/// All of it, in memory.
pub struct Contents {
    /// The prefix that a takeover would recover now.
    pub settled: Revision,
    /// How many revisions above it have a part in some log. None of them was ever acknowledged.
    pub unsettled: usize,
    /// The newest compaction in effect when a checkpoint was made.
    pub compacted: Revision,
    /// From here on every event of every revision is known; below only what compaction has left.
    pub complete_from: Revision,
    /// Up to here some shard's writes come from its checkpoint; 0 where there is no checkpoint.
    pub checkpointed: Revision,
    /// Why there is not more; a start would refuse for it.
    pub damage: Vec<String>,
    /// The control shard's state in its checkpoint.
    pub control: Option<ControlState>,
    /// What the logs say beside writes, the control shard's first, in the order of each log.
    pub entries: Vec<LogEntry>,
    /// How much of a store's history is held at a time.
    pub slice: Budget,
    shards: Vec<Shard>,
    logged: BTreeMap<Revision, Logged>,
}

/// An entry that holds no writes.
#[derive(Debug, PartialEq)]
pub struct LogEntry {
    pub shard: ShardId,
    pub index: Index,
    pub term: Term,
    pub says: Says,
}

#[derive(Debug, PartialEq)]
pub enum Says {
    Fence(Epoch),
    Seal {
        epoch: Epoch,
        prefix: Revision,
    },
    /// Void where its epoch is not that of the last seal before it.
    Control {
        epoch: Epoch,
        /// When it was proposed.
        settled: Revision,
        control: ControlEntry,
        void: bool,
    },
    ConfChange(ConfChange),
}

/// One settled revision.
#[derive(Debug, PartialEq)]
pub struct DumpedRevision {
    pub revision: Revision,
    /// None where no log holds a part of it any more.
    pub epoch: Option<Epoch>,
    /// Compaction may have dropped events of it.
    pub partial: bool,
    /// Leases that ended with it, as far as a log still says so.
    pub leases_ended: Vec<LeaseId>,
    /// In the order of their places inside the revision.
    pub events: Vec<(Sub, ShardId, Event)>,
}

/// What only the log says of a revision.
struct Logged {
    epoch: Epoch,
    leases_ended: Vec<LeaseId>,
}

impl Contents {
    /// Reads what there is. `damage` is what was found so far.
    pub fn read(plan: MemberPlan, mut damage: Vec<String>, read: ReadPiece<'_>) -> Contents {
        let mut base = plan.settled;
        let mut plans: Vec<ShardPlan> =
            plan.reactors.into_iter().flat_map(|reactor| reactor.shards).collect();
        plans.sort_by_key(ShardPlan::id);
        let checkpointed = plans.iter().map(ShardPlan::checkpointed).max().unwrap_or_default();
        let (mut shards, mut entries, mut control) = (vec![], vec![], None);
        let (mut holdings, mut whole) = (vec![], damage.is_empty());
        for plan in plans {
            let (from, id) = (entries.len(), plan.id());
            entries.extend(entries_of(&plan));
            let loaded = plan.load(Elections::ByOwner, read).and_then(|mut loaded| {
                let read = loaded.shard.shard.read_to_end();
                read.map_err(|inconsistent| inconsistent.of_shard(id)).map(|()| loaded)
            });
            match loaded {
                Ok(loaded) => {
                    let shard = loaded.shard.shard;
                    mark_void(&mut entries[from..], &shard);
                    control = control.or(loaded.control);
                    base = base.max(shard.log_view().known_settled());
                    holdings.push(shard.holding(loaded.shard.read_from));
                    shards.push(shard);
                }
                Err(why) => {
                    damage.push(format!("shard {id} is left out: {why}"));
                    whole = false;
                }
            }
        }
        let settled = longest_run(base, &holdings).unwrap_or_else(|hole| {
            damage.push(hole.to_string());
            Revision(hole.revision.0 - 1)
        });
        let (mut beyond, mut logged) = (BTreeSet::new(), BTreeMap::new());
        for shard in &mut shards {
            gather(shard, settled, &mut beyond, &mut logged);
            if let Err(inconsistent) = shard.apply_upto(settled, &mut vec![]) {
                damage.push(format!("the log of shard {} makes no sense: {inconsistent}", shard.id));
                whole = false;
            }
        }
        let compacted = shards.iter().map(|shard| shard.store.compacted()).max().unwrap_or_default();
        let complete_from = if whole { compacted.max(Revision::FRESH.next()) } else { settled.next() };
        Contents {
            settled,
            unsettled: beyond.len(),
            compacted,
            complete_from,
            checkpointed,
            damage,
            control,
            entries,
            slice: SLICE,
            shards,
            logged,
        }
    }

    /// All settled writes, in the order of their revisions.
    pub fn writes(&self) -> DumpedRevisions<'_> {
        let (mut cursors, mut fronts) = (vec![], BTreeMap::new());
        for (n, shard) in self.shards.iter().enumerate() {
            let mut cursor = Cursor::new(&shard.store, self.settled, self.slice);
            fronts.extend(cursor.next().map(|(at, event)| (at, (n, event))));
            cursors.push((shard.id, cursor));
        }
        DumpedRevisions {
            cursors,
            fronts,
            logged: self.logged.iter().peekable(),
            complete_from: self.complete_from,
        }
    }
}

/// What cannot be read is left to the loading, which refuses it.
fn entries_of(plan: &ShardPlan) -> Vec<LogEntry> {
    let entries = plan.entries().filter_map(|entry| {
        let says = match entry.payload.entry().ok()? {
            ArchivedEntry::Batch(_) => return None,
            _ => match entry.payload.to_entry().ok()? {
                Entry::Batch(_) => return None,
                Entry::Fence(epoch) => Says::Fence(epoch.into()),
                Entry::Seal { epoch, prefix } => Says::Seal { epoch: epoch.into(), prefix: Revision(prefix) },
                Entry::Control { epoch, settled, control } => {
                    let settled = Revision(settled);
                    Says::Control { epoch: epoch.into(), settled, control, void: false }
                }
                Entry::ConfChange(change) => Says::ConfChange(change),
            },
        };
        Some(LogEntry { shard: plan.id(), index: entry.index, term: entry.term, says })
    });
    entries.collect()
}

fn mark_void(entries: &mut [LogEntry], shard: &Shard) {
    let live: BTreeSet<Index> = shard.log_view().controls().collect();
    for entry in entries {
        if let Says::Control { void, .. } = &mut entry.says {
            *void = !live.contains(&entry.index);
        }
    }
}

fn leases_ended(write: &LiveWrite) -> Vec<LeaseId> {
    let Ok(ArchivedEntry::Batch(batch)) = write.batch.entry() else { return vec![] };
    let ended = batch.writes[write.place as usize].changes.iter().filter_map(|change| match change {
        ArchivedChange::LeaseEnd { lease } => Some(LeaseId(lease.to_native())),
        _ => None,
    });
    ended.collect()
}

/// What the log of a shard says of revisions, up to the settled one and beyond.
fn gather(
    shard: &Shard,
    settled: Revision,
    beyond: &mut BTreeSet<Revision>,
    logged: &mut BTreeMap<Revision, Logged>,
) {
    for write in shard.log_view().live() {
        if write.revision > settled {
            beyond.insert(write.revision);
        } else {
            let known = logged.entry(write.revision);
            let known = known.or_insert(Logged { epoch: write.epoch, leases_ended: vec![] });
            known.leases_ended.extend(leases_ended(write));
        }
    }
}

/// One store's settled events, a slice at a time.
struct Cursor<'a> {
    store: &'a Store,
    upto: Revision,
    budget: Budget,
    slice: std::vec::IntoIter<(At, HistoryChange)>,
    after: At,
    done: bool,
}

impl<'a> Cursor<'a> {
    fn new(store: &'a Store, upto: Revision, budget: Budget) -> Cursor<'a> {
        Cursor { store, upto, budget, slice: vec![].into_iter(), after: At::default(), done: false }
    }

    fn next(&mut self) -> Option<(At, Event)> {
        loop {
            if let Some((at, change)) = self.slice.next() {
                return Some((at, change.event));
            }
            if self.done {
                return None;
            }
            let history = self.store.history(self.after, self.upto, self.budget);
            (self.after, self.done) = (history.resume, history.done);
            self.slice = history.changes.into_iter();
        }
    }
}

/// All shards' events, merged by their places, one revision at a time.
pub struct DumpedRevisions<'a> {
    cursors: Vec<(ShardId, Cursor<'a>)>,
    /// Each shard's next event, and which shard it is of. A place is in one shard only.
    fronts: BTreeMap<At, (usize, Event)>,
    logged: Peekable<std::collections::btree_map::Iter<'a, Revision, Logged>>,
    complete_from: Revision,
}

impl Iterator for DumpedRevisions<'_> {
    type Item = DumpedRevision;

    fn next(&mut self) -> Option<DumpedRevision> {
        let front = self.fronts.first_key_value().map(|(at, _)| at.main);
        let logged = self.logged.peek().map(|(revision, _)| **revision);
        let revision = front.into_iter().chain(logged).min()?;
        let logged = self.logged.next_if(|(logged, _)| **logged == revision).map(|(_, logged)| logged);
        let mut events = vec![];
        while let Some(front) = self.fronts.first_entry().filter(|front| front.key().main == revision) {
            let (at, (n, event)) = front.remove_entry();
            let (shard, cursor) = &mut self.cursors[n];
            events.push((at.sub, *shard, event));
            if let Some((at, event)) = cursor.next() {
                self.fronts.insert(at, (n, event));
            }
        }
        Some(DumpedRevision {
            revision,
            epoch: logged.map(|logged| logged.epoch),
            partial: revision < self.complete_from,
            leases_ended: logged.map(|logged| logged.leases_ended.clone()).unwrap_or_default(),
            events,
        })
    }
}
