//! Keeps fetched key sets current, in the background and for tokens that name a key we do not know.
//!
//! ```text
//! fresh ──(its time is over, or a token names an unknown key)──> fetching ──> fresh
//!                                                                   └──(failed)──> the last keys stay, try again
//! ```
//!
//! A new set goes into the database first and comes back with the next snapshot, so that all
//! replicas verify with the same keys. While an issuer is away its last keys stay in use.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tollgate_runtime::clock::Clock;
use tollgate_runtime::tasks::{Stopping, Tasks};

use super::absent::AbsentKeys;
use super::source::{Document, KeySource};
use super::{Freshness, KeySet, discovery};
use crate::metrics::Metrics;
use crate::policy::SnapshotCell;
use crate::store::{FetchedKeys, Store};
use crate::token::{KeyOrigin, TrustedIssuer};

/// How often the refresher looks whether a set is due.
const LOOK: Duration = Duration::from_secs(1);
/// How many issuers are asked at once in the background.
const AT_ONCE: usize = 8;
/// How long a new set may take to come back with a snapshot.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// More issuers than this share their turns.
const MAX_REMEMBERED: usize = 4096;

/// When sets are fetched.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How old a set may get before it is fetched again.
    pub freshness: Freshness,
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
    absent: Mutex<AbsentKeys>,
}

type Turn = Arc<tokio::sync::Mutex<LastFetch>>;

/// What came of the last fetch from an issuer.
#[derive(Debug, Default)]
struct LastFetch {
    at: Option<Instant>,
    /// For how long the set is fresh, if the fetch brought one.
    lasts: Option<Duration>,
}

/// What a fetch brought.
struct Brought {
    outcome: &'static str,
    keys: KeySet,
    lasts: Duration,
}

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
        let (turns, absent) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { store, cell, source, schedule, clock, tasks, metrics, turns, absent }))
    }

    /// Fetches what is due until the service stops.
    pub async fn run(self, stopping: Stopping) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = self.0.clock.unix_seconds().cast_signed();
            let snapshot = self.0.cell.load_full();
            let due = snapshot.issuers().filter(|trusted| self.is_due(trusted, now)).map(Arc::clone);
            // One slow issuer holds up its neighbours only if there are many of them.
            let this = &self;
            futures_util::stream::iter(due.collect::<Vec<_>>())
                .for_each_concurrent(AT_ONCE, |trusted| async move { this.refetch(&trusted, None).await })
                .await;
        }
    }

    fn is_due(&self, trusted: &TrustedIssuer, now: i64) -> bool {
        if trusted.issuer.keys.address().is_none() {
            return false;
        }
        // Whoever holds the turn is fetching at this moment.
        let turn = self.turn(&trusted.issuer.name);
        let Ok(last) = turn.try_lock() else { return false };
        let lasts = last.lasts.unwrap_or(self.0.schedule.freshness.default);
        trusted.keys_age(now) >= i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX)
    }

    /// Fetches now, unless that was done just before. Afterwards the snapshot has what the issuer has. `kid` is the key
    /// for which it is done; an issuer that has just said that it has no such key is not asked for it again.
    ///
    /// The fetch goes on when the caller gives up: the next token with this key will need it too.
    pub async fn refetch(&self, trusted: &Arc<TrustedIssuer>, kid: Option<&str>) {
        let name = &trusted.issuer.name;
        let known_absent = |kid| self.0.absent.lock().contains(name, kid, Instant::now());
        if trusted.issuer.keys.address().is_none() || kid.is_some_and(known_absent) {
            return;
        }
        let turn = self.turn(name);
        let Ok(mut last) = Arc::clone(&turn).try_lock_owned() else {
            // Somebody is fetching already; what that brings is as new as what we could fetch.
            drop(turn.lock().await);
            return;
        };
        if last.at.is_some_and(|at| at.elapsed() < self.0.schedule.min_interval) {
            return;
        }
        let (this, trusted, kid) = (self.clone(), Arc::clone(trusted), kid.map(str::to_owned));
        let fetching = self.0.tasks.spawn("keys-refetch", async move {
            let brought = this.fetch_and_count(&trusted).await;
            *last = LastFetch { at: Some(Instant::now()), lasts: brought.as_ref().map(|b| b.lasts) };
            if let (Some(brought), Some(kid)) = (brought, kid)
                && !brought.keys.has(&kid)
            {
                this.0.absent.lock().insert(&trusted.issuer.name, &kid, Instant::now());
            }
        });
        // Only a panic or the end of the service can come between; then there is nothing new.
        let _ = fetching.await;
    }

    async fn fetch_and_count(&self, trusted: &TrustedIssuer) -> Option<Brought> {
        match self.fetch(trusted).await {
            Ok(brought) => {
                self.0.metrics.keys_refreshed(brought.outcome);
                Some(brought)
            }
            Err(error) => {
                self.0.metrics.keys_refreshed("failed");
                let issuer = &*trusted.issuer.name;
                tracing::warn!(
                    issuer,
                    error = format!("{error:#}"),
                    "cannot refresh the issuer's keys; the last ones stay in use"
                );
                None
            }
        }
    }

    async fn fetch(&self, trusted: &TrustedIssuer) -> anyhow::Result<Brought> {
        let (url, document) = self.document(trusted).await?;
        let keys = KeySet::parse_text(&document.body).map_err(anyhow::Error::msg)?;
        let lasts = self.0.schedule.freshness;
        let lasts = lasts.lasts(document.cache_control.as_deref(), document.age.as_deref());
        let now = self.0.clock.unix_seconds().cast_signed();
        let issuer = trusted.issuer.name.to_string();
        let jwks = String::from_utf8(document.body)?;
        let known = self.0.store.keys_of(&issuer).await?;
        if known.is_some_and(|known| known.jwks == jwks && known.url == url) {
            self.0.store.confirm_keys(&issuer, now).await?;
            if let Some(confirmed) = &trusted.confirmed {
                confirmed.fetch_max(now, Ordering::Relaxed);
            }
            return Ok(Brought { outcome: "unchanged", keys, lasts });
        }
        let epoch = self.0.store.put_keys(&FetchedKeys { issuer, url, jwks, confirmed_at: now }).await?;
        let mut applied = self.0.cell.watch();
        let in_force = applied.wait_for(|current| *current >= epoch);
        tokio::time::timeout(APPLY_TIMEOUT, in_force).await.ok();
        Ok(Brought { outcome: "changed", keys, lasts })
    }

    /// The key set as text, and the address that the policy has for it.
    async fn document(&self, trusted: &TrustedIssuer) -> anyhow::Result<(String, Document)> {
        let source = &self.0.source;
        match &trusted.issuer.keys {
            KeyOrigin::Fetched(url) => Ok((url.to_string(), source.fetch(url.clone()).await?)),
            KeyOrigin::Discovered(url) => {
                let found = source.fetch(url.clone()).await?;
                let keys = discovery::keys_address(&found.body, &trusted.issuer.url);
                let keys = keys.map_err(anyhow::Error::msg)?;
                Ok((url.to_string(), source.fetch(keys).await?))
            }
            KeyOrigin::Inline(_) | KeyOrigin::Shared(_) => anyhow::bail!("these keys are not fetched"),
        }
    }

    fn turn(&self, issuer: &Arc<str>) -> Turn {
        let mut turns = self.0.turns.lock();
        if turns.len() >= MAX_REMEMBERED {
            turns.clear();
        }
        Arc::clone(turns.entry(Arc::clone(issuer)).or_default())
    }
}
