//! Checkpoints: each shard's state goes to files, slice by slice, so that the log before it may go.
//!
//! A checkpoint is a delta on the last one, as long as the deltas of the chain weigh less than its base; then it
//! is a new base. So what is written follows what has changed, and at most about as much again is written for
//! bases; and what is on disk, and read at a start, is at most about twice the state. A base for which a full
//! disk has no room is put off for a delta, so that the log may go all the same.

use super::Reactor;
use super::owned::Owned;
use crate::checkpoint::{CheckpointName, LinkRecord, Meta, Writer, Written};
use crate::io::{BulkDone, BulkStep, JobId, Level, Output};
use crate::limits::{CHECKPOINT_BLOCK_BYTES_MAX, EMPTY_SHARD_BYTES};
use crate::log::{Buffer, Checkpointed, Record};
use crate::mvcc::{Budget, PinId};
use crate::raft::Position;
use crate::takeover::Ruling;
use crate::types::{At, Duration, Revision, ShardId, Sub, Time};

/// A full disk stays full for a while.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);
/// It takes a moment until the disk has what it was given.
const CHECKPOINT_RETRY_WITH_ROOM: Duration = Duration::from_ms(200);

/// How many times as long as otherwise a chain may be where the disk has no room for a base.
const CHAIN_STRETCH: usize = 2;

/// Whether a checkpoint is to hold the whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// Somebody waits for what the files before it take.
    Asked,
    /// Where the chain has grown so far.
    WhereDue,
}

/// A checkpoint being written.
pub(super) struct Checkpointing {
    job: JobId,
    writer: Option<Writer>,
    pin: PinId,
    after: At,
    revision: Revision,
    position: Position,
    name: CheckpointName,
    whole: Whole,
    /// The files that it goes on from; none: it is a base.
    chain: Vec<LinkRecord>,
    written: Written,
    /// Blocks that the meta already filled.
    blocks: Vec<Buffer>,
    publishing: bool,
    /// Its next blocks are being filled, slice by slice; else the bulk lane has them.
    filling: bool,
    begun: Time,
}

impl Owned {
    /// Whether the next blocks of a checkpoint are being filled.
    pub(super) fn fills_checkpoint(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.filling)
    }

    /// Since when a checkpoint is being written.
    pub(super) fn checkpoint_begun(&self) -> Option<Time> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.begun)
    }

    /// The files that the next checkpoint goes on from: none where it is to be a base.
    fn chain_to_go_on_from(&self, files_max: usize) -> Vec<LinkRecord> {
        let Some((base, deltas)) = self.chain.split_first() else { return vec![] };
        let deltas: u64 = deltas.iter().map(|delta| delta.bytes).sum();
        let goes_on = match self.base_has_no_room {
            true => self.chain.len() < CHAIN_STRETCH * files_max,
            false => deltas < base.bytes && self.chain.len() < files_max,
        };
        // Without keys all of a shard's state is in the meta.
        if goes_on && self.shard.id != ShardId::CONTROL { self.chain.clone() } else { vec![] }
    }
}

impl Reactor {
    pub(super) fn begin_checkpoint(&mut self, id: ShardId, whole: Whole) {
        let revision = self.settled;
        let group = self.shards[&id].shard.group();
        if group.applied() < group.committed() {
            return; // The state may hold entries behind the position that raft would let it name.
        }
        let Some(position) = self.shards[&id].shard.checkpoint_position() else { return };
        let job = self.next_job();
        self.storage.last_file += 1;
        let chain = match whole {
            Whole::Asked => vec![],
            Whole::WhereDue => {
                self.shards[&id].chain_to_go_on_from(self.settings.bounds.checkpoint_chain_files_max)
            }
        };
        let meta = self.checkpoint_meta(id, revision, position, chain.clone());
        let name = CheckpointName { shard: id, home: meta.home, file: meta.file };
        let mut blocks = vec![];
        let writer = Some(Writer::new(&meta, &mut blocks));
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        let buries = !chain.is_empty() && owned.shard.store.has_graves();
        self.counters.paths.checkpoint_with_graves += u64::from(buries);
        let pin = owned.shard.store.pin(revision);
        let upto = |link: &LinkRecord| At { main: Revision(link.revision), sub: Sub(u32::MAX) };
        owned.checkpoint = Some(Checkpointing {
            job,
            writer,
            pin,
            after: chain.last().map(upto).unwrap_or_default(),
            revision,
            position,
            name,
            whole,
            chain,
            written: Written::default(),
            blocks,
            publishing: false,
            filling: false,
            begun: self.now,
        });
        self.storage.step_left = self.now;
        self.out.push(Output::Bulk { job, step: BulkStep::Create { name: name.unfinished() } });
    }

    fn checkpoint_meta(
        &self,
        id: ShardId,
        revision: Revision,
        position: Position,
        chain: Vec<LinkRecord>,
    ) -> Meta {
        let owned = &self.shards[&id];
        let (Ruling { fence, seal }, peers) = owned.shard.as_of(position.index);
        let [voters, learners] = peers.numbers();
        Meta {
            shard: id.0,
            home: owned.shard.home,
            file: self.storage.last_file,
            chain,
            revision: revision.0,
            compacted: owned.shard.store.compacted().0,
            index: position.index.0,
            term: position.term.0,
            voters,
            learners,
            fence: fence.into(),
            seal: seal.epoch.into(),
            seal_prefix: seal.prefix.0,
            epoch: owned.shard.meaning().seal().epoch.into(),
            map_version: 0,
            control: (id == ShardId::CONTROL).then(|| self.control.to_state()),
        }
    }

    pub(super) fn on_bulk(&mut self, job: JobId, done: BulkDone) {
        if self.on_cleared(job, &done) {
            return;
        }
        let found =
            self.shards.iter().find(|(_, owned)| owned.checkpoint.as_ref().is_some_and(|c| c.job == job));
        let Some(id) = found.map(|(id, _)| *id) else { return };
        self.counters.times.checkpoint_steps.observe(self.now.since(self.storage.step_left).0);
        self.storage.step_left = self.now;
        match done {
            BulkDone::Done => self.go_on_with_checkpoint(id),
            BulkDone::Full => self.checkpoint_has_no_room(id),
            BulkDone::Failed(why) => {
                self.give_checkpoint_up(id, &why);
                self.fail_defragmentations(id, &why);
            }
        }
    }

    /// What takes less is tried next. Then what the log keeps goes, and it is tried again: what is to be recycled,
    /// and at last the file that stands by, where the log is freed by it.
    fn checkpoint_has_no_room(&mut self, id: ShardId) {
        let why = "no space left on device";
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        let Some(Checkpointing { whole, chain, .. }) = &owned.checkpoint else { return };
        let (is_base, is_due) = (chain.is_empty(), *whole == Whole::WhereDue);
        let has_chain = !owned.chain.is_empty() && id != ShardId::CONTROL;
        let puts_off = is_base && is_due && has_chain && !owned.base_has_no_room;
        owned.base_has_no_room |= puts_off;
        let whole_bytes = owned.shard.store.sizes().bytes_total + EMPTY_SHARD_BYTES;
        self.give_checkpoint_up(id, why);
        self.raise_no_space(None);
        if puts_off {
            self.storage.retry_at = self.now;
            return;
        }
        if self.log.shrink() {
            return;
        }
        // A delta is no more than what the log has of the changes, nor much more than what they have come to.
        let needed = if is_base { whole_bytes } else { whole_bytes.min(self.log.needed().written) };
        if is_due && self.log.give_up(needed) {
            self.storage.retry_at = self.now + CHECKPOINT_RETRY_WITH_ROOM;
            self.counters.paths.log_gave_reserve += 1;
        } else {
            self.fail_defragmentations(id, why);
        }
    }

    fn give_checkpoint_up(&mut self, id: ShardId, why: &str) {
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        let Some(Checkpointing { pin, name, .. }) = owned.checkpoint.take() else { return };
        owned.unpin(pin);
        self.storage.retry_at = self.now + CHECKPOINT_RETRY;
        self.counters.paths.checkpoint_given_up += 1;
        let job = self.next_job();
        self.out.push(Output::Bulk { job, step: BulkStep::Remove { name: name.unfinished() } });
        let fields = vec![("shard", id.to_string()), ("error", why.to_owned())];
        self.notice(Level::Warn, "failed to write a checkpoint", fields);
    }

    fn go_on_with_checkpoint(&mut self, id: ShardId) {
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        let Some(under_way) = &mut owned.checkpoint else { return };
        let (job, name) = (under_way.job, under_way.name);
        if under_way.publishing {
            return self.finish_checkpoint(id);
        }
        if under_way.writer.is_none() {
            under_way.publishing = true;
            let step = BulkStep::Publish { name: name.unfinished(), as_name: name.to_string() };
            return self.out.push(Output::Bulk { job, step });
        }
        under_way.filling = true;
        self.fill_checkpoint(id);
    }

    /// One slice of a checkpoint's history; what fills some blocks goes to the bulk lane.
    fn fill_checkpoint(&mut self, id: ShardId) {
        let budget = Budget { bytes: CHECKPOINT_BLOCK_BYTES_MAX, ..self.settings.slice.of_changes() };
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        let Some(under_way) = owned.checkpoint.as_mut().filter(|checkpoint| checkpoint.filling) else {
            return;
        };
        let mut writer = under_way.writer.take().expect("it is filled until its history ends");
        let store = &owned.shard.store;
        let history = match under_way.chain.is_empty() {
            true => store.state_pinned(under_way.pin, under_way.after, budget),
            false => store.changes_pinned(under_way.pin, under_way.after, budget),
        };
        for (at, change) in &history.changes {
            writer.version(*at, &change.event, &mut under_way.blocks);
        }
        under_way.after = history.resume;
        if history.done {
            under_way.written = writer.finish(&mut under_way.blocks);
        } else {
            under_way.writer = Some(writer);
        }
        if history.done || under_way.blocks.len() >= self.settings.bounds.checkpoint_step_blocks {
            under_way.filling = false;
            let (job, name) = (under_way.job, under_way.name.unfinished());
            let blocks = std::mem::take(&mut under_way.blocks);
            self.out.push(Output::Bulk { job, step: BulkStep::Append { name, blocks } });
        }
    }

    pub(super) fn fill_checkpoints(&mut self) {
        let found = self.shards.iter().find(|(_, owned)| owned.fills_checkpoint()).map(|(id, _)| *id);
        if let Some(id) = found {
            self.fill_checkpoint(id);
        }
    }

    /// The file is durable under its name: the log says so, and what it replaces may go.
    fn finish_checkpoint(&mut self, id: ShardId) {
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        let Some(done) = owned.checkpoint.take() else { return };
        match done.chain.is_empty() {
            true => owned.shard.store.checkpointed_whole(done.pin),
            false => owned.shard.store.checkpointed_changes(done.pin),
        }
        owned.unpin(done.pin);
        let (CheckpointName { home, file, .. }, Written { bytes, hash }) = (done.name, done.written);
        let mut replaced = vec![];
        let had_deltas = done.chain.is_empty() && owned.chain.len() > 1;
        if done.chain.is_empty() {
            replaced = std::mem::take(&mut owned.chain);
        }
        let put_off = std::mem::take(&mut owned.base_has_no_room);
        owned.chain.push(LinkRecord { home, file, revision: done.revision.0, bytes, hash });
        let (resident_home, Position { index, term }) = (owned.shard.home, done.position);
        let record = Checkpointed { revision: done.revision, index, term, file, home, hash };
        self.append(id, resident_home, Record::Checkpoint(record));
        self.storage.checkpointed = self.storage.appended;
        for link in replaced {
            self.storage.replaced.push_back((self.storage.appended, link.name(id).to_string()));
        }
        self.counters.checkpoints += 1;
        self.counters.times.checkpoints.observe(self.now.since(done.begun).0);
        self.counters.paths.checkpoint_finished += 1;
        self.counters.paths.checkpoint_is_delta += u64::from(!done.chain.is_empty());
        self.counters.paths.checkpoint_is_base_again += u64::from(had_deltas);
        self.counters.paths.checkpoint_is_delta_for_want_of_room +=
            u64::from(put_off && !done.chain.is_empty());
        if done.chain.is_empty() {
            self.defragmented_shard(id);
        }
    }
}
