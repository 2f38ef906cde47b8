//! The seam between the store and where its blocks lie. SQLite day files implement it; a database shared by several
//! replicas is meant to as well, held to the same tests.

use std::ops::Range;
use std::sync::Arc;

use super::column::{Block, Column};
use super::day_file::DayFile;
use super::prune::{Bloom, Zone};
use super::rollup::Rollup;
use crate::record::Kind;

/// What goes wrong with a store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database said no.
    #[error("store {what}")]
    Database {
        /// What we were doing.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// The file system said no.
    #[error("store {what}")]
    File {
        /// What we were doing.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Bytes on disk are not what we wrote.
    #[error("store holds damaged bytes: {0}")]
    Damaged(String),
    /// The writer has ended; the process is stopping.
    #[error("the store is stopping")]
    Stopping,
}

impl From<super::bytes::Damaged> for StoreError {
    fn from(damaged: super::bytes::Damaged) -> Self {
        Self::Damaged(damaged.to_string())
    }
}

/// A request to be logged before it is acknowledged.
pub(crate) struct LogEntry {
    pub(crate) seq: i64,
    pub(crate) signal: i64,
    pub(crate) records: usize,
    pub(crate) received_ns: i64,
    pub(crate) request: Vec<u8>,
}

/// Blocks to be written at once.
pub(crate) struct Sealing {
    pub(crate) blocks: Vec<(Kind, Block)>,
    pub(crate) rollup: Rollup,
    /// Log entries up to this record number are covered.
    pub(crate) up_to_seq: i64,
    /// Blocks these ones replace.
    pub(crate) replaces: Vec<Arc<SealedBlock>>,
}

/// A block on disk, as far as it is known in memory.
#[derive(Debug)]
pub(crate) struct SealedBlock {
    pub(crate) id: i64,
    pub(crate) kind: Kind,
    pub(crate) tmin: i64,
    pub(crate) tmax: i64,
    pub(crate) rows: usize,
    pub(crate) bloom: Bloom,
    pub(crate) zone: Zone,
    pub(crate) file: Arc<DayFile>,
}

/// Where blocks lie.
pub(crate) trait SegmentStore: Send + Sync {
    /// Keeps requests so that they survive the end of this process.
    fn log(&self, entries: &[LogEntry]) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Writes blocks and forgets the log entries they cover, both or neither.
    fn put_blocks(
        &self,
        sealing: Sealing,
    ) -> impl Future<Output = Result<Vec<Arc<SealedBlock>>, StoreError>> + Send;
    /// Every block with a record in the range.
    fn blocks(
        &self,
        range: Range<i64>,
    ) -> impl Future<Output = Result<Vec<Arc<SealedBlock>>, StoreError>> + Send;
    /// Some columns of a block; a column it does not have is left out. `None` if the block is gone.
    fn columns(
        &self,
        block: &SealedBlock,
        names: &[&str],
    ) -> impl Future<Output = Result<Option<Vec<(String, Column)>>, StoreError>> + Send;
    /// Deletes days before `day` (`2026-11-21`), and says how many.
    fn delete_before(&self, day: &str) -> impl Future<Output = Result<usize, StoreError>> + Send;
}
