//! OTLP messages as rows: attributes of the resource and of the record side by side, ours where there is a name of ours.

use std::borrow::Cow;

use tollgate_proto::opentelemetry_proto::tonic::common::v1::KeyValue;
use tollgate_proto::opentelemetry_proto::tonic::logs::v1::LogRecord;
use tollgate_proto::opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};

use super::{OtlpRequest, points};
use crate::record::{Kind, Row, Value, classify, hex, looks_like_access, to_ours};
use crate::store::{BlockBuilder, Part, Rollup, names};

/// The event name of the one record a request leaves.
const ACCESS_EVENT: &str = "tollgate.access";

/// A part that is being built.
#[derive(Debug, Default)]
pub(super) struct PartBuilder {
    block: BlockBuilder,
    rollup: Rollup,
    times: Option<(i64, i64)>,
}

impl PartBuilder {
    pub(super) fn push(&mut self, mut row: Row<'_>, seq: &mut i64) {
        row.set(names::SEQ, Value::Int(*seq));
        *seq += 1;
        let (low, high) = self.times.unwrap_or((row.time_ns, row.time_ns));
        self.times = Some((low.min(row.time_ns), high.max(row.time_ns)));
        self.block.push(&row);
    }

    fn finish(self, kind: Kind) -> Option<Part> {
        let (tmin, tmax) = self.times?;
        debug_assert!(self.block.rows() > 0, "times are set with the first row");
        Some(Part { kind, block: self.block.finish(), tmin, tmax, rollup: self.rollup })
    }
}

/// The records of a request, by sort.
pub(super) fn parts(request: &OtlpRequest) -> Vec<Part> {
    let mut seq = 0;
    match request {
        OtlpRequest::Logs(request) => {
            let (mut access, mut logs) = (PartBuilder::default(), PartBuilder::default());
            for resource in &request.resource_logs {
                let about = resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
                for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                    if is_access(record) {
                        let row = access_row(about, record, &mut access.rollup);
                        access.push(row, &mut seq);
                    } else {
                        logs.push(log_row(about, record), &mut seq);
                    }
                }
            }
            access.finish(Kind::Access).into_iter().chain(logs.finish(Kind::Log)).collect()
        }
        OtlpRequest::Traces(request) => {
            let mut spans = PartBuilder::default();
            for resource in &request.resource_spans {
                let about = resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
                for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    spans.push(span_row(about, span), &mut seq);
                }
            }
            spans.finish(Kind::Span).into_iter().collect()
        }
        OtlpRequest::Metrics(request) => {
            let mut out = PartBuilder::default();
            points::push_all(request, &mut out, &mut seq);
            out.finish(Kind::Metric).into_iter().collect()
        }
    }
}

pub(super) fn nanos(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// Adds attributes under their column names.
pub(super) fn add<'a>(row: &mut Row<'a>, attributes: &'a [KeyValue]) {
    for pair in attributes {
        if let Some(value) = pair.value.as_ref().and_then(Value::of) {
            row.fields.push((names::of_attribute(&pair.key), value));
        }
    }
}

fn text(row: &mut Row<'_>, name: &'static str, value: String) {
    row.fields.push((Cow::Borrowed(name), Value::Text(Cow::Owned(value))));
}

fn id<'a>(row: &mut Row<'a>, name: &'static str, bytes: &'a [u8]) {
    // All zeros is OTLP's other way to say "none".
    if bytes.iter().any(|b| *b != 0) {
        row.fields.push((Cow::Borrowed(name), Value::Hex(Cow::Borrowed(bytes))));
    }
}

fn is_access(record: &LogRecord) -> bool {
    record.event_name == ACCESS_EVENT
        || (record.event_name.is_empty()
            && looks_like_access(record.attributes.iter().map(|pair| pair.key.as_str())))
}

fn access_row<'a>(about: &'a [KeyValue], record: &'a LogRecord, rollup: &mut Rollup) -> Row<'a> {
    let mut row = Row::at(nanos(record.time_unix_nano));
    add(&mut row, about);
    add(&mut row, &record.attributes);
    to_ours(&mut row);
    id(&mut row, names::TRACE, &record.trace_id);
    id(&mut row, names::SPAN, &record.span_id);
    if let Some(body) = record.body.as_ref().and_then(Value::of) {
        row.set(names::BODY, body);
    }
    let facts = classify(&row);
    rollup.add(&row, &facts);
    row.set(names::OUTCOME, Value::Text(Cow::Borrowed(facts.outcome.as_str())));
    text(&mut row, names::CALLER, facts.caller);
    text(&mut row, names::DEST, facts.dest);
    row
}

fn log_row<'a>(about: &'a [KeyValue], record: &'a LogRecord) -> Row<'a> {
    let mut row = Row::at(nanos(record.time_unix_nano));
    add(&mut row, about);
    add(&mut row, &record.attributes);
    id(&mut row, names::TRACE, &record.trace_id);
    id(&mut row, names::SPAN, &record.span_id);
    if let Some(body) = record.body.as_ref().and_then(Value::of) {
        row.set(names::BODY, body);
    }
    if !record.event_name.is_empty() {
        row.set(names::EVENT, Value::Text(Cow::Borrowed(&record.event_name)));
    }
    let severity = match (record.severity_text.as_str(), record.severity_number) {
        ("", ..=0) => "",
        ("", 1..=4) => "TRACE",
        ("", 5..=8) => "DEBUG",
        ("", 9..=12) => "INFO",
        ("", 13..=16) => "WARN",
        ("", 17..=20) => "ERROR",
        ("", _) => "FATAL",
        (text, _) => text,
    };
    if !severity.is_empty() {
        row.set(names::SEVERITY, Value::Text(Cow::Borrowed(severity)));
    }
    row
}

fn span_row<'a>(about: &'a [KeyValue], span: &'a Span) -> Row<'a> {
    let mut row = Row::at(nanos(span.start_time_unix_nano));
    add(&mut row, about);
    add(&mut row, &span.attributes);
    id(&mut row, names::TRACE, &span.trace_id);
    id(&mut row, names::SPAN, &span.span_id);
    id(&mut row, names::PARENT, &span.parent_span_id);
    row.set(names::NAME, Value::Text(Cow::Borrowed(&span.name)));
    row.set(names::KIND, Value::Text(Cow::Borrowed(kind(span.kind()))));
    let length = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    row.set(names::LENGTH, Value::Int(nanos(length)));
    let status = match span.status.as_ref().map(|status| status.code()) {
        Some(StatusCode::Ok) => "ok",
        Some(StatusCode::Error) => "error",
        _ => "unset",
    };
    row.set(names::STATUS, Value::Text(Cow::Borrowed(status)));
    if let Some(message) = span.status.as_ref().map(|s| s.message.as_str()).filter(|m| !m.is_empty()) {
        row.set("otel.status_description", Value::Text(Cow::Borrowed(message)));
    }
    if !span.events.is_empty() || !span.links.is_empty() {
        row.set(names::EVENTS, Value::Json(events(span).to_string()));
    }
    row
}

fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "unspecified",
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

fn events(span: &Span) -> serde_json::Value {
    let events: Vec<_> = span
        .events
        .iter()
        .map(|e| serde_json::json!({"name": e.name, "at_ns": e.time_unix_nano.to_string(), "attributes": object(&e.attributes)}))
        .collect();
    let links: Vec<_> = span
        .links
        .iter()
        .map(|l| serde_json::json!({"trace_id": hex(&l.trace_id), "span_id": hex(&l.span_id), "attributes": object(&l.attributes)}))
        .collect();
    serde_json::json!({"events": events, "links": links})
}

fn object(attributes: &[KeyValue]) -> serde_json::Value {
    let mut row = Row::at(0);
    add(&mut row, attributes);
    let pairs = row
        .fields
        .iter()
        .skip(1)
        .map(|(name, value)| (name.clone().into_owned(), crate::store::json_of(value)));
    serde_json::Value::Object(pairs.collect())
}
