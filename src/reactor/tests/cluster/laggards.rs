//! Followers that lack what only the leader's log on disk has.

use super::*;
use crate::io::Paths;
use crate::limits::{STATE_LINK_IDLE_SECS, STATE_PATIENCE_SECS};
use crate::mvcc::Budget;
use crate::peer::PeerMessage;
use crate::reactor::turn::ToPeers;
use crate::types::KeyRange;

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
fn a_follower_catches_up_behind_frames_that_are_read_in_pieces() {
    let (mut cluster, leader, _) = cluster_with_a_laggard(|settings| settings);
    (0..6).for_each(|n| _ = cluster.put_value(leader, &format!("/k{n}"), vec![n; 1_200_000]));
    cluster.cut.clear();
    cluster.until("all show it", |cluster| cluster.shown() == [7; 3]);
    assert!(cluster.member(leader).pieces_read > 6, "{}", cluster.member(leader).pieces_read);
}

fn cluster_that_keeps_no_log() -> (Cluster, usize, usize) {
    cluster_with_a_laggard(|settings| {
        let bounds = crate::limits::Bounds { laggard_log_bytes_max: 0, ..settings.bounds };
        Settings { bounds, ..settings }
    })
}

/// Each shard's keys, with the revisions of their last changes.
pub(super) type Held = Vec<(ShardId, Vec<(Vec<u8>, Revision)>)>;

/// What the shards of a member hold, as far as it shows it.
pub(super) fn held(member: &Member) -> Held {
    let locals = member.reactors.iter().flat_map(|reactor| reactor.shards.all());
    let mut held: Vec<_> = locals
        .map(|local| {
            let store = &local.shard.store;
            let all = store.range(&KeyRange::everything(), store.settled(), None, Budget::UNBOUNDED);
            let kvs = all.kvs.iter().map(|kv| (kv.key.to_vec(), kv.mod_revision));
            (local.shard.id, kvs.collect())
        })
        .collect();
    held.sort();
    held
}

fn paths(member: &Member) -> Paths {
    let mut sum = Paths::default();
    member.reactors.iter().for_each(|reactor| sum.add(&reactor.paths()));
    sum
}

fn on_their_way(member: &Member) -> u64 {
    member.reactors.iter().map(|reactor| reactor.counters_now().states_on_their_way).sum()
}

#[test]
fn a_follower_behind_all_logs_is_given_the_state() {
    let (mut cluster, leader, away) = cluster_that_keeps_no_log();
    let before = log_begins(&mut cluster, leader);
    write_much(&mut cluster, leader, 300);
    assert!(log_begins(&mut cluster, leader) > before, "nothing is kept for the follower");
    let (least, begun) = (cluster.shown()[away], cluster.now);
    cluster.cut.clear();
    cluster.until("all show it", |cluster| {
        let shown = cluster.shown()[away];
        let member = cluster.members[away].as_ref().unwrap();
        let serves = held(member).iter().map(|(_, kvs)| kvs.len()).sum::<usize>();
        assert!(shown == least || shown >= 301, "nothing between is shown: {shown}");
        assert!(serves as u64 >= shown - 1, "what is shown is served: {serves} of {shown}");
        cluster.shown() == [301; 3]
    });
    assert_eq!(held(cluster.member(away)), held(cluster.member(leader)));
    assert_eq!(on_their_way(cluster.member(away)), 0);
    let took = cluster.now.since(begun);
    assert!(took < Duration::from_secs(2), "no block waits for the next question: {took:?}");
    let installed = paths(cluster.member(away)).state_installed;
    assert!(installed > 0 && paths(cluster.member(leader)).state_given >= installed, "{installed}");
    // It goes on by the log, and may lead.
    write_much(&mut cluster, leader, 20);
    cluster.until("all show it", |cluster| cluster.shown() == [321; 3]);
    let third = 3 - leader - away;
    cluster.kill(third);
    cluster.put_value(leader, "/now/with/its/help", vec![1]);
    cluster.until("both show it", |cluster| cluster.shown()[away] == 322);
    assert_eq!(held(cluster.member(away)), held(cluster.member(leader)));
}

/// The member of two reactors is away; nothing is kept for it, in memory neither.
fn cluster_with_two_reactors_away() -> (Cluster, usize, usize) {
    let (mut cluster, leader, _) = cluster_with_a_laggard(|settings| {
        let bounds = crate::limits::Bounds { laggard_log_bytes_max: 0, held_bytes_max: 0, ..settings.bounds };
        Settings { bounds, ..settings }
    });
    let away = 1;
    cluster.cut.clear();
    cluster.until("all show it", |cluster| cluster.shown() == [1; 3]);
    if leader == away {
        let first = proto::MoveLeaderRequest { target_id: 7 };
        let _: proto::MoveLeaderResponse =
            cluster.call(leader, "/etcdserverpb.Maintenance/MoveLeader", &first).unwrap();
    }
    cluster.until("another leads", |cluster| cluster.leaders().iter().any(|at| *at != away));
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    cluster.cut = vec![(away, 0), (away, 2)];
    (cluster, leader, away)
}

/// The control state of another member is taken over at once, and may name a compaction that is not reached here.
#[test]
fn what_a_member_shows_is_read_though_it_knows_of_a_later_compaction() {
    let (mut cluster, leader, away) = cluster_with_two_reactors_away();
    write_much(&mut cluster, leader, 150);
    let compact = proto::CompactionRequest { revision: 140, physical: true };
    let _: proto::CompactionResponse = cluster.call(leader, "/etcdserverpb.KV/Compact", &compact).unwrap();
    write_much(&mut cluster, leader, 150);
    let least = cluster.shown()[away];
    cluster.member(away).lane_stands = true;
    cluster.cut.clear();
    let knows =
        |member: &Member| member.reactors.iter().all(|of| of.turn.control.compacted() == Revision(140));
    for _ in 0..1_000 {
        cluster.pass(Duration::from_ms(10));
        if knows(cluster.member(away)) {
            break;
        }
        cluster.member(away).take_a_bulk_step(1);
    }
    assert!(knows(cluster.member(away)));
    assert_eq!(cluster.shown()[away], least);
    assert_eq!(cluster.range(away, true), (least as i64, least as usize - 1));
    let hash = proto::HashKvRequest { revision: 0 };
    let hash: proto::HashKvResponse = cluster.call(away, "/etcdserverpb.Maintenance/HashKV", &hash).unwrap();
    assert_eq!((hash.header.unwrap().revision, hash.compact_revision), (least as i64, -1));
    cluster.member(away).lane_stands = false;
    while cluster.member(away).take_a_bulk_step(2) {}
    cluster.until("all show it", |cluster| cluster.shown() == [301; 3]);
}

/// So much happens to leases that who is away lacks the control log.
fn grant_much(cluster: &mut Cluster, leader: usize) {
    for id in 1..=1_000 {
        let grant = proto::LeaseGrantRequest { ttl: 6_000, id };
        let _: proto::LeaseGrantResponse =
            cluster.call(leader, "/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    }
}

/// Who is away is back, and given the control state.
fn take_control_state(cluster: &mut Cluster, away: usize) {
    cluster.cut.clear();
    let knows = |cluster: &Cluster| {
        let member = cluster.members[away].as_ref().unwrap();
        member.reactors.iter().all(|of| of.turn.control.leases.len() == 1_000)
    };
    cluster.until("its control state is there", knows);
}

/// Nothing more is settled, so that nothing else moves what is shown.
#[test]
fn a_compaction_that_comes_with_a_control_state_takes_hold_of_what_is_shown_already() {
    let (mut cluster, leader, away) = cluster_with_two_reactors_away();
    cluster.cut.clear();
    let revision = (0..20).map(|n| cluster.put(leader, &format!("k{}", n % 10))).last().unwrap();
    cluster.until("all show it", |cluster| cluster.shown() == [revision as u64; 3]);
    cluster.cut = vec![(away, 0), (away, 2)];
    let compact = proto::CompactionRequest { revision, physical: true };
    let _: proto::CompactionResponse = cluster.call(leader, "/etcdserverpb.KV/Compact", &compact).unwrap();
    let before = paths(cluster.member(away)).state_installed;
    grant_much(&mut cluster, leader);
    take_control_state(&mut cluster, away);
    assert!(paths(cluster.member(away)).state_installed > before, "the log is gone");
    cluster.pass(Duration::from_secs(1));
    let hash = proto::HashKvRequest { revision: 0 };
    let hash: proto::HashKvResponse = cluster.call(away, "/etcdserverpb.Maintenance/HashKV", &hash).unwrap();
    assert_eq!((hash.header.unwrap().revision, hash.compact_revision), (revision, revision));
}

/// It was heard of while the member was away, and another has raised the alarm meanwhile.
#[test]
fn an_alarm_that_comes_with_a_control_state_and_is_disarmed_is_not_raised_again() {
    const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
    let (mut cluster, leader, away) = cluster_with_two_reactors_away();
    let member_id = 7 + away as u64;
    let Reactor { turn, leader: told, .. } = &mut cluster.member(away).reactors[0];
    told.as_mut().unwrap().hear_no_space(turn);
    let [raise, disarm] = [1, 2].map(|action| proto::AlarmRequest { action, member_id, alarm: 1 });
    grant_much(&mut cluster, leader);
    let _: proto::AlarmResponse = cluster.call(leader, ALARM, &raise).unwrap();
    take_control_state(&mut cluster, away);
    let _: proto::AlarmResponse = cluster.call(leader, ALARM, &disarm).unwrap();
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.put(away, "a"), 2);
}

/// Each block is written before the next is asked for, and both reactors take a state at the same time.
#[test]
fn reactors_of_a_member_are_given_their_states_one_after_the_other() {
    let (mut cluster, leader, away) = cluster_with_two_reactors_away();
    for n in 0..300 {
        let key = format!("{}k{n}", ["/registry/pods/", "a", "/registry/leases/", "z"][n % 4]);
        cluster.put_value(leader, &key, vec![n as u8; 20_000]);
    }
    cluster.member(away).lane_stands = true;
    cluster.cut.clear();
    let mut steps = 0;
    while cluster.shown()[away] < 301 && steps < 1_000 {
        cluster.pass(Duration::from_ms(20));
        steps += usize::from(cluster.member(away).take_a_bulk_step(2));
    }
    assert_eq!(cluster.shown()[away], 301, "after {steps} steps");
    let begun = |line: &&LogLine| line.message.starts_with("giving a member the state");
    let begun = cluster.member(leader).log_lines.iter().filter(begun).count() as u64;
    let installed = paths(cluster.member(away)).state_installed;
    assert!(installed > 1 && begun == installed, "nothing is thrown away: {begun} for {installed}");
}

#[test]
fn a_member_whose_disk_hangs_while_it_takes_a_state_holds_up_no_other() {
    let mut cluster = Cluster::of(&[1; 5], 3, |settings| {
        let bounds = crate::limits::Bounds { laggard_log_bytes_max: 0, ..settings.bounds };
        Settings { bounds, ..settings }
    });
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let (hung, away) = ((leader + 1) % 5, (leader + 2) % 5);
    let cut_off = |of: usize| (0..5).filter(move |other| *other != of).map(move |other| (of, other));
    cluster.cut = cut_off(hung).chain(cut_off(away)).collect();
    write_much(&mut cluster, leader, 300);
    cluster.member(hung).lane_stands = true;
    cluster.cut = cut_off(away).collect();
    let gives = |member: &Member| {
        member.log_lines.iter().any(|line| line.message.starts_with("giving a member the state"))
    };
    for _ in 0..1_000 {
        cluster.pass(Duration::from_ms(10));
        if gives(cluster.member(leader)) {
            break;
        }
        cluster.member(hung).take_a_bulk_step(2); // its file is made
    }
    assert!(gives(cluster.member(leader)), "it is given a state");
    cluster.cut.clear();
    let since = cluster.now;
    cluster.until("the other shows all", |cluster| cluster.shown()[away] == 301);
    assert!(
        cluster.now < since + Duration::from_secs(STATE_PATIENCE_SECS),
        "{:?} since {since:?}",
        cluster.now
    );
    assert!(cluster.shown()[hung] < 301, "its disk hangs");
    cluster.member(hung).lane_stands = false;
    while cluster.member(hung).take_a_bulk_step(2) {}
    cluster.until("all show it", |cluster| cluster.shown() == [301; 5]);
}

#[test]
fn a_member_that_gives_what_is_no_state_is_named_and_asked_again() {
    let (mut cluster, leader, away) = cluster_that_keeps_no_log();
    write_much(&mut cluster, leader, 300);
    cluster.cut.clear();
    let begins = "taking the state of a shard: no log has what is missing here";
    let takes = |member: &Member| member.log_lines.iter().any(|line| line.message == begins);
    for _ in 0..1_000 {
        if takes(cluster.member(away)) {
            break;
        }
        cluster.turn_all();
        cluster.now = cluster.now + Duration::from_ms(1);
    }
    assert!(takes(cluster.member(away)), "it is given a state");
    assert!(on_their_way(cluster.member(away)) > 0);
    let ends: Vec<(End, End)> = cluster.ends.iter().map(|(end, other)| (*end, *other)).collect();
    let links = ends.iter().filter(|(end, other)| (end.member, other.member) == (away, leader));
    let giver = MemberId(7 + leader as u64);
    for (End { conn, .. }, _) in links {
        let reactor = &mut cluster.member(away).reactors[usize::from(conn.reactor.0)];
        for (shard, file) in (0..8).flat_map(|shard| (0..50).map(move |file| (ShardId(shard), file))) {
            let zeros = Bytes::from(vec![0; 4096]);
            reactor.storage.on_state_block(&mut reactor.turn, (giver, *conn), (shard, file, 0), false, zeros);
        }
    }
    cluster.until("all show it", |cluster| cluster.shown() == [301; 3]);
    let lines = &cluster.member(away).log_lines;
    let refused = lines.iter().filter(|line| line.message == "closed the link to a peer");
    let words: Vec<String> = refused.map(|line| format!("{line:?}")).collect();
    let names =
        |line: &String| line.contains(&format!("{:x}", giver.0)) && line.contains("the state of shard");
    assert!(words.iter().any(names), "{words:?}");
    assert_eq!(held(cluster.member(away)), held(cluster.member(leader)));
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
    // The state takes its place.
    assert_eq!(cluster.shown(), [301; 3]);
    assert!(paths(cluster.member(away)).state_installed > 0);
    assert_eq!(held(cluster.member(away)), held(cluster.member(leader)));
}

/// With the process it would be gone, and something older would be shown.
#[test]
fn a_state_is_not_shown_before_the_log_says_durably_that_it_begins_anew_behind_it() {
    let (mut cluster, leader, away) = cluster_that_keeps_no_log();
    write_much(&mut cluster, leader, 300);
    let least = cluster.shown()[away];
    cluster.member(away).lane_stands = true;
    cluster.cut.clear();
    let mut unsaid = 0;
    for _ in 0..2_000 {
        cluster.pass(Duration::from_ms(20));
        if cluster.shown()[away] == 301 {
            break;
        }
        let installed = paths(cluster.member(away)).state_installed;
        cluster.member(away).disk_stands = true;
        cluster.member(away).take_a_bulk_step(2);
        cluster.pass(Duration::from_ms(20));
        if paths(cluster.member(away)).state_installed > installed {
            assert_eq!(cluster.shown()[away], least);
            unsaid += 1;
        }
        cluster.member(away).write_all();
    }
    assert!(unsaid > 0, "a state has come");
    assert_eq!(cluster.shown(), [301; 3]);
    assert_eq!(held(cluster.member(away)), held(cluster.member(leader)));
}

/// Its file would be removed while it is being made.
#[test]
fn a_state_waits_for_the_step_of_the_shards_own_checkpoint_that_is_on_its_way() {
    let mut cluster = Cluster::of(&[1, 1, 1], 3, |settings| {
        let bounds = crate::limits::Bounds { laggard_log_bytes_max: 0, held_bytes_max: 0, ..settings.bounds };
        Settings { bounds, ..settings }
    });
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let away = (leader + 1) % 3;
    let shard = cluster.member(away).reactors[0].turn.router().shard_of(b"/k");
    let is_of_shard = |name: &String| name.starts_with(&format!("{:04}-", shard.0));
    cluster.member(away).lane_stands = true;
    let mut values = 0;
    while !cluster.member(away).checkpoint_bytes.keys().any(is_of_shard) {
        cluster.member(away).take_a_bulk_step(1);
        values += 1;
        cluster.put_value(leader, &format!("/k{values}"), vec![7; 20_000]);
        cluster.pass(Duration::from_ms(10));
    }
    let (_, own) = *cluster.member(away).undone.last().expect("its blocks are on their way");
    cluster.cut = (0..3).filter(|other| *other != away).map(|other| (away, other)).collect();
    (0..300).for_each(|n| _ = cluster.put_value(leader, &format!("/k{n}"), vec![8; 20_000]));
    let least = cluster.shown()[away];
    cluster.cut.clear();
    for _ in 0..1_000 {
        cluster.pass(Duration::from_ms(10));
        let member = cluster.member(away);
        if let Some(place) = member.undone.iter().position(|(_, job)| *job != own) {
            let (id, job) = member.undone.remove(place);
            member.reactors[id].step(member.now, Input::Bulk { job, done: BulkDone::Done });
        }
    }
    assert!(on_their_way(cluster.member(away)) > 0, "it has come");
    assert_eq!(cluster.shown()[away], least);
    cluster.member(away).lane_stands = false;
    while cluster.member(away).take_a_bulk_step(1) {}
    cluster.until("all show it", |cluster| cluster.shown() == [values + 301; 3]);
    assert_eq!(held(cluster.member(away)), held(cluster.member(leader)));
}

/// A member that takes a state, of which only so many steps of its disk are done.
fn cluster_in_the_middle_of_a_state(
    steps: usize,
    settings: impl Fn(Settings) -> Settings,
) -> (Cluster, usize, usize) {
    let (mut cluster, leader, away) = cluster_with_a_laggard(|of| {
        let bounds = crate::limits::Bounds { laggard_log_bytes_max: 0, ..of.bounds };
        settings(Settings { bounds, ..of })
    });
    write_much(&mut cluster, leader, 300);
    cluster.member(away).lane_stands = true;
    cluster.cut.clear();
    let mut done = 0;
    for _ in 0..1_000 {
        cluster.pass(Duration::from_ms(20));
        let takes = link_to_giver(&mut cluster, away, leader).is_some();
        if takes && done == steps {
            return (cluster, leader, away);
        }
        done += usize::from(takes && cluster.member(away).take_a_bulk_step(2));
    }
    panic!("no state is taken\n{}", cluster.picture());
}

/// The connection by which a member takes a state.
fn link_to_giver(cluster: &mut Cluster, away: usize, leader: usize) -> Option<End> {
    let giver = MemberId(7 + leader as u64);
    let mut links = cluster.member(away).reactors.iter().map(|reactor| reactor.peers.link_to_giver(giver));
    links.find_map(|conn| Some(End { member: away, conn: conn? }))
}

fn states_begun(cluster: &mut Cluster, leader: usize) -> u64 {
    let begins = |line: &&LogLine| line.message.starts_with("giving a member the state");
    cluster.member(leader).log_lines.iter().filter(begins).count() as u64
}

#[test]
fn a_state_has_a_connection_of_its_own_which_closes_when_none_is_taken() {
    let (mut cluster, leader, away) = cluster_in_the_middle_of_a_state(2, |settings| settings);
    let link = link_to_giver(&mut cluster, away, leader).expect("a state is taken");
    assert_eq!(cluster.ends[&link].member, leader);
    cluster.member(away).lane_stands = false;
    while cluster.member(away).take_a_bulk_step(2) {}
    cluster.until("all show it", |cluster| cluster.shown() == [301; 3]);
    cluster.pass(Duration::from_secs(STATE_LINK_IDLE_SECS + 1));
    assert_eq!(link_to_giver(&mut cluster, away, leader), None);
    assert!(!cluster.ends.contains_key(&link), "it is closed");
    assert!(cluster.picture().contains("states []"), "{}", cluster.picture());
    cluster.put(away, "a");
    cluster.until("all show it", |cluster| cluster.shown() == [302; 3]);
}

#[test]
fn a_state_goes_on_where_it_was_when_its_connection_breaks() {
    let (mut cluster, leader, away) = cluster_in_the_middle_of_a_state(4, |settings| settings);
    for _ in 0..3 {
        let link = link_to_giver(&mut cluster, away, leader).expect("a state is taken");
        cluster.hang_up(link);
        cluster.pass(Duration::from_ms(100));
        assert!(link_to_giver(&mut cluster, away, leader).is_some_and(|now| now != link), "there is another");
        cluster.member(away).take_a_bulk_step(2);
        cluster.pass(Duration::from_ms(100));
    }
    cluster.member(away).lane_stands = false;
    while cluster.member(away).take_a_bulk_step(2) {}
    cluster.until("all show it", |cluster| cluster.shown() == [301; 3]);
    let (begun, paths) = (states_begun(&mut cluster, leader), paths(cluster.member(away)));
    assert_eq!((begun, paths.state_given_up), (paths.state_installed, 0), "none began anew");
    assert_eq!(held(cluster.member(away)), held(cluster.member(leader)));
}

/// Else it would pass what was said before it, or hold up what comes behind.
#[test]
fn what_is_no_state_is_not_heard_on_the_connection_for_states() {
    let (mut cluster, leader, away) = cluster_in_the_middle_of_a_state(2, |settings| settings);
    let link = link_to_giver(&mut cluster, away, leader).expect("a state is taken");
    let reactor = &mut cluster.member(away).reactors[usize::from(link.conn.reactor.0)];
    let said = reactor.peers.tell(ToPeers::Asker(link.conn), ShardId::CONTROL, PeerMessage::NoSpace);
    assert_eq!(said, Some(link.conn));
    cluster.pass(Duration::from_ms(200));
    assert!(!cluster.ends.contains_key(&link), "it ends");
    let lines = &cluster.member(leader).log_lines;
    assert!(lines.iter().any(|line| format!("{line:?}").contains("for another kind of link")), "{lines:?}");
    cluster.member(away).lane_stands = false;
    while cluster.member(away).take_a_bulk_step(2) {}
    cluster.until("all show it", |cluster| cluster.shown() == [301; 3]);
}

#[test]
fn writes_are_paced_by_what_is_taken_of_a_state_where_the_log_behind_it_is_long() {
    let (mut cluster, leader, away) = cluster_in_the_middle_of_a_state(6, |settings| {
        let bounds =
            crate::limits::Bounds { paced_log_bytes: 0, paced_bytes_per_sec: 100_000, ..settings.bounds };
        Settings { bounds, ..settings }
    });
    // Nothing more is taken: what was is written at once, and then some each second.
    let begun = cluster.now;
    (0..20).for_each(|n| _ = cluster.put_value(leader, &format!("/k{n}"), vec![1; 20_000]));
    let took = cluster.now.since(begun);
    assert!(took > Duration::from_ms(500), "{took:?}");
    assert!(paths(cluster.member(leader)).log_paced > 0);
    // What was taken is written at once.
    cluster.member(away).take_a_bulk_step(2);
    cluster.pass(Duration::from_ms(20));
    cluster.member(away).take_a_bulk_step(2);
    cluster.pass(Duration::from_ms(20));
    let begun = cluster.now;
    (0..2).for_each(|n| _ = cluster.put_value(leader, &format!("/k{n}"), vec![2; 20_000]));
    assert!(cluster.now.since(begun) < Duration::from_ms(100), "{:?}", cluster.now.since(begun));
    cluster.member(away).lane_stands = false;
    while cluster.member(away).take_a_bulk_step(2) {}
    cluster.until("all show it", |cluster| cluster.shown() == [323; 3]);
    cluster.pass(Duration::from_secs(1));
    let begun = cluster.now;
    (0..50).for_each(|n| _ = cluster.put_value(leader, &format!("/k{n}"), vec![3; 20_000]));
    assert!(cluster.now.since(begun) < Duration::from_secs(1), "nobody takes anything any more");
    assert_eq!(states_begun(&mut cluster, leader), paths(cluster.member(away)).state_installed);
}

#[test]
fn what_is_kept_for_followers_goes_before_a_full_disk_is_an_alarm() {
    let (mut cluster, leader, _) = cluster_with_a_laggard(|settings| settings);
    let before = log_begins(&mut cluster, leader);
    write_much(&mut cluster, leader, 200);
    assert_eq!(log_begins(&mut cluster, leader), before, "the follower lacks what stands there");
    cluster.member(leader).no_new_segments = true;
    write_much(&mut cluster, leader, 100);
    assert!(log_begins(&mut cluster, leader) > before);
    assert_eq!(cluster.alarms(leader), []);
    cluster.member(leader).no_new_segments = false;
    cluster.cut.clear();
    cluster.until("all show it", |cluster| cluster.shown() == [301; 3]);
}
