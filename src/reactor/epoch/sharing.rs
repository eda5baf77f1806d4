//! What the reactors of this member have of the control state, counted where the control shard lives.

use super::{Epochs, Turn};
use crate::takeover::Step;
use crate::types::{ChangeNumber, Epoch, Index, ReactorId, Revision};
use std::collections::VecDeque;

/// Changes that take effect at all reactors at once, as soon as all have them.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub number: ChangeNumber,
    /// What is shown with them, and the last entry of the log that they are of.
    pub upto: Revision,
    pub index: Index,
}

#[derive(Debug, Default)]
pub(super) struct Sharing {
    last: ChangeNumber,
    /// Who lacks what has a number.
    lacking: VecDeque<(ChangeNumber, Vec<ReactorId>)>,
    under_way: Option<Due>,
    /// The epoch begins to serve once nothing is under way.
    pub(super) begins: Option<Step>,
}

impl Epochs {
    /// The number of the next change, which has taken effect here or is to. The other reactors are told of it, and say
    /// so when they have it.
    pub fn number_change(&mut self, turn: &mut Turn) -> ChangeNumber {
        let sharing = &mut self.sharing;
        sharing.last.0 += 1;
        sharing.lacking.push_back((sharing.last, (1..turn.reactors).map(ReactorId).collect()));
        sharing.last
    }

    /// The changes with this number take effect everywhere, once all have them.
    pub fn await_all(&mut self, due: Due) {
        assert!(self.sharing.under_way.is_none(), "what is due is shared one after the other: {due:?}");
        assert!(due.number == self.sharing.last, "what is shared has the newest number: {due:?}");
        self.sharing.under_way = Some(due);
    }

    /// Whether something is on its way to all.
    pub fn shares(&self) -> bool {
        self.sharing.under_way.is_some()
    }

    /// Whether some reactor lacks something.
    pub fn lacks(&mut self) -> bool {
        self.changes_everywhere() < self.sharing.last
    }

    pub fn on_change_had(&mut self, from: ReactorId, number: ChangeNumber) {
        let lacking = &mut self.sharing.lacking;
        let of = lacking.iter_mut().find(|(of, _)| *of == number);
        let (_, reactors) = of.expect("what has a number is counted until all have it");
        let place = reactors.iter().position(|reactor| *reactor == from);
        reactors.swap_remove(place.expect("a reactor says once that it has what it was told"));
    }

    /// Up to where all reactors have everything.
    pub fn changes_everywhere(&mut self) -> ChangeNumber {
        let sharing = &mut self.sharing;
        while sharing.lacking.pop_front_if(|(_, reactors)| reactors.is_empty()).is_some() {}
        sharing.lacking.front().map_or(sharing.last, |(number, _)| ChangeNumber(number.0 - 1))
    }

    /// What was under way, where all have it.
    pub fn take_due(&mut self) -> Option<Due> {
        let everywhere = self.changes_everywhere();
        self.sharing.under_way.take_if(|due| due.number <= everywhere)
    }

    /// The step with which the epoch begins to serve, where all reactors have sealed.
    pub fn begins(&self) -> Option<(Step, Epoch, Revision)> {
        match self.sharing.begins? {
            step @ Step::Serve { epoch, prefix } => Some((step, epoch, prefix)),
            other => unreachable!("all have sealed, and are asked for {other:?}"),
        }
    }

    /// It does, or is over before.
    pub fn has_begun(&mut self) {
        self.sharing.begins = None;
    }
}
