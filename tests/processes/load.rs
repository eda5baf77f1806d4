//! The load: clients at every member that ask for anything, and an observer at each, which watches everything. What
//! they see is the history that the simulator's checks judge.

use super::members::{Members, until};
use braid::sim::client::Client;
use braid::sim::history::{History, Known, Op, method_of};
use braid::sim::plan::OpKind;
use braid::sim::workload::{Asker, Knows};
use braid::sim::{Identity, check_shown};
use braid::stdx::Rng;
use braid::types::{ClusterId, ConnId, MemberId, ReactorId, Time};
use braid::wire::Method;
use braid::wire::proto::{self, Message, watch_request::RequestUnion};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CLIENTS_PER_MEMBER: usize = 3;
/// Calls of one client at a time.
const OUTSTANDING_MAX: usize = 4;
const STREAMS_MAX: usize = 2;
/// Between two calls of a client, at most.
const PAUSE_MS_MAX: u64 = 40;
const READ_FOR: Duration = Duration::from_millis(4);
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// A client that has heard nothing for so long leaves. Members say before that they cannot answer.
const PATIENCE: Duration = Duration::from_secs(12);
const WINDOW_BYTES: u32 = 1 << 20;
const VALUE_BYTES_MAX: u64 = 300;

/// What is asked, and how often.
const KINDS: &[(OpKind, u64)] = &[
    (OpKind::Put, 30),
    (OpKind::Delete, 5),
    (OpKind::Txn, 15),
    (OpKind::Range, 25),
    (OpKind::RangeStream, 2),
    (OpKind::Grant, 2),
    (OpKind::KeepAlive, 2),
    (OpKind::Revoke, 1),
    (OpKind::TimeToLive, 1),
    (OpKind::Watch, 2),
    (OpKind::WatchMore, 2),
    (OpKind::HashKv, 1),
    (OpKind::Status, 1),
];

/// What makes entries of the control log, or shows their effect.
const KINDS_OF_CONTROL: &[(OpKind, u64)] = &[(OpKind::Compact, 1), (OpKind::Members, 1)];

/// What is asked as well where a disk may be full: clients take the alarm back, again and again.
const KINDS_OF_FULL_DISKS: &[(OpKind, u64)] = &[(OpKind::Disarm, 4), (OpKind::Alarms, 1)];

struct Shared {
    begun: Instant,
    history: Mutex<History>,
    addresses: Vec<SocketAddr>,
    /// By place; 0 where none has joined.
    members: Mutex<Vec<MemberId>>,
    /// The revision up to which the observer of each member has seen everything.
    observed: Vec<AtomicI64>,
    /// Calls under way, by client. The last one is the operator, who is on no thread of its own.
    outstanding: Vec<AtomicUsize>,
    asks: AtomicBool,
    /// Where above 0, every client asks for the hash at this revision, and for nothing else.
    hashes_at: AtomicI64,
    ends: AtomicBool,
}

/// Clients on threads of their own, until they are ended.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn begin(members: &Members, controls: bool, disks_fill: bool, rng: &mut Rng) -> Result<Load, String> {
        let more = [(controls, KINDS_OF_CONTROL), (disks_fill, KINDS_OF_FULL_DISKS)];
        let more = more.into_iter().filter(|(wanted, _)| *wanted).flat_map(|(_, kinds)| kinds);
        let kinds: Vec<(OpKind, u64)> = KINDS.iter().chain(more).copied().collect();
        let known = known(members)?;
        let count = members.all_places().len();
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            addresses: members.clients(),
            members: Mutex::new(known.members.iter().map(|member| member.id).collect()),
            history: Mutex::new(History::of(known)),
            observed: members.all_places().map(|_| AtomicI64::new(1)).collect(),
            outstanding: (0..count * CLIENTS_PER_MEMBER + 1).map(|_| AtomicUsize::new(0)).collect(),
            asks: AtomicBool::new(true),
            hashes_at: AtomicI64::new(0),
            ends: AtomicBool::new(false),
        });
        let clients = (0..count * CLIENTS_PER_MEMBER).map(|id| {
            let talker = Talker::new(&shared, id, id % count, rng.fork());
            let kinds = kinds.clone();
            std::thread::spawn(move || talker.ask_on(&kinds))
        });
        let mut threads: Vec<JoinHandle<()>> = clients.collect();
        threads.extend(members.all_places().map(|member| {
            let talker = Talker::new(&shared, shared.outstanding.len() + member, member, Rng::new(0));
            std::thread::spawn(move || talker.observe())
        }));
        Ok(Load { shared, threads })
    }

    /// Clients from this number on are observers.
    pub fn observers(&self) -> usize {
        self.shared.outstanding.len()
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.shared.history.lock().expect("no client has failed")
    }

    pub fn now(&self) -> Time {
        self.shared.now()
    }

    pub fn member(&self, at: usize) -> MemberId {
        self.shared.member(at)
    }

    /// A member has joined at a place.
    pub fn joined(&self, at: usize, id: MemberId) {
        self.shared.members.lock().expect("no client has failed")[at] = id;
        let now = self.now();
        let mut history = self.history();
        let moment = history.moment(now);
        history.known.members[at].id = id;
        // It has what the others had before it as a state.
        history.took_states.insert(at, moment);
    }

    /// Has the operator make a call, and gives the answer or etcd's words.
    pub fn operate(&self, at: usize, method: Method, request: &[u8]) -> Result<bytes::Bytes, String> {
        let (shared, client) = (&self.shared, self.observers() - 1);
        ask_once(&shared.history, || shared.now(), (client, at), shared.addresses[at], method, request)
    }

    /// Waits until so many calls were answered.
    pub fn await_calls(&self, count: usize) -> Result<(), String> {
        let answered = || self.history().ops.iter().filter(|op| op.returned.is_some()).count();
        until(|| format!("{} calls are answered", answered()), || answered() >= count)
    }

    /// Waits until each of these members has answered such a call that was asked from now on.
    pub fn await_answers(&self, members: &[usize], method: Method) -> Result<(), String> {
        let from = self.history().next();
        for member in members.iter().copied() {
            let is_one = |op: &Op| op.member == member && op.method == method && op.is_ok();
            until(
                || format!("m{member} answers no {method:?}"),
                || self.history().ops[from..].iter().any(is_one),
            )?;
        }
        Ok(())
    }

    /// Has nothing more asked, and waits until all that is under way is over. Gives the newest revision shown.
    pub fn rest(&self) -> Result<i64, String> {
        self.shared.asks.store(false, Ordering::SeqCst);
        let idle = || self.shared.outstanding.iter().all(|calls| calls.load(Ordering::SeqCst) == 0);
        until(|| "a call is under way for ever".to_owned(), idle)?;
        Ok(self.history().ops.iter().filter_map(Op::revision).max().unwrap_or(1))
    }

    pub fn await_observers(&self, members: &[usize], revision: i64) -> Result<(), String> {
        for member in members.iter().copied() {
            let shown = || self.shared.observed[member].load(Ordering::SeqCst);
            let what = || format!("a watch at m{member} is shown {} of {revision} revisions", shown());
            until(what, || shown() >= revision)?;
        }
        Ok(())
    }

    /// Waits until every other watch has been shown the same: that the observers were says nothing of them.
    pub fn await_watches(&self, revision: i64) -> Result<(), String> {
        let shown = || check_shown(&self.history(), self.observers(), revision);
        until(|| shown().err().map_or_else(String::new, |failure| failure.what), || shown().is_ok())
    }

    /// Has these members asked for their hash at a revision.
    pub fn hash(&self, members: &[usize], revision: i64) -> Result<(), String> {
        self.shared.hashes_at.store(revision, Ordering::SeqCst);
        self.await_answers(members, Method::HashKv)
    }

    /// Ends the clients. Gives what they have seen.
    pub fn end(mut self) -> History {
        self.join();
        std::mem::take(&mut *self.history())
    }

    fn join(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A client that fails has said why.
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a client has failed");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

/// Who the members are, as one of them lists them once all have made themselves known.
fn known(members: &Members) -> Result<Known, String> {
    let request = proto::MemberListRequest { linearizable: true }.encode_to_vec();
    let mut known = Known::default();
    until(
        || format!("the members do not know each other; {}", members.last_words()),
        || {
            let (history, now) = (Mutex::default(), || Time(0));
            let to = members.member(0).client;
            let answer = ask_once(&history, now, (0, 0), to, Method::MemberList, &request);
            let Some(list) = answer.ok().and_then(|answer| proto::MemberListResponse::decode(answer).ok())
            else {
                return false;
            };
            known.cluster = ClusterId(list.header.unwrap_or_default().cluster_id);
            let of = |name: &str| list.members.iter().find(|member| member.name == name);
            let identity = |at| {
                let member = of(&members.member(at).name)?;
                Some(Identity {
                    id: MemberId(member.id),
                    name: member.name.clone(),
                    peer_url: member.peer_urls.first()?.clone(),
                    client_url: member.client_urls.first()?.clone(),
                })
            };
            known.members = members.places().into_iter().filter_map(identity).collect();
            known.members.len() == members.places().len()
        },
    )?;
    let newcomers = members.all_places().skip(known.members.len()).map(|at| members.member(at));
    let newcomers: Vec<Identity> = newcomers
        .map(|member| Identity {
            id: MemberId(0),
            name: member.name.clone(),
            peer_url: member.peer_url.clone(),
            client_url: format!("http://{}", member.client),
        })
        .collect();
    known.newcomers = newcomers.len();
    known.members.extend(newcomers);
    Ok(known)
}

/// The answer to one call of a client to the member at a place. An error is etcd's words, or says that there are none.
fn ask_once(
    history: &Mutex<History>,
    now: impl Fn() -> Time,
    (client, member): (usize, usize),
    to: SocketAddr,
    method: Method,
    request: &[u8],
) -> Result<bytes::Bytes, String> {
    let broken = |error: std::io::Error| error.to_string();
    let history = || history.lock().expect("no client has failed");
    let mut socket = TcpStream::connect_timeout(&to, CONNECT_WITHIN).map_err(broken)?;
    socket.set_read_timeout(Some(READ_FOR)).map_err(broken)?;
    let (mut client, began) = (Client::new(client, WINDOW_BYTES), Instant::now());
    client.connect(now(), member, CONNECTION);
    let op = {
        let mut history = history();
        let op = history.next();
        client.call(method, op, request);
        history.invoke(now(), client.id, member, method, request.to_vec().into());
        op
    };
    let mut buffer = vec![0; 64 << 10];
    while history().ops[op].returned.is_none() && began.elapsed() < PATIENCE {
        let read = socket.write_all(&client.take_output()).and_then(|()| socket.read(&mut buffer));
        match read {
            Err(error) if is_early(&error) => {}
            Ok(0) | Err(_) => break,
            Ok(len) => {
                let session = client.session.as_mut().expect("it is connected");
                session.coming.push_back((now(), buffer[..len].to_vec()));
                if client.read(now(), &mut history()).is_err() {
                    break;
                }
            }
        }
    }
    client.disconnected(now(), &mut history());
    let history = history();
    let op = &history.ops[op];
    match (op.returned, op.messages.first()) {
        (Some(_), Some(answer)) if op.is_ok() => Ok(answer.clone()),
        (Some(_), _) => Err(op.status.1.clone()),
        (None, _) => Err("it is not answered".to_owned()),
    }
}

/// The simulator numbers connections; here each has a socket instead.
const CONNECTION: ConnId = ConnId { reactor: ReactorId(0), slot: 0, generation: 0 };

/// Nothing has come yet.
fn is_early(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Shared {
    fn now(&self) -> Time {
        Time(self.begun.elapsed().as_nanos() as u64)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no client has failed")
    }

    fn member(&self, at: usize) -> MemberId {
        self.members.lock().expect("no client has failed")[at]
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }
}

/// A client of the simulator's with a socket.
struct Talker {
    shared: Arc<Shared>,
    client: Client,
    /// The member that it is with.
    member: usize,
    socket: Option<TcpStream>,
    /// Something has come by it.
    is_greeted: bool,
    buffer: Vec<u8>,
    /// Since when it has waited for something.
    waits_since: Instant,
    rng: Rng,
}

impl Talker {
    fn new(shared: &Arc<Shared>, id: usize, member: usize, rng: Rng) -> Talker {
        Talker {
            shared: shared.clone(),
            client: Client::new(id, WINDOW_BYTES),
            member,
            socket: None,
            is_greeted: false,
            buffer: vec![0; 64 << 10],
            waits_since: Instant::now(),
            rng,
        }
    }

    /// Whether it has a connection, now or still.
    fn connect(&mut self) -> bool {
        if self.socket.is_some() {
            return true;
        }
        let Ok(socket) = TcpStream::connect_timeout(&self.shared.addresses[self.member], CONNECT_WITHIN)
        else {
            return false;
        };
        let set = socket.set_read_timeout(Some(READ_FOR)).and(socket.set_write_timeout(Some(CONNECT_WITHIN)));
        if set.and(socket.set_nodelay(true)).is_err() {
            return false;
        }
        self.client.connect(self.shared.now(), self.member, CONNECTION);
        (self.socket, self.waits_since) = (Some(socket), Instant::now());
        // As gRPC's clients, it calls nothing before the member has said something: one that ends takes no connection.
        while self.socket.is_some() && !self.is_greeted {
            self.exchange();
            if self.waits_since.elapsed() > CONNECT_WITHIN {
                self.disconnect();
            }
        }
        self.socket.is_some()
    }

    fn disconnect(&mut self) {
        (self.socket, self.is_greeted) = (None, false);
        self.client.disconnected(self.shared.now(), &mut self.shared.history());
        if let Some(outstanding) = self.shared.outstanding.get(self.client.id) {
            outstanding.store(self.client.outstanding(), Ordering::SeqCst);
        }
    }

    /// Sends what there is to send, and reads what comes within a moment.
    fn exchange(&mut self) {
        let output = self.client.take_output();
        let Some(socket) = &mut self.socket else { return };
        if socket.write_all(&output).is_err() {
            return self.disconnect();
        }
        match socket.read(&mut self.buffer) {
            Ok(0) => self.disconnect(),
            Ok(len) => self.take(len),
            Err(error) if is_early(&error) => {}
            Err(_) => self.disconnect(),
        }
    }

    fn take(&mut self, len: usize) {
        (self.waits_since, self.is_greeted) = (Instant::now(), true);
        let (shared, now) = (self.shared.clone(), self.shared.now());
        let Some(session) = &mut self.client.session else { return };
        session.coming.push_back((now, self.buffer[..len].to_vec()));
        let read = self.client.read(now, &mut shared.history());
        if read.is_err() {
            self.disconnect();
        }
    }

    /// Asks for anything, again and again.
    fn ask_on(mut self, kinds: &[(OpKind, u64)]) {
        let shared = self.shared.clone();
        let mut asks_at = Instant::now();
        while !shared.ends() {
            if !self.connect() {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let outstanding = self.client.outstanding();
            shared.outstanding[self.client.id].store(outstanding, Ordering::SeqCst);
            if outstanding == 0 {
                self.waits_since = Instant::now();
            }
            let hashes_at = shared.hashes_at.load(Ordering::SeqCst);
            if Instant::now() >= asks_at && outstanding < OUTSTANDING_MAX {
                asks_at = Instant::now() + Duration::from_millis(self.rng.below(PAUSE_MS_MAX));
                if shared.asks.load(Ordering::SeqCst) {
                    self.ask(kinds);
                } else if hashes_at > 0 {
                    let request = proto::HashKvRequest { revision: hashes_at }.encode_to_vec();
                    self.call(Method::HashKv, |_| request);
                }
            }
            self.exchange();
            if self.waits_since.elapsed() > PATIENCE {
                self.disconnect();
            }
        }
        self.disconnect();
    }

    /// Makes a call, whose number its request may hold.
    fn call(&mut self, method: Method, request: impl FnOnce(usize) -> Vec<u8>) {
        let mut history = self.shared.history();
        let op = history.next();
        let request = request(op);
        if self.client.call(method, op, &request) {
            history.invoke(self.shared.now(), self.client.id, self.member, method, request.into());
            let outstanding = &self.shared.outstanding[self.client.id];
            outstanding.store(self.client.outstanding(), Ordering::SeqCst);
        }
    }

    fn ask(&mut self, kinds: &[(OpKind, u64)]) {
        let kind = weighted(&mut self.rng, kinds);
        let shared = self.shared.clone();
        let observed = shared.observed.iter().map(|upto| upto.load(Ordering::SeqCst)).max().unwrap_or(1);
        if kind == OpKind::Compact && observed < 3 {
            return;
        }
        let (rng, leases, revision) = (self.rng.fork(), self.client.leases.clone(), self.client.revision);
        let members = shared.members.lock().expect("no client has failed").clone();
        let member = members[self.member].0;
        let knows = |op| Knows {
            op,
            revision,
            observed,
            leases: &leases,
            value_bytes: VALUE_BYTES_MAX,
            member,
            members: &members,
        };
        if matches!(kind, OpKind::Watch | OpKind::WatchMore) {
            let create = Asker::new(rng, knows(shared.history().next())).watch();
            return self.ask_watch(kind, create);
        }
        let mut granted = None;
        let ask = |op| {
            granted = (kind == OpKind::Grant).then_some(op as i64 + 1);
            Asker::new(rng, knows(op)).request(kind).to_vec()
        };
        self.call(method_of(kind), ask);
        self.client.leases.extend(granted);
    }

    fn ask_watch(&mut self, kind: OpKind, create: proto::WatchCreateRequest) {
        let (shared, now) = (self.shared.clone(), self.shared.now());
        let mut history = shared.history();
        let streams = self.client.streams();
        let more = kind == OpKind::WatchMore && !streams.is_empty();
        let stream = match more {
            true => Some(*self.rng.pick(&streams)),
            false if streams.len() < STREAMS_MAX => self.client.open_stream(now, &mut history),
            false => None,
        };
        let Some(stream) = stream else { return };
        let request = match self.rng.below(if more { 6 } else { 1 }) {
            0..3 => RequestUnion::CreateRequest(create),
            3 => RequestUnion::ProgressRequest(proto::WatchProgressRequest {}),
            4 => {
                let made = history.streams[stream].creates.len() as u64 + 1;
                let watch_id = self.rng.below(made) as i64;
                RequestUnion::CancelRequest(proto::WatchCancelRequest { watch_id })
            }
            _ => return self.client.reset_stream(now, stream, &mut history),
        };
        self.client.ask(now, stream, request, &mut history);
    }

    /// Watches everything from where it has got to, whatever happens to its connection.
    fn observe(mut self) {
        let shared = self.shared.clone();
        let (mut upto, mut stream, mut read) = (1, None::<usize>, 0);
        while !shared.ends() {
            if !self.connect() {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            if let Some(stream) = stream {
                let mut compacted = 0;
                let history = shared.history();
                let responses = &history.streams[stream].responses;
                for (_, response) in &responses[read..] {
                    let last = response.events.last().and_then(|event| event.kv.as_ref());
                    upto = upto.max(last.map_or(0, |kv| kv.mod_revision));
                    compacted = response.compact_revision.max(compacted);
                }
                read = responses.len();
                drop(history);
                if compacted > 0 {
                    // What this member has compacted another has shown, or there is a gap.
                    upto = upto.max(compacted - 1);
                    self.disconnect();
                }
                shared.observed[self.member].store(upto, Ordering::SeqCst);
            }
            if stream.is_none_or(|stream| shared.history().streams[stream].ended.is_some()) {
                stream = self.connect().then(|| self.watch_from(upto + 1)).flatten();
                read = 0;
            }
            self.exchange();
        }
        self.disconnect();
    }

    fn watch_from(&mut self, start_revision: i64) -> Option<usize> {
        let (shared, now) = (self.shared.clone(), self.shared.now());
        let mut history = shared.history();
        let stream = self.client.open_stream(now, &mut history)?;
        let everything = vec![0].into();
        let create = proto::WatchCreateRequest {
            key: bytes::Bytes::clone(&everything),
            range_end: everything,
            start_revision,
            prev_kv: true,
            ..Default::default()
        };
        self.client.ask(now, stream, RequestUnion::CreateRequest(create), &mut history);
        Some(stream)
    }
}

fn weighted(rng: &mut Rng, kinds: &[(OpKind, u64)]) -> OpKind {
    let mut at = rng.below(kinds.iter().map(|(_, weight)| weight).sum());
    for (kind, weight) in kinds {
        match at.checked_sub(*weight) {
            Some(rest) => at = rest,
            None => return *kind,
        }
    }
    unreachable!("the sum bounds the draw")
}
