//! The owner's side of a reactor: its shards, and all that is evaluated, read, reserved and published there.
//!
//! It sees no client. What is asked of it comes as mail from a call's reactor, this one or another, and what it
//! has to say leaves as mail for that call, behind the gate where it depends on what is not settled.

mod following;
mod history;
mod hubs;
mod leases;
mod local;
mod reservations;
mod slices;
mod source;
mod writes;

pub use following::Settled;
pub use local::LocalShard;
pub use slices::Slice;

use super::turn::Turn;
use super::waiters::Waiters;
use crate::io::{CallId, LeaderMail, MemberMail, ReactorCounters, ShardFigures, ShardMail};
use crate::limits::{EMPTY_SHARD_BYTES, LEASE_BYTES};
use crate::mvcc::Sizes;
use crate::raft::{Message, Position, Refused, Writes};
use crate::record::ControlEntry;
use crate::shard::{Committed, Coverage, Shard};
use crate::takeover::{InconsistentEntry, NextEffect};
use crate::txn::LeaseMove;
use crate::types::{Index, LeaseId, ReactorId, Revision, ShardId, Time};
use slices::Slices;
use std::collections::{BTreeMap, BTreeSet};
use writes::Evaluation;

#[derive(Default)]
pub(super) struct Shards {
    of: BTreeMap<ShardId, LocalShard>,
    /// Where something has come to be evaluated.
    fresh: Vec<ShardId>,
    slices: Slices,
    /// Writes that wait for a lease's end.
    lease_waiting: Waiters<LeaseId, Evaluation>,
    /// Revokes that have asked for keys and wait for transactions under way.
    revokes_asked: Vec<(CallId, LeaseId)>,
    /// The reserved shard whose step a slice was taken of last.
    stepped: ShardId,
    /// So much waits for the disk that evaluations wait too.
    pub log_is_behind: bool,
    compacting: Compacting,
    /// Whose groups were given messages in this turn.
    touched: BTreeSet<ShardId>,
    /// What a leader has said of shards that are made here once the control state is known: it says it once.
    unmade: BTreeMap<ShardId, Coverage>,
}

/// The dropping of history.
#[derive(Default)]
struct Compacting {
    /// A compaction took effect then, and its history is being dropped.
    since: Option<Time>,
    /// When the last one was done; 0 for none since the start.
    done_at: Time,
    /// The compaction that has taken hold of the shards here: the one in effect may wait until it is shown.
    upto: Revision,
    /// Versions dropped since the leader was last told.
    dropped: u64,
}

impl Shards {
    pub fn take_in(&mut self, mut local: LocalShard) {
        if let Some(coverage) = self.unmade.remove(&local.shard.id) {
            local.coverage = coverage;
        }
        let before = self.of.insert(local.shard.id, local);
        assert!(before.is_none(), "a shard lives once on its reactor");
    }

    pub fn has(&self, shard: ShardId) -> bool {
        self.of.contains_key(&shard)
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn get(&self, shard: ShardId) -> Option<&LocalShard> {
        self.of.get(&shard)
    }

    pub fn get_mut(&mut self, shard: ShardId) -> Option<&mut LocalShard> {
        self.of.get_mut(&shard)
    }

    pub fn all(&self) -> impl Iterator<Item = &LocalShard> {
        self.of.values()
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut LocalShard> {
        self.of.values_mut()
    }

    pub fn shard_mut(&mut self, shard: ShardId) -> &mut Shard {
        &mut self.of.get_mut(&shard).expect("the shard is this reactor's").shard
    }

    fn local_mut(&mut self, shard: ShardId) -> &mut LocalShard {
        self.of.get_mut(&shard).expect("the router knows whose shard it is")
    }

    #[cfg(test)]
    pub fn slices(&self) -> &Slices {
        &self.slices
    }

    #[cfg(test)]
    pub fn waits_for_leases(&self) -> usize {
        self.lease_waiting.len()
    }

    pub fn on_mail(&mut self, turn: &mut Turn, from: ReactorId, mail: ShardMail) {
        match mail {
            ShardMail::Evaluate { call, shard, request, until } => {
                self.take_evaluation(turn, Evaluation { call, shard, request, until });
            }
            ShardMail::Range { call, shard, cursor, counting } => {
                self.slice(turn, Slice::Range { call, shard, cursor, counting });
            }
            ShardMail::RangeUnwanted { call, shard } => self.on_range_unwanted(turn, call, shard),
            ShardMail::Reserve { call, shard, txn, revokes } => {
                self.on_reserve(turn, call, shard, txn, revokes)
            }
            ShardMail::Gather { call, shard, branches, current } => {
                self.on_gather(turn, call, shard, branches, current)
            }
            ShardMail::Part { call, shard, write, sub_ranges } => {
                self.on_part(turn, call, shard, write, sub_ranges)
            }
            ShardMail::Release { call, shard } => self.on_release(turn, call, shard),
            ShardMail::Revoking { call, lease } => self.on_revoking(turn, call, lease),
            ShardMail::LeaseEnds { lease, part } => self.end_lease_with(lease, part),
            ShardMail::LeaseKeys { call, lease } => self.on_lease_keys(turn, call, lease),
            ShardMail::History { call, shard, after, upto } => {
                self.slice(turn, Slice::History { call, shard, after, upto });
            }
            ShardMail::HistoryUnwanted { call, shard } => self.on_history_unwanted(call, shard),
            ShardMail::Watch { action } => self.on_watch_action(action),
            ShardMail::WatermarkWanted { shard } => self.on_watermark_wanted(turn, from, shard),
        }
    }

    /// What is under way at the shards goes a bounded piece on.
    pub fn take_turn(&mut self, turn: &mut Turn) {
        let waiting = self.of.iter().filter(|(_, local)| !local.waiting.is_empty());
        let ids: Vec<ShardId> = waiting.map(|(id, _)| *id).collect();
        for id in ids {
            self.run_waiting(turn, id);
        }
        self.take_steps(turn);
    }

    pub fn work_in_background(&mut self, turn: &mut Turn) {
        self.compact_in_slices(turn);
        self.work_at_hubs(turn);
        self.send_hub_messages(turn);
        self.tell_sizes(turn);
    }

    /// Whether the next turn has work that no input will bring.
    pub fn has_more_to_do(&self, is_alone: bool) -> bool {
        !self.slices.is_empty()
            || !self.fresh.is_empty()
            || self.has_steps()
            || self.of.values().any(|local| local.goes_on() || !is_alone && local.shard.group().has_ready())
    }

    /// Whether an evaluation waits for room in the ring or in the log, or for a reservation's end.
    pub fn has_waiting(&self) -> bool {
        self.of.values().any(|local| !local.waiting.is_empty())
    }

    /// Makes the turn's effects an entry per shard; false where raft refuses one.
    pub fn propose_turn(&mut self, turn: &Turn) -> bool {
        assert!(turn.epoch_state.may_write(), "writes are proposed only while the epoch serves");
        let (epoch, settled, bytes) = (turn.epoch(), *turn.settled, turn.settings.entry_bytes_max);
        let refused = self.of.values_mut().filter_map(|local| {
            local.shard.propose_turn(epoch, settled, bytes).err() // of all: one is as good as lost with another
        });
        refused.count() == 0
    }

    /// What the groups want written.
    pub fn take_readies(&mut self, mut persist: impl FnMut(ShardId, u32, &Writes)) {
        for local in self.of.values_mut() {
            if let Some(writes) = local.shard.ready() {
                assert!(local.shard.effects_bytes() == 0, "a Ready is taken behind all of the turn's writes");
                persist(local.shard.id, local.shard.home, &writes);
            }
        }
    }

    /// A message was stepped: what it commits is followed when the log has what came with it.
    pub fn touch(&mut self, shard: ShardId) {
        self.touched.insert(shard);
    }

    pub fn touch_all(&mut self) {
        self.touched.extend(self.of.keys());
    }

    pub fn take_touched(&mut self) -> BTreeSet<ShardId> {
        std::mem::take(&mut self.touched)
    }

    /// What the groups have to say to their peers.
    pub fn take_messages(&mut self) -> Vec<(ShardId, Message)> {
        let mut taken = vec![];
        for local in self.of.values_mut() {
            let id = local.shard.id;
            taken.extend(local.shard.group_mut().take_messages().into_iter().map(|message| (id, message)));
        }
        taken
    }

    /// Up to where the groups are committed.
    pub fn committed(&self) -> Vec<(ShardId, Position)> {
        let committed = self.of.values().map(|local| {
            let group = local.shard.group();
            let index = group.committed();
            let term = group.term_of(index).expect("what is committed last is kept or the base");
            (local.shard.id, Position { index, term })
        });
        committed.collect()
    }

    /// A Ready is durable.
    pub fn persisted(&mut self, shard: ShardId, number: u64) {
        self.shard_mut(shard).group_mut().persisted(number);
    }

    /// Follows what a group has committed: revisions are marked, other news go to whoever waits for them.
    pub fn follow_commits(
        &mut self,
        turn: &Turn,
        shard: ShardId,
    ) -> Result<Vec<Committed>, InconsistentEntry> {
        let mut news = vec![];
        self.shard_mut(shard).committed(&mut news)?;
        let revisions = news.iter().filter_map(|news| match news {
            Committed::Revision(revision) => Some(*revision),
            _ => None,
        });
        let (marked, serves) = (revisions.clone().next(), turn.epoch_state.may_write());
        assert!(marked.is_none() || serves, "revisions are marked in the epoch that took them: {marked:?}");
        turn.sequencer.mark_all(turn.allotment.generation(), revisions);
        news.retain(|news| !matches!(news, Committed::Revision(_)));
        Ok(news)
    }

    /// Everything up to here stands for ever.
    pub fn settle(&mut self, settled: Revision) {
        for local in self.of.values_mut() {
            local.shard.settle(settled);
        }
    }

    /// The next thing of the control shard's log that takes effect, where it stands at `upto` or before.
    pub fn next_due(&mut self, settled: Revision, upto: Index) -> Option<NextEffect> {
        self.of.get_mut(&ShardId::CONTROL)?.shard.next_due(settled, upto)
    }

    /// All of the control shard's log that takes effect once so much is settled, in its order.
    pub fn due(&self, settled: Revision) -> Vec<NextEffect> {
        self.of.get(&ShardId::CONTROL).map_or_else(Vec::new, |control| control.shard.log_view().due(settled))
    }

    /// Of the control shard's log everything up to here has taken effect, where it holds nothing else.
    pub fn hold_control(&mut self, settled: Revision) {
        if let Some(control) = self.of.get_mut(&ShardId::CONTROL) {
            control.shard.hold(settled);
        }
    }

    /// The revision whose settling lets the next thing of the control shard's log take effect.
    pub fn due_revision(&self) -> Option<Revision> {
        let control = self.of.get(&ShardId::CONTROL)?;
        control.shard.log_view().due_revision()
    }

    /// A control entry goes into its log, behind the turn's effects, among which a revoke's part may stand: the log
    /// keeps the order of decisions.
    pub fn propose_control(&mut self, turn: &Turn, control: ControlEntry) -> Result<Index, Refused> {
        assert!(turn.epoch_state.may_write(), "control entries are proposed only while the epoch serves");
        let (epoch, bytes) = (turn.epoch(), turn.settings.entry_bytes_max);
        let settled = turn.settled_truth();
        let shard = self.shard_mut(ShardId::CONTROL);
        shard.propose_turn(epoch, settled, bytes)?;
        shard.propose_control(epoch, settled, control)
    }

    /// After the seal: applies what the prefix holds and the store does not.
    pub fn apply_prefix(&mut self, shard: ShardId) -> Result<(), InconsistentEntry> {
        let mut moves = vec![];
        let local = self.local_mut(shard);
        local.exchange();
        local.shard.apply_prefix(&mut moves)?;
        local.follow_leases(&mut moves);
        Ok(())
    }

    /// Takes back what of the epoch is not settled, and forgets what only it wanted.
    pub fn end_epoch(&mut self, turn: &mut Turn) {
        assert!(!turn.epoch_state.may_write(), "an epoch's writes are taken back when it is over");
        let settled = turn.settled_truth();
        let mut moves: Vec<LeaseMove> = vec![];
        for local in self.of.values_mut() {
            let store = &local.shard.store;
            let undone = store.newest_revision().main > settled.max(store.settled());
            turn.counters.paths.epoch_undone += u64::from(undone);
            match local.arrived {
                // A store that another is to take the place of holds what is settled, though not all is shown.
                Some(_) => local.shard.forget_epoch(),
                None => {
                    local.shard.undo(settled, &mut moves);
                    local.follow_leases(&mut moves);
                }
            }
            local.end_epoch();
        }
        self.fresh.clear();
        self.revokes_asked.clear();
        self.lease_waiting.clear();
    }

    // Compaction.

    /// The compaction in effect takes hold; history goes in later turns' slices.
    pub fn compact(&mut self, turn: &mut Turn) {
        let compacted = turn.control.compacted();
        assert!(compacted <= *turn.settled, "only settled history is compacted");
        let mut is_news = std::mem::replace(&mut self.compacting.upto, compacted) != compacted;
        for local in self.of.values_mut().filter(|local| local.shard.id != ShardId::CONTROL) {
            if local.shard.store.compacted() < compacted {
                local.shard.store.compact(compacted);
                (local.compacting, is_news) = (true, true);
                self.compacting.since.get_or_insert(turn.now);
            }
        }
        for local in self.of.values_mut() {
            local.hub.compact(compacted);
        }
        if is_news {
            self.report_compacted(turn);
        }
    }

    fn compact_in_slices(&mut self, turn: &mut Turn) {
        let (mut done, slice_keys) = (false, turn.settings.bounds.compact_slice_keys);
        for local in self.of.values_mut().filter(|local| local.compacting) {
            let before = local.shard.store.sizes().versions;
            local.compacting = !local.shard.store.compact_slice(slice_keys);
            turn.counters.paths.compacted_in_slices += u64::from(local.compacting);
            let dropped = before - local.shard.store.sizes().versions;
            turn.counters.versions_compacted += dropped;
            self.compacting.dropped += dropped;
            done |= !local.compacting;
        }
        if done && self.is_swept() {
            self.compacting.done_at = turn.now;
            if let Some(since) = self.compacting.since.take() {
                turn.counters.times.compactions.observe(turn.now.since(since).0);
            }
            self.report_compacted(turn);
        }
    }

    fn is_swept(&self) -> bool {
        self.of.values().all(|local| local.shard.store.is_swept())
    }

    /// Says up to where this reactor has dropped history: a pin may hold some of it longer than the compaction's
    /// slices take.
    fn report_compacted(&mut self, turn: &mut Turn) {
        if self.is_swept() {
            let revision = self.compacting.upto;
            let (dropped, sizes) = (std::mem::take(&mut self.compacting.dropped), self.sizes(turn));
            turn.send(ReactorId(0), LeaderMail::Compacted { revision, dropped, sizes });
        }
    }

    pub fn compacted_at(&self) -> Time {
        self.compacting.done_at
    }

    // Figures.

    pub fn sizes(&self, turn: &Turn) -> Sizes {
        let mut sizes = Sizes::default();
        for local in self.of.values() {
            sizes.add(local.shard.store.sizes());
            sizes.bytes_live += EMPTY_SHARD_BYTES;
            sizes.bytes_total += EMPTY_SHARD_BYTES;
        }
        // Every reactor knows the leases; one counts them.
        if self.has(ShardId::CONTROL) {
            let leases = turn.control.leases.len() as u64 * LEASE_BYTES;
            sizes.bytes_live += leases;
            sizes.bytes_total += leases;
        }
        assert!(sizes.bytes_live <= sizes.bytes_total, "what is live is part of all");
        sizes
    }

    /// Tells the others how much this reactor's shards hold, where it has changed by a step.
    fn tell_sizes(&mut self, turn: &mut Turn) {
        let sizes = self.sizes(turn);
        turn.sizes.set(turn.id, sizes);
        if turn.sizes.is_news(sizes, turn.settings.bounds.sizes_step_bytes) {
            turn.send_to_all(|| MemberMail::Sizes { sizes });
        }
    }

    /// The figures of each shard, and what the log keeps for it.
    pub fn figures(&self, log_bytes: impl Fn(ShardId, u32) -> u64) -> Vec<ShardFigures> {
        let figures = self.of.values().map(|LocalShard { shard, .. }| ShardFigures {
            shard: shard.id,
            sizes: shard.store.sizes(),
            committed: shard.group().committed(),
            applied: shard.group().applied(),
            log_bytes: log_bytes(shard.id, shard.home),
        });
        figures.collect()
    }

    pub fn count(&self, counters: &mut ReactorCounters) {
        counters.ranges_under_way = self.slices.len() as u64;
        for local in self.of.values() {
            local.count(&mut counters.paths);
        }
    }
}
