//! The least that any answer can cost: tonic decodes the whole message and answers nothing.

use std::net::SocketAddr;

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

/// The argument with which this program is the empty service.
const ARGUMENT: &str = "serve-empty";

struct Empty;

#[tonic::async_trait]
impl Authorization for Empty {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        drop(request.into_inner());
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

/// Starts it on the core of the servers under test.
pub(crate) fn start() -> anyhow::Result<(Running, SocketAddr)> {
    Running::start_and_hear_address(&std::env::current_exe()?, TESTED_CORE, &[ARGUMENT.to_owned()])
}

/// Serves with the same settings as the real ones.
pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        crate::say(&listener.local_addr()?.to_string());
        tonic::transport::Server::builder()
            .max_concurrent_streams(1024)
            .add_service(AuthorizationServer::new(Empty))
            .add_service(RateLimitServiceServer::new(Empty))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await?;
        Ok(())
    })
}
