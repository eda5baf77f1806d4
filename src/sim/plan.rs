//! What one seed stands for: the members and their shapes, what goes wrong, and what clients do, as a list of events.
//!
//! Everything is drawn before anything runs, each event with a number of its own to draw from, so that
//! leaving some out does not change the others: that is how a failing run is made small.

mod changes;
mod company;
mod faults;
mod shape;

pub use changes::{Change, NEWCOMERS, OPERATORS, Start, Then, Who};
pub use faults::{Fault, LinkFault, MemberFault, Off, SLOW_MAIL_MAX, Way};
pub use shape::{DRIFT_PPM_MAX, MemberShape, Shape};

use crate::config::AutoCompaction;
use crate::stdx::Rng;
use crate::types::{Duration, Time};

/// A run, fully determined.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shape: Shape,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub at: Time,
    /// What the event draws from.
    pub salt: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Ask {
        client: usize,
        op: OpKind,
    },
    Fault(Fault),
    /// An operator wants this next.
    Change {
        operator: usize,
        change: Change,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    Put,
    Delete,
    Txn,
    Range,
    RangeStream,
    Compact,
    Grant,
    KeepAlive,
    Revoke,
    TimeToLive,
    Watch,
    WatchMore,
    HashKv,
    Status,
    Alarms,
    Leases,
    Members,
    Hash,
    Defragment,
    Disarm,
    /// Only where there are several members.
    MoveLeader,
}

pub const OPS: [OpKind; 20] = [
    OpKind::Put,
    OpKind::Delete,
    OpKind::Txn,
    OpKind::Range,
    OpKind::RangeStream,
    OpKind::Compact,
    OpKind::Grant,
    OpKind::KeepAlive,
    OpKind::Revoke,
    OpKind::TimeToLive,
    OpKind::Watch,
    OpKind::WatchMore,
    OpKind::HashKv,
    OpKind::Status,
    OpKind::Alarms,
    OpKind::Leases,
    OpKind::Members,
    OpKind::Hash,
    OpKind::Defragment,
    OpKind::Disarm,
];

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        Plan::draw_for(seed, 1)
    }

    /// A run of so many members.
    pub fn draw_for(seed: u64, members: usize) -> Plan {
        let mut rng = Rng::new(seed ^ 0x5EED);
        let shape = Shape::draw_for(seed, members, &mut rng);
        Plan::draw_of(seed, shape, rng)
    }

    /// A run of a cluster that so many members found, and in which others come and go.
    pub fn draw_changing(seed: u64, founders: usize) -> Plan {
        let mut rng = Rng::new(seed ^ 0x5EED);
        let mut shape = Shape::draw_for(seed, founders + NEWCOMERS, &mut rng);
        shape.let_members_come(founders);
        Plan::draw_of(seed, shape, rng)
    }

    fn draw_of(seed: u64, shape: Shape, mut rng: Rng) -> Plan {
        let members = shape.members.len();
        let mut span_ms = 200 + rng.below(6000);
        if members > 1 {
            // Elections take their time.
            span_ms = 2000 + 2 * span_ms;
        }
        if shape.changes() {
            // Who just came counts for a strict reconfiguration only after a while.
            span_ms += 8000;
        }
        let mut events = vec![];
        for _ in 0..50 + rng.below(250) {
            let what = What::Ask {
                client: rng.below(shape.clients as u64) as usize,
                op: weighted(&mut rng, &shape.weights),
            };
            events.push(Event::draw(&mut rng, span_ms, what));
        }
        let kinds: Vec<u64> = (0..shape.fault_kinds()).filter(|_| rng.chance(2, 5)).collect();
        if !kinds.is_empty() {
            // More would leave a cluster no time to serve in.
            let of_each = if members > 1 { 2 } else { 4 };
            for _ in 0..rng.below(1 + kinds.len() as u64 * of_each) {
                let kind = *rng.pick(&kinds);
                let fault = Fault::draw(&mut rng, kind, &shape);
                let event = Event::draw(&mut rng, span_ms, What::Fault(fault));
                // Crashes like company: the recovery is what the next one hits.
                if let Some(member) = fault.ends_process_of()
                    && rng.chance(1, 4)
                {
                    let fault = Fault::Member(member, MemberFault::draw(&mut rng, kind));
                    let at = event.at + Duration::from_us(rng.below(20_000));
                    events.push(Event { at, salt: rng.next_u64(), what: What::Fault(fault) });
                }
                events.push(event);
            }
        }
        events.extend(company::company_of_deposals(seed, &shape, &events));
        events.extend(company::company_of_compactions(seed, &shape, &events));
        if members > 1 {
            events.extend(company::company_of_stalls(seed, &events));
            events.extend(company::storm(seed, &shape, span_ms));
            events.extend(company::half_said(seed, &shape, span_ms));
            events.extend(company::moves(seed, &shape, span_ms));
            events.extend(company::company_of_moves(seed, &shape, &events));
            events.extend(company::stops(seed, &shape, span_ms));
        }
        if shape.changes() {
            events.extend(changes::changes(seed, &shape, span_ms));
        }
        if members > 1 {
            // Some runs ask and suffer nothing before there is a leader.
            let begin = Duration::from_ms(*Rng::new(seed ^ 0xBE61).pick(&[0, 2500, 2500, 4000]));
            events.iter_mut().for_each(|event| event.at = event.at + begin);
        }
        if shape.auto_compaction != AutoCompaction::Off {
            // Nobody asks whether the observer has seen what goes: it must not stand still for long.
            for event in &mut events {
                if let What::Fault(Fault::Member(_, MemberFault::Pause(span))) = &mut event.what {
                    *span = (*span).min(Duration::from_ms(50));
                }
            }
        }
        events.sort_by_key(|event| event.at);
        events.extend(company::bad_starts(seed, &shape, span_ms));
        Plan { seed, shape, events }
    }

    /// The events as they happen; their numbers are their places in the list.
    pub fn in_order(&self) -> Vec<&Event> {
        let mut events: Vec<&Event> = self.events.iter().collect();
        events.sort_by_key(|event| event.at);
        events
    }

    /// Leaves out all events but these, by their numbers.
    pub fn keep(&mut self, wanted: &[usize]) {
        let mut number = 0;
        self.events.retain(|_| {
            number += 1;
            wanted.contains(&(number - 1))
        });
    }
}

impl Event {
    fn draw(rng: &mut Rng, span_ms: u64, what: What) -> Event {
        Event { at: Time(rng.below(span_ms * 1_000_000)), salt: rng.next_u64(), what }
    }
}

fn weighted(rng: &mut Rng, weights: &[u64; OPS.len()]) -> OpKind {
    let mut at = rng.below(weights.iter().sum());
    for (op, weight) in OPS.iter().zip(weights) {
        match at.checked_sub(*weight) {
            Some(rest) => at = rest,
            None => return *op,
        }
    }
    unreachable!("the sum bounds the draw")
}
