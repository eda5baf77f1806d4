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
use crate::limits::{READ_SLICE_BYTES, READ_SLICE_KEYS};
use crate::mvcc::Budget;
use crate::txn::{self, Counting, Progress, RangeCursor, RangePart};
use crate::types::{ReactorId, Revision, ShardId};

const SLICE: Budget = Budget { keys: READ_SLICE_KEYS, bytes: READ_SLICE_BYTES };

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

/// A range that another turn goes on with.
#[derive(Debug)]
pub(super) struct Slicing {
    call: CallId,
    shard: ShardId,
    cursor: Box<RangeCursor>,
    counting: Counting,
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
        let parts = shards.iter().map(|_| None).collect();
        let cursors: Vec<_> = shards.iter().map(|_| RangeCursor::new(request.clone(), at)).collect();
        let reading = Reading { request, noted, counting, shards: shards.clone(), parts };
        let call = self.begin_call(asker, Course::Reading(Box::new(reading)));
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
        if cursor.step(&owned.shard.store, SLICE, counting) != Progress::Done {
            return false;
        }
        let reply = txn::finish_range(request, noted, vec![cursor.into_part()]);
        self.reply(asker, Ok(Reply::Range(reply)));
        true
    }

    /// A range for a shard of this reactor: as much as fits a turn now, the rest in later turns.
    pub(super) fn on_range(
        &mut self,
        call: CallId,
        shard: ShardId,
        cursor: Box<RangeCursor>,
        counting: Counting,
    ) {
        self.slice(Slicing { call, shard, cursor, counting });
    }

    fn slice(&mut self, mut slicing: Slicing) {
        let store = &self.shards[&slicing.shard].shard.store;
        let (call, shard) = (slicing.call, slicing.shard);
        let part = match slicing.cursor.step(store, SLICE, slicing.counting) {
            Progress::Unfinished => {
                self.slicing.push(slicing);
                return self.send(call.reactor, Body::RangeGoesOn { call, shard });
            }
            Progress::Done => Some(slicing.cursor.into_part()),
            Progress::Compacted => None,
        };
        self.send(call.reactor, Body::Ranged { call, shard, part });
    }

    /// One slice a turn of each range under way.
    pub(super) fn slice_ranges(&mut self) {
        for slicing in std::mem::take(&mut self.slicing) {
            self.slice(slicing);
        }
    }

    pub(super) fn on_range_goes_on(&mut self, from: ReactorId, call: CallId, shard: ShardId) {
        if !self.is_wanted(call) {
            self.calls.remove(call);
            self.send(from, Body::RangeUnwanted { call, shard });
        }
    }

    pub(super) fn on_range_unwanted(&mut self, call: CallId, shard: ShardId) {
        self.slicing.retain(|slicing| (slicing.call, slicing.shard) != (call, shard));
    }

    pub(super) fn on_ranged(&mut self, id: CallId, shard: ShardId, part: Option<RangePart>) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Course::Reading(reading) = &mut call.course else {
            unreachable!("only a range gets ranges' parts")
        };
        let Some(part) = part else {
            let (asker, request, counting) = (call.asker, reading.request.clone(), reading.counting);
            self.calls.remove(id);
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
