//! One thread's whole database: its connections, its shards, its log.
//!
//! [`Reactor::step`] takes one input, [`Reactor::flush`] ends the turn: one Raft entry per shard, one log write, one
//! send per connection. What a reactor has is in seven parts, each of which owns its fields: `calls` is the
//! clients' side, `shards` the owner's side, `storage` what is on disk, `leader` what only the leader has,
//! `epoch` the takeover and who leads, `peers` the links to other members, `rounds` the asking who leads still.
//! They are lent a `turn::Turn` and speak by mail, to each other as to other reactors. `Reactor` routes: it alone
//! is handed the whole, and what takes more than one part stands here, in `effects`, `cluster`,
//! `leaving`, `members` and `rest`.

mod book;
mod calls;
mod cluster;
mod control_effects;
mod effects;
mod epoch;
mod epoch_state;
mod gate;
mod leader;
mod leaving;
mod members;
mod pace;
mod peers;
mod picture;
mod requests;
mod rest;
mod rounds;
mod settings;
mod shards;
mod sizes;
mod storage;
mod turn;
mod waiters;

#[cfg(test)]
mod tests;

pub use pace::Observing;
pub use settings::{Boot, Founder, Settings};
pub use storage::{AtStart, at_start};

use crate::api::{Alarm, AlarmType};
use crate::io::{
    Body, CallId, CallMail, Census, EpochMail, Input, LeaderMail, Mail, MemberMail, Output, Paths, Port,
    ProcessFigures, ReactorCounters, ShardMail,
};
use crate::log::Resident;
use crate::stdx::Rng;
use crate::types::{ChangeNumber, Duration, Epoch, Index, ReactorId, Revision, ShardId, Time};
use calls::Calls;
use control_effects::Coming;
use epoch::Epochs;
use leader::Leader;
use leaving::Leaving;
use peers::{PeerInput, PeerLinks};
use rest::Rest;
use rounds::Rounds;
use shards::Shards;
use std::collections::BTreeMap;
use storage::Storage;
use turn::Turn;

pub struct Reactor {
    turn: Turn,
    calls: Calls,
    shards: Shards,
    storage: Storage,
    peers: PeerLinks,
    /// Used where the control shard lives.
    rounds: Rounds,
    rest: Rest,
    epochs: Epochs,
    /// Only where the control shard lives.
    leader: Option<Leader>,
    /// What of the control state is to take effect here.
    coming: Option<Coming>,
    /// With which change the last compaction came here.
    compaction: ChangeNumber,
    leaving: Leaving,
    /// When the process ends, where this member is none any more.
    removed_at: Option<Time>,
    process: Option<ProcessFigures>,
    rng: Rng,
    /// When deadlines were looked at last.
    deadlines_at: Time,
}

impl Reactor {
    /// Takes one input. What follows from it for this reactor follows at once, but that writes are evaluated, as
    /// what leaves leaves, with [`Reactor::flush`].
    pub fn step(&mut self, now: Time, input: Input<'_>) {
        assert!(now >= self.turn.now, "time does not run backwards");
        self.turn.now = now;
        self.turn.began.get_or_insert(now);
        self.follow_shown();
        let Reactor { turn, calls, shards, storage, peers, .. } = self;
        match input {
            Input::Opened { conn, port: Port::Peer } => peers.on_opened(turn, conn),
            Input::Opened { conn, port } => calls.front.opened(now, conn, port),
            Input::Dialed { dial, conn } => peers.on_dialed(turn, dial, conn),
            Input::DialFailed { dial, why } => peers.on_dial_failed(turn, dial, &why),
            Input::Moved { conn, state } if PeerLinks::is_greeted(&state) => {
                peers.on_moved(turn, conn, state)
            }
            Input::Moved { conn, state } => calls.on_moved(turn, conn, state),
            Input::Received { conn, bytes } => match peers.on_received(turn, conn, bytes) {
                PeerInput::Read => {}
                PeerInput::NotHere => calls.on_received(turn, conn, bytes),
                PeerInput::NoMember(bytes) => {
                    calls.front.opened(now, conn, Port::Peer);
                    calls.on_received(turn, conn, &bytes);
                }
            },
            Input::Sent { conn, bytes } if peers.on_sent(conn, bytes) => {}
            Input::Sent { conn, bytes } => calls.on_sent(turn, conn, bytes),
            Input::Ended { conn } if peers.on_ended(turn, conn) => {}
            Input::Ended { conn } => calls.on_ended(turn, conn),
            Input::Closed { conn } if peers.on_closed(turn, conn) => {}
            Input::Closed { conn } => calls.on_closed(conn),
            Input::Mail { from, mail } => self.on_mail(from, mail),
            Input::Written { write, buffer } => {
                storage.on_written(turn, write, buffer);
                self.follow_durable();
            }
            Input::Prepared { segment } => storage.on_prepared(turn, segment),
            Input::DiskFull { segment } => storage.on_disk_full(turn, shards, segment),
            Input::Bulk { job, done } => storage.on_bulk(turn, shards, job, done),
            Input::Settled(settled) => self.on_settled(settled),
            Input::Deposed { shard } => self.on_deposed(shard),
            Input::Process(figures) => self.process = Some(figures),
            Input::Wall { secs } => {
                turn.wall_secs = secs;
                calls.front.wall(secs);
            }
            Input::Stop => self.on_stop(),
        }
        self.take_peer_events();
        self.run_local();
    }

    /// Ends the turn.
    pub fn flush(&mut self, now: Time, out: &mut Vec<Output>) {
        assert!(now >= self.turn.now, "time does not run backwards");
        self.turn.now = now;
        self.turn.began.get_or_insert(now);
        self.turn.counters.turns += 1;
        self.follow_shown();
        self.peers.take_states_from(now, self.storage.takes_from());
        self.peers.take_turn(&mut self.turn);
        self.take_peer_events();
        self.calls.take_turn(&mut self.turn);
        self.shards.log_is_behind = self.storage.log_is_behind(&mut self.turn);
        let Reactor { turn, shards, epochs, peers, .. } = self;
        epochs.drive(turn, shards, |member| peers.is_heard_by(member));
        self.share_due();
        let coordinates = self.epochs.coordinates();
        assert!(coordinates == self.leader.is_some(), "who coordinates takeovers leads when they are done");
        self.run_and_evaluate();
        self.shards.take_turn(&mut self.turn);
        if self.shards.gives_history() {
            self.follow_settled();
        }
        self.shards.take_slices(&mut self.turn);
        if let Some(leader) = &mut self.leader {
            leader.take_turn(&mut self.turn);
        }
        self.drive_members();
        self.drop_late();
        self.run_and_evaluate();
        self.drive_rounds();
        self.drive_hand_over();
        self.drive_leaving();
        self.write_log();
        self.follow_touched();
        self.run_local();
        self.shards.work_in_background(&mut self.turn);
        self.storage.work_in_background(&mut self.turn, &mut self.shards);
        if let Some((conn, why)) = self.storage.take_misgiven() {
            self.peers.fail(&mut self.turn, conn, &why);
        }
        self.adopt_arrived_control();
        self.run_local();
        self.calls.flush_watches(&mut self.turn);
        self.run_local();
        self.tell_peers();
        self.turn.observe_pace();
        self.turn.began = None;
        self.calls.front.flush(now, &mut self.turn.out);
        assert!(!self.turn.has_local(), "mail of this reactor to itself is taken in its turn");
        out.append(&mut self.turn.out);
    }

    /// When a turn is due though nothing comes in.
    pub fn wake_at(&self) -> Time {
        if self.has_more_to_do() {
            return self.turn.now;
        }
        let times = [
            self.deadlines_wake_at(),
            self.storage.log().wake_at(),
            self.leader.as_ref().map_or(Time::NEVER, |leader| leader.wake_at(&self.turn)),
            self.storage.checkpoints_wake_at(self.turn.now),
            self.storage.laggards_wake_at(self.turn.now),
            self.storage.giving_wakes_at(),
            self.storage.taking_wakes_at(),
            self.storage.pace_wakes_at(),
            self.calls.wake_at(),
            self.peers.wake_at(&self.turn),
            self.members_wake_at(),
            self.rounds.wake_at(),
            self.rest.wake_at(&self.turn, &self.storage),
            self.epochs.wake_at(&self.turn),
            self.leaving_wakes_at(),
        ];
        times.into_iter().min().expect("there are several")
    }

    /// The settled revision that would give this reactor something to do.
    pub fn waits_for(&self) -> Option<Revision> {
        let Reactor { turn, calls, shards, leader, .. } = self;
        let next = turn.settled.next();
        if turn.epoch_state.may_follow() && turn.router.is_some() {
            return Some(next); // every shard takes over what another member settles
        }
        if turn.epoch_state.may_write() && !turn.is_alone() {
            return Some(next); // the other members are told
        }
        if !turn.epoch_state.may_write() {
            return None; // what is settled means nothing here before the next epoch
        }
        let room = (shards.has_waiting() || calls.waits_for_ring()).then_some(next);
        let pending = leader.as_ref().and_then(Leader::waits_for);
        let news =
            [turn.gate.waits_for(*turn.settled), shards.watched_revision(), calls.watched_revision(turn)];
        let due = [shards.due_revision(), pending, room];
        news.into_iter().chain(due).flatten().min()
    }

    /// Whether the next turn has work that no input will bring.
    fn has_more_to_do(&self) -> bool {
        !self.turn.out.is_empty()
            || self.turn.gate.wants_round()
            || self.shards.has_more_to_do(self.turn.is_alone())
            || self.storage.has_background_work()
            || self.calls.has_more_to_do()
            || self.epochs.goes_on(&self.turn, &self.shards)
    }

    /// Serves what has been asked, and takes the mail of this reactor to itself, until there is no more.
    pub(super) fn run_local(&mut self) {
        loop {
            self.calls.serve(&mut self.turn, &self.shards);
            self.propose_decided();
            let Some(mail) = self.turn.next_local() else { return };
            self.on_mail(self.turn.id, mail);
        }
    }

    /// As [`Reactor::run_local`], and evaluates what has come, until nothing follows from that.
    fn run_and_evaluate(&mut self) {
        self.run_local();
        while self.shards.evaluate_fresh(&mut self.turn) {
            self.run_local();
        }
    }

    fn on_mail(&mut self, from: ReactorId, mail: Mail) {
        assert!(from.0 < self.turn.reactors, "mail comes from a reactor of this member");
        // Mail of an ended epoch could write what the takeover has already voided, and names reservations
        // that are gone; news of settled state and the steps themselves are good in any epoch.
        if !self.turn.epoch_state.takes_mail_of(mail.epoch) && !mail.body.outlives_epochs() {
            return;
        }
        self.on_body(from, mail.epoch, mail.body);
    }

    fn on_body(&mut self, from: ReactorId, epoch: Epoch, body: Body) {
        let Reactor { turn, calls, storage, .. } = self;
        match body {
            Body::Shard(mail) => {
                if matches!(mail, ShardMail::History { .. } | ShardMail::WatermarkWanted { .. }) {
                    // What it asks for may have settled since this reactor last heard.
                    self.follow_settled();
                }
                self.shards.on_mail(&mut self.turn, from, mail);
            }
            Body::Call(mail) => calls.on_mail(turn, from, mail),
            Body::Leader(LeaderMail::Round { round }) => self.rounds.want(from, round),
            Body::Leader(LeaderMail::HandOver { target }) => self.on_hand_over_wanted(target),
            Body::Leader(LeaderMail::ControlKnown { number, index }) => {
                self.on_change_had(from, number);
                let Reactor { turn, leader, .. } = self;
                if let Some(leader) = leader.as_mut().filter(|_| turn.epoch_state.may_write()) {
                    leader.on_control_known(turn, from, index);
                }
            }
            Body::Leader(LeaderMail::ControlHeld { number }) => self.on_change_had(from, number),
            Body::Leader(mail) => {
                let leader = self.leader.as_mut().expect("it goes where the control shard lives");
                leader.on_mail(turn, from, mail);
            }
            Body::Epoch(EpochMail::Step { step, generation }) => self.on_step(epoch, step, generation),
            Body::Epoch(EpochMail::Sealed { epoch }) => self.on_sealed(from, epoch),
            Body::Epoch(EpochMail::Control { number, control }) => self.on_control(number, &control),
            // Shown at once: no other input need come before the next tick.
            Body::Epoch(EpochMail::Covered { revision, ahead }) => {
                self.epochs.on_covered(from, revision, ahead);
                self.share_due();
            }
            Body::Epoch(EpochMail::LeaderIs { term, leader }) => self.on_leader_is(term, leader),
            Body::Epoch(EpochMail::Drain) => self.on_drain(epoch),
            Body::Epoch(EpochMail::GoOn) => self.on_go_on(epoch),
            Body::Epoch(mail) => self.epochs.on_mail(turn, from, epoch, mail),
            Body::Member(MemberMail::ControlIs { number, index, change }) => {
                self.on_control_is(number, index, &change);
            }
            Body::Member(MemberMail::ControlComes { number, changes }) => {
                self.on_control_comes(Coming { number, changes });
            }
            Body::Member(MemberMail::ControlShown) => self.on_control_shown(),
            Body::Member(MemberMail::LeaderClock { member, clock }) => {
                assert!(
                    member != turn.settings.member,
                    "what a clock of another process shows comes from there"
                );
                turn.leader_clocks.insert(member, clock);
                // What it has refused, or was not sent for want of its clock.
                calls.unpark_leaderless(turn);
            }
            Body::Member(MemberMail::Close) => self.on_close(),
            Body::Member(MemberMail::Closed) => self.on_left_by_all(from),
            Body::Member(MemberMail::Leave) => self.on_leave(),
            Body::Member(MemberMail::PeerIs { member, reactors, boot }) => {
                self.peers.on_peer_is(member, reactors, boot);
            }
            Body::Member(MemberMail::Removed) => self.peers.on_removed(),
            Body::Member(MemberMail::Book { as_of, members }) => self.on_book(as_of, members),
            Body::Member(MemberMail::MovedIn) => storage.on_moved_in(turn),
            Body::Member(MemberMail::HistoryDropped { upto }) => calls.on_history_dropped(turn, upto),
            Body::Member(MemberMail::Census { call }) => self.on_census(call),
            Body::Member(MemberMail::Sizes { sizes }) => turn.sizes.set(from, sizes),
            Body::Member(MemberMail::Defragment { call }) => storage.on_defragment(turn, call),
        }
    }

    fn on_deposed(&mut self, shard: ShardId) {
        if self.shards.has(shard) {
            self.shards.shard_mut(shard).group_mut().step_down();
            self.turn.lose_epoch();
        }
    }

    /// What has waited too long fails where its client is, and is dropped where it waits.
    fn drop_late(&mut self) {
        if self.turn.now < self.deadlines_at + DEADLINES_EVERY {
            return;
        }
        self.deadlines_at = self.turn.now;
        self.calls.expire(&mut self.turn);
        self.shards.drop_late(&self.turn);
        if let Some(leader) = &mut self.leader {
            leader.drop_late(&self.turn);
        }
    }

    fn deadlines_wake_at(&self) -> Time {
        let waits = self.calls.len() > 0
            || self.shards.has_waiting_evaluations()
            || self.leader.as_ref().is_some_and(Leader::has_waiting);
        if waits { self.deadlines_at + DEADLINES_EVERY } else { Time::NEVER }
    }

    fn on_census(&mut self, call: CallId) {
        let held = self.storage.log().held_for().map(|(resident, _, bytes)| (resident, bytes));
        let held: BTreeMap<Resident, u64> = held.collect();
        let log_bytes = |shard, home| held.get(&Resident { shard, home }).copied().unwrap_or(0);
        let shards = self.shards.figures(log_bytes);
        let census = Census {
            sizes: self.shards.sizes(&self.turn),
            raft_index: shards.iter().map(|shard| shard.committed.0).sum(),
            raft_applied_index: shards.iter().map(|shard| shard.applied.0).sum(),
            counters: self.counters_now(),
            shards,
            compacted_at: self.shards.compacted_at(),
            process: self.process,
            alarms: self.alarms_known(),
            peers: self.peers.figures(),
        };
        assert!(census.raft_applied_index <= census.raft_index, "nothing is applied before its commit");
        self.turn.send(call.reactor, CallMail::CensusIs { call, census: Box::new(census) });
    }

    /// The alarms that this reactor goes by, and up to which entry; none before it serves: it is told then.
    fn alarms_known(&self) -> Option<(Index, Vec<Alarm>)> {
        let control = &self.turn.control;
        self.turn.epoch_state.may_write().then(|| (control.index, control.alarms(AlarmType::None)))
    }

    fn counters_now(&self) -> ReactorCounters {
        let mut counters = self.turn.counters.clone();
        self.calls.count(&mut counters);
        self.shards.count(&mut counters);
        self.storage.count(&mut counters);
        counters
    }

    /// How often each way through the program was gone here since the start.
    pub fn paths(&self) -> Paths {
        self.counters_now().paths
    }

    /// Whether the process may end without leaving a write that nothing vouches for.
    pub fn log_is_at_rest(&self) -> bool {
        self.storage.log_is_at_rest()
    }
}

/// How often deadlines are looked at: they are seconds long.
const DEADLINES_EVERY: Duration = Duration::from_ms(500);
