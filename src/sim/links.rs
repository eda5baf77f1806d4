//! What lies between members: for each ordered pair of them a link, and connections that carry frames over the
//! links of both directions.
//!
//! A connection is as one of TCP: each direction keeps its order, and what is sent arrives, or the connection
//! breaks; then all that is in flight is lost, and both ends hear of it, each in its own time. Two connections of
//! the same members keep no order between them, so peers that hold several see their frames reordered. A link
//! that stalls keeps what it carries, notices of a break too, until it goes on; it does so for its one direction.
//! One that is slow takes its time. What frames say is nobody's business here.
//!
//! Links know no clock: the time is an argument. They draw from numbers of their own.

use crate::stdx::Rng;
use crate::types::{Duration, Time};
use std::collections::{BTreeMap, VecDeque};

/// One connection, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerConnId(pub u64);

/// What a connection is for: one pair of reactors, the opener's first, or what is bulky.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Reactors(u16, u16),
    Bulk,
}

/// What a member hears of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Opened { with: usize, lane: Lane },
    Frame(Vec<u8>),
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub to: usize,
    pub connection: PeerConnId,
    pub heard: Heard,
}

/// How the way from one member to another is.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    stalled_until: Time,
    /// The longest way of a frame, until then.
    slow: Option<(Duration, Time)>,
}

/// What is in flight in one direction of a connection, each with when it arrives if nothing before it is later.
type InFlight = VecDeque<(Time, Heard)>;

#[derive(Clone, Debug)]
struct PeerConnection {
    /// Who opened it, and with whom.
    ends: [usize; 2],
    /// What is on its way to each end.
    towards: [InFlight; 2],
    broken: bool,
}

#[derive(Clone, Debug)]
pub struct Links {
    links: BTreeMap<(usize, usize), Link>,
    connections: BTreeMap<PeerConnId, PeerConnection>,
    /// The longest way of a frame where nothing is slow.
    delay: Duration,
    opened: u64,
    rng: Rng,
}

impl Links {
    pub fn new(members: usize, delay: Duration, rng: Rng) -> Links {
        assert!(delay > Duration(0), "nothing arrives at once");
        let pairs = (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
        let links = pairs.filter(|(from, to)| from != to).map(|pair| (pair, Link::default())).collect();
        Links { links, connections: BTreeMap::new(), delay, opened: 0, rng }
    }

    /// Opens a connection, of which both ends hear: first the one that did not ask for it. Frames may follow at
    /// once.
    pub fn connect(&mut self, now: Time, from: usize, to: usize, lane: Lane) -> PeerConnId {
        assert!(self.links.contains_key(&(from, to)), "there is no link from {from} to {to}");
        self.opened += 1;
        let id = PeerConnId(self.opened);
        let towards = [InFlight::new(), InFlight::new()];
        self.connections.insert(id, PeerConnection { ends: [from, to], towards, broken: false });
        let there = self.put(now, id, 1, Heard::Opened { with: from, lane });
        self.put(there, id, 0, Heard::Opened { with: to, lane });
        id
    }

    /// One end sends a frame. On a connection that is broken it is lost.
    pub fn send(&mut self, now: Time, connection: PeerConnId, from: usize, frame: Vec<u8>) {
        let Some(open) = self.connections.get(&connection).filter(|open| !open.broken) else { return };
        let end = open.ends.iter().position(|end| *end != from).expect("a connection has two ends");
        assert!(open.ends.contains(&from), "{from} is no end of {connection:?}");
        self.put(now, connection, end, Heard::Frame(frame));
    }

    /// Sets something on its way to an end. Gives when it arrives.
    fn put(&mut self, now: Time, id: PeerConnId, end: usize, heard: Heard) -> Time {
        let connection = self.connections.get_mut(&id).expect("the caller knows it");
        let link = &self.links[&(connection.ends[1 - end], connection.ends[end])];
        let longest = link.slow.filter(|(_, until)| now < *until).map_or(self.delay, |(longest, _)| longest);
        let due = now + Duration(1 + self.rng.below(longest.0));
        connection.towards[end].push_back((due, heard));
        due
    }

    /// When the next thing arrives; what has waited behind another may be due already.
    pub fn wake_at(&self) -> Time {
        self.next_of_all().map(|(_, due)| due).min().unwrap_or(Time::NEVER)
    }

    /// The next arrival of each direction of each connection.
    fn next_of_all(&self) -> impl Iterator<Item = ((PeerConnId, usize), Time)> {
        let ends =
            self.connections.iter().flat_map(|(id, connection)| [(id, connection, 0), (id, connection, 1)]);
        ends.filter_map(|(id, connection, end)| {
            let (due, _) = connection.towards[end].front()?;
            let link = &self.links[&(connection.ends[1 - end], connection.ends[end])];
            Some(((*id, end), link.stalled_until.max(*due)))
        })
    }

    /// Something that arrives by now, whichever the numbers choose.
    pub fn take(&mut self, now: Time) -> Option<Arrival> {
        let due: Vec<(PeerConnId, usize)> =
            self.next_of_all().filter(|(_, due)| *due <= now).map(|(next, _)| next).collect();
        if due.is_empty() {
            return None;
        }
        let (id, end) = *self.rng.pick(&due);
        let connection = self.connections.get_mut(&id)?;
        let (_, heard) = connection.towards[end].pop_front()?;
        let to = connection.ends[end];
        if connection.is_over() {
            self.connections.remove(&id);
        }
        Some(Arrival { to, connection: id, heard })
    }
}

impl PeerConnection {
    fn is_over(&self) -> bool {
        self.broken && self.towards.iter().all(InFlight::is_empty)
    }

    fn is_between(&self, one: usize, other: usize) -> bool {
        self.ends == [one, other] || self.ends == [other, one]
    }
}

/// The faults of links.
impl Links {
    /// Breaks a connection: what is in flight is lost, and each end that knows of the connection hears of it.
    pub fn break_one(&mut self, now: Time, id: PeerConnId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|open| !open.broken) else { return };
        connection.broken = true;
        for end in 0..2 {
            let flying = &mut self.connections.get_mut(&id).expect("it was there").towards[end];
            let is_new = flying.iter().any(|(_, heard)| matches!(heard, Heard::Opened { .. }));
            flying.clear();
            if end == 0 || !is_new {
                self.put(now, id, end, Heard::Broken);
            }
        }
    }

    /// Breaks the connections of two members.
    pub fn break_between(&mut self, now: Time, one: usize, other: usize) {
        for id in self.open_ones(|connection| connection.is_between(one, other)) {
            self.break_one(now, id);
        }
    }

    /// Breaks one connection of two members, whichever the numbers choose.
    pub fn break_some(&mut self, now: Time, one: usize, other: usize) {
        let open = self.open_ones(|connection| connection.is_between(one, other));
        if !open.is_empty() {
            let id = *self.rng.pick(&open);
            self.break_one(now, id);
        }
    }

    fn open_ones(&self, is_meant: impl Fn(&PeerConnection) -> bool) -> Vec<PeerConnId> {
        let open = self.connections.iter().filter(|(_, open)| !open.broken && is_meant(open));
        open.map(|(id, _)| *id).collect()
    }

    /// A member is no more and hears nothing. The others hear of it not before someone can say so.
    pub fn sever(&mut self, now: Time, member: usize, said_at: Time) {
        for id in self.open_ones(|connection| connection.ends.contains(&member)) {
            self.break_one(now.max(said_at), id);
        }
        for connection in self.connections.values_mut() {
            for (end, flying) in connection.ends.iter().zip(&mut connection.towards) {
                if *end == member {
                    flying.clear();
                }
            }
        }
        self.connections.retain(|_, connection| !connection.is_over());
    }

    /// Nothing arrives over this link until then.
    pub fn stall(&mut self, from: usize, to: usize, until: Time) {
        self.link(from, to).stalled_until = until;
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration(100);
    const LANES: [Lane; 3] = [Lane::Reactors(0, 0), Lane::Reactors(1, 0), Lane::Bulk];

    fn links(seed: u64) -> Links {
        Links::new(3, DELAY, Rng::new(seed))
    }

    /// A connection of the first two members, of which both have heard.
    fn connected(links: &mut Links, lane: Lane) -> PeerConnId {
        let id = links.connect(Time(0), 0, 1, lane);
        let heard = until(links, Time(2 * DELAY.0));
        assert_eq!(heard.iter().filter(|(_, arrival)| arrival.connection == id).count(), 2);
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
            heard.push((now, links.take(now).expect("it is due")));
        }
    }

    fn frames_to(member: usize, heard: &[(Time, Arrival)]) -> Vec<u8> {
        let frame = |(_, arrival): &(Time, Arrival)| match &arrival.heard {
            Heard::Frame(bytes) if arrival.to == member => Some(bytes[0]),
            _ => None,
        };
        heard.iter().filter_map(frame).collect()
    }

    fn breaks(heard: &[(Time, Arrival)]) -> Vec<usize> {
        let broken = |(_, arrival): &(Time, Arrival)| (arrival.heard == Heard::Broken).then_some(arrival.to);
        let mut told: Vec<usize> = heard.iter().filter_map(broken).collect();
        told.sort();
        told
    }

    #[test]
    fn both_ends_hear_of_a_connection_the_one_that_is_asked_first() {
        for seed in 0..50 {
            let mut links = links(seed);
            let connection = links.connect(Time(5), 2, 0, Lane::Bulk);
            let heard = until(&mut links, Time::NEVER - Duration(1));
            let opened =
                |to, with| Arrival { to, connection, heard: Heard::Opened { with, lane: Lane::Bulk } };
            let told: Vec<Arrival> = heard.iter().map(|(_, arrival)| arrival.clone()).collect();
            assert_eq!(told, [opened(0, 2), opened(2, 0)]);
            assert!(heard.iter().all(|(at, _)| (Time(6)..=Time(5 + 2 * DELAY.0)).contains(at)));
        }
    }

    #[test]
    fn a_connection_keeps_its_order_both_ways_and_takes_its_time() {
        for seed in 0..50 {
            let mut links = links(seed);
            let id = connected(&mut links, Lane::Bulk);
            for n in 0..40_u8 {
                let now = Time(1000 + u64::from(n));
                links.send(now, id, 0, vec![n]);
                links.send(now, id, 1, vec![100 + n]);
            }
            let heard = until(&mut links, Time(1039 + DELAY.0));
            assert_eq!(frames_to(1, &heard), (0..40).collect::<Vec<u8>>());
            assert_eq!(frames_to(0, &heard), (100..140).collect::<Vec<u8>>());
            assert!(heard.iter().all(|(at, _)| *at > Time(1000)));
        }
    }

    #[test]
    fn connections_of_the_same_members_overtake_each_other() {
        let mut orders = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut links = links(seed);
            let ids = LANES.map(|lane| connected(&mut links, lane));
            for (n, id) in ids.into_iter().enumerate() {
                links.send(Time(1000), id, 0, vec![n as u8]);
            }
            orders.insert(frames_to(1, &until(&mut links, Time(2000))));
        }
        assert_eq!(orders.len(), 6, "{orders:?}");
    }

    #[test]
    fn a_break_loses_what_is_in_flight_and_both_ends_hear_of_it_once() {
        let mut arrived = [0; 3];
        for seed in 0..50 {
            let mut links = links(seed);
            let (id, other) =
                (connected(&mut links, Lane::Bulk), connected(&mut links, Lane::Reactors(0, 0)));
            links.send(Time(1000), id, 0, vec![1]);
            links.send(Time(1000), id, 0, vec![2]);
            links.send(Time(1000), other, 0, vec![9]);
            let before = until(&mut links, Time(1050));
            links.break_one(Time(1050), id);
            links.break_one(Time(1051), id);
            links.send(Time(1060), id, 1, vec![3]);
            let after = until(&mut links, Time(5000));
            let of_this = |heard: &[(Time, Arrival)]| -> Vec<(Time, Arrival)> {
                heard.iter().filter(|(_, arrival)| arrival.connection == id).cloned().collect()
            };
            let (before, after) = (of_this(&before), of_this(&after));
            let had = frames_to(1, &before);
            assert_eq!(had, [1, 2][..had.len()], "in order as far as it goes");
            arrived[had.len()] += 1;
            assert_eq!((breaks(&before), breaks(&after)), (vec![], vec![0, 1]));
            assert_eq!(after.len(), 2, "nothing but the break: {after:?}");
            links.send(Time(6000), other, 0, vec![8]);
            assert_eq!(frames_to(1, &until(&mut links, Time(7000))), [8], "the other one goes on");
        }
        assert!(arrived.iter().all(|count| *count > 5), "{arrived:?}");
    }

    #[test]
    fn all_connections_of_two_members_break_and_no_others() {
        let mut links = links(1);
        let ids = LANES.map(|lane| connected(&mut links, lane));
        let elsewhere = links.connect(Time(900), 2, 1, Lane::Bulk);
        until(&mut links, Time(2000));
        links.break_some(Time(2000), 1, 0);
        assert_eq!(breaks(&until(&mut links, Time(3000))), [0, 1]);
        links.break_between(Time(3000), 1, 0);
        assert_eq!(breaks(&until(&mut links, Time(4000))), [0, 0, 1, 1]);
        ids.into_iter().for_each(|id| links.send(Time(4000), id, 0, vec![1]));
        links.send(Time(4000), elsewhere, 2, vec![2]);
        assert_eq!(frames_to(1, &until(&mut links, Time(5000))), [2]);
    }

    #[test]
    fn who_has_not_heard_of_a_connection_does_not_hear_of_its_break() {
        let mut links = links(1);
        links.connect(Time(0), 0, 1, Lane::Bulk);
        links.break_between(Time(0), 0, 1);
        assert_eq!(breaks(&until(&mut links, Time(1000))), [0]);
    }

    #[test]
    fn a_link_stalls_in_its_one_direction_and_loses_nothing() {
        let mut orders = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let mut links = links(seed);
            let ids = LANES.map(|lane| connected(&mut links, lane));
            links.stall(0, 1, Time(5000));
            for (n, id) in ids.into_iter().enumerate() {
                for m in 0..3 {
                    links.send(Time(1000), id, 0, vec![(10 * n + m) as u8]);
                    links.send(Time(1000), id, 1, vec![100]);
                }
            }
            let during = until(&mut links, Time(4999));
            assert_eq!((frames_to(1, &during).len(), frames_to(0, &during).len()), (0, 9));
            assert_eq!(links.wake_at(), Time(5000));
            let after = until(&mut links, Time(5000));
            let mut came = frames_to(1, &after);
            orders.insert(came.clone());
            came.sort_by_key(|n| n / 10);
            assert_eq!(came, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
        }
        assert!(orders.len() > 10, "what is due at once comes in any order of connections: {orders:?}");
    }

    #[test]
    fn a_stalled_link_keeps_the_news_of_a_break() {
        let mut links = links(1);
        let id = connected(&mut links, Lane::Bulk);
        links.stall(0, 1, Time(5000));
        links.break_one(Time(1000), id);
        assert_eq!(breaks(&until(&mut links, Time(2000))), [0]);
        links.break_one(Time(2000), id);
        assert!(breaks(&until(&mut links, Time(4999))).is_empty(), "it has heard");
        assert_eq!(breaks(&until(&mut links, Time(5000))), [1]);
    }

    #[test]
    fn a_slow_link_takes_longer_until_it_is_calm() {
        let slow = Duration(100_000);
        let longest = |links: &mut Links, id: PeerConnId, at: Time| {
            links.send(at, id, 0, vec![1]);
            links.send(at, id, 1, vec![1]);
            let heard = until(links, at + slow);
            let to = |member| {
                heard.iter().find(|(_, arrival)| arrival.to == member).map(|(came, _)| came.since(at))
            };
            (to(1).expect("it came"), to(0).expect("it came"))
        };
        let mut worst = Duration(0);
        for seed in 0..20 {
            let mut links = links(seed);
            let id = connected(&mut links, Lane::Bulk);
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
    fn of_a_dead_member_the_others_hear_once_somebody_says_so_and_it_hears_nothing() {
        let mut links = links(1);
        let first = connected(&mut links, Lane::Bulk);
        let second = links.connect(Time(300), 2, 1, Lane::Bulk);
        until(&mut links, Time(1000));
        links.send(Time(1000), first, 0, vec![1]);
        links.send(Time(1000), first, 1, vec![2]);
        links.send(Time(1000), second, 2, vec![3]);
        links.sever(Time(1000), 1, Time(7000));
        links.send(Time(1500), first, 0, vec![4]);
        assert!(links.wake_at() > Time(7000), "nobody has said so");
        let heard = until(&mut links, Time(9000));
        assert_eq!((breaks(&heard), heard.len()), (vec![0, 2], 2));
        assert_eq!(links.wake_at(), Time::NEVER);
    }

    #[test]
    fn the_same_numbers_give_the_same_arrivals() {
        let story = |seed| {
            let mut links = links(seed);
            let ids = LANES.map(|lane| connected(&mut links, lane));
            for n in 0..60_u64 {
                links.send(Time(1000 + n * 10), ids[(n % 3) as usize], (n % 2) as usize, vec![n as u8]);
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
