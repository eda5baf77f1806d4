//! Ranges: which keys an answer shows, in slices, over one shard or several.
//!
//! etcd's rules. In the order of keys, an answer with a limit is the first `limit` keys. With another order
//! or a filter all keys of the range are looked at, filtered, sorted, and then cut. One combination is odd
//! and kept: a target without an order sorts only the first `limit + 1` keys. `count` is the number of keys
//! in the range, whatever limit and filters say; `more` tells of a cut by the limit.
//!
//! Each shard keeps one key more than the limit, so that merging the parts of all shards shows whether the
//! limit cut anything. Keys that sort alike stay in the order of keys.

use crate::api::{Error, KeysOnly, RangeReply, RangeRequest};
use crate::limits::RANGE_SLICE_KEYS_MIN;
use crate::mvcc::{Budget, Store};
use crate::types::{Blob, KeyRange, KeyValue, Revision};
use std::cmp::Ordering;

const SORT_NONE: i32 = 0;
const SORT_ASCEND: i32 = 1;
const SORT_DESCEND: i32 = 2;
const BY_KEY: i32 = 0;
const BY_VERSION: i32 = 1;
const BY_CREATE: i32 = 2;
const BY_MOD: i32 = 3;
const BY_VALUE: i32 = 4;

/// The revision a Range reads at: the one it names, or the current one where it names none (0 and below).
pub fn read_revision(named: i64, current: Revision, compacted: Revision) -> Result<Revision, Error> {
    if named > current.wire() {
        return Err(Error::FutureRevision);
    }
    let at = if named <= 0 { current } else { Revision(named.cast_unsigned()) };
    if at < compacted { Err(Error::Compacted) } else { Ok(at) }
}

/// The stricter rule inside a transaction, where only 0 means the current revision. Before the first
/// compaction etcd's compacted revision is -1.
pub fn check_read_in_txn(named: i64, current: Revision, compacted: Revision) -> Result<(), Error> {
    let first = if compacted == Revision::NONE { -1 } else { compacted.wire() };
    if named == 0 {
        Ok(())
    } else if named > current.wire() {
        Err(Error::FutureRevision)
    } else if named < first {
        Err(Error::Compacted)
    } else {
        Ok(())
    }
}

/// Whether the answer's order is that of the keys, so that a limit bounds what is looked at.
pub(super) fn default_order(request: &RangeRequest) -> bool {
    request.sort_order == SORT_NONE || (request.sort_target == BY_KEY && request.sort_order == SORT_ASCEND)
}

pub(super) fn filtered(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |revision: Revision, min: i64, max: i64| {
        (min == 0 || revision.wire() >= min) && (max == 0 || revision.wire() <= max)
    };
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// How many keys a part has to keep: the limit and one more, or all.
fn keep(request: &RangeRequest) -> usize {
    match usize::try_from(request.limit) {
        Ok(limit) if limit > 0 => limit.saturating_add(1),
        _ => usize::MAX,
    }
}

/// How many live keys a range has to look at, where the newest state is read.
pub(super) fn looks_at_most(request: &RangeRequest) -> usize {
    if default_order(request) && !filtered(request) { keep(request) } else { usize::MAX }
}

fn compare_by(request: &RangeRequest, a: &KeyValue, b: &KeyValue) -> Ordering {
    let ascending = match request.sort_target {
        BY_VERSION => a.version.cmp(&b.version),
        BY_CREATE => a.create_revision.cmp(&b.create_revision),
        BY_MOD => a.mod_revision.cmp(&b.mod_revision),
        BY_VALUE => a.value.cmp(&b.value),
        _ => a.key.cmp(&b.key),
    };
    if request.sort_order == SORT_DESCEND { ascending.reverse() } else { ascending }
}

/// Sorts keys that are in ascending order.
fn sort(request: &RangeRequest, kvs: &mut [KeyValue]) {
    match (request.sort_target, request.sort_order) {
        (BY_KEY, SORT_DESCEND) => kvs.reverse(),
        (BY_KEY, _) => {}
        _ => kvs.sort_by(|a, b| compare_by(request, a, b)),
    }
}

/// One shard's part of the answer to a Range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangePart {
    kvs: Vec<KeyValue>,
    count: u64,
    /// Of the keys and values, about.
    bytes: usize,
}

impl RangePart {
    /// What it holds of what was read, about.
    pub fn kept_bytes(&self) -> usize {
        self.bytes + self.kvs.len() * size_of::<KeyValue>()
    }
}

/// Whether a range has to know how many keys lie behind its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    Total,
    /// Only what is looked at anyway: chunks of a stream before its last.
    Seen,
}

/// How far a step of a [`RangeCursor`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Unfinished,
    Done,
    /// The store has been compacted above the revision meanwhile.
    Compacted,
}

/// A range over one shard at one revision, in steps of bounded work.
#[derive(Debug)]
pub struct RangeCursor {
    request: RangeRequest,
    range: KeyRange,
    at: Revision,
    state: State,
    part: RangePart,
}

#[derive(Debug)]
enum State {
    Looking { resume: Option<Blob> },
    CountingRest { resume: Blob },
    CountingAll { resume: Option<Blob> },
    Done,
}

impl RangeCursor {
    /// Reads at `at`, whatever the request names: see [`read_revision`].
    pub fn new(request: RangeRequest, at: Revision) -> RangeCursor {
        let state = if request.count_only {
            State::CountingAll { resume: None }
        } else {
            State::Looking { resume: None }
        };
        RangeCursor { range: request.range(), request, at, state, part: RangePart::default() }
    }

    /// Whether it looks at one key.
    pub fn is_short(&self) -> bool {
        matches!(self.range, KeyRange::One(_))
    }

    /// What it holds of what it has read, about.
    pub fn kept_bytes(&self) -> usize {
        self.part.kept_bytes()
    }

    /// Looks at as many keys as the budget allows.
    pub fn step(&mut self, store: &Store, budget: Budget, counting: Counting) -> Progress {
        if self.at < store.compacted() {
            return Progress::Compacted;
        }
        self.advance(store, budget, counting);
        if matches!(self.state, State::Done) { Progress::Done } else { Progress::Unfinished }
    }

    /// As [`RangeCursor::step`], inside a transaction, which holds the history it reads. How many keys were
    /// found once it is done.
    pub(super) fn step_held(&mut self, store: &Store, budget: Budget) -> Option<usize> {
        let before = self.part.kvs.len();
        self.advance(store, budget, Counting::Total);
        matches!(self.state, State::Done).then(|| self.part.kvs.len().saturating_sub(before))
    }

    /// The part, once a step said [`Progress::Done`].
    pub fn into_part(self) -> RangePart {
        assert!(matches!(self.state, State::Done), "a range is taken when it is done");
        assert!(self.part.kvs.len() as u64 <= self.part.count, "what is shown is counted");
        self.part
    }

    fn advance(&mut self, store: &Store, budget: Budget, counting: Counting) {
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Looking { resume } => self.look(store, resume, budget, counting),
            State::CountingRest { resume } => self.count(store, Some(&resume), budget),
            State::CountingAll { resume } => self.count(store, resume.as_deref(), budget),
            State::Done => State::Done,
        };
    }

    fn look(&mut self, store: &Store, resume: Option<Blob>, budget: Budget, counting: Counting) -> State {
        if self.is_short() {
            self.part = point(store, &self.request, self.at);
            return State::Done;
        }
        let bounded = default_order(&self.request) && !filtered(&self.request);
        let keep = keep(&self.request);
        let wanted = match &resume {
            None if bounded => keep,
            Some(_) if bounded => (keep - self.part.kvs.len()).max(RANGE_SLICE_KEYS_MIN),
            _ => usize::MAX,
        };
        let slice_budget = Budget { keys: budget.keys.min(wanted), bytes: budget.bytes };
        let slice = store.range(&self.range, self.at, resume.as_deref(), slice_budget);
        self.part.count += slice.kvs.len() as u64;
        self.part.bytes += slice.bytes;
        if bounded {
            let ends = self.part.kvs.last().zip(slice.kvs.first());
            assert!(ends.is_none_or(|(last, first)| last.key < first.key), "a range goes forward");
            append(&mut self.part.kvs, slice.kvs);
        } else {
            let request = &self.request;
            self.part.kvs.extend(slice.kvs.into_iter().filter(|kv| passes(request, kv)));
        }
        let Some(resume) = slice.resume else {
            self.cut(keep, bounded);
            return State::Done;
        };
        if bounded && self.part.kvs.len() >= keep {
            self.cut(keep, bounded);
            return match counting {
                Counting::Total => State::CountingRest { resume },
                Counting::Seen => State::Done,
            };
        }
        if self.part.kvs.len() / 2 > keep {
            self.cut(keep, bounded); // Not more memory than twice what the answer can show.
        }
        State::Looking { resume: Some(resume) }
    }

    /// Keeps only what the merged answer can show.
    fn cut(&mut self, keep: usize, bounded: bool) {
        if self.part.kvs.len() > keep && !bounded {
            self.part.kvs.sort_by(|a, b| compare_by(&self.request, a, b).then_with(|| a.key.cmp(&b.key)));
        }
        let before = self.part.kvs.len();
        self.part.kvs.truncate(keep);
        self.part.bytes = self.part.bytes / before.max(1) * self.part.kvs.len();
    }

    fn count(&mut self, store: &Store, resume: Option<&[u8]>, budget: Budget) -> State {
        let counted = store.count(&self.range, self.at, resume, budget.keys);
        self.part.count += counted.count;
        counted.resume.map_or(State::Done, |resume| State::CountingRest { resume })
    }
}

fn append(all: &mut Vec<KeyValue>, more: Vec<KeyValue>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.extend(more);
    }
}

/// The one key of a range that names one, where the store still has the revision.
pub fn read_point(store: &Store, request: &RangeRequest, at: Revision) -> Option<RangePart> {
    let is_there = request.range_end.is_empty() && at >= store.compacted();
    is_there.then(|| point(store, request, at))
}

/// A whole range in one go, at the newest state or an old one, for transactions.
pub(super) fn range_at_once(store: &Store, request: &RangeRequest, at: Revision) -> RangePart {
    if request.range_end.is_empty() {
        return point(store, request, at);
    }
    let mut cursor = RangeCursor::new(request.clone(), at);
    while !matches!(cursor.state, State::Done) {
        cursor.advance(store, Budget::UNBOUNDED, Counting::Total);
    }
    cursor.part
}

fn point(store: &Store, request: &RangeRequest, at: Revision) -> RangePart {
    let Some(kv) = store.get(&request.key, at) else { return RangePart::default() };
    let (count, bytes) = (1, kv.key.len() + kv.value.len());
    if request.count_only || !passes(request, &kv) {
        return RangePart { count, ..RangePart::default() };
    }
    RangePart { kvs: vec![kv], count, bytes }
}

/// Merges the parts of all shards into the answer. `header` is the revision the reply's header shows.
pub fn finish_range(
    request: &RangeRequest,
    header: Revision,
    parts: impl IntoIterator<Item = RangePart>,
) -> RangeReply {
    let bounded = default_order(request) && !filtered(request);
    let mut several = false;
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        several = true;
        all.count += part.count;
        append(&mut all.kvs, part.kvs);
    }
    if several || !bounded {
        all.kvs.sort_by(|a, b| a.key.cmp(&b.key));
    }
    if bounded {
        all.kvs.truncate(keep(request));
    }
    sort(request, &mut all.kvs);
    let more = keep(request) != usize::MAX && all.kvs.len() >= keep(request);
    if more {
        all.kvs.truncate(keep(request) - 1);
    }
    assert!(!more || !all.kvs.is_empty(), "a range that is cut shows the keys before the cut");
    assert!(all.kvs.len() as u64 <= all.count, "what is shown is counted");
    RangeReply { revision: header, kvs: all.kvs, keys_only: keys_only(request), more, count: all.count }
}

/// etcd 3.7 answers from its index where it can, which knows no leases.
fn keys_only(request: &RangeRequest) -> KeysOnly {
    match request {
        RangeRequest { keys_only: false, .. } => KeysOnly::No,
        RangeRequest { sort_target: BY_VALUE, .. } => KeysOnly::WithoutValue,
        _ => KeysOnly::WithoutValueAndLease,
    }
}
