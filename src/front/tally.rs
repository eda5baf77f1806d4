//! What the connections of a reactor hold together, and which of them a flush has to look at.

use super::Manners;
use super::connection::Connection;

/// Bytes that a connection holds.
#[derive(Clone, Copy, Default)]
pub(super) struct Held {
    /// Written for the client and not yet with the kernel.
    pub answers: usize,
    /// By answers to ranges that are written only as the client takes them.
    pub lists: usize,
    /// Of requests that are not whole yet.
    pub requests: usize,
}

/// What all connections hold together, and which of them a flush has to look at.
pub(super) struct Tally {
    /// Slots whose connections have something to send, or to close.
    pub dirty: Vec<u32>,
    pub held: Held,
    pub answers_max: usize,
    /// More answers wait than may, or did and half of them are not gone yet.
    pub full: bool,
    /// There is room again that the streams which wait for it have not been told of.
    pub relieved: bool,
    /// Something was let go of since the lists that wait were looked at.
    pub fell: bool,
}

impl Tally {
    /// Takes into account what a connection has done.
    pub fn settle(&mut self, connection: &mut Connection) {
        if connection.mark() {
            self.dirty.push(connection.id.slot);
        }
        let (held, before) = connection.account();
        self.count(held, before);
    }

    /// The connection is gone.
    pub fn forget(&mut self, connection: &mut Connection) {
        let (_, before) = connection.account();
        self.count(Held::default(), before);
    }

    pub fn count(&mut self, held: Held, before: Held) {
        self.fell |= held.answers < before.answers || held.lists < before.lists;
        self.held.answers = self.held.answers - before.answers + held.answers;
        self.held.lists = self.held.lists - before.lists + held.lists;
        self.held.requests = self.held.requests - before.requests + held.requests;
        if self.held.answers >= self.answers_max {
            self.full = true;
        } else if self.full && self.held.answers < self.answers_max / 2 {
            (self.full, self.relieved) = (false, true);
        }
    }

    /// Bytes of requests that are not whole yet which a connection may hold.
    pub fn parts_max(&self, connection: &Connection, manners: &Manners) -> usize {
        let others = self.held.requests - connection.held().requests;
        let least = manners.bounds.connection_parts_bytes_min;
        manners.all_parts_bytes_max.saturating_sub(others).max(least).min(manners.parts_bytes_max)
    }
}
