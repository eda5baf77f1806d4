//! One client's Watch stream, at the reactor of its connection.
//!
//! Replies leave in one order: fragments of a reply begun; then the answers to the client's requests, in
//! their order; then events, the watchers round robin. A manual progress request stands among the answers:
//! it names the revision settled when it came, and until every watcher has sent its events up to there,
//! nothing above it leaves, nor any later answer. So the header's revision never falls for a watcher.
//!
//! A watch of what comes next is answered when all its shards have it: from then on it is told all, whatever is
//! compacted (etcd's law).

mod watcher;

use super::reply::{self, AuthError};
use super::{Action, EventBatch, HubMessage, Subscription, SubscriptionId, Watermarks, range_of};
use crate::api::{WatchCreate, WatchReply, WatchRequest};
use crate::limits::WatchBounds;
use crate::stdx::Rng;
use crate::types::{Duration, KeyRange, ReactorId, Revision, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use watcher::{NextReply, Watcher};

/// What a stream sees of its reactor.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub now: Time,
    /// What the store shows as its current revision here.
    pub settled: Revision,
    pub compacted: Revision,
    pub watermarks: &'a Watermarks,
}

/// What the stream owes the client for a request.
#[derive(Debug)]
enum PendingReply {
    /// The watcher's events may follow.
    Created(SubscriptionId, WatchReply),
    Reply(WatchReply),
    Progress(Revision),
}

/// The state of one Watch RPC.
#[derive(Debug)]
pub struct WatchStream {
    reader: ReactorId,
    watchers: BTreeMap<i64, Watcher>,
    ids: BTreeMap<SubscriptionId, i64>,
    /// The ids of watchers canceled by compaction. To etcd such an id is in use until the client cancels it
    /// too.
    compacted_ids: BTreeSet<i64>,
    next_id: i64,
    answers: VecDeque<PendingReply>,
    fragments: VecDeque<WatchReply>,
    /// Watchers that may have something to send.
    ready: VecDeque<i64>,
    /// Watchers whose next reply waits for watermarks to rise.
    blocked: BTreeSet<i64>,
    watermarks_seen: u64,
    feeds: usize,
    feeds_behind: usize,
    timers: BTreeSet<(Time, SubscriptionId)>,
    progress_interval: Duration,
    fragment_bytes: usize,
    bounds: WatchBounds,
    /// Whether a watcher is in the middle of a revision.
    unfinished: bool,
    rng: Rng,
}

/// Figures of a stream, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStats {
    pub watchers: u64,
    /// The watchers that read history on some shard.
    pub behind: u64,
    /// Events that wait to be sent.
    pub events: u64,
}

impl WatchStream {
    /// `fragment_bytes`: where replies are cut for clients that ask for it.
    pub fn new(
        reader: ReactorId,
        progress_interval: Duration,
        fragment_bytes: usize,
        bounds: WatchBounds,
        rng: Rng,
    ) -> WatchStream {
        WatchStream {
            reader,
            watchers: BTreeMap::new(),
            ids: BTreeMap::new(),
            compacted_ids: BTreeSet::new(),
            next_id: 0,
            answers: VecDeque::new(),
            fragments: VecDeque::new(),
            ready: VecDeque::new(),
            blocked: BTreeSet::new(),
            watermarks_seen: 0,
            feeds: 0,
            feeds_behind: 0,
            timers: BTreeSet::new(),
            progress_interval,
            fragment_bytes,
            bounds,
            unfinished: false,
            rng,
        }
    }

    pub fn stats(&self) -> StreamStats {
        StreamStats {
            watchers: self.watchers.len() as u64,
            behind: self.watchers.values().filter(|watcher| watcher.feeds_behind() > 0).count() as u64,
            events: self.watchers.values().map(|watcher| watcher.events_waiting() as u64).sum(),
        }
    }

    /// Whether too many answers wait: then no more requests of this client are to be read before some are
    /// polled.
    pub fn is_full(&self) -> bool {
        self.answers.len() >= self.bounds.answers_max
    }

    /// Takes the client's next request. For a create, `id` is new, `permitted` is the verdict on its range
    /// ([`range_of`]), and `shards_of` names the shards a range touches, at least one.
    pub fn request(
        &mut self,
        request: WatchRequest,
        id: SubscriptionId,
        permitted: Result<(), AuthError>,
        shards_of: impl FnOnce(&KeyRange) -> Vec<ShardId>,
        view: View,
        actions: &mut Vec<Action>,
    ) {
        match request {
            WatchRequest::Create(create) => {
                let answer = match self.check(&create, permitted) {
                    Ok((watch_id, range)) => {
                        self.create(create, watch_id, id, range, shards_of, view, actions);
                        return;
                    }
                    Err(reason) => PendingReply::Reply(reply::refused(reason, view.settled)),
                };
                self.answers.push_back(answer);
            }
            WatchRequest::Cancel { watch_id } => {
                if self.compacted_ids.remove(&watch_id) {
                    self.answers.push_back(PendingReply::Reply(reply::canceled(watch_id, view.settled)));
                } else if let Some(id) = self.remove(watch_id, actions) {
                    self.answer_end(id, reply::canceled(watch_id, view.settled));
                }
            }
            WatchRequest::Progress => self.answers.push_back(PendingReply::Progress(view.settled)),
            WatchRequest::Empty => {}
        }
    }

    /// The checks in etcd's order, and the watcher's id.
    fn check(
        &mut self,
        create: &WatchCreate,
        permitted: Result<(), AuthError>,
    ) -> Result<(i64, KeyRange), &'static str> {
        if create.start_revision < 0 {
            return Err(reply::NEGATIVE_START);
        }
        permitted.map_err(AuthError::reason)?;
        let range = range_of(create);
        if range.is_empty() {
            return Err(reply::EMPTY_RANGE);
        }
        let used = |id: i64| self.watchers.contains_key(&id) || self.compacted_ids.contains(&id);
        if create.watch_id != 0 {
            return if used(create.watch_id) {
                Err(reply::DUPLICATE_ID)
            } else {
                Ok((create.watch_id, range))
            };
        }
        let watch_id = (self.next_id..).find(|id| !used(*id)).expect("a stream has fewer than 2^63 watchers");
        self.next_id = watch_id + 1;
        Ok((watch_id, range))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, taken apart by its caller")]
    fn create(
        &mut self,
        create: WatchCreate,
        watch_id: i64,
        id: SubscriptionId,
        range: KeyRange,
        shards_of: impl FnOnce(&KeyRange) -> Vec<ShardId>,
        view: View,
        actions: &mut Vec<Action>,
    ) {
        self.answers.push_back(PendingReply::Created(id, reply::created(watch_id, view.settled)));
        let start = Revision(create.start_revision as u64);
        if start != Revision::NONE && start < view.compacted {
            self.compacted_ids.insert(watch_id);
            self.answers.push_back(PendingReply::Reply(reply::compacted(watch_id, view.compacted)));
            return;
        }
        let from = if start == Revision::NONE { view.settled.next() } else { start };
        let shards = shards_of(&range);
        assert!(!shards.is_empty(), "every range touches a shard");
        self.feeds += shards.len();
        let bounds = &self.bounds;
        let credit_bytes =
            (bounds.stream_credit_bytes / self.feeds).clamp(bounds.credit_bytes_min, bounds.credit_bytes_max);
        let subscription = Subscription {
            id,
            reader: self.reader,
            range,
            no_put: create.no_put,
            no_delete: create.no_delete,
            prev_kv: create.prev_kv,
            from,
            credit_bytes,
        };
        for shard in &shards {
            actions.push(Action::Subscribe { shard: *shard, subscription: subscription.clone() });
        }
        let mut watcher = Watcher::new(subscription, shards, start, view.settled, create.fragment);
        if create.progress_notify {
            watcher.timer = Some(self.next_timer(view.now, id));
        }
        assert!(self.watchers.insert(watch_id, watcher).is_none(), "the id was free");
        assert!(self.ids.insert(id, watch_id).is_none(), "a subscription's id is never used twice");
    }

    /// Sets a timer with up to a tenth of jitter, so that watchers made together do not report together.
    fn next_timer(&mut self, now: Time, id: SubscriptionId) -> Time {
        let jitter = self.rng.below(self.progress_interval.0 / 10 + 1);
        let at = now + self.progress_interval + Duration(jitter);
        self.timers.insert((at, id));
        at
    }

    /// Puts the last answer of a watcher right after what it has been told, and so before any progress reply,
    /// which does not hold for it any more.
    fn answer_end(&mut self, id: SubscriptionId, reply: WatchReply) {
        let created = |answer: &PendingReply| matches!(answer, PendingReply::Created(of, _) if *of == id);
        let place = self.answers.iter().position(created).map_or(0, |at| at + 1);
        self.answers.insert(place, PendingReply::Reply(reply));
    }

    /// Removes a watcher with its events, and returns its subscription, if there was such a one.
    fn remove(&mut self, watch_id: i64, actions: &mut Vec<Action>) -> Option<SubscriptionId> {
        let watcher = self.watchers.remove(&watch_id)?;
        let id = watcher.id;
        self.ids.remove(&id);
        self.blocked.remove(&watch_id);
        self.feeds -= watcher.feeds();
        self.feeds_behind -= watcher.feeds_behind();
        if let Some(at) = watcher.timer {
            self.timers.remove(&(at, id));
        }
        actions.extend(watcher.shards().map(|shard| Action::Unsubscribe { shard, id }));
        Some(id)
    }

    /// Ends the stream, and its subscriptions with it.
    pub fn close(mut self, actions: &mut Vec<Action>) {
        while let Some(watch_id) = self.watchers.keys().next().copied() {
            self.remove(watch_id, actions);
        }
    }

    /// Takes a hub's message for one of this stream's subscriptions. One that is gone already is ignored.
    pub fn hub_message(&mut self, shard: ShardId, message: HubMessage, actions: &mut Vec<Action>) {
        match message {
            HubMessage::Batch(batch) => self.batch(shard, batch),
            HubMessage::Compacted { id, revision, .. } => {
                let Some(watch_id) = self.ids.get(&id).copied() else { return };
                let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
                let behind = watcher.feeds_behind();
                if let Some(subscription) = watcher.renew(shard, revision) {
                    self.feeds_behind = self.feeds_behind - behind + watcher.feeds_behind();
                    return actions.push(Action::Renew { shard, subscription });
                }
                self.remove(watch_id, actions);
                self.compacted_ids.insert(watch_id);
                for answer in &mut self.answers {
                    // Not announced, it may as well have come after the compaction.
                    if let PendingReply::Created(of, created) = answer
                        && *of == id
                    {
                        created.revision = created.revision.max(revision);
                    }
                }
                self.answer_end(id, reply::compacted(watch_id, revision));
            }
        }
    }

    fn batch(&mut self, shard: ShardId, batch: EventBatch) {
        let Some(watch_id) = self.ids.get(&batch.id).copied() else { return };
        let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
        self.feeds_behind -= watcher.feeds_behind();
        watcher.receive(shard, batch);
        self.feeds_behind += watcher.feeds_behind();
        self.blocked.remove(&watch_id);
        self.enqueue(watch_id);
    }

    fn enqueue(&mut self, watch_id: i64) {
        let watcher = self.watchers.get_mut(&watch_id).expect("it is there");
        if !std::mem::replace(&mut watcher.is_queued, true) {
            self.ready.push_back(watch_id);
        }
    }

    /// Whether a rise of the reactor's watermarks may release a reply: poll again then.
    pub fn waits_for_watermarks(&self) -> bool {
        !self.blocked.is_empty() || matches!(self.answers.front(), Some(PendingReply::Progress(_)))
    }

    /// Whether the last poll gave nothing only because a large revision takes more turns: poll again in the
    /// next.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// The time at which the stream has to be polled even where nothing came for it.
    pub fn wake_at(&self) -> Time {
        self.timers.first().map_or(Time::NEVER, |(at, _)| *at)
    }

    /// The next reply, of about `budget_bytes` at most. It is to be called while there is budget, until it
    /// returns none.
    pub fn poll(&mut self, budget_bytes: usize, view: View, actions: &mut Vec<Action>) -> Option<WatchReply> {
        self.unfinished = false;
        if let Some(fragment) = self.fragments.pop_front() {
            return Some(fragment);
        }
        self.ring_timers(view.now);
        if std::mem::replace(&mut self.watermarks_seen, view.watermarks.stamp()) != view.watermarks.stamp() {
            std::mem::take(&mut self.blocked).into_iter().for_each(|watch_id| self.enqueue(watch_id));
        }
        loop {
            match self.answers.pop_front() {
                None => return self.serve(None, budget_bytes, view, actions),
                Some(PendingReply::Created(id, reply)) => {
                    let Some(watch_id) = self.ids.get(&id).copied() else { return Some(reply) };
                    let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
                    if watcher.is_joining() {
                        self.answers.push_front(PendingReply::Created(id, reply));
                        self.ask_progress_anew(view.settled);
                        return self.serve(None, budget_bytes, view, actions);
                    }
                    let revision = watcher.announce();
                    self.enqueue(watch_id);
                    return Some(WatchReply { revision, ..reply });
                }
                Some(PendingReply::Reply(reply)) => return Some(reply),
                Some(PendingReply::Progress(revision)) => {
                    if !self.may_report(revision) {
                        self.release_blocked();
                        continue;
                    }
                    self.answers.push_front(PendingReply::Progress(revision));
                    if let Some(reply) = self.serve(Some(revision), budget_bytes, view, actions) {
                        return Some(reply);
                    }
                    if !self.watchers.values().all(|watcher| watcher.is_through(revision, view.watermarks)) {
                        return None;
                    }
                    self.answers.pop_front();
                    self.release_blocked();
                    return Some(reply::progress(reply::NO_WATCHER, revision));
                }
            }
        }
    }

    /// etcd drops a progress request unless all watchers of the stream are in step and have begun. Those
    /// created after the request have their answer behind it, and are not concerned.
    fn may_report(&self, revision: Revision) -> bool {
        let mut concerned = self.watchers.values().filter(|watcher| watcher.announced).peekable();
        self.feeds_behind == 0
            && concerned.peek().is_some()
            && concerned.all(|watcher| watcher.start <= revision)
    }

    /// Lets progress requests behind an answer that is not ready count as if they came now: meanwhile events
    /// leave.
    fn ask_progress_anew(&mut self, settled: Revision) {
        for answer in &mut self.answers {
            if let PendingReply::Progress(revision) = answer {
                *revision = settled.max(*revision);
            }
        }
    }

    /// Lets the watchers go on that a progress request has blocked.
    fn release_blocked(&mut self) {
        std::mem::take(&mut self.blocked).into_iter().for_each(|watch_id| self.enqueue(watch_id));
    }

    fn ring_timers(&mut self, now: Time) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let next = self.next_timer(now, id);
            let watch_id = self.ids[&id];
            let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
            watcher.timer = Some(next);
            if watcher.ring() {
                self.blocked.remove(&watch_id);
                self.enqueue(watch_id);
            }
        }
    }

    /// The next reply of the first ready watcher that has one, with nothing above `cap`.
    fn serve(
        &mut self,
        cap: Option<Revision>,
        budget_bytes: usize,
        view: View,
        actions: &mut Vec<Action>,
    ) -> Option<WatchReply> {
        while let Some(watch_id) = self.ready.pop_front() {
            // The id may have been canceled, and may be another watcher's by now: to look at it does no harm.
            let Some(watcher) = self.watchers.get_mut(&watch_id) else { continue };
            watcher.is_queued = false;
            if !watcher.announced {
                continue;
            }
            match watcher.next(cap, budget_bytes, &self.bounds, view, actions) {
                NextReply::Nothing => {}
                NextReply::Blocked => {
                    self.blocked.insert(watch_id);
                }
                NextReply::Unfinished => {
                    self.enqueue(watch_id);
                    self.unfinished = true;
                    return None;
                }
                NextReply::Progress(revision) => return Some(reply::progress(watch_id, revision)),
                NextReply::Events(revision, events) => {
                    let reply = reply::events(watch_id, revision, events);
                    let cut = watcher.fragment;
                    self.enqueue(watch_id);
                    if !cut {
                        return Some(reply);
                    }
                    self.fragments.extend(reply::fragments(reply, self.fragment_bytes));
                    return self.fragments.pop_front();
                }
            }
        }
        None
    }
}
