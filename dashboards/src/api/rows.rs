//! A stored record as a row of the requests table.

use tollgate_proto::attributes as a;

use super::types::{OutcomeName, RequestRow};
use crate::query::Loaded;
use crate::record::Outcome;
use crate::store::{names, three_digits};

/// The columns a row is made of.
pub(super) const COLUMNS: &[&str] = &[
    names::TIME,
    names::SEQ,
    names::OUTCOME,
    names::CALLER,
    names::DEST,
    names::TRACE,
    a::TOLLGATE_REQUEST_ID,
    a::HTTP_RESPONSE_STATUS_CODE,
    a::HTTP_REQUEST_METHOD,
    a::URL_PATH,
    a::TOLLGATE_SOURCE_WORKLOAD,
    a::HTTP_ROUTE,
    a::TOLLGATE_REASON,
    a::TOLLGATE_DURATION_US,
    a::TOLLGATE_REPORTER,
    a::TOLLGATE_DESTINATION_VERSION,
    a::ENDUSER_ID,
];

pub(super) fn row(loaded: &Loaded, row: usize) -> RequestRow {
    let text = |name: &str| loaded.text(name, row);
    let time_ns = loaded.times().get(row).copied().unwrap_or_default();
    RequestRow {
        id: text(a::TOLLGATE_REQUEST_ID),
        key: key(loaded, row),
        time: rfc3339(time_ns),
        time_ns: time_ns.to_string(),
        outcome: outcome(&text(names::OUTCOME)),
        status: status(loaded, row),
        method: text(a::HTTP_REQUEST_METHOD),
        path: text(a::URL_PATH),
        caller: text(names::CALLER),
        dest: text(names::DEST),
        source: text(a::TOLLGATE_SOURCE_WORKLOAD),
        route: text(a::HTTP_ROUTE),
        reason: text(a::TOLLGATE_REASON),
        duration_ms: millis(loaded, row),
        reporter: text(a::TOLLGATE_REPORTER),
        version: text(a::TOLLGATE_DESTINATION_VERSION),
        subject: text(a::ENDUSER_ID),
        trace_id: text(names::TRACE),
    }
}

pub(super) fn key(loaded: &Loaded, row: usize) -> String {
    loaded.seqs().get(row).copied().unwrap_or_default().to_string()
}

pub(super) fn status(loaded: &Loaded, row: usize) -> u16 {
    let status = loaded.cell(a::HTTP_RESPONSE_STATUS_CODE, row).and_then(crate::store::Cell::int);
    status.and_then(|status| u16::try_from(status).ok()).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds to three digits")]
pub(super) fn millis(loaded: &Loaded, row: usize) -> Option<f64> {
    let us = loaded.cell(a::TOLLGATE_DURATION_US, row).and_then(crate::store::Cell::int)?;
    Some(three_digits(us as f64 / 1000.0))
}

pub(super) fn outcome(text: &str) -> OutcomeName {
    match text {
        "denied" => OutcomeName::Denied,
        "limited" => OutcomeName::Limited,
        "failed" => OutcomeName::Failed,
        _ => OutcomeName::Passed,
    }
}

pub(super) fn outcome_of(outcome: Outcome) -> OutcomeName {
    match outcome {
        Outcome::Passed => OutcomeName::Passed,
        Outcome::Denied => OutcomeName::Denied,
        Outcome::Limited => OutcomeName::Limited,
        Outcome::Failed => OutcomeName::Failed,
    }
}

/// RFC 3339 with milliseconds, UTC.
pub(super) fn rfc3339(time_ns: i64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or_default();
    format!("{at:.3}")
}

/// `02:14`, UTC.
pub(super) fn clock_time(time_ns: i64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or_default();
    at.strftime("%H:%M").to_string()
}
