//! Lists that wait for their turn.
//!
//! The answer to a range that its client has not taken is written as the client takes it. Until then it shares
//! the store's memory, but it holds what the store would let go of, so all such answers together are bounded.
//! One too many is not refused: its request waits, and is read anew when there is a place. A reader that takes
//! nothing for long while others wait loses its place.

use super::connection::Connection;
use super::tally::Tally;
use super::{Ask, Front, Manners, Rpc, of};
use crate::api::{Error, RangeReply, RangeRequest, Reply, Request};
use crate::limits::{ANSWER_BYTES_MIN, LISTS_WAITING_BYTES_MAX, LISTS_WAITING_MAX, READER_CHECK_MS};
use crate::types::{Duration, KeyValue, Term, Time};
use crate::wire::Method;
use crate::wire::encode::{self, Long};
use std::collections::VecDeque;

/// A request, and what its answer holds, as far as that is known.
struct Deferred {
    rpc: Rpc,
    request: RangeRequest,
    answer_bytes: usize,
}

/// The requests that wait.
#[derive(Default)]
pub(super) struct Waiting {
    requests: VecDeque<Deferred>,
    bytes: usize,
    /// The one that is being read anew: the others see what place it leaves.
    anew: Option<Rpc>,
    /// When readers are looked at; none while nobody waits.
    check_at: Option<Time>,
}

impl Waiting {
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

fn kept_bytes(request: &RangeRequest) -> usize {
    size_of::<Deferred>() + request.key.len() + request.range_end.len()
}

impl Front {
    /// Whether the answer to a range can be taken now. If not, the request is to wait: [`Front::defer`].
    pub fn takes(&mut self, rpc: Rpc, reply: &RangeReply) -> bool {
        let Front { manners, connections, tally, .. } = self;
        let bytes = answer_bytes(reply, manners);
        if bytes <= ANSWER_BYTES_MIN {
            return true;
        }
        let there = of(connections, rpc.conn).filter(|connection| connection.method(rpc).is_some());
        let Some(connection) = there else { return true };
        let held_back = connection.is_backed_up(tally.full);
        (!held_back && !encode::is_long_range(reply)) || has_place_for(connection, rpc, bytes, tally, manners)
    }

    /// Whether a range that has found so many bytes and goes on may as well wait.
    pub fn is_in_vain(&mut self, rpc: Rpc, bytes: usize) -> bool {
        let Front { manners, connections, tally, .. } = self;
        let found_much = bytes > manners.bounds.connection_lists_bytes_min;
        let Some(connection) = of(connections, rpc.conn).filter(|_| found_much) else { return false };
        !has_place(connection, rpc, tally, manners)
    }

    /// Answers a call to Range.
    pub fn answer_range(&mut self, now: Time, rpc: Rpc, term: Term, reply: RangeReply) {
        let Front { connections, tally, .. } = self;
        let Some(connection) = of(connections, rpc.conn) else { return };
        let held_back =
            connection.is_backed_up(tally.full) && answer_bytes(&reply, &self.manners) > ANSWER_BYTES_MIN;
        if (held_back || encode::is_long_range(&reply)) && connection.takes_pieces(rpc) {
            let header = crate::wire::Header { raft_term: term, ..self.manners.header };
            self.begin_long(rpc, Long::of_reply(&header, Reply::Range(reply)));
        } else {
            self.answer(now, rpc, term, &Ok(Reply::Range(reply)));
        }
    }

    /// Whoever feeds a stream holds so much for it: it counts as the answers do.
    pub fn holds(&mut self, rpc: Rpc, bytes: usize) {
        self.waiting.answered(rpc);
        let Front { connections, tally, .. } = self;
        if let Some(connection) = of(connections, rpc.conn) {
            connection.holds(rpc, bytes);
            tally.settle(connection);
        }
    }

    /// Lets a request wait until its answer has a place. It is asked for anew then. `answer`: where it is known.
    pub fn defer(&mut self, now: Time, rpc: Rpc, request: RangeRequest, answer: Option<&RangeReply>) {
        let bytes = kept_bytes(&request);
        let answer_bytes = answer.map_or(usize::MAX, |reply| answer_bytes(reply, &self.manners));
        let was_first = self.waiting.anew.take_if(|anew| *anew == rpc).is_some();
        if !was_first && !self.waiting.has_room(bytes) {
            self.drop_gone();
        }
        let deferred = Deferred { rpc, request, answer_bytes };
        if was_first {
            self.waiting.requests.push_front(deferred);
        } else if self.waiting.has_room(bytes) {
            self.waiting.requests.push_back(deferred);
        } else {
            return self.answer(now, rpc, Term(0), &Err(Error::TooManyRequests));
        }
        self.waiting.bytes += bytes;
        self.waiting.check_at.get_or_insert(now + CHECK_EVERY);
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
        let Front { connections, waiting, tally, manners, .. } = self;
        waiting.anew.take_if(|rpc| !is_there(connections, *rpc));
        if waiting.anew.is_some() || !waiting.any() || !std::mem::take(&mut tally.fell) {
            return;
        }
        let first = waiting.requests.iter().position(|Deferred { rpc, answer_bytes, .. }| {
            of(connections, rpc.conn).is_none_or(|of| {
                of.method(*rpc).is_none() || has_place_for(of, *rpc, *answer_bytes, tally, manners)
            })
        });
        let Some(Deferred { rpc, request, .. }) = first.and_then(|first| waiting.remove(first)) else {
            return;
        };
        // The next one is looked for behind this one, which may be gone.
        tally.fell = true;
        if is_there(connections, rpc) {
            waiting.anew = Some(rpc);
            asks.push(match of(connections, rpc.conn).and_then(|connection| connection.method(rpc)) {
                Some(Method::RangeStream) => Ask::RangeStream { rpc, request },
                _ => Ask::Call { rpc, request: Request::Range(request), bytes: 0 },
            });
        }
    }

    /// Looks at the readers while others wait for their place.
    pub(super) fn check_readers(&mut self, now: Time, asks: &mut Vec<Ask>) {
        let Front { waiting, tally, .. } = self;
        if waiting.any() || tally.full {
            waiting.check_at.get_or_insert(now + CHECK_EVERY);
        }
        if waiting.check_at() > now {
            return;
        }
        self.drop_gone();
        let Front { connections, waiting, tally, counters, .. } = self;
        let somebody = waiting.any() || tally.full;
        waiting.check_at = somebody.then(|| now + CHECK_EVERY);
        if !somebody {
            return;
        }
        for connection in connections.iter_mut().flatten() {
            connection.check_reader(counters, asks);
            tally.settle(connection);
        }
    }
}

const CHECK_EVERY: Duration = Duration::from_ms(READER_CHECK_MS);

impl Waiting {
    fn has_room(&self, bytes: usize) -> bool {
        self.requests.len() < LISTS_WAITING_MAX && self.bytes + bytes <= LISTS_WAITING_BYTES_MAX
    }
}

fn is_there(connections: &mut [Option<Connection>], rpc: Rpc) -> bool {
    of(connections, rpc.conn).is_some_and(|connection| connection.method(rpc).is_some())
}

/// Whether one more answer may be held for a connection, of whatever size: etcd bounds none.
pub(super) fn has_place(connection: &Connection, rpc: Rpc, tally: &Tally, manners: &Manners) -> bool {
    if !connection.takes_pieces(rpc) {
        return connection.spare(tally.full, manners) == usize::MAX;
    }
    let bounds = &manners.bounds;
    connection.held().lists < bounds.connection_lists_bytes_max
        && tally.held.lists < bounds.front_lists_bytes_max
}

/// The same for one of so many bytes: a connection that holds little may hold it in any case.
fn has_place_for(of: &Connection, rpc: Rpc, bytes: usize, tally: &Tally, manners: &Manners) -> bool {
    let is_small = of.held().lists.saturating_add(bytes) <= manners.bounds.connection_lists_bytes_min;
    has_place(of, rpc, tally, manners) || (is_small && of.takes_pieces(rpc))
}

/// What an answer holds. Looks at no more than makes it more than any connection may hold in any case.
fn answer_bytes(reply: &RangeReply, manners: &Manners) -> usize {
    let mut bytes = 0;
    for kv in &reply.kvs {
        bytes += size_of::<KeyValue>() + kv.key.len() + kv.value.len();
        if bytes > manners.bounds.connection_lists_bytes_min {
            break;
        }
    }
    bytes
}
