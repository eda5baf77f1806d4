//! The two tables of RFC 7541: the static one (appendix A) and the dynamic one (section 4).

use crate::http2::head::Name;
use std::collections::VecDeque;

/// What each entry of a dynamic table costs beside its bytes (RFC 7541, 4.1).
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

pub struct StaticEntry {
    pub kind: Name,
    pub name: &'static str,
    pub value: &'static str,
}

const fn entry(kind: Name, name: &'static str, value: &'static str) -> StaticEntry {
    StaticEntry { kind, name, value }
}

pub static STATIC: [StaticEntry; 61] = [
    entry(Name::Authority, ":authority", ""),
    entry(Name::Method, ":method", "GET"),
    entry(Name::Method, ":method", "POST"),
    entry(Name::Path, ":path", "/"),
    entry(Name::Path, ":path", "/index.html"),
    entry(Name::Scheme, ":scheme", "http"),
    entry(Name::Scheme, ":scheme", "https"),
    entry(Name::Status, ":status", "200"),
    entry(Name::Status, ":status", "204"),
    entry(Name::Status, ":status", "206"),
    entry(Name::Status, ":status", "304"),
    entry(Name::Status, ":status", "400"),
    entry(Name::Status, ":status", "404"),
    entry(Name::Status, ":status", "500"),
    entry(Name::Other, "accept-charset", ""),
    entry(Name::Other, "accept-encoding", "gzip, deflate"),
    entry(Name::Other, "accept-language", ""),
    entry(Name::Other, "accept-ranges", ""),
    entry(Name::Other, "accept", ""),
    entry(Name::Other, "access-control-allow-origin", ""),
    entry(Name::Other, "age", ""),
    entry(Name::Other, "allow", ""),
    entry(Name::Authorization, "authorization", ""),
    entry(Name::Other, "cache-control", ""),
    entry(Name::Other, "content-disposition", ""),
    entry(Name::Other, "content-encoding", ""),
    entry(Name::Other, "content-language", ""),
    entry(Name::ContentLength, "content-length", ""),
    entry(Name::Other, "content-location", ""),
    entry(Name::Other, "content-range", ""),
    entry(Name::ContentType, "content-type", ""),
    entry(Name::Other, "cookie", ""),
    entry(Name::Other, "date", ""),
    entry(Name::Other, "etag", ""),
    entry(Name::Other, "expect", ""),
    entry(Name::Other, "expires", ""),
    entry(Name::Other, "from", ""),
    entry(Name::Other, "host", ""),
    entry(Name::Other, "if-match", ""),
    entry(Name::Other, "if-modified-since", ""),
    entry(Name::Other, "if-none-match", ""),
    entry(Name::Other, "if-range", ""),
    entry(Name::Other, "if-unmodified-since", ""),
    entry(Name::Other, "last-modified", ""),
    entry(Name::Other, "link", ""),
    entry(Name::Other, "location", ""),
    entry(Name::Other, "max-forwards", ""),
    entry(Name::Other, "proxy-authenticate", ""),
    entry(Name::Other, "proxy-authorization", ""),
    entry(Name::Other, "range", ""),
    entry(Name::Other, "referer", ""),
    entry(Name::Other, "refresh", ""),
    entry(Name::Other, "retry-after", ""),
    entry(Name::Other, "server", ""),
    entry(Name::Other, "set-cookie", ""),
    entry(Name::Other, "strict-transport-security", ""),
    entry(Name::Other, "transfer-encoding", ""),
    entry(Name::UserAgent, "user-agent", ""),
    entry(Name::Other, "vary", ""),
    entry(Name::Other, "via", ""),
    entry(Name::Other, "www-authenticate", ""),
];

/// One entry of the dynamic table. What it takes to judge a field is found once, when it is entered.
#[derive(Clone, Copy)]
pub struct Entry {
    start: usize,
    name_len: usize,
    value_len: usize,
    pub kind: Name,
    /// Whether name and value consist of octets a field may have.
    pub valid: bool,
}

impl Entry {
    fn size(&self) -> usize {
        self.name_len + self.value_len + ENTRY_OVERHEAD_BYTES
    }
}

/// The dynamic table. The bytes of its entries lie one after the other in one buffer, oldest first, which
/// is moved down when its end is reached: entering a field allocates nothing once the buffer has grown to
/// twice the table's size.
pub struct Table {
    bytes: Vec<u8>,
    entries: VecDeque<Entry>,
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
    pub fn get(&self, index: usize) -> Option<(Entry, &[u8], &[u8])> {
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
    pub fn insert(&mut self, kind: Name, valid: bool, name: &[u8], value: &[u8]) {
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
        self.entries.push_back(Entry { start, name_len: name.len(), value_len: value.len(), kind, valid });
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
