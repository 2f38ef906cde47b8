//! The one place that reads the wall clock, so that tests can move it.
//!
//! Durations within one process are measured with `tokio::time::Instant`; this clock is for
//! moments that leave the process or are compared with ones that came from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// Unix time from the system, or from a test.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until its handle moves it.
    pub fn manual(start_unix_nanos: u64) -> (Self, ManualClock) {
        let now = Arc::new(AtomicU64::new(start_unix_nanos));
        (Self(Source::Manual(Arc::clone(&now))), ManualClock(now))
    }

    /// Nanoseconds since 1970-01-01 UTC.
    pub fn unix_nanos(&self) -> u64 {
        match &self.0 {
            Source::System => system_unix_nanos(),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn unix_millis(&self) -> u64 {
        self.unix_nanos() / 1_000_000
    }

    /// Whole seconds since 1970-01-01 UTC.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_nanos() / 1_000_000_000
    }
}

/// Moves the clock it was made with.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Jumps, also backwards, as a machine's clock may.
    pub fn set(&self, unix_nanos: u64) {
        self.0.store(unix_nanos, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the home of the wall clock")]
fn system_unix_nanos() -> u64 {
    // A machine whose clock stands before 1970 gets 0, which every expiry check treats as "long ago".
    std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_moved() {
        let (clock, hand) = Clock::manual(5_000_000_000);
        assert_eq!(clock.unix_seconds(), 5);
        hand.advance(Duration::from_millis(1500));
        assert_eq!((clock.unix_seconds(), clock.unix_millis()), (6, 6500));
        hand.set(1);
        assert_eq!(clock.unix_nanos(), 1);
    }
}
