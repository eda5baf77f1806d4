//! What a peer may send that is wrong: each has a name, and nothing is set aside for it.

use super::{dialer, draw, format, handed_out, listener, pair, taken_in};
use crate::limits::{PEER_FRAME_BYTES_MAX, PeerBounds};
use crate::peer::*;
use crate::record::{ControlEntry, Payload};
use crate::stdx::Rng;
use crate::types::{ClockReading, Index, Revision, Time};
use bytes::Bytes;

/// Gives a frame the checksum that it should have.
pub fn mend(frame: &mut [u8]) {
    let crc = crc32c::crc32c(&frame[12..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// The error of a link that is up, for a frame.
fn error(frame: &[u8]) -> String {
    let (_, mut theirs) = pair(PeerBounds::PRODUCTION);
    taken_in(&mut theirs, Time(0), frame).expect_err("it is wrong").to_string()
}

/// The frame that says a message, by a link that has just come up.
fn frame(message: PeerMessage) -> Vec<u8> {
    let (mut ours, _) = pair(PeerBounds::PRODUCTION);
    ours.send(message).unwrap();
    handed_out(&mut ours)
}

fn named(name: &str) -> PeerMessage {
    format::all().into_iter().find(|(known, _)| *known == name).unwrap().1
}

/// A frame with one byte of its header changed, and its checksum mended.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    mend(&mut frame);
    frame
}

#[test]
fn headers_that_are_wrong_are_found_before_a_body_comes() {
    let whole = frame(named("call"));
    let long = |length: usize| (length as u32).to_le_bytes();
    for (at, bytes, why) in [
        (0, &b"BRAID"[..], "what came is no frame of a member"),
        (12, &[2, 0][..], "the version of its frames is 2, and this program knows 1"),
        (14, &[9, 0], "the version of its entries is 9, and this program knows 2"),
        (16, &[0], "it sent a frame of kind 0, which there is not"),
        (16, &[8], "it sent a frame of kind 8, which there is not"),
        (16, &[1], "it sent a hello with a wrong header: it has payloads"),
        (16, &[2], "it sent a refusal with a wrong header: it has payloads"),
        (16, &[3], "it sent a ping with a wrong header: it is longer than its kind may be"),
        (19, &[1], "it sent messages with a wrong header: what is to be zero is not"),
        (47, &[1], "it sent messages with a wrong header: what is to be zero is not"),
        (
            20,
            &long(PEER_FRAME_BYTES_MAX - 47),
            "it sent messages with a wrong header: it is longer than its kind may be",
        ),
        (20, &long(usize::MAX), "it sent messages with a wrong header: it is longer than its kind may be"),
        (20, &long(7), "it sent messages with a wrong header: the lengths contradict each other"),
        (24, &[0], "frame 0 came where frame 1 was due"),
        (24, &[2], "frame 2 came where frame 1 was due"),
        (32, &long(usize::MAX), "it sent messages with a wrong header: the lengths contradict each other"),
        (40, &[1], "it sent messages with a wrong header: the lengths contradict each other"),
    ] {
        assert_eq!(error(&with(whole.clone(), at, bytes)[..48]), why, "at {at}");
    }
    assert_eq!(error(&[&whole[..], &whole[..]].concat()), "frame 1 came where frame 2 was due");
}

#[test]
fn strangers_may_greet_and_nothing_else() {
    let greeting = handed_out(&mut dialer(PeerBounds::PRODUCTION));
    let first = |bytes: &[u8]| taken_in(&mut listener(PeerBounds::PRODUCTION), Time(0), bytes);
    for name in ["call", "leaving"] {
        let kind = "messages";
        assert_eq!(first(&frame(named(name))[..48]), Err(LinkError::OutOfTurn { kind }));
    }
    let ping = with(vec![0; 48], 0, b"braidlnk");
    let ping = with(with(with(ping, 12, &[1, 0]), 14, &[2, 0]), 16, &[3]);
    assert_eq!(first(&ping), Err(LinkError::OutOfTurn { kind: "a ping" }));
    let mut refusing = listener(PeerBounds::PRODUCTION);
    refusing.refuse("no");
    assert_eq!(first(&handed_out(&mut refusing)), Err(LinkError::OutOfTurn { kind: "a refusal" }));
    let long = with(greeting.clone(), 20, &[0, 0, 1]);
    assert!(matches!(first(&long[..48]), Err(LinkError::Lengths { .. })));
    // Before the answer, and again.
    let hello = LinkError::OutOfTurn { kind: "a hello" };
    let twice = [&greeting[..], &with(greeting.clone(), 24, &[1])[..]].concat();
    assert_eq!(first(&twice), Err(hello.clone()));
    let (_, mut theirs) = pair(PeerBounds::PRODUCTION);
    assert_eq!(taken_in(&mut theirs, Time(0), &with(greeting, 24, &[1])), Err(hello));
    // With the hello or behind it, so that it is answered although the link has ended.
    let (mut theirs, mut events) = (listener(PeerBounds::PRODUCTION), vec![]);
    assert!(theirs.receive(Time(0), &twice, &mut events).is_err() && events.is_empty());
    let mut theirs = listener(PeerBounds::PRODUCTION);
    assert_eq!(taken_in(&mut theirs, Time(0), &twice[..150]).map(|events| events.len()), Ok(1));
    assert!(taken_in(&mut theirs, Time(0), &twice[150..]).is_err());
    theirs.answer(Time(0));
    assert!(!theirs.is_up() && handed_out(&mut theirs).is_empty());
}

#[test]
fn the_first_bytes_tell_members_from_others() {
    assert_eq!([greets(b""), greets(b"braid"), greets(b"braidln")], [None; 3]);
    assert_eq!(greets(&handed_out(&mut dialer(PeerBounds::PRODUCTION))), Some(true));
    assert_eq!([greets(b"GET /members"), greets(b"b/"), greets(b"braidlnx")], [Some(false); 3]);
}

/// Parts of an append, cut small.
fn parts() -> Vec<Vec<u8>> {
    let bounds = PeerBounds { frame_bytes_max: 200, ..PeerBounds::PRODUCTION };
    let (mut ours, _) = pair(bounds);
    let call = Bytes::from(vec![7; 500]);
    ours.send(PeerMessage::Call {
        number: 3,
        method: 1,
        clock: ClockReading::default(),
        timeout_ms: 5,
        message: call,
    })
    .unwrap();
    let mut bytes = handed_out(&mut ours);
    let mut frames = vec![];
    while !bytes.is_empty() {
        let rest = bytes.split_off(bytes.len().min(200));
        frames.push(std::mem::replace(&mut bytes, rest));
    }
    frames
}

#[test]
fn parts_that_do_not_fit_are_found() {
    let parts = parts();
    assert_eq!(parts.len(), 4);
    let whole = 104_u32 + 500;
    let (head, payloads) = (104_u32.to_le_bytes(), 500_u32.to_le_bytes());
    assert_eq!((&parts[0][32..36], &parts[0][36..40]), (&head[..], &payloads[..]));
    let wrong = |why: &str| format!("it sent a part of a message with a wrong header: {why}");
    let misfit = |why: &str| format!("it sent a part of a message that does not fit: {why}");
    let long = |length: usize| (length as u32).to_le_bytes();
    let second = |at, bytes: &[u8]| [&parts[0][..], &with(parts[1].clone(), at, bytes)[..]].concat();
    for (bytes, why) in [
        (with(parts[0].clone(), 32, &long(300 << 10)), wrong("its message's head is too long")),
        (with(parts[0].clone(), 36, &long(40 << 20)), wrong("its message is too long")),
        (with(parts[0].clone(), 36, &long(usize::MAX)), wrong("its message is too long")),
        (with(parts[0].clone(), 40, &long(600)), wrong("it passes its message's end")),
        (with(parts[0].clone(), 40, &long(usize::MAX)), wrong("it passes its message's end")),
        (with(parts[0].clone(), 20, &[0])[..48].to_vec(), wrong("it is empty")),
        (with(parts[1].clone(), 24, &[1]), misfit("it begins in the middle")),
        (second(36, &long(501)), misfit("it is of another message than the part before")),
        (second(40, &long(0)), misfit("it does not follow the part before")),
        (second(40, &long(whole as usize - 152)), misfit("it does not follow the part before")),
    ] {
        assert_eq!(error(&bytes), why);
    }
    // Two messages in parts.
    let messages = [named("leaving"), named("leaving")];
    let two = super::super::records::write_messages(messages.iter(), vec![0; 48]);
    let head = long(two.len() - 48);
    let mut frame = with(two, 0, &parts[0][..48]);
    for at in [20, 32] {
        frame[at..at + 4].copy_from_slice(&head);
    }
    assert_eq!(error(&with(frame, 36, &[0; 4])), misfit("together the parts are not one message"));
}

#[test]
fn nothing_is_set_aside_for_what_was_only_announced() {
    let part = with(parts().remove(0), 36, &((30 << 20) as u32).to_le_bytes());
    let mut incoming = super::super::incoming::Incoming::default();
    let mut next = |bytes: &mut &[u8]| {
        let frame = incoming.next(bytes, super::super::incoming::Expected::Messages);
        (frame.unwrap().is_some(), incoming.room())
    };
    let (came, room) = next(&mut &with(part, 24, &[0])[..]);
    assert!(came && room <= PEER_FRAME_BYTES_MAX + 1024, "{room} bytes for a message of 30 MiB");
    let (came, room) = next(&mut &with(parts().remove(1), 24, &[1])[..48]);
    assert!(!came && room <= PEER_FRAME_BYTES_MAX + 2048, "{room} bytes");
}

/// The frame of a message with one number changed, wherever it stands.
fn with_number(name: &str, number: u64, by: u64) -> Vec<u8> {
    let mut frame = frame(named(name));
    let places: Vec<usize> =
        (48..frame.len() - 7).step_by(8).filter(|at| frame[*at..*at + 8] == number.to_le_bytes()).collect();
    assert_eq!(places.len(), 1, "{name} says {number:x} once: {places:?}");
    frame[places[0]..places[0] + 8].copy_from_slice(&by.to_le_bytes());
    mend(&mut frame);
    frame
}

#[test]
fn numbers_that_nobody_means_are_found() {
    let beyond = "a term or an index is beyond all";
    const RAFT: u64 = 1 << 62;
    for (name, number, by, what, why) in [
        ("append", 0xf2, 0, "an append", "it names nobody as a peer"),
        ("append", 0xf1, 0, "an append", "it names nobody as a peer"),
        ("append", 7, RAFT - 4, "", ""),
        ("append", 7, RAFT - 3, "an append", "an index is beyond all"),
        ("append", 7, u64::MAX, "an append", beyond),
        ("append", 4, RAFT, "an append", beyond),
        ("append", 6, u64::MAX, "an append", beyond),
        ("append_answer", 5, 0, "an append's answer", "a term is 0"),
        ("append_answer", 5, RAFT, "an append's answer", beyond),
        ("append_answer", 10, RAFT, "an append's answer", beyond),
        ("append_refusal", 3, RAFT, "an append's answer", beyond),
        ("pre_vote", 8, RAFT, "a request for a vote", beyond),
        ("vote_answer", 8, RAFT, "a vote", beyond),
        ("heartbeat", 6, RAFT, "a heartbeat", beyond),
        ("heartbeat_answer", 6, RAFT, "a heartbeat's answer", beyond),
        ("timeout_now", 5, 0, "a transfer of a group", "a term is 0"),
        ("settled", 40, 1 << 48, "what is settled", "a revision is beyond all"),
        ("settled", 12, RAFT, "what is settled", beyond),
        ("wants_group", 5, 0, "a request for a group", "a term is 0"),
        ("wants_group", 9, RAFT, "a request for a group", beyond),
        ("read_at_is", 40, 1 << 48, "a read's answer", "a revision is beyond all"),
        ("read_at_is", 6, RAFT, "a read's answer", beyond),
    ] {
        let frame = with_number(name, number, by);
        match what {
            "" => assert!(taken_in(&mut pair(PeerBounds::PRODUCTION).1, Time(0), &frame).is_ok(), "{name}"),
            _ => assert_eq!(error(&frame), format!("it sent {what} that makes no sense: {why}")),
        }
    }
}

#[test]
fn messages_that_nobody_means_are_found() {
    let senseless = |what: &str, why: &str| format!("it sent {what} that makes no sense: {why}");
    let failure = |code| PeerMessage::Answer {
        number: 3,
        revision: Revision(4),
        control: Index(3),
        outcome: Err(CallFailure { code, text: "text".into() }),
    };
    for code in [0, 17, 255] {
        let why = "its code is none of gRPC's";
        assert_eq!(error(&frame(failure(code))), senseless("a call's answer", why));
    }
    let attributes = PeerMessage::Attributes(ControlEntry::Compact { revision: 3 });
    assert_eq!(error(&frame(attributes)), senseless("a member's attributes", "it is another entry"));
    let PeerMessage::Settled { epoch, revision, commits } = named("settled") else { unreachable!() };
    let many = commits.iter().copied().cycle().take(4097).collect();
    let many = PeerMessage::Settled { epoch, revision, commits: many };
    assert_eq!(error(&frame(many)), senseless("what is settled", "no cluster has so many shards"));
    for commits in [vec![commits[1], commits[0]], vec![commits[0], commits[0]]] {
        let settled = PeerMessage::Settled { epoch, revision, commits };
        let why = "a shard is named twice, or out of order";
        assert_eq!(error(&frame(settled)), senseless("what is settled", why));
    }
    // Payloads: the entries' bytes and kinds stand where the golden bytes show them.
    let append = frame(named("append"));
    assert_eq!(append[72..76], [0x17, 0, 0, 0]);
    let kind = "an entry is of no kind, or is not what its kind holds";
    for (at, byte, why) in [
        (72, 0x16, kind),
        (72, 0x18, "it names more payload than there is"),
        (72, 0xff, "it names more payload than there is"),
        (76, 3, kind),
        (76, 2, kind),
        (76, 0, kind),
    ] {
        assert_eq!(error(&with(append.clone(), at, &[byte])), senseless("an append", why), "{at}: {byte}");
    }
    let call = frame(named("call"));
    assert_eq!(call[96], 12);
    let rest = senseless("a frame", "it has payloads that are no message's");
    assert_eq!(error(&with(call.clone(), 96, &[11])), rest);
    assert_eq!(error(&with(call.clone(), 48, &[0xff])), "the head of a frame cannot be read");
    assert_eq!(error(&with(call, 148, &[2])), "the head of a frame cannot be read");
}

#[test]
fn hellos_that_nobody_means_are_found() {
    let said = handed_out(&mut dialer(PeerBounds::PRODUCTION));
    let heard = |bytes: &[u8]| taken_in(&mut listener(PeerBounds::PRODUCTION), Time(0), bytes);
    assert!(heard(&said).is_ok());
    // Places as the golden bytes show them.
    for (at, bytes, why) in [
        (48, &[0; 8][..], "it names no cluster"),
        (56, &[0; 8], "it names no member"),
        (64, &[0; 8], "it names no directory"),
        (96, &[0; 4], "no cluster has so many shards"),
        (96, &[1, 16, 0, 0], "no cluster has so many shards"),
        (112, &[0, 0], "no member has so many reactors"),
        (112, &[1, 1], "no member has so many reactors"),
        (112, &[2, 0], "it comes from a reactor beyond the last"),
        (120, &[0; 8], "it is for no member"),
        (130, &[0, 1], "it is for a reactor beyond all"),
    ] {
        let error = heard(&with(said.clone(), at, bytes)).unwrap_err().to_string();
        assert_eq!(error, format!("it sent a hello that makes no sense: {why}"), "at {at}");
    }
    assert_eq!(heard(&with(said, 88, &[2])), Err(LinkError::Unreadable));
}

/// What a link that is up makes of a stream, up to its first error.
fn outcome(bytes: &[u8], cuts: &mut Rng) -> (Vec<PeerMessage>, bool) {
    let (_, mut theirs) = pair(PeerBounds::PRODUCTION);
    let (mut rest, mut events) = (bytes, vec![]);
    let mut is_well = true;
    while !rest.is_empty() && is_well {
        let (part, behind) = rest.split_at(rest.len().min(1 + cuts.below(3000) as usize));
        is_well = theirs.receive(Time(0), part, &mut events).is_ok();
        rest = behind;
    }
    let message = |event| match event {
        LinkEvent::Message(message) => message,
        LinkEvent::Hello(_) | LinkEvent::RoundTrip(_) => panic!("nobody said hello or asked again"),
    };
    (events.into_iter().map(message).collect(), is_well)
}

/// A stream of frames with what it says, some of it in parts.
fn stream(seed: u64) -> (Vec<Vec<u8>>, Vec<PeerMessage>) {
    let mut rng = Rng::new(seed);
    let bounds = PeerBounds { frame_bytes_max: 1000, ..PeerBounds::PRODUCTION };
    let (mut ours, _) = pair(bounds);
    let (mut frames, mut said) = (vec![], vec![]);
    while said.len() < 12 {
        let message = draw::message(&mut rng);
        let is_short = message.payloads().all(|payload| payload.bytes().len() < 4000);
        if is_short && ours.send(message.clone()).is_ok() {
            said.push(message);
            let mut bytes = handed_out(&mut ours);
            while !bytes.is_empty() {
                let body = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
                let rest = bytes.split_off(48 + body);
                frames.push(std::mem::replace(&mut bytes, rest));
            }
        }
    }
    (frames, said)
}

#[test]
fn bytes_that_are_not_what_was_sent_are_never_taken_for_it() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let (frames, said) = stream(seed % 20);
        let whole = frames.concat();
        assert_eq!(outcome(&whole, &mut rng), (said.clone(), true));
        let mut bytes = whole.clone();
        let (a, b) = (rng.below(frames.len() as u64) as usize, rng.below(frames.len() as u64) as usize);
        match rng.below(5) {
            0 => bytes[rng.below(whole.len() as u64) as usize] ^= 1 << rng.below(8),
            1 => drop(bytes.remove(rng.below(whole.len() as u64) as usize)),
            2 => bytes.insert(rng.below(whole.len() as u64) as usize, rng.next_u64() as u8),
            3 => {
                let mut mixed = frames.clone();
                mixed.swap(a, b);
                bytes = mixed.concat();
            }
            _ => {
                let mut fewer = frames.clone();
                fewer.remove(a);
                bytes = fewer.concat();
            }
        }
        let (heard, is_well) = outcome(&bytes, &mut rng);
        assert!(said.starts_with(&heard), "seed {seed}: {heard:?}");
        assert!(bytes == whole || heard.len() < said.len() || !is_well, "seed {seed}");
    }
}

#[test]
fn every_cut_and_every_flipped_bit_of_a_frame_is_seen() {
    let call = frame(named("append"));
    for cut in 0..call.len() {
        assert_eq!(taken_in(&mut pair(PeerBounds::PRODUCTION).1, Time(0), &call[..cut]), Ok(vec![]));
        for bit in 0..8 {
            let mut bytes = call.clone();
            bytes[cut] ^= 1 << bit;
            let heard = taken_in(&mut pair(PeerBounds::PRODUCTION).1, Time(0), &bytes);
            assert!(heard != Ok(vec![LinkEvent::Message(named("append"))]), "byte {cut}, bit {bit}");
            assert!(heard.is_err() || heard == Ok(vec![]), "byte {cut}, bit {bit}: {heard:?}");
        }
    }
}

#[test]
fn whatever_is_in_a_head_nothing_but_an_error_comes_of_it() {
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut bytes = frame(draw_short(&mut rng));
        for _ in 0..=rng.below(4) {
            let at = 48 + rng.below(bytes.len() as u64 - 48) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        mend(&mut bytes);
        // What is read can be said, and is read as the same.
        let Ok(events) = taken_in(&mut pair(PeerBounds::PRODUCTION).1, Time(0), &bytes) else { continue };
        let [LinkEvent::Message(message)] = &events[..] else { continue };
        assert_eq!(
            taken_in(&mut pair(PeerBounds::PRODUCTION).1, Time(0), &frame(message.clone())),
            Ok(events)
        );
    }
}

fn draw_short(rng: &mut Rng) -> PeerMessage {
    loop {
        let message = draw::message(rng);
        let is_short = |payload: crate::record::Chunk| payload.bytes().len() < 1000;
        if message.payloads().all(is_short) {
            return message;
        }
    }
}

#[test]
fn an_entrys_bytes_come_as_they_were_whatever_they_are() {
    // Whether they are an entry, their reader says.
    let noise = Payload::copy_of(&[0xff; 31]);
    assert!(noise.entry().is_err());
    let PeerMessage::Group { shard, control_term, entries: told, mut message } = named("append") else {
        unreachable!()
    };
    let crate::raft::MessageBody::Append { entries, .. } = &mut message.body else { unreachable!() };
    entries[1].content = crate::raft::Content::Data(noise);
    let said = PeerMessage::Group { shard, control_term, entries: told, message };
    let heard = taken_in(&mut pair(PeerBounds::PRODUCTION).1, Time(0), &frame(said.clone()));
    assert_eq!(heard, Ok(vec![LinkEvent::Message(said)]));
}
