use super::*;
use crate::raft::{FRESH_BASE, HardState, Start};
use crate::types::{RaftId, Term};

/// A shard that leads its group and has sealed an epoch, so that its batches count.
fn serving() -> Shard {
    let own = RaftId::new(7).unwrap();
    let peers = Peers { voters: vec![own], learners: vec![] };
    let hard_state = HardState { term: FRESH_BASE.term, vote: None, commit: FRESH_BASE.index };
    let start = Start { own, peers, base: FRESH_BASE, hard_state, entries: vec![] };
    let mut shard = Shard::new(ShardId(1), 0, Store::new(), Group::new(start), Meaning::default());
    assert!(shard.group_mut().campaign());
    let epoch = epoch();
    shard.propose_fence(epoch).unwrap();
    shard.propose_seal(Seal { epoch, prefix: Revision(1) }).unwrap();
    persist(&mut shard);
    assert_eq!(shard.meaning().seal().epoch, epoch);
    shard
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
    assert_eq!(shard.meaning().live().count(), 2);
    shard.settle(Revision(2));
    assert_eq!(shard.meaning().live().count(), 1);
    shard.settle(Revision(9));
    assert_eq!(shard.meaning().live().count(), 0);
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
    shard.propose_fence(next).unwrap();
    shard.propose_seal(Seal { epoch: next, prefix: Revision(12) }).unwrap();
    persist(&mut shard);
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
    let pieces: Vec<LiveWrite> = shard.meaning().live().cloned().collect();
    assert!(pieces.len() > 10 && shard.meaning().parts().len() == 3);

    // A log that ends within the pieces does not have the revision.
    let mut cut = Meaning::new(Revision(1), Seal { epoch: epoch(), prefix: Revision(1) }, epoch());
    let mut whole = 0;
    for piece in pieces.iter().filter(|piece| piece.place == 0) {
        cut.read(piece.index, &piece.batch).unwrap();
        assert!(cut.parts().len() >= whole);
        whole = cut.parts().len();
        let has_end = cut.live().any(|write| write.revision == Revision(3) && !write.more);
        assert_eq!(cut.parts().iter().any(|part| part.revision == Revision(3)), has_end);
    }
    assert_eq!(whole, 3);

    shard.undo(Revision(2), &mut vec![]);
    let next = Epoch { term: Term(2), attempt: 2 };
    shard.propose_fence(next).unwrap();
    shard.propose_seal(Seal { epoch: next, prefix: Revision(3) }).unwrap();
    persist(&mut shard);
    shard.apply_prefix(&mut vec![]).unwrap();
    assert_eq!(shard.store.count(&KeyRange::everything(), Revision(3), None, usize::MAX).count, 51);
    assert!(shard.store.newest(b"l").is_none());
}

/// The epoch ends and the next seals before all is settled: the checkpoint stands before what is not, and says
/// of the log what was so there.
#[test]
fn a_checkpoint_position_has_the_fence_and_seal_before_it() {
    let mut shard = serving();
    put(&mut shard, 2, "a", 0);
    put(&mut shard, 3, "b", 0);
    shard.propose_turn(epoch(), Revision(1), 1 << 20).unwrap();
    persist(&mut shard);
    let next = Epoch { term: Term(2), attempt: 2 };
    let seal = Seal { epoch: next, prefix: Revision(3) };
    shard.propose_fence(next).unwrap();
    shard.propose_seal(seal).unwrap();
    persist(&mut shard);
    let at = |shard: &Shard| {
        let position = shard.checkpoint_position().unwrap();
        (position.index, shard.as_of(position.index).0)
    };
    let first = Ruling { fence: epoch(), seal: Seal { epoch: epoch(), prefix: Revision(1) } };
    let (before, ruling) = at(&shard);
    assert_eq!(ruling, first);
    assert_ne!(shard.meaning().seal(), ruling.seal);
    shard.settle(Revision(2));
    assert_eq!(at(&shard), (before, first), "the batch also holds what is not settled");
    shard.settle(Revision(3));
    let (index, ruling) = at(&shard);
    assert!(index > before);
    assert_eq!(ruling, Ruling { fence: next, seal });
    assert_eq!(shard.as_of(index).1.voters, [RaftId::new(7).unwrap()]);
}
