//! What a takeover does on one member, as transcripts: a command behind `>`, and below it all that it gives.
//!
//! Two reactors: reactor 0 has the control shard and shard 1, reactor 1 has shard 2. The driver of groups and the
//! mail between reactors are played by the commands.
//!
//! ```text
//!   stopped R            reactor R acknowledges the end of the last epoch
//!   leads T              the control shard leads in term T
//!   append S ENTRY       an entry comes to stand in shard S's log: fence, seal E P, batch E SETTLED R...
//!   truncate S I         another leader's log for shard S ends before entry I
//!   commit S             all that stands in shard S's log commits
//!   fenced control E     the control shard's fence of epoch E is committed
//!   fenced R E           reactor R reports its shards, fenced for epoch E
//!   sealed R E           so does it of its seals
//!   lost                 some group is lost
//!   settle S R           shard S's state is settled up to revision R
//!   log S                what shard S's log means
//! ```

mod members;

use super::*;
use crate::log::LogId;
use crate::raft::Position;
use crate::record::{Batch, Change, Entry, Payload, Write};
use crate::types::{Epoch, Index, ReactorId, Revision, ShardId, Term};
use std::fmt::Write as _;

struct LoneMember {
    coordinator: Coordinator,
    logs: [LogView; 3],
}

/// A fresh member, or one whose last epoch was the one that its control log names.
fn member(logs: [LogView; 3]) -> LoneMember {
    LoneMember { coordinator: Coordinator::new(2, logs[0].newest_epoch()), logs }
}

fn epoch(text: &str) -> Epoch {
    let (term, attempt) = text.split_once('.').expect("an epoch is a term and an attempt");
    Epoch { term: Term(term.parse().unwrap()), attempt: attempt.parse().unwrap() }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

fn entry(words: &[&str]) -> Payload {
    let said = match words {
        ["fence", at] => Entry::Fence(epoch(at).into()),
        ["seal", at, prefix] => Entry::Seal { epoch: epoch(at).into(), prefix: number(prefix) },
        ["batch", at, settled, revisions @ ..] => {
            // `5/2` is a part of revision 5, which has two.
            let writes = revisions.iter().map(|revision| {
                let (revision, parts) = revision.split_once('/').unwrap_or((revision, "1"));
                let changes = vec![Change::Delete { sub: 0, key: b"k".to_vec() }];
                Write { revision: number(revision), parts: parts.parse().unwrap(), more: false, changes }
            });
            let (epoch, settled) = (epoch(at).into(), number(settled));
            Entry::Batch(Batch { epoch, settled, writes: writes.collect() })
        }
        other => panic!("no entry: {other:?}"),
    };
    Payload::of(&said)
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() { "none".to_string() } else { items.join(" ") }
}

impl LoneMember {
    fn shards(reactor: u16) -> &'static [usize] {
        if reactor == 0 { &[0, 1] } else { &[2] }
    }

    fn step(step: Option<Step>) -> String {
        match step {
            None => "nothing".to_string(),
            Some(Step::Stop) => "stop".to_string(),
            Some(Step::FenceControl { epoch }) => format!("fence the control shard: {epoch}"),
            Some(Step::Fence { epoch }) => format!("fence all others: {epoch}"),
            Some(Step::Seal { epoch, prefix }) => format!("seal: {epoch} up to {prefix}"),
            Some(Step::Serve { epoch, prefix }) => format!("serve: {epoch} from {}", prefix.next()),
        }
    }

    fn report(&self, reactor: u16) -> Report {
        let logs = || LoneMember::shards(reactor).iter().map(|shard| (*shard as u32, &self.logs[*shard]));
        let holding = |(shard, log): (u32, &LogView)| Holding {
            shard: ShardId(shard),
            log: LogId(u32::from(reactor)),
            held: log.held(),
            parts: log.parts(),
        };
        let base = logs().map(|(_, log)| log.known_settled()).max().unwrap().max(Revision::FRESH);
        Report { base, shards: logs().map(holding).collect() }
    }

    fn commit(&mut self, shard: usize) -> String {
        let last = self.logs[shard].last().index;
        let mut said = String::new();
        loop {
            match self.logs[shard].read_next(last) {
                Ok(None) => return said,
                Ok(Some((at, EntryRead::Fence(epoch)))) => writeln!(said, "{}: fence {epoch}", at.index),
                Ok(Some((at, EntryRead::Seal(Seal { epoch, prefix })))) => {
                    writeln!(said, "{}: seal {epoch} up to {prefix}", at.index)
                }
                Ok(Some((at, EntryRead::Writes(count)))) => {
                    let revisions = list(self.logs[shard].newest(count).map(|write| write.revision));
                    writeln!(said, "{}: writes {revisions}", at.index)
                }
                Ok(Some((at, read))) => writeln!(said, "{}: {read:?}", at.index),
                Err(inconsistent) => return said + &inconsistent.to_string(),
            }
            .unwrap();
        }
    }

    fn run(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        let reactor = |text: &str| ReactorId(text.parse().unwrap());
        match words[..] {
            ["stopped", of] => {
                self.coordinator.stopped(reactor(of));
                if self.coordinator.may_begin() { "all have".to_string() } else { String::new() }
            }
            ["leads", term] => LoneMember::step(self.coordinator.begin(Term(number(term)))),
            ["append", shard, ..] => {
                let log = &mut self.logs[number(shard) as usize];
                let at = Position { index: log.last().index.next(), term: Term(2) };
                log.stand(at, Decoded::of(at.index, Some(&entry(&words[2..]))));
                format!("stands at {}", at.index)
            }
            ["truncate", shard, from] => {
                self.logs[number(shard) as usize].truncate(Index(number(from)));
                String::new()
            }
            ["commit", shard] => self.commit(number(shard) as usize),
            ["fenced", "control", at] => LoneMember::step(self.coordinator.control_fenced(epoch(at))),
            ["fenced", of, at] => {
                let report = self.report(reactor(of).0);
                match self.coordinator.fenced(reactor(of), epoch(at), report) {
                    Ok(step) => LoneMember::step(step),
                    Err(hole) => hole.to_string(),
                }
            }
            ["sealed", of, at] => LoneMember::step(self.coordinator.sealed(reactor(of), epoch(at))),
            ["lost"] => LoneMember::step(Some(self.coordinator.end())),
            ["settle", shard, upto] => {
                self.logs[number(shard) as usize].settle(Revision(number(upto)));
                String::new()
            }
            ["log", shard] => {
                let log = &self.logs[number(shard) as usize];
                let live = list(log.live().map(|write| write.revision));
                let (fence, Seal { epoch, prefix }) = (log.fence(), log.seal());
                format!("fence {fence}, seal {epoch} up to {prefix}, live {live}")
            }
            _ => panic!("no command: {command}"),
        }
    }

    fn play(&mut self, script: &str) {
        play(script, |command| self.run(command));
    }
}

/// Runs the commands of a script, whose other lines are what they give.
fn play(script: &str, mut run: impl FnMut(&str) -> String) {
    let script: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut played = String::new();
    for command in script.iter().filter_map(|line| line.strip_prefix("> ")) {
        writeln!(played, "> {command}").unwrap();
        let said = run(command);
        said.lines().for_each(|line| writeln!(played, "{line}").unwrap());
    }
    assert_eq!(played.trim_end(), script.join("\n"), "\nplayed:\n{played}");
}

/// The first three steps of a takeover in which nothing is lost, up to the seal.
const FENCED_2_1: &str = "
    > stopped 0
    > stopped 1
    all have
    > leads 2
    fence the control shard: 2.1
    > append 0 fence 2.1
    stands at 2
    > commit 0
    2: fence 2.1
    > fenced control 2.1
    fence all others: 2.1
    > append 1 fence 2.1
    stands at 2
    > append 2 fence 2.1
    stands at 2
    > commit 1
    2: fence 2.1
    > commit 2
    2: fence 2.1
    > fenced 0 2.1
    nothing
    > fenced 1 2.1
    seal: 2.1 up to 1
";

/// What follows it, up to serving.
const SERVING_2_1: &str = "
    > append 0 seal 2.1 1
    stands at 3
    > append 1 seal 2.1 1
    stands at 3
    > append 2 seal 2.1 1
    stands at 3
    > commit 2
    3: seal 2.1 up to 1
    > sealed 1 2.1
    nothing
    > commit 0
    3: seal 2.1 up to 1
    > commit 1
    3: seal 2.1 up to 1
    > sealed 0 2.1
    serve: 2.1 from 2
";

fn fresh() -> LoneMember {
    member([LogView::default(), LogView::default(), LogView::default()])
}

/// The control shard fences first, then all others, and nothing is sealed before the last fence is committed.
#[test]
fn a_fresh_member_starts() {
    let mut member = fresh();
    member.play(
        "
        > leads 2
        nothing
    ",
    );
    member.play(FENCED_2_1);
    member.play(SERVING_2_1);
    member.play(
        "
        > leads 2
        nothing
        > log 2
        fence 2.1, seal 2.1 up to 1, live none
    ",
    );
}

/// Of what the epoch before wrote, the longest whole run is kept: revision 4 lacks a part, so 5 goes with it. The
/// seal voids both for ever, and the numbers are used again.
#[test]
fn a_restarted_member_serves_behind_the_longest_run() {
    let mut member = fresh();
    member.play(FENCED_2_1);
    member.play(SERVING_2_1);
    member.play(
        "
        > append 1 batch 2.1 1 2 4/2
        stands at 4
        > append 2 batch 2.1 1 3 5
        stands at 4
    ",
    );
    // What stands in its logs a start finds uncommitted.
    let mut member = self::member(member.logs);
    member.play(
        "
        > stopped 1
        > stopped 0
        all have
        > log 1
        fence 2.1, seal 2.1 up to 1, live none
        > leads 3
        fence the control shard: 3.2
        > append 0 fence 3.2
        stands at 4
        > append 1 fence 3.2
        stands at 5
        > append 2 fence 3.2
        stands at 5
        > commit 0
        4: fence 3.2
        > fenced control 3.2
        fence all others: 3.2
        > commit 1
        4: writes 2 4
        5: fence 3.2
        > commit 2
        4: writes 3 5
        5: fence 3.2
        > fenced 1 3.2
        nothing
        > fenced 0 3.2
        seal: 3.2 up to 3
        > append 1 seal 3.2 3
        stands at 6
        > append 2 seal 3.2 3
        stands at 6
        > append 2 batch 3.2 3 4
        stands at 7
        > append 1 batch 2.1 3 5
        stands at 7
        > commit 1
        6: seal 3.2 up to 3
        7: Nothing
        > log 1
        fence 3.2, seal 3.2 up to 3, live 2
        > commit 2
        6: seal 3.2 up to 3
        7: writes 4
        > log 2
        fence 3.2, seal 3.2 up to 3, live 3 4
    ",
    );
}

/// Another leader's entry took the place of a fence before it was committed. It leaves no trace, and what its
/// epoch still brings counts for nothing; the next attempt has a name of its own.
#[test]
fn a_fence_is_lost() {
    let mut member = fresh();
    member.play(
        "
        > stopped 0
        > stopped 1
        all have
        > leads 2
        fence the control shard: 2.1
        > append 0 fence 2.1
        stands at 2
        > commit 0
        2: fence 2.1
        > fenced control 2.1
        fence all others: 2.1
        > append 1 fence 2.1
        stands at 2
        > append 2 fence 2.1
        stands at 2
        > truncate 2 2
        > commit 1
        2: fence 2.1
        > lost
        stop
        > fenced 0 2.1
        nothing
        > stopped 0
        > leads 2
        nothing
        > stopped 1
        all have
        > leads 2
        fence the control shard: 2.2
        > append 0 fence 2.2
        stands at 3
        > commit 0
        3: fence 2.2
        > fenced control 2.1
        nothing
        > fenced control 2.2
        fence all others: 2.2
        > fenced 0 2.1
        nothing
        > append 1 fence 2.2
        stands at 3
        > append 2 fence 2.2
        stands at 2
        > commit 1
        3: fence 2.2
        > commit 2
        2: fence 2.2
        > fenced 0 2.2
        nothing
        > fenced 1 2.2
        seal: 2.2 up to 1
    ",
    );
}

/// The fence of the first attempt commits late, in the second one: it stands before the second one's.
#[test]
fn two_attempts_leave_their_fences_in_one_log() {
    let mut member = fresh();
    member.play(
        "
        > stopped 0
        > stopped 1
        all have
        > leads 2
        fence the control shard: 2.1
        > append 0 fence 2.1
        stands at 2
        > lost
        stop
        > stopped 0
        > stopped 1
        all have
        > leads 2
        fence the control shard: 2.2
        > append 0 fence 2.2
        stands at 3
        > commit 0
        2: fence 2.1
        3: fence 2.2
        > fenced control 2.1
        nothing
        > fenced control 2.2
        fence all others: 2.2
    ",
    );
}

/// A log whose last fence is not committed is that of an epoch that may yet count: its name is not used again.
#[test]
fn an_uncommitted_fence_names_its_epoch() {
    let mut log = fresh();
    log.play(
        "
        > append 0 fence 2.1
        stands at 2
    ",
    );
    member(log.logs).play(
        "
        > stopped 0
        > stopped 1
        all have
        > leads 2
        fence the control shard: 2.2
    ",
    );
}

/// Before anything is fenced an epoch ends without a trace.
#[test]
fn an_epoch_ends_before_its_first_fence() {
    fresh().play(
        "
        > stopped 1
        > stopped 0
        all have
        > leads 2
        fence the control shard: 2.1
        > lost
        stop
        > log 0
        fence 0.0, seal 0.0 up to 0, live none
        > stopped 0
        > stopped 1
        all have
        > leads 3
        fence the control shard: 3.2
    ",
    );
}

/// The seal of the second attempt is lost in one log.
const SEAL_LOST: &str = "
    > truncate 1 6
    > lost
    stop
    > sealed 0 2.2
    nothing
    > log 1
    fence 2.2, seal 2.1 up to 1, live 2 5
    > stopped 1
    > stopped 0
    all have
    > leads 4
    fence the control shard: 4.3
    > append 0 fence 4.3
    stands at 5
    > append 1 fence 4.3
    stands at 6
    > append 2 fence 4.3
    stands at 7
    > commit 0
    5: fence 4.3
    > fenced control 4.3
    fence all others: 4.3
    > commit 1
    6: fence 4.3
    > commit 2
    7: fence 4.3
    > fenced 1 4.3
    nothing
    > fenced 0 4.3
    seal: 4.3 up to 3
    > append 1 seal 4.3 3
    stands at 7
    > commit 1
    7: seal 4.3 up to 3
    > log 1
    fence 4.3, seal 4.3 up to 3, live 2
";

/// Some logs have the seal of an epoch that ended while it sealed. Its prefix was recovered from all logs, so it
/// is settled: the next attempt keeps it, and the logs that miss the first seal are cut by the second.
#[test]
fn an_epoch_ends_while_it_seals() {
    let mut member = fresh();
    member.play(FENCED_2_1);
    member.play(SERVING_2_1);
    member.play(
        "
        > append 1 batch 2.1 1 2 5
        stands at 4
        > append 2 batch 2.1 1 3
        stands at 4
        > commit 1
        4: writes 2 5
        > commit 2
        4: writes 3
        > lost
        stop
        > sealed 0 2.1
        nothing
        > stopped 0
        > stopped 1
        all have
        > leads 2
        fence the control shard: 2.2
        > append 0 fence 2.2
        stands at 4
        > append 1 fence 2.2
        stands at 5
        > append 2 fence 2.2
        stands at 5
        > commit 0
        4: fence 2.2
        > fenced control 2.2
        fence all others: 2.2
        > commit 1
        5: fence 2.2
        > commit 2
        5: fence 2.2
        > fenced 0 2.2
        nothing
        > fenced 1 2.2
        seal: 2.2 up to 3
        > append 2 seal 2.2 3
        stands at 6
        > append 1 seal 2.2 3
        stands at 6
        > commit 2
        6: seal 2.2 up to 3
        > sealed 1 2.2
        nothing
    ",
    );
    member.play(SEAL_LOST);
}

/// An epoch that serves ends: what it settled stays, what only stands in its logs is recovered as far as it is
/// whole, and a batch that was truncated is not there.
#[test]
fn an_epoch_ends_while_it_serves() {
    let mut member = fresh();
    member.play(FENCED_2_1);
    member.play(SERVING_2_1);
    member.play(
        "
        > append 1 batch 2.1 1 2
        stands at 4
        > commit 1
        4: writes 2
        > settle 1 2
        > append 2 batch 2.1 2 3
        stands at 4
        > append 1 batch 2.1 2 4
        stands at 5
        > append 1 batch 2.1 2 5
        stands at 6
        > lost
        stop
        > truncate 1 6
        > stopped 0
        > stopped 1
        all have
        > leads 3
        fence the control shard: 3.2
        > append 0 fence 3.2
        stands at 4
        > append 1 fence 3.2
        stands at 6
        > append 2 fence 3.2
        stands at 5
        > commit 0
        4: fence 3.2
        > fenced control 3.2
        fence all others: 3.2
        > commit 1
        5: writes 4
        6: fence 3.2
        > commit 2
        4: writes 3
        5: fence 3.2
        > fenced 0 3.2
        nothing
        > fenced 1 3.2
        seal: 3.2 up to 4
        > log 1
        fence 3.2, seal 2.1 up to 1, live 4
    ",
    );
}

/// A settled revision that is in no log ends it all: nothing is sealed over a hole.
#[test]
fn a_hole_is_final() {
    let mut member = fresh();
    member.play(FENCED_2_1);
    member.play(SERVING_2_1);
    member.play(
        "
        > append 1 batch 2.1 3 4
        stands at 4
    ",
    );
    self::member(member.logs).play("
        > stopped 0
        > stopped 1
        all have
        > leads 3
        fence the control shard: 3.2
        > append 0 fence 3.2
        stands at 4
        > commit 0
        4: fence 3.2
        > fenced control 3.2
        fence all others: 3.2
        > append 1 fence 3.2
        stands at 5
        > append 2 fence 3.2
        stands at 4
        > commit 1
        4: writes 4
        5: fence 3.2
        > commit 2
        4: fence 3.2
        > fenced 0 3.2
        nothing
        > fenced 1 3.2
        the data directory is damaged: revision 3 was settled here, and of revision 2 no part is in any log; the end is missing of what log 0 has of shard 0, or log 1 has of shard 2. Nothing was cut off, and nothing is served. Restore the data directory from a copy that was made while the server was stopped; braid dump-log prints what can still be read
    ");
}
