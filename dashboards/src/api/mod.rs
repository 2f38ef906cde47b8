//! The API under `/api/v1`: typed requests in, answers from the store out, problems as `application/problem+json`.

pub mod types;

mod certificates;
mod export;
mod findings;
mod guard;
mod live;
mod overview;
mod problem;
mod requests;
mod rows;
mod services;
mod session;
mod shapes;
mod telemetry;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::sync::OnceCell;
use tollgate_identity::Identity;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::tasks::Stopping;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::login::Logins;
use crate::query::Range;
use crate::store::Store;
use problem::ApiError;

/// What every handler can reach. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ApiState {
    pub(crate) store: Store,
    pub(crate) logins: Logins,
    pub(crate) clock: Clock,
    pub(crate) keep_days: u32,
    pub(crate) hosts: Arc<Vec<String>>,
    /// Our own, once it is known, where we have one.
    pub(crate) identity: Arc<OnceCell<Option<Identity>>>,
    tails: Arc<tokio::sync::Semaphore>,
    stopping: Stopping,
}

const HOUR_MS: u64 = 3_600_000;
/// A range may not be longer; raw records do not reach back further anyway.
const MAX_RANGE_MS: u64 = 400 * 24 * HOUR_MS;

impl ApiState {
    pub(crate) fn new(
        store: Store,
        logins: Logins,
        keep_days: u32,
        hosts: Vec<String>,
        service: &Service,
    ) -> Self {
        Self {
            store,
            logins,
            clock: service.clock().clone(),
            keep_days,
            hosts: Arc::new(hosts),
            identity: Arc::default(),
            tails: live::permits(),
            stopping: service.tasks().stopping(),
        }
    }

    /// The range of a request: the hour before now where it does not say.
    fn range(&self, from: Option<u64>, to: Option<u64>) -> Result<(types::TimeRange, Range), ApiError> {
        let to = to.unwrap_or_else(|| self.clock.unix_millis() + 1);
        let from = from.unwrap_or_else(|| to.saturating_sub(HOUR_MS));
        if from >= to {
            return Err(ApiError::Range(format!(
                "`from` ({from}) must be before `to` ({to}), both unix milliseconds"
            )));
        }
        if to - from > MAX_RANGE_MS {
            return Err(ApiError::Range("a range may be 400 days long".to_owned()));
        }
        Ok((types::TimeRange { from, to }, Range::of_millis(from, to)))
    }
}

fn v1() -> OpenApiRouter<ApiState> {
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
        .routes(routes!(certificates::list))
}

/// The API and the page behind their guards.
pub(crate) fn router(state: &ApiState) -> Router {
    let document = openapi_json();
    let api = Router::from(v1())
        .route(
            "/openapi.json",
            axum::routing::get(async || ([(http::header::CONTENT_TYPE, "application/json")], document)),
        )
        .route("/health", axum::routing::get(async || axum::Json(serde_json::json!({"status": "ok"}))))
        .fallback(async || {
            ApiError::NotFound("there is nothing at this path; see /api/v1/openapi.json".to_owned())
        })
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), guard::session))
        .with_state(state.clone());
    Router::new()
        .nest("/api/v1", api)
        .fallback(crate::web::serve)
        .layer(from_fn_with_state(state.clone(), guard::outer))
}

/// No request of the page is larger.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The OpenAPI document as committed in `openapi.json`.
pub fn openapi_json() -> String {
    let (_, mut document) = OpenApiRouter::<ApiState>::new().nest("/api/v1", v1()).split_for_parts();
    document.info = utoipa::openapi::Info::new("Tollgate dashboard", "1");
    let mut text = document.to_pretty_json().expect("the document holds only strings, numbers and lists");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_document_is_current() {
        let committed = include_str!("../../openapi.json");
        assert!(
            committed == super::openapi_json(),
            "dashboards/openapi.json is not what the code says; run `cargo run -p tollgate-dashboard --example openapi`"
        );
    }
}
