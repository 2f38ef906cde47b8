//! The history of the policy, earlier states of it, and where this replica stands.

use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::caller::Caller;
use super::extract::{Json, Page, PageQuery, Params, bad_cursor};
use super::problem::{Problem, ProblemBody};
use super::scan::Scan;
use crate::policy::object::{ObjectId, PolicySet};
use crate::policy::{diff, documents};
use crate::store::{ChangeFilter, ChangeRow};

/// A page of the history.
pub(super) type ChangesPage = Page<ChangeRow>;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// Only what follows: the `next` of the page before.
    cursor: Option<String>,
    /// How many rows; 100 unless said, 1000 at most.
    limit: Option<usize>,
    /// Only objects of this kind: `Role`, `Binding`, …
    #[serde(default)]
    kind: String,
    /// Only objects of this namespace.
    #[serde(default)]
    namespace: String,
    /// Only objects of this name.
    #[serde(default)]
    name: String,
    /// Only what this author changed.
    #[serde(default)]
    author: String,
}

/// The history, the newest change first: of what the caller may read.
#[utoipa::path(get, path = "/v1/changes", tag = "history", params(ChangesQuery),
    responses((status = 200, body = ChangesPage), (status = "default", body = ProblemBody)))]
pub(super) async fn changes(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<ChangesQuery>,
) -> Result<Json<ChangesPage>, Problem> {
    let ChangesQuery { cursor, limit, kind, namespace, name, author } = query;
    let filter = ChangeFilter { kind, namespace, name, author };
    page(&admin, &caller, &filter, &PageQuery { cursor, limit }).await
}

/// One page of the history of what the caller may read.
pub(super) async fn page(
    admin: &Admin,
    caller: &Caller,
    filter: &ChangeFilter,
    query: &PageQuery,
) -> Result<Json<ChangesPage>, Problem> {
    let limit = query.limit();
    let cursor = query.cursor.as_deref().map(parse_cursor).transpose()?;
    let place = |row: &ChangeRow| (row.epoch, row.position);
    let mut scan = Scan::new(limit, cursor);
    while let Some((after, count)) = scan.wants().await {
        let rows = admin.store.changes_of(filter, after, count).await?;
        scan.take(rows, place, |row| may_see(admin, caller, row));
    }
    Ok(Json(scan.page(|(epoch, position)| format!("{epoch}.{position}"))))
}

/// Changes of what is no object (administrators, fetched keys) are for those who may read everything.
fn may_see(admin: &Admin, caller: &Caller, row: &ChangeRow) -> bool {
    row.object().map_or_else(|| caller.may_see_all(admin), |id| caller.may_see(admin, &id))
}

fn parse_cursor(text: &str) -> Result<(u64, u64), Problem> {
    let parts = text.split_once('.').and_then(|(epoch, at)| Some((epoch.parse().ok()?, at.parse().ok()?)));
    parts.ok_or_else(bad_cursor)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// The policy as it was at this epoch; as it is without it.
    epoch: Option<u64>,
    /// Only objects of this namespace.
    namespace: Option<String>,
}

/// The policy that the caller may read, as YAML that `apply` takes.
#[utoipa::path(get, path = "/v1/export", tag = "history", params(ExportQuery),
    responses((status = 200, body = String, content_type = "application/yaml"),
        (status = "default", body = ProblemBody)))]
pub(super) async fn export(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<ExportQuery>,
) -> Result<Response, Problem> {
    let exporting = async move |admin: Admin, caller: Caller| {
        let ExportQuery { epoch, namespace } = query;
        let (set, now) = visible(&admin, &caller, epoch).await?;
        let wanted = |id: &ObjectId| namespace.as_ref().is_none_or(|namespace| id.namespace == *namespace);
        let yaml = documents::export(set.iter().filter(|(id, _)| wanted(id)).map(|(_, document)| document));
        Ok((yaml, epoch.unwrap_or(now).to_string()))
    };
    let (yaml, epoch) = admin.whole(&caller, exporting).await?;
    Ok(([(header::CONTENT_TYPE.as_str(), "application/yaml"), ("x-tollgate-epoch", &epoch)], yaml)
        .into_response())
}

/// The part of the policy that the caller may read, now or at an earlier epoch; and the epoch now. For
/// [`Admin::whole`].
pub(super) async fn visible(
    admin: &Admin,
    caller: &Caller,
    epoch: Option<u64>,
) -> Result<(PolicySet, u64), Problem> {
    let (mut set, now) = match epoch {
        Some(epoch) => admin.store.policy_at(epoch).await?,
        None => {
            let loaded = admin.store.load().await?;
            let set = loaded.objects.into_iter().map(|(id, stored)| (id, stored.document)).collect();
            (set, loaded.epoch)
        }
    };
    if !caller.may_see_all(admin) {
        set.retain(|id, _| caller.may_see(admin, id));
    }
    Ok((set, now))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    /// From this epoch on.
    from: u64,
    /// Up to this one; to the newest without it.
    to: Option<u64>,
}

/// What differs between two states of the policy.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DiffAnswer {
    from: u64,
    to: u64,
    /// Which objects.
    changes: Vec<super::apply::ChangedObject>,
    /// For people.
    diff: String,
}

/// What changed in the policy between two epochs, of what the caller may read.
#[utoipa::path(get, path = "/v1/diff", tag = "history", params(DiffQuery),
    responses((status = 200, body = DiffAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn diff_epochs(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<DiffQuery>,
) -> Result<Json<DiffAnswer>, Problem> {
    let comparing = async move |admin: Admin, caller: Caller| {
        let (before, _) = visible(&admin, &caller, Some(query.from)).await?;
        let (after, now) = visible(&admin, &caller, query.to).await?;
        let changes = diff::changes(&before, &after);
        Ok(Json(DiffAnswer {
            from: query.from,
            to: query.to.unwrap_or(now),
            changes: changes.iter().map(Into::into).collect(),
            diff: diff::print(&changes),
        }))
    };
    admin.whole(&caller, comparing).await
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
#[utoipa::path(get, path = "/v1/status", tag = "service",
    responses((status = 200, body = Status), (status = "default", body = ProblemBody)))]
pub(super) async fn status(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Status>, Problem> {
    let head = admin.store.epoch().await?;
    let epoch = admin.authorizer.cell().load().epoch;
    Ok(Json(Status { epoch, head, caller: caller.name() }))
}
