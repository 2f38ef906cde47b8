//! Overview.
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use super::types::{Overview, Series, Status};

/// A range of time and a filter, as every page carries them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RangeQuery {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
    /// The filter.
    #[param(required = false)]
    pub(super) q: String,
}

/// A range, a filter and a number of steps.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SeriesQuery {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
    /// The filter.
    #[param(required = false)]
    pub(super) q: String,
    /// How many steps, 1 to 1,000; 120 when absent.
    pub(super) steps: Option<u32>,
}

/// How the dashboard and its reporters are doing.
#[utoipa::path(get, path = "/status", tag = "overview", responses((status = 200, body = Status), (status = 401, body = Problem)))]
pub(super) async fn status() {}

/// The first page.
#[utoipa::path(get, path = "/overview", tag = "overview", params(RangeQuery), responses(
    (status = 200, body = Overview), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn overview() {}

/// The strip: traffic over time.
#[utoipa::path(get, path = "/series", tag = "overview", params(SeriesQuery), responses(
    (status = 200, body = Series), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn series() {}
