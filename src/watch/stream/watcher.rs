//! One watcher of a stream: its lanes, and the merge of what they bring.
//!
//! An event leaves when no lane can bring an earlier one any more, which is so up to the lowest position over
//! the lanes. Revisions leave whole: one that began has all its events below that position. A lane in step
//! has the position that its shard's mark gives, one behind what its last batch said.

use crate::api::WatchEvent;
use crate::limits::WatchBounds;
use crate::types::{At, Revision, ShardId, Time};
use crate::watch::{Action, Batch, Delivery, Marks, Subscription, SubscriptionId, View, cost_bytes};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// The hub has not answered yet.
    Joining,
    InStep,
    Behind,
}

/// What one shard has sent.
#[derive(Debug)]
struct Lane {
    shard: ShardId,
    pace: Pace,
    /// Everything up to here has come; in step the shard's mark counts as well.
    position: Revision,
    queue: VecDeque<Delivery>,
    /// Taken by the client, and not yet given back to the hub as credit.
    taken_bytes: usize,
}

impl Lane {
    fn position(&self, marks: &Marks) -> Revision {
        match self.pace {
            Pace::InStep => self.position.max(marks.of(self.shard)),
            Pace::Joining | Pace::Behind => self.position,
        }
    }
}

/// What a watcher has to send.
pub enum Next {
    Nothing,
    /// Something that waits for marks to rise, or for a progress reply of the stream.
    Held,
    /// A revision of so many events that another turn has to go on with it.
    Unfinished,
    Progress(Revision),
    /// With the header's revision.
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
    /// The created reply has left.
    pub announced: bool,
    pub has_turn: bool,
    pub fragment: bool,
    /// What the client asked to start with: no progress is reported below it. 0 where it asked for "now".
    pub start: Revision,
    /// The first revision of interest.
    from: Revision,
    /// When progress is to be reported next.
    pub timer: Option<Time>,
    /// Of one that begins with what comes next, until it is announced: etcd's are in step by then, and no
    /// compaction ends them. While it is not, one from "now" may begin behind a compaction.
    begins: Option<Box<Subscription>>,
    lanes: Vec<Lane>,
    /// The first event of each lane that has any.
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
        let lane = |shard| Lane {
            shard,
            pace: Pace::Joining,
            position: Revision::NONE,
            queue: VecDeque::new(),
            taken_bytes: 0,
        };
        Watcher {
            id: subscription.id,
            announced: false,
            has_turn: false,
            fragment,
            start,
            timer: None,
            from: subscription.from,
            credit_bytes: subscription.credit_bytes,
            begins: (subscription.from > shown).then(|| Box::new(subscription)),
            lanes: shards.into_iter().map(lane).collect(),
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
        let joins = |lane: &Lane| match lane.pace {
            Pace::Joining => true,
            Pace::Behind => lane.queue.is_empty(),
            Pace::InStep => false,
        };
        self.begins.is_some() && self.lanes.iter().any(joins)
    }

    /// The created reply leaves. Gives the revision that it shows at least.
    pub fn announce(&mut self) -> Revision {
        self.announced = true;
        self.begins = None;
        self.shown
    }

    /// History up to a revision is gone at a shard. One from "now" that the client has not been told of begins
    /// there; what others have brought of what is before is dropped.
    pub fn renew(&mut self, shard: ShardId, compacted: Revision) -> Option<Subscription> {
        let subscription = self.begins.as_deref_mut().filter(|_| self.start == Revision::NONE)?;
        self.from = self.from.max(compacted);
        subscription.from = self.from;
        self.shown = self.shown.max(Revision(compacted.0 - 1));
        let number = self.lanes.iter().position(|lane| lane.shard == shard).expect("it subscribed there");
        let lane = &mut self.lanes[number];
        // The shard loses only who has nothing from there on, and lends the whole credit anew.
        assert!(lane.queue.back().is_none_or(|(at, _)| at.main < compacted), "what is lost is gone");
        if let Some((at, _)) = lane.queue.front() {
            self.heads.remove(&(*at, number));
        }
        lane.queue.clear();
        (lane.taken_bytes, lane.pace) = (0, Pace::Joining);
        Some(subscription.clone())
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    pub fn lanes_behind(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.pace == Pace::Behind).count()
    }

    pub fn events_waiting(&self) -> usize {
        self.merging.events.len() + self.lanes.iter().map(|lane| lane.queue.len()).sum::<usize>()
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.lanes.iter().map(|lane| lane.shard)
    }

    pub fn receive(&mut self, shard: ShardId, batch: Batch) {
        let number = self.lanes.iter().position(|lane| lane.shard == shard).expect("it subscribed there");
        let lane = &mut self.lanes[number];
        assert!(batch.upto >= lane.position, "a lane's position never falls");
        if let (true, Some((at, _))) = (lane.queue.is_empty(), batch.events.first()) {
            self.heads.insert((*at, number));
        }
        lane.queue.extend(batch.events);
        lane.position = batch.upto;
        lane.pace = if batch.in_step { Pace::InStep } else { Pace::Behind };
    }

    fn lowest(&self, marks: &Marks) -> Revision {
        self.lanes.iter().map(|lane| lane.position(marks)).min().expect("a watcher has a lane")
    }

    fn in_step(&self) -> bool {
        self.lanes.iter().all(|lane| lane.pace == Pace::InStep)
    }

    /// Whether everything up to a revision has come and been sent. A watcher that is not announced was
    /// created after whoever asks.
    pub fn is_through(&self, revision: Revision, marks: &Marks) -> bool {
        !self.announced
            || (self.in_step()
                && self.merging.events.is_empty()
                && self.lowest(marks) >= revision
                && self.heads.first().is_none_or(|(at, _)| at.main > revision))
    }

    /// The progress timer rings. True: report it as soon as the watcher can; an interval with events needs
    /// no report, and one behind makes none.
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
    ) -> Next {
        let lowest = self.lowest(view.marks);
        let upto = cap.map_or(lowest, |cap| cap.min(lowest));
        let finished = self.merge(upto, budget_bytes, bounds, actions);
        if !finished {
            return Next::Unfinished;
        }
        let Merging { events, last, .. } = std::mem::take(&mut self.merging);
        if !events.is_empty() {
            // What was missed shows the current revision, as in etcd; what just happened, its own.
            let revision = if self.in_step() { self.shown.max(last) } else { view.settled };
            assert!(revision >= self.shown && revision >= last, "nothing above settled is shown");
            self.shown = revision;
            self.had_events = true;
            self.progress_due = false;
            return Next::Events(revision, events);
        }
        if self.progress_due && !self.in_step() {
            self.progress_due = false;
        }
        if !self.heads.is_empty() {
            return Next::Held;
        }
        if !self.progress_due {
            return Next::Nothing;
        }
        if cap.is_some() || lowest < self.shown.max(self.start) {
            return Next::Held;
        }
        self.progress_due = false;
        self.shown = lowest;
        Next::Progress(lowest)
    }

    /// Puts events up to a revision together, in the order of (main, sub), whole revisions, at least one if there
    /// is any. False where another turn has to go on.
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
            let lane = &mut self.lanes[number];
            let (_, event) = lane.queue.pop_front().expect("a lane with a head has an event");
            if let Some((next, _)) = lane.queue.front() {
                assert!(*next > at, "events of a shard come in order");
                self.heads.insert((*next, number));
            }
            let cost = cost_bytes(&event);
            lane.taken_bytes += cost;
            if wanted {
                merging.bytes += cost;
                merging.events.push(Arc::unwrap_or_clone(event));
            }
        }
        self.return_credit(actions);
        finished
    }

    /// In portions of half the credit: seldom enough to cost little, often enough that it never runs out
    /// for a client that reads.
    fn return_credit(&mut self, actions: &mut Vec<Action>) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.taken_bytes >= self.credit_bytes / 2) {
            let bytes = std::mem::take(&mut lane.taken_bytes);
            actions.push(Action::Credit { shard: lane.shard, id: self.id, bytes });
        }
    }
}
