//! One shard on this member: its group, its state, and what its log means.
//!
//! The life of a write: evaluated against the newest state, it is in the store at once, speculatively, and
//! an [`Effect`] of the turn. [`Shard::propose_turn`] makes the turn's effects one Raft entry. Once that is
//! committed the revision is marked at the sequencer; once it is settled the store forgets how to undo it.
//! Where the epoch ends first, [`Shard::undo`] takes back what is not settled, and what the takeover's
//! prefix holds of it is applied anew from the log by [`Shard::apply_prefix`].

#[cfg(test)]
mod tests;

use crate::limits::RAFT_LAG_MAX;
use crate::log::LogId;
use crate::mvcc::{Budget, Store, Undone};
use crate::raft::{Group, Position, Refused, Writes};
use crate::record::{
    self, ArchivedBatch, ArchivedChange, ArchivedEntry, Control, Effect, Entry, Payload, Piece,
};
use crate::takeover::{Due, Holding, LiveWrite, Meaning, Ruling, Seal, Strange};
use crate::txn::LeaseMove;
use crate::types::{At, Blob, Epoch, Index, KeyRange, LeaseId, Peers, Revision, ShardId, Sub};
use bytes::Bytes;
use std::collections::VecDeque;

/// What an entry of ours was, to be told when it commits.
#[derive(Debug)]
enum Proposed {
    Revisions(Vec<Revision>),
    Fence(Payload),
    Seal(Payload),
    Control,
}

/// News of a commit.
#[derive(Debug, PartialEq, Eq)]
pub enum Committed {
    Revision(Revision),
    Fence(Epoch),
    Seal(Seal),
    /// Control entries may have become due.
    Control,
}

pub struct Shard {
    pub id: ShardId,
    /// Counts the logs that this shard has lived in: an entry of an earlier one says nothing of this one.
    pub home: u32,
    pub store: Store,
    group: Group,
    meaning: Meaning,
    effects: Vec<Effect>,
    effects_bytes: usize,
    entries_cut: u64,
    uncommitted: VecDeque<(Index, Proposed)>,
}

impl Shard {
    /// A shard whose store is at the revision that `meaning` holds, and whose group starts from the log's
    /// entries after it, which `meaning` has read.
    pub fn new(id: ShardId, home: u32, store: Store, group: Group, meaning: Meaning) -> Shard {
        Shard {
            id,
            home,
            store,
            group,
            meaning,
            effects: vec![],
            effects_bytes: 0,
            entries_cut: 0,
            uncommitted: VecDeque::new(),
        }
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    pub fn group_mut(&mut self) -> &mut Group {
        &mut self.group
    }

    pub fn meaning(&self) -> &Meaning {
        &self.meaning
    }

    /// Takes what a write changed; it is proposed at the end of the turn.
    pub fn push_effect(&mut self, effect: Effect) {
        self.effects_bytes += effect.bytes();
        self.effects.push(effect);
    }

    /// Entries that did not hold all that the turn had for the shard.
    pub fn entries_cut(&self) -> u64 {
        self.entries_cut
    }

    /// Bytes of the turn's effects so far.
    pub fn effects_bytes(&self) -> usize {
        self.effects_bytes
    }

    /// Proposes the turn's effects: one entry, or more where they pass about `entry_bytes`. A large effect is
    /// cut; one large change is one entry.
    pub fn propose_turn(
        &mut self,
        epoch: Epoch,
        settled: Revision,
        entry_bytes: usize,
    ) -> Result<(), Refused> {
        let effects = std::mem::take(&mut self.effects);
        self.effects_bytes = 0;
        let pieces: Vec<Piece> = effects.iter().flat_map(|effect| effect.pieces(entry_bytes)).collect();
        let mut from = 0;
        while from < pieces.len() {
            let mut bytes = 0;
            let fitting = pieces[from..].iter().take_while(|piece| {
                bytes += piece.bytes();
                bytes <= entry_bytes
            });
            let to = from + fitting.count().max(1);
            self.propose_batch(epoch, settled, &pieces[from..to])?;
            self.entries_cut += u64::from(to < pieces.len());
            from = to;
        }
        Ok(())
    }

    fn propose_batch(&mut self, epoch: Epoch, settled: Revision, pieces: &[Piece]) -> Result<(), Refused> {
        let payload = record::batch(epoch, settled, pieces);
        let index = self.group.propose(payload.clone())?;
        self.meaning.proposed(index, &payload, pieces);
        // With the last piece of a part all of it is in the log.
        let whole = pieces.iter().filter(|piece| !piece.more);
        let revisions = whole.map(|piece| piece.revision).collect();
        self.uncommitted.push_back((index, Proposed::Revisions(revisions)));
        Ok(())
    }

    pub fn propose_fence(&mut self, epoch: Epoch) -> Result<(), Refused> {
        let payload = Payload::of(&Entry::Fence(epoch.into()));
        let index = self.group.propose(payload.clone())?;
        self.uncommitted.push_back((index, Proposed::Fence(payload)));
        Ok(())
    }

    pub fn propose_seal(&mut self, seal: Seal) -> Result<(), Refused> {
        let payload = Payload::of(&Entry::Seal { epoch: seal.epoch.into(), prefix: seal.prefix.0 });
        let index = self.group.propose(payload.clone())?;
        self.uncommitted.push_back((index, Proposed::Seal(payload)));
        Ok(())
    }

    /// Control shard only. The turn's effects must have been proposed before, so that the log keeps the
    /// order of evaluation.
    pub fn propose_control(
        &mut self,
        epoch: Epoch,
        settled: Revision,
        control: Control,
    ) -> Result<Index, Refused> {
        assert!(self.id == ShardId::CONTROL && self.effects.is_empty(), "a control entry overtakes nothing");
        let payload = Payload::of(&Entry::Control { epoch: epoch.into(), settled: settled.0, control });
        let index = self.group.propose(payload.clone())?;
        self.meaning.proposed_control(index, &payload);
        self.uncommitted.push_back((index, Proposed::Control));
        Ok(index)
    }

    /// What the group wants written. At most one call a turn.
    pub fn ready(&mut self) -> Option<Writes> {
        let applied = self.group.applied();
        let writes = self.group.ready();
        if self.group.applied() > applied {
            self.release();
        }
        writes
    }

    /// Whether many committed entries wait to be handed out, as after a start: their payloads are held until then,
    /// and no checkpoint can be written.
    pub fn lags(&self) -> bool {
        let behind = self.group.committed().0.saturating_sub(self.group.applied().0);
        behind > RAFT_LAG_MAX && self.group.has_ready()
    }

    /// Follows the group's commit index. Fences and seals are read into the log's meaning here.
    pub fn committed(&mut self, news: &mut Vec<Committed>) -> Result<(), Strange> {
        let committed = self.group.committed();
        while let Some((index, proposed)) = self.uncommitted.pop_front_if(|(index, _)| *index <= committed) {
            match proposed {
                Proposed::Revisions(revisions) => news.extend(revisions.into_iter().map(Committed::Revision)),
                Proposed::Control => news.push(Committed::Control),
                Proposed::Fence(payload) => {
                    self.meaning.read(index, &payload)?;
                    news.push(Committed::Fence(self.meaning.fence()));
                }
                Proposed::Seal(payload) => {
                    self.meaning.read(index, &payload)?;
                    news.push(Committed::Seal(self.meaning.seal()));
                }
            }
        }
        Ok(())
    }

    /// Everything up to here stands for ever. What the control shard's log says of it takes effect entry by
    /// entry: see [`Shard::next_due`].
    pub fn settle(&mut self, upto: Revision) {
        self.store.settle(upto);
        if self.id != ShardId::CONTROL {
            self.meaning.settle(upto);
            self.release();
        }
    }

    /// The next thing of the control shard's log that takes effect.
    pub fn next_due(&mut self, settled: Revision) -> Option<Due> {
        let due = self.meaning.next_due(settled, self.group.committed());
        if due.is_none() {
            self.meaning.hold(settled);
            self.release();
        }
        due
    }

    /// Lets go of the payloads that neither an undone epoch nor raft could ask for.
    fn release(&mut self) {
        let upto = self.needed_after();
        self.group.release(upto);
        self.meaning.pass(upto);
    }

    /// The index before the first entry that the settled state does not hold.
    fn needed_after(&self) -> Index {
        self.meaning.needed_after(self.group.committed()).min(self.group.applied())
    }

    /// The position before the first entry that the settled state does not hold: where a checkpoint of that
    /// state stands.
    pub fn checkpoint_position(&self) -> Option<Position> {
        let index = self.needed_after();
        Some(Position { index, term: self.group.term_of(index)? })
    }

    /// What a checkpoint at that position says of the log before it: the last fence and seal, and the peers.
    pub fn as_of(&self, index: Index) -> (Ruling, &Peers) {
        (self.meaning.ruling_at(index), self.group.peers_at(index))
    }

    /// The epoch is over: takes back what is not settled, and says how leases move with it.
    pub fn undo(&mut self, settled: Revision, moves: &mut Vec<LeaseMove>) {
        self.effects.clear();
        self.effects_bytes = 0;
        // A state from a checkpoint is settled further than a process knows that has not served yet.
        let settled = settled.max(self.store.settled());
        self.store.undo_above(settled, &mut |undone: Undone| {
            moves.push(LeaseMove { key: undone.key, from: undone.lease, to: undone.lease_again });
        });
    }

    /// What the shard brings to a takeover, having been read from that log.
    pub fn holding(&self, log: LogId) -> Holding {
        Holding { shard: self.id, log, held: self.meaning.held(), parts: self.meaning.parts() }
    }

    /// After the seal: applies what the prefix holds and the store does not.
    pub fn apply_prefix(&mut self, moves: &mut Vec<LeaseMove>) -> Result<(), Strange> {
        self.apply_upto(Revision(u64::MAX), moves)
    }

    /// As [`Shard::apply_prefix`] where no seal has cut the log yet: what it holds above `prefix` is let be.
    pub fn apply_upto(&mut self, prefix: Revision, moves: &mut Vec<LeaseMove>) -> Result<(), Strange> {
        let Shard { store, meaning, .. } = self;
        let applied = store.newest_revision().main;
        let missing = meaning.live().filter(|write| write.revision > applied && write.revision <= prefix);
        // To read a batch is to check all of it, so that is done once for all its writes.
        let mut read: Option<(Index, &ArchivedBatch)> = None;
        for write in missing {
            let batch = match read {
                Some((index, batch)) if index == write.index => batch,
                _ => batch_of(write)?,
            };
            read = Some((write.index, batch));
            apply(store, write, batch, moves)?;
        }
        Ok(())
    }
}

fn batch_of(write: &LiveWrite) -> Result<&ArchivedBatch, Strange> {
    match write.batch.entry() {
        Ok(ArchivedEntry::Batch(batch)) => Ok(batch),
        _ => Err(Strange { index: write.index, why: "a live write in no batch" }),
    }
}

fn apply(
    store: &mut Store,
    write: &LiveWrite,
    batch: &ArchivedBatch,
    moves: &mut Vec<LeaseMove>,
) -> Result<(), Strange> {
    let strange = |why| Strange { index: write.index, why };
    for change in batch.writes[write.place as usize].changes.iter() {
        match change {
            ArchivedChange::Put { sub, key, value, lease } => {
                let at = At { main: write.revision, sub: Sub(sub.to_native()) };
                let lease = LeaseId(lease.to_native());
                let previous = store.put(at, key, Blob::new(value), lease);
                let from = previous.map_or(LeaseId::NONE, |kv| kv.lease);
                if from != lease {
                    moves.push(LeaseMove { key: Blob::new(key), from, to: lease });
                }
            }
            ArchivedChange::Delete { sub, key } => {
                let at = At { main: write.revision, sub: Sub(sub.to_native()) };
                let previous =
                    store.delete(at, key).ok_or_else(|| strange("the delete of a key that is not live"))?;
                if previous.lease != LeaseId::NONE {
                    moves.push(LeaseMove { key: previous.key, from: previous.lease, to: LeaseId::NONE });
                }
            }
            ArchivedChange::DeleteRange { sub, key, end, count } => {
                let at = At { main: write.revision, sub: Sub(sub.to_native()) };
                let deleted = apply_range(store, at, key, end, moves);
                if deleted != count.to_native() {
                    return Err(strange("the delete of a range that holds other keys"));
                }
            }
            ArchivedChange::LeaseEnd { .. } => {}
        }
    }
    Ok(())
}

/// Deletes all that is live in a range, from `at` on, and counts it.
fn apply_range(store: &mut Store, at: At, key: &[u8], end: &[u8], moves: &mut Vec<LeaseMove>) -> u32 {
    let key = Bytes::copy_from_slice(key);
    let range = match end {
        [] => KeyRange::From(key),
        _ => KeyRange::Between(key, Bytes::copy_from_slice(end)),
    };
    let doomed = store.range(&range, Revision(u64::MAX), None, Budget::UNBOUNDED).kvs;
    for (sub, kv) in (at.sub.0..).map(Sub).zip(&doomed) {
        store.delete(At { main: at.main, sub }, &kv.key);
        if kv.lease != LeaseId::NONE {
            moves.push(LeaseMove { key: kv.key.clone(), from: kv.lease, to: LeaseId::NONE });
        }
    }
    doomed.len() as u32
}
