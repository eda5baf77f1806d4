//! The order of a takeover's steps over all reactors, at the reactor of the control shard.
//!
//! One step is under way at a time, and the next is asked for when every reactor has answered. An answer
//! counts only for the step that was asked, in the epoch that it names: one that was late belongs to an
//! attempt that is over. No step is repeated: what fails ends the epoch, and the next one begins with *Stop*.

use super::{Holding, Hole, longest_run};
use crate::types::{Epoch, ReactorId, Revision, ShardId};
use std::collections::BTreeSet;

/// What the coordinator asks of all reactors next. Each answers when it is done for all its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The last epoch is over: drop its mail, reservations, parts.
    Stop,
    /// Fence the control shard; only its reactor has something to do.
    FenceControl {
        epoch: Epoch,
    },
    /// Fence every other shard, and report what the logs hold.
    Fence {
        epoch: Epoch,
    },
    Seal {
        epoch: Epoch,
        prefix: Revision,
    },
    Serve {
        epoch: Epoch,
        prefix: Revision,
    },
}

/// What a reactor's shards hold, fenced.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The highest revision that it knows to be settled, from frames, batches, seals and checkpoints.
    pub base: Revision,
    pub shards: Vec<Holding>,
}

#[derive(Debug)]
enum Phase {
    Stopping,
    FencingControl,
    Fencing(Vec<Report>),
    Sealing(Revision),
    Serving,
}

/// One takeover after another.
#[derive(Debug)]
pub struct Coordinator {
    phase: Phase,
    epoch: Epoch,
    /// Who has not answered the step yet.
    waiting: Vec<ReactorId>,
    reactors: u16,
}

impl Coordinator {
    /// Begins with `Stop`, which is all that is asked before the control shard leads. Attempts go on from
    /// `last`, the newest epoch that any log of this member names.
    pub fn new(reactors: u16, last: Epoch) -> Coordinator {
        assert!(reactors > 0, "a takeover is of reactors");
        let mut coordinator = Coordinator { phase: Phase::Stopping, epoch: last, waiting: vec![], reactors };
        coordinator.ask_all();
        coordinator
    }

    /// The answer of a reactor that was asked; each answers once.
    fn answered(&mut self, reactor: ReactorId) {
        let place = self.waiting.iter().position(|waiting| *waiting == reactor);
        let place = place.unwrap_or_else(|| panic!("reactor {reactor} was not asked, or answers twice"));
        self.waiting.swap_remove(place);
    }

    fn ask_all(&mut self) {
        assert!(self.waiting.is_empty() || matches!(self.phase, Phase::Stopping), "a step follows answers");
        self.waiting = (0..self.reactors).map(ReactorId).collect();
    }

    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    /// Whether a takeover is under way, past its first step.
    pub fn is_taking_over(&self) -> bool {
        matches!(self.phase, Phase::FencingControl | Phase::Fencing(_) | Phase::Sealing(_))
    }

    /// The epoch ends, whatever was going on: a group was lost.
    pub fn end(&mut self) -> Step {
        assert!(self.is_taking_over() || self.is_serving(), "an epoch ends once");
        self.phase = Phase::Stopping;
        self.ask_all();
        Step::Stop
    }

    /// Whether all reactors have stopped.
    pub fn may_begin(&self) -> bool {
        matches!(self.phase, Phase::Stopping) && self.waiting.is_empty()
    }

    /// All reactors have stopped and the control shard leads in `term`: a new epoch begins.
    pub fn begin(&mut self, term: crate::types::Term) -> Option<Step> {
        if !self.may_begin() {
            return None;
        }
        assert!(term >= self.epoch.term, "the term of the control shard never falls");
        let epoch = Epoch { term, attempt: self.epoch.attempt.wrapping_add(1) };
        assert!(epoch > self.epoch, "no epoch is used twice: {epoch} after {}", self.epoch);
        self.epoch = epoch;
        self.phase = Phase::FencingControl;
        Some(Step::FenceControl { epoch: self.epoch })
    }

    /// The control shard's fence, and its first entry where it is new, are committed.
    pub fn control_fenced(&mut self, epoch: Epoch) -> Option<Step> {
        if self.is_old(epoch) || !matches!(self.phase, Phase::FencingControl) {
            return None;
        }
        assert!(self.waiting.is_empty(), "all have stopped before anything is fenced");
        self.phase = Phase::Fencing(vec![]);
        self.ask_all();
        Some(Step::Fence { epoch })
    }

    pub fn stopped(&mut self, reactor: ReactorId) {
        assert!(matches!(self.phase, Phase::Stopping), "reactor {reactor} stops unasked");
        self.answered(reactor);
    }

    /// A hole is final: nothing is sealed, and nothing served.
    pub fn fenced(&mut self, reactor: ReactorId, epoch: Epoch, report: Report) -> Result<Option<Step>, Hole> {
        if self.is_old(epoch) {
            return Ok(None);
        }
        let Phase::Fencing(reports) = &mut self.phase else {
            panic!("reactor {reactor} has fenced before it was asked, or twice")
        };
        reports.push(report);
        self.answered(reactor);
        if !self.waiting.is_empty() {
            return Ok(None);
        }
        self.recover(epoch).map(Some)
    }

    /// All have reported: the prefix is known.
    fn recover(&mut self, epoch: Epoch) -> Result<Step, Hole> {
        let Phase::Fencing(reports) = &mut self.phase else { panic!("a prefix is recovered behind fences") };
        assert!(reports.len() == usize::from(self.reactors), "each reactor reports once");
        let base = reports.iter().map(|report| report.base).max().unwrap_or_default();
        let shards: Vec<Holding> = reports.drain(..).flat_map(|report| report.shards).collect();
        let named: BTreeSet<ShardId> = shards.iter().map(|shard| shard.shard).collect();
        assert!(named.len() == shards.len(), "a shard lives on one reactor");
        let prefix = longest_run(base, &shards)?;
        assert!(prefix >= base, "what was settled is kept: {prefix} of {base}");
        self.phase = Phase::Sealing(prefix);
        self.ask_all();
        Ok(Step::Seal { epoch, prefix })
    }

    pub fn sealed(&mut self, reactor: ReactorId, epoch: Epoch) -> Option<Step> {
        if self.is_old(epoch) {
            return None;
        }
        let Phase::Sealing(prefix) = self.phase else {
            panic!("reactor {reactor} has sealed before it was asked, or twice")
        };
        self.answered(reactor);
        if !self.waiting.is_empty() {
            return None;
        }
        self.phase = Phase::Serving;
        Some(Step::Serve { epoch, prefix })
    }

    /// Whether an answer is to a step of an epoch that is over.
    fn is_old(&self, epoch: Epoch) -> bool {
        assert!(epoch <= self.epoch, "epoch {epoch} has not begun: the last one is {}", self.epoch);
        epoch < self.epoch || matches!(self.phase, Phase::Stopping)
    }
}
