//! The bytes of frames, and that they are read back as what was sent, or not at all.

use super::super::frame::HEADER_BYTES;
use super::super::records::{LIST_BYTES, write_messages};
use super::{draw, handed_out, hello, introduction, pair, taken_in_cuts};
use crate::limits::PeerBounds;
use crate::peer::*;
use crate::raft::{Content, GroupEntry, Message, MessageBody, Position, RoundId, VoteKind};
use crate::record::{ConfChange, Entry, Payload};
use crate::stdx::{Rng, dump};
use crate::types::{ClockReading, Epoch, Index, RaftId, Revision, ShardId, Term, Time};
use bytes::Bytes;

fn at(index: u64, term: u64) -> Position {
    Position { index: Index(index), term: Term(term) }
}

fn group(shard: u32, body: MessageBody) -> PeerMessage {
    let id = |id| RaftId::new(id).unwrap();
    let (control_term, entries) = match (&body, shard) {
        (MessageBody::Vote { .. }, 0) => (0, 16),
        (MessageBody::Vote { .. }, _) => (5, 0),
        _ => (0, 0),
    };
    PeerMessage::Group {
        shard: ShardId(shard),
        control_term: Term(control_term),
        entries,
        message: Message { from: id(0xf2), to: id(0xf1), term: Term(5), body },
    }
}

/// One of each, and all that their parts may be.
pub fn all() -> Vec<(&'static str, PeerMessage)> {
    of_groups().into_iter().chain(beside_groups()).collect()
}

fn of_groups() -> Vec<(&'static str, PeerMessage)> {
    let entry = |index, content| GroupEntry { index: Index(index), term: Term(5), content };
    let conf = Payload::of(&Entry::ConfChange(ConfChange::AddVoter(0xf3)));
    let entries = vec![
        entry(8, Content::Empty),
        entry(9, Content::Data(Payload::copy_of(b"what the shard proposed"))),
        entry(10, Content::ConfChange(conf)),
    ];
    let round = Some(RoundId { boot: 0xb2, number: 3 });
    let vote = |kind| MessageBody::Vote { kind, last: at(9, 4), commit: at(8, 4) };
    let granted = |kind| MessageBody::VoteAnswer { kind, is_granted: true, commit: at(8, 4) };
    vec![
        ("append", group(1, MessageBody::Append { after: at(7, 4), commit: Index(6), entries })),
        (
            "append_answer",
            group(1, MessageBody::AppendAnswer { index: Index(10), commit: Index(6), rejected: None }),
        ),
        (
            "append_refusal",
            group(
                1,
                MessageBody::AppendAnswer { index: Index(7), commit: Index(6), rejected: Some(at(5, 3)) },
            ),
        ),
        ("pre_vote", group(0, vote(VoteKind::Pre))),
        ("vote", group(1, vote(VoteKind::Real))),
        ("vote_transfer", group(2, vote(VoteKind::Transfer))),
        ("vote_answer", group(2, granted(VoteKind::Real))),
        ("heartbeat", group(0, MessageBody::Heartbeat { commit: Index(6), round })),
        ("heartbeat_answer", group(0, MessageBody::HeartbeatAnswer { commit: Index(6), round })),
        ("timeout_now", group(2, MessageBody::TimeoutNow)),
    ]
}

fn beside_groups() -> Vec<(&'static str, PeerMessage)> {
    let failure = CallFailure { code: 14, text: "etcdserver: no leader".into() };
    vec![
        (
            "settled",
            PeerMessage::Settled {
                epoch: Epoch { term: Term(5), attempt: 2 },
                revision: Revision(40),
                commits: vec![(ShardId(1), at(10, 5)), (ShardId(3), at(12, 5))],
            },
        ),
        ("wants_group", PeerMessage::WantsGroup { shard: ShardId(2), control_term: Term(5), last: at(9, 4) }),
        ("read_at", PeerMessage::ReadAt { number: 17 }),
        ("read_at_is", PeerMessage::ReadAtIs { number: 17, revision: Revision(40), control: Index(6) }),
        ("read_at_refused", PeerMessage::ReadAtRefused { number: 17 }),
        (
            "call",
            PeerMessage::Call {
                number: 3,
                method: 1,
                clock: ClockReading { boot: 5, time: Time(9) },
                timeout_ms: 5000,
                message: Bytes::from_static(b"\x0a\x03key\x12\x05value"),
            },
        ),
        (
            "answer",
            PeerMessage::Answer {
                number: 3,
                revision: Revision(4),
                control: Index(3),
                outcome: Ok(Bytes::from_static(b"\x0a\x02\x18\x28")),
            },
        ),
        (
            "failure",
            PeerMessage::Answer {
                number: 3,
                revision: Revision(4),
                control: Index(3),
                outcome: Err(failure),
            },
        ),
        ("call_refused", PeerMessage::CallRefused { number: 3 }),
        ("attributes", PeerMessage::Attributes(draw::attributes(2))),
        ("clock", PeerMessage::Clock(ClockReading { boot: 5, time: Time(9) })),
        ("state_offered", PeerMessage::StateOffered { shard: ShardId(2), after: Index(70) }),
        ("state_held", PeerMessage::StateHeld { shard: ShardId(2), upto: Index(80) }),
        ("state_wanted", PeerMessage::StateWanted { shard: ShardId(2), home: 1, file: 11, from: 4 }),
        (
            "state_block",
            PeerMessage::StateBlock {
                shard: ShardId(2),
                file: 11,
                number: 4,
                is_last: true,
                block: Bytes::from_static(b"block"),
            },
        ),
        ("state_gone", PeerMessage::StateGone { shard: ShardId(2), file: 11 }),
        ("leaving", PeerMessage::Leaving),
        ("no_space", PeerMessage::NoSpace),
        ("calls_lost", PeerMessage::CallsLost { number: 3 }),
        ("calls_over", PeerMessage::CallsOver { number: 3 }),
        ("members", PeerMessage::Members { as_of: Index(7), members: vec![draw::member(2)] }),
        ("removed", PeerMessage::Removed),
    ]
}

/// The frames that say it, each from a link that has just come up.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut frames = vec![("hello", handed_out(&mut super::dialer(PeerBounds::PRODUCTION)))];
    let mut refusing = super::listener(PeerBounds::PRODUCTION);
    refusing.refuse("there is no such member");
    frames.push(("refusal", handed_out(&mut refusing)));
    for (name, message) in all() {
        let mut link = pair(PeerBounds::PRODUCTION).0;
        link.send(message).unwrap();
        frames.push((name, handed_out(&mut link)));
    }
    let bounds = PeerBounds { frame_bytes_max: 200, ..PeerBounds::TINY };
    let mut link = pair(bounds).0;
    link.send(all()[0].1.clone()).unwrap();
    frames.push(("parts", handed_out(&mut link)));
    frames
}

#[test]
fn the_bytes_of_frames_are_these() {
    let mut text = String::new();
    for (name, bytes) in frames() {
        text.push_str(&format!("{name}\n{}", dump(&bytes)));
    }
    assert_eq!(text, include_str!("../golden.hex"));
}

#[test]
fn a_message_takes_no_more_of_a_head_than_was_reckoned() {
    let mut rng = Rng::new(1);
    let failure = |text: &str| PeerMessage::Answer {
        number: 1,
        revision: Revision(4),
        control: Index(3),
        outcome: Err(CallFailure { code: 2, text: text.into() }),
    };
    let uneven = (0..50).flat_map(|_| [failure("uneven text"), PeerMessage::Attributes(draw::attributes(2))]);
    let drawn: Vec<PeerMessage> = (0..500).map(|_| draw::message(&mut rng)).chain(uneven).collect();
    for messages in drawn.chunks(50) {
        let reckoned = messages.iter().map(PeerMessage::head_bytes).sum::<usize>() + LIST_BYTES;
        let written = write_messages(messages.iter(), vec![0; HEADER_BYTES]).len() - HEADER_BYTES;
        assert!(written <= reckoned, "{written} bytes, and {reckoned} were reckoned: {messages:?}");
        assert!(written + 40 * messages.len() >= reckoned, "{written} bytes of {reckoned}: {messages:?}");
    }
}

#[test]
fn hellos_arrive_as_they_were_said() {
    let (mut ours, mut theirs) = (super::dialer(PeerBounds::TINY), super::listener(PeerBounds::TINY));
    let mut rng = Rng::new(1);
    let heard = taken_in_cuts(&mut theirs, &handed_out(&mut ours), &mut rng);
    assert_eq!(heard, [LinkEvent::Hello(hello())]);
    theirs.answer(crate::types::Time(0));
    let heard = taken_in_cuts(&mut ours, &handed_out(&mut theirs), &mut rng);
    assert_eq!(heard, [LinkEvent::Hello(hello().answer(introduction(1)))]);
}

/// What was sent arrives, once, and what does not go first in its order.
#[test]
fn messages_arrive_as_they_were_sent_whatever_the_cuts() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let bounds = PeerBounds {
            frame_bytes_max: *rng.pick(&[200, 400, 10_000, PeerBounds::PRODUCTION.frame_bytes_max]),
            ..PeerBounds::PRODUCTION
        };
        let (mut ours, mut theirs) = pair(bounds);
        let (mut sent, mut heard) = (vec![], vec![]);
        for _ in 0..20 {
            for _ in 0..rng.below(8) {
                let message = draw::message(&mut rng);
                ours.send(message.clone()).unwrap();
                sent.push(message);
            }
            let bytes = handed_out(&mut ours);
            heard.extend(taken_in_cuts(&mut theirs, &bytes, &mut rng));
        }
        loop {
            let bytes = handed_out(&mut ours);
            if bytes.is_empty() {
                break;
            }
            heard.extend(taken_in_cuts(&mut theirs, &bytes, &mut rng));
        }
        let heard: Vec<PeerMessage> = heard
            .into_iter()
            .map(|event| match event {
                LinkEvent::Message(message) => message,
                LinkEvent::Hello(_) | LinkEvent::RoundTrip(_) => panic!("nobody said hello or asked again"),
            })
            .collect();
        let of_kind = |messages: &[PeerMessage], first: bool| -> Vec<PeerMessage> {
            messages.iter().filter(|message| message.goes_first() == first).cloned().collect()
        };
        assert_eq!(of_kind(&heard, false), of_kind(&sent, false), "seed {seed}");
        let (mut heard, sent) = (of_kind(&heard, true), of_kind(&sent, true));
        for message in sent {
            let at = heard.iter().position(|other| *other == message).expect("it arrived");
            heard.remove(at);
        }
        assert_eq!(heard, [], "seed {seed}");
    }
}
