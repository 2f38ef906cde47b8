//! Token buckets: how much of a burst is spent, and when it is there again.
//!
//! Pure arithmetic, the generic cell rate algorithm written as a level that drains: a bucket holds
//! `burst` tokens, gets `requests` back in each `window`, and its state is one number and a moment.
//!
//! ```text
//! spent 20 ┤*            a burst of 20 at once, then 10 a second come back
//!          │ '-.
//!        0 ┤    '-.____  at most burst + requests * t / window pass in any time t
//! ```
//!
//! The script in `counters/redis` does the same operations in the same order on the same kind of
//! number, so that both stores agree to the bit.

use crate::window::steady;

/// What rounding may add up to, far below one hit: without it the last token of a burst could be refused.
const SLACK: f64 = 1e-6;

/// How fast tokens come back, and how many there are at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refill {
    requests: f64,
    window_us: f64,
    burst: f64,
}

impl Refill {
    /// `requests` come back in each window of `window_us` microseconds; `burst` is all there is.
    pub fn new(requests: u32, window_us: u64, burst: u32) -> Self {
        Self { requests: f64::from(requests), window_us: window_us as f64, burst: f64::from(burst) }
    }
}

/// Tokens that are spent and have not come back yet, as of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// How many.
    pub hits: f64,
    /// The moment, in microseconds of Unix time.
    pub at_us: u64,
}

impl Spent {
    /// As things stand now. A clock that stepped back a little brings nothing back until it has caught up.
    #[must_use]
    pub fn drained(self, refill: &Refill, now_us: u64) -> Self {
        let at_us = steady(self.at_us, now_us);
        let back = at_us.saturating_sub(self.at_us) as f64 * refill.requests / refill.window_us;
        Self { hits: (self.hits - back).max(0.0), at_us }
    }

    /// With this many more spent, where there are as many.
    pub fn take(self, refill: &Refill, hits: u64) -> Option<Self> {
        let spent = self.hits + hits as f64;
        (spent <= refill.burst + SLACK).then_some(Self { hits: spent, ..self })
    }

    /// With this many put back.
    #[must_use]
    pub fn give_back(self, hits: u64) -> Self {
        Self { hits: (self.hits - hits as f64).max(0.0), ..self }
    }

    /// In whole hits, a begun one counted.
    pub fn used(self) -> u64 {
        (self.hits - SLACK).ceil().max(0.0) as u64
    }

    /// Microseconds until `hits` could be taken; where they never can, until all is back.
    pub fn wait_us(self, refill: &Refill, hits: u64) -> u64 {
        let too_many = self.hits + hits as f64 - refill.burst;
        self.until_back_us(refill, if hits as f64 > refill.burst { self.hits } else { too_many })
    }

    /// Microseconds until nothing is spent.
    pub fn empty_in_us(self, refill: &Refill) -> u64 {
        self.until_back_us(refill, self.hits)
    }

    fn until_back_us(self, refill: &Refill, hits: f64) -> u64 {
        if refill.requests > 0.0 {
            (hits.max(0.0) * refill.window_us / refill.requests).ceil() as u64
        } else {
            refill.window_us as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn try_take(spent: &mut Spent, refill: &Refill, now_us: u64, hits: u64) -> bool {
        let drained = spent.drained(refill, now_us);
        match drained.take(refill, hits) {
            Some(taken) => {
                *spent = taken;
                true
            }
            None => false,
        }
    }

    #[test]
    fn the_whole_burst_at_once_then_at_the_rate() {
        for (requests, burst) in [(10, 20), (3, 3), (7, 1), (1_000_000, 3)] {
            let refill = Refill::new(requests, SECOND, burst);
            let mut spent = Spent::default();
            for _ in 0..burst {
                assert!(try_take(&mut spent, &refill, START, 1), "{requests} {burst}");
            }
            assert!(!try_take(&mut spent, &refill, START, 1), "{requests} {burst}");
            let wait = spent.wait_us(&refill, 1);
            assert!(!try_take(&mut spent, &refill, START + wait - wait.div_ceil(2), 1));
            assert!(try_take(&mut spent, &refill, START + wait, 1), "{requests} {burst} after {wait}");
        }
    }

    #[test]
    fn refused_spends_nothing_and_more_than_the_burst_is_always_refused() {
        let refill = Refill::new(10, SECOND, 5);
        let mut spent = Spent::default();
        assert!(!try_take(&mut spent, &refill, START, 6));
        assert_eq!(spent.used(), 0);
        assert!(try_take(&mut spent, &refill, START, 5));
        assert_eq!(spent.wait_us(&refill, 6), 500_000, "until all is back");
        assert_eq!(spent.give_back(2).used(), 3);
        assert_eq!(Refill::new(0, SECOND, 0), Refill::new(0, SECOND, 0));
        assert!(!try_take(&mut Spent::default(), &Refill::new(0, SECOND, 0), START, 1));
    }

    #[test]
    fn a_clock_that_steps_neither_grants_twice_nor_refuses_for_good() {
        let refill = Refill::new(10, SECOND, 10);
        let mut spent = Spent::default();
        assert!(try_take(&mut spent, &refill, START, 10));
        assert!(!try_take(&mut spent, &refill, START - 10 * SECOND, 1), "ten seconds back");
        assert!(!try_take(&mut spent, &refill, START, 1), "and forward again: nothing was gained");
        assert!(try_take(&mut spent, &refill, START + SECOND, 10));
        assert!(!try_take(&mut spent, &refill, START - 3_600 * SECOND, 11), "an hour back");
        let spent_then = spent.drained(&refill, START - 3_600 * SECOND);
        assert!(spent_then.drained(&refill, START - 3_599 * SECOND).take(&refill, 10).is_some());
    }

    proptest! {
        /// Against a naive model: in no interval more passes than the burst, what came back in it and
        /// [`SLACK`]; and what is refused could not have passed by that very rule.
        #[test]
        fn never_more_than_burst_and_refill(
            requests in 1u32..50, burst in 1u32..50, window_s in 1u64..90,
            calls in proptest::collection::vec((0u64..3_000_000, 1u64..6), 1..150),
        ) {
            let refill = Refill::new(requests, window_s * SECOND, burst);
            let (mut now, mut spent) = (START, Spent::default());
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (later, hits) in calls {
                now += later;
                let allowed = try_take(&mut spent, &refill, now, hits);
                passed.push((now, hits));
                let most_over = (0..passed.len()).map(|first| {
                    let sum: u64 = passed[first..].iter().map(|(_, hits)| hits).sum();
                    let back = (now - passed[first].0) as f64 * f64::from(requests) / (window_s * SECOND) as f64;
                    sum as f64 - f64::from(burst) - back
                }).fold(f64::MIN, f64::max);
                if allowed {
                    prop_assert!(most_over <= SLACK * 1.01, "{most_over} too many pass: {spent:?} at {now}");
                } else {
                    prop_assert!(most_over > SLACK * 0.99, "refused at {most_over}: {spent:?} at {now}");
                    passed.pop();
                }
            }
        }
    }
}
