//! What a measurement found.

use super::usage::Usage;
use super::{Pace, Plan};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies above a minute count as a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

pub struct Outcome {
    /// Of the measured window.
    pub seconds: f64,
    /// Answers inside the window.
    pub answers: u64,
    /// Answers until the last request of the window had its own: what CPU and bytes are counted over.
    pub answers_drained: u64,
    latency_ns: Histogram<u64>,
    /// How much later than meant a request of the open loop left, for want of a stream or of CPU.
    late_ns: Histogram<u64>,
    /// Requests refused, and those without an answer in time.
    pub errors: u64,
    /// Answers that are wrong.
    pub violations: u64,
    /// The first error or violation, in words.
    pub fault: Option<String>,
    /// What the servers used; `None` where no process was named.
    pub server: Option<Usage>,
    pub generator: Usage,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Outcome {
    pub(crate) fn new() -> Outcome {
        let histogram =
            || Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, DIGITS).expect("bounds in order");
        Outcome {
            seconds: 0.0,
            answers: 0,
            answers_drained: 0,
            latency_ns: histogram(),
            late_ns: histogram(),
            errors: 0,
            violations: 0,
            fault: None,
            server: None,
            generator: Usage::default(),
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// Takes in what another window of the same load found.
    pub fn add(&mut self, other: &Outcome) {
        self.seconds += other.seconds;
        self.answers += other.answers;
        self.answers_drained += other.answers_drained;
        self.latency_ns += &other.latency_ns;
        self.late_ns += &other.late_ns;
        self.errors += other.errors;
        self.violations += other.violations;
        self.fault = self.fault.take().or_else(|| other.fault.clone());
        self.server = self.server.zip(other.server).map(|(sum, one)| sum.plus(one));
        self.generator = self.generator.plus(other.generator);
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }

    pub(crate) fn record_latency(&mut self, ns: u64) {
        self.latency_ns.saturating_record(ns);
    }

    pub(crate) fn record_lateness(&mut self, ns: u64) {
        self.late_ns.saturating_record(ns);
    }

    pub fn ops_per_second(&self) -> f64 {
        self.answers as f64 / self.seconds
    }

    /// The latency that this share of the requests did not exceed; 1.0 is the longest.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1e3
    }

    pub fn late_us(&self, quantile: f64) -> f64 {
        self.late_ns.value_at_quantile(quantile) as f64 / 1e3
    }

    /// An amount of the whole measurement for each answer.
    pub fn per_answer(&self, amount: u64) -> f64 {
        amount as f64 / self.answers_drained.max(1) as f64
    }

    pub fn server_us(&self) -> Option<f64> {
        self.server.map(|usage| self.per_answer(usage.threads_ns) / 1e3)
    }

    /// Bytes a server wrote for each answer.
    pub fn written_bytes(&self) -> Option<f64> {
        self.server?.written_bytes.map(|bytes| self.per_answer(bytes))
    }

    /// One object, numbers rounded to what they are worth.
    pub fn json(&self, plan: &Plan) -> Value {
        let round = |number: f64| (number * 100.0).round() / 100.0;
        let per_second = match plan.pace {
            Pace::Closed => Value::Null,
            Pace::Open { per_second } => json!(per_second),
        };
        json!({
            "connections": plan.connections,
            "streams": plan.streams,
            "rate": per_second,
            "puts_percent": plan.workload.puts_percent,
            "seconds": round(self.seconds),
            "answers": self.answers,
            "ops_per_second": round(self.ops_per_second()),
            "p50_us": round(self.latency_us(0.5)),
            "p90_us": round(self.latency_us(0.9)),
            "p99_us": round(self.latency_us(0.99)),
            "p999_us": round(self.latency_us(0.999)),
            "max_us": round(self.latency_us(1.0)),
            "late_p99_us": round(self.late_us(0.99)),
            "errors": self.errors,
            "violations": self.violations,
            "fault": self.fault,
            "server_cpu_us": self.server_us().map(round),
            "server_cpu_stat_us": self.server.map(|usage| round(self.per_answer(usage.process_ns) / 1e3)),
            "server_written_bytes": self.written_bytes().map(round),
            "generator_cpu_us": round(self.per_answer(self.generator.threads_ns) / 1e3),
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
        })
    }
}
