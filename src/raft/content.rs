//! What an entry holds, as the group, the log and raft-rs each say it.
//!
//! raft-rs reads nothing of an entry but its type; so a change of peers is a record of ours like all else, and
//! raft-rs' own form of it is made where raft-rs asks for it.

use crate::record::{ArchivedConfChange, ArchivedEntry, ConfChange, Payload};
use ::raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

/// What an entry holds. The numbers are the kinds of entries in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing: raft's own, the first of a term.
    Empty,
    /// What the shard proposed.
    Data(Payload),
    /// Another set of peers.
    ConfChange(Payload),
}

const EMPTY: u8 = 0;
const DATA: u8 = 1;
const CONF_CHANGE: u8 = 2;

impl Content {
    /// As the log has it; none where the payload is not of the kind, as far as that is looked at here: what
    /// data say, their reader sees.
    pub fn of(kind: u8, payload: &Payload) -> Option<Content> {
        match kind {
            EMPTY => payload.bytes().is_empty().then_some(Content::Empty),
            DATA => Some(Content::Data(payload.clone())),
            CONF_CHANGE => {
                let content = Content::ConfChange(payload.clone());
                content.conf_change()?.peer()?;
                Some(content)
            }
            _ => None,
        }
    }

    pub fn kind(&self) -> u8 {
        match self {
            Content::Empty => EMPTY,
            Content::Data(_) => DATA,
            Content::ConfChange(_) => CONF_CHANGE,
        }
    }

    /// What the shard proposed, if it is that.
    pub fn data(&self) -> Option<&Payload> {
        match self {
            Content::Data(payload) => Some(payload),
            Content::Empty | Content::ConfChange(_) => None,
        }
    }

    pub fn payload(&self) -> Option<&Payload> {
        match self {
            Content::Empty => None,
            Content::Data(payload) | Content::ConfChange(payload) => Some(payload),
        }
    }

    /// The change of peers, if it is one.
    pub fn conf_change(&self) -> Option<ConfChange> {
        let Content::ConfChange(payload) = self else { return None };
        match payload.entry().ok()? {
            ArchivedEntry::ConfChange(change) => Some(match change {
                ArchivedConfChange::AddVoter(id) => ConfChange::AddVoter(id.to_native()),
                ArchivedConfChange::AddLearner(id) => ConfChange::AddLearner(id.to_native()),
                ArchivedConfChange::Remove(id) => ConfChange::Remove(id.to_native()),
            }),
            _ => None,
        }
    }
}

/// The change as raft-rs takes it.
pub(super) fn to_raft(change: ConfChange) -> ConfChangeV2 {
    assert!(change.peer().is_some(), "0 is nobody in Raft");
    let (kind, id) = match change {
        ConfChange::AddVoter(id) => (ConfChangeType::AddNode, id),
        ConfChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
        ConfChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    let mut single = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    single.set_change_type(kind);
    ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() }
}
