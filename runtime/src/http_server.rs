//! Serving an axum router: graceful drain, bounded head time, a span and a duration per request.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::MatchedPath;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Extensions, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use opentelemetry::metrics::Histogram;
use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service as TowerService};

use crate::Service;
use crate::net::{Ends, due};
use crate::tasks::Tasks;
use crate::trace_context;

/// A client that has not sent its head by then is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was accepted just before the stop may still say what it wants.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Connections at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 1024;
/// Boundaries of `http.server.request.duration` (semantic conventions).
pub const DURATION_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A connection that requests come by.
pub trait Connection: AsyncRead + AsyncWrite + Ends + Unpin + Send + 'static {
    /// Says who is at the other end, to whoever answers its requests.
    fn introduce(&self, extensions: &mut Extensions);
}

impl Connection for TcpStream {
    fn introduce(&self, extensions: &mut Extensions) {
        if let Ok(peer) = self.peer_addr() {
            extensions.insert(axum::extract::ConnectInfo(peer));
        }
    }
}

/// Serves `router` in plaintext until the service stops, then lets requests in flight finish.
pub async fn serve(tasks: &Tasks, listener: impl Into<Arc<TcpListener>>, router: Router) {
    let listener = listener.into();
    let incoming = stream::poll_fn(move |context| {
        listener.poll_accept(context).map(|accepted| {
            Some(accepted.map(|(stream, _)| {
                let _ = stream.set_nodelay(true);
                stream
            }))
        })
    });
    serve_incoming(tasks, incoming, router).await;
}

/// As [`serve`], on connections that somebody else has accepted.
pub async fn serve_incoming<I, C>(tasks: &Tasks, incoming: I, router: Router)
where
    I: Stream<Item = io::Result<C>>,
    C: Connection,
{
    let stopping = tasks.stopping();
    let connections = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let mut incoming = pin!(incoming);
    loop {
        let permit = tokio::select! {
            () = stopping.cancelled() => return,
            permit = std::sync::Arc::clone(&connections).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = incoming.next() => accepted,
        };
        let connection = match accepted {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                // Out of file descriptors, mostly: wait for some to be given back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => return,
        };
        let (served, router) = (tasks.clone(), router.clone());
        tasks.spawn("http-connection", async move {
            let _permit = permit;
            serve_connection(&served, connection, router).await;
        });
    }
}

async fn serve_connection<C: Connection>(tasks: &Tasks, connection: C, router: Router) {
    let stopping = tasks.stopping();
    let (mut known, drain_after) = (Extensions::new(), connection.drain_after());
    connection.introduce(&mut known);
    let asked = CancellationToken::new();
    let first_word = asked.clone();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        asked.cancel();
        request.extensions_mut().extend(known.clone());
        router.clone().call(request)
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(256);
    let mut connection = pin!(server.serve_connection_with_upgrades(TokioIo::new(connection), service));
    let told = async {
        tokio::select! { () = stopping.cancelled() => {}, () = due(drain_after) => {} }
        // Without a request it would be closed without an answer, though the request may be on its way.
        let _ = tokio::time::timeout(FIRST_WORD, first_word.cancelled()).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Adds a SERVER span and `http.server.request.duration` to every request of a router.
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
            .f64_histogram("http.server.request.duration")
            .with_description("Duration of HTTP server requests")
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
        let method = method_name(request.method());
        // The template, never the path: paths are unbounded.
        let route =
            request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
        let parent = trace_context::extract(request.headers());
        let span = self
            .layer
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route.clone()),
            ])
            .start_with_context(&self.layer.tracer, &parent);
        let context = Context::new().with_span(span);
        request.extensions_mut().insert(context.clone());
        let duration = self.layer.duration.clone();
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await;
            let status = answer.as_ref().map_or(500, |response| response.status().as_u16());
            let labels = [
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route),
                KeyValue::new("http.response.status_code", i64::from(status)),
            ];
            duration.record(started.elapsed().as_secs_f64(), &labels);
            context.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
            context.span().end();
            answer
        })
    }
}

/// Semantic conventions: methods that are not known become `_OTHER`.
pub fn method_name(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => "_OTHER",
    }
}
