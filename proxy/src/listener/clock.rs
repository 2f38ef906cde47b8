//! When a connection has waited long enough.
//!
//! ```text
//! idle --first byte of a head--> reading a head --its last byte--> busy --all answers out--> idle
//!   \--idle_timeout--> close          \--head_timeout--> 408                  (no limit here)
//! ```
//!
//! One number per state and no timer per request: a connection looks here when its own timer fires, and sets it
//! again. With several requests at once (HTTP/2) the connection is busy while one of them is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a connection's timer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing yet: look again after this long.
    Later(Duration),
    /// A head that does not end.
    SlowHead,
    /// Nobody asks anything.
    Idle,
}

/// The state of one connection, shared by its socket, its requests and its timer.
#[derive(Debug)]
pub(crate) struct ConnectionClock {
    opened: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// Heads are read frame by frame in HTTP/2, which has limits of its own.
    multiplexed: AtomicBool,
    /// The next head is one that nobody shall read.
    refused: AtomicBool,
    busy: AtomicU32,
    /// Nanoseconds after `opened` at which a head began, plus one; 0 when none has.
    head_began: AtomicU64,
    /// Nanoseconds after `opened` at which the last request ended.
    idle_since: AtomicU64,
}

impl ConnectionClock {
    pub(crate) fn new(head_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            opened: Instant::now(),
            head_timeout,
            idle_timeout,
            multiplexed: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            busy: AtomicU32::new(0),
            head_began: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX - 1)
    }

    /// The connection speaks HTTP/2.
    pub(super) fn is_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    /// Whether it speaks HTTP/2.
    pub(super) fn multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// What comes next on the connection is refused.
    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether something came that must be refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether there is nothing left to do but to refuse what comes next.
    pub(super) fn must_refuse(&self) -> bool {
        self.refused.load(Ordering::Relaxed) && !self.is_busy()
    }

    /// Bytes came in.
    pub(super) fn bytes_read(&self) {
        if self.busy.load(Ordering::Relaxed) == 0 && self.head_began.load(Ordering::Relaxed) == 0 {
            self.head_began.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// A head is complete; says how long that took.
    pub(crate) fn request_began(&self) -> Duration {
        self.busy.fetch_add(1, Ordering::Relaxed);
        match self.head_began.swap(0, Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_nanos((self.now() + 1).saturating_sub(began)),
        }
    }

    /// An answer is out.
    pub(crate) fn request_ended(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// The longest that a timer may sleep without missing anything.
    pub(super) fn longest_sleep(&self) -> Duration {
        self.head_timeout.min(self.idle_timeout)
    }

    /// What a timer that fires now finds.
    pub(super) fn look(&self) -> Found {
        if self.is_busy() {
            return Found::Later(self.longest_sleep());
        }
        let now = self.now();
        let left = |since: u64, limit: Duration| {
            limit.checked_sub(Duration::from_nanos(now.saturating_sub(since))).filter(|left| !left.is_zero())
        };
        let head_began = self.head_began.load(Ordering::Relaxed);
        let (since, limit, due) = if head_began > 0 && !self.multiplexed.load(Ordering::Relaxed) {
            (head_began - 1, self.head_timeout, Found::SlowHead)
        } else {
            (self.idle_since.load(Ordering::Relaxed), self.idle_timeout, Found::Idle)
        };
        // A head may begin at any moment from now.
        left(since, limit).map_or(due, |left| Found::Later(left.min(self.longest_sleep())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_connection_is_idle_until_bytes_come() {
        let clock = ConnectionClock::new(HOUR, Duration::ZERO);
        assert_eq!(clock.look(), Found::Idle);
        clock.bytes_read();
        assert!(matches!(clock.look(), Found::Later(_)));
        clock.request_began();
        assert!(matches!(clock.look(), Found::Later(_)));
        clock.request_ended();
        assert_eq!(clock.look(), Found::Idle);
    }

    #[test]
    fn a_head_that_does_not_end_is_found() {
        let clock = ConnectionClock::new(Duration::ZERO, HOUR);
        assert!(matches!(clock.look(), Found::Later(_)));
        clock.bytes_read();
        assert_eq!(clock.look(), Found::SlowHead);
        clock.is_multiplexed();
        assert!(matches!(clock.look(), Found::Later(_)));
    }

    #[test]
    fn bytes_of_a_body_begin_no_head() {
        let clock = ConnectionClock::new(Duration::ZERO, HOUR);
        clock.bytes_read();
        clock.request_began();
        clock.bytes_read();
        clock.request_ended();
        assert!(matches!(clock.look(), Found::Later(_)));
    }
}
