//! Services.
use super::overview::RangeQuery;
use super::problem::Problem;
use super::types::{ServiceDetail, Services};

/// Every service that was called.
#[utoipa::path(get, path = "/services", tag = "services", params(RangeQuery), responses(
    (status = 200, body = Services), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn list() {}

/// One service.
#[utoipa::path(get, path = "/services/{name}", tag = "services", params(
    ("name" = String, Path, description = "the service's name"), RangeQuery), responses(
    (status = 200, body = ServiceDetail), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)))]
pub(super) async fn detail() {}
