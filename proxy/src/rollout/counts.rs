//! What became of requests since somebody last looked: counted by many at once, taken by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tollgate_proto::Reason;
use tollgate_rollout::{ArmCounts, BUCKETS, Window, bucket_of};

/// The gRPC code of a call whose time was over.
const DEADLINE_EXCEEDED: i64 = 4;

/// Which of two versions had a request, where the shares alone decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// What is replaced.
    Baseline,
    /// What may replace it.
    Canary,
}

/// How a request has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) reason: Reason,
    pub(crate) grpc_status: Option<i64>,
    /// The caller had said how long it waits, and that was over.
    pub(crate) caller_gave_up: bool,
}

/// What a request says about the version that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Failed,
    /// The client did not wait (longer), which tells how long it took at least.
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
    pub(super) fn add(&self, arm: Arm, end: End, took: Duration) {
        let Some(outcome) = outcome(end) else { return };
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
fn outcome(End { reason, grpc_status, caller_gave_up }: End) -> Option<Outcome> {
    Some(match reason {
        // How long it waits is the caller's choice: one nanosecond, if it likes.
        Reason::UpstreamTimeout if caller_gave_up => Outcome::Unknown,
        Reason::Ok if caller_gave_up && grpc_status == Some(DEADLINE_EXCEEDED) => Outcome::Unknown,
        // The codes that are a server's fault: unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
        Reason::Ok
            if grpc_status.is_some_and(|code| matches!(code, 2 | DEADLINE_EXCEEDED | 12 | 13 | 14 | 15)) =>
        {
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

    fn end(reason: Reason, grpc_status: Option<i64>) -> End {
        End { reason, grpc_status, caller_gave_up: false }
    }

    #[test]
    fn only_what_is_the_upstreams_doing_counts() {
        for (reason, grpc, expected) in [
            (Reason::Ok, None, Some(Outcome::Good)),
            (Reason::Ok, Some(0), Some(Outcome::Good)),
            (Reason::Ok, Some(5), Some(Outcome::Good)),
            (Reason::Ok, Some(14), Some(Outcome::Failed)),
            (Reason::Ok, Some(4), Some(Outcome::Failed)),
            (Reason::UpstreamStatus, None, Some(Outcome::Failed)),
            (Reason::UpstreamTimeout, None, Some(Outcome::Failed)),
            (Reason::BreakerOpen, None, Some(Outcome::Failed)),
            (Reason::ClientGone, None, Some(Outcome::Unknown)),
            (Reason::RequestTooLarge, None, None),
            (Reason::Internal, None, None),
        ] {
            let end = end(reason, grpc);
            assert_eq!(outcome(end), expected, "{end:?}");
        }
    }

    #[test]
    fn how_long_the_caller_waits_is_not_the_upstreams_doing() {
        for (reason, grpc, expected) in [
            (Reason::UpstreamTimeout, Some(4), Some(Outcome::Unknown)),
            (Reason::Ok, Some(4), Some(Outcome::Unknown)),
            (Reason::Ok, Some(14), Some(Outcome::Failed)),
            (Reason::Ok, Some(0), Some(Outcome::Good)),
            (Reason::UpstreamReset, None, Some(Outcome::Failed)),
        ] {
            let end = End { caller_gave_up: true, ..end(reason, grpc) };
            assert_eq!(outcome(end), expected, "{end:?}");
        }
    }

    #[test]
    fn what_is_taken_is_gone() {
        let counts = Counts::new();
        let ms = Duration::from_millis;
        counts.add(Arm::Canary, end(Reason::Ok, None), ms(10));
        counts.add(Arm::Canary, end(Reason::UpstreamStatus, None), ms(10));
        counts.add(Arm::Baseline, end(Reason::ClientGone, None), ms(3_000));
        let window = counts.take();
        assert_eq!((window.canary.ok, window.canary.failed, window.baseline.all()), (1, 1, 0));
        assert_eq!(window.canary.latency.last(), Some(&2));
        assert_eq!(window.baseline.latency.iter().sum::<u64>(), 1);
        assert!(counts.take().is_empty());
    }
}
