//! What the dashboard counts about itself: what came in, how late, and what was not kept and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use parking_lot::Mutex;
use tollgate_runtime::clock::Clock;

use crate::record::Kind;

/// Why a record was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DropReason {
    /// The store's queue was full.
    QueueFull,
    /// More bytes were on their way in than the cap allows.
    Overloaded,
    /// The store could not write.
    StoreFailed,
    /// What was logged could not be read again.
    Damaged,
    /// The record's time is outside of what is kept.
    Time,
    /// A sort of data that is not stored.
    Unsupported,
    /// The request would unfold into too much.
    TooLarge,
}

impl DropReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Overloaded => "overloaded",
            Self::StoreFailed => "store_failed",
            Self::Damaged => "damaged",
            Self::Time => "time",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
        }
    }
}

/// Seconds in the window of "records lost, 1 h", by minutes.
const LOST_MINUTES: u64 = 60;
/// Seconds; a banner appears at ten.
const LAG_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// The lag shown is the largest of this many seconds.
const LAG_WINDOW_NS: u64 = 10_000_000_000;

#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `tollgate.ingest.lag`, seconds: age of the newest record of a batch when it was stored.
    lag: Histogram<f64>,
    /// `tollgate.ingest.dropped`, records not kept, by reason.
    dropped: Counter<u64>,
    /// `tollgate.ingest.records`, records stored, by sort.
    records: Counter<u64>,
    /// `tollgate.ingest.attributes.dropped`, attributes beyond what one record may have.
    attributes: Counter<u64>,
    clock: Clock,
    drops: Mutex<Drops>,
    lag_window: Mutex<(u64, u64)>,
    first_lag_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Drops {
    by_reason: BTreeMap<&'static str, u64>,
    by_minute: BTreeMap<u64, u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            lag: meter
                .f64_histogram("tollgate.ingest.lag")
                .with_description("Age of the newest record of a batch when it was stored")
                .with_unit("s")
                .with_boundaries(LAG_BUCKETS.to_vec())
                .build(),
            dropped: meter
                .u64_counter("tollgate.ingest.dropped")
                .with_description("Records that arrived and were not kept")
                .build(),
            records: meter.u64_counter("tollgate.ingest.records").with_description("Records stored").build(),
            attributes: meter
                .u64_counter("tollgate.ingest.attributes.dropped")
                .with_description("Attributes beyond what one record may have")
                .build(),
            clock,
            drops: Mutex::default(),
            lag_window: Mutex::default(),
            first_lag_ns: AtomicU64::new(0),
        }))
    }

    pub(crate) fn dropped(&self, reason: DropReason, records: u64) {
        if records == 0 {
            return;
        }
        self.0.dropped.add(records, &[KeyValue::new("reason", reason.as_str())]);
        let minute = self.0.clock.unix_seconds() / 60;
        let mut drops = self.0.drops.lock();
        *drops.by_reason.entry(reason.as_str()).or_default() += records;
        *drops.by_minute.entry(minute).or_default() += records;
        drops.by_minute.retain(|at, _| at + LOST_MINUTES > minute);
    }

    pub(crate) fn attributes_dropped(&self, attributes: u64) {
        self.0.attributes.add(attributes, &[]);
    }

    pub(crate) fn stored(&self, kind: Kind, records: u64, now_ns: u64, newest_ns: i64) {
        let sort = match kind {
            Kind::Access => "access",
            Kind::Log => "log",
            Kind::Span => "span",
            Kind::Metric => "metric",
        };
        self.0.records.add(records, &[KeyValue::new("sort", sort)]);
        let lag = now_ns.saturating_sub(u64::try_from(newest_ns).unwrap_or(0));
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        self.0.lag.record(lag as f64 / 1e9, &[]);
        let mut window = self.0.lag_window.lock();
        if now_ns.saturating_sub(window.0) > LAG_WINDOW_NS {
            self.0.first_lag_ns.store(window.1, Ordering::Relaxed);
            *window = (now_ns, 0);
        }
        window.1 = window.1.max(lag);
    }

    /// Records not kept, since the start, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        self.0.drops.lock().by_reason.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }

    /// Records not kept, by unix minute, of the last hour.
    pub(crate) fn lost_by_minute(&self) -> BTreeMap<u64, u64> {
        let minute = self.0.clock.unix_seconds() / 60;
        let drops = self.0.drops.lock();
        drops
            .by_minute
            .iter()
            .filter(|(at, _)| **at + LOST_MINUTES > minute)
            .map(|(at, n)| (*at, *n))
            .collect()
    }

    /// The largest lag of the last ten seconds or so, milliseconds.
    pub(crate) fn lag_ms(&self) -> u64 {
        let window = *self.0.lag_window.lock();
        if self.0.clock.unix_nanos().saturating_sub(window.0) > 2 * LAG_WINDOW_NS {
            return 0;
        }
        window.1.max(self.0.first_lag_ns.load(Ordering::Relaxed)) / 1_000_000
    }
}
