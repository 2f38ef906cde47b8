//! What an operator wants of a rollout.

use std::fmt;
use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// Steps in one plan.
const MAX_STEPS: usize = 50;
/// Bytes of a name.
const MAX_NAME_BYTES: usize = 253;

/// A share of requests, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(1_000_000);

    /// So many millionths; more than all is all.
    pub const fn millionths(millionths: u32) -> Self {
        if millionths > Self::ALL.0 { Self::ALL } else { Self(millionths) }
    }

    /// So many millionths.
    pub const fn as_millionths(self) -> u32 {
        self.0
    }

    /// Whether the number `draw` falls into this share; evenly spread numbers do so in proportion.
    pub fn includes(self, draw: u64) -> bool {
        (u128::from(draw) * u128::from(Self::ALL.0)) >> 64 < u128::from(self.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 10_000.0)
    }
}

/// A share, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The canary's share of the requests.
    pub weight: Share,
    /// How long at least, in milliseconds; none, until somebody promotes it.
    pub hold_ms: Option<u64>,
}

/// How slow is too slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Which quantile of the baseline the canary is held against, in millionths.
    pub quantile: Share,
    /// How many times as long is still no slower, in thousandths.
    pub max_ratio_thousandths: u32,
    /// How much longer is still no slower, in milliseconds, however short the baseline takes.
    pub slack_ms: u64,
}

/// What an operator wants: the same plan has the same [`Plan::id`] in every proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The service whose requests these are, `namespace/name`.
    pub service: String,
    /// The rollout's name, within the namespace of the service.
    pub name: String,
    /// What is replaced, in words.
    pub baseline: String,
    /// What may replace it, in words.
    pub canary: String,
    /// From the least share to the largest; after the last all requests go to the canary.
    pub steps: Vec<Step>,
    /// Answers of the canary in each step before the next.
    pub min_samples: u64,
    /// The chance that a canary which is no worse is rolled back all the same, in millionths.
    pub false_alarm: Share,
    /// How much larger a share of its requests the canary may fail, in millionths.
    pub tolerance: Share,
    /// Whether time is compared too.
    pub latency: Option<Latency>,
}

/// Why a plan is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}; expected {remedy}")]
pub struct PlanError {
    /// Which part of it.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: &'static str,
}

impl Plan {
    /// The namespace of the service.
    pub fn namespace(&self) -> &str {
        self.service.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Names all that the plan says: a plan that differs in anything is another.
    pub fn id(&self) -> String {
        let mut hash = SipHasher13::new();
        hash.write(&serde_json::to_vec(self).unwrap_or_default());
        let (high, low) = hash.finish128().as_u64();
        format!("{:016x}", high ^ low)
    }

    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String, remedy| PlanError { key: key.to_owned(), problem, remedy };
        let is_named = |name: &str| {
            !name.is_empty()
                && name.len() <= MAX_NAME_BYTES
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if !is_named(&self.name) {
            let problem = format!("`{}` is no name", self.name);
            return Err(wrong("name", problem, "letters, digits, `-`, `.` and `_`"));
        }
        let service = self.service.split_once('/');
        if !service.is_some_and(|(namespace, name)| is_named(namespace) && is_named(name)) {
            let problem = format!("`{}` is no service", self.service);
            return Err(wrong("service", problem, "namespace/name"));
        }
        if [&self.baseline, &self.canary].into_iter().any(|text| text.len() > 8 * MAX_NAME_BYTES) {
            return Err(wrong("canary", "a name is too long".to_owned(), "shorter names of clusters"));
        }
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            let problem = format!("there are {}", self.steps.len());
            return Err(wrong("steps", problem, "1 to 50 steps such as {weight: 10, hold: 10m}"));
        }
        let mut before = Share::NONE;
        for (index, step) in self.steps.iter().enumerate() {
            if step.weight <= before || step.weight >= Share::ALL {
                let problem = format!("{} after {before}", step.weight);
                let remedy =
                    "more than the step before and less than 100; after the last step the canary gets all";
                return Err(wrong(&format!("steps[{index}].weight"), problem, remedy));
            }
            before = step.weight;
        }
        if self.min_samples == 0 {
            return Err(wrong("min_samples", "0 is too small".to_owned(), "1 or more"));
        }
        if self.false_alarm == Share::NONE || self.false_alarm > Share::millionths(500_000) {
            let problem = format!("it leaves a chance of {}", self.false_alarm);
            return Err(wrong("confidence", problem, "from 50 to 99.9999, such as 99.9"));
        }
        if self.tolerance > Share::millionths(500_000) {
            return Err(wrong("success.tolerance", format!("{} is too much", self.tolerance), "at most 50"));
        }
        if let Some(latency) = &self.latency {
            let quantile = latency.quantile.as_millionths();
            if !(500_000..=999_000).contains(&quantile) {
                let problem = format!("{} is no quantile to compare", latency.quantile);
                return Err(wrong("latency.quantile", problem, "from 50 to 99.9, such as 95"));
            }
            if !(1_000..=100_000).contains(&latency.max_ratio_thousandths) {
                let problem = format!("{} times", f64::from(latency.max_ratio_thousandths) / 1000.0);
                return Err(wrong("latency.max_ratio", problem, "from 1 to 100, such as 1.5"));
            }
        }
        Ok(())
    }

    /// What the evidence of one test must reach: together the tests are wrong as often as the plan allows.
    pub fn limit(&self) -> f64 {
        let tests = if self.latency.is_some() { 2.0 } else { 1.0 };
        tests * 1e6 / f64::from(self.false_alarm.as_millionths().max(1))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan() -> Plan {
        Plan {
            service: "insurance/policies".to_owned(),
            name: "v1-1".to_owned(),
            baseline: "v1-0".to_owned(),
            canary: "v1-1".to_owned(),
            steps: vec![
                Step { weight: Share::millionths(100_000), hold_ms: Some(60_000) },
                Step { weight: Share::millionths(500_000), hold_ms: None },
            ],
            min_samples: 100,
            false_alarm: Share::millionths(1_000),
            tolerance: Share::millionths(1_000),
            latency: Some(Latency {
                quantile: Share::millionths(950_000),
                max_ratio_thousandths: 1_500,
                slack_ms: 5,
            }),
        }
    }

    #[test]
    fn a_plan_is_known_by_all_that_it_says() {
        assert_eq!(plan().id(), plan().id());
        assert_eq!(plan().id().len(), 16);
        let mut other = plan();
        other.min_samples += 1;
        assert_ne!(other.id(), plan().id());
    }

    #[test]
    fn mistakes_are_named_with_their_key() {
        type Mistake = fn(&mut Plan);

        plan().check().unwrap();
        let cases: [(Mistake, &str); 9] = [
            (|plan| plan.name = "a b".into(), "name"),
            (|plan| plan.service = "policies".into(), "service"),
            (|plan| plan.steps.clear(), "steps"),
            (|plan| plan.steps[1].weight = Share::millionths(100_000), "steps[1].weight"),
            (|plan| plan.steps[1].weight = Share::ALL, "steps[1].weight"),
            (|plan| plan.min_samples = 0, "min_samples"),
            (|plan| plan.false_alarm = Share::NONE, "confidence"),
            (|plan| plan.latency.as_mut().unwrap().quantile = Share::ALL, "latency.quantile"),
            (|plan| plan.latency.as_mut().unwrap().max_ratio_thousandths = 900, "latency.max_ratio"),
        ];
        for (change, key) in cases {
            let mut wrong = plan();
            change(&mut wrong);
            assert_eq!(wrong.check().unwrap_err().key, key);
        }
    }

    #[test]
    fn a_share_takes_its_part_of_evenly_spread_numbers() {
        let tenth = Share::millionths(100_000);
        let taken = (0..10_000_u64).filter(|n| tenth.includes(n * (u64::MAX / 10_000))).count();
        assert!((999..=1_001).contains(&taken), "{taken}");
        assert!(!Share::NONE.includes(0) && Share::ALL.includes(u64::MAX));
        assert_eq!(tenth.to_string(), "10 %");
    }
}
