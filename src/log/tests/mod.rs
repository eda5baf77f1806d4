//! Properties of the log: on bytes alone, and against the simulated disk.

mod bytes;
mod crash;
mod reading;
mod rig;
mod segments;
mod witness;

use super::*;
use crate::types::{Peers, RaftId, StoreId};

const STORE: StoreId = StoreId(0x0123_4567_89AB_CDEF);

fn resident(shard: u32) -> Resident {
    Resident { shard: ShardId(shard), home: 1 }
}

fn opening(index: u64) -> Record<'static> {
    let hard = StoredHardState { term: Term(1), vote: None, commit: Index(index) };
    let (index, term, own) = (Index(index), Term(1), RaftId::new(2).unwrap());
    let peers = Peers::of(&[1, 2, 3], &[4]).unwrap();
    Record::Open(Cow::Owned(Opening { index, term, hard, own, peers }))
}
