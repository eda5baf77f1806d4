//! What waits for something that has a name: a lease, say. When that comes to pass, its own waiters go on, and
//! nobody else's are looked at.

use std::collections::BTreeMap;

/// Waiters by what they wait for, each kind in the order they came.
#[derive(Debug)]
pub(super) struct Waiters<K, T> {
    of: BTreeMap<K, Vec<T>>,
    len: usize,
}

impl<K, T> Default for Waiters<K, T> {
    fn default() -> Waiters<K, T> {
        Waiters { of: BTreeMap::new(), len: 0 }
    }
}

impl<K: Ord + Copy, T> Waiters<K, T> {
    pub fn push(&mut self, key: K, waiter: T) {
        self.of.entry(key).or_default().push(waiter);
        self.len += 1;
    }

    /// Those that wait for this wait no longer.
    pub fn take(&mut self, key: K) -> Vec<T> {
        let taken = self.of.remove(&key).unwrap_or_default();
        self.len -= taken.len();
        assert!(self.of.is_empty() == (self.len == 0), "waiters are counted as they stand");
        taken
    }

    /// Those that wait for this, or what comes before it, wait no longer.
    pub fn take_upto(&mut self, key: K) -> Vec<T> {
        let mut taken = vec![];
        while let Some(entry) = self.of.first_entry().filter(|entry| *entry.key() <= key) {
            taken.extend(entry.remove());
        }
        self.len -= taken.len();
        assert!(self.of.is_empty() == (self.len == 0), "waiters are counted as they stand");
        taken
    }

    /// Drops those for which `keep` does not hold.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.of.retain(|_, waiters| {
            waiters.retain(&keep);
            !waiters.is_empty()
        });
        self.len = self.of.values().map(Vec::len).sum();
    }

    pub fn clear(&mut self) {
        self.of.clear();
        self.len = 0;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_for_its_own_and_leaves_once() {
        let mut waiters = Waiters::default();
        for n in 0..10 {
            waiters.push(n % 3, n);
        }
        assert_eq!((waiters.take(1), waiters.len()), (vec![1, 4, 7], 7));
        assert_eq!((waiters.take(1), waiters.len()), (vec![], 7));
        waiters.retain(|n| *n > 5);
        assert_eq!((waiters.len(), waiters.take(0)), (3, vec![6, 9]));
        for n in 0..10 {
            waiters.push(n % 4, n);
        }
        assert_eq!((waiters.take_upto(1), waiters.len()), (vec![0, 4, 8, 1, 5, 9], 5));
        waiters.clear();
        assert!(waiters.is_empty() && waiters.take(2).is_empty());
    }
}
