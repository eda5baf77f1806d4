//! A line for the log of the process.

use crate::types::{ConnId, Duration, Time};

#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    pub level: Level,
    pub message: &'static str,
    pub fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Info,
    Warn,
}

/// What a line says beside its message, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(pub Vec<(&'static str, Value)>);

/// A field's value: in JSON of the type that etcd's logger gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Texts(Vec<String>),
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// Shown as Go shows a duration.
    Span(Duration),
    /// A moment of a reactor's time, shown as one of the wall's.
    Moment(Time),
    /// Shown as the address of the client.
    Client(ConnId),
}

impl From<Vec<(&'static str, String)>> for Fields {
    fn from(fields: Vec<(&'static str, String)>) -> Fields {
        Fields(fields.into_iter().map(|(name, text)| (name, Value::Text(text))).collect())
    }
}

impl<const N: usize> From<[(&'static str, Value); N]> for Fields {
    fn from(fields: [(&'static str, Value); N]) -> Fields {
        Fields(fields.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<Vec<String>> for Value {
    fn from(texts: Vec<String>) -> Value {
        Value::Texts(texts)
    }
}

impl From<bool> for Value {
    fn from(on: bool) -> Value {
        Value::Bool(on)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Uint(number)
    }
}

impl From<Duration> for Value {
    fn from(span: Duration) -> Value {
        Value::Span(span)
    }
}
