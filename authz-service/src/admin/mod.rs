//! The admin API: REST under `/v1`, with an OpenAPI document.
//!
//! Its rights are permissions of this same policy, on the built-in service `tollgate-system/admin`, by these very
//! paths. Nothing but health and the bootstrap answers without them: the check is a layer around all routes, so a
//! new route is closed until somebody is granted it.

mod apply;
mod auth;
mod bootstrap;
mod changes;
mod objects;
mod problem;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware;
use axum::routing::get;
use tower::limit::GlobalConcurrencyLimitLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::authorize::Authorizer;
use crate::metrics::Metrics;
use crate::store::Store;

/// The largest body: a folder of policy in one request.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Requests worked on at once; more wait, and time out.
const MAX_CONCURRENT: usize = 64;
/// How long a write waits until it is in force here.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Admin {
    store: Store,
    authorizer: Authorizer,
    metrics: Metrics,
    openapi: Arc<OpenApi>,
}

impl Admin {
    /// Waits until this replica has `epoch` in force, so that what was answered holds for the next request.
    async fn applied(&self, epoch: u64) {
        let mut watching = self.authorizer.cell().watch();
        let in_force = watching.wait_for(|current| *current >= epoch);
        // Later than that it still happens; the answer carries the epoch to wait for.
        tokio::time::timeout(APPLY_TIMEOUT, in_force).await.ok();
    }
}

#[derive(Debug, utoipa::OpenApi)]
#[openapi(info(
    title = "Tollgate authorization service",
    description = "Policy administration. Errors are application/problem+json with `reason` and `request_id`."
))]
struct Document;

fn described() -> (Router<Admin>, OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(objects::list_namespaced))
        .routes(routes!(objects::get_namespaced, objects::put_namespaced, objects::delete_namespaced))
        .routes(routes!(objects::list_cluster))
        .routes(routes!(objects::get_cluster, objects::put_cluster, objects::delete_cluster))
        .routes(routes!(changes::changes))
        .routes(routes!(changes::status))
        .routes(routes!(apply::apply))
        .split_for_parts()
}

/// The OpenAPI document of the admin API.
pub fn openapi() -> OpenApi {
    described().1
}

/// All routes.
pub(crate) fn router(store: Store, authorizer: Authorizer, metrics: Metrics) -> Router {
    let (protected, openapi) = described();
    let admin = Admin { store, authorizer, metrics, openapi: Arc::new(openapi) };
    let protected = protected
        .route("/openapi.json", get(openapi_json))
        .route_layer(middleware::from_fn_with_state(admin.clone(), auth::authorize));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/v1/bootstrap", axum::routing::post(bootstrap::bootstrap))
        .merge(protected)
        .fallback(auth::unknown_path)
        .method_not_allowed_fallback(auth::unknown_path)
        .with_state(admin)
        // From the outside in: a name for the request and its time limit, a place, a body of bounded size.
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(GlobalConcurrencyLimitLayer::new(MAX_CONCURRENT))
        .layer(middleware::from_fn(request::enter))
}

async fn openapi_json(State(admin): State<Admin>) -> axum::Json<OpenApi> {
    axum::Json((*admin.openapi).clone())
}
