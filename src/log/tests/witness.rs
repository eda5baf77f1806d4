//! Three logs of one member, each keeping the others' words, and files that are lost, old or exchanged.

use super::*;
use crate::limits::{BLOCK_BYTES, LOG_WRITE_BYTES_MAX};
use crate::types::Time;
use std::collections::BTreeMap;

const SEGMENT: usize = 8 * 4096;
const SEGMENTS: SegmentBytes = SegmentBytes { least: SEGMENT, most: SEGMENT };

#[derive(Clone, Default)]
struct Files(BTreeMap<SegmentName, Vec<u8>>);

struct Member {
    logs: Vec<Log>,
    files: Files,
    written: u64,
}

impl Member {
    /// Three logs with an opening each, then so many writes in turn.
    fn new(writes: u64) -> Member {
        let start = |log| {
            Log::new(LogStart::fresh(LogId(log), STORE, 70 + u64::from(log), SEGMENTS), LOG_WRITE_BYTES_MAX)
        };
        let mut member = Member { logs: (0..3).map(start).collect(), files: Files::default(), written: 0 };
        for log in 0..3 {
            member.logs[log].append(resident(log as u32), opening(0));
            member.flush(log);
        }
        (0..writes).for_each(|_| member.write());
        member
    }

    /// One entry in the next log, which keeps the word of the one that wrote before; once the first log hears
    /// of the one after it.
    fn write(&mut self) {
        let at = (self.written % 3) as usize;
        let other = if self.written == 3 { 1 } else { (at + 2) % 3 };
        let word = self.logs[other].testimony();
        self.logs[at].hear(word);
        let index = Index(1 + self.written / 3);
        let entry = Record::Entry { index, term: Term(1), kind: 0, payload: &[7; 500] };
        self.logs[at].append(resident(at as u32), entry);
        self.flush(at);
        self.written += 1;
    }

    fn flush(&mut self, at: usize) {
        loop {
            let mut out = vec![];
            self.logs[at].flush(Time(0), &mut out);
            if out.is_empty() {
                return;
            }
            for command in out {
                match command {
                    Command::Write { id, segment, offset, bytes } => {
                        let file = self.files.0.get_mut(&segment).unwrap();
                        file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                        self.logs[at].written(id);
                    }
                    Command::Prepare { segment, bytes, .. } => {
                        self.files.0.insert(segment, vec![0; bytes as usize]);
                        self.logs[at].prepared(segment);
                    }
                    Command::Recycle { old, new } => {
                        let bytes = self.files.0.remove(&old).unwrap();
                        self.files.0.insert(new, bytes);
                        self.logs[at].prepared(new);
                    }
                    Command::Remove { segment } => drop(self.files.0.remove(&segment)),
                }
            }
        }
    }
}

impl Files {
    fn recover(&self) -> Result<Vec<Recovered>, LogDamage> {
        let mut logs: Vec<LogId> = self.0.keys().map(|name| name.log).collect();
        logs.dedup();
        let recover = |log: LogId| {
            let mut recovery = Recovery::new(log, STORE, 99, SEGMENTS);
            let needed = Needed::of(self.of(log).map(|(name, bytes)| (*name, &bytes[..])));
            for (name, bytes) in self.of(log) {
                let upto = needed.bytes_of(*name, bytes.len() as u64) as usize;
                recovery.part(*name, &bytes[..upto], bytes.len());
            }
            recovery.finish()
        };
        let recovered: Vec<Recovered> = logs.into_iter().map(recover).collect::<Result<_, _>>()?;
        cross_examine(&recovered).map(|()| recovered)
    }

    fn cause(&self) -> Option<Cause> {
        self.recover().err().map(|damage| damage.cause)
    }

    fn of(&self, log: LogId) -> impl Iterator<Item = (&SegmentName, &Vec<u8>)> {
        self.0.iter().filter(move |(name, _)| name.log == log)
    }

    /// The last blocks of a log that are not zero become so.
    fn lose_tail(&mut self, log: LogId, mut blocks: usize) {
        for (_, bytes) in self.0.iter_mut().rev().filter(|(name, _)| name.log == log) {
            for block in bytes.chunks_mut(4096).rev() {
                if blocks > 0 && block.iter().any(|byte| *byte != 0) {
                    block.fill(0);
                    blocks -= 1;
                }
            }
        }
    }
}

const LOGS: [LogId; 3] = [LogId(0), LogId(1), LogId(2)];

#[test]
fn a_log_that_lost_its_end_is_found_out_by_the_others() {
    let member = Member::new(30);
    assert_eq!(member.files.cause(), None);
    for log in LOGS {
        for blocks in 2..12 {
            let mut files = member.files.clone();
            files.lose_tail(log, blocks);
            let damage = files.recover().unwrap_err();
            let lost = matches!(damage.cause, Cause::Outlived { .. } | Cause::Lost { .. });
            assert!(lost && damage.segment.log == log, "{log:?} {blocks}: {damage}");
        }
    }
}

/// What nobody has said anything of: the very last write of all.
#[test]
fn only_the_last_write_of_all_has_no_witness() {
    let member = Member::new(30);
    for log in LOGS {
        let mut files = member.files.clone();
        files.lose_tail(log, 1);
        assert_eq!(files.cause().is_none(), log == LogId(2), "{log:?}");
    }
}

/// The first log has heard of the last, as no other has, goes on alone and needs no file of that time any more.
#[test]
fn a_word_outlives_the_file_it_was_said_in() {
    let mut member = Member::new(30);
    let append = |member: &mut Member, indexes: std::ops::Range<u64>| {
        for index in indexes.map(Index) {
            let entry = Record::Entry { index, term: Term(1), kind: 0, payload: &[7; 500] };
            member.logs[0].append(resident(0), entry);
            member.flush(0);
        }
    };
    let alone = |member: &mut Member, from: u64| {
        append(member, from..from + 60);
        let checkpoint = Checkpointed { index: Index(from + 50), term: Term(1), ..Checkpointed::default() };
        member.logs[0].append(resident(0), Record::Checkpoint(checkpoint));
        append(member, from + 60..from + 70);
    };
    let word = member.logs[2].testimony();
    member.logs[0].hear(word);
    alone(&mut member, 11);
    let is_told = |member: &Member| {
        let mut files = member.files.clone();
        assert_eq!(files.cause(), None);
        files.lose_tail(LogId(2), 4);
        matches!(files.cause(), Some(Cause::Outlived { .. }))
    };
    assert!(is_told(&member));
    // A process that has not heard anything itself goes on with what was read.
    let mut recovered = member.files.recover().unwrap();
    keep_words(&mut recovered, 3);
    member.logs[0] = Log::new(recovered.remove(0).start, LOG_WRITE_BYTES_MAX);
    member.flush(0);
    [81, 151, 221].iter().for_each(|from| alone(&mut member, *from));
    assert!(is_told(&member));
}

#[test]
fn a_log_from_an_earlier_copy_is_found_out() {
    let early = Member::new(12).files;
    let late = Member::new(15).files;
    for log in LOGS {
        let mut mixed = late.clone();
        for (name, bytes) in early.of(log) {
            mixed.0.insert(*name, bytes.clone());
        }
        // The last log to write has no witness for its last write.
        let damage = mixed.recover().err();
        assert_eq!(damage.is_none(), log == LogId(2), "{log:?}");
        assert!(damage.is_none_or(|damage| matches!(damage.cause, Cause::Outlived { .. })));
    }
}

#[test]
fn a_log_that_is_gone_or_anothers_is_found_out() {
    let member = Member::new(30);
    for log in LOGS {
        let mut files = member.files.clone();
        files.0.retain(|name, _| name.log != log);
        let damage = files.recover().unwrap_err();
        assert!(matches!(damage.cause, Cause::Gone { .. }) && damage.segment.log == log, "{damage}");
        assert!(damage.to_string().starts_with(&format!("log {} is missing: log file", log.0)));
        // Files that were made and never written say nothing.
        for (name, bytes) in member.files.of(log) {
            files.0.insert(*name, vec![0; bytes.len()]);
        }
        assert!(matches!(files.cause(), Some(Cause::Outlived { .. })));
    }
    // The same log of another member.
    let mut files = member.files.clone();
    let mut other = Member::new(0);
    other.logs[1] = Log::new(LogStart::fresh(LogId(1), STORE, 5, SEGMENTS), LOG_WRITE_BYTES_MAX);
    other.files.0.retain(|name, _| name.log != LogId(1));
    other.logs[1].append(resident(1), opening(0));
    other.flush(1);
    files.0.retain(|name, _| name.log != LogId(1));
    files.0.extend(other.files.of(LogId(1)).map(|(name, bytes)| (*name, bytes.clone())));
    assert!(matches!(files.cause(), Some(Cause::Replaced { .. })));
}

/// A log dies with its reactor, once a process without it has served; the next of its number has another key.
#[test]
fn a_log_that_died_is_missed_by_nobody_and_may_be_born_again() {
    let mut member = Member::new(30);
    member.files.0.retain(|name, _| name.log != LogId(2));
    let restart = |member: &mut Member| {
        for at in 0..2 {
            let mut recovery = Recovery::new(LogId(at), STORE, 99, SEGMENTS);
            member.files.of(LogId(at)).for_each(|(name, bytes)| recovery.segment(*name, bytes));
            member.logs[at as usize] = Log::new(recovery.finish().unwrap().start, LOG_WRITE_BYTES_MAX);
        }
    };
    assert!(matches!(member.files.cause(), Some(Cause::Gone { .. })));
    // A process of two reactors.
    restart(&mut member);
    member.flush(0);
    assert_eq!(member.files.cause(), None);
    member.flush(1);
    assert_eq!(member.files.cause(), None);
    // One of three again: the new log is there before anybody speaks of it.
    restart(&mut member);
    member.logs[2] = Log::new(LogStart::fresh(LogId(2), STORE, 1000, SEGMENTS), LOG_WRITE_BYTES_MAX);
    member.logs[2].append(resident(2), opening(0));
    member.flush(2);
    assert_eq!(member.files.cause(), None);
    let word = member.logs[2].testimony();
    member.logs[0].hear(word);
    member.flush(0);
    assert_eq!(member.files.cause(), None);
    let mut files = member.files.clone();
    files.0.retain(|name, _| name.log != LogId(2));
    assert!(matches!(files.cause(), Some(Cause::Gone { .. })));
}

#[test]
fn exchanged_and_missing_files_are_damage() {
    let member = Member::new(60);
    let names: Vec<SegmentName> = member.files.0.keys().copied().collect();
    let written = |name: &SegmentName| member.files.0[name].iter().any(|byte| *byte != 0);
    for (at, one) in names.iter().enumerate() {
        let mut files = member.files.clone();
        let bytes = files.0.remove(one).unwrap();
        let is_last = !names.contains(&SegmentName { sequence: one.sequence + 1, ..*one });
        let stands_by = !written(one) && (is_last || one.sequence == 0);
        assert_eq!(files.cause().is_none(), stands_by, "without {one}");
        for other in &names[at + 1..] {
            let mut files = files.clone();
            let swapped = files.0.insert(*other, bytes.clone()).unwrap();
            files.0.insert(*one, swapped);
            let harmless = !written(one) && !written(other);
            assert_eq!(files.cause().is_none(), harmless, "{one} and {other}");
        }
    }
}

/// A file that waits to go round holds an earlier life: it is no less damage when the newest has its name.
#[test]
fn the_newest_file_under_the_name_of_one_that_nobody_needs_is_damage() {
    let mut member = Member::new(60);
    let checkpoint = Checkpointed { index: Index(20), term: Term(1), ..Checkpointed::default() };
    member.logs[0].append(resident(0), Record::Checkpoint(checkpoint));
    (0..30).for_each(|_| member.write());
    let start = member.files.recover().unwrap().remove(0).start;
    let newest = SegmentName { log: LogId(0), sequence: start.end.segment };
    let written = |(_, bytes): &(&SegmentName, &Vec<u8>)| bytes.iter().any(|byte| *byte != 0);
    let names: Vec<SegmentName> = member.files.of(LogId(0)).filter(written).map(|(name, _)| *name).collect();
    assert!(names.iter().any(|name| name.sequence < start.first));
    for other in names.into_iter().filter(|name| *name != newest) {
        let mut files = member.files.clone();
        let (ours, theirs) = (files.0[&newest].clone(), files.0[&other].clone());
        files.0.extend([(newest, theirs), (other, ours)]);
        let cause = files.cause();
        assert!(matches!(cause, Some(Cause::Exchanged { .. })), "{newest} and {other}: {cause:?}");
    }
}

/// All files of a store, or one of them, under the identity of another directory.
#[test]
fn files_of_another_store_are_damage_and_nothing_is_read_from_them() {
    let (member, theirs) = (Member::new(60), StoreId(7));
    let read = |log, store, files: &Files| {
        let mut recovery = Recovery::new(log, store, 99, SEGMENTS);
        files.of(log).for_each(|(name, bytes)| recovery.segment(*name, bytes));
        recovery.read()
    };
    for log in LOGS {
        let (recovered, damage) = read(log, theirs, &member.files);
        let damage = damage.unwrap();
        assert_eq!(damage.cause, Cause::Strange { store: STORE, ours: theirs });
        assert!(recovered.residents.is_empty() && recovered.testimonies.is_empty());
        assert_eq!(recovered.settled, Revision::NONE);
        let told = damage.to_string();
        let names_both = told.contains("store 0123456789abcdef,") && told.contains("store 0000000000000007:");
        assert!(names_both && told.contains("Mount or put back the store that belongs here"), "{told}");
    }
    // What a log begins with is as foreign when the rest is ours, also where nobody needs it.
    let (name, bytes) = member.files.of(LogId(1)).find(|(name, _)| name.sequence == 1).unwrap();
    for store in [STORE, theirs] {
        let mut recovery = Recovery::new(LogId(1), store, 99, SEGMENTS);
        recovery.part(*name, &bytes[..BLOCK_BYTES], bytes.len());
        let cause = recovery.finish().err().map(|damage| damage.cause);
        let strange = (store == theirs).then_some(Cause::Strange { store: STORE, ours: theirs });
        assert_eq!(cause.filter(|cause| matches!(cause, Cause::Strange { .. })), strange);
    }
}
