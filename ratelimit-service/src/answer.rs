//! From tallies to the answer a proxy gets.
//!
//! Pure. Each descriptor gets a status, in order; the overall code is what a proxy acts on. The
//! statuses are always filled, since proxies make `x-ratelimit-*` and `retry-after` from them.

use std::ops::Range;

use crate::limits::Mode;
use crate::metrics::Decision;
use crate::plan::{Ruling, Step};
use crate::verdict::Verdict;
use crate::window::{Standing, Tally};
use crate::wire::messages::{Code, CurrentLimit, DescriptorStatus, Header, RateLimitResponse, Seconds, Unit};
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

/// What an operator may set about answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manner {
    /// Whether limits are enforced at all.
    pub enforcement: Enforcement,
    /// The share of a limit from which it is near.
    pub near_ratio: f64,
    /// Headers for the client that tell of the tightest limit, where they are wanted.
    pub headers: Option<HeaderNames>,
}

/// Names of the headers that tell of a limit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderNames {
    /// The limit.
    pub limit: String,
    /// What is left of it.
    pub remaining: String,
    /// Seconds until it is there again.
    pub reset: String,
}

impl Default for HeaderNames {
    fn default() -> Self {
        let name = |end: &str| format!("RateLimit-{end}");
        Self { limit: name("Limit"), remaining: name("Remaining"), reset: name("Reset") }
    }
}

/// An answer, and what to count about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The message.
    pub response: RateLimitResponse,
    /// How the request ended.
    pub decision: Decision,
    /// Limits that are near.
    pub near_limit: u64,
}

/// Judges every step and the request as a whole.
pub fn answer(steps: &[Step], rulings: &[Ruling<'_>], outcome: Outcome<'_>, manner: &Manner) -> Answer {
    let mut judge = Judge { rulings, outcome, manner, verdict: Verdict::default(), near: 0, counted: false };
    let mut statuses = Vec::with_capacity(steps.len());
    let mut tightest: Option<(&Ruling<'_>, usize)> = None;
    for step in steps {
        let status = match step {
            Step::Free => free(0),
            Step::Unlimited => free(UNLIMITED_REMAINING),
            Step::Counted(counted) => {
                let (status, ruling) = judge.status(counted.clone());
                if let Some(ruling) = ruling
                    && tightest.is_none_or(|(_, at)| tightness(&status) < tightness(&statuses[at]))
                {
                    tightest = Some((ruling, statuses.len()));
                }
                status
            }
        };
        statuses.push(status);
    }
    let Judge { verdict, near, counted, .. } = judge;
    let over = verdict.refuses();
    let refused = over && manner.enforcement == Enforcement::Enforce;
    let decision = match outcome {
        Outcome::FailedOpen if counted => Decision::FailedOpen,
        Outcome::FailedClosed { .. } if refused => Decision::FailedClosed,
        _ if refused => Decision::OverLimit,
        _ if over || verdict.is_shadowed() => Decision::Shadow,
        _ => Decision::Ok,
    };
    let tightest = tightest.map(|(ruling, at)| (ruling, &statuses[at]));
    let dynamic_metadata =
        tightest.map(|(ruling, status)| deciding(ruling, status).encode()).unwrap_or_default();
    let response_headers_to_add = match (&manner.headers, tightest) {
        (Some(names), Some((ruling, status))) => headers(names, ruling, status),
        _ => Vec::new(),
    };
    let overall_code = if refused { Code::OverLimit } else { Code::Ok } as i32;
    let response = RateLimitResponse { overall_code, statuses, response_headers_to_add, dynamic_metadata };
    Answer { response, decision, near_limit: near }
}

struct Judge<'a> {
    rulings: &'a [Ruling<'a>],
    outcome: Outcome<'a>,
    manner: &'a Manner,
    verdict: Verdict,
    near: u64,
    counted: bool,
}

impl<'a> Judge<'a> {
    /// Of the limits of one descriptor the one that is tightest, and which it is. Candidates are judged by nobody.
    fn status(&mut self, counted: Range<usize>) -> (DescriptorStatus, Option<&'a Ruling<'a>>) {
        let mut chosen: (DescriptorStatus, Option<&Ruling<'_>>) = (free(0), None);
        for place in counted {
            let ruling = &self.rulings[place];
            if ruling.mode == Mode::Candidate {
                continue;
            }
            self.counted = true;
            let Some(status) = self.one(place, ruling) else { continue };
            if chosen.1.is_none() || tightness(&status) < tightness(&chosen.0) {
                chosen = (status, Some(ruling));
            }
        }
        chosen
    }

    fn one(&mut self, place: usize, ruling: &Ruling<'_>) -> Option<DescriptorStatus> {
        let (standing, resets_in_seconds) = match self.outcome {
            Outcome::Tallied(tallies) => {
                let tally = &tallies[place];
                (
                    Standing::of(ruling.limit.capacity(), tally, self.manner.near_ratio),
                    tally.resets_in_seconds,
                )
            }
            Outcome::FailedOpen => {
                self.verdict.note(ruling.mode, false);
                return None;
            }
            Outcome::FailedClosed { now_seconds } => {
                let standing = Standing { over: true, remaining: 0, near: false };
                (standing, ruling.limit.window.end(now_seconds).saturating_sub(now_seconds))
            }
        };
        self.verdict.note(ruling.mode, standing.over);
        self.near += u64::from(standing.near);
        let over = standing.over && ruling.mode != Mode::Shadow;
        let window = ruling.limit.window;
        Some(DescriptorStatus {
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
        })
    }
}

/// What is over comes first, then what has least left.
fn tightness(status: &DescriptorStatus) -> (bool, u32) {
    (status.code != Code::OverLimit as i32, status.limit_remaining)
}

fn free(limit_remaining: u32) -> DescriptorStatus {
    DescriptorStatus {
        code: Code::Ok as i32,
        current_limit: None,
        limit_remaining,
        duration_until_reset: None,
    }
}

fn deciding<'a>(ruling: &'a Ruling<'_>, status: &DescriptorStatus) -> Deciding<'a> {
    Deciding {
        rule: &ruling.name,
        limit: ruling.limit.requests,
        unit: ruling.limit.window.unit().name(),
        remaining: status.limit_remaining,
    }
}

fn headers(names: &HeaderNames, ruling: &Ruling<'_>, status: &DescriptorStatus) -> Vec<Header> {
    let reset = status.duration_until_reset.map_or(0, |reset| reset.seconds);
    let header = |key: &str, value: String| Header { key: key.to_owned(), value };
    vec![
        header(&names.limit, ruling.limit.requests.to_string()),
        header(&names.remaining, status.limit_remaining.to_string()),
        header(&names.reset, reset.to_string()),
    ]
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
