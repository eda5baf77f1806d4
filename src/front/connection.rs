//! One client connection: HTTP/2 with gRPC, or HTTP/1 with pages.

use super::affinity::Affinity;
use super::grpc::Http2;
use super::long::SendTurn;
use super::rpc::ClientCall;
use super::{Ask, FrontConfig, HeldBytes, Lost, ReaderLoss, Rpc, RpcCounters, protocol};
use crate::api::{Code, Error};
use crate::http2::StreamId;
use crate::io::{Output, Port};
use crate::limits::{FrontBounds, HTTP1_BODY_BYTES_MAX, HTTP1_HEAD_BYTES_MAX};
use crate::types::{ConnId, Duration, ReactorId, Time};
use crate::wire::encode::LongMessage;
use crate::wire::health;
use crate::wire::http1::{self, Audience, Http1Request, Http1Response, HttpMethod, Sniffed};

pub(super) enum Protocol {
    /// Too few bytes have come to tell.
    Unknown(Vec<u8>),
    Http1(Http1),
    Http2(Box<Http2>),
}

pub(super) struct Http1 {
    audience: Audience,
    /// Bytes received that are not yet a whole request.
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
            Port::Peer => Audience::Members,
        };
        Protocol::Http1(Http1 { audience, received: vec![], answering: None, ended: false, output: vec![] })
    }
}

/// How long a client may take that speaks HTTP/1, or has not said what it speaks. (Go's server waits
/// without end, unless told otherwise, and etcd tells it nothing; descriptors are worth more than that.)
#[derive(Clone, Copy)]
enum Http1Deadline {
    /// A request has begun, or the connection has.
    Request { until: Time },
    /// All requests are answered.
    Idle { until: Time },
    /// A request is being answered, or HTTP/2 keeps the time.
    Endless,
}

impl Http1Deadline {
    fn request(now: Time, bounds: &FrontBounds) -> Http1Deadline {
        Http1Deadline::Request { until: now + Duration::from_secs(bounds.http1_request_secs_max) }
    }

    fn idle(now: Time, bounds: &FrontBounds) -> Http1Deadline {
        Http1Deadline::Idle { until: now + Duration::from_secs(bounds.http1_idle_secs_max) }
    }

    fn until(self) -> Time {
        match self {
            Http1Deadline::Request { until } | Http1Deadline::Idle { until } => until,
            Http1Deadline::Endless => Time::NEVER,
        }
    }
}

pub(super) struct ClientConnection {
    pub id: ConnId,
    pub affinity: Affinity,
    protocol: Protocol,
    bounds: FrontBounds,
    /// Bytes handed out that the kernel has not taken yet.
    unsent: usize,
    /// What it held when [`ClientConnection::account`] was last called.
    held: HeldBytes,
    /// Whether the kernel has taken anything since the last look at its reader, and how often it had not.
    moves: bool,
    checks: u32,
    deadline: Http1Deadline,
    is_dirty: bool,
    closing: bool,
    close_asked: bool,
}

impl ClientConnection {
    pub fn new(now: Time, id: ConnId, port: Port, bounds: &FrontBounds) -> ClientConnection {
        ClientConnection {
            id,
            affinity: Affinity::new(),
            protocol: protocol(port),
            bounds: *bounds,
            unsent: 0,
            held: HeldBytes::default(),
            moves: false,
            checks: 0,
            deadline: Http1Deadline::request(now, bounds),
            is_dirty: false,
            closing: false,
            close_asked: false,
        }
    }

    /// The reactor that it moves to now: nothing is under way, and nothing waits to be sent.
    pub fn moves_to(&self) -> Option<ReactorId> {
        let Protocol::Http2(http2) = &self.protocol else { return None };
        let to = self.affinity.elsewhere(self.id.reactor)?;
        let at_rest = http2.connection.streams_len() == 0 && self.written() == 0 && !self.closing;
        (at_rest && !self.is_dirty).then_some(to)
    }

    /// It has come to the reactor that this name says, which has taken nothing of it into account.
    pub fn moved(&mut self, id: ConnId) {
        self.id = id;
        self.affinity.moved();
        self.held = HeldBytes::default();
    }

    /// Puts it among those to be flushed. False where it was there already.
    pub fn set_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.is_dirty, true)
    }

    /// Everything handed out is sent, then the connection is closed.
    pub fn close(&mut self) {
        self.closing = true;
    }

    pub fn shutdown(&mut self, counters: &mut RpcCounters) {
        match &mut self.protocol {
            Protocol::Unknown(_) => self.closing = true,
            Protocol::Http1(http1) => match &mut http1.answering {
                Some((_, keep_alive)) => *keep_alive = false,
                None => self.closing = true,
            },
            Protocol::Http2(http2) => {
                // Streams that never end by themselves end now: etcd's clients go elsewhere. Calls that were on their
                // way are served still.
                http2.end_streams(counters);
                http2.connection.shutdown(counters.now);
            }
        }
    }

    pub fn receive(
        &mut self,
        now: Time,
        bytes: &[u8],
        config: &FrontConfig,
        counters: &mut RpcCounters,
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
                        self.deadline = Http1Deadline::Endless;
                        self.protocol = Protocol::Http2(Box::new(Http2::new(config, now)));
                    }
                }
                self.receive(now, &before, config, counters, asks);
            }
            Protocol::Http1(http1) => {
                http1.received.extend_from_slice(bytes);
                self.read_http1(now, asks);
            }
            Protocol::Http2(http2) => {
                if http2.receive(self.id, now, bytes, config, counters, asks).is_err() {
                    http2.cancel_calls(self.id, counters, asks);
                    self.closing = true;
                }
                http2.end_late_streams(counters);
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
                if !http1.received.is_empty() && matches!(self.deadline, Http1Deadline::Idle { .. }) {
                    self.deadline = Http1Deadline::request(now, &self.bounds);
                }
            }
            Ok(Some((request, taken))) => {
                self.deadline = Http1Deadline::Endless;
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
    pub fn ended(&mut self, now: Time, counters: &mut RpcCounters, asks: &mut Vec<Ask>) {
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

    /// Sends the response to the request being answered, dated with `wall_secs`.
    pub fn page(&mut self, now: Time, response: &Http1Response, wall_secs: Option<u64>, asks: &mut Vec<Ask>) {
        let Protocol::Http1(http1) = &mut self.protocol else { return };
        let Some((method, keep_alive)) = http1.answering.take() else { return };
        response.write(&mut http1.output, &method, keep_alive, http1.audience, wall_secs);
        if !keep_alive {
            self.closing = true;
        }
        self.deadline = Http1Deadline::idle(now, &self.bounds);
        self.read_http1(now, asks);
    }

    pub fn sent(&mut self, now: Time, bytes: usize, asks: &mut Vec<Ask>) {
        self.unsent = self.unsent.checked_sub(bytes).expect("the kernel takes what was handed out");
        self.moves |= bytes > 0;
        self.read_http1(now, asks);
    }

    /// What it held when it was last taken into account.
    pub fn held(&self) -> HeldBytes {
        self.held
    }

    /// Returns what it holds now, and what it held when this was last called.
    pub fn account(&mut self) -> (HeldBytes, HeldBytes) {
        let (requests, lists) = match &self.protocol {
            Protocol::Http2(http2) => (http2.calls.partial(), http2.calls.held()),
            _ => (0, 0),
        };
        let held = HeldBytes { answers: self.answers(), lists, requests };
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

    /// Bytes written for the client, with what is left of long messages begun.
    fn answers(&self) -> usize {
        self.written() + if let Protocol::Http2(http2) = &self.protocol { http2.longs.left() } else { 0 }
    }

    /// Whether enough waits for the client that more is written only as the client takes it.
    pub fn is_backed_up(&self, full: bool) -> bool {
        full || self.written() >= self.bounds.unsent_bytes_max
    }

    /// Looks at this client while others wait for what it does not take. Says what it has lost for that.
    pub fn check_reader(&mut self, counters: &mut RpcCounters, asks: &mut Vec<Ask>) -> ReaderLoss {
        let moves = std::mem::take(&mut self.moves);
        let written = self.written();
        let waits = written > self.bounds.connection_answers_bytes_min;
        self.checks = if moves || !waits { 0 } else { self.checks + 1 };
        let (behind, checks_max) = (self.is_behind(), self.bounds.reader_checks_max);
        let closes = self.checks > checks_max && !self.closing;
        self.closing |= closes;
        let mut loss = ReaderLoss::default();
        if let Protocol::Http2(http2) = &mut self.protocol {
            loss = http2.end_unread(self.id, checks_max, moves && behind, counters, asks);
            if closes {
                http2.connection.give_up("answers_not_taken");
                http2.cancel_calls(self.id, counters, asks);
            }
        }
        if closes {
            loss = ReaderLoss { closes, bytes: loss.bytes + written as u64, ..loss };
        }
        loss
    }

    /// The longest answer that is taken; `full`: all connections together hold too much.
    pub fn spare(&self, full: bool, config: &FrontConfig) -> usize {
        let answers = self.answers();
        let bounds = &self.bounds;
        if full || answers >= config.http2.bounds.pending_bytes_max {
            bounds.connection_answers_bytes_min.saturating_sub(answers).max(bounds.answer_bytes_min)
        } else {
            usize::MAX
        }
    }

    /// Sets how many bytes of partial requests the connection may keep.
    pub fn allow_partial(&mut self, bytes: usize) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.calls.partial_max = bytes;
        }
    }

    /// How many bytes all streams together may send now.
    fn stream_capacity(&self, full: bool) -> usize {
        let Protocol::Http2(http2) = &self.protocol else { return 0 };
        let bounds = &self.bounds;
        let unsent_left = bounds.unsent_bytes_max.saturating_sub(self.unsent);
        let capacity = unsent_left.min(http2.connection.send_capacity());
        let least = || bounds.connection_answers_bytes_min.saturating_sub(self.written());
        if full { capacity.min(least()) } else { capacity }
    }

    /// Tells the streams that wait for capacity once there is some.
    pub fn wake(&mut self, full: bool, asks: &mut Vec<Ask>) {
        if self.stream_capacity(full) == 0 {
            return;
        }
        let id = self.id;
        if let Protocol::Http2(http2) = &mut self.protocol {
            let waiting = http2.calls.take_waiting().into_iter();
            asks.extend(waiting.map(|stream| Ask::Writable { rpc: Rpc::stream(id, stream) }));
        }
    }

    /// The connection is gone.
    pub fn end(mut self, counters: &mut RpcCounters, asks: &mut Vec<Ask>) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.cancel_calls(self.id, counters, asks);
        }
    }

    pub fn answer(&mut self, stream: StreamId, outcome: Result<&[u8], &Error>, counters: &mut RpcCounters) {
        let Protocol::Http2(http2) = &mut self.protocol else { return };
        http2.answer(stream, outcome, counters);
    }

    /// The call of that name, if it is still there.
    pub fn call(&mut self, rpc: Rpc) -> Option<&mut ClientCall> {
        let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        else {
            return None;
        };
        http2.calls.get_mut(stream)
    }

    pub fn message(
        &mut self,
        rpc: Rpc,
        message: Result<&[u8], Error>,
        counters: &mut RpcCounters,
    ) -> Option<Lost> {
        let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        else {
            return None;
        };
        http2.message(stream, message, counters)
    }

    pub fn finish(&mut self, stream: StreamId, outcome: Result<(), Error>, counters: &mut RpcCounters) {
        let Protocol::Http2(http2) = &mut self.protocol else { return };
        http2.finish(stream, outcome, counters);
    }

    pub fn method(&self, rpc: Rpc) -> Option<crate::wire::Method> {
        let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&self.protocol, rpc.exchange) else {
            return None;
        };
        http2.calls.get(stream).map(|call| call.method)
    }

    /// Whether the answer is still wanted.
    pub fn waits(&self, rpc: Rpc) -> bool {
        match (&self.protocol, rpc.exchange) {
            (Protocol::Http1(http1), super::Exchange::Page) => http1.answering.is_some(),
            _ => self.method(rpc).is_some(),
        }
    }

    /// How many bytes a stream may send now.
    pub fn budget(&mut self, rpc: Rpc, full: bool) -> usize {
        let capacity = self.stream_capacity(full);
        let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        else {
            return 0;
        };
        let Some(call) = http2.calls.get(stream) else { return 0 };
        if call.long.is_some() {
            return 0; // it is told once that has been sent
        }
        if capacity == 0 {
            http2.calls.wait(stream);
        }
        http2.connection.send_budget(stream).min(capacity)
    }

    /// Sets how many bytes the source of a stream holds for it.
    pub fn set_held(&mut self, rpc: Rpc, bytes: usize) {
        if let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        {
            http2.calls.hold(stream, bytes);
        }
    }

    /// Sets how many bytes are held of an answer that is still being read.
    pub fn set_gathered(&mut self, rpc: Rpc, bytes: usize) {
        if let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        {
            http2.calls.set_gathered(stream, bytes);
        }
    }

    pub fn gathered(&self, rpc: Rpc) -> usize {
        match (&self.protocol, rpc.exchange) {
            (Protocol::Http2(http2), super::Exchange::Stream(stream)) => http2.calls.gathered(stream),
            _ => 0,
        }
    }

    pub fn pause(&mut self, rpc: Rpc) {
        if let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        {
            http2.calls.pause(stream);
        }
    }

    pub fn is_paused(&self, rpc: Rpc) -> bool {
        match (&self.protocol, rpc.exchange) {
            (Protocol::Http2(http2), super::Exchange::Stream(stream)) => http2.calls.is_paused(stream),
            _ => false,
        }
    }

    pub fn read_on(&mut self, rpc: Rpc, messages: usize, counters: &mut RpcCounters, asks: &mut Vec<Ask>) {
        let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        else {
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

    pub fn streams_requiring_leader(&self) -> impl Iterator<Item = Rpc> {
        let calls = match &self.protocol {
            Protocol::Http2(http2) => Some(&http2.calls),
            Protocol::Unknown(_) | Protocol::Http1(_) => None,
        };
        let streams = calls.into_iter().flat_map(|calls| calls.streams_requiring_leader());
        streams.map(|stream| Rpc::stream(self.id, stream))
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
            _ => self.deadline.until(),
        }
    }

    pub fn on_time(&mut self, now: Time, counters: &mut RpcCounters, asks: &mut Vec<Ask>) {
        let Protocol::Http2(http2) = &mut self.protocol else {
            self.closing |= self.deadline.until() <= now;
            return;
        };
        if http2.connection.wake_at() <= now && http2.connection.on_time(now).is_err() {
            http2.cancel_calls(self.id, counters, asks);
            self.closing = true;
        }
        http2.end_late_streams(counters);
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
    pub fn begin_long(&mut self, rpc: Rpc, message: LongMessage) {
        if let (Protocol::Http2(http2), super::Exchange::Stream(stream)) = (&mut self.protocol, rpc.exchange)
        {
            http2.begin_long(stream, message);
        }
    }

    pub fn has_longs(&self) -> bool {
        matches!(&self.protocol, Protocol::Http2(http2) if http2.longs.any())
    }

    /// Goes on with long messages. Returns whether the next turn can go on though nothing comes in.
    pub fn send_longs(&mut self, turn: &mut SendTurn<'_>, full: bool) -> bool {
        let capacity = self.stream_capacity(full);
        let Protocol::Http2(http2) = &mut self.protocol else { return false };
        http2.longs.any() && http2.send_longs(capacity, turn)
    }

    /// Whether [`ClientConnection::flush`] has something to hand out, or a long message may go on.
    pub fn needs_flush(&self) -> bool {
        let (has_output, is_over) = match &self.protocol {
            Protocol::Unknown(_) => (false, false),
            Protocol::Http1(http1) => (!http1.output.is_empty(), false),
            Protocol::Http2(http2) => {
                let has_output = !http2.connection.output().is_empty() || http2.longs.any();
                (has_output, http2.connection.is_drained())
            }
        };
        has_output || (self.closing || is_over) && !self.close_asked || self.moves_to().is_some()
    }

    /// Hands out what was written, and closes if that is all. Returns the bytes handed out.
    pub fn flush(&mut self, out: &mut Vec<Output>) -> usize {
        self.is_dirty = false;
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
