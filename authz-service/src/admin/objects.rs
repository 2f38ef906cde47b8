//! One object at a time: PUT, GET, DELETE, list, history.
//!
//! The path names the object, so the body need not; where it does, both must agree.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::Admin;
use super::caller::Caller;
use super::extract::{Json, Named, Page, PageQuery, Params};
use super::history::{self, ChangesPage};
use super::problem::{Problem, ProblemBody};
use super::scan::Scan;
use super::write::{Terms, WaitQuery, Wanted, perform};
use crate::policy::object::{Document, Kind, ObjectId};
use crate::store::{ChangeFilter, Operation, StoreError, Stored};

type Fields = Map<String, Value>;
/// A page of objects.
type Objects = Page<Document>;

/// Lists the services, roles, bindings or denials of a namespace, by name.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/{kind}", tag = "objects", params(PageQuery,
    ("namespace" = String, Path), ("kind" = String, Path, description = "services, roles, bindings or denials")),
    responses((status = 200, body = Objects), (status = "default", body = ProblemBody)))]
pub(super) async fn list_namespaced(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named((namespace, kind)): Named<(String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Objects>, Problem> {
    list(&admin, &caller, kind_of(&kind, true)?, &namespace, query).await
}

/// Lists issuers, enforcers or revocations, by name.
#[utoipa::path(get, path = "/v1/{kind}", tag = "objects", params(PageQuery,
    ("kind" = String, Path, description = "issuers, enforcers or revocations")),
    responses((status = 200, body = Objects), (status = "default", body = ProblemBody)))]
pub(super) async fn list_cluster(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named(kind): Named<String>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Objects>, Problem> {
    list(&admin, &caller, kind_of(&kind, false)?, "", query).await
}

/// Reads an object. Its revision is the `etag`.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/{kind}/{name}", tag = "objects",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Document, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn get_namespaced(
    State(admin): State<Admin>,
    Named((namespace, kind, name)): Named<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    read(&admin, ObjectId::new(kind_of(&kind, true)?, namespace, name), &headers).await
}

/// Reads an issuer, an enforcer or a revocation. Its revision is the `etag`.
#[utoipa::path(get, path = "/v1/{kind}/{name}", tag = "objects",
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Document, headers(("etag" = String))),
        (status = "default", body = ProblemBody)))]
pub(super) async fn get_cluster(
    State(admin): State<Admin>,
    Named((kind, name)): Named<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    read(&admin, ObjectId::new(kind_of(&kind, false)?, "", name), &headers).await
}

/// Writes an object.
///
/// `If-Match` with an etag writes only over that revision, `If-None-Match: *` only where there is none (412 otherwise).
/// With an `Idempotency-Key` the same request writes once, however often it is sent within a day.
#[utoipa::path(put, path = "/v1/namespaces/{namespace}/{kind}/{name}", tag = "objects", request_body = Document,
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path), WaitQuery,
        ("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header),
        ("idempotency-key" = Option<String>, Header), ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 200, body = Document, headers(("etag" = String))), (status = 201, body = Document),
        (status = "default", body = ProblemBody)))]
pub(super) async fn put_namespaced(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named((namespace, kind, name)): Named<(String, String, String)>,
    terms: Terms,
    Json(fields): Json<Fields>,
) -> Result<Response, Problem> {
    let id = ObjectId::new(kind_of(&kind, true)?, namespace, name);
    put(&admin, &caller, id, &terms, fields).await
}

/// Writes an issuer, an enforcer or a revocation, under the same terms as any object.
#[utoipa::path(put, path = "/v1/{kind}/{name}", tag = "objects", request_body = Document,
    params(("kind" = String, Path), ("name" = String, Path), WaitQuery,
        ("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header),
        ("idempotency-key" = Option<String>, Header), ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 200, body = Document, headers(("etag" = String))), (status = 201, body = Document),
        (status = "default", body = ProblemBody)))]
pub(super) async fn put_cluster(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named((kind, name)): Named<(String, String)>,
    terms: Terms,
    Json(fields): Json<Fields>,
) -> Result<Response, Problem> {
    put(&admin, &caller, ObjectId::new(kind_of(&kind, false)?, "", name), &terms, fields).await
}

/// Removes an object. `If-Match` and `Idempotency-Key` are honoured.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace}/{kind}/{name}", tag = "objects",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path), WaitQuery,
        ("if-match" = Option<String>, Header), ("idempotency-key" = Option<String>, Header),
        ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 204), (status = "default", body = ProblemBody)))]
pub(super) async fn delete_namespaced(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named((namespace, kind, name)): Named<(String, String, String)>,
    terms: Terms,
) -> Result<Response, Problem> {
    delete(&admin, &caller, ObjectId::new(kind_of(&kind, true)?, namespace, name), &terms).await
}

/// Removes an issuer, an enforcer or a revocation. `If-Match` and `Idempotency-Key` are honoured.
#[utoipa::path(delete, path = "/v1/{kind}/{name}", tag = "objects",
    params(("kind" = String, Path), ("name" = String, Path), WaitQuery,
        ("if-match" = Option<String>, Header), ("idempotency-key" = Option<String>, Header),
        ("x-tollgate-change-reason" = Option<String>, Header)),
    responses((status = 204), (status = "default", body = ProblemBody)))]
pub(super) async fn delete_cluster(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named((kind, name)): Named<(String, String)>,
    terms: Terms,
) -> Result<Response, Problem> {
    delete(&admin, &caller, ObjectId::new(kind_of(&kind, false)?, "", name), &terms).await
}

/// All changes of one object, the newest first.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/{kind}/{name}/history", tag = "history",
    params(("namespace" = String, Path), ("kind" = String, Path), ("name" = String, Path), PageQuery),
    responses((status = 200, body = ChangesPage), (status = "default", body = ProblemBody)))]
pub(super) async fn history_namespaced(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named((namespace, kind, name)): Named<(String, String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Json<ChangesPage>, Problem> {
    let id = ObjectId::new(kind_of(&kind, true)?, namespace, name);
    history::page(&admin, &caller, &ChangeFilter::of(&id), &query).await
}

/// All changes of one issuer, enforcer or revocation, the newest first.
#[utoipa::path(get, path = "/v1/{kind}/{name}/history", tag = "history",
    params(("kind" = String, Path), ("name" = String, Path), PageQuery),
    responses((status = 200, body = ChangesPage), (status = "default", body = ProblemBody)))]
pub(super) async fn history_cluster(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named((kind, name)): Named<(String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Json<ChangesPage>, Problem> {
    let id = ObjectId::new(kind_of(&kind, false)?, "", name);
    history::page(&admin, &caller, &ChangeFilter::of(&id), &query).await
}

fn kind_of(plural: &str, namespaced: bool) -> Result<Kind, Problem> {
    (Kind::ALL.into_iter())
        .find(|kind| kind.plural() == plural && kind.is_namespaced() == namespaced)
        .ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there are no `{plural}` here"))
        })
}

async fn list(
    admin: &Admin,
    caller: &Caller,
    kind: Kind,
    namespace: &str,
    query: PageQuery,
) -> Result<Json<Objects>, Problem> {
    let limit = query.limit();
    let name = |document: &Document| document.id().name;
    let mut scan = Scan::new(limit, query.cursor);
    while let Some((after, count)) = scan.wants().await {
        let stored = admin.store.list(kind, namespace, &after.unwrap_or_default(), count).await?;
        let documents = stored.into_iter().map(|stored| stored.document).collect();
        scan.take(documents, name, |document| caller.may_see(admin, &document.id()));
    }
    Ok(Json(scan.page(|name| name)))
}

async fn read(admin: &Admin, id: ObjectId, headers: &HeaderMap) -> Result<Response, Problem> {
    let stored = admin.store.get(&id).await?.ok_or(StoreError::NotFound(id))?;
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag(stored.epoch));
    if known {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag(stored.epoch))]).into_response());
    }
    Ok(answer(StatusCode::OK, &stored).into_response())
}

async fn put(
    admin: &Admin,
    caller: &Caller,
    id: ObjectId,
    terms: &Terms,
    fields: Fields,
) -> Result<Response, Problem> {
    caller.may(admin, "PUT", &id)?;
    let document = document_of(&id, fields)?;
    let body = serde_json::to_vec(&document).expect("a document is JSON");
    let applied = perform(
        admin,
        caller,
        Wanted {
            expected: terms.expected,
            key: terms.key(caller, &body)?,
            ..Wanted::operations(vec![Operation::put(document.clone())])
        },
    )
    .await?;
    let (status, stored) = match applied.changes.first() {
        Some(change) => {
            let status = if change.before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
            (status, Stored { document, epoch: applied.epoch })
        }
        // It was so already, under the revision that it has.
        None => (StatusCode::OK, admin.store.get(&id).await?.ok_or(StoreError::NotFound(id))?),
    };
    terms.answer(admin, &applied, answer(status, &stored)).await
}

async fn delete(admin: &Admin, caller: &Caller, id: ObjectId, terms: &Terms) -> Result<Response, Problem> {
    caller.may(admin, "DELETE", &id)?;
    let wanted = Wanted {
        expected: terms.expected,
        key: terms.key(caller, b"")?,
        ..Wanted::operations(vec![Operation::Delete(id)])
    };
    let applied = perform(admin, caller, wanted).await?;
    terms.answer(admin, &applied, StatusCode::NO_CONTENT).await
}

/// Completes the body by what the path says.
fn document_of(id: &ObjectId, mut fields: Fields) -> Result<Document, Problem> {
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

fn answer(status: StatusCode, stored: &Stored) -> impl IntoResponse + use<> {
    let epoch = [("x-tollgate-epoch", HeaderValue::from(stored.epoch))];
    (status, [(header::ETAG, tag(stored.epoch))], epoch, axum::Json(stored.document.clone()))
}

fn tag(epoch: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{epoch}\"")).expect("a number in quotes is a header")
}
