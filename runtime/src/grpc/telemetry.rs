//! Around every gRPC server: a span that continues the caller's trace, and the call's duration.

use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use opentelemetry::metrics::Histogram;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tonic::Code;
use tower::{Layer, Service as TowerService};

use crate::{Service, trace_context};

/// As the semantic conventions have it, with finer steps below 5 ms, where our services live.
const DURATION_BUCKETS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A tower layer for tonic servers: `rpc.server.call.duration`, and for a call that belongs to a sampled trace a SERVER
/// span, whose [`Context`] is put into the request's extensions, for spans below it. No trace begins here.
#[derive(Debug, Clone)]
pub struct ServerTelemetryLayer {
    tracer: SdkTracer,
    duration: Histogram<f64>,
}

impl ServerTelemetryLayer {
    /// Instruments of `service`.
    pub fn new(service: &Service) -> Self {
        let duration = service
            .telemetry()
            .meter()
            .f64_histogram("rpc.server.call.duration")
            .with_description("Duration of incoming gRPC calls")
            .with_unit("s")
            .with_boundaries(DURATION_BUCKETS.to_vec())
            .build();
        Self { tracer: service.telemetry().tracer().clone(), duration }
    }
}

impl<S> Layer<S> for ServerTelemetryLayer {
    type Service = ServerTelemetry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerTelemetry { inner, layer: self.clone() }
    }
}

/// Made by [`ServerTelemetryLayer`].
#[derive(Debug, Clone)]
pub struct ServerTelemetry<S> {
    inner: S,
    layer: ServerTelemetryLayer,
}

impl<S, B, R> TowerService<Request<B>> for ServerTelemetry<S>
where
    S: TowerService<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let parent = trace_context::extract(request.headers());
        let context = parent.span().span_context().is_sampled().then(|| {
            let span = self
                .layer
                .tracer
                .span_builder(method.clone())
                .with_kind(SpanKind::Server)
                .with_attributes([
                    KeyValue::new("rpc.system.name", "grpc"),
                    KeyValue::new("rpc.method", method.clone()),
                ])
                .start_with_context(&self.layer.tracer, &parent);
            Context::new().with_span(span)
        });
        if let Some(context) = &context {
            request.extensions_mut().insert(context.clone());
        }
        let duration = self.layer.duration.clone();
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await;
            let code = answer.as_ref().map_or(Code::Internal, code_of);
            let labels = [
                KeyValue::new("rpc.method", method),
                KeyValue::new("rpc.status_code", i64::from(code as i32)),
            ];
            duration.record(started.elapsed().as_secs_f64(), &labels);
            if let Some(context) = &context {
                let span = context.span();
                span.set_attribute(KeyValue::new("rpc.status_code", i64::from(code as i32)));
                if code != Code::Ok {
                    span.set_status(Status::error(code.description()));
                }
                span.end();
            }
            answer
        })
    }
}

/// A failed call is answered with headers alone that carry the status; one that succeeds says so in
/// its trailers, which come later.
fn code_of<B>(response: &Response<B>) -> Code {
    response.headers().get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}
