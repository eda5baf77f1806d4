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
use crate::limits::{
    ANSWER_BYTES_MIN, CONNECTION_LISTS_BYTES_MAX, CONNECTION_LISTS_BYTES_MIN, FRONT_LISTS_BYTES_MAX,
    LISTS_WAITING_BYTES_MAX, LISTS_WAITING_MAX, READER_CHECK_MS,
};
use crate::types::{Duration, KeyValue, Term, Time};
use crate::wire::encode::{self, Long};
use std::collections::VecDeque;

/// What answers to ranges may hold that their clients have not taken.
#[derive(Clone, Copy, Debug)]
pub struct ListLimits {
    /// Of one connection, and of all of a reactor.
    pub connection_bytes_max: usize,
    pub bytes_max: usize,
    /// Of one connection even where all have no place left.
    pub connection_bytes_min: usize,
}

impl Default for ListLimits {
    fn default() -> ListLimits {
        ListLimits {
            connection_bytes_max: CONNECTION_LISTS_BYTES_MAX,
            bytes_max: FRONT_LISTS_BYTES_MAX,
            connection_bytes_min: CONNECTION_LISTS_BYTES_MIN,
        }
    }
}

/// The requests that wait.
#[derive(Default)]
pub(super) struct Waiting {
    requests: VecDeque<(Rpc, RangeRequest)>,
    bytes: usize,
    /// The one that is being read anew: the others see what place it leaves.
    anew: Option<Rpc>,
    /// When readers are looked at; none while nobody waits.
    check_at: Option<Time>,
}

impl Waiting {
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

    fn remove(&mut self, place: usize) -> Option<(Rpc, RangeRequest)> {
        let (rpc, request) = self.requests.remove(place)?;
        self.bytes -= kept_bytes(&request);
        Some((rpc, request))
    }
}

fn kept_bytes(request: &RangeRequest) -> usize {
    size_of::<(Rpc, RangeRequest)>() + request.key.len() + request.range_end.len()
}

impl Front {
    /// Whether the answer to a range can be taken now. If not, the request is to wait: [`Front::defer`].
    pub fn takes(&mut self, rpc: Rpc, reply: &RangeReply) -> bool {
        let Front { manners, connections, tally, .. } = self;
        let Some(connection) = of(connections, rpc.conn) else { return true };
        let held_back = connection.is_backed_up(tally.full);
        if !held_back && !encode::is_long_range(reply) {
            return true;
        }
        let small = manners.lists.connection_bytes_min.saturating_sub(connection.held().lists);
        has_place(connection, rpc, tally, manners)
            || is_within(reply, ANSWER_BYTES_MIN)
            || (connection.takes_pieces(rpc) && is_within(reply, small))
    }

    /// Whether a range that has found so many bytes and goes on may as well wait.
    pub fn is_in_vain(&mut self, rpc: Rpc, bytes: usize) -> bool {
        let Front { manners, connections, tally, .. } = self;
        let found_much = bytes > manners.lists.connection_bytes_min;
        let Some(connection) = of(connections, rpc.conn).filter(|_| found_much) else { return false };
        !has_place(connection, rpc, tally, manners)
    }

    /// Answers a call to Range.
    pub fn answer_range(&mut self, now: Time, rpc: Rpc, term: Term, reply: RangeReply) {
        let Front { connections, tally, .. } = self;
        let Some(connection) = of(connections, rpc.conn) else { return };
        let held_back = connection.is_backed_up(tally.full) && !is_within(&reply, ANSWER_BYTES_MIN);
        if (held_back || encode::is_long_range(&reply)) && connection.takes_pieces(rpc) {
            let header = crate::wire::Header { raft_term: term, ..self.manners.header };
            self.begin_long(rpc, Long::of_reply(&header, Reply::Range(reply)));
        } else {
            self.answer(now, rpc, term, &Ok(Reply::Range(reply)));
        }
    }

    /// Lets a request wait until its answer has a place. It is asked for anew then.
    pub fn defer(&mut self, now: Time, rpc: Rpc, request: RangeRequest) {
        let bytes = kept_bytes(&request);
        if !self.waiting.has_room(bytes) {
            self.drop_gone();
        }
        let Waiting { requests, anew, .. } = &mut self.waiting;
        if anew.take_if(|anew| *anew == rpc).is_some() {
            requests.push_front((rpc, request));
        } else if self.waiting.has_room(bytes) {
            self.waiting.requests.push_back((rpc, request));
        } else {
            return self.answer(now, rpc, Term(0), &Err(Error::TooManyRequests));
        }
        self.waiting.bytes += bytes;
        self.waiting.check_at.get_or_insert(now + CHECK_EVERY);
    }

    /// Forgets the requests whose clients wait no longer.
    fn drop_gone(&mut self) {
        let Front { connections, waiting, .. } = self;
        waiting.requests.retain(|(rpc, request)| {
            let is_there = is_there(connections, *rpc);
            waiting.bytes -= if is_there { 0 } else { kept_bytes(request) };
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
        let first = waiting.requests.iter().position(|(rpc, _)| {
            of(connections, rpc.conn)
                .is_none_or(|of| of.method(*rpc).is_none() || has_place(of, *rpc, tally, manners))
        });
        let Some((rpc, request)) = first.and_then(|first| waiting.remove(first)) else { return };
        // The next one is looked for behind this one, which may be gone.
        tally.fell = true;
        if is_there(connections, rpc) {
            waiting.anew = Some(rpc);
            asks.push(Ask::Call { rpc, request: Request::Range(request), bytes: 0 });
        }
    }

    /// Looks at the readers while others wait for their place.
    pub(super) fn check_readers(&mut self, now: Time, asks: &mut Vec<Ask>) {
        let Front { connections, waiting, tally, counters, .. } = self;
        if !waiting.any() && !tally.full {
            waiting.check_at = None;
            return;
        }
        if *waiting.check_at.get_or_insert(now + CHECK_EVERY) > now {
            return;
        }
        waiting.check_at = Some(now + CHECK_EVERY);
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
    let limits = &manners.lists;
    connection.held().lists < limits.connection_bytes_max && tally.held.lists < limits.bytes_max
}

/// Whether an answer holds no more than so many bytes. Looks at no more than that.
fn is_within(reply: &RangeReply, bytes_max: usize) -> bool {
    let mut bytes = 0;
    reply.kvs.iter().all(|kv| {
        bytes += size_of::<KeyValue>() + kv.key.len() + kv.value.len();
        bytes <= bytes_max
    })
}
