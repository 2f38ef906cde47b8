//! The life of one call: limits looked up, hits counted, answer judged.
//!
//! ```text
//! request -> check -> domain -> plan -> count (the only wait) -> answer
//! ```

mod explain;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tollgate_runtime::clock::Clock;

pub use explain::{DescriptorExplanation, Explanation, LimitExplanation, WatchedRule};

use crate::activity::{Activities, Activity};
use crate::answer::{self, Answer, Manner, Outcome};
use crate::arrivals::Arrivals;
use crate::counters::{Counted, Counters};
use crate::limits::LimitSet;
use crate::metrics::{Decision, DomainCounts, Metrics};
use crate::plan::{self, Malformed, Plan, Step};
use crate::window::Standing;
use crate::wire::messages::{RateLimitRequest, RateLimitResponse};

/// Decides about requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Current>,
    counters: Arc<Counters>,
    manner: Manner,
    activities: Activities,
    arrivals: Arrivals,
    clock: Clock,
    metrics: Metrics,
}

/// The limits in force, swapped whole, and where each domain's requests are counted.
#[derive(Debug)]
struct Current {
    limits: Arc<LimitSet>,
    counts: Vec<Arc<DomainCounts>>,
    /// By domain, then by rule.
    activities: Vec<Vec<Arc<Activity>>>,
    other: Arc<DomainCounts>,
}

impl Current {
    fn new(limits: LimitSet, metrics: &Metrics, all: &Activities) -> Self {
        let mut counts = vec![metrics.other_domains(); limits.domains().count()];
        let mut activities = vec![Vec::new(); counts.len()];
        for domain in limits.domains() {
            counts[domain.index()] = metrics.domain(domain.name());
            activities[domain.index()] = all.of(domain);
        }
        Self { activities, limits: Arc::new(limits), counts, other: metrics.other_domains() }
    }
}

impl Limiter {
    /// Begins with these limits.
    pub fn new(
        limits: LimitSet,
        counters: Arc<Counters>,
        manner: Manner,
        arrivals: Arrivals,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let activities = Activities::default();
        let current = ArcSwap::from_pointee(Current::new(limits, &metrics, &activities));
        Self(Arc::new(Inner { current, counters, manner, activities, arrivals, clock, metrics }))
    }

    /// From now on these limits hold. Counts go on where a descriptor and its window stay the same.
    pub fn replace(&self, limits: LimitSet) {
        self.0.current.store(Arc::new(Current::new(limits, &self.0.metrics, &self.0.activities)));
    }

    /// The limits in force.
    pub fn limits(&self) -> Arc<LimitSet> {
        Arc::clone(&self.0.current.load().limits)
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// How answers are made.
    pub fn manner(&self) -> &Manner {
        &self.0.manner
    }

    /// The calls of the last day.
    pub fn arrivals(&self) -> &Arrivals {
        &self.0.arrivals
    }

    /// This process's Unix time.
    pub fn now_seconds(&self) -> u64 {
        self.0.clock.unix_seconds()
    }

    fn now_us(&self) -> u64 {
        self.0.clock.unix_nanos() / 1_000
    }

    /// Answers one request.
    pub async fn should_rate_limit(
        &self,
        request: &RateLimitRequest,
    ) -> Result<RateLimitResponse, Malformed> {
        plan::check(request)?;
        let inner = &*self.0;
        // A whole reference: the request keeps the limits it began with over the wait.
        let current = inner.current.load_full();
        if current.limits.is_empty() {
            return Err(Malformed::NoLimits);
        }
        let Some(domain) = current.limits.domain(&request.domain) else {
            let steps: Vec<_> = request.descriptors.iter().map(|_| Step::Free).collect();
            current.other.decided(Decision::Ok);
            return Ok(answer::answer(&steps, &[], Outcome::Tallied(&[]), &inner.manner).response);
        };
        let Plan { steps, rulings, batch } = plan::plan(domain, request)?;

        let now_us = self.now_us();
        inner.arrivals.note(request, now_us / 1_000_000);
        let mut tallies = Vec::with_capacity(batch.len());
        let outcome = match inner.counters.count(batch, now_us, &mut tallies).await {
            Counted::Exactly | Counted::Locally => Outcome::Tallied(&tallies),
            Counted::FailedOpen => Outcome::FailedOpen,
            Counted::FailedClosed => Outcome::FailedClosed { now_seconds: now_us / 1_000_000 },
        };

        let Answer { response, decision, near_limit } =
            answer::answer(&steps, &rulings, outcome, &inner.manner);
        if let Outcome::Tallied(tallies) = outcome {
            let activities = &current.activities[domain.index()];
            for (step, descriptor) in steps.iter().zip(&request.descriptors) {
                let Step::Counted(places) = step else { continue };
                for place in places.clone() {
                    let (ruling, tally) = (&rulings[place], &tallies[place]);
                    let Some(rule) = ruling.rule else { continue };
                    let near = Standing::of(ruling.limit.capacity(), tally, inner.manner.near_ratio).near;
                    activities[rule.index].note(descriptor, ruling.hits, tally, near, now_us / 1_000_000);
                }
            }
        }
        let counts = &current.counts[domain.index()];
        counts.decided(decision);
        if near_limit > 0 {
            counts.near_limit(near_limit);
        }
        Ok(response)
    }
}
