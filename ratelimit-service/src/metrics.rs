//! What this service counts about itself. Labels are domains of the limits files and closed enums,
//! never rules or descriptor values, whose number is not ours to bound.
//!
//! Decisions are plain atomics that are read when metrics are collected, since they are counted on
//! every request; rare events are instruments.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use parking_lot::RwLock;

use crate::counters::Counters;

/// Domains counted apart; further ones, after many reloads, are counted as one.
const MAX_DOMAINS: usize = 4_096;
/// The label of domains beyond those, and of those no limits are loaded for.
const OTHER_DOMAINS: &str = "_other";

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Within all limits, or under none.
    Ok,
    /// Refused.
    OverLimit,
    /// Over a limit, and let through because that limit or the whole service only watches.
    Shadow,
    /// Let through because the store did not answer.
    FailedOpen,
    /// Refused because the store did not answer.
    FailedClosed,
}

impl Decision {
    const ALL: [Self; 5] = [Self::Ok, Self::OverLimit, Self::Shadow, Self::FailedOpen, Self::FailedClosed];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OverLimit => "over_limit",
            Self::Shadow => "shadow",
            Self::FailedOpen => "failed_open",
            Self::FailedClosed => "failed_closed",
        }
    }
}

/// Counts of one domain.
#[derive(Debug, Default)]
pub struct DomainCounts {
    decisions: [AtomicU64; Decision::ALL.len()],
    near_limit: AtomicU64,
}

impl DomainCounts {
    /// A request ended so.
    pub fn decided(&self, decision: Decision) {
        self.decisions[decision as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// This many descriptors of a request used more than four fifths of their limit.
    pub fn near_limit(&self, descriptors: u64) {
        self.near_limit.fetch_add(descriptors, Ordering::Relaxed);
    }

    /// How many requests ended so.
    pub fn count_of(&self, decision: Decision) -> u64 {
        self.decisions[decision as usize].load(Ordering::Relaxed)
    }
}

/// The instruments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    meter: Meter,
    domains: Arc<RwLock<BTreeMap<Box<str>, Arc<DomainCounts>>>>,
    store_errors: Counter<u64>,
    known_over: Arc<AtomicU64>,
    reloads: Counter<u64>,
}

impl Metrics {
    /// Instruments of this meter.
    pub fn new(meter: Meter) -> Self {
        let domains = Arc::<RwLock<BTreeMap<Box<str>, Arc<DomainCounts>>>>::default();
        observe_domains(&meter, &domains);
        let known_over = Arc::<AtomicU64>::default();
        let of_known = Arc::clone(&known_over);
        meter
            .u64_observable_counter("tollgate.ratelimit.known_over")
            .with_description(
                "Calls answered without the store, because a moment ago they were over their limit",
            )
            .with_callback(move |observer| observer.observe(of_known.load(Ordering::Relaxed), &[]))
            .build();
        Self(Arc::new(Inner {
            store_errors: meter
                .u64_counter("tollgate.ratelimit.store.errors")
                .with_description("Calls that the counter store did not answer, by kind of failure")
                .build(),
            reloads: meter
                .u64_counter("tollgate.ratelimit.limits.reloads")
                .with_description("Changes of the limits files, by whether they were taken or refused")
                .build(),
            known_over,
            domains,
            meter,
        }))
    }

    /// The counts of a domain, kept over reloads.
    pub fn domain(&self, name: &str) -> Arc<DomainCounts> {
        let mut domains = self.0.domains.write();
        let label =
            if domains.len() < MAX_DOMAINS || domains.contains_key(name) { name } else { OTHER_DOMAINS };
        Arc::clone(domains.entry(label.into()).or_default())
    }

    /// The counts of calls for domains without limits.
    pub fn other_domains(&self) -> Arc<DomainCounts> {
        self.domain(OTHER_DOMAINS)
    }

    /// The store failed; `kind` is one of few words.
    pub fn store_failed(&self, kind: &'static str) {
        self.0.store_errors.add(1, &[KeyValue::new("kind", kind)]);
    }

    /// A call was answered from memory of who is over.
    pub fn known_over(&self) {
        self.0.known_over.fetch_add(1, Ordering::Relaxed);
    }

    /// The limits files changed.
    pub fn reloaded(&self, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.0.reloads.add(1, &[KeyValue::new("result", result)]);
    }

    /// Reports the size of these counters for as long as they live.
    pub fn observe_memory(&self, counters: &Arc<Counters>) {
        let weak: Weak<Counters> = Arc::downgrade(counters);
        let of_keys = weak.clone();
        self.0
            .meter
            .u64_observable_gauge("tollgate.ratelimit.memory.keys")
            .with_description("Counters held in this process")
            .with_callback(move |observer| {
                if let Some(counters) = of_keys.upgrade() {
                    observer.observe(counters.memory().len() as u64, &[]);
                }
            })
            .build();
        self.0
            .meter
            .u64_observable_counter("tollgate.ratelimit.memory.evictions")
            .with_description("Live counters forgotten because the store in this process was full")
            .with_callback(move |observer| {
                if let Some(counters) = weak.upgrade() {
                    observer.observe(counters.memory().evicted(), &[]);
                }
            })
            .build();
    }
}

/// What is counted about quota.
#[derive(Debug, Clone)]
pub struct QuotaMetrics(Arc<QuotaCounts>);

#[derive(Debug)]
struct QuotaCounts {
    streams: Gauge<u64>,
    limits: Gauge<u64>,
    unassigned: Counter<u64>,
    over_admitted: Counter<u64>,
    requests: Counter<u64>,
}

impl QuotaMetrics {
    /// Instruments of this meter.
    pub fn new(meter: &Meter) -> Self {
        Self(Arc::new(QuotaCounts {
            streams: meter
                .u64_gauge("tollgate.ratelimit.quota.streams")
                .with_description("Proxies that are told shares of limits")
                .build(),
            limits: meter
                .u64_gauge("tollgate.ratelimit.quota.limits")
                .with_description("Limits that are divided among them")
                .build(),
            unassigned: meter
                .u64_counter("tollgate.ratelimit.quota.unassigned")
                .with_description("Reported buckets that no limit is for, or no room was for")
                .build(),
            over_admitted: meter
                .u64_counter("tollgate.ratelimit.quota.over_admitted")
                .with_description("Requests that proxies let through beyond rate and burst of a limit")
                .build(),
            requests: meter
                .u64_counter("tollgate.ratelimit.quota.requests")
                .with_description("Requests that proxies decided by themselves, as they reported them")
                .build(),
        }))
    }

    /// So many streams and limits there are now.
    pub fn sized(&self, streams: usize, limits: usize) {
        self.0.streams.record(streams as u64, &[]);
        self.0.limits.record(limits as u64, &[]);
    }

    /// A bucket got no assignment.
    pub fn unassigned(&self) {
        self.0.unassigned.add(1, &[]);
    }

    /// Requests went beyond a limit.
    pub fn over_admitted(&self, requests: u64) {
        if requests > 0 {
            self.0.over_admitted.add(requests, &[]);
        }
    }

    /// A proxy said what it decided.
    pub fn reported(&self, allowed: u64, denied: u64) {
        for (decision, count) in [(Decision::Ok, allowed), (Decision::OverLimit, denied)] {
            if count > 0 {
                self.0.requests.add(count, &[KeyValue::new("decision", decision.as_str())]);
            }
        }
    }
}

fn observe_domains(meter: &Meter, domains: &Arc<RwLock<BTreeMap<Box<str>, Arc<DomainCounts>>>>) {
    let of_decisions = Arc::clone(domains);
    meter
        .u64_observable_counter("tollgate.ratelimit.decisions")
        .with_description("Requests decided, by domain and decision")
        .with_callback(move |observer| {
            for (domain, counts) in of_decisions.read().iter() {
                for decision in Decision::ALL {
                    let labels = [
                        KeyValue::new("domain", domain.to_string()),
                        KeyValue::new("decision", decision.as_str()),
                    ];
                    observer.observe(counts.count_of(decision), &labels);
                }
            }
        })
        .build();
    let of_near = Arc::clone(domains);
    meter
        .u64_observable_counter("tollgate.ratelimit.near_limit")
        .with_description("Descriptors that had used more than four fifths of their limit, by domain")
        .with_callback(move |observer| {
            for (domain, counts) in of_near.read().iter() {
                let labels = [KeyValue::new("domain", domain.to_string())];
                observer.observe(counts.near_limit.load(Ordering::Relaxed), &labels);
            }
        })
        .build();
}
