//! The calls under way, by their numbers.
//!
//! Numbers rise, and nearly all calls are answered in about the order in which they began: so they stand in a queue,
//! at the place that the number names. The few that stay while many come and go are moved out of it.

use super::{Call, CallState};
use crate::io::CallId;
use crate::types::Time;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct CallTable {
    /// Those begun last, up to the number `made`; what is done leaves a hole, and the first is none.
    recent: VecDeque<Option<Call>>,
    /// Those begun before them.
    old: BTreeMap<u64, Call>,
    len: usize,
    /// What their requests hold in memory.
    pub bytes: usize,
    /// How many of them go through the log.
    proposals: usize,
    /// How many of them are with the leader.
    forwarded: usize,
    made: u64,
}

impl CallTable {
    /// Takes a call in and gives its number.
    pub fn add(&mut self, call: Call) -> u64 {
        self.made += 1;
        self.len += 1;
        self.bytes += call.bytes;
        self.forwarded += usize::from(is_forwarded(&call));
        assert!(!call.proposes, "what goes through the log is told by itself");
        self.recent.push_back(Some(call));
        while self.recent.len() > RECENT_MIN && self.recent.len() > HOLES * self.len {
            let number = self.first();
            let stays = self.recent.pop_front().expect("just counted");
            self.old.extend(stays.map(|call| (number, call)));
        }
        self.made
    }

    /// The number of the first of the recent calls.
    fn first(&self) -> u64 {
        self.made + 1 - self.recent.len() as u64
    }

    /// The place of a number among the recent calls.
    fn place(&self, call: CallId) -> Option<usize> {
        call.number.checked_sub(self.first()).map(|place| place as usize)
    }

    pub fn get_mut(&mut self, call: CallId) -> Option<&mut Call> {
        match self.place(call) {
            Some(place) => self.recent.get_mut(place)?.as_mut(),
            None => self.old.get_mut(&call.number),
        }
    }

    pub fn get(&self, call: CallId) -> Option<&Call> {
        match self.place(call) {
            Some(place) => self.recent.get(place)?.as_ref(),
            None => self.old.get(&call.number),
        }
    }

    pub fn remove(&mut self, call: CallId) -> Option<Call> {
        let removed = match self.place(call) {
            Some(place) => self.recent.get_mut(place)?.take(),
            None => self.old.remove(&call.number),
        }?;
        while self.recent.pop_front_if(|first| first.is_none()).is_some() {}
        self.len -= 1;
        self.bytes -= removed.bytes;
        self.proposals -= usize::from(removed.proposes);
        self.forwarded -= usize::from(is_forwarded(&removed));
        let idle = self.bytes == 0 && self.proposals == 0 && self.forwarded == 0;
        assert!(self.len > 0 || idle, "what calls hold is counted as they are");
        Some(removed)
    }

    /// All with their numbers, in the order in which they began.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Call)> {
        let old = self.old.iter().map(|(number, call)| (*number, call));
        let recent = (self.first()..).zip(&self.recent);
        old.chain(recent.filter_map(|(number, call)| Some((number, call.as_ref()?))))
    }

    /// All of them, in any order.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.old.values_mut().chain(self.recent.iter_mut().flatten())
    }

    /// The call goes through the log.
    pub fn proposes(&mut self, call: CallId) {
        if let Some(call) = self.get_mut(call)
            && !std::mem::replace(&mut call.proposes, true)
        {
            self.proposals += 1;
        }
    }

    pub fn proposals(&self) -> usize {
        self.proposals
    }

    pub fn forwarded(&self) -> usize {
        self.forwarded
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The call has waited before it began: it ends when it would have.
    pub fn until(&mut self, call: CallId, deadline: Time) {
        if let Some(call) = self.get_mut(call) {
            call.deadline = deadline;
        }
    }

    /// What the call asks for goes on, whatever becomes of the epoch.
    pub fn outlives(&mut self, call: CallId) {
        if let Some(call) = self.get_mut(call)
            && matches!(call.state, CallState::Waiting)
        {
            call.state = CallState::Changing;
        }
    }

    /// The call has no deadline: it ends by its answer, or with its epoch.
    pub fn keep(&mut self, call: CallId) {
        if let Some(call) = self.get_mut(call) {
            call.deadline = Time::NEVER;
        }
    }
}

fn is_forwarded(call: &Call) -> bool {
    matches!(call.state, CallState::Forwarded(_))
}

/// So many places stay in the queue whatever they hold, and otherwise as many for each call.
const RECENT_MIN: usize = 64;
const HOLES: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::{CallState, ReplyTo};
    use super::*;
    use crate::io::Own;
    use crate::stdx::Rng;
    use crate::types::{LeaseId, ReactorId};

    fn call(bytes: usize) -> Call {
        let (reply_to, begun) = (ReplyTo::Own(Own::Expiry(LeaseId(1))), Time(0));
        Call { reply_to, state: CallState::Waiting, begun, deadline: begun, bytes, proposes: false }
    }

    #[test]
    fn calls_are_found_by_their_numbers_however_long_they_stay() {
        let mut table = CallTable::default();
        let mut rng = Rng::new(7);
        let mut model: BTreeMap<u64, usize> = BTreeMap::new();
        for step in 0..20_000 {
            if rng.chance(1, 2) || model.is_empty() {
                let number = table.add(call(step));
                assert_eq!(model.insert(number, step), None);
                if step % 2 == 1 {
                    table.proposes(CallId { reactor: ReactorId(0), number });
                }
                assert!(table.recent.len() <= RECENT_MIN.max(HOLES * model.len()));
            } else {
                // Nearly always one of the oldest; a few stay for good.
                let place = if rng.chance(1, 20) { rng.below(model.len() as u64) as usize } else { 3 };
                let number = model.keys().copied().nth(place.min(model.len() - 1)).unwrap();
                let id = CallId { reactor: ReactorId(0), number };
                assert_eq!(table.get(id).map(|call| call.bytes), Some(model[&number]));
                assert_eq!(table.remove(id).map(|call| call.bytes), model.remove(&number));
                assert!(table.get(id).is_none() && table.remove(id).is_none());
            }
        }
        assert!(!table.old.is_empty(), "some have stayed long");
        assert_eq!(table.all().map(|(number, call)| (number, call.bytes)).collect::<BTreeMap<_, _>>(), model);
        assert!(table.all().map(|(number, _)| number).is_sorted());
        assert_eq!((table.len(), table.bytes), (model.len(), model.values().sum()));
        assert_eq!(table.proposals(), model.values().filter(|bytes| *bytes % 2 == 1).count());
    }
}
