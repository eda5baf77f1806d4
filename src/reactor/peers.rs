//! The links to other members: one from this reactor to each reactor there that has shards in common with it.
//!
//! It sees neither groups nor clients: what comes is handed to the router, and what goes is given by shard.
//!
//! **The question.** Members find each other while some are down, restart, or are somebody else's copy. Over which
//! connection goes what, and who is believed?
//!
//! **The rule.** Of two members the one with the greater id dials. (Only who has known no leader for long asks the
//! greater ones as well: it may have been removed, and then nobody dials it.) A lane joins one reactor to one reactor, and a
//! shard's messages go by the lane of its owners, so that they keep their order. The first reactor dials first, and
//! learns there how many reactors the other has. Whoever is dialed looks at the greeting before anything else: it
//! must be of a member of this cluster, of the directory that the member has begun in, and of no second process
//! beside one that is connected. In which directories members have begun is said by the control state and, after a
//! restart, by this member's own log before that. A newer connection of the same process replaces the one before.
//!
//! A state goes by a link of its own, beside the lane of the two reactors: whoever takes it dials whoever has offered
//! it, whichever has the greater id, and closes the link once it has taken nothing for a while. It is greeted and
//! refused as a lane is, and a process that no lane has made known is not believed on it.
//!
//! **Why not otherwise.** Two connections of each pair, one for each direction as in etcd, would cost as many
//! packets again for acknowledgements. A lane for each group would multiply connections by shards. A state that shares
//! a lane has each entry wait behind its blocks, where the line is slow.

use super::turn::{ToPeers, Turn};
use crate::io::{Chunk, ConnectionState, DialId, Level, MemberMail, Output, PeerFigures, Value};
use crate::limits::{
    DIAL_AGAIN_MS, DIAL_AGAIN_MS_MAX, DIAL_TOLD_SECS, PEER_PROBE_SECS, STATE_LINK_IDLE_SECS,
};
use crate::peer::{
    self, Founding, Hello, Introduction, Link, LinkError, LinkEvent, LinkKind, LinkTimes, PeerMessage,
    REMOVED,
};
use crate::raft::Position;
use crate::record::FEATURE_LEVEL;
use crate::router::{map_number, reactor_of};
use crate::types::{ConnId, Duration, Epoch, Index, MemberId, ReactorId, Revision, ShardId, StoreId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The reactor of another member that a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerLane {
    pub member: MemberId,
    own: ReactorId,
    theirs: ReactorId,
    /// How many reactors the other member has.
    reactors: u16,
}

impl PeerLane {
    /// The reactor at the other end.
    pub fn theirs(&self) -> ReactorId {
        self.theirs
    }

    /// Whether it joins the first reactors of both, which every member has.
    fn joins_first(&self) -> bool {
        (self.own, self.theirs) == (ReactorId(0), ReactorId(0))
    }

    /// Whether it joins the owners of a shard, where this member has so many reactors.
    pub fn joins(&self, shard: ShardId, own_reactors: u16) -> bool {
        reactor_of(shard, self.reactors) == self.theirs && reactor_of(shard, own_reactors) == self.own
    }
}

/// What comes of a link. By one for states that is up, a state can be asked for.
#[derive(Debug)]
pub(super) enum PeerEvent {
    Up { lane: PeerLane, conn: ConnId },
    Down { lane: PeerLane, conn: ConnId },
    Said { lane: PeerLane, conn: ConnId, message: PeerMessage },
    StatesUp { lane: PeerLane },
}

/// What has become of a connection's bytes.
#[derive(Debug, PartialEq)]
pub(super) enum PeerInput {
    Read,
    /// It is no member that speaks: these are all the bytes that have come.
    NoMember(Vec<u8>),
    /// The connection is none of a member's.
    NotHere,
}

/// A connection whose greeting was read by the first reactor, on its way to the one that it is for.
struct Greeted {
    link: Link,
    hello: Hello,
}

struct PeerConnection {
    link: Link,
    /// What has come before it is known who speaks.
    first: Vec<u8>,
    is_known: bool,
    /// At the end that dialed.
    dialed: Option<DialTo>,
    lane: Option<PeerLane>,
    /// The reactors that it joins, where it is for states.
    states: Option<PeerLane>,
    /// Of the member at the other end, where it has come up.
    directory: StoreId,
    told: Told,
    /// It is closed once what it still has to say is handed out.
    ends: bool,
}

/// What a lane's other end was told of what is settled, since the connection began.
#[derive(Default)]
struct Told {
    of: (Epoch, Revision),
    commits: BTreeMap<ShardId, Index>,
}

/// A reactor of another member, and what for.
type DialTo = (MemberId, ReactorId, LinkKind);

/// What this end of a link for states does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StateRole {
    Takes,
    Gives,
}

/// A reactor that this one has to be connected to.
#[derive(Default)]
struct Dial {
    under_way: Option<DialId>,
    at: Time,
    /// How long the next try waits, if this one fails.
    pause: Duration,
    /// Which of the member's addresses is next.
    address: usize,
    /// Why the last tries came to nothing, and when that is said again.
    told: Option<(String, Time)>,
}

/// What is known of another member.
struct Other {
    urls: Vec<String>,
    directory: StoreId,
    /// How many reactors it has, once it has said so.
    reactors: Option<u16>,
    /// Of its process, as it said last.
    boot: u64,
}

pub(super) struct PeerLinks {
    others: BTreeMap<MemberId, Other>,
    /// The directories of members as this one's log said at the start, for those of which the control state says nothing
    /// yet.
    directories: BTreeMap<MemberId, StoreId>,
    /// As of which control state, or of none.
    known_at: Option<(Option<Index>, Index)>,
    connections: BTreeMap<ConnId, PeerConnection>,
    lanes: BTreeMap<(MemberId, ReactorId), ConnId>,
    state_links: BTreeMap<(MemberId, StateRole, ReactorId), ConnId>,
    /// Who gives a state, and until when a link to it is kept.
    giver: Option<((MemberId, ReactorId), Time)>,
    dials: BTreeMap<DialTo, Dial>,
    dialed: u64,
    events: VecDeque<PeerEvent>,
    figures: BTreeMap<MemberId, PeerFigures>,
    /// When round trips are measured next, between first reactors.
    probe_at: Time,
    /// This process ends: it connects with nobody any more.
    leaves: bool,
    /// Members that are none any more, and until when their lanes stay: they hear of it then.
    gone: BTreeMap<MemberId, Time>,
    /// Since when this member knows no leader.
    leaderless_since: Option<Time>,
    /// Another member says that this one is none any more.
    is_removed: bool,
}

impl PeerLinks {
    pub fn new() -> PeerLinks {
        PeerLinks {
            others: BTreeMap::new(),
            directories: BTreeMap::new(),
            known_at: None,
            connections: BTreeMap::new(),
            lanes: BTreeMap::new(),
            state_links: BTreeMap::new(),
            giver: None,
            dials: BTreeMap::new(),
            dialed: 0,
            events: VecDeque::new(),
            figures: BTreeMap::new(),
            probe_at: Time::NEVER,
            leaves: false,
            gone: BTreeMap::new(),
            leaderless_since: None,
            is_removed: false,
        }
    }

    /// Whether this member is none any more, as others have said.
    pub fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Another member has said so, which is in this one's cluster.
    pub fn on_removed(&mut self) {
        self.is_removed = true;
    }

    /// This process begins, with what its log says of members' directories. Before it has found a leader it knows of no
    /// entry that it is committed, and must not help one to be elected that has lost what it promised.
    pub fn begin(&mut self, directories: BTreeMap<MemberId, StoreId>) {
        assert!(self.known_at.is_none(), "it is known before the first turn");
        self.directories = directories;
    }

    /// The next thing that has come of links.
    pub fn next_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    fn introduction(&self, turn: &Turn) -> Introduction {
        let settings = &turn.settings;
        let founding = || Founding {
            shards: settings.shard_starts.len() as u32 + 1,
            map: map_number(&settings.shard_starts),
            is_set: settings.shards_are_set,
        };
        Introduction {
            cluster: settings.cluster,
            member: settings.member,
            directory: settings.directory,
            boot: turn.boot,
            reactors: turn.reactors,
            feature_level: FEATURE_LEVEL,
            founding: (!turn.control.is_bootstrapped() && !settings.joins).then(founding),
        }
    }

    fn times(turn: &Turn) -> LinkTimes {
        LinkTimes { heartbeat: turn.settings.heartbeat, election: turn.settings.election_timeout }
    }

    /// Somebody has connected to the peer port.
    pub fn on_opened(&mut self, turn: &mut Turn, conn: ConnId) {
        assert!(turn.id == ReactorId(0), "who connects is greeted at the first reactor");
        let connection = PeerConnection::new(self.accept(turn), None);
        if !self.leaves {
            return self.insert(conn, connection);
        }
        turn.out.push(Output::Close { conn });
        self.insert(conn, PeerConnection { ends: true, ..connection });
    }

    fn accept(&self, turn: &Turn) -> Link {
        let (times, bounds) = (PeerLinks::times(turn), turn.settings.bounds.peer);
        Link::accept(turn.now, self.introduction(turn), times, bounds)
    }

    fn insert(&mut self, conn: ConnId, connection: PeerConnection) {
        let before = self.connections.insert(conn, connection);
        assert!(before.is_none(), "a connection begins once");
    }

    /// The connection that was asked for is made.
    pub fn on_dialed(&mut self, turn: &mut Turn, dial: DialId, conn: ConnId) {
        let found = self.dials.iter_mut().find(|(_, of)| of.under_way == Some(dial));
        let Some((&(to, to_reactor, kind), of)) = found else {
            let link = self.accept(turn);
            // Nobody wants it any more.
            turn.out.push(Output::Close { conn });
            return self.insert(conn, PeerConnection { ends: true, ..PeerConnection::new(link, None) });
        };
        of.under_way = None;
        of.at = Time::NEVER; // until the connection ends
        let hello = Hello { from: self.introduction(turn), to, kind, from_reactor: turn.id, to_reactor };
        let link = Link::dial(turn.now, hello, PeerLinks::times(turn), turn.settings.bounds.peer);
        self.insert(
            conn,
            PeerConnection { is_known: true, ..PeerConnection::new(link, Some((to, to_reactor, kind))) },
        );
    }

    pub fn on_dial_failed(&mut self, turn: &mut Turn, dial: DialId, why: &str) {
        let Some((&(member, ..), of)) = self.dials.iter_mut().find(|(_, of)| of.under_way == Some(dial))
        else {
            return;
        };
        of.under_way = None;
        of.fail(turn.now);
        let is_told = of.told.as_ref().is_some_and(|(told, until)| told == why && turn.now < *until);
        if !is_told {
            of.told = Some((why.to_owned(), turn.now + Duration::from_secs(DIAL_TOLD_SECS)));
        }
        self.figures.entry(member).or_default().send_failures += 1;
        if !is_told {
            let fields = [("remote-peer-id", member.hex()), ("error", why.to_owned())];
            let fields = fields.map(|(name, is)| (name, is.into()));
            turn.log_line(Level::Info, "cannot connect to a peer", fields);
        }
    }

    /// A connection whose greeting another reactor has read.
    pub fn on_moved(&mut self, turn: &mut Turn, conn: ConnId, state: ConnectionState) {
        let Greeted { link, hello } = *state.0.downcast::<Greeted>().expect("only peers move this way");
        self.insert(conn, PeerConnection { is_known: true, ..PeerConnection::new(link, None) });
        if hello.to_reactor == turn.id {
            self.welcome(turn, conn, &hello);
        } else {
            self.pass_on(turn, conn, hello); // it was sent back
        }
    }

    /// Whether a connection's state is one of a member's.
    pub fn is_greeted(state: &ConnectionState) -> bool {
        state.0.is::<Greeted>()
    }

    pub fn on_received(&mut self, turn: &mut Turn, conn: ConnId, bytes: &[u8]) -> PeerInput {
        let Some(connection) = self.connections.get_mut(&conn) else { return PeerInput::NotHere };
        if connection.is_known {
            self.receive(turn, conn, bytes);
            return PeerInput::Read;
        }
        connection.first.extend_from_slice(bytes);
        match peer::greets(&connection.first) {
            None => PeerInput::Read,
            Some(true) => {
                connection.is_known = true;
                let first = std::mem::take(&mut connection.first);
                self.receive(turn, conn, &first);
                PeerInput::Read
            }
            Some(false) => {
                let PeerConnection { first, .. } = self.connections.remove(&conn).expect("found above");
                if !first[0].is_ascii_uppercase() {
                    warn_of(turn, conn, None, "it greets neither as a member nor as HTTP does");
                }
                PeerInput::NoMember(first)
            }
        }
    }

    fn receive(&mut self, turn: &mut Turn, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&conn).filter(|connection| !connection.ends) else {
            return;
        };
        let mut events = vec![];
        let received = connection.link.receive(turn.now, bytes, &mut events);
        let member = connection.member();
        if let Some(member) = member {
            self.figures.entry(member).or_default().received_bytes += bytes.len() as u64;
        }
        for event in events {
            match event {
                LinkEvent::Hello(hello) => self.on_hello(turn, conn, hello),
                LinkEvent::RoundTrip(took) => {
                    let figures = member.map(|member| self.figures.entry(member).or_default());
                    figures.into_iter().for_each(|figures| figures.round_trips.observe(took.0));
                }
                LinkEvent::Message(message) => self.on_message(turn, conn, message),
            }
        }
        if let Err(error) = received {
            self.is_removed |= error == LinkError::Refused(REMOVED.to_owned());
            self.fail(turn, conn, &error.to_string());
        }
    }

    fn on_message(&mut self, turn: &mut Turn, conn: ConnId, message: PeerMessage) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let joined = match message.kind() {
            LinkKind::Groups => connection.lane,
            LinkKind::States => connection.states,
        };
        match joined {
            Some(lane) => self.events.push_back(PeerEvent::Said { lane, conn, message }),
            // Elsewhere it would pass what is to come before it, or hold it up.
            None => self.fail(turn, conn, "it says what is for another kind of link"),
        }
    }

    fn on_hello(&mut self, turn: &mut Turn, conn: ConnId, hello: Hello) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let refusal = self.why_not(turn, &hello, connection.dialed.is_some());
        let connection = self.connections.get_mut(&conn).expect("just found");
        match (refusal, connection.dialed) {
            (Some(why), _) => {
                if connection.dialed.is_none() {
                    connection.link.refuse(&why);
                }
                self.fail(turn, conn, &why);
            }
            (None, Some(_)) => self.come_up(turn, conn, &hello),
            (None, None) if hello.to_reactor == turn.id => self.welcome(turn, conn, &hello),
            (None, None) => self.pass_on(turn, conn, hello),
        }
    }

    /// Why a process is not believed to be a member's.
    fn why_not(&self, turn: &Turn, hello: &Hello, is_dialer: bool) -> Option<String> {
        let (from, id) = (&hello.from, hello.from.member.hex());
        if turn.control.is_removed(from.member) {
            return Some(REMOVED.to_owned());
        }
        let Some(known) = self.others.get(&from.member) else {
            return Some(format!("member {id} is none of this cluster"));
        };
        let own = turn.settings.member;
        if !is_dialer && from.member < own && hello.kind == LinkKind::Groups {
            return Some(format!("member {id} is to wait for member {} to dial", own.hex()));
        }
        if known.has_begun_elsewhere(from.directory) {
            return Some(begun_elsewhere(from.member));
        }
        if hello.kind == LinkKind::States && known.boot != from.boot {
            return Some(format!("member {id} is to be connected before a state is asked for"));
        }
        let is_connected = self.lanes.keys().any(|(member, _)| *member == from.member);
        (is_connected && known.boot != from.boot).then(|| {
            format!("member {id} runs already, in another process: a copy of its data directory must not run beside it")
        })
    }

    /// Hands the connection to the reactor that it is for.
    fn pass_on(&mut self, turn: &mut Turn, conn: ConnId, hello: Hello) {
        let Some(PeerConnection { link, .. }) = self.connections.remove(&conn) else { return };
        let state = ConnectionState(Box::new(Greeted { link, hello }));
        turn.out.push(Output::Move { conn, to: hello.to_reactor, state });
    }

    /// Answers a greeting.
    fn welcome(&mut self, turn: &mut Turn, conn: ConnId, hello: &Hello) {
        assert!(hello.to_reactor == turn.id, "a greeting is answered by whom it is for");
        if let Some(connection) = self.connections.get_mut(&conn) {
            assert!(connection.dialed.is_none(), "who has dialed has spoken first");
            connection.link.answer(turn.now);
            self.come_up(turn, conn, hello);
        }
    }

    fn come_up(&mut self, turn: &mut Turn, conn: ConnId, hello: &Hello) {
        let (member, theirs, reactors) = (hello.from.member, hello.from_reactor, hello.from.reactors);
        let lane = PeerLane { member, own: turn.id, theirs, reactors };
        assert!(member != turn.settings.member, "nobody is connected to itself");
        if hello.kind == LinkKind::States {
            return self.come_up_for_states(turn, conn, lane, hello.from.directory);
        }
        if let Some(before) = self.lanes.get(&(member, theirs)).copied() {
            self.end(turn, before);
        }
        let before = self.lanes.insert((member, theirs), conn);
        assert!(before.is_none(), "a lane has one connection");
        let connection = self.connections.get_mut(&conn).expect("it is coming up");
        let before = connection.lane.replace(lane);
        assert!(before.is_none(), "a connection comes up once");
        connection.directory = hello.from.directory;
        self.note_reached((member, theirs, LinkKind::Groups));
        if lane.joins_first() {
            self.probe_at = turn.now;
            let before = turn.connected.insert(member, turn.now);
            assert!(before.is_none(), "the first reactors have one lane");
            let members = turn.control.records().cloned().collect();
            let said = PeerMessage::Members { as_of: turn.control.index, members };
            if turn.control.is_bootstrapped() {
                self.say(conn, said);
            }
        }
        let Some(other) = self.others.get_mut(&member) else { return };
        let is_news = other.reactors != Some(reactors) || other.boot != hello.from.boot;
        if is_news {
            let boot = hello.from.boot;
            turn.send_to_all(|| MemberMail::PeerIs { member, reactors, boot });
        }
        (other.reactors, other.boot) = (Some(reactors), hello.from.boot);
        let fields = [("remote-peer-id", member.hex()), ("reactor", theirs.to_string())];
        turn.log_line(Level::Info, "peer is connected", fields.map(|(name, is)| (name, is.into())));
        self.events.push_back(PeerEvent::Up { lane, conn });
    }

    /// A link for states is there. The one before it was of the same process, and has broken.
    fn come_up_for_states(&mut self, turn: &mut Turn, conn: ConnId, lane: PeerLane, directory: StoreId) {
        let connection = self.connections.get_mut(&conn).expect("it is coming up");
        assert!(lane.own == turn.id, "a link comes up at the reactor that it joins");
        let role = if connection.dialed.is_some() { StateRole::Takes } else { StateRole::Gives };
        let before = connection.states.replace(lane);
        assert!(before.is_none() && connection.lane.is_none(), "a connection comes up once");
        connection.directory = directory;
        if let Some(before) = self.state_links.insert((lane.member, role, lane.theirs), conn) {
            self.end(turn, before);
        }
        self.note_reached((lane.member, lane.theirs, LinkKind::States));
        if role == StateRole::Takes {
            self.events.push_back(PeerEvent::StatesUp { lane });
        }
    }

    fn note_reached(&mut self, to: DialTo) {
        if let Some(dial) = self.dials.get_mut(&to) {
            (dial.pause, dial.told) = (Duration(0), None);
        }
    }

    /// From whom this reactor takes a state now. A link to it is there until none was taken for a while.
    pub fn take_states_from(&mut self, now: Time, giver: Option<(MemberId, ReactorId)>) {
        if let Some(giver) = giver {
            self.giver = Some((giver, now + Duration::from_secs(STATE_LINK_IDLE_SECS)));
        }
        self.giver = self.giver.filter(|(_, until)| now < *until);
    }

    /// Another reactor here has heard how many reactors a member has.
    pub fn on_peer_is(&mut self, member: MemberId, reactors: u16, boot: u64) {
        let other = self.others.entry(member).or_insert_with(Other::unheard);
        (other.reactors, other.boot) = (Some(reactors), boot);
    }

    /// So many bytes are with the kernel. Whether the connection is a member's.
    pub fn on_sent(&mut self, conn: ConnId, bytes: usize) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return false };
        connection.link.sent(bytes);
        if let Some(member) = connection.member() {
            self.figures.entry(member).or_default().sent_bytes += bytes as u64;
        }
        true
    }

    /// The other end sends nothing more. Whether the connection is a member's.
    pub fn on_ended(&mut self, turn: &mut Turn, conn: ConnId) -> bool {
        let is_here = self.has(conn);
        self.end(turn, conn);
        is_here
    }

    /// The connection is gone. Whether it was a member's.
    pub fn on_closed(&mut self, turn: &mut Turn, conn: ConnId) -> bool {
        let is_here = self.connections.contains_key(&conn);
        self.forget(turn, conn);
        is_here
    }

    fn has(&self, conn: ConnId) -> bool {
        self.connections.contains_key(&conn)
    }

    /// What came on the connection is wrong, and it ends.
    pub fn fail(&mut self, turn: &mut Turn, conn: ConnId, why: &str) {
        let Some(connection) = self.connections.get(&conn).filter(|connection| !connection.ends) else {
            return;
        };
        let member = connection.member();
        if let Some(member) = member {
            self.figures.entry(member).or_default().receive_failures += 1;
        }
        warn_of(turn, conn, member, why);
        self.end(turn, conn);
    }

    /// Ends a connection, behind what it still has to say.
    fn end(&mut self, turn: &mut Turn, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn).filter(|connection| !connection.ends) else {
            return;
        };
        connection.ends = true;
        let mut chunks = vec![];
        connection.link.flush(&mut chunks);
        if !chunks.is_empty() {
            turn.out.push(Output::SendChunks { conn, chunks });
        }
        turn.out.push(Output::Close { conn });
        self.go_down(turn, conn);
    }

    /// The lane has lost its connection, if it was this one.
    fn go_down(&mut self, turn: &mut Turn, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let (lane, states) = (connection.lane.take(), connection.states.take());
        let dialed = connection.dialed.take();
        if let Some(lane) = lane {
            let removed = self.lanes.remove(&(lane.member, lane.theirs));
            assert!(removed == Some(conn), "a lane goes down with its own connection");
            self.figures.entry(lane.member).or_default().disconnects += u64::from(lane.joins_first());
            if lane.joins_first() {
                turn.connected.remove(&lane.member);
            }
            self.events.push_back(PeerEvent::Down { lane, conn });
        }
        if states.is_some() {
            // A newer one may have its place already.
            self.state_links.retain(|_, of| *of != conn);
        }
        if let Some(dial) = dialed.and_then(|to| self.dials.get_mut(&to)) {
            dial.fail(turn.now);
        }
    }

    fn forget(&mut self, turn: &mut Turn, conn: ConnId) {
        self.go_down(turn, conn);
        self.connections.remove(&conn);
    }

    /// Looks who the members are, dials, and looks who is silent.
    pub fn take_turn(&mut self, turn: &mut Turn) {
        match turn.epoch_state.knows_leader() {
            true => self.leaderless_since = None,
            false => _ = self.leaderless_since.get_or_insert(turn.now),
        }
        self.know_others(turn);
        let silent: Vec<(ConnId, String)> = self
            .connections
            .iter_mut()
            .filter_map(|(conn, connection)| {
                let error = connection.link.wake(turn.now).err()?;
                Some((*conn, error.to_string()))
            })
            .collect();
        for (conn, why) in silent {
            self.fail(turn, conn, &why);
        }
        self.measure_round_trips(turn.now);
        if self.leaves {
            return;
        }
        let due = self.dials.iter_mut().filter(|(_, dial)| dial.under_way.is_none() && dial.at <= turn.now);
        for ((member, ..), dial) in due {
            let Some(other) = self.others.get(member).filter(|other| !other.urls.is_empty()) else {
                continue;
            };
            self.dialed += 1;
            let id = DialId(self.dialed);
            dial.under_way = Some(id);
            let url = other.urls[dial.address % other.urls.len()].clone();
            dial.address += 1;
            turn.out.push(Output::Dial { dial: id, url });
        }
    }

    fn measure_round_trips(&mut self, now: Time) {
        if now < self.probe_at {
            return;
        }
        self.probe_at = Time::NEVER;
        let is_first = |connection: &&mut PeerConnection| connection.lane.is_some_and(|l| l.joins_first());
        for connection in self.connections.values_mut().filter(is_first) {
            connection.link.probe(now);
            self.probe_at = now + Duration::from_secs(PEER_PROBE_SECS);
        }
    }

    /// What has passed between this reactor and each other member.
    pub fn figures(&self) -> BTreeMap<MemberId, PeerFigures> {
        let of = |member: &MemberId| {
            let lane = self.lanes.get(&(*member, ReactorId(0)));
            let lane = lane.and_then(|conn| self.connections.get(conn)?.lane);
            let figures = self.figures.get(member).cloned().unwrap_or_default();
            (*member, PeerFigures { is_active: lane.is_some_and(|lane| lane.joins_first()), ..figures })
        };
        self.others.keys().map(of).collect()
    }

    /// Whom this reactor is to be connected to follows from who the members are, and how many reactors they have.
    fn know_others(&mut self, turn: &mut Turn) {
        let as_of = (turn.control.is_bootstrapped().then_some(turn.control.index), turn.book.as_of());
        if self.known_at != Some(as_of) {
            self.known_at = Some(as_of);
            let now = turn.other_members();
            self.others.retain(|id, _| now.iter().any(|(known, ..)| known == id));
            for (id, directory, urls) in now {
                let other = self.others.entry(id).or_insert_with(Other::unheard);
                let said = || self.directories.get(&id).copied().unwrap_or(StoreId(0));
                let directory = if directory == StoreId(0) { said() } else { directory };
                (other.urls, other.directory) = (urls, directory);
            }
            // Behind that: one that was gone a moment ago, by an older list, may be there again.
            self.note_gone(turn);
            self.end_begun_elsewhere(turn);
        }
        self.end_gone(turn);
        let (own, id, reactors) = (turn.settings.member, turn.id, turn.reactors);
        let mut wanted = BTreeSet::new();
        for (member, other) in self.others.iter().filter(|(member, _)| **member < own) {
            let theirs = other.reactors.map_or(vec![], |theirs| reactors_joined(id, reactors, theirs));
            wanted.extend(theirs.into_iter().map(|theirs| (*member, theirs, LinkKind::Groups)));
            if id == ReactorId(0) {
                wanted.insert((*member, ReactorId(0), LinkKind::Groups));
            }
        }
        if turn.now >= self.asks_at(turn) {
            let greater = self.others.keys().filter(|member| **member > own);
            wanted.extend(greater.map(|member| (*member, ReactorId(0), LinkKind::Groups)));
        }
        let giver = self.giver.map(|((member, reactor), _)| (member, reactor, LinkKind::States));
        wanted.extend(giver.filter(|(member, ..)| self.others.contains_key(member)));
        self.end_idle_state_links(turn, &wanted);
        self.dials.retain(|to, _| wanted.contains(to));
        for to in wanted {
            self.dials.entry(to).or_default();
        }
    }

    /// Whoever has dialed for states that it takes no more closes the link.
    fn end_idle_state_links(&mut self, turn: &mut Turn, wanted: &BTreeSet<DialTo>) {
        let is_idle = |(member, role, theirs): &(MemberId, StateRole, ReactorId)| {
            *role == StateRole::Takes && !wanted.contains(&(*member, *theirs, LinkKind::States))
        };
        let idle = self.state_links.iter().filter(|(of, _)| is_idle(of)).map(|(_, conn)| *conn);
        for conn in idle.collect::<Vec<_>>() {
            self.end(turn, conn);
            assert!(!self.state_links.values().any(|of| *of == conn), "what has ended joins nobody");
        }
    }

    /// When the greater members are dialed as well: nobody looks for a member that was removed, and none of those that
    /// have is a leader to it.
    fn asks_at(&self, turn: &Turn) -> Time {
        let patience = turn.settings.leader_patience();
        let since = self.leaderless_since.filter(|_| turn.id == ReactorId(0) && !turn.is_alone());
        since.map_or(Time::NEVER, |since| since + patience)
    }

    /// The lanes of those that are members no more stay for a moment: what was answered to their clients is on its way.
    fn note_gone(&mut self, turn: &Turn) {
        let until = turn.now + turn.settings.heartbeat;
        let lanes = self.lanes.keys().map(|(member, _)| *member);
        let members = lanes.chain(self.state_links.keys().map(|(member, ..)| *member));
        let gone: BTreeSet<MemberId> = members.filter(|member| !self.others.contains_key(member)).collect();
        self.gone.retain(|member, _| gone.contains(member));
        for member in gone {
            self.gone.entry(member).or_insert(until);
        }
    }

    fn end_gone(&mut self, turn: &mut Turn) {
        while let Some((member, _)) = self.gone.extract_if(.., |_, until| *until <= turn.now).next() {
            assert!(!self.others.contains_key(&member), "who is gone is no member: {}", member.hex());
            let is_removed = turn.control.is_removed(member);
            let lanes = self.lanes.range((member, ReactorId(0))..=(member, ReactorId(u16::MAX)));
            let conns: Vec<ConnId> = lanes.map(|(_, conn)| *conn).collect();
            for conn in conns {
                if is_removed {
                    self.say(conn, PeerMessage::Removed);
                }
                self.end(turn, conn);
            }
            let links = self.state_links.iter().filter(|((of, ..), _)| *of == member).map(|(_, conn)| *conn);
            for conn in links.collect::<Vec<_>>() {
                self.end(turn, conn);
            }
        }
    }

    /// Ends the links of members that have greeted before it was known here in which directory they had begun.
    fn end_begun_elsewhere(&mut self, turn: &mut Turn) {
        let mut strange = vec![];
        let lanes = self.lanes.iter().map(|((member, _), conn)| (member, conn));
        let links = lanes.chain(self.state_links.iter().map(|((member, ..), conn)| (member, conn)));
        for (member, conn) in links {
            let (other, connection) = (&self.others.get(member), &self.connections[conn]);
            if other.is_some_and(|other| other.has_begun_elsewhere(connection.directory)) {
                strange.push((*conn, *member));
            }
        }
        for (conn, member) in strange {
            self.fail(turn, conn, &begun_elsewhere(member));
        }
    }

    pub fn wake_at(&self, turn: &Turn) -> Time {
        let dials = self.dials.values().filter(|dial| dial.under_way.is_none() && !self.leaves);
        let dials = dials.map(|dial| dial.at);
        let links = self.connections.values().map(|connection| connection.link.wake_at());
        let asks_at = Some(self.asks_at(turn)).filter(|at| *at > turn.now);
        let idle_at = self.giver.map(|(_, until)| until);
        let times = self.gone.values().copied().chain(asks_at).chain(idle_at).chain([self.probe_at]);
        dials.chain(links).chain(times).min().unwrap_or(Time::NEVER)
    }

    /// Says something to members, by the lane of a shard's owners.
    ///
    /// A member that has none of them hears it by any other. By which connection it goes out; what finds no lane is
    /// lost, as on any network.
    pub fn tell(&mut self, to: ToPeers, shard: ShardId, message: PeerMessage) -> Option<ConnId> {
        match to {
            ToPeers::Asker(conn) => Some(conn).filter(|conn| self.say(*conn, message)),
            ToPeers::One(member) => self.say_to(member, shard, message),
            ToPeers::All => {
                let members: Vec<MemberId> = self.others.keys().copied().collect();
                let said = members.into_iter().filter_map(|to| self.say_to(to, shard, message.clone()));
                said.last()
            }
        }
    }

    fn say_to(&mut self, member: MemberId, shard: ShardId, message: PeerMessage) -> Option<ConnId> {
        if message.kind() == LinkKind::States {
            return self.link_to_giver(member).filter(|conn| self.say(*conn, message));
        }
        let said = self.lane_to(member, shard).filter(|conn| self.say(*conn, message));
        if said.is_none() {
            self.figures.entry(member).or_default().send_failures += 1;
        }
        said
    }

    /// By which connection a state is asked for, and comes.
    pub fn link_to_giver(&self, member: MemberId) -> Option<ConnId> {
        let ((_, reactor), _) = self.giver.filter(|((giver, _), _)| *giver == member)?;
        self.state_links.get(&(member, StateRole::Takes, reactor)).copied()
    }

    fn lane_to(&self, member: MemberId, shard: ShardId) -> Option<ConnId> {
        let reactors = self.others.get(&member)?.reactors?;
        let owner = self.lanes.get(&(member, reactor_of(shard, reactors)));
        let any = || self.lanes.range((member, ReactorId(0))..=(member, ReactorId(u16::MAX))).next();
        owner.or_else(|| any().map(|(_, conn)| conn)).copied()
    }

    fn say(&mut self, conn: ConnId, message: PeerMessage) -> bool {
        let connection = self.connections.get_mut(&conn).filter(|connection| !connection.ends);
        connection.is_some_and(|connection| connection.link.send(message).is_ok())
    }

    /// Whether this reactor has a connection to the member.
    pub fn reaches(&self, member: MemberId) -> bool {
        self.lanes.range((member, ReactorId(0))..=(member, ReactorId(u16::MAX))).next().is_some()
    }

    /// Whether the member has answered something on a connection that this reactor has to it.
    pub fn is_heard_by(&self, member: MemberId) -> bool {
        let mut lanes = self.lanes.range((member, ReactorId(0))..=(member, ReactorId(u16::MAX)));
        lanes.any(|(_, conn)| self.connections.get(conn).is_some_and(|lane| lane.link.has_answered()))
    }

    /// This process ends: every other end hears of it.
    pub fn leave(&mut self) {
        assert!(!self.leaves, "a member leaves once");
        self.leaves = true;
        for connection in self.connections.values_mut().filter(|connection| connection.lane.is_some()) {
            // Where it finds no place any more, the connection's end says the same a little later.
            let _ = connection.link.send(PeerMessage::Leaving);
        }
    }

    /// The other end's process ends, by order. It is not waited for.
    pub fn on_leaving(&mut self, turn: &mut Turn, conn: ConnId) {
        let Some(lane) = self.connections.get(&conn).and_then(|connection| connection.lane) else { return };
        turn.log_line(Level::Info, "peer leaves", [("remote-peer-id", lane.member.hex().into())]);
        self.end(turn, conn);
    }

    /// Whether any connection is a member's with which shards are shared.
    pub fn has_lanes(&self) -> bool {
        self.connections.values().any(|connection| connection.lane.is_some())
    }

    /// Says what is settled, and up to where each shard is committed, where that is news at the other end. The
    /// revision was read before the positions.
    pub fn tell_settled(
        &mut self,
        epoch: Epoch,
        revision: Revision,
        committed: &[(ShardId, Position)],
        reactors: u16,
    ) {
        for connection in self.connections.values_mut() {
            let Some(lane) = connection.lane else { continue };
            let told = &mut connection.told;
            assert!(told.of.0 <= epoch, "an older epoch settles nothing: {epoch} after {}", told.of.0);
            if told.of.0 != epoch {
                told.commits.clear();
            } else {
                assert!(told.of.1 <= revision, "what others were told is settled stays so: {revision}");
            }
            let joined = committed.iter().filter(|(shard, _)| lane.joins(*shard, reactors));
            let news = joined.filter(|(shard, at)| told.commits.get(shard) != Some(&at.index));
            let commits: Vec<(ShardId, Position)> = news.copied().collect();
            if commits.is_empty() && told.of == (epoch, revision) {
                continue;
            }
            let said = PeerMessage::Settled { epoch, revision, commits: commits.clone() };
            if connection.link.send(said).is_ok() {
                told.of = (epoch, revision);
                told.commits.extend(commits.into_iter().map(|(shard, at)| (shard, at.index)));
            }
        }
    }

    /// Who is connected, and who is dialed.
    pub fn picture(&self) -> String {
        let (lanes, states) = (self.lanes.keys(), self.state_links.keys());
        format!("lanes {lanes:?} states {states:?} dials {:?}", self.dials.keys())
    }

    /// Hands out what waits.
    pub fn flush(&mut self, turn: &mut Turn) {
        for (conn, connection) in self.connections.iter_mut().filter(|(_, connection)| !connection.ends) {
            let mut chunks: Vec<Chunk> = vec![];
            connection.link.flush(&mut chunks);
            if !chunks.is_empty() {
                turn.out.push(Output::SendChunks { conn: *conn, chunks });
            }
        }
    }
}

impl PeerConnection {
    fn new(link: Link, dialed: Option<DialTo>) -> PeerConnection {
        let (first, told) = (vec![], Told::default());
        let (lane, states, directory) = (None, None, StoreId(0));
        PeerConnection { link, first, is_known: false, dialed, lane, states, directory, told, ends: false }
    }

    /// Whose it is, as far as that is known.
    fn member(&self) -> Option<MemberId> {
        let joined = self.lane.or(self.states).map(|lane| lane.member);
        joined.or(self.dialed.map(|(member, ..)| member))
    }
}

impl Dial {
    /// The next try waits twice as long, up to a bound.
    fn fail(&mut self, now: Time) {
        let (least, most) = (Duration::from_ms(DIAL_AGAIN_MS), Duration::from_ms(DIAL_AGAIN_MS_MAX));
        self.pause = Duration(2 * self.pause.0).clamp(least, most);
        self.at = now + self.pause;
    }
}

impl Other {
    fn unheard() -> Other {
        Other { urls: vec![], directory: StoreId(0), reactors: None, boot: 0 }
    }

    fn has_begun_elsewhere(&self, directory: StoreId) -> bool {
        self.directory != StoreId(0) && self.directory != directory
    }
}

/// The reactors of another member that have shards in common with this one, whatever the number of shards.
fn reactors_joined(id: ReactorId, own: u16, theirs: u16) -> Vec<ReactorId> {
    let shards = (0..u32::from(own) * u32::from(theirs) + 1).map(ShardId);
    let joined = shards.filter(|shard| reactor_of(*shard, own) == id).map(|shard| reactor_of(shard, theirs));
    let joined: BTreeSet<ReactorId> = joined.collect();
    assert!(!joined.is_empty(), "each reactor has shards in common with some of another member");
    joined.into_iter().collect()
}

/// Who speaks may not have said so, or not truly: the address is what an operator finds it by.
fn warn_of(turn: &mut Turn, conn: ConnId, member: Option<MemberId>, why: &str) {
    let member = member.map_or("unknown".to_owned(), MemberId::hex);
    let fields = [
        ("remote-peer-id", member.into()),
        ("remote", Value::Client(conn)),
        ("error", why.to_owned().into()),
    ];
    turn.log_line(Level::Warn, "closed the link to a peer", fields);
}

fn begun_elsewhere(member: MemberId) -> String {
    format!(
        "member {} has begun in another data directory, which has what it promised: remove the member and add it \
         anew, or start it with the directory that it had",
        member.hex()
    )
}
