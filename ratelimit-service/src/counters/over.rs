//! Who is over a limit anyway: remembered here for a moment, so that a flood of refused calls costs Redis nothing.
//!
//! A fixed number of places, one for each hash; a newcomer takes the place of whoever was there. What is remembered is
//! how much was used and until when, not the verdict, so that a changed limit is judged anew. Held for
//! [`HOLD_SECONDS`] at most: so long may a replica overlook that hits were given back or a counter was reset elsewhere.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Batch, Counting};
use crate::window::{Hits, Tally};

const HOLD_SECONDS: u64 = 1;

/// Remembers exhausted counters.
#[derive(Debug)]
pub(super) struct OverCache {
    places: Box<[Mutex<Place>]>,
    hashing: RandomState,
    /// Nothing is held beyond this second; mostly nobody is over, and then there is nothing to look for.
    held_until: AtomicU64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Place {
    print: u64,
    used: u64,
    hits: u64,
    /// The second at which the counter may have room again; 0 where nothing is remembered.
    free_at: u64,
    held_until: u64,
}

impl OverCache {
    /// With this many places; none at all remembers nothing.
    pub(super) fn new(places: usize) -> Self {
        let places = (0..places).map(|_| Mutex::default()).collect();
        Self { places, hashing: RandomState::new(), held_until: AtomicU64::new(0) }
    }

    /// The tally of a call of one counter that is known to be exhausted. Calls of several are always counted, since
    /// what the others spend depends on all of them.
    pub(super) fn known(&self, batch: &Batch, now_seconds: u64) -> Option<Tally> {
        if batch.len() != 1 || now_seconds >= self.held_until.load(Ordering::Relaxed) {
            return None;
        }
        let (key, counting) = batch.get(0);
        let Hits::Add(hits) = counting.hits else { return None };
        let print = self.hashing.hash_one(key);
        let place = *self.place(print).lock();
        let holds = place.print == print && now_seconds < place.free_at && now_seconds < place.held_until;
        // What did not fit then does not fit now, and neither does more.
        let still_over = hits >= place.hits && place.used + hits > u64::from(counting.limit.capacity());
        (holds && still_over).then(|| Tally {
            used: place.used,
            over: true,
            resets_in_seconds: place.free_at - now_seconds,
        })
    }

    /// Takes note of what the store said.
    pub(super) fn learn(&self, batch: &Batch, tallies: &[Tally], now_seconds: u64) {
        if self.places.is_empty() {
            return;
        }
        for ((key, counting), tally) in batch.iter().zip(tallies) {
            match counting.hits {
                Hits::Add(hits) if tally.over => self.remember(key, counting, hits, tally, now_seconds),
                Hits::GiveBack(_) => self.forget(key),
                _ => {}
            }
        }
    }

    /// Somebody reset the counter, or gave hits back.
    pub(super) fn forget(&self, key: &[u8]) {
        if !self.places.is_empty() {
            *self.place(self.hashing.hash_one(key)).lock() = Place::default();
        }
    }

    fn remember(&self, key: &[u8], counting: &Counting, hits: u64, tally: &Tally, now_seconds: u64) {
        // More at once than there ever is says nothing about how full the counter is.
        if hits > u64::from(counting.limit.capacity()) && counting.limit.capacity() > 0 {
            return;
        }
        let (print, held_until) = (self.hashing.hash_one(key), now_seconds + HOLD_SECONDS);
        let free_at = now_seconds + tally.resets_in_seconds;
        *self.place(print).lock() = Place { print, used: tally.used, hits, free_at, held_until };
        self.held_until.fetch_max(held_until, Ordering::Relaxed);
    }

    fn place(&self, print: u64) -> &Mutex<Place> {
        &self.places[(print >> 16) as usize % self.places.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limit, Mode};
    use crate::window::{Unit, Window};

    fn batch(requests: u32, hits: Hits) -> Batch {
        let mut batch = Batch::default();
        batch.push(Limit::fixed(requests, Window::of(Unit::Minute)), Mode::Enforce, hits, |key| {
            key.push(b'k')
        });
        batch
    }

    #[test]
    fn remembers_for_a_moment_whoever_is_over() {
        let cache = OverCache::new(16);
        let over = Tally { used: 11, over: true, resets_in_seconds: 30 };
        cache.learn(&batch(10, Hits::Add(1)), &[over], 100);
        assert_eq!(cache.known(&batch(10, Hits::Add(1)), 100), Some(over));
        assert_eq!(cache.known(&batch(10, Hits::Add(3)), 100), Some(over));
        assert_eq!(cache.known(&batch(10, Hits::Look), 100), None, "a look is always made");
        assert_eq!(cache.known(&batch(20, Hits::Add(1)), 100), None, "the limit was raised");
        assert_eq!(cache.known(&batch(10, Hits::Add(1)), 101), None, "the moment is over");
        cache.learn(&batch(10, Hits::GiveBack(1)), &[Tally { over: false, ..over }], 100);
        assert_eq!(cache.known(&batch(10, Hits::Add(1)), 100), None);
    }
}
