//! What members say of themselves: who they are, which term they are in, how they stand.

use super::Evidence;
use crate::limits::QUOTA_BYTES_DEFAULT;
use crate::sim::boot::{CLUSTER, Identity};
use crate::sim::history::{Header, History, Moment, Op};
use crate::sim::world::Failure;
use crate::wire::Method;
use crate::wire::proto::{self, Message};

pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    check_headers(evidence.history)?;
    let mut published: Vec<Option<Moment>> = vec![None; evidence.history.known.members];
    for (call, op) in evidence.history.ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        let checked = match op.method {
            Method::Status => check_status(evidence.history, op),
            Method::MemberList => check_list(op, &mut published),
            _ => Ok(()),
        };
        checked.map_err(|what| wrong(call, op, what))?;
    }
    Ok(())
}

fn wrong(call: usize, op: &Op, what: String) -> Failure {
    Failure::new("member", format!("call {call} ({:?}) to m{}: {what}", op.method, op.member))
}

/// Every answer is of the member that was asked, in its term.
pub fn check_headers(history: &History) -> Result<(), Failure> {
    for (call, op) in history.ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        let Some(message) = op.messages.first() else { continue };
        if !matches!(op.method, Method::RangeStream | Method::Defragment) {
            let header = crate::sim::history::header(message).unwrap_or_default();
            check_header(history, op.member, &header, op.invoked).map_err(|what| wrong(call, op, what))?;
        }
    }
    for stream in &history.streams {
        for (_, response) in &stream.responses {
            let header = response.header.unwrap_or_default();
            let wrong = |what| Failure::new("member", format!("{response:?} of m{}: {what}", stream.member));
            check_header(history, stream.member, &header, stream.opened).map_err(wrong)?;
        }
    }
    Ok(())
}

fn check_header(history: &History, member: usize, header: &Header, asked: Moment) -> Result<(), String> {
    if (header.cluster_id, header.member_id) != (CLUSTER.0, Identity::of(member).id.0) {
        return Err(format!("who is {header:?}"));
    }
    let mut reigns = history.known.reigns.iter().rev().filter(|reign| reign.member == member).peekable();
    let last = reigns.peek().filter(|reign| reign.begun < asked).map(|reign| reign.term);
    let least = reigns.find(|reign| reign.begun < asked).map_or(0, |reign| reign.term);
    if header.raft_term < least || last.is_some_and(|last| header.raft_term != last) {
        return Err(format!("term {}, {least} had begun, and {last:?}", header.raft_term));
    }
    Ok(())
}

/// Each member is listed as what it is, in the order of their ids. It makes its clients' URLs known once it serves:
/// from then on they are there.
fn check_list(op: &Op, published: &mut [Option<Moment>]) -> Result<(), String> {
    let reply = proto::MemberListResponse::decode(op.messages[0].clone()).expect("it is protobuf");
    if reply.members.len() != published.len() {
        return Err(format!("there are {}, not {:?}", published.len(), reply.members));
    }
    for (at, (member, published)) in reply.members.into_iter().zip(published).enumerate() {
        let Identity { id, name, peer_url, client_url } = Identity::of(at);
        let lacks_urls = member.client_urls.is_empty();
        let client_urls = if lacks_urls { vec![] } else { vec![client_url] };
        let (id, peer_urls) = (id.0, vec![peer_url]);
        let expected = proto::Member { id, name, peer_urls, client_urls, is_learner: false };
        if member != expected {
            return Err(format!("it is {expected:?}, not {member:?}"));
        }
        if lacks_urls && published.is_some_and(|before| before < op.invoked) {
            return Err(format!("the URLs of m{at} are gone"));
        }
        if !lacks_urls {
            *published = published.or(op.returned);
        }
    }
    Ok(())
}

fn check_status(history: &History, op: &Op) -> Result<(), String> {
    let status = proto::StatusResponse::decode(op.messages[0].clone()).expect("it is protobuf");
    let quota = history.known.quota_bytes.map_or(QUOTA_BYTES_DEFAULT, u64::cast_signed);
    let no_leader = status.errors.iter().any(|error| error.contains("no leader"));
    let is_member = (0..history.known.members).any(|member| Identity::of(member).id.0 == status.leader);
    let right = (if no_leader { status.leader == 0 } else { is_member })
        && !status.is_learner
        && status.raft_applied_index <= status.raft_index
        && (0..=status.db_size).contains(&status.db_size_in_use)
        && status.db_size_quota == quota
        && status.raft_term == status.header.unwrap_or_default().raft_term;
    if right { Ok(()) } else { Err(format!("{status:?}")) }
}
