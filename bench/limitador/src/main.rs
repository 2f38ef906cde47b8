//! Limitador's exact Redis mode behind the same tonic server as ours, for comparing within one run.
//!
//! Prints its address, then serves. The argument is the Redis URL.

use std::collections::HashMap;

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use limitador::AsyncRateLimiter;
use limitador::limit::Limit;
use limitador::storage::redis::AsyncRedisStorage;
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Limiter(AsyncRateLimiter);

#[tonic::async_trait]
impl RateLimitService for Limiter {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let values: HashMap<String, String> = request
            .descriptors
            .into_iter()
            .flat_map(|descriptor| descriptor.entries)
            .map(|entry| (entry.key, entry.value))
            .collect();
        let checked = self
            .0
            .check_rate_limited_and_update(&request.domain.into(), &values.into(), 1)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let overall_code = if checked.limited { 2 } else { 1 };
        Ok(Response::new(RateLimitResponse { overall_code, ..RateLimitResponse::default() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let redis = std::env::args().nth(1).ok_or("the Redis URL is missing")?;
    let limiter = AsyncRateLimiter::new_with_storage(Box::new(AsyncRedisStorage::new(&redis).await?));
    let limit = Limit::new(
        "bench",
        1_000_000,
        3_600,
        vec!["plan == 'free'".try_into()?],
        vec!["user".try_into()?],
    );
    limiter.add_limit(limit);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = RateLimitServiceServer::new(Limiter(limiter));
    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}
