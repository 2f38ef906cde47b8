//! Traces, process logs and metric points.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A trace, as far as its spans were kept.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Trace {
    /// 32 hex digits.
    pub trace_id: String,
    /// Its spans by start.
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Span {
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits, empty for a root.
    pub parent_span_id: String,
    /// The service it ran in.
    pub service: String,
    /// Its operation.
    pub name: String,
    /// `server`, `client`, `internal`, `producer`, `consumer` or `unspecified`.
    pub kind: String,
    /// When it began, unix nanoseconds in decimal.
    pub start_ns: String,
    /// How long it took, microseconds.
    pub duration_us: u64,
    /// `unset`, `ok` or `error`.
    pub status: String,
    /// Its attributes by name.
    #[schema(value_type = Object)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// Log lines of processes (not requests).
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct LogPage {
    /// Newest first.
    pub rows: Vec<LogLine>,
    /// Lines in the range that the filter takes.
    pub matched: u64,
    /// Lines in the range.
    pub total: u64,
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct LogLine {
    /// This record, for good.
    pub key: String,
    /// When, RFC 3339 with milliseconds, UTC.
    pub time: String,
    /// The same, unix nanoseconds in decimal.
    pub time_ns: String,
    /// The service that wrote it.
    pub service: String,
    /// Its severity as text.
    pub severity: String,
    /// The line.
    pub body: String,
    /// The trace, 32 hex digits, or empty.
    pub trace_id: String,
    /// Its attributes by name.
    #[schema(value_type = Object)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// Stored points of one metric.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct MetricSeriesList {
    /// The metric's name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// One for each set of attributes, at most 200.
    pub series: Vec<MetricSeries>,
    /// Sets of attributes left out because there were more.
    pub left_out: u64,
}

/// Points with the same attributes.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct MetricSeries {
    /// Those attributes, the reporting service among them.
    #[schema(value_type = Object)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// By time, at most 10,000 the newest.
    pub points: Vec<MetricPoint>,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct MetricPoint {
    /// When, unix milliseconds.
    pub at_ms: u64,
    /// The value of a gauge or sum; the mean of a histogram.
    #[schema(required = true)]
    pub value: Option<f64>,
    /// Histograms: how many measurements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Histograms: their sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// Histograms: the bounds between buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Vec<f64>>,
    /// Histograms: the counts of the buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Vec<u64>>,
}
