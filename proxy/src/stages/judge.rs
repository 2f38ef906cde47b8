//! The two questions that a request asks of others: may it pass, and is there room for it? What they answer goes
//! into the record.

use std::time::Instant;

use http::request;
use hyper::body::{Body as _, Incoming};
use tollgate_proto::Reason;

use super::authorize::{Authorizer, Grant, Outcome as Authorized};
use super::check_request::{Ends, Question};
use super::local_limit::{When, take_all};
use super::quota::{Decided, Held, Quota};
use super::rate_limit::Outcome as Counted;
use crate::config::{AuthzMode, OnError, TcpConfig};
use crate::error::ProxyError;
use crate::head::Host;
use crate::listener::Connection;
use crate::metrics::Metrics;
use crate::pipeline::Proxy;
use crate::record::{Authz, Record};
use crate::route::Found;
use crate::route::descriptor::{Descriptor, Facts};
use crate::snapshot::Snapshot;

#[expect(clippy::too_many_arguments, reason = "a question is about all of this")]
pub(crate) async fn authorize(
    proxy: &Proxy,
    snapshot: &Snapshot,
    connection: &Connection,
    parts: &request::Parts,
    host: &Host,
    body: &Incoming,
    found: &Found,
    record: &mut Record,
) -> Result<Grant, ProxyError> {
    let asked = snapshot.authorizer.as_ref().filter(|_| found.route.authz == AuthzMode::On);
    let Some(authorizer) = asked else {
        record.authz.decision = Some("skipped");
        return Ok(Grant::default());
    };
    let question = Question {
        request_id: record.id.as_str(),
        ends: Ends::of_request(connection, record.client),
        scheme: connection.scheme(),
        host: host.authority().as_str(),
        size: body.size_hint().exact(),
        service: found.route.service_name.as_deref(),
        route: &found.route.name,
        guard: found.route.authz_guard,
        client_certificate: record.client_certificate.as_deref(),
        unix_nanos: proxy.reporter.service.clock().unix_nanos(),
    };
    let span = record.trace.child("authz.check");
    let began = Instant::now();
    let outcome = authorizer.ask(&question, parts, &span).await;
    record.authz.took = Some(began.elapsed());
    let on_error = authorizer.on_error(found.route.authz_on_error);
    let settled = settle(authorizer, outcome, on_error, &proxy.reporter.metrics, &mut record.authz);
    let problem = record.authz.reason.filter(|_| record.authz.decision == Some("error"));
    record.trace.end_child(&span, problem.map(Reason::as_str));
    settled
}

/// Whether a connection may be, where nothing is known of requests in it.
pub(crate) async fn authorize_connection(
    proxy: &Proxy,
    snapshot: &Snapshot,
    connection: &Connection,
    tcp: &TcpConfig,
    record: &mut Authz,
) -> Result<(), ProxyError> {
    let asked = snapshot.authorizer.as_ref().filter(|_| tcp.authz.mode == AuthzMode::On);
    let Some(authorizer) = asked else {
        record.decision = Some("skipped");
        return Ok(());
    };
    let service = tcp.service.as_ref().map(ToString::to_string);
    let (ends, listener) = (Ends::of(connection), &connection.listener.config().name);
    let began = Instant::now();
    let outcome = authorizer.ask_about_connection(&ends, listener, service.as_deref()).await;
    record.took = Some(began.elapsed());
    let on_error = authorizer.on_error(tcp.authz.on_error);
    settle(authorizer, outcome, on_error, &proxy.reporter.metrics, record).map(drop)
}

/// What an answer means, and what is recorded of it.
fn settle(
    authorizer: &Authorizer,
    outcome: Authorized,
    on_error: OnError,
    metrics: &Metrics,
    record: &mut Authz,
) -> Result<Grant, ProxyError> {
    match outcome {
        Authorized::Allow(verdict, grant) => {
            record.decision = Some("allow");
            record.reason = Some(verdict.reason.unwrap_or(Reason::Ok));
            record.verdict = verdict;
            metrics.authz("allow", Reason::Ok, "none");
            Ok(grant)
        }
        Authorized::Deny(verdict, denial) => {
            record.decision = Some("deny");
            record.reason = Some(denial.reason);
            record.verdict = verdict;
            metrics.authz("deny", denial.reason, "none");
            Err(ProxyError::Denied(denial))
        }
        problem => {
            let error = authorizer.error(problem);
            record.decision = Some("error");
            record.reason = Some(error.reason());
            record.failure_mode = Some(on_error);
            metrics.authz("error", error.reason(), on_error.as_str());
            // `allow` is for a service that does not answer. One that answers with an error has not allowed anything.
            match on_error {
                OnError::Allow if error.reason() == Reason::AuthzUnavailable => Ok(Grant::default()),
                OnError::Allow | OnError::Deny => Err(error),
            }
        }
    }
}

pub(crate) async fn count(
    proxy: &Proxy,
    snapshot: &Snapshot,
    connection: &Connection,
    parts: &request::Parts,
    host: &Host,
    found: &Found,
    record: &mut Record,
) -> Result<(), ProxyError> {
    let known = facts(connection, parts, host, found, record);
    if let Some(limits) = snapshot.local_limits.get(&*found.route.name) {
        take_all(limits.limits(), When::AfterAuthorization, &known)?;
    }
    let filled = |all: &[Descriptor]| -> Vec<_> {
        all.iter().filter_map(|descriptor| descriptor.fill(&known)).collect()
    };
    let (shares, descriptors) = (filled(&found.route.quota), filled(&found.route.descriptors));
    if shares.is_empty() && descriptors.is_empty() {
        if !(found.route.quota.is_empty() && found.route.descriptors.is_empty()) {
            record.rate_limit.decision = Some("skipped");
        }
        return Ok(());
    }
    let held = match snapshot.quota.as_ref().filter(|_| !shares.is_empty()) {
        Some(quota) => Some((quota, by_share(quota, shares, record)?)),
        None => None,
    };
    if descriptors.is_empty() {
        return Ok(());
    }
    let asked = ask(proxy, snapshot, descriptors, found, record).await;
    if let (Err(_), Some((quota, held))) = (&asked, held) {
        // What one limit refuses, another has not admitted.
        quota.give_back(&held);
    }
    asked
}

/// Limits of this proxy that need nobody's answer: the listener's, and of the route's those that need no token.
pub(crate) fn count_before(
    snapshot: &Snapshot,
    connection: &Connection,
    parts: &request::Parts,
    host: &Host,
    found: &Found,
    record: &Record,
) -> Result<(), ProxyError> {
    let of_route = snapshot.local_limits.get(&*found.route.name);
    let of_listener = &connection.listener.local_limits;
    if of_route.is_none() && of_listener.is_empty() {
        return Ok(());
    }
    let known = facts(connection, parts, host, found, record);
    take_all(of_listener, When::BeforeAuthorization, &known)?;
    of_route.map_or(Ok(()), |limits| take_all(limits.limits(), When::BeforeAuthorization, &known))
}

/// Decides by the shares of divided limits, without asking anybody.
fn by_share(
    quota: &Quota,
    shares: Vec<Vec<(String, String)>>,
    record: &mut Record,
) -> Result<Held, ProxyError> {
    record.rate_limit.domain = Some(quota.config().domain.clone());
    match quota.take(shares) {
        Decided::Within(held) => {
            record.rate_limit.decision = Some("allow");
            Ok(held)
        }
        Decided::Over(descriptor, limited) => {
            record.rate_limit.decision = Some("deny");
            record.rate_limit.answer.descriptor = Some(descriptor);
            Err(ProxyError::LimitExceeded(limited))
        }
    }
}

async fn ask(
    proxy: &Proxy,
    snapshot: &Snapshot,
    descriptors: Vec<Vec<(String, String)>>,
    found: &Found,
    record: &mut Record,
) -> Result<(), ProxyError> {
    let Some(limiter) = &snapshot.limiter else { return Ok(()) };
    let domain = &limiter.config().domain;
    record.rate_limit.domain = Some(domain.clone());
    let span = record.trace.child("ratelimit.should_limit");
    let began = Instant::now();
    let outcome = limiter.ask(descriptors, &span).await;
    record.rate_limit.took = Some(began.elapsed());
    let metrics = &proxy.reporter.metrics;
    let (decision, failed) = match outcome {
        Counted::Within(answer) => {
            record.rate_limit.answer = answer;
            metrics.rate_limit(domain, "allow", "none");
            ("allow", None)
        }
        Counted::Over(answer, limited) => {
            record.rate_limit.answer = answer;
            metrics.rate_limit(domain, "deny", "none");
            ("deny", Some(ProxyError::LimitExceeded(limited)))
        }
        Counted::Unavailable => {
            let on_error = limiter.on_error(found.route.rate_limit_on_error);
            record.rate_limit.failure_mode = Some(on_error);
            metrics.rate_limit(domain, "error", on_error.as_str());
            ("error", (on_error == OnError::Deny).then_some(ProxyError::RateLimitUnavailable))
        }
    };
    record.rate_limit.decision = Some(decision);
    let reason = (decision == "error").then_some(Reason::RatelimitUnavailable.as_str());
    record.trace.end_child(&span, reason);
    failed.map_or(Ok(()), Err)
}

/// What is known about a request once it may pass.
pub(crate) fn facts<'r>(
    connection: &'r Connection,
    parts: &'r request::Parts,
    host: &'r Host,
    found: &'r Found,
    record: &'r Record,
) -> Facts<'r> {
    let verdict = &record.authz.verdict;
    Facts {
        subject: verdict.subject.as_deref(),
        issuer: verdict.issuer.as_deref(),
        client_id: verdict.client_id.as_deref(),
        scopes: &verdict.scopes,
        groups: &verdict.groups,
        claims: &verdict.claims,
        peer: connection.peer_names(),
        listener: &connection.listener.config().name,
        path: &found.path,
        method: &parts.method,
        route: &found.route.name,
        host: host.name(),
        client: record.client,
        headers: &parts.headers,
        query: parts.uri.query(),
    }
}
