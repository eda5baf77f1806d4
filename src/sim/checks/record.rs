//! What the observers of all members saw is one history: no revision is missing, shown twice, or another one
//! elsewhere.

use super::{Evidence, Record};
use crate::sim::world::Failure;
use crate::wire::proto;
use std::collections::BTreeSet;

pub fn gather(evidence: &Evidence<'_>, observers: usize) -> Result<Record, Failure> {
    let history = evidence.history;
    let mut record = Record::new();
    let mut seen: BTreeSet<(usize, i64)> = BTreeSet::new();
    for stream in history.streams.iter().filter(|stream| stream.client >= observers) {
        for (_, response) in &stream.responses {
            // What one member has compacted others have shown, or there is a gap.
            let may_be = response.compact_revision > 0 && history.known.members > 1;
            if response.canceled && !may_be {
                return Err(Failure::new("watch", format!("the observer was canceled: {response:?}")));
            }
            let mut now: Record = Record::new();
            for event in &response.events {
                let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                now.entry(revision).or_default().push(event.clone());
            }
            for (revision, events) in now {
                if !seen.insert((stream.client, revision)) {
                    let before = &record[&revision];
                    let what = format!("revision {revision} is shown twice, first as {before:?}");
                    return Err(Failure::new("history", what));
                }
                add(evidence, &mut record, revision, events, stream.member)?;
            }
        }
    }
    for (at, revision) in record.keys().enumerate() {
        if *revision != at as i64 + 2 {
            return Err(Failure::new("history", format!("there is a gap before revision {revision}")));
        }
    }
    Ok(record)
}

fn add(
    evidence: &Evidence<'_>,
    record: &mut Record,
    revision: i64,
    events: Vec<proto::Event>,
    member: usize,
) -> Result<(), Failure> {
    let Some(known) = record.get_mut(&revision) else {
        record.insert(revision, events);
        return Ok(());
    };
    // From the compacted revision itself on, what stood before a change is not shown, nor what a later change of
    // the same key and revision has replaced (etcd's law).
    let shortened = evidence.may_be_compacted(revision, u64::MAX);
    let is_part = |part: &[proto::Event], whole: &[proto::Event]| {
        let mut whole = whole.iter();
        part.iter().all(|event| whole.any(|of| is_same(event, of)))
    };
    let same = match events.len() == known.len() || shortened {
        true if events.len() > known.len() => is_part(known, &events),
        true => is_part(&events, known),
        false => false,
    };
    if !same {
        let what = format!("revision {revision} is {events:?} at m{member}, and was {known:?}");
        return Err(Failure::new("history", what));
    }
    let prev_kvs = |events: &[proto::Event]| events.iter().filter(|event| event.prev_kv.is_some()).count();
    if (events.len(), prev_kvs(&events)) > (known.len(), prev_kvs(known)) {
        *known = events;
    }
    Ok(())
}

/// Whether two members show the same change. One that has compacted what stood before does not show it.
fn is_same(one: &proto::Event, other: &proto::Event) -> bool {
    let prev_kv = one.prev_kv == other.prev_kv || one.prev_kv.is_none() || other.prev_kv.is_none();
    (one.r#type, &one.kv) == (other.r#type, &other.kv) && prev_kv
}
