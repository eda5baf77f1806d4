//! Ranges: at one settled revision, a shard at a time where the keys are, put together at the client's
//! reactor in the order of keys.
//!
//! A long range is read in slices, and its client may be gone before the last. So a shard that goes on says
//! so with every slice, and a reactor that no longer has the call answers that it is unwanted: short ranges,
//! which are nearly all, pay nothing for it.

use super::Reactor;
use super::calls::{Asker, Call, Course};
use super::pace::About;
use crate::api::{Error, RangeReply, RangeRequest, Reply};
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
    shards: Vec<ShardId>,
    parts: Vec<Option<RangePart>>,
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
        let shards: Vec<ShardId> = self.router().shards_of(&request.range()).collect();
        if let [shard] = shards[..]
            && let Some(reply) = self.read_at_once(shard, &request, noted, at, counting)
        {
            return self.answer_range(asker, request, reply);
        }
        if shards.is_empty() {
            let reply = txn::finish_range(&request, noted, vec![]);
            return self.answer_range(asker, request, reply);
        }
        self.counters.paths.range_spread += u64::from(shards.len() > 1);
        let parts = shards.iter().map(|_| None).collect();
        let cursors: Vec<_> = shards.iter().map(|_| RangeCursor::new(request.clone(), at)).collect();
        let bytes = request.key.len() + request.range_end.len();
        let reading = Reading { request, noted, counting, shards: shards.clone(), parts };
        let call = self.begin_call_of(asker, Course::Reading(Box::new(reading)), bytes);
        for (shard, cursor) in shards.into_iter().zip(cursors) {
            let owner = self.router().reactor_of(shard);
            self.send(owner, Body::Range { call, shard, cursor: Box::new(cursor), counting });
        }
    }

    /// Most ranges: one shard, of this reactor, done in one slice.
    fn read_at_once(
        &mut self,
        shard: ShardId,
        request: &RangeRequest,
        noted: Revision,
        at: Revision,
        counting: Counting,
    ) -> Option<RangeReply> {
        let owned = self.shards.get(&shard)?;
        let mut cursor = RangeCursor::new(request.clone(), at);
        if !self.slices.has_left() && !cursor.is_short() {
            return None;
        }
        if cursor.step(&owned.shard.store, self.settings.slice, counting) != Progress::Done {
            self.slices.spend();
            return None;
        }
        self.applied(ApplyKind::Range, true, self.now, About::default());
        Some(txn::finish_range(request, noted, vec![cursor.into_part()]))
    }

    /// What has no place beside the answers that clients do not take is read later.
    fn answer_range(&mut self, asker: Asker, request: RangeRequest, reply: RangeReply) {
        match asker {
            Asker::Rpc(rpc) if !self.front.takes(rpc, &reply) => {
                self.read_later(rpc, request, Some(&reply));
            }
            asker => self.reply(asker, Ok(Reply::Range(reply))),
        }
    }

    fn read_later(&mut self, rpc: Rpc, request: RangeRequest, answer: Option<&RangeReply>) {
        self.counters.ranges -= 1; // it is counted when it is read again
        self.front.defer(self.now, rpc, request, answer);
    }

    pub(super) fn on_range_goes_on(&mut self, from: ReactorId, id: CallId, shard: ShardId, bytes: usize) {
        let Some(call) = self.calls.get(id) else {
            return self.send(from, Body::RangeUnwanted { call: id, shard });
        };
        let asker = call.asker;
        if !self.is_there(asker) {
            self.calls.remove(id);
        } else if let Asker::Rpc(rpc) = asker
            && self.front.is_in_vain(rpc, bytes)
            && let Some(Course::Reading(reading)) = self.calls.remove(id).map(|call| call.course)
        {
            self.read_later(rpc, reading.request, None);
        } else {
            return;
        }
        self.send(from, Body::RangeUnwanted { call: id, shard });
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
            return self.reread(asker, request, counting);
        };
        let place = reading.shards.iter().position(|of| *of == shard).expect("the shard was asked");
        reading.parts[place] = Some(part);
        if reading.parts.iter().any(Option::is_none) {
            return;
        }
        let Some(Call { asker, begun, course: Course::Reading(reading), .. }) = self.calls.remove(id) else {
            unreachable!("it was there above")
        };
        self.applied(ApplyKind::Range, true, begun, About::default());
        let reply = txn::finish_range(&reading.request, reading.noted, reading.parts.into_iter().flatten());
        self.answer_range(asker, reading.request, reply);
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
