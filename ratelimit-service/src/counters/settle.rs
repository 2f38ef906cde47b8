//! Replicas that share a store: how many there are, and settling with the store after it was away.
//!
//! Each replica says every few seconds that it is there, in one sorted set; who was silent for long is not counted.
//! What was counted locally during an outage is kept in a bounded journal and added to the store's counters when it
//! is back, so that an outage in the middle of a window grants no second allowance after it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;

use super::key::tag;
use super::{Batch, Counters, StoreError};
use crate::limits::{Algorithm, Limit, Mode};
use crate::window::{Hits, Tally};

/// How often a replica says that it is there, and looks whether there is something to settle.
const EVERY: Duration = Duration::from_secs(1);
/// A replica that was silent for so long is gone.
const GONE_AFTER_SECONDS: u64 = 15;
/// Counters the journal has room for; what does not fit is not settled.
const MAX_NOTED: usize = 100_000;
/// Counters settled in one command.
const AT_ONCE: usize = 128;

/// Adds itself with the server's time, drops who was silent, answers how many are left.
const PRESENCE: &str = "
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2] * 2)
return redis.call('ZCARD', KEYS[1])
";
const PRESENCE_KEY: &[u8] = b"tg:replicas";

/// What was counted here in the store's place.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<HashMap<Box<[u8]>, Noted>>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    limit: Limit,
    hits: u64,
    at_us: u64,
}

impl Journal {
    /// Notes what a call spent.
    pub(super) fn note(&self, batch: &Batch, tallies: &[Tally], now_us: u64) {
        let mut noted = self.0.lock();
        for ((key, counting), tally) in batch.iter().zip(tallies) {
            let Hits::Add(hits) = counting.hits else { continue };
            if tally.over && counting.limit.algorithm != Algorithm::FixedWindow {
                continue;
            }
            let fresh = Noted { limit: counting.limit, hits: 0, at_us: now_us };
            let has_room = noted.len() < MAX_NOTED;
            match noted.get_mut(key) {
                Some(one) => {
                    if !one.still_counts(now_us) {
                        *one = fresh;
                    }
                    one.hits = one.hits.saturating_add(hits);
                    one.at_us = now_us;
                }
                None if has_room => {
                    noted.insert(key.into(), Noted { hits, ..fresh });
                }
                None => {}
            }
        }
    }

    /// All that still matters, in pieces of a command's size.
    fn take(&self, now_us: u64) -> Vec<Arc<Batch>> {
        let taken = std::mem::take(&mut *self.0.lock());
        let mut live: Vec<_> = taken.into_iter().filter(|(_, noted)| noted.still_counts(now_us)).collect();
        // The counters of one domain live on one node of a Cluster, so a command has those of one domain only.
        live.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let piece = |noted: &[(Box<[u8]>, Noted)]| {
            let mut batch = Batch::with_capacity(noted.len());
            for (key, noted) in noted {
                // What does not fit any more has been passed by others; the rest does no harm by being left out.
                let hits = match noted.limit.algorithm {
                    Algorithm::FixedWindow => noted.hits,
                    _ => noted.hits.min(u64::from(noted.limit.capacity())),
                };
                batch.push(noted.limit, Mode::Candidate, Hits::Add(hits), |name| name.extend_from_slice(key));
            }
            Arc::new(batch)
        };
        live.chunk_by(|one, other| tag(&one.0) == tag(&other.0))
            .flat_map(|domain| domain.chunks(AT_ONCE))
            .map(piece)
            .collect()
    }
}

impl Noted {
    fn still_counts(&self, now_us: u64) -> bool {
        let window_us = self.limit.window.seconds() * 1_000_000;
        match self.limit.algorithm {
            Algorithm::FixedWindow => self.at_us / window_us == now_us / window_us,
            _ => now_us < self.at_us.saturating_add(window_us),
        }
    }
}

/// Keeps these counters' replicas known and their journal settled, for as long as they live.
pub fn keep_settled(service: &Service, counters: &Arc<Counters>, replica: &str) {
    if counters.redis().is_none() {
        return;
    }
    let (weak, stopping) = (Arc::downgrade(counters), service.tasks().stopping());
    let (clock, replica) = (service.clock().clone(), replica.to_owned());
    service.tasks().spawn("redis-settle", async move {
        tokio::select! {
            () = stopping.wait() => {}
            () = settle_for_ever(weak, clock, replica) => {}
        }
    });
}

async fn settle_for_ever(counters: Weak<Counters>, clock: Clock, replica: String) {
    while let Some(counters) = counters.upgrade() {
        if let Err(error) = settle(&counters, &clock, &replica).await {
            tracing::debug!(%error, "the store could not be settled with");
        }
        drop(counters);
        tokio::time::sleep(EVERY).await;
    }
}

async fn settle(counters: &Counters, clock: &Clock, replica: &str) -> Result<(), StoreError> {
    let (Some(redis), Some(journal)) = (counters.redis(), counters.journal()) else { return Ok(()) };
    let mut say = redis::cmd("EVAL");
    say.arg(PRESENCE).arg(1).arg(redis.stored_key(PRESENCE_KEY)).arg(replica).arg(GONE_AFTER_SECONDS);
    if let Value::Int(replicas) = redis.command(&say).await? {
        counters.know_replicas(u32::try_from(replicas).unwrap_or(1));
    }
    for batch in journal.take(clock.unix_nanos() / 1_000) {
        redis.count(&batch, &mut Vec::new()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Unit, Window};

    const MINUTE_US: u64 = 60_000_000;

    fn call(key: &str, hits: u64) -> Batch {
        let mut batch = Batch::default();
        let limit = Limit::fixed(10, Window::of(Unit::Minute));
        batch.push(limit, Mode::Enforce, Hits::Add(hits), |name| name.extend_from_slice(key.as_bytes()));
        batch
    }

    #[test]
    fn what_was_counted_is_settled_once_and_not_after_its_window() {
        let journal = Journal::default();
        let within = [Tally { used: 1, over: false, resets_in_seconds: 1 }];
        journal.note(&call("a", 2), &within, 5);
        journal.note(&call("a", 3), &within, 6);
        journal.note(&call("b", 1), &within, 6);
        let all = journal.take(7);
        let mut hits: Vec<_> = all.iter().flat_map(|batch| batch.iter().map(|(_, c)| c.hits)).collect();
        hits.sort_by_key(|hits| if let Hits::Add(n) = hits { *n } else { 0 });
        assert_eq!(hits, [Hits::Add(1), Hits::Add(5)]);
        assert!(journal.take(7).is_empty());
        journal.note(&call("a", 2), &within, 5);
        assert!(journal.take(MINUTE_US + 1).is_empty());
        journal.note(&call("a", 2), &within, 5);
        journal.note(&call("a", 4), &within, MINUTE_US);
        assert_eq!(journal.take(MINUTE_US)[0].get(0).1.hits, Hits::Add(4), "the older window is over");
    }
}
