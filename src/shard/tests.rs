use super::*;
use crate::raft::{Elections, FRESH_BASE, GroupStart, HardState};
use crate::record::{Batch, Write};
use crate::types::{RaftId, Term};

/// A shard that leads its group and has sealed an epoch, so that its batches count.
fn serving() -> Shard {
    let own = RaftId::new(7).unwrap();
    let peers = Peers { voters: vec![own], learners: vec![] };
    let hard_state = HardState { term: FRESH_BASE.term, vote: None, commit: FRESH_BASE.index };
    let start = GroupStart {
        own,
        peers,
        base: FRESH_BASE,
        hard_state,
        entries: vec![],
        elections: Elections::ByOwner,
    };
    let mut shard = Shard::new(ShardId(1), 0, Store::new(), Group::new(start), LogView::default());
    assert!(shard.group_mut().campaign());
    let epoch = epoch();
    take_over(&mut shard, epoch, 1);
    shard
}

/// Fence and seal, each committed before what follows.
fn take_over(shard: &mut Shard, epoch: Epoch, prefix: u64) {
    shard.propose_fence(epoch).unwrap();
    assert_eq!(persist(shard), [Committed::Fence(epoch)]);
    let seal = Seal { epoch, prefix: Revision(prefix) };
    shard.propose_seal(seal).unwrap();
    assert_eq!(persist(shard), [Committed::Seal(seal)]);
    assert_eq!((shard.log_view().fence(), shard.log_view().seal()), (epoch, seal));
}

fn epoch() -> Epoch {
    Epoch { term: Term(2), attempt: 1 }
}

/// Everything proposed becomes durable, and so committed.
fn persist(shard: &mut Shard) -> Vec<Committed> {
    let mut news = vec![];
    while let Some(writes) = shard.ready() {
        shard.group_mut().persisted(writes.number);
    }
    shard.committed(&mut news).unwrap();
    news
}

fn put(shard: &mut Shard, revision: u64, key: &str, lease: i64) {
    let (key, value, lease) = (Blob::new(key.as_bytes()), Blob::new(b"v"), LeaseId(lease));
    let at = At { main: Revision(revision), sub: Sub(0) };
    shard.store.put(at, &key, value.clone(), lease);
    let change = record::EffectChange::Put { sub: Sub(0), key, value, lease };
    shard.push_effect(Effect { revision: Revision(revision), parts: 1, more: false, changes: vec![change] });
}

#[test]
fn commits_are_told_in_order_and_settling_forgets() {
    let mut shard = serving();
    put(&mut shard, 2, "a", 0);
    put(&mut shard, 5, "b", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    assert_eq!(persist(&mut shard), [2, 5].map(|r| Committed::Revision(Revision(r))));
    assert_eq!(shard.log_view().live().count(), 2);
    shard.settle(Revision(2));
    assert_eq!(shard.log_view().live().count(), 1);
    shard.settle(Revision(9));
    assert_eq!(shard.log_view().live().count(), 0);
}

/// What an epoch leaves unsettled is undone, and what the prefix holds of it comes back from the log:
/// store, leases and ranges of deletes alike.
#[test]
fn an_undone_epoch_comes_back_from_the_log_up_to_the_prefix() {
    let mut shard = serving();
    for n in 0..10 {
        put(&mut shard, 2 + n, &format!("k{n}"), 3);
    }
    let at = At { main: Revision(12), sub: Sub(0) };
    assert_eq!(apply_range(&mut shard.store, at, b"k2", b"k5", &mut vec![]), 3);
    let (key, end) = (Blob::new(b"k2"), Blob::new(b"k5"));
    let change = record::EffectChange::DeleteRange { sub: Sub(0), key, end, count: 3 };
    shard.push_effect(Effect { revision: Revision(12), parts: 1, more: false, changes: vec![change] });
    put(&mut shard, 13, "late", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    persist(&mut shard);

    let mut moves = vec![];
    shard.undo(Revision(4), &mut moves);
    assert_eq!(shard.store.newest_revision().main, Revision(4));
    let moved = |from: i64, to: i64| moves.iter().filter(|m| (m.from.0, m.to.0) == (from, to)).count();
    assert_eq!((moved(3, 0), moved(0, 3)), (7, 3), "seven puts and three deletes are undone");

    let next = Epoch { term: Term(2), attempt: 2 };
    take_over(&mut shard, next, 12);
    moves.clear();
    shard.apply_prefix(&mut moves).unwrap();
    assert_eq!(shard.store.newest_revision().main, Revision(12));
    assert_eq!(shard.store.count(&KeyRange::everything(), Revision(12), None, usize::MAX).count, 7);
    assert_eq!(moves.len(), 7 + 3);
    assert!(shard.store.newest(b"late").is_none(), "it stands above the prefix");
}

#[test]
fn the_delete_of_a_range_that_holds_other_keys_is_strange() {
    let mut shard = serving();
    put(&mut shard, 2, "k", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    let (key, end) = (Blob::new(b"k"), Blob::new(b"l"));
    let change = record::EffectChange::DeleteRange { sub: Sub(0), key, end, count: 2 };
    shard.push_effect(Effect { revision: Revision(3), parts: 1, more: false, changes: vec![change] });
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    persist(&mut shard);
    assert!(shard.apply_prefix(&mut vec![]).is_err());
}

/// A part too large for one entry counts once its last piece is there, and comes back whole.
#[test]
fn a_part_cut_in_pieces_is_whole_or_not_there() {
    let mut shard = serving();
    put(&mut shard, 2, "k", 0);
    let keys: Vec<String> = (0..50).map(|n| format!("k{n:02}")).collect();
    let changes = keys.iter().zip(0..).map(|(key, n)| {
        let (key, value, sub) = (Blob::new(key.as_bytes()), Blob::new(b"v"), Sub(n));
        shard.store.put(At { main: Revision(3), sub }, &key, value.clone(), LeaseId(0));
        record::EffectChange::Put { sub, key, value, lease: LeaseId(0) }
    });
    let changes: Vec<_> = changes.collect();
    shard.push_effect(Effect { revision: Revision(3), parts: 1, more: false, changes });
    put(&mut shard, 4, "l", 0);
    shard.propose_turn(epoch(), Revision(1), 300).unwrap();
    assert_eq!(persist(&mut shard), [2, 3, 4].map(|r| Committed::Revision(Revision(r))), "each once");
    let pieces: Vec<LiveWrite> = shard.log_view().live().cloned().collect();
    assert!(pieces.len() > 10 && shard.log_view().parts().len() == 3);

    // A log that ends within the pieces does not have the revision.
    let first = pieces[0].index;
    let base = Position { index: Index(first.0 - 1), term: Term(2) };
    let seal = Seal { epoch: epoch(), prefix: Revision(1) };
    let mut cut = LogView::new(Revision(1), Ruling { fence: epoch(), seal }, base);
    let mut whole = 0;
    for piece in pieces.iter().filter(|piece| piece.place == 0) {
        let at = Position { index: piece.index, term: Term(2) };
        cut.stand(at, Decoded::of(at.index, Some(&piece.batch)));
        assert_eq!(cut.parts().len(), whole, "before its commit it says nothing");
        cut.read_next(at.index).unwrap();
        assert!(cut.parts().len() >= whole);
        whole = cut.parts().len();
        let has_end = cut.live().any(|write| write.revision == Revision(3) && !write.more);
        assert_eq!(cut.parts().iter().any(|part| part.revision == Revision(3)), has_end);
    }
    assert_eq!(whole, 3);

    shard.undo(Revision(2), &mut vec![]);
    let next = Epoch { term: Term(2), attempt: 2 };
    take_over(&mut shard, next, 3);
    shard.apply_prefix(&mut vec![]).unwrap();
    assert_eq!(shard.store.count(&KeyRange::everything(), Revision(3), None, usize::MAX).count, 51);
    assert!(shard.store.newest(b"l").is_none());
}

/// The epoch ends and the next seals before all is settled: a checkpoint stands before what is not, and says of
/// the log what was so there.
#[test]
fn a_checkpoint_position_has_the_fence_and_seal_before_it() {
    let mut shard = serving();
    put(&mut shard, 2, "a", 0);
    put(&mut shard, 3, "b", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    persist(&mut shard);
    let next = Epoch { term: Term(2), attempt: 2 };
    take_over(&mut shard, next, 3);
    let at = |shard: &Shard| {
        let position = shard.checkpoint_position().unwrap();
        (position.index, shard.as_of(position.index).0)
    };
    let first = Ruling { fence: epoch(), seal: Seal { epoch: epoch(), prefix: Revision(1) } };
    let (before, ruling) = at(&shard);
    assert_eq!(ruling, first);
    assert_ne!(shard.log_view().seal(), ruling.seal);
    shard.settle(Revision(2));
    assert_eq!(at(&shard), (before, first), "the batch also holds what is not settled");
    shard.settle(Revision(3));
    let (index, ruling) = at(&shard);
    assert!(index > before);
    assert_eq!(ruling, Ruling { fence: next, seal: Seal { epoch: next, prefix: Revision(3) } });
    assert_eq!(shard.as_of(index).1.voters, [RaftId::new(7).unwrap()]);
}

/// A batch of the epoch, as another leader of the group would have written it.
fn anothers(revision: u64) -> Payload {
    let changes = vec![record::Change::Delete { sub: 0, key: b"k".to_vec() }];
    let writes = vec![Write { revision, parts: 1, more: false, changes }];
    Payload::of(&Entry::Batch(Batch { epoch: epoch().into(), settled: 1, writes }))
}

/// Deposed before its proposal was committed and elected anew, a leader finds another's entry at the same index.
#[test]
fn anothers_entry_at_the_index_of_a_proposal_is_not_ours() {
    let mut shard = serving();
    let after = shard.log_view().last();
    put(&mut shard, 2, "a", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    let number = shard.ready().unwrap().number;
    let proposed = shard.log_view().last();
    assert_eq!(proposed.index, after.index.next());
    // It never reached a quorum, and the new leader's reached one.
    let term = Term(proposed.term.0 + 1);
    shard.group_mut().appended_by_another(after, term, vec![anothers(9)], proposed.index);
    let replaced = shard.ready().unwrap().number;
    assert_eq!(shard.log_view().last(), Position { index: proposed.index, term });
    shard.group_mut().persisted(number);
    shard.group_mut().persisted(replaced);
    assert_eq!(persist(&mut shard), [], "what commits there is another's");
    assert_eq!(shard.log_view().live().map(|write| write.revision.0).collect::<Vec<_>>(), [9]);
    assert!(shard.group_mut().campaign());
    assert_eq!(persist(&mut shard), []);
    put(&mut shard, 10, "b", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    assert_eq!(persist(&mut shard), [Committed::Revision(Revision(10))], "in its new term it proposes anew");
}

/// What an epoch proposed and did not see committed is nobody's news in the next, though it commits.
#[test]
fn proposals_are_forgotten_when_the_epoch_ends() {
    let mut shard = serving();
    put(&mut shard, 2, "a", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    let next = Epoch { term: Term(2), attempt: 2 };
    shard.propose_fence(next).unwrap();
    shard.undo(Revision(1), &mut vec![]);
    assert_eq!(persist(&mut shard), []);
    assert_eq!(shard.log_view().fence(), next, "the log has been read");
    assert_eq!(shard.log_view().live().count(), 1);
    take_over(&mut shard, Epoch { term: Term(2), attempt: 3 }, 2);
}

#[test]
#[should_panic = "revisions rise within an epoch"]
fn revisions_that_fall_are_not_pushed() {
    let mut shard = serving();
    for revision in [3, 2] {
        let changes = vec![record::EffectChange::LeaseEnd { lease: LeaseId(1) }];
        shard.push_effect(Effect { revision: Revision(revision), parts: 1, more: false, changes });
    }
}

#[test]
#[should_panic = "a seal follows the fence of its epoch"]
fn nothing_is_sealed_before_its_fence_is_committed() {
    let mut shard = serving();
    let next = Epoch { term: Term(2), attempt: 2 };
    shard.propose_fence(next).unwrap();
    let _ = shard.propose_seal(Seal { epoch: next, prefix: Revision(1) });
}

#[test]
#[should_panic = "writes are proposed behind their epoch's seal"]
fn no_other_epoch_writes_behind_a_seal() {
    let mut shard = serving();
    put(&mut shard, 2, "a", 0);
    let _ = shard.propose_turn(Epoch { term: Term(2), attempt: 2 }, Revision(1), 1 << 20);
}
