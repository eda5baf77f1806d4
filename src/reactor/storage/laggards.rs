//! Followers that lack more than their group has in memory get it from the log on disk.
//!
//! **The question.** A member was away and lacks megabytes, some of which checkpoints hold by now. How does it get
//! them without a client waiting for the disk, and without a link being given more than it takes?
//!
//! **The rule.** The bulk lane reads, one piece at a time for all groups of a reactor; a turn takes a slice of what
//! was read. A follower is given a batch, and the next once it has all but that one. The log keeps what followers
//! lack, up to a bound and for as long as they may be back soon; on a full disk it keeps nothing for them. Behind a state
//! that is given it keeps all (`pace.rs`). Who lacks what the log has let go of, or what the disk has lost, is left to its
//! group, which does not ask again.
//!
//! **Why not otherwise.** To keep all that a follower lacks in memory would take as much as is written while it is
//! away. To read for all of them at once would make each slower, and what is read of one group's log is in the same
//! segments as the others'.

use super::pace::WritePace;
use super::{Source, Storage, Turn};
use crate::io::{BulkDone, BulkStep, JobId, Level, Output};
use crate::limits::{
    CHECKPOINT_PATIENCE_SECS, LAGGARD_BATCH_BYTES, LAGGARD_GROUPS_MAX, LAGGARD_LOOK_MS,
    LAGGARD_PATIENCE_SECS, LAGGARD_RETRY_SECS, READ_SLICE_BYTES,
};
use crate::log::{Entries, EntryReader, LogPiece, RecoveredEntry, Resident, Unreadable};
use crate::raft::{Content, EntriesWanted, GroupEntry, Position};
use crate::types::{Duration, Index, RaftId, ShardId, Term, Time};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Laggards {
    under_way: Option<LogRead>,
    followers: BTreeMap<(ShardId, RaftId), Follower>,
    /// Whose group was read for last: the next one's turn comes before it.
    served: ShardId,
    /// A read has failed, and none is begun before this time.
    retry_at: Time,
    looked_at: Option<Time>,
    /// Since when somebody wants what is read.
    wanted_since: Option<Time>,
    /// Something was given behind this turn's messages.
    gave: bool,
    /// Followers that had everything again.
    caught_up: u64,
}

struct LogRead {
    job: JobId,
    resident: Resident,
    wanted: EntriesWanted,
    reader: EntryReader,
    /// Payload that was given.
    bytes: usize,
}

/// What is known of a follower.
struct Follower {
    matched: Index,
    /// Of the entry there, where it was known while it was the follower's last.
    term: Option<Term>,
    /// When it last had more than before, or everything.
    moved_at: Time,
    given: Option<LastBatch>,
}

/// The last batch that was read for a follower.
#[derive(Clone, Copy)]
struct LastBatch {
    from: Index,
    /// The last entry so far.
    upto: Index,
    at: Time,
}

/// How far a follower has the entries of a group that is led here.
pub struct FollowerFigures {
    pub resident: Resident,
    pub peer: RaftId,
    pub matched: Index,
    /// Of the entry there, if it is committed and the group knows it.
    pub term: Option<Term>,
    /// The last one that there is.
    pub last: Index,
}

impl Laggards {
    /// How often a follower that was given entries from the log had all of it again.
    pub fn caught_up(&self) -> u64 {
        self.caught_up
    }

    /// Whether something that was read is to be taken.
    fn has_records(&self) -> bool {
        self.under_way.as_ref().is_some_and(|read| read.reader.has_records())
    }

    /// Whether the follower has all that was read for it, but for the last batch, or lacks some of that again; and has
    /// what was read for it of other groups, but for a few.
    fn may_have_more(&self, now: Time, shard: ShardId, wanted: &EntriesWanted) -> bool {
        let follower = self.followers.get(&(shard, wanted.peer));
        let given = follower.filter(|follower| follower.has_some_on_its_way(now)).and_then(|of| of.given);
        let has_it =
            given.is_none_or(|given| wanted.matched.next() >= given.from || wanted.from <= given.from);
        let others = self.followers.iter().filter(|((of, peer), follower)| {
            *of != shard && *peer == wanted.peer && follower.has_some_on_its_way(now)
        });
        has_it && others.count() < LAGGARD_GROUPS_MAX
    }

    /// Takes note of where a follower is. From which index on the log is to be kept for it, if it is.
    fn heard(&mut self, now: Time, of: &FollowerFigures) -> Option<Index> {
        let FollowerFigures { resident, peer, matched, term, last } = *of;
        assert!(matched <= last, "a follower has nothing that its leader has not: {matched} of {last}");
        let fresh = Follower { matched, term, moved_at: now, given: None };
        let follower = self.followers.entry((resident.shard, peer)).or_insert(fresh);
        if matched > follower.matched || matched == last {
            follower.moved_at = now;
        }
        if matched == last && follower.given.take().is_some() {
            self.caught_up += 1;
        }
        let known = follower.term.filter(|_| matched == follower.matched);
        (follower.matched, follower.term) = (matched, term.or(known));
        // Entries are given with the term of the one before the first.
        let from = if follower.term.is_some() { matched.next() } else { matched };
        (now < follower.moved_at + Duration::from_secs(LAGGARD_PATIENCE_SECS)).then_some(from)
    }

    fn note_given(&mut self, now: Time, read: &LogRead, entries: &[GroupEntry]) {
        let (follower, last) = ((read.resident.shard, read.wanted.peer), entries.last());
        let upto = read.wanted.upto;
        assert!(last.is_some_and(|last| last.index <= upto), "what was wanted is given, up to {upto}");
        if let (Some(follower), Some(last)) = (self.followers.get_mut(&follower), last) {
            follower.given = Some(LastBatch { from: read.wanted.from, upto: last.index, at: now });
        }
    }

    /// The term of the entry before the first one that is wanted, if it is known.
    fn term_before(&self, shard: ShardId, wanted: &EntriesWanted) -> Option<Term> {
        let follower = self.followers.get(&(shard, wanted.peer))?;
        follower.term.filter(|_| follower.matched.next() == wanted.from)
    }
}

impl Follower {
    /// Whether what it was given may still be on its way. What has not come for long was lost.
    fn has_some_on_its_way(&self, now: Time) -> bool {
        let patience = Duration::from_secs(LAGGARD_RETRY_SECS);
        self.given.is_some_and(|given| given.upto > self.matched && now < given.at + patience)
    }
}

impl Storage {
    /// Goes on reading for followers, or begins to where one wants it.
    pub(super) fn serve_laggards(&mut self, turn: &mut Turn, source: &mut impl Source) {
        if turn.is_alone() {
            self.pace = WritePace::default();
            return;
        }
        self.keep_log_for_followers(turn, source);
        self.laggards.gave = self.laggards.has_records();
        self.take_entries(turn, source);
        if self.laggards.under_way.is_none() && turn.now >= self.laggards.retry_at {
            self.begin_log_read(turn, source);
        }
    }

    /// Whether the next turn goes on though no input comes.
    pub(super) fn has_entries_to_give(&self) -> bool {
        self.laggards.gave || self.laggards.has_records()
    }

    /// What is kept for followers is looked at with the next turn.
    pub(super) fn look_again_at_laggards(&mut self) {
        self.laggards.looked_at = None;
    }

    /// When reading for followers has taken so long that it presses.
    pub(super) fn laggards_press_at(&self) -> Time {
        let since = self.laggards.wanted_since;
        since.map_or(Time::NEVER, |since| since + Duration::from_secs(CHECKPOINT_PATIENCE_SECS))
    }

    /// When a read that has failed is tried again, or one begins to press.
    pub fn laggards_wake_at(&self, now: Time) -> Time {
        let retry_at = self.laggards.retry_at;
        let retry_at = if now < retry_at { retry_at } else { Time::NEVER };
        let press_at = if self.haste { Time::NEVER } else { self.laggards_press_at() };
        retry_at.min(press_at)
    }

    /// What followers of this reactor's groups lack stays in the log, though checkpoints hold it.
    fn keep_log_for_followers(&mut self, turn: &mut Turn, source: &impl Source) {
        let laggards = &mut self.laggards;
        if laggards.looked_at.is_some_and(|at| turn.now < at + Duration::from_ms(LAGGARD_LOOK_MS)) {
            return;
        }
        laggards.looked_at = Some(turn.now);
        let followers = source.followers();
        let mut kept: BTreeMap<Resident, Index> = BTreeMap::new();
        for follower in &followers {
            if let Some(from) = laggards.heard(turn.now, follower) {
                let least = kept.entry(follower.resident).or_insert(from);
                *least = from.min(*least);
            }
        }
        // Whoever comes to lead next may find that somebody lacks any of it.
        kept.extend(source.led_elsewhere().into_iter().map(|resident| (resident, Index(1))));
        let is_there = |(shard, peer): &(ShardId, RaftId)| {
            followers.iter().any(|follower| (follower.resident.shard, follower.peer) == (*shard, *peer))
        };
        laggards.followers.retain(|of, _| is_there(of));
        self.hear_of_given(turn, &followers);
        let is_short = self.log.is_short() || turn.control.no_space();
        let bounds = &turn.settings.bounds;
        let bytes_max = if is_short { 0 } else { bounds.laggard_log_bytes_max };
        self.log.keep_for_others(kept, bytes_max);
        // What comes behind a state that is given away is worth more than the state.
        let behind_states = if is_short { BTreeMap::new() } else { self.kept_for_states() };
        let is_long = self.log.held().written > bounds.paced_log_bytes;
        let is_paced = is_long && !is_short && self.anybody_returns();
        self.pace.set(turn.now, is_paced, bounds.paced_bytes_per_sec);
        self.log.keep_whole(behind_states);
        self.offer_states(turn, source);
    }

    fn begin_log_read(&mut self, turn: &mut Turn, source: &mut impl Source) {
        assert!(self.laggards.under_way.is_none(), "one read is under way at a time");
        let mut wanted = source.wanted_entries();
        if wanted.is_empty() {
            self.laggards.wanted_since = None;
            return;
        }
        self.laggards.wanted_since.get_or_insert(turn.now);
        let served = self.laggards.served;
        wanted.sort_by_key(|(resident, _)| (resident.shard <= served, resident.shard));
        for (resident, wanted) in wanted {
            let shard = resident.shard;
            if !self.laggards.may_have_more(turn.now, shard, &wanted) {
                continue;
            }
            let before = self.laggards.term_before(shard, &wanted);
            match self.log.read(resident, wanted.from, wanted.upto, before) {
                Ok(reader) => {
                    let piece = reader.wants().expect("it has read nothing");
                    let job = self.next_job();
                    self.laggards.served = shard;
                    let read = LogRead { job, resident, wanted, reader, bytes: 0 };
                    return self.read_on(turn, read, piece);
                }
                Err(after) => source.log_begins_after(shard, after),
            }
        }
    }

    fn read_on(&mut self, turn: &mut Turn, read: LogRead, piece: LogPiece) {
        turn.out.push(Output::Bulk { job: read.job, step: BulkStep::Read(piece) });
        self.laggards.under_way = Some(read);
    }

    /// Takes the answer to a step of this; else gives it back.
    pub(super) fn on_log_read(
        &mut self,
        turn: &mut Turn,
        source: &mut impl Source,
        job: JobId,
        done: BulkDone,
    ) -> Option<BulkDone> {
        let Some(mut read) = self.laggards.under_way.take_if(|read| read.job == job) else {
            return Some(done);
        };
        match done {
            BulkDone::Read(bytes) => match read.reader.take(&bytes) {
                Ok(()) => match read.reader.wants() {
                    // A long frame comes in several pieces.
                    Some(piece) => self.read_on(turn, read, piece),
                    None => {
                        self.laggards.under_way = Some(read);
                        self.take_entries(turn, source);
                    }
                },
                Err(unreadable) => self.log_is_unreadable(turn, source, &read, unreadable),
            },
            BulkDone::Failed(why) => self.log_read_failed(turn, &why),
            BulkDone::Done | BulkDone::Full => unreachable!("a read gives bytes, or fails: {done:?}"),
        }
        None
    }

    fn log_read_failed(&mut self, turn: &mut Turn, why: &str) {
        self.log.end_read();
        self.laggards.retry_at = turn.now + Duration::from_secs(LAGGARD_RETRY_SECS);
        let fields = vec![("error", why.to_owned())];
        turn.log_line(Level::Warn, "failed to read the log for a member that lags", fields);
    }

    /// One slice of what was read goes to the group; then the next piece is asked for, if there is room for it.
    fn take_entries(&mut self, turn: &mut Turn, source: &mut impl Source) {
        let Some(mut read) = self.laggards.under_way.take_if(|read| read.reader.has_records()) else {
            return;
        };
        let shard = read.resident.shard;
        match read.reader.entries(READ_SLICE_BYTES) {
            Ok(None) => {}
            Ok(Some(found)) => match group_entries(&found) {
                Some(entries) => {
                    let bytes = found.entries.iter().map(|entry| entry.payload.bytes().len()).sum::<usize>();
                    read.bytes += bytes;
                    self.pace.taken(bytes);
                    self.laggards.note_given(turn.now, &read, &entries);
                    turn.counters.paths.follower_fell_behind += 1;
                    let (index, term) = found.after;
                    source.give_entries(shard, Position { index, term }, entries);
                }
                None => {
                    let unreadable = read.reader.unreadable();
                    return self.log_is_unreadable(turn, source, &read, unreadable);
                }
            },
            Err(unreadable) => return self.log_is_unreadable(turn, source, &read, unreadable),
        }
        match read.reader.wants() {
            _ if read.reader.has_records() => self.laggards.under_way = Some(read),
            Some(piece) if read.bytes < LAGGARD_BATCH_BYTES => self.read_on(turn, read, piece),
            _ => self.log.end_read(),
        }
    }

    /// The disk has lost or changed what was written. Nothing of it is given to anybody; whoever lacks it needs the
    /// state instead.
    fn log_is_unreadable(
        &mut self,
        turn: &mut Turn,
        source: &mut impl Source,
        read: &LogRead,
        Unreadable { segment, offset, upto }: Unreadable,
    ) {
        self.log.end_read();
        source.log_begins_after(read.resident.shard, upto.max(read.wanted.from));
        let fields = vec![("segment", segment.to_string()), ("offset", offset.to_string())];
        let message = "the log cannot be read back as it was written: the disk has lost or changed it";
        turn.log_line(Level::Warn, message, fields);
    }
}

/// None where an entry is of no kind that a group has.
fn group_entries(found: &Entries) -> Option<Vec<GroupEntry>> {
    let entry = |RecoveredEntry { index, term, kind, payload }: &RecoveredEntry| {
        let content = Content::of(*kind, payload)?;
        Some(GroupEntry { index: *index, term: *term, content })
    };
    found.entries.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_000_000);

    fn figures(shard: u32, matched: u64, term: Option<u64>) -> FollowerFigures {
        let resident = Resident { shard: ShardId(shard), home: 0 };
        let (peer, matched) = (RaftId::new(3).unwrap(), Index(matched));
        FollowerFigures { resident, peer, matched, term: term.map(Term), last: Index(100) }
    }

    fn wants(from: u64, matched: u64) -> EntriesWanted {
        let (from, matched) = (Index(from), Index(matched));
        EntriesWanted { from, upto: Index(90), peer: RaftId::new(3).unwrap(), matched }
    }

    fn given(laggards: &mut Laggards, shard: u32, from: u64, upto: u64) {
        let follower = laggards.followers.get_mut(&(ShardId(shard), RaftId::new(3).unwrap())).unwrap();
        follower.given = Some(LastBatch { from: Index(from), upto: Index(upto), at: NOW });
    }

    #[test]
    fn a_follower_is_given_a_batch_when_it_has_all_but_the_last_one() {
        let mut laggards = Laggards::default();
        let shard = ShardId(1);
        assert!(laggards.may_have_more(NOW, shard, &wants(11, 10)));
        laggards.heard(NOW, &figures(1, 10, None));
        given(&mut laggards, 1, 11, 20);
        assert!(laggards.may_have_more(NOW, shard, &wants(21, 10)));
        given(&mut laggards, 1, 21, 30);
        assert!(!laggards.may_have_more(NOW, shard, &wants(31, 19)));
        assert!(laggards.may_have_more(NOW, shard, &wants(31, 20)));
        assert!(laggards.may_have_more(NOW, shard, &wants(11, 10)), "what was given is lost");
        let late = NOW + Duration::from_secs(LAGGARD_RETRY_SECS);
        assert!(laggards.may_have_more(late, shard, &wants(31, 0)), "it was, though nobody has said so");
    }

    #[test]
    fn a_few_groups_at_a_time_have_something_on_its_way_to_a_follower() {
        let mut laggards = Laggards::default();
        let groups = 1..=LAGGARD_GROUPS_MAX as u32;
        for shard in groups.clone() {
            assert!(laggards.may_have_more(NOW, ShardId(shard), &wants(11, 10)));
            laggards.heard(NOW, &figures(shard, 10, None));
            given(&mut laggards, shard, 11, 20);
        }
        let next = ShardId(*groups.end() + 1);
        assert!(!laggards.may_have_more(NOW, next, &wants(11, 10)));
        assert!(laggards.may_have_more(NOW, ShardId(1), &wants(21, 10)), "its own is not counted");
        let late = NOW + Duration::from_secs(LAGGARD_RETRY_SECS);
        assert!(laggards.may_have_more(late, next, &wants(11, 10)), "it was lost");
        laggards.heard(NOW, &figures(2, 20, None));
        assert!(laggards.may_have_more(NOW, next, &wants(11, 10)));
    }

    #[test]
    fn the_log_is_kept_for_who_lags_and_may_be_back() {
        let mut laggards = Laggards::default();
        assert_eq!(laggards.heard(NOW, &figures(1, 100, Some(2))), Some(Index(101)), "it lacks nothing");
        assert_eq!(
            laggards.heard(NOW, &figures(1, 10, None)),
            Some(Index(10)),
            "of the entry before a term is needed"
        );
        assert_eq!(laggards.heard(NOW, &figures(1, 20, Some(2))), Some(Index(21)));
        assert_eq!(laggards.heard(NOW, &figures(1, 20, None)), Some(Index(21)), "it was known");
        assert_eq!(laggards.term_before(ShardId(1), &wants(21, 20)), Some(Term(2)));
        assert_eq!(laggards.term_before(ShardId(1), &wants(31, 20)), None);
        let late = NOW + Duration::from_secs(LAGGARD_PATIENCE_SECS);
        assert_eq!(laggards.heard(late, &figures(1, 20, None)), None);
        assert_eq!(laggards.heard(late, &figures(1, 21, None)), Some(Index(21)), "it moves");
    }
}
