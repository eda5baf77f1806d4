//! The sizes by which the quota is kept.

use crate::mvcc::Sizes;
use crate::types::ReactorId;

/// The sizes of all reactors' shards, as last heard.
#[derive(Debug)]
pub(super) struct MemberSizes {
    of: Vec<Sizes>,
    /// Bytes that this reactor has told the others of.
    told: u64,
}

impl MemberSizes {
    pub fn new(reactors: u16) -> MemberSizes {
        MemberSizes { of: vec![Sizes::default(); usize::from(reactors)], told: 0 }
    }

    pub fn set(&mut self, reactor: ReactorId, sizes: Sizes) {
        self.of[usize::from(reactor.0)] = sizes;
    }

    pub fn sum(&self) -> Sizes {
        let mut sum = Sizes::default();
        self.of.iter().for_each(|sizes| sum.add(*sizes));
        sum
    }

    pub fn bytes_total(&self) -> u64 {
        self.of.iter().map(|sizes| sizes.bytes_total).sum()
    }

    /// Whether these sizes are at least a step away from what the others were told; then they are told.
    pub fn is_news(&mut self, sizes: Sizes, step_bytes: u64) -> bool {
        let is_news = sizes.bytes_total.abs_diff(self.told) >= step_bytes;
        if is_news {
            self.told = sizes.bytes_total;
        }
        is_news
    }
}
