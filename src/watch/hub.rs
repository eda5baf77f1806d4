//! The subscriptions to one shard, at its owner.
//!
//! A turn of the owner: `publish` what settles, and go on while the hub `is_publishing`; `catch_up` while it
//! `lags`; then `take` the notices and send, behind them, the mark `settled` to every reader.
//!
//! A revision may have more changes than one step has time for, so both ways go in slices that end anywhere.
//! Between two slices of publishing a revision is *begun*: those in step have a part of it. So nobody joins
//! those in step at a revision that is begun, nor comes into step meanwhile; and whoever has got a
//! revision's first event gets its last, whatever its credit: the stream can pass on nothing less.
//!
//! Those behind share their reading of history: a slice is read from the place of the one whose turn it is,
//! and serves all others whose place lies in it. Turns go round, so one that is far behind does not hold up
//! one that is nearly there, and many that begin at one revision cost hardly more than one.

use super::index::Index;
use super::{Batch, Delivery, Notice, Subscription, SubscriptionId, cost_bytes};
use crate::api::WatchEvent;
use crate::mvcc::{Budget, PinId, Store};
use crate::stdx::HashMap;
use crate::types::{At, Event, KeyValue, ReactorId, Revision, Sub};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    InStep,
    /// Everything below `next` has been sent.
    Behind {
        next: At,
    },
}

/// Settled changes of which a part has been handed on.
#[derive(Debug)]
struct Publishing {
    /// Those in step are owed what compaction takes meanwhile.
    pin: PinId,
    /// The last change handed on: of the revision that is begun.
    after: At,
}

#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    place: Place,
    /// Below 0 where the last revision sent was larger than what was left.
    credit: i64,
    /// The last event that it got.
    last: At,
    pending: Vec<Delivery>,
    /// Has something to tell with the next notices.
    told: bool,
    /// Stands in the queue of those that wait for their turn to read history.
    queued: bool,
    /// Takes part in the slice being read.
    reading: bool,
}

/// How often something happened to the subscriptions of a hub that happens to few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// One had no credit left for what settled.
    pub fell_behind: u64,
    /// A slice of history was read for those behind.
    pub caught_up: u64,
    /// What one needed was compacted.
    pub compacted: u64,
    pub published_in_slices: u64,
}

/// The subscriptions to one shard.
#[derive(Debug)]
pub struct Hub {
    entries: HashMap<SubscriptionId, Entry>,
    in_step: Index,
    behind: Index,
    /// Those behind that can read on, by their place.
    ready: BTreeSet<(At, SubscriptionId)>,
    turns: VecDeque<SubscriptionId>,
    to_tell: Vec<SubscriptionId>,
    notices: Vec<Notice>,
    readers: BTreeMap<ReactorId, usize>,
    settled: Revision,
    compacted: Revision,
    publishing: Option<Publishing>,
    found: Vec<SubscriptionId>,
    counts: HubCounts,
}

impl Hub {
    /// `settled` is the revision up to which the shard's store is settled here.
    pub fn new(settled: Revision, compacted: Revision) -> Hub {
        Hub {
            entries: HashMap::default(),
            in_step: Index::new(),
            behind: Index::new(),
            ready: BTreeSet::new(),
            turns: VecDeque::new(),
            to_tell: Vec::new(),
            notices: Vec::new(),
            readers: BTreeMap::new(),
            settled,
            compacted,
            publishing: None,
            found: Vec::new(),
            counts: HubCounts::default(),
        }
    }

    pub fn counts(&self) -> HubCounts {
        self.counts
    }

    /// Everything up to here has been published: what the mark says that goes out behind the notices.
    pub fn settled(&self) -> Revision {
        self.settled
    }

    /// The reactors that have subscriptions here, and so want marks.
    pub fn readers(&self) -> impl Iterator<Item = ReactorId> + '_ {
        self.readers.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The answer is a batch, perhaps without events, or that history from there on is compacted.
    pub fn subscribe(&mut self, subscription: Subscription) {
        let (id, reader, from) = (subscription.id, subscription.reader, subscription.from);
        if from < self.compacted {
            self.notices.push(Notice::Compacted { id, reader, revision: self.compacted });
            return;
        }
        let reached = self.publishing.as_ref().map_or(self.settled, |publishing| publishing.after.main);
        let place = if from > reached { Place::InStep } else { Place::Behind { next: start_of(from) } };
        let (credit, last) = (subscription.credit_bytes as i64, At::default());
        let (pending, told, queued, reading) = (Vec::new(), false, false, false);
        let entry = Entry { subscription, place, credit, last, pending, told, queued, reading };
        let range = &entry.subscription.range;
        match place {
            Place::InStep => self.in_step.insert(range, id),
            Place::Behind { .. } => self.behind.insert(range, id),
        }
        *self.readers.entry(reader).or_default() += 1;
        assert!(self.entries.insert(id, entry).is_none(), "a subscription's id is never used twice");
        match place {
            Place::InStep => self.tell(id),
            Place::Behind { .. } => self.enqueue(id),
        }
    }

    /// A subscription that is not there any more has been compacted meanwhile.
    pub fn unsubscribe(&mut self, id: SubscriptionId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        let subscription = &entry.subscription;
        match entry.place {
            Place::InStep => self.in_step.remove(&subscription.range, id),
            Place::Behind { next } => {
                self.behind.remove(&subscription.range, id);
                self.ready.remove(&(next, id));
            }
        }
        let count = self.readers.get_mut(&subscription.reader).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            self.readers.remove(&subscription.reader);
        }
    }

    /// The stream has passed on events of so many bytes.
    pub fn add_credit(&mut self, id: SubscriptionId, bytes: usize) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.credit += bytes as i64;
            self.enqueue(id);
        }
    }

    /// Hands on what has settled since, or a slice of it. The store is settled up to `settled`.
    pub fn publish(&mut self, store: &mut Store, settled: Revision, budget: Budget) {
        if settled <= self.settled {
            return;
        }
        if self.is_empty() || store.newest_revision().main <= self.settled {
            return self.end_publishing(store, settled);
        }
        let history = match &self.publishing {
            None => store.history(below(start_of(self.settled.next())), settled, budget),
            Some(Publishing { pin, after }) => {
                store.extend_pin(*pin, settled);
                store.history_pinned(*pin, *after, budget)
            }
        };
        for (at, change) in &history.changes {
            let event = &change.event;
            self.publish_change(*at, event, || store.get(event.key(), Revision(at.main.0 - 1)));
        }
        if history.done {
            return self.end_publishing(store, settled);
        }
        let after = history.resume;
        let pin = self.publishing.as_ref().map(|publishing| publishing.pin);
        let pin = pin.unwrap_or_else(|| store.pin(settled));
        self.publishing = Some(Publishing { pin, after });
        self.counts.published_in_slices += 1;
        self.settle(Revision(after.main.0 - 1));
    }

    /// Whether [`Hub::publish`] is to be called again though nothing more settles.
    pub fn is_publishing(&self) -> bool {
        self.publishing.is_some()
    }

    /// `prev` reads the key at the revision before; it is asked only if some subscription wants it, and not
    /// for a key's creation.
    fn publish_change(&mut self, at: At, event: &Event, prev: impl FnOnce() -> Option<KeyValue>) {
        assert!(at.main > self.settled, "{} settles once", at.main);
        let mut found = std::mem::take(&mut self.found);
        self.in_step.find(event.key(), &mut found);
        let mut shared = Shared::new(at, event, prev);
        for id in found.drain(..) {
            let entry = self.entries.get_mut(&id).expect("the index holds what is subscribed");
            if at.main < entry.subscription.from || !entry.wants(event) {
                continue;
            }
            if entry.accepts(at.main) {
                entry.push(&mut shared);
                self.tell(id);
            } else {
                self.fall_behind(id, at);
                self.counts.fell_behind += 1;
                // Only those in step were owed it.
                if at.main < self.compacted {
                    self.lose(id);
                }
            }
        }
        self.found = found;
    }

    fn end_publishing(&mut self, store: &mut Store, settled: Revision) {
        if let Some(Publishing { pin, .. }) = self.publishing.take() {
            store.unpin(pin);
        }
        self.settle(settled);
    }

    /// All changes up to here have been handed on.
    fn settle(&mut self, upto: Revision) {
        assert!(upto >= self.settled, "settled never falls");
        self.settled = upto;
    }

    /// The store has been replaced by a state that is settled up to here. Nobody has seen what lies between;
    /// it is read from history like all that was missed. What the hub held of the old store is gone with it.
    pub fn restored(&mut self, settled: Revision, compacted: Revision) {
        let next = start_of(self.settled.next());
        self.publishing = None;
        self.settle(settled);
        let mut in_step: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.place == Place::InStep).collect();
        in_step.sort_by_key(|(id, _)| **id);
        let missed = |entry: &Entry| next.max(start_of(entry.subscription.from)).max(above(entry.last));
        let in_step: Vec<_> = in_step.into_iter().map(|(id, entry)| (*id, missed(entry))).collect();
        for (id, next) in in_step {
            if next.main <= settled {
                self.fall_behind(id, next);
                self.enqueue(id);
            }
        }
        self.compact(compacted);
    }

    /// Compaction takes effect here: who still needs history below it is told so, and gone.
    pub fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        let mut gone: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.place, Place::Behind { next } if next.main < self.compacted))
            .map(|(id, _)| *id)
            .collect();
        gone.sort_unstable();
        for id in gone {
            self.lose(id);
        }
    }

    /// What it needs next is compacted.
    fn lose(&mut self, id: SubscriptionId) {
        self.counts.compacted += 1;
        let reader = self.entries[&id].subscription.reader;
        self.unsubscribe(id);
        self.notices.push(Notice::Compacted { id, reader, revision: self.compacted });
    }

    /// Whether [`Hub::catch_up`] has work. While a revision is begun it has none.
    pub fn lags(&self) -> bool {
        !self.ready.is_empty() && !self.is_publishing()
    }

    /// Reads one slice of history for those behind, of whom so many share it.
    pub fn catch_up(&mut self, store: &Store, budget: Budget, watchers_max: usize) {
        if !self.lags() {
            return;
        }
        let Some((leader, next)) = self.next_turn() else { return };
        let history = store.history(below(next), self.settled, budget);
        let end = if history.done { start_of(self.settled.next()) } else { above(history.resume) };
        let reading = self.begin_slice(leader, next, end, watchers_max);
        self.counts.caught_up += u64::from(!history.changes.is_empty());
        let mut found = std::mem::take(&mut self.found);
        for (at, change) in &history.changes {
            self.behind.find(change.event.key(), &mut found);
            let mut shared = Shared::new(*at, &change.event, || before(store, *at, &change.event));
            for id in found.drain(..) {
                let entry = self.entries.get_mut(&id).expect("the index holds what is subscribed");
                entry.read(&mut shared);
            }
        }
        self.found = found;
        for (id, next) in reading {
            self.end_slice(id, next, end);
        }
    }

    /// What there is to tell: batches of those that got events or changed between in step and behind.
    pub fn take(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.notices);
        for id in std::mem::take(&mut self.to_tell) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.told = false;
            let (upto, in_step) = match entry.place {
                Place::InStep => (self.settled, true),
                Place::Behind { next } => (Revision(next.main.0 - 1), false),
            };
            let (events, reader) = (std::mem::take(&mut entry.pending), entry.subscription.reader);
            notices.push(Notice::Batch(Batch { id, reader, events, upto, in_step }));
        }
        notices
    }

    fn tell(&mut self, id: SubscriptionId) {
        let entry = self.entries.get_mut(&id).expect("only subscribers are told");
        if !std::mem::replace(&mut entry.told, true) {
            self.to_tell.push(id);
        }
    }

    fn fall_behind(&mut self, id: SubscriptionId, next: At) {
        let entry = self.entries.get_mut(&id).expect("it is subscribed");
        entry.place = Place::Behind { next };
        self.in_step.remove(&entry.subscription.range, id);
        self.behind.insert(&entry.subscription.range, id);
        self.tell(id);
    }

    /// One that is behind and would accept what comes next waits for its turn.
    fn enqueue(&mut self, id: SubscriptionId) {
        let entry = self.entries.get_mut(&id).expect("it is subscribed");
        let Place::Behind { next } = entry.place else { return };
        if !entry.accepts(next.main) {
            return;
        }
        self.ready.insert((next, id));
        if !std::mem::replace(&mut entry.queued, true) {
            self.turns.push_back(id);
        }
    }

    /// The next that is still there, behind, and reads on.
    fn next_turn(&mut self) -> Option<(SubscriptionId, At)> {
        while let Some(id) = self.turns.pop_front() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.queued = false;
            if let Place::Behind { next } = entry.place
                && entry.accepts(next.main)
            {
                return Some((id, next));
            }
        }
        None
    }

    /// Who takes part, and from where on: the leader, and others whose place lies in the slice.
    fn begin_slice(
        &mut self,
        leader: SubscriptionId,
        next: At,
        end: At,
        watchers_max: usize,
    ) -> Vec<(SubscriptionId, At)> {
        let in_slice = (next, SubscriptionId(0))..(end, SubscriptionId(0));
        let others = self.ready.range(in_slice).filter(|(_, id)| *id != leader);
        let others = others.take(watchers_max - 1).map(|(next, id)| (*id, *next));
        let reading: Vec<_> = std::iter::once((leader, next)).chain(others).collect();
        for (id, next) in &reading {
            self.entries.get_mut(id).expect("only subscribers are ready").reading = true;
            self.ready.remove(&(*next, *id));
        }
        reading
    }

    /// It has read from `next` on to the slice's end, or to where its credit ended.
    fn end_slice(&mut self, id: SubscriptionId, next: At, end: At) {
        let entry = self.entries.get_mut(&id).expect("nobody leaves during a slice");
        if std::mem::replace(&mut entry.reading, false) {
            if end.main > self.settled {
                entry.place = Place::InStep;
                self.behind.remove(&entry.subscription.range, id);
                self.in_step.insert(&entry.subscription.range, id);
            } else {
                entry.place = Place::Behind { next: end };
            }
        }
        let as_before = matches!(entry.place, Place::Behind { next: now } if now.main == next.main);
        if !as_before || !entry.pending.is_empty() {
            self.tell(id);
        }
        self.enqueue(id);
    }
}

impl Entry {
    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Put(_) => !self.subscription.no_put,
            Event::Delete { .. } => !self.subscription.no_delete,
        }
    }

    /// A revision of which it has a part is finished, whatever the credit; a new one needs some.
    fn accepts(&self, revision: Revision) -> bool {
        self.credit > 0 || self.last.main == revision
    }

    fn push(&mut self, shared: &mut Shared<impl FnOnce() -> Option<KeyValue>>) {
        let event = shared.get(self.subscription.prev_kv);
        self.credit -= cost_bytes(&event) as i64;
        self.last = shared.at;
        self.pending.push((shared.at, event));
    }

    /// A change from history, which may be of no interest; without credit the reading stops before it.
    fn read(&mut self, shared: &mut Shared<impl FnOnce() -> Option<KeyValue>>) {
        let Place::Behind { next } = self.place else { panic!("only those behind read history") };
        if !self.reading || shared.at < next || !self.wants(shared.event) {
            return;
        }
        if self.accepts(shared.at.main) {
            self.push(shared);
        } else {
            self.place = Place::Behind { next: shared.at };
            self.reading = false;
        }
    }
}

/// One event in its two forms, each made once, when first wanted.
struct Shared<'a, F> {
    at: At,
    event: &'a Event,
    prev: Option<F>,
    plain: Option<Arc<WatchEvent>>,
    with_prev: Option<Arc<WatchEvent>>,
}

impl<'a, F: FnOnce() -> Option<KeyValue>> Shared<'a, F> {
    fn new(at: At, event: &'a Event, prev: F) -> Self {
        Shared { at, event, prev: Some(prev), plain: None, with_prev: None }
    }

    fn get(&mut self, with_prev: bool) -> Arc<WatchEvent> {
        let event = self.event;
        if with_prev && !is_create(event) {
            let prev = &mut self.prev;
            let make = || {
                let prev_kv = prev.take().expect("this form is made once")();
                Arc::new(WatchEvent { event: event.clone(), prev_kv })
            };
            return self.with_prev.get_or_insert_with(make).clone();
        }
        let make = || Arc::new(WatchEvent { event: event.clone(), prev_kv: None });
        self.plain.get_or_insert_with(make).clone()
    }
}

fn is_create(event: &Event) -> bool {
    matches!(event, Event::Put(kv) if kv.create_revision == kv.mod_revision)
}

/// The key as of the revision before, where that is not compacted.
fn before(store: &Store, at: At, event: &Event) -> Option<KeyValue> {
    let revision = Revision(at.main.0 - 1);
    (revision >= store.compacted()).then(|| store.get(event.key(), revision)).flatten()
}

fn start_of(revision: Revision) -> At {
    At { main: revision, sub: Sub(0) }
}

/// The lowest place above this one.
fn above(at: At) -> At {
    At { main: at.main, sub: Sub(at.sub.0 + 1) }
}

/// The highest place below this one.
fn below(at: At) -> At {
    match at.sub.0.checked_sub(1) {
        Some(sub) => At { main: at.main, sub: Sub(sub) },
        None => At { main: Revision(at.main.0 - 1), sub: Sub(u32::MAX) },
    }
}
