//! The head of a frame as one rkyv value, and the way from messages to it and back.
//!
//! Back again every number is looked at: who gets a [`PeerMessage`] has a message that somebody can mean. What it
//! means where it arrives (an unknown shard, a term of the past) is for others.

use super::frame::length;
use super::link::LinkError;
use super::message::{CallFailure, Founding, Hello, Introduction, LinkKind, PeerMessage};
use crate::limits::{RAFT_NUMBERS, REACTORS_MAX, REVISIONS, SHARDS_MAX};
use crate::raft::{Content, GroupEntry, Message, MessageBody, Position, RoundId, VoteKind};
use crate::record::{Chunk, ControlEntry, MemberRecord, Payload};
use crate::types::{
    ClockReading, ClusterId, Epoch, Index, MemberId, RaftId, ReactorId, Revision, ShardId, StoreId, Term,
    Time,
};
use bytes::Bytes;
use rkyv::option::ArchivedOption;
use rkyv::rancor::Error as Invalid;
use rkyv::result::ArchivedResult;
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// gRPC's codes of errors.
const CODES: std::ops::RangeInclusive<u8> = 1..=16;

#[derive(Archive, Serialize)]
struct HelloRecord {
    cluster: u64,
    member: u64,
    directory: u64,
    boot: u64,
    feature_level: u32,
    founding: Option<FoundingRecord>,
    reactors: u16,
    to: u64,
    from_reactor: u16,
    to_reactor: u16,
    is_for_states: bool,
}

#[derive(Archive, Serialize)]
struct FoundingRecord {
    shards: u32,
    is_set: bool,
    map: u64,
}

#[derive(Archive, Serialize)]
enum MessageRecord {
    Group {
        shard: u32,
        control_term: u64,
        entries: u64,
        from: u64,
        to: u64,
        term: u64,
        body: BodyRecord,
    },
    Settled {
        epoch_term: u64,
        attempt: u32,
        revision: u64,
        commits: Vec<ShardPositionRecord>,
    },
    WantsGroup {
        shard: u32,
        control_term: u64,
        last: PositionRecord,
    },
    ReadAt(u64),
    ReadAtIs {
        number: u64,
        revision: u64,
        control: u64,
    },
    ReadAtRefused(u64),
    Call {
        number: u64,
        method: u8,
        boot: u64,
        time: u64,
        timeout_ms: u64,
        bytes: u32,
    },
    Answer {
        number: u64,
        revision: u64,
        control: u64,
        /// The bytes of the answer, which is a payload; or the error.
        outcome: Result<u32, FailureRecord>,
    },
    CallRefused(u64),
    StateOffered {
        shard: u32,
        after: u64,
    },
    StateHeld {
        shard: u32,
        upto: u64,
    },
    StateWanted {
        shard: u32,
        home: u32,
        file: u64,
        from: u32,
    },
    StateBlock {
        shard: u32,
        file: u64,
        number: u32,
        is_last: bool,
        bytes: u32,
    },
    StateGone {
        shard: u32,
        file: u64,
    },
    Attributes(Box<ControlEntry>),
    Clock {
        boot: u64,
        time: u64,
    },
    Leaving,
    NoSpace,
    CallsLost(u64),
    CallsOver(u64),
    Members(Box<MembersRecord>),
    Removed,
}

#[derive(Archive, Serialize, Deserialize)]
struct MembersRecord {
    as_of: u64,
    members: Vec<MemberRecord>,
}

#[derive(Archive, Serialize)]
enum BodyRecord {
    Append { after: PositionRecord, commit: u64, entries: Vec<EntryRecord> },
    AppendAnswer { index: u64, commit: u64, rejected: Option<PositionRecord> },
    Vote { kind: VoteRecord, last: PositionRecord, commit: PositionRecord },
    VoteAnswer { kind: VoteRecord, is_granted: bool, commit: PositionRecord },
    Heartbeat { commit: u64, round: Option<RoundRecord> },
    HeartbeatAnswer { commit: u64, round: Option<RoundRecord> },
    TimeoutNow,
}

#[derive(Archive, Serialize)]
enum VoteRecord {
    Pre,
    Real,
    Transfer,
}

/// An entry whose index follows that of the one before; what it holds is a payload.
#[derive(Archive, Serialize)]
struct EntryRecord {
    term: u64,
    bytes: u32,
    kind: u8,
}

#[derive(Archive, Serialize)]
struct PositionRecord {
    index: u64,
    term: u64,
}

#[derive(Archive, Serialize)]
struct ShardPositionRecord {
    position: PositionRecord,
    shard: u32,
}

#[derive(Archive, Serialize)]
struct RoundRecord {
    boot: u64,
    number: u64,
}

#[derive(Archive, Serialize)]
struct FailureRecord {
    code: u8,
    text: String,
}

const _: () = assert!(align_of::<ArchivedMessageRecord>() <= 16 && align_of::<ArchivedHelloRecord>() <= 16);

/// What the list of messages takes beside them.
pub(super) const LIST_BYTES: usize = 16;

impl PeerMessage {
    /// What it takes of a head, at most.
    pub(super) fn head_bytes(&self) -> usize {
        let behind = match self {
            PeerMessage::Group { message, .. } => match &message.body {
                MessageBody::Append { entries, .. } => entries.len() * size_of::<ArchivedEntryRecord>(),
                _ => 0,
            },
            PeerMessage::Settled { commits, .. } => commits.len() * size_of::<ArchivedShardPositionRecord>(),
            PeerMessage::Answer { outcome: Err(failure), .. } => failure.text.len(),
            PeerMessage::Attributes(entry) => {
                rkyv::to_bytes::<Invalid>(entry).expect("archiving into memory has no way to fail").len()
            }
            PeerMessage::Members { members, .. } => {
                let bytes = rkyv::to_bytes::<Invalid>(members);
                bytes.expect("archiving into memory has no way to fail").len() + size_of::<u64>()
            }
            _ => 0,
        };
        // What stands behind a text may begin behind a gap.
        size_of::<ArchivedMessageRecord>() + behind + 8
    }

    /// Its payloads, in order.
    pub(super) fn payloads(&self) -> impl Iterator<Item = Chunk> + '_ {
        let entries = match self {
            PeerMessage::Group {
                message: Message { body: MessageBody::Append { entries, .. }, .. }, ..
            } => &entries[..],
            _ => &[],
        };
        let single = match self {
            PeerMessage::Call { message: bytes, .. }
            | PeerMessage::Answer { outcome: Ok(bytes), .. }
            | PeerMessage::StateBlock { block: bytes, .. } => Some(bytes),
            _ => None,
        };
        let of_entries = entries.iter().filter_map(|entry| entry.content.payload()).cloned();
        of_entries.map(Chunk::Payload).chain(single.cloned().map(Chunk::Shared))
    }
}

/// Appends a hello to a frame's first piece.
pub(super) fn write_hello(hello: &Hello, into: Vec<u8>) -> Vec<u8> {
    let Hello { from, to, kind, from_reactor, to_reactor } = hello;
    let record = HelloRecord {
        cluster: from.cluster.0,
        member: from.member.0,
        directory: from.directory.0,
        boot: from.boot,
        feature_level: from.feature_level,
        founding: from.founding.map(|Founding { shards, map, is_set }| FoundingRecord {
            shards,
            map,
            is_set,
        }),
        reactors: from.reactors,
        to: to.0,
        from_reactor: from_reactor.0,
        to_reactor: to_reactor.0,
        is_for_states: *kind == LinkKind::States,
    };
    rkyv::api::high::to_bytes_in::<_, Invalid>(&record, into)
        .expect("archiving into memory has no way to fail")
}

/// Appends messages, without their payloads, to a frame's first piece.
pub(super) fn write_messages<'a>(messages: impl Iterator<Item = &'a PeerMessage>, into: Vec<u8>) -> Vec<u8> {
    assert!(into.len().is_multiple_of(16), "a head begins where 16 divides its place");
    let records: Vec<MessageRecord> = messages.map(record).collect();
    rkyv::api::high::to_bytes_in::<_, Invalid>(&records, into)
        .expect("archiving into memory has no way to fail")
}

fn record(message: &PeerMessage) -> MessageRecord {
    match message {
        PeerMessage::Group { shard, control_term, entries, message } => MessageRecord::Group {
            shard: shard.0,
            control_term: control_term.0,
            entries: *entries,
            from: message.from.get(),
            to: message.to.get(),
            term: message.term.0,
            body: body(&message.body),
        },
        PeerMessage::Settled { epoch, revision, commits } => MessageRecord::Settled {
            epoch_term: epoch.term.0,
            attempt: epoch.attempt,
            revision: revision.0,
            commits: shard_positions(commits),
        },
        PeerMessage::WantsGroup { shard, control_term, last } => {
            MessageRecord::WantsGroup { shard: shard.0, control_term: control_term.0, last: position(*last) }
        }
        PeerMessage::ReadAt { number } => MessageRecord::ReadAt(*number),
        PeerMessage::ReadAtIs { number, revision, control } => {
            MessageRecord::ReadAtIs { number: *number, revision: revision.0, control: control.0 }
        }
        PeerMessage::ReadAtRefused { number } => MessageRecord::ReadAtRefused(*number),
        PeerMessage::Call { number, method, clock, timeout_ms, message } => MessageRecord::Call {
            number: *number,
            method: *method,
            boot: clock.boot,
            time: clock.time.0,
            timeout_ms: *timeout_ms,
            bytes: length(message.len()),
        },
        PeerMessage::Answer { number, revision, control, outcome } => MessageRecord::Answer {
            number: *number,
            revision: revision.0,
            control: control.0,
            outcome: match outcome {
                Ok(bytes) => Ok(length(bytes.len())),
                Err(CallFailure { code, text }) => Err(FailureRecord { code: *code, text: text.clone() }),
            },
        },
        PeerMessage::CallRefused { number } => MessageRecord::CallRefused(*number),
        PeerMessage::StateOffered { shard, after } => {
            MessageRecord::StateOffered { shard: shard.0, after: after.0 }
        }
        PeerMessage::StateHeld { shard, upto } => MessageRecord::StateHeld { shard: shard.0, upto: upto.0 },
        PeerMessage::StateWanted { shard, home, file, from } => {
            MessageRecord::StateWanted { shard: shard.0, home: *home, file: *file, from: *from }
        }
        PeerMessage::StateBlock { shard, file, number, is_last, block } => MessageRecord::StateBlock {
            shard: shard.0,
            file: *file,
            number: *number,
            is_last: *is_last,
            bytes: length(block.len()),
        },
        PeerMessage::StateGone { shard, file } => MessageRecord::StateGone { shard: shard.0, file: *file },
        PeerMessage::Attributes(entry) => MessageRecord::Attributes(Box::new(entry.clone())),
        PeerMessage::Clock(ClockReading { boot, time }) => MessageRecord::Clock { boot: *boot, time: time.0 },
        PeerMessage::Leaving => MessageRecord::Leaving,
        PeerMessage::NoSpace => MessageRecord::NoSpace,
        PeerMessage::CallsLost { number } => MessageRecord::CallsLost(*number),
        PeerMessage::CallsOver { number } => MessageRecord::CallsOver(*number),
        PeerMessage::Members { as_of, members } => {
            MessageRecord::Members(Box::new(MembersRecord { as_of: as_of.0, members: members.clone() }))
        }
        PeerMessage::Removed => MessageRecord::Removed,
    }
}

fn body(body: &MessageBody) -> BodyRecord {
    let round = |round: &Option<RoundId>| round.map(|RoundId { boot, number }| RoundRecord { boot, number });
    match body {
        MessageBody::Append { after, commit, entries } => {
            let record = |(place, entry): (usize, &GroupEntry)| {
                assert_eq!(entry.index.0, after.index.0 + 1 + place as u64, "entries follow each other");
                let bytes = entry.content.payload().map_or(0, |payload| payload.bytes().len());
                EntryRecord { term: entry.term.0, bytes: length(bytes), kind: entry.content.kind() }
            };
            let entries = entries.iter().enumerate().map(record).collect();
            BodyRecord::Append { after: position(*after), commit: commit.0, entries }
        }
        MessageBody::AppendAnswer { index, commit, rejected } => {
            BodyRecord::AppendAnswer { index: index.0, commit: commit.0, rejected: rejected.map(position) }
        }
        MessageBody::Vote { kind, last, commit } => {
            BodyRecord::Vote { kind: vote(*kind), last: position(*last), commit: position(*commit) }
        }
        MessageBody::VoteAnswer { kind, is_granted, commit } => {
            BodyRecord::VoteAnswer { kind: vote(*kind), is_granted: *is_granted, commit: position(*commit) }
        }
        MessageBody::Heartbeat { commit, round: of } => {
            BodyRecord::Heartbeat { commit: commit.0, round: round(of) }
        }
        MessageBody::HeartbeatAnswer { commit, round: of } => {
            BodyRecord::HeartbeatAnswer { commit: commit.0, round: round(of) }
        }
        MessageBody::TimeoutNow => BodyRecord::TimeoutNow,
    }
}

fn vote(kind: VoteKind) -> VoteRecord {
    match kind {
        VoteKind::Pre => VoteRecord::Pre,
        VoteKind::Real => VoteRecord::Real,
        VoteKind::Transfer => VoteRecord::Transfer,
    }
}

fn position(at: Position) -> PositionRecord {
    PositionRecord { index: at.index.0, term: at.term.0 }
}

fn shard_positions(of: &[(ShardId, Position)]) -> Vec<ShardPositionRecord> {
    of.iter().map(|(shard, at)| ShardPositionRecord { shard: shard.0, position: position(*at) }).collect()
}

/// Why a number of a message means nothing.
type Why = &'static str;

/// Reads the head of a hello.
pub(super) fn read_hello(head: &[u8]) -> Result<Hello, LinkError> {
    let record = rkyv::access::<ArchivedHelloRecord, Invalid>(head).map_err(|_| LinkError::Unreadable)?;
    hello(record).map_err(|why| LinkError::Senseless { message: "a hello", why })
}

fn hello(record: &ArchivedHelloRecord) -> Result<Hello, Why> {
    let founding = record.founding.as_ref().map(|founding| Founding {
        shards: founding.shards.to_native(),
        map: founding.map.to_native(),
        is_set: founding.is_set,
    });
    let from = Introduction {
        cluster: ClusterId(named(record.cluster.to_native(), "it names no cluster")?),
        member: MemberId(named(record.member.to_native(), "it names no member")?),
        directory: StoreId(named(record.directory.to_native(), "it names no directory")?),
        boot: record.boot.to_native(),
        reactors: record.reactors.to_native(),
        feature_level: record.feature_level.to_native(),
        founding,
    };
    let hello = Hello {
        from,
        to: MemberId(named(record.to.to_native(), "it is for no member")?),
        kind: if record.is_for_states { LinkKind::States } else { LinkKind::Groups },
        from_reactor: ReactorId(record.from_reactor.to_native()),
        to_reactor: ReactorId(record.to_reactor.to_native()),
    };
    if !(1..=REACTORS_MAX).contains(&usize::from(from.reactors)) {
        return Err("no member has so many reactors");
    }
    if hello.from_reactor.0 >= from.reactors {
        return Err("it comes from a reactor beyond the last");
    }
    if usize::from(hello.to_reactor.0) >= REACTORS_MAX {
        return Err("it is for a reactor beyond all");
    }
    if founding.is_some_and(|founding| !(1..=SHARDS_MAX).contains(&(founding.shards as usize))) {
        return Err("no cluster has so many shards");
    }
    Ok(hello)
}

fn named(id: u64, why: Why) -> Result<u64, Why> {
    if id == 0 { Err(why) } else { Ok(id) }
}

/// Reads messages off a head and the payloads behind it.
pub(super) fn read_messages(head: &[u8], payloads: &[u8]) -> Result<Vec<PeerMessage>, LinkError> {
    let records = rkyv::access::<ArchivedVec<ArchivedMessageRecord>, Invalid>(head);
    let records = records.map_err(|_| LinkError::Unreadable)?;
    let mut reader = MessageReader { payloads };
    let read = |record: &ArchivedMessageRecord| {
        reader.message(record).map_err(|why| LinkError::Senseless { message: name(record), why })
    };
    let messages = records.iter().map(read).collect::<Result<Vec<PeerMessage>, LinkError>>()?;
    match reader.payloads {
        [] => Ok(messages),
        _ => Err(LinkError::Senseless { message: "a frame", why: "it has payloads that are no message's" }),
    }
}

fn name(record: &ArchivedMessageRecord) -> &'static str {
    match record {
        ArchivedMessageRecord::Group { body, .. } => match body {
            ArchivedBodyRecord::Append { .. } => "an append",
            ArchivedBodyRecord::AppendAnswer { .. } => "an append's answer",
            ArchivedBodyRecord::Vote { .. } => "a request for a vote",
            ArchivedBodyRecord::VoteAnswer { .. } => "a vote",
            ArchivedBodyRecord::Heartbeat { .. } => "a heartbeat",
            ArchivedBodyRecord::HeartbeatAnswer { .. } => "a heartbeat's answer",
            ArchivedBodyRecord::TimeoutNow => "a transfer of a group",
        },
        ArchivedMessageRecord::Settled { .. } => "what is settled",
        ArchivedMessageRecord::WantsGroup { .. } => "a request for a group",
        ArchivedMessageRecord::ReadAt(_) => "a question of a read",
        ArchivedMessageRecord::ReadAtIs { .. } | ArchivedMessageRecord::ReadAtRefused(_) => "a read's answer",
        ArchivedMessageRecord::Call { .. } => "a call",
        ArchivedMessageRecord::Answer { .. } => "a call's answer",
        ArchivedMessageRecord::CallRefused(_) => "a call's refusal",
        ArchivedMessageRecord::StateOffered { .. } => "the offer of a state",
        ArchivedMessageRecord::StateHeld { .. } => "an offer's answer",
        ArchivedMessageRecord::StateWanted { .. } => "a request for a state",
        ArchivedMessageRecord::StateBlock { .. } | ArchivedMessageRecord::StateGone { .. } => "a state",
        ArchivedMessageRecord::Attributes(_) => "a member's attributes",
        ArchivedMessageRecord::Clock { .. } => "a clock",
        ArchivedMessageRecord::Leaving => "a farewell",
        ArchivedMessageRecord::NoSpace => "a full disk",
        ArchivedMessageRecord::CallsLost(_) => "a question for lost calls",
        ArchivedMessageRecord::CallsOver(_) => "the end of lost calls",
        ArchivedMessageRecord::Members(_) => "a list of members",
        ArchivedMessageRecord::Removed => "a removal",
    }
}

struct MessageReader<'a> {
    /// Those that no message has taken yet.
    payloads: &'a [u8],
}

impl MessageReader<'_> {
    fn take(&mut self, bytes: u32) -> Result<&[u8], Why> {
        let taken = self.payloads.split_at_checked(bytes as usize);
        let (taken, rest) = taken.ok_or("it names more payload than there is")?;
        self.payloads = rest;
        Ok(taken)
    }

    fn message(&mut self, record: &ArchivedMessageRecord) -> Result<PeerMessage, Why> {
        Ok(match record {
            ArchivedMessageRecord::Group { shard, control_term, entries, from, to, term: of, body } => {
                let message = Message {
                    from: peer(from.to_native())?,
                    to: peer(to.to_native())?,
                    term: term(of.to_native())?,
                    body: self.body(body)?,
                };
                PeerMessage::Group {
                    shard: ShardId(shard.to_native()),
                    control_term: Term(raft_number(control_term.to_native())?),
                    entries: entries.to_native(),
                    message,
                }
            }
            ArchivedMessageRecord::Settled { epoch_term, attempt, revision: of, commits } => {
                PeerMessage::Settled {
                    epoch: Epoch { term: term(epoch_term.to_native())?, attempt: attempt.to_native() },
                    revision: revision(of.to_native())?,
                    commits: read_commits(commits)?,
                }
            }
            ArchivedMessageRecord::WantsGroup { shard, control_term, last } => PeerMessage::WantsGroup {
                shard: ShardId(shard.to_native()),
                control_term: term(control_term.to_native())?,
                last: read_position(last)?,
            },
            ArchivedMessageRecord::ReadAt(number) => PeerMessage::ReadAt { number: number.to_native() },
            ArchivedMessageRecord::ReadAtIs { number, revision: of, control } => PeerMessage::ReadAtIs {
                number: number.to_native(),
                revision: revision(of.to_native())?,
                control: index(control.to_native())?,
            },
            ArchivedMessageRecord::ReadAtRefused(number) => {
                PeerMessage::ReadAtRefused { number: number.to_native() }
            }
            ArchivedMessageRecord::Call { number, method, boot, time, timeout_ms, bytes } => {
                PeerMessage::Call {
                    number: number.to_native(),
                    method: *method,
                    clock: ClockReading { boot: boot.to_native(), time: Time(time.to_native()) },
                    timeout_ms: timeout_ms.to_native(),
                    message: Bytes::copy_from_slice(self.take(bytes.to_native())?),
                }
            }
            ArchivedMessageRecord::Answer { number, revision: of, control, outcome } => PeerMessage::Answer {
                number: number.to_native(),
                revision: revision(of.to_native())?,
                control: index(control.to_native())?,
                outcome: self.outcome(outcome)?,
            },
            ArchivedMessageRecord::CallRefused(number) => {
                PeerMessage::CallRefused { number: number.to_native() }
            }
            ArchivedMessageRecord::StateOffered { .. }
            | ArchivedMessageRecord::StateHeld { .. }
            | ArchivedMessageRecord::StateWanted { .. }
            | ArchivedMessageRecord::StateBlock { .. }
            | ArchivedMessageRecord::StateGone { .. } => self.of_state(record)?,
            ArchivedMessageRecord::Attributes(entry) => attributes(rkyv::deserialize(&**entry))?,
            ArchivedMessageRecord::Clock { boot, time } => {
                PeerMessage::Clock(ClockReading { boot: boot.to_native(), time: Time(time.to_native()) })
            }
            ArchivedMessageRecord::Leaving => PeerMessage::Leaving,
            ArchivedMessageRecord::NoSpace => PeerMessage::NoSpace,
            ArchivedMessageRecord::CallsLost(number) => PeerMessage::CallsLost { number: number.to_native() },
            ArchivedMessageRecord::CallsOver(number) => PeerMessage::CallsOver { number: number.to_native() },
            ArchivedMessageRecord::Members(of) => members(rkyv::deserialize(&**of))?,
            ArchivedMessageRecord::Removed => PeerMessage::Removed,
        })
    }

    fn of_state(&mut self, record: &ArchivedMessageRecord) -> Result<PeerMessage, Why> {
        Ok(match record {
            ArchivedMessageRecord::StateOffered { shard, after } => PeerMessage::StateOffered {
                shard: ShardId(shard.to_native()),
                after: index(after.to_native())?,
            },
            ArchivedMessageRecord::StateHeld { shard, upto } => {
                PeerMessage::StateHeld { shard: ShardId(shard.to_native()), upto: index(upto.to_native())? }
            }
            ArchivedMessageRecord::StateWanted { shard, home, file, from } => PeerMessage::StateWanted {
                shard: ShardId(shard.to_native()),
                home: home.to_native(),
                file: named(file.to_native(), "it is of no file")?,
                from: from.to_native(),
            },
            ArchivedMessageRecord::StateBlock { shard, file, number, is_last, bytes } => {
                PeerMessage::StateBlock {
                    shard: ShardId(shard.to_native()),
                    file: file.to_native(),
                    number: number.to_native(),
                    is_last: *is_last,
                    block: Bytes::copy_from_slice(self.take(bytes.to_native())?),
                }
            }
            ArchivedMessageRecord::StateGone { shard, file } => {
                PeerMessage::StateGone { shard: ShardId(shard.to_native()), file: file.to_native() }
            }
            _ => unreachable!("it is of no state"),
        })
    }

    fn outcome(
        &mut self,
        record: &ArchivedResult<rkyv::Archived<u32>, ArchivedFailureRecord>,
    ) -> Result<Result<Bytes, CallFailure>, Why> {
        match record {
            ArchivedResult::Ok(bytes) => Ok(Ok(Bytes::copy_from_slice(self.take(bytes.to_native())?))),
            ArchivedResult::Err(failure) if !CODES.contains(&failure.code) => {
                Err("its code is none of gRPC's")
            }
            ArchivedResult::Err(failure) => {
                Ok(Err(CallFailure { code: failure.code, text: failure.text.to_string() }))
            }
        }
    }

    fn body(&mut self, record: &ArchivedBodyRecord) -> Result<MessageBody, Why> {
        Ok(match record {
            ArchivedBodyRecord::Append { after, commit, entries } => {
                let after = read_position(after)?;
                if after.index.0 + entries.len() as u64 >= RAFT_NUMBERS {
                    return Err("an index is beyond all");
                }
                let indexes = (after.index.0 + 1..).map(Index);
                let entries = entries.iter().zip(indexes).map(|(record, index)| self.entry(record, index));
                MessageBody::Append {
                    after,
                    entries: entries.collect::<Result<_, Why>>()?,
                    commit: index(commit.to_native())?,
                }
            }
            ArchivedBodyRecord::AppendAnswer { index: of, commit, rejected } => MessageBody::AppendAnswer {
                index: index(of.to_native())?,
                commit: index(commit.to_native())?,
                rejected: rejected.as_ref().map(read_position).transpose()?,
            },
            ArchivedBodyRecord::Vote { kind, last, commit } => MessageBody::Vote {
                kind: read_vote(kind),
                last: read_position(last)?,
                commit: read_position(commit)?,
            },
            ArchivedBodyRecord::VoteAnswer { kind, is_granted, commit } => MessageBody::VoteAnswer {
                kind: read_vote(kind),
                is_granted: *is_granted,
                commit: read_position(commit)?,
            },
            ArchivedBodyRecord::Heartbeat { commit, round } => {
                MessageBody::Heartbeat { commit: index(commit.to_native())?, round: read_round(round) }
            }
            ArchivedBodyRecord::HeartbeatAnswer { commit, round } => {
                MessageBody::HeartbeatAnswer { commit: index(commit.to_native())?, round: read_round(round) }
            }
            ArchivedBodyRecord::TimeoutNow => MessageBody::TimeoutNow,
        })
    }

    fn entry(&mut self, record: &ArchivedEntryRecord, index: Index) -> Result<GroupEntry, Why> {
        let payload = Payload::copy_of(self.take(record.bytes.to_native())?);
        let content = Content::of(record.kind, &payload)
            .ok_or("an entry is of no kind, or is not what its kind holds")?;
        Ok(GroupEntry { index, term: term(record.term.to_native())?, content })
    }
}

fn peer(id: u64) -> Result<RaftId, Why> {
    RaftId::new(id).ok_or("it names nobody as a peer")
}

fn raft_number(number: u64) -> Result<u64, Why> {
    if number < RAFT_NUMBERS { Ok(number) } else { Err("a term or an index is beyond all") }
}

fn term(number: u64) -> Result<Term, Why> {
    match raft_number(number)? {
        0 => Err("a term is 0"),
        number => Ok(Term(number)),
    }
}

fn index(number: u64) -> Result<Index, Why> {
    raft_number(number).map(Index)
}

fn revision(number: u64) -> Result<Revision, Why> {
    if number < REVISIONS { Ok(Revision(number)) } else { Err("a revision is beyond all") }
}

fn read_position(record: &ArchivedPositionRecord) -> Result<Position, Why> {
    Ok(Position {
        index: index(record.index.to_native())?,
        term: Term(raft_number(record.term.to_native())?),
    })
}

fn attributes(entry: Result<ControlEntry, Invalid>) -> Result<PeerMessage, Why> {
    match entry.map_err(|_| "it cannot be read")? {
        entry @ ControlEntry::MemberAttributes { .. } => Ok(PeerMessage::Attributes(entry)),
        _ => Err("it is another entry"),
    }
}

fn members(record: Result<MembersRecord, Invalid>) -> Result<PeerMessage, Why> {
    let MembersRecord { as_of, members } = record.map_err(|_| "it cannot be read")?;
    if members.iter().any(|member| member.raft_ids.iter().any(|of| of.id == 0)) {
        return Err("it names nobody as a peer");
    }
    Ok(PeerMessage::Members { as_of: index(as_of)?, members })
}

fn read_commits(records: &ArchivedVec<ArchivedShardPositionRecord>) -> Result<Vec<(ShardId, Position)>, Why> {
    let commits = read_shard_positions(records)?;
    let rise = commits.is_sorted_by(|(a, _), (b, _)| a < b);
    if rise { Ok(commits) } else { Err("a shard is named twice, or out of order") }
}

fn read_shard_positions(
    records: &ArchivedVec<ArchivedShardPositionRecord>,
) -> Result<Vec<(ShardId, Position)>, Why> {
    if records.len() > SHARDS_MAX {
        return Err("no cluster has so many shards");
    }
    let read = |record: &ArchivedShardPositionRecord| {
        Ok((ShardId(record.shard.to_native()), read_position(&record.position)?))
    };
    records.iter().map(read).collect()
}

fn read_vote(record: &ArchivedVoteRecord) -> VoteKind {
    match record {
        ArchivedVoteRecord::Pre => VoteKind::Pre,
        ArchivedVoteRecord::Real => VoteKind::Real,
        ArchivedVoteRecord::Transfer => VoteKind::Transfer,
    }
}

fn read_round(record: &ArchivedOption<ArchivedRoundRecord>) -> Option<RoundId> {
    let record = record.as_ref()?;
    Some(RoundId { boot: record.boot.to_native(), number: record.number.to_native() })
}
