//! What the front asks, and the calls that answer with more than one message.

use super::super::shards::Shards;
use super::door::{ClientRequest, is_learner};
use super::{Calls, ReplyTo, Turn};
use crate::api::{Answer, Error, Member, RangeReply, RangeRequest, Reply, ServingStatus, WatchRequest};
use crate::front::{Ask, Caller, ReaderLoss, Rpc};
use crate::io::{ConnectionState, Level, Value};
use crate::reactor::Founder;
use crate::stdx::HashMap;
use crate::txn::{self, Counting, Next, RangeStream};
use crate::types::{ConnId, Duration, Time};
use crate::wire::health::{Facts, Page, Reads};
use crate::wire::http1::Http1Response;
use crate::wire::peer_pages::PeerFacts;
use crate::wire::{Method, encode};
use std::collections::BTreeSet;

/// A RangeStream under way.
pub(super) struct Chunking {
    stream: RangeStream,
    /// A chunk is being read.
    reading: bool,
    /// A chunk that waits for its client.
    next: Option<Next>,
}

/// A LeaseKeepAlive stream: so many renewals without an answer, whether nothing more is read of it, and whether
/// the client has ended its side.
#[derive(Default)]
pub(super) struct KeepingAlive {
    outstanding: usize,
    paused: bool,
    ended: bool,
}

/// The streams of this reactor's clients, beside watches.
#[derive(Default)]
pub(super) struct Streams {
    chunking: HashMap<Rpc, Chunking>,
    keeping_alive: HashMap<Rpc, KeepingAlive>,
    /// Those that asked for a leader, while there is none.
    leaderless: BTreeSet<Rpc>,
    /// Until when they wait for the next one.
    leaderless_until: Time,
    /// From when new ones are refused, since the leader was lost.
    refused_from: Option<Time>,
}

impl Streams {
    pub fn wake_at(&self) -> Time {
        if self.leaderless.is_empty() { Time::NEVER } else { self.leaderless_until }
    }
}

impl Calls {
    pub fn on_moved(&mut self, turn: &mut Turn, conn: ConnId, state: ConnectionState) {
        let paths = &mut turn.counters.paths;
        match self.front.moved(conn, state) {
            true => paths.connection_moved += 1,
            false => paths.connection_sent_back += 1,
        }
    }

    pub fn on_received(&mut self, turn: &Turn, conn: ConnId, bytes: &[u8]) {
        self.front.receive(turn.now, conn, bytes, &mut self.asks);
    }

    pub fn on_sent(&mut self, turn: &Turn, conn: ConnId, bytes: usize) {
        self.front.sent(turn.now, conn, bytes, &mut self.asks);
    }

    pub fn on_ended(&mut self, turn: &Turn, conn: ConnId) {
        self.front.ended(turn.now, conn, &mut self.asks);
    }

    pub fn on_closed(&mut self, conn: ConnId) {
        self.front.closed(conn, &mut self.asks);
    }

    pub(super) fn front_on_time(&mut self, turn: &mut Turn) {
        self.front.on_time(turn.now, &mut self.asks);
        for (conn, loss) in self.front.take_reader_losses() {
            tell_reader_loss(turn, conn, loss);
        }
    }

    /// Serves what clients have asked, and reads what is ready to be read: a short range of this reactor's own
    /// shards at once, for which nothing has to travel.
    pub fn serve(&mut self, turn: &mut Turn, shards: &Shards) {
        loop {
            while let Some((reply_to, request, counting)) = self.ready.pop_front() {
                self.read(turn, shards, reply_to, request, counting);
            }
            if self.asks.is_empty() {
                return;
            }
            let mut asks = std::mem::take(&mut self.asks);
            for ask in asks.drain(..) {
                self.serve_ask(turn, shards, ask);
            }
            if self.asks.is_empty() {
                self.asks = asks; // for its room
            }
        }
    }

    fn serve_ask(&mut self, turn: &mut Turn, shards: &Shards, ask: Ask) {
        let (rpc, caller, request, bytes) = match ask {
            Ask::Call { rpc, caller, request, bytes } => (rpc, caller, ClientRequest::Call(request), bytes),
            Ask::RangeStream { rpc, caller, request } => {
                (rpc, caller, ClientRequest::RangeStream(request), 0)
            }
            Ask::KeepAlive { rpc, caller, lease } => (rpc, caller, ClientRequest::KeepAlive(lease), 0),
            Ask::Watch { rpc, caller, request } => (rpc, caller, ClientRequest::Watch(request), 0),
            Ask::HealthWatch { rpc, caller, service } => {
                (rpc, caller, ClientRequest::HealthWatch(service), 0)
            }
            // HTTP/1 has no header that asks for a leader.
            Ask::Page { rpc, page } => (rpc, Caller { requires_leader: false }, ClientRequest::Page(page), 0),
            Ask::Ended { rpc } => return self.client_ended(rpc),
            Ask::Gone { rpc } => return self.client_gone(turn, rpc),
            Ask::Writable { rpc } => return self.client_takes_more(turn, rpc),
        };
        if let Some(range) = self.enter(turn, (rpc, caller), request, bytes) {
            self.read(turn, shards, ReplyTo::Rpc(rpc), range, Counting::Total);
        }
    }

    fn client_takes_more(&mut self, turn: &mut Turn, rpc: Rpc) {
        self.watches.on_writable(rpc);
        self.go_on_chunking(turn, rpc);
        self.go_on_keeping_alive(turn, rpc);
    }

    /// The status never changes, so one message says all; the stream stays until its client goes.
    pub(super) fn watch_health(&mut self, rpc: Rpc, service: &str) {
        let status = if service.is_empty() { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        self.front.health(rpc, status);
    }

    /// Before the first epoch nobody knows the shards: a stream's requests wait for it.
    pub(super) fn park_watch(&mut self, turn: &mut Turn, rpc: Rpc, request: WatchRequest) {
        if self.parked_watches.len() < turn.settings.bounds.parked_calls_max {
            self.parked_watches.push((rpc, request));
        } else {
            self.end_stream(turn, rpc, Error::NoLeader);
        }
    }

    pub(super) fn unpark_watches(&mut self, turn: &mut Turn) {
        for (rpc, request) in std::mem::take(&mut self.parked_watches) {
            match is_learner(turn) {
                true => self.end_stream(turn, rpc, Error::NotSupportedForLearner),
                false => self.watch(turn, rpc, request),
            }
        }
    }

    fn client_ended(&mut self, rpc: Rpc) {
        if let Some(stream) = self.streams.keeping_alive.get_mut(&rpc) {
            stream.ended = true;
            self.end_keep_alive(rpc);
        } else if self.front.method(rpc) == Some(Method::LeaseKeepAlive) {
            self.front.end(rpc, Ok(())); // it never asked for anything
        }
    }

    fn client_gone(&mut self, turn: &mut Turn, rpc: Rpc) {
        self.streams.chunking.remove(&rpc);
        self.streams.keeping_alive.remove(&rpc);
        self.streams.leaderless.remove(&rpc);
        self.parked_watches.retain(|(of, _)| *of != rpc);
        self.end_watch(turn, rpc, None);
    }

    pub(super) fn end_stream(&mut self, turn: &mut Turn, rpc: Rpc, error: Error) {
        self.client_gone(turn, rpc);
        self.front.end(rpc, Err(error));
    }

    // Calls that asked for a leader. Etcd refuses new ones once it has noticed that there is none, an election timeout
    // or two after the loss, and has more patience with streams that are open: to open them anew elsewhere is dear.
    // Here the loss is mostly noticed at once, and who is refused at once asks again at once, many times over before
    // the next leader is there.

    /// The epoch is over.
    pub(super) fn lose_leader(&mut self, turn: &Turn) {
        if turn.epoch_state.has_lost_leader() && self.streams.refused_from.is_none() {
            self.streams.refused_from = Some(turn.now + turn.settings.election_timeout);
            self.streams.leaderless = self.front.streams_requiring_leader().collect();
            self.streams.leaderless_until = turn.now + turn.settings.leader_patience();
        }
    }

    /// An epoch serves.
    pub(super) fn find_leader(&mut self) {
        self.streams.leaderless.clear();
        self.streams.refused_from = None;
    }

    /// Whether a new call that requires a leader is refused.
    pub(super) fn refuses_leaderless(&self, turn: &Turn) -> bool {
        let waits = self.streams.refused_from.is_some_and(|from| turn.now < from);
        turn.epoch_state.has_lost_leader() && !waits
    }

    /// A stream that requires a leader is let in. Where there is none it waits for one with those that were open before.
    pub(super) fn let_in_requiring_leader(&mut self, turn: &Turn, rpc: Rpc) {
        if turn.epoch_state.has_lost_leader() {
            self.streams.leaderless.insert(rpc);
        }
    }

    /// Ends the streams that have waited for a leader for too long.
    pub(super) fn end_leaderless(&mut self, turn: &mut Turn) {
        if turn.now < self.streams.wake_at() {
            return;
        }
        assert!(turn.epoch_state.has_lost_leader(), "streams wait for a leader while there is none");
        for rpc in std::mem::take(&mut self.streams.leaderless) {
            self.end_stream(turn, rpc, Error::NoLeader);
        }
    }

    // LeaseKeepAlive.

    pub(super) fn keeps_alive(&self, rpc: Rpc) -> bool {
        self.streams.keeping_alive.contains_key(&rpc)
    }

    /// One more renewal is under way. A stream with many is read no further.
    pub(super) fn expect_renewal(&mut self, turn: &Turn, rpc: Rpc) {
        let stream = self.streams.keeping_alive.entry(rpc).or_default();
        stream.outstanding += 1;
        let enough =
            stream.outstanding >= turn.settings.bounds.keep_alives_max || self.front.budget(rpc) == 0;
        if enough && !std::mem::replace(&mut stream.paused, true) {
            self.front.pause(rpc);
        }
    }

    pub(super) fn on_kept_alive(&mut self, turn: &mut Turn, rpc: Rpc, answer: Answer) {
        let term = turn.term();
        let Some(stream) = self.streams.keeping_alive.get_mut(&rpc) else { return };
        assert!(stream.outstanding > 0, "each renewal is answered once");
        stream.outstanding -= 1;
        match answer {
            Ok(Reply::KeepAlive(reply)) => self.front.kept_alive(rpc, term, &reply),
            Ok(reply @ Reply::Encoded(_)) => self.front.encoded(rpc, &reply),
            Ok(_) => unreachable!("a renewal is answered by a renewal"),
            Err(error) => {
                self.streams.keeping_alive.remove(&rpc);
                return self.front.end(rpc, Err(error));
            }
        }
        self.end_keep_alive(rpc);
        self.go_on_keeping_alive(turn, rpc);
    }

    /// Reads on where the client takes its answers.
    fn go_on_keeping_alive(&mut self, turn: &mut Turn, rpc: Rpc) {
        let Some(stream) = self.streams.keeping_alive.get_mut(&rpc) else { return };
        let room = turn.settings.bounds.keep_alives_max.saturating_sub(stream.outstanding);
        if !stream.paused || room == 0 || self.front.budget(rpc) == 0 {
            return;
        }
        self.front.read_on(rpc, room, &mut self.asks);
        stream.paused = self.front.is_paused(rpc);
    }

    fn end_keep_alive(&mut self, rpc: Rpc) {
        if self.streams.keeping_alive.get(&rpc).is_some_and(|stream| stream.ended && stream.outstanding == 0)
        {
            self.streams.keeping_alive.remove(&rpc);
            self.front.end(rpc, Ok(()));
        }
    }

    // RangeStream.

    pub(super) fn begin_range_stream(&mut self, turn: &mut Turn, rpc: Rpc, request: RangeRequest) {
        let noted = turn.shown();
        let opened = txn::read_revision(request.revision, noted, *turn.compacted)
            .map(|at| RangeStream::open(request, at, noted));
        match opened {
            Ok(stream) => {
                let next = stream.next();
                self.streams.chunking.insert(rpc, Chunking { stream, reading: false, next });
                self.go_on_chunking(turn, rpc);
            }
            Err(error) => self.front.end(rpc, Err(error)),
        }
    }

    /// Reads the next chunk, if the client has room for it.
    fn go_on_chunking(&mut self, turn: &mut Turn, rpc: Rpc) {
        let Some(chunking) = self.streams.chunking.get_mut(&rpc) else { return };
        if chunking.reading || self.front.budget(rpc) == 0 {
            return;
        }
        match chunking.next.take() {
            Some(Next::Read(request, counting)) => {
                chunking.reading = true;
                self.ready.push_back((ReplyTo::Chunk(rpc), request, counting));
            }
            Some(Next::Piece) => {
                let piece = chunking.stream.piece(turn.settings.request_bytes_max);
                self.send_chunk(turn, rpc, &piece);
            }
            None => {}
        }
    }

    pub(super) fn on_chunk(&mut self, turn: &mut Turn, rpc: Rpc, answer: Answer) {
        let target = turn.settings.request_bytes_max;
        let Some(chunking) = self.streams.chunking.get_mut(&rpc) else { return };
        assert!(chunking.reading, "a chunk comes that was asked for");
        chunking.reading = false;
        let reply = match answer {
            Ok(Reply::Range(reply)) => reply,
            Ok(_) => unreachable!("a range is answered by a range"),
            Err(error) => {
                self.streams.chunking.remove(&rpc);
                return self.front.end(rpc, Err(error));
            }
        };
        if chunking.stream.is_read_at_once()
            && let Err(bytes) = self.front.takes(rpc, &reply)
        {
            return self.begin_later(turn, rpc, Some(bytes));
        }
        let bytes = encode::range_chunk_length(&Default::default(), &reply, true);
        let chunk = chunking.stream.chunk(reply, bytes, target);
        self.send_chunk(turn, rpc, &chunk);
    }

    /// A stream whose range was read in vain begins anew when there is a place for it.
    pub(super) fn begin_later(&mut self, turn: &mut Turn, rpc: Rpc, answer_bytes: Option<usize>) {
        let Some(Chunking { stream, .. }) = self.streams.chunking.remove(&rpc) else { return };
        self.read_later(turn, rpc, stream.into_request(), answer_bytes);
    }

    /// Whether a stream's range is read as a whole before its first chunk.
    pub(super) fn is_read_at_once(&self, rpc: Rpc) -> bool {
        self.streams.chunking.get(&rpc).is_some_and(|chunking| chunking.stream.is_read_at_once())
    }

    fn send_chunk(&mut self, turn: &mut Turn, rpc: Rpc, chunk: &RangeReply) {
        let term = turn.term();
        let Some(chunking) = self.streams.chunking.get_mut(&rpc) else { return };
        chunking.next = chunking.stream.next();
        let last = chunking.next.is_none();
        self.front.set_held(rpc, chunking.stream.kept_bytes());
        assert!(chunk.revision <= turn.shown(), "a chunk shows nothing above what is settled");
        self.front.chunk(rpc, term, chunk, last);
        if last {
            self.streams.chunking.remove(&rpc);
            self.front.end(rpc, Ok(()));
        } else {
            self.go_on_chunking(turn, rpc);
        }
    }

    // Pages of HTTP/1.

    pub(super) fn open_page(&mut self, turn: &mut Turn, rpc: Rpc, page: Page) {
        if matches!(page, Page::Metrics | Page::Vars) {
            return self.take_figures(turn, rpc, page);
        }
        if let Page::Peer(page) = page {
            let response = page.render(&self.peer_facts(turn));
            return self.show_page(turn, rpc, &response);
        }
        // Whoever has others to ask has asked them, where the page wants it.
        let has_read =
            if turn.is_alone() { turn.epoch_state.may_read() } else { turn.epoch_state.knows_leader() };
        self.show_checks(turn, rpc, &page, if has_read { Ok(()) } else { Err(Error::Timeout) });
    }

    /// A page of health, where the newest state could be read, or could not.
    pub(super) fn show_checks(&mut self, turn: &mut Turn, rpc: Rpc, page: &Page, latest: Result<(), Error>) {
        let facts = Facts {
            alarms: turn.control.alarms(crate::api::AlarmType::None),
            has_leader: turn.epoch_state.knows_leader(),
            is_learner: is_learner(turn),
        };
        let reads = Reads {
            serializable: if turn.epoch_state.may_watch() { Ok(()) } else { latest.clone() },
            linearizable: latest,
        };
        let response = page.render(&facts, &reads);
        if let Page::Health { .. } = page {
            let healthy = response.status == 200;
            turn.counters.health_successes += u64::from(healthy);
            turn.counters.health_failures += u64::from(!healthy);
        }
        if let Page::Checks { probe, checks, .. } = page {
            for check in checks {
                let passes = check.failure(&facts, &reads).is_none();
                turn.counters.checks.count(turn.now, *probe, *check, passes);
            }
        }
        self.show_page(turn, rpc, &response);
    }

    /// The members as far as this one knows: those that begin the cluster, until it has begun.
    fn peer_facts(&self, turn: &Turn) -> PeerFacts {
        let known = turn.control.members();
        let founder = |founder: &Founder| Member {
            id: founder.id,
            name: founder.name.clone(),
            peer_urls: founder.peer_urls.clone(),
            ..Default::default()
        };
        PeerFacts {
            cluster: turn.settings.cluster,
            has_begun: !known.is_empty(),
            members: match known.is_empty() {
                true => turn.settings.founders.iter().map(founder).collect(),
                false => known,
            },
            wall_secs: self.front.wall_secs().unwrap_or(0),
        }
    }

    pub(super) fn show_page(&mut self, turn: &Turn, rpc: Rpc, response: &Http1Response) {
        self.front.page(turn.now, rpc, response, &mut self.asks);
    }
}

fn tell_reader_loss(turn: &mut Turn, conn: ConnId, loss: ReaderLoss) {
    let message = if loss.closes {
        "closing a connection: its client took nothing of its answers while others waited"
    } else {
        "dropping answers: their client took nothing of them while others waited"
    };
    let bounds = &turn.settings.bounds.front;
    let waited = Duration::from_ms(bounds.reader_check_ms * u64::from(bounds.reader_checks_max));
    let fields = [
        ("remote", Value::Client(conn)),
        ("answers", loss.answers.into()),
        ("bytes", loss.bytes.into()),
        ("waited", waited.into()),
    ];
    turn.log_line(Level::Warn, message, fields);
}
