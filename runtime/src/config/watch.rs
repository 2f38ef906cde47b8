//! Notices that files changed: written in place, replaced by rename, or a symlink that moved.
//!
//! It looks every half second instead of asking the kernel for events: that costs a few `stat`
//! calls, works on every file system, and sees the symlink swap by which Kubernetes updates mounts. Whoever writes in place,
//! or one file after the other, is given the time to finish.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Service;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Files that have not changed for so long are written to their end.
const SETTLES: Duration = Duration::from_millis(50);
/// After so many looks they are taken as they are.
const LOOKS: u32 = 20;

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
            let mut now = print_of(&paths);
            if asked || now != seen {
                if !asked {
                    now = tokio::select! {
                        () = stopping.cancelled() => return,
                        () = ended.cancelled() => return,
                        now = settled(&paths, now) => now,
                    };
                }
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

/// The files once nobody writes them any more.
async fn settled(paths: &[PathBuf], mut now: Print) -> Print {
    for _ in 0..LOOKS {
        tokio::time::sleep(SETTLES).await;
        let later = print_of(paths);
        if later == now {
            break;
        }
        now = later;
    }
    now
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_when_it_is_written_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "whole").unwrap();
        let service = Service::for_test("watch");
        let (tell, mut told) = tokio::sync::mpsc::channel(16);
        let read = file.clone();
        watch_files(&service, vec![file.clone()], move || {
            tell.try_send(std::fs::read_to_string(&read).unwrap()).unwrap();
        });
        // A piece at a time, over the look that finds the first of them.
        tokio::time::sleep(LOOK_EVERY - SETTLES).await;
        for written in ["", "a", "a n", "a new", "a new o", "a new one"] {
            std::fs::write(&file, written).unwrap();
            tokio::time::sleep(SETTLES / 2).await;
        }
        assert_eq!(told.recv().await.unwrap(), "a new one");
        // One that never rests is not waited for.
        let began = tokio::time::Instant::now();
        for length in 0.. {
            std::fs::write(&file, "x".repeat(length)).unwrap();
            tokio::time::sleep(SETTLES / 2).await;
            if told.try_recv().is_ok() {
                break;
            }
        }
        assert!(began.elapsed() <= 2 * LOOK_EVERY + SETTLES * LOOKS, "{:?}", began.elapsed());
    }
}
