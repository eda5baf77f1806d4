//! Header blocks to fields.

use super::huffman;
use super::table::{STATIC, Table};
use crate::http2::head::{self, FieldName, Head};

/// The block breaks RFC 7541; the two tables no longer agree, so the connection is lost.
#[derive(Debug, PartialEq, Eq)]
pub struct CompressionError;

/// Integers of a block above this are no index, length or size that anybody could mean.
const INTEGER_MAX: u64 = 1 << 28;

/// One direction's decoder with its dynamic table.
pub struct Decoder {
    table: Table,
    /// What this end allows the other to set the table to.
    size_limit: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    pub fn new(size_limit: usize) -> Decoder {
        Decoder { table: Table::new(size_limit), size_limit, name: Vec::new(), value: Vec::new() }
    }

    /// Rises with each change of the dynamic table.
    pub fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// Decodes a whole block into `head`, which is cleared first. Returns whether every field was indexed:
    /// such a block left the table as it was, and says the same again until the table changes.
    pub fn decode(&mut self, block: &[u8], head: &mut Head) -> Result<bool, CompressionError> {
        head.clear();
        let mut rest = block;
        let (mut indexed, mut sizing) = (true, true);
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut rest, 7)?;
                self.indexed(index, head)?;
                sizing = false;
            } else if first & 0xE0 == 0x20 {
                let size = integer(&mut rest, 5)?;
                if !sizing || size > self.size_limit {
                    return Err(CompressionError);
                }
                self.table.resize(size);
                indexed = false;
            } else {
                let enter = first & 0x40 != 0;
                self.literal(&mut rest, enter, head)?;
                (sizing, indexed) = (false, false);
            }
        }
        self.shrink();
        Ok(indexed)
    }

    fn indexed(&self, index: usize, head: &mut Head) -> Result<(), CompressionError> {
        let place = index.checked_sub(1).ok_or(CompressionError)?;
        if let Some(entry) = STATIC.get(place) {
            head.push(entry.kind, true, entry.name.as_bytes(), entry.value.as_bytes());
        } else {
            let (entry, name, value) = self.table.get(place - STATIC.len()).ok_or(CompressionError)?;
            head.push(entry.kind, entry.valid, name, value);
        }
        Ok(())
    }

    fn literal(&mut self, rest: &mut &[u8], enter: bool, head: &mut Head) -> Result<(), CompressionError> {
        let index = integer(rest, if enter { 6 } else { 4 })?;
        let (kind, name_valid, name): (FieldName, bool, &[u8]) = match index {
            0 => {
                let name = string(rest, &mut self.name)?;
                (FieldName::of(name), head::is_field_name(name), name)
            }
            index => match STATIC.get(index - 1) {
                Some(entry) => (entry.kind, true, entry.name.as_bytes()),
                None => {
                    let (entry, name, _) =
                        self.table.get(index - 1 - STATIC.len()).ok_or(CompressionError)?;
                    // The entry may be evicted by the one that takes its name.
                    self.name.clear();
                    self.name.extend_from_slice(name);
                    (entry.kind, head::is_field_name(&self.name), &self.name)
                }
            },
        };
        let value = string(rest, &mut self.value)?;
        let valid = name_valid && head::is_field_value(value);
        head.push(kind, valid, name, value);
        if enter {
            self.table.insert(kind, valid, name, value);
        }
        Ok(())
    }

    /// Gives memory back: one long block must not keep it for the life of the connection.
    fn shrink(&mut self) {
        const KEEP: usize = 1024;
        for buffer in [&mut self.name, &mut self.value] {
            if buffer.capacity() > KEEP {
                *buffer = Vec::new();
            }
        }
    }
}

/// Reads an integer with a prefix of `prefix` bits (RFC 7541, 5.1).
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, CompressionError> {
    let mask = (1u8 << prefix) - 1;
    let (&first, mut after) = rest.split_first().ok_or(CompressionError)?;
    let mut number = u64::from(first & mask);
    if first & mask == mask {
        let mut shift = 0;
        loop {
            let (&byte, tail) = after.split_first().ok_or(CompressionError)?;
            after = tail;
            number += u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return Err(CompressionError);
            }
        }
    }
    if number > INTEGER_MAX {
        return Err(CompressionError);
    }
    *rest = after;
    Ok(number as usize)
}

/// Reads a string (RFC 7541, 5.2): lent from the block, or decoded into `buffer`.
fn string<'a, 'b: 'a>(rest: &mut &'b [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8], CompressionError> {
    let coded = rest.first().ok_or(CompressionError)? & 0x80 != 0;
    let len = integer(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(CompressionError)?;
    *rest = after;
    if !coded {
        return Ok(bytes);
    }
    buffer.clear();
    huffman::decode(bytes, buffer).map_err(|_| CompressionError)?;
    Ok(buffer)
}
