//! Somebody who was let in, and what they may.
//!
//! Rights are judged by the policy in force at the moment of the question, never by the one that was when the request
//! came: a body may take long to arrive, and rights may be withdrawn meanwhile.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::StatusCode;
use opentelemetry::Context;
use parking_lot::Mutex;
use tollgate_identity::SpiffeId;

use super::Admin;
use super::auth::{SentHeaders, administrator};
use super::problem::Problem;
use crate::authorize::{Presented, Question};
use crate::facts::{Entry, Headers as _, PathReadings};
use crate::policy::check::admin_service;
use crate::policy::delegation;
use crate::policy::object::{Kind, ObjectId, PolicySet, SYSTEM_NAMESPACE};
use crate::policy::{Snapshot, Verdict};
use crate::store::{Authorship, Change};
use crate::wire::refusal::refused;
use crate::x509::PeerCertificate;

/// The built-in service that this API is.
const ADMIN_SERVICE: &str = "tollgate-system/admin";
/// Whoever may write this object may give himself everything.
const KEYSTONE: &str = "/v1/namespaces/tollgate-system/roles/admin";

/// Somebody who was let in.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    visit: Arc<Visit>,
    name: String,
    reason: String,
    known: Arc<Mutex<Known>>,
}

/// What was found out about the caller last.
#[derive(Debug)]
struct Known {
    standing: Standing,
    /// By what the request itself was let in.
    admitted: Standing,
}

/// Who the caller is, by which policy.
#[derive(Debug, Clone)]
struct Standing {
    snapshot: Arc<Snapshot>,
    presented: Arc<Presented>,
}

impl Standing {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot) && Arc::ptr_eq(&self.presented, &other.presented)
    }
}

/// What a caller asks for, beside its body.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: SentHeaders,
    pub(super) request_id: String,
    /// As which workload, by the certificate of the connection.
    pub(super) workload: Option<SpiffeId>,
    /// That certificate.
    pub(super) certificate: Option<PeerCertificate>,
    /// From where, where nobody stands between.
    pub(super) source: Option<IpAddr>,
}

impl Visit {
    /// The question that the policy is asked, about this or another method and path.
    pub(super) fn question<'a>(&'a self, method: &'a str, path: &'a str) -> Question<'a> {
        Question {
            guard: crate::facts::Guard::Deny,
            service: Some(ADMIN_SERVICE),
            destination: None,
            entry: Entry::Outside,
            peer: self.workload.as_ref().map(SpiffeId::as_str),
            certificate: self.certificate.as_ref(),
            holder: self.certificate.as_ref().map(|shown| &*shown.thumbprint),
            method,
            host: "",
            target: path,
            request_id: Some(&self.request_id),
            headers: &self.headers,
            source: self.source,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.header(name).map(|header| header.value)
    }
}

impl Caller {
    /// Lets somebody in, if the policy does.
    pub(super) fn admit(
        admin: &Admin,
        visit: Visit,
        reason: String,
        (snapshot, presented): (Arc<Snapshot>, Presented),
    ) -> Result<Self, Problem> {
        let name = name_of(&presented, visit.workload.as_ref());
        let standing = Standing { snapshot, presented: Arc::new(presented) };
        let known = Known { standing: standing.clone(), admitted: standing.clone() };
        let caller = Self { visit: Arc::new(visit), name, reason, known: Arc::new(Mutex::new(known)) };
        caller.allowed_by(&standing, admin, &caller.visit.method, &caller.visit.path, None)?;
        Ok(caller)
    }

    /// Asks again, where the policy or the token has moved on since the caller was let in.
    pub(super) fn still_admitted(&self, admin: &Admin) -> Result<(), Problem> {
        let now = self.now(admin);
        if now.is(&self.known.lock().admitted) {
            return Ok(());
        }
        self.allowed_by(&now, admin, &self.visit.method, &self.visit.path, None)?;
        self.known.lock().admitted = now;
        Ok(())
    }

    /// Who the caller is by the policy in force. What was true when a request began may be withdrawn before it ends.
    fn now(&self, admin: &Admin) -> Standing {
        let in_force = admin.authorizer.cell().load_full();
        let standing = &mut self.known.lock().standing;
        let over = standing.presented.token().is_some_and(|token| token.expires_at <= admin.authorizer.now());
        if over || !Arc::ptr_eq(&standing.snapshot, &in_force) {
            let presented = match administrator(&in_force, |name| self.visit.header(name)) {
                Ok(Some(token)) => Presented::Verified(Arc::new(token)),
                Ok(None) | Err(_) => {
                    let question = self.visit.question(&self.visit.method, &self.visit.path);
                    admin.authorizer.recognise(&in_force, &question, |name| self.visit.header(name))
                }
            };
            *standing = Standing { snapshot: in_force, presented: Arc::new(presented) };
        }
        standing.clone()
    }

    /// For the history; `reason` from a body wins over the header's.
    pub(super) fn authorship(&self, reason: Option<String>) -> Authorship {
        Authorship::new(self.name(), reason.unwrap_or_else(|| self.reason.clone()))
    }

    /// `issuer/subject`, or the workload where there is no token; empty where there is neither.
    pub(super) fn name(&self) -> String {
        self.name.clone()
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

    /// Whether the caller may read a service, by its key. What is no key is about no namespace.
    pub(super) fn may_see_service(&self, admin: &Admin, key: &str) -> bool {
        match key.split_once('/') {
            Some((namespace, name)) => self.may_see(admin, &ObjectId::new(Kind::Service, namespace, name)),
            None => self.may_see_all(admin),
        }
    }

    /// Whether the caller may read a rollout.
    pub(super) fn may_see_rollout(&self, admin: &Admin, namespace: &str, name: &str) -> bool {
        self.would_be_allowed(admin, "GET", &format!("/v1/namespaces/{namespace}/rollouts/{name}"))
    }

    /// Whether the caller may read what is cluster-scoped and says whom we believe.
    pub(super) fn may_see_issuers(&self, admin: &Admin) -> bool {
        self.would_be_allowed(admin, "GET", "/v1/issuers")
    }

    /// The namespaces in which `changes` grant something, and in which the caller has no right to grant whatever it
    /// is: `PUT /v1/grants/NAMESPACE`.
    pub(super) fn not_free_to_grant(&self, admin: &Admin, changes: &[Change]) -> Vec<String> {
        let now = admin.authorizer.now();
        let granting = changes.iter().filter(|change| delegation::grants(change, now));
        let mut namespaces: Vec<String> = granting.map(|change| change.object.namespace.clone()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        namespaces
            .retain(|namespace| !self.would_be_allowed(admin, "PUT", &format!("/v1/grants/{namespace}")));
        namespaces
    }

    /// Whether the caller may do what `changes` grants; `seen` are the roles, bindings and denials of the namespaces
    /// where that is the question. Nobody grants what they do not hold.
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
        let standing = self.now(admin);
        let Some(token) = standing.presented.credential().token() else {
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
        let Standing { snapshot, presented } = self.now(admin);
        let question = self.visit.question(method, path);
        admin.authorizer.weigh(&snapshot, &question, readings, &presented).verdict == Verdict::Allow
    }

    /// Leaves a line in the log for whoever watches over administrators, and passes the problem on.
    fn refused(&self, problem: Problem, method: &str, path: &str) -> Problem {
        log_refusal(&self.name, &self.visit.request_id, method, path, problem.reason());
        problem
    }

    /// Whether the caller may do `method` to an object that the caller named.
    pub(super) fn may(&self, admin: &Admin, method: &str, object: &ObjectId) -> Result<(), Problem> {
        self.may_do(admin, method, object, None)
    }

    /// As [`Self::may`], for an object that may be news to the caller: it is named only to who may read it.
    pub(super) fn may_unnamed(&self, admin: &Admin, method: &str, object: &ObjectId) -> Result<(), Problem> {
        const HIDDEN: &str = "not allowed: this would change what the caller may not read";
        let hidden = (!self.may_see(admin, object)).then_some(HIDDEN);
        self.may_do(admin, method, object, hidden)
    }

    fn may_do(
        &self,
        admin: &Admin,
        method: &str,
        object: &ObjectId,
        instead: Option<&str>,
    ) -> Result<(), Problem> {
        self.allowed(admin, method, &object.rest_path(), instead)?;
        // Whoever may say what an issuer's tokens mean, or who may ask, is whoever he wants to be.
        let all_rights =
            object.namespace == SYSTEM_NAMESPACE || matches!(object.kind, Kind::Issuer | Kind::Enforcer);
        if all_rights && method != "GET" {
            // Nobody grants what he does not hold: rights over this API come only from those who have all of them.
            self.has_all_rights(admin, instead)?;
        }
        Ok(())
    }

    /// Whether the caller could give himself everything anyway.
    pub(super) fn has_all_rights(&self, admin: &Admin, instead: Option<&str>) -> Result<(), Problem> {
        self.allowed(admin, "PUT", KEYSTONE, instead)
    }

    fn allowed(&self, admin: &Admin, method: &str, path: &str, instead: Option<&str>) -> Result<(), Problem> {
        self.allowed_by(&self.now(admin), admin, method, path, instead)
    }

    /// Decides and keeps the decision; the words of a refusal are `instead`, where the path is nothing to tell.
    fn allowed_by(
        &self,
        standing: &Standing,
        admin: &Admin,
        method: &str,
        path: &str,
        instead: Option<&str>,
    ) -> Result<(), Problem> {
        let question = self.visit.question(method, path);
        let readings =
            PathReadings::of_target(path).map_err(|error| Problem::malformed(format!("path: {error}")))?;
        let (nowhere, presented) = (Context::new(), &standing.presented);
        let decided = admin.authorizer.decide(&standing.snapshot, &question, readings, presented, &nowhere);
        let decision = &decided.decision;
        match decision.verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny => {
                let detail = instead.map_or_else(|| format!("not allowed: {method} {path}"), str::to_owned);
                let problem = Problem::refused(&refused(decision, presented), decision.reason, detail);
                Err(self.refused(problem, method, path))
            }
        }
    }
}

fn name_of(presented: &Presented, workload: Option<&SpiffeId>) -> String {
    match (presented.token(), workload) {
        (Some(token), _) => format!("{}/{}", token.issuer, token.subject),
        (None, Some(workload)) => workload.to_string(),
        (None, None) => String::new(),
    }
}

/// Refused attempts to administer are part of the audit. Those of nobody in particular are noise of any network.
fn log_refusal(caller: &str, request_id: &str, method: &str, path: &str, reason: &str) {
    if caller.is_empty() {
        let peer = tracing::field::Empty;
        tracing::info!(peer, method, path, reason, request_id, "admin request refused");
    } else {
        tracing::warn!(caller, method, path, reason, request_id, "admin request of {caller} refused");
    }
}
