//! Every way a request can fail: what the client sees, what is counted, who is to blame.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use thiserror::Error;
use tollgate_paths::PathError;
use tollgate_proto::Reason;

use crate::record::RequestId;
use crate::upstream::Full;

/// A request that is not answered by its upstream.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The request breaks HTTP, or a rule of ours about it.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The path has no normal form.
    #[error("malformed path")]
    Path(#[source] PathError),
    /// There are more headers than may be.
    #[error("more headers than the limit")]
    TooManyHeaders,
    /// The body is longer than may be.
    #[error("request body over the limit")]
    BodyTooLarge,
    /// The body stands still.
    #[error("the request's body did not move for {0:?}")]
    BodyTimeout(Duration),
    /// The body comes too slowly.
    #[error("the request's body came too slowly")]
    BodySlow,
    /// The client asked to switch protocols, and may not.
    #[error("no switch of protocols: {0}")]
    UpgradeRefused(&'static str),
    /// As many connections have switched protocols as may.
    #[error("no room for another connection that switches protocols")]
    UpgradesFull,
    /// The upstream switched to a protocol that nobody asked for.
    #[error("the upstream switched to a protocol that was not asked for")]
    UpstreamSwitched,
    /// No route matches.
    #[error("no route")]
    NoRoute,
    /// Nobody has registered the destination.
    #[error("no route names the destination `{0}`")]
    Unregistered(String),
    /// The workload beside us does not show this port to others.
    #[error("port {0} is not one that others may reach")]
    PortRefused(u16),
    /// The connection is one of our own, come back.
    #[error("the proxy's own connection to {0} was redirected to it")]
    Loop(std::net::SocketAddr),
    /// The route answers only once every part is ready.
    #[error("not ready: waiting for {0}")]
    NotReady(String),
    /// There is more to do than this proxy can.
    #[error("more to do than this proxy can")]
    Overloaded {
        /// What the client is told to wait.
        retry_after: Duration,
    },
    /// Too many requests from this address.
    #[error("too many requests from this address")]
    AddressLimit {
        /// When there is room again.
        retry_after: Duration,
    },
    /// Authorization says no; this is its answer.
    #[error("refused by authorization: {}", .0.reason)]
    Denied(Box<Denial>),
    /// Authorization does not answer.
    #[error("authorization cannot be reached")]
    AuthzUnavailable {
        /// What the client is told to wait.
        retry_after: Duration,
        /// What went wrong, where there was an answer at all.
        #[source]
        source: Option<tonic::Status>,
    },
    /// Authorization answers, and the answer is an error or makes no sense.
    #[error("authorization answered {problem}")]
    AuthzError {
        /// What the client is told to wait.
        retry_after: Duration,
        /// What was wrong with the answer.
        problem: String,
    },
    /// A limit of this proxy is full.
    #[error("over a limit of this proxy")]
    LocalLimit(Box<Limited>),
    /// A global limit is full.
    #[error("over a limit")]
    LimitExceeded(Box<Limited>),
    /// The limiter cannot be asked and the route is closed without it.
    #[error("the rate limiter cannot be reached")]
    RateLimitUnavailable,
    /// The cluster has no endpoint.
    #[error("cluster {0} has no endpoint")]
    NoHealthyUpstream(String),
    /// As much is under way to the cluster as may be.
    #[error("cluster {cluster} has no room for more {full}")]
    BreakerOpen {
        /// The cluster.
        cluster: Arc<str>,
        /// What there is no room for.
        full: Full,
    },
    /// No connection to the upstream.
    #[error("cannot connect to the upstream")]
    UpstreamConnect(#[source] std::io::Error),
    /// The upstream closed before it had answered.
    #[error("the upstream closed the connection")]
    UpstreamReset(#[source] Option<hyper::Error>),
    /// The upstream took too long to begin its answer.
    #[error("the upstream did not answer within {0:?}")]
    UpstreamTimeout(Duration),
    /// The upstream's answer is not HTTP.
    #[error("the upstream's answer is broken")]
    UpstreamProtocol(#[source] hyper::Error),
    /// It fails because its route says so.
    #[error("failed on purpose, as the route says")]
    Fault(StatusCode),
    /// The client's request body broke off.
    #[error("the client went away")]
    ClientGone,
    /// A fault of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// What authorization answered.
#[derive(Debug)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The status for the client.
    pub status: StatusCode,
    /// Headers for the client.
    pub headers: HeaderMap,
    /// The body for the client.
    pub body: Bytes,
}

/// What the limiter answered.
#[derive(Debug, Default)]
pub struct Limited {
    /// `x-ratelimit-*`, `retry-after` and what the limiter added.
    pub headers: HeaderMap,
    /// Its own body, if it sent one.
    pub body: Option<Bytes>,
}

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The one who asked.
    Client,
    /// The one who should have answered.
    Upstream,
    /// This proxy, or a service it needs.
    Us,
}

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may have been acted on, or would fail again.
    Never,
    /// Only when it failed on a kept connection before a byte was answered.
    IfReused,
    /// It never reached the upstream.
    Yes,
}

impl ProxyError {
    /// What the client gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Path(_) => StatusCode::BAD_REQUEST,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout(_) | Self::BodySlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::AddressLimit { .. } | Self::LocalLimit(_) | Self::LimitExceeded(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unregistered(_) | Self::PortRefused(_) | Self::UpgradeRefused(_) => StatusCode::FORBIDDEN,
            Self::Denied(denial) => denial.status,
            Self::Fault(status) => *status,
            Self::NotReady(_)
            | Self::Overloaded { .. }
            | Self::AuthzUnavailable { .. }
            | Self::AuthzError { .. }
            | Self::RateLimitUnavailable
            | Self::BreakerOpen { .. }
            | Self::UpgradesFull
            | Self::NoHealthyUpstream(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamConnect(_)
            | Self::UpstreamReset(_)
            | Self::UpstreamProtocol(_)
            | Self::UpstreamSwitched => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientGone => client_closed_request(),
            Self::Loop(_) => StatusCode::LOOP_DETECTED,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The one word for log, span, metric and body.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(_) | Self::Path(_) => Reason::RequestMalformed,
            Self::UpgradeRefused(_) => Reason::UpgradeRefused,
            Self::BodyTooLarge | Self::TooManyHeaders => Reason::RequestTooLarge,
            Self::BodyTimeout(_) | Self::BodySlow => Reason::RequestTimeout,
            Self::NoRoute => Reason::NoRoute,
            Self::Unregistered(_) => Reason::EgressUnregistered,
            Self::PortRefused(_) => Reason::PortRefused,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::AddressLimit { .. } => Reason::LimitAddress,
            Self::Denied(denial) => denial.reason,
            Self::AuthzUnavailable { .. } => Reason::AuthzUnavailable,
            Self::AuthzError { .. } => Reason::AuthzError,
            Self::LocalLimit(_) | Self::UpgradesFull => Reason::LimitLocal,
            Self::LimitExceeded(_) => Reason::LimitExceeded,
            Self::RateLimitUnavailable => Reason::RatelimitUnavailable,
            Self::NotReady(_) | Self::NoHealthyUpstream(_) => Reason::NoHealthyUpstream,
            Self::BreakerOpen { .. } => Reason::BreakerOpen,
            Self::UpstreamConnect(_) => Reason::UpstreamConnect,
            Self::UpstreamReset(_) => Reason::UpstreamReset,
            Self::UpstreamTimeout(_) => Reason::UpstreamTimeout,
            Self::UpstreamProtocol(_) | Self::UpstreamSwitched => Reason::UpstreamProtocol,
            Self::Fault(_) => Reason::FaultInjected,
            Self::ClientGone => Reason::ClientGone,
            Self::Loop(_) => Reason::LoopDetected,
            Self::Internal(_) => Reason::Internal,
        }
    }

    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Malformed(_)
            | Self::Path(_)
            | Self::BodyTooLarge
            | Self::TooManyHeaders
            | Self::BodyTimeout(_)
            | Self::BodySlow
            | Self::UpgradeRefused(_)
            | Self::NoRoute
            | Self::Unregistered(_)
            | Self::PortRefused(_)
            | Self::AddressLimit { .. }
            | Self::Denied(_)
            | Self::LocalLimit(_)
            | Self::LimitExceeded(_)
            | Self::ClientGone => Fault::Client,
            Self::NoHealthyUpstream(_)
            | Self::BreakerOpen { .. }
            | Self::UpstreamConnect(_)
            | Self::UpstreamReset(_)
            | Self::UpstreamTimeout(_)
            | Self::UpstreamProtocol(_)
            | Self::UpstreamSwitched => Fault::Upstream,
            Self::NotReady(_)
            | Self::Overloaded { .. }
            | Self::AuthzUnavailable { .. }
            | Self::AuthzError { .. }
            | Self::RateLimitUnavailable
            | Self::UpgradesFull
            | Self::Fault(_)
            | Self::Loop(_)
            | Self::Internal(_) => Fault::Us,
        }
    }

    /// Whether the same request may be sent again.
    pub fn may_retry(&self) -> Retry {
        match self {
            Self::UpstreamConnect(_) => Retry::Yes,
            Self::UpstreamReset(_) => Retry::IfReused,
            _ => Retry::Never,
        }
    }

    /// Envoy's letters, which people know.
    pub fn flags(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Path(_) | Self::UpgradeRefused(_) => "DPE",
            Self::NoRoute | Self::Unregistered(_) | Self::PortRefused(_) => "NR",
            Self::AddressLimit { .. } | Self::LocalLimit(_) | Self::LimitExceeded(_) | Self::UpgradesFull => {
                "RL"
            }
            Self::Denied(_) | Self::AuthzUnavailable { .. } | Self::AuthzError { .. } => "UAEX",
            Self::RateLimitUnavailable => "RLSE",
            Self::NoHealthyUpstream(_) => "UH",
            Self::BreakerOpen { .. } => "UO",
            Self::Overloaded { .. } => "OM",
            Self::UpstreamConnect(_) => "UF",
            Self::UpstreamReset(_) => "UC",
            Self::UpstreamTimeout(_) => "UT",
            Self::UpstreamProtocol(_) | Self::UpstreamSwitched => "UPE",
            Self::Fault(_) => "FI",
            Self::ClientGone => "DC",
            Self::BodyTimeout(_) | Self::BodySlow => "DT",
            Self::BodyTooLarge
            | Self::TooManyHeaders
            | Self::NotReady(_)
            | Self::Loop(_)
            | Self::Internal(_) => "-",
        }
    }

    /// Headers and body for the client.
    pub(crate) fn into_answer(self, id: &RequestId) -> (HeaderMap, Bytes) {
        let reason = self.reason();
        match self {
            Self::Denied(denial) => (denial.headers, denial.body),
            Self::LocalLimit(limited) | Self::LimitExceeded(limited) => {
                let Limited { mut headers, body } = *limited;
                let body = body.unwrap_or_else(|| json_body(reason, id, &mut headers));
                (headers, body)
            }
            Self::AddressLimit { retry_after }
            | Self::Overloaded { retry_after }
            | Self::AuthzUnavailable { retry_after, .. }
            | Self::AuthzError { retry_after, .. } => {
                let mut headers = HeaderMap::with_capacity(4);
                headers.insert(RETRY_AFTER, retry_after_value(retry_after));
                let body = json_body(reason, id, &mut headers);
                (headers, body)
            }
            Self::UpgradesFull => {
                let mut headers = HeaderMap::with_capacity(4);
                headers.insert(RETRY_AFTER, retry_after_value(Duration::from_secs(1)));
                let body = json_body(reason, id, &mut headers);
                (headers, body)
            }
            _ => {
                let mut headers = HeaderMap::with_capacity(4);
                let body = json_body(reason, id, &mut headers);
                (headers, body)
            }
        }
    }
}

/// The client closed the connection before it was answered. It never sees this status; logs do.
pub(crate) fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// Whole seconds, rounded up: a client that comes back at that time finds room.
pub(crate) fn retry_after_value(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

fn json_body(reason: Reason, id: &RequestId, headers: &mut HeaderMap) -> Bytes {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Both texts consist of characters that JSON needs no escape for.
    format!("{{\"reason\":\"{reason}\",\"request_id\":\"{}\"}}\n", id.as_str()).into()
}

/// The gRPC status that fits an HTTP status, and the headers of a trailers-only answer.
pub(crate) fn grpc_answer(status: StatusCode, reason: Reason, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(grpc_status(status)));
    headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(reason.as_str()));
    headers.remove(http::header::CONTENT_LENGTH);
}

/// gRPC status codes by HTTP status.
pub(crate) fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 | 431 => 3,
        401 => 16,
        403 => 7,
        404 | 501 => 12,
        413 | 429 => 8,
        502 | 503 => 14,
        408 | 504 => 4,
        499 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_sees() {
        let second = Duration::from_secs(1);
        for (error, status, reason, fault, grpc) in [
            (ProxyError::Malformed("x"), 400, "request_malformed", Fault::Client, 3),
            (ProxyError::LocalLimit(Box::default()), 429, "limit_local", Fault::Client, 8),
            (ProxyError::NoRoute, 404, "no_route", Fault::Client, 12),
            (ProxyError::PortRefused(22), 403, "port_refused", Fault::Client, 7),
            (ProxyError::AddressLimit { retry_after: second }, 429, "limit_address", Fault::Client, 8),
            (
                ProxyError::AuthzUnavailable { retry_after: second, source: None },
                503,
                "authz_unavailable",
                Fault::Us,
                14,
            ),
            (ProxyError::UpstreamTimeout(second), 504, "upstream_timeout", Fault::Upstream, 4),
            (ProxyError::UpstreamReset(None), 502, "upstream_reset", Fault::Upstream, 14),
            (ProxyError::NoHealthyUpstream("c".into()), 503, "no_healthy_upstream", Fault::Upstream, 14),
            (ProxyError::Overloaded { retry_after: second }, 503, "overloaded", Fault::Us, 14),
            (ProxyError::Internal("x"), 500, "internal", Fault::Us, 2),
        ] {
            assert_eq!(error.status().as_u16(), status);
            assert_eq!(error.reason().as_str(), reason);
            assert_eq!(error.fault(), fault);
            assert_eq!(grpc_status(error.status()), grpc);
        }
        for (status, grpc) in [(401, 16), (403, 7), (429, 8)] {
            assert_eq!(grpc_status(StatusCode::from_u16(status).unwrap()), grpc);
        }
    }

    #[test]
    fn waits_are_rounded_up() {
        for (millis, text) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")] {
            assert_eq!(retry_after_value(Duration::from_millis(millis)), text);
        }
    }
}
