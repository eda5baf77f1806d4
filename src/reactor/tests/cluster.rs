//! Several members in one thread, with a network and disks that do at once what they are asked for.

use super::*;
use crate::io::DialId;
use std::collections::BTreeMap;

/// One end of a connection between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    member: usize,
    conn: ConnId,
}

struct Cluster {
    /// None where a member is down.
    members: Vec<Option<Member>>,
    now: Time,
    /// Each end's other end.
    ends: BTreeMap<End, End>,
    slots: u32,
    /// Nothing passes between these.
    cut: Vec<(usize, usize)>,
}

fn url(member: usize) -> String {
    format!("http://m{member}:2380")
}

fn settings_of(member: usize, members: usize, shards: usize) -> Settings {
    let founder =
        |at| Founder { id: MemberId(7 + at as u64), name: format!("m{at}"), peer_urls: vec![url(at)] };
    let founders: Vec<Founder> = (0..members).map(founder).collect();
    let Founder { id, name, peer_urls } = founders[member].clone();
    Settings { member: id, name, peer_urls, founders, ..settings(shards) }
}

impl Cluster {
    fn new(reactors: &[u16], shards: usize) -> Cluster {
        Cluster::of(reactors, shards, |settings| settings)
    }

    fn of(reactors: &[u16], shards: usize, change: impl Fn(Settings) -> Settings) -> Cluster {
        let count = reactors.len();
        let member = |(at, reactors): (usize, &u16)| {
            Some(Member::before_its_first_turn(false, *reactors, change(settings_of(at, count, shards))))
        };
        let members = reactors.iter().enumerate().map(member).collect();
        Cluster { members, now: Time(0), ends: BTreeMap::new(), slots: 10, cut: vec![] }
    }

    /// Time passes until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        for _ in 0..3_000 {
            self.settle();
            if holds(self) {
                return;
            }
            self.now = self.now + Duration::from_ms(10);
        }
        panic!("it never comes to this: {what}\n{}", self.picture());
    }

    /// How it stands with every reactor.
    fn picture(&mut self) -> String {
        let mut lines = vec![];
        for (at, member) in self.members.iter_mut().enumerate().filter_map(|(at, m)| Some((at, m.as_mut()?)))
        {
            for reactor in &mut member.reactors {
                let (turn, lanes) = (&reactor.turn, reactor.peers.lanes());
                lines.push(format!(
                    "m{at} r{}: {:?} settled {}, {lanes}",
                    turn.id, *turn.epoch_state, *turn.settled
                ));
                for local in reactor.shards.all() {
                    let group = local.shard.group();
                    lines.push(format!(
                        "  shard {} {:?} term {} last {} committed {} persisted {} covered {} fence {} seal {:?}",
                        local.shard.id,
                        group.role(),
                        group.term(),
                        group.last_index(),
                        group.committed(),
                        group.persisted_index(),
                        local.coverage.covered(),
                        local.shard.log_view().fence(),
                        local.shard.log_view().seal(),
                    ));
                }
            }
        }
        lines.join("\n")
    }

    /// Everything that can be done now is done.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for at in 0..self.members.len() {
                let Some(member) = &mut self.members[at] else { continue };
                self.now = self.now.max(member.now);
                member.now = self.now;
                busy |= member.turn_all();
                assert_eq!(member.halted, None, "member {at}");
                for (reactor, output) in std::mem::take(&mut member.network) {
                    busy = true;
                    self.carry_out(at, reactor, output);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the cluster never comes to rest\n{}", self.picture());
    }

    fn passes(&self, one: usize, other: usize) -> bool {
        !self.cut.contains(&(one, other)) && !self.cut.contains(&(other, one))
    }

    fn carry_out(&mut self, at: usize, reactor: usize, output: Output) {
        match output {
            Output::Dial { dial, url: to } => self.dial(at, reactor, dial, &to),
            Output::SendChunks { conn, chunks } => {
                let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes().to_vec()).collect();
                let Some(other) = self.ends.get(&End { member: at, conn }).copied() else { return };
                self.step(at, conn, Input::Sent { conn, bytes: bytes.len() });
                if self.passes(at, other.member) {
                    self.step(other.member, other.conn, Input::Received { conn: other.conn, bytes: &bytes });
                }
            }
            Output::Close { conn } => self.hang_up(End { member: at, conn }),
            Output::Move { conn, to, state } => {
                let moved = self.conn(to);
                let other = self.ends.remove(&End { member: at, conn }).expect("it is open");
                let end = End { member: at, conn: moved };
                self.ends.insert(end, other);
                self.ends.insert(other, end);
                self.step(at, moved, Input::Moved { conn: moved, state });
            }
            other => panic!("{other:?}"),
        }
    }

    fn conn(&mut self, reactor: ReactorId) -> ConnId {
        self.slots += 1;
        ConnId { reactor, slot: self.slots, generation: 0 }
    }

    fn step(&mut self, at: usize, conn: ConnId, input: Input<'_>) {
        let now = self.now;
        if let Some(member) = &mut self.members[at] {
            let now = now.max(member.now);
            member.now = now;
            member.reactors[usize::from(conn.reactor.0)].step(now, input);
        }
    }

    fn dial(&mut self, at: usize, reactor: usize, dial: DialId, to: &str) {
        let to = (0..self.members.len()).find(|member| url(*member) == to).expect("a member has the URL");
        let conn = self.conn(ReactorId(reactor as u16));
        if self.members[to].is_none() || !self.passes(at, to) {
            return self.step(at, conn, Input::DialFailed { dial, why: "refused".into() });
        }
        let other = self.conn(ReactorId(0));
        let (here, there) = (End { member: at, conn }, End { member: to, conn: other });
        self.ends.insert(here, there);
        self.ends.insert(there, here);
        self.step(to, other, Input::Opened { conn: other, port: Port::Peer });
        self.step(at, conn, Input::Dialed { dial, conn });
    }

    fn hang_up(&mut self, end: End) {
        let Some(other) = self.ends.remove(&end) else { return };
        self.ends.remove(&other);
        self.step(end.member, end.conn, Input::Closed { conn: end.conn });
        self.step(other.member, other.conn, Input::Closed { conn: other.conn });
    }

    fn kill(&mut self, at: usize) {
        self.members[at] = None;
        let ends: Vec<End> = self.ends.keys().filter(|end| end.member == at).copied().collect();
        ends.into_iter().for_each(|end| self.hang_up(end));
    }

    fn member(&mut self, at: usize) -> &mut Member {
        self.members[at].as_mut().expect("it is up")
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |at: &usize| {
            let member = self.members[*at].as_ref();
            member
                .is_some_and(|member| member.reactors.iter().all(|reactor| reactor.turn.epoch_state.leads()))
        };
        (0..self.members.len()).filter(leads).collect()
    }

    /// The revisions that the members show.
    fn shown(&self) -> Vec<u64> {
        let shown = |member: &Member| {
            let least = member.reactors.iter().map(|reactor| reactor.turn.settled.0).min();
            assert!(least <= Some(member.sequencer.settled().0));
            least.unwrap()
        };
        self.members.iter().flatten().map(shown).collect()
    }

    /// Puts at the member that leads, and gives the revision.
    fn put(&mut self, at: usize, key: &str) -> i64 {
        self.put_value(at, key, b"v".to_vec())
    }

    fn put_value(&mut self, at: usize, key: &str, value: Vec<u8>) -> i64 {
        let request = proto::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::from(value),
            ..Default::default()
        };
        let stream = self.member(at).ask("/etcdserverpb.KV/Put", &request).number();
        let done = move |cluster: &Cluster| {
            cluster.members[at].as_ref().unwrap().statuses.iter().any(|(of, ..)| *of == stream)
        };
        self.until("a put is answered", done);
        let member = self.member(at);
        let place = member.statuses.iter().position(|(of, ..)| *of == stream).unwrap();
        assert_eq!(member.statuses.remove(place).1, 0);
        let place = member.answers.iter().position(|(of, _)| *of == stream).unwrap();
        let reply = proto::PutResponse::decode(&member.answers.remove(place).1[..]).unwrap();
        reply.header.unwrap().revision
    }
}

fn serving(cluster: &Cluster) -> bool {
    !cluster.leaders().is_empty()
}

#[test]
fn three_members_elect_one_that_leads_all_groups_and_all_show_what_it_settles() {
    let mut cluster = Cluster::new(&[1, 2, 3], 5);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let mut revision = 1;
    for n in 0..200u32 {
        let put = cluster.put(leader, &format!("{}k{n}", char::from((n * 7 % 128) as u8)));
        assert_eq!(put, revision + 1);
        revision = put;
    }
    cluster.until("all show it", |cluster| cluster.shown() == [201; 3]);
}

#[test]
fn where_the_leader_is_killed_another_member_goes_on_with_the_next_revision() {
    let mut cluster = Cluster::new(&[2, 2, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    for n in 0..20 {
        cluster.put(leader, &format!("k{n}"));
    }
    cluster.kill(leader);
    cluster.until("another serves", serving);
    let [next] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert_eq!(cluster.put(next, "after"), 22);
    cluster.until("both show it", |cluster| cluster.shown() == [22; 2]);
}

/// A follower that is away while more is written than its groups keep in memory.
fn cluster_with_a_laggard(settings: impl Fn(Settings) -> Settings) -> (Cluster, usize, usize) {
    let mut cluster = Cluster::of(&[1, 2, 1], 3, settings);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let away = (leader + 1) % 3;
    cluster.cut = (0..3).filter(|other| *other != away).map(|other| (away, other)).collect();
    (cluster, leader, away)
}

/// Writes so many values of 20 KB each, to one shard and to others in turn.
fn write_much(cluster: &mut Cluster, leader: usize, values: usize) {
    for n in 0..values {
        let key =
            if n % 3 == 0 { format!("{}k{n}", char::from((n * 7 % 128) as u8)) } else { format!("/k{n}") };
        cluster.put_value(leader, &key, vec![n as u8; 20_000]);
    }
}

fn log_begins(cluster: &mut Cluster, at: usize) -> Vec<u64> {
    cluster.member(at).reactors.iter().map(|r| r.storage.log().segments().next().unwrap().sequence).collect()
}

#[test]
fn a_follower_that_was_away_catches_up_from_the_log_on_disk() {
    let (mut cluster, leader, away) = cluster_with_a_laggard(|settings| settings);
    let before = log_begins(&mut cluster, leader);
    write_much(&mut cluster, leader, 300);
    let (checkpoints, shown) = (cluster.member(leader).checkpoints, cluster.shown());
    assert!(checkpoints > 3, "{checkpoints}");
    assert_eq!(log_begins(&mut cluster, leader), before, "the follower lacks what stands there");
    let least = *shown.iter().min().unwrap();
    assert!(least < 10, "{shown:?}");
    cluster.cut.clear();
    cluster.until("all show it", |cluster| cluster.shown() == [301; 3]);
    assert!(cluster.member(leader).pieces_read > 10, "{}", cluster.member(leader).pieces_read);
    let stores = |member: &Member| -> Vec<_> {
        let stores = member.reactors.iter().flat_map(|reactor| reactor.shards.all());
        stores.map(|local| (local.shard.id, local.shard.store.sizes().keys)).collect()
    };
    let counts: Vec<u64> =
        [leader, away].map(|at| stores(cluster.member(at)).iter().map(|(_, n)| n).sum()).into();
    assert_eq!(counts, [300, 300]);
    // What nobody lacks any more goes.
    write_much(&mut cluster, leader, 60);
    cluster.until("the log is short again", |cluster| {
        let reactors = &cluster.members[leader].as_ref().unwrap().reactors;
        let bytes: u64 = reactors.iter().map(|reactor| reactor.storage.log().held().written).sum();
        bytes < 3_000_000
    });
    assert!(log_begins(&mut cluster, leader) > before);
    // A group in which nothing was written has kept nothing, and serves who was away since all the same.
    let router = cluster.member(leader).reactors[0].turn.router();
    let idle = ["/registry/", "/registry/pods/", "/registry/leases/", "/registry/events/"];
    let idle = idle.into_iter().find(|key| router.shard_of(key.as_bytes()) == ShardId(2)).unwrap();
    cluster.cut = (0..3).filter(|other| *other != away).map(|other| (away, other)).collect();
    (0..150).for_each(|n| _ = cluster.put_value(leader, &format!("{idle}{n}"), vec![7; 20_000]));
    cluster.cut.clear();
    cluster.until("all show it", |cluster| cluster.shown() == [511; 3]);
}

#[test]
fn what_the_log_has_let_go_of_is_not_asked_for_again_and_again() {
    let (mut cluster, leader, away) = cluster_with_a_laggard(|settings| {
        let bounds = crate::limits::Bounds { laggard_log_bytes_max: 0, ..settings.bounds };
        Settings { bounds, ..settings }
    });
    let before = log_begins(&mut cluster, leader);
    write_much(&mut cluster, leader, 300);
    assert!(log_begins(&mut cluster, leader) > before, "nothing is kept for the follower");
    cluster.cut.clear();
    for _ in 0..500 {
        cluster.now = cluster.now + Duration::from_ms(10);
        cluster.settle();
    }
    let read = cluster.member(leader).pieces_read;
    assert!(cluster.shown()[away] < 301);
    cluster.put_value(leader, "/last", vec![1]);
    for _ in 0..100 {
        cluster.now = cluster.now + Duration::from_ms(10);
        cluster.settle();
    }
    assert_eq!(cluster.member(leader).pieces_read, read);
}

#[test]
fn a_read_of_the_log_that_fails_is_tried_again_and_what_the_disk_has_changed_is_given_to_nobody() {
    let (mut cluster, leader, away) = cluster_with_a_laggard(|settings| settings);
    write_much(&mut cluster, leader, 150);
    cluster.member(leader).reads_fail = true;
    cluster.cut.clear();
    cluster.until("a read fails", |cluster| cluster.members[leader].as_ref().unwrap().pieces_read > 0);
    assert!(cluster.member(leader).pieces_read < 5, "{}", cluster.member(leader).pieces_read);
    cluster.member(leader).reads_fail = false;
    cluster.until("all show it", |cluster| cluster.shown() == [151; 3]);

    cluster.cut = (0..3).filter(|other| *other != away).map(|other| (away, other)).collect();
    cluster.until("it is away", |cluster| cluster.members[away].as_ref().unwrap().network.is_empty());
    let known: std::collections::BTreeMap<_, _> = cluster.member(leader).segments.clone();
    write_much(&mut cluster, leader, 150);
    let last = known.keys().next_back().unwrap();
    for (name, file) in &mut cluster.member(leader).segments {
        if name.sequence > last.sequence {
            file.chunks_mut(4096).for_each(|block| block[200] ^= 1);
        }
    }
    cluster.cut.clear();
    for _ in 0..500 {
        cluster.now = cluster.now + Duration::from_ms(10);
        cluster.settle();
    }
    let said = |line: &&LogLine| line.message.contains("the disk has lost or changed it");
    assert!(cluster.member(leader).log_lines.iter().filter(said).count() >= 1);
    assert!(cluster.shown()[away] < 301, "{:?}", cluster.shown());
    assert_eq!(cluster.member(away).halted, None);
}
