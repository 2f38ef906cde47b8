//! What requests cost, and so how many of them may be refused: a refusal is not free, and clients that ask again at once
//! could have a proxy do nothing else.

use std::time::Duration;

/// However much they cost, so many may be refused: the costs are estimates.
const LEAST: f64 = 0.5;
/// And no more, so that somebody is always served: otherwise nothing would be learned.
const MOST: f64 = 0.98;
/// What so few requests cost says little.
const FEW: u32 = 10;
/// Of a measurement of what a served request costs so much counts.
const WEIGHT_SERVED: f64 = 0.2;
/// And of one of what a refusal costs, of which there are only so many.
const WEIGHT_REFUSED: f64 = 0.05;
const FIRST: u32 = 50;
/// After so many measurements without refusals it is known what served requests cost: refusals are learned anew.
const CALM: u32 = 10;

/// Processor time of one request, in seconds.
///
/// Measured is only what all of them use together. So one of the two is learned while the other is taken to stay the same:
/// refusals when they begin, since what the others cost is known from before; and from then on the others, of which there are
/// more kinds.
#[derive(Debug, Default)]
pub(super) struct Costs {
    served: Option<f64>,
    refused: Option<f64>,
    /// So many measurements of refusals since they began.
    measured: u32,
    /// So many in a row without any.
    calm: u32,
}

impl Costs {
    /// What was used, and for what.
    pub(super) fn update(&mut self, used: Duration, served: u32, refused: u32) {
        let used = used.as_secs_f64();
        self.calm = if refused == 0 { self.calm.saturating_add(1) } else { 0 };
        if self.calm >= CALM {
            self.measured = 0;
        }
        match self.served {
            Some(of_one) if refused >= FEW && self.measured < FIRST => {
                self.measured += 1;
                let left = used - f64::from(served) * of_one;
                follow(&mut self.refused, left / f64::from(refused), WEIGHT_REFUSED);
            }
            _ if served >= FEW => {
                let left = used - f64::from(refused) * self.refused.unwrap_or_default();
                follow(&mut self.served, left / f64::from(served), WEIGHT_SERVED);
            }
            _ => {}
        }
    }

    /// So many of the requests may be refused, from 0 to 1: as many as take half of the time, but [`LEAST`] at least.
    pub(super) fn most(&self) -> f64 {
        match (self.served, self.refused) {
            (Some(served), Some(refused)) if refused > 0.0 => {
                let served = served.max(0.0);
                (served / (served + refused)).clamp(LEAST, MOST)
            }
            _ => MOST,
        }
    }
}

fn follow(known: &mut Option<f64>, measured: f64, weight: f64) {
    let before = known.unwrap_or(measured);
    *known = Some(before + weight * (measured - before));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: Duration = Duration::from_micros(100);
    const REFUSED: Duration = Duration::from_micros(25);

    /// Has measured some of both kinds for seconds.
    fn learned(served: Duration, refused: Duration) -> Costs {
        let mut costs = Costs::default();
        for _ in 0..50 {
            costs.update(served * 200, 200, 0);
        }
        for _ in 0..100 {
            costs.update(served * 100 + refused * 300, 100, 300);
        }
        costs
    }

    #[track_caller]
    fn is_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.001, "{found}, not {expected}");
    }

    #[test]
    fn refusals_take_half_of_the_time_at_most() {
        for (refused, expected) in
            [(SERVED / 1_000, 0.98), (SERVED / 9, 0.9), (SERVED / 3, 0.75), (SERVED * 2, 0.5)]
        {
            is_near(learned(SERVED, refused).most(), expected);
        }
    }

    #[test]
    fn requests_that_become_dearer_or_cheaper_meanwhile_are_seen() {
        for (now, expected) in [(SERVED * 3, 12.0 / 13.0), (SERVED / 2, 2.0 / 3.0)] {
            let mut costs = learned(SERVED, REFUSED);
            for _ in 0..50 {
                costs.update(now * 50 + REFUSED * 300, 50, 300);
            }
            is_near(costs.most(), expected);
        }
    }

    #[test]
    fn refusals_that_become_dearer_are_seen_when_they_begin_again() {
        let mut costs = learned(SERVED, REFUSED);
        for _ in 0..50 {
            costs.update(SERVED * 200, 200, 0);
        }
        for _ in 0..FIRST {
            costs.update(SERVED * 100 + SERVED * 150, 100, 300);
        }
        assert!((costs.most() - 0.67).abs() < 0.02, "{}", costs.most());
    }

    #[test]
    fn what_is_used_besides_hardly_matters() {
        // From a tenth less to a tenth more, in no order.
        let mut seed = 1_u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0.9 + 0.2 * f64::from(seed >> 16) / 65_536.0
        };
        let mut costs = Costs::default();
        for _ in 0..50 {
            costs.update((SERVED * 200).mul_f64(noise()), 200, 0);
        }
        for _ in 0..500 {
            costs.update((SERVED * 100 + REFUSED * 300).mul_f64(noise()), 100, 300);
            if costs.measured == FIRST {
                assert!((costs.most() - 0.8).abs() < 0.05, "{costs:?}");
            }
        }
        assert_eq!(costs.measured, FIRST);
    }

    #[test]
    fn what_is_not_known_bounds_nothing() {
        let mut costs = Costs::default();
        assert_eq!(costs.most(), MOST);
        costs.update(SERVED, 0, 300);
        costs.update(SERVED, FEW - 1, 0);
        assert_eq!(costs.most(), MOST);
        // Who seem to cost less than nothing.
        costs.update(SERVED * 100, 100, 0);
        costs.update(SERVED * 50, 100, 300);
        assert_eq!(costs.most(), MOST);
    }
}
