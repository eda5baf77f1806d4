use super::*;
use crate::stdx::Rng;
use crate::types::Blob;
use crate::wire::proto::{self, response_op::Response};
use prost::Message as _;

const HEADER: Header = Header { cluster: ClusterId(u64::MAX), member: MemberId(7), raft_term: Term(3) };

fn blob(rng: &mut Rng) -> Blob {
    let length = *rng.pick(&[0, 1, 3, 127, 128, 300]);
    Blob::new(&(0..length).map(|_| rng.next_u64() as u8).collect::<Vec<_>>())
}

fn revision(rng: &mut Rng) -> Revision {
    Revision(*rng.pick(&[0, 1, 127, 128, 1 << 40, (1 << 48) - 1]))
}

fn int(rng: &mut Rng) -> i64 {
    *rng.pick(&[0, 1, -1, 300, i64::MAX, i64::MIN])
}

fn flag(rng: &mut Rng) -> bool {
    rng.chance(1, 2)
}

fn text(rng: &mut Rng) -> String {
    (*rng.pick(&["", "a", "http://127.0.0.1:2379", "ü"])).to_owned()
}

fn texts(rng: &mut Rng) -> Vec<String> {
    (0..rng.below(3)).map(|_| text(rng)).collect()
}

fn kv(rng: &mut Rng) -> KeyValue {
    KeyValue {
        key: blob(rng),
        value: blob(rng),
        create_revision: revision(rng),
        mod_revision: revision(rng),
        version: rng.below(1000),
        lease: LeaseId(int(rng)),
    }
}

fn kvs(rng: &mut Rng) -> Vec<KeyValue> {
    (0..rng.below(4)).map(|_| kv(rng)).collect()
}

fn maybe_kv(rng: &mut Rng) -> Option<KeyValue> {
    flag(rng).then(|| kv(rng))
}

fn range_reply(rng: &mut Rng) -> RangeReply {
    let keys_only = *rng.pick(&[KeysOnly::No, KeysOnly::WithoutValue, KeysOnly::WithoutValueAndLease]);
    let (revision, kvs) = (revision(rng), kvs(rng));
    RangeReply { revision, kvs, keys_only, more: flag(rng), count: rng.below(200) }
}

fn put_reply(rng: &mut Rng) -> PutReply {
    PutReply { revision: revision(rng), prev_kv: maybe_kv(rng) }
}

fn delete_reply(rng: &mut Rng) -> DeleteRangeReply {
    DeleteRangeReply { revision: revision(rng), deleted: rng.below(300), prev_kvs: kvs(rng) }
}

fn txn_reply(rng: &mut Rng, depth: u32) -> TxnReply {
    let op = |rng: &mut Rng| match rng.below(if depth == 0 { 3 } else { 4 }) {
        0 => OpReply::Range(range_reply(rng)),
        1 => OpReply::Put(put_reply(rng)),
        2 => OpReply::DeleteRange(delete_reply(rng)),
        _ => OpReply::Txn(txn_reply(rng, depth - 1)),
    };
    let (revision, succeeded) = (revision(rng), flag(rng));
    TxnReply { revision, succeeded, responses: (0..rng.below(4)).map(|_| op(rng)).collect() }
}

fn outer(revision: Revision) -> Option<proto::ResponseHeader> {
    Some(proto::ResponseHeader {
        cluster_id: HEADER.cluster.0,
        member_id: HEADER.member.0,
        revision: revision.0 as i64,
        raft_term: HEADER.raft_term.0,
    })
}

fn inner(revision: Revision) -> Option<proto::ResponseHeader> {
    Some(proto::ResponseHeader { revision: revision.0 as i64, ..Default::default() })
}

fn proto_kv(kv: &KeyValue) -> proto::KeyValue {
    proto::KeyValue {
        key: kv.key.to_vec().into(),
        create_revision: kv.create_revision.0 as i64,
        mod_revision: kv.mod_revision.0 as i64,
        version: kv.version as i64,
        value: kv.value.to_vec().into(),
        lease: kv.lease.0,
    }
}

fn proto_range(header: Option<proto::ResponseHeader>, reply: &RangeReply) -> proto::RangeResponse {
    let mut kvs: Vec<_> = reply.kvs.iter().map(proto_kv).collect();
    for kv in &mut kvs {
        if reply.keys_only != KeysOnly::No {
            kv.value.clear();
        }
        if reply.keys_only == KeysOnly::WithoutValueAndLease {
            kv.lease = 0;
        }
    }
    proto::RangeResponse { header, kvs, more: reply.more, count: reply.count as i64 }
}

fn proto_put(header: Option<proto::ResponseHeader>, reply: &PutReply) -> proto::PutResponse {
    proto::PutResponse { header, prev_kv: reply.prev_kv.as_ref().map(proto_kv) }
}

fn proto_delete(
    header: Option<proto::ResponseHeader>,
    reply: &DeleteRangeReply,
) -> proto::DeleteRangeResponse {
    let prev_kvs = reply.prev_kvs.iter().map(proto_kv).collect();
    proto::DeleteRangeResponse { header, deleted: reply.deleted as i64, prev_kvs }
}

fn proto_txn(header: Option<proto::ResponseHeader>, reply: &TxnReply) -> proto::TxnResponse {
    let response = |reply: &OpReply| proto::ResponseOp {
        response: Some(match reply {
            OpReply::Range(reply) => Response::ResponseRange(proto_range(inner(reply.revision), reply)),
            OpReply::Put(reply) => Response::ResponsePut(proto_put(inner(reply.revision), reply)),
            OpReply::DeleteRange(reply) => {
                Response::ResponseDeleteRange(proto_delete(inner(reply.revision), reply))
            }
            OpReply::Txn(reply) => Response::ResponseTxn(proto_txn(inner(Revision::NONE), reply)),
        }),
    };
    let responses = reply.responses.iter().map(response).collect();
    proto::TxnResponse { header, succeeded: reply.succeeded, responses }
}

/// Our bytes are prost's bytes, so headers that are present and empty are compared too.
fn check(value: &Reply, expected: &impl prost::Message) {
    let mut out = b"before".to_vec();
    let length = expected.encoded_len();
    if length > 0 {
        assert_eq!(reply(&mut out, &HEADER, value, length - 1), Err(TooLong { bytes: length }));
        assert_eq!(out, b"before", "what is too long is not begun");
    }
    reply(&mut out, &HEADER, value, length).unwrap();
    assert_eq!(out[6..], expected.encode_to_vec(), "{value:?}");
}

#[test]
fn kv_replies_are_byte_for_byte_prosts() {
    let mut rng = Rng::new(1);
    for _ in 0..3_000 {
        let reply = range_reply(&mut rng);
        let expected = proto_range(outer(reply.revision), &reply);
        check(&Reply::Range(reply), &expected);
        let reply = put_reply(&mut rng);
        let expected = proto_put(outer(reply.revision), &reply);
        check(&Reply::Put(reply), &expected);
        let reply = delete_reply(&mut rng);
        let expected = proto_delete(outer(reply.revision), &reply);
        check(&Reply::DeleteRange(reply), &expected);
        let reply = txn_reply(&mut rng, 3);
        let expected = proto_txn(outer(reply.revision), &reply);
        check(&Reply::Txn(reply), &expected);
        let revision = revision(&mut rng);
        check(&Reply::Compact { revision }, &proto::CompactionResponse { header: outer(revision) });
    }
}

#[test]
fn lease_replies_are_byte_for_byte_prosts() {
    let mut rng = Rng::new(2);
    for _ in 0..2_000 {
        let (revision, id, ttl) = (revision(&mut rng), int(&mut rng), int(&mut rng));
        let header = outer(revision);
        let granted = proto::LeaseGrantResponse { header, id, ttl, error: String::new() };
        check(&Reply::LeaseGrant { revision, lease: LeaseId(id), ttl }, &granted);
        check(&Reply::LeaseRevoke { revision }, &proto::LeaseRevokeResponse { header });
        let keys: Vec<Blob> = (0..rng.below(4)).map(|_| blob(&mut rng)).collect();
        let granted_ttl = int(&mut rng);
        let expected = proto::LeaseTimeToLiveResponse {
            header,
            id,
            ttl,
            granted_ttl,
            keys: keys.iter().map(|key| key.to_vec().into()).collect(),
        };
        let reply = LeaseTimeToLiveReply { revision, lease: LeaseId(id), ttl, granted_ttl, keys };
        check(&Reply::LeaseTimeToLive(reply), &expected);
        let ids: Vec<i64> = (0..rng.below(4)).map(|_| int(&mut rng)).collect();
        let leases = ids.iter().map(|&id| LeaseId(id)).collect();
        let statuses = ids.iter().map(|&id| proto::LeaseStatus { id }).collect();
        let expected = proto::LeaseLeasesResponse { header, leases: statuses };
        check(&Reply::LeaseLeases { revision, leases }, &expected);
        let mut out = vec![];
        keep_alive(&mut out, &HEADER, &KeepAliveReply { revision, lease: LeaseId(id), ttl }, usize::MAX)
            .unwrap();
        assert_eq!(out, proto::LeaseKeepAliveResponse { header, id, ttl }.encode_to_vec());
    }
}

#[test]
fn maintenance_and_cluster_replies_are_byte_for_byte_prosts() {
    let mut rng = Rng::new(3);
    for _ in 0..1_000 {
        let (revision, hash) = (revision(&mut rng), rng.next_u64() as u32);
        let header = outer(revision);
        check(&Reply::Hash { revision, hash }, &proto::HashResponse { header, hash });
        let hashed = Reply::HashKv { revision, hash, compact_revision: Revision(9), hash_revision: 300 };
        let expected = proto::HashKvResponse { header, hash, compact_revision: 9, hash_revision: 300 };
        check(&hashed, &expected);
        let alarms = [AlarmType::NoSpace, AlarmType::Corrupt, AlarmType::None, AlarmType::Unknown(-4)];
        let alarms = alarms.map(|alarm| Alarm { member: MemberId(rng.next_u64()), alarm }).to_vec();
        let numbers = [1, 2, 0, -4];
        let members = alarms.iter().zip(numbers);
        let members = members.map(|(a, alarm)| proto::AlarmMember { member_id: a.member.0, alarm }).collect();
        check(&Reply::Alarm { revision, alarms }, &proto::AlarmResponse { header, alarms: members });
        let member = Member {
            id: MemberId(rng.next_u64()),
            name: text(&mut rng),
            peer_urls: texts(&mut rng),
            client_urls: texts(&mut rng),
            is_learner: flag(&mut rng),
        };
        let expected = proto::Member {
            id: member.id.0,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: member.is_learner,
        };
        let header = outer(Revision(0));
        let members = vec![expected.clone(), expected.clone()];
        let added = proto::MemberAddResponse { header, member: Some(expected.clone()), members };
        let members = vec![member.clone(), member.clone()];
        check(&Reply::MemberAdded { member: member.clone(), members }, &added);
        let expected = proto::MemberListResponse { header, members: vec![expected] };
        check(&Reply::MemberList { members: vec![member] }, &expected);
    }
    check(&Reply::Defragment, &proto::DefragmentResponse { header: None });
    check(&Reply::MoveLeader, &proto::MoveLeaderResponse { header: None });
    let header = outer(Revision(6));
    let status = proto::AuthStatusResponse { header, enabled: false, auth_revision: 1 };
    check(&Reply::AuthStatus { revision: Revision(6) }, &status);
    let nobody = proto::AuthUserListResponse { header, users: vec![] };
    check(&Reply::UserList { revision: Revision(6) }, &nobody);
    check(&Reply::RoleList { revision: Revision(6) }, &nobody);
    check(&Reply::Health(ServingStatus::Serving), &proto::HealthCheckResponse { status: 1 });
    check(&Reply::Health(ServingStatus::ServiceUnknown), &proto::HealthCheckResponse { status: 3 });
    let mut listed = vec![];
    super::reply(&mut listed, &Header::default(), &Reply::HealthList(ServingStatus::Serving), 100).unwrap();
    assert_eq!(listed, b"\x0a\x06\x0a\x00\x12\x02\x08\x01", "a map of the empty name");
}

#[test]
fn status_is_byte_for_byte_prosts() {
    let mut rng = Rng::new(4);
    for _ in 0..500 {
        let reply = StatusReply {
            revision: revision(&mut rng),
            db_size_bytes: rng.below(1 << 40),
            db_size_in_use_bytes: rng.below(3),
            db_size_quota_bytes: int(&mut rng),
            leader: MemberId(rng.next_u64()),
            raft_index: rng.next_u64(),
            raft_applied_index: rng.below(2),
            raft_term: rng.below(500),
            errors: texts(&mut rng),
            is_learner: flag(&mut rng),
        };
        let expected = proto::StatusResponse {
            header: outer(reply.revision),
            version: "3.7.1".into(),
            db_size: reply.db_size_bytes as i64,
            leader: reply.leader.0,
            raft_index: reply.raft_index,
            raft_term: reply.raft_term,
            raft_applied_index: reply.raft_applied_index,
            errors: reply.errors.clone(),
            db_size_in_use: reply.db_size_in_use_bytes as i64,
            is_learner: reply.is_learner,
            storage_version: "3.7.0".into(),
            db_size_quota: reply.db_size_quota_bytes,
            downgrade_info: Some(proto::DowngradeInfo::default()),
        };
        check(&Reply::Status(reply), &expected);
    }
}

#[test]
fn watch_messages_are_byte_for_byte_prosts_and_as_long_as_foretold() {
    let mut rng = Rng::new(5);
    for _ in 0..3_000 {
        let event = |rng: &mut Rng| {
            let event = if flag(rng) {
                Event::Put(kv(rng))
            } else {
                Event::Delete { key: blob(rng), mod_revision: revision(rng) }
            };
            WatchEvent { event, prev_kv: maybe_kv(rng) }
        };
        let reply = WatchReply {
            revision: revision(&mut rng),
            watch_id: int(&mut rng),
            created: flag(&mut rng),
            canceled: flag(&mut rng),
            compact_revision: revision(&mut rng),
            cancel_reason: if flag(&mut rng) { "mvcc: watcher range is empty" } else { "" },
            fragment: flag(&mut rng),
            events: (0..rng.below(4)).map(|_| event(&mut rng)).collect(),
        };
        let events = reply.events.iter().map(|event| {
            let (r#type, kv) = match &event.event {
                Event::Put(kv) => (0, proto_kv(kv)),
                Event::Delete { key, mod_revision } => {
                    let key = key.to_vec().into();
                    (1, proto::KeyValue { key, mod_revision: mod_revision.0 as i64, ..Default::default() })
                }
            };
            proto::Event { r#type, kv: Some(kv), prev_kv: event.prev_kv.as_ref().map(proto_kv) }
        });
        let expected = proto::WatchResponse {
            header: outer(reply.revision),
            watch_id: reply.watch_id,
            created: reply.created,
            canceled: reply.canceled,
            compact_revision: reply.compact_revision.0 as i64,
            cancel_reason: reply.cancel_reason.to_owned(),
            fragment: reply.fragment,
            events: events.collect(),
        };
        let mut out = vec![];
        watch(&mut out, &HEADER, &reply, usize::MAX).unwrap();
        assert_eq!(out, expected.encode_to_vec());
    }
}

#[test]
fn chunks_merged_are_the_unary_reply() {
    let mut rng = Rng::new(6);
    for _ in 0..1_000 {
        let whole = RangeReply { keys_only: KeysOnly::No, ..range_reply(&mut rng) };
        let cut = rng.below(whole.kvs.len() as u64 + 1) as usize;
        let first = RangeReply { kvs: whole.kvs[..cut].to_vec(), ..whole.clone() };
        let second = RangeReply { kvs: whole.kvs[cut..].to_vec(), ..whole.clone() };
        let mut merged = proto::RangeStreamResponse::default();
        for (chunk, last) in [(&first, false), (&second, true)] {
            let mut out = vec![];
            range_chunk(&mut out, &HEADER, chunk, last, usize::MAX).unwrap();
            assert_eq!(range_chunk_length(&HEADER, chunk, last), out.len());
            merged.merge(&out[..]).unwrap();
        }
        assert_eq!(merged.range_response, Some(proto_range(outer(whole.revision), &whole)));
    }
}
