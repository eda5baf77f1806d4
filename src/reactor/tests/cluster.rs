//! Several members in one thread, with a network and disks that do at once what they are asked for.

use super::*;
use crate::io::DialId;
use std::collections::BTreeMap;

mod alarms;
mod alone;
mod following;
mod hand_over;
mod laggards;
mod late;
mod leading;
mod local_txns;
mod members;
mod peers;
mod restart;
mod showing;
mod unwell;
mod urls;

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
    /// What the first has sent to the second arrives later.
    held: Vec<(usize, usize)>,
    /// What this reactor of a member says is lost.
    mute: Option<(usize, usize)>,
    waiting: Vec<(End, Vec<u8>)>,
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
        Cluster {
            members,
            now: Time(0),
            ends: BTreeMap::new(),
            slots: 10,
            cut: vec![],
            held: vec![],
            mute: None,
            waiting: vec![],
        }
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
    fn picture(&self) -> String {
        let up = self.members.iter().enumerate().filter_map(|(at, member)| Some((at, member.as_ref()?)));
        let reactors = up.flat_map(|(at, member)| member.reactors.iter().map(move |reactor| (at, reactor)));
        let lines = reactors.map(|(at, reactor)| format!("m{at} {}", reactor.picture().join("\n")));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Everything that can be done now is done.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turn_all() {
                return;
            }
        }
        panic!("the cluster never comes to rest\n{}", self.picture());
    }

    /// A turn of every reactor. False where none has anything to do.
    fn turn_all(&mut self) -> bool {
        let mut busy = false;
        for at in 0..self.members.len() {
            let Some(member) = &mut self.members[at] else { continue };
            self.now = self.now.max(member.now);
            member.now = self.now;
            if member.halted.as_deref() == Some(crate::peer::REMOVED) {
                continue; // Its process has ended.
            }
            busy |= member.turn_all();
            let ended = member.halted.clone().filter(|why| why != crate::peer::REMOVED);
            assert_eq!(ended, None, "member {at}");
            for (reactor, output) in std::mem::take(&mut member.network) {
                busy = true;
                self.carry_out(at, reactor, output);
            }
        }
        busy
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
                if self.held.contains(&(at, other.member)) {
                    self.waiting.push((other, bytes));
                } else if self.passes(at, other.member) && self.mute != Some((at, reactor)) {
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

    /// All that was held arrives.
    fn release(&mut self) {
        self.held.clear();
        for (End { member, conn }, bytes) in std::mem::take(&mut self.waiting) {
            self.step(member, conn, Input::Received { conn, bytes: &bytes });
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
        let conn = self.conn(ReactorId(reactor as u16));
        let Some(to) = (0..self.members.len()).find(|member| url(*member) == to) else {
            return self.step(at, conn, Input::DialFailed { dial, why: "nobody is there".into() });
        };
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

    /// The member that a member's reactors all follow.
    fn follows(&self, at: usize) -> Option<usize> {
        let reactors = &self.members[at].as_ref()?.reactors;
        let mut followed = reactors.iter().map(|reactor| reactor.turn.epoch_state.follows());
        let first = followed.next()??;
        followed.all(|of| of == Some(first)).then_some((first.0 - 7) as usize)
    }

    /// So much time passes.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.settle();
            self.now = self.now + Duration::from_ms(10);
        }
        self.settle();
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

    /// A key of a shard that lives at a member's reactor.
    fn key_of_reactor(&mut self, at: usize, reactor: u16) -> &'static str {
        let router = self.member(at).reactors[0].turn.router();
        let keys = ["a", "/registry/pods/b", "/registry/leases/c", "/registry/events/d", "z"];
        let is_of = |key: &&str| router.reactor_of(router.shard_of(key.as_bytes())) == ReactorId(reactor);
        keys.into_iter().find(is_of).expect("a shard lives there")
    }

    /// A call at a member, until it is answered.
    fn call<Q: Message, R: Message + Default>(
        &mut self,
        at: usize,
        path: &str,
        request: &Q,
    ) -> Result<R, (u8, String)> {
        let stream = self.member(at).ask(path, request).number();
        self.answer(at, stream)
    }

    /// The answer to a call that was asked before.
    fn answer<R: Message + Default>(&mut self, at: usize, stream: u32) -> Result<R, (u8, String)> {
        self.until("a call is answered", |cluster| {
            cluster.members[at].as_ref().unwrap().statuses.iter().any(|(of, ..)| *of == stream)
        });
        let member = self.member(at);
        let place = member.statuses.iter().position(|(of, ..)| *of == stream).unwrap();
        let (_, code, text) = member.statuses.remove(place);
        if code != 0 {
            return Err((code, text));
        }
        let place = member.answers.iter().position(|(of, _)| *of == stream).unwrap();
        Ok(R::decode(&member.answers.remove(place).1[..]).unwrap())
    }

    fn put(&mut self, at: usize, key: &str) -> i64 {
        self.put_value(at, key, b"v".to_vec())
    }

    fn put_value(&mut self, at: usize, key: &str, value: Vec<u8>) -> i64 {
        let request = proto::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::from(value),
            ..Default::default()
        };
        let reply: proto::PutResponse = self.call(at, "/etcdserverpb.KV/Put", &request).unwrap();
        let header = reply.header.unwrap();
        assert_eq!(header.member_id, 7 + at as u64, "a header names the member that was asked");
        header.revision
    }

    /// A range over everything: the revision and the keys.
    fn range(&mut self, at: usize, serializable: bool) -> (i64, usize) {
        let everything = Bytes::from_static(b"\0");
        let request = proto::RangeRequest {
            key: everything.clone(),
            range_end: everything,
            serializable,
            ..Default::default()
        };
        let reply: proto::RangeResponse = self.call(at, "/etcdserverpb.KV/Range", &request).unwrap();
        (reply.header.unwrap().revision, reply.kvs.len())
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

#[test]
fn every_member_takes_writes_and_answers_reads() {
    let mut cluster = Cluster::new(&[2, 3, 1], 4);
    let mut revision = 1;
    for n in 0..60usize {
        let put = cluster.put(n % 3, &format!("{}k{n}", char::from((n * 5 % 128) as u8)));
        assert_eq!(put, revision + 1);
        revision = put;
        for at in 0..3 {
            assert_eq!(cluster.range(at, false), (revision, n + 1), "member {at}");
        }
    }
    cluster.until("all show it", |cluster| cluster.shown() == [61; 3]);
    for at in 0..3 {
        assert_eq!(cluster.range(at, true), (61, 60));
    }
    let grant = proto::LeaseGrantRequest { ttl: 100, id: 0 };
    for at in 0..3 {
        let granted: proto::LeaseGrantResponse =
            cluster.call(at, "/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
        let list: proto::LeaseTimeToLiveResponse = cluster
            .call(
                (at + 1) % 3,
                "/etcdserverpb.Lease/LeaseTimeToLive",
                &proto::LeaseTimeToLiveRequest { id: granted.id, keys: true },
            )
            .unwrap();
        assert_eq!((list.granted_ttl, list.id), (100, granted.id));
    }
    let members: proto::MemberListResponse = cluster
        .call(0, "/etcdserverpb.Cluster/MemberList", &proto::MemberListRequest { linearizable: true })
        .unwrap();
    let names: Vec<&str> = members.members.iter().map(|member| &member.name[..]).collect();
    assert_eq!(names, ["m0", "m1", "m2"]);
    assert!(members.members.iter().all(|member| !member.client_urls.is_empty()), "{members:?}");
}

#[test]
fn a_connection_that_nobody_wants_any_more_is_closed() {
    let mut cluster = Cluster::new(&[1, 1, 1], 2);
    cluster.until("one serves", serving);
    let conn = cluster.conn(ReactorId(0));
    cluster.step(0, conn, Input::Dialed { dial: DialId(u64::MAX), conn });
    let member = cluster.member(0);
    member.turn_all();
    let is_close =
        |(_, output): &(usize, Output)| matches!(output, Output::Close { conn: of } if *of == conn);
    assert!(member.network.iter().any(is_close), "{:?}", member.network);
}

#[test]
fn a_member_that_is_cut_off_answers_nothing_that_is_not_so_and_is_served_again_afterwards() {
    let mut cluster = Cluster::new(&[1, 1, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert_eq!(cluster.put((leader + 1) % 3, "a"), 2);
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    cluster.cut = vec![(leader, (leader + 1) % 3), (leader, (leader + 2) % 3)];
    // Nothing that the leader has is newer, and yet it may be old: no entry backs the answer.
    let put = proto::PutRequest { key: Bytes::from_static(b"b"), ..Default::default() };
    let success =
        vec![proto::RequestOp { request: Some(proto::request_op::Request::RequestPut(put.clone())) }];
    let never = Some(proto::compare::TargetUnion::Version(9));
    let compare = proto::Compare { key: put.key.clone(), target_union: never, ..Default::default() };
    let failed = proto::TxnRequest { compare: vec![compare], success, failure: vec![] };
    let failed = cluster.member(leader).ask("/etcdserverpb.KV/Txn", &failed).number();
    cluster.settle();
    let lost = cluster.member(leader).ask("/etcdserverpb.KV/Put", &put).number();
    cluster.until("another serves", |cluster| cluster.leaders().iter().any(|at| *at != leader));
    let next = *cluster.leaders().iter().find(|at| **at != leader).unwrap();
    assert_eq!(cluster.put(next, "c"), 3);
    assert_eq!(cluster.range(leader, true), (2, 1), "what need not be the newest is answered");
    for lost in [failed, lost] {
        let answered = |cluster: &Cluster| {
            let member = cluster.members[leader].as_ref().unwrap();
            member.statuses.iter().find(|(of, ..)| *of == lost).map(|(_, code, text)| (*code, text.clone()))
        };
        cluster.until("it is answered", |cluster| answered(cluster).is_some());
        assert_eq!(answered(&cluster), Some((14, "etcdserver: request timed out".to_owned())));
    }
    cluster.cut.clear();
    cluster.until("all show it", |cluster| cluster.shown() == [3; 3]);
    assert_eq!(cluster.range(leader, false), (3, 2));
    assert_eq!(cluster.put(leader, "d"), 4);
}

#[test]
fn more_calls_than_a_link_has_place_for_are_answered_one_after_the_other() {
    let mut cluster = Cluster::of(&[1, 1, 1], 3, |mut settings| {
        settings.bounds.peer.queued_messages_max = 6;
        settings
    });
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let (at, other) = ((leader + 1) % 3, (leader + 2) % 3);
    assert_eq!(cluster.put(at, "first"), 2);
    // Their answers come all at once.
    [at, other].into_iter().for_each(|slow| cluster.member(slow).disk_stands = true);
    for n in 0..40u8 {
        let put = proto::PutRequest { key: Bytes::from(vec![3 * n]), ..Default::default() };
        cluster.member(at).ask("/etcdserverpb.KV/Put", &put);
        if n % 4 == 3 {
            cluster.settle();
        }
    }
    assert!(cluster.member(leader).reactors[0].calls.len() > 0, "they are with the leader");
    [at, other].into_iter().for_each(|slow| cluster.member(slow).write_all());
    cluster.until("all are answered", |cluster| cluster.members[at].as_ref().unwrap().statuses.len() == 40);
    let statuses = &cluster.member(at).statuses;
    assert!(statuses.iter().all(|(_, code, _)| *code == 0), "{statuses:?}");
    assert_eq!(cluster.range(leader, false), (42, 41));
    let closed = |line: &&LogLine| line.message.contains("closed the link");
    assert_eq!(cluster.member(leader).log_lines.iter().filter(closed).count(), 0);
}

#[test]
fn a_physical_compaction_is_answered_when_the_member_that_was_asked_has_dropped_what_it_drops() {
    // The first is done with it long before the others.
    let mut cluster = Cluster::of(&[1, 2, 1], 3, |mut settings| {
        settings.bounds.compact_slice_keys = if settings.member == MemberId(7) { 1000 } else { 1 };
        settings
    });
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let first = proto::MoveLeaderRequest { target_id: 7 };
    let _: proto::MoveLeaderResponse =
        cluster.call(leader, "/etcdserverpb.Maintenance/MoveLeader", &first).unwrap();
    cluster.until("the first leads", |cluster| cluster.leaders() == [0]);
    for at in [1, 2] {
        for n in 0..60 {
            cluster.put(0, &format!("/k{}", n % 30));
        }
        let revision = cluster.put(0, "/last");
        cluster.until("all show it", |cluster| cluster.shown() == [revision as u64; 3]);
        let compact = proto::CompactionRequest { revision, physical: true };
        let call = cluster.member(at).ask("/etcdserverpb.KV/Compact", &compact).number();
        let answer = |cluster: &mut Cluster| {
            let mut statuses = cluster.member(at).statuses.iter();
            statuses.find(|(of, ..)| *of == call).map(|(_, code, _)| *code)
        };
        while answer(&mut cluster).is_none() {
            if !cluster.turn_all() {
                cluster.now = cluster.now + Duration::from_ms(10);
            }
        }
        assert_eq!(answer(&mut cluster), Some(0));
        let shards = |member: &Member| -> Vec<_> {
            let shards = member.reactors.iter().flat_map(|reactor| reactor.shards.all());
            let data = shards.filter(|local| local.shard.id != ShardId::CONTROL);
            data.map(|local| (local.shard.store.compacted().0, local.shard.store.is_swept())).collect()
        };
        assert_eq!(shards(cluster.member(at)), [(revision as u64, true); 3], "member {at}");
    }
}

#[test]
fn what_is_settled_is_shown_by_all_though_no_time_passes() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let first = cluster.put(leader, "/first") as u64;
    cluster.until("all show it", |cluster| cluster.shown() == [first; 3]);
    for n in 0..20 {
        let revision = cluster.put(leader, &format!("/k{n}")) as u64;
        cluster.settle();
        assert_eq!(cluster.shown(), [revision; 3]);
    }
}
