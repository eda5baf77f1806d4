//! One hub under random load, in slices so small that nearly every revision is torn between two of them.

use super::*;

struct Happened {
    at: At,
    event: Event,
    prev: Option<KeyValue>,
}

/// One subscription's feed, as a stream keeps it.
struct Reader {
    subscription: Subscription,
    in_step: bool,
    /// Everything up to here has come.
    position: Revision,
    /// The last event that came.
    last: At,
    /// Came, and lie above the position: a stream does not pass them on yet.
    held: VecDeque<Delivery>,
    /// What the hub reckons with.
    credit: i64,
    /// Passed on, and not given back as credit.
    taken_bytes: usize,
}

struct Scene {
    rng: Rng,
    store: Store,
    hub: Hub,
    slice: Budget,
    history: Vec<Happened>,
    readers: BTreeMap<SubscriptionId, Reader>,
    written: Revision,
    settled: Revision,
    ids: u64,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    events: usize,
    torn_in_step: usize,
    torn_behind: usize,
    torn_without_credit: usize,
    joined_begun: usize,
    left_begun: usize,
    compacted_begun: usize,
    fell_behind: usize,
    told_compacted: usize,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut rng = Rng::new(seed);
        let keys = *rng.pick(&[1, 2, 3, usize::MAX]);
        let mut store = Store::new();
        store.settle(Revision::FRESH);
        Scene {
            rng,
            store,
            hub: Hub::new(Revision::FRESH, Revision::NONE),
            slice: Budget { keys, bytes: usize::MAX },
            history: Vec::new(),
            readers: BTreeMap::new(),
            written: Revision::FRESH,
            settled: Revision::FRESH,
            ids: 0,
            seen: Seen::default(),
        }
    }

    fn write(&mut self) {
        let (main, mut sub) = (self.written.next(), 0);
        let most = *self.rng.pick(&[1, 3, 12]);
        for key in 0..12u8 {
            let (at, key) = (At { main, sub: Sub(sub) }, [b'a' + key]);
            if !self.rng.chance(most, 12) {
                continue;
            }
            let (prev, event) = if self.store.newest(&key).is_some() && self.rng.chance(1, 2) {
                let prev = self.store.delete(at, &key);
                (prev, Event::Delete { key: Blob::new(&key), mod_revision: main })
            } else {
                let value = Blob::new(&vec![b'v'; self.rng.below(40) as usize]);
                let prev = self.store.put(at, &key, value, LeaseId::NONE);
                (prev, Event::Put(self.store.newest(&key).expect("just put")))
            };
            self.history.push(Happened { at, event, prev });
            sub += 1;
        }
        self.written = if sub > 0 { main } else { self.written };
    }

    fn settle(&mut self) {
        let open = self.written.0 - self.settled.0;
        self.settled = Revision(self.settled.0 + self.rng.below(open + 1));
        self.store.settle(self.settled);
        if !self.hub.is_publishing() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.hub.publish(&mut self.store, self.settled, self.slice);
        self.listen();
    }

    fn catch_up(&mut self) {
        assert!(!(self.hub.lags() && self.hub.is_publishing()), "nobody comes into step at a begun revision");
        self.hub.catch_up(&self.store, self.slice, 3);
        self.listen();
    }

    fn subscribe(&mut self) {
        self.ids += 1;
        let (a, b) = (b'a' + self.rng.below(12) as u8, b'a' + self.rng.below(12) as u8);
        let range = match self.rng.below(3) {
            0 => KeyRange::everything(),
            1 => KeyRange::of(Bytes::from(vec![a]), Bytes::new()),
            _ => KeyRange::of(Bytes::from(vec![a.min(b)]), Bytes::from(vec![a.max(b) + 1])),
        };
        let from = Revision(match self.rng.below(3) {
            0 => 1 + self.rng.below(self.settled.0),
            1 => self.hub.settled().0 + self.rng.below(3),
            _ => self.settled.0 + self.rng.below(4),
        });
        let subscription = Subscription {
            id: SubscriptionId(self.ids),
            reader: READER,
            range,
            no_put: self.rng.chance(1, 8),
            no_delete: self.rng.chance(1, 8),
            prev_kv: self.rng.chance(1, 2),
            from,
            credit_bytes: 1 + self.rng.below(800) as usize,
        };
        self.seen.joined_begun += usize::from(self.hub.is_publishing() && from == self.hub.settled().next());
        let reader = Reader {
            subscription: subscription.clone(),
            in_step: false,
            position: Revision::NONE,
            last: At::default(),
            held: VecDeque::new(),
            credit: subscription.credit_bytes as i64,
            taken_bytes: 0,
        };
        self.readers.insert(subscription.id, reader);
        self.hub.subscribe(subscription);
        self.listen();
    }

    fn any_reader(&mut self) -> Option<SubscriptionId> {
        let ids: Vec<_> = self.readers.keys().copied().collect();
        (!ids.is_empty()).then(|| *self.rng.pick(&ids))
    }

    fn unsubscribe(&mut self) {
        let Some(id) = self.any_reader() else { return };
        let reader = self.readers.remove(&id).expect("it was picked");
        self.seen.left_begun += usize::from(!reader.held.is_empty());
        self.hub.unsubscribe(id);
    }

    fn give_credit_back(&mut self, id: SubscriptionId) {
        let reader = self.readers.get_mut(&id).expect("it was picked");
        let bytes = std::mem::take(&mut reader.taken_bytes);
        reader.credit += bytes as i64;
        self.hub.add_credit(id, bytes);
    }

    /// What is settled begins to be published first, as at an owner.
    fn compact(&mut self) {
        if !self.hub.is_publishing() {
            self.publish();
        }
        let compacted = self.store.compacted().0;
        let revision = Revision(compacted + self.rng.below((self.settled.0 - compacted) / 3 + 2));
        if revision <= self.settled {
            self.seen.compacted_begun += usize::from(revision > self.hub.settled().next());
            self.store.compact(revision);
            self.hub.compact(revision);
        }
        self.listen();
    }

    /// Takes the messages, and the watermark behind them.
    fn listen(&mut self) {
        for message in self.hub.take() {
            match message {
                HubMessage::Batch(batch) => self.on_batch(batch),
                HubMessage::Compacted { id, revision, .. } => {
                    let reader = self.readers.remove(&id).expect("it is subscribed");
                    let next = reader.position.next().max(reader.subscription.from);
                    assert!(next < revision, "it is still there");
                    // With larger slices it may have used its credit up in this one.
                    let owed = reader.in_step && reader.credit > 0 && self.slice.keys == 1;
                    assert!(!owed, "who is in step and has credit gets everything");
                    self.seen.told_compacted += 1;
                }
            }
        }
        let watermark = self.hub.settled();
        for id in self.readers.keys().copied().collect::<Vec<_>>() {
            let reader = self.readers.get_mut(&id).expect("it is there");
            if reader.in_step && watermark > reader.position {
                reader.position = watermark;
                self.pass_on(id);
            }
        }
    }

    fn on_batch(&mut self, batch: EventBatch) {
        assert!(batch.events.len() <= self.slice.keys, "a step takes no more than a slice");
        let reader = self.readers.get_mut(&batch.id).expect("who has left gets nothing");
        assert!(batch.upto >= reader.position, "a position never falls");
        assert!(batch.upto <= self.settled || batch.events.is_empty());
        for (at, got) in &batch.events {
            let missed = self.history.iter().find(|it| it.at > reader.last && reader.wants(it));
            let expected = missed.expect("it happened");
            assert_eq!((*at, &got.event), (expected.at, &expected.event), "in order, once, none lost");
            let wanted = expected.prev.as_ref().filter(|_| reader.subscription.prev_kv);
            if (reader.in_step && batch.in_step) || got.prev_kv.is_some() || at.main > self.store.compacted()
            {
                assert_eq!(got.prev_kv.as_ref(), wanted, "the key before {at:?}");
            }
            reader.last = *at;
            reader.credit -= cost_bytes(got) as i64;
        }
        self.seen.events += batch.events.len();
        self.seen.fell_behind += usize::from(reader.in_step && !batch.in_step);
        let torn = usize::from(batch.events.last().is_some_and(|(at, _)| at.main > batch.upto));
        self.seen.torn_in_step += if batch.in_step { torn } else { 0 };
        self.seen.torn_behind += if batch.in_step { 0 } else { torn };
        reader.held.extend(batch.events);
        (reader.position, reader.in_step) = (batch.upto, batch.in_step);
        self.pass_on(batch.id);
    }

    /// Events up to the position leave, and nothing that belongs there may be missing.
    fn pass_on(&mut self, id: SubscriptionId) {
        let reader = self.readers.get_mut(&id).expect("it is there");
        while let Some((_, event)) = reader.held.pop_front_if(|(at, _)| at.main <= reader.position) {
            reader.taken_bytes += cost_bytes(&event);
        }
        let whole = self.history.iter().take_while(|it| it.at.main <= reader.position);
        let missing = whole.filter(|it| it.at > reader.last && reader.wants(it)).map(|it| it.at).next();
        assert_eq!(missing, None, "up to {} nothing is missing", reader.position);
        let revisions: BTreeSet<_> = reader.held.iter().map(|(at, _)| at.main).collect();
        assert!(revisions.len() <= 1, "above the position only one revision has begun");
        self.seen.torn_without_credit += usize::from(reader.credit <= 0 && !reader.held.is_empty());
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..20 => self.write(),
            20..30 => self.settle(),
            30..55 => self.publish(),
            55..75 => self.catch_up(),
            75..80 if self.readers.len() < 8 => self.subscribe(),
            80 => self.unsubscribe(),
            81..93 => {
                if let Some(id) = self.any_reader() {
                    self.give_credit_back(id);
                }
            }
            93 => self.compact(),
            _ => {
                self.store.compact_slice(self.rng.below(4) as usize);
            }
        }
    }

    /// Nothing more is written: whoever is left comes to have everything.
    fn finish(&mut self) {
        while self.settled < self.written {
            self.settle();
        }
        for _ in 0..20_000 {
            self.publish();
            self.catch_up();
            for id in self.readers.keys().copied().collect::<Vec<_>>() {
                self.give_credit_back(id);
            }
            let through = |reader: &Reader| reader.in_step && reader.position >= self.settled;
            if !self.hub.is_publishing() && !self.hub.lags() && self.readers.values().all(through) {
                return;
            }
        }
        panic!("it never comes to rest");
    }
}

impl Reader {
    fn wants(&self, happened: &Happened) -> bool {
        let filtered = match happened.event {
            Event::Put(_) => self.subscription.no_put,
            Event::Delete { .. } => self.subscription.no_delete,
        };
        let Subscription { from, range, .. } = &self.subscription;
        !filtered && happened.at.main >= *from && range.contains(happened.event.key())
    }
}

/// Whatever comes between two slices, every subscription gets each revision from its first on, whole, in
/// order and once, or is told that it is compacted; who is in step is never told that.
#[test]
fn slices_tear_no_revision() {
    let mut all = [0; 9];
    for seed in 0..400 {
        let mut scene = Scene::new(seed);
        (0..1000).for_each(|_| scene.step());
        scene.finish();
        let Seen { events, torn_in_step, torn_behind, torn_without_credit, .. } = scene.seen;
        let Seen { joined_begun, left_begun, compacted_begun, fell_behind, told_compacted, .. } = scene.seen;
        let torn = [torn_in_step, torn_behind, torn_without_credit];
        let begun = [joined_begun, left_begun, compacted_begun];
        let seen = torn.into_iter().chain(begun).chain([events / 100, fell_behind, told_compacted]);
        all.iter_mut().zip(seen).for_each(|(all, seen)| *all += seen);
    }
    assert!(all.iter().all(|count| *count > 100), "a run in which nothing happens proves nothing: {all:?}");
}
