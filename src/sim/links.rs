//! What lies between members: for each ordered pair of them a link, and connections that carry bytes over the
//! links of both directions.
//!
//! A connection is as one of TCP: each direction keeps its order, and what is sent arrives, cut and joined
//! anywhere, or the connection breaks; then all that is in flight is lost, and both ends hear of it, each in its
//! own time. Two connections of the same members keep no order between them, so peers that hold several see what
//! they say reordered. A link that stalls keeps what it carries until it goes on, what asks for a connection and
//! notices of a break too; it does so for its one direction, so that bytes may arrive of which the sender's kernel
//! never hears. One that is slow takes its time. What the bytes say is nobody's business here.
//!
//! Links know no clock: the time is an argument. They draw from numbers of their own.

use super::hits::{Hit, Hits};
use crate::stdx::Rng;
use crate::types::{Duration, Time};
use std::collections::{BTreeMap, VecDeque};

/// One connection, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerConnId(pub u64);

/// The end of who asked for the connection, and the other one.
pub const DIALER: usize = 0;
pub const LISTENER: usize = 1;

/// What an end hears of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The dialer asks for it: the listener answers or refuses.
    Asked,
    Answered,
    Refused,
    Bytes(Vec<u8>),
    /// So many bytes that this end has sent are at the other.
    Taken(usize),
    /// The other end has closed, and all that it sent has come before.
    Ended,
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub connection: PeerConnId,
    pub end: usize,
    pub to: usize,
    pub heard: Heard,
}

/// How the way from one member to another is.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    stalled_until: Time,
    /// The longest way of what is sent, until then.
    slow: Option<(Duration, Time)>,
}

/// What is in flight in one direction of a connection, each with when it arrives if nothing before it is later.
type InFlight = VecDeque<(Time, Heard)>;

/// How an end stands.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// It has heard that there is a connection.
    knows: bool,
    closed: bool,
    /// Bytes that it sent, that have arrived, and that the kernel has said it took.
    sent: usize,
    arrived: usize,
    given: usize,
}

#[derive(Clone, Debug)]
struct PeerConnection {
    /// The members at the ends.
    members: [usize; 2],
    ends: [End; 2],
    /// What is on its way to each end.
    towards: [InFlight; 2],
    broken: bool,
}

#[derive(Clone, Debug)]
pub struct Links {
    links: BTreeMap<(usize, usize), Link>,
    connections: BTreeMap<PeerConnId, PeerConnection>,
    /// The longest way where nothing is slow.
    delay: Duration,
    /// How many bytes of each end a kernel takes that have not arrived yet.
    kernel_bytes: usize,
    opened: u64,
    /// Nothing arrives before.
    quiet_until: Time,
    rng: Rng,
    /// What the faults of links met.
    pub hits: Hits,
}

/// What kernels take of a connection ahead of its reader: nothing, little, or all that members send at once.
const KERNEL_BYTES: [usize; 3] = [0, 64 << 10, 4 << 20];

impl Links {
    pub fn new(members: usize, delay: Duration, mut rng: Rng) -> Links {
        assert!(delay > Duration(0), "nothing arrives at once");
        let pairs = (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
        let links = pairs.filter(|(from, to)| from != to).map(|pair| (pair, Link::default())).collect();
        let kernel_bytes = *rng.pick(&KERNEL_BYTES);
        Links {
            links,
            connections: BTreeMap::new(),
            delay,
            kernel_bytes,
            opened: 0,
            quiet_until: Time::NEVER,
            rng,
            hits: Hits::default(),
        }
    }

    /// A member asks another for a connection.
    pub fn dial(&mut self, now: Time, from: usize, to: usize) -> PeerConnId {
        assert!(self.links.contains_key(&(from, to)), "there is no link from {from} to {to}");
        self.opened += 1;
        let id = PeerConnId(self.opened);
        let mut ends = [End::default(); 2];
        ends[DIALER].knows = true;
        let towards = [InFlight::new(), InFlight::new()];
        self.connections.insert(id, PeerConnection { members: [from, to], ends, towards, broken: false });
        self.put(now, id, LISTENER, Heard::Asked);
        id
    }

    /// Somebody listens: the connection is made.
    pub fn answer(&mut self, now: Time, id: PeerConnId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|open| !open.broken) else { return };
        connection.ends[LISTENER].knows = true;
        self.put(now, id, DIALER, Heard::Answered);
    }

    /// Nobody listens, and a kernel says so.
    pub fn refuse(&mut self, now: Time, id: PeerConnId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|open| !open.broken) else { return };
        connection.broken = true;
        self.put(now, id, DIALER, Heard::Refused);
    }

    /// One end sends bytes, which arrive in pieces. Gives how many of its bytes the kernel has taken of late.
    pub fn send(&mut self, now: Time, id: PeerConnId, end: usize, bytes: &[u8]) -> usize {
        let Some(connection) = self.connections.get_mut(&id) else { return 0 };
        connection.ends[end].sent += bytes.len();
        if connection.broken {
            return 0;
        }
        if connection.ends[1 - end].closed {
            // Its kernel says that nobody is there.
            connection.broken = true;
            self.put(now, id, end, Heard::Broken);
            return 0;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let whole = self.rng.chance(3, 4);
            let len = if whole { rest.len() } else { 1 + self.rng.below(rest.len() as u64) as usize };
            self.put(now, id, 1 - end, Heard::Bytes(rest[..len].to_vec()));
            rest = &rest[len..];
        }
        self.give(id, end)
    }

    /// How many bytes an end's kernel has taken since this was asked last.
    fn give(&mut self, id: PeerConnId, end: usize) -> usize {
        let Some(connection) = self.connections.get_mut(&id) else { return 0 };
        let end = &mut connection.ends[end];
        let upto = end.sent.min(end.arrived + self.kernel_bytes);
        let more = upto - end.given;
        end.given = upto;
        more
    }

    /// One end closes: what it has sent arrives still.
    pub fn close(&mut self, now: Time, id: PeerConnId, end: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ends[end].closed = true;
        connection.towards[end].clear();
        if connection.ends[1 - end].closed {
            connection.broken = true;
        } else if !connection.broken {
            self.put(now, id, 1 - end, Heard::Ended);
        }
        self.forget_what_is_over();
    }

    /// The dialer waits no longer: whoever knows of the connection hears that it is none.
    pub fn give_up(&mut self, now: Time, id: PeerConnId) {
        self.break_one(now, id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[DIALER].closed = true;
            connection.towards[DIALER].clear();
        }
        self.forget_what_is_over();
    }

    /// Sets something on its way to an end.
    fn put(&mut self, now: Time, id: PeerConnId, end: usize, heard: Heard) {
        let connection = self.connections.get_mut(&id).expect("the caller knows it");
        let link = &self.links[&(connection.members[1 - end], connection.members[end])];
        let slow = link.slow.filter(|(_, until)| now < *until);
        if slow.is_some() {
            self.hits.count(Hit::SlowLink);
        }
        if link.stalled_until > now {
            self.hits.count(Hit::StalledLink);
        }
        let longest = slow.map_or(self.delay, |(longest, _)| longest);
        let due = now + Duration(1 + self.rng.below(longest.0));
        connection.towards[end].push_back((due, heard));
        self.quiet_until = self.quiet_until.min(due);
    }

    /// When the next thing arrives, or sooner; what has waited behind another may be due already.
    pub fn wake_at(&self) -> Time {
        self.quiet_until
    }

    /// The next arrival of each direction of each connection.
    fn next_of_all(&self) -> impl Iterator<Item = ((PeerConnId, usize), Time)> {
        let ends =
            self.connections.iter().flat_map(|(id, connection)| [(id, connection, 0), (id, connection, 1)]);
        ends.filter_map(|(id, connection, end)| {
            let (due, _) = connection.towards[end].front()?;
            let link = &self.links[&(connection.members[1 - end], connection.members[end])];
            Some(((*id, end), link.stalled_until.max(*due)))
        })
    }

    /// Something that arrives by now, whichever the numbers choose. Bytes that are due come together, now and then.
    /// What an end's kernel has taken is told to it.
    pub fn take(&mut self, now: Time) -> Option<Arrival> {
        if self.quiet_until > now {
            return None;
        }
        let due: Vec<(PeerConnId, usize)> =
            self.next_of_all().filter(|(_, due)| *due <= now).map(|(next, _)| next).collect();
        if due.is_empty() {
            self.quiet_until = self.next_of_all().map(|(_, due)| due).min().unwrap_or(Time::NEVER);
            return None;
        }
        let (id, end) = *self.rng.pick(&due);
        let connection = self.connections.get_mut(&id)?;
        let (_, mut heard) = connection.towards[end].pop_front()?;
        if let Heard::Bytes(bytes) = &mut heard {
            while let Some((_, Heard::Bytes(more))) =
                connection.towards[end].front().filter(|(due, _)| *due <= now)
                && self.rng.chance(1, 2)
            {
                bytes.extend_from_slice(more);
                connection.towards[end].pop_front();
            }
        }
        let (to, is_broken) = (connection.members[end], connection.broken);
        match &mut heard {
            Heard::Bytes(bytes) if !is_broken && !connection.ends[1 - end].closed => {
                let taken = bytes.len();
                self.put(now, id, 1 - end, Heard::Taken(taken));
            }
            Heard::Taken(taken) => {
                connection.ends[end].arrived += *taken;
                *taken = self.give(id, end);
            }
            _ => {}
        }
        self.forget_what_is_over();
        Some(Arrival { connection: id, end, to, heard })
    }

    fn forget_what_is_over(&mut self) {
        self.connections.retain(|_, connection| !connection.is_over());
    }
}

impl PeerConnection {
    fn is_over(&self) -> bool {
        self.broken && self.towards.iter().all(InFlight::is_empty)
    }

    fn is_between(&self, one: usize, other: usize) -> bool {
        self.members == [one, other] || self.members == [other, one]
    }
}

/// The faults of links.
impl Links {
    /// Breaks a connection: what is in flight is lost, and each end that knows of the connection hears of it.
    pub fn break_one(&mut self, now: Time, id: PeerConnId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|open| !open.broken) else { return };
        connection.broken = true;
        for end in [DIALER, LISTENER] {
            let connection = self.connections.get_mut(&id).expect("it was there");
            connection.towards[end].clear();
            if connection.ends[end].knows && !connection.ends[end].closed {
                self.put(now, id, end, Heard::Broken);
            }
        }
        self.forget_what_is_over();
    }

    /// Breaks the connections of two members.
    pub fn break_between(&mut self, now: Time, one: usize, other: usize) {
        for id in self.open_ones(|connection| connection.is_between(one, other)) {
            self.hits.count(Hit::BrokenConnection);
            self.break_one(now, id);
        }
    }

    /// Breaks one connection of two members, whichever the numbers choose.
    pub fn break_some(&mut self, now: Time, one: usize, other: usize) {
        let open = self.open_ones(|connection| connection.is_between(one, other));
        if !open.is_empty() {
            let id = *self.rng.pick(&open);
            self.hits.count(Hit::BrokenConnection);
            self.break_one(now, id);
        }
    }

    fn open_ones(&self, is_meant: impl Fn(&PeerConnection) -> bool) -> Vec<PeerConnId> {
        let open = self.connections.iter().filter(|(_, open)| !open.broken && is_meant(open));
        open.map(|(id, _)| *id).collect()
    }

    /// A process is no more and hears nothing. What its kernel had taken may arrive still, and the others hear of
    /// the break not before someone can say so.
    pub fn sever(&mut self, now: Time, member: usize, said_at: Time) {
        for id in self.open_ones(|connection| connection.members.contains(&member)) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let own = usize::from(connection.members[LISTENER] == member);
            let arrives_still = connection.ends[1 - own].knows && self.rng.chance(1, 2);
            let left = std::mem::take(&mut connection.towards[1 - own]);
            self.break_one(now.max(said_at), id);
            if let Some(connection) = self.connections.get_mut(&id).filter(|_| arrives_still) {
                let news = std::mem::replace(&mut connection.towards[1 - own], left);
                connection.towards[1 - own].extend(news);
            }
        }
        for connection in self.connections.values_mut() {
            for (end, flying) in connection.members.iter().zip(&mut connection.towards) {
                if *end == member {
                    flying.clear();
                }
            }
        }
        self.forget_what_is_over();
    }

    /// Nothing arrives over this link until then.
    pub fn stall(&mut self, from: usize, to: usize, until: Time) {
        self.link(from, to).stalled_until = until;
        self.quiet_until = Time(0);
    }

    /// What is sent over this link until then takes up to so long.
    pub fn delay(&mut self, from: usize, to: usize, longest: Duration, until: Time) {
        self.link(from, to).slow = Some((longest, until));
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        self.links.get_mut(&(from, to)).expect("there is a link between any two members")
    }

    /// Nothing is slow or stalled any more.
    pub fn calm(&mut self) {
        self.links.values_mut().for_each(|link| *link = Link::default());
        self.quiet_until = Time(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const DELAY: Duration = Duration(100);

    fn links(seed: u64) -> Links {
        Links::new(3, DELAY, Rng::new(seed))
    }

    /// A connection of the first two members, of which both have heard.
    fn connected(links: &mut Links) -> PeerConnId {
        let id = links.dial(Time(0), 0, 1);
        let asked = until(links, Time(DELAY.0));
        assert_eq!((asked.len(), &asked[0].1.heard), (1, &Heard::Asked));
        links.answer(Time(DELAY.0), id);
        let answered = until(links, Time(2 * DELAY.0));
        assert_eq!((answered.len(), &answered[0].1.heard), (1, &Heard::Answered));
        id
    }

    /// All that arrives up to a time, with when.
    fn until(links: &mut Links, end: Time) -> Vec<(Time, Arrival)> {
        let (mut heard, mut now) = (vec![], Time(0));
        loop {
            now = now.max(links.wake_at());
            if now > end {
                return heard;
            }
            heard.extend(links.take(now).map(|arrival| (now, arrival)));
        }
    }

    fn bytes_to(member: usize, heard: &[(Time, Arrival)]) -> Vec<u8> {
        let bytes = |(_, arrival): &(Time, Arrival)| match &arrival.heard {
            Heard::Bytes(bytes) if arrival.to == member => bytes.clone(),
            _ => vec![],
        };
        heard.iter().flat_map(bytes).collect()
    }

    fn told(what: &Heard, heard: &[(Time, Arrival)]) -> Vec<usize> {
        let told = |(_, arrival): &(Time, Arrival)| (arrival.heard == *what).then_some(arrival.to);
        let mut told: Vec<usize> = heard.iter().filter_map(told).collect();
        told.sort();
        told
    }

    fn taken(end: usize, heard: &[(Time, Arrival)]) -> usize {
        let taken = |(_, arrival): &(Time, Arrival)| match arrival.heard {
            Heard::Taken(taken) if arrival.end == end => taken,
            _ => 0,
        };
        heard.iter().map(taken).sum()
    }

    #[test]
    fn a_connection_keeps_its_order_both_ways_and_takes_its_time() {
        let mut pieces = BTreeSet::new();
        for seed in 0..50 {
            let mut links = links(seed);
            let id = connected(&mut links);
            for n in 0..40_u8 {
                let now = Time(1000 + u64::from(n));
                links.send(now, id, DIALER, &[n, n, n]);
                links.send(now, id, LISTENER, &[100 + n]);
            }
            let heard = until(&mut links, Time(2000));
            let there: Vec<u8> = (0..40).flat_map(|n| [n; 3]).collect();
            assert_eq!(bytes_to(1, &heard), there);
            assert_eq!(bytes_to(0, &heard), (100..140).collect::<Vec<u8>>());
            assert!(heard.iter().all(|(at, _)| (1001..=1039 + 2 * DELAY.0).contains(&at.0)));
            for (_, Arrival { heard, .. }) in heard {
                let Heard::Bytes(bytes) = heard else { continue };
                pieces.insert(bytes.len());
            }
        }
        assert!([1, 2, 3, 4, 6, 7].iter().all(|len| pieces.contains(len)), "cut and joined: {pieces:?}");
    }

    #[test]
    fn a_kernel_takes_so_much_ahead_and_the_rest_as_it_arrives() {
        let mut seen = BTreeSet::new();
        for seed in 0..20 {
            let mut links = links(seed);
            let id = connected(&mut links);
            let (most, len) = (links.kernel_bytes, 100 << 10);
            seen.insert(most);
            links.stall(0, 1, Time(5000));
            let at_once = links.send(Time(1000), id, DIALER, &vec![1; len]);
            assert_eq!(at_once, len.min(most));
            assert_eq!(taken(DIALER, &until(&mut links, Time(4999))), 0);
            let later = until(&mut links, Time(6000));
            assert_eq!(at_once + taken(DIALER, &later), len);
            // Where no word comes back it is not known that they arrived.
            links.stall(1, 0, Time(9000));
            let at_once = links.send(Time(6000), id, DIALER, &vec![1; len]);
            let during = until(&mut links, Time(8999));
            assert_eq!((bytes_to(1, &during).len(), taken(DIALER, &during)), (len, 0));
            assert_eq!(at_once + taken(DIALER, &until(&mut links, Time(9999))), len);
        }
        assert_eq!(seen, BTreeSet::from(KERNEL_BYTES));
    }

    #[test]
    fn connections_of_the_same_members_overtake_each_other() {
        let mut orders = BTreeSet::new();
        for seed in 0..50 {
            let mut links = links(seed);
            let ids = [(); 3].map(|()| connected(&mut links));
            for (n, id) in ids.into_iter().enumerate() {
                links.send(Time(1000), id, DIALER, &[n as u8]);
            }
            orders.insert(bytes_to(1, &until(&mut links, Time(2000))));
        }
        assert_eq!(orders.len(), 6, "{orders:?}");
    }

    #[test]
    fn a_break_loses_what_is_in_flight_and_both_ends_hear_of_it_once() {
        let mut arrived = [0; 3];
        for seed in 0..50 {
            let mut links = links(seed);
            let (id, other) = (connected(&mut links), connected(&mut links));
            links.send(Time(1000), id, DIALER, &[1]);
            links.send(Time(1000), id, DIALER, &[2]);
            links.send(Time(1000), other, DIALER, &[9]);
            let mut had = until(&mut links, Time(1050));
            links.break_one(Time(1050), id);
            links.break_one(Time(1051), id);
            assert_eq!(links.send(Time(1060), id, LISTENER, &[3]), 0);
            let after = until(&mut links, Time(5000));
            had.retain(|(_, arrival)| arrival.connection == id);
            let had = bytes_to(1, &had);
            assert_eq!(had, [1, 2][..had.len()], "in order as far as it goes");
            arrived[had.len()] += 1;
            assert_eq!(told(&Heard::Broken, &after), [0, 1]);
            assert_eq!(after.iter().filter(|(_, arrival)| arrival.connection == id).count(), 2);
            links.send(Time(6000), other, DIALER, &[8]);
            assert_eq!(bytes_to(1, &until(&mut links, Time(7000))), [8], "the other one goes on");
        }
        assert!(arrived.iter().all(|count| *count > 5), "{arrived:?}");
    }

    #[test]
    fn all_connections_of_two_members_break_and_no_others() {
        let mut links = links(1);
        let ids = [(); 3].map(|()| connected(&mut links));
        let elsewhere = links.dial(Time(900), 2, 1);
        until(&mut links, Time(1000));
        links.answer(Time(1000), elsewhere);
        until(&mut links, Time(2000));
        links.break_some(Time(2000), 1, 0);
        assert_eq!(told(&Heard::Broken, &until(&mut links, Time(3000))), [0, 1]);
        links.break_between(Time(3000), 1, 0);
        assert_eq!(told(&Heard::Broken, &until(&mut links, Time(4000))), [0, 0, 1, 1]);
        assert!(ids.into_iter().all(|id| links.send(Time(4000), id, DIALER, &[1]) == 0));
        links.send(Time(4000), elsewhere, DIALER, &[2]);
        assert_eq!(bytes_to(1, &until(&mut links, Time(5000))), [2]);
        assert_eq!(links.hits.of(Hit::BrokenConnection), 3);
    }

    #[test]
    fn who_has_not_heard_of_a_connection_does_not_hear_of_its_break() {
        let mut links = links(1);
        links.dial(Time(0), 0, 1);
        links.break_between(Time(0), 0, 1);
        assert_eq!(told(&Heard::Broken, &until(&mut links, Time(1000))), [0]);
        let late = links.dial(Time(1000), 0, 1);
        links.give_up(Time(1000), late);
        assert_eq!(until(&mut links, Time(2000)), []);
        let refused = links.dial(Time(2000), 0, 1);
        until(&mut links, Time(2100));
        links.refuse(Time(2100), refused);
        assert_eq!(told(&Heard::Refused, &until(&mut links, Time(3000))), [0]);
        assert_eq!(links.connections.len(), 0);
    }

    #[test]
    fn who_gives_up_after_the_other_has_answered_ends_the_connection_there() {
        let mut links = links(1);
        let id = links.dial(Time(0), 0, 1);
        until(&mut links, Time(100));
        links.stall(1, 0, Time(5000));
        links.answer(Time(100), id);
        links.give_up(Time(1000), id);
        assert_eq!(told(&Heard::Broken, &until(&mut links, Time(9000))), [1]);
        assert_eq!(links.connections.len(), 0);
    }

    #[test]
    fn what_was_sent_before_a_close_arrives_and_what_comes_behind_it_is_refused() {
        for seed in 0..50 {
            let mut links = links(seed);
            let id = connected(&mut links);
            links.send(Time(1000), id, DIALER, &[1, 2, 3]);
            links.close(Time(1000), id, DIALER);
            let heard = until(&mut links, Time(2000));
            assert_eq!((bytes_to(1, &heard), told(&Heard::Ended, &heard)), (vec![1, 2, 3], vec![1]));
            assert_eq!(heard.last().map(|(_, last)| &last.heard), Some(&Heard::Ended), "behind the bytes");
            links.send(Time(2000), id, LISTENER, &[4]);
            links.send(Time(2000), id, LISTENER, &[5]);
            assert_eq!(told(&Heard::Broken, &until(&mut links, Time(3000))), [1]);
            links.close(Time(3000), id, LISTENER);
            assert_eq!((links.connections.len(), links.wake_at() > Time(9000)), (0, true));
        }
    }

    #[test]
    fn a_link_stalls_in_its_one_direction_and_loses_nothing() {
        let mut orders = BTreeSet::new();
        for seed in 0..20 {
            let mut links = links(seed);
            let ids = [(); 3].map(|()| connected(&mut links));
            links.stall(0, 1, Time(5000));
            for (n, id) in ids.into_iter().enumerate() {
                for m in 0..3 {
                    links.send(Time(1000), id, DIALER, &[(10 * n + m) as u8]);
                    links.send(Time(1000), id, LISTENER, &[100]);
                }
            }
            let during = until(&mut links, Time(4999));
            assert_eq!((bytes_to(1, &during).len(), bytes_to(0, &during).len()), (0, 9));
            assert_eq!(links.wake_at(), Time(5000));
            let mut came = bytes_to(1, &until(&mut links, Time(5000)));
            orders.insert(came.clone());
            came.sort_by_key(|n| n / 10);
            assert_eq!(came, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
        }
        assert!(orders.len() > 10, "what is due at once comes in any order of connections: {orders:?}");
    }

    #[test]
    fn a_stalled_link_keeps_the_news_of_a_break_and_whoever_dials() {
        let mut links = links(1);
        let id = connected(&mut links);
        links.stall(0, 1, Time(5000));
        links.break_one(Time(1000), id);
        assert_eq!(told(&Heard::Broken, &until(&mut links, Time(2000))), [0]);
        links.break_one(Time(2000), id);
        links.dial(Time(2000), 0, 1);
        assert_eq!(until(&mut links, Time(4999)), []);
        let after = until(&mut links, Time(5000));
        assert_eq!((told(&Heard::Broken, &after), told(&Heard::Asked, &after)), (vec![1], vec![1]));
    }

    #[test]
    fn a_slow_link_takes_longer_until_it_is_calm() {
        let slow = Duration(100_000);
        let longest = |links: &mut Links, id: PeerConnId, at: Time| {
            links.send(at, id, DIALER, &[1]);
            links.send(at, id, LISTENER, &[1]);
            let heard = until(links, at + slow + slow);
            let to = |member| {
                let came = heard
                    .iter()
                    .find(|(_, arrival)| arrival.to == member && matches!(arrival.heard, Heard::Bytes(_)));
                came.map(|(came, _)| came.since(at)).expect("it came")
            };
            (to(1), to(0))
        };
        let mut worst = Duration(0);
        for seed in 0..20 {
            let mut links = links(seed);
            let id = connected(&mut links);
            links.delay(0, 1, slow, Time(1_000_001));
            let (there, back) = longest(&mut links, id, Time(1_000_000));
            assert!(back <= DELAY);
            worst = worst.max(there);
            assert!(longest(&mut links, id, Time(2_000_000)).0 <= DELAY, "the time is over");
            links.delay(0, 1, slow, Time::NEVER);
            links.stall(1, 0, Time::NEVER);
            links.calm();
            let (there, back) = longest(&mut links, id, Time(3_000_000));
            assert!(there <= DELAY && back <= DELAY);
        }
        assert!(worst > Duration(slow.0 / 2), "{worst:?}");
    }

    #[test]
    fn of_a_dead_process_the_others_hear_once_somebody_says_so_and_it_hears_nothing() {
        let mut came = BTreeSet::new();
        for seed in 0..20 {
            let mut links = links(seed);
            let first = connected(&mut links);
            links.send(Time(1000), first, DIALER, &[1]);
            links.send(Time(1000), first, LISTENER, &[2]);
            links.dial(Time(1000), 1, 2);
            links.sever(Time(1000), 1, Time(7000));
            links.send(Time(1500), first, DIALER, &[4]);
            let mut heard = until(&mut links, Time(6999));
            came.insert(bytes_to(0, &heard));
            heard.retain(|(_, arrival)| !matches!(arrival.heard, Heard::Bytes(_)));
            assert_eq!(heard, [], "nobody has said so");
            let heard = until(&mut links, Time(9000));
            assert_eq!((told(&Heard::Broken, &heard), heard.len()), (vec![0], 1));
            assert_eq!(links.connections.len(), 0);
        }
        assert_eq!(came, BTreeSet::from([vec![], vec![2]]), "what the kernel had taken may come still");
    }

    #[test]
    fn the_same_numbers_give_the_same_arrivals() {
        let story = |seed| {
            let mut links = links(seed);
            let ids = [(); 3].map(|()| connected(&mut links));
            for n in 0..60_u64 {
                links.send(Time(1000 + n * 10), ids[(n % 3) as usize], (n % 2) as usize, &[n as u8]);
                match n {
                    20 => links.stall(0, 1, Time(1400)),
                    30 => links.break_some(Time(1300), 0, 1),
                    40 => links.delay(1, 0, Duration(700), Time(1500)),
                    _ => {}
                }
            }
            until(&mut links, Time(9000))
        };
        assert_eq!(story(3), story(3));
        assert_ne!(story(3), story(4));
    }
}
