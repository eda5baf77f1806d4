//! What one run of a case found.

use crate::cases::Measure;
use generator::{Outcome, Plan};
use serde_json::{Value, json};

#[derive(Default)]
pub struct Sample {
    values: Vec<(Measure, f64)>,
    /// Requests that failed or were answered wrongly.
    pub faults: u64,
    /// What goes to stderr.
    pub json: Value,
}

impl Sample {
    pub fn note(&mut self, measure: Measure, value: f64) {
        self.json[measure.key()] = json!((value * 100.0).round() / 100.0);
        self.values.push((measure, value));
    }

    pub fn get(&self, measure: Measure) -> Option<f64> {
        self.values.iter().find(|(noted, _)| *noted == measure).map(|(_, value)| *value)
    }

    /// The measures of a load.
    pub fn of(outcome: &Outcome, plan: &Plan) -> Sample {
        let values = [
            (Measure::OpsPerSecond, Some(outcome.ops_per_second())),
            (Measure::P50, Some(outcome.latency_us(0.5))),
            (Measure::P99, Some(outcome.latency_us(0.99))),
            (Measure::P999, Some(outcome.latency_us(0.999))),
            (Measure::ServerCpu, outcome.server_us()),
            (Measure::WrittenBytes, outcome.written_bytes()),
            (Measure::GeneratorCpu, Some(outcome.per_answer(outcome.generator.threads_ns) / 1e3)),
        ];
        Sample {
            values: values.into_iter().filter_map(|(measure, value)| Some((measure, value?))).collect(),
            faults: outcome.errors + outcome.violations,
            json: outcome.json(plan),
        }
    }
}
