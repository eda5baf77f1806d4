//! What the connections of a reactor hold together, and which of them a flush has to look at.

use super::FrontConfig;
use super::connection::ClientConnection;

/// Bytes that a connection holds.
#[derive(Clone, Copy, Default)]
pub(super) struct HeldBytes {
    /// Bytes written for the client and not yet taken by the kernel.
    pub answers: usize,
    /// Bytes held by answers to ranges that are written only as the client takes them.
    pub lists: usize,
    /// Bytes of requests that have arrived in part.
    pub requests: usize,
}

/// What all connections hold together, and which of them a flush has to look at.
pub(super) struct Accounting {
    /// Slots whose connections have something to send, or to close.
    pub dirty: Vec<u32>,
    /// Empty: the next list, which keeps its memory.
    pub flushed: Vec<u32>,
    pub held: HeldBytes,
    pub answers_max: usize,
    /// Whether more answers wait than `answers_max`, or did and half of them are still there.
    pub full: bool,
    /// Whether `full` has ended since the waiting streams were last told.
    pub relieved: bool,
    /// Whether some bytes were freed since the waiting requests were last looked at.
    pub fell: bool,
}

impl Accounting {
    /// Takes into account what a connection has done.
    pub fn update(&mut self, connection: &mut ClientConnection) {
        if connection.set_dirty() {
            self.dirty.push(connection.id.slot);
        }
        let (held, before) = connection.account();
        self.count(held, before);
    }

    /// Takes into account what the kernel has taken of a connection: mostly it has no more to send then.
    pub fn update_sent(&mut self, connection: &mut ClientConnection) {
        if connection.needs_flush() {
            return self.update(connection);
        }
        let (held, before) = connection.account();
        self.count(held, before);
    }

    /// Takes out what a connection held that is gone.
    pub fn forget(&mut self, connection: &mut ClientConnection) {
        let (_, before) = connection.account();
        self.count(HeldBytes::default(), before);
    }

    pub fn count(&mut self, held: HeldBytes, before: HeldBytes) {
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

    /// How many bytes of partial requests a connection may hold.
    pub fn partial_max(&self, connection: &ClientConnection, config: &FrontConfig) -> usize {
        let others = self.held.requests - connection.held().requests;
        let least = config.bounds.connection_partial_bytes_min;
        config
            .bounds
            .partial_bytes_max
            .saturating_sub(others)
            .max(least)
            .min(config.bounds.connection_partial_bytes_max)
    }
}
