//! One shard on this member: its group, its state, and what its log means.
//!
//! The life of a write: evaluated against the newest state, it is in the store at once, speculatively, and
//! an [`Effect`] of the turn. [`Shard::propose_turn`] makes the turn's effects one Raft entry. Once that is
//! committed the revision is marked at the sequencer; once it is settled the store forgets how to undo it.
//! Where the epoch ends first, [`Shard::undo`] takes back what is not settled, and what the takeover's
//! prefix holds of it is applied anew from the log by [`Shard::apply_prefix`].
//!
//! Why not replicate the request and evaluate it at commit, as etcd does: a write takes a revision only where
//! it changes something, and with several logs its place in the one order has to be known before it is
//! proposed. Here a write sees all that was evaluated before it, committed or not. The price is the undo, and
//! only the end of an epoch pays it.

mod coverage;
#[cfg(test)]
mod tests;

pub use coverage::Coverage;

use crate::limits::RAFT_LAG_MAX;
use crate::log::LogId;
use crate::mvcc::{Budget, Store, Undone};
use crate::raft::{Group, GroupEntry, Installing, Position, Refused, Writes};
use crate::record::{
    self, ArchivedBatch, ArchivedChange, ArchivedEntry, ControlEntry, Effect, Entry, Payload, Piece,
};
use crate::takeover::{
    Decoded, EntryRead, Holding, InconsistentEntry, LiveWrite, LogView, NextEffect, Ruling, Seal,
};
use crate::txn::LeaseMove;
use crate::types::{At, Blob, Epoch, Index, KeyRange, LeaseId, Peers, Revision, ShardId, Sub, Term};
use bytes::Bytes;
use std::collections::VecDeque;

/// An entry that was proposed here in this epoch. It is ours by index *and* term: a leader that was deposed and
/// elected anew finds other entries at the indexes it once proposed at.
struct Proposed {
    at: Position,
    /// Until the log takes it.
    entry: Option<Decoded>,
}

/// News of the commit of what this epoch proposed.
#[derive(Debug, PartialEq, Eq)]
pub enum Committed {
    Revision(Revision),
    Fence(Epoch),
    Seal(Seal),
    /// Control entries may have become due.
    Control,
}

impl Committed {
    /// The epoch that it names.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Committed::Fence(epoch) => Some(*epoch),
            Committed::Seal(seal) => Some(seal.epoch),
            Committed::Revision(_) | Committed::Control => None,
        }
    }
}

pub struct Shard {
    pub id: ShardId,
    /// Counts the logs that this shard has lived in: an entry of an earlier one says nothing of this one.
    pub home: u32,
    pub store: Store,
    group: Group,
    log_view: LogView,
    effects: Vec<Effect>,
    effects_bytes: usize,
    /// The revision of the last effect of this epoch, and whether the shard's part of it goes on.
    pushed: (Revision, bool),
    entries_cut: u64,
    /// What this epoch has proposed and is not committed, in the order of the log.
    proposed: VecDeque<Proposed>,
}

impl Shard {
    /// A shard whose store is at the revision that `log_view` holds, and whose group starts from the log's
    /// entries after it, which stand in `log_view`.
    pub fn new(id: ShardId, home: u32, store: Store, group: Group, log_view: LogView) -> Shard {
        assert!(
            log_view.last().index == group.last_index(),
            "what the group holds stands in the view of its log"
        );
        let newest = store.newest_revision().main;
        assert!(newest <= log_view.held(), "a state does not hold more than is known of it");
        Shard {
            id,
            home,
            store,
            group,
            log_view,
            effects: vec![],
            effects_bytes: 0,
            pushed: (Revision::NONE, false),
            entries_cut: 0,
            proposed: VecDeque::new(),
        }
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    pub fn group_mut(&mut self) -> &mut Group {
        &mut self.group
    }

    pub fn log_view(&self) -> &LogView {
        &self.log_view
    }

    /// Takes what a write changed; it is proposed at the end of the turn.
    pub fn push_effect(&mut self, effect: Effect) {
        let (last, goes_on) = self.pushed;
        let follows = if goes_on { effect.revision == last } else { effect.revision > last };
        assert!(follows, "revisions rise within an epoch: {} after {last}, {goes_on}", effect.revision);
        assert!(effect.revision > self.store.settled(), "what is settled is not written anew");
        assert!(effect.parts > 0, "a revision has a part in each shard that it changes");
        self.pushed = (effect.revision, effect.more);
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
        let mut effects = std::mem::take(&mut self.effects);
        self.effects_bytes = 0;
        if let Some(first) = effects.first() {
            assert!(epoch == self.log_view.seal().epoch, "writes are proposed behind their epoch's seal");
            assert!(settled < first.revision, "what is settled is not proposed");
        }
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
        effects.clear();
        self.effects = effects;
        Ok(())
    }

    fn propose_batch(&mut self, epoch: Epoch, settled: Revision, pieces: &[Piece]) -> Result<(), Refused> {
        let payload = record::batch(epoch, settled, pieces);
        let at = self.group.propose(payload.clone())?;
        self.remember(at, Decoded::batch(at.index, epoch, settled, &payload, pieces));
        Ok(())
    }

    pub fn propose_fence(&mut self, epoch: Epoch) -> Result<(), Refused> {
        let newest = self.log_view.newest_epoch();
        assert!(epoch > newest, "no epoch is used twice: {epoch} after {newest}");
        assert!(self.effects.is_empty(), "nothing is written before the epoch serves");
        self.propose(&Entry::Fence(epoch.into())).map(|_| ())
    }

    pub fn propose_seal(&mut self, seal: Seal) -> Result<(), Refused> {
        assert!(seal.epoch == self.log_view.fence(), "a seal follows the fence of its epoch");
        assert!(seal.prefix >= self.log_view.held(), "a prefix has what the state holds");
        self.propose(&Entry::Seal { epoch: seal.epoch.into(), prefix: seal.prefix.0 }).map(|_| ())
    }

    fn propose(&mut self, entry: &Entry) -> Result<Index, Refused> {
        let payload = Payload::of(entry);
        let at = self.group.propose(payload.clone())?;
        self.remember(at, Decoded::of(at.index, Some(&payload)));
        Ok(at.index)
    }

    fn remember(&mut self, at: Position, entry: Decoded) {
        // Where the log was truncated meanwhile, what was proposed there and behind is gone.
        let before = self.proposed.partition_point(|proposed| proposed.at.index < at.index);
        self.proposed.truncate(before);
        let last = self.proposed.back().map_or(Term(0), |proposed| proposed.at.term);
        assert!(last <= at.term, "terms do not fall along a log: {at:?} behind term {last}");
        self.proposed.push_back(Proposed { at, entry: Some(entry) });
    }

    /// Control shard only. The turn's effects must have been proposed before, so that the log keeps the
    /// order of evaluation.
    pub fn propose_control(
        &mut self,
        epoch: Epoch,
        settled: Revision,
        control: ControlEntry,
    ) -> Result<Index, Refused> {
        assert!(self.id == ShardId::CONTROL, "control entries stand in the control shard's log");
        assert!(self.effects.is_empty(), "a control entry overtakes nothing");
        let is_first = matches!(control, ControlEntry::Bootstrap { .. });
        let serves = epoch == self.log_view.seal().epoch;
        assert!(is_first || serves, "control entries are proposed behind their epoch's seal");
        self.propose(&Entry::Control { epoch: epoch.into(), settled: settled.0, control })
    }

    /// What the group wants written. At most one call a turn.
    pub fn ready(&mut self) -> Option<Writes> {
        let applied = self.group.applied();
        let writes = self.group.ready();
        for entry in writes.iter().flat_map(|writes| &writes.entries) {
            self.stand(entry);
        }
        let (stands, last) = (self.log_view.last().index, self.group.last_index());
        assert!(
            stands == last,
            "what the group holds stands in the view of its log: up to {stands} of {last}"
        );
        if self.group.applied() > applied {
            self.release();
        }
        writes
    }

    /// The log takes an entry: what was proposed here, or another's, which replaces what stood there.
    fn stand(&mut self, entry: &GroupEntry) {
        let at = entry.at();
        let own = self.proposed.binary_search_by_key(&at.index, |proposed| proposed.at.index).ok();
        let own = own.map(|place| &mut self.proposed[place]).filter(|proposed| proposed.at == at);
        let decoded = own.and_then(|proposed| proposed.entry.take());
        let decoded = decoded.unwrap_or_else(|| Decoded::of(at.index, entry.content.data()));
        self.log_view.stand(at, decoded);
    }

    /// Whether many committed entries wait to be handed out, as after a start: their payloads are held until then,
    /// and no checkpoint can be written.
    pub fn lags(&self) -> bool {
        let behind = self.group.committed().0.saturating_sub(self.group.applied().0);
        behind > RAFT_LAG_MAX && self.group.has_ready()
    }

    /// The log begins anew behind another member's state at a revision. The store stays as it is, until what this
    /// member shows has reached that.
    pub fn install(&mut self, at: Position, peers: Peers, revision: Revision, ruling: Ruling) {
        assert!(self.group.installing(at) == Installing::Now, "it was asked whether it may be");
        assert!(self.effects.is_empty(), "who follows writes nothing of its own");
        assert!(revision >= self.log_view.held(), "a state does not go back: {revision}");
        self.group.install(at, peers);
        self.log_view = LogView::new(revision, ruling, at);
        self.proposed.clear();
    }

    /// Follows the group's commit index: reads what it has reached, and tells of what this epoch proposed.
    pub fn committed(&mut self, news: &mut Vec<Committed>) -> Result<(), InconsistentEntry> {
        let committed = self.group.committed();
        while let Some((at, read)) = self.log_view.read_next(committed)? {
            let term = self.group.term_of(at.index);
            assert!(term == Some(at.term), "the log is read as it is: {at:?} where its term is {term:?}");
            let mut is_ours = false;
            while let Some(proposed) = self.proposed.pop_front_if(|proposed| proposed.at.index <= at.index) {
                is_ours |= proposed.at == at;
            }
            match read {
                _ if !is_ours => {}
                EntryRead::Nothing => {
                    panic!("entry {} of shard {} is this epoch's and void", at.index, self.id)
                }
                EntryRead::Control => news.push(Committed::Control),
                EntryRead::Fence(epoch) => news.push(Committed::Fence(epoch)),
                EntryRead::Seal(seal) => news.push(Committed::Seal(seal)),
                // With the last piece of a part all of it is in the log.
                EntryRead::Writes(count) => {
                    let epoch = self.log_view.seal().epoch;
                    let first = self.log_view.newest(count).next();
                    let own = |write: &LiveWrite| write.epoch == epoch && write.index == at.index;
                    assert!(first.is_none_or(own), "what commits is of the entry and its epoch: {first:?}");
                    let whole = self.log_view.newest(count).filter(|write| !write.more);
                    news.extend(whole.map(|write| Committed::Revision(write.revision)));
                }
            }
        }
        Ok(())
    }

    /// Reads also what is not known to be committed: a lone voter's next election commits all of its log.
    pub fn read_to_end(&mut self) -> Result<(), InconsistentEntry> {
        let last = self.log_view.last().index;
        while self.log_view.read_next(last)?.is_some() {}
        Ok(())
    }

    /// This member goes on alone: what others have settled beyond what it has is lost for ever.
    pub fn forget_named(&mut self) {
        self.log_view.forget_named();
    }

    /// Everything up to here stands for ever. What the control shard's log says of it takes effect entry by
    /// entry: see [`Shard::next_due`].
    pub fn settle(&mut self, upto: Revision) {
        self.store.settle(upto);
        // A state that has come from another member may be ahead of what is shown.
        if self.id != ShardId::CONTROL && self.log_view.held() <= upto {
            self.log_view.settle(upto);
            self.release();
        }
    }

    /// The next thing of the control shard's log that takes effect, where it stands at `upto` or before.
    pub fn next_due(&mut self, settled: Revision, upto: Index) -> Option<NextEffect> {
        let due = self.log_view.next_due(settled, upto);
        if due.is_none() {
            self.hold(settled);
        }
        due
    }

    /// Control shard only. Everything up to here has taken effect, unless something of it is left.
    pub fn hold(&mut self, settled: Revision) {
        self.log_view.hold(settled);
        self.release();
    }

    /// Lets go of the payloads that neither an undone epoch nor raft could ask for.
    fn release(&mut self) {
        let upto = self.needed_after();
        self.group.release(upto);
        self.log_view.pass(upto);
    }

    /// The index before the first entry that the settled state does not hold, or that raft has not handed out.
    fn needed_after(&self) -> Index {
        self.log_view.needed_after().min(self.group.applied())
    }

    /// The position before the first entry that the settled state does not hold: where a checkpoint of that
    /// state stands.
    pub fn checkpoint_position(&self) -> Option<Position> {
        let index = self.needed_after();
        assert!(index <= self.group.committed(), "a checkpoint stands for what is committed");
        Some(Position { index, term: self.group.term_of(index)? })
    }

    /// What a checkpoint at that position says of the log before it: the last fence and seal, and the peers.
    pub fn as_of(&self, index: Index) -> (Ruling, &Peers) {
        let ruling = self.log_view.ruling_at(index);
        assert!(ruling.seal.epoch <= ruling.fence, "a seal follows the fence of its epoch: {ruling:?}");
        (ruling, self.group.peers_at(index))
    }

    /// The epoch is over: takes back what is not settled, and says how leases move with it. What was proposed and
    /// is not committed stands in the log as anybody's.
    pub fn undo(&mut self, settled: Revision, moves: &mut Vec<LeaseMove>) {
        self.forget_epoch();
        // A state from a checkpoint is settled further than a process knows that has not served yet.
        let settled = settled.max(self.store.settled());
        self.store.undo_above(settled, &mut |undone: Undone| {
            moves.push(LeaseMove { key: undone.key, from: undone.lease, to: undone.lease_again });
        });
    }

    /// As [`Shard::undo`], of a shard whose store holds nothing that may be undone.
    pub fn forget_epoch(&mut self) {
        self.effects.clear();
        self.effects_bytes = 0;
        self.proposed.clear();
        self.pushed = (Revision::NONE, false);
    }

    /// What the shard brings to a takeover, having been read from that log.
    pub fn holding(&self, log: LogId) -> Holding {
        Holding { shard: self.id, log, held: self.log_view.held(), parts: self.log_view.parts() }
    }

    /// After the seal: applies what the prefix holds and the store does not.
    pub fn apply_prefix(&mut self, moves: &mut Vec<LeaseMove>) -> Result<(), InconsistentEntry> {
        self.apply_upto(Revision(u64::MAX), moves)
    }

    /// As [`Shard::apply_prefix`] where no seal has cut the log yet: what it holds above `prefix` is let be.
    pub fn apply_upto(
        &mut self,
        prefix: Revision,
        moves: &mut Vec<LeaseMove>,
    ) -> Result<(), InconsistentEntry> {
        let Shard { store, log_view, .. } = self;
        let applied = store.newest_revision().main;
        let missing = log_view.live().skip_while(|write| write.revision <= applied);
        let missing = missing.take_while(|write| write.revision <= prefix);
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

fn batch_of(write: &LiveWrite) -> Result<&ArchivedBatch, InconsistentEntry> {
    match write.batch.entry() {
        Ok(ArchivedEntry::Batch(batch)) => Ok(batch),
        _ => Err(InconsistentEntry { index: write.index, why: "a live write in no batch" }),
    }
}

fn apply(
    store: &mut Store,
    write: &LiveWrite,
    batch: &ArchivedBatch,
    moves: &mut Vec<LeaseMove>,
) -> Result<(), InconsistentEntry> {
    let strange = |why| InconsistentEntry { index: write.index, why };
    let logged = &batch.writes[write.place as usize];
    assert!(logged.revision.to_native() == write.revision.0, "a write stands where it was read");
    for change in logged.changes.iter() {
        match change {
            ArchivedChange::Put { sub, key, value, lease } => {
                let at = At { main: write.revision, sub: Sub(sub.to_native()) };
                let lease = LeaseId(lease.to_native());
                let (key, from) = store.put_over(at, key, Blob::new(value), lease);
                if from != lease {
                    moves.push(LeaseMove { key, from, to: lease });
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
