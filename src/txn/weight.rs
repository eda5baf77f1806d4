//! How many keys an evaluation looks at: what is too long for one step goes in slices.

use crate::api::{DeleteRangeRequest, Op, RangeRequest, TxnRequest};
use crate::limits::CHANGE_KEYS;
use crate::mvcc::Store;

/// Whether a transaction looks at more keys of the store than a slice may. What it names one by one does not
/// count: requests are bounded. Takes about as long as the slice.
pub fn is_long(store: &Store, request: &TxnRequest, keys_max: usize) -> bool {
    weight(store, request, keys_max) > keys_max
}

/// The same of a delete.
pub fn is_long_delete(store: &Store, request: &DeleteRangeRequest, keys_max: usize) -> bool {
    weight_of_delete(store, request, keys_max) > keys_max
}

/// Exact up to `keys_max`. Of branches that exclude each other both count.
fn weight(store: &Store, request: &TxnRequest, keys_max: usize) -> usize {
    let mut weight = 0;
    for compare in request.compare.iter().filter(|compare| !compare.range_end.is_empty()) {
        weight += store.keys_in(&compare.range(), keys_max, usize::MAX);
        if weight > keys_max {
            return weight;
        }
    }
    for op in request.success.iter().chain(&request.failure) {
        if weight > keys_max {
            break;
        }
        weight += match op {
            Op::Range(range) => weight_of_range(store, range, keys_max),
            Op::DeleteRange(delete) => weight_of_delete(store, delete, keys_max),
            Op::Txn(nested) => self::weight(store, nested, keys_max),
            Op::Put(_) | Op::Empty => 0,
        };
    }
    weight
}

fn weight_of_range(store: &Store, request: &RangeRequest, keys_max: usize) -> usize {
    let newest = request.revision <= 0;
    if request.range_end.is_empty() || (newest && request.count_only) {
        return 0;
    }
    // What lies behind the limit is only counted, of the newest state in no time.
    let live_max = if newest { super::range::looks_at_most(request) } else { usize::MAX };
    store.keys_in(&request.range(), keys_max, live_max)
}

fn weight_of_delete(store: &Store, request: &DeleteRangeRequest, keys_max: usize) -> usize {
    if request.range_end.is_empty() {
        return 0;
    }
    store.keys_in(&request.range(), keys_max, usize::MAX) * CHANGE_KEYS
}
