//! The subscriptions to one shard, at its owner.
//!
//! In each turn the owner calls `publish` with what settles, and goes on while the hub `is_publishing`; it
//! calls
//! `catch_up` while the hub `lags`; then it `take`s the messages and sends, behind them, the watermark
//! `settled` to every reader.
//!
//! A revision may have more changes than one step has time for, so both ways go in slices that end anywhere.
//! Between two slices of publishing a revision is *begun*: those in step have a part of it. So nobody joins
//! those in step at a revision that is begun, nor comes into step meanwhile; and whoever has got a
//! revision's first event gets its last, whatever its credit: the stream can pass on nothing less.
//!
//! Those behind share their reading of history: a slice is read from the place of the first in a queue, and
//! serves all others whose place lies in it. The queue is served round robin, so one that is far behind does
//! not delay one that is nearly there, and many that begin at one revision cost hardly more than one.

use super::index::SubscriptionIndex;
use super::{Delivery, EventBatch, HubMessage, Subscription, SubscriptionId, cost_bytes};
use crate::api::WatchEvent;
use crate::mvcc::{Budget, PinId, Store};
use crate::stdx::HashMap;
use crate::types::{At, Event, KeyValue, ReactorId, Revision, Sub};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncState {
    InStep,
    /// Everything below `next` has been sent.
    Behind {
        next: At,
    },
}

/// Settled changes of which a part has been handed on.
#[derive(Debug)]
struct Publishing {
    /// Keeps what those in step are still to get from compaction.
    pin: PinId,
    /// The last change handed on, which is of the revision that is begun.
    after: At,
}

#[derive(Debug)]
struct Subscriber {
    subscription: Subscription,
    sync: SyncState,
    /// The credit left, in bytes; below 0 where the last revision sent was larger than what was left.
    credit: i64,
    /// The last event that it got.
    last: At,
    pending: Vec<Delivery>,
    /// Whether it has something to tell with the next messages.
    told: bool,
    /// Whether it stands in the queue of those that wait to read history.
    queued: bool,
    /// Whether it takes part in the slice being read.
    reading: bool,
}

/// How often the rarer things happened to the subscriptions of a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// A subscription had no credit left for what settled.
    pub fell_behind: u64,
    /// A slice of history was read for those behind.
    pub caught_up: u64,
    /// What a subscription needed was compacted.
    pub compacted: u64,
    pub published_in_slices: u64,
}

/// The subscriptions to one shard.
#[derive(Debug)]
pub struct Hub {
    subscribers: HashMap<SubscriptionId, Subscriber>,
    in_step: SubscriptionIndex,
    behind: SubscriptionIndex,
    /// The subscriptions behind that can read on, by their place.
    ready: BTreeSet<(At, SubscriptionId)>,
    read_queue: VecDeque<SubscriptionId>,
    to_tell: Vec<SubscriptionId>,
    messages: Vec<HubMessage>,
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
            subscribers: HashMap::default(),
            in_step: SubscriptionIndex::new(),
            behind: SubscriptionIndex::new(),
            ready: BTreeSet::new(),
            read_queue: VecDeque::new(),
            to_tell: Vec::new(),
            messages: Vec::new(),
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

    /// The revision up to which everything has been published: the watermark that goes out behind the
    /// messages says it.
    pub fn settled(&self) -> Revision {
        self.settled
    }

    /// The reactors that have subscriptions here, and so want watermarks.
    pub fn readers(&self) -> impl Iterator<Item = ReactorId> + '_ {
        self.readers.keys().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Adds a subscription. It is answered by a batch, perhaps without events, or by the word that history
    /// from its first revision on is compacted.
    pub fn subscribe(&mut self, subscription: Subscription) {
        let (id, reader, from) = (subscription.id, subscription.reader, subscription.from);
        if from < self.compacted {
            self.messages.push(HubMessage::Compacted { id, reader, revision: self.compacted });
            return;
        }
        let reached = self.publishing.as_ref().map_or(self.settled, |publishing| publishing.after.main);
        let sync =
            if from > reached { SyncState::InStep } else { SyncState::Behind { next: start_of(from) } };
        let (credit, last) = (subscription.credit_bytes as i64, At::default());
        let (pending, told, queued, reading) = (Vec::new(), false, false, false);
        let subscriber = Subscriber { subscription, sync, credit, last, pending, told, queued, reading };
        let range = &subscriber.subscription.range;
        match sync {
            SyncState::InStep => self.in_step.insert(range, id),
            SyncState::Behind { .. } => self.behind.insert(range, id),
        }
        *self.readers.entry(reader).or_default() += 1;
        assert!(self.subscribers.insert(id, subscriber).is_none(), "a subscription's id is never used twice");
        match sync {
            SyncState::InStep => self.tell(id),
            SyncState::Behind { .. } => self.enqueue(id),
        }
    }

    /// Removes a subscription. One that is not there any more has been compacted meanwhile.
    pub fn unsubscribe(&mut self, id: SubscriptionId) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        let subscription = &subscriber.subscription;
        match subscriber.sync {
            SyncState::InStep => self.in_step.remove(&subscription.range, id),
            SyncState::Behind { next } => {
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

    /// Gives credit back for events of `bytes` that the stream has passed on.
    pub fn add_credit(&mut self, id: SubscriptionId, bytes: usize) {
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.credit += bytes as i64;
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
        let mut shared = SharedEvent::new(at, event, prev);
        for id in found.drain(..) {
            let subscriber = self.subscribers.get_mut(&id).expect("the index holds what is subscribed");
            if at.main < subscriber.subscription.from || !subscriber.wants(event) {
                continue;
            }
            if subscriber.accepts(at.main) {
                subscriber.push(&mut shared);
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

    /// Notes that all changes up to here have been handed on.
    fn settle(&mut self, upto: Revision) {
        assert!(upto >= self.settled, "settled never falls");
        self.settled = upto;
    }

    /// Ends the subscriptions that still need history below a compaction, and tells them so.
    pub fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        let mut gone: Vec<_> = self
            .subscribers
            .iter()
            .filter(|(_, subscriber)| matches!(subscriber.sync, SyncState::Behind { next } if next.main < self.compacted))
            .map(|(id, _)| *id)
            .collect();
        gone.sort_unstable();
        for id in gone {
            self.lose(id);
        }
    }

    /// The store was exchanged for one that holds the same history and more, but for what was compacted at this
    /// revision. Nothing is being published.
    pub fn exchanged(&mut self, compacted: Revision) {
        assert!(!self.is_publishing(), "what was begun is told from the store that it was begun of");
        let next = self.settled.next();
        let is_lost = |subscriber: &Subscriber| {
            subscriber.sync == SyncState::InStep && subscriber.subscription.from.max(next) < compacted
        };
        let lost = self.subscribers.iter().filter(|(_, subscriber)| is_lost(subscriber));
        let mut lost: Vec<SubscriptionId> = lost.map(|(id, _)| *id).collect();
        lost.sort_unstable();
        self.compacted = self.compacted.max(compacted);
        lost.into_iter().for_each(|id| self.lose(id));
        self.compact(compacted);
    }

    /// Ends a subscription whose next change is compacted.
    fn lose(&mut self, id: SubscriptionId) {
        self.counts.compacted += 1;
        let reader = self.subscribers[&id].subscription.reader;
        self.unsubscribe(id);
        self.messages.push(HubMessage::Compacted { id, reader, revision: self.compacted });
    }

    /// Whether [`Hub::catch_up`] has work. While a revision is begun it has none.
    pub fn lags(&self) -> bool {
        !self.ready.is_empty() && !self.is_publishing()
    }

    /// Reads one slice of history, which at most `watchers_max` of those behind share.
    pub fn catch_up(&mut self, store: &Store, budget: Budget, watchers_max: usize) {
        if !self.lags() {
            return;
        }
        let Some((leader, next)) = self.next_reader() else { return };
        let history = store.history(below(next), self.settled, budget);
        let end = if history.done { start_of(self.settled.next()) } else { above(history.resume) };
        let reading = self.begin_slice(leader, next, end, watchers_max);
        self.counts.caught_up += u64::from(!history.changes.is_empty());
        let mut found = std::mem::take(&mut self.found);
        for (at, change) in &history.changes {
            self.behind.find(change.event.key(), &mut found);
            let mut shared = SharedEvent::new(*at, &change.event, || before(store, *at, &change.event));
            for id in found.drain(..) {
                let subscriber = self.subscribers.get_mut(&id).expect("the index holds what is subscribed");
                subscriber.read(&mut shared);
            }
        }
        self.found = found;
        for (id, next) in reading {
            self.end_slice(id, next, end);
        }
    }

    /// Takes what there is to tell: batches of those that got events or changed between in step and behind.
    pub fn take(&mut self) -> Vec<HubMessage> {
        let mut messages = std::mem::take(&mut self.messages);
        for id in std::mem::take(&mut self.to_tell) {
            let Some(subscriber) = self.subscribers.get_mut(&id) else { continue };
            subscriber.told = false;
            let (upto, in_step) = match subscriber.sync {
                SyncState::InStep => (self.settled, true),
                SyncState::Behind { next } => (Revision(next.main.0 - 1), false),
            };
            let (events, reader) = (std::mem::take(&mut subscriber.pending), subscriber.subscription.reader);
            messages.push(HubMessage::Batch(EventBatch { id, reader, events, upto, in_step }));
        }
        messages
    }

    fn tell(&mut self, id: SubscriptionId) {
        let subscriber = self.subscribers.get_mut(&id).expect("only subscribers are told");
        if !std::mem::replace(&mut subscriber.told, true) {
            self.to_tell.push(id);
        }
    }

    fn fall_behind(&mut self, id: SubscriptionId, next: At) {
        let subscriber = self.subscribers.get_mut(&id).expect("it is subscribed");
        subscriber.sync = SyncState::Behind { next };
        self.in_step.remove(&subscriber.subscription.range, id);
        self.behind.insert(&subscriber.subscription.range, id);
        self.tell(id);
    }

    /// Puts one that is behind, and would accept what comes next, into the queue of readers.
    fn enqueue(&mut self, id: SubscriptionId) {
        let subscriber = self.subscribers.get_mut(&id).expect("it is subscribed");
        let SyncState::Behind { next } = subscriber.sync else { return };
        if !subscriber.accepts(next.main) {
            return;
        }
        self.ready.insert((next, id));
        if !std::mem::replace(&mut subscriber.queued, true) {
            self.read_queue.push_back(id);
        }
    }

    /// The next in the queue that is still there, behind, and reads on.
    fn next_reader(&mut self) -> Option<(SubscriptionId, At)> {
        while let Some(id) = self.read_queue.pop_front() {
            let Some(subscriber) = self.subscribers.get_mut(&id) else { continue };
            subscriber.queued = false;
            if let SyncState::Behind { next } = subscriber.sync
                && subscriber.accepts(next.main)
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
            self.subscribers.get_mut(id).expect("only subscribers are ready").reading = true;
            self.ready.remove(&(*next, *id));
        }
        reading
    }

    /// Notes that one has read from `next` on to the slice's end, or to where its credit ended.
    fn end_slice(&mut self, id: SubscriptionId, next: At, end: At) {
        let subscriber = self.subscribers.get_mut(&id).expect("nobody leaves during a slice");
        if std::mem::replace(&mut subscriber.reading, false) {
            if end.main > self.settled {
                subscriber.sync = SyncState::InStep;
                self.behind.remove(&subscriber.subscription.range, id);
                self.in_step.insert(&subscriber.subscription.range, id);
            } else {
                subscriber.sync = SyncState::Behind { next: end };
            }
        }
        let as_before = matches!(subscriber.sync, SyncState::Behind { next: now } if now.main == next.main);
        if !as_before || !subscriber.pending.is_empty() {
            self.tell(id);
        }
        self.enqueue(id);
    }
}

impl Subscriber {
    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Put(_) => !self.subscription.no_put,
            Event::Delete { .. } => !self.subscription.no_delete,
        }
    }

    /// Whether it takes events of a revision: always of one that it has a part of, of a new one only with
    /// credit.
    fn accepts(&self, revision: Revision) -> bool {
        self.credit > 0 || self.last.main == revision
    }

    fn push(&mut self, shared: &mut SharedEvent<impl FnOnce() -> Option<KeyValue>>) {
        let event = shared.get(self.subscription.prev_kv);
        self.credit -= cost_bytes(&event) as i64;
        self.last = shared.at;
        self.pending.push((shared.at, event));
    }

    /// Takes a change from history, which may be of no interest; without credit the reading stops before it.
    fn read(&mut self, shared: &mut SharedEvent<impl FnOnce() -> Option<KeyValue>>) {
        let SyncState::Behind { next } = self.sync else { panic!("only those behind read history") };
        if !self.reading || shared.at < next || !self.wants(shared.event) {
            return;
        }
        if self.accepts(shared.at.main) {
            self.push(shared);
        } else {
            self.sync = SyncState::Behind { next: shared.at };
            self.reading = false;
        }
    }
}

/// One event in its two forms, each made once, when first wanted.
struct SharedEvent<'a, F> {
    at: At,
    event: &'a Event,
    prev: Option<F>,
    plain: Option<Arc<WatchEvent>>,
    with_prev: Option<Arc<WatchEvent>>,
}

impl<'a, F: FnOnce() -> Option<KeyValue>> SharedEvent<'a, F> {
    fn new(at: At, event: &'a Event, prev: F) -> Self {
        SharedEvent { at, event, prev: Some(prev), plain: None, with_prev: None }
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
