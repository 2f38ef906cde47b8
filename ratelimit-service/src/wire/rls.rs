//! `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`.
//!
//! ```text
//! call -> may this workload call? -> traced? -> span and histogram around it -.
//!                                      \-----------------------------------------> message -> limiter -> answer
//! ```
//!
//! Envoy lets a request pass or fails it by its own configuration when the call fails, so only malformed requests do.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::{HeaderName, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use tollgate_identity::tls::{Callers, Peer};
use tollgate_runtime::grpc::unary::{self, Reply};
use tollgate_runtime::grpc::{Answer, Routed, ServerTelemetryLayer};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer as _, Service as TowerService, service_fn};

use super::messages::RateLimitResponse;
use crate::limiter::Limiter;
use crate::plan::Malformed;

/// The service's name, for reflection.
pub const NAME: &str = "envoy.service.ratelimit.v3.RateLimitService";
/// Bytes one request may have; the largest that can be answered is far smaller.
pub const MAX_REQUEST_BYTES: usize = 256 << 10;

const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Answers the calls of the port: those to this method here, all others where they are routed.
///
/// A call that belongs to a trace gets a span of its own and is in the histogram of durations, as every call of our
/// other servers is. A call without one gets neither: a rate limiter answers in less time than they take, and no
/// trace begins here.
#[derive(Debug)]
pub struct RateLimitPort<R>(Arc<Parts<R>>);

#[derive(Debug)]
struct Parts<R> {
    limiter: Limiter,
    callers: Option<Callers>,
    telemetry: ServerTelemetryLayer,
    others: R,
}

impl<R> RateLimitPort<R> {
    /// Answers from this limiter, and nobody but `callers`, where they are named.
    pub fn new(
        limiter: Limiter,
        callers: Option<Callers>,
        telemetry: ServerTelemetryLayer,
        others: R,
    ) -> Self {
        Self(Arc::new(Parts { limiter, callers, telemetry, others }))
    }
}

impl<R> Clone for RateLimitPort<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Answer<Peer> for RateLimitPort<R>
where
    R: TowerService<Request<Body>, Response = Response<Body>, Error = Infallible>,
    R: Clone + Send + Sync + 'static,
    R::Future: Send,
{
    type Body = Either<Reply, Body>;

    fn answer(
        self,
        call: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send {
        let Parts { limiter, callers, .. } = &*self.0;
        let may_call = callers.as_ref().is_none_or(|callers| callers.judge(Some(&peer)).is_ok());
        if may_call && is_plain(&call) {
            // What is kept of a call is small, since it is moved several times: of this one its body, and a box of others.
            return should_rate_limit(limiter.clone(), call.into_body())
                .map(|response| response.map(Either::Left))
                .left_future();
        }
        self.answer_otherwise(call, peer).boxed().right_future()
    }
}

/// Whether this is a call to this method outside of any trace.
fn is_plain(call: &Request<Incoming>) -> bool {
    call.uri().path() == SHOULD_RATE_LIMIT && !call.headers().contains_key(&TRACEPARENT)
}

impl<R> RateLimitPort<R>
where
    R: TowerService<Request<Body>, Response = Response<Body>, Error = Infallible>,
    R: Clone + Send + Sync + 'static,
    R::Future: Send,
{
    async fn answer_otherwise(self, call: Request<Incoming>, peer: Peer) -> Response<Either<Reply, Body>> {
        let Parts { limiter, callers, telemetry, others } = &*self.0;
        if let Some(Err(refused)) = callers.as_ref().map(|callers| callers.judge(Some(&peer))) {
            return refused.into_http().map(Either::Right);
        }
        if call.uri().path() != SHOULD_RATE_LIMIT {
            return Routed(others.clone()).answer(call, peer).await.map(Either::Right);
        }
        let answering = service_fn(|call: Request<Incoming>| {
            should_rate_limit(limiter.clone(), call.into_body()).map(Ok::<_, Infallible>)
        });
        match telemetry.layer(answering).call(call).await {
            Ok(response) => response.map(Either::Left),
            Err(never) => match never {},
        }
    }
}

async fn should_rate_limit(limiter: Limiter, body: Incoming) -> Response<Reply> {
    let answer: Result<RateLimitResponse, Status> = async {
        let request = unary::read(body, MAX_REQUEST_BYTES).await?;
        Ok(limiter.should_rate_limit(&request).await?)
    }
    .await;
    unary::reply(answer)
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        // The reference says UNKNOWN; Envoy treats both alike, and this one says whose mistake it is.
        Self::invalid_argument(malformed.to_string())
    }
}
