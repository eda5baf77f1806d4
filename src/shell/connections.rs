//! The connections of one thread: clients' and other members'.
//!
//! ```text
//!            close asked          all sent               gone, or timed out
//!   Open ───────────────▶ Ending ──────────▶ Lingering ─────────────┐
//!    │                      │                                        ▼
//!    └──────────────────────┴──── error, or the client has left ──▶ Dead ──▶ the slot is free
//! ```
//!
//! *Lingering*: our side is shut, and we read and drop what the client still sends until it closes too. To
//! close at once would make the kernel answer that with a reset, and a reset can take the last reply away
//! from a client that has not read it yet. *Dead*: nothing is of interest any more, but the kernel still has
//! requests with our memory; shutting both directions brings them back, and only then is the descriptor
//! closed, once.
//!
//! A client that has shut its side is told to the reactor, which closes when it has answered what was asked. It
//! sends nothing more, so it lingers for no time.
//!
//! A connection that moves to another reactor goes with what has come for it: it is *Moving* until the kernel has
//! no request of it here, and nothing of it is to be sent then.
//!
//! One send is in flight; what is handed out meanwhile is appended and goes next. A client that has too much
//! unsent is not received from until half of it is gone. A member always is: two that each waited for the other
//! to read would wait for ever, and what is unsent to one is bounded where it is made.

#![allow(unsafe_code)]

use super::kernel::{self, SendPieces};
use super::receive::GROUP;
use super::ring::{Completion, Ring, SLOTS_MAX, Tag};
use super::unsent::Unsent;
use crate::io::{Chunk, ConnectionState, Port};
use crate::limits::{
    CONNECTION_BACKLOG_BYTES_MAX, CONNECTION_END_TIMEOUT_SECS, CONNECTION_LINGER_MS, SEND_BYTES_MAX,
    SEND_PIECES_MAX,
};
use crate::types::{ConnId, Duration, ReactorId, Time};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

const LINGER: Duration = Duration::from_ms(CONNECTION_LINGER_MS);
const END_TIMEOUT: Duration = Duration::from_secs(CONNECTION_END_TIMEOUT_SECS);

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Client,
    /// Another member, or who reads its pages.
    Peer,
}

impl Party {
    pub fn of(port: Port) -> Party {
        match port {
            Port::Client | Port::Metrics => Party::Client,
            Port::Peer => Party::Peer,
        }
    }
}

/// All connections of one thread, by slot.
pub struct Connections {
    reactor: ReactorId,
    slots: Vec<SocketSlot>,
    free: Vec<u32>,
    lingering: VecDeque<(Time, ConnId)>,
    /// When to look whether those that are ending still take something.
    ending: VecDeque<(Time, ConnId)>,
    /// How many there are of each party.
    open: [usize; 2],
}

#[derive(Default)]
struct SocketSlot {
    generation: u32,
    connection: Option<Socket>,
}

struct Socket {
    id: ConnId,
    fd: OwnedFd,
    party: Party,
    phase: SocketPhase,
    receiving: Receiving,
    /// Whether the client sends nothing more.
    ended: bool,
    unsent: Unsent,
    /// What the kernel reads of a send of several pieces.
    pieces: Option<Box<SendPieces>>,
    /// Whether the client has taken anything since the last look.
    takes: bool,
    moving: Option<Box<Moving>>,
}

/// A connection on its way to another reactor.
struct Moving {
    to: ReactorId,
    state: ConnectionState,
    /// What has come from the client meanwhile.
    received: Vec<u8>,
}

/// A connection that comes to a reactor.
pub struct Arrival {
    pub fd: OwnedFd,
    pub party: Party,
    pub from: Origin,
}

pub enum Origin {
    Listener(Port),
    /// Another reactor, with what it knew of it and what has come since.
    Reactor {
        state: ConnectionState,
        received: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketPhase {
    Open,
    Moving,
    Ending,
    Lingering,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    Idle,
    Armed,
    /// A receive is armed, and asked to stop.
    Stopping,
}

/// What a completion means for the reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    Nothing,
    /// Bytes have come, in the completion's buffer.
    Received {
        conn: ConnId,
        bytes: usize,
    },
    /// Bytes have come, in the completion's buffer, of a connection that moves.
    Kept {
        conn: ConnId,
        bytes: usize,
    },
    Sent {
        conn: ConnId,
        bytes: usize,
    },
    /// The client has shut its side, and may still read.
    Ended {
        conn: ConnId,
    },
    Closed {
        conn: ConnId,
        party: Party,
    },
}

impl Connections {
    pub fn new(reactor: ReactorId) -> Connections {
        let (lingering, ending) = (VecDeque::new(), VecDeque::new());
        Connections { reactor, slots: Vec::new(), free: Vec::new(), lingering, ending, open: [0; 2] }
    }

    /// Connections whose descriptors are not closed yet.
    pub fn open(&self, party: Party) -> usize {
        self.open[party as usize]
    }

    /// Whom a connection leads to that the reactor was not told the end of.
    pub fn party(&mut self, conn: ConnId) -> Party {
        self.get(conn.slot, conn.generation).expect("the reactor was not told of its end").party
    }

    /// The address of the client, as long as its connection has one.
    pub fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        let slot = self.slots.get(conn.slot as usize)?;
        let connection = slot.connection.as_ref().filter(|connection| connection.id == conn)?;
        TcpStream::from(connection.fd.try_clone().ok()?).peer_addr().ok()
    }

    /// Takes a connection in and begins to receive.
    pub fn add(&mut self, ring: &mut Ring, fd: OwnedFd, party: Party) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(SocketSlot::default());
            self.slots.len() as u32 - 1
        });
        assert!(slot < SLOTS_MAX, "descriptors run out before slots do");
        let entry = &mut self.slots[slot as usize];
        let id = ConnId { reactor: self.reactor, slot, generation: entry.generation };
        let (phase, receiving) = (SocketPhase::Open, Receiving::Idle);
        let connection = Socket {
            id,
            fd,
            party,
            phase,
            receiving,
            ended: false,
            unsent: Unsent::default(),
            pieces: None,
            takes: false,
            moving: None,
        };
        entry.connection.insert(connection).receive(ring);
        self.open[party as usize] += 1;
        id
    }

    /// The connection in that slot; none where the slot belongs to a younger one.
    fn get(&mut self, slot: u32, generation: u32) -> Option<&mut Socket> {
        let connection = self.slots.get_mut(slot as usize)?.connection.as_mut()?;
        (connection.id.generation == generation).then_some(connection)
    }

    /// Sends bytes behind all that was handed out before. A connection that is ending takes none. Returns how
    /// many the kernel has taken at once; for the others [`SocketEvent::Sent`] follows.
    pub fn send(&mut self, ring: &mut Ring, conn: ConnId, bytes: Vec<u8>) -> usize {
        let Some(connection) = self.get(conn.slot, conn.generation) else { return 0 };
        if connection.phase != SocketPhase::Open || bytes.is_empty() {
            return 0;
        }
        let taken = if connection.unsent.bytes() == 0 { connection.send_at_once(&bytes) } else { 0 };
        if taken == bytes.len() {
            return taken;
        }
        connection.unsent.push(Chunk::Bytes(bytes));
        connection.send_rest(ring, taken);
        taken
    }

    /// As [`Connections::send`], pieces one behind the other, none of which is copied.
    pub fn send_chunks(&mut self, ring: &mut Ring, conn: ConnId, chunks: Vec<Chunk>) -> usize {
        let Some(connection) = self.get(conn.slot, conn.generation) else { return 0 };
        if connection.phase != SocketPhase::Open {
            return 0;
        }
        let taken = if connection.unsent.bytes() == 0 { connection.send_pieces_at_once(&chunks) } else { 0 };
        chunks.into_iter().for_each(|chunk| connection.unsent.push(chunk));
        connection.send_rest(ring, taken);
        taken
    }

    /// Closes once everything is sent; [`SocketEvent::Closed`] follows in any case.
    pub fn close(&mut self, ring: &mut Ring, now: Time, conn: ConnId) {
        let Some(connection) = self.get(conn.slot, conn.generation) else { return };
        if connection.phase == SocketPhase::Open {
            connection.phase = SocketPhase::Ending;
            self.ending.push_back((now + END_TIMEOUT, conn));
            self.linger_if_sent(ring, now, conn);
        }
    }

    /// Begins to hand a connection over, of which nothing is to be sent: [`Connections::take_moved`] gives it once
    /// the kernel has no request of it.
    pub fn begin_move(&mut self, ring: &mut Ring, conn: ConnId, to: ReactorId, state: ConnectionState) {
        let connection = self.get(conn.slot, conn.generation).expect("the reactor was not told of its end");
        assert!(connection.phase == SocketPhase::Open, "a connection that ends does not move");
        assert!(connection.unsent.bytes() == 0, "a connection moves when all is sent");
        connection.phase = SocketPhase::Moving;
        connection.moving = Some(Box::new(Moving { to, state, received: vec![] }));
        if connection.receiving == Receiving::Armed {
            connection.stop_receiving(ring);
        }
    }

    /// Keeps what a client sends while its connection moves.
    pub fn keep(&mut self, conn: ConnId, bytes: &[u8]) {
        let connection = self.get(conn.slot, conn.generation).expect("the caller has it");
        let moving = connection.moving.as_mut().expect("it moves");
        moving.received.extend_from_slice(bytes);
    }

    /// Gives up a connection that moves, if the kernel has no request of it here.
    pub fn take_moved(&mut self, conn: ConnId) -> Option<(ReactorId, Arrival)> {
        let connection = self.get(conn.slot, conn.generation)?;
        if connection.phase != SocketPhase::Moving || !connection.is_idle() {
            return None;
        }
        let slot = &mut self.slots[conn.slot as usize];
        let Socket { fd, party, moving, .. } = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(conn.slot);
        self.open[party as usize] -= 1;
        let Moving { to, state, received } = *moving.expect("it moves");
        Some((to, Arrival { fd, party, from: Origin::Reactor { state, received } }))
    }

    fn linger_if_sent(&mut self, ring: &mut Ring, now: Time, conn: ConnId) {
        let connection = self.get(conn.slot, conn.generation).expect("the caller has it");
        if connection.phase == SocketPhase::Ending && connection.unsent.bytes() == 0 {
            connection.phase = SocketPhase::Lingering;
            if connection.ended {
                return self.lingering.push_front((now, conn));
            }
            kernel::shutdown(connection.fd.as_fd(), false);
            connection.receive(ring);
            self.lingering.push_back((now + LINGER, conn));
        }
    }

    /// When [`Connections::on_time`] has something to do.
    pub fn wake_at(&self) -> Time {
        let fronts = [self.lingering.front(), self.ending.front()];
        fronts.into_iter().flatten().map(|(until, _)| *until).min().unwrap_or(Time::NEVER)
    }

    /// Ends those that have lingered long enough, and those whose clients take nothing of what they are still
    /// owed; they are due in the order in which they began.
    pub fn on_time(&mut self, now: Time, mut closed: impl FnMut(ConnId, Party)) {
        while let Some((_, conn)) = self.lingering.pop_front_if(|(until, _)| *until <= now) {
            if self.get(conn.slot, conn.generation).is_some_and(|c| c.phase == SocketPhase::Lingering) {
                closed(conn, self.die(conn));
            }
        }
        while let Some((_, conn)) = self.ending.pop_front_if(|(until, _)| *until <= now) {
            let found = self.get(conn.slot, conn.generation).filter(|c| c.phase == SocketPhase::Ending);
            match found.map(|connection| std::mem::take(&mut connection.takes)) {
                Some(true) => self.ending.push_back((now + END_TIMEOUT, conn)),
                Some(false) => closed(conn, self.die(conn)),
                None => {}
            }
        }
    }

    /// Takes a receive that has come back with bytes, with the client's end, or with an error.
    pub fn received(
        &mut self,
        ring: &mut Ring,
        completion: &Completion,
        slot: u32,
        generation: u32,
    ) -> SocketEvent {
        let connection = self.get(slot, generation).expect("a slot stays taken until all has come back");
        let (conn, phase) = (connection.id, connection.phase);
        if !completion.more {
            connection.receiving = Receiving::Idle;
        }
        match phase {
            SocketPhase::Dead => {
                self.free_if_idle(conn);
                return SocketEvent::Nothing;
            }
            // Its end, or an error, is told where it goes: a receive there finds it again.
            SocketPhase::Moving => {
                return SocketEvent::Kept { conn, bytes: usize::try_from(completion.result).unwrap_or(0) };
            }
            _ => {}
        }
        match completion.result {
            bytes @ 1.. => {
                if connection.may_ask(CONNECTION_BACKLOG_BYTES_MAX) {
                    connection.receive(ring);
                }
                match phase {
                    SocketPhase::Lingering => SocketEvent::Nothing,
                    _ => SocketEvent::Received { conn, bytes: bytes as usize },
                }
            }
            // The buffers were all in use (they are back by the time this is submitted), or the receive
            // was stopped and may go on meanwhile.
            error if [-libc::ENOBUFS, -libc::ECANCELED, -libc::EINTR].contains(&error) => {
                if connection.may_ask(CONNECTION_BACKLOG_BYTES_MAX / 2) {
                    connection.receive(ring);
                }
                SocketEvent::Nothing
            }
            0 if phase == SocketPhase::Open => {
                connection.ended = true;
                SocketEvent::Ended { conn }
            }
            // The client has shut its side and still waits for what we have for it.
            0 if phase == SocketPhase::Ending && connection.unsent.bytes() > 0 => {
                connection.ended = true;
                SocketEvent::Nothing
            }
            _ => SocketEvent::Closed { conn, party: self.die(conn) },
        }
    }

    /// Takes a send that has come back.
    pub fn sent(
        &mut self,
        ring: &mut Ring,
        now: Time,
        result: i32,
        slot: u32,
        generation: u32,
    ) -> SocketEvent {
        let connection = self.get(slot, generation).expect("a slot stays taken until all has come back");
        let conn = connection.id;
        let bytes = usize::try_from(result).unwrap_or(0);
        connection.unsent.ended(bytes);
        if connection.phase == SocketPhase::Dead {
            connection.unsent.give_up();
            self.free_if_idle(conn);
            return SocketEvent::Nothing;
        }
        if result < 0 && result != -libc::EINTR && result != -libc::EAGAIN {
            return SocketEvent::Closed { conn, party: self.die(conn) };
        }
        connection.takes |= bytes > 0;
        connection.go_on_sending(ring);
        if connection.phase == SocketPhase::Open && connection.may_ask(CONNECTION_BACKLOG_BYTES_MAX / 2) {
            connection.receive(ring);
        }
        self.linger_if_sent(ring, now, conn);
        SocketEvent::Sent { conn, bytes }
    }

    /// Ends a connection of which nothing more is of interest: brings back what the kernel still has.
    fn die(&mut self, conn: ConnId) -> Party {
        let connection = self.get(conn.slot, conn.generation).expect("the caller has it");
        let party = connection.party;
        connection.phase = SocketPhase::Dead;
        connection.unsent.give_up();
        if connection.is_idle() {
            self.free_if_idle(conn);
        } else {
            kernel::shutdown(connection.fd.as_fd(), true);
        }
        party
    }

    fn free_if_idle(&mut self, conn: ConnId) {
        let slot = &mut self.slots[conn.slot as usize];
        if let Some(Socket { party, .. }) = slot.connection.take_if(|connection| connection.is_idle()) {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(conn.slot);
            self.open[party as usize] -= 1;
        }
    }
}

impl Socket {
    fn receive(&mut self, ring: &mut Ring) {
        // Its end would come again and again.
        if self.receiving == Receiving::Idle && !self.ended {
            ring.receive(self.id.slot, self.id.generation, self.fd.as_fd(), GROUP);
            self.receiving = Receiving::Armed;
        }
    }

    /// Stops receiving where too much is unsent: a client that reads no answers may ask nothing more.
    fn hold_back(&mut self, ring: &mut Ring) {
        if !self.may_ask(CONNECTION_BACKLOG_BYTES_MAX) && self.receiving == Receiving::Armed {
            self.stop_receiving(ring);
        }
    }

    /// Whether what is unsent allows to receive, where so many bytes of it do.
    fn may_ask(&self, unsent_max: usize) -> bool {
        self.party == Party::Peer || self.phase != SocketPhase::Open || self.unsent.bytes() <= unsent_max
    }

    fn stop_receiving(&mut self, ring: &mut Ring) {
        ring.cancel(Tag::Receive { slot: self.id.slot, generation: self.id.generation });
        self.receiving = Receiving::Stopping;
    }

    /// Whether the kernel has no request of this connection.
    fn is_idle(&self) -> bool {
        self.receiving == Receiving::Idle && !self.unsent.is_in_flight()
    }

    /// Most sends are short and find room in the socket: a call of their own is cheaper than a request that
    /// comes back as a completion, for which the thread would take another turn. An error is left to the ring,
    /// where the connection's end is told.
    fn send_at_once(&mut self, bytes: &[u8]) -> usize {
        let taken = kernel::send_now(self.fd.as_fd(), &bytes[..bytes.len().min(SEND_BYTES_MAX)]).unwrap_or(0);
        self.takes |= taken > 0;
        taken
    }

    /// As [`Socket::send_at_once`], until the socket is full or nothing is left.
    fn send_pieces_at_once(&mut self, chunks: &[Chunk]) -> usize {
        let mut sent = 0;
        for chunks in chunks.chunks(SEND_PIECES_MAX) {
            let pieces: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk.bytes())).collect();
            let taken = kernel::send_pieces_now(self.fd.as_fd(), &pieces).unwrap_or(0);
            sent += taken;
            if taken < pieces.iter().map(|piece| piece.len()).sum() {
                break;
            }
        }
        self.takes |= sent > 0;
        sent
    }

    /// Sends what is left of what was handed out just now, of which the socket has taken so much already.
    fn send_rest(&mut self, ring: &mut Ring, taken: usize) {
        if taken > 0 {
            self.unsent.taken(taken);
        }
        self.go_on_sending(ring);
        self.hold_back(ring);
    }

    fn go_on_sending(&mut self, ring: &mut Ring) {
        if self.unsent.bytes() == 0 || self.unsent.is_in_flight() {
            return;
        }
        let (slot, generation) = (self.id.slot, self.id.generation);
        match self.unsent.begin()[..] {
            // SAFETY: what is in flight is neither changed nor dropped before this send has come back: a connection
            // is freed only when it is idle.
            [piece] => unsafe { ring.send(slot, generation, self.fd.as_fd(), &piece) },
            ref pieces => {
                let pieces = self.pieces.insert(SendPieces::of(pieces));
                // SAFETY: as above; and the box is replaced only by the next send.
                unsafe { ring.send_pieces(slot, generation, self.fd.as_fd(), pieces) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Payload;
    use crate::shell::receive::Buffers;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    struct Scene {
        ring: Ring,
        buffers: Buffers,
        connections: Connections,
        client: TcpStream,
        conn: ConnId,
    }

    impl Scene {
        fn new() -> Scene {
            Scene::with(Party::Client)
        }

        fn with(party: Party) -> Scene {
            let mut ring = Ring::new_patiently().unwrap();
            let buffers = Buffers::provide(&ring).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let mut connections = Connections::new(ReactorId(0));
            let conn = connections.add(&mut ring, server.into(), party);
            Scene { ring, buffers, connections, client, conn }
        }

        /// The next completion that says something.
        fn event(&mut self, now: Time) -> SocketEvent {
            loop {
                let mut came = vec![];
                self.ring.park(Some(Duration::from_secs(5)));
                self.ring.reap(1, &mut came);
                let completion = came.pop().expect("something comes in time");
                let event = match completion.tag {
                    Tag::Receive { slot, generation } => {
                        self.connections.received(&mut self.ring, &completion, slot, generation)
                    }
                    Tag::Send { slot, generation } => {
                        self.connections.sent(&mut self.ring, now, completion.result, slot, generation)
                    }
                    _ => SocketEvent::Nothing,
                };
                if let (SocketEvent::Kept { conn, bytes }, Some(buffer)) = (event, completion.buffer) {
                    self.connections.keep(conn, self.buffers.bytes(buffer, bytes));
                }
                completion.buffer.into_iter().for_each(|buffer| self.buffers.put(buffer));
                self.buffers.publish();
                if event != SocketEvent::Nothing {
                    return event;
                }
            }
        }

        fn answer_and_close(&mut self, now: Time) {
            assert_eq!(self.connections.send(&mut self.ring, self.conn, b"answer".to_vec()), 6);
            self.connections.close(&mut self.ring, now, self.conn);
        }

        fn gone(&mut self, now: Time) -> Vec<ConnId> {
            let mut gone = vec![];
            self.connections.on_time(now, |conn, _| gone.push(conn));
            gone
        }
    }

    #[test]
    fn who_has_shut_its_side_is_gone_with_its_answer() {
        let (mut scene, now) = (Scene::new(), Time::from_ms(1));
        let conn = scene.conn;
        scene.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(scene.event(now), SocketEvent::Ended { conn });
        scene.answer_and_close(now);
        assert_eq!(scene.connections.wake_at(), now);
        assert_eq!((scene.gone(now), scene.connections.open(Party::Client)), (vec![conn], 0));
        let mut read = String::new();
        scene.client.read_to_string(&mut read).unwrap();
        assert_eq!(read, "answer");
    }

    #[test]
    fn who_may_still_send_is_waited_for() {
        let (mut scene, now) = (Scene::new(), Time::from_ms(1));
        let conn = scene.conn;
        scene.answer_and_close(now);
        assert_eq!((scene.connections.wake_at(), scene.gone(now)), (now + LINGER, vec![]));
        let mut read = String::new();
        scene.client.read_to_string(&mut read).unwrap();
        assert_eq!((&read[..], scene.connections.open(Party::Client)), ("answer", 1));
        scene.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(scene.event(now), SocketEvent::Closed { conn, party: Party::Client });
        assert_eq!(scene.connections.open(Party::Client), 0);
    }

    #[test]
    fn who_takes_little_gets_the_rest_in_order() {
        let (mut scene, now) = (Scene::new(), Time::from_ms(1));
        let bytes: Vec<u8> = (0..8u32 << 20).map(|at| (at % 251) as u8).collect();
        let conn = scene.conn;
        let mut sent = scene.connections.send(&mut scene.ring, conn, bytes.clone());
        assert!((1..bytes.len()).contains(&sent), "the socket takes some of it: {sent}");
        assert_eq!(scene.connections.send(&mut scene.ring, conn, b"behind".to_vec()), 0, "it waits its turn");
        let mut client = scene.client.try_clone().unwrap();
        let wanted = bytes.len() + 6;
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; wanted];
            client.read_exact(&mut read).map(|()| read)
        });
        while sent < wanted {
            match scene.event(now) {
                SocketEvent::Sent { bytes, .. } => sent += bytes,
                other => panic!("{other:?}"),
            }
        }
        let read = reader.join().unwrap().unwrap();
        assert!(read == [&bytes[..], b"behind"].concat());
        assert_eq!(scene.connections.send(&mut scene.ring, conn, b"at once".to_vec()), 7);
    }

    /// Frames of a head and payloads, which the log and other links hold too: more than a send takes, than the
    /// pieces of one, and than the socket does.
    #[test]
    fn pieces_go_in_order_and_payloads_are_not_copied() {
        let (mut scene, now) = (Scene::with(Party::Peer), Time::from_ms(1));
        let payload = Payload::copy_of(&(0..200u32 << 10).map(|at| (at % 239) as u8).collect::<Vec<u8>>());
        let frame = |number: u8| {
            let mut chunks = vec![Chunk::Bytes(vec![number; 100])];
            chunks.extend((0..number).map(|_| Chunk::Payload(payload.clone())));
            chunks
        };
        let frames: Vec<Chunk> = (0..9).flat_map(frame).chain((0..100).map(|_| frame(0).remove(0))).collect();
        let wanted: Vec<u8> = frames.iter().flat_map(|chunk| chunk.bytes().iter().copied()).collect();
        let conn = scene.conn;
        let mut sent = scene.connections.send_chunks(&mut scene.ring, conn, frames.clone());
        assert!((1..wanted.len()).contains(&sent), "the socket takes some of it: {sent}");
        let chunks = vec![Chunk::Bytes(b"behind".to_vec()), Chunk::Payload(payload.clone())];
        assert_eq!(scene.connections.send_chunks(&mut scene.ring, conn, chunks), 0, "it waits its turn");
        assert_eq!(scene.connections.send(&mut scene.ring, conn, b"and this".to_vec()), 0);
        let wanted = [&wanted[..], b"behind", payload.bytes(), b"and this"].concat();
        let mut client = scene.client.try_clone().unwrap();
        let mut read = vec![0; wanted.len()];
        let reader = std::thread::spawn(move || client.read_exact(&mut read).map(|()| read));
        while sent < wanted.len() {
            match scene.event(now) {
                SocketEvent::Sent { bytes, .. } => sent += bytes,
                other => panic!("{other:?}"),
            }
        }
        assert!(reader.join().unwrap().unwrap() == wanted);
        let chunks = vec![Chunk::Bytes(b"at".to_vec()), Chunk::Bytes(b" once".to_vec())];
        assert_eq!(scene.connections.send_chunks(&mut scene.ring, conn, chunks), 7);
    }

    /// Both sides have more for the other than sockets take, and neither reads before it has sent.
    #[test]
    fn a_member_is_read_from_however_much_is_unsent_to_it() {
        for (party, is_read) in [(Party::Peer, true), (Party::Client, false)] {
            let (mut scene, now) = (Scene::with(party), Time::from_ms(1));
            let conn = scene.conn;
            let much = vec![7; 4 * CONNECTION_BACKLOG_BYTES_MAX + (8 << 20)];
            assert!(scene.connections.send(&mut scene.ring, conn, much) < 4 * CONNECTION_BACKLOG_BYTES_MAX);
            scene.ring.submit();
            scene.client.write_all(b"ping").unwrap();
            let mut came = vec![];
            scene.ring.park(Some(Duration::from_secs(5)));
            scene.ring.reap(8, &mut came);
            let event = |completion: &Completion| match completion.tag {
                Tag::Receive { slot, generation } => {
                    scene.connections.received(&mut scene.ring, completion, slot, generation)
                }
                _ => SocketEvent::Nothing,
            };
            let events: Vec<SocketEvent> = came.iter().map(event).collect();
            assert_eq!(events.contains(&SocketEvent::Received { conn, bytes: 4 }), is_read, "{came:?}");
            let gone = scene.gone(now);
            assert_eq!(gone, []);
        }
    }

    #[test]
    fn what_comes_while_a_connection_moves_goes_with_it() {
        for (closes, party) in [(false, Party::Client), (true, Party::Client), (false, Party::Peer)] {
            let (mut scene, now) = (Scene::with(party), Time::from_ms(1));
            let conn = scene.conn;
            scene.client.write_all(b"before").unwrap();
            let state = ConnectionState(Box::new("what the reactor knows"));
            scene.connections.begin_move(&mut scene.ring, conn, ReactorId(1), state);
            assert!(scene.connections.take_moved(conn).is_none(), "a receive is armed");
            scene.client.write_all(b", after").unwrap();
            if closes {
                scene.client.shutdown(Shutdown::Write).unwrap();
            }
            let (to, arrival) = loop {
                assert!(matches!(scene.event(now), SocketEvent::Kept { conn: of, .. } if of == conn));
                if let Some(moved) = scene.connections.take_moved(conn) {
                    break moved;
                }
            };
            assert_eq!((to, scene.connections.open(party)), (ReactorId(1), 0));
            assert_eq!(arrival.party, party);
            let Origin::Reactor { state, mut received } = arrival.from else { panic!("it was at a reactor") };
            assert_eq!(state.0.downcast_ref(), Some(&"what the reactor knows"));
            scene.conn = scene.connections.add(&mut scene.ring, arrival.fd, arrival.party);
            assert_ne!(scene.conn, conn);
            if !closes {
                scene.client.shutdown(Shutdown::Write).unwrap();
            }
            while received != b"before, after" {
                let mut came = vec![];
                scene.ring.park(Some(Duration::from_secs(5)));
                scene.ring.reap(1, &mut came);
                let [completion] = came[..] else { panic!("something comes in time") };
                let Some(buffer) = completion.buffer else { continue };
                received.extend_from_slice(scene.buffers.bytes(buffer, completion.result as usize));
                scene.buffers.put(buffer);
            }
            scene.answer_and_close(now);
            let mut read = String::new();
            scene.client.read_to_string(&mut read).unwrap();
            assert_eq!(read, "answer");
        }
    }
}
