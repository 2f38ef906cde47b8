//! Asking the authorization service: a request's head in, a verdict out.
//!
//! Here and in [`check_request`] alone Envoy's messages are known. What the answer may change about the request is in
//! [`Grant`]; a request that may not pass is an error. `:path`, `host` and framing headers are never taken from an answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, InvalidHeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, request};
use thiserror::Error;
use tollgate_identity::tls::GrpcChannel;
use tollgate_proto::Reason;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::{HeaderValueOption, QueryParameter};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use tollgate_runtime::trace_context;
use tonic::Code;

use super::caller::Caller;
use super::check_request::{self, Ends, Question};
use super::headers::may_be_mutated;
use super::verdict::Verdict;
use crate::config::{AuthzConfig, OnError};
use crate::error::{Denial, ProxyError};

/// The largest answer that is read.
const MAX_ANSWER: usize = 256 << 10;

/// Asks the authorization service.
#[derive(Debug)]
pub(crate) struct Authorizer {
    channels: Vec<GrpcChannel>,
    next: AtomicUsize,
    config: AuthzConfig,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The request may pass, with these changes.
    Allow(Verdict, Grant),
    /// It may not.
    Deny(Verdict, Box<Denial>),
    /// There is no answer.
    Unavailable(Option<tonic::Status>),
    /// The answer is an error or makes no sense.
    Broken(String),
}

/// What an allowing answer changes.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    set_query: Vec<(String, String)>,
    remove_query: Vec<String>,
    /// Headers for the client.
    pub(crate) response: Vec<(HeaderName, HeaderValue)>,
}

impl Grant {
    /// Changes the request as the answer says.
    pub(crate) fn apply(&mut self, headers: &mut HeaderMap) {
        for name in self.remove.drain(..) {
            super::headers::remove_with_lookalikes(headers, &name);
        }
        for (name, value) in self.set.drain(..) {
            headers.insert(name, value);
        }
    }

    /// Takes query parameters out and sets others, as the answer says: a token that the upstream shall not see may
    /// stand in one, a claim that it reads in another. Values are percent-encoded by whoever answers, as for Envoy.
    pub(crate) fn apply_to_target(&mut self, uri: &mut Uri) {
        let gone = std::mem::take(&mut self.remove_query);
        let set = std::mem::take(&mut self.set_query);
        if set.is_empty() && (gone.is_empty() || uri.query().is_none()) {
            return;
        }
        let stays = |pair: &&str| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            !gone.iter().chain(set.iter().map(|(name, _)| name)).any(|ours| ours == name)
        };
        let pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
        let mut rest: Vec<String> = pairs.filter(stays).map(str::to_owned).collect();
        // What is set and taken out is gone, as in Envoy.
        let said = set.iter().filter(|(name, _)| !gone.contains(name));
        rest.extend(said.map(|(name, value)| format!("{name}={value}")));
        let target = if rest.is_empty() {
            uri.path().to_owned()
        } else {
            format!("{}?{}", uri.path(), rest.join("&"))
        };
        let mut parts = std::mem::take(uri).into_parts();
        // A part of a target is a target too.
        parts.path_and_query = target.parse().ok();
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// An answer that cannot be carried out.
#[derive(Debug, Error)]
enum BadAnswer {
    #[error("a query parameter that is not percent-encoded")]
    Parameter,
    #[error("a header whose name is not one")]
    Name(#[from] InvalidHeaderName),
    #[error("a header whose value cannot be one")]
    Value(#[from] InvalidHeaderValue),
    #[error("a status that is none")]
    Status,
}

impl Authorizer {
    pub(crate) fn new(config: &AuthzConfig, caller: &Caller<'_>) -> anyhow::Result<Self> {
        let expected = config.spiffe_id.as_ref();
        let channels = caller.channels("authz", &config.address, expected, config.connections)?;
        Ok(Self { channels, next: AtomicUsize::new(0), config: config.clone() })
    }

    pub(crate) fn config(&self) -> &AuthzConfig {
        &self.config
    }

    /// What happens to a request of a route when there is no answer.
    pub(crate) fn on_error(&self, route: Option<OnError>) -> OnError {
        route.unwrap_or(self.config.on_error)
    }

    pub(crate) fn error(&self, problem: Outcome) -> ProxyError {
        let retry_after = self.config.retry_after;
        match problem {
            Outcome::Unavailable(source) => ProxyError::AuthzUnavailable { retry_after, source },
            Outcome::Broken(problem) => ProxyError::AuthzError { retry_after, problem },
            Outcome::Deny(_, denial) => ProxyError::Denied(denial),
            Outcome::Allow(..) => ProxyError::Internal("an allowing answer is no error"),
        }
    }

    /// Asks about a request, and waits for the answer no longer than `authz.timeout`.
    pub(crate) async fn ask(
        &self,
        question: &Question<'_>,
        parts: &request::Parts,
        trace: &opentelemetry::Context,
    ) -> Outcome {
        self.send(check_request::of_request(question, parts), trace).await
    }

    /// Asks about a connection of a listener, in the same way.
    pub(crate) async fn ask_about_connection(
        &self,
        ends: &Ends<'_>,
        listener: &str,
        service: Option<&str>,
    ) -> Outcome {
        let question = check_request::of_connection(ends, listener, service);
        self.send(question, &opentelemetry::Context::new()).await
    }

    async fn send(&self, question: CheckRequest, trace: &opentelemetry::Context) -> Outcome {
        let mut request = tonic::Request::new(question);
        trace_context::inject_metadata(trace, request.metadata_mut());
        request.set_timeout(self.config.timeout);
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let channel = self.channels[index].channel();
        let mut client = AuthorizationClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        // On the heap: a call in the making is large, and a connection keeps the room of its largest request.
        let call = Box::pin(async move { client.check(request).await });
        match within(self.config.timeout, call).await {
            Ok(answer) => read_answer(answer.into_inner()),
            Err(None) => Outcome::Unavailable(None),
            Err(Some(status)) => match status.code() {
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::ResourceExhausted => Outcome::Unavailable(Some(status)),
                code => Outcome::Broken(format!("{code:?}: {}", status.message())),
            },
        }
    }
}

/// The answer, or the status of a failed call; none when it took too long.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, Option<tonic::Status>> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(Some),
        Err(_elapsed) => Err(None),
    }
}

fn read_answer(answer: CheckResponse) -> Outcome {
    // Envoy lets an answer without a status pass; here it is an error, since nobody said yes.
    let Some(status) = answer.status else { return Outcome::Broken("without a status".to_owned()) };
    let verdict = Verdict::take(answer.dynamic_metadata);
    let read = match (status.code, answer.http_response) {
        (_, Some(HttpResponse::ErrorResponse(_))) => {
            let why = verdict.reason.map_or("without a reason", Reason::as_str);
            return Outcome::Broken(format!("an error of its own: {why}"));
        }
        (0, Some(HttpResponse::OkResponse(ok))) => grant(ok).map(|grant| (Some(grant), None)),
        (0, _) => Ok((Some(Grant::default()), None)),
        (_, Some(HttpResponse::DeniedResponse(denied))) => {
            denial(denied, &verdict).map(|denial| (None, Some(denial)))
        }
        (_, _) => denial(DeniedHttpResponse::default(), &verdict).map(|denial| (None, Some(denial))),
    };
    match read {
        Ok((Some(grant), _)) => Outcome::Allow(verdict, grant),
        Ok((None, Some(denial))) => Outcome::Deny(verdict, Box::new(denial)),
        Ok((None, None)) => Outcome::Broken("nothing".to_owned()),
        Err(problem) => Outcome::Broken(problem.to_string()),
    }
}

fn grant(ok: OkHttpResponse) -> Result<Grant, BadAnswer> {
    let mut grant = Grant::default();
    for name in ok.headers_to_remove {
        if let Some(name) = mutable(&name)? {
            grant.remove.push(name);
        }
    }
    grant.remove_query = ok.query_parameters_to_remove;
    for QueryParameter { key, value } in ok.query_parameters_to_set {
        // What would end the value, or the query, was not encoded by whoever answered.
        let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"&#".contains(&byte));
        if key.is_empty() || key.contains('=') || !fits(&key) || !fits(&value) {
            return Err(BadAnswer::Parameter);
        }
        grant.set_query.push((key, value));
    }
    grant.set = pairs(ok.headers)?;
    grant.response = pairs(ok.response_headers_to_add)?;
    Ok(grant)
}

fn denial(denied: DeniedHttpResponse, verdict: &Verdict) -> Result<Denial, BadAnswer> {
    let status = match denied.status {
        Some(status) => u16::try_from(status.code)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())
            .filter(|status| status.as_u16() >= 200)
            .ok_or(BadAnswer::Status)?,
        None => StatusCode::FORBIDDEN,
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(denied.headers)? {
        headers.append(name, value);
    }
    if denied.body.starts_with('{') {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    // Where nobody says why, the public status has to do.
    let reason = verdict.reason.filter(|reason| *reason != Reason::Ok).unwrap_or(Reason::DefaultDeny);
    Ok(Denial { reason, status, headers, body: Bytes::from(denied.body) })
}

fn pairs(options: Vec<HeaderValueOption>) -> Result<Vec<(HeaderName, HeaderValue)>, BadAnswer> {
    let mut pairs = Vec::with_capacity(options.len());
    for header in options.into_iter().filter_map(|option| option.header) {
        let Some(name) = mutable(&header.key)? else { continue };
        let value = if header.raw_value.is_empty() {
            HeaderValue::try_from(header.value)?
        } else {
            HeaderValue::from_bytes(&header.raw_value)?
        };
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The header's name, if an answer may change it.
fn mutable(name: &str) -> Result<Option<HeaderName>, InvalidHeaderName> {
    if name.starts_with(':') {
        return Ok(None);
    }
    Ok(Some(HeaderName::try_from(name)?).filter(may_be_mutated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_proto::envoy_types::pb::envoy::config::core::v3::HeaderValue as WireHeader;
    use tollgate_proto::envoy_types::pb::envoy::r#type::v3::HttpStatus;
    use tollgate_proto::envoy_types::pb::google::rpc::Status;

    fn header(key: &str, value: &str) -> HeaderValueOption {
        let header = WireHeader { key: key.into(), value: value.into(), ..Default::default() };
        HeaderValueOption { header: Some(header), ..Default::default() }
    }

    fn answer(code: i32, http: Option<HttpResponse>) -> Outcome {
        let status = Some(Status { code, ..Default::default() });
        read_answer(CheckResponse { status, dynamic_metadata: None, http_response: http })
    }

    #[test]
    fn an_answer_without_status_is_no_answer() {
        assert!(matches!(read_answer(CheckResponse::default()), Outcome::Broken(_)));
    }

    #[test]
    fn a_grant_changes_only_what_it_may() {
        let ok = OkHttpResponse {
            headers: vec![
                header("x-user", "reader"),
                header(":path", "/admin"),
                header("Host", "evil"),
                header("content-length", "0"),
            ],
            headers_to_remove: vec!["authorization".into(), "host".into()],
            ..Default::default()
        };
        let Outcome::Allow(_, mut grant) = answer(0, Some(HttpResponse::OkResponse(ok))) else { panic!() };
        let mut headers = HeaderMap::new();
        for name in ["host", "authorization", "content-length"] {
            headers.insert(name, HeaderValue::from_static("was"));
        }
        grant.apply(&mut headers);
        assert_eq!(headers.get("x-user").unwrap(), "reader");
        assert_eq!(headers.get("host").unwrap(), "was");
        assert_eq!(headers.get("content-length").unwrap(), "was");
        assert!(!headers.contains_key("authorization"));
    }

    #[test]
    fn a_token_in_the_query_goes_no_further() {
        for (target, expected) in [
            ("/a?b=1&t=x&c", "/a?b=1&c"),
            ("/a?t=x", "/a"),
            ("/a?t", "/a"),
            ("/a?tt=x&b=t", "/a?tt=x&b=t"),
            ("/a", "/a"),
            ("http://h/a?t=x", "http://h/a"),
        ] {
            let ok = OkHttpResponse { query_parameters_to_remove: vec!["t".into()], ..Default::default() };
            let Outcome::Allow(_, mut grant) = answer(0, Some(HttpResponse::OkResponse(ok))) else {
                panic!()
            };
            let mut uri: Uri = target.parse().unwrap();
            grant.apply_to_target(&mut uri);
            assert_eq!(uri, expected, "{target}");
        }
    }

    #[test]
    fn a_claim_is_said_in_the_query() {
        let set = |target: &str, value: &str, remove: &[&str]| {
            let ok = OkHttpResponse {
                query_parameters_to_set: vec![QueryParameter { key: "tier".into(), value: value.into() }],
                query_parameters_to_remove: remove.iter().map(|&name| name.into()).collect(),
                ..Default::default()
            };
            let Outcome::Allow(_, mut grant) = answer(0, Some(HttpResponse::OkResponse(ok))) else {
                return None;
            };
            let mut uri: Uri = target.parse().unwrap();
            grant.apply_to_target(&mut uri);
            Some(uri.to_string())
        };
        for (target, remove, expected) in [
            ("/a", &[][..], "/a?tier=g%20d"),
            ("/a?b=1&tier=mine&c&tier=other", &[], "/a?b=1&c&tier=g%20d"),
            ("/a?%74ier=mine", &["%74ier"], "/a?tier=g%20d"),
            ("/a?tier=mine", &["tier"], "/a"),
        ] {
            assert_eq!(set(target, "g%20d", remove).as_deref(), Some(expected), "{target}");
        }
        for bad in ["a b", "a&admin=1", "a#b", "a\nb"] {
            assert_eq!(set("/a", bad, &[]), None, "{bad}");
        }
    }

    #[test]
    fn a_refusal_keeps_status_headers_and_body() {
        let denied = DeniedHttpResponse {
            status: Some(HttpStatus { code: 401 }),
            headers: vec![
                header("www-authenticate", "Bearer"),
                header("set-cookie", "a"),
                header("set-cookie", "b"),
            ],
            body: "{}".into(),
        };
        let Outcome::Deny(_, denial) = answer(16, Some(HttpResponse::DeniedResponse(denied))) else {
            panic!()
        };
        assert_eq!(denial.status, 401);
        assert_eq!(denial.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(denial.headers.get("content-type").unwrap(), "application/json");
        let Outcome::Deny(_, bare) = answer(7, None) else { panic!() };
        assert_eq!((bare.status, bare.reason), (StatusCode::FORBIDDEN, Reason::DefaultDeny));
    }

    #[test]
    fn answers_that_cannot_be_carried_out() {
        let newline = OkHttpResponse { headers: vec![header("x-a", "b\nc")], ..Default::default() };
        assert!(matches!(answer(0, Some(HttpResponse::OkResponse(newline))), Outcome::Broken(_)));
        let status = DeniedHttpResponse { status: Some(HttpStatus { code: 7 }), ..Default::default() };
        assert!(matches!(answer(7, Some(HttpResponse::DeniedResponse(status))), Outcome::Broken(_)));
        let own_error = HttpResponse::ErrorResponse(DeniedHttpResponse::default());
        assert!(matches!(answer(0, Some(own_error)), Outcome::Broken(_)));
    }
}
