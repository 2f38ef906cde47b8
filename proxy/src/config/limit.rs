//! Limits: those that this proxy holds by itself, and how it asks for the global ones.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_identity::IdPattern;
use tollgate_runtime::config::{Invalid, duration};

use super::{Config, DescriptorEntry, OnError};
use crate::route::descriptor::Value;
use crate::stages::local_limit::{LocalLimit as Compiled, When};

/// How the rate-limit service is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Its gRPC address: `https://127.0.0.1:7002` for mTLS by this proxy's identity, `http://` on this machine.
    pub address: String,
    /// Who must answer there; `ns/tollgate-system/sa/ratelimit` of our trust domain if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<IdPattern>,
    /// The domain of its limits.
    pub domain: String,
    /// How long an answer may take.
    #[serde(default = "timeout", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// What happens without an answer.
    #[serde(default = "allow")]
    pub on_error: OnError,
    /// HTTP/2 connections that are kept to it.
    #[serde(default = "two")]
    pub connections: usize,
    /// How shares of limits with `enforcement: quota` are held.
    #[serde(default)]
    pub quota: QuotaConfig,
}

fn timeout() -> Duration {
    Duration::from_millis(20)
}

fn allow() -> OnError {
    OnError::Allow
}

fn two() -> usize {
    2
}

/// How shares of global limits are held here: decided without asking, and reported (RLQS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// How often use is reported.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub report_interval: Duration,
    /// Buckets at once; requests of further ones share one bucket that has no share.
    pub max_buckets: usize,
    /// Requests a second, and at once, that a bucket lets pass while it has no share: before its first assignment and
    /// after its last has expired. It is what this proxy may add to the limit. 0 refuses them.
    pub unassigned_per_second: u32,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self { report_interval: Duration::from_secs(2), max_buckets: 10_000, unassigned_per_second: 10 }
    }
}

/// A limit that this proxy holds by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalLimit {
    /// How many.
    pub requests: u32,
    /// In what time, such as `1s` or `1m`.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub per: Duration,
    /// How many at once; `requests` unless set.
    #[serde(default)]
    pub burst: Option<u32>,
    /// Only requests for these hosts, exact or `*.example.org`; together, unless `key` tells them apart.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Each value of this has a bucket of its own, such as `{client.address}` or `{token.subject}`. Without it there
    /// is one for all.
    #[serde(default)]
    pub key: Option<String>,
}

/// Asking the rate-limit service about each new connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionLimit {
    /// What a connection is counted by: text, `{client.address}` and `{listener.name}`.
    pub descriptors: Vec<Vec<DescriptorEntry>>,
    /// What happens without an answer, in place of `rate_limit.on_error`.
    #[serde(default)]
    pub on_error: Option<OnError>,
}

/// What parses but cannot be used, of limits.
pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    if let Some(limit) = &config.rate_limit {
        quota(&limit.quota)?;
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        let at = format!("listeners[{index}]");
        let limits = Compiled::compile_all(&listener.local_limits, &format!("{at}.local_limits"))?;
        if let Some(late) = limits.iter().position(|limit| limit.when() == When::AfterAuthorization) {
            return Err(Invalid::new(
                format!("{at}.local_limits[{late}].key"),
                "no token is verified yet where a listener's limits are held",
                "a key of something else, or a limit of a route",
            ));
        }
        if let Some(limit) = &listener.connection_limit {
            connection(config, limit, &format!("{at}.connection_limit"))?;
        }
    }
    for (index, route) in config.routes.iter().enumerate() {
        Compiled::compile_all(&route.local_limits, &format!("routes[{index}].local_limits"))?;
        descriptors(&route.descriptors, &format!("routes[{index}].descriptors"))?;
        let at = format!("routes[{index}].quota");
        descriptors(&route.quota, &at)?;
        if !route.quota.is_empty() && config.rate_limit.is_none() {
            return Err(nobody_counts(at));
        }
        for (index, one) in route.quota.iter().enumerate() {
            let mut keys: Vec<_> = one.iter().map(|entry| entry.key.as_str()).collect();
            keys.sort_unstable();
            if one.is_empty() || keys.windows(2).any(|two| two[0] == two[1]) {
                let problem = "is empty or has a key twice, and a bucket has each key once";
                return Err(Invalid::new(
                    format!("{at}[{index}]"),
                    problem,
                    "entries with keys of their own",
                ));
            }
        }
    }
    Ok(())
}

fn quota(quota: &QuotaConfig) -> Result<(), Invalid> {
    let wrong = |key: &str, problem: String, remedy: &str| {
        Err(Invalid::new(format!("rate_limit.quota.{key}"), problem, remedy))
    };
    if !(Duration::from_millis(100)..=Duration::from_secs(5)).contains(&quota.report_interval) {
        let problem = format!("is {}", duration::format(quota.report_interval));
        return wrong(
            "report_interval",
            problem,
            "100ms to 5s: an assignment lives 15s unless its service says else",
        );
    }
    if !(1..=10_000).contains(&quota.max_buckets) {
        return wrong("max_buckets", format!("is {}", quota.max_buckets), "1 to 10000");
    }
    Ok(())
}

fn connection(config: &Config, limit: &ConnectionLimit, at: &str) -> Result<(), Invalid> {
    if config.rate_limit.is_none() {
        return Err(nobody_counts(at.to_owned()));
    }
    let at = format!("{at}.descriptors");
    if limit.descriptors.is_empty() {
        return Err(Invalid::new(at, "there are none", "at least one descriptor"));
    }
    descriptors(&limit.descriptors, &at)?;
    for (index, entries) in limit.descriptors.iter().enumerate() {
        for (entry, one) in entries.iter().enumerate() {
            if Value::parse(&one.value).is_ok_and(|value| !value.is_of_connection()) {
                return Err(Invalid::new(
                    format!("{at}[{index}][{entry}].value"),
                    "a connection has no request yet",
                    "text with {client.address} or {listener.name}",
                ));
            }
        }
    }
    Ok(())
}

fn nobody_counts(at: String) -> Invalid {
    Invalid::new(at, "nobody counts them", "a section `rate_limit` with address and domain")
}

fn descriptors(all: &[Vec<DescriptorEntry>], at: &str) -> Result<(), Invalid> {
    for (index, descriptor) in all.iter().enumerate() {
        for (entry, one) in descriptor.iter().enumerate() {
            let place = format!("{at}[{index}][{entry}]");
            if one.key.is_empty() {
                return Err(Invalid::new(format!("{place}.key"), "it is empty", "a key of the limits file"));
            }
            Value::parse(&one.value).map_err(|problem| {
                Invalid::new(format!("{place}.value"), problem.to_string(), Value::EXPECTED)
            })?;
        }
    }
    Ok(())
}
