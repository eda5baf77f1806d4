//! Watches at every member, and puts whose values say when they were sent.

use braid::http2::client::Client;
use braid::http2::{Http2Config, Http2Event};
use braid::types::Time;
use braid::wire::proto::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const READ_FOR: Duration = Duration::from_millis(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Everything in it is watched.
const PREFIX: &str = "watched/";
const PREFIX_END: &[u8] = b"watched0";
const KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 256;

/// A connection of watches, or of puts, and what has come of each stream and is not whole.
struct Connection {
    socket: TcpStream,
    client: Client,
    bodies: BTreeMap<u32, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(to: SocketAddr) -> Result<Connection> {
        let socket = TcpStream::connect_timeout(&to, CONNECT_WITHIN)?;
        socket.set_read_timeout(Some(READ_FOR))?;
        socket.set_nodelay(true)?;
        let client = Client::new(&Http2Config::default(), &to.to_string(), Time(0));
        Ok(Connection { socket, client, bodies: BTreeMap::new(), buffer: vec![0; 256 << 10] })
    }

    /// Sends what there is to send, and gives the whole messages that come within a moment.
    fn exchange(&mut self) -> Result<Vec<Bytes>> {
        let mut output = Vec::new();
        self.client.take_output(&mut output);
        self.socket.write_all(&output)?;
        let len = match self.socket.read(&mut self.buffer) {
            Ok(0) => return Err(Error::other("the server closed a connection")),
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(error) => return Err(error),
        };
        let (mut bytes, mut messages) = (&self.buffer[..len], Vec::new());
        while let Some(event) =
            self.client.receive(Time(0), &mut bytes).map_err(|fault| Error::other(fault.why))?
        {
            let (stream, head) = match event {
                Http2Event::Data { stream, bytes, .. } => {
                    let body = self.bodies.entry(stream.number()).or_default();
                    body.extend_from_slice(bytes);
                    take_whole(body, &mut messages);
                    continue;
                }
                Http2Event::Headers { stream, head, end: true } | Http2Event::Trailers { stream, head } => {
                    (stream, head)
                }
                Http2Event::Reset { .. } => return Err(Error::other("a stream was reset")),
                _ => continue,
            };
            self.bodies.remove(&stream.number());
            if head.grpc_status() != Some(0) {
                return Err(Error::other(format!("a stream has ended with {:?}", head.grpc_status())));
            }
        }
        Ok(messages)
    }
}

fn take_whole(body: &mut Vec<u8>, messages: &mut Vec<Bytes>) {
    let mut taken = 0;
    while let Some((prefix, rest)) = body[taken..].split_first_chunk::<5>() {
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if rest.len() < len {
            break;
        }
        messages.push(Bytes::copy_from_slice(&rest[..len]));
        taken += 5 + len;
    }
    body.drain(..taken);
}

/// Watches of one member, on a thread of their own. All times are since one beginning.
pub struct Watches {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u64>>>,
}

impl Watches {
    /// Returns when all of them are there.
    pub fn start(member: SocketAddr, count: usize, begun: Instant) -> Result<Watches> {
        let mut connection = Connection::new(member)?;
        let create = WatchCreateRequest {
            key: Bytes::from_static(PREFIX.as_bytes()),
            range_end: Bytes::from_static(PREFIX_END),
            ..WatchCreateRequest::default()
        };
        let create =
            WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec();
        for _ in 0..count {
            let stream = connection.client.request("/etcdserverpb.Watch/Watch", &[]);
            let stream = stream.ok_or_else(|| Error::other("the server takes no more streams"))?;
            connection.client.send_message(stream, &create, false);
        }
        let (mut created, asked) = (0, Instant::now());
        while created < count {
            created += connection.exchange()?.len();
            if asked.elapsed() > CONNECT_WITHIN {
                return Err(Error::other(format!("{created} of {count} watches were made")));
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut after_ns = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let messages = connection.exchange()?;
                let now_ns = begun.elapsed().as_nanos() as u64;
                for message in messages {
                    let response = WatchResponse::decode(message).map_err(Error::other)?;
                    let sent = response.events.iter().filter_map(|event| sent_ns(&event.kv.as_ref()?.value));
                    after_ns.extend(sent.map(|sent_ns| now_ns.saturating_sub(sent_ns)));
                }
            }
            Ok(after_ns)
        });
        Ok(Watches { stop, thread })
    }

    /// How long after its put was sent each event came.
    pub fn end(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::other("a thread of watches panicked"))?
    }
}

fn value(sent_ns: u64) -> Bytes {
    let mut value = sent_ns.to_le_bytes().to_vec();
    value.resize(VALUE_BYTES, b'.');
    value.into()
}

fn sent_ns(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*value.first_chunk()?))
}

/// Puts for so long at a rate, spread over the members. Gives how many, all of which were answered.
pub fn put(members: &[SocketAddr], per_second: u64, span: Duration, begun: Instant) -> Result<u64> {
    let mut connections: Vec<Connection> =
        members.iter().map(|member| Connection::new(*member)).collect::<Result<_>>()?;
    let (from, mut sent, mut answered) = (Instant::now(), 0, 0);
    while from.elapsed() < span || answered < sent {
        if from.elapsed() > span + CONNECT_WITHIN {
            return Err(Error::other(format!("{answered} of {sent} puts were answered")));
        }
        let due = (from.elapsed().min(span).as_nanos() * u128::from(per_second) / 1_000_000_000) as u64;
        while sent < due {
            let key = format!("{PREFIX}{}", sent % KEYS).into();
            let value = value(begun.elapsed().as_nanos() as u64);
            let put = PutRequest { key, value, ..PutRequest::default() }.encode_to_vec();
            let count = connections.len() as u64;
            let connection = &mut connections[(sent % count) as usize];
            let taken = connection.client.call("/etcdserverpb.KV/Put", &[], &put);
            taken.ok_or_else(|| Error::other("the server takes no more streams"))?;
            sent += 1;
        }
        for connection in &mut connections {
            answered += connection.exchange()?.len() as u64;
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_when_it_was_sent_and_messages_are_taken_when_they_are_whole() {
        assert_eq!(sent_ns(&value(1 << 40)), Some(1 << 40));
        assert_eq!(sent_ns(b"short"), None);
        let mut body = vec![0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0];
        let mut messages = Vec::new();
        take_whole(&mut body, &mut messages);
        assert_eq!((messages.len(), &messages[0][..], body.len()), (2, &b"ab"[..], 3));
        body.extend([0, 1, b'c']);
        take_whole(&mut body, &mut messages);
        assert_eq!((messages.len(), &messages[2][..], body.len()), (3, &b"c"[..], 0));
    }
}
