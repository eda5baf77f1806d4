//! What takes long, counted and logged as etcd does.
//!
//! etcd tells two spans of a request apart: until it is answered, and what it takes to apply once it may. Here the
//! first runs from its arrival to its answer. The second runs from the start of its evaluation to the end of the
//! turn that ends it: within a turn no time passes, and at its end all that the turn did has been paid for.

use super::turn::Turn;
use crate::api::{Error, Request, TxnRequest};
use crate::io::{ApplyKind, Fields, Level};
use crate::limits::SLOW_REQUESTS_LOGGED_MAX;
use crate::types::{Duration, Time};
use crate::wire::text;
use bytes::Bytes;

/// What the operator wants to hear of.
#[derive(Clone, Debug)]
pub struct Observing {
    /// Whether it is counted how long the calls of each method take.
    pub handling: bool,
    /// Requests that take longer than this to apply are logged, and those that are answered later than this.
    pub slow_apply: Duration,
    pub slow_answer: Duration,
    /// What the process was started with, for whoever asks.
    pub command_line: Vec<String>,
}

impl Default for Observing {
    fn default() -> Observing {
        let (slow_apply, slow_answer) = (Duration::from_ms(100), Duration::from_ms(300));
        Observing { handling: false, slow_apply, slow_answer, command_line: vec![] }
    }
}

/// What this turn has applied, and what it has told of what was slow.
#[derive(Debug, Default)]
pub(super) struct Pace {
    applied: Vec<Work>,
    /// How many ranges have been read that began then.
    ranged: Vec<(Time, u64)>,
    told: usize,
    untold: u64,
}

#[derive(Debug)]
struct Work {
    kind: ApplyKind,
    success: bool,
    begun: Time,
    about: About,
}

/// What a line says of a request that is gone: its first key, and its size.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    key: Bytes,
    bytes: usize,
}

impl About {
    /// Keeps of the request its key.
    pub fn of(request: Request) -> About {
        let bytes = request.bytes();
        let key = match request {
            Request::Put(put) => put.key,
            Request::DeleteRange(delete) => delete.key,
            Request::Txn(txn) => return About::of_txn(&txn),
            _ => Bytes::new(),
        };
        About { key, bytes }
    }

    pub fn of_txn(txn: &TxnRequest) -> About {
        About { key: txn.first_key().cloned().unwrap_or_default(), bytes: txn.bytes() }
    }
}

impl Work {
    fn is_like(&self, other: &Work) -> bool {
        (self.kind, self.success, self.begun) == (other.kind, other.success, other.begun)
    }
}

impl ApplyKind {
    /// As a request of the log's describes itself.
    fn describe(self, about: &About) -> String {
        let key = if about.key.is_empty() { String::new() } else { text::key(&about.key) };
        format!("{}:<{key}> size:{}", self.name(), about.bytes)
    }
}

impl Pace {
    /// A request whose evaluation began then has been evaluated.
    pub fn applied(&mut self, kind: ApplyKind, success: bool, begun: Time, about: About) {
        self.applied.push(Work { kind, success, begun, about });
    }

    /// Whether one more line may tell of what was slow in this turn.
    fn may_tell(&mut self) -> bool {
        self.told += 1;
        let may = self.told <= SLOW_REQUESTS_LOGGED_MAX;
        self.untold += u64::from(!may);
        may
    }

    /// A range whose evaluation began then has been read: most of a turn began together.
    pub fn ranged(&mut self, begun: Time) {
        match self.ranged.last_mut() {
            Some((last, times)) if *last == begun => *times += 1,
            _ => self.ranged.push((begun, 1)),
        }
    }
}

impl Turn {
    /// The turn is at its end.
    pub fn observe_pace(&mut self) {
        for (begun, times) in self.pace.ranged.drain(..) {
            assert!(begun <= self.now, "what is read has begun before");
            self.counters.applies.observe(ApplyKind::Range, true, self.now.since(begun), times);
        }
        let applied = std::mem::take(&mut self.pace.applied);
        for alike in applied.chunk_by(Work::is_like) {
            let Work { kind, success, begun, .. } = alike[0];
            assert!(begun <= self.now, "what is applied has begun before");
            let took = self.now.since(begun);
            self.counters.applies.observe(kind, success, took, alike.len() as u64);
            // A range is told of with its answer.
            if took > self.settings.observing.slow_apply && kind != ApplyKind::Range {
                for Work { about, .. } in alike {
                    self.tell_slow_apply(took, "", || kind.describe(about), String::new(), None);
                }
            }
        }
        self.pace.applied = applied;
        self.pace.applied.clear();
        self.pace.told = 0;
        let untold = std::mem::take(&mut self.pace.untold);
        if untold > 0 {
            let message = "more requests took too long than there are lines for";
            self.log_line(Level::Warn, message, [("requests", untold.into())]);
        }
    }

    pub fn tell_slow_apply(
        &mut self,
        took: Duration,
        prefix: &str,
        describe: impl FnOnce() -> String,
        response: String,
        error: Option<&Error>,
    ) {
        self.counters.slow_applies += 1;
        if !self.pace.may_tell() {
            return;
        }
        let mut fields = Fields::from([
            ("took", took.into()),
            ("expected-duration", self.settings.observing.slow_apply.into()),
            ("prefix", prefix.into()),
            ("request", describe().into()),
            ("response", response.into()),
        ]);
        fields.0.extend(error.map(|error| ("error", error.to_string().into())));
        self.log_line(Level::Warn, "apply request took too long", fields);
    }

    pub fn may_tell_of_slow(&mut self) -> bool {
        self.pace.may_tell()
    }
}
