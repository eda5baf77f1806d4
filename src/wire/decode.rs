//! Requests: etcd's protobuf to [`crate::api`], in one pass, byte fields as slices of the message.
//!
//! A field that comes twice follows protobuf's rules: the last number or bytes win, messages merge, and a
//! member of a union merges into itself and replaces another.

#[cfg(test)]
mod tests;

use super::fields::FieldValue::{Len, Varint};
use super::fields::{FieldReader, Malformed};
use super::method::Method;
use crate::api::{
    AlarmAction, AlarmRequest, AlarmType, Code, CompactRequest, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, Error, LeaseGrantRequest, Op, PutRequest, RangeRequest, Request, TxnRequest,
    WatchCreate, WatchRequest,
};
use crate::limits::{MEMBER_URLS_MAX, TXN_DEPTH_MAX, TXN_OPS_DECODED_MIN};
use crate::types::{LeaseId, MemberId};
use bytes::Bytes;

/// Reads the request of a unary call. Panics for a streaming method: those have functions of their own.
///
/// Malformed bytes are `Internal`, as in grpc-go. A transaction nested deeper than `TXN_DEPTH_MAX`, or with
/// more compares and operations than may be valid where `txn_ops_max` are allowed, is `TooManyOps`, which is
/// what etcd's check says of it after having decoded it all.
pub fn unary(method: Method, message: &Bytes, txn_ops_max: usize) -> Result<Request, Error> {
    request(method, FieldReader::of(message), txn_ops_max).map_err(|malformed| answer(malformed, UNARY))
}

/// Reads the request of `KV/RangeStream`.
pub fn range_stream(message: Bytes) -> Result<RangeRequest, Error> {
    let mut request = RangeRequest::default();
    range(FieldReader::of(&message), &mut request).map_err(|malformed| answer(malformed, STREAM))?;
    Ok(request)
}

/// Reads one message of a client's `Watch` stream.
pub fn watch(message: Bytes) -> Result<WatchRequest, Error> {
    watch_union(FieldReader::of(&message)).map_err(|malformed| answer(malformed, STREAM))
}

/// Reads one message of a client's `Lease/LeaseKeepAlive` stream.
pub fn keep_alive(message: Bytes) -> Result<LeaseId, Error> {
    lease_id(FieldReader::of(&message)).map_err(|malformed| answer(malformed, STREAM))
}

/// Reads the request of `grpc.health.v1.Health/Watch`: the name of a service.
pub fn health_watch(message: Bytes) -> Result<String, Error> {
    health_service(FieldReader::of(&message)).map_err(|malformed| answer(malformed, STREAM))
}

/// grpc-go words the same fault differently in unary calls and in streams.
const UNARY: &str = "grpc: error unmarshalling request";
const STREAM: &str = "grpc: failed to unmarshal the received message";

fn answer(malformed: Malformed, prefix: &str) -> Error {
    let text = match malformed {
        Malformed::TooManyOps => return Error::TooManyOps,
        Malformed::Wire => format!("{prefix}: proto: cannot parse invalid wire-format data"),
        Malformed::Depth => format!("{prefix}: proto: exceeded maximum recursion depth"),
        Malformed::Utf8 => format!("{prefix}: string field contains invalid UTF-8"),
    };
    Error::Other { code: Code::Internal, text }
}

fn request(method: Method, fields: FieldReader, txn_ops_max: usize) -> Result<Request, Malformed> {
    Ok(match method {
        Method::Range => {
            let mut request = RangeRequest::default();
            range(fields, &mut request)?;
            Request::Range(request)
        }
        Method::Put => {
            let mut request = PutRequest::default();
            put(fields, &mut request)?;
            Request::Put(request)
        }
        Method::DeleteRange => {
            let mut request = DeleteRangeRequest::default();
            delete_range(fields, &mut request)?;
            Request::DeleteRange(request)
        }
        Method::Txn => {
            let mut request = TxnRequest::default();
            txn(fields, &mut request, &mut OpsBudget::new(txn_ops_max))?;
            Request::Txn(request)
        }
        Method::Compact => Request::Compact(compact(fields)?),
        Method::LeaseGrant => Request::LeaseGrant(lease_grant(fields)?),
        Method::LeaseRevoke => Request::LeaseRevoke(lease_id(fields)?),
        Method::LeaseTimeToLive => lease_time_to_live(fields)?,
        Method::Alarm => Request::Alarm(alarm(fields)?),
        Method::MemberList => Request::MemberList { linearizable: first_number(fields)? != 0 },
        Method::MemberAdd => member_add(fields)?,
        Method::MemberRemove => Request::MemberRemove { member: MemberId(first_number(fields)?) },
        Method::MemberUpdate => member_update(fields)?,
        Method::MemberPromote => Request::MemberPromote { member: MemberId(first_number(fields)?) },
        Method::MoveLeader => Request::MoveLeader { target: MemberId(first_number(fields)?) },
        Method::HashKv => Request::HashKv { revision: first_number(fields)? as i64 },
        Method::HealthCheck => Request::HealthCheck { service: health_service(fields)? },
        Method::LeaseLeases => alone(fields, Request::LeaseLeases)?,
        Method::AuthStatus => alone(fields, Request::AuthStatus)?,
        Method::UserList => alone(fields, Request::UserList)?,
        Method::RoleList => alone(fields, Request::RoleList)?,
        Method::Status => alone(fields, Request::Status)?,
        Method::Defragment => alone(fields, Request::Defragment)?,
        Method::Hash => alone(fields, Request::Hash)?,
        Method::HealthList => alone(fields, Request::HealthList)?,
        Method::RangeStream | Method::Watch | Method::LeaseKeepAlive | Method::HealthWatch => {
            panic!("{method:?} is a stream, not a unary call")
        }
    })
}

/// Reads a request without fields: its method's name says it all.
fn alone(mut fields: FieldReader, request: Request) -> Result<Request, Malformed> {
    fields.finish()?;
    Ok(request)
}

fn range(mut fields: FieldReader, into: &mut RangeRequest) -> Result<(), Malformed> {
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => into.key = fields.share(bytes),
            (2, Len(bytes)) => into.range_end = fields.share(bytes),
            (3, Varint(n)) => into.limit = n as i64,
            (4, Varint(n)) => into.revision = n as i64,
            (5, Varint(n)) => into.sort_order = n as i32,
            (6, Varint(n)) => into.sort_target = n as i32,
            (7, Varint(n)) => into.serializable = n != 0,
            (8, Varint(n)) => into.keys_only = n != 0,
            (9, Varint(n)) => into.count_only = n != 0,
            (10, Varint(n)) => into.min_mod_revision = n as i64,
            (11, Varint(n)) => into.max_mod_revision = n as i64,
            (12, Varint(n)) => into.min_create_revision = n as i64,
            (13, Varint(n)) => into.max_create_revision = n as i64,
            _ => {}
        }
    }
    Ok(())
}

fn put(mut fields: FieldReader, into: &mut PutRequest) -> Result<(), Malformed> {
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => into.key = fields.share(bytes),
            (2, Len(bytes)) => into.value = fields.share(bytes),
            (3, Varint(n)) => into.lease = LeaseId(n as i64),
            (4, Varint(n)) => into.prev_kv = n != 0,
            (5, Varint(n)) => into.ignore_value = n != 0,
            (6, Varint(n)) => into.ignore_lease = n != 0,
            _ => {}
        }
    }
    Ok(())
}

fn delete_range(mut fields: FieldReader, into: &mut DeleteRangeRequest) -> Result<(), Malformed> {
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => into.key = fields.share(bytes),
            (2, Len(bytes)) => into.range_end = fields.share(bytes),
            (3, Varint(n)) => into.prev_kv = n != 0,
            _ => {}
        }
    }
    Ok(())
}

/// What a transaction may still grow to: an operation takes two bytes on the wire and two hundred here.
struct OpsBudget {
    ops: usize,
    depth: usize,
}

impl OpsBudget {
    /// Compares, success and failure may each have as many as are allowed.
    fn new(txn_ops_max: usize) -> OpsBudget {
        OpsBudget { ops: (3 * txn_ops_max).max(TXN_OPS_DECODED_MIN), depth: TXN_DEPTH_MAX }
    }

    fn take_op(&mut self) -> Result<(), Malformed> {
        self.ops = self.ops.checked_sub(1).ok_or(Malformed::TooManyOps)?;
        Ok(())
    }
}

/// The value of a union's member, which is made first where another member was set.
macro_rules! member {
    ($union:expr, $($member:ident)::+) => {{
        if !matches!($union, $($member)::+(_)) {
            *$union = $($member)::+(Default::default());
        }
        match $union {
            $($member)::+(value) => value,
            _ => unreachable!("it was made above"),
        }
    }};
}

fn added(ops: &mut Vec<Op>) -> &mut Op {
    ops.push(Op::Empty);
    ops.last_mut().expect("one was pushed")
}

fn txn(mut fields: FieldReader, into: &mut TxnRequest, budget: &mut OpsBudget) -> Result<(), Malformed> {
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => {
                budget.take_op()?;
                into.compare.push(compare(fields.inside(bytes))?);
            }
            (2, Len(bytes)) => op(fields.inside(bytes), added(&mut into.success), budget)?,
            (3, Len(bytes)) => op(fields.inside(bytes), added(&mut into.failure), budget)?,
            _ => {}
        }
    }
    Ok(())
}

fn op(mut fields: FieldReader, into: &mut Op, budget: &mut OpsBudget) -> Result<(), Malformed> {
    budget.take_op()?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => range(fields.inside(bytes), member!(into, Op::Range))?,
            (2, Len(bytes)) => put(fields.inside(bytes), member!(into, Op::Put))?,
            (3, Len(bytes)) => delete_range(fields.inside(bytes), member!(into, Op::DeleteRange))?,
            (4, Len(bytes)) => {
                budget.depth = budget.depth.checked_sub(1).ok_or(Malformed::TooManyOps)?;
                txn(fields.inside(bytes), member!(into, Op::Txn), budget)?;
                budget.depth += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

fn compare(mut fields: FieldReader) -> Result<Compare, Malformed> {
    let (mut result, mut target) = (0, 0);
    let (mut key, mut range_end) = (Bytes::new(), Bytes::new());
    let (mut member, mut number, mut value) = (0, 0, Bytes::new());
    while let Some(field) = fields.next()? {
        match field {
            (1, Varint(n)) => result = n as i32,
            (2, Varint(n)) => target = n as i32,
            (3, Len(bytes)) => key = fields.share(bytes),
            (4 | 5 | 6 | 8, Varint(n)) => (member, number) = (field.0, n as i64),
            (7, Len(bytes)) => (member, value) = (7, fields.share(bytes)),
            (64, Len(bytes)) => range_end = fields.share(bytes),
            _ => {}
        }
    }
    // The target decides which member of the union counts; another one is as good as none.
    let number_of = |wanted| if member == wanted { number } else { 0 };
    Ok(Compare {
        result: match result {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            3 => CompareResult::NotEqual,
            other => CompareResult::Unknown(other),
        },
        target: match target {
            0 => CompareTarget::Version(number_of(4)),
            1 => CompareTarget::Create(number_of(5)),
            2 => CompareTarget::Mod(number_of(6)),
            3 => CompareTarget::Value(if member == 7 { value } else { Bytes::new() }),
            4 => CompareTarget::Lease(number_of(8)),
            other => CompareTarget::Unknown(other),
        },
        key,
        range_end,
    })
}

fn compact(mut fields: FieldReader) -> Result<CompactRequest, Malformed> {
    let mut request = CompactRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            (1, Varint(n)) => request.revision = n as i64,
            (2, Varint(n)) => request.physical = n != 0,
            _ => {}
        }
    }
    Ok(request)
}

fn lease_grant(mut fields: FieldReader) -> Result<LeaseGrantRequest, Malformed> {
    let mut request = LeaseGrantRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            (1, Varint(n)) => request.ttl = n as i64,
            (2, Varint(n)) => request.id = LeaseId(n as i64),
            _ => {}
        }
    }
    Ok(request)
}

fn lease_time_to_live(mut fields: FieldReader) -> Result<Request, Malformed> {
    let (mut lease, mut keys) = (LeaseId::NONE, false);
    while let Some(field) = fields.next()? {
        match field {
            (1, Varint(n)) => lease = LeaseId(n as i64),
            (2, Varint(n)) => keys = n != 0,
            _ => {}
        }
    }
    Ok(Request::LeaseTimeToLive { lease, keys })
}

fn alarm(mut fields: FieldReader) -> Result<AlarmRequest, Malformed> {
    let (mut action, mut member, mut alarm) = (0, 0, 0);
    while let Some(field) = fields.next()? {
        match field {
            (1, Varint(n)) => action = n as i32,
            (2, Varint(n)) => member = n,
            (3, Varint(n)) => alarm = n as i32,
            _ => {}
        }
    }
    Ok(AlarmRequest {
        action: match action {
            0 => AlarmAction::Get,
            1 => AlarmAction::Activate,
            2 => AlarmAction::Deactivate,
            other => AlarmAction::Unknown(other),
        },
        member: MemberId(member),
        alarm: match alarm {
            0 => AlarmType::None,
            1 => AlarmType::NoSpace,
            2 => AlarmType::Corrupt,
            other => AlarmType::Unknown(other),
        },
    })
}

fn member_add(mut fields: FieldReader) -> Result<Request, Malformed> {
    let (mut peer_urls, mut is_learner) = (vec![], false);
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => push_url(&mut peer_urls, bytes)?,
            (2, Varint(n)) => is_learner = n != 0,
            _ => {}
        }
    }
    Ok(Request::MemberAdd { peer_urls, is_learner })
}

fn member_update(mut fields: FieldReader) -> Result<Request, Malformed> {
    let (mut member, mut peer_urls) = (0, vec![]);
    while let Some(field) = fields.next()? {
        match field {
            (1, Varint(n)) => member = n,
            (2, Len(bytes)) => push_url(&mut peer_urls, bytes)?,
            _ => {}
        }
    }
    Ok(Request::MemberUpdate { member: MemberId(member), peer_urls })
}

/// A URL takes two bytes on the wire and more than ten times as much here. One too many is kept, for which the
/// request is refused.
fn push_url(urls: &mut Vec<String>, bytes: &[u8]) -> Result<(), Malformed> {
    let url = std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8)?;
    if urls.len() <= MEMBER_URLS_MAX {
        urls.push(url.to_owned());
    }
    Ok(())
}

/// Reads the number in field 1, which is all that several requests hold.
fn first_number(mut fields: FieldReader) -> Result<u64, Malformed> {
    let mut number = 0;
    while let Some(field) = fields.next()? {
        if let (1, Varint(n)) = field {
            number = n;
        }
    }
    Ok(number)
}

fn lease_id(fields: FieldReader) -> Result<LeaseId, Malformed> {
    first_number(fields).map(|n| LeaseId(n as i64))
}

fn health_service(mut fields: FieldReader) -> Result<String, Malformed> {
    let mut service = "";
    while let Some(field) = fields.next()? {
        if let (1, Len(bytes)) = field {
            service = std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8)?;
        }
    }
    Ok(service.to_owned())
}

fn watch_union(mut fields: FieldReader) -> Result<WatchRequest, Malformed> {
    let mut union = WatchRequest::Empty;
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => watch_create(fields.inside(bytes), member!(&mut union, WatchRequest::Create))?,
            (2, Len(bytes)) => {
                let mut id = if let WatchRequest::Cancel { watch_id } = union { watch_id } else { 0 };
                let mut cancel = fields.inside(bytes);
                while let Some(field) = cancel.next()? {
                    if let (1, Varint(n)) = field {
                        id = n as i64;
                    }
                }
                union = WatchRequest::Cancel { watch_id: id };
            }
            (3, Len(bytes)) => {
                fields.inside(bytes).finish()?;
                union = WatchRequest::Progress;
            }
            _ => {}
        }
    }
    Ok(union)
}

fn watch_create(mut fields: FieldReader, into: &mut WatchCreate) -> Result<(), Malformed> {
    let filter = |into: &mut WatchCreate, n: u64| match n as i32 {
        0 => into.no_put = true,
        1 => into.no_delete = true,
        _ => {}
    };
    while let Some(field) = fields.next()? {
        match field {
            (1, Len(bytes)) => into.key = fields.share(bytes),
            (2, Len(bytes)) => into.range_end = fields.share(bytes),
            (3, Varint(n)) => into.start_revision = n as i64,
            (4, Varint(n)) => into.progress_notify = n != 0,
            (5, Varint(n)) => filter(into, n),
            (5, Len(bytes)) => {
                let mut filters = fields.inside(bytes);
                while let Some(n) = filters.packed()? {
                    filter(into, n);
                }
            }
            (6, Varint(n)) => into.prev_kv = n != 0,
            (7, Varint(n)) => into.watch_id = n as i64,
            (8, Varint(n)) => into.fragment = n != 0,
            _ => {}
        }
    }
    Ok(())
}
