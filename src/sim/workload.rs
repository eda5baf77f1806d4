//! What clients ask: every kind of request over a few keys of all shards.

use super::plan::OpKind;
use crate::stdx::Rng;
use crate::types::MemberId;
use crate::wire::proto::{self, Message, compare::TargetUnion, request_op::Request as Union};
use bytes::Bytes;

/// Keys on both sides of every cut that the default map makes.
pub const KEYS: [&str; 18] = [
    "a",
    "b",
    "/registry/configmaps/c",
    "/registry/endpointslices/e",
    "/registry/events/a",
    "/registry/events/b",
    "/registry/f",
    "/registry/leases/a",
    "/registry/leases/b",
    "/registry/m",
    "/registry/pods/a",
    "/registry/pods/b",
    "/registry/pods/c",
    "/registry/q",
    "/registry/secrets/s",
    "/registry/services/s",
    "/registry0",
    "z",
];

/// What a client knows when it asks.
pub struct Knows<'a> {
    /// The number of the call, which makes its values unique.
    pub op: usize,
    /// The newest revision that any answer showed it.
    pub revision: i64,
    /// Up to here history may be compacted: the observer has it.
    pub observed: i64,
    pub leases: &'a [i64],
    pub value_bytes: u64,
    pub member: u64,
    pub members: &'a [MemberId],
}

pub struct Asker<'a> {
    pub rng: Rng,
    pub knows: Knows<'a>,
    values: u64,
}

/// What begins the value of a call's puts.
pub fn tag(op: usize) -> String {
    format!("#{op}.")
}

/// The call that wrote a value.
pub fn tagged(value: &[u8]) -> Option<usize> {
    let text = value.strip_prefix(b"#")?;
    let end = text.iter().position(|byte| *byte == b'.')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

impl Asker<'_> {
    pub fn new(rng: Rng, knows: Knows<'_>) -> Asker<'_> {
        Asker { rng, knows, values: 0 }
    }

    /// The message of a call. Watches have their own.
    pub fn request(&mut self, kind: OpKind) -> Bytes {
        match kind {
            OpKind::Put => self.put().encode_to_vec(),
            OpKind::Delete => self.delete().encode_to_vec(),
            OpKind::Txn => self.txn(2).encode_to_vec(),
            OpKind::Range => self.range().encode_to_vec(),
            OpKind::RangeStream => self.plain_range().encode_to_vec(),
            OpKind::Compact => {
                let back = *self.rng.pick(&[1, 3, 20]);
                let revision = (self.knows.observed - self.rng.below(back) as i64).max(1);
                proto::CompactionRequest { revision, physical: self.rng.chance(1, 3) }.encode_to_vec()
            }
            OpKind::Grant => {
                let ttl = 1 + self.rng.below(9) as i64;
                proto::LeaseGrantRequest { ttl, id: self.knows.op as i64 + 1 }.encode_to_vec()
            }
            OpKind::KeepAlive => proto::LeaseKeepAliveRequest { id: self.lease() }.encode_to_vec(),
            OpKind::Revoke => proto::LeaseRevokeRequest { id: self.lease() }.encode_to_vec(),
            OpKind::TimeToLive => {
                proto::LeaseTimeToLiveRequest { id: self.lease(), keys: self.rng.chance(1, 2) }
                    .encode_to_vec()
            }
            OpKind::HashKv => {
                let revision = if self.rng.chance(1, 2) { 0 } else { self.old_revision() };
                proto::HashKvRequest { revision }.encode_to_vec()
            }
            OpKind::Status => proto::StatusRequest {}.encode_to_vec(),
            OpKind::Alarms => {
                let alarm = self.rng.below(2) as i32;
                proto::AlarmRequest { action: 0, member_id: 0, alarm }.encode_to_vec()
            }
            OpKind::Members => {
                proto::MemberListRequest { linearizable: self.rng.chance(1, 2) }.encode_to_vec()
            }
            OpKind::Leases | OpKind::Hash | OpKind::Defragment => vec![],
            OpKind::Disarm => {
                proto::AlarmRequest { action: 2, member_id: self.knows.member, alarm: 1 }.encode_to_vec()
            }
            OpKind::MoveLeader => {
                let target_id = self.rng.pick(self.knows.members).0;
                proto::MoveLeaderRequest { target_id }.encode_to_vec()
            }
            OpKind::Watch | OpKind::WatchMore => unreachable!("a watch is a stream"),
        }
        .into()
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(self.rng.pick(&KEYS).as_bytes())
    }

    fn end(&mut self) -> Bytes {
        match self.rng.below(4) {
            0 => self.key(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"/registry0"),
            _ => Bytes::new(),
        }
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        let mut value = format!("{}{}.", tag(self.knows.op), self.values).into_bytes();
        let more = self.rng.below(self.knows.value_bytes) as usize;
        value.resize(value.len() + more, b'x');
        value.into()
    }

    fn lease(&mut self) -> i64 {
        if self.knows.leases.is_empty() || self.rng.chance(1, 20) {
            return 1_000_000;
        }
        *self.rng.pick(self.knows.leases)
    }

    fn old_revision(&mut self) -> i64 {
        (self.knows.revision - self.rng.below(25) as i64).max(1)
    }

    fn put(&mut self) -> proto::PutRequest {
        let ignore_value = self.rng.chance(1, 15);
        let ignore_lease = self.rng.chance(1, 15);
        let leased = !ignore_lease && self.rng.chance(1, 3) && !self.knows.leases.is_empty();
        proto::PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if leased { self.lease() } else { 0 },
            prev_kv: self.rng.chance(1, 2),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> proto::DeleteRangeRequest {
        let range_end = if self.rng.chance(1, 3) { self.end() } else { Bytes::new() };
        proto::DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.rng.chance(1, 2) }
    }

    fn plain_range(&mut self) -> proto::RangeRequest {
        proto::RangeRequest {
            key: if self.rng.chance(1, 3) { Bytes::from_static(b"\0") } else { self.key() },
            range_end: self.end(),
            limit: if self.rng.chance(1, 3) { 1 + self.rng.below(6) as i64 } else { 0 },
            revision: if self.rng.chance(1, 4) { self.old_revision() } else { 0 },
            serializable: self.rng.chance(1, 4),
            keys_only: self.rng.chance(1, 6),
            count_only: self.rng.chance(1, 6),
            ..Default::default()
        }
    }

    fn range(&mut self) -> proto::RangeRequest {
        let mut range = self.plain_range();
        if self.rng.chance(1, 5) {
            range.sort_order = self.rng.below(3) as i32;
            range.sort_target = self.rng.below(5) as i32;
        }
        if self.rng.chance(1, 10) {
            range.min_mod_revision = self.old_revision();
        }
        range
    }

    /// What a compaction may take while the transaction is under way.
    fn range_in_txn(&mut self) -> proto::RangeRequest {
        let mut range = self.range();
        if self.rng.chance(1, 3) {
            range.revision = (self.knows.observed - self.rng.below(4) as i64).max(1);
        }
        range
    }

    fn txn(&mut self, depth: u64) -> proto::TxnRequest {
        proto::TxnRequest {
            compare: (0..self.rng.below(3)).map(|_| self.compare()).collect(),
            success: (0..self.rng.below(4)).map(|_| self.op(depth)).collect(),
            failure: (0..self.rng.below(3)).map(|_| self.op(depth)).collect(),
        }
    }

    fn op(&mut self, depth: u64) -> proto::RequestOp {
        let request = match self.rng.below(if depth > 0 { 12 } else { 10 }) {
            0..6 => Union::RequestPut(self.put()),
            6..8 => Union::RequestRange(self.range_in_txn()),
            8..10 => Union::RequestDeleteRange(self.delete()),
            _ => Union::RequestTxn(self.txn(depth - 1)),
        };
        proto::RequestOp { request: Some(request) }
    }

    fn compare(&mut self) -> proto::Compare {
        let revision = self.old_revision();
        let (target, union) = match self.rng.below(5) {
            0 => (0, TargetUnion::Version(self.rng.below(3) as i64)),
            1 => (1, TargetUnion::CreateRevision(if self.rng.chance(1, 2) { 0 } else { revision })),
            2 => (2, TargetUnion::ModRevision(if self.rng.chance(1, 3) { 0 } else { revision })),
            3 => {
                let of = self.rng.below(self.knows.op as u64 + 1) as usize;
                (3, TargetUnion::Value(format!("{}1.", tag(of)).into()))
            }
            _ => (4, TargetUnion::Lease(if self.rng.chance(1, 2) { 0 } else { self.lease() })),
        };
        proto::Compare {
            result: self.rng.below(4) as i32,
            target,
            key: self.key(),
            range_end: if self.rng.chance(1, 4) { self.end() } else { Bytes::new() },
            target_union: Some(union),
        }
    }

    pub fn watch(&mut self) -> proto::WatchCreateRequest {
        let filters = match self.rng.below(6) {
            0 => vec![0],
            1 => vec![1],
            _ => vec![],
        };
        proto::WatchCreateRequest {
            key: if self.rng.chance(1, 2) { Bytes::from_static(b"\0") } else { self.key() },
            range_end: self.end(),
            start_revision: match self.rng.below(4) {
                0 | 1 => 0,
                2 => self.old_revision(),
                _ => self.knows.revision + 1 + self.rng.below(20) as i64,
            },
            progress_notify: self.rng.chance(1, 4),
            filters,
            prev_kv: self.rng.chance(1, 2),
            watch_id: if self.rng.chance(1, 5) { 1 + self.rng.below(5) as i64 } else { 0 },
            fragment: self.rng.chance(1, 4),
        }
    }
}
