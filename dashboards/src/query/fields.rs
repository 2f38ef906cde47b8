//! The short keys of the filter language and the columns they stand for.

use std::borrow::Cow;

use tollgate_proto::attributes as a;

use crate::store::names;

/// A short key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) column: &'static str,
    /// As a heading.
    pub(crate) label: &'static str,
    /// As an explanation beside a suggestion.
    pub(crate) meaning: &'static str,
}

const fn field(key: &'static str, column: &'static str, label: &'static str, meaning: &'static str) -> Field {
    Field { key, column, label, meaning }
}

/// In the order in which suggestions and facets show them.
pub(crate) const SHORT_KEYS: &[Field] = &[
    field("outcome", names::OUTCOME, "Outcome", "passed, denied, limited or failed"),
    field("status", a::HTTP_RESPONSE_STATUS_CODE, "Status", "HTTP status: a number, >=400, or 4xx"),
    field("reason", a::TOLLGATE_REASON, "Reason", "why it ended as it did"),
    field("caller", names::CALLER, "Caller", "who called: subject, else workload, else address"),
    field("source", a::TOLLGATE_SOURCE_WORKLOAD, "Source", "the calling workload"),
    field("dest", names::DEST, "Service", "what was called"),
    field("route", a::HTTP_ROUTE, "Route", "the configured route"),
    field("method", a::HTTP_REQUEST_METHOD, "Method", "HTTP method"),
    field("path", a::URL_PATH, "Path", "path without the query"),
    field("dur", a::TOLLGATE_DURATION_US, "Duration", "total time: >200ms"),
    field("version", a::TOLLGATE_DESTINATION_VERSION, "Version", "version of the service called"),
    field("token", a::TOLLGATE_TOKEN_STATE, "Token", "state of the access token"),
    field("limit", a::TOLLGATE_RATELIMIT_RULE, "Limit", "the rate limit rule"),
    field("flag", a::TOLLGATE_RESPONSE_FLAGS, "Flags", "response flags, as Envoy's letters"),
    field("reporter", a::TOLLGATE_REPORTER, "Reporter", "which end wrote the record"),
    field("id", a::TOLLGATE_REQUEST_ID, "Request id", "one request"),
    field("trace", names::TRACE, "Trace", "trace id"),
    field("service", a::SERVICE_NAME, "Reported by", "the service that wrote the record"),
    field("severity", names::SEVERITY, "Severity", "severity of a log line"),
];

/// The column a key of a filter reads.
pub(crate) fn column_of(key: &str) -> Cow<'_, str> {
    match SHORT_KEYS.iter().find(|field| field.key == key || field.column == key) {
        Some(field) => Cow::Borrowed(field.column),
        None => names::of_attribute(key),
    }
}

/// The short key of a column, if it has one.
pub(crate) fn short_key_of(column: &str) -> Option<&'static Field> {
    SHORT_KEYS.iter().find(|field| field.column == column)
}
