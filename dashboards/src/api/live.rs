//! Live.
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use super::types::{LiveStatus, RequestRow};

/// The filter of a live tail.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LiveQuery {
    /// The filter.
    #[param(required = false)]
    pub(super) q: String,
}

/// Requests as they arrive, as server-sent events: `row` carries a `RequestRow`, `status` a `LiveStatus`.
#[utoipa::path(get, path = "/live/requests", tag = "live", params(LiveQuery), responses(
    (status = 200, content((RequestRow = "text/event-stream"), (LiveStatus = "text/event-stream;event=status"))),
    (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn requests() {}
