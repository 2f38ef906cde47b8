//! The life of a request, in one function: [`pass`].
//!
//! Every stage either lets the request go on or ends it with a [`ProxyError`]; [`serve`] turns what comes out into
//! an answer and its record. What the upstream gets is what authorization was shown, changed only by what its
//! answer says.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, request};
use hyper::body::{Body as _, Incoming};
use opentelemetry::trace::TraceContextExt as _;
use tollgate_identity::Identity;
use tollgate_proto::attributes;
use tollgate_rollout::Share;
use tollgate_runtime::trace_context;

use crate::body::{Content, Patience, RequestBody, ResponseBody};
use crate::config::{Credentials, Protocol, Role};
use crate::error::ProxyError;
use crate::head::{self, Host};
use crate::listener::switch::{self, Switching, Wish};
use crate::listener::{Connection, HandshakeTurns, would_go_round};
use crate::overload::Overload;
use crate::probe::Probes;
use crate::proxy_protocol::Ends;
use crate::record::{Record, Recording, Reporter};
use crate::route::{Action, Ask, Chosen, Direct, Found, Redirect};
use crate::snapshot::Snapshot;
use crate::stages::authorize::Grant;
use crate::stages::fault::Fault;
use crate::stages::grpc_web::Web;
use crate::stages::judge::{authorize, count, count_before, facts};
use crate::stages::registry::Strangers;
use crate::stages::{cors, headers};
use crate::status::Loaded;
use crate::upstream::{Cluster, Lease, Pace, forward, forward_until, mirror};

/// What every request of this proxy shares.
#[derive(Debug)]
pub struct Proxy {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) identity: Option<Identity>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) probes: Probes,
    pub(crate) loaded: Loaded,
    pub(crate) strangers: Strangers,
    pub(crate) overload: Overload,
    pub(crate) handshake_turns: HandshakeTurns,
}

/// Answers one request, and sees to it that it is recorded.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let may_switch = version < Version::HTTP_2 && headers::names_a_protocol(&parts.headers);
    let snapshot = proxy.snapshot.load_full();
    let mut recording = Recording::begin(&proxy.reporter, &connection, &parts, snapshot.trust_traceparent);
    connection.count();
    let passed = match recording.record() {
        Some(record) => pass(&proxy, &snapshot, &connection, parts, body, record).await,
        None => Err(ProxyError::Internal("the record is open until the answer")),
    };
    let mut response = match passed {
        Ok(Passed::Answered(response)) => recording.answer(response),
        Ok(Passed::Switched(switching, response)) => {
            return switching.answer(response, recording, &connection);
        }
        Err(error) => recording.refuse(error),
    };
    if may_switch || connection.is_ending() && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What a request came to.
enum Passed {
    Answered(Response<Content>),
    /// The upstream has switched to another protocol, and this answer says so.
    Switched(Box<Switching>, Response<Content>),
}

impl From<Response<Content>> for Passed {
    fn from(response: Response<Content>) -> Self {
        Self::Answered(response)
    }
}

async fn pass(
    proxy: &Proxy,
    snapshot: &Snapshot,
    connection: &Connection,
    mut parts: request::Parts,
    body: Incoming,
    record: &mut Record,
) -> Result<Passed, ProxyError> {
    let listener = &*connection.listener;

    // Refuse at once what there is no time for.
    if snapshot.ready_paths.iter().any(|path| path == parts.uri.path()) {
        proxy.overload.lets_in();
    } else {
        proxy.overload.admit(&snapshot.overload).await?;
    }

    // Read the head: one host, one path, in normal form.
    if parts.headers.len() > listener.limits.headers {
        // hyper counts them in HTTP/1.1 alone.
        return Err(ProxyError::TooManyHeaders);
    }
    let wish = Wish::of(&parts, &body);
    let host = head::read(&mut parts, listener.level)?;
    let trusted = listener.config().trusted.as_ref().unwrap_or(&snapshot.trusted);
    let client = head::client(connection.peer, listener.role, &parts.headers, trusted);
    let scheme = client.scheme.unwrap_or(connection.scheme());
    record.client = client.address;
    record.uri = parts.uri.clone();
    record.host = Some(host.authority().clone());

    // Strip what clients may not say, and say it ourselves.
    if listener.role == Role::Sidecar && connection.peer_id().is_some() {
        record.client_certificate = headers::client_certificate(&parts.headers);
    }
    headers::strip_request(&mut parts.headers, listener.role);
    if listener.role == Role::Ingress {
        headers::say_forwarded(&mut parts.headers, record.client, scheme, host.authority());
    }
    if let Some(certificate) = connection.certificate().and_then(|one| one.forwarded.clone()) {
        parts.headers.insert(headers::CLIENT_CERT, certificate);
    }
    parts.headers.insert(headers::REQUEST_ID, record.id.value());

    // Route. A preflight goes where the request that it announces would go.
    let found = find(snapshot, connection, &parts, &host);
    record.routed_at = Some(Instant::now());
    let found = match found {
        Some(found) => found.clone(),
        None => return Err(nowhere(proxy, snapshot, connection, &host)),
    };
    record.found = Some(found.clone());
    record.origin = found.route.cors.as_ref().and_then(|cors| cors.admitted(&parts.headers));

    // gRPC of browsers becomes gRPC, which is what authorization is shown.
    let web = Web::of(&parts.headers).filter(|_| found.route.grpc_web);
    if let Some(web) = &web {
        web.translate_request(&mut parts.headers);
    }
    let decoder = web.as_ref().and_then(Web::decoder);
    record.is_a_call(&parts.headers, web);

    // Limit by address: a flood of bad tokens must cost little.
    if let Some(limit) = &listener.address_limit {
        limit.take(record.client).map_err(|retry_after| ProxyError::AddressLimit { retry_after })?;
    }

    // Go over to another protocol only where the route lets it.
    if let Some(wish) = &wish {
        wish.admit(&found.route, &host, record.origin.is_some())?;
    }

    // Answer a CORS preflight, where configured: it carries no token, and asks for nothing but leave to ask. The request that
    // it announces is counted, not both.
    if let Some(cors) = found.route.cors.as_ref().filter(|_| cors::announced(&parts).is_some()) {
        return Ok(preflight(cors, &parts, record).into());
    }

    // Limit locally, by what is known without a verified token.
    count_before(snapshot, connection, &parts, &host, &found, record)?;

    // Authorize.
    let mut grant = authorize(proxy, snapshot, connection, &parts, &host, &body, &found, record).await?;

    // Respond directly, where the route says so.
    let backends = match &found.route.action {
        Action::Respond(direct) => return respond(proxy, direct, record).map(Passed::from),
        Action::Redirect(redirect) => {
            return Ok(send_elsewhere(redirect, scheme, &parts, &host, &found).into());
        }
        Action::Forward(backends) => backends,
    };

    // Limit by what is known now: locally, by shares of divided limits, and globally.
    count(proxy, snapshot, connection, &parts, &host, &found, record).await?;

    // Fail on purpose, where configured.
    if let Some(fault) = &found.route.fault {
        Box::pin(suffer(fault, record)).await?;
    }

    // Pick a cluster, by overrides and weights.
    let known = facts(connection, &parts, &host, &found, record);
    let rollout = backends.has_canary().then(|| snapshot.rollouts.get(&found.route.name)).flatten();
    let share = rollout.map_or(Share::NONE, |rollout| rollout.share());
    let chosen = backends.choose(&known, share, rand::random);
    let Chosen { cluster: name, arm } = chosen.ok_or(ProxyError::Internal("a route has backends"))?;
    let mirror = found.route.mirror.as_ref().filter(|mirror| mirror.wants(&known));
    let cluster = snapshot.clusters.get(name).ok_or(ProxyError::Internal("a backend is a cluster"))?;
    let key = cluster.key(&known, connection.local.port());
    record.upstream.cluster = Some(Arc::clone(&cluster.name));
    record.upstream.version.clone_from(&cluster.version);
    record.upstream.rollout = arm.zip(rollout).map(|(arm, rollout)| rollout.begin(arm));

    // Forward: breaker, endpoint, timeouts, further tries.
    grant.apply(&mut parts.headers);
    grant.apply_to_target(&mut parts.uri);
    for (name, value) in std::mem::take(&mut record.rate_limit.answer.request) {
        if let Some(name) = name {
            parts.headers.insert(name, value);
        }
    }
    let inside = if listener.role == Role::Egress { Credentials::Redact } else { Credentials::Keep };
    if found.route.credentials.unwrap_or(inside) == Credentials::Redact {
        headers::keep_inside(&mut parts.headers);
    }
    found.route.request_headers.apply(&mut parts.headers);
    headers::strip_lookalikes(&mut parts.headers);
    if let Some(rewritten) = found.route.rewrite.as_ref().and_then(|to| to.path(&parts.uri, &found.path)) {
        parts.uri = rewritten;
    }
    let authority = found.route.rewrite.as_ref().and_then(|to| to.host()).unwrap_or(host.authority());
    let going = wish.map(|wish| wish.enter(listener)).transpose()?;
    let copy = mirror
        .filter(|_| going.is_none())
        .and_then(|mirror| mirror::copy(mirror, &proxy.reporter, snapshot, &parts, authority));
    address(&mut parts, authority, cluster.protocol(), cluster.scheme())?;
    if would_go_round(connection, cluster) {
        return Err(ProxyError::Loop(connection.local));
    }
    if cluster.announces() {
        let source = connection.source(record.client);
        parts.extensions.insert(Ends { source, destination: connection.local });
    }
    if let Some(going) = &going {
        going.ask(&mut parts.headers);
    }
    let span = record.trace.child("upstream");
    trace_context::inject(&span, &mut parts.headers);
    let limit = found.route.body_bytes.or(listener.limits.body_bytes);
    if limit.is_some_and(|limit| body.size_hint().lower() > limit) {
        return Err(ProxyError::BodyTooLarge);
    }
    let (copy, tee) = copy.map_or((None, None), |copy| copy.follow(&body));
    let (body, upload) = RequestBody::new(body, limit, tee, decoder);
    record.upload.clone_from(&upload);
    let began = Instant::now();
    record.upstream.began = Some(began);
    let mut request = Some(Request::from_parts(parts, body));
    let deadline = record.deadline;
    let pace = Pace {
        timeout: listener.limits.body_timeout,
        // Who calls by gRPC may have little to say, and take long over it.
        min_bytes_per_second: if record.is_grpc() { 0 } else { listener.limits.min_bytes_per_second },
    };
    let upload = upload.as_deref().map(|upload| (upload, pace));
    let answered = match deadline {
        None => forward(cluster, &found.route, key, &mut request, upload, &mut record.upstream).await,
        // It is not the upstream's fault if the caller does not wait.
        Some(at) => {
            forward_until(at, cluster, &found.route, key, &mut request, upload, &mut record.upstream).await
        }
    };
    if record.trace.is_recorded() {
        describe_upstream(&span, record);
        record.upstream.span = Some(span);
    }
    let status = answered.as_ref().ok().map(|(response, _)| response.status());
    let took = began.elapsed();
    proxy.reporter.metrics.upstream(took, &cluster.name, status);
    if let Some(copy) = copy {
        copy.compare_with(status, took);
    }
    let (mut response, lease) = answered?;
    let switching = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            Some(Box::new(switch::switched(&mut response, going, &found.route, connection)?))
        }
        _ => None,
    };

    // Response headers; the body streams from here on.
    let answer = answer(response, lease, grant, record, &found, cluster);
    Ok(match switching {
        Some(switching) => Passed::Switched(switching, answer),
        None => Passed::Answered(answer),
    })
}

fn find<'s>(
    snapshot: &'s Snapshot,
    connection: &Connection,
    parts: &request::Parts,
    host: &Host,
) -> Option<&'s Found> {
    let as_method = |method| {
        snapshot.routes.find(&Ask {
            listener: &connection.listener.config().name,
            host: host.name(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            method,
            headers: &parts.headers,
            peer: connection.peer_names(),
        })
    };
    let announced = cors::announced(parts);
    let to_come = announced.as_ref().and_then(as_method).filter(|found| found.route.cors.is_some());
    to_come.or_else(|| as_method(&parts.method))
}

/// No route: on the way out that is a destination which nobody has registered, and it is called by its name.
fn nowhere(proxy: &Proxy, snapshot: &Snapshot, connection: &Connection, host: &Host) -> ProxyError {
    if !connection.listener.role.is_registry_only() || snapshot.routes.names(host.name()) {
        return ProxyError::NoRoute;
    }
    let label = proxy.strangers.note(host.name(), &connection.listener.config().name);
    proxy.reporter.metrics.unregistered(label);
    ProxyError::Unregistered(host.name().to_owned())
}

fn preflight(cors: &cors::Cors, parts: &request::Parts, record: &Record) -> Response<Content> {
    let mut response = Response::new(Content::Own(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    if record.origin.is_some() {
        cors.preflight(&parts.headers, response.headers_mut());
    }
    response
}

async fn suffer(fault: &Fault, record: &mut Record) -> Result<(), ProxyError> {
    if let Some(delay) = fault.delay(rand::random()) {
        record.note_delay();
        tokio::time::sleep(delay).await;
    }
    fault.abort(rand::random()).map_or(Ok(()), |status| Err(ProxyError::Fault(status)))
}

fn send_elsewhere(
    redirect: &Redirect,
    scheme: &'static str,
    parts: &request::Parts,
    host: &Host,
    found: &Found,
) -> Response<Content> {
    let mut response = Response::new(Content::Own(bytes::Bytes::new()));
    *response.status_mut() = redirect.status;
    let location = redirect.location(scheme, host.authority(), &parts.uri, &found.path);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    found.route.response_headers.apply(response.headers_mut());
    response
}

fn respond(proxy: &Proxy, direct: &Direct, record: &Record) -> Result<Response<Content>, ProxyError> {
    if let Some(waiting) = proxy.probes.first_not_ready(&direct.when_ready) {
        return Err(ProxyError::NotReady(waiting.to_owned()));
    }
    let mut response = Response::new(Content::Own(direct.body.clone()));
    *response.status_mut() = direct.status;
    if let Some(found) = &record.found {
        found.route.response_headers.apply(response.headers_mut());
    }
    Ok(response)
}

/// Puts the host where the upstream's protocol wants it.
pub(crate) fn address(
    parts: &mut request::Parts,
    host: &Authority,
    protocol: Protocol,
    scheme: &'static str,
) -> Result<(), ProxyError> {
    match protocol {
        Protocol::H1 => {
            parts.version = Version::HTTP_11;
            let value = HeaderValue::try_from(host.as_str());
            let value = value.map_err(|_| ProxyError::Malformed("Host is not a host"))?;
            parts.headers.insert(HOST, value);
        }
        Protocol::H2 => {
            parts.version = Version::HTTP_2;
            parts.headers.remove(HOST);
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            let uri = Uri::builder().scheme(scheme).authority(host.clone()).path_and_query(target).build();
            parts.uri = uri.map_err(|_| ProxyError::Malformed("path is not a URI"))?;
        }
    }
    Ok(())
}

fn answer(
    response: Response<Incoming>,
    lease: Lease,
    grant: Grant,
    record: &mut Record,
    found: &Found,
    cluster: &Cluster,
) -> Response<Content> {
    let (mut parts, body) = response.into_parts();
    headers::strip_response(&mut parts.headers);
    found.route.response_headers.apply(&mut parts.headers);
    if let Some(going) = &cluster.deprecation {
        going.apply(&mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    for (name, value) in grant.response {
        parts.headers.append(name, value);
    }
    for (name, value) in std::mem::take(&mut record.rate_limit.answer.response) {
        if let Some(name) = name {
            parts.headers.insert(name, value);
        }
    }
    let ends = found.route.stream_timeout.map(|limit| tokio::time::Instant::now() + limit);
    let ends = [ends, record.deadline].into_iter().flatten().min();
    let patience = Patience::new(found.route.idle_timeout, ends);
    Response::from_parts(parts, Content::Upstream(body, lease, patience))
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
