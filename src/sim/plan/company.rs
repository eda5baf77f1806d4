//! Events that are worth little alone, and what comes with them.

use super::faults::up_to_ms;
use super::{Event, Fault, LinkFault, MemberFault, Off, OpKind, Shape, Way, What};
use crate::stdx::Rng;
use crate::types::{Duration, Time};

/// Now and then a start meets a disk that cannot be read, or one that is full.
pub(super) fn bad_starts(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0xBAD5_7A27);
    let mut events = vec![];
    let full = MemberFault::FullDisk(Duration::from_us(1 + rng.below(2_000_000)));
    for (fault, of) in [(MemberFault::UnreadableStart, 4), (full, 6)] {
        if rng.chance(1, of) {
            let member = shape.draw_member(&mut rng);
            let event = Event::draw(&mut rng, span_ms, What::Fault(Fault::Member(member, fault)));
            let kill = MemberFault::Kill { steps: rng.below(60) };
            let kill = What::Fault(Fault::Member(member, kill));
            events.push(Event { at: event.at + Duration(1), salt: rng.next_u64(), what: kill });
            events.push(event);
        }
    }
    events
}

/// An epoch that ends is worth little where nothing is under way: half of them find requests in the midst of
/// their mail.
pub(super) fn company_of_deposals(seed: u64, shape: &Shape, events: &[Event]) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0xDE90_5ED0);
    let mut company = vec![];
    for event in events {
        let What::Fault(Fault::Member(member, MemberFault::Depose)) = event.what else { continue };
        if rng.chance(1, 2) {
            continue;
        }
        let mut near = |span_us: u64, what| {
            let before = Duration::from_us(rng.below(span_us));
            let at = Time(event.at.0.saturating_sub(before.0));
            company.push(Event { at, salt: rng.next_u64(), what });
        };
        let busy_us = 2000 + 2 * shape.net_delay.0 / 1000;
        let slow = MemberFault::SlowMail(Duration::from_ms(30), Duration::from_ms(100));
        near(20_000, What::Fault(Fault::Member(member, slow)));
        for n in 0..12 {
            let op = [OpKind::Txn, OpKind::Delete, OpKind::Put, OpKind::Txn][n % 4];
            near(busy_us, What::Ask { client: n % shape.clients, op });
        }
    }
    company
}

/// A compaction is worth little where nobody reads old revisions: a third of them come in the midst of
/// transactions that do.
pub(super) fn company_of_compactions(seed: u64, shape: &Shape, events: &[Event]) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0xC0_4AC7);
    let mut company = vec![];
    let compactions = |event: &&Event| matches!(event.what, What::Ask { op: OpKind::Compact, .. });
    for event in events.iter().filter(compactions) {
        if !rng.chance(1, 3) {
            continue;
        }
        let busy_us = 3000 + 2 * shape.net_delay.0 / 1000;
        for n in 0..8 {
            let at = Time((event.at.0 + 1_000_000).saturating_sub(Duration::from_us(rng.below(busy_us)).0));
            let op = if n % 4 == 3 { OpKind::Put } else { OpKind::Txn };
            company.push(Event {
                at,
                salt: rng.next_u64(),
                what: What::Ask { client: n % shape.clients, op },
            });
        }
    }
    company
}

/// Half of the links that stall do so again and again.
pub(super) fn company_of_stalls(seed: u64, events: &[Event]) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0xF1A9);
    let mut company = vec![];
    for event in events {
        let What::Fault(Fault::Link { from, to, fault }) = event.what else { continue };
        if !matches!(fault, LinkFault::Stall(_) | LinkFault::StallBothWays(_)) || rng.chance(1, 2) {
            continue;
        }
        let both_ways = matches!(fault, LinkFault::StallBothWays(_));
        let mut at = event.at;
        for _ in 0..rng.below(8) {
            let span = up_to_ms(&mut rng, 800);
            let fault = if both_ways { LinkFault::StallBothWays(span) } else { LinkFault::Stall(span) };
            at = at + span + up_to_ms(&mut rng, 800);
            let what = What::Fault(Fault::Link { from, to, fault });
            company.push(Event { at, salt: rng.next_u64(), what });
        }
    }
    company
}

/// In a third of the clusters whoever leads is struck, and so is whoever leads then, some times in a row, while
/// clients go on asking.
pub(super) fn storm(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0x0057_0121);
    let mut events = vec![];
    if !rng.chance(1, 3) {
        return events;
    }
    let mut at = Time::from_ms(rng.below(span_ms));
    let longest_gap_ms = *rng.pick(&[200, 1500, 4000]);
    for _ in 0..2 + rng.below(6) {
        let fault = Fault::draw_of_leader(&mut rng, shape);
        events.push(Event { at, salt: rng.next_u64(), what: What::Fault(fault) });
        for n in 0..4 {
            let at = at + up_to_ms(&mut rng, longest_gap_ms);
            let op = [OpKind::Put, OpKind::Txn, OpKind::Range, OpKind::Put][n];
            let client = rng.below(shape.clients as u64) as usize;
            events.push(Event { at, salt: rng.next_u64(), what: What::Ask { client, op } });
        }
        at = at + up_to_ms(&mut rng, longest_gap_ms);
    }
    events
}

/// In an eighth of the clusters whoever leads dies while all that members say takes long: of what it has said last some
/// arrives and some does not, so that a revision may have come and one before it not. That is some times in a row.
pub(super) fn half_said(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0x0A1F_5A1D);
    let mut events = vec![];
    if !rng.chance(1, 8) {
        return events;
    }
    for _ in 0..3 {
        let begin = Time::from_ms(rng.below(span_ms));
        let mut push = |at: Time, salt, what| events.push(Event { at, salt, what });
        let members = shape.members.len();
        for (from, to) in (0..members).flat_map(|from| (0..members).map(move |to| (from, to))) {
            let fault = LinkFault::Delay(Duration::from_ms(200), Duration::from_ms(300));
            if from != to {
                push(begin, rng.next_u64(), What::Fault(Fault::Link { from, to, fault }));
            }
        }
        for n in 0..12 {
            let what = What::Ask { client: n % shape.clients, op: [OpKind::Put, OpKind::Txn][n % 2] };
            push(begin + up_to_ms(&mut rng, 80), rng.next_u64(), what);
        }
        let death = match rng.chance(1, 2) {
            true => MemberFault::Kill { steps: rng.below(60) },
            false => MemberFault::PowerLoss { steps: rng.below(60) },
        };
        let at = begin + Duration::from_ms(60) + up_to_ms(&mut rng, 100);
        push(at, rng.next_u64(), What::Fault(Fault::Leader(death)));
    }
    events
}

/// In half of the clusters members are told to end, whoever leads among them or not, while clients go on asking.
pub(super) fn stops(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0x570_9057);
    let mut events = vec![];
    if rng.chance(1, 2) {
        return events;
    }
    for _ in 0..1 + rng.below(3) {
        let fault = match rng.chance(2, 3) {
            true => Fault::Leader(MemberFault::Stop),
            false => Fault::Member(shape.draw_member(&mut rng), MemberFault::Stop),
        };
        let stop = Event::draw(&mut rng, span_ms, What::Fault(fault));
        for n in 0..8 {
            let at = Time((stop.at.0 + 30_000_000).saturating_sub(up_to_ms(&mut rng, 60).0));
            let what = What::Ask { client: n % shape.clients, op: [OpKind::Put, OpKind::Txn][n % 2] };
            events.push(Event { at, salt: rng.next_u64(), what });
        }
        events.push(stop);
    }
    events
}

/// Where the leader is cut off as it is to hand over, nobody has what it has: half of the times.
pub(super) fn company_of_moves(seed: u64, shape: &Shape, events: &[Event]) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0x307E_FA11);
    let mut company = vec![];
    let moves = |event: &&Event| matches!(event.what, What::Ask { op: OpKind::MoveLeader, .. });
    for event in events.iter().filter(moves) {
        if rng.chance(1, 2) {
            continue;
        }
        let mut before = |most_ms: u64, what| {
            let at = Time(event.at.0.saturating_sub(up_to_ms(&mut rng, most_ms).0));
            company.push(Event { at, salt: rng.next_u64(), what });
        };
        // It is still the leader when it gives up to hand over, and not for much longer.
        let span = Duration::from_ms(800);
        before(10, What::Fault(Fault::Cut { off: Off::Leader { with: 0 }, way: Way::Both, span }));
        for n in 0..4 {
            before(10, What::Ask { client: n % shape.clients, op: OpKind::Put });
        }
    }
    company
}

/// In half of the clusters somebody wants another leader, now and then, while clients go on asking.
pub(super) fn moves(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0x307E);
    let mut events = vec![];
    if rng.chance(1, 2) {
        return events;
    }
    for _ in 0..1 + rng.below(4) {
        let client = rng.below(shape.clients as u64) as usize;
        let what = What::Ask { client, op: OpKind::MoveLeader };
        let moved = Event::draw(&mut rng, span_ms, what);
        for n in 0..6 {
            let at = moved.at + up_to_ms(&mut rng, 100);
            let what = What::Ask { client: n % shape.clients, op: [OpKind::Put, OpKind::Txn][n % 2] };
            events.push(Event { at, salt: rng.next_u64(), what });
        }
        events.push(moved);
    }
    events
}
