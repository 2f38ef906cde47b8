//! Many objects in one transaction and one epoch: what `tollgate policy apply -f DIR` and `rollback` call.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::caller::Caller;
use super::extract::Json;
use super::problem::{Problem, ProblemBody};
use super::tools;
use super::write::{Terms, WaitQuery, Wanted, Wish, perform};
use crate::policy::diff;
use crate::policy::lint::Finding;
use crate::policy::object::{Document, ObjectId};
use crate::store::{Applied, Change, Operation};

/// So many objects in one request.
const MAX_DOCUMENTS: usize = 10_000;

/// What the policy shall be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyRequest {
    /// Objects, each with its `kind`.
    documents: Vec<Document>,
    /// Remove namespaced objects that are not among them; those of `tollgate-system` stay.
    #[serde(default)]
    prune: bool,
    /// Tell what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// For the history; instead of the header `x-tollgate-change-reason`.
    reason: Option<String>,
}

/// Back to what was.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackRequest {
    /// The epoch whose policy shall be in force again.
    epoch: u64,
    /// Only this object; everything but administrators' tokens and fetched keys without it.
    object: Option<ObjectId>,
    /// Tell what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// For the history; instead of the header `x-tollgate-change-reason`.
    reason: Option<String>,
}

/// What happened, or would.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApplyAnswer {
    /// From which change on it holds.
    epoch: u64,
    /// Whether nothing was written because nothing should be.
    dry_run: bool,
    /// Which objects.
    changes: Vec<ChangedObject>,
    /// For people.
    diff: String,
    /// What is odd about the objects that changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Finding>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangedObject {
    object: ObjectId,
    change: ChangeKind,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ChangeKind {
    Created,
    Changed,
    Removed,
}

impl From<&Change> for ChangedObject {
    fn from(change: &Change) -> Self {
        let kind = match (&change.before, &change.after) {
            (None, _) => ChangeKind::Created,
            (Some(_), None) => ChangeKind::Removed,
            (Some(_), Some(_)) => ChangeKind::Changed,
        };
        Self { object: change.object.clone(), change: kind }
    }
}

/// Applies many objects at once, in one epoch.
///
/// Asks for the right to each object that would change, as if each were put or deleted alone.
#[utoipa::path(post, path = "/v1/apply", tag = "objects", request_body = ApplyRequest,
    params(WaitQuery, ("idempotency-key" = Option<String>, Header)),
    responses((status = 200, body = ApplyAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn apply(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    terms: Terms,
    Json(request): Json<ApplyRequest>,
) -> Result<Response, Problem> {
    if request.documents.len() > MAX_DOCUMENTS {
        let detail =
            format!("documents: more than {MAX_DOCUMENTS}; nobody else writes while they are looked at");
        return Err(Problem::malformed(detail));
    }
    let body = serde_json::to_vec(&request).expect("what was read as JSON is JSON");
    let wanted = Wanted {
        prune: request.prune,
        dry_run: request.dry_run,
        reason: request.reason,
        key: terms.key(&caller, &body)?,
        ..Wanted::operations(request.documents.into_iter().map(Operation::put).collect())
    };
    let dry_run = wanted.dry_run;
    let applied = perform(&admin, &caller, wanted).await?;
    answer(&admin, &caller, &terms, applied, dry_run).await
}

/// Restores the policy of an earlier epoch, as a new revision.
///
/// Asks for the right to each object that would change. Administrators' tokens and fetched keys stay as they are.
#[utoipa::path(post, path = "/v1/rollback", tag = "history", request_body = RollbackRequest,
    params(WaitQuery, ("idempotency-key" = Option<String>, Header)),
    responses((status = 200, body = ApplyAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn rollback(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    terms: Terms,
    Json(request): Json<RollbackRequest>,
) -> Result<Response, Problem> {
    if let Some(object) = &request.object {
        // Whether it has changed since is nothing to learn for who may not read it.
        caller.may(&admin, "GET", object)?;
    }
    let body = serde_json::to_vec(&request).expect("what was read as JSON is JSON");
    let wanted = Wanted {
        wish: Wish::Restore(request.epoch, request.object),
        dry_run: request.dry_run,
        reason: Some(request.reason.unwrap_or_else(|| format!("rollback to epoch {}", request.epoch))),
        key: terms.key(&caller, &body)?,
        ..Wanted::operations(Vec::new())
    };
    let applied = perform(&admin, &caller, wanted).await?;
    answer(&admin, &caller, &terms, applied, request.dry_run).await
}

async fn answer(
    admin: &Admin,
    caller: &Caller,
    terms: &Terms,
    applied: Applied,
    dry_run: bool,
) -> Result<Response, Problem> {
    let warnings = tools::findings_of(admin, caller, &applied.changes).await?;
    let told = ApplyAnswer {
        epoch: applied.epoch,
        dry_run,
        changes: applied.changes.iter().map(ChangedObject::from).collect(),
        diff: diff::print(&applied.changes),
        warnings,
    };
    if dry_run {
        let nothing = Applied { changes: Vec::new(), ..applied };
        return terms.answer(admin, &nothing, Json(told)).await;
    }
    terms.answer(admin, &applied, Json(told)).await
}
