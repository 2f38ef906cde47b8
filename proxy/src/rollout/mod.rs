//! A canary whose share moves by itself: what this proxy counts, tells, hears, and does alone.
//!
//! ```text
//! request --> share: canary or not --> … --> its end: counts
//!               ^                              | every interval
//!               | follower <-- window ---------'
//!               |    ^           | Report
//!               |    '- answer - authorization service (one record for all proxies)
//! ```
//!
//! A request reads one number and adds to a few; it waits for nobody.

mod counts;
mod talk;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tollgate_rollout::{Follower, Plan, Share};

pub use counts::Arm;
pub(crate) use counts::End;

use crate::config::{AuthzConfig, Config, RolloutConfig};
use crate::record::Reporter;
use crate::stages::caller::Caller;
use counts::Counts;

/// The rollouts of a configuration, by the routes that have one.
pub(crate) type Rollouts = FxHashMap<Arc<str>, Arc<Rollout>>;

/// One rollout at this proxy. Reporting ends with it.
#[derive(Debug)]
pub(crate) struct Rollout {
    inner: Arc<Inner>,
    authz: AuthzConfig,
    _reporting: DropGuard,
}

#[derive(Debug)]
struct Inner {
    plan: Plan,
    config: RolloutConfig,
    /// The canary's share, for requests; the follower's is the truth.
    share: AtomicU32,
    counts: Counts,
    /// Requests that will be counted when they end.
    under_way: AtomicUsize,
    /// The last of them has ended.
    quiet: Notify,
    follower: Mutex<Follower>,
    reporter: Arc<Reporter>,
    started: Instant,
}

/// A request that one of the two versions has, until it has ended.
#[derive(Debug)]
pub(crate) struct Counting {
    arm: Arm,
    rollout: Arc<Rollout>,
}

/// How a rollout does at this proxy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) service: String,
    pub(crate) name: String,
    plan: String,
    canary: String,
    /// In percent.
    weight: f64,
    /// `unknown` until the record was heard of.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
    steps: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// Nobody has answered for too long.
    cut_off: bool,
    /// Why this proxy stopped the canary by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

impl Rollout {
    fn start(
        plan: Plan,
        config: &RolloutConfig,
        authz: &AuthzConfig,
        caller: &Caller<'_>,
        reporter: &Arc<Reporter>,
    ) -> anyhow::Result<Self> {
        let channel = caller.channels("authz", &authz.address, authz.spiffe_id.as_ref(), 1)?.pop();
        let channel = channel.context("one channel was asked for")?;
        let inner = Arc::new(Inner {
            follower: Mutex::new(Follower::new(plan.clone(), config.alone_after)),
            plan,
            config: config.clone(),
            share: AtomicU32::new(Share::NONE.as_millionths()),
            counts: Counts::new(),
            under_way: AtomicUsize::new(0),
            quiet: Notify::new(),
            reporter: Arc::clone(reporter),
            started: Instant::now(),
        });
        let ending = CancellationToken::new();
        let talk = talk::Talk::new(Arc::clone(&inner), channel, ending.clone());
        reporter.service.tasks().spawn("rollout", talk.run());
        Ok(Self { inner, authz: authz.clone(), _reporting: ending.drop_guard() })
    }

    /// The canary's share of the requests.
    pub(crate) fn share(&self) -> Share {
        Share::millionths(self.inner.share.load(Ordering::Relaxed))
    }

    /// A request goes to one of the two versions.
    pub(crate) fn begin(self: &Arc<Self>, arm: Arm) -> Counting {
        self.inner.under_way.fetch_add(1, Ordering::Relaxed);
        Counting { arm, rollout: Arc::clone(self) }
    }

    pub(crate) fn report(&self) -> Report {
        let inner = &self.inner;
        let follower = inner.follower.lock();
        let known = follower.known();
        Report {
            service: inner.plan.service.clone(),
            name: inner.plan.name.clone(),
            plan: inner.plan.id(),
            canary: inner.plan.canary.clone(),
            weight: f64::from(follower.weight().as_millionths()) / 10_000.0,
            state: known.map_or("unknown", |told| told.state.as_str()),
            step: known.map(|told| told.step + 1),
            steps: inner.plan.steps.len(),
            generation: known.map(|told| told.generation),
            cut_off: follower.is_alone(inner.started.elapsed()),
            stopped: follower.stopped().map(|finding| finding.text.clone()),
        }
    }
}

impl Counting {
    /// It has ended.
    pub(crate) fn end(self, end: End, took: Duration) {
        self.rollout.inner.counts.add(self.arm, end, took);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let inner = &self.rollout.inner;
        // What was counted before this is seen by whoever sees that nothing is under way.
        if inner.under_way.fetch_sub(1, Ordering::Release) == 1 {
            inner.quiet.notify_one();
        }
    }
}

/// The rollouts of a checked configuration; those that have not changed since `before` go on.
pub(crate) fn of(
    config: &Config,
    caller: &Caller<'_>,
    reporter: &Arc<Reporter>,
    before: Option<&Rollouts>,
) -> anyhow::Result<Rollouts> {
    let mut all = Rollouts::default();
    let Some(authz) = &config.authz else { return Ok(all) };
    for route in &config.routes {
        let Some(rollout) = &route.rollout else { continue };
        let plan = rollout.plan(config, route);
        let is_it = |one: &&Arc<Rollout>| {
            one.inner.plan == plan && one.inner.config == *rollout && one.authz == *authz
        };
        // Routes with one plan share its counts.
        let mut kept = all.values().chain(before.into_iter().flat_map(|before| before.values()));
        let running = match kept.find(is_it) {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(Rollout::start(plan, rollout, authz, caller, reporter)?),
        };
        all.insert(route.name.as_str().into(), running);
    }
    Ok(all)
}
