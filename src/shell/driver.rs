//! One reactor's thread: turn after turn around a deterministic reactor.
//!
//! ```text
//!   ┌─▶ reap completions ─▶ arrivals, answers, mail ─▶ Settled? ─▶ flush ─▶ carry out ─┐
//!   │            each is one input of `step`                                            │
//!   └──── more to do: submit ◀────────────────────────────────── nothing: park ◀────────┘
//! ```
//!
//! A turn takes a bounded number of each kind, so that one busy neighbour cannot keep the rest waiting. Parking
//! is one system call that also submits; a request of a lone client costs its receive and its log write one such
//! call each, and its send a call of its own.

#![allow(unsafe_code)]

use super::boot::KernelResources;
use super::bulk::{BulkAnswer, Order};
use super::clock::{timestamp, wall_us};
use super::connections::{Arrival, Connections, Origin, Party, SocketEvent};
use super::dials::{DialEnd, Dials, Lookup};
use super::kernel;
use super::listeners::Listener;
use super::log_files::{Failed, LogFiles};
use super::mail::Outbox;
use super::names::Found;
use super::receive::Buffers;
use super::ring::{Completion, Ring, Tag};
use super::shared::Shared;
use crate::io::{ConnectionState, DialId, Input, LogLine, Mail, Output, Port, Value};
use crate::limits::{
    ACCEPT_RETRY_MS, MAIL_RETRY_US, STOP_TIMEOUT_SECS, TURN_ARRIVALS_MAX, TURN_COMPLETIONS_MAX,
    TURN_MAIL_MAX, WALL_CHECK_MS,
};
use crate::log::Command;
use crate::reactor::Reactor;
use crate::types::{ConnId, Duration, ReactorId, Revision, Time};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What runs one reactor on its thread and performs its effects.
pub struct Driver {
    id: ReactorId,
    shared: Arc<Shared>,
    reactor: Reactor,
    ring: Ring,
    buffers: Buffers,
    connections: Connections,
    dials: Dials,
    log: LogFiles,
    outbox: Outbox<Mail>,
    /// Orders that the lane's queue could not take.
    orders: VecDeque<Order>,
    listeners: Vec<Listener>,
    /// Listeners whose accepting has failed, to be tried again.
    silent: Vec<u32>,
    accept_at: Time,
    /// When the wall clock is looked at next; no wake-up is set for that.
    wall_at: Time,
    /// The counter that the kernel writes wake-ups to.
    wakes: Box<u64>,
    settled: Revision,
    /// When to give up waiting for connections to end, once stopping.
    stop_by: Option<Time>,
    is_done: bool,
    /// Whether the memory that the start used has been given back.
    is_tidy: bool,

    now: Time,
    completions: Vec<Completion>,
    outputs: Vec<Output>,
}

impl Driver {
    /// Makes a driver, on the thread that will run it.
    pub fn new(
        id: ReactorId,
        shared: Arc<Shared>,
        reactor: Reactor,
        log: LogFiles,
        listeners: Vec<Listener>,
        resources: KernelResources,
    ) -> Driver {
        let KernelResources { mut ring, buffers } = resources;
        let mut wakes = Box::new(0);
        // SAFETY: the box outlives the ring's requests: a driver is never dropped.
        unsafe { ring.wait_for_wake(shared.wakers.waker(id).as_fd(), &raw mut *wakes) };
        for (number, listener) in listeners.iter().enumerate() {
            ring.accept(number as u32, listener.socket.as_fd());
        }
        Driver {
            id,
            reactor,
            ring,
            buffers,
            connections: Connections::new(id),
            dials: Dials::default(),
            log,
            outbox: Outbox::new(usize::from(id.0), shared.reactors()),
            orders: VecDeque::new(),
            listeners,
            silent: Vec::new(),
            accept_at: Time::NEVER,
            wall_at: Time(0),
            wakes,
            settled: Revision::NONE,
            stop_by: None,
            is_done: false,
            is_tidy: false,
            now: shared.clock.now(),
            shared,
            completions: Vec::with_capacity(TURN_COMPLETIONS_MAX),
            outputs: Vec::new(),
        }
    }

    /// Runs until the process stops.
    pub fn run(mut self) {
        while !self.may_leave() {
            self.turn();
            self.rest();
        }
        if !self.log.is_idle() {
            let fields = vec![("reactor", self.id.to_string())];
            self.shared
                .logger
                .warn("the disk has not answered the log's last writes; stopping without", fields);
        }
        // The kernel may still hold requests with this thread's memory; the process ends in a moment.
        std::mem::forget(self);
    }

    fn turn(&mut self) {
        self.now = self.shared.clock.now();
        self.shared.turn_clock(self.id).turn_begins(self.now);
        self.tell_wall();
        self.take_completions();
        self.take_arrivals();
        self.take_answers();
        self.take_mail();
        self.take_names();
        self.take_figures();
        self.hear_stop();
        self.keep_time();
        self.take_settled();
        self.now = self.shared.clock.now();
        self.reactor.flush(self.now, &mut self.outputs);
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.drain(..).for_each(|output| self.carry_out(output));
        self.outputs = outputs;
        let Driver { shared, outbox, .. } = self;
        outbox.retry(&shared.mail, |to| shared.wakers.notify(ReactorId(to as u16)));
        self.give_orders();
        self.announce_settled();
    }

    /// Goes on, or sleeps until something comes.
    fn rest(&mut self) {
        let mut wake_at = self.reactor.wake_at().min(self.connections.wake_at()).min(self.accept_at);
        wake_at = wake_at.min(self.dials.wake_at()).min(self.stop_by.unwrap_or(Time::NEVER));
        if !self.outbox.is_empty() || !self.orders.is_empty() {
            wake_at = wake_at.min(self.now + Duration::from_us(MAIL_RETRY_US));
        }
        let moved = self.shared.sequencer.settled() != self.settled;
        if moved || wake_at <= self.now || !self.ring.is_idle() || self.may_leave() {
            return self.ring.submit();
        }
        if !self.is_tidy && self.settled > Revision::NONE {
            // What the start has used and freed would stay with this process until it uses as much again.
            self.is_tidy = true;
            kernel::give_memory_back();
            return self.ring.submit();
        }
        let (shared, id, stopping) = (&self.shared, self.id, self.stop_by.is_some());
        let nothing = || shared.has_nothing_for(id, stopping) && !shared.all_are_done();
        if !shared.wakers.sleep(id, self.reactor.waits_for(), &shared.sequencer, nothing) {
            return self.ring.submit();
        }
        shared.turn_clock(id).parks();
        let timeout = if wake_at == Time::NEVER { None } else { Some(wake_at.since(shared.clock.now())) };
        if timeout != Some(Duration(0)) {
            self.ring.park(timeout);
        }
        self.shared.wakers.awake(self.id);
    }

    fn step(&mut self, input: Input<'_>) {
        self.reactor.step(self.now, input);
    }

    fn take_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(TURN_COMPLETIONS_MAX, &mut completions);
        for completion in completions.drain(..) {
            self.complete(&completion);
        }
        self.completions = completions;
        self.buffers.publish();
    }

    fn complete(&mut self, completion: &Completion) {
        match completion.tag {
            Tag::Receive { slot, generation } => {
                let event = self.connections.received(&mut self.ring, completion, slot, generation);
                match (event, completion.buffer) {
                    (SocketEvent::Received { conn, bytes }, Some(buffer)) => {
                        let bytes = self.buffers.bytes(buffer, bytes);
                        self.reactor.step(self.now, Input::Received { conn, bytes });
                    }
                    (SocketEvent::Kept { conn, bytes }, Some(buffer)) => {
                        self.connections.keep(conn, self.buffers.bytes(buffer, bytes));
                    }
                    _ => {}
                }
                completion.buffer.into_iter().for_each(|buffer| self.buffers.put(buffer));
                self.tell(event);
            }
            Tag::Send { slot, generation } => {
                let event =
                    self.connections.sent(&mut self.ring, self.now, completion.result, slot, generation);
                self.tell(event);
            }
            Tag::Write(place) => self.written(place, completion.result, false),
            Tag::Sync(place) => self.written(place, completion.result, true),
            Tag::Accept(listener) => self.accepted(listener, completion),
            Tag::Connect(place) => {
                self.dials.connected(&mut self.ring, self.now, place, completion.result);
                self.tell_dials();
            }
            Tag::Wake => {
                assert!(completion.result == 8, "a wake cannot be read: {}", completion.result);
                let wake = self.shared.wakers.waker(self.id).as_fd();
                // SAFETY: as at the first.
                unsafe { self.ring.wait_for_wake(wake, &raw mut *self.wakes) };
            }
            Tag::Cancel => {}
        }
    }

    fn tell(&mut self, event: SocketEvent) {
        match event {
            SocketEvent::Nothing | SocketEvent::Received { .. } => {}
            SocketEvent::Kept { conn, .. } => self.hand_over(conn),
            SocketEvent::Sent { conn, bytes } => self.step(Input::Sent { conn, bytes }),
            SocketEvent::Ended { conn } => self.step(Input::Ended { conn }),
            SocketEvent::Closed { conn, party } => {
                self.shared.loads.left(usize::from(self.id.0), party);
                self.step(Input::Closed { conn });
            }
        }
    }

    fn written(&mut self, place: u32, result: i32, sync: bool) {
        match self.log.completed(place, result, sync) {
            Ok(Some((write, buffer))) => self.step(Input::Written { write, buffer }),
            Ok(None) => {}
            Err(failed) => self.log_has_failed(&failed),
        }
    }

    fn log_has_failed(&self, failed: &Failed) -> ! {
        let fields = vec![("segment", failed.segment.to_string()), ("error", failed.error.to_string())];
        self.shared.logger.halt("a write to the log failed: nothing more can be promised", fields)
    }

    fn accepted(&mut self, listener: u32, completion: &Completion) {
        if completion.result >= 0 {
            let port = self.listeners[listener as usize].port;
            self.spread(kernel::adopt(completion.result), port);
        }
        if !completion.more && self.accepts(listener) {
            let error = std::io::Error::from_raw_os_error(-completion.result.min(0));
            if completion.result < 0 && self.silent.is_empty() {
                let fields = vec![("error", error.to_string())];
                self.shared.logger.warn("cannot accept connections; trying again", fields);
            }
            self.silent.push(listener);
            self.accept_at = self.now + Duration::from_ms(ACCEPT_RETRY_MS);
        }
    }

    /// Whether a listener is still listened to: other members are, as long as anything is to be said to them.
    fn accepts(&self, listener: u32) -> bool {
        self.stop_by.is_none() || self.listeners[listener as usize].port == Port::Peer
    }

    /// Clients go to the reactor that has the fewest. Who calls another member's port says where it wants to go.
    fn spread(&mut self, fd: OwnedFd, port: Port) {
        let (here, party) = (usize::from(self.id.0), Party::of(port));
        let reactor = if party == Party::Peer { here } else { self.shared.loads.assign() };
        if reactor == here {
            return self.open(fd, port);
        }
        self.arrives(ReactorId(reactor as u16), Arrival { fd, party, from: Origin::Listener(port) });
    }

    /// A connection comes to another reactor.
    fn arrives(&self, reactor: ReactorId, arrival: Arrival) {
        self.shared.arrivals[usize::from(reactor.0)].push(arrival);
        self.shared.wakers.notify(reactor);
    }

    fn open(&mut self, fd: OwnedFd, port: Port) {
        let conn = self.connections.add(&mut self.ring, fd, Party::of(port));
        self.step(Input::Opened { conn, port });
    }

    /// Moves a connection to another reactor, or sends it back where that one has enough clients.
    fn hand(&mut self, conn: ConnId, to: ReactorId, state: ConnectionState) {
        let party = self.connections.party(conn);
        if !self.shared.loads.moves(usize::from(self.id.0), usize::from(to.0), party) {
            return self.step(Input::Moved { conn, state });
        }
        self.connections.begin_move(&mut self.ring, conn, to, state);
        self.hand_over(conn);
    }

    fn hand_over(&mut self, conn: ConnId) {
        if let Some((to, arrival)) = self.connections.take_moved(conn) {
            self.arrives(to, arrival);
        }
    }

    fn take_arrivals(&mut self) {
        for _ in 0..TURN_ARRIVALS_MAX {
            let Some(Arrival { fd, party, from }) = self.shared.arrivals[usize::from(self.id.0)].pop() else {
                break;
            };
            match from {
                Origin::Listener(port) => self.open(fd, port),
                Origin::Reactor { state, received } => {
                    let conn = self.connections.add(&mut self.ring, fd, party);
                    self.step(Input::Moved { conn, state });
                    if !received.is_empty() {
                        self.reactor.step(self.now, Input::Received { conn, bytes: &received });
                    }
                }
            }
        }
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.shared.lane.answer(self.id) {
            match answer {
                BulkAnswer::Done { job, done } => self.step(Input::Bulk { job, done }),
                BulkAnswer::Prepared { segment, file } => {
                    self.log.prepared(segment, file);
                    self.step(Input::Prepared { segment });
                }
                BulkAnswer::DiskFull { segment } => self.step(Input::DiskFull { segment }),
            }
        }
    }

    fn take_mail(&mut self) {
        for from in 0..self.shared.reactors() {
            for _ in 0..TURN_MAIL_MAX {
                let Some(mail) = self.shared.mail.take(from, usize::from(self.id.0)) else { break };
                self.step(Input::Mail { from: ReactorId(from as u16), mail });
            }
        }
    }

    fn take_names(&mut self) {
        while let Some(Found { dial, addresses }) = self.shared.names.found(self.id) {
            self.dials.found(&mut self.ring, self.now, dial, addresses);
        }
        self.tell_dials();
    }

    fn dial(&mut self, dial: DialId, url: &str) {
        if let Some(Lookup { dial, name }) = self.dials.dial(&mut self.ring, self.now, dial, url)
            && let Err(why) = self.shared.names.look_up(&name, self.id, dial)
        {
            self.dials.found(&mut self.ring, self.now, dial, Err(why));
        }
        self.tell_dials();
    }

    fn tell_dials(&mut self) {
        while let Some(DialEnd { dial, connected }) = self.dials.take_ended() {
            match connected {
                Ok(fd) => {
                    let conn = self.connections.add(&mut self.ring, fd, Party::Peer);
                    self.step(Input::Dialed { dial, conn });
                }
                Err(why) => self.step(Input::DialFailed { dial, why }),
            }
        }
    }

    /// Takes the process's figures. They wake no thread: a request for metrics goes to the first reactor too.
    fn take_figures(&mut self) {
        if self.id == ReactorId(0)
            && let Some(figures) = self.shared.process.pop()
        {
            self.step(Input::Process(figures));
        }
    }

    fn hear_stop(&mut self) {
        if self.stop_by.is_none() && self.shared.is_stopping() {
            self.stop_by = Some(self.now + Duration::from_secs(STOP_TIMEOUT_SECS));
            for listener in 0..self.listeners.len() as u32 {
                if !self.accepts(listener) {
                    self.ring.cancel(Tag::Accept(listener));
                }
            }
            self.step(Input::Stop);
        }
    }

    fn tell_wall(&mut self) {
        if self.wall_at <= self.now {
            self.wall_at = self.now + Duration::from_ms(WALL_CHECK_MS);
            self.step(Input::Wall { secs: wall_us() / 1_000_000 });
        }
    }

    fn keep_time(&mut self) {
        let Driver { connections, shared, reactor, .. } = self;
        let (now, id) = (self.now, usize::from(self.id.0));
        connections.on_time(now, |conn, party| {
            shared.loads.left(id, party);
            reactor.step(now, Input::Closed { conn });
        });
        if self.accept_at <= now {
            self.accept_at = Time::NEVER;
            for listener in std::mem::take(&mut self.silent) {
                if self.accepts(listener) {
                    self.ring.accept(listener, self.listeners[listener as usize].socket.as_fd());
                }
            }
        }
        self.dials.on_time(&mut self.ring, now);
        self.tell_dials();
    }

    /// Tells the reactor where `settled` stands, once per turn at most, what this turn's completions moved
    /// included.
    fn take_settled(&mut self) {
        let settled = self.shared.sequencer.settled();
        if settled != self.settled {
            self.settled = settled;
            self.shared.wakers.settled(settled);
            self.step(Input::Settled(settled));
        }
    }

    /// Tells the others at once where flushing moved `settled`; this reactor hears of it in its next turn.
    fn announce_settled(&self) {
        let settled = self.shared.sequencer.settled();
        if settled != self.settled {
            self.shared.wakers.settled(settled);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { conn, bytes } => {
                let bytes = self.connections.send(&mut self.ring, conn, bytes);
                if bytes > 0 {
                    self.step(Input::Sent { conn, bytes });
                }
            }
            Output::SendChunks { conn, chunks } => {
                let bytes = self.connections.send_chunks(&mut self.ring, conn, chunks);
                if bytes > 0 {
                    self.step(Input::Sent { conn, bytes });
                }
            }
            Output::Dial { dial, url } => self.dial(dial, &url),
            Output::Move { conn, to, state } => self.hand(conn, to, state),
            Output::Close { conn } => self.connections.close(&mut self.ring, self.now, conn),
            Output::Mail { to, mail } => {
                if self.outbox.send(&self.shared.mail, usize::from(to.0), mail) {
                    self.shared.wakers.notify(to);
                }
            }
            Output::Log(command) => self.log_command(command),
            Output::Bulk { job, step } => {
                self.orders.push_back(Order::Step { reactor: self.id, job, step });
            }
            Output::Haste(haste) => self.shared.lane.hasten(self.id, haste),
            Output::LogWaits(waits) => self.shared.lane.log_waits(self.id, waits),
            Output::StandsAlone => {
                if let Err(error) = self.log.stands_alone() {
                    let fields = vec![("error", error.to_string())];
                    self.shared.logger.halt("cannot write that this member is the only one", fields);
                }
            }
            Output::LogLine(line) => self.say(line),
            Output::Halt(reason) => self.shared.logger.halt(&reason, vec![]),
        }
    }

    /// Writes a line to the log, with what a reactor does not know: the wall clock and the address of a client.
    fn say(&self, mut line: LogLine) {
        for (_, value) in &mut line.fields.0 {
            match *value {
                Value::Moment(moment) => {
                    let ago = self.shared.clock.now().since(moment);
                    *value = timestamp(wall_us().saturating_sub(ago.0 / 1_000)).into();
                }
                Value::Client(conn) => {
                    let client = self.connections.peer(conn);
                    *value = client.map_or("No remote client info.".into(), |peer| peer.to_string().into());
                }
                _ => {}
            }
        }
        self.shared.logger.reactor(self.id.0, line);
    }

    fn log_command(&mut self, command: Command) {
        let reactor = self.id;
        match command {
            Command::Write { id, segment, offset, bytes } => {
                if let Err(failed) = self.log.write(&mut self.ring, id, segment, offset, bytes) {
                    self.log_has_failed(&failed);
                }
            }
            Command::Prepare { segment, bytes, keep_free } => {
                self.orders.push_back(Order::Prepare { reactor, segment, bytes, keep_free });
            }
            Command::Recycle { old, new } => {
                self.orders.push_back(Order::Recycle { reactor, old, new });
            }
            Command::Remove { segment } => self.orders.push_back(Order::Remove { segment }),
        }
    }

    fn give_orders(&mut self) {
        while let Some(order) = self.orders.pop_front() {
            if let Err(order) = self.shared.lane.order(order) {
                self.orders.push_front(order);
                break;
            }
        }
    }

    /// Whether this thread may end: the clients of all reactors are gone, or the time to wait is
    /// over. Until then members are listened to and heard; they
    /// see the process end.
    fn may_leave(&mut self) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let over = self.now >= stop_by;
        let arrivals = &self.shared.arrivals[usize::from(self.id.0)];
        let done = self.connections.open(Party::Client) == 0 && arrivals.is_empty() && self.reactor.is_done();
        if done && !self.is_done {
            self.is_done = true;
            self.shared.is_done();
        }
        over || (self.shared.all_are_done() && self.log.is_idle() && self.reactor.log_is_at_rest())
    }
}
