//! What became of requests since somebody last looked: counted by many at once, taken by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tollgate_proto::Reason;
use tollgate_rollout::{ArmCounts, BUCKETS, Window, bucket_of};

/// Which of two versions had a request, where the shares alone decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// What is replaced.
    Baseline,
    /// What may replace it.
    Canary,
}

/// What a request says about the version that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Failed,
    /// The client did not wait, which tells how long it took at least.
    Unknown,
}

/// Counts of both versions.
#[derive(Debug)]
pub(super) struct Counts {
    baseline: Tally,
    canary: Tally,
}

#[derive(Debug)]
struct Tally {
    ok: AtomicU64,
    failed: AtomicU64,
    latency: Box<[AtomicU64]>,
}

impl Counts {
    pub(super) fn new() -> Self {
        let tally = || Tally {
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            latency: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        };
        Self { baseline: tally(), canary: tally() }
    }

    /// A request has ended.
    pub(super) fn add(&self, arm: Arm, reason: Reason, grpc_status: Option<i64>, took: Duration) {
        let Some(outcome) = outcome(reason, grpc_status) else { return };
        let tally = match arm {
            Arm::Baseline => &self.baseline,
            Arm::Canary => &self.canary,
        };
        match outcome {
            Outcome::Good => drop(tally.ok.fetch_add(1, Ordering::Relaxed)),
            Outcome::Failed => drop(tally.failed.fetch_add(1, Ordering::Relaxed)),
            Outcome::Unknown => {}
        }
        if let Some(bucket) = tally.latency.get(bucket_of(took.as_secs_f64())) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes what was counted. No request is lost between two takings, and none is in both.
    pub(super) fn take(&self) -> Window {
        Window { baseline: self.baseline.take(), canary: self.canary.take() }
    }
}

impl Tally {
    fn take(&self) -> ArmCounts {
        let mut latency: Vec<u64> =
            self.latency.iter().map(|bucket| bucket.swap(0, Ordering::Relaxed)).collect();
        latency.truncate(latency.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1));
        let (ok, failed) = (self.ok.swap(0, Ordering::Relaxed), self.failed.swap(0, Ordering::Relaxed));
        ArmCounts { ok, failed, latency }
    }
}

/// What the end of a request says about the upstream; nothing where it was the client's fault or ours.
fn outcome(reason: Reason, grpc_status: Option<i64>) -> Option<Outcome> {
    Some(match reason {
        // The codes that are a server's fault: unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
        Reason::Ok if grpc_status.is_some_and(|code| matches!(code, 2 | 4 | 12 | 13 | 14 | 15)) => {
            Outcome::Failed
        }
        Reason::Ok => Outcome::Good,
        Reason::UpstreamStatus
        | Reason::UpstreamConnect
        | Reason::UpstreamReset
        | Reason::UpstreamTimeout
        | Reason::UpstreamProtocol
        | Reason::NoHealthyUpstream
        | Reason::BreakerOpen => Outcome::Failed,
        Reason::ClientGone => Outcome::Unknown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_upstreams_doing_counts() {
        for (reason, grpc, expected) in [
            (Reason::Ok, None, Some(Outcome::Good)),
            (Reason::Ok, Some(0), Some(Outcome::Good)),
            (Reason::Ok, Some(5), Some(Outcome::Good)),
            (Reason::Ok, Some(14), Some(Outcome::Failed)),
            (Reason::UpstreamStatus, None, Some(Outcome::Failed)),
            (Reason::UpstreamTimeout, None, Some(Outcome::Failed)),
            (Reason::BreakerOpen, None, Some(Outcome::Failed)),
            (Reason::ClientGone, None, Some(Outcome::Unknown)),
            (Reason::RequestTooLarge, None, None),
            (Reason::Internal, None, None),
        ] {
            assert_eq!(outcome(reason, grpc), expected, "{reason} {grpc:?}");
        }
    }

    #[test]
    fn what_is_taken_is_gone() {
        let counts = Counts::new();
        let ms = Duration::from_millis;
        counts.add(Arm::Canary, Reason::Ok, None, ms(10));
        counts.add(Arm::Canary, Reason::UpstreamStatus, None, ms(10));
        counts.add(Arm::Baseline, Reason::ClientGone, None, ms(3_000));
        let window = counts.take();
        assert_eq!((window.canary.ok, window.canary.failed, window.baseline.all()), (1, 1, 0));
        assert_eq!(window.canary.latency.last(), Some(&2));
        assert_eq!(window.baseline.latency.iter().sum::<u64>(), 1);
        assert!(counts.take().is_empty());
    }
}
