//! Is the canary's share of bad answers higher than the baseline's? A test that may be looked at all the time.
//!
//! Somebody bets against "the canary is no worse": a unit of money is spread over several guesses of how much worse it
//! is, and each window multiplies a bet by how much better that guess explains the window than the best case of "no
//! worse". Where the canary is no worse, no bet gains on average, whatever is known when it is placed; so the chance
//! that the money ever reaches 1/α is at most α (Ville's inequality), however often one looks and whenever one stops.
//!
//! * The factor of a window is the E-variable of Turner, Ly and Grünwald, "Generic E-variables for exact sequential
//!   k-sample tests that allow for optional stopping" (J. Statistical Planning and Inference 230, 2024,
//!   arXiv:2106.02693), with a margin as in Turner and Grünwald, "Exact anytime-valid confidence intervals for
//!   contingency tables and beyond" (arXiv:2203.09785). Both versions are compared within the window alone, so a minute
//!   that is bad for both is no evidence against either.
//! * A part of the money waits and is bet later, 1/(j(j+1)) of it in window j. So a canary that was good for hours and
//!   then turns bad is found about as soon as one that was bad from the start: the sum of bets that begin at different
//!   times is that of Shin, Ramdas and Rinaldo, "E-detectors" (arXiv:2203.03532), with weights that add up to one, so that the
//!   level stays α for the whole rollout.

use serde::{Deserialize, Serialize};

/// By how much more of its requests the canary may fail: one bet each.
const EXCESSES: [f64; BETS] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8];
const BETS: usize = 8;
/// Shares are kept away from 0 and 1, where one surprise would cost everything.
const LEAST_SHARE: f64 = 1e-4;
const MOST_SHARE: f64 = 0.999;
/// Stands for a bet that has not been placed; JSON knows no infinity.
const NOTHING: f64 = -1e9;

/// How many of some answers were bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trials {
    /// The bad ones.
    pub bad: u64,
    /// All of them.
    pub all: u64,
}

/// What the windows so far say against the canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Windows in which both versions had requests.
    windows: u64,
    /// The natural logarithm of what each bet is worth.
    bets: [f64; BETS],
}

impl Default for Evidence {
    fn default() -> Self {
        Self { windows: 0, bets: [NOTHING; BETS] }
    }
}

impl Evidence {
    /// Takes a window into account. `margin` is how much worse is still no worse; `expected` the baseline's share of bad
    /// answers as it was known before this window.
    pub fn observe(&mut self, baseline: Trials, canary: Trials, margin: f64, expected: f64) {
        // Without the other there is nothing to compare: the best case explains one version alone perfectly.
        if baseline.all == 0 || canary.all == 0 {
            return;
        }
        self.windows += 1;
        let window = self.windows as f64;
        let stake = -(window * (window + 1.0)).ln() - (BETS as f64).ln();
        let usual = expected.clamp(LEAST_SHARE, 0.9);
        for (bet, excess) in self.bets.iter_mut().zip(EXCESSES) {
            let placed = ln_sum(*bet, stake);
            let guess = usual + margin + excess;
            let gain =
                if guess < MOST_SHARE { ln_factor(baseline, canary, usual, guess, margin) } else { 0.0 };
            *bet = (placed + gain).max(NOTHING);
        }
    }

    /// The natural logarithm of the money: of what was bet, and of what still waits.
    pub fn ln_value(&self) -> f64 {
        let waiting = -((self.windows as f64) + 1.0).ln();
        self.bets.iter().copied().fold(waiting, ln_sum)
    }

    /// How many times more the windows speak against the canary than for it.
    pub fn value(&self) -> f64 {
        self.ln_value().exp()
    }
}

/// ln(exp(a) + exp(b)).
fn ln_sum(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

/// By how much the guess (`usual` for the baseline, `guess` for the canary) explains a window better than the best case
/// of "at most `margin` worse", as a logarithm.
fn ln_factor(baseline: Trials, canary: Trials, usual: f64, guess: f64, margin: f64) -> f64 {
    let at = best_case((baseline.all as f64, usual), (canary.all as f64, guess), margin);
    ln_ratio(baseline, usual, at) + ln_ratio(canary, guess, at + margin)
}

/// The baseline's share in the case of "no worse" that is nearest to the guess: where n·KL(usual‖x) + m·KL(guess‖x+margin)
/// is least. Its derivative grows with x, so halving finds it.
///
/// That it is the nearest one is what makes the factor fair: with f_k = θ·p*/p° + (1−θ)(1−p*)/(1−p°) for version k, the
/// expected factor is Π f_k^(n_k) ≤ (Σ n_k f_k / n)^n, a sum that is linear in the true shares, 1 at the nearest case, and
/// falls from there into the convex set of "no worse".
fn best_case((n, usual): (f64, f64), (m, guess): (f64, f64), margin: f64) -> f64 {
    if margin <= 0.0 {
        return (n * usual + m * guess) / (n + m);
    }
    let slope = |x: f64| {
        let y = x + margin;
        n * (x - usual) / (x * (1.0 - x)) + m * (y - guess) / (y * (1.0 - y))
    };
    let (mut low, mut high) = (usual, guess - margin);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if slope(middle) < 0.0 { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

fn ln_ratio(trials: Trials, guess: f64, null: f64) -> f64 {
    let bad = trials.bad.min(trials.all) as f64;
    let good = trials.all as f64 - bad;
    bad * (guess / null).ln() + good * ((1.0 - guess) / (1.0 - null)).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trials(bad: u64, all: u64) -> Trials {
        Trials { bad, all }
    }

    #[test]
    fn nothing_speaks_against_a_canary_that_nobody_has_seen() {
        let mut evidence = Evidence::default();
        assert!((evidence.value() - 1.0).abs() < 1e-9);
        evidence.observe(trials(0, 0), trials(10, 10), 0.0, 0.01);
        evidence.observe(trials(10, 10), trials(0, 0), 0.0, 0.01);
        assert_eq!(evidence, Evidence::default());
    }

    #[test]
    fn a_canary_that_turns_bad_after_a_day_is_found_as_soon_as_any() {
        let mut evidence = Evidence::default();
        for _ in 0..43_200 {
            evidence.observe(trials(1, 900), trials(0, 100), 0.001, 0.001);
        }
        assert!(evidence.value() < 1.0);
        let mut windows = 0;
        while evidence.value() < 2000.0 {
            windows += 1;
            evidence.observe(trials(1, 900), trials(5, 100), 0.001, 0.001);
        }
        assert!(windows <= 6, "{windows} windows of two seconds");
    }

    #[test]
    fn a_bad_minute_of_both_is_no_evidence() {
        let mut evidence = Evidence::default();
        for _ in 0..1_000 {
            evidence.observe(trials(450, 900), trials(50, 100), 0.0, 0.001);
        }
        assert!(evidence.value() < 1.0, "{}", evidence.value());
    }

    #[test]
    fn worse_by_no_more_than_the_margin_is_no_worse() {
        let (mut with, mut without) = (Evidence::default(), Evidence::default());
        for _ in 0..2_000 {
            with.observe(trials(9, 900), trials(2, 100), 0.02, 0.01);
            without.observe(trials(9, 900), trials(2, 100), 0.0, 0.01);
        }
        assert!(with.value() < 1.0 && without.value() > 1e6, "{} {}", with.value(), without.value());
    }

    #[test]
    fn what_is_kept_reads_back_the_same() {
        let mut evidence = Evidence::default();
        evidence.observe(trials(3, 90), trials(4, 10), 0.001, 0.02);
        let text = serde_json::to_string(&evidence).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
    }

    /// The factor's expectation over all outcomes of one window, worked out exactly.
    fn expected_factor((n, a): (u64, f64), (m, b): (u64, f64), usual: f64, guess: f64, margin: f64) -> f64 {
        let chance = |k: u64, n: u64, p: f64| {
            let choose = (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
            choose * p.powf(k as f64) * (1.0 - p).powf((n - k) as f64)
        };
        let mut sum = 0.0;
        for i in 0..=n {
            for j in 0..=m {
                let factor = ln_factor(trials(i, n), trials(j, m), usual, guess, margin).exp();
                sum += chance(i, n, a) * chance(j, m, b) * factor;
            }
        }
        sum
    }

    proptest! {
        /// What the guarantee rests on: no bet gains on average while the canary is no worse.
        #[test]
        fn no_bet_gains_where_the_canary_is_no_worse(
            n in 1_u64..12, m in 1_u64..12, a in 0.0_f64..0.97, better in 0.0_f64..1.0,
            usual in 0.0001_f64..0.6, excess in 0.005_f64..0.3, margin in prop_oneof![Just(0.0), 0.0001_f64..0.05],
        ) {
            // The canary's share is anything up to the baseline's and the margin.
            let b = (a + margin).min(1.0) * better;
            let guess = usual + margin + excess;
            let mean = expected_factor((n, a), (m, b), usual, guess, margin);
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
            let edge = expected_factor((n, a), (m, (a + margin).min(1.0)), usual, guess, margin);
            prop_assert!(edge <= 1.0 + 1e-9, "{edge}");
        }
    }
}
