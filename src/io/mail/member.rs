//! What every reactor of a member hears of the others, and is asked of itself.

use crate::io::CallId;
use crate::mvcc::Sizes;
use crate::record::ControlEntry;
use crate::types::Index;
use std::sync::Arc;

/// What every reactor of a member hears, and what it is asked of itself.
#[derive(Debug)]
pub enum MemberMail {
    ControlIs {
        index: Index,
        change: Arc<ControlEntry>,
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
        matches!(self, MemberMail::Census { .. } | MemberMail::Sizes { .. } | MemberMail::Defragment { .. })
    }
}
