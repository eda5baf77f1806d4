//! The one gate for replies.
//!
//! A reply leaves once `settled` has reached the revision that it depends on. One that no entry of its own backs (a
//! failed compare, an error or an answer read from state, a renewal of a lease) is a linearizable read: it also
//! waits for a round among the members, begun after its evaluation, in which they confirm who leads. A lone member
//! is its own majority: its rounds are over as soon as they begin. Among several, all that a turn's replies and reads
//! wait for is one round, which begins with the turn's end.

use crate::api::Answer;
use crate::io::CallId;
use crate::types::Revision;
use std::collections::VecDeque;

/// A round in which the members confirm who leads; later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Round(pub u64);

/// What a reply waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    revision: Revision,
    round: Round,
}

#[derive(Debug)]
struct WaitingReply {
    needs: Needs,
    call: CallId,
    answer: Answer,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// In the order of the revisions that they need.
    waiting: VecDeque<WaitingReply>,
    begun: Round,
    confirmed: Round,
    /// Whether a reply waits for a round that has not begun.
    wanted: bool,
}

impl Needs {
    /// What a reply needs that an entry of its own backs, at this revision or before it.
    pub fn entry(revision: Revision) -> Needs {
        Needs { revision, round: Round::default() }
    }
}

impl Gate {
    /// What a reply needs that no entry backs. It was evaluated now, and shows nothing newer than this revision.
    pub fn unbacked(&mut self, is_alone: bool, revision: Revision) -> Needs {
        let round = self.join_round();
        if is_alone {
            let begun = self.begin_round().expect("it was joined");
            self.confirm(begun);
        }
        Needs { revision, round }
    }

    /// The next round, which has not begun.
    pub fn join_round(&mut self) -> Round {
        self.wanted = true;
        Round(self.begun.0 + 1)
    }

    /// Begins the next round, if somebody waits for it.
    pub fn begin_round(&mut self) -> Option<Round> {
        if !std::mem::take(&mut self.wanted) {
            return None;
        }
        self.begun.0 += 1;
        Some(self.begun)
    }

    /// A majority has answered.
    pub fn confirm(&mut self, round: Round) {
        assert!(round <= self.begun, "a round is confirmed after it has begun");
        self.confirmed = self.confirmed.max(round);
    }

    pub fn lets_pass(&self, needs: Needs, settled: Revision) -> bool {
        needs.revision <= settled && needs.round <= self.confirmed
    }

    pub fn hold(&mut self, needs: Needs, call: CallId, answer: Answer) {
        assert!(needs.round.0 <= self.begun.0 + 1, "a reply waits for the next round at most");
        // Nearly always the newest: what waits depends on revisions in the order they were taken.
        let place = match self.waiting.back() {
            Some(last) if last.needs.revision > needs.revision => {
                self.waiting.partition_point(|waiting| waiting.needs.revision <= needs.revision)
            }
            _ => self.waiting.len(),
        };
        let before = place.checked_sub(1).map(|before| self.waiting[before].needs.revision);
        assert!(
            before.is_none_or(|before| before <= needs.revision),
            "replies stand in the order of what they need"
        );
        self.waiting.insert(place, WaitingReply { needs, call, answer });
    }

    /// The next reply that may leave.
    pub fn next(&mut self, settled: Revision) -> Option<(CallId, Answer)> {
        let mut reached = self.waiting.iter().take_while(|waiting| waiting.needs.revision <= settled);
        let place = reached.position(|waiting| self.lets_pass(waiting.needs, settled))?;
        self.waiting.remove(place).map(|WaitingReply { call, answer, .. }| (call, answer))
    }

    /// The lowest revision that a reply waits for, above what is settled.
    pub fn waits_for(&self, settled: Revision) -> Option<Revision> {
        let reached = self.waiting.partition_point(|waiting| waiting.needs.revision <= settled);
        self.waiting.get(reached).map(|waiting| waiting.needs.revision)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether somebody waits for a round that has not begun.
    pub fn wants_round(&self) -> bool {
        self.wanted
    }

    /// The epoch is over: its calls fail otherwise.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Error;
    use crate::types::ReactorId;

    fn held(gate: &mut Gate, number: u64, needs: Needs) {
        gate.hold(needs, CallId { reactor: ReactorId(0), number }, Err(Error::Timeout));
    }

    fn passed(gate: &mut Gate, settled: u64) -> Vec<u64> {
        std::iter::from_fn(|| gate.next(Revision(settled))).map(|(call, _)| call.number).collect()
    }

    #[test]
    fn replies_leave_in_the_order_of_the_revisions_they_depend_on() {
        let mut gate = Gate::default();
        for (number, revision) in [(1, 5), (2, 7), (3, 6), (4, 5)] {
            held(&mut gate, number, Needs::entry(Revision(revision)));
        }
        assert_eq!((passed(&mut gate, 4), gate.waits_for(Revision(4))), (vec![], Some(Revision(5))));
        assert_eq!((passed(&mut gate, 6), gate.waits_for(Revision(6))), (vec![1, 4, 3], Some(Revision(7))));
        gate.clear();
        assert_eq!(passed(&mut gate, 9), [0u64; 0]);
    }

    #[test]
    fn a_reply_without_an_entry_waits_for_a_round_as_well() {
        let mut gate = Gate::default();
        let lone = gate.unbacked(true, Revision(5));
        assert!(gate.lets_pass(lone, Revision(5)) && !gate.lets_pass(lone, Revision(4)));
        // With other members a round takes a while.
        let needs = gate.unbacked(false, Revision(5));
        held(&mut gate, 1, needs);
        held(&mut gate, 2, Needs::entry(Revision(6)));
        assert_eq!(passed(&mut gate, 6), [2], "one that an entry backs does not wait behind it");
        let begun = gate.begin_round().unwrap();
        assert_eq!((passed(&mut gate, 6), gate.begin_round()), (vec![], None));
        // One that is evaluated now is not vouched for by a round that has begun.
        let later = gate.unbacked(false, Revision(5));
        held(&mut gate, 3, later);
        gate.confirm(begun);
        assert_eq!(passed(&mut gate, 6), [1]);
        let begun = gate.begin_round().unwrap();
        gate.confirm(begun);
        assert_eq!(passed(&mut gate, 6), [3]);
    }
}
