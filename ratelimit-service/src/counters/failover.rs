//! What happens when the store does not answer: the configured word, counted, and said once.
//!
//! ```text
//!            first failure: logged                   an answer, a quiet second after the last failure: logged
//! answering ----------------------> failing (allow | deny | local) ------------------------------> answering
//! ```
//!
//! Under `local` each replica holds its share of every limit, as many as it last knew of; what it counted is told to
//! the store when that is back ([`super::settle`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::over::OverCache;
use super::settle::Journal;
use super::{Batch, MemoryStore, RedisStore, StoreError};
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
    /// This process counts for itself until the store is back, its share of each limit: the limit by the number of
    /// replicas that it last knew of, rounded up.
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
    Redis(Box<Remote>),
}

/// Redis, and what helps it.
#[derive(Debug)]
struct Remote {
    redis: RedisStore,
    over: OverCache,
    stand_in: MemoryStore,
    replicas: AtomicU32,
    journal: Journal,
}

impl Counters {
    /// Counters in this process, which never fail.
    pub fn in_memory(memory: MemoryStore, metrics: Metrics) -> Self {
        Self::new(Store::Memory(memory), OnError::default(), metrics)
    }

    /// Counters in Redis; `stand_in` counts where `on_error` is [`OnError::Local`]. So many counters that are over
    /// their limit are remembered here for a moment.
    pub fn in_redis(
        redis: RedisStore,
        stand_in: MemoryStore,
        on_error: OnError,
        remembered: usize,
        metrics: Metrics,
    ) -> Self {
        let remote = Remote {
            redis,
            over: OverCache::new(remembered),
            stand_in,
            replicas: AtomicU32::new(1),
            journal: Journal::default(),
        };
        Self::new(Store::Redis(Box::new(remote)), on_error, metrics)
    }

    fn new(store: Store, on_error: OnError, metrics: Metrics) -> Self {
        Self { store, on_error, failing: AtomicBool::new(false), last_failure: AtomicU64::new(0), metrics }
    }

    /// The counters of this process: all of them, or those that stand in.
    pub fn memory(&self) -> &MemoryStore {
        match &self.store {
            Store::Memory(memory) => memory,
            Store::Redis(remote) => &remote.stand_in,
        }
    }

    /// The shared store, where there is one.
    pub fn redis(&self) -> Option<&RedisStore> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Redis(remote) => Some(&remote.redis),
        }
    }

    /// Whether the store does not answer at present.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Replicas that share the store, this one included, as far as is known.
    pub fn replicas(&self) -> u32 {
        match &self.store {
            Store::Memory(_) => 1,
            Store::Redis(remote) => remote.replicas.load(Ordering::Relaxed),
        }
    }

    /// So many replicas share the store now.
    pub(super) fn know_replicas(&self, replicas: u32) {
        if let Store::Redis(remote) = &self.store {
            remote.replicas.store(replicas.max(1), Ordering::Relaxed);
        }
    }

    /// What was counted here while the store failed.
    pub(super) fn journal(&self) -> Option<&Journal> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Redis(remote) => Some(&remote.journal),
        }
    }

    /// Counts, or says what the configuration wants instead.
    pub async fn count(&self, batch: Batch, now_us: u64, tallies: &mut Vec<Tally>) -> Counted {
        let remote = match &self.store {
            Store::Memory(memory) => {
                memory.count_now(&batch, now_us, tallies);
                return Counted::Exactly;
            }
            Store::Redis(remote) => remote,
        };
        let now_seconds = now_us / 1_000_000;
        if let Some(known) = remote.over.known(&batch, now_seconds) {
            tallies.push(known);
            self.metrics.known_over();
            return Counted::Exactly;
        }
        let batch = Arc::new(batch);
        match remote.redis.count(&batch, tallies).await {
            Ok(()) => {
                remote.over.learn(&batch, tallies, now_seconds);
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
                remote.count_here(&batch, now_us, tallies);
                Counted::Locally
            }
        }
    }

    /// Forgets one counter, wherever it is.
    pub async fn forget(&self, key: &[u8]) -> Result<(), StoreError> {
        self.memory().forget(key);
        if let Store::Redis(remote) = &self.store {
            let mut delete = ::redis::cmd("DEL");
            delete.arg(remote.redis.stored_key(key));
            remote.redis.command(&delete).await?;
            remote.over.forget(key);
        }
        Ok(())
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

impl Remote {
    /// Holds this replica's share of each limit.
    fn count_here(&self, batch: &Batch, now_us: u64, tallies: &mut Vec<Tally>) {
        let replicas = self.replicas.load(Ordering::Relaxed);
        if replicas <= 1 {
            self.stand_in.count_now(batch, now_us, tallies);
        } else {
            self.stand_in.count_now(&batch.shared_by(replicas), now_us, tallies);
            for tally in tallies.iter_mut() {
                // Of the whole limit, as the answer shows it.
                tally.used = tally.used.saturating_mul(u64::from(replicas));
            }
        }
        self.journal.note(batch, tallies, now_us);
    }
}
