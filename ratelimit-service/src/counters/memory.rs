//! Counters in this process.
//!
//! A fixed number of shards, each a hash table behind its own lock, which is held for a few
//! instructions and never across an await. An entry is 40 bytes: the 128-bit print of the counter's name
//! under a key of this process (so nobody can aim at another's counter), and the counter's state; the
//! log of a sliding window is beside it. Entries are bounded by number, and tables and logs by bytes.
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

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;
use siphasher::sip128::SipHasher13;

use super::state::{SECOND_US, State, Undo, count_fixed};
use super::{Batch, Counting};
use crate::verdict::Verdict;
use crate::window::Tally;

/// A power of two, well above the number of cores.
const SHARDS: usize = 64;
/// Entries looked at by each insertion; more than one, so that stale ones go faster than new ones come.
const SWEEP: usize = 2;
/// Buckets passed on the way; where entries are that sparse nothing needs sweeping.
const SWEEP_BUCKETS: usize = 16;
/// Entries looked at by an insertion into a full shard, whose buckets are never sparse.
const SWEEP_WHEN_FULL: usize = 16;
/// An entry and the table's byte of control.
const BYTES_A_BUCKET: usize = size_of::<Entry>() + 1;

/// Counters in this process's memory.
#[derive(Debug)]
pub struct MemoryStore {
    shards: Box<[Aligned]>,
    bounds: ShardBounds,
    print: SipHasher13,
    print_key: PrintKey,
    evicted: AtomicU64,
}

/// How much a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Live counters.
    pub max_keys: usize,
    /// Bytes, of tables and logs together.
    pub max_bytes: usize,
}

impl Bounds {
    /// So many counters, whatever they take.
    pub fn keys(max_keys: usize) -> Self {
        Self { max_keys, max_bytes: usize::MAX }
    }
}

#[derive(Debug, Clone, Copy)]
struct ShardBounds {
    keys: usize,
    bytes: usize,
}

// Neighbouring locks in one cache line would slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

#[derive(Debug, Default)]
struct Shard {
    table: HashTable<Entry>,
    hand: usize,
    heap_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    print: Print,
    state: State,
}

/// Whose counter it is: a hash of its name, under a key that nobody outside can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) shard: u64,
    pub(super) place: u64,
}

/// The key of the hash.
pub(super) type PrintKey = [u8; 16];

impl MemoryStore {
    /// Holds this much at most, but room for one counter a shard.
    pub fn new(bounds: Bounds) -> Self {
        Self::with_key(bounds, *uuid::Uuid::new_v4().as_bytes())
    }

    /// As [`Self::new`], for counters whose names were hashed under this key.
    pub(super) fn with_key(bounds: Bounds, print_key: PrintKey) -> Self {
        let per_shard = ShardBounds {
            // Rounded down: all shards together hold no more than was allowed.
            keys: (bounds.max_keys / SHARDS).max(1),
            bytes: bounds.max_bytes / SHARDS,
        };
        Self {
            shards: (0..SHARDS).map(|_| Aligned::default()).collect(),
            bounds: per_shard,
            print: SipHasher13::new_with_key(&print_key),
            print_key,
            evicted: AtomicU64::new(0),
        }
    }

    /// Counters held now, stale ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().table.len()).sum()
    }

    /// Bytes they take now.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().bytes()).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live counters that gave way to others so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Forgets one counter.
    pub fn forget(&self, key: &[u8]) {
        let print = self.print_of(key);
        let mut shard = self.shards[shard_of(print)].0.lock();
        if let Ok(entry) = shard.table.find_entry(print.place, |entry| entry.print == print) {
            let (gone, _) = entry.remove();
            shard.heap_bytes -= gone.state.heap_bytes();
        }
    }

    /// As [`super::CounterStore::count`], which memory does without waiting.
    pub fn count_now(&self, batch: &Batch, now_us: u64, tallies: &mut Vec<Tally>) {
        if batch.is_conditional() {
            self.count_together(batch, now_us, tallies);
        } else {
            let now_seconds = now_us / SECOND_US;
            tallies.extend(batch.iter().map(|(key, counting)| self.count_fixed(key, counting, now_seconds)));
        }
    }

    /// A fixed window by itself: one lock for a few instructions.
    fn count_fixed(&self, key: &[u8], counting: &Counting, now_seconds: u64) -> Tally {
        let print = self.print_of(key);
        let mut shard = self.shards[shard_of(print)].0.lock();
        let tally = |count, window_end: u64| {
            let resets_in_seconds = window_end.saturating_sub(now_seconds);
            Tally::of_fixed(counting.limit.requests, count, counting.hits, resets_in_seconds)
        };
        if let Some(entry) = shard.table.find_mut(print.place, |entry| entry.print == print)
            && let State::Fixed { count, window_end } = &mut entry.state
        {
            count_fixed(count, window_end, &counting.limit, counting.hits, now_seconds);
            return tally(*count, *window_end);
        }
        let (mut count, mut window_end) = (0, 0);
        count_fixed(&mut count, &mut window_end, &counting.limit, counting.hits, now_seconds);
        if count > 0 {
            self.insert(&mut shard, Entry { print, state: State::Fixed { count, window_end } }, now_seconds);
        }
        tally(count, window_end)
    }

    /// All counters of a call under their locks at once: where the call is refused, nothing is spent.
    fn count_together(&self, batch: &Batch, now_us: u64, tallies: &mut Vec<Tally>) {
        let prints: Vec<Print> = batch.iter().map(|(key, _)| self.print_of(key)).collect();
        let mut places: Vec<usize> = prints.iter().map(|print| shard_of(*print)).collect();
        // Everybody locks in the same order, and each shard once.
        places.sort_unstable();
        places.dedup();
        let mut locked: Vec<_> = places.iter().map(|place| self.shards[*place].0.lock()).collect();
        let at = |print: Print| places.binary_search(&shard_of(print)).unwrap_or_default();

        let mut verdict = Verdict::default();
        let mut applied = Vec::with_capacity(batch.len());
        for (print, (_, counting)) in prints.iter().zip(batch.iter()) {
            let shard = &mut locked[at(*print)];
            if shard.find(*print).is_none() {
                let state = State::new(&counting.limit, now_us / SECOND_US);
                self.insert(shard, Entry { print: *print, state }, now_us / SECOND_US);
            }
            let outcome = shard.change(*print, |state| state.apply(&counting.limit, counting.hits, now_us));
            let (over, undo) = outcome.unwrap_or((false, Undo::Nothing));
            verdict.note(counting.mode, over);
            applied.push((over, undo));
        }
        if verdict.refuses() {
            for (print, (_, undo)) in prints.iter().zip(&applied).rev() {
                locked[at(*print)].change(*print, |state| state.undo(undo));
            }
        }
        for ((print, (_, counting)), (over, _)) in prints.iter().zip(batch.iter()).zip(&applied) {
            let stands = locked[at(*print)]
                .change(*print, |state| state.tally(&counting.limit, counting.hits, *over, now_us));
            // An entry that gave way to another of this very call is as one that was never there.
            tallies.push(stands.unwrap_or(Tally { used: 0, over: *over, resets_in_seconds: 1 }));
        }
        for shard in &mut locked {
            self.evicted.fetch_add(shard.keep_within(self.bounds, now_us / SECOND_US), Ordering::Relaxed);
        }
    }

    fn insert(&self, shard: &mut Shard, entry: Entry, now_seconds: u64) {
        let gave_way = shard.make_room(self.bounds, now_seconds);
        self.evicted.fetch_add(gave_way, Ordering::Relaxed);
        shard.heap_bytes += entry.state.heap_bytes();
        shard.table.insert_unique(entry.print.place, entry, |entry| entry.print.place);
    }

    fn print_of(&self, key: &[u8]) -> Print {
        let hash = self.print.hash(key);
        Print { shard: hash.h1, place: hash.h2 }
    }

    /// The key under which names are hashed.
    pub(super) fn print_key(&self) -> PrintKey {
        self.print_key
    }

    /// Shows every counter that still counts, a shard at a time.
    pub(super) fn visit<E>(
        &self,
        now_seconds: u64,
        mut see: impl FnMut(Print, &State) -> Result<(), E>,
    ) -> Result<(), E> {
        self.shards.iter().try_for_each(|shard| {
            let shard = shard.0.lock();
            let mut live = shard.table.iter().filter(|entry| !entry.state.is_stale(now_seconds));
            live.try_for_each(|entry| see(entry.print, &entry.state))
        })
    }

    /// Takes over a counter of an earlier run.
    pub(super) fn restore(&self, print: Print, state: State, now_seconds: u64) {
        if state.is_stale(now_seconds) {
            return;
        }
        let mut shard = self.shards[shard_of(print)].0.lock();
        if shard.find(print).is_none() {
            self.insert(&mut shard, Entry { print, state }, now_seconds);
        }
    }
}

/// One half chooses the shard, the other the place in it, so that the choices are independent.
fn shard_of(print: Print) -> usize {
    print.shard as usize % SHARDS
}

impl Shard {
    fn find(&self, print: Print) -> Option<&Entry> {
        self.table.find(print.place, |entry| entry.print == print)
    }

    /// Changes a counter and keeps count of the bytes it takes.
    fn change<T>(&mut self, print: Print, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let entry = self.table.find_mut(print.place, |entry| entry.print == print)?;
        let before = entry.state.heap_bytes();
        let changed = change(&mut entry.state);
        self.heap_bytes = self.heap_bytes + entry.state.heap_bytes() - before;
        Some(changed)
    }

    fn bytes(&self) -> usize {
        self.table.num_buckets() * BYTES_A_BUCKET + self.heap_bytes
    }

    /// Whether one entry more would be too many, or would make the table grow beyond the bytes there are.
    fn is_full(&self, bounds: ShardBounds) -> bool {
        let grows = self.table.len() == self.table.capacity();
        let table = self.table.num_buckets() * BYTES_A_BUCKET * if grows { 2 } else { 1 };
        self.table.len() >= bounds.keys || (table + self.heap_bytes > bounds.bytes && !self.table.is_empty())
    }

    /// Removes what is stale under the hand, and if the shard is full nonetheless, one live entry.
    /// Returns how many live ones went.
    fn make_room(&mut self, bounds: ShardBounds, now_seconds: u64) -> u64 {
        let full = self.is_full(bounds);
        let buckets = self.table.num_buckets();
        let (mut to_look_at, most_buckets) =
            if full { (SWEEP_WHEN_FULL, buckets) } else { (SWEEP, SWEEP_BUCKETS.min(buckets)) };
        let mut smallest: Option<(u64, usize)> = None;
        for _ in 0..most_buckets {
            self.hand = if self.hand + 1 < buckets { self.hand + 1 } else { 0 };
            let Some(entry) = self.table.get_bucket(self.hand) else { continue };
            let weight = entry.state.weight();
            if entry.state.is_stale(now_seconds) {
                self.remove(self.hand);
            } else if smallest.is_none_or(|(least, _)| weight < least) {
                smallest = Some((weight, self.hand));
            }
            to_look_at -= 1;
            if to_look_at == 0 {
                break;
            }
        }
        match smallest {
            Some((_, bucket)) if self.is_full(bounds) => {
                self.remove(bucket);
                1
            }
            _ => 0,
        }
    }

    /// Logs grow after they were let in; others give way for them. Returns how many live ones went.
    fn keep_within(&mut self, bounds: ShardBounds, now_seconds: u64) -> u64 {
        let mut gone = 0;
        while self.bytes() > bounds.bytes && self.table.len() > 1 {
            let before = self.table.len();
            gone += self.make_room(bounds, now_seconds);
            if self.table.len() == before {
                break;
            }
        }
        gone
    }

    fn remove(&mut self, bucket: usize) {
        if let Ok(entry) = self.table.get_bucket_entry(bucket) {
            let (gone, _) = entry.remove();
            self.heap_bytes -= gone.state.heap_bytes();
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
