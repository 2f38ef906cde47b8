//! `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`.
//!
//! The tonic service that generated code would be, for our own messages. Envoy lets a request pass
//! or fails it by its own configuration when the call fails, so only malformed requests do.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use tollgate_runtime::grpc::{ServerTelemetry, ServerTelemetryLayer};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;
use tower::Layer as _;

use super::messages::{RateLimitRequest, RateLimitResponse};
use crate::limiter::Limiter;
use crate::plan::Malformed;

/// Bytes one request may have; the largest that can be answered is far smaller.
pub const MAX_REQUEST_BYTES: usize = 256 << 10;

const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Serves a [`Limiter`].
///
/// A call that belongs to a trace gets a span of its own and is in the histogram of durations, as every call of our
/// other servers is. A call without one gets neither: a rate limiter answers in less time than they take, and no
/// trace begins here.
#[derive(Debug, Clone)]
pub struct RateLimitServer {
    plain: Plain,
    traced: ServerTelemetry<Plain>,
}

impl RateLimitServer {
    /// Answers from this limiter.
    pub fn new(limiter: Limiter, telemetry: &ServerTelemetryLayer) -> Self {
        let plain = Plain { limiter };
        Self { traced: telemetry.layer(plain.clone()), plain }
    }
}

impl NamedService for RateLimitServer {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl<B> tonic::codegen::Service<Request<B>> for RateLimitServer
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.headers().contains_key("traceparent") {
            self.traced.call(request)
        } else {
            self.plain.call(request)
        }
    }
}

/// The service itself.
#[derive(Debug, Clone)]
struct Plain {
    limiter: Limiter,
}

impl<B> tonic::codegen::Service<Request<B>> for Plain
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() != SHOULD_RATE_LIMIT {
            return Box::pin(std::future::ready(Ok(unimplemented_method())));
        }
        let method = ShouldRateLimit(self.limiter.clone());
        Box::pin(async move {
            let mut grpc =
                Grpc::new(ProstCodec::default()).apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
            Ok(grpc.unary(method, request).await)
        })
    }
}

fn unimplemented_method() -> Response<Body> {
    Status::unimplemented("this service answers ShouldRateLimit alone").into_http()
}

struct ShouldRateLimit(Limiter);

impl UnaryService<RateLimitRequest> for ShouldRateLimit {
    type Response = RateLimitResponse;
    type Future = BoxFuture<tonic::Response<RateLimitResponse>, Status>;

    fn call(&mut self, request: tonic::Request<RateLimitRequest>) -> Self::Future {
        let limiter = self.0.clone();
        Box::pin(async move {
            match limiter.should_rate_limit(request.get_ref()).await {
                Ok(response) => Ok(tonic::Response::new(response)),
                Err(malformed) => Err(malformed.into()),
            }
        })
    }
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        // The reference says UNKNOWN; Envoy treats both alike, and this one says whose mistake it is.
        Self::invalid_argument(malformed.to_string())
    }
}
