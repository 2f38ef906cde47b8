//! The two questions that a request asks of others: may it pass, and is there room for it? What they answer goes
//! into the record.

use std::time::Instant;

use http::request;
use hyper::body::{Body as _, Incoming};
use tollgate_proto::Reason;

use super::authorize::{Grant, Outcome as Authorized, Question};
use super::rate_limit::Outcome as Counted;
use crate::config::{AuthzMode, OnError, Role};
use crate::error::ProxyError;
use crate::head::Host;
use crate::listener::Connection;
use crate::pipeline::Proxy;
use crate::record::Record;
use crate::route::Found;
use crate::route::descriptor::Facts;
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
        source: connection.peer,
        destination: connection.local,
        scheme: connection.scheme(),
        secured: connection.secured.as_deref(),
        is_destination: connection.listener.role == Role::Sidecar,
        host: host.authority().as_str(),
        size: body.size_hint().exact(),
        service: found.route.service_name.as_deref(),
        route: &found.route.name,
        point: connection.listener.point(),
        unix_nanos: proxy.reporter.service.clock().unix_nanos(),
    };
    let span = record.trace.child("authz.check");
    let began = Instant::now();
    let outcome = authorizer.ask(&question, parts, &span).await;
    record.authz.took = Some(began.elapsed());
    let on_error = authorizer.on_error(found.route.authz_on_error);
    let metrics = &proxy.reporter.metrics;
    match outcome {
        Authorized::Allow(verdict, grant) => {
            record.trace.end_child(&span, None);
            record.authz.decision = Some("allow");
            record.authz.reason = Some(verdict.reason.unwrap_or(Reason::Ok));
            record.authz.verdict = verdict;
            metrics.authz("allow", Reason::Ok, "none");
            Ok(grant)
        }
        Authorized::Deny(verdict, denial) => {
            record.trace.end_child(&span, None);
            record.authz.decision = Some("deny");
            record.authz.reason = Some(denial.reason);
            record.authz.verdict = verdict;
            metrics.authz("deny", denial.reason, "none");
            Err(ProxyError::Denied(denial))
        }
        problem => {
            let error = authorizer.error(problem);
            record.trace.end_child(&span, Some(error.reason().as_str()));
            record.authz.decision = Some("error");
            record.authz.reason = Some(error.reason());
            record.authz.failure_mode = Some(on_error);
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
    let Some(limiter) = snapshot.limiter.as_ref().filter(|_| !found.route.descriptors.is_empty()) else {
        return Ok(());
    };
    let facts = facts(connection, parts, host, found, record);
    let descriptors: Vec<_> =
        found.route.descriptors.iter().filter_map(|descriptor| descriptor.fill(&facts)).collect();
    if descriptors.is_empty() {
        record.rate_limit.decision = Some("skipped");
        return Ok(());
    }
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
        peer: connection.peer_name(),
        method: &parts.method,
        route: &found.route.name,
        host: host.name(),
        client: record.client,
        headers: &parts.headers,
        query: parts.uri.query(),
    }
}
