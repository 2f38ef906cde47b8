//! One service: how is it, and who depends on it?

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::overview::{Level, Series, ServiceRow, TimeRange};
use super::requests::OutcomeName;

/// Every service that was called.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Services {
    /// Busiest first.
    pub services: Vec<ServiceRow>,
}

/// A service in full.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct ServiceDetail {
    /// The range answered for.
    pub range: TimeRange,
    /// Its name.
    pub name: String,
    /// Its namespace, empty when no reporter named one.
    pub namespace: String,
    /// The sentence that answers first.
    pub verdict: ServiceVerdict,
    /// Its traffic.
    pub series: Series,
    /// Its durations over time.
    pub duration: DurationSeries,
    /// The 99th percentile of each version over time, on the steps of `duration`.
    pub by_version: Vec<VersionSeries>,
    /// Its versions side by side.
    pub versions: Vec<VersionRow>,
    /// Who calls it.
    pub callers: Vec<Peer>,
    /// Whom it calls.
    pub callees: Vec<Peer>,
    /// Its routes, busiest first.
    pub routes: Vec<RouteRow>,
    /// Facts in a line each.
    pub state: Vec<StateLine>,
}

/// A service page's first sentence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct ServiceVerdict {
    /// The sentence.
    pub text: String,
    /// The evidence.
    pub detail: String,
    /// How urgent it is.
    pub level: Level,
}

/// Percentiles a step of time, milliseconds; null where nothing was measured.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct DurationSeries {
    /// Start of the first step, unix milliseconds.
    pub from: u64,
    /// Length of a step, milliseconds.
    pub step_ms: u64,
    /// Medians.
    pub p50: Vec<Option<f64>>,
    /// 95th percentiles.
    pub p95: Vec<Option<f64>>,
    /// 99th percentiles.
    pub p99: Vec<Option<f64>>,
}

/// One version's durations over time.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct VersionSeries {
    /// The version, empty when no reporter named one.
    pub version: String,
    /// 99th percentiles, milliseconds; null where nothing was measured.
    pub p99: Vec<Option<f64>>,
}

/// One version of a service.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct VersionRow {
    /// The version, empty when no reporter named one.
    pub version: String,
    /// How many instances answered, as far as reporters say.
    #[schema(required = true)]
    pub endpoints: Option<u64>,
    /// Its share of the requests, in percent.
    pub share_percent: f64,
    /// Requests it answered.
    pub requests: u64,
    /// Of them, those that failed.
    pub failed: u64,
    /// Median duration, milliseconds.
    #[schema(required = true)]
    pub p50_ms: Option<f64>,
    /// 95th percentile, milliseconds.
    #[schema(required = true)]
    pub p95_ms: Option<f64>,
    /// 99th percentile, milliseconds.
    #[schema(required = true)]
    pub p99_ms: Option<f64>,
    /// The route with the largest 99th percentile, empty when unknown.
    pub slowest_route: String,
}

/// Somebody at the other end.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Peer {
    /// Its name; empty for callers from outside the mesh that no reporter named.
    pub name: String,
    /// Requests in the range.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// 95th percentile of duration, milliseconds.
    #[schema(required = true)]
    pub p95_ms: Option<f64>,
    /// Requests denied, limited or failed.
    pub stopped: u64,
    /// What stopped requests most often met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeName>,
    /// How the connection was protected; the weakest seen.
    pub security: Security,
}

/// How a connection was protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// In plaintext.
    None,
    /// No reporter said.
    Unknown,
    /// TLS, the caller not known by certificate.
    Tls,
    /// Both ends known by certificate.
    MutualTls,
}

/// One route of a service.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct RouteRow {
    /// HTTP method.
    pub method: String,
    /// The route's name or template.
    pub route: String,
    /// Requests in the range.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// 99th percentile of duration, milliseconds.
    #[schema(required = true)]
    pub p99_ms: Option<f64>,
    /// Requests denied, limited or failed.
    pub stopped: u64,
    /// The policy rules that decided, by name.
    pub rules: Vec<String>,
}

/// A fact about a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct StateLine {
    /// What it is about.
    pub label: String,
    /// What is the case.
    pub value: String,
}
