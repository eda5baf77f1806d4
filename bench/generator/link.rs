//! One connection to the server.

use super::workload::{Book, Request};
use braid::http2::client::Client;
use braid::http2::grpc::{self, Messages};
use braid::http2::{FieldName, Head, Http2Config, Http2Event, StreamId};
use braid::types::Time;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A request in flight.
struct Flight {
    request: Request,
    meant_ns: u64,
    /// What the message of the answer was worth, once it is there.
    verdict: Option<std::result::Result<(), String>>,
    messages: Messages,
}

/// A request that is over.
pub struct Done {
    pub meant_ns: u64,
    pub end: End,
}

pub enum End {
    Right,
    /// The server refused it.
    Refused(String),
    /// The answer is not what it must be.
    Wrong(String),
}

pub struct Link {
    pub to: SocketAddr,
    pub socket: TcpStream,
    client: Client,
    flights: Vec<Option<Flight>>,
    pub in_flight: usize,
    outgoing: Vec<u8>,
    written: usize,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Link {
    pub fn connect(to: SocketAddr) -> Result<Link> {
        let socket = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT)
            .map_err(|error| of_server(to, &error, "no connection"))?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Link {
            to,
            socket,
            client: Client::new(&Http2Config::default(), &to.to_string(), Time(0)),
            flights: Vec::new(),
            in_flight: 0,
            outgoing: Vec::new(),
            written: 0,
            bytes_sent: 0,
            bytes_received: 0,
        })
    }

    /// Puts the book's next request into the output. Errors where the server takes no more streams.
    pub fn send(&mut self, book: &mut Book, meant_ns: u64) -> Result<()> {
        let (request, message) = book.next();
        let stream = self
            .client
            .call(request.kind.path(), &[], message)
            .ok_or_else(|| self.fault("the server takes no more streams on this connection"))?;
        if stream.slot() >= self.flights.len() {
            self.flights.resize_with(stream.slot() + 1, || None);
        }
        let flight = Flight { request, meant_ns, verdict: None, messages: Messages::default() };
        let before = self.flights[stream.slot()].replace(flight);
        assert!(before.is_none(), "open streams have slots of their own");
        self.in_flight += 1;
        Ok(())
    }

    /// Writes what there is, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<()> {
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.written = 0;
        }
        self.client.take_output(&mut self.outgoing);
        while self.written < self.outgoing.len() {
            match self.socket.write(&self.outgoing[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.bytes_sent += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(of_server(self.to, &error, "sending")),
            }
        }
        Ok(())
    }

    /// An end of the measurement that this server is to blame for.
    fn fault(&self, why: &str) -> Error {
        Error::other(format!("{}: {why}", self.to))
    }

    /// Receives once into `buffer`: the number of bytes, 0 where there are none yet.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self.socket.read(buffer) {
            Ok(0) => Err(self.fault("the server closed a connection")),
            Ok(count) => {
                self.bytes_received += count as u64;
                Ok(count)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(of_server(self.to, &error, "receiving")),
        }
    }

    /// Reads received bytes; requests that are over go into `done`.
    pub fn read(
        &mut self,
        now_ns: u64,
        mut bytes: &[u8],
        book: &mut Book,
        done: &mut Vec<Done>,
    ) -> Result<()> {
        let Link { to, client, flights, in_flight, .. } = self;
        let mut over = |flights: &mut [Option<Flight>], stream: StreamId, end: End| {
            if let Some(flight) = flights.get_mut(stream.slot()).and_then(Option::take) {
                *in_flight -= 1;
                done.push(Done { meant_ns: flight.meant_ns, end });
            }
        };
        loop {
            let event = client.receive(Time(now_ns), &mut bytes);
            let event = event.map_err(|fault| Error::other(format!("{to}: HTTP/2: {}", fault.why)))?;
            match event {
                None => return Ok(()),
                Some(Http2Event::Headers { end: false, .. } | Http2Event::Writable { .. }) => (),
                Some(
                    Http2Event::Headers { stream, head, end: true } | Http2Event::Trailers { stream, head },
                ) => {
                    let verdict = flights[stream.slot()].as_mut().and_then(|flight| flight.verdict.take());
                    over(flights, stream, end_of(head, verdict));
                }
                Some(Http2Event::Data { stream, mut bytes, .. }) => {
                    if let Some(flight) = &mut flights[stream.slot()] {
                        take_message(flight, &mut bytes, book);
                    }
                }
                Some(Http2Event::Reset { stream, code }) => {
                    over(flights, stream, End::Refused(format!("a stream was reset: code {code}")));
                }
                Some(Http2Event::GoAway { code, .. }) => {
                    return Err(Error::other(format!(
                        "{to}: the server ends a connection: GOAWAY with code {code}"
                    )));
                }
            }
        }
    }

    /// When the requests in flight were meant to be sent.
    pub fn flights_meant_ns(&self) -> impl Iterator<Item = u64> {
        self.flights.iter().flatten().map(|flight| flight.meant_ns)
    }
}

fn of_server(to: SocketAddr, error: &Error, doing: &str) -> Error {
    Error::new(error.kind(), format!("{to}: {doing}: {error}"))
}

fn take_message(flight: &mut Flight, bytes: &mut &[u8], book: &mut Book) {
    let Flight { request, verdict, messages, .. } = flight;
    match messages.read(bytes, MESSAGE_BYTES_MAX) {
        Ok(None) => (),
        Ok(Some(_)) if verdict.is_some() => {
            *verdict = Some(Err("two messages answered one request".to_owned()));
        }
        Ok(Some(message)) => *verdict = Some(book.judge(request, message.bytes)),
        Err(too_long) => *verdict = Some(Err(format!("an answer of {} bytes", too_long.len))),
    }
}

fn end_of(head: &Head, verdict: Option<std::result::Result<(), String>>) -> End {
    match (head.grpc_status(), verdict) {
        (Some(0), Some(Ok(()))) => End::Right,
        (Some(0), Some(Err(why))) => End::Wrong(why),
        (Some(0), None) => End::Wrong("status 0 without a message".to_owned()),
        (Some(code), _) => {
            let text = grpc::percent_decoded(head.get(FieldName::GrpcMessage).unwrap_or_default());
            End::Refused(format!("status {code}: {text}"))
        }
        (None, _) => End::Wrong("an answer without grpc-status".to_owned()),
    }
}
