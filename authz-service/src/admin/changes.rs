//! Reading the history, and where this replica stands.

use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use crate::store::ChangeRow;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// Only what follows: the `next` of the page before.
    cursor: Option<String>,
    /// How many rows; 100 unless said, 1000 at most.
    limit: Option<u32>,
}

/// A page of the history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangesPage {
    items: Vec<ChangeRow>,
    /// Give this as `cursor` for the next page.
    next: Option<String>,
}

/// The history, the newest change first.
#[utoipa::path(get, path = "/v1/changes", params(ChangesQuery),
    responses((status = 200, body = ChangesPage), (status = "default", body = ProblemBody)))]
pub(super) async fn changes(
    State(admin): State<Admin>,
    Query(query): Query<ChangesQuery>,
) -> Result<Json<ChangesPage>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let cursor = query.cursor.as_deref().map(parse_cursor).transpose()?;
    let mut items = admin.store.changes(cursor, limit + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|row| format!("{}.{}", row.epoch, row.position));
    Ok(Json(ChangesPage { items, next }))
}

fn parse_cursor(text: &str) -> Result<(u64, u64), Problem> {
    let parts = text.split_once('.').and_then(|(epoch, at)| Some((epoch.parse().ok()?, at.parse().ok()?)));
    parts.ok_or_else(|| Problem::malformed("cursor: not one that a page before gave"))
}

/// Where this replica stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// The policy in force here.
    epoch: u64,
    /// The number of the last change in the database.
    head: u64,
    /// Who asks.
    caller: String,
}

/// The epoch in force and the last one written; also a way to try a token.
#[utoipa::path(get, path = "/v1/status",
    responses((status = 200, body = Status), (status = "default", body = ProblemBody)))]
pub(super) async fn status(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Status>, Problem> {
    let head = admin.store.epoch().await?;
    let epoch = admin.authorizer.cell().load().epoch;
    Ok(Json(Status { epoch, head, caller: caller.authorship(None).author }))
}
