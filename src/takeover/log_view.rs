//! What one shard's log means: which writes in it are live.
//!
//! The log is read once, in its order, and seals alone decide: a seal voids the writes before it that are
//! above its prefix, and a batch of another epoch than the last seal's is void. So whether a write is live
//! follows from the log, and every member that reads the same log finds the same. What contradicts the order
//! of epochs or revisions is [`InconsistentEntry`]: neither a power cut nor a lost leader leaves it.
//! A log is read at commit, never at proposal: what only stands in it is kept beside, and can be taken back.

use super::Part;
use crate::raft::{FRESH_BASE, Position};
use crate::record::{ArchivedControlEntry, ArchivedEntry, Payload, Piece};
use crate::stdx::AsOf;
use crate::types::{Epoch, Index, Revision, ShardId};
use std::collections::VecDeque;
use std::fmt;

/// The last seal of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    pub epoch: Epoch,
    pub prefix: Revision,
}

/// The last fence and the last seal up to some place of a log: what follows is read as they rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    pub fence: Epoch,
    pub seal: Seal,
}

/// A write that stands in the log and is not voided by it. Above `settled` it may still be.
#[derive(Clone, Debug)]
pub struct LiveWrite {
    pub revision: Revision,
    pub parts: u16,
    /// The shard's part goes on in the next write.
    pub more: bool,
    pub epoch: Epoch,
    pub index: Index,
    /// The batch it stands in, and its place there.
    pub batch: Payload,
    pub place: u32,
}

/// Gives back what a queue took while a whole log was read into it, down to what a few turns need.
fn shrink<T>(queue: &mut VecDeque<T>, kept: usize) {
    if queue.capacity() > kept && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(kept.max(2 * queue.len()));
    }
}

/// What of the control shard's log takes effect next.
#[derive(Clone, Debug)]
pub enum NextEffect {
    Write(LiveWrite),
    Control(Index, Payload),
}

impl NextEffect {
    /// Where it stands.
    pub fn index(&self) -> Index {
        match self {
            NextEffect::Write(write) => write.index,
            NextEffect::Control(index, _) => *index,
        }
    }
}

/// An entry that contradicts the rules of the log: our own mistake, or a disk that lies beyond its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InconsistentEntry {
    pub index: Index,
    pub why: &'static str,
}

impl InconsistentEntry {
    /// What is said to the operator.
    pub fn of_shard(self, shard: ShardId) -> String {
        format!(
            "the log of shard {shard} makes no sense: {self}. Report this, and restore the data directory from a \
             copy that was made while the server was stopped; braid dump-log prints what can still be read"
        )
    }
}

impl fmt::Display for InconsistentEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}: {}", self.index, self.why)
    }
}

/// What an entry of a log says. It counts for nothing before the entry is committed.
#[derive(Debug)]
enum EntryKind {
    /// Raft's own: the first of a term, or a change of peers.
    Nothing,
    /// What no shard proposes, which is told when it commits.
    Senseless(&'static str),
    Fence(Epoch),
    Seal(Seal),
    Batch {
        epoch: Epoch,
        settled: Revision,
        writes: usize,
    },
    Control {
        epoch: Epoch,
        settled: Revision,
        /// The one entry that may stand before any seal.
        first: bool,
        payload: Payload,
    },
}

/// An entry, decoded, on its way into the log.
#[derive(Debug)]
pub struct Decoded {
    says: EntryKind,
    writes: Vec<LiveWrite>,
}

impl Decoded {
    /// Reads what a shard has proposed; none is raft's own.
    pub fn of(index: Index, data: Option<&Payload>) -> Decoded {
        let Some(payload) = data else { return EntryKind::Nothing.into() };
        let says = match payload.entry() {
            Err(_) => EntryKind::Senseless("its payload cannot be read"),
            Ok(ArchivedEntry::ConfChange(_)) => {
                EntryKind::Senseless("a change of peers under the kind of what shards propose")
            }
            Ok(ArchivedEntry::Fence(epoch)) => EntryKind::Fence(epoch.into()),
            Ok(ArchivedEntry::Seal { epoch, prefix }) => {
                EntryKind::Seal(Seal { epoch: epoch.into(), prefix: Revision(prefix.to_native()) })
            }
            Ok(ArchivedEntry::Batch(batch)) => {
                let heads = batch
                    .writes
                    .iter()
                    .map(|write| (Revision(write.revision.to_native()), write.parts.to_native(), write.more));
                let (epoch, settled) = (Epoch::from(&batch.epoch), Revision(batch.settled.to_native()));
                return Decoded::writes(index, epoch, settled, payload, heads);
            }
            Ok(ArchivedEntry::Control { epoch, settled, control }) => EntryKind::Control {
                epoch: epoch.into(),
                settled: Revision(settled.to_native()),
                first: matches!(control, ArchivedControlEntry::Bootstrap { .. }),
                payload: payload.clone(),
            },
        };
        says.into()
    }

    /// A batch that this member made of these pieces, so that it need not be read back.
    pub fn batch(
        index: Index,
        epoch: Epoch,
        settled: Revision,
        payload: &Payload,
        pieces: &[Piece],
    ) -> Decoded {
        let heads = pieces.iter().map(|piece| (piece.revision, piece.parts, piece.more));
        Decoded::writes(index, epoch, settled, payload, heads)
    }

    fn writes(
        index: Index,
        epoch: Epoch,
        settled: Revision,
        batch: &Payload,
        heads: impl ExactSizeIterator<Item = (Revision, u16, bool)>,
    ) -> Decoded {
        let writes = heads.zip(0..).map(|((revision, parts, more), place)| LiveWrite {
            revision,
            parts,
            more,
            epoch,
            index,
            batch: batch.clone(),
            place,
        });
        let writes: Vec<LiveWrite> = writes.collect();
        Decoded { says: EntryKind::Batch { epoch, settled, writes: writes.len() }, writes }
    }
}

impl From<EntryKind> for Decoded {
    fn from(says: EntryKind) -> Decoded {
        Decoded { says, writes: vec![] }
    }
}

/// An entry that stands in the log uncommitted.
#[derive(Debug)]
struct StandingEntry {
    at: Position,
    says: EntryKind,
}

/// An entry that was read at its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRead {
    Fence(Epoch),
    Seal(Seal),
    /// So many writes have become live: see [`LogView::newest`].
    Writes(usize),
    Control,
    /// Raft's own, or void.
    Nothing,
}

/// What the committed entries of a log come to: its live writes above the state already held, in the order of
/// their revisions. Beside it stand the entries that are not committed, which say nothing yet: what a member has
/// proposed may still be truncated, and then leaves no trace here.
#[derive(Debug)]
pub struct LogView {
    /// As of each index that a checkpoint may still name: a seal may be committed while a write before it is not
    /// settled here, and a checkpoint stands before that write.
    rulings: AsOf<Index, Ruling>,
    /// Writes up to this revision are in the state and are not kept here.
    held: Revision,
    /// The highest `settled` that a batch names behind the last seal, or what that seal does.
    named_settled: Revision,
    live: VecDeque<LiveWrite>,
    /// Live control entries that have not taken effect, each with what was settled when it was proposed.
    controls: VecDeque<(Index, Revision, Payload)>,
    /// The last entry that was read.
    committed: Position,
    /// What stands behind it, without a gap.
    standing: VecDeque<StandingEntry>,
    /// The writes of the batches there, one batch behind the other.
    standing_writes: VecDeque<LiveWrite>,
    /// Writes that a seal has voided.
    voided: u64,
}

/// That of a log that has just begun.
impl Default for LogView {
    fn default() -> LogView {
        LogView::new(Revision::NONE, Ruling::default(), FRESH_BASE)
    }
}

impl LogView {
    /// For a log whose state at `held` is known. The log goes on behind `base`, as of which the ruling is.
    pub fn new(held: Revision, ruling: Ruling, base: Position) -> LogView {
        LogView {
            rulings: AsOf::new(ruling),
            held,
            named_settled: held.max(ruling.seal.prefix),
            live: VecDeque::new(),
            controls: VecDeque::new(),
            committed: base,
            standing: VecDeque::new(),
            standing_writes: VecDeque::new(),
            voided: 0,
        }
    }

    pub fn seal(&self) -> Seal {
        self.rulings.newest().seal
    }

    pub fn fence(&self) -> Epoch {
        self.rulings.newest().fence
    }

    /// The last fence and seal as of an index that was not passed.
    pub fn ruling_at(&self, index: Index) -> Ruling {
        *self.rulings.at(index)
    }

    /// No checkpoint stands before this index any more.
    pub fn pass(&mut self, index: Index) {
        assert!(index <= self.needed_after(), "a checkpoint may stand before what is not settled");
        self.rulings.pass(index);
    }

    /// The newest epoch that the log names, committed or not: none may be named twice.
    pub fn newest_epoch(&self) -> Epoch {
        let standing = self.standing.iter().filter_map(|standing| match standing.says {
            EntryKind::Fence(epoch) => Some(epoch),
            EntryKind::Seal(seal) => Some(seal.epoch),
            _ => None,
        });
        standing.fold(self.fence().max(self.seal().epoch), Epoch::max)
    }

    /// The last entry that was read.
    pub fn committed(&self) -> Position {
        self.committed
    }

    /// The last entry of the log, committed or not.
    pub fn last(&self) -> Position {
        self.standing.back().map_or(self.committed, |standing| standing.at)
    }

    /// The highest revision that is known to be settled, by this log or by the state behind it.
    pub fn known_settled(&self) -> Revision {
        self.named_settled.max(self.held)
    }

    /// Those that have settled more than this member has are lost for ever: what they named is not to be found.
    pub fn forget_named(&mut self) {
        self.named_settled = self.held;
    }

    /// The state holds everything up to here.
    pub fn held(&self) -> Revision {
        self.held
    }

    pub fn live(&self) -> impl Iterator<Item = &LiveWrite> {
        self.live.iter()
    }

    /// The last so many of them.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &LiveWrite> {
        assert!(count <= self.live.len(), "what has just been read is live");
        self.live.range(self.live.len() - count..)
    }

    /// Where the live control entries stand that have not taken effect.
    pub fn controls(&self) -> impl Iterator<Item = Index> {
        self.controls.iter().map(|(index, ..)| *index)
    }

    /// The control entries that have not taken effect, in the order of the log. What is not committed of them may never.
    pub fn controls_ahead(&self) -> impl Iterator<Item = &Payload> {
        let standing = self.standing.iter().filter_map(|standing| match &standing.says {
            EntryKind::Control { payload, .. } => Some(payload),
            _ => None,
        });
        self.controls.iter().map(|(.., payload)| payload).chain(standing)
    }

    /// The log takes an entry, which may be voided, truncated or committed. What stood there and behind gives way.
    pub fn stand(&mut self, at: Position, entry: Decoded) {
        self.truncate(at.index);
        let last = self.last();
        assert!(at.index == last.index.next(), "a log has no gap: {at:?} behind {last:?}");
        assert!(at.term >= last.term, "terms do not fall along a log: {at:?} behind {last:?}");
        self.standing.push_back(StandingEntry { at, says: entry.says });
        let is_behind = |write: &LiveWrite| write.index == at.index;
        assert!(entry.writes.first().is_none_or(is_behind), "a batch stands where its writes say");
        self.standing_writes.extend(entry.writes);
    }

    /// The log ends before this index now: what stood there and behind was never committed and says nothing.
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.committed.index, "what is committed is not truncated, as entry {from} was");
        while let Some(gone) = self.standing.pop_back_if(|standing| standing.at.index >= from) {
            if let EntryKind::Batch { writes, .. } = gone.says {
                assert!(writes <= self.standing_writes.len(), "the writes of a batch stand with it");
                self.standing_writes.truncate(self.standing_writes.len() - writes);
            }
        }
    }

    /// Reads the next entry, if it is committed.
    pub fn read_next(
        &mut self,
        committed: Index,
    ) -> Result<Option<(Position, EntryRead)>, InconsistentEntry> {
        let Some(StandingEntry { at, says }) = self.standing.pop_front_if(|next| next.at.index <= committed)
        else {
            assert!(self.committed.index >= committed, "the log does not hold all that is committed");
            shrink(&mut self.standing, 256);
            shrink(&mut self.standing_writes, 1024);
            return Ok(None);
        };
        assert!(at.index == self.committed.index.next(), "each entry is read once, and none is passed over");
        self.committed = at;
        let read = self.read(at.index, says).map_err(|why| InconsistentEntry { index: at.index, why })?;
        Ok(Some((at, read)))
    }

    fn read(&mut self, index: Index, says: EntryKind) -> Result<EntryRead, &'static str> {
        match says {
            EntryKind::Nothing => Ok(EntryRead::Nothing),
            EntryKind::Senseless(why) => Err(why),
            EntryKind::Fence(epoch) => {
                if epoch <= self.fence() {
                    return Err("a fence of an epoch that is not newer than the last");
                }
                self.rulings.change(index, Ruling { fence: epoch, seal: self.seal() });
                Ok(EntryRead::Fence(epoch))
            }
            EntryKind::Seal(seal) => {
                if seal.epoch <= self.seal().epoch {
                    return Err("a seal of an epoch that is not newer than the last");
                }
                self.sealed(index, seal);
                Ok(EntryRead::Seal(seal))
            }
            EntryKind::Batch { epoch, settled, writes } => {
                if epoch != self.seal().epoch {
                    self.standing_writes.drain(..writes);
                    return Ok(EntryRead::Nothing); // void
                }
                self.named_settled = self.named_settled.max(settled);
                self.read_writes(writes).map(EntryRead::Writes)
            }
            EntryKind::Control { epoch, settled, first, payload } => {
                if !first && epoch != self.seal().epoch {
                    return Ok(EntryRead::Nothing); // void
                }
                self.named_settled = self.named_settled.max(settled);
                let needs = if first { Revision::NONE } else { settled };
                self.controls.push_back((index, needs, payload));
                Ok(EntryRead::Control)
            }
        }
    }

    /// Makes the writes of the next batch live, and says how many the state does not hold yet.
    fn read_writes(&mut self, writes: usize) -> Result<usize, &'static str> {
        let mut read = 0;
        for write in self.standing_writes.drain(..writes) {
            if write.revision <= self.held {
                continue;
            }
            if let Some(last) = self.live.back() {
                if last.more && last.revision != write.revision {
                    return Err("a revision's part does not go on");
                }
                if last.revision > write.revision || last.revision == write.revision && !last.more {
                    return Err("its revisions do not rise");
                }
            }
            if write.parts == 0 {
                return Err("a revision in no shard");
            }
            self.live.push_back(write);
            read += 1;
        }
        Ok(read)
    }

    /// Whether what takes effect next is a control entry, and what has to be settled for it.
    fn next_is_control(&self) -> Option<Revision> {
        let write = self.live.front().map(|write| write.index);
        let (control, needs, _) = self.controls.front()?;
        write.is_none_or(|write| *control < write).then_some(*needs)
    }

    /// What has to be settled for the next thing to take effect.
    pub fn due_revision(&self) -> Option<Revision> {
        self.next_is_control().or_else(|| self.live.front().map(|write| write.revision))
    }

    /// What takes effect next, in the order of the log: a write once it is settled, a control entry once
    /// everything before it has taken effect, and what it had seen is settled here. Nothing behind `upto` does.
    pub fn next_due(&mut self, settled: Revision, upto: Index) -> Option<NextEffect> {
        if let Some(needs) = self.next_is_control() {
            let is_due = |(index, ..): &mut (Index, _, _)| needs <= settled && *index <= upto;
            let (index, _, payload) = self.controls.pop_front_if(is_due)?;
            return Some(NextEffect::Control(index, payload));
        }
        let write = self.live.pop_front_if(|write| write.revision <= settled && write.index <= upto)?;
        assert!(
            write.revision >= self.held,
            "what takes effect rises: {} after {}",
            write.revision,
            self.held
        );
        self.held = write.revision;
        Some(NextEffect::Write(write))
    }

    /// All that [`LogView::next_due`] would give, one after the other.
    pub fn due(&self, settled: Revision) -> Vec<NextEffect> {
        let (mut controls, mut writes) = (self.controls.iter().peekable(), self.live.iter().peekable());
        let mut due = vec![];
        loop {
            let write = writes.peek().map(|write| write.index);
            let is_next = |(index, ..): &&(Index, _, _)| write.is_none_or(|write| *index < write);
            let next = match controls.next_if(is_next) {
                Some((_, needs, _)) if *needs > settled => None,
                Some((index, _, payload)) => Some(NextEffect::Control(*index, payload.clone())),
                None => writes.next_if(|write| write.revision <= settled).cloned().map(NextEffect::Write),
            };
            let Some(next) = next else { break };
            due.push(next);
        }
        assert!(due.is_sorted_by_key(NextEffect::index), "what takes effect does so in the order of the log");
        let last = due.last().map(NextEffect::index);
        assert!(last <= Some(self.committed.index), "what takes effect is committed: {last:?}");
        due
    }

    /// The state is known to hold everything up to a settled revision, of which nothing is left here.
    pub fn hold(&mut self, settled: Revision) {
        if self.live.front().is_none_or(|write| write.revision > settled) {
            self.held = self.held.max(settled);
        }
    }

    fn sealed(&mut self, index: Index, seal: Seal) {
        self.rulings.change(index, Ruling { fence: self.fence(), seal });
        // It says what is settled, and is behind what was named before only where that is lost for ever.
        self.named_settled = seal.prefix.max(self.held);
        self.controls.retain(|(_, needs, _)| *needs <= seal.prefix);
        while self.live.back().is_some_and(|write| write.revision > seal.prefix) {
            self.live.pop_back();
            self.voided += 1;
        }
        let last = self.live.back().map(|write| write.revision);
        assert!(last.is_none_or(|last| last <= seal.prefix), "what is live is in the prefix: {last:?}");
    }

    /// Writes that a seal has voided since the log is read here.
    pub fn voided(&self) -> u64 {
        self.voided
    }

    /// The state holds everything up to here; nothing below can be voided any more.
    pub fn settle(&mut self, upto: Revision) {
        assert!(upto >= self.held, "settled rises: {upto} after {}", self.held);
        self.held = upto;
        while self.live.front().is_some_and(|write| write.revision <= upto) {
            self.live.pop_front();
        }
        shrink(&mut self.live, 4096);
    }

    /// The index before the first entry that the state does not hold yet: the log from there on is needed.
    pub fn needed_after(&self) -> Index {
        let write = self.live.front().map(|write| write.index);
        let control = self.controls.front().map(|(index, ..)| *index);
        let first = write.into_iter().chain(control).min();
        let needed_after = first.map_or(self.committed.index, |index| Index(index.0 - 1));
        assert!(needed_after <= self.committed.index, "what is live is committed");
        needed_after
    }

    /// What this log brings to the run: a part counts once its last piece is there.
    pub fn parts(&self) -> Vec<Part> {
        let whole = self.live.iter().filter(|write| !write.more);
        let part =
            |write: &LiveWrite| Part { revision: write.revision, parts: write.parts, epoch: write.epoch };
        let parts: Vec<Part> = whole.map(part).collect();
        assert!(parts.is_sorted_by(|a, b| a.revision < b.revision), "a shard has one part of a revision");
        parts
    }
}
