//! Who gets no vote for the control shard's group, since it is far behind in others.
//!
//! **The question.** Who leads the control shard's group leads the cluster, and that log seldom grows: who was away
//! has often all of it, and lacks much of the rest. Elected, it would wait until others have handed it their groups,
//! and nobody would be served meanwhile.
//!
//! **The rule.** Who asks for votes says how many entries its logs of all groups have had. Where the asked member's have
//! had more, by more than a bound, it says nothing, unless the asking one's log of the control shard's group is newer.
//!
//! **Why nobody waits for ever.** Of the members that hear each other take those whose log of the control shard's group
//! is newest, and of these one whose logs have had most entries. None of the others refuses it: those with an older log of
//! that group for that reason, and the rest have not had more.
//!
//! **Why not otherwise.** To compare group by group would let two members refuse each other, each ahead in another.

use super::super::turn::Turn;
use super::Epochs;
use crate::raft::{Group, Message, MessageBody};

impl Epochs {
    /// How many entries this member's logs have had, as its reactors have last said.
    pub fn entries(&self) -> u64 {
        self.clock.entries()
    }

    /// Whether somebody who asks for a vote gets none. So many entries its logs have had.
    pub fn refuses_vote(&self, turn: &Turn, group: &Group, message: &Message, entries: u64) -> bool {
        let MessageBody::Vote { last, .. } = message.body else { return false };
        let own = group.last();
        assert!(own.index >= group.committed(), "a log ends behind what is committed of it");
        let is_newer = (last.term, last.index) > (own.term, own.index);
        let behind = self.entries().saturating_sub(entries);
        behind > turn.settings.bounds.behind_entries_max && !is_newer
    }
}
