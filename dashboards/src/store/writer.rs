//! The one task that writes: commits batches in groups, publishes what queries see, seals, joins and deletes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::tasks::Stopping;

use super::build::join;
use super::column::{Block, Column};
use super::day_file::DayFile;
use super::rollup::Rollup;
use super::segment::{LogEntry, SealedBlock, Sealing, SegmentStore};
use super::{Append, Part, Replay, Store, StoreError, StoreOptions, View, names};
use crate::metrics::DropReason;
use crate::record::Kind;

/// Batches committed together. A commit takes milliseconds, so the group closes long before 200 ms.
const MAX_GROUP: usize = 256;
/// How often old days are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// Blocks are joined until they hold this many records.
const JOINED_RECORDS: usize = 65_536;
/// Blocks of fewer records than the first number are joined once there are as many as the second.
const TIERS: [(usize, usize); 2] = [(1_024, 12), (JOINED_RECORDS / 4, 8)];
/// A sealing that fails is tried again after this; what is acknowledged stays in the log meanwhile.
const RETRY: Duration = Duration::from_secs(1);
/// Records in memory above which nothing more is acknowledged while sealing keeps failing.
const MAX_OPEN_RECORDS: usize = 262_144;

pub(super) struct Writer {
    store: Store,
    options: StoreOptions,
    clock: Clock,
    next_seq: i64,
    last_applied: i64,
    day: String,
    open_records: usize,
    seal_at: Option<Instant>,
    /// Blocks that were joined into larger ones and that a query may still read.
    replaced: Vec<Arc<SealedBlock>>,
}

/// A batch that is in the log and not acknowledged yet.
struct Waiting {
    first: i64,
    records: usize,
    parts: Vec<Part>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Writer {
    pub(super) fn new(store: Store, options: StoreOptions, clock: Clock) -> Self {
        let (day, open_records) = (String::new(), 0);
        Self {
            store,
            options,
            clock,
            next_seq: 1,
            last_applied: 0,
            day,
            open_records,
            seal_at: None,
            replaced: Vec::new(),
        }
    }

    /// Puts what every file's log still holds into blocks of that file.
    pub(super) async fn recover(&mut self, replay: Replay) -> Result<(), StoreError> {
        for file in self.store.0.files.all() {
            self.recover_file(&file, replay).await?;
            self.next_seq = self.next_seq.max(file.last_seq().await? + 1);
        }
        let sealed = self.store.0.files.blocks(i64::MIN..i64::MAX).await?;
        self.last_applied = self.next_seq - 1;
        self.store.0.view.store(Arc::new(View { sealed: Arc::new(sealed), open: Arc::default() }));
        self.turn_day().await
    }

    async fn recover_file(&self, file: &Arc<DayFile>, replay: Replay) -> Result<(), StoreError> {
        file.forget_replaced().await?;
        let mut parts: Vec<Arc<Part>> = Vec::new();
        let mut records = 0;
        let entries = file.logged().await?;
        let last = entries.last().map(|entry| entry.seq);
        for entry in entries {
            match replay(&entry) {
                Ok(mut of_entry) => {
                    of_entry.iter_mut().for_each(|part| number(&mut part.block, entry.seq));
                    records += entry.records;
                    parts.extend(of_entry.into_iter().map(Arc::new));
                }
                Err(problem) => {
                    tracing::error!(
                        problem,
                        records = entry.records,
                        "a logged request cannot be read again"
                    );
                    self.store.0.metrics.dropped(DropReason::Damaged, entry.records as u64);
                }
            }
            if records >= self.options.seal_records || Some(entry.seq) == last {
                file.put(sealing(&std::mem::take(&mut parts), entry.seq)).await?;
                records = 0;
            }
        }
        Ok(())
    }

    pub(super) async fn run(mut self, mut incoming: mpsc::Receiver<Append>, stopping: Stopping) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut group = Vec::with_capacity(MAX_GROUP);
        let mut stopped = false;
        loop {
            let seal_at = self.seal_at.unwrap_or_else(|| Instant::now() + HOUSEKEEPING);
            tokio::select! {
                received = incoming.recv_many(&mut group, MAX_GROUP) => {
                    if received == 0 {
                        break;
                    }
                    self.commit(std::mem::take(&mut group)).await;
                }
                () = tokio::time::sleep_until(seal_at), if self.seal_at.is_some() => self.seal().await,
                _ = housekeeping.tick() => self.housekeep().await,
                () = stopping.cancelled(), if !stopped => {
                    // What is queued is still committed; nobody new is let in.
                    incoming.close();
                    stopped = true;
                }
            }
            if self.open_records >= self.options.seal_records {
                self.seal().await;
            }
        }
        self.seal().await;
    }

    /// Logs a group of batches in one transaction, shows them to queries, and only then acknowledges them.
    async fn commit(&mut self, group: Vec<Append>) {
        if self.open_records > MAX_OPEN_RECORDS {
            for append in group {
                self.store.0.metrics.dropped(DropReason::StoreFailed, append.batch.records as u64);
                let _ = append
                    .done
                    .send(Err(StoreError::Damaged("sealing fails; nothing more is taken".to_owned())));
            }
            return;
        }
        if let Err(error) = self.turn_day().await {
            tracing::error!(error = %chain(&error), "cannot turn to a new day's file");
        }
        let mut entries = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        let mut next = self.next_seq;
        for Append { batch, done } in group {
            let records = batch.records.max(1);
            entries.push(LogEntry {
                seq: next,
                signal: batch.signal,
                records,
                received_ns: batch.received_ns,
                request: batch.request,
            });
            waiting.push(Waiting { first: next, records: batch.records, parts: batch.parts, done });
            next += i64::try_from(records).unwrap_or(i64::MAX / 2);
        }
        match self.store.0.files.log(&entries).await {
            Ok(()) => {
                self.last_applied = entries.last().map_or(self.last_applied, |entry| entry.seq);
                self.next_seq = next;
                self.apply(waiting);
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot write the log, the requests are refused");
                for Waiting { records, done, .. } in waiting {
                    self.store.0.metrics.dropped(DropReason::StoreFailed, records as u64);
                    let _ = done.send(Err(StoreError::Damaged("the log cannot be written".to_owned())));
                }
            }
        }
    }

    fn apply(&mut self, waiting: Vec<Waiting>) {
        let view = self.store.view();
        let mut open = Vec::clone(&view.open);
        let now = self.clock.unix_nanos();
        let mut acknowledged = Vec::with_capacity(waiting.len());
        for Waiting { first, records, parts, done } in waiting {
            self.open_records += records;
            for mut part in parts {
                number(&mut part.block, first);
                self.store.0.metrics.stored(part.kind, part.block.rows as u64, now, part.tmax);
                open.push(Arc::new(part));
            }
            acknowledged.push(done);
        }
        let new_from = view.open.len();
        let open = Arc::new(open);
        self.store.0.view.store(Arc::new(View { sealed: Arc::clone(&view.sealed), open: Arc::clone(&open) }));
        if self.seal_at.is_none() && !open.is_empty() {
            self.seal_at = Some(Instant::now() + self.options.seal_after);
        }
        for done in acknowledged {
            // Whoever sent it may have gone; it is stored all the same.
            let _ = done.send(Ok(()));
        }
        for part in open[new_from..].iter().filter(|part| part.kind == Kind::Access) {
            // Nobody may be listening.
            let _ = self.store.0.live.send(Arc::clone(part));
        }
    }

    async fn seal(&mut self) {
        self.seal_at = None;
        let view = self.store.view();
        if view.open.is_empty() {
            return;
        }
        match self.store.0.files.put_blocks(sealing(&view.open, self.last_applied)).await {
            Ok(blocks) => {
                let mut sealed = Vec::clone(&view.sealed);
                sealed.extend(blocks);
                self.store.0.view.store(Arc::new(View { sealed: Arc::new(sealed), open: Arc::default() }));
                self.open_records = 0;
                if let Err(error) = self.join_small().await {
                    tracing::warn!(error = %chain(&error), "cannot join small blocks");
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot seal a block, trying again");
                self.seal_at = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Joins small blocks of the newest day: many small ones cost space and reading time.
    async fn join_small(&mut self) -> Result<(), StoreError> {
        self.forget_replaced().await?;
        for kind in Kind::ALL {
            for (below, at_least) in TIERS {
                let view = self.store.view();
                let small: Vec<Arc<SealedBlock>> = view
                    .sealed
                    .iter()
                    .filter(|b| b.kind == kind && b.file.day == self.day && b.rows < below)
                    .take(at_least)
                    .cloned()
                    .collect();
                if small.len() < at_least {
                    continue;
                }
                let mut blocks = Vec::new();
                for block in &small {
                    let columns = self.store.0.files.columns(block, &[]).await?;
                    let columns =
                        columns.ok_or_else(|| StoreError::Damaged("a block without columns".to_owned()))?;
                    blocks.push(Block { rows: block.rows, columns: columns.into_iter().collect() });
                }
                let file = &small[0].file;
                let rollup =
                    if kind == Kind::Access { file.rollup_of(&small).await? } else { Rollup::default() };
                let joined = tokio::task::spawn_blocking(move || join(&blocks.iter().collect::<Vec<_>>()))
                    .await
                    .map_err(|_| StoreError::Stopping)?;
                // Nothing in the log is covered by joining what is sealed already.
                let sealing =
                    Sealing { blocks: vec![(kind, joined)], rollup, up_to_seq: 0, replaces: small.clone() };
                let joined = self.store.0.files.put_blocks(sealing).await?;
                let mut sealed: Vec<_> = view
                    .sealed
                    .iter()
                    .filter(|b| !small.iter().any(|s| Arc::ptr_eq(s, b)))
                    .cloned()
                    .collect();
                sealed.extend(joined);
                self.store
                    .0
                    .view
                    .store(Arc::new(View { sealed: Arc::new(sealed), open: Arc::clone(&view.open) }));
                drop(view);
                self.replaced.extend(small);
            }
        }
        Ok(())
    }

    /// Deletes the columns of replaced blocks that no query holds any more.
    async fn forget_replaced(&mut self) -> Result<(), StoreError> {
        let (free, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.replaced).into_iter().partition(|b| Arc::strong_count(b) == 1);
        self.replaced = held;
        for block in free {
            block.file.forget(block.id).await?;
        }
        Ok(())
    }

    async fn turn_day(&mut self) -> Result<(), StoreError> {
        let today = day_of(self.clock.unix_nanos());
        // A clock that jumps back must not reopen yesterday: the newest file is the one that is written.
        if today > self.day {
            if !self.day.is_empty() {
                self.seal().await;
            }
            self.store.0.files.turn_to(&today).await?;
            self.day = today;
        }
        Ok(())
    }

    async fn housekeep(&mut self) {
        let keep_ns = u64::from(self.options.keep_days) * 86_400_000_000_000;
        let oldest = day_of(self.clock.unix_nanos().saturating_sub(keep_ns));
        let fits = self.store.0.files.first_day_that_fits(self.options.max_bytes);
        let before = fits.map_or_else(|| oldest.clone(), |day| day.max(oldest.clone())).min(self.day.clone());
        let view = self.store.view();
        let kept: Vec<_> = view.sealed.iter().filter(|block| block.file.day >= before).cloned().collect();
        if kept.len() < view.sealed.len() {
            self.store.0.view.store(Arc::new(View { sealed: Arc::new(kept), open: Arc::clone(&view.open) }));
        }
        match self.store.0.files.delete_before(&before).await {
            Ok(0) => {}
            Ok(days) => tracing::info!(days, before, "deleted old telemetry"),
            Err(error) => tracing::error!(error = %chain(&error), "cannot delete old telemetry"),
        }
    }
}

/// Gives the records of a batch their numbers.
fn number(block: &mut Block, first: i64) {
    if let Some(Column::Ints(seqs)) = block.columns.get_mut(names::SEQ) {
        seqs.iter_mut().for_each(|seq| *seq += first);
    }
}

fn sealing(parts: &[Arc<Part>], up_to_seq: i64) -> Sealing {
    let mut rollup = Rollup::default();
    parts.iter().for_each(|part| rollup.merge(&part.rollup));
    let blocks = Kind::ALL
        .into_iter()
        .filter_map(|kind| {
            let of_kind: Vec<&Block> =
                parts.iter().filter(|part| part.kind == kind).map(|part| &part.block).collect();
            (!of_kind.is_empty()).then(|| (kind, join(&of_kind)))
        })
        .collect();
    Sealing { blocks, rollup, up_to_seq, replaces: Vec::new() }
}

fn day_of(unix_nanos: u64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
