//! Fields to header blocks.

use super::huffman;
use super::table::{STATIC, Table};
use crate::http2::head::FieldName;

/// Whether a field is worth a place in the dynamic table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// The field will come again, as it is.
    Enter,
    Without,
}

/// One direction's encoder with its dynamic table.
pub struct Encoder {
    table: Table,
    size_limit: usize,
    /// A change of the table's size that the other end has not been told: the smallest since, and the last.
    resized: Option<(usize, usize)>,
}

impl Encoder {
    /// `size_limit` is what this end spends on the table; RFC 7541 begins at 4,096 unless told otherwise.
    pub fn new(size_limit: usize) -> Encoder {
        Encoder { table: Table::new(size_limit), size_limit, resized: None }
    }

    /// Rises whenever the same fields might be written differently from before.
    pub fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// The other end's SETTINGS_HEADER_TABLE_SIZE.
    pub fn limit(&mut self, size: usize) {
        let size = size.min(self.size_limit);
        if size == self.table.size_max() && self.resized.is_none() {
            return;
        }
        let smallest = self.resized.map_or(size, |(smallest, _)| smallest.min(size));
        self.resized = Some((smallest, size));
        self.table.resize(size);
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.resized.take() {
            if smallest < last {
                integer(out, 0x20, 5, smallest);
            }
            integer(out, 0x20, 5, last);
        }
    }

    /// Appends one field to the block.
    pub fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing) {
        let (whole, named) = self.find(name, value);
        if let Some(index) = whole {
            return integer(out, 0x80, 7, index);
        }
        match indexing {
            Indexing::Enter => integer(out, 0x40, 6, named.unwrap_or(0)),
            Indexing::Without => integer(out, 0x00, 4, named.unwrap_or(0)),
        }
        if named.is_none() {
            string(out, name);
        }
        string(out, value);
        if indexing == Indexing::Enter {
            self.table.insert(FieldName::Other, true, name, value);
        }
    }

    /// The index of name and value, and an index of the name.
    fn find(&self, name: &[u8], value: &[u8]) -> (Option<usize>, Option<usize>) {
        let mut named = None;
        for (place, entry) in STATIC.iter().enumerate() {
            if entry.name.as_bytes() == name {
                if entry.value.as_bytes() == value {
                    return (Some(place + 1), None);
                }
                named = named.or(Some(place + 1));
            }
        }
        for index in 0..self.table.len() {
            let (_, entered, with) = self.table.get(index).expect("the index is below the length");
            if entered == name {
                let index = STATIC.len() + 1 + index;
                if with == value {
                    return (Some(index), None);
                }
                named = named.or(Some(index));
            }
        }
        (None, named)
    }
}

fn integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, number: usize) {
    let mask = (1usize << prefix) - 1;
    if number < mask {
        return out.push(pattern | number as u8);
    }
    out.push(pattern | mask as u8);
    let mut left = number - mask;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn string(out: &mut Vec<u8>, plain: &[u8]) {
    let coded = huffman::coded_len(plain);
    if coded < plain.len() {
        integer(out, 0x80, 7, coded);
        huffman::encode(plain, out);
    } else {
        integer(out, 0x00, 7, plain.len());
        out.extend_from_slice(plain);
    }
}
