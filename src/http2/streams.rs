//! The streams of one connection that are open or half closed.
//!
//! They lie in slots, which callers name with the stream ([`StreamId`]), so that only frames from the wire
//! need a search. Numbers of streams only rise, so the search is in a sorted row: a guess counted from its
//! newest end, which is right while clients open streams without gaps, and else a binary search. No choice
//! of numbers makes it slow, and nothing needs hashing.

use crate::http2::StreamId;
use crate::types::Time;
use std::collections::VecDeque;

/// What this end has sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    Head,
    /// END_STREAM has been sent, or stands at the end of the queue.
    End,
}

/// What follows the bytes of a queue.
#[derive(Debug)]
pub enum Finish {
    Open,
    End,
    Trailers(u8, String),
}

/// Bytes of DATA that the windows do not let through yet.
#[derive(Debug)]
pub struct Queue {
    pub bytes: Vec<u8>,
    pub at: usize,
    pub finish: Finish,
    /// Whether a window has blocked it: a source that pulls then waits to be told that it may send.
    pub blocked: bool,
    /// Whether the stream stands in the row of those that wait for the connection's window.
    pub waiting: bool,
}

impl Queue {
    pub fn new() -> Box<Queue> {
        Box::new(Queue { bytes: Vec::new(), at: 0, finish: Finish::Open, blocked: false, waiting: false })
    }
    pub fn len(&self) -> usize {
        self.bytes.len() - self.at
    }
}

#[derive(Debug)]
pub struct StreamState {
    /// The stream's number; 0 in a free slot.
    pub id: u32,
    pub begun: Time,
    pub sent: Sent,
    pub head_received: bool,
    pub end_received: bool,
    /// How many bytes the other end may still send.
    pub receive_window: i64,
    /// How many bytes were consumed and not yet given back to the window.
    pub window_owed: u32,
    pub send_window: i64,
    /// How many bytes `content-length` still promises.
    pub content_left: Option<u64>,
    pub queue: Option<Box<Queue>>,
}

#[derive(Default)]
pub struct StreamTable {
    slots: Vec<StreamState>,
    free: Vec<u32>,
    /// (number, slot), rising; the slot is [`GONE`] where the stream is.
    row: VecDeque<(u32, u32)>,
    gone: usize,
}

const GONE: u32 = u32::MAX;
/// A connection without streams gives the memory of more slots than this back.
const KEEP_SLOTS: usize = 1024;

impl StreamTable {
    pub fn len(&self) -> usize {
        self.row.len() - self.gone
    }

    /// Adds a stream with a number above all before.
    pub fn insert(&mut self, stream: StreamState) -> StreamId {
        assert!(self.row.back().is_none_or(|&(last, _)| last < stream.id), "numbers of streams rise");
        let number = stream.id;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                (self.slots.len() - 1) as u32
            }
        };
        self.row.push_back((number, slot));
        StreamId { number, slot }
    }

    pub fn get(&self, stream: StreamId) -> Option<&StreamState> {
        self.slots.get(stream.slot as usize).filter(|at| at.id == stream.number)
    }

    pub fn get_mut(&mut self, stream: StreamId) -> Option<&mut StreamState> {
        self.slots.get_mut(stream.slot as usize).filter(|at| at.id == stream.number)
    }

    /// The stream in a slot that is known to be in use.
    pub fn at(&mut self, slot: u32) -> &mut StreamState {
        &mut self.slots[slot as usize]
    }

    pub fn find(&self, number: u32) -> Option<StreamId> {
        let (_, slot) = self.row[self.place(number)?];
        (slot != GONE).then_some(StreamId { number, slot })
    }

    fn place(&self, number: u32) -> Option<usize> {
        let &(newest, _) = self.row.back()?;
        let from_newest = newest.checked_sub(number)? as usize / 2;
        let guess = self.row.len().checked_sub(from_newest + 1);
        if let Some(guess) = guess
            && self.row[guess].0 == number
        {
            return Some(guess);
        }
        self.row.binary_search_by_key(&number, |&(id, _)| id).ok()
    }

    pub fn remove(&mut self, stream: StreamId) -> Option<StreamState> {
        self.get(stream)?;
        let place = self.place(stream.number).expect("a stream in a slot stands in the row");
        self.row[place].1 = GONE;
        self.gone += 1;
        while self.row.front().is_some_and(|&(_, slot)| slot == GONE) {
            self.row.pop_front();
            self.gone -= 1;
        }
        if self.gone > self.row.len() / 2 + 32 {
            self.row.retain(|&(_, slot)| slot != GONE);
            self.gone = 0;
        }
        let free = StreamState { id: 0, queue: None, ..self.slots[stream.slot as usize] };
        let removed = std::mem::replace(&mut self.slots[stream.slot as usize], free);
        self.free.push(stream.slot);
        if self.row.is_empty() && self.slots.len() > KEEP_SLOTS {
            *self = StreamTable::default();
        }
        Some(removed)
    }

    /// The streams that are there, to change all of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut StreamState)> {
        (0..).zip(&mut self.slots).filter(|(_, stream)| stream.id != 0)
    }

    #[cfg(test)]
    pub fn row_len(&self) -> usize {
        self.row.len()
    }
}

/// The last few streams of a kind, for telling what a late frame on a closed stream means.
#[derive(Default)]
pub struct Recent {
    numbers: [u32; 32],
    next: usize,
}

impl Recent {
    pub fn push(&mut self, number: u32) {
        self.numbers[self.next] = number;
        self.next = (self.next + 1) % self.numbers.len();
    }
    pub fn contains(&self, number: u32) -> bool {
        number != 0 && self.numbers.contains(&number)
    }
}
