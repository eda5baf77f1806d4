//! Ranges: at one settled revision, a shard at a time where the keys are, put together at the client's
//! reactor in the order of keys.
//!
//! A long range is read in slices, and its client may be gone before the last. So a shard that goes on says
//! so with every slice, and a reactor that no longer has the call answers that it is unwanted: short ranges,
//! which are nearly all, pay nothing for it.

use super::super::pace::About;
use super::super::shards::Shards;
use super::{Call, CallState, Calls, ReplyTo, Turn};
use crate::api::{Error, RangeReply, RangeRequest, Reply, Request};
use crate::front::Rpc;
use crate::io::{ApplyKind, CallId, ShardMail};
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
    /// The shards' parts in the order of keys. Those that have not come are none.
    parts: Vec<(ShardId, Option<RangePart>)>,
}

fn first_two(mut shards: impl Iterator<Item = ShardId>) -> (Option<ShardId>, Option<ShardId>) {
    (shards.next(), shards.next())
}

impl Calls {
    pub(super) fn read(
        &mut self,
        turn: &mut Turn,
        shards: &Shards,
        reply_to: ReplyTo,
        request: RangeRequest,
        counting: Counting,
    ) {
        turn.counters.ranges += 1;
        let noted = turn.shown();
        let at = match txn::read_revision(request.revision, noted, *turn.compacted) {
            Ok(at) => at,
            Err(error) => {
                turn.applied(ApplyKind::Range, false, turn.now, About::default());
                return self.reply(turn, reply_to, Err(error));
            }
        };
        assert!(at <= noted, "nothing above what is settled is read: {at} at {noted}");
        let touched = turn.router().shards_of(&request.range());
        if let (Some(shard), None) = first_two(touched.clone()) {
            self.asks_of(reply_to, turn.router().reactor_of(shard));
        }
        if let Some(part) = self.read_at_once(turn, shards, touched.clone(), &request, at, counting) {
            let reply = txn::finish_range(&request, noted, part);
            return self.answer_range(turn, reply_to, request, reply);
        }
        let parts: Vec<_> = touched.clone().map(|shard| (shard, None)).collect();
        assert!(parts.is_sorted_by(|(a, _), (b, _)| a < b), "parts stand in the order of keys");
        turn.counters.paths.range_cross_shard += u64::from(parts.len() > 1);
        let bytes = request.key.len() + request.range_end.len();
        let reading = Reading { request: request.clone(), noted, counting, parts };
        let call = self.begin_of(turn, reply_to, CallState::Reading(Box::new(reading)), bytes);
        for shard in touched {
            let cursor = Box::new(RangeCursor::new(request.clone(), at));
            turn.send_to_owner(shard, ShardMail::Range { call, shard, cursor, counting });
        }
    }

    /// Reads what most ranges are: one shard of this reactor, done in one slice; or no shard, where no key can be.
    fn read_at_once(
        &mut self,
        turn: &mut Turn,
        shards: &Shards,
        touched: impl Iterator<Item = ShardId>,
        request: &RangeRequest,
        at: Revision,
        counting: Counting,
    ) -> Option<Option<RangePart>> {
        let (shard, more) = first_two(touched);
        let Some(shard) = shard else { return Some(None) };
        let store = &shards.get(shard).filter(|_| more.is_none())?.shard.store;
        let part = match txn::read_point(store, request, at) {
            Some(part) => part,
            None if self.tried < turn.settings.bounds.slices_per_turn => {
                let mut cursor = RangeCursor::new(request.clone(), at);
                if cursor.step(store, turn.settings.slice, counting) != Progress::Done {
                    self.tried += 1;
                    return None;
                }
                cursor.into_part()
            }
            None => return None,
        };
        turn.pace.ranged(turn.now);
        Some(Some(part))
    }

    /// What has no place beside the answers that clients do not take is read later.
    fn answer_range(&mut self, turn: &mut Turn, reply_to: ReplyTo, request: RangeRequest, reply: RangeReply) {
        match reply_to {
            ReplyTo::Rpc(rpc) => match self.front.takes(rpc, &reply) {
                Ok(()) => self.reply(turn, reply_to, Ok(Reply::Range(reply))),
                Err(bytes) => self.read_later(turn, rpc, request, Some(bytes)),
            },
            reply_to => self.reply(turn, reply_to, Ok(Reply::Range(reply))),
        }
    }

    pub(super) fn read_later(
        &mut self,
        turn: &mut Turn,
        rpc: Rpc,
        request: RangeRequest,
        answer_bytes: Option<usize>,
    ) {
        turn.counters.ranges -= 1; // it is counted when it is read again
        turn.counters.paths.answer_waited += 1;
        self.front.set_gathered(rpc, 0);
        self.front.defer(turn.now, rpc, Request::Range(request), answer_bytes);
    }

    pub fn on_range_goes_on(
        &mut self,
        turn: &mut Turn,
        from: ReactorId,
        id: CallId,
        shard: ShardId,
        bytes: usize,
    ) {
        let Some(call) = self.under_way.get(id) else {
            return turn.send(from, ShardMail::RangeUnwanted { call: id, shard });
        };
        let reply_to = call.reply_to;
        if !self.is_there(reply_to) {
            self.give_up_reading(turn, id);
        } else if self.gives_way(reply_to, bytes) {
            self.wait_for_place(turn, id);
        }
    }

    /// Whether a range that has found so many bytes more than it has gathered may as well wait.
    fn gives_way(&mut self, reply_to: ReplyTo, bytes: usize) -> bool {
        match reply_to {
            ReplyTo::Rpc(rpc) => self.front.is_in_vain(rpc, bytes),
            ReplyTo::Chunk(rpc) => self.is_read_at_once(rpc) && self.front.is_in_vain(rpc, bytes),
            _ => false,
        }
    }

    fn wait_for_place(&mut self, turn: &mut Turn, id: CallId) {
        let Some((reply_to, request)) = self.give_up_reading(turn, id) else { return };
        match reply_to {
            ReplyTo::Rpc(rpc) => self.read_later(turn, rpc, request, None),
            ReplyTo::Chunk(rpc) => self.begin_later(turn, rpc, None),
            _ => unreachable!("others do not give way"),
        }
    }

    /// Forgets what was read. The shards that go on hear of it.
    fn give_up_reading(&mut self, turn: &mut Turn, id: CallId) -> Option<(ReplyTo, RangeRequest)> {
        let Call { reply_to, state: CallState::Reading(reading), .. } = self.under_way.remove(id)? else {
            unreachable!("only a range goes on")
        };
        for (shard, part) in &reading.parts {
            if part.is_none() {
                turn.send_to_owner(*shard, ShardMail::RangeUnwanted { call: id, shard: *shard });
            }
        }
        Some((reply_to, reading.request))
    }

    /// Some parts have come: they count as the answer will.
    fn gather_parts(&mut self, turn: &mut Turn, id: CallId, reply_to: ReplyTo, bytes: usize) {
        let (ReplyTo::Rpc(rpc) | ReplyTo::Chunk(rpc)) = reply_to else { return };
        if bytes <= turn.settings.bounds.front.answer_bytes_min {
            return;
        }
        self.front.set_gathered(rpc, bytes);
        if self.gives_way(reply_to, 0) {
            self.wait_for_place(turn, id);
        }
    }

    pub fn on_ranged(&mut self, turn: &mut Turn, id: CallId, shard: ShardId, part: Option<RangePart>) {
        let Some(call) = self.under_way.get_mut(id) else { return };
        let CallState::Reading(reading) = &mut call.state else {
            unreachable!("only a range gets ranges' parts")
        };
        let Some(part) = part else {
            let (reply_to, request, counting) = (call.reply_to, reading.request.clone(), reading.counting);
            self.under_way.remove(id);
            turn.counters.paths.range_read_anew += 1;
            self.let_go(reply_to);
            return self.reread(turn, reply_to, request, counting);
        };
        let place = reading.parts.iter_mut().find(|(of, _)| *of == shard).expect("the shard was asked");
        assert!(place.1.is_none(), "shard {shard} gives its part of a range once");
        place.1 = Some(part);
        if reading.parts.iter().any(|(_, part)| part.is_none()) {
            let (reply_to, parts) = (call.reply_to, reading.parts.iter().flat_map(|(_, part)| part));
            let bytes = parts.map(RangePart::kept_bytes).sum();
            return self.gather_parts(turn, id, reply_to, bytes);
        }
        let Some(Call { reply_to, begun, state: CallState::Reading(reading), .. }) =
            self.under_way.remove(id)
        else {
            unreachable!("it was there above")
        };
        turn.pace.ranged(begun);
        if reading.parts.len() > 1 {
            self.let_go(reply_to);
        }
        let parts = reading.parts.into_iter().filter_map(|(_, part)| part);
        let reply = txn::finish_range(&reading.request, reading.noted, parts);
        self.answer_range(turn, reply_to, reading.request, reply);
    }

    /// Nothing is gathered any more.
    fn let_go(&mut self, reply_to: ReplyTo) {
        if let ReplyTo::Rpc(rpc) | ReplyTo::Chunk(rpc) = reply_to {
            self.front.set_gathered(rpc, 0);
        }
    }

    /// A shard has been compacted above the revision: the newest is noted anew, an older one is gone.
    fn reread(&mut self, turn: &mut Turn, reply_to: ReplyTo, request: RangeRequest, counting: Counting) {
        if request.revision > 0 {
            self.reply(turn, reply_to, Err(Error::Compacted));
        } else {
            self.ready.push_back((reply_to, request, counting));
        }
    }
}
