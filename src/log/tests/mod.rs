//! Properties of the log: on bytes alone, and against the simulated disk.

mod bytes;
mod crash;
mod rig;
mod segments;
mod witness;

use super::*;
use crate::types::StoreId;

const STORE: StoreId = StoreId(0x0123_4567_89AB_CDEF);

fn resident(shard: u32) -> Resident {
    Resident { shard: ShardId(shard), home: 1 }
}

fn opening(index: u64) -> Record<'static> {
    let hard = HardState { term: Term(1), vote: 0, commit: Index(index) };
    let (index, term) = (Index(index), Term(1));
    Record::Open(Cow::Owned(Opening { index, term, hard, voters: vec![1, 2, 3], learners: vec![4] }))
}
