//! A write that failed for its client does not come over a newer one that succeeded.
//!
//! In etcd it does: a proposal that a follower has forwarded lives in the connection to an old leader, and is
//! committed seconds after its client was told that it timed out, and after another client's newer write.

use super::Evidence;
use crate::sim::history::Moment;
use crate::sim::workload::tagged;
use crate::sim::world::Failure;
use std::collections::BTreeMap;

/// `writers` are the calls that made the revisions.
pub fn check(evidence: &Evidence<'_>, writers: &BTreeMap<i64, usize>) -> Result<(), Failure> {
    // For each key the write that was asked for last, of those that have succeeded.
    let mut newest: BTreeMap<&[u8], (Moment, usize)> = BTreeMap::new();
    for (revision, events) in &evidence.record {
        let Some(call) = writers.get(revision) else { continue };
        let op = &evidence.history.ops[*call];
        // A delete bears no mark: another than this one may have made the revision.
        let is_marked = events.iter().flat_map(|event| &event.kv).any(|kv| tagged(&kv.value) == Some(*call));
        for key in events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| &kv.key[..]) {
            if op.is_ok() {
                let newest = newest.entry(key).or_insert((op.invoked, *call));
                *newest = (*newest).max((op.invoked, *call));
                continue;
            }
            let (Some((asked, newer)), Some(failed)) = (newest.get(key), op.returned) else { continue };
            if is_marked && failed < *asked {
                let what = format!(
                    "call {call} was answered {:?} and made revision {revision} after call {newer}, which was \
                     asked for later and succeeded",
                    op.status
                );
                return Err(Failure::new("late write", what));
            }
        }
    }
    Ok(())
}
