//! Too much to do: how long work waits for a processor, and which requests are refused for it.
//!
//! ```text
//! probe --sleeps, goes once round the run queue--> delay --control--> ratio --> so many of the requests: 503, `retry-after`
//! ```
//!
//! A request that is refused costs little, and is refused before anything is done for it; those that are served find a
//! short queue. While nobody asks anything nothing is measured.

mod control;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{OverloadConfig, OverloadMode};
use crate::error::ProxyError;
use crate::pipeline::Proxy;
use control::{Control, Queue};

/// From one probe to the next.
const BETWEEN_PROBES: Duration = Duration::from_millis(5);
/// Probes of this time are looked at together.
const PERIOD: Duration = Duration::from_millis(20);
/// As many at least, unless they take long.
const PROBES: u32 = 2;
/// A delay of this length needs no second one beside it.
const LONG: Duration = Duration::from_millis(100);
/// Who uses less of one processor than this waits for others; refusing requests would not help.
const OURS: f64 = 0.3;
/// Nobody has asked anything for so long: the probe rests.
const QUIET: Duration = Duration::from_secs(1);
/// All of the requests, in the ratio's units.
const WHOLE: f64 = (1_u64 << 32) as f64;

/// What is known about the load, and what is refused because of it.
#[derive(Debug)]
pub(crate) struct Overload {
    began: Instant,
    /// When the probe under way wants its turn; nanoseconds since it all began.
    due: AtomicU64,
    /// Of so many requests in [`WHOLE`] the next ones are refused.
    ratio: AtomicU32,
    /// Adds up the ratio: whenever it overflows, one is refused. So refusals are spread evenly.
    sum: AtomicU32,
    /// Nanoseconds.
    delay: AtomicU64,
    refused: AtomicU64,
    asked: AtomicBool,
    resting: AtomicBool,
    wake: Notify,
}

impl Default for Overload {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            due: AtomicU64::new(u64::MAX),
            ratio: AtomicU32::new(0),
            sum: AtomicU32::new(0),
            delay: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }
}

impl Overload {
    /// Whether there is too much to do for one more request.
    pub(crate) fn admit(&self, config: &OverloadConfig) -> Result<(), ProxyError> {
        if config.mode == OverloadMode::Off {
            return Ok(());
        }
        self.note();
        if self.is_next_refused(config.target_delay) && config.mode == OverloadMode::Shed {
            return Err(ProxyError::Overloaded { retry_after: config.retry_after });
        }
        Ok(())
    }

    /// Whether there is too much to do for one more handshake.
    pub(crate) fn admits_handshake(&self, config: &OverloadConfig) -> bool {
        self.admit(config).is_ok()
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
        let refused = match Queue::of(self.delay(), self.overdue(), target) {
            Queue::Short => false,
            Queue::Right => self.sum.fetch_add(ratio, Ordering::Relaxed).checked_add(ratio).is_none(),
            Queue::Long => true,
        };
        if refused {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    /// How long the probe under way waits for its turn.
    fn overdue(&self) -> Duration {
        Duration::from_nanos(nanos(self.began.elapsed()).saturating_sub(self.due.load(Ordering::Relaxed)))
    }

    /// How long a task waits that is ready: from its timer's end until it has gone round behind all that are ready with it.
    async fn probe(&self) -> Duration {
        let due = Instant::now() + BETWEEN_PROBES;
        self.due.store(nanos(due.saturating_duration_since(self.began)), Ordering::Relaxed);
        tokio::time::sleep_until(due).await;
        // A task that its timer wakes goes before all others.
        to_the_back().await;
        let delay = due.elapsed();
        self.delay.store(nanos(delay), Ordering::Relaxed);
        delay
    }

    fn set_ratio(&self, ratio: f64) {
        self.ratio.store((ratio * WHOLE) as u32, Ordering::Relaxed);
    }

    /// Nothing is refused any more.
    pub(crate) fn ends(&self) {
        self.delay.store(0, Ordering::Relaxed);
        self.set_ratio(0.0);
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
        json!({
            "mode": config.mode,
            "delay_ms": self.delay().as_secs_f64() * 1e3,
            "target_delay_ms": config.target_delay.as_secs_f64() * 1e3,
            "ratio": self.ratio(),
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

/// Measures, and sets what is refused, for as long as the proxy serves.
pub(crate) async fn watch(proxy: Arc<Proxy>) {
    let overload = &proxy.overload;
    let (mut control, mut asked_at) = (Control::default(), Instant::now());
    let (mut began, mut shortest, mut probes) = (Instant::now(), Duration::MAX, 0);
    let mut cpu = cpu_time();
    loop {
        let config = proxy.snapshot.load().overload.clone();
        if overload.asked.swap(false, Ordering::AcqRel) {
            asked_at = Instant::now();
        }
        // What it has come to ends by itself, once there is less to do.
        if config.mode == OverloadMode::Off || asked_at.elapsed() > QUIET && control.ratio() == 0.0 {
            control = Control::default();
            overload.ends();
            proxy.reporter.metrics.overload(Duration::ZERO, 0.0);
            overload.rest().await;
            cpu = cpu_time();
            (began, shortest, probes) = (Instant::now(), Duration::MAX, 0);
        }
        shortest = shortest.min(overload.probe().await);
        probes += 1;
        let period = began.elapsed();
        if period < PERIOD || probes < PROBES && shortest < LONG {
            continue;
        }
        let now = cpu_time();
        let ours = (now - cpu).as_secs_f64() >= OURS * period.as_secs_f64();
        cpu = now;
        let ratio = control.update(shortest, config.target_delay, period, ours);
        overload.set_ratio(ratio);
        proxy.reporter.metrics.overload(shortest, ratio);
        (began, shortest, probes) = (Instant::now(), Duration::MAX, 0);
    }
}

/// What this process has used of the processors.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Goes behind all tasks that are ready now. (`yield_now` waits for those too that become ready meanwhile.)
pub(crate) async fn to_the_back() {
    let mut gone = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = OverloadConfig::TARGET_DELAY;

    /// One in which the queue is as long as it should be.
    fn busy(ratio: f64) -> Overload {
        let overload = Overload::default();
        overload.delay.store(nanos(TARGET), Ordering::Relaxed);
        overload.set_ratio(ratio);
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
    fn while_there_is_too_much_to_do_a_long_queue_is_refused_as_a_whole_and_a_short_one_is_not() {
        for (ratio, delay, expected) in [(0.0, TARGET * 10, 0), (0.5, TARGET, 500), (0.5, TARGET / 3, 0)] {
            let overload = busy(ratio);
            overload.delay.store(nanos(delay), Ordering::Relaxed);
            assert_eq!(refused_of_1000(&overload), expected, "{ratio} {delay:?}");
        }
        // A probe that has not come round.
        let overload = busy(0.5);
        overload.due.store(0, Ordering::Relaxed);
        std::thread::sleep(TARGET * 3);
        assert_eq!(refused_of_1000(&overload), 1_000);
    }

    #[test]
    fn who_only_observes_refuses_nothing_and_counts() {
        let overload = busy(0.5);
        let config = OverloadConfig { mode: OverloadMode::Observe, ..OverloadConfig::default() };
        assert!((0..100).all(|_| overload.admit(&config).is_ok()));
        assert_eq!(overload.report(&config)["refused"], 50);
        let config = OverloadConfig::default();
        assert_eq!((0..100).filter(|_| overload.admit(&config).is_err()).count(), 50);
    }

    #[tokio::test]
    async fn a_busy_processor_is_measured_and_an_idle_one_is_not() {
        let began = Instant::now();
        let overload = Overload::default();
        let idle = overload.probe().await;
        assert!(idle <= began.elapsed().saturating_sub(BETWEEN_PROBES) + Duration::from_millis(2));
        // On one thread: whatever blocks it is waited for.
        let busy = async {
            tokio::time::sleep(BETWEEN_PROBES / 2).await;
            std::thread::sleep(Duration::from_millis(60));
        };
        let (measured, ()) = tokio::join!(overload.probe(), busy);
        assert!(measured >= Duration::from_millis(50));
    }
}
