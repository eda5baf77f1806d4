//! Reading protobuf's wire format out of a message without copying it.
//!
//! A message is a run of fields: a varint tag (`number << 3 | type`), then a varint (type 0), eight bytes
//! (1), a varint length and that many bytes (2), a group up to its closing tag (3, 4) or four bytes (5).
//! What counts as malformed is Go's decision, not prost's, because etcd's clients test against Go: a known
//! field of an unexpected type is skipped like an unknown one, and groups may be nested 10,000 deep.

use bytes::Bytes;
use std::ops::Range;

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Wire,
    /// Groups nested deeper than Go's protobuf reads.
    Depth,
    /// A string that is not UTF-8, with the full name of its field.
    Utf8(&'static str),
    /// A transaction larger or deeper than any that could pass the checks.
    TooManyOps,
}

/// What a field holds; the bytes of a length-delimited one as their place in the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Varint(u64),
    Len(Range<usize>),
    /// Fixed-width numbers and groups: no field of etcd's messages is of these types.
    Other,
}

/// The limit of Go's protobuf.
const GROUP_DEPTH_MAX: usize = 10_000;
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// The fields of one message, or of a message inside it.
pub(super) struct Fields<'a> {
    message: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    pub fn of(message: &'a Bytes) -> Fields<'a> {
        Fields { message, at: 0, end: message.len() }
    }

    /// The fields of an embedded message.
    pub fn inside(&self, span: Range<usize>) -> Fields<'a> {
        Fields { message: self.message, at: span.start, end: span.end }
    }

    /// The bytes of a field, sharing the message's memory.
    pub fn slice(&self, span: Range<usize>) -> Bytes {
        self.message.slice(span)
    }

    pub fn raw(&self, span: Range<usize>) -> &'a [u8] {
        &self.message[span]
    }

    /// The next field's number and value, or nothing at the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<(u32, Value)>, Malformed> {
        if self.at == self.end {
            return Ok(None);
        }
        let (number, kind) = self.tag()?;
        let value = match kind {
            0 => Value::Varint(self.varint()?),
            2 => Value::Len(self.span()?),
            1 => self.skip(8)?,
            5 => self.skip(4)?,
            3 => self.skip_group(number)?,
            _ => return Err(Malformed::Wire),
        };
        Ok(Some((number, value)))
    }

    /// Checks what is left and drops it.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// The next of a run of packed varints, or nothing at the end.
    pub fn packed(&mut self) -> Result<Option<u64>, Malformed> {
        if self.at == self.end { Ok(None) } else { self.varint().map(Some) }
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(Malformed::Wire);
        }
        Ok((number as u32, (tag & 7) as u8))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let rest = &self.message[self.at..self.end];
        match rest.first() {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let rest = &self.message[self.at..self.end];
        let mut value = 0u64;
        for (i, &byte) in rest.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(Malformed::Wire);
            }
            value |= u64::from(byte & 0x7F) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(Malformed::Wire)
    }

    #[inline]
    fn span(&mut self) -> Result<Range<usize>, Malformed> {
        let length = self.varint()?;
        if length > (self.end - self.at) as u64 {
            return Err(Malformed::Wire);
        }
        let start = self.at;
        self.at += length as usize;
        Ok(start..self.at)
    }

    fn skip(&mut self, bytes: usize) -> Result<Value, Malformed> {
        if bytes > self.end - self.at {
            return Err(Malformed::Wire);
        }
        self.at += bytes;
        Ok(Value::Other)
    }

    fn skip_group(&mut self, number: u32) -> Result<Value, Malformed> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, kind) = self.tag()?;
            match kind {
                0 => drop(self.varint()?),
                1 => drop(self.skip(8)?),
                2 => drop(self.span()?),
                3 if open.len() == GROUP_DEPTH_MAX => return Err(Malformed::Depth),
                3 => open.push(number),
                4 if number == innermost => drop(open.pop()),
                5 => drop(self.skip(4)?),
                _ => return Err(Malformed::Wire),
            }
        }
        Ok(Value::Other)
    }
}
