//! Messages too long for one step: written element by element, as their streams take them.
//!
//! gRPC says a message's length before its first byte, and protobuf that of each message inside it, so the
//! elements are measured first, in slices too. What is written is let go of.

use super::{EVENTS, Header, HeaderOf, Kv, counts, op_field};
use crate::api::{DeleteRangeReply, KeysOnly, OpReply, RangeReply, Reply, TxnReply, WatchEvent, WatchReply};
use crate::limits::LONG_MESSAGE_ELEMENT_BYTES;
use crate::types::{Event, KeyValue, Revision};
use crate::wire::sink::{Length, ProtoMessage, Sink};
use std::collections::VecDeque;
use std::vec::IntoIter;

/// A message of many elements: rows of them, and what stands between.
pub struct LongMessage {
    parts: VecDeque<MessagePart>,
    /// The part that is being measured, and how many of its elements are.
    measuring: usize,
    measured: usize,
    /// How many bytes are known and not written yet.
    left: usize,
    /// The memory that the elements' rows take: each counts as a whole until its last element is written.
    row_bytes: usize,
}

enum MessagePart {
    Bytes(Vec<u8>),
    /// The head of an embedded message, which ends before the part of that number.
    Head {
        field: u32,
        end: usize,
    },
    Row {
        elements: Elements,
        row_bytes: usize,
        bytes: usize,
    },
}

enum Elements {
    Pairs { field: u32, kvs: IntoIter<KeyValue>, keys_only: KeysOnly },
    Events(IntoIter<WatchEvent>),
}

/// About how much there is to write of a reply, which is looked at no further than to be more than
/// `bytes_max`.
pub fn weight(reply: &Reply, bytes_max: usize) -> usize {
    match reply {
        Reply::Range(reply) => sum(reply.kvs.iter().map(pair_bytes), bytes_max),
        Reply::DeleteRange(reply) => sum(reply.prev_kvs.iter().map(pair_bytes), bytes_max),
        Reply::Txn(reply) => txn_weight(reply, bytes_max),
        _ => 0,
    }
}

/// The weight of a transaction's reply; see `weight`.
pub fn txn_weight(reply: &TxnReply, bytes_max: usize) -> usize {
    let responses = reply.responses.iter().map(|response| match response {
        OpReply::Range(reply) => sum(reply.kvs.iter().map(pair_bytes), bytes_max),
        OpReply::DeleteRange(reply) => sum(reply.prev_kvs.iter().map(pair_bytes), bytes_max),
        OpReply::Put(reply) => reply.prev_kv.as_ref().map_or(0, pair_bytes),
        OpReply::Txn(nested) => txn_weight(nested, bytes_max),
    });
    sum(responses, bytes_max)
}

/// Whether writing a reply takes too long for one step.
pub fn is_long(reply: &Reply, bytes_max: usize) -> bool {
    weight(reply, bytes_max) > bytes_max
}

/// Whether writing the answer to a range takes too long for one step.
pub fn is_long_range(reply: &RangeReply, bytes_max: usize) -> bool {
    sum(reply.kvs.iter().map(pair_bytes), bytes_max) > bytes_max
}

/// Whether writing a message of a Watch stream takes too long for one step.
pub fn is_long_watch(reply: &WatchReply, bytes_max: usize) -> bool {
    let events = reply.events.iter().map(|event| {
        let of_event = match &event.event {
            Event::Put(kv) => pair_bytes(kv),
            Event::Delete { key, .. } => key.len(),
        };
        of_event + event.prev_kv.as_ref().map_or(0, pair_bytes)
    });
    sum(events, bytes_max) > bytes_max
}

fn pair_bytes(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

fn sum(mut elements: impl Iterator<Item = usize>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    while bytes <= bytes_max
        && let Some(of_element) = elements.next()
    {
        bytes += LONG_MESSAGE_ELEMENT_BYTES + of_element;
    }
    bytes
}

impl LongMessage {
    /// Makes a long message of a reply.
    pub fn of_reply(header: &Header, reply: Reply) -> LongMessage {
        let mut parts = vec![];
        match reply {
            Reply::Range(reply) => range_parts(&mut parts, header.at(reply.revision), reply),
            Reply::DeleteRange(reply) => delete_parts(&mut parts, header.at(reply.revision), reply),
            Reply::Txn(reply) => txn_parts(&mut parts, header.at(reply.revision), reply),
            _ => unreachable!("other replies are short"),
        }
        LongMessage::new(parts)
    }

    /// Makes a long message of a Watch stream's reply.
    pub fn of_watch(header: &Header, mut reply: WatchReply) -> LongMessage {
        let events = std::mem::take(&mut reply.events).into_iter();
        let mut before = vec![];
        super::Watched { header, reply: &reply }.fields(&mut before);
        LongMessage::new(vec![MessagePart::Bytes(before), MessagePart::row(Elements::Events(events))])
    }

    fn new(parts: Vec<MessagePart>) -> LongMessage {
        let mut long = LongMessage { parts: parts.into(), measuring: 0, measured: 0, left: 0, row_bytes: 0 };
        for part in &long.parts {
            match part {
                MessagePart::Bytes(bytes) => long.left += bytes.len(),
                MessagePart::Head { .. } => {}
                MessagePart::Row { row_bytes, .. } => long.row_bytes += row_bytes,
            }
        }
        long
    }

    /// Measures up to `elements` more elements. Returns the length of the whole once it is known.
    pub fn measure(&mut self, mut elements: usize) -> Option<usize> {
        while let Some(part) = self.parts.get_mut(self.measuring) {
            if let MessagePart::Row { elements: row, bytes, .. } = part {
                let upto = row.len().min(self.measured.saturating_add(elements));
                let more = row.length(self.measured, upto);
                (*bytes, self.left) = (*bytes + more, self.left + more);
                elements -= upto - self.measured;
                self.measured = upto;
                if upto < row.len() {
                    return None;
                }
            }
            (self.measuring, self.measured) = (self.measuring + 1, 0);
        }
        self.write_heads();
        Some(self.left)
    }

    /// Writes the heads of embedded messages, once all is measured and so their lengths are known.
    fn write_heads(&mut self) {
        // What stands from each part on.
        let mut rest = vec![0; self.parts.len() + 1];
        for (place, part) in self.parts.iter_mut().enumerate().rev() {
            if let MessagePart::Head { field, end } = *part {
                let mut head = vec![];
                head.tag(field, 2);
                head.varint((rest[place + 1] - rest[end]) as u64);
                self.left += head.len();
                *part = MessagePart::Bytes(head);
            }
            rest[place] = rest[place + 1] + part.bytes();
        }
    }

    /// How many bytes are known and not written.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Bytes it holds, of its own memory and of the store's.
    pub fn kept_bytes(&self) -> usize {
        self.row_bytes + self.left
    }

    /// Appends about `bytes` bytes, by at most an element more. Returns whether that was the last. All must be
    /// measured.
    pub fn write(&mut self, out: &mut Vec<u8>, bytes: usize) -> bool {
        let begin = out.len();
        while out.len() - begin < bytes
            && let Some(part) = self.parts.front_mut()
        {
            let goes_on = match part {
                MessagePart::Bytes(bytes) => {
                    out.append(bytes);
                    false
                }
                MessagePart::Row { elements, row_bytes, .. } => {
                    let goes_on = elements.write_next(out);
                    self.row_bytes -= if goes_on { 0 } else { *row_bytes };
                    goes_on
                }
                MessagePart::Head { .. } => unreachable!("heads are written when all is measured"),
            };
            if !goes_on {
                self.parts.pop_front();
            }
        }
        self.left =
            self.left.checked_sub(out.len() - begin).expect("a message is as long as it was measured");
        assert!(!self.parts.is_empty() || self.left == 0, "a message is as long as it was measured");
        if self.left == 0 {
            self.parts.clear();
            self.row_bytes = 0;
        }
        self.left == 0
    }
}

fn range_parts(parts: &mut Vec<MessagePart>, header: HeaderOf, mut reply: RangeReply) {
    let (kvs, keys_only) = (std::mem::take(&mut reply.kvs).into_iter(), reply.keys_only);
    let (mut before, mut behind) = (vec![], vec![]);
    before.message(1, &header);
    counts(&mut behind, &reply);
    let row = MessagePart::row(Elements::Pairs { field: 2, kvs, keys_only });
    parts.extend([MessagePart::Bytes(before), row, MessagePart::Bytes(behind)]);
}

fn delete_parts(parts: &mut Vec<MessagePart>, header: HeaderOf, mut reply: DeleteRangeReply) {
    let kvs = std::mem::take(&mut reply.prev_kvs).into_iter();
    let mut before = vec![];
    super::delete_range(&mut before, header, &reply);
    let row = MessagePart::row(Elements::Pairs { field: 3, kvs, keys_only: KeysOnly::No });
    parts.extend([MessagePart::Bytes(before), row]);
}

fn txn_parts(parts: &mut Vec<MessagePart>, header: HeaderOf, mut reply: TxnReply) {
    let responses = std::mem::take(&mut reply.responses);
    let mut before = vec![];
    super::txn(&mut before, header, &reply);
    parts.push(MessagePart::Bytes(before));
    for response in responses {
        // The response, and in it the one of its kind.
        let heads = parts.len();
        parts.extend([3, op_field(&response)].map(|field| MessagePart::Head { field, end: 0 }));
        match response {
            OpReply::Range(reply) => range_parts(parts, HeaderOf::inner(reply.revision), reply),
            OpReply::DeleteRange(reply) => delete_parts(parts, HeaderOf::inner(reply.revision), reply),
            OpReply::Txn(reply) => txn_parts(parts, HeaderOf::inner(Revision::NONE), reply),
            OpReply::Put(reply) => {
                let mut bytes = vec![];
                super::put(&mut bytes, HeaderOf::inner(reply.revision), &reply);
                parts.push(MessagePart::Bytes(bytes));
            }
        }
        let behind = parts.len();
        for part in &mut parts[heads..heads + 2] {
            let MessagePart::Head { end, .. } = part else { unreachable!("they were put there above") };
            *end = behind;
        }
    }
}

impl MessagePart {
    fn row(elements: Elements) -> MessagePart {
        MessagePart::Row { row_bytes: elements.row_bytes(), elements, bytes: 0 }
    }

    /// How many bytes it takes, once it is measured.
    fn bytes(&self) -> usize {
        match self {
            MessagePart::Bytes(bytes) => bytes.len(),
            MessagePart::Row { bytes, .. } => *bytes,
            MessagePart::Head { .. } => 0,
        }
    }
}

impl Elements {
    fn len(&self) -> usize {
        match self {
            Elements::Pairs { kvs, .. } => kvs.len(),
            Elements::Events(events) => events.len(),
        }
    }

    fn row_bytes(&self) -> usize {
        match self {
            Elements::Pairs { kvs, .. } => size_of_val(kvs.as_slice()),
            Elements::Events(events) => size_of_val(events.as_slice()),
        }
    }

    /// How many bytes the elements between two places take.
    fn length(&self, from: usize, upto: usize) -> usize {
        match self {
            Elements::Pairs { field, kvs, keys_only } => {
                let pairs = kvs.as_slice()[from..upto].iter();
                pairs.map(|kv| element_length(*field, &Kv { kv, keys_only: *keys_only })).sum()
            }
            Elements::Events(events) => {
                events.as_slice()[from..upto].iter().map(|event| element_length(EVENTS, event)).sum()
            }
        }
    }

    /// Writes the next element. Returns `false` where none is left.
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

fn element_length(field: u32, element: &impl ProtoMessage) -> usize {
    let mut length = Length::default();
    length.message(field, element);
    length.bytes()
}
