//! Mail between the reactors of a member, and of a reactor to itself: one enum for each conversation.

mod calls;
mod epoch;
mod leader;
mod member;
mod shards;

pub use calls::CallMail;
pub use epoch::EpochMail;
pub use leader::LeaderMail;
pub use member::MemberMail;
pub use shards::ShardMail;

use crate::api::Request;
use crate::checkpoint::ControlState;
use crate::types::{Epoch, LeaseId, ReactorId, Revision, Time};

/// A request under way, numbered by the reactor that answers it to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    pub reactor: ReactorId,
    pub number: u64,
}

/// From one reactor to another.
#[derive(Debug)]
pub struct Mail {
    /// The epoch it was sent in. Mail that could change anything counts in its own epoch alone.
    pub epoch: Epoch,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    Shard(ShardMail),
    Call(CallMail),
    Leader(LeaderMail),
    Epoch(EpochMail),
    Member(MemberMail),
}

impl Body {
    /// Whether it means the same in a later epoch: news of what is settled, answers to reads, and the steps of
    /// takeovers, which name their epoch themselves.
    pub fn outlives_epochs(&self) -> bool {
        match self {
            Body::Shard(mail) => mail.outlives_epochs(),
            Body::Call(mail) => mail.outlives_epochs(),
            Body::Leader(mail) => mail.outlives_epochs(),
            Body::Epoch(mail) => mail.outlives_epochs(),
            Body::Member(mail) => mail.outlives_epochs(),
        }
    }
}

impl From<ShardMail> for Body {
    fn from(mail: ShardMail) -> Body {
        Body::Shard(mail)
    }
}

impl From<CallMail> for Body {
    fn from(mail: CallMail) -> Body {
        Body::Call(mail)
    }
}

impl From<LeaderMail> for Body {
    fn from(mail: LeaderMail) -> Body {
        Body::Leader(mail)
    }
}

impl From<EpochMail> for Body {
    fn from(mail: EpochMail) -> Body {
        Body::Epoch(mail)
    }
}

impl From<MemberMail> for Body {
    fn from(mail: MemberMail) -> Body {
        Body::Member(mail)
    }
}

/// One revision's presence in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOf {
    pub revision: Revision,
    /// In how many shards the revision has a part, the control shard included.
    pub parts: u16,
}

/// What the control shard's reactor decides.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlRequest {
    Client(Request),
    KeepAlive(LeaseId),
}

/// What the leader asks of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// The end of a lease that has expired.
    Expiry(LeaseId),
    /// A compaction, begun then.
    Compactor { revision: Revision, begun: Time },
}

/// What other reactors begin with.
#[derive(Debug)]
pub struct ControlCopy {
    pub state: ControlState,
    /// Whether shards that no log knows may be made: only until the first seal.
    pub may_create: bool,
}
