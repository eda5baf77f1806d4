//! What the operations of a transaction that come first mean for those behind them, before any has run.

use super::NEWEST;
use crate::mvcc::Store;
use crate::types::{Blob, KeyRange};
use bytes::Bytes;
use std::collections::BTreeSet;

/// The store as it will be after the operations before, without a look at each key: of the keys in what was
/// deleted only those are live that were put since.
pub(super) struct Overlay<'a> {
    store: &'a Store,
    /// Live, whatever the store says.
    puts: BTreeSet<Blob>,
    /// Ranges that do not overlap.
    deleted: Vec<Span>,
}

impl<'a> Overlay<'a> {
    pub fn new(store: &'a Store) -> Overlay<'a> {
        Overlay { store, puts: BTreeSet::new(), deleted: Vec::new() }
    }

    pub fn put(&mut self, key: &[u8]) {
        self.puts.insert(Blob::new(key));
    }

    /// How many keys a delete finds.
    pub fn delete(&mut self, range: &KeyRange) -> u32 {
        let mut span = Span::of(range);
        let mut left = vec![span.clone()];
        for gone in &self.deleted {
            left = left.iter().flat_map(|span| span.without(gone)).collect();
        }
        let in_store = |span: &Span| self.store.count(&span.range(), NEWEST, None, usize::MAX).count;
        let mut count: u64 = left.iter().map(in_store).sum();
        let from = self.puts.range(Blob::new(range.start())..);
        let puts: Vec<Blob> = from.take_while(|key| range.contains(key)).cloned().collect();
        for key in &puts {
            let counted = left.iter().any(|span| span.contains(key)) && self.store.newest_meta(key).is_some();
            count += u64::from(!counted);
            self.puts.remove(key);
        }
        self.deleted.retain(|gone| {
            let apart = !span.overlaps(gone);
            if !apart {
                span = span.hull(gone);
            }
            apart
        });
        assert!(
            self.deleted.iter().all(|gone| !span.overlaps(gone)),
            "what is deleted is named once: {span:?}"
        );
        self.deleted.push(span);
        u32::try_from(count).expect("a shard in memory has fewer keys than 32 bits count")
    }
}

/// Keys from a start on, and below an end where there is one.
#[derive(Clone, Debug)]
struct Span {
    start: Bytes,
    end: Option<Bytes>,
}

impl Span {
    fn of(range: &KeyRange) -> Span {
        let end = match range {
            KeyRange::One(key) => Some(Bytes::from([key, &b"\0"[..]].concat())),
            KeyRange::Between(_, end) => Some(end.clone()),
            KeyRange::From(_) => None,
        };
        Span { start: range.start().clone(), end }
    }

    fn range(&self) -> KeyRange {
        match &self.end {
            Some(end) => KeyRange::Between(self.start.clone(), end.clone()),
            None => KeyRange::From(self.start.clone()),
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }

    fn overlaps(&self, other: &Span) -> bool {
        self.range().overlaps(&other.range())
    }

    /// From the first start to the last end.
    fn hull(&self, other: &Span) -> Span {
        assert!(self.overlaps(other), "between two spans that are apart lies what neither has");
        let end = match (&self.end, &other.end) {
            (Some(end), Some(other)) => Some(end.max(other).clone()),
            _ => None,
        };
        Span { start: (&self.start).min(&other.start).clone(), end }
    }

    fn without(&self, gone: &Span) -> impl Iterator<Item = Span> + use<> {
        let (mut before, mut behind) = (None, None);
        if !self.overlaps(gone) {
            before = Some(self.clone());
        } else {
            if self.start < gone.start {
                before = Some(Span { start: self.start.clone(), end: Some(gone.start.clone()) });
            }
            if let Some(start) = &gone.end
                && self.end.as_ref().is_none_or(|end| start < end)
            {
                behind = Some(Span { start: start.clone(), end: self.end.clone() });
            }
        }
        before.into_iter().chain(behind)
    }
}
