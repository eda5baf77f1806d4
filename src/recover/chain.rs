//! The files of a shard's checkpoint: which they are, and what they come to.
//!
//! The log names the newest file; that file's meta names those that it goes on from. Each must be what its name
//! and those who name it say, whatever the state of its checksums: a file of another shard, or an older one, is
//! whole and wrong.

use super::RESTORE;
use crate::checkpoint::{CheckpointDamage, CheckpointName, Item, LinkRecord, Meta, Reader};
use crate::lease::Attached;
use crate::log::Checkpointed;
use crate::mvcc::{Store, StoredVersion};
use crate::types::{Blob, Revision, ShardId};
use std::fmt::Display;

/// Reads a piece of a checkpoint file: name, offset, length. An empty piece is the end.
pub type ReadPiece<'a> = &'a mut dyn FnMut(&str, u64, usize) -> Result<Vec<u8>, String>;

/// How much of a checkpoint file is read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// How much is read at a time for its meta.
const META_PIECE_BYTES: usize = 128 << 10;

/// The files, of which the newest has told which they are.
#[derive(Debug)]
pub(super) struct Chain {
    shard: ShardId,
    /// The base first. The newest one's length is not known yet.
    files: Vec<LinkRecord>,
    /// The newest file's.
    meta: Box<Meta>,
}

/// What the files come to.
#[derive(Default)]
pub(super) struct Restored {
    pub store: Store,
    pub attached: Attached,
    /// The base first.
    pub files: Vec<LinkRecord>,
}

impl Chain {
    /// Finds the files that the newest one, named by the log, stands on. All of them must be there.
    pub fn find(
        shard: ShardId,
        newest: &Checkpointed,
        files: &[CheckpointName],
        read: ReadPiece<'_>,
    ) -> Result<Chain, String> {
        let Checkpointed { revision, index, term, file, home, hash } = *newest;
        let last = LinkRecord { home, file, revision: revision.0, bytes: 0, hash };
        let there = |link: &LinkRecord| {
            let name = link.name(shard);
            files.contains(&name).then_some(()).ok_or_else(|| missing(&name))
        };
        there(&last)?;
        let name = last.name(shard);
        let meta = read_meta(&name, read)?;
        check_identity(&name, &last, &meta)?;
        agree(&name, "index", index.0, meta.index)?;
        agree(&name, "term", term.0, meta.term)?;
        let mut files = meta.chain.clone();
        files.iter().try_for_each(there)?;
        files.push(last);
        Ok(Chain { shard, files, meta })
    }

    pub fn names(&self) -> impl Iterator<Item = CheckpointName> {
        self.files.iter().map(|link| link.name(self.shard))
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Reads all files, one after the other.
    pub fn restore(&self, read: ReadPiece<'_>) -> Result<Restored, String> {
        let (compacted, upto) = (Revision(self.meta.compacted), Revision(self.meta.revision));
        let mut restored = Restored { store: Store::restoring(compacted, upto), ..Restored::default() };
        for (place, link) in self.files.iter().enumerate() {
            let bytes = self.read_file(place, link, &mut restored, read)?;
            restored.files.push(LinkRecord { bytes, ..*link });
        }
        Ok(restored)
    }

    /// Reads one file; gives its length.
    fn read_file(
        &self,
        place: usize,
        link: &LinkRecord,
        restored: &mut Restored,
        read: ReadPiece<'_>,
    ) -> Result<u64, String> {
        let name = link.name(self.shard);
        let (mut reader, mut bytes) = (Reader::new(), 0);
        let mut identity = Ok(());
        loop {
            let piece = read(&name.to_string(), bytes, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            bytes += piece.len() as u64;
            let fed = reader.feed(&piece, &mut |item| match item {
                Item::Meta(meta) => identity = self.check_place(place, &name, link, &meta),
                Item::Version(version) if identity.is_ok() => restored.take(&version),
                Item::Version(_) => {}
            });
            fed.map_err(|damage| damaged(&name, damage))?;
            identity.clone()?;
        }
        let footer = reader.finish().map_err(|damage| damaged(&name, damage))?;
        agree(&name, "hash", link.hash, footer.hash)?;
        Ok(bytes)
    }

    fn check_place(
        &self,
        place: usize,
        name: &CheckpointName,
        link: &LinkRecord,
        meta: &Meta,
    ) -> Result<(), String> {
        check_identity(name, link, meta)?;
        match meta.chain == self.files[..place] {
            true => Ok(()),
            false => Err(misplaced(name, "it goes on from other files than those that go on from it say")),
        }
    }
}

impl Restored {
    pub fn take(&mut self, version: &StoredVersion<'_>) {
        let before = self.store.restore(version);
        if before != version.lease {
            self.attached.change(&Blob::new(version.key), before, version.lease);
        }
    }
}

fn read_meta(name: &CheckpointName, read: ReadPiece<'_>) -> Result<Box<Meta>, String> {
    let (mut reader, mut bytes, mut meta) = (Reader::new(), 0, None);
    while meta.is_none() {
        let piece = read(&name.to_string(), bytes, META_PIECE_BYTES)?;
        if piece.is_empty() {
            return Err(damaged(name, CheckpointDamage::Short));
        }
        bytes += piece.len() as u64;
        let mut take = |item: Item<'_>| {
            if let Item::Meta(found) = item {
                meta = Some(found);
            }
        };
        reader.feed(&piece, &mut take).map_err(|damage| damaged(name, damage))?;
    }
    Ok(meta.expect("the loop ends with it"))
}

fn check_identity(name: &CheckpointName, link: &LinkRecord, meta: &Meta) -> Result<(), String> {
    agree(name, "shard", u64::from(name.shard.0), u64::from(meta.shard))?;
    agree(name, "home", u64::from(link.home), u64::from(meta.home))?;
    agree(name, "number", link.file, meta.file)?;
    agree(name, "revision", link.revision, meta.revision)
}

fn agree(name: &CheckpointName, what: &str, named: u64, found: u64) -> Result<(), String> {
    match named == found {
        true => Ok(()),
        false => Err(misplaced(name, format!("its {what} is {found:#x}, and {named:#x} is asked for"))),
    }
}

fn missing(name: &CheckpointName) -> String {
    format!(
        "checkpoint {name} is missing: the data directory is incomplete; put back the file that belongs here, or {RESTORE}"
    )
}

fn damaged(name: &CheckpointName, damage: CheckpointDamage) -> String {
    if let CheckpointDamage::Format(version) = damage {
        return format!("checkpoint {name} {version}");
    }
    format!("checkpoint {name} cannot be used: {damage}; put back the file that belongs here, or {RESTORE}")
}

fn misplaced(name: &CheckpointName, why: impl Display) -> String {
    format!(
        "checkpoint {name} is not the file that was written under this name: {why}; put back the file that belongs here, or {RESTORE}"
    )
}
