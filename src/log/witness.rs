//! Logs of one member witness each other.
//!
//! **The question.** A log whose end is gone, together with every block that testified for it, looks like one
//! that ended there: a disk that lies about a flush leaves it so, and so does a copy that was made while a
//! server wrote. What the member's other logs hold beyond that end was then decided after something that is
//! gone, and to serve it would be to serve a history with holes.
//!
//! **The witnesses.** Every frame carries the word of one other log, each in its turn: a frame that this one
//! had acknowledged by then. So within a few writes whatever was acknowledged stands in several files. Files go,
//! and of those that wait to be recycled a start reads the head alone; so the header of each segment says all
//! words again (of more than 166 logs as many, others in the next one), a new process's first those that were
//! read. A word once kept is never less than read.
//!
//! **The rule.** A log that ends at or before a frame that another log's whole block knows to be acknowledged
//! has lost it: damage. What remains unseen is a frame that was acknowledged and of which no whole block of
//! any log says so: the last writes before everything else fell silent.
//!
//! **Which log is meant.** The word carries the log's key, since a log may die with its reactor and one of the
//! same number be born later. Words under the key of the log that is there count, whoever keeps them. Words
//! under another key, or of a log that is not there, count if the last process that wrote the first log said
//! them: in that process the log was alive, and its files go only after a later one has served, of which the
//! first log would know. The first log itself never dies.

use super::recovery::{Cause, LogDamage, Recovered, Testified};
use super::{LogId, SegmentName, Testimony};
use std::collections::BTreeMap;

const FIRST: LogId = LogId(0);

/// Whether the logs of a member go together: nothing is missing that one of them knows another had.
pub fn cross_examine(logs: &[Recovered]) -> Result<(), LogDamage> {
    let known: BTreeMap<LogId, &Recovered> = logs.iter().map(|log| (log.start.log, log)).collect();
    for log in logs {
        for told in &log.testimonies {
            let alive = told.of.log == FIRST || log.start.log == FIRST && told.newest;
            examine(known.get(&told.of.log).copied(), told, alive)?;
        }
    }
    Ok(())
}

/// What the logs have kept of each other, for those to say again that go on: a log without a reactor dies, and
/// one under another key did.
pub fn keep_words(logs: &mut [Recovered], reactors: u16) {
    let known: BTreeMap<LogId, Option<u64>> = logs.iter().map(|log| (log.start.log, log.key)).collect();
    for log in logs {
        let words = log.testimonies.iter().map(|told| told.of);
        let goes_on = |of: &Testimony| {
            of.log.0 < u32::from(reactors) && known.get(&of.log).copied().flatten() == Some(of.key)
        };
        log.start.words = words.filter(goes_on).map(|of| (of.log, of)).collect();
    }
}

/// `alive`: the log that is spoken of was there when the last process ran.
fn examine(log: Option<&Recovered>, told: &Testified, alive: bool) -> Result<(), LogDamage> {
    let (frame, by) = (told.of.frame, told.by);
    let Some(log) = log else {
        let segment = SegmentName { log: told.of.log, sequence: 0 };
        return if alive { Err(LogDamage { segment, offset: 0, cause: Cause::Gone { by } }) } else { Ok(()) };
    };
    let end = log.start.end;
    // Where nothing is read, the file is named that would have come first.
    let sequence = if end.offset == 0 { end.segment + 1 } else { end.segment };
    let segment = SegmentName { log: log.start.log, sequence };
    let cause = match log.key {
        Some(key) if key == told.of.key && end.frame <= frame => Cause::Outlived { frame, by },
        Some(key) if key != told.of.key && alive => Cause::Replaced { by },
        None if alive => Cause::Outlived { frame, by },
        _ => return Ok(()),
    };
    Err(LogDamage { segment, offset: end.offset, cause })
}
