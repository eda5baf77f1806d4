//! Reading protobuf's wire format out of a message without copying it.
//!
//! A message is a run of fields: a varint tag (`number << 3 | type`), then a varint (type 0), eight bytes
//! (1), a varint length and that many bytes (2), a group up to its closing tag (3, 4) or four bytes (5).
//! What counts as malformed is Go's decision, not prost's, because etcd's clients test against Go: a known
//! field of an unexpected type is skipped like an unknown one, and groups may be nested 10,000 deep.

use bytes::Bytes;

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Wire,
    /// Groups nested deeper than Go's protobuf reads.
    Depth,
    /// A string that is not UTF-8.
    Utf8,
    /// A transaction larger or deeper than any that could pass the checks.
    TooManyOps,
}

/// What a field holds; the bytes of a length-delimited one where they are in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValue<'a> {
    Varint(u64),
    Len(&'a [u8]),
    /// Fixed-width numbers and groups: no field of etcd's messages is of these types.
    Other,
}

/// The limit of Go's protobuf.
const GROUP_DEPTH_MAX: usize = 10_000;
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// The fields of one message, or of a message inside it.
pub(super) struct FieldReader<'a> {
    message: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    pub fn of(message: &'a Bytes) -> FieldReader<'a> {
        FieldReader { message, rest: message }
    }

    /// The fields of an embedded message.
    pub fn inside(&self, embedded: &'a [u8]) -> FieldReader<'a> {
        FieldReader { message: self.message, rest: embedded }
    }

    /// The bytes of a field, sharing the message's memory.
    pub fn share(&self, bytes: &'a [u8]) -> Bytes {
        self.message.slice_ref(bytes)
    }

    /// The next field's number and value, or nothing at the end.
    #[inline(always)] // Into each message's loop: otherwise every value takes a way through memory.
    pub fn next(&mut self) -> Result<Option<(u32, FieldValue<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = self.tag()?;
        let value = match kind {
            0 => FieldValue::Varint(self.varint()?),
            2 => FieldValue::Len(self.delimited()?),
            1 | 3 | 5 => {
                self.skip_other(number, kind)?;
                FieldValue::Other
            }
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
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
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
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7F) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(Malformed::Wire);
            }
            value |= u64::from(byte & 0x7F) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(Malformed::Wire)
    }

    #[inline]
    fn delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Wire)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Wire)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or(Malformed::Wire)?;
        Ok(())
    }

    /// Skips a fixed-width number, or a group up to its closing tag.
    #[cold]
    fn skip_other(&mut self, number: u32, kind: u8) -> Result<(), Malformed> {
        match kind {
            1 => return self.skip(8),
            5 => return self.skip(4),
            _ => {}
        }
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, kind) = self.tag()?;
            match kind {
                0 => _ = self.varint()?,
                1 => self.skip(8)?,
                2 => _ = self.delimited()?,
                3 if open.len() == GROUP_DEPTH_MAX => return Err(Malformed::Depth),
                3 => open.push(number),
                4 if number == innermost => _ = open.pop(),
                5 => self.skip(4)?,
                _ => return Err(Malformed::Wire),
            }
        }
        Ok(())
    }
}
