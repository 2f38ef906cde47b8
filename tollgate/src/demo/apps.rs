//! The demo's applications. They know nothing of Tollgate: no token, no policy, no limit.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate_runtime::process::ProcessConfig;
use tollgate_runtime::telemetry::TelemetryConfig;
use tollgate_runtime::{Service, cli, http_server, net};

use super::{behaviour, partner};

/// How long `quotes` waits for the others.
const PATIENCE: Duration = Duration::from_secs(10);
/// What tells of a request, and goes along to whoever is asked on its behalf. The user's token does not.
const PASSED_ON: [&str; 3] = ["traceparent", "tracestate", "x-request-id"];

/// Which application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// Insurance policies.
    Policies,
    /// Quotes: asks `policies`, `payments` and the credit bureau, by way of the sidecar that listens here.
    Quotes(SocketAddr),
    /// Payments.
    Payments,
}

impl App {
    fn name(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Quotes(_) => "quotes",
            Self::Payments => "payments",
        }
    }
}

/// Name and version that an application answers with.
#[derive(Debug, Clone)]
struct Identity {
    service: &'static str,
    version: String,
}

/// What `quotes` asks others with.
#[derive(Debug, Clone)]
struct Quotes {
    identity: Identity,
    client: Client,
    outbound: SocketAddr,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewPolicy {
    holder: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewQuote {
    policy: Option<String>,
}

/// Serves one instance of an application.
pub fn serve(service: &Service, listener: TcpListener, app: App, version: &str) -> anyhow::Result<()> {
    let identity = Identity { service: app.name(), version: version.to_owned() };
    let router = match app {
        App::Policies => Router::new()
            .route("/policies", get(list).post(create))
            .route("/policies/{id}", get(read))
            .with_state(identity),
        App::Quotes(outbound) => {
            let client = Client::builder().timeout(PATIENCE).build()?;
            Router::new().route("/quotes", post(quote)).with_state(Quotes { identity, client, outbound })
        }
        App::Payments => Router::new().route("/payments", get(payments).post(pay)).with_state(identity),
    };
    let tasks = service.tasks().clone();
    let router = behaviour::of(router);
    service.tasks().spawn("demo-app", async move { http_server::serve(&tasks, listener, router).await });
    Ok(())
}

/// Serves one instance of an application until SIGINT or SIGTERM.
pub async fn run(listen: SocketAddr, app: App, version: String) -> anyhow::Result<()> {
    let service = Service::start(app.name(), &ProcessConfig::default(), &TelemetryConfig::default())?;
    serve(&service, net::bind(listen, "demo application (--listen)")?, app, &version)?;
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

async fn payments(State(app): State<Identity>) -> Json<Value> {
    Json(json!({ "service": app.service, "version": app.version, "payments": [] }))
}

async fn pay(State(app): State<Identity>) -> (StatusCode, Json<Value>) {
    let id = format!("PAY-{}", rand::random_range(1000..10_000));
    (StatusCode::CREATED, Json(json!({ "service": app.service, "version": app.version, "id": id })))
}

async fn quote(
    State(quotes): State<Quotes>,
    headers: HeaderMap,
    body: Option<Json<NewQuote>>,
) -> (StatusCode, Json<Value>) {
    let policy = body.and_then(|Json(quote)| quote.policy).unwrap_or_else(|| "POL-1042".to_owned());
    let Identity { service, version } = &quotes.identity;
    let mut calls = Vec::new();
    for (name, host, method, path, needed) in [
        ("policies", "policies.insurance", Method::GET, format!("/policies/{policy}"), true),
        ("payments", "payments.insurance", Method::POST, "/payments".to_owned(), true),
        // There is a quote without a score, too.
        ("credit-bureau", partner::HOST, Method::GET, format!("/v1/scores/{policy}"), false),
    ] {
        let status = quotes.ask(host, method, &path, &headers).await;
        if status.is_success() {
            calls.push(name);
        } else if needed {
            let failed =
                json!({ "service": service, "version": version, "failed": name, "status": status.as_u16() });
            return (StatusCode::BAD_GATEWAY, Json(failed));
        }
    }
    let id = format!("QUO-{}", rand::random_range(1000..10_000));
    (StatusCode::OK, Json(json!({ "service": service, "version": version, "id": id, "calls": calls })))
}

impl Quotes {
    /// Asks somebody by host, through the sidecar.
    async fn ask(&self, host: &str, method: Method, path: &str, headers: &HeaderMap) -> StatusCode {
        let url = format!("http://{}{path}", self.outbound);
        let mut request = self.client.request(method, url).header(HOST, host);
        for passed_on in PASSED_ON {
            if let Some(value) = headers.get(passed_on) {
                request = request.header(passed_on, value);
            }
        }
        match request.send().await {
            Ok(answer) => answer.status(),
            Err(error) => {
                tracing::warn!(%error, to = host, "no answer");
                StatusCode::BAD_GATEWAY
            }
        }
    }
}
