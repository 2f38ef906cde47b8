//! Both questions about a canary: does it fail more often than the baseline, and is it slower.
//!
//! Slower means: of the canary's answers more take longer than `max_ratio` times T than of the baseline's take longer
//! than T, where T is what the quantile of the baseline was before the window. So the question about time is the same
//! as the one about failures, and needs no shape of a distribution; it is as exact as the buckets are, nine percent.

use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, Trials};
use crate::plan::{Latency, Plan};
use crate::window::{ArmCounts, BUCKETS, Window, bucket_below, upper_edge_ms};

/// How many of the last requests the memory of what is usual holds, about: beyond twice as many it is halved.
const MEMORY: f64 = 10_000.0;
/// What is thought to be usual before anything is known: one failure in a hundred, and two hundred requests to unlearn it.
const PRIOR_FAILED: f64 = 2.0;
const PRIOR_ALL: f64 = 200.0;
/// A new version begins with cold caches and no connections: its first answers are not asked about their time.
const WARM_UP: u64 = 100;
/// Baseline answers before their quantile is one.
const KNOWN_FROM: f64 = 100.0;
/// From here on a rollout goes no further, though there is not enough to roll it back.
const DOUBT: f64 = 20.0;

/// How many requests each version has answered, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Answers that were none of its failures.
    pub ok: u64,
    /// Its failures.
    pub failed: u64,
}

/// Everything that is known about a canary, in bounded space.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Analysis {
    /// What is replaced, in all.
    pub baseline: Totals,
    /// What may replace it, in all.
    pub canary: Totals,
    failures: Evidence,
    slowness: Evidence,
    before: Memory,
    after: Memory,
}

/// The last requests of one version.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Memory {
    failed: f64,
    all: f64,
    /// By bucket; what is missing at the end is 0.
    latency: Vec<f64>,
}

/// Why a canary is bad.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// `failures` or `latency`.
    pub cause: &'static str,
    /// With the figures.
    pub text: String,
}

/// What the analysis says.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Nothing speaks against the canary.
    Fine,
    /// Something does, but it may be chance.
    Doubtful(Finding),
    /// It is worse.
    Bad(Finding),
}

impl Analysis {
    /// Takes a window into account.
    pub fn observe(&mut self, plan: &Plan, window: &Window) {
        let expected = (self.before.failed + PRIOR_FAILED) / (self.before.all + PRIOR_ALL);
        let tolerance = f64::from(plan.tolerance.as_millionths()) / 1e6;
        let failed = |arm: &ArmCounts| Trials { bad: arm.failed, all: arm.all() };
        self.failures.observe(failed(&window.baseline), failed(&window.canary), tolerance, expected);
        if let Some(latency) = &plan.latency
            && self.canary.all() >= WARM_UP
            && let Some((at, over)) = self.before.limits(latency)
        {
            let slow = |arm: &ArmCounts, bucket: usize| Trials {
                bad: arm.latency.iter().skip(bucket + 1).sum(),
                all: arm.latency.iter().sum(),
            };
            let expected = self.before.longer_than(at);
            self.slowness.observe(slow(&window.baseline, at), slow(&window.canary, over), 0.0, expected);
        }
        self.baseline.add(&window.baseline);
        self.canary.add(&window.canary);
        self.before.add(&window.baseline);
        self.after.add(&window.canary);
    }

    /// What to think of the canary.
    pub fn verdict(&self, plan: &Plan) -> Verdict {
        let limit = plan.limit();
        let (failures, slowness) = (self.failures.value(), self.slowness.value());
        let finding = || {
            if failures >= slowness { self.of_failures(plan, failures) } else { self.of_time(plan, slowness) }
        };
        match failures.max(slowness) {
            most if most >= limit => Verdict::Bad(finding()),
            most if most >= DOUBT.min(limit) => Verdict::Doubtful(finding()),
            _ => Verdict::Fine,
        }
    }

    /// How many times more the windows speak against the canary than for it: about failures, and about time.
    pub fn against(&self) -> (f64, f64) {
        (self.failures.value(), self.slowness.value())
    }

    fn of_failures(&self, plan: &Plan, value: f64) -> Finding {
        let text = format!(
            "the canary fails {} of its last requests, the baseline {} ({} of {} and {} of {} in all); {}",
            self.after.failing(),
            self.before.failing(),
            self.canary.failed,
            self.canary.all(),
            self.baseline.failed,
            self.baseline.all(),
            odds(value, plan),
        );
        Finding { cause: "failures", text }
    }

    fn of_time(&self, plan: &Plan, value: f64) -> Finding {
        let quantile =
            plan.latency.as_ref().map_or(0.95, |latency| f64::from(latency.quantile.as_millionths()) / 1e6);
        let text = format!(
            "{}% of the canary's last answers take up to {:.1} ms, of the baseline's {:.1} ms; {}",
            quantile * 100.0,
            self.after.quantile(quantile).map_or(0.0, upper_edge_ms),
            self.before.quantile(quantile).map_or(0.0, upper_edge_ms),
            odds(value, plan),
        );
        Finding { cause: "latency", text }
    }
}

fn odds(value: f64, plan: &Plan) -> String {
    format!("evidence {:.0} : 1, too much from {:.0} on", value.min(1e12), plan.limit())
}

impl Totals {
    /// Answers that succeeded or failed.
    pub fn all(self) -> u64 {
        self.ok.saturating_add(self.failed)
    }

    fn add(&mut self, arm: &ArmCounts) {
        self.ok = self.ok.saturating_add(arm.ok);
        self.failed = self.failed.saturating_add(arm.failed);
    }
}

impl Memory {
    fn add(&mut self, arm: &ArmCounts) {
        self.failed += arm.failed as f64;
        self.all += arm.all() as f64;
        let buckets = arm.latency.len().min(BUCKETS);
        if self.latency.len() < buckets {
            self.latency.resize(buckets, 0.0);
        }
        for (mine, more) in self.latency.iter_mut().zip(&arm.latency) {
            *mine += *more as f64;
        }
        // One very large window is forgotten as fast as many small ones.
        let most = self.all.max(self.latency.iter().sum());
        if most > 2.0 * MEMORY {
            let kept = MEMORY / most;
            self.failed *= kept;
            self.all *= kept;
            self.latency.iter_mut().for_each(|count| *count *= kept);
        }
    }

    fn failing(&self) -> String {
        let percent = if self.all > 0.0 { self.failed * 100.0 / self.all } else { 0.0 };
        format!("{percent:.2} %")
    }

    /// The bucket up to which this share of the answers lies.
    fn quantile(&self, share: f64) -> Option<usize> {
        let all: f64 = self.latency.iter().sum();
        let mut so_far = 0.0;
        if all <= 0.0 {
            return None;
        }
        self.latency.iter().position(|count| {
            so_far += count;
            so_far >= share * all
        })
    }

    fn longer_than(&self, bucket: usize) -> f64 {
        let all: f64 = self.latency.iter().sum();
        let longer: f64 = self.latency.iter().skip(bucket + 1).sum();
        if all > 0.0 { longer / all } else { 0.0 }
    }

    /// The buckets beyond which an answer of the baseline, and one of the canary, counts as slow.
    fn limits(&self, latency: &Latency) -> Option<(usize, usize)> {
        if self.latency.iter().sum::<f64>() < KNOWN_FROM {
            return None;
        }
        let at = self.quantile(f64::from(latency.quantile.as_millionths()) / 1e6)?;
        let ms = upper_edge_ms(at);
        let ratio = f64::from(latency.max_ratio_thousandths) / 1000.0;
        let over = bucket_below((ms * ratio).max(ms + latency.slack_ms as f64))?;
        Some((at, over.max(at)))
    }
}
