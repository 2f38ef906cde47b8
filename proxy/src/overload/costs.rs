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
/// What a refusal costs until one is measured, in seconds: those over HTTP/2, which is not the work of one task, never are.
const REFUSED: f64 = 30e-6;
/// A request that is served counts as so many times what it took before any were refused, at most: what the samples miss of
/// refusals, such as a new connection for each, is taken for its cost, and the more were refused the dearer it would seem.
const DEARER: f64 = 4.0;

/// What was done in a while.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    /// Processor time.
    pub(super) used: Duration,
    pub(super) served: u32,
    pub(super) refused: u32,
    /// What one refusal took.
    pub(super) of_refusal: Option<Duration>,
}

/// Processor time of one request, in seconds.
#[derive(Debug, Default)]
pub(super) struct Costs {
    pub(super) served: Option<f64>,
    pub(super) refused: Option<f64>,
    /// When none was refused.
    served_before: Option<f64>,
    /// Until there are some who were served.
    meanwhile: Work,
}

impl Costs {
    /// All that was not done to refuse was done to serve.
    pub(super) fn update(&mut self, work: Work) {
        if let Some(measured) = work.of_refusal {
            follow(&mut self.refused, measured.as_secs_f64());
        }
        let Work { used, served, refused, .. } = &mut self.meanwhile;
        *used = used.saturating_add(work.used);
        *served = served.saturating_add(work.served);
        *refused = refused.saturating_add(work.refused);
        if *served < FEW {
            if *refused == 0 {
                // Who has little to do does most of it for nobody.
                self.meanwhile = Work::default();
            }
            return;
        }
        let Work { used, served, refused, .. } = std::mem::take(&mut self.meanwhile);
        let left = (used.as_secs_f64() - f64::from(refused) * self.of_refusal()).max(0.0);
        let of_one = left / f64::from(served);
        if refused == 0 {
            follow(&mut self.served_before, of_one);
        }
        let most = self.served_before.map_or(f64::INFINITY, |before| before * DEARER);
        follow(&mut self.served, of_one.min(most));
    }

    /// So many of the requests may be refused, from 0 to 1: as many as take half of the time, but [`LEAST`] at least.
    pub(super) fn most(&self) -> f64 {
        self.served.map_or(MOST, |served| (served / (served + self.of_refusal())).clamp(LEAST, MOST))
    }

    fn of_refusal(&self) -> f64 {
        // Never nothing, so that there is something to divide by.
        self.refused.unwrap_or(REFUSED).max(1e-9)
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
    const REFUSED: Duration = Duration::from_micros(25);

    fn work(served: Duration, refused: Duration, many: (u32, u32)) -> Work {
        let used = served * many.0 + refused * many.1;
        Work { used, served: many.0, refused: many.1, of_refusal: (many.1 > 0).then_some(refused) }
    }

    /// What may be refused after these have come for a second.
    #[track_caller]
    fn bounds(costs: &mut Costs, served: Duration, refused: Duration, many: (u32, u32), expected: f64) {
        for _ in 0..50 {
            costs.update(work(served, refused, many));
        }
        let found = costs.most();
        assert!((found - expected).abs() < 0.001, "{found}, not {expected}: {costs:?}");
    }

    #[test]
    fn refusals_take_half_of_the_time_at_most() {
        for (refused, expected) in
            [(SERVED / 1_000, 0.98), (SERVED / 9, 0.9), (SERVED / 3, 0.75), (SERVED, 0.5), (SERVED * 2, 0.5)]
        {
            bounds(&mut Costs::default(), SERVED, refused, (100, 300), expected);
        }
    }

    #[test]
    fn whatever_becomes_dearer_or_cheaper_meanwhile_is_seen() {
        let mut costs = Costs::default();
        bounds(&mut costs, SERVED, REFUSED, (100, 300), 0.8);
        bounds(&mut costs, SERVED * 4, REFUSED, (25, 300), 16.0 / 17.0);
        bounds(&mut costs, SERVED / 2, REFUSED, (100, 300), 2.0 / 3.0);
        bounds(&mut costs, SERVED, REFUSED * 2, (100, 300), 2.0 / 3.0);
        bounds(&mut costs, SERVED, REFUSED / 5, (100, 900), 20.0 / 21.0);
    }

    #[test]
    fn until_a_request_is_measured_nothing_is_bound_and_a_refusal_is_guessed() {
        let mut costs = Costs::default();
        costs.update(work(SERVED, REFUSED, (0, 300)));
        costs.update(work(SERVED, REFUSED, (FEW - 1, 300)));
        assert_eq!(costs.most(), MOST);
        let of_refusal = None;
        let mut costs = Costs::default();
        costs.update(Work { used: Duration::from_millis(8), served: 100, refused: 100, of_refusal });
        assert!((costs.most() - 5.0 / 8.0).abs() < 0.001, "{costs:?}");
    }

    #[test]
    fn a_few_at_a_time_are_measured_too() {
        let mut costs = Costs::default();
        for _ in 0..100 {
            costs.update(work(SERVED, REFUSED, (FEW / 5, 20)));
        }
        assert!((costs.most() - 0.8).abs() < 0.001, "{costs:?}");
    }

    #[test]
    fn what_is_done_while_hardly_anybody_asks_is_not_theirs() {
        let mut costs = Costs::default();
        for _ in 0..10_000 {
            costs.update(Work { used: SERVED * 50, served: FEW / 5, ..Work::default() });
        }
        bounds(&mut costs, SERVED, REFUSED, (100, 300), 0.8);
        assert!(costs.served_before.is_none());
    }

    #[test]
    fn what_is_not_measured_of_refusals_does_not_make_them_all_there_is() {
        let mut costs = Costs::default();
        bounds(&mut costs, SERVED, REFUSED, (100, 0), 100.0 / 130.0);
        // Three times as much was done for them.
        for _ in 0..100 {
            let used = SERVED * 10 + REFUSED * 3 * 490;
            costs.update(Work { used, served: 10, refused: 490, of_refusal: Some(REFUSED) });
        }
        assert!((costs.most() - 16.0 / 17.0).abs() < 0.001, "{costs:?}");
    }

    #[test]
    fn whatever_is_measured_the_bound_is_one() {
        let mut costs = Costs::default();
        for used in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
            for (served, refused) in [(0, 0), (u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX), (FEW, FEW)]
            {
                costs.update(Work { used, served, refused, of_refusal: Some(used) });
                assert!((LEAST..=MOST).contains(&costs.most()), "{costs:?}");
            }
        }
    }
}
