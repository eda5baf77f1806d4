//! The two tables of RFC 7541: the static one (appendix A) and the dynamic one (section 4).

use crate::http2::head::FieldName;
use std::collections::VecDeque;

/// What each entry of a dynamic table costs beside its bytes (RFC 7541, 4.1).
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

pub struct StaticEntry {
    pub kind: FieldName,
    pub name: &'static str,
    pub value: &'static str,
}

const fn entry(kind: FieldName, name: &'static str, value: &'static str) -> StaticEntry {
    StaticEntry { kind, name, value }
}

pub static STATIC: [StaticEntry; 61] = [
    entry(FieldName::Authority, ":authority", ""),
    entry(FieldName::Method, ":method", "GET"),
    entry(FieldName::Method, ":method", "POST"),
    entry(FieldName::Path, ":path", "/"),
    entry(FieldName::Path, ":path", "/index.html"),
    entry(FieldName::Scheme, ":scheme", "http"),
    entry(FieldName::Scheme, ":scheme", "https"),
    entry(FieldName::Status, ":status", "200"),
    entry(FieldName::Status, ":status", "204"),
    entry(FieldName::Status, ":status", "206"),
    entry(FieldName::Status, ":status", "304"),
    entry(FieldName::Status, ":status", "400"),
    entry(FieldName::Status, ":status", "404"),
    entry(FieldName::Status, ":status", "500"),
    entry(FieldName::Other, "accept-charset", ""),
    entry(FieldName::Other, "accept-encoding", "gzip, deflate"),
    entry(FieldName::Other, "accept-language", ""),
    entry(FieldName::Other, "accept-ranges", ""),
    entry(FieldName::Other, "accept", ""),
    entry(FieldName::Other, "access-control-allow-origin", ""),
    entry(FieldName::Other, "age", ""),
    entry(FieldName::Other, "allow", ""),
    entry(FieldName::Authorization, "authorization", ""),
    entry(FieldName::Other, "cache-control", ""),
    entry(FieldName::Other, "content-disposition", ""),
    entry(FieldName::Other, "content-encoding", ""),
    entry(FieldName::Other, "content-language", ""),
    entry(FieldName::ContentLength, "content-length", ""),
    entry(FieldName::Other, "content-location", ""),
    entry(FieldName::Other, "content-range", ""),
    entry(FieldName::ContentType, "content-type", ""),
    entry(FieldName::Other, "cookie", ""),
    entry(FieldName::Other, "date", ""),
    entry(FieldName::Other, "etag", ""),
    entry(FieldName::Other, "expect", ""),
    entry(FieldName::Other, "expires", ""),
    entry(FieldName::Other, "from", ""),
    entry(FieldName::Other, "host", ""),
    entry(FieldName::Other, "if-match", ""),
    entry(FieldName::Other, "if-modified-since", ""),
    entry(FieldName::Other, "if-none-match", ""),
    entry(FieldName::Other, "if-range", ""),
    entry(FieldName::Other, "if-unmodified-since", ""),
    entry(FieldName::Other, "last-modified", ""),
    entry(FieldName::Other, "link", ""),
    entry(FieldName::Other, "location", ""),
    entry(FieldName::Other, "max-forwards", ""),
    entry(FieldName::Other, "proxy-authenticate", ""),
    entry(FieldName::Other, "proxy-authorization", ""),
    entry(FieldName::Other, "range", ""),
    entry(FieldName::Other, "referer", ""),
    entry(FieldName::Other, "refresh", ""),
    entry(FieldName::Other, "retry-after", ""),
    entry(FieldName::Other, "server", ""),
    entry(FieldName::Other, "set-cookie", ""),
    entry(FieldName::Other, "strict-transport-security", ""),
    entry(FieldName::Other, "transfer-encoding", ""),
    entry(FieldName::UserAgent, "user-agent", ""),
    entry(FieldName::Other, "vary", ""),
    entry(FieldName::Other, "via", ""),
    entry(FieldName::Other, "www-authenticate", ""),
];

/// One entry of the dynamic table. What it takes to judge a field is found once, when it is entered.
#[derive(Clone, Copy)]
pub struct TableEntry {
    start: usize,
    name_len: usize,
    value_len: usize,
    pub kind: FieldName,
    /// Whether name and value consist of octets a field may have.
    pub valid: bool,
}

impl TableEntry {
    fn size(&self) -> usize {
        self.name_len + self.value_len + ENTRY_OVERHEAD_BYTES
    }
}

/// The dynamic table. The bytes of its entries lie one after the other in one buffer, oldest first, which
/// is moved down when its end is reached: entering a field allocates nothing once the buffer has grown to
/// twice the table's size.
pub struct Table {
    bytes: Vec<u8>,
    entries: VecDeque<TableEntry>,
    size: usize,
    size_max: usize,
    /// Rises with each change: what was decoded under one generation means the same only in that one.
    generation: u64,
}

impl Table {
    pub fn new(size_max: usize) -> Table {
        Table { bytes: Vec::new(), entries: VecDeque::new(), size: 0, size_max, generation: 0 }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn size_max(&self) -> usize {
        self.size_max
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry entered `index` entries ago, its name and its value.
    pub fn get(&self, index: usize) -> Option<(TableEntry, &[u8], &[u8])> {
        let place = self.entries.len().checked_sub(index + 1)?;
        let entry = self.entries[place];
        let (name, value) =
            self.bytes[entry.start..][..entry.name_len + entry.value_len].split_at(entry.name_len);
        Some((entry, name, value))
    }

    pub fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.generation += 1;
        self.evict(size_max);
    }

    /// Enters a field. One larger than the table empties it, as RFC 7541 4.4 has it.
    pub fn insert(&mut self, kind: FieldName, valid: bool, name: &[u8], value: &[u8]) {
        let need = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        if need > self.size_max {
            self.generation += u64::from(!self.entries.is_empty());
            return self.evict(0);
        }
        self.generation += 1;
        self.evict(self.size_max - need);
        if self.bytes.len() + name.len() + value.len() > 2 * self.size_max {
            self.move_down();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push_back(TableEntry {
            start,
            name_len: name.len(),
            value_len: value.len(),
            kind,
            valid,
        });
        self.size += need;
        assert!(self.size <= self.size_max, "room was made before");
    }

    fn evict(&mut self, size: usize) {
        while self.size > size {
            let oldest = self.entries.pop_front().expect("a size above 0 is the size of entries");
            self.size -= oldest.size();
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }

    fn move_down(&mut self) {
        let live = self.entries.front().map_or(self.bytes.len(), |oldest| oldest.start);
        self.bytes.drain(..live);
        for entry in &mut self.entries {
            entry.start -= live;
        }
    }
}
