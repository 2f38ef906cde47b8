//! The counters of one call, their keys in one buffer.

use std::ops::Range;

use crate::limits::{Algorithm, Limit, Mode};
use crate::window::Hits;

/// What to count for one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    key: Range<usize>,
    /// The limit to count against.
    pub limit: Limit,
    /// What passing it leads to.
    pub mode: Mode,
    /// What to do to the count.
    pub hits: Hits,
}

/// All counters of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    keys: Vec<u8>,
    countings: Vec<Counting>,
    conditional: bool,
}

impl Batch {
    /// Room for this many counters.
    pub fn with_capacity(countings: usize) -> Self {
        // Most keys are shorter; longer ones make the buffer grow once.
        const USUAL_KEY_BYTES: usize = 96;
        Self {
            keys: Vec::with_capacity(countings * USUAL_KEY_BYTES),
            countings: Vec::with_capacity(countings),
            conditional: false,
        }
    }

    /// Adds a counter whose key `write` appends to the buffer; returns its place among the tallies.
    pub fn push(&mut self, limit: Limit, mode: Mode, hits: Hits, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.keys.len();
        write(&mut self.keys);
        self.conditional |= limit.algorithm != Algorithm::FixedWindow;
        self.countings.push(Counting { key: start..self.keys.len(), limit, mode, hits });
        self.countings.len() - 1
    }

    /// The countings and their keys, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Counting)> {
        self.countings.iter().map(|counting| (&self.keys[counting.key.clone()], counting))
    }

    /// One of them.
    pub fn get(&self, place: usize) -> (&[u8], &Counting) {
        let counting = &self.countings[place];
        (&self.keys[counting.key.clone()], counting)
    }

    /// Whether some counter may be spent only if the whole call passes. Fixed windows count whatever happens, as
    /// the reference has it, so calls that have no others need no such care.
    pub fn is_conditional(&self) -> bool {
        self.conditional
    }

    /// The same with each limit cut to the share of one of so many, rounded up.
    #[must_use]
    pub fn shared_by(&self, replicas: u32) -> Self {
        let mut shared = self.clone();
        for counting in &mut shared.countings {
            let limit = &mut counting.limit;
            limit.requests = limit.requests.div_ceil(replicas);
            if let Algorithm::TokenBucket { burst } = &mut limit.algorithm {
                *burst = burst.div_ceil(replicas);
            }
        }
        shared
    }

    /// All keys, one behind the other.
    pub fn key_bytes(&self) -> &[u8] {
        &self.keys
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.countings.len()
    }

    /// Whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.countings.is_empty()
    }
}
