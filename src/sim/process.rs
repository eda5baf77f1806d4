//! The process of a member: its reactors, each with what is on its way to it, and their turns.
//!
//! A turn is taken in the smallest steps there are: one input, the flush, one output. Between any two of
//! them another reactor may go on, or the process may die, as between the instructions of real threads.

use super::clock::Clock;
use super::hits::{Hit, Hits};
use super::trace::Trace;
use crate::io::{
    Body, BulkDone, ConnectionState, DialId, EpochMail, Input, JobId, Mail, Output, Port, Value,
};
use crate::limits::STOP_TIMEOUT_SECS;
use crate::log::{Buffer, SegmentName, WriteId};
use crate::reactor::Reactor;
use crate::sequencer::Sequencer;
use crate::stdx::Rng;
use crate::takeover::Step;
use crate::types::{ConnId, Duration, Epoch, ReactorId, Revision, ShardId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// An input that owns what it carries.
pub enum Item {
    Opened(ConnId),
    PeerOpened(ConnId),
    Dialed(DialId, ConnId),
    DialFailed(DialId, String),
    Moved(ConnId, ConnectionState),
    Received(ConnId, Vec<u8>),
    Sent(ConnId, usize),
    Ended(ConnId),
    Closed(ConnId),
    Mail(ReactorId, Mail),
    Written(WriteId, Buffer),
    Prepared(SegmentName),
    DiskFull(SegmentName),
    Bulk(JobId, BulkDone),
    Settled(Revision),
    Deposed(ShardId),
    Stop,
}

struct Turn {
    inputs: VecDeque<Item>,
    flushed: bool,
    outputs: VecDeque<Output>,
}

/// A reactor and its place in time.
pub struct Seat {
    pub reactor: Reactor,
    inbox: BTreeMap<(Time, u64), Item>,
    turn: Option<Turn>,
    pub paused_until: Time,
    rest_until: Time,
    told: Revision,
    /// The newest epoch of the mail that came here, and whether it was stopped.
    epoch: (Epoch, bool),
    /// A reactor turns once at its start, whatever there is.
    is_new: bool,
    /// Turns in a row that took nothing and gave nothing.
    empty_turns: u32,
    /// What its reactor waits for since its last turn: a time of its clock, and what is settled.
    waits: (Time, Option<Revision>),
}

/// Everything here is in the world's time, but what reactors are told and say of it, which is their clock's.
pub struct Process {
    /// The place of its member in the world's list.
    member: usize,
    pub seats: Vec<Seat>,
    clock: Clock,
    pub sequencer: Arc<Sequencer>,
    /// When the last mail between two reactors, and the last bytes of a connection, arrive.
    mail_upto: BTreeMap<(usize, usize), Time>,
    items: u64,
    /// Terms of epochs that have begun to serve, until the world takes note.
    pub reigns: Vec<u64>,
    /// It was told to end, and is not waited for any longer than this.
    ends_by: Option<Time>,
}

/// What one step of a reactor came to.
pub enum Stepped {
    Took,
    Gave(Output),
    /// It turns without end and without doing anything: why it does.
    Spins(String),
}

impl Process {
    pub fn new(
        member: usize,
        reactors: Vec<Reactor>,
        sequencer: Arc<Sequencer>,
        clock: Clock,
        now: Time,
    ) -> Process {
        let seat = |reactor| Seat {
            reactor,
            inbox: BTreeMap::new(),
            turn: None,
            paused_until: now,
            rest_until: now,
            told: Revision::NONE,
            epoch: (Epoch::default(), false),
            is_new: true,
            empty_turns: 0,
            waits: (Time::NEVER, None),
        };
        let seats = reactors.into_iter().map(seat).collect();
        Process {
            member,
            seats,
            clock,
            sequencer,
            mail_upto: BTreeMap::new(),
            items: 0,
            reigns: vec![],
            ends_by: None,
        }
    }

    /// All reactors hear that the process is to end, in their next turns.
    pub fn tell_to_end(&mut self, now: Time) {
        if self.ends_by.is_none() {
            self.ends_by = Some(now + Duration::from_secs(STOP_TIMEOUT_SECS));
            (0..self.seats.len()).for_each(|reactor| self.deliver(reactor, now, Item::Stop));
        }
    }

    pub fn is_ending(&self) -> bool {
        self.ends_by.is_some()
    }

    /// Whether it was told to end, and is done with it or late.
    pub fn has_ended(&self, now: Time) -> bool {
        let is_done = |seat: &Seat| seat.reactor.is_done() && seat.reactor.log_is_at_rest();
        self.ends_by.is_some_and(|by| now >= by || self.seats.iter().all(is_done))
    }

    /// Something reaches a reactor at the time.
    pub fn deliver(&mut self, reactor: usize, at: Time, item: Item) {
        self.items += 1;
        self.seats[reactor].inbox.insert((at, self.items), item);
    }

    /// Hands a connection from one reactor to another, where it begins at the time under another name. What is on
    /// its way comes behind it.
    pub fn move_connection(&mut self, conn: ConnId, name: ConnId, begins: Time, state: ConnectionState) {
        let is_of = |_: &(Time, u64), item: &mut Item| match item {
            Item::Received(of, _) | Item::Closed(of) | Item::Ended(of) | Item::Sent(of, _) => *of == conn,
            _ => false,
        };
        let taken = self.seats[usize::from(conn.reactor.0)].inbox.extract_if(.., is_of);
        let taken: Vec<(Time, Item)> = taken.map(|((at, _), item)| (at, item)).collect();
        let to = usize::from(name.reactor.0);
        self.deliver(to, begins, Item::Moved(name, state));
        for (at, item) in taken {
            let item = match item {
                Item::Received(_, bytes) => Item::Received(name, bytes),
                Item::Closed(_) => Item::Closed(name),
                Item::Ended(_) => Item::Ended(name),
                other => other,
            };
            self.deliver(to, at.max(begins), item);
        }
    }

    /// Mail keeps its order for each pair.
    pub fn mail(&mut self, from: usize, to: usize, at: Time, mail: Mail) {
        let upto = self.mail_upto.entry((from, to)).or_default();
        *upto = (*upto).max(at);
        let at = *upto;
        self.deliver(to, at, Item::Mail(ReactorId(from as u16), mail));
    }

    /// When some reactor has something to do.
    pub fn wake_at(&self) -> Time {
        let settled = self.sequencer.settled();
        let seats = self.seats.iter().map(|seat| seat.wake_at(settled, &self.clock));
        seats.chain(self.ends_by).min().unwrap_or(Time::NEVER)
    }

    /// The reactors that have something to do now.
    pub fn due(&self, now: Time) -> Vec<usize> {
        let settled = self.sequencer.settled();
        (0..self.seats.len()).filter(|at| self.seats[*at].wake_at(settled, &self.clock) <= now).collect()
    }

    /// Whether some reactor is in the midst of a turn.
    pub fn is_in_turn(&self) -> bool {
        self.seats.iter().any(|seat| seat.turn.is_some())
    }

    /// One step of a reactor that is due.
    pub fn step(
        &mut self,
        at: usize,
        now: Time,
        rng: &mut Rng,
        trace: &mut Trace,
        hits: &mut Hits,
    ) -> Stepped {
        let settled = self.sequencer.settled();
        if self.seats.iter().any(|seat| seat.is_held_up(now)) {
            hits.count(Hit::Pause);
        }
        let (seat, place, shown) = (&mut self.seats[at], (self.member, at), self.clock.shows(now));
        if seat.turn.is_none() {
            seat.begin_turn(now, settled, rng);
        }
        let turn = seat.turn.as_mut().expect("just begun");
        if let Some(item) = turn.inputs.pop_front() {
            seat.empty_turns = 0;
            if seat.is_late(&item) {
                hits.count(Hit::LateMail);
            }
            take(&mut seat.reactor, (now, shown), place, item, trace);
            return Stepped::Took;
        }
        if !turn.flushed {
            turn.flushed = true;
            let mut out = vec![];
            seat.reactor.flush(shown, &mut out);
            self.reigns.extend(out.iter().filter_map(term_of_reign));
            turn.outputs = out.into();
        }
        if let Some(output) = turn.outputs.pop_front() {
            seat.empty_turns = 0;
            trace.output(now, place, &output);
            return Stepped::Gave(output);
        }
        seat.turn = None;
        seat.waits = (seat.reactor.wake_at(), seat.reactor.waits_for());
        seat.rest_until = now + Duration(1 + rng.below(20_000));
        seat.empty_turns += 1;
        if seat.empty_turns <= EMPTY_TURNS_MAX {
            return Stepped::Took;
        }
        let (wakes_at, waits_for) = seat.waits;
        Stepped::Spins(format!("it waits for {waits_for:?} of {settled:?}, or for {wakes_at:?} of {shown:?}"))
    }
}

/// The term of the epoch that serves from now on, if this says so.
fn term_of_reign(output: &Output) -> Option<u64> {
    let Output::LogLine(line) = output else { return None };
    let epoch = line.fields.0.iter().find(|(name, _)| *name == "epoch" && line.message == "serving");
    let Value::Text(epoch) = &epoch?.1 else { return None };
    epoch.split('.').next()?.parse().ok()
}

/// Long work may take turns that show nothing; more than this is a reactor that waits for what will not be.
const EMPTY_TURNS_MAX: u32 = 10_000;

impl Seat {
    fn wake_at(&self, settled: Revision, clock: &Clock) -> Time {
        let floor = self.paused_until.max(self.rest_until);
        if self.turn.is_some() {
            return self.paused_until;
        }
        let (wakes_at, waits_for) = self.waits;
        if self.is_new || waits_for.is_some_and(|revision| revision <= settled) {
            return floor;
        }
        let first = self.inbox.first_key_value().map_or(Time::NEVER, |((due, _), _)| *due);
        match first.min(clock.reaches(wakes_at)) {
            Time::NEVER => Time::NEVER,
            due => due.max(floor),
        }
    }

    /// Whether it would go on if it were not paused.
    fn is_held_up(&self, now: Time) -> bool {
        let has_work = || self.inbox.first_key_value().is_some_and(|((due, _), _)| *due <= now);
        self.paused_until > now && (self.turn.is_some() || has_work())
    }

    /// Whether it is mail of an epoch that has ended here.
    fn is_late(&mut self, item: &Item) -> bool {
        let Item::Mail(_, mail) = item else { return false };
        let stops = matches!(mail.body, Body::Epoch(EpochMail::Step { step: Step::Stop, .. }));
        self.epoch = self.epoch.max((mail.epoch, stops));
        (mail.epoch, true) <= self.epoch && !mail.body.outlives_epochs()
    }

    fn begin_turn(&mut self, now: Time, settled: Revision, rng: &mut Rng) {
        let later = self.inbox.split_off(&(now + Duration(1), 0));
        let due = std::mem::replace(&mut self.inbox, later);
        let mut inputs: VecDeque<Item> = due.into_values().collect();
        if settled > self.told {
            self.told = settled;
            if rng.chance(1, 2) {
                inputs.push_front(Item::Settled(settled));
            } else {
                inputs.push_back(Item::Settled(settled));
            }
        }
        self.is_new = false;
        self.turn = Some(Turn { inputs, flushed: false, outputs: VecDeque::new() });
    }
}

/// Gives it to the reactor, at a time of the world and what the member's clock shows then.
fn take(
    reactor: &mut Reactor,
    (now, shown): (Time, Time),
    place: (usize, usize),
    item: Item,
    trace: &mut Trace,
) {
    let input = match item {
        Item::Moved(conn, state) => Input::Moved { conn, state },
        Item::Opened(conn) => Input::Opened { conn, port: Port::Client },
        Item::PeerOpened(conn) => Input::Opened { conn, port: Port::Peer },
        Item::Dialed(dial, conn) => Input::Dialed { dial, conn },
        Item::DialFailed(dial, why) => Input::DialFailed { dial, why },
        Item::Received(conn, ref bytes) => Input::Received { conn, bytes },
        Item::Sent(conn, bytes) => Input::Sent { conn, bytes },
        Item::Ended(conn) => Input::Ended { conn },
        Item::Closed(conn) => Input::Closed { conn },
        Item::Mail(from, mail) => Input::Mail { from, mail },
        Item::Written(write, buffer) => Input::Written { write, buffer },
        Item::Prepared(segment) => Input::Prepared { segment },
        Item::DiskFull(segment) => Input::DiskFull { segment },
        Item::Bulk(job, done) => Input::Bulk { job, done },
        Item::Settled(settled) => Input::Settled(settled),
        Item::Deposed(shard) => Input::Deposed { shard },
        Item::Stop => Input::Stop,
    };
    trace.input(now, place, &input);
    reactor.step(shown, input);
}
