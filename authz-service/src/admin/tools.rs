//! Questions about a policy: what is odd in it, does it do what it should, who may do something, what may somebody do.
//!
//! All of them see the part of the policy that the caller may read, with a draft laid over it where one is sent.

use std::collections::BTreeSet;

use axum::Extension;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::caller::Caller;
use super::extract::{self, Json, Page, Params, bad_cursor};
use super::history::visible;
use super::problem::{Problem, ProblemBody};
use crate::policy::cases::{self, Case, CaseResult, MAX_CASES};
use crate::policy::hypothetical::snapshot_of;
use crate::policy::lint::{Finding, Severity, lint as lint_policy};
use crate::policy::object::{Document, Kind, PolicySet};
use crate::policy::who::{self, Grant, Somebody, Target};
use crate::store::{Change, StoreError};

/// Beyond so many objects in the namespaces that a change touches, `apply` says nothing about them: that is for the
/// linter, who may take its time.
const MAX_LINTED_AT_APPLY: usize = 5_000;
/// How many objects are read at a time.
const PAGE: u32 = 1_000;

/// A draft laid over the policy in force.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LintRequest {
    /// Objects in the place of those of their names.
    documents: Vec<Document>,
}

/// What is odd.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LintAnswer {
    findings: Vec<Finding>,
    errors: usize,
    warnings: usize,
}

/// What is odd about the policy: rules that do nothing, rules that do more than they seem to.
#[utoipa::path(post, path = "/v1/lint", tag = "tools", request_body = LintRequest,
    responses((status = 200, body = LintAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn lint(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<LintRequest>,
) -> Result<Json<LintAnswer>, Problem> {
    let linting = async move |admin: Admin, caller: Caller| {
        let (set, _) = drafted(&admin, &caller, request.documents).await?;
        Ok(lint_policy(&set, admin.authorizer.now()))
    };
    let findings = admin.whole(&caller, linting).await?;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    Ok(Json(LintAnswer { findings, errors, warnings }))
}

/// What the linter says of the objects that were changed, where that can be told quickly.
pub(super) async fn findings_of(
    admin: &Admin,
    caller: &Caller,
    changes: &[Change],
) -> Result<Vec<Finding>, Problem> {
    let all = caller.may_see_all(admin);
    let namespaces: BTreeSet<&str> = changes.iter().map(|change| change.object.namespace.as_str()).collect();
    let mut set = PolicySet::new();
    for kind in Kind::ALL {
        let within: Vec<&str> = if kind.is_namespaced() {
            namespaces.iter().copied().filter(|namespace| !namespace.is_empty()).collect()
        } else {
            vec![""]
        };
        for namespace in within {
            let mut after = String::new();
            loop {
                let page = admin.store.list(kind, namespace, &after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.document.id().name;
                let objects = page.into_iter().map(|stored| (stored.document.id(), stored.document));
                // A finding names what is around a change, so it is looked for in what the caller may read.
                set.extend(objects.filter(|(id, _)| all || caller.may_see(admin, id)));
                if set.len() > MAX_LINTED_AT_APPLY {
                    return Ok(Vec::new());
                }
            }
        }
    }
    let mut changed = BTreeSet::new();
    for change in changes {
        changed.insert(&change.object);
        match &change.after {
            Some(document) => set.insert(change.object.clone(), document.clone()),
            None => set.remove(&change.object),
        };
    }
    let mut findings = lint_policy(&set, admin.authorizer.now());
    findings.retain(|finding| finding.severity >= Severity::Warning && changed.contains(&finding.object));
    Ok(findings)
}

/// Cases, and the draft that they are about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestRequest {
    /// Who does what, and what shall come of it.
    cases: Vec<Case>,
    /// Objects in the place of those of their names.
    #[serde(default)]
    documents: Vec<Document>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestAnswer {
    results: Vec<CaseResult>,
    passed: usize,
    failed: usize,
}

/// Does the policy what it should: test cases against the policy in force, or against a draft laid over it.
#[utoipa::path(post, path = "/v1/test", tag = "tools", request_body = TestRequest,
    responses((status = 200, body = TestAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn test(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<TestRequest>,
) -> Result<Json<TestAnswer>, Problem> {
    if request.cases.len() > MAX_CASES {
        return Err(Problem::malformed(format!("cases: more than {MAX_CASES}")));
    }
    let testing = async move |admin: Admin, caller: Caller| {
        let (set, epoch) = drafted(&admin, &caller, request.documents).await?;
        let snapshot =
            snapshot_of(&set, epoch).map_err(|faults| Problem::from(StoreError::Invalid(faults)))?;
        Ok(cases::run(&snapshot, &request.cases, admin.authorizer.now()))
    };
    let results = admin.whole(&caller, testing).await?;
    let passed = results.iter().filter(|result| result.passed).count();
    let failed = results.len() - passed;
    Ok(Json(TestAnswer { results, passed, failed }))
}

/// What the caller may read, with a draft laid over it.
async fn drafted(
    admin: &Admin,
    caller: &Caller,
    documents: Vec<Document>,
) -> Result<(PolicySet, u64), Problem> {
    let (mut set, epoch) = visible(admin, caller, None).await?;
    set.extend(documents.into_iter().map(|document| (document.id(), document)));
    Ok((set, epoch))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhoCanQuery {
    /// The method.
    method: Option<String>,
    /// The path.
    path: Option<String>,
    /// A gRPC method instead, as `package.Service/Method`.
    grpc: Option<String>,
    /// The host by which the service is called.
    host: Option<String>,
    /// `namespace/name`, or a name that is unique; instead of the host.
    service: Option<String>,
    /// Only what follows: the `next` of the page before.
    cursor: Option<String>,
    /// How many grants; 100 unless said, 1000 at most.
    limit: Option<usize>,
}

/// Who may do it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoCanAnswer {
    #[serde(flatten)]
    found: who::WhoCan,
    /// Give this as `cursor` for the next page of grants; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Who may do something, by which binding, and under which conditions.
#[utoipa::path(get, path = "/v1/who-can", tag = "tools", params(WhoCanQuery),
    responses((status = 200, body = WhoCanAnswer), (status = "default", body = ProblemBody)))]
pub(super) async fn who_can(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<WhoCanQuery>,
) -> Result<Json<WhoCanAnswer>, Problem> {
    let WhoCanQuery { method, path, grpc, host, service, cursor, limit } = query;
    let target = match (method, path, grpc) {
        (Some(method), Some(path), None) => Target { method, path, host, service },
        (None, None, Some(call)) => {
            let call = Target::grpc(&call).map_err(|error| Problem::malformed(error.to_string()))?;
            Target { host, service, ..call }
        }
        _ => return Err(Problem::malformed("say method and path, or grpc")),
    };
    let asking = async move |admin: Admin, caller: Caller| {
        let (set, _) = visible(&admin, &caller, None).await?;
        who::who_can(&set, &target, admin.authorizer.now())
            .map_err(|error| Problem::malformed(error.to_string()))
    };
    let mut found = admin.whole(&caller, asking).await?;
    let page = page_of(std::mem::take(&mut found.grants), cursor.as_deref(), limit)?;
    found.grants = page.items;
    Ok(Json(WhoCanAnswer { found, next: page.next }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CanQuery {
    /// The token's issuer, by its name in the policy; any when absent.
    issuer: Option<String>,
    /// The token's subject.
    subject: Option<String>,
    /// The token's groups, with commas between them.
    groups: Option<String>,
    /// The token's client.
    client: Option<String>,
    /// The calling workload's SPIFFE id.
    workload: Option<String>,
    /// Only what follows: the `next` of the page before.
    cursor: Option<String>,
    /// How many grants; 100 unless said, 1000 at most.
    limit: Option<usize>,
}

/// A page of grants.
type Grants = Page<Grant>;

/// What somebody may do, by which binding, and under which conditions.
#[utoipa::path(get, path = "/v1/can", tag = "tools", params(CanQuery),
    responses((status = 200, body = Grants), (status = "default", body = ProblemBody)))]
pub(super) async fn can(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<CanQuery>,
) -> Result<Json<Grants>, Problem> {
    let groups = query.groups.iter().flat_map(|groups| groups.split(','));
    let somebody = Somebody {
        issuer: query.issuer,
        subject: query.subject,
        groups: groups.map(|group| group.trim().to_owned()).filter(|group| !group.is_empty()).collect(),
        client: query.client,
        workload: query.workload,
    };
    if somebody == (Somebody { issuer: somebody.issuer.clone(), ..Somebody::default() }) {
        return Err(Problem::malformed("say who: subject, groups, client or workload"));
    }
    let asking = async move |admin: Admin, caller: Caller| {
        let (set, _) = visible(&admin, &caller, None).await?;
        Ok(who::can(&set, &somebody, admin.authorizer.now()))
    };
    let grants = admin.whole(&caller, asking).await?;
    Ok(Json(page_of(grants, query.cursor.as_deref(), query.limit)?))
}

/// A page of what was found out anew for it: its cursor is a place in the list.
fn page_of<T>(items: Vec<T>, cursor: Option<&str>, limit: Option<usize>) -> Result<Page<T>, Problem> {
    let start: usize = cursor.map(str::parse).transpose().map_err(|_| bad_cursor())?.unwrap_or(0);
    let limit = extract::limit(limit);
    let next = (items.len() > start.saturating_add(limit)).then(|| (start + limit).to_string());
    Ok(Page { items: items.into_iter().skip(start).take(limit).collect(), next })
}
