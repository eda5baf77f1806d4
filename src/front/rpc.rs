//! The calls of one HTTP/2 connection, and how their messages become asks.

use super::long::Sending;
use super::{Ask, Caller, FrontConfig, Rpc, RpcCounters};
use crate::api::{Code, Error};
use crate::http2::{FieldName, Head, StreamId};
use crate::types::{ConnId, Time};
use crate::wire::grpc::Inbound;
use crate::wire::metadata::{self, ReplyEncoding};
use crate::wire::{CallKind, Method, Timed, decode};
use bytes::Bytes;
use std::collections::BTreeSet;

/// A call being received or answered.
pub(super) struct ClientCall {
    pub method: Method,
    caller: Caller,
    pub encoding: ReplyEncoding,
    pub has_sent: bool,
    pub begun: Time,
    /// The request of a unary call, for the log where its answer takes long.
    pub request: Option<Bytes>,
    pub timed: Option<Timed>,
    /// A message that is sent as the stream takes it.
    pub long: Option<Box<Sending>>,
    /// Bytes held for the client: by the long message of a unary call, or by the source of its stream.
    held: usize,
    /// Bytes held of an answer that is still being read.
    gathered: usize,
    /// How often its reader was looked at since it took something, and what waited for its window then.
    pub checks: u32,
    pending: usize,
    pub stream: StreamId,
    inbound: Inbound,
    deadline: Time,
    /// The client has ended its side.
    ended: bool,
    /// Bytes that have come while the stream is paused.
    unread: Option<Box<Unread>>,
}

/// What a stream's client has sent that is not read yet.
#[derive(Default)]
struct Unread {
    bytes: Vec<u8>,
    at: usize,
    end: bool,
}

/// What has become of received bytes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Taken {
    Read,
    /// They are kept for later: the stream's window stays as it is.
    Kept,
}

impl ClientCall {
    /// Judges the headers of a call.
    pub fn begin(
        now: Time,
        head: &Head,
        config: &FrontConfig,
        counters: &mut RpcCounters,
    ) -> Result<BegunCall, metadata::CallRefusal> {
        let judged = metadata::head(fields(head))?;
        counters.begun(judged.method, judged.client_api_version);
        let inbound = Inbound::new(judged.method.kind(), config.message_bytes_max, judged.encoding.gzip);
        Ok(BegunCall {
            method: judged.method,
            caller: Caller { requires_leader: judged.require_leader },
            encoding: judged.encoding,
            inbound,
            begun: now,
            deadline: judged.timeout.map_or(Time::NEVER, |timeout| now + timeout),
        })
    }
}

/// A call that has no stream yet.
pub(super) struct BegunCall {
    method: Method,
    caller: Caller,
    encoding: ReplyEncoding,
    inbound: Inbound,
    begun: Time,
    deadline: Time,
}

fn fields(head: &Head) -> impl Iterator<Item = (&[u8], &[u8])> {
    const NAMED: [(&[u8], FieldName); 10] = [
        (b":path", FieldName::Path),
        (b":method", FieldName::Method),
        (b":authority", FieldName::Authority),
        (b"content-type", FieldName::ContentType),
        (b"grpc-timeout", FieldName::GrpcTimeout),
        (b"grpc-encoding", FieldName::GrpcEncoding),
        (b"hasleader", FieldName::HasLeader),
        (b"client-api-version", FieldName::ClientApiVersion),
        (b"token", FieldName::Token),
        (b"authorization", FieldName::Authorization),
    ];
    let named = NAMED.iter().filter_map(|(text, name)| head.get(*name).map(|value| (*text, value)));
    named.chain(head.others())
}

pub(super) struct ClientCalls {
    /// The calls by the slots of their streams.
    calls: Vec<Option<ClientCall>>,
    next_deadline: Option<Time>,
    /// Streams that wait for capacity on the connection.
    waiting: BTreeSet<StreamId>,
    /// Bytes of partial requests; at most `partial_max`.
    partial: usize,
    /// Bytes held for the client by all calls.
    held: usize,
    pub partial_max: usize,
    txn_ops_max: usize,
}

impl ClientCalls {
    pub fn new(config: &FrontConfig) -> ClientCalls {
        ClientCalls {
            calls: vec![],
            next_deadline: None,
            waiting: BTreeSet::new(),
            partial: 0,
            held: 0,
            partial_max: config.bounds.connection_partial_bytes_max,
            txn_ops_max: config.txn_ops_max,
        }
    }

    pub fn insert(&mut self, stream: StreamId, begun: BegunCall) {
        let BegunCall { method, caller, encoding, inbound, begun, deadline } = begun;
        if self.calls.len() <= stream.slot() {
            self.calls.resize_with(stream.slot() + 1, || None);
        }
        if deadline < self.next_deadline() {
            self.next_deadline = Some(deadline);
        }
        let slot = &mut self.calls[stream.slot()];
        assert!(slot.is_none(), "a call ends no later than its stream");
        *slot = Some(ClientCall {
            method,
            caller,
            encoding,
            has_sent: false,
            begun,
            request: None,
            timed: None,
            long: None,
            held: 0,
            gathered: 0,
            checks: 0,
            pending: 0,
            stream,
            inbound,
            deadline,
            ended: false,
            unread: None,
        });
    }

    pub fn get(&self, stream: StreamId) -> Option<&ClientCall> {
        self.calls.get(stream.slot())?.as_ref().filter(|call| call.stream == stream)
    }

    pub fn get_mut(&mut self, stream: StreamId) -> Option<&mut ClientCall> {
        self.calls.get_mut(stream.slot())?.as_mut().filter(|call| call.stream == stream)
    }

    pub fn remove(&mut self, stream: StreamId) -> Option<ClientCall> {
        let call = self.calls.get_mut(stream.slot())?.take_if(|call| call.stream == stream)?;
        self.partial -= call.kept_bytes();
        self.held -= call.held + call.gathered;
        self.waiting.remove(&stream);
        Some(call)
    }

    /// Sets how many bytes are held for the client.
    pub fn hold(&mut self, stream: StreamId, bytes: usize) {
        let Some(call) = self.get_mut(stream) else { return };
        let before = std::mem::replace(&mut call.held, bytes);
        self.held = self.held - before + bytes;
    }

    /// Sets how many bytes are held of an answer that is still being read: its client can take nothing of it
    /// yet.
    pub fn set_gathered(&mut self, stream: StreamId, bytes: usize) {
        let Some(call) = self.get_mut(stream) else { return };
        let before = std::mem::replace(&mut call.gathered, bytes);
        self.held = self.held - before + bytes;
    }

    pub fn gathered(&self, stream: StreamId) -> usize {
        self.get(stream).map_or(0, |call| call.gathered)
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// Looks at the readers for which something is held while others wait. Returns those that have taken
    /// nothing in more than `checks_max` looks, each with the bytes held for it. `moves`: the connection took
    /// something for them all.
    pub fn unread(
        &mut self,
        checks_max: u32,
        moves: bool,
        pending_of: impl Fn(StreamId) -> usize,
    ) -> Vec<(StreamId, usize)> {
        let mut unread = vec![];
        for call in self.calls.iter_mut().flatten().filter(|call| call.held > 0) {
            let pending = pending_of(call.stream);
            let takes = pending < std::mem::replace(&mut call.pending, pending);
            call.checks = if moves || takes { 0 } else { call.checks + 1 };
            if call.checks > checks_max {
                unread.push((call.stream, call.held));
            }
        }
        unread
    }

    /// Lets a stream wait until the connection has capacity ([`ClientCalls::take_waiting`]).
    pub fn wait(&mut self, stream: StreamId) {
        self.waiting.insert(stream);
    }

    pub fn take_waiting(&mut self) -> BTreeSet<StreamId> {
        std::mem::take(&mut self.waiting)
    }

    /// Bytes kept of partial requests.
    pub fn partial(&self) -> usize {
        self.partial
    }

    pub fn all(&self) -> impl Iterator<Item = StreamId> {
        self.calls.iter().flatten().map(|call| call.stream)
    }

    /// Calls that answer with a stream of messages.
    pub fn streaming(&self) -> impl Iterator<Item = StreamId> {
        self.streaming_calls().map(|call| call.stream)
    }

    pub fn streams_requiring_leader(&self) -> impl Iterator<Item = StreamId> {
        self.streaming_calls().filter(|call| call.caller.requires_leader).map(|call| call.stream)
    }

    fn streaming_calls(&self) -> impl Iterator<Item = &ClientCall> {
        self.calls.iter().flatten().filter(|call| call.method.kind() != CallKind::Unary)
    }

    pub fn next_deadline(&self) -> Time {
        self.next_deadline.unwrap_or(Time::NEVER)
    }

    /// The calls whose clients wait no longer.
    pub fn late(&mut self, now: Time) -> Vec<StreamId> {
        if self.next_deadline() > now {
            return vec![];
        }
        let calls = self.calls.iter().flatten();
        let late = calls.clone().filter(|call| call.deadline <= now).map(|call| call.stream).collect();
        self.next_deadline = calls.map(|call| call.deadline).filter(|deadline| *deadline > now).min();
        late
    }

    pub fn take_data(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        bytes: &[u8],
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> Result<Taken, Error> {
        let ops = self.txn_ops_max;
        let Some(call) = self.get_mut(stream) else { return Ok(Taken::Read) };
        let before = call.kept_bytes();
        let taken = match &mut call.unread {
            Some(unread) => {
                unread.bytes.extend_from_slice(bytes);
                Ok(Taken::Kept)
            }
            None => call.take_data(conn, bytes, ops, counters, asks).map(|()| Taken::Read),
        };
        let after = call.kept_bytes();
        self.partial = self.partial - before + after;
        if after > before && self.partial > self.partial_max {
            let (code, text) = (Code::ResourceExhausted, "etcdserver: too many requests".into());
            return Err(Error::Other { code, text });
        }
        taken
    }

    /// Stops reading a stream for now.
    pub fn pause(&mut self, stream: StreamId) {
        if let Some(call) = self.get_mut(stream) {
            call.unread.get_or_insert_default();
        }
    }

    pub fn is_paused(&self, stream: StreamId) -> bool {
        self.get(stream).is_some_and(|call| call.unread.is_some())
    }

    /// Reads on, at most `messages_max` messages; once all is read, the stream is no longer paused. Returns how
    /// many bytes were read.
    pub fn read_on(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        messages_max: usize,
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> Result<usize, Error> {
        let ops = self.txn_ops_max;
        let Some(call) = self.get_mut(stream) else { return Ok(0) };
        let before = call.kept_bytes();
        let read = call.read_on(conn, messages_max, ops, counters, asks);
        let after = call.kept_bytes();
        self.partial = self.partial - before + after;
        read
    }

    pub fn take_end(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> Result<(), Error> {
        let ops = self.txn_ops_max;
        let Some(call) = self.get_mut(stream) else { return Ok(()) };
        if let Some(unread) = &mut call.unread {
            unread.end = true;
            return Ok(());
        }
        let before = call.kept_bytes();
        let taken = call.take_end(conn, ops, counters, asks);
        let after = call.kept_bytes();
        self.partial = self.partial - before + after;
        taken
    }
}

impl ClientCall {
    fn kept_bytes(&self) -> usize {
        let unread = self.unread.as_ref().map_or(0, |unread| unread.bytes.len() - unread.at);
        self.inbound.kept_bytes() + unread
    }

    fn read_on(
        &mut self,
        conn: ConnId,
        messages_max: usize,
        ops: usize,
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> Result<usize, Error> {
        let Some(mut unread) = self.unread.take() else { return Ok(0) };
        let begin = unread.at;
        let mut rest = &unread.bytes[begin..];
        for _ in 0..messages_max {
            let Some(message) = self.inbound.next(&mut rest)? else { break };
            counters.of_mut(self.method).messages_received += 1;
            asks.push(self.ask(Rpc::stream(conn, self.stream), message, ops)?);
        }
        unread.at = unread.bytes.len() - rest.len();
        let read = unread.at - begin;
        if unread.at < unread.bytes.len() {
            if unread.at > unread.bytes.len() / 2 {
                unread.bytes.drain(..unread.at);
                unread.at = 0;
            }
            self.unread = Some(unread);
        } else if unread.end {
            self.take_end(conn, ops, counters, asks)?;
        }
        Ok(read)
    }

    fn take_data(
        &mut self,
        conn: ConnId,
        mut bytes: &[u8],
        ops: usize,
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> Result<(), Error> {
        while let Some(message) = self.inbound.next(&mut bytes)? {
            counters.of_mut(self.method).messages_received += 1;
            asks.push(self.ask(Rpc::stream(conn, self.stream), message, ops)?);
        }
        Ok(())
    }

    fn take_end(
        &mut self,
        conn: ConnId,
        ops: usize,
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> Result<(), Error> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let rpc = Rpc::stream(conn, self.stream);
        if let Some(message) = self.inbound.finish()? {
            counters.of_mut(self.method).messages_received += 1;
            asks.push(self.ask(rpc, message, ops)?);
        }
        if super::ends_with_client(self.method) {
            asks.push(Ask::Ended { rpc });
        }
        Ok(())
    }

    fn ask(&mut self, rpc: Rpc, message: Bytes, txn_ops_max: usize) -> Result<Ask, Error> {
        let (caller, bytes) = (self.caller, message.len());
        Ok(match self.method {
            Method::RangeStream => Ask::RangeStream { rpc, caller, request: decode::range_stream(message)? },
            Method::Watch => Ask::Watch { rpc, caller, request: decode::watch(message)? },
            Method::HealthWatch => Ask::HealthWatch { rpc, caller, service: decode::health_watch(message)? },
            Method::LeaseKeepAlive => Ask::KeepAlive { rpc, caller, lease: decode::keep_alive(message)? },
            unary => {
                let request = decode::unary(unary, &message, txn_ops_max)?;
                self.request = Some(message);
                self.timed = Timed::of(&request);
                Ask::Call { rpc, caller, request, bytes }
            }
        })
    }
}
