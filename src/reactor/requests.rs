//! What a request is, as both a client's reactor and a shard's owner have to know.

use crate::api::{Op, OpReply, PutRequest, Request, TxnReply, TxnRequest};
use crate::io::{ApplyKind, ReactorCounters};
use crate::types::LeaseId;

/// Whether etcd would send it through its log: all but transactions of plain ranges.
pub fn is_write(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::DeleteRange(_) | Request::Compact(_) => true,
        Request::LeaseGrant(_) | Request::LeaseRevoke(_) => true,
        Request::Txn(txn) => !txn.is_read_only(),
        _ => false,
    }
}

/// Whether etcd's log takes it: an alarm as well that is only asked for.
pub fn is_proposal(request: &Request) -> bool {
    is_write(request) || matches!(request, Request::Alarm(_))
}

/// What is evaluated at a shard.
pub fn kind_of(request: &Request) -> ApplyKind {
    match request {
        Request::Put(_) => ApplyKind::Put,
        Request::DeleteRange(_) => ApplyKind::DeleteRange,
        _ => ApplyKind::Txn,
    }
}

pub fn count_put(counters: &mut ReactorCounters, put: &PutRequest) {
    counters.puts += 1;
    counters.put_bytes += (put.key.len() + put.value.len()) as u64;
}

/// Counts what a transaction did, as etcd does: each operation, and the whole where there are several.
pub fn count_txn(counters: &mut ReactorCounters, request: &TxnRequest, reply: &TxnReply) {
    counters.txns += u64::from(count_ops(counters, request, reply) > 1);
}

/// Counts the operations that are no transactions themselves, and returns how many they are.
pub fn count_ops(counters: &mut ReactorCounters, request: &TxnRequest, reply: &TxnReply) -> usize {
    let ops = if reply.succeeded { &request.success } else { &request.failure };
    assert!(ops.len() == reply.responses.len(), "each operation of the branch taken is answered");
    let mut count = 0;
    for (op, reply) in ops.iter().zip(&reply.responses) {
        match (op, reply) {
            (Op::Put(put), _) => count_put(counters, put),
            (Op::Range(_), _) => counters.ranges += 1,
            (Op::DeleteRange(_), _) => counters.deletes += 1,
            (Op::Txn(nested), OpReply::Txn(reply)) => {
                count += count_ops(counters, nested, reply);
                continue;
            }
            (Op::Txn(_) | Op::Empty, _) => unreachable!("each operation is answered by its own kind"),
        }
        count += 1;
    }
    count
}

pub fn has_put(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(nested) => has_put(nested),
        _ => false,
    })
}

/// Finds a lease that some put of the transaction names and for which `holds` is true.
pub fn find_lease(request: &TxnRequest, holds: &dyn Fn(LeaseId) -> bool) -> Option<LeaseId> {
    request.success.iter().chain(&request.failure).find_map(|op| match op {
        Op::Put(put) => holds(put.lease).then_some(put.lease),
        Op::Txn(nested) => find_lease(nested, holds),
        _ => None,
    })
}
