//! Keeps fetched key sets current, in the background and for tokens that name a key we do not know.
//!
//! A new set goes into the database first and comes back with the next snapshot, so that all
//! replicas verify with the same keys. While an issuer is away its last keys stay in use.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::tasks::{Stopping, Tasks};

use super::KeySet;
use super::source::KeySource;
use crate::metrics::Metrics;
use crate::policy::SnapshotCell;
use crate::store::{FetchedKeys, Store};
use crate::token::{KeyOrigin, TrustedIssuer};

/// How often the refresher looks whether a set is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long a new set may take to come back with a snapshot.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// More issuers than this share their turns.
const MAX_REMEMBERED: usize = 4096;

/// When sets are fetched.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How old a set may get before it is fetched again.
    pub refresh: Duration,
    /// The least time between two fetches from one issuer.
    pub min_interval: Duration,
}

/// Fetches key sets; cheap to clone.
#[derive(Clone)]
pub struct KeyRefresh(Arc<Inner>);

struct Inner {
    store: Store,
    cell: Arc<SnapshotCell>,
    source: Arc<dyn KeySource>,
    schedule: Schedule,
    clock: Clock,
    tasks: Tasks,
    metrics: Metrics,
    /// One turnstile an issuer: whoever comes while another fetches waits for that one's result, in its own task, so
    /// that a flood of invented keys leaves no tasks behind.
    turns: Mutex<FxHashMap<Arc<str>, Turn>>,
}

type Turn = Arc<tokio::sync::Mutex<Option<Instant>>>;

impl std::fmt::Debug for KeyRefresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRefresh").field("schedule", &self.0.schedule).finish_non_exhaustive()
    }
}

impl KeyRefresh {
    /// Puts the parts together; nothing runs yet.
    pub fn new(
        store: Store,
        cell: Arc<SnapshotCell>,
        source: Arc<dyn KeySource>,
        schedule: Schedule,
        (clock, tasks, metrics): (Clock, Tasks, Metrics),
    ) -> Self {
        let turns = Mutex::default();
        Self(Arc::new(Inner { store, cell, source, schedule, clock, tasks, metrics, turns }))
    }

    /// Fetches what is due until the service stops.
    pub async fn run(self, stopping: Stopping) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = self.0.clock.unix_seconds().cast_signed();
            let due = i64::try_from(self.0.schedule.refresh.as_secs()).unwrap_or(i64::MAX);
            let snapshot = self.0.cell.load_full();
            for trusted in snapshot.issuers() {
                if matches!(trusted.issuer.keys, KeyOrigin::Fetched(_)) && trusted.keys_age(now) >= due {
                    self.refetch(trusted).await;
                }
            }
        }
    }

    /// Fetches now, unless that was done just before. Afterwards the snapshot has what the issuer has.
    ///
    /// The fetch goes on when the caller gives up: the next token with this key will need it too.
    pub async fn refetch(&self, trusted: &Arc<TrustedIssuer>) {
        if !matches!(trusted.issuer.keys, KeyOrigin::Fetched(_)) {
            return;
        }
        let turn = self.turn(&trusted.issuer.name);
        let Ok(mut last) = Arc::clone(&turn).try_lock_owned() else {
            // Somebody is fetching already; what that brings is as new as what we could fetch.
            drop(turn.lock().await);
            return;
        };
        if last.is_some_and(|at| at.elapsed() < self.0.schedule.min_interval) {
            return;
        }
        let (this, trusted) = (self.clone(), Arc::clone(trusted));
        let fetching = self.0.tasks.spawn("keys-refetch", async move {
            this.fetch_and_count(&trusted).await;
            *last = Some(Instant::now());
        });
        // Only a panic or the end of the service can come between; then there is nothing new.
        let _ = fetching.await;
    }

    async fn fetch_and_count(&self, trusted: &TrustedIssuer) {
        match self.fetch(trusted).await {
            Ok(outcome) => self.0.metrics.keys_refreshed(outcome),
            Err(error) => {
                self.0.metrics.keys_refreshed("failed");
                let issuer = &*trusted.issuer.name;
                tracing::warn!(issuer, error = format!("{error:#}"), "cannot refresh the issuer's keys");
            }
        }
    }

    async fn fetch(&self, trusted: &TrustedIssuer) -> anyhow::Result<&'static str> {
        let KeyOrigin::Fetched(url) = &trusted.issuer.keys else { return Ok("unchanged") };
        let body = self.0.source.fetch(url.clone()).await?;
        KeySet::parse_text(&body).map_err(anyhow::Error::msg)?;
        let now = self.0.clock.unix_seconds().cast_signed();
        let issuer = trusted.issuer.name.to_string();
        let jwks = String::from_utf8(body)?;
        let known = self.0.store.keys_of(&issuer).await?;
        if known.is_some_and(|known| known.jwks == jwks && known.url == url.as_str()) {
            self.0.store.confirm_keys(&issuer, now).await?;
            if let Some(confirmed) = &trusted.confirmed {
                confirmed.fetch_max(now, Ordering::Relaxed);
            }
            return Ok("unchanged");
        }
        let keys = FetchedKeys { issuer, url: url.to_string(), jwks, confirmed_at: now };
        let epoch = self.0.store.put_keys(&keys).await?;
        let mut applied = self.0.cell.watch();
        let in_force = applied.wait_for(|current| *current >= epoch);
        tokio::time::timeout(APPLY_TIMEOUT, in_force).await.ok();
        Ok("changed")
    }

    fn turn(&self, issuer: &Arc<str>) -> Turn {
        let mut turns = self.0.turns.lock();
        if turns.len() >= MAX_REMEMBERED {
            turns.clear();
        }
        Arc::clone(turns.entry(Arc::clone(issuer)).or_default())
    }
}
