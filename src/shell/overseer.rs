//! What the main thread does while the reactors run: it hears signals, says when clients are served, and
//! watches for what stands still.

use super::kernel::{StopSignal, StopSignals};
use super::process;
use super::shared::Shared;
use crate::limits::STALL_MS;
use crate::types::{Duration, ReactorId, Revision, Time};
use std::sync::Arc;
use std::thread::JoinHandle;

/// How often it looks: seldom, or often while something is about to happen.
const CALM: std::time::Duration = std::time::Duration::from_millis(250);
const KEEN: std::time::Duration = std::time::Duration::from_millis(2);

/// Runs until all threads have ended, which takes a signal; returns it.
pub fn oversee(
    shared: &Arc<Shared>,
    signals: &StopSignals,
    threads: &[JoinHandle<()>],
    serving: impl FnOnce(),
) -> StopSignal {
    let mut serving = Some(serving);
    let mut stopped_by = None;
    let mut watchdog = Watchdog::default();
    let mut figures_at = Time(0);
    loop {
        let keen = serving.is_some() || stopped_by.is_some();
        if let Some(signal) = signals.next(if keen { KEEN } else { CALM }) {
            let fields = vec![("signal", signal.name().to_string())];
            if stopped_by.is_some() {
                shared.notices.warn("received a second signal; stopping at once", fields);
                return signal;
            }
            shared.notices.info("received signal; shutting down", fields);
            stopped_by = Some(signal);
            shared.stop();
        }
        if let Some(signal) = stopped_by
            && threads.iter().all(JoinHandle::is_finished)
        {
            return signal;
        }
        if shared.sequencer.settled() > Revision::NONE
            && let Some(serving) = serving.take()
        {
            shared.lane.clients_are_served();
            serving();
        }
        watchdog.look(shared);
        if shared.clock.now().since(figures_at) >= Duration::from_secs(1) {
            figures_at = shared.clock.now();
            process::figures(shared.clock).map(|figures| shared.process.force_push(figures));
        }
    }
}

/// Remembers what stood where at the last look.
#[derive(Default)]
struct Watchdog {
    settled: Revision,
    since: Time,
    reported_at: Time,
}

const STALL: Duration = Duration::from_ms(STALL_MS);

impl Watchdog {
    /// Says what stands still, once a second at most.
    fn look(&mut self, shared: &Shared) {
        let now = shared.clock.now();
        let (settled, counter) = (shared.sequencer.settled(), shared.sequencer.counter());
        if settled != self.settled || counter <= settled {
            (self.settled, self.since) = (settled, now);
        }
        if now.since(self.reported_at) < STALL {
            return;
        }
        let mut lines = Vec::new();
        for reactor in 0..shared.reactors() {
            let began = shared.pulse(ReactorId(reactor as u16)).since();
            if let Some(took) = began.map(|began| now.since(began)).filter(|took| *took >= STALL) {
                let fields = vec![("reactor", reactor.to_string()), ("took", milliseconds(took))];
                lines.push(("a reactor's turn takes long", fields));
            }
        }
        if now.since(self.since) >= STALL {
            let fields = vec![
                ("settled", settled.to_string()),
                ("newest-revision", counter.to_string()),
                ("for", milliseconds(now.since(self.since))),
            ];
            lines.push(("writes are not settling", fields));
        }
        if !lines.is_empty() {
            self.reported_at = now;
            lines.into_iter().for_each(|(message, fields)| shared.notices.warn(message, fields));
        }
    }
}

fn milliseconds(span: Duration) -> String {
    format!("{}ms", span.0 / 1_000_000)
}
