//! Where counts live.
//!
//! Two stores: this process's [`memory`], and [`redis`] for several replicas. [`failover`] puts the configured answer
//! in front of a store that fails, and [`over`] remembers for a moment who is over a limit anyway. A call brings all
//! its counters in one [`Batch`], so that a remote store costs one round trip whatever the number of limits.

pub mod batch;
pub mod failover;
pub mod key;
pub mod memory;
mod over;
pub mod redis;
pub mod settle;
pub mod snapshot;
mod state;

use std::sync::Arc;
use std::time::Duration;

pub use batch::{Batch, Counting};
pub use failover::{Counted, Counters, OnError};
pub use memory::{Bounds, MemoryStore};
pub use redis::RedisStore;

use crate::window::Tally;

/// Counts the hits of a call.
pub trait CounterStore: Send + Sync {
    /// Applies every counting of the batch, in order, and pushes one tally for each. Where the call is refused,
    /// nothing of it is spent but in fixed windows.
    ///
    /// `now_us` is this process's Unix time in microseconds; a store with a clock of its own uses that, so that
    /// all replicas cut the same windows.
    fn count(
        &self,
        batch: &Arc<Batch>,
        now_us: u64,
        tallies: &mut Vec<Tally>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl CounterStore for MemoryStore {
    async fn count(
        &self,
        batch: &Arc<Batch>,
        now_us: u64,
        tallies: &mut Vec<Tally>,
    ) -> Result<(), StoreError> {
        self.count_now(batch, now_us, tallies);
        Ok(())
    }
}

impl CounterStore for RedisStore {
    async fn count(&self, batch: &Arc<Batch>, _: u64, tallies: &mut Vec<Tally>) -> Result<(), StoreError> {
        Self::count(self, batch, tallies).await
    }
}

/// Why a store gave no tallies.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No answer in time.
    #[error("the counter store did not answer within {0:?}")]
    Timeout(Duration),
    /// Too many calls wait for it.
    #[error("too many calls wait for the counter store")]
    Full,
    /// There is no connection now.
    #[error("the counter store is not connected")]
    Unlinked,
    /// The store, or the way to it, failed.
    #[error("the counter store failed")]
    Redis(#[source] Arc<::redis::RedisError>),
    /// An answer that does not fit the question.
    #[error("the counter store answered {found} numbers where {expected} were due")]
    Answer { expected: usize, found: usize },
}

impl From<::redis::RedisError> for StoreError {
    fn from(error: ::redis::RedisError) -> Self {
        Self::Redis(Arc::new(error))
    }
}

impl StoreError {
    /// Few words for the metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Full => "full",
            Self::Unlinked => "connection",
            Self::Redis(error) if error.is_io_error() => "connection",
            Self::Redis(_) => "refused",
            Self::Answer { .. } => "answer",
        }
    }
}
