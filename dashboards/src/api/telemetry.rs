//! Traces, process logs and metric points.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use tollgate_proto::attributes as a;
use utoipa::IntoParams;

use super::ApiState;
use super::problem::{ApiError, Params, Problem};
use super::rows::{key, rfc3339};
use super::shapes::unsigned;
use super::types::{LogLine, LogPage, MetricPoint, MetricSeries, MetricSeriesList, Span, Trace};
use crate::query::{self, Filter, Loaded, Range};
use crate::record::Kind;
use crate::store::{Cell, names};

/// Spans of one trace; more is no trace a person can read.
const MAX_SPANS: usize = 5_000;
const LOG_LINES: u32 = 100;
const MAX_LOG_LINES: u32 = 1_000;
const MAX_SERIES: usize = 200;
const MAX_POINTS: usize = 10_000;

/// A trace by its id.
#[utoipa::path(get, path = "/traces/{trace_id}", tag = "telemetry", params(
    ("trace_id" = String, Path, description = "32 hex digits")), responses(
    (status = 200, body = Trace), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)))]
pub(super) async fn trace(
    State(state): State<ApiState>,
    Path(trace_id): Path<String>,
) -> Result<Json<Trace>, ApiError> {
    if trace_id.len() != 32 || !trace_id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ApiError::Body("a trace id is 32 hex digits".to_owned()));
    }
    let trace_id = trace_id.to_ascii_lowercase();
    let everything = Range { from: i64::MIN, to: i64::MAX };
    let filter = Filter::exactly(names::TRACE, &trace_id);
    let found = query::search(
        &state.store,
        &query::Ask { kind: Kind::Span, range: everything, filter: &filter, before: None, limit: MAX_SPANS },
        &[],
        |hit| span(hit.loaded, hit.row),
    )
    .await?;
    let mut spans = found.rows;
    if spans.is_empty() {
        return Err(ApiError::NotFound(format!("no span of trace {trace_id} is kept")));
    }
    spans.reverse();
    Ok(Json(Trace { trace_id, spans }))
}

fn span(loaded: &Loaded, row: usize) -> Span {
    let text = |name: &str| loaded.text(name, row);
    let length = loaded.cell(names::LENGTH, row).and_then(Cell::int).unwrap_or_default();
    Span {
        span_id: text(names::SPAN),
        parent_span_id: text(names::PARENT),
        service: text(a::SERVICE_NAME),
        name: text(names::NAME),
        kind: text(names::KIND),
        start_ns: loaded.times().get(row).copied().unwrap_or_default().to_string(),
        duration_us: unsigned(length / 1_000),
        status: text(names::STATUS),
        attributes: loaded.attributes(row),
    }
}

/// A range, a filter and how many lines.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogQuery {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
    /// The filter.
    #[param(required = false)]
    pub(super) q: String,
    /// Lines, 1 to 1,000; 100 when absent.
    pub(super) limit: Option<u32>,
}

/// Log lines of processes.
#[utoipa::path(get, path = "/logs", tag = "telemetry", params(LogQuery), responses(
    (status = 200, body = LogPage), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn logs(
    State(state): State<ApiState>,
    Params(request): Params<LogQuery>,
) -> Result<Json<LogPage>, ApiError> {
    let (_, range) = state.range(request.from, request.to)?;
    let filter = Filter::parse(&request.q)?;
    let limit = request.limit.unwrap_or(LOG_LINES);
    if !(1..=MAX_LOG_LINES).contains(&limit) {
        return Err(ApiError::Body(format!("`limit` must be 1 to {MAX_LOG_LINES}")));
    }
    let limit = usize::try_from(limit).unwrap_or(1);
    let found = query::search(
        &state.store,
        &query::Ask { kind: Kind::Log, range, filter: &filter, before: None, limit },
        &[],
        |hit| line(hit.loaded, hit.row),
    )
    .await?;
    Ok(Json(LogPage { rows: found.rows, matched: found.matched, total: found.total }))
}

fn line(loaded: &Loaded, row: usize) -> LogLine {
    let text = |name: &str| loaded.text(name, row);
    let time_ns = loaded.times().get(row).copied().unwrap_or_default();
    LogLine {
        key: key(loaded, row),
        time: rfc3339(time_ns),
        time_ns: time_ns.to_string(),
        service: text(a::SERVICE_NAME),
        severity: text(names::SEVERITY),
        body: text(names::BODY),
        trace_id: text(names::TRACE),
        attributes: loaded.attributes(row),
    }
}

/// A metric and a range.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricQuery {
    /// The metric's name.
    pub(super) name: String,
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
}

/// Stored points of one metric.
#[utoipa::path(get, path = "/metrics/series", tag = "telemetry", params(MetricQuery), responses(
    (status = 200, body = MetricSeriesList), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn metric_series(
    State(state): State<ApiState>,
    Params(request): Params<MetricQuery>,
) -> Result<Json<MetricSeriesList>, ApiError> {
    let (_, range) = state.range(request.from, request.to)?;
    let filter = Filter::exactly(names::NAME, &request.name);
    let found = query::search(
        &state.store,
        &query::Ask { kind: Kind::Metric, range, filter: &filter, before: None, limit: MAX_POINTS },
        &[],
        |hit| {
            (
                hit.loaded.attributes(hit.row),
                hit.loaded.text(names::UNIT, hit.row),
                point(hit.loaded, hit.row),
            )
        },
    )
    .await?;
    let mut unit = String::new();
    let mut by_attributes: BTreeMap<String, MetricSeries> = BTreeMap::new();
    let mut left_out = std::collections::BTreeSet::new();
    // Newest first as found; a chart wants them the other way.
    for (attributes, of_point, point) in found.rows.into_iter().rev() {
        unit = of_point;
        let identity = serde_json::Value::Object(attributes.clone()).to_string();
        if by_attributes.len() >= MAX_SERIES && !by_attributes.contains_key(&identity) {
            left_out.insert(identity);
            continue;
        }
        let series =
            by_attributes.entry(identity).or_insert_with(|| MetricSeries { attributes, points: Vec::new() });
        series.points.push(point);
    }
    Ok(Json(MetricSeriesList {
        name: request.name,
        unit,
        series: by_attributes.into_values().collect(),
        left_out: left_out.len() as u64,
    }))
}

fn point(loaded: &Loaded, row: usize) -> MetricPoint {
    let number = |name: &str| loaded.cell(name, row).and_then(Cell::number);
    let count = loaded.cell(names::COUNT, row).and_then(Cell::int).map(unsigned);
    let sum = number(names::SUM);
    let buckets = loaded.cell(names::BUCKETS, row).map(Cell::json).unwrap_or_default();
    let list = |name: &str| buckets.get(name).cloned();
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    let mean = sum.zip(count).filter(|(_, count)| *count > 0).map(|(sum, count)| sum / count as f64);
    MetricPoint {
        at_ms: unsigned(loaded.times().get(row).copied().unwrap_or_default() / 1_000_000),
        value: number(names::VALUE).or(mean),
        count,
        sum,
        bounds: list("bounds").and_then(|bounds| serde_json::from_value(bounds).ok()),
        counts: list("counts").and_then(|counts| serde_json::from_value(counts).ok()),
    }
}
