//! The ordered index of a shard's keys: a B+tree that knows how many live keys lie below each child.
//!
//! ```text
//!   inner   | lower bound of child 0 | lower bound of child 1 | ...   with (child, live keys below it)
//!   leaf    | key 0                  | key 1                  | ...   with the newest version (its tip)
//! ```
//!
//! All keys that can come to a node lie between its two fences, the bounds its ancestors give, and so share
//! the fences' common prefix. A node keeps the length of that prefix (`skip`) and, of each key, the 8 bytes
//! behind it as a number (`heads`). A search compares numbers lying side by side and touches a key itself
//! only where the numbers are equal. Where a fence moves, `skip` and `heads` are made anew.
//!
//! A node below a quarter is filled from its neighbour or merged with it. A split for a key behind the last
//! leaves the old node full, so that keys arriving in order fill their nodes.

pub(super) use super::rows::Tip;
#[cfg(test)]
use super::rows::check_rows;
use super::rows::{Arena, Child, ROWS, Rows, even_out};
use crate::types::Blob;
use std::hint::black_box;

const ROWS_MIN: usize = ROWS / 4;
/// Inner levels: even at the least filling, more keys than [`Tip`] can name do not need as many.
const LEVELS_MAX: usize = 32;

/// Keys that [`KeyIndex::touch`] takes at once: about as many as the processor can wait for together.
pub(super) const TOUCHED: usize = 16;

/// Where a key is, or would be. Good until the next insertion or removal.
pub(super) struct KeyPosition {
    /// Inner nodes from the root down, each with the row taken.
    path: [(u32, u8); LEVELS_MAX],
    leaf: u32,
    row: usize,
    found: Option<Tip>,
}

impl KeyPosition {
    pub(super) fn tip(&self) -> Option<Tip> {
        self.found
    }
}

/// The tree. See the head of this file.
pub(super) struct KeyIndex {
    inners: Arena<Rows<Child>>,
    leaves: Arena<Rows<Tip>>,
    /// An inner node, or the only leaf where there are no levels.
    root: u32,
    levels: usize,
    live: u32,
    len: usize,
}

impl Default for KeyIndex {
    fn default() -> KeyIndex {
        let mut leaves = Arena::default();
        let root = leaves.add(Box::new(Rows::new()));
        KeyIndex { inners: Arena::default(), leaves, root, levels: 0, live: 0, len: 0 }
    }
}

impl KeyIndex {
    /// The leaf that a key belongs to.
    fn leaf_of(&self, key: &[u8]) -> &Rows<Tip> {
        let mut node = self.root;
        for _ in 0..self.levels {
            let inner = self.inners.get(node);
            node = inner.items[inner.child_of(key)].node;
        }
        self.leaves.get(node)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<(&Blob, Tip)> {
        let leaf = self.leaf_of(key);
        let row = leaf.search(key).ok()?;
        Some((leaf.key(row), leaf.items[row]))
    }

    /// Brings to the processor what a search for each of these keys will read, [`TOUCHED`] at most, and gives the
    /// newest versions of the keys that they seem to be. Each step is taken for all before the next, so that they wait
    /// for the memory together.
    pub(super) fn touch(&self, keys: &[&[u8]]) -> [Tip; TOUCHED] {
        let mut leaves = [None; TOUCHED];
        for (leaf, key) in leaves.iter_mut().zip(keys) {
            *leaf = Some(self.leaf_of(key));
        }
        let leaves = || leaves.iter().flatten();
        black_box(leaves().fold(0, |all, leaf| all ^ leaf.touch_heads()));
        let mut rows = [0; TOUCHED];
        for ((row, leaf), key) in rows.iter_mut().zip(leaves()).zip(keys) {
            *row = leaf.ties(key).0.min(ROWS - 1);
        }
        let mut found = [(None, Tip::default()); TOUCHED];
        for ((found, leaf), row) in found.iter_mut().zip(leaves()).zip(rows) {
            *found = leaf.peek(row);
        }
        black_box(found.iter().fold(0, |all, (key, _)| all ^ key.map_or(0, |key| key.len())));
        found.map(|(_, tip)| tip)
    }

    pub(super) fn seek(&self, key: &[u8]) -> KeyPosition {
        let mut path = [(0, 0); LEVELS_MAX];
        let mut node = self.root;
        for step in &mut path[..self.levels] {
            let inner = self.inners.get(node);
            let row = inner.child_of(key);
            *step = (node, row as u8);
            node = inner.items[row].node;
        }
        let leaf = self.leaves.get(node);
        let (row, found) = match leaf.search(key) {
            Ok(row) => (row, Some(leaf.items[row])),
            Err(row) => (row, None),
        };
        KeyPosition { path, leaf: node, row, found }
    }

    /// Gives the key found at a place another tip.
    pub(super) fn set(&mut self, place: &KeyPosition, tip: Tip) {
        let before = place.found.expect("a key was found there");
        let leaf = self.leaves.get_mut(place.leaf);
        assert!(place.row < leaf.len(), "a place is good until the next change");
        assert!(leaf.items[place.row] == before, "a place is good until the next change");
        leaf.items[place.row] = tip;
        self.add_live(place, i64::from(tip.live()) - i64::from(before.live()));
        assert!(self.live as usize <= self.len, "live keys are keys");
    }

    fn add_live(&mut self, place: &KeyPosition, change: i64) {
        if change == 0 {
            return;
        }
        let add = |live: u32| u32::try_from(i64::from(live) + change).expect("a count is not negative");
        self.live = add(self.live);
        for (node, row) in &place.path[..self.levels] {
            let item = &mut self.inners.get_mut(*node).items[usize::from(*row)];
            item.live = add(item.live);
        }
    }

    /// Puts a key where [`KeyIndex::seek`] did not find it.
    pub(super) fn insert(&mut self, place: &KeyPosition, key: Blob, tip: Tip) {
        assert!(place.found.is_none(), "the key is new");
        self.add_live(place, i64::from(tip.live()));
        self.len += 1;
        assert!(self.live as usize <= self.len, "live keys are keys");
        let row = place.row;
        let leaf = self.leaves.get_mut(place.leaf);
        if leaf.len() < ROWS {
            leaf.insert(row, key, tip);
            return;
        }
        let (low, high) = (self.low_fence(place), self.high_fence(place, self.levels));
        let leaf = self.leaves.get_mut(place.leaf);
        let cut = if row == ROWS { ROWS } else { ROWS / 2 };
        let mut right = Box::new(Rows::new());
        leaf.move_tail(cut, &mut right);
        let bound = if cut == ROWS { key.clone() } else { right.key(0).clone() };
        leaf.fence(&low, Some(&bound));
        right.fence(&bound, high.as_deref());
        if row > cut || cut == ROWS {
            right.insert(row - cut, key, tip);
        } else {
            leaf.insert(row, key, tip);
        }
        let live = right.live();
        let node = self.leaves.add(right);
        self.adopt(place, self.levels, bound, Child { node, live });
    }

    /// Takes a new node at a depth into its parent, behind the node it was split from.
    fn adopt(&mut self, place: &KeyPosition, depth: usize, bound: Blob, child: Child) {
        let Some(above) = depth.checked_sub(1) else {
            let mut root = Box::new(Rows::new());
            root.insert(0, Blob::new(b""), Child { node: self.root, live: self.live - child.live });
            root.insert(1, bound, child);
            self.root = self.inners.add(root);
            self.levels += 1;
            assert!(self.levels <= LEVELS_MAX, "the tree is no higher than its keys need");
            return;
        };
        let (parent, row) = (place.path[above].0, usize::from(place.path[above].1) + 1);
        let inner = self.inners.get_mut(parent);
        assert!(row <= inner.len(), "a node that was split is its parent's");
        inner.items[row - 1].live -= child.live;
        if inner.len() < ROWS {
            inner.insert(row, bound, child);
            return;
        }
        let high = self.high_fence(place, above);
        let inner = self.inners.get_mut(parent);
        // Two children at least, so that each has a neighbour.
        let cut = if row == ROWS { ROWS - 1 } else { ROWS / 2 };
        let mut right = Box::new(Rows::new());
        inner.move_tail(cut, &mut right);
        let (low, middle) = (inner.key(0).clone(), right.key(0).clone());
        inner.fence(&low, Some(&middle));
        right.fence(&middle, high.as_deref());
        if row > cut {
            right.insert(row - cut, bound, child);
        } else {
            inner.insert(row, bound, child);
        }
        let live = right.live();
        let node = self.inners.add(right);
        self.adopt(place, above, middle, Child { node, live });
    }

    fn low_fence(&self, place: &KeyPosition) -> Blob {
        match self.levels.checked_sub(1) {
            Some(above) => {
                let (node, row) = place.path[above];
                self.inners.get(node).key(usize::from(row)).clone()
            }
            None => Blob::new(b""),
        }
    }

    /// The bound above the node at a depth of the path.
    fn high_fence(&self, place: &KeyPosition, depth: usize) -> Option<Blob> {
        place.path[..depth].iter().rev().find_map(|(node, row)| {
            let (inner, next) = (self.inners.get(*node), usize::from(*row) + 1);
            (next < inner.len()).then(|| inner.key(next).clone())
        })
    }

    /// Removes the key found at a place.
    pub(super) fn remove(&mut self, place: &KeyPosition) {
        let tip = place.found.expect("a key was found there");
        self.add_live(place, -i64::from(tip.live()));
        self.len -= 1;
        assert!(self.live as usize <= self.len, "live keys are keys");
        let leaf = self.leaves.get_mut(place.leaf);
        assert!(leaf.items[place.row] == tip, "a place is good until the next change");
        leaf.remove(place.row);
        if leaf.len() < ROWS_MIN && self.levels > 0 {
            self.refill(place, self.levels - 1);
        }
    }

    /// Fills or merges the too small child that the path takes at an inner node, then looks upwards.
    fn refill(&mut self, place: &KeyPosition, depth: usize) {
        let (parent, row) = (place.path[depth].0, usize::from(place.path[depth].1));
        let inner = self.inners.get(parent);
        assert!(inner.len() >= 2, "each node has a neighbour");
        let left = if row + 1 < inner.len() { row } else { row - 1 };
        let low = inner.key(left).clone();
        let high = match left + 2 < inner.len() {
            true => Some(inner.key(left + 2).clone()),
            false => self.high_fence(place, depth),
        };
        let fences = (&low[..], high.as_deref());
        let pair = (inner.items[left].node, inner.items[left + 1].node);
        let live = inner.items[left].live + inner.items[left + 1].live;
        let (lives, bound) = match depth + 1 == self.levels {
            true => even_out(&mut self.leaves, pair, fences),
            false => even_out(&mut self.inners, pair, fences),
        };
        assert!(lives.0 + lives.1 == live, "no key is lost between neighbours: {lives:?} of {live}");
        let inner = self.inners.get_mut(parent);
        inner.items[left].live = lives.0;
        inner.remove(left + 1);
        if let Some(bound) = bound {
            inner.insert(left + 1, bound, Child { node: pair.1, live: lives.1 });
        } else if depth == 0 && inner.len() == 1 {
            self.root = pair.0;
            self.levels -= 1;
            self.inners.take(parent);
        } else if depth > 0 && inner.len() < ROWS_MIN {
            self.refill(place, depth - 1);
        }
    }

    /// How many live keys lie below a key.
    pub(super) fn rank(&self, key: &[u8]) -> u64 {
        let mut node = self.root;
        let mut rank = 0;
        for _ in 0..self.levels {
            let inner = self.inners.get(node);
            let row = inner.child_of(key);
            rank += inner.items[..row].iter().map(|child| u64::from(child.live)).sum::<u64>();
            node = inner.items[row].node;
        }
        let leaf = self.leaves.get(node);
        let (Ok(row) | Err(row)) = leaf.search(key);
        rank + leaf.items[..row].iter().filter(|tip| tip.live()).count() as u64
    }

    pub(super) fn live(&self) -> u64 {
        u64::from(self.live)
    }

    /// Visits keys from `from` on, ascending, for as long as `visit` says so.
    pub(super) fn walk<'a>(&'a self, from: &[u8], mut visit: impl FnMut(&'a Blob, Tip) -> bool) {
        self.walk_below(self.root, 0, Some(from), &mut visit);
    }

    fn walk_below<'a>(
        &'a self,
        node: u32,
        depth: usize,
        from: Option<&[u8]>,
        visit: &mut impl FnMut(&'a Blob, Tip) -> bool,
    ) -> bool {
        if depth == self.levels {
            let leaf = self.leaves.get(node);
            let first = from.map_or(0, |from| leaf.search(from).unwrap_or_else(|row| row));
            return (first..leaf.len()).all(|row| visit(leaf.key(row), leaf.items[row]));
        }
        let inner = self.inners.get(node);
        let first = from.map_or(0, |from| inner.child_of(from));
        (first..inner.len()).all(|row| {
            let from = from.filter(|_| row == first);
            self.walk_below(inner.items[row].node, depth + 1, from, visit)
        })
    }
}

#[cfg(test)]
impl KeyIndex {
    /// Order, fences, prefixes, heads, counts and filling of all nodes.
    pub(super) fn check_invariants(&self) {
        let mut keys = 0;
        let live = self.check_below(self.root, 0, b"", None, &mut keys);
        assert_eq!((live, keys), (self.live, self.len));
        let used = |nodes: usize, free: &[u32]| nodes - free.len();
        let leaves = used(self.leaves.nodes.len(), &self.leaves.free);
        assert!(leaves <= 1 + keys, "no leaf is empty but an only one");
    }

    fn check_below(&self, node: u32, depth: usize, low: &[u8], high: Option<&[u8]>, keys: &mut usize) -> u32 {
        if depth == self.levels {
            let leaf = self.leaves.get(node);
            assert!(depth == 0 || leaf.len() > 0, "no leaf is empty but an only one");
            *keys += leaf.len();
            return check_rows(leaf, low, high);
        }
        let inner = self.inners.get(node);
        assert!(inner.len() >= 2 && &inner.key(0)[..] == low);
        for row in 0..inner.len() {
            let next = if row + 1 < inner.len() { Some(&inner.key(row + 1)[..]) } else { high };
            let live = self.check_below(inner.items[row].node, depth + 1, inner.key(row), next, keys);
            assert_eq!(live, inner.items[row].live);
        }
        check_rows(inner, low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::Rng;
    use std::collections::BTreeMap;

    fn key(rng: &mut Rng, space: u64) -> Vec<u8> {
        let n = rng.below(space);
        match n % 3 {
            0 => format!("/registry/{}/{:04}", n % 7, n).into_bytes(),
            1 => vec![0; (n % 40) as usize],
            _ => n.to_be_bytes()[5..].to_vec(),
        }
    }

    /// Grows and shrinks alternately, so that nodes split, fill and merge at every height.
    #[test]
    fn the_tree_is_an_ordered_map_that_counts() {
        for seed in 0..30 {
            println!("seed {seed}");
            let mut rng = Rng::new(seed);
            let space = *rng.pick(&[10, 200, 3000]);
            let mut index = KeyIndex::default();
            let mut model: BTreeMap<Vec<u8>, Tip> = BTreeMap::new();
            for step in 0..4000 {
                let key = key(&mut rng, space);
                let place = index.seek(&key);
                assert_eq!(place.tip(), model.get(&key).copied());
                let tip = Tip::new(step, rng.chance(2, 3), 0);
                let grow = step / 1000 % 2 == 0;
                match (place.tip(), rng.chance(1, 8) != grow) {
                    (None, true) => {
                        index.insert(&place, Blob::new(&key), tip);
                        model.insert(key, tip);
                    }
                    (Some(_), true) => {
                        index.set(&place, tip);
                        model.insert(key, tip);
                    }
                    (Some(_), false) => {
                        index.remove(&place);
                        model.remove(&key);
                    }
                    (None, false) => assert!(index.get(&key).is_none()),
                }
                if step % 16 == 0 {
                    index.check_invariants();
                    check_reads(&mut rng, &index, &model, space);
                }
            }
            for (key, _) in model {
                index.remove(&index.seek(&key));
                index.check_invariants();
            }
            assert!(index.live() == 0 && index.levels == 0);
        }
    }

    fn check_reads(rng: &mut Rng, index: &KeyIndex, model: &BTreeMap<Vec<u8>, Tip>, space: u64) {
        let from = key(rng, space);
        let below = model.range(..from.clone()).filter(|(_, tip)| tip.live()).count();
        assert_eq!(index.rank(&from), below as u64);
        let mut walked = Vec::new();
        index.walk(&from, |key, tip| {
            walked.push((key.to_vec(), tip));
            walked.len() < 50
        });
        let expected: Vec<_> = model.range(from..).take(50).map(|(k, t)| (k.clone(), *t)).collect();
        assert_eq!(walked, expected);
    }

    #[test]
    fn keys_in_order_fill_their_leaves() {
        let mut index = KeyIndex::default();
        for n in 0..1000u32 {
            let key = n.to_be_bytes();
            index.insert(&index.seek(&key), Blob::new(&key), Tip::new(n, true, 0));
        }
        assert_eq!(index.leaves.nodes.len(), 1000usize.div_ceil(ROWS));
    }
}
