//! The access record: one OTLP log record per request, with every attribute that is known.
//!
//! Tokens, cookies and the values of a query never enter it.

use std::time::{Duration, Instant};

use http::{StatusCode, Version};
use tollgate_identity::SpiffeId;
use tollgate_proto::Reason;
use tollgate_proto::attributes as a;
use tollgate_proto::opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use tollgate_proto::reason::Outcome;
use tollgate_runtime::http_server::method_name;
use tollgate_runtime::telemetry::{Encoded, LogWriter};

use super::{Authz, Record};
use crate::config::{Role, Workload};
use crate::listener::Connection;
use crate::listener::secure::Secured;

/// Bytes of one text in a record. What clients send may be longer; a record must not grow with it.
const MAX_TEXT: usize = 2048;

/// Cuts a text to [`MAX_TEXT`], between characters.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// A record in the making; absent values are left out.
pub(super) struct Attributes(LogWriter);

impl Attributes {
    /// Of what began then and came to this.
    pub(super) fn new(started_unix_nanos: u64, reason: Reason) -> Self {
        let (severity, severity_text) = severity(reason);
        let mut writer = LogWriter::new(started_unix_nanos, severity, severity_text);
        writer.event_name(a::ACCESS_EVENT);
        Self(writer)
    }

    pub(super) fn text(&mut self, key: &str, text: impl AsRef<str>) {
        self.0.text(key, cut(text.as_ref()));
    }

    pub(super) fn maybe(&mut self, key: &str, text: Option<impl AsRef<str>>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    pub(super) fn int(&mut self, key: &str, number: impl TryInto<i64>) {
        self.0.int(key, number.try_into().unwrap_or(i64::MAX));
    }

    fn maybe_int(&mut self, key: &str, number: Option<impl TryInto<i64>>) {
        if let Some(number) = number {
            self.int(key, number);
        }
    }

    pub(super) fn micros(&mut self, key: &str, duration: Option<Duration>) {
        self.maybe_int(key, duration.map(|duration| duration.as_micros()));
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        if !texts.is_empty() {
            self.0.texts(key, texts.iter().map(|text| cut(text)));
        }
    }

    /// It ended after so long, and this line says it to a person.
    pub(super) fn end(mut self, ended_unix_nanos: u64, line: &str) -> Encoded {
        self.0.observed(ended_unix_nanos);
        self.0.body(cut(line));
        self.0.finish()
    }
}

/// The record of a finished request.
pub(super) fn record(record: &Record, took: Duration, sent: u64) -> Encoded {
    let mut list = Attributes::new(record.started_unix_nanos, record.reason);
    add_ends(&mut list, record);
    add_request(&mut list, record);
    add_answer(&mut list, record, sent);
    add_times(&mut list, record, took);
    add_authorization(&mut list, &record.authz, record.started_unix_nanos);
    add_rate_limit(&mut list, record);
    let span = record.trace.span_context();
    if span.is_valid() {
        list.0.span(span.trace_id(), span.span_id(), span.trace_flags().to_u8());
    }
    list.end(record.started_unix_nanos + nanos(took), &line(record, took))
}

/// The record of a connection that ended before a request could be read from it.
pub(super) fn of_connection(
    connection: &Connection,
    now: u64,
    status: StatusCode,
    reason: Reason,
    details: &str,
) -> Encoded {
    let mut list = Attributes::new(now, reason);
    add_reporter(&mut list, connection);
    list.text(a::HTTP_REQUEST_METHOD, "_OTHER");
    list.int(a::HTTP_RESPONSE_STATUS_CODE, status.as_u16());
    list.text(a::TOLLGATE_REASON, reason.as_str());
    list.text(a::ERROR_TYPE, reason.as_str());
    list.text(a::TOLLGATE_RESPONSE_FLAGS, "DPE");
    list.text(a::TOLLGATE_RESPONSE_DETAILS, details);
    list.text(a::CLIENT_ADDRESS, connection.peer.ip().to_string());
    list.int(a::CLIENT_PORT, connection.peer.port());
    if connection.listener.config().transparent {
        list.text(a::SERVER_ADDRESS, connection.local.ip().to_canonical().to_string());
        list.int(a::SERVER_PORT, connection.local.port());
    }
    let line =
        format!("request that could not be read {} {reason} from {}", status.as_u16(), connection.peer.ip());
    list.end(now, &line)
}

pub(super) fn add_reporter(list: &mut Attributes, connection: &Connection) {
    list.text(a::TOLLGATE_REPORTER, connection.listener.reporter());
    list.text(a::TOLLGATE_DIRECTION, connection.listener.direction());
    list.text(a::TOLLGATE_CONNECTION_SECURITY_POLICY, connection.security_policy());
    if connection.listener.config().transparent {
        // Where it was going, or what it was sent to instead.
        list.text(a::NETWORK_LOCAL_ADDRESS, connection.local.ip().to_canonical().to_string());
        list.int(a::NETWORK_LOCAL_PORT, connection.local.port());
    }
    if let Some(secured) = &connection.secured {
        add_tls(list, secured);
    }
}

/// What the handshake told, about the peer most of all.
fn add_tls(list: &mut Attributes, secured: &Secured) {
    list.text(a::TLS_PROTOCOL_VERSION, secured.version);
    list.text(a::TLS_CIPHER, secured.cipher.as_str());
    list.text(a::TLS_CURVE, secured.curve.as_str());
    let Some(peer) = &secured.peer else { return };
    list.maybe(a::TOLLGATE_SOURCE_PRINCIPAL, peer.id.as_ref().map(SpiffeId::as_str));
    list.text(a::TLS_CLIENT_SUBJECT, peer.shown.subject.as_str());
    list.text(a::TLS_CLIENT_ISSUER, peer.shown.issuer.as_str());
    list.text(a::TLS_CLIENT_HASH_SHA256, peer.fingerprint.as_str());
    let end = jiff::Timestamp::from_second(peer.shown.not_after).ok();
    list.maybe(a::TLS_CLIENT_NOT_AFTER, end.map(|end| end.to_string()));
}

fn add_ends(list: &mut Attributes, record: &Record) {
    add_reporter(list, &record.connection);
    list.text(a::TOLLGATE_REQUEST_ID, record.id.as_str());
    let route = record.found.as_ref().map(|found| &found.route);
    add_both_ends(list, &record.connection, route.and_then(|route| route.service.as_ref()));
    list.text(a::CLIENT_ADDRESS, record.client.to_string());
    let port = record.connection.source(record.client).port();
    list.maybe_int(a::CLIENT_PORT, Some(port).filter(|port| *port > 0));
}

/// Who calls whom.
pub(super) fn add_both_ends(list: &mut Attributes, connection: &Connection, service: Option<&Workload>) {
    let own = connection.secured.as_ref().and_then(|secured| secured.own.as_ref());
    if let Some(own) = own.filter(|_| connection.listener.role == Role::Sidecar) {
        list.text(a::TOLLGATE_DESTINATION_PRINCIPAL, own.as_str());
    }
    let shown = connection.peer_id().and_then(SpiffeId::workload);
    match &connection.listener.source {
        _ if shown.is_some() => {
            let (namespace, name) = shown.unwrap_or_default();
            list.text(a::TOLLGATE_SOURCE_WORKLOAD, name);
            list.text(a::TOLLGATE_SOURCE_NAMESPACE, namespace);
        }
        Some(source) => {
            list.text(a::TOLLGATE_SOURCE_WORKLOAD, &source.name);
            list.text(a::TOLLGATE_SOURCE_NAMESPACE, &source.namespace);
        }
        // What enters by an ingress comes from outside the mesh.
        None if connection.listener.role == Role::Ingress => {
            list.text(a::TOLLGATE_SOURCE_WORKLOAD, "external");
        }
        None => {}
    }
    if let Some(service) = service {
        list.text(a::TOLLGATE_DESTINATION_WORKLOAD, &service.name);
        list.text(a::TOLLGATE_DESTINATION_NAMESPACE, &service.namespace);
    }
}

fn add_request(list: &mut Attributes, record: &Record) {
    let method = method_name(&record.method);
    list.text(a::HTTP_REQUEST_METHOD, method);
    if method == "_OTHER" {
        list.text(a::HTTP_REQUEST_METHOD_ORIGINAL, record.method.as_str());
    }
    list.text(a::URL_SCHEME, record.connection.scheme());
    list.text(a::URL_PATH, record.uri.path());
    list.maybe(a::URL_QUERY, record.uri.query().map(masked));
    list.maybe(a::HTTP_ROUTE, record.found.as_ref().map(|found| &*found.path));
    if let Some(host) = &record.host {
        list.text(a::SERVER_ADDRESS, host.host());
        list.maybe_int(a::SERVER_PORT, host.port_u16());
    }
    list.text(a::NETWORK_PROTOCOL_NAME, "http");
    list.text(a::NETWORK_PROTOCOL_VERSION, version(record.version));
    let agent = record.user_agent.as_ref().map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    list.maybe(a::USER_AGENT_ORIGINAL, agent);
    list.int(a::HTTP_REQUEST_SIZE, record.request_size());
    if record.grpc {
        list.text(a::RPC_SYSTEM_NAME, "grpc");
        list.text(a::RPC_METHOD, record.uri.path().trim_start_matches('/'));
    }
}

fn add_answer(list: &mut Attributes, record: &Record, sent: u64) {
    list.int(a::HTTP_RESPONSE_STATUS_CODE, record.status().as_u16());
    list.int(a::HTTP_RESPONSE_SIZE, sent);
    list.text(a::TOLLGATE_REASON, record.reason.as_str());
    if record.reason != Reason::Ok {
        list.text(a::ERROR_TYPE, record.reason.as_str());
    }
    list.maybe_int(a::RPC_STATUS_CODE, record.grpc_status);
    if !record.flags.is_empty() && record.flags != "-" {
        list.text(a::TOLLGATE_RESPONSE_FLAGS, record.flags);
    }
    list.text(a::TOLLGATE_RESPONSE_DETAILS, record.details.as_str());
    if let Some(flow) = &record.flow {
        let (received, sent) = flow.bytes();
        list.int(a::TOLLGATE_CONNECTION_RECEIVED, received);
        list.int(a::TOLLGATE_CONNECTION_SENT, sent);
    }
    list.maybe(a::TOLLGATE_UPSTREAM_CLUSTER, record.upstream.cluster.as_deref());
    list.maybe(a::TOLLGATE_DESTINATION_VERSION, record.upstream.version.as_deref());
    if record.upstream.resends > 0 {
        list.int(a::HTTP_REQUEST_RESEND_COUNT, record.upstream.resends);
    }
    if let Some(address) = record.upstream.address {
        list.text(a::NETWORK_PEER_ADDRESS, address.ip().to_string());
        list.int(a::NETWORK_PEER_PORT, address.port());
    }
}

fn add_times(list: &mut Attributes, record: &Record, took: Duration) {
    let since = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
    list.micros(a::TOLLGATE_DURATION_US, Some(took));
    list.micros(a::TOLLGATE_TTFB_US, since(Some(record.started), record.first_byte_at));
    list.micros(a::TOLLGATE_ACCEPT_US, Some(record.head_took));
    list.micros(a::TOLLGATE_ROUTE_US, since(Some(record.started), record.routed_at));
    list.micros(a::TOLLGATE_AUTHZ_US, record.authz.took);
    list.micros(a::TOLLGATE_RATELIMIT_US, record.rate_limit.took);
    list.micros(a::TOLLGATE_UPSTREAM_US, since(record.upstream.began, record.first_byte_at));
}

pub(super) fn add_authorization(list: &mut Attributes, authz: &Authz, started_unix_nanos: u64) {
    let Some(decision) = authz.decision else { return };
    list.text(a::TOLLGATE_AUTHZ_DECISION, decision);
    list.maybe(a::TOLLGATE_AUTHZ_REASON, authz.reason.map(Reason::as_str));
    if let Some(mode) = authz.failure_mode {
        list.text(a::TOLLGATE_AUTHZ_FAILURE_MODE, mode.as_str());
    }
    let verdict = &authz.verdict;
    list.maybe(a::TOLLGATE_AUTHZ_DECISION_ID, verdict.decision_id.as_deref());
    list.maybe_int(a::TOLLGATE_AUTHZ_EPOCH, verdict.epoch);
    list.texts(a::TOLLGATE_AUTHZ_MISSING, &verdict.missing);
    list.maybe(a::TOLLGATE_AUTHZ_EXPLANATION, verdict.explanation.as_deref());
    list.maybe(a::TOLLGATE_AUTHZ_SHADOW_DECISION, verdict.dry_run.decision.as_deref());
    list.maybe(a::TOLLGATE_AUTHZ_SHADOW_RULE, verdict.dry_run.rule.as_deref());
    list.maybe(a::SECURITY_RULE_NAME, verdict.rule.as_deref());
    list.maybe(a::ENDUSER_ID, verdict.subject.as_deref());
    list.maybe(a::TOLLGATE_TOKEN_STATE, verdict.token.state.as_deref());
    list.maybe(a::TOLLGATE_TOKEN_ISSUER, verdict.issuer.as_deref());
    list.maybe(a::TOLLGATE_TOKEN_CLIENT_ID, verdict.client_id.as_deref());
    list.texts(a::TOLLGATE_TOKEN_AUDIENCE, &verdict.token.audience);
    list.texts(a::TOLLGATE_TOKEN_SCOPES, &verdict.scopes);
    list.texts(a::TOLLGATE_TOKEN_GROUPS, &verdict.groups);
    list.maybe(a::TOLLGATE_TOKEN_JTI, verdict.token.jti.as_deref());
    list.maybe(a::TOLLGATE_TOKEN_KID, verdict.token.kid.as_deref());
    list.maybe(a::TOLLGATE_TOKEN_ALG, verdict.token.alg.as_deref());
    list.maybe_int(a::TOLLGATE_TOKEN_EXPIRES_AT, verdict.token.expires_at);
    let seconds = i64::try_from(started_unix_nanos / 1_000_000_000).unwrap_or(i64::MAX);
    let age = verdict.token.issued_at.map(|issued| seconds.saturating_sub(issued).max(0));
    list.maybe_int(a::TOLLGATE_TOKEN_AGE_S, age);
}

fn add_rate_limit(list: &mut Attributes, record: &Record) {
    let limit = &record.rate_limit;
    let Some(decision) = limit.decision else { return };
    list.text(a::TOLLGATE_RATELIMIT_DECISION, decision);
    list.maybe(a::TOLLGATE_RATELIMIT_DOMAIN, limit.domain.as_deref());
    list.maybe(a::TOLLGATE_RATELIMIT_RULE, limit.answer.rule.as_deref());
    list.maybe(a::TOLLGATE_RATELIMIT_DESCRIPTOR, limit.answer.descriptor.as_deref());
    list.maybe_int(a::TOLLGATE_RATELIMIT_LIMIT, limit.answer.limit);
    list.maybe_int(a::TOLLGATE_RATELIMIT_REMAINING, limit.answer.remaining);
    list.maybe_int(a::TOLLGATE_RATELIMIT_RESET_S, limit.answer.reset_s);
    if let Some(mode) = limit.failure_mode {
        list.text(a::TOLLGATE_RATELIMIT_FAILURE_MODE, mode.as_str());
    }
}

/// For a person: what was asked, what it got, how long it took, who asked and where it went.
fn line(record: &Record, took: Duration) -> String {
    let mut line = format!(
        "{} {} {} {} {}.{:03}ms",
        record.method,
        record.uri.path(),
        record.status().as_u16(),
        record.reason,
        took.as_millis(),
        took.subsec_micros() % 1_000,
    );
    if let Some(subject) = &record.authz.verdict.subject {
        line.push_str(" by ");
        line.push_str(subject);
    }
    if let Some(cluster) = &record.upstream.cluster {
        line.push_str(" to ");
        line.push_str(cluster);
    }
    line
}

fn severity(reason: Reason) -> (SeverityNumber, &'static str) {
    match reason.outcome() {
        Outcome::Passed => (SeverityNumber::Info, "INFO"),
        Outcome::Denied | Outcome::Limited => (SeverityNumber::Warn, "WARN"),
        Outcome::Failed => (SeverityNumber::Error, "ERROR"),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// A query's names without its values.
fn masked(query: &str) -> String {
    let mut masked = String::with_capacity(query.len().min(MAX_TEXT));
    for (index, pair) in query.split('&').enumerate() {
        // A mask is longer than what it hides: without an end, a small query would make a large record.
        if masked.len() > MAX_TEXT {
            break;
        }
        if index > 0 {
            masked.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) => {
                masked.push_str(name);
                masked.push_str("=REDACTED");
            }
            // A lone word may as well be a secret.
            None if pair.is_empty() => {}
            None => masked.push_str("REDACTED"),
        }
    }
    masked
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_querys_values_are_masked() {
        for (query, expected) in [
            ("", ""),
            ("a=b", "a=REDACTED"),
            ("a=b&c=&d", "a=REDACTED&c=REDACTED&REDACTED"),
            ("access_token=x=y", "access_token=REDACTED"),
        ] {
            assert_eq!(masked(query), expected, "{query}");
        }
    }
}
