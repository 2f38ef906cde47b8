//! Records: one request, log line, span or metric point, as named values; what became of a request; and what must
//! not be kept.
//!
//! Pure: messages in, values out.

mod alias;
mod outcome;
mod redact;
mod value;

use std::borrow::Cow;

pub(crate) use alias::{looks_like_access, to_ours};
pub(crate) use outcome::{Facts, Outcome, classify};
pub(crate) use redact::{redact, redact_body, redact_text};
pub(crate) use value::{Value, hex, unhex};

use crate::store::names;

/// What sort of record. Each sort has blocks of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One request, as one reporter saw it.
    Access,
    /// A log line of a process.
    Log,
    Span,
    Metric,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Access, Self::Log, Self::Span, Self::Metric];

    /// Its number on disk.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Access => 0,
            Self::Log => 1,
            Self::Span => 2,
            Self::Metric => 3,
        }
    }

    pub(crate) fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// One record on its way into the store.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) time_ns: i64,
    /// Names are column names; a later value of a name wins.
    pub(crate) fields: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Row<'a> {
    pub(crate) fn at(time_ns: i64) -> Self {
        Self { time_ns, fields: vec![(Cow::Borrowed(names::TIME), Value::Int(time_ns))] }
    }

    #[cfg(test)]
    pub(crate) fn of(time_ns: i64, fields: Vec<(&'a str, Value<'a>)>) -> Self {
        let mut row = Self::at(time_ns);
        row.fields.extend(fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)));
        row
    }

    pub(crate) fn set(&mut self, name: &'static str, value: Value<'a>) {
        self.fields.push((Cow::Borrowed(name), value));
    }

    /// The value of a column; of several the last.
    pub(crate) fn field(&self, name: &str) -> Option<&Value<'a>> {
        self.fields.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.field(name).and_then(Value::as_text).unwrap_or_default()
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.field(name).and_then(Value::as_int)
    }
}
