//! A limit, as it can be divided and told to a proxy.

use crate::limits::{Mode, Rule};
use std::sync::Arc;

/// Units a limit is cut into at least, so that shares differ by little: 1/64 of the limit.
const FINE: f64 = 64.0;
/// Tokens come back within this time at the latest, for limits that are not too small for it.
const LONGEST_FILL_SECONDS: f64 = 3_600.0;

/// What there is to divide: so many units every so many seconds, and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Units that come back in each fill.
    pub units: u32,
    /// Seconds between fills. Whole seconds: Envoy takes a shorter interval for no limit at all.
    pub fill_seconds: u32,
    /// What may be taken at once by all together.
    pub burst: u32,
    /// Whether anybody is held to it.
    pub enforced: bool,
}

impl Terms {
    /// The tightest terms these rules of one key make together; none where they limit nothing.
    pub fn of(rules: &[Arc<Rule>]) -> Option<Self> {
        let mut limits = rules.iter().filter(|rule| rule.mode != Mode::Candidate).filter_map(|rule| {
            let limit = rule.limit()?;
            let per_second = f64::from(limit.requests) / limit.window.seconds() as f64;
            Some((per_second, rule.burst, rule.mode != Mode::Shadow))
        });
        let first = limits.next()?;
        let (per_second, burst, enforced) = limits
            .fold(first, |tightest, one| (tightest.0.min(one.0), tightest.1.min(one.1), tightest.2 || one.2));
        Some(Self { enforced, ..Self::at(per_second, burst) })
    }

    /// So many a second, cut finely where the limit is large enough.
    fn at(per_second: f64, burst: u32) -> Self {
        if per_second <= 0.0 {
            return Self { units: 0, fill_seconds: 1, burst: 0, enforced: true };
        }
        let at_least = (1.0 / per_second).ceil();
        let seconds = (FINE / per_second).ceil().min(LONGEST_FILL_SECONDS).max(at_least).max(1.0);
        // Bounded on both sides above; rounded down, so that shares never add up to more than the limit.
        let units = (per_second * seconds + 1e-9).floor().min(f64::from(u32::MAX));
        Self { units: units as u32, fill_seconds: seconds as u32, burst: burst.max(1), enforced: true }
    }

    /// Units that come back in a second.
    pub fn per_second(&self) -> f64 {
        f64::from(self.units) / f64::from(self.fill_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_cut_finely_and_never_rounded_up() {
        let table = [
            // per second, units, seconds
            (40.0, 80, 2),
            (1_000.0, 1_000, 1),
            (100.0 / 60.0, 65, 39),
            (5.0, 65, 13),
            (1.0 / 3_600.0, 1, 3_600),
            (1.0 / 86_400.0, 1, 86_400),
            (0.0, 0, 1),
        ];
        for (per_second, units, seconds) in table {
            let terms = Terms::at(per_second, 10);
            assert_eq!((terms.units, terms.fill_seconds), (units, seconds), "{per_second}");
            assert!(terms.per_second() <= per_second + 1e-9);
            assert!(per_second == 0.0 || terms.per_second() >= per_second * 63.0 / 64.0 || seconds >= 3_600);
        }
    }
}
