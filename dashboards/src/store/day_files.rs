//! All day files together: the [`SegmentStore`] on SQLite.
//!
//! A block lies in the file of the day it was received on. Retention deletes whole files and never rewrites one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::column::Column;
use super::day_file::DayFile;
use super::segment::{LogEntry, SealedBlock, Sealing, SegmentStore, StoreError};

#[derive(Debug)]
pub(crate) struct DayFiles {
    dir: PathBuf,
    durable: bool,
    files: RwLock<BTreeMap<String, Arc<DayFile>>>,
}

impl DayFiles {
    /// Opens every day's file in `dir`.
    pub(crate) async fn open(dir: &Path, durable: bool) -> Result<Self, StoreError> {
        let failed = |what| move |source| StoreError::File { what, source };
        // Records name people and paths: the folder is its owner's alone.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("cannot create its folder"))?;
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(failed("cannot list its folder"))? {
            let name = entry.map_err(failed("cannot list its folder"))?.file_name();
            let Some(day) = name.to_str().and_then(|name| name.strip_suffix(".db")) else { continue };
            if day.parse::<jiff::civil::Date>().is_ok() {
                files.insert(day.to_owned(), DayFile::open(dir, day, durable).await?);
            }
        }
        Ok(Self { dir: dir.to_owned(), durable, files: RwLock::new(files) })
    }

    /// Makes `day` the file that is written to.
    pub(crate) async fn turn_to(&self, day: &str) -> Result<(), StoreError> {
        if !self.files.read().contains_key(day) {
            let file = DayFile::open(&self.dir, day, self.durable).await?;
            self.files.write().insert(day.to_owned(), file);
        }
        Ok(())
    }

    /// Oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<DayFile>> {
        self.files.read().values().cloned().collect()
    }

    fn newest(&self) -> Result<Arc<DayFile>, StoreError> {
        self.files.read().values().next_back().cloned().ok_or(StoreError::Stopping)
    }

    /// Days that must go so that the rest fits into `max_bytes`; the newest never does.
    pub(crate) fn first_day_that_fits(&self, max_bytes: u64) -> Option<String> {
        let mut sum = 0u64;
        let files = self.all();
        for (number, file) in files.iter().enumerate().rev() {
            sum = sum.saturating_add(file.size());
            if sum > max_bytes {
                return files.get((number + 1).min(files.len() - 1)).map(|file| file.day.clone());
            }
        }
        None
    }
}

impl SegmentStore for DayFiles {
    async fn log(&self, entries: &[LogEntry]) -> Result<(), StoreError> {
        self.newest()?.log(entries).await
    }

    async fn put_blocks(&self, sealing: Sealing) -> Result<Vec<Arc<SealedBlock>>, StoreError> {
        match sealing.replaces.first().map(|block| Arc::clone(&block.file)) {
            Some(file) => file.put(sealing).await,
            None => self.newest()?.put(sealing).await,
        }
    }

    async fn blocks(&self, range: Range<i64>) -> Result<Vec<Arc<SealedBlock>>, StoreError> {
        let mut blocks = Vec::new();
        for file in self.all() {
            let of_file = file.blocks().await?;
            blocks.extend(of_file.into_iter().filter(|b| b.tmin < range.end && b.tmax >= range.start));
        }
        Ok(blocks)
    }

    async fn columns(
        &self,
        block: &SealedBlock,
        names: &[&str],
    ) -> Result<Option<Vec<(String, Column)>>, StoreError> {
        block.file.columns(block, names).await
    }

    async fn delete_before(&self, day: &str) -> Result<usize, StoreError> {
        let old: Vec<Arc<DayFile>> = {
            let mut files = self.files.write();
            let kept = files.split_off(day);
            std::mem::replace(&mut *files, kept).into_values().collect()
        };
        for file in &old {
            file.delete().await?;
        }
        Ok(old.len())
    }
}
