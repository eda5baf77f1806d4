//! What is compared, and what is aimed at.

use crate::generator::workload::{KEY_BYTES_MIN, Workload};
use crate::generator::{Outcome, Pace};

#[derive(Clone, Copy, PartialEq)]
pub enum Measure {
    OpsPerSecond,
    P50,
    P99,
    P999,
    ServerCpu,
    GeneratorCpu,
}

impl Measure {
    pub const ALL: [Measure; 6] = [
        Measure::OpsPerSecond,
        Measure::P50,
        Measure::P99,
        Measure::P999,
        Measure::ServerCpu,
        Measure::GeneratorCpu,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Measure::OpsPerSecond => "requests/s",
            Measure::P50 => "p50 µs",
            Measure::P99 => "p99 µs",
            Measure::P999 => "p99.9 µs",
            Measure::ServerCpu => "server CPU µs/request",
            Measure::GeneratorCpu => "generator CPU µs/request",
        }
    }

    pub fn of(self, outcome: &Outcome) -> f64 {
        match self {
            Measure::OpsPerSecond => outcome.ops_per_second(),
            Measure::P50 => outcome.latency_us(0.5),
            Measure::P99 => outcome.latency_us(0.99),
            Measure::P999 => outcome.latency_us(0.999),
            Measure::ServerCpu => outcome.server_us().unwrap_or(f64::NAN),
            Measure::GeneratorCpu => outcome.per_answer(outcome.generator.threads_ns) / 1e3,
        }
    }
}

/// A bound on Braid's median over etcd's.
#[derive(Clone, Copy)]
pub struct Aim {
    pub measure: Measure,
    pub bound: Bound,
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn holds(self, ratio: f64) -> bool {
        match self {
            Bound::AtLeast(least) => ratio >= least,
            Bound::AtMost(most) => ratio <= most,
        }
    }
}

pub struct Case {
    pub name: &'static str,
    pub connections: usize,
    pub streams: usize,
    pub pace: Pace,
    pub workload: Workload,
    pub aims: &'static [Aim],
}

const PUTS: Workload = Workload {
    keys: 100_000,
    key_bytes: 48,
    value_bytes: 256,
    scattered: true,
    in_turn: false,
    puts_percent: 100,
    serializable: false,
    limit: 1,
};
const RANGES: Workload = Workload { keys: 10_000, puts_percent: 0, ..PUTS };
const _: () = assert!(PUTS.key_bytes >= KEY_BYTES_MIN);

const fn aim(measure: Measure, bound: Bound) -> Aim {
    Aim { measure, bound }
}

const fn closed(
    name: &'static str,
    connections: usize,
    streams: usize,
    workload: Workload,
    aims: &'static [Aim],
) -> Case {
    Case { name, connections, streams, pace: Pace::Closed, workload, aims }
}

const fn open(name: &'static str, per_second: u64, aims: &'static [Aim]) -> Case {
    Case { name, connections: 16, streams: 64, pace: Pace::Open { per_second }, workload: PUTS, aims }
}

pub const CASES: [Case; 7] = [
    closed(
        "put 16×64",
        16,
        64,
        PUTS,
        &[aim(Measure::OpsPerSecond, Bound::AtLeast(6.0)), aim(Measure::ServerCpu, Bound::AtMost(1.0 / 6.0))],
    ),
    closed("put 4×16", 4, 16, PUTS, &[]),
    closed("put 1×1", 1, 1, PUTS, &[aim(Measure::P50, Bound::AtMost(1.3))]),
    open("put 5,000/s", 5_000, &[]),
    open(
        "put 20,000/s",
        20_000,
        &[aim(Measure::P99, Bound::AtMost(1.0 / 5.0)), aim(Measure::ServerCpu, Bound::AtMost(1.0 / 1.5))],
    ),
    closed("range 4×16", 4, 16, RANGES, &[]),
    closed("range 16×64", 16, 64, RANGES, &[]),
];
