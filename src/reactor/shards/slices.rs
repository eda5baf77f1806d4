//! Work too long for one step, cut in slices: long ranges and histories.
//!
//! A turn has so many slices for all that is under way, taken in turn. What is new and short does not wait
//! behind what is long.

use super::{Shards, Turn};
use crate::io::{CallId, CallMail};
use crate::txn::{Counting, Progress, RangeCursor};
use crate::types::{At, Revision, ShardId};
use std::collections::VecDeque;

/// What another turn goes on with.
#[derive(Debug)]
pub enum Slice {
    Range {
        call: CallId,
        shard: ShardId,
        cursor: Box<RangeCursor>,
        counting: Counting,
    },
    /// The next piece of a shard's history.
    History {
        call: CallId,
        shard: ShardId,
        after: At,
        upto: Revision,
    },
}

impl Slice {
    fn kept_bytes(&self) -> usize {
        if let Slice::Range { cursor, .. } = self { cursor.kept_bytes() } else { 0 }
    }

    fn is_of(&self, of: CallId, on: ShardId) -> bool {
        let (Slice::Range { call, shard, .. } | Slice::History { call, shard, .. }) = self;
        (*call, *shard) == (of, on)
    }
}

#[derive(Debug, Default)]
pub struct Slices {
    waiting: VecDeque<Slice>,
    /// What those hold of what they have read.
    kept_bytes: usize,
    /// Of the ranges that hold much, the one that goes on while all hold too much.
    first: Option<(CallId, ShardId)>,
    /// How many more this turn has.
    left: usize,
}

impl Slices {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    #[cfg(test)]
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Whether this turn has a slice for work that may be long.
    pub fn has_left(&self) -> bool {
        self.left > 0
    }

    /// A whole slice was used.
    pub fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// Nobody wants it any more.
    pub fn drop_of(&mut self, call: CallId, shard: ShardId) {
        self.waiting.retain(|slice| !slice.is_of(call, shard));
        self.kept_bytes = self.waiting.iter().map(Slice::kept_bytes).sum();
        self.first.take_if(|first| *first == (call, shard));
    }

    fn push(&mut self, slice: Slice) {
        self.kept_bytes += slice.kept_bytes();
        self.waiting.push_back(slice);
    }

    fn pop(&mut self) -> Option<Slice> {
        let slice = self.waiting.pop_front()?;
        self.kept_bytes -= slice.kept_bytes();
        assert!(!self.waiting.is_empty() || self.kept_bytes == 0, "what slices hold is counted as they wait");
        Some(slice)
    }

    /// Whether the slice is to wait until others are done, whose memory it would add to: where all together hold
    /// too much, those that hold much go on one after another.
    fn is_held_back(&mut self, slice: &Slice, bytes_max: usize) -> bool {
        let bytes = slice.kept_bytes();
        if bytes <= bytes_max / READS_MUCH || self.kept_bytes + bytes <= bytes_max {
            return false;
        }
        let (Slice::Range { call, shard, .. } | Slice::History { call, shard, .. }) = slice;
        *self.first.get_or_insert((*call, *shard)) != (*call, *shard)
    }
}

impl Shards {
    /// As much as this turn has room for now, the rest in later turns.
    pub fn slice(&mut self, turn: &mut Turn, slice: Slice) {
        if self.slices.has_left() || is_short(&slice) {
            self.take_slice(turn, slice);
        } else {
            self.slices.push(slice);
        }
    }

    /// Whether a piece of history is to be given, of what may have settled meanwhile.
    pub fn gives_history(&self) -> bool {
        self.slices.waiting.iter().any(|slice| matches!(slice, Slice::History { .. }))
    }

    pub fn on_range_unwanted(&mut self, turn: &mut Turn, call: CallId, shard: ShardId) {
        turn.counters.paths.range_unwanted += 1;
        self.slices.drop_of(call, shard);
    }

    /// Goes on with what is under way.
    pub fn take_slices(&mut self, turn: &mut Turn) {
        self.slices.left = turn.settings.bounds.slices_per_turn;
        for _ in 0..self.slices.waiting.len() {
            if !self.slices.has_left() {
                return;
            }
            let Some(slice) = self.slices.pop() else { return };
            if self.slices.is_held_back(&slice, turn.settings.bounds.reads_bytes_max) {
                self.slices.push(slice);
            } else {
                self.take_slice(turn, slice);
            }
        }
    }

    fn take_slice(&mut self, turn: &mut Turn, slice: Slice) {
        match slice {
            Slice::Range { call, shard, mut cursor, counting } => {
                let store = &self.of[&shard].shard.store;
                let part = match cursor.step(store, turn.settings.slice, counting) {
                    Progress::Unfinished => {
                        self.slices.spend();
                        let bytes = cursor.kept_bytes();
                        turn.counters.paths.range_sliced += 1;
                        self.slices.push(Slice::Range { call, shard, cursor, counting });
                        return turn.send(call.reactor, CallMail::RangeGoesOn { call, shard, bytes });
                    }
                    Progress::Done => Some(cursor.into_part()),
                    Progress::Compacted => None,
                };
                self.slices.first.take_if(|first| *first == (call, shard));
                turn.send(call.reactor, CallMail::Ranged { call, shard, part });
            }
            Slice::History { call, shard, after, upto } => {
                self.slices.spend();
                self.give_history(turn, call, shard, after, upto);
            }
        }
    }
}

/// The part of what all may hold that is much for one: about what one slice reads.
const READS_MUCH: usize = 512;

fn is_short(slice: &Slice) -> bool {
    matches!(slice, Slice::Range { cursor, .. } if cursor.is_short())
}
