//! Looking at limits without counting: why a request is answered so, what is watched, and beginning anew.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::Limiter;
use crate::activity::Activity;
use crate::counters::{Batch, Counted, StoreError, key};
use crate::limits::{Mode, Rule};
use crate::plan::{self, Malformed, Plan, Step};
use crate::verdict::Verdict;
use crate::window::{Hits, Tally};
use crate::wire::messages::RateLimitRequest;

/// What a request would get, and why.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Explanation {
    /// `ok` or `over_limit`.
    pub decision: &'static str,
    /// `counted`, or where the store does not answer `unknown`: then the counters are not told.
    pub counters: &'static str,
    /// One for each descriptor, in order.
    pub descriptors: Vec<DescriptorExplanation>,
}

/// What one descriptor falls under.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DescriptorExplanation {
    /// Its entries.
    pub descriptor: String,
    /// `limited`, `unlimited`, or `free` where no rule says anything, or one of another descriptor replaces it.
    pub outcome: &'static str,
    /// The limits it is held to.
    pub limits: Vec<LimitExplanation>,
}

/// One limit, and how its counter stands.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LimitExplanation {
    /// The rule.
    pub rule: String,
    /// Where it is written, as `file:line`; none for a limit that the request brings itself.
    pub source: Option<String>,
    /// `enforce`, `shadow`, `quota` or `candidate`.
    pub mode: &'static str,
    /// How it is counted.
    pub algorithm: &'static str,
    /// Requests in a window.
    pub requests: u32,
    /// Its length.
    pub window_seconds: u64,
    /// Hits counted before this request.
    pub used_before: u64,
    /// Hits counted after it.
    pub used_after: u64,
    /// What may pass at once at most.
    pub capacity: u32,
    /// Whether this request would not fit.
    pub over: bool,
    /// Seconds until the limit is there again.
    pub resets_in_seconds: u64,
}

/// A rule, and what happens at it.
#[derive(Debug, Clone)]
pub struct WatchedRule {
    /// Its domain.
    pub domain: Box<str>,
    /// The rule.
    pub rule: Arc<Rule>,
    /// What was seen.
    pub activity: Arc<Activity>,
}

impl Limiter {
    /// Explains what a request would get. Nothing is counted.
    pub async fn explain(&self, request: &RateLimitRequest) -> Result<Explanation, Malformed> {
        plan::check(request)?;
        let limits = self.limits();
        if limits.is_empty() {
            return Err(Malformed::NoLimits);
        }
        let Some(domain) = limits.domain(&request.domain) else {
            let free = request.descriptors.iter().map(|one| described(one.pairs(), "free", Vec::new()));
            return Ok(Explanation { decision: "ok", counters: "counted", descriptors: free.collect() });
        };
        let Plan { steps, rulings, batch } = plan::plan(domain, request)?;
        let mut looks = Batch::with_capacity(batch.len());
        for (name, counting) in batch.iter() {
            looks.push(counting.limit, counting.mode, Hits::Look, |key| key.extend_from_slice(name));
        }
        let (mut tallies, now_us) = (Vec::new(), self.now_us());
        let counted = self.counters().count(looks, now_us, &mut tallies).await;
        let known = matches!(counted, Counted::Exactly | Counted::Locally);
        if !known {
            tallies = vec![Tally { used: 0, over: false, resets_in_seconds: 1 }; rulings.len()];
        }

        // The counters as this request finds them, and what becomes of them if it is answered.
        let after: Vec<(u64, bool)> = rulings.iter().zip(&tallies).map(|(r, t)| predicted(r, t)).collect();
        let mut verdict = Verdict::default();
        rulings.iter().zip(&after).for_each(|(ruling, (_, over))| verdict.note(ruling.mode, *over));
        let refused = verdict.refuses();
        let explained = |place: usize| {
            let (ruling, tally, (used, over)) = (&rulings[place], &tallies[place], after[place]);
            let spends = !refused || ruling.limit.algorithm == crate::limits::Algorithm::FixedWindow;
            LimitExplanation {
                rule: ruling.name.to_string(),
                source: ruling.rule.map(|rule| rule.source.to_string()),
                mode: ruling.mode.name(),
                algorithm: ruling.limit.algorithm.name(),
                requests: ruling.limit.requests,
                window_seconds: ruling.limit.window.seconds(),
                used_before: tally.used,
                used_after: if spends { used } else { tally.used },
                capacity: ruling.limit.capacity(),
                over,
                resets_in_seconds: tally.resets_in_seconds,
            }
        };
        let descriptors = steps.into_iter().zip(&request.descriptors).map(|(step, descriptor)| match step {
            Step::Free => described(descriptor.pairs(), "free", Vec::new()),
            Step::Unlimited => described(descriptor.pairs(), "unlimited", Vec::new()),
            Step::Counted(places) => {
                described(descriptor.pairs(), "limited", places.map(explained).collect())
            }
        });
        Ok(Explanation {
            decision: if refused { "over_limit" } else { "ok" },
            counters: if known { "counted" } else { "unknown" },
            descriptors: descriptors.collect(),
        })
    }

    /// The rules in force, of one domain or all, and what happens at them.
    pub fn watched(&self, domain: Option<&str>) -> Vec<WatchedRule> {
        let current = self.0.current.load();
        let wanted = current.limits.domains().filter(|one| domain.is_none_or(|name| one.name() == name));
        wanted
            .flat_map(|one| {
                let activities = &current.activities[one.index()];
                one.rules().iter().zip(activities).map(|(rule, activity)| WatchedRule {
                    domain: one.name().into(),
                    rule: Arc::clone(rule),
                    activity: Arc::clone(activity),
                })
            })
            .collect()
    }

    /// Makes every counter of a descriptor begin anew; the names of their rules.
    pub async fn reset(&self, domain: &str, entries: &[(&str, &str)]) -> Result<Vec<String>, StoreError> {
        let limits = self.limits();
        let rules = limits.domain(domain).map_or(&[][..], |domain| domain.find(entries.iter().copied()));
        let mut names = Vec::new();
        for rule in rules {
            let Some(limit) = rule.limit() else { continue };
            let mut name = Vec::new();
            key::write(&mut name, domain, limit, rule.mode, entries.iter().copied(), &rule.shared);
            self.counters().forget(&name).await?;
            let tried = if rule.mode == Mode::Candidate { " (candidate)" } else { "" };
            names.push(format!("{}{tried}", rule.name()));
        }
        Ok(names)
    }
}

/// What the counter holds after the request, and whether that is too much.
fn predicted(ruling: &plan::Ruling<'_>, before: &Tally) -> (u64, bool) {
    let after = ruling.hits.applied_to(before.used);
    match ruling.hits {
        Hits::Look => (before.used, before.over),
        Hits::GiveBack(_) => (after, false),
        Hits::Add(_) => {
            let over = after > u64::from(ruling.limit.capacity());
            let counts = !over || ruling.limit.algorithm == crate::limits::Algorithm::FixedWindow;
            (if counts { after } else { before.used }, over)
        }
    }
}

fn described<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
    outcome: &'static str,
    limits: Vec<LimitExplanation>,
) -> DescriptorExplanation {
    let descriptor = pairs.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ");
    DescriptorExplanation { descriptor, outcome, limits }
}
