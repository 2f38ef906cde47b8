//! The demo's applications. They know nothing of Tollgate: no token, no policy, no limit.

use std::net::SocketAddr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_runtime::{Service, cli, http_server, net};

/// Name and version that an application answers with.
#[derive(Debug, Clone)]
struct Identity {
    service: &'static str,
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewPolicy {
    holder: Option<String>,
}

/// Serves one instance of `policies`.
pub fn serve_policies(service: &Service, listener: TcpListener, version: &str) {
    let identity = Identity { service: "policies", version: version.to_owned() };
    let router = Router::new()
        .route("/policies", get(list).post(create))
        .route("/policies/{id}", get(read))
        .with_state(identity);
    let tasks = service.tasks().clone();
    service.tasks().spawn("demo-app", async move { http_server::serve(&tasks, listener, router).await });
}

/// Serves one instance of `policies` until SIGINT or SIGTERM.
pub async fn run_policies(listen: SocketAddr, version: String) -> anyhow::Result<()> {
    let service = Service::start("policies", &ProcessConfig::default(), &TelemetryConfig::default())?;
    serve_policies(&service, net::bind(listen, "demo application (--listen)")?, &version);
    cli::shutdown_signal().await;
    service.stop().await;
    Ok(())
}

async fn list(State(app): State<Identity>) -> Json<Value> {
    Json(
        json!({ "service": app.service, "version": app.version, "policies": ["POL-1042", "POL-1043", "POL-1044"] }),
    )
}

async fn read(State(app): State<Identity>, Path(id): Path<String>) -> Json<Value> {
    Json(json!({ "service": app.service, "version": app.version, "id": id }))
}

async fn create(State(app): State<Identity>, body: Option<Json<NewPolicy>>) -> (StatusCode, Json<Value>) {
    let holder = body.and_then(|Json(policy)| policy.holder);
    let id = format!("POL-{}", 2000 + rand::random_range(0..8000));
    let answer = json!({ "service": app.service, "version": app.version, "id": id, "holder": holder });
    (StatusCode::CREATED, Json(answer))
}
