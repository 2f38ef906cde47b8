//! Token buckets by key, bounded.
//!
//! A bucket is one number: the time at which it is full again (the generic cell rate algorithm). When a shard has no
//! room, keys whose bucket has filled up again are forgotten, and if none has, newcomers share one bucket.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

const SHARDS: usize = 16;
/// Keys remembered at once, per shard: about 3 MB in all.
pub(crate) const KEYS_PER_SHARD: usize = 4096;
/// Nanoseconds between two looks for keys to forget, per shard.
const SWEEP_EVERY: u64 = 20_000_000;
const _: () = assert!(SHARDS.is_power_of_two());

/// So many in such a time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds until one more.
    one: u64,
    /// Nanoseconds that a full bucket holds.
    capacity: u64,
}

impl Rate {
    pub(crate) fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let one = (per / u64::from(requests.max(1))).max(1);
        Self { one, capacity: one.saturating_mul(u64::from(burst.max(1))) }
    }

    /// Takes one from a bucket that is full at `full_at`: when it is full then, or how long there is none.
    fn take(self, full_at: u64, now: u64) -> Result<u64, u64> {
        let then = full_at.max(now).saturating_add(self.one);
        let ahead = then - now;
        if ahead > self.capacity { Err(ahead - self.capacity) } else { Ok(then) }
    }
}

/// A bucket for each key, all alike.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    started: Instant,
    /// Seeded, so that nobody outside can crowd one shard.
    seed: RandomState,
    shards: [Mutex<Shard<K>>; SHARDS],
}

#[derive(Debug)]
struct Shard<K> {
    full_at: FxHashMap<K, u64>,
    /// The bucket of those for whom there is no room.
    crowd_full_at: u64,
    /// When keys may be forgotten again: looking for them takes its time.
    sweep_at: u64,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        let shard = || Mutex::new(Shard { full_at: FxHashMap::default(), crowd_full_at: 0, sweep_at: 0 });
        let shards = std::array::from_fn(|_| shard());
        Self { rate, started: Instant::now(), seed: RandomState::new(), shards }
    }

    /// Counts one; an error says how long there is no room.
    pub(crate) fn take(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn take_at(&self, key: K, now: u64) -> Result<(), Duration> {
        let mut shard = self.shards[self.shard_of(&key)].lock();
        if now >= shard.sweep_at && shard.full_at.len() >= KEYS_PER_SHARD && !shard.full_at.contains_key(&key)
        {
            shard.full_at.retain(|_, full_at| *full_at > now);
            shard.sweep_at = now.saturating_add(SWEEP_EVERY);
        }
        let has_room = shard.full_at.len() < KEYS_PER_SHARD || shard.full_at.contains_key(&key);
        let full_at = if has_room { shard.full_at.entry(key).or_default() } else { &mut shard.crowd_full_at };
        *full_at = self.rate.take(*full_at, now).map_err(Duration::from_nanos)?;
        Ok(())
    }

    fn shard_of(&self, key: &K) -> usize {
        usize::try_from(self.seed.hash_one(key) >> 32).unwrap_or_default() % SHARDS
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().full_at.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_empties_and_fills() {
        let buckets = Buckets::new(Rate::new(10, Duration::from_secs(1), 10));
        assert_eq!((0..30).filter(|_| buckets.take_at(1, SECOND).is_ok()).count(), 10);
        assert_eq!(buckets.take_at(1, SECOND), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take_at(1, SECOND + SECOND / 10), Ok(()));
        assert_eq!(buckets.take_at(2, SECOND), Ok(()));
    }

    #[test]
    fn rate_and_burst_are_two_things() {
        for (requests, per, burst, at_once, after_a_minute) in
            [(1, 60, 5, 5, 1), (60, 60, 1, 1, 1), (6, 60, 3, 3, 3), (6, 60, 10, 10, 6)]
        {
            let buckets = Buckets::new(Rate::new(requests, Duration::from_secs(per), burst));
            let passed = |now| (0..100).filter(|_| buckets.take_at((), now).is_ok()).count();
            assert_eq!((passed(SECOND), passed(61 * SECOND)), (at_once, after_a_minute));
        }
    }

    #[test]
    fn newcomers_of_a_full_table_share_a_bucket() {
        let buckets = Buckets::new(Rate::new(1, Duration::from_secs(1), 1));
        let passed = (0..1_000_000_u32).filter(|key| buckets.take_at(*key, SECOND).is_ok()).count();
        assert_eq!(buckets.len(), SHARDS * KEYS_PER_SHARD);
        assert_eq!(passed, SHARDS * KEYS_PER_SHARD + SHARDS);
        // Once their buckets are full again the old ones make room.
        assert!(buckets.take_at(2_000_000, 3 * SECOND).is_ok());
        assert!(buckets.len() < SHARDS * KEYS_PER_SHARD);
    }
}
