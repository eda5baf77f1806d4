//! Hubs and streams together, under random load, checked from outside against the full history.

use super::*;
use crate::api::{WatchReply, WatchRequest};
use crate::limits::WatchBounds;
use crate::mvcc::{Budget, Store};
use crate::stdx::Rng;
use crate::types::{Blob, Duration, LeaseId, Sub, Time};
use std::collections::{BTreeSet, VecDeque};

mod slices;

const READER: ReactorId = ReactorId(0);
const INTERVAL: Duration = Duration::from_ms(100);
const FRAGMENT_BYTES: usize = 4000;

/// What happened, with the value before: the truth that streams are held against.
struct Happened {
    at: At,
    event: Event,
    prev: Option<KeyValue>,
}

enum Message {
    Hub(HubMessage),
    Mark(Revision),
}

struct Shard {
    store: Store,
    hub: Hub,
    to_reader: VecDeque<Message>,
    to_hub: VecDeque<Action>,
}

/// What the client has asked for and seen.
#[derive(Debug)]
struct Watched {
    create: WatchCreate,
    /// Known once the created reply has come.
    from: Option<Revision>,
    last: At,
    shown: Revision,
    events: usize,
}

struct Client {
    stream: WatchStream,
    asked: VecDeque<WatchCreate>,
    watched: BTreeMap<i64, Watched>,
    canceling: Vec<i64>,
    progress: usize,
}

struct World {
    rng: Rng,
    shards: Vec<Shard>,
    clients: Vec<Client>,
    history: Vec<Happened>,
    written: Revision,
    settled: Revision,
    compacted: Revision,
    watermarks: Watermarks,
    now: Time,
    ids: u64,
    slice: Budget,
    seen: Seen,
}

/// What a run has exercised: a run in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Seen {
    events: usize,
    fragments: usize,
    compacted: usize,
    manual: usize,
    periodic: usize,
    behind: usize,
    torn: usize,
}

fn home(key: &[u8], shards: usize) -> usize {
    (key.first().copied().unwrap_or(0).saturating_sub(b'a') as usize).min(shards - 1)
}

/// A large revision takes several turns.
pub(super) fn bounds() -> WatchBounds {
    WatchBounds { merge_events: 3, catch_up_watchers: 2, ..WatchBounds::PRODUCTION }
}

fn shards_of(range: &KeyRange, shards: usize) -> Vec<ShardId> {
    let cut = |shard: usize| match shard {
        0 => Bytes::new(),
        _ => Bytes::from(vec![b'a' + shard as u8]),
    };
    let part = |shard: usize| match shard + 1 == shards {
        true => KeyRange::From(cut(shard)),
        false => KeyRange::Between(cut(shard), cut(shard + 1)),
    };
    (0..shards).filter(|shard| range.overlaps(&part(*shard))).map(|shard| ShardId(shard as u32 + 1)).collect()
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let count = 1 + rng.below(3) as usize;
        let shard = || Shard {
            store: Store::new(),
            hub: Hub::new(Revision::FRESH, Revision::NONE),
            to_reader: VecDeque::new(),
            to_hub: VecDeque::new(),
        };
        let client = |rng: &mut Rng| Client {
            stream: WatchStream::new(READER, INTERVAL, FRAGMENT_BYTES, bounds(), rng.fork()),
            asked: VecDeque::new(),
            watched: BTreeMap::new(),
            canceling: Vec::new(),
            progress: 0,
        };
        World {
            shards: (0..count).map(|_| shard()).collect(),
            clients: (0..2).map(|_| client(&mut rng)).collect(),
            rng,
            history: Vec::new(),
            written: Revision::FRESH,
            settled: Revision::FRESH,
            compacted: Revision::NONE,
            watermarks: Watermarks::default(),
            now: Time(0),
            ids: 0,
            slice: Budget { keys: [1, 3, 1000][seed as usize % 3], bytes: 1 << 20 },
            seen: Seen::default(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        vec![b'a' + self.rng.below(self.shards.len() as u64) as u8, b'0' + self.rng.below(8) as u8]
    }

    /// One transaction of distinct keys, in random order over the shards.
    fn write(&mut self, keys: Vec<Vec<u8>>, bytes_max: u64) {
        let (main, mut sub) = (self.written.next(), 0);
        for key in keys {
            let (shard, at) = (home(&key, self.shards.len()), At { main, sub: Sub(sub) });
            let store = &mut self.shards[shard].store;
            let delete = self.rng.chance(1, 3);
            if delete && store.newest(&key).is_none() {
                continue;
            }
            let (prev, event) = match delete {
                true => {
                    let event = Event::Delete { key: Blob::new(&key), mod_revision: main };
                    (store.delete(at, &key), event)
                }
                false => {
                    let value = Blob::new(&vec![b'v'; self.rng.below(bytes_max) as usize]);
                    let prev = store.put(at, &key, value, LeaseId::NONE);
                    (prev, Event::Put(store.newest(&key).expect("just put")))
                }
            };
            self.history.push(Happened { at, event, prev });
            sub += 1;
        }
        self.written = if sub > 0 { main } else { self.written };
    }

    /// A turn of a shard's owner, in the order the hub asks for.
    fn turn(&mut self, number: usize) {
        let shard = &mut self.shards[number];
        for _ in 0..self.rng.below(4) {
            match shard.to_hub.pop_front() {
                Some(Action::Subscribe { subscription, .. } | Action::Renew { subscription, .. }) => {
                    shard.hub.subscribe(subscription);
                }
                Some(Action::Unsubscribe { id, .. }) => shard.hub.unsubscribe(id),
                Some(Action::Credit { id, bytes, .. }) => shard.hub.add_credit(id, bytes),
                None => {}
            }
        }
        shard.store.settle(self.settled);
        shard.hub.publish(&mut shard.store, self.settled, self.slice);
        shard.store.compact(self.compacted);
        shard.hub.compact(self.compacted);
        shard.store.compact_slice(self.rng.below(10) as usize);
        for _ in 0..self.rng.below(3) {
            shard.hub.catch_up(&shard.store, self.slice, bounds().catch_up_watchers);
        }
        let messages = shard.hub.take();
        let behind = |message: &HubMessage| matches!(message, HubMessage::Batch(batch) if !batch.in_step);
        self.seen.behind += messages.iter().filter(|message| behind(message)).count();
        shard.to_reader.extend(messages.into_iter().map(Message::Hub));
        shard.to_reader.push_back(Message::Mark(shard.hub.settled()));
    }

    fn deliver(&mut self, number: usize) {
        let mut actions = Vec::new();
        let shard = ShardId(number as u32 + 1);
        match self.shards[number].to_reader.pop_front() {
            Some(Message::Mark(upto)) => self.watermarks.raise(shard, upto),
            Some(Message::Hub(message)) => {
                for client in &mut self.clients {
                    client.stream.hub_message(shard, message.clone(), &mut actions);
                }
            }
            None => {}
        }
        self.post(actions);
    }

    fn post(&mut self, actions: Vec<Action>) {
        for action in actions {
            let (Action::Subscribe { shard, .. }
            | Action::Renew { shard, .. }
            | Action::Unsubscribe { shard, .. }
            | Action::Credit { shard, .. }) = &action;
            self.shards[shard.0 as usize - 1].to_hub.push_back(action);
        }
    }

    fn random_create(&mut self) -> WatchCreate {
        let (a, b) = (Bytes::from(self.key()), Bytes::from(self.key()));
        let (key, range_end) = match self.rng.below(4) {
            0 => (a, Bytes::new()),
            1 => (a, Bytes::from_static(b"\0")),
            2 => (Bytes::new(), Bytes::from_static(b"\0")),
            _ if a < b => (a, b),
            _ => (b, a),
        };
        let start_revision = match self.rng.below(3) {
            0 => 0,
            1 => 1 + self.rng.below(self.settled.0) as i64,
            _ => self.settled.0 as i64 + self.rng.below(6) as i64,
        };
        WatchCreate {
            key,
            range_end,
            start_revision,
            progress_notify: self.rng.chance(1, 2),
            no_put: self.rng.chance(1, 8),
            no_delete: self.rng.chance(1, 8),
            prev_kv: self.rng.chance(1, 2),
            watch_id: if self.rng.chance(1, 4) { 1 + self.rng.below(9) as i64 } else { 0 },
            fragment: self.rng.chance(1, 3),
        }
    }

    fn request(&mut self, number: usize, request: WatchRequest) {
        self.ids += 1;
        let client = &mut self.clients[number];
        match &request {
            WatchRequest::Create(create) => client.asked.push_back(create.clone()),
            WatchRequest::Cancel { watch_id } => client.canceling.push(*watch_id),
            _ => {}
        }
        let (count, mut actions) = (self.shards.len(), Vec::new());
        let view = View {
            now: self.now,
            settled: self.settled,
            compacted: self.compacted,
            watermarks: &self.watermarks,
        };
        let id = SubscriptionId(self.ids);
        client.stream.request(request, id, Ok(()), |range| shards_of(range, count), view, &mut actions);
        self.post(actions);
    }

    fn poll(&mut self, number: usize, budget_bytes: usize) -> bool {
        let mut actions = Vec::new();
        let view = View {
            now: self.now,
            settled: self.settled,
            compacted: self.compacted,
            watermarks: &self.watermarks,
        };
        let client = &mut self.clients[number];
        let reply = client.stream.poll(budget_bytes, view, &mut actions);
        let polled = reply.is_some() || client.stream.is_unfinished();
        if let Some(reply) = reply {
            client.check(reply, &self.history, self.settled, self.compacted, &mut self.seen);
        }
        self.post(actions);
        polled
    }

    fn step(&mut self) {
        let shard = self.rng.below(self.shards.len() as u64) as usize;
        let client = self.rng.below(2) as usize;
        match self.rng.below(100) {
            0..25 => {
                let keys: BTreeSet<_> = (0..1 + self.rng.below(4)).map(|_| self.key()).collect();
                self.write(keys.into_iter().collect(), 6000);
            }
            25..35 => {
                let open = self.written.0 - self.settled.0;
                self.settled = Revision(self.settled.0 + self.rng.below(open + 1));
            }
            35..55 => self.turn(shard),
            55..75 => (0..self.rng.below(4)).for_each(|_| self.deliver(shard)),
            75..79 => {
                let create = self.random_create();
                self.request(client, WatchRequest::Create(create));
            }
            79 => {
                let ids: Vec<i64> = self.clients[client].watched.keys().copied().collect();
                if !ids.is_empty() {
                    let watch_id = *self.rng.pick(&ids);
                    self.request(client, WatchRequest::Cancel { watch_id });
                }
            }
            80..82 => self.request(client, WatchRequest::Progress),
            82 if self.rng.chance(1, 4) => {
                let room = self.settled.0 - self.compacted.0;
                self.compacted = Revision(self.compacted.0 + self.rng.below(room / 2 + 1));
            }
            82..90 => self.now = self.now + Duration::from_ms(self.rng.below(80)),
            _ => {
                let budget = 1 + self.rng.below(20_000) as usize;
                (0..self.rng.below(3)).for_each(|_| {
                    self.poll(client, budget);
                });
            }
        }
    }

    /// No more writes; everything flows until nothing moves.
    fn finish(&mut self) {
        self.settled = self.written;
        self.slice.keys = 1000;
        for _ in 0..400 {
            for shard in 0..self.shards.len() {
                self.turn(shard);
                while !self.shards[shard].to_hub.is_empty() {
                    self.turn(shard);
                }
                while !self.shards[shard].to_reader.is_empty() {
                    self.deliver(shard);
                }
            }
            for client in 0..2 {
                while self.poll(client, usize::MAX) {}
            }
        }
        for client in 0..2 {
            for (watch_id, watched) in &self.clients[client].watched {
                let missing = watched.next_expected(&self.history, self.settled);
                assert!(missing.is_none(), "watcher {watch_id} misses {:?}", missing.map(|it| it.at));
            }
            let started = |watched: &Watched| watched.create.start_revision <= self.settled.0 as i64;
            let answered = !self.clients[client].watched.is_empty()
                && self.clients[client].watched.values().all(started);
            let before = self.clients[client].progress;
            self.request(client, WatchRequest::Progress);
            while self.poll(client, usize::MAX) {}
            let after = self.clients[client].progress;
            assert_eq!(after - before, usize::from(answered), "in step, so progress is reported");
        }
    }
}

impl Watched {
    fn expects(&self, happened: &Happened) -> bool {
        let filtered = match happened.event {
            Event::Put(_) => self.create.no_put,
            Event::Delete { .. } => self.create.no_delete,
        };
        let from = self.from.expect("created before events");
        !filtered && happened.at.main >= from && range_of(&self.create).contains(happened.event.key())
    }

    fn next_expected<'a>(&self, history: &'a [Happened], upto: Revision) -> Option<&'a Happened> {
        let at = history.partition_point(|happened| happened.at <= self.last);
        history[at..].iter().take_while(|it| it.at.main <= upto).find(|it| self.expects(it))
    }

    fn check_header(&mut self, revision: Revision) {
        assert!(revision >= self.shown, "the header fell from {} to {revision}", self.shown);
        self.shown = revision;
    }

    fn check_progress(&mut self, revision: Revision, history: &[Happened]) {
        let missing = self.next_expected(history, revision);
        assert!(missing.is_none(), "progress {revision} without {:?} for {self:?}", missing.map(|it| it.at));
        assert!(revision.0 as i64 >= self.create.start_revision);
        self.check_header(revision);
    }

    fn check_event(&mut self, event: &WatchEvent, history: &[Happened], compacted: Revision) {
        let expected = self.next_expected(history, Revision(u64::MAX)).expect("it happened");
        assert_eq!(event.event, expected.event, "in order, unique, none lost");
        let wanted = expected.prev.as_ref().filter(|_| self.create.prev_kv);
        if event.prev_kv.is_some() || expected.at.main.0 > compacted.0 {
            assert_eq!(event.prev_kv.as_ref(), wanted, "prev_kv at {:?}", expected.at);
        }
        self.last = expected.at;
        self.events += 1;
    }
}

impl Client {
    fn check(
        &mut self,
        reply: WatchReply,
        history: &[Happened],
        settled: Revision,
        compacted: Revision,
        seen: &mut Seen,
    ) {
        assert!(reply.revision <= settled, "nothing above settled is shown");
        if reply.created {
            let create = self.asked.pop_front().expect("it was asked for");
            if reply.canceled {
                assert_eq!(reply.watch_id, -1);
                return;
            }
            let from = match create.start_revision {
                0 => reply.revision.next(),
                start => Revision(start as u64),
            };
            let (last, shown) = (At::default(), reply.revision);
            let watched = Watched { create, from: Some(from), last, shown, events: 0 };
            assert!(self.watched.insert(reply.watch_id, watched).is_none());
        } else if reply.canceled {
            let watched = self.watched.remove(&reply.watch_id);
            if reply.compact_revision != Revision::NONE {
                let watched = watched.expect("it was created");
                assert!(watched.last.main < reply.compact_revision && reply.compact_revision <= compacted);
                assert_eq!((reply.revision, reply.cancel_reason), (Revision::NONE, ""));
                seen.compacted += 1;
            } else {
                assert!(self.canceling.contains(&reply.watch_id));
            }
        } else if reply.events.is_empty() {
            if reply.watch_id == -1 {
                assert!(!self.watched.is_empty());
                self.watched.values_mut().for_each(|watched| watched.check_progress(reply.revision, history));
                self.progress += 1;
                seen.manual += 1;
            } else {
                let watched = self.watched.get_mut(&reply.watch_id).expect("created first");
                assert!(watched.create.progress_notify);
                watched.check_progress(reply.revision, history);
                seen.periodic += 1;
            }
        } else {
            self.check_events(reply, history, settled, compacted, seen);
        }
    }

    fn check_events(
        &mut self,
        reply: WatchReply,
        history: &[Happened],
        settled: Revision,
        compacted: Revision,
        seen: &mut Seen,
    ) {
        let watched = self.watched.get_mut(&reply.watch_id).expect("created comes first");
        for event in &reply.events {
            watched.check_event(event, history, compacted);
        }
        watched.check_header(reply.revision);
        assert!(watched.last.main <= reply.revision && watched.last.main <= settled);
        let rest = watched.next_expected(history, watched.last.main);
        if reply.fragment {
            assert!(watched.create.fragment);
            seen.fragments += 1;
        } else {
            assert!(rest.is_none(), "revision {} is torn", watched.last.main);
        }
        seen.torn += usize::from(rest.is_some());
        seen.events += reply.events.len();
    }
}

fn run(seed: u64, steps: usize) -> Seen {
    let mut world = World::new(seed);
    (0..steps).for_each(|_| world.step());
    world.finish();
    world.seen
}

/// The guarantees of a watch, over 1 to 3 shards, with slow readers, compaction, cancels and stores replaced.
#[test]
fn streams_deliver_the_history_in_order_whole_and_once() {
    let mut total = Seen::default();
    for seed in 0..60 {
        let seen = run(seed, 3000);
        total.events += seen.events;
        total.fragments += seen.fragments;
        total.compacted += seen.compacted;
        total.manual += seen.manual;
        total.periodic += seen.periodic;
        total.behind += seen.behind;
        total.torn += seen.torn;
    }
    let Seen { events, fragments, compacted, manual, periodic, behind, torn } = total;
    let all = [events / 100, fragments, compacted, manual, periodic, behind, torn];
    assert!(all.iter().all(|count| *count > 50), "{total:?}");
}

/// History longer than a slice, and one revision larger than a slice: slices end between revisions.
#[test]
fn long_history_is_read_in_whole_revisions() {
    let mut world = World::new(2);
    for round in 0..3u32 {
        (0..900).for_each(|_| {
            let key = world.key();
            world.write(vec![key], 10);
        });
        let many = (0..2500).map(|number| format!("a{round}{number:05}").into_bytes()).collect();
        world.write(many, 10);
    }
    world.settled = world.written;
    for number in 0..3 {
        let key = Bytes::from_static(b"a");
        let (range_end, start_revision) = (Bytes::from_static(b"\0"), 1 + number * 400);
        let create = WatchCreate { key, range_end, start_revision, prev_kv: true, ..WatchCreate::default() };
        world.request(0, WatchRequest::Create(create));
    }
    world.finish();
    let events: Vec<_> = world.clients[0].watched.values().map(|watched| watched.events).collect();
    assert!(events.len() == 3 && events[0] > 4000 && events[0] > events[2], "{events:?}");
}
