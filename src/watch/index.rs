//! Which subscriptions a key concerns, without looking at the others.
//!
//! Single keys stand in an ordered map. Ranges stand in a treap ordered by (start, end), one node for each
//! distinct range, however many watch it; each node knows the highest end below it. A search for a key
//! enters no subtree whose highest end is at or below the key, nor one whose starts are all above it: so it
//! costs about the logarithm of the number of ranges, and one step for each that matches.

use super::SubscriptionId;
use crate::stdx::Rng;
use crate::types::KeyRange;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RangeEnd {
    Before(Bytes),
    Never,
}

impl RangeEnd {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            RangeEnd::Before(end) => &end[..] > key,
            RangeEnd::Never => true,
        }
    }
}

type NodeLink = Option<usize>;

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: RangeEnd,
    end_max: RangeEnd,
    ids: BTreeSet<SubscriptionId>,
    priority: u64,
    left: NodeLink,
    right: NodeLink,
}

/// Subscriptions by what they watch.
#[derive(Debug)]
pub struct SubscriptionIndex {
    keys: BTreeMap<Bytes, BTreeSet<SubscriptionId>>,
    nodes: Vec<Node>,
    free: Vec<usize>,
    root: NodeLink,
    priorities: Rng,
}

impl SubscriptionIndex {
    pub fn new() -> SubscriptionIndex {
        let (nodes, free) = (Vec::new(), Vec::new());
        SubscriptionIndex { keys: BTreeMap::new(), nodes, free, root: None, priorities: Rng::new(1) }
    }

    pub fn insert(&mut self, range: &KeyRange, id: SubscriptionId) {
        match split(range) {
            (key, None) => {
                self.keys.entry(key).or_default().insert(id);
            }
            (start, Some(end)) => self.root = Some(self.insert_below(self.root, start, end, id)),
        }
    }

    pub fn remove(&mut self, range: &KeyRange, id: SubscriptionId) {
        match split(range) {
            (key, None) => {
                let ids = self.keys.get_mut(&key).expect("what is removed was inserted");
                ids.remove(&id);
                if ids.is_empty() {
                    self.keys.remove(&key);
                }
            }
            (start, Some(end)) => self.root = self.remove_below(self.root, &start, &end, id),
        }
    }

    /// Adds all subscriptions that the key concerns.
    pub fn find(&self, key: &[u8], found: &mut Vec<SubscriptionId>) {
        if let Some(ids) = self.keys.get(key) {
            found.extend(ids);
        }
        self.find_below(self.root, key, found);
    }

    fn find_below(&self, link: NodeLink, key: &[u8], found: &mut Vec<SubscriptionId>) {
        let Some(node) = link.map(|at| &self.nodes[at]).filter(|node| node.end_max.is_after(key)) else {
            return;
        };
        self.find_below(node.left, key, found);
        if &node.start[..] <= key {
            if node.end.is_after(key) {
                found.extend(&node.ids);
            }
            self.find_below(node.right, key, found);
        }
    }

    fn insert_below(&mut self, link: NodeLink, start: Bytes, end: RangeEnd, id: SubscriptionId) -> usize {
        let Some(at) = link else { return self.node(start, end, id) };
        match (&start, &end).cmp(&(&self.nodes[at].start, &self.nodes[at].end)) {
            Ordering::Equal => {
                self.nodes[at].ids.insert(id);
                at
            }
            Ordering::Less => {
                let child = self.insert_below(self.nodes[at].left, start, end, id);
                self.nodes[at].left = Some(child);
                self.lift(at, child)
            }
            Ordering::Greater => {
                let child = self.insert_below(self.nodes[at].right, start, end, id);
                self.nodes[at].right = Some(child);
                self.lift(at, child)
            }
        }
    }

    /// Rotates the child above its parent where its priority is higher; the upper one of the two.
    fn lift(&mut self, parent: usize, child: usize) -> usize {
        if self.nodes[child].priority <= self.nodes[parent].priority {
            self.renew(parent);
            return parent;
        }
        if self.nodes[parent].left == Some(child) {
            self.nodes[parent].left = self.nodes[child].right.replace(parent);
        } else {
            self.nodes[parent].right = self.nodes[child].left.replace(parent);
        }
        self.renew(parent);
        self.renew(child);
        child
    }

    fn remove_below(
        &mut self,
        link: NodeLink,
        start: &Bytes,
        end: &RangeEnd,
        id: SubscriptionId,
    ) -> NodeLink {
        let at = link.expect("what is removed was inserted");
        match (start, end).cmp(&(&self.nodes[at].start, &self.nodes[at].end)) {
            Ordering::Equal => {
                self.nodes[at].ids.remove(&id);
                if self.nodes[at].ids.is_empty() {
                    self.free.push(at);
                    return self.join(self.nodes[at].left, self.nodes[at].right);
                }
            }
            Ordering::Less => self.nodes[at].left = self.remove_below(self.nodes[at].left, start, end, id),
            Ordering::Greater => {
                self.nodes[at].right = self.remove_below(self.nodes[at].right, start, end, id);
            }
        }
        self.renew(at);
        Some(at)
    }

    /// Joins two trees, all of the left one before all of the right one.
    fn join(&mut self, left: NodeLink, right: NodeLink) -> NodeLink {
        let (Some(low), Some(high)) = (left, right) else { return left.or(right) };
        if self.nodes[low].priority > self.nodes[high].priority {
            self.nodes[low].right = self.join(self.nodes[low].right, right);
            self.renew(low);
            left
        } else {
            self.nodes[high].left = self.join(left, self.nodes[high].left);
            self.renew(high);
            right
        }
    }

    fn renew(&mut self, at: usize) {
        let node = &self.nodes[at];
        let below = [node.left, node.right].into_iter().flatten().map(|child| &self.nodes[child].end_max);
        let end_max = below.fold(&node.end, |max, end| max.max(end)).clone();
        self.nodes[at].end_max = end_max;
    }

    fn node(&mut self, start: Bytes, end: RangeEnd, id: SubscriptionId) -> usize {
        let (ids, priority) = (BTreeSet::from([id]), self.priorities.next_u64());
        let node = Node { start, end_max: end.clone(), end, ids, priority, left: None, right: None };
        match self.free.pop() {
            Some(at) => {
                self.nodes[at] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }
}

fn split(range: &KeyRange) -> (Bytes, Option<RangeEnd>) {
    match range {
        KeyRange::One(key) => (key.clone(), None),
        KeyRange::Between(start, end) => (start.clone(), Some(RangeEnd::Before(end.clone()))),
        KeyRange::From(start) => (start.clone(), Some(RangeEnd::Never)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_range(rng: &mut Rng) -> KeyRange {
        let mut key = || Bytes::from(format!("{:03}", rng.below(300)));
        let (a, b) = (key(), key());
        match rng.below(8) {
            0 => KeyRange::From(a),
            1..3 => KeyRange::One(a),
            _ => KeyRange::Between(a.clone().min(b.clone()), a.max(b)),
        }
    }

    /// Random insertions and removals: a search finds what a look at every range finds.
    #[test]
    fn a_search_finds_what_a_full_scan_finds() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let (mut index, mut ranges) = (SubscriptionIndex::new(), Vec::new());
            for id in 0..600 {
                if rng.chance(2, 3) || ranges.is_empty() {
                    let range = random_range(&mut rng);
                    index.insert(&range, SubscriptionId(id));
                    ranges.push((range, SubscriptionId(id)));
                } else {
                    let (range, id) = ranges.swap_remove(rng.below(ranges.len() as u64) as usize);
                    index.remove(&range, id);
                }
                let key = format!("{:03}", rng.below(300)).into_bytes();
                let mut found = Vec::new();
                index.find(&key, &mut found);
                found.sort();
                let matching = ranges.iter().filter(|(range, _)| range.contains(&key));
                let mut wanted: Vec<_> = matching.map(|(_, id)| *id).collect();
                wanted.sort();
                assert_eq!(found, wanted, "seed {seed} key {key:?}");
            }
        }
    }

    #[test]
    fn a_search_visits_few_of_many_ranges() {
        let mut index = SubscriptionIndex::new();
        for id in 0..20_000 {
            let (start, end) = (format!("{id:05}/"), format!("{id:05}0"));
            index.insert(&KeyRange::Between(start.into(), end.into()), SubscriptionId(id));
        }
        fn depth(index: &SubscriptionIndex, link: NodeLink) -> usize {
            link.map_or(0, |at| {
                1 + depth(index, index.nodes[at].left).max(depth(index, index.nodes[at].right))
            })
        }
        assert!(depth(&index, index.root) < 50, "{}", depth(&index, index.root));
        let mut found = Vec::new();
        index.find(b"12345/x", &mut found);
        assert_eq!(found, [SubscriptionId(12_345)]);
    }
}
