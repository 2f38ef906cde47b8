//! From tallies to the answer a proxy gets.
//!
//! Pure. Each descriptor gets a status, in order; the overall code is what a proxy acts on. The
//! statuses are always filled, since proxies make `x-ratelimit-*` and `retry-after` from them.

use crate::limits::Mode;
use crate::metrics::Decision;
use crate::plan::{Ruling, Step};
use crate::window::{Standing, Tally};
use crate::wire::messages::{Code, CurrentLimit, DescriptorStatus, RateLimitResponse, Seconds, Unit};
use crate::wire::metadata::Deciding;

/// What an unlimited descriptor has left; without a current limit it stays out of headers.
const UNLIMITED_REMAINING: u32 = u32::MAX;

/// What counting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// One tally for each counting of the plan's batch.
    Tallied(&'a [Tally]),
    /// The store failed, and requests pass.
    FailedOpen,
    /// The store failed, and requests under a limit are refused, until this window's end at the latest.
    FailedClosed { now_seconds: u64 },
}

/// Whether limits are enforced at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Requests over a limit are refused.
    #[default]
    Enforce,
    /// Every request passes; statuses and metrics tell what would have been refused.
    Shadow,
}

/// An answer, and what to count about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The message.
    pub response: RateLimitResponse,
    /// How the request ended.
    pub decision: Decision,
    /// Descriptors that are near their limit.
    pub near_limit: u64,
}

/// Judges every step and the request as a whole.
pub fn answer(steps: &[Step<'_>], outcome: Outcome<'_>, enforcement: Enforcement) -> Answer {
    let mut statuses = Vec::with_capacity(steps.len());
    let mut overall = Overall::default();
    for step in steps {
        let status = match step {
            Step::Free => free(0),
            Step::Unlimited => free(UNLIMITED_REMAINING),
            Step::Counted(ruling) => counted(ruling, outcome, &mut overall),
        };
        statuses.push(status);
    }
    let over = overall.is_over();
    let refused = over && enforcement == Enforcement::Enforce;
    let decision = match outcome {
        Outcome::FailedOpen if overall.counted => Decision::FailedOpen,
        Outcome::FailedClosed { .. } if refused => Decision::FailedClosed,
        _ if refused => Decision::OverLimit,
        _ if over || overall.shadowed => Decision::Shadow,
        _ => Decision::Ok,
    };
    let dynamic_metadata = deciding(steps, &statuses).map(Deciding::encode).unwrap_or_default();
    let overall_code = if refused { Code::OverLimit } else { Code::Ok } as i32;
    let response = RateLimitResponse { overall_code, statuses, dynamic_metadata };
    Answer { response, decision, near_limit: overall.near }
}

/// What the statuses come to.
#[derive(Debug, Default)]
struct Overall {
    counted: bool,
    enforced_over: bool,
    shadowed: bool,
    quotas: u32,
    quotas_over: u32,
    near: u64,
}

impl Overall {
    fn note(&mut self, mode: Mode, over: bool) {
        self.counted = true;
        match mode {
            Mode::Enforce => self.enforced_over |= over,
            Mode::Shadow => self.shadowed |= over,
            Mode::Quota => {
                self.quotas += 1;
                self.quotas_over += u32::from(over);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.enforced_over || (self.quotas > 0 && self.quotas == self.quotas_over)
    }
}

fn free(limit_remaining: u32) -> DescriptorStatus {
    DescriptorStatus {
        code: Code::Ok as i32,
        current_limit: None,
        limit_remaining,
        duration_until_reset: None,
    }
}

fn counted(ruling: &Ruling<'_>, outcome: Outcome<'_>, overall: &mut Overall) -> DescriptorStatus {
    let (standing, resets_in_seconds) = match outcome {
        Outcome::Tallied(tallies) => {
            let tally = tallies[ruling.place];
            (Standing::of(ruling.limit.requests, tally.count, ruling.hits), tally.resets_in_seconds)
        }
        Outcome::FailedOpen => {
            overall.note(ruling.mode, false);
            return free(0);
        }
        Outcome::FailedClosed { now_seconds } => {
            let standing = Standing { over: true, remaining: 0, near: false };
            (standing, ruling.limit.window.end(now_seconds).saturating_sub(now_seconds))
        }
    };
    overall.note(ruling.mode, standing.over);
    overall.near += u64::from(standing.near);
    let over = standing.over && ruling.mode != Mode::Shadow;
    let window = ruling.limit.window;
    DescriptorStatus {
        code: if over { Code::OverLimit } else { Code::Ok } as i32,
        current_limit: Some(CurrentLimit {
            requests_per_unit: ruling.limit.requests,
            unit: Unit::from(window.unit()) as i32,
            name: ruling.name.clone().into_owned(),
            unit_multiplier: Some(window.multiplier().get()).filter(|units| *units > 1),
        }),
        limit_remaining: standing.remaining,
        // A window is at most a u32 of seconds long.
        duration_until_reset: Some(Seconds { seconds: i64::try_from(resets_in_seconds).unwrap_or(1) }),
    }
}

/// The step that decided: the first that is over, else the one with least left.
fn deciding<'a>(steps: &'a [Step<'_>], statuses: &[DescriptorStatus]) -> Option<Deciding<'a>> {
    let (step, status) = steps
        .iter()
        .zip(statuses)
        .filter(|(_, status)| status.current_limit.is_some())
        .min_by_key(|(_, status)| (status.code != Code::OverLimit as i32, status.limit_remaining))?;
    let Step::Counted(ruling) = step else { return None };
    Some(Deciding {
        rule: &ruling.name,
        limit: ruling.limit.requests,
        unit: ruling.limit.window.unit().name(),
        remaining: status.limit_remaining,
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
