//! The least that any answer can cost: tonic decodes the whole message and answers nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::process::{Running, TESTED_CORE};

/// The argument with which this program is the empty service; the next one says on which runtime.
const ARGUMENT: &str = "serve-empty";

/// Tokio's runtimes. With one core the one for several threads, which our services run on, writes each answer by
/// itself; the one for a single thread writes those together that are ready together.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Runtime {
    MultiThread,
    CurrentThread,
}

/// Answers nothing, having done as little as it can.
#[derive(Clone)]
struct Empty {
    verifier: Option<Arc<Verifier>>,
}

/// What a service does that verifies the token and nothing else.
struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    fn new(jwk: &str) -> anyhow::Result<Self> {
        let jwk: Jwk = serde_json::from_str(jwk)?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&["insurance"]);
        Ok(Self { key: DecodingKey::from_jwk(&jwk)?, validation })
    }

    fn accepts(&self, request: &CheckRequest) -> bool {
        let http = || request.attributes.as_ref()?.request.as_ref()?.http.as_ref();
        let token = http().and_then(|http| http.headers.get("authorization")?.strip_prefix("Bearer "));
        token.is_some_and(|token| {
            jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation).is_ok()
        })
    }
}

#[tonic::async_trait]
impl Authorization for Empty {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let request = request.into_inner();
        if self.verifier.as_ref().is_some_and(|verifier| !verifier.accepts(&request)) {
            return Err(Status::unauthenticated("the token does not verify"));
        }
        Ok(Response::new(CheckResponse::default()))
    }
}

#[tonic::async_trait]
impl RateLimitService for Empty {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        drop(request.into_inner());
        Ok(Response::new(RateLimitResponse::default()))
    }
}

/// Starts it on the core of the servers under test; one that gets a key verifies the token of each Check with it.
pub(crate) fn start(runtime: Runtime, jwk: Option<&Value>) -> anyhow::Result<(Running, SocketAddr)> {
    let runtime = match runtime {
        Runtime::MultiThread => "multi-thread",
        Runtime::CurrentThread => "current-thread",
    };
    let jwk = jwk.map(Value::to_string);
    let arguments: Vec<_> = [ARGUMENT, runtime].map(str::to_owned).into_iter().chain(jwk).collect();
    Running::start_and_hear_address(&std::env::current_exe()?, TESTED_CORE, &arguments)
}

/// Serves with the same settings as the real ones.
pub(crate) fn serve(runtime: Runtime, jwk: Option<&str>) -> anyhow::Result<()> {
    let empty = Empty { verifier: jwk.map(Verifier::new).transpose()?.map(Arc::new) };
    let mut builder = match runtime {
        Runtime::MultiThread => tokio::runtime::Builder::new_multi_thread(),
        Runtime::CurrentThread => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        crate::say(&listener.local_addr()?.to_string());
        tonic::transport::Server::builder()
            .max_concurrent_streams(1024)
            .add_service(AuthorizationServer::new(empty.clone()))
            .add_service(RateLimitServiceServer::new(empty))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await?;
        Ok(())
    })
}
