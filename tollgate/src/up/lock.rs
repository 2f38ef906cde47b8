//! One process at a time on a data folder.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context as _, bail};

/// Held while the mesh runs; the system gives it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder where needed and takes its lock.
    pub(super) fn take(data: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(data)
            .with_context(|| format!("cannot make the data folder {}", data.display()))?;
        let path = data.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another `tollgate up` runs on {}; stop it, or give this one its own folder with --data",
                    data.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_why_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another `tollgate up`"), "{error}");
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }
}
