//! Log records and spans as they go over the wire, written once and in one pass.
//!
//! A proxy says more about a request than any other work on it takes: as structures with a string for every name, which
//! are measured, copied and freed again, that would be most of its CPU. The names of messages and the numbers of fields
//! are those of opentelemetry-proto 1.x; the encoding is that of Protocol Buffers, whose fields may come in any order.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use tollgate_proto::opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

/// What comes before a field's content, besides its number.
mod wire {
    pub(super) const VARINT: u8 = 0;
    pub(super) const FIXED64: u8 = 1;
    pub(super) const LENGTH: u8 = 2;
    pub(super) const FIXED32: u8 = 5;
}

/// About what the record of a request takes.
const USUAL_RECORD: usize = 2048;
const USUAL_SPAN: usize = 768;
/// `SpanFlags`: whether the parent is remote is known, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// A log record or a span, as it goes over the wire.
#[derive(Debug)]
pub struct Encoded(Vec<u8>);

impl Encoded {
    /// Its bytes in a request, with number and length.
    pub(super) fn size(&self) -> usize {
        length_delimited(self.0.len())
    }
}

impl From<LogRecord> for Encoded {
    fn from(record: LogRecord) -> Self {
        Self(record.encode_to_vec())
    }
}

/// A log record in the making.
#[derive(Debug)]
pub struct LogWriter(Vec<u8>);

impl LogWriter {
    /// One that happened at this time, of this severity.
    pub fn new(time_unix_nano: u64, severity: SeverityNumber, severity_text: &str) -> Self {
        let mut out = Vec::with_capacity(USUAL_RECORD);
        fixed64(&mut out, 1, time_unix_nano);
        number(&mut out, 2, severity as u64);
        text(&mut out, 3, severity_text);
        Self(out)
    }

    /// What it is a record of.
    pub fn event_name(&mut self, name: &str) {
        text(&mut self.0, 12, name);
    }

    /// When it was noticed.
    pub fn observed(&mut self, time_unix_nano: u64) {
        fixed64(&mut self.0, 11, time_unix_nano);
    }

    /// What it says to a person.
    pub fn body(&mut self, line: &str) {
        head(&mut self.0, 5, wire::LENGTH);
        any_text(&mut self.0, line);
    }

    /// In which span of which trace it happened.
    pub fn span(&mut self, trace: TraceId, span: SpanId, flags: u8) {
        fixed32(&mut self.0, 8, flags.into());
        bytes(&mut self.0, 9, &trace.to_bytes());
        bytes(&mut self.0, 10, &span.to_bytes());
    }

    /// An attribute that is a text.
    pub fn text(&mut self, key: &str, value: &str) {
        attribute_text(&mut self.0, 6, key, value);
    }

    /// An attribute that is a number.
    pub fn int(&mut self, key: &str, value: i64) {
        attribute_int(&mut self.0, 6, key, value);
    }

    /// An attribute that is a list of texts.
    pub fn texts<'t>(&mut self, key: &str, values: impl Iterator<Item = &'t str>) {
        let mut array = Vec::new();
        for value in values {
            head(&mut array, 1, wire::LENGTH);
            any_text(&mut array, value);
        }
        attribute_array(&mut self.0, 6, key, &array);
    }

    /// It is whole.
    pub fn finish(self) -> Encoded {
        Encoded(self.0)
    }
}

/// `opentelemetry.proto.trace.v1.Span`.
pub(super) fn span(data: &SpanData) -> Encoded {
    let mut out = Vec::with_capacity(USUAL_SPAN);
    let context = &data.span_context;
    bytes(&mut out, 1, &context.trace_id().to_bytes());
    bytes(&mut out, 2, &context.span_id().to_bytes());
    let state = context.trace_state().header();
    if !state.is_empty() {
        text(&mut out, 3, &state);
    }
    if data.parent_span_id != SpanId::INVALID {
        bytes(&mut out, 4, &data.parent_span_id.to_bytes());
    }
    text(&mut out, 5, &data.name);
    let kind = match data.span_kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    };
    number(&mut out, 6, kind);
    fixed64(&mut out, 7, unix_nanos(data.start_time));
    fixed64(&mut out, 8, unix_nanos(data.end_time));
    data.attributes.iter().for_each(|one| attribute(&mut out, 9, one));
    number(&mut out, 10, data.dropped_attributes_count.into());
    for event in data.events.iter() {
        nested(&mut out, 11, |out| {
            fixed64(out, 1, unix_nanos(event.timestamp));
            text(out, 2, &event.name);
            event.attributes.iter().for_each(|one| attribute(out, 3, one));
            number(out, 4, event.dropped_attributes_count.into());
        });
    }
    number(&mut out, 12, data.events.dropped_count.into());
    for link in data.links.iter() {
        nested(&mut out, 13, |out| {
            let to = &link.span_context;
            bytes(out, 1, &to.trace_id().to_bytes());
            bytes(out, 2, &to.span_id().to_bytes());
            text(out, 3, &to.trace_state().header());
            link.attributes.iter().for_each(|one| attribute(out, 4, one));
            number(out, 5, link.dropped_attributes_count.into());
            fixed32(out, 6, span_flags(to.trace_flags().to_u8(), to.is_remote()));
        });
    }
    number(&mut out, 14, data.links.dropped_count.into());
    match &data.status {
        Status::Unset => {}
        Status::Ok => nested(&mut out, 15, |out| number(out, 3, 1)),
        Status::Error { description } => nested(&mut out, 15, |out| {
            text(out, 2, description);
            number(out, 3, 2);
        }),
    }
    fixed32(&mut out, 16, span_flags(context.trace_flags().to_u8(), data.parent_span_is_remote));
    Encoded(out)
}

fn span_flags(flags: u8, is_remote: bool) -> u32 {
    u32::from(flags) | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 }
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What stands before the records of every request of this process: whose they are.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    /// `resource`, the first field of `ResourceLogs` and of `ResourceSpans`.
    resource: Vec<u8>,
    /// `scope`, the first field of `ScopeLogs` and of `ScopeSpans`.
    scope: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(resource: &impl Message, scope: &impl Message) -> Self {
        let field = |message: Vec<u8>| {
            let mut out = Vec::with_capacity(length_delimited(message.len()));
            bytes(&mut out, 1, &message);
            out
        };
        Self { resource: field(resource.encode_to_vec()), scope: field(scope.encode_to_vec()) }
    }

    /// `ExportLogsServiceRequest` with these log records, or `ExportTraceServiceRequest` with these spans: the numbers
    /// of their fields are the same.
    pub(super) fn request(&self, items: &[Encoded]) -> Bytes {
        let in_scope = self.scope.len() + items.iter().map(Encoded::size).sum::<usize>();
        let in_resource = self.resource.len() + length_delimited(in_scope);
        let mut out = Vec::with_capacity(length_delimited(in_resource));
        head(&mut out, 1, wire::LENGTH);
        varint(&mut out, in_resource as u64);
        out.extend_from_slice(&self.resource);
        head(&mut out, 2, wire::LENGTH);
        varint(&mut out, in_scope as u64);
        out.extend_from_slice(&self.scope);
        items.iter().for_each(|item| bytes(&mut out, 2, &item.0));
        out.into()
    }
}

fn attribute(out: &mut Vec<u8>, field: u8, KeyValue { key, value, .. }: &KeyValue) {
    let key = key.as_str();
    match value {
        Value::String(value) => attribute_text(out, field, key, value.as_str()),
        Value::I64(value) => attribute_int(out, field, key, *value),
        Value::Array(array) => {
            let mut values = Vec::new();
            any_array(&mut values, array);
            attribute_array(out, field, key, &values);
        }
        other => nested(out, field, |out| {
            text(out, 1, key);
            nested(out, 2, |out| any(out, other));
        }),
    }
}

fn any(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(value) => {
            head(out, 2, wire::VARINT);
            out.push((*value).into());
        }
        Value::I64(value) => int(out, *value),
        Value::F64(value) => {
            head(out, 4, wire::FIXED64);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::String(value) => text(out, 1, value.as_str()),
        // Values of kinds to come are told as texts.
        other => text(out, 1, &other.as_str()),
    }
}

/// The values of an `ArrayValue`.
fn any_array(out: &mut Vec<u8>, array: &Array) {
    let mut one = |value: Value| nested(out, 1, |out| any(out, &value));
    match array {
        Array::Bool(values) => values.iter().for_each(|value| one((*value).into())),
        Array::I64(values) => values.iter().for_each(|value| one((*value).into())),
        Array::F64(values) => values.iter().for_each(|value| one((*value).into())),
        Array::String(values) => values.iter().for_each(|value| one(Value::String(value.clone()))),
        other => one(other.to_string().into()),
    }
}

fn attribute_text(out: &mut Vec<u8>, field: u8, key: &str, value: &str) {
    let any = length_delimited(value.len());
    attribute_head(out, field, key, any);
    text(out, 1, value);
}

fn attribute_int(out: &mut Vec<u8>, field: u8, key: &str, value: i64) {
    attribute_head(out, field, key, 1 + prost::length_delimiter_len(value as usize));
    int(out, value);
}

fn attribute_array(out: &mut Vec<u8>, field: u8, key: &str, values: &[u8]) {
    attribute_head(out, field, key, length_delimited(values.len()));
    bytes(out, 5, values);
}

/// A `KeyValue` up to its value, which will have so many bytes.
fn attribute_head(out: &mut Vec<u8>, field: u8, key: &str, any: usize) {
    head(out, field, wire::LENGTH);
    varint(out, (length_delimited(key.len()) + length_delimited(any)) as u64);
    text(out, 1, key);
    head(out, 2, wire::LENGTH);
    varint(out, any as u64);
}

/// An `AnyValue` that is a text, with its length.
fn any_text(out: &mut Vec<u8>, value: &str) {
    varint(out, length_delimited(value.len()) as u64);
    text(out, 1, value);
}

/// The number of an `AnyValue`.
fn int(out: &mut Vec<u8>, value: i64) {
    head(out, 3, wire::VARINT);
    // Negative numbers are told in two's complement, all ten bytes of them.
    varint(out, value as u64);
}

fn nested(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Vec::new();
    write(&mut message);
    bytes(out, field, &message);
}

fn text(out: &mut Vec<u8>, field: u8, value: &str) {
    bytes(out, field, value.as_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    head(out, field, wire::LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Zero is what a missing number means.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        head(out, field, wire::VARINT);
        varint(out, value);
    }
}

fn fixed64(out: &mut Vec<u8>, field: u8, value: u64) {
    head(out, field, wire::FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn fixed32(out: &mut Vec<u8>, field: u8, value: u32) {
    head(out, field, wire::FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

fn head(out: &mut Vec<u8>, field: u8, wire: u8) {
    varint(out, u64::from(field) << 3 | u64::from(wire));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a field with so many bytes in it, whose number is below 16.
fn length_delimited(bytes: usize) -> usize {
    1 + prost::length_delimiter_len(bytes) + bytes
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{Event, Link, SpanContext, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use tollgate_proto::opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use tollgate_proto::opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use tollgate_proto::opentelemetry_proto::tonic::common::v1 as common;
    use tollgate_proto::opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
    use tollgate_proto::opentelemetry_proto::tonic::resource::v1::Resource;
    use tollgate_proto::opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;

    fn attribute_of(key: &str, value: ProtoValue) -> common::KeyValue {
        let value = Some(common::AnyValue { value: Some(value) });
        common::KeyValue { key: key.to_owned(), value, ..Default::default() }
    }

    fn texts_of(values: &[&str]) -> ProtoValue {
        let one = |text: &&str| common::AnyValue { value: Some(ProtoValue::StringValue((*text).to_owned())) };
        ProtoValue::ArrayValue(common::ArrayValue { values: values.iter().map(one).collect() })
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let long = "x".repeat(20_000);
        let mut writer = LogWriter::new(7, SeverityNumber::Warn, "WARN");
        writer.text("long", &long);
        writer.text("empty", "");
        for (key, value) in [("zero", 0), ("small", 127), ("large", i64::MAX), ("negative", -1)] {
            writer.int(key, value);
        }
        writer.texts("texts", ["a", ""].into_iter());
        writer.body("a line");
        writer.event_name("event");
        writer.observed(9);
        writer.span(TraceId::from(0x0102_u128), SpanId::from(3), 1);
        let Encoded(bytes) = writer.finish();

        let int = |key, value| attribute_of(key, ProtoValue::IntValue(value));
        let expected = LogRecord {
            time_unix_nano: 7,
            observed_time_unix_nano: 9,
            severity_number: SeverityNumber::Warn.into(),
            severity_text: "WARN".to_owned(),
            body: Some(common::AnyValue { value: Some(ProtoValue::StringValue("a line".to_owned())) }),
            attributes: vec![
                attribute_of("long", ProtoValue::StringValue(long)),
                attribute_of("empty", ProtoValue::StringValue(String::new())),
                int("zero", 0),
                int("small", 127),
                int("large", i64::MAX),
                int("negative", -1),
                attribute_of("texts", texts_of(&["a", ""])),
            ],
            flags: 1,
            trace_id: 0x0102_u128.to_be_bytes().to_vec(),
            span_id: 3_u64.to_be_bytes().to_vec(),
            event_name: "event".to_owned(),
            ..Default::default()
        };
        assert_eq!(LogRecord::decode(&*bytes).unwrap(), expected);
    }

    fn some_span(status: Status) -> SpanData {
        let context = |id: u64, remote| {
            let state = TraceState::from_key_value([("vendor", "x")]).unwrap();
            SpanContext::new(TraceId::from(5), SpanId::from(id), TraceFlags::SAMPLED, remote, state)
        };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let attributes = vec![
            KeyValue::new("text", "a"),
            KeyValue::new("int", -7),
            KeyValue::new("bool", true),
            KeyValue::new("double", 1.5),
            KeyValue::new("texts", Value::Array(Array::String(vec!["a".into(), "b".into()]))),
            KeyValue::new("ints", Value::Array(Array::I64(vec![1, -1]))),
        ];
        let (mut events, mut links) = (SpanEvents::default(), SpanLinks::default());
        events.events.push(Event::new("event", at(3), attributes.clone(), 2));
        events.dropped_count = 1;
        links.links.push(Link::new(context(8, true), attributes.clone(), 3));
        SpanData {
            span_context: context(6, false),
            parent_span_id: SpanId::from(4),
            parent_span_is_remote: true,
            span_kind: SpanKind::Client,
            name: Cow::Borrowed("name"),
            start_time: at(1),
            end_time: at(2),
            attributes,
            dropped_attributes_count: 9,
            events,
            links,
            status,
            instrumentation_scope: InstrumentationScope::builder("scope").build(),
        }
    }

    /// The library's own conversion says the same.
    #[test]
    fn a_span_reads_as_the_library_writes_it() {
        for status in [Status::Unset, Status::Ok, Status::error("why")] {
            let data = some_span(status);
            let Encoded(bytes) = span(&data);
            let mut expected = Span::from(data);
            // No status and an unset one are the same.
            expected.status = expected.status.filter(|status| status.code != 0);
            assert_eq!(Span::decode(&*bytes).unwrap(), expected);
        }
    }

    #[test]
    fn a_request_holds_what_was_put_into_it() {
        let resource = Resource {
            attributes: vec![attribute_of("a", ProtoValue::BoolValue(true))],
            ..Default::default()
        };
        let scope = common::InstrumentationScope { name: "scope".to_owned(), ..Default::default() };
        let envelope = Envelope::new(&resource, &scope);
        let record = || LogWriter::new(1, SeverityNumber::Info, "INFO").finish();
        for count in [0, 1, 300] {
            let records: Vec<_> = (0..count).map(|_| record()).collect();
            let request = ExportLogsServiceRequest::decode(envelope.request(&records)).unwrap();
            let [logs] = &request.resource_logs[..] else { panic!("{request:?}") };
            assert_eq!(logs.resource.as_ref(), Some(&resource));
            assert_eq!(logs.scope_logs[0].scope.as_ref(), Some(&scope));
            assert_eq!(logs.scope_logs[0].log_records.len(), count);
        }
        let spans = [span(&some_span(Status::Ok))];
        let request = ExportTraceServiceRequest::decode(envelope.request(&spans)).unwrap();
        assert_eq!(request.resource_spans[0].resource.as_ref(), Some(&resource));
        assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].name, "name");
    }
}
