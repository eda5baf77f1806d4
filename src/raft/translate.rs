//! Between raft-rs' messages and ours: raft-rs' own go no further than here, and what it cannot have said or heard
//! is no message of ours.

use super::tail::Tail;
use super::{Message, MessageBody, Position, RoundId, VoteKind};
use crate::limits::APPEND_BYTES_MAX;
use crate::types::{Index, RaftId, Term};
use ::raft::CAMPAIGN_TRANSFER;
use ::raft::eraftpb::{self, MessageType};

/// raft-rs' form of a message, but for the entries of an append, which the group keeps first.
pub(super) fn to_raft(message: &Message) -> eraftpb::Message {
    let mut raft = eraftpb::Message {
        from: message.from.get(),
        to: message.to.get(),
        term: message.term.0,
        ..eraftpb::Message::default()
    };
    match &message.body {
        MessageBody::Append { after, commit, .. } => {
            raft.set_msg_type(MessageType::MsgAppend);
            (raft.index, raft.log_term, raft.commit) = (after.index.0, after.term.0, commit.0);
        }
        MessageBody::AppendAnswer { index, commit, rejected } => {
            raft.set_msg_type(MessageType::MsgAppendResponse);
            (raft.index, raft.commit, raft.reject) = (index.0, commit.0, rejected.is_some());
            let hint = rejected.unwrap_or_default();
            (raft.reject_hint, raft.log_term) = (hint.index.0, hint.term.0);
        }
        MessageBody::Vote { kind, last, commit } => {
            raft.set_msg_type(match kind {
                VoteKind::Pre => MessageType::MsgRequestPreVote,
                VoteKind::Real | VoteKind::Transfer => MessageType::MsgRequestVote,
            });
            (raft.index, raft.log_term) = (last.index.0, last.term.0);
            (raft.commit, raft.commit_term) = (commit.index.0, commit.term.0);
            if *kind == VoteKind::Transfer {
                raft.context = CAMPAIGN_TRANSFER.to_vec();
            }
        }
        MessageBody::VoteAnswer { kind, is_granted, commit } => {
            raft.set_msg_type(match kind {
                VoteKind::Pre => MessageType::MsgRequestPreVoteResponse,
                VoteKind::Real | VoteKind::Transfer => MessageType::MsgRequestVoteResponse,
            });
            raft.reject = !is_granted;
            (raft.commit, raft.commit_term) = (commit.index.0, commit.term.0);
        }
        MessageBody::Heartbeat { commit, round } => {
            raft.set_msg_type(MessageType::MsgHeartbeat);
            (raft.commit, raft.context) = (commit.0, context_of(*round));
        }
        MessageBody::HeartbeatAnswer { commit, round } => {
            raft.set_msg_type(MessageType::MsgHeartbeatResponse);
            (raft.commit, raft.context) = (commit.0, context_of(*round));
        }
        MessageBody::TimeoutNow => raft.set_msg_type(MessageType::MsgTimeoutNow),
    }
    raft
}

/// Our form of what raft-rs says; of an append that is larger than one message may be, several.
pub(super) fn from_raft(raft: eraftpb::Message, tail: &Tail, mut send: impl FnMut(Message)) {
    let id = |id| RaftId::new(id).expect("raft-rs names who says it and to whom");
    let (from, to, term) = (id(raft.from), id(raft.to), Term(raft.term));
    assert!(from != to, "no peer writes to itself");
    assert!(term > Term(0), "every message has a term");
    assert!(raft.snapshot.is_none() && raft.request_snapshot == 0, "nobody has or asks for a state");
    let at = |index, term| Position { index: Index(index), term: Term(term) };
    let commit = Index(raft.commit);
    let body = match raft.msg_type() {
        MessageType::MsgAppend => {
            let after = at(raft.index, raft.log_term);
            appends(after, commit, &raft.entries, tail, |body| send(Message { from, to, term, body }));
            return;
        }
        MessageType::MsgAppendResponse => {
            let rejected = raft.reject.then(|| at(raft.reject_hint, raft.log_term));
            MessageBody::AppendAnswer { index: Index(raft.index), commit, rejected }
        }
        MessageType::MsgRequestPreVote => vote(VoteKind::Pre, &raft),
        MessageType::MsgRequestVote if raft.context == CAMPAIGN_TRANSFER => vote(VoteKind::Transfer, &raft),
        MessageType::MsgRequestVote => vote(VoteKind::Real, &raft),
        MessageType::MsgRequestPreVoteResponse => vote_answer(VoteKind::Pre, &raft),
        MessageType::MsgRequestVoteResponse => vote_answer(VoteKind::Real, &raft),
        MessageType::MsgHeartbeat => MessageBody::Heartbeat { commit, round: round_of(&raft.context) },
        MessageType::MsgHeartbeatResponse => {
            MessageBody::HeartbeatAnswer { commit, round: round_of(&raft.context) }
        }
        MessageType::MsgTimeoutNow => MessageBody::TimeoutNow,
        other => unreachable!("a group that forwards nothing and sends no state says {other:?}"),
    };
    send(Message { from, to, term, body });
}

fn vote(kind: VoteKind, raft: &eraftpb::Message) -> MessageBody {
    let last = Position { index: Index(raft.index), term: Term(raft.log_term) };
    let commit = Position { index: Index(raft.commit), term: Term(raft.commit_term) };
    assert!(last.term.0 <= raft.term, "no log is of a later term than its peer's: {last:?}");
    assert!(commit.index <= last.index, "what is committed stands in the log: {commit:?} of {last:?}");
    MessageBody::Vote { kind, last, commit }
}

fn vote_answer(kind: VoteKind, raft: &eraftpb::Message) -> MessageBody {
    let commit = Position { index: Index(raft.commit), term: Term(raft.commit_term) };
    MessageBody::VoteAnswer { kind, is_granted: !raft.reject, commit }
}

/// The entries, in as many messages as their payloads need.
fn appends(
    mut after: Position,
    commit: Index,
    entries: &[eraftpb::Entry],
    tail: &Tail,
    mut send: impl FnMut(MessageBody),
) {
    let mut part: Vec<super::GroupEntry> = vec![];
    let mut bytes = 0;
    for entry in entries {
        let entry = tail.group_entry(entry);
        let more = entry.content.payload().map_or(0, |payload| payload.bytes().len());
        if !part.is_empty() && bytes + more > APPEND_BYTES_MAX {
            let last = last_of(&part);
            send(MessageBody::Append { after, commit, entries: std::mem::take(&mut part) });
            (after, bytes) = (last, 0);
        }
        assert!(
            entry.index.0 == after.index.0 + part.len() as u64 + 1,
            "entries follow each other: {:?} behind {after:?} and {} more",
            entry.at(),
            part.len()
        );
        let rises = entry.term >= part.last().map_or(after.term, |last| last.term);
        assert!(rises, "terms do not fall along a log: {:?}", entry.at());
        bytes += more;
        part.push(entry);
    }
    send(MessageBody::Append { after, commit, entries: part });
}

fn last_of(entries: &[super::GroupEntry]) -> Position {
    entries.last().expect("the part is not empty").at()
}

/// A round as raft-rs carries it: 16 bytes, or none.
pub(super) fn context_of(round: Option<RoundId>) -> Vec<u8> {
    let bytes = |round: RoundId| [round.boot.to_le_bytes(), round.number.to_le_bytes()].concat();
    round.map(bytes).unwrap_or_default()
}

pub(super) fn round_of(context: &[u8]) -> Option<RoundId> {
    if context.is_empty() {
        return None;
    }
    assert!(context.len() == 16, "a round's context has two numbers");
    let (boot, number) = context.split_first_chunk().expect("a round's context is ours");
    let number = number.try_into().expect("a round's context is ours");
    Some(RoundId { boot: u64::from_le_bytes(*boot), number: u64::from_le_bytes(number) })
}
