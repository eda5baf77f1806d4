//! The clients' side of a reactor: connections, and the RPCs on them.
//!
//! [`Front`] turns received bytes into [`Ask`]s and answers into bytes. It knows the rules of gRPC and HTTP
//! and nothing of keys. What a connection may hold is bounded: streams by HTTP/2's limit, requests by
//! their windows, answers by budgets that streams pull by ([`Front::budget`]).

mod accounting;
mod affinity;
mod connection;
mod grpc;
mod lists;
mod long;
mod rpc;
#[cfg(test)]
mod tests;

pub use crate::wire::{MethodCounters, RpcCounters};

use crate::api::{
    Answer, Code, Error, KeepAliveReply, RangeReply, RangeRequest, Reply, Request, ServingStatus, WatchReply,
    WatchRequest,
};
use crate::http2::{self, StreamId};
use crate::io::{ConnectionState, Output, Port};
use crate::limits::{FRONT_SCRATCH_KEEP_BYTES, FrontBounds, REPLY_BYTES_MAX, REQUEST_OVERHEAD_BYTES};
use crate::types::{ConnId, LeaseId, ReactorId, Term, Time};
use crate::wire::encode::LongMessage;
use crate::wire::health::Page;
use crate::wire::http1::Http1Response;
use crate::wire::{Header, Method, Timed, TooLong, decode, encode};
use accounting::{Accounting, HeldBytes};
use bytes::Bytes;
use connection::{ClientConnection, Protocol};
use lists::{DeferredRequests, has_place};
use long::SendTurn;

/// Names one call of one client: nothing else ever has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rpc {
    pub conn: ConnId,
    exchange: Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Exchange {
    Stream(StreamId),
    /// The one request of HTTP/1 that is being answered.
    Page,
}

/// Who asks, as far as the headers of a call say it. Every request carries it to the door, where it is looked at
/// before anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `hasleader`: nothing is to be done for it while this member knows no leader.
    pub requires_leader: bool,
}

/// What a client wants.
#[derive(Debug, PartialEq)]
pub enum Ask {
    /// `bytes`: the length of its message.
    Call {
        rpc: Rpc,
        caller: Caller,
        request: Request,
        bytes: usize,
    },
    RangeStream {
        rpc: Rpc,
        caller: Caller,
        request: RangeRequest,
    },
    KeepAlive {
        rpc: Rpc,
        caller: Caller,
        lease: LeaseId,
    },
    Watch {
        rpc: Rpc,
        caller: Caller,
        request: WatchRequest,
    },
    /// The client wants the status of a service, and every change of it.
    HealthWatch {
        rpc: Rpc,
        caller: Caller,
        service: String,
    },
    /// The client sends nothing more on this stream.
    Ended {
        rpc: Rpc,
    },
    /// The call is gone: nobody waits for its answer.
    Gone {
        rpc: Rpc,
    },
    Page {
        rpc: Rpc,
        page: Page,
    },
    /// A stream that was told to wait may send again.
    Writable {
        rpc: Rpc,
    },
}

/// What a client has lost, as it took nothing for long while others waited for what was held for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderLoss {
    pub answers: u64,
    /// How many bytes were held for it.
    pub bytes: u64,
    /// Whether it loses the connection as well.
    pub closes: bool,
}

/// What is known of a unary call.
#[derive(Clone, Copy, Debug)]
pub struct CallInfo {
    pub method: Method,
    pub begun: Time,
    /// The histogram that its duration counts in.
    pub timed: Option<Timed>,
}

/// The settings that all connections of a reactor share.
#[derive(Clone, Debug)]
pub struct FrontConfig {
    pub header: Header,
    pub message_bytes_max: usize,
    /// Operations that a transaction may have: many more are refused unread.
    pub txn_ops_max: usize,
    /// The longest message that is sent.
    pub reply_bytes_max: usize,
    /// The settings' bounds; those on partial requests are raised where the longest request needs it.
    pub bounds: FrontBounds,
    pub http2: http2::Http2Config,
}

impl FrontConfig {
    pub fn new(
        header: Header,
        request_bytes_max: usize,
        txn_ops_max: usize,
        mut bounds: FrontBounds,
        http2: http2::Http2Config,
    ) -> FrontConfig {
        let message_bytes_max = request_bytes_max + REQUEST_OVERHEAD_BYTES;
        let messages_bytes = bounds.connection_partial_messages * message_bytes_max;
        bounds.connection_partial_bytes_max = bounds.connection_partial_bytes_max.max(messages_bytes);
        bounds.partial_bytes_max = bounds.partial_bytes_max.max(bounds.connection_partial_bytes_max);
        FrontConfig {
            header,
            message_bytes_max,
            txn_ops_max,
            reply_bytes_max: REPLY_BYTES_MAX,
            bounds,
            http2,
        }
    }
}

/// All connections of one reactor.
pub struct Front {
    config: FrontConfig,
    /// The connections by their slots.
    connections: Vec<Option<ClientConnection>>,
    accounting: Accounting,
    waiting: DeferredRequests,
    open: usize,
    stopping: bool,
    pub counters: RpcCounters,
    /// A buffer for encoding, kept between messages.
    scratch: Vec<u8>,
    /// Streams that have ended because their message could not be sent: their sources are to be told.
    lost: Vec<Rpc>,
    /// Streams whose long messages are sent: their sources are to be told.
    free: Vec<Rpc>,
    /// What clients have lost since [`Front::take_reader_losses`] was last called.
    reader_losses: Vec<(ConnId, ReaderLoss)>,
    wake_at: Time,
    wall_secs: Option<u64>,
}

impl Front {
    pub fn new(config: FrontConfig) -> Front {
        let answers_max = config.bounds.answers_bytes_max;
        let held = HeldBytes::default();
        Front {
            config,
            connections: vec![],
            accounting: Accounting {
                dirty: vec![],
                flushed: vec![],
                held,
                answers_max,
                full: false,
                relieved: false,
                fell: false,
            },
            waiting: DeferredRequests::default(),
            open: 0,
            stopping: false,
            counters: RpcCounters::default(),
            scratch: vec![],
            lost: vec![],
            free: vec![],
            reader_losses: vec![],
            wake_at: Time::NEVER,
            wall_secs: None,
        }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open
    }

    pub fn opened(&mut self, now: Time, conn: ConnId, port: Port) {
        let mut connection = ClientConnection::new(now, conn, port, &self.config.bounds);
        if self.stopping {
            connection.close();
        }
        self.insert(connection);
        self.wake_at = self.wake_at.min(now);
    }

    /// A connection has come from another reactor, or back. Returns whether from another.
    pub fn moved(&mut self, conn: ConnId, state: ConnectionState) -> bool {
        let mut connection = *state.0.downcast::<ClientConnection>().expect("it was a front that sent it");
        let is_other = connection.id.reactor != conn.reactor;
        connection.moved(conn);
        if self.stopping {
            connection.shutdown(&mut self.counters);
        }
        self.wake_at = self.wake_at.min(connection.wake_at());
        self.insert(connection);
        is_other
    }

    fn insert(&mut self, mut connection: ClientConnection) {
        let slot = connection.id.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        assert!(self.connections[slot].is_none(), "a slot holds one connection at a time");
        self.accounting.update(&mut connection);
        self.connections[slot] = Some(connection);
        self.open += 1;
    }

    /// A call's request goes to the shard of this reactor: connections go where their requests do.
    pub fn asks_of(&mut self, rpc: Rpc, reactor: ReactorId) {
        if let Some(connection) = of(&mut self.connections, rpc.conn) {
            connection.affinity.asked(reactor);
        }
    }

    /// Reads what a client sent, and appends what it wants.
    pub fn receive(&mut self, now: Time, conn: ConnId, bytes: &[u8], asks: &mut Vec<Ask>) {
        self.counters.now = now;
        self.counters.received_bytes += bytes.len() as u64;
        let Front { config, connections, counters, accounting, .. } = self;
        let Some(connection) = of(connections, conn) else { return };
        connection.allow_partial(accounting.partial_max(connection, config));
        connection.receive(now, bytes, config, counters, asks);
        accounting.update(connection);
        connection.wake(accounting.full, asks);
        self.wake_at = self.wake_at.min(connection.wake_at());
    }

    /// The kernel took bytes of this connection.
    pub fn sent(&mut self, now: Time, conn: ConnId, bytes: usize, asks: &mut Vec<Ask>) {
        let Front { connections, accounting, .. } = self;
        if let Some(connection) = of(connections, conn) {
            connection.sent(now, bytes, asks);
            accounting.update_sent(connection);
            connection.wake(accounting.full, asks);
        }
    }

    /// The client of this connection sends nothing more.
    pub fn ended(&mut self, now: Time, conn: ConnId, asks: &mut Vec<Ask>) {
        let Front { connections, counters, accounting, .. } = self;
        if let Some(connection) = of(connections, conn) {
            connection.ended(now, counters, asks);
            accounting.update(connection);
        }
    }

    /// What the wall clock shows: answers of HTTP/1 are dated by it.
    pub fn wall(&mut self, secs: u64) {
        self.wall_secs = Some(secs);
    }

    /// What the wall clock showed last.
    pub fn wall_secs(&self) -> Option<u64> {
        self.wall_secs
    }

    /// The connection is gone; so are its calls.
    pub fn closed(&mut self, conn: ConnId, asks: &mut Vec<Ask>) {
        let slot = conn.slot as usize;
        let Some(mut connection) = self.connections.get_mut(slot).and_then(|c| c.take_if(|c| c.id == conn))
        else {
            return;
        };
        self.open -= 1;
        self.accounting.forget(&mut connection);
        connection.end(&mut self.counters, asks);
    }

    /// No new calls; connections close when theirs are answered.
    pub fn stop(&mut self) {
        self.stopping = true;
        let Front { connections, counters, accounting, .. } = self;
        for connection in connections.iter_mut().flatten() {
            connection.shutdown(counters);
            accounting.update(connection);
            self.wake_at = self.wake_at.min(connection.wake_at());
        }
    }

    /// Whether no new calls are taken.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether every connection is done, after [`Front::stop`].
    #[cfg(test)]
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.open == 0
    }

    /// Streams whose clients want no stream without a leader.
    pub fn streams_requiring_leader(&self) -> impl Iterator<Item = Rpc> {
        self.connections.iter().flatten().flat_map(ClientConnection::streams_requiring_leader)
    }

    /// Answers a unary call.
    pub fn answer(&mut self, now: Time, rpc: Rpc, term: Term, answer: &Answer) {
        self.counters.now = now;
        let header = Header { raft_term: term, ..self.config.header };
        let Exchange::Stream(stream) = rpc.exchange else { unreachable!("pages are answered by pages") };
        self.waiting.answered(rpc);
        let mut scratch = std::mem::take(&mut self.scratch);
        let Front { config, connections, counters, accounting, .. } = self;
        let Some(connection) = of(connections, rpc.conn) else { return };
        let (longest, spare) = (config.reply_bytes_max, connection.spare(accounting.full, config));
        let outcome = answer.as_ref().map_err(Error::clone).and_then(|reply| {
            encode::reply(&mut scratch, &header, reply, spare.min(longest)).map_err(|too_long| {
                let is_taken = too_long.bytes <= longest;
                if is_taken { dropped(reply) } else { too_large("grpc: ", too_long, longest) }
            })
        });
        connection.answer(stream, outcome.as_ref().map(|()| &scratch[..]), counters);
        accounting.update(connection);
        self.keep(scratch);
    }

    /// A request has failed the checks that need no state: how long it takes counts nowhere.
    pub fn forget_duration(&mut self, rpc: Rpc) {
        if let Some(call) = of(&mut self.connections, rpc.conn).and_then(|connection| connection.call(rpc)) {
            call.timed = None;
        }
    }

    /// What is known of a unary call that is about to be answered.
    pub fn call_info(&mut self, rpc: Rpc) -> Option<CallInfo> {
        let call = of(&mut self.connections, rpc.conn)?.call(rpc)?;
        Some(CallInfo { method: call.method, begun: call.begun, timed: call.timed })
    }

    /// The request of a unary call that is about to be answered, as it came.
    pub fn request(&mut self, rpc: Rpc) -> Option<Request> {
        let txn_ops_max = self.config.txn_ops_max;
        let call = of(&mut self.connections, rpc.conn)?.call(rpc)?;
        decode::unary(call.method, call.request.as_ref()?, txn_ops_max).ok()
    }

    /// What a unary call was asked, as it came.
    pub fn message_of(&mut self, rpc: Rpc) -> Option<(Method, Bytes)> {
        let call = of(&mut self.connections, rpc.conn)?.call(rpc)?;
        Some((call.method, call.request.clone()?))
    }

    /// Answers a call with a reply that [`encode::is_long`], which is sent as its stream takes it. The call
    /// cannot be repeated, so a reply that may not be held is dropped.
    pub fn answer_long(&mut self, now: Time, rpc: Rpc, term: Term, reply: Reply) {
        let header = Header { raft_term: term, ..self.config.header };
        let Front { config, connections, accounting, .. } = self;
        let Some(connection) = of(connections, rpc.conn) else { return };
        if has_place(connection, rpc, accounting, &config.bounds) {
            self.begin_long(rpc, LongMessage::of_reply(&header, reply));
        } else {
            self.answer(now, rpc, term, &Err(dropped(&reply)));
        }
    }

    fn begin_long(&mut self, rpc: Rpc, message: LongMessage) {
        self.waiting.answered(rpc);
        let Front { connections, accounting, .. } = self;
        if let Some(connection) = of(connections, rpc.conn) {
            connection.begin_long(rpc, message);
            accounting.update(connection);
        }
    }

    fn keep(&mut self, mut scratch: Vec<u8>) {
        if scratch.capacity() <= FRONT_SCRATCH_KEEP_BYTES {
            scratch.clear();
            self.scratch = scratch;
        }
    }

    /// How many bytes a stream may send now; [`Ask::Writable`] comes when it may send more.
    pub fn budget(&mut self, rpc: Rpc) -> usize {
        let Some(connection) = of(&mut self.connections, rpc.conn) else { return 0 };
        connection.budget(rpc, self.accounting.full)
    }

    /// Reads nothing more of a stream whose client does not take its answers: as with etcd, it comes to its
    /// window's end, and its other streams go on.
    pub fn pause(&mut self, rpc: Rpc) {
        if let Some(connection) = of(&mut self.connections, rpc.conn) {
            connection.pause(rpc);
        }
    }

    pub fn is_paused(&mut self, rpc: Rpc) -> bool {
        of(&mut self.connections, rpc.conn).is_some_and(|connection| connection.is_paused(rpc))
    }

    /// Reads on where a stream was paused, at most `messages_max` messages. Where more are left, it stays
    /// paused.
    pub fn read_on(&mut self, rpc: Rpc, messages_max: usize, asks: &mut Vec<Ask>) {
        let Front { connections, counters, accounting, .. } = self;
        if let Some(connection) = of(connections, rpc.conn) {
            connection.read_on(rpc, messages_max, counters, asks);
            accounting.update(connection);
        }
    }

    /// Sends one message of a stream, which ends where it cannot be sent: [`Ask::Gone`] says so then.
    fn message(&mut self, rpc: Rpc, write: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), TooLong>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let bytes_max = self.config.reply_bytes_max;
        let written = write(&mut scratch, bytes_max);
        let message = written.map(|()| &scratch[..]).map_err(|too_long| too_large("", too_long, bytes_max));
        let Front { connections, counters, accounting, lost, .. } = self;
        if let Some(connection) = of(connections, rpc.conn) {
            if connection.message(rpc, message, counters) == Some(Lost) {
                lost.push(rpc);
                accounting.relieved = true; // of what waited on it
            }
            accounting.update(connection);
        }
        self.keep(scratch);
    }

    pub fn watched(&mut self, rpc: Rpc, term: Term, reply: &WatchReply) {
        let header = Header { raft_term: term, ..self.config.header };
        self.message(rpc, |out, bytes_max| encode::watch(out, &header, reply, bytes_max));
    }

    /// Sends a message that [`encode::is_long_watch`], as its stream takes it. Until then the stream has no
    /// budget.
    pub fn watched_long(&mut self, rpc: Rpc, term: Term, reply: WatchReply) {
        let header = Header { raft_term: term, ..self.config.header };
        self.begin_long(rpc, LongMessage::of_watch(&header, reply));
    }

    pub fn kept_alive(&mut self, rpc: Rpc, term: Term, reply: &KeepAliveReply) {
        let header = Header { raft_term: term, ..self.config.header };
        self.message(rpc, |out, bytes_max| encode::keep_alive(out, &header, reply, bytes_max));
    }

    /// Sends a message of a stream that another member has encoded.
    pub fn encoded(&mut self, rpc: Rpc, reply: &Reply) {
        let header = self.config.header;
        self.message(rpc, |out, bytes_max| encode::reply(out, &header, reply, bytes_max));
    }

    pub fn health(&mut self, rpc: Rpc, status: ServingStatus) {
        let header = self.config.header;
        let reply = Reply::Health(status);
        self.message(rpc, |out, bytes_max| encode::reply(out, &header, &reply, bytes_max));
    }

    /// Sends a part of a RangeStream.
    pub fn chunk(&mut self, rpc: Rpc, term: Term, reply: &RangeReply, last: bool) {
        let header = Header { raft_term: term, ..self.config.header };
        self.message(rpc, |out, bytes_max| encode::range_chunk(out, &header, reply, last, bytes_max));
    }

    /// Ends a stream's call.
    pub fn end(&mut self, rpc: Rpc, outcome: Result<(), Error>) {
        let Exchange::Stream(stream) = rpc.exchange else { unreachable!("a page is no stream") };
        let Front { connections, counters, accounting, .. } = self;
        if let Some(connection) = of(connections, rpc.conn) {
            connection.finish(stream, outcome, counters);
            accounting.update(connection);
        }
    }

    /// Answers a request of HTTP/1.
    pub fn page(&mut self, now: Time, rpc: Rpc, response: &Http1Response, asks: &mut Vec<Ask>) {
        if let Some(connection) = of(&mut self.connections, rpc.conn) {
            connection.page(now, response, self.wall_secs, asks);
            self.accounting.update(connection);
            let wake_at = connection.wake_at();
            self.wake_at = self.wake_at.min(wake_at);
        }
    }

    /// The method of a call that is still there.
    pub fn method(&mut self, rpc: Rpc) -> Option<Method> {
        of(&mut self.connections, rpc.conn)?.method(rpc)
    }

    /// Whether a client still waits for this answer.
    pub fn waits(&mut self, rpc: Rpc) -> bool {
        of(&mut self.connections, rpc.conn).is_some_and(|connection| connection.waits(rpc))
    }

    /// Whether [`Front::flush`] has something to hand out.
    pub fn has_more_to_send(&self) -> bool {
        !self.accounting.dirty.is_empty()
    }

    /// When [`Front::on_time`] has something to do; a time that has passed is now.
    pub fn wake_at(&self) -> Time {
        let news = self.accounting.relieved || !self.lost.is_empty() || !self.free.is_empty();
        let unwatched = self.accounting.full && self.waiting.check_at() == Time::NEVER;
        let looks = (self.waiting.is_idle() && self.accounting.fell) || unwatched;
        if news || looks { Time(0) } else { self.wake_at.min(self.waiting.check_at()) }
    }

    /// Does what is due by time (pings, deadlines of calls), and tells what could not be told at once: streams
    /// that ended while they were fed, capacity that other connections freed.
    pub fn on_time(&mut self, now: Time, asks: &mut Vec<Ask>) {
        self.counters.now = now;
        if now < self.wake_at() {
            return;
        }
        asks.extend(self.lost.drain(..).map(|rpc| Ask::Gone { rpc }));
        asks.extend(self.free.drain(..).map(|rpc| Ask::Writable { rpc }));
        let mut next = Time::NEVER;
        let Front { connections, counters, accounting, .. } = self;
        let relieved = std::mem::take(&mut accounting.relieved);
        for connection in connections.iter_mut().flatten() {
            if connection.wake_at() <= now {
                connection.on_time(now, counters, asks);
                accounting.update(connection);
                connection.wake(accounting.full, asks);
            }
            if relieved {
                connection.wake(accounting.full, asks);
                if connection.has_longs() {
                    accounting.update(connection);
                }
            }
            next = next.min(connection.wake_at());
        }
        self.wake_at = next;
        self.check_readers(now, asks);
        self.ask_anew(asks);
    }

    /// Hands out what the turn wrote, and its share of long messages: one send per connection.
    pub fn flush(&mut self, now: Time, out: &mut Vec<Output>) {
        self.counters.now = now;
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut turn = SendTurn {
            bytes: self.config.bounds.long_bytes_per_turn,
            packs: self.config.bounds.long_packed_bytes_per_turn,
            elements: self.config.bounds.long_elements_per_turn,
            bytes_max: self.config.reply_bytes_max,
            scratch: &mut scratch,
            counters: &mut self.counters,
            free: vec![],
            lost: vec![],
        };
        let Front { connections, accounting, .. } = self;
        let mut dirty = std::mem::replace(&mut accounting.dirty, std::mem::take(&mut accounting.flushed));
        for slot in dirty.drain(..) {
            let Some(connection) = &mut connections[slot as usize] else { continue };
            let again = connection.send_longs(&mut turn, accounting.full);
            let id = connection.id;
            self.free.extend(turn.free.drain(..).map(|stream| Rpc::stream(id, stream)));
            self.lost.extend(turn.lost.drain(..).map(|stream| Rpc::stream(id, stream)));
            turn.counters.sent_bytes += connection.flush(out) as u64;
            let (held, before) = connection.account();
            accounting.count(held, before);
            if again && connection.set_dirty() {
                accounting.dirty.push(slot);
            }
            if let Some(to) = connection.moves_to()
                && !self.stopping
            {
                let mut connection = connections[slot as usize].take().expect("it was there above");
                accounting.forget(&mut connection);
                self.open -= 1;
                out.push(Output::Move { conn: id, to, state: ConnectionState(Box::new(connection)) });
            }
        }
        self.accounting.flushed = dirty;
        self.keep(scratch);
    }
}

fn of(connections: &mut [Option<ClientConnection>], conn: ConnId) -> Option<&mut ClientConnection> {
    connections.get_mut(conn.slot as usize)?.as_mut().filter(|connection| connection.id == conn)
}

/// A stream has ended for what was to be sent on it.
#[derive(PartialEq)]
struct Lost;

/// The error is worded as grpc-go words it; unary calls and streams have different prefixes.
fn too_large(prefix: &str, TooLong { bytes }: TooLong, bytes_max: usize) -> Error {
    let text = format!("{prefix}trying to send message larger than max ({bytes} vs. {bytes_max})");
    Error::Other { code: Code::ResourceExhausted, text }
}

/// What a client is told whose answer is given up, though what it asked for may be done.
pub const DROPPED: &str = "grpc: the reply was dropped, as too many wait for their client";
pub const NOT_TAKEN: &str = "etcdserver: the answer was not taken in time";

/// The error for a reply that the connection cannot hold, because its client takes too little. A read is told
/// what etcd says of a request that it does not begin; a write has been done, so its text must differ.
fn dropped(reply: &Reply) -> Error {
    if matches!(reply, Reply::Range(_)) {
        return Error::TooManyRequests;
    }
    Error::Other { code: Code::ResourceExhausted, text: DROPPED.into() }
}

impl Rpc {
    fn stream(conn: ConnId, stream: StreamId) -> Rpc {
        Rpc { conn, exchange: Exchange::Stream(stream) }
    }

    fn page(conn: ConnId) -> Rpc {
        Rpc { conn, exchange: Exchange::Page }
    }
}

/// The methods whose calls end with the client's side.
pub fn ends_with_client(method: Method) -> bool {
    matches!(method, Method::Watch | Method::LeaseKeepAlive)
}

/// Which protocol a new connection may speak.
fn protocol(port: Port) -> Protocol {
    match port {
        Port::Client => Protocol::Unknown(vec![]),
        Port::Metrics | Port::Peer => Protocol::http1(port),
    }
}
