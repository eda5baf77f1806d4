use super::*;
use crate::limits::TXN_OPS_DEFAULT;
use crate::stdx::Rng;
use crate::wire::proto;
use prost::Message;

fn unary(method: Method, message: Bytes) -> Result<Request, Error> {
    super::unary(method, &message, TXN_OPS_DEFAULT)
}

fn bytes(rng: &mut Rng) -> Bytes {
    let length = *rng.pick(&[0, 1, 3, 20, 200]);
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

fn number(rng: &mut Rng) -> i64 {
    *rng.pick(&[0, 0, 1, -1, 127, 128, i64::MIN, i64::MAX, 77_777])
}

fn small(rng: &mut Rng) -> i32 {
    *rng.pick(&[0, 1, 2, 3, 4, 5, -1, i32::MAX])
}

fn flag(rng: &mut Rng) -> bool {
    rng.chance(1, 2)
}

fn texts(rng: &mut Rng) -> Vec<String> {
    (0..rng.below(4)).map(|_| "é1".repeat(rng.below(3) as usize)).collect()
}

fn some_range(rng: &mut Rng) -> proto::RangeRequest {
    proto::RangeRequest {
        key: bytes(rng),
        range_end: bytes(rng),
        limit: number(rng),
        revision: number(rng),
        sort_order: small(rng),
        sort_target: small(rng),
        serializable: flag(rng),
        keys_only: flag(rng),
        count_only: flag(rng),
        min_mod_revision: number(rng),
        max_mod_revision: number(rng),
        min_create_revision: number(rng),
        max_create_revision: number(rng),
    }
}

fn some_put(rng: &mut Rng) -> proto::PutRequest {
    proto::PutRequest {
        key: bytes(rng),
        value: bytes(rng),
        lease: number(rng),
        prev_kv: flag(rng),
        ignore_value: flag(rng),
        ignore_lease: flag(rng),
    }
}

fn some_delete(rng: &mut Rng) -> proto::DeleteRangeRequest {
    proto::DeleteRangeRequest { key: bytes(rng), range_end: bytes(rng), prev_kv: flag(rng) }
}

fn some_compare(rng: &mut Rng) -> proto::Compare {
    use proto::compare::TargetUnion;
    let target_union = match rng.below(6) {
        0 => None,
        1 => Some(TargetUnion::Version(number(rng))),
        2 => Some(TargetUnion::CreateRevision(number(rng))),
        3 => Some(TargetUnion::ModRevision(number(rng))),
        4 => Some(TargetUnion::Value(bytes(rng))),
        _ => Some(TargetUnion::Lease(number(rng))),
    };
    proto::Compare {
        result: small(rng),
        target: small(rng),
        key: bytes(rng),
        range_end: bytes(rng),
        target_union,
    }
}

fn some_op(rng: &mut Rng, depth: u32) -> proto::RequestOp {
    use proto::request_op::Request;
    let request = match rng.below(if depth == 0 { 4 } else { 5 }) {
        0 => None,
        1 => Some(Request::RequestRange(some_range(rng))),
        2 => Some(Request::RequestPut(some_put(rng))),
        3 => Some(Request::RequestDeleteRange(some_delete(rng))),
        _ => Some(Request::RequestTxn(some_txn(rng, depth - 1))),
    };
    proto::RequestOp { request }
}

fn some_txn(rng: &mut Rng, depth: u32) -> proto::TxnRequest {
    proto::TxnRequest {
        compare: (0..rng.below(3)).map(|_| some_compare(rng)).collect(),
        success: (0..rng.below(3)).map(|_| some_op(rng, depth)).collect(),
        failure: (0..rng.below(3)).map(|_| some_op(rng, depth)).collect(),
    }
}

fn some_watch(rng: &mut Rng) -> proto::WatchRequest {
    use proto::watch_request::RequestUnion;
    let request_union = match rng.below(4) {
        0 => None,
        1 => Some(RequestUnion::CancelRequest(proto::WatchCancelRequest { watch_id: number(rng) })),
        2 => Some(RequestUnion::ProgressRequest(proto::WatchProgressRequest {})),
        _ => Some(RequestUnion::CreateRequest(proto::WatchCreateRequest {
            key: bytes(rng),
            range_end: bytes(rng),
            start_revision: number(rng),
            progress_notify: flag(rng),
            filters: (0..rng.below(3)).map(|_| small(rng)).collect(),
            prev_kv: flag(rng),
            watch_id: number(rng),
            fragment: flag(rng),
        })),
    };
    proto::WatchRequest { request_union }
}

fn range_of(p: proto::RangeRequest) -> RangeRequest {
    RangeRequest {
        key: p.key,
        range_end: p.range_end,
        limit: p.limit,
        revision: p.revision,
        sort_order: p.sort_order,
        sort_target: p.sort_target,
        serializable: p.serializable,
        keys_only: p.keys_only,
        count_only: p.count_only,
        min_mod_revision: p.min_mod_revision,
        max_mod_revision: p.max_mod_revision,
        min_create_revision: p.min_create_revision,
        max_create_revision: p.max_create_revision,
    }
}

fn put_of(p: proto::PutRequest) -> PutRequest {
    PutRequest {
        key: p.key,
        value: p.value,
        lease: LeaseId(p.lease),
        prev_kv: p.prev_kv,
        ignore_value: p.ignore_value,
        ignore_lease: p.ignore_lease,
    }
}

fn delete_of(p: proto::DeleteRangeRequest) -> DeleteRangeRequest {
    DeleteRangeRequest { key: p.key, range_end: p.range_end, prev_kv: p.prev_kv }
}

fn compare_of(p: proto::Compare) -> Compare {
    use proto::compare::TargetUnion;
    let union = p.target_union;
    let result = match p.result {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        n => CompareResult::Unknown(n),
    };
    let target = match (p.target, union) {
        (0, Some(TargetUnion::Version(n))) => CompareTarget::Version(n),
        (0, _) => CompareTarget::Version(0),
        (1, Some(TargetUnion::CreateRevision(n))) => CompareTarget::Create(n),
        (1, _) => CompareTarget::Create(0),
        (2, Some(TargetUnion::ModRevision(n))) => CompareTarget::Mod(n),
        (2, _) => CompareTarget::Mod(0),
        (3, Some(TargetUnion::Value(value))) => CompareTarget::Value(value),
        (3, _) => CompareTarget::Value(Bytes::new()),
        (4, Some(TargetUnion::Lease(n))) => CompareTarget::Lease(n),
        (4, _) => CompareTarget::Lease(0),
        (n, _) => CompareTarget::Unknown(n),
    };
    Compare { result, target, key: p.key, range_end: p.range_end }
}

fn op_of(p: proto::RequestOp) -> Op {
    use proto::request_op::Request;
    match p.request {
        None => Op::Empty,
        Some(Request::RequestRange(p)) => Op::Range(range_of(p)),
        Some(Request::RequestPut(p)) => Op::Put(put_of(p)),
        Some(Request::RequestDeleteRange(p)) => Op::DeleteRange(delete_of(p)),
        Some(Request::RequestTxn(p)) => Op::Txn(txn_of(p)),
    }
}

fn txn_of(p: proto::TxnRequest) -> TxnRequest {
    TxnRequest {
        compare: p.compare.into_iter().map(compare_of).collect(),
        success: p.success.into_iter().map(op_of).collect(),
        failure: p.failure.into_iter().map(op_of).collect(),
    }
}

fn watch_of(p: proto::WatchRequest) -> WatchRequest {
    use proto::watch_request::RequestUnion;
    match p.request_union {
        None => WatchRequest::Empty,
        Some(RequestUnion::CancelRequest(p)) => WatchRequest::Cancel { watch_id: p.watch_id },
        Some(RequestUnion::ProgressRequest(_)) => WatchRequest::Progress,
        Some(RequestUnion::CreateRequest(p)) => WatchRequest::Create(WatchCreate {
            key: p.key,
            range_end: p.range_end,
            start_revision: p.start_revision,
            progress_notify: p.progress_notify,
            no_put: p.filters.contains(&0),
            no_delete: p.filters.contains(&1),
            prev_kv: p.prev_kv,
            watch_id: p.watch_id,
            fragment: p.fragment,
        }),
    }
}

fn alarm_of(p: proto::AlarmRequest) -> AlarmRequest {
    let action = match p.action {
        0 => AlarmAction::Get,
        1 => AlarmAction::Activate,
        2 => AlarmAction::Deactivate,
        n => AlarmAction::Unknown(n),
    };
    let alarm = match p.alarm {
        0 => AlarmType::None,
        1 => AlarmType::NoSpace,
        2 => AlarmType::Corrupt,
        n => AlarmType::Unknown(n),
    };
    AlarmRequest { action, member: MemberId(p.member_id), alarm }
}

/// What prost makes of the message; the second value says whether it could be read at all.
fn by_prost(method: Method, message: &Bytes) -> Result<Request, prost::DecodeError> {
    let message = message.clone();
    Ok(match method {
        Method::Range => Request::Range(range_of(proto::RangeRequest::decode(message)?)),
        Method::Put => Request::Put(put_of(proto::PutRequest::decode(message)?)),
        Method::DeleteRange => Request::DeleteRange(delete_of(proto::DeleteRangeRequest::decode(message)?)),
        Method::Txn => Request::Txn(txn_of(proto::TxnRequest::decode(message)?)),
        Method::Compact => {
            let proto::CompactionRequest { revision, physical } = Message::decode(message)?;
            Request::Compact(CompactRequest { revision, physical })
        }
        Method::LeaseGrant => {
            let proto::LeaseGrantRequest { ttl, id } = Message::decode(message)?;
            Request::LeaseGrant(LeaseGrantRequest { ttl, id: LeaseId(id) })
        }
        Method::LeaseRevoke => Request::LeaseRevoke(LeaseId(proto::LeaseRevokeRequest::decode(message)?.id)),
        Method::LeaseTimeToLive => {
            let proto::LeaseTimeToLiveRequest { id, keys } = Message::decode(message)?;
            Request::LeaseTimeToLive { lease: LeaseId(id), keys }
        }
        Method::Alarm => Request::Alarm(alarm_of(proto::AlarmRequest::decode(message)?)),
        Method::MemberList => {
            let proto::MemberListRequest { linearizable } = Message::decode(message)?;
            Request::MemberList { linearizable }
        }
        Method::MemberAdd => {
            let proto::MemberAddRequest { peer_urls, is_learner } = Message::decode(message)?;
            Request::MemberAdd { peer_urls, is_learner }
        }
        Method::MemberRemove => {
            let proto::MemberRemoveRequest { id } = Message::decode(message)?;
            Request::MemberRemove { member: MemberId(id) }
        }
        Method::MemberUpdate => {
            let proto::MemberUpdateRequest { id, peer_urls } = Message::decode(message)?;
            Request::MemberUpdate { member: MemberId(id), peer_urls }
        }
        Method::MemberPromote => {
            let proto::MemberPromoteRequest { id } = Message::decode(message)?;
            Request::MemberPromote { member: MemberId(id) }
        }
        Method::HashKv => Request::HashKv { revision: proto::HashKvRequest::decode(message)?.revision },
        Method::HealthCheck => {
            Request::HealthCheck { service: proto::HealthCheckRequest::decode(message)?.service }
        }
        Method::LeaseLeases => proto::LeaseLeasesRequest::decode(message).map(|_| Request::LeaseLeases)?,
        Method::Status => proto::StatusRequest::decode(message).map(|_| Request::Status)?,
        Method::AuthStatus => proto::AuthStatusRequest::decode(message).map(|_| Request::AuthStatus)?,
        Method::UserList => proto::AuthUserListRequest::decode(message).map(|_| Request::UserList)?,
        Method::RoleList => proto::AuthUserListRequest::decode(message).map(|_| Request::RoleList)?,
        Method::MoveLeader => {
            let target = proto::MoveLeaderRequest::decode(message)?.target_id;
            Request::MoveLeader { target: MemberId(target) }
        }
        Method::Defragment => proto::DefragmentRequest::decode(message).map(|_| Request::Defragment)?,
        Method::Hash => proto::HashRequest::decode(message).map(|_| Request::Hash)?,
        // Empty as well.
        Method::HealthList => proto::HashRequest::decode(message).map(|_| Request::HealthList)?,
        Method::RangeStream | Method::Watch | Method::LeaseKeepAlive | Method::HealthWatch => {
            panic!("not unary")
        }
    })
}

fn sample(rng: &mut Rng, method: Method) -> Vec<u8> {
    match method {
        Method::Range | Method::RangeStream => some_range(rng).encode_to_vec(),
        Method::Put => some_put(rng).encode_to_vec(),
        Method::DeleteRange => some_delete(rng).encode_to_vec(),
        Method::Txn => some_txn(rng, 3).encode_to_vec(),
        Method::Watch => some_watch(rng).encode_to_vec(),
        Method::Compact => {
            proto::CompactionRequest { revision: number(rng), physical: flag(rng) }.encode_to_vec()
        }
        Method::LeaseGrant => proto::LeaseGrantRequest { ttl: number(rng), id: number(rng) }.encode_to_vec(),
        Method::LeaseTimeToLive => {
            proto::LeaseTimeToLiveRequest { id: number(rng), keys: flag(rng) }.encode_to_vec()
        }
        Method::Alarm => {
            let member_id = number(rng) as u64;
            proto::AlarmRequest { action: small(rng), member_id, alarm: small(rng) }.encode_to_vec()
        }
        Method::MemberAdd => {
            let peer_urls = texts(rng);
            proto::MemberAddRequest { peer_urls, is_learner: flag(rng) }.encode_to_vec()
        }
        Method::MemberUpdate => {
            let peer_urls = texts(rng);
            proto::MemberUpdateRequest { id: number(rng) as u64, peer_urls }.encode_to_vec()
        }
        Method::HealthCheck => proto::HealthCheckRequest { service: "etcd".into() }.encode_to_vec(),
        _ => proto::HashKvRequest { revision: number(rng) }.encode_to_vec(),
    }
}

fn unary_methods() -> impl Iterator<Item = Method> {
    Method::ALL.iter().copied().filter(|method| method.kind() == crate::wire::CallKind::Unary)
}

#[test]
fn of_more_urls_than_a_member_may_have_one_too_many_is_kept() {
    for (given, kept) in [(MEMBER_URLS_MAX, MEMBER_URLS_MAX), (1_000, MEMBER_URLS_MAX + 1)] {
        let peer_urls = vec!["u".to_owned(); given];
        let add = proto::MemberAddRequest { peer_urls: peer_urls.clone(), is_learner: true }.encode_to_vec();
        let update = proto::MemberUpdateRequest { id: 1, peer_urls: peer_urls.clone() }.encode_to_vec();
        let peer_urls = peer_urls[..kept].to_vec();
        let added = Request::MemberAdd { peer_urls: peer_urls.clone(), is_learner: true };
        assert_eq!(unary(Method::MemberAdd, add.into()), Ok(added));
        let updated = Request::MemberUpdate { member: MemberId(1), peer_urls };
        assert_eq!(unary(Method::MemberUpdate, update.into()), Ok(updated));
    }
}

#[test]
fn requests_read_as_prost_reads_them() {
    let mut rng = Rng::new(1);
    for _ in 0..2_000 {
        for method in unary_methods() {
            let message = Bytes::from(sample(&mut rng, method));
            assert_eq!(unary(method, message.clone()), Ok(by_prost(method, &message).unwrap()));
        }
        let message = Bytes::from(sample(&mut rng, Method::Watch));
        let expected = watch_of(proto::WatchRequest::decode(message.clone()).unwrap());
        assert_eq!(watch(message), Ok(expected));
        let message = Bytes::from(sample(&mut rng, Method::Range));
        let expected = range_of(proto::RangeRequest::decode(message.clone()).unwrap());
        assert_eq!(range_stream(message), Ok(expected));
        let id = number(&mut rng);
        let message = proto::LeaseKeepAliveRequest { id }.encode_to_vec();
        assert_eq!(keep_alive(message.into()), Ok(LeaseId(id)));
    }
}

#[test]
fn damaged_requests_are_read_or_refused_like_prost_and_never_panic() {
    let mut rng = Rng::new(2);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..6_000 {
        for method in unary_methods() {
            let message = damaged(&mut rng, method);
            match (unary(method, message.clone()), by_prost(method, &message)) {
                (Ok(mine), Ok(its)) => {
                    assert_eq!(mine, its, "{method:?} {message:?}");
                    read += 1;
                }
                // prost refuses a known field of an unexpected type, which Go skips.
                (Ok(_), Err(error)) => {
                    let text = error.to_string();
                    assert!(text.contains("invalid wire type") || text.contains("delimited"), "{text}");
                }
                (Err(error), Err(_)) => {
                    assert_eq!(error.code(), Code::Internal);
                    refused += 1;
                }
                (Err(error), Ok(_)) => panic!("{method:?} {message:?}: {error}"),
            }
        }
        let message = damaged(&mut rng, Method::Watch);
        if let (Ok(mine), Ok(its)) = (watch(message.clone()), proto::WatchRequest::decode(message)) {
            assert_eq!(mine, watch_of(its));
        }
    }
    assert!(read > 10_000 && refused > 10_000, "the damage is neither none nor total: {read} {refused}");
}

/// A sample with bits flipped, bytes cut out, put in or doubled.
fn damaged(rng: &mut Rng, method: Method) -> Bytes {
    let mut message = sample(rng, method);
    for _ in 0..=rng.below(3) {
        let at = rng.below(message.len() as u64 + 1) as usize;
        match rng.below(5) {
            0 => message.truncate(at),
            1 => message.insert(at, rng.next_u64() as u8),
            2 if at < message.len() => message[at] ^= 1 << rng.below(8),
            3 if at < message.len() => drop(message.remove(at)),
            _ => message.extend_from_within(at..),
        }
    }
    message.into()
}

#[test]
fn unions_merge_their_member_and_replace_another() {
    let put = |key: &'static [u8], value: &'static [u8]| proto::PutRequest {
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
        ..Default::default()
    };
    let (first, second) = (put(b"k", b"").encode_to_vec(), put(b"", b"v").encode_to_vec());
    let mut op = vec![];
    for (tag, body) in [(0x0A, &first), (0x12, &first), (0x12, &second)] {
        op.extend([tag, body.len() as u8]);
        op.extend(body);
    }
    let txn = [&[0x12, op.len() as u8], &op[..]].concat();
    let expected = Op::Put(put_of(put(b"k", b"v")));
    let Ok(Request::Txn(read)) = unary(Method::Txn, txn.into()) else { panic!("not a transaction") };
    assert_eq!(read.success, [expected]);
}

#[test]
fn fields_of_unexpected_types_and_groups_are_skipped_as_go_skips_them() {
    // Key as a number, lease as bytes, an unknown group with a group inside, then a real key.
    let message: &[u8] = &[0x08, 5, 0x1A, 1, 7, 0x7B, 0x08, 1, 0x83, 1, 0x84, 1, 0x7C, 0x0A, 1, b'k'];
    let Ok(Request::Put(put)) = unary(Method::Put, Bytes::copy_from_slice(message)) else {
        panic!("refused")
    };
    assert_eq!((&put.key[..], put.lease), (&b"k"[..], LeaseId::NONE));
    // The inner group closes with another number.
    let message: &[u8] = &[0x7B, 0x83, 1, 0x7C, 0x84, 1];
    assert!(unary(Method::Put, Bytes::copy_from_slice(message)).is_err());
    let deep = Bytes::from(vec![0x7B; 20_000]);
    let error = unary(Method::Put, deep).unwrap_err();
    assert!(error.to_string().contains("exceeded maximum recursion depth"), "{error}");
}

#[test]
fn malformed_messages_are_worded_as_grpc_go_words_them() {
    let message = Bytes::from_static(&[0x0A, 5, b'k']);
    let check = |error: Error, text: &str| {
        assert_eq!((error.code(), error.to_string().as_str()), (Code::Internal, text));
    };
    let text = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
    check(unary(Method::Put, message.clone()).unwrap_err(), text);
    let text = "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data";
    check(watch(message.clone()).unwrap_err(), text);
    check(range_stream(message.clone()).unwrap_err(), text);
    check(keep_alive(message).unwrap_err(), text);
    let text = "grpc: error unmarshalling request: string field contains invalid UTF-8";
    check(unary(Method::HealthCheck, Bytes::from_static(&[0x0A, 1, 0xFF])).unwrap_err(), text);
}

/// A transaction whose only operation is a transaction, and so on.
fn nested(levels: usize) -> Bytes {
    let mut message = vec![];
    for _ in 0..levels {
        for tag in [0x22, 0x12] {
            let mut length = vec![];
            prost::encoding::encode_varint(message.len() as u64, &mut length);
            message = [vec![tag], length, message].concat();
        }
    }
    message.into()
}

#[test]
fn nesting_is_bounded_without_using_up_the_stack() {
    assert!(unary(Method::Txn, nested(TXN_DEPTH_MAX)).is_ok());
    assert_eq!(unary(Method::Txn, nested(TXN_DEPTH_MAX + 1)), Err(Error::TooManyOps));
    assert_eq!(unary(Method::Txn, nested(10_000)), Err(Error::TooManyOps));
}

#[test]
fn operations_are_bounded_before_they_fill_the_memory() {
    let ops = |n: usize| Bytes::from([0x12, 0].repeat(n));
    assert!(unary(Method::Txn, ops(TXN_OPS_DECODED_MIN)).is_ok());
    assert_eq!(unary(Method::Txn, ops(TXN_OPS_DECODED_MIN + 1)), Err(Error::TooManyOps));
    assert!(size_of::<Op>() * TXN_OPS_DECODED_MIN <= 4 << 20, "as limits.rs says");
    let compares = Bytes::from([0x0A, 0].repeat(TXN_OPS_DECODED_MIN + 1));
    assert_eq!(unary(Method::Txn, compares), Err(Error::TooManyOps));
    // Who allows more gets more: so many in each of the three lists.
    let allowed = |n: usize| super::unary(Method::Txn, &ops(n), 10_000).map(|_| ());
    assert_eq!((allowed(30_000), allowed(30_001)), (Ok(()), Err(Error::TooManyOps)));
}

#[test]
fn byte_fields_share_the_memory_of_the_message() {
    let message = Bytes::from(some_put_of(b"key", b"value"));
    let Ok(Request::Put(put)) = unary(Method::Put, message.clone()) else { panic!("refused") };
    assert!(message.as_ptr_range().contains(&put.value.as_ptr()));
}

fn some_put_of(key: &'static [u8], value: &'static [u8]) -> Vec<u8> {
    proto::PutRequest { key: Bytes::from_static(key), value: Bytes::from_static(value), ..Default::default() }
        .encode_to_vec()
}
