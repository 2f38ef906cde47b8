//! The first page and the status line: is anything wrong now?

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::requests::OutcomeName;

/// A span of time, unix milliseconds, `from` included and `to` not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct TimeRange {
    /// First millisecond.
    pub from: u64,
    /// The millisecond after the last.
    pub to: u64,
}

/// How the dashboard and what reports to it are doing.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Status {
    /// Age of the newest record when it was stored, in milliseconds: the largest of the last ten seconds.
    pub ingest_lag_ms: u64,
    /// Records that reached this dashboard in the last hour and were not kept.
    pub records_lost_1h: u64,
    /// The same since the start, by reason.
    pub records_dropped: BTreeMap<String, u64>,
    /// The newest policy epoch any proxy decided with.
    #[schema(required = true)]
    pub epoch: Option<u64>,
    /// How many proxies report, and how many of them are on that epoch.
    pub proxies: Proxies,
    /// Time of the oldest record kept, unix milliseconds.
    #[schema(required = true)]
    pub first_record_ms: Option<u64>,
    /// How long records are kept.
    pub retention: Retention,
    /// Version of this dashboard.
    pub version: String,
    /// This machine's time when it answered, unix milliseconds.
    pub now_ms: u64,
}

/// Reporters seen in the last five minutes that name a policy epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Proxies {
    /// All of them.
    pub total: u64,
    /// Those whose last record carried the newest epoch.
    pub on_epoch: u64,
}

/// How long things are kept.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
pub struct Retention {
    /// Days that raw records reach back.
    pub raw_days: u64,
}

/// The first page.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Overview {
    /// The range answered for.
    pub range: TimeRange,
    /// The sentence that answers first.
    pub verdict: Verdict,
    /// What needs a look, worst first; at most eight.
    pub findings: Vec<Finding>,
    /// Sums over the range.
    pub totals: Totals,
    /// The same over the range of equal length just before.
    pub previous: Totals,
    /// The traffic chart.
    pub series: Series,
    /// Every service that was called, busiest first.
    pub services: Vec<ServiceRow>,
    /// Why requests were stopped, most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// What changed in the range, oldest first.
    pub changes: Vec<Change>,
}

/// A page's first sentence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Verdict {
    /// The sentence, with a number in it.
    pub text: String,
    /// How urgent it is.
    pub level: Level,
}

/// How urgent a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing needs a look.
    Quiet,
    /// Something needs a look.
    Look,
    /// Something is failing now.
    Failing,
}

/// One thing that needs a look.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Finding {
    /// What sort of thing.
    pub kind: FindingKind,
    /// Who did what, in a sentence.
    pub title: String,
    /// The evidence, with numbers.
    pub detail: String,
    /// When, in words or clock times (UTC).
    pub when: String,
    /// Where the evidence is: a page path with its filter.
    pub link: String,
}

/// What sort of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Refused by policy or token.
    Denied,
    /// Refused by a limit.
    Limited,
    /// Failed upstream or at us.
    Failed,
    /// Slower than it should be.
    Slow,
    /// Reached without encryption.
    Plaintext,
    /// Telemetry was lost.
    Lost,
}

/// Sums over a range. Each request counts once, whoever reported it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Totals {
    /// All requests.
    pub requests: u64,
    /// Reached the upstream and were answered.
    pub passed: u64,
    /// Refused by policy or token.
    pub denied: u64,
    /// Refused by a limit.
    pub limited: u64,
    /// Failed upstream or at us.
    pub failed: u64,
    /// Requests a second.
    pub per_second: f64,
    /// Median duration, milliseconds; within 1 %.
    #[schema(required = true)]
    pub duration_p50_ms: Option<f64>,
    /// 95th percentile of duration, milliseconds.
    #[schema(required = true)]
    pub duration_p95_ms: Option<f64>,
    /// 99th percentile of duration, milliseconds.
    #[schema(required = true)]
    pub duration_p99_ms: Option<f64>,
    /// 99th percentile of the time an authorization decision took, milliseconds.
    #[schema(required = true)]
    pub decision_p99_ms: Option<f64>,
    /// Seconds in which at least one request passed because a check failed open.
    pub not_enforced_s: u64,
}

/// Counts a step of time. All lists have the same length; step `i` starts at `from + i * step_ms`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Series {
    /// Start of the first step, unix milliseconds.
    pub from: u64,
    /// Length of a step, milliseconds.
    pub step_ms: u64,
    /// Reached the upstream and were answered.
    pub passed: Vec<u64>,
    /// Refused by policy or token.
    pub denied: Vec<u64>,
    /// Refused by a limit.
    pub limited: Vec<u64>,
    /// Failed upstream or at us.
    pub failed: Vec<u64>,
    /// Requests outside the filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<Vec<u64>>,
    /// Records this dashboard had to drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Vec<u64>>,
}

/// A service in a list.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// Its namespace, empty when no reporter named one.
    pub namespace: String,
    /// Versions that answered.
    pub versions: Vec<String>,
    /// Requests in the range.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// 99th percentile of duration, milliseconds.
    #[schema(required = true)]
    pub p99_ms: Option<f64>,
    /// Share of requests that failed, in percent.
    pub failed_percent: f64,
    /// Requests denied or limited, plus those that failed.
    pub stopped: u64,
    /// The small chart.
    pub spark: Spark,
}

/// Counts for a sparkline; the range in 30 steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Spark {
    /// Reached the upstream and were answered.
    pub passed: Vec<u64>,
    /// Refused by policy or token.
    pub denied: Vec<u64>,
    /// Refused by a limit.
    pub limited: Vec<u64>,
    /// Failed upstream or at us.
    pub failed: Vec<u64>,
}

/// How often one reason stopped requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct ReasonCount {
    /// The reason code, as it came over the wire.
    pub reason: String,
    /// What it led to.
    pub outcome: OutcomeName,
    /// How often.
    pub count: u64,
    /// The caller most often concerned, empty when unknown.
    pub mostly: String,
}

/// Something that changed in the range.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Change {
    /// When, unix milliseconds.
    pub at_ms: u64,
    /// Its letter on the charts: A, B, C.
    pub letter: String,
    /// What changed.
    pub title: String,
    /// More about it.
    pub detail: String,
    /// What sort of change.
    pub kind: ChangeKind,
}

/// What sort of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The policy moved to another epoch.
    Policy,
    /// A version of a service appeared.
    Deploy,
}
