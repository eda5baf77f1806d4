//! The order of a takeover's steps over all reactors, at the reactor of the control shard.
//!
//! One step is under way at a time, and the next is asked for when every reactor has answered. An answer
//! counts only for the step that was asked, in the epoch that it names: one that was late belongs to an
//! attempt that is over. No step is repeated: what fails ends the epoch, and the next one begins with *Stop*.

use super::{Holding, Hole, longest_run};
use crate::types::{Epoch, ReactorId, Revision};

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
        let mut coordinator = Coordinator { phase: Phase::Stopping, epoch: last, waiting: vec![], reactors };
        coordinator.ask_all();
        coordinator
    }

    fn ask_all(&mut self) {
        self.waiting = (0..self.reactors).map(ReactorId).collect();
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
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
        self.epoch = Epoch { term, attempt: self.epoch.attempt + 1 };
        self.phase = Phase::FencingControl;
        Some(Step::FenceControl { epoch: self.epoch })
    }

    /// The control shard's fence, and its first entry where it is new, are committed.
    pub fn control_fenced(&mut self, epoch: Epoch) -> Option<Step> {
        if epoch != self.epoch || !matches!(self.phase, Phase::FencingControl) {
            return None;
        }
        self.phase = Phase::Fencing(vec![]);
        self.ask_all();
        Some(Step::Fence { epoch })
    }

    pub fn stopped(&mut self, reactor: ReactorId) {
        if matches!(self.phase, Phase::Stopping) {
            self.waiting.retain(|waiting| *waiting != reactor);
        }
    }

    /// A hole is final: nothing is sealed, and nothing served.
    pub fn fenced(&mut self, reactor: ReactorId, epoch: Epoch, report: Report) -> Result<Option<Step>, Hole> {
        let Phase::Fencing(reports) = &mut self.phase else { return Ok(None) };
        if epoch != self.epoch || !self.waiting.contains(&reactor) {
            return Ok(None);
        }
        reports.push(report);
        self.waiting.retain(|waiting| *waiting != reactor);
        if !self.waiting.is_empty() {
            return Ok(None);
        }
        let base = reports.iter().map(|report| report.base).max().unwrap_or_default();
        let shards: Vec<Holding> = reports.drain(..).flat_map(|report| report.shards).collect();
        let prefix = longest_run(base, &shards)?;
        self.phase = Phase::Sealing(prefix);
        self.ask_all();
        Ok(Some(Step::Seal { epoch, prefix }))
    }

    pub fn sealed(&mut self, reactor: ReactorId, epoch: Epoch) -> Option<Step> {
        let Phase::Sealing(prefix) = self.phase else { return None };
        if epoch != self.epoch {
            return None;
        }
        self.waiting.retain(|waiting| *waiting != reactor);
        if !self.waiting.is_empty() {
            return None;
        }
        self.phase = Phase::Serving;
        Some(Step::Serve { epoch, prefix })
    }
}
