//! From the database to the snapshot in force, now and whenever the epoch moves.
//!
//! Three things wake the follower: our own writes at once, PostgreSQL's notifications, and a poll that
//! catches whatever the others missed. A state that cannot be used leaves the snapshot as it is, whole.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tollgate_runtime::tasks::Stopping;

use super::load::next_snapshot;
use super::write::CHANNEL;
use super::{Store, StoreError};
use crate::metrics::Metrics;
use crate::policy::snapshot::SnapshotCell;

/// How often the epoch is read in any case.
const POLL: Duration = Duration::from_millis(500);
/// How long until a lost listener is tried again; the poll covers the time between.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Keeps the snapshot current until the service stops.
pub async fn follow(store: Store, cell: Arc<SnapshotCell>, metrics: Metrics, stopping: Stopping) {
    let mut written = store.inner.written.subscribe();
    let mut listener = Listener::new(&store);
    let mut refused = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = written.changed() => if changed.is_err() { return },
            () = listener.heard() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        catch_up(&store, &cell, &metrics, &mut refused).await;
    }
}

/// Loads when there is something new. A state that was refused is not tried again until it moves on.
async fn catch_up(store: &Store, cell: &SnapshotCell, metrics: &Metrics, refused: &mut Option<u64>) {
    let epoch = match store.epoch().await {
        Ok(epoch) => epoch,
        Err(error) => {
            metrics.reload_failed("database");
            tracing::warn!(
                error = chain(&error),
                "cannot read the policy's epoch; the snapshot stays as it is"
            );
            return;
        }
    };
    if epoch == cell.load().epoch || *refused == Some(epoch) {
        return;
    }
    let previous = cell.load_full();
    match next_snapshot(store, &previous).await {
        Ok(next) => {
            *refused = None;
            tracing::info!(epoch = next.epoch, services = next.service_count(), "policy in force");
            metrics.epoch(next.epoch);
            cell.swap(next);
        }
        Err(error) => {
            metrics.reload_failed(if matches!(error, StoreError::Query { .. }) {
                "database"
            } else {
                "invalid"
            });
            let kept = previous.epoch;
            tracing::error!(
                epoch,
                kept,
                error = chain(&error),
                "POLICY NOT LOADED; the old one stays in force"
            );
            if !matches!(error, StoreError::Query { .. }) {
                *refused = Some(epoch);
            }
        }
    }
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// PostgreSQL's notifications; of a file there are none.
struct Listener<'a> {
    store: &'a Store,
    connection: Option<PgListener>,
}

impl<'a> Listener<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, connection: None }
    }

    /// Ends when something was announced, or when it is time to look because a connection was made or lost.
    async fn heard(&mut self) {
        let Some(pool) = self.store.database().notifier() else { return std::future::pending().await };
        if let Some(connection) = &mut self.connection {
            if let Err(error) = connection.recv().await {
                tracing::warn!(%error, "no longer told of policy changes; polling");
                self.connection = None;
            }
            return;
        }
        let connected = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match connected.await {
            Ok(listener) => self.connection = Some(listener),
            Err(error) => {
                tracing::debug!(%error, "cannot listen for policy changes; polling");
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        }
    }
}
