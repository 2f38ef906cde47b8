//! Telemetry.
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use super::types::{LogPage, MetricSeriesList, Trace};

/// A trace by its id.
#[utoipa::path(get, path = "/traces/{trace_id}", tag = "telemetry", params(
    ("trace_id" = String, Path, description = "32 hex digits")), responses(
    (status = 200, body = Trace), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)))]
pub(super) async fn trace() {}

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
pub(super) async fn logs() {}

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
pub(super) async fn metric_series() {}
