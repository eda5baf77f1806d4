//! Members and their connections to each other: what reactors call them, and what they hear of them.

use super::hits::Hit;
use super::links::{Arrival, DIALER, Heard, LISTENER, PeerConnId};
use super::member::Life;
use super::process::Item;
use super::world::World;
use crate::io::{Chunk, DialId};
use crate::limits::DIAL_MS_MAX;
use crate::types::{ConnId, Duration, ReactorId, Time};
use std::collections::BTreeMap;

/// A member that asked for a connection and waits.
struct Dialing {
    member: usize,
    reactor: usize,
    dial: DialId,
    until: Time,
}

/// What a process has of a connection.
struct Held {
    member: usize,
    conn: ConnId,
    /// It came from another reactor then, and nothing comes before.
    since: Time,
    /// Nothing comes any more.
    lost: bool,
}

/// The ends of connections that processes know.
#[derive(Default)]
pub(super) struct Peers {
    dialing: BTreeMap<PeerConnId, Dialing>,
    held: BTreeMap<(PeerConnId, usize), Held>,
    /// By the names that they have there, which no two have.
    ends: BTreeMap<ConnId, (PeerConnId, usize)>,
}

impl Peers {
    pub fn wake_at(&self) -> Time {
        self.dialing.values().map(|dialing| dialing.until).min().unwrap_or(Time::NEVER)
    }

    pub fn has(&self, conn: ConnId) -> bool {
        self.ends.contains_key(&conn)
    }

    fn hold(&mut self, end: (PeerConnId, usize), member: usize, conn: ConnId, since: Time) {
        self.held.insert(end, Held { member, conn, since, lost: false });
        self.ends.insert(conn, end);
    }

    fn let_go(&mut self, end: (PeerConnId, usize)) {
        if let Some(held) = self.held.remove(&end) {
            self.ends.remove(&held.conn);
        }
    }

    /// A connection has another name from now on, under which nothing comes before a time.
    pub fn rename(&mut self, conn: ConnId, name: ConnId, since: Time) {
        let Some(end) = self.ends.remove(&conn) else { return };
        self.ends.insert(name, end);
        let held = self.held.get_mut(&end).expect("an end that has a name is held");
        (held.conn, held.since) = (name, since);
    }

    /// A process is no more.
    pub fn forget(&mut self, member: usize) {
        self.dialing.retain(|_, dialing| dialing.member != member);
        let gone = self.held.extract_if(.., |_, held| held.member == member);
        for (_, held) in gone {
            self.ends.remove(&held.conn);
        }
    }
}

impl World {
    pub(super) fn dial(&mut self, member: usize, reactor: usize, dial: DialId, url: &str) {
        let listener = self.places().find(|at| self.identity(*at).listens_at(url));
        let Some(listener) = listener.filter(|listener| *listener != member) else {
            return self.deliver(member, reactor, Item::DialFailed(dial, format!("nobody is at {url}")));
        };
        let id = self.links.dial(self.now, member, listener);
        let until = self.now + Duration::from_ms(DIAL_MS_MAX);
        self.peers.dialing.insert(id, Dialing { member, reactor, dial, until });
    }

    fn deliver(&mut self, member: usize, reactor: usize, item: Item) {
        let now = self.now;
        if let Some(process) = self.members[member].process_mut() {
            process.deliver(reactor, now, item);
        }
    }

    fn name_connection(&mut self, reactor: usize) -> ConnId {
        self.connections += 1;
        let reactor = ReactorId(reactor as u16);
        ConnId { reactor, slot: self.connections, generation: self.connections }
    }

    pub(super) fn send_to_peer(&mut self, conn: ConnId, chunks: &[Chunk]) {
        let Some(&(id, end)) = self.peers.ends.get(&conn) else { return };
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes()).copied().collect();
        let taken = self.links.send(self.now, id, end, &bytes);
        self.say_sent((id, end), taken);
    }

    fn say_sent(&mut self, end: (PeerConnId, usize), taken: usize) {
        self.tell(end, |conn| (taken > 0).then_some(Item::Sent(conn, taken)));
    }

    /// Something comes to the process that holds an end.
    fn tell(&mut self, end: (PeerConnId, usize), item: impl FnOnce(ConnId) -> Option<Item>) {
        let Some(held) = self.peers.held.get(&end).filter(|held| !held.lost) else { return };
        let (conn, at) = (held.conn, self.now.max(held.since));
        let Some(process) = self.members[held.member].process_mut() else { return };
        if let Some(item) = item(conn) {
            process.deliver(usize::from(conn.reactor.0), at, item);
        }
    }

    /// A reactor closes a connection with a peer, and is told that it is gone.
    pub(super) fn close_to_peer(&mut self, conn: ConnId) {
        let Some(&end) = self.peers.ends.get(&conn) else { return };
        self.links.close(self.now, end.0, end.1);
        self.tell(end, |conn| Some(Item::Closed(conn)));
        self.peers.let_go(end);
    }

    /// Something comes over a link, or a kernel has waited long enough.
    pub(super) fn read_links(&mut self) -> bool {
        if self.give_up_dialing() {
            return true;
        }
        let Some(Arrival { connection, end, to, heard }) = self.links.take(self.now) else { return false };
        let end = (connection, end);
        match heard {
            Heard::Asked => self.asked(connection, to),
            Heard::Answered => {
                if let Some(Dialing { member, reactor, dial, .. }) = self.peers.dialing.remove(&connection) {
                    let conn = self.name_connection(reactor);
                    self.peers.hold((connection, DIALER), member, conn, self.now);
                    self.deliver(member, reactor, Item::Dialed(dial, conn));
                }
            }
            Heard::Refused => {
                self.hits.count(Hit::DialRefused);
                self.dial_failed(connection, "the connection is refused");
            }
            Heard::Bytes(bytes) => self.tell(end, |conn| Some(Item::Received(conn, bytes))),
            Heard::Taken(taken) => self.say_sent(end, taken),
            Heard::Ended => self.tell(end, |conn| Some(Item::Ended(conn))),
            Heard::Broken => {
                self.dial_failed(connection, "the connection is reset");
                // Some hear of the end before.
                if self.rng.chance(1, 3) {
                    self.tell(end, |conn| Some(Item::Ended(conn)));
                }
                self.tell(end, |conn| Some(Item::Closed(conn)));
                if let Some(held) = self.peers.held.get_mut(&end) {
                    held.lost = true;
                }
            }
        }
        true
    }

    /// A member is asked for a connection, or its kernel is. Without power there is none to answer.
    fn asked(&mut self, id: PeerConnId, listener: usize) {
        match &self.members[listener].life {
            Life::Up(_) => {
                let conn = self.name_connection(0);
                self.peers.hold((id, LISTENER), listener, conn, self.now);
                self.links.answer(self.now, id);
                self.deliver(listener, 0, Item::PeerOpened(conn));
            }
            _ if self.members[listener].has_power => self.links.refuse(self.now, id),
            _ => {}
        }
    }

    fn dial_failed(&mut self, id: PeerConnId, why: &str) {
        if let Some(Dialing { member, reactor, dial, .. }) = self.peers.dialing.remove(&id) {
            self.deliver(member, reactor, Item::DialFailed(dial, why.to_owned()));
        }
    }

    fn give_up_dialing(&mut self) -> bool {
        let now = self.now;
        let late = self.peers.dialing.iter().find(|(_, dialing)| dialing.until <= now);
        let Some(id) = late.map(|(id, _)| *id) else { return false };
        self.hits.count(Hit::DialTimedOut);
        self.links.give_up(now, id);
        self.dial_failed(id, "nobody answers");
        true
    }
}
