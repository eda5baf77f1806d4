//! One watcher of a stream: its feeds, and the merge of what they bring.
//!
//! An event leaves when no feed can bring an earlier one any more, which is so up to the lowest position over
//! the feeds. Revisions leave whole: one that began has all its events below that position. A feed in step
//! has the position that its shard's watermark gives, one behind what its last batch said.

use crate::api::WatchEvent;
use crate::limits::WatchBounds;
use crate::types::{At, Revision, ShardId, Time};
use crate::watch::{
    Action, Delivery, EventBatch, Subscription, SubscriptionId, View, Watermarks, cost_bytes,
};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeedState {
    /// The hub has not answered yet.
    Joining,
    InStep,
    Behind,
}

/// What one shard has sent to a watcher.
#[derive(Debug)]
struct ShardFeed {
    shard: ShardId,
    state: FeedState,
    /// The revision up to which everything has come; in step the shard's watermark counts as well.
    position: Revision,
    queue: VecDeque<Delivery>,
    /// Bytes taken by the client and not yet given back to the hub as credit.
    taken_bytes: usize,
}

impl ShardFeed {
    fn position(&self, watermarks: &Watermarks) -> Revision {
        match self.state {
            FeedState::InStep => self.position.max(watermarks.of(self.shard)),
            FeedState::Joining | FeedState::Behind => self.position,
        }
    }
}

/// What a watcher has to send.
pub enum NextReply {
    Nothing,
    /// It has something that waits for watermarks to rise, or for a progress reply of the stream.
    Blocked,
    /// A revision has more events than one turn merges; the next turn goes on with it.
    Unfinished,
    Progress(Revision),
    /// Events, with the header's revision.
    Events(Revision, Vec<WatchEvent>),
}

/// A reply being put together: whole revisions, but for the last while it is under way.
#[derive(Debug, Default)]
struct Merging {
    events: Vec<WatchEvent>,
    revisions: usize,
    last: Revision,
    bytes: usize,
}

#[derive(Debug)]
pub struct Watcher {
    pub id: SubscriptionId,
    /// Whether the created reply has left.
    pub announced: bool,
    pub is_queued: bool,
    pub fragment: bool,
    /// What the client asked to start with: no progress is reported below it. 0 where it asked for "now".
    pub start: Revision,
    /// The first revision of interest.
    from: Revision,
    /// When progress is to be reported next.
    pub timer: Option<Time>,
    /// The subscription of a watcher that begins with what comes next, until it is announced: etcd's are in
    /// step by then, and no compaction ends them. While it is not, one from "now" may begin behind a
    /// compaction.
    begins: Option<Box<Subscription>>,
    feeds: Vec<ShardFeed>,
    /// The first event of each feed that has any.
    heads: BTreeSet<(At, usize)>,
    merging: Merging,
    /// The highest revision in a header the client has seen: it never falls.
    shown: Revision,
    credit_bytes: usize,
    had_events: bool,
    progress_due: bool,
}

impl Watcher {
    pub fn new(
        subscription: Subscription,
        shards: Vec<ShardId>,
        start: Revision,
        shown: Revision,
        fragment: bool,
    ) -> Watcher {
        let feed = |shard| ShardFeed {
            shard,
            state: FeedState::Joining,
            position: Revision::NONE,
            queue: VecDeque::new(),
            taken_bytes: 0,
        };
        Watcher {
            id: subscription.id,
            announced: false,
            is_queued: false,
            fragment,
            start,
            timer: None,
            from: subscription.from,
            credit_bytes: subscription.credit_bytes,
            begins: (subscription.from > shown).then(|| Box::new(subscription)),
            feeds: shards.into_iter().map(feed).collect(),
            heads: BTreeSet::new(),
            merging: Merging::default(),
            shown,
            had_events: false,
            progress_due: false,
        }
    }

    /// Whether the created reply has to wait for a shard. One that is behind is soon in step where it has
    /// nothing for the client; else it may have no credit, and waits for the client itself.
    pub fn is_joining(&self) -> bool {
        let joins = |feed: &ShardFeed| match feed.state {
            FeedState::Joining => true,
            FeedState::Behind => feed.queue.is_empty(),
            FeedState::InStep => false,
        };
        self.begins.is_some() && self.feeds.iter().any(joins)
    }

    /// Notes that the created reply leaves, and returns the least revision that it shows.
    pub fn announce(&mut self) -> Revision {
        self.announced = true;
        self.begins = None;
        self.shown
    }

    /// Takes note that history up to a revision is gone at a shard. A watcher from "now" that the client has
    /// not been told of begins there; what other shards have sent of what is before is dropped.
    pub fn renew(&mut self, shard: ShardId, compacted: Revision) -> Option<Subscription> {
        let subscription = self.begins.as_deref_mut().filter(|_| self.start == Revision::NONE)?;
        self.from = self.from.max(compacted);
        subscription.from = self.from;
        self.shown = self.shown.max(Revision(compacted.0 - 1));
        let number = self.feeds.iter().position(|feed| feed.shard == shard).expect("it subscribed there");
        let feed = &mut self.feeds[number];
        // The shard loses only who has nothing from there on, and lends the whole credit anew.
        assert!(feed.queue.back().is_none_or(|(at, _)| at.main < compacted), "what is lost is gone");
        if let Some((at, _)) = feed.queue.front() {
            self.heads.remove(&(*at, number));
        }
        feed.queue.clear();
        (feed.taken_bytes, feed.state) = (0, FeedState::Joining);
        Some(subscription.clone())
    }

    pub fn feeds(&self) -> usize {
        self.feeds.len()
    }

    pub fn feeds_behind(&self) -> usize {
        self.feeds.iter().filter(|feed| feed.state == FeedState::Behind).count()
    }

    pub fn events_waiting(&self) -> usize {
        self.merging.events.len() + self.feeds.iter().map(|feed| feed.queue.len()).sum::<usize>()
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.feeds.iter().map(|feed| feed.shard)
    }

    pub fn receive(&mut self, shard: ShardId, batch: EventBatch) {
        let number = self.feeds.iter().position(|feed| feed.shard == shard).expect("it subscribed there");
        let feed = &mut self.feeds[number];
        assert!(batch.upto >= feed.position, "a feed's position never falls");
        if let (true, Some((at, _))) = (feed.queue.is_empty(), batch.events.first()) {
            self.heads.insert((*at, number));
        }
        feed.queue.extend(batch.events);
        feed.position = batch.upto;
        feed.state = if batch.in_step { FeedState::InStep } else { FeedState::Behind };
    }

    fn lowest(&self, watermarks: &Watermarks) -> Revision {
        self.feeds.iter().map(|feed| feed.position(watermarks)).min().expect("a watcher has a feed")
    }

    fn in_step(&self) -> bool {
        self.feeds.iter().all(|feed| feed.state == FeedState::InStep)
    }

    /// Whether everything up to a revision has come and been sent. A watcher that is not announced was
    /// created after the progress request.
    pub fn is_through(&self, revision: Revision, watermarks: &Watermarks) -> bool {
        !self.announced
            || (self.in_step()
                && self.merging.events.is_empty()
                && self.lowest(watermarks) >= revision
                && self.heads.first().is_none_or(|(at, _)| at.main > revision))
    }

    /// Takes note that the progress timer rings. Returns whether progress is to be reported as soon as the
    /// watcher can; an interval with events needs no report, and one behind makes none.
    pub fn ring(&mut self) -> bool {
        self.progress_due = !std::mem::take(&mut self.had_events) && self.in_step();
        self.progress_due
    }

    pub fn next(
        &mut self,
        cap: Option<Revision>,
        budget_bytes: usize,
        bounds: &WatchBounds,
        view: View,
        actions: &mut Vec<Action>,
    ) -> NextReply {
        let lowest = self.lowest(view.watermarks);
        let upto = cap.map_or(lowest, |cap| cap.min(lowest));
        let finished = self.merge(upto, budget_bytes, bounds, actions);
        if !finished {
            return NextReply::Unfinished;
        }
        let Merging { events, last, .. } = std::mem::take(&mut self.merging);
        if !events.is_empty() {
            // What was missed shows the current revision, as in etcd; what just happened, its own.
            let revision = if self.in_step() { self.shown.max(last) } else { view.settled };
            assert!(revision >= self.shown && revision >= last, "nothing above settled is shown");
            self.shown = revision;
            self.had_events = true;
            self.progress_due = false;
            return NextReply::Events(revision, events);
        }
        if self.progress_due && !self.in_step() {
            self.progress_due = false;
        }
        if !self.heads.is_empty() {
            return NextReply::Blocked;
        }
        if !self.progress_due {
            return NextReply::Nothing;
        }
        if cap.is_some() || lowest < self.shown.max(self.start) {
            return NextReply::Blocked;
        }
        self.progress_due = false;
        self.shown = lowest;
        NextReply::Progress(lowest)
    }

    /// Puts events up to a revision together, in the order of (main, sub), whole revisions, at least one if
    /// there is any. False where another turn has to go on.
    fn merge(
        &mut self,
        upto: Revision,
        budget_bytes: usize,
        bounds: &WatchBounds,
        actions: &mut Vec<Action>,
    ) -> bool {
        let bytes_max = budget_bytes.min(bounds.reply_bytes_max);
        let merging = &mut self.merging;
        let mut left = bounds.merge_events;
        let mut finished = true;
        while let Some((at, number)) = self.heads.first().copied().filter(|(at, _)| at.main <= upto) {
            let wanted = at.main >= self.from;
            if wanted && merging.last != at.main {
                let full = merging.revisions == bounds.reply_revisions_max;
                if full || (merging.revisions > 0 && (merging.bytes >= bytes_max || left == 0)) {
                    break;
                }
                merging.revisions += 1;
                merging.last = at.main;
            }
            if left == 0 {
                finished = false;
                break;
            }
            left -= 1;
            self.heads.pop_first();
            let feed = &mut self.feeds[number];
            let (_, event) = feed.queue.pop_front().expect("a feed with a head has an event");
            if let Some((next, _)) = feed.queue.front() {
                assert!(*next > at, "events of a shard come in order");
                self.heads.insert((*next, number));
            }
            let cost = cost_bytes(&event);
            feed.taken_bytes += cost;
            if wanted {
                merging.bytes += cost;
                merging.events.push(Arc::unwrap_or_clone(event));
            }
        }
        self.return_credit(actions);
        finished
    }

    /// Gives credit back in portions of half of it: seldom enough to cost little, often enough that it never
    /// runs out for a client that reads.
    fn return_credit(&mut self, actions: &mut Vec<Action>) {
        for feed in self.feeds.iter_mut().filter(|feed| feed.taken_bytes >= self.credit_bytes / 2) {
            let bytes = std::mem::take(&mut feed.taken_bytes);
            actions.push(Action::Credit { shard: feed.shard, id: self.id, bytes });
        }
    }
}
