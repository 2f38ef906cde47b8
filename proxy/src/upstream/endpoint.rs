//! One address: the connections to it, and what is known of how it does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tollgate_runtime::tasks::Tasks;

use super::balance;
use super::breaker::Breaker;
use super::dial::Dialer;
use super::pool::Pool;
use super::tally::Tally;
use crate::config::{Balance, ClusterConfig};

/// One address and the connections to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) pool: Pool,
    pub(super) tally: Tally,
    pub(super) in_flight: AtomicUsize,
    slow_start: Option<Duration>,
    by_latency: bool,
    /// What the times below count from.
    origin: Instant,
    /// Microseconds.
    in_use_since: AtomicU64,
    /// The latency to reckon with, in seconds, as the bits of an `f64`, and when it was learned.
    latency: AtomicU64,
    learned_at: AtomicU64,
}

impl Endpoint {
    pub(super) fn new(
        address: SocketAddr,
        config: &ClusterConfig,
        dialer: &Arc<Dialer>,
        tasks: &Tasks,
        breaker: &Arc<Breaker>,
    ) -> Self {
        Self {
            address,
            pool: Pool::new(address, config, Arc::clone(dialer), tasks.clone(), Arc::clone(breaker)),
            tally: Tally::default(),
            in_flight: AtomicUsize::new(0),
            slow_start: config.slow_start,
            by_latency: config.balance == Balance::PeakEwma,
            origin: Instant::now(),
            in_use_since: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            learned_at: AtomicU64::new(0),
        }
    }

    /// It is used again, or for the first time: it begins with a small share.
    pub(super) fn is_used_from_now(&self) {
        self.in_use_since.store(self.now(), Ordering::Relaxed);
    }

    /// One more answer came, to what was asked at `began`.
    pub(super) fn learn(&self, began: Option<Instant>) {
        let Some(latency) = began.filter(|_| self.by_latency).map(|began| began.elapsed()) else { return };
        let now = self.now();
        let since = Duration::from_micros(now.saturating_sub(self.learned_at.load(Ordering::Relaxed)));
        let before = f64::from_bits(self.latency.load(Ordering::Relaxed));
        let after = balance::peak_ewma(before, since, latency.as_secs_f64());
        self.latency.store(after.to_bits(), Ordering::Relaxed);
        self.learned_at.store(now, Ordering::Relaxed);
    }

    /// What one more request would cost here.
    pub(super) fn cost(&self) -> f64 {
        let mut cost = self.in_flight.load(Ordering::Relaxed) as f64 + 1.0;
        if self.by_latency {
            let since = self.now().saturating_sub(self.learned_at.load(Ordering::Relaxed));
            // What was learned long ago is forgotten, so that a slow endpoint is tried again.
            let latency = f64::from_bits(self.latency.load(Ordering::Relaxed));
            cost *= balance::peak_ewma(latency, Duration::from_micros(since), 0.0).max(1e-6);
        }
        cost
    }

    /// The share that it gets of its full one.
    pub(super) fn warmth(&self) -> f64 {
        let Some(slow_start) = self.slow_start else { return 1.0 };
        let since = self.in_use_since.load(Ordering::Relaxed);
        balance::warmth(Duration::from_micros(self.now().saturating_sub(since)), slow_start)
    }

    /// The latency to reckon with, where it is measured.
    pub(super) fn latency(&self) -> Option<f64> {
        self.by_latency.then(|| f64::from_bits(self.latency.load(Ordering::Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
