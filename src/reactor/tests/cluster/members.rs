//! Members that come and go.

use super::super::super::book::Book;
use super::*;
use crate::limits::LEAVERS_MOMENT_MS;
use crate::raft::Role;
use crate::record::MemberRecord;

const ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
const PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";

impl Cluster {
    /// As long as members have to be connected before one may be added.
    pub(super) fn heal(&mut self) {
        self.pass(Duration::from_secs(6));
    }

    pub(super) fn add(&mut self, asked: usize, is_learner: bool) -> proto::MemberAddResponse {
        let at = self.members.len();
        let request = proto::MemberAddRequest { peer_urls: vec![url(at)], is_learner };
        let reply: proto::MemberAddResponse = self.call(asked, ADD, &request).unwrap();
        self.members.push(None);
        reply
    }

    /// Starts the member that was added last, as the answer names the members.
    fn start(&mut self, reactors: u16, reply: &proto::MemberAddResponse) {
        self.start_in(StoreId(100 + self.members.len() as u64), reactors, reply);
    }

    pub(super) fn start_in(&mut self, directory: StoreId, reactors: u16, reply: &proto::MemberAddResponse) {
        let at = self.members.len() - 1;
        let mut founders: Vec<Founder> = reply.members.iter().map(founder).collect();
        founders.sort_by_key(|founder| founder.id);
        let settings = Settings {
            member: MemberId(reply.member.as_ref().unwrap().id),
            name: format!("m{at}"),
            peer_urls: vec![url(at)],
            founders,
            joins: true,
            directory,
            ..settings(1)
        };
        let member = Member::before_its_first_turn(false, reactors, settings);
        self.members[at] = Some(member);
    }

    fn join(&mut self, asked: usize, reactors: u16) -> u64 {
        let reply = self.add(asked, false);
        self.start(reactors, &reply);
        reply.member.unwrap().id
    }

    fn id(&self, at: usize) -> u64 {
        self.members[at].as_ref().unwrap().reactors[0].turn.settings.member.0
    }

    /// Who leads, once somebody does.
    fn serves(&mut self) -> usize {
        self.until("one serves", serving);
        self.leader()
    }

    /// No change is under way, as all members know.
    fn is_at_rest(&self) -> bool {
        let up = self.members.iter().flatten();
        let mut controls = up.flat_map(|member| &member.reactors).map(|reactor| &reactor.turn.control);
        controls.all(|control| control.is_bootstrapped() && control.member_changes().next().is_none())
    }

    /// Who votes and who learns in the groups of a member, which are alike.
    pub(super) fn peers(&self, at: usize) -> (usize, usize) {
        let member = self.members[at].as_ref().unwrap();
        let groups = member.reactors.iter().flat_map(|reactor| reactor.shards.all());
        let peers = groups.map(|local| {
            let peers = local.shard.group().peers();
            (peers.voters.len(), peers.learners.len())
        });
        let all: std::collections::BTreeSet<_> = peers.collect();
        assert_eq!(all.len(), 1, "the groups of a member differ: {all:?}");
        all.into_iter().next().unwrap()
    }

    pub(super) fn list(&mut self, at: usize) -> Vec<(u64, bool)> {
        let request = proto::MemberListRequest { linearizable: true };
        let reply: proto::MemberListResponse =
            self.call(at, "/etcdserverpb.Cluster/MemberList", &request).unwrap();
        reply.members.iter().map(|member| (member.id, member.is_learner)).collect()
    }

    fn remove(&mut self, asked: usize, id: u64) -> Result<proto::MemberRemoveResponse, (u8, String)> {
        self.call(asked, REMOVE, &proto::MemberRemoveRequest { id })
    }

    /// Lets one turn after the other pass.
    fn turn_until(&mut self, holds: impl Fn(&Cluster) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            if !self.turn_all() {
                self.now = self.now + Duration::from_ms(1);
            }
        }
        panic!("it never comes to this\n{}", self.picture());
    }

    /// Whether a member has ended, since it is none any more. It is taken away then.
    fn has_left(&mut self, at: usize) -> bool {
        let halted = self.members[at].as_ref().and_then(|member| member.halted.clone());
        if halted.is_some() {
            self.kill(at);
        }
        halted.as_deref() == Some(crate::peer::REMOVED)
    }
}

fn founder(of: &proto::Member) -> Founder {
    Founder { id: MemberId(of.id), name: of.name.clone(), peer_urls: of.peer_urls.clone() }
}

#[test]
fn one_member_grows_to_three_and_all_have_everything() {
    let mut cluster = Cluster::new(&[2], 3);
    cluster.serves();
    for n in 0..30 {
        cluster.put(0, &format!("{}k{n}", char::from((n * 7 % 128) as u8)));
    }
    let second = cluster.join(0, 1);
    cluster.until("the second votes", |cluster| cluster.is_at_rest() && cluster.peers(0) == (2, 0));
    cluster.until("both show it", |cluster| cluster.shown() == [31; 2]);
    cluster.heal();
    let third = cluster.join(1, 3);
    cluster.until("the third votes", |cluster| cluster.is_at_rest() && cluster.peers(0) == (3, 0));
    cluster.until("all show it", |cluster| cluster.shown() == [31; 3]);
    let mut ids = vec![(7, false), (second, false), (third, false)];
    ids.sort_unstable();
    for at in 0..3 {
        assert_eq!(cluster.list(at), ids);
        assert_eq!(cluster.range(at, false), (31, 30));
    }
    cluster.kill(0);
    let next = cluster.serves();
    let request = proto::PutRequest { key: Bytes::from_static(b"after"), ..Default::default() };
    let reply: proto::PutResponse = cluster.call(next, "/etcdserverpb.KV/Put", &request).unwrap();
    assert_eq!(reply.header.unwrap().revision, 32);
}

/// Whoever can be elected votes in every group.
#[test]
fn a_new_vote_counts_in_the_control_shards_group_last() {
    let mut cluster = Cluster::new(&[2], 3);
    cluster.serves();
    for n in 0..100 {
        cluster.put_value(0, &format!("{}k{n}", char::from((n * 7 % 128) as u8)), vec![n as u8; 20_000]);
    }
    cluster.join(0, 1);
    let votes = |cluster: &Cluster| {
        let member = cluster.members[0].as_ref().unwrap();
        let groups = member.reactors.iter().flat_map(|reactor| reactor.shards.all());
        let voters = groups.map(|local| (local.shard.id, local.shard.group().peers().voters.len()));
        let (control, data): (Vec<_>, Vec<_>) = voters.partition(|(shard, _)| *shard == ShardId::CONTROL);
        (control[0].1, data.iter().map(|(_, voters)| *voters).min().unwrap())
    };
    cluster.turn_until(|cluster| {
        let (control, data) = votes(cluster);
        assert!(control <= data, "{control} vote in the control shard's group, {data} in another");
        control == 2
    });
    cluster.until("no change is left", Cluster::is_at_rest);
}

#[test]
fn a_change_that_nobody_waits_for_any_more_is_carried_on_by_whoever_leads_next() {
    let mut cluster = grown(&[1, 2, 1]);
    let first = cluster.serves();
    let reply = cluster.add(first, false); // It votes once it has been started.
    cluster.kill(first);
    let next = cluster.serves();
    cluster.start(1, &reply);
    cluster.until("it votes", |cluster| cluster.is_at_rest() && cluster.peers(next) == (4, 0));
}

fn grown(reactors: &[u16]) -> Cluster {
    grown_of(reactors, true)
}

fn grown_of(reactors: &[u16], strict_reconfig_check: bool) -> Cluster {
    let mut cluster =
        Cluster::of(&reactors[..1], 3, |settings| Settings { strict_reconfig_check, ..settings });
    cluster.serves();
    for n in 0..20 {
        cluster.put(0, &format!("{}k{n}", char::from((n * 7 % 128) as u8)));
    }
    for (count, more) in reactors.iter().enumerate().skip(1) {
        if count > 1 {
            cluster.heal();
        }
        cluster.join(0, *more);
        let voters = count + 1;
        cluster.until("it votes", |cluster| cluster.is_at_rest() && cluster.peers(0) == (voters, 0));
    }
    cluster.until("all show it", |cluster| cluster.shown() == vec![21; reactors.len()]);
    cluster.heal();
    cluster
}

#[test]
fn a_voter_that_is_not_started_counts_in_no_quorum() {
    let mut cluster = Cluster::new(&[2], 3);
    cluster.serves();
    let reply = cluster.add(0, false);
    assert!(!reply.member.as_ref().unwrap().is_learner);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.put(0, "/alone"), 2);
    assert_eq!(cluster.peers(0), (1, 1));
    let refused = cluster.call::<_, proto::MemberAddResponse>(
        0,
        ADD,
        &proto::MemberAddRequest { peer_urls: vec![url(2)], is_learner: false },
    );
    let text = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!(refused.unwrap_err(), (2, text.to_owned()));
    cluster.start(1, &reply);
    cluster.until("it votes", |cluster| cluster.is_at_rest() && cluster.peers(0) == (2, 0));
    cluster.until("both show it", |cluster| cluster.shown() == [2; 2]);
}

#[test]
fn a_learner_is_promoted_once_it_has_what_the_leader_has() {
    let mut cluster = Cluster::new(&[1], 3);
    cluster.serves();
    let reply = cluster.add(0, true);
    let id = reply.member.as_ref().unwrap().id;
    let promote = proto::MemberPromoteRequest { id };
    let early: Result<proto::MemberPromoteResponse, _> = cluster.call(0, PROMOTE, &promote);
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    assert_eq!(early.unwrap_err(), (9, text.to_owned()));
    for n in 0..20 {
        cluster.put(0, &format!("{}k{n}", char::from((n * 7 % 128) as u8)));
    }
    cluster.start(2, &reply);
    cluster.until("it has all", |cluster| cluster.shown() == [21; 2]);
    assert_eq!(cluster.peers(0), (1, 1));
    assert_eq!(cluster.list(0), ids_of(&[(7, false), (id, true)]));
    cluster.pass(Duration::from_ms(200));
    let promoted: proto::MemberPromoteResponse = cluster.call(0, PROMOTE, &promote).unwrap();
    assert_eq!(promoted.members.len(), 2);
    assert_eq!(cluster.peers(0), (2, 0));
    let again: Result<proto::MemberPromoteResponse, _> = cluster.call(0, PROMOTE, &promote);
    assert_eq!(again.unwrap_err().1, "etcdserver: can only promote a learner member");
}

fn ids_of(ids: &[(u64, bool)]) -> Vec<(u64, bool)> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

#[test]
fn who_is_removed_ends_and_the_others_go_on_without_it() {
    for reactors in [&[2, 1][..], &[1, 2, 1], &[1, 1, 2]] {
        let mut cluster = grown(reactors);
        let leader = cluster.serves();
        let gone = (leader + 1) % reactors.len();
        let id = cluster.id(gone);
        let reply = cluster.remove(leader, id).unwrap();
        assert_eq!(reply.members.len(), reactors.len() - 1);
        assert_eq!(cluster.peers(leader), (reactors.len() - 1, 0));
        cluster.until("it ends", |cluster| cluster.members[gone].as_ref().unwrap().halted.is_some());
        assert!(cluster.has_left(gone));
        assert_eq!(cluster.remove(leader, id).unwrap_err(), (5, "etcdserver: member not found".into()));
        let request = proto::PutRequest { key: Bytes::from_static(b"after"), ..Default::default() };
        let put: proto::PutResponse = cluster.call(leader, "/etcdserverpb.KV/Put", &request).unwrap();
        assert_eq!(put.header.unwrap().revision, 22);
    }
}

#[test]
fn a_leader_is_removed_by_another_one_and_whoever_asked_hears_of_it() {
    for (reactors, asks_itself) in [(&[2, 1][..], true), (&[1, 2, 1], true), (&[1, 1, 2], false)] {
        let mut cluster = grown(reactors);
        let leader = cluster.serves();
        let asked = if asks_itself { leader } else { (leader + 1) % reactors.len() };
        let id = cluster.id(leader);
        let reply = cluster.remove(asked, id).unwrap();
        assert_eq!(reply.members.len(), reactors.len() - 1);
        cluster.until("it ends", |cluster| cluster.members[leader].as_ref().unwrap().halted.is_some());
        assert!(cluster.has_left(leader));
        let next = cluster.serves();
        assert_eq!(cluster.peers(next), (reactors.len() - 1, 0));
        let request = proto::PutRequest { key: Bytes::from_static(b"after"), ..Default::default() };
        let put: proto::PutResponse = cluster.call(next, "/etcdserverpb.KV/Put", &request).unwrap();
        assert_eq!(put.header.unwrap().revision, 22);
    }
}

#[test]
fn who_leaves_votes_for_others_where_no_leader_is_heard_and_stands_for_nothing() {
    for leaver in [1, 2] {
        let mut cluster = grown(&[1, 1, 1]);
        let leader = cluster.serves();
        let leaver = (leader + leaver) % 3;
        let id = cluster.id(leaver);
        cluster.member(leader).ask(REMOVE, &proto::MemberRemoveRequest { id });
        let control = |cluster: &Cluster, at: usize| {
            let reactor = &cluster.members[at].as_ref().unwrap().reactors[0];
            let role = reactor.shards.get(ShardId::CONTROL).unwrap().shard.group().role();
            (reactor.turn.control.leaves(MemberId(id)), role)
        };
        cluster.turn_until(|cluster| control(cluster, leader).0);
        // The others hear of the intent, and the leader does not hear that they have what comes behind it.
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        cluster.held = others.map(|other| (other, leader)).into();
        cluster.turn_until(|cluster| others.iter().all(|at| control(cluster, *at).0));
        cluster.cut = others.map(|other| (leader, other)).into();
        let next = others.into_iter().find(|at| *at != leaver).unwrap();
        cluster.turn_until(|cluster| {
            assert_eq!(control(cluster, leaver).1, Role::Follower, "it stands for nothing");
            control(cluster, next).1 == Role::Leader
        });
        cluster.cut.clear();
        cluster.release();
        cluster.until("it ends", |cluster| cluster.members[leaver].as_ref().unwrap().halted.is_some());
        assert!(cluster.has_left(leaver));
        let next = cluster.serves();
        assert_eq!(cluster.peers(next), (2, 0));
    }
}

#[test]
fn the_clients_of_who_leaves_are_answered_and_sent_elsewhere() {
    let mut cluster = grown(&[1, 2, 1]);
    let leader = cluster.serves();
    let leaver = (leader + 1) % 3;
    let id = cluster.id(leaver);
    // What it says to the leader is on its way for a while.
    cluster.held = vec![(leaver, leader)];
    let put = proto::PutRequest { key: Bytes::from_static(b"before"), ..Default::default() };
    let put = cluster.member(leaver).ask("/etcdserverpb.KV/Put", &put).number();
    cluster.settle();
    let removal = cluster.member(leader).ask(REMOVE, &proto::MemberRemoveRequest { id }).number();
    cluster.pass(Duration::from_ms(LEAVERS_MOMENT_MS / 2));
    let more = cluster.member(leaver).client.call("/etcdserverpb.Maintenance/Status", &[], &[]);
    assert!(more.is_none(), "its clients have heard that the connection ends");
    cluster.release();
    let put: proto::PutResponse = cluster.answer(leaver, put).unwrap();
    assert_eq!(put.header.unwrap().revision, 22);
    let removal: proto::MemberRemoveResponse = cluster.answer(leader, removal).unwrap();
    assert_eq!(removal.members.len(), 2);
    cluster.until("it ends", |cluster| cluster.members[leaver].as_ref().unwrap().halted.is_some());
}

/// What a log says of those who join is taken back where another leader's log takes its place.
#[test]
fn who_is_heard_of_again_keeps_its_links() {
    let mut cluster = Cluster::new(&[1], 3);
    cluster.serves();
    let joining = |id| proto::Member { id, peer_urls: vec![url(id as usize - 7)], ..Default::default() };
    let record = MemberRecord {
        id: 8,
        directory: 0,
        raft_ids: vec![],
        name: String::new(),
        peer_urls: vec![url(1)],
        client_urls: vec![],
        is_learner: true,
    };
    let hears = |cluster: &mut Cluster, as_of, members: Vec<MemberRecord>| {
        cluster.member(0).reactors[0].turn.book = Arc::new(Book::new(Index(as_of), members));
        cluster.settle();
    };
    let has_lane = |cluster: &Cluster| {
        let figures = cluster.members[0].as_ref().unwrap().reactors[0].peers.figures();
        figures.get(&MemberId(8)).is_some_and(|figures| figures.is_active)
    };
    hears(&mut cluster, 1_000, vec![record.clone()]);
    cluster.members.push(None);
    let members = vec![joining(7), joining(8)];
    cluster.start(1, &proto::MemberAddResponse { header: None, member: Some(joining(8)), members });
    cluster.until("they are connected", has_lane);
    hears(&mut cluster, 1_001, vec![]);
    hears(&mut cluster, 1_002, vec![record]);
    cluster.pass(Duration::from_secs(1));
    assert!(has_lane(&cluster));
}

#[test]
fn the_only_member_stays() {
    let mut cluster = Cluster::new(&[1], 2);
    cluster.serves();
    let text = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!(cluster.remove(0, 7).unwrap_err(), (2, text.to_owned()));
    assert_eq!(cluster.put(0, "/still"), 2);
}

#[test]
fn changes_that_are_asked_for_at_once_come_one_after_the_other() {
    let mut cluster = grown(&[1, 1, 1]);
    let leader = cluster.serves();
    let urls = |at: usize| vec![format!("http://elsewhere{at}:2380")];
    let asked: Vec<u32> = (0..3)
        .map(|at| {
            let request = proto::MemberUpdateRequest { id: cluster.id(at), peer_urls: urls(at) };
            cluster.member(leader).ask("/etcdserverpb.Cluster/MemberUpdate", &request).number()
        })
        .collect();
    for stream in asked {
        let reply: proto::MemberUpdateResponse = cluster.answer(leader, stream).unwrap();
        assert_eq!(reply.members.len(), 3);
    }
    let request = proto::MemberListRequest { linearizable: true };
    let reply: proto::MemberListResponse =
        cluster.call(leader, "/etcdserverpb.Cluster/MemberList", &request).unwrap();
    assert!(reply.members.iter().all(|member| member.peer_urls[0].contains("elsewhere")), "{reply:?}");
}

/// It was away when a member joined that leads now.
#[test]
fn who_lags_behind_a_change_follows_a_leader_that_came_with_it() {
    let mut cluster = grown_of(&[1, 1, 1], false);
    cluster.pass(Duration::from_secs(1));
    let leader = cluster.serves();
    let lags = (leader + 1) % 3;
    let other = 3 - leader - lags;
    cluster.cut = vec![(lags, leader), (lags, other), (lags, 3)];
    cluster.pass(Duration::from_secs(3));
    let fourth = cluster.members.len();
    let reply = cluster.add(leader, true);
    cluster.start(1, &reply);
    let id = reply.member.unwrap().id;
    let leading = cluster.serves();
    cluster.until("it has all", |cluster| cluster.shown()[fourth] == 21);
    cluster.pass(Duration::from_secs(1));
    let promote = proto::MemberPromoteRequest { id };
    let _: proto::MemberPromoteResponse = cluster.call(leading, PROMOTE, &promote).unwrap();
    let move_to = proto::MoveLeaderRequest { target_id: id };
    let _: proto::MoveLeaderResponse =
        cluster.call(leading, "/etcdserverpb.Maintenance/MoveLeader", &move_to).unwrap();
    cluster.until("the new one leads", |cluster| cluster.leaders() == [fourth]);
    cluster.cut.clear();
    let request = proto::PutRequest { key: Bytes::from_static(b"after"), ..Default::default() };
    let _: proto::PutResponse = cluster.call(fourth, "/etcdserverpb.KV/Put", &request).unwrap();
    cluster.until("who was away has it", |cluster| cluster.shown() == [22; 4]);
}

/// It has the least id, so that the others would dial it, and look for it no more.
#[test]
fn a_member_that_was_removed_while_it_was_away_finds_out() {
    let mut cluster = grown_of(&[1, 1, 1], false);
    let least = (0..3).min_by_key(|at| cluster.id(*at)).unwrap();
    let others = [(least + 1) % 3, (least + 2) % 3];
    let id = cluster.id(least);
    cluster.cut = others.map(|other| (least, other)).to_vec();
    cluster.until("another one leads", |cluster| {
        let mut leaders = cluster.leaders();
        leaders.retain(|leader| *leader != least);
        !leaders.is_empty()
    });
    let asked = others[0];
    cluster.remove(asked, id).unwrap();
    cluster.cut.clear();
    cluster.until("it ends", |cluster| cluster.members[least].as_ref().unwrap().halted.is_some());
    assert!(cluster.has_left(least));
}

/// Packets to it are dropped, so no connection breaks.
#[test]
fn a_member_that_answers_nothing_counts_as_gone_after_two_election_timeouts_at_most() {
    let mut cluster = grown(&[1, 1, 1]);
    let leader = cluster.serves();
    let [silent, up] = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.cut = vec![(silent, leader), (silent, up)];
    cluster.pass(Duration(2 * settings(1).election_timeout.0));
    let id = cluster.id(up);
    assert_eq!(cluster.remove(leader, id).unwrap_err(), (14, "etcdserver: unhealthy cluster".into()));
    let id = cluster.id(silent);
    assert_eq!(cluster.remove(leader, id).unwrap().members.len(), 2);
}

/// As etcd's client is told (etcd's order of the checks).
#[test]
fn what_cannot_be_changed_is_refused() {
    let mut cluster = Cluster::new(&[1, 1, 1], 2);
    let leader = cluster.serves();
    let add = |url: &str, is_learner| proto::MemberAddRequest { peer_urls: vec![url.into()], is_learner };
    let refused = |cluster: &mut Cluster, request: &proto::MemberAddRequest| {
        cluster.call::<_, proto::MemberAddResponse>(leader, ADD, request).unwrap_err()
    };
    let fresh = add("http://new:2380", false);
    assert_eq!(refused(&mut cluster, &fresh), (14, "etcdserver: unhealthy cluster".into()));
    cluster.heal();
    let taken = add("http://m1:2380", false);
    assert_eq!(refused(&mut cluster, &taken), (9, "etcdserver: Peer URLs already exists".into()));
    let bad = add("foo", true);
    assert_eq!(refused(&mut cluster, &bad), (3, "etcdserver: given member URLs are invalid".into()));
    let _: proto::MemberAddResponse = cluster.call(leader, ADD, &add("http://l:2380", true)).unwrap();
    let second = add("http://l2:2380", true);
    assert_eq!(refused(&mut cluster, &second), (9, "etcdserver: too many learner members in cluster".into()));
    let unknown = proto::MemberPromoteRequest { id: 5 };
    let error = cluster.call::<_, proto::MemberPromoteResponse>(leader, PROMOTE, &unknown).unwrap_err();
    assert_eq!(error, (5, "etcdserver: member not found".into()));
    let voter = proto::MemberPromoteRequest { id: 7 };
    let error = cluster.call::<_, proto::MemberPromoteResponse>(leader, PROMOTE, &voter).unwrap_err();
    assert_eq!(error, (9, "etcdserver: can only promote a learner member".into()));
    cluster.kill((leader + 1) % 3);
    let up = (leader + 2) % 3;
    let id = cluster.id(up);
    assert_eq!(cluster.remove(leader, id).unwrap_err(), (14, "etcdserver: unhealthy cluster".into()));
    let down = 7 + ((leader + 1) % 3) as u64;
    assert_eq!(cluster.remove(leader, down).unwrap().members.len(), 3);
}
