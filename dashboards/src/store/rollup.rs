//! Ten-second sums of requests, folded as they arrive and kept beside the blocks, so that the overview and the
//! service pages read a few kilobytes instead of every record.
//!
//! Two narrow keys, not one wide one: who called whom, and which route of whom; measured, one wide key costs three
//! to ten times the space. A scan over the records gives the same numbers; a test holds them against each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tollgate_proto::attributes as a;

use super::histogram::Histogram;
use crate::record::{Facts, Row};

/// Length of a bucket in nanoseconds.
pub(crate) const BUCKET_NS: i64 = 10_000_000_000;
/// Different keys a bucket keeps of each sort; more are added up under [`OTHER`].
const MAX_KEYS: usize = 4096;
/// Callers of stopped requests that a bucket keeps apart.
const MAX_CALLERS: usize = 128;
/// Stands for everybody there was no room for.
pub(crate) const OTHER: &str = "(other)";

/// What every count is split by, so that a reader can count each request once (see `query::tally`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Class {
    pub(crate) reporter: String,
    pub(crate) outcome: u8,
    pub(crate) reached: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct EdgeKey {
    pub(crate) source: String,
    pub(crate) dest: String,
    pub(crate) security: String,
    pub(crate) class: Class,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RouteKey {
    pub(crate) dest: String,
    pub(crate) namespace: String,
    pub(crate) version: String,
    pub(crate) method: String,
    pub(crate) route: String,
    pub(crate) class: Class,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StopKey {
    pub(crate) reason: String,
    pub(crate) caller: String,
    pub(crate) dest: String,
    pub(crate) class: Class,
}

/// How many, and how long they took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) durations: Histogram,
}

/// The sums of one bucket, or of several added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) edges: BTreeMap<EdgeKey, Sum>,
    pub(crate) routes: BTreeMap<RouteKey, Sum>,
    pub(crate) stops: BTreeMap<StopKey, u64>,
    /// How long authorization took.
    pub(crate) decisions: Histogram,
    /// Seconds (unix) in which something passed because a check failed open.
    pub(crate) open_seconds: BTreeSet<i64>,
    /// When each policy epoch was first seen, unix nanoseconds.
    pub(crate) epochs: BTreeMap<u64, i64>,
}

/// As [`Sums`], in the shape that JSON can hold.
#[derive(Serialize, Deserialize)]
struct Stored {
    edges: Vec<(EdgeKey, Sum)>,
    routes: Vec<(RouteKey, Sum)>,
    stops: Vec<(StopKey, u64)>,
    decisions: Histogram,
    open_seconds: BTreeSet<i64>,
    epochs: BTreeMap<u64, i64>,
}

impl Sums {
    pub(crate) fn add(&mut self, row: &Row<'_>, facts: &Facts) {
        let text = |name: &str| row.text(name).to_owned();
        let reporter = text(a::TOLLGATE_REPORTER);
        let class = Class { reporter, outcome: facts.outcome as u8, reached: facts.reached };
        let duration = row.int(a::TOLLGATE_DURATION_US).and_then(|us| u64::try_from(us).ok());

        let mut edge = EdgeKey {
            source: text(a::TOLLGATE_SOURCE_WORKLOAD),
            dest: facts.dest.clone(),
            security: text(a::TOLLGATE_CONNECTION_SECURITY_POLICY),
            class: class.clone(),
        };
        if self.edges.len() >= MAX_KEYS && !self.edges.contains_key(&edge) {
            OTHER.clone_into(&mut edge.source);
            OTHER.clone_into(&mut edge.dest);
        }
        self.edges.entry(edge).or_default().count_one(duration);

        let mut route = RouteKey {
            dest: facts.dest.clone(),
            namespace: text(a::TOLLGATE_DESTINATION_NAMESPACE),
            version: text(a::TOLLGATE_DESTINATION_VERSION),
            method: text(a::HTTP_REQUEST_METHOD),
            route: text(a::HTTP_ROUTE),
            class: class.clone(),
        };
        if self.routes.len() >= MAX_KEYS && !self.routes.contains_key(&route) {
            let other = OTHER.to_owned();
            route = RouteKey {
                dest: other.clone(),
                namespace: String::new(),
                version: String::new(),
                method: String::new(),
                route: other,
                class: class.clone(),
            };
        }
        self.routes.entry(route).or_default().count_one(duration);

        if facts.outcome != crate::record::Outcome::Passed {
            let mut stop = StopKey {
                reason: text(a::TOLLGATE_REASON),
                caller: facts.caller.clone(),
                dest: facts.dest.clone(),
                class,
            };
            if self.stops.len() >= MAX_CALLERS && !self.stops.contains_key(&stop) {
                OTHER.clone_into(&mut stop.caller);
            }
            *self.stops.entry(stop).or_default() += 1;
        }
        if let Some(us) = row.int(a::TOLLGATE_AUTHZ_US).and_then(|us| u64::try_from(us).ok()) {
            self.decisions.add(us);
        }
        if facts.outcome == crate::record::Outcome::Passed && failed_open(row) {
            self.open_seconds.insert(row.time_ns.div_euclid(1_000_000_000));
        }
        if let Some(epoch) = row.int(a::TOLLGATE_AUTHZ_EPOCH).and_then(|epoch| u64::try_from(epoch).ok()) {
            let first = self.epochs.entry(epoch).or_insert(row.time_ns);
            *first = (*first).min(row.time_ns);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, sum) in &other.edges {
            self.edges.entry(key.clone()).or_default().merge(sum);
        }
        for (key, sum) in &other.routes {
            self.routes.entry(key.clone()).or_default().merge(sum);
        }
        for (key, count) in &other.stops {
            *self.stops.entry(key.clone()).or_default() += count;
        }
        self.decisions.merge(&other.decisions);
        self.open_seconds.extend(&other.open_seconds);
        for (epoch, at) in &other.epochs {
            let first = self.epochs.entry(*epoch).or_insert(*at);
            *first = (*first).min(*at);
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            edges: self.edges.clone().into_iter().collect(),
            routes: self.routes.clone().into_iter().collect(),
            stops: self.stops.clone().into_iter().collect(),
            decisions: self.decisions.clone(),
            open_seconds: self.open_seconds.clone(),
            epochs: self.epochs.clone(),
        };
        let json = serde_json::to_vec(&stored).expect("strings and numbers always have a JSON form");
        zstd::bulk::compress(&json, 1).expect("compressing to memory cannot fail")
    }

    pub(crate) fn decode(data: &[u8]) -> Result<Self, super::bytes::Damaged> {
        let json = super::codec::unpack(data)?;
        let stored: Stored = serde_json::from_slice(&json).map_err(|_| super::bytes::Damaged("rollup"))?;
        Ok(Self {
            edges: stored.edges.into_iter().collect(),
            routes: stored.routes.into_iter().collect(),
            stops: stored.stops.into_iter().collect(),
            decisions: stored.decisions,
            open_seconds: stored.open_seconds,
            epochs: stored.epochs,
        })
    }
}

impl Sum {
    fn count_one(&mut self, duration_us: Option<u64>) {
        self.count += 1;
        if let Some(us) = duration_us {
            self.durations.add(us);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.durations.merge(&other.durations);
    }
}

fn failed_open(row: &Row<'_>) -> bool {
    [a::TOLLGATE_AUTHZ_FAILURE_MODE, a::TOLLGATE_RATELIMIT_FAILURE_MODE]
        .iter()
        .any(|name| matches!(row.text(name), "allow" | "open" | "fail_open"))
}

/// Sums by the bucket's number (unix time / 10 s).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rollup(pub(crate) BTreeMap<i64, Sums>);

impl Rollup {
    pub(crate) fn add(&mut self, row: &Row<'_>, facts: &Facts) {
        self.0.entry(row.time_ns.div_euclid(BUCKET_NS)).or_default().add(row, facts);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (bucket, sums) in &other.0 {
            self.0.entry(*bucket).or_default().merge(sums);
        }
    }
}
