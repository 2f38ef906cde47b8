//! Whom a call to Redis may be held up by: those of its lane, and nobody else.
//!
//! One server has one lane. In a Cluster each domain has its own, since its counters share a hash tag and thus a node:
//! a node that is silent holds up the calls that it should count. It says nothing of the other nodes, so that the
//! connection to all of them stays, and calls of the lane fail at once for a while instead:
//!
//! ```text
//! open --silent thrice--> resting --after a pause--> on trial --an answer--> open
//!                            ^---------silent------------'
//! ```
//!
//! Meanwhile a better connection is looked for: a replica may have taken over the node's part.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};
use redis::RedisError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tollgate_runtime::tasks::Tasks;

use super::flight::Seat;
use super::gather::{self, Gate};
use super::{Inner, LONGEST_PAUSE, Link, SILENCES, Sign};
use crate::counters::key::tag;
use crate::counters::{Batch, StoreError};

/// Calls that wait for the same server.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) gate: Gate,
    /// Where the server is one of several: what is known of it. Otherwise the link knows.
    health: Option<Health>,
}

#[derive(Debug)]
struct Health {
    silences: AtomicU32,
    /// Until when its calls fail at once, after so many silences.
    rests_until: Mutex<Instant>,
}

impl Lane {
    fn new(in_cluster: bool) -> Self {
        let health = || Health { silences: AtomicU32::new(0), rests_until: Mutex::new(Instant::now()) };
        Self { gate: Gate::default(), health: in_cluster.then(health) }
    }

    fn is_resting(&self) -> bool {
        self.health.as_ref().is_some_and(|health| {
            health.silences.load(Ordering::Relaxed) >= SILENCES && Instant::now() < *health.rests_until.lock()
        })
    }

    /// Takes note of what an answer to one of its commands says about the way it came.
    pub(super) fn judge<T>(&self, link: &Link, answer: &Result<T, RedisError>) {
        let Some(health) = &self.health else {
            link.judge(answer);
            return;
        };
        if Sign::of(answer) == Sign::Alive {
            health.silences.store(0, Ordering::Relaxed);
        } else if health.silences.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCES {
            *health.rests_until.lock() = Instant::now() + LONGEST_PAUSE;
            link.broken.notify_one();
        }
    }
}

/// A lane, and the bell of the task that sends its calls; without bells that task ends.
#[derive(Debug)]
pub(super) struct Entrance {
    lane: Arc<Lane>,
    bell: mpsc::Sender<()>,
}

impl Entrance {
    fn open(inner: &Arc<Inner>, tasks: &Tasks, in_cluster: bool) -> Self {
        let lane = Arc::new(Lane::new(in_cluster));
        let (bell, rung) = mpsc::channel(1);
        tasks.spawn("redis-gather", gather::run(Arc::clone(inner), Arc::clone(&lane), rung));
        Self { lane, bell }
    }

    fn seat(&self, batch: &Arc<Batch>) -> Result<Seat, StoreError> {
        if self.lane.is_resting() {
            return Err(StoreError::Unlinked);
        }
        self.lane.gate.seat(batch, &self.bell)
    }
}

/// All lanes.
#[derive(Debug)]
pub(super) enum Lanes {
    One(Entrance),
    /// Of a Cluster, by hash tag. Domains come from configured limits, so there are no more than of those.
    Many {
        entrances: RwLock<HashMap<Box<[u8]>, Entrance>>,
        inner: Arc<Inner>,
        tasks: Tasks,
    },
}

impl Lanes {
    pub(super) fn new(inner: &Arc<Inner>, in_cluster: bool, tasks: &Tasks) -> Self {
        if in_cluster {
            Self::Many { entrances: RwLock::default(), inner: Arc::clone(inner), tasks: tasks.clone() }
        } else {
            Self::One(Entrance::open(inner, tasks, false))
        }
    }

    /// Seats a call in its lane.
    pub(super) fn seat(&self, batch: &Arc<Batch>) -> Result<Seat, StoreError> {
        match self {
            Self::One(entrance) => entrance.seat(batch),
            Self::Many { entrances, inner, tasks } => {
                let tag = tag(batch.key_bytes());
                if let Some(entrance) = entrances.read().get(tag) {
                    return entrance.seat(batch);
                }
                let mut entrances = entrances.write();
                entrances.entry(tag.into()).or_insert_with(|| Entrance::open(inner, tasks, true)).seat(batch)
            }
        }
    }
}
