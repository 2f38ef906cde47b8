//! `StreamRateLimitQuotas`: reports in, assignments out.
//!
//! One task a stream. It reads a report only when it is done with the one before, and writes only when the client
//! takes what was written: a slow reader costs its outbox (see [`crate::quota::hub`]) and one message, and is cut off
//! when it takes nothing for as long as an assignment lives. A client that ends its half of the stream gives its
//! shares back; a stream that breaks does not, since its proxy may well live on.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::{BlanketRule, Strategy};
use tollgate_proto::envoy_types::pb::envoy::r#type::v3::{RateLimitStrategy, TokenBucket};
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::BucketAction;
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::{
    AbandonAction, BucketAction as Kind, QuotaAssignmentAction,
};
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_service_server::{
    RateLimitQuotaService, RateLimitQuotaServiceServer,
};
use tollgate_proto::envoy_types::pb::envoy::service::rate_limit_quota::v3::{
    BucketId as WireBucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports,
};
use tollgate_proto::envoy_types::pb::google::protobuf::{Duration as WireDuration, UInt32Value};
use tollgate_runtime::tasks::{Stopping, Tasks};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::quota::Hub;
use crate::quota::division::Usage;
use crate::quota::hub::{Assignment, BucketId, StreamId, What};

/// Bytes one report may have: ten thousand buckets with ids of some length.
const MAX_REPORT_BYTES: usize = 4 << 20;
/// gRPC metadata by which a client may name itself. Without it a stream is a client.
const CLIENT_NAME: &str = "tollgate-client";
/// Longer names are cut.
const MAX_NAME_BYTES: usize = 256;

/// What the service is called on the wire.
pub const NAME: &str = "envoy.service.rate_limit_quota.v3.RateLimitQuotaService";

/// The service, for a server.
pub fn server(hub: Hub, tasks: Tasks) -> RateLimitQuotaServiceServer<Quotas> {
    RateLimitQuotaServiceServer::new(Quotas { hub, tasks }).max_decoding_message_size(MAX_REPORT_BYTES)
}

/// Serves a [`Hub`].
#[derive(Debug)]
pub struct Quotas {
    hub: Hub,
    tasks: Tasks,
}

type Out = Result<RateLimitQuotaResponse, Status>;

#[tonic::async_trait]
impl RateLimitQuotaService for Quotas {
    type StreamRateLimitQuotasStream = Pin<Box<dyn Stream<Item = Out> + Send>>;

    async fn stream_rate_limit_quotas(
        &self,
        request: Request<Streaming<RateLimitQuotaUsageReports>>,
    ) -> Result<Response<Self::StreamRateLimitQuotasStream>, Status> {
        let name = request.metadata().get(CLIENT_NAME).and_then(|name| name.to_str().ok());
        let name = name.filter(|name| !name.is_empty()).map(|name| &name[..name.len().min(MAX_NAME_BYTES)]);
        let Some((id, wake)) = self.hub.open(name) else {
            return Err(Status::resource_exhausted("this service has as many quota streams as it takes"));
        };
        let (to_client, outgoing) = mpsc::channel(1);
        let conversation = Conversation {
            hub: self.hub.clone(),
            id,
            wake,
            incoming: request.into_inner(),
            to_client,
            domain: String::new(),
            unread_since: None,
            stopping: self.tasks.stopping(),
        };
        self.tasks.spawn("quota-stream", conversation.run());
        Ok(Response::new(Box::pin(FromChannel(outgoing))))
    }
}

/// What the client is sent.
struct FromChannel(mpsc::Receiver<Out>);

impl Stream for FromChannel {
    type Item = Out;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// One stream from its first report to its end.
struct Conversation {
    hub: Hub,
    id: StreamId,
    wake: Arc<Notify>,
    incoming: Streaming<RateLimitQuotaUsageReports>,
    to_client: mpsc::Sender<Out>,
    domain: String,
    /// Since when there is something that the client does not take.
    unread_since: Option<Instant>,
    stopping: Stopping,
}

/// What a conversation waits for.
enum Event {
    Report(RateLimitQuotaUsageReports),
    MayWrite,
    News,
    GivenBack,
    Broken,
}

impl Conversation {
    async fn run(mut self) {
        let given_back = self.talk().await;
        self.hub.close(self.id, given_back);
    }

    /// Talks until one side ends it; whether the client did so in good order.
    async fn talk(&mut self) -> bool {
        loop {
            match self.next().await {
                Event::Report(report) => {
                    if let Err(refused) = self.read(report) {
                        // The client may be gone already.
                        let _ = self.to_client.try_send(Err(refused));
                        return false;
                    }
                }
                Event::MayWrite => {
                    self.unread_since = None;
                    let told = self.hub.take(self.id);
                    // There was room a moment ago, and nobody else writes.
                    if !told.is_empty() && self.to_client.try_send(Ok(message(told, self.hub.ttl()))).is_err()
                    {
                        return false;
                    }
                }
                Event::News => {}
                Event::GivenBack => return true,
                Event::Broken => return false,
            }
        }
    }

    async fn next(&mut self) -> Event {
        let has_news = self.hub.has_news(self.id);
        // Kept over reports, which may well come from a client that reads nothing.
        let unread_since = *self.unread_since.get_or_insert_with(Instant::now);
        if !has_news {
            self.unread_since = None;
        }
        tokio::select! {
            // What arrived is read first: a client that ends its stream is not told anything more.
            biased;
            () = self.stopping.cancelled() => Event::Broken,
            report = self.incoming.message() => match report {
                Ok(Some(report)) => Event::Report(report),
                Ok(None) => Event::GivenBack,
                Err(_) => Event::Broken,
            },
            permit = self.to_client.reserve(), if has_news => {
                permit.map_or(Event::Broken, |_| Event::MayWrite)
            }
            // A reader that takes nothing for so long holds assignments that have expired.
            () = tokio::time::sleep_until(unread_since + self.hub.ttl()), if has_news => Event::Broken,
            () = self.wake.notified(), if !has_news => Event::News,
        }
    }

    /// Envoy names the domain in every message, the protocol only asks for it in the first.
    fn read(&mut self, report: RateLimitQuotaUsageReports) -> Result<(), Status> {
        if !report.domain.is_empty() {
            self.domain = report.domain;
        }
        if self.domain.is_empty() {
            return Err(Status::invalid_argument("rate limit domain must not be empty"));
        }
        for usage in report.bucket_quota_usages {
            let Some(bucket) = usage.bucket_id else { continue };
            let seconds = usage.time_elapsed.map_or(0, |elapsed| elapsed.seconds);
            let used = Usage {
                allowed: usage.num_requests_allowed,
                denied: usage.num_requests_denied,
                elapsed_seconds: u64::try_from(seconds).unwrap_or(0),
                veteran: false,
            };
            self.hub.report(self.id, &self.domain, BucketId::new(bucket.bucket), used);
        }
        Ok(())
    }
}

fn message(told: Vec<Assignment>, ttl: std::time::Duration) -> RateLimitQuotaResponse {
    RateLimitQuotaResponse { bucket_action: told.into_iter().map(|one| action(&one, ttl)).collect() }
}

fn action(told: &Assignment, ttl: std::time::Duration) -> BucketAction {
    let strategy = match told.what {
        What::AllowAll => Some(Strategy::BlanketRule(BlanketRule::AllowAll.into())),
        What::DenyAll => Some(Strategy::BlanketRule(BlanketRule::DenyAll.into())),
        What::Tokens { max, per_fill, fill_seconds } => Some(Strategy::TokenBucket(TokenBucket {
            max_tokens: max,
            tokens_per_fill: Some(UInt32Value { value: per_fill }),
            fill_interval: Some(WireDuration { seconds: fill_seconds.into(), nanos: 0 }),
        })),
        What::Abandon => None,
    };
    let kind = match strategy {
        None => Kind::AbandonAction(AbandonAction {}),
        Some(strategy) => Kind::QuotaAssignmentAction(QuotaAssignmentAction {
            // Without one Envoy takes an assignment for expired at once.
            assignment_time_to_live: Some(WireDuration {
                seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
                nanos: 0,
            }),
            rate_limit_strategy: Some(RateLimitStrategy { strategy: Some(strategy) }),
        }),
    };
    let bucket = told.bucket.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    BucketAction { bucket_id: Some(WireBucketId { bucket }), bucket_action: Some(kind) }
}
