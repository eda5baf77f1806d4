//! Watches: what the owners of shards publish is merged here, for this reactor's clients.
//!
//! **The question.** A watcher's events come from several shards on several threads. How does its client see
//! them in the order of revisions, each revision whole, and know up to where it has seen everything?
//!
//! **The rule.** A stream passes on what stands up to the lowest watermark of its shards; watermarks come
//! behind the events that they cover. Shards that nothing has touched are passed by the sequencer's ring, and
//! where the ring no longer knows, the owner is asked. A stream is looked at in a turn only if something came
//! for it: news, watermarks that it waits for, place at its client, or its time. Streams outlive epochs: they
//! have seen nothing that could be undone.
//!
//! **Why not otherwise.** Without watermarks an idle shard would hold all others up for ever. A watermark for
//! each watcher would make every put cost as much as there are watchers.

use super::{Calls, Turn};
use crate::api::{Error, WatchRequest};
use crate::front::Rpc;
use crate::io::{ReactorCounters, ShardMail};
use crate::stdx::{HashMap, Rng};
use crate::types::{Revision, ShardId, Time};
use crate::watch::{Action, HubMessage, SubscriptionId, View, WatchStream, Watermarks};
use crate::wire::encode;
use std::collections::{BTreeMap, BTreeSet};

/// The Watch RPCs of this reactor's clients.
pub(super) struct Watches {
    streams: BTreeMap<Rpc, WatchStream>,
    /// When streams are to be polled without any other cause: one entry per stream that has such a time.
    due: BTreeSet<(Time, Rpc)>,
    /// Where a stream stands in `due`.
    due_at: HashMap<Rpc, Time>,
    /// Streams that a rise of the watermarks may let go on.
    awaiting_marks: BTreeSet<Rpc>,
    by_subscription: HashMap<u64, Rpc>,
    subscriptions: u64,
    /// How many lanes the streams have on each shard.
    feeds: BTreeMap<ShardId, usize>,
    watermarks: Watermarks,
    /// Up to where the shards' owners were asked for watermarks.
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
            feeds: BTreeMap::new(),
            watermarks: Watermarks::default(),
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

    pub fn count(&self, counters: &mut ReactorCounters) {
        counters.watch_streams = self.streams.len() as u64;
        for stream in self.streams.values() {
            let stats = stream.stats();
            counters.watchers += stats.watchers;
            counters.watchers_behind += stats.behind;
            counters.events_pending += stats.events;
        }
    }

    pub fn on_writable(&mut self, rpc: Rpc) {
        if self.streams.contains_key(&rpc) {
            self.ready.insert(rpc);
        }
    }

    pub fn has(&self, rpc: Rpc) -> bool {
        self.streams.contains_key(&rpc)
    }

    /// Whether some stream has news that no turn has looked at.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn is_full(&self, rpc: Rpc) -> bool {
        self.streams.get(&rpc).is_some_and(WatchStream::is_full)
    }

    fn waits_for_watermarks(&self) -> bool {
        !self.awaiting_marks.is_empty()
    }

    /// What a stream waits for is kept beside it, so that a turn looks at no stream in vain.
    fn note_wait(&mut self, rpc: Rpc, due: Time, watermarks: bool) {
        if let Some(before) = self.due_at.remove(&rpc) {
            self.due.remove(&(before, rpc));
        }
        if due != Time::NEVER {
            self.due_at.insert(rpc, due);
            self.due.insert((due, rpc));
        }
        assert!(self.due.len() == self.due_at.len(), "a stream is due once");
        if watermarks {
            self.awaiting_marks.insert(rpc);
        } else {
            self.awaiting_marks.remove(&rpc);
        }
    }
}

impl Calls {
    pub fn watch(&mut self, turn: &mut Turn, rpc: Rpc, request: WatchRequest) {
        assert!(turn.router.is_some(), "a watch begins when the shards are known");
        if self.front.method(rpc).is_none() {
            return; // the stream was ended by what came before this
        }
        if self.watches.is_full(rpc) {
            let mut actions = vec![];
            self.flush_stream(turn, rpc, &mut actions);
            self.route_actions(turn, actions);
        }
        let fragment = fragment_bytes(turn);
        let watches = &mut self.watches;
        watches.subscriptions += 1;
        assert!(
            watches.subscriptions < 1 << 48,
            "the reactor's number stands above that of the subscription"
        );
        let id = SubscriptionId(u64::from(turn.id.0) << 48 | watches.subscriptions);
        let interval = turn.settings.watch_progress_interval;
        let (reader, bounds, rng) = (turn.id, turn.settings.bounds.watch, &mut watches.rng);
        let begin = || WatchStream::new(reader, interval, fragment, bounds, rng.fork());
        let stream = watches.streams.entry(rpc).or_insert_with(begin);
        let view = View {
            now: turn.now,
            settled: turn.shown(),
            compacted: *turn.compacted,
            watermarks: &watches.watermarks,
        };
        let router = turn.router();
        let mut actions = vec![];
        let creates = matches!(request, WatchRequest::Create(_));
        stream.request(request, id, Ok(()), |range| router.shards_of(range).collect(), view, &mut actions);
        if creates && !actions.is_empty() {
            let before = watches.by_subscription.insert(id.0, rpc);
            assert!(before.is_none(), "each subscription has a number of its own");
        }
        // What came with this in one piece is still taken.
        if stream.is_full() && watches.paused.insert(rpc) {
            self.front.pause(rpc);
        }
        watches.ready.insert(rpc);
        self.route_actions(turn, actions);
    }

    fn route_actions(&mut self, turn: &mut Turn, actions: Vec<Action>) {
        for action in actions {
            let shard = match &action {
                Action::Subscribe { shard, .. } => {
                    *self.watches.feeds.entry(*shard).or_default() += 1;
                    *shard
                }
                Action::Unsubscribe { shard, id } => {
                    self.watches.by_subscription.remove(&id.0);
                    self.drop_lane(*shard);
                    *shard
                }
                Action::Renew { shard, .. } => *shard,
                Action::Credit { shard, .. } => {
                    turn.counters.paths.watch_credit_returned += 1;
                    *shard
                }
            };
            turn.send_to_owner(shard, ShardMail::Watch { action });
        }
    }

    fn drop_lane(&mut self, shard: ShardId) {
        let Some(feeds) = self.watches.feeds.get_mut(&shard) else {
            panic!("a lane on shard {shard} ends that never began")
        };
        *feeds -= 1;
        if *feeds == 0 {
            self.watches.feeds.remove(&shard);
        }
    }

    /// The stream is gone, or is ended with an error.
    pub(super) fn end_watch(&mut self, turn: &mut Turn, rpc: Rpc, error: Option<Error>) {
        let Some(stream) = self.watches.streams.remove(&rpc) else { return };
        self.watches.ready.remove(&rpc);
        self.watches.paused.remove(&rpc);
        self.watches.resumed.remove(&rpc);
        self.watches.note_wait(rpc, Time::NEVER, false);
        let mut actions = vec![];
        stream.close(&mut actions);
        self.route_actions(turn, actions);
        if let Some(error) = error {
            self.front.end(rpc, Err(error));
        }
    }

    pub fn on_watch_news(&mut self, turn: &mut Turn, shard: ShardId, message: HubMessage) {
        let id = match &message {
            HubMessage::Batch(batch) => batch.id,
            HubMessage::Compacted { id, .. } => *id,
        };
        let Some(rpc) = self.watches.by_subscription.get(&id.0).copied() else { return };
        let Some(stream) = self.watches.streams.get_mut(&rpc) else { return };
        let mut actions = vec![];
        stream.hub_message(shard, message, &mut actions);
        self.watches.ready.insert(rpc);
        self.route_actions(turn, actions);
    }

    pub fn on_watermarks(&mut self, watermarks: Vec<(ShardId, Revision)>) {
        let mut raised = false;
        for (shard, upto) in watermarks {
            raised |= upto > self.watches.watermarks.of(shard);
            self.watches.watermarks.raise(shard, upto);
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
    fn raise_watermarks_of_idle_shards(&mut self, turn: &mut Turn) {
        if self.watches.feeds.is_empty() {
            return;
        }
        let settled = turn.shown();
        let shards: Vec<ShardId> = self.watches.feeds.keys().copied().collect();
        let shards_len = turn.router().data_shards().count() + 1;
        let waiting = shards_len > 64 && self.watches.waits_for_watermarks();
        let mut raised = false;
        for shard in shards {
            let watermark = self.watches.watermarks.of(shard);
            let upto = turn.sequencer.untouched(shard, watermark, settled);
            if upto > watermark {
                self.watches.watermarks.raise(shard, upto);
                raised = true;
            }
            // The ring tells shards apart by their number modulo 64: beyond that an idle one may look busy,
            // and its owner has no reason of its own to send a watermark.
            let ambiguous = shards_len > 64 && waiting && upto < settled;
            let lost = settled.0 - watermark.0.min(settled.0) > turn.sequencer.ring_len() / 2;
            let asked = self.watches.marks_asked.get(&shard).is_some_and(|asked| *asked >= settled);
            if (ambiguous || lost) && !asked {
                self.watches.marks_asked.insert(shard, settled);
                turn.counters.paths.watch_mark_asked += 1;
                turn.send_to_owner(shard, ShardMail::WatermarkWanted { shard });
            }
        }
        if raised {
            self.wake_streams_for_marks();
        }
    }

    /// Sends what streams have, as far as their clients take it.
    pub fn flush_watches(&mut self, turn: &mut Turn) {
        self.raise_watermarks_of_idle_shards(turn);
        let now = turn.now;
        let Watches { due, ready, .. } = &mut self.watches;
        ready.extend(due.iter().take_while(|(at, _)| *at <= now).map(|(_, rpc)| *rpc));
        let mut actions = vec![];
        for rpc in std::mem::take(&mut self.watches.ready) {
            self.flush_stream(turn, rpc, &mut actions);
        }
        self.route_actions(turn, actions);
        self.read_paused_watches(turn);
    }

    /// Reads on where a client has taken its answers: as many requests as may wait for theirs.
    fn read_paused_watches(&mut self, turn: &mut Turn) {
        let resumed = std::mem::take(&mut self.watches.resumed);
        for rpc in resumed {
            self.front.read_on(rpc, turn.settings.bounds.watch.answers_max, &mut self.asks);
            if !self.front.is_paused(rpc) {
                self.watches.paused.remove(&rpc);
            }
        }
    }

    fn flush_stream(&mut self, turn: &mut Turn, rpc: Rpc, actions: &mut Vec<Action>) {
        let Calls { watches, front, .. } = self;
        let (settled, term) = (turn.shown(), turn.term());
        let Turn { compacted, now, counters, settings, .. } = turn;
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
            let view = View { now: *now, settled, compacted: **compacted, watermarks: &watches.watermarks };
            match stream.poll(budget, view, actions) {
                Some(reply) => {
                    assert!(reply.revision <= view.settled, "a watch shows nothing above what is settled");
                    counters.events_sent += reply.events.len() as u64;
                    counters.paths.watch_cut += u64::from(reply.fragment);
                    counters.paths.watch_progress += u64::from(reply.is_progress());
                    if encode::is_long_watch(&reply, *long_bytes) {
                        front.watched_long(rpc, term, reply);
                    } else {
                        front.watched(rpc, term, &reply);
                    }
                }
                None => break,
            }
        }
        let (due, watermarks, unfinished) =
            (stream.wake_at(), stream.waits_for_watermarks(), stream.is_unfinished());
        watches.note_wait(rpc, due, watermarks);
        if unfinished {
            counters.paths.watch_revision_in_turns += 1;
            watches.ready.insert(rpc);
        }
    }

    /// The settled revision that lets a stream go on.
    pub fn watched_revision(&self, turn: &Turn) -> Option<Revision> {
        self.watches.waits_for_watermarks().then(|| turn.settled.next())
    }
}

/// Where replies are cut for clients that ask for it: a message is then as long as a request may be.
fn fragment_bytes(turn: &Turn) -> usize {
    turn.settings.request_bytes_max.min(turn.settings.bounds.watch.fragment_bytes_max)
}
