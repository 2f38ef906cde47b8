//! What was decided, kept for whoever asks why: in memory, bounded, cheap to write.
//!
//! ```text
//! Check ──> evaluate ──> Decisions::keep ──> shard of the id ──┬─> ring of allows
//!                                                              └─> ring of refusals
//! ```
//!
//! Refusals have rings of their own, so a flood of allows never pushes one out. A ring that is full writes over its
//! oldest record and uses that record's memory again, so keeping a decision costs a short lock and some copying, and
//! no allocation. Nothing is formatted for it: texts are copied, everything else is numbers until somebody asks.
//!
//! What is not in here: tokens, ever. Values of headers, cookies and keys are kept as keyed hashes ([`Hasher`]): equal
//! values can be seen to be equal while this process lives, and nothing else can be learned from them. Records end
//! with the process; what the proxies report to the dashboard is what outlives it.

mod explanation;
mod filter;
mod record;
mod ring;

use std::hash::{BuildHasher as _, RandomState};

use parking_lot::Mutex;
use uuid::Uuid;

pub use explanation::line;
pub(crate) use explanation::path_of;
pub use filter::Filter;
pub use record::{DecisionRecord, Kept, Record, TokenRecord, TokenSeen, VerdictName};
pub use ring::{MAX_RECORD_BYTES, Room};

use crate::policy::Verdict;
use ring::Ring;

/// How many locks share the work. A power of two, so that a shard is a few bits of the decision's id.
pub const SHARDS: usize = 16;

/// What may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of requests that passed.
    pub allows: Room,
    /// Of requests that did not.
    pub refusals: Room,
}

/// The recent decisions of this process.
#[derive(Debug)]
pub struct Decisions {
    shards: [Mutex<Shard>; SHARDS],
    hasher: Hasher,
}

#[derive(Debug)]
struct Shard {
    allows: Ring,
    refusals: Ring,
}

impl Decisions {
    /// Room for decisions within `bounds`, divided over the shards.
    pub fn new(bounds: Bounds) -> Self {
        let shard = |_| {
            let ring = |room: Room| Ring::new(room.share(SHARDS));
            Mutex::new(Shard { allows: ring(bounds.allows), refusals: ring(bounds.refusals) })
        };
        Self { shards: std::array::from_fn(shard), hasher: Hasher::default() }
    }

    /// Keeps a decision; `fill` writes into a record that is empty but may have memory.
    pub fn keep(&self, id: Uuid, verdict: Verdict, fill: impl FnOnce(&mut Record, &Hasher)) {
        let mut shard = self.shards[shard_of(id)].lock();
        let ring = match verdict {
            Verdict::Allow => &mut shard.allows,
            Verdict::Deny => &mut shard.refusals,
        };
        ring.push(|record| fill(record, &self.hasher));
    }

    /// The decision with this id.
    pub fn find(&self, id: Uuid) -> Option<Record> {
        let shard = self.shards[shard_of(id)].lock();
        [&shard.refusals, &shard.allows]
            .into_iter()
            .find_map(|ring| ring.newest().find(|r| r.id == id))
            .cloned()
    }

    /// Decisions that `filter` lets through and that are older than `before`, the newest first, `limit` at most.
    pub fn list(&self, filter: &Filter, before: Option<Uuid>, limit: usize) -> Vec<Record> {
        let mut found: Vec<Record> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            for ring in [&shard.refusals, &shard.allows] {
                let older = |record: &&Record| before.is_none_or(|before| record.id < before);
                let wanted = ring.newest().filter(older).filter(|record| filter.admits(record));
                found.extend(wanted.take(limit).cloned());
            }
        }
        // Ids are made of time first, so their order is that of the decisions.
        found.sort_by_key(|record| std::cmp::Reverse(record.id));
        found.truncate(limit);
        found
    }

    /// How much is kept now: records and their bytes.
    pub fn held(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock();
            let (allows, refusals) = (shard.allows.held(), shard.refusals.held());
            (allows.0 + refusals.0, allows.1 + refusals.1)
        });
        sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }
}

/// The last bits of an id are random, whoever made it.
fn shard_of(id: Uuid) -> usize {
    usize::from(id.as_bytes()[15]) % SHARDS
}

/// Hashes values that must not be kept, under a key that is drawn when the process starts and never shown.
///
/// SipHash is a keyed function made for this: without the key a hash tells nothing about its value, not even to
/// somebody who can try every value there is.
#[derive(Debug, Default)]
pub struct Hasher(RandomState);

impl Hasher {
    /// The hash of a value.
    pub fn hash(&self, value: &str) -> u64 {
        self.0.hash_one(value)
    }
}

#[cfg(test)]
mod tests;
