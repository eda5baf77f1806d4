//! What Braid answers. Values are shared with the store.

use super::{AlarmType, Error};
use crate::types::{Blob, Event, KeyValue, LeaseId, MemberId, Revision};
use bytes::Bytes;

/// The revision of a reply's header. Cluster and member id and the Raft term are the front's to add.
pub type Answer = Result<Reply, Error>;

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Range(RangeReply),
    Put(PutReply),
    DeleteRange(DeleteRangeReply),
    Txn(TxnReply),
    Compact {
        revision: Revision,
    },
    LeaseGrant {
        revision: Revision,
        lease: LeaseId,
        ttl: i64,
    },
    LeaseRevoke {
        revision: Revision,
    },
    LeaseTimeToLive(LeaseTimeToLiveReply),
    LeaseLeases {
        revision: Revision,
        leases: Vec<LeaseId>,
    },
    /// The members there are, and after a change those there are then. Its header's revision is 0 (etcd's law for
    /// all of Cluster).
    MemberList {
        members: Vec<Member>,
    },
    MemberAdded {
        member: Member,
        /// All, with the one that was added.
        members: Vec<Member>,
    },
    Alarm {
        revision: Revision,
        alarms: Vec<Alarm>,
    },
    /// Authentication is off, and always was.
    AuthStatus {
        revision: Revision,
    },
    /// Nobody, and nothing.
    UserList {
        revision: Revision,
    },
    RoleList {
        revision: Revision,
    },
    Status(StatusReply),
    /// Without a header (etcd's law).
    Defragment,
    MoveLeader,
    Hash {
        revision: Revision,
        hash: u32,
    },
    HashKv {
        revision: Revision,
        hash: u32,
        compact_revision: Revision,
        /// As the client named it; negative hashes nothing (etcd's law).
        hash_revision: i64,
    },
    KeepAlive(KeepAliveReply),
    /// What another member has answered, as this one's client gets it.
    Encoded(Bytes),
    Health(ServingStatus),
    /// Of every service that has a status of its own: that is the server as a whole.
    HealthList(ServingStatus),
}

impl Reply {
    /// The revision that its header shows; none where it shows none.
    pub fn revision(&self) -> Revision {
        match self {
            Reply::Range(reply) => reply.revision,
            Reply::Put(reply) => reply.revision,
            Reply::DeleteRange(reply) => reply.revision,
            Reply::Txn(reply) => reply.revision,
            Reply::LeaseTimeToLive(reply) => reply.revision,
            Reply::Status(reply) => reply.revision,
            Reply::KeepAlive(reply) => reply.revision,
            Reply::Compact { revision }
            | Reply::LeaseGrant { revision, .. }
            | Reply::LeaseRevoke { revision }
            | Reply::LeaseLeases { revision, .. }
            | Reply::Alarm { revision, .. }
            | Reply::AuthStatus { revision }
            | Reply::UserList { revision }
            | Reply::RoleList { revision }
            | Reply::Hash { revision, .. }
            | Reply::HashKv { revision, .. } => *revision,
            Reply::MemberList { .. }
            | Reply::MemberAdded { .. }
            | Reply::Defragment
            | Reply::MoveLeader
            | Reply::Encoded(_)
            | Reply::Health(_)
            | Reply::HealthList(_) => Revision::NONE,
        }
    }
}

/// `grpc.health.v1`'s statuses, as far as this server gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingStatus {
    Serving,
    /// Only to those who watch; who asks once gets an error.
    ServiceUnknown,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeReply {
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    /// Leave values (and, as etcd does from 3.7 on, leases) out.
    pub keys_only: KeysOnly,
    pub more: bool,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeysOnly {
    #[default]
    No,
    WithoutValue,
    WithoutValueAndLease,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PutReply {
    pub revision: Revision,
    pub prev_kv: Option<KeyValue>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteRangeReply {
    pub revision: Revision,
    pub deleted: u64,
    pub prev_kvs: Vec<KeyValue>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxnReply {
    /// 0 in a nested transaction: there etcd leaves the header empty.
    pub revision: Revision,
    pub succeeded: bool,
    pub responses: Vec<OpReply>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OpReply {
    Range(RangeReply),
    Put(PutReply),
    DeleteRange(DeleteRangeReply),
    Txn(TxnReply),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseTimeToLiveReply {
    pub revision: Revision,
    pub lease: LeaseId,
    /// Seconds left; -1 where there is no such lease.
    pub ttl: i64,
    pub granted_ttl: i64,
    pub keys: Vec<Blob>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    pub member: MemberId,
    pub alarm: AlarmType,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusReply {
    pub revision: Revision,
    pub db_size_bytes: u64,
    pub db_size_in_use_bytes: u64,
    pub db_size_quota_bytes: i64,
    pub leader: MemberId,
    pub raft_index: u64,
    pub raft_applied_index: u64,
    pub raft_term: u64,
    pub errors: Vec<String>,
    pub is_learner: bool,
}

/// One message of a Watch stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchReply {
    pub revision: Revision,
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: Revision,
    pub cancel_reason: &'static str,
    pub fragment: bool,
    pub events: Vec<WatchEvent>,
}

impl WatchReply {
    /// Whether it only says how far the watcher is.
    pub fn is_progress(&self) -> bool {
        self.events.is_empty() && !self.created && !self.canceled
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct WatchEvent {
    pub event: Event,
    pub prev_kv: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveReply {
    pub revision: Revision,
    pub lease: LeaseId,
    /// 0 where the lease is unknown or has expired.
    pub ttl: i64,
}
