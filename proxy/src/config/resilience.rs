//! What protects upstreams from us, and us from them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_runtime::config::duration;

use super::words::Percent;

/// How much may be under way to a cluster at once. What goes beyond is answered 503 at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Open connections. An endpoint without any may always open one.
    pub connections: usize,
    /// Requests that wait for a connection because those are all in use.
    pub pending: usize,
    /// Requests under way.
    pub requests: usize,
    /// Tries beyond the first, as a share of the requests under way.
    pub retry_percent: Percent,
    /// Tries beyond the first that are allowed however few requests are under way.
    pub min_retries: usize,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 4096,
            retry_percent: Percent::of_hundred(20),
            min_retries: 3,
        }
    }
}

/// When an endpoint is left out for a while because of its answers. On unless switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Whether endpoints are left out at all.
    pub enabled: bool,
    /// After so many answers 5xx in a row; 0 never.
    pub consecutive_5xx: u32,
    /// After so many answers 502, 503 or 504 in a row; 0 never.
    pub consecutive_gateway: u32,
    /// After so many requests in a row that got no answer: refused, reset, timed out; 0 never.
    pub consecutive_local_origin: u32,
    /// How often success is compared between endpoints, and the time of those left out is looked at.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// How long the first time; the nth time n times as long.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub base_ejection_time: Duration,
    /// The longest.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub max_ejection_time: Duration,
    /// Up to so much longer, by chance, so that not all come back at once.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub jitter: Duration,
    /// How many may be left out at once; of two or more at least one may.
    pub max_ejection_percent: Percent,
    /// Nobody is left out when fewer than this share would be left to use: the breaker holds then.
    pub min_health_percent: Percent,
    /// Success that lies below the others'.
    pub success_rate: SuccessRate,
    /// Failures beyond a fixed share.
    pub failure_percentage: FailurePercentage,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_5xx: 5,
            consecutive_gateway: 5,
            consecutive_local_origin: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            jitter: Duration::from_secs(3),
            max_ejection_percent: Percent::of_hundred(50),
            min_health_percent: Percent::of_hundred(30),
            success_rate: SuccessRate::default(),
            failure_percentage: FailurePercentage::default(),
        }
    }
}

/// An endpoint whose share of successes lies far below the mean of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// Endpoints that must have had enough requests; 0 switches it off.
    pub min_hosts: usize,
    /// Requests in one interval that are enough.
    pub request_volume: u64,
    /// How many thousandths of a standard deviation below the mean is too far.
    pub stdev_factor: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { min_hosts: 5, request_volume: 100, stdev_factor: 1900 }
    }
}

/// An endpoint of which too many answers are failures, whatever the others do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailurePercentage {
    /// Endpoints that must have had enough requests; 0 switches it off.
    pub min_hosts: usize,
    /// Requests in one interval that are enough.
    pub request_volume: u64,
    /// This share and more is too much.
    pub threshold: Percent,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { min_hosts: 2, request_volume: 50, threshold: Percent::of_hundred(40) }
    }
}

/// How endpoints are asked how they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    pub ask: HealthQuestion,
    /// How often, give or take a tenth.
    #[serde(default = "five_seconds", with = "duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// How long an answer may take.
    #[serde(default = "one_second", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Bad answers in a row until it is left out.
    #[serde(default = "three")]
    pub unhealthy_threshold: u32,
    /// Good answers in a row until it is used again.
    #[serde(default = "two")]
    pub healthy_threshold: u32,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthQuestion {
    /// A GET on this path, in the cluster's protocol, that must be answered 200 to 299.
    Http(String),
    /// `grpc.health.v1.Health/Check` about this service; empty, about the whole server. For clusters with `protocol: h2`.
    Grpc(String),
    /// To accept a connection: `tcp`.
    Tcp,
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn three() -> u32 {
    3
}

fn two() -> u32 {
    2
}

/// When a request is tried again, on another endpoint if there is one. Never when its body is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries beyond the first.
    #[serde(default = "one")]
    pub attempts: u32,
    /// After what. A connection that could not be opened is always reason enough.
    #[serde(default = "gateway_and_reset")]
    pub on: Vec<RetryOn>,
    /// After these statuses, too.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Methods that may be acted on twice.
    #[serde(default = "idempotent")]
    pub methods: Vec<String>,
    /// How long each try may take to begin its answer; none, as long as the route's `timeout`.
    #[serde(default, with = "duration::option")]
    #[schemars(with = "Option<String>")]
    pub per_try_timeout: Option<Duration>,
    /// The wait before the second try, doubled for each further one, less up to half of it by chance.
    #[serde(default = "backoff", with = "duration")]
    #[schemars(with = "String")]
    pub backoff: Duration,
    /// The longest wait. A `retry-after` that asks for more is passed on instead of waited for.
    #[serde(default = "max_backoff", with = "duration")]
    #[schemars(with = "String")]
    pub max_backoff: Duration,
}

/// What a try may end with to be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryOn {
    /// 502, 503, 504; for gRPC `UNAVAILABLE`.
    #[serde(rename = "gateway")]
    Gateway,
    /// Any 5xx.
    #[serde(rename = "5xx")]
    ServerError,
    /// 429.
    #[serde(rename = "429")]
    TooManyRequests,
    /// The connection closed before an answer.
    #[serde(rename = "reset")]
    Reset,
    /// `per_try_timeout` is over.
    #[serde(rename = "timeout")]
    Timeout,
}

/// A second try while the first is still under way; whichever answers first is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// How long the first has had no answer.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub after: Duration,
}

fn one() -> u32 {
    1
}

fn gateway_and_reset() -> Vec<RetryOn> {
    vec![RetryOn::Gateway, RetryOn::Reset]
}

fn idempotent() -> Vec<String> {
    ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].map(str::to_owned).to_vec()
}

fn backoff() -> Duration {
    Duration::from_millis(25)
}

fn max_backoff() -> Duration {
    Duration::from_millis(250)
}
