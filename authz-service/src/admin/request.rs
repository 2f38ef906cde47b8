//! Around every request: its id, its time limit, and the body of a problem.

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::problem::Problem;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The name of a request: in its answer, in problems, and in the decisions that were made for it.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// Names the request, bounds its time, and writes problems out.
pub(super) async fn enter(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "this took too long").into_response()
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let headers = std::mem::take(response.headers_mut());
        response = (response.status(), Json(problem.body(&id))).into_response();
        response.headers_mut().extend(headers);
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        // A protocol that has an id of the asker's echoes that one.
        response.headers_mut().entry("x-request-id").or_insert(id);
    }
    response
}
