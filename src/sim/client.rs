//! One client: a connection at a time, HTTP/2 in bytes, and what it learns.

use super::history::{History, Stream, UNPROCESSED};
use crate::api::Code;
use crate::http2::client::Client as Http2;
use crate::http2::{self, FieldName, Head, Http2Event, StreamId};
use crate::types::{ConnId, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message, watch_request::RequestUnion};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What a call of the connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Op(usize),
    Stream(usize),
}

struct Call {
    place: Place,
    id: StreamId,
    partial: Vec<u8>,
}

/// A connection that the client holds for open.
pub struct Session {
    /// The place of the member that it is with.
    pub member: usize,
    pub conn: ConnId,
    http2: Http2,
    calls: BTreeMap<u32, Call>,
    /// Bytes on their way here, in order.
    pub coming: VecDeque<(Time, Vec<u8>)>,
    /// The server closes once these have come.
    pub closing: bool,
    /// When the last bytes sent arrive there.
    pub sent_upto: Time,
}

pub struct Client {
    pub id: usize,
    pub session: Option<Session>,
    /// The window of each stream of its next connection.
    pub window_bytes: u32,
    /// Does not read before.
    pub stalled_until: Time,
    /// The newest revision any answer showed.
    pub revision: i64,
    pub leases: Vec<i64>,
}

/// What reading gave up: the connection is broken.
pub struct Broken(pub String);

impl Client {
    pub fn new(id: usize, window_bytes: u32) -> Client {
        Client { id, session: None, window_bytes, stalled_until: Time(0), revision: 1, leases: vec![] }
    }

    pub fn connect(&mut self, now: Time, member: usize, conn: ConnId) {
        assert!(self.session.is_none(), "one connection at a time");
        let config = http2::Http2Config::default().with_window(self.window_bytes);
        self.session = Some(Session {
            member,
            conn,
            http2: Http2::new(&config, "localhost", now),
            calls: BTreeMap::new(),
            coming: VecDeque::new(),
            closing: false,
            sent_upto: now,
        });
    }

    /// Whether it is connected with the member.
    pub fn is_at(&self, member: usize) -> bool {
        self.session.as_ref().is_some_and(|session| session.member == member)
    }

    /// The connection is gone: what was under way has no outcome.
    pub fn disconnected(&mut self, now: Time, history: &mut History) {
        let Some(session) = self.session.take() else { return };
        for call in session.calls.into_values() {
            end(history, now, call.place, None);
        }
    }

    pub fn outstanding(&self) -> usize {
        let calls = self.session.iter().flat_map(|session| session.calls.values());
        calls.filter(|call| matches!(call.place, Place::Op(_))).count()
    }

    /// Makes a call. False where the connection takes none.
    pub fn call(&mut self, method: Method, op: usize, request: &[u8]) -> bool {
        let Some(session) = &mut self.session else { return false };
        let Some(id) = session.http2.call(method.path(), &[], request) else { return false };
        session.calls.insert(id.number(), Call { place: Place::Op(op), id, partial: vec![] });
        true
    }

    /// Opens a stream of watches.
    pub fn open_stream(&mut self, now: Time, history: &mut History) -> Option<usize> {
        let session = self.session.as_mut()?;
        let id = session.http2.request(Method::Watch.path(), &[])?;
        let opened = history.moment(now);
        history.streams.push(Stream {
            client: self.id,
            member: session.member,
            creates: vec![],
            progress_asked: vec![],
            cancels: vec![],
            responses: vec![],
            opened,
            ended: None,
        });
        let stream = history.streams.len() - 1;
        session.calls.insert(id.number(), Call { place: Place::Stream(stream), id, partial: vec![] });
        Some(stream)
    }

    /// Streams of watches that are open.
    pub fn streams(&self) -> Vec<usize> {
        let calls = self.session.iter().flat_map(|session| session.calls.values());
        let stream = |call: &Call| match call.place {
            Place::Stream(stream) => Some(stream),
            Place::Op(_) => None,
        };
        calls.filter_map(stream).collect()
    }

    /// Asks for something on a stream of watches.
    pub fn ask(&mut self, now: Time, stream: usize, request: RequestUnion, history: &mut History) {
        let Some(session) = &mut self.session else { return };
        let Some(call) = session.calls.values().find(|call| call.place == Place::Stream(stream)) else {
            return;
        };
        let moment = history.moment(now);
        let record = &mut history.streams[stream];
        match &request {
            RequestUnion::CreateRequest(create) => record.creates.push((moment, create.clone())),
            RequestUnion::ProgressRequest(_) => record.progress_asked.push(moment),
            RequestUnion::CancelRequest(cancel) => record.cancels.push((moment, cancel.watch_id)),
        }
        let message = proto::WatchRequest { request_union: Some(request) }.encode_to_vec();
        session.http2.send_message(call.id, &message, false);
    }

    /// What is to go to the server.
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        if let Some(session) = &mut self.session {
            session.http2.take_output(&mut bytes);
        }
        bytes
    }

    /// When it has something to read.
    pub fn wake_at(&self) -> Time {
        let first = self.session.as_ref().and_then(|session| session.coming.front());
        first.map_or(Time::NEVER, |(due, _)| (*due).max(self.stalled_until))
    }

    /// Whether what it reads next came while it did not read, and it reads now for the first time since.
    pub fn has_stalled(&mut self, now: Time) -> bool {
        let first = self.session.as_ref().and_then(|session| session.coming.front());
        let stalled = first.is_some_and(|(due, _)| *due < self.stalled_until && self.stalled_until <= now);
        if stalled {
            self.stalled_until = Time(0);
        }
        stalled
    }

    /// Reads the next piece that has come. Gives its length, and whether the server then has closed.
    pub fn read(&mut self, now: Time, history: &mut History) -> Result<(usize, bool), Broken> {
        let Some(session) = &mut self.session else { return Ok((0, false)) };
        let Some((_, bytes)) = session.coming.pop_front() else { return Ok((0, false)) };
        let mut rest = &bytes[..];
        loop {
            let event = match session.http2.receive(now, &mut rest) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => return Err(Broken(format!("{fault:?}"))),
            };
            match event {
                Http2Event::Headers { stream, head, end: true } => {
                    finish(&mut session.calls, stream, head, now, history);
                }
                Http2Event::Trailers { stream, head } => {
                    finish(&mut session.calls, stream, head, now, history)
                }
                Http2Event::Data { stream, bytes, .. } => {
                    if let Some(call) = session.calls.get_mut(&stream.number()) {
                        call.partial.extend_from_slice(bytes);
                        for message in messages(&mut call.partial) {
                            take(history, now, call.place, message, &mut self.revision);
                        }
                    }
                }
                Http2Event::Reset { stream, .. } => {
                    if let Some(call) = session.calls.remove(&stream.number()) {
                        end(history, now, call.place, None);
                    }
                }
                Http2Event::GoAway { last, .. } => {
                    for (_, call) in session.calls.extract_if(last.saturating_add(1).., |_, _| true) {
                        end(
                            history,
                            now,
                            call.place,
                            Some((Code::Unavailable as u8, UNPROCESSED.to_owned())),
                        );
                    }
                }
                Http2Event::Headers { .. } | Http2Event::Writable { .. } => {}
            }
        }
        Ok((bytes.len(), session.closing && session.coming.is_empty()))
    }

    /// Leaves the stream's call: nobody reads it any more.
    pub fn reset_stream(&mut self, now: Time, stream: usize, history: &mut History) {
        let Some(session) = &mut self.session else { return };
        let number = session.calls.iter().find(|(_, call)| call.place == Place::Stream(stream));
        let Some(number) = number.map(|(number, _)| *number) else { return };
        if let Some(call) = session.calls.remove(&number) {
            session.http2.reset(call.id, http2::ErrorCode::Cancel);
            end(history, now, call.place, None);
        }
    }
}

fn finish(calls: &mut BTreeMap<u32, Call>, stream: StreamId, head: &Head, now: Time, history: &mut History) {
    let Some(call) = calls.remove(&stream.number()) else { return };
    let code = head.grpc_status().unwrap_or(99);
    let text = http2::grpc::percent_decoded(head.get(FieldName::GrpcMessage).unwrap_or_default());
    end(history, now, call.place, Some((code, text)));
}

fn end(history: &mut History, now: Time, place: Place, status: Option<(u8, String)>) {
    let moment = history.moment(now);
    match place {
        Place::Op(op) => {
            if let Some(status) = status {
                history.ops[op].status = status;
                history.ops[op].returned = Some(moment);
            }
        }
        Place::Stream(stream) => history.streams[stream].ended = Some(moment),
    }
}

fn take(history: &mut History, now: Time, place: Place, message: Bytes, revision: &mut i64) {
    match place {
        Place::Op(op) => {
            if let Some(header) = super::history::header(&message) {
                *revision = (*revision).max(header.revision);
            }
            history.ops[op].messages.push(message);
        }
        Place::Stream(stream) => {
            let response = proto::WatchResponse::decode(message).expect("the server speaks protobuf");
            if let Some(header) = &response.header {
                *revision = (*revision).max(header.revision);
            }
            let moment = history.moment(now);
            history.streams[stream].responses.push((moment, response));
        }
    }
}

/// The whole messages at the beginning.
fn messages(partial: &mut Vec<u8>) -> Vec<Bytes> {
    let mut found = vec![];
    while let Some((prefix, rest)) = partial.split_first_chunk::<5>() {
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if rest.len() < len {
            break;
        }
        found.push(Bytes::copy_from_slice(&rest[..len]));
        partial.drain(..5 + len);
    }
    found
}
