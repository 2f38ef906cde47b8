//! The life of a request, in one function: [`pass`].
//!
//! Every stage either lets the request go on or ends it with a [`ProxyError`]; [`serve`] turns what comes out into
//! an answer and its record. What the upstream gets is what authorization was shown, changed only by what its
//! answer says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version, request};
use hyper::body::{Body as _, Incoming};
use opentelemetry::trace::TraceContextExt as _;
use tollgate_proto::{Reason, attributes};
use tollgate_runtime::trace_context;

use crate::body::{Content, RequestBody, ResponseBody, Upload};
use crate::config::{AuthzMode, OnError, Protocol, Role};
use crate::error::ProxyError;
use crate::head::{self, Host};
use crate::listener::Connection;
use crate::probe::Probes;
use crate::record::{Record, Recording, Reporter};
use crate::route::descriptor::Facts;
use crate::route::{Action, Direct, Found};
use crate::snapshot::Snapshot;
use crate::stages::authorize::{Grant, Outcome as Authorized, Question};
use crate::stages::headers;
use crate::stages::rate_limit::Outcome as Counted;
use crate::upstream::Lease;

/// What every request of this proxy shares.
#[derive(Debug)]
pub struct Proxy {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) probes: Probes,
}

/// Answers one request, and sees to it that it is recorded.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let snapshot = proxy.snapshot.load_full();
    let mut recording = Recording::begin(&proxy.reporter, &connection, &parts, snapshot.trust_traceparent);
    let passed = match recording.record() {
        Some(record) => pass(&proxy, &snapshot, &connection, parts, body, record).await,
        None => Err(ProxyError::Internal("the record is open until the answer")),
    };
    match passed {
        Ok(response) => recording.answer(response),
        Err(error) => recording.refuse(error),
    }
}

async fn pass(
    proxy: &Proxy,
    snapshot: &Snapshot,
    connection: &Connection,
    mut parts: request::Parts,
    body: Incoming,
    record: &mut Record,
) -> Result<Response<Content>, ProxyError> {
    let listener = &*connection.listener;

    // Read the head: one host, one path, in normal form.
    if headers::asks_for_upgrade(&parts.headers) {
        return Err(ProxyError::UpgradeUnsupported);
    }
    let host = head::read(&mut parts, listener.level)?;
    record.client = head::client_address(connection.peer, listener.role, &parts.headers);
    record.uri = parts.uri.clone();
    record.host = Some(host.authority().clone());

    // Strip what clients may not say, and say it ourselves.
    headers::strip_request(&mut parts.headers, listener.role);
    if listener.role == Role::Ingress {
        headers::say_forwarded(&mut parts.headers, record.client, SCHEME, host.authority());
    }
    parts.headers.insert(headers::REQUEST_ID, record.id.value());

    // Route.
    let found = snapshot.routes.find(host.name(), parts.uri.path(), &parts.method, &parts.headers);
    record.routed_at = Some(Instant::now());
    let found = found.ok_or(ProxyError::NoRoute)?.clone();
    record.found = Some(found.clone());

    // Limit by address: a flood of bad tokens must cost little.
    if let Some(limit) = &listener.address_limit {
        limit.take(record.client).map_err(|retry_after| ProxyError::AddressLimit { retry_after })?;
    }

    // Authorize.
    let mut grant = authorize(proxy, snapshot, connection, &parts, &host, &body, &found, record).await?;

    // Respond directly, where the route says so.
    let backends = match &found.route.action {
        Action::Respond(direct) => return respond(proxy, direct, record, listener.role),
        Action::Forward(backends) => backends,
    };

    // Limit globally.
    count(proxy, snapshot, &parts, &host, &found, record).await?;

    // Pick a cluster, and an endpoint in it.
    let draw = if backends.is_single() { 0 } else { rand::random() };
    let name = backends.pick(draw).ok_or(ProxyError::Internal("a route has backends"))?;
    let cluster = snapshot.clusters.get(name).ok_or(ProxyError::Internal("a backend is a cluster"))?;
    record.upstream.cluster = Some(Arc::clone(&cluster.name));
    record.upstream.version.clone_from(&cluster.version);
    let picked = cluster.pick().ok_or_else(|| ProxyError::NoHealthyUpstream(name.to_owned()))?;
    record.upstream.address = Some(picked.address());

    // Forward.
    grant.apply(&mut parts.headers);
    for (name, value) in std::mem::take(&mut record.rate_limit.answer.request) {
        if let Some(name) = name {
            parts.headers.insert(name, value);
        }
    }
    address(&mut parts, &host, cluster.protocol())?;
    let span = record.trace.child("upstream");
    trace_context::inject(&span, &mut parts.headers);
    if record.trace.is_recorded() {
        describe_upstream(&span, record);
        record.upstream.span = Some(span);
    }
    let limit = found.route.body_bytes.or(listener.limits.body_bytes);
    if limit.is_some_and(|limit| body.size_hint().lower() > limit) {
        return Err(ProxyError::BodyTooLarge);
    }
    let (body, upload) = RequestBody::new(body, limit);
    record.upload.clone_from(&upload);
    let began = Instant::now();
    record.upstream.began = Some(began);
    let sent = picked.send(Request::from_parts(parts, body));
    let answered = in_time(found.route.timeout, upload.as_deref(), sent).await;
    let status = answered.as_ref().ok().map(|(response, _)| response.status());
    proxy.reporter.metrics.upstream(began.elapsed(), &cluster.name, status);
    let (response, lease) = answered?;

    // Response headers; the body streams from here on.
    Ok(answer(response, lease, grant, record, listener.role))
}

/// Until listeners have TLS.
const SCHEME: &str = "http";

#[expect(clippy::too_many_arguments, reason = "a question is about all of this")]
async fn authorize(
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
        scheme: SCHEME,
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

async fn count(
    proxy: &Proxy,
    snapshot: &Snapshot,
    parts: &request::Parts,
    host: &Host,
    found: &Found,
    record: &mut Record,
) -> Result<(), ProxyError> {
    let Some(limiter) = snapshot.limiter.as_ref().filter(|_| !found.route.descriptors.is_empty()) else {
        return Ok(());
    };
    let verdict = &record.authz.verdict;
    let facts = Facts {
        subject: verdict.subject.as_deref(),
        issuer: verdict.issuer.as_deref(),
        client_id: verdict.client_id.as_deref(),
        method: &parts.method,
        route: &found.route.name,
        host: host.name(),
        client: record.client,
        headers: &parts.headers,
    };
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

fn respond(
    proxy: &Proxy,
    direct: &Direct,
    record: &Record,
    role: Role,
) -> Result<Response<Content>, ProxyError> {
    if let Some(waiting) = proxy.probes.first_not_ready(&direct.when_ready) {
        return Err(ProxyError::NotReady(waiting.to_owned()));
    }
    let mut response = Response::new(Content::Own(direct.body.clone()));
    *response.status_mut() = direct.status;
    if role == Role::Ingress {
        response.headers_mut().insert(headers::REQUEST_ID, record.id.value());
    }
    Ok(response)
}

/// Puts the host where the upstream's protocol wants it.
fn address(parts: &mut request::Parts, host: &Host, protocol: Protocol) -> Result<(), ProxyError> {
    match protocol {
        Protocol::H1 => {
            parts.version = Version::HTTP_11;
            let value = HeaderValue::try_from(host.authority().as_str());
            let value = value.map_err(|_| ProxyError::Malformed("Host is not a host"))?;
            parts.headers.insert(HOST, value);
        }
        Protocol::H2 => {
            parts.version = Version::HTTP_2;
            parts.headers.remove(HOST);
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            let uri = Uri::builder()
                .scheme(SCHEME)
                .authority(host.authority().clone())
                .path_and_query(target)
                .build();
            parts.uri = uri.map_err(|_| ProxyError::Malformed("path is not a URI"))?;
        }
    }
    Ok(())
}

/// Waits for the head of the answer. As long as the request's body moves its upstream cannot be late; when the
/// body stands still it is the client who is.
async fn in_time<T>(
    limit: Duration,
    upload: Option<&Upload>,
    sent: impl Future<Output = Result<T, ProxyError>>,
) -> Result<T, ProxyError> {
    let mut sent = std::pin::pin!(sent);
    let mut seen = 0;
    let answered = loop {
        match tokio::time::timeout(limit, sent.as_mut()).await {
            Ok(answered) => break answered,
            Err(_elapsed) => match upload {
                Some(upload) if !upload.ended() => {
                    let moved = upload.bytes() > seen;
                    seen = upload.bytes();
                    if !moved {
                        return Err(ProxyError::BodyTimeout(limit));
                    }
                }
                _ => return Err(ProxyError::UpstreamTimeout(limit)),
            },
        }
    };
    answered.map_err(|error| match upload {
        Some(upload) if upload.too_large() => ProxyError::BodyTooLarge,
        Some(upload) if upload.broken() => ProxyError::ClientGone,
        _ => error,
    })
}

fn answer(
    response: Response<Incoming>,
    lease: Lease,
    grant: Grant,
    record: &mut Record,
    role: Role,
) -> Response<Content> {
    let (mut parts, body) = response.into_parts();
    headers::strip_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
    for (name, value) in grant.response {
        parts.headers.append(name, value);
    }
    for (name, value) in std::mem::take(&mut record.rate_limit.answer.response) {
        if let Some(name) = name {
            parts.headers.insert(name, value);
        }
    }
    if role == Role::Ingress {
        parts.headers.insert(headers::REQUEST_ID, record.id.value());
    }
    Response::from_parts(parts, Content::Upstream(body, lease))
}

fn describe_upstream(span: &opentelemetry::Context, record: &Record) {
    let span = span.span();
    if let Some(cluster) = &record.upstream.cluster {
        let cluster = Arc::clone(cluster);
        span.set_attribute(opentelemetry::KeyValue::new(attributes::TOLLGATE_UPSTREAM_CLUSTER, cluster));
    }
    if let Some(address) = record.upstream.address {
        let ip = address.ip().to_string();
        span.set_attribute(opentelemetry::KeyValue::new(attributes::NETWORK_PEER_ADDRESS, ip));
        let port = i64::from(address.port());
        span.set_attribute(opentelemetry::KeyValue::new(attributes::NETWORK_PEER_PORT, port));
    }
}

#[cfg(test)]
mod tests {
    /// Every HTTP/1.1 connection keeps the room of one request, idle ones too.
    #[test]
    fn a_request_in_the_making_is_small() {
        fn size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let bytes = size(super::serve);
        assert!(bytes <= 5_000, "{bytes} bytes");
    }
}
