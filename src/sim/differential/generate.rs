//! Requests over a few keys, with every field, so that what is rare elsewhere is common here.

use super::{OPS_MAX, Step};
use crate::api::{
    CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, LeaseGrantRequest, Op,
    PutRequest, RangeRequest, Request, TxnRequest,
};
use crate::stdx::Rng;
use crate::types::LeaseId;
use bytes::Bytes;

/// Most requests name the first few of these; the rest make ranges long.
static KEYS: [&[u8]; 24] = [
    b"b", b"c", b"d", b"e", b"f", b"\0", b"a", b"a\0", b"\xff", b"a1", b"a2", b"b1", b"b2", b"c1", b"c2",
    b"d1", b"d2", b"d3", b"d4", b"e1", b"e2", b"e3", b"f1", b"f2",
];
const KEYS_OFTEN: usize = 9;
static VALUES: [&[u8]; 4] = [b"", b"x", b"y", b"zz"];
pub const LEASES: [LeaseId; 3] = [LeaseId(1), LeaseId(2), LeaseId(-3)];

pub struct Generator {
    rng: Rng,
    /// About how high revisions are by now.
    revision: i64,
}

impl Generator {
    pub fn new(rng: Rng) -> Generator {
        Generator { rng, revision: 1 }
    }

    pub fn steps(&mut self, steps: usize) -> Vec<Step> {
        (0..steps).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Step {
        match self.rng.below(40) {
            0..6 => {
                self.revision += 1;
                Step::Request(Request::Put(self.put()))
            }
            6..8 => {
                self.revision += 1;
                Step::Request(Request::Txn(self.fill()))
            }
            8..12 => Step::Request(Request::DeleteRange(self.delete())),
            12..16 => Step::Request(Request::Range(self.range())),
            16..19 => Step::Stream(self.stream()),
            19..32 => {
                self.revision += 1;
                Step::Request(Request::Txn(self.txn(3)))
            }
            32..34 => Step::Request(Request::LeaseGrant(LeaseGrantRequest { ttl: 9, id: self.lease() })),
            34 => Step::Request(Request::LeaseRevoke(self.lease())),
            35 => {
                let revision = 1 + self.rng.below(self.revision as u64 + 1) as i64;
                Step::Request(Request::Compact(CompactRequest { revision, physical: false }))
            }
            36..38 => Step::Settle(self.rng.below(1001)),
            _ => Step::Undo(self.rng.below(1001)),
        }
    }

    fn lease(&mut self) -> LeaseId {
        *self.rng.pick(&LEASES)
    }

    fn one_of(&mut self, of: &'static [&'static [u8]]) -> Bytes {
        Bytes::from_static(self.rng.pick::<&[u8]>(of))
    }

    fn key(&mut self) -> Bytes {
        if self.rng.chance(1, 200) {
            return Bytes::new();
        }
        let among = if self.rng.chance(3, 4) { KEYS_OFTEN } else { KEYS.len() };
        self.one_of(&KEYS[..among])
    }

    /// A transaction that puts many keys.
    fn fill(&mut self) -> TxnRequest {
        let first = self.rng.below((KEYS.len() - OPS_MAX) as u64) as usize;
        let put = |key| {
            Op::Put(PutRequest { key: Bytes::from_static(key), value: self.value(), ..PutRequest::default() })
        };
        let success = KEYS[first..first + OPS_MAX].iter().copied().map(put).collect();
        TxnRequest { success, ..TxnRequest::default() }
    }

    fn range_end(&mut self) -> Bytes {
        match self.rng.below(4) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            _ => self.one_of(&KEYS),
        }
    }

    fn value(&mut self) -> Bytes {
        self.one_of(&VALUES)
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.rng.chance(1, 8);
        let ignore_lease = self.rng.chance(1, 8);
        PutRequest {
            key: self.key(),
            value: if ignore_value && self.rng.chance(7, 8) { Bytes::new() } else { self.value() },
            lease: if self.rng.chance(if ignore_lease { 1 } else { 3 }, 8) {
                self.lease()
            } else {
                LeaseId::NONE
            },
            prev_kv: self.rng.chance(1, 2),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = if self.rng.chance(1, 3) { self.range_end() } else { Bytes::new() };
        DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.rng.chance(1, 2) }
    }

    fn revision(&mut self) -> i64 {
        if self.rng.chance(2, 3) { 0 } else { self.rng.below(self.revision as u64 + 5) as i64 - 3 }
    }

    fn plain_range(&mut self) -> RangeRequest {
        RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: if self.rng.chance(1, 2) { self.rng.below(15) as i64 - 1 } else { 0 },
            revision: self.revision(),
            serializable: self.rng.chance(1, 2),
            keys_only: self.rng.chance(1, 3),
            count_only: self.rng.chance(1, 6),
            ..RangeRequest::default()
        }
    }

    /// A target is taken without an order alone.
    fn stream(&mut self) -> RangeRequest {
        let sort_target = if self.rng.chance(1, 3) { self.rng.below(5) as i32 } else { 0 };
        RangeRequest { sort_target, ..self.plain_range() }
    }

    fn range(&mut self) -> RangeRequest {
        let mut request = self.plain_range();
        if self.rng.chance(1, 2) {
            request.sort_order = self.rng.below(3) as i32;
            request.sort_target = self.rng.below(5) as i32;
        }
        if self.rng.chance(1, 40) {
            request.sort_order = 3;
        }
        for filter in [
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            if self.rng.chance(1, 8) {
                *filter = self.rng.below(self.revision as u64 + 2) as i64;
            }
        }
        request
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        TxnRequest {
            compare: (0..self.few(3)).map(|_| self.compare()).collect(),
            success: (0..self.few(4)).map(|_| self.op(depth)).collect(),
            failure: (0..self.few(4)).map(|_| self.op(depth)).collect(),
        }
    }

    fn few(&mut self, below: u64) -> u64 {
        if self.rng.chance(1, 60) { 9 } else { self.rng.below(below) }
    }

    fn op(&mut self, depth: usize) -> Op {
        match self.rng.below(if depth > 0 { 12 } else { 9 }) {
            0..3 => Op::Put(self.put()),
            3..6 => Op::Range(self.range()),
            6..8 => Op::DeleteRange(self.delete()),
            8 if self.rng.chance(1, 20) => Op::Empty,
            8 => Op::Put(self.put()),
            _ => Op::Txn(self.txn(depth - 1)),
        }
    }

    fn compare(&mut self) -> Compare {
        let number = self.rng.below(4) as i64;
        let revision = self.rng.below(self.revision as u64 + 2) as i64;
        Compare {
            result: *self.rng.pick(&[
                CompareResult::Equal,
                CompareResult::Equal,
                CompareResult::Greater,
                CompareResult::Less,
                CompareResult::NotEqual,
                CompareResult::Unknown(7),
            ]),
            target: match self.rng.below(6) {
                0 => CompareTarget::Version(number),
                1 => CompareTarget::Create(revision),
                2 => CompareTarget::Mod(revision),
                3 => CompareTarget::Value(self.value()),
                4 => CompareTarget::Lease(if number == 0 { 0 } else { self.lease().0 }),
                _ => CompareTarget::Unknown(9),
            },
            key: self.key(),
            range_end: self.range_end(),
        }
    }
}
