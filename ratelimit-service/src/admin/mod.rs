//! The HTTP door: `POST /json` as the reference has it, the live view, and trying things out.
//!
//! In plaintext it serves loopback only, and whoever is on this machine may look and reset. So that no web page can speak
//! in a browser's name, the host asked for must be this machine, and bodies must be JSON by their type. Over TLS who comes
//! in is known by a certificate, and must be one of those that the configuration names.

mod explain;
mod json;
mod problem;
mod reset;
mod trial;
mod usage;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::uri::Scheme;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use parking_lot::Mutex;
use tollgate_identity::tls::{Callers, Peer};
use tower::limit::GlobalConcurrencyLimitLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::limiter::Limiter;
use crate::quota::Hub;
use problem::Problem;

/// The largest body: a folder of limits to try.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Requests worked on at once; more wait.
const MAX_CONCURRENT: usize = 64;

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Admin {
    limiter: Limiter,
    hub: Hub,
    audit: Arc<Mutex<reset::Audit>>,
    trials: Arc<tokio::sync::Semaphore>,
    tasks: tollgate_runtime::tasks::Tasks,
    openapi: Arc<OpenApi>,
}

#[derive(Debug, utoipa::OpenApi)]
#[openapi(info(
    title = "Tollgate rate-limit service",
    description = "Asking by JSON, usage of limits, explanation, trial and reset. In plaintext for this machine, \
                   over TLS for callers that are named. Errors are application/problem+json with `reason`."
))]
struct Document;

fn described() -> (Router<Admin>, OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(json::ask))
        .routes(routes!(usage::usage))
        .routes(routes!(usage::quota))
        .routes(routes!(explain::explain))
        .routes(routes!(trial::simulate))
        .routes(routes!(reset::reset))
        .routes(routes!(reset::audit))
        .split_for_parts()
}

/// The OpenAPI document of the door.
pub fn openapi() -> OpenApi {
    described().1
}

/// All routes.
pub(crate) fn router(
    limiter: Limiter,
    hub: Hub,
    tasks: tollgate_runtime::tasks::Tasks,
    callers: Option<Callers>,
) -> Router {
    let (routes, openapi) = described();
    let admin = Admin {
        limiter,
        hub,
        audit: Arc::default(),
        trials: Arc::new(tokio::sync::Semaphore::new(1)),
        tasks,
        openapi: Arc::new(openapi),
    };
    routes
        .route("/openapi.json", get(openapi_json))
        .route("/healthcheck", get(|| async { "OK" }))
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .with_state(admin)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(GlobalConcurrencyLimitLayer::new(MAX_CONCURRENT))
        .layer(middleware::from_fn_with_state(Arc::new(callers), admitted))
}

async fn openapi_json(State(admin): State<Admin>) -> axum::Json<OpenApi> {
    axum::Json((*admin.openapi).clone())
}

/// Over TLS those who are named are answered; without it this machine. There a name that leads a browser here by
/// somebody else's DNS is not.
async fn admitted(State(callers): State<Arc<Option<Callers>>>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Scheme>() == Some(&Scheme::HTTPS) {
        let leaf = request.extensions().get::<Peer>().and_then(|peer| peer.leaf.clone());
        let id = leaf.map(|leaf| leaf.id.clone());
        let may = |callers: &Callers| id.as_ref().is_some_and(|id| callers.include(id));
        return if (*callers).as_ref().is_some_and(may) {
            next.run(request).await
        } else {
            tracing::warn!(
                peer = tracing::field::Empty,
                ?id,
                "request refused: this workload may not come in by the HTTP door"
            );
            Problem::stranger().into_response()
        };
    }
    let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if host.is_some_and(is_local) { next.run(request).await } else { Problem::foreign_host().into_response() }
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for (host, local) in [
            ("127.0.0.1:7005", true),
            ("localhost", true),
            ("[::1]:7005", true),
            ("evil.test", false),
            ("10.0.0.1:7005", false),
            ("localhost.evil.test:7005", false),
        ] {
            assert_eq!(is_local(host), local, "{host}");
        }
    }

    #[test]
    fn every_route_is_described() {
        let paths: Vec<_> = openapi().paths.paths.into_keys().collect();
        for path in
            ["/json", "/v1/usage", "/v1/quota", "/v1/explain", "/v1/simulate", "/v1/reset", "/v1/audit"]
        {
            assert!(paths.iter().any(|one| one == path), "{path} is not in {paths:?}");
        }
    }
}
