//! The API under `/api/v1`: typed requests in, answers from the store out, problems as `application/problem+json`.

pub mod types;

mod live;
mod overview;
mod problem;
mod requests;
mod services;
mod session;
mod telemetry;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Everything under `/api/v1`, with its OpenAPI document.
pub(crate) fn router() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(session::login))
        .routes(routes!(session::current))
        .routes(routes!(session::logout))
        .routes(routes!(overview::status))
        .routes(routes!(overview::overview))
        .routes(routes!(overview::series))
        .routes(routes!(requests::search))
        .routes(routes!(requests::facets))
        .routes(routes!(requests::histogram))
        .routes(routes!(requests::suggest))
        .routes(routes!(requests::detail))
        .routes(routes!(services::list))
        .routes(routes!(services::detail))
        .routes(routes!(telemetry::trace))
        .routes(routes!(telemetry::logs))
        .routes(routes!(telemetry::metric_series))
        .routes(routes!(live::requests))
}

/// The OpenAPI document as committed in `openapi.json`.
pub fn openapi_json() -> String {
    let (_, mut document) = OpenApiRouter::<()>::new().nest("/api/v1", router()).split_for_parts();
    document.info = utoipa::openapi::Info::new("Tollgate dashboard", "1");
    let mut text = document.to_pretty_json().expect("the document holds only strings, numbers and lists");
    text.push('\n');
    text
}
