//! The result as Markdown.

use crate::cases::{Bound, Case, Measure};
use crate::generator::Outcome;
use std::fmt::Write;

/// The outcomes of one case: a round's each, etcd's and Braid's.
pub struct Rounds {
    pub etcd: Vec<Outcome>,
    pub braid: Vec<Outcome>,
}

/// The middle value and the outermost ones.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(outcomes: &[Outcome], measure: Measure) -> Spread {
        let mut values: Vec<f64> = outcomes.iter().map(|outcome| measure.of(outcome)).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        Spread { median: (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0, least, most }
    }

    fn cell(&self) -> String {
        format!("{} ({} – {})", amount(self.median), amount(self.least), amount(self.most))
    }
}

/// One row a measure: medians with the least and the most of the rounds, their ratio, the aim if there is one.
pub fn markdown(cases: &[(&Case, Rounds)]) -> String {
    let mut text =
        "| case | measure | etcd | Braid | Braid / etcd | aim |\n|---|---|---:|---:|---:|---|\n".to_owned();
    for (case, rounds) in cases {
        for measure in Measure::ALL {
            let (etcd, braid) = (Spread::of(&rounds.etcd, measure), Spread::of(&rounds.braid, measure));
            let ratio = braid.median / etcd.median;
            let aim = case.aims.iter().find(|aim| aim.measure == measure);
            let aim = aim.map_or(String::new(), |aim| judged(aim.bound, ratio));
            let (name, measure) = (case.name, measure.name());
            let (etcd, braid, ratio) = (etcd.cell(), braid.cell(), factor(ratio));
            writeln!(text, "| {name} | {measure} | {etcd} | {braid} | {ratio} | {aim} |")
                .expect("a String takes all that is written");
        }
    }
    text
}

fn judged(bound: Bound, ratio: f64) -> String {
    let words = match bound {
        Bound::AtLeast(least) => format!("≥ {}", factor(least)),
        Bound::AtMost(most) => format!("≤ {}", factor(most)),
    };
    format!("{words}: {}", if bound.holds(ratio) { "met" } else { "**not met**" })
}

/// Small ratios as what they are one of: 0.16 is 1/6.25.
fn factor(ratio: f64) -> String {
    let trimmed = |number: f64| {
        let text = format!("{number:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if ratio < 0.95 { format!("1/{}", trimmed(1.0 / ratio)) } else { trimmed(ratio) }
}

/// Three digits or more, thousands apart.
fn amount(number: f64) -> String {
    if number < 10.0 {
        return format!("{number:.2}");
    }
    if number < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
