//! Endpoints in a file: a YAML list, read again when it changes. A bad file keeps the old endpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::super::Cluster;
use crate::config::Endpoint;

const EVERY: Duration = Duration::from_millis(500);
/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Reads the file until the cluster is closed.
pub(in super::super) async fn run(cluster: Arc<Cluster>, file: PathBuf) {
    let mut seen = None;
    loop {
        match read(&file).await {
            Ok(text) if seen.as_ref() == Some(&text) => {}
            Ok(text) => {
                match tollgate_runtime::config::parse_yaml::<Vec<Endpoint>>(&file, &text) {
                    Ok(endpoints) => cluster.consist_of(&endpoints),
                    Err(error) => cluster.not_discovered(error.to_string()),
                }
                seen = Some(text);
            }
            Err(error) => cluster.not_discovered(format!("{}: {error}", file.display())),
        }
        tokio::select! {
            () = cluster.closed() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    tokio::fs::File::open(file).await?.take(MAX_FILE).read_to_string(&mut text).await?;
    Ok(text)
}
