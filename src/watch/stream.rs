//! One client's Watch stream, at the reactor of its connection.
//!
//! Replies leave in one order: fragments of a reply begun; then the answers to the client's requests, in
//! their order; then events, the watchers taking turns. A manual progress request stands among the answers:
//! it names the revision settled when it came, and until every watcher has sent its events up to there,
//! nothing above it leaves, nor any later answer. So the header's revision never falls for a watcher.
//!
//! A watch of what comes next is answered when all its shards have it: from then on it is told all, whatever is
//! compacted (etcd's law).

mod watcher;

use super::reply::{self, Refusal};
use super::{Action, Batch, Marks, Notice, Subscription, SubscriptionId, range_of};
use crate::api::{WatchCreate, WatchReply, WatchRequest};
use crate::limits::WatchBounds;
use crate::stdx::Rng;
use crate::types::{Duration, KeyRange, ReactorId, Revision, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use watcher::{Next, Watcher};

/// What a stream sees of its reactor.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub now: Time,
    /// What the store shows as its current revision here.
    pub settled: Revision,
    pub compacted: Revision,
    pub marks: &'a Marks,
}

/// What the stream owes the client for a request.
#[derive(Debug)]
enum Answer {
    /// The watcher's events may follow.
    Created(SubscriptionId, WatchReply),
    Reply(WatchReply),
    Progress(Revision),
}

/// The state of one Watch RPC.
#[derive(Debug)]
pub struct Stream {
    reader: ReactorId,
    watchers: BTreeMap<i64, Watcher>,
    ids: BTreeMap<SubscriptionId, i64>,
    /// Canceled by compaction. To etcd such an id is in use until the client cancels it as well.
    spent: BTreeSet<i64>,
    next_id: i64,
    answers: VecDeque<Answer>,
    fragments: VecDeque<WatchReply>,
    /// Watchers that may have something to send.
    turns: VecDeque<i64>,
    /// Watchers whose next reply waits for marks to rise.
    held: BTreeSet<i64>,
    marks_seen: u64,
    lanes: usize,
    lanes_behind: usize,
    timers: BTreeSet<(Time, SubscriptionId)>,
    progress_interval: Duration,
    fragment_bytes: usize,
    bounds: WatchBounds,
    /// A watcher is in the middle of a revision.
    unfinished: bool,
    rng: Rng,
}

/// Figures of a stream, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCensus {
    pub watchers: u64,
    /// Of them those that read history on some shard.
    pub behind: u64,
    /// Events that wait to be sent.
    pub events: u64,
}

impl Stream {
    /// `fragment_bytes`: where replies are cut for clients that ask for it.
    pub fn new(
        reader: ReactorId,
        progress_interval: Duration,
        fragment_bytes: usize,
        bounds: WatchBounds,
        rng: Rng,
    ) -> Stream {
        Stream {
            reader,
            watchers: BTreeMap::new(),
            ids: BTreeMap::new(),
            spent: BTreeSet::new(),
            next_id: 0,
            answers: VecDeque::new(),
            fragments: VecDeque::new(),
            turns: VecDeque::new(),
            held: BTreeSet::new(),
            marks_seen: 0,
            lanes: 0,
            lanes_behind: 0,
            timers: BTreeSet::new(),
            progress_interval,
            fragment_bytes,
            bounds,
            unfinished: false,
            rng,
        }
    }

    pub fn census(&self) -> StreamCensus {
        StreamCensus {
            watchers: self.watchers.len() as u64,
            behind: self.watchers.values().filter(|watcher| watcher.lanes_behind() > 0).count() as u64,
            events: self.watchers.values().map(|watcher| watcher.events_waiting() as u64).sum(),
        }
    }

    /// Too many answers wait: read no more requests of this client before some have been polled.
    pub fn is_full(&self) -> bool {
        self.answers.len() >= self.bounds.answers_max
    }

    /// The client's next request. For a create, `id` is new, `permitted` is the verdict on its range
    /// ([`range_of`]), and `shards_of` names the shards a range touches, at least one.
    pub fn request(
        &mut self,
        request: WatchRequest,
        id: SubscriptionId,
        permitted: Result<(), Refusal>,
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
                    Err(reason) => Answer::Reply(reply::refused(reason, view.settled)),
                };
                self.answers.push_back(answer);
            }
            WatchRequest::Cancel { watch_id } => {
                if self.spent.remove(&watch_id) {
                    self.answers.push_back(Answer::Reply(reply::canceled(watch_id, view.settled)));
                } else if let Some(id) = self.remove(watch_id, actions) {
                    self.answer_end(id, reply::canceled(watch_id, view.settled));
                }
            }
            WatchRequest::Progress => self.answers.push_back(Answer::Progress(view.settled)),
            WatchRequest::Empty => {}
        }
    }

    /// The checks in etcd's order, and the watcher's id.
    fn check(
        &mut self,
        create: &WatchCreate,
        permitted: Result<(), Refusal>,
    ) -> Result<(i64, KeyRange), &'static str> {
        if create.start_revision < 0 {
            return Err(reply::NEGATIVE_START);
        }
        permitted.map_err(Refusal::reason)?;
        let range = range_of(create);
        if range.is_empty() {
            return Err(reply::EMPTY_RANGE);
        }
        let used = |id: i64| self.watchers.contains_key(&id) || self.spent.contains(&id);
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
        self.answers.push_back(Answer::Created(id, reply::created(watch_id, view.settled)));
        let start = Revision(create.start_revision as u64);
        if start != Revision::NONE && start < view.compacted {
            self.spent.insert(watch_id);
            self.answers.push_back(Answer::Reply(reply::compacted(watch_id, view.compacted)));
            return;
        }
        let from = if start == Revision::NONE { view.settled.next() } else { start };
        let shards = shards_of(&range);
        assert!(!shards.is_empty(), "every range touches a shard");
        self.lanes += shards.len();
        let bounds = &self.bounds;
        let credit_bytes =
            (bounds.stream_credit_bytes / self.lanes).clamp(bounds.credit_bytes_min, bounds.credit_bytes_max);
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

    /// With up to a tenth of jitter, so that watchers made together do not report together.
    fn next_timer(&mut self, now: Time, id: SubscriptionId) -> Time {
        let jitter = self.rng.below(self.progress_interval.0 / 10 + 1);
        let at = now + self.progress_interval + Duration(jitter);
        self.timers.insert((at, id));
        at
    }

    /// The last answer of a watcher comes right after what it has been told, and so before any progress
    /// reply, which does not hold for it any more.
    fn answer_end(&mut self, id: SubscriptionId, reply: WatchReply) {
        let created = |answer: &Answer| matches!(answer, Answer::Created(of, _) if *of == id);
        let place = self.answers.iter().position(created).map_or(0, |at| at + 1);
        self.answers.insert(place, Answer::Reply(reply));
    }

    /// The subscription of the watcher, if there was such a one. What it held is dropped.
    fn remove(&mut self, watch_id: i64, actions: &mut Vec<Action>) -> Option<SubscriptionId> {
        let watcher = self.watchers.remove(&watch_id)?;
        let id = watcher.id;
        self.ids.remove(&id);
        self.held.remove(&watch_id);
        self.lanes -= watcher.lanes();
        self.lanes_behind -= watcher.lanes_behind();
        if let Some(at) = watcher.timer {
            self.timers.remove(&(at, id));
        }
        actions.extend(watcher.shards().map(|shard| Action::Unsubscribe { shard, id }));
        Some(id)
    }

    /// The stream ends: its subscriptions must.
    pub fn close(mut self, actions: &mut Vec<Action>) {
        while let Some(watch_id) = self.watchers.keys().next().copied() {
            self.remove(watch_id, actions);
        }
    }

    /// A hub's notice for one of this stream's subscriptions. One that is gone already is ignored.
    pub fn notice(&mut self, shard: ShardId, notice: Notice, actions: &mut Vec<Action>) {
        match notice {
            Notice::Batch(batch) => self.batch(shard, batch),
            Notice::Compacted { id, revision, .. } => {
                let Some(watch_id) = self.ids.get(&id).copied() else { return };
                let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
                let behind = watcher.lanes_behind();
                if let Some(subscription) = watcher.renew(shard, revision) {
                    self.lanes_behind = self.lanes_behind - behind + watcher.lanes_behind();
                    return actions.push(Action::Renew { shard, subscription });
                }
                self.remove(watch_id, actions);
                self.spent.insert(watch_id);
                for answer in &mut self.answers {
                    // Not announced, it may as well have come after the compaction.
                    if let Answer::Created(of, created) = answer
                        && *of == id
                    {
                        created.revision = created.revision.max(revision);
                    }
                }
                self.answer_end(id, reply::compacted(watch_id, revision));
            }
        }
    }

    fn batch(&mut self, shard: ShardId, batch: Batch) {
        let Some(watch_id) = self.ids.get(&batch.id).copied() else { return };
        let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
        self.lanes_behind -= watcher.lanes_behind();
        watcher.receive(shard, batch);
        self.lanes_behind += watcher.lanes_behind();
        self.held.remove(&watch_id);
        self.turn(watch_id);
    }

    fn turn(&mut self, watch_id: i64) {
        let watcher = self.watchers.get_mut(&watch_id).expect("it is there");
        if !std::mem::replace(&mut watcher.has_turn, true) {
            self.turns.push_back(watch_id);
        }
    }

    /// Whether a rise of the reactor's marks may release a reply: poll again then.
    pub fn waits_for_marks(&self) -> bool {
        !self.held.is_empty() || matches!(self.answers.front(), Some(Answer::Progress(_)))
    }

    /// Whether the last poll gave nothing only because a large revision takes more turns: poll again in the next.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// When to poll without any other cause.
    pub fn wake_at(&self) -> Time {
        self.timers.first().map_or(Time::NEVER, |(at, _)| *at)
    }

    /// The next reply, of about `budget_bytes` at most; poll while there is budget, until there is none.
    pub fn poll(&mut self, budget_bytes: usize, view: View, actions: &mut Vec<Action>) -> Option<WatchReply> {
        self.unfinished = false;
        if let Some(fragment) = self.fragments.pop_front() {
            return Some(fragment);
        }
        self.ring_timers(view.now);
        if std::mem::replace(&mut self.marks_seen, view.marks.stamp()) != view.marks.stamp() {
            std::mem::take(&mut self.held).into_iter().for_each(|watch_id| self.turn(watch_id));
        }
        loop {
            match self.answers.pop_front() {
                None => return self.serve(None, budget_bytes, view, actions),
                Some(Answer::Created(id, reply)) => {
                    let Some(watch_id) = self.ids.get(&id).copied() else { return Some(reply) };
                    let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
                    if watcher.is_joining() {
                        self.answers.push_front(Answer::Created(id, reply));
                        self.ask_progress_anew(view.settled);
                        return self.serve(None, budget_bytes, view, actions);
                    }
                    let revision = watcher.announce();
                    self.turn(watch_id);
                    return Some(WatchReply { revision, ..reply });
                }
                Some(Answer::Reply(reply)) => return Some(reply),
                Some(Answer::Progress(revision)) => {
                    if !self.may_report(revision) {
                        self.release_turns();
                        continue;
                    }
                    self.answers.push_front(Answer::Progress(revision));
                    if let Some(reply) = self.serve(Some(revision), budget_bytes, view, actions) {
                        return Some(reply);
                    }
                    if !self.watchers.values().all(|watcher| watcher.is_through(revision, view.marks)) {
                        return None;
                    }
                    self.answers.pop_front();
                    self.release_turns();
                    return Some(reply::progress(reply::NO_WATCHER, revision));
                }
            }
        }
    }

    /// etcd drops a progress request unless all watchers of the stream are in step and have begun. Those
    /// created after the request have their answer behind it, and are not concerned.
    fn may_report(&self, revision: Revision) -> bool {
        let mut concerned = self.watchers.values().filter(|watcher| watcher.announced).peekable();
        self.lanes_behind == 0
            && concerned.peek().is_some()
            && concerned.all(|watcher| watcher.start <= revision)
    }

    /// Requests behind an answer that is not ready count as if they came when it is: meanwhile events leave.
    fn ask_progress_anew(&mut self, settled: Revision) {
        for answer in &mut self.answers {
            if let Answer::Progress(revision) = answer {
                *revision = settled.max(*revision);
            }
        }
    }

    /// What was held back by a progress request may go on.
    fn release_turns(&mut self) {
        std::mem::take(&mut self.held).into_iter().for_each(|watch_id| self.turn(watch_id));
    }

    fn ring_timers(&mut self, now: Time) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let next = self.next_timer(now, id);
            let watch_id = self.ids[&id];
            let watcher = self.watchers.get_mut(&watch_id).expect("an id leads to a watcher");
            watcher.timer = Some(next);
            if watcher.ring() {
                self.held.remove(&watch_id);
                self.turn(watch_id);
            }
        }
    }

    /// The next reply of a watcher whose turn it is, with nothing above `cap`.
    fn serve(
        &mut self,
        cap: Option<Revision>,
        budget_bytes: usize,
        view: View,
        actions: &mut Vec<Action>,
    ) -> Option<WatchReply> {
        while let Some(watch_id) = self.turns.pop_front() {
            // The id may have been canceled, and may be another watcher's by now: an idle turn does no harm.
            let Some(watcher) = self.watchers.get_mut(&watch_id) else { continue };
            watcher.has_turn = false;
            if !watcher.announced {
                continue;
            }
            match watcher.next(cap, budget_bytes, &self.bounds, view, actions) {
                Next::Nothing => {}
                Next::Held => {
                    self.held.insert(watch_id);
                }
                Next::Unfinished => {
                    self.turn(watch_id);
                    self.unfinished = true;
                    return None;
                }
                Next::Progress(revision) => return Some(reply::progress(watch_id, revision)),
                Next::Events(revision, events) => {
                    let reply = reply::events(watch_id, revision, events);
                    let cut = watcher.fragment;
                    self.turn(watch_id);
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
