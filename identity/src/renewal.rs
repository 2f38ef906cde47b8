//! When to ask for the next certificate. Pure: times in, times out.
//!
//! ```text
//! not_before ------------- half ----[jitter]---- ... not_after
//!                            └─ renew in here, by a draw of each workload's own
//! ```
//!
//! Half of the life is left for a CA that is away. The jitter keeps workloads that were started together from
//! coming back together, again and again.

use std::time::Duration;

/// The part of a life over which renewals are spread, after its half.
const JITTER: f64 = 0.1;
/// The first wait after a failure.
const RETRY_FROM: Duration = Duration::from_secs(1);
/// The longest wait after failures.
const RETRY_TO: Duration = Duration::from_secs(60);
/// The wait after a refusal: somebody has to act first, and should not wait long after that.
const REFUSED: Duration = Duration::from_secs(60);

/// The moment to renew, in Unix seconds and fractions of them. `draw` is a random number from 0 to 1.
pub fn renew_at(not_before: i64, not_after: i64, draw: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds of this age are far below 2^52")]
    let (from, life) = (not_before as f64, not_after.saturating_sub(not_before).max(0) as f64);
    from + life * (0.5 + JITTER * draw.clamp(0.0, 1.0))
}

/// How long it is from `now` to the moment `renew_at`, both in Unix seconds.
pub fn until(renew_at: f64, now: i64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "seconds of this age are far below 2^52")]
    Duration::from_secs_f64((renew_at - now as f64).max(0.0))
}

/// How long to wait after `failures` of them in a row (at least one). `draw` is a random number from 0 to 1.
pub fn retry_after(failures: u32, draw: f64) -> Duration {
    let doubled = RETRY_FROM.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(RETRY_TO).mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
}

/// How long to wait after somebody refused. `draw` is a random number from 0 to 1.
pub fn retry_after_refusal(draw: f64) -> Duration {
    REFUSED.mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::identity::draw;

    /// Two hundred workloads that were all started in one second.
    #[test]
    fn no_second_holds_more_than_a_twentieth_of_the_renewals() {
        const WORKLOADS: usize = 200;
        for life in [3600, 6 * 3600] {
            let mut issued = [1_800_000_000_i64; WORKLOADS];
            for wave in 0..8 {
                let mut by_second: HashMap<i64, usize> = HashMap::new();
                for at in &mut issued {
                    #[expect(clippy::cast_possible_truncation, reason = "seconds fit")]
                    let second = renew_at(*at, *at + life, draw()).floor() as i64;
                    *by_second.entry(second).or_default() += 1;
                    *at = second;
                }
                let most = by_second.values().max().copied().unwrap_or_default();
                assert!(most <= WORKLOADS / 20, "{most} in one second of wave {wave}, life {life}");
            }
        }
    }

    #[test]
    fn renewal_falls_into_the_second_half_and_is_spread() {
        for (draw, at) in [(0.0, 1050.0), (0.5, 1055.0), (1.0, 1060.0), (7.0, 1060.0), (-1.0, 1050.0)] {
            assert!((renew_at(1000, 1100, draw) - at).abs() < 1e-9, "{draw}");
        }
        assert!((renew_at(1000, 900, 0.5) - 1000.0).abs() < 1e-9, "a life that ended before it began");
    }

    #[test]
    fn waits_grow_to_a_ceiling_and_never_overflow() {
        assert_eq!(retry_after(1, 1.0), Duration::from_secs(1));
        assert_eq!(retry_after(3, 1.0), Duration::from_secs(4));
        assert_eq!(retry_after(3, 0.0), Duration::from_secs(2));
        assert_eq!(retry_after(u32::MAX, 1.0), RETRY_TO);
    }
}
