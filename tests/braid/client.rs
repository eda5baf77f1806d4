//! A client of a server's real socket: one call at a time, and a watch that is read when asked for.

#![allow(clippy::disallowed_types)]

use braid::http2::client::Client as Http2;
use braid::http2::{Http2Config, Http2Event, StreamId};
use braid::types::Time;
use braid::wire::Method;
use braid::wire::proto::{self, Message, watch_request::RequestUnion};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client {
    socket: TcpStream,
    http2: Http2,
    /// What has come of each stream and was not taken.
    bodies: BTreeMap<u32, Vec<u8>>,
    /// The gRPC status of those that have ended.
    ended: BTreeMap<u32, Option<u8>>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Time counts only for keepalive, which a client this short-lived does not need.
        let http2 = Http2::new(&Http2Config::default(), "localhost", Time(0));
        Client { socket, http2, bodies: BTreeMap::new(), ended: BTreeMap::new() }
    }

    pub fn local_address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Makes a call that must succeed.
    pub fn call<Answer: Message + Default>(&mut self, method: Method, request: &impl Message) -> Answer {
        let stream = self.http2.call(method.path(), &[], &request.encode_to_vec()).unwrap();
        while !self.ended.contains_key(&stream.number()) {
            self.exchange();
        }
        assert_eq!(self.ended[&stream.number()], Some(0), "{method:?}");
        self.message(stream).unwrap()
    }

    /// Watches every key.
    pub fn watch(&mut self, start_revision: i64) -> StreamId {
        let everything = vec![0].into();
        let create = proto::WatchCreateRequest {
            key: bytes::Bytes::clone(&everything),
            range_end: everything,
            start_revision,
            ..Default::default()
        };
        let request = proto::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let stream = self.http2.request(Method::Watch.path(), &[]).unwrap();
        self.http2.send_message(stream, &request.encode_to_vec(), false);
        stream
    }

    /// What a watch delivers up to the end of a revision, which it must have events of.
    pub fn events_upto(&mut self, watch: StreamId, revision: i64) -> Vec<proto::Event> {
        let mut events: Vec<proto::Event> = vec![];
        while events.last().is_none_or(|event| event.kv.as_ref().unwrap().mod_revision < revision) {
            match self.message::<proto::WatchResponse>(watch) {
                Some(response) => {
                    assert!(!response.canceled, "{response:?}");
                    events.extend(response.events);
                }
                None => self.exchange(),
            }
        }
        events
    }

    fn message<Answer: Message + Default>(&mut self, stream: StreamId) -> Option<Answer> {
        let body = self.bodies.get_mut(&stream.number())?;
        let len = u32::from_be_bytes(body.get(1..5)?.try_into().unwrap()) as usize;
        let message = Answer::decode(body.get(5..5 + len)?).unwrap();
        body.drain(..5 + len);
        Some(message)
    }

    /// Sends what is to be sent, and reads once.
    fn exchange(&mut self) {
        let mut output = vec![];
        self.http2.take_output(&mut output);
        self.socket.write_all(&output).unwrap();
        let mut received = vec![0; 64 << 10];
        let len = loop {
            // A read with a timeout ends early where the process is stopped for a while and goes on.
            match self.socket.read(&mut received) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.unwrap(),
            }
        };
        assert!(len > 0, "the server has hung up");
        let mut bytes = &received[..len];
        while let Some(event) = self.http2.receive(Time(0), &mut bytes).unwrap() {
            match event {
                Http2Event::Data { stream, bytes, .. } => {
                    self.bodies.entry(stream.number()).or_default().extend_from_slice(bytes);
                }
                Http2Event::Headers { stream, head, end: true } | Http2Event::Trailers { stream, head } => {
                    self.ended.insert(stream.number(), head.grpc_status());
                }
                Http2Event::Reset { stream, .. } => {
                    self.ended.insert(stream.number(), None);
                }
                _ => {}
            }
        }
    }
}
