//! Messages too long for one step: written element by element, as their streams take them.
//!
//! gRPC says a message's length before its first byte, so the elements are measured first, in slices too. What
//! is written is let go of.

use super::{EVENTS, Header, Kv, counts};
use crate::api::{KeysOnly, RangeReply, Reply, WatchEvent, WatchReply};
use crate::limits::{LONG_MESSAGE_BYTES, LONG_MESSAGE_ELEMENT_BYTES};
use crate::types::{Event, KeyValue};
use crate::wire::sink::{Length, Message, Sink};
use std::vec::IntoIter;

/// A message of many elements: what stands before them, they themselves, and what stands behind.
pub struct Long {
    before: Vec<u8>,
    elements: Elements,
    behind: Vec<u8>,
    measured: usize,
    /// Bytes known and not written yet.
    left: usize,
    /// What the elements' row takes, however much of it is written.
    row_bytes: usize,
}

enum Elements {
    Pairs { field: u32, kvs: IntoIter<KeyValue>, keys_only: KeysOnly },
    Events(IntoIter<WatchEvent>),
}

/// Whether writing a reply takes too long for one step. Looks at no more than makes it long.
pub fn is_long(reply: &Reply) -> bool {
    match reply {
        Reply::Range(reply) => is_long_range(reply),
        Reply::DeleteRange(reply) => are_long(reply.prev_kvs.iter().map(pair_bytes)),
        _ => false,
    }
}

/// The same of the answer to a range.
pub fn is_long_range(reply: &RangeReply) -> bool {
    are_long(reply.kvs.iter().map(pair_bytes))
}

/// The same of a message of a Watch stream.
pub fn is_long_watch(reply: &WatchReply) -> bool {
    are_long(reply.events.iter().map(|event| {
        let of_event = match &event.event {
            Event::Put(kv) => pair_bytes(kv),
            Event::Delete { key, .. } => key.len(),
        };
        of_event + event.prev_kv.as_ref().map_or(0, pair_bytes)
    }))
}

fn pair_bytes(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

fn are_long(mut elements: impl Iterator<Item = usize>) -> bool {
    let mut bytes = 0;
    elements.any(|of_element| {
        bytes += LONG_MESSAGE_ELEMENT_BYTES + of_element;
        bytes > LONG_MESSAGE_BYTES
    })
}

impl Long {
    /// Of a reply that [`is_long`].
    pub fn of_reply(header: &Header, reply: Reply) -> Long {
        match reply {
            Reply::Range(mut reply) => {
                let (kvs, keys_only) = (std::mem::take(&mut reply.kvs).into_iter(), reply.keys_only);
                let mut before = vec![];
                before.message(1, &header.at(reply.revision));
                let mut behind = vec![];
                counts(&mut behind, &reply);
                Long::new(before, Elements::Pairs { field: 2, kvs, keys_only }, behind)
            }
            Reply::DeleteRange(mut reply) => {
                let kvs = std::mem::take(&mut reply.prev_kvs).into_iter();
                let mut before = vec![];
                super::delete_range(&mut before, header.at(reply.revision), &reply);
                Long::new(before, Elements::Pairs { field: 3, kvs, keys_only: KeysOnly::No }, vec![])
            }
            _ => unreachable!("other replies are short"),
        }
    }

    /// Of a message of a Watch stream.
    pub fn of_watch(header: &Header, mut reply: WatchReply) -> Long {
        let events = std::mem::take(&mut reply.events).into_iter();
        let mut before = vec![];
        super::Watched { header, reply: &reply }.fields(&mut before);
        Long::new(before, Elements::Events(events), vec![])
    }

    fn new(before: Vec<u8>, elements: Elements, behind: Vec<u8>) -> Long {
        let left = before.len() + behind.len();
        let row_bytes = match &elements {
            Elements::Pairs { kvs, .. } => size_of_val(kvs.as_slice()),
            Elements::Events(events) => size_of_val(events.as_slice()),
        };
        Long { before, elements, behind, measured: 0, left, row_bytes }
    }

    /// Measures so many elements more. The length of the whole, once it is known.
    pub fn measure(&mut self, elements: usize) -> Option<usize> {
        let upto = self.elements.len().min(self.measured.saturating_add(elements));
        self.left += match &self.elements {
            Elements::Pairs { field, kvs, keys_only } => {
                let pairs = kvs.as_slice()[self.measured..upto].iter();
                pairs.map(|kv| element_length(*field, &Kv { kv, keys_only: *keys_only })).sum::<usize>()
            }
            Elements::Events(events) => {
                let events = events.as_slice()[self.measured..upto].iter();
                events.map(|event| element_length(EVENTS, event)).sum()
            }
        };
        self.measured = upto;
        (upto == self.elements.len()).then_some(self.left)
    }

    /// Bytes that are known and not written.
    pub fn left(&self) -> usize {
        self.left
    }

    /// What it holds, of its own and of the store's.
    pub fn kept_bytes(&self) -> usize {
        self.row_bytes + self.left
    }

    /// Appends about so many bytes, by at most an element more; true with the last. All must be measured.
    pub fn write(&mut self, out: &mut Vec<u8>, bytes: usize) -> bool {
        let begin = out.len();
        out.append(&mut self.before);
        let mut done = false;
        while !done && out.len() - begin < bytes {
            done = !self.elements.write_next(out);
        }
        if done {
            out.append(&mut self.behind);
        }
        self.left =
            self.left.checked_sub(out.len() - begin).expect("a message is as long as it was measured");
        assert!(!done || self.left == 0, "a message is as long as it was measured");
        done
    }
}

impl Elements {
    fn len(&self) -> usize {
        match self {
            Elements::Pairs { kvs, .. } => kvs.len(),
            Elements::Events(events) => events.len(),
        }
    }

    /// False where none is left.
    fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Elements::Pairs { field, kvs, keys_only } => {
                let next = kvs.next();
                next.inspect(|kv| out.message(*field, &Kv { kv, keys_only: *keys_only })).is_some()
            }
            Elements::Events(events) => events.next().inspect(|event| out.message(EVENTS, event)).is_some(),
        }
    }
}

fn element_length(field: u32, element: &impl Message) -> usize {
    let mut length = Length::default();
    length.message(field, element);
    length.bytes()
}
