//! Checkpoints: each shard's state goes to files, slice by slice, so that the log before it may go.
//!
//! A checkpoint is a delta on the last one, as long as the deltas of the chain weigh less than its base; then it
//! is a new base. So what is written follows what has changed, and at most about as much again is written for
//! bases; and what is on disk, and read at a start, is at most about twice the state. A base for which a full
//! disk has no room is put off for a delta, so that the log may go all the same.

use super::{HeldState, Source, Storage, Stored, Turn};
use crate::checkpoint::{CheckpointName, LinkRecord, Meta, Writer, WrittenFile};
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
    /// It does so where the chain has grown so far.
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
    /// The files that it goes on from. A base has none.
    chain: Vec<LinkRecord>,
    written: WrittenFile,
    /// Blocks that the meta already filled.
    blocks: Vec<Buffer>,
    publishing: bool,
    /// Its next blocks are being filled, slice by slice; else the bulk lane has them.
    filling: bool,
    begun: Time,
}

impl Checkpointing {
    fn shard(&self) -> ShardId {
        self.name.shard
    }

    fn is_delta(&self) -> bool {
        !self.chain.is_empty()
    }

    /// Whether its next blocks are being filled.
    pub fn is_filled(&self) -> bool {
        self.filling
    }

    /// Since when it is being written.
    pub fn begun(&self) -> Time {
        self.begun
    }
}

impl Stored {
    /// The files that the next checkpoint goes on from: none where it is to be a base.
    fn chain_to_go_on_from(&self, shard: ShardId, files_max: usize) -> Vec<LinkRecord> {
        let Some((base, deltas)) = self.chain.split_first() else { return vec![] };
        let deltas: u64 = deltas.iter().map(|delta| delta.bytes).sum();
        let goes_on = match self.base_has_no_room {
            true => self.chain.len() < CHAIN_STRETCH * files_max,
            false => deltas < base.bytes && self.chain.len() < files_max,
        };
        // Without keys all of a shard's state is in the meta.
        if goes_on && shard != ShardId::CONTROL { self.chain.clone() } else { vec![] }
    }
}

impl Storage {
    pub(super) fn begin_checkpoint(
        &mut self,
        turn: &mut Turn,
        source: &mut impl Source,
        shard: ShardId,
        whole: Whole,
    ) {
        assert!(self.under_way.is_none(), "one checkpoint is written at a time");
        assert!(turn.epoch_state.is_settled(), "a checkpoint is of a state that stands");
        let revision = *turn.settled;
        let Some(held) = source.hold(shard, revision) else { return };
        let job = self.next_job();
        self.last_file += 1;
        let files_max = turn.settings.bounds.checkpoint_chain_files_max;
        let chain = match whole {
            Whole::Asked => vec![],
            Whole::WhereDue => self.stored(shard).chain_to_go_on_from(shard, files_max),
        };
        let meta = self.checkpoint_meta(turn, shard, &held, chain.clone());
        let last = self.stored(shard).chain.last().map_or(0, |link| link.revision);
        assert!(last <= revision.0, "checkpoints of a shard go forward: {revision} after {last}");
        let name = CheckpointName { shard, home: held.home, file: meta.file };
        let mut blocks = vec![];
        let writer = Some(Writer::new(&meta, &mut blocks));
        let buries = !chain.is_empty() && held.has_graves;
        turn.counters.paths.checkpoint_with_graves += u64::from(buries);
        let upto = |link: &LinkRecord| At { main: Revision(link.revision), sub: Sub(u32::MAX) };
        self.under_way = Some(Checkpointing {
            job,
            writer,
            pin: held.pin,
            after: chain.last().map(upto).unwrap_or_default(),
            revision,
            position: held.position,
            name,
            whole,
            chain,
            written: WrittenFile::default(),
            blocks,
            publishing: false,
            filling: false,
            begun: turn.now,
        });
        self.step_left = turn.now;
        turn.out.push(Output::Bulk { job, step: BulkStep::Create { name: name.unfinished() } });
    }

    fn stored(&mut self, shard: ShardId) -> &mut Stored {
        self.of.get_mut(&shard).expect("it was taken in")
    }

    pub(super) fn checkpoint_meta(
        &self,
        turn: &Turn,
        shard: ShardId,
        held: &HeldState,
        chain: Vec<LinkRecord>,
    ) -> Meta {
        let Ruling { fence, seal } = held.ruling;
        let [voters, learners] = held.peers.numbers();
        Meta {
            shard: shard.0,
            home: held.home,
            file: self.last_file,
            chain,
            revision: turn.settled.0,
            compacted: held.compacted.0,
            index: held.position.index.0,
            term: held.position.term.0,
            voters,
            learners,
            fence: fence.into(),
            seal: seal.epoch.into(),
            seal_prefix: seal.prefix.0,
            epoch: held.epoch.into(),
            map_version: 0,
            control: (shard == ShardId::CONTROL).then(|| turn.control.to_state()),
        }
    }

    pub fn on_bulk(&mut self, turn: &mut Turn, source: &mut impl Source, job: JobId, done: BulkDone) {
        if self.on_cleared(turn, job, &done) {
            return;
        }
        if self.on_state_written(turn, job, &done) {
            return;
        }
        let Some(done) = self.on_log_read(turn, source, job, done) else { return };
        let Some(shard) = self.under_way.as_ref().filter(|c| c.job == job).map(Checkpointing::shard) else {
            return;
        };
        turn.counters.times.checkpoint_steps.observe(turn.now.since(self.step_left).0);
        self.step_left = turn.now;
        match done {
            BulkDone::Done => self.go_on_with_checkpoint(turn, source),
            BulkDone::Read(_) => unreachable!("a checkpoint that is written reads nothing"),
            BulkDone::Full => self.checkpoint_has_no_room(turn, source, shard),
            BulkDone::Failed(why) => {
                self.give_checkpoint_up(turn, source, &why);
                self.fail_defragmentations(turn, shard, &why);
            }
        }
    }

    /// What takes less is tried next. Then what the log keeps goes, and it is tried again: what is to be recycled,
    /// and at last the file that stands by, where the log is freed by it.
    fn checkpoint_has_no_room(&mut self, turn: &mut Turn, source: &mut impl Source, shard: ShardId) {
        let why = "no space left on device";
        let Some(Checkpointing { whole, chain, .. }) = &self.under_way else { return };
        let (is_base, is_due) = (chain.is_empty(), *whole == Whole::WhereDue);
        let stored = self.stored(shard);
        let has_chain = !stored.chain.is_empty() && shard != ShardId::CONTROL;
        let puts_off = is_base && is_due && has_chain && !stored.base_has_no_room;
        stored.base_has_no_room |= puts_off;
        let whole_bytes = source.bytes_of(shard) + EMPTY_SHARD_BYTES;
        self.give_checkpoint_up(turn, source, why);
        turn.raise_no_space(None);
        if puts_off {
            self.retry_at = turn.now;
            return;
        }
        if self.log.shrink() {
            return;
        }
        // A delta is no more than what the log has of the changes, nor much more than what they have come to.
        let needed = if is_base { whole_bytes } else { whole_bytes.min(self.log.needed().written) };
        if is_due && self.log.give_up(needed) {
            self.retry_at = turn.now + CHECKPOINT_RETRY_WITH_ROOM;
            turn.counters.paths.log_gave_reserve += 1;
        } else {
            self.fail_defragmentations(turn, shard, why);
        }
    }

    pub(super) fn under_way_is_of(&self, shard: ShardId) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.shard() == shard)
    }

    /// Whether a step of the file of the shard's checkpoint is on its way: it would meet the file's removal.
    pub(super) fn is_busy_with(&self, shard: ShardId) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.shard() == shard && !under_way.filling)
    }

    pub(super) fn give_checkpoint_up(&mut self, turn: &mut Turn, source: &mut impl Source, why: &str) {
        let Some(Checkpointing { pin, name, .. }) = self.under_way.take() else { return };
        source.let_go(name.shard, pin);
        self.retry_at = turn.now + CHECKPOINT_RETRY;
        turn.counters.paths.checkpoint_given_up += 1;
        let job = self.next_job();
        turn.out.push(Output::Bulk { job, step: BulkStep::Remove { name: name.unfinished() } });
        let fields = vec![("shard", name.shard.to_string()), ("error", why.to_owned())];
        turn.log_line(Level::Warn, "failed to write a checkpoint", fields);
    }

    fn go_on_with_checkpoint(&mut self, turn: &mut Turn, source: &mut impl Source) {
        let Some(under_way) = &mut self.under_way else { return };
        let (job, name) = (under_way.job, under_way.name);
        assert!(!under_way.filling, "no step of a file is on its way while its next blocks are filled");
        if under_way.publishing {
            return self.finish_checkpoint(turn, source);
        }
        if under_way.writer.is_none() {
            under_way.publishing = true;
            let step = BulkStep::Publish { name: name.unfinished(), as_name: name.to_string() };
            return turn.out.push(Output::Bulk { job, step });
        }
        under_way.filling = true;
        self.fill_checkpoint(turn, source);
    }

    /// One slice of a checkpoint's history; what fills some blocks goes to the bulk lane.
    pub(super) fn fill_checkpoint(&mut self, turn: &mut Turn, source: &impl Source) {
        let budget = Budget { bytes: CHECKPOINT_BLOCK_BYTES_MAX, ..turn.settings.slice.of_changes() };
        let Some(under_way) = self.under_way.as_mut().filter(|checkpoint| checkpoint.filling) else { return };
        assert!(!under_way.publishing, "a file is filled before it gets its name");
        let mut writer = under_way.writer.take().expect("it is filled until its history ends");
        let (shard, is_delta) = (under_way.shard(), under_way.is_delta());
        let history = source.slice(shard, under_way.pin, is_delta, under_way.after, budget);
        assert!(history.resume >= under_way.after, "a checkpoint goes forward through its history");
        for (at, change) in &history.changes {
            writer.version(*at, &change.event, &mut under_way.blocks);
        }
        under_way.after = history.resume;
        if history.done {
            under_way.written = writer.finish(&mut under_way.blocks);
        } else {
            under_way.writer = Some(writer);
        }
        if history.done || under_way.blocks.len() >= turn.settings.bounds.checkpoint_step_blocks {
            under_way.filling = false;
            let (job, name) = (under_way.job, under_way.name.unfinished());
            let blocks = std::mem::take(&mut under_way.blocks);
            turn.out.push(Output::Bulk { job, step: BulkStep::Append { name, blocks } });
        }
    }

    /// The file is durable under its name: the log says so, and what it replaces may go.
    fn finish_checkpoint(&mut self, turn: &mut Turn, source: &mut impl Source) {
        let Some(done) = self.under_way.take() else { return };
        let (shard, is_delta) = (done.shard(), done.is_delta());
        assert!(done.writer.is_none() && done.blocks.is_empty(), "a file gets its name when all is written");
        assert!(done.revision <= *turn.settled, "a checkpoint's revision is settled: {}", done.revision);
        source.written(shard, done.pin, is_delta);
        source.let_go(shard, done.pin);
        let (CheckpointName { home, file, .. }, WrittenFile { bytes, hash }) = (done.name, done.written);
        let stored = self.of.get_mut(&shard).expect("it was taken in");
        assert!(!is_delta || done.chain == stored.chain, "a delta goes on from the files that are there");
        let mut replaced = vec![];
        let had_deltas = !is_delta && stored.chain.len() > 1;
        if !is_delta {
            replaced = std::mem::take(&mut stored.chain);
        }
        let put_off = std::mem::take(&mut stored.base_has_no_room);
        stored.chain.push(LinkRecord { home, file, revision: done.revision.0, bytes, hash });
        let Position { index, term } = done.position;
        let record = Checkpointed { revision: done.revision, index, term, file, home, hash };
        self.append(shard, home, Record::Checkpoint(record));
        self.checkpointed = self.appended;
        for link in replaced {
            self.replaced.push_back((self.appended, link.name(shard).to_string()));
        }
        turn.counters.checkpoints += 1;
        turn.counters.times.checkpoints.observe(turn.now.since(done.begun).0);
        let paths = &mut turn.counters.paths;
        paths.checkpoint_finished += 1;
        paths.checkpoint_is_delta += u64::from(is_delta);
        paths.checkpoint_is_base_again += u64::from(had_deltas);
        paths.checkpoint_is_delta_for_want_of_room += u64::from(put_off && is_delta);
        if !is_delta {
            self.defragmented_shard(turn, shard);
        }
    }
}
