//! Looks at what was measured again and again, and sets what is refused.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::ClockId;
use tokio::time::Instant;

use super::control::Control;
use super::costs::Costs;
use super::quota::Quota;
use super::{Overload, processor_time};
use crate::config::OverloadMode;
use crate::pipeline::Proxy;

/// Probes of this time are looked at together.
const PERIOD: Duration = Duration::from_millis(20);
/// As many at least, unless they take long.
const PROBES: u32 = 2;
/// A delay of this length needs no second one beside it.
const LONG: Duration = Duration::from_millis(100);
/// Who uses less of a processor than this, or of what it may have of one, waits for others; refusing requests would not help.
const OURS: f64 = 0.3;
/// Nobody has asked anything for so long: the probe rests.
const QUIET: Duration = Duration::from_secs(1);

/// Some probes that are looked at together.
struct Period {
    began: Instant,
    /// What this process had used of the processors then.
    used: Duration,
    shortest: Duration,
    probes: u32,
}

impl Period {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            used: processor_time(ClockId::ProcessCPUTime),
            shortest: Duration::MAX,
            probes: 0,
        }
    }

    fn add(&mut self, delay: Duration) {
        self.shortest = self.shortest.min(delay);
        self.probes += 1;
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() >= PERIOD && (self.probes >= PROBES || self.shortest >= LONG)
    }
}

/// Nothing is refused any more when it is dropped.
struct Ends<'o>(&'o Overload);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ends();
    }
}

/// Measures, and sets what is refused, for as long as the proxy serves.
pub(crate) async fn watch(proxy: Arc<Proxy>) {
    let overload = &proxy.overload;
    // Whatever becomes of this: a share that nobody corrects is not left.
    let _ends = Ends(overload);
    let (mut control, mut quota, mut mode) = (Control::default(), Quota::read(), OverloadMode::Off);
    let (mut asked_at, mut period) = (Instant::now(), Period::begin());
    loop {
        let config = proxy.snapshot.load().overload.clone();
        if std::mem::replace(&mut mode, config.mode) != config.mode {
            // While nothing is refused it comes to more and more.
            control = Control::default();
            overload.ends();
        }
        if overload.asked.swap(false, Ordering::AcqRel) {
            asked_at = Instant::now();
        }
        // What it has come to ends by itself, once there is less to do.
        if config.mode == OverloadMode::Off || asked_at.elapsed() > QUIET && control.ratio() == 0.0 {
            control = Control::default();
            overload.ends();
            proxy.reporter.metrics.overload(Duration::ZERO, 0.0);
            overload.rest().await;
            // Whoever came meanwhile was not measured, and whoever comes now may cost something else.
            overload.requests.take(Duration::ZERO);
            *overload.costs.lock() = Costs::default();
            period = Period::begin();
        }
        period.add(overload.probe(&config).await);
        if !period.is_over() {
            continue;
        }
        let Period { began, used, shortest, .. } = std::mem::replace(&mut period, Period::begin());
        let (lasted, used) = (period.began - began, period.used.saturating_sub(used));
        let ours = used.as_secs_f64() >= OURS * quota.processors().min(1.0) * lasted.as_secs_f64();
        let most = {
            let mut costs = overload.costs.lock();
            costs.update(overload.requests.take(used));
            costs.most()
        };
        let ratio = control.update(shortest, config.target_delay, lasted, ours, most);
        overload.set_ratio(ratio, most);
        proxy.reporter.metrics.overload(shortest, ratio);
    }
}
