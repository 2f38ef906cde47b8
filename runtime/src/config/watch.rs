//! Notices that files changed: written in place, replaced by rename, or a symlink that moved.
//!
//! It looks every half second instead of asking the kernel for events: that costs a few `stat`
//! calls, works on every file system, and sees the symlink swap by which Kubernetes updates mounts.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Service;

const LOOK_EVERY: Duration = Duration::from_millis(500);

type Print = Vec<(PathBuf, PathBuf, u64, u64, i64, i64)>;

/// Files are watched until this is dropped.
#[derive(Debug)]
pub struct FileWatch {
    _ends: DropGuard,
}

/// Calls `on_change` after any of `paths` (files or folders) changed, and on SIGHUP.
pub fn watch_files<F>(service: &Service, paths: Vec<PathBuf>, on_change: F)
where
    F: FnMut() + Send + 'static,
{
    watch(service, paths, on_change, CancellationToken::new());
}

/// As [`watch_files`], for as long as the answer lives.
pub fn watch_files_while<F>(service: &Service, paths: Vec<PathBuf>, on_change: F) -> FileWatch
where
    F: FnMut() + Send + 'static,
{
    let ended = CancellationToken::new();
    watch(service, paths, on_change, ended.clone());
    FileWatch { _ends: ended.drop_guard() }
}

fn watch<F>(service: &Service, paths: Vec<PathBuf>, mut on_change: F, ended: CancellationToken)
where
    F: FnMut() + Send + 'static,
{
    let stopping = service.tasks().stopping();
    let mut seen = print_of(&paths);
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    service.tasks().spawn("watch-files", async move {
        loop {
            let asked = tokio::select! {
                () = stopping.cancelled() => return,
                () = ended.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => false,
                () = next_hangup(&mut hangup) => true,
            };
            let now = print_of(&paths);
            if asked || now != seen {
                seen = now;
                on_change();
            }
        }
    });
}

async fn next_hangup(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// What a change of content or of identity would alter.
fn print_of(paths: &[PathBuf]) -> Print {
    let mut print = Print::new();
    for path in paths {
        add(path, &mut print);
        if let Ok(entries) = std::fs::read_dir(path) {
            for entry in entries.flatten() {
                add(&entry.path(), &mut print);
            }
        }
    }
    print.sort();
    print
}

fn add(path: &Path, print: &mut Print) {
    let target = path.canonicalize().unwrap_or_default();
    if let Ok(meta) = std::fs::metadata(path) {
        print.push(entry(path, target, &meta));
    }
}

fn entry(path: &Path, target: PathBuf, meta: &Metadata) -> (PathBuf, PathBuf, u64, u64, i64, i64) {
    (path.to_owned(), target, meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}
