mod bad_input;
mod draw;
mod format;
mod link;

use super::*;
use crate::limits::PeerBounds;
use crate::record::Chunk;
use crate::stdx::Rng;
use crate::types::{ClusterId, Duration, MemberId, ReactorId, StoreId, Time};

const TIMES: LinkTimes = LinkTimes { heartbeat: Duration::from_ms(100), election: Duration::from_ms(1000) };

fn introduction(member: u64) -> Introduction {
    Introduction {
        cluster: ClusterId(0xc1),
        member: MemberId(member),
        directory: StoreId(0xd0 + member),
        boot: 0xb0 + member,
        reactors: member as u16 + 1,
        feature_level: 1,
        founding: Some(Founding { shards: 5, map: 0x3a9, is_set: true }),
    }
}

/// Member 2 dials member 1.
fn hello() -> Hello {
    let (kind, from_reactor, to_reactor) = (LinkKind::Groups, ReactorId(2), ReactorId(1));
    Hello { from: introduction(2), to: MemberId(1), kind, from_reactor, to_reactor }
}

fn dialer(bounds: PeerBounds) -> Link {
    Link::dial(Time(0), hello(), TIMES, bounds)
}

fn listener(bounds: PeerBounds) -> Link {
    Link::accept(Time(0), introduction(1), TIMES, bounds)
}

/// All that a link hands out now, as bytes; the kernel takes it at once.
fn handed_out(link: &mut Link) -> Vec<u8> {
    let mut out: Vec<Chunk> = vec![];
    link.flush(&mut out);
    let bytes: Vec<u8> = out.iter().flat_map(|chunk| chunk.bytes().to_vec()).collect();
    link.sent(bytes.len());
    bytes
}

fn taken_in(link: &mut Link, now: Time, bytes: &[u8]) -> Result<Vec<LinkEvent>, LinkError> {
    let mut events = vec![];
    link.receive(now, bytes, &mut events).map(|()| events)
}

/// What comes of bytes in any cuts.
fn taken_in_cuts(link: &mut Link, bytes: &[u8], rng: &mut Rng) -> Vec<LinkEvent> {
    let (mut rest, mut events) = (bytes, vec![]);
    while !rest.is_empty() {
        let most = *rng.pick(&[1, 60, 1000, 20_000, 500_000]);
        let (part, behind) = rest.split_at(rest.len().min(1 + rng.below(most) as usize));
        link.receive(Time(0), part, &mut events).unwrap();
        rest = behind;
    }
    events
}

/// Both ends of a link that is up: the dialer's and the listener's.
fn pair(bounds: PeerBounds) -> (Link, Link) {
    let (mut ours, mut theirs) = (dialer(bounds), listener(bounds));
    let said = handed_out(&mut ours);
    assert_eq!(taken_in(&mut theirs, Time(0), &said), Ok(vec![LinkEvent::Hello(hello())]));
    theirs.answer(Time(0));
    let said = handed_out(&mut theirs);
    let answer = hello().answer(introduction(1));
    assert_eq!(taken_in(&mut ours, Time(0), &said), Ok(vec![LinkEvent::Hello(answer)]));
    assert!(ours.is_up() && theirs.is_up());
    (ours, theirs)
}
