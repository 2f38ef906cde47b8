//! The spans of a request: one for the server, one below it for every call made on its behalf.

use http::{HeaderMap, StatusCode};
use opentelemetry::trace::{
    Link, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tollgate_proto::{Reason, attributes};
use tollgate_runtime::trace_context;

use super::{Record, Reporter, access};

/// Where a request is in its trace.
#[derive(Debug)]
pub(crate) struct Trace {
    /// With our own span in it; with the caller's where nobody receives spans.
    context: Context,
    tracer: Option<SdkTracer>,
}

impl Trace {
    /// Continues the caller's trace, or starts a new one linked to it where the caller is not trusted.
    pub(super) fn begin(reporter: &Reporter, headers: &HeaderMap, trusted: bool) -> Self {
        let caller = if headers.contains_key("traceparent") {
            trace_context::extract(headers)
        } else {
            Context::new()
        };
        if !reporter.is_heard() {
            let context = if trusted { caller } else { Context::new() };
            return Self { context, tracer: None };
        }
        let tracer = reporter.service.telemetry().tracer().clone();
        // Its name is known once it is routed.
        let mut builder = tracer.span_builder("request").with_kind(SpanKind::Server);
        let told = caller.span().span_context().clone();
        let parent = if trusted { caller } else { Context::new() };
        if !trusted && told.is_valid() {
            // The sampled flag is the client's wish, not its right.
            let link = SpanContext::new(
                told.trace_id(),
                told.span_id(),
                TraceFlags::default(),
                true,
                TraceState::default(),
            );
            builder = builder.with_links(vec![Link::with_context(link)]);
        }
        let span = builder.start_with_context(&tracer, &parent);
        Self { context: Context::new().with_span(span), tracer: Some(tracer) }
    }

    /// A span for a call made on behalf of the request, as the context to call with.
    pub(crate) fn child(&self, name: &'static str) -> Context {
        match &self.tracer {
            Some(tracer) => {
                let builder = tracer.span_builder(name).with_kind(SpanKind::Client);
                Context::new().with_span(builder.start_with_context(tracer, &self.context))
            }
            None => self.context.clone(),
        }
    }

    /// Ends a child span, if there is one.
    pub(crate) fn end_child(&self, context: &Context, failed: Option<&'static str>) {
        if self.tracer.is_none() {
            return;
        }
        let span = context.span();
        if let Some(reason) = failed {
            span.set_status(Status::error(reason));
        }
        span.end();
    }

    pub(crate) fn is_recorded(&self) -> bool {
        self.tracer.is_some()
    }

    pub(super) fn span_context(&self) -> SpanContext {
        self.context.span().span_context().clone()
    }

    /// Says in the server span what became of the request.
    pub(super) fn end(&self, record: &Record) {
        let span = self.context.span();
        if !span.is_recording() {
            return;
        }
        let method = tollgate_runtime::http_server::method_name(&record.method);
        let status = record.status();
        match &record.found {
            Some(found) => {
                span.update_name(format!("{method} {}", found.path));
                span.set_attribute(KeyValue::new(attributes::HTTP_ROUTE, std::sync::Arc::clone(&found.path)));
            }
            None => span.update_name(method),
        }
        span.set_attributes([
            KeyValue::new(attributes::HTTP_REQUEST_METHOD, method),
            KeyValue::new(attributes::URL_PATH, access::cut(record.uri.path()).to_owned()),
            KeyValue::new(attributes::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16())),
            KeyValue::new(attributes::TOLLGATE_REASON, record.reason.as_str()),
            KeyValue::new(attributes::TOLLGATE_REQUEST_ID, record.id.as_str().to_owned()),
            KeyValue::new(attributes::TOLLGATE_REPORTER, record.connection.listener.reporter()),
            KeyValue::new(attributes::TOLLGATE_DIRECTION, record.connection.listener.direction()),
            KeyValue::new(attributes::CLIENT_ADDRESS, record.client.to_string()),
        ]);
        if let Some(subject) = &record.authz.verdict.subject {
            span.set_attribute(KeyValue::new(attributes::ENDUSER_ID, subject.clone()));
        }
        if record.reason != Reason::Ok {
            span.set_attribute(KeyValue::new(attributes::ERROR_TYPE, record.reason.as_str()));
        }
        if status.is_server_error() {
            span.set_status(Status::error(record.reason.as_str()));
        }
        span.end();
    }
}

/// Ends the span of the upstream attempt.
pub(super) fn end_upstream(span: Option<Context>, status: StatusCode, reason: Reason) {
    let Some(context) = span else { return };
    let span = context.span();
    span.set_attribute(KeyValue::new(attributes::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16())));
    if reason != Reason::Ok {
        span.set_status(Status::error(reason.as_str()));
    }
    span.end();
}
