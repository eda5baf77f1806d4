//! Replies: [`crate::api`] to etcd's protobuf, values copied once, from the store into the output.
//!
//! The header follows etcd's laws: the outer one names cluster, member, term and revision; those of a
//! transaction's operations have the revision alone; that of a nested transaction is present and empty;
//! `Cluster` leaves the revision out; `Defragment` has no header; a range stream has one in its last chunk.

mod long;
#[cfg(test)]
mod tests;

pub use long::{LongMessage, is_long, is_long_range, is_long_watch, txn_weight};

use super::sink::{Length, ProtoMessage, Sink};
use super::{SERVER_VERSION, STORAGE_VERSION};
use crate::api::{
    Alarm, AlarmType, DeleteRangeReply, KeepAliveReply, KeysOnly, LeaseTimeToLiveReply, Member, OpReply,
    PutReply, RangeReply, Reply, ServingStatus, StatusReply, TxnReply, WatchEvent, WatchReply,
};
use crate::types::{ClusterId, Event, KeyValue, LeaseId, MemberId, Revision, Term};
use bytes::Bytes;

/// The field of a Watch message that holds its events.
const EVENTS: u32 = 11;

/// What every outer header says beside the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub cluster: ClusterId,
    /// The answering member.
    pub member: MemberId,
    pub raft_term: Term,
}

/// A message longer than may be sent. Nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub bytes: usize,
}

/// Appends the reply of a unary call, of at most `bytes_max` as all messages here.
pub fn reply(out: &mut Vec<u8>, header: &Header, reply: &Reply, bytes_max: usize) -> Result<(), TooLong> {
    append(out, &Outer { header, reply }, bytes_max)
}

/// The bytes that the reply of a unary call takes.
pub fn reply_length(header: &Header, reply: &Reply) -> usize {
    Length::of(&Outer { header, reply })
}

/// Appends a message of a Watch stream.
pub fn watch(
    out: &mut Vec<u8>,
    header: &Header,
    reply: &WatchReply,
    bytes_max: usize,
) -> Result<(), TooLong> {
    append(out, &Watched { header, reply }, bytes_max)
}

/// Appends a message of a LeaseKeepAlive stream.
pub fn keep_alive(
    out: &mut Vec<u8>,
    header: &Header,
    reply: &KeepAliveReply,
    bytes_max: usize,
) -> Result<(), TooLong> {
    append(out, &KeptAlive { header, reply }, bytes_max)
}

/// The message that asks for a renewal of a lease.
pub fn keep_alive_request(lease: LeaseId) -> Bytes {
    struct RenewalOf(LeaseId);
    impl ProtoMessage for RenewalOf {
        fn fields(&self, sink: &mut impl Sink) {
            sink.int(1, self.0.0);
        }
    }
    let mut out = vec![];
    RenewalOf(lease).fields(&mut out);
    Bytes::from(out)
}

/// Appends a chunk of a range stream. Header, `more` and `count` go into the last chunk only, so that the
/// chunks merged are the reply of a unary Range.
pub fn range_chunk(
    out: &mut Vec<u8>,
    header: &Header,
    chunk: &RangeReply,
    last: bool,
    bytes_max: usize,
) -> Result<(), TooLong> {
    append(out, &RangeChunk { header, chunk, last }, bytes_max)
}

/// The bytes [`range_chunk`] would append: what etcd adapts its chunks by.
pub fn range_chunk_length(header: &Header, chunk: &RangeReply, last: bool) -> usize {
    Length::of(&RangeChunk { header, chunk, last })
}

fn append(out: &mut Vec<u8>, message: &impl ProtoMessage, bytes_max: usize) -> Result<(), TooLong> {
    let length = Length::of(message);
    if length > bytes_max {
        return Err(TooLong { bytes: length });
    }
    out.reserve(length);
    let before = out.len();
    message.fields(out);
    assert_eq!(out.len() - before, length, "a message is as long as it was counted");
    Ok(())
}

/// A header with whatever is known where it stands.
#[derive(Clone, Copy)]
struct HeaderOf<'a> {
    outer: Option<&'a Header>,
    revision: Revision,
}

impl HeaderOf<'_> {
    /// The header of an operation inside a transaction.
    fn inner(revision: Revision) -> HeaderOf<'static> {
        HeaderOf { outer: None, revision }
    }
}

impl Header {
    fn at(&self, revision: Revision) -> HeaderOf<'_> {
        HeaderOf { outer: Some(self), revision }
    }
}

impl ProtoMessage for HeaderOf<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        if let Some(outer) = self.outer {
            sink.uint(1, outer.cluster.0);
            sink.uint(2, outer.member.0);
        }
        sink.int(3, self.revision.wire());
        if let Some(outer) = self.outer {
            sink.uint(4, outer.raft_term.0);
        }
    }
}

struct Outer<'a> {
    header: &'a Header,
    reply: &'a Reply,
}

impl ProtoMessage for Outer<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        let Outer { header, reply } = self;
        match reply {
            Reply::Range(reply) => range(sink, header.at(reply.revision), reply),
            Reply::Put(reply) => put(sink, header.at(reply.revision), reply),
            Reply::DeleteRange(reply) => delete_range(sink, header.at(reply.revision), reply),
            Reply::Txn(reply) => txn(sink, header.at(reply.revision), reply),
            Reply::Compact { revision }
            | Reply::LeaseRevoke { revision }
            | Reply::UserList { revision }
            | Reply::RoleList { revision } => sink.message(1, &header.at(*revision)),
            Reply::AuthStatus { revision } => {
                sink.message(1, &header.at(*revision));
                // That of a store which has never had a user or a role.
                sink.uint(3, 1);
            }
            Reply::LeaseGrant { revision, lease, ttl } => {
                sink.message(1, &header.at(*revision));
                sink.int(2, lease.0);
                sink.int(3, *ttl);
            }
            Reply::LeaseTimeToLive(reply) => time_to_live(sink, header, reply),
            Reply::LeaseLeases { revision, leases } => {
                sink.message(1, &header.at(*revision));
                leases.iter().for_each(|lease| sink.message(2, lease));
            }
            Reply::MemberList { members } => {
                sink.message(1, &header.at(Revision::NONE));
                members.iter().for_each(|member| sink.message(2, member));
            }
            Reply::MemberAdded { member, members } => {
                sink.message(1, &header.at(Revision::NONE));
                sink.message(2, member);
                members.iter().for_each(|member| sink.message(3, member));
            }
            Reply::Alarm { revision, alarms } => {
                sink.message(1, &header.at(*revision));
                alarms.iter().for_each(|alarm| sink.message(2, alarm));
            }
            Reply::Status(reply) => status(sink, header, reply),
            Reply::Defragment | Reply::MoveLeader => {}
            Reply::Hash { revision, hash } => {
                sink.message(1, &header.at(*revision));
                sink.uint(2, u64::from(*hash));
            }
            Reply::HashKv { revision, hash, compact_revision, hash_revision } => {
                sink.message(1, &header.at(*revision));
                sink.uint(2, u64::from(*hash));
                // Before any compaction etcd shows -1.
                let compacted = compact_revision.wire();
                sink.int(3, if compacted == 0 { -1 } else { compacted });
                sink.int(4, *hash_revision);
            }
            Reply::KeepAlive(reply) => KeptAlive { header, reply }.fields(sink),
            Reply::Encoded(bytes) => sink.raw(bytes),
            Reply::Health(status) => status.fields(sink),
            Reply::HealthList(status) => sink.message(1, &WholeServer(*status)),
        }
    }
}

impl ProtoMessage for ServingStatus {
    fn fields(&self, sink: &mut impl Sink) {
        let number = match self {
            ServingStatus::Serving => 1,
            ServingStatus::ServiceUnknown => 3,
        };
        sink.uint(1, number);
    }
}

/// An entry of the map of statuses: the service without a name is the server as a whole.
struct WholeServer(ServingStatus);

impl ProtoMessage for WholeServer {
    fn fields(&self, sink: &mut impl Sink) {
        sink.element(1, b"");
        sink.message(2, &self.0);
    }
}

/// A count as etcd's messages carry it.
fn count(n: u64) -> i64 {
    i64::try_from(n).expect("what is counted fits into memory")
}

struct Kv<'a> {
    kv: &'a KeyValue,
    keys_only: KeysOnly,
}

impl<'a> Kv<'a> {
    fn whole(kv: &'a KeyValue) -> Kv<'a> {
        Kv { kv, keys_only: KeysOnly::No }
    }
}

impl ProtoMessage for Kv<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        let Kv { kv, keys_only } = self;
        sink.bytes(1, &kv.key);
        sink.int(2, kv.create_revision.wire());
        sink.int(3, kv.mod_revision.wire());
        sink.int(4, count(kv.version));
        if *keys_only == KeysOnly::No {
            sink.bytes(5, &kv.value);
        }
        if *keys_only != KeysOnly::WithoutValueAndLease {
            sink.int(6, kv.lease.0);
        }
    }
}

fn range(sink: &mut impl Sink, header: HeaderOf, reply: &RangeReply) {
    sink.message(1, &header);
    pairs(sink, reply);
    counts(sink, reply);
}

fn pairs(sink: &mut impl Sink, reply: &RangeReply) {
    for kv in &reply.kvs {
        sink.message(2, &Kv { kv, keys_only: reply.keys_only });
    }
}

fn counts(sink: &mut impl Sink, reply: &RangeReply) {
    sink.bool(3, reply.more);
    sink.int(4, count(reply.count));
}

fn put(sink: &mut impl Sink, header: HeaderOf, reply: &PutReply) {
    sink.message(1, &header);
    if let Some(kv) = &reply.prev_kv {
        sink.message(2, &Kv::whole(kv));
    }
}

fn delete_range(sink: &mut impl Sink, header: HeaderOf, reply: &DeleteRangeReply) {
    sink.message(1, &header);
    sink.int(2, count(reply.deleted));
    for kv in &reply.prev_kvs {
        sink.message(3, &Kv::whole(kv));
    }
}

fn txn(sink: &mut impl Sink, header: HeaderOf, reply: &TxnReply) {
    sink.message(1, &header);
    sink.bool(2, reply.succeeded);
    reply.responses.iter().for_each(|response| sink.message(3, response));
}

/// The member of etcd's union of responses.
impl ProtoMessage for OpReply {
    fn fields(&self, sink: &mut impl Sink) {
        sink.message(op_field(self), &OpBody(self));
    }
}

fn op_field(reply: &OpReply) -> u32 {
    match reply {
        OpReply::Range(_) => 1,
        OpReply::Put(_) => 2,
        OpReply::DeleteRange(_) => 3,
        OpReply::Txn(_) => 4,
    }
}

struct OpBody<'a>(&'a OpReply);

impl ProtoMessage for OpBody<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        match self.0 {
            OpReply::Range(reply) => range(sink, HeaderOf::inner(reply.revision), reply),
            OpReply::Put(reply) => put(sink, HeaderOf::inner(reply.revision), reply),
            OpReply::DeleteRange(reply) => delete_range(sink, HeaderOf::inner(reply.revision), reply),
            OpReply::Txn(reply) => txn(sink, HeaderOf::inner(Revision::NONE), reply),
        }
    }
}

struct RangeChunk<'a> {
    header: &'a Header,
    chunk: &'a RangeReply,
    last: bool,
}

impl ProtoMessage for RangeChunk<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        sink.message(1, &ChunkBody(self));
    }
}

struct ChunkBody<'a>(&'a RangeChunk<'a>);

impl ProtoMessage for ChunkBody<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        let RangeChunk { header, chunk, last } = self.0;
        if *last {
            range(sink, header.at(chunk.revision), chunk);
        } else {
            pairs(sink, chunk);
        }
    }
}

impl ProtoMessage for LeaseId {
    fn fields(&self, sink: &mut impl Sink) {
        sink.int(1, self.0);
    }
}

fn time_to_live(sink: &mut impl Sink, header: &Header, reply: &LeaseTimeToLiveReply) {
    sink.message(1, &header.at(reply.revision));
    sink.int(2, reply.lease.0);
    sink.int(3, reply.ttl);
    sink.int(4, reply.granted_ttl);
    reply.keys.iter().for_each(|key| sink.element(5, key));
}

impl ProtoMessage for Member {
    fn fields(&self, sink: &mut impl Sink) {
        sink.uint(1, self.id.0);
        sink.bytes(2, self.name.as_bytes());
        self.peer_urls.iter().for_each(|url| sink.element(3, url.as_bytes()));
        self.client_urls.iter().for_each(|url| sink.element(4, url.as_bytes()));
        sink.bool(5, self.is_learner);
    }
}

impl ProtoMessage for Alarm {
    fn fields(&self, sink: &mut impl Sink) {
        sink.uint(1, self.member.0);
        let number = match self.alarm {
            AlarmType::None => 0,
            AlarmType::NoSpace => 1,
            AlarmType::Corrupt => 2,
            AlarmType::Unknown(other) => other,
        };
        sink.int(2, i64::from(number));
    }
}

/// A message without fields, or with none set.
struct Empty;

impl ProtoMessage for Empty {
    fn fields(&self, _: &mut impl Sink) {}
}

fn status(sink: &mut impl Sink, header: &Header, reply: &StatusReply) {
    sink.message(1, &header.at(reply.revision));
    sink.bytes(2, SERVER_VERSION.as_bytes());
    sink.int(3, count(reply.db_size_bytes));
    sink.uint(4, reply.leader.0);
    sink.uint(5, reply.raft_index);
    sink.uint(6, reply.raft_term);
    sink.uint(7, reply.raft_applied_index);
    reply.errors.iter().for_each(|error| sink.element(8, error.as_bytes()));
    sink.int(9, count(reply.db_size_in_use_bytes));
    sink.bool(10, reply.is_learner);
    sink.bytes(11, STORAGE_VERSION.as_bytes());
    sink.int(12, reply.db_size_quota_bytes);
    // No downgrade is under way: etcd says so with an empty message, not without one.
    sink.message(13, &Empty);
}

struct Watched<'a> {
    header: &'a Header,
    reply: &'a WatchReply,
}

impl ProtoMessage for Watched<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        let Watched { header, reply } = self;
        sink.message(1, &header.at(reply.revision));
        sink.int(2, reply.watch_id);
        sink.bool(3, reply.created);
        sink.bool(4, reply.canceled);
        sink.int(5, reply.compact_revision.wire());
        sink.bytes(6, reply.cancel_reason.as_bytes());
        sink.bool(7, reply.fragment);
        reply.events.iter().for_each(|event| sink.message(EVENTS, event));
    }
}

impl ProtoMessage for WatchEvent {
    fn fields(&self, sink: &mut impl Sink) {
        match &self.event {
            Event::Put(kv) => sink.message(2, &Kv::whole(kv)),
            Event::Delete { key, mod_revision } => {
                sink.uint(1, 1);
                sink.message(2, &Deleted { key, mod_revision: *mod_revision });
            }
        }
        if let Some(kv) = &self.prev_kv {
            sink.message(3, &Kv::whole(kv));
        }
    }
}

/// What is left of a key that was deleted.
struct Deleted<'a> {
    key: &'a [u8],
    mod_revision: Revision,
}

impl ProtoMessage for Deleted<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        sink.bytes(1, self.key);
        sink.int(3, self.mod_revision.wire());
    }
}

struct KeptAlive<'a> {
    header: &'a Header,
    reply: &'a KeepAliveReply,
}

impl ProtoMessage for KeptAlive<'_> {
    fn fields(&self, sink: &mut impl Sink) {
        let KeptAlive { header, reply } = self;
        sink.message(1, &header.at(reply.revision));
        sink.int(2, reply.lease.0);
        sink.int(3, reply.ttl);
    }
}
