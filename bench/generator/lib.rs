//! The load generator: requests to a server of etcd's protocol, and what became of them.
//!
//! One thread, its own HTTP/2, epoll: it shares the cores with the server it measures, so it has to be light
//! (its own CPU per request is reported). [`workload`] makes the requests and judges the answers, `link` is
//! one connection, `engine` keeps the pace, `outcome` is the result; [`call`] asks one thing beside the load,
//! and [`arguments`] reads what both programs are given.
//!
//! # What a latency is
//!
//! From the time a request was meant to be sent until the bytes that completed its answer were received.
//! In the closed loop (a stream sends its next request when it has the answer) it was meant to be sent when
//! the answer before it arrived. In the open loop it was meant to be sent at its place in the fixed rate,
//! whether or not a stream was free then: a server that stalls is charged for all that had to wait.
//! Requests count that were meant inside the measured window; those without an answer in time count with
//! the time they waited, and as errors.

// A clock, sockets and /proc are what a measurement is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod arguments;
pub mod call;
mod engine;
mod link;
mod outcome;
mod poll;
mod progress;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod workload;

pub use engine::run;
pub use outcome::Outcome;

use std::net::SocketAddr;
use std::time::Duration;
use workload::Workload;

/// One measurement.
#[derive(Clone)]
pub struct Plan {
    /// What a long run calls itself when it says how far it is.
    pub label: String,
    /// Connections are spread over them in turn.
    pub endpoints: Vec<SocketAddr>,
    /// The servers' processes, whose CPU and writes are measured.
    pub pids: Vec<u32>,
    pub connections: usize,
    /// Requests in flight a connection, at most.
    pub streams: usize,
    pub workload: Workload,
    pub pace: Pace,
    /// Load before the measured window.
    pub warm_up: Duration,
    pub span: Span,
    /// How long answers may take after the window.
    pub patience: Duration,
    /// Of the keys drawn and the values' bytes.
    pub seed: u64,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Pace {
    /// Every stream sends as soon as it has its answer.
    Closed,
    Open {
        per_second: u64,
    },
}

/// How long the measured window is.
#[derive(Clone, Copy)]
pub enum Span {
    For(Duration),
    Requests(u64),
}

impl Plan {
    /// The puts that give every key of the workload a value.
    pub fn prefill(&self) -> Plan {
        Plan {
            label: format!("{}: filling", self.label),
            connections: 4,
            streams: 64,
            workload: Workload { puts_percent: 100, guarded: false, in_turn: true, ..self.workload },
            pace: Pace::Closed,
            warm_up: Duration::ZERO,
            span: Span::Requests(self.workload.keys),
            ..self.clone()
        }
    }
}
