//! One value of one flag: Go's forms of numbers, booleans and durations.

use super::flags::{FlagKind, GATES};
use super::shards::read_cuts;
use super::url::Url;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FlagValue {
    Text(String),
    Bool(bool),
    Uint(u64),
    Int(i64),
    /// A duration in nanoseconds.
    Span(i64),
    Urls(Vec<Url>),
    /// The gates in the order given, each with its setting.
    Gates(Vec<(&'static str, bool)>),
    Cuts(Vec<Vec<u8>>),
}

/// Go's flag package says no more than this about a value it can't read.
const UNREADABLE: &str = "parse error";
const TOO_LARGE: &str = "value out of range";

impl FlagValue {
    /// Reads a value as etcd would. The error is the end of etcd's sentence.
    pub(super) fn read(kind: FlagKind, text: &str) -> Result<FlagValue, String> {
        Ok(match kind {
            FlagKind::Text | FlagKind::Anything => FlagValue::Text(text.to_string()),
            FlagKind::Bool => FlagValue::Bool(read_bool(text).ok_or(UNREADABLE)?),
            FlagKind::Uint => FlagValue::Uint(read_uint(text)?),
            FlagKind::Uint32 => {
                FlagValue::Uint(u64::from(u32::try_from(read_uint(text)?).map_err(|_| TOO_LARGE)?))
            }
            FlagKind::Int => FlagValue::Int(read_int(text)?),
            FlagKind::Span => FlagValue::Span(read_span(text).map_err(|_| UNREADABLE)?),
            FlagKind::Urls => FlagValue::Urls(Url::parse_list(text)?),
            FlagKind::Choice(choices) if choices.contains(&text) => FlagValue::Text(text.to_string()),
            FlagKind::Choice(choices) => {
                return Err(format!("invalid value: it is one of {}", choices.join(", ")));
            }
            FlagKind::Gates => FlagValue::Gates(read_gates(text)?),
            FlagKind::Cuts => FlagValue::Cuts(read_cuts(text)?),
        })
    }
}

fn read_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A Go literal: decimal, `0x`, `0b`, `0o` or a leading 0 for octal, with underscores between digits.
fn read_uint(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let prefixed = radix != 10;
    let separated = prefixed && digits.starts_with('_');
    let digits = if separated { &digits[1..] } else { digits };
    if digits.is_empty() || digits.split('_').any(str::is_empty) {
        return Err(UNREADABLE.into());
    }
    let digits = digits.replace('_', "");
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(UNREADABLE.into());
    }
    u64::from_str_radix(&digits, radix).map_err(|_| TOO_LARGE.into())
}

fn read_int(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let size = i128::from(read_uint(digits)?);
    i64::try_from(if negative { -size } else { size }).map_err(|_| TOO_LARGE.into())
}

/// A Go duration in nanoseconds: signed decimal numbers, each with a unit, or a bare 0.
pub(super) fn read_span(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_ends);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
            return Err(invalid());
        }
        let scale: u128 = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let digits: u128 = format!("0{whole}{fraction}").parse().map_err(|_| invalid())?;
        let parts = digits.checked_mul(scale).ok_or_else(invalid)?;
        total = total.saturating_add(parts / 10u128.pow(fraction.len() as u32));
        rest = tail;
    }
    let size = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { -size } else { size })
}

fn read_gates(text: &str) -> Result<Vec<(&'static str, bool)>, String> {
    let mut gates = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let Some((name, setting)) = item.split_once('=') else {
            return Err(format!("missing bool value for {item}"));
        };
        let (name, setting) = (name.trim(), setting.trim());
        let Some(on) = read_bool(setting) else {
            return Err(format!("invalid value of {name}={setting}, err: {UNREADABLE}"));
        };
        let Some(gate) = GATES.iter().find(|gate| gate.0 == name) else {
            return Err(format!("unrecognized feature gate: {name}"));
        };
        gates.push((gate.0, on));
    }
    Ok(gates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, ns) in [
            ("0", 0),
            ("-0", 0),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5us", 500),
            ("1.s", 1_000_000_000),
            ("-2s", -2_000_000_000),
            ("1µs", 1_000),
            ("9223372036854775807ns", i64::MAX),
        ] {
            assert_eq!(read_span(text), Ok(ns), "{text}");
        }
        for (text, words) in [
            ("", "invalid duration"),
            ("5", "missing unit"),
            ("5d", "unknown unit"),
            ("m", "invalid duration"),
            (".s", "invalid duration"),
            ("1..5s", "invalid duration"),
            ("9223372036854775808ns", "invalid duration"),
            ("3000000h", "invalid duration"),
            ("99999999999999999999999999999999999999s", "invalid duration"),
        ] {
            let error = read_span(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_read_as_go_literals() {
        for (text, number) in [("0", 0), ("10", 10), ("0x10", 16), ("010", 8), ("0b11", 3), ("1_000", 1000)] {
            assert_eq!(read_uint(text), Ok(number), "{text}");
        }
        for text in ["", "-1", "+1", "1__0", "_1", "0x", "08", "1.5", "abc", "1e3"] {
            assert_eq!(read_uint(text), Err(UNREADABLE.to_string()), "{text}");
        }
        assert_eq!(read_uint("18446744073709551616"), Err(TOO_LARGE.to_string()));
        assert_eq!(read_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(read_int("9223372036854775808"), Err(TOO_LARGE.to_string()));
        assert_eq!(FlagValue::read(FlagKind::Uint32, "4294967296"), Err(TOO_LARGE.to_string()));
    }

    #[test]
    fn an_unknown_gate_is_refused() {
        assert_eq!(read_gates(" LeaseCheckpoint = true ,"), Ok(vec![("LeaseCheckpoint", true)]));
        assert_eq!(read_gates("Nope=true"), Err("unrecognized feature gate: Nope".to_string()));
        assert_eq!(read_gates("LeaseCheckpoint"), Err("missing bool value for LeaseCheckpoint".to_string()));
        assert!(read_gates("LeaseCheckpoint=maybe").unwrap_err().starts_with("invalid value of"));
    }
}
