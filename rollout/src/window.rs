//! What one proxy saw of both versions in the same seconds.

use serde::{Deserialize, Serialize};

/// Buckets of latency; the last has no upper edge.
pub const BUCKETS: usize = 145;
/// The upper edge of the first bucket; eight more double it.
const FIRST_EDGE_MS: f64 = 0.25;
const PER_OCTAVE: f64 = 8.0;

/// What became of one version's requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Answers that were none of the upstream's failures.
    pub ok: u64,
    /// Failures of the upstream's.
    pub failed: u64,
    /// How long answers took, by bucket; what is missing at the end is 0. Also of clients that did not wait to the end,
    /// who tell how long it took at least.
    pub latency: Vec<u64>,
}

/// Both versions over the same time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// What is replaced.
    pub baseline: ArmCounts,
    /// What may replace it.
    pub canary: ArmCounts,
}

impl ArmCounts {
    /// Answers that succeeded or failed.
    pub fn all(&self) -> u64 {
        self.ok.saturating_add(self.failed)
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.all() == 0 && self.latency.iter().all(|count| *count == 0)
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.ok = self.ok.saturating_add(other.ok);
        self.failed = self.failed.saturating_add(other.failed);
        if self.latency.len() < other.latency.len() {
            self.latency.resize(other.latency.len().min(BUCKETS), 0);
        }
        for (mine, more) in self.latency.iter_mut().zip(&other.latency) {
            *mine = mine.saturating_add(*more);
        }
    }
}

impl Window {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.baseline.is_empty() && self.canary.is_empty()
    }

    /// Adds another count of both.
    pub fn add(&mut self, other: &Self) {
        self.baseline.add(&other.baseline);
        self.canary.add(&other.canary);
    }

    /// Whether a proxy can have seen this: bounds what is believed of the wire.
    pub fn is_plausible(&self) -> bool {
        const MOST: u64 = 1 << 40;
        [&self.baseline, &self.canary].into_iter().all(|arm| {
            arm.latency.len() <= BUCKETS
                && arm.ok <= MOST
                && arm.failed <= MOST
                && arm.latency.iter().all(|count| *count <= MOST)
        })
    }
}

/// The bucket of a duration.
pub fn bucket_of(seconds: f64) -> usize {
    let octaves = (seconds * 1000.0 / FIRST_EDGE_MS).log2();
    if octaves <= 0.0 || octaves.is_nan() {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and held below")]
    let bucket = (octaves * PER_OCTAVE).ceil().min((BUCKETS - 1) as f64) as usize;
    bucket
}

/// The longest duration of a bucket; of the last one the longest of the one before.
pub fn upper_edge_ms(bucket: usize) -> f64 {
    FIRST_EDGE_MS * ((bucket.min(BUCKETS - 2)) as f64 / PER_OCTAVE).exp2()
}

/// The bucket that `ms` falls into, where there are longer ones.
pub(crate) fn bucket_below(ms: f64) -> Option<usize> {
    let bucket = bucket_of(ms / 1000.0);
    (bucket < BUCKETS - 1).then_some(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_by_nine_percent() {
        for (seconds, bucket) in
            [(0.0, 0), (0.000_25, 0), (0.000_26, 1), (0.000_5, 8), (0.001, 16), (61.0, 144), (f64::NAN, 0)]
        {
            assert_eq!(bucket_of(seconds), bucket, "{seconds}");
        }
        for bucket in 0..BUCKETS - 1 {
            let edge = upper_edge_ms(bucket);
            assert_eq!(bucket_of(edge / 1000.0 * 0.999_999), bucket, "{edge}");
        }
        assert!((upper_edge_ms(8) / upper_edge_ms(0) - 2.0).abs() < 1e-9);
    }
}
