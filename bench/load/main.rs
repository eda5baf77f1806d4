//! Puts load on a server of etcd's protocol and says how it did. `--help` says how to use it.

// A clock, sockets and /proc are what a measurement is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod options;

use generator::{Outcome, Pace, Plan};
use options::{Options, Parsed};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match options::parse(&args) {
        Ok(Parsed::Help) => {
            println!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(options)) => match measure(&options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("load: {error}");
                ExitCode::FAILURE
            }
        },
        Err(why) => {
            eprintln!("load: {why}\nTry --help.");
            ExitCode::from(2)
        }
    }
}

/// Whether every answer was right.
fn measure(options: &Options) -> std::io::Result<bool> {
    let plan = &options.plan;
    if options.prefill {
        let filled = generator::run(&plan.prefill())?;
        if filled.errors + filled.violations > 0 {
            eprintln!("{}", table(&plan.prefill(), &filled));
            return Ok(false);
        }
    }
    let outcome = generator::run(plan)?;
    eprint!("{}", table(plan, &outcome));
    println!("{}", outcome.json(plan));
    Ok(outcome.errors + outcome.violations == 0)
}

fn table(plan: &Plan, outcome: &Outcome) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<26}{value:>14}").expect("a String takes all that is written");
    };
    let us = |number: f64| format!("{number:.1} µs");
    line("requests a second", format!("{:.0}", outcome.ops_per_second()));
    line("answers", outcome.answers.to_string());
    line("seconds", format!("{:.2}", outcome.seconds));
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        line(name, us(outcome.latency_us(quantile)));
    }
    if let Pace::Open { .. } = plan.pace {
        line("sent late, p50", us(outcome.late_us(0.5)));
        line("sent late, p99", us(outcome.late_us(0.99)));
    }
    if let Some(usage) = outcome.server {
        line("server CPU a request", us(outcome.per_answer(usage.threads_ns) / 1e3));
        line("  by user + system", us(outcome.per_answer(usage.process_ns) / 1e3));
        if let Some(bytes) = outcome.written_bytes() {
            line("bytes written a request", format!("{bytes:.1}"));
        }
    }
    line("generator CPU a request", us(outcome.per_answer(outcome.generator.threads_ns) / 1e3));
    line("bytes sent a request", format!("{:.1}", outcome.per_answer(outcome.bytes_sent)));
    line("bytes received a request", format!("{:.1}", outcome.per_answer(outcome.bytes_received)));
    line("errors", outcome.errors.to_string());
    line("wrong answers", outcome.violations.to_string());
    if let Some(fault) = &outcome.fault {
        line("the first:", format!(" {fault}"));
    }
    text
}
