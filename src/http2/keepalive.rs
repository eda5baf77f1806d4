//! Pings: those of clients judged, and our own, both by grpc-go's rules.
//!
//! A client's ping is a strike when it comes sooner than allowed after the one before: `ping_min`, or two
//! hours where no stream is open and pings without one are not permitted. Headers or DATA sent by the server
//! forgive the strikes. The third strike is the end.
//!
//! After `interval` without a byte from the client the server pings; after `timeout` more without a byte the
//! connection is dead.

use super::connection::{Connection, ConnectionPhase, ShutdownState};
use super::frame::{self, ErrorCode};
use super::{ConnectionError, KeepaliveRules};
use crate::types::{Duration, Time};

/// grpc-go's allowance for clients without a stream.
const IDLE_PING_MIN: Duration = Duration::from_secs(2 * 60 * 60);
const STRIKES_MAX: u8 = 2;
const SHUTDOWN_PING: &[u8; 8] = b"farewell";

pub(super) struct Pings {
    began: Time,
    last_read: Time,
    /// When this end sent a ping, if nothing has come since.
    asked: Option<Time>,
    last_ping: Option<Time>,
    strikes: u8,
    forgiven: bool,
}

impl Pings {
    pub(super) fn new(now: Time) -> Pings {
        Pings { began: now, last_read: now, asked: None, last_ping: None, strikes: 0, forgiven: false }
    }

    pub(super) fn on_read(&mut self, now: Time) {
        self.last_read = now;
        self.asked = None;
    }

    /// Forgives the strikes where headers or DATA are sent.
    pub(super) fn forgive(&mut self) {
        self.forgiven = true;
    }

    /// Whether the client may send this ping.
    pub(super) fn allows(&mut self, rules: &KeepaliveRules, streams: usize, now: Time) -> bool {
        let last = self.last_ping.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return true;
        }
        let idle = streams == 0 && !rules.without_stream;
        let least = if idle { IDLE_PING_MIN } else { rules.ping_min };
        if last.is_some_and(|last| last + least > now) {
            self.strikes += 1;
        }
        self.strikes <= STRIKES_MAX
    }

    pub(super) fn put_shutdown_ping(&self, out: &mut Vec<u8>) {
        put_ping(out, SHUTDOWN_PING);
    }

    pub(super) fn is_shutdown_ping(&self, opaque: &[u8; 8]) -> bool {
        opaque == SHUTDOWN_PING
    }
}

impl Connection {
    /// When [`Connection::on_time`] has something to do next, if nothing is received before.
    pub fn wake_at(&self) -> Time {
        match self.shutdown_state {
            ShutdownState::Announced { until } => until.min(self.ping_at()),
            ShutdownState::None | ShutdownState::Final => self.ping_at(),
        }
    }

    fn ping_at(&self) -> Time {
        let keepalive = &self.config.keepalive;
        match (self.phase, self.pings.asked, keepalive.interval) {
            (ConnectionPhase::Over(_), ..) => Time::NEVER,
            (ConnectionPhase::Preface(_) | ConnectionPhase::Settings, ..) => {
                self.pings.began + Duration::from_secs(self.config.bounds.handshake_secs_max)
            }
            (ConnectionPhase::Open, Some(asked), _) => asked + keepalive.timeout,
            (ConnectionPhase::Open, None, Some(interval)) => self.pings.last_read + interval,
            (ConnectionPhase::Open, None, None) => Time::NEVER,
        }
    }

    /// Does what is due. An error is the end: the other end is gone.
    pub fn on_time(&mut self, now: Time) -> Result<(), ConnectionError> {
        self.now = now;
        if let ConnectionPhase::Over(fault) = self.phase {
            return Err(fault);
        }
        if matches!(self.shutdown_state, ShutdownState::Announced { until } if until <= now) {
            self.shutdown_now();
        }
        if now < self.ping_at() {
            return Ok(());
        }
        match self.phase {
            ConnectionPhase::Open if self.pings.asked.is_none() => {
                self.pings.asked = Some(now);
                put_ping(&mut self.output, &[0; 8]);
                Ok(())
            }
            ConnectionPhase::Open => {
                Err(self
                    .end(ConnectionError { code: ErrorCode::NoError, why: "keepalive ping not answered" }))
            }
            _ => Err(self.end(ConnectionError {
                code: ErrorCode::SettingsTimeout,
                why: "no preface and SETTINGS in time",
            })),
        }
    }
}

fn put_ping(out: &mut Vec<u8>, opaque: &[u8; 8]) {
    frame::put_head(out, 8, frame::kind::PING, 0, 0);
    out.extend_from_slice(opaque);
}
