//! Asking the rate-limit service: filled descriptors in, a decision and headers out.
//!
//! The messages are declared here, with Envoy's package, names and numbers, because `envoy-types` lacks
//! `unit_multiplier`.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_identity::tls::GrpcChannel;
use tollgate_runtime::trace_context;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::authorize::within;
use super::caller::Caller;
use super::headers::may_be_mutated;
use super::quota_headers;
use crate::config::{OnError, RateLimitConfig};
use crate::error::Limited;
use wire::{OVER_LIMIT, RateLimitRequest, RateLimitResponse};

/// Asks the rate-limit service.
#[derive(Debug)]
pub(crate) struct Limiter {
    channels: Vec<GrpcChannel>,
    next: AtomicUsize,
    config: RateLimitConfig,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is room, or there is no limit.
    Within(Answer),
    /// There is none.
    Over(Answer, Box<Limited>),
    /// Nobody answered.
    Unavailable,
}

/// What the limiter says beside yes and no.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The rule nearest to its limit.
    pub(crate) rule: Option<String>,
    pub(crate) limit: Option<u32>,
    pub(crate) remaining: Option<u32>,
    pub(crate) reset_s: Option<u64>,
    /// The descriptor of that rule, as `key=value,…`.
    pub(crate) descriptor: Option<String>,
    /// For the client.
    pub(crate) response: HeaderMap,
    /// For the upstream.
    pub(crate) request: HeaderMap,
}

impl Limiter {
    pub(crate) fn new(config: &RateLimitConfig, caller: &Caller<'_>) -> anyhow::Result<Self> {
        let expected = config.spiffe_id.as_ref();
        let channels = caller.channels("ratelimit", &config.address, expected, config.connections)?;
        Ok(Self { channels, next: AtomicUsize::new(0), config: config.clone() })
    }

    pub(crate) fn config(&self) -> &RateLimitConfig {
        &self.config
    }

    /// What happens to a request of a route when there is no answer.
    pub(crate) fn on_error(&self, route: Option<OnError>) -> OnError {
        route.unwrap_or(self.config.on_error)
    }

    /// Asks, and waits for the answer no longer than `rate_limit.timeout`.
    pub(crate) async fn ask(
        &self,
        descriptors: Vec<Vec<(String, String)>>,
        trace: &opentelemetry::Context,
    ) -> Outcome {
        let question = RateLimitRequest {
            domain: self.config.domain.clone(),
            descriptors: descriptors
                .into_iter()
                .map(|entries| wire::Descriptor {
                    entries: entries.into_iter().map(|(key, value)| wire::Entry { key, value }).collect(),
                })
                .collect(),
        };
        let texts = question.clone();
        let mut request = tonic::Request::new(question);
        trace_context::inject_metadata(trace, request.metadata_mut());
        request.set_timeout(self.config.timeout);
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        // On the heap, as the call to authorization is.
        let call = Box::pin(should_limit(self.channels[index].channel(), request));
        match within(self.config.timeout, call).await {
            // Envoy lets UNKNOWN pass without counting it; so do we, as the limiter gave no verdict.
            Ok(answer) => read_answer(answer, &texts),
            Err(_) => Outcome::Unavailable,
        }
    }
}

async fn should_limit(
    channel: Channel,
    request: tonic::Request<RateLimitRequest>,
) -> Result<RateLimitResponse, tonic::Status> {
    let path = PathAndQuery::from_static("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    grpc.unary(request, path, ProstCodec::default()).await.map(tonic::Response::into_inner)
}

fn read_answer(answer: RateLimitResponse, question: &RateLimitRequest) -> Outcome {
    let mut read = Answer::default();
    let shown = quota_headers::nearest(&answer.statuses);
    if let Some((status, limit)) =
        shown.and_then(|status| status.current_limit.as_ref().map(|limit| (status, limit)))
    {
        read.rule = Some(limit.name.clone()).filter(|name| !name.is_empty());
        read.limit = Some(limit.requests_per_unit);
        read.remaining = Some(status.limit_remaining);
        read.reset_s = Some(status.reset().as_secs());
        // One status per descriptor, in the order of the question.
        let index = answer.statuses.iter().position(|other| std::ptr::eq(other, status));
        read.descriptor = index.and_then(|index| question.descriptors.get(index)).map(ToString::to_string);
    }
    quota_headers::add(&answer.statuses, &mut read.response);
    copy(answer.response_headers_to_add, &mut read.response);
    if answer.overall_code != OVER_LIMIT {
        copy(answer.request_headers_to_add, &mut read.request);
        return Outcome::Within(read);
    }
    let mut limited = Limited {
        headers: std::mem::take(&mut read.response),
        body: (!answer.raw_body.is_empty()).then(|| Bytes::from(answer.raw_body)),
    };
    limited.headers.insert(http::header::RETRY_AFTER, quota_headers::retry_after(&answer.statuses));
    Outcome::Over(read, Box::new(limited))
}

/// Headers that cannot be sent are left out: the decision itself stands without them.
fn copy(from: Vec<wire::HeaderValueOption>, to: &mut HeaderMap) {
    for header in from.into_iter().filter_map(|option| option.header) {
        let name = HeaderName::try_from(header.key).ok().filter(may_be_mutated);
        let value = if header.raw_value.is_empty() {
            HeaderValue::try_from(header.value).ok()
        } else {
            HeaderValue::from_bytes(&header.raw_value).ok()
        };
        if let (Some(name), Some(value)) = (name, value) {
            to.insert(name, value);
        }
    }
}

/// `envoy.service.ratelimit.v3`, as far as it means something to this proxy.
pub mod wire {
    use std::fmt;
    use std::time::Duration;

    /// `RateLimitResponse.Code.OVER_LIMIT`
    pub const OVER_LIMIT: i32 = 2;

    /// `RateLimitRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RateLimitRequest {
        /// The domain.
        #[prost(string, tag = "1")]
        pub domain: String,
        /// What the request is counted by.
        #[prost(message, repeated, tag = "2")]
        pub descriptors: Vec<Descriptor>,
    }

    /// `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Descriptor {
        /// Its entries.
        #[prost(message, repeated, tag = "1")]
        pub entries: Vec<Entry>,
    }

    impl fmt::Display for Descriptor {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (index, entry) in self.entries.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                write!(f, "{comma}{}={}", entry.key, entry.value)?;
            }
            Ok(())
        }
    }

    /// `RateLimitDescriptor.Entry`
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct Entry {
        /// Its key.
        #[prost(string, tag = "1")]
        pub key: String,
        /// Its value.
        #[prost(string, tag = "2")]
        pub value: String,
    }

    /// `RateLimitResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RateLimitResponse {
        /// The decision.
        #[prost(int32, tag = "1")]
        pub overall_code: i32,
        /// One per descriptor.
        #[prost(message, repeated, tag = "2")]
        pub statuses: Vec<DescriptorStatus>,
        /// For the client.
        #[prost(message, repeated, tag = "3")]
        pub response_headers_to_add: Vec<HeaderValueOption>,
        /// For the upstream.
        #[prost(message, repeated, tag = "4")]
        pub request_headers_to_add: Vec<HeaderValueOption>,
        /// The body of a refusal.
        #[prost(bytes = "vec", tag = "5")]
        pub raw_body: Vec<u8>,
    }

    /// `RateLimitResponse.DescriptorStatus`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct DescriptorStatus {
        /// Its own decision.
        #[prost(int32, tag = "1")]
        pub code: i32,
        /// The limit, where there is one.
        #[prost(message, optional, tag = "2")]
        pub current_limit: Option<RateLimit>,
        /// What is left of it.
        #[prost(uint32, tag = "3")]
        pub limit_remaining: u32,
        /// Until it begins anew.
        #[prost(message, optional, tag = "4")]
        pub duration_until_reset: Option<WireDuration>,
    }

    impl DescriptorStatus {
        /// Until the limit begins anew.
        pub fn reset(&self) -> Duration {
            self.duration_until_reset.map_or(Duration::ZERO, |wire| {
                Duration::new(
                    u64::try_from(wire.seconds).unwrap_or(0),
                    u32::try_from(wire.nanos).unwrap_or(0),
                )
            })
        }
    }

    /// `RateLimitResponse.RateLimit`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RateLimit {
        /// How many in a window.
        #[prost(uint32, tag = "1")]
        pub requests_per_unit: u32,
        /// The window.
        #[prost(int32, tag = "2")]
        pub unit: i32,
        /// The rule.
        #[prost(string, tag = "3")]
        pub name: String,
        /// How many units a window has: a `google.protobuf.UInt32Value`.
        #[prost(message, optional, tag = "4")]
        pub unit_multiplier: Option<u32>,
    }

    /// `google.protobuf.Duration`
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct WireDuration {
        /// Seconds.
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        /// Nanoseconds.
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }

    /// `envoy.config.core.v3.HeaderValueOption`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HeaderValueOption {
        /// The header.
        #[prost(message, optional, tag = "1")]
        pub header: Option<HeaderValue>,
    }

    /// `envoy.config.core.v3.HeaderValue`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HeaderValue {
        /// Its name.
        #[prost(string, tag = "1")]
        pub key: String,
        /// Its value.
        #[prost(string, tag = "2")]
        pub value: String,
        /// Its value, where it is not text.
        #[prost(bytes = "vec", tag = "3")]
        pub raw_value: Vec<u8>,
    }
}
