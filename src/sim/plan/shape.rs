//! The constants of a world, members and limits among them.

use super::OPS;
use super::faults::{CLUSTER_FAULTS, FAULTS, LINK_FAULTS};
use crate::config::AutoCompaction;
use crate::limits::{BLOCK_BYTES, Bounds, EMPTY_SHARD_BYTES};
use crate::log::SegmentBytes;
use crate::sim::clock::Clock;
use crate::sim::damage::Damage;
use crate::stdx::Rng;
use crate::types::Duration;

/// The world's constants in one run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Of all members that there may ever be, in the order of their places.
    pub members: Vec<MemberShape>,
    /// How many of them found the cluster; the others may join it later.
    pub founders: usize,
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

const DISK_RESERVES_BYTES: [u64; 2] = [0, 1 << 20];
const DISK_LATENCIES_US: [u64; 4] = [1, 100, 1000, 20_000];
/// What a clock may be ahead, up to some of these: nothing, an hour, three years.
const CLOCKS_AHEAD_US: [u64; 3] = [1, 3_600_000_000, 100_000_000_000_000];
/// How far a clock may run from the world's time, either way: what a cheap quartz does.
pub const DRIFT_PPM_MAX: u64 = 200;
/// Reactors of a member that has others.
const REACTORS_OF_MANY: u16 = 3;

const USUAL: [u64; OPS.len()] = [30, 6, 14, 12, 4, 3, 4, 3, 2, 3, 4, 3, 2, 1, 1, 1, 1, 1, 1, 0];

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
    /// The shape of a seed's world with so many members.
    pub(super) fn draw_for(seed: u64, members: usize, rng: &mut Rng) -> Shape {
        let mut shape = Shape::draw(rng);
        shape.draw_members(&mut Rng::new(seed ^ 0x3E3B_0725), members);
        shape.founders = members;
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
        if members > 1 && Rng::new(seed ^ 0x9EE5).chance(1, 3) {
            shape.bounds.peer = Bounds::TINY.peer;
            // There is a place for each shard's message.
            let (peer, places) = (&mut shape.bounds.peer, shape.shards + 1);
            peer.queued_messages_max = peer.queued_messages_max.max(places);
            peer.queued_bytes_max = peer.queued_bytes_max.max(places * 200);
        }
        // Who is away for a moment lacks what no log has any more. By small messages over a slow network the state comes
        // to nobody in a client's time.
        let takes_long = shape.bounds.peer == Bounds::TINY.peer && shape.net_delay > Duration::from_ms(1);
        if members > 1 && !takes_long && Rng::new(seed ^ 0x1A66).chance(1, 3) {
            (shape.bounds.held_bytes_max, shape.bounds.laggard_log_bytes_max) = (0, 0);
            shape.bounds.paced_log_bytes = Bounds::TINY.paced_log_bytes;
            shape.bounds.paced_bytes_per_sec = Bounds::TINY.paced_bytes_per_sec;
        }
        shape.bounds.assert_fit();
        shape
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
            founders: 1,
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

impl Shape {
    /// Whether a file of a log holds all that a start writes, and beside it what a checkpoint of all shards takes.
    /// Where another number of reactors may come up, nobody has kept anything for them.
    pub fn begins_on_a_full_disk(&self) -> bool {
        let plain = self.quota_bytes.is_none() && self.auto_compaction == AutoCompaction::Off;
        let resizes = self.members.iter().any(|member| member.resizes);
        self.segments.least >= 32 * BLOCK_BYTES && self.shards <= 6 && !resizes && plain
    }

    /// Whether members come and go.
    pub fn changes(&self) -> bool {
        self.founders < self.members.len()
    }

    /// So many have founded the cluster, and others come to it. They are given states, which must not take too long.
    pub(super) fn let_members_come(&mut self, founders: usize) {
        self.founders = founders;
        if self.net_delay > Duration::from_ms(1) {
            self.bounds.peer = Bounds::PRODUCTION.peer;
        }
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
    pub(super) fn fault_kinds(&self) -> u64 {
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
            || bounds.peer.queued_messages_max < usual.peer.queued_messages_max
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
        // Without a draw of its own, which would make every seed another run.
        if rng.clone().chance(1, 2) {
            bounds.behind_entries_max = tiny.behind_entries_max;
        }
    }
}
