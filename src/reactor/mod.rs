//! One thread's whole database: its connections, its shards, its log.
//!
//! [`Reactor::step`] takes one input, [`Reactor::flush`] ends the turn: one Raft entry a shard, one log
//! write, one send a connection. In between everything is plain calls; what concerns another reactor is
//! mail, and mail to oneself takes the same way through a queue of its own.

mod calls;
mod census;
mod checkpoints;
mod clearing;
mod controls;
pub mod dump;
mod epoch;
mod hashes;
mod leading;
mod metrics;
mod owned;
mod pace;
mod reads;
pub mod recover;
mod reservations;
mod revokes;
mod settings;
mod slices;
mod storage;
mod streams;
mod txns;
mod vars;
mod waiters;
mod watches;
mod witness;
mod writes;

#[cfg(test)]
mod tests;

pub use clearing::{AtStart, at_start};
pub use pace::Observing;
pub use settings::{AutoCompaction, Boot, RecoveredShard, Settings};

use crate::api::{Answer, Reply, Request};
use crate::control::Control;
use crate::front::{Ask, Front, Rpc};
use crate::io::{Body, CallId, Counters, Fields, Input, Level, Mail, Notice, Output, Paths, ProcessFigures};
use crate::log::{Log, Ordinal};
use crate::router::Router;
use crate::sequencer::{Generation, Room, Sequencer};
use crate::stdx::Rng;
use crate::takeover::Coordinator;
use crate::types::{Epoch, LeaseId, ReactorId, Revision, ShardId, Time};
use crate::wire::encode;
use calls::Calls;
use leading::Leading;
use owned::Owned;
use slices::Slice;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use waiters::Waiters;

/// Where a reactor stands in the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Stopped,
    Fencing {
        epoch: Epoch,
    },
    /// So many shards have sealed.
    Sealing {
        epoch: Epoch,
        sealed: usize,
    },
    Serving,
}

pub struct Reactor {
    id: ReactorId,
    reactors: u16,
    settings: Arc<Settings>,
    sequencer: Arc<Sequencer>,
    now: Time,
    rng: Rng,

    // The epoch.
    stage: Stage,
    epoch: Epoch,
    /// The epoch has been stopped here: its mail counts no more, though no other epoch has a name yet.
    ended: bool,
    /// A group was lost in this epoch, and the coordinator knows.
    lost: bool,
    room: Room,
    /// Only where the control shard lives.
    coordinator: Option<Coordinator>,
    leading: Option<Leading>,
    /// Of the last epoch that served.
    generation: Generation,
    settled: Revision,
    /// What some log names as settled by earlier processes.
    settled_before: Revision,

    // State.
    router: Option<Router>,
    control: Control,
    shards: BTreeMap<ShardId, Owned>,
    log: Log,
    storage: storage::Storage,
    heard: witness::Heard,
    sizes: census::MemberSizes,
    counters: Counters,
    pace: pace::Pace,
    process: Option<ProcessFigures>,
    /// Epochs that have served since the start.
    epochs_served: u64,

    // What is under way.
    calls: Calls,
    calls_checked_at: Time,
    held: VecDeque<(Revision, CallId, Answer)>,
    /// Revokes that have asked for keys and wait for transactions under way.
    revokes_asked: Vec<(CallId, LeaseId)>,
    lease_waiting: Waiters<LeaseId, writes::Evaluation>,
    /// Spread transactions that wait for a lease's end.
    retrying: Waiters<LeaseId, CallId>,
    deciding: Vec<CallId>,
    slices: slices::Slices,
    /// The reserved shard whose step a slice was taken of last.
    stepped: ShardId,
    watches: watches::Watches,
    streams: streams::Streams,
    front: Front,
    /// Reused.
    asks: Vec<Ask>,
    parked_watches: Vec<(Rpc, crate::api::WatchRequest)>,
    /// Whether any epoch has served since the start.
    has_served: bool,

    local: VecDeque<Body>,
    out: Vec<Output>,
}

impl Reactor {
    /// Takes one input. What follows from it for this reactor follows at once; what leaves, leaves with
    /// [`Reactor::flush`].
    pub fn step(&mut self, now: Time, input: Input<'_>) {
        assert!(now >= self.now, "time does not run backwards");
        self.now = now;
        match input {
            Input::Opened { conn, port } => self.front.opened(now, conn, port),
            Input::Received { conn, bytes } => self.on_received(conn, bytes),
            Input::Sent { conn, bytes } => self.on_sent(conn, bytes),
            Input::Ended { conn } => self.on_ended(conn),
            Input::Closed { conn } => self.on_closed(conn),
            Input::Mail { from, mail } => self.on_mail(from, mail),
            Input::Written { write, buffer } => self.on_written(write, buffer),
            Input::Prepared { segment } => self.log.prepared(segment),
            Input::NoRoom { segment } => self.on_no_room(segment),
            Input::Bulk { job, done } => self.on_bulk(job, done),
            Input::Settled(settled) => self.on_settled(settled),
            Input::Deposed { shard } => self.on_deposed(shard),
            Input::Process(figures) => self.process = Some(figures),
            Input::Wall { secs } => self.front.wall(secs),
            Input::Stop => {
                self.front.stop();
                self.log.stop();
            }
        }
        self.run_local();
    }

    /// Ends the turn.
    pub fn flush(&mut self, now: Time, out: &mut Vec<Output>) {
        assert!(now >= self.now, "time does not run backwards");
        self.now = now;
        self.counters.turns += 1;
        self.front_on_time();
        self.drive_takeover();
        self.run_local();
        self.redecide();
        let ids: Vec<ShardId> = self.shards.keys().copied().collect();
        for id in &ids {
            self.run_waiting(*id);
        }
        self.take_steps();
        self.take_slices();
        self.lead();
        self.expire_calls();
        self.run_local();
        self.write_log();
        self.run_local();
        self.work_in_background();
        self.run_local();
        self.flush_watches();
        self.run_local();
        self.observe_pace();
        self.front.flush(self.now, &mut self.out);
        out.append(&mut self.out);
    }

    /// When a turn is due though nothing comes in.
    pub fn wake_at(&self) -> Time {
        if self.has_more_to_do() {
            return self.now;
        }
        let times = [
            self.calls_wake_at(),
            self.log.wake_at(),
            self.leading_wake_at(),
            self.checkpoints_wake_at(),
            self.watches.wake_at(),
            self.front.wake_at(),
        ];
        times.into_iter().min().expect("there are several")
    }

    /// The settled revision that would give this reactor something to do.
    pub fn waits_for(&self) -> Option<Revision> {
        if self.stage != Stage::Serving {
            return None; // what is settled means nothing here before the next epoch
        }
        let held = self.held.front().map(|(needs, ..)| *needs);
        let watched = self.watched_revision();
        let due = self.due_revision();
        let room = self.waits_for_room().then(|| self.settled.next());
        [held, watched, due, room].into_iter().flatten().min()
    }

    /// Whether the next turn has work that no input will bring.
    fn has_more_to_do(&self) -> bool {
        !self.slices.is_empty()
            || self.has_steps()
            || self.has_background_work()
            || self.watches.is_ready()
            || self.takeover_goes_on()
            || self.shards.values().any(|owned| owned.shard.lags())
    }

    fn send(&mut self, to: ReactorId, body: Body) {
        if to == self.id {
            self.local.push_back(body);
        } else {
            self.out.push(Output::Mail { to, mail: Mail { epoch: self.epoch, body } });
        }
    }

    fn run_local(&mut self) {
        while let Some(body) = self.local.pop_front() {
            self.on_mail(self.id, Mail { epoch: self.epoch, body });
        }
    }

    fn on_mail(&mut self, from: ReactorId, mail: Mail) {
        // Mail of an ended epoch could write what the takeover has already voided, and names reservations
        // that are gone; news of settled state and the steps themselves are good in any epoch.
        let ended = self.ended || mail.epoch != self.epoch;
        if ended && !mail.body.outlives_epochs() {
            return;
        }
        self.on_body(from, mail.epoch, mail.body);
    }

    fn on_body(&mut self, from: ReactorId, epoch: Epoch, body: Body) {
        match body {
            Body::Evaluate { call, shard, request } => self.on_evaluate(call, shard, request),
            Body::Answer { call, answer } => self.finish(call, answer),
            Body::Control { call, request } => self.on_control_request(call, request),
            Body::Range { call, shard, cursor, counting } => {
                self.slice(Slice::Range { call, shard, cursor, counting });
            }
            Body::Ranged { call, shard, part } => self.on_ranged(call, shard, part),
            Body::RangeGoesOn { call, shard, bytes } => self.on_range_goes_on(from, call, shard, bytes),
            Body::RangeUnwanted { call, shard } => self.on_range_unwanted(call, shard),
            Body::Long { call, request } => self.on_long(call, request),
            Body::Reserve { call, shard, txn, revokes } => self.on_reserve(call, shard, txn, revokes),
            Body::Reserved { call, shard, outcomes } => self.on_reserved(call, shard, outcomes),
            Body::Gather { call, shard, path, current } => self.on_gather(call, shard, path, current),
            Body::Gathered { call, shard, gathered, ending } => {
                self.on_gathered(call, shard, gathered, ending);
            }
            Body::Part { call, shard, write, shares } => self.on_part(call, shard, write, shares),
            Body::Applied { call, shard, applied } => self.on_applied(call, shard, applied),
            Body::Release { call, shard } => self.on_release(call, shard),
            Body::Revoking { call, lease } => self.on_revoking(call, lease),
            Body::LeaseKeys { call, lease } => self.on_lease_keys(call, lease),
            Body::RevokingHas { call, shards } => self.on_revoking_has(from, call, shards),
            Body::LeaseKeysAre { call, keys, seen } => self.on_lease_keys_are(from, call, keys, seen),
            Body::History { call, shard, after, upto } => {
                self.slice(Slice::History { call, shard, after, upto });
            }
            Body::HistoryIs { call, shard, compacted, history } => {
                self.on_history_is(call, shard, compacted, history);
            }
            Body::HistoryUnwanted { call, shard } => self.on_history_unwanted(call, shard),
            Body::Watch { action } => self.on_watch_action(action),
            Body::Watched { shard, notice } => self.on_watch_news(shard, notice),
            Body::Marks { marks } => self.on_marks(marks),
            Body::MarkWanted { shard } => self.on_mark_wanted(from, shard),
            Body::ControlIs { index, change } => self.on_control_is(index, &change),
            Body::ControlKnown { index } => self.on_control_known(from, index),
            Body::Compacted { revision, dropped, sizes } => self.on_compacted(from, revision, dropped, sizes),
            Body::Step { step, control } => self.on_step(epoch, step, control),
            Body::Stopped => self.on_stopped(from),
            Body::Fenced { epoch, report } => self.on_fenced(from, epoch, report),
            Body::Sealed { epoch } => self.on_sealed(from, epoch),
            Body::Lost => self.on_lost(epoch),
            Body::Census { call } => self.on_census(call),
            Body::CensusIs { call, census } => self.on_census_is(from, call, *census),
            Body::Sizes { sizes } => self.sizes.set(from, sizes),
            Body::NoSpace { call } => self.on_no_space(call),
            Body::KeptOut { call } => self.refuse(call, crate::api::Error::NoSpace),
            Body::Defragment { call } => self.on_defragment(call),
            Body::Defragmented { call, done } => self.on_defragmented(from, call, done),
        }
    }

    /// `settled` has moved: what waited for it leaves, and what it settles can no longer be undone.
    fn on_settled(&mut self, settled: Revision) {
        if self.stage == Stage::Serving && settled > self.settled {
            self.settle(settled);
        }
    }

    fn settle(&mut self, settled: Revision) {
        self.settled = settled;
        for owned in self.shards.values_mut() {
            owned.shard.settle(settled);
        }
        self.apply_due_controls();
        self.release_held();
        self.publish();
    }

    fn on_deposed(&mut self, shard: ShardId) {
        if let Some(owned) = self.shards.get_mut(&shard) {
            owned.shard.group_mut().step_down();
            self.lose_epoch();
        }
    }

    fn router(&self) -> &Router {
        self.router.as_ref().expect("requests are evaluated after the map is known")
    }

    fn counters_now(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.front = self.front.counters.clone();
        counters.connections = self.front.open() as u64;
        counters.ranges_under_way = self.slices.len() as u64;
        counters.proposals_pending = self.calls.proposals() as u64;
        counters.calls = self.calls.len() as u64;
        self.watches.count(&mut counters);
        self.storage.count(&mut counters);
        for owned in self.shards.values() {
            owned.count(&mut counters.paths);
        }
        counters
    }

    fn notice(&mut self, level: Level, message: &'static str, fields: impl Into<Fields>) {
        self.out.push(Output::Notice(Notice { level, message, fields: fields.into() }));
    }

    fn answer_rpc(&mut self, rpc: Rpc, answer: Answer) {
        let taken = match &answer {
            Ok(Reply::Txn(reply)) => self.front.takes_txn(rpc, reply),
            _ => Ok(()),
        };
        if let Err(bytes) = taken
            && let Some(request) = self.front.request(rpc).filter(reads_only)
        {
            self.counters.paths.answer_waited += 1;
            return self.front.defer(self.now, rpc, request, Some(bytes));
        }
        self.observe_answer(rpc, &answer);
        let term = self.epoch.term;
        let long_bytes = self.settings.bounds.front.long_message_bytes;
        match answer {
            Ok(reply @ (Reply::Range(_) | Reply::Txn(_))) if taken.is_ok() => {
                self.front.answer_taken(self.now, rpc, term, reply);
            }
            Ok(reply) if encode::is_long(&reply, long_bytes) => {
                self.front.answer_long(self.now, rpc, term, reply);
            }
            answer => self.front.answer(self.now, rpc, term, &answer),
        }
    }

    /// The ways it has gone since its start.
    pub fn paths(&self) -> Paths {
        self.counters_now().paths
    }

    /// Everything appended up to here is durable.
    pub fn durable(&self) -> Ordinal {
        self.log.durable()
    }
}

/// Whether a transaction may be evaluated anew.
fn reads_only(request: &Request) -> bool {
    matches!(request, Request::Txn(txn) if txn.is_read_only())
}
