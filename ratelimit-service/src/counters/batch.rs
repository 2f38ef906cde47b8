//! The counters of one call, their keys in one buffer.

use std::ops::Range;

use crate::window::{Hits, Window};

/// What to count for one descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    key: Range<usize>,
    /// The window to count in.
    pub window: Window,
    /// What to do to the count.
    pub hits: Hits,
}

/// All counters of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    keys: Vec<u8>,
    countings: Vec<Counting>,
}

impl Batch {
    /// Room for this many counters.
    pub fn with_capacity(countings: usize) -> Self {
        // Most keys are shorter; longer ones make the buffer grow once.
        const USUAL_KEY_BYTES: usize = 96;
        Self {
            keys: Vec::with_capacity(countings * USUAL_KEY_BYTES),
            countings: Vec::with_capacity(countings),
        }
    }

    /// Adds a counter whose key `write` appends to the buffer; returns its place among the tallies.
    pub fn push(&mut self, window: Window, hits: Hits, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.keys.len();
        write(&mut self.keys);
        self.countings.push(Counting { key: start..self.keys.len(), window, hits });
        self.countings.len() - 1
    }

    /// The countings and their keys, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Counting)> {
        self.countings.iter().map(|counting| (&self.keys[counting.key.clone()], counting))
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
