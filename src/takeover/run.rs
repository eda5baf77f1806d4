//! The prefix that a takeover recovers.

use crate::types::{Epoch, Revision};

/// One shard's part of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub revision: Revision,
    pub parts: u16,
    pub epoch: Epoch,
}

/// The highest revision of the longest complete run above `base`: every revision has all its parts, all of
/// one epoch, and epochs never fall along the run. `logs` holds, for each shard, its live parts in rising
/// order; parts at or below the base are passed over.
///
/// The base's own epoch need not be known: a revision is named settled only in an epoch whose seals stand in
/// every log, and those void what an older epoch left above it.
///
/// A revision of an older epoch behind one of a newer epoch is void even where the seal that voids it has
/// not reached its own log; parts of different epochs meet only where a takeover died midway.
pub fn longest_run(base: Revision, logs: &[Vec<Part>]) -> Revision {
    let mut next: Vec<_> = logs
        .iter()
        .map(|log| log[log.partition_point(|part| part.revision <= base)..].iter().peekable())
        .collect();
    let (mut prefix, mut epoch) = (base, Epoch::default());
    loop {
        let wanted = prefix.next();
        let found: Vec<&Part> =
            next.iter_mut().filter_map(|log| log.next_if(|part| part.revision == wanted)).collect();
        let Some(first) = found.first() else { return prefix };
        let whole = found.len() == usize::from(first.parts);
        let of_one_kind = found.iter().all(|part| part.epoch == first.epoch && part.parts == first.parts);
        if !whole || !of_one_kind || first.epoch < epoch {
            return prefix;
        }
        (prefix, epoch) = (wanted, first.epoch);
    }
}
