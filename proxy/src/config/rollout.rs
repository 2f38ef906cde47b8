//! A canary that moves by itself: which steps, and how bad is too bad.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_rollout::{Latency, Plan, PlanError, Share, Step};
use tollgate_runtime::config::{Invalid, duration};

use super::words::{Percent, Times};
use super::{Backend, Config, RouteConfig};

/// A canary on its way from the first step's share to all requests, or back to none. Its share is that of the rollout's
/// record, which the authorization service keeps and all proxies report to; the other backends share the rest by their
/// weights. Routes whose rollouts have one name and service follow one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Its name, within the namespace of the route's service.
    pub name: String,
    /// The backend that may replace the others, by its cluster's name. Its own `weight` does not count.
    pub canary: String,
    /// Its share, step by step; after the last one it gets all requests.
    pub steps: Vec<RolloutStep>,
    /// Answers of the canary in each step before the next.
    #[serde(default = "min_samples")]
    pub min_samples: u64,
    /// How sure a roll-back is: with 99.9 one canary in a thousand that is no worse is rolled back all the same,
    /// however long it is looked at.
    #[serde(default = "confidence")]
    pub confidence: Percent,
    /// How many failures are too many.
    #[serde(default)]
    pub success: RolloutSuccess,
    /// How slow is too slow; `null`, time is not compared.
    #[serde(default = "latency")]
    pub latency: Option<RolloutLatency>,
    /// How often this proxy reports.
    #[serde(default = "report_interval", with = "duration")]
    #[schemars(with = "String")]
    pub report_interval: Duration,
    /// Without an answer for so long this proxy is cut off: from then on it judges by what it sees itself, and may only
    /// lower the canary's share.
    #[serde(default = "alone_after", with = "duration")]
    #[schemars(with = "String")]
    pub alone_after: Duration,
}

/// A share, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutStep {
    /// The canary's share of the requests, in percent.
    pub weight: Percent,
    /// How long at least; without it, until somebody promotes it (`tollgate rollout promote`).
    #[serde(default, with = "duration::option")]
    #[schemars(with = "Option<String>")]
    pub hold: Option<Duration>,
}

/// How many failures are too many. Failures are answers 5xx, the gRPC codes that are a server's fault, and none at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutSuccess {
    /// By how many percentage points the canary may fail more often than the others at the same time.
    pub tolerance: Percent,
}

impl Default for RolloutSuccess {
    fn default() -> Self {
        Self { tolerance: Percent::of_millionths(1_000) }
    }
}

/// How slow is too slow: a larger share of the canary's answers takes longer than `max_ratio` times the others' quantile
/// than of theirs takes longer than it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutLatency {
    /// Which quantile of the others.
    pub quantile: Percent,
    /// So many times as long is no slower.
    pub max_ratio: Times,
    /// So much longer is no slower, however fast the others are.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub slack: Duration,
}

impl Default for RolloutLatency {
    fn default() -> Self {
        Self {
            quantile: Percent::of_hundred(95),
            max_ratio: Times::of_thousandths(1_500),
            slack: Duration::from_millis(10),
        }
    }
}

fn min_samples() -> u64 {
    100
}

fn confidence() -> Percent {
    Percent::of_millionths(999_000)
}

#[expect(clippy::unnecessary_wraps, reason = "a default for serde")]
fn latency() -> Option<RolloutLatency> {
    Some(RolloutLatency::default())
}

fn report_interval() -> Duration {
    Duration::from_secs(2)
}

fn alone_after() -> Duration {
    Duration::from_secs(10)
}

impl RolloutConfig {
    /// What the proxies of this route agree on.
    pub(crate) fn plan(&self, config: &Config, route: &RouteConfig) -> Plan {
        let named = |cluster: &str| {
            let version = config.clusters.iter().find(|one| one.name == cluster);
            match version.and_then(|one| one.version.as_ref()) {
                Some(version) => format!("{cluster} ({version})"),
                None => cluster.to_owned(),
            }
        };
        let others = route.backends.iter().filter(|one| self.is_other(one));
        let step = |step: &RolloutStep| Step {
            weight: Share::millionths(step.weight.millionths()),
            hold_ms: step.hold.map(millis),
        };
        Plan {
            service: route.service.as_ref().map(ToString::to_string).unwrap_or_default(),
            name: self.name.clone(),
            baseline: others.map(|one| named(&one.cluster)).collect::<Vec<_>>().join(", "),
            canary: named(&self.canary),
            steps: self.steps.iter().map(step).collect(),
            min_samples: self.min_samples,
            false_alarm: Share::millionths(1_000_000 - self.confidence.millionths()),
            tolerance: Share::millionths(self.success.tolerance.millionths()),
            latency: self.latency.as_ref().map(|latency| Latency {
                quantile: Share::millionths(latency.quantile.millionths()),
                max_ratio_thousandths: latency.max_ratio.thousandths(),
                slack_ms: millis(latency.slack),
            }),
        }
    }

    /// Whether a backend is what the canary is compared with.
    fn is_other(&self, backend: &Backend) -> bool {
        backend.cluster != self.canary && backend.weight > 0
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What parses but cannot be used.
pub(super) fn check(config: &Config, route: &RouteConfig, at: &str) -> Result<(), Invalid> {
    let Some(rollout) = &route.rollout else { return Ok(()) };
    let key = |name: &str| format!("{at}.rollout{}{name}", if name.is_empty() { "" } else { "." });
    let names = || route.backends.iter().map(|one| one.cluster.as_str()).collect::<Vec<_>>().join(", ");
    if route.service.is_none() {
        let remedy = "`service: namespace/name` on the route: the rollout has its name there";
        return Err(Invalid::new(key(""), "nobody knows whose requests these are", remedy));
    }
    if config.authz.is_none() {
        let remedy = "a section `authz` with the address of the service that keeps the record";
        return Err(Invalid::new(key(""), "there is nobody to report to", remedy));
    }
    if !route.backends.iter().any(|one| one.cluster == rollout.canary) {
        let problem = format!("`{}` is no backend of this route", rollout.canary);
        return Err(Invalid::new(key("canary"), problem, format!("one of: {}", names())));
    }
    if !route.backends.iter().any(|one| rollout.is_other(one)) {
        let remedy = "another backend with a weight above 0";
        return Err(Invalid::new(key("canary"), "there is nothing to compare it with", remedy));
    }
    for (name, value) in [("report_interval", rollout.report_interval), ("alone_after", rollout.alone_after)]
    {
        if value < Duration::from_millis(100) {
            return Err(Invalid::new(key(name), "it is too short", "100ms or more"));
        }
    }
    if rollout.alone_after < rollout.report_interval * 2 {
        let problem = "one report that is lost would cut this proxy off";
        return Err(Invalid::new(key("alone_after"), problem, "at least twice `report_interval`"));
    }
    let plan = rollout.plan(config, route);
    plan.check()
        .map_err(|PlanError { key: name, problem, remedy }| Invalid::new(key(&name), problem, remedy))?;
    for other in config.routes.iter().take_while(|other| other.name != route.name) {
        let Some(theirs) = &other.rollout else { continue };
        if theirs.name == rollout.name && other.service == route.service && theirs.plan(config, other) != plan
        {
            let problem =
                format!("route `{}` has a rollout of this name that says something else", other.name);
            return Err(Invalid::new(key("name"), problem, "the same rollout, or another name"));
        }
    }
    Ok(())
}
