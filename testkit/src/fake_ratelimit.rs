//! A rate-limit service that answers what a test tells it, over the real protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tollgate_proto::envoy_types::pb::google::protobuf::Duration as WireDuration;
use tonic::{Request, Response, Status};

use crate::grpc::Server;

/// What a fake answers to a question.
pub type Answer = Arc<dyn Fn(&RateLimitRequest) -> Result<RateLimitResponse, Status> + Send + Sync>;

/// The fake. It stops when dropped.
#[derive(Debug)]
pub struct FakeRateLimit {
    state: State,
    server: Server,
}

#[derive(Clone)]
struct State {
    questions: Arc<Mutex<Vec<RateLimitRequest>>>,
    answer: Arc<Mutex<Answer>>,
    delay: Arc<Mutex<Duration>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("questions", &self.questions.lock().len()).finish_non_exhaustive()
    }
}

impl FakeRateLimit {
    /// Answers on a port of its own: everything is within its limit of 20 a second.
    pub async fn start() -> Self {
        let state = State {
            questions: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(|_| Ok(within(20, 19))))),
            delay: Arc::default(),
        };
        let server = Server::start(RateLimitServiceServer::new(state.clone())).await;
        Self { state, server }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Answers so from now on.
    pub fn answer(
        &self,
        answer: impl Fn(&RateLimitRequest) -> Result<RateLimitResponse, Status> + Send + Sync + 'static,
    ) {
        *self.state.answer.lock() = Arc::new(answer);
    }

    /// Takes this long for every answer from now on.
    pub fn delay(&self, delay: Duration) {
        *self.state.delay.lock() = delay;
    }

    /// What it was asked, in order.
    pub fn questions(&self) -> Vec<RateLimitRequest> {
        self.state.questions.lock().clone()
    }
}

#[tonic::async_trait]
impl RateLimitService for State {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let question = request.into_inner();
        self.questions.lock().push(question.clone());
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let answer = Arc::clone(&*self.answer.lock());
        answer(&question).map(Response::new)
    }
}

/// Within a limit of `limit` a second, of which `remaining` are left.
pub fn within(limit: u32, remaining: u32) -> RateLimitResponse {
    response(Code::Ok, limit, remaining, 1)
}

/// Over a limit of `limit` a second, for `seconds` more.
pub fn over(limit: u32, seconds: i64) -> RateLimitResponse {
    response(Code::OverLimit, limit, 0, seconds)
}

fn response(code: Code, limit: u32, remaining: u32, seconds: i64) -> RateLimitResponse {
    RateLimitResponse {
        overall_code: code.into(),
        statuses: vec![DescriptorStatus {
            code: code.into(),
            current_limit: Some(RateLimit { name: "subject".into(), requests_per_unit: limit, unit: 1 }),
            limit_remaining: remaining,
            duration_until_reset: Some(WireDuration { seconds, nanos: 0 }),
            quota: None,
        }],
        ..Default::default()
    }
}
