//! What the member says of itself: who it is, which term it is in, how it stands.

use super::Evidence;
use crate::limits::QUOTA_BYTES_DEFAULT;
use crate::sim::boot::{CLIENT_URL, CLUSTER, MEMBER, NAME, PEER_URL};
use crate::sim::history::{Header, Moment, Op};
use crate::sim::world::Failure;
use crate::wire::Method;
use crate::wire::proto::{self, Message};

pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    let mut published: Option<Moment> = None;
    for (call, op) in evidence.history.ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        let (Some(returned), Some(message)) = (op.returned, op.messages.first()) else { continue };
        let wrong = |what: String| Failure::new("member", format!("call {call} ({:?}): {what}", op.method));
        if !matches!(op.method, Method::RangeStream | Method::Defragment) {
            let header = crate::sim::history::header(message).unwrap_or_default();
            check_header(evidence, &header, op.invoked).map_err(wrong)?;
        }
        match op.method {
            Method::Status => check_status(evidence, op).map_err(wrong)?,
            Method::MemberList => {
                let reply = proto::MemberListResponse::decode(message.clone()).expect("it is protobuf");
                let lacks_urls = is_this_one(&reply.members).map_err(wrong)?;
                // It makes its URLs known once it serves.
                if lacks_urls && published.is_some_and(|before| before < op.invoked) {
                    return Err(wrong("its URLs are gone".into()));
                }
                if !lacks_urls {
                    published = published.or(Some(returned));
                }
            }
            _ => {}
        }
    }
    for stream in &evidence.history.streams {
        for (_, response) in &stream.responses {
            let header = response.header.unwrap_or_default();
            let wrong = |what| Failure::new("member", format!("{response:?}: {what}"));
            check_header(evidence, &header, stream.opened).map_err(wrong)?;
        }
    }
    Ok(())
}

fn check_header(evidence: &Evidence<'_>, header: &Header, asked: Moment) -> Result<(), String> {
    if (header.cluster_id, header.member_id) != (CLUSTER.0, MEMBER.0) {
        return Err(format!("who is {header:?}"));
    }
    let reigns = &evidence.history.known.reigns;
    let least = reigns.iter().rev().find(|reign| reign.begun < asked).map_or(0, |reign| reign.term);
    let last = reigns.last().filter(|reign| reign.begun < asked);
    if header.raft_term < least || last.is_some_and(|last| header.raft_term != last.term) {
        return Err(format!("term {}, {least} had begun, and {last:?}", header.raft_term));
    }
    Ok(())
}

/// Whether its clients' URLs are missing.
fn is_this_one(members: &[proto::Member]) -> Result<bool, String> {
    let [member] = members else { return Err(format!("there is one, not {members:?}")) };
    let expected = proto::Member {
        id: MEMBER.0,
        name: NAME.into(),
        peer_urls: vec![PEER_URL.into()],
        client_urls: vec![CLIENT_URL.into()],
        is_learner: false,
    };
    let lacks_urls = member.client_urls.is_empty();
    let whole = proto::Member { client_urls: expected.client_urls.clone(), ..member.clone() };
    let known = if lacks_urls { whole == expected } else { *member == expected };
    if known { Ok(lacks_urls) } else { Err(format!("it is {expected:?}, not {member:?}")) }
}

fn check_status(evidence: &Evidence<'_>, op: &Op) -> Result<(), String> {
    let status = proto::StatusResponse::decode(op.messages[0].clone()).expect("it is protobuf");
    let quota = evidence.history.known.quota_bytes.map_or(QUOTA_BYTES_DEFAULT, u64::cast_signed);
    let no_leader = status.errors.iter().any(|error| error.contains("no leader"));
    let leader = if no_leader { 0 } else { MEMBER.0 };
    let right = status.leader == leader
        && !status.is_learner
        && status.raft_applied_index <= status.raft_index
        && (0..=status.db_size).contains(&status.db_size_in_use)
        && status.db_size_quota == quota
        && status.raft_term == status.header.unwrap_or_default().raft_term;
    if right { Ok(()) } else { Err(format!("{status:?}")) }
}
