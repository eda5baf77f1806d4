//! What members say of themselves: who they are, which term they are in, how they stand.

use super::{Evidence, is_local, request_of};
use crate::api::{Error, Request};
use crate::limits::QUOTA_BYTES_DEFAULT;
use crate::sim::boot::Identity;
use crate::sim::history::{Header, History, Moment, Op, Reign, is_change};
use crate::sim::world::Failure;
use crate::wire::Method;
use crate::wire::proto::{self, Message};
use std::collections::BTreeMap;

pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    check_headers(evidence.history)?;
    check_reigns(&evidence.history.known.reigns)?;
    let members = &evidence.history.known.members;
    let founders = evidence.history.known.founders();
    let mut published = vec![vec![]; members.len()];
    for (call, op) in evidence.history.ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        let checked = match op.method {
            Method::Status => check_status(evidence.history, op),
            Method::MemberList => check_list(members, founders, op, &mut published),
            _ => Ok(()),
        };
        checked.map_err(|what| wrong(call, op, what))?;
    }
    Ok(())
}

/// No two members lead in one term.
fn check_reigns(reigns: &[Reign]) -> Result<(), Failure> {
    let mut leaders: BTreeMap<u64, usize> = BTreeMap::new();
    for Reign { member, term, .. } in reigns {
        let leader = *leaders.entry(*term).or_insert(*member);
        if leader != *member {
            return Err(Failure::new("member", format!("in term {term} both m{leader} and m{member} led")));
        }
    }
    Ok(())
}

fn wrong(call: usize, op: &Op, what: String) -> Failure {
    Failure::new("member", format!("call {call} ({:?}) to m{}: {what}", op.method, op.member))
}

/// Every answer is of the member that was asked, in its term.
pub fn check_headers(history: &History) -> Result<(), Failure> {
    let mut terms = Terms::new(history.known.members.len());
    let mut shown = vec![];
    for (call, op) in history.ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        let Some(message) = op.messages.first() else { continue };
        if !matches!(op.method, Method::RangeStream | Method::Defragment | Method::MoveLeader) {
            let header = crate::sim::history::header(message).unwrap_or_default();
            check_header(history, op.member, &header, op.invoked).map_err(|what| wrong(call, op, what))?;
            let what = format!("call {call} ({:?})", op.method);
            shown.push((op.invoked, op.returned.unwrap_or(op.invoked), op.member, header.raft_term, what));
        }
    }
    for (at, stream) in history.streams.iter().enumerate() {
        let mut last = 0;
        for (moment, response) in &stream.responses {
            let header = response.header.unwrap_or_default();
            let wrong = |what| Failure::new("member", format!("{response:?} of m{}: {what}", stream.member));
            check_header(history, stream.member, &header, stream.opened).map_err(wrong)?;
            if header.raft_term < last {
                return Err(wrong(format!("term {last} had been shown on stream {at}")));
            }
            last = header.raft_term;
            shown.push((stream.opened, *moment, stream.member, last, format!("stream {at}")));
        }
    }
    for (_, returned, member, term, _) in &shown {
        terms.show(*member, *returned, *term);
    }
    terms.sort();
    for (asked, _, member, term, what) in shown {
        let before = terms.before(member, asked);
        if term < before {
            let what = format!("{what} to m{member} shows term {term}, {before} had been shown");
            return Err(Failure::new("member", what));
        }
    }
    Ok(())
}

/// The terms that each member has shown, which never fall, restarts included.
struct Terms(Vec<Vec<(Moment, u64)>>);

impl Terms {
    fn new(members: usize) -> Terms {
        Terms(vec![vec![]; members])
    }

    fn show(&mut self, member: usize, at: Moment, term: u64) {
        self.0[member].push((at, term));
    }

    fn sort(&mut self) {
        for shown in &mut self.0 {
            shown.sort();
            let mut highest = 0;
            for (_, term) in shown {
                highest = highest.max(*term);
                *term = highest;
            }
        }
    }

    fn before(&self, member: usize, moment: Moment) -> u64 {
        let before = self.0[member].partition_point(|(at, _)| *at < moment);
        self.0[member][..before].last().map_or(0, |(_, term)| *term)
    }
}

fn check_header(history: &History, member: usize, header: &Header, asked: Moment) -> Result<(), String> {
    if (header.cluster_id, header.member_id) != (history.known.cluster.0, history.known.members[member].id.0)
    {
        return Err(format!("who is {header:?}"));
    }
    let mut reigns = history.known.reigns.iter().rev().filter(|reign| reign.member == member).peekable();
    let last = reigns.peek().filter(|reign| reign.begun < asked).map(|reign| reign.term);
    // Where there are others, terms go on without this member's leading.
    let last = last.filter(|_| history.known.members.len() == 1);
    let least = reigns.find(|reign| reign.begun < asked).map_or(0, |reign| reign.term);
    if header.raft_term < least || last.is_some_and(|last| header.raft_term != last) {
        return Err(format!("term {}, {least} had begun, and {last:?}", header.raft_term));
    }
    Ok(())
}

/// Each member is listed as what it is, in the order of their ids. It makes its clients' URLs known once there is a
/// leader, and its name with them where it is no founder: from then on they are there, for all or for who asks the
/// member that listed them.
fn check_list(
    members: &[Identity],
    founders: usize,
    op: &Op,
    published: &mut [Vec<(Moment, usize)>],
) -> Result<(), String> {
    let reply = proto::MemberListResponse::decode(op.messages[0].clone()).expect("it is protobuf");
    if !reply.members.is_sorted_by(|one, other| one.id < other.id) {
        return Err(format!("not in the order of their ids: {:?}", reply.members));
    }
    for member in reply.members {
        let Some(at) = members.iter().position(|known| known.id.0 == member.id) else {
            return Err(format!("who is {member:?}"));
        };
        let Identity { name, client_url, .. } = &members[at];
        let published = &mut published[at];
        let lacks_urls = member.client_urls.is_empty();
        let name = if lacks_urls && at >= founders { "" } else { name };
        let client_urls = if lacks_urls { &[][..] } else { std::slice::from_ref(client_url) };
        if (&member.name[..], &member.client_urls[..]) != (name, client_urls) {
            return Err(format!("it is {name:?} at {client_urls:?}, not {member:?}"));
        }
        let knows =
            |(before, by): &(Moment, usize)| *before < op.invoked && (*by == op.member || !is_local(op));
        if lacks_urls && published.iter().any(knows) {
            return Err(format!("the URLs of m{at} are gone"));
        }
        if let Some(returned) = op.returned.filter(|_| !lacks_urls) {
            published.push((returned, op.member));
        }
    }
    Ok(())
}

fn check_status(history: &History, op: &Op) -> Result<(), String> {
    let status = proto::StatusResponse::decode(op.messages[0].clone()).expect("it is protobuf");
    let quota = history.known.quota_bytes.map_or(QUOTA_BYTES_DEFAULT, u64::cast_signed);
    let no_leader = status.errors.iter().any(|error| error.contains("no leader"));
    let is_member =
        status.leader != 0 && history.known.members.iter().any(|member| member.id.0 == status.leader);
    let right = (if no_leader { status.leader == 0 } else { is_member })
        && (!status.is_learner || was_learner(history, op.member))
        && status.raft_applied_index <= status.raft_index
        && (0..=status.db_size).contains(&status.db_size_in_use)
        && status.db_size_quota == quota
        && status.raft_term == status.header.unwrap_or_default().raft_term;
    if right { Ok(()) } else { Err(format!("{status:?}")) }
}

/// Whether somebody has asked for the member as a learner.
fn was_learner(history: &History, member: usize) -> bool {
    let url = &history.known.members[member].peer_url;
    changes(history).any(|(_, request)| {
        matches!(request, Request::MemberAdd { peer_urls, is_learner: true } if peer_urls.contains(url))
    })
}

/// What was asked to change of the members, and when.
fn changes(history: &History) -> impl Iterator<Item = (&Op, Request)> {
    let changes = history.ops.iter().filter(|op| is_change(op.method));
    changes.map(|op| (op, request_of(op)))
}

/// Whether an error may be told since members come and go: it says whose doing that must have been before.
pub fn may_be_refused(history: &History, op: &Op) -> bool {
    if history.known.newcomers == 0 {
        return false;
    }
    let is = |error: Error| op.status.1 == error.to_string();
    if is(Error::NotSupportedForLearner) {
        return was_learner(history, op.member);
    }
    if op.method == Method::MoveLeader {
        return is(Error::BadLeaderTransferee);
    }
    if !is_change(op.method) {
        return false;
    }
    let asked = request_of(op);
    let before = || {
        changes(history).filter(|(other, _)| other.invoked != op.invoked && Some(other.invoked) < op.returned)
    };
    match &asked {
        Request::MemberAdd { peer_urls: urls, .. } | Request::MemberUpdate { peer_urls: urls, .. }
            if is(Error::PeerUrlExists) =>
        {
            let names = |request: &Request| match request {
                Request::MemberAdd { peer_urls, .. } | Request::MemberUpdate { peer_urls, .. } => {
                    peer_urls == urls
                }
                _ => false,
            };
            before().any(|(_, request)| names(&request))
        }
        Request::MemberAdd { is_learner: true, .. } if is(Error::TooManyLearners) => {
            before().any(|(_, request)| matches!(request, Request::MemberAdd { is_learner: true, .. }))
        }
        Request::MemberRemove { member: id }
        | Request::MemberUpdate { member: id, .. }
        | Request::MemberPromote { member: id }
            if is(Error::MemberNotFound) =>
        {
            before().any(|(_, request)| matches!(request, Request::MemberRemove { member } if member == *id))
        }
        Request::MemberPromote { .. } if is(Error::NotLearner) => {
            before().any(|(_, request)| request == asked)
        }
        Request::MemberPromote { .. } if is(Error::LearnerNotReady) => true,
        _ => op.is_unchanged(),
    }
}
