//! What the observers of all members saw is one history: no revision is missing, shown twice, or another one
//! elsewhere.

use super::{Evidence, Record};
use crate::sim::world::Failure;
use crate::types::Time;
use crate::wire::proto;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Where a revision was seen: by a watch of a member from a revision on, and when.
#[derive(Clone, Copy)]
struct Seen {
    member: usize,
    from: i64,
    at: Time,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { member, from, at } = self;
        write!(f, "m{member} showed it at {:.3} ms to who watches from {from} on", at.0 as f64 / 1e6)
    }
}

pub fn gather(evidence: &Evidence<'_>, observers: usize) -> Result<Record, Failure> {
    let history = evidence.history;
    let mut record = Record::new();
    let mut seen: BTreeSet<(usize, i64)> = BTreeSet::new();
    let mut first_seen: BTreeMap<i64, Seen> = BTreeMap::new();
    for stream in history.streams.iter().filter(|stream| stream.client >= observers) {
        let from = stream.creates.first().map_or(0, |(_, create)| create.start_revision);
        for (moment, response) in &stream.responses {
            // What one member has compacted others have shown, or there is a gap.
            let may_be = response.compact_revision > 0 && history.known.members.len() > 1;
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
                let seen = Seen { member: stream.member, from, at: moment.time };
                let first = *first_seen.entry(revision).or_insert(seen);
                add(evidence, &mut record, revision, events).map_err(|what| {
                    Failure::new("history", format!("revision {revision} {what}: {seen}, and {first}"))
                })?;
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
) -> Result<(), String> {
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
        return Err(format!("is {events:?}, and is {known:?}"));
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
