//! What one end of a link does: greeting, silence, what goes first and what waits.

use super::{TIMES, dialer, draw, handed_out, hello, introduction, listener, pair, taken_in};
use crate::limits::{PEER_COPIED_BYTES_MAX, PEER_REFUSAL_BYTES_MAX, PeerBounds};
use crate::peer::*;
use crate::raft::{Content, GroupEntry, Message, MessageBody, Position};
use crate::record::{Chunk, Payload};
use crate::stdx::Rng;
use crate::types::{
    ClockReading, ClusterId, Duration, Index, MemberId, RaftId, ReactorId, Revision, ShardId, Term, Time,
};
use bytes::Bytes;

fn ms(ms: u64) -> Time {
    Time::from_ms(ms)
}

fn group(shard: u32, body: MessageBody) -> PeerMessage {
    let [from, to] = [0xf2, 0xf1].map(|id| RaftId::new(id).unwrap());
    let message = Message { from, to, term: Term(5), body };
    PeerMessage::Group { shard: ShardId(shard), control_term: Term(0), entries: 0, message }
}

fn heartbeat(shard: u32, commit: u64) -> PeerMessage {
    group(shard, MessageBody::Heartbeat { commit: Index(commit), round: None })
}

fn append(shard: u32, index: u64, payload: &Payload) -> PeerMessage {
    let content = Content::Data(payload.clone());
    let entries = vec![GroupEntry { index: Index(index + 1), term: Term(5), content }];
    let after = Position { index: Index(index), term: Term(5) };
    group(shard, MessageBody::Append { after, commit: Index(index), entries })
}

fn settled(revision: u64) -> PeerMessage {
    let epoch = crate::types::Epoch { term: Term(5), attempt: 0 };
    PeerMessage::Settled { epoch, revision: Revision(revision), commits: vec![] }
}

fn payload(bytes: usize) -> Payload {
    Payload::copy_of(&vec![7; bytes])
}

fn messages(events: Vec<LinkEvent>) -> Vec<PeerMessage> {
    let message = |event| match event {
        LinkEvent::Message(message) => message,
        LinkEvent::Hello(_) | LinkEvent::RoundTrip(_) => panic!("nobody said hello or asked again"),
    };
    events.into_iter().map(message).collect()
}

/// What the listener makes of a hello like ours but for something.
fn heard(change: impl FnOnce(&mut Hello)) -> Result<Vec<LinkEvent>, LinkError> {
    let mut said = hello();
    change(&mut said);
    let mut ours = Link::dial(Time(0), said, TIMES, PeerBounds::PRODUCTION);
    taken_in(&mut listener(PeerBounds::PRODUCTION), Time(0), &handed_out(&mut ours))
}

#[test]
fn a_listener_takes_those_who_look_for_it_and_says_why_not_others() {
    assert!(heard(|_| {}).is_ok());
    let founding = |shards, map| Some(Founding { shards, map, is_set: true });
    assert!(heard(|hello| hello.from.founding = None).is_ok(), "the first entry decides");
    let refused = |change: fn(&mut Hello)| heard(change).unwrap_err().to_string();
    for (change, why) in [
        (
            (|hello| hello.from.cluster = ClusterId(0xc2)) as fn(&mut Hello),
            "cluster ID mismatch: member 2 belongs to cluster c2, and member 1 to c1",
        ),
        (|hello| hello.to = MemberId(3), "member 3 was looked for, and this is member 1"),
        (|hello| hello.from.member = MemberId(1), "member 1 is both ends of the link"),
        (
            |hello| hello.to_reactor = ReactorId(2),
            "reactor 2 was looked for, and member 1 has 2 of them, from 0 on",
        ),
    ] {
        assert_eq!(refused(change), why);
    }
    let differing = heard(|hello| hello.from.founding = founding(7, 0x3a9)).unwrap_err().to_string();
    assert_eq!(
        differing,
        "founders need the same --shards: with the control shard, member 2 makes 7 shards and member 1 makes 5"
    );
    let differing = heard(|hello| hello.from.founding = founding(5, 0x3aa)).unwrap_err().to_string();
    assert_eq!(
        differing,
        "founders need the same --shard-map: the cuts of member 2 hash to 3aa, those of member 1 to 3a9"
    );
    let by_default = |shards| Some(Founding { shards, map: 1, is_set: false });
    let differing = heard(|hello| hello.from.founding = by_default(7)).unwrap_err().to_string();
    assert_eq!(
        differing,
        "founders need the same --shards: with the control shard, member 2 makes 7 shards by default and member 1 \
         makes 5"
    );
}

#[test]
fn founders_of_whom_nothing_was_said_need_not_be_alike() {
    let of = |member: u64, shards: u32| Introduction {
        founding: Some(Founding { shards, map: u64::from(shards), is_set: false }),
        ..introduction(member)
    };
    let said = Hello { from: of(2, 7), ..hello() };
    let mut ours = Link::dial(Time(0), said, TIMES, PeerBounds::PRODUCTION);
    let mut theirs = Link::accept(Time(0), of(1, 5), TIMES, PeerBounds::PRODUCTION);
    assert!(taken_in(&mut theirs, Time(0), &handed_out(&mut ours)).is_ok());
}

#[test]
fn a_dialer_takes_the_answer_of_whom_it_looked_for_alone() {
    let answered = |change: fn(&mut Introduction), to_reactor| {
        let mut ours = dialer(PeerBounds::PRODUCTION);
        handed_out(&mut ours);
        let mut own = introduction(1);
        change(&mut own);
        // Somebody else is asked, and its answer gets here.
        let asked = Hello { to: own.member, to_reactor: ReactorId(to_reactor), ..hello() };
        let asked = Hello { from: Introduction { cluster: own.cluster, ..asked.from }, ..asked };
        let asked = Hello { from: Introduction { member: MemberId(9), ..asked.from }, ..asked };
        let mut asking = Link::dial(Time(0), asked, TIMES, PeerBounds::PRODUCTION);
        let mut theirs = Link::accept(Time(0), own, TIMES, PeerBounds::PRODUCTION);
        taken_in(&mut theirs, Time(0), &handed_out(&mut asking)).unwrap();
        theirs.answer(Time(0));
        taken_in(&mut ours, Time(0), &handed_out(&mut theirs)).unwrap_err().to_string()
    };
    assert_eq!(answered(|own| own.member = MemberId(4), 1), "member 1 was looked for, and member 4 answers");
    assert_eq!(
        answered(|_| {}, 0),
        "reactor 1 was looked for by reactor 2, and reactor 0 answers to reactor 2"
    );
    assert!(answered(|own| own.cluster = ClusterId(0xc2), 1).starts_with("cluster ID mismatch"));
    assert_eq!(answered(|_| {}, 1), "member 9 was looked for, and this is member 2");
}

#[test]
fn a_refusal_arrives_in_words_whatever_the_program_that_wrote_it() {
    let (mut ours, mut theirs) = (dialer(PeerBounds::PRODUCTION), listener(PeerBounds::PRODUCTION));
    let said = handed_out(&mut ours);
    taken_in(&mut theirs, Time(0), &said).unwrap();
    theirs.refuse(&"ä".repeat(PEER_REFUSAL_BYTES_MAX));
    assert_eq!(theirs.wake_at(), Time::NEVER);
    let said = handed_out(&mut theirs);
    let told = "ä".repeat(PEER_REFUSAL_BYTES_MAX / 2);
    assert_eq!(taken_in(&mut ours, Time(0), &said), Err(LinkError::Refused(told)));
    // The versions, and what comes behind.
    let mut newer = said;
    newer[12..16].copy_from_slice(&[9, 9, 9, 9]);
    super::bad_input::mend(&mut newer);
    newer.extend_from_slice(b"more");
    let error = taken_in(&mut dialer(PeerBounds::PRODUCTION), Time(0), &newer).unwrap_err();
    assert!(error.to_string().starts_with("it refused the link: ää"));
}

#[test]
fn an_end_that_gives_up_says_why_in_place_of_what_waits() {
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    ours.send(settled(3)).unwrap();
    ours.refuse("the checksum of a frame is wrong");
    let said = handed_out(&mut ours);
    assert_eq!(said.len(), 48 + "the checksum of a frame is wrong".len());
    let error = LinkError::Refused("the checksum of a frame is wrong".into());
    assert_eq!(taken_in(&mut theirs, Time(0), &said), Err(error));
    assert!(handed_out(&mut ours).is_empty() && !ours.is_up() && !theirs.is_up());
    assert_eq!(ours.send(settled(4)), Err(NotSent::NotUp));
    assert_eq!(taken_in(&mut theirs, Time(0), b"anything"), Ok(vec![]), "behind an error nothing counts");
}

#[test]
fn messages_need_both_hellos() {
    let mut ours = dialer(PeerBounds::PRODUCTION);
    assert_eq!(ours.send(settled(3)), Err(NotSent::NotUp));
    let mut theirs = listener(PeerBounds::PRODUCTION);
    taken_in(&mut theirs, Time(0), &handed_out(&mut ours)).unwrap();
    assert!(!theirs.is_up() && handed_out(&mut theirs).is_empty());
    theirs.answer(Time(0));
    assert!(theirs.is_up() && theirs.send(settled(3)).is_ok());
    let heard = taken_in(&mut ours, Time(0), &handed_out(&mut theirs)).unwrap();
    assert_eq!(heard.len(), 2, "the listener need not wait for more: {heard:?}");
}

#[test]
fn a_greeting_takes_an_election_timeout_at_most() {
    let mut ours = dialer(PeerBounds::PRODUCTION);
    assert_eq!((ours.wake_at(), ours.wake(ms(999))), (ms(1000), Ok(())));
    assert_eq!(ours.wake(ms(1000)), Err(LinkError::Silent));
    let mut theirs = listener(PeerBounds::PRODUCTION);
    let said = handed_out(&mut dialer(PeerBounds::PRODUCTION));
    // Byte by byte does not prolong it.
    taken_in(&mut theirs, ms(900), &said[..60]).unwrap();
    assert_eq!(theirs.wake(ms(1000)), Err(LinkError::Silent));
    // It is up from the answer on.
    let mut theirs = listener(PeerBounds::PRODUCTION);
    taken_in(&mut theirs, ms(900), &said).unwrap();
    theirs.answer(ms(950));
    assert_eq!(theirs.wake(ms(1000)), Ok(()));
}

#[test]
fn a_silent_peer_is_asked_and_then_dead() {
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    assert_eq!((ours.wake_at(), ours.wake(ms(299))), (ms(300), Ok(())));
    assert!(handed_out(&mut ours).is_empty());
    assert_eq!(ours.wake(ms(300)), Ok(()));
    let ping = handed_out(&mut ours);
    assert_eq!(ping.len(), 48);
    assert_eq!(taken_in(&mut theirs, ms(301), &ping), Ok(vec![]));
    let pong = handed_out(&mut theirs);
    let round_trip = LinkEvent::RoundTrip(Duration::from_ms(2));
    assert_eq!(taken_in(&mut ours, ms(302), &pong), Ok(vec![round_trip]));
    assert_eq!(ours.wake_at(), ms(602));
    assert!(handed_out(&mut ours).is_empty(), "a pong is not answered");
    assert_eq!(ours.wake(ms(602)), Ok(()));
    assert!(!handed_out(&mut ours).is_empty());
    assert_eq!((ours.wake_at(), ours.wake(ms(1301))), (ms(1302), Ok(())));
    assert!(handed_out(&mut ours).is_empty(), "one question is enough");
    assert_eq!(ours.wake(ms(1302)), Err(LinkError::Silent));
    assert!(!ours.is_up());
}

#[test]
fn a_process_that_stood_still_asks_before_it_gives_a_peer_up() {
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    assert_eq!(ours.wake(ms(60_000)), Ok(()));
    let ping = handed_out(&mut ours);
    assert_eq!(ours.wake(ms(60_699)), Ok(()));
    taken_in(&mut theirs, ms(60_001), &ping).unwrap();
    taken_in(&mut ours, ms(60_699), &handed_out(&mut theirs)).unwrap();
    assert_eq!(ours.wake(ms(60_700)), Ok(()), "it is alive");
}

#[test]
fn who_hears_and_has_nothing_to_say_gives_a_word() {
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    ours.send(append(1, 7, &payload(200_000))).unwrap();
    let said = handed_out(&mut ours);
    for part in 0..10 {
        // The pieces of a long message, slowly.
        let now = ms(10 + 100 * part);
        taken_in(&mut theirs, now, &said[20_000 * part as usize..][..20_000]).unwrap();
        theirs.wake(now).unwrap();
        let word = handed_out(&mut theirs);
        assert_eq!(word.is_empty(), ![310, 710].contains(&(now.0 / 1_000_000)), "{now}");
        // A round trip is measured by what was asked for.
        ours.probe(now);
        assert_eq!(taken_in(&mut ours, now, &word), Ok(vec![]));
        ours.wake(now).unwrap();
    }
    // Who has just answered anyway gives none.
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    for now in (0..2000).step_by(100).map(ms) {
        ours.send(settled(3)).unwrap();
        theirs.send(settled(3)).unwrap();
        let (said, answer) = (handed_out(&mut ours), handed_out(&mut theirs));
        assert_eq!((said.len(), answer.len()), (152, 152));
        taken_in(&mut theirs, now, &said).unwrap();
        taken_in(&mut ours, now, &answer).unwrap();
        ours.wake(now).unwrap();
        theirs.wake(now).unwrap();
    }
}

#[test]
fn pings_that_come_while_nothing_can_leave_are_answered_by_one_pong() {
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    theirs.send(append(1, 7, &payload(3 << 20))).unwrap();
    let mut under_way = vec![];
    theirs.flush(&mut under_way);
    for now in [300, 900] {
        ours.wake(ms(now)).unwrap();
        taken_in(&mut theirs, ms(now), &handed_out(&mut ours)).unwrap();
        let mut more = vec![];
        theirs.flush(&mut more);
        assert!(more.is_empty(), "too much is under way");
        taken_in(&mut ours, ms(now + 1), &under_way[0].bytes()[..1]).unwrap();
        under_way[0] = Chunk::Bytes(under_way[0].bytes()[1..].to_vec());
    }
    theirs.sent(512 << 10);
    let mut more = vec![];
    theirs.flush(&mut more);
    let lengths: Vec<usize> = frames(&more).iter().map(Vec::len).collect();
    assert_eq!(lengths, [48, 256 << 10, 256 << 10]);
}

/// The frames of what was handed out, by their lengths.
fn frames(out: &[Chunk]) -> Vec<Vec<u8>> {
    let mut bytes: Vec<u8> = out.iter().flat_map(|chunk| chunk.bytes().to_vec()).collect();
    let mut frames = vec![];
    while !bytes.is_empty() {
        let body = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
        let rest = bytes.split_off(48 + body);
        frames.push(std::mem::replace(&mut bytes, rest));
    }
    frames
}

#[test]
fn so_much_is_under_way_and_the_rest_waits_for_the_kernel() {
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    let long = append(1, 7, &payload(3 << 20));
    ours.send(long.clone()).unwrap();
    let (mut under_way, mut heard) = (vec![], vec![]);
    ours.flush(&mut under_way);
    let mut frames = frames(&under_way);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [256 << 10; 2], "the window, whole frames");
    let mut turns = 0;
    while let Some(frame) = (!frames.is_empty()).then(|| frames.remove(0)) {
        heard.extend(messages(taken_in(&mut theirs, Time(0), &frame).unwrap()));
        ours.sent(frame.len());
        let mut out = vec![];
        ours.flush(&mut out);
        frames.extend(self::frames(&out));
        assert!(frames.len() <= 2);
        turns += 1;
    }
    assert_eq!((turns, heard), (13, vec![long]));
}

#[test]
fn what_goes_first_passes_all_that_waits_and_the_parts_of_a_long_message() {
    let (mut ours, mut theirs) = pair(PeerBounds::PRODUCTION);
    let long = append(1, 7, &payload(1 << 20));
    let waiting = [settled(3), append(2, 9, &payload(500)), long.clone(), settled(4)];
    for message in &waiting {
        ours.send(message.clone()).unwrap();
    }
    ours.send(heartbeat(0, 6)).unwrap();
    let mut out = vec![];
    ours.flush(&mut out);
    let mut heard = vec![];
    let mut turn = 0;
    while !out.is_empty() {
        for frame in frames(&out) {
            heard.extend(messages(taken_in(&mut theirs, Time(0), &frame).unwrap()));
            ours.sent(frame.len());
        }
        turn += 1;
        ours.send(heartbeat(0, 6 + turn)).unwrap();
        out.clear();
        if turn < 4 {
            ours.flush(&mut out);
        }
    }
    let [first, second, ..] = waiting;
    let passing = [heartbeat(0, 7), heartbeat(0, 8)];
    let [one, two] = passing;
    assert_eq!(heard[..4], [heartbeat(0, 6), first, second, one]);
    assert_eq!(heard[4..], [two, long, settled(4), heartbeat(0, 9)], "{turn} turns");
}

#[test]
fn two_long_messages_go_one_after_the_other() {
    let (mut ours, mut theirs) = pair(PeerBounds::TINY);
    let [first, second] = [1000, 1100].map(|bytes| append(0, 7, &payload(bytes)));
    let behind = append(1, 7, &payload(1200));
    let mut heard = vec![];
    for (message, others) in [(&behind, 0), (&first, 1), (&second, 2)] {
        ours.send(message.clone()).unwrap();
        if others == 0 {
            // The one that waits with the others has begun.
            heard.extend(messages(taken_in(&mut theirs, Time(0), &handed_out(&mut ours)).unwrap()));
        }
    }
    ours.send(heartbeat(1, 3)).unwrap();
    loop {
        let bytes = handed_out(&mut ours);
        if bytes.is_empty() {
            break;
        }
        heard.extend(messages(taken_in(&mut theirs, Time(0), &bytes).unwrap()));
    }
    assert_eq!(heard, [behind, first, second, heartbeat(1, 3)]);
}

#[test]
fn what_is_too_much_is_told_and_groups_messages_are_counted() {
    let bounds = PeerBounds { queued_messages_max: 3, queued_bytes_max: 2000, ..PeerBounds::PRODUCTION };
    let (mut ours, mut theirs) = pair(bounds);
    for _ in 0..3 {
        ours.send(heartbeat(1, 6)).unwrap();
    }
    assert_eq!(ours.send(heartbeat(1, 6)), Err(NotSent::Full));
    // Nothing else takes an answer's place, nor an answer that of anything else.
    for number in 0..3 {
        ours.send(PeerMessage::CallRefused { number }).unwrap();
    }
    assert_eq!(ours.send(PeerMessage::CallRefused { number: 3 }), Err(NotSent::Full));
    assert_eq!(ours.dropped(), 1, "the caller of the other one is told");
    // What goes first has a bound of its own.
    for _ in 0..3 {
        ours.send(heartbeat(0, 6)).unwrap();
    }
    assert_eq!((ours.send(heartbeat(0, 6)), ours.dropped()), (Err(NotSent::Full), 2));
    let heard = taken_in(&mut theirs, Time(0), &handed_out(&mut ours)).unwrap();
    assert_eq!(heard.len(), 9);
    // One that is longer than all that may wait gets through by itself, and behind nothing.
    ours.send(append(1, 7, &payload(5000))).unwrap();
    assert_eq!(ours.send(append(1, 8, &payload(1))), Err(NotSent::Full));
    assert_eq!(taken_in(&mut theirs, Time(0), &handed_out(&mut ours)).unwrap().len(), 1);
    ours.send(append(1, 8, &payload(1))).unwrap();
    assert_eq!(ours.send(append(1, 9, &payload(5000))), Err(NotSent::Full));
    ours.send(append(1, 9, &payload(1000))).unwrap();
    assert_eq!(ours.send(append(1, 10, &payload(1000))), Err(NotSent::Full));
}

#[test]
fn a_message_that_is_too_long_is_refused_at_once() {
    let (mut ours, _) = pair(PeerBounds::PRODUCTION);
    let call = |bytes| PeerMessage::Call {
        number: 1,
        method: 1,
        clock: ClockReading::default(),
        timeout_ms: 1,
        message: Bytes::from(vec![0; bytes]),
    };
    assert_eq!(ours.send(call(40 << 20)), Err(NotSent::TooLong));
    ours.send(call((40 << 20) - 200)).unwrap();
    let text = "t".repeat(256 << 10);
    let failure = PeerMessage::Answer {
        number: 1,
        revision: Revision(4),
        control: Index(3),
        outcome: Err(CallFailure { code: 2, text }),
    };
    assert_eq!(ours.send(failure), Err(NotSent::TooLong));
    assert_eq!(ours.dropped(), 0);
}

#[test]
fn payloads_are_not_copied_but_where_they_are_short() {
    let (mut ours, _) = pair(PeerBounds::PRODUCTION);
    let shared = payload(PEER_COPIED_BYTES_MAX + 1);
    let short = payload(PEER_COPIED_BYTES_MAX);
    for payload in [&short, &shared, &short] {
        ours.send(append(1, 7, payload)).unwrap();
    }
    let mut out = vec![];
    ours.flush(&mut out);
    let begins = |chunk: &Chunk| chunk.bytes().as_ptr();
    assert_eq!(out.len(), 3, "the head and a short one, the shared one, a short one: {out:?}");
    assert_eq!(begins(&out[1]), shared.bytes().as_ptr());
    // Nor those of a message in parts.
    ours.sent(out.iter().map(|chunk| chunk.bytes().len()).sum());
    let long = payload(300_000);
    ours.send(append(1, 7, &long)).unwrap();
    out.clear();
    ours.flush(&mut out);
    let within = out.iter().filter(|chunk| long.bytes().as_ptr_range().contains(&begins(chunk)));
    assert_eq!(within.map(|chunk| chunk.bytes().len()).sum::<usize>(), 300_000);
}

#[test]
fn a_link_goes_from_one_reactor_to_another() {
    fn is_sent<T: Send>(_: &T) {}
    is_sent(&listener(PeerBounds::PRODUCTION));
    // As drawn messages arrive through it all the same.
    let (mut ours, mut theirs) = pair(PeerBounds::TINY);
    let mut rng = Rng::new(5);
    for _ in 0..200 {
        let message = draw::message(&mut rng);
        ours.send(message.clone()).unwrap();
        let mut heard = vec![];
        while heard.is_empty() {
            heard = messages(taken_in(&mut theirs, Time(0), &handed_out(&mut ours)).unwrap());
        }
        assert_eq!(heard, [message]);
    }
}
