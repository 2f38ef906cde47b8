//! Why a request is answered so: the rules it falls under, where they are written, and their counters.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;

use super::Admin;
use super::json::Question;
use super::problem::Problem;
use crate::limiter::Explanation;

/// Explains what the request would get; nothing is counted.
#[utoipa::path(post, path = "/v1/explain", request_body = Question, responses(
    (status = 200, body = Explanation),
    (status = 400, description = "It cannot be answered", body = Problem)))]
pub(super) async fn explain(
    State(admin): State<Admin>,
    question: Result<Json<Question>, JsonRejection>,
) -> Result<Json<Explanation>, Problem> {
    Ok(Json(admin.limiter.explain(&question?.0.into()).await?))
}
