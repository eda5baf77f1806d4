//! Which reactor a connection belongs to, by what its client asks for.
//!
//! A request for a shard of another reactor wakes that one, and its answer wakes this one again: at a low rate
//! that is a third of what the request costs, and of what its client waits. Most clients ask for one shard
//! again and again (a kube-apiserver has a connection per resource), so a connection whose requests go to
//! another reactor moves there, in a moment when it has nothing under way. One that is never without calls,
//! as under a flood, stays: there the work of a connection and that of its shard are better done by two threads.
//!
//! The first move takes one request, each further one eight times as many in a row as the one before: a client
//! whose requests have no home soon stays where it is.

use crate::limits::MOVE_STREAK_GROWTH_BITS;
use crate::types::ReactorId;

#[derive(Debug)]
pub(super) struct Affinity {
    /// Where the last requests went, and how many in a row.
    to: ReactorId,
    streak: u32,
    /// The streak that it takes to move; none is long enough for one that has moved too often.
    needed: Option<u32>,
}

impl Affinity {
    pub fn new() -> Affinity {
        Affinity { to: ReactorId(0), streak: 0, needed: Some(1) }
    }

    /// A request has gone to this reactor.
    pub fn asked(&mut self, reactor: ReactorId) {
        if self.to == reactor {
            self.streak = self.streak.saturating_add(1);
        } else {
            (self.to, self.streak) = (reactor, 1);
        }
    }

    /// The reactor that it should move to from this one.
    pub fn elsewhere(&self, here: ReactorId) -> Option<ReactorId> {
        let long_enough = self.needed.is_some_and(|needed| self.streak >= needed);
        (self.to != here && long_enough).then_some(self.to)
    }

    /// It has moved, or was told to stay.
    pub fn moved(&mut self) {
        self.streak = 0;
        self.needed = self.needed.and_then(|needed| needed.checked_mul(1 << MOVE_STREAK_GROWTH_BITS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ReactorId = ReactorId(1);
    const THERE: ReactorId = ReactorId(2);

    /// How many requests in a row to the other reactor it takes until it should go there.
    fn streak(affinity: &mut Affinity) -> Option<u32> {
        (1..1_000).find(|_| {
            affinity.asked(THERE);
            affinity.elsewhere(HERE) == Some(THERE)
        })
    }

    #[test]
    fn each_move_takes_a_longer_streak() {
        let mut affinity = Affinity::new();
        assert_eq!(affinity.elsewhere(HERE), None, "nothing was asked");
        for needed in [1, 8, 64, 512] {
            assert_eq!(streak(&mut affinity), Some(needed));
            affinity.moved();
        }
        (0..20).for_each(|_| affinity.moved());
        assert_eq!(streak(&mut affinity), None);
    }

    #[test]
    fn a_request_to_another_reactor_breaks_the_streak() {
        let mut affinity = Affinity::new();
        affinity.moved();
        for round in 0..3 {
            (0..7).for_each(|_| affinity.asked(THERE));
            affinity.asked(HERE);
            assert_eq!(affinity.elsewhere(HERE), None, "in round {round}");
        }
        assert_eq!(streak(&mut affinity), Some(8));
        assert_eq!(affinity.elsewhere(THERE), None, "it is there");
    }
}
