//! A value that changes along a log, as it was at any place that may still be asked for.

use std::collections::VecDeque;

/// Takes changes in ascending order of their places, and forgets them in the same order.
#[derive(Debug)]
pub struct AsOf<K, V> {
    /// As of the places before the first change that is kept.
    first: V,
    changes: VecDeque<(K, V)>,
    passed: Option<K>,
}

impl<K: Ord + Copy, V> AsOf<K, V> {
    pub fn new(value: V) -> AsOf<K, V> {
        AsOf { first: value, changes: VecDeque::new(), passed: None }
    }

    /// From `place` on the value is another one. Panics where an earlier change is not before it.
    pub fn change(&mut self, place: K, value: V) {
        let rises = self.changes.back().is_none_or(|(last, _)| *last < place);
        assert!(rises, "changes come in the order of their places");
        self.changes.push_back((place, value));
    }

    pub fn newest(&self) -> &V {
        self.changes.back().map_or(&self.first, |(_, value)| value)
    }

    /// The value at `place`. Panics where a later one was passed.
    pub fn at(&self, place: K) -> &V {
        assert!(self.passed.is_none_or(|passed| passed <= place), "what was there is forgotten");
        let upto = self.changes.partition_point(|(of, _)| *of <= place);
        upto.checked_sub(1).map_or(&self.first, |last| &self.changes[last].1)
    }

    /// No place before this one is asked for any more.
    pub fn pass(&mut self, place: K) {
        self.passed = self.passed.max(Some(place));
        while let Some((_, value)) = self.changes.pop_front_if(|(of, _)| *of <= place) {
            self.first = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_as_it_was_wherever_it_has_not_been_passed() {
        let mut value = AsOf::new('a');
        value.change(3, 'b');
        value.change(7, 'c');
        let at = |value: &AsOf<u64, char>, from| (from..9).map(|place| *value.at(place)).collect::<String>();
        assert_eq!((&at(&value, 1)[..], *value.newest()), ("aabbbbcc", 'c'));
        value.pass(5);
        assert_eq!((value.changes.len(), &at(&value, 5)[..]), (1, "bbcc"));
        value.pass(7);
        assert_eq!((value.changes.len(), *value.at(7), *value.newest()), (0, 'c', 'c'));
    }

    #[test]
    #[should_panic(expected = "what was there is forgotten")]
    fn what_was_passed_is_not_made_up() {
        let mut value = AsOf::new('a');
        value.pass(5);
        value.at(4);
    }

    #[test]
    #[should_panic(expected = "changes come in the order of their places")]
    fn no_change_overtakes_another() {
        let mut value = AsOf::new('a');
        value.change(3, 'b');
        value.change(3, 'c');
    }
}
