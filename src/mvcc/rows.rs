//! The nodes of the index: rows of keys in order, their prefixes, and moving rows between nodes. The head
//! of `index.rs` says what for.

use crate::types::Blob;
use std::cmp::Ordering;

/// Rows of a node: one below 64, so that a node with its header fits a size that allocators have (1,536 bytes).
#[cfg(not(test))]
pub(super) const ROWS: usize = 63;
#[cfg(test)]
pub(super) const ROWS: usize = 8;
const ROWS_MERGED_MAX: usize = ROWS * 3 / 4;

/// Heads in a line of the processor's memory.
const LINE: usize = 8;

/// The newest version of a key, whether it is live (not a tombstone), and what it is reckoned to cost: so that a
/// put need not look at the value that it takes the place of, which may lie far away in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tip {
    version_and_live: u32,
    cost: u32,
}

impl Tip {
    pub(super) fn new(version: u32, live: bool, cost: u64) -> Tip {
        assert!(version < 1 << 31, "a shard holds fewer than 2^31 versions");
        let cost = u32::try_from(cost).expect("a request is shorter than 4 GiB");
        Tip { version_and_live: version << 1 | u32::from(live), cost }
    }
    pub(super) fn version(self) -> u32 {
        self.version_and_live >> 1
    }
    pub(super) fn live(self) -> bool {
        self.version_and_live & 1 == 1
    }
    pub(super) fn cost(self) -> u64 {
        u64::from(self.cost)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Child {
    pub(super) node: u32,
    pub(super) live: u32,
}

/// What a row says of live keys.
pub(super) trait Live: Copy + Default {
    fn live(self) -> u32;
}

impl Live for Tip {
    fn live(self) -> u32 {
        self.version_and_live & 1
    }
}

impl Live for Child {
    fn live(self) -> u32 {
        self.live
    }
}

/// The rows of a node in the order of their keys: the first `len` of each array are in use. What a search
/// reads stands together.
#[repr(C)]
pub(super) struct Rows<P> {
    len: u32,
    skip: u32,
    heads: [u64; ROWS],
    pub(super) items: [P; ROWS],
    keys: [Option<Blob>; ROWS],
}

impl<P: Live> Rows<P> {
    pub(super) fn new() -> Rows<P> {
        Rows { heads: [0; ROWS], keys: [const { None }; ROWS], items: [P::default(); ROWS], len: 0, skip: 0 }
    }

    pub(super) fn key(&self, row: usize) -> &Blob {
        self.keys[row].as_ref().expect("rows in use have keys")
    }

    /// What stands in a row, which need not be in use.
    pub(super) fn peek(&self, row: usize) -> (Option<&Blob>, P) {
        (self.keys[row].as_ref(), self.items[row])
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    fn skip(&self) -> usize {
        self.skip as usize
    }

    /// The row of the key, or else the row it would take.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = self.ties(key);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.key(middle)[self.skip()..].cmp(&key[self.skip()..]) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The rows whose heads are the key's: from one up to another.
    pub(super) fn ties(&self, key: &[u8]) -> (usize, usize) {
        let head = head(key, self.skip());
        let heads = &self.heads[..self.len()];
        let below = |heads: &[u64]| heads.iter().filter(|one| **one < head).count();
        // To count is faster than to halve, as the processor need not wait for one line to know the next. First one of
        // each line, then that line.
        let lines = heads.chunks_exact(LINE).filter(|line| line[LINE - 1] < head).count();
        let rest = &heads[lines * LINE..];
        let low = lines * LINE + below(&rest[..rest.len().min(LINE)]);
        let ties = heads[low..].iter().take_while(|one| **one == head).count();
        (low, low + ties)
    }

    /// Reads a little of each line of memory that [`Rows::ties`] will read.
    pub(super) fn touch_heads(&self) -> u64 {
        self.heads.chunks(LINE).fold(u64::from(self.len), |all, line| all ^ line[0])
    }

    pub(super) fn insert(&mut self, row: usize, key: Blob, item: P) {
        let len = self.len();
        assert!(row <= len && len < ROWS, "a node with {len} rows has room for one at {row}");
        self.heads[len] = head(&key, self.skip());
        self.keys[len] = Some(key);
        self.items[len] = item;
        self.heads[row..=len].rotate_right(1);
        self.keys[row..=len].rotate_right(1);
        self.items[row..=len].rotate_right(1);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, row: usize) {
        let len = self.len();
        assert!(row < len, "a row in use is removed");
        self.heads[row..len].rotate_left(1);
        self.keys[row..len].rotate_left(1);
        self.items[row..len].rotate_left(1);
        self.keys[len - 1] = None;
        self.len -= 1;
    }

    /// Moves the rows from `row` on to the front of another node.
    pub(super) fn move_tail(&mut self, row: usize, to: &mut Rows<P>) {
        let moved = self.len() - row;
        let end = to.len() + moved;
        assert!(end <= ROWS, "a node has room for what moves to it");
        to.keys[..end].rotate_right(moved);
        to.items[..end].rotate_right(moved);
        to.keys[..moved].swap_with_slice(&mut self.keys[row..row + moved]);
        to.items[..moved].copy_from_slice(&self.items[row..row + moved]);
        to.len += moved as u32;
        self.len -= moved as u32;
    }

    /// Moves the first `rows` rows to the end of another node.
    fn move_front(&mut self, rows: usize, to: &mut Rows<P>) {
        let (len, end) = (self.len(), to.len());
        assert!(rows <= len && end + rows <= ROWS, "a node has room for what moves to it");
        to.keys[end..end + rows].swap_with_slice(&mut self.keys[..rows]);
        to.items[end..end + rows].copy_from_slice(&self.items[..rows]);
        self.keys[..len].rotate_left(rows);
        self.items[..len].rotate_left(rows);
        to.len += rows as u32;
        self.len -= rows as u32;
    }

    /// Takes note of new fences, or of rows that came from another node.
    pub(super) fn fence(&mut self, low: &[u8], high: Option<&[u8]>) {
        let skip = high.map_or(0, |high| low.iter().zip(high).take_while(|(a, b)| a == b).count());
        self.skip = u32::try_from(skip).expect("keys are shorter than 4 GiB");
        for row in 0..self.len() {
            self.heads[row] = head(self.key(row), skip);
        }
    }

    pub(super) fn live(&self) -> u32 {
        self.items[..self.len()].iter().map(|item| item.live()).sum()
    }
}

impl Rows<Child> {
    /// The row whose child a key belongs to.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(row) => row,
            Err(row) => row.checked_sub(1).expect("the first bound of a node is at or below its keys"),
        }
    }
}

fn head(key: &[u8], skip: usize) -> u64 {
    match key.get(skip..skip + 8) {
        Some(bytes) => u64::from_be_bytes(bytes.try_into().expect("8 bytes were asked for")),
        None => {
            let mut padded = [0; 8];
            let rest = &key[skip..];
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(padded)
        }
    }
}

/// Nodes by number, each in an allocation of its own.
pub(super) struct Arena<T> {
    pub(super) nodes: Vec<Option<Box<T>>>,
    pub(super) free: Vec<u32>,
}

impl<T> Arena<T> {
    pub(super) fn add(&mut self, node: Box<T>) -> u32 {
        if let Some(id) = self.free.pop() {
            assert!(self.nodes[id as usize].is_none(), "a free number names no node");
            self.nodes[id as usize] = Some(node);
            return id;
        }
        self.nodes.push(Some(node));
        u32::try_from(self.nodes.len() - 1).expect("fewer nodes than versions")
    }
    pub(super) fn get(&self, id: u32) -> &T {
        self.nodes[id as usize].as_ref().expect("nodes named by others are in use")
    }
    pub(super) fn get_mut(&mut self, id: u32) -> &mut T {
        self.nodes[id as usize].as_mut().expect("nodes named by others are in use")
    }
    pub(super) fn take(&mut self, id: u32) -> Box<T> {
        self.free.push(id);
        self.nodes[id as usize].take().expect("nodes named by others are in use")
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Arena<T> {
        Arena { nodes: Vec::new(), free: Vec::new() }
    }
}

/// Makes one node of two where they fit with room to spare, else gives both as many rows. Returns how many
/// live keys each has, and the bound between them if they are still two.
pub(super) fn even_out<P: Live>(
    arena: &mut Arena<Rows<P>>,
    (left, right): (u32, u32),
    (low, high): (&[u8], Option<&[u8]>),
) -> ((u32, u32), Option<Blob>) {
    let mut second = arena.take(right);
    let first = arena.get_mut(left);
    let total = first.len() + second.len();
    if total <= ROWS_MERGED_MAX {
        second.move_front(second.len(), first);
        assert!(first.len() == total, "rows are moved, not lost");
        first.fence(low, high);
        return ((first.live(), 0), None);
    }
    if first.len() > total / 2 {
        first.move_tail(total / 2, &mut second);
    } else {
        second.move_front(total / 2 - first.len(), first);
    }
    assert!(first.len() + second.len() == total, "rows are moved, not lost");
    let bound = second.key(0).clone();
    first.fence(low, Some(&bound));
    second.fence(&bound, high);
    let lives = (first.live(), second.live());
    let again = arena.add(second);
    assert_eq!(again, right, "the node freed last is used first");
    (lives, Some(bound))
}

#[cfg(test)]
pub(super) fn check_rows<P: Live>(rows: &Rows<P>, low: &[u8], high: Option<&[u8]>) -> u32 {
    let skip = high.map_or(0, |high| low.iter().zip(high).take_while(|(a, b)| a == b).count());
    assert_eq!(rows.skip(), skip);
    for row in 0..rows.len() {
        let key = rows.key(row);
        assert!(&key[..] >= low && high.is_none_or(|high| &key[..] < high));
        assert!(row == 0 || rows.key(row - 1) < key);
        assert_eq!(rows.heads[row], head(key, skip));
    }
    assert!(rows.keys[rows.len()..].iter().all(Option::is_none), "unused rows hold no keys");
    rows.live()
}
