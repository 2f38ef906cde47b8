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

/// The argument with which this program is the empty service; the next one says on which runtime.
const ARGUMENT: &str = "serve-empty";

/// Tokio's runtimes. With one core the one for several threads, which our services run on, writes each answer by
/// itself; the one for a single thread writes those together that are ready together.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Runtime {
    MultiThread,
    CurrentThread,
}

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
pub(crate) fn start(runtime: Runtime) -> anyhow::Result<(Running, SocketAddr)> {
    let runtime = match runtime {
        Runtime::MultiThread => "multi-thread",
        Runtime::CurrentThread => "current-thread",
    };
    let arguments = [ARGUMENT, runtime].map(str::to_owned);
    Running::start_and_hear_address(&std::env::current_exe()?, TESTED_CORE, &arguments)
}

/// Serves with the same settings as the real ones.
pub(crate) fn serve(runtime: Runtime) -> anyhow::Result<()> {
    let mut builder = match runtime {
        Runtime::MultiThread => tokio::runtime::Builder::new_multi_thread(),
        Runtime::CurrentThread => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build()?.block_on(async {
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
