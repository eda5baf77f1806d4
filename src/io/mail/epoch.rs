//! The steps of a takeover, and what the reactors answer.

use crate::io::ControlCopy;
use crate::record::MemberChange;
use crate::sequencer::Generation;
use crate::takeover::{Report, Step};
use crate::types::{ChangeNumber, Epoch, MemberId, Revision, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Takeovers: the coordinator's steps, and what the reactors answer.
#[derive(Debug)]
pub enum EpochMail {
    /// The generation is the epoch's where the step is the last one, and it takes revisions.
    Step {
        step: Step,
        generation: Generation,
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
    /// The whole control state, to begin with, or as it has come from another member.
    Control {
        number: ChangeNumber,
        control: Arc<ControlCopy>,
    },
    /// The control shard's group is in this term. Another member leads and serves, where one is named.
    LeaderIs {
        term: Term,
        leader: Option<MemberId>,
    },
    /// The leadership is to be another member's: nothing new is taken on, and what is under way is done.
    Drain,
    /// Nothing is under way at the sender any more, and these members have all that its groups' logs have.
    Drained {
        caught_up: Vec<MemberId>,
    },
    /// The leadership stays here.
    GoOn,
    /// The sender turns: who leads and has a reactor that does not gives up.
    Turns {
        /// How many steps of the takeover its shards have behind them.
        steps: u64,
        /// A group that it leads has proposed what no other member has acknowledged.
        waits_for_others: bool,
        /// How many entries the logs of its shards have had, and how many of those that it leads each member has.
        entries: u64,
        matched: BTreeMap<MemberId, u64>,
        /// Who has nearly all of all of these.
        in_sync: BTreeSet<MemberId>,
    },
    /// The sender's groups, but the control shard's, have the peers that these changes of members want.
    Peered {
        done: BTreeSet<(MemberId, MemberChange)>,
    },
    /// The sender's shards may show everything up to here, and nothing that is below what one of them holds ahead.
    Covered {
        revision: Revision,
        ahead: Revision,
    },
}

impl EpochMail {
    /// Whether it means the same in a later epoch.
    pub fn outlives_epochs(&self) -> bool {
        true
    }
}
