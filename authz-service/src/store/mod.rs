//! The policy in a database, with the history of every change.
//!
//! Nothing on the request path comes here: `load` makes a snapshot of the policy at the start, `follow` the next one
//! when the epoch has moved, and requests are answered from that.
//!
//! The epoch moves by one in each transaction that writes, by a statement that also takes the write
//! lock. So changes commit in the order of their numbers, and whoever polls skips none.

mod administrators;
mod ca;
mod changes;
mod error;
mod fetched_keys;
pub mod follow;
mod idempotency;
mod last_administrator;
pub mod load;
mod refusing;
mod rollout_rows;
mod rollouts;
mod rows;
mod select;
mod sql;
mod surroundings;
mod write;

use std::sync::Arc;

use tokio::sync::watch;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::config::Secret;

pub use crate::policy::snapshot::SecretHash;
pub use administrators::{Administrator, IssuedToken, hash_secret};
pub use ca::{
    CertificateRow, Enrolment, NewCertificate, NewJoinToken, NewRoot, RevokedCaller, TokenUse, fingerprint,
    hex,
};
pub use changes::{ChangeFilter, ChangeRow};
pub use error::StoreError;
pub use fetched_keys::FetchedKeys;
pub use idempotency::IdempotencyKey;
pub use rollouts::{ActTerms, Acted, Heard, RolloutError, RolloutEvent, RolloutReport, StoredRollout};
pub use rows::{Stored, StoredSet};
pub use write::{Applied, Authorship, Change, Guard, Operation, Write};

use sql::{Database, Tx};

/// A handle on the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    clock: Clock,
    /// Tells followers in this process of our own writes.
    written: watch::Sender<u64>,
}

/// One state of everything that a snapshot is made of.
#[derive(Debug)]
pub struct Loaded {
    /// Which state.
    pub epoch: u64,
    /// The policy.
    pub objects: StoredSet,
    /// Fetched key sets.
    pub keys: Vec<FetchedKeys>,
    /// Holders of opaque tokens.
    pub administrators: Vec<Administrator>,
}

impl Store {
    /// Opens the database and brings its schema up to date.
    pub async fn open(url: &Secret, clock: Clock) -> Result<Self, StoreError> {
        let database = Database::open(url).await?;
        database.migrate().await?;
        let (written, _) = watch::channel(0);
        Ok(Self { inner: Arc::new(Inner { database, clock, written }) })
    }

    /// The number of the last change.
    pub async fn epoch(&self) -> Result<u64, StoreError> {
        let mut tx = self.database().begin_read().await?;
        current_epoch(&mut tx).await
    }

    /// Reads everything, as of one moment.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        let mut tx = self.database().begin_read().await?;
        let epoch = current_epoch(&mut tx).await?;
        let objects = select::all(&mut tx).await?;
        let keys = fetched_keys::load(&mut tx).await?;
        let administrators = administrators::load(&mut tx).await?;
        Ok(Loaded { epoch, objects, keys, administrators })
    }

    /// Closes the database once its last statement is done.
    pub async fn close(&self) {
        self.database().close().await;
    }

    fn database(&self) -> &Database {
        &self.inner.database
    }

    fn now(&self) -> i64 {
        self.inner.clock.unix_seconds().cast_signed()
    }
}

async fn current_epoch(tx: &mut Tx) -> Result<u64, StoreError> {
    let rows = tx.fetch("read the epoch", "SELECT n FROM epoch WHERE id = 1", &[]).await?;
    let row = rows.first().ok_or(StoreError::NoEpoch)?;
    Ok(row.int("n")?.unsigned_abs())
}
