//! Who may administer what: the policy, asked about its own API.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry::Context;

use super::Admin;
use super::problem::Problem;
use super::request::RequestId;
use crate::authorize::{Presented, Question};
use crate::facts::{ADMIN_ISSUER, Entry, Header, Headers, PathReadings};
use crate::policy::check::admin_service;
use crate::policy::delegation;
use crate::policy::object::{Kind, ObjectId, PolicySet, SYSTEM_NAMESPACE};
use crate::policy::{Snapshot, Verdict};
use crate::store::{Authorship, Change, hash_secret};
use crate::token::{TokenPlace, VerifiedToken, find};
use crate::wire::refusal::refused;

/// The built-in service that this API is.
const ADMIN_SERVICE: &str = "tollgate-system/admin";
/// Whoever may write this object may give himself everything.
const KEYSTONE: &str = "/v1/namespaces/tollgate-system/roles/admin";
/// Longest reason that is kept.
const MAX_REASON_BYTES: usize = 1024;

/// Somebody who was let in, and by which rules.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    presented: Arc<Presented>,
    snapshot: Arc<Snapshot>,
    reason: String,
    request_id: String,
    headers: Arc<SentHeaders>,
}

impl Caller {
    /// For the history; `reason` from a body wins over the header's.
    pub(super) fn authorship(&self, reason: Option<String>) -> Authorship {
        Authorship::new(self.name(), reason.unwrap_or_else(|| self.reason.clone()))
    }

    /// `issuer/subject`.
    pub(super) fn name(&self) -> String {
        name_of(&self.presented)
    }

    /// Whether the caller may read an object. Not kept as a decision: nobody asked for this very object.
    pub(super) fn may_see(&self, admin: &Admin, object: &ObjectId) -> bool {
        self.would_be_allowed(admin, "GET", &object.rest_path())
    }

    /// Whether the caller may read what belongs to no namespace and no kind: whoever may read how Tollgate itself is
    /// governed may.
    pub(super) fn may_see_all(&self, admin: &Admin) -> bool {
        self.may_see(admin, &admin_service())
    }

    /// The namespaces in which `changes` grant something, and in which the caller has no right to grant whatever it
    /// is: `PUT /v1/grants/NAMESPACE`.
    pub(super) fn not_free_to_grant(&self, admin: &Admin, changes: &[Change]) -> Vec<String> {
        let granting = changes.iter().filter(|change| delegation::grants(change));
        let mut namespaces: Vec<String> = granting.map(|change| change.object.namespace.clone()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        namespaces
            .retain(|namespace| !self.would_be_allowed(admin, "PUT", &format!("/v1/grants/{namespace}")));
        namespaces
    }

    /// Whether the caller may do what `changes` grants; `seen` are the roles and bindings of the namespaces where that
    /// is the question. Nobody grants what they do not hold.
    pub(super) fn may_grant(
        &self,
        admin: &Admin,
        changes: &[Change],
        seen: &PolicySet,
    ) -> Result<(), Problem> {
        let namespaces = self.not_free_to_grant(admin, changes);
        if namespaces.is_empty() {
            return Ok(());
        }
        let Some(token) = self.presented.token() else {
            let problem =
                Problem::new(StatusCode::FORBIDDEN, "grant_not_held", "without a token nothing is held");
            return Err(self.refused(problem, "GRANT", &namespaces.join(",")));
        };
        let excess = delegation::excess(seen, changes, token, &namespaces, admin.authorizer.now());
        if excess.is_empty() {
            return Ok(());
        }
        let problem =
            Problem::new(StatusCode::FORBIDDEN, "grant_not_held", "nobody grants what they do not hold")
                .with_faults(excess);
        Err(self.refused(problem, "GRANT", &namespaces.join(",")))
    }

    fn would_be_allowed(&self, admin: &Admin, method: &str, path: &str) -> bool {
        let Ok(readings) = PathReadings::of_target(path) else { return false };
        let question = question(method, path, &self.request_id, &self.headers);
        let decision = admin.authorizer.weigh(&self.snapshot, &question, readings, &self.presented);
        decision.verdict == Verdict::Allow
    }

    /// Leaves a line in the log for whoever watches over administrators, and passes the problem on.
    fn refused(&self, problem: Problem, method: &str, path: &str) -> Problem {
        log_refusal(&self.presented, &self.request_id, method, path, problem.reason());
        problem
    }

    /// Whether the caller may do `method` to an object.
    pub(super) fn may(&self, admin: &Admin, method: &str, object: &ObjectId) -> Result<(), Problem> {
        self.allowed(admin, method, &object.rest_path())?;
        // Whoever may say what an issuer's tokens mean, or who may ask, is whoever he wants to be.
        let all_rights =
            object.namespace == SYSTEM_NAMESPACE || matches!(object.kind, Kind::Issuer | Kind::Enforcer);
        if all_rights && method != "GET" {
            // Nobody grants what he does not hold: rights over this API come only from those who have all of them.
            self.allowed(admin, "PUT", KEYSTONE)?;
        }
        Ok(())
    }

    fn allowed(&self, admin: &Admin, method: &str, path: &str) -> Result<(), Problem> {
        let question = question(method, path, &self.request_id, &self.headers);
        let readings =
            PathReadings::of_target(path).map_err(|error| Problem::malformed(format!("path: {error}")))?;
        let nowhere = Context::new();
        let decided = admin.authorizer.decide(&self.snapshot, &question, readings, &self.presented, &nowhere);
        let decision = &decided.decision;
        match decision.verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny => {
                let detail = format!("not allowed: {method} {path}");
                let problem = Problem::refused(&refused(decision, &self.presented), decision.reason, detail);
                Err(self.refused(problem, method, path))
            }
        }
    }
}

fn name_of(presented: &Presented) -> String {
    presented.token().map_or_else(String::new, |token| format!("{}/{}", token.issuer, token.subject))
}

/// Refused attempts to administer are part of the audit. Those of nobody in particular are noise of any network.
fn log_refusal(presented: &Presented, request_id: &str, method: &str, path: &str, reason: &str) {
    let caller = name_of(presented);
    if caller.is_empty() {
        tracing::info!(method, path, reason, request_id, "admin request refused");
    } else {
        tracing::warn!(caller, method, path, reason, request_id, "admin request of {caller} refused");
    }
}

/// Lets in whom the policy lets in, and tells handlers who it is.
pub(super) async fn authorize(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    let visit = Visit::of(&request);
    let for_people = visit.path == PAGE_FOR_PEOPLE;
    match admit(&admin, visit).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => {
            let mut response = problem.into_response();
            if for_people && response.status() == StatusCode::UNAUTHORIZED {
                let basic = HeaderValue::from_static(r#"Basic realm="tollgate", charset="UTF-8""#);
                response.headers_mut().append(WWW_AUTHENTICATE, basic);
            }
            response
        }
    }
}

/// Paths that do not exist tell so only to those who may know which do.
pub(super) async fn unknown_path(State(admin): State<Admin>, request: Request) -> Problem {
    let visit = Visit::of(&request);
    drop(request);
    match admit(&admin, visit).await {
        Ok(_) => Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
        Err(problem) => problem,
    }
}

/// What the decision needs of a request; its body is not read before.
struct Visit {
    method: String,
    path: String,
    headers: SentHeaders,
    context: Context,
    request_id: String,
}

impl Visit {
    fn of(request: &Request) -> Self {
        Self {
            method: request.method().as_str().to_owned(),
            path: request.uri().path().to_owned(),
            headers: SentHeaders::of(request.headers(), request.uri().path()),
            context: request.extensions().get::<Context>().cloned().unwrap_or_default(),
            request_id: request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
        }
    }
}

async fn admit(admin: &Admin, visit: Visit) -> Result<Caller, Problem> {
    let Visit { method, path, headers, context, request_id } = visit;
    let header = |name: &str| headers.header(name).map(|header| header.value);
    let reason = header("x-tollgate-change-reason").unwrap_or_default().to_owned();
    if reason.len() > MAX_REASON_BYTES {
        return Err(Problem::malformed(format!("the reason is longer than {MAX_REASON_BYTES} bytes")));
    }
    let mut snapshot = admin.authorizer.cell().load_full();
    let presented = match administrator(&snapshot, header)? {
        Some(token) => Presented::Verified(Arc::new(token)),
        None => {
            admin
                .authorizer
                .identify(&mut snapshot, &question(&method, &path, &request_id, &headers), header, &context)
                .await
        }
    };
    let caller =
        Caller { presented: Arc::new(presented), snapshot, reason, request_id, headers: Arc::new(headers) };
    caller.allowed(admin, &method, &path)?;
    Ok(caller)
}

fn question<'a>(
    method: &'a str,
    path: &'a str,
    request_id: &'a str,
    headers: &'a SentHeaders,
) -> Question<'a> {
    Question {
        service: Some(ADMIN_SERVICE),
        destination: None,
        entry: Entry::Outside,
        peer: None,
        certificate: None,
        method,
        host: "",
        target: path,
        request_id: Some(request_id),
        headers,
        // Nobody says where the caller is; a condition on it is false.
        source: None,
    }
}

/// The holder of an opaque token.
fn administrator<'h>(
    snapshot: &Snapshot,
    header: impl Fn(&str) -> Option<&'h str>,
) -> Result<Option<VerifiedToken>, Problem> {
    let found = find(&[TokenPlace::Bearer], "/", |name| header(name));
    let token =
        found.map_err(|refusal| Problem::malformed(refusal.detail))?.map(|found| hash_secret(found.token));
    // Looking up a hash tells by its timing at most something about hashes.
    let Some(name) = token.and_then(|hash| snapshot.administrator(&hash)) else { return Ok(None) };
    Ok(Some(VerifiedToken::of_subject(ADMIN_ISSUER, name)))
}

/// The page that a person opens in a browser, which knows HTTP Basic and no bearer.
pub(super) const PAGE_FOR_PEOPLE: &str = "/docs";

/// The token that was given as a password.
fn of_basic(value: &str) -> Option<String> {
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    Some(format!("Bearer {}", pair.split_once(':')?.1))
}

/// The headers of a request to this API, by name; whether there were several lines of one is known.
#[derive(Debug)]
struct SentHeaders(BTreeMap<String, (String, bool)>);

impl SentHeaders {
    fn of(headers: &HeaderMap, path: &str) -> Self {
        let joined = headers.keys().map(|name| {
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            // Joined as Envoy would, so that a second token is seen.
            let value = values.join(",");
            let basic =
                (path == PAGE_FOR_PEOPLE && name == AUTHORIZATION).then(|| of_basic(&value)).flatten();
            (name.as_str().to_owned(), (basic.unwrap_or(value), values.len() > 1))
        });
        Self(joined.collect())
    }
}

impl Headers for SentHeaders {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        let (value, several) = self.0.get(name)?;
        Some(Header { value, may_be_several: *several })
    }
}
