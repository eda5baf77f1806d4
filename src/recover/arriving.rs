//! A shard's state as another member gives it: a checkpoint, block by block, written to a file of this member's and
//! read at the same time.
//!
//! It is read as a file would be at a start, and believed no more: what does not fit its name or makes no sense is
//! the other member's fault, and nothing of it is used.

use super::chain::Restored;
use super::position_of;
use crate::checkpoint::{CheckpointName, Item, LinkRecord, Meta, Reader};
use crate::lease::Attached;
use crate::limits::{BLOCK_BYTES, CHECKPOINT_BLOCK_BYTES_MAX, RAFT_NUMBERS, REVISIONS};
use crate::mvcc::Store;
use crate::raft::Position;
use crate::router::Router;
use crate::takeover::Ruling;
use crate::types::{Epoch, Index, Peers, Revision, ShardId, Term};

/// A state of which some has come.
pub struct Arriving {
    name: CheckpointName,
    reader: Reader,
    meta: Option<Box<Meta>>,
    state: Restored,
    bytes: u64,
}

/// A whole state.
pub struct ArrivedState {
    pub meta: Box<Meta>,
    pub store: Store,
    pub attached: Attached,
    /// The file that holds it.
    pub file: LinkRecord,
}

impl Arriving {
    /// Of a state that is written to this file.
    pub fn new(name: CheckpointName) -> Arriving {
        Arriving { name, reader: Reader::new(), meta: None, state: Restored::default(), bytes: 0 }
    }

    /// Takes the next block. An error says what is wrong with it.
    pub fn take(&mut self, block: &[u8]) -> Result<(), String> {
        let len = block.len();
        if len == 0 || len > CHECKPOINT_BLOCK_BYTES_MAX || !len.is_multiple_of(BLOCK_BYTES) {
            return Err(format!("a state does not come in blocks of {len} bytes"));
        }
        self.bytes += len as u64;
        let Arriving { name, reader, meta: known, state, .. } = self;
        let mut wrong = Ok(());
        let fed = reader.feed(block, &mut |item| match item {
            Item::Meta(meta) => {
                wrong = check(name, &meta);
                if wrong.is_ok() {
                    let (compacted, upto) = (Revision(meta.compacted), Revision(meta.revision));
                    *state = Restored { store: Store::restoring(compacted, upto), ..Restored::default() };
                    *known = Some(meta);
                }
            }
            Item::Version(version) if wrong.is_ok() => state.take(&version),
            Item::Version(_) => {}
        });
        fed.map_err(|damage| format!("the state of shard {}: {damage}", name.shard))?;
        wrong.map_err(|why| format!("the state of shard {}: {why}", name.shard))
    }

    /// Everything has come.
    pub fn finish(self) -> Result<ArrivedState, String> {
        let CheckpointName { shard, home, file } = self.name;
        let footer =
            self.reader.finish().map_err(|damage| format!("the state of shard {shard}: {damage}"))?;
        let meta = self.meta.expect("what has a footer has a meta before it");
        let file = LinkRecord { home, file, revision: meta.revision, bytes: self.bytes, hash: footer.hash };
        let Restored { store, attached, .. } = self.state;
        Ok(ArrivedState { meta, store, attached, file })
    }
}

/// Whether a meta can be meant, and is of the file that was asked for.
fn check(name: &CheckpointName, meta: &Meta) -> Result<(), &'static str> {
    let is_it = (meta.shard, meta.home, meta.file) == (name.shard.0, name.home, name.file);
    let in_bounds = (1..RAFT_NUMBERS).contains(&meta.index)
        && (1..RAFT_NUMBERS).contains(&meta.term)
        && meta.revision < REVISIONS
        && meta.compacted <= meta.revision;
    let known_at = meta.control.as_ref().map_or(0, |control| control.index);
    let is_control = name.shard == ShardId::CONTROL;
    let cuts = meta.control.as_ref().map(|control| Router::new(&control.cuts, 1));
    match () {
        () if !is_it => Err("it is of another file than was asked for"),
        () if !meta.chain.is_empty() => Err("it goes on from files that are not here"),
        () if !in_bounds => Err("its numbers are beyond all"),
        () if Epoch::from(meta.seal) > Epoch::from(meta.fence) => Err("its seal is ahead of its fence"),
        () if meta.control.is_some() != is_control => Err("the control shard alone has the control state"),
        () if known_at > meta.index => Err("its control state is ahead of its index"),
        () if cuts.is_some_and(|cuts| cuts.is_err()) => Err("its map of the shards is none"),
        () => Ok(()),
    }
}

impl ArrivedState {
    /// Behind which the log goes on.
    pub fn at(&self) -> Position {
        Position { index: Index(self.meta.index), term: Term(self.meta.term) }
    }

    pub fn revision(&self) -> Revision {
        Revision(self.meta.revision)
    }

    /// The last fence and seal as of the place.
    pub fn ruling(&self) -> Ruling {
        position_of(&self.meta).1
    }

    /// The group's peers as of the place.
    pub fn peers(&self) -> Peers {
        self.meta.peers().expect("a checkpoint whose peers have no ids is not read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Writer;
    use crate::record::EpochRecord;
    use crate::types::{At, Blob, Event, KeyValue, LeaseId, Sub};

    const NAME: CheckpointName = CheckpointName { shard: ShardId(2), home: 1, file: 9 };

    fn meta() -> Meta {
        let epoch = EpochRecord { term: 3, attempt: 1 };
        Meta {
            shard: 2,
            home: 1,
            file: 9,
            chain: vec![],
            revision: 40,
            compacted: 5,
            index: 12,
            term: 3,
            voters: vec![7, 8],
            learners: vec![],
            fence: epoch,
            seal: epoch,
            seal_prefix: 30,
            epoch,
            map_version: 0,
            control: None,
        }
    }

    /// The blocks of a state with one key.
    fn blocks(meta: &Meta) -> Vec<Vec<u8>> {
        let (at, mut blocks) = (At { main: Revision(7), sub: Sub(0) }, vec![]);
        let mut writer = Writer::new(meta, &mut blocks);
        let (key, value, lease) = (Blob::new(b"k"), Blob::new(b"v"), LeaseId(4));
        let (create_revision, mod_revision) = (at.main, at.main);
        let kv = KeyValue { key, value, create_revision, mod_revision, version: 1, lease };
        writer.version(at, &Event::Put(kv), &mut blocks);
        writer.finish(&mut blocks);
        blocks.iter().map(|block| block.to_vec()).collect()
    }

    fn taken(blocks: &[Vec<u8>]) -> Result<ArrivedState, String> {
        let mut arriving = Arriving::new(NAME);
        blocks.iter().try_for_each(|block| arriving.take(block))?;
        arriving.finish()
    }

    #[test]
    fn a_state_comes_whole() {
        let blocks = blocks(&meta());
        let arrived = taken(&blocks).unwrap();
        assert_eq!((arrived.at().index, arrived.revision()), (Index(12), Revision(40)));
        assert_eq!(arrived.file.bytes as usize, blocks.concat().len());
        assert_eq!(arrived.store.get(b"k", Revision(40)).unwrap().lease, LeaseId(4));
        assert!(taken(&blocks[..1]).is_err(), "the end is missing");
    }

    #[test]
    fn a_state_that_nobody_means_is_refused() {
        let is_refused = |change: &dyn Fn(&mut Meta), why: &str| {
            let mut meta = meta();
            change(&mut meta);
            let refusal = taken(&blocks(&meta)).err().expect(why);
            assert!(refusal.contains(why), "{refusal}");
        };
        is_refused(&|meta| meta.shard = 3, "another file");
        is_refused(&|meta| meta.file = 8, "another file");
        is_refused(&|meta| meta.index = RAFT_NUMBERS, "beyond all");
        is_refused(&|meta| meta.revision = REVISIONS, "beyond all");
        let link = LinkRecord { home: 1, file: 4, revision: 6, bytes: 1, hash: 1 };
        is_refused(&|meta| meta.chain = vec![link], "files that are not here");
        let block = &blocks(&meta())[0];
        let mut rotten = block.clone();
        rotten[100] ^= 1;
        assert!(taken(&[rotten]).err().unwrap().contains("cannot be read"));
        assert!(taken(&[block[..1000].to_vec()]).err().unwrap().contains("blocks of 1000 bytes"));
    }
}
