//! All divided limits, and the streams their shares are told over.
//!
//! ```text
//! report --> division (by counter) --> who must be told --> outbox of each stream --> taken by its writer
//!                 ^---------------------- delivered: what was taken away is free ----------'
//! ```
//!
//! An outbox holds one entry a bucket, whose content is looked up when it is taken: a reader that is slow finds the
//! latest assignment, never a queue of old ones. One lock guards all of it, held for one bucket at a time.

mod standing;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;

use super::division::{Policy, Usage};
use crate::limiter::Limiter;
use crate::metrics::QuotaMetrics;
pub use standing::{ShareOf, Standing};
pub use state::{BucketId, Claim, StreamId};
use state::{Pending, State, Told};

/// Streams at once; a further one is refused.
pub const MAX_STREAMS: usize = 10_000;
/// Buckets one stream may report; further ones get no assignment.
pub const MAX_BUCKETS_PER_STREAM: usize = 10_000;
/// Divided limits at once.
pub const MAX_DIVISIONS: usize = 200_000;
/// Assignments in one message.
const MAX_ACTIONS: usize = 256;
/// How often time alone is looked at: expiries, tokens that came back, buckets nobody uses.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Divisions looked at each time; the others have their turn next.
const LOOK_AT: usize = 10_000;
/// A bucket nobody wanted anything of for so long is abandoned.
const IDLE_US: u64 = 120_000_000;

/// How shares are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long an assignment lives.
    pub ttl: Duration,
    /// Whether a lost stream's share is handed out at once.
    pub reclaim_at_once: bool,
}

/// The divided limits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    limiter: Limiter,
    clock: Clock,
    policy: Policy,
    metrics: QuotaMetrics,
    /// Somebody joined a limit whose share of ours is not known yet.
    unshared: Notify,
}

/// What one stream is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The bucket.
    pub bucket: Arc<BucketId>,
    /// What holds for it.
    pub what: What,
}

/// What holds for a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Everything passes.
    AllowAll,
    /// Nothing does.
    DenyAll,
    /// A token bucket.
    Tokens { max: u32, per_fill: u32, fill_seconds: u32 },
    /// The bucket is to be forgotten.
    Abandon,
}

impl Hub {
    /// Begins with no streams. For one lifetime of an assignment it learns what an earlier run handed out.
    pub fn new(
        limiter: Limiter,
        settings: Settings,
        shared: bool,
        clock: Clock,
        metrics: QuotaMetrics,
    ) -> Self {
        let ttl_us = u64::try_from(settings.ttl.as_micros()).unwrap_or(u64::MAX);
        let policy = Policy {
            ttl_us,
            reclaim_at_once: settings.reclaim_at_once,
            learning_until_us: (clock.unix_nanos() / 1_000).saturating_add(ttl_us),
        };
        let state = Mutex::new(State::new(shared));
        Self(Arc::new(Inner { state, limiter, clock, policy, metrics, unshared: Notify::new() }))
    }

    /// Starts the task that looks at what time alone changes.
    pub fn keep_current(&self, service: &Service) {
        let (hub, stopping) = (self.clone(), service.tasks().stopping());
        service.tasks().spawn_essential("quota-look", async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => hub.look(),
                }
            }
        });
    }

    /// How long an assignment lives.
    pub fn ttl(&self) -> Duration {
        Duration::from_micros(self.0.policy.ttl_us)
    }

    fn now_us(&self) -> u64 {
        self.0.clock.unix_nanos() / 1_000
    }

    /// A stream begins. `name` is the client's own, which lets it find its share again on another stream.
    pub fn open(&self, name: Option<&str>) -> Option<(StreamId, Arc<Notify>)> {
        let mut state = self.0.state.lock();
        let opened = state.open(name, MAX_STREAMS);
        self.0.metrics.sized(state.streams(), state.divisions());
        opened
    }

    /// A stream reports what passed and what did not.
    pub fn report(&self, stream: StreamId, domain: &str, bucket: BucketId, usage: Usage) {
        let now_us = self.now_us();
        let limits = self.0.limiter.limits();
        self.0.metrics.reported(usage.allowed, usage.denied);
        let mut state = self.0.state.lock();
        let joined = state.report(stream, domain, bucket, usage, &limits, &self.0.policy, now_us);
        match joined {
            state::Joined::Known => {}
            state::Joined::New { shared } => {
                self.0.metrics.sized(state.streams(), state.divisions());
                if shared {
                    self.0.unshared.notify_one();
                }
            }
            state::Joined::NoRule | state::Joined::TooMany => self.0.metrics.unassigned(),
        }
    }

    /// What the stream is to be told now; empty if nothing.
    pub fn take(&self, stream: StreamId) -> Vec<Assignment> {
        let now_us = self.now_us();
        self.0.state.lock().take(stream, MAX_ACTIONS, &self.0.policy, now_us)
    }

    /// Whether there is something to tell the stream.
    pub fn has_news(&self, stream: StreamId) -> bool {
        self.0.state.lock().has_news(stream)
    }

    /// The stream ended: by the client's word, which gives its shares back, or by a break.
    pub fn close(&self, stream: StreamId, given_back: bool) {
        let now_us = self.now_us();
        let mut state = self.0.state.lock();
        state.close(stream, given_back, &self.0.policy, now_us);
        self.0.metrics.sized(state.streams(), state.divisions());
    }

    /// The limits files changed.
    pub fn limits_changed(&self) {
        let (limits, now_us) = (self.0.limiter.limits(), self.now_us());
        let keys = self.0.state.lock().keys();
        for key in keys {
            self.0.state.lock().apply_limits(&key, &limits, &self.0.policy, now_us);
        }
        self.0.unshared.notify_one();
    }

    /// How every divided limit of this replica stands.
    pub fn standings(&self, most: usize) -> Vec<Standing> {
        self.0.state.lock().standings(most)
    }

    /// What this replica uses and wants of each divided limit, for sharing with others.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.0.state.lock().claims()
    }

    /// Of this limit so many units are this replica's now; `is_fresh` says that nobody had any before.
    pub(super) fn share(&self, key: &[u8], units: u32, is_fresh: bool) {
        let now_us = self.now_us();
        self.0.state.lock().share(key, units, is_fresh, &self.0.policy, now_us);
    }

    /// Returns when somebody waits to know this replica's share.
    pub(super) async fn unshared(&self) {
        self.0.unshared.notified().await;
    }

    fn look(&self) {
        let now_us = self.now_us();
        let mut turn: VecDeque<_> = self.0.state.lock().turn(LOOK_AT);
        let mut over = 0.0;
        while let Some(key) = turn.pop_front() {
            let mut state = self.0.state.lock();
            over += state.look(&key, IDLE_US, &self.0.policy, now_us);
        }
        self.0.metrics.over_admitted(over as u64);
    }
}

impl Told {
    /// As the wire has it. Envoy takes a bucket for unchanged whose interval alone differs, so then a unit is left out.
    fn what(self, before: Option<Self>) -> What {
        let Self { share, fill_seconds, enforced } = self;
        if !enforced {
            return What::AllowAll;
        }
        if share.units == 0 {
            return What::DenyAll;
        }
        let looks_unchanged = before.is_some_and(|before| {
            before.share == share && before.enforced && before.fill_seconds != fill_seconds
        });
        let (max, per_fill) = match looks_unchanged {
            true if share.units > 1 => (share.burst, share.units - 1),
            true => (share.burst.saturating_sub(1).max(1), share.units),
            false => (share.burst, share.units),
        };
        What::Tokens { max, per_fill, fill_seconds }
    }
}

impl Pending {
    /// An abandoned bucket is not assigned to any more.
    fn or_later(self, later: Self) -> Self {
        if self == Self::Abandon { self } else { later }
    }
}

#[cfg(test)]
mod tests;
