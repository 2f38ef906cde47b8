//! Too much to do: how long work waits for a processor, and which requests are refused for it.
//!
//! ```text
//! probe --sleeps, goes once round the run queue--> delay --control--> ratio --admit--> 503, `retry-after`
//! processor time, requests -------costs---------> at most so many ------^      `-----> the others, which take turns
//! ```
//!
//! A request that is refused costs little, and is refused before anything is done for it; those that are served find a
//! short queue. While nobody asks anything nothing is measured.

mod control;
mod costs;
mod quota;
mod sample;
mod turns;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::ClockId;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{OverloadConfig, OverloadMode};
use crate::error::ProxyError;
use crate::listener::ConnectionClock;
use control::Queue;
use costs::{Costs, Work};
use sample::Samples;
pub(crate) use turns::all_others;
use turns::{Turns, to_the_back};
pub(crate) use watch::watch;

/// From one probe to the next.
const BETWEEN_PROBES: Duration = Duration::from_millis(5);
/// All of the requests, in the ratio's units.
const WHOLE: f64 = (1_u64 << 32) as f64;

/// Requests since the last look.
#[derive(Debug, Default)]
struct Counts {
    /// Of those that wait for their turn none.
    let_in: AtomicU32,
    refused: AtomicU32,
    samples: Samples,
}

impl Counts {
    /// What was done since the last time, with so much processor time.
    fn take(&self, used: Duration) -> Work {
        Work {
            used,
            served: self.let_in.swap(0, Ordering::Relaxed),
            refused: self.refused.swap(0, Ordering::Relaxed),
            of_refusal: self.samples.take(),
        }
    }
}

/// What is known about the load, and what is refused because of it.
#[derive(Debug)]
pub(crate) struct Overload {
    began: Instant,
    /// When the probe under way wants its turn; nanoseconds since it all began.
    due: AtomicU64,
    /// Of so many requests in [`WHOLE`] the next ones are refused.
    ratio: AtomicU32,
    /// So many of them at most, however long the queue is.
    most: AtomicU32,
    /// Adds up the ratio: whenever it overflows, one is refused. So refusals are spread evenly.
    sum: AtomicU32,
    /// Nanoseconds.
    delay: AtomicU64,
    /// Without the turns; nanoseconds.
    round: AtomicU64,
    refused: AtomicU64,
    requests: Counts,
    /// From the turn of one of them to that of the next; nanoseconds.
    per_turn: AtomicU64,
    costs: Mutex<Costs>,
    asked: AtomicBool,
    resting: AtomicBool,
    wake: Notify,
    turns: Turns,
}

impl Overload {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            began: Instant::now(),
            due: AtomicU64::new(u64::MAX),
            ratio: AtomicU32::new(0),
            most: AtomicU32::new(0),
            sum: AtomicU32::new(0),
            delay: AtomicU64::new(0),
            round: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            requests: Counts::default(),
            per_turn: AtomicU64::new(0),
            costs: Mutex::default(),
            asked: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            wake: Notify::new(),
            turns: Turns::new(threads),
        }
    }

    /// Whether there is too much to do for one more request. While some are refused those that are not take turns, so that who
    /// is refused does not wait for the work of all of them.
    pub(crate) async fn admit(&self, config: &OverloadConfig) -> Result<(), ProxyError> {
        if self.refuses_next(config) {
            self.requests.refused.fetch_add(1, Ordering::Relaxed);
            sample::refuses();
            return Err(ProxyError::Overloaded { retry_after: config.retry_after });
        }
        if self.takes_turns(config) {
            self.turns.take().await;
        }
        // Who gives up waiting has cost little.
        self.lets_in();
        Ok(())
    }

    /// One is served.
    pub(crate) fn lets_in(&self) {
        self.requests.let_in.fetch_add(1, Ordering::Relaxed);
        sample::lets_in();
    }

    /// Lets a connection go on, and measures that if it may be a refusal.
    pub(crate) fn around<T>(&self, connection: &ConnectionClock, goes_on: impl FnOnce() -> T) -> T {
        if self.ratio.load(Ordering::Relaxed) == 0 || connection.is_busy() {
            return goes_on();
        }
        self.requests.samples.around(goes_on)
    }

    /// Whether there is too much to do for one more handshake.
    pub(crate) fn admits_handshake(&self, config: &OverloadConfig) -> bool {
        !self.refuses_next(config)
    }

    fn refuses_next(&self, config: &OverloadConfig) -> bool {
        if config.mode == OverloadMode::Off {
            return false;
        }
        self.note();
        self.is_next_refused(config.target_delay) && config.mode == OverloadMode::Shed
    }

    fn takes_turns(&self, config: &OverloadConfig) -> bool {
        config.mode == OverloadMode::Shed && self.ratio.load(Ordering::Relaxed) > 0
    }

    /// Somebody asks something.
    fn note(&self) {
        // Written once between two looks, so that requests do not fight for it.
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
        if self.resting.load(Ordering::Relaxed) && self.resting.swap(false, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    fn is_next_refused(&self, target: Duration) -> bool {
        let ratio = self.ratio.load(Ordering::Relaxed);
        if ratio == 0 {
            return false;
        }
        let share = match Queue::of(self.round(), self.wait(), target) {
            Queue::Short => return false,
            Queue::Right => ratio,
            Queue::Long => self.most.load(Ordering::Relaxed),
        };
        let refused = self.sum.fetch_add(share, Ordering::Relaxed).checked_add(share).is_none();
        if refused {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    /// How long a look at all that is ready took when it was last measured.
    fn round(&self) -> Duration {
        Duration::from_nanos(self.round.load(Ordering::Relaxed))
    }

    /// How long who comes now would wait for those who came before, as far as it is known.
    fn wait(&self) -> Duration {
        let waiting = u64::try_from(self.turns.waiting.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        let wait = self.per_turn.load(Ordering::Relaxed).saturating_mul(waiting);
        Duration::from_nanos(wait).max(self.overdue())
    }

    /// How long the probe under way waits for all that are ready, or for the turns of others.
    fn overdue(&self) -> Duration {
        Duration::from_nanos(nanos(self.began.elapsed()).saturating_sub(self.due.load(Ordering::Relaxed)))
    }

    /// How long a request waits that is let in: from a timer's end until it has gone round behind all that are ready with it,
    /// or for the turns of those who came before, if that takes longer.
    async fn probe(&self, config: &OverloadConfig) -> Duration {
        let due = Instant::now() + BETWEEN_PROBES;
        self.waits_since(due);
        tokio::time::sleep_until(due).await;
        // A task that its timer wakes goes before all others.
        to_the_back().await;
        let round = due.elapsed();
        self.round.store(nanos(round), Ordering::Relaxed);
        let mut delay = round;
        if self.takes_turns(config) {
            let (came, ahead) = (Instant::now(), self.turns.waiting.load(Ordering::Relaxed));
            self.waits_since(came);
            self.turns.reach().await;
            let waited = came.elapsed();
            delay = round.max(waited);
            let before = Duration::from_nanos(self.per_turn.load(Ordering::Relaxed));
            let per_turn = control::per_turn(before, waited, u32::try_from(ahead).unwrap_or(u32::MAX));
            self.per_turn.store(nanos(per_turn), Ordering::Relaxed);
        }
        self.delay.store(nanos(delay), Ordering::Relaxed);
        delay
    }

    fn waits_since(&self, then: Instant) {
        self.due.store(nanos(then.saturating_duration_since(self.began)), Ordering::Relaxed);
    }

    fn set_ratio(&self, ratio: f64, most: f64) {
        self.most.store((most * WHOLE) as u32, Ordering::Relaxed);
        self.ratio.store((ratio * WHOLE) as u32, Ordering::Relaxed);
    }

    /// Nothing is refused any more.
    fn ends(&self) {
        self.delay.store(0, Ordering::Relaxed);
        self.round.store(0, Ordering::Relaxed);
        self.per_turn.store(0, Ordering::Relaxed);
        self.set_ratio(0.0, 0.0);
    }

    /// Of the next requests so many are refused, from 0 to 1.
    pub(crate) fn ratio(&self) -> f64 {
        f64::from(self.ratio.load(Ordering::Relaxed)) / WHOLE
    }

    /// How long work waited for a processor when it was last measured.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay.load(Ordering::Relaxed))
    }

    /// For the status page.
    pub(crate) fn report(&self, config: &OverloadConfig) -> Value {
        let costs = self.costs.lock();
        let micros = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e6);
        json!({
            "mode": config.mode,
            "delay_ms": self.delay().as_secs_f64() * 1e3,
            "target_delay_ms": config.target_delay.as_secs_f64() * 1e3,
            "ratio": self.ratio(),
            "ratio_limit": costs.most(),
            "served_us": micros(costs.served),
            "refused_us": micros(costs.refused),
            "refused": self.refused.load(Ordering::Relaxed),
        })
    }

    /// Waits until somebody asks something.
    async fn rest(&self) {
        self.resting.store(true, Ordering::Release);
        // Who asked before that did not see it.
        if !self.asked.load(Ordering::Acquire) {
            self.wake.notified().await;
        }
        self.resting.store(false, Ordering::Relaxed);
    }
}

/// What this process or thread has used of the processors.
fn processor_time(clock: ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::future::{FutureExt, join_all};

    use super::*;

    const TARGET: Duration = OverloadConfig::TARGET_DELAY;

    /// One in which somebody waits that takes as long as the queue should be.
    fn busy(ratio: f64) -> Overload {
        let overload = Overload::new(1);
        overload.round.store(nanos(TARGET / 3), Ordering::Relaxed);
        overload.turns.waiting.store(1, Ordering::Relaxed);
        overload.per_turn.store(nanos(TARGET), Ordering::Relaxed);
        overload.set_ratio(ratio, 0.98);
        overload
    }

    fn refused_of_1000(overload: &Overload) -> usize {
        (0..1_000).filter(|_| overload.is_next_refused(TARGET)).count()
    }

    #[test]
    fn refusals_are_as_many_as_the_ratio_says_and_spread_evenly() {
        for (ratio, expected) in [(0.25, 250), (0.5, 500), (0.98, 980), (0.0, 0)] {
            let found = refused_of_1000(&busy(ratio));
            assert!(found.abs_diff(expected) <= 1, "{found} of 1000 at {ratio}");
        }
        let overload = busy(0.5);
        let next: Vec<_> = (0..6).map(|_| overload.is_next_refused(TARGET)).collect();
        assert!(next.windows(2).all(|two| two[0] != two[1]), "{next:?}");
    }

    #[test]
    fn of_a_long_queue_as_many_are_refused_as_may_be_and_of_a_short_one_nobody() {
        for (ratio, waiting, expected) in
            [(0.0, 40, 0), (0.5, 0, 0), (0.5, 1, 500), (0.5, 3, 500), (0.5, 4, 980)]
        {
            let overload = busy(ratio);
            overload.turns.waiting.store(waiting, Ordering::Relaxed);
            let found = refused_of_1000(&overload);
            assert!(found.abs_diff(expected) <= 1, "{found} at {ratio} {waiting}");
        }
        // Nobody waits for a turn, and yet who comes does not begin soon.
        let overload = busy(0.5);
        overload.turns.waiting.store(0, Ordering::Relaxed);
        overload.round.store(nanos(TARGET * 10), Ordering::Relaxed);
        assert_eq!(refused_of_1000(&overload), 500);
        // A probe that has not come round.
        let overload = busy(0.5);
        overload.due.store(0, Ordering::Relaxed);
        std::thread::sleep(TARGET * 3);
        assert!(refused_of_1000(&overload).abs_diff(980) <= 1);
    }

    #[test]
    fn who_only_observes_refuses_nothing_and_counts() {
        let overload = busy(0.5);
        let config = OverloadConfig { mode: OverloadMode::Observe, ..OverloadConfig::default() };
        assert!((0..100).all(|_| !overload.refuses_next(&config)));
        assert_eq!(overload.report(&config)["refused"], 50);
        let config = OverloadConfig::default();
        assert_eq!((0..100).filter(|_| overload.refuses_next(&config)).count(), 50);
    }

    #[tokio::test]
    async fn whoever_is_refused_is_answered_before_the_work_for_others_begins() {
        let (overload, config, answered) = (busy(0.5), OverloadConfig::default(), Mutex::new(Vec::new()));
        join_all((0..6).map(async |_| {
            let admitted = overload.admit(&config).await.is_ok();
            answered.lock().push(admitted);
        }))
        .await;
        assert_eq!(*answered.lock(), [false, false, false, true, true, true]);
    }

    #[tokio::test]
    async fn only_requests_that_were_refused_or_had_their_turn_count_as_work() {
        let (overload, shed) = (busy(0.5), OverloadConfig::default());
        let observe = OverloadConfig { mode: OverloadMode::Observe, ..OverloadConfig::default() };
        // It gives up before its turn.
        assert!(overload.admit(&shed).now_or_never().is_none());
        assert!(overload.admit(&shed).now_or_never().is_some_and(|admitted| admitted.is_err()));
        let counted = || {
            let work = overload.requests.take(Duration::ZERO);
            (work.served, work.refused)
        };
        assert_eq!(counted(), (0, 1));
        assert!(overload.admit(&shed).await.is_ok());
        assert!(!overload.admits_handshake(&shed));
        assert!(overload.admit(&observe).await.is_ok() && overload.admit(&observe).await.is_ok());
        assert_eq!(counted(), (3, 0));
        assert_eq!(overload.report(&shed)["refused"], 3);
    }

    #[tokio::test]
    async fn a_busy_processor_is_measured_and_an_idle_one_is_not() {
        let began = Instant::now();
        let (overload, config) = (Overload::new(1), OverloadConfig::default());
        let idle = overload.probe(&config).await;
        assert!(idle <= began.elapsed().saturating_sub(BETWEEN_PROBES) + Duration::from_millis(2));
        // On one thread: whatever blocks it is waited for.
        let busy = async {
            tokio::time::sleep(BETWEEN_PROBES / 2).await;
            std::thread::sleep(Duration::from_millis(60));
        };
        let (measured, ()) = tokio::join!(overload.probe(&config), busy);
        assert!(measured >= Duration::from_millis(50));
    }
}
