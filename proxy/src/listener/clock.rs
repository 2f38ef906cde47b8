//! When a connection has waited long enough.
//!
//! ```text
//! idle --first byte of a head--> reading a head --its last byte--> busy --all answers out--> idle
//!   \--idle_timeout--> close          \--head_timeout--> 408          \--takes nothing for send_timeout--> close
//! ```
//!
//! One number per state and no timer per request: a connection looks here when its own timer fires, and sets it
//! again. With several requests at once (HTTP/2) the connection is busy while one of them is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::LimitsConfig;

/// What a connection's timer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing yet: look again after this long.
    Later(Duration),
    /// A head that does not end.
    SlowHead,
    /// Nobody asks anything.
    Idle,
    /// Answers wait for a client that does not take them.
    SlowReader,
}

/// The state of one connection, shared by its socket, its requests and its timer.
#[derive(Debug)]
pub(crate) struct ConnectionClock {
    opened: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    send_timeout: Duration,
    min_bytes_per_second: u64,
    /// Heads are read frame by frame in HTTP/2, which has limits of its own.
    multiplexed: AtomicBool,
    /// The next head is one that nobody shall read.
    refused: AtomicBool,
    busy: AtomicU32,
    /// Nanoseconds after `opened` at which a head began, plus one; 0 when none has.
    head_began: AtomicU64,
    /// Nanoseconds after `opened` at which the last request ended.
    idle_since: AtomicU64,
    /// Requests so far.
    requests: AtomicU64,
    /// Answers of which a piece is out that the client has not taken.
    held: AtomicU32,
    /// Bytes that the client took.
    taken: AtomicU64,
    /// When it was last looked how many these were, later by the time since in which nothing was held; and how many.
    looked_at: AtomicU64,
    taken_then: AtomicU64,
    /// Since when nothing is held, if nothing is.
    free_since: AtomicU64,
    slow_reader: AtomicBool,
    /// All that was written is out.
    flushed: AtomicBool,
    /// All of a message was read, and nothing of the next one.
    between_messages: AtomicBool,
}

impl ConnectionClock {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self {
            opened: Instant::now(),
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            send_timeout: limits.send_timeout,
            min_bytes_per_second: limits.min_bytes_per_second.into(),
            multiplexed: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            busy: AtomicU32::new(0),
            head_began: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            held: AtomicU32::new(0),
            taken: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            taken_then: AtomicU64::new(0),
            free_since: AtomicU64::new(0),
            slow_reader: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            between_messages: AtomicBool::new(true),
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

    /// How much time is left for the head that has begun; all of it when none has.
    pub(super) fn left_for_head(&self) -> Duration {
        match self.head_began.load(Ordering::Relaxed) {
            0 => self.head_timeout,
            began => {
                let took = Duration::from_nanos((self.now() + 1).saturating_sub(began));
                self.head_timeout.saturating_sub(took)
            }
        }
    }

    /// A head is complete; says how long that took.
    pub(crate) fn request_began(&self) -> Duration {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        match self.head_began.swap(0, Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_nanos((self.now() + 1).saturating_sub(began)),
        }
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A piece of an answer is out, and the next one is not asked for yet.
    pub(crate) fn holds(&self) {
        if self.held.fetch_add(1, Ordering::Relaxed) == 0 {
            // While there was nothing to take nobody was slow to take it.
            let looked_at = self.looked_at.load(Ordering::Relaxed);
            let since = self.free_since.load(Ordering::Relaxed).max(looked_at);
            self.looked_at.store(looked_at + self.now().saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// The next piece is asked for, or nobody will.
    pub(crate) fn let_go(&self) {
        if self.held.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.free_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The client took bytes.
    pub(super) fn took(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether the connection is closed because the client takes too little.
    pub(crate) fn is_slow_reader(&self) -> bool {
        self.slow_reader.load(Ordering::Relaxed)
    }

    /// Whether answers wait, and too little of them was taken over `send_timeout`.
    fn reads_slowly(&self) -> bool {
        let (now, taken) = (self.now(), self.taken.load(Ordering::Relaxed));
        let since = Duration::from_nanos(now.saturating_sub(self.looked_at.load(Ordering::Relaxed)));
        let held = u64::from(self.held.load(Ordering::Relaxed));
        if held > 0 && since < self.send_timeout {
            return false;
        }
        let took = taken.saturating_sub(self.taken_then.load(Ordering::Relaxed));
        // Each of them wants its share.
        let least = (since.as_secs_f64() * (self.min_bytes_per_second * held) as f64) as u64;
        if held > 0 && took < least.max(1) {
            self.slow_reader.store(true, Ordering::Relaxed);
            return true;
        }
        self.looked_at.store(now, Ordering::Relaxed);
        self.taken_then.store(taken, Ordering::Relaxed);
        false
    }

    /// An answer is out.
    pub(crate) fn request_ended(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a request is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// For how long nothing was asked, nor begun to be; no time at all while something is.
    pub(super) fn quiet_for(&self) -> Duration {
        if self.is_busy() || self.head_began.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.now().saturating_sub(self.idle_since.load(Ordering::Relaxed)))
    }

    /// Something was written and may not be out, or all of it is.
    pub(super) fn flushed(&self, all: bool) {
        self.flushed.store(all, Ordering::Relaxed);
    }

    /// What was read so far ends where a message does.
    pub(super) fn is_between_messages(&self, so: bool) {
        self.between_messages.store(so, Ordering::Relaxed);
    }

    /// Whether nothing would be missed if somebody else went on with the connection after `quiet` without a request.
    pub(super) fn is_at_rest(&self, quiet: Duration) -> bool {
        self.quiet_for() >= quiet
            && self.flushed.load(Ordering::Relaxed)
            && self.between_messages.load(Ordering::Relaxed)
    }

    /// The longest that a timer may sleep without missing anything.
    pub(super) fn longest_sleep(&self) -> Duration {
        self.head_timeout.min(self.idle_timeout).min(self.send_timeout)
    }

    /// What a timer that fires now finds.
    pub(super) fn look(&self) -> Found {
        if self.is_busy() {
            let slow = self.reads_slowly();
            return if slow { Found::SlowReader } else { Found::Later(self.longest_sleep()) };
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

    fn clock(head_timeout: Duration, idle_timeout: Duration) -> ConnectionClock {
        ConnectionClock::new(&LimitsConfig { head_timeout, idle_timeout, ..LimitsConfig::default() })
    }

    #[test]
    fn a_client_that_takes_too_little_is_found() {
        let limits =
            LimitsConfig { send_timeout: Duration::ZERO, min_bytes_per_second: 0, ..LimitsConfig::default() };
        let clock = ConnectionClock::new(&limits);
        clock.request_began();
        assert!(matches!(clock.look(), Found::Later(_)), "nothing waits for it");
        clock.holds();
        clock.took(1);
        assert!(matches!(clock.look(), Found::Later(_)));
        assert_eq!(clock.look(), Found::SlowReader);
        assert!(clock.is_slow_reader());
        clock.let_go();
        assert!(matches!(clock.look(), Found::Later(_)));
        let demanding = LimitsConfig { min_bytes_per_second: u32::MAX, ..limits };
        let mut clock = ConnectionClock::new(&demanding);
        clock.request_began();
        clock.holds();
        clock.took(1);
        clock.opened -= Duration::from_secs(1);
        assert_eq!(clock.look(), Found::SlowReader);
    }

    /// Lets time pass in which the connection's timer looks as often as it does.
    fn pass(clock: &mut ConnectionClock, mut time: Duration) {
        while !time.is_zero() {
            let step = clock.longest_sleep().min(time);
            clock.opened -= step;
            time -= step;
            assert!(matches!(clock.look(), Found::Later(_)), "{time:?} before the end");
        }
    }

    /// 20 answers of which each wants 100 bytes a second over a minute.
    const DEMANDED: usize = 20 * 100 * 60;

    fn demanding() -> ConnectionClock {
        let send_timeout = Duration::from_secs(60);
        ConnectionClock::new(&LimitsConfig {
            head_timeout: HOUR,
            idle_timeout: HOUR,
            send_timeout,
            min_bytes_per_second: 100,
            ..LimitsConfig::default()
        })
    }

    #[test]
    fn nothing_is_demanded_for_the_time_in_which_there_was_nothing_to_take() {
        let mut clock = demanding();
        clock.is_multiplexed();
        clock.request_began();
        clock.holds();
        clock.took(1);
        clock.let_go();
        clock.request_ended();
        pass(&mut clock, Duration::from_secs(290));
        for _ in 0..20 {
            clock.request_began();
            clock.holds();
        }
        assert!(matches!(clock.look(), Found::Later(_)), "they have only just come");
        clock.took(2 * DEMANDED);
        pass(&mut clock, Duration::from_secs(60));
        // Nor for the time that they wait for the upstream.
        for _ in 0..20 {
            clock.let_go();
        }
        clock.opened -= Duration::from_secs(59);
        for _ in 0..20 {
            clock.holds();
        }
        clock.opened -= Duration::from_secs(2);
        assert!(matches!(clock.look(), Found::Later(_)));
        clock.took(DEMANDED / 2);
        clock.opened -= Duration::from_secs(60);
        assert_eq!(clock.look(), Found::SlowReader);
    }

    #[test]
    fn who_takes_piece_by_piece_must_keep_the_rate_as_well() {
        let mut clock = demanding();
        clock.request_began();
        for _ in 0..60 {
            clock.holds();
            clock.opened -= Duration::from_secs(1);
            clock.took(50);
            clock.let_go();
        }
        clock.holds();
        assert_eq!(clock.look(), Found::SlowReader);
    }

    #[test]
    fn a_connection_is_idle_until_bytes_come() {
        let clock = super::tests::clock(HOUR, Duration::ZERO);
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
        let clock = super::tests::clock(Duration::ZERO, HOUR);
        assert!(matches!(clock.look(), Found::Later(_)));
        clock.bytes_read();
        assert_eq!(clock.look(), Found::SlowHead);
        clock.is_multiplexed();
        assert!(matches!(clock.look(), Found::Later(_)));
    }

    #[test]
    fn bytes_of_a_body_begin_no_head() {
        let clock = super::tests::clock(Duration::ZERO, HOUR);
        clock.bytes_read();
        clock.request_began();
        clock.bytes_read();
        clock.request_ended();
        assert!(matches!(clock.look(), Found::Later(_)));
    }
}
