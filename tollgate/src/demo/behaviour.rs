//! How an instance of a demo application behaves: well, unless somebody on this machine asks it not to.
//!
//! `GET /demo/behaviour` tells what it has seen, `PUT` changes what it does. No route of a proxy leads there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// Where it is asked about.
pub const PATH: &str = "/demo/behaviour";
/// Nobody waits longer.
const MAX_DELAY_MS: u64 = 10_000;
/// What the proxy says on a copy.
const COPY: &str = "x-tollgate-mirror";

/// What an instance does, and what it has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Every so many requests one fails; 0, none does.
    pub fails_every: u64,
    /// How long each takes.
    pub delay_ms: u64,
    /// Requests, with the copies.
    pub requests: u64,
    /// Copies that a proxy made.
    pub copies: u64,
    /// Of these, with a cookie or a token.
    pub copies_with_credentials: u64,
}

/// What shall change.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Every so many requests one fails; 0, none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fails_every: Option<u64>,
    /// How long each takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Behaviour {
    fails_every: AtomicU64,
    delay_ms: AtomicU64,
    requests: AtomicU64,
    copies: AtomicU64,
    copies_with_credentials: AtomicU64,
}

/// An application that can be asked to misbehave.
pub(super) fn of(application: Router) -> Router {
    let behaviour = Arc::new(Behaviour::default());
    application
        .layer(from_fn_with_state(Arc::clone(&behaviour), behave))
        .merge(Router::new().route(PATH, get(tell).put(change)).with_state(behaviour))
}

async fn behave(State(behaviour): State<Arc<Behaviour>>, request: Request, next: Next) -> Response {
    let number = behaviour.requests.fetch_add(1, Ordering::Relaxed);
    let headers = request.headers();
    if headers.contains_key(COPY) {
        behaviour.copies.fetch_add(1, Ordering::Relaxed);
        if headers.contains_key("cookie") || headers.contains_key("authorization") {
            behaviour.copies_with_credentials.fetch_add(1, Ordering::Relaxed);
        }
    }
    let delay_ms = behaviour.delay_ms.load(Ordering::Relaxed);
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let every = behaviour.fails_every.load(Ordering::Relaxed);
    if every > 0 && number.is_multiple_of(every) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    next.run(request).await
}

async fn tell(State(behaviour): State<Arc<Behaviour>>) -> Json<Seen> {
    let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
    Json(Seen {
        fails_every: number(&behaviour.fails_every),
        delay_ms: number(&behaviour.delay_ms),
        requests: number(&behaviour.requests),
        copies: number(&behaviour.copies),
        copies_with_credentials: number(&behaviour.copies_with_credentials),
    })
}

async fn change(State(behaviour): State<Arc<Behaviour>>, Json(wanted): Json<Wanted>) -> Json<Seen> {
    if let Some(every) = wanted.fails_every {
        behaviour.fails_every.store(every, Ordering::Relaxed);
    }
    if let Some(delay_ms) = wanted.delay_ms {
        behaviour.delay_ms.store(delay_ms.min(MAX_DELAY_MS), Ordering::Relaxed);
    }
    tell(State(behaviour)).await
}
