//! Counters in this process.
//!
//! A fixed number of shards, each a hash table behind its own lock, which is held for a few
//! instructions and never across an await. An entry is 32 bytes: the key's 128-bit print under
//! hash keys of this process (so nobody can aim at another's counter), the count, the window's end.
//!
//! ```text
//! absent --add--> counting --window over--> stale --touched--> counting anew
//!                    |                        '---swept by a later insertion--> absent
//!                    '---evicted, only when full--> absent
//! ```
//!
//! Nothing ever walks the whole table: each insertion looks at a few buckets from where the last
//! one stopped, and removes what is stale there. When a shard is full of live counters the one with
//! the smallest count among those looked at gives way, so a flood of new keys displaces itself and
//! not the callers near their limits; at most that count is forgotten, and a metric tells.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

use super::{Batch, CounterStore, Counting, StoreError};
use crate::window::{Tally, still_counts};

/// A power of two, well above the number of cores.
const SHARDS: usize = 64;
/// Entries looked at by each insertion; more than one, so that stale ones go faster than new ones come.
const SWEEP: usize = 2;
/// Buckets passed on the way; where entries are that sparse nothing needs sweeping.
const SWEEP_BUCKETS: usize = 16;
/// Entries looked at by an insertion into a full shard, whose buckets are never sparse.
const SWEEP_WHEN_FULL: usize = 16;

/// Counters in this process's memory.
#[derive(Debug)]
pub struct MemoryStore {
    shards: Box<[Aligned]>,
    max_keys_per_shard: usize,
    print: RandomState,
    place: DefaultHashBuilder,
    evicted: AtomicU64,
}

// Neighbouring locks in one cache line would slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

#[derive(Debug, Default)]
struct Shard {
    table: HashTable<Entry>,
    hand: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    print: u128,
    count: u64,
    window_end: u64,
}

impl MemoryStore {
    /// Holds at most about `max_keys` live counters.
    pub fn new(max_keys: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Aligned::default()).collect(),
            max_keys_per_shard: max_keys.div_ceil(SHARDS).max(1),
            print: RandomState::new(),
            place: DefaultHashBuilder::default(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Counters held now, stale ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().table.len()).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live counters that gave way to others so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// As [`CounterStore::count`], which memory does without waiting.
    pub fn count_now(&self, batch: &Batch, now_seconds: u64, tallies: &mut Vec<Tally>) {
        tallies.extend(batch.iter().map(|(key, counting)| self.count_one(key, counting, now_seconds)));
    }

    fn count_one(&self, key: &[u8], counting: &Counting, now_seconds: u64) -> Tally {
        let (secret, place) = (self.print.hash_one(key), self.place.hash_one(key));
        let print = u128::from(secret) << 64 | u128::from(place);
        // The secret half chooses the shard, so the two choices are independent.
        let mut shard = self.shards[secret as usize % SHARDS].0.lock();
        let current_end = counting.window.end(now_seconds);

        if let Some(entry) = shard.table.find_mut(place, |entry| entry.print == print) {
            if !still_counts(entry.window_end, current_end) {
                (entry.count, entry.window_end) = (0, current_end);
            }
            entry.count = counting.hits.applied_to(entry.count);
            return tally(entry.count, entry.window_end, now_seconds);
        }

        let count = counting.hits.applied_to(0);
        if count > 0 {
            let gave_way = shard.make_room(self.max_keys_per_shard, now_seconds);
            self.evicted.fetch_add(gave_way, Ordering::Relaxed);
            let entry = Entry { print, count, window_end: current_end };
            shard.table.insert_unique(place, entry, |entry| entry.print as u64);
        }
        tally(count, current_end, now_seconds)
    }
}

fn tally(count: u64, window_end: u64, now_seconds: u64) -> Tally {
    Tally { count, resets_in_seconds: window_end.saturating_sub(now_seconds).max(1) }
}

impl Shard {
    /// Removes what is stale under the hand, and if the shard is full nonetheless, one live entry.
    /// Returns how many live ones went.
    fn make_room(&mut self, max_keys: usize, now_seconds: u64) -> u64 {
        let full = self.table.len() >= max_keys;
        let buckets = self.table.num_buckets();
        let (mut to_look_at, most_buckets) =
            if full { (SWEEP_WHEN_FULL, buckets) } else { (SWEEP, SWEEP_BUCKETS.min(buckets)) };
        let mut smallest: Option<(u64, usize)> = None;
        for _ in 0..most_buckets {
            self.hand = if self.hand + 1 < buckets { self.hand + 1 } else { 0 };
            let Some(entry) = self.table.get_bucket(self.hand).copied() else { continue };
            if entry.window_end <= now_seconds {
                self.remove(self.hand);
            } else if smallest.is_none_or(|(count, _)| entry.count < count) {
                smallest = Some((entry.count, self.hand));
            }
            to_look_at -= 1;
            if to_look_at == 0 {
                break;
            }
        }
        match smallest {
            Some((_, bucket)) if self.table.len() >= max_keys => {
                self.remove(bucket);
                1
            }
            _ => 0,
        }
    }

    fn remove(&mut self, bucket: usize) {
        if let Ok(entry) = self.table.get_bucket_entry(bucket) {
            entry.remove();
        }
    }
}

impl CounterStore for MemoryStore {
    async fn count(
        &self,
        batch: &Batch,
        now_seconds: u64,
        tallies: &mut Vec<Tally>,
    ) -> Result<(), StoreError> {
        self.count_now(batch, now_seconds, tallies);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::window::{Hits, Unit, Window};

    fn add(store: &MemoryStore, key: &str, hits: u64, now: u64) -> u64 {
        let mut batch = Batch::default();
        batch.push(Window::of(Unit::Minute), Hits::Add(hits), |buffer| buffer.extend(key.as_bytes()));
        let mut tallies = Vec::new();
        store.count_now(&batch, now, &mut tallies);
        tallies[0].count
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
    }

    #[test]
    fn a_storm_of_new_keys_stays_within_the_bound_and_spares_the_busy() {
        let store = MemoryStore::new(6_400);
        assert_eq!(add(&store, "busy", 50, 0), 50);
        for n in 0..100_000 {
            add(&store, &format!("storm-{n}"), 1, 0);
        }
        // A shard may exceed its share by nothing, and all shards together by nothing.
        assert!(store.len() <= 6_400, "{}", store.len());
        assert!(store.evicted() > 90_000);
        assert_eq!(add(&store, "busy", 1, 0), 51);
    }

    #[test]
    fn stale_counters_are_swept_by_later_insertions() {
        let store = MemoryStore::new(1_000_000);
        for minute in 0..50 {
            for n in 0..1_000 {
                add(&store, &format!("{minute}-{n}"), 1, minute * 60);
            }
        }
        assert!(store.len() < 10_000, "{} of 50,000 keys are still there", store.len());
        assert_eq!(store.evicted(), 0);
    }

    #[test]
    fn a_look_leaves_nothing_behind() {
        let store = MemoryStore::new(10);
        let mut batch = Batch::default();
        batch.push(Window::of(Unit::Second), Hits::Look, |buffer| buffer.push(b'k'));
        batch.push(Window::of(Unit::Second), Hits::GiveBack(3), |buffer| buffer.push(b'k'));
        store.count_now(&batch, 5, &mut Vec::new());
        assert!(store.is_empty());
    }

    #[test]
    fn a_clock_that_steps_neither_counts_twice_nor_refuses_for_good() {
        let store = MemoryStore::new(10);
        assert_eq!(add(&store, "k", 1, 1_000_000), 1);
        assert_eq!(add(&store, "k", 1, 1_000_000 - 30), 2, "ten seconds back: the same allowance");
        assert_eq!(add(&store, "k", 1, 1_000_000), 3);
        assert_eq!(add(&store, "k", 1, 500_000), 1, "far back: a new start");
    }

    proptest! {
        /// Against a naive model: a count a key and window, in a map that forgets nothing.
        #[test]
        fn counts_as_a_naive_model_does(
            calls in proptest::collection::vec((0u8..5, 0u8..3, 0u64..4, 0u64..40), 1..200)
        ) {
            let store = MemoryStore::new(1_000);
            let mut model: HashMap<(u8, u64), u64> = HashMap::new();
            let (window, mut now) = (Window::of(Unit::Minute), 1_000_000);
            for (key, kind, number, passed) in calls {
                now += passed;
                let hits = match kind {
                    0 => Hits::Add(number),
                    1 => Hits::GiveBack(number),
                    _ => Hits::Look,
                };
                let expected = model.entry((key, window.end(now))).or_default();
                *expected = hits.applied_to(*expected);
                let mut batch = Batch::default();
                batch.push(window, hits, |buffer| buffer.push(key));
                let mut tallies = Vec::new();
                store.count_now(&batch, now, &mut tallies);
                prop_assert_eq!(tallies[0].count, *expected);
                prop_assert_eq!(tallies[0].resets_in_seconds, window.end(now) - now);
            }
        }
    }
}
