//! What etcd promises of watches: every event of the range once, in order, whole revisions, none missing
//! below what a progress notification says.

use super::Evidence;
use crate::sim::history::{Moment, Stream};
use crate::sim::world::Failure;
use crate::types::KeyRange;
use crate::wire::proto;
use std::collections::BTreeMap;

struct Watcher<'a> {
    /// What is compacted of a surety since before it was asked for.
    compacted: i64,
    /// It begins with what was there when it was created.
    reads_history: bool,
    /// Since then its member may not know what there was between another's state and its own.
    may_lose_history: Option<Moment>,
    create: &'a proto::WatchCreateRequest,
    range: KeyRange,
    /// Everything up to here has been shown, or is before the beginning.
    upto: i64,
    /// Pieces of one response.
    fragments: Vec<proto::Event>,
    canceled: bool,
}

/// By this moment every watch then open has been shown everything up to the revision.
type Quiet = Option<(Moment, i64)>;

pub fn check(evidence: &Evidence<'_>, quiet: Quiet) -> Result<(), Failure> {
    for (at, stream) in evidence.history.streams.iter().enumerate() {
        check_stream(evidence, stream, quiet).map_err(|what| {
            let (client, member) = (stream.client, stream.member);
            Failure::new("watch", format!("stream {at} of client {client} at m{member}: {what}"))
        })?;
    }
    Ok(())
}

fn check_stream(evidence: &Evidence<'_>, stream: &Stream, quiet: Quiet) -> Result<(), String> {
    let mut watchers: BTreeMap<i64, Watcher<'_>> = BTreeMap::new();
    let (mut created, mut reports) = (0, stream.progress_asked.iter());
    let mut cancels: BTreeMap<i64, usize> = BTreeMap::new();
    let quiet = quiet.filter(|(moment, _)| stream.ended.is_none_or(|ended| ended > *moment));
    let mut quiet = quiet.filter(|(moment, _)| stream.opened < *moment);
    for (moment, response) in &stream.responses {
        quiet_check(evidence, &mut quiet, &watchers, Some(*moment))?;
        let header = response.header.unwrap_or_default();
        if response.created {
            let Some((asked, create)) = stream.creates.get(created) else {
                return Err("created out of nothing".into());
            };
            created += 1;
            if response.canceled {
                may_be_refused(create, response, &watchers)?;
                continue;
            }
            may_be_created(create, response, &watchers)?;
            not_stale(evidence, stream.member, header.revision, *asked)?;
            let now = if create.start_revision > 0 { create.start_revision - 1 } else { header.revision };
            let watcher = Watcher {
                compacted: evidence.compacted_surely_at(stream.member, asked.tick),
                reads_history: (1..=header.revision).contains(&create.start_revision),
                may_lose_history: evidence.history.took_states.get(&stream.member).copied(),
                create,
                range: KeyRange::of(create.key.clone(), create.range_end.clone()),
                upto: now,
                fragments: vec![],
                canceled: false,
            };
            watchers.insert(response.watch_id, watcher);
        } else if response.events.is_empty() && !response.canceled {
            if response.watch_id == -1 {
                // Some are passed over, so it answers this request or a later one.
                let Some(asked) = reports.next() else { return Err("progress, and nobody asked".into()) };
                not_stale(evidence, stream.member, header.revision, *asked)?;
            } else if !watchers.get(&response.watch_id).is_some_and(|w| w.create.progress_notify) {
                return Err(format!("nobody wants to be told of {response:?}"));
            }
            for (_, watcher) in watchers
                .iter_mut()
                .filter(|(id, _)| matches!(response.watch_id, -1) || **id == response.watch_id)
            {
                watcher.progress(evidence, header.revision, *moment)?;
            }
            continue;
        }
        let Some(watcher) = watchers.get_mut(&response.watch_id) else {
            return Err(format!("who is {response:?}"));
        };
        if watcher.canceled && !response.events.is_empty() {
            return Err(format!("watch {} goes on after its end", response.watch_id));
        }
        watcher.take(evidence, response, *moment)?;
        if response.canceled {
            let asked =
                stream.cancels.iter().filter(|(asked, id)| asked < moment && *id == response.watch_id);
            let answered = cancels.entry(response.watch_id).or_insert(0);
            if response.compact_revision == 0 {
                *answered += 1;
                if asked.count() < *answered {
                    return Err(format!("nobody asked for {response:?}"));
                }
            } else {
                watcher.may_be_compacted(evidence, response.compact_revision, *moment)?;
            }
            watcher.canceled = true;
        }
    }
    quiet_check(evidence, &mut quiet, &watchers, None)
}

/// No answer is older than what its member had shown when it was asked for.
fn not_stale(evidence: &Evidence<'_>, member: usize, revision: i64, asked: Moment) -> Result<(), String> {
    let floor = evidence.floor_at(member, asked.tick);
    if revision < floor {
        return Err(format!("{revision} is shown to one that asked m{member} when {floor} had been"));
    }
    Ok(())
}

/// Once nothing goes wrong any more, everything arrives.
fn quiet_check(
    evidence: &Evidence<'_>,
    quiet: &mut Quiet,
    watchers: &BTreeMap<i64, Watcher<'_>>,
    now: Option<Moment>,
) -> Result<(), String> {
    let Some((moment, revision)) = *quiet else { return Ok(()) };
    if now.is_some_and(|now| now < moment) {
        return Ok(());
    }
    *quiet = None;
    for (id, watcher) in watchers.iter().filter(|(_, watcher)| !watcher.canceled) {
        let missing = watcher.next_after(evidence, watcher.upto, moment);
        if let Some(missing) = missing.filter(|missing| *missing <= revision) {
            return Err(format!("watch {id} has not been shown revision {missing}"));
        }
    }
    Ok(())
}

/// etcd refuses a number in use. One that compaction canceled is in use until it is canceled again.
fn may_be_refused(
    create: &proto::WatchCreateRequest,
    response: &proto::WatchResponse,
    watchers: &BTreeMap<i64, Watcher<'_>>,
) -> Result<(), String> {
    let in_use = create.watch_id != 0 && watchers.contains_key(&create.watch_id);
    let empty = KeyRange::of(create.key.clone(), create.range_end.clone()).is_empty();
    if response.watch_id == -1 && (in_use || empty) && !response.cancel_reason.is_empty() {
        return Ok(());
    }
    Err(format!("{create:?} is refused: {response:?}"))
}

fn may_be_created(
    create: &proto::WatchCreateRequest,
    response: &proto::WatchResponse,
    watchers: &BTreeMap<i64, Watcher<'_>>,
) -> Result<(), String> {
    let live = watchers.get(&response.watch_id).is_some_and(|watcher| !watcher.canceled);
    if live || create.watch_id != 0 && create.watch_id != response.watch_id {
        return Err(format!("{create:?} has an id that is not its own: {response:?}"));
    }
    Ok(())
}

impl Watcher<'_> {
    /// It was canceled by a compaction: one that was made, and that took what it had not been shown yet.
    fn may_be_compacted(&self, evidence: &Evidence<'_>, revision: i64, moment: Moment) -> Result<(), String> {
        if !evidence.may_be_compacted(revision, moment.tick) {
            return Err(format!("canceled by a compaction at {revision}, for which nobody asked"));
        }
        // From a revision that was there it may have been reading history, whatever there was in it.
        let loses_history = self.may_lose_history.is_some_and(|since| since < moment);
        let named = (self.reads_history || loses_history) && self.upto + 1 < revision;
        let missed = evidence
            .record
            .range((self.upto + 1).min(revision)..revision)
            .any(|(_, events)| events.iter().any(|event| self.wants(event)));
        if named || missed {
            return Ok(());
        }
        Err(format!(
            "canceled by a compaction at {revision}, which took nothing that it wanted: {:?}",
            self.upto
        ))
    }

    fn wants(&self, event: &proto::Event) -> bool {
        let key = event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
        self.range.contains(&key) && !self.create.filters.contains(&event.r#type)
    }

    /// The events it should see of a revision.
    fn of(&self, evidence: &Evidence<'_>, revision: i64) -> Vec<proto::Event> {
        let events = evidence.record.get(&revision).map_or(&[][..], Vec::as_slice);
        events.iter().filter(|event| self.wants(event)).cloned().collect()
    }

    /// The events that it must see of a revision. etcd's law: a compaction at the very revision takes what a
    /// later change of the same key in the same revision has replaced.
    fn certain(&self, evidence: &Evidence<'_>, revision: i64, moment: Moment) -> Vec<proto::Event> {
        if evidence.compacted_before(moment.tick) < revision {
            return self.of(evidence, revision);
        }
        let events = evidence.record.get(&revision).map_or(&[][..], Vec::as_slice);
        let key = |event: &proto::Event| event.kv.as_ref().map(|kv| kv.key.clone());
        let last = |at: usize| events[at + 1..].iter().all(|later| key(later) != key(&events[at]));
        let wanted = (0..events.len()).filter(|at| self.wants(&events[*at]) && last(*at));
        wanted.map(|at| events[at].clone()).collect()
    }

    /// The next revision with something that it must see.
    fn next_after(&self, evidence: &Evidence<'_>, after: i64, moment: Moment) -> Option<i64> {
        let mut later = evidence.record.range(after + 1..).filter(|(revision, events)| {
            let wanted = events.iter().any(|event| self.wants(event));
            wanted && !self.certain(evidence, **revision, moment).is_empty()
        });
        later.next().map(|(revision, _)| *revision)
    }

    fn progress(&mut self, evidence: &Evidence<'_>, upto: i64, moment: Moment) -> Result<(), String> {
        if self.canceled {
            return Ok(());
        }
        match self.next_after(evidence, self.upto, moment) {
            Some(missing) if missing <= upto => Err(format!("progress {upto} without revision {missing}")),
            _ => {
                self.upto = self.upto.max(upto);
                Ok(())
            }
        }
    }

    fn take(
        &mut self,
        evidence: &Evidence<'_>,
        response: &proto::WatchResponse,
        moment: Moment,
    ) -> Result<(), String> {
        self.fragments.extend(response.events.iter().cloned());
        if response.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut self.fragments);
        let mut rest = &events[..];
        while let Some(first) = rest.first() {
            let revision = first.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let next = self.next_after(evidence, self.upto, moment);
            if revision <= self.upto || next.is_some_and(|next| next < revision) {
                return Err(format!("after {} comes {revision}, not {next:?}", self.upto));
            }
            let of_revision = rest
                .iter()
                .take_while(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision));
            if revision < self.compacted {
                return Err(format!("revision {revision} is shown, {} was compacted", self.compacted));
            }
            let (these, others) = rest.split_at(of_revision.count().max(1));
            let mut expected = self.of(evidence, revision);
            if these.len() < expected.len() {
                expected = self.certain(evidence, revision, moment);
            }
            if these.len() != expected.len() {
                return Err(format!("revision {revision} is not whole"));
            }
            for (event, expected) in these.iter().zip(&expected) {
                self.compare(evidence, event, expected, moment)?;
            }
            self.upto = revision;
            rest = others;
        }
        Ok(())
    }

    fn compare(
        &self,
        evidence: &Evidence<'_>,
        event: &proto::Event,
        expected: &proto::Event,
        moment: Moment,
    ) -> Result<(), String> {
        let revision = expected.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let compacted = evidence.compacted_before(moment.tick) >= revision;
        let prev_kv = match (&event.prev_kv, self.create.prev_kv) {
            (None, true) => compacted || expected.prev_kv.is_none(),
            (Some(_), true) => event.prev_kv == expected.prev_kv,
            (prev_kv, false) => prev_kv.is_none(),
        };
        if (event.r#type, &event.kv) != (expected.r#type, &expected.kv) || !prev_kv {
            return Err(format!("{event:?} is shown, {expected:?} was"));
        }
        Ok(())
    }
}
