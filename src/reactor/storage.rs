//! The log's side of a turn, compaction's slices, and when checkpoints are due: what this reactor writes and
//! drops.

use super::checkpoints::Whole;
use super::clearing::Clearing;
use super::owned::Owned;
use super::{Reactor, Stage};
use crate::api::{Code, Error};
use crate::io::{Body, BulkStep, CallId, Counters, JobId, Level, Output};
use crate::limits::{
    CHECKPOINT_LOG_BYTES_MIN, CHECKPOINT_LOG_SHARE, CHECKPOINT_PATIENCE_SECS, EMPTY_SHARD_BYTES,
    LOG_UNUSED_FILES_MAX,
};
use crate::log::{Buffer, Command, Held, Ordinal, Record, Resident, SegmentName, WriteId};
use crate::raft::GroupEntry;
use crate::record::Payload;
use crate::shard::Committed;
use crate::types::{Duration, Index, ShardId, Time};
use std::collections::VecDeque;

/// A Ready whose records are in the log up to the ordinal.
struct Persisting {
    upto: Ordinal,
    shard: ShardId,
    number: u64,
}

/// What the log's side of this reactor remembers between turns.
pub(super) struct Storage {
    persisting: VecDeque<Persisting>,
    pub appended: Ordinal,
    /// Bytes of log writes on their way.
    in_flight_bytes: usize,
    /// The number of the newest checkpoint file.
    pub last_file: u64,
    stale: Vec<Resident>,
    pub clearing: Clearing,
    jobs: u64,
    /// The record of the last checkpoint.
    pub checkpointed: Ordinal,
    /// Checkpoint files whose successors' records are not yet durable.
    pub replaced: VecDeque<(Ordinal, String)>,
    defragmenting: Vec<(CallId, Vec<ShardId>)>,
    /// A checkpoint has failed: none is begun before.
    pub retry_at: Time,
    /// Log writes on their way, and when they left.
    writing: VecDeque<(WriteId, Time)>,
    /// When the checkpoint's step under way left.
    pub step_left: Time,
    /// A compaction took effect then, and its history is being dropped.
    compacting_since: Option<Time>,
    pub compacted_at: Time,
    /// Versions dropped since the lead was last told.
    dropped: u64,
    log_writes: u64,
    log_bytes: u64,
    /// As the bulk lane knows it.
    haste: bool,
}

/// An entry as the log takes it.
pub(super) fn entry_record(entry: &GroupEntry) -> Record<'_> {
    let payload = entry.content.payload().map_or(&[][..], Payload::bytes);
    Record::Entry { index: entry.index, term: entry.term, kind: entry.content.kind(), payload }
}

impl Storage {
    pub fn new(last_file: u64, stale: Vec<Resident>, left_over: Vec<String>) -> Storage {
        Storage {
            persisting: VecDeque::new(),
            appended: Ordinal::default(),
            in_flight_bytes: 0,
            last_file,
            stale,
            clearing: Clearing::of(left_over),
            jobs: 0,
            checkpointed: Ordinal::default(),
            replaced: VecDeque::new(),
            defragmenting: vec![],
            retry_at: Time(0),
            writing: VecDeque::new(),
            step_left: Time(0),
            compacting_since: None,
            compacted_at: Time(0),
            dropped: 0,
            log_writes: 0,
            log_bytes: 0,
            haste: false,
        }
    }

    pub fn count(&self, counters: &mut Counters) {
        counters.log_writes = self.log_writes;
        counters.log_bytes = self.log_bytes;
        counters.defragmenting = self.defragmenting.len() as u64;
    }

    /// Versions dropped since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// A compaction has taken effect.
    pub fn compacts(&mut self, now: Time) {
        self.compacting_since.get_or_insert(now);
    }
}

impl Reactor {
    pub(super) fn append(&mut self, shard: ShardId, home: u32, record: Record<'_>) {
        self.storage.appended = self.log.append(Resident { shard, home }, record);
    }

    /// An epoch serves, so every shard's stay is durable where it is: earlier stays and their files go.
    pub(super) fn drop_left_over(&mut self) {
        for Resident { shard, home } in std::mem::take(&mut self.storage.stale) {
            self.append(shard, home, Record::Close);
            self.counters.paths.stay_closed += 1;
        }
        self.begin_clearing();
    }

    /// Whether so much waits for the disk that evaluations should wait too.
    pub(super) fn log_is_behind(&self) -> bool {
        self.storage.in_flight_bytes + self.log.queued_bytes() > self.settings.bounds.log_behind_bytes_max
    }

    pub(super) fn waits_for_room(&self) -> bool {
        self.shards.values().any(|owned| !owned.waiting.is_empty()) || !self.deciding.is_empty()
    }

    /// One entry a shard, one log write for all of them.
    pub(super) fn write_log(&mut self) {
        let (epoch, settled) = (self.epoch, self.settled);
        let entry_bytes = self.settings.entry_bytes_max;
        let ids: Vec<ShardId> = self.shards.keys().copied().collect();
        for id in ids {
            let owned = self.shards.get_mut(&id).expect("just listed");
            if self.stage == Stage::Serving && owned.shard.propose_turn(epoch, settled, entry_bytes).is_err()
            {
                self.lose_epoch();
            }
            self.take_ready(id);
        }
        // After a restart the log knows more than this reactor, until the first epoch serves.
        if self.has_served {
            self.log.settle(settled);
        }
        self.keep_disk_free();
        self.hear_of_others();
        let mut commands = vec![];
        self.log.flush(self.now, &mut commands);
        for command in commands {
            let paths = &mut self.counters.paths;
            paths.log_recycled += u64::from(matches!(command, Command::Recycle { .. }));
            if let Command::Write { id, bytes, .. } = &command {
                paths.log_write_while_one_is_in_flight += u64::from(!self.storage.writing.is_empty());
                self.storage.writing.push_back((*id, self.now));
                self.storage.in_flight_bytes += bytes.len();
                self.storage.log_writes += 1;
                self.storage.log_bytes += bytes.len() as u64;
            }
            self.out.push(Output::Log(command));
        }
        self.follow_durable();
    }

    /// Appends what the shard's group wants written.
    fn take_ready(&mut self, id: ShardId) {
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        let Some(writes) = owned.shard.ready() else { return };
        let resident = Resident { shard: id, home: owned.shard.home };
        for entry in &writes.entries {
            self.storage.appended = self.log.append(resident, entry_record(entry));
        }
        // A commit index alone is not worth a write: an election finds it again. Terms and votes are.
        if let Some(hard) = writes.hard_state
            && (hard.term, hard.vote) != owned.voted
        {
            owned.voted = (hard.term, hard.vote);
            let hard = crate::log::HardState { term: hard.term, vote: hard.vote, commit: hard.commit };
            self.storage.appended = self.log.append(resident, Record::HardState(hard));
        }
        let (upto, number) = (self.storage.appended, writes.number);
        self.storage.persisting.push_back(Persisting { upto, shard: id, number });
    }

    pub(super) fn on_written(&mut self, write: WriteId, buffer: Buffer) {
        let writing = &mut self.storage.writing;
        let place = writing.iter().position(|(id, _)| *id == write).expect("a write completes once");
        let left = writing.remove(place).map_or(self.now, |(_, left)| left);
        self.counters.times.log_writes.observe(self.now.since(left).0);
        self.storage.in_flight_bytes -= buffer.len();
        self.log.reuse(buffer);
        self.log.written(write);
        self.sequencer.testify(self.log.testimony());
        self.follow_durable();
    }

    /// The log goes on in the files it has and in what has been kept free; they have room for what makes room:
    /// deletes, compaction, and this alarm, which keeps everything else out.
    pub(super) fn on_no_room(&mut self, segment: SegmentName) {
        let was_short = self.log.is_short();
        if !self.log.no_room(segment, self.now) {
            return;
        }
        self.counters.paths.log_without_room += 1;
        if self.log.begins_in(segment) {
            let why = format!(
                "the disk of the data directory is full: a start needs {} bytes for each of its {} reactors, and \
                 what was kept back for that is used up or was kept for fewer. Give the disk more room",
                self.log.first_file_bytes_min(),
                self.reactors
            );
            return self.out.push(Output::Halt(why));
        }
        // What the log holds may go first, where it is more than a checkpoint takes.
        let needed = self.log.needed();
        if needed.closed > 0 && needed.written > self.checkpoint_bytes_max() {
            return;
        }
        if !was_short {
            let fields = vec![("segment", segment.to_string())];
            self.notice(
                Level::Warn,
                "the disk has no room for the log to grow: only what makes room is taken",
                fields,
            );
        }
        self.raise_no_space(None);
    }

    /// What a new file of the log leaves free: what the largest checkpoint takes, and until the alarm stands,
    /// something for what makes room. A checkpoint that is written and not yet in the log's record frees more
    /// than any file takes.
    fn keep_disk_free(&mut self) {
        let is_full = self.control.no_space();
        if is_full {
            self.log.shrink();
        }
        let reserve = if is_full { 0 } else { self.settings.disk_reserve_bytes };
        let counts = self.log.durable() >= self.storage.checkpointed;
        self.log.keep_free(if counts { self.checkpoint_bytes_max() + reserve } else { 0 });
    }

    /// About what the largest checkpoint takes.
    fn checkpoint_bytes_max(&self) -> u64 {
        let bytes = self.shards.values().map(|owned| owned.shard.store.sizes().bytes_total);
        bytes.max().map_or(0, |bytes| bytes + EMPTY_SHARD_BYTES)
    }

    /// Whether the process may end without leaving a write that nothing vouches for.
    pub fn log_is_at_rest(&self) -> bool {
        self.log.is_at_rest()
    }

    /// What is durable is persisted to its group, and what that commits is marked.
    fn follow_durable(&mut self) {
        let durable = self.log.durable();
        let mut touched: Vec<ShardId> = vec![];
        while let Some(done) = self.storage.persisting.pop_front_if(|persisting| persisting.upto <= durable) {
            let owned = self.shards.get_mut(&done.shard).expect("shards stay where they are");
            owned.shard.group_mut().persisted(done.number);
            if touched.last() != Some(&done.shard) {
                touched.push(done.shard);
            }
        }
        touched.sort();
        touched.dedup();
        for shard in touched {
            self.follow_commits(shard);
        }
        while let Some((_, name)) = self.storage.replaced.pop_front_if(|(upto, _)| *upto <= durable) {
            let job = self.next_job();
            self.out.push(Output::Bulk { job, step: BulkStep::Remove { name } });
        }
    }

    fn follow_commits(&mut self, id: ShardId) {
        let mut news = vec![];
        let owned = self.shards.get_mut(&id).expect("the caller has it");
        if let Err(strange) = owned.shard.committed(&mut news) {
            return self.out.push(Output::Halt(format!("shard {}: {strange}", id.0)));
        }
        let generation = self.room.generation();
        let revisions = news.iter().filter_map(|news| match news {
            Committed::Revision(revision) => Some(*revision),
            _ => None,
        });
        self.sequencer.mark_all(generation, revisions);
        for news in news {
            match news {
                Committed::Revision(_) => {}
                Committed::Control => self.apply_due_controls(),
                Committed::Fence(_) | Committed::Seal(_) => self.on_takeover_news(id, &news),
            }
        }
    }

    pub(super) fn next_job(&mut self) -> JobId {
        self.storage.jobs += 1;
        JobId(self.storage.jobs)
    }

    /// A bounded piece of everything that may take many turns.
    pub(super) fn work_in_background(&mut self) {
        self.compact_in_slices();
        self.work_at_hubs();
        self.send_notices();
        self.tell_sizes();
        self.fill_checkpoints();
        self.schedule_checkpoints();
        self.tell_haste();
    }

    pub(super) fn has_background_work(&self) -> bool {
        self.shards.values().any(|owned| owned.compacting || owned.fills_checkpoint()) || self.hubs_go_on()
    }

    fn compact_in_slices(&mut self) {
        let (mut done, slice_keys) = (false, self.settings.bounds.compact_slice_keys);
        for owned in self.shards.values_mut().filter(|owned| owned.compacting) {
            let before = owned.shard.store.sizes().versions;
            owned.compacting = !owned.shard.store.compact_slice(slice_keys);
            self.counters.paths.compacted_in_slices += u64::from(owned.compacting);
            let dropped = before - owned.shard.store.sizes().versions;
            self.counters.versions_compacted += dropped;
            self.storage.dropped += dropped;
            done |= !owned.compacting;
        }
        if done && self.shards.values().all(|owned| owned.shard.store.is_swept()) {
            self.storage.compacted_at = self.now;
            if let Some(since) = self.storage.compacting_since.take() {
                self.counters.times.compactions.observe(self.now.since(since).0);
            }
            self.report_compacted();
        }
    }

    // Checkpoints.

    fn schedule_checkpoints(&mut self) {
        let busy = self.shards.values().any(|owned| owned.checkpoint.is_some());
        if busy || self.stage != Stage::Serving || self.now < self.storage.retry_at {
            return;
        }
        // What the last one frees goes once its record is durable. A log that waits for the disk to have room
        // would otherwise be answered with checkpoints that fill it.
        if self.log.durable() < self.storage.checkpointed {
            return;
        }
        let wanted = self.storage.defragmenting.first().and_then(|(_, shards)| shards.first().copied());
        // On a full disk what frees the log makes room for what is asked for.
        let due = if wanted.is_none() || self.log.is_short() { self.due_for_the_log() } else { None };
        match (due, wanted) {
            (Some(shard), _) => self.begin_checkpoint(shard, Whole::WhereDue),
            (None, Some(shard)) => self.begin_checkpoint(shard, Whole::Asked),
            (None, None) => {}
        }
    }

    /// The shard whose checkpoint frees most of a long log.
    fn due_for_the_log(&self) -> Option<ShardId> {
        if !self.log_is_long() {
            return None;
        }
        let held = self
            .log
            .held_for()
            .filter(|(resident, first, bytes)| *bytes > 0 && self.would_free(resident.shard, *first));
        held.max_by_key(|(_, _, bytes)| *bytes).map(|(resident, ..)| resident.shard)
    }

    /// Whether a checkpoint now would let an entry go that the log keeps. Where what is not settled holds the log,
    /// one after the other would only make it longer.
    fn would_free(&self, shard: ShardId, first_kept: Index) -> bool {
        let position = self.shards.get(&shard).and_then(|owned| owned.shard.checkpoint_position());
        position.is_some_and(|position| position.index >= first_kept)
    }

    /// Whether so much of the log is held that checkpoints cost less: what a restart would read, or files that
    /// are hardly used; or anything that can be given back to a full disk.
    fn log_is_long(&self) -> bool {
        let data: u64 = self.shards.values().map(|owned| owned.shard.store.sizes().bytes_total).sum();
        let most = self.settings.checkpoint_log_bytes;
        let written = (CHECKPOINT_LOG_SHARE * data).clamp(CHECKPOINT_LOG_BYTES_MIN.min(most), most);
        let unused = data.max(LOG_UNUSED_FILES_MAX * self.log.file_bytes_min());
        let is_long = |held: Held| {
            let frees = (self.log.is_short() || self.control.no_space()) && held.closed > 0;
            frees || held.written >= written || held.unused >= unused
        };
        is_long(self.log.held()) && is_long(self.log.needed())
    }

    /// Whether the bulk lane's work for this reactor presses: somebody waits for it, or what it leaves undone
    /// grows, log that no checkpoint covers and history that one holds.
    fn tell_haste(&mut self) {
        let is_long = |held: Held| held.written / 2 >= self.settings.checkpoint_log_bytes;
        // What is held is at hand each turn, what is needed of it has to be counted.
        let log_waits = is_long(self.log.held()) && is_long(self.log.needed());
        let history_waits = self.checkpoints_press_at() <= self.now;
        let haste = !self.storage.defragmenting.is_empty() || log_waits || history_waits;
        if haste != self.storage.haste {
            self.storage.haste = haste;
            self.out.push(Output::Haste(haste));
        }
    }

    /// When a checkpoint under way has held history for too long.
    fn checkpoints_press_at(&self) -> Time {
        let begun = self.shards.values().filter_map(Owned::checkpoint_begun).min();
        begun.map_or(Time::NEVER, |begun| begun + Duration::from_secs(CHECKPOINT_PATIENCE_SECS))
    }

    /// When a checkpoint that has failed is tried again, or one under way begins to press.
    pub(super) fn checkpoints_wake_at(&self) -> Time {
        let (now, retry_at) = (self.now, self.storage.retry_at);
        let retry_at = if now < retry_at { retry_at } else { Time::NEVER };
        let press_at = if self.storage.haste { Time::NEVER } else { self.checkpoints_press_at() };
        retry_at.min(press_at)
    }

    pub(super) fn on_defragment(&mut self, call: CallId) {
        let shards: Vec<ShardId> = self.shards.keys().copied().collect();
        self.storage.defragmenting.push((call, shards));
        self.end_defragmentations();
    }

    pub(super) fn defragmented_shard(&mut self, id: ShardId) {
        for (_, shards) in &mut self.storage.defragmenting {
            shards.retain(|shard| *shard != id);
        }
        self.end_defragmentations();
    }

    fn end_defragmentations(&mut self) {
        let (done, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.storage.defragmenting)
            .into_iter()
            .partition(|(_, shards)| shards.is_empty());
        self.storage.defragmenting = waiting;
        if !done.is_empty() {
            // Who asks for this wants the disk to be smaller.
            self.log.shrink();
        }
        for (call, _) in done {
            self.counters.paths.checkpoint_defragmented += 1;
            self.send(call.reactor, Body::Defragmented { call, done: Ok(()) });
        }
    }

    /// Nobody waits for a checkpoint that cannot be written: it may be long until it can. As in etcd, the answer
    /// is what the operating system said.
    pub(super) fn fail_defragmentations(&mut self, id: ShardId, why: &str) {
        let text = format!("cannot write the data anew: {why}");
        let waits = |(_, shards): &(CallId, Vec<ShardId>)| shards.contains(&id);
        let failed: Vec<_> = self.storage.defragmenting.extract_if(.., |waiting| waits(waiting)).collect();
        for (call, _) in failed {
            let error = Error::Other { code: Code::Unknown, text: text.clone() };
            self.send(call.reactor, Body::Defragmented { call, done: Err(error) });
        }
    }
}
