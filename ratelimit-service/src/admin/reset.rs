//! Giving a caller its whole allowance again, and the record of who did so.

use std::collections::VecDeque;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tollgate_identity::tls::Peer;
use utoipa::ToSchema;

use super::Admin;
use super::problem::Problem;

/// Resets remembered here; the log has all of them.
const MAX_REMEMBERED: usize = 1_000;

/// Resets, latest last.
#[derive(Debug, Default)]
pub(crate) struct Audit(VecDeque<Reset>);

/// Whose counters are reset.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetRequest {
    /// The limits domain.
    domain: String,
    /// The descriptor's entries, in order, as `[key, value]`.
    entries: Vec<(String, String)>,
    /// Who does it. Over TLS the certificate's id stands before it.
    by: String,
    /// Why.
    reason: String,
}

/// A reset that was done.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Reset {
    /// Second of Unix time.
    at: u64,
    by: String,
    reason: String,
    domain: String,
    entries: Vec<(String, String)>,
    /// The rules whose counters began anew.
    rules: Vec<String>,
}

/// Makes the counters of one descriptor begin anew, candidates' included.
#[utoipa::path(post, path = "/v1/reset", request_body = ResetRequest, responses(
    (status = 200, body = Reset),
    (status = 404, description = "No limit is for this descriptor", body = Problem),
    (status = 503, description = "The store does not answer", body = Problem)))]
pub(super) async fn reset(
    State(admin): State<Admin>,
    peer: Option<Extension<Peer>>,
    request: Result<Json<ResetRequest>, JsonRejection>,
) -> Result<Json<Reset>, Problem> {
    let Json(mut request) = request?;
    if request.by.trim().is_empty() || request.reason.trim().is_empty() {
        return Err(Problem::bad_request("`by` and `reason` say who resets and why; neither may be empty"));
    }
    // A certificate says more than a word.
    if let Some(leaf) = peer.and_then(|Extension(peer)| peer.leaf) {
        request.by = format!("{} ({})", leaf.id, request.by);
    }
    let entries: Vec<(&str, &str)> = request.entries.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let rules = admin
        .limiter
        .reset(&request.domain, &entries)
        .await
        .map_err(|error| Problem::unavailable(error.to_string()))?;
    if rules.is_empty() {
        return Err(Problem::not_found("no limit is for this descriptor"));
    }
    let done = Reset {
        at: admin.limiter.now_seconds(),
        by: request.by,
        reason: request.reason,
        domain: request.domain,
        entries: request.entries,
        rules,
    };
    tracing::info!(
        audit = true,
        by = done.by,
        reason = done.reason,
        domain = done.domain,
        entries = ?done.entries,
        rules = ?done.rules,
        "counters were reset"
    );
    let mut audit = admin.audit.lock();
    if audit.0.len() >= MAX_REMEMBERED {
        audit.0.pop_front();
    }
    audit.0.push_back(done.clone());
    Ok(Json(done))
}

/// The resets of this process, latest first.
#[utoipa::path(get, path = "/v1/audit", responses((status = 200, body = Vec<Reset>)))]
pub(super) async fn audit(State(admin): State<Admin>) -> Json<Vec<Reset>> {
    Json(admin.audit.lock().0.iter().rev().cloned().collect())
}
