//! Many objects in one transaction and one epoch: what `tollgate policy apply -f DIR` calls.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use crate::policy::diff;
use crate::policy::object::{Document, ObjectId};
use crate::store::{Applied, Change, Operation, StoreError, Write};

/// How often it is tried again when somebody else writes at the same time.
const ATTEMPTS: usize = 5;

/// What the policy shall be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
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

/// What happened, or would.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApplyAnswer {
    /// From which change on it holds.
    epoch: u64,
    /// Whether anything was written.
    dry_run: bool,
    /// Which objects.
    changes: Vec<ChangedObject>,
    /// For people.
    diff: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChangedObject {
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

/// Applies many objects at once.
///
/// Asks for the right to each object that would change, as if each were put or deleted alone.
#[utoipa::path(post, path = "/v1/apply", request_body = ApplyRequest,
    responses((status = 200, body = ApplyAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn apply(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<ApplyRequest>, JsonRejection>,
) -> Result<Json<ApplyAnswer>, Problem> {
    let Json(request) = body.map_err(|error| Problem::malformed(error.body_text()))?;
    let dry_run = request.dry_run;
    let applied = authorized(&admin, &caller, request).await?;
    if !dry_run && !applied.changes.is_empty() {
        admin.metrics.admin_write();
        admin.applied(applied.epoch).await;
    }
    let changes = applied.changes.iter().map(|change| ChangedObject {
        object: change.object.clone(),
        change: match (&change.before, &change.after) {
            (None, _) => ChangeKind::Created,
            (Some(_), None) => ChangeKind::Removed,
            (Some(_), Some(_)) => ChangeKind::Changed,
        },
    });
    let (changes, diff) = (changes.collect(), diff::print(&applied.changes));
    Ok(Json(ApplyAnswer { epoch: applied.epoch, dry_run, changes, diff }))
}

/// Finds out what would change, asks whether the caller may, and does exactly that or starts again.
async fn authorized(admin: &Admin, caller: &Caller, request: ApplyRequest) -> Result<Applied, Problem> {
    let mut write = Write {
        operations: request.documents.into_iter().map(Operation::put).collect(),
        prune: request.prune,
        dry_run: true,
        expected: None,
        base: None,
        by: caller.authorship(request.reason),
        key: None,
    };
    for _ in 0..ATTEMPTS {
        let planned = admin.store.write(Write { dry_run: true, base: None, ..write.clone() }).await?;
        for change in &planned.changes {
            caller.may(admin, method_of(change), &change.object)?;
        }
        if request.dry_run {
            return Ok(planned);
        }
        (write.dry_run, write.base) = (false, Some(planned.epoch));
        match admin.store.write(write.clone()).await {
            Err(StoreError::PolicyMoved { .. }) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(Problem::new(
        axum::http::StatusCode::CONFLICT,
        "moved",
        "the policy is changed by others all the time",
    ))
}

fn method_of(change: &Change) -> &'static str {
    if change.after.is_some() { "PUT" } else { "DELETE" }
}
