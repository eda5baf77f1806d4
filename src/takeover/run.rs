//! The prefix that a takeover recovers, and the proof that nothing settled is missing.

use crate::log::LogId;
use crate::types::{Epoch, Revision, ShardId};
use std::fmt;

/// One shard's part of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub revision: Revision,
    pub parts: u16,
    pub epoch: Epoch,
}

/// What one shard brings to a takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub shard: ShardId,
    /// The log that it was read from.
    pub log: LogId,
    /// Its state holds everything up to here, of which the log may say nothing any more.
    pub held: Revision,
    /// Its live parts, in rising order.
    pub parts: Vec<Part>,
}

/// A settled revision that is not there, or not whole: something that was acknowledged is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    pub revision: Revision,
    /// What was known to be settled.
    pub base: Revision,
    pub why: Why,
    /// The shards that could have had the missing part, and their logs.
    pub suspects: Vec<(ShardId, LogId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// So many of its parts are there.
    Missing { found: usize, of: u16 },
    /// Its parts are of several epochs, count themselves differently, or are older than a revision before.
    Unlike,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hole { revision, base, .. } = self;
        write!(
            f,
            "the data directory is damaged: revision {base} was settled here, and of revision {revision} "
        )?;
        match self.why {
            Why::Missing { found: 0, .. } => write!(f, "no part is in any log")?,
            Why::Missing { found, of } => write!(f, "{found} of {of} parts are in the logs")?,
            Why::Unlike => write!(f, "the parts in the logs do not belong together")?,
        }
        for (at, (shard, log)) in self.suspects.iter().enumerate() {
            let lead = if at == 0 { "; the end is missing of what log" } else { ", or log" };
            write!(f, "{lead} {} has of shard {shard}", log.0)?;
        }
        write!(
            f,
            ". Nothing was cut off, and nothing is served. Restore the data directory from a copy that was made \
             while the server was stopped; braid dump-log prints what can still be read"
        )
    }
}

/// The highest revision of the longest complete run above `base`: every revision has all its parts, all of
/// one epoch, and epochs never fall along the run.
///
/// Everything up to the base was settled, so it is there, or it is a hole. Above what the state of any shard
/// holds every part is counted. Between the states of two shards a part may be in a state and in no log; what
/// logs say there must fit together, and enough states must be far enough to hold the rest.
///
/// The base's own epoch need not be known: a revision is named settled only in an epoch whose seals stand in
/// every log, and those void what an older epoch left above it.
///
/// A revision of an older epoch behind one of a newer epoch is void even where the seal that voids it has
/// not reached its own log; parts of different epochs meet only where a takeover died midway.
pub fn longest_run(base: Revision, shards: &[Holding]) -> Result<Revision, Hole> {
    let held = shards.iter().map(|shard| shard.held).max().unwrap_or_default().max(Revision::FRESH);
    let base = base.max(held);
    let hole = |revision, why| Hole { revision, base, why, suspects: suspects(revision, shards) };
    // Sorted runs, one behind the other, which is what the sort is quick with.
    let mut all: Vec<Part> = shards.iter().flat_map(|shard| shard.parts.iter().copied()).collect();
    all.sort_by_key(|part| part.revision);
    let (mut prefix, mut epoch) = (held, Epoch::default());
    for found in all.chunk_by(|a, b| a.revision == b.revision) {
        let first = found[0];
        assert!(found.len() <= shards.len(), "a shard has one part of a revision");
        assert!(first.revision > prefix || first.revision <= held, "a run goes forward");
        let fits = first.epoch >= epoch
            && found.iter().all(|part| part.epoch == first.epoch && part.parts == first.parts);
        let missing = usize::from(first.parts).checked_sub(found.len());
        let in_states = || shards.iter().filter(|shard| shard.held >= first.revision).count();
        let whole = missing.is_some_and(|missing| missing == 0 || missing <= in_states());
        let next = first.revision <= held || first.revision == prefix.next();
        if !next || !fits || !whole {
            let wanted = if next { first.revision } else { prefix.next() };
            let why = match (next, fits && missing.is_some()) {
                (false, _) => Why::Missing { found: 0, of: 0 },
                (true, true) => Why::Missing { found: found.len(), of: first.parts },
                (true, false) => Why::Unlike,
            };
            return if wanted <= base { Err(hole(wanted, why)) } else { Ok(prefix) };
        }
        (prefix, epoch) = (prefix.max(first.revision), first.epoch);
    }
    if prefix < base {
        return Err(hole(prefix.next(), Why::Missing { found: 0, of: 0 }));
    }
    assert!(prefix >= held, "what some state holds is in the prefix");
    Ok(prefix)
}

/// Nothing is missing within a log, so who has a later part is not to blame.
fn suspects(revision: Revision, shards: &[Holding]) -> Vec<(ShardId, LogId)> {
    let ends_before = |shard: &&Holding| {
        shard.held < revision && shard.parts.last().is_none_or(|part| part.revision < revision)
    };
    shards.iter().filter(ends_before).map(|shard| (shard.shard, shard.log)).collect()
}
