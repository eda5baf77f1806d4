//! Clients and their connections to members.

use super::client::{Broken, Session};
use super::hits::Hit;
use super::process::Item;
use super::world::World;
use crate::io::ConnectionState;
use crate::types::{ConnId, Duration, ReactorId, Time};
use crate::wire::Method;
use bytes::Bytes;

impl World {
    /// Connects a client that is not, with a member that it chooses, or with the next one that listens.
    pub fn connect(&mut self, client: usize) {
        if self.clients[client].session.is_some() {
            return;
        }
        let (first, members) = (self.shape.draw_member(&mut self.rng), self.members.len());
        let next = (first..first + members).map(|at| at % members).find(|at| self.listens(*at));
        if let Some(member) = next {
            self.connect_with(client, member);
        }
    }

    /// Whether a member takes connections of clients.
    fn listens(&self, member: usize) -> bool {
        self.members[member].process().is_some_and(|process| !process.is_ending())
    }

    /// Connects a client with this member and no other, if it listens.
    pub fn connect_with(&mut self, client: usize, member: usize) {
        if self.clients[client].is_at(member) {
            return;
        }
        self.disconnect(client);
        let Some(process) = self.members[member].process_mut().filter(|process| !process.is_ending()) else {
            return;
        };
        self.connections += 1;
        let reactor = ReactorId(self.rng.below(process.seats.len() as u64) as u16);
        let conn = ConnId { reactor, slot: self.connections, generation: self.connections };
        process.deliver(usize::from(reactor.0), self.now, Item::Opened(conn));
        self.clients[client].connect(self.now, member, conn);
        self.send_to_server(client);
    }

    pub fn disconnect(&mut self, client: usize) {
        let now = self.now;
        let Some(session) = &self.clients[client].session else { return };
        if let Some(process) = self.members[session.member].process_mut() {
            // Some of what is on its way is lost with it, unless it arrives before.
            let at = now + Duration(self.rng.below(self.shape.net_delay.0 + 1));
            process.deliver(usize::from(session.conn.reactor.0), at, Item::Closed(session.conn));
        }
        self.clients[client].disconnected(now, &mut self.history);
    }

    /// A client calls the member that it is connected with. Gives the number of the call, if the connection takes
    /// it.
    pub fn call(&mut self, client: usize, method: Method, request: Bytes) -> Option<usize> {
        let op = self.history.next();
        let one = &mut self.clients[client];
        let member = one.session.as_ref()?.member;
        if !one.call(method, op, &request) {
            return None;
        }
        self.history.invoke(self.now, client, member, method, request);
        self.send_to_server(client);
        Some(op)
    }

    /// Sends what a client has to send, in pieces.
    pub fn send_to_server(&mut self, client: usize) {
        let bytes = self.clients[client].take_output();
        let Some(session) = &mut self.clients[client].session else { return };
        let Some(process) = self.members[session.member].process_mut() else { return };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let whole = self.rng.chance(3, 4);
            let len = if whole { rest.len() } else { 1 + self.rng.below(rest.len() as u64) as usize };
            let at = self.now + Duration(1 + self.rng.below(self.shape.net_delay.0));
            session.sent_upto = session.sent_upto.max(at);
            let item = Item::Received(session.conn, rest[..len].to_vec());
            process.deliver(usize::from(session.conn.reactor.0), session.sent_upto, item);
            rest = &rest[len..];
        }
    }

    /// The client's side of a connection. No two members have one of the same name.
    fn session_of(&mut self, conn: ConnId) -> Option<&mut Session> {
        let mut sessions = self.clients.iter_mut().filter_map(|client| client.session.as_mut());
        sessions.find(|session| session.conn == conn)
    }

    pub(super) fn send_to_client(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let at = self.now + Duration(1 + self.rng.below(self.shape.net_delay.0));
        if let Some(session) = self.session_of(conn) {
            let at = session.coming.back().map_or(at, |(last, _)| at.max(*last));
            session.coming.push_back((at, bytes));
        }
    }

    /// A reactor hands a connection to another. Some of clients are sent back, as to a reactor that has enough of
    /// them.
    pub(super) fn move_connection(&mut self, at: usize, conn: ConnId, to: ReactorId, state: ConnectionState) {
        let now = self.now;
        let from = usize::from(conn.reactor.0);
        let is_sent_back = !self.peers.has(conn) && self.rng.chance(1, 4);
        let begins = now + Duration(self.rng.below(self.shape.mail_delay.0 + 1));
        let Some(process) = self.members[at].process_mut() else { return };
        if is_sent_back {
            // Before all else that comes to it.
            return process.deliver(from, Time(0), Item::Moved(conn, state));
        }
        self.connections += 1;
        let name = ConnId { reactor: to, slot: self.connections, generation: self.connections };
        process.move_connection(conn, name, begins, state);
        self.peers.rename(conn, name, begins);
        if let Some(session) = self.session_of(conn) {
            session.conn = name;
            session.sent_upto = session.sent_upto.max(begins);
        }
    }

    pub(super) fn close_from_server(&mut self, conn: ConnId) {
        let now = self.now;
        if let Some(session) = self.session_of(conn) {
            session.closing = true;
            if session.coming.is_empty() {
                session.coming.push_back((now, vec![]));
            }
        }
    }

    pub(super) fn read_clients(&mut self) -> bool {
        let now = self.now;
        let Some(at) = self.clients.iter().position(|client| client.wake_at() <= now) else { return false };
        if self.clients[at].has_stalled(now) {
            self.hits.count(Hit::Stall);
        }
        let session = self.clients[at].session.as_ref().expect("it has something to read");
        let (member, conn) = (session.member, session.conn);
        let read = self.clients[at].read(now, &mut self.history);
        if let (Ok((bytes, _)), Some(process)) = (&read, self.members[member].process_mut())
            && *bytes > 0
        {
            process.deliver(usize::from(conn.reactor.0), now, Item::Sent(conn, *bytes));
        }
        match read {
            Ok((_, false)) => self.send_to_server(at),
            Ok((_, true)) => self.disconnect(at),
            Err(Broken(why)) => {
                self.trace.line(now, || format!("client {at}: {why}"));
                self.disconnect(at);
            }
        }
        true
    }
}
