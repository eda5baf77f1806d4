//! One client connection: HTTP/2 with gRPC, or HTTP/1 with pages.

use super::grpc::Http2;
use super::long::Pump;
use super::rpc::Call;
use super::{Ask, Counters, Held, Lost, Manners, Rpc, Untaken, protocol};
use crate::api::{Code, Error};
use crate::http2::StreamId;
use crate::io::{Output, Port};
use crate::limits::{FrontBounds, HTTP1_BODY_BYTES_MAX, HTTP1_HEAD_BYTES_MAX};
use crate::types::{ConnId, Duration, Time};
use crate::wire::encode::Long;
use crate::wire::health;
use crate::wire::http1::{self, Audience, Http1Request, HttpMethod, Response, Sniffed};

pub(super) enum Protocol {
    /// Too few bytes to tell.
    Unknown(Vec<u8>),
    Http1(Http1),
    Http2(Box<Http2>),
}

pub(super) struct Http1 {
    audience: Audience,
    /// Received, and not yet a whole request.
    received: Vec<u8>,
    /// The request being answered: the next is read after it.
    answering: Option<(HttpMethod, bool)>,
    /// The client sends nothing more: it waits for the answers to what it has asked.
    ended: bool,
    output: Vec<u8>,
}

impl Protocol {
    pub fn http1(port: Port) -> Protocol {
        let audience = match port {
            Port::Client => Audience::Everyone,
            Port::Metrics => Audience::Scrapers,
        };
        Protocol::Http1(Http1 { audience, received: vec![], answering: None, ended: false, output: vec![] })
    }
}

/// How long a client may take that speaks HTTP/1, or has not said what it speaks. (Go's server waits
/// without end, unless told otherwise, and etcd tells it nothing; descriptors are worth more than that.)
#[derive(Clone, Copy)]
enum Patience {
    /// A request has begun, or the connection has.
    Request { until: Time },
    /// All requests are answered.
    Idle { until: Time },
    /// It is our turn, or HTTP/2 keeps the time.
    Endless,
}

impl Patience {
    fn request(now: Time, bounds: &FrontBounds) -> Patience {
        Patience::Request { until: now + Duration::from_secs(bounds.http1_request_secs_max) }
    }

    fn idle(now: Time, bounds: &FrontBounds) -> Patience {
        Patience::Idle { until: now + Duration::from_secs(bounds.http1_idle_secs_max) }
    }

    fn until(self) -> Time {
        match self {
            Patience::Request { until } | Patience::Idle { until } => until,
            Patience::Endless => Time::NEVER,
        }
    }
}

pub(super) struct Connection {
    pub id: ConnId,
    protocol: Protocol,
    bounds: FrontBounds,
    /// Handed out and not yet with the kernel.
    unsent: usize,
    /// As it was last taken into account.
    held: Held,
    /// Whether the kernel has taken anything since the last look at its reader, and how often it had not.
    moves: bool,
    checks: u32,
    patience: Patience,
    is_marked: bool,
    closing: bool,
    close_asked: bool,
}

impl Connection {
    pub fn new(now: Time, id: ConnId, port: Port, bounds: &FrontBounds) -> Connection {
        Connection {
            id,
            protocol: protocol(port),
            bounds: *bounds,
            unsent: 0,
            held: Held::default(),
            moves: false,
            checks: 0,
            patience: Patience::request(now, bounds),
            is_marked: true,
            closing: false,
            close_asked: false,
        }
    }

    /// Whether it was not yet among those to be flushed.
    pub fn mark(&mut self) -> bool {
        !std::mem::replace(&mut self.is_marked, true)
    }

    /// Everything handed out is sent, then the connection is closed.
    pub fn close(&mut self) {
        self.closing = true;
    }

    pub fn shutdown(&mut self, counters: &mut Counters) {
        match &mut self.protocol {
            Protocol::Unknown(_) => self.closing = true,
            Protocol::Http1(http1) => match &mut http1.answering {
                Some((_, keep_alive)) => *keep_alive = false,
                None => self.closing = true,
            },
            Protocol::Http2(http2) => {
                // Streams that never end by themselves end now: etcd's clients go elsewhere.
                http2.end_streams(counters);
                http2.connection.shutdown_now();
                self.closing |= http2.connection.is_drained();
            }
        }
    }

    pub fn receive(
        &mut self,
        now: Time,
        bytes: &[u8],
        manners: &Manners,
        counters: &mut Counters,
        asks: &mut Vec<Ask>,
    ) {
        if self.closing {
            return;
        }
        match &mut self.protocol {
            Protocol::Unknown(before) => {
                before.extend_from_slice(bytes);
                let sniffed = http1::sniff(before);
                let before = std::mem::take(before);
                match sniffed {
                    Sniffed::NeedMore => {
                        self.protocol = Protocol::Unknown(before);
                        return;
                    }
                    Sniffed::Http1 => self.protocol = Protocol::http1(Port::Client),
                    Sniffed::Http2 => {
                        self.patience = Patience::Endless;
                        self.protocol = Protocol::Http2(Box::new(Http2::new(manners, now)));
                    }
                }
                self.receive(now, &before, manners, counters, asks);
            }
            Protocol::Http1(http1) => {
                http1.received.extend_from_slice(bytes);
                self.read_http1(now, asks);
            }
            Protocol::Http2(http2) => {
                if http2.receive(self.id, now, bytes, manners, counters, asks).is_err() {
                    http2.cancel_calls(self.id, counters, asks);
                    self.closing = true;
                }
            }
        }
    }

    /// Reads the next request, unless one is being answered or the client does not take its answers.
    fn read_http1(&mut self, now: Time, asks: &mut Vec<Ask>) {
        let Protocol::Http1(http1) = &mut self.protocol else { return };
        if self.closing {
            return;
        }
        if http1.answering.is_some() || self.unsent + http1.output.len() >= self.bounds.unsent_bytes_max {
            // Requests behind it may come, and nobody needs many.
            self.closing = http1.received.len() > HTTP1_HEAD_BYTES_MAX + HTTP1_BODY_BYTES_MAX;
            return;
        }
        match http1::parse(&http1.received) {
            Ok(None) => {
                // The first byte of a request begins its time; the others do not prolong it.
                self.closing |= http1.ended;
                if !http1.received.is_empty() && matches!(self.patience, Patience::Idle { .. }) {
                    self.patience = Patience::request(now, &self.bounds);
                }
            }
            Ok(Some((request, taken))) => {
                self.patience = Patience::Endless;
                http1.received.drain(..taken);
                let Http1Request { ref method, keep_alive, .. } = request;
                http1.answering = Some((method.clone(), keep_alive));
                asks.push(Ask::Page {
                    rpc: Rpc::page(self.id),
                    page: health::page(&request, http1.audience),
                });
            }
            Err(refusal) => {
                refusal.write_refusal(&mut http1.output);
                self.closing = true;
            }
        }
    }

    /// The client sends nothing more. To HTTP/2 that is the connection's end, as to grpc-go.
    pub fn ended(&mut self, now: Time, counters: &mut Counters, asks: &mut Vec<Ask>) {
        match &mut self.protocol {
            Protocol::Unknown(_) => self.closing = true,
            Protocol::Http1(http1) => {
                http1.ended = true;
                self.read_http1(now, asks);
            }
            Protocol::Http2(http2) => {
                http2.cancel_calls(self.id, counters, asks);
                self.closing = true;
            }
        }
    }

    /// `wall_secs`: the time it is dated with.
    pub fn page(&mut self, now: Time, response: &Response, wall_secs: Option<u64>, asks: &mut Vec<Ask>) {
        let Protocol::Http1(http1) = &mut self.protocol else { return };
        let Some((method, keep_alive)) = http1.answering.take() else { return };
        response.write(&mut http1.output, &method, keep_alive, http1.audience, wall_secs);
        if !keep_alive {
            self.closing = true;
        }
        self.patience = Patience::idle(now, &self.bounds);
        self.read_http1(now, asks);
    }

    pub fn sent(&mut self, now: Time, bytes: usize, asks: &mut Vec<Ask>) {
        self.unsent = self.unsent.checked_sub(bytes).expect("the kernel takes what was handed out");
        self.moves |= bytes > 0;
        self.read_http1(now, asks);
    }

    /// What it held when it was last taken into account.
    pub fn held(&self) -> Held {
        self.held
    }

    /// What it holds, with what it held when this was last asked.
    pub fn account(&mut self) -> (Held, Held) {
        let (requests, lists) = match &self.protocol {
            Protocol::Http2(http2) => (http2.calls.parts(), http2.calls.held()),
            _ => (0, 0),
        };
        let held = Held { answers: self.answers(), lists, requests };
        (held, std::mem::replace(&mut self.held, held))
    }

    /// Bytes that were written for the client and are not yet with the kernel.
    fn written(&self) -> usize {
        self.unsent
            + match &self.protocol {
                Protocol::Unknown(_) => 0,
                Protocol::Http1(http1) => http1.output.len(),
                Protocol::Http2(http2) => http2.connection.output().len() + http2.connection.pending_bytes(),
            }
    }

    /// The same with what is left of messages begun.
    fn answers(&self) -> usize {
        self.written() + if let Protocol::Http2(http2) = &self.protocol { http2.longs.left() } else { 0 }
    }

    /// Whether so much waits for the client that more is written only as it takes it.
    pub fn is_backed_up(&self, full: bool) -> bool {
        full || self.written() >= self.bounds.unsent_bytes_max
    }

    /// While others wait for what this client does not take. Says what it has lost for that.
    pub fn check_reader(&mut self, counters: &mut Counters, asks: &mut Vec<Ask>) -> Untaken {
        let moves = std::mem::take(&mut self.moves);
        let written = self.written();
        let waits = written > self.bounds.connection_answers_bytes_min;
        self.checks = if moves || !waits { 0 } else { self.checks + 1 };
        let (behind, checks_max) = (self.is_behind(), self.bounds.reader_checks_max);
        let mut untaken = Untaken::default();
        if let Protocol::Http2(http2) = &mut self.protocol {
            untaken = http2.end_unread(self.id, checks_max, moves && behind, counters, asks);
        }
        if self.checks > checks_max && !self.closing {
            if let Protocol::Http2(http2) = &mut self.protocol {
                http2.connection.give_up("answers_not_taken");
                http2.cancel_calls(self.id, counters, asks);
            }
            self.closing = true;
            untaken = Untaken { closes: true, bytes: untaken.bytes + written as u64, ..untaken };
        }
        untaken
    }

    /// The longest answer that is taken; `full`: all connections together hold too much.
    pub fn spare(&self, full: bool, manners: &Manners) -> usize {
        let answers = self.answers();
        let bounds = &self.bounds;
        if full || answers >= manners.http2.bounds.pending_bytes_max {
            bounds.connection_answers_bytes_min.saturating_sub(answers).max(bounds.answer_bytes_min)
        } else {
            usize::MAX
        }
    }

    /// Lets the connection keep so many bytes of requests that are not whole.
    pub fn allow_parts(&mut self, bytes: usize) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.calls.parts_max = bytes;
        }
    }

    /// Bytes that streams together may send now.
    fn stream_room(&self, full: bool) -> usize {
        let Protocol::Http2(http2) = &self.protocol else { return 0 };
        let bounds = &self.bounds;
        let unsent_room = bounds.unsent_bytes_max.saturating_sub(self.unsent);
        let room = unsent_room.min(http2.connection.send_room());
        let least = || bounds.connection_answers_bytes_min.saturating_sub(self.written());
        if full { room.min(least()) } else { room }
    }

    /// Tells the streams that wait for room when there is some.
    pub fn wake(&mut self, full: bool, asks: &mut Vec<Ask>) {
        if self.stream_room(full) == 0 {
            return;
        }
        let id = self.id;
        if let Protocol::Http2(http2) = &mut self.protocol {
            let waiting = http2.calls.take_waiting().into_iter();
            asks.extend(waiting.map(|stream| Ask::Room { rpc: Rpc::stream(id, stream) }));
        }
    }

    /// The connection is gone.
    pub fn end(mut self, counters: &mut Counters, asks: &mut Vec<Ask>) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.cancel_calls(self.id, counters, asks);
        }
    }

    pub fn answer(&mut self, stream: StreamId, outcome: Result<&[u8], &Error>, counters: &mut Counters) {
        let Protocol::Http2(http2) = &mut self.protocol else { return };
        http2.answer(stream, outcome, counters);
    }

    /// A unary call that is being answered.
    pub fn call(&mut self, rpc: Rpc) -> Option<&mut Call> {
        let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) else {
            return None;
        };
        http2.calls.get_mut(stream)
    }

    pub fn message(
        &mut self,
        rpc: Rpc,
        message: Result<&[u8], Error>,
        counters: &mut Counters,
    ) -> Option<Lost> {
        let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) else {
            return None;
        };
        http2.message(stream, message, counters)
    }

    pub fn finish(&mut self, stream: StreamId, outcome: Result<(), Error>, counters: &mut Counters) {
        let Protocol::Http2(http2) = &mut self.protocol else { return };
        http2.finish(stream, outcome, counters);
    }

    pub fn method(&self, rpc: Rpc) -> Option<crate::wire::Method> {
        let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&self.protocol, rpc.place) else {
            return None;
        };
        http2.calls.get(stream).map(|call| call.method)
    }

    /// Bytes that a stream may send now.
    pub fn budget(&mut self, rpc: Rpc, full: bool) -> usize {
        let room = self.stream_room(full);
        let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) else {
            return 0;
        };
        let Some(call) = http2.calls.get(stream) else { return 0 };
        if call.long.is_some() {
            return 0; // it hears of room when that has been sent
        }
        if room == 0 {
            http2.calls.wait(stream);
        }
        http2.connection.send_budget(stream).min(room)
    }

    /// Who feeds a stream holds so much for it.
    pub fn holds(&mut self, rpc: Rpc, bytes: usize) {
        if let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) {
            http2.calls.hold(stream, bytes);
        }
    }

    /// So much is held of an answer that is still being read.
    pub fn gather(&mut self, rpc: Rpc, bytes: usize) {
        if let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) {
            http2.calls.gather(stream, bytes);
        }
    }

    pub fn gathers(&self, rpc: Rpc) -> usize {
        match (&self.protocol, rpc.place) {
            (Protocol::Http2(http2), super::Place::Stream(stream)) => http2.calls.gathers(stream),
            _ => 0,
        }
    }

    pub fn pause(&mut self, rpc: Rpc) {
        if let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) {
            http2.calls.pause(stream);
        }
    }

    pub fn is_paused(&self, rpc: Rpc) -> bool {
        match (&self.protocol, rpc.place) {
            (Protocol::Http2(http2), super::Place::Stream(stream)) => http2.calls.is_paused(stream),
            _ => false,
        }
    }

    pub fn read_on(&mut self, rpc: Rpc, messages: usize, counters: &mut Counters, asks: &mut Vec<Ask>) {
        let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) else {
            return;
        };
        match http2.calls.read_on(self.id, stream, messages, counters, asks) {
            Ok(bytes) => http2.connection.consumed_of_stream(stream, bytes),
            Err(error) => {
                asks.push(Ask::Gone { rpc });
                http2.finish(stream, Err(error), counters);
            }
        }
    }

    /// Whether streams wait for the socket to take what was written, rather than for the client's windows.
    fn is_behind(&self) -> bool {
        let Protocol::Http2(http2) = &self.protocol else { return false };
        self.unsent >= self.bounds.unsent_bytes_max || http2.connection.is_full()
    }

    pub fn wake_at(&self) -> Time {
        match &self.protocol {
            Protocol::Http2(http2) => http2.connection.wake_at().min(http2.calls.next_deadline()),
            _ if self.closing => Time::NEVER,
            _ => self.patience.until(),
        }
    }

    pub fn on_time(&mut self, now: Time, counters: &mut Counters, asks: &mut Vec<Ask>) {
        let Protocol::Http2(http2) = &mut self.protocol else {
            self.closing |= self.patience.until() <= now;
            return;
        };
        if http2.connection.wake_at() <= now && http2.connection.on_time(now).is_err() {
            http2.cancel_calls(self.id, counters, asks);
            self.closing = true;
        }
        for stream in http2.calls.late(now) {
            asks.push(Ask::Gone { rpc: Rpc::stream(self.id, stream) });
            let code = Code::DeadlineExceeded;
            http2.finish(
                stream,
                Err(Error::Other { code, text: "context deadline exceeded".into() }),
                counters,
            );
        }
    }

    /// Begins a message that is sent as its stream takes it.
    pub fn begin_long(&mut self, rpc: Rpc, message: Long) {
        if let (Protocol::Http2(http2), super::Place::Stream(stream)) = (&mut self.protocol, rpc.place) {
            http2.begin_long(stream, message);
        }
    }

    pub fn has_longs(&self) -> bool {
        matches!(&self.protocol, Protocol::Http2(http2) if http2.longs.any())
    }

    /// Goes on with long messages. True where the next turn can do more of it though nothing comes in.
    pub fn pump_longs(&mut self, pump: &mut Pump<'_>, full: bool) -> bool {
        let room = self.stream_room(full);
        let Protocol::Http2(http2) = &mut self.protocol else { return false };
        http2.longs.any() && http2.pump_longs(room, pump)
    }

    /// Hands out what was written, and closes if that is all. Returns the bytes handed out.
    pub fn flush(&mut self, out: &mut Vec<Output>) -> usize {
        self.is_marked = false;
        let mut bytes = vec![];
        match &mut self.protocol {
            Protocol::Unknown(_) => {}
            Protocol::Http1(http1) => bytes = std::mem::take(&mut http1.output),
            Protocol::Http2(http2) => {
                if !http2.connection.output().is_empty() {
                    http2.connection.take_output(&mut bytes);
                }
                self.closing |= http2.connection.is_drained();
            }
        }
        let len = bytes.len();
        if len > 0 {
            self.unsent += len;
            out.push(Output::Send { conn: self.id, bytes });
        }
        if self.closing && !self.close_asked {
            self.close_asked = true;
            out.push(Output::Close { conn: self.id });
        }
        len
    }
}
