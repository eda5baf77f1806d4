//! The steps of a takeover, and what the reactors answer.

use crate::io::ControlCopy;
use crate::takeover::{Report, Step};
use crate::types::Epoch;
use std::sync::Arc;

/// Takeovers: the coordinator's steps, and what the reactors answer.
#[derive(Debug)]
pub enum EpochMail {
    Step {
        step: Step,
        control: Option<Arc<ControlCopy>>,
    },
    Stopped,
    Fenced {
        epoch: Epoch,
        report: Report,
    },
    Sealed {
        epoch: Epoch,
    },
    /// A group was lost: the epoch cannot go on.
    Lost,
}

impl EpochMail {
    /// Whether it means the same in a later epoch.
    pub fn outlives_epochs(&self) -> bool {
        true
    }
}
