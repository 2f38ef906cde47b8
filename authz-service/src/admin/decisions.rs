//! What was decided lately, for whoever asks why.
//!
//! A caller sees the decisions about services that the caller may read, and no others.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tollgate_proto::Reason;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Admin;
use super::caller::Caller;
use super::extract::{self, Json, Named, Page, Params, bad_cursor};
use super::problem::{Problem, ProblemBody};
use super::scan::Scan;
use crate::decisions::{DecisionRecord, Filter, Record, VerdictName};
use crate::policy::Verdict;

/// A page of decisions.
type DecisionsPage = Page<DecisionRecord>;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionsQuery {
    /// Only what is older: the `next` of the page before.
    cursor: Option<String>,
    /// How many; 100 unless said, 1000 at most.
    limit: Option<usize>,
    /// Only for this request.
    request_id: Option<String>,
    /// Only about tokens of this subject.
    subject: Option<String>,
    /// Only about calls by this workload.
    peer: Option<String>,
    /// Only these answers.
    #[param(inline)]
    verdict: Option<VerdictName>,
    /// Only for this reason.
    #[param(value_type = Option<String>)]
    reason: Option<Reason>,
    /// Only about this service: `namespace/name`, or a name alone.
    service: Option<String>,
}

/// Recent decisions, the newest first: of refusals more than of allows, both as far as memory reaches.
#[utoipa::path(get, path = "/v1/decisions", tag = "decisions", params(DecisionsQuery),
    responses((status = 200, body = DecisionsPage), (status = "default", body = ProblemBody)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<DecisionsQuery>,
) -> Result<Json<DecisionsPage>, Problem> {
    let before = query.cursor.map(|id| id.parse::<Uuid>().map_err(|_| bad_cursor())).transpose()?;
    let limit = extract::limit(query.limit);
    let filter = Filter {
        request_id: query.request_id,
        subject: query.subject,
        peer: query.peer,
        verdict: query.verdict.map(|verdict| match verdict {
            VerdictName::Allow => Verdict::Allow,
            VerdictName::Deny => Verdict::Deny,
        }),
        reason: query.reason,
        service: query.service,
    };
    let mut services = Services { admin: &admin, caller: &caller, known: BTreeMap::new() };
    let decisions = admin.authorizer.decisions();
    let mut scan = Scan::new(limit, before);
    while let Some((before, count)) = scan.wants().await {
        let found = decisions.list(&filter, before, count as usize);
        scan.take(found, Record::id, |record| services.may_see(record));
    }
    let page = scan.page(|id| id.to_string());
    Ok(Json(Page { items: page.items.iter().map(Record::shown).collect(), next: page.next }))
}

/// One decision by its id.
#[utoipa::path(get, path = "/v1/decisions/{id}", tag = "decisions",
    params(("id" = String, Path, description = "the decision's id")),
    responses((status = 200, body = DecisionRecord), (status = "default", body = ProblemBody)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Named(id): Named<String>,
) -> Result<Json<DecisionRecord>, Problem> {
    Ok(Json(find(&admin, &caller, &id)?.shown()))
}

/// The record of a decision, by its id or by the id of its request, if the caller may see it.
pub(super) fn find(admin: &Admin, caller: &Caller, id: &str) -> Result<Record, Problem> {
    let decisions = admin.authorizer.decisions();
    let mut services = Services { admin, caller, known: BTreeMap::new() };
    let by_id = id.parse().ok().and_then(|id| decisions.find(id)).filter(|record| services.may_see(record));
    let by_request = || {
        let filter = Filter { request_id: Some(id.to_owned()), ..Filter::default() };
        // One request may be decided at several points; the refusal is what somebody asks about.
        let mut found = decisions.list(&filter, None, MAX_OF_REQUEST);
        found.retain(|record| services.may_see(record));
        let refusal = found.iter().position(Record::is_refusal).unwrap_or(0);
        (refusal < found.len()).then(|| found.swap_remove(refusal))
    };
    by_id.or_else(by_request).ok_or_else(|| {
        let detail = "no decision of this id, or for a request of this id, is remembered (any more)";
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    })
}

/// So many decisions of one request are looked at.
const MAX_OF_REQUEST: usize = 64;

/// Which services the caller may see, asked once each.
struct Services<'a> {
    admin: &'a Admin,
    caller: &'a Caller,
    known: BTreeMap<String, bool>,
}

impl Services<'_> {
    fn may_see(&mut self, record: &Record) -> bool {
        if let Some(known) = self.known.get(record.service()) {
            return *known;
        }
        // About no service that is known: for those who may read everything.
        let may = self.caller.may_see_service(self.admin, record.service());
        self.known.insert(record.service().to_owned(), may);
        may
    }
}
