//! What this reactor has on disk: its log, its shards' checkpoints, and what earlier processes have left.
//!
//! It sees neither clients nor shards: what it writes is handed to it, and what a checkpoint is made of it asks of a
//! [`Source`].
//!
//! **The question.** Many groups share one log and one disk. How does a turn cost one write whatever it did,
//! and how does a group learn that its entries are durable, and nothing sooner?
//!
//! **The rule.** At the end of a turn every group's Ready is appended, and then the log is flushed once. A
//! Ready is persisted when the last of its records is durable, in the order in which it was appended; then
//! what its group has committed is marked at the sequencer. A term or a vote is worth a record, a commit
//! index alone is not: an election finds it again. The `settled` that the log names rises only once an epoch
//! has served here, since after a restart the log knows more than this reactor.
//!
//! **Why not otherwise.** To wait for the disk within a turn would stop every client of the thread for one
//! write. A write for each group would cost one per shard, and where little is written the write is the cost.

mod checkpoints;
mod clearing;
mod giving;
mod laggards;
mod pace;
mod source;
mod taking;
mod witness;

pub use clearing::{AtStart, at_start};
pub(super) use laggards::FollowerFigures;
pub(super) use source::{HeldState, Source};

use super::turn::Turn;
use crate::api::{Code, Error};
use crate::checkpoint::{ControlState, LinkRecord};
use crate::io::{BulkStep, CallId, CallMail, JobId, Level, MemberMail, Output, ReactorCounters};
use crate::limits::{
    CHECKPOINT_LOG_BYTES_MIN, CHECKPOINT_LOG_SHARE, CHECKPOINT_PATIENCE_SECS, EMPTY_SHARD_BYTES,
    LOG_UNUSED_FILES_MAX,
};
use crate::log::{
    Buffer, Command, CoverageRecord, Held, Log, Ordinal, Record, Resident, SegmentName, WriteId,
};
use crate::raft::{GroupEntry, HardState, Writes};
use crate::record::Payload;
use crate::types::{ConnId, Duration, Index, MemberId, RaftId, ShardId, Term, Time};
use checkpoints::{Checkpointing, Whole};
use clearing::Clearing;
use giving::StateLane;
use laggards::Laggards;
use pace::WritePace;
use std::collections::{BTreeMap, VecDeque};
use taking::Taking;
use witness::Heard;

/// A Ready whose records are in the log up to the ordinal.
struct Persisting {
    upto: Ordinal,
    shard: ShardId,
    number: u64,
}

/// What is kept of a shard beside its records.
#[derive(Default)]
struct Stored {
    /// Term and vote as the log has them.
    voted: (Term, Option<RaftId>),
    /// The files of its last checkpoint, the base first.
    chain: Vec<LinkRecord>,
    /// The last checkpoint was to be a base, for which the disk has no room.
    base_has_no_room: bool,
}

pub(super) struct Storage {
    log: Log,
    heard: Heard,
    of: BTreeMap<ShardId, Stored>,
    /// The checkpoint being written, if there is one.
    under_way: Option<Checkpointing>,
    persisting: VecDeque<Persisting>,
    appended: Ordinal,
    /// The log may end with how far its shards are covered, as a start would take it: until an entry behind that is
    /// durable, up to this record where it is on its way.
    rests: bool,
    disturbed: Option<Ordinal>,
    /// The log ends with how far its shards are covered, as far as this process has written it.
    says_rest: bool,
    was_disturbed: bool,
    /// A record was appended that no flush has seen.
    is_unwritten: bool,
    /// Bytes of log writes on their way.
    in_flight_bytes: usize,
    /// The number of the newest checkpoint file.
    last_file: u64,
    stale: Vec<Resident>,
    clearing: Clearing,
    /// Up to here the log has what was moved into it at the start, and whether others know that it is durable.
    moved_in: Ordinal,
    has_told_moved_in: bool,
    /// So many logs of this member have theirs durable.
    logs_moved_in: u16,
    jobs: u64,
    /// The record of the last checkpoint.
    checkpointed: Ordinal,
    /// Checkpoint files whose successors' records are not yet durable.
    replaced: VecDeque<(Ordinal, String)>,
    defragmenting: Vec<(CallId, Vec<ShardId>)>,
    /// A checkpoint has failed, and none is begun before this time.
    retry_at: Time,
    /// Log writes on their way, and when they left.
    writing: VecDeque<(WriteId, Time)>,
    /// When the checkpoint's step under way left.
    step_left: Time,
    log_writes: u64,
    log_bytes: u64,
    /// Whether the bulk lane knows that its work presses.
    haste: bool,
    log_waits: bool,
    laggards: Laggards,
    /// What members are given, and who was given a slice last.
    lanes: BTreeMap<MemberId, StateLane>,
    served: MemberId,
    pace: WritePace,
    taking: Option<Taking>,
    /// The connection that brought what is no state, and what is wrong with it.
    misgiven: Option<(ConnId, String)>,
    /// Shards whose log begins anew, until it says so durably.
    installing: VecDeque<(Ordinal, ShardId)>,
    arrived_control: Option<ControlState>,
}

/// An entry as the log takes it.
pub(super) fn entry_record(entry: &GroupEntry) -> Record<'_> {
    let payload = entry.content.payload().map_or(&[][..], Payload::bytes);
    Record::Entry { index: entry.index, term: entry.term, kind: entry.content.kind(), payload }
}

impl Storage {
    pub fn new(
        log: Log,
        reactors: u16,
        last_file: u64,
        stale: Vec<Resident>,
        left_over: Vec<String>,
    ) -> Storage {
        Storage {
            log,
            heard: Heard::new(reactors),
            of: BTreeMap::new(),
            under_way: None,
            persisting: VecDeque::new(),
            appended: Ordinal::default(),
            rests: true,
            disturbed: None,
            says_rest: false,
            was_disturbed: false,
            is_unwritten: false,
            in_flight_bytes: 0,
            last_file,
            stale,
            clearing: Clearing::of(left_over),
            moved_in: Ordinal::default(),
            has_told_moved_in: false,
            logs_moved_in: 0,
            jobs: 0,
            checkpointed: Ordinal::default(),
            replaced: VecDeque::new(),
            defragmenting: vec![],
            retry_at: Time(0),
            writing: VecDeque::new(),
            step_left: Time(0),
            log_writes: 0,
            log_bytes: 0,
            haste: false,
            log_waits: false,
            laggards: Laggards::default(),
            lanes: BTreeMap::new(),
            served: MemberId(0),
            pace: WritePace::default(),
            taking: None,
            misgiven: None,
            installing: VecDeque::new(),
            arrived_control: None,
        }
    }

    pub fn count(&self, counters: &mut ReactorCounters) {
        counters.log_writes = self.log_writes;
        counters.log_bytes = self.log_bytes;
        counters.paths.follower_caught_up = self.laggards.caught_up();
        counters.defragmenting = self.defragmenting.len() as u64;
        counters.states_on_their_way = u64::from(self.taking.is_some());
    }
}

impl Storage {
    /// A shard of this reactor, as it starts.
    pub fn take_in(&mut self, shard: ShardId, hard_state: HardState, chain: Vec<LinkRecord>) {
        let voted = (hard_state.term, hard_state.vote);
        let before = self.of.insert(shard, Stored { voted, chain, base_has_no_room: false });
        assert!(before.is_none(), "a shard has one stay in the log of its reactor");
        self.moved_in = self.appended;
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    pub fn append(&mut self, shard: ShardId, home: u32, record: Record<'_>) {
        self.appended = self.log.append(Resident { shard, home }, record);
    }

    /// How far a shard is covered, behind which nothing follows for now.
    pub fn rest(&mut self, shard: ShardId, home: u32, covered: CoverageRecord) {
        self.append(shard, home, Record::Coverage(covered));
        (self.rests, self.disturbed, self.says_rest) = (true, None, true);
    }

    /// More is committed than the log says at its end.
    pub fn disturb(&mut self, shard: ShardId, home: u32, hard: HardState) {
        if self.disturbed.is_none() {
            let hard = crate::log::StoredHardState { term: hard.term, vote: hard.vote, commit: hard.commit };
            self.append(shard, home, Record::HardState(hard));
            (self.disturbed, self.is_unwritten, self.says_rest) = (Some(self.appended), true, false);
        }
    }

    /// Whether the log no longer rests, since it was last asked.
    pub fn take_disturbed(&mut self) -> bool {
        std::mem::take(&mut self.was_disturbed)
    }

    /// Whether the log ends with that, so that there is nothing to write.
    pub fn says_rest(&self) -> bool {
        self.says_rest || self.of.is_empty()
    }

    /// Whether a start would take the end of this log for all that there was.
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// Another log of this member has all that was moved into it, durably, or this one has.
    pub fn on_moved_in(&mut self, turn: &mut Turn) {
        self.logs_moved_in += 1;
        assert!(self.logs_moved_in <= turn.reactors, "each reactor says it once");
        self.drop_left_over(turn);
    }

    /// Earlier stays and their files go once every shard's is durable where it is now, whoever leads, and something
    /// was shown from there.
    pub fn drop_left_over(&mut self, turn: &mut Turn) {
        if self.logs_moved_in < turn.reactors || !turn.epoch_state.is_settled() {
            return;
        }
        for Resident { shard, home } in std::mem::take(&mut self.stale) {
            self.append(shard, home, Record::Close);
            turn.counters.paths.stay_closed += 1;
        }
        self.begin_clearing(turn);
    }

    /// Whether so much waits for the disk that evaluations should wait too, or a member that comes back for them to.
    pub fn log_is_behind(&mut self, turn: &mut Turn) -> bool {
        let is_paced = self.pace.holds(turn.now);
        turn.counters.paths.log_paced += u64::from(is_paced);
        is_paced || self.in_flight_bytes + self.log.queued_bytes() > turn.settings.bounds.log_behind_bytes_max
    }

    /// When writes that are paced go on.
    pub fn pace_wakes_at(&self) -> Time {
        self.pace.wakes_at()
    }

    pub fn on_written(&mut self, turn: &mut Turn, write: WriteId, buffer: Buffer) {
        let writing = &mut self.writing;
        let place = writing.iter().position(|(id, _)| *id == write).expect("a write completes once");
        let left = writing.remove(place).map_or(turn.now, |(_, left)| left);
        turn.counters.times.log_writes.observe(turn.now.since(left).0);
        self.in_flight_bytes -= buffer.len();
        let rests = self.writing.is_empty();
        assert!(!rests || self.in_flight_bytes == 0, "bytes on their way are those of writes on their way");
        self.log.reuse(buffer);
        self.log.written(write);
        turn.sequencer.testify(self.log.testimony());
    }

    /// What a shard's group wants written goes into the log.
    pub fn persist(&mut self, shard: ShardId, home: u32, writes: &Writes) {
        let resident = Resident { shard, home };
        for entry in &writes.entries {
            self.appended = self.log.append(resident, entry_record(entry));
        }
        let appended = self.appended;
        let stored = self.of.get_mut(&shard).expect("it was taken in");
        // A commit index alone is not worth a write: an election finds it again. Terms and votes are, and the commit of a
        // change of peers, on whom elections depend.
        if let Some(hard) = writes.hard_state
            && (writes.commit_counts || (hard.term, hard.vote) != stored.voted)
        {
            stored.voted = (hard.term, hard.vote);
            let hard = crate::log::StoredHardState { term: hard.term, vote: hard.vote, commit: hard.commit };
            self.appended = self.log.append(resident, Record::HardState(hard));
        }
        if !writes.entries.is_empty() || self.appended > appended {
            self.wakes_from_rest();
        }
        let behind = self.persisting.back().is_none_or(|last| last.upto <= self.appended);
        assert!(behind, "Readies are appended in the order in which they were taken");
        self.persisting.push_back(Persisting { upto: self.appended, shard, number: writes.number });
    }

    /// Something stands behind what the log said of how far its shards are covered.
    fn wakes_from_rest(&mut self) {
        self.says_rest = false;
        if self.rests {
            self.disturbed.get_or_insert(self.appended);
        }
    }

    /// The shards whose logs have come to say durably that they begin anew.
    pub fn take_installed(&mut self) -> Vec<ShardId> {
        let durable = self.log.durable();
        let mut done = vec![];
        while let Some((_, shard)) = self.installing.pop_front_if(|(upto, _)| *upto <= durable) {
            done.push(shard);
        }
        done
    }

    /// Hands the turn's records to the disk, in one write.
    pub fn flush(&mut self, turn: &mut Turn, source: &impl Source) {
        // After a restart the log knows more than this reactor, until the first epoch serves.
        if turn.epoch_state.may_watch() {
            self.log.settle(*turn.settled);
        }
        self.is_unwritten = false;
        self.keep_disk_free(turn, source);
        self.hear_of_others(turn);
        let mut commands = vec![];
        self.log.flush(turn.now, &mut commands);
        for command in commands {
            let paths = &mut turn.counters.paths;
            paths.log_recycled += u64::from(matches!(command, Command::Recycle { .. }));
            if let Command::Write { id, bytes, .. } = &command {
                paths.log_write_while_one_is_in_flight += u64::from(!self.writing.is_empty());
                let behind = self.writing.back().is_none_or(|(last, _)| last < id);
                assert!(behind, "writes leave in the order of their numbers: {id:?}");
                self.writing.push_back((*id, turn.now));
                self.in_flight_bytes += bytes.len();
                self.log_writes += 1;
                self.log_bytes += bytes.len() as u64;
                self.pace.written(turn.now, bytes.len());
            }
            turn.out.push(Output::Log(command));
        }
    }

    /// The Readies that have become durable, in order, by shard and number; and what they replace goes.
    pub fn take_durable(&mut self, turn: &mut Turn) -> Vec<(ShardId, u64)> {
        let durable = self.log.durable();
        assert!(durable <= self.appended, "what is durable was appended: {durable:?} of {:?}", self.appended);
        if self.disturbed.is_some_and(|entry| entry <= durable) {
            (self.rests, self.disturbed, self.was_disturbed) = (false, None, true);
        }
        let mut done = vec![];
        while let Some(persisting) = self.persisting.pop_front_if(|persisting| persisting.upto <= durable) {
            done.push((persisting.shard, persisting.number));
        }
        if self.moved_in <= durable && !std::mem::replace(&mut self.has_told_moved_in, true) {
            turn.send_to_all(|| MemberMail::MovedIn);
        }
        while let Some((_, name)) = self.replaced.pop_front_if(|(upto, _)| *upto <= durable) {
            let job = self.next_job();
            turn.out.push(Output::Bulk { job, step: BulkStep::Remove { name } });
        }
        done
    }

    /// The disk had room for a file. One that had none for a checkpoint may have it now: what the file had to leave
    /// free is for that.
    pub fn on_prepared(&mut self, turn: &Turn, segment: SegmentName) {
        self.log.prepared(segment);
        self.retry_at = self.retry_at.min(turn.now);
    }

    /// The log goes on in the files it has and in what has been kept free; they have room for what makes room:
    /// deletes, compaction, and this alarm, which keeps everything else out.
    pub fn on_disk_full(&mut self, turn: &mut Turn, source: &impl Source, segment: SegmentName) {
        let was_short = self.log.is_short();
        if !self.log.disk_full(segment, turn.now) {
            return;
        }
        turn.counters.paths.log_without_room += 1;
        if self.log.begins_in(segment) {
            let why = format!(
                "the disk of the data directory is full: a start needs {} bytes for each of its {} reactors, and \
                 what was kept back for that is used up or was kept for fewer. Give the disk more room",
                self.log.first_file_bytes_min(),
                turn.reactors
            );
            return turn.halt(why);
        }
        // What the log holds may go first, where it is more than a checkpoint takes.
        let needed = self.log.needed();
        if needed.closed < self.log.held().closed {
            // What is kept for others goes before anybody hears of it.
            return self.look_again_at_laggards();
        }
        if needed.closed > 0 && needed.written > checkpoint_bytes_max(source) {
            return;
        }
        if !was_short {
            let fields = vec![("segment", segment.to_string())];
            turn.log_line(
                Level::Warn,
                "the disk has no room for the log to grow: only what makes room is taken",
                fields,
            );
        }
        turn.raise_no_space(None);
    }

    /// What a new file of the log leaves free: what the largest checkpoint takes, and until the alarm stands,
    /// something for what makes room. A checkpoint that is written and not yet in the log's record frees more
    /// than any file takes.
    fn keep_disk_free(&mut self, turn: &Turn, source: &impl Source) {
        let is_full = turn.control.no_space();
        if is_full {
            self.log.shrink();
        }
        let reserve = if is_full { 0 } else { turn.settings.disk_reserve_bytes };
        let counts = self.log.durable() >= self.checkpointed;
        self.log.keep_free(if counts { checkpoint_bytes_max(source) + reserve } else { 0 });
    }

    /// Whether the process may end without leaving a write that nothing vouches for.
    pub fn log_is_at_rest(&self) -> bool {
        self.log.is_at_rest()
    }

    fn next_job(&mut self) -> JobId {
        self.jobs += 1;
        JobId(self.jobs)
    }

    // Checkpoints.

    /// Goes on with the checkpoint under way, or begins one that is due.
    pub fn work_in_background(&mut self, turn: &mut Turn, source: &mut impl Source) {
        self.fill_checkpoint(turn, source);
        self.schedule_checkpoints(turn, source);
        self.serve_laggards(turn, source);
        self.give_state(turn, source);
        self.take_state(turn, source);
        self.tell_haste(turn);
    }

    /// Whether the next turn goes on though no input comes.
    pub fn has_background_work(&self) -> bool {
        self.is_unwritten
            || self.has_entries_to_give()
            || self.has_state_to_give()
            || self.under_way.as_ref().is_some_and(Checkpointing::is_filled)
    }

    fn schedule_checkpoints(&mut self, turn: &mut Turn, source: &mut impl Source) {
        if self.under_way.is_some() || !turn.epoch_state.is_settled() || turn.now < self.retry_at {
            return;
        }
        // What the last one frees goes once its record is durable. A log that waits for the disk to have room
        // would otherwise be answered with checkpoints that fill it.
        if self.log.durable() < self.checkpointed {
            return;
        }
        let wanted = self.defragmenting.first().and_then(|(_, shards)| shards.first().copied());
        // On a full disk what frees the log makes room for what is asked for.
        let due =
            if wanted.is_none() || self.log.is_short() { self.due_for_the_log(turn, source) } else { None };
        match (due, wanted) {
            (Some(shard), _) => self.begin_checkpoint(turn, source, shard, Whole::WhereDue),
            (None, Some(shard)) => self.begin_checkpoint(turn, source, shard, Whole::Asked),
            (None, None) => {}
        }
    }

    /// The shard whose checkpoint frees most of a long log.
    fn due_for_the_log(&self, turn: &Turn, source: &impl Source) -> Option<ShardId> {
        if !self.log_is_long(turn, source) {
            return None;
        }
        // Where what is not settled holds the log, checkpoints one after the other would only make it longer.
        let frees = |shard, first_kept: Index| {
            source.position(shard).is_some_and(|position| position.index >= first_kept)
        };
        let held = self.log.held_for();
        let held = held.filter(|(resident, first, bytes)| *bytes > 0 && frees(resident.shard, *first));
        held.max_by_key(|(_, _, bytes)| *bytes).map(|(resident, ..)| resident.shard)
    }

    /// Whether so much of the log is held that checkpoints cost less: what a restart would read, or files that
    /// are hardly used; or anything that can be given back to a full disk.
    fn log_is_long(&self, turn: &Turn, source: &impl Source) -> bool {
        let data = source.bytes_sum();
        let most = turn.settings.checkpoint_log_bytes;
        let written = (CHECKPOINT_LOG_SHARE * data).clamp(CHECKPOINT_LOG_BYTES_MIN.min(most), most);
        let unused = data.max(LOG_UNUSED_FILES_MAX * self.log.file_bytes_min());
        let is_long = |held: Held| {
            let frees = (self.log.is_short() || turn.control.no_space()) && held.closed > 0;
            frees || held.written >= written || held.unused >= unused
        };
        is_long(self.log.held()) && is_long(self.log.needed())
    }

    /// Says whether the bulk lane's work for this reactor presses: somebody waits for it, or what it leaves undone
    /// grows, log that no checkpoint covers and history that one holds; and whether the log stands still for want
    /// of a file.
    fn tell_haste(&mut self, turn: &mut Turn) {
        let is_long = |held: Held| held.written / 2 >= turn.settings.checkpoint_log_bytes;
        // What is held is at hand each turn, what is needed of it has to be counted.
        let log_waits = is_long(self.log.held()) && is_long(self.log.needed());
        let history_waits = self.checkpoints_press_at() <= turn.now;
        let laggards_wait = self.laggards_press_at() <= turn.now;
        // What this member lacks it does not show.
        let state_waits = self.taking.is_some();
        let haste =
            !self.defragmenting.is_empty() || log_waits || history_waits || laggards_wait || state_waits;
        if haste != self.haste {
            self.haste = haste;
            turn.out.push(Output::Haste(haste));
        }
        let log_waits = self.log.awaits_segment();
        if log_waits != self.log_waits {
            self.log_waits = log_waits;
            turn.out.push(Output::LogWaits(log_waits));
        }
    }

    /// When a checkpoint under way has held history for too long.
    fn checkpoints_press_at(&self) -> Time {
        let begun = self.under_way.as_ref().map(Checkpointing::begun);
        begun.map_or(Time::NEVER, |begun| begun + Duration::from_secs(CHECKPOINT_PATIENCE_SECS))
    }

    /// When a checkpoint that has failed is tried again, or one under way begins to press.
    pub fn checkpoints_wake_at(&self, now: Time) -> Time {
        let retry_at = if now < self.retry_at { self.retry_at } else { Time::NEVER };
        let press_at = if self.haste { Time::NEVER } else { self.checkpoints_press_at() };
        retry_at.min(press_at)
    }

    pub fn on_defragment(&mut self, turn: &mut Turn, call: CallId) {
        let shards: Vec<ShardId> = self.of.keys().copied().collect();
        self.defragmenting.push((call, shards));
        self.end_defragmentations(turn);
    }

    fn defragmented_shard(&mut self, turn: &mut Turn, id: ShardId) {
        for (_, shards) in &mut self.defragmenting {
            shards.retain(|shard| *shard != id);
        }
        self.end_defragmentations(turn);
    }

    fn end_defragmentations(&mut self, turn: &mut Turn) {
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.defragmenting).into_iter().partition(|(_, shards)| shards.is_empty());
        self.defragmenting = waiting;
        if !done.is_empty() {
            // Who asks for this wants the disk to be smaller.
            self.log.shrink();
        }
        for (call, _) in done {
            turn.counters.paths.checkpoint_defragmented += 1;
            turn.send(call.reactor, CallMail::Defragmented { call, done: Ok(()) });
        }
    }

    /// Nobody waits for a checkpoint that cannot be written: it may be long until it can. As in etcd, the answer
    /// is what the operating system said.
    fn fail_defragmentations(&mut self, turn: &mut Turn, id: ShardId, why: &str) {
        let text = format!("cannot write the data anew: {why}");
        let waits = |(_, shards): &(CallId, Vec<ShardId>)| shards.contains(&id);
        let failed: Vec<_> = self.defragmenting.extract_if(.., |waiting| waits(waiting)).collect();
        for (call, _) in failed {
            let error = Error::Other { code: Code::Unknown, text: text.clone() };
            turn.send(call.reactor, CallMail::Defragmented { call, done: Err(error) });
        }
    }
}

/// About what the largest checkpoint takes.
fn checkpoint_bytes_max(source: &impl Source) -> u64 {
    source.bytes_max().map_or(0, |bytes| bytes + EMPTY_SHARD_BYTES)
}
