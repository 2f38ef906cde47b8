//! What requests cost, and so how many of them may be refused: a refusal is not free, and clients that ask again at once
//! could have a proxy do nothing else.

use std::time::Duration;

/// However much they cost, so many may be refused: the costs are estimates.
const LEAST: f64 = 0.5;
/// And no more, so that somebody is always served: otherwise nothing would be learned.
const MOST: f64 = 0.98;
/// Of a new measurement so much counts.
const WEIGHT: f64 = 0.2;
/// What so few requests cost says little.
const FEW: u32 = 10;

/// Processor time of one request, in seconds.
#[derive(Debug, Default)]
pub(super) struct Costs {
    served: Option<f64>,
    refused: Option<f64>,
}

impl Costs {
    /// What was used, and for what.
    pub(super) fn update(&mut self, used: Duration, served: u32, refused: u32) {
        let used = used.as_secs_f64();
        if refused == 0 {
            if served >= FEW {
                follow(&mut self.served, used / f64::from(served));
            }
        } else if refused >= FEW
            && let Some(of_one) = self.served
        {
            let left = used - f64::from(served) * of_one;
            follow(&mut self.refused, left.max(0.0) / f64::from(refused));
        }
    }

    /// So many of the requests may be refused, from 0 to 1: as many as take half of the time, but [`LEAST`] at least.
    ///
    /// What those that are served cost is learned only while nobody is refused: if they become dearer meanwhile it is too low.
    pub(super) fn most(&self) -> f64 {
        match (self.served, self.refused) {
            (Some(served), Some(refused)) => (served / (served + refused)).clamp(LEAST, MOST),
            _ => MOST,
        }
    }
}

fn follow(known: &mut Option<f64>, measured: f64) {
    let before = known.unwrap_or(measured);
    *known = Some(before + WEIGHT * (measured - before));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: Duration = Duration::from_micros(100);

    /// What may be refused where a refusal costs so much.
    fn most(refused: Duration) -> f64 {
        let mut costs = Costs::default();
        for _ in 0..50 {
            costs.update(SERVED * 200, 200, 0);
        }
        for _ in 0..50 {
            costs.update(SERVED * 100 + refused * 300, 100, 300);
        }
        costs.most()
    }

    #[test]
    fn refusals_take_half_of_the_time_at_most() {
        for (refused, expected) in
            [(SERVED / 1_000, 0.98), (SERVED / 9, 0.9), (SERVED / 3, 0.75), (SERVED * 2, 0.5)]
        {
            let found = most(refused);
            assert!((found - expected).abs() < 0.001, "{found} for {refused:?}");
        }
    }

    #[test]
    fn what_is_not_known_bounds_nothing() {
        let mut costs = Costs::default();
        assert_eq!(costs.most(), MOST);
        costs.update(SERVED, 0, 300);
        costs.update(SERVED, FEW - 1, 0);
        assert_eq!(costs.most(), MOST);
    }
}
