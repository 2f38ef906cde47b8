//! The admin API: REST under `/v1`, with an OpenAPI document and a page that shows it.
//!
//! Its rights are permissions of this same policy, on the built-in service `tollgate-system/admin`, by these very
//! paths. Nothing but health and the bootstrap answers without them: the check is a layer around all routes, so a
//! new route is closed until somebody is granted it.
//!
//! What answers from the whole policy (changes, decisions, export, the tools) answers from what the caller may read:
//! an administrator of one namespace sees that namespace and nothing of another.

mod apply;
mod auth;
mod bootstrap;
mod caller;
mod certificates;
mod decisions;
mod explain;
mod extract;
mod history;
mod objects;
mod openapi;
mod page;
mod problem;
mod request;
mod rollouts;
mod scan;
mod token;
mod tools;
mod whole;
mod write;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware;
use tower::limit::GlobalConcurrencyLimitLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::authorize::Authorizer;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::wire::authzen;

use caller::Caller;
use problem::Problem;

pub use openapi::document as openapi;
pub use rollouts::json as rollout_json;

/// The largest body: a folder of policy in one request.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The largest body that is read of who shows the one-use token.
const MAX_BOOTSTRAP_BYTES: usize = 4 * 1024;
/// Attempts to make the first administrator at once: they take no places of those who administer.
const MAX_BOOTSTRAPS: usize = 2;
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
    described: Arc<page::Described>,
    whole_reads: whole::WholeReads,
}

impl FromRef<Admin> for Authorizer {
    fn from_ref(admin: &Admin) -> Self {
        admin.authorizer.clone()
    }
}

impl Admin {
    /// Does what reads the whole policy, for a caller whose rights are known, in one of few places.
    async fn whole<T, F>(&self, caller: &Caller, work: impl FnOnce(Self, Caller) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        self.whole_reads.run(work(self.clone(), caller.clone())).await
    }

    /// Waits until this replica has `epoch` in force, so that what was answered holds for the next request; not for
    /// ever, and it answers whether it has.
    async fn applied(&self, epoch: u64) -> bool {
        let mut watching = self.authorizer.cell().watch();
        let in_force = watching.wait_for(|current| *current >= epoch);
        tokio::time::timeout(APPLY_TIMEOUT, in_force).await.is_ok_and(|watched| watched.is_ok())
    }
}

/// Every route that needs rights.
fn protected() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(objects::list_namespaced))
        .routes(routes!(objects::get_namespaced, objects::put_namespaced, objects::delete_namespaced))
        .routes(routes!(objects::history_namespaced))
        .routes(routes!(objects::list_cluster))
        .routes(routes!(objects::get_cluster, objects::put_cluster, objects::delete_cluster))
        .routes(routes!(objects::history_cluster))
        .routes(routes!(apply::apply))
        .routes(routes!(apply::rollback))
        .routes(routes!(history::changes))
        .routes(routes!(history::diff_epochs))
        .routes(routes!(history::export))
        .routes(routes!(history::status))
        .routes(routes!(certificates::list))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::read))
        .routes(routes!(rollouts::events))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::promote))
        .routes(routes!(rollouts::abort))
        .routes(routes!(rollouts::restart))
        .routes(routes!(decisions::list))
        .routes(routes!(decisions::read))
        .routes(routes!(token::verify))
        .routes(routes!(explain::explain_decision))
        .routes(routes!(explain::explain))
        .routes(routes!(tools::lint))
        .routes(routes!(tools::test))
        .routes(routes!(tools::who_can))
        .routes(routes!(tools::can))
        .routes(routes!(page::openapi_json))
        .routes(routes!(page::docs))
}

/// What answers without them: health,
fn open() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(page::healthz))
}

/// and the one-use token's one use.
fn first() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(bootstrap::bootstrap))
}

/// All routes.
pub(crate) fn router(store: Store, authorizer: Authorizer, metrics: Metrics) -> Router {
    let described = Arc::new(page::Described::of(openapi()));
    let whole_reads = whole::WholeReads::default();
    let admin = Admin { store, authorizer, metrics, described, whole_reads };
    let (protected, _) = protected().split_for_parts();
    let (open, _) = open().split_for_parts();
    let (first, _) = first().split_for_parts();
    let first = (first.method_not_allowed_fallback(auth::unknown_path).with_state(admin.clone()))
        .layer(DefaultBodyLimit::max(MAX_BOOTSTRAP_BYTES))
        .layer(GlobalConcurrencyLimitLayer::new(MAX_BOOTSTRAPS))
        .layer(middleware::from_fn(request::enter));
    let protected = protected
        .merge(authzen::routes())
        .route_layer(middleware::from_fn_with_state(admin.clone(), auth::authorize));
    Router::new()
        .merge(open)
        .merge(protected)
        .fallback(auth::unknown_path)
        .method_not_allowed_fallback(auth::unknown_path)
        .with_state(admin)
        // From the outside in: a name for the request and its time limit, a place, a body of bounded size.
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(GlobalConcurrencyLimitLayer::new(MAX_CONCURRENT))
        .layer(middleware::from_fn(request::enter))
        .merge(first)
}
