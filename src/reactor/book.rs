//! Members that the control state here does not name yet.
//!
//! **The question.** A member hears of changes of the members by the control log, and gets that from its leader. What if
//! it was away while the one that leads now has joined?
//!
//! **The rule.** Beside the control state each member has an address book: what others have told it of the members, as of
//! an entry that it does not have yet, and what its own log says of those who join before that takes effect. Who stands
//! in it is dialed, heard and answered as a member is; once the control state has come so far the book says nothing more.
//!
//! **Why not otherwise.** To take messages from whoever names the right cluster, as etcd does, would take them from those
//! that were removed as well.

use crate::record::MemberRecord;
use crate::types::{Index, MemberId, RaftId};

/// Members as of an entry of the control log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Book {
    as_of: Index,
    members: Vec<MemberRecord>,
}

impl Book {
    pub fn new(as_of: Index, members: Vec<MemberRecord>) -> Book {
        Book { as_of, members }
    }

    pub fn as_of(&self) -> Index {
        self.as_of
    }

    /// Whether it says more than a control state as of that entry, and than this book.
    pub fn is_news(&self, known: Index, before: &Book) -> bool {
        self.as_of > known && (self.as_of, self.members.len()) > (before.as_of, before.members.len())
    }

    /// Those who stand in it, where the control state has come up to that entry.
    pub fn members(&self, known: Index) -> &[MemberRecord] {
        if known < self.as_of { &self.members } else { &[] }
    }

    pub fn member_of(&self, known: Index, id: RaftId) -> Option<MemberId> {
        let is_its = |member: &&MemberRecord| member.raft_ids.iter().any(|of| of.id == id.get());
        self.members(known).iter().find(is_its).map(MemberRecord::id)
    }
}
