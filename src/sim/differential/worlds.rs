//! The two ways to evaluate, each with what a server keeps around them.

use crate::api::{
    Answer, DeleteRangeRequest, Error, Op, OpReply, RangeReply, RangeRequest, Reply, Request, TxnReply,
    TxnRequest, WatchEvent,
};
use crate::mvcc::{Budget, Store};
use crate::record::EffectChange;
use crate::stdx::Rng;
use crate::txn::{
    Applied, Applying, Branches, Comparing, Evaluated, LeaseMove, Next, Plan, Progress, RangeCursor,
    RangeStream, Refusal, check_delete, check_put, check_range, check_stream, check_txn,
    evaluate_delete_range, evaluate_put, evaluate_txn, finish_range, gather, merge, merge_outcomes,
    read_revision,
};
use crate::types::{At, Blob, Event, KeyRange, KeyValue, LeaseId, Revision, Sub};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

const LIST_MAX: usize = crate::limits::DELETE_LIST_MAX;

pub trait World {
    fn answer(&mut self, request: &Request) -> Answer;
    fn stream(&mut self, request: &RangeRequest) -> Result<RangeReply, Error>;
    fn settle(&mut self, to: Revision);
    fn undo_above(&mut self, to: Revision);
    fn compact(&mut self, at: Revision);
    /// The changes of the last request, in order.
    fn take_effects(&mut self) -> Vec<(Revision, EffectChange)>;
    fn state_at(&self, at: Revision) -> Vec<KeyValue>;
    fn attached(&self, lease: LeaseId) -> Vec<Blob>;
    fn history(&self) -> Vec<(At, Event)>;
}

/// What the effects of these events have to be.
pub fn changes_of(events: &[(At, WatchEvent)]) -> Vec<(Revision, EffectChange)> {
    let change = |(at, event): &(At, WatchEvent)| {
        let change = match &event.event {
            Event::Put(kv) => EffectChange::Put {
                sub: at.sub,
                key: kv.key.clone(),
                value: kv.value.clone(),
                lease: kv.lease,
            },
            Event::Delete { key, .. } => EffectChange::Delete { sub: at.sub, key: key.clone() },
        };
        (at.main, change)
    };
    events.iter().map(change).collect()
}

/// A sequencer, a lease index and a set of stores.
struct Server {
    stores: Vec<Store>,
    current: Revision,
    leases: BTreeSet<LeaseId>,
    attached: BTreeMap<Blob, LeaseId>,
    effects: Vec<(Revision, EffectChange)>,
    rng: Rng,
}

impl Server {
    fn new(stores: usize, seed: u64) -> Server {
        Server {
            stores: (0..stores).map(|_| Store::new()).collect(),
            current: Revision::FRESH,
            leases: BTreeSet::new(),
            attached: BTreeMap::new(),
            effects: Vec::new(),
            rng: Rng::new(seed),
        }
    }

    fn note(&mut self, revision: Revision, changes: Vec<EffectChange>, leases: Vec<LeaseMove>) {
        self.effects.extend(changes.into_iter().map(|change| (revision, change)));
        for LeaseMove { key, from, to } in leases {
            assert_eq!(self.attached.remove(&key).unwrap_or_default(), from);
            if to != LeaseId::NONE {
                self.attached.insert(key, to);
            }
        }
    }

    fn keys_of(&self, lease: LeaseId) -> Vec<Blob> {
        self.attached.iter().filter(|(_, of)| **of == lease).map(|(key, _)| key.clone()).collect()
    }

    fn range(&mut self, request: &RangeRequest) -> Result<RangeReply, Error> {
        check_range(request)?;
        let at = read_revision(request.revision, self.current, self.stores[0].compacted())?;
        Ok(self.read(request, at, crate::txn::Counting::Total))
    }

    fn read(&mut self, request: &RangeRequest, at: Revision, counting: crate::txn::Counting) -> RangeReply {
        let parts = self.stores.iter().map(|store| {
            let mut cursor = RangeCursor::new(request.clone(), at);
            loop {
                let budget = Budget { keys: 1 + self.rng.below(4) as usize, bytes: usize::MAX };
                match cursor.step(store, budget, counting) {
                    Progress::Unfinished => {}
                    Progress::Done => return cursor.into_part(),
                    Progress::Compacted => panic!("the revision was checked"),
                }
            }
        });
        finish_range(request, self.current, parts)
    }

    fn stream(&mut self, request: &RangeRequest) -> Result<RangeReply, Error> {
        check_stream(request)?;
        let at = read_revision(request.revision, self.current, self.stores[0].compacted())?;
        let mut stream = RangeStream::open(request.clone(), at, self.current);
        let mut merged = RangeReply::default();
        while let Some(next) = stream.next() {
            assert_eq!(merged.revision, Revision::NONE, "a header comes with the last chunk only");
            let chunk = match next {
                Next::Read(request, counting) => {
                    let reply = self.read(&request, at, counting);
                    let bytes = [1, 100, 1000][self.rng.below(3) as usize];
                    stream.chunk(reply, bytes, 100)
                }
                Next::Piece => stream.piece(100),
            };
            merged.kvs.extend(chunk.kvs);
            merged.keys_only = chunk.keys_only;
            (merged.revision, merged.more, merged.count) = (chunk.revision, chunk.more, chunk.count);
        }
        Ok(merged)
    }

    fn settle(&mut self, to: Revision) {
        self.stores.iter_mut().for_each(|store| store.settle(to));
    }

    fn undo_above(&mut self, to: Revision) {
        for store in &mut self.stores {
            let attached = &mut self.attached;
            store.undo_above(to, &mut |undone| {
                assert_eq!(attached.remove(&undone.key).unwrap_or_default(), undone.lease);
                if undone.lease_again != LeaseId::NONE {
                    attached.insert(undone.key, undone.lease_again);
                }
            });
        }
        self.current = self.current.min(to);
    }

    fn compact(&mut self, at: Revision) {
        for store in &mut self.stores {
            store.compact(at);
            for _ in 0..self.rng.below(4) {
                store.compact_slice(1 + self.rng.below(3) as usize);
            }
        }
    }

    fn state_at(&self, at: Revision) -> Vec<KeyValue> {
        let everything = KeyRange::everything();
        let slices =
            self.stores.iter().map(|store| store.range(&everything, at, None, Budget::UNBOUNDED).kvs);
        let mut kvs: Vec<KeyValue> = slices.flatten().collect();
        kvs.sort_by(|a, b| a.key.cmp(&b.key));
        kvs
    }

    fn history(&self) -> Vec<(At, Event)> {
        let histories = self.stores.iter().flat_map(|store| {
            let after = At { main: store.compacted(), sub: Sub(u32::MAX) };
            store.history(after, self.current, Budget::UNBOUNDED).changes
        });
        let mut events: Vec<_> = histories.map(|(at, change)| (at, change.event)).collect();
        events.sort_by_key(|(at, _)| *at);
        events
    }

    fn lease_grant(&mut self, lease: LeaseId, ttl: i64) -> Answer {
        if !self.leases.insert(lease) {
            return Err(Error::LeaseExists);
        }
        Ok(Reply::LeaseGrant { revision: self.current, lease, ttl })
    }

    /// The transaction that deletes the keys of a lease.
    fn lease_end(&mut self, lease: LeaseId) -> Result<TxnRequest, Error> {
        if !self.leases.remove(&lease) {
            return Err(Error::LeaseNotFound);
        }
        let delete = |key: Blob| {
            let key = Bytes::copy_from_slice(&key);
            Op::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
        };
        let success = self.keys_of(lease).into_iter().map(delete).collect();
        Ok(TxnRequest { success, ..TxnRequest::default() })
    }
}

/// One store with all keys.
pub struct Single(Server);

impl Single {
    pub fn new(seed: u64) -> Single {
        Single(Server::new(1, seed))
    }

    fn evaluate<T>(
        &mut self,
        run: impl FnOnce(
            &mut Store,
            Revision,
            &dyn Fn(LeaseId) -> bool,
            &mut dyn FnMut() -> Result<Revision, crate::txn::EpochEnded>,
        ) -> Result<Evaluated<T>, Refusal>,
    ) -> Result<T, Error> {
        let Server { stores, current, leases, .. } = &mut self.0;
        let before = *current;
        let exists = |lease| leases.contains(&lease);
        let result = run(&mut stores[0], before, &exists, &mut || {
            assert_eq!(*current, before, "one revision is taken at most");
            *current = current.next();
            Ok(*current)
        });
        let evaluated = result.map_err(|refusal| match refusal {
            Refusal::Client(error) => error,
            Refusal::Ended => panic!("the epoch does not end here"),
        });
        let evaluated = evaluated.inspect_err(|_| assert_eq!(self.0.current, before))?;
        match evaluated.effect {
            Some(effect) => self.0.note(effect.revision, effect.changes, evaluated.leases),
            None => assert!(self.0.current == before && evaluated.leases.is_empty()),
        }
        Ok(evaluated.reply)
    }

    fn txn(&mut self, request: &TxnRequest) -> Result<TxnReply, Error> {
        self.evaluate(|store, current, leases, take| {
            evaluate_txn(store, request, current, LIST_MAX, leases, take)
        })
    }
}

impl World for Single {
    fn answer(&mut self, request: &Request) -> Answer {
        match request {
            Request::Range(range) => self.0.range(range).map(Reply::Range),
            Request::Put(put) => {
                check_put(put)?;
                let reply = self.evaluate(|store, _, leases, take| evaluate_put(store, put, leases, take));
                reply.map(Reply::Put)
            }
            Request::DeleteRange(delete) => {
                check_delete(delete)?;
                let reply = self.evaluate(|store, current, _, take| {
                    evaluate_delete_range(store, delete, current, LIST_MAX, take)
                });
                reply.map(Reply::DeleteRange)
            }
            Request::Txn(txn) => {
                check_txn(txn, super::OPS_MAX)?;
                self.txn(txn).map(Reply::Txn)
            }
            Request::LeaseGrant(grant) => self.0.lease_grant(grant.id, grant.ttl),
            Request::LeaseRevoke(lease) => {
                let deletes = self.0.lease_end(*lease)?;
                self.txn(&deletes).map(|reply| Reply::LeaseRevoke { revision: reply.revision })
            }
            other => panic!("not generated: {other:?}"),
        }
    }
    fn stream(&mut self, request: &RangeRequest) -> Result<RangeReply, Error> {
        self.0.stream(request)
    }
    fn settle(&mut self, to: Revision) {
        self.0.settle(to);
    }
    fn undo_above(&mut self, to: Revision) {
        self.0.undo_above(to);
    }
    fn compact(&mut self, at: Revision) {
        self.0.compact(at);
    }
    fn take_effects(&mut self) -> Vec<(Revision, EffectChange)> {
        std::mem::take(&mut self.0.effects)
    }
    fn state_at(&self, at: Revision) -> Vec<KeyValue> {
        self.0.state_at(at)
    }
    fn attached(&self, lease: LeaseId) -> Vec<Blob> {
        self.0.keys_of(lease)
    }
    fn history(&self) -> Vec<(At, Event)> {
        self.0.history()
    }
}

/// Keys cut over one to four stores, each with ranges that lie between those of others.
pub struct Cut {
    server: Server,
    owned: Vec<Vec<KeyRange>>,
}

impl Cut {
    pub fn new(seed: u64) -> Cut {
        let mut rng = Rng::new(seed ^ 0xC07);
        let stores = 1 + rng.below(4) as usize;
        let mut cuts: Vec<&'static [u8]> = vec![b""];
        let places: [&[u8]; 7] = [b"a", b"a\0", b"b", b"c\0", b"d", b"e", b"f"];
        cuts.extend(places.into_iter().filter(|_| rng.chance(1, 2)));
        let mut owned = vec![Vec::new(); stores];
        for (at, start) in cuts.iter().enumerate() {
            let start = Bytes::from_static(start);
            let range = match cuts.get(at + 1) {
                Some(end) => KeyRange::Between(start, Bytes::from_static(end)),
                None => KeyRange::From(start),
            };
            owned[rng.below(stores as u64) as usize].push(range);
        }
        Cut { server: Server::new(stores, seed), owned }
    }

    /// Does what a coordinator of a transaction does.
    fn txn(&mut self, request: &TxnRequest) -> Result<TxnReply, Error> {
        let Server { stores, current, leases, rng, .. } = &mut self.server;
        let budget = |rng: &mut Rng| Budget { keys: 1 + rng.below(6) as usize, bytes: usize::MAX };
        let mut outcomes = vec![];
        for store in stores.iter() {
            let mut comparing = Comparing::default();
            let of_store = (0..).find_map(|_| comparing.step(store, request, budget(rng)));
            let of_store = of_store.expect("a compare over a bounded store ends");
            if outcomes.is_empty() {
                outcomes = of_store;
            } else {
                merge_outcomes(&mut outcomes, &of_store);
            }
        }
        let path = Branches::of(request, &outcomes);
        let exists = |lease| leases.contains(&lease);
        let gathered: Vec<_> = (stores.iter().zip(&self.owned))
            .map(|(store, owned)| gather(store, owned, request, &path, *current, &exists))
            .collect();
        let plan = Plan::of(&gathered)?;
        let before = *current;
        let taken = (plan.changes() > 0).then(|| before.next());
        let (mut applied, mut moves): (Vec<Applied>, Vec<LeaseMove>) = (vec![], vec![]);
        for (shard, (store, owned)) in stores.iter_mut().zip(&self.owned).enumerate() {
            let mut applying = Applying::new(taken, plan.sub_ranges(shard).to_vec(), LIST_MAX);
            let done = (0..).find_map(|_| applying.step(store, owned, request, &path, budget(rng)));
            applied.push(done.expect("a transaction over a bounded store ends"));
            moves.extend(applying.take_leases());
        }
        let parts = applied.iter().filter(|shard| !shard.changes.is_empty()).count();
        assert_eq!(parts, usize::from(plan.parts()));
        *current = taken.unwrap_or(before);
        let reply = merge(request, &path, &plan, before, taken, &mut applied);
        let mut changes = Vec::new();
        for shard in applied {
            changes.extend(shard.changes);
        }
        changes.sort_by_key(|change| match change {
            EffectChange::Put { sub, .. } | EffectChange::Delete { sub, .. } => *sub,
            EffectChange::DeleteRange { .. } | EffectChange::LeaseEnd { .. } => {
                panic!("few keys are deleted one by one, and leases end elsewhere")
            }
        });
        self.server.note(self.server.current, changes, moves);
        Ok(reply)
    }

    fn alone(&mut self, op: Op) -> Result<OpReply, Error> {
        let reply = self.txn(&TxnRequest { success: vec![op], ..TxnRequest::default() })?;
        Ok(reply.responses.into_iter().next().expect("one operation has one response"))
    }
}

impl World for Cut {
    fn answer(&mut self, request: &Request) -> Answer {
        match request {
            Request::Range(range) => self.server.range(range).map(Reply::Range),
            Request::Put(put) => {
                check_put(put)?;
                match self.alone(Op::Put(put.clone()))? {
                    OpReply::Put(reply) => Ok(Reply::Put(reply)),
                    other => panic!("a put was answered with {other:?}"),
                }
            }
            Request::DeleteRange(delete) => {
                check_delete(delete)?;
                match self.alone(Op::DeleteRange(delete.clone()))? {
                    OpReply::DeleteRange(reply) => Ok(Reply::DeleteRange(reply)),
                    other => panic!("a delete was answered with {other:?}"),
                }
            }
            Request::Txn(txn) => {
                check_txn(txn, super::OPS_MAX)?;
                self.txn(txn).map(Reply::Txn)
            }
            Request::LeaseGrant(grant) => self.server.lease_grant(grant.id, grant.ttl),
            Request::LeaseRevoke(lease) => {
                let deletes = self.server.lease_end(*lease)?;
                self.txn(&deletes).map(|reply| Reply::LeaseRevoke { revision: reply.revision })
            }
            other => panic!("not generated: {other:?}"),
        }
    }
    fn stream(&mut self, request: &RangeRequest) -> Result<RangeReply, Error> {
        self.server.stream(request)
    }
    fn settle(&mut self, to: Revision) {
        self.server.settle(to);
    }
    fn undo_above(&mut self, to: Revision) {
        self.server.undo_above(to);
    }
    fn compact(&mut self, at: Revision) {
        self.server.compact(at);
    }
    fn take_effects(&mut self) -> Vec<(Revision, EffectChange)> {
        std::mem::take(&mut self.server.effects)
    }
    fn state_at(&self, at: Revision) -> Vec<KeyValue> {
        self.server.state_at(at)
    }
    fn attached(&self, lease: LeaseId) -> Vec<Blob> {
        self.server.keys_of(lease)
    }
    fn history(&self) -> Vec<(At, Event)> {
        self.server.history()
    }
}
