//! Requests.
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use super::types::{
    FacetRequest, Facets, HistogramRequest, RequestDetail, SearchPage, SearchRequest, Series, Suggestions,
};

/// Find requests. `Accept: text/csv` or `application/x-ndjson` answers the rows alone.
#[utoipa::path(post, path = "/requests/search", tag = "requests", request_body = SearchRequest, responses(
    (status = 200, body = SearchPage), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn search() {}

/// Which values fields take.
#[utoipa::path(post, path = "/requests/facets", tag = "requests", request_body = FacetRequest, responses(
    (status = 200, body = Facets), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn facets() {}

/// Matching requests over time, beside those that do not match (`unmatched`).
#[utoipa::path(post, path = "/requests/histogram", tag = "requests", request_body = HistogramRequest, responses(
    (status = 200, body = Series), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn histogram() {}

/// One request, as everybody on its way saw it.
#[utoipa::path(get, path = "/requests/{request_id}", tag = "requests", params(
    ("request_id" = String, Path, description = "the id, as in `x-request-id`")), responses(
    (status = 200, body = RequestDetail), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn detail() {}

/// What to complete.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SuggestQuery {
    /// Start, unix milliseconds; an hour before `to` when absent.
    pub(super) from: Option<u64>,
    /// End, unix milliseconds; now when absent.
    pub(super) to: Option<u64>,
    /// The term as far as it is typed.
    #[param(required = false)]
    pub(super) prefix: String,
}

/// Filter terms that could come next.
#[utoipa::path(get, path = "/suggest", tag = "requests", params(SuggestQuery), responses(
    (status = 200, body = Suggestions), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn suggest() {}
