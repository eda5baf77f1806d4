//! Leases end when nobody renews them, and not before.

use super::errors::leases_of;
use super::{Evidence, is_local, request_of};
use crate::api::Request;
use crate::sim::boot::ELECTION_TIMEOUT;
use crate::sim::history::{Moment, Op};
use crate::sim::plan::DRIFT_PPM_MAX;
use crate::sim::world::Failure;
use crate::types::{Duration, LeaseId, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message};

/// A renewal that was confirmed: until when the lease lives at least.
struct Renewal {
    returned: Moment,
    /// The member that granted the lease, where this is its grant.
    granted_by: Option<usize>,
    lives_until: Time,
}

/// The shortest life of a lease: one and a half election timeouts, in whole seconds (etcd's law).
const TTL_SECS_MIN: i64 = (ELECTION_TIMEOUT.0 as i64 * 3).div_euclid(2_000_000_000) + 1;

/// The time to live of a lease, as its grant asked for it.
fn granted_ttl(evidence: &Evidence<'_>, lease: LeaseId) -> Option<i64> {
    evidence.history.ops.iter().filter(|op| op.method == Method::LeaseGrant).find_map(|op| {
        let Request::LeaseGrant(grant) = request_of(op) else { return None };
        (grant.id == lease).then_some(grant.ttl.max(TTL_SECS_MIN))
    })
}

/// What was promised of a lease: by its grant, by renewals, and by epochs that began while it lived, each of
/// which gives every lease its whole time anew and the time of an election (etcd's law).
fn renewals(evidence: &Evidence<'_>, lease: LeaseId) -> Vec<Renewal> {
    let mut renewals = confirmed_renewals(evidence, lease);
    let Some(ttl) = granted_ttl(evidence, lease) else { return renewals };
    for reign in &evidence.history.known.reigns {
        let lives = |r: &Renewal| r.returned < reign.begun && reign.begun.time < r.lives_until;
        if renewals.iter().any(lives) {
            let whole = Duration::from_secs(ttl.unsigned_abs());
            // A renewal gives no more than the lease's time from then on (etcd's law).
            let renewed =
                asked_renewals(evidence, lease).any(|r| r.returned.is_none_or(|at| reign.begun < at));
            let extension = if renewed { Duration(0) } else { ELECTION_TIMEOUT };
            let lives_until = reign.begun.time + shortest(evidence, Duration(whole.0 + extension.0));
            renewals.push(Renewal { returned: reign.begun, granted_by: None, lives_until });
        }
    }
    renewals
}

/// What a span by a member's clock takes at least: those of several members part.
fn shortest(evidence: &Evidence<'_>, span: Duration) -> Duration {
    let several = evidence.history.known.members.len() > 1;
    Duration(span.0 - if several { span.0 / 1_000_000 * DRIFT_PPM_MAX } else { 0 })
}

fn asked_renewals<'a>(evidence: &Evidence<'a>, lease: LeaseId) -> impl Iterator<Item = &'a Op> {
    let renewals = evidence.history.ops.iter().filter(|op| op.method == Method::LeaseKeepAlive);
    renewals.filter(move |op| request_of(op) == Request::LeaseTimeToLive { lease, keys: false })
}

fn confirmed_renewals(evidence: &Evidence<'_>, lease: LeaseId) -> Vec<Renewal> {
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
            let whole = Duration::from_secs(ttl.unsigned_abs());
            let lives_until = op.invoked.time + shortest(evidence, whole);
            let granted_by = (op.method == Method::LeaseGrant).then_some(op.member);
            renewals.push(Renewal { returned, granted_by, lives_until });
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

/// Whether the call knows what a member has said: what is answered by what a member has itself knows that one's.
fn knows(op: &Op, member: usize) -> bool {
    op.member == member || !is_local(op)
}

/// Whether a revoke of the lease was confirmed before the call, which knows of it.
fn ended_before(evidence: &Evidence<'_>, lease: LeaseId, op: &Op) -> bool {
    let revokes = evidence.history.ops.iter().filter(|op| op.method == Method::LeaseRevoke && op.is_ok());
    revokes
        .filter(|revoke| revoke.returned.is_some_and(|returned| returned < op.invoked))
        .any(|revoke| knows(op, revoke.member) && request_of(revoke) == Request::LeaseRevoke(lease))
}

/// Until when the lease surely lives, by what was promised before the call.
fn lives_until(evidence: &Evidence<'_>, lease: LeaseId, op: &Op) -> Option<Time> {
    let returned = op.returned?;
    if revoked_before(evidence, lease, returned) {
        return None;
    }
    let mut renewals = renewals(evidence, lease);
    renewals.retain(|r| r.returned < op.invoked);
    // A member need not have heard of what another granted, unless it has shown some of it.
    if evidence.history.known.members.len() > 1 && is_local(op) && !knows_lease(evidence, lease, op) {
        return None;
    }
    renewals.into_iter().map(|r| r.lives_until).max().filter(|until| returned.time < *until)
}

/// Whether the call knows that the lease was granted: by who answers it or to any who asks, or since its member has
/// shown it before, or shows a change that names it.
fn knows_lease(evidence: &Evidence<'_>, lease: LeaseId, op: &Op) -> bool {
    let granted = |r: &Renewal| r.returned < op.invoked && r.granted_by.is_some_and(|by| knows(op, by));
    let names = |event: &proto::Event| event.kv.as_ref().is_some_and(|kv| kv.lease == lease.0);
    let mut changes = evidence.record.range(..=op.revision().unwrap_or(0)).flat_map(|(_, events)| events);
    renewals(evidence, lease).iter().any(granted)
        || lists_before(evidence, op).any(|list| listed(list).contains(&lease))
        || changes.any(names)
}

/// What the member of a call has listed before.
fn lists_before<'a>(evidence: &Evidence<'a>, op: &'a Op) -> impl Iterator<Item = &'a Op> {
    let lists = evidence.history.ops.iter().filter(|op| op.method == Method::LeaseLeases && op.is_ok());
    lists.filter(|list| list.member == op.member && list.returned < Some(op.invoked))
}

fn listed(list: &Op) -> Vec<LeaseId> {
    let reply = proto::LeaseLeasesResponse::decode(list.messages[0].clone()).expect("it is protobuf");
    reply.leases.iter().map(|lease| LeaseId(lease.id)).collect()
}

/// Whether the member of a call has listed leases without this one, and knew that it was granted.
fn gone_before(evidence: &Evidence<'_>, lease: LeaseId, op: &Op) -> bool {
    let grants = evidence.history.ops.iter().filter(|op| op.method == Method::LeaseGrant);
    let of_it = |op: &&Op| matches!(request_of(op), Request::LeaseGrant(grant) if grant.id == lease);
    let gone = |list: &Op| !listed(list).contains(&lease) && knows_lease(evidence, lease, list);
    grants.filter(of_it).count() == 1 && lists_before(evidence, op).any(gone)
}

/// What clients were told of leases otherwise. `ended` are those that ended with a revision.
pub fn check(evidence: &Evidence<'_>, ended: &[(LeaseId, i64)]) -> Result<(), Failure> {
    check_ended(evidence, ended)?;
    for (call, op) in evidence.history.ops.iter().enumerate() {
        let (true, Some(message)) = (op.is_ok(), op.messages.first().cloned()) else { continue };
        let checked = match op.method {
            Method::LeaseGrant => {
                let reply = proto::LeaseGrantResponse::decode(message).expect("it is protobuf");
                let granted = granted_ttl(evidence, LeaseId(reply.id));
                if granted == Some(reply.ttl) { Ok(()) } else { Err(format!("not {granted:?}: {reply:?}")) }
            }
            Method::LeaseKeepAlive => {
                let reply = proto::LeaseKeepAliveResponse::decode(message).expect("it is protobuf");
                check_there(evidence, op, LeaseId(reply.id), (reply.ttl > 0).then_some(reply.ttl))
            }
            Method::LeaseTimeToLive => check_time_to_live(evidence, op),
            Method::LeaseLeases => check_list(evidence, op),
            _ => Ok(()),
        };
        checked.map_err(|what| Failure::new("leases", format!("call {call} ({:?}): {what}", op.method)))?;
    }
    Ok(())
}

/// Nobody finds a lease once it was shown what its end deleted: who renews one surely leads.
fn check_ended(evidence: &Evidence<'_>, ended: &[(LeaseId, i64)]) -> Result<(), Failure> {
    let ops = evidence.history.ops.iter().enumerate().filter(|(_, op)| op.is_ok());
    for (call, op) in ops.filter(|(_, op)| !op.messages.is_empty()) {
        let message = op.messages[0].clone();
        let found = match op.method {
            Method::LeaseKeepAlive => {
                let reply = proto::LeaseKeepAliveResponse::decode(message).expect("it is protobuf");
                (reply.ttl > 0).then_some(reply.id)
            }
            Method::LeaseTimeToLive => {
                let reply = proto::LeaseTimeToLiveResponse::decode(message).expect("it is protobuf");
                (reply.granted_ttl > 0).then_some(reply.id)
            }
            _ => None,
        };
        let is_over = |(lease, revision): &&(LeaseId, i64)| {
            let shown = evidence.shown_at(*revision);
            found == Some(lease.0) && shown.is_some_and(|shown| shown < op.invoked)
        };
        if let Some((lease, revision)) = ended.iter().find(is_over) {
            let what = format!("call {call} ({:?}) found {lease}, ended by {revision}", op.method);
            return Err(Failure::new("leases", what));
        }
    }
    Ok(())
}

/// `granted` is the time to live that the answer shows, where it shows the lease.
fn check_there(evidence: &Evidence<'_>, op: &Op, lease: LeaseId, granted: Option<i64>) -> Result<(), String> {
    match granted {
        None if lives_until(evidence, lease, op).is_some() => {
            Err(format!("did not find lease {lease}, which was there"))
        }
        Some(_) if ended_before(evidence, lease, op) => {
            Err(format!("found lease {lease}, which had been revoked"))
        }
        Some(ttl) if granted_ttl(evidence, lease) != Some(ttl) => {
            Err(format!("lease {lease} has not the time to live {ttl}"))
        }
        _ => Ok(()),
    }
}

fn check_time_to_live(evidence: &Evidence<'_>, op: &Op) -> Result<(), String> {
    let reply = proto::LeaseTimeToLiveResponse::decode(op.messages[0].clone()).expect("it is protobuf");
    let (lease, there) = (LeaseId(reply.id), reply.granted_ttl > 0);
    check_there(evidence, op, lease, there.then_some(reply.granted_ttl))?;
    if !there {
        let empty = reply.ttl == -1 && reply.keys.is_empty();
        return if empty { Ok(()) } else { Err(format!("{reply:?}")) };
    }
    let returned = op.returned.map(|moment| moment.time).unwrap_or_default();
    let until = lives_until(evidence, lease, op);
    let least = until.map_or(i64::MIN, |until| (until.since(returned).0 / 1_000_000_000) as i64);
    let most = reply.granted_ttl + (ELECTION_TIMEOUT.0 / 1_000_000_000) as i64;
    if reply.ttl < least || reply.ttl > most {
        return Err(format!("{} s are left, not {least} to {most}", reply.ttl));
    }
    Ok(())
}

fn check_list(evidence: &Evidence<'_>, op: &Op) -> Result<(), String> {
    let listed = listed(op);
    for lease in &listed {
        if gone_before(evidence, *lease, op) {
            return Err(format!("found lease {lease}, which had been listed no more"));
        }
        let ttl = granted_ttl(evidence, *lease);
        check_there(evidence, op, *lease, ttl.or(Some(-1)))?;
    }
    let grants = evidence.history.ops.iter().filter(|grant| grant.method == Method::LeaseGrant);
    for grant in grants {
        let Request::LeaseGrant(grant) = request_of(grant) else { continue };
        if !listed.contains(&grant.id) {
            check_there(evidence, op, grant.id, None)?;
        }
    }
    Ok(())
}
