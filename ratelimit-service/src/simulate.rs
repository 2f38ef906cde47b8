//! Trying limits on calls that were made before.
//!
//! Pure but for the memory it counts in. The same calls run against the limits in force and the new ones, each with
//! counters of its own that begin empty, in the order and the seconds in which they came. Within a second their order
//! is not known, and neither is what came before the excerpt; the result says what it was made of.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::answer::{self, Manner, Outcome};
use crate::arrivals::Excerpt;
use crate::counters::{Bounds, MemoryStore};
use crate::limits::LimitSet;
use crate::metrics::Decision;
use crate::plan::{self, Plan};
use crate::wire::messages::RateLimitRequest;

/// Counters a trial may hold.
const MAX_KEYS: usize = 1_000_000;
/// Changed callers that are named.
const MAX_NAMED: usize = 50;

/// What would have become of the calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Trial {
    /// Calls tried.
    pub calls: u64,
    /// One in this many distinct requests was kept; counts are of those.
    pub one_in: u64,
    /// Seconds of Unix time of the first and the last call.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Refused by the limits in force.
    pub refused_now: u64,
    /// Refused by the new ones.
    pub refused_then: u64,
    /// Passed before, refused then.
    pub newly_refused: u64,
    /// Refused before, passed then.
    pub newly_passed: u64,
    /// Refusals by rule.
    pub rules: Vec<RuleTrial>,
    /// Who would notice most.
    pub callers: Vec<CallerTrial>,
    /// Calls that cannot be tried: no domain, no descriptors, an unknown unit.
    pub undecidable: u64,
}

/// Refusals of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RuleTrial {
    /// Its name.
    pub rule: String,
    /// Hits it refused under the limits in force.
    pub over_now: u64,
    /// Under the new ones.
    pub over_then: u64,
}

/// Changes for one caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CallerTrial {
    /// Its request's entries.
    pub caller: String,
    /// Passed before, refused then.
    pub newly_refused: u64,
    /// Refused before, passed then.
    pub newly_passed: u64,
}

/// Runs the calls against both.
pub fn simulate(now: &LimitSet, then: &LimitSet, excerpt: &Excerpt, manner: &Manner) -> Trial {
    let (mut one, mut other) = (Side::new(now, manner), Side::new(then, manner));
    let mut trial = Trial {
        one_in: excerpt.one_in,
        from: excerpt.arrivals.first().map_or(0, |arrival| arrival.second),
        to: excerpt.arrivals.last().map_or(0, |arrival| arrival.second),
        ..Trial::default()
    };
    let mut callers: BTreeMap<String, CallerTrial> = BTreeMap::new();
    for arrival in &excerpt.arrivals {
        for _ in 0..arrival.calls {
            trial.calls += 1;
            let (Some(before), Some(after)) = (
                one.refuses(&arrival.request, arrival.second),
                other.refuses(&arrival.request, arrival.second),
            ) else {
                trial.undecidable += 1;
                continue;
            };
            trial.refused_now += u64::from(before);
            trial.refused_then += u64::from(after);
            if before == after {
                continue;
            }
            let caller = callers.entry(name_of(&arrival.request)).or_default();
            let (newly_refused, newly_passed) = (u64::from(after), u64::from(before));
            caller.newly_refused += newly_refused;
            caller.newly_passed += newly_passed;
            trial.newly_refused += newly_refused;
            trial.newly_passed += newly_passed;
        }
    }
    let mut callers: Vec<_> =
        callers.into_iter().map(|(caller, trial)| CallerTrial { caller, ..trial }).collect();
    callers.sort_by_key(|caller| std::cmp::Reverse(caller.newly_refused + caller.newly_passed));
    callers.truncate(MAX_NAMED);
    trial.callers = callers;
    let mut rules: BTreeMap<String, RuleTrial> = BTreeMap::new();
    for (rule, over) in one.over {
        rules.entry(rule).or_default().over_now = over;
    }
    for (rule, over) in other.over {
        rules.entry(rule).or_default().over_then = over;
    }
    trial.rules = rules.into_iter().map(|(rule, trial)| RuleTrial { rule, ..trial }).collect();
    trial
}

/// One set of limits with counters of its own.
struct Side<'a> {
    limits: &'a LimitSet,
    manner: &'a Manner,
    memory: MemoryStore,
    over: BTreeMap<String, u64>,
}

impl<'a> Side<'a> {
    fn new(limits: &'a LimitSet, manner: &'a Manner) -> Self {
        Self { limits, manner, memory: MemoryStore::new(Bounds::keys(MAX_KEYS)), over: BTreeMap::new() }
    }

    fn refuses(&mut self, request: &RateLimitRequest, second: u64) -> Option<bool> {
        let Some(domain) = self.limits.domain(&request.domain) else { return Some(false) };
        let Plan { steps, rulings, batch } = plan::plan(domain, request).ok()?;
        let mut tallies = Vec::with_capacity(batch.len());
        self.memory.count_now(&batch, second * 1_000_000, &mut tallies);
        for (ruling, tally) in rulings.iter().zip(&tallies).filter(|(_, tally)| tally.over) {
            debug_assert!(tally.over);
            match self.over.get_mut(&*ruling.name) {
                Some(over) => *over += 1,
                None => drop(self.over.insert(ruling.name.clone().into_owned(), 1)),
            }
        }
        let answer = answer::answer(&steps, &rulings, Outcome::Tallied(&tallies), self.manner);
        Some(answer.decision == Decision::OverLimit)
    }
}

fn name_of(request: &RateLimitRequest) -> String {
    let descriptors = request.descriptors.iter().map(|descriptor| {
        descriptor.pairs().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
    });
    format!("{}: {}", request.domain, descriptors.collect::<Vec<_>>().join("; "))
}
