//! One object at a time: PUT, GET, DELETE, list.
//!
//! The path names the object, so the body need not; where it does, both must agree.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use crate::policy::object::{Document, Kind, ObjectId};
use crate::store::{Operation, StoreError, Stored, Write};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

type Body = Result<Json<Map<String, Value>>, JsonRejection>;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only objects after this name: the `next` of the page before.
    cursor: Option<String>,
    /// How many; 100 unless said, 1000 at most.
    limit: Option<usize>,
}

/// A page of objects.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    items: Vec<Document>,
    /// Give this as `cursor` for the next page.
    next: Option<String>,
}

/// Lists the services, roles or bindings of a namespace.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/{kind}", params(ListQuery,
    ("namespace" = String, Path), ("kind" = String, Path, description = "services, roles or bindings")),
    responses((status = 200, body = Page), (status = "default", body = ProblemBody)))]
pub(super) async fn list_namespaced(
    State(admin): State<Admin>,
    Path((namespace, kind)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page>, Problem> {
    list(&admin, kind_of(&kind, true)?, &namespace, query).await
}

/// Lists issuers or enforcers.
#[utoipa::path(get, path = "/v1/{kind}", params(ListQuery,
    ("kind" = String, Path, description = "issuers or enforcers")),
    responses((status = 200, body = Page), (status = "default", body = ProblemBody)))]
pub(super) async fn list_cluster(
    State(admin): State<Admin>,
    Path(kind): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page>, Problem> {
    list(&admin, kind_of(&kind, false)?, "", query).await
}

/// Reads an object. Its revision is the `etag`.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/{kind}/{name}",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Document), (status = "default", body = ProblemBody)))]
pub(super) async fn get_namespaced(
    State(admin): State<Admin>,
    Path((namespace, kind, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    read(&admin, ObjectId::new(kind_of(&kind, true)?, namespace, name)).await
}

/// Reads an issuer or an enforcer. Its revision is the `etag`.
#[utoipa::path(get, path = "/v1/{kind}/{name}", params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Document), (status = "default", body = ProblemBody)))]
pub(super) async fn get_cluster(
    State(admin): State<Admin>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    read(&admin, ObjectId::new(kind_of(&kind, false)?, "", name)).await
}

/// Writes an object. `If-Match` and `If-None-Match: *` are honoured.
#[utoipa::path(put, path = "/v1/namespaces/{namespace}/{kind}/{name}", request_body = Document,
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Document), (status = 201, body = Document),
        (status = "default", body = ProblemBody)))]
pub(super) async fn put_namespaced(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path((namespace, kind, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = ObjectId::new(kind_of(&kind, true)?, namespace, name);
    put(&admin, &caller, id, &headers, body).await
}

/// Writes an issuer or an enforcer. `If-Match` and `If-None-Match: *` are honoured.
#[utoipa::path(put, path = "/v1/{kind}/{name}", request_body = Document,
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Document), (status = 201, body = Document),
        (status = "default", body = ProblemBody)))]
pub(super) async fn put_cluster(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    put(&admin, &caller, ObjectId::new(kind_of(&kind, false)?, "", name), &headers, body).await
}

/// Removes an object. `If-Match` is honoured.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace}/{kind}/{name}",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody)))]
pub(super) async fn delete_namespaced(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path((namespace, kind, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    delete(&admin, &caller, ObjectId::new(kind_of(&kind, true)?, namespace, name), &headers).await
}

/// Removes an issuer or an enforcer. `If-Match` is honoured.
#[utoipa::path(delete, path = "/v1/{kind}/{name}", params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody)))]
pub(super) async fn delete_cluster(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    delete(&admin, &caller, ObjectId::new(kind_of(&kind, false)?, "", name), &headers).await
}

fn kind_of(plural: &str, namespaced: bool) -> Result<Kind, Problem> {
    (Kind::ALL.into_iter())
        .find(|kind| kind.plural() == plural && kind.is_namespaced() == namespaced)
        .ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there are no `{plural}` here"))
        })
}

async fn list(admin: &Admin, kind: Kind, namespace: &str, query: ListQuery) -> Result<Json<Page>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let after = query.cursor.unwrap_or_default();
    let page = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let stored = admin.store.list(kind, namespace, &after, page).await?;
    let mut items: Vec<Document> = stored.into_iter().map(|stored| stored.document).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|document| document.id().name);
    Ok(Json(Page { items, next }))
}

async fn read(admin: &Admin, id: ObjectId) -> Result<Response, Problem> {
    let stored = admin.store.get(&id).await?.ok_or(StoreError::NotFound(id))?;
    Ok(answer(StatusCode::OK, &stored))
}

async fn put(
    admin: &Admin,
    caller: &Caller,
    id: ObjectId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.may(admin, "PUT", &id)?;
    let Json(fields) = body.map_err(|error| Problem::malformed(error.body_text()))?;
    let document = document_of(&id, fields)?;
    let applied = admin
        .store
        .write(Write {
            operations: vec![Operation::put(document.clone())],
            prune: false,
            dry_run: false,
            expected: expected(headers)?,
            base: None,
            by: caller.authorship(None),
            key: None,
        })
        .await?;
    let Some(change) = applied.changes.first() else { return read(admin, id).await };
    let status = if change.before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    admin.metrics.admin_write();
    admin.applied(applied.epoch).await;
    Ok(answer(status, &Stored { document, epoch: applied.epoch }))
}

async fn delete(
    admin: &Admin,
    caller: &Caller,
    id: ObjectId,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    caller.may(admin, "DELETE", &id)?;
    let write = Write {
        operations: vec![Operation::Delete(id)],
        prune: false,
        dry_run: false,
        expected: expected(headers)?,
        base: None,
        by: caller.authorship(None),
        key: None,
    };
    let applied = admin.store.write(write).await?;
    admin.metrics.admin_write();
    admin.applied(applied.epoch).await;
    Ok((StatusCode::NO_CONTENT, [("x-tollgate-epoch", applied.epoch.to_string())]).into_response())
}

/// Completes the body by what the path says.
fn document_of(id: &ObjectId, mut fields: Map<String, Value>) -> Result<Document, Problem> {
    let mut named = vec![("name", id.name.as_str())];
    if id.kind.is_namespaced() {
        named.push(("namespace", &id.namespace));
    }
    if let Some(kind) = fields.shift_remove("kind")
        && kind != id.kind.as_str()
    {
        return Err(Problem::malformed(format!("kind: the path names a {}", id.kind)));
    }
    for (key, from_path) in named {
        let value = fields.entry(key).or_insert_with(|| from_path.into());
        if value != from_path {
            return Err(Problem::malformed(format!("{key}: the path says `{from_path}`")));
        }
    }
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(Value::Object(fields), &mut track);
    Document::of_kind(id.kind, deserializer)
        .map_err(|error| Problem::malformed(format!("{}: {error}", track.path())))
}

fn answer(status: StatusCode, stored: &Stored) -> Response {
    let mut response = (status, Json(&stored.document)).into_response();
    let tag = HeaderValue::try_from(format!("\"{}\"", stored.epoch)).expect("a number in quotes is a header");
    response.headers_mut().insert(header::ETAG, tag);
    response.headers_mut().insert("x-tollgate-epoch", HeaderValue::from(stored.epoch));
    response
}

/// The revision that the caller has seen, where the request depends on it.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if let Some(value) = headers.get(header::IF_NONE_MATCH) {
        return match value.as_bytes() {
            b"*" => Ok(Some(0)),
            _ => Err(Problem::malformed("if-none-match: only `*` makes sense here")),
        };
    }
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    number.map(Some).ok_or_else(|| Problem::malformed("if-match: give the etag of one object"))
}
