//! A compaction that was confirmed, or that an answer has shown, has taken effect: nothing below it is read any more,
//! nor compacted again.

use super::{Evidence, is_local, request_of};
use crate::api::{Error, Op as TxnOp, Request, TxnRequest};
use crate::sim::history::Op;
use crate::sim::world::Failure;
use crate::wire::Method;
use crate::wire::proto::{self, Message, response_op::Response};

pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    let shown = shown_since(evidence);
    for (call, op) in evidence.history.ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        let Some(returned) = op.returned else { continue };
        let request = request_of(op);
        let (surely, named) = (evidence.compacted_for(op), lowest_named(op, &request));
        let later = op.revision().map_or(0, |revision| compacted_before(&shown, revision));
        if named > 0 && named < surely.max(later) {
            let what = format!(
                "call {call} ({request:?}) was answered, {surely} was compacted before, and {later} before what \
                 shows less"
            );
            return Err(Failure::new("compaction", what));
        }
        if op.method != Method::HashKv {
            continue;
        }
        let hash = proto::HashKvResponse::decode(op.messages[0].clone()).expect("it is protobuf");
        let compacted = hash.compact_revision.max(0);
        let may_be = compacted == 0 || evidence.may_be_compacted(compacted, returned.tick);
        if compacted < surely || !may_be {
            let what =
                format!("call {call} shows {compacted}, {surely} at least is compacted, or nobody asked");
            return Err(Failure::new("compaction", what));
        }
    }
    Ok(())
}

/// The least that is compacted where this is answered; none where the answer says nothing of it.
pub fn shown(op: &Op) -> Option<i64> {
    let (is_ok, is_compacted) = (op.is_ok(), op.status.1 == Error::Compacted.to_string());
    if !is_ok && !is_compacted {
        return None;
    }
    match request_of(op) {
        Request::Compact(compact) => Some(compact.revision),
        Request::Range(range) if is_compacted => Some(range.revision + 1),
        Request::HashKv { revision } if is_compacted => Some(revision + 1),
        Request::HashKv { .. } => {
            let hash = proto::HashKvResponse::decode(op.messages[0].clone()).expect("it is protobuf");
            Some(hash.compact_revision).filter(|compacted| *compacted > 0)
        }
        _ => None,
    }
}

/// Answers that show the newest revision of all, settled or not: what shows a higher one came later, and so
/// behind every compaction that was confirmed before they were asked for. Their revisions, ascending, with the
/// highest such compaction.
fn shown_since(evidence: &Evidence<'_>) -> Vec<(i64, i64)> {
    let several = evidence.history.known.members.len() > 1;
    let newest = |op: &&Op| {
        use Method::{Alarm, LeaseKeepAlive, LeaseLeases, LeaseTimeToLive, Put};
        matches!(op.method, Put | Alarm | LeaseKeepAlive | LeaseLeases | LeaseTimeToLive)
            && !(several && is_local(op))
    };
    let answers = evidence.history.ops.iter().filter(newest);
    let mut shown: Vec<(i64, i64)> =
        answers.filter_map(|op| Some((op.revision()?, evidence.compacted_surely(op.invoked.tick)))).collect();
    shown.sort();
    let mut highest = 0;
    for (_, compacted) in &mut shown {
        highest = highest.max(*compacted);
        *compacted = highest;
    }
    shown
}

/// What was compacted before anything showed the revision.
fn compacted_before(shown: &[(i64, i64)], revision: i64) -> i64 {
    let below = shown.partition_point(|(shown, _)| *shown < revision);
    shown[..below].last().map_or(0, |(_, compacted)| *compacted)
}

/// The lowest revision by name of which the answer tells something; 0 where it tells of none.
fn lowest_named(op: &Op, request: &Request) -> i64 {
    match request {
        Request::Range(range) => range.revision,
        Request::HashKv { revision } => *revision,
        // Of one at the compacted revision itself etcd says that it was compacted.
        Request::Compact(compact) => compact.revision - 1,
        Request::Txn(txn) => {
            let reply = proto::TxnResponse::decode(op.messages[0].clone()).expect("it is protobuf");
            lowest_read(txn, &reply).unwrap_or(0)
        }
        _ => 0,
    }
}

/// The lowest revision that the ranges of the branch taken name.
fn lowest_read(txn: &TxnRequest, reply: &proto::TxnResponse) -> Option<i64> {
    let taken = if reply.succeeded { &txn.success } else { &txn.failure };
    let read =
        taken.iter().zip(&reply.responses).filter_map(|(op, response)| match (op, &response.response) {
            (TxnOp::Range(range), _) => Some(range.revision).filter(|named| *named > 0),
            (TxnOp::Txn(nested), Some(Response::ResponseTxn(reply))) => lowest_read(nested, reply),
            _ => None,
        });
    read.min()
}
