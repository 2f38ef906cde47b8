//! One attribute's value, borrowed from the message it came in.

use std::borrow::Cow;

use tollgate_proto::opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};

/// How deep lists and maps may nest before the rest is written as `null`.
const MAX_DEPTH: usize = 16;

/// A value as the store keeps it. Lists and maps are kept as JSON text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Json(String),
    /// A trace or span id; shown as hex.
    Hex(Cow<'a, [u8]>),
}

impl<'a> Value<'a> {
    /// Reads an OTLP value; an absent one is no value.
    pub(crate) fn of(value: &'a AnyValue) -> Option<Self> {
        Some(match value.value.as_ref()? {
            any_value::Value::StringValue(text) => Self::Text(Cow::Borrowed(text)),
            any_value::Value::BoolValue(yes) => Self::Bool(*yes),
            any_value::Value::IntValue(number) => Self::Int(*number),
            any_value::Value::DoubleValue(number) => Self::Float(*number),
            other => Self::Json(json(other, 0).to_string()),
        })
    }

    /// The text, where it is text.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, also where it was sent as text, as Envoy sends everything.
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a fraction of a microsecond is of no interest"
            )]
            Self::Float(number) => Some(*number as i64),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

fn json(value: &any_value::Value, depth: usize) -> serde_json::Value {
    use serde_json::Value as Json;
    let inner = |value: &AnyValue| value.value.as_ref().map_or(Json::Null, |v| json(v, depth + 1));
    match value {
        _ if depth > MAX_DEPTH => Json::Null,
        any_value::Value::StringValue(text) => Json::String(text.clone()),
        any_value::Value::BoolValue(yes) => Json::Bool(*yes),
        any_value::Value::IntValue(number) => Json::from(*number),
        any_value::Value::DoubleValue(number) => Json::from(*number),
        any_value::Value::ArrayValue(list) => Json::Array(list.values.iter().map(inner).collect()),
        any_value::Value::KvlistValue(map) => Json::Object(
            map.values
                .iter()
                .map(|pair| (pair.key.clone(), pair.value.as_ref().map_or(Json::Null, inner)))
                .collect(),
        ),
        any_value::Value::BytesValue(bytes) => Json::String(hex(bytes)),
        // An index into a table that only profiles have; logs, traces and metrics may not carry it.
        any_value::Value::StringValueStrindex(_) => Json::Null,
    }
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// The bytes of hex digits, of either case.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
