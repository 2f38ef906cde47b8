//! The live view: each limit's use, who is near, who is limited now, who talks most.

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use crate::limiter::WatchedRule;
use crate::quota::hub::Standing;
use crate::talkers::Talker;

/// Limits shown at once.
const MOST_LIMITS: usize = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct UsageQuery {
    /// Only limits of this domain.
    domain: Option<String>,
    /// Callers named for each limit; 10 unless set.
    top: Option<usize>,
}

/// What the limits see.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Usage {
    /// `memory`, or `redis`.
    store: &'static str,
    /// The store does not answer at present.
    failing: bool,
    /// Replicas that share the store, as far as is known.
    replicas: u32,
    /// Counters in this process.
    counters: usize,
    /// Bytes they take.
    counter_bytes: usize,
    /// Limits, most refusals first.
    limits: Vec<LimitUsage>,
}

/// What one limit sees. Counts are since this process began.
#[derive(Debug, Serialize, ToSchema)]
struct LimitUsage {
    domain: String,
    rule: String,
    /// Composite key.
    path: String,
    /// `enforce`, `shadow`, `quota` or `candidate`.
    mode: &'static str,
    algorithm: &'static str,
    requests: u32,
    window_seconds: u64,
    /// Where it is written, as `file:line`.
    source: String,
    calls: u64,
    over: u64,
    near: u64,
    /// Callers of the last minute or two, most hits first.
    top: Vec<Caller>,
    /// Callers that are over it at this moment.
    limited_now: Vec<Caller>,
}

/// One caller of a limit.
#[derive(Debug, Serialize, ToSchema)]
struct Caller {
    caller: String,
    /// Too many by `error` at most.
    hits: u64,
    error: u64,
    refused: u64,
    /// Second of Unix time until which it is limited; 0 where it is not.
    limited_until: u64,
}

impl From<&Talker> for Caller {
    fn from(talker: &Talker) -> Self {
        Self {
            caller: talker.label.to_string(),
            hits: talker.hits,
            error: talker.error,
            refused: talker.refused,
            limited_until: talker.limited_until,
        }
    }
}

fn shown(watched: &WatchedRule, top: usize, now_seconds: u64) -> LimitUsage {
    let (rule, counts) = (&watched.rule, watched.activity.counts());
    let talkers = watched.activity.talkers(now_seconds);
    let limit = rule.limit();
    LimitUsage {
        domain: watched.domain.to_string(),
        rule: rule.name().to_owned(),
        path: rule.path.to_string(),
        mode: rule.mode.name(),
        algorithm: limit.map_or("unlimited", |limit| limit.algorithm.name()),
        requests: limit.map_or(0, |limit| limit.requests),
        window_seconds: limit.map_or(0, |limit| limit.window.seconds()),
        source: rule.source.to_string(),
        calls: counts.calls,
        over: counts.over,
        near: counts.near,
        top: talkers.iter().take(top).map(Caller::from).collect(),
        limited_now: talkers
            .iter()
            .filter(|talker| talker.limited_until > now_seconds)
            .take(top)
            .map(Caller::from)
            .collect(),
    }
}

/// Use of each limit.
#[utoipa::path(get, path = "/v1/usage", params(UsageQuery), responses((status = 200, body = Usage)))]
pub(super) async fn usage(State(admin): State<Admin>, Query(query): Query<UsageQuery>) -> Json<Usage> {
    let (counters, now_seconds) = (admin.limiter.counters(), admin.limiter.now_seconds());
    let mut limits: Vec<_> = admin
        .limiter
        .watched(query.domain.as_deref())
        .iter()
        .map(|watched| shown(watched, query.top.unwrap_or(10), now_seconds))
        .collect();
    limits.sort_by_key(|limit| (std::cmp::Reverse(limit.over), std::cmp::Reverse(limit.calls)));
    limits.truncate(MOST_LIMITS);
    Json(Usage {
        store: if counters.redis().is_some() { "redis" } else { "memory" },
        failing: counters.is_failing(),
        replicas: counters.replicas(),
        counters: counters.memory().len(),
        counter_bytes: counters.memory().bytes(),
        limits,
    })
}

/// Limits that are divided among proxies, and who has which share.
#[utoipa::path(get, path = "/v1/quota", responses((status = 200, body = Vec<Standing>)))]
pub(super) async fn quota(State(admin): State<Admin>) -> Json<Vec<Standing>> {
    Json(admin.hub.standings(MOST_LIMITS))
}
