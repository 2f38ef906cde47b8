//! Calling the services of Tollgate: who calls, and who must answer.

use std::time::Duration;

use anyhow::Context as _;
use tollgate_identity::tls::GrpcChannel;
use tollgate_identity::{IdPattern, Identity};
use tollgate_runtime::clock::Clock;
use tonic::transport::Endpoint;

/// Who this proxy is, when it asks others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'i> {
    pub(crate) identity: Option<&'i Identity>,
    pub(crate) clock: &'i Clock,
}

impl Caller<'_> {
    /// A few kept HTTP/2 connections, opened when first used and again when they break.
    pub(crate) fn channels(
        &self,
        service: &str,
        address: &str,
        expected: Option<&IdPattern>,
        connections: usize,
    ) -> anyhow::Result<Vec<GrpcChannel>> {
        let endpoint = Endpoint::from_shared(address.replacen("https://", "http://", 1))?
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        let one = || {
            if !address.starts_with("https://") {
                return Ok(GrpcChannel::plain(endpoint.clone()));
            }
            let identity = self.identity.context("mTLS needs an identity")?;
            let expected = match expected {
                Some(expected) => expected.clone(),
                None => identity.of_our_own(service)?,
            };
            let (endpoint, clock) = (endpoint.clone(), self.clock.clone());
            Ok(GrpcChannel::mutual(endpoint, identity.clone(), vec![expected], clock)?)
        };
        (0..connections).map(|_| one()).collect()
    }
}
