//! What every reactor of a member hears of the others, and is asked of itself.

use crate::io::CallId;
use crate::mvcc::Sizes;
use crate::record::{ControlEntry, MemberRecord};
use crate::types::{ChangeNumber, ClockReading, Index, MemberId, Revision};
use std::sync::Arc;

/// What every reactor of a member hears, and what it is asked of itself.
#[derive(Debug)]
pub enum MemberMail {
    /// A change of the control state takes effect at this member, which leads, and at the receiver with this.
    ControlIs {
        number: ChangeNumber,
        index: Index,
        change: Arc<ControlEntry>,
    },
    /// These, of which the last has the number, take effect at this member once every reactor has them.
    ControlComes {
        number: ChangeNumber,
        changes: Arc<Vec<(Index, ControlEntry)>>,
    },
    /// Every reactor has them: more takes effect than at the receiver's last step.
    ControlShown,
    /// Another member has said at the sender that this one is none any more.
    Removed,
    /// Another member's process, which has so many reactors, is connected.
    PeerIs {
        member: MemberId,
        reactors: u16,
        boot: u64,
    },
    /// What others have said of the members, or this one's log, which the control state is behind.
    Book {
        as_of: Index,
        members: Arc<Vec<MemberRecord>>,
    },
    /// What the clock of a member that leads shows.
    LeaderClock {
        member: MemberId,
        clock: ClockReading,
    },
    /// The process ends: no new calls are taken, and those under way are answered.
    Close,
    /// At the sender they are.
    Closed,
    /// They are everywhere, and other members are told.
    Leave,
    /// The sender's log has all that was moved into it at the start, durably.
    MovedIn,
    /// Every reactor here has dropped the history up to this revision.
    HistoryDropped {
        upto: Revision,
    },
    Census {
        call: CallId,
    },
    Sizes {
        sizes: Sizes,
    },
    /// Write checkpoints of all shards now, and say when they are done.
    Defragment {
        call: CallId,
    },
}

impl MemberMail {
    /// Whether it means the same in a later epoch.
    pub fn outlives_epochs(&self) -> bool {
        match self {
            // The sender tells of each change once the reactor has a whole state, and the steps of takeovers come
            // in between in their order.
            MemberMail::ControlIs { .. } | MemberMail::ControlComes { .. } => true,
            MemberMail::ControlShown | MemberMail::PeerIs { .. } | MemberMail::LeaderClock { .. } => true,
            MemberMail::Book { .. } | MemberMail::Removed => true,
            MemberMail::HistoryDropped { .. } | MemberMail::MovedIn => true,
            MemberMail::Census { .. } | MemberMail::Sizes { .. } | MemberMail::Defragment { .. } => true,
            MemberMail::Close | MemberMail::Closed | MemberMail::Leave => true,
        }
    }
}
