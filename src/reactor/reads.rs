//! Ranges: at one settled revision, a shard at a time where the keys are, put together at the client's
//! reactor in the order of keys.
//!
//! A long range is read in slices, and its client may be gone before the last. So a shard that goes on says
//! so with every slice, and a reactor that no longer has the call answers that it is unwanted: short ranges,
//! which are nearly all, pay nothing for it.

use super::Reactor;
use super::calls::{Asker, Course};
use crate::api::{Error, RangeRequest, Reply};
use crate::io::{Body, CallId};
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
            Err(error) => return self.reply(asker, Err(error)),
        };
        let shards: Vec<ShardId> = self.router().shards_of(&request.range()).collect();
        if let [shard] = shards[..]
            && self.read_at_once(asker, shard, &request, noted, at, counting)
        {
            return;
        }
        if shards.is_empty() {
            let reply = txn::finish_range(&request, noted, vec![]);
            return self.reply(asker, Ok(Reply::Range(reply)));
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
        asker: Asker,
        shard: ShardId,
        request: &RangeRequest,
        noted: Revision,
        at: Revision,
        counting: Counting,
    ) -> bool {
        let Some(owned) = self.shards.get(&shard) else { return false };
        let mut cursor = RangeCursor::new(request.clone(), at);
        if !self.slices.has_left() && !cursor.is_short() {
            return false;
        }
        if cursor.step(&owned.shard.store, self.settings.slice, counting) != Progress::Done {
            self.slices.spend();
            return false;
        }
        let reply = txn::finish_range(request, noted, vec![cursor.into_part()]);
        self.reply(asker, Ok(Reply::Range(reply)));
        true
    }

    pub(super) fn on_range_goes_on(&mut self, from: ReactorId, call: CallId, shard: ShardId) {
        if !self.is_wanted(call) {
            self.calls.remove(call);
            self.send(from, Body::RangeUnwanted { call, shard });
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
            return self.reread(asker, request, counting);
        };
        let place = reading.shards.iter().position(|of| *of == shard).expect("the shard was asked");
        reading.parts[place] = Some(part);
        if reading.parts.iter().any(Option::is_none) {
            return;
        }
        let parts: Vec<RangePart> = std::mem::take(&mut reading.parts).into_iter().flatten().collect();
        let reply = txn::finish_range(&reading.request, reading.noted, parts);
        self.finish(id, Ok(Reply::Range(reply)));
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
