//! What a member shows that follows: nothing that it could lose, and nothing less than before.

use super::*;

/// Three members, one of which leads and the others follow.
fn led() -> (Cluster, usize) {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    cluster
        .until("the others follow", |cluster| others.iter().all(|at| cluster.follows(*at) == Some(leader)));
    (cluster, leader)
}

/// A majority has it without this member, whose disk has it not: with the process it would be gone.
#[test]
fn what_is_not_durable_here_is_not_shown() {
    let (mut cluster, leader) = led();
    assert_eq!(cluster.put(leader, "a"), 2);
    cluster.until("all show it", |cluster| cluster.shown() == [2; 3]);
    for slow in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.member(slow).disk_stands = true;
        let revision = cluster.put(leader, "b") as u64;
        cluster.pass(Duration::from_ms(100));
        assert_eq!((cluster.shown()[leader], cluster.shown()[slow]), (revision, revision - 1));
        cluster.member(slow).write_all();
        cluster.until("all show it", |cluster| cluster.shown() == [revision; 3]);
    }
}

/// Whoever leads may have settled less than this member had shown before its start, as it was told by another leader.
#[test]
fn what_was_shown_before_a_start_is_not_gone_below() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    let back = 2;
    cluster.members[back] = Some(Member::that_has_shown(Revision(4), 1, settings_of(back, 3, 3)));
    cluster.until("one serves", serving);
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    assert_ne!(leader, back, "another one leads");
    cluster.until("it follows", |cluster| cluster.follows(back) == Some(leader));
    for revision in 2..4 {
        assert_eq!(cluster.put(leader, "a"), revision);
        cluster.pass(Duration::from_ms(200));
        assert_eq!(cluster.shown()[back], 0, "at revision {revision}");
    }
    assert_eq!(cluster.put(leader, "a"), 4);
    cluster.until("all show it", |cluster| cluster.shown() == [4; 3]);
}

#[test]
fn each_epoch_of_a_process_has_a_generation_of_its_own() {
    let mut member = Member::new(2, 2);
    let generations = |member: &Member| -> Vec<_> {
        member.reactors.iter().map(|reactor| reactor.turn.allotment.generation()).collect()
    };
    let mut before = generations(&member);
    for revision in 2..5 {
        member.put("a", "1");
        assert_eq!(member.sequencer.settled(), Revision(revision));
        member.reactors[0].shards.shard_mut(ShardId::CONTROL).group_mut().step_down();
        member.run();
        let now = generations(&member);
        assert!(now.iter().all(|generation| *generation == now[0]), "{now:?}");
        assert!(now[0].0 > before[0].0, "{now:?} after {before:?}");
        before = now;
    }
}

/// What lies between is not in the state, and would be missing in what is shown.
#[test]
fn nothing_is_shown_below_a_state_that_a_reactor_has_taken() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    cluster.led_by_another_than(1);
    cluster.until("all show it", |cluster| cluster.shown() == [1; 3]);
    let Reactor { epochs, turn, .. } = &mut cluster.member(1).reactors[0];
    for (covered, shown) in [(5, None), (8, None), (9, Some(9)), (12, Some(12))] {
        epochs.on_covered(ReactorId(0), Revision(12), Revision::NONE);
        epochs.on_covered(ReactorId(1), Revision(covered), Revision(9));
        assert_eq!(epochs.covered_by_all(turn), shown.map(Revision), "{covered}");
    }
}
