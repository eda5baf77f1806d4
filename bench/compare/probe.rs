//! Puts at one member at a steady pace, whatever becomes of it: what a client of it sees while a leader fails.

use braid::http2::client::Client;
use braid::http2::{Http2Config, Http2Event};
use braid::types::Time;
use braid::wire::proto::{PutRequest, WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two puts.
const EVERY: Duration = Duration::from_millis(10);
const READ_FOR: Duration = Duration::from_millis(2);
const CONNECT_WITHIN: Duration = Duration::from_millis(200);

/// One put, and how it ended, if it did.
#[derive(Clone, Copy)]
pub struct Put {
    pub sent: Instant,
    pub ended: Option<(Instant, bool)>,
}

/// A client on a thread of its own.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Put>>,
}

impl Probe {
    pub fn start(member: SocketAddr) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut prober = Prober { member, connection: None, puts: Vec::new() };
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if Instant::now() >= next {
                    next += EVERY;
                    prober.put();
                }
                prober.exchange();
            }
            prober.puts
        });
        Probe { stop, thread }
    }

    /// Stops it. Gives all puts in the order in which they were sent.
    pub fn end(self) -> Vec<Put> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

struct Connection {
    socket: TcpStream,
    client: Client,
    /// The puts under way, by their streams.
    under_way: BTreeMap<u32, usize>,
}

struct Prober {
    member: SocketAddr,
    connection: Option<Connection>,
    puts: Vec<Put>,
}

/// A connection with a watch on it: a leader that is told to end has open streams to think of.
fn connect(member: SocketAddr) -> Result<Connection> {
    let socket = TcpStream::connect_timeout(&member, CONNECT_WITHIN)?;
    socket.set_read_timeout(Some(READ_FOR))?;
    socket.set_write_timeout(Some(CONNECT_WITHIN))?;
    socket.set_nodelay(true)?;
    let mut client = Client::new(&Http2Config::default(), &member.to_string(), Time(0));
    let create = WatchCreateRequest { key: Bytes::from_static(b"nobody"), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    if let Some(stream) = client.request("/etcdserverpb.Watch/Watch", &[]) {
        client.send_message(stream, &create.encode_to_vec(), false);
    }
    Ok(Connection { socket, client, under_way: BTreeMap::new() })
}

impl Prober {
    fn put(&mut self) {
        if self.connection.is_none() {
            self.connection = connect(self.member).ok();
        }
        let sent = Instant::now();
        let number = self.puts.len();
        let Some(connection) = &mut self.connection else {
            return self.puts.push(Put { sent, ended: Some((sent, false)) });
        };
        let key = Bytes::from(format!("probe/{}/{}", self.member.port(), number % 100));
        let put = PutRequest { key, value: Bytes::from_static(b"value"), ..PutRequest::default() };
        if let Some(stream) = connection.client.call("/etcdserverpb.KV/Put", &[], &put.encode_to_vec()) {
            connection.under_way.insert(stream.number(), number);
            self.puts.push(Put { sent, ended: None });
        }
    }

    fn exchange(&mut self) {
        let Some(connection) = &mut self.connection else { return thread::sleep(READ_FOR) };
        if connection.exchange(&mut self.puts).is_err() {
            let now = Instant::now();
            for (_, number) in std::mem::take(&mut connection.under_way) {
                self.puts[number].ended = Some((now, false));
            }
            self.connection = None;
        }
    }
}

impl Connection {
    fn exchange(&mut self, puts: &mut [Put]) -> Result<()> {
        let mut output = Vec::new();
        self.client.take_output(&mut output);
        self.socket.write_all(&output)?;
        let mut buffer = [0; 16 << 10];
        let len = match self.socket.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (now, mut bytes) = (Instant::now(), &buffer[..len]);
        while let Some(event) =
            self.client.receive(Time(0), &mut bytes).map_err(|fault| std::io::Error::other(fault.why))?
        {
            let (stream, is_ok) = match event {
                Http2Event::Headers { stream, head, end: true } | Http2Event::Trailers { stream, head } => {
                    (stream, head.grpc_status() == Some(0))
                }
                Http2Event::Reset { stream, .. } => (stream, false),
                _ => continue,
            };
            if let Some(number) = self.under_way.remove(&stream.number()) {
                puts[number].ended = Some((now, is_ok));
            }
        }
        Ok(())
    }
}

/// What the clients of those that were left have seen of one strike.
#[derive(Debug, PartialEq)]
pub struct Seen {
    /// From the strike until any has answered a put that was sent after it; and until each has.
    pub first: Option<Duration>,
    pub first_at_last: Option<Duration>,
    /// Of the puts that were sent from shortly before the strike on; one without an end has waited until now.
    pub longest_wait: Duration,
    pub failed: usize,
}

/// Before a strike: what was sent then may be under way.
const SHORTLY: Duration = Duration::from_secs(1);

pub fn seen(probes: &[Vec<Put>], struck: Instant, now: Instant) -> Seen {
    let first = |puts: &Vec<Put>| {
        let answers = puts.iter().filter(|put| put.sent > struck);
        let answers = answers.filter_map(|put| put.ended.filter(|(_, is_ok)| *is_ok));
        answers.map(|(ended, _)| ended.duration_since(struck)).min()
    };
    let firsts: Vec<Option<Duration>> = probes.iter().map(first).collect();
    let since = struck.checked_sub(SHORTLY).unwrap_or(struck);
    let puts = || probes.iter().flatten().filter(|put| put.sent >= since);
    Seen {
        first: firsts.iter().copied().flatten().min(),
        first_at_last: firsts
            .iter()
            .copied()
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max()),
        longest_wait: puts()
            .map(|put| put.ended.map_or(now, |(ended, _)| ended).duration_since(put.sent))
            .max()
            .unwrap_or_default(),
        failed: puts().filter(|put| put.ended.is_some_and(|(_, is_ok)| !is_ok)).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_the_strike_waits_and_is_not_the_first_answer_after_it() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let put = |sent, ended: Option<(u64, bool)>| Put {
            sent: at(sent),
            ended: ended.map(|(ended, is_ok)| (at(ended), is_ok)),
        };
        let one = vec![
            put(0, Some((9_000, true))),
            put(1_990, Some((2_010, true))),
            put(2_100, Some((2_300, false))),
            put(2_200, Some((2_400, true))),
        ];
        let other = vec![put(1_999, Some((5_000, false))), put(2_500, Some((2_600, true)))];
        let ms = |ms| Some(Duration::from_millis(ms));
        let of_both = seen(&[one.clone(), other], at(2_000), at(6_000));
        let longest_wait = Duration::from_millis(3_001);
        assert_eq!(of_both, Seen { first: ms(400), first_at_last: ms(600), longest_wait, failed: 2 });
        let never = seen(&[one, vec![put(2_500, None)]], at(2_000), at(6_000));
        assert_eq!((never.first, never.first_at_last), (ms(400), None));
        assert_eq!(never.longest_wait, Duration::from_millis(3_500));
    }
}
