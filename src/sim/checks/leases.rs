//! Leases end when nobody renews them, and not before.

use super::errors::leases_of;
use super::{Evidence, request_of};
use crate::api::Request;
use crate::sim::history::Moment;
use crate::sim::world::Failure;
use crate::types::{Duration, LeaseId, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message};

/// A renewal that was confirmed: until when the lease lives at least.
struct Renewal {
    returned: Moment,
    lives_until: Time,
}

fn renewals(evidence: &Evidence<'_>, lease: LeaseId) -> Vec<Renewal> {
    let mut renewals = vec![];
    for op in evidence.history.ops.iter().filter(|op| op.is_ok() && !op.messages.is_empty()) {
        let Some(returned) = op.returned else { continue };
        let message = op.messages[0].clone();
        let (id, ttl) = match op.method {
            Method::LeaseGrant => {
                let reply = proto::LeaseGrantResponse::decode(message).expect("it is protobuf");
                (reply.id, reply.ttl)
            }
            Method::LeaseKeepAlive => {
                let reply = proto::LeaseKeepAliveResponse::decode(message).expect("it is protobuf");
                (reply.id, reply.ttl)
            }
            _ => continue,
        };
        if id == lease.0 && ttl > 0 {
            let lives_until = op.invoked.time + Duration::from_secs(ttl.unsigned_abs());
            renewals.push(Renewal { returned, lives_until });
        }
    }
    renewals
}

/// A lease ended by itself with the revision: no renewal confirmed before may have promised more.
pub fn may_end(evidence: &Evidence<'_>, lease: LeaseId, revision: i64) -> Result<(), Failure> {
    let Some(shown) = evidence.shown_at(revision) else { return Ok(()) };
    for renewal in renewals(evidence, lease) {
        if renewal.returned < shown && shown.time < renewal.lives_until {
            let left = renewal.lives_until.since(shown.time);
            let what = format!("lease {lease} ended at revision {revision}, {left:?} too early");
            return Err(Failure::new("leases", what));
        }
    }
    Ok(())
}

/// A call was told that a lease is not there.
pub fn may_be_missing(evidence: &Evidence<'_>, call: usize) -> Result<(), Failure> {
    let op = &evidence.history.ops[call];
    let Some(returned) = op.returned else { return Ok(()) };
    let mut leases = vec![];
    leases_of(&request_of(op), &mut leases);
    let surely_there = |lease: &LeaseId| {
        let granted = renewals(evidence, *lease)
            .iter()
            .any(|r| r.returned < op.invoked && returned.time < r.lives_until);
        granted && !revoked_before(evidence, *lease, returned)
    };
    if !leases.is_empty() && leases.iter().all(surely_there) {
        let what = format!("call {call} ({:?}) did not find a lease that was there", request_of(op));
        return Err(Failure::new("leases", what));
    }
    Ok(())
}

fn revoked_before(evidence: &Evidence<'_>, lease: LeaseId, moment: Moment) -> bool {
    let revokes = evidence.history.ops.iter().filter(|op| op.method == Method::LeaseRevoke);
    revokes.filter(|op| op.invoked < moment).any(|op| request_of(op) == Request::LeaseRevoke(lease))
}

/// What clients were told of leases otherwise.
pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    for (call, op) in evidence.history.ops.iter().enumerate() {
        let (Some(returned), Method::LeaseKeepAlive, true) = (op.returned, op.method, op.is_ok()) else {
            continue;
        };
        let Some(message) = op.messages.first() else { continue };
        let reply = proto::LeaseKeepAliveResponse::decode(message.clone()).expect("it is protobuf");
        let lease = LeaseId(reply.id);
        let promised = renewals(evidence, lease)
            .iter()
            .any(|r| r.returned < op.invoked && returned.time < r.lives_until);
        if reply.ttl <= 0 && promised && !revoked_before(evidence, lease, returned) {
            let what = format!("call {call} could not renew lease {lease}, which was there");
            return Err(Failure::new("leases", what));
        }
    }
    Ok(())
}
