//! Durations in buckets of constant relative width: any percentile within 1 %, and two histograms add up exactly.

use serde::{Deserialize, Serialize};

/// Ratio between neighbouring bucket bounds for a relative error of 1 %: (1 + 0.01) / (1 - 0.01).
const GAMMA: f64 = 1.01 / 0.99;
/// Durations above this (an hour in microseconds) share the last bucket.
const MAX_US: u64 = 3_600_000_000;

/// Counts by bucket; bucket `i` holds what rounds to `GAMMA^i` microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    counts: std::collections::BTreeMap<u16, u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn add(&mut self, us: u64) {
        *self.counts.entry(bucket(us)).or_default() += 1;
        self.total += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
        self.total += other.total;
    }

    /// The value below which `share` (0 to 1) of the measurements lie, microseconds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "a rank"
    )]
    pub(crate) fn percentile_us(&self, share: f64) -> Option<f64> {
        if self.total == 0 {
            return None;
        }
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        for (bucket, count) in &self.counts {
            seen += count;
            if seen >= rank {
                // The middle of the bucket in the sense of relative error.
                return Some(2.0 * GAMMA.powi(i32::from(*bucket)) / (GAMMA + 1.0));
            }
        }
        None
    }

    /// The same in milliseconds, to three significant digits.
    pub(crate) fn percentile_ms(&self, share: f64) -> Option<f64> {
        self.percentile_us(share).map(|us| three_digits(us / 1000.0))
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "a bucket"
)]
fn bucket(us: u64) -> u16 {
    ((us.clamp(1, MAX_US) as f64).ln() / GAMMA.ln()).ceil() as u16
}

/// Rounds to three significant digits, as many as the page shows.
pub(crate) fn three_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "an exponent")]
    let places = 2 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(places.clamp(-12, 12));
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_percent_and_merging_changes_nothing() {
        let (mut whole, mut left, mut right) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for us in 1..=10_000u64 {
            whole.add(us);
            if us % 3 == 0 { left.add(us) } else { right.add(us) }
        }
        for share in [0.01, 0.5, 0.95, 0.99, 1.0] {
            let (got, want) = (whole.percentile_us(share).unwrap(), 10_000.0 * share);
            assert!((got - want).abs() <= want * 0.0101, "{share}: {got} for {want}");
        }
        left.merge(&right);
        assert_eq!(left, whole);
        assert_eq!(Histogram::default().percentile_ms(0.5), None);
    }
}
