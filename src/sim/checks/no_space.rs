//! NOSPACE: raised for a reason, known to everybody once anybody knows it, kept over restarts, until it is
//! disarmed; and as long as it stands nothing that adds is taken.

use super::{Evidence, is_local, request_of};
use crate::api::{AlarmAction, AlarmType, Error, Op as TxnOp, Request, TxnRequest};
use crate::sim::history::Op;
use crate::sim::world::Failure;
use crate::wire::Method;
use crate::wire::proto::{self, Message};

pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    let ops = &evidence.history.ops;
    let known = &evidence.history.known;
    let seen: Vec<&Op> = ops.iter().filter(|op| shows(op) == Some(true)).collect();
    for op in &seen {
        let full = known.full_since.is_some_and(|since| op.returned.is_some_and(|at| since < at));
        if !full && known.quota_bytes.is_none() {
            let what = format!("{:?} shows the alarm, and nothing was ever full", request_of(op));
            return Err(Failure::new("no space", what));
        }
    }
    let disarms: Vec<&Op> = ops.iter().filter(|op| disarms(op)).collect();
    for (call, op) in ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        if shows(op) == Some(true) || !(shows(op) == Some(false) || adds(&request_of(op))) {
            continue;
        }
        let local = is_local(op);
        let stands = |before: &&&Op| {
            before.returned < Some(op.invoked)
                && (before.member == op.member || !local)
                && !disarms.iter().any(|disarm| {
                    // One that failed may have been done, at any time since.
                    let ended = disarm.returned.filter(|_| disarm.is_ok());
                    Some(disarm.invoked) < op.returned && ended.is_none_or(|at| at > before.invoked)
                })
        };
        if let Some(before) = seen.iter().find(stands) {
            let what = format!(
                "call {call} ({:?}) is answered as if no alarm stood, which {:?} was shown before",
                request_of(op),
                request_of(before)
            );
            return Err(Failure::new("no space", what));
        }
    }
    Ok(())
}

/// Whether the answer shows the alarm; none where it could not.
fn shows(op: &Op) -> Option<bool> {
    op.returned?;
    if op.status.1 == Error::NoSpace.to_string() {
        return Some(true);
    }
    if !op.is_ok() {
        return None;
    }
    let message = op.messages[0].clone();
    match (op.method, request_of(op)) {
        (Method::Alarm, Request::Alarm(asked)) if asked.action == AlarmAction::Get => {
            let reply = proto::AlarmResponse::decode(message).expect("it is protobuf");
            Some(reply.alarms.iter().any(|alarm| alarm.alarm == 1))
        }
        (Method::Status, _) => {
            let reply = proto::StatusResponse::decode(message).expect("it is protobuf");
            Some(reply.errors.iter().any(|error| error.ends_with("alarm:NOSPACE")))
        }
        _ => None,
    }
}

fn disarms(op: &Op) -> bool {
    let disarm = |request| {
        matches!(request, Request::Alarm(asked)
            if asked.action == AlarmAction::Deactivate && asked.alarm == AlarmType::NoSpace)
    };
    op.method == Method::Alarm && disarm(request_of(op))
}

fn adds(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::LeaseGrant(_) => true,
        Request::Txn(txn) => has_put(txn),
        _ => false,
    }
}

/// Whether either branch has a put: etcd does not look at which one holds before it refuses.
fn has_put(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        TxnOp::Put(_) => true,
        TxnOp::Txn(nested) => has_put(nested),
        _ => false,
    })
}
