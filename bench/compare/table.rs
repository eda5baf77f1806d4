//! The result as Markdown.

use crate::cases::{Aim, Bound, Case, Measure, Over};
use crate::sample::Sample;
use std::fmt::Write;

/// A round's sample each, the other program's and Braid's.
pub struct Rounds {
    pub case: &'static Case,
    pub other: Vec<Sample>,
    pub braid: Vec<Sample>,
}

/// What the columns are called, and what is aimed at.
pub struct Heading<'a> {
    pub other: &'a str,
    pub braid: &'a str,
    /// The aims of a case.
    pub aims: fn(&'static Case) -> &'static [Aim],
}

/// The middle value and the outermost ones.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// `None` where a round lacks the measure.
    fn of(samples: &[Sample], measure: Measure) -> Option<Spread> {
        let mut values: Vec<f64> = samples.iter().map(|sample| sample.get(measure)).collect::<Option<_>>()?;
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread { median, least, most })
    }

    fn cell(&self) -> String {
        format!("{} ({} – {})", amount(self.median), amount(self.least), amount(self.most))
    }
}

/// One row a measure: medians with the least and the most of the rounds, their ratio, the aim if there is one.
pub fn markdown(heading: &Heading, cases: &[Rounds]) -> String {
    let (one, two) = (heading.other, heading.braid);
    let mut text =
        format!("| case | measure | {one} | {two} | ratio | aim |\n|---|---|---:|---:|---:|---|\n");
    for rounds in cases {
        for measure in Measure::ALL {
            let (other, braid) = (Spread::of(&rounds.other, measure), Spread::of(&rounds.braid, measure));
            let (Some(other), Some(braid)) = (other, braid) else { continue };
            let aim = (heading.aims)(rounds.case).iter().find(|aim| aim.measure == measure);
            let aim = aim.and_then(|aim| judged(aim, rounds, &other, &braid)).unwrap_or_default();
            let (name, measure, ratio) = (rounds.case.name, measure.name(), braid.median / other.median);
            let (other, braid, ratio) = (other.cell(), braid.cell(), factor(ratio));
            writeln!(text, "| {name} | {measure} | {other} | {braid} | {ratio} | {aim} |")
                .expect("a String takes all that is written");
        }
    }
    text
}

fn judged(aim: &Aim, rounds: &Rounds, other: &Spread, braid: &Spread) -> Option<String> {
    let (divisor, of) = match aim.over {
        Over::Other => (other.median, String::new()),
        Over::Own(measure) => {
            (Spread::of(&rounds.braid, measure)?.median, format!(" of its {}", measure.name()))
        }
        Over::One => (1.0, String::new()),
    };
    let words = match aim.bound {
        Bound::AtLeast(least) => format!("≥ {}", factor(least)),
        Bound::AtMost(most) => format!("≤ {}", factor(most)),
    };
    let verdict = if aim.bound.holds(braid.median / divisor) { "met" } else { "**not met**" };
    Some(format!("{words}{of}: {verdict}"))
}

/// Small ratios as what they are one of: 0.16 is 1/6.25. Near 1 a thousandth is told.
fn factor(ratio: f64) -> String {
    let trimmed = |number: f64, digits: usize| {
        let text = format!("{number:.digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match ratio {
        // Of nothing.
        _ if !ratio.is_finite() => String::new(),
        0.0..0.9 => format!("1/{}", trimmed(1.0 / ratio, 2)),
        0.9..1.1 => trimmed(ratio, 3),
        _ => trimmed(ratio, 2),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{BUILDS, CASES};

    fn samples(values: &[(Measure, f64)]) -> Vec<Sample> {
        let sample = |factor: f64| {
            let mut sample = Sample::default();
            values.iter().for_each(|(measure, value)| sample.note(*measure, value * factor));
            sample
        };
        vec![sample(1.5), sample(1.0), sample(0.5)]
    }

    #[test]
    fn a_row_names_the_programs_and_judges_medians() {
        let case = CASES.iter().find(|case| case.name == "put 5,000/s, aged").unwrap();
        let rounds = Rounds {
            case,
            other: samples(&[(Measure::ServerCpu, 200.0), (Measure::WrittenBytes, 4000.0)]),
            braid: samples(&[
                (Measure::ServerCpu, 98.0),
                (Measure::WrittenBytes, 8000.0),
                (Measure::P99, 1.0),
            ]),
        };
        let heading = Heading { other: "etcd 3", braid: "Braid 1", aims: |case| case.aims };
        let text = markdown(&heading, &[rounds]);
        assert!(text.starts_with("| case | measure | etcd 3 | Braid 1 | ratio | aim |\n"), "{text}");
        assert!(text.contains("| 200 (100 – 300) | 98.0 (49.0 – 147) | 1/2.04 | ≤ 1/2: met |"), "{text}");
        assert!(text.contains("| 2 | ≤ 1.5: **not met** |"), "{text}");
        // What only one of both has cannot be compared.
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn a_build_that_costs_four_percent_more_is_seen() {
        let [other, same, worse] = [100.0, 102.9, 104.0].map(|us| samples(&[(Measure::ServerCpu, us)]));
        let heading = Heading { other: "old", braid: "new", aims: |_| BUILDS };
        let mut rounds = Rounds { case: &CASES[0], other, braid: same };
        assert!(markdown(&heading, std::slice::from_ref(&rounds)).contains("| 1.029 | ≤ 1.03: met |"));
        rounds.braid = worse;
        assert!(markdown(&heading, &[rounds]).contains("| 1.04 | ≤ 1.03: **not met** |"));
    }

    #[test]
    fn memory_after_a_restart_is_held_against_memory_before() {
        let case = CASES.iter().find(|case| case.name == "restart").unwrap();
        let values = |after| samples(&[(Measure::Memory, 470.0), (Measure::MemoryAfter, after)]);
        let heading = Heading { other: "etcd", braid: "Braid", aims: |case| case.aims };
        let rounds = Rounds { case, other: values(5.0), braid: values(500.0) };
        let text = markdown(&heading, &[rounds]);
        assert!(text.contains("≤ 480: met"), "{text}");
        assert!(text.contains("≤ 1.05 of its memory, MiB: **not met**"), "{text}");
    }
}
