//! Messages at random: every kind, with numbers at their ends and between.

use super::super::*;
use crate::raft::{Content, GroupEntry, Message, MessageBody, Position, RoundId, VoteKind};
use crate::record::{ConfChange, ControlEntry, Entry, MemberRecord, Payload, RaftIdRecord};
use crate::stdx::Rng;
use crate::types::{ClockReading, Epoch, Index, RaftId, Revision, ShardId, Term, Time};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Those that raft-rs may count with end here.
const RAFT_LAST: u64 = (1 << 62) - 1;

fn number(rng: &mut Rng, last: u64) -> u64 {
    match rng.below(4) {
        0 => last - rng.below(3),
        1 => rng.below(last),
        _ => rng.below(50),
    }
}

fn term(rng: &mut Rng) -> Term {
    Term(number(rng, RAFT_LAST).max(1))
}

fn index(rng: &mut Rng) -> Index {
    Index(number(rng, RAFT_LAST))
}

fn position(rng: &mut Rng) -> Position {
    Position { index: index(rng), term: Term(number(rng, RAFT_LAST)) }
}

fn any(rng: &mut Rng) -> u64 {
    number(rng, u64::MAX)
}

fn shard(rng: &mut Rng) -> ShardId {
    ShardId(rng.below(4) as u32)
}

fn raft_id(rng: &mut Rng) -> RaftId {
    RaftId::new(any(rng).max(1)).unwrap()
}

/// Short ones most of the time, and now and then longer than a frame.
fn length(rng: &mut Rng) -> usize {
    let most = *rng.pick(&[1, 30, 30, 30, 30, 30, 3000, 3000, 3000, 300_000]);
    rng.below(most) as usize
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    let (length, first) = (length(rng), rng.next_u64() as u8);
    (0..length).map(|at| first.wrapping_add(at as u8)).collect()
}

fn positions(rng: &mut Rng) -> Vec<(ShardId, Position)> {
    (0..rng.below(5)).map(|_| (shard(rng), position(rng))).collect()
}

fn round(rng: &mut Rng) -> Option<RoundId> {
    rng.chance(1, 2).then(|| RoundId { boot: any(rng), number: any(rng) })
}

fn vote_kind(rng: &mut Rng) -> VoteKind {
    *rng.pick(&[VoteKind::Pre, VoteKind::Real, VoteKind::Transfer])
}

fn content(rng: &mut Rng) -> Content {
    match rng.below(6) {
        0 => Content::Empty,
        1 => Content::ConfChange(Payload::of(&Entry::ConfChange(ConfChange::AddVoter(any(rng).max(1))))),
        _ => Content::Data(Payload::copy_of(&bytes(rng))),
    }
}

fn body(rng: &mut Rng) -> MessageBody {
    match rng.below(8) {
        0 | 1 => {
            let after = Position { index: Index(number(rng, RAFT_LAST - 10)), ..position(rng) };
            let indexes = (after.index.0 + 1..).take(rng.below(6) as usize);
            let entries = indexes
                .map(|index| GroupEntry { index: Index(index), term: term(rng), content: content(rng) })
                .collect();
            MessageBody::Append { after, commit: index(rng), entries }
        }
        2 => MessageBody::AppendAnswer {
            index: index(rng),
            commit: index(rng),
            rejected: rng.chance(1, 2).then(|| position(rng)),
        },
        3 => MessageBody::Vote { kind: vote_kind(rng), last: position(rng), commit: position(rng) },
        4 => {
            let is_granted = rng.chance(1, 2);
            MessageBody::VoteAnswer { kind: vote_kind(rng), is_granted, commit: position(rng) }
        }
        5 => MessageBody::Heartbeat { commit: index(rng), round: round(rng) },
        6 => MessageBody::HeartbeatAnswer { commit: index(rng), round: round(rng) },
        _ => MessageBody::TimeoutNow,
    }
}

fn outcome(rng: &mut Rng) -> Result<Bytes, CallFailure> {
    match rng.chance(1, 2) {
        true => Ok(Bytes::from(bytes(rng))),
        false => {
            Err(CallFailure { code: 1 + rng.below(16) as u8, text: "é".repeat(rng.below(20) as usize) })
        }
    }
}

pub fn attributes(member: u64) -> ControlEntry {
    ControlEntry::MemberAttributes {
        member,
        directory: 0xd0 + member,
        name: "two".into(),
        client_urls: vec!["http://127.0.0.1:2379".into(), "http://10.0.0.1:2379".into()],
        raft_ids: vec![RaftIdRecord { log: 1, incarnation: 0, id: 0xf1 }],
    }
}

pub fn member(id: u64) -> MemberRecord {
    MemberRecord {
        id,
        directory: 0xd0 + id,
        raft_ids: vec![RaftIdRecord { log: 0, incarnation: 0, id: 0xf0 + id }],
        name: "two".into(),
        peer_urls: vec!["http://127.0.0.1:2380".into()],
        client_urls: vec![],
        is_learner: id == 2,
    }
}

pub fn message(rng: &mut Rng) -> PeerMessage {
    match rng.below(27) {
        0..=5 => PeerMessage::Group {
            shard: shard(rng),
            control_term: Term(number(rng, RAFT_LAST)),
            entries: any(rng),
            message: Message { from: raft_id(rng), to: raft_id(rng), term: term(rng), body: body(rng) },
        },
        6 => PeerMessage::Settled {
            epoch: Epoch { term: term(rng), attempt: rng.next_u64() as u32 },
            revision: Revision(number(rng, (1 << 48) - 1)),
            commits: {
                let by_shard: BTreeMap<ShardId, Position> = positions(rng).into_iter().collect();
                by_shard.into_iter().collect()
            },
        },
        7 => PeerMessage::WantsGroup { shard: shard(rng), control_term: term(rng), last: position(rng) },
        8 => PeerMessage::ReadAt { number: any(rng) },
        9 => PeerMessage::ReadAtIs {
            number: any(rng),
            revision: Revision(number(rng, (1 << 48) - 1)),
            control: index(rng),
        },
        10 => PeerMessage::ReadAtRefused { number: any(rng) },
        11 => PeerMessage::Call {
            number: any(rng),
            method: rng.next_u64() as u8,
            clock: ClockReading { boot: any(rng), time: Time(any(rng)) },
            timeout_ms: any(rng),
            message: Bytes::from(bytes(rng)),
        },
        12 => PeerMessage::Answer {
            number: any(rng),
            revision: Revision(number(rng, (1 << 48) - 1)),
            control: index(rng),
            outcome: outcome(rng),
        },
        13 => PeerMessage::CallRefused { number: any(rng) },
        14 => PeerMessage::Attributes(attributes(rng.below(9))),
        15 => PeerMessage::Clock(ClockReading { boot: any(rng), time: Time(any(rng)) }),
        16 => PeerMessage::StateOffered { shard: shard(rng), after: index(rng) },
        17 => PeerMessage::StateHeld { shard: shard(rng), upto: index(rng) },
        18 => PeerMessage::StateWanted {
            shard: shard(rng),
            home: any(rng) as u32,
            file: any(rng).max(1),
            from: any(rng) as u32,
        },
        19 => PeerMessage::StateBlock {
            shard: shard(rng),
            file: any(rng),
            number: any(rng) as u32,
            is_last: rng.chance(1, 2),
            block: Bytes::from(vec![7; rng.below(20_000) as usize]),
        },
        20 => PeerMessage::StateGone { shard: shard(rng), file: any(rng) },
        21 => PeerMessage::NoSpace,
        22 => PeerMessage::CallsLost { number: any(rng) },
        23 => PeerMessage::CallsOver { number: any(rng) },
        24 => PeerMessage::Members { as_of: index(rng), members: (0..rng.below(4)).map(member).collect() },
        25 => PeerMessage::Removed,
        _ => PeerMessage::Leaving,
    }
}
