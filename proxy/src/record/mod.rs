//! What is told about a request when it is over: one access record, its spans, its metrics.
//!
//! ```text
//! begin --(stages fill in what they learn)--> answer or refuse --body ends--> finish
//!    \------------------- dropped before: the client went away ----------------^
//! ```
//!
//! A [`Recording`] is written exactly once, whatever ends the request. Nothing here waits.

mod access;
mod ids;
mod passage;
mod trace;

pub(crate) use ids::RequestId;
pub(crate) use passage::Passage;
pub(crate) use trace::Trace;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version, request};
use tokio_util::task::TaskTracker;
use tollgate_proto::Reason;
use tollgate_runtime::Service;

use crate::body::{Content, ResponseBody, Upload};
use crate::config::{OnError, Role};
use crate::error::{ProxyError, client_closed_request, grpc_answer};
use crate::listener::{Connection, Flow};
use crate::metrics::{Metrics, RequestLabels};
use crate::rollout::{Counting, End};
use crate::route::Found;
use crate::stages::deadline;
use crate::stages::grpc_web::Web;
use crate::stages::headers::{REQUEST_ID, is_grpc};
use crate::stages::verdict::Verdict;

/// Where records go.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) service: Service,
    pub(crate) metrics: Metrics,
    /// Listeners and connections, each while it may bring a request.
    pub(crate) doors: TaskTracker,
}

impl Reporter {
    pub(crate) fn new(service: Service) -> Self {
        let metrics = Metrics::new(&service.telemetry().meter());
        let doors = TaskTracker::new();
        // Who waits for them waits until there is none, not for somebody to say that there will be no more.
        doors.close();
        Self { service, metrics, doors }
    }

    /// Whether anybody receives records and spans.
    pub(crate) fn is_heard(&self) -> bool {
        self.service.telemetry().logs().is_open()
    }
}

/// What is known about a request so far.
#[derive(Debug)]
pub(crate) struct Record {
    started: Instant,
    started_unix_nanos: u64,
    head_took: Duration,
    connection: Arc<Connection>,
    pub(crate) id: RequestId,
    pub(crate) trace: Trace,
    method: Method,
    version: Version,
    pub(crate) uri: Uri,
    pub(crate) host: Option<http::uri::Authority>,
    pub(crate) client: IpAddr,
    user_agent: Option<HeaderValue>,
    grpc: bool,
    /// A browser's gRPC, which is translated.
    pub(crate) web: Option<Web>,
    /// When a gRPC caller waits no longer.
    pub(crate) deadline: Option<tokio::time::Instant>,
    declared_size: Option<u64>,
    pub(crate) upload: Option<Arc<Upload>>,
    pub(crate) found: Option<Found>,
    /// The SHA-256 of the client's certificate, as the entry tells it that passed the request on.
    pub(crate) client_certificate: Option<String>,
    /// The origin whose pages may read the answer.
    pub(crate) origin: Option<HeaderValue>,
    pub(crate) routed_at: Option<Instant>,
    pub(crate) authz: Authz,
    pub(crate) rate_limit: RateLimit,
    pub(crate) upstream: Upstream,
    status: Option<StatusCode>,
    reason: Reason,
    flags: &'static str,
    details: String,
    first_byte_at: Option<Instant>,
    grpc_status: Option<i64>,
    /// Its deadline was over when it was known how it ends.
    caller_gave_up: bool,
    /// What has moved since the connection went over to another protocol.
    flow: Option<Arc<Flow>>,
}

/// What authorization said.
#[derive(Debug, Default)]
pub(crate) struct Authz {
    pub(crate) decision: Option<&'static str>,
    pub(crate) reason: Option<Reason>,
    pub(crate) failure_mode: Option<OnError>,
    pub(crate) verdict: Verdict,
    pub(crate) took: Option<Duration>,
}

/// What the limiter said.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    pub(crate) decision: Option<&'static str>,
    pub(crate) domain: Option<String>,
    pub(crate) answer: crate::stages::rate_limit::Answer,
    pub(crate) failure_mode: Option<OnError>,
    pub(crate) took: Option<Duration>,
}

/// Where it was sent.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) cluster: Option<Arc<str>>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) address: Option<std::net::SocketAddr>,
    pub(crate) began: Option<Instant>,
    /// Tries beyond the first.
    pub(crate) resends: u32,
    pub(crate) span: Option<opentelemetry::Context>,
    /// The rollout that it counts for, and as which version's, where shares decided.
    pub(crate) rollout: Option<Counting>,
}

/// The record of a request under way. Written once: by [`Recording::finish`], or when it is dropped.
#[derive(Debug)]
pub(crate) struct Recording {
    open: Option<Box<(Record, Arc<Reporter>)>>,
}

impl Recording {
    /// A request's head has been read.
    pub(crate) fn begin(
        reporter: &Arc<Reporter>,
        connection: &Arc<Connection>,
        parts: &request::Parts,
        trust_trace: bool,
    ) -> Self {
        let head_took = connection.clock.request_began();
        let clock = reporter.service.clock();
        let started_unix_nanos = clock.unix_nanos();
        let role = connection.listener.role;
        let told = parts.headers.get(REQUEST_ID).filter(|_| role != Role::Ingress);
        let id = told.and_then(RequestId::kept).unwrap_or_else(|| RequestId::mint(started_unix_nanos));
        let grpc = is_grpc(&parts.headers);
        let trace = Trace::begin(reporter, &parts.headers, trust_trace || role != Role::Ingress);
        let length = parts.headers.get(CONTENT_LENGTH);
        let record = Record {
            started: Instant::now(),
            started_unix_nanos,
            head_took,
            connection: Arc::clone(connection),
            id,
            trace,
            method: parts.method.clone(),
            version: parts.version,
            uri: parts.uri.clone(),
            host: None,
            client: connection.peer.ip().to_canonical(),
            user_agent: parts.headers.get(USER_AGENT).cloned(),
            grpc,
            web: None,
            deadline: None,
            declared_size: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            upload: None,
            found: None,
            client_certificate: None,
            origin: None,
            routed_at: None,
            authz: Authz::default(),
            rate_limit: RateLimit::default(),
            upstream: Upstream::default(),
            status: None,
            reason: Reason::Ok,
            flags: "",
            details: String::new(),
            first_byte_at: None,
            grpc_status: None,
            caller_gave_up: false,
            flow: None,
        };
        Self { open: Some(Box::new((record, Arc::clone(reporter)))) }
    }

    /// The record is written by somebody else.
    pub(crate) fn elsewhere() -> Self {
        Self { open: None }
    }

    /// What is known so far; nothing once it is written.
    pub(crate) fn record(&mut self) -> Option<&mut Record> {
        self.open.as_mut().map(|open| &mut open.0)
    }

    /// The request has its answer, from the upstream or as its route has it.
    pub(crate) fn answer(mut self, mut response: Response<Content>) -> Response<ResponseBody> {
        if let Some(record) = self.record() {
            record.say(response.headers_mut());
            let status = response.status();
            record.status = Some(status);
            record.first_byte_at = Some(Instant::now());
            let by_upstream = matches!(response.body(), Content::Upstream(..));
            record.details = if by_upstream { "via_upstream" } else { "direct_response" }.to_owned();
            if by_upstream && status.is_server_error() {
                record.reason = Reason::UpstreamStatus;
            }
            record.note_grpc_status(response.headers());
            if let Some(web) = record.web.as_ref().filter(|_| by_upstream) {
                web.translate_answer(response.headers_mut());
            }
        }
        response.map(|content| ResponseBody::new(content, self))
    }

    /// The request is answered by us, and not as it wished.
    pub(crate) fn refuse(mut self, error: ProxyError) -> Response<ResponseBody> {
        let Some(record) = self.record() else {
            return Response::new(ResponseBody::new(Content::Own(Bytes::new()), self));
        };
        let (status, reason) = (error.status(), error.reason());
        record.status = Some(status);
        record.reason = reason;
        record.flags = error.flags();
        record.details = with_causes(&error);
        record.note_deadline();
        record.first_byte_at = Some(Instant::now());
        let id = record.id.clone();
        let (grpc, web) = (record.grpc, record.web.clone());
        let (mut headers, body) = error.into_answer(&id);
        let body = if grpc {
            record.grpc_status = Some(crate::error::grpc_status(status).into());
            grpc_answer(status, reason, &mut headers);
            if let Some(web) = &web {
                web.translate_answer(&mut headers);
            }
            Bytes::new()
        } else {
            body
        };
        record.say(&mut headers);
        let mut response = Response::new(ResponseBody::new(Content::Own(body), self));
        // A gRPC client reads the status in the headers; to HTTP the call itself went well.
        *response.status_mut() = if grpc { StatusCode::OK } else { status };
        *response.headers_mut() = headers;
        response
    }

    /// The connection goes over to another protocol with this answer.
    pub(crate) fn switched(&mut self, headers: &mut HeaderMap, flow: &Arc<Flow>) {
        let Some(open) = &mut self.open else { return };
        let (record, reporter) = &mut **open;
        record.say(headers);
        record.status = Some(StatusCode::SWITCHING_PROTOCOLS);
        record.first_byte_at = Some(Instant::now());
        record.flow = Some(Arc::clone(flow));
        record.details = "cut: the proxy stops, or a certificate has ended".to_owned();
        reporter.metrics.upgraded(&record.connection.listener.config().name, 1);
    }

    /// What the connection went over to has ended.
    pub(crate) fn switch_ended(&mut self, reason: Reason, flags: &'static str, details: String) {
        if let Some(record) = self.record() {
            (record.reason, record.flags, record.details) = (reason, flags, details);
        }
        self.finish(0, true);
    }

    /// A piece of the answer is out, and the next one not asked for.
    pub(crate) fn holds(&self) {
        if let Some(open) = &self.open {
            open.0.connection.clock.holds();
        }
    }

    /// What was held is taken, or nobody will.
    pub(crate) fn let_go(&self) {
        if let Some(open) = &self.open {
            open.0.connection.clock.let_go();
        }
    }

    /// How the answer is to be written, if it is for a browser.
    pub(crate) fn web(&self) -> Option<Web> {
        self.open.as_ref().and_then(|open| open.0.web.clone())
    }

    /// Whether the call is gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.0.grpc)
    }

    /// Whether the request's body, if it has one, went out to its end.
    pub(crate) fn is_request_sent(&self) -> bool {
        let upload = self.open.as_ref().and_then(|open| open.0.upload.as_ref());
        upload.is_none_or(|upload| upload.ended())
    }

    /// The upstream ended a call in its trailers.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(record) = self.record() {
            record.note_grpc_status(trailers);
        }
    }

    /// The upstream broke off in the middle of its answer.
    pub(crate) fn broke_off(&mut self) {
        if let Some(record) = self.record() {
            record.reason = Reason::UpstreamReset;
            record.flags = "UC";
            record.details = "the upstream closed in the middle of its answer".to_owned();
        }
    }

    /// The upstream's answer stood still, or went on, for too long.
    pub(crate) fn too_slow(&mut self) {
        if let Some(record) = self.record() {
            record.reason = Reason::UpstreamTimeout;
            record.flags = "UT";
            record.details = "the answer did not end in time".to_owned();
            record.note_deadline();
        }
    }

    /// The last byte is out, or the client is gone.
    pub(crate) fn finish(&mut self, sent: u64, complete: bool) {
        let Some(open) = self.open.take() else { return };
        let (mut record, reporter) = *open;
        record.connection.clock.request_ended();
        if let Some(flow) = &record.flow {
            reporter.metrics.upgraded(&record.connection.listener.config().name, -1);
            let (_, sent) = flow.bytes();
            return record.write(&reporter, sent);
        }
        let upstreams = matches!(record.reason, Reason::UpstreamReset | Reason::UpstreamTimeout);
        if !complete && !upstreams {
            record.reason = Reason::ClientGone;
            record.flags = "DC";
            if record.connection.clock.is_slow_reader() {
                record.details = "cut: the client took too little of its answer".to_owned();
            }
        }
        record.write(&reporter, sent);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Still open here means that nobody waited for the answer.
        if let Some(record) = self.record()
            && record.flow.is_none()
        {
            record.status.get_or_insert(client_closed_request());
            record.details = "the client closed before it was answered".to_owned();
        }
        self.finish(0, false);
    }
}

impl Record {
    /// What every answer says, a refusal too.
    fn say(&self, headers: &mut HeaderMap) {
        if self.connection.listener.role == Role::Ingress {
            headers.insert(REQUEST_ID, self.id.value());
        }
        if let Some(cors) = self.found.as_ref().and_then(|found| found.route.cors.as_ref()) {
            cors.say(self.origin.as_ref(), headers);
        }
    }

    /// The request is a gRPC call, written for browsers or not: how long its caller waits counts from its beginning.
    pub(crate) fn is_a_call(&mut self, headers: &HeaderMap, web: Option<Web>) {
        self.grpc |= web.is_some();
        self.web = web;
        let told = deadline::told(headers).filter(|_| self.grpc);
        self.deadline = told.map(|told| tokio::time::Instant::from_std(self.started) + told);
    }

    /// Whether it is a gRPC call.
    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// The request was held up on purpose.
    pub(crate) fn note_delay(&mut self) {
        self.flags = "DI";
    }

    fn note_grpc_status(&mut self, headers: &HeaderMap) {
        if self.grpc
            && let Some(status) = headers.get("grpc-status")
        {
            self.grpc_status = status.to_str().ok().and_then(|status| status.parse().ok());
            self.note_deadline();
        }
    }

    /// It is known how the request ends: whether its caller still waits.
    fn note_deadline(&mut self) {
        self.caller_gave_up = self.deadline.is_some_and(|at| at <= tokio::time::Instant::now());
    }

    fn write(mut self, reporter: &Reporter, sent: u64) {
        let took = self.started.elapsed();
        let labels = RequestLabels {
            method: tollgate_runtime::http_server::method_name(&self.method),
            route: self.found.as_ref().map(|found| Arc::clone(&found.path)),
            status: self.status(),
            reason: self.reason,
            reporter: self.connection.listener.reporter(),
            direction: self.connection.listener.direction(),
        };
        reporter.metrics.request(took, labels);
        if let Some(counting) = self.upstream.rollout.take() {
            let (reason, grpc_status, caller_gave_up) = (self.reason, self.grpc_status, self.caller_gave_up);
            counting.end(End { reason, grpc_status, caller_gave_up }, self.upstream_took());
        }
        if !reporter.is_heard() {
            return;
        }
        trace::end_upstream(self.upstream.span.take(), self.status(), self.reason);
        self.trace.end(&self);
        reporter.service.telemetry().logs().offer(access::record(&self, took, sent));
    }

    /// Until the head of the upstream's answer; without one, until the end.
    fn upstream_took(&self) -> Duration {
        let Some(began) = self.upstream.began else { return Duration::ZERO };
        let ended = self.first_byte_at.unwrap_or_else(Instant::now);
        ended.saturating_duration_since(began)
    }

    fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(client_closed_request)
    }

    fn request_size(&self) -> u64 {
        let carried = self.flow.as_ref().map(|flow| flow.bytes().0);
        carried
            .or_else(|| self.upload.as_ref().map(|upload| upload.bytes()))
            .or(self.declared_size)
            .unwrap_or(0)
    }
}

/// Says of a connection that ended without a request in it why it did.
pub(crate) fn connection_failed(
    reporter: &Reporter,
    connection: &Connection,
    status: StatusCode,
    reason: Reason,
    details: &str,
) {
    let labels = RequestLabels {
        method: "_OTHER",
        route: None,
        status,
        reason,
        reporter: connection.listener.reporter(),
        direction: connection.listener.direction(),
    };
    reporter.metrics.request(Duration::ZERO, labels);
    if reporter.is_heard() {
        let now = reporter.service.clock().unix_nanos();
        let record = access::of_connection(connection, now, status, reason, details);
        reporter.service.telemetry().logs().offer(record);
    }
}

fn with_causes(error: &ProxyError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(one) = cause {
        text.push_str(": ");
        text.push_str(&one.to_string());
        cause = one.source();
    }
    text
}
