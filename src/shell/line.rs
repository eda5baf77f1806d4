//! One line of the log, in the two forms of etcd's.

use super::clock::timestamp;
use crate::config::{LogFormat, LogLevel};
use crate::io::{Fields, Value};
use crate::types::Duration;

pub struct Line {
    /// The time of the wall clock.
    pub wall_us: u64,
    pub level: LogLevel,
    pub caller: String,
    pub message: String,
    pub fields: Fields,
}

impl Line {
    pub fn text(&self, format: LogFormat) -> String {
        let Line { level, caller, message, fields, .. } = self;
        let (level, ts) = (level_name(*level), timestamp(self.wall_us));
        match format {
            LogFormat::Json => {
                let mut text = format!(r#"{{"level":"{level}","ts":"{ts}","caller":{}"#, quoted(caller));
                text.push_str(&format!(r#","msg":{}"#, quoted(message)));
                for (name, value) in &fields.0 {
                    text.push_str(&format!(r#",{}:{}"#, quoted(name), json(value)));
                }
                text + "}\n"
            }
            LogFormat::Console => {
                let mut text = format!("{ts}\t{level}\t{caller}\t{message}");
                let field = |(name, value): &(&str, Value)| format!("{}: {}", quoted(name), json(value));
                if !fields.0.is_empty() {
                    let fields: Vec<String> = fields.0.iter().map(field).collect();
                    text.push_str(&format!("\t{{{}}}", fields.join(", ")));
                }
                text + "\n"
            }
        }
    }
}

/// A field's value, of the type that etcd's logger gives it.
fn json(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Texts(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("[{}]", texts.join(","))
        }
        Value::Bool(on) => on.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Span(span) => quoted(&go_span(*span)),
        Value::Moment(_) | Value::Client(_) => unreachable!("the reactor's thread has made texts of them"),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Panic => "panic",
        LogLevel::Fatal => "fatal",
    }
}

/// Formats a duration as Go does: `1h2m3.5s`, `300ms`, `52.208µs`, `0s`.
pub fn go_span(Duration(ns): Duration) -> String {
    let part = |unit_ns: u64, unit: &str| {
        let (whole, rest) = (ns / unit_ns, ns % unit_ns);
        let width = unit_ns.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        let digits = if width == 0 { "" } else { digits.trim_end_matches('0') };
        let point = if digits.is_empty() { "" } else { "." };
        format!("{whole}{point}{digits}{unit}")
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => part(1, "ns"),
        1_000..1_000_000 => part(1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => part(1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (ns / 3_600_000_000_000, ns / 60_000_000_000 % 60);
            let seconds = go_seconds(ns % 60_000_000_000);
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn go_seconds(ns: u64) -> String {
    let digits = format!("{:09}", ns % 1_000_000_000);
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("{}{point}{digits}s", ns / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_etcds_two_forms_and_its_types() {
        let fields = Fields::from([
            ("address", "127.0.0.1:2379".into()),
            ("urls", vec!["http://a:1".to_owned(), "http://b:1".to_owned()].into()),
            ("pre-vote", true.into()),
            ("compact-revision", 380_i64.into()),
            ("max-cpu-set", 2_u64.into()),
            ("time spent", Duration::from_us(717).into()),
        ]);
        let line = Line {
            wall_us: 0,
            level: LogLevel::Info,
            caller: "shell/x.rs:1".to_owned(),
            message: "a \"b\"".to_owned(),
            fields,
        };
        let ts = timestamp(0);
        assert_eq!(
            line.text(LogFormat::Json),
            format!(
                "{{\"level\":\"info\",\"ts\":\"{ts}\",\"caller\":\"shell/x.rs:1\",\"msg\":\"a \\\"b\\\"\",\
                 \"address\":\"127.0.0.1:2379\",\"urls\":[\"http://a:1\",\"http://b:1\"],\"pre-vote\":true,\
                 \"compact-revision\":380,\"max-cpu-set\":2,\"time spent\":\"717\u{b5}s\"}}\n"
            )
        );
        let line = Line { fields: [("revision", 5_i64.into())].into(), ..line };
        let console = format!("{ts}\tinfo\tshell/x.rs:1\ta \"b\"\t{{\"revision\": 5}}\n");
        assert_eq!(line.text(LogFormat::Console), console);
    }

    #[test]
    fn spans_read_as_go_prints_them() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (52_208, "52.208\u{b5}s"),
            (3_580_848, "3.580848ms"),
            (300_000_000, "300ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
            (7_200_000_000_000, "2h0m0s"),
        ] {
            assert_eq!(go_span(Duration(ns)), text);
        }
    }
}
