//! Errors that clients were told: each must have been true at some revision it could have been asked at.

use super::{Evidence, request_of};
use crate::api::{Error, Op as TxnOp, Request};
use crate::sim::history::Op;
use crate::sim::model::Model;
use crate::sim::world::Failure;
use crate::types::LeaseId;
use crate::wire::Method;

/// An error that no revision has justified yet.
pub struct Pending {
    call: usize,
    floor: i64,
    request: Request,
    text: String,
    justified: bool,
}

/// Whoever is asked to hand the lead over may have lost it meanwhile.
const NOT_LEADER: &str = "etcdserver: not leader";

/// Sorts the errors: what does not depend on keys is judged at once.
pub fn pending(evidence: &Evidence<'_>) -> Result<Vec<Pending>, Failure> {
    let mut pending = vec![];
    for (call, op) in evidence.history.ops.iter().enumerate() {
        let Some(returned) = op.returned else { continue };
        if op.status.0 == 0 || op.is_unknown() {
            continue;
        }
        let text = &op.status.1;
        let wrong = |what: &str| {
            Err(Failure::new("errors", format!("call {call} ({:?}) got {text:?}: {what}", request_of(op))))
        };
        if *text == Error::NoSpace.to_string() {
            continue; // it has a check of its own
        }
        if op.is_unprocessed() {
            continue;
        }
        if op.is_refused() {
            if !evidence.history.known.refuses {
                return wrong("nothing is that busy");
            }
            continue;
        }
        if op.is_leaderless() {
            if evidence.history.known.members.len() == 1 {
                return wrong("who else would lead");
            }
            continue;
        }
        if evidence.history.known.members.len() > 1 && op.method == Method::MoveLeader && text == NOT_LEADER {
            continue;
        }
        if super::members::may_be_refused(evidence.history, op) {
            continue;
        }
        if *text == Error::Compacted.to_string() {
            let asked = lowest_revision(op);
            if evidence.compacted_before(returned.tick) < asked {
                return wrong("nothing so high had been compacted");
            }
            continue;
        }
        if *text == Error::FutureRevision.to_string() {
            if highest_revision(op) <= evidence.floor_of(op) {
                return wrong("the revision had been shown before");
            }
            continue;
        }
        if *text == Error::LeaseNotFound.to_string() {
            super::leases::may_be_missing(evidence, call)?;
            continue;
        }
        if !matches!(op.method, Method::Put | Method::DeleteRange | Method::Txn | Method::Range) {
            return wrong("that should not happen");
        }
        let (floor, request) = (evidence.floor_of(op), request_of(op));
        pending.push(Pending { call, floor, request, text: text.clone(), justified: false });
    }
    Ok(pending)
}

/// Holds what is pending against the state at a revision.
pub fn look(pending: &mut [Pending], model: &Model, revision: i64) {
    for error in pending.iter_mut().filter(|error| !error.justified && error.floor <= revision) {
        let answer = model.clone().answer(&error.request);
        error.justified = answer.is_err_and(|e| e.to_string() == error.text);
    }
}

/// Fails where an error's reason was never true while its call was under way.
pub fn check(pending: &[Pending], evidence: &Evidence<'_>) -> Result<(), Failure> {
    match pending.iter().find(|error| !error.justified) {
        None => Ok(()),
        Some(error) => {
            let op = &evidence.history.ops[error.call];
            let what = format!("call {} ({:?}) got {:?}, never true", error.call, error.request, op.status);
            Err(Failure::new("errors", what))
        }
    }
}

fn revisions(request: &Request, into: &mut Vec<i64>) {
    match request {
        Request::Range(range) => into.push(range.revision),
        Request::HashKv { revision } => into.push(*revision),
        Request::Compact(compact) => into.push(compact.revision),
        Request::Txn(txn) => {
            for op in txn.success.iter().chain(&txn.failure) {
                match op {
                    TxnOp::Range(range) => into.push(range.revision),
                    TxnOp::Txn(nested) => revisions(&Request::Txn(nested.clone()), into),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn lowest_revision(op: &Op) -> i64 {
    let mut named = vec![];
    revisions(&request_of(op), &mut named);
    named.into_iter().filter(|revision| *revision > 0).min().unwrap_or(0)
}

fn highest_revision(op: &Op) -> i64 {
    let mut named = vec![];
    revisions(&request_of(op), &mut named);
    named.into_iter().max().unwrap_or(0)
}

/// The leases that a request names.
pub fn leases_of(request: &Request, into: &mut Vec<LeaseId>) {
    match request {
        Request::Put(put) => into.push(put.lease),
        Request::LeaseRevoke(lease) => into.push(*lease),
        Request::LeaseTimeToLive { lease, .. } => into.push(*lease),
        Request::Txn(txn) => {
            for op in txn.success.iter().chain(&txn.failure) {
                match op {
                    TxnOp::Put(put) => into.push(put.lease),
                    TxnOp::Txn(nested) => leases_of(&Request::Txn(nested.clone()), into),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    into.retain(|lease| *lease != LeaseId::NONE);
}
