//! What clients ask. Byte fields are slices of the message they came in.

use crate::types::{KeyRange, LeaseId, MemberId};
use bytes::Bytes;

/// A call with one request and one reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseId),
    LeaseTimeToLive {
        lease: LeaseId,
        keys: bool,
    },
    LeaseLeases,
    MemberList {
        linearizable: bool,
    },
    MemberAdd {
        /// As the client sent them.
        peer_urls: Vec<String>,
        is_learner: bool,
    },
    MemberRemove {
        member: MemberId,
    },
    MemberUpdate {
        member: MemberId,
        /// As the client sent them.
        peer_urls: Vec<String>,
    },
    /// A learner is to vote.
    MemberPromote {
        member: MemberId,
    },
    Alarm(AlarmRequest),
    /// A store without users and roles says so.
    AuthStatus,
    UserList,
    RoleList,
    MoveLeader {
        target: MemberId,
    },
    Status,
    Defragment,
    Hash,
    HashKv {
        revision: i64,
    },
    /// `grpc.health.v1.Health/Check`.
    HealthCheck {
        service: String,
    },
    /// `grpc.health.v1.Health/List`.
    HealthList,
}

/// `key` and `range_end` as the client sent them: what they mean says [`RangeRequest::range`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeRequest {
    pub key: Bytes,
    pub range_end: Bytes,
    /// 0 and below: no limit.
    pub limit: i64,
    /// 0 and below: the newest.
    pub revision: i64,
    /// As on the wire: unknown values are refused when the request is checked.
    pub sort_order: i32,
    pub sort_target: i32,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PutRequest {
    pub key: Bytes,
    pub value: Bytes,
    pub lease: LeaseId,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteRangeRequest {
    pub key: Bytes,
    pub range_end: Bytes,
    pub prev_kv: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxnRequest {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    /// No member of the union was set: etcd answers `key not found`.
    Empty,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    pub result: CompareResult,
    pub target: CompareTarget,
    pub key: Bytes,
    pub range_end: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    Equal,
    Greater,
    Less,
    NotEqual,
    /// A number etcd's enum does not name: its comparison is never false.
    Unknown(i32),
}

/// What is compared, with what. An absent union member compares with 0 or empty, as in etcd.
#[derive(Clone, Debug, PartialEq)]
pub enum CompareTarget {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(Bytes),
    Lease(i64),
    Unknown(i32),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompactRequest {
    pub revision: i64,
    pub physical: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseGrantRequest {
    /// Seconds.
    pub ttl: i64,
    /// 0: the server chooses.
    pub id: LeaseId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlarmRequest {
    pub action: AlarmAction,
    pub member: MemberId,
    pub alarm: AlarmType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    Get,
    Activate,
    Deactivate,
    Unknown(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmType {
    None,
    NoSpace,
    Corrupt,
    Unknown(i32),
}

/// What a client sends on a Watch stream.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchRequest {
    Create(WatchCreate),
    Cancel {
        watch_id: i64,
    },
    Progress,
    /// No member of the union was set: ignored.
    Empty,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchCreate {
    pub key: Bytes,
    pub range_end: Bytes,
    pub start_revision: i64,
    pub progress_notify: bool,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    /// 0: the server chooses.
    pub watch_id: i64,
    pub fragment: bool,
}

impl RangeRequest {
    pub fn range(&self) -> KeyRange {
        KeyRange::of(self.key.clone(), self.range_end.clone())
    }
}

impl DeleteRangeRequest {
    pub fn range(&self) -> KeyRange {
        KeyRange::of(self.key.clone(), self.range_end.clone())
    }
}

impl Compare {
    pub fn range(&self) -> KeyRange {
        KeyRange::of(self.key.clone(), self.range_end.clone())
    }
}

impl Request {
    /// About what the request holds in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Request>()
            + match self {
                Request::Range(range) => range.key.len() + range.range_end.len(),
                Request::Put(put) => put.key.len() + put.value.len(),
                Request::DeleteRange(delete) => delete.key.len() + delete.range_end.len(),
                Request::Txn(txn) => txn.bytes(),
                Request::MemberAdd { peer_urls, .. } | Request::MemberUpdate { peer_urls, .. } => {
                    peer_urls.iter().map(|url| size_of::<String>() + url.len()).sum()
                }
                _ => 0,
            }
    }
}

impl TxnRequest {
    /// The key that it looks at or changes first.
    pub fn first_key(&self) -> Option<&Bytes> {
        let compared = self.compare.first().map(|compare| &compare.key);
        compared.or_else(|| self.success.iter().chain(&self.failure).find_map(Op::key))
    }

    /// Whether it only reads: to etcd one with another transaction in it does not.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether it only reads, and nothing that has to be the newest.
    pub fn is_serializable(&self) -> bool {
        let reads_any = |op: &Op| matches!(op, Op::Range(range) if range.serializable);
        self.success.iter().chain(&self.failure).all(reads_any)
    }

    /// About what its compares and operations hold in memory.
    pub fn bytes(&self) -> usize {
        let compares = self.compare.iter().map(|compare| {
            let value = if let CompareTarget::Value(value) = &compare.target { value.len() } else { 0 };
            size_of::<Compare>() + compare.key.len() + compare.range_end.len() + value
        });
        let ops = self.success.iter().chain(&self.failure).map(Op::bytes);
        compares.chain(ops).sum()
    }
}

impl Op {
    fn key(&self) -> Option<&Bytes> {
        match self {
            Op::Put(put) => Some(&put.key),
            Op::Range(range) => Some(&range.key),
            Op::DeleteRange(delete) => Some(&delete.key),
            Op::Txn(_) | Op::Empty => None,
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Op>()
            + match self {
                Op::Range(range) => range.key.len() + range.range_end.len(),
                Op::Put(put) => put.key.len() + put.value.len(),
                Op::DeleteRange(delete) => delete.key.len() + delete.range_end.len(),
                Op::Txn(nested) => nested.bytes(),
                Op::Empty => 0,
            }
    }
}
