//! Requests for lists that wait until their answers may be held.
//!
//! The answer to a range that its client has not taken is written as the client takes it. Until then it shares
//! the store's memory, but it holds what the store would let go of, so all such answers together are bounded.
//! One too many is not refused: its request waits, and is read anew when there is a place. A reader that takes
//! nothing for long while others wait loses its place. What has been read of a range that goes on counts too.

use super::accounting::Accounting;
use super::connection::ClientConnection;
use super::{Ask, Caller, Front, ReaderLoss, Rpc, of};
use crate::api::{Error, RangeReply, Reply, Request, TxnReply};
use crate::limits::FrontBounds;
use crate::types::{ConnId, Duration, KeyValue, Term, Time};
use crate::wire::Method;
use crate::wire::encode::{self, LongMessage};
use std::collections::VecDeque;

/// A request that changes nothing, with the size of its answer as far as that is known.
struct Deferred {
    rpc: Rpc,
    request: Request,
    answer_bytes: usize,
}

/// The requests that wait until their answers may be held.
#[derive(Default)]
pub(super) struct DeferredRequests {
    requests: VecDeque<Deferred>,
    bytes: usize,
    /// The request that is being read anew; the others wait for what it leaves.
    anew: Option<Rpc>,
    /// When readers are looked at next; `None` while no request waits.
    check_at: Option<Time>,
}

impl DeferredRequests {
    /// Whether those that wait can be looked at.
    pub fn is_idle(&self) -> bool {
        self.anew.is_none() && self.any()
    }

    /// An answer has come for this call.
    pub fn answered(&mut self, rpc: Rpc) {
        self.anew.take_if(|anew| *anew == rpc);
    }

    pub fn check_at(&self) -> Time {
        self.check_at.unwrap_or(Time::NEVER)
    }

    pub fn any(&self) -> bool {
        !self.requests.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    fn remove(&mut self, place: usize) -> Option<Deferred> {
        let deferred = self.requests.remove(place)?;
        self.bytes -= kept_bytes(&deferred.request);
        Some(deferred)
    }
}

fn kept_bytes(request: &Request) -> usize {
    size_of::<Deferred>() + request.bytes()
}

impl Front {
    /// Whether the answer to a range can be taken now. If not, the error is its size in bytes, with which the
    /// request is to be deferred ([`Front::defer`]).
    pub fn takes(&mut self, rpc: Rpc, reply: &RangeReply) -> Result<(), usize> {
        let bytes = answer_bytes(reply, self.config.bounds.connection_lists_bytes_min);
        self.takes_answer(rpc, bytes, |long_bytes| encode::is_long_range(reply, long_bytes))
    }

    /// Whether the answer to a transaction can be taken now; see [`Front::takes`].
    pub fn takes_txn(&mut self, rpc: Rpc, reply: &TxnReply) -> Result<(), usize> {
        let bytes = encode::txn_weight(reply, self.config.bounds.connection_lists_bytes_min);
        self.takes_answer(rpc, bytes, |long_bytes| encode::txn_weight(reply, long_bytes) > long_bytes)
    }

    fn takes_answer(
        &mut self,
        rpc: Rpc,
        bytes: usize,
        is_long: impl FnOnce(usize) -> bool,
    ) -> Result<(), usize> {
        let Front { config, connections, accounting, .. } = self;
        let bounds = &config.bounds;
        if bytes <= bounds.answer_bytes_min {
            return Ok(());
        }
        let there = of(connections, rpc.conn).filter(|connection| connection.method(rpc).is_some());
        let Some(connection) = there else { return Ok(()) };
        let is_written = !connection.is_backed_up(accounting.full) && !is_long(bounds.long_message_bytes);
        if is_written || has_place_for(connection, rpc, bytes, accounting, bounds) {
            Ok(())
        } else {
            Err(bytes)
        }
    }

    /// Whether a range that goes on, with `bytes` found beside what it has gathered, may as well be deferred.
    pub fn is_in_vain(&mut self, rpc: Rpc, bytes: usize) -> bool {
        let Front { config, connections, accounting, .. } = self;
        let bounds = &config.bounds;
        let Some(connection) = of(connections, rpc.conn) else { return false };
        bytes + connection.gathered(rpc) > bounds.connection_lists_bytes_min
            && !has_place(connection, rpc, accounting, bounds)
    }

    /// Sets how many bytes have been read of a range that goes on elsewhere: they count as its answer will.
    pub fn set_gathered(&mut self, rpc: Rpc, bytes: usize) {
        let Front { connections, accounting, .. } = self;
        if let Some(connection) = of(connections, rpc.conn) {
            connection.set_gathered(rpc, bytes);
            accounting.update(connection);
        }
    }

    /// Answers a call to Range or Txn with what is taken: where its client is slow, as its stream takes it.
    pub fn answer_taken(&mut self, now: Time, rpc: Rpc, term: Term, reply: Reply) {
        let FrontBounds { answer_bytes_min, long_message_bytes, .. } = self.config.bounds;
        if !encode::is_long(&reply, answer_bytes_min) {
            return self.answer(now, rpc, term, &Ok(reply));
        }
        let Some(connection) = of(&mut self.connections, rpc.conn) else { return };
        if connection.is_backed_up(self.accounting.full) || encode::is_long(&reply, long_message_bytes) {
            let header = crate::wire::Header { raft_term: term, ..self.config.header };
            self.begin_long(rpc, LongMessage::of_reply(&header, reply));
        } else {
            self.answer(now, rpc, term, &Ok(reply));
        }
    }

    /// Sets how many bytes the source of a stream holds for it: they count as answers do.
    pub fn set_held(&mut self, rpc: Rpc, bytes: usize) {
        self.waiting.answered(rpc);
        let Front { connections, accounting, .. } = self;
        if let Some(connection) = of(connections, rpc.conn) {
            connection.set_held(rpc, bytes);
            accounting.update(connection);
        }
    }

    /// Lets a request that changes nothing wait until its answer, of `answer_bytes` where that is known, may be
    /// held. It is asked anew then.
    pub fn defer(&mut self, now: Time, rpc: Rpc, request: Request, answer_bytes: Option<usize>) {
        let bytes = kept_bytes(&request);
        let answer_bytes = answer_bytes.unwrap_or(usize::MAX);
        let was_first = self.waiting.anew.take_if(|anew| *anew == rpc).is_some();
        let bounds = self.config.bounds;
        if !was_first && !self.waiting.has_space(bytes, &bounds) {
            self.drop_gone();
        }
        let deferred = Deferred { rpc, request, answer_bytes };
        if was_first {
            self.waiting.requests.push_front(deferred);
        } else if self.waiting.has_space(bytes, &bounds) {
            self.waiting.requests.push_back(deferred);
        } else {
            return self.answer(now, rpc, Term(0), &Err(Error::TooManyRequests));
        }
        self.waiting.bytes += bytes;
        self.waiting.check_at.get_or_insert(now + check_every(&bounds));
    }

    /// Forgets the requests whose clients wait no longer.
    fn drop_gone(&mut self) {
        let Front { connections, waiting, .. } = self;
        waiting.requests.retain(|deferred| {
            let is_there = is_there(connections, deferred.rpc);
            waiting.bytes -= if is_there { 0 } else { kept_bytes(&deferred.request) };
            is_there
        });
    }

    /// Asks anew for the first that has a place, if something was let go of.
    pub(super) fn ask_anew(&mut self, asks: &mut Vec<Ask>) {
        let Front { connections, waiting, accounting, config, .. } = self;
        waiting.anew.take_if(|rpc| !is_there(connections, *rpc));
        if waiting.anew.is_some() || !waiting.any() || !std::mem::take(&mut accounting.fell) {
            return;
        }
        let first = waiting.requests.iter().position(|Deferred { rpc, answer_bytes, .. }| {
            of(connections, rpc.conn).is_none_or(|of| {
                of.method(*rpc).is_none()
                    || has_place_for(of, *rpc, *answer_bytes, accounting, &config.bounds)
            })
        });
        let Some(Deferred { rpc, request, .. }) = first.and_then(|first| waiting.remove(first)) else {
            return;
        };
        // The next one is looked for behind this one, which may be gone.
        accounting.fell = true;
        if is_there(connections, rpc) {
            waiting.anew = Some(rpc);
            let method = of(connections, rpc.conn).and_then(|connection| connection.method(rpc));
            let caller = Caller { requires_leader: false }; // it was let in with one
            asks.push(match (method, request) {
                (Some(Method::RangeStream), Request::Range(request)) => {
                    Ask::RangeStream { rpc, caller, request }
                }
                (_, request) => Ask::Call { rpc, caller, request, bytes: 0 },
            });
        }
    }

    /// Looks at the readers while others wait for their place.
    pub(super) fn check_readers(&mut self, now: Time, asks: &mut Vec<Ask>) {
        let Front { waiting, accounting, config, .. } = self;
        let next = now + check_every(&config.bounds);
        if waiting.any() || accounting.full {
            waiting.check_at.get_or_insert(next);
        }
        if waiting.check_at() > now {
            return;
        }
        self.drop_gone();
        let Front { connections, waiting, accounting, counters, reader_losses, .. } = self;
        let somebody = waiting.any() || accounting.full;
        waiting.check_at = somebody.then_some(next);
        if !somebody {
            return;
        }
        for connection in connections.iter_mut().flatten() {
            let lost = connection.check_reader(counters, asks);
            if lost.answers > 0 || lost.closes {
                reader_losses.push((connection.id, lost));
            }
            accounting.update(connection);
        }
    }

    /// What clients have lost since this was last called, as they took nothing for long.
    pub fn take_reader_losses(&mut self) -> Vec<(ConnId, ReaderLoss)> {
        std::mem::take(&mut self.reader_losses)
    }
}

fn check_every(bounds: &FrontBounds) -> Duration {
    Duration::from_ms(bounds.reader_check_ms)
}

impl DeferredRequests {
    fn has_space(&self, bytes: usize, bounds: &FrontBounds) -> bool {
        self.requests.len() < bounds.lists_waiting_max && self.bytes + bytes <= bounds.lists_waiting_bytes_max
    }
}

fn is_there(connections: &mut [Option<ClientConnection>], rpc: Rpc) -> bool {
    of(connections, rpc.conn).is_some_and(|connection| connection.method(rpc).is_some())
}

/// Whether one more answer may be held for a connection, of whatever size: etcd bounds none. What has been read
/// of this answer does not count against it.
pub(super) fn has_place(
    connection: &ClientConnection,
    rpc: Rpc,
    accounting: &Accounting,
    bounds: &FrontBounds,
) -> bool {
    let own = connection.gathered(rpc);
    connection.held().lists - own < bounds.connection_lists_bytes_max
        && accounting.held.lists - own < bounds.lists_bytes_max
}

/// Whether one more answer of `bytes` may be held: a connection that holds little may hold it in any case.
fn has_place_for(
    of: &ClientConnection,
    rpc: Rpc,
    bytes: usize,
    accounting: &Accounting,
    bounds: &FrontBounds,
) -> bool {
    let others = of.held().lists - of.gathered(rpc);
    let is_small = others.saturating_add(bytes) <= bounds.connection_lists_bytes_min;
    is_small || has_place(of, rpc, accounting, bounds)
}

/// How many bytes an answer holds, counted no further than to more than `bytes_max`.
fn answer_bytes(reply: &RangeReply, bytes_max: usize) -> usize {
    let mut bytes = 0;
    for kv in &reply.kvs {
        bytes += size_of::<KeyValue>() + kv.key.len() + kv.value.len();
        if bytes > bytes_max {
            break;
        }
    }
    bytes
}
