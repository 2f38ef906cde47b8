//! The embedded telemetry store.
//!
//! ```text
//! append -> log (group commit, then acknowledge) -> open parts in memory --> queries, live tail
//!                                                        | 8,192 records or 5 s
//!                                                        v
//!                              block: one row a column + bloom + zone + sums, log trimmed in the same transaction
//!                                                        | small blocks are joined in the background
//!                                                        v
//!                                   day file; retention deletes whole files
//! ```
//!
//! One task writes. Readers take a snapshot ([`View`]) that is replaced whole, so no query ever holds anything that
//! ingest waits for, and each record is seen exactly once while it moves from memory to disk.

mod build;
mod bytes;
mod codec;
mod column;
mod day_file;
mod day_files;
mod histogram;
pub(crate) mod names;
mod prune;
mod rollup;
mod segment;
#[cfg(test)]
mod tests;
mod words;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, mpsc, oneshot};
use tollgate_runtime::Service;

pub(crate) use build::{BlockBuilder, MAX_COLUMNS, json_of};
pub(crate) use codec::unpack;
pub(crate) use column::ColumnBuilder;
pub(crate) use column::{Block, Cell, Column, MISSING};
pub(crate) use histogram::{Histogram, three_digits};
pub(crate) use prune::{Bloom, Zone};
pub(crate) use rollup::{BUCKET_NS, Class, EdgeKey, Rollup, Sum, Sums};
pub(crate) use segment::{LogEntry, SealedBlock, StoreError};

use crate::metrics::{DropReason, Metrics};
use crate::record::Kind;
use day_files::DayFiles;

/// How a store is run.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    pub(crate) dir: PathBuf,
    /// Whether an acknowledged record also survives a loss of power.
    pub(crate) durable: bool,
    pub(crate) seal_records: usize,
    pub(crate) seal_after: Duration,
    pub(crate) keep_days: u32,
    pub(crate) max_bytes: u64,
    pub(crate) queue: usize,
}

/// Records of one sort out of one request.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) kind: Kind,
    pub(crate) block: Block,
    pub(crate) tmin: i64,
    pub(crate) tmax: i64,
    /// Sums of requests; empty for other sorts.
    pub(crate) rollup: Rollup,
}

/// A request, ready to be stored: its bytes for the log and its records as columns.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Which OTLP service it came by; the store only hands it back on recovery.
    pub(crate) signal: i64,
    pub(crate) received_ns: i64,
    /// zstd of the request without credentials.
    pub(crate) request: Vec<u8>,
    pub(crate) records: usize,
    /// Their `@seq` columns count from 0; the writer adds the batch's first number.
    pub(crate) parts: Vec<Part>,
}

/// What a query sees: a moment's blocks and open parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) sealed: Arc<Vec<Arc<SealedBlock>>>,
    pub(crate) open: Arc<Vec<Arc<Part>>>,
}

/// Reads a logged request again; the same function that read it when it came.
pub(crate) type Replay = fn(&LogEntry) -> Result<Vec<Part>, String>;

/// A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: DayFiles,
    view: ArcSwap<View>,
    queue: mpsc::Sender<Append>,
    live: broadcast::Sender<Arc<Part>>,
    metrics: Metrics,
}

struct Append {
    batch: Batch,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// Batches of requests that a live tail may be behind before it misses some.
const LIVE_BACKLOG: usize = 256;

impl Store {
    /// Opens the folder, takes back what was acknowledged before, and starts the writer.
    pub(crate) async fn open(
        options: StoreOptions,
        service: &Service,
        metrics: Metrics,
        replay: Replay,
    ) -> Result<Self, StoreError> {
        let files = DayFiles::open(&options.dir, options.durable).await?;
        let (queue, incoming) = mpsc::channel(options.queue);
        let (live, _) = broadcast::channel(LIVE_BACKLOG);
        let store = Self(Arc::new(Inner { files, view: ArcSwap::default(), queue, live, metrics }));
        let mut writer = writer::Writer::new(store.clone(), options, service.clock().clone());
        writer.recover(replay).await?;
        let stopping = service.tasks().stopping();
        service.tasks().spawn("store-writer", writer.run(incoming, stopping));
        Ok(store)
    }

    /// Stores a batch; returns once it would survive the end of this process. `None` when the queue is full.
    pub(crate) fn append(&self, batch: Batch) -> Option<oneshot::Receiver<Result<(), StoreError>>> {
        let (done, committed) = oneshot::channel();
        let records = batch.records as u64;
        if self.0.queue.try_send(Append { batch, done }).is_err() {
            self.0.metrics.dropped(DropReason::QueueFull, records);
            return None;
        }
        Some(committed)
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.0.view.load_full()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Part>> {
        self.0.live.subscribe()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) async fn columns(
        &self,
        block: &SealedBlock,
        names: &[&str],
    ) -> Result<Option<Vec<(String, Column)>>, StoreError> {
        segment::SegmentStore::columns(&self.0.files, block, names).await
    }

    /// Ten-second sums of `from_ns..to_ns`, whole buckets: what is on disk and what is still in memory.
    pub(crate) async fn rollup(&self, from_ns: i64, to_ns: i64) -> Result<Rollup, StoreError> {
        let (from, to) =
            (from_ns.div_euclid(BUCKET_NS), to_ns.saturating_add(BUCKET_NS - 1).div_euclid(BUCKET_NS));
        // A sealing between the two readings would count its parts twice or not at all; then read again.
        for _ in 0..ROLLUP_ATTEMPTS {
            let view = self.view();
            let mut sum = Rollup::default();
            for file in self.0.files.all() {
                if view
                    .sealed
                    .iter()
                    .any(|b| Arc::ptr_eq(&b.file, &file) && b.tmin < to_ns && b.tmax >= from_ns)
                {
                    sum.merge(&file.rollup(from, to).await?);
                }
            }
            for part in view.open.iter() {
                for (bucket, sums) in part.rollup.0.range(from..to) {
                    sum.0.entry(*bucket).or_default().merge(sums);
                }
            }
            if Arc::ptr_eq(&self.view().sealed, &view.sealed) {
                return Ok(sum);
            }
        }
        Err(StoreError::Damaged("the store changed under every attempt to read its sums".to_owned()))
    }
}

/// Readings of the sums before giving up; sealings are seconds apart.
const ROLLUP_ATTEMPTS: usize = 8;

fn database(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { what, source }
}
