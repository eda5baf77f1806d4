//! What one seed stands for: the members and their shapes, what goes wrong, and what clients do, as a list of events.
//!
//! Everything is drawn before anything runs, each event with a number of its own to draw from, so that
//! leaving some out does not change the others: that is how a failing run is made small.

use super::clock::Clock;
use super::damage::Damage;
use crate::config::AutoCompaction;
use crate::limits::{BLOCK_BYTES, Bounds, EMPTY_SHARD_BYTES};
use crate::log::SegmentBytes;
use crate::stdx::Rng;
use crate::types::{Duration, Time};

/// A run, fully determined.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shape: Shape,
    pub events: Vec<Event>,
}

/// The world's constants in one run.
#[derive(Clone, Debug)]
pub struct Shape {
    pub members: Vec<MemberShape>,
    pub shards: usize,
    pub clients: usize,
    pub segments: SegmentBytes,
    pub checkpoint_log_bytes: u64,
    /// Revisions unsettled at a time.
    pub ring: usize,
    /// The longest way of a mail, and of bytes between a client and a member or two members.
    pub mail_delay: Duration,
    pub net_delay: Duration,
    /// How large an entry of a group may be before a turn's writes, or one write's changes, are cut.
    pub entry_bytes: usize,
    /// Keys that one slice of long work looks at.
    pub slice_keys: usize,
    pub bounds: Bounds,
    pub quota_bytes: Option<u64>,
    pub auto_compaction: AutoCompaction,
    /// Values up to this long; now and then one is much longer.
    pub value_bytes: u64,
    /// HTTP/2 window of clients' streams.
    pub window_bytes: u32,
    /// What the files of a member suffer at the end.
    pub damage: Damage,
    pub weights: [u64; OPS.len()],
}

/// What may differ from member to member.
#[derive(Clone, Copy, Debug)]
pub struct MemberShape {
    pub reactors: u16,
    /// Whether another number of reactors may come up after a restart.
    pub resizes: bool,
    /// The longest time of a disk operation.
    pub disk_latency: Duration,
    pub disk_reserve_bytes: u64,
    pub clock: Clock,
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
    Ask { client: usize, op: OpKind },
    Fault(Fault),
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
const USUAL: [u64; OPS.len()] = [30, 6, 14, 12, 4, 3, 4, 3, 2, 3, 4, 3, 2, 1, 1, 1, 1, 1, 1, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault of the member at this place.
    Member(usize, MemberFault),
    /// A fault of whoever leads then.
    Leader(MemberFault),
    /// A fault of the link from one member to another.
    Link {
        from: usize,
        to: usize,
        fault: LinkFault,
    },
    /// Some members and all others are cut off from each other for so long.
    Cut {
        off: Off,
        way: Way,
        span: Duration,
    },
    /// The world's time jumps, and with it all clocks.
    Jump(Duration),
    /// A client stops reading.
    Stall {
        client: usize,
        span: Duration,
    },
    Disconnect {
        client: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// The members at these places, a bit for each.
    Places(u64),
    /// Whoever leads then, and so many others with it.
    Leader { with: usize },
}

/// In which direction nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Both,
    /// Who is cut off hears nothing.
    In,
    /// Nobody hears who is cut off.
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// One of the connections of the two members breaks, or all of them.
    BreakOne,
    BreakAll,
    /// Nothing arrives for so long.
    Stall(Duration),
    /// Nor on the way back.
    StallBothWays(Duration),
    /// What is sent takes up to so long, for so long.
    Delay(Duration, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberFault {
    /// The process dies, after so many more of its steps.
    Kill {
        steps: u64,
    },
    PowerLoss {
        steps: u64,
    },
    /// Every operation takes up to so long, for so long.
    SlowDisk(Duration, Duration),
    HungDisk(Duration),
    FullDisk(Duration),
    /// All operations fail; the device comes back later.
    DeadDisk(Duration),
    /// So many steps of the bulk lane fail, which the process outlives.
    FailedSteps(u64),
    /// One of its reactors stands still.
    Pause(Duration),
    /// All of them do, and its clock goes on.
    Freeze(Duration),
    Depose,
    /// Mail between one pair of reactors takes up to so long, for so long.
    SlowMail(Duration, Duration),
    /// The next start meets an error of reading.
    UnreadableStart,
}

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        Plan::draw_for(seed, 1)
    }

    /// A run of so many members.
    pub fn draw_for(seed: u64, members: usize) -> Plan {
        let mut rng = Rng::new(seed ^ 0x5EED);
        let mut shape = Shape::draw(&mut rng);
        shape.draw_members(&mut Rng::new(seed ^ 0x3E3B_0725), members);
        // More than the sequencer's ring tells apart.
        if Rng::new(seed ^ 0x0040).chance(1, 60) {
            shape.shards = 66;
        }
        if Rng::new(seed ^ 0x0C07).chance(1, 3) {
            shape.entry_bytes = 200;
        }
        if Rng::new(seed ^ 0x511C).chance(1, 3) {
            shape.slice_keys = 1;
        }
        if shape.damage != Damage::Rot {
            shape.damage = *Rng::new(seed ^ 0xDA3A6E).pick(&Damage::OTHERS);
        }
        shape.draw_bounds(&mut Rng::new(seed ^ 0xB0DD));
        shape.draw_refusals(&mut Rng::new(seed ^ 0x4EF5));
        // Most runs have none of these, so that what others show is not hidden by their waiting.
        let mut of_clients = Rng::new(seed ^ 0xF407);
        if of_clients.chance(1, 4) {
            shape.draw_front(&mut of_clients);
            shape.draw_http2(&mut of_clients);
        }
        shape.bounds.assert_fit();
        let mut span_ms = 200 + rng.below(6000);
        if members > 1 {
            // Elections take their time.
            span_ms = 2000 + 2 * span_ms;
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
        events.extend(company_of_deposals(seed, &shape, &events));
        events.extend(company_of_compactions(seed, &shape, &events));
        if members > 1 {
            events.extend(company_of_stalls(seed, &events));
            events.extend(storm(seed, &shape, span_ms));
            events.extend(moves(seed, &shape, span_ms));
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
        events.extend(bad_starts(seed, &shape, span_ms));
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

/// Now and then a start meets a disk that cannot be read, or one that is full.
fn bad_starts(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
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
fn company_of_deposals(seed: u64, shape: &Shape, events: &[Event]) -> Vec<Event> {
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

const DISK_RESERVES_BYTES: [u64; 2] = [0, 1 << 20];
const DISK_LATENCIES_US: [u64; 4] = [1, 100, 1000, 20_000];
/// What a clock may be ahead, up to some of these: nothing, an hour, three years.
const CLOCKS_AHEAD_US: [u64; 3] = [1, 3_600_000_000, 100_000_000_000_000];
/// How far a clock may run from the world's time, either way: what a cheap quartz does.
pub const DRIFT_PPM_MAX: u64 = 200;

impl MemberShape {
    fn draw(rng: &mut Rng) -> MemberShape {
        MemberShape {
            reactors: 1 + rng.below(4) as u16,
            resizes: rng.chance(1, 2),
            disk_latency: Duration::from_us(*rng.pick(&DISK_LATENCIES_US)),
            disk_reserve_bytes: *rng.pick(&DISK_RESERVES_BYTES),
            clock: Clock::default(),
        }
    }
}

impl Shape {
    fn draw(rng: &mut Rng) -> Shape {
        let mut weights = USUAL;
        for weight in &mut weights {
            *weight = match rng.below(6) {
                0 => 0,
                1 => *weight * 4,
                _ => *weight,
            };
        }
        weights[0] = weights[0].max(5);
        weights[OPS.len() - 1] = 1;
        let value_bytes = *rng.pick(&[1, 40, 300, 800, 2500]);
        let least = 4096 * if value_bytes > 1000 { 96 } else { *rng.pick(&[4, 16, 32]) };
        let segments = SegmentBytes { least, most: least * *rng.pick(&[1, 2, 8]) };
        let reactors = 1 + rng.below(4) as u16;
        let (shards, clients) = (1 + rng.below(6) as usize, 1 + rng.below(4) as usize);
        let disk_reserve_bytes = *rng.pick(&DISK_RESERVES_BYTES);
        let checkpoint_log_bytes = least as u64 * rng.below(5);
        let ring = *rng.pick(&[8, 64, 1024]);
        let mail_delay = Duration::from_us(*rng.pick(&[0, 5, 50, 2000]));
        let net_delay = Duration::from_us(*rng.pick(&[1, 50, 500, 20_000]));
        let disk_latency = Duration::from_us(*rng.pick(&DISK_LATENCIES_US));
        let window_bytes = *rng.pick(&[1 << 20, 1 << 20, 65_535, 4000]);
        let resizes = rng.chance(1, 2);
        let clock = Clock::default();
        Shape {
            members: vec![MemberShape { reactors, resizes, disk_latency, disk_reserve_bytes, clock }],
            shards,
            clients,
            segments,
            checkpoint_log_bytes,
            ring,
            mail_delay,
            net_delay,
            entry_bytes: crate::limits::ENTRY_BYTES_MAX,
            slice_keys: crate::limits::READ_SLICE_KEYS,
            bounds: Bounds::PRODUCTION,
            quota_bytes: None,
            auto_compaction: AutoCompaction::Off,
            value_bytes,
            window_bytes,
            damage: if rng.chance(1, 4) { Damage::Rot } else { Damage::TailLost },
            weights,
        }
    }
}

/// Half of the links that stall do so again and again.
fn company_of_stalls(seed: u64, events: &[Event]) -> Vec<Event> {
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
fn storm(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
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

/// In half of the clusters somebody wants another leader, now and then, while clients go on asking.
fn moves(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
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

/// A compaction is worth little where nobody reads old revisions: a third of them come in the midst of
/// transactions that do.
fn company_of_compactions(seed: u64, shape: &Shape, events: &[Event]) -> Vec<Event> {
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

impl Shape {
    /// Whether a file of a log holds all that a start writes, and beside it what a checkpoint of all shards takes.
    /// Where another number of reactors may come up, nobody has kept anything for them.
    pub fn begins_on_a_full_disk(&self) -> bool {
        let plain = self.quota_bytes.is_none() && self.auto_compaction == AutoCompaction::Off;
        let resizes = self.members.iter().any(|member| member.resizes);
        self.segments.least >= 32 * BLOCK_BYTES && self.shards <= 6 && !resizes && plain
    }

    /// One of the members. Nothing is drawn where there is only one.
    pub fn draw_member(&self, rng: &mut Rng) -> usize {
        if self.members.len() == 1 { 0 } else { rng.below(self.members.len() as u64) as usize }
    }

    /// All members but the first, and all clocks: each shows a time of its own, and those of several members part.
    fn draw_members(&mut self, rng: &mut Rng, members: usize) {
        self.members.extend((1..members).map(|_| MemberShape::draw(rng)));
        if members > 1 {
            self.members
                .iter_mut()
                .for_each(|member| member.reactors = member.reactors.min(REACTORS_OF_MANY));
        }
        for member in &mut self.members {
            let most = *rng.pick(&CLOCKS_AHEAD_US);
            member.clock.ahead = Duration::from_us(rng.below(most));
            if members > 1 {
                member.clock.drift_ppm = rng.below(2 * DRIFT_PPM_MAX + 1) as i32 - DRIFT_PPM_MAX as i32;
            }
        }
    }

    /// How many kinds of faults there are: some befall only several members.
    fn fault_kinds(&self) -> u64 {
        FAULTS + if self.members.len() > 1 { LINK_FAULTS + CLUSTER_FAULTS } else { 0 }
    }

    /// How many reactors come up where another number may than before.
    pub fn draw_reactors(&self, rng: &mut Rng) -> u16 {
        let most = if self.members.len() > 1 { REACTORS_OF_MANY } else { 4 };
        1 + rng.below(most.into()) as u16
    }

    /// Whether some limit is so small that honest clients are told to come again.
    pub fn refuses(&self) -> bool {
        let (bounds, usual) = (&self.bounds, &Bounds::PRODUCTION);
        bounds.waiting_max < usual.waiting_max
            || bounds.control_pending_max < usual.control_pending_max
            || bounds.control_waiting_max < usual.control_waiting_max
            || bounds.parked_calls_max < usual.parked_calls_max
            || bounds.parked_bytes_max < usual.parked_bytes_max
            || bounds.calls_bytes_max < usual.calls_bytes_max
            || bounds.front.lists_waiting_max < usual.front.lists_waiting_max
            || bounds.front.answers_bytes_max < usual.front.answers_bytes_max
    }

    /// Limits on requests and data, which clients hear of.
    fn draw_refusals(&mut self, rng: &mut Rng) {
        let (tiny, bounds) = (Bounds::TINY, &mut self.bounds);
        if rng.chance(1, 5) {
            let drawn: [(&mut usize, usize); 5] = [
                (&mut bounds.waiting_max, tiny.waiting_max),
                (&mut bounds.control_pending_max, tiny.control_pending_max),
                (&mut bounds.control_waiting_max, tiny.control_waiting_max),
                (&mut bounds.parked_calls_max, tiny.parked_calls_max),
                (&mut bounds.calls_bytes_max, tiny.calls_bytes_max),
            ];
            for (bound, tiny) in drawn {
                if rng.chance(1, 2) {
                    *bound = tiny;
                }
            }
        }
        if rng.chance(1, 5) {
            let empty = EMPTY_SHARD_BYTES * (self.shards as u64 + 1);
            self.quota_bytes = Some(empty + 12_000 + rng.below(30_000));
            bounds.sizes_step_bytes = tiny.sizes_step_bytes;
        }
        if rng.chance(1, 6) {
            bounds.auto_compaction_revisions_ms = tiny.auto_compaction_revisions_ms;
            self.auto_compaction = match rng.below(2) {
                0 => AutoCompaction::Periodic(Duration::from_secs(5)),
                _ => AutoCompaction::Revisions(60 + rng.below(40)),
            };
        }
    }

    /// What the front holds and writes, and how long it waits for readers.
    fn draw_front(&mut self, rng: &mut Rng) {
        let (tiny, front) = (Bounds::TINY.front, &mut self.bounds.front);
        self.bounds.watch.catch_up_watchers = Bounds::TINY.watch.catch_up_watchers;
        if rng.chance(1, 2) {
            front.long_message_bytes = tiny.long_message_bytes;
        }
        if rng.chance(1, 2) {
            front.long_bytes_per_turn = tiny.long_bytes_per_turn;
            front.long_packed_bytes_per_turn = tiny.long_packed_bytes_per_turn;
            front.long_elements_per_turn = tiny.long_elements_per_turn;
        }
        if rng.chance(1, 2) {
            front.unsent_bytes_max = tiny.unsent_bytes_max;
        }
        // Little is held, and for long, as little of it goes at a time.
        if rng.chance(2, 3) {
            front.long_message_bytes = tiny.long_message_bytes;
            self.bounds.http2.stream_pending_bytes = Bounds::TINY.http2.stream_pending_bytes;
            front.connection_lists_bytes_max = tiny.connection_lists_bytes_max;
            front.connection_lists_bytes_min = tiny.connection_lists_bytes_min;
            front.lists_bytes_max = tiny.lists_bytes_max;
            front.answer_bytes_min = tiny.answer_bytes_min;
        }
        if rng.chance(1, 3) {
            front.lists_waiting_max = tiny.lists_waiting_max;
            front.lists_waiting_bytes_max = tiny.lists_waiting_bytes_max;
        }
        if rng.chance(1, 3) {
            front.answers_bytes_max = tiny.answers_bytes_max;
            front.connection_answers_bytes_min = tiny.connection_answers_bytes_min;
            front.answer_bytes_min = tiny.answer_bytes_min;
        }
        if rng.chance(1, 2) {
            front.reader_check_ms = tiny.reader_check_ms;
            front.reader_checks_max = tiny.reader_checks_max;
        }
        if rng.chance(1, 3) {
            self.bounds.parked_bytes_max = Bounds::TINY.parked_bytes_max;
        }
    }

    /// What the server's end of a connection has waiting, and what its clients have to make do with. They are
    /// honest: however little is allowed, they stay below it.
    fn draw_http2(&mut self, rng: &mut Rng) {
        let (tiny, http2) = (Bounds::TINY.http2, &mut self.bounds.http2);
        if rng.chance(1, 2) {
            http2.stream_window_bytes = tiny.stream_window_bytes;
            http2.connection_window_bytes = tiny.connection_window_bytes;
        }
        if rng.chance(1, 2) {
            http2.output_bytes = tiny.output_bytes;
        }
        if rng.chance(1, 2) {
            http2.remembered_blocks = tiny.remembered_blocks;
            http2.remembered_block_bytes = tiny.remembered_block_bytes;
            http2.remembered_head_bytes = tiny.remembered_head_bytes;
        }
        if rng.chance(1, 2) {
            (http2.block_bytes_max, http2.block_frames_max) = (tiny.block_bytes_max, tiny.block_frames_max);
        }
    }

    /// Each limit as in production, or so small that the run reaches it.
    fn draw_bounds(&mut self, rng: &mut Rng) {
        let (tiny, bounds) = (Bounds::TINY, &mut self.bounds);
        // A write of the log has to take an entry whole, and an entry a change.
        if rng.chance(1, 2) && self.entry_bytes < Bounds::TINY.log_write_bytes_max {
            bounds.log_write_bytes_max = tiny.log_write_bytes_max;
        }
        let (watch, tiny_watch) = (&mut bounds.watch, tiny.watch);
        if rng.chance(1, 2) {
            watch.stream_credit_bytes = tiny_watch.stream_credit_bytes;
            watch.credit_bytes_min = tiny_watch.credit_bytes_min;
            watch.credit_bytes_max = tiny_watch.credit_bytes_max;
        }
        let drawn: [(&mut usize, usize); 14] = [
            (&mut bounds.log_behind_bytes_max, tiny.log_behind_bytes_max),
            (&mut bounds.delete_list_max, tiny.delete_list_max),
            (&mut watch.reply_revisions_max, tiny_watch.reply_revisions_max),
            (&mut watch.reply_bytes_max, tiny_watch.reply_bytes_max),
            (&mut watch.fragment_bytes_max, tiny_watch.fragment_bytes_max),
            (&mut watch.merge_events, tiny_watch.merge_events),
            (&mut bounds.turn_effect_bytes_max, tiny.turn_effect_bytes_max),
            (&mut bounds.slices_per_turn, tiny.slices_per_turn),
            (&mut bounds.compact_slice_keys, tiny.compact_slice_keys),
            (&mut bounds.checkpoint_step_blocks, tiny.checkpoint_step_blocks),
            (&mut bounds.checkpoint_chain_files_max, tiny.checkpoint_chain_files_max),
            (&mut bounds.reads_bytes_max, tiny.reads_bytes_max),
            (&mut watch.answers_max, tiny_watch.answers_max),
            (&mut bounds.keep_alives_max, tiny.keep_alives_max),
        ];
        for (bound, tiny) in drawn {
            if rng.chance(1, 3) {
                *bound = tiny;
            }
        }
        if rng.chance(1, 2) {
            bounds.sizes_step_bytes = tiny.sizes_step_bytes;
        }
    }
}

impl Event {
    fn draw(rng: &mut Rng, span_ms: u64, what: What) -> Event {
        Event { at: Time(rng.below(span_ms * 1_000_000)), salt: rng.next_u64(), what }
    }
}

/// Kinds of faults: of a member, of links, and of several members.
const FAULTS: u64 = 15;
const LINK_FAULTS: u64 = 5;
const CLUSTER_FAULTS: u64 = 4;
const LINKS: u64 = FAULTS + LINK_FAULTS;
const FREEZE: u64 = LINKS + 1;
/// Reactors of a member that has others.
const REACTORS_OF_MANY: u16 = 3;
/// The longest way of a mail, ever.
pub const SLOW_MAIL_MAX: Duration = Duration::from_ms(400);

impl Fault {
    fn draw(rng: &mut Rng, kind: u64, shape: &Shape) -> Fault {
        let client = |rng: &mut Rng| rng.below(shape.clients as u64) as usize;
        match kind {
            6 => Fault::Jump(up_to_ms(rng, if shape.members.len() > 1 { 2500 } else { 8000 })),
            10 => Fault::Stall { client: client(rng), span: up_to_ms(rng, 4000) },
            11 => Fault::Disconnect { client: client(rng) },
            // Where there are others, messages depose.
            8 if shape.members.len() > 1 => Fault::Leader(MemberFault::Freeze(up_to_ms(rng, 3000))),
            0..FAULTS => Fault::Member(shape.draw_member(rng), MemberFault::draw(rng, kind)),
            FAULTS..LINKS => {
                let from = shape.draw_member(rng);
                let to =
                    (from + 1 + rng.below(shape.members.len() as u64 - 1) as usize) % shape.members.len();
                Fault::Link { from, to, fault: LinkFault::draw(rng, kind - FAULTS) }
            }
            LINKS => {
                let off = Off::Places(1 + rng.below((1 << shape.members.len()) - 2));
                Fault::Cut { off, way: Way::draw(rng), span: up_to_ms(rng, 4000) }
            }
            FREEZE => {
                let longest_ms = *rng.pick(&[300, 5000]);
                let span = up_to_ms(rng, longest_ms);
                Fault::Member(shape.draw_member(rng), MemberFault::Freeze(span))
            }
            _ => Fault::draw_of_leader(rng, shape),
        }
    }

    /// What strikes whoever leads.
    fn draw_of_leader(rng: &mut Rng, shape: &Shape) -> Fault {
        match rng.below(8) {
            0..4 => {
                let with = rng.below(shape.members.len() as u64 / 2) as usize;
                Fault::Cut { off: Off::Leader { with }, way: Way::draw(rng), span: up_to_ms(rng, 4000) }
            }
            4 => Fault::Leader(MemberFault::Freeze(up_to_ms(rng, 4000))),
            5 => Fault::Leader(MemberFault::Kill { steps: rng.below(60) }),
            6 => Fault::Leader(MemberFault::PowerLoss { steps: rng.below(60) }),
            _ => Fault::Leader(MemberFault::HungDisk(up_to_ms(rng, 4000))),
        }
    }

    /// The member whose process dies.
    fn ends_process_of(&self) -> Option<usize> {
        match self {
            Fault::Member(member, MemberFault::Kill { .. } | MemberFault::PowerLoss { .. }) => Some(*member),
            _ => None,
        }
    }
}

impl Way {
    fn draw(rng: &mut Rng) -> Way {
        *rng.pick(&[Way::Both, Way::Both, Way::In, Way::Out])
    }
}

impl LinkFault {
    fn draw(rng: &mut Rng, kind: u64) -> LinkFault {
        match kind {
            0 => LinkFault::BreakOne,
            1 => LinkFault::BreakAll,
            2 => LinkFault::Stall(up_to_ms(rng, 3000)),
            3 => LinkFault::StallBothWays(up_to_ms(rng, 3000)),
            _ => LinkFault::Delay(up_to_ms(rng, 500), up_to_ms(rng, 2000)),
        }
    }
}

impl MemberFault {
    fn draw(rng: &mut Rng, kind: u64) -> MemberFault {
        match kind {
            0 => MemberFault::Kill { steps: rng.below(60) },
            1 | 12 | 13 => MemberFault::PowerLoss { steps: rng.below(60) },
            2 => MemberFault::SlowDisk(up_to_ms(rng, 300), up_to_ms(rng, 2000)),
            3 => MemberFault::HungDisk(up_to_ms(rng, 12_000)),
            4 => MemberFault::FullDisk(up_to_ms(rng, 2000)),
            5 => MemberFault::DeadDisk(up_to_ms(rng, 1000)),
            7 => MemberFault::Pause(if rng.chance(1, 4) { up_to_ms(rng, 9000) } else { up_to_ms(rng, 50) }),
            8 => MemberFault::Depose,
            9 => MemberFault::SlowMail(up_to_ms(rng, SLOW_MAIL_MAX.0 / 1_000_000), up_to_ms(rng, 2000)),
            14 => MemberFault::FailedSteps(1 + rng.below(4)),
            _ => unreachable!("kind {kind} is no member's"),
        }
    }
}

fn up_to_ms(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_us(1 + rng.below(most * 1000))
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
