//! Limits from an xDS server, state of the world: each answer is all limits there are.
//!
//! ```text
//! connect --request(version in force)--> wait for an answer --good--> in force, ACK --+
//!    ^                                       ^     \--bad--> the old stays, NACK -----+
//!    +---- wait, doubling <--- broken        +----------------------------------------+
//! ```
//!
//! Until the first good answer the service is not ready, and answers that it has no limits. A server that goes away
//! takes nothing with it.

mod connect;
mod settings;
pub mod shape;

pub use settings::{XdsConfig, XdsStream, XdsTlsConfig};

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tollgate_proto::envoy_types::pb::envoy::config::core::v3::Node;
use tollgate_proto::envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tollgate_proto::envoy_types::pb::google::rpc::Status as RpcStatus;
use tollgate_runtime::Service;
use tollgate_runtime::readiness::Blocker;
use tonic::client::Grpc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};
use tonic_prost::ProstCodec;

use crate::limiter::Limiter;
use crate::limits::{Domains, Folder};
use crate::metrics::Metrics;
use crate::quota::Hub;
use shape::TYPE_URL;

/// Bytes one answer may have.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// How many times the first wait the longest is.
const LONGEST_WAIT: u32 = 10;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a complaint that the server is sent.
const MAX_COMPLAINT: usize = 1_024;

/// Follows one server.
#[derive(Debug)]
pub struct Follower {
    config: XdsConfig,
    domains: Domains,
    limiter: Limiter,
    hub: Hub,
    metrics: Metrics,
    /// The version in force.
    version: String,
    last: Option<Folder>,
    /// Until there are limits.
    blocker: Option<Blocker>,
}

/// Reads limits from the server until the service stops.
pub fn keep_current(
    service: &Service,
    config: XdsConfig,
    domains: Domains,
    limiter: Limiter,
    hub: Hub,
    metrics: Metrics,
) {
    let blocker = Some(service.readiness().blocker("limits"));
    let follower =
        Follower { config, domains, limiter, hub, metrics, version: String::new(), last: None, blocker };
    let stopping = service.tasks().stopping();
    service.tasks().spawn_essential("xds", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = follower.run() => {}
        }
    });
}

impl Follower {
    async fn run(mut self) {
        let mut wait = self.config.retry_interval;
        let mut complained = false;
        loop {
            let before = self.version.clone();
            let problem = self.follow().await;
            if before != self.version {
                (wait, complained) = (self.config.retry_interval, false);
            }
            // Once, however often it is tried again.
            if !std::mem::replace(&mut complained, true) {
                let address = &self.config.address;
                tracing::warn!(address, problem, "the xds stream is broken; the limits before stay in force");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(self.config.retry_interval * LONGEST_WAIT);
        }
    }

    /// One stream, to its end; why it ended.
    async fn follow(&mut self) -> String {
        let (requests, outgoing) = mpsc::channel(2);
        if requests.send(self.request("", None)).await.is_err() {
            return "the stream takes no request".to_owned();
        }
        let mut answers = match tokio::time::timeout(OPEN_TIMEOUT, self.open(outgoing)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(problem)) => return problem,
            Err(_) => return "it cannot be opened in time".to_owned(),
        };
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    let reply = self.take(&answer);
                    if requests.send(reply).await.is_err() {
                        return "the server hears nothing more".to_owned();
                    }
                }
                Ok(None) => return "the server ended it".to_owned(),
                Err(status) => return status.to_string(),
            }
        }
    }

    async fn open(
        &self,
        outgoing: mpsc::Receiver<DiscoveryRequest>,
    ) -> Result<Streaming<DiscoveryResponse>, String> {
        let channel = connect::channel(&self.config).map_err(|error| format!("{error:#}"))?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        grpc.ready().await.map_err(|error| with_causes(&error))?;
        let path = match self.config.stream {
            XdsStream::Aggregated => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
            XdsStream::RlsConfigs => {
                "/ratelimit.service.ratelimit.v3.RateLimitConfigDiscoveryService/StreamRlsConfigs"
            }
        };
        let request = Request::new(ReceiverStream::new(outgoing));
        let codec: ProstCodec<DiscoveryRequest, DiscoveryResponse> = ProstCodec::default();
        let opened = grpc.streaming(request, PathAndQuery::from_static(path), codec).await;
        opened.map(tonic::Response::into_inner).map_err(|status| status.to_string())
    }

    fn request(&self, nonce: &str, complaint: Option<String>) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.version.clone(),
            node: Some(Node { id: self.config.node_id.clone(), ..Node::default() }),
            type_url: TYPE_URL.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: complaint.map(|message| RpcStatus {
                code: Code::InvalidArgument.into(),
                message,
                details: Vec::new(),
            }),
            ..DiscoveryRequest::default()
        }
    }

    /// Puts what an answer holds in force, or says what is wrong with it.
    fn take(&mut self, answer: &DiscoveryResponse) -> DiscoveryRequest {
        match self.apply(answer) {
            Ok(()) => {
                self.version.clone_from(&answer.version_info);
                self.request(&answer.nonce, None)
            }
            Err(mut complaint) => {
                self.metrics.reloaded(false);
                let version = &answer.version_info;
                tracing::error!(
                    version,
                    error = complaint,
                    "limits from xds are wrong, the ones before stay in force"
                );
                complaint.truncate(complaint.floor_char_boundary(MAX_COMPLAINT));
                self.request(&answer.nonce, Some(complaint))
            }
        }
    }

    fn apply(&mut self, answer: &DiscoveryResponse) -> Result<(), String> {
        if answer.type_url != TYPE_URL {
            return Err(format!("an answer of type {}", answer.type_url));
        }
        let files = shape::files_of(&answer.resources).map_err(|error| error.to_string())?;
        if self.last.as_ref() != Some(&files) {
            let set = files.compile_with(self.domains).map_err(|error| error.to_string())?;
            let rules: usize = set.domains().map(|domain| domain.rules().len()).sum();
            self.limiter.replace(set);
            self.hub.limits_changed();
            self.metrics.reloaded(true);
            tracing::info!(version = answer.version_info, rules, "limits from xds");
            self.last = Some(files);
        }
        self.blocker = None;
        Ok(())
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text = format!("{text}: {one}");
        cause = one.source();
    }
    text
}
