//! How long requests took to take effect, apart by what they were and whether they succeeded: etcd's buckets.

use crate::stdx::Histogram;
use crate::types::Duration;

/// What takes effect, by etcd's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyKind {
    /// A range is not applied: etcd shows it beside the others.
    Range,
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    Alarm,
    MemberAttributes,
}

impl ApplyKind {
    const ALL: [ApplyKind; 9] = [
        ApplyKind::Range,
        ApplyKind::Put,
        ApplyKind::DeleteRange,
        ApplyKind::Txn,
        ApplyKind::Compaction,
        ApplyKind::LeaseGrant,
        ApplyKind::LeaseRevoke,
        ApplyKind::Alarm,
        ApplyKind::MemberAttributes,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ApplyKind::Range => "Range",
            ApplyKind::Put => "Put",
            ApplyKind::DeleteRange => "DeleteRange",
            ApplyKind::Txn => "Txn",
            ApplyKind::Compaction => "Compaction",
            ApplyKind::LeaseGrant => "LeaseGrant",
            ApplyKind::LeaseRevoke => "LeaseRevoke",
            ApplyKind::Alarm => "Alarm",
            ApplyKind::MemberAttributes => "ClusterMemberAttrSet",
        }
    }
}

/// Nanoseconds of each kind, failures first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applies([[Histogram; 2]; ApplyKind::ALL.len()]);

impl Default for Applies {
    fn default() -> Applies {
        let empty = || Histogram::new(Duration::from_us(100).0, 20);
        Applies(std::array::from_fn(|_| [empty(), empty()]))
    }
}

impl Applies {
    /// So many took so long.
    pub fn observe(&mut self, what: ApplyKind, success: bool, took: Duration, times: u64) {
        self.0[what as usize][usize::from(success)].observe_times(took.0, times);
    }

    pub fn add(&mut self, more: &Applies) {
        for (sum, more) in self.0.as_flattened_mut().iter_mut().zip(more.0.as_flattened()) {
            sum.add(more);
        }
    }

    /// Those that have been seen: what, whether it succeeded, how long it took.
    pub fn seen(&self) -> impl Iterator<Item = (ApplyKind, bool, &Histogram)> {
        ApplyKind::ALL.iter().zip(&self.0).flat_map(|(what, [failed, succeeded])| {
            let both = [(*what, false, failed), (*what, true, succeeded)];
            both.into_iter().filter(|(.., histogram)| histogram.count() > 0)
        })
    }
}
