//! What happens when the store does not answer: the configured word, counted, and said once.
//!
//! ```text
//!            first failure: logged                   an answer, a quiet second after the last failure: logged
//! answering ----------------------> failing (allow | deny | local) ------------------------------> answering
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Batch, CounterStore, MemoryStore, RedisStore, StoreError};
use crate::metrics::Metrics;
use crate::window::Tally;

/// An outage is over when the store answers and the last failure is at least this long ago, so that
/// a store on the edge does not fill the log.
const QUIET_SECONDS: u64 = 1;

/// The answer while the store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Requests pass.
    #[default]
    Allow,
    /// Requests that fall under a limit are refused.
    Deny,
    /// This process counts for itself until the store is back; every replica then grants the whole limit.
    Local,
}

/// Who counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// The store; the tallies are filled.
    Exactly,
    /// This process in the store's place; the tallies are filled.
    Locally,
    /// Nobody, and the request passes.
    FailedOpen,
    /// Nobody, and the request is refused.
    FailedClosed,
}

/// A store and what stands in for it.
#[derive(Debug)]
pub struct Counters {
    store: Store,
    on_error: OnError,
    failing: AtomicBool,
    last_failure: AtomicU64,
    metrics: Metrics,
}

/// The store in use. An enum and no trait object, so that counting in memory allocates no future.
#[derive(Debug)]
enum Store {
    Memory(MemoryStore),
    Redis { redis: RedisStore, stand_in: MemoryStore },
}

impl Counters {
    /// Counters in this process, which never fail.
    pub fn in_memory(memory: MemoryStore, metrics: Metrics) -> Self {
        Self::new(Store::Memory(memory), OnError::default(), metrics)
    }

    /// Counters in Redis; `stand_in` counts where `on_error` is [`OnError::Local`].
    pub fn in_redis(redis: RedisStore, stand_in: MemoryStore, on_error: OnError, metrics: Metrics) -> Self {
        Self::new(Store::Redis { redis, stand_in }, on_error, metrics)
    }

    fn new(store: Store, on_error: OnError, metrics: Metrics) -> Self {
        Self { store, on_error, failing: AtomicBool::new(false), last_failure: AtomicU64::new(0), metrics }
    }

    /// The counters of this process: all of them, or those that stand in.
    pub fn memory(&self) -> &MemoryStore {
        match &self.store {
            Store::Memory(memory) | Store::Redis { stand_in: memory, .. } => memory,
        }
    }

    /// Counts, or says what the configuration wants instead.
    pub async fn count(&self, batch: &Batch, now_seconds: u64, tallies: &mut Vec<Tally>) -> Counted {
        let (redis, stand_in) = match &self.store {
            Store::Memory(memory) => {
                memory.count_now(batch, now_seconds, tallies);
                return Counted::Exactly;
            }
            Store::Redis { redis, stand_in } => (redis, stand_in),
        };
        match redis.count(batch, now_seconds, tallies).await {
            Ok(()) => {
                self.note_answer(now_seconds);
                return Counted::Exactly;
            }
            Err(error) => self.note_failure(&error, now_seconds),
        }
        tallies.clear();
        match self.on_error {
            OnError::Allow => Counted::FailedOpen,
            OnError::Deny => Counted::FailedClosed,
            OnError::Local => {
                stand_in.count_now(batch, now_seconds, tallies);
                Counted::Locally
            }
        }
    }

    fn note_failure(&self, error: &StoreError, now_seconds: u64) {
        self.metrics.store_failed(error.kind());
        self.last_failure.store(now_seconds, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, on_error = ?self.on_error, "counter store does not answer");
        }
    }

    fn note_answer(&self, now_seconds: u64) {
        if self.failing.load(Ordering::Relaxed)
            && now_seconds > self.last_failure.load(Ordering::Relaxed) + QUIET_SECONDS
            && self.failing.swap(false, Ordering::Relaxed)
        {
            tracing::info!("counter store answers again");
        }
    }
}
