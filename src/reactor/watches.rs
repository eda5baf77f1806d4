//! Watches: at the owners of shards what settles is published, at the clients' reactors it is merged.

use super::Reactor;
use crate::api::{Error, WatchRequest};
use crate::front::Rpc;
use crate::io::{Body, Counters};
use crate::mvcc::Budget;
use crate::stdx::{HashMap, Rng};
use crate::types::{ReactorId, Revision, ShardId, Time};
use crate::watch::{Action, Marks, Notice, Stream, SubscriptionId, View};
use crate::wire::encode;
use std::collections::{BTreeMap, BTreeSet};

/// The Watch RPCs of this reactor's clients.
pub(super) struct Watches {
    streams: BTreeMap<Rpc, Stream>,
    /// When streams are to be polled without any other cause; one entry a stream that has such a time.
    due: BTreeSet<(Time, Rpc)>,
    /// Where a stream stands in `due`.
    due_at: HashMap<Rpc, Time>,
    /// Streams that a rise of the marks may let go on.
    awaiting_marks: BTreeSet<Rpc>,
    by_subscription: HashMap<u64, Rpc>,
    subscriptions: u64,
    /// For each shard the streams' lanes on it.
    lanes: BTreeMap<ShardId, usize>,
    marks: Marks,
    /// Up to where the shards' owners were asked for marks.
    marks_asked: BTreeMap<ShardId, Revision>,
    /// Streams that may have something to send.
    ready: BTreeSet<Rpc>,
    /// Streams of which nothing more is read, and those among them that may be read on.
    paused: BTreeSet<Rpc>,
    resumed: BTreeSet<Rpc>,
    rng: Rng,
}

impl Watches {
    pub fn new(rng: Rng) -> Watches {
        Watches {
            streams: BTreeMap::new(),
            due: BTreeSet::new(),
            due_at: HashMap::default(),
            awaiting_marks: BTreeSet::new(),
            by_subscription: HashMap::default(),
            subscriptions: 0,
            lanes: BTreeMap::new(),
            marks: Marks::default(),
            marks_asked: BTreeMap::new(),
            ready: BTreeSet::new(),
            paused: BTreeSet::new(),
            resumed: BTreeSet::new(),
            rng,
        }
    }

    pub fn wake_at(&self) -> Time {
        self.due.first().map_or(Time::NEVER, |(at, _)| *at)
    }

    pub fn count(&self, counters: &mut Counters) {
        counters.watch_streams = self.streams.len() as u64;
        for stream in self.streams.values() {
            let census = stream.census();
            counters.watchers += census.watchers;
            counters.watchers_behind += census.behind;
            counters.events_pending += census.events;
        }
    }

    pub fn room(&mut self, rpc: Rpc) {
        if self.streams.contains_key(&rpc) {
            self.ready.insert(rpc);
        }
    }

    /// Whether some stream has news that no turn has looked at.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn is_full(&self, rpc: Rpc) -> bool {
        self.streams.get(&rpc).is_some_and(Stream::is_full)
    }

    fn waits_for_marks(&self) -> bool {
        !self.awaiting_marks.is_empty()
    }

    /// What a stream waits for is kept beside it, so that a turn looks at no stream in vain.
    fn note_wait(&mut self, rpc: Rpc, due: Time, marks: bool) {
        if let Some(before) = self.due_at.remove(&rpc) {
            self.due.remove(&(before, rpc));
        }
        if due != Time::NEVER {
            self.due_at.insert(rpc, due);
            self.due.insert((due, rpc));
        }
        if marks {
            self.awaiting_marks.insert(rpc);
        } else {
            self.awaiting_marks.remove(&rpc);
        }
    }
}

impl Reactor {
    // At the client's reactor.

    pub(super) fn watch(&mut self, rpc: Rpc, request: WatchRequest) {
        if self.front.method(rpc).is_none() {
            return; // the stream was ended by what came before this
        }
        if self.watches.is_full(rpc) {
            let mut actions = vec![];
            self.flush_stream(rpc, &mut actions);
            self.route_actions(actions);
        }
        let fragment = self.fragment_bytes();
        let watches = &mut self.watches;
        watches.subscriptions += 1;
        let id = SubscriptionId(u64::from(self.id.0) << 48 | watches.subscriptions);
        let interval = self.settings.watch_progress_interval;
        let (reader, bounds, rng) = (self.id, self.settings.bounds.watch, &mut watches.rng);
        let begin = || Stream::new(reader, interval, fragment, bounds, rng.fork());
        let stream = watches.streams.entry(rpc).or_insert_with(begin);
        let view = View {
            now: self.now,
            settled: self.sequencer.settled(),
            compacted: self.control.compacted(),
            marks: &watches.marks,
        };
        let router = self.router.as_ref();
        let mut actions = vec![];
        let creates = matches!(request, WatchRequest::Create(_));
        stream.request(
            request,
            id,
            Ok(()),
            |range| router.map(|router| router.shards_of(range).collect()).unwrap_or_default(),
            view,
            &mut actions,
        );
        if creates && !actions.is_empty() {
            watches.by_subscription.insert(id.0, rpc);
        }
        // What came with this in one piece is still taken.
        if stream.is_full() && watches.paused.insert(rpc) {
            self.front.pause(rpc);
        }
        watches.ready.insert(rpc);
        self.route_actions(actions);
    }

    /// Where replies are cut for clients that ask for it: a message is then as long as a request may be.
    fn fragment_bytes(&self) -> usize {
        self.settings.request_bytes_max.min(self.settings.bounds.watch.fragment_bytes_max)
    }

    fn route_actions(&mut self, actions: Vec<Action>) {
        for action in actions {
            let shard = match &action {
                Action::Subscribe { shard, .. } => {
                    *self.watches.lanes.entry(*shard).or_default() += 1;
                    *shard
                }
                Action::Unsubscribe { shard, id } => {
                    self.watches.by_subscription.remove(&id.0);
                    self.drop_lane(*shard);
                    *shard
                }
                Action::Renew { shard, .. } => *shard,
                Action::Credit { shard, .. } => {
                    self.counters.paths.watch_credit_returned += 1;
                    *shard
                }
            };
            let owner = self.router().reactor_of(shard);
            self.send(owner, Body::Watch { action });
        }
    }

    fn drop_lane(&mut self, shard: ShardId) {
        if let Some(lanes) = self.watches.lanes.get_mut(&shard) {
            *lanes -= 1;
            if *lanes == 0 {
                self.watches.lanes.remove(&shard);
            }
        }
    }

    /// The stream is gone, or is ended with an error.
    pub(super) fn end_watch(&mut self, rpc: Rpc, error: Option<Error>) {
        let Some(stream) = self.watches.streams.remove(&rpc) else { return };
        self.watches.ready.remove(&rpc);
        self.watches.paused.remove(&rpc);
        self.watches.resumed.remove(&rpc);
        self.watches.note_wait(rpc, Time::NEVER, false);
        let mut actions = vec![];
        stream.close(&mut actions);
        self.route_actions(actions);
        if let Some(error) = error {
            self.front.end(rpc, Err(error));
        }
    }

    pub(super) fn on_watch_news(&mut self, shard: ShardId, notice: Notice) {
        let id = match &notice {
            Notice::Batch(batch) => batch.id,
            Notice::Compacted { id, .. } => *id,
        };
        let Some(rpc) = self.watches.by_subscription.get(&id.0).copied() else { return };
        let Some(stream) = self.watches.streams.get_mut(&rpc) else { return };
        let mut actions = vec![];
        stream.notice(shard, notice, &mut actions);
        self.watches.ready.insert(rpc);
        self.route_actions(actions);
    }

    pub(super) fn on_marks(&mut self, marks: Vec<(ShardId, Revision)>) {
        let mut raised = false;
        for (shard, upto) in marks {
            raised |= upto > self.watches.marks.of(shard);
            self.watches.marks.raise(shard, upto);
        }
        if raised {
            self.wake_streams_for_marks();
        }
    }

    fn wake_streams_for_marks(&mut self) {
        let Watches { awaiting_marks, ready, .. } = &mut self.watches;
        ready.extend(awaiting_marks.iter());
    }

    /// Shards that nothing touched are passed without waking their owners (the sequencer's ring knows).
    fn raise_marks_of_idle_shards(&mut self) {
        if self.watches.lanes.is_empty() {
            return;
        }
        let settled = self.sequencer.settled();
        let shards: Vec<ShardId> = self.watches.lanes.keys().copied().collect();
        let shards_len = self.router().data_shards().count() + 1;
        let waiting = shards_len > 64 && self.watches.waits_for_marks();
        let mut raised = false;
        for shard in shards {
            let mark = self.watches.marks.of(shard);
            let upto = self.sequencer.untouched(shard, mark, settled);
            if upto > mark {
                self.watches.marks.raise(shard, upto);
                raised = true;
            }
            // The ring tells shards apart by their number modulo 64: beyond that an idle one may look busy,
            // and its owner has no reason of its own to send a mark.
            let ambiguous = shards_len > 64 && waiting && upto < settled;
            let lost = settled.0 - mark.0.min(settled.0) > self.sequencer.ring_len() / 2;
            let asked = self.watches.marks_asked.get(&shard).is_some_and(|asked| *asked >= settled);
            if (ambiguous || lost) && !asked {
                self.watches.marks_asked.insert(shard, settled);
                self.counters.paths.watch_mark_asked += 1;
                let owner = self.router().reactor_of(shard);
                self.send(owner, Body::MarkWanted { shard });
            }
        }
        if raised {
            self.wake_streams_for_marks();
        }
    }

    /// Sends what streams have, as far as their clients take it.
    pub(super) fn flush_watches(&mut self) {
        self.raise_marks_of_idle_shards();
        let now = self.now;
        let Watches { due, ready, .. } = &mut self.watches;
        ready.extend(due.iter().take_while(|(at, _)| *at <= now).map(|(_, rpc)| *rpc));
        let mut actions = vec![];
        for rpc in std::mem::take(&mut self.watches.ready) {
            self.flush_stream(rpc, &mut actions);
        }
        self.route_actions(actions);
        self.read_paused_watches();
    }

    /// Reads on where a client has taken its answers: as many requests as may wait for theirs.
    fn read_paused_watches(&mut self) {
        let resumed = std::mem::take(&mut self.watches.resumed);
        let mut asks = vec![];
        for rpc in resumed {
            self.front.read_on(rpc, self.settings.bounds.watch.answers_max, &mut asks);
            if !self.front.is_paused(rpc) {
                self.watches.paused.remove(&rpc);
            }
        }
        if !asks.is_empty() {
            self.serve_asks(asks);
        }
    }

    fn flush_stream(&mut self, rpc: Rpc, actions: &mut Vec<Action>) {
        let Reactor { watches, front, sequencer, control, epoch, now, counters, settings, .. } = self;
        let long_bytes = &settings.bounds.front.long_message_bytes;
        let Some(stream) = watches.streams.get_mut(&rpc) else { return };
        loop {
            let budget = front.budget(rpc);
            if !stream.is_full() && watches.paused.contains(&rpc) {
                watches.resumed.insert(rpc);
            }
            if budget == 0 {
                // Whatever it waits for, it goes on when its client takes more.
                return watches.note_wait(rpc, Time::NEVER, false);
            }
            let view = View {
                now: *now,
                settled: sequencer.settled(),
                compacted: control.compacted(),
                marks: &watches.marks,
            };
            match stream.poll(budget, view, actions) {
                Some(reply) => {
                    counters.events_sent += reply.events.len() as u64;
                    counters.paths.watch_cut += u64::from(reply.fragment);
                    counters.paths.watch_progress += u64::from(reply.is_progress());
                    if encode::is_long_watch(&reply, *long_bytes) {
                        front.watched_long(rpc, epoch.term, reply);
                    } else {
                        front.watched(rpc, epoch.term, &reply);
                    }
                }
                None => break,
            }
        }
        let (due, marks, unfinished) = (stream.wake_at(), stream.waits_for_marks(), stream.is_unfinished());
        watches.note_wait(rpc, due, marks);
        if unfinished {
            counters.paths.watch_revision_in_turns += 1;
            watches.ready.insert(rpc);
        }
    }

    /// The settled revision that lets a stream or a subscriber go on.
    pub(super) fn watched_revision(&self) -> Option<Revision> {
        let marks = self.watches.waits_for_marks().then(|| self.settled.next());
        let published = self.shards.values().filter(|owned| !owned.hub.is_empty());
        let events =
            published.filter_map(|owned| owned.shard.meaning().live().next().map(|write| write.revision));
        events.chain(marks).min()
    }

    // At the shard's owner.

    pub(super) fn on_watch_action(&mut self, action: Action) {
        let (Action::Subscribe { shard, .. }
        | Action::Renew { shard, .. }
        | Action::Unsubscribe { shard, .. }
        | Action::Credit { shard, .. }) = &action;
        let owned = self.shards.get_mut(shard).expect("the router knows whose shard it is");
        match action {
            Action::Subscribe { subscription, .. } | Action::Renew { subscription, .. } => {
                // Its reader may have missed marks while it had no subscription here: they are sent anew, as
                // an idle shard has no other reason to send any.
                owned.marked = Revision::NONE;
                owned.hub.subscribe(subscription);
            }
            Action::Unsubscribe { id, .. } => owned.hub.unsubscribe(id),
            Action::Credit { id, bytes, .. } => owned.hub.add_credit(id, bytes),
        }
    }

    pub(super) fn on_mark_wanted(&mut self, from: ReactorId, shard: ShardId) {
        self.on_settled(self.sequencer.settled());
        // Behind the events it covers.
        self.send_notices();
        let upto = self.shards[&shard].hub.settled();
        self.send(from, Body::Marks { marks: vec![(shard, upto)] });
    }

    /// Hands what has settled to the hubs. Those that had more than a slice before go on turn by turn.
    pub(super) fn publish(&mut self) {
        let (settled, slice) = (self.settled, self.publishing_slice());
        for owned in self.shards.values_mut().filter(|owned| owned.shard.id != ShardId::CONTROL) {
            if !owned.hub.is_publishing() {
                owned.publish(settled, slice);
            }
        }
    }

    /// One slice more a shard, and more of them where few have any left: a shard that is written as fast as it
    /// can be must not leave its watchers ever further behind. Between two epochs a store may not be where its
    /// reactor is.
    fn go_on_publishing(&mut self) {
        let slice = self.publishing_slice();
        let mut taken = 0;
        while taken < self.settings.bounds.slices_per_turn {
            let before = taken;
            for owned in self.shards.values_mut().filter(|owned| owned.hub.is_publishing()) {
                let settled = self.settled.min(owned.shard.store.settled());
                owned.publish(settled, slice);
                taken += 1;
            }
            if taken == before {
                return;
            }
        }
    }

    /// Values are shared, not copied: their size costs nothing here.
    fn publishing_slice(&self) -> Budget {
        Budget { bytes: usize::MAX, ..self.settings.slice.of_changes() }
    }

    /// Sends what the hubs have, and behind it how far it goes.
    pub(super) fn send_notices(&mut self) {
        let mut marks: BTreeMap<ReactorId, Vec<(ShardId, Revision)>> = BTreeMap::new();
        let mut notices = vec![];
        for (id, owned) in self.shards.iter_mut().filter(|(id, _)| **id != ShardId::CONTROL) {
            notices.extend(owned.hub.take().into_iter().map(|notice| (*id, notice)));
            let upto = owned.hub.settled();
            if upto > owned.marked {
                owned.marked = upto;
                for reader in owned.hub.readers() {
                    marks.entry(reader).or_default().push((*id, upto));
                }
            }
        }
        for (shard, notice) in notices {
            let (Notice::Batch(crate::watch::Batch { reader, .. }) | Notice::Compacted { reader, .. }) =
                &notice;
            self.send(*reader, Body::Watched { shard, notice });
        }
        for (reader, marks) in marks {
            self.send(reader, Body::Marks { marks });
        }
    }

    pub(super) fn hubs_go_on(&self) -> bool {
        self.shards.values().any(|owned| owned.hub.is_publishing() || owned.hub.lags())
    }

    /// One slice of what has settled, and one of history for those behind, a shard.
    pub(super) fn work_at_hubs(&mut self) {
        self.go_on_publishing();
        let (slice, watchers_max) =
            (self.settings.slice.of_changes(), self.settings.bounds.watch.catch_up_watchers);
        for owned in self.shards.values_mut() {
            owned.hub.catch_up(&owned.shard.store, slice, watchers_max);
        }
    }

    pub(super) fn watches_compacted(&mut self) {
        let compacted = self.control.compacted();
        for owned in self.shards.values_mut() {
            owned.hub.compact(compacted);
        }
    }
}
