//! One connection of HTTP/2: its calls' messages come in and go out as gRPC has them.

use super::long::LongMessages;
use super::rpc::{ClientCall, ClientCalls, Taken};
use super::{Ask, FrontConfig, Lost, Rpc, RpcCounters};
use crate::api::{Code, Error};
use crate::http2::{self, ErrorCode, Http2Event, StreamId};
use crate::types::{ConnId, Time};
use crate::wire::metadata::{self, ReplyEncoding};
use crate::wire::{grpc, gzip};

type Field<'a> = (&'a [u8], &'a [u8]);

pub(super) struct Http2 {
    pub connection: http2::Connection,
    pub calls: ClientCalls,
    pub longs: LongMessages,
}

impl Http2 {
    pub fn new(config: &FrontConfig, now: Time) -> Http2 {
        let connection = http2::Connection::new(&config.http2, now);
        Http2 { connection, calls: ClientCalls::new(config), longs: LongMessages::default() }
    }

    pub fn receive(
        &mut self,
        id: ConnId,
        now: Time,
        mut bytes: &[u8],
        config: &FrontConfig,
        counters: &mut RpcCounters,
        asks: &mut Vec<Ask>,
    ) -> Result<(), http2::ConnectionError> {
        let Http2 { connection, calls, .. } = self;
        // Answers that the connection itself has to give wait until the event's loan has ended.
        let mut refused: Vec<(StreamId, metadata::CallRefusal)> = vec![];
        let mut failed: Vec<(StreamId, Error)> = vec![];
        let mut consumed: Vec<(StreamId, usize, Taken)> = vec![];
        loop {
            match connection.receive(now, &mut bytes)? {
                None => break,
                Some(Http2Event::Headers { stream, head, end }) => {
                    match ClientCall::begin(now, head, config, counters) {
                        Ok(call) => {
                            calls.insert(stream, call);
                            if end {
                                calls
                                    .take_end(id, stream, counters, asks)
                                    .unwrap_or_else(|error| failed.push((stream, error)));
                            }
                        }
                        Err(refusal) => refused.push((stream, refusal)),
                    }
                }
                Some(Http2Event::Data { stream, bytes, end }) => {
                    let taken = calls.take_data(id, stream, bytes, counters, asks);
                    if !bytes.is_empty() {
                        consumed.push((stream, bytes.len(), *taken.as_ref().unwrap_or(&Taken::Read)));
                    }
                    let taken = taken
                        .and_then(|_| if end { calls.take_end(id, stream, counters, asks) } else { Ok(()) });
                    taken.unwrap_or_else(|error| failed.push((stream, error)));
                }
                Some(Http2Event::Trailers { stream, .. }) => {
                    calls
                        .take_end(id, stream, counters, asks)
                        .unwrap_or_else(|error| failed.push((stream, error)));
                }
                Some(Http2Event::Reset { stream, .. }) => {
                    if let Some(call) = calls.remove(stream) {
                        counters.ended(call.method, Code::Canceled, call.begun);
                        asks.push(Ask::Gone { rpc: Rpc::stream(id, stream) });
                    }
                }
                Some(Http2Event::Writable { stream }) => {
                    // A stream with a long message is told once that is sent.
                    if calls.get(stream).is_none_or(|call| call.long.is_none()) {
                        asks.push(Ask::Writable { rpc: Rpc::stream(id, stream) });
                    }
                }
                Some(Http2Event::GoAway { .. }) => {}
            }
        }
        for (stream, bytes, taken) in consumed {
            match taken {
                Taken::Read => self.connection.consumed(stream, bytes),
                Taken::Kept => self.connection.consumed_of_connection(bytes),
            }
        }
        for (stream, refusal) in refused {
            self.refuse(stream, refusal);
        }
        for (stream, error) in failed {
            asks.push(Ask::Gone { rpc: Rpc::stream(id, stream) });
            self.finish(stream, Err(error), counters);
        }
        Ok(())
    }

    pub fn answer(&mut self, stream: StreamId, outcome: Result<&[u8], &Error>, counters: &mut RpcCounters) {
        let Some(call) = self.calls.remove(stream) else { return };
        match outcome {
            Ok(message) => {
                counters.of_mut(call.method).messages_sent += 1;
                self.reply(stream, &call.encoding, message);
            }
            Err(error) => {
                self.end_alone(stream, &call.encoding, 200, error.code(), &error.to_string());
            }
        }
        let code = outcome.err().map_or(Code::Ok, Error::code);
        counters.ended(call.method, code, call.begun);
    }

    /// Sends the whole answer of a unary call.
    fn reply(&mut self, stream: StreamId, encoding: &ReplyEncoding, message: &[u8]) {
        if encoding.is_usual() {
            self.connection.reply(stream, message.len(), |out| out.extend_from_slice(message));
            return;
        }
        self.head(stream, encoding);
        self.body(stream, encoding.gzip, message);
        self.connection.send_trailers(stream, Code::Ok as u8, "");
    }

    /// Sends one message of a stream; the head goes out with the first.
    pub fn message(
        &mut self,
        stream: StreamId,
        message: Result<&[u8], Error>,
        counters: &mut RpcCounters,
    ) -> Option<Lost> {
        let call = self.calls.get_mut(stream)?;
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                self.finish(stream, Err(error), counters);
                return Some(Lost);
            }
        };
        counters.of_mut(call.method).messages_sent += 1;
        call.checks = 0;
        let gzip = call.encoding.gzip;
        if !std::mem::replace(&mut call.has_sent, true) {
            let encoding = call.encoding.clone();
            self.head(stream, &encoding);
        }
        if self.body(stream, gzip, message) {
            return None;
        }
        let call = self.calls.remove(stream).expect("it was there above");
        counters.ended(call.method, Code::ResourceExhausted, call.begun);
        Some(Lost)
    }

    pub fn head(&mut self, stream: StreamId, encoding: &ReplyEncoding) {
        if encoding.is_usual() {
            self.connection.send_grpc_head(stream);
            return;
        }
        let content_type = encoding.content_type();
        let fields: [Field; 2] = [(b"content-type", &content_type), (b"grpc-encoding", b"gzip")];
        let fields = if encoding.gzip { &fields } else { &fields[..1] };
        self.connection.send_head(stream, 200, fields, false);
    }

    /// Returns `false` where the stream is gone: also because no more may wait for the client's windows.
    fn body(&mut self, stream: StreamId, gzip: bool, message: &[u8]) -> bool {
        // grpc-go compresses no empty message.
        if gzip && !message.is_empty() {
            self.connection.send_compressed(stream, &gzip::deflated(message))
        } else {
            self.connection.send_message(stream, message)
        }
    }

    /// Answers without a message: head and trailers in one.
    fn end_alone(
        &mut self,
        stream: StreamId,
        encoding: &ReplyEncoding,
        http_status: u16,
        code: Code,
        text: &str,
    ) {
        if http_status == 200 && encoding.subtype.is_empty() {
            self.connection.send_trailers(stream, code as u8, text);
            return;
        }
        let content_type = encoding.content_type();
        let message = grpc::percent_encoded(text);
        let fields: [Field; 3] = [
            (b"content-type", &content_type),
            (b"grpc-status", grpc::status(code).as_bytes()),
            (b"grpc-message", message.as_bytes()),
        ];
        self.connection.send_head(stream, http_status, &fields, true);
    }

    fn refuse(&mut self, stream: StreamId, refusal: metadata::CallRefusal) {
        match refusal {
            metadata::CallRefusal::Reset => self.connection.reset(stream, ErrorCode::Protocol),
            metadata::CallRefusal::Answer { http_status, encoding, error } => {
                self.end_alone(stream, &encoding, http_status, error.code(), &error.to_string());
            }
        }
    }

    pub fn finish(&mut self, stream: StreamId, outcome: Result<(), Error>, counters: &mut RpcCounters) {
        let Some(call) = self.calls.remove(stream) else { return };
        let code = outcome.as_ref().err().map_or(Code::Ok, Error::code);
        let text = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        if call.long.is_some_and(|long| long.has_begun()) {
            // Trailers would end the message in its middle. gRPC's clients make their codes of these.
            let exhausted = code == Code::ResourceExhausted;
            let code = if exhausted { ErrorCode::EnhanceYourCalm } else { ErrorCode::Cancel };
            self.connection.reset(stream, code);
        } else if call.has_sent {
            self.connection.send_trailers(stream, code as u8, &text);
        } else {
            self.end_alone(stream, &call.encoding, 200, code, &text);
        }
        counters.ended(call.method, code, call.begun);
    }

    /// The connection is over, and its calls with it: their clients have left them.
    pub fn cancel_calls(&mut self, id: ConnId, counters: &mut RpcCounters, asks: &mut Vec<Ask>) {
        let streams: Vec<StreamId> = self.calls.all().collect();
        for call in streams.into_iter().filter_map(|stream| self.calls.remove(stream)) {
            counters.ended(call.method, Code::Canceled, call.begun);
            asks.push(Ask::Gone { rpc: Rpc::stream(id, call.stream) });
        }
    }

    pub fn end_streams(&mut self, counters: &mut RpcCounters) {
        let streams: Vec<StreamId> = self.calls.streaming().collect();
        for stream in streams {
            self.finish(stream, Err(Error::Stopped), counters);
        }
    }

    /// Ends the streams that were begun before their client had heard that the connection ends.
    pub fn end_late_streams(&mut self, counters: &mut RpcCounters) {
        if self.connection.is_final() {
            self.end_streams(counters);
        }
    }
}
