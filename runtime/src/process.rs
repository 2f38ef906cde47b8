//! The process listener: live, ready, metrics, the configuration as loaded, and what else a part shows of itself.
//!
//! It has a socket of its own, on loopback, so that it answers while the data path is busy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::duration;
use crate::{Service, http_server};

/// What concerns the process and not its job.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Loopback address of the process listener; none, no listener.
    pub listen: Option<SocketAddr>,
    /// How long requests in flight may take once the process is told to stop.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub shutdown_grace: Duration,
    /// How long a process that is told to stop (SIGTERM) goes on accepting while its readiness is red, so that whoever sends it
    /// requests notices. Its answers say meanwhile that each is the last of its connection.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub drain_delay: Duration,
    /// How long a process that takes over from this one (SIGUSR2) may take to be ready; this one goes on serving if it is not.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub hand_over_timeout: Duration,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            listen: None,
            shutdown_grace: Duration::from_secs(20),
            // With the grace less than the 30 s that Kubernetes gives.
            drain_delay: Duration::from_secs(5),
            hand_over_timeout: Duration::from_secs(60),
        }
    }
}

/// What a part shows of itself: its configuration under `/config` (secrets are redacted by their type), and pages of
/// its own.
#[derive(Clone, Default)]
pub struct Published(Arc<RwLock<Shown>>);

#[derive(Default)]
struct Shown {
    config: serde_json::Value,
    pages: Vec<(&'static str, Page)>,
}

type Page = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

impl Published {
    /// Shows `config` from now on.
    pub fn config<C: Serialize>(&self, config: &C) {
        self.0.write().config = serde_json::to_value(config).unwrap_or_default();
    }

    /// Shows what `page` gives, under `/name`, as it is whenever somebody asks.
    pub fn page(&self, name: &'static str, page: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        let mut shown = self.0.write();
        shown.pages.retain(|(other, _)| *other != name);
        shown.pages.push((name, Arc::new(page)));
    }

    fn get(&self) -> serde_json::Value {
        self.0.read().config.clone()
    }

    fn get_page(&self, name: &str) -> Option<serde_json::Value> {
        let page =
            self.0.read().pages.iter().find(|(other, _)| *other == name).map(|(_, page)| Arc::clone(page));
        page.map(|page| page())
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.read();
        let pages: Vec<_> = shown.pages.iter().map(|(name, _)| name).collect();
        f.debug_struct("Published").field("pages", &pages).finish_non_exhaustive()
    }
}

/// The name under which the process listener's socket is inherited.
const SOCKET: &str = "process";

/// Serves the process listener and says where.
pub(crate) fn listen(service: &Service, addr: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = service.sockets().bind(SOCKET, addr, "process listener (process.listen)", None)?;
    let bound = listener.local_addr()?;
    let router = router(service.clone());
    let (tasks, service) = (service.tasks().clone(), service.clone());
    let stopping = tasks.stopping();
    tasks.clone().spawn("process-listener", async move {
        // The process before this one answers here until this one serves: nobody should see it wait for its turn.
        tokio::select! {
            () = stopping.cancelled() => {}
            () = service.succession().came() => http_server::serve(&tasks, listener, router).await,
        }
    });
    Ok(bound)
}

fn router(service: Service) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .route("/{page}", get(page))
        .with_state(service)
}

async fn ready(State(service): State<Service>) -> Response {
    if service.readiness().is_ready() {
        return (StatusCode::OK, "ready\n").into_response();
    }
    let waiting = service.readiness().blockers().join("\n");
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for:\n{waiting}\n")).into_response()
}

async fn metrics(State(service): State<Service>) -> Response {
    match service.telemetry().render_metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

async fn page(State(service): State<Service>, Path(name): Path<String>) -> Response {
    match service.published().get_page(&name) {
        Some(value) => Json(value).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn config(State(service): State<Service>) -> Json<serde_json::Value> {
    Json(service.published().get())
}
