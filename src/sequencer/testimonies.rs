//! What each log of the process has acknowledged, for the other logs to keep.

use super::Sequencer;
use crate::limits::REACTORS_MAX;
use crate::log::{LogId, Testimony};
use crossbeam::utils::CachePadded;
// Not loom's: one writer a log, and a reader that comes late only says less.
use std::sync::atomic::{AtomicU64, Ordering};

/// One place for each log a process may have.
pub(super) struct Testimonies(Box<[CachePadded<Word>]>);

#[derive(Default)]
struct Word {
    /// Stands still once a frame is named.
    key: AtomicU64,
    /// 0: nothing yet.
    frame: AtomicU64,
}

impl Testimonies {
    pub fn new() -> Testimonies {
        Testimonies((0..REACTORS_MAX).map(|_| CachePadded::default()).collect())
    }
}

impl Sequencer {
    /// A reactor says what its log has acknowledged.
    pub fn testify(&self, Testimony { log, key, frame }: Testimony) {
        let word = &self.testimonies.0[log.0 as usize];
        let (key_before, before) = (word.key.load(Ordering::Relaxed), word.frame.load(Ordering::Relaxed));
        assert!(frame >= before, "a log takes nothing back: frame {frame} after {before}");
        assert!(before == 0 || key == key_before, "a log keeps its key as long as the process lives");
        word.key.store(key, Ordering::Relaxed);
        word.frame.store(frame, Ordering::Release);
    }

    /// The last word of a log; none where it has said nothing in this process.
    pub fn testimony(&self, log: LogId) -> Option<Testimony> {
        let word = &self.testimonies.0[log.0 as usize];
        let frame = word.frame.load(Ordering::Acquire);
        (frame > 0).then(|| Testimony { log, key: word.key.load(Ordering::Relaxed), frame })
    }
}
