//! The calls of one HTTP/2 connection, and how their messages become asks.

use super::{Ask, Counters, Manners, Rpc};
use crate::api::Error;
use crate::http2::{Head, Name, StreamId};
use crate::types::{ConnId, Time};
use crate::wire::grpc::Inbound;
use crate::wire::metadata::{self, Style};
use crate::wire::{Kind, Method, decode};

/// A call being received or answered.
#[derive(Debug)]
pub(super) struct Call {
    pub method: Method,
    pub style: Style,
    pub has_sent: bool,
    pub begun: Time,
    stream: StreamId,
    inbound: Inbound,
    deadline: Time,
    /// The client has ended its side.
    ended: bool,
}

impl Call {
    /// Judges the headers of a call.
    pub fn begin(
        now: Time,
        head: &Head,
        manners: &Manners,
        counters: &mut Counters,
    ) -> Result<BegunCall, metadata::Refusal> {
        let judged = metadata::head(fields(head))?;
        counters.begun(judged.method, judged.client_api_version);
        let inbound = Inbound::new(judged.method.kind(), manners.message_bytes_max, judged.style.gzip);
        Ok(BegunCall {
            method: judged.method,
            style: judged.style,
            inbound,
            begun: now,
            deadline: judged.timeout.map_or(Time::NEVER, |timeout| now + timeout),
        })
    }
}

/// A call that has no stream yet.
pub(super) struct BegunCall {
    method: Method,
    style: Style,
    inbound: Inbound,
    begun: Time,
    deadline: Time,
}

fn fields(head: &Head) -> impl Iterator<Item = (&[u8], &[u8])> {
    const NAMED: [(&[u8], Name); 10] = [
        (b":path", Name::Path),
        (b":method", Name::Method),
        (b":authority", Name::Authority),
        (b"content-type", Name::ContentType),
        (b"grpc-timeout", Name::GrpcTimeout),
        (b"grpc-encoding", Name::GrpcEncoding),
        (b"hasleader", Name::HasLeader),
        (b"client-api-version", Name::ClientApiVersion),
        (b"token", Name::Token),
        (b"authorization", Name::Authorization),
    ];
    let named = NAMED.iter().filter_map(|(text, name)| head.get(*name).map(|value| (*text, value)));
    named.chain(head.others())
}

/// By the small number of their streams.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Option<Call>>,
    next_deadline: Option<Time>,
}

impl Calls {
    pub fn insert(&mut self, stream: StreamId, begun: BegunCall) {
        let BegunCall { method, style, inbound, begun, deadline } = begun;
        if self.calls.len() <= stream.slot() {
            self.calls.resize_with(stream.slot() + 1, || None);
        }
        if deadline < self.next_deadline() {
            self.next_deadline = Some(deadline);
        }
        self.calls[stream.slot()] =
            Some(Call { method, style, has_sent: false, begun, stream, inbound, deadline, ended: false });
    }

    pub fn get(&self, stream: StreamId) -> Option<&Call> {
        self.calls.get(stream.slot())?.as_ref().filter(|call| call.stream == stream)
    }

    pub fn get_mut(&mut self, stream: StreamId) -> Option<&mut Call> {
        self.calls.get_mut(stream.slot())?.as_mut().filter(|call| call.stream == stream)
    }

    pub fn remove(&mut self, stream: StreamId) -> Option<Call> {
        self.calls.get_mut(stream.slot())?.take_if(|call| call.stream == stream)
    }

    pub fn all(&self) -> impl Iterator<Item = StreamId> {
        self.calls.iter().flatten().map(|call| call.stream)
    }

    /// Calls that answer with a stream of messages.
    pub fn streaming(&self) -> impl Iterator<Item = StreamId> {
        self.calls.iter().flatten().filter(|call| call.method.kind() != Kind::Unary).map(|call| call.stream)
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
        mut bytes: &[u8],
        counters: &mut Counters,
        asks: &mut Vec<Ask>,
    ) -> Result<(), Error> {
        let Some(call) = self.get_mut(stream) else { return Ok(()) };
        while let Some(message) = call.inbound.next(&mut bytes)? {
            counters.of_mut(call.method).messages_received += 1;
            asks.push(ask(Rpc::stream(conn, stream), call.method, message)?);
        }
        Ok(())
    }

    pub fn take_end(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        counters: &mut Counters,
        asks: &mut Vec<Ask>,
    ) -> Result<(), Error> {
        let Some(call) = self.get_mut(stream) else { return Ok(()) };
        if std::mem::replace(&mut call.ended, true) {
            return Ok(());
        }
        let rpc = Rpc::stream(conn, stream);
        if let Some(message) = call.inbound.finish()? {
            counters.of_mut(call.method).messages_received += 1;
            asks.push(ask(rpc, call.method, message)?);
        }
        if super::ends_with_client(call.method) {
            asks.push(Ask::Ended { rpc });
        }
        Ok(())
    }
}

fn ask(rpc: Rpc, method: Method, message: bytes::Bytes) -> Result<Ask, Error> {
    let bytes = message.len();
    Ok(match method {
        Method::RangeStream => Ask::RangeStream { rpc, request: decode::range_stream(message)? },
        Method::Watch => Ask::Watch { rpc, request: decode::watch(message)? },
        Method::HealthWatch => Ask::HealthWatch { rpc, service: decode::health_watch(message)? },
        Method::LeaseKeepAlive => Ask::KeepAlive { rpc, lease: decode::keep_alive(message)? },
        unary => Ask::Call { rpc, request: decode::unary(unary, message)?, bytes },
    })
}
