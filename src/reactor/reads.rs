//! Ranges: at one settled revision, a shard at a time where the keys are, put together at the client's
//! reactor in the order of keys.
//!
//! A long range is read in slices, and its client may be gone before the last. So a shard that goes on says
//! so with every slice, and a reactor that no longer has the call answers that it is unwanted: short ranges,
//! which are nearly all, pay nothing for it.

use super::Reactor;
use super::calls::{Asker, Call, Course};
use super::pace::About;
use crate::api::{Error, RangeReply, RangeRequest, Reply, Request};
use crate::front::Rpc;
use crate::io::{ApplyKind, Body, CallId};
use crate::txn::{self, Counting, Progress, RangeCursor, RangePart};
use crate::types::{ReactorId, Revision, ShardId};

/// A range over one or several shards.
#[derive(Debug)]
pub(super) struct Reading {
    request: RangeRequest,
    /// `settled` as it was when the range was admitted: what its header shows, and what it reads at unless
    /// it names an older revision.
    noted: Revision,
    counting: Counting,
    /// In the order of keys, those that have come.
    parts: Vec<(ShardId, Option<RangePart>)>,
}

impl Reactor {
    pub(super) fn read(&mut self, asker: Asker, request: RangeRequest) {
        self.read_counting(asker, request, Counting::Total);
    }

    pub(super) fn read_counting(&mut self, asker: Asker, request: RangeRequest, counting: Counting) {
        self.counters.ranges += 1;
        let noted = self.sequencer.settled();
        let at = match txn::read_revision(request.revision, noted, self.control.compacted()) {
            Ok(at) => at,
            Err(error) => {
                self.applied(ApplyKind::Range, false, self.now, About::default());
                return self.reply(asker, Err(error));
            }
        };
        let shards = self.router().shards_of(&request.range());
        if let Some(reply) = self.read_at_once(shards.clone(), &request, noted, at, counting) {
            return self.answer_range(asker, request, reply);
        }
        let parts: Vec<_> = shards.clone().map(|shard| (shard, None)).collect();
        self.counters.paths.range_spread += u64::from(parts.len() > 1);
        let bytes = request.key.len() + request.range_end.len();
        let reading = Reading { request: request.clone(), noted, counting, parts };
        let call = self.begin_call_of(asker, Course::Reading(Box::new(reading)), bytes);
        for shard in shards {
            let owner = self.router().reactor_of(shard);
            let cursor = Box::new(RangeCursor::new(request.clone(), at));
            self.send(owner, Body::Range { call, shard, cursor, counting });
        }
    }

    /// Most ranges: one shard, of this reactor, done in one slice. Or none, where no key can be.
    fn read_at_once(
        &mut self,
        mut shards: impl Iterator<Item = ShardId>,
        request: &RangeRequest,
        noted: Revision,
        at: Revision,
        counting: Counting,
    ) -> Option<RangeReply> {
        let (shard, more) = (shards.next(), shards.next());
        let Some(shard) = shard else { return Some(txn::finish_range(request, noted, None)) };
        let owned = self.shards.get(&shard).filter(|_| more.is_none())?;
        let store = &owned.shard.store;
        if let Some(part) = txn::read_point(store, request, at) {
            self.pace.ranged(self.now);
            return Some(txn::finish_range(request, noted, [part]));
        }
        let mut cursor = RangeCursor::new(request.clone(), at);
        if !self.slices.has_left() && !cursor.is_short() {
            return None;
        }
        if cursor.step(store, self.settings.slice, counting) != Progress::Done {
            self.slices.spend();
            return None;
        }
        self.pace.ranged(self.now);
        Some(txn::finish_range(request, noted, [cursor.into_part()]))
    }

    /// What has no place beside the answers that clients do not take is read later.
    fn answer_range(&mut self, asker: Asker, request: RangeRequest, reply: RangeReply) {
        match asker {
            Asker::Rpc(rpc) => match self.front.takes(rpc, &reply) {
                Ok(()) => self.reply(asker, Ok(Reply::Range(reply))),
                Err(bytes) => self.read_later(rpc, request, Some(bytes)),
            },
            asker => self.reply(asker, Ok(Reply::Range(reply))),
        }
    }

    pub(super) fn read_later(&mut self, rpc: Rpc, request: RangeRequest, answer_bytes: Option<usize>) {
        self.counters.ranges -= 1; // it is counted when it is read again
        self.counters.paths.answer_waited += 1;
        self.front.set_gathered(rpc, 0);
        self.front.defer(self.now, rpc, Request::Range(request), answer_bytes);
    }

    pub(super) fn on_range_goes_on(&mut self, from: ReactorId, id: CallId, shard: ShardId, bytes: usize) {
        let Some(call) = self.calls.get(id) else {
            return self.send(from, Body::RangeUnwanted { call: id, shard });
        };
        let asker = call.asker;
        if !self.is_there(asker) {
            self.give_up_reading(id);
        } else if self.gives_way(asker, bytes) {
            self.wait_for_place(id);
        }
    }

    /// Whether a range that has found so many bytes more than it has gathered may as well wait.
    fn gives_way(&mut self, asker: Asker, bytes: usize) -> bool {
        match asker {
            Asker::Rpc(rpc) => self.front.is_in_vain(rpc, bytes),
            Asker::Chunk(rpc) => self.is_read_at_once(rpc) && self.front.is_in_vain(rpc, bytes),
            _ => false,
        }
    }

    fn wait_for_place(&mut self, id: CallId) {
        let Some((asker, request)) = self.give_up_reading(id) else { return };
        match asker {
            Asker::Rpc(rpc) => self.read_later(rpc, request, None),
            Asker::Chunk(rpc) => self.begin_later(rpc, None),
            _ => unreachable!("others do not give way"),
        }
    }

    /// Forgets what was read. The shards that go on hear of it.
    fn give_up_reading(&mut self, id: CallId) -> Option<(Asker, RangeRequest)> {
        let Call { asker, course: Course::Reading(reading), .. } = self.calls.remove(id)? else {
            unreachable!("only a range goes on")
        };
        for (shard, part) in &reading.parts {
            if part.is_none() {
                let owner = self.router().reactor_of(*shard);
                self.send(owner, Body::RangeUnwanted { call: id, shard: *shard });
            }
        }
        Some((asker, reading.request))
    }

    /// Some parts have come: they count as the answer will.
    fn gather_parts(&mut self, id: CallId, asker: Asker, bytes: usize) {
        let (Asker::Rpc(rpc) | Asker::Chunk(rpc)) = asker else { return };
        if bytes <= self.settings.bounds.front.answer_bytes_min {
            return;
        }
        self.front.set_gathered(rpc, bytes);
        if self.gives_way(asker, 0) {
            self.wait_for_place(id);
        }
    }

    pub(super) fn on_range_unwanted(&mut self, call: CallId, shard: ShardId) {
        self.counters.paths.range_unwanted += 1;
        self.slices.drop_of(call, shard);
    }

    pub(super) fn on_ranged(&mut self, id: CallId, shard: ShardId, part: Option<RangePart>) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Course::Reading(reading) = &mut call.course else {
            unreachable!("only a range gets ranges' parts")
        };
        let Some(part) = part else {
            let (asker, request, counting) = (call.asker, reading.request.clone(), reading.counting);
            self.calls.remove(id);
            self.counters.paths.range_read_anew += 1;
            self.let_go(asker);
            return self.reread(asker, request, counting);
        };
        let place = reading.parts.iter_mut().find(|(of, _)| *of == shard).expect("the shard was asked");
        place.1 = Some(part);
        if reading.parts.iter().any(|(_, part)| part.is_none()) {
            let (asker, parts) = (call.asker, reading.parts.iter().flat_map(|(_, part)| part));
            let bytes = parts.map(RangePart::kept_bytes).sum();
            return self.gather_parts(id, asker, bytes);
        }
        let Some(Call { asker, begun, course: Course::Reading(reading), .. }) = self.calls.remove(id) else {
            unreachable!("it was there above")
        };
        self.pace.ranged(begun);
        if reading.parts.len() > 1 {
            self.let_go(asker);
        }
        let parts = reading.parts.into_iter().filter_map(|(_, part)| part);
        let reply = txn::finish_range(&reading.request, reading.noted, parts);
        self.answer_range(asker, reading.request, reply);
    }

    /// Nothing is gathered any more.
    fn let_go(&mut self, asker: Asker) {
        if let Asker::Rpc(rpc) | Asker::Chunk(rpc) = asker {
            self.front.set_gathered(rpc, 0);
        }
    }

    /// A shard has been compacted above the revision: the newest is noted anew, an older one is gone.
    fn reread(&mut self, asker: Asker, request: RangeRequest, counting: Counting) {
        if request.revision > 0 {
            self.reply(asker, Err(Error::Compacted));
        } else {
            self.read_counting(asker, request, counting);
        }
    }
}
